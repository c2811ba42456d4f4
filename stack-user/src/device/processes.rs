//! Other processes, as /proc shows those that we may look at.

use std::{fs, path::Path};

/// What the program of a process is called; `?` where that is not told.
pub(super) fn name(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    if name.is_empty() { "?".to_owned() } else { name.trim_end().to_owned() }
}

/// Calls for every descriptor of every process that we may look at: its process, its directory entry, what it is of.
pub(super) fn for_each_descriptor(mut call: impl FnMut(u32, &Path, &str)) {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbered =
        processes.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())));
    for (pid, process) in numbered {
        for descriptor in fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
            if let Ok(target) = fs::read_link(descriptor.path())
                && let Some(target) = target.to_str()
            {
                call(pid, &descriptor.path(), target);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_find_ourselves() {
        let (_keep, _other) = std::os::unix::net::UnixStream::pair().expect("sockets");
        let mut found = false;
        for_each_descriptor(|pid, path, target| {
            found |= pid == std::process::id() && target.starts_with("socket:[") && path.starts_with("/proc");
        });
        assert!(found);
        assert_ne!(name(std::process::id()), "?");
        assert_eq!(name(u32::MAX), "?");
    }
}
