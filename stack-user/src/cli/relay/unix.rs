//! Listening on a socket file: one that nobody else listens on, with the rights that were asked for, gone when we go.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use tokio::net::{UnixListener, UnixStream};

use crate::cli::network::{Connection, Listener};
use crate::cli::socket_file;

/// What stands for the address of a client that has none.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// A listener on a socket file, which it removes when it is dropped.
#[derive(Debug)]
pub struct SocketFile {
    listener: UnixListener,
    file: socket_file::SocketFile,
}

impl SocketFile {
    /// Makes a socket file that `mode` says who may connect to and `owner` (uid and gid) whose it is, and listens on it. A socket that an earlier run has left is
    /// replaced.
    ///
    /// # Errors
    /// `AddrInUse` when somebody listens there; `AlreadyExists` when the file is none of a socket; as creating files.
    pub fn bind(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> io::Result<Self> {
        let (listener, file) = match socket_file::SocketFile::listen(path, mode, owner) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_if_stale(path)?;
                socket_file::SocketFile::listen(path, mode, owner)?
            }
            bound => bound?,
        };
        Ok(Self { listener, file })
    }

    /// Accepts the next one.
    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }
}

/// Removes the file if it is a socket that nobody listens on any more.
fn remove_if_stale(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        let told = "there is a file of that name, and it is no socket: remove it, or choose another path";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, told));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        _ => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens on this socket")),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = self.file.remove() {
            tracing::warn!(
                "cannot remove the socket {}: {error}; the next start replaces it",
                self.file.path.display()
            );
        }
    }
}

impl Listener for SocketFile {
    type Stream = UnixStream;

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(NOWHERE)
    }

    async fn accept(&self) -> io::Result<(UnixStream, SocketAddr)> {
        Ok((Self::accept(self).await?, NOWHERE))
    }
}

/// There is no reset of a socket file: the other end sees that this one is gone, by an error only if it had sent
/// something that was not read.
impl Connection for UnixStream {
    fn reset(self) {}

    fn failure(&self) -> Option<io::Error> {
        self.take_error().ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).expect("is there").permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn the_file_has_the_rights_asked_for_and_goes_with_its_listener() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        for wanted in [0o600, 0o666] {
            let bound = SocketFile::bind(&path, wanted, None).expect("binds");
            assert_eq!(mode(&path), wanted);
            let _client = UnixStream::connect(&path).await.expect("connects");
            bound.accept().await.expect("accepts");
            drop(bound);
            assert!(!path.exists());
        }
    }

    /// Whoever the process becomes could not connect to one of root's with mode 600.
    #[tokio::test]
    async fn the_file_is_the_owners() {
        use std::os::unix::fs::MetadataExt;
        if !nix::unistd::geteuid().is_root() {
            println!("SKIP the_file_is_the_owners: only root can give files away");
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let _bound = SocketFile::bind(&path, 0o600, Some((12_345, 12_346))).expect("binds");
        let file = fs::symlink_metadata(&path).expect("is there");
        assert_eq!((file.uid(), file.gid()), (12_345, 12_346));
    }

    #[tokio::test]
    async fn a_socket_left_behind_is_replaced_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("binds"));
        assert!(path.exists(), "the standard library leaves it");
        let bound = SocketFile::bind(&path, 0o600, None).expect("replaces it");
        let error = SocketFile::bind(&path, 0o600, None).expect_err("in use");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        fs::remove_file(&path).expect("removes");
        let newer = SocketFile::bind(&path, 0o600, None).expect("binds");
        drop(bound);
        assert!(path.exists(), "another one's file is not ours to remove");
        drop(newer);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notes");
        fs::write(&path, "mine").expect("writes");
        let error = SocketFile::bind(&path, 0o600, None).expect_err("is no socket");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).expect("reads"), b"mine");
        let error = SocketFile::bind(&folder.path().join("no/such"), 0o600, None).expect_err("no folder");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
