//! Bytes, in both directions, over a good wire.

use crate::{
    guest::{Guest, OURS, Story, content, fetch, sized},
    process::assert_same_bytes,
};

/// From nothing to more than all rings hold.
fn lengths() -> [usize; 5] {
    [0, 1, 1460, 100_000, sized(2_000_000, 20_000_000)]
}

#[test]
fn what_the_kernel_sends_arrives_whole() {
    let Some(guest) = Guest::new("download") else { return };
    let server = guest.serve();
    let urls = lengths().map(|length| server.url(length));
    let mut arguments = vec!["curl", "-v", "--silent", "--show-error"];
    arguments.extend(urls.iter().map(String::as_str));
    let outcome = guest.run_xstack(&arguments).expect_code(0);
    assert_same_bytes(&outcome.stdout, &lengths().map(content).concat(), "all of them, one after the other");
    Story(outcome.stderr).assert_frames_conserved();
}

#[test]
fn what_we_send_arrives_whole() {
    let Some(guest) = Guest::new("upload") else { return };
    let directory = tempfile::tempdir().unwrap();
    for length in lengths() {
        std::fs::write(directory.path().join(length.to_string()), content(length)).unwrap();
    }
    // Whom root becomes has to read it.
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let serving = guest.start_xstack(&["serve", "-v", &directory.path().to_string_lossy()]);
    for length in lengths() {
        let body = guest.on_peer(|| fetch(format!("{OURS}:80").parse().unwrap(), &format!("/{length}")));
        assert_same_bytes(&body, &content(length), &format!("{length} bytes"));
    }
    serving.stop(&guest).assert_frames_conserved();
}
