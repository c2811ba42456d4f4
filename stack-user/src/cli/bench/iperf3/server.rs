//! The server of tests: one at a time, as a client says, and not longer than a client is there.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Notify, mpsc},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    control::{Broken, Control, Cookie, PARAMETERS_LIMIT, PATIENCE, RESULTS_LIMIT, State, all_in_time},
    parameters::{End, MAX_SECONDS, MAX_STREAMS, Parameters, Protocol, Test, error_number},
    report::Side,
    running::{Running, Style, write},
    udp,
};
use crate::cli::{
    bench::transport::{Flow, Transport},
    console::{Console, Diagnostics, Output, printable},
    network::Connection,
};

/// How much longer than it is to last a test may take: ten changes of its state over the slowest of paths, as iperf3 has it.
const GRACE: Duration = Duration::from_secs(40);

/// Streams that may wait for a test to take them: those of both directions.
const ARRIVALS: usize = 2 * MAX_STREAMS as usize;

/// iperf3's number for a server that can't open the socket for streams.
const IESTREAMLISTEN: i32 = 202;

/// Serves tests, of which there is one at a time.
pub(in crate::cli::bench) struct Server<N: Transport> {
    network: Arc<N>,
    /// Where it listens.
    local: SocketAddr,
    style: Style,
    is_one_off: bool,
    /// The test that runs has it.
    output: tokio::sync::Mutex<Output>,
    diagnostics: Diagnostics,
    desk: Mutex<Desk<N::Stream>>,
    /// A test has come to its end.
    is_done: Notify,
    /// There is room for the next one.
    has_left: Notify,
    stopping: CancellationToken,
}

/// Who is served.
enum Desk<S> {
    Nobody,
    /// Whoever has this cookie; further connections with it are streams.
    One(Cookie, mpsc::Sender<Arrival<S>>),
    /// Somebody who has got all that there is, and is about to go.
    Leaving,
}

/// A connection that is to be a stream.
struct Arrival<S> {
    /// In the order in which they were accepted, which is the one that the client has.
    number: u64,
    stream: S,
    remote: SocketAddr,
}

/// What a connection is.
enum Place<S> {
    /// A client that is served from now on, and where its streams arrive.
    Client(S, mpsc::Receiver<Arrival<S>>),
    /// One of its streams.
    Stream,
    /// Somebody else's, who is not served.
    Busy(S),
    /// Somebody else's, who is served as soon as there is room.
    Next(S),
}

/// Somebody is served as long as this is there.
struct Turn<'a, N: Transport>(&'a Server<N>);

impl<N: Transport> Drop for Turn<'_, N> {
    fn drop(&mut self) {
        *self.0.desk() = Desk::Nobody;
        self.0.has_left.notify_waiters();
    }
}

/// How a test came to its end.
enum Ended {
    /// Its client says something.
    Said(Result<State, Broken>),
    /// Its client says nothing, though its time is over.
    Overdue,
    /// The server is to stop.
    Stopping,
}

impl<N: Transport> Server<N> {
    fn desk(&self) -> MutexGuard<'_, Desk<N::Stream>> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A server that reports to the console, until `stopping` is cancelled.
    pub(in crate::cli::bench) fn new(
        (network, local): (Arc<N>, SocketAddr),
        (json, every, verbose): (bool, Duration, bool),
        is_one_off: bool,
        console: Console,
        stopping: CancellationToken,
    ) -> Self {
        Self {
            network,
            local,
            style: Style { json, every, verbose },
            is_one_off,
            output: tokio::sync::Mutex::new(console.output),
            diagnostics: console.diagnostics,
            desk: Mutex::new(Desk::Nobody),
            is_done: Notify::new(),
            has_left: Notify::new(),
            stopping,
        }
    }

    /// Returns when a server of one test has served it.
    pub(in crate::cli::bench) async fn done(&self) {
        self.is_done.notified().await;
    }

    /// Serves one connection, of which `head` was read: a client's first, or one of its streams. Its number is its place in the
    /// order in which connections were accepted.
    pub(in crate::cli::bench) async fn serve(
        &self,
        mut stream: N::Stream,
        remote: SocketAddr,
        number: u64,
        head: &[u8],
    ) {
        let mut cookie = [0; Cookie::LENGTH];
        let (read, rest) = cookie.split_at_mut(head.len());
        read.copy_from_slice(head);
        let is_whole = matches!(timeout(PATIENCE, stream.read_exact(rest)).await, Ok(Ok(_)));
        let Some(cookie) = Cookie::parse(cookie).filter(|_| is_whole) else { return stream.reset() };
        let (stream, arrivals) = loop {
            let has_left = self.has_left.notified();
            match self.place(cookie, Arrival { number, stream, remote }) {
                Place::Stream => return,
                Place::Busy(stream) => return deny(stream).await,
                Place::Client(stream, arrivals) => break (stream, arrivals),
                Place::Next(waiting) => {
                    stream = waiting;
                    // Should nobody say so, there is somebody else by now.
                    let _ = timeout(PATIENCE, has_left).await;
                }
            }
        };
        let turn = Turn(self);
        let mut output = self.output.lock().await;
        let served = self.test(Control::new(stream), remote, &cookie, arrivals, &mut output).await;
        drop(turn);
        if let Err(broken) = served {
            self.diagnostics.line(&printable(&format!("xstack: {remote}: {broken}")));
        }
        if self.is_one_off {
            self.is_done.notify_one();
        }
    }

    fn place(&self, cookie: Cookie, arrival: Arrival<N::Stream>) -> Place<N::Stream> {
        let mut desk = self.desk();
        match &*desk {
            Desk::Nobody => {
                let (streams, arrivals) = mpsc::channel(ARRIVALS);
                *desk = Desk::One(cookie, streams);
                Place::Client(arrival.stream, arrivals)
            }
            Desk::One(current, streams) if *current == cookie => {
                // More than were asked for are not taken.
                let _ = streams.try_send(arrival);
                Place::Stream
            }
            Desk::One(..) => Place::Busy(arrival.stream),
            Desk::Leaving => Place::Next(arrival.stream),
        }
    }

    async fn test(
        &self,
        mut control: Control<N::Stream>,
        remote: SocketAddr,
        cookie: &Cookie,
        mut arrivals: mpsc::Receiver<Arrival<N::Stream>>,
        output: &mut Output,
    ) -> Result<(), Broken> {
        control.send(State::ParamExchange).await?;
        let test = match self.parameters(&mut control).await {
            Ok(test) => test,
            Err(broken) => {
                let _ = control.send_error(error_number(&broken)).await;
                return Err(broken);
            }
        };
        let (host, port) = (remote.ip().to_string(), remote.port());
        if !self.style.json {
            write(output, &format!("Accepted connection from {host}, port {port}\n")).await?;
        }
        let mss = control.stream().fares().map_or(0, |fares| fares.mss);
        let mut running = Running::new(Side::Server, test, self.style);
        match running.test.protocol {
            Protocol::Tcp => {
                control.send(State::CreateStreams).await?;
                self.streams(&mut control, &mut running, &mut arrivals).await?;
            }
            Protocol::Udp => self.datagrams(&mut control, &mut running, remote.ip()).await?,
        }
        // Who comes now comes too late.
        drop(arrivals);
        running.tell_connected(output, (&host, port), cookie, mss).await?;
        control.send(State::TestStart).await?;
        control.send(State::TestRunning).await?;
        let served = self.measure(&mut control, &mut running, output).await;
        running.finish(output, served.as_ref().err()).await?;
        served
    }

    async fn parameters(&self, control: &mut Control<N::Stream>) -> Result<Test, Broken> {
        let asked: Parameters = control.read_message(PARAMETERS_LIMIT, "the parameters of the test").await?;
        Test::try_from(asked)
    }

    /// Waits for as many streams as there are to be. The client sends by the first, and receives from the others.
    async fn streams(
        &self,
        control: &mut Control<N::Stream>,
        running: &mut Running<N>,
        arrivals: &mut mpsc::Receiver<Arrival<N::Stream>>,
    ) -> Result<(), Broken> {
        let each = running.test.streams as usize;
        let directions = Side::Server.directions(running.test.direction);
        let mut arrived = tokio::select! {
            biased;
            arrived = all_of(arrivals, each * directions.len()) => arrived?,
            said = control.receive() => return Err(control.instead(said?).await),
            () = self.stopping.cancelled() => return Err(Broken::ServerTerminated),
        };
        arrived.sort_unstable_by_key(|arrival| arrival.number);
        for (number, Arrival { stream, remote, .. }) in arrived.into_iter().enumerate() {
            running.add(stream, remote, directions[number / each]);
        }
        Ok(())
    }

    /// The same by UDP, on the port where clients of TCP come in.
    async fn datagrams(
        &self,
        control: &mut Control<N::Stream>,
        running: &mut Running<N>,
        client: IpAddr,
    ) -> Result<(), Broken> {
        let socket = match self.network.datagrams(self.local).await {
            Ok(socket) => Arc::new(socket),
            Err(error) => {
                let _ = control.send_error(IESTREAMLISTEN).await;
                return Err(Broken::Stream(error));
            }
        };
        control.send(State::CreateStreams).await?;
        let each = running.test.streams as usize;
        let directions = Side::Server.directions(running.test.direction);
        let remotes = tokio::select! {
            biased;
            remotes = udp::welcome(&*socket, client, each * directions.len()) => remotes?,
            said = control.receive() => return Err(control.instead(said?).await),
            () = self.stopping.cancelled() => return Err(Broken::ServerTerminated),
        };
        let local = control.stream().local_addr().map(|local| local.ip());
        for (number, remote) in remotes.into_iter().enumerate() {
            running.add_datagrams(Arc::clone(&socket), (local, remote), directions[number / each]);
        }
        Ok(())
    }

    async fn measure(
        &self,
        control: &mut Control<N::Stream>,
        running: &mut Running<N>,
        output: &mut Output,
    ) -> Result<(), Broken> {
        let most = longest(&running.test);
        let until = async {
            tokio::select! {
                biased;
                said = control.receive() => Ended::Said(said),
                () = sleep(most) => Ended::Overdue,
                () = self.stopping.cancelled() => Ended::Stopping,
            }
        };
        let ended = running.run(output, until).await;
        running.end(output).await?;
        let ours = running.results();
        running.close().await;
        let broken = match ended {
            Ok(Ended::Said(Ok(State::TestEnd))) => {
                control.send(State::ExchangeResults).await?;
                let theirs = control.read_message(RESULTS_LIMIT, "the client's results").await?;
                control.write_message(&ours).await?;
                // The client may be gone, and back with another test, before all is told here.
                *self.desk() = Desk::Leaving;
                control.send(State::DisplayResults).await?;
                running.tell_summary(output, &ours, Some(&theirs)).await?;
                // Whoever goes without a word has what they wanted.
                let _ = control.expect(State::IperfDone, "the client's good-bye").await;
                return Ok(());
            }
            Ok(Ended::Said(Ok(state))) => control.instead(state).await,
            Ok(Ended::Said(Err(broken))) => broken,
            Ok(Ended::Overdue) => Broken::Overdue,
            Ok(Ended::Stopping) => Broken::ServerTerminated,
            Err(broken) => broken,
        };
        if !matches!(broken, Broken::Closed | Broken::ClientTerminated) {
            let _ = control.send(State::ServerTerminate).await;
        }
        running.tell_summary(output, &ours, None).await?;
        Err(broken)
    }
}

/// How long a test may take. One that does not end by the clock is over after the longest time that can be asked for: whoever
/// keeps a few bytes moving would keep the server from others for ever.
fn longest(test: &Test) -> Duration {
    let seconds = match test.end {
        End::Seconds(seconds) => seconds,
        End::Bytes(_) | End::Blocks(_) | End::Never => MAX_SECONDS,
    };
    Duration::from_secs(seconds + test.omit) + GRACE
}

/// As many streams as there are to be.
async fn all_of<S>(
    arrivals: &mut mpsc::Receiver<Arrival<S>>,
    count: usize,
) -> Result<Vec<Arrival<S>>, Broken> {
    let mut arrived = Vec::with_capacity(count);
    let all = async {
        while arrived.len() < count {
            arrived.push(arrivals.recv().await.ok_or(Broken::Closed)?);
        }
        Ok(())
    };
    all_in_time(count, all).await?;
    Ok(arrived)
}

/// Somebody else is being served.
async fn deny<S: Flow>(mut stream: S) {
    let told = async {
        stream.write_i8(State::AccessDenied as i8).await?;
        stream.shutdown().await
    };
    let _ = timeout(PATIENCE, told).await;
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[test]
    fn no_test_is_longer_than_a_day() {
        for (asked, seconds) in [
            (r#"{"tcp":true,"parallel":1,"time":7,"omit":2}"#, 9),
            (r#"{"tcp":true,"parallel":1,"time":86400}"#, 86_400),
            (r#"{"tcp":true,"parallel":1}"#, 86_400),
            (r#"{"tcp":true,"parallel":1,"num":1e18}"#, 86_400),
            (r#"{"tcp":true,"parallel":1,"blockcount":1e18,"omit":600}"#, 87_000),
        ] {
            let parameters: Parameters = serde_json::from_str(asked).expect("JSON");
            let test = Test::try_from(parameters).expect("in its bounds");
            assert_eq!(longest(&test), Duration::from_secs(seconds) + GRACE, "{asked}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn streams_that_come_one_by_one_at_the_last_moment_are_not_waited_for_without_end() {
        let (streams, mut arrivals) = mpsc::channel(ARRIVALS);
        tokio::spawn(async move {
            for number in 0.. {
                sleep(PATIENCE - Duration::from_secs(1)).await;
                let arrival = Arrival { number, stream: (), remote: ([127, 0, 0, 1], 5201).into() };
                if streams.send(arrival).await.is_err() {
                    break;
                }
            }
        });
        let begun = Instant::now();
        let arrived = all_of(&mut arrivals, 8).await.map(|arrived| arrived.len());
        assert!(matches!(arrived, Err(Broken::Silent { .. })), "{arrived:?}");
        assert_eq!(begun.elapsed(), PATIENCE + Duration::from_secs(4), "half a second for each");
        let arrived = all_of(&mut arrivals, 1).await.expect("there is one");
        assert_eq!(arrived.len(), 1);
    }
}
