//! Bytes, in both directions, over a good wire.

use crate::{
    guest::{Guest, OURS, content, fetch, sized},
    process::assert_same_bytes,
};

#[test]
fn what_the_kernel_sends_arrives_whole() {
    let Some(guest) = Guest::new("download") else { return };
    let server = guest.serve();
    for length in [0, 1, 1460, 100_000, sized(3_000_000, 20_000_000)] {
        let body = guest.run_xstack(&["curl", "--silent", "--show-error", &server.url(length)]).body();
        assert_same_bytes(&body, &content(length), &format!("{length} bytes"));
    }
}

#[test]
fn what_we_send_arrives_whole() {
    let Some(guest) = Guest::new("upload") else { return };
    let directory = tempfile::tempdir().unwrap();
    let lengths = [0, 1, 1460, 100_000, sized(3_000_000, 20_000_000)];
    for length in lengths {
        std::fs::write(directory.path().join(length.to_string()), content(length)).unwrap();
    }
    // Whom root becomes has to read it.
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let serving = guest.start_xstack(&["serve", "--listen", "8080", &directory.path().to_string_lossy()]);
    for length in lengths {
        let body = fetch(&guest, format!("{OURS}:8080").parse().unwrap(), &format!("/{length}"));
        assert_same_bytes(&body, &content(length), &format!("{length} bytes"));
    }
    drop(serving);
    guest.wait_until("the program is gone", || !guest.has_program());
}
