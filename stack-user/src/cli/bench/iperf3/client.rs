//! The client of a test: it says what is measured, and when it is over.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use super::{
    control::{Broken, Control, Cookie, PATIENCE, RESULTS_LIMIT, State},
    options::ClientOptions,
    parameters::{Direction, End, Parameters, Protocol, Test},
    report::Side,
    results::Results,
    running::{Running, Style, write},
    udp,
};
use crate::cli::{
    bench::{
        dial::{dial, dial_again},
        transport::{Flow, Transport},
    },
    console::{Console, Output},
    error::{Exit, Failure},
    network::Connection,
};

/// How a test came to its end.
enum Ended {
    /// It is done.
    Done,
    /// The user has had enough.
    Stopped(Exit),
    /// The server says something.
    Said(Result<State, Broken>),
}

/// Runs one test.
pub(in crate::cli::bench) async fn run<N: Transport>(
    options: ClientOptions,
    mut console: Console,
    network: &N,
    mut stop: Pin<&mut impl Future<Output = Exit>>,
) -> Result<Exit, Failure> {
    // What can't be sent is said before anybody is asked.
    options.test(None)?;
    let output = &mut console.output;
    let cookie = Cookie::random().map_err(|error| Failure::Bench(format!("no random numbers: {error}")))?;
    let opening = async {
        let (control, remote) = dial(network, &options.host, options.port, PATIENCE).await?;
        let mut control = Control::new(control);
        let fares = control.stream().fares();
        let test = options.test(fares.as_ref().map(|fares| fares.mss as usize))?;
        let style = Style { json: options.json, every: options.interval, verbose: options.common.verbose };
        let mut running = Running::new(Side::Client, test, style);
        if !style.json {
            write(output, &greeting(&options, &running.test)).await?;
        }
        control.send_cookie(&cookie).await?;
        control.expect(State::ParamExchange, "the server's answer").await?;
        control.write_message(&Parameters::from(&running.test)).await?;
        control.expect(State::CreateStreams, "the server's answer").await?;
        create_streams(network, &mut running, (control.stream().local_addr(), remote), &cookie).await?;
        let mss = fares.map_or(0, |fares| fares.mss);
        running.tell_connected(output, (&options.host, options.port), &cookie, mss).await?;
        control.expect(State::TestStart, "the start of the test").await?;
        control.expect(State::TestRunning, "the start of the test").await?;
        Ok::<_, Failure>((control, running))
    };
    let (mut control, mut running) = tokio::select! {
        biased;
        exit = &mut stop => return Ok(exit),
        opened = opening => opened?,
    };
    let measured = measure(&mut control, &mut running, output, stop).await;
    running.finish(output, measured.as_ref().err()).await?;
    let exit = measured?;
    if exit == Exit::Success && !options.json {
        write(output, "\niperf Done.\n").await?;
    }
    Ok(exit)
}

/// From the first byte to the last word.
async fn measure<N: Transport>(
    control: &mut Control<N::Stream>,
    running: &mut Running<N>,
    output: &mut Output,
    mut stop: Pin<&mut impl Future<Output = Exit>>,
) -> Result<Exit, Broken> {
    let deadline = deadline(&running.test);
    let (sent, received) = (running.sent.clone(), running.received.clone());
    let until = async {
        tokio::select! {
            biased;
            exit = stop.as_mut() => Ended::Stopped(exit),
            said = control.receive() => Ended::Said(said),
            () = deadline => Ended::Done,
            () = sent.reached() => Ended::Done,
            () = received.reached() => Ended::Done,
        }
    };
    let ended = running.run(output, until).await;
    running.end(output).await?;
    let ours = running.results();
    let broken = match ended {
        Ok(Ended::Done) => {
            let theirs = tokio::select! {
                biased;
                exit = stop => Err(exit),
                theirs = exchange(control, &ours) => Ok(theirs),
            };
            running.close().await;
            let theirs = match theirs {
                Ok(theirs) => theirs,
                // In the middle of a message there is nothing that the server could be told.
                Err(exit) => {
                    running.tell_summary(output, &ours, None).await?;
                    return Ok(exit);
                }
            };
            running.tell_summary(output, &ours, theirs.as_ref().ok()).await?;
            theirs?;
            control.send(State::IperfDone).await?;
            return Ok(Exit::Success);
        }
        Ok(Ended::Stopped(exit)) => {
            // Whether that arrives makes no difference to what was measured.
            let _ = control.send(State::ClientTerminate).await;
            running.tell_summary(output, &ours, None).await?;
            return Ok(exit);
        }
        Ok(Ended::Said(Ok(state))) => control.instead(state).await,
        Ok(Ended::Said(Err(broken))) => broken,
        Err(broken) => {
            let _ = control.send(State::ClientTerminate).await;
            broken
        }
    };
    running.tell_summary(output, &ours, None).await?;
    Err(broken)
}

/// Tells the server that it is over, and each other what was measured.
async fn exchange<S: Flow>(control: &mut Control<S>, ours: &Results) -> Result<Results, Broken> {
    control.send(State::TestEnd).await?;
    control.expect(State::ExchangeResults, "the server's word that it has stopped").await?;
    control.write_message(ours).await?;
    let theirs = control.read_message(RESULTS_LIMIT, "the server's results").await?;
    control.expect(State::DisplayResults, "the end of the test").await?;
    Ok(theirs)
}

/// Returns when the time is over, if a time was said.
fn deadline(test: &Test) -> impl Future<Output = ()> + use<> {
    let seconds = match test.end {
        End::Seconds(seconds) => Some(seconds + test.omit),
        End::Bytes(_) | End::Blocks(_) | End::Never => None,
    };
    async move {
        match seconds {
            Some(seconds) => sleep_until(Instant::now() + Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    }
}

fn greeting(options: &ClientOptions, test: &Test) -> String {
    let mut text = format!("Connecting to host {}, port {}\n", options.host, options.port);
    if test.direction == Direction::Reverse {
        text += &format!("Reverse mode, remote host {} is sending\n", options.host);
    }
    text
}

/// The streams, in the order that gives them their numbers: those that send before those that receive.
async fn create_streams<N: Transport>(
    network: &N,
    running: &mut Running<N>,
    (local, remote): (Option<SocketAddr>, SocketAddr),
    cookie: &Cookie,
) -> Result<(), Failure> {
    let test = &running.test;
    let directions: Vec<bool> = Side::Client
        .directions(test.direction)
        .iter()
        .flat_map(|&sends| std::iter::repeat_n(sends, test.streams as usize))
        .collect();
    let protocol = test.protocol;
    for sends in directions {
        if protocol == Protocol::Udp {
            let any: IpAddr = match remote {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            let socket = network.datagrams((any, 0).into()).await.map_err(Broken::Stream)?;
            udp::greet(&socket, remote).await?;
            running.add_datagrams(Arc::new(socket), (local.map(|local| local.ip()), remote), sends);
            continue;
        }
        let mut stream = Control::new(dial_again(network, &remote.ip().to_string(), remote, PATIENCE).await?);
        stream.send_cookie(cookie).await?;
        running.add(stream.into_inner(), remote, sends);
    }
    Ok(())
}
