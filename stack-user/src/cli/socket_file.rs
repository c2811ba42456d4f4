//! Socket files: with the rights that were asked for from their first moment on, and given to whoever is to own them.
//!
//! They are made while the process is root, in directories that may be an ordinary user's. Who may write there can put
//! another file in the place of ours at any moment, a link to one of root's for example. So nothing is changed by its
//! name: the rights come from the umask while the file is made, and its owner is changed by a descriptor, once it is clear
//! that what that is of was made by us.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use nix::{
    fcntl::AtFlags,
    sys::{
        socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket},
        stat::{Mode, umask},
    },
    unistd::{Gid, Uid, fchownat, geteuid},
};
use tokio::net::UnixListener;

/// Connections that wait to be accepted, as of a TCP listener.
const BACKLOG: i32 = 1024;

/// The file of a socket that we made, so that nobody else's is taken for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketFile {
    /// Its name.
    pub path: PathBuf,
    /// The device that it is on.
    pub device: u64,
    /// Its inode there.
    pub inode: u64,
}

impl SocketFile {
    /// Makes it and listens: `mode` says who may connect, and `owner` (uid and gid) whose it becomes, if not ours.
    ///
    /// # Errors
    /// `AddrInUse` if there is a file of that name; as making files; `PermissionDenied` if another has taken its place
    /// before it could be given away.
    pub fn listen(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> io::Result<(UnixListener, Self)> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        bind_with_mode(&socket, path, mode)?;
        let file = Self::give(path, owner)?;
        listen(&socket, Backlog::new(BACKLOG)?)?;
        Ok((UnixListener::from_std(socket.into())?, file))
    }

    /// Gives what we have just made at `path` to `owner`.
    fn give(path: &Path, owner: Option<(u32, u32)>) -> io::Result<Self> {
        let file = open_as_it_is(path)?;
        let metadata = file.metadata()?;
        let ours = geteuid();
        // A second name would be in a directory where it is somebody's who may not own it.
        if !metadata.file_type().is_socket() || metadata.uid() != ours.as_raw() || metadata.nlink() != 1 {
            let told =
                "another file was put in the place of the socket: who else may write to its directory?";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, told));
        }
        if let Some((uid, gid)) = owner
            && uid != ours.as_raw()
        {
            fchownat(&file, c"", Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::AT_EMPTY_PATH)?;
        }
        Ok(Self { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() })
    }

    /// Whether what has its name now is still it.
    pub fn is_there(&self) -> bool {
        let now = fs::symlink_metadata(&self.path);
        now.is_ok_and(|now| {
            (now.dev(), now.ino()) == (self.device, self.inode) && now.file_type().is_socket()
        })
    }

    /// Removes it, unless another has its name by now.
    ///
    /// # Errors
    /// As removing files.
    pub fn remove(&self) -> io::Result<()> {
        if self.is_there() { fs::remove_file(&self.path) } else { Ok(()) }
    }
}

/// A descriptor that says what is there, a link included, and by which nothing can be read.
fn open_as_it_is(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(path)
}

/// The kernel gives the file all rights but those in the umask, which is the process's: one at a time.
fn bind_with_mode(socket: &OwnedFd, path: &Path, mode: u32) -> io::Result<()> {
    static UMASK: Mutex<()> = Mutex::new(());
    let address = UnixAddr::new(path)?;
    let _alone = UMASK.lock().unwrap_or_else(PoisonError::into_inner);
    let before = umask(Mode::from_bits_truncate(!mode & 0o777));
    let bound = bind(socket.as_raw_fd(), &address);
    umask(before);
    Ok(bound?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::{
        fs::{PermissionsExt, symlink},
        net::UnixListener as StdUnixListener,
    };

    use super::*;

    const OTHER: (u32, u32) = (12_345, 12_346);

    #[tokio::test]
    async fn it_has_the_rights_asked_for_whatever_the_umask_is_and_the_owner() {
        let folder = tempfile::tempdir().expect("a folder");
        let owner = geteuid().is_root().then_some(OTHER);
        for mode in [0o600, 0o666, 0o770] {
            let path = folder.path().join(format!("{mode:o}"));
            let (_listener, file) = SocketFile::listen(&path, mode, owner).expect("listens");
            let made = fs::symlink_metadata(&path).expect("is there");
            assert_eq!(made.permissions().mode() & 0o777, mode);
            if let Some((uid, gid)) = owner {
                assert_eq!((made.uid(), made.gid()), (uid, gid));
            }
            assert!(file.is_there());
            file.remove().expect("removes");
            assert!(!path.exists());
        }
    }

    #[test]
    fn what_was_put_in_its_place_is_given_to_nobody() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, victim) = (folder.path().join("socket"), folder.path().join("shadow"));
        let _socket = StdUnixListener::bind(folder.path().join("other")).expect("binds");
        fs::write(&victim, "secret").expect("writes");
        let before = fs::metadata(&victim).expect("is there");
        let replace: [&dyn Fn() -> io::Result<()>; 4] = [
            &|| symlink(&victim, &path),
            &|| fs::hard_link(&victim, &path),
            &|| symlink(folder.path().join("other"), &path),
            &|| fs::hard_link(folder.path().join("other"), &path),
        ];
        for replaced in replace {
            replaced().expect("links");
            let error = SocketFile::give(&path, Some(OTHER)).expect_err("is not what we made");
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            fs::remove_file(&path).expect("removes");
        }
        let after = fs::metadata(&victim).expect("is there");
        assert_eq!((after.uid(), after.mode()), (before.uid(), before.mode()));
        let other = fs::metadata(folder.path().join("other")).expect("is there");
        assert_eq!(other.uid(), geteuid().as_raw());
    }
}
