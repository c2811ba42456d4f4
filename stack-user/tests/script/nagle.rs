//! Small segments: Nagle's algorithm and the sender's half of silly window avoidance (RFC 9293 §3.7.4, §3.8.6.2.1), and
//! the receiver's half (§3.8.6.2.2).

use crate::dsl::{Script, config, plain_options, seg};
use stack_user::tcp::Config;

fn established() -> Script {
    Script::established(config(), plain_options())
}

fn window(bytes: u32) -> Script {
    let mut s = Script::new(config());
    s.handshake(plain_options(), bytes);
    s
}

/// RFC 9293 §3.7.4, SHLD-7: nothing is outstanding, so the small segment goes.
#[test]
fn a_small_segment_goes_at_once_when_nothing_is_outstanding_shld_7() {
    let mut s = established();
    s.write(1);
    s.expect(seg("P.").seq(0).len(1));
    s.finish();
}

/// RFC 9293 §3.7.4, SHLD-7: a full segment never waits.
#[test]
fn a_full_segment_goes_although_data_is_outstanding_shld_7() {
    let mut s = established();
    s.write(1);
    s.expect(seg("P.").seq(0).len(1));
    s.write(1000);
    s.expect(seg(".").seq(1).len(1000));
    s.expect_silence();
    s.finish();
}

/// RFC 9293 §3.7.4, SHLD-7: what was gathered goes as soon as it fills a segment.
#[test]
fn small_writes_gather_until_they_fill_a_segment_shld_7() {
    let mut s = established();
    s.write(1);
    s.expect(seg("P.").seq(0).len(1));
    for _ in 0..9 {
        s.write(100);
        s.expect_silence();
    }
    s.write(100);
    s.expect(seg(".").seq(1).len(1000));
    s.finish();
}

/// RFC 9293 §3.7.4, SHLD-7: the rest of a large write waits for the ACK of what went before.
#[test]
fn the_odd_end_of_a_large_write_waits_for_an_ack_shld_7() {
    let mut s = established();
    s.write(2500);
    s.expect(seg(".").seq(0).len(1000));
    s.expect(seg(".").seq(1000).len(1000));
    s.expect_silence();
    s.inject(seg(".").seq(0).ack(1000));
    s.expect_silence();
    s.inject(seg(".").seq(0).ack(2000));
    s.expect(seg("P.").seq(2000).len(500));
    s.finish();
}

/// RFC 9293 §3.7.4, MUST-17.
#[test]
fn without_nagle_every_write_goes_at_once_must_17() {
    let mut s = Script::established(Config { nodelay: true, ..config() }, plain_options());
    for i in 0..5 {
        s.write(10);
        s.expect(seg("P.").seq(i * 10).len(10));
    }
    s.write(2500);
    s.expect(seg(".").seq(50).len(1000));
    s.expect(seg(".").seq(1050).len(1000));
    s.expect(seg("P.").seq(2050).len(500));
    s.finish();
}

/// RFC 9293 §3.7.4, MUST-17: switched off in the middle, it lets go what it held.
#[test]
fn switching_nagle_off_releases_what_it_held_must_17() {
    let mut s = established();
    s.write(10);
    s.expect(seg("P.").seq(0).len(10));
    s.write(20);
    s.expect_silence();
    s.connection.set_nodelay(true);
    s.expect(seg("P.").seq(10).len(20));
    s.connection.set_nodelay(false);
    s.write(30);
    s.expect_silence();
    s.finish();
}

/// RFC 9293 §3.9.1.2, SHLD-28: what was held and what came later travel together, in segments as large as possible.
#[test]
fn what_waited_goes_in_full_segments_shld_28() {
    let mut s = window(1000);
    s.write(1000);
    s.expect(seg("P.").seq(0).len(1000));
    for _ in 0..30 {
        s.write(100);
    }
    s.expect_silence();
    s.inject(seg(".").seq(0).ack(1000).window(60_000));
    for i in 1..4 {
        s.expect(seg(".").seq(i * 1000).len(1000));
    }
    s.expect_silence();
    s.finish();
}

// The sender's half (MUST-38).

/// RFC 9293 §3.8.6.2.1, rule 1.
#[test]
fn a_window_of_a_segment_is_used_must_38() {
    let mut s = window(1000);
    s.write(5000);
    s.expect(seg(".").seq(0).len(1000));
    s.expect_silence();
    s.finish();
}

/// RFC 9293 §3.8.6.2.1, rule 3: half of the largest window that there ever was is worth a segment.
#[test]
fn half_of_the_largest_window_is_used_must_38() {
    let mut s = window(800);
    s.inject(seg(".").seq(0).ack(0).window(399));
    s.write(5000);
    s.expect_silence();
    s.inject(seg(".").seq(0).ack(0).window(400));
    s.expect(seg(".").seq(0).len(400));
    s.finish();
}

/// RFC 9293 §3.8.6.2.1: crumbs that the window offers, one after the other, are left until they are worth a segment.
#[test]
fn crumbs_of_window_are_left_must_38() {
    let mut s = window(4000);
    s.write(10_000);
    assert_eq!(s.drain(), 4);
    // The peer's application reads 100 bytes at a time.
    for i in 1..10 {
        s.inject(seg(".").seq(0).ack(4000).window(i * 100));
        s.expect_silence();
    }
    s.inject(seg(".").seq(0).ack(4000).window(1000));
    s.expect(seg(".").seq(4000).len(1000));
    s.expect_silence();
    s.finish();
}

/// RFC 9293 §3.8.6.2.1, rule 4: the override timer keeps crumbs from lasting for ever; 0.1 to 1 s.
#[test]
fn the_override_timer_sends_what_fits_must_38() {
    let mut s = window(4000);
    s.write(10_000);
    assert_eq!(s.drain(), 4);
    s.inject(seg(".").seq(0).ack(4000).window(300));
    s.expect_within(100..=1000, seg(".").seq(4000).len(300));
    s.finish();
}

/// All that waits fits into the window, so nothing is gained by waiting (RFC 9293 §3.8.6.2.1, rule 2).
#[test]
fn the_last_of_the_data_goes_into_a_small_window_must_38() {
    let mut s = window(4000);
    s.write(4100);
    assert_eq!(s.drain(), 4);
    s.inject(seg(".").seq(0).ack(4000).window(150));
    s.expect(seg("P.").seq(4000).len(100));
    s.finish();
}

// The receiver's half (MUST-39).

/// RFC 9293 §3.8.6.2.2: the right edge moves by a segment, or half of the buffer, or not at all.
#[test]
fn our_window_does_not_open_by_crumbs_must_39() {
    let mut s = Script::established(Config { recv_buffer: 4000, ..config() }, plain_options());
    for i in 0..4 {
        s.inject(seg(".").seq(i * 1000).ack(0).len(1000));
        s.drain();
    }
    for _ in 0..14 {
        s.read(100);
        let _ = s.try_inject(seg(".").seq(4000).ack(0).len(1));
        s.expect(seg(".").seq(0).ack(4000).window(0));
    }
    s.read(100);
    s.read(100);
    let _ = s.try_inject(seg(".").seq(3999).ack(0));
    let (ack, _) = s.expect_any();
    assert!(ack.window >= 1460, "{}", ack.window);
    s.finish();
}

/// RFC 9293 §3.8.6.2.2: with a buffer smaller than two segments, half of it is the step.
#[test]
fn half_of_a_small_buffer_is_a_step_must_39() {
    let mut s = Script::established(Config { recv_buffer: 1000, ..config() }, plain_options());
    s.inject(seg(".").seq(0).ack(0).len(1000));
    s.expect(seg(".").ack(1000).window(0));
    s.read(499);
    s.expect_silence();
    s.read(1);
    s.expect(seg(".").ack(1000).window(500));
    s.finish();
}

/// RFC 9293 §3.8.6, SHLD-14: what was offered once stays offered.
#[test]
fn the_right_edge_never_moves_left_shld_14() {
    let mut s = Script::established(Config { recv_buffer: 5000, ..config() }, plain_options());
    let mut edge = 5000;
    for (seq, len) in [(0, 700), (700, 1000), (1700, 3), (1703, 1400), (3103, 1897)] {
        s.inject(seg(".").seq(seq).ack(0).len(len));
        let (ack, _) = s.expect_any();
        let right = seq + len as i64 + i64::from(ack.window);
        assert!(right >= edge, "{right} after {edge}");
        edge = right;
    }
    s.finish();
}
