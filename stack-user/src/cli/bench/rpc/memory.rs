//! How much memory is in use, as the kernel tells it.

use std::{fs, io};

/// What this process has in memory, in bytes: pages that it has touched and that are its own.
pub(super) fn of_this_process() -> io::Result<u64> {
    parse_status(&fs::read_to_string("/proc/self/status")?).ok_or_else(|| unreadable("/proc/self/status"))
}

/// What the kernel has for small things of its own, sockets among them, in bytes: of all of this machine.
pub(super) fn of_the_kernel() -> io::Result<u64> {
    parse_line(&fs::read_to_string("/proc/meminfo")?, "Slab").ok_or_else(|| unreadable("/proc/meminfo"))
}

fn unreadable(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{path} does not say"))
}

/// Memory of files is left out: it is the program's text, and comes and goes by itself.
fn parse_status(text: &str) -> Option<u64> {
    parse_line(text, "RssAnon")
}

/// The value behind `name:`, in kibibytes there.
fn parse_line(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kibibytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_that_name_counts() {
        let text = "Name:\txstack\nVmRSS:\t  9000 kB\nRssAnon:\t    1234 kB\nRssFile:\t 5 kB\n";
        assert_eq!(parse_status(text), Some(1_234 * 1_024));
        assert_eq!(parse_line("SlabX: 1 kB\nSlab:  7 kB\n", "Slab"), Some(7 * 1_024));
        for none in ["", "RssAnon: much kB", "RssAnon: 5", "RssAnon: 99999999999999999999 kB"] {
            assert_eq!(parse_status(none), None, "{none}");
        }
    }

    #[test]
    fn memory_that_is_touched_is_seen() {
        let before = of_this_process().expect("proc");
        let touched = vec![1_u8; 64 << 20];
        let after = of_this_process().expect("proc");
        assert!(std::hint::black_box(&touched).len() == 64 << 20);
        assert!(after - before >= 60 << 20, "{before} {after}");
        assert!(of_the_kernel().expect("proc") > 0);
    }
}
