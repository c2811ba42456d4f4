//! Huge pages for the time of a test.

use std::{
    fs::{self, File},
    io,
};

use nix::fcntl::{Flock, FlockArg};

/// How many there are.
const COUNT: &str = "/proc/sys/vm/nr_hugepages";

/// Who changes that has this file locked: tests of several processes may run at once.
const LOCK: &str = "/run/lock/xstack-huge-pages";

/// Pages that were reserved, as long as this lives. Nobody else reserves any meanwhile.
pub(crate) struct HugePages {
    before: usize,
    _lock: Option<Flock<File>>,
}

impl HugePages {
    /// That many more, or `None` and the reason why not.
    pub(crate) fn reserve(test: &str, pages: usize) -> Option<Self> {
        let lock = Self::lock();
        let reserved = count().and_then(|before| {
            fs::write(COUNT, (before + pages).to_string())?;
            Ok((before, count()?))
        });
        match reserved {
            Ok((before, now)) => {
                let reserved = Self { before, _lock: lock };
                if now >= before + pages {
                    return Some(reserved);
                }
                println!(
                    "SKIP {test}: the kernel has only {} of {pages} huge pages to reserve",
                    now - before
                );
                None
            }
            Err(error) => {
                println!("SKIP {test}: huge pages can't be reserved: {error}");
                None
            }
        }
    }

    /// Waits until nobody has any.
    fn lock() -> Option<Flock<File>> {
        let file = File::create(LOCK).ok()?;
        Flock::lock(file, FlockArg::LockExclusive).ok()
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let _ = fs::write(COUNT, self.before.to_string());
    }
}

fn count() -> io::Result<usize> {
    fs::read_to_string(COUNT)?.trim().parse().map_err(io::Error::other)
}
