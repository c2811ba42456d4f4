//! An echo server over our stack, for as many connections as there are.
//!
//! `echo_server INTERFACE ADDRESS PORT [PORTS]`: ADDRESS is the one to claim; it listens on PORTS ports from PORT on. Nothing
//! is copied but into the frames that answer: what waits for its client has no buffer of its own. On SIGUSR1 it prints how
//! many connections there are and how many frames they hold, as a line of JSON; on SIGTERM or Ctrl-C it ends.

use std::{io, time::Duration};

use anyhow::{Context, Result};
use stack_user::api::{ShardInfo, Stack, TcpListener, TcpStream};
use tokio::{
    io::AsyncWriteExt,
    signal::unix::{SignalKind, signal},
};

// A thread for the stack and all its clients: no connection ever changes it.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().context("usage: echo_server INTERFACE ADDRESS PORT [PORTS]");
    let (interface, address, port): (_, _, u16) = (next()?, next()?.parse()?, next()?.parse()?);
    let ports: u16 = next().map_or(Ok(1), |ports| ports.parse())?;
    let mut asked = signal(SignalKind::user_defined1())?;
    let mut terminated = signal(SignalKind::terminate())?;

    let stack = Stack::builder().interface(Some(interface)).address(address).start().await?;
    for port in port..port.saturating_add(ports) {
        let listener = TcpListener::bind(&stack, ([0, 0, 0, 0], port).into()).await?;
        tokio::spawn(serve(listener));
    }
    eprintln!("listening on ports {port} to {}", port.saturating_add(ports) - 1);
    loop {
        tokio::select! {
            _ = asked.recv() => {
                let counts = stack.tcp_counts();
                // Neither free nor with the device: connections have them.
                let held = |shard: &ShardInfo| Some(shard.chunks - shard.free_chunks - shard.device_chunks?);
                let held: Option<usize> = stack.shard_infos().iter().map(held).sum();
                let held = held.map_or("null".to_owned(), |held| held.to_string());
                println!(
                    r#"{{"connections":{},"resting":{},"half_open":{},"time_wait":{},"held_frames":{held}}}"#,
                    counts.connections, counts.resting, counts.half_open, counts.time_wait,
                );
            }
            _ = terminated.recv() => break,
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    // The last FINs are answered before the address is given back.
    stack.shut_down(Duration::from_secs(1)).await;
    Ok(())
}

async fn serve(listener: TcpListener) -> io::Result<()> {
    loop {
        let (stream, peer) = listener.accept().await?;
        tokio::spawn(async move {
            if let Err(error) = echo(stream).await {
                eprintln!("{peer}: {error}");
            }
        });
    }
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    while let Some(chunk) = stream.read_chunk().await? {
        stream.write_all(&chunk).await?;
    }
    stream.shutdown().await
}
