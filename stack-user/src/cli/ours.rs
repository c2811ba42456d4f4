//! The network that commands run on: our own stack.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
};

use tokio::{runtime::Handle, sync::OnceCell};
use tracing::level_filters::LevelFilter;

use super::{
    dispatcher_guard,
    error::Failure,
    global::{AcdSchedule, GlobalOptions},
    kernel::connect_error,
    network::{ConnectError, Connection, Listener, Network, ResolveError},
    privileges::{Privileges, Profile},
    several::Part,
    threads::Threads,
};
use crate::{
    api::{self, Resolver, Stack, TcpListener, TcpStream},
    device::interface::{self, InterfaceError},
    net::{acd::Schedule, routes::Reach},
    stack::Followers,
    tcp::KeepAlive,
    telemetry::STORY,
    time::Duration,
};

/// How long connections that were closed may take to finish: a few round trips around the world.
const CLOSE_GRACE: Duration = Duration::from_millis(800);

/// Our stack, with a claimed address, and a resolver as soon as one is needed.
#[derive(Debug)]
pub struct OurNetwork {
    stack: Stack,
    name_servers: Vec<IpAddr>,
    resolver: OnceCell<Resolver>,
    privileges: Privileges,
    /// Last, so that they are there until nothing needs a driver any more.
    _threads: Threads,
}

impl OurNetwork {
    /// Starts the stack as the options say.
    ///
    /// # Errors
    /// [`Failure::Interface`] with what is in the way; [`Failure::Usage`] if there is no such user as root is to become.
    pub async fn open(options: &GlobalOptions) -> Result<Self, Failure> {
        let privileges = Privileges::plan(options)?;
        let threads = threads(options).await?;
        let builder = Stack::builder()
            .interface(options.interface.clone())
            .addresses(options.address.clone())
            .drivers(threads.runtimes().to_vec())
            .gateway(options.gateway)
            .vlan(options.vlan)
            .mode(options.mode)
            .queue(options.queue)
            .ring_size(options.ring_size.unwrap_or_default())
            .huge_pages(options.huge_pages)
            .conflict_detection(match options.acd {
                AcdSchedule::Fast => Schedule::Fast,
                AcdSchedule::Rfc => Schedule::Rfc,
            })
            .program(options.program.clone().unwrap_or_default())
            .dispatcher_guard(Some(dispatcher_guard::start))
            // The program that can log is a second one, and slower: it is used for those who look that closely.
            .program_log(options.log.into_level().filter(|_| options.log >= LevelFilter::DEBUG))
            .capture(options.pcap.clone())
            .faults(options.fault)
            .state_directory(options.state_dir.clone())
            .busy_poll(options.busy_poll.map(|micros| Duration::from_micros(micros.into())))
            // Each shard shares a thread with the tasks of its connections, and no command computes for long.
            .gather_writes(true)
            .tcp(options.tcp());
        let stack = builder.start().await.map_err(|error| Failure::Interface(error.to_string()))?;
        Ok(Self {
            stack,
            name_servers: options.dns.clone(),
            resolver: OnceCell::new(),
            privileges,
            _threads: threads,
        })
    }

    /// The stack.
    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    /// Tells what was lost on the way, if anything, and how it came and went: for `-v`.
    fn tell_counters(&self) {
        let drops: Vec<_> =
            self.stack.drops().iter().map(|(reason, n)| format!("{} {n}", reason.name())).collect();
        if !drops.is_empty() {
            tracing::info!(target: STORY, "frames dropped: {}", drops.join(", "));
        }
        for info in self.stack.shard_infos() {
            if let Some(device) = info.device_chunks {
                let told = whereabouts(info.chunks, info.free_chunks, device);
                tracing::info!(target: STORY, "frames: {told}");
            }
        }
        for shard in (0..self.stack.shard_count()).filter_map(|number| self.stack.on_shard(number)) {
            let counters = shard.device_counters().unwrap_or_default();
            let told: Vec<_> =
                counters.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{name} {n}")).collect();
            if !told.is_empty() {
                tracing::info!(target: STORY, "device: {}", told.join(", "));
            }
        }
        let Followers { taken_in, sent, .. } = self.stack.followers();
        if taken_in > 0 || sent > 0 {
            tracing::info!(target: STORY, "segments handled with the one before: {taken_in} received, {sent} sent");
        }
        let passed_on = self.stack.hand_overs().passed_on;
        if passed_on > 0 {
            tracing::info!(target: STORY, "frames that came in on another queue than their connection's: {passed_on}");
        }
    }
}

impl Network for OurNetwork {
    type Stream = TcpStream;
    type Listener = TcpListener;

    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let resolver = self
            .resolver
            .get_or_try_init(async || Resolver::new(&self.stack, &self.name_servers))
            .await
            .map_err(|error| ResolveError::Failed(error.to_string()))?;
        let addresses = resolver.lookup(host).await.map_err(|error| match error {
            api::ResolveError::NotFound(_) | api::ResolveError::InvalidName(_) => ResolveError::UnknownHost,
            error => ResolveError::Failed(error.to_string()),
        })?;
        let told: Vec<_> = addresses.iter().map(IpAddr::to_string).collect();
        tracing::info!(target: STORY, "{host} is {}", told.join(", "));
        Ok(addresses)
    }

    async fn connect(&self, remote: SocketAddr) -> Result<TcpStream, ConnectError> {
        if remote.is_ipv6() {
            return Err(ConnectError::FamilyUnsupported);
        }
        let connected = TcpStream::connect(&self.stack, remote).await;
        let error = match connected {
            Ok(stream) => {
                // As curl does: the end of a request should not wait for the ACK of its beginning.
                stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => error,
        };
        Err(match connect_error(&error) {
            ConnectError::Unreachable(_) => {
                ConnectError::Unreachable(why_unreachable(remote.ip(), error).await)
            }
            other => other,
        })
    }

    fn addresses(&self) -> Vec<IpAddr> {
        self.stack.addresses()
    }

    fn ours(&self) -> Option<&Stack> {
        Some(&self.stack)
    }

    async fn listen(&self, local: SocketAddr) -> io::Result<TcpListener> {
        TcpListener::bind(&self.stack, local).await
    }

    async fn listen_with(&self, local: SocketAddr, backlog: usize) -> io::Result<TcpListener> {
        TcpListener::bind_with_backlog(&self.stack, local, backlog)
    }

    fn becomes_another_user(&self) -> bool {
        self.privileges.changes_user()
    }

    fn becomes(&self) -> Option<(u32, u32)> {
        self.privileges.identity().map(|user| (user.uid.as_raw(), user.gid.as_raw()))
    }

    fn give_up_privileges(&self, profile: Profile) -> Result<(), Failure> {
        self.privileges.give_up(profile)
    }

    async fn close(mut self) {
        // What it keeps open to name servers would be waited for.
        drop(self.resolver.take());
        self.stack.shut_down(CLOSE_GRACE).await;
        self.tell_counters();
        if let Some(advice) = self.stack.advice() {
            tracing::warn!("{advice}");
        }
    }
}

impl Part for OurNetwork {
    fn reach(&self, remote: IpAddr) -> Reach {
        self.stack.reach(remote)
    }

    fn has_name_servers(&self) -> bool {
        !self.name_servers.is_empty()
    }
}

impl Connection for TcpStream {
    fn runtime(&self) -> Option<Handle> {
        Some(Self::runtime(self))
    }

    fn reset(self) {
        self.set_zero_linger();
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        Some(Self::local_addr(self))
    }

    fn set_keepalive(&self, keepalive: KeepAlive) {
        Self::set_keepalive(self, Some(keepalive));
    }

    fn failure(&self) -> Option<io::Error> {
        self.error()
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(Self::local_addr(self))
    }

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, remote) = Self::accept(self).await?;
        stream.set_nodelay(true);
        Ok((stream, remote))
    }
}

/// Where the frames of a shard are. Were one counted twice, there would be fewer than none in use, which is told as it is.
fn whereabouts(chunks: usize, free: usize, device: usize) -> String {
    let in_use = chunks as i64 - free as i64 - device as i64;
    format!("{chunks}, of which {free} are free, {device} with the device, {in_use} in use")
}

/// Threads for the shards that the stack is going to have.
async fn threads(options: &GlobalOptions) -> Result<Threads, Failure> {
    let most = options.threads.map_or(1, NonZeroUsize::get);
    let unfit = |error: InterfaceError| Failure::Interface(error.to_string());
    let interface = interface::find(options.interface.as_deref()).await.map_err(unfit)?;
    let threads = Threads::for_shards(interface.queues(options.queue).len(), most);
    threads.map_err(|error| Failure::Interface(format!("cannot start threads for the shards: {error}")))
}

/// What the stack says, unless the reason lies in this host: a card sends no frame back to its own machine.
async fn why_unreachable(ip: IpAddr, error: io::Error) -> String {
    match interface::owner_of(ip).await {
        Ok(Some(owner)) => format!(
            "{ip} is this host's own address, on {owner}, and a network card sends nothing back to its own machine: \
             reach it through the kernel"
        ),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_that_is_counted_twice_is_not_hidden() {
        assert_eq!(whereabouts(8, 5, 2), "8, of which 5 are free, 2 with the device, 1 in use");
        assert!(whereabouts(8, 7, 2).ends_with(", -1 in use"));
    }
}
