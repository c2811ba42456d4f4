//! How large a segment may be (RFC 9293 §3.7.1).

use crate::dsl::{Script, all_options, config, pattern, plain_options, seg};
use stack_user::tcp::{Config, options::Options};

fn peer_of(mss: u16) -> Options {
    Options { mss: Some(mss), ..Options::default() }
}

/// RFC 9293 §3.7.1, MUST-16: the peer takes more than our link carries.
#[test]
fn our_link_bounds_what_the_peer_would_take_must_16() {
    let mut s = Script::established(config(), peer_of(9000));
    s.write(3000);
    s.expect(seg(".").seq(0).len(1460));
    s.expect(seg(".").seq(1460).len(1460));
    s.finish();
}

/// RFC 9293 §3.7.1, MUST-16: the peer takes less than our link carries.
#[test]
fn the_peer_bounds_what_we_send_must_16() {
    let mut s = Script::established(config(), peer_of(700));
    s.write(1500);
    s.expect(seg(".").seq(0).len(700));
    s.expect(seg(".").seq(700).len(700));
    s.inject(seg(".").seq(0).ack(1400));
    s.expect(seg("P.").seq(1400).len(100));
    s.finish();
}

/// RFC 9293 §3.7.1, MUST-16: the options of each segment take from its payload.
#[test]
fn timestamps_take_twelve_bytes_from_each_segment_must_16() {
    let mut s = Script::established(config(), all_options());
    s.write(3000);
    s.expect(seg(".").seq(0).len(1448));
    s.expect(seg(".").seq(1448).len(1448));
    s.finish();
}

/// RFC 9293 §3.7.1, MUST-15.
#[test]
fn a_peer_that_says_nothing_gets_536_bytes_must_15() {
    let mut s = Script::established(config(), Options::default());
    s.write(1200);
    s.expect(seg(".").seq(0).len(536));
    s.expect(seg(".").seq(536).len(536));
    s.finish();
}

/// A peer that asks for next to nothing would make us send a header for each byte.
#[test]
fn an_absurd_mss_is_not_obeyed() {
    for mss in [0, 1, 47] {
        let mut s = Script::established(config(), peer_of(mss));
        s.write(480);
        assert_eq!(s.drain(), 10, "48 bytes each");
        s.finish();
    }
}

/// RFC 9293 §3.7.1, MUST-14 and MUST-67: we announce what our link carries.
#[test]
fn we_announce_what_we_can_receive_must_67() {
    let mut s = Script::new(Config { mss: 1200, ..config() });
    let (syn, _) = s.expect_any();
    assert_eq!(syn.options.mss, Some(1200));
    s.finish();
}

/// RFC 9293 §3.2, MUST-65: MSS stands in SYN segments only.
#[test]
fn no_later_segment_has_an_mss_option_must_65() {
    let mut s = Script::established(config(), plain_options());
    s.write(10);
    s.expect(seg("P.").seq(0).len(10).options(Options::default()));
    s.inject(seg("F.").seq(0).ack(10));
    s.expect(seg(".").seq(10).ack(1).options(Options::default()));
    s.app_shutdown();
    s.expect(seg("F.").seq(10).options(Options::default()));
    s.finish();
}

/// A segment larger than we announced, but inside of the window, is data all the same.
#[test]
fn more_than_we_announced_is_taken() {
    let mut s = Script::established(Config { mss: 500, ..config() }, plain_options());
    s.inject(seg("P.").seq(0).ack(0).len(1400));
    s.expect(seg(".").seq(0).ack(1400));
    assert_eq!(s.read(2000), pattern(0, 1400));
    s.finish();
}

/// RFC 9293 §3.9.1.2, SHLD-27: many small writes become few large segments.
#[test]
fn small_writes_travel_in_large_segments_shld_27() {
    let mut s = Script::established(config(), plain_options());
    for _ in 0..100 {
        s.write(50);
    }
    for i in 0..5 {
        s.expect(seg(".").seq(i * 1000).len(1000));
    }
    s.expect_silence();
    s.finish();
}

/// RFC 6928 §2 counts in segments as they are sent: options do not make the initial window larger.
#[test]
fn the_initial_window_counts_segments_without_their_options_rfc6928_2() {
    let mut s = Script::established(config(), all_options());
    s.write(50_000);
    assert_eq!(s.drain(), 10);
    s.finish();
}
