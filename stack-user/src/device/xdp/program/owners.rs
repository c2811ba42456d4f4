//! Who may make claims in maps that others use, too, and who has died without taking them back.
//!
//! Each program that uses pinned maps has a number of its own, and holds a lock on the directory of that name beside them
//! for as long as it lives. It writes its number into its claims. The kernel undoes the lock in whatever way the process
//! ends; so a claim whose number nobody holds is one that was left behind, and whoever finds the number free removes it.
//! A process id would not do: ids are used again, and those of another container mean nothing here.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use super::trust;

/// Below the pins.
pub(super) const DIRECTORY: &str = "owners";

/// Programs that can use the same maps at a time.
///
/// Each needs a queue of the NIC, so fewer than the NIC has queues would turn somebody away for nothing; more are directories
/// that are looked through at each start.
pub(super) const MAX: u32 = 64;

/// How often a lock is tried for, and how long to wait in between: a tenth of a second in all. Shorter, and on a busy machine a
/// directory that nobody uses is taken for used; longer, and who is refused waits for it.
const ATTEMPTS: u32 = 10;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(10);

/// A number that is ours until this is dropped.
#[derive(Debug)]
pub(super) struct Owner {
    number: u32,
    _lock: File,
}

impl Owner {
    /// Takes the lowest number that nobody has. None if there is none left.
    pub(super) fn register(pins: &Path) -> io::Result<Option<Self>> {
        let missing = !pins.join(DIRECTORY).exists();
        if missing {
            // Pins that xdp-loader made: it does not know of owners.
            create(pins)?;
        }
        for number in 0..MAX {
            if let Some(lock) = try_lock(&place(pins, number))? {
                return Ok(Some(Self { number, _lock: lock }));
            }
        }
        Ok(None)
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }
}

/// Makes the directories. They exist from the beginning, so that whoever takes a number need not be allowed to write.
pub(super) fn create(pins: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.mode(0o700);
    let make = |path: &Path| match builder.create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    };
    make(&pins.join(DIRECTORY))?;
    (0..MAX).try_for_each(|number| make(&place(pins, number)))
}

/// Removes them.
pub(super) fn remove(pins: &Path) -> io::Result<()> {
    for number in 0..MAX {
        unless_gone(fs::remove_dir(place(pins, number)))?;
    }
    unless_gone(fs::remove_dir(pins.join(DIRECTORY)))
}

/// Lets a group take numbers.
pub(super) fn allow(pins: &Path, group: u32) -> io::Result<()> {
    let all = (0..MAX).map(|number| place(pins, number));
    all.chain([pins.join(DIRECTORY)]).try_for_each(|path| trust::give(&path, group, 0o750))
}

fn unless_gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What is known of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// Nobody has it.
    Nobody,
    /// The process of this id.
    Process(u32),
    /// One that we can't see: of another container, for example.
    Unknown,
}

/// Who has a number. A number that is beyond what there is nobody has.
pub(super) fn holder(pins: &Path, number: u32) -> io::Result<Holder> {
    if number >= MAX {
        return Ok(Holder::Nobody);
    }
    let path = place(pins, number);
    match try_lock(&path) {
        Ok(Some(_)) => Ok(Holder::Nobody),
        Ok(None) => Ok(holders(&path)?.first().map_or(Holder::Unknown, |pid| Holder::Process(*pid))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Holder::Nobody),
        Err(error) => Err(error),
    }
}

/// The processes that hold a lock on a directory, as far as we see them.
pub(super) fn holders(directory: &Path) -> io::Result<Vec<u32>> {
    let metadata = fs::metadata(directory)?;
    let (device, inode) = (metadata.dev(), metadata.ino());
    let mine = format!("{:02x}:{:02x}:{inode}", libc::major(device), libc::minor(device));
    // With room from the start: read in small pieces, a line is passed over when one before it goes away between two of them.
    let mut locks = String::with_capacity(1 << 16);
    File::open("/proc/locks")?.read_to_string(&mut locks)?;
    Ok(locks.lines().filter_map(|line| lock_of(line, &mine)).collect())
}

/// Who holds the lock that a line of /proc/locks is about, if it is one of flock(2) on this file.
fn lock_of(line: &str, file: &str) -> Option<u32> {
    let mut words = line.split_whitespace().skip(1);
    // One that still waits has an arrow here.
    (words.next()? == "FLOCK").then_some(())?;
    let pid = words.nth(2)?.parse().ok()?;
    (words.next()? == file).then_some(pid)
}

/// A lock on a directory that nobody else may have at the same time. None if somebody has one.
///
/// Closing the file undoes it, which is all that a process behind a filter of system calls may do.
pub(super) fn try_lock(directory: &Path) -> io::Result<Option<File>> {
    lock(directory, File::try_lock)
}

/// The same, with the patience that it takes when nobody has one: a process that somebody starts has all of their descriptors,
/// locks included, until it becomes the program that it is to be.
pub(super) fn lock_unless_used(directory: &Path) -> io::Result<Option<File>> {
    for _ in 0..ATTEMPTS {
        if let Some(lock) = try_lock(directory)? {
            return Ok(Some(lock));
        }
        thread::sleep(BETWEEN_ATTEMPTS);
    }
    Ok(None)
}

/// A lock on a directory that others may have, too. None if somebody has it alone.
pub(super) fn try_share(directory: &Path) -> io::Result<Option<File>> {
    lock(directory, File::try_lock_shared)
}

fn lock(directory: &Path, how: impl FnOnce(&File) -> Result<(), TryLockError>) -> io::Result<Option<File>> {
    let file = File::open(directory)?;
    match how(&file) {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn place(pins: &Path, number: u32) -> PathBuf {
    pins.join(DIRECTORY).join(number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_free_again_when_its_owner_is_gone() {
        let pins = tempfile::tempdir().expect("a directory");
        let register = || Owner::register(pins.path()).expect("locks").expect("a number");
        let (first, second) = (register(), register());
        assert_eq!((first.number(), second.number()), (0, 1));
        let us = Holder::Process(std::process::id());
        assert_eq!(holder(pins.path(), 0).expect("locks"), us);
        drop(first);
        assert_eq!(holder(pins.path(), 0).expect("locks"), Holder::Nobody);
        assert_eq!(holder(pins.path(), 1).expect("locks"), us);
        assert_eq!(holder(pins.path(), MAX).expect("no lock"), Holder::Nobody);
        assert_eq!(register().number(), 0);
        drop(second);
        remove(pins.path()).expect("removes");
        assert_eq!(fs::read_dir(pins.path()).expect("a directory").count(), 0);
    }

    #[test]
    fn numbers_run_out() {
        let pins = tempfile::tempdir().expect("a directory");
        let all: Vec<_> = (0..MAX).map(|_| Owner::register(pins.path()).expect("locks")).collect();
        assert!(all.iter().all(Option::is_some));
        assert!(Owner::register(pins.path()).expect("locks").is_none());
    }

    #[test]
    fn locks_are_read_as_the_kernel_prints_them() {
        let file = "00:1f:4711";
        assert_eq!(lock_of("1: FLOCK  ADVISORY  WRITE 815 00:1f:4711 0 EOF", file), Some(815));
        assert_eq!(lock_of("1: POSIX  ADVISORY  WRITE 815 00:1f:4711 0 EOF", file), None);
        assert_eq!(lock_of("1: FLOCK  ADVISORY  WRITE 815 00:1f:4712 0 EOF", file), None);
        assert_eq!(lock_of("1: -> FLOCK  ADVISORY  WRITE 815 00:1f:4711 0 EOF", file), None);
        assert_eq!(lock_of("1:", file), None);
    }
}
