//! `xstack bench rr`: requests and responses on connections that stay.

use std::{pin::Pin, sync::Arc};

use clap::{Args, value_parser};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    runtime::Handle,
    task::JoinSet,
    time::Instant,
};

use super::{
    broken::Broken,
    client::{PATIENCE, agree, open},
    course::Course,
    open_loop::{self, Pace},
    options::{Length, Sizes, Target, Telling},
    payload::{receive, send},
    protocol::{Hello, Lengths, Purpose},
    report::Teller,
};
use crate::cli::{
    bench::dial::dial,
    console::Console,
    error::{Exit, Failure},
    network::{Connection, Network},
};

/// Connections at most: each is a task. `bench conns` is for more.
const MAX_CONNECTIONS: i64 = 100_000;

/// Requests in a second at most: what a core can send.
const MAX_RATE: i64 = 100_000_000;

/// What `xstack bench rr` can be told.
#[derive(Args, Clone, Debug)]
pub struct RrOptions {
    /// The other end.
    #[command(flatten)]
    pub target: Target,

    /// Lengths.
    #[command(flatten)]
    pub sizes: Sizes,

    /// Ask over N connections at once
    #[arg(short = 'c', long, value_name = "N", default_value_t = 1,
          value_parser = value_parser!(u32).range(1..=MAX_CONNECTIONS))]
    pub connections: u32,

    /// Send N requests a second, over all connections, and count from when each was due [default: ask again when answered]
    ///
    /// Without it, nothing is asked while an answer is late, so that one request shows the delay where users would have sent
    /// hundreds meanwhile; what the numbers then tell is the time of a transaction, and not what users see. From 500 a second
    /// on, the client waits without sleeping.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=MAX_RATE))]
    pub rate: Option<u32>,

    /// How long.
    #[command(flatten)]
    pub length: Length,

    /// What is told.
    #[command(flatten)]
    pub telling: Telling,
}

/// Measures, and tells.
pub(in crate::cli::bench) async fn run<N: Network>(
    options: RrOptions,
    console: Console,
    network: &Arc<N>,
    mut stop: Pin<&mut impl Future<Output = Exit>>,
) -> Result<Exit, Failure> {
    let lengths = options.sizes.into();
    let streams = tokio::select! {
        biased;
        exit = &mut stop => return Ok(exit),
        connected = connect(&**network, &options, lengths) => connected?,
    };
    let mut teller = Teller::new(console.output, options.telling);
    let course = Course::begin(options.length.extent());
    let mut workers = JoinSet::new();
    for (number, stream) in (0..).zip(streams) {
        let pace = options.rate.map(|rate| Pace::new(course.begins(), rate, number, options.connections));
        let runtime = stream.runtime().unwrap_or_else(Handle::current);
        workers.spawn_on(work(stream, lengths, pace, Arc::clone(&course)), &runtime);
    }
    let outcome = course.attend(workers, &mut teller, stop).await?;
    teller.tell_rr(&options, &outcome).await?;
    Ok(outcome.stopped.unwrap_or(Exit::Success))
}

/// All connections, each with the server's agreement.
async fn connect<N: Network>(
    network: &N,
    options: &RrOptions,
    lengths: Lengths,
) -> Result<Vec<N::Stream>, Failure> {
    let hello = Hello { purpose: Purpose::Requests, lengths };
    let (mut first, remote) = dial(network, &options.target.host, options.target.port, PATIENCE).await?;
    agree(&mut first, hello).await?;
    let mut streams = vec![first];
    for _ in 1..options.connections {
        streams.push(open(network, remote, hello).await?);
    }
    Ok(streams)
}

async fn work<S: Connection>(
    mut stream: S,
    lengths: Lengths,
    pace: Option<Pace>,
    course: Arc<Course>,
) -> Result<(), Broken> {
    match pace {
        Some(pace) => open_loop::run(&mut stream, lengths, pace, &course).await?,
        None => closed_loop(&mut stream, lengths, &course).await?,
    }
    // Everything is answered; that the server hears of the end is a courtesy.
    let _ = stream.shutdown().await;
    Ok(())
}

/// One request after the other. The end of one is the beginning of the next, and the clock is read once for both.
pub(super) async fn closed_loop<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    lengths: Lengths,
    course: &Course,
) -> Result<(), Broken> {
    let mut began = Instant::now();
    while course.admits(began) {
        send(stream, lengths.request.into()).await?;
        receive(stream, lengths.response.into()).await?;
        let ended = Instant::now();
        course.record(began, ended);
        began = ended;
    }
    Ok(())
}
