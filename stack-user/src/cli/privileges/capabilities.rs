//! The capability sets, which the kernel keeps for every thread by itself.

use std::{
    fs, io, thread,
    time::{Duration, Instant},
};

use caps::{CapSet, Capability, errors::CapsError};

/// How long a thread that was just made may take to [drop](crate::device::unprivileged::thread_begins) what it inherited.
///
/// Lower, and a busy machine makes a start fail now and then; higher, and a thread that never does is told later.
const THREAD_BEGINS_WITHIN: Duration = Duration::from_secs(1);

/// Empties the sets that only matter when another program is run: ambient, inheritable, and bounding where we may.
pub(super) fn renounce_inheritance() -> Result<(), CapsError> {
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    // Set by whoever started us, it would have the sets survive the change of uid.
    if caps::securebits::has_keepcaps()? {
        caps::securebits::set_keepcaps(false)?;
    }
    // With capabilities of the file there is no CAP_SETPCAP, and no program that we could run would get more.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        caps::clear(None, CapSet::Bounding)?;
    }
    Ok(())
}

/// Reads back, thread by thread, that no capability and no uid 0 is left.
pub(super) fn verify() -> io::Result<()> {
    let give_up = Instant::now() + THREAD_BEGINS_WITHIN;
    loop {
        match find_left_over()? {
            None => return Ok(()),
            Some(left) if Instant::now() >= give_up => {
                return Err(io::Error::other(format!("a thread has kept some: {left}")));
            }
            Some(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// The first thread that still has privileges, and which.
fn find_left_over() -> io::Result<Option<String>> {
    for thread in fs::read_dir("/proc/self/task")? {
        let status = match fs::read_to_string(thread?.path().join("status")) {
            Ok(status) => status,
            Err(error) if has_ended(&error) => continue,
            Err(error) => return Err(error),
        };
        if let Some(left) = left_over(&status) {
            let name = status.lines().next().unwrap_or_default();
            return Ok(Some(format!("{name}, {left}")));
        }
    }
    Ok(None)
}

/// Whether the thread has ended since it was listed.
fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// The first line of a thread's status that tells of privileges.
fn left_over(status: &str) -> Option<&str> {
    status.lines().find(|line| match line.split_once(':') {
        Some(("CapInh" | "CapPrm" | "CapEff" | "CapAmb", set)) => {
            set.trim().bytes().any(|digit| digit != b'0')
        }
        Some(("Uid", ids)) => ids.split_whitespace().any(|id| id == "0"),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_found_in_any_set_and_any_uid() {
        let clean = "Name:\txstack\nUid:\t1000\t1000\t1000\t1000\nGid:\t0\t0\t0\t0\nCapInh:\t0000000000000000\n\
                     CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t000001ffffffffff\n\
                     CapAmb:\t0000000000000000\n";
        assert_eq!(left_over(clean), None);
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            let line = format!("{set}:\t0000000000002000");
            let status = clean.replace(&format!("{set}:\t0000000000000000"), &line);
            assert_eq!(left_over(&status), Some(&*line));
        }
        let saved = clean.replace("Uid:\t1000\t1000\t1000\t1000", "Uid:\t1000\t1000\t0\t1000");
        assert_eq!(left_over(&saved), Some("Uid:\t1000\t1000\t0\t1000"));
    }
}
