//! What every algorithm has to do.

use super::{testing::ack, *};

const MSS: usize = 1000;

fn all() -> impl Iterator<Item = Box<dyn CongestionControl>> {
    Algorithm::ALL.iter().map(|algorithm| algorithm.build(MSS))
}

/// Those whose window a loss makes smaller: what RFC 5681 says of window and threshold is for them.
fn window_based() -> impl Iterator<Item = Box<dyn CongestionControl>> {
    all().filter(|controller| controller.is_reduced_by_loss())
}

#[test]
fn initial_window_rfc6928_2() {
    assert_eq!(initial_window(1460), 14_600);
    assert_eq!(initial_window(536), 5_360);
    assert_eq!(initial_window(9_000), 18_000);
    for controller in all() {
        assert_eq!(
            (controller.cwnd(), controller.ssthresh()),
            (10 * MSS, usize::MAX),
            "{}",
            controller.name()
        );
    }
}

#[test]
fn names_are_read_as_they_are_written() {
    for &algorithm in Algorithm::ALL {
        assert_eq!(algorithm.to_string().parse(), Ok(algorithm));
        assert_eq!(algorithm.build(MSS).name(), algorithm.name());
    }
    assert_eq!("newreno".parse(), Ok(Algorithm::NewReno));
    assert_eq!(Algorithm::default(), Algorithm::Cubic);
    let error = "vegas".parse::<Algorithm>().expect_err("not there");
    assert_eq!(error.to_string(), "'vegas' is no congestion control algorithm; there are: cubic, reno, bbr");
}

#[test]
fn congestion_makes_the_window_smaller_and_a_timeout_leaves_one_segment_rfc5681_3_1() {
    for mut controller in window_based() {
        controller.on_congestion(Instant::ZERO, Signal::Loss, 10 * MSS);
        let after_loss = controller.cwnd();
        assert!(after_loss < 10 * MSS && after_loss == controller.ssthresh(), "{}", controller.name());
        controller.on_congestion(Instant::ZERO, Signal::Timeout, after_loss);
        assert_eq!(controller.cwnd(), MSS);
        assert!(controller.ssthresh() < after_loss && controller.ssthresh() >= 2 * MSS);
        controller.on_ack(&ack(MSS));
        assert_eq!(controller.cwnd(), 2 * MSS, "slow start");
        controller.restart_from_one_segment();
        assert_eq!(controller.cwnd(), MSS);
    }
}

#[test]
fn whatever_the_algorithm_a_timeout_leaves_one_segment_rfc5681_3_1() {
    for mut controller in all() {
        controller.on_congestion(Instant::ZERO, Signal::Timeout, 10 * MSS);
        assert_eq!(controller.cwnd(), MSS, "{}", controller.name());
        controller.on_spurious(Instant::ZERO);
        assert_eq!(controller.cwnd(), 10 * MSS, "{}", controller.name());
        controller.restart_from_one_segment();
        assert_eq!(controller.cwnd(), MSS, "{}", controller.name());
    }
}

#[test]
fn what_was_no_congestion_is_undone_once_rfc4015() {
    for mut controller in window_based() {
        for signal in [Signal::Loss, Signal::Timeout] {
            controller.on_congestion(Instant::ZERO, signal, 10 * MSS);
            controller.on_spurious(Instant::ZERO);
            assert_eq!((controller.cwnd(), controller.ssthresh()), (10 * MSS, usize::MAX));
        }
        controller.on_congestion(Instant::ZERO, Signal::Loss, 10 * MSS);
        let reduced = controller.cwnd();
        controller.on_spurious(Instant::ZERO);
        controller.on_congestion(Instant::ZERO, Signal::Loss, 10 * MSS);
        controller.on_spurious(Instant::ZERO);
        controller.on_spurious(Instant::ZERO);
        assert!(reduced < controller.cwnd() && controller.cwnd() == 10 * MSS, "once");
    }
}

#[test]
fn a_pause_longer_than_rto_restarts_from_iw_rfc5681_4_1() {
    for mut controller in all() {
        for _ in 0..100 {
            controller.on_ack(&ack(MSS));
        }
        let grown = controller.cwnd();
        let rto = Duration::from_millis(200);
        controller.on_idle(Instant::ZERO, rto, rto);
        assert_eq!(controller.cwnd(), grown, "not longer");
        controller.on_idle(Instant::ZERO, rto + Duration::from_nanos(1), rto);
        assert_eq!(controller.cwnd(), 10 * MSS);
        controller.restart_from_one_segment();
        controller.on_idle(Instant::ZERO, 2 * rto, rto);
        assert_eq!(controller.cwnd(), MSS, "never up");
    }
}

#[test]
fn smaller_segments_are_no_more_and_larger_ones_no_more_bytes_rfc5681_3_1() {
    for mut controller in all() {
        controller.set_mss(500);
        assert_eq!(controller.cwnd(), 5_000);
        controller.set_mss(1_000);
        assert_eq!(controller.cwnd(), 5_000);
    }
}

#[test]
fn a_rise_of_the_round_trip_ends_slow_start_rfc9406_4_2() {
    for mut controller in window_based() {
        let mut now = Instant::ZERO;
        for round in 0..20 {
            let rtt = Duration::from_millis(if round < 3 { 20 } else { 30 });
            for i in 0..10 {
                now += rtt / 10;
                let acked = Acked { now, rtt: Some(rtt), round_start: i == 0, ..ack(MSS) };
                controller.on_ack(&acked);
            }
        }
        assert!(controller.ssthresh() < usize::MAX, "{}", controller.name());
        assert!(controller.cwnd() >= controller.ssthresh());
    }
}
