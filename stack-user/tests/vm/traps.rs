//! What drivers do that a stack must expect: docs/drivers.md has the list.

use std::{
    fs,
    net::UdpSocket,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::{
    guest::{Guest, LIMIT, NIC, Nic, OURS, PEER, Xstack, content, fetch, sized},
    process::{Outcome, assert_same_bytes, run_for},
};

/// `xstack serve`, with a file of so many bytes.
struct Serving {
    xstack: Xstack,
    _directory: tempfile::TempDir,
    length: usize,
}

impl Serving {
    #[track_caller]
    fn start(guest: &Guest, options: &[&str], length: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("file"), content(length)).unwrap();
        // Whom root becomes has to read it.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = directory.path().to_string_lossy().into_owned();
        let arguments = [options, &["serve", "-v", &path]].concat();
        Self { xstack: guest.start_xstack(&arguments), _directory: directory, length }
    }

    #[track_caller]
    fn assert_serves(&self, guest: &Guest) {
        let body = guest.on_peer(|| fetch(format!("{OURS}:80").parse().unwrap(), "/file"));
        assert_same_bytes(&body, &content(self.length), "the file");
    }
}

/// Fetches some bytes by `xstack curl -v`, with options before it.
#[track_caller]
fn fetched(guest: &Guest, options: &[&str], length: usize) -> Outcome {
    let server = guest.serve();
    let url = server.url(length);
    let outcome = guest.run_xstack(&[options, &["curl", "-v", "--silent", "--show-error", &url]].concat());
    let outcome = outcome.expect_code(0);
    assert_same_bytes(&outcome.stdout, &content(length), &format!("{length} bytes"));
    outcome
}

/// What igb's zero-copy is caught at when it can't keep up: see `docs/drivers.md`.
const CAUGHT: &str = "handed over memory that it did not have";

/// A driver that found the fill ring empty takes nothing from it until it is woken: so it is when sockets are bound, since
/// nobody can fill the ring before, with every ring that is smaller than the card's own, and after any jam.
#[test]
fn a_driver_that_found_no_chunk_is_woken_and_receives_again() {
    let Some(guest) = Guest::long_on_igb("fill_ring_ran_dry") else { return };
    if !guest.require_zero_copy() {
        return;
    }
    let mut serving = Serving::start(&guest, &[], 200_000);
    // While it does not run, whatever comes takes a chunk, until there are none.
    serving.xstack.signal(Signal::SIGSTOP);
    guest.on_peer(|| {
        let socket = UdpSocket::bind((PEER, 0)).unwrap();
        for _ in 0..3_000 {
            // What finds the card's own queue full is lost, and that is enough.
            let _ = socket.send_to(&[0; 1_000], (OURS, 9));
        }
    });
    thread::sleep(Duration::from_secs(1));
    serving.xstack.signal(Signal::SIGCONT);
    thread::sleep(Duration::from_secs(1));
    if serving.xstack.has_ended() || serving.xstack.said().contains(CAUGHT) {
        assert!(
            guest.nic() == Nic::Igb && serving.xstack.said().contains(CAUGHT),
            "{}",
            serving.xstack.said()
        );
        return;
    }
    serving.assert_serves(&guest);
    let story = serving.xstack.stop(&guest);
    let devices = story.devices();
    let all = |name: &str| devices.iter().map(|counters| counters.get(name)).sum::<u64>();
    if guest.nic() == Nic::Virtio && guest.kernel() < (7, 0) {
        // 6.18 asks for chunks again and again, and need not be woken; 7.2 and 7.3 must be. Kernels in between have not been seen.
        let (asked, frames) = (all("rx_fill_ring_empty"), all("rx_frames"));
        assert!(asked > frames, "it did not go on asking: {}", story.0);
    } else {
        assert!(all("fill_wakeups") > 0, "nobody was woken: {}", story.0);
    }
}

/// With a fill ring that is smaller than the card's own, a driver never gets as many chunks as it asks for, and igb loses track
/// of whose they are in zero-copy: so frames are copied.
#[test]
fn no_byte_is_wrong_with_rings_that_are_smaller_than_the_cards() {
    let Some(guest) = Guest::long_on_igb("small_rings") else { return };
    for _ in 0..sized(1, 4) {
        let outcome = fetched(&guest, &["--ring-size", "64"], sized(1_000_000, 5_000_000));
        let bound = format!("AF_XDP sockets bound to {NIC}: copy, ");
        assert!(outcome.stderr.contains(&bound), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("frames are copied, since"), "{}", outcome.stderr);
    }
}

/// igb cuts what does not fit in its buffer, a whole number of kilobytes, without a word.
#[test]
fn frames_as_long_as_the_mtu_arrive_uncut() {
    let Some(guest) = Guest::new("uncut") else { return };
    for mtu in [1_500, 2_000, 3_000] {
        for (namespace, card) in [("", NIC), ("-n xs-peer ", "peer0")] {
            guest.ip(&format!("{namespace}link set {card} mtu {mtu}"));
        }
        let outcome = fetched(&guest, &[], 300_000);
        assert!(!outcome.stderr.contains("ipv4_truncated"), "{mtu}: {}", outcome.stderr);
    }
}

/// Attaching an XDP program to virtio-net adds a pair of queues for each CPU, if there are any left, and frames come in on those
/// as well, which `ethtool -l` does not show. Sockets on them bring some kernels down when the program goes first.
#[test]
fn queues_that_the_program_brings_are_refused_until_they_are_set_up() {
    let Some(guest) = Guest::new("queues_of_xdp") else { return };
    let (nic, queues) = (guest.nic(), guest.queues());
    if nic != Nic::Virtio || queues < 4 {
        return guest.skip("it takes a virtio-net with queues to spare");
    }
    guest.ethtool(&format!("-L {NIC} combined 2"));
    let server = guest.serve();
    let refused = guest.run_xstack(&["curl", "-sS", &server.url(1)]).expect_code(45);
    drop(server);
    let command = format!("ethtool -L {NIC} combined {queues}");
    assert!(refused.stderr.contains(&format!("`sudo {command}`")), "{}", refused.stderr);
    guest.ethtool(command.strip_prefix("ethtool ").unwrap());
    let all: Vec<String> = (0..queues).map(|queue| queue.to_string()).collect();
    for _ in 0..6 {
        let outcome = fetched(&guest, &[], 20_000);
        assert!(outcome.stderr.contains(&format!(", queues {}", all.join(","))), "{}", outcome.stderr);
    }
}

/// A card that spreads frames wider than what is bound loses some of them for us: it is refused, with the command, and that
/// command helps.
#[test]
fn one_queue_is_refused_until_the_card_uses_no_other() {
    let Some(guest) = Guest::new("one_queue") else { return };
    if guest.nic() != Nic::Igb {
        return guest.skip("only igb has an indirection table here");
    }
    let server = guest.serve();
    let refused = guest.run_xstack(&["--queue", "0", "curl", "-sS", &server.url(1)]).expect_code(45);
    let command = format!("ethtool -X {NIC} equal 1");
    assert!(refused.stderr.contains(&format!("`sudo {command}`")), "{}", refused.stderr);
    drop(server);
    guest.ethtool(command.strip_prefix("ethtool ").unwrap());
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for _ in 0..3 {
            let outcome = fetched(&guest, &["--queue", "0"], 50_000);
            let told = format!("{NIC} puts all that it receives in queue 0");
            assert!(outcome.stderr.contains(&told), "{}", outcome.stderr);
        }
    }));
    guest.ethtool(&format!("-X {NIC} default"));
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// Binding resets the link of some cards for a second or two. Whoever probes for an address meanwhile hears nobody, and takes
/// somebody else's.
#[test]
fn an_address_in_use_is_found_though_binding_resets_the_link() {
    let Some(_guest) = Guest::new("carrier_after_bind") else { return };
    let mut command = Command::new(crate::guest::XSTACK);
    command.args(["--interface", NIC, "--address", PEER, "curl", "-v", "http://10.77.0.9/"]);
    let outcome = run_for(command.stdin(Stdio::null()), LIMIT).expect_code(45);
    let owner = format!("{PEER} is in use by 52:54:00:12:34:02");
    assert!(outcome.stderr.contains(&owner), "{}", outcome.stderr);
}

/// One call of sendto sends 32 frames in copy mode, or as many as the kernel was asked for; it says EAGAIN or EBUSY when it
/// likes.
#[test]
fn all_is_sent_in_copy_mode_and_in_the_generic_path() {
    let Some(guest) = Guest::long_on_igb("copy_mode") else { return };
    for mode in ["native-copy", "generic"] {
        let serving = Serving::start(&guest, &["--mode", mode], sized(300_000, 3_000_000));
        assert!(
            serving.xstack.said().contains(&format!("AF_XDP sockets bound to {NIC}: copy, ")),
            "{}",
            serving.xstack.said()
        );
        serving.assert_serves(&guest);
    }
}

/// Frames of less than 60 bytes come padded from igb, and as they are from virtio.
#[test]
fn the_shortest_frames_are_what_they_say() {
    let Some(guest) = Guest::long_on_igb("runts") else { return };
    let _serving = Serving::start(&guest, &[], 1);
    for length in ["0", "1", "17", "18", "19"] {
        let mut ping = guest.peer("busybox");
        let pinged = ping.args(["ping", "-c1", "-W5", "-s", length, OURS]).output().unwrap();
        let printed = String::from_utf8_lossy(&pinged.stdout).into_owned();
        let expected = format!("{} bytes from {OURS}", 8 + length.parse::<u32>().unwrap());
        assert!(pinged.status.success() && printed.contains(&expected), "{length}: {printed}");
    }
}

/// Drivers that put a frame in one buffer run no program with an MTU beyond it.
#[test]
fn an_mtu_that_the_driver_refuses_is_told_with_one_that_it_takes() {
    let Some(guest) = Guest::new("mtu_refused") else { return };
    if guest.nic() != Nic::Igb {
        return guest.skip("virtio-net runs our program with any MTU, in several buffers");
    }
    for (namespace, card) in [("", NIC), ("-n xs-peer ", "peer0")] {
        guest.ip(&format!("{namespace}link set {card} mtu 9000"));
    }
    let server = guest.serve();
    let refused = guest.run_xstack(&["--mode", "native", "curl", "-sS", &server.url(1)]).expect_code(45);
    assert!(refused.stderr.contains("its MTU is 9000"), "{}", refused.stderr);
    assert!(refused.stderr.contains("RX buffer size is too small"), "{}", refused.stderr);
    let words = refused.stderr.split('`').find_map(|part| part.strip_prefix("sudo ip ")).unwrap().to_owned();
    // Without a wish, the generic path does instead, and says why.
    let slower = guest.run_xstack(&["curl", "-sS", &server.url(100_000)]).expect_code(0);
    assert!(
        slower.stderr.contains("slower generic mode") && slower.stderr.contains(&words),
        "{}",
        slower.stderr
    );
    assert_same_bytes(&slower.stdout, &content(100_000), "through the generic path");
    guest.ip(&words);
    let native = guest.run_xstack(&["--mode", "native", "curl", "-sS", &server.url(100_000)]);
    assert_same_bytes(&native.expect_code(0).stdout, &content(100_000), "with the MTU that was offered");
    // One byte more is one too many.
    let (rest, fits) = words.rsplit_once(' ').unwrap();
    guest.ip(&format!("{rest} {}", fits.parse::<u32>().unwrap() + 1));
    guest.run_xstack(&["--mode", "native", "curl", "-sS", &server.url(1)]).expect_code(45);
}

#[test]
#[ignore = "long"]
fn connections_outlive_an_interface_that_is_off_for_a_while() {
    let Some(guest) = Guest::new("link_flap") else { return };
    let serving = Serving::start(&guest, &[], 5_000_000);
    for _ in 0..2 {
        thread::scope(|scope| {
            let fetching = scope.spawn(|| serving.assert_serves(&guest));
            thread::sleep(Duration::from_millis(300));
            guest.ip(&format!("link set {NIC} down"));
            guest.wait_until("it is noticed", || serving.xstack.said().contains("was switched off"));
            thread::sleep(Duration::from_millis(500));
            guest.ip(&format!("link set {NIC} up"));
            fetching.join().unwrap();
        });
        guest.wait_until("it is back", || serving.xstack.said().contains("is back"));
    }
}

#[test]
#[ignore = "long"]
fn an_mtu_that_changes_under_traffic_is_followed() {
    let Some(guest) = Guest::new("mtu_change") else { return };
    let serving = Serving::start(&guest, &[], 3_000_000);
    thread::scope(|scope| {
        let fetching = scope.spawn(|| serving.assert_serves(&guest));
        thread::sleep(Duration::from_millis(300));
        // A driver that resets its card for that may refuse it while a program runs, and then nothing is new.
        let words = ["link", "set", NIC, "mtu", "1400"];
        let set = Command::new("/usr/sbin/ip").args(words).output().unwrap();
        if set.status.success() {
            guest.wait_until("it is noticed", || serving.xstack.said().contains("has an MTU of 1400 now"));
        }
        fetching.join().unwrap();
    });
    serving.assert_serves(&guest);
}

/// Nobody can open a socket on a queue that was added after privileges were given up. Where a queue that has one is to be
/// taken away, the kernel refuses, and a driver may refuse any change.
#[test]
#[ignore = "long"]
fn queues_that_change_under_traffic_end_it_with_a_word_or_stay() {
    let Some(guest) = Guest::new("queue_change") else { return };
    if guest.queues() < 2 {
        return guest.skip("it takes two queues");
    }
    let mut serving = Serving::start(&guest, &[], 100_000);
    let set = |count: u32| {
        let words = ["-L", NIC, "combined", &count.to_string()];
        Command::new("/usr/sbin/ethtool").args(words).output().unwrap().status.success()
    };
    assert!(!set(1), "a queue with a socket was taken away");
    serving.assert_serves(&guest);
    drop(serving);
    guest.wait_until("the program is gone", || !guest.has_program());

    if guest.nic() == Nic::Virtio {
        // With fewer than it could have it brings some for the program, and is refused: see `queues_of_xdp`.
        return;
    }
    assert!(set(1));
    serving = Serving::start(&guest, &[], 100_000);
    if set(2) {
        guest.wait_until("it ends", || serving.xstack.has_ended());
        assert!(
            serving.xstack.said().contains(&format!("{NIC} receives on 2 queues now")),
            "{}",
            serving.xstack.said()
        );
    } else {
        serving.assert_serves(&guest);
    }
}

/// As a program does that serves several queues by one thread.
#[test]
#[ignore = "long"]
fn two_queues_in_one_umem_receive_both() {
    use stack_user::device::{
        Device,
        xdp::{self, Mode, Options, program::Program},
    };
    let Some(guest) = Guest::new("one_umem") else { return };
    if guest.queues() < 2 {
        return guest.skip("it takes two queues");
    }
    let mut program = Program::attach(NIC, Mode::Native, None).unwrap();
    let (mut device, mut umem, bound) = xdp::open(NIC, &[0, 1], &Options::default()).unwrap();
    assert_eq!((bound.zero_copy, &bound.queues[..]), (guest.has_zero_copy(), &[0, 1][..]));
    for (queue, socket) in device.sockets() {
        program.bind_socket(queue, socket).unwrap();
    }
    program.claim(OURS.parse().unwrap(), 0, &[]).unwrap();
    guest.wait_for_carrier();
    // Nobody answers, so the peer goes on asking who has the address.
    let mut received = Vec::new();
    guest.wait_until("something comes", || {
        let _ = guest.peer("busybox").args(["ping", "-c1", "-W1", OURS]).output().unwrap();
        device.rx_burst(stack_user::time::Instant::ZERO, &mut umem, &mut received);
        !received.is_empty()
    });
    use stack_user::frame::FramePool;
    received.drain(..).for_each(|frame| umem.release_rx(frame));
}
