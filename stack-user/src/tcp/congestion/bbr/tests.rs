//! BBR over a path of one link and one queue, packet by packet.

use std::collections::VecDeque;

use super::{
    super::{Delivered, Lost, Signal, testing},
    *,
};
use crate::tcp::delivery_rate::Sample;

const MSS: usize = 1000;

/// 10 Mbyte/s and 50 ms: the path holds 500 segments.
const RATE: u64 = 10_000_000;
const RTT: Duration = Duration::from_millis(50);
const BDP: usize = 500 * MSS;

/// A segment on its way: when something is heard of it, and what was so when it was sent.
struct Flying {
    heard_at: Instant,
    sent_at: Instant,
    first_sent_at: Instant,
    delivered_at: Instant,
    delivered: u64,
    in_flight: usize,
    lost_before: u64,
    lost: bool,
    limited: bool,
}

struct Path {
    bbr: Bbr,
    now: Instant,
    rate: u64,
    /// Bytes that the queue in front of the link holds.
    queue: usize,
    /// Bytes in it that are others'.
    others: usize,
    /// One segment of so many is lost.
    lose_one_of: Option<u64>,
    /// The application writes no faster, in bytes per second.
    application: Option<u64>,
    /// When the link has sent all that it has.
    link_free: Instant,
    next_send: Instant,
    flying: VecDeque<Flying>,
    sent: u64,
    total: u64,
    lost: u64,
    first_sent_at: Instant,
    delivered_at: Instant,
    recovering_until: Instant,
    states: Vec<State>,
}

fn time_for(bytes: usize, rate: u64) -> Duration {
    Duration::from_nanos(bytes as u64 * 1_000_000_000 / rate.max(1))
}

impl Path {
    fn new() -> Self {
        let start = Instant::from_millis(1_000);
        Self {
            bbr: Bbr::new(MSS),
            now: start,
            rate: RATE,
            queue: 2 * BDP,
            others: 0,
            lose_one_of: None,
            application: None,
            link_free: start,
            next_send: start,
            flying: VecDeque::new(),
            sent: 0,
            total: 0,
            lost: 0,
            first_sent_at: start,
            delivered_at: start,
            recovering_until: start,
            states: vec![State::Startup],
        }
    }

    fn in_flight(&self) -> usize {
        self.flying.len() * MSS
    }

    fn send(&mut self) {
        if self.flying.is_empty() {
            (self.first_sent_at, self.delivered_at) = (self.now, self.now);
        }
        self.sent += 1;
        let waiting = self.link_free.since(self.now);
        let overflow = waiting > time_for(self.queue, self.rate);
        let lost = overflow || self.lose_one_of.is_some_and(|n| self.sent.is_multiple_of(n));
        if !overflow {
            self.link_free = self.link_free.max(self.now) + time_for(MSS, self.rate);
        }
        self.flying.push_back(Flying {
            heard_at: self.link_free.max(self.now) + time_for(self.others, self.rate) + RTT,
            sent_at: self.now,
            first_sent_at: self.first_sent_at,
            delivered_at: self.delivered_at,
            delivered: self.total,
            in_flight: self.in_flight() + MSS,
            lost_before: self.lost,
            lost,
            limited: self.application.is_some(),
        });
        let rate = self.bbr.pacing_rate.unwrap_or(u64::MAX);
        let rate = self.application.map_or(rate, |application| application.min(rate));
        self.next_send = self.now.max(self.next_send) + time_for(MSS, rate);
    }

    fn hear(&mut self, segment: &Flying) {
        let mut delivered = Delivered {
            now: self.now,
            bytes: 0,
            total: self.total,
            in_flight: self.in_flight(),
            sample: None,
            lost_since_sent: 0,
            rtt: None,
            lost: None,
            cwnd_limited: self.in_flight() + 2 * MSS > self.bbr.cwnd,
            recovering: false,
            sack: true,
        };
        if segment.lost {
            self.lost += MSS as u64;
            if self.now > self.recovering_until {
                self.bbr.on_congestion(self.now, Signal::Loss, self.in_flight());
                self.recovering_until = self.now + RTT * 2;
            }
            delivered.lost = Some(Lost {
                bytes: MSS,
                in_flight: segment.in_flight,
                since_sent: (self.lost - segment.lost_before) as usize,
                app_limited: segment.limited,
            });
        } else {
            self.total += MSS as u64;
            (self.delivered_at, self.first_sent_at) = (self.now, segment.sent_at);
            let interval = segment.sent_at.since(segment.first_sent_at);
            let interval = interval.max(self.now.since(segment.delivered_at));
            delivered.bytes = MSS;
            delivered.total = self.total;
            delivered.lost_since_sent = (self.lost - segment.lost_before) as usize;
            delivered.rtt = Some(self.now.since(segment.sent_at));
            delivered.sample = Some(Sample {
                delivered: self.total - segment.delivered,
                interval,
                prior_delivered: segment.delivered,
                in_flight: segment.in_flight,
                prior_lost: 0,
                app_limited: segment.limited,
            });
        }
        delivered.recovering = self.now < self.recovering_until;
        self.bbr.on_delivered(&delivered);
        if self.states.last() != Some(&self.bbr.state) {
            self.states.push(self.bbr.state);
        }
    }

    /// So long; returns how many bytes were delivered.
    fn run(&mut self, time: Duration) -> u64 {
        let (end, before) = (self.now + time, self.total);
        loop {
            let may_send = self.in_flight() + MSS <= self.bbr.cwnd;
            let send_at = may_send.then(|| self.next_send.max(self.now));
            let hear_at = self.flying.front().map(|segment| segment.heard_at);
            match (send_at, hear_at) {
                (Some(send_at), _) if send_at > end && hear_at.is_none_or(|at| at > end) => break,
                (None, Some(hear_at)) if hear_at > end => break,
                (Some(send_at), _) if hear_at.is_none_or(|at| send_at < at) => {
                    self.now = send_at;
                    self.send();
                }
                (_, Some(hear_at)) => {
                    self.now = self.now.max(hear_at);
                    if let Some(segment) = self.flying.pop_front() {
                        self.hear(&segment);
                    }
                }
                _ => panic!("nothing can happen any more"),
            }
        }
        self.now = end;
        self.total - before
    }

    /// Until that state begins.
    fn run_to(&mut self, state: State) {
        for _ in 0..100_000 {
            if self.bbr.state == state {
                return;
            }
            self.run(Duration::from_millis(1));
        }
        panic!("{state:?} does not come: {:?}", self.states);
    }

    /// Per cent of what the link carries that are delivered in `seconds`.
    fn share(&mut self, seconds: u64) -> u64 {
        self.run(Duration::from_secs(seconds)) * 100 / (seconds * self.rate)
    }
}

#[test]
fn startup_doubles_until_the_pipe_is_full_and_drain_empties_the_queue_draft_ccwg_bbr_5_3_1() {
    let mut path = Path::new();
    path.run_to(State::Drain);
    let took = path.now.since(Instant::from_millis(1_000));
    assert!(took < RTT * 14, "six doublings and three round trips without: {took:?}");
    assert!(path.bbr.bw() > RATE * 97 / 100, "{}", path.bbr.bw());
    path.run_to(State::Cruise);
    assert!(path.in_flight() <= BDP * 11 / 10, "{}", path.in_flight());
    assert_eq!(path.states, [State::Startup, State::Drain, State::Cruise], "DOWN is over at once");
}

#[test]
fn bandwidth_is_searched_in_turn_draft_ccwg_bbr_5_3_3() {
    let mut path = Path::new();
    path.run_to(State::Refill);
    path.run_to(State::Up);
    path.run_to(State::Down);
    path.run_to(State::Cruise);
    use State::{Cruise, Down, Drain, Refill, Startup, Up};
    assert_eq!(path.states, [Startup, Drain, Cruise, Refill, Up, Down, Cruise]);
    assert_eq!(path.bbr.bounds, Bounds::default(), "nothing was lost");
    let between = path.bbr.cycle.wait();
    assert!((2..=3).contains(&between.as_secs()), "§5.3.3.8.3: {between:?}");
}

#[test]
fn a_path_without_losses_is_full_and_its_queue_short_draft_ccwg_bbr_3_1() {
    let mut path = Path::new();
    path.run(Duration::from_secs(2));
    let share = path.share(20);
    assert!(share >= 95, "{share} %");
    path.run_to(State::Cruise);
    assert!(path.in_flight() < BDP * 11 / 10, "{}", path.in_flight());
}

#[test]
fn a_loss_in_a_thousand_or_a_hundred_is_borne_draft_ccwg_bbr_5_5_10() {
    for (one_of, least) in [(1000, 90), (100, 85)] {
        let mut path = Path { lose_one_of: Some(one_of), ..Path::new() };
        path.run(Duration::from_secs(2));
        let share = path.share(20);
        assert!(share >= least, "{share} % when one of {one_of} is lost");
    }
}

#[test]
fn more_bandwidth_is_found_and_less_is_noticed_draft_ccwg_bbr_5_5_2() {
    let mut path = Path::new();
    path.run(Duration::from_secs(3));
    path.rate = RATE * 4;
    path.run(Duration::from_secs(15));
    assert!(path.share(5) >= 85, "{:?}", path.bbr);
    path.rate = RATE / 4;
    path.run(Duration::from_secs(15));
    assert!(path.bbr.bw() < RATE / 4 * 12 / 10, "{} is too much", path.bbr.bw());
    assert!(path.share(5) >= 85, "{:?}", path.bbr);
}

/// The queue overflows: what was in flight when it did is the bound, and some of it is left free.
#[test]
fn a_short_queue_bounds_what_is_in_flight_draft_ccwg_bbr_5_5_10_2() {
    let mut path = Path { queue: 20 * MSS, ..Path::new() };
    path.run(Duration::from_secs(10));
    let bound = path.bbr.bounds.inflight_long;
    assert!((BDP / 2..BDP * 13 / 10).contains(&bound), "{bound}");
    assert!(path.bbr.inflight_with_headroom() < bound * 86 / 100, "§5.3.3.1");
    let (before, sent) = (path.lost, path.sent);
    let share = path.share(20);
    assert!(share >= 80, "{share} %");
    let lost = (path.lost - before) / MSS as u64 * 1000 / (path.sent - sent);
    assert!(lost < 15, "{lost} of a thousand are lost");
}

#[test]
fn losses_while_nothing_is_tried_bound_the_short_term_until_refill_draft_ccwg_bbr_5_5_10_3() {
    let mut path = Path::new();
    path.run_to(State::Cruise);
    path.lose_one_of = Some(20);
    path.run(RTT * 4);
    let bounds = path.bbr.bounds;
    assert!(bounds.bw_short < RATE && bounds.bw_short > RATE * 7 / 10, "{bounds:?}");
    assert_eq!(bounds.inflight_long, usize::MAX);
    path.run_to(State::Refill);
    assert_eq!((path.bbr.bounds.bw_short, path.bbr.bounds.inflight_short), (u64::MAX, usize::MAX));
}

/// A queue that others keep hides the short round trip.
#[test]
fn little_is_sent_when_the_short_round_trip_is_old_draft_ccwg_bbr_5_3_4() {
    let mut path = Path::new();
    path.run(Duration::from_secs(6));
    assert!(!path.states.contains(&State::ProbeRtt), "the queue is empty now and then: {:?}", path.states);
    path.others = BDP / 10;
    path.run_to(State::ProbeRtt);
    assert!(path.now.since(Instant::from_millis(6_000)) > Duration::from_secs(4));
    let (before, bw) = (path.bbr.prior_cwnd, path.bbr.bw());
    assert!(path.bbr.cwnd <= BDP * 52 / 100, "half of what the path holds: {}", path.bbr.cwnd);
    let began = path.now;
    path.run_to(State::Cruise);
    let took = path.now.since(began);
    assert!((200..400).contains(&took.as_millis()), "{took:?}");
    path.run(RTT * 2);
    assert!(path.bbr.cwnd >= before.min(BDP), "§5.3.4.4: {} after {before}", path.bbr.cwnd);
    assert!(path.bbr.bw() >= bw * 98 / 100, "it was not the path that was slow");
}

#[test]
fn a_slow_application_is_not_taken_for_a_slow_path_draft_ccwg_bbr_5_5_4() {
    let mut path = Path::new();
    path.run(Duration::from_secs(2));
    let bw = path.bbr.bw();
    path.application = Some(RATE / 100);
    path.run(Duration::from_secs(30));
    assert!(path.bbr.bw() >= bw * 98 / 100, "{} after {bw}", path.bbr.bw());
    let mut path = Path { application: Some(RATE / 100), ..Path::new() };
    path.run(Duration::from_secs(3));
    assert_eq!(path.bbr.state, State::Startup, "the pipe was never full");
}

#[test]
fn a_timeout_leaves_one_segment_until_all_is_repaired_draft_ccwg_bbr_5_6_4_4() {
    let mut path = Path::new();
    path.run_to(State::Cruise);
    let before = path.bbr.cwnd;
    path.bbr.on_congestion(path.now, Signal::Timeout, path.in_flight());
    assert_eq!(path.bbr.cwnd, MSS);
    let repairing = Delivered { recovering: true, sample: None, ..testing::delivered(path.now, MSS, RTT) };
    path.bbr.on_delivered(&repairing);
    assert_eq!(path.bbr.cwnd, 4 * MSS, "§5.6.4.3");
    path.bbr.on_delivered(&Delivered { recovering: false, ..repairing });
    assert!(path.bbr.cwnd >= before.min(2 * BDP), "{} after {before}", path.bbr.cwnd);
}

#[test]
fn what_was_no_loss_is_forgotten_draft_ccwg_bbr_5_5_11_2() {
    let mut path = Path::new();
    path.run(RTT * 3);
    assert_eq!(path.bbr.state, State::Startup);
    path.bbr.on_congestion(path.now, Signal::Loss, path.in_flight());
    path.bbr.leave_startup_for_loss();
    path.run(RTT / 4);
    assert_eq!(path.bbr.state, State::Drain);
    assert!(path.bbr.bounds.inflight_long < usize::MAX);
    path.bbr.on_spurious(path.now);
    assert_eq!((path.bbr.state, path.bbr.bounds), (State::Startup, Bounds::default()));
    path.run(Duration::from_secs(2));
    assert!(path.bbr.bw() > RATE * 97 / 100, "and Startup goes on");
}

#[test]
fn many_losses_end_startup_draft_ccwg_bbr_5_3_1_3() {
    let mut path = Path { queue: 50 * MSS, ..Path::new() };
    path.run_to(State::Drain);
    assert!(path.bbr.bounds.inflight_long < usize::MAX, "{:?}", path.bbr);
    let few = Path { lose_one_of: Some(100), ..Path::new() };
    let mut path = few;
    path.run_to(State::Drain);
    assert_eq!(path.bbr.bounds.inflight_long, usize::MAX, "these are not why");
}

#[test]
fn a_mark_is_taken_for_too_much_draft_ccwg_bbr_3_7() {
    let mut path = Path::new();
    path.run(RTT * 3);
    path.bbr.on_congestion(path.now, Signal::Ecn, path.in_flight());
    path.run_to(State::Drain);
    assert!(path.bbr.bounds.inflight_long < usize::MAX, "Startup is over");
    path.run_to(State::Up);
    let in_flight = path.in_flight();
    path.bbr.on_congestion(path.now, Signal::Ecn, in_flight);
    assert_eq!((path.bbr.state, path.bbr.bounds.inflight_long), (State::Down, in_flight));
}

#[test]
fn a_pause_keeps_window_and_rate_draft_ccwg_bbr_5_4_1() {
    let mut path = Path::new();
    path.run_to(State::Cruise);
    let cwnd = path.bbr.cwnd;
    let rto = Duration::from_millis(300);
    path.bbr.on_idle(path.now, rto, rto);
    assert_eq!(path.bbr.cwnd, cwnd);
    let rate = path.bbr.pacing_rate().expect("a rate");
    assert!((RATE * 95 / 100..=RATE * 102 / 100).contains(&rate), "{rate}");
    path.bbr.on_idle(path.now, rto * 2, rto);
    assert_eq!(path.bbr.cwnd, 10 * MSS, "what can't be paced restarts, RFC 5681 §4.1");
}

#[test]
fn the_first_rate_is_the_initial_window_in_a_round_trip_draft_ccwg_bbr_5_6_2() {
    let mut bbr = Bbr::new(MSS);
    assert_eq!(bbr.pacing_rate(), None);
    bbr.on_delivered(&testing::delivered(Instant::from_millis(1), MSS, Duration::from_millis(100)));
    assert_eq!(bbr.pacing_rate(), Some(277_000));
    assert_eq!(bbr.cwnd(), 11 * MSS);
}

#[test]
fn a_path_that_holds_less_than_a_segment_is_used_draft_ccwg_bbr_5_6_4_3() {
    let mut path = Path { rate: 10_000, queue: 20 * MSS, ..Path::new() };
    path.run(Duration::from_secs(10));
    assert!(path.share(30) >= 85, "{:?}", path.bbr);
    assert!(path.bbr.cwnd <= 10 * MSS, "{}", path.bbr.cwnd);
}
