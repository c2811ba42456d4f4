use super::{super::testing::ack, *};
use proptest::prelude::*;

const MSS: usize = 1000;
const RTT: Duration = Duration::from_millis(100);

/// In congestion avoidance after a loss at a window of `w_max`.
fn after_loss(w_max: usize) -> Cubic {
    let mut cubic = Cubic::new(MSS);
    cubic.now.cwnd = w_max as f64;
    cubic.on_congestion(Instant::ZERO, Signal::Loss, w_max);
    cubic
}

/// ACKs of all segments of a window, spread over a round trip.
fn round(cubic: &mut Cubic, now: &mut Instant, rtt: Duration) {
    let acks = (cubic.cwnd() / MSS).max(1);
    for _ in 0..acks {
        *now += rtt / acks as u32;
        cubic.on_ack(&Acked { now: *now, srtt: Some(rtt), ..ack(MSS) });
    }
}

/// W_cubic of RFC 9438 §4.2 in closed form, in segments, after a loss at `w_max` segments.
fn w_cubic(t: f64, w_max: f64) -> f64 {
    let k = (w_max * (1.0 - 0.7) / 0.4).cbrt();
    0.4 * (t - k).powi(3) + w_max
}

/// RFC 9438 §5.1: C is 0.4.
#[test]
fn the_window_follows_the_cubic_function_rfc9438_4_2() {
    let w_max = 2_000.0;
    let mut cubic = after_loss(2_000 * MSS);
    assert_eq!(cubic.cwnd(), 1_400 * MSS);
    let mut now = Instant::from_millis(1_000);
    // The epoch starts with the first ACK.
    cubic.on_ack(&Acked { now, srtt: Some(RTT), ..ack(MSS) });
    let start = now;
    while now.since(start) < Duration::from_secs(16) {
        round(&mut cubic, &mut now, RTT);
        let t = now.since(start).as_secs_f64();
        let window = cubic.cwnd() as f64 / MSS as f64;
        // An ACK of this round aims at where the function is a round later.
        let (now_due, then_due) = (w_cubic(t, w_max), w_cubic(t + 0.1, w_max));
        let slack = 0.001 * w_max;
        assert!(
            now_due - slack <= window && window <= then_due + slack,
            "after {t} s: {window}, not between {now_due} and {then_due}"
        );
    }
    assert!(cubic.cwnd() > 2_000 * MSS, "16 s is more than K = 11.4 s");
}

#[test]
fn a_short_path_grows_as_reno_would_rfc9438_4_3() {
    let mut cubic = after_loss(20 * MSS);
    let mut now = Instant::ZERO;
    let mut reno = 14.0;
    for _ in 0..100 {
        let window = cubic.cwnd();
        round(&mut cubic, &mut now, Duration::from_millis(1));
        let acked = (window / MSS) as f64;
        let alpha = if reno >= 20.0 { 1.0 } else { 9.0 / 17.0 };
        reno += alpha * acked / (window as f64 / MSS as f64);
        let window = cubic.cwnd() as f64 / MSS as f64;
        assert!((window - reno).abs() < 0.05 * reno, "{window} instead of {reno}");
    }
    assert!(cubic.cwnd() > 100 * MSS, "{}: a segment a round above cwnd_prior", cubic.cwnd());
}

/// RFC 9438 §4.1.1.
#[test]
fn a_loss_leaves_seven_tenths_and_a_mark_eighty_five_hundredths_rfc9438_4_6_rfc8511_3_1() {
    assert_eq!(after_loss(100 * MSS).cwnd(), 70 * MSS);
    let mut cubic = after_loss(100 * MSS);
    cubic.on_congestion(Instant::ZERO, Signal::Ecn, 70 * MSS);
    assert_eq!(cubic.cwnd(), 59_500);
    let mut cubic = Cubic::new(MSS);
    cubic.on_congestion(Instant::ZERO, Signal::Ecn, 10 * MSS);
    assert_eq!(cubic.cwnd(), 7 * MSS, "in slow start, a mark is as a loss");
    let mut cubic = after_loss(2 * MSS);
    assert_eq!(cubic.cwnd(), 2 * MSS, "never below two segments");
    cubic.on_congestion(Instant::ZERO, Signal::Loss, 50 * MSS);
    assert_eq!(cubic.cwnd(), 2 * MSS, "what is beyond the window does not count");
}

#[test]
fn what_was_in_flight_is_reduced_not_what_could_have_been_rfc9438_4_6() {
    let mut cubic = Cubic::new(MSS);
    cubic.now.cwnd = 100_000.0;
    cubic.on_congestion(Instant::ZERO, Signal::Loss, 50 * MSS);
    assert_eq!(cubic.cwnd(), 35 * MSS);
}

#[test]
fn a_loss_below_w_max_makes_room_for_others_rfc9438_4_7() {
    let mut cubic = after_loss(100 * MSS);
    assert_eq!(cubic.now.w_max, 100_000.0);
    cubic.on_congestion(Instant::ZERO, Signal::Loss, 70 * MSS);
    assert!((cubic.now.w_max - 59_500.0).abs() < 1e-6, "70 x (1 + 0.7) / 2");
}

#[test]
fn after_a_timeout_growth_starts_from_the_window_itself_rfc9438_4_8() {
    let mut cubic = Cubic::new(MSS);
    cubic.now.cwnd = 100_000.0;
    cubic.on_congestion(Instant::ZERO, Signal::Timeout, 100 * MSS);
    assert_eq!((cubic.cwnd(), cubic.ssthresh()), (MSS, 70 * MSS));
    let mut now = Instant::ZERO;
    while cubic.now.epoch.is_none() {
        round(&mut cubic, &mut now, RTT);
    }
    let epoch = cubic.now.epoch.as_ref().expect("congestion avoidance");
    assert_eq!(epoch.k, 0.0);
    assert!(cubic.now.w_max < 75_000.0, "not the 100 segments of before");
}

#[test]
fn an_end_of_slow_start_without_loss_has_no_w_max_to_return_to_rfc9438_4_10() {
    let mut cubic = Cubic::new(MSS);
    cubic.now.ssthresh = 10 * MSS;
    cubic.on_ack(&Acked { now: Instant::ZERO, srtt: Some(RTT), ..ack(MSS) });
    let epoch = cubic.now.epoch.as_ref().expect("congestion avoidance");
    assert_eq!((epoch.k, cubic.now.w_max), (0.0, 10_000.0));
}

#[test]
fn an_undo_restores_all_of_the_epoch_rfc9438_4_9_2() {
    let mut cubic = after_loss(1_000 * MSS);
    let mut now = Instant::ZERO;
    for _ in 0..20 {
        round(&mut cubic, &mut now, RTT);
    }
    let before = format!("{:?}", cubic.now);
    cubic.on_congestion(now, Signal::Loss, 10_000_000);
    assert_ne!(format!("{:?}", cubic.now), before);
    cubic.on_spurious(now);
    assert_eq!(format!("{:?}", cubic.now), before);
}

/// What has grown beyond it meanwhile is not put back.
#[test]
fn an_undo_that_comes_late_changes_nothing_rfc9438_4_9_2() {
    let mut cubic = after_loss(20 * MSS);
    let mut now = Instant::ZERO;
    while cubic.cwnd() <= 20 * MSS {
        round(&mut cubic, &mut now, RTT);
    }
    let grown = format!("{:?}", cubic.now);
    cubic.on_spurious(now);
    assert_eq!(format!("{:?}", cubic.now), grown);
}

#[test]
fn marks_leave_one_segment_at_last_and_losses_two_rfc9438_4_6() {
    let mut cubic = after_loss(2 * MSS);
    assert_eq!((cubic.cwnd(), cubic.ssthresh()), (2 * MSS, 2 * MSS));
    for left in [1_700, 1_190, 1_000, 1_000] {
        let in_flight = cubic.cwnd();
        cubic.on_congestion(Instant::ZERO, Signal::Ecn, in_flight);
        assert_eq!((cubic.cwnd(), cubic.ssthresh()), (left, 2 * MSS));
    }
}

#[test]
fn time_in_which_the_window_is_not_used_does_not_count_rfc9438_5_8() {
    let run = |pause: fn(&mut Cubic, &mut Instant)| {
        let mut cubic = after_loss(1_000 * MSS);
        let mut now = Instant::ZERO;
        for _ in 0..10 {
            round(&mut cubic, &mut now, RTT);
        }
        pause(&mut cubic, &mut now);
        for _ in 0..10 {
            round(&mut cubic, &mut now, RTT);
        }
        cubic.cwnd()
    };
    let busy = run(|_, _| {});
    let app_limited = run(|cubic, now| {
        for _ in 0..100 {
            *now += RTT;
            cubic.on_ack(&Acked { now: *now, srtt: Some(RTT), cwnd_limited: false, ..ack(MSS) });
        }
    });
    let idle = run(|cubic, now| {
        *now += 100 * RTT;
        cubic.on_idle(*now, 100 * RTT, 200 * RTT);
    });
    assert_eq!((app_limited, idle), (busy, busy));
}

#[test]
fn growth_is_at_most_by_half_a_round_trip_rfc9438_4_2() {
    let mut cubic = after_loss(10 * MSS);
    cubic.on_ack(&Acked { now: Instant::ZERO, srtt: Some(RTT), ..ack(MSS) });
    // Without an ACK for an hour, the function is far away.
    let mut now = Instant::from_millis(3_600_000);
    let before = cubic.cwnd();
    round(&mut cubic, &mut now, RTT);
    // (1 + 0.5 / n)^n, each ACK growing on the one before.
    assert!(cubic.cwnd() <= before * 1_649 / 1_000, "{} from {before}", cubic.cwnd());
}

#[test]
fn cube_roots() {
    for x in [0.0, 1e-9, 0.3, 1.0, 27.0, 1e3, 1e9, 1e15] {
        let root = cube_root(x);
        assert!((root - f64::cbrt(x)).abs() <= 1e-9 * x.max(1.0), "{x}: {root}");
    }
}

/// CUBIC by the letter of RFC 9438 §4, in segments, without regard for anything else.
#[derive(Debug)]
struct Model {
    cwnd: f64,
    ssthresh: f64,
    w_max: f64,
    cwnd_prior: f64,
    epoch: Option<(f64, f64, f64)>,
    after_timeout: bool,
    hystart: bool,
}

impl Model {
    fn on_ack(&mut self, now: f64, rtt: f64, segments: f64) {
        if self.cwnd.mul_add(MSS as f64, 1e-6) < self.ssthresh * MSS as f64 {
            let limit = if self.after_timeout { 1.0 } else if self.hystart { 8.0 } else { 2.0 };
            self.cwnd += segments.min(limit);
            if self.cwnd >= self.ssthresh {
                self.after_timeout = false;
            }
            return;
        }
        let (start, k, w_est) = self.epoch.get_or_insert_with(|| {
            self.w_max = self.w_max.max(self.cwnd);
            (now, ((self.w_max - self.cwnd) / 0.4).cbrt(), self.cwnd)
        });
        let segments = segments.min(self.cwnd);
        let alpha = if *w_est >= self.cwnd_prior { 1.0 } else { 3.0 * 0.3 / 1.7 };
        *w_est += alpha * segments / self.cwnd;
        let function = |t: f64| 0.4 * (t - *k).powi(3) + self.w_max;
        let t = now - *start;
        if function(t) < *w_est {
            self.cwnd = self.cwnd.max(*w_est);
        } else {
            let target = function(t + rtt).max(self.cwnd).min(1.5 * self.cwnd);
            self.cwnd += segments * (target - self.cwnd) / self.cwnd;
        }
    }

    fn on_congestion(&mut self, signal: Signal, flight: f64) {
        let in_slow_start = self.cwnd < self.ssthresh;
        let beta = if signal == Signal::Ecn && !in_slow_start { 0.85 } else { 0.7 };
        self.cwnd_prior = self.cwnd;
        self.w_max = if self.cwnd < self.w_max { self.cwnd * 1.7 / 2.0 } else { self.cwnd };
        let reduced = flight.min(self.cwnd) * beta;
        self.ssthresh = reduced.max(2.0);
        self.cwnd = if signal == Signal::Ecn { reduced.max(1.0) } else { self.ssthresh };
        self.epoch = None;
        self.hystart = false;
        if signal == Signal::Timeout {
            self.cwnd = 1.0;
            self.w_max = 0.0;
            self.after_timeout = true;
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Ack { after_ms: u64, segments: usize },
    Congestion(Signal),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ack = (0u64..500, 1usize..4).prop_map(|(after_ms, segments)| Step::Ack { after_ms, segments });
    let signal = prop_oneof![Just(Signal::Loss), Just(Signal::Ecn), Just(Signal::Timeout)];
    let step = prop_oneof![60 => ack, 1 => signal.prop_map(Step::Congestion)];
    proptest::collection::vec(step, 1..600)
}

proptest! {
    #[test]
    fn any_course_of_events_is_as_the_rfc_has_it_rfc9438_4(steps in steps()) {
        let mut cubic = Cubic::new(MSS);
        let mut model = Model {
            cwnd: 10.0, ssthresh: f64::INFINITY, w_max: 0.0, cwnd_prior: 0.0, epoch: None,
            after_timeout: false, hystart: true,
        };
        let mut now = Instant::ZERO;
        for step in steps {
            match step {
                Step::Ack { after_ms, segments } => {
                    now += Duration::from_millis(after_ms);
                    cubic.on_ack(&Acked { now, srtt: Some(RTT), ..ack(segments * MSS) });
                    model.on_ack(now.since(Instant::ZERO).as_secs_f64(), 0.1, segments as f64);
                }
                Step::Congestion(signal) => {
                    let flight = cubic.cwnd();
                    cubic.on_congestion(now, signal, flight);
                    model.on_congestion(signal, model.cwnd);
                    // The threshold is whole bytes, and what is near it goes one way or the other.
                    model.ssthresh = cubic.ssthresh() as f64 / MSS as f64;
                    if signal != Signal::Timeout {
                        let due = model.cwnd * MSS as f64;
                        prop_assert!((cubic.now.cwnd - due).abs() <= 2.0, "{} instead of {due}", cubic.cwnd());
                        model.cwnd = cubic.now.cwnd / MSS as f64;
                    }
                }
            }
            let due = model.cwnd * MSS as f64;
            prop_assert!((cubic.now.cwnd - due).abs() <= 1e-6 * due + 2.0, "{} instead of {due}", cubic.cwnd());
        }
    }

    #[test]
    fn whatever_comes_the_window_stays_within_reason(
        steps in proptest::collection::vec((0u8..8, any::<u32>(), any::<u16>()), 0..300),
    ) {
        let mut cubic = Cubic::new(MSS);
        let mut now = Instant::ZERO;
        for (kind, number, other) in steps {
            now += Duration::from_micros(u64::from(other) * 100);
            let before = cubic.cwnd();
            let bytes = number as usize % 3_000_000;
            match kind {
                0 => cubic.on_congestion(now, Signal::Loss, bytes),
                1 => cubic.on_congestion(now, Signal::Ecn, bytes),
                2 => cubic.on_congestion(now, Signal::Timeout, bytes),
                3 => cubic.on_spurious(now),
                4 => cubic.on_idle(now, Duration::from_millis(other.into()), Duration::from_millis(300)),
                5 => cubic.restart_from_one_segment(),
                6 => {}
                _ => cubic.on_ack(&Acked {
                    now,
                    rtt: Some(Duration::from_micros(number.into())),
                    srtt: Some(Duration::from_micros(number.into())),
                    round_start: other % 7 == 0,
                    cwnd_limited: other % 3 > 0,
                    paced: other % 2 > 0,
                    ..ack(bytes)
                }),
            }
            prop_assert!(cubic.cwnd() >= MSS && cubic.ssthresh() >= 2 * MSS);
            prop_assert!(cubic.now.cwnd.is_finite());
            if matches!(kind, 0..=2) {
                prop_assert!(cubic.cwnd() <= before.max(2 * MSS), "congestion never opens the window");
            }
        }
    }
}
