//! The server of tests: one at a time, as a client says, and not longer than a client is there.

use std::{
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Notify, mpsc},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    control::{Broken, Control, Cookie, PARAMETERS_LIMIT, PATIENCE, RESULTS_LIMIT, State, in_time},
    parameters::{End, MAX_STREAMS, Parameters, Protocol, Test, error_number},
    report::Side,
    running::{Running, Style, write},
};
use crate::cli::{
    bench::transport::Flow,
    console::{Console, Diagnostics, Output, printable},
};

/// How much longer than it is to last a test may take: ten changes of its state over the slowest of paths, as iperf3 has it.
const GRACE: Duration = Duration::from_secs(40);

/// Streams that may wait for a test to take them: those of both directions.
const ARRIVALS: usize = 2 * MAX_STREAMS as usize;

/// Serves tests, of which there is one at a time.
pub(in crate::cli::bench) struct Server<S> {
    style: Style,
    is_one_off: bool,
    /// The test that runs has it.
    output: tokio::sync::Mutex<Output>,
    diagnostics: Diagnostics,
    desk: Mutex<Desk<S>>,
    /// A test has come to its end.
    is_done: Notify,
    stopping: CancellationToken,
}

/// Who is served.
enum Desk<S> {
    Nobody,
    /// Whoever has this cookie; further connections with it are streams.
    One(Cookie, mpsc::Sender<Arrival<S>>),
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
    /// Somebody else's.
    Busy(S),
}

/// Somebody is served as long as this is there.
struct Turn<'a, S>(&'a Server<S>);

impl<S> Drop for Turn<'_, S> {
    fn drop(&mut self) {
        *self.0.desk() = Desk::Nobody;
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

impl<S> Server<S> {
    fn desk(&self) -> MutexGuard<'_, Desk<S>> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Flow> Server<S> {
    /// A server that reports to the console, until `stopping` is cancelled.
    pub(in crate::cli::bench) fn new(
        (json, every, verbose): (bool, Duration, bool),
        is_one_off: bool,
        console: Console,
        stopping: CancellationToken,
    ) -> Self {
        Self {
            style: Style { json, every, verbose },
            is_one_off,
            output: tokio::sync::Mutex::new(console.output),
            diagnostics: console.diagnostics,
            desk: Mutex::new(Desk::Nobody),
            is_done: Notify::new(),
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
        mut stream: S,
        remote: SocketAddr,
        number: u64,
        head: &[u8],
    ) {
        let mut cookie = [0; Cookie::LENGTH];
        let (read, rest) = cookie.split_at_mut(head.len());
        read.copy_from_slice(head);
        let is_whole = matches!(timeout(PATIENCE, stream.read_exact(rest)).await, Ok(Ok(_)));
        let Some(cookie) = Cookie::parse(cookie).filter(|_| is_whole) else { return stream.reset() };
        let (stream, arrivals) = match self.place(cookie, Arrival { number, stream, remote }) {
            Place::Stream => return,
            Place::Busy(stream) => return deny(stream).await,
            Place::Client(stream, arrivals) => (stream, arrivals),
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

    fn place(&self, cookie: Cookie, arrival: Arrival<S>) -> Place<S> {
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
        }
    }

    async fn test(
        &self,
        mut control: Control<S>,
        remote: SocketAddr,
        cookie: &Cookie,
        mut arrivals: mpsc::Receiver<Arrival<S>>,
        output: &mut Output,
    ) -> Result<(), Broken> {
        in_time("the client", control.send(State::ParamExchange)).await?;
        let test = match self.parameters(&mut control).await {
            Ok(test) => test,
            Err(broken) => {
                let _ = in_time("the client", control.send_error(error_number(&broken))).await;
                return Err(broken);
            }
        };
        let (host, port) = (remote.ip().to_string(), remote.port());
        if !self.style.json {
            write(output, &format!("Accepted connection from {host}, port {port}\n")).await?;
        }
        let mss = control.stream().fares().map_or(0, |fares| fares.mss);
        let mut running = Running::new(Side::Server, test, self.style);
        control.send(State::CreateStreams).await?;
        self.streams(&mut control, &mut running, &mut arrivals).await?;
        // Who comes now comes too late.
        drop(arrivals);
        running.tell_connected(output, (&host, port), cookie, mss).await?;
        control.send(State::TestStart).await?;
        control.send(State::TestRunning).await?;
        let served = self.measure(&mut control, &mut running, output).await;
        running.finish(output, served.as_ref().err()).await?;
        served
    }

    async fn parameters(&self, control: &mut Control<S>) -> Result<Test, Broken> {
        let asked: Parameters = control.read_message(PARAMETERS_LIMIT, "the parameters of the test").await?;
        let test = Test::try_from(asked)?;
        if test.protocol == Protocol::Udp {
            return Err(Broken::Impossible("UDP is not spoken here"));
        }
        Ok(test)
    }

    /// Waits for as many streams as there are to be. The client sends by the first, and receives from the others.
    async fn streams(
        &self,
        control: &mut Control<S>,
        running: &mut Running<S>,
        arrivals: &mut mpsc::Receiver<Arrival<S>>,
    ) -> Result<(), Broken> {
        let each = running.test.streams as usize;
        let directions = Side::Server.directions(running.test.direction);
        let mut arrived = Vec::with_capacity(each * directions.len());
        while arrived.len() < each * directions.len() {
            let next = async { arrivals.recv().await.ok_or(Broken::Closed) };
            tokio::select! {
                biased;
                arrival = in_time("a stream", next) => arrived.push(arrival?),
                said = control.receive() => return Err(control.instead(said?).await),
                () = self.stopping.cancelled() => return Err(Broken::ServerTerminated),
            }
        }
        arrived.sort_unstable_by_key(|arrival| arrival.number);
        for (number, Arrival { stream, remote, .. }) in arrived.into_iter().enumerate() {
            running.add(stream, remote, directions[number / each]);
        }
        Ok(())
    }

    async fn measure(
        &self,
        control: &mut Control<S>,
        running: &mut Running<S>,
        output: &mut Output,
    ) -> Result<(), Broken> {
        let most = match running.test.end {
            End::Seconds(seconds) => Some(Duration::from_secs(seconds + running.test.omit) + GRACE),
            // It lasts for as long as something comes or goes.
            End::Bytes(_) | End::Blocks(_) | End::Never => None,
        };
        let overdue = async {
            match most {
                Some(most) => sleep(most).await,
                None => std::future::pending().await,
            }
        };
        let until = async {
            tokio::select! {
                biased;
                said = control.receive() => Ended::Said(said),
                () = overdue => Ended::Overdue,
                () = self.stopping.cancelled() => Ended::Stopping,
            }
        };
        let ended = running.run(output, until).await;
        running.end(output).await?;
        let ours = running.results();
        running.close();
        let broken = match ended {
            Ok(Ended::Said(Ok(State::TestEnd))) => {
                control.send(State::ExchangeResults).await?;
                let theirs = control.read_message(RESULTS_LIMIT, "the client's results").await?;
                control.write_message(&ours).await?;
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
            let _ = in_time("the client", control.send(State::ServerTerminate)).await;
        }
        running.tell_summary(output, &ours, None).await?;
        Err(broken)
    }
}

/// Somebody else is being served.
async fn deny<S: Flow>(mut stream: S) {
    let told = async {
        stream.write_i8(State::AccessDenied as i8).await?;
        stream.shutdown().await
    };
    let _ = timeout(PATIENCE, told).await;
}
