//! `xstack curl URL…`: HTTP/1.1 by hyper over any [`Network`], with curl's options, habits and exit codes.
//!
//! A URL's way through the files: [`options`] (what the user wants; [`in_order`] for those whose order counts) →
//! [`target`] (the URL) → [`request`] (what is sent) → [`transfer`] (one URL, redirects included) → [`dial`]
//! (addresses, time limits) → [`connection`] (hyper, re-use) over [`tap`] (the wire as it is) → [`output`] and
//! [`progress`]; [`diagnose`] tells why it failed.

mod connection;
mod diagnose;
mod dial;
mod in_order;
mod options;
mod output;
mod progress;
mod request;
mod reserved;
mod tap;
mod target;
mod transfer;

use std::time::Duration;

use tokio::time::timeout;

use self::connection::Connections;
pub use self::in_order::{DataOptions, OutputOption, OutputOptions};
pub use self::options::CurlOptions;
use self::options::Override;
use self::output::{Destination, Sink};
use self::request::Plan;
use self::reserved::Reserved;
use self::target::Target;
use self::transfer::{Session, Transfer};
use super::console::Console;
use super::error::{Exit, Failure};
use super::network::Network;
use super::privileges::Profile;

/// How long the network may take to end in order. What it undoes on the host it undoes in any case, see
/// [`Network::close`]; this is for FINs and the like.
const NETWORK_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Transfers the URLs, one after the other, over the network that `open` brings up when the first one needs it.
///
/// Returns early with `stop`'s exit code when that is ready, having closed what was open.
pub async fn run<N: Network>(
    options: CurlOptions,
    mut console: Console,
    open: impl AsyncFnOnce() -> Result<N, Failure>,
    stop: impl Future<Output = Exit>,
) -> Exit {
    let diagnostics = console.diagnostics.clone();
    let report = |failure: &Failure| {
        if options.shows_errors() {
            diagnostics.line(&failure.line());
        }
        failure.exit()
    };
    let mut job = match Job::new(&options) {
        Ok(job) => job,
        Err(failure) => return report(&failure),
    };
    if let Some(exit) = job.hopeless(report) {
        return exit;
    }
    let mut stop = std::pin::pin!(stop);
    let opened = tokio::select! {
        biased;
        exit = &mut stop => return exit,
        opened = open() => opened,
    };
    let network = match opened {
        Ok(network) => network,
        Err(failure) => return report(&failure),
    };
    if network.becomes_another_user() {
        job.reserve_files();
    }
    if let Err(failure) = network.give_up_privileges(Profile::Client) {
        return report(&failure);
    }
    let mut connections = Connections::default();
    let exit = tokio::select! {
        biased;
        exit = &mut stop => exit,
        exit = job.transfer_all(&options, &network, &mut connections, &mut console, report) => exit,
    };
    connections.close().await;
    let _ = timeout(NETWORK_CLOSE_TIMEOUT, network.close()).await;
    exit
}

/// What is to be done, checked as far as it can be without a network.
struct Job {
    targets: Vec<Result<(Target, Destination), Failure>>,
    /// As many as there are targets, if files had to be opened early.
    reserved: Vec<Option<Reserved>>,
    plan: Plan,
    overrides: Vec<Override>,
}

impl Job {
    fn new(options: &CurlOptions) -> Result<Self, Failure> {
        let overrides =
            options.resolve.iter().map(|entry| Override::parse(entry)).collect::<Result<_, _>>()?;
        let plan = Plan::new(options)?;
        let targets = options.urls.iter().enumerate().map(|(index, url)| {
            let target = Target::parse(url)?;
            let destination = Destination::new(options.outputs.0.get(index), &target)?;
            Ok((target, destination))
        });
        Ok(Self { targets: targets.collect(), reserved: Vec::new(), plan, overrides })
    }

    /// If no URL can be fetched, tells why and returns the exit code: no network is needed for that.
    fn hopeless(&self, report: impl Fn(&Failure) -> Exit) -> Option<Exit> {
        if self.targets.iter().any(Result::is_ok) {
            return None;
        }
        let failures = self.targets.iter().filter_map(|target| target.as_ref().err());
        failures.fold(None, |_, failure| Some(report(failure)))
    }

    /// Opens the files that are written to, as whoever started us.
    fn reserve_files(&mut self) {
        let reserve = |target: &Result<(Target, Destination), Failure>| target.as_ref().ok()?.1.reserve();
        self.reserved = self.targets.iter().map(reserve).collect();
    }

    /// Every URL is tried; the exit code is that of the last.
    async fn transfer_all<N: Network>(
        self,
        options: &CurlOptions,
        network: &N,
        connections: &mut Connections,
        console: &mut Console,
        report: impl Fn(&Failure) -> Exit,
    ) -> Exit {
        let mut exit = Exit::Success;
        let overrides = &self.overrides;
        let Console { output, diagnostics } = console;
        let mut session = Session { network, options, overrides, connections, diagnostics };
        let mut reserved = self.reserved.into_iter();
        for target in self.targets {
            let reserved = reserved.next().flatten();
            let result = match target {
                Ok((target, destination)) => {
                    let sink = Sink::new(destination, reserved, output);
                    Transfer::new(&mut session, sink).run(self.plan.clone(), target).await
                }
                Err(failure) => Err(failure),
            };
            exit = match result {
                Ok(()) => Exit::Success,
                Err(failure) => report(&failure),
            };
        }
        exit
    }
}
