//! The control socket's file: made for one daemon, and gone with it.
//!
//! The file of a daemon that ends in order is removed by it. The kernel removes no socket files, so a second process, the
//! *guard* ([`guard`](super::guard)), outlives one that is killed, and then removes the file, if it is still the daemon's. Under systemd the manager does that, when the file is in the unit's
//! `RuntimeDirectory=`. A socket without a file (an abstract one) would need neither, but it is one network namespace's,
//! and everybody may take its name.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io,
    os::unix::{
        fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, fchown},
        net::UnixStream as StdUnixStream,
    },
    path::{Path, PathBuf},
};

use nix::{
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    unistd::geteuid,
};
use tokio::net::UnixListener;

use super::{guard::Guard, lock::Lock};
use crate::cli::{privileges::Filter, socket_file::SocketFile};

/// Where the daemon is spoken to unless the configuration says otherwise.
pub const DEFAULT_PATH: &str = "/run/xstack/control.sock";

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// A daemon answers there.
    #[error("{} is in use by a running daemon (pid {pid}): stop that, or choose another socket", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
        /// Who listens.
        pid: i32,
    },
    /// It is not a socket.
    #[error("{} exists and is not a socket: remove it, or choose another path", path.display())]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// Another user made it.
    #[error("{} belongs to uid {uid}, and we are uid {ours}: remove it, or choose another path", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// Who we are.
        ours: u32,
    },
    /// Another start does not come to its end, or somebody wants this one not to.
    #[error("another process holds the lock {}: `fuser -v` shows which; stop that", path.display())]
    Locked {
        /// The lock's file.
        path: PathBuf,
    },
    /// Anything else.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// A listening control socket.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    file: SocketFile,
    guard: Option<Guard>,
}

impl ControlSocket {
    /// Listens at `path`, which `mode` says who may connect to; `owner` shall be able to remove it, and `filter` is the guard's. What an earlier daemon of
    /// ours or of `owner` left behind is replaced, but nothing that somebody answers at.
    ///
    /// # Errors
    /// [`SocketError`].
    pub async fn bind(
        path: &Path,
        mode: u32,
        owner: Option<(u32, u32)>,
        filter: Filter,
    ) -> Result<Self, SocketError> {
        let failed = |what| move |source| SocketError::Io { what, path: path.to_owned(), source };
        let directory =
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        make_directory(directory, owner).map_err(failed("make the directory of"))?;
        let alone = Lock::take(path, owner).await?;
        make_room(path, owner)?;
        let (listener, file) = SocketFile::listen(path, mode, owner).map_err(failed("listen on"))?;
        let mut socket = Self { listener, file, guard: None };
        drop(alone);
        if !is_managed(path) {
            socket.guard = Some(Guard::start(&socket.file, filter).map_err(failed("start the guard of"))?);
        }
        Ok(socket)
    }

    /// What listens.
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if let Err(error) = self.file.remove() {
            // We may have given up the right to: then it is the guard's to do, or the service manager's.
            tracing::debug!("cannot remove the control socket {}: {error}", self.file.path.display());
        }
    }
}

/// Makes the directory of the socket, if there is none.
fn make_directory(directory: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
    match DirBuilder::new().mode(0o755).create(directory) {
        Ok(()) => match owner {
            Some(owner) => give_directory(directory, owner),
            None => Ok(()),
        },
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// By a descriptor: by its name, a link that somebody has put there since would be followed.
fn give_directory(directory: &Path, (uid, gid): (u32, u32)) -> io::Result<()> {
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let made = OpenOptions::new().read(true).custom_flags(flags).open(directory)?;
    if made.metadata()?.uid() != geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "another was put in its place"));
    }
    fchown(made, Some(uid), Some(gid))
}

/// Removes what an earlier daemon of ours has left: made by us as we are now, and then given to `owner`, as ours will be.
fn make_room(path: &Path, owner: Option<(u32, u32)>) -> Result<(), SocketError> {
    let failed = |what| move |source| SocketError::Io { what, path: path.to_owned(), source };
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at")(error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(SocketError::NotASocket { path: path.to_owned() });
    }
    if let Ok(stream) = StdUnixStream::connect(path) {
        let pid = getsockopt(&stream, PeerCredentials).map_or(0, |credentials| credentials.pid());
        return Err(SocketError::InUse { path: path.to_owned(), pid });
    }
    let ours = geteuid().as_raw();
    let uid = metadata.uid();
    if uid != ours && owner.is_none_or(|(owner, _)| uid != owner) {
        return Err(SocketError::Foreign { path: path.to_owned(), uid, ours });
    }
    fs::remove_file(path).map_err(failed("replace"))
}

/// Whether systemd removes the file when the unit ends, in whatever way.
fn is_managed(path: &Path) -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
        && std::env::var_os("RUNTIME_DIRECTORY").is_some_and(|directories| {
            std::env::split_paths(&directories).any(|directory| path.starts_with(directory))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temporary() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("run/control.sock");
        (directory, path)
    }

    /// Without a guard: that is a process of the built command, which the end-to-end tests kill the daemon of.
    fn bind(path: &Path) -> Result<ControlSocket, SocketError> {
        bind_for(path, None)
    }

    fn bind_for(path: &Path, owner: Option<(u32, u32)>) -> Result<ControlSocket, SocketError> {
        make_directory(path.parent().expect("a directory"), None).expect("makes");
        make_room(path, owner)?;
        let (listener, file) = SocketFile::listen(path, 0o666, owner).expect("listens");
        Ok(ControlSocket { listener, file, guard: None })
    }

    #[tokio::test]
    async fn one_in_use_is_refused_with_the_pid_and_one_left_behind_is_replaced() {
        let (_directory, path) = temporary();
        let first = bind(&path).expect("binds");
        let error = bind(&path).expect_err("in use").to_string();
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
        // Killed: nobody removes the file, and nobody answers.
        forget_file(first);
        assert!(path.exists());
        let second = bind(&path).expect("replaces it");
        drop(second);
        assert!(!path.exists(), "removed when it ends");
    }

    /// Closes the socket, and leaves the file.
    fn forget_file(mut socket: ControlSocket) {
        socket.file.inode = 0;
    }

    #[tokio::test]
    async fn what_is_no_socket_or_anothers_is_left_alone() {
        let (directory, path) = temporary();
        fs::create_dir(directory.path().join("run")).expect("makes");
        fs::write(&path, "precious").expect("writes");
        assert!(matches!(bind(&path), Err(SocketError::NotASocket { .. })));
        assert_eq!(fs::read_to_string(&path).expect("reads"), "precious");
        fs::remove_file(&path).expect("removes");
        forget_file(bind(&path).expect("binds"));
        if !geteuid().is_root() {
            println!("SKIP what_is_no_socket_or_anothers_is_left_alone: only root can give files away");
            return;
        }
        std::os::unix::fs::chown(&path, Some(12_345), None).expect("is root");
        let error = bind(&path).expect_err("foreign").to_string();
        assert!(error.contains("uid 12345"), "{error}");
        assert!(path.exists());
        // That of an earlier life that had become who we shall become is ours.
        let bound = bind_for(&path, Some((12_345, 12_345))).expect("replaces it");
        assert_eq!(fs::symlink_metadata(&path).expect("is there").uid(), 12_345);
        drop(bound);
    }

    #[tokio::test]
    async fn a_file_that_has_taken_the_name_since_is_not_removed() {
        let (_directory, path) = temporary();
        let socket = bind(&path).expect("binds");
        fs::remove_file(&path).expect("removes");
        fs::write(&path, "another's").expect("writes");
        drop(socket);
        assert!(path.exists());
    }
}
