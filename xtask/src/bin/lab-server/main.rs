//! The lab's own web and name server, on the kernel's stack: the demo needs no package beyond Rust.
//!
//! `serve` serves until it is ended; `probe` asks both once and says by its exit code whether they answered.

mod dns;
mod pages;
mod probe;
mod web;

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Where the web server is
    #[arg(long, global = true, default_value = "127.0.0.1:8080")]
    web: SocketAddr,
    /// Where the name server is, over UDP and TCP
    #[arg(long, global = true, default_value = "127.0.0.1:5353")]
    dns: SocketAddr,
}

#[derive(Subcommand)]
enum Command {
    /// Serve pages and names
    Serve,
    /// Ask for a page and a name
    Probe,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        Command::Serve => serve(arguments.web, arguments.dns),
        Command::Probe => probe::ask(arguments.web, arguments.dns),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn serve(web: SocketAddr, dns: SocketAddr) -> Result<()> {
    let mut names = dns::listen(dns, web.ip()).await?;
    let pages = web::listen(web).await?;
    tokio::select! {
        outcome = names.block_until_done() => outcome?,
        outcome = web::serve(pages) => outcome?,
    }
    Ok(())
}
