//! An axum server over our stack.
//!
//! `axum_server INTERFACE ADDRESS PORT`: ADDRESS is the one to claim. It serves until SIGTERM or Ctrl-C, and then lets the
//! requests that are being answered finish.

use std::time::Duration;

use anyhow::{Context, Result};
use axum::{
    Router,
    extract::{ConnectInfo, Path},
    routing::get,
};
use stack_user::api::{Stack, TcpListener, connectors::axum::Peer};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().context("usage: axum_server INTERFACE ADDRESS PORT");
    let (interface, address, port) = (next()?, next()?.parse()?, next()?.parse()?);
    let mut terminated = signal(SignalKind::terminate())?;

    let stack = Stack::builder().interface(Some(interface)).address(address).start().await?;
    let listener = TcpListener::bind(&stack, ([0, 0, 0, 0], port).into()).await?;
    eprintln!("listening on {}", listener.local_addr());
    let router = Router::new()
        .route("/hello/{name}", get(|Path(name): Path<String>| async move { format!("Hello, {name}!\n") }))
        .route("/slow", get(slow))
        .route("/peer", get(|ConnectInfo(Peer(peer))| async move { format!("{peer}\n") }));
    axum::serve(listener, router.into_make_service_with_connect_info::<Peer>())
        .with_graceful_shutdown(async move {
            tokio::select! {
                _ = terminated.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        })
        .await?;
    // The last FINs are answered before the address is given back.
    stack.shut_down(Duration::from_secs(1)).await;
    Ok(())
}

/// An answer that takes its time.
async fn slow() -> &'static str {
    tokio::time::sleep(Duration::from_millis(500)).await;
    "done\n"
}
