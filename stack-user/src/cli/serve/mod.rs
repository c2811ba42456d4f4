//! `xstack serve DIR`: the files of a directory over HTTP/1.1 and TLS, over any [`Network`].
//!
//! A request's way through the files: [`http_server`](super::http_server) (the connection) → [`files`] (the answer) →
//! [`path`] (what is asked for) → [`tree`] (what there is, and nothing outside) → [`opened`] (its bytes), or [`listing`]
//! and [`pages`]. Answers made of small files are [`kept`]. Arguments, the directory and the certificate are looked at before the network is opened.

mod files;
mod kept;
mod listing;
mod opened;
mod options;
mod pages;
mod path;
mod tree;
mod version;

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

pub use self::options::ServeOptions;
use self::{
    files::Files,
    path::RequestPath,
    tree::{Rules, Tree},
};
use super::{
    console::{Console, Diagnostics, Output, printable},
    error::{Exit, Failure},
    http_server::{
        HttpServer, Limits, Tally,
        access_log::{AccessLog, Format, Writer},
    },
    network::{Listener, Network},
    privileges::Profile,
    service::Service,
    stopped, tls,
};
use crate::telemetry::STORY;

/// How long the network may take to end in order, as for `xstack curl`: this is for FINs and the like.
const NETWORK_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves until `stop` is ready, and then ends in order; a second signal ends it at once.
pub async fn run<N: Network>(
    options: ServeOptions,
    console: Console,
    open: impl AsyncFnOnce() -> Result<N, Failure>,
    stop: impl Future<Output = Exit>,
) -> Exit {
    let diagnostics = console.diagnostics.clone();
    match serve(&options, console, open, stop).await {
        Ok(exit) => exit,
        Err(failure) => {
            diagnostics.line(&failure.line());
            failure.exit()
        }
    }
}

async fn serve<N: Network>(
    options: &ServeOptions,
    console: Console,
    open: impl AsyncFnOnce() -> Result<N, Failure>,
    stop: impl Future<Output = Exit>,
) -> Result<Exit, Failure> {
    let locals = options.listeners()?;
    let files = files(options)?;
    let given = given_tls(options)?;
    let Console { output, diagnostics } = console;
    let (log, writer) = access_log(options, output)?;
    raise_descriptor_limit();
    let mut stop = std::pin::pin!(stop);
    let network = tokio::select! {
        biased;
        exit = &mut stop => return Ok(exit),
        opened = open() => opened?,
    };
    let served = async {
        let listeners = listen(&network, &locals).await?;
        let reached_at = reached_at(&network, &listeners);
        let tls = match given {
            Some(acceptor) => Some(acceptor),
            None if options.tls => Some(generated_tls(options, &reached_at, &diagnostics)?),
            None => None,
        };
        network.give_up_privileges(Profile::Server)?;
        check_again(&files, options, network.becomes_another_user())?;
        let server = HttpServer { limits: limits(options), tls, log, tally: Arc::default() };
        let service = Service::new(options.max_connections as usize);
        if !options.quiet {
            tell_where(options, &reached_at, &diagnostics);
        }
        let taken = (server.clone(), files.clone(), service.clone());
        let serve = move |stream, remote| {
            let (server, files, service) = taken.clone();
            async move {
                server.serve(stream, remote, &service, |request| files.clone().answer(request)).await;
            }
        };
        let accepting = service.accept_at(listeners, serve);
        let exit = tokio::select! {
            biased;
            _ = &mut stop => end(&service, options.grace).await,
            failed = accepting => {
                let error = failed.err().unwrap_or_else(|| std::io::ErrorKind::NotConnected.into());
                service.stop(Duration::ZERO).await;
                return Err(Failure::Interface(format!("nothing more comes in: {error}")));
            }
        };
        tell_tally(&service, &server.tally);
        Ok(exit)
    }
    .await;
    // Peers first: a log that is stuck must not keep them waiting.
    let _ = timeout(NETWORK_CLOSE_TIMEOUT, network.close()).await;
    writer.finish().await;
    served
}

/// The directory, checked as far as it can be.
fn files(options: &ServeOptions) -> Result<Files, Failure> {
    let rules = Rules {
        listing: !options.no_listing,
        hidden: options.hidden,
        follow_symlinks: options.follow_symlinks,
    };
    let tree = Tree::open(&options.directory, rules)
        .map_err(|source| Failure::Directory { path: options.directory.clone(), source })?;
    let error_page = RequestPath::literal(&options.error_page)
        .ok_or_else(|| Failure::Usage(format!("--error-page {} is not below DIR", options.error_page)))?;
    tracing::info!(target: STORY, "{} is open", tree.place().display());
    Ok(Files::new(tree, !options.no_gzip, error_page))
}

/// Whoever the process is now: can it look into the directory?
fn check_again(files: &Files, options: &ServeOptions, is_another: bool) -> Result<(), Failure> {
    let remedy =
        if is_another { ": xstack --user NAME serve … runs as a user who may read it" } else { "" };
    files.check().map_err(|error| Failure::Directory {
        path: options.directory.clone(),
        source: std::io::Error::new(error.kind(), format!("{error}{remedy}")),
    })
}

fn given_tls(options: &ServeOptions) -> Result<Option<TlsAcceptor>, Failure> {
    match (&options.tls_cert, &options.tls_key) {
        (Some(certificate), Some(key)) => tls::load(certificate, key).map(Some),
        _ => Ok(None),
    }
}

fn generated_tls(
    options: &ServeOptions,
    reached_at: &[SocketAddr],
    diagnostics: &Diagnostics,
) -> Result<TlsAcceptor, Failure> {
    let mut addresses: Vec<IpAddr> = reached_at.iter().map(SocketAddr::ip).collect();
    addresses.dedup();
    let generated = tls::generate(&addresses)?;
    if !options.quiet {
        diagnostics.line(&format!("xstack: certificate SHA-256 {}", generated.fingerprint));
        diagnostics.line(&format!("xstack: curl --insecure --pinnedpubkey {} knows it", generated.pin));
    }
    Ok(generated.acceptor)
}

fn access_log(options: &ServeOptions, output: Output) -> Result<(AccessLog, Writer), Failure> {
    let format = if options.json { Format::Json } else { Format::Combined };
    match &options.access_log {
        None if options.quiet => Ok((AccessLog::default(), Writer::none())),
        None => Ok(AccessLog::start(output, "standard output".into(), format)),
        Some(path) if path == Path::new("-") => {
            Ok(AccessLog::start(output, "standard output".into(), format))
        }
        Some(path) => {
            let name = path.display().to_string();
            let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
            let file = file.map_err(|source| Failure::Write { destination: name.clone(), source })?;
            Ok(AccessLog::start(Output::new(tokio::fs::File::from_std(file), false), name, format))
        }
    }
}

async fn listen<N: Network>(network: &N, locals: &[SocketAddr]) -> Result<Vec<N::Listener>, Failure> {
    let mut listeners = Vec::new();
    for &local in locals {
        let listener = network.listen(local).await;
        listeners.push(listener.map_err(|source| Failure::Listen { local, source })?);
    }
    Ok(listeners)
}

/// Lets what is under way finish, within `grace` and unless told again; what then is left is reset.
async fn end(service: &Service, grace: Duration) -> Exit {
    let under_way = service.active();
    tracing::info!(target: STORY, "stopping: {under_way} connections, {} s of grace", grace.as_secs_f64());
    let (left, exit) = tokio::select! {
        left = service.stop(grace) => (left, Exit::Success),
        exit = stopped() => (service.stop(Duration::ZERO).await, exit),
    };
    if left > 0 {
        tracing::warn!(
            "{left} connections were reset: they were not finished when the time of grace was over"
        );
    }
    exit
}

fn limits(options: &ServeOptions) -> Limits {
    Limits { head: options.header_timeout, idle: options.keepalive_timeout, send: options.send_timeout }
}

/// Where clients find the listeners: those on all addresses at each of them.
fn reached_at<N: Network>(network: &N, listeners: &[N::Listener]) -> Vec<SocketAddr> {
    let locals = listeners.iter().filter_map(|listener| listener.local_addr().ok());
    locals
        .flat_map(|local| {
            let addresses = if local.ip().is_unspecified() { network.addresses() } else { Vec::new() };
            let at = |ip| SocketAddr::new(ip, local.port());
            if addresses.is_empty() { vec![local] } else { addresses.into_iter().map(at).collect() }
        })
        .collect()
}

fn tell_where(options: &ServeOptions, reached_at: &[SocketAddr], diagnostics: &Diagnostics) {
    let scheme = if options.speaks_tls() { "https" } else { "http" };
    let default = if options.speaks_tls() { 443 } else { 80 };
    for local in reached_at {
        let host = match local.port() {
            port if port == default => local.ip().to_string(),
            _ => local.to_string(),
        };
        let line = format!("xstack: serving {} at {scheme}://{host}/", options.directory.display());
        diagnostics.line(&printable(&line));
    }
}

fn tell_tally(service: &Service, tally: &Tally) {
    let counts = [
        ("requests", &tally.requests),
        ("requests that were none", &tally.bad_requests),
        ("failed TLS handshakes", &tally.failed_handshakes),
        ("timed out", &tally.timed_out),
        ("broken off", &tally.broken),
    ];
    let told: Vec<_> = counts
        .iter()
        .map(|(name, count)| (name, count.load(Ordering::Relaxed)))
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    tracing::info!(target: STORY, "served {} connections: {}", service.accepted(), told.join(", "));
}

/// Each answer needs a descriptor for its file, and many shells allow a thousand only by default.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::debug!("the limit of open files stays as it is: {error}");
    }
}
