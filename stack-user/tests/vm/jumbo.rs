//! A link with an MTU of 9000: frames lie in several chunks, which virtio-net's zero-copy does not know.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::{
    guest::{Guest, NIC, Nic, OURS, PEER_NIC, Story, content, fetch, sized},
    process::assert_same_bytes,
};

/// A guest with that MTU on both sides of its wire; `None`, with a SKIP line, if its driver runs no XDP program then.
fn jumbo_guest(scenario: &'static str) -> Option<Guest> {
    let guest = Guest::new(scenario)?;
    if guest.nic() == Nic::Igb {
        guest.skip("igb runs no XDP program beyond an MTU of 3000");
        return None;
    }
    guest.ip(&format!("link set {NIC} mtu 9000"));
    guest.on_peer(|| guest.ip(&format!("link set {PEER_NIC} mtu 9000")));
    Some(guest)
}

/// Fetches and serves with these options before the command, and tells how the sockets were bound.
fn both_ways(guest: &Guest, options: &[&str]) -> Story {
    let length = sized(1_000_000, 10_000_000);
    let server = guest.serve();
    let url = server.url(length);
    let outcome = guest.run_xstack(&[options, &["curl", "-v", "--silent", "--show-error", &url]].concat());
    let story = Story(outcome.stderr.clone());
    assert_same_bytes(&outcome.body(), &content(length), "what the kernel sends");

    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("body"), content(length)).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let at = directory.path().to_string_lossy().into_owned();
    let serving = guest.start_xstack(&[options, &["serve", "--listen", "8080", &at]].concat());
    let body = guest.on_peer(|| fetch(format!("{OURS}:8080").parse().unwrap(), "/body"));
    assert_same_bytes(&body, &content(length), "what we send");
    drop(serving);
    guest.wait_until("the program is gone", || !guest.has_program());
    story
}

#[test]
fn jumbo_frames_are_copied_in_several_chunks_where_zero_copy_takes_one_only() {
    let Some(guest) = jumbo_guest("jumbo_several") else { return };
    let story = both_ways(&guest, &[]);
    assert!(story.bound().starts_with("copy, multi-buffer, "), "{}", story.bound());
    if guest.has_zero_copy() {
        let told = "driver has zero-copy for frames in one chunk only";
        assert!(story.0.contains(told), "{}", story.0);
    }
    story.assert_frames_conserved();
}

/// virtio-net has no zero-copy for frames in several chunks. 7.3 has none at all at an MTU whose frames need several; 6.18 binds,
/// and then nobody may send what is longer than a chunk, as TCP's peers don't. Kernels in between have not been seen.
#[test]
fn zero_copy_that_a_jumbo_link_can_t_have_is_refused_or_told_with_advice() {
    let Some(guest) = jumbo_guest("jumbo_zero_copy") else { return };
    let server = guest.serve();
    let length = 100_000;
    let arguments = ["--mode", "native-zerocopy", "curl", "--silent", "--show-error", &server.url(length)];
    let outcome = guest.run_xstack(&arguments);
    if guest.has_zero_copy() && guest.kernel() < (7, 0) {
        let outcome = outcome.expect_code(0);
        assert!(outcome.stderr.contains(&format!("ip link set {NIC} mtu 3498")), "{}", outcome.stderr);
        assert_same_bytes(&outcome.stdout, &content(length), "what the kernel sends");
    } else {
        let refused = outcome.expect_code(45);
        assert!(refused.stderr.contains("--mode native"), "{}", refused.stderr);
    }
    guest.wait_until("the program is gone", || !guest.has_program());
}
