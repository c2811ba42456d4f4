//! Whether frames lie on huge pages: `--huge-pages`.

use std::{fmt, str::FromStr};

use crate::device::{kernel, remedy::Change};

/// Whether the memory for frames is taken from the huge pages that the system has set aside. They spare the processor's table
/// of addresses, and whoever else they were set aside for goes without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HugePages {
    /// If enough of them are free.
    #[default]
    Auto,
    /// They are left to others.
    Never,
    /// Without them, nothing is opened.
    Always,
}

impl HugePages {
    /// All of them, and what a user calls them.
    pub const NAMES: [(&'static str, Self); 3] =
        [("auto", Self::Auto), ("never", Self::Never), ("always", Self::Always)];

    /// Whether to try, where the system has these and so many bytes are needed.
    pub(super) fn may_hold(self, bytes: usize, pages: kernel::HugePages) -> bool {
        self != Self::Never && pages.can_hold(bytes)
    }
}

impl fmt::Display for HugePages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES.iter().find(|(_, known)| known == self).map_or("", |(name, _)| name);
        f.pad(name)
    }
}

impl FromStr for HugePages {
    type Err = HugePagesError;

    fn from_str(name: &str) -> Result<Self, HugePagesError> {
        let known = Self::NAMES.iter().find(|(known, _)| *known == name);
        known.map(|(_, wish)| *wish).ok_or_else(|| HugePagesError(name.to_owned()))
    }
}

/// A wish that there is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is none of auto, never and always")]
pub struct HugePagesError(String);

/// What would give a UMEM of so many bytes the huge pages that it did not get.
pub(super) fn remedy(bytes: usize, pages: &kernel::HugePages) -> String {
    let bytes = bytes as u64;
    if pages.bytes == 0 {
        return "this kernel has none: it needs CONFIG_HUGETLBFS".to_owned();
    }
    if !bytes.is_multiple_of(pages.bytes) {
        return format!(
            "one of {} MB can't be used in part: boot with default_hugepagesz=2M",
            pages.bytes >> 20
        );
    }
    let missing = (bytes / pages.bytes).saturating_sub(pages.free);
    if missing == 0 {
        return "enough are free, but not for this process: does its cgroup have a limit (hugetlb.*.max)?"
            .to_owned();
    }
    let number = |pages: u64| u32::try_from(pages).unwrap_or(u32::MAX);
    let more = Change::Sysctl {
        name: "vm.nr_hugepages",
        value: number(pages.total + missing),
        was: number(pages.total),
    };
    let (command, undo) = (more.command(), more.undo().unwrap_or_default());
    format!("{} are free, and {missing} more are needed: `{command}` (`{undo}` undoes it)", pages.free)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn a_wish_reads_back_as_it_is_written() {
        for (name, wish) in HugePages::NAMES {
            assert_eq!(name.parse(), Ok(wish));
            assert_eq!(wish.to_string(), name);
        }
        assert!("yes".parse::<HugePages>().is_err_and(|error| error.to_string().contains("always")));
    }

    #[test]
    fn pages_are_taken_unless_they_are_too_few_or_somebody_says_no() {
        let pages = kernel::HugePages { total: 8, free: 8, bytes: 2 * MIB as u64 };
        assert!(HugePages::Auto.may_hold(16 * MIB, pages) && HugePages::Always.may_hold(16 * MIB, pages));
        assert!(!HugePages::Never.may_hold(16 * MIB, pages) && !HugePages::Auto.may_hold(18 * MIB, pages));
    }

    #[test]
    fn what_would_give_pages_is_told_to_the_letter() {
        let pages = |total, free, mib: usize| kernel::HugePages { total, free, bytes: (mib * MIB) as u64 };
        let told = remedy(16 * MIB, &pages(4, 3, 2));
        assert!(told.contains("`sudo sysctl -w vm.nr_hugepages=9`"), "{told}");
        assert!(told.contains("`sudo sysctl -w vm.nr_hugepages=4` undoes it"), "{told}");
        assert!(remedy(16 * MIB, &pages(4, 4, 1024)).contains("default_hugepagesz=2M"));
        assert!(remedy(16 * MIB, &pages(8, 8, 2)).contains("cgroup"));
        assert!(remedy(16 * MIB, &pages(0, 0, 0)).contains("CONFIG_HUGETLBFS"));
    }
}
