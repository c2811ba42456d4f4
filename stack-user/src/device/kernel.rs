//! What is known about the running kernel: by its release alone, and what memory it has set aside.

use std::fs;

use nix::sys::utsname::uname;

/// The running kernel's release, as `uname -r` prints it; empty if it doesn't say.
pub fn release() -> String {
    uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default()
}

/// Whether a kernel panics when a frame that was sent in copy mode comes out of the other end of a veth pair.
///
/// From 6.16.8 and 6.17 on (commit 30f241fcf52a) what a sent frame is accounted by was kept where whoever receives it
/// writes as well; 6.17.11 and 6.18 (commit 0ebc27a4c67d) keep it elsewhere. 6.16 ended without that. A distribution's
/// kernel may be mended in spite of its number.
pub fn panics_on_copied_frames(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse().ok());
    let (major, minor) = (numbers.next(), numbers.next());
    let patch: u32 = numbers.next().unwrap_or(0);
    match (major, minor) {
        (Some(6u32), Some(16)) => patch >= 8,
        (Some(6), Some(17)) => patch < 11,
        _ => false,
    }
}

/// The huge pages of the default size that a system has set aside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HugePages {
    /// How many there are.
    pub total: u64,
    /// Of these, how many nobody has, nor has been promised.
    pub free: u64,
    /// Bytes of each; 0 if the kernel has none.
    pub bytes: u64,
}

impl HugePages {
    /// As `/proc/meminfo` has them.
    pub fn of_this_system() -> Self {
        Self::parse(&fs::read_to_string("/proc/meminfo").unwrap_or_default())
    }

    fn parse(meminfo: &str) -> Self {
        let field = |name| -> u64 {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        Self {
            total: field("HugePages_Total"),
            free: field("HugePages_Free").saturating_sub(field("HugePages_Rsvd")),
            bytes: field("Hugepagesize").saturating_mul(1024),
        }
    }

    /// Whether so many bytes fit in those that are free, and fill them to the end: one can't give back a part.
    pub fn can_hold(&self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        self.bytes > 0 && bytes.is_multiple_of(self.bytes) && bytes / self.bytes <= self.free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_that_panic_are_known_by_their_release() {
        for release in ["6.16.8", "6.16.12+deb13-cloud-amd64", "6.17.0-8-generic", "6.17", "6.17.10-arch1-1"]
        {
            assert!(panics_on_copied_frames(release), "{release}");
        }
        for release in
            ["6.12.117+deb13", "6.16.7", "6.17.11-300.fc43", "6.18.0", "7.3.4+deb13-amd64", "next", ""]
        {
            assert!(!panics_on_copied_frames(release), "{release}");
        }
    }

    #[test]
    fn the_running_kernel_has_a_release() {
        assert!(release().starts_with(|c: char| c.is_ascii_digit()));
    }

    #[test]
    fn huge_pages_are_free_if_nobody_has_nor_was_promised_them() {
        const MIB: usize = 1 << 20;
        let meminfo = "MemTotal: 1 kB\nHugePages_Total:      20\nHugePages_Free:       18\nHugePages_Rsvd:        2\n\
                       Hugepagesize:       2048 kB\n";
        let pages = HugePages::parse(meminfo);
        assert_eq!(pages, HugePages { total: 20, free: 16, bytes: 2 << 20 });
        assert!(pages.can_hold(16 * MIB) && pages.can_hold(32 * MIB));
        assert!(!pages.can_hold(34 * MIB) && !pages.can_hold(MIB), "none is broken");
        assert_eq!(HugePages::parse("HugePages_Freed: 7\n"), HugePages::default());
        assert!(!HugePages::parse("").can_hold(0));
    }
}
