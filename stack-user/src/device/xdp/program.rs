//! The XDP program: attached to one interface, and told which addresses and sockets are ours.

mod attachment;
mod bpf;
mod claims;
mod dispatcher;
mod error;
pub mod inspect;
mod membership;
mod owners;
pub mod persistent;
mod pins;
mod records;
mod refusal;
mod trust;

use std::{
    error::Error,
    fmt, io,
    net::IpAddr,
    os::fd::{AsFd as _, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, PerCpuArray, XskMap},
    programs::{ProgramFd, Xdp},
};
use nix::net::if_::if_indextoname;
use stack_common::abi::{self, Claim, ClaimKey};

use self::{
    attachment::Attached,
    claims::{Claims, NO_EXIST},
    dispatcher::Joined,
    error::os_error,
    pins::User,
    records::Records,
};
pub use self::{
    attachment::Held,
    dispatcher::Component,
    error::ProgramError,
    membership::{Guard, Membership},
    pins::{ROOT, directory},
    refusal::Refusal,
};
use super::Mode;
use crate::{device::processes, telemetry::STORY};

/// Our program on an interface.
///
/// Dropped, it takes back what it put there. So does the kernel when the process dies, whatever way it dies: the link
/// that attaches the program is a file descriptor. A [pinned](Self::from_pins) program stays, as whoever pinned it
/// wants, and with it a claim if we were killed; it gives such frames to the kernel, since their socket is gone, and the next
/// who uses the pins removes it. A socket's place in the map is taken back by the kernel, when it is closed. In a [dispatcher](Self::membership) it takes a process to leave.
pub struct Program {
    interface: String,
    attachment: Attachment,
    sockets: XskMap<MapData>,
    claims: Claims,
    counters: PerCpuArray<MapData, u64>,
    /// What is ours in a map that others may use too.
    claimed: Vec<ClaimKey>,
    /// Reads the log records, if there are any. Dropped last.
    _records: Option<Records>,
}

/// An XDP program that is on an interface, whoever put it there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnInterface {
    /// The number that the kernel knows it by.
    pub id: u32,
    /// Its name; only root may ask for it.
    pub name: Option<String>,
    /// Whether it runs in the kernel's generic path, after the driver.
    pub is_generic: bool,
    /// Whether it has our program's name.
    pub is_ours: bool,
    /// Where its maps are kept, if it is, or runs, a program that stays and that others join.
    pub kept: Option<PathBuf>,
}

impl OnInterface {
    /// Whether it is the dispatcher by which libxdp has several programs share an interface.
    pub fn is_dispatcher(&self) -> bool {
        self.name.as_deref() == Some(attachment::DISPATCHER)
    }
}

/// The XDP program on the interface of this number, if there is one. Nothing is attached for it.
///
/// # Errors
/// When the kernel does not tell.
pub fn on_interface(interface: u32) -> io::Result<Option<OnInterface>> {
    let name = if_indextoname(interface).ok().and_then(|name| name.into_string().ok());
    let kept = name.and_then(|name| pins::standing(&name, interface).ok().flatten());
    Ok(attachment::attached(interface)?.map(|attached| OnInterface {
        kept,
        id: attached.id(),
        name: attached.name().map(str::to_owned),
        is_generic: attached.generic,
        is_ours: attached.is_ours(),
    }))
}

/// What keeps the program on the interface.
#[derive(Debug)]
enum Attachment {
    /// Our link, and why it is not in the driver if that was tried.
    Link { _link: OwnedFd, generic: bool, fallback: Option<String> },
    /// We are one of several in libxdp's dispatcher, until we leave it.
    Dispatcher { membership: Membership, generic: bool },
    /// Somebody else attached it and pinned its maps, which we use together with others.
    Pinned { user: User, attached: Attached },
}

impl Program {
    /// Loads the program and attaches it to an interface.
    ///
    /// In [`Mode::Auto`] a driver that can't run it is passed over, and [`Self::fallback`] tells why. With a level,
    /// the program reports its decisions through `log` records: ours at debug, the kernel's at trace.
    ///
    /// # Errors
    /// [`ProgramError`] says which capability, kernel feature or other program is in the way.
    pub fn attach(interface: &str, mode: Mode, log: Option<tracing::Level>) -> Result<Self, ProgramError> {
        let index = attachment::index(interface)?;
        if Membership::is_called_for(interface, index)? {
            if log.is_some() {
                tracing::warn!(
                    "the XDP program that logs can't run beside others: its decisions are not logged"
                );
            }
            return Self::attach_beside(interface, index, mode);
        }
        Self::attach_alone(interface, index, mode, log)
    }

    /// Uses the program that `xstack attach` left on an interface, if there is one, and else attaches our own.
    ///
    /// # Errors
    /// As [`Self::from_pins`] and [`Self::attach`].
    pub fn find_or_attach(
        interface: &str,
        mode: Mode,
        log: Option<tracing::Level>,
    ) -> Result<Self, ProgramError> {
        match pins::standing(interface, attachment::index(interface)?)? {
            Some(directory) => Self::from_pins(&directory, interface),
            None => Self::attach(interface, mode, log),
        }
    }

    fn attach_alone(
        interface: &str,
        index: u32,
        mode: Mode,
        log: Option<tracing::Level>,
    ) -> Result<Self, ProgramError> {
        let mut object = load(log)?;
        let records = match log {
            Some(_) => Some(Records::forward(&mut object).map_err(|source| ProgramError::Log { source })?),
            None => None,
        };
        let program =
            verify(&mut object).map_err(|error| if log.is_some() { error.of_logging() } else { error })?;
        let (link, generic, fallback) = link(program, interface, index, mode)?;
        let attachment = Attachment::Link { _link: link, generic, fallback };
        let mut map = |name| object.take_map(name).ok_or(ProgramError::NoMap { name });
        let maps = [map(abi::XSKS)?, map(abi::CLAIMS)?, map(abi::INDEX)?, map(abi::COUNTERS)?];
        Self::over(interface, attachment, maps, records)
    }

    fn attach_beside(interface: &str, index: u32, mode: Mode) -> Result<Self, ProgramError> {
        let (membership, Joined { generic, maps: [sockets, claims, index, counters, _], .. }) =
            Membership::begin(interface, index, mode)?;
        let map = |fd| MapData::from_fd(fd).and_then(Map::from_map_data).map_err(ProgramError::map);
        let maps = [map(sockets)?, map(claims)?, map(index)?, map(counters)?];
        Self::over(interface, Attachment::Dispatcher { membership, generic }, maps, None)
    }

    /// Uses a program that is attached already, and whose maps are pinned in a directory, as
    /// `xdp-loader load -p DIRECTORY` does.
    ///
    /// # Errors
    /// [`ProgramError`], if the maps aren't there, are of another version, or of a program that is not on the
    /// interface.
    pub fn from_pins(directory: &Path, interface: &str) -> Result<Self, ProgramError> {
        let index = attachment::index(interface)?;
        persistent::on_bpffs(directory)?;
        trust::check(directory)?;
        let user = User::begin(directory, interface)?;
        pins::check_version(directory, interface)?;
        let claims = pins::open(directory, abi::CLAIMS, interface)?;
        let netlink = |source| ProgramError::Netlink { interface: interface.to_owned(), source };
        let not_attached = || ProgramError::NotAttached {
            directory: directory.to_path_buf(),
            interface: interface.to_owned(),
        };
        let attached = attachment::attached(index).map_err(netlink)?.ok_or_else(not_attached)?;
        let attached = pins::on_interface(directory, index, attached)
            .map_err(|source| ProgramError::pin(directory.join(pins::RECORD), interface, &source))?
            .ok_or_else(not_attached)?;
        let map = |data| Map::from_map_data(data).map_err(ProgramError::map);
        let open = |name| map(pins::open(directory, name, interface)?);
        let maps = [open(abi::XSKS)?, map(claims)?, open(abi::INDEX)?, open(abi::COUNTERS)?];
        let mut program = Self::over(interface, Attachment::Pinned { user, attached }, maps, None)?;
        program.remove_left_behind()?;
        Ok(program)
    }

    /// Takes back what others claimed who were killed before they could.
    fn remove_left_behind(&mut self) -> Result<(), ProgramError> {
        let Attachment::Pinned { user, .. } = &self.attachment else { return Ok(()) };
        let ours = Some(user.owner.number());
        for key in pins::remove_left_behind(&mut self.claims, &user.directory, ours)? {
            tracing::info!(target: STORY, "{} was still claimed by a program that was killed", key.address());
        }
        self.claims.correct()
    }

    fn over(
        interface: &str,
        attachment: Attachment,
        [sockets, claims, index, counters]: [Map; 4],
        records: Option<Records>,
    ) -> Result<Self, ProgramError> {
        Ok(Self {
            interface: interface.to_owned(),
            attachment,
            sockets: sockets.try_into().map_err(ProgramError::map)?,
            claims: Claims::new(claims, index)?,
            counters: counters.try_into().map_err(ProgramError::map)?,
            claimed: Vec::new(),
            _records: records,
        })
    }

    /// Sends our frames of a receive queue to its AF_XDP socket.
    ///
    /// # Errors
    /// [`ProgramError::QueueTaken`] if a pinned program already sends them to somebody else's socket.
    pub fn bind_socket(&mut self, queue: u32, socket: impl AsRawFd) -> Result<(), ProgramError> {
        // A socket that we would replace is in use, for the kernel removes those that are closed.
        let set = self.sockets.set(queue, socket, NO_EXIST);
        set.map_err(|source| match os_error(&source) {
            Some(libc::EEXIST) => ProgramError::QueueTaken { interface: self.interface.clone(), queue },
            _ => ProgramError::map(source),
        })
    }

    /// Makes an address ours: all of it if `ports` is empty, else TCP and UDP to those ports, first to last of each
    /// pair. VLAN 0 means untagged. Claimed again, the new claim replaces the old.
    ///
    /// # Errors
    /// [`ProgramError::Ports`] if there are too many ranges or one is empty.
    pub fn claim(&mut self, address: IpAddr, vlan: u16, ports: &[(u16, u16)]) -> Result<(), ProgramError> {
        let key = ClaimKey::new(address, vlan);
        let claim =
            if ports.is_empty() { Claim::WHOLE } else { Claim::ports(ports).ok_or(ProgramError::Ports)? };
        let claim = claim.of(self.owner());
        if self.claimed.contains(&key) {
            return self.claims.replace(key, claim);
        }
        // What another program of this host has claimed no ARP probe would find: a card does not hear itself.
        if !self.claims.add(key, claim)? {
            return Err(self.claimed_by_another(key));
        }
        self.claimed.push(key);
        Ok(())
    }

    /// The number that our claims carry.
    fn owner(&self) -> u32 {
        match &self.attachment {
            Attachment::Pinned { user, .. } => user.owner.number(),
            Attachment::Link { .. } | Attachment::Dispatcher { .. } => 0,
        }
    }

    fn claimed_by_another(&self, key: ClaimKey) -> ProgramError {
        let Attachment::Pinned { user, .. } = &self.attachment else {
            return ProgramError::Claimed { address: key.address(), owner: String::new() };
        };
        let claim = self.claims.get(key);
        let owner = claim.and_then(|claim| owners::holder(&user.directory, claim.owner()).ok());
        let owner = match owner {
            Some(owners::Holder::Process(pid)) => format!(" (pid {pid}, {})", processes::name(pid)),
            Some(owners::Holder::Nobody) => {
                " that was killed: `xstack status`, as root, takes it back".to_owned()
            }
            Some(owners::Holder::Unknown) | None => String::new(),
        };
        ProgramError::Claimed { address: key.address(), owner }
    }

    /// Gives an address back to the kernel. One that is not ours is left alone.
    ///
    /// # Errors
    /// When the kernel doesn't let us.
    pub fn unclaim(&mut self, address: IpAddr, vlan: u16) -> Result<(), ProgramError> {
        let key = ClaimKey::new(address, vlan);
        let Some(at) = self.claimed.iter().position(|claimed| *claimed == key) else {
            return Ok(());
        };
        self.claims.remove(key)?;
        self.claimed.swap_remove(at);
        Ok(())
    }

    /// How many frames got which verdict, on all CPUs, since the program was loaded.
    ///
    /// # Errors
    /// When the kernel doesn't let us read.
    pub fn counters(&self) -> Result<Vec<(&'static str, u64)>, ProgramError> {
        read_counters(&self.counters)
    }

    /// Whether the program runs in the kernel's generic path, after the driver.
    #[must_use]
    pub fn is_generic(&self) -> bool {
        match &self.attachment {
            Attachment::Link { generic, .. } | Attachment::Dispatcher { generic, .. } => *generic,
            Attachment::Pinned { attached, .. } => attached.generic,
        }
    }

    /// Why the program runs in the generic path though the driver's was asked for first.
    #[must_use]
    pub fn fallback(&self) -> Option<&str> {
        match &self.attachment {
            Attachment::Link { fallback, .. } => fallback.as_deref(),
            Attachment::Dispatcher { .. } | Attachment::Pinned { .. } => None,
        }
    }

    /// Where we are in a dispatcher, which we have to leave.
    #[must_use]
    pub fn membership(&self) -> Option<&Membership> {
        match &self.attachment {
            Attachment::Dispatcher { membership, .. } => Some(membership),
            Attachment::Link { .. } | Attachment::Pinned { .. } => None,
        }
    }

    /// Has somebody else see to it that we leave the dispatcher: a process that may, when we may no more.
    pub fn set_guard(&mut self, guard: Guard) {
        if let Attachment::Dispatcher { membership, .. } = &mut self.attachment {
            membership.set_guard(guard);
        }
    }

    /// The program and where it sits, in a line for `-v`.
    #[must_use]
    pub fn describe(&self) -> String {
        let (interface, mode) = (&self.interface, mode_name(self.is_generic()));
        match &self.attachment {
            Attachment::Link { .. } => format!("XDP program attached to {interface}, {mode} mode"),
            Attachment::Dispatcher { .. } => {
                format!("XDP program beside others in the dispatcher of {interface}, {mode} mode")
            }
            Attachment::Pinned { user, attached } => {
                let directory = user.directory.display();
                format!("XDP program {attached} on {interface}, {mode} mode, through the maps in {directory}")
            }
        }
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Program").field(&self.interface).field(&self.attachment).finish()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Maps of our own go by themselves; pinned ones stay, so what is ours is taken out. There is nobody left
        // to tell of a failure, and a claim without a socket does no harm.
        for key in &self.claimed {
            let _ = self.claims.remove(*key);
        }
        // The sockets' places are not: the kernel has emptied those of sockets that are closed, and there may be another one by
        // now. Which one it is, such a map does not tell.
    }
}

/// The program, and the one that logs, which is a little slower.
const OBJECT: &[u8] = include_bytes!("../../../bpf/xstack.bpf.o");
const LOGGING_OBJECT: &[u8] = include_bytes!("../../../bpf/xstack-log.bpf.o");

fn load(log: Option<tracing::Level>) -> Result<Ebpf, ProgramError> {
    let mut loader = EbpfLoader::new();
    let level = log.map_or(0, records::level);
    let object = match log {
        Some(_) => {
            loader.override_global(aya_log::LEVEL, &level, true);
            LOGGING_OBJECT
        }
        None => OBJECT,
    };
    loader.load(&without_pins(object)).map_err(|source| ProgramError::load(&source))
}

/// The object with maps that can't be pinned.
///
/// The maps say that they may be, which xdp-loader takes as a permission, and aya as an order. A member of another
/// name is one that it doesn't know, and passes over.
fn without_pins(object: &[u8]) -> Vec<u8> {
    const MEMBER: &[u8] = b"\0pinning\0";
    const UNKNOWN: &[u8] = b"\0ignored\0";
    let mut object = object.to_vec();
    if let Some(at) = object.windows(MEMBER.len()).position(|window| window == MEMBER) {
        object[at..at + UNKNOWN.len()].copy_from_slice(UNKNOWN);
    }
    object
}

/// How often the kernel is asked to take a program.
const LOAD_ATTEMPTS: usize = 5;

/// Has the kernel's verifier look at the program.
fn verify(object: &mut Ebpf) -> Result<&ProgramFd, ProgramError> {
    let program = object.program_mut(abi::PROGRAM).ok_or(ProgramError::NoProgram)?;
    let program: &mut Xdp = program.try_into().map_err(|_| ProgramError::NoProgram)?;
    unless_interrupted(|| program.load()).map_err(|source| ProgramError::load(&source))?;
    program.fd().map_err(|source| ProgramError::load(&source))
}

/// Tries again what a signal has interrupted. The verifier gives up with EAGAIN when one waits for its thread, though the signal may be one
/// that is handled without a word; libbpf tries five times, too.
fn unless_interrupted<T, E: Error + 'static>(mut load: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let mut result = load();
    for _ in 1..LOAD_ATTEMPTS {
        match &result {
            Err(error) if os_error(error) == Some(libc::EAGAIN) => result = load(),
            _ => break,
        }
    }
    result
}

fn read_counters(counters: &PerCpuArray<MapData, u64>) -> Result<Vec<(&'static str, u64)>, ProgramError> {
    let read = |index| {
        let per_cpu = counters.get(&index, 0).map_err(ProgramError::map)?;
        Ok((abi::counter_name(index).unwrap_or_default(), per_cpu.iter().sum()))
    };
    (0..abi::COUNTERS_LEN as u32).map(read).collect()
}

/// Attaches a program as the mode says: the link, whether it is in the generic path, and why so if the driver's was tried first.
fn link(
    program: &ProgramFd,
    interface: &str,
    index: u32,
    mode: Mode,
) -> Result<(OwnedFd, bool, Option<String>), ProgramError> {
    let link = |generic| bpf::create_link(program.as_fd(), index, generic);
    let refused = |source, generic| {
        let refusal = |source| Refusal::of(program, index, generic, source);
        ProgramError::attach(interface, index, mode_name(generic), source, refusal)
    };
    let generic = mode == Mode::Generic;
    match link(generic) {
        Ok(link) => Ok((link, generic, None)),
        Err(source) if mode == Mode::Auto && is_drivers_refusal(&source) => {
            let reason = Refusal::of(program, index, false, source);
            let reason = format!("the driver of {interface} refused the program: {reason}");
            Ok((link(true).map_err(|source| refused(source, true))?, true, Some(reason)))
        }
        Err(source) => Err(refused(source, generic)),
    }
}

fn mode_name(generic: bool) -> &'static str {
    if generic { "generic" } else { "native" }
}

/// Whether the driver can't, rather than we may not or somebody is there already.
fn is_drivers_refusal(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ERANGE | libc::ENOMEM | libc::ENOSPC)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_loaded_again_when_a_signal_came_and_not_for_ever() {
        let attempts = |interrupted: usize, then: io::Result<()>| {
            let (mut then, mut count) = (Some(then), 0);
            let result = unless_interrupted(|| {
                count += 1;
                match count <= interrupted {
                    true => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
                    false => then.take().expect("no further attempt"),
                }
            });
            (count, result.map_err(|error| error.raw_os_error()))
        };
        assert_eq!(attempts(0, Ok(())), (1, Ok(())));
        assert_eq!(attempts(4, Ok(())), (5, Ok(())));
        assert_eq!(attempts(9, Ok(())), (5, Err(Some(libc::EAGAIN))));
        let refused = io::Error::from_raw_os_error(libc::EPERM);
        assert_eq!(attempts(1, Err(refused)), (2, Err(Some(libc::EPERM))));
    }

    /// Were there a second one, aya would pin maps where any program could change them.
    #[test]
    fn the_objects_can_be_kept_from_pinning() {
        for object in [OBJECT, LOGGING_OBJECT] {
            let left = without_pins(object);
            assert_eq!(left.len(), object.len());
            assert_ne!(left, object, "no map of the object can be pinned");
            assert!(!left.windows(7).any(|window| window == b"pinning"));
        }
    }
}
