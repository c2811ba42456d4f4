//! The object in other hands: loaded and pinned by xdp-loader, used by us.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use aya::maps::{Array, HashMap, Map, MapData};
use stack_common::abi::{self, Claim, ClaimKey};
use stack_user::device::xdp::{
    Mode,
    program::{Program, ProgramError},
};

use super::{
    HERE, OURS, count, has_program,
    namespace::{PEER, run, test_in_namespace},
    ours, send_to, wait_until,
};

const PINS: &str = "/sys/fs/bpf/xs-ebpf";
const OBJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/xstack.bpf.o");

fn test_with_loader(name: &str, test: impl FnOnce() + Send + 'static) {
    if Command::new("xdp-loader").arg("help").output().is_err() {
        eprintln!("SKIP xdp_program::xdp_loader::{name}: there is no xdp-loader (package xdp-tools)");
        return;
    }
    test_in_namespace(&format!("xdp_loader::{name}"), test);
}

fn load() {
    std::fs::create_dir_all(PINS).expect("a directory for pins");
    run("xdp-loader", &["load", "-m", "native", "-p", PINS, HERE, OBJECT]);
}

fn claims() -> usize {
    let map = MapData::from_pin(Path::new(PINS).join(abi::CLAIMS)).expect("the pinned map");
    let map = Map::from_map_data(map).expect("its type");
    let map: HashMap<_, [u32; ClaimKey::WORDS], [u32; Claim::WORDS]> = map.try_into().expect("its layout");
    map.keys().count()
}

#[test]
fn a_pinned_program_is_used_and_left_as_it_was() {
    test_with_loader("a_pinned_program_is_used_and_left_as_it_was", || {
        load();
        for _ in 0..2 {
            let mut program = Program::from_pins(Path::new(PINS), HERE).expect("using the pins");
            assert!(!program.is_generic());
            assert!(program.describe().contains(PINS), "{}", program.describe());
            let before = count(&program, "redirect-udp");
            program.claim(ours(), 0, &[]).expect("claiming");
            assert_eq!(claims(), 1);
            send_to(&[OURS]);
            wait_until("the loader's program steers", || count(&program, "redirect-udp") == before + 1);
            drop(program);
            assert_eq!(claims(), 0, "our claim is taken out");
            assert!(has_program(HERE), "the program is not ours to detach");
        }
        let error = Program::attach(HERE, Mode::Auto, None).expect_err("there is one already");
        assert!(error.to_string().contains("pinned:DIR"), "{error}");
        run("xdp-loader", &["unload", HERE, "--all"]);
    });
}

/// Tells this test that it is the process to be killed.
const VICTIM: &str = "XSTACK_TEST_CLAIMANT";

/// After `kill -9` the claim is still there; the next start takes it back, whatever it claims itself.
#[test]
fn a_stale_claim_is_taken_back() {
    let test = "xdp_loader::a_stale_claim_is_taken_back";
    if std::env::var_os(VICTIM).is_some() {
        let mut program = Program::from_pins(Path::new(PINS), HERE).expect("using the pins");
        program.claim(ours(), 0, &[]).expect("claiming");
        println!("claimed");
        return std::thread::sleep(Duration::from_secs(60));
    }
    test_with_loader("a_stale_claim_is_taken_back", move || {
        load();
        let mut child = Command::new("/proc/self/exe")
            .args(["--exact", test, "--nocapture"])
            .env(VICTIM, "yes")
            .stdout(Stdio::piped())
            .spawn()
            .expect("another process");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        assert!(output.lines().map_while(Result::ok).any(|line| line.contains("claimed")));
        // While it lives, its claim is its own, and another's is refused.
        let mut program = Program::from_pins(Path::new(PINS), HERE).expect("using the pins");
        let error = program.claim(ours(), 0, &[]).expect_err("it has it");
        assert!(matches!(error, ProgramError::Claimed { .. }), "{error}");
        assert!(error.to_string().contains(&format!("pid {}", child.id())), "{error}");
        drop(program);
        assert_eq!(claims(), 1);
        child.kill().expect("killing it");
        child.wait().expect("its end");
        assert_eq!(claims(), 1);
        let mut program = Program::from_pins(Path::new(PINS), HERE).expect("using the pins");
        assert_eq!(claims(), 0);
        program.claim(ours(), 0, &[(80, 80)]).expect("claiming again");
        drop(program);
        assert_eq!(claims(), 0);
        run("xdp-loader", &["unload", HERE, "--all"]);
    });
}

/// Pins outlive the program they belong to, and one directory serves one interface.
#[test]
fn pins_without_their_program_are_refused() {
    test_with_loader("pins_without_their_program_are_refused", || {
        let error = Program::from_pins(Path::new(PINS), HERE).expect_err("no pins");
        assert!(matches!(error, ProgramError::Pin { .. }), "{error}");
        assert!(error.to_string().contains(&format!("-p {PINS} {HERE}")), "{error}");
        assert!(error.to_string().contains(&format!("`xstack attach {HERE}`")), "{error}");
        load();
        let error = Program::from_pins(Path::new(PINS), PEER).expect_err("on the other interface");
        assert!(matches!(error, ProgramError::NotAttached { .. }), "{error}");
        run("xdp-loader", &["unload", HERE, "--all"]);
        let error = Program::from_pins(Path::new(PINS), HERE).expect_err("unloaded");
        assert!(matches!(error, ProgramError::NotAttached { .. }), "{error}");
        let _ours = Program::attach(HERE, Mode::Auto, None).expect("attaching");
        let error = Program::from_pins(Path::new(PINS), HERE).expect_err("another program");
        assert!(matches!(error, ProgramError::NotAttached { .. }), "{error}");
    });
}

#[test]
fn another_version_is_refused() {
    test_in_namespace("xdp_loader::another_version_is_refused", || {
        std::fs::create_dir_all(PINS).expect("a directory for pins");
        let other = abi::ABI_VERSION + 41;
        let map = Array::<MapData, u32>::create(other, 0).expect("a map");
        map.pin(Path::new(PINS).join(abi::ABI)).expect("pinning it");
        let error = Program::from_pins(Path::new(PINS), HERE).expect_err("another version");
        assert!(matches!(error, ProgramError::Version { .. }), "{error}");
        let message = error.to_string();
        assert!(
            message.contains(&other.to_string()) && message.contains(&abi::ABI_VERSION.to_string()),
            "{message}"
        );
    });
}
