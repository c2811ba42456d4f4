//! Bytes through our stack in both directions, of one process that need not be started for each: a forward from the
//! kernel's loopback to the peer, and one from our address to the kernel's loopback.

use super::{Guest, OURS, PEER, Server, Story, Xstack, content, fetch};
use crate::process::assert_same_bytes;

/// A running `xstack forward -v`, with the servers at both ends.
pub(crate) struct Relay {
    xstack: Xstack,
    _on_peer: Server,
    _on_loopback: Server,
}

impl Guest {
    /// Starts it, with these options of xstack's besides.
    #[track_caller]
    pub(crate) fn relay(&self, options: &[&str]) -> Relay {
        let on_peer = self.serve();
        let on_loopback = Server::start("127.0.0.1", 8001);
        let peer = format!("{PEER}:80");
        let forwards = ["forward", "-v", "kernel:127.0.0.1:8000", &peer, "ours:80", "kernel:127.0.0.1:8001"];
        let xstack = self.start_xstack(&[options, &forwards].concat());
        Relay { xstack, _on_peer: on_peer, _on_loopback: on_loopback }
    }
}

impl Relay {
    /// Has so many bytes sent to us by the peer, in a connection that we open.
    #[track_caller]
    pub(crate) fn download(&self, length: usize, when: &str) {
        let body = fetch("127.0.0.1:8000".parse().unwrap(), &format!("/bytes/{length}"));
        assert_same_bytes(&body, &content(length), &format!("{length} bytes to us, {when}"));
    }

    /// Has so many bytes sent by us to the peer, in a connection that it opens.
    #[track_caller]
    pub(crate) fn upload(&self, guest: &Guest, length: usize, when: &str) {
        let ours = format!("{OURS}:80").parse().unwrap();
        let body = guest.on_peer(|| fetch(ours, &format!("/bytes/{length}")));
        assert_same_bytes(&body, &content(length), &format!("{length} bytes to the peer, {when}"));
    }

    /// The process.
    pub(crate) fn xstack(&self) -> &Xstack {
        &self.xstack
    }

    /// Stops it in order. Gives what it told.
    #[track_caller]
    pub(crate) fn stop(self, guest: &Guest) -> Story {
        self.xstack.stop(guest)
    }

    /// Ends it at once.
    pub(crate) fn kill(self) {
        self.xstack.kill();
    }
}
