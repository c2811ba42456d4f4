//! The systemd units are ones, and as closed as they say.

use std::{fs, process::Command};

const UNIT: &str = include_str!("../../packaging/xstack.service");
const ATTACH_UNIT: &str = include_str!("../../packaging/xstack-attach@.service");

/// The most that systemd's own judgement of the daemon may be: 0 is closed, 10 is open. What it counts are the network and
/// the capabilities that the daemon needs before it gives them up.
const MAX_EXPOSURE: f64 = 2.5;

/// The same of attaching, which is root with CAP_SYS_ADMIN (libxdp's dispatchers take it), for a moment.
const MAX_ATTACH_EXPOSURE: f64 = 4.5;

#[test]
fn systemd_understands_the_unit_and_judges_it_closed() {
    let test = "systemd_understands_the_unit_and_judges_it_closed";
    judge(test, UNIT, "xstack.service", MAX_EXPOSURE);
}

#[test]
fn systemd_understands_the_unit_that_attaches_and_judges_it_closed() {
    let test = "systemd_understands_the_unit_that_attaches_and_judges_it_closed";
    judge(test, ATTACH_UNIT, "xstack-attach@eth1.service", MAX_ATTACH_EXPOSURE);
}

fn judge(test: &str, text: &str, name: &str, most: f64) {
    let directory = tempfile::tempdir().expect("a directory");
    let unit = directory.path().join(name);
    // The program is not installed where it is tested.
    fs::write(&unit, text.replace("/usr/bin/xstack", "/bin/true")).expect("writes");
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
    assert!(exposure.expect("a number") <= most, "{verdict}");
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

/// The interface is a device unit's name escaped, and a command's argument as it is.
#[test]
fn the_unit_that_attaches_goes_with_its_interface() {
    for line in [
        "BindsTo=sys-subsystem-net-devices-%i.device",
        "Before=xstack.service",
        "Type=oneshot",
        "RemainAfterExit=yes",
        "ExecStart=/usr/bin/xstack attach %I $XSTACK_ATTACH",
        "ExecStop=/usr/bin/xstack detach %I --force",
    ] {
        assert!(ATTACH_UNIT.lines().any(|there| there == line), "{line}");
    }
}
