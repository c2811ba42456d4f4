//! `xstack proxy`: SOCKS version 5 and HTTP for programs that know proxies, across the line between our stack and the
//! kernel's.
//!
//! A client's way through the files: [`config`] (whether it may) → [`serve`] (what it speaks) → [`socks`] with the
//! messages of [`socks5`], or [`http`] → [`relay`](super::relay).

mod client;
mod config;
mod http;
mod serve;
mod socks;
mod socks5;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

pub use self::config::{Config, Network as AllowedNetwork, Protocol, User};
use self::serve::Proxy;
use super::console::Console;
use super::error::{Exit, Failure};
use super::network::Network;
use super::relay::command::{self, Started};
use super::relay::endpoint::check_disjoint;
use super::relay::handle::Tally;
use super::relay::options::seconds;
use super::relay::{Dialer, Handle, Limits, RelayOptions, Side, StartError};
use super::service::Service;

/// What `xstack proxy` can be told.
#[derive(Args, Clone, Debug)]
pub struct ProxyOptions {
    /// Where clients come in; repeat for several [default: kernel:127.0.0.1:1080]
    ///
    /// It is [ours:|kernel:][ADDR:]PORT or unix:PATH, on the kernel's side unless it says otherwise. What clients ask for is
    /// connected to through the other side, and names are resolved there.
    #[arg(short, long, value_name = "ENDPOINT")]
    pub listen: Vec<String>,

    /// What to speak
    #[arg(long, value_name = "PROTOCOL", value_enum, default_value_t)]
    pub protocol: Protocol,

    /// Serve only those who log in as one of these; repeat for several
    #[arg(
        long = "user-password",
        env = "XSTACK_PROXY_USER",
        hide_env_values = true,
        value_name = "NAME:PASSWORD"
    )]
    pub users: Vec<User>,

    /// The same from a file, which `ps` does not show: NAME:PASSWORD, a line each
    #[arg(long, value_name = "FILE")]
    pub user_file: Option<PathBuf>,

    /// Serve only clients with these addresses; repeat for several
    #[arg(long, value_name = "CIDR")]
    pub allow: Vec<AllowedNetwork>,

    /// With `--listen ours:…`, let clients reach what listens on this host's own loopback
    #[arg(long)]
    pub allow_loopback: bool,

    /// Give up on clients that take longer to say what they want
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub handshake_timeout: Duration,

    /// Limits, and how to stop.
    #[command(flatten)]
    pub relay: RelayOptions,
}

impl ProxyOptions {
    /// The proxy.
    ///
    /// # Errors
    /// [`Failure::Usage`] with what is wrong, and [`Failure::ReadFile`].
    pub fn config(&self) -> Result<Config, Failure> {
        let mut users = self.users.clone();
        if let Some(path) = &self.user_file {
            users.extend(read_users(path)?);
        }
        let listen = Config::places(&self.listen).map_err(Failure::Usage)?;
        check_disjoint(&listen).map_err(|overlap| Failure::Usage(overlap.to_string()))?;
        let config = Config {
            listen,
            protocol: self.protocol,
            users,
            allow: self.allow.clone(),
            allow_loopback: self.allow_loopback,
            handshake_timeout: self.handshake_timeout,
        };
        config.checked().map_err(Failure::Usage)
    }
}

/// Comments begin with `#`.
fn read_users(path: &Path) -> Result<Vec<User>, Failure> {
    let read = std::fs::read_to_string(path);
    let text = read.map_err(|source| Failure::ReadFile { path: path.to_owned(), source })?;
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let users = lines.map(|(number, line)| {
        line.parse().map_err(|error| Failure::Usage(format!("{}, line {number}: {error}", path.display())))
    });
    users.collect()
}

/// Starts one proxy. Must be called within a tokio runtime, on which it then runs.
///
/// # Errors
/// When one of its places can't be listened on.
pub async fn start<N: Network>(config: Config, limits: &Limits, ours: &Arc<N>) -> Result<Handle, StartError> {
    let tally = Arc::<Tally>::default();
    let service = Service::new(limits.max_connections);
    let listen = config.listen.clone();
    let proxy = proxy(config, limits, ours, &tally, &service);
    Handle::start(&listen, &**ours, limits, tally, service, proxy).await
}

/// Has a proxy that runs go on as `config` and `limits` say, but for where it listens: new clients are served so.
pub fn change<N: Network>(handle: &Handle, config: Config, limits: &Limits, ours: &Arc<N>) {
    let (tally, service) = handle.parts();
    handle.serve_by(proxy(config, limits, ours, tally, service), limits);
}

/// Listens again where a proxy has ceased to by itself, if that is possible now; returns why it has since the last call.
pub async fn listen_again<N: Network>(
    handle: &mut Handle,
    limits: &Limits,
    ours: &Arc<N>,
) -> Vec<StartError> {
    handle.listen_again::<N, Proxy<N>>(&**ours, limits).await
}

fn proxy<N: Network>(
    config: Config,
    limits: &Limits,
    ours: &Arc<N>,
    tally: &Arc<Tally>,
    service: &Service,
) -> Arc<Proxy<N>> {
    let dialer = Dialer::new(Arc::clone(ours), limits.connect_timeout);
    let shut = config.side() == Side::Ours && !config.allow_loopback;
    Arc::new(Proxy {
        config,
        limits: *limits,
        dialer: if shut { dialer.without_loopback() } else { dialer },
        tally: Arc::clone(tally),
        stopping: service.stopping().clone(),
    })
}

/// Serves clients over the network that `open` brings up, until told to stop.
pub async fn run<N: Network>(
    options: ProxyOptions,
    console: Console,
    open: impl AsyncFnOnce() -> Result<N, Failure>,
    stop: impl Future<Output = Exit>,
) -> Exit {
    let config = match options.config() {
        Ok(config) => config,
        Err(failure) => {
            console.diagnostics.line(&failure.line());
            return failure.exit();
        }
    };
    let limits = options.relay.limits;
    let to = match config.side().other() {
        Side::Ours => "ours",
        Side::Kernel => "kernel",
    };
    let start = async |ours: &Arc<N>, started: &mut Vec<Started>| {
        started.push(Started { handle: start(config, &limits, ours).await?, to: to.to_owned() });
        Ok(())
    };
    command::run(options.relay, console, open, start, stop).await
}
