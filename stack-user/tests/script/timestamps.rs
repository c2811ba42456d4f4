//! Timestamps: what we send, what we echo, and what PAWS drops (RFC 7323 §3 to §5).

use crate::dsl::{Script, Seg, all_options, config, seg};
use stack_user::{tcp::State, telemetry::DropReason};

fn established() -> Script {
    Script::established(config(), all_options())
}

/// The peer's data, with that TSval.
fn data(seq: i64, len: usize, timestamp: u32) -> Seg {
    seg("P.").seq(seq).ack(0).len(len).timestamp(timestamp)
}

const DAY: u64 = 24 * 60 * 60 * 1000;

// TSval.

/// RFC 7323 §3.2: where ACK is not set, TSecr is 0.
#[test]
fn the_echo_of_a_syn_is_zero_rfc7323_3_2() {
    let mut s = Script::new(config());
    s.expect(seg("S").seq(-1).echo(0));
    s.finish();
}

/// RFC 7323 §5.4: our clock ticks once a millisecond, sent or not.
#[test]
fn our_clock_ticks_in_milliseconds_rfc7323_5_4() {
    let mut s = established();
    let clock = s.our_clock();
    s.write(10);
    s.expect(seg("P.").seq(0).len(10).timestamp(clock));
    s.inject(seg(".").seq(0).ack(10));
    s.advance(12_345);
    s.write(10);
    s.expect(seg("P.").seq(10).len(10).timestamp(clock + 12_345));
    s.finish();
}

/// RFC 7323 §4.1: a retransmission has the time at which it is sent, or its echo would tell nothing.
#[test]
fn a_retransmission_has_its_own_time_rfc7323_4_1() {
    let mut s = established();
    let clock = s.our_clock();
    s.write(10);
    s.expect(seg("P.").seq(0).len(10).timestamp(clock));
    s.advance(500);
    s.expect(seg("P.").seq(0).len(10).timestamp(clock + 500));
    s.finish();
}

// TS.Recent and its echo.

/// RFC 7323 §4.3, (A): of the segments that one ACK answers, the first is echoed.
#[test]
fn a_delayed_ack_echoes_the_first_segment_that_it_answers_rfc7323_4_3() {
    let mut s = established();
    let clock = s.peer_clock();
    s.inject(data(0, 100, clock + 1));
    s.inject(data(100, 100, clock + 2));
    s.inject(data(200, 100, clock + 3));
    s.expect(seg(".").ack(300).echo(clock + 1));
    s.finish();
}

/// RFC 7323 §4.3, (B): behind a gap nothing new is echoed.
#[test]
fn while_there_is_a_gap_the_last_in_order_is_echoed_rfc7323_4_3() {
    let mut s = established();
    let clock = s.peer_clock();
    s.inject(data(0, 100, clock + 1));
    s.expect(seg(".").ack(100).echo(clock + 1));
    for i in 2..6 {
        s.inject(data(i64::from(i) * 100, 100, clock + i));
        s.expect(seg(".").ack(100).echo(clock + 1));
    }
    s.finish();
}

/// RFC 7323 §4.3, (C): what fills the gap is echoed.
#[test]
fn what_fills_the_gap_is_echoed_rfc7323_4_3() {
    let mut s = established();
    let clock = s.peer_clock();
    s.inject(data(100, 100, clock + 1));
    s.expect(seg(".").ack(0).echo(clock));
    s.inject(data(0, 100, clock + 2));
    s.expect(seg(".").ack(200).echo(clock + 2));
    s.finish();
}

/// RFC 7323 §4.3, (2): a pure ACK brings a newer time, too.
#[test]
fn the_time_of_a_pure_ack_is_echoed_rfc7323_4_3() {
    let mut s = established();
    let clock = s.peer_clock();
    s.inject(seg(".").seq(0).ack(0).timestamp(clock + 9));
    s.write(10);
    s.expect(seg("P.").seq(0).len(10).echo(clock + 9));
    s.finish();
}

/// RFC 7323 §4.3, (2): data of which a part is new brings its time, since it covers the last ACK.
#[test]
fn the_time_of_partly_old_data_is_echoed_rfc7323_4_3() {
    let mut s = established();
    let clock = s.peer_clock();
    s.inject(data(0, 100, clock + 1));
    s.expect(seg(".").ack(100).echo(clock + 1));
    s.inject(data(50, 100, clock + 2));
    s.expect(seg(".").ack(150).echo(clock + 2));
    s.finish();
}

// Round trips.

/// RFC 7323 §4.1 and §4.2: each ACK of new data is a sample.
#[test]
fn an_echo_gives_a_sample_rfc7323_4_1() {
    let mut s = established();
    s.write(10);
    s.expect(seg("P.").seq(0).len(10));
    s.advance(90);
    s.inject(seg(".").seq(0).ack(10));
    // SRTT = 7/8 * 10 + 1/8 * 90.
    assert_eq!(s.info().srtt.map(|srtt| srtt.as_millis()), Some(20));
    s.finish();
}

/// RFC 7323 §4.1: an ACK of nothing new gives none, whatever it echoes.
#[test]
fn an_ack_of_nothing_new_gives_no_sample_rfc7323_4_1() {
    let mut s = established();
    let before = s.info().srtt;
    s.advance(5000);
    s.inject(seg(".").seq(0).ack(0));
    s.inject(data(0, 10, s.peer_clock()));
    assert_eq!(s.info().srtt, before);
    s.drain();
    s.finish();
}

/// An echo that can't be ours is no sample, and no harm.
#[test]
fn an_echo_of_the_future_is_no_sample() {
    let mut s = established();
    s.write(10);
    s.expect(seg("P.").seq(0).len(10));
    s.advance(1000);
    s.expect(seg("P.").seq(0).len(10));
    let before = s.info().srtt;
    s.inject(seg(".").seq(0).ack(10).echo(s.our_clock().wrapping_add(77_777)));
    assert_eq!((s.info().srtt, s.info().unacknowledged), (before, 0));
    s.finish();
}

// PAWS.

/// RFC 7323 §5.3, R1: SEG.TSval < TS.Recent; equal is not older.
#[test]
fn the_same_time_again_is_not_old_rfc7323_5_3() {
    let mut s = established();
    let clock = s.peer_clock();
    for i in 0..5 {
        s.inject(data(i * 10, 10, clock));
    }
    assert_eq!(s.info().readable, 50);
    s.drain();
    s.finish();
}

/// RFC 7323 §5.2: times are compared as sequence numbers are: they wrap.
#[test]
fn the_peers_clock_may_wrap_rfc7323_5_2() {
    let mut s = Script::syn_sent(config());
    s.inject(seg("S.").seq(-1).ack(0).options(all_options()).timestamp(u32::MAX - 5));
    s.expect(seg(".").seq(0).ack(0).echo(u32::MAX - 5));
    s.inject(data(0, 10, u32::MAX));
    s.expect(seg(".").ack(10).echo(u32::MAX));
    s.inject(data(10, 10, 3));
    s.expect(seg(".").ack(20).echo(3));
    s.inject_dropped(data(20, 10, u32::MAX), DropReason::TcpPaws);
    s.expect(seg(".").ack(20).echo(3));
    s.finish();
}

/// RFC 7323 §5.5: after 24 days of silence the peer's clock may have gone half around.
#[test]
fn after_24_days_an_older_time_is_believed_rfc7323_5_5() {
    let mut s = established();
    let clock = s.peer_clock();
    s.inject(data(0, 10, clock));
    s.drain();
    s.advance(25 * DAY);
    s.inject(data(10, 10, clock - 1000));
    s.expect(seg(".").ack(20).echo(clock - 1000));
    s.finish();
}

#[test]
fn after_a_week_an_older_time_is_not_believed_rfc7323_5_5() {
    let mut s = established();
    let clock = s.peer_clock();
    s.inject(data(0, 10, clock));
    s.drain();
    s.advance(7 * DAY);
    s.inject_dropped(data(10, 10, clock - 1000), DropReason::TcpPaws);
    s.expect(seg(".").ack(10));
    s.finish();
}

/// RFC 7323 §5.3: PAWS is before the sequence check: an old FIN in the window closes nothing.
#[test]
fn an_old_fin_closes_nothing_rfc7323_5_3() {
    let mut s = established();
    let clock = s.peer_clock();
    s.inject_dropped(seg("F.").seq(0).ack(0).timestamp(clock - 100), DropReason::TcpPaws);
    s.expect(seg(".").ack(0));
    s.state(State::Established);
    s.finish();
}

/// RFC 7323 §5.3: data that PAWS drops brings neither its ACK nor its window.
#[test]
fn neither_ack_nor_window_of_an_old_segment_count_rfc7323_5_3() {
    let mut s = established();
    let clock = s.peer_clock();
    s.write(10);
    s.expect(seg("P.").seq(0).len(10));
    let old = seg("P.").seq(0).ack(10).len(10).window(1280).timestamp(clock - 1);
    s.inject_dropped(old, DropReason::TcpPaws);
    assert_eq!((s.info().unacknowledged, s.info().send_window), (10, 65_535));
    s.expect(seg(".").seq(10).ack(0));
    s.finish();
}

/// RFC 7323 §3.2: RST may come without the option, and counts.
#[test]
fn rst_needs_no_timestamps_rfc7323_3_2() {
    let mut s = established();
    s.inject(seg("R").seq(0).options(stack_user::tcp::options::Options::default()));
    s.state(State::Closed);
    s.finish();
}

/// RFC 7323 §5.3: out of order, but not old: segments that were reordered keep their data.
#[test]
fn reordering_within_the_window_is_not_old_rfc7323_5_3() {
    let mut s = established();
    let clock = s.peer_clock();
    s.inject(data(200, 100, clock + 3));
    s.inject(data(100, 100, clock + 2));
    s.inject(data(0, 100, clock + 1));
    assert_eq!(s.info().readable, 300);
    s.drain();
    s.finish();
}
