//! However xstack ends, nothing of it stays on the host.

use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::{Host, Running, TestLab, XSTACK};

const FOREVER: &str = "http://example.com/drip/100000/10";

#[test]
fn kill_9_leaves_nothing_and_the_next_start_works() {
    let test = "kill_9_leaves_nothing_and_the_next_start_works";
    let Some(lab) = TestLab::with_servers(test, &[]) else { return };
    let state = lab.host_state();
    for _ in 0..3 {
        let transfer = start_and_receive(&lab);
        assert!(lab.has_program());
        transfer.signal(Signal::SIGKILL);
        drop(transfer);
        wait_for("the program to go", || !lab.has_program());
        assert_eq!(lab.host_state(), state, "the host is not as it was");
        lab.curl(&["http://example.com/"]).expect_code(0);
    }
}

#[test]
fn ctrl_c_and_sigterm_clean_up() {
    let Some(lab) = TestLab::with_servers("ctrl_c_and_sigterm_clean_up", &[]) else { return };
    let state = lab.host_state();
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let mut transfer = start_and_receive(&lab);
        assert!(lab.has_program());
        transfer.signal(signal);
        wait_for("xstack to end", || transfer.has_ended());
        assert_eq!(transfer.finish().status.code(), Some(code));
        assert_eq!(lab.host_state(), state, "the host is not as it was");
    }
}

/// A transfer of which the first bytes have come, and that goes on for minutes.
fn start_and_receive(lab: &TestLab) -> Running {
    let body = tempfile::NamedTempFile::new().unwrap();
    let mut command = lab.on(Host::Host, XSTACK);
    command.args(["curl", "--silent", FOREVER]).stdout(body.reopen().unwrap()).stderr(Stdio::null());
    let transfer = Running::start(&mut command);
    wait_for("the first bytes", || body.as_file().metadata().unwrap().len() > 0);
    transfer
}

fn wait_for(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !happened() {
        assert!(Instant::now() < deadline, "waited 5 s for {what}");
        sleep(Duration::from_millis(10));
    }
}
