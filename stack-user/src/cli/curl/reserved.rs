//! Files that root opens for itself, before it becomes a user who may not.

use std::fs::{File, OpenOptions, remove_file};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file to write to. Until it is [taken](Self::take) it has what it had before; one that did not exist is removed
/// again, if the user that we are by then may do that.
#[derive(Debug)]
pub(super) struct Reserved {
    path: PathBuf,
    file: Option<io::Result<File>>,
    is_new: bool,
}

impl Reserved {
    /// Opens a file, or makes one. What went wrong is told by whoever takes it, as nobody may ever do. None for what is
    /// no file: a FIFO would have us wait for its reader.
    pub(super) fn new(path: &Path) -> Option<Self> {
        let mut options = OpenOptions::new();
        options.write(true);
        let (file, is_new) = match path.metadata() {
            Ok(metadata) if !metadata.is_file() => return None,
            Ok(_) => (options.open(path), false),
            Err(_) => (options.create_new(true).open(path), true),
        };
        Some(Self { path: path.to_owned(), is_new: is_new && file.is_ok(), file: Some(file) })
    }

    /// The file, empty.
    pub(super) fn take(mut self) -> io::Result<File> {
        let file = self.file.take().unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()))?;
        // Another URL with the same file had made it, and removed it.
        if file.metadata()?.nlink() == 0 {
            return File::create(&self.path);
        }
        file.set_len(0)?;
        Ok(file)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let is_unused = match &self.file {
            Some(Ok(file)) => file.metadata().is_ok_and(|metadata| metadata.len() == 0),
            _ => false,
        };
        if self.is_new && is_unused {
            let _ = remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{read, write};
    use std::io::Write;

    #[test]
    fn a_file_changes_when_it_is_taken_and_not_before() {
        let directory = tempfile::tempdir().expect("a directory");
        let (old, new) = (directory.path().join("old"), directory.path().join("new"));
        write(&old, "what it had").expect("writes");
        for path in [&old, &new] {
            drop(Reserved::new(path).expect("is a file"));
        }
        assert_eq!(read(&old).expect("is there"), b"what it had");
        assert!(!new.exists());
        for path in [&old, &new] {
            let mut file = Reserved::new(path).expect("is a file").take().expect("opens");
            file.write_all(b"it").expect("writes");
            assert_eq!(read(path).expect("is there"), b"it");
        }
    }

    #[test]
    fn two_may_have_the_same_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("new");
        let (first, second) = (Reserved::new(&path).expect("a file"), Reserved::new(&path).expect("a file"));
        drop(first);
        second.take().expect("opens").write_all(b"it").expect("writes");
        assert_eq!(read(&path).expect("is there"), b"it");
    }

    #[test]
    fn what_cannot_be_opened_is_told_by_who_takes_it_and_what_is_no_file_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(Reserved::new(directory.path()).is_none());
        let inside_nothing = Reserved::new(&directory.path().join("no/file")).expect("might be a file");
        assert_eq!(inside_nothing.take().expect_err("can't be").kind(), io::ErrorKind::NotFound);
    }
}
