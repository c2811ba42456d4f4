//! `xstack attach` and `xstack detach`: the program is loaded once, and stays until it is taken off.

use std::{
    fs, io,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use stack_common::abi;

use super::{
    Mode, ProgramError, attachment, bpf, dispatcher, link, load, membership, mode_name, owners,
    pins::{self, Record, Via},
    trust, verify,
};
use crate::device::processes;

/// The program's pin, and its link's.
const PROGRAM: &str = "program";
pub(super) const LINK: &str = "link";

/// Everything that we put into a directory, apart from the owners and the record.
const FILES: [&str; 7] = [abi::XSKS, abi::CLAIMS, abi::INDEX, abi::COUNTERS, abi::ABI, PROGRAM, LINK];

/// How a program is attached to stay.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// In the driver or after it. Whether frames are copied is not decided here.
    pub mode: Mode,
    /// Make a dispatcher of libxdp's even where nothing else is attached, so that others can join later.
    pub dispatcher: bool,
    /// The group whose members may use it.
    pub group: Option<u32>,
    /// Where it is kept; [`pins::directory`] without it.
    pub directory: Option<PathBuf>,
}

/// A program that stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The program's id.
    pub program: u32,
    /// Whether it is after the driver.
    pub generic: bool,
    /// Whether it is a component of libxdp's dispatcher.
    pub in_dispatcher: bool,
    /// Where it is kept.
    pub directory: PathBuf,
    /// Why it is not in the driver though that was tried.
    pub fallback: Option<String>,
    /// Whether it was there before.
    pub was_there: bool,
}

/// Attaches the program to an interface so that it stays. If it is there already, that is all there is to it; then only the
/// group is seen to.
///
/// # Errors
/// [`ProgramError`] says what is in the way: no BPF file system, another program, pins of another version.
pub fn attach(interface: &str, wish: &Wish) -> Result<Standing, ProgramError> {
    let index = attachment::index(interface)?;
    let directory = wish.directory.clone().unwrap_or_else(|| pins::directory(interface));
    on_bpffs(&directory)?;
    trust::check(&directory)?;
    let unusable = |source: io::Error| ProgramError::keep(&directory, &source);
    if let Some(standing) = standing(interface, index, &directory, wish)? {
        return Ok(standing);
    }
    make_directory(&directory).map_err(unusable)?;
    // Somebody may have been faster.
    trust::check(&directory)?;
    if let Some(group) = wish.group {
        lets_in(&directory, group).inspect_err(|_| {
            // Nothing was done, so nothing stays; a directory that is not empty does.
            let _ = fs::remove_dir(&directory);
        })?;
    }
    // Nobody uses it while it is filled; and what is left of an earlier one, somebody may still use.
    let lock = owners::lock_unless_used(&directory).map_err(unusable)?;
    let _lock = lock.ok_or_else(|| in_use(interface, &directory))?;
    let mut pinned = Pinned::empty(&directory)?;
    let attached = match attached_already(interface, index)? {
        None if !wish.dispatcher => by_link(interface, index, wish.mode, &mut pinned)?,
        _ => by_dispatcher(interface, index, wish.mode, &mut pinned)?,
    };
    if let Some(group) = wish.group {
        allow(&directory, group).map_err(unusable)?;
    }
    pinned.keep = true;
    Ok(attached)
}

/// The program that is there already, with the group seen to.
fn standing(
    interface: &str,
    index: u32,
    directory: &Path,
    wish: &Wish,
) -> Result<Option<Standing>, ProgramError> {
    let unusable = |source: io::Error| ProgramError::pin(directory.to_owned(), interface, &source);
    if !directory.join(abi::ABI).exists() {
        return Ok(None);
    }
    let Some(attached) = attached_already(interface, index)? else {
        return Ok(None);
    };
    let generic = attached.generic;
    if pins::on_interface(directory, index, attached).map_err(unusable)?.is_none() {
        return Ok(None);
    }
    pins::check_version(directory, interface)?;
    let record = pins::record(directory).map_err(unusable)?;
    let record = record.ok_or_else(|| ProgramError::OperatorsPins { directory: directory.to_owned() })?;
    if wish_generic(wish.mode).is_some_and(|wish| wish != generic) {
        return Err(ProgramError::OtherMode { interface: interface.to_owned(), there: mode_name(generic) });
    }
    if let Some(group) = wish.group {
        lets_in(directory, group)?;
        allow(directory, group).map_err(unusable)?;
    }
    Ok(Some(Standing {
        program: record.program,
        generic,
        in_dispatcher: record.via == Via::Dispatcher,
        directory: directory.to_owned(),
        fallback: None,
        was_there: true,
    }))
}

fn attached_already(interface: &str, index: u32) -> Result<Option<attachment::Attached>, ProgramError> {
    attachment::attached(index)
        .map_err(|source| ProgramError::Netlink { interface: interface.to_owned(), source })
}

/// Whether a mode says where the program runs, and where.
pub(super) fn wish_generic(mode: Mode) -> Option<bool> {
    match mode {
        Mode::Auto => None,
        Mode::Generic => Some(true),
        Mode::Native | Mode::NativeCopy | Mode::NativeZeroCopy => Some(false),
    }
}

fn by_link(interface: &str, index: u32, mode: Mode, pinned: &mut Pinned) -> Result<Standing, ProgramError> {
    let mut object = load(None)?;
    let program = verify(&mut object)?.try_clone().map_err(|source| ProgramError::load(&source))?;
    let id = id(&object)?;
    pinned.record(Record { via: Via::Link, program: id })?;
    for name in dispatcher::MAPS {
        let map = object.map(name).ok_or(ProgramError::NoMap { name })?;
        pinned.map(name, map)?;
    }
    pinned.put(PROGRAM, program.as_fd())?;
    let (link, generic, fallback) = link(&program, interface, index, mode)?;
    // With its pin the link outlives us; before that, the program goes if we are killed.
    pinned.put(LINK, link.as_fd())?;
    let directory = pinned.directory.clone();
    Ok(Standing { program: id, generic, in_dispatcher: false, directory, fallback, was_there: false })
}

fn id(object: &aya::Ebpf) -> Result<u32, ProgramError> {
    let program: &aya::programs::Xdp = object
        .program(abi::PROGRAM)
        .and_then(|program| program.try_into().ok())
        .ok_or(ProgramError::NoProgram)?;
    Ok(program.info().map_err(|source| ProgramError::load(&source))?.id())
}

fn by_dispatcher(
    interface: &str,
    index: u32,
    mode: Mode,
    pinned: &mut Pinned,
) -> Result<Standing, ProgramError> {
    let joined = membership::join(interface, index, mode)?;
    pinned.in_dispatcher = Some((index, joined.program));
    pinned.record(Record { via: Via::Dispatcher, program: joined.program })?;
    for (name, map) in dispatcher::MAPS.into_iter().zip(&joined.maps) {
        pinned.put(name, map.as_fd())?;
    }
    pinned.put(PROGRAM, joined.fd.as_fd())?;
    Ok(Standing {
        program: joined.program,
        generic: joined.generic,
        in_dispatcher: true,
        directory: pinned.directory.clone(),
        fallback: None,
        was_there: false,
    })
}

/// A directory that is being filled. What was put there is taken out again unless it is to be kept.
struct Pinned {
    directory: PathBuf,
    in_dispatcher: Option<(u32, u32)>,
    keep: bool,
}

impl Pinned {
    /// Takes out what an earlier program of ours left, which is on no interface any more. What others put there stays.
    fn empty(directory: &Path) -> Result<Self, ProgramError> {
        let record = record_unless_operators(directory)?;
        let pinned = Self { directory: directory.to_owned(), in_dispatcher: None, keep: false };
        if record.is_some() {
            remove_files(directory).map_err(|source| pinned.unusable(&source))?;
        }
        Ok(pinned)
    }

    fn unusable(&self, source: &(dyn std::error::Error + 'static)) -> ProgramError {
        ProgramError::keep(&self.directory, source)
    }

    fn put(&self, name: &str, object: BorrowedFd<'_>) -> Result<(), ProgramError> {
        bpf::pin(object, &self.directory.join(name)).map_err(|source| self.unusable(&source))
    }

    fn map(&self, name: &str, map: &aya::maps::Map) -> Result<(), ProgramError> {
        map.pin(self.directory.join(name)).map_err(|source| self.unusable(&source))
    }

    /// Before anything else is put there: what is in a directory without a record is taken for somebody else's.
    fn record(&self, record: Record) -> Result<(), ProgramError> {
        let made = std::os::unix::fs::symlink(record.to_string(), self.directory.join(pins::RECORD));
        let made = made.and_then(|()| owners::create(&self.directory));
        made.map_err(|source| self.unusable(&source))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        // There is an error to tell already.
        let _ = remove_files(&self.directory).and_then(|()| fs::remove_dir(&self.directory));
        if let Some((interface, program)) = self.in_dispatcher {
            let _ = dispatcher::leave(interface, program);
        }
    }
}

/// What became of a program that was to be taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detached {
    /// The program of this id is off the interface, and its pins are gone.
    Program(u32),
    /// There were pins only: the interface has gone, or somebody took the program off.
    Pins,
    /// There was nothing.
    Nothing,
}

/// Takes the program that `xstack attach` left off an interface, which may have gone by now, and removes its pins.
///
/// # Errors
/// [`ProgramError::InUse`] if somebody uses it, unless `force` is given; others when the kernel does not let us.
pub fn detach(interface: &str, directory: Option<&Path>, force: bool) -> Result<Detached, ProgramError> {
    let directory = directory.map_or_else(|| pins::directory(interface), Path::to_owned);
    let unusable = |source: io::Error| ProgramError::keep(&directory, &source);
    let lock = match owners::lock_unless_used(&directory) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A name that nothing has ever had is most likely a slip.
            return attachment::index(interface).map(|_| Detached::Nothing);
        }
        Err(error) => return Err(unusable(error)),
    };
    if lock.is_none() && !force {
        return Err(in_use(interface, &directory));
    }
    on_bpffs(&directory)?;
    trust::check(&directory)?;
    let record = record_unless_operators(&directory)?;
    let was_attached = match record {
        Some(record) => take_off(interface, &directory, record).map_err(unusable)?,
        None => false,
    };
    remove_files(&directory).and_then(|()| fs::remove_dir(&directory)).map_err(unusable)?;
    Ok(match record {
        Some(Record { program, .. }) if was_attached => Detached::Program(program),
        _ => Detached::Pins,
    })
}

/// Returns whether the program was on an interface.
fn take_off(interface: &str, directory: &Path, record: Record) -> io::Result<bool> {
    match record.via {
        Via::Link => {
            let link = match bpf::open_pin(&directory.join(LINK)) {
                Ok(link) => link,
                // Killed between record and pin, so that the link went with its maker.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(error),
            };
            let was_attached = bpf::xdp_link(link.as_fd())?.is_some_and(|link| link.interface != 0);
            if was_attached {
                bpf::detach_link(link.as_fd())?;
            }
            Ok(was_attached)
        }
        Via::Dispatcher => {
            let Ok(index) = attachment::index(interface) else { return Ok(false) };
            let there = dispatcher::components(index)?.into_iter().flatten();
            let was_attached = there.into_iter().any(|component| component.id == record.program);
            dispatcher::leave(index, record.program)?;
            Ok(was_attached)
        }
    }
}

/// The record of a directory; none if it is empty.
fn record_unless_operators(directory: &Path) -> Result<Option<Record>, ProgramError> {
    let unusable = |source: io::Error| ProgramError::keep(directory, &source);
    let record = pins::record(directory).map_err(unusable)?;
    if record.is_none() && fs::read_dir(directory).map_err(unusable)?.next().is_some() {
        return Err(ProgramError::OperatorsPins { directory: directory.to_owned() });
    }
    Ok(record)
}

fn in_use(interface: &str, directory: &Path) -> ProgramError {
    let holders = owners::holders(directory).unwrap_or_default();
    let users = holders.into_iter().map(|pid| format!("{pid} ({})", processes::name(pid)));
    ProgramError::InUse { interface: interface.to_owned(), users: users.collect() }
}

/// Removes what we put into a directory, and nothing else. The record is the last: if we are killed, the next one knows that
/// the rest is ours.
fn remove_files(directory: &Path) -> io::Result<()> {
    let remove = |name: &str| match fs::remove_file(directory.join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    FILES.into_iter().try_for_each(remove)?;
    owners::remove(directory)?;
    remove(pins::RECORD)
}

/// Lets a group use the program: read and change its maps, and make claims. Not take it off: link and program stay root's.
fn allow(directory: &Path, group: u32) -> io::Result<()> {
    for name in dispatcher::MAPS {
        trust::give(&directory.join(name), group, 0o660)?;
    }
    owners::allow(directory, group)?;
    trust::give(directory, group, 0o750)
}

/// Makes sure that a group's members get to the pins.
fn lets_in(directory: &Path, group: u32) -> Result<(), ProgramError> {
    match closed_above(directory, group).map_err(|source| ProgramError::keep(directory, &source))? {
        Some(closed) => Err(ProgramError::GroupKeptOut { group, closed }),
        None => Ok(()),
    }
}

/// The first directory above the pins that a group's members can't pass, if there is one, as its own mode says.
fn closed_above(directory: &Path, group: u32) -> io::Result<Option<PathBuf>> {
    for above in directory.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
        let metadata = fs::metadata(above)?;
        let (mode, gid) = (metadata.mode(), metadata.gid());
        if mode & 0o001 == 0 && !(gid == group && mode & 0o010 != 0) {
            return Ok(Some(above.to_owned()));
        }
    }
    Ok(None)
}

/// Makes a directory for ourselves, and those above it so that all may pass: whoever is allowed in has to get there.
pub(super) fn make_directory(directory: &Path) -> io::Result<()> {
    let make = |path: &Path, mode| match fs::DirBuilder::new().mode(mode).create(path) {
        // A service's umask takes away from the mode what others need, also in a BPF file system.
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(mode)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    };
    let is_missing = |above: &&Path| !above.as_os_str().is_empty() && !above.exists();
    let missing: Vec<_> = directory.ancestors().skip(1).take_while(is_missing).collect();
    missing.into_iter().rev().try_for_each(|above| make(above, 0o755))?;
    make(directory, 0o700)
}

/// Makes sure that a directory is, or will be, in a BPF file system.
pub(super) fn on_bpffs(directory: &Path) -> Result<(), ProgramError> {
    let there = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    if statfs(there).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC) {
        return Ok(());
    }
    Err(ProgramError::NoBpfFileSystem { directory: there.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_elsewhere_is_told_with_the_command_that_helps() {
        let directory = tempfile::tempdir().expect("a directory");
        let error = on_bpffs(&directory.path().join("xstack/eth1")).expect_err("no BPF file system");
        assert!(error.to_string().contains("mount -t bpf -o mode=0700 bpf /sys/fs/bpf"), "{error}");
    }

    #[test]
    fn a_directory_that_a_group_cannot_pass_is_found() {
        let root = tempfile::tempdir().expect("a directory");
        let pins = root.path().join("pins");
        fs::create_dir(&pins).expect("makes it");
        let mode =
            |mode| fs::set_permissions(root.path(), fs::Permissions::from_mode(mode)).expect("sets it");
        let group = fs::metadata(root.path()).expect("there").gid();
        mode(0o700);
        assert_eq!(closed_above(&pins, group).expect("looks").as_deref(), Some(root.path()));
        mode(0o710);
        assert_eq!(closed_above(&pins, group).expect("looks"), None);
        assert_eq!(closed_above(&pins, group + 1).expect("looks").as_deref(), Some(root.path()));
        mode(0o701);
        assert_eq!(closed_above(&pins, group + 1).expect("looks"), None);
        mode(0o700);
    }
}
