//! The systemd unit is one, and as closed as it says.

use std::{fs, process::Command};

const UNIT: &str = include_str!("../../packaging/xstack.service");

/// The most that systemd's own judgement may be: 0 is closed, 10 is open. What it counts are the network and the
/// capabilities that the daemon needs before it gives them up.
const MAX_EXPOSURE: f64 = 2.5;

#[test]
fn systemd_understands_the_unit_and_judges_it_closed() {
    let test = "systemd_understands_the_unit_and_judges_it_closed";
    let directory = tempfile::tempdir().expect("a directory");
    let unit = directory.path().join("xstack.service");
    // The program is not installed where it is tested.
    fs::write(&unit, UNIT.replace("/usr/bin/xstack", "/bin/true")).expect("writes");
    let analyze = |arguments: &[&str]| Command::new("systemd-analyze").args(arguments).arg(&unit).output();
    let verified = match analyze(&["verify", "--man=no", "--recursive-errors=no"]) {
        Ok(verified) => verified,
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "systemd-analyze is not installed: {error}");
            println!("SKIP {test}: systemd-analyze is not installed");
            return;
        }
    };
    let complaints = String::from_utf8_lossy(&verified.stderr);
    // systemd before 253 does not know that type, which docs/daemon.md says.
    let unexpected: Vec<_> =
        complaints.lines().filter(|line| !line.ends_with("ignoring: notify-reload")).collect();
    assert!(unexpected.is_empty(), "{unexpected:#?}");
    let judged = analyze(&["security", "--offline=true", "--no-pager"]).expect("runs");
    let judged = String::from_utf8_lossy(&judged.stdout);
    let verdict = judged.lines().find(|line| line.contains("Overall exposure level")).expect("a verdict");
    let exposure: Option<f64> = verdict.split_whitespace().find_map(|word| word.parse().ok());
    assert!(exposure.expect("a number") <= MAX_EXPOSURE, "{verdict}");
}

#[test]
fn the_unit_says_what_the_daemon_counts_on() {
    for line in [
        "Type=notify-reload",
        "RuntimeDirectory=xstack",
        "StateDirectory=xstack",
        "ProtectSystem=strict",
        "NoNewPrivileges=yes",
        "RestartPreventExitStatus=2 78",
        "ExecStart=/usr/bin/xstack daemon /etc/xstack/xstack.toml",
    ] {
        assert!(UNIT.lines().any(|there| there == line), "{line}");
    }
}
