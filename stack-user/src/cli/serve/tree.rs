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
    sys::statfs::{self, FsType, fstatfs},
};

use super::{
    path::{RequestPath, is_hidden},
    version::{FileVersion, is_settled},
};

/// Up to this size a file is read as it is opened: the answer then costs one hand-over to a thread instead of two.
/// Larger, and requests that only ask whether something has changed read much for nothing.
pub(super) const READ_AT_ONCE: u64 = 32 * 1024;

/// How many entries a listing has at most. A directory of millions would take seconds and gigabytes; nobody reads a page of
/// more than these.
const MAX_ENTRIES: usize = 50_000;

/// Looks up only what the kernel has in its memory (Linux 5.12); who would have to wait for a disk hears EAGAIN.
const RESOLVE_CACHED: ResolveFlag = ResolveFlag::from_bits_retain(libc::RESOLVE_CACHED);

/// File systems that say what a file's times and size are without asking another machine, or another process.
const AT_HAND: [FsType; 6] = [
    statfs::EXT4_SUPER_MAGIC,
    statfs::XFS_SUPER_MAGIC,
    statfs::BTRFS_SUPER_MAGIC,
    statfs::F2FS_SUPER_MAGIC,
    statfs::TMPFS_MAGIC,
    statfs::OVERLAYFS_SUPER_MAGIC,
];

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
    /// Its file system is one of those [at hand](AT_HAND).
    is_at_hand: bool,
}

/// What a path names.
#[derive(Debug)]
pub(super) enum Found {
    /// A file.
    File(Box<FoundFile>),
    /// A directory, but the path has no slash at its end.
    WithoutSlash,
    /// A directory's entries.
    Listing(Listing),
}

/// Where what a path names is, before anything of it is opened.
enum Place {
    File(Box<PlacedFile>),
    WithoutSlash,
    Directory,
}

/// A file that is there.
struct PlacedFile {
    /// What it was when it was looked at.
    metadata: Metadata,
    /// Below the root.
    path: PathBuf,
    /// The same, without what gzip added.
    name: PathBuf,
    is_gzip: bool,
}

/// How far a look into the file system may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patience {
    /// A disk is waited for.
    Waits,
    /// It is not.
    AtOnce,
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
    /// Its version, if whatever becomes of it will have another one, and that can be told at once.
    pub(super) settled: Option<FileVersion>,
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
        let is_at_hand = fstatfs(&root).is_ok_and(|about| AT_HAND.contains(&about.filesystem_type()));
        let tree = Self { root, place, rules, is_at_hand };
        tree.check()?;
        Ok(tree)
    }

    /// Makes sure that the directory can be looked into, by whom the process is now.
    pub(super) fn check(&self) -> io::Result<()> {
        // Names may be looked up by those who may not list them: that is enough for files whose names are known.
        let flags = if self.rules.listing { OFlag::O_RDONLY } else { OFlag::O_PATH };
        self.resolve(Path::new("."), flags | OFlag::O_DIRECTORY, Patience::Waits)?;
        Ok(())
    }

    /// Where it really is.
    pub(super) fn place(&self) -> &Path {
        &self.place
    }

    /// Finds what `path` names; `gzip` tells that the client takes a `.gz` beside it as well, and `content` that it wants
    /// what is in the file.
    pub(super) fn find(&self, path: &RequestPath, gzip: bool, content: bool) -> Result<Found, Refusal> {
        match self.locate(path, gzip, Patience::Waits)? {
            Place::File(file) => self.open_file(*file, content).map(|file| Found::File(Box::new(file))),
            Place::WithoutSlash => Ok(Found::WithoutSlash),
            Place::Directory => self.list(path.relative()).map(Found::Listing),
        }
    }

    /// Which file `path` names as of now, if it is one, and that can be told at once: everything that it takes is in memory.
    /// It is all that [`find`](Self::find) looks at, except for the file's content.
    pub(super) fn version_at_once(&self, path: &RequestPath, gzip: bool) -> Option<FileVersion> {
        if !self.is_at_hand {
            return None;
        }
        match self.locate(path, gzip, Patience::AtOnce) {
            Ok(Place::File(file)) => Some(FileVersion::of(&file.metadata)),
            _ => None,
        }
    }

    fn locate(&self, path: &RequestPath, gzip: bool, patience: Patience) -> Result<Place, Refusal> {
        if path.is_hidden() && !self.rules.hidden {
            return Err(Refusal::NotFound);
        }
        let relative = path.relative();
        let metadata = self.look_at(relative, patience)?;
        if !metadata.is_dir() {
            return if path.is_directory {
                Err(Refusal::NotFound)
            } else {
                self.choose(relative, metadata, gzip, patience)
            };
        }
        if !path.is_directory {
            return Ok(Place::WithoutSlash);
        }
        let index = relative.join("index.html");
        match self.look_at(&index, patience) {
            Ok(metadata) if !metadata.is_dir() => self.choose(&index, metadata, gzip, patience),
            Ok(_) | Err(Refusal::NotFound) if self.rules.listing => Ok(Place::Directory),
            Ok(_) | Err(Refusal::NotFound) => Err(Refusal::Forbidden),
            Err(refusal) => Err(refusal),
        }
    }

    /// The file at `relative`, or the `.gz` beside it if that is wanted, there, and not older.
    fn choose(
        &self,
        relative: &Path,
        metadata: Metadata,
        gzip: bool,
        patience: Patience,
    ) -> Result<Place, Refusal> {
        let plain =
            PlacedFile { metadata, path: relative.to_owned(), name: relative.to_owned(), is_gzip: false };
        if !gzip {
            return Ok(Place::File(Box::new(plain)));
        }
        let mut compressed = OsString::from(relative);
        compressed.push(".gz");
        let path = PathBuf::from(compressed);
        let chosen = match self.look_at(&path, patience) {
            Ok(other) if other.is_file() && other.modified().ok() >= plain.metadata.modified().ok() => {
                PlacedFile { metadata: other, path, is_gzip: true, ..plain }
            }
            // There may be one, where looking would take a while.
            Err(refusal) if patience == Patience::AtOnce && !matches!(refusal, Refusal::NotFound) => {
                return Err(refusal);
            }
            _ => plain,
        };
        Ok(Place::File(Box::new(chosen)))
    }

    fn open_file(&self, file: PlacedFile, content: bool) -> Result<FoundFile, Refusal> {
        let PlacedFile { metadata, path, name, is_gzip } = file;
        // Looked at before it is opened: opening a device can do something, and a FIFO would wait for a writer.
        if !metadata.is_file() {
            return Err(Refusal::Forbidden);
        }
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let opened = SystemTime::now();
        let file = File::from(self.resolve(&path, flags, Patience::Waits)?);
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(Refusal::Forbidden);
        }
        let settled = (self.is_at_hand && is_settled(&metadata, opened)).then(|| FileVersion::of(&metadata));
        let content = if content && metadata.len() <= READ_AT_ONCE {
            let mut bytes = Vec::new();
            (&file).take(metadata.len()).read_to_end(&mut bytes)?;
            Some(bytes)
        } else {
            None
        };
        Ok(FoundFile { file, metadata, name, is_gzip, settled, content })
    }

    /// What is there, without opening it.
    fn look_at(&self, relative: &Path, patience: Patience) -> Result<Metadata, Refusal> {
        Ok(File::from(self.resolve(relative, OFlag::O_PATH, patience)?).metadata()?)
    }

    /// Opens `relative` below the root.
    fn resolve(&self, relative: &Path, flags: OFlag, patience: Patience) -> Result<OwnedFd, Errno> {
        let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
        // What is mounted below may be of another kind.
        let at_once = match patience {
            Patience::Waits => ResolveFlag::empty(),
            Patience::AtOnce => RESOLVE_CACHED | ResolveFlag::RESOLVE_NO_XDEV,
        };
        let open = |path: &Path, resolve: ResolveFlag| {
            let resolve = resolve | at_once;
            let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
            openat2(self.root.as_fd(), path, how)
        };
        if self.rules.follow_symlinks {
            return open(relative, ResolveFlag::RESOLVE_NO_MAGICLINKS);
        }
        let below = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let opened = open(relative, below);
        if patience == Patience::AtOnce || !matches!(opened, Err(Errno::EXDEV)) {
            return opened;
        }
        // A link with an absolute target leaves and may come back. Where it came back to has no links in it.
        let real = self.place.join(relative).canonicalize().map_err(|_| Errno::EXDEV)?;
        let real = real.strip_prefix(&self.place).map_err(|_| Errno::EXDEV)?;
        open(real, below | ResolveFlag::RESOLVE_NO_SYMLINKS)
    }

    fn list(&self, relative: &Path) -> Result<Listing, Refusal> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let mut directory = Dir::from_fd(self.resolve(relative, flags, Patience::Waits)?)?;
        let mut listing = Listing::default();
        for entry in directory.iter() {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." || (is_hidden(name) && !self.rules.hidden) {
                continue;
            }
            // What is gone again, leads out, or is neither file nor directory can't be fetched either.
            let Ok(metadata) = self.look_at(&relative.join(name), Patience::Waits) else { continue };
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
