//! Segments that lie in several chunks: sent, sent again in smaller pieces, and received in whatever order.

use crate::dsl::{Script, config, pattern, seg};
use stack_user::{
    device::Umem,
    frame::FramePool,
    tcp::{Config, Unreachable, options::Options},
};

/// An MTU of 9000, and no options in segments.
const MSS: usize = 8960;

fn peer() -> Options {
    Options { mss: Some(MSS as u16), sack_permitted: true, ..Options::default() }
}

fn script() -> Script {
    Script::established(Config { mss: MSS as u16, ..config() }, peer())
}

fn read_all(s: &mut Script) -> Vec<u8> {
    let mut data = Vec::new();
    while s.info().readable > 0 {
        data.extend(s.read(100_000));
    }
    data
}

#[test]
fn a_full_segment_lies_in_three_chunks_and_comes_back_from_the_nic_as_one() {
    let mut s = script();
    s.hold_frames = true;
    let free = s.pool.available();
    s.write(MSS);
    assert_eq!(s.pool.available(), free - 3);
    s.expect(seg(".").seq(0).len(MSS));
    // It is acknowledged while the NIC still has it.
    s.inject(seg(".").seq(0).ack(MSS as i64));
    assert_eq!(s.pool.available(), free - 3);
    s.complete();
    assert_eq!(s.pool.available(), free);
    s.finish();
}

/// RFC 6928 §2: two segments, if they are that large.
#[test]
fn the_first_window_is_two_segments_rfc6928_2() {
    let mut s = script();
    s.write(10 * MSS);
    s.expect(seg(".").seq(0).len(MSS));
    s.expect(seg(".").seq(MSS as i64).len(MSS));
    s.expect_silence();
    s.finish();
}

#[test]
fn a_lost_segment_is_sent_again_from_its_chunks() {
    let mut s = script();
    s.write(MSS);
    s.expect(seg(".").seq(0).len(MSS));
    s.advance_to_timer();
    s.expect(seg(".").seq(0).len(MSS));
    s.inject(seg(".").seq(0).ack(MSS as i64));
    s.finish();
}

/// RFC 1191 §6.2: what was in flight is sent again in the size that passes. Each piece begins a segment of its own.
#[test]
fn when_the_path_carries_less_a_segment_is_sent_again_in_smaller_ones_rfc1191_6_2() {
    for mtu in [1500, 3000, 4000, 5000, 8000] {
        let mut s = script();
        let free = s.pool.available();
        s.write(MSS);
        s.expect(seg(".").seq(0).len(MSS));
        s.inject_icmp(Unreachable::FragmentationNeeded { mtu }, 0);
        let small = usize::from(mtu) - 40;
        let mut at = 0;
        while at < MSS {
            let len = small.min(MSS - at);
            // The window of one acknowledgement after the other.
            s.expect(seg(".").seq(at as i64).len(len));
            at += len;
            s.inject(seg(".").seq(0).ack(at as i64));
        }
        s.expect_silence();
        assert_eq!(s.pool.available(), free, "MTU {mtu}");
        s.finish();
    }
}

#[test]
fn long_segments_in_order_are_queued_chunk_by_chunk_and_nothing_is_copied() {
    let mut s = script();
    let free = s.pool.available();
    for i in 0..4 {
        s.inject(seg(".").seq(i * MSS as i64).ack(0).len(MSS));
    }
    s.drain();
    assert_eq!(s.pool.available(), free - 12, "three chunks for each");
    assert_eq!(read_all(&mut s), pattern(0, 4 * MSS));
    assert_eq!(s.pool.available(), free);
    s.finish();
}

#[test]
fn long_segments_out_of_order_and_overlapping_are_put_in_order() {
    for step in [1000, 3840, 3841, 5000] {
        let mut s = script();
        let mut starts: Vec<i64> = (1..12).map(|i| i * step).collect();
        // Every other one first, and from the back.
        starts.sort_by_key(|&start| ((start / step) % 2, -start));
        for start in starts {
            let _ = s.try_inject(seg(".").seq(start).ack(0).len(MSS));
            s.drain();
        }
        s.inject(seg(".").seq(0).ack(0).len(step as usize));
        s.drain();
        let end = 11 * step as usize + MSS;
        assert_eq!(read_all(&mut s), pattern(0, end), "step {step}");
        s.finish();
    }
}

#[test]
fn what_the_window_does_not_take_of_a_long_segment_is_cut_off_and_its_chunks_come_back() {
    for window in [1000, 3774, 4000, 8000] {
        let config = Config { mss: MSS as u16, recv_buffer: window, recv_buffer_max: 0, ..config() };
        let mut s = Script::established(config, peer());
        let free = s.pool.available();
        let _ = s.try_inject(seg(".").seq(0).ack(0).len(MSS));
        s.drain();
        let data = read_all(&mut s);
        assert!(!data.is_empty() && data.len() <= MSS, "{}", data.len());
        assert_eq!(data, pattern(0, data.len()));
        assert_eq!(s.pool.available(), free);
        s.finish();
    }
}

/// A NIC that takes no frame in several chunks: what fits in one is all that is announced, and all that is sent.
#[test]
fn without_several_chunks_segments_are_as_long_as_one() {
    let mut s = Script::new(Config { mss: MSS as u16, ..config() });
    s.pool.limit_tx_chunks(1);
    s.handshake(peer(), 65_535);
    s.write(10_000);
    let (segment, data) = s.expect_any();
    assert_eq!(segment.header_len() + data.len() + 34, s.pool.tx_capacity());
    s.finish();
}

#[test]
fn a_chunk_that_holds_a_jumbo_frame_is_all_that_a_segment_takes() {
    let mut s = Script::new(Config { mss: MSS as u16, ..config() });
    s.pool = Umem::on_heap_of(512, 16_384).expect("memory");
    s.pool.limit_tx_chunks(1);
    s.handshake(peer(), 65_535);
    let free = s.pool.available();
    s.write(MSS);
    assert_eq!(s.pool.available(), free - 1);
    s.expect(seg(".").seq(0).len(MSS));
    s.inject(seg(".").seq(0).ack(MSS as i64));
    s.inject(seg(".").seq(0).ack(MSS as i64).len(MSS));
    s.drain();
    assert_eq!(s.pool.available(), free - 1);
    assert_eq!(read_all(&mut s), pattern(0, MSS));
    s.finish();
}
