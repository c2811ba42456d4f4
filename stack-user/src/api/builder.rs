//! From wishes to a running stack: interface, program, rings, address.

mod error;
mod long_frames;
mod queues;

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    str::FromStr,
    sync::Arc,
};

use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

pub use self::error::StartError;
pub(super) use self::long_frames::LongFrames;
use super::{Besides, Stack, addresses::Place, link::follow};
use crate::{
    device::{
        fault::FaultSpec,
        interface::{self, Interface, InterfaceError, Watch},
        remedy::Change,
        xdp::{
            HugePages, Mode, RingSize,
            program::{Guard, Membership, Program, ProgramError},
        },
    },
    net::acd::Schedule,
    rng::Rng,
    runtime::{Clock, Life},
    tcp,
    telemetry::STORY,
    time::Duration,
};

/// How long to wait for a link that is up but has no carrier: a driver may reset it when an XDP program is attached
/// or a ring is bound, and a switch port takes a few seconds to come back.
const CARRIER_TIMEOUT: Duration = Duration::from_secs(10);

/// Which address to claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AddressChoice {
    /// One that nobody has, found by probing the interface's own subnet.
    #[default]
    Auto,
    /// This one.
    Given {
        /// The address.
        address: Ipv4Addr,
        /// Bits of its network; without it, the interface's own network that the address is in.
        prefix_len: Option<u8>,
    },
}

/// Which XDP program steers frames to us.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum ProgramChoice {
    /// The one that `xstack attach` left on the interface, if there is one; else our own.
    #[default]
    Auto,
    /// Our own, attached by us and gone with us: alone, or beside others in libxdp's dispatcher if there is one.
    Own,
    /// Our object, attached by somebody else (`xdp-loader load -p`), its maps pinned in this directory.
    Pinned(PathBuf),
}

/// The text names no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseAddressError {
    /// Neither an address nor `auto`.
    #[error("'{0}' is not an IPv4 address, and not 'auto'")]
    Address(String),
    /// An IPv6 address.
    #[error("'{0}' is an IPv6 address, which is not supported yet: give an IPv4 address")]
    Ipv6(String),
    /// No prefix length.
    #[error("the prefix length '{0}' is not a number from 1 to 32")]
    PrefixLen(String),
}

impl FromStr for AddressChoice {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address = match address.parse() {
            Ok(IpAddr::V4(address)) => address,
            Ok(IpAddr::V6(_)) => return Err(ParseAddressError::Ipv6(address.to_owned())),
            Err(_) => return Err(ParseAddressError::Address(address.to_owned())),
        };
        let prefix_len = length
            .map(|length| match length.parse::<u8>() {
                Ok(bits @ 1..=32) => Ok(bits),
                _ => Err(ParseAddressError::PrefixLen(length.to_owned())),
            })
            .transpose()?;
        Ok(Self::Given { address, prefix_len })
    }
}

/// The text names no program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is none of auto, own, and pinned:DIR")]
pub struct ParseProgramError(String);

impl FromStr for ProgramChoice {
    type Err = ParseProgramError;

    fn from_str(text: &str) -> Result<Self, ParseProgramError> {
        match text.split_once(':') {
            None if text == "auto" => Ok(Self::Auto),
            None if text == "own" => Ok(Self::Own),
            Some(("pinned", directory)) if !directory.is_empty() => Ok(Self::Pinned(directory.into())),
            _ => Err(ParseProgramError(text.to_owned())),
        }
    }
}

/// How to start a [`Stack`]: see [`Stack::builder`].
#[derive(Clone, Debug, Default)]
pub struct Builder {
    interface: Option<String>,
    addresses: Vec<AddressChoice>,
    gateway: Option<Ipv4Addr>,
    vlan: Option<u16>,
    mode: Mode,
    queue: Option<u32>,
    ring_size: RingSize,
    huge_pages: HugePages,
    schedule: Schedule,
    program: ProgramChoice,
    program_log: Option<tracing::Level>,
    capture: Option<PathBuf>,
    faults: Option<FaultSpec>,
    tcp: tcp::Config,
    state_directory: Option<PathBuf>,
    drivers: Vec<Handle>,
    busy_poll: Option<Duration>,
    gathers: bool,
    dispatcher_guard: Option<DispatcherGuard>,
}

/// Starts whatever leaves a dispatcher in our place.
pub type DispatcherGuard = fn(&Membership) -> io::Result<Guard>;

impl Builder {
    /// The interface to run on. Without it: the one with the default route.
    #[must_use]
    pub fn interface(mut self, name: Option<String>) -> Self {
        self.interface = name;
        self
    }

    /// The one address to claim.
    #[must_use]
    pub fn address(self, choice: AddressChoice) -> Self {
        self.addresses(vec![choice])
    }

    /// The addresses to claim, all at the same time; the first is the stack's [`address`](Stack::address). If one can't be
    /// had, the stack does not start. None is as one that is chosen for us.
    #[must_use]
    pub fn addresses(mut self, choices: Vec<AddressChoice>) -> Self {
        self.addresses = choices;
        self
    }

    /// The router for everything off the link. Without it: the interface's own.
    #[must_use]
    pub fn gateway(mut self, gateway: Option<Ipv4Addr>) -> Self {
        self.gateway = gateway;
        self
    }

    /// The VLAN that the address is on, 1 to 4094.
    #[must_use]
    pub fn vlan(mut self, vlan: Option<u16>) -> Self {
        self.vlan = vlan;
        self
    }

    /// How to drive the NIC.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// The one queue to bind. Without it: all of them.
    #[must_use]
    pub fn queue(mut self, queue: Option<u32>) -> Self {
        self.queue = queue;
        self
    }

    /// Descriptors in each ring of a queue.
    #[must_use]
    pub fn ring_size(mut self, size: RingSize) -> Self {
        self.ring_size = size;
        self
    }

    /// Whether frames lie on huge pages. Without it: if enough are free.
    #[must_use]
    pub fn huge_pages(mut self, wish: HugePages) -> Self {
        self.huge_pages = wish;
        self
    }

    /// How patiently to look for others who use the address (RFC 5227).
    #[must_use]
    pub fn conflict_detection(mut self, schedule: Schedule) -> Self {
        self.schedule = schedule;
        self
    }

    /// The XDP program to use.
    #[must_use]
    pub fn program(mut self, choice: ProgramChoice) -> Self {
        self.program = choice;
        self
    }

    /// Have the XDP program log its decisions, up to this level.
    #[must_use]
    pub fn program_log(mut self, level: Option<tracing::Level>) -> Self {
        self.program_log = level;
        self
    }

    /// Write all frames to this file, as pcapng.
    #[must_use]
    pub fn capture(mut self, file: Option<PathBuf>) -> Self {
        self.capture = file;
        self
    }

    /// Do to our own frames what a bad network does.
    #[must_use]
    pub fn faults(mut self, faults: Option<FaultSpec>) -> Self {
        self.faults = faults;
        self
    }

    /// What TCP connections start with: buffers, time-outs, congestion control.
    #[must_use]
    pub fn tcp(mut self, config: tcp::Config) -> Self {
        self.tcp = config;
        self
    }

    /// A directory of our own (made if its parent is there) that keeps a secret key and how far the clock has come, so that
    /// this stack goes on with sequence numbers and timestamps where the last one on it ended, or was killed (RFC 6528). For
    /// servers, and for whoever uses the same ports again. Without it, every start is the first.
    #[must_use]
    pub fn state_directory(mut self, directory: Option<PathBuf>) -> Self {
        self.state_directory = directory;
        self
    }

    /// The runtimes that drive the shards, in turn: the first one the first shard, and so on. For runtimes of one thread each,
    /// so that a shard and the tasks of its [handle](Stack::on_shard) share a thread. Without any, it is the one that the stack is
    /// started on.
    #[must_use]
    pub fn drivers(mut self, runtimes: Vec<Handle>) -> Self {
        self.drivers = runtimes;
        self
    }

    /// Have the NIC's driver asked for frames, instead of waiting for its interrupts, until none has come or gone for so long.
    /// It costs a core while there is traffic, and saves the time that an interrupt and a wake-up take. Each driver of a
    /// shard should have a thread of its own then. Who looks so often finds bursts in pieces, and lets one ACK answer what comes within 20
    /// microseconds, and has that of a request wait for the answer for 200, or as long as [`tcp::Config::ack_hold`] and
    /// [`answer_hold`](tcp::Config::answer_hold) say if they say more than zero.
    ///
    /// The NIC's interrupts are held back meanwhile, which is a setting of the host. Another process sets it back when the stack
    /// ends in whatever way, unless somebody else has changed it by then. It is forked from this one when the stack is started, and
    /// shares the memory that was there then: what this process writes to afterwards is copied first, and what it gives back is
    /// kept until the stack ends. So start the stack before the program's large data is there. The process is not a child of this
    /// one, has none of its files, and runs nothing of the program.
    #[must_use]
    pub fn busy_poll(mut self, time: Option<Duration>) -> Self {
        self.busy_poll = time;
        self
    }

    /// Send what tasks write together, when frames that came together have woken them: one system call for the answers to a burst of
    /// requests. Without it, a write is on the wire when it returns. With it, what such a task writes is there when the others have
    /// run as well; so it is for servers whose tasks run on the [runtimes of one thread](Self::drivers) that drive the shards, and
    /// don't compute for long between writing and waiting.
    #[must_use]
    pub fn gather_writes(mut self, gather: bool) -> Self {
        self.gathers = gather;
        self
    }

    /// Who leaves libxdp's dispatcher in our place, should we join one: for programs that give up the privileges that it takes,
    /// or that are killed. Without it, leaving is tried when the stack is dropped; and the next stack on the interface does it for
    /// one that did not.
    #[must_use]
    pub fn dispatcher_guard(mut self, start: Option<DispatcherGuard>) -> Self {
        self.dispatcher_guard = start;
        self
    }

    /// Starts the stack: attaches the program, binds the queues, claims the address.
    ///
    /// Whatever was changed on the host is undone when the last handle of the stack is dropped, when this fails, and
    /// also when the process is killed.
    ///
    /// # Errors
    /// [`StartError`] says what is in the way, and what to do.
    pub async fn start(self) -> Result<Stack, StartError> {
        let interface = interface::find(self.interface.as_deref()).await?;
        let mut rng = Rng::from_os().map_err(StartError::Random)?;
        let place = Place {
            interface: Some(interface.clone()),
            gateway: self.gateway,
            vlan: self.vlan,
            schedule: self.schedule,
        };
        let auto = [AddressChoice::Auto];
        let choices = if self.addresses.is_empty() { &auto[..] } else { &self.addresses };
        let mut wishes = Vec::new();
        for &choice in choices {
            wishes.push(place.wish(choice, choices.len() == 1, &interface, &mut rng).await?);
        }
        let life = self.state_directory.as_deref().map(Life::begin).transpose()?;

        let mut program = match &self.program {
            ProgramChoice::Auto => Program::find_or_attach(&interface.name, self.mode, self.program_log)?,
            ProgramChoice::Own => Program::attach(&interface.name, self.mode, self.program_log)?,
            ProgramChoice::Pinned(directory) => Program::from_pins(directory, &interface.name)?,
        };
        if let (Some(membership), Some(start)) = (program.membership(), self.dispatcher_guard) {
            let guard = start(membership).map_err(|source| ProgramError::Guard { source })?;
            program.set_guard(guard);
        }
        if let Some(reason) = program.fallback() {
            tracing::warn!("using the slower generic mode: {reason}");
        }
        tracing::info!(target: STORY, "{}", program.describe());
        self.warn_of_lost_frames(&interface);
        // Every queue is bound before an address is claimed: frames on an unbound one would be lost.
        let (queues, long_frames) = self.bind(&interface, &mut program)?;
        wait_for_carrier(&interface).await?;
        // From here on: a link that goes while an address is probed for has heard no probe.
        let runtime = self.drivers.first().cloned().unwrap_or_else(Handle::current);
        let watch = {
            let _entered = runtime.enter();
            Watch::new(&interface).map_err(StartError::Wait)?
        };
        // After the driver has set up its queues anew: their NAPIs are others now.
        let held_interrupts = self.poll_busily(&interface, &queues);

        let clock = life.as_ref().map_or_else(Clock::new, Life::clock);
        let shards = self.shards(queues, &interface, clock, life.as_ref(), &mut rng)?;
        // Damage that was asked for is not the link's.
        let remedy = interface.partial_checksum_remedy().filter(|_| self.faults.is_none());
        let drivers = self.drivers.clone();
        let besides = Besides {
            drivers,
            program: Some(program),
            checksum_remedy: remedy,
            life,
            place,
            poll: self.busy_poll.unwrap_or_default(),
            gathers: self.gathers,
            asks_driver: !interface.is_virtual(),
            held_interrupts,
        };
        let stack = Stack::start(shards, clock, besides).map_err(StartError::Wait)?;
        let following = follow(
            watch,
            interface.clone(),
            long_frames,
            self.queue.is_none(),
            Arc::downgrade(&stack.running),
        );
        let _first = stack.running.follower.set(AbortOnDropHandle::new(runtime.spawn(following)));
        for address in stack.claim_all(wishes).await? {
            tracing::info!(target: STORY, "address {address} claimed on {} ({})", interface.name, interface.mac);
        }
        // While the program that uses the stack is still getting ready.
        stack.shard().with(|core, now| {
            if let Some(gateway) = core.stack.routes().gateway() {
                tracing::info!(target: STORY, "gateway {gateway} for everything outside of our subnets");
            }
            core.stack.find_gateway(now);
        });
        Ok(stack)
    }

    /// Says which frames will not reach us, though nothing is wrong that would fail.
    fn warn_of_lost_frames(&self, interface: &Interface) {
        let name = &interface.name;
        if self.vlan.is_some() && interface.strips_vlan_tags() {
            tracing::warn!(
                "{name} takes VLAN tags off before the XDP program sees them: say `{}`, and for a veth pair `txvlan off` \
                 at the other end, if no answer comes",
                interface::keep_vlan_tags(name).command()
            );
        }
    }
}

/// Waits for the link: binding resets some cards, and whom nobody hears must not probe for an address (RFC 5227 §2.1).
async fn wait_for_carrier(interface: &Interface) -> Result<(), InterfaceError> {
    let name = &interface.name;
    let tell =
        || tracing::info!(target: STORY, "waiting for the carrier of {name}, whose link binding may reset");
    if interface.wait_for_carrier(CARRIER_TIMEOUT, tell).await? {
        tracing::info!(target: STORY, "{name} has its carrier");
    }
    Ok(())
}

/// How to have all frames on the first queue, which is also where cards put what has no hash.
fn only_first_queue(interface: &str) -> Change {
    Change::Steer { interface: interface.to_owned(), start: 0, equal: 1 }
}

/// How to have that many queues.
pub(super) fn only_first(interface: &str, queues: u32) -> String {
    let fewer = Change::Queues { interface: interface.to_owned(), combined: queues, was: queues + 1 };
    format!("`{}` (`rx {queues}` where they are not combined)", fewer.command())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_carry_a_prefix() {
        let address = Ipv4Addr::new(10, 0, 0, 7);
        assert_eq!("auto".parse(), Ok(AddressChoice::Auto));
        assert_eq!("10.0.0.7".parse(), Ok(AddressChoice::Given { address, prefix_len: None }));
        assert_eq!("10.0.0.7/24".parse(), Ok(AddressChoice::Given { address, prefix_len: Some(24) }));
        for bad in
            ["", "Auto", "10.0.0", "10.0.0.7/", "10.0.0.7/0", "10.0.0.7/33", "10.0.0.7/24/24", "fd00::1"]
        {
            assert!(bad.parse::<AddressChoice>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_program_is_pinned_somewhere() {
        assert_eq!("pinned:/sys/fs/bpf/x".parse(), Ok(ProgramChoice::Pinned("/sys/fs/bpf/x".into())));
        assert_eq!(("auto".parse(), "own".parse()), (Ok(ProgramChoice::Auto), Ok(ProgramChoice::Own)));
        for bad in ["", "pinned:", "/sys/fs/bpf/x", "loaded:/x", "Own"] {
            assert!(bad.parse::<ProgramChoice>().is_err(), "{bad}");
        }
    }
}
