//! Frames in, faults on them, frames out: counted on both sides.

use proptest::prelude::*;

use super::*;
use crate::{
    device::{
        capture::{Capture, Recorder},
        memory,
    },
    time::Duration,
};

struct Rig {
    device: Box<dyn Device>,
    far: memory::WireEnd,
    umem: Umem,
    /// Chunks of frames that were sent and have not come back.
    on_their_way: Vec<u32>,
    now: Instant,
}

impl Rig {
    fn new(spec: &str, chunks: u32) -> Self {
        let (device, far) = memory::tap(memory::Options::default());
        let spec = spec.parse().expect("a spec");
        Self::over(Box::new(Fault::new(Box::new(device), spec)), far, chunks)
    }

    fn over(device: Box<dyn Device>, far: memory::WireEnd, chunks: u32) -> Self {
        let umem = Umem::on_heap(chunks).expect("memory");
        Self { device, far, umem, on_their_way: Vec::new(), now: Instant::ZERO }
    }

    /// Sends a frame that holds `number`; `None` if there is no chunk or no room.
    fn send(&mut self, number: u32) -> Option<u32> {
        let mut frame = (self.device.tx_room() > 0).then(|| self.umem.allocate())??.into_tx();
        let chunk = frame.chunk();
        self.umem.tx_buffer(&mut frame)[..64].copy_from_slice(&frame_of(number));
        frame.set_len(64);
        self.on_their_way.push(chunk);
        let mut queue = VecDeque::from([frame]);
        self.device.tx_burst(self.now, &mut self.umem, &mut queue);
        assert!(queue.is_empty(), "there was room");
        Some(chunk)
    }

    /// Takes back what was sent: each frame once, and none that was not sent.
    fn reap(&mut self) {
        let mut done = Vec::new();
        self.device.completions(&mut self.umem, &mut done);
        for frame in done {
            let at = self.on_their_way.iter().position(|&chunk| chunk == frame.chunk());
            self.on_their_way.swap_remove(at.expect("a frame that is on its way, and never twice"));
            self.umem.release(frame.into_free());
        }
    }

    fn receive(&mut self) -> Vec<[u8; 64]> {
        let mut frames = Vec::new();
        self.device.rx_burst(self.now, &mut self.umem, &mut frames);
        let bytes =
            frames.iter().map(|frame| self.umem.rx_bytes(frame).try_into().expect("64 bytes")).collect();
        frames.into_iter().for_each(|frame| self.umem.release_rx(frame));
        bytes
    }

    fn far_receives(&self) -> Vec<[u8; 64]> {
        std::iter::from_fn(|| self.far.receive()).map(|bytes| bytes.try_into().expect("64 bytes")).collect()
    }

    /// Lets time pass until nothing is held any more. Returns what was received meanwhile.
    fn settle(&mut self) -> Vec<[u8; 64]> {
        let mut received = Vec::new();
        for _ in 0..10_000 {
            received.extend(self.receive());
            self.reap();
            match self.device.poll_timeout() {
                Some(due) => self.now = self.now.max(due),
                None if self.far.waiting() == 0 && self.umem.available() == self.umem.chunks() => break,
                None => {
                    self.far_receives();
                }
            }
        }
        received
    }

    fn counter(&self, name: &str) -> u64 {
        let counters = self.device.counters().expect("counters");
        counters.iter().find(|(known, _)| *known == name).expect("a counter of that name").1
    }
}

fn frame_of(number: u32) -> [u8; 64] {
    let mut frame = [0; 64];
    frame[60..].copy_from_slice(&number.to_be_bytes());
    frame
}

fn number_of(frame: &[u8; 64]) -> u32 {
    u32::from_be_bytes(frame[60..].try_into().expect("four bytes"))
}

#[test]
fn without_faults_nothing_changes() {
    let mut rig = Rig::new("seed=1", 8);
    for number in 0..100 {
        rig.send(number).expect("room");
        assert!(rig.far.send(&frame_of(number)));
        assert_eq!(rig.receive(), [frame_of(number)]);
        assert_eq!(rig.far_receives(), [frame_of(number)]);
        rig.reap();
    }
    assert_eq!(rig.umem.available(), 8);
}

#[test]
fn what_is_lost_on_its_way_out_completes() {
    let mut rig = Rig::new("tx.loss=1", 4);
    for number in 0..4 {
        rig.send(number).expect("room");
    }
    rig.reap();
    assert!(rig.on_their_way.is_empty() && rig.far_receives().is_empty());
    assert_eq!((rig.umem.available(), rig.counter("fault_tx_lost")), (4, 4));
}

#[test]
fn what_is_lost_on_its_way_in_goes_to_the_pool() {
    let mut rig = Rig::new("rx.loss=100%", 4);
    (0..20).for_each(|number| assert!(rig.far.send(&frame_of(number))));
    assert!(rig.receive().is_empty() && rig.receive().is_empty());
    assert_eq!(rig.umem.available(), 4);
}

#[test]
fn damage_out_is_done_to_a_copy_and_spares_the_ethernet_header() {
    let mut rig = Rig::new("tx.corrupt=1", 4);
    let chunk = rig.send(7).expect("room");
    let mut done = Vec::new();
    rig.device.completions(&mut rig.umem, &mut done);
    assert_eq!(done.iter().map(CompletedFrame::chunk).collect::<Vec<_>>(), [chunk], "and not the copy");
    let original = done.remove(0).into_tx(64);
    assert_eq!(rig.umem.tx_bytes(&original), frame_of(7), "it may be retransmitted from");
    rig.umem.release_tx(original);
    let sent = rig.far_receives();
    let differing: u32 = sent[0].iter().zip(frame_of(7)).map(|(a, b)| (a ^ b).count_ones()).sum();
    assert_eq!((sent.len(), differing), (1, 1), "one bit");
    assert_eq!(sent[0][..ETHERNET_HEADER], frame_of(7)[..ETHERNET_HEADER]);
    assert_eq!(rig.umem.available(), 4);
}

#[test]
fn a_double_needs_a_chunk_and_is_left_out_without() {
    let mut rig = Rig::new("dup=1", 2);
    rig.send(1).expect("room");
    assert_eq!(rig.far_receives().len(), 2);
    rig.reap();
    assert_eq!(rig.umem.available(), 2, "the copy's completion is not the stack's");
    let held = rig.umem.allocate().expect("a chunk");
    rig.send(2).expect("room");
    assert_eq!(rig.far_receives().len(), 1);
    rig.reap();
    rig.umem.release(held);
    assert_eq!(rig.counter("fault_tx_duplicated"), 1);
}

#[test]
fn a_delayed_frame_comes_when_it_is_due() {
    let mut rig = Rig::new("delay=20ms", 8);
    rig.send(1).expect("room");
    assert!(rig.far.send(&frame_of(2)));
    assert!(rig.receive().is_empty() && rig.far_receives().is_empty());
    assert_eq!(rig.device.poll_timeout(), Some(Instant::from_millis(20)));
    rig.now = Instant::from_millis(19);
    assert!(rig.receive().is_empty());
    rig.now = Instant::from_millis(20);
    assert_eq!(rig.receive(), [frame_of(2)]);
    assert_eq!(rig.far_receives(), [frame_of(1)]);
    assert_eq!(rig.device.poll_timeout(), None);
}

#[test]
fn a_link_of_a_rate_sends_one_frame_after_the_other_and_has_a_queue() {
    // 64 bytes take 1 ms at 512 kbit/s, and 2000 bytes hold 31 of them.
    let mut rig = Rig::new("tx.rate=512kbit,tx.queue=2000,delay=20ms", 64);
    for number in 0..40 {
        rig.send(number).expect("room");
    }
    assert_eq!(rig.device.poll_timeout(), Some(Instant::from_millis(21)));
    rig.reap();
    assert_eq!(rig.counter("fault_tx_queue_full"), 9);
    assert_eq!(rig.umem.available(), 64 - 31, "what found no room has come back");
    for ms in 21..=51 {
        rig.now = Instant::from_millis(ms);
        rig.receive();
        assert_eq!(rig.far_receives(), [frame_of(ms as u32 - 21)], "one a millisecond");
    }
    rig.reap();
    assert_eq!(rig.umem.available(), 64);
}

#[test]
fn losses_in_bursts_are_as_many_and_come_together() {
    let mut rig = Rig::new("rx.loss=0.1,rx.burst=5,seed=5", 8);
    let mut numbers = Vec::new();
    for number in 0..20_000 {
        assert!(rig.far.send(&frame_of(number)));
        numbers.extend(rig.receive().iter().map(number_of));
    }
    let lost = 20_000 - numbers.len();
    let bursts = numbers.windows(2).filter(|pair| pair[1] - pair[0] > 1).count();
    assert!((1700..2300).contains(&lost), "{lost} of 20,000 at 10 %");
    let mean = lost as f64 / bursts as f64;
    assert!((4.5..5.5).contains(&mean), "{mean} in a row");
}

#[test]
fn a_reordered_frame_is_overtaken_and_never_kept_for_long() {
    let mut rig = Rig::new("rx.reorder=0.1,seed=3", 64);
    let mut numbers = Vec::new();
    for number in 0..1000 {
        assert!(rig.far.send(&frame_of(number)));
        numbers.extend(rig.receive().iter().map(number_of));
    }
    rig.now += Duration::from_millis(10);
    numbers.extend(rig.receive().iter().map(number_of));
    let overtaken = numbers.windows(2).filter(|pair| pair[0] > pair[1]).count();
    assert!((50..150).contains(&overtaken), "{overtaken} of 1000");
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..1000), "none is missing, none is doubled");
}

/// A seed that a bug was found with is of use only if it finds it again on a machine that is faster.
#[test]
fn what_happens_to_a_frame_depends_on_those_before_it_and_not_on_when_they_came() {
    let fates = |between: Duration| {
        let mut rig = Rig::new("loss=0.2,reorder=0.2,dup=0.2,delay=5ms,seed=7", 1024);
        for number in 0..100 {
            rig.now += between;
            rig.receive();
            assert!(rig.far.send(&frame_of(number)));
            rig.receive();
        }
        rig.settle();
        ["fault_rx_lost", "fault_rx_duplicated", "fault_rx_reordered"].map(|name| rig.counter(name))
    };
    assert_eq!(fates(Duration::from_micros(1)), fates(Duration::from_millis(3)));
}

#[test]
fn faults_hit_as_often_as_asked_and_the_same_frames_for_the_same_seed() {
    let run = |seed: u32| {
        let mut rig = Rig::new(&format!("rx.loss=0.2,seed={seed}"), 8);
        let mut numbers = Vec::new();
        for number in 0..1000 {
            assert!(rig.far.send(&frame_of(number)));
            numbers.extend(rig.receive().iter().map(number_of));
        }
        numbers
    };
    let survivors = run(1);
    assert!((750..850).contains(&survivors.len()), "{} of 1000", survivors.len());
    assert_eq!(survivors, run(1));
    assert_ne!(survivors, run(2));
}

proptest! {
    /// Whatever the faults, no chunk is lost or doubled, and what arrives undamaged was sent.
    #[test]
    fn frames_are_conserved(
        loss in 0.0..0.5f64, burst in 1.0..5.0f64, rate in prop_oneof![Just(None), (1..1000u64).prop_map(Some)],
        reorder in 0.0..0.5f64, dup in 0.0..0.5f64, corrupt in 0.0..0.3f64,
        delay in prop_oneof![Just(0u64), 1..50u64], seed: u64, chunks in 2..64u32, ring_size in 2..64usize,
        completion_delay in 0..4u32, steps in prop::collection::vec(0..5u8, 1..300), capture_inside: bool,
    ) {
        let (device, far) = memory::tap(memory::Options { ring_size, completion_delay });
        let rate = rate.map_or_else(String::new, |rate| format!("rate={rate}kbit,queue=2000,"));
        let spec = format!("{rate}burst={burst},loss={loss},reorder={reorder},dup={dup},corrupt={corrupt},delay={delay}ms,seed={seed}");
        let spec: FaultSpec = spec.parse().expect("a spec");
        let capture = |device| {
            let recorder = Recorder::to_writer(Box::new(std::io::sink()), "xs-a", Duration::ZERO);
            Capture::new(device, &recorder.expect("a header"))
        };
        let device: Box<dyn Device> = if capture_inside {
            Box::new(Fault::new(Box::new(capture(Box::new(device))), spec))
        } else {
            Box::new(capture(Box::new(Fault::new(Box::new(device), spec))))
        };
        let mut rig = Rig::over(device, far, chunks);
        let mut sent_in = 0;
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                0 => { rig.send(number as u32); }
                1 => { sent_in += usize::from(rig.far.send(&frame_of(number as u32))); }
                2 => { rig.receive(); }
                3 => { rig.reap(); rig.far_receives(); }
                _ => rig.now += Duration::from_millis(5),
            }
            prop_assert!(rig.umem.available() <= rig.umem.chunks());
        }
        let received = rig.settle();
        prop_assert!(received.len() <= 2 * sent_in);
        prop_assert!(rig.on_their_way.is_empty(), "all that was sent came back");
        prop_assert_eq!(rig.umem.available(), rig.umem.chunks());
    }
}
