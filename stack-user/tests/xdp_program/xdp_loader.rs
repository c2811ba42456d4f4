//! The object in other hands: loaded and pinned by xdp-loader, used by us.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use aya::maps::{Array, HashMap, Map, MapData};
use stack_common::abi::{self, Claim, ClaimKey};
use stack_user::{
    device::{
        Device as _,
        xdp::{
            self, Mode, Options,
            program::{Program, ProgramError},
        },
    },
    frame::FramePool as _,
    time::Instant,
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
    xdp_loader(&["load", "-m", "native", "-p", PINS, HERE, OBJECT]);
}

fn claims() -> usize {
    let map = MapData::from_pin(Path::new(PINS).join(abi::CLAIMS)).expect("the pinned map");
    let map = Map::from_map_data(map).expect("its type");
    let map: HashMap<_, [u32; ClaimKey::WORDS], [u32; Claim::WORDS]> = map.try_into().expect("its layout");
    map.keys().count()
}

/// Runs xdp-loader, one at a time: its lock is a file that is there before it says whose it is, and who looks in between
/// gives up.
fn xdp_loader(arguments: &[&str]) {
    static LOCK: Mutex<()> = Mutex::new(());
    let _alone = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    run("xdp-loader", arguments);
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
        xdp_loader(&["unload", HERE, "--all"]);
    });
}

/// Whoever comes after us on a queue may be there before we have let go of the program.
#[test]
fn a_successor_on_a_queue_keeps_its_place() {
    test_with_loader("a_successor_on_a_queue_keeps_its_place", || {
        load();
        let begin = || {
            let mut program = Program::from_pins(Path::new(PINS), HERE).expect("using the pins");
            let (device, umem, _) = xdp::open(HERE, &[0], &Options::default()).expect("opening a socket");
            for (queue, socket) in device.sockets() {
                program.bind_socket(queue, socket).expect("its place is free");
            }
            (program, device, umem)
        };
        let (first, device, umem) = begin();
        drop((device, umem));
        let (mut second, mut device, mut umem) = begin();
        drop(first);
        second.claim(ours(), 0, &[]).expect("claiming");
        send_to(&[OURS]);
        let mut frames = Vec::new();
        wait_until("the successor has the frame", || {
            device.rx_burst(Instant::default(), &mut umem, &mut frames);
            !frames.is_empty()
        });
        assert_eq!(count(&second, "no-socket"), 0);
        frames.into_iter().for_each(|frame| umem.release_rx(frame));
        drop((second, device, umem));
        xdp_loader(&["unload", HERE, "--all"]);
    });
}

/// Somebody else could have put maps of their own there, and would have all of our frames.
#[test]
fn pins_that_others_may_change_are_not_used() {
    test_in_namespace("xdp_loader::pins_that_others_may_change_are_not_used", || {
        std::fs::create_dir_all(PINS).expect("a directory for pins");
        std::fs::set_permissions(PINS, std::fs::Permissions::from_mode(0o777)).expect("its mode");
        let error = Program::from_pins(Path::new(PINS), HERE).expect_err("anybody's");
        assert!(matches!(error, ProgramError::Untrusted { .. }), "{error}");
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
        xdp_loader(&["unload", HERE, "--all"]);
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
        xdp_loader(&["unload", HERE, "--all"]);
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
