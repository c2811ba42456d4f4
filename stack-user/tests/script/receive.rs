//! Data in: in order, out of order, overlapping (RFC 9293 §3.10.7.4, seventh step).

use crate::dsl::{Script, config, pattern, plain_options, sack_options, seg};
use stack_user::{
    frame::FramePool,
    tcp::{Config, Event, ReadError, reassembly::MAX_SEGMENTS},
    telemetry::DropReason,
};

fn established() -> Script {
    Script::established(config(), plain_options())
}

fn read_all(s: &mut Script) -> Vec<u8> {
    let mut data = Vec::new();
    while s.info().readable > 0 {
        data.extend(s.read(100_000));
    }
    data
}

/// RFC 9293 §3.10.7.4, SHLD-31.
#[test]
fn what_comes_out_of_order_is_kept_and_read_in_order_shld_31() {
    let mut s = established();
    for i in [4, 2, 1, 3] {
        s.inject(seg(".").seq(i * 1000).ack(0).len(1000));
        s.expect(seg(".").seq(0).ack(0));
    }
    assert_eq!(s.app_read(10), Err(ReadError::WouldBlock));
    s.inject(seg(".").seq(0).ack(0).len(1000));
    s.expect(seg(".").seq(0).ack(5000));
    s.expect_silence();
    assert_eq!(read_all(&mut s), pattern(0, 5000));
    s.finish();
}

/// RFC 5681 §4.2: each segment behind a gap is told at once, and so is each that fills a part of one.
#[test]
fn each_segment_that_fills_a_part_of_a_gap_is_acknowledged_at_once_rfc5681_4_2() {
    let mut s = established();
    s.inject(seg(".").seq(3000).ack(0).len(1000));
    s.expect(seg(".").ack(0));
    for i in 0..3 {
        s.inject(seg(".").seq(i * 1000).ack(0).len(1000));
        s.expect(seg(".").ack(if i == 2 { 4000 } else { (i + 1) * 1000 }));
    }
    s.finish();
}

#[test]
fn a_segment_that_covers_what_waits_takes_its_place() {
    let mut s = established();
    s.inject(seg(".").seq(200).ack(0).len(100));
    s.inject(seg(".").seq(400).ack(0).len(100));
    s.inject(seg(".").seq(100).ack(0).len(600));
    s.inject(seg(".").seq(0).ack(0).len(100));
    s.drain();
    assert_eq!(read_all(&mut s), pattern(0, 700));
    s.finish();
}

#[test]
fn a_segment_that_overlaps_on_its_left_is_cut_there() {
    let mut s = established();
    s.inject(seg(".").seq(100).ack(0).len(200));
    s.inject(seg(".").seq(200).ack(0).len(200));
    s.inject(seg(".").seq(0).ack(0).len(100));
    s.drain();
    assert_eq!(read_all(&mut s), pattern(0, 400));
    s.finish();
}

#[test]
fn a_segment_that_overlaps_on_its_right_is_cut_there() {
    let mut s = established();
    s.inject(seg(".").seq(200).ack(0).len(200));
    s.inject(seg(".").seq(100).ack(0).len(200));
    s.inject(seg(".").seq(0).ack(0).len(100));
    s.drain();
    assert_eq!(read_all(&mut s), pattern(0, 400));
    s.finish();
}

/// The segment in order reaches into what waits.
#[test]
fn data_in_order_overlaps_what_waits() {
    let mut s = established();
    s.inject(seg(".").seq(500).ack(0).len(1000));
    s.inject(seg(".").seq(0).ack(0).len(800));
    s.expect(seg(".").ack(1500));
    assert_eq!(read_all(&mut s), pattern(0, 1500));
    s.finish();
}

/// The segment in order covers all that waits, and more.
#[test]
fn data_in_order_covers_what_waits() {
    let mut s = established();
    s.inject(seg(".").seq(500).ack(0).len(100));
    s.inject(seg(".").seq(700).ack(0).len(100));
    s.inject(seg(".").seq(0).ack(0).len(1000));
    s.expect(seg(".").ack(1000));
    assert_eq!(read_all(&mut s), pattern(0, 1000));
    s.finish();
}

#[test]
fn a_segment_that_comes_twice_out_of_order_counts_once() {
    let mut s = established();
    s.inject(seg(".").seq(1000).ack(0).len(1000));
    s.inject_dropped(seg(".").seq(1000).ack(0).len(1000), DropReason::TcpDuplicateData);
    s.inject(seg(".").seq(0).ack(0).len(1000));
    s.drain();
    assert_eq!(read_all(&mut s), pattern(0, 2000));
    assert_eq!(s.info().bytes_received, 2000);
    s.finish();
}

/// What was received stays: later copies don't change it, whatever they contain.
#[test]
fn a_later_copy_does_not_change_what_was_received() {
    let mut s = established();
    s.inject(seg(".").seq(5).ack(0).data(b"world"));
    let _ = s.try_inject(seg(".").seq(5).ack(0).data(b"WORLD"));
    s.inject(seg(".").seq(0).ack(0).data(b"hello"));
    let _ = s.try_inject(seg(".").seq(0).ack(0).data(b"HELLO"));
    assert_eq!(read_all(&mut s), b"helloworld");
    s.finish();
}

/// A peer that sends a byte a segment does not take a chunk a byte.
#[test]
fn tiny_segments_do_not_take_the_pool() {
    let mut s = established();
    let free = s.pool.available();
    for i in 0..1000 {
        s.inject(seg(".").seq(i).ack(0).len(1));
        s.drain();
    }
    assert!(free - s.pool.available() < 10, "{} chunks", free - s.pool.available());
    assert_eq!(read_all(&mut s), pattern(0, 1000));
    s.finish();
}

/// Neither do tiny segments with gaps between them, of which only so many are kept.
#[test]
fn tiny_segments_with_gaps_are_bounded() {
    let mut s = established();
    let free = s.pool.available();
    let kept = (0..6000).take_while(|i| s.try_inject(seg(".").seq(2 + 2 * i).ack(0).len(1)).is_ok()).count();
    assert_eq!(kept, MAX_SEGMENTS);
    assert_eq!(free, s.pool.available());
    let more = s.try_inject(seg(".").seq(20_000).ack(0).len(1));
    assert_eq!(more, Err(DropReason::TcpReassemblyFull));
    // What fills a gap is taken all the same.
    s.inject(seg(".").seq(0).ack(0).len(2));
    s.drain();
    assert_eq!(read_all(&mut s), pattern(0, 3));
    s.finish();
}

/// One event for all that is to be read, and none for what waits behind a gap.
#[test]
fn readable_is_told_when_there_is_something_to_read() {
    let mut s = established();
    s.inject(seg(".").seq(1000).ack(0).len(1000));
    assert_eq!(s.events(), []);
    s.inject(seg(".").seq(0).ack(0).len(1000));
    s.inject(seg(".").seq(2000).ack(0).len(1000));
    assert_eq!(s.events(), [Event::Readable]);
    s.drain();
    s.finish();
}

#[test]
fn reads_may_be_smaller_than_segments() {
    let mut s = established();
    s.inject(seg("P.").seq(0).ack(0).len(1000));
    let mut data = Vec::new();
    while s.info().readable > 0 {
        let part = s.read(7);
        assert!(!part.is_empty() && part.len() <= 7);
        data.extend(part);
    }
    assert_eq!(data, pattern(0, 1000));
    s.drain();
    s.finish();
}

/// A stream longer than the sequence space is taken modulo it: both sides' numbers wrap within these scripts' first
/// bytes (RFC 9293 §3.4).
#[test]
fn data_across_the_wrap_of_sequence_numbers_rfc9293_3_4() {
    let mut s = established();
    // ISS is u32::MAX - 5: the sixth byte has the number 0.
    s.write(3);
    s.expect(seg("P.").seq(0).len(3));
    s.inject(seg(".").seq(0).ack(3));
    s.write(10);
    s.expect(seg("P.").seq(3).len(10));
    s.inject(seg(".").seq(0).ack(13));
    assert_eq!(s.info().unacknowledged, 0);
    // IRS is 2^31 - 16: sixteen bytes on, numbers are negative if they are taken as signed.
    s.inject(seg(".").seq(20).ack(13).len(20));
    s.inject(seg(".").seq(0).ack(13).len(20));
    s.drain();
    assert_eq!(read_all(&mut s), pattern(0, 40));
    s.finish();
}

/// RFC 9293 §3.10.7.4: what lies beyond the window and behind a gap is cut off, too.
#[test]
fn data_behind_a_gap_is_cut_at_the_right_edge() {
    let mut s = Script::established(Config { recv_buffer: 2000, ..config() }, sack_options());
    s.inject(seg(".").seq(1000).ack(0).len(1400));
    s.expect(seg(".").ack(0).sack(&[(1000, 2000)]));
    s.inject(seg(".").seq(0).ack(0).len(1000));
    s.expect(seg(".").ack(2000).window(0));
    assert_eq!(read_all(&mut s), pattern(0, 2000));
    s.finish();
}

/// RFC 9293 §3.10.7.4, MUST-58: ACKs are gathered: segments that come together are answered together.
#[test]
fn segments_that_come_together_are_acknowledged_together_must_58() {
    let mut s = established();
    for i in 0..8 {
        s.inject(seg(".").seq(i * 1000).ack(0).len(1000));
    }
    s.expect(seg(".").seq(0).ack(8000));
    s.expect_silence();
    s.finish();
}

/// RFC 9293 §3.10.7.4, MUST-59: all that waits is processed before an ACK says what we lack.
#[test]
fn a_gap_that_is_filled_at_once_causes_no_duplicate_ack_must_59() {
    let mut s = established();
    s.inject(seg(".").seq(1000).ack(0).len(1000));
    s.inject(seg(".").seq(0).ack(0).len(1000));
    s.expect(seg(".").seq(0).ack(2000));
    s.expect_silence();
    s.finish();
}
