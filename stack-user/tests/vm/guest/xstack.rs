//! xstack on the card under test.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Command, Stdio},
};

use nix::sys::signal::Signal;

use super::{Guest, LIMIT, NIC, OURS, Story};
use crate::process::{Outcome, Running, run_for};

/// The built command.
pub(crate) const XSTACK: &str = "/usr/bin/xstack";

impl Guest {
    /// `xstack` at [`OURS`], to be started.
    pub(crate) fn xstack(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(XSTACK);
        command.args(["--interface", NIC, "--address", OURS]).args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    #[track_caller]
    pub(crate) fn run_xstack(&self, arguments: &[&str]) -> Outcome {
        run_for(&mut self.xstack(arguments), LIMIT)
    }

    /// Starts it, and waits until it has claimed its address and answers the peer.
    #[track_caller]
    pub(crate) fn start_xstack(&self, arguments: &[&str]) -> Xstack {
        let log = self.file("xstack.stderr");
        let stderr = File::create(&log).unwrap();
        let mut xstack = Xstack {
            running: Running::start(self.xstack(arguments).stdout(Stdio::null()).stderr(stderr)),
            log,
        };
        self.wait_until("xstack answers", || {
            assert!(!xstack.running.has_ended(), "xstack {arguments:?} ended: {}", xstack.said());
            // A frame lost on a bad wire must not be waited for.
            let mut ping = self.peer("/bin/busybox");
            ping.args(["ping", "-c1", "-W1", OURS]).output().unwrap().status.success()
        });
        xstack
    }
}

/// One that runs, until it is stopped or dropped.
pub(crate) struct Xstack {
    running: Running,
    log: PathBuf,
}

impl Xstack {
    /// What it has said on stderr so far.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.running.id()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.running.has_ended()
    }

    /// Asks it to stop, and fails unless it does so in order. Gives what it told, if it was started with `-v`.
    #[track_caller]
    pub(crate) fn stop(self, guest: &Guest) -> Story {
        let story = self.end(guest);
        assert!(!guest.has_program(), "the XDP program is still there");
        story
    }

    /// The same where others have programs on the card.
    #[track_caller]
    pub(crate) fn end(mut self, guest: &Guest) -> Story {
        self.running.signal(Signal::SIGTERM);
        guest.wait_until("xstack stops", || self.running.has_ended());
        let said = self.said();
        let status = self.running.finish().status;
        assert!(status.success(), "{status}: {said}");
        Story(said)
    }

    /// Ends it at once, in the middle of what it does.
    pub(crate) fn kill(self) {
        self.running.signal(Signal::SIGKILL);
        let _ = self.running.finish();
    }
}
