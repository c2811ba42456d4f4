//! The lock that starting daemons take turns by: two that start at once must not both find the old socket file stale, and
//! the second remove the first's.
//!
//! It is a file of its own, which only we may open, as whoever may open a file may lock it, and for as long as it likes.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::unistd::geteuid;

use super::socket::SocketError;

/// How often it is tried: for two seconds in all. Another daemon has it for as long as it takes to make a file; fewer tries,
/// and a machine that is busy starting lets us fail, more, and a lock that never comes is told of later.
const TRIES: u32 = 100;
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// The lock while it is held, and its file, which is gone afterwards.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock of a socket. Of an earlier life that was killed, `owner` (uid and gid) may have it, too.
    ///
    /// # Errors
    /// [`SocketError::Locked`] if another does not let go of it; [`SocketError::Foreign`] if it is another user's.
    pub(super) async fn take(socket: &Path, owner: Option<(u32, u32)>) -> Result<Self, SocketError> {
        let mut name = OsString::from(socket);
        name.push(".lock");
        let path = PathBuf::from(name);
        for _ in 0..TRIES {
            if let Some(lock) = Self::try_take(&path, owner)? {
                return Ok(lock);
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
        Err(SocketError::Locked { path })
    }

    fn try_take(path: &Path, owner: Option<(u32, u32)>) -> Result<Option<Self>, SocketError> {
        let failed = |source| SocketError::Io { what: "lock", path: path.to_owned(), source };
        // No link is followed, and no writer of a pipe waited for.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(flags)
            .open(path)
            .map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let (ours, uid) = (geteuid().as_raw(), metadata.uid());
        if uid != ours && owner.is_none_or(|(owner, _)| uid != owner) {
            return Err(SocketError::Foreign { path: path.to_owned(), uid, ours });
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // Who had it before us has removed the file: the next one that comes would make another.
        match fs::symlink_metadata(path) {
            Ok(now) if (now.dev(), now.ino()) == (metadata.dev(), metadata.ino()) => {
                Ok(Some(Self { _file: file, path: path.to_owned() }))
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(None),
        }
    }
}

impl Drop for Lock {
    /// While it is held, so that nobody else's is removed.
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!("cannot remove the lock {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_at_a_time_has_it_and_nothing_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("control.sock");
        let first = Lock::take(&socket, None).await.expect("is free");
        assert_eq!(fs::metadata(&first.path).expect("is there").mode() & 0o777, 0o600);
        let error = Lock::take(&socket, None).await.expect_err("is held").to_string();
        assert!(error.contains("control.sock.lock"), "{error}");
        drop(first);
        drop(Lock::take(&socket, None).await.expect("is free again"));
        assert_eq!(fs::read_dir(directory.path()).expect("reads").count(), 0);
    }

    /// Whoever may read the directory may lock that.
    #[tokio::test(start_paused = true)]
    async fn a_lock_on_the_directory_keeps_nobody_waiting() {
        let directory = tempfile::tempdir().expect("a directory");
        let another = File::open(directory.path()).expect("opens");
        another.lock().expect("locks");
        Lock::take(&directory.path().join("control.sock"), None).await.expect("is free");
    }

    #[tokio::test]
    async fn links_are_not_followed_and_anothers_file_is_not_trusted() {
        let directory = tempfile::tempdir().expect("a directory");
        let (socket, path) = (directory.path().join("a"), directory.path().join("a.lock"));
        symlink(directory.path().join("victim"), &path).expect("links");
        Lock::take(&socket, None).await.expect_err("a link");
        assert!(!directory.path().join("victim").exists());
        fs::remove_file(&path).expect("removes");
        if !geteuid().is_root() {
            println!(
                "SKIP links_are_not_followed_and_anothers_file_is_not_trusted: only root can give files away"
            );
            return;
        }
        fs::write(&path, "").expect("writes");
        chown(&path, Some(12_345), None).expect("is root");
        let error = Lock::take(&socket, None).await.expect_err("another's").to_string();
        assert!(error.contains("uid 12345"), "{error}");
        Lock::take(&socket, Some((12_345, 12_345))).await.expect("the one we shall be");
    }
}
