//! The XDP program on real interfaces: attached, told what is ours, and gone afterwards.

mod namespace;
mod xdp_loader;

use std::{
    io::{self, BufRead as _, BufReader, Write},
    net::{IpAddr, UdpSocket},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use caps::{CapSet, Capability};
use namespace::{HERE, PEER, has_program, run, test_in_namespace};
use stack_user::{
    device::{
        Device as _,
        xdp::{
            Mode, Options,
            program::{Program, ProgramError},
        },
    },
    frame::FramePool as _,
};

const OURS: &str = "192.0.2.10";
const ANOTHERS: &str = "192.0.2.11";

fn ours() -> IpAddr {
    OURS.parse().expect("an address")
}

fn count(program: &Program, name: &str) -> u64 {
    let counters = program.counters().expect("counters");
    counters.iter().find(|(counter, _)| *counter == name).unwrap_or_else(|| panic!("no counter {name}")).1
}

/// Lets the kernel send one datagram over the peer to each address. Nobody there answers ARP, so it is told.
fn send_to(addresses: &[&str]) {
    run("ip", &["address", "replace", "192.0.2.1/24", "dev", PEER]);
    let socket = UdpSocket::bind("192.0.2.1:0").expect("a socket");
    for address in addresses {
        let neighbour = ["neigh", "replace", address, "lladdr", "02:00:00:00:00:01", "dev", PEER];
        run("ip", &neighbour);
        socket.send_to(b"hello", (*address, 9)).expect("sending");
    }
}

fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_true() {
        assert!(start.elapsed() < Duration::from_secs(5), "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_program_is_there_until_it_is_dropped() {
    test_in_namespace("a_program_is_there_until_it_is_dropped", || {
        for (mode, generic) in
            [(Mode::Auto, false), (Mode::Native, false), (Mode::NativeCopy, false), (Mode::Generic, true)]
        {
            let program = Program::attach(HERE, mode, None).expect("attaching");
            assert!(has_program(HERE));
            assert_eq!(program.is_generic(), generic);
            assert_eq!(program.fallback(), None);
            assert!(program.describe().contains(if generic { "generic" } else { "native" }));
            drop(program);
            assert!(!has_program(HERE));
        }
    });
}

/// The loopback's driver knows no XDP.
#[test]
fn a_driver_that_can_not_is_passed_over() {
    test_in_namespace("a_driver_that_can_not_is_passed_over", || {
        let program = Program::attach("lo", Mode::Auto, None).expect("attaching");
        assert!(program.is_generic());
        assert!(program.fallback().is_some_and(|reason| reason.contains("lo")), "{:?}", program.fallback());
        drop(program);
        let error = Program::attach("lo", Mode::Native, None).expect_err("no native mode");
        assert!(matches!(error, ProgramError::Refused { .. }), "{error}");
        assert!(error.to_string().contains("--mode generic"), "{error}");
    });
}

#[test]
fn another_program_is_named() {
    test_in_namespace("another_program_is_named", || {
        for mode in [Mode::Native, Mode::Generic] {
            let _first = Program::attach(HERE, mode, None).expect("attaching");
            for mode in [Mode::Auto, Mode::Native, Mode::Generic] {
                let error = Program::attach(HERE, mode, None).expect_err("there is one already");
                assert!(matches!(error, ProgramError::Occupied { .. }), "{error}");
                assert!(error.to_string().contains("`xstack` (id "), "{error}");
            }
        }
    });
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    let error = Program::attach("xs-nowhere", Mode::Auto, None).expect_err("no such interface");
    assert!(
        matches!(error, ProgramError::NoInterface { .. }) && error.to_string().contains("xs-nowhere"),
        "{error}"
    );
}

#[test]
fn frames_to_a_claimed_address_reach_the_socket() {
    test_in_namespace("frames_to_a_claimed_address_reach_the_socket", || {
        let mut program = Program::attach(HERE, Mode::Auto, None).expect("attaching");
        let (mut device, mut umem, _) =
            stack_user::device::xdp::open(HERE, &[0], &Options::default()).expect("opening a socket");

        send_to(&[OURS]);
        wait_until("an unclaimed address is the kernel's", || count(&program, "pass-address") == 1);

        program.claim(ours(), 0, &[]).expect("claiming");
        send_to(&[OURS]);
        wait_until("a frame without a socket is counted", || count(&program, "no-socket") == 1);

        for (queue, socket) in device.sockets() {
            program.bind_socket(queue, socket).expect("binding");
        }
        send_to(&[OURS, ANOTHERS]);
        let mut frames = Vec::new();
        wait_until("the socket has the frame", || {
            device.rx_burst(stack_user::time::Instant::default(), &mut umem, &mut frames);
            !frames.is_empty() && count(&program, "pass-address") == 2
        });
        assert_eq!(frames.len(), 1);
        assert_eq!(count(&program, "redirect-udp"), 2);
        assert_eq!(count(&program, "no-socket"), 1);
        for frame in frames {
            assert!(umem.rx_bytes(&frame).ends_with(b"hello"));
            umem.release(frame.into_free());
        }

        program.unclaim(ours(), 0).expect("giving it back");
        send_to(&[OURS]);
        wait_until("the address is the kernel's again", || count(&program, "pass-address") == 3);

        program.claim(ours(), 0, &[(1, 8), (10, 20)]).expect("claiming ports");
        send_to(&[OURS]);
        wait_until("port 9 is the kernel's", || count(&program, "pass-port") == 1);
        assert!(matches!(program.claim(ours(), 0, &[(2, 1)]), Err(ProgramError::Ports)));
    });
}

/// Tells this test that it is the process to be killed.
const VICTIM: &str = "XSTACK_TEST_VICTIM";

fn attach_and_wait() {
    let _program = Program::attach(HERE, Mode::Auto, None).expect("attaching");
    println!("attached");
    thread::sleep(Duration::from_secs(60));
}

/// The kernel takes the program away when the process dies, however it dies.
#[test]
fn a_killed_process_leaves_nothing() {
    if std::env::var_os(VICTIM).is_some() {
        return attach_and_wait();
    }
    test_in_namespace("a_killed_process_leaves_nothing", || {
        let mut child = Command::new("/proc/self/exe")
            .args(["--exact", "a_killed_process_leaves_nothing", "--nocapture"])
            .env(VICTIM, "yes")
            .stdout(Stdio::piped())
            .spawn()
            .expect("another process");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        assert!(output.lines().map_while(Result::ok).any(|line| line.contains("attached")));
        assert!(has_program(HERE));
        child.kill().expect("killing it");
        child.wait().expect("its end");
        wait_until("the program is gone", || !has_program(HERE));
        Program::attach(HERE, Mode::Auto, None).expect("attaching again");
    });
}

/// CAP_BPF and CAP_NET_ADMIN are enough: the program gives the verifier nothing that would take CAP_PERFMON.
#[test]
fn two_capabilities_are_enough_and_are_named() {
    test_in_namespace("two_capabilities_are_enough_and_are_named", || {
        let only = |capabilities: &[Capability]| {
            caps::set(None, CapSet::Effective, &capabilities.iter().copied().collect())
                .expect("fewer capabilities");
        };
        only(&[Capability::CAP_BPF, Capability::CAP_NET_ADMIN]);
        let mut program = Program::attach(HERE, Mode::Auto, None).expect("attaching");
        program.claim(ours(), 0, &[]).expect("claiming");
        let error = Program::attach(HERE, Mode::Auto, None).expect_err("there is one already");
        assert!(matches!(error, ProgramError::Conflict { .. }), "{error}");
        drop(program);

        for (given, missing) in [
            (vec![Capability::CAP_BPF], "CAP_NET_ADMIN"),
            (vec![Capability::CAP_NET_ADMIN], "CAP_BPF"),
            (vec![], "CAP_BPF and CAP_NET_ADMIN"),
        ] {
            only(&given);
            let error = Program::attach(HERE, Mode::Auto, None).expect_err("not allowed");
            assert!(matches!(error, ProgramError::Privilege { .. }), "{error}");
            assert!(error.to_string().contains(&format!("is missing ({missing}): run it")), "{error}");
        }
    });
}

#[test]
fn decisions_are_logged_when_asked_for() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .try_init()
        .expect("the only log of this process");
    test_in_namespace("decisions_are_logged_when_asked_for", move || {
        let mut program = Program::attach(HERE, Mode::Auto, Some(tracing::Level::DEBUG)).expect("attaching");
        program.claim(ours(), 0, &[]).expect("claiming");
        send_to(&[ANOTHERS, OURS]);
        wait_until("the decision is in the log", || log.text().contains("redirect-udp"));
        assert!(
            !log.text().contains("pass-address"),
            "the kernel's frames are for the level below: {}",
            log.text()
        );
        drop(program);

        let mut program = Program::attach(HERE, Mode::Auto, Some(tracing::Level::TRACE)).expect("attaching");
        program.claim(ours(), 0, &[]).expect("claiming");
        send_to(&[ANOTHERS]);
        wait_until("the kernel's frames are in the log", || log.text().contains("pass-address"));
    });
}

/// A log that can be read.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("the log")).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("the log").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
