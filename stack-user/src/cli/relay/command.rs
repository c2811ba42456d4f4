//! What `forward` and `proxy` do around their relays: start them, say where they listen, stop them when told to.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::Serialize;
use tokio::time::timeout;

use super::handle::{Counters, Handle, StartError};
use super::options::RelayOptions;
use crate::cli::console::Console;
use crate::cli::error::{Exit, Failure};
use crate::cli::network::Network;
use crate::cli::privileges::Profile;
use crate::cli::stopped;

/// How long the network may take to end in order. What it undoes on the host it undoes in any case.
const NETWORK_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// One relay that runs.
pub(crate) struct Started {
    pub(crate) handle: Handle,
    /// Where it leads, in words.
    pub(crate) to: String,
}

/// A line of `--json`.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Line<'a> {
    Listening { listen: String, to: &'a str },
    Stopped { listen: String, to: &'a str, reset: usize, counters: Counters },
}

/// Opens the network, starts what `start` does on it, and stops it when `stop` returns. Being told to stop is no failure.
pub(crate) async fn run<N: Network>(
    options: RelayOptions,
    mut console: Console,
    open: impl AsyncFnOnce() -> Result<N, Failure>,
    start: impl AsyncFnOnce(&Arc<N>, &mut Vec<Started>) -> Result<(), StartError>,
    stop: impl Future<Output = Exit>,
) -> Exit {
    raise_descriptor_limit();
    let mut stop = std::pin::pin!(stop);
    let opened = tokio::select! {
        biased;
        exit = &mut stop => return exit,
        opened = open() => opened,
    };
    let ours = match opened {
        Ok(network) => Arc::new(network),
        Err(failure) => return complain(&console, &failure),
    };
    let mut started = Vec::new();
    let mut exit = match start(&ours, &mut started).await {
        Ok(()) => Exit::Success,
        Err(error) => complain(&console, &Failure::Relay(error.to_string())),
    };
    // Everything is bound: what is done from here on needs no rights.
    if exit == Exit::Success
        && let Err(failure) = ours.give_up_privileges(Profile::Relay)
    {
        exit = complain(&console, &failure);
    }
    if exit == Exit::Success {
        tell_addresses(&console, &ours.addresses());
        exit = tell_listening(&mut console, &options, &started).await;
    }
    if exit == Exit::Success {
        let failed = started.iter_mut().map(|one| Box::pin(one.handle.failed()));
        tokio::select! {
            _ = &mut stop => {}
            (error, _, _) = futures_util::future::select_all(failed) => {
                exit = complain(&console, &Failure::Relay(error.to_string()));
            }
        }
    }
    // Told again, it waits no longer.
    let patience = stopped();
    exit = end(&mut console, &options, started, patience)
        .await
        .filter(|_| exit == Exit::Success)
        .unwrap_or(exit);
    if let Some(network) = Arc::into_inner(ours) {
        let _ = timeout(NETWORK_CLOSE_TIMEOUT, network.close()).await;
    }
    exit
}

fn complain(console: &Console, failure: &Failure) -> Exit {
    console.diagnostics.line(&failure.line());
    failure.exit()
}

/// Says which addresses are ours: where it listens on all of them, or has chosen one by itself, nothing else would.
fn tell_addresses(console: &Console, addresses: &[IpAddr]) {
    let told: Vec<_> = addresses.iter().map(IpAddr::to_string).collect();
    if !told.is_empty() {
        console.diagnostics.line(&format!("xstack: ours: is {}", told.join(", ")));
    }
}

/// Says where it listens, on standard output: whoever starts it waits for that, and learns which address and port it got.
async fn tell_listening(console: &mut Console, options: &RelayOptions, started: &[Started]) -> Exit {
    let mut text = String::new();
    for one in started {
        for listen in one.handle.listening() {
            let listen = listen.to_string();
            if options.json {
                text += &json(&Line::Listening { listen, to: &one.to });
            } else {
                text += &format!("{listen} -> {}\n", one.to);
            }
        }
    }
    write(console, &text).await
}

/// Stops all at once, so that the time of grace is there once, and not longer than `patience` lasts; if that ends first, it
/// says how.
async fn end(
    console: &mut Console,
    options: &RelayOptions,
    mut started: Vec<Started>,
    patience: impl Future<Output = Exit>,
) -> Option<Exit> {
    let (mut reset, exit) = tokio::select! {
        reset = stop_all(&mut started, options.grace) => (reset, None),
        exit = patience => (Vec::new(), Some(exit)),
    };
    if exit.is_some() {
        reset = stop_all(&mut started, Duration::ZERO).await;
    }
    let mut text = String::new();
    for (one, reset) in started.iter().zip(reset) {
        let counters = one.handle.counters();
        if options.json {
            let listen: Vec<_> = one.handle.listening().iter().map(ToString::to_string).collect();
            text += &json(&Line::Stopped { listen: listen.join(" "), to: &one.to, reset, counters });
        }
        if reset > 0 {
            tracing::warn!("{reset} connections to {} had not ended, and were reset", one.to);
        }
    }
    // Whoever reads it may have gone first.
    let _ = write(console, &text).await;
    exit
}

async fn stop_all(started: &mut [Started], grace: Duration) -> Vec<usize> {
    futures_util::future::join_all(started.iter_mut().map(|one| one.handle.stop(grace))).await
}

fn json(line: &Line<'_>) -> String {
    serde_json::to_string(line).map(|text| text + "\n").unwrap_or_default()
}

async fn write(console: &mut Console, text: &str) -> Exit {
    let written = match console.output.write_all(text.as_bytes()).await {
        Ok(()) => console.output.flush().await,
        error => error,
    };
    match written {
        Ok(()) => Exit::Success,
        Err(source) => complain(console, &Failure::Write { destination: "standard output".into(), source }),
    }
}

/// Each connection takes a descriptor or two, and the limit that shells set is for programs that use select.
pub(crate) fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::debug!("the limit of open files stays at {soft}: {error}");
    }
}
