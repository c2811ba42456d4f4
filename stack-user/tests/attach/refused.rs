//! What is in the way, told with the command that helps.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use aya::maps::{Array, MapData};
use stack_common::abi;
use stack_user::device::xdp::{
    Mode,
    program::{Held, Program, ProgramError},
};

use super::{
    HERE, PINS, fails, has_program,
    namespace::{run, test_in_namespace},
    succeeds,
};

const OBJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/xstack.bpf.o");

#[test]
fn without_a_bpf_file_system_the_command_that_mounts_it_is_told() {
    test_in_namespace("attach::without_a_bpf_file_system_the_command_that_mounts_it_is_told", || {
        run("umount", &["/sys/fs/bpf"]);
        // Where the machine has one of its own below.
        run("mount", &["-t", "tmpfs", "none", "/sys/fs/bpf"]);
        let error = fails(&["attach", HERE], 45);
        assert!(error.contains("`sudo mount -t bpf -o mode=0700 bpf /sys/fs/bpf`"), "{error}");
        assert!(!has_program(HERE));
        assert_eq!(fs::read_dir("/sys/fs/bpf").unwrap().count(), 0);
    });
}

#[test]
fn interfaces_that_make_no_sense_are_usage_errors() {
    for arguments in [
        &["attach"][..],
        &["detach"],
        &["attach", "../eth1"],
        &["attach", "a/b"],
        &["status", ".."],
        &["--interface", "eth2", "attach", "eth1"],
        &["attach", "lo", "--group", "no-such-group-here"],
    ] {
        let (code, _, error) = super::xstack(arguments);
        assert_eq!(code, 2, "{arguments:?}: {error}");
    }
    let error = fails(&["attach", "xs-nowhere"], 45);
    assert!(error.contains("xs-nowhere"), "{error}");
}

/// The maps of another version mean something else. Whoever meets them is told both versions, and what to do.
#[test]
fn pins_of_another_version_are_refused_with_both_versions_and_the_way_out() {
    test_in_namespace(
        "attach::pins_of_another_version_are_refused_with_both_versions_and_the_way_out",
        || {
            succeeds(&["attach", HERE]);
            let other = abi::ABI_VERSION + 41;
            let pin = Path::new(PINS).join(abi::ABI);
            fs::remove_file(&pin).unwrap();
            Array::<MapData, u32>::create(other, 0).unwrap().pin(&pin).unwrap();
            let way_out = format!("`xstack detach {HERE}`, then `xstack attach {HERE}`");
            for error in [
                fails(&["attach", HERE], 45),
                fails(&["--interface", HERE, "--address", "192.0.2.10/24", "curl", "http://192.0.2.1/"], 45),
                Program::from_pins(PINS.as_ref(), HERE).unwrap_err().to_string(),
            ] {
                let versions = format!("speaks version {other}, and we speak {}", abi::ABI_VERSION);
                assert!(error.contains(&versions) && error.contains(&way_out), "{error}");
            }
            let text = succeeds(&["status"]);
            assert!(text.contains(&format!("maps of version {other}")) && text.contains(&way_out), "{text}");
            succeeds(&["detach", HERE]);
            succeeds(&["attach", HERE]);
            Program::from_pins(PINS.as_ref(), HERE).unwrap();
        },
    );
}

/// What xdp-loader pinned is the operator's.
#[test]
fn what_xdp_loader_pinned_is_used_and_not_taken_off() {
    test_in_namespace("attach::what_xdp_loader_pinned_is_used_and_not_taken_off", || {
        if Command::new("xdp-loader").arg("help").output().is_err() {
            println!("SKIP attach::what_xdp_loader_pinned_is_used_and_not_taken_off: there is no xdp-loader");
            return;
        }
        fs::create_dir_all(PINS).unwrap();
        run("xdp-loader", &["load", "-m", "native", "-p", PINS, HERE, OBJECT]);
        let program = Program::find_or_attach(HERE, Mode::Auto, None).unwrap();
        assert!(program.describe().contains(PINS), "{}", program.describe());
        drop(program);
        for arguments in [["attach", HERE], ["detach", HERE]] {
            let error = fails(&arguments, 45);
            assert!(error.contains("xdp-loader unload"), "{error}");
        }
        assert!(has_program(HERE));
        assert_eq!(super::status()["by"], "other");
        run("xdp-loader", &["unload", HERE, "--all"]);
    });
}

/// A directory without our record is somebody else's, whatever the names in it are, and whether or not their program is on the
/// interface.
#[test]
fn what_others_pinned_is_left_alone_by_attach_and_detach() {
    test_in_namespace("attach::what_others_pinned_is_left_alone_by_attach_and_detach", || {
        for names in [&["program", "link"][..], &[abi::ABI, abi::CLAIMS, abi::XSKS], &["anything"]] {
            let pins = Path::new("/sys/fs/bpf/others");
            fs::create_dir(pins).unwrap();
            for name in names {
                Array::<MapData, u32>::create(1, 0).unwrap().pin(pins.join(name)).unwrap();
            }
            for verb in [&["attach"][..], &["detach"], &["detach", "--force"]] {
                let arguments = [verb, &[HERE, "--pins", "/sys/fs/bpf/others"]].concat();
                let error = fails(&arguments, 45);
                assert!(error.contains("pinned by somebody else, and is left alone"), "{error}");
                assert_eq!(fs::read_dir(pins).unwrap().count(), names.len(), "{arguments:?}");
                assert!(!has_program(HERE));
            }
            fs::remove_dir_all(pins).unwrap();
        }
    });
}

/// A BPF file system that everybody may make directories in lets them make ours.
#[test]
fn pins_that_somebody_else_could_change_are_not_used() {
    test_in_namespace("attach::pins_that_somebody_else_could_change_are_not_used", || {
        succeeds(&["attach", HERE]);
        for (path, change, back) in [
            (PINS, &["chown", "64124"][..], &["chown", "0"][..]),
            ("/sys/fs/bpf/xstack", &["chown", "64124"], &["chown", "0"]),
            (PINS, &["chmod", "0770"], &["chmod", "0700"]),
            ("/sys/fs/bpf/xstack", &["chmod", "0757"], &["chmod", "0755"]),
        ] {
            run(change[0], &[change[1], path]);
            for verb in [&["attach", HERE][..], &["detach", HERE, "--force"]] {
                let error = fails(verb, 45);
                assert!(error.contains(&format!("{path} ")) && error.contains("is not used"), "{error}");
            }
            let joined = Program::find_or_attach(HERE, Mode::Auto, None).map(drop);
            assert!(matches!(joined, Err(ProgramError::Untrusted { .. })), "{joined:?}");
            let error = fails(&["status", HERE], 45);
            assert!(error.contains("is not used"), "{error}");
            assert!(has_program(HERE));
            run(back[0], &[back[1], path]);
        }
        succeeds(&["detach", HERE]);
    });
}

/// Without one of the capabilities that leaving takes, the process that is to do it says so instead of standing by.
#[test]
fn the_guard_says_which_capability_it_lacks() {
    if Command::new("setpriv").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("SKIP attach::the_guard_says_which_capability_it_lacks: there is no setpriv");
        return;
    }
    test_in_namespace("attach::the_guard_says_which_capability_it_lacks", || {
        let mut guard = Command::new("setpriv");
        guard.args([
            "--inh-caps=-perfmon",
            "--bounding-set=-perfmon",
            "--",
            super::XSTACK,
            "--guard-dispatcher",
        ]);
        let (_, output, error) = super::told(&guard.stdin(Stdio::null()).output().unwrap());
        assert_eq!(output, "");
        assert!(error.contains("can't do it: it lacks") && error.contains("CAP_PERFMON"), "{error}");
    });
}

/// The record comes first and goes last, so that what is there with it is ours.
#[test]
fn what_a_killed_attach_left_is_in_nobodys_way() {
    test_in_namespace("attach::what_a_killed_attach_left_is_in_nobodys_way", || {
        for verb in ["attach", "detach"] {
            fs::create_dir_all(PINS).unwrap();
            std::os::unix::fs::symlink("link-1", Path::new(PINS).join("attached")).unwrap();
            Array::<MapData, u32>::create(1, 0).unwrap().pin(Path::new(PINS).join(abi::XSKS)).unwrap();
            succeeds(&[verb, HERE]);
            assert_eq!(has_program(HERE), verb == "attach");
            if verb == "attach" {
                succeeds(&["detach", HERE]);
            }
            assert!(!Path::new(PINS).exists());
        }
    });
}

/// Tells this test that it is the process that has the interface.
const HOLDER: &str = "XSTACK_TEST_HOLDER";

/// Which program is in the way is told with what keeps it there, and so with what takes it off.
#[test]
fn what_is_in_the_way_is_named_with_what_keeps_it_there() {
    let test = "refused::what_is_in_the_way_is_named_with_what_keeps_it_there";
    if std::env::var_os(HOLDER).is_some() {
        let _program = Program::attach(HERE, Mode::Auto, None).unwrap();
        println!("attached");
        return thread::sleep(Duration::from_secs(60));
    }
    test_in_namespace("attach::what_is_in_the_way_is_named_with_what_keeps_it_there", move || {
        let held = || match Program::attach(HERE, Mode::Auto, None).unwrap_err() {
            ProgramError::Occupied { held, .. } | ProgramError::Conflict { held, .. } => held,
            error => panic!("{error}"),
        };
        let mut child = Command::new("/proc/self/exe")
            .args(["--exact", test, "--nocapture"])
            .env(HOLDER, "yes")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        assert!(output.lines().map_while(Result::ok).any(|line| line.contains("attached")));
        assert!(matches!(held(), Held::Process { pid, .. } if pid == child.id()), "{}", held());
        let error = fails(&["attach", HERE], 45);
        assert!(error.contains(&format!("process {} (", child.id())), "{error}");
        child.kill().unwrap();
        child.wait().unwrap();
        super::wait_until("it is gone", || !has_program(HERE));

        succeeds(&["attach", HERE]);
        let Held::Pinned { link } = held() else { panic!("{}", held()) };
        assert!(held().to_string().contains(&format!("`bpftool link detach id {link}`")));
        succeeds(&["detach", HERE]);

        for (word, generic, off) in [("xdpdrv", false, "xdp off"), ("xdpgeneric", true, "xdpgeneric off")] {
            run("ip", &["link", "set", "dev", HERE, word, "object", OBJECT, "section", "xdp.frags"]);
            assert_eq!(held(), Held::Netlink { interface: HERE.to_owned(), generic });
            let error = fails(&["attach", HERE], 45);
            assert!(error.contains(&format!("ip link set dev {HERE} {off}`")), "{error}");
            run("ip", &["link", "set", "dev", HERE, word, "off"]);
        }
    });
}
