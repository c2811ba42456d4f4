//! What is known about kernels by their release alone.

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
}
