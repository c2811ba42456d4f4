//! Which options are agreed upon, and what becomes of those that make no sense.

use crate::dsl::{Script, all_options, config, plain_options, sack_options, seg};
use stack_user::tcp::{
    Config, State,
    options::{Options, Timestamps},
};

/// After a handshake whose SYN with ACK had exactly these bytes of options.
fn answered_with(raw: &[u8]) -> Script {
    let mut s = Script::syn_sent(config());
    s.inject(seg("S.").seq(-1).ack(0).raw_options(raw));
    s.expect(seg(".").seq(0).ack(0));
    s.state(State::Established);
    s
}

const TIMESTAMPS: Option<Timestamps> = Some(Timestamps { value: 0, echo: 0 });

// One by one.

/// RFC 2018 §2.
#[test]
fn sack_alone_is_agreed_upon_rfc2018_2() {
    let mut s = Script::established(config(), sack_options());
    let info = s.info();
    assert_eq!((info.sack, info.timestamps, info.window_shifts), (true, false, (0, 0)));
    s.inject(seg(".").seq(100).ack(0).len(100));
    s.expect(seg(".").seq(0).ack(0).sack(&[(100, 200)]));
    s.finish();
}

/// RFC 2018 §2: without SACK-permitted from the peer, no SACK option may be sent.
#[test]
fn without_sack_permitted_gaps_are_told_by_the_ack_alone_rfc2018_2() {
    let mut s = Script::established(config(), plain_options());
    s.inject(seg(".").seq(100).ack(0).len(100));
    s.expect(seg(".").seq(0).ack(0).options(Options::default()).sack(&[]));
    s.finish();
}

/// RFC 7323 §3.2: timestamps on both SYNs, and then on every segment.
#[test]
fn timestamps_alone_are_on_every_segment_rfc7323_3_2() {
    let peer = Options { timestamps: TIMESTAMPS, ..plain_options() };
    let mut s = Script::established(config(), peer);
    let stamped = Options { timestamps: TIMESTAMPS, ..Options::default() };
    s.write(10);
    s.expect(seg("P.").seq(0).len(10).options(stamped));
    s.inject(seg("P.").seq(0).ack(10).data(b"answer"));
    s.expect(seg(".").seq(10).ack(6).options(stamped));
    s.app_shutdown();
    s.expect(seg("F.").seq(10).ack(6).options(stamped));
    assert_eq!((s.info().sack, s.info().window_shifts), (false, (0, 0)));
    s.finish();
}

/// RFC 7323 §3.2: RST needs none; it says nothing about the round trip.
#[test]
fn rst_carries_no_timestamps() {
    let mut s = Script::established(config(), all_options());
    s.app_abort();
    s.expect(seg("R.").seq(0).ack(0).options(Options::default()));
    s.finish();
}

/// RFC 7323 §2.2: window scaling on both SYNs.
#[test]
fn window_scale_alone_is_agreed_upon_rfc7323_2_2() {
    let peer = Options { window_scale: Some(3), ..plain_options() };
    let mut s = Script::established(Config { recv_buffer: 65_535, ..config() }, peer);
    assert_eq!(s.info().window_shifts, (3, 0));
    s.inject(seg(".").seq(0).ack(0).window(500_000));
    assert_eq!(s.info().send_window, 500_000);
    assert!(!s.info().timestamps && !s.info().sack);
    s.finish();
}

/// RFC 7323 §2.2: if the peer does not scale, neither do we.
#[test]
fn without_window_scale_our_window_is_what_16_bits_hold_rfc7323_2_2() {
    let mut s = Script::established(Config { recv_buffer: 1 << 20, ..config() }, plain_options());
    s.inject(seg("P.").seq(0).ack(0).len(10));
    let (ack, _) = s.expect_any();
    assert_eq!(s.info().window_shifts, (0, 0));
    assert!(s.info().receive_window <= 65_535 && ack.window > 60_000, "{}", ack.window);
    s.finish();
}

/// RFC 7323 §2.3: a shift of 0 is an offer as good as others.
#[test]
fn a_shift_of_zero_lets_us_scale_rfc7323_2_3() {
    let peer = Options { window_scale: Some(0), ..plain_options() };
    let s = Script::established(config(), peer);
    assert_eq!(s.info().window_shifts.0, 0);
    assert!(s.info().window_shifts.1 > 0);
    s.finish();
}

/// RFC 7323 §2.3: a shift beyond 14 counts as 14.
#[test]
fn a_shift_beyond_14_counts_as_14_rfc7323_2_3() {
    let mut s = answered_with(&[3, 3, 200]);
    assert_eq!(s.info().window_shifts.0, 14);
    s.inject(seg(".").seq(0).ack(0).window(3 << 14));
    assert_eq!(s.info().send_window, 3 << 14);
    s.finish();
}

// Options that make no sense (RFC 9293 §3.1).

/// RFC 9293 §3.1, MUST-6: an option that we don't know is skipped by its length.
#[test]
fn an_unknown_option_is_skipped_must_6() {
    let s = answered_with(&[254, 6, 1, 2, 3, 4, 2, 4, 0x03, 0xe8]);
    assert_eq!(s.info().mss, 1000);
    s.finish();
}

/// RFC 9293 §3.2, MUST-64: options begin on any octet.
#[test]
fn options_need_no_alignment_must_64() {
    let s = answered_with(&[1, 4, 2, 1, 1, 1, 2, 4, 0x03, 0xe8, 3, 3, 2]);
    assert_eq!((s.info().mss, s.info().sack, s.info().window_shifts.0), (1000, true, 2));
    s.finish();
}

/// RFC 9293 §3.1, MUST-7: a length of zero would never end.
#[test]
fn an_option_of_length_zero_ends_the_options_must_7() {
    let s = answered_with(&[2, 4, 0x03, 0xe8, 254, 0, 4, 2]);
    assert_eq!((s.info().mss, s.info().sack), (1000, false));
    s.finish();
}

/// RFC 9293 §3.1, MUST-7: an option is at least its kind and its length.
#[test]
fn an_option_of_length_one_ends_the_options_must_7() {
    let s = answered_with(&[2, 4, 0x03, 0xe8, 254, 1, 4, 2]);
    assert_eq!((s.info().mss, s.info().sack), (1000, false));
    s.finish();
}

/// RFC 9293 §3.1, MUST-7: nothing behind the header is read.
#[test]
fn an_option_longer_than_the_header_is_not_read_must_7() {
    let s = answered_with(&[4, 2, 1, 1, 2, 40, 0x03, 0xe8]);
    assert_eq!((s.info().mss, s.info().sack), (536, true));
    s.finish();
}

/// RFC 9293 §3.1, MUST-4: End of Option List ends it.
#[test]
fn nothing_behind_the_end_of_options_counts_must_4() {
    let s = answered_with(&[2, 4, 0x03, 0xe8, 0, 4, 2, 1]);
    assert_eq!((s.info().mss, s.info().sack), (1000, false));
    s.finish();
}

/// RFC 9293 §3.2: MSS has a length of 4, and what has another is none.
#[test]
fn an_mss_option_of_a_wrong_length_is_none() {
    let s = answered_with(&[2, 3, 9, 4, 2]);
    assert_eq!((s.info().mss, s.info().sack), (536, true));
    s.finish();
}

/// RFC 7323 §2.2: likewise.
#[test]
fn a_window_scale_of_a_wrong_length_is_none() {
    let s = answered_with(&[3, 4, 7, 7]);
    assert_eq!(s.info().window_shifts, (0, 0));
    s.finish();
}

/// RFC 7323 §3.2: likewise.
#[test]
fn timestamps_of_a_wrong_length_are_none() {
    let s = answered_with(&[8, 8, 0, 0, 0, 1, 0, 0]);
    assert!(!s.info().timestamps);
    s.finish();
}

/// 40 bytes are as much as the data offset can say (RFC 9293 §3.1).
#[test]
fn forty_bytes_of_options_are_read_to_the_last() {
    let mut raw = [1; 40];
    raw[36..].copy_from_slice(&[2, 4, 0x03, 0xe8]);
    let s = answered_with(&raw);
    assert_eq!(s.info().mss, 1000);
    s.finish();
}

/// Of two that contradict each other, the last counts, and nothing breaks.
#[test]
fn an_option_that_stands_twice_counts_once() {
    let s = answered_with(&[2, 4, 0x02, 0x58, 2, 4, 0x03, 0xe8]);
    assert_eq!(s.info().mss, 1000);
    s.finish();
}

// Options of a SYN that come elsewhere.

/// RFC 9293 §3.7.1 (MSS), RFC 7323 §2.2 (window scale), RFC 2018 §2 (SACK-permitted): on SYN only.
#[test]
fn options_of_a_syn_mean_nothing_later_rfc7323_2_2() {
    let mut s = Script::established(config(), plain_options());
    s.inject(seg(".").seq(0).ack(0).window(5000).raw_options(&[2, 4, 0, 100, 3, 3, 9, 4, 2]));
    let info = s.info();
    assert_eq!((info.mss, info.window_shifts, info.sack, info.send_window), (1000, (0, 0), false, 5000));
    s.finish();
}

/// RFC 7323 §3.2: what was not negotiated is ignored, and PAWS with it.
#[test]
fn timestamps_that_were_not_negotiated_are_ignored_rfc7323_3_2() {
    let mut s = Script::established(config(), plain_options());
    let stamped = Options { timestamps: TIMESTAMPS, ..Options::default() };
    s.inject(seg("P.").seq(0).ack(0).len(10).options(stamped).timestamp(1000));
    s.expect(seg(".").seq(0).ack(10).options(Options::default()));
    s.inject(seg("P.").seq(10).ack(0).len(10).options(stamped).timestamp(10));
    s.expect(seg(".").seq(0).ack(20).options(Options::default()));
    s.finish();
}

/// RFC 2018 §2: blocks of a peer that was not permitted to send them mark nothing.
#[test]
fn sack_blocks_that_were_not_negotiated_are_ignored_rfc2018_2() {
    let mut s = Script::established(config(), plain_options());
    s.write(5000);
    assert_eq!(s.drain(), 5);
    s.inject(seg(".").seq(0).ack(0).sack(&[(1000, 5000)]));
    s.expect_silence();
    assert_eq!(s.info().in_flight, 5000 - 1000, "one duplicate ACK, and no block");
    s.finish();
}

/// RFC 2018 §3: a SACK option whose length is not 8n + 2 is none.
#[test]
fn a_sack_option_of_a_wrong_length_is_none_rfc2018_3() {
    let mut s = Script::established(config(), sack_options());
    s.write(5000);
    assert_eq!(s.drain(), 5);
    let una = u32::MAX - 4;
    let block = [una.wrapping_add(1000), una.wrapping_add(5000)].map(u32::to_be_bytes).concat();
    let raw = [&[5, 11][..], &block, &[0]].concat();
    s.inject(seg(".").seq(0).ack(0).raw_options(&raw));
    s.expect_silence();
    assert_eq!(s.info().in_flight, 5000);
    s.finish();
}
