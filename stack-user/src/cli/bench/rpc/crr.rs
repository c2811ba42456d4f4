//! `xstack bench crr`: connect, request, response, close.
//!
//! The client closes first, so it is its side that keeps each connection in TIME-WAIT, and the ports of the last minute are
//! not to be had for the same place again. Hence the server listens on several ports, and the client uses them in turn.

use std::{net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use clap::{Args, value_parser};
use tokio::{
    io::AsyncWriteExt,
    task::{JoinSet, yield_now},
    time::{Instant, timeout},
};

use super::{
    broken::Broken,
    client::ask,
    course::Course,
    options::{Length, Sizes, Target, Telling},
    payload::{FILLING, receive_behind_answer, receive_end, send},
    protocol::{Hello, Lengths, Purpose},
    report::Teller,
};
use crate::cli::{
    console::Console,
    error::{Exit, Failure},
    network::{ConnectError, Connection, Network},
};

/// How long one transaction may take: enough for a SYN, a request and a FIN that are each lost once, and again.
const PATIENCE: Duration = Duration::from_secs(10);

/// Transactions at once, at most: each is a task, and needs a place in the server's queue.
const MAX_CONCURRENCY: i64 = 10_000;

/// What `xstack bench crr` can be told.
#[derive(Args, Clone, Debug)]
pub struct CrrOptions {
    /// The other end.
    #[command(flatten)]
    pub target: Target,

    /// Lengths.
    #[command(flatten)]
    pub sizes: Sizes,

    /// Have N transactions under way at once
    #[arg(short = 'c', long, value_name = "N", default_value_t = 1,
          value_parser = value_parser!(u32).range(1..=MAX_CONCURRENCY))]
    pub concurrency: u32,

    /// Close by a reset, which leaves no TIME-WAIT behind, and don't wait for the server's end
    #[arg(long)]
    pub reset: bool,

    /// How long.
    #[command(flatten)]
    pub length: Length,

    /// What is told.
    #[command(flatten)]
    pub telling: Telling,
}

/// What each transaction is.
struct Job<N> {
    network: Arc<N>,
    /// Where the server is to be had.
    places: Vec<SocketAddr>,
    /// A hello, and as much of the request as goes with it.
    message: Vec<u8>,
    /// Bytes of the request that come behind that.
    rest: u64,
    response: u64,
    reset: bool,
}

/// Measures, and tells.
pub(in crate::cli::bench) async fn run<N: Network>(
    options: CrrOptions,
    console: Console,
    network: &Arc<N>,
    mut stop: Pin<&mut impl Future<Output = Exit>>,
) -> Result<Exit, Failure> {
    let lengths = options.sizes.into();
    let places = tokio::select! {
        biased;
        exit = &mut stop => return Ok(exit),
        places = ask(&**network, &options.target, lengths) => places?,
    };
    let job = Arc::new(Job::new(Arc::clone(network), places, lengths, options.reset));
    let mut teller = Teller::new(console.output, options.telling);
    let course = Course::begin(options.length.extent());
    let mut workers = JoinSet::new();
    for number in 0..options.concurrency {
        workers.spawn(work(Arc::clone(&job), number as usize, Arc::clone(&course)));
    }
    let outcome = course.attend(workers, &mut teller, stop).await?;
    teller.tell_crr(&options, &outcome).await?;
    Ok(outcome.stopped.unwrap_or(Exit::Success))
}

/// One transaction after the other, the first at the place of that number.
async fn work<N: Network>(job: Arc<Job<N>>, mut place: usize, course: Arc<Course>) -> Result<(), Broken> {
    loop {
        let began = Instant::now();
        if !course.admits(began) {
            return Ok(());
        }
        let done = timeout(PATIENCE, job.transaction(&mut place)).await;
        match done.unwrap_or(Err(Broken::Silent(PATIENCE.as_secs()))) {
            Ok(()) => course.record(began, Instant::now()),
            Err(broken) if broken.is_for_good() => return Err(broken),
            Err(broken) => {
                course.record_fault(began, (&broken).into());
                // Where failing takes no time, the clock and the others must have a turn all the same.
                yield_now().await;
            }
        }
    }
}

impl<N: Network> Job<N> {
    fn new(network: Arc<N>, places: Vec<SocketAddr>, lengths: Lengths, reset: bool) -> Self {
        let hello = Hello { purpose: Purpose::Once, lengths }.encode();
        let along = FILLING.len().min(lengths.request as usize);
        let message = [&hello[..], &FILLING[..along]].concat();
        let rest = u64::from(lengths.request) - along as u64;
        Self { network, places, message, rest, response: lengths.response.into(), reset }
    }

    async fn transaction(&self, place: &mut usize) -> Result<(), Broken> {
        let mut stream = self.connect(place).await?;
        stream.write_all(&self.message).await?;
        send(&mut stream, self.rest).await?;
        receive_behind_answer(&mut stream, self.response).await?;
        if self.reset {
            stream.reset();
            return Ok(());
        }
        stream.shutdown().await?;
        receive_end(&mut stream).await
    }

    /// A connection to the next place for which there is a port on our side.
    async fn connect(&self, place: &mut usize) -> Result<N::Stream, Broken> {
        let mut why = String::new();
        for _ in &self.places {
            let remote = self.places[*place % self.places.len()];
            *place = place.wrapping_add(1);
            match self.network.connect(remote).await {
                Err(ConnectError::NoLocalPort(reason)) => why = reason,
                connected => return Ok(connected?),
            }
        }
        Err(Broken::NoLocalPort { why, ports: self.places.len() })
    }
}
