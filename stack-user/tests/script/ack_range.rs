//! The range of acceptable ACKs (RFC 9293 §3.10.7.4, fifth step; RFC 5961 §5), and the window that comes with them.

use crate::dsl::{Script, config, plain_options, seg};
use stack_user::telemetry::DropReason;

/// 3000 bytes are on their way.
fn sent() -> Script {
    let mut s = Script::established(config(), plain_options());
    s.write(3000);
    assert_eq!(s.drain(), 3);
    s
}

#[test]
fn an_ack_of_what_was_never_sent_is_answered_and_dropped_rfc9293_3_10_7_4() {
    let mut s = sent();
    s.inject_dropped(seg(".").seq(0).ack(3001), DropReason::TcpUnacceptableAck);
    s.expect(seg(".").seq(3000).ack(0));
    assert_eq!(s.info().unacknowledged, 3000);
    s.finish();
}

/// RFC 5961 §5.2: data with such an ACK is not taken.
#[test]
fn data_with_an_ack_of_the_future_is_not_taken_rfc5961_5_2() {
    let mut s = sent();
    s.inject_dropped(seg("P.").seq(0).ack(500_000).data(b"forged"), DropReason::TcpUnacceptableAck);
    s.expect(seg(".").seq(3000).ack(0));
    assert_eq!(s.info().readable, 0);
    s.finish();
}

/// RFC 5961 §5.2: nor is data whose ACK is older than any segment in the network.
#[test]
fn data_with_an_ack_older_than_the_largest_window_is_not_taken_rfc5961_5_2() {
    let mut s = sent();
    s.inject_dropped(seg("P.").seq(0).ack(-65_536).data(b"forged"), DropReason::TcpUnacceptableAck);
    s.expect(seg(".").seq(3000).ack(0));
    assert_eq!(s.info().readable, 0);
    s.finish();
}

/// RFC 5961 §5.2: SND.UNA - MAX.SND.WND is the oldest that is still possible.
#[test]
fn data_with_the_oldest_possible_ack_is_taken_rfc5961_5_2() {
    let mut s = sent();
    let _ = s.try_inject(seg("P.").seq(0).ack(-65_535).data(b"late"));
    assert_eq!(s.read(10), b"late");
    s.expect(seg(".").seq(3000).ack(4));
    s.finish();
}

/// RFC 9293 §3.10.7.4, fifth step: an old ACK acknowledges nothing, and its data is as good as other.
#[test]
fn data_with_an_old_ack_is_taken_rfc9293_3_10_7_4() {
    let mut s = sent();
    s.inject(seg(".").seq(0).ack(2000));
    let _ = s.try_inject(seg("P.").seq(0).ack(1000).data(b"overtaken"));
    assert_eq!(s.read(10), b"overtaken");
    assert_eq!(s.info().unacknowledged, 1000);
    s.finish();
}

/// RFC 9293 §3.10.7.4: an ACK of part of a segment is an ACK.
#[test]
fn an_ack_inside_a_segment_counts_up_to_there() {
    let mut s = sent();
    s.inject(seg(".").seq(0).ack(1500));
    assert_eq!(s.info().bytes_acked, 1500);
    s.inject(seg(".").seq(0).ack(3000));
    assert_eq!((s.info().bytes_acked, s.info().unacknowledged), (3000, 0));
    s.finish();
}

#[test]
fn an_ack_of_all_stops_the_timer_rfc6298_5_2() {
    let mut s = sent();
    s.inject(seg(".").seq(0).ack(3000));
    assert_eq!(s.connection.poll_timeout(), None);
    s.expect_silence_for(1_000_000);
    s.finish();
}

// SND.WL1 and SND.WL2.

#[test]
fn an_older_segment_does_not_change_the_window_rfc9293_3_10_7_4() {
    let mut s = sent();
    s.inject(seg("P.").seq(0).ack(1000).len(10).window(5000));
    assert_eq!(s.info().send_window, 5000);
    // It was sent before that one, with the same ACK.
    let _ = s.try_inject(seg(".").seq(0).ack(1000).window(9000));
    assert_eq!(s.info().send_window, 5000, "SND.WL1 = 0 < the number after the data is yet to come");
    s.finish();
}

#[test]
fn a_newer_segment_changes_the_window_rfc9293_3_10_7_4() {
    let mut s = sent();
    s.inject(seg("P.").seq(0).ack(0).len(10).window(5000));
    s.inject(seg(".").seq(10).ack(0).window(9000));
    assert_eq!(s.info().send_window, 9000);
    s.finish();
}

#[test]
fn an_older_ack_does_not_change_the_window_rfc9293_3_10_7_4() {
    let mut s = sent();
    s.inject(seg(".").seq(0).ack(2000).window(5000));
    let _ = s.try_inject(seg(".").seq(0).ack(1000).window(100));
    assert_eq!(s.info().send_window, 5000);
    s.finish();
}

/// RFC 9293 §3.8.6, MUST-34 and SHLD-15: the usable window is negative, and nothing new is sent.
#[test]
fn a_window_that_shrinks_below_what_was_sent_is_borne_must_34() {
    let mut s = Script::established(config(), plain_options());
    s.write(8000);
    for i in 0..8 {
        s.expect(seg(".").seq(i * 1000).len(1000));
    }
    s.write(1000);
    s.inject(seg(".").seq(0).ack(1000).window(2000));
    s.expect_silence();
    s.inject(seg(".").seq(0).ack(8000).window(2000));
    s.expect(seg(".").seq(8000).len(1000));
    s.finish();
}

/// RFC 9293 §3.8.6, SHLD-17: what was sent beyond a window that shrank may have arrived.
#[test]
fn data_beyond_a_shrunk_window_may_still_be_acknowledged_shld_17() {
    let mut s = sent();
    s.inject(seg(".").seq(0).ack(1000).window(0));
    s.inject(seg(".").seq(0).ack(3000).window(0));
    assert_eq!(s.info().unacknowledged, 0);
    s.finish();
}
