//! A bulk flow beside what is measured: it sends, or receives, as much as goes, and says how much went.

use std::{
    future::poll_fn,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::Handle,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    broken::Broken,
    client::open,
    payload::{give_way, poll_count, poll_pour},
    protocol::{Hello, Lengths, Purpose},
};
use crate::cli::{
    bench::transport::{Flow, Transport},
    network::Connection,
};

/// How long the end of a flow may take: what is in buffers has to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    ToServer,
    FromServer,
}

/// A flow, until it is [finished](Self::finish).
pub(super) struct Beside {
    bytes: Arc<AtomicU64>,
    enough: CancellationToken,
    task: JoinHandle<Result<(), Broken>>,
}

impl Beside {
    /// Starts one.
    pub(super) async fn start<N: Transport>(
        network: &N,
        remote: SocketAddr,
        direction: Direction,
    ) -> Result<Self, Broken> {
        let purpose = match direction {
            Direction::ToServer => Purpose::Sink,
            Direction::FromServer => Purpose::Source,
        };
        let stream = open(network, remote, Hello { purpose, lengths: Lengths::NONE }).await?;
        let (bytes, enough) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
        let runtime = stream.runtime().unwrap_or_else(Handle::current);
        let (counted, told) = (Arc::clone(&bytes), enough.clone());
        let task = runtime.spawn(async move {
            match direction {
                Direction::ToServer => pour(stream, &counted, &told).await,
                Direction::FromServer => drain(stream, &counted, &told).await,
            }
        });
        Ok(Self { bytes, enough, task })
    }

    /// Bits a second, over a time that begins after another one.
    pub(super) async fn rate(&self, after: Duration, during: Duration) -> Result<f64, Broken> {
        sleep(after).await;
        let (begun, before) = (Instant::now(), self.bytes.load(Ordering::Relaxed));
        sleep(during).await;
        let bytes = self.bytes.load(Ordering::Relaxed) - before;
        if self.task.is_finished() {
            return Err(Broken::Closed);
        }
        if bytes == 0 {
            return Err(Broken::Stuck);
        }
        Ok(bytes as f64 * 8.0 / begun.elapsed().as_secs_f64())
    }

    /// Ends it in order, and makes sure that everything has arrived.
    pub(super) async fn finish(mut self) -> Result<(), Broken> {
        self.enough.cancel();
        match timeout(PATIENCE, &mut self.task).await {
            Ok(Ok(finished)) => finished,
            Ok(Err(error)) => Err(std::io::Error::other(error).into()),
            Err(_) => Err(Broken::Silent(PATIENCE.as_secs())),
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pour<S: Connection>(
    mut stream: S,
    bytes: &AtomicU64,
    enough: &CancellationToken,
) -> Result<(), Broken> {
    let mut sent = 0;
    tokio::select! {
        biased;
        () = enough.cancelled() => {}
        poured = poll_fn(|cx| {
            let poured = poll_pour(&mut stream, cx, &mut sent);
            bytes.store(sent, Ordering::Relaxed);
            poured
        }) => poured?,
    }
    stream.shutdown().await?;
    let got = stream.read_u64().await?;
    if got == sent { Ok(()) } else { Err(Broken::Miscounted { got, sent }) }
}

async fn drain<S: Flow>(mut stream: S, bytes: &AtomicU64, enough: &CancellationToken) -> Result<(), Broken> {
    tokio::select! {
        biased;
        () = enough.cancelled() => {}
        drained = poll_fn(|cx| poll_drain(&mut stream, cx, bytes)) => {
            drained?;
            // It was to go on until we had enough.
            return Err(Broken::Closed);
        }
    }
    stream.shutdown().await?;
    Ok(poll_fn(|cx| poll_drain(&mut stream, cx, bytes)).await?)
}

/// Reads to the end of the stream, and lets others have their turn after each read.
fn poll_drain<S: Flow>(stream: &mut S, cx: &mut Context<'_>, bytes: &AtomicU64) -> Poll<std::io::Result<()>> {
    match poll_count(stream, cx)? {
        Poll::Ready(0) => return Poll::Ready(Ok(())),
        Poll::Ready(more) => {
            bytes.fetch_add(more as u64, Ordering::Relaxed);
            give_way(cx);
        }
        Poll::Pending => {}
    }
    Poll::Pending
}
