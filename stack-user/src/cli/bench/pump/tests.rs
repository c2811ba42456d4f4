//! Two pumps over NICs in memory.

use std::{net::Ipv4Addr, os::fd::OwnedFd, thread};

use super::{
    engine::{Engine, Role},
    frames::{Station, Template},
    report::Report,
    roles::{Echo, Pinger, Receiver, Sender},
};
use crate::{
    device::{
        Device as _, Umem,
        memory::{self, MemoryDevice},
    },
    frame::FramePool as _,
    rng::Rng,
    runtime::Clock,
    stack::Stack,
    time::{Duration, Instant},
    wire::MacAddr,
};

const PORT: u16 = 9;
const CHUNKS: u32 = 256;

/// A device and the stack over it.
struct End {
    device: MemoryDevice,
    stack: Stack<Umem>,
    station: Station,
}

impl End {
    fn new(device: MemoryDevice, number: u8, clock: Clock) -> Self {
        let station = Station { mac: MacAddr([2, 0, 0, 0, 0, number]), ip: Ipv4Addr::new(10, 0, 0, number) };
        let umem = Umem::on_heap(CHUNKS).expect("memory");
        let stack = Stack::new(clock.now(), station.mac, None, umem, Rng::from_seed(u64::from(number)));
        Self { device, stack, station }
    }

    fn queues(&self) -> Vec<OwnedFd> {
        self.device.fds().expect("a descriptor")
    }

    /// Works until it is done, and returns the role. All chunks come back.
    fn work<R: Role>(mut self, role: R, clock: Clock, spin: Duration) -> R {
        let mut engine = Engine::new(role, PORT, (spin, false), self.queues(), clock);
        let give_up = clock.now() + Duration::from_secs(60);
        while !engine.run(give_up, &mut self.device, &mut self.stack) {
            assert!(clock.now() < give_up, "it does not end");
        }
        engine.finish(&mut self.stack);
        let mut done = Vec::new();
        self.device.completions(self.stack.pool_mut(), &mut done);
        done.into_iter().for_each(|frame| self.stack.handle_completion(Instant::ZERO, frame));
        assert_eq!(self.stack.pool().available(), CHUNKS as usize, "chunks are lost");
        engine.role
    }
}

/// What the first end sends the other.
fn template(one: &End, other: &End, size: usize) -> Template {
    Template::new(one.station, other.station, None, PORT, size)
}

fn ends(clock: Clock) -> (End, End) {
    let (one, other) = memory::pair(memory::Options::default());
    (End::new(one, 1, clock), End::new(other, 2, clock))
}

#[test]
fn what_is_sent_is_counted_at_the_other_end() {
    let clock = Clock::new();
    // A long frame lies in several chunks; one end polls, the other sleeps.
    for (size, spin) in [(60, Duration::from_secs(1)), (9014, Duration::ZERO)] {
        let (one, other) = ends(clock);
        let sender = Sender::new(template(&one, &other, size), 8, clock, Duration::from_millis(50));
        let receiver = Receiver::new(clock, None, Duration::from_secs(10));
        let received = thread::spawn(move || other.work(receiver, clock, spin));
        let sender = one.work(sender, clock, spin);
        let receiver = received.join().expect("it ends");
        assert!(sender.tally.frames > 8 && sender.tally.bytes == sender.tally.frames * size as u64);
        // Sent is not delivered: a ring that is full loses some.
        let (came, lost) = (receiver.tally.frames, receiver.lost());
        assert!(came > 0 && came + lost <= sender.tally.frames, "{came} + {lost}");
        assert_eq!(receiver.tally.bytes, came * size as u64);
        let report = Report { role: "rx", tally: receiver.tally, lost: Some(lost), latency: None };
        let json = report.to_json();
        assert_eq!((json["benchmark"].as_str(), json["frames"].as_u64()), (Some("pump"), Some(came)));
        let (all, payload) = (json["bits_per_second"].as_f64(), json["payload_bits_per_second"].as_f64());
        assert!(all >= payload && report.to_text().starts_with("rx: "));
    }
}

#[test]
fn a_frame_comes_back_and_its_time_is_kept() {
    let clock = Clock::new();
    let (one, other) = ends(clock);
    let pinger = Pinger::new(template(&one, &other, 64), clock, Duration::from_millis(100)).expect("made");
    let echo = Echo::new(Receiver::new(clock, None, Duration::from_secs(10)));
    let echoed = thread::spawn(move || other.work(echo, clock, Duration::ZERO));
    let pinger = one.work(pinger, clock, Duration::from_secs(1));
    let echo = echoed.join().expect("it ends");
    assert!(pinger.tally.frames > 0 && pinger.lost == 0);
    assert_eq!(pinger.latency.len(), pinger.tally.frames);
    assert_eq!(echo.receiver.tally.frames, pinger.tally.frames);
    let latency = Some(&pinger.latency);
    let json = Report { role: "ping", tally: pinger.tally, lost: Some(0), latency }.to_json();
    let at = |name: &str| json["latency_ns"][name].as_u64().expect("a number");
    assert!(0 < at("min") && at("min") <= at("p50") && at("p50") <= at("p999") && at("p999") <= at("max"));
}

#[test]
fn an_echo_does_not_send_back_what_was_sent_back() {
    let clock = Clock::new();
    let (device, far) = memory::tap(memory::Options::default());
    let end = End::new(device, 1, clock);
    let from = Station { mac: MacAddr([2, 0, 0, 0, 0, 2]), ip: Ipv4Addr::new(10, 0, 0, 2) };
    let asks = Template::new(from, end.station, None, PORT, 64).bytes().to_vec();
    assert!(far.send(&asks));
    let echo = || Echo::new(Receiver::new(clock, Some(Duration::from_millis(20)), Duration::from_millis(20)));
    let echoed = end.work(echo(), clock, Duration::ZERO);
    assert_eq!((echoed.receiver.tally.frames, far.waiting()), (1, 1));
    // What an echo at the other end would get of it.
    let sent_back = far.receive().expect("it answers");
    let (device, far) = memory::tap(memory::Options::default());
    assert!(far.send(&sent_back));
    let echo = End::new(device, 2, clock).work(echo(), clock, Duration::ZERO);
    assert_eq!((echo.receiver.tally.frames, far.waiting()), (0, 0));
}

#[test]
fn what_does_not_come_back_is_lost_and_who_waits_in_vain_ends() {
    let clock = Clock::new();
    let (one, other) = ends(clock);
    let pinger = Pinger::new(template(&one, &other, 64), clock, Duration::from_millis(150)).expect("made");
    let pinger = one.work(pinger, clock, Duration::ZERO);
    assert!(pinger.tally.frames == 0 && pinger.lost > 0, "{} came", pinger.tally.frames);
    let (_one, other) = ends(clock);
    let receiver = other.work(Receiver::new(clock, None, Duration::from_millis(20)), clock, Duration::ZERO);
    assert_eq!((receiver.tally.frames, receiver.lost()), (0, 0));
}

#[test]
fn what_is_not_the_pumps_goes_to_the_stack() {
    let clock = Clock::new();
    let (device, far) = memory::tap(memory::Options::default());
    let end = End::new(device, 1, clock);
    assert!(far.send(&[0xff; 60]));
    let receiver = Receiver::new(clock, None, Duration::from_millis(20));
    let mut engine = Engine::new(receiver, PORT, (Duration::ZERO, false), end.queues(), clock);
    let End { mut device, mut stack, .. } = end;
    assert!(engine.run(clock.now() + Duration::from_secs(10), &mut device, &mut stack));
    assert_eq!(engine.role.tally.frames, 0);
    assert_eq!(stack.drops().iter().map(|(_, count)| count).sum::<u64>(), 1, "the stack has seen it");
}
