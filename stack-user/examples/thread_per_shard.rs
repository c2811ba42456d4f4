//! A server with a thread for each queue of the NIC: what comes in on a queue is taken in, answered and sent by one thread,
//! so that no lock is waited for and no byte changes caches.
//!
//! `thread_per_shard INTERFACE ADDRESS PORT`: ADDRESS is the one to claim. It answers HTTP with the number of the shard that
//! did; `/compute` occupies that shard's thread for two seconds, which holds up that shard's connections and nobody else's.
//! It serves until SIGTERM or Ctrl-C, and then says what each shard carried.

use std::{convert::Infallible, thread, time::Duration};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use stack_user::api::{Stack, TcpListener};
use tokio::{
    runtime::{Builder, Handle},
    signal::unix::{SignalKind, signal},
};

/// What an address with a prefix or `auto`, and a port, are written as.
const USAGE: &str = "usage: thread_per_shard INTERFACE ADDRESS PORT";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().context(USAGE);
    let (interface, address, port) = (next()?, next()?.parse()?, next()?.parse()?);
    let mut terminated = signal(SignalKind::terminate())?;

    // As many as there are cores; where the NIC has more queues, a thread has several shards.
    let threads: Vec<Handle> =
        (0..thread::available_parallelism()?.get()).map(|_| runtime()).collect::<Result<_>>()?;
    let builder = Stack::builder().interface(Some(interface)).address(address).drivers(threads.clone());
    let stack = builder.start().await?;
    for (number, thread) in (0..stack.shard_count()).zip(threads.iter().cycle()) {
        let shard = stack.on_shard(number).context("a shard")?;
        let listener = TcpListener::bind(&shard, ([0, 0, 0, 0], port).into()).await?;
        eprintln!("listening on {}, shard {number}", listener.local_addr());
        thread.spawn(serve(listener, number));
    }
    tokio::select! {
        _ = terminated.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    stack.shut_down(Duration::from_secs(1)).await;
    for number in 0..stack.shard_count() {
        let shard = stack.on_shard(number).context("a shard")?;
        let count = |name| shard.device_counters().ok()?.into_iter().find(|(known, _)| *known == name);
        let [received, sent] =
            ["rx_frames", "tx_frames"].map(|name| count(name).map_or(0, |(_, count)| count));
        let moved = shard.hand_overs();
        eprintln!(
            "shard {number}: {received} received, {sent} sent, {} passed on, {} taken in",
            moved.passed_on, moved.taken_in
        );
    }
    Ok(())
}

/// A runtime on a thread of its own, until the program ends.
fn runtime() -> Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    thread::Builder::new()
        .name("shard".into())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    Ok(handle)
}

async fn serve(listener: TcpListener, number: usize) {
    while let Ok((stream, peer)) = listener.accept().await {
        let answer = service_fn(move |request| answer(request, number));
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                eprintln!("{peer}: {error}");
            }
        });
    }
}

async fn answer(request: Request<Incoming>, number: usize) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() == "/compute" {
        // Not what one does on such a thread, but what some library may do.
        thread::sleep(Duration::from_secs(2));
    }
    Ok(Response::new(Full::from(format!("shard {number}\n"))))
}
