//! `xstack daemon`: holds addresses, neighbours, connections and forwards for as long as the machine is up.
//!
//! The configuration is judged before anything is touched ([`config`]), the control socket is made before the interface is,
//! so that a second daemon disturbs nobody, and what needs privileges is done before they are given up. Then it serves until
//! a signal comes: SIGHUP has it read the file again and become what that says ([`relays`]), SIGTERM and SIGINT have it end
//! in order, and a second one at once.

pub mod config;
mod lost;
pub mod networks;
mod notify;
pub mod position;
mod relays;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use clap::Args;
use futures_util::future::{BoxFuture, join_all};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::level_filters::LevelFilter;

use self::{
    config::Config,
    lost::Lost,
    networks::Moves,
    position::Source,
    relays::{Relays, Wish},
};
use super::{
    console::{Console, Diagnostics},
    control::{
        access::Access,
        server::{self, Server},
        socket::ControlSocket,
        view::Status,
    },
    error::{Exit, Failure},
    global::GlobalOptions,
    network::Network,
    ours::OurNetwork,
    privileges::{Privileges, Profile},
    relay::command::raise_descriptor_limit,
    several::Several,
};
use crate::{api::Stack, device::interface};

/// How often it is looked whether the stack still runs, and a removed address or interface is noticed. Oftener costs a lock
/// each time; more rarely, and a daemon that can't do anything looks alive for longer.
const HEALTH_INTERVAL: Duration = Duration::from_secs(1);

/// How long the network may take to end in order. What it undoes on the host it undoes in any case.
const NETWORK_CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What `xstack daemon` can be told.
#[derive(Args, Clone, Debug)]
pub struct DaemonOptions {
    /// The configuration
    #[arg(value_name = "FILE", default_value = config::DEFAULT_PATH, env = "XSTACK_CONFIG", hide_env_values = true)]
    pub file: PathBuf,

    /// Judge the configuration, and touch nothing
    #[arg(long)]
    pub check: bool,

    /// Tell what happens, on stderr
    #[arg(short, long)]
    pub verbose: bool,
}

impl DaemonOptions {
    /// How much to log, if the configuration says so. What is wrong with it is told later.
    pub fn log_level(&self) -> Option<LevelFilter> {
        Config::read(&self.file).ok()?.daemon.log.map(|level| level.0)
    }
}

/// Runs the daemon until it is told to stop, which is no failure.
pub async fn run(
    options: DaemonOptions,
    global: GlobalOptions,
    console: Console,
    stop: impl Future<Output = Exit>,
) -> Exit {
    let tell = console.diagnostics.clone();
    let result = match Loaded::read(&options.file) {
        Ok(_) if options.check => check(&options, console).await,
        Ok(loaded) => serve(loaded, &global, &tell, stop).await,
        Err(failure) => Err(failure),
    };
    match result {
        Ok(()) => Exit::Success,
        Err(failure) => {
            tell.line(&failure.line());
            failure.exit()
        }
    }
}

async fn check(options: &DaemonOptions, mut console: Console) -> Result<(), Failure> {
    let text = format!("{} is a valid configuration\n", options.file.display());
    let stdout = |source| Failure::Write { destination: "standard output".into(), source };
    console.output.write_all(text.as_bytes()).await.map_err(stdout)?;
    console.output.flush().await.map_err(stdout)
}

/// A configuration with what had to be looked up for it.
#[derive(Debug)]
struct Loaded {
    config: Config,
    access: Access,
    path: PathBuf,
}

impl Loaded {
    fn read(path: &Path) -> Result<Self, Failure> {
        let invalid = |error: position::ConfigError| Failure::Configuration(error.to_string());
        let config = Config::read(path).map_err(invalid)?;
        let access = config.access(&Source { path, text: "" }).map_err(invalid)?;
        Ok(Self { config, access, path: path.to_owned() })
    }

    fn wishes(&self) -> Vec<Wish> {
        let Config { forward, proxy, limits, .. } = &self.config;
        let forwards = forward.iter().map(|spec| Wish::Forward(spec.get_ref().clone(), *limits));
        let proxies = proxy.iter().map(|config| Wish::Proxy(config.get_ref().clone(), *limits));
        forwards.chain(proxies).collect()
    }
}

/// One network for each interface, as if they were one.
type OurNetworks = Several<OurNetwork>;

/// What runs, and what is told of it.
#[derive(Debug)]
struct Running {
    /// Until it is closed.
    network: Mutex<Option<Arc<OurNetworks>>>,
    /// Of each interface, in the order of the configuration.
    stacks: Vec<Stack>,
    relays: tokio::sync::Mutex<Relays>,
    lost: Mutex<Lost>,
    /// What the relays were at the last look: they may be about to change.
    seen: Mutex<Vec<super::control::view::Relay>>,
    started: Instant,
    configuration: PathBuf,
    /// As many as there are stacks.
    interfaces: Vec<String>,
}

impl Running {
    fn network(&self) -> MutexGuard<'_, Option<Arc<OurNetworks>>> {
        self.network.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost(&self) -> MutexGuard<'_, Lost> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl server::Daemon for Arc<Running> {
    type Network = OurNetworks;

    fn network(&self) -> Option<Arc<OurNetworks>> {
        Running::network(self).clone()
    }

    fn stacks(&self) -> Vec<Stack> {
        self.stacks.clone()
    }

    fn status(&self) -> Status {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(relays) = self.relays.try_lock() {
            *seen = relays.view();
        }
        Status {
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            configuration: self.configuration.display().to_string(),
            relays: seen.clone(),
            ..Status::of(&self.interfaces, &self.stacks)
        }
    }
}

async fn serve(
    loaded: Loaded,
    global: &GlobalOptions,
    tell: &Diagnostics,
    stop: impl Future<Output = Exit>,
) -> Result<(), Failure> {
    let mut stop = std::pin::pin!(stop);
    // Before there is anything to reload, SIGHUP must not end us.
    let mut hang_up = signal(SignalKind::hangup()).map_err(|error| Failure::Control(error.to_string()))?;
    raise_descriptor_limit();
    let config = &loaded.config;
    let options = config.options(global)?;
    // What is not about a network is the same in all of them.
    let owner = Privileges::plan(&options[0])?.identity().map(|user| (user.uid.as_raw(), user.gid.as_raw()));
    let socket = ControlSocket::bind(&config.control.socket, config.control.mode, owner, options[0].seccomp)
        .await
        .map_err(|error| Failure::Relay(error.to_string()))?;
    let starting = Running::start(&loaded, &options);
    let running = tokio::select! {
        _ = &mut stop => return Ok(()),
        started = starting => Arc::new(started?),
    };
    let server = Server::new(Arc::clone(&running), loaded.access.clone());
    let mut daemon = Daemon { loaded: Arc::new(loaded), running, server, tell };
    let status = daemon.status_line().await;
    tell.line(&format!("xstack: {status}"));
    notify::ready(&status);
    let result = daemon.until_stopped(&socket, &mut hang_up, &mut stop).await;
    daemon.stop().await;
    result
}

impl Running {
    async fn start(loaded: &Loaded, options: &[GlobalOptions]) -> Result<Self, Failure> {
        let (mut interfaces, mut networks) = (Vec::new(), Vec::new());
        // If one is not there, the others are not touched.
        for options in options {
            let found = interface::find(options.interface.as_deref()).await;
            interfaces.push(found.map_err(|error| Failure::Interface(error.to_string()))?.name);
        }
        for options in options {
            networks.push(OurNetwork::open(options).await?);
        }
        let stacks = networks.iter().map(|network| network.stack().clone()).collect();
        let first = networks.remove(0);
        let network = Arc::new(Several::new(first, networks));
        let mut relays = Relays::default();
        if let Err(error) = relays.start(&loaded.wishes(), &network).await {
            relays.stop(Duration::ZERO).await;
            return Err(Failure::Relay(error.to_string()));
        }
        network.give_up_privileges(Profile::Daemon)?;
        Ok(Self {
            stacks,
            network: Mutex::new(Some(network)),
            seen: Mutex::new(relays.view()),
            relays: tokio::sync::Mutex::new(relays),
            lost: Mutex::default(),
            started: Instant::now(),
            configuration: loaded.path.clone(),
            interfaces,
        })
    }
}

/// The daemon while it serves.
#[derive(Clone)]
struct Daemon<'a> {
    loaded: Arc<Loaded>,
    running: Arc<Running>,
    server: Server<Arc<Running>>,
    tell: &'a Diagnostics,
}

impl Daemon<'_> {
    /// Serves until it is told to stop, or can't any more.
    async fn until_stopped(
        &mut self,
        socket: &ControlSocket,
        hang_up: &mut Signal,
        stop: &mut (impl Future<Output = Exit> + Unpin),
    ) -> Result<(), Failure> {
        let server = self.server.clone();
        let mut control = std::pin::pin!(server.run(socket.listener()));
        let interval =
            notify::watchdog_interval().map_or(HEALTH_INTERVAL, |wanted| wanted.min(HEALTH_INTERVAL));
        let mut health = tokio::time::interval(interval);
        // Claiming takes seconds, in which all the rest goes on.
        let mut reloading: Option<BoxFuture<'_, Arc<Loaded>>> = None;
        loop {
            let is_settled = reloading.is_none();
            let reloaded = async {
                match &mut reloading {
                    Some(reloading) => reloading.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = &mut *stop => return Ok(()),
                loaded = reloaded => {
                    self.loaded = loaded;
                    reloading = None;
                    notify::ready(&self.status_line().await);
                }
                // One that comes meanwhile is kept for later.
                _ = hang_up.recv(), if is_settled => {
                    notify::reloading();
                    let copy = self.clone();
                    reloading = Some(Box::pin(copy.reload()));
                }
                _ = health.tick() => {
                    self.check_health()?;
                    self.listen_again().await;
                }
                ended = &mut control => {
                    let error = ended.err().map(|error| format!("the control socket failed: {error}"));
                    return Err(Failure::Control(error.unwrap_or_default()));
                }
            }
        }
    }

    /// A stack that has stopped can't come back: whoever started us does better to start us again. So it is with one that has
    /// no address any more.
    fn check_health(&self) -> Result<(), Failure> {
        if self.running.lost().look(&self.running.stacks, &self.loaded.config, self.tell) {
            return Err(Failure::Interface("no address is left: others on the link insist on them".into()));
        }
        let mut shards = self.running.stacks.iter().flat_map(Stack::shard_infos);
        match shards.find_map(|shard| shard.stopped) {
            Some(why) => Err(Failure::Interface(why)),
            None => {
                notify::alive();
                Ok(())
            }
        }
    }

    /// What ceased to listen by itself, because its address was lost for example, listens again as soon as it can.
    async fn listen_again(&self) {
        let Some(network) = self.running.network().clone() else { return };
        let Ok(mut relays) = self.running.relays.try_lock() else { return };
        for ended in relays.listen_again(&network).await {
            self.tell.line(&format!("xstack: warning: {ended}; it is tried again"));
        }
    }

    /// Reads the configuration again, and becomes what that says. If it is not valid, nothing changes. Returns what holds then.
    async fn reload(mut self) -> Arc<Loaded> {
        match Loaded::read(&self.loaded.path) {
            Ok(new) => self.become_as(new).await,
            Err(failure) => {
                self.tell.line(&failure.line());
                self.tell.line("xstack: warning: the configuration stays as it was");
            }
        }
        self.loaded
    }

    async fn become_as(&mut self, mut new: Loaded) {
        let Some(network) = self.running.network().clone() else { return };
        for what in self.loaded.config.needs_restart(&new.config) {
            self.tell.line(&format!("xstack: warning: {what} has changed, which takes a restart"));
        }
        let grace = new.config.daemon.grace;
        let moves = self.loaded.config.networks.moves(&new.config.networks);
        // What is to listen there needs them first, and what listened there is closed before they go.
        self.claim_new_addresses(&moves, &mut new.config).await;
        let mut relays = self.running.relays.lock().await;
        let change = relays.change(&new.wishes(), &network, grace).await;
        drop(relays);
        for failure in &change.failures {
            self.tell.line(&format!("xstack: error: {failure}"));
        }
        let relays::Change { kept, started, stopped, .. } = change;
        self.tell
            .line(&format!("xstack: reloaded: {kept} listeners kept, {started} started, {stopped} stopped"));
        self.release_old_addresses(&moves, grace);
        self.server.set_access(new.access.clone());
        let kept = self.loaded.config.clone().reloaded_as(new.config);
        self.loaded = Arc::new(Loaded { config: kept, ..new });
    }

    async fn claim_new_addresses(&self, moves: &[Moves], new: &mut Config) {
        let on_stack = |(stack, moves): (_, &Moves)| {
            moves.come.iter().map(move |&choice| (stack, choice)).collect::<Vec<_>>()
        };
        let claims = self.running.stacks.iter().zip(moves).flat_map(on_stack);
        let claims = claims.map(async |(stack, choice): (&Stack, _)| (choice, stack.claim(choice).await));
        // At the same time, so that many take no longer than one.
        for (choice, claimed) in join_all(claims).await {
            match claimed {
                Ok(address) => self.tell.line(&format!("xstack: {address} claimed")),
                Err(error) => {
                    self.tell.line(&format!("xstack: error: {error}"));
                    new.networks.forget(choice);
                }
            }
        }
    }

    /// Their connections have the time of grace, which is not waited for.
    fn release_old_addresses(&self, moves: &[Moves], grace: Duration) {
        for (stack, moves) in self.running.stacks.iter().zip(moves) {
            for &address in &moves.go {
                self.tell.line(&format!("xstack: {address} is given up"));
                self.running.lost().forget(address.into());
                let stack = stack.clone();
                tokio::spawn(async move {
                    if let Err(error) = stack.release(address.into(), grace).await {
                        tracing::warn!("{address} is still steered to us: {error}");
                    }
                });
            }
        }
    }

    async fn status_line(&self) -> String {
        let relays = self.running.relays.lock().await.len();
        let on_interface = |(interface, stack): (&String, &Stack)| {
            let addresses: Vec<_> = stack.addresses().iter().map(ToString::to_string).collect();
            format!("{} on {interface}", addresses.join(", "))
        };
        let networks = self.running.interfaces.iter().zip(&self.running.stacks).map(on_interface);
        let networks = networks.collect::<Vec<_>>().join(", ");
        let socket = self.loaded.config.control.socket.display();
        format!("{networks}, {relays} forwards and proxies, control socket {socket}")
    }

    /// Ends in order: nobody is let in any more, those who are served may finish within the time of grace, the rest is
    /// reset. Told to stop again, it does not wait.
    async fn stop(self) {
        let grace = self.loaded.config.daemon.grace;
        notify::stopping("connections may finish");
        let mut relays = self.running.relays.lock().await;
        let left = tokio::select! {
            (relayed, tunnelled) = async { tokio::join!(relays.stop(grace), self.server.stop(grace)) } => relayed + tunnelled,
            _ = super::stopped() => {
                let (relayed, tunnelled) = tokio::join!(relays.stop(Duration::ZERO), self.server.stop(Duration::ZERO));
                relayed + tunnelled
            }
        };
        if left > 0 {
            self.tell.line(&format!("xstack: warning: {left} connections had not ended, and were reset"));
        }
        drop(relays);
        let network = self.running.network().take();
        if let Some(network) = network.and_then(Arc::into_inner) {
            let _ = tokio::time::timeout(NETWORK_CLOSE_TIMEOUT, network.close()).await;
        }
    }
}
