//! `xstack bench conns`: many connections on which hardly anything happens.
//!
//! Nothing of ours is kept for a connection but the stream itself: no task, no buffer. So what the process has grown by is what
//! the stack needs. Of the kernel's sockets that is hardly anything, as their memory is the kernel's own.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use clap::{Args, value_parser};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    broken::Broken,
    client::{ask, open},
    histogram::Latencies,
    memory,
    options::{Sizes, Target},
    payload::{receive, send},
    protocol::{Hello, Lengths, Purpose},
    report::{Held, Teller},
};
use crate::cli::{
    console::Console,
    error::{Exit, Failure},
    network::{ConnectError, Connection, Network},
    relay::{command::raise_descriptor_limit, options::seconds},
};

/// Connections at most: as many as there can be to all the ports that a server tells.
const MAX_CONNECTIONS: i64 = 4_000_000;

/// How many are opened at once. Fewer, and the time of a round trip shows; more, and the queues of listeners overflow.
const OPENED_AT_ONCE: usize = 64;

/// How long one touch may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What `xstack bench conns` can be told.
#[derive(Args, Clone, Debug)]
pub struct ConnsOptions {
    /// The other end.
    #[command(flatten)]
    pub target: Target,

    /// Open N connections
    #[arg(short = 'c', long, value_name = "N", default_value_t = 10_000,
          value_parser = value_parser!(u32).range(1..=MAX_CONNECTIONS))]
    pub connections: u32,

    /// Hold them for so long before memory is looked at and each is touched once
    ///
    /// Our stack packs up a connection on which nothing has happened for a second.
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    pub hold: Duration,

    /// Lengths.
    #[command(flatten)]
    pub sizes: Sizes,

    /// Print the result as JSON, and nothing else
    #[arg(short = 'J', long)]
    pub json: bool,
}

/// What came out.
pub(super) struct Outcome {
    pub(super) connections: usize,
    /// Until all were open.
    pub(super) took: Duration,
    /// By how much the process has grown for each.
    pub(super) bytes_each: f64,
    /// By how much the kernel has, if the connections are its own, and as far as that can be read.
    pub(super) kernel_bytes_each: Option<f64>,
    /// Of a request on each.
    pub(super) touches: Latencies,
}

/// Opens, holds, touches, and tells.
pub(in crate::cli::bench) async fn run<N: Network>(
    options: ConnsOptions,
    console: Console,
    network: &Arc<N>,
    mut stop: Pin<&mut impl Future<Output = Exit>>,
) -> Result<Exit, Failure> {
    raise_descriptor_limit();
    let mut teller = Teller::quiet(console.output, options.json);
    let outcome = tokio::select! {
        biased;
        exit = &mut stop => return Ok(exit),
        outcome = measure(&options, network) => outcome?,
    };
    teller.tell_conns(&Held::new(&options, &outcome)).await?;
    Ok(Exit::Success)
}

async fn measure<N: Network>(options: &ConnsOptions, network: &Arc<N>) -> Result<Outcome, Failure> {
    let lengths = options.sizes.into();
    let places = ask(&**network, &options.target, lengths).await?;
    let process_before = memory::of_this_process().map_err(no_memory)?;
    let kernel_before = memory::of_the_kernel().ok();
    let begun = Instant::now();
    let mut streams = open_all(network, places, lengths, options.connections as usize).await?;
    let took = begun.elapsed();
    sleep(options.hold).await;
    let connections = streams.len();
    let each = |before: u64, after: u64| (after as f64 - before as f64) / connections as f64;
    let bytes_each = each(process_before, memory::of_this_process().map_err(no_memory)?);
    let kernel = kernel_before.zip(memory::of_the_kernel().ok()).filter(|_| options.target.common.kernel);
    let touches = touch_all(&mut streams, lengths).await?;
    // In order they would be in TIME-WAIT for a minute, and nobody wants to know how they end.
    streams.into_iter().for_each(Connection::reset);
    Ok(Outcome {
        connections,
        took,
        bytes_each,
        kernel_bytes_each: kernel.map(|(before, after)| each(before, after)),
        touches,
    })
}

/// Who opens them, several at once.
struct Opening<N: Network> {
    network: Arc<N>,
    places: Vec<SocketAddr>,
    hello: Hello,
    begun: AtomicUsize,
    wanted: usize,
    streams: Mutex<Vec<N::Stream>>,
}

async fn open_all<N: Network>(
    network: &Arc<N>,
    places: Vec<SocketAddr>,
    lengths: Lengths,
    wanted: usize,
) -> Result<Vec<N::Stream>, Failure> {
    let opening = Arc::new(Opening {
        network: Arc::clone(network),
        places,
        hello: Hello { purpose: Purpose::Requests, lengths },
        begun: AtomicUsize::new(0),
        wanted,
        streams: Mutex::new(Vec::with_capacity(wanted)),
    });
    let mut workers = JoinSet::new();
    for _ in 0..OPENED_AT_ONCE.min(wanted) {
        let opening = Arc::clone(&opening);
        workers.spawn(async move { opening.some().await });
    }
    while let Some(opened) = workers.join_next().await {
        let opened = opened.map_err(|error| Failure::Interface(format!("a task ended: {error}")))?;
        if let Err(broken) = opened {
            let open = opening.streams.lock().unwrap_or_else(PoisonError::into_inner).len();
            return Err(stopped_at(broken, open));
        }
    }
    let mut streams = opening.streams.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(std::mem::take(&mut streams))
}

impl<N: Network> Opening<N> {
    /// Opens one after the other, until as many are begun as are wanted.
    async fn some(&self) -> Result<(), Broken> {
        loop {
            let number = self.begun.fetch_add(1, Ordering::Relaxed);
            if number >= self.wanted {
                return Ok(());
            }
            let stream = self.one(number).await?;
            self.streams.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
        }
    }

    /// A connection to the place whose turn it is, or to another one for which there is a port on our side.
    async fn one(&self, number: usize) -> Result<N::Stream, Broken> {
        let mut reason = String::new();
        for more in 0..self.places.len() {
            let place = self.places[(number + more) % self.places.len()];
            match open(&*self.network, place, self.hello).await {
                Err(Broken::Connect(ConnectError::NoLocalPort(why))) => reason = why,
                opened => return opened,
            }
        }
        Err(Broken::NoLocalPort { why: reason, ports: self.places.len() })
    }
}

/// One request on each, in turn.
async fn touch_all<S: Connection>(streams: &mut [S], lengths: Lengths) -> Result<Latencies, Failure> {
    let mut touches = Latencies::new();
    for stream in streams {
        let began = Instant::now();
        let touch = async {
            send(stream, lengths.request.into()).await?;
            receive(stream, lengths.response.into()).await
        };
        let touched = tokio::time::timeout(PATIENCE, touch).await;
        touched.unwrap_or(Err(Broken::Silent(PATIENCE.as_secs())))?;
        touches.record(began.elapsed());
    }
    Ok(touches)
}

/// What is in the way of more connections than there are.
fn stopped_at(broken: Broken, open: usize) -> Failure {
    let help = match &broken {
        Broken::Connect(ConnectError::Other(why)) if why.contains("Too many open files") => {
            ": raise the limit of open files (ulimit -n)"
        }
        _ => "",
    };
    match Failure::from(broken) {
        Failure::Benchmark { exit, what } => {
            Failure::Benchmark { exit, what: format!("{what}{help}; {open} connections were open") }
        }
        other => other,
    }
}

fn no_memory(error: std::io::Error) -> Failure {
    Failure::Interface(format!("how much memory is in use can't be read: {error}"))
}
