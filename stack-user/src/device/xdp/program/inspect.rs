//! What is known of programs that stay: for `xstack status`.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::SystemTime,
};

use aya::maps::{Map, MapData, PerCpuArray};
use stack_common::abi::{self, Claim, ClaimKey};

use super::{
    ProgramError, attachment,
    claims::Claims,
    dispatcher::{self, Component},
    owners::{self, Holder},
    pins::{self, ROOT},
    trust,
};
use crate::device::{
    processes::{self, for_each_descriptor},
    xdp::sockets,
};

/// A program that `xstack attach` left, or that xdp-loader pinned where we look.
#[derive(Debug)]
pub struct Attachment {
    /// The interface, as the directory is called.
    pub interface: String,
    /// Where the pins are.
    pub directory: PathBuf,
    /// The version that the maps speak, and whether it is ours.
    pub version: u32,
    /// The program's id.
    pub program: Option<u32>,
    /// Since when it is there.
    pub since: Option<SystemTime>,
    /// Whether the program is on the interface, in this network namespace, and by what. None if it is not.
    pub via: Option<Via>,
    /// Whether it is after the driver.
    pub generic: bool,
    /// Processes that use it.
    pub users: Vec<Process>,
    /// What is claimed. Those of processes that were killed have been taken back, and are told once.
    pub claims: Vec<ClaimInfo>,
    /// AF_XDP sockets on the interface's queues. None if the kernel does not tell.
    pub sockets: Option<Vec<BoundSocket>>,
    /// How many frames got which verdict.
    pub counters: Vec<(&'static str, u64)>,
}

/// By what a program is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Via {
    /// A BPF link, which is pinned.
    Link,
    /// Somebody else's means: xdp-loader's netlink, for example.
    Other,
    /// libxdp's dispatcher, with these programs in their order.
    Dispatcher(Vec<Component>),
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// What its program is called.
    pub name: String,
}

impl Process {
    fn new(pid: u32) -> Self {
        Self { pid, name: processes::name(pid) }
    }
}

/// An AF_XDP socket on one of the interface's queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundSocket {
    /// The queue.
    pub queue: u32,
    /// Whether its frames go without a copy.
    pub zero_copy: bool,
    /// Whose it is, if we may know.
    pub process: Option<Process>,
}

/// A claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimInfo {
    /// The address.
    pub address: IpAddr,
    /// The VLAN, 0 meaning untagged.
    pub vlan: u16,
    /// First and last port of each range. None means the whole address.
    pub ports: Vec<(u16, u16)>,
    /// Whose it is.
    pub owner: ClaimOwner,
}

/// Whose a claim is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimOwner {
    /// A process that lives.
    Process(Process),
    /// One that lives, and that we can't see: of another container, for example.
    Elsewhere,
    /// One that was killed. The claim has been taken back now.
    Dead,
}

/// All programs that stay, by interface.
///
/// # Errors
/// When the directory of all can't be read. One of them that can't is told in its place.
pub fn all() -> io::Result<Vec<(String, Result<Attachment, ProgramError>)>> {
    let entries = match fs::read_dir(ROOT) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    let with_maps = |name: &String| Path::new(ROOT).join(name).join(abi::ABI).exists();
    Ok(names.into_iter().filter(with_maps).map(|name| (name.clone(), inspect(&name, None))).collect())
}

/// What is known of the program of an interface. Claims of those who were killed are taken back.
///
/// # Errors
/// [`ProgramError`], if its pins can't be read.
pub fn inspect(interface: &str, directory: Option<&Path>) -> Result<Attachment, ProgramError> {
    let directory = directory.map_or_else(|| pins::directory(interface), Path::to_owned);
    let unusable = |source: io::Error| ProgramError::pin(directory.join(pins::RECORD), interface, &source);
    trust::check(&directory)?;
    let version = pins::version(&directory, interface)?;
    let record = pins::record(&directory).map_err(unusable)?;
    // It may have gone, with the program still pinned.
    let index = attachment::index(interface).ok();
    let attached = index.and_then(|index| attachment::attached(index).ok().flatten());
    let generic = attached.as_ref().is_some_and(|attached| attached.generic);
    let through = attached.as_ref().is_some_and(|attached| attached.is_dispatcher());
    let on_interface = match (index, attached) {
        (Some(index), Some(attached)) => pins::on_interface(&directory, index, attached).map_err(unusable)?,
        _ => None,
    };
    let via = match (&on_interface, record, index) {
        (None, ..) => None,
        (Some(_), _, Some(index)) if through => {
            Some(Via::Dispatcher(dispatcher::components(index).ok().flatten().unwrap_or_default()))
        }
        (Some(_), Some(_), _) => Some(Via::Link),
        (Some(_), None, _) => Some(Via::Other),
    };
    let program = record.map(|record| record.program).or(on_interface.map(|attached| attached.id));
    let ours = version == abi::ABI_VERSION;
    Ok(Attachment {
        interface: interface.to_owned(),
        version,
        program,
        since: since(&directory, program),
        generic,
        via,
        users: owners::holders(&directory).unwrap_or_default().into_iter().map(Process::new).collect(),
        // Maps of another version mean something that we don't know.
        claims: if ours { claims(&directory, interface)? } else { Vec::new() },
        sockets: index.and_then(|index| bound_sockets(index).ok()),
        counters: if ours { counters(&directory, interface)? } else { Vec::new() },
        directory,
    })
}

/// Since when the program is there: by the kernel, or else by our record.
fn since(directory: &Path, program: Option<u32>) -> Option<SystemTime> {
    let loaded = program.and_then(attachment::program).and_then(|info| info.loaded_at());
    loaded.or_else(|| fs::symlink_metadata(directory.join(pins::RECORD)).ok()?.modified().ok())
}

/// The sockets on an interface, by queue.
fn bound_sockets(index: u32) -> io::Result<Vec<BoundSocket>> {
    let mut found = sockets::list()?;
    found.retain(|socket| socket.interface == index);
    found.sort_by_key(|socket| socket.queue);
    let mut bound: Vec<_> = found
        .iter()
        .map(|socket| BoundSocket { queue: socket.queue, zero_copy: socket.zero_copy, process: None })
        .collect();
    if !found.is_empty() {
        for_each_descriptor(|pid, _, target| {
            let inode = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')?.parse().ok());
            if let Some(at) = found.iter().position(|socket| Some(socket.inode) == inode) {
                bound[at].process = Some(Process::new(pid));
            }
        });
    }
    Ok(bound)
}

fn claims(directory: &Path, interface: &str) -> Result<Vec<ClaimInfo>, ProgramError> {
    let open = |name| Map::from_map_data(pins::open(directory, name, interface)?).map_err(ProgramError::map);
    let mut map = Claims::new(open(abi::CLAIMS)?, open(abi::INDEX)?)?;
    let before = map.all()?;
    let removed = pins::remove_left_behind(&mut map, directory, None)?;
    let describe = |(key, claim): (ClaimKey, Claim)| {
        let owner = match owners::holder(directory, claim.owner()) {
            _ if removed.contains(&key) => ClaimOwner::Dead,
            Ok(Holder::Process(pid)) => ClaimOwner::Process(Process::new(pid)),
            _ => ClaimOwner::Elsewhere,
        };
        ClaimInfo { address: key.address(), vlan: key.vlan(), ports: claim.ranges().collect(), owner }
    };
    let mut claims: Vec<_> = before.into_iter().map(describe).collect();
    claims.sort_by_key(|claim| (claim.address, claim.vlan));
    Ok(claims)
}

fn counters(directory: &Path, interface: &str) -> Result<Vec<(&'static str, u64)>, ProgramError> {
    let map = Map::from_map_data(pins::open(directory, abi::COUNTERS, interface)?);
    let map: PerCpuArray<MapData, u64> = map.and_then(TryInto::try_into).map_err(ProgramError::map)?;
    super::read_counters(&map)
}
