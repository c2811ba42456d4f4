//! What a stack carries over from its earlier lives, so that it does not collide with what they left at the peers.
//!
//! A host that has lost its memory would have to keep quiet until all that it sent has gone (RFC 9293 §3.4.3). Ours does
//! not have to: initial sequence numbers and timestamps of a flow are a clock plus a keyed hash (RFC 6528 §3), and where
//! the key is the old one and the clock has moved on, a new SYN lies above all that the flow has seen. A peer in TIME-WAIT
//! takes it (RFC 6191), and segments of the earlier life are out of its window.
//!
//! Several stacks of one host may live at once in one directory: they have the same key and clock, and their flows differ in
//! their addresses.
//!
//! Within one boot of the machine the clock goes on with the time since that boot, which nobody can step. In another boot
//! it is the wall clock's, unless that is behind what was last written.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    str::FromStr,
    time::SystemTime,
};

use data_encoding::HEXLOWER;
use nix::{
    time::{ClockId, clock_gettime},
    unistd::geteuid,
};

use super::Clock;
use crate::{
    rng::Rng,
    tcp::SecretKey,
    time::{Duration, Instant},
};

/// The file's name in the state directory.
const FILE: &str = "stack.state";

/// The first words of the file: another version has another number.
const MAGIC: &str = "xstack-state 1";

/// What the file takes at most. It has a fixed length below that; more is not ours and is not read.
const MAX_FILE: u64 = 1024;

/// Clocks beyond that, in nanoseconds, are nonsense: the year 2262. A stack that starts there has 292 years left until its
/// time ends.
const MAX_CLOCK: u64 = 1 << 63;

/// A life of a stack: its key and its clock. The file stays open, because when it ends the process may have given up the
/// right to open it.
#[derive(Debug)]
pub struct Life {
    key: SecretKey,
    clock: Clock,
    file: File,
}

/// Why an earlier life can't be continued.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LifeError {
    /// The directory or its file can't be used.
    #[error("cannot keep state in {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Somebody else could have written the file, or read the key.
    #[error("{} holds a secret key, but {what}: remove it, and look who else is at work there", path.display())]
    NotPrivate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The system does not tell the time since its start.
    #[error("the system does not tell how long it is up: {0}")]
    Time(io::Error),
    /// The system gives no random numbers.
    #[error("the system has no random numbers to give: {0}")]
    Random(io::Error),
}

impl Life {
    /// Continues the life that was last kept in the directory, or begins the first one there.
    ///
    /// # Errors
    /// [`LifeError`]. A file that is merely broken is replaced with a warning: the peers then see a stack that has lost its
    /// memory, which they survive.
    pub fn begin(directory: &Path) -> Result<Self, LifeError> {
        let path = directory.join(FILE);
        let io = |source| LifeError::Io { path: path.clone(), source };
        make_directory(directory).map_err(io)?;
        let earlier = match read(&path)? {
            Some(text) => {
                let earlier = text.parse::<Record>().ok();
                if earlier.is_none() {
                    tracing::warn!("{} is broken: beginning anew, with another key", path.display());
                }
                earlier
            }
            None => None,
        };
        let times = Times::now()?;
        let now = times.continuing(earlier.as_ref());
        let key = match &earlier {
            Some(record) => record.key.clone(),
            None => SecretKey::new(&mut Rng::from_os().map_err(LifeError::Random)?),
        };
        let record = Record {
            key: key.clone(),
            ahead: now.as_nanos().saturating_sub(times.since_boot),
            boot: times.boot,
            clock: now.as_nanos(),
        };
        let file = write(&path, &record).map_err(io)?;
        Ok(Self { key, clock: Clock::starting_at(now), file })
    }

    /// The key of this life and of all before.
    pub fn key(&self) -> &SecretKey {
        &self.key
    }

    /// The clock, which goes on where the last life's could have been.
    pub fn clock(&self) -> Clock {
        self.clock
    }
}

impl Drop for Life {
    /// Notes how far the clock has come, for a life after the next boot.
    fn drop(&mut self) {
        let clock = clock_line(self.clock.now().as_nanos());
        let end = self.file.metadata().map(|data| data.len()).unwrap_or_default();
        let Some(at) = end.checked_sub(clock.len() as u64) else { return };
        if let Err(error) = self.file.write_all_at(clock.as_bytes(), at) {
            tracing::debug!("how far the clock has come is not kept: {error}");
        }
    }
}

/// What is in the file.
#[derive(Debug)]
struct Record {
    key: SecretKey,
    /// The boot that `ahead` is about.
    boot: String,
    /// How far the clock is ahead of the time since the boot, in nanoseconds.
    ahead: u64,
    /// The latest time that is known, in nanoseconds.
    clock: u64,
}

impl Record {
    fn text(&self) -> String {
        let Self { key, boot, ahead, clock } = self;
        let key = HEXLOWER.encode(key.bytes());
        format!("{MAGIC}\nkey {key}\nboot {boot}\nahead {ahead}\n{}", clock_line(*clock))
    }
}

/// The last line, which is written again at the end: always as long.
fn clock_line(clock: u64) -> String {
    format!("clock {clock:020}\n")
}

impl FromStr for Record {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut lines = text.lines();
        let mut value = |name: &str| lines.next().and_then(|line| line.strip_prefix(name)).ok_or(());
        value(MAGIC)?;
        let key = HEXLOWER.decode(value("key ")?.as_bytes()).map_err(drop)?;
        let key = SecretKey::from_bytes(key.try_into().map_err(drop)?);
        let boot = value("boot ")?.to_owned();
        let ahead = value("ahead ")?.parse().map_err(drop)?;
        let clock = value("clock ")?.parse().map_err(drop)?;
        if ahead > MAX_CLOCK || clock > MAX_CLOCK || !text.ends_with('\n') {
            return Err(());
        }
        Ok(Self { key, boot, ahead, clock })
    }
}

/// The clocks of the machine, in nanoseconds.
struct Times {
    boot: String,
    since_boot: u64,
    since_1970: u64,
}

impl Times {
    fn now() -> Result<Self, LifeError> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(LifeError::Time)?;
        let since_boot =
            clock_gettime(ClockId::CLOCK_BOOTTIME).map_err(|error| LifeError::Time(error.into()))?;
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            boot: boot.trim().to_owned(),
            since_boot: nanos(Duration::from(since_boot)),
            since_1970: nanos(since_1970),
        })
    }

    /// Where a life's clock starts: not behind where an earlier one could have been.
    fn continuing(&self, earlier: Option<&Record>) -> Instant {
        let start = match earlier {
            Some(record) if record.boot == self.boot => (record.ahead + self.since_boot).max(record.clock),
            Some(record) => self.since_1970.max(record.clock),
            None => self.since_1970,
        };
        Instant::from_nanos(start.min(MAX_CLOCK))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).min(MAX_CLOCK)
}

fn make_directory(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// The file's text, if there is a file.
fn read(path: &Path) -> Result<Option<String>, LifeError> {
    let io = |source| LifeError::Io { path: path.to_owned(), source };
    let not_private = |what| LifeError::NotPrivate { path: path.to_owned(), what };
    // A pipe in its place must not keep us waiting.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Err(not_private("it is a symbolic link"));
        }
        Err(error) => return Err(io(error)),
    };
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(not_private("it is not a file"));
    }
    if metadata.uid() != geteuid().as_raw() && metadata.uid() != 0 {
        return Err(not_private("another user owns it"));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(not_private("others than its owner may read or write it"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(io)?;
    // What is no text does not parse, either.
    Ok(Some(String::from_utf8(bytes).unwrap_or_default()))
}

/// Puts a new file in the old one's place, whole or not at all.
fn write(path: &Path, record: &Record) -> io::Result<File> {
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(record.text().as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn record(boot: &str, ahead: u64, clock: u64) -> Record {
        Record { key: SecretKey::from_bytes([7; 16]), boot: boot.to_owned(), ahead, clock }
    }

    fn times(boot: &str, since_boot: u64, since_1970: u64) -> Times {
        Times { boot: boot.to_owned(), since_boot, since_1970 }
    }

    /// RFC 6528 §3: a new incarnation lies above the old one only if its clock does.
    #[test]
    fn a_clock_goes_on_whatever_happens_to_the_wall_clock_rfc6528_3() {
        let nanos = |times: Times, earlier: Option<Record>| times.continuing(earlier.as_ref()).as_nanos();
        assert_eq!(nanos(times("a", 10, 5_000), None), 5_000, "the first life");
        // The same boot: 100 s after the last start, and the wall clock was set back.
        assert_eq!(nanos(times("a", 110, 40), Some(record("a", 4_990, 5_000))), 5_100);
        // A clean end had noted more than the boot's clock tells, which can't be but must not hurt.
        assert_eq!(nanos(times("a", 110, 40), Some(record("a", 4_990, 6_000))), 6_000);
        // Another boot: the wall clock, but never behind.
        assert_eq!(nanos(times("b", 1, 9_000), Some(record("a", 4_990, 5_000))), 9_000);
        assert_eq!(nanos(times("b", 1, 40), Some(record("a", 4_990, 5_000))), 5_000);
        assert_eq!(nanos(times("b", 1, u64::MAX), None), MAX_CLOCK);
    }

    #[test]
    fn a_second_life_has_the_key_and_a_later_clock() {
        let directory = tempfile::tempdir().expect("a directory");
        let state = directory.path().join("state");
        let first = Life::begin(&state).expect("begins");
        let mode = |path: &Path| fs::metadata(path).expect("is there").permissions().mode() & 0o777;
        assert_eq!((mode(&state), mode(&state.join(FILE))), (0o700, 0o600));
        let (key, before) = (*first.key().bytes(), first.clock().now());
        assert!(before > Instant::from_millis(1_000_000_000_000), "it is the wall clock's: {before}");
        // Killed: nothing is noted at its end.
        std::mem::forget(first);
        let second = Life::begin(&state).expect("begins");
        assert_eq!(second.key().bytes(), &key);
        let after = second.clock().now();
        assert!(after > before && after - before < Duration::from_secs(60), "{before} and {after}");
        drop(second);
        let text = fs::read_to_string(state.join(FILE)).expect("reads");
        let kept: Record = text.parse().expect("the end leaves it whole");
        assert!(kept.clock >= after.as_nanos(), "how far the clock came");
    }

    /// RFC 6528 §3: the key is the host's, and the flow that it is hashed with says which of its stacks it is.
    #[test]
    fn stacks_that_live_at_once_share_a_key_and_a_clock_rfc6528_3() {
        let directory = tempfile::tempdir().expect("a directory");
        let [one, other] = [(); 2].map(|()| Life::begin(directory.path()).expect("begins"));
        let key = *one.key().bytes();
        assert_eq!(other.key().bytes(), &key);
        let (before, between, after) = (one.clock().now(), other.clock().now(), one.clock().now());
        let slack = Duration::from_millis(10);
        assert!(before <= between + slack && between <= after + slack, "{before}, {between}, {after}");
        // Whichever ends last, what it leaves is whole.
        drop(other);
        drop(one);
        let text = fs::read_to_string(directory.path().join(FILE)).expect("reads");
        let kept: Record = text.parse().expect("whole");
        assert!(kept.clock >= between.as_nanos() && kept.key.bytes() == &key);
    }

    #[test]
    fn a_broken_file_is_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(FILE);
        let whole = record("a", 1, 1).text();
        assert!(whole.parse::<Record>().is_ok());
        let absurd = record("a", 1, u64::MAX).text();
        for bad in ["", "xstack-state 2\n", &whole[..whole.len() - 1], &whole[1..], "\u{0}", absurd.as_str()]
        {
            fs::write(&path, bad).expect("writes");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("is ours");
            let life = Life::begin(directory.path()).expect("begins anew");
            assert_ne!(life.key().bytes(), &[7; 16], "{bad:?}");
        }
    }

    #[test]
    fn a_file_that_others_could_know_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(FILE);
        let refused = |what: &str| {
            let error = Life::begin(directory.path()).expect_err("must not begin").to_string();
            assert!(error.contains(what), "{error}");
        };
        fs::write(&path, record("a", 1, 1).text()).expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("is ours");
        refused("others than its owner");
        fs::remove_file(&path).expect("removes");
        symlink("/dev/zero", &path).expect("links");
        refused("symbolic link");
        fs::remove_file(&path).expect("removes");
        fs::create_dir(&path).expect("makes");
        refused("not a file");
    }
}
