//! `xstack bench mix`: what a bulk flow does to small requests, and they to it.
//!
//! Three times the same: requests alone, bulk alone, both. Requests go out at a fixed rate, so that those which wait behind bulk
//! are all seen, and what is sent is the same in either case.

use std::{net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use clap::{Args, value_parser};
use tokio::{io::AsyncWriteExt, runtime::Handle, task::JoinSet};

use super::{
    broken::Broken,
    bulk::{Beside, Direction},
    client::{ask, open},
    course::{Course, Extent, Outcome},
    open_loop::{self, Pace},
    options::{Sizes, Target},
    protocol::{Hello, Lengths, Purpose},
    report::{Mixed, Teller},
};
use crate::cli::{
    bench::transport::Transport,
    console::Console,
    error::{Exit, Failure},
    network::{Connection, Network},
    relay::options::seconds,
};

/// What `xstack bench mix` can be told.
#[derive(Args, Clone, Debug)]
pub struct MixOptions {
    /// The other end.
    #[command(flatten)]
    pub target: Target,

    /// Let bulk come from the server, and not go there
    #[arg(short = 'R', long)]
    pub reverse: bool,

    /// Send N requests a second
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub rate: u32,

    /// Lengths.
    #[command(flatten)]
    pub sizes: Sizes,

    /// Measure each of the three for so many seconds
    #[arg(short = 't', long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub time: Duration,

    /// Leave the first seconds of each out: bulk has to find its speed
    #[arg(short = 'O', long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub omit: Duration,

    /// Print the result as JSON, and nothing else
    #[arg(short = 'J', long)]
    pub json: bool,
}

/// What came out.
pub(super) struct Results {
    pub(super) requests_alone: Outcome,
    pub(super) bulk_alone: f64,
    pub(super) requests_beside: Outcome,
    pub(super) bulk_beside: f64,
}

/// Measures, and tells.
pub(in crate::cli::bench) async fn run<N: Transport>(
    options: MixOptions,
    console: Console,
    network: &Arc<N>,
    mut stop: Pin<&mut impl Future<Output = Exit>>,
) -> Result<Exit, Failure> {
    let mut teller = Teller::quiet(console.output, options.json);
    let results = tokio::select! {
        biased;
        exit = &mut stop => return Ok(exit),
        results = measure(&options, &**network, &mut teller) => results?,
    };
    teller.tell_mix(&options, &Mixed::new(&results)).await?;
    Ok(Exit::Success)
}

async fn measure<N: Transport>(
    options: &MixOptions,
    network: &N,
    teller: &mut Teller,
) -> Result<Results, Failure> {
    if options.time.is_zero() {
        return Err(Failure::Usage("-t 0 leaves no time to measure in".to_owned()));
    }
    let lengths = options.sizes.into();
    let remote = ask(network, &options.target, lengths).await?[0];
    let direction = if options.reverse { Direction::FromServer } else { Direction::ToServer };

    let requests_alone = requests(options, network, remote, lengths, teller).await?;
    let flow = Beside::start(network, remote, direction).await?;
    let bulk_alone = flow.rate(options.omit, options.time).await?;
    flow.finish().await?;
    let flow = Beside::start(network, remote, direction).await?;
    let beside = requests(options, network, remote, lengths, teller);
    let bulk = async { flow.rate(options.omit, options.time).await.map_err(Failure::from) };
    let (requests_beside, bulk_beside) = tokio::try_join!(beside, bulk)?;
    flow.finish().await?;
    Ok(Results { requests_alone, bulk_alone, requests_beside, bulk_beside })
}

/// Requests at the rate, on a connection of their own.
async fn requests<N: Network>(
    options: &MixOptions,
    network: &N,
    remote: SocketAddr,
    lengths: Lengths,
    teller: &mut Teller,
) -> Result<Outcome, Failure> {
    let mut stream = open(network, remote, Hello { purpose: Purpose::Requests, lengths }).await?;
    let extent = Extent { omit: options.omit, time: Some(options.time), transactions: None };
    let course = Course::begin(extent);
    let pace = Pace::new(course.begins(), options.rate, 0, 1);
    let runtime = stream.runtime().unwrap_or_else(Handle::current);
    let worker = {
        let course = Arc::clone(&course);
        async move {
            open_loop::run(&mut stream, lengths, pace, &course).await?;
            let _ = stream.shutdown().await;
            Ok::<_, Broken>(())
        }
    };
    let mut workers = JoinSet::new();
    workers.spawn_on(worker, &runtime);
    course.attend(workers, teller, std::pin::pin!(std::future::pending())).await
}
