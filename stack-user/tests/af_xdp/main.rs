//! The AF_XDP device on real sockets: veth pairs in network namespaces of their own.
//!
//! Needs root; without it, each test skips and says so.

mod busy_poll;
#[path = "../huge_pages/mod.rs"]
mod huge_pages;
mod interface;
mod jumbo;
mod lab;
mod netdev;
mod redirect;
mod start;
mod steady;
mod watch;

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::{Duration, Instant as Clock},
};

use lab::Lab;
use redirect::{Attach, Redirect};
use stack_user::{
    device::{
        BURST, Device, Umem,
        xdp::{self, Bound, Copying, Mode, OpenError, Options, XdpDevice},
    },
    frame::{FramePool, RxFrame, TxFrame},
    time::Instant,
};

/// Frames that each direction carries in the tests of order and content.
const FRAMES: u64 = 100_000;

/// Opens a device. The kernel gives back a queue some time after its last socket was closed.
fn open_patiently(
    interface: &str,
    queues: &[u32],
    options: &Options,
) -> Result<(XdpDevice, Umem, Bound), OpenError> {
    let patience = Clock::now() + Duration::from_secs(5);
    loop {
        match xdp::open(interface, queues, options) {
            Err(OpenError::QueueBusy { .. }) if Clock::now() < patience => {
                std::thread::sleep(Duration::from_millis(10));
            }
            opened => return opened,
        }
    }
}

/// A device with all that it needs to send and receive, and the count of what it did.
struct End {
    device: XdpDevice,
    umem: Umem,
    _redirect: Redirect,
    queue: VecDeque<TxFrame>,
    received: Vec<RxFrame>,
    done: Vec<stack_user::frame::CompletedFrame>,
    sent: u64,
    got: u64,
    /// Bytes of the longest frame.
    longest: usize,
}

impl End {
    fn open(interface: &str, queues: &[u32], options: &Options) -> Self {
        Self::open_with(interface, queues, options, Attach::Native)
    }

    fn open_with(interface: &str, queues: &[u32], options: &Options, attach: Attach) -> Self {
        let (device, umem, bound) = open_patiently(interface, queues, options).expect("opening the device");
        assert!(!bound.zero_copy, "veth has no zero-copy");
        assert_eq!(bound.queues, queues);
        let redirect = Redirect::attach(interface, attach, device.sockets()).expect("attaching the program");
        let (queue, received, done) = (VecDeque::new(), Vec::new(), Vec::new());
        let longest = options.mtu as usize + 14;
        Self { device, umem, _redirect: redirect, queue, received, done, sent: 0, got: 0, longest }
    }

    /// Puts up to `count` frames more, numbered, in the queue.
    fn fill_queue(&mut self, count: usize) {
        for _ in 0..count {
            let mut bytes = vec![0; frame_len(self.sent, self.longest)];
            write_frame(self.sent, &mut bytes);
            let Some(mut frame) = self.umem.allocate_tx(bytes.len()) else { break };
            self.umem.tx_write(&mut frame, 0, &bytes);
            frame.set_len(bytes.len());
            self.queue.push_back(frame);
            self.sent += 1;
        }
    }

    /// Sends up to `count` frames more, numbered.
    fn send(&mut self, now: Instant, count: usize) {
        let room = self.device.tx_room();
        self.fill_queue(count.min(room));
        let is_ordinary = self.queue.iter().all(|frame| !frame.is_long());
        self.device.tx_burst(now, &mut self.umem, &mut self.queue);
        assert!(self.queue.is_empty() || !is_ordinary, "there was room for all");
    }

    /// Receives a burst. With `in_order`, each frame must be the next.
    fn receive(&mut self, now: Instant, in_order: bool) -> usize {
        self.device.rx_burst(now, &mut self.umem, &mut self.received);
        let count = self.received.len();
        for frame in self.received.drain(..) {
            let bytes = self.umem.rx_gather(&frame);
            let number = frame_number(&bytes);
            let mut expected = vec![0; frame_len(number, self.longest)];
            write_frame(number, &mut expected);
            assert!(bytes == expected, "frame {number} arrived otherwise than it was sent");
            assert!(!in_order || number == self.got, "frame {number} came as number {}", self.got);
            self.got += 1;
            self.umem.release_rx(frame);
        }
        count
    }

    /// Receives until nothing is left. Returns how many have come since the start.
    fn drain_numbered(&mut self, now: Instant) -> u64 {
        while self.receive(now, true) > 0 {}
        self.got
    }

    fn reap(&mut self) {
        self.device.completions(&mut self.umem, &mut self.done);
        self.done.drain(..).for_each(|frame| self.umem.release_completed(frame));
    }

    /// Every chunk is in the pool or in a ring.
    fn check_conserved(&self) {
        assert_eq!(self.umem.available() + self.device.chunks_in_rings(&self.umem), self.umem.chunks());
    }

    fn counter(&self, name: &str) -> u64 {
        let counters = self.device.counters().expect("counters");
        counters.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("no counter {name}")).1
    }
}

/// An Ethernet frame of an experimental type, whose bytes and length follow from its number.
fn write_frame(number: u64, frame: &mut [u8]) {
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&[0x02, 0, 0, 0, 0, 1]);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame[14..22].copy_from_slice(&number.to_be_bytes());
    let seed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for (at, byte) in frame[22..].iter_mut().enumerate() {
        *byte = (seed >> (8 * (at % 8))) as u8 ^ at as u8;
    }
}

fn frame_len(number: u64, longest: usize) -> usize {
    60 + (number.wrapping_mul(977) % (longest as u64 - 59)) as usize
}

fn frame_number(bytes: &[u8]) -> u64 {
    let number = bytes.get(14..22).expect("a frame of ours has a number");
    u64::from_be_bytes(number.try_into().expect("eight bytes"))
}

/// As below, and no counter of lost frames moved.
fn exchange(a: &mut End, b: &mut End, frames: u64, window: u64, in_order: bool) {
    exchange_without_counters(a, b, frames, window, in_order);
    for end in [&*a, &*b] {
        for name in
            ["rx_dropped", "rx_ring_full", "rx_invalid_descs", "tx_invalid_descs", "rx_refused", "tx_refused"]
        {
            assert_eq!(end.counter(name), 0, "{name}");
        }
    }
}

/// Both ends send and receive that many frames, with no more of them under way than `window`.
fn exchange_without_counters(a: &mut End, b: &mut End, frames: u64, window: u64, in_order: bool) {
    let start = Clock::now();
    while a.got < frames || b.got < frames {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "stuck: a {}/{} b {}/{}",
            a.sent,
            a.got,
            b.sent,
            b.got
        );
        let now = Instant::from_nanos(start.elapsed().as_nanos() as u64);
        let a_may = (frames - a.sent).min(window - (a.sent - b.got)).min(BURST as u64);
        let b_may = (frames - b.sent).min(window - (b.sent - a.got)).min(BURST as u64);
        a.send(now, a_may as usize);
        b.send(now, b_may as usize);
        a.receive(now, in_order);
        b.receive(now, in_order);
        a.reap();
        b.reap();
    }
    let took = start.elapsed().as_secs_f64();
    println!("{frames} frames each way: {:.0} kframes/s in all", 2.0 * frames as f64 / took / 1e3);
    a.check_conserved();
    b.check_conserved();
}

#[test]
fn frames_arrive_whole_and_in_order_both_ways() {
    let Some(lab) = Lab::new("order", 1) else { return };
    lab.inside(|| {
        let mut a = End::open(lab::ONE, &[0], &Options::default());
        let mut b = End::open(lab::OTHER, &[0], &Options::default());
        exchange(&mut a, &mut b, FRAMES, 256, true);
    });
}

#[test]
fn the_smallest_rings_work_too() {
    let Some(lab) = Lab::new("tiny", 1) else { return };
    lab.inside(|| {
        let options =
            Options { ring_size: 64, chunks_per_queue: 256, copying: Copying::Copy, ..Options::default() };
        let mut a = End::open(lab::ONE, &[0], &options);
        let mut b = End::open(lab::OTHER, &[0], &options);
        exchange(&mut a, &mut b, FRAMES / 4, 32, true);
    });
}

#[test]
fn two_queues_share_one_umem() {
    let Some(lab) = Lab::new("queues", 2) else { return };
    lab.inside(|| {
        let mut a = End::open(lab::ONE, &[0, 1], &Options::default());
        let mut b = End::open(lab::OTHER, &[0, 1], &Options::default());
        assert_eq!(a.device.fds().expect("descriptors").len(), 2);
        exchange(&mut a, &mut b, FRAMES, 256, true);
        // What comes in on the second queue arrives too: sent from the second queue of a device of that queue only.
        let sent = a.sent;
        drop(a);
        let mut a = End::open(lab::ONE, &[1], &Options::default());
        a.sent = sent;
        for round in 0..1000 {
            let now = Instant::from_millis(round);
            a.send(now, 8);
            b.receive(now, true);
            a.reap();
        }
        for round in 1000..1010 {
            b.receive(Instant::from_millis(round), true);
        }
        assert_eq!(b.got, sent + 8000);
        b.check_conserved();
    });
}

#[test]
fn receiving_goes_on_after_the_fill_ring_ran_dry() {
    let Some(lab) = Lab::new("dry", 1) else { return };
    lab.inside(|| {
        let options =
            Options { ring_size: 64, chunks_per_queue: 128, copying: Copying::Auto, ..Options::default() };
        let mut a = End::open(lab::ONE, &[0], &Options::default());
        let mut b = End::open(lab::OTHER, &[0], &options);
        let mut held = Vec::new();
        // Whoever holds all that it receives runs out of chunks to receive into.
        for round in 0..50 {
            a.send(Instant::from_millis(round), 16);
            a.reap();
            b.device.rx_burst(Instant::from_millis(round), &mut b.umem, &mut held);
        }
        assert!(held.len() < 128 && b.umem.available() > 0, "a reserve is left to send from");
        let lost: u64 = ["rx_dropped", "rx_fill_ring_empty"].map(|name| b.counter(name)).iter().sum();
        assert!(lost > 0, "800 frames did not fit in 128 chunks");
        assert_eq!(b.umem.available() + b.device.chunks_in_rings(&b.umem) + held.len(), b.umem.chunks());
        held.drain(..).for_each(|frame| b.umem.release_rx(frame));
        // What still was in the ring, then what comes new.
        for round in 50..60 {
            b.receive(Instant::from_millis(round), false);
        }
        b.got = 0;
        let before = a.sent;
        for round in 60..160 {
            a.send(Instant::from_millis(round), 16);
            a.reap();
            b.receive(Instant::from_millis(round), false);
        }
        assert_eq!(b.got, a.sent - before, "nothing is lost any more");
        b.check_conserved();
    });
}

#[test]
fn the_generic_path_works_too() {
    let Some(lab) = Lab::new("generic", 1) else { return };
    lab.inside(|| {
        let options = Options { copying: Mode::Generic.copying(true), ..Options::default() };
        let mut a = End::open_with(lab::ONE, &[0], &options, Attach::Generic);
        let mut b = End::open_with(lab::OTHER, &[0], &options, Attach::Generic);
        exchange(&mut a, &mut b, FRAMES / 4, 64, true);
    });
}

#[test]
fn a_link_that_was_down_for_a_while_works_on() {
    let Some(lab) = Lab::new("flap", 1) else { return };
    lab.inside(|| {
        let mut a = End::open(lab::ONE, &[0], &Options::default());
        let mut b = End::open(lab::OTHER, &[0], &Options::default());
        exchange(&mut a, &mut b, 1000, 64, true);
        for end in [lab::ONE, lab::OTHER] {
            lab::ip(&["link", "set", end, "down"]);
            // Whatever was sent meanwhile is lost or comes late; none of its chunks is lost.
            for round in 0..20 {
                a.send(Instant::from_millis(round), 16);
                b.send(Instant::from_millis(round), 16);
                a.reap();
                b.reap();
            }
            lab::ip(&["link", "set", end, "up"]);
            std::thread::sleep(Duration::from_millis(50));
            for round in 20..60 {
                for end in [&mut a, &mut b] {
                    end.send(Instant::from_millis(round), 0);
                    end.device.before_sleep();
                    end.reap();
                    end.receive(Instant::from_millis(round), false);
                }
            }
            (a.sent, a.got, b.sent, b.got) = (0, 0, 0, 0);
            exchange_without_counters(&mut a, &mut b, 1000, 64, true);
        }
    });
}

#[test]
fn the_kernel_refuses_by_name() {
    let Some(lab) = Lab::new("refuse", 1) else { return };
    lab.inside(|| {
        let open = |interface: &str, queue, copying| {
            let options = Options { copying, ..Options::default() };
            xdp::open(interface, &[queue], &options).map(|_| ()).expect_err("must be refused")
        };
        assert!(matches!(open("xs-none", 0, Copying::Auto), OpenError::NoInterface { .. }));
        assert!(matches!(open(lab::ONE, 7, Copying::Auto), OpenError::NoSuchQueue { queue: 7, .. }));
        assert!(matches!(open(lab::ONE, 0, Copying::ZeroCopy), OpenError::NoZeroCopy { .. }));
        let odd = Options { ring_size: 100, ..Options::default() };
        assert!(matches!(xdp::open(lab::ONE, &[0], &odd), Err(OpenError::RingSize(100))));
        let _taken = End::open(lab::ONE, &[0], &Options::default());
        assert!(matches!(open(lab::ONE, 0, Copying::Auto), OpenError::QueueBusy { queue: 0, .. }));
    });
}

/// Not a test of its own: what `missing_privileges_are_named` runs under a low limit of locked memory.
#[test]
fn child_that_may_not_lock_memory() {
    if std::env::var_os("XS_DEV_CHILD").is_none() {
        return;
    }
    caps::drop(None, caps::CapSet::Effective, caps::Capability::CAP_IPC_LOCK)
        .expect("giving up a capability");
    let error = xdp::open(lab::ONE, &[0], &Options::default()).map(|_| ()).expect_err("must be refused");
    assert!(matches!(error, OpenError::LockedMemory { bytes: 16_777_216 }), "{error}");
}

#[test]
fn missing_privileges_are_named() {
    let Some(lab) = Lab::new("caps", 1) else { return };
    lab.inside(|| {
        let child = Command::new("prlimit")
            .args(["--memlock=1048576:1048576"])
            .arg(std::env::current_exe().expect("our own path"))
            .args(["--exact", "child_that_may_not_lock_memory", "--nocapture"])
            .env("XS_DEV_CHILD", "1")
            .output()
            .expect("running prlimit");
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));

        // Capabilities are a thread's own.
        caps::drop(None, caps::CapSet::Effective, caps::Capability::CAP_NET_RAW)
            .expect("giving up a capability");
        let error = xdp::open(lab::ONE, &[0], &Options::default()).map(|_| ()).expect_err("must be refused");
        assert!(matches!(error, OpenError::Privilege), "{error}");
    });
}

#[test]
fn a_dropped_device_can_be_opened_again_at_once() {
    let Some(lab) = Lab::new("again", 1) else { return };
    lab.inside(|| {
        for _ in 0..20 {
            drop(End::open(lab::ONE, &[0], &Options::default()));
        }
        assert!(!lab::has_program(lab::ONE));
    });
}

/// Not a test of its own: what `a_killed_process_leaves_nothing_behind` runs and kills.
#[test]
fn child_that_is_killed() {
    if std::env::var_os("XS_DEV_CHILD").is_none() {
        return;
    }
    let mut a = End::open(lab::ONE, &[0], &Options::default());
    println!("\nready");
    // Should the test fail before it kills us, nobody else would.
    let started = Clock::now();
    while started.elapsed() < Duration::from_secs(60) {
        a.send(Instant::ZERO, 64);
        a.reap();
    }
}

#[test]
fn a_killed_process_leaves_nothing_behind() {
    let Some(lab) = Lab::new("kill", 1) else { return };
    lab.inside(|| {
        for _ in 0..3 {
            // The child is in this thread's namespace.
            let mut child = Command::new(std::env::current_exe().expect("our own path"))
                .args(["--exact", "child_that_is_killed", "--nocapture"])
                .env("XS_DEV_CHILD", "1")
                .stdout(Stdio::piped())
                .spawn()
                .expect("starting the child");
            let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
            assert!(lines.map_while(Result::ok).any(|line| line == "ready"), "the child did not start");
            assert!(lab::has_program(lab::ONE));
            child.kill().expect("killing the child");
            child.wait().expect("its end");
            assert!(!lab::has_program(lab::ONE), "the program outlived its process");
            drop(End::open(lab::ONE, &[0], &Options::default()));
        }
    });
}
