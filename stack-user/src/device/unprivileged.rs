//! Threads that set nothing up.

use caps::{CapSet, errors::CapsError};
use nix::unistd::Uid;

/// Has the calling thread drop the capabilities that it inherited. For every thread of ours to begin with: the kernel keeps
/// them for each by itself, and one can't drop those of another.
///
/// As root it does nothing: when root's uid is given up, all threads lose them at once, and one that had dropped
/// CAP_SETUID before could not take part in that. Where dropping fails, whoever gives up the privileges of the process finds
/// them still there.
pub fn thread_begins() {
    if !Uid::effective().is_root() {
        let _ = drop_capabilities();
    }
}

/// Empties the sets of the calling thread.
///
/// # Errors
/// When the kernel refuses, which it does only behind a filter of system calls.
pub fn drop_capabilities() -> Result<(), CapsError> {
    for set in [CapSet::Permitted, CapSet::Inheritable] {
        if !caps::read(None, set)?.is_empty() {
            caps::clear(None, set)?;
        }
    }
    Ok(())
}
