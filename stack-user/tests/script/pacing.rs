//! Pacing (RFC 9438 §5, RFC 7661 §4.4.2) and pauses (RFC 5681 §4.1).

use crate::dsl::{Script, config, plain_options, seg};
use stack_user::{tcp::Config, time::Duration};

fn paced() -> Config {
    Config { pacing: true, ..config() }
}

/// A connection with a round trip of `ms`.
fn established(config: Config, ms: u64) -> Script {
    let mut s = Script::new(config);
    s.expect(seg("S").seq(-1));
    s.advance(ms);
    s.inject(seg("S.").seq(-1).ack(0).options(plain_options()));
    s.expect(seg(".").seq(0).ack(0));
    s
}

/// Lets timers expire until nothing more is sent for a while; returns when each segment left, in milliseconds.
fn send_all(s: &mut Script, segments: usize) -> Vec<u64> {
    let start = s.now;
    let mut times = Vec::new();
    while times.len() < segments {
        while s.poll().is_some() {
            times.push(s.now.since(start).as_millis() as u64);
        }
        if times.len() < segments {
            s.advance_to_timer();
        }
    }
    times
}

#[test]
fn the_initial_window_leaves_at_once_rfc6928_2() {
    let mut s = established(paced(), 100);
    s.write(20_000);
    assert_eq!(s.drain(), 10);
    s.finish();
}

#[test]
fn what_one_ack_sets_free_is_spread_over_half_a_round_trip_in_slow_start() {
    let mut s = established(paced(), 100);
    s.write(40_000);
    assert_eq!(s.drain(), 10);
    s.advance(100);
    s.inject(seg(".").seq(0).ack(10_000));
    let times = send_all(&mut s, 20);
    assert_eq!(times.iter().filter(|&&ms| ms == 0).count(), 2, "{times:?}");
    let last = times[19];
    assert!((40..=55).contains(&last), "20 segments at 20 in 50 ms: {times:?}");
    s.finish();
}

#[test]
fn without_pacing_it_leaves_at_once() {
    let mut s = established(Config { pacing: false, ..config() }, 100);
    s.write(40_000);
    assert_eq!(s.drain(), 10);
    s.advance(100);
    s.inject(seg(".").seq(0).ack(10_000));
    assert_eq!(s.drain(), 18, "L = 8, RFC 9406 §4.3");
    s.finish();
}

#[test]
fn a_lan_is_not_slowed_down() {
    let mut s = Script::new(paced());
    s.expect(seg("S").seq(-1));
    s.now += Duration::from_micros(50);
    s.inject(seg("S.").seq(-1).ack(0).options(plain_options()));
    s.expect(seg(".").seq(0).ack(0));
    let mut at = 0;
    for window in [10, 20, 40] {
        s.write(window * 1000);
        assert_eq!(s.drain(), window);
        at += window as i64 * 1000;
        s.now += Duration::from_micros(50);
        s.inject(seg(".").seq(0).ack(at));
    }
    s.finish();
}

#[test]
fn acks_do_not_wait_and_neither_does_the_timer() {
    let mut s = established(paced(), 100);
    s.write(40_000);
    assert_eq!(s.drain(), 10);
    s.advance(100);
    s.inject(seg(".").seq(0).ack(10_000));
    assert_eq!(s.drain(), 2);
    s.inject(seg(".").seq(0).ack(10_000).len(10));
    s.expect(seg(".").seq(12_000).ack(10));
    // Nothing more is acknowledged: at RTO the first that is missing goes out, whatever the bucket holds.
    let sent_at = s.now;
    while s.info().timeouts == 0 {
        s.drain();
        s.advance_to_timer();
    }
    s.expect(seg(".").seq(10_000).len(1000));
    assert!(s.now.since(sent_at) < Duration::from_millis(1_000));
    s.finish();
}

/// The first retransmission waits for nobody, and for what follows it counts like all else: two segments are a slow path's
/// bucket, and it is one of them.
#[test]
fn what_left_without_a_look_at_the_bucket_fills_it_rfc7661_4_4_2() {
    let first_two = |retransmission: bool| {
        let mut s = established(paced(), 100);
        s.write(10_000);
        assert_eq!(s.drain(), 10);
        s.advance_to_timer();
        assert_eq!(s.drain(), 1, "a probe");
        let timeout = s.connection.poll_timeout().expect("a timer runs");
        if retransmission {
            s.advance_to_timer();
            s.expect(seg(".").seq(0).ack(0).len(1000));
        } else {
            s.advance((timeout.since(s.now).as_millis() - 1) as u64);
        }
        s.inject(seg(".").seq(0).ack(10_000));
        s.write(2000);
        let times = send_all(&mut s, 2);
        s.finish();
        times
    };
    assert_eq!(first_two(false), [0, 0]);
    let times = first_two(true);
    assert!(times[0] == 0 && times[1] > 0, "{times:?}");
}

#[test]
fn after_a_pause_a_window_of_iw_leaves_at_once_rfc5681_4_1() {
    let mut s = established(paced(), 100);
    s.write(10_000);
    assert_eq!(s.drain(), 10);
    s.advance(100);
    s.inject(seg(".").seq(0).ack(10_000));
    s.advance(60_000);
    s.write(40_000);
    assert_eq!(s.info().in_flight, 0);
    assert!(s.drain() >= 10);
    s.finish();
}
