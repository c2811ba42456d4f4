//! Those who use an attached program.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use super::{
    ANOTHER, HERE, OURS, PINS, Serving, XSTACK, answers, fails, has_program, namespace::run, program, status,
    succeeds, test_with_peer, told, wait_until,
};

#[test]
fn programs_join_by_themselves_and_leave_without_reattaching() {
    test_with_peer("programs_join_by_themselves_and_leave_without_reattaching", || {
        succeeds(&["attach", HERE]);
        let id = program();
        for _ in 0..2 {
            let mut serving = Serving::start(OURS);
            assert_eq!(program(), id);
            let status = status();
            assert_eq!(
                (&status["users"][0]["pid"], &status["users"][0]["name"]),
                (&serving.pid().into(), &"xstack".into())
            );
            assert_eq!(status["claims"].as_array().unwrap().len(), 1);
            assert_eq!(
                (&status["claims"][0]["address"], &status["claims"][0]["owner"]["pid"]),
                (&OURS.into(), &serving.pid().into())
            );
            let counted = status["counters"].as_array().unwrap().iter();
            let counted: u64 = counted
                .filter(|one| one["name"] == "redirect-tcp")
                .map(|one| one["count"].as_u64().unwrap())
                .sum();
            assert!(counted > 3, "{counted}");
            serving.stop();
            assert_eq!(program(), id);
            assert_eq!(super::status()["claims"].as_array().unwrap().len(), 0, "it has taken its claim back");
            assert!(!answers(OURS));
        }
    });
}

/// The kernel closes the sockets of who is killed. Nobody takes its claims back but those who come after it.
#[test]
fn claims_of_the_killed_are_told_and_taken_back() {
    test_with_peer("claims_of_the_killed_are_told_and_taken_back", || {
        succeeds(&["attach", HERE]);
        let id = program();
        Serving::start(OURS).kill();
        assert_eq!(program(), id);
        let told = status();
        assert_eq!(told["users"].as_array().unwrap().len(), 0, "{told}");
        assert_eq!(
            (&told["claims"][0]["address"], &told["claims"][0]["taken_back"]),
            (&OURS.into(), &true.into())
        );
        assert_eq!(status()["claims"].as_array().unwrap().len(), 0, "once is enough");

        // The next one to join does it, too, also for another address.
        Serving::start(OURS).kill();
        let serving = Serving::start(ANOTHER);
        let told = status();
        assert_eq!(told["claims"].as_array().unwrap().len(), 1, "{told}");
        assert_eq!(
            (&told["claims"][0]["address"], &told["claims"][0]["taken_back"]),
            (&ANOTHER.into(), &false.into())
        );
        // And status leaves alone what is in use.
        assert_eq!(told["claims"][0]["owner"]["pid"], serving.pid());
        assert!(answers(ANOTHER));
    });
}

#[test]
fn what_is_used_is_not_detached_unless_by_force() {
    test_with_peer("what_is_used_is_not_detached_unless_by_force", || {
        succeeds(&["attach", HERE]);
        let serving = Serving::start(OURS);
        let error = fails(&["detach", HERE], 103);
        assert!(
            error.contains(&format!("process {} (xstack)", serving.pid())) && error.contains("--force"),
            "{error}"
        );
        assert!(has_program(HERE) && answers(OURS));
        let output = succeeds(&["detach", HERE, "--force"]);
        assert!(output.contains("is detached"), "{output}");
        assert!(!has_program(HERE) && !answers(OURS));
        drop(serving);
        // Who was left without does no harm to what comes after it.
        succeeds(&["attach", HERE]);
        drop(Serving::start(OURS));
        succeeds(&["detach", HERE]);
    });
}

/// A card does not hear itself, so that no ARP probe finds who has an address on the same one.
#[test]
fn an_address_that_another_program_of_this_host_has_is_refused() {
    test_with_peer("an_address_that_another_program_of_this_host_has_is_refused", || {
        succeeds(&["attach", HERE]);
        let serving = Serving::start(OURS);
        let mut other = stack_user::device::xdp::program::Program::from_pins(PINS.as_ref(), HERE).unwrap();
        let error = other.claim(OURS.parse().unwrap(), 0, &[]).unwrap_err().to_string();
        assert!(error.contains(OURS) && error.contains(&format!("pid {}, xstack", serving.pid())), "{error}");
        other.claim(ANOTHER.parse().unwrap(), 0, &[]).unwrap();
        assert_eq!(status()["users"].as_array().unwrap().len(), 2);
        drop(other);
        assert_eq!(status()["claims"].as_array().unwrap().len(), 1);
        assert!(answers(OURS));
    });
}

/// A group that nobody is in, and a user that nobody is.
const GROUP: &str = "64123";
const USER: &str = "64124";

/// The command as an ordinary user with these capabilities and in this group.
fn ordinary(program: &str, group: &str, capabilities: &str) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", USER, "--regid", USER, "--groups", group])
        .args([format!("--inh-caps={capabilities}"), format!("--ambient-caps={capabilities}")])
        .args([&format!("--bounding-set={capabilities}"), "--", program]);
    command
}

/// The umask of a service holds in a BPF file system, too.
#[test]
fn a_group_gets_to_the_pins_whatever_the_umask_was() {
    super::test_in_namespace("attach::a_group_gets_to_the_pins_whatever_the_umask_was", || {
        fs::set_permissions("/sys/fs/bpf", fs::Permissions::from_mode(0o711)).unwrap();
        let elsewhere = "/sys/fs/bpf/far/away/eth1";
        for pins in [PINS, elsewhere] {
            let attach = format!("umask 077; {XSTACK} attach {HERE} --group {GROUP} --pins {pins}");
            run("sh", &["-c", &attach]);
            let reads = |group| {
                let map = format!("{pins}/XSKS");
                ordinary("test", group, "-all").args(["-r", &map]).status().unwrap().success()
            };
            assert!(reads(GROUP) && !reads("64125"), "{pins}");
            succeeds(&["detach", HERE, "--pins", pins]);
        }
        // One that was made by somebody else is told, and nothing is done.
        fs::set_permissions("/sys/fs/bpf/far", fs::Permissions::from_mode(0o700)).unwrap();
        let error = fails(&["attach", HERE, "--group", GROUP, "--pins", elsewhere], 45);
        assert!(error.contains("`sudo chmod o+x /sys/fs/bpf/far`"), "{error}");
        assert!(!has_program(HERE) && !Path::new(elsewhere).exists());
    });
}

/// The kernel's own rules: who has a map open may change it (Linux 5.19), who may open a pin is decided by its mode, and only
/// AF_XDP sockets and locked memory take capabilities.
#[test]
fn members_of_the_group_join_without_the_capabilities_that_attaching_takes() {
    test_with_peer("members_of_the_group_join_without_the_capabilities_that_attaching_takes", || {
        if Command::new("setpriv").arg("--version").stdout(Stdio::null()).status().is_err() {
            println!("SKIP attach::members_of_the_group_join: there is no setpriv");
            return;
        }
        // Where an ordinary user gets at it.
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let xstack = directory.path().join("xstack");
        fs::copy(XSTACK, &xstack).unwrap();
        let xstack = xstack.to_str().unwrap();
        fs::set_permissions("/sys/fs/bpf", fs::Permissions::from_mode(0o700)).unwrap();

        let error = fails(&["attach", HERE, "--group", GROUP], 45);
        assert!(error.contains("`sudo chmod o+x /sys/fs/bpf`"), "{error}");
        assert!(!has_program(HERE), "nothing was done");
        fs::set_permissions("/sys/fs/bpf", fs::Permissions::from_mode(0o701)).unwrap();
        succeeds(&["attach", HERE]);
        let id = program();
        let capabilities = "-all,+net_raw,+ipc_lock";
        let serve = |group: &str| {
            let mut command = ordinary(xstack, group, capabilities);
            command.args(["--interface", HERE, "--address", "192.0.2.10/24", "serve", "/etc"]);
            told(&command.output().unwrap())
        };
        // It was attached for root alone, and then for a group that this user is not in.
        for group in [None, Some(GROUP)] {
            if let Some(group) = group {
                succeeds(&["attach", HERE, "--group", group]);
            }
            let (code, _, error) = serve("64125");
            assert_eq!(code, 45, "{error}");
            assert!(error.contains(&format!("xstack attach {HERE} --group NAME")), "{error}");
        }
        let mut serving = Serving::start_by(ordinary(xstack, GROUP, capabilities), OURS);
        let pid = status()["users"][0]["pid"].as_u64().unwrap();
        let uid = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(uid.lines().any(|line| line.starts_with(&format!("Uid:\t{USER}"))), "{uid}");
        serving.stop();
        assert_eq!(
            status()["claims"].as_array().unwrap().len(),
            0,
            "without any capability, it takes its claim back"
        );
        // What it could not do is what takes the others' program away.
        let (code, _, error) =
            told(&ordinary(xstack, GROUP, capabilities).args(["detach", HERE, "--force"]).output().unwrap());
        assert_eq!(code, 45, "{error}");
        for what in ["link", "program"] {
            let open = format!("exec 3<{PINS}/{what}");
            assert!(!ordinary("sh", GROUP, capabilities).args(["-c", &open]).status().unwrap().success());
        }
        let removed = ordinary("rm", GROUP, capabilities).arg(format!("{PINS}/XSKS")).status().unwrap();
        assert!(!removed.success());
        assert_eq!(program(), id);
        run("sh", &["-c", "true"]);
        wait_until("it is there", || has_program(HERE));
    });
}
