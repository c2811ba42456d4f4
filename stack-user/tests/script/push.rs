//! PSH and urgent data (RFC 9293 §3.9.1.2, §3.8.5).

use crate::dsl::{Script, config, pattern, plain_options, seg};
use stack_user::{tcp::Config, tcp::State};

fn established() -> Script {
    Script::established(config(), plain_options())
}

/// RFC 9293 §3.9.1.2, MUST-61: the last segment of what was written has PSH.
#[test]
fn the_last_segment_of_a_write_has_psh_must_61() {
    let mut s = established();
    s.write(2500);
    s.expect(seg(".").seq(0).len(1000).exact_flags());
    s.expect(seg(".").seq(1000).len(1000).exact_flags());
    s.inject(seg(".").seq(0).ack(2000));
    s.expect(seg("P.").seq(2000).len(500));
    s.finish();
}

/// RFC 9293 §3.9.1.2, MUST-61: also when the last segment is full.
#[test]
fn a_full_last_segment_has_psh_must_61() {
    let mut s = established();
    s.write(2000);
    s.expect(seg(".").seq(0).len(1000).exact_flags());
    s.expect(seg("P.").seq(1000).len(1000));
    s.finish();
}

/// RFC 9293 §3.9.1.2, MUST-60: nothing waits for ever for more to be written: an ACK, at the latest, releases it.
#[test]
fn what_is_written_does_not_wait_for_more_must_60() {
    let mut s = established();
    s.write(10);
    s.expect(seg("P.").seq(0).len(10));
    s.write(10);
    s.expect_silence();
    s.inject(seg(".").seq(0).ack(10));
    s.expect(seg("P.").seq(10).len(10));
    s.finish();
}

/// RFC 9293 §3.9.1.2, MUST-60: if that ACK does not come, the retransmission asks for it again.
#[test]
fn a_lost_ack_does_not_hold_what_is_written_must_60() {
    let mut s = established();
    s.write(10);
    s.expect(seg("P.").seq(0).len(10));
    s.write(10);
    s.expect_silence();
    s.advance(200);
    let (again, data) = s.expect_any();
    assert_eq!(data[..10], pattern(0, 10), "{again:?}");
    s.inject(seg(".").seq(0).ack(data.len() as i64));
    s.drain();
    assert_eq!(s.info().in_flight, 20 - data.len());
    s.finish();
}

/// RFC 9293 §3.9.1.2: what the peer pushes, and what it does not, is delivered alike (MAY-17).
#[test]
fn data_without_psh_is_delivered_as_soon_as_data_with_it() {
    let mut s = established();
    s.inject(seg(".").seq(0).ack(0).data(b"quiet"));
    assert_eq!(s.read(10), b"quiet");
    s.inject(seg("P.").seq(5).ack(0).data(b"loud"));
    assert_eq!(s.read(10), b"loud");
    s.drain();
    s.finish();
}

/// ACKs alone have no PSH: there is nothing to push.
#[test]
fn an_ack_alone_has_no_psh() {
    let mut s = established();
    s.inject(seg("P.").seq(0).ack(0).data(b"x"));
    s.expect(seg(".").seq(0).ack(1).exact_flags());
    s.finish();
}

// Urgent data.

/// RFC 9293 §3.8.5, MUST-31 and MUST-62; RFC 6093 §6: urgent data of any length is read in its place in the stream.
#[test]
fn urgent_data_is_read_in_line_must_31() {
    let mut s = established();
    s.inject(seg("P.").seq(0).ack(0).data(b"before"));
    s.inject(seg("UP.").seq(6).ack(0).data(b"urgent, and long").urgent(16));
    s.inject(seg("P.").seq(22).ack(0).data(b"after"));
    s.drain();
    let mut data = Vec::new();
    while s.info().readable > 0 {
        data.extend(s.read(100));
    }
    assert_eq!(data, b"beforeurgent, and longafter");
    s.finish();
}

/// RFC 9293 §3.8.5: the pointer may point at data that has not come, and nothing waits for that.
#[test]
fn a_pointer_beyond_the_data_changes_nothing() {
    let mut s = established();
    s.inject(seg("U.").seq(0).ack(0).data(b"now").urgent(60_000));
    s.expect(seg(".").seq(0).ack(3));
    assert_eq!(s.read(10), b"now");
    s.finish();
}

/// RFC 9293 §3.8.5: URG on an ACK without data announces, and has no other effect.
#[test]
fn urg_without_data_is_an_ack_like_others() {
    let mut s = established();
    s.write(10);
    s.expect(seg("P.").seq(0).len(10));
    s.inject(seg("U.").seq(0).ack(10).urgent(5));
    assert_eq!(s.info().unacknowledged, 0);
    s.expect_silence();
    s.finish();
}

/// RFC 9293 §3.1: without URG the field means nothing.
#[test]
fn the_pointer_without_urg_means_nothing() {
    let mut s = established();
    s.inject(seg("P.").seq(0).ack(0).data(b"plain").urgent(3));
    s.expect(seg(".").seq(0).ack(5));
    assert_eq!(s.read(10), b"plain");
    s.finish();
}

/// RFC 9293 §3.4, MUST-66: URG, and the ACK beside it, count when our window is closed.
#[test]
fn urg_and_its_ack_are_processed_when_the_window_is_closed_must_66() {
    let mut s = Script::established(Config { recv_buffer: 1000, ..config() }, plain_options());
    s.write(10);
    s.expect(seg("P.").seq(0).len(10));
    s.inject(seg(".").seq(0).ack(0).len(1000));
    s.drain();
    s.inject(seg("U.").seq(1000).ack(10).urgent(1));
    assert_eq!(s.info().unacknowledged, 0);
    s.state(State::Established);
    s.finish();
}

/// RFC 9293 §3.8.5, SHLD-13: we send no urgent data, so no segment of ours has URG.
#[test]
fn we_send_no_urgent_data_shld_13() {
    let mut s = established();
    s.write(100);
    s.expect(seg("P.").seq(0).len(100).urgent(0));
    s.inject(seg("U.").seq(0).ack(100).data(b"x").urgent(1));
    s.expect(seg(".").seq(100).ack(1).urgent(0));
    s.finish();
}
