//! Whether what is kept in a BPF file system can be believed: that nobody but root, or who we are, can have put it there.
//!
//! Many a BPF file system is mounted so that everybody may make directories in it. One that is called as ours would be, and
//! belongs to somebody else, has root use their maps, and take off what they choose.

use std::{
    fs::{self, Metadata, OpenOptions, Permissions},
    io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    },
    path::Path,
};

use nix::{
    fcntl::AtFlags,
    unistd::{Gid, fchownat, geteuid},
};

use super::ProgramError;

/// Makes sure that a directory of pins, and those above it in its file system, are root's or ours, and nobody else's to change.
/// What is not there, or may not be looked at, is told by whoever opens it.
///
/// # Errors
/// [`ProgramError::Untrusted`].
pub(super) fn check(directory: &Path) -> Result<(), ProgramError> {
    let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let mut file_system = None;
    for path in directory.ancestors() {
        let Ok(metadata) = fs::symlink_metadata(path) else { continue };
        if *file_system.get_or_insert(metadata.dev()) != metadata.dev() {
            break;
        }
        if let Some(why) = doubt(&metadata, path == directory) {
            return Err(ProgramError::Untrusted { path: path.to_owned(), why });
        }
    }
    Ok(())
}

/// Why somebody else may change what is in a directory. `lowest` is the one that has the pins.
fn doubt(metadata: &Metadata, lowest: bool) -> Option<String> {
    const WRITABLE: u32 = 0o022;
    let (mode, owner) = (metadata.mode(), metadata.uid());
    // There, others may make what they like, and can't remove or rename what is not theirs.
    let sticky = mode & libc::S_ISVTX != 0;
    if !metadata.is_dir() {
        Some("is no directory".to_owned())
    } else if owner != 0 && owner != geteuid().as_raw() {
        Some(format!("belongs to the user {owner}"))
    } else if mode & WRITABLE != 0 && (lowest || !sticky) {
        Some(format!("may be changed by others (mode {:04o})", mode & 0o7777))
    } else {
        None
    }
}

/// Gives a file to a group, with this mode: the file itself, and not what a symbolic link in its place leads to.
pub(super) fn give(path: &Path, group: u32, mode: u32) -> io::Result<()> {
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_symlink() {
        return Err(io::Error::from_raw_os_error(libc::ELOOP));
    }
    fchownat(&file, "", None, Some(Gid::from_raw(group)), AtFlags::AT_EMPTY_PATH)?;
    // fchmod does not take a descriptor of this kind; pins can't be opened as another.
    fs::set_permissions(format!("/proc/self/fd/{}", file.as_raw_fd()), Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn directories_that_others_may_change_are_not_trusted() {
        let above = tempfile::tempdir().expect("a directory");
        let pins = above.path().join("eth1");
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, Permissions::from_mode(mode)).expect("sets it");
        };
        let doubted = || match check(&pins) {
            Ok(()) => None,
            Err(ProgramError::Untrusted { path, .. }) => Some(path),
            Err(error) => panic!("{error}"),
        };
        assert_eq!(doubted(), None, "what is not there yet");
        fs::create_dir(&pins).expect("makes it");
        for (above_mode, pins_mode, expected) in [
            (0o755, 0o750, None),
            (0o1777, 0o700, None),
            (0o777, 0o700, Some(above.path())),
            (0o775, 0o700, Some(above.path())),
            (0o755, 0o770, Some(&*pins)),
            (0o755, 0o1777, Some(&*pins)),
        ] {
            mode(above.path(), above_mode);
            mode(&pins, pins_mode);
            assert_eq!(doubted().as_deref(), expected, "{above_mode:o} {pins_mode:o}");
        }
        mode(above.path(), 0o700);
        fs::remove_dir(&pins).expect("removes it");
        symlink("/", &pins).expect("makes it");
        assert_eq!(doubted().as_deref(), Some(&*pins), "it leads elsewhere");
    }

    #[test]
    fn what_a_link_leads_to_is_not_given_away() {
        let directory = tempfile::tempdir().expect("a directory");
        let (file, link) = (directory.path().join("file"), directory.path().join("link"));
        fs::write(&file, "").expect("writes");
        fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("sets it");
        symlink(&file, &link).expect("makes it");
        let metadata = || fs::metadata(&file).expect("there");
        let group = metadata().gid();
        assert_eq!(give(&link, group, 0o666).expect_err("a link").raw_os_error(), Some(libc::ELOOP));
        assert_eq!(metadata().mode() & 0o777, 0o600);
        give(&file, group, 0o660).expect("gives");
        assert_eq!(metadata().mode() & 0o777, 0o660);
    }
}
