//! Starting a stack where something is in the way: nothing is claimed, and the way out is told to the letter.

use std::{
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use stack_user::{
    api::{Stack, StartError},
    device::{
        Device, interface,
        xdp::{self, Mode, Options, program::ProgramError},
    },
    time::Instant,
};

use crate::{
    End,
    lab::{self, Lab},
};

/// Starts a stack at the first end, as a command would.
fn start(mode: Mode, queue: Option<u32>) -> Result<Stack, StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let address = "192.0.2.7/24".parse().expect("an address");
    let builder = Stack::builder().interface(Some(lab::ONE.to_owned())).address(address);
    runtime.block_on(builder.mode(mode).queue(queue).start())
}

#[test]
fn nothing_is_claimed_while_one_of_several_queues_is_not_ours() {
    let Some(lab) = Lab::new("unbound", 2) else { return };
    lab.inside(|| {
        let mut listener = End::open(lab::OTHER, &[0, 1], &Options::default());
        let _taken = xdp::open(lab::ONE, &[1], &Options::default()).expect("the second queue");
        let error = start(Mode::Auto, None).expect_err("a queue is taken");
        let told = error.to_string();
        assert!(matches!(error, StartError::Unbound { queue: 1, .. }), "{told}");
        assert!(told.contains(&format!("`sudo ethtool -L {} combined 1`", lab::ONE)), "{told}");
        listener.device.rx_burst(Instant::ZERO, &mut listener.umem, &mut listener.received);
        assert!(listener.received.is_empty(), "an address was asked for");
        listener.received.drain(..).for_each(drop);
        assert!(!lab::has_program(lab::ONE));
    });
}

/// Nobody would hear what asks for the address, so that everybody's would do (RFC 5227 §2.1).
#[test]
fn nothing_is_claimed_before_the_carrier_is_there() {
    let Some(lab) = Lab::new("carrier", 1) else { return };
    lab.inside(|| {
        lab::ip(&["link", "set", lab::OTHER, "down"]);
        let has_carrier = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Much longer than an address is asked for.
                std::thread::sleep(Duration::from_millis(1_500));
                has_carrier.store(true, Ordering::SeqCst);
                lab::ip(&["link", "set", lab::OTHER, "up"]);
            });
            let stack = start(Mode::Auto, None).expect("it starts with its carrier");
            assert!(has_carrier.load(Ordering::SeqCst), "it did not wait");
            drop(stack);
        });
    });
}

#[test]
fn queues_that_come_later_are_counted_and_bound() {
    let Some(lab) = Lab::new("later", 2) else { return };
    lab.inside(|| {
        let found = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(interface::find(Some(lab::ONE))).expect("it is up")
        };
        ethtool(&["-L", lab::OTHER, "tx", "1"]);
        ethtool(&["-L", lab::ONE, "rx", "1"]);
        let before = found();
        assert_eq!((before.rx_queues, before.queues(None)), (1, vec![0]));
        ethtool(&["-L", lab::ONE, "rx", "2"]);
        assert_eq!(before.queues(None), [0, 1], "asked again");
        assert_eq!(before.rx_table(), None, "veth has none");
    });
}

/// The number alone would be "Numerical result out of range", which nobody understands.
#[test]
fn a_drivers_refusal_is_told_in_its_own_words() {
    let Some(lab) = Lab::new("refusal", 2) else { return };
    lab.inside(|| {
        // A veth runs no program with fewer queues than its peer sends on.
        ethtool(&["-L", lab::ONE, "rx", "1"]);
        let error = start(Mode::Native, None).expect_err("it is refused");
        assert!(matches!(error, StartError::Program(ProgramError::Refused { .. })), "{error}");
        let told = error.to_string();
        assert!(told.contains("XDP expects number of rx queues not less than peer tx queues"), "{told}");
        assert!(told.contains("--mode generic") && !told.contains("mtu"), "{told}");
        lab::ip(&["link", "set", lab::ONE, "mtu", "9000"]);
        let told = start(Mode::Native, None).expect_err("it is refused").to_string();
        assert!(told.contains(&format!("`sudo ip link set {} mtu 3520`", lab::ONE)), "{told}");
        assert!(!lab::has_program(lab::ONE), "asking again attached it");
        let stack = start(Mode::Auto, None).expect("the generic path");
        assert!(lab::ip(&["link", "show", lab::ONE]).contains("xdpgeneric"));
        drop(stack);
    });
}

fn ethtool(arguments: &[&str]) {
    let output = Command::new("ethtool").args(arguments).output().expect("running ethtool");
    assert!(output.status.success(), "ethtool {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
