//! An HTTP server by hyper over our stack: it says which way a request came, and gives back what was posted.
//!
//! `hyper_server INTERFACE ADDRESS PORT`: ADDRESS is the one to claim. It serves until SIGTERM or Ctrl-C, and then lets the
//! requests that are being answered finish.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{Method, Request, Response};
use http_body_util::{Either, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{rt::TokioIo, server::graceful::GracefulShutdown};
use stack_user::api::{Stack, TcpListener};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().context("usage: hyper_server INTERFACE ADDRESS PORT");
    let (interface, address, port) = (next()?, next()?.parse()?, next()?.parse()?);
    let mut terminated = signal(SignalKind::terminate())?;

    let stack = Stack::builder().interface(Some(interface)).address(address).start().await?;
    let listener = TcpListener::bind(&stack, ([0, 0, 0, 0], port).into()).await?;
    eprintln!("listening on {}", listener.local_addr());
    let mut connections = listener.into_incoming();
    let open = GracefulShutdown::new();
    loop {
        let stream = tokio::select! {
            Some(accepted) = connections.next() => accepted?,
            _ = terminated.recv() => break,
            _ = tokio::signal::ctrl_c() => break,
        };
        let peer = stream.peer_addr();
        let answer = service_fn(move |request| answer(request, peer));
        let connection = open.watch(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                eprintln!("{peer}: {error}");
            }
        });
    }
    drop(connections);
    let _ = tokio::time::timeout(Duration::from_secs(5), open.shutdown()).await;
    stack.shut_down(Duration::from_secs(1)).await;
    Ok(())
}

/// What was posted, as it comes; otherwise a line about who asked.
async fn answer(
    request: Request<Incoming>,
    peer: SocketAddr,
) -> Result<Response<Either<Incoming, Full<Bytes>>>, Infallible> {
    let body = match *request.method() {
        Method::POST => Either::Left(request.into_body()),
        _ => Either::Right(Full::from(format!("{peer} asked for {}\n", request.uri()))),
    };
    Ok(Response::new(body))
}
