//! Which segments are acceptable (RFC 9293 §3.4, the table of four cases; §3.10.7.4, first step), and what becomes of
//! those that are not.

use crate::dsl::{Script, config, pattern, plain_options, seg};
use stack_user::{
    tcp::{Config, Error, Event, State},
    telemetry::DropReason,
};

const BUFFER: i64 = 4000;

/// A receive window of [`BUFFER`] bytes, which starts at 0.
fn open() -> Script {
    Script::established(Config { recv_buffer: BUFFER as usize, ..config() }, plain_options())
}

/// A receive window of zero, at [`BUFFER`].
fn closed() -> Script {
    let mut s = open();
    for i in 0..4 {
        s.inject(seg(".").seq(i * 1000).ack(0).len(1000));
    }
    s.drain();
    assert_eq!(s.info().receive_window, 0);
    s
}

// SEG.LEN = 0, RCV.WND > 0.

#[test]
fn an_empty_segment_inside_the_window_is_acceptable_rfc9293_3_4() {
    let mut s = open();
    s.write(10);
    s.expect(seg("P.").seq(0).len(10));
    s.inject(seg(".").seq(BUFFER - 1).ack(10));
    assert_eq!(s.info().unacknowledged, 0);
    s.expect_silence();
    s.finish();
}

#[test]
fn an_empty_segment_before_the_window_is_answered_rfc9293_3_4() {
    let mut s = open();
    s.inject_dropped(seg(".").seq(-1).ack(0), DropReason::TcpOutOfWindow);
    s.expect(seg(".").seq(0).ack(0));
    s.expect_silence();
    s.finish();
}

#[test]
fn an_empty_segment_beyond_the_window_is_answered_rfc9293_3_4() {
    let mut s = open();
    s.inject_dropped(seg(".").seq(BUFFER + 1).ack(0), DropReason::TcpOutOfWindow);
    s.expect(seg(".").seq(0).ack(0));
    s.finish();
}

// SEG.LEN = 0, RCV.WND = 0.

#[test]
fn an_empty_segment_at_a_closed_window_is_acceptable_rfc9293_3_4() {
    let mut s = closed();
    s.write(10);
    s.expect(seg("P.").seq(0).ack(BUFFER).len(10));
    s.inject(seg(".").seq(BUFFER).ack(10));
    assert_eq!(s.info().unacknowledged, 0);
    s.expect_silence();
    s.finish();
}

#[test]
fn an_empty_segment_beside_a_closed_window_is_answered_rfc9293_3_4() {
    for seq in [BUFFER - 1, BUFFER + 1] {
        let mut s = closed();
        s.inject_dropped(seg(".").seq(seq).ack(0), DropReason::TcpOutOfWindow);
        s.expect(seg(".").seq(0).ack(BUFFER).window(0));
        s.finish();
    }
}

// SEG.LEN > 0, RCV.WND = 0.

/// RFC 9293 §3.4, MUST-66.
#[test]
fn rst_is_taken_when_the_window_is_closed_must_66() {
    let mut s = closed();
    s.events();
    s.inject(seg("R").seq(BUFFER));
    assert_eq!(s.events(), [Event::Failed(Error::Reset), Event::Closed]);
    s.finish();
}

#[test]
fn the_window_of_a_segment_counts_when_ours_is_closed_rfc9293_3_10_7_4() {
    let mut s = closed();
    s.inject_dropped(seg("P.").seq(BUFFER).ack(0).data(b"x").window(7000), DropReason::TcpOutOfWindow);
    assert_eq!(s.info().send_window, 7000);
    s.expect(seg(".").seq(0).ack(BUFFER).window(0));
    s.finish();
}

/// RFC 9293 §3.8.6.1: a FIN at a closed window is taken: it needs no room, and the peer is told that it has come.
#[test]
fn fin_is_taken_or_answered_when_the_window_is_closed() {
    let mut s = closed();
    let _ = s.try_inject(seg("F.").seq(BUFFER).ack(0));
    let (ack, _) = s.expect_any();
    assert!(ack.acknowledges().is_some());
    s.read(4000);
    s.drain();
    let _ = s.try_inject(seg("F.").seq(BUFFER).ack(0));
    s.state(State::CloseWait);
    s.finish();
}

// SEG.LEN > 0, RCV.WND > 0.

#[test]
fn data_that_starts_inside_is_taken_up_to_the_edge_rfc9293_3_4() {
    let mut s = open();
    s.inject(seg(".").seq(0).ack(0).len(3500));
    s.expect(seg(".").seq(0).ack(3500).window(500));
    s.inject(seg(".").seq(3500).ack(0).len(1000));
    s.expect(seg(".").seq(0).ack(BUFFER).window(0));
    assert_eq!(s.read(5000), pattern(0, BUFFER as usize));
    s.finish();
}

#[test]
fn data_that_ends_inside_is_taken_from_what_is_new_rfc9293_3_4() {
    let mut s = open();
    s.inject(seg(".").seq(0).ack(0).len(100));
    s.expect(seg(".").ack(100));
    s.inject(seg(".").seq(-50).ack(0).len(250));
    s.expect(seg(".").ack(200));
    assert_eq!(s.read(100), pattern(0, 100));
    assert_eq!(s.read(1000), pattern(100, 100));
    s.finish();
}

#[test]
fn data_that_covers_the_window_is_taken_where_it_fits_rfc9293_3_4() {
    let mut s = open();
    for i in 0..3 {
        s.inject(seg(".").seq(i * 1000).ack(0).len(1000));
    }
    s.drain();
    s.inject(seg(".").seq(2500).ack(0).len(2000));
    s.expect(seg(".").seq(0).ack(BUFFER).window(0));
    let mut data = Vec::new();
    while s.info().readable > 0 {
        data.extend(s.read(10_000));
    }
    assert_eq!(data, pattern(0, BUFFER as usize));
    s.finish();
}

#[test]
fn data_at_the_right_edge_is_not_taken_rfc9293_3_4() {
    let mut s = open();
    s.inject_dropped(seg("P.").seq(BUFFER).ack(0).len(10), DropReason::TcpOutOfWindow);
    s.expect(seg(".").seq(0).ack(0).window(BUFFER as u32));
    assert_eq!(s.info().readable, 0);
    s.finish();
}

#[test]
fn old_data_is_answered_with_what_we_have_rfc9293_3_4() {
    let mut s = open();
    s.inject(seg(".").seq(0).ack(0).len(1000));
    s.expect(seg(".").ack(1000));
    s.inject_dropped(seg(".").seq(200).ack(0).len(500), DropReason::TcpDuplicateData);
    s.expect(seg(".").ack(1000));
    assert_eq!(s.info().readable, 1000);
    s.finish();
}

/// RFC 9293 §3.10.7.4, first step: the ACK of a segment that is not acceptable does not count.
#[test]
fn the_ack_of_a_segment_far_outside_does_not_count_rfc9293_3_10_7_4() {
    let mut s = open();
    s.write(10);
    s.expect(seg("P.").seq(0).len(10));
    s.inject_dropped(seg("P.").seq(100_000).ack(10).data(b"forged"), DropReason::TcpOutOfWindow);
    assert_eq!(s.info().unacknowledged, 10);
    s.expect(seg(".").seq(10).ack(0));
    s.finish();
}

/// RFC 9293 §3.4: half of the number space lies before us, half behind; a segment at the far end is not near.
#[test]
fn the_far_side_of_the_circle_is_outside_rfc9293_3_4() {
    let mut s = open();
    for seq in [i64::from(i32::MAX), i64::from(i32::MIN), 0x4000_0000] {
        assert!(s.try_inject(seg("P.").seq(seq).ack(0).len(10)).is_err());
        s.expect(seg(".").seq(0).ack(0));
        assert_eq!(s.info().readable, 0);
    }
    s.finish();
}

// In the other synchronized states.

#[test]
fn in_fin_wait_2_what_is_outside_is_answered_rfc9293_3_10_7_4() {
    let mut s = open();
    s.app_shutdown();
    s.expect(seg("F.").seq(0).ack(0));
    s.inject(seg(".").seq(0).ack(1));
    s.state(State::FinWait2);
    s.inject_dropped(seg("P.").seq(9000).ack(1).len(10), DropReason::TcpOutOfWindow);
    s.expect(seg(".").seq(1).ack(0));
    s.state(State::FinWait2);
    s.finish();
}

#[test]
fn in_close_wait_the_peers_fin_again_is_answered_rfc9293_3_10_7_4() {
    let mut s = open();
    s.inject(seg("F.").seq(0).ack(0));
    s.expect(seg(".").seq(0).ack(1));
    s.inject_dropped(seg("F.").seq(0).ack(0), DropReason::TcpDuplicateData);
    s.expect(seg(".").seq(0).ack(1));
    s.state(State::CloseWait);
    s.finish();
}

#[test]
fn in_last_ack_the_peers_fin_again_is_answered_rfc9293_3_10_7_4() {
    let mut s = open();
    s.inject(seg("F.").seq(0).ack(0));
    s.expect(seg(".").seq(0).ack(1));
    s.app_shutdown();
    s.expect(seg("F.").seq(0).ack(1));
    s.inject_dropped(seg("F.").seq(0).ack(0), DropReason::TcpDuplicateData);
    s.expect(seg(".").seq(1).ack(1));
    s.state(State::LastAck);
    s.finish();
}

#[test]
fn in_closing_the_peers_fin_again_is_answered_rfc9293_3_10_7_4() {
    let mut s = open();
    s.app_shutdown();
    s.expect(seg("F.").seq(0).ack(0));
    s.inject(seg("F.").seq(0).ack(0));
    s.expect(seg(".").seq(1).ack(1));
    s.inject_dropped(seg("F.").seq(0).ack(0), DropReason::TcpDuplicateData);
    s.expect(seg(".").seq(1).ack(1));
    s.state(State::Closing);
    s.finish();
}

#[test]
fn in_time_wait_data_is_answered_and_not_taken_rfc9293_3_10_7_4() {
    let mut s = open();
    s.app_shutdown();
    s.expect(seg("F.").seq(0).ack(0));
    s.inject(seg("F.").seq(0).ack(1));
    s.expect(seg(".").seq(1).ack(1));
    s.inject_dropped(seg("P.").seq(-10).ack(1).len(10), DropReason::TcpDuplicateData);
    s.expect(seg(".").seq(1).ack(1));
    s.state(State::TimeWait);
    assert_eq!(s.info().readable, 0);
    s.finish();
}
