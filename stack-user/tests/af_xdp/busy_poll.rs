//! Busy polling on a veth: it has NAPIs to set, though no interrupts that they would hold back.

use std::{
    io::{BufRead as _, BufReader},
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
    process::{Command, Stdio},
    time::{Duration, Instant as Clock},
};

use stack_user::{
    device::{
        BURST, Device as _,
        busy_poll::{self, Held},
        interface::netdev::{Napi, NapiSettings, Netdev},
        restore::{Restorer, Setting, Undo},
        xdp::Options,
    },
    time::Instant,
};

use crate::{
    End,
    interface::find,
    lab::{self, Lab},
};

const HELD: (Option<u32>, Option<Duration>) = (Some(2), Some(Duration::from_micros(200)));
const FREE: (Option<u32>, Option<Duration>) = (Some(0), Some(Duration::ZERO));

/// A NAPI of the first interface, which must have a program; none on a kernel that has no settings of single ones.
fn napi(test: &str) -> Option<(Netdev, Napi)> {
    let interface = find(Some(lab::ONE)).expect("it is there").index;
    let found = Netdev::find().expect("an answer").and_then(|netdev| {
        let napi = netdev.napis(interface).expect("an answer")?.first().copied()?;
        napi.defer_hard_irqs.is_some().then_some((netdev, napi))
    });
    if found.is_none() {
        println!("SKIP af_xdp::{test}: this kernel has no settings of single NAPIs (6.13 has)");
    }
    found
}

fn settings(netdev: &Netdev, napi: Napi) -> (Option<u32>, Option<Duration>) {
    let napi = netdev.napi(napi.id).expect("an answer").expect("it is there");
    (napi.defer_hard_irqs, napi.gro_flush_timeout)
}

#[test]
fn interrupts_are_held_back_and_let_in_again() {
    let Some(lab) = Lab::new("held", 1) else { return };
    lab.inside(|| {
        let _end = End::open(lab::ONE, &[0], &Options::default());
        let Some((netdev, napi)) = napi("held") else { return };
        let held = busy_poll::hold_back(&netdev, &[napi]).expect("root may").expect("they were not");
        assert_eq!(settings(&netdev, napi), HELD);
        // Who comes second finds them held, and leaves them to the first.
        let again = netdev.napi(napi.id).expect("an answer").expect("it is there");
        assert!(busy_poll::hold_back(&netdev, &[again]).expect("root may").is_none());
        drop(held);
        assert_eq!(settings(&netdev, napi), FREE);
    });
}

#[test]
fn what_somebody_has_set_stays_as_it_is() {
    let Some(lab) = Lab::new("tuned", 1) else { return };
    lab.inside(|| {
        let _end = End::open(lab::ONE, &[0], &Options::default());
        let Some((netdev, napi)) = napi("tuned") else { return };
        let tuned =
            NapiSettings { gro_flush_timeout: Some(Duration::from_micros(50)), ..NapiSettings::default() };
        netdev.set_napi(napi.id, &tuned).expect("root may");
        let napi = netdev.napi(napi.id).expect("an answer").expect("it is there");
        assert!(busy_poll::hold_back(&netdev, &[napi]).expect("root may").is_none());
        assert_eq!(settings(&netdev, napi), (Some(0), Some(Duration::from_micros(50))));
    });
}

#[test]
fn what_somebody_has_changed_meanwhile_is_not_restored() {
    let Some(lab) = Lab::new("retuned", 1) else { return };
    lab.inside(|| {
        let _end = End::open(lab::ONE, &[0], &Options::default());
        let Some((netdev, napi)) = napi("retuned") else { return };
        let held = busy_poll::hold_back(&netdev, &[napi]).expect("root may").expect("they were not");
        let tuned =
            NapiSettings { gro_flush_timeout: Some(Duration::from_micros(50)), ..NapiSettings::default() };
        netdev.set_napi(napi.id, &tuned).expect("root may");
        drop(held);
        // Of each setting by itself.
        assert_eq!(settings(&netdev, napi), (Some(0), Some(Duration::from_micros(50))));
    });
}

/// Not a test of its own: what the next one runs and kills.
#[test]
fn child_that_is_killed_while_it_polls() {
    if std::env::var_os("XS_POLL_CHILD").is_none() {
        return;
    }
    let end = End::open(lab::ONE, &[0], &Options::default());
    let (netdev, napi) = napi("child").expect("the test looked");
    let _held = busy_poll::hold_back(&netdev, &[napi]).expect("root may").expect("they were not");
    println!("\nready {}", napi.id);
    std::thread::sleep(Duration::from_secs(60));
    drop(end);
}

#[test]
fn a_killed_process_holds_no_interrupts_back_and_no_queue() {
    let Some(lab) = Lab::new("killed-poll", 1) else { return };
    lab.inside(|| {
        // The other end keeps the NAPI there while nobody is bound.
        let other = End::open(lab::ONE, &[0], &Options::default());
        if napi("killed-poll").is_none() {
            return;
        }
        drop(other);
        let mut child = Command::new(std::env::current_exe().expect("our own path"))
            .args(["--exact", "busy_poll::child_that_is_killed_while_it_polls", "--nocapture"])
            .env("XS_POLL_CHILD", "1")
            .stdout(Stdio::piped())
            .spawn()
            .expect("starting the child");
        let mut lines =
            BufReader::new(child.stdout.take().expect("its output")).lines().map_while(Result::ok);
        let ready = lines.find_map(|line| line.strip_prefix("ready ")?.parse::<u32>().ok());
        let id = ready.expect("the child did not start");
        let netdev = Netdev::find().expect("an answer").expect("the family");
        let now =
            || netdev.napi(id).expect("an answer").map(|napi| (napi.defer_hard_irqs, napi.gro_flush_timeout));
        assert_eq!(now(), Some(HELD));
        child.kill().expect("killing the child");
        child.wait().expect("its end");
        // Its program is gone and with it the NAPI: the settings wait for the next one of the queue.
        let _end = End::open(lab::ONE, &[0], &Options::default());
        let (netdev, napi) = self::napi("killed-poll").expect("as before");
        let start = Clock::now();
        while settings(&netdev, napi) != FREE && start.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(settings(&netdev, napi), FREE);
    });
}

/// It is forked, with all that was open and mapped.
#[test]
fn the_process_that_restores_does_not_keep_a_queue() {
    let Some(lab) = Lab::new("restorer", 1) else { return };
    lab.inside(|| {
        let end = End::open(lab::ONE, &[0], &Options::default());
        let to =
            OwnedFd::from(std::fs::File::options().read(true).write(true).open("/dev/null").expect("opens"));
        let undo = Undo { to, ours: Setting::Text(Vec::new()), bytes: b"x".to_vec() };
        let restorer = Restorer::start(vec![undo]).expect("starts");
        drop(end);
        drop(End::open(lab::ONE, &[0], &Options::default()));
        drop(restorer);
    });
}

#[test]
fn sockets_are_told_to_poll_and_a_veth_has_nothing_to_hold_back() {
    let Some(lab) = Lab::new("polling", 1) else { return };
    lab.inside(|| {
        let mut a = End::open(lab::ONE, &[0], &Options::default());
        let mut b = End::open(lab::OTHER, &[0], &Options::default());
        let held: Vec<Option<Held>> = [(lab::ONE, &a), (lab::OTHER, &b)]
            .map(|(name, end)| {
                let interface = find(Some(name)).expect("it is there");
                assert!(interface.is_virtual());
                busy_poll::start(&interface, end.device.sockets(), false, Duration::from_micros(100))
            })
            .into();
        let (_, socket) = a.device.sockets().next().expect("one");
        assert_eq!(int_option(socket, libc::SO_PREFER_BUSY_POLL), 1);
        assert_eq!(int_option(socket, libc::SO_BUSY_POLL), 100);
        // How many frames a look may bring can't be read back.
        if let Some((netdev, napi)) = napi("polling") {
            assert_eq!(settings(&netdev, napi), FREE);
        }
        assert!(held.iter().all(Option::is_none));
        crate::exchange(&mut a, &mut b, 10_000, 256, true);
    });
}

fn int_option(socket: BorrowedFd<'_>, option: libc::c_int) -> i32 {
    let mut value = 0_i32;
    let mut len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the kernel writes as many bytes as there is room for.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw mut value).cast(), &raw mut len)
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    value
}

/// A kernel before 6.17 sends 32 frames a call in copy mode.
#[test]
fn a_whole_burst_is_sent_by_one_call() {
    let Some(lab) = Lab::new("budget", 1) else { return };
    lab.inside(|| {
        let mut a = End::open(lab::ONE, &[0], &Options::default());
        let _b = End::open(lab::OTHER, &[0], &Options::default());
        // The fill ring is to be looked at again, whatever is sent.
        let before = a.device.poll_timeout();
        a.send(Instant::ZERO, BURST);
        let calls = a.counter("tx_wakeups");
        let may_be_told =
            nix::sys::utsname::uname().expect("a kernel").release().to_string_lossy().into_owned();
        let version: Vec<u32> =
            may_be_told.split(['.', '-']).take(2).filter_map(|part| part.parse().ok()).collect();
        if version < vec![6, 17] {
            println!("SKIP af_xdp::budget: Linux {may_be_told} has no XDP_MAX_TX_SKB_BUDGET");
            return;
        }
        assert_eq!((calls, a.device.poll_timeout()), (1, before), "frames were left on the ring");
    });
}
