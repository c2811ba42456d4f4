//! A program that stays when its loader has gone: the directory in a BPF file system that keeps it, and those who use it.
//!
//! ```text
//! /sys/fs/bpf/xstack/eth1/
//!     CLAIMS COUNTERS INDEX XSKS XSTACK_ABI    the maps
//!     attached -> link-42                      by what the program is attached, and its id
//!     program, link                            the program, and what keeps it on the interface
//!     owners/0 … owners/63                     who makes claims: see `owners`
//! ```
//!
//! `xdp-loader load -p` makes the maps only; that is enough to use them. Whoever uses them shares a lock on the directory, so
//! that `xstack detach` knows.

use std::{
    fmt, fs,
    fs::File,
    io,
    path::{Path, PathBuf},
    str::FromStr,
    thread,
    time::{Duration, Instant},
};

use aya::maps::MapData;
use stack_common::abi::{self, ClaimKey};

use super::{
    ProgramError,
    attachment::{self, Attached},
    claims::Claims,
    dispatcher,
    owners::{self, Owner},
    trust,
};

/// Where `xstack attach` keeps programs: a directory for each interface.
pub const ROOT: &str = "/sys/fs/bpf/xstack";

/// The directory of an interface.
#[must_use]
pub fn directory(interface: &str) -> PathBuf {
    Path::new(ROOT).join(interface)
}

/// Says by what the program is attached. A link of its own kind, since it can be read without any privilege.
pub(super) const RECORD: &str = "attached";

/// How long somebody who attaches or detaches is waited for. Shorter, and a start fails beside `xstack attach` on a slow
/// machine; longer, and one that hangs is told late.
const BUSY: Duration = Duration::from_secs(2);

/// By what a pinned program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Via {
    Link,
    Dispatcher,
}

/// What [`RECORD`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) via: Via,
    pub(super) program: u32,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let via = match self.via {
            Via::Link => "link",
            Via::Dispatcher => "dispatcher",
        };
        write!(f, "{via}-{}", self.program)
    }
}

impl FromStr for Record {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<Self> {
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, format!("`{text}` is no record"));
        let (via, program) = text.split_once('-').ok_or_else(invalid)?;
        let via = match via {
            "link" => Via::Link,
            "dispatcher" => Via::Dispatcher,
            _ => return Err(invalid()),
        };
        Ok(Self { via, program: program.parse().map_err(|_| invalid())? })
    }
}

/// By what the program of a directory is attached. None if `xstack attach` did not make it.
pub(super) fn record(directory: &Path) -> io::Result<Option<Record>> {
    match fs::read_link(directory.join(RECORD)) {
        Ok(text) => text.to_string_lossy().parse().map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The directory whose program is on the interface now, so that it is ours to use without being told.
pub(super) fn standing(interface: &str, index: u32) -> Result<Option<PathBuf>, ProgramError> {
    let directory = directory(interface);
    let is_there = match record(&directory) {
        Ok(Some(_)) => true,
        // As xdp-loader makes it.
        Ok(None) => directory.join(abi::ABI).exists(),
        Err(_) => true,
    };
    let netlink = |source| ProgramError::Netlink { interface: interface.to_owned(), source };
    let Some(attached) = attachment::attached(index).map_err(netlink)? else {
        return Ok(None);
    };
    if !is_there {
        return Ok(None);
    }
    trust::check(&directory)?;
    match on_interface(&directory, index, attached) {
        Ok(found) => Ok(found.is_some().then_some(directory)),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(ProgramError::Forbidden { interface: interface.to_owned(), directory })
        }
        Err(source) => Err(ProgramError::pin(directory.join(RECORD), interface, &source)),
    }
}

/// The program on an interface, if it is, or runs, the one that is pinned in a directory.
pub(super) fn on_interface(directory: &Path, index: u32, attached: Attached) -> io::Result<Option<Attached>> {
    let is_it = match record(directory)? {
        Some(Record { program, .. }) if program == attached.id => true,
        Some(Record { via: Via::Link, .. }) => false,
        Some(Record { via: Via::Dispatcher, program }) => match dispatcher::components(index) {
            Ok(components) => components.into_iter().flatten().any(|component| component.id == program),
            // Without CAP_SYS_ADMIN there is no asking. The pins are all that we know.
            Err(error) => matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES)),
        },
        None => {
            let claims = MapData::from_pin(directory.join(abi::CLAIMS)).map_err(io_error)?;
            let id = claims.info().map_err(io_error)?.id();
            return attachment::pinned(index, id);
        }
    };
    Ok(is_it.then_some(attached))
}

fn io_error(error: aya::maps::MapError) -> io::Error {
    match super::error::os_error(&error) {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::other(error),
    }
}

/// The map of the version, if it is ours.
pub(super) fn check_version(directory: &Path, interface: &str) -> Result<(), ProgramError> {
    let theirs = version(directory, interface)?;
    if theirs == abi::ABI_VERSION {
        return Ok(());
    }
    let by_us = matches!(record(directory), Ok(Some(_)));
    let remedy = match by_us {
        true => format!("`xstack detach {interface}`, then `xstack attach {interface}`"),
        false => "unload it, and load the xstack.bpf.o of this xstack".to_owned(),
    };
    Err(ProgramError::Version { directory: directory.to_owned(), theirs, ours: abi::ABI_VERSION, remedy })
}

/// The version that pinned maps speak.
pub(super) fn version(directory: &Path, interface: &str) -> Result<u32, ProgramError> {
    Ok(open(directory, abi::ABI, interface)?.info().map_err(ProgramError::map)?.max_entries())
}

pub(super) fn open(directory: &Path, name: &str, interface: &str) -> Result<MapData, ProgramError> {
    let path = directory.join(name);
    MapData::from_pin(&path).map_err(|source| ProgramError::pin(path, interface, &source))
}

/// That we use the maps of a directory, for as long as we do.
#[derive(Debug)]
pub(super) struct User {
    pub(super) directory: PathBuf,
    pub(super) owner: Owner,
    /// Shared with others who use them.
    _lock: File,
}

impl User {
    /// Begins to use them.
    pub(super) fn begin(directory: &Path, interface: &str) -> Result<Self, ProgramError> {
        let unusable = |source: io::Error| ProgramError::pin(directory.join(abi::ABI), interface, &source);
        let patience = Instant::now() + BUSY;
        let lock = loop {
            match owners::try_share(directory).map_err(unusable)? {
                Some(lock) => break lock,
                None if Instant::now() < patience => thread::sleep(Duration::from_millis(10)),
                None => {
                    return Err(ProgramError::Changing { directory: directory.to_owned() });
                }
            }
        };
        let owner = Owner::register(directory).map_err(unusable)?;
        let owner = owner.ok_or_else(|| ProgramError::TooManyUsers { directory: directory.to_owned() })?;
        Ok(Self { directory: directory.to_owned(), owner, _lock: lock })
    }
}

/// Removes the claims of those who were killed, and returns them. `ours` is our own number, if we have one: what is there
/// under it before we claim anything is another's who had it before us.
pub(super) fn remove_left_behind(
    claims: &mut Claims,
    directory: &Path,
    ours: Option<u32>,
) -> Result<Vec<ClaimKey>, ProgramError> {
    let mut removed = Vec::new();
    for (key, claim) in claims.all()? {
        let number = claim.owner();
        // While we hold the lock, nobody gets the number, and so nobody makes a claim under it.
        let lock = if ours == Some(number) { None } else { free(directory, number)? };
        if ours != Some(number) && lock.is_none() && number < owners::MAX {
            continue;
        }
        let still = claims.get(key).is_some_and(|claim| claim.owner() == number);
        if still && claims.remove(key).is_ok() {
            removed.push(key);
        }
    }
    Ok(removed)
}

/// A lock on a number that nobody has.
fn free(directory: &Path, number: u32) -> Result<Option<File>, ProgramError> {
    if number >= owners::MAX {
        return Ok(None);
    }
    let place = directory.join(owners::DIRECTORY).join(number.to_string());
    match owners::try_lock(&place) {
        Ok(lock) => Ok(lock),
        Err(source) => Err(ProgramError::keep(directory, &source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_as_it_is_written() {
        for record in
            [Record { via: Via::Link, program: 42 }, Record { via: Via::Dispatcher, program: u32::MAX }]
        {
            assert_eq!(record.to_string().parse::<Record>().expect("a record"), record);
        }
        for bad in ["", "link", "link-", "link-x", "netlink-5", "42"] {
            assert!(bad.parse::<Record>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_directory_of_ours_has_no_record() {
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(record(directory.path()).expect("looks"), None);
        std::os::unix::fs::symlink("nonsense", directory.path().join(RECORD)).expect("a link");
        assert!(record(directory.path()).is_err());
    }
}
