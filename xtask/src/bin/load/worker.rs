//! One process's share of the connections.

use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Arguments;

/// Connections that a process works on at a time. More, and the server's accept queue overflows, which is a test of its
/// own; fewer, and the server waits for us.
const AT_A_TIME: usize = 64;

/// Files besides the connections.
const SPARE_FILES: u64 = 64;

/// Does what its input says, step by step, until that ends. Whatever goes wrong, the process ends.
#[tokio::main(flavor = "current_thread")]
pub(super) async fn run(arguments: &Arguments, first: usize) -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let files = arguments.connections as u64 + SPARE_FILES;
    ensure!(files <= hard, "{files} files have to be open, and the limit is {hard}");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let limit = Duration::from_secs(arguments.limit);
    tokio::time::timeout(limit, steps(arguments, first)).await.context("the time is over")?
}

async fn steps(arguments: &Arguments, first: usize) -> Result<()> {
    let mut streams = Vec::new();
    let mut asked = 0;
    for step in std::io::stdin().lock().lines() {
        match step?.as_str() {
            "open" => streams = open(arguments, first).await?,
            "use" => {
                asked += 1;
                streams = each(streams, move |number, stream| ask(stream, first + number, asked)).await?;
            }
            "close" => {
                streams = each(std::mem::take(&mut streams), |_, stream| close(stream)).await?;
                streams.clear();
            }
            other => bail!("no step: {other:?}"),
        }
        let mut out = std::io::stdout().lock();
        writeln!(out, "done")?;
        out.flush()?;
    }
    Ok(())
}

async fn open(arguments: &Arguments, first: usize) -> Result<Vec<TcpStream>> {
    let Arguments { server, port, ports, connections, .. } = *arguments;
    let numbers = (first..first + connections).collect();
    each(numbers, move |_, number| async move {
        let server = SocketAddr::new(server, port + (number % usize::from(ports.max(1))) as u16);
        TcpStream::connect(server).await.with_context(|| format!("connection {number} to {server}"))
    })
    .await
}

/// Says something that nobody else says, and has to get just that back.
async fn ask(mut stream: TcpStream, number: usize, asked: usize) -> Result<TcpStream> {
    let question = format!("connection {number}, question {asked}, {}\n", "x".repeat(number % 97));
    stream.write_all(question.as_bytes()).await.with_context(|| format!("writing on {number}"))?;
    let mut answer = vec![0; question.len()];
    stream.read_exact(&mut answer).await.with_context(|| format!("the answer on {number}"))?;
    ensure!(answer == question.as_bytes(), "{number} was answered {:?}", String::from_utf8_lossy(&answer));
    Ok(stream)
}

/// Closes both directions in order: our FIN is answered by the server's.
async fn close(mut stream: TcpStream) -> Result<TcpStream> {
    stream.shutdown().await.context("closing")?;
    let rest = stream.read(&mut [0; 16]).await.context("closing")?;
    ensure!(rest == 0, "{rest} bytes after the end");
    Ok(stream)
}

/// Works on all, some at a time, and keeps their order.
async fn each<T, R, F>(items: Vec<T>, work: impl Fn(usize, T) -> F) -> Result<Vec<R>>
where
    R: Send + 'static,
    F: Future<Output = Result<R>> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(AT_A_TIME));
    let mut tasks = JoinSet::new();
    let mut done: Vec<Option<R>> = items.iter().map(|_| None).collect();
    for (number, item) in items.into_iter().enumerate() {
        let permit = Arc::clone(&permits).acquire_owned().await?;
        let work = work(number, item);
        tasks.spawn(async move {
            let outcome = work.await;
            drop(permit);
            (number, outcome)
        });
        while let Some(finished) = tasks.try_join_next() {
            let (number, outcome) = finished?;
            done[number] = Some(outcome?);
        }
    }
    while let Some(finished) = tasks.join_next().await {
        let (number, outcome) = finished?;
        done[number] = Some(outcome?);
    }
    Ok(done.into_iter().flatten().collect())
}
