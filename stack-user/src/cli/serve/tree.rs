//! The directory that is served: what a path names in it, and nothing that lies outside.
//!
//! Paths are resolved by the kernel itself with openat2(2), below the root's descriptor. So nobody who changes links
//! meanwhile can lead it out. Everything here blocks, and is called on threads that may.

use std::{
    ffi::{OsStr, OsString},
    fs::{File, Metadata},
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    time::SystemTime,
};

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
};

use super::path::{RequestPath, is_hidden};

/// Up to this size a file is read as it is opened: the answer then costs one hand-over to a thread instead of two.
/// Larger, and requests that only ask whether something has changed read much for nothing.
pub(super) const READ_AT_ONCE: u64 = 32 * 1024;

/// How many entries a listing has at most. A directory of millions would take seconds and gigabytes; nobody reads a page of
/// more than these.
const MAX_ENTRIES: usize = 50_000;

/// What to serve of the directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Directories without an index are listed.
    pub(super) listing: bool,
    /// Names that begin with a dot are served.
    pub(super) hidden: bool,
    /// Links may lead out of it.
    pub(super) follow_symlinks: bool,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    /// Where the root really is.
    place: PathBuf,
    rules: Rules,
}

/// What a path names.
#[derive(Debug)]
pub(super) enum Found {
    /// A file.
    File(FoundFile),
    /// A directory, but the path has no slash at its end.
    WithoutSlash,
    /// A directory's entries.
    Listing(Listing),
}

/// A regular file, open.
#[derive(Debug)]
pub(super) struct FoundFile {
    pub(super) file: File,
    pub(super) metadata: Metadata,
    /// Below the root: the name that was asked for, whatever file it is served from.
    pub(super) name: PathBuf,
    /// It is what `name` has become by gzip.
    pub(super) is_gzip: bool,
    /// All of it, if it is small.
    pub(super) content: Option<Vec<u8>>,
}

/// What is in a directory.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Directories first, then by name.
    pub(super) entries: Vec<Entry>,
    /// There are more, which are left out.
    pub(super) is_cut: bool,
}

/// One thing in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: OsString,
    pub(super) is_directory: bool,
    pub(super) size: u64,
    pub(super) modified: SystemTime,
}

/// Why nothing is served.
#[derive(Debug)]
pub(super) enum Refusal {
    /// There is nothing of the kind.
    NotFound,
    /// There is, but not for you: permissions, a link that leads out, a device, a directory that is not to be listed.
    Forbidden,
    /// No descriptor is left at the moment.
    Busy,
    /// The disk, or something else that should not be.
    Failed(io::Error),
}

impl From<Errno> for Refusal {
    /// As nginx sorts them.
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG => Self::NotFound,
            // ENXIO is what a socket says.
            Errno::EACCES | Errno::EPERM | Errno::ELOOP | Errno::EXDEV | Errno::ENXIO => Self::Forbidden,
            Errno::EMFILE | Errno::ENFILE => Self::Busy,
            errno => Self::Failed(errno.into()),
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        error.raw_os_error().map_or_else(|| Self::Failed(error), |code| Errno::from_raw(code).into())
    }
}

impl Tree {
    /// Opens the directory, and makes sure that it can be looked into.
    pub(super) fn open(directory: &Path, rules: Rules) -> io::Result<Self> {
        let place = directory.canonicalize()?;
        let root = OwnedFd::from(File::open(&place)?);
        if !File::from(root.try_clone()?).metadata()?.is_dir() {
            return Err(Errno::ENOTDIR.into());
        }
        let tree = Self { root, place, rules };
        tree.check()?;
        Ok(tree)
    }

    /// Makes sure that the directory can be looked into, by whom the process is now.
    pub(super) fn check(&self) -> io::Result<()> {
        // Names may be looked up by those who may not list them: that is enough for files whose names are known.
        let flags = if self.rules.listing { OFlag::O_RDONLY } else { OFlag::O_PATH };
        self.resolve(Path::new("."), flags | OFlag::O_DIRECTORY)?;
        Ok(())
    }

    /// Where it really is.
    pub(super) fn place(&self) -> &Path {
        &self.place
    }

    /// Finds what `path` names; `gzip` tells that the client takes a `.gz` beside it as well, and `content` that it wants
    /// what is in the file.
    pub(super) fn find(&self, path: &RequestPath, gzip: bool, content: bool) -> Result<Found, Refusal> {
        if path.is_hidden() && !self.rules.hidden {
            return Err(Refusal::NotFound);
        }
        let relative = path.relative();
        let metadata = self.look_at(relative)?;
        if !metadata.is_dir() {
            return if path.is_directory {
                Err(Refusal::NotFound)
            } else {
                self.file(relative, &metadata, gzip, content).map(Found::File)
            };
        }
        if !path.is_directory {
            return Ok(Found::WithoutSlash);
        }
        let index = relative.join("index.html");
        match self.look_at(&index) {
            Ok(metadata) if !metadata.is_dir() => {
                self.file(&index, &metadata, gzip, content).map(Found::File)
            }
            Ok(_) | Err(Refusal::NotFound) if self.rules.listing => self.list(relative).map(Found::Listing),
            Ok(_) | Err(Refusal::NotFound) => Err(Refusal::Forbidden),
            Err(refusal) => Err(refusal),
        }
    }

    /// The file at `relative`, or the `.gz` beside it if that is wanted, there, and not older.
    pub(super) fn file(
        &self,
        relative: &Path,
        metadata: &Metadata,
        gzip: bool,
        content: bool,
    ) -> Result<FoundFile, Refusal> {
        let mut compressed = OsString::from(relative);
        compressed.push(".gz");
        let compressed = Path::new(&compressed);
        let is_gzip = gzip
            && self
                .look_at(compressed)
                .is_ok_and(|other| other.is_file() && other.modified().ok() >= metadata.modified().ok());
        let (metadata, path) =
            if is_gzip { (self.look_at(compressed)?, compressed) } else { (metadata.clone(), relative) };
        // Looked at before it is opened: opening a device can do something, and a FIFO would wait for a writer.
        if !metadata.is_file() {
            return Err(Refusal::Forbidden);
        }
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = File::from(self.resolve(path, flags)?);
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(Refusal::Forbidden);
        }
        let content = if content && metadata.len() <= READ_AT_ONCE {
            let mut bytes = Vec::new();
            (&file).take(metadata.len()).read_to_end(&mut bytes)?;
            Some(bytes)
        } else {
            None
        };
        Ok(FoundFile { file, metadata, name: relative.to_owned(), is_gzip, content })
    }

    /// What is there, without opening it.
    pub(super) fn look_at(&self, relative: &Path) -> Result<Metadata, Refusal> {
        Ok(File::from(self.resolve(relative, OFlag::O_PATH)?).metadata()?)
    }

    /// Opens `relative` below the root.
    fn resolve(&self, relative: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
        let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
        let open = |path: &Path, resolve| {
            let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
            openat2(self.root.as_fd(), path, how)
        };
        if self.rules.follow_symlinks {
            return open(relative, ResolveFlag::RESOLVE_NO_MAGICLINKS);
        }
        let below = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let opened = open(relative, below);
        if !matches!(opened, Err(Errno::EXDEV)) {
            return opened;
        }
        // A link with an absolute target leaves and may come back. Where it came back to has no links in it.
        let real = self.place.join(relative).canonicalize().map_err(|_| Errno::EXDEV)?;
        let real = real.strip_prefix(&self.place).map_err(|_| Errno::EXDEV)?;
        open(real, below | ResolveFlag::RESOLVE_NO_SYMLINKS)
    }

    fn list(&self, relative: &Path) -> Result<Listing, Refusal> {
        let mut directory = Dir::from_fd(self.resolve(relative, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?)?;
        let mut listing = Listing::default();
        for entry in directory.iter() {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." || (is_hidden(name) && !self.rules.hidden) {
                continue;
            }
            // What is gone again, leads out, or is neither file nor directory can't be fetched either.
            let Ok(metadata) = self.look_at(&relative.join(name)) else { continue };
            if !metadata.is_file() && !metadata.is_dir() {
                continue;
            }
            if listing.entries.len() == MAX_ENTRIES {
                listing.is_cut = true;
                break;
            }
            listing.entries.push(Entry {
                name: name.to_owned(),
                is_directory: metadata.is_dir(),
                size: metadata.len(),
                modified: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            });
        }
        listing.entries.sort_by(|a, b| b.is_directory.cmp(&a.is_directory).then_with(|| a.name.cmp(&b.name)));
        Ok(listing)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_the_kernel_says_becomes_the_answer_that_nginx_gives() {
        let name = |errno: Errno| match Refusal::from(io::Error::from(errno)) {
            Refusal::NotFound => "404",
            Refusal::Forbidden => "403",
            Refusal::Busy => "503",
            Refusal::Failed(_) => "500",
        };
        for (errnos, status) in [
            (&[Errno::ENOENT, Errno::ENOTDIR, Errno::ENAMETOOLONG][..], "404"),
            (&[Errno::EACCES, Errno::EPERM, Errno::ELOOP, Errno::EXDEV, Errno::ENXIO], "403"),
            (&[Errno::EMFILE, Errno::ENFILE], "503"),
            (&[Errno::EIO, Errno::ESTALE, Errno::ENOMEM, Errno::EUCLEAN], "500"),
        ] {
            for &errno in errnos {
                assert_eq!(name(errno), status, "{errno}");
            }
        }
    }

    #[test]
    fn a_link_that_is_changed_while_it_is_followed_leads_nowhere_outside() {
        let outside = tempfile::tempdir().expect("a directory");
        std::fs::write(outside.path().join("secret"), "secret").expect("written");
        let inside = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(inside.path().join("real")).expect("made");
        std::fs::write(inside.path().join("real/secret"), "public").expect("written");
        let rules = Rules { listing: true, hidden: false, follow_symlinks: false };
        let tree = Tree::open(inside.path(), rules).expect("opens");
        let (link, other) = (inside.path().join("link"), inside.path().join("other"));
        let path = RequestPath::parse("/link/secret").unwrap_or_else(|_| panic!("a path"));
        std::thread::scope(|scope| {
            let swapping = scope.spawn(|| {
                for round in 0..2000 {
                    let target =
                        if round % 2 == 0 { inside.path().join("real") } else { outside.path().into() };
                    symlink(target, &other).and_then(|()| std::fs::rename(&other, &link)).expect("swapped");
                }
            });
            while !swapping.is_finished() {
                if let Ok(Found::File(found)) = tree.find(&path, false, true) {
                    assert_eq!(found.content.as_deref(), Some(&b"public"[..]));
                }
            }
        });
    }
}
