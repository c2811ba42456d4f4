//! What tells a file from another one, and from what it was before a change.

use std::{
    fs::Metadata,
    os::unix::fs::MetadataExt,
    time::{Duration, SystemTime},
};

/// How long a file must have been as it is before it is kept. The clock of a file system moves on by a tick of the kernel, 10 ms
/// at most: a second change within one has the time of the first.
const SETTLED: Duration = Duration::from_millis(100);

/// The same where times have no fractions: whole seconds are counted there, or pairs of them.
const SETTLED_SECONDS: Duration = Duration::from_secs(3);

/// Which file it is, and as of when: another one, or the same after a change, differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileVersion {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileVersion {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Whether a file that was opened at this time, and had this metadata then, can be told from what it may yet become.
pub(super) fn is_settled(metadata: &Metadata, opened: SystemTime) -> bool {
    let Ok(changed) = metadata.ctime().try_into().map(Duration::from_secs) else { return false };
    let settled = if metadata.ctime_nsec() == 0 { SETTLED_SECONDS } else { SETTLED };
    let changed =
        SystemTime::UNIX_EPOCH + changed + Duration::from_nanos(metadata.ctime_nsec().unsigned_abs());
    opened.duration_since(changed).is_ok_and(|age| age >= settled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_may_yet_change_unseen_is_not_kept() {
        let file = tempfile::tempfile().expect("a file");
        let metadata = file.metadata().expect("metadata");
        let now = SystemTime::now();
        assert!(!is_settled(&metadata, now), "just made");
        assert!(is_settled(&metadata, now + SETTLED_SECONDS));
        assert!(!is_settled(&metadata, now - SETTLED_SECONDS), "made later than it was opened");
    }
}
