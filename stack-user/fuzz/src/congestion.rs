//! Congestion control under any sequence of events: the window stays between a segment and what the acknowledged bytes
//! can have made of it.

use stack_user::{
    tcp::{
        congestion::{Acked, Algorithm, CongestionControl, Delivered, Lost, Signal, initial_window},
        delivery_rate::Sample,
    },
    time::{Duration, Instant},
};

use super::input::{Input, tell};

/// Where windows end that were never limited by anything: far above what any path holds, far below an overflow.
const LARGEST: usize = 1 << 50;

struct Model {
    congestion: Box<dyn CongestionControl>,
    now: Instant,
    mss: usize,
    /// The most that the window can have become: what it was at first, and all that was acknowledged since.
    bound: usize,
    /// What was delivered and lost so far.
    delivered: u64,
    lost: u64,
}

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mss = input.pick(&[1460, 1448, 536, 48, 8948]);
    let algorithm = input.pick(Algorithm::ALL);
    let congestion = algorithm.build(mss);
    assert_eq!(congestion.cwnd(), initial_window(mss));
    let now = Instant::from_millis(1_000);
    let mut model = Model { bound: congestion.cwnd(), congestion, now, mss, delivered: 0, lost: 0 };
    while !input.is_empty() {
        model.step(&mut input);
        model.check();
    }
}

impl Model {
    fn step(&mut self, input: &mut Input<'_>) {
        self.now += Duration::from_micros(input.pick(&[0, 1, 100, 10_000, 1_000_000, 3_600_000_000]));
        let before = (self.congestion.cwnd(), self.congestion.ssthresh());
        let in_flight = before.0 * input.below(9) / 4;
        match input.below(16) {
            0 => self.congest(input, in_flight),
            1 => {
                self.congestion.on_spurious(self.now);
                tell(|| "it was none".into());
                assert!(self.congestion.cwnd() >= before.0 && self.congestion.ssthresh() >= before.1);
            }
            2 => {
                let rto = Duration::from_millis(input.pick(&[200, 1000, 60_000]));
                let idle = rto * (1 + u32::from(input.byte()));
                tell(|| format!("idle for {idle:?}"));
                self.congestion.on_idle(self.now, idle, rto);
                // BBR may end ProbeRTT then, which had made its window smaller.
                if self.congestion.is_reduced_by_loss() {
                    assert!(self.congestion.cwnd() <= before.0.max(initial_window(self.mss)));
                }
            }
            3 if input.one_in(4) => {
                self.mss = input.pick(&[1460, 1400, 536, 1, 8948]);
                tell(|| format!("mss {}", self.mss));
                self.congestion.set_mss(self.mss);
                self.bound = self.bound.max(self.congestion.cwnd());
            }
            4 if input.one_in(4) => {
                tell(|| "restart".into());
                self.congestion.restart_from_one_segment();
                assert_eq!(self.congestion.cwnd(), self.mss);
            }
            5..9 => self.deliver(input, in_flight),
            _ => self.acknowledge(input, in_flight),
        }
    }

    /// What is delivered and lost, of which nothing agrees but that no more is delivered in a sample than at all.
    fn deliver(&mut self, input: &mut Input<'_>, in_flight: usize) {
        let before = self.congestion.cwnd();
        let bytes = input.pick(&[0, 1, 1, 2, 10, 1000, 1_000_000]) * self.mss + input.below(2);
        let lost = input.pick(&[0, 0, 0, 1, 2, 10, 1_000_000]) * self.mss;
        self.delivered += bytes as u64;
        self.lost += lost as u64;
        let rtt = input.pick(&[None, Some(0), Some(1), Some(10_000), Some(200_000), Some(100_000_000)]);
        let sample = Sample {
            delivered: self.delivered * input.below(9) as u64 / 8,
            interval: Duration::from_micros(input.pick(&[1, 100, 10_000, 1_000_000, 3_600_000_000])),
            prior_delivered: self.delivered * input.below(9) as u64 / 8,
            in_flight: input.pick(&[0, self.mss, in_flight]),
            prior_lost: 0,
            app_limited: input.one_in(4),
        };
        let since_sent = lost + input.below(4) * self.mss;
        let delivered = Delivered {
            now: self.now,
            bytes,
            total: self.delivered,
            in_flight,
            sample: Some(sample).filter(|_| bytes > 0 && !input.one_in(8)),
            lost_since_sent: since_sent,
            rtt: rtt.map(Duration::from_micros),
            lost: (lost > 0).then_some(Lost {
                bytes: lost,
                in_flight,
                since_sent,
                app_limited: sample.app_limited,
            }),
            cwnd_limited: !input.one_in(4),
            recovering: input.one_in(2),
            sack: !input.one_in(8),
        };
        tell(|| format!("{delivered:?}"));
        self.congestion.on_delivered(&delivered);
        // A model has a least window of its own, and four segments are the largest of these.
        self.bound = self.bound.saturating_add(bytes).max(4 * self.mss);
        if self.congestion.is_reduced_by_loss() {
            assert_eq!(self.congestion.cwnd(), before, "the window is on_ack's business");
        }
    }

    fn congest(&mut self, input: &mut Input<'_>, in_flight: usize) {
        let before = self.congestion.cwnd();
        let signal = input.pick(&[Signal::Loss, Signal::Ecn, Signal::Timeout]);
        tell(|| format!("{signal:?} with {in_flight} in flight"));
        self.congestion.on_congestion(self.now, signal, in_flight);
        let (cwnd, ssthresh) = (self.congestion.cwnd(), self.congestion.ssthresh());
        assert!(ssthresh >= 2 * self.mss, "RFC 5681 §3.1, equation 4");
        assert!(cwnd <= before.max(2 * self.mss), "congestion makes the window larger");
        if self.congestion.is_reduced_by_loss() {
            assert!(ssthresh <= before.max(in_flight).max(2 * self.mss), "a threshold above all that was");
        }
        if signal == Signal::Timeout {
            assert!(cwnd <= self.mss, "RFC 5681 §3.1: a loss window of a segment");
        }
    }

    fn acknowledge(&mut self, input: &mut Input<'_>, in_flight: usize) {
        let before = self.congestion.cwnd();
        let segments = input.pick(&[0, 1, 1, 2, 10, 1000, 1_000_000]);
        let rtt = input.pick(&[None, Some(0), Some(1), Some(10_000), Some(200_000), Some(100_000_000)]);
        let rtt = rtt.map(Duration::from_micros);
        let acked = Acked {
            now: self.now,
            bytes: segments * self.mss + input.below(2),
            in_flight,
            rtt,
            srtt: rtt.or(Some(Duration::from_millis(input.byte().into()))).filter(|_| !input.one_in(8)),
            round_start: input.one_in(3),
            cwnd_limited: !input.one_in(4),
            paced: input.one_in(2),
        };
        tell(|| format!("{acked:?}"));
        self.congestion.on_ack(&acked);
        self.bound = self.bound.saturating_add(acked.bytes);
        let cwnd = self.congestion.cwnd();
        assert!(cwnd >= before || cwnd >= self.mss, "an ACK takes window away");
        if !acked.cwnd_limited {
            assert!(cwnd <= before, "a window that is not used grows (RFC 7661 §4.3)");
        }
    }

    fn check(&mut self) {
        let cwnd = self.congestion.cwnd();
        tell(|| format!("    cwnd {cwnd}, ssthresh {}", self.congestion.ssthresh()));
        assert!(cwnd >= self.mss, "less than a segment");
        assert!(cwnd <= LARGEST, "beyond all bounds");
        // Two segments are the least threshold, so an undo may come back to two of the largest ones.
        self.bound = self.bound.max(2 * self.mss);
        assert!(cwnd <= self.bound, "the window has grown by more than was acknowledged");
        if let Some(rate) = self.congestion.pacing_rate() {
            assert!(rate > 0, "a rate of nothing would never send again");
        }
    }
}
