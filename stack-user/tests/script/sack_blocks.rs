//! The SACK option of a receiver: which blocks, in which order (RFC 2018 §3 and §4), and of what came twice (RFC 2883 §4).

use crate::dsl::{Script, all_options, config, plain_options, sack_options, seg};
use stack_user::{tcp::Config, telemetry::DropReason};

fn established() -> Script {
    Script::established(config(), sack_options())
}

/// The peer sends `range`; we answer with that ACK and these blocks.
#[track_caller]
fn answer(s: &mut Script, range: (i64, i64), ack: i64, blocks: &[(i64, i64)]) {
    let _ = s.try_inject(seg(".").seq(range.0).ack(0).len((range.1 - range.0) as usize));
    s.expect(seg(".").ack(ack).sack(blocks));
}

// RFC 2018 §4.

/// The first block contains the segment that caused the ACK.
#[test]
fn the_first_block_has_the_segment_that_just_came_rfc2018_4() {
    let mut s = established();
    answer(&mut s, (3000, 3500), 0, &[(3000, 3500)]);
    answer(&mut s, (1000, 1500), 0, &[(1000, 1500), (3000, 3500)]);
    answer(&mut s, (5000, 5500), 0, &[(5000, 5500), (1000, 1500), (3000, 3500)]);
    s.finish();
}

/// A block is as large as can be: what touches it belongs to it.
#[test]
fn segments_that_touch_make_one_block_rfc2018_4() {
    let mut s = established();
    answer(&mut s, (1000, 1500), 0, &[(1000, 1500)]);
    answer(&mut s, (1500, 2000), 0, &[(1000, 2000)]);
    answer(&mut s, (500, 1000), 0, &[(500, 2000)]);
    s.finish();
}

#[test]
fn a_segment_between_two_blocks_joins_them_rfc2018_4() {
    let mut s = established();
    answer(&mut s, (1000, 1500), 0, &[(1000, 1500)]);
    answer(&mut s, (2000, 2500), 0, &[(2000, 2500), (1000, 1500)]);
    answer(&mut s, (1500, 2000), 0, &[(1000, 2500)]);
    s.finish();
}

/// A block that grows comes first again, and those that were reported lately follow.
#[test]
fn recent_blocks_are_repeated_rfc2018_4() {
    let mut s = established();
    answer(&mut s, (1000, 1500), 0, &[(1000, 1500)]);
    answer(&mut s, (3000, 3500), 0, &[(3000, 3500), (1000, 1500)]);
    answer(&mut s, (1500, 1600), 0, &[(1000, 1600), (3000, 3500)]);
    s.finish();
}

/// RFC 2018 §3: four blocks fit, if there are no timestamps.
#[test]
fn four_blocks_fit_and_the_oldest_is_left_out_rfc2018_3() {
    let mut s = established();
    for i in 1..6 {
        let _ = s.try_inject(seg(".").seq(i * 2000).ack(0).len(1000));
    }
    s.expect(seg(".").ack(0).sack(&[(10_000, 11_000), (8000, 9000), (6000, 7000), (4000, 5000)]));
    s.finish();
}

/// RFC 2018 §3: three beside timestamps.
#[test]
fn three_blocks_fit_beside_timestamps_rfc2018_3() {
    let mut s = Script::established(config(), all_options());
    for i in 1..6 {
        s.inject(seg(".").seq(i * 2000).ack(0).len(1000));
    }
    s.expect(seg(".").ack(0).sack(&[(10_000, 11_000), (8000, 9000), (6000, 7000)]));
    s.finish();
}

/// A block that the ACK has reached is a block no more.
#[test]
fn what_the_ack_covers_is_in_no_block_rfc2018_4() {
    let mut s = established();
    answer(&mut s, (1000, 1500), 0, &[(1000, 1500)]);
    answer(&mut s, (3000, 3500), 0, &[(3000, 3500), (1000, 1500)]);
    answer(&mut s, (0, 1000), 1500, &[(3000, 3500)]);
    answer(&mut s, (1500, 3000), 3500, &[]);
    s.finish();
}

/// Without a gap there is nothing to report.
#[test]
fn data_in_order_has_no_blocks_rfc2018_4() {
    let mut s = established();
    answer(&mut s, (0, 500), 500, &[]);
    answer(&mut s, (500, 1000), 1000, &[]);
    s.finish();
}

/// Blocks end where the window ends: what lies beyond it was not kept.
#[test]
fn no_block_reaches_beyond_the_window_rfc2018_4() {
    let mut s = Script::established(Config { recv_buffer: 3000, ..config() }, sack_options());
    answer(&mut s, (2500, 3500), 0, &[(2500, 3000)]);
    s.finish();
}

/// RFC 2018 §4: SACK belongs into every ACK that does not cover all that came: also those that a probe asks for.
#[test]
fn an_ack_that_was_asked_for_repeats_the_blocks_rfc2018_4() {
    let mut s = established();
    answer(&mut s, (1000, 1500), 0, &[(1000, 1500)]);
    s.inject_dropped(seg(".").seq(-1).ack(0), DropReason::TcpOutOfWindow);
    s.expect(seg(".").ack(0).sack(&[(1000, 1500)]));
    s.finish();
}

/// RFC 2018 §4: data of ours must not take the place of the ACK that tells of a gap: it has no room for blocks, and with
/// data it is no duplicate ACK (RFC 5681 §2).
#[test]
fn news_of_a_gap_goes_beside_our_own_data_rfc2018_4() {
    let mut s = established();
    s.write(100);
    s.inject(seg(".").seq(1000).ack(0).len(500));
    s.expect(seg("P.").seq(0).ack(0).len(100));
    s.expect(seg(".").seq(100).ack(0).sack(&[(1000, 1500)]));
    s.expect_silence();
    s.finish();
}

/// RFC 5681 §4.2: likewise for a peer without SACK, who counts duplicate ACKs.
#[test]
fn a_duplicate_ack_goes_beside_our_own_data_rfc5681_4_2() {
    let mut s = Script::established(config(), plain_options());
    s.write(100);
    s.inject(seg(".").seq(1000).ack(0).len(500));
    s.expect(seg("P.").seq(0).ack(0).len(100));
    s.expect(seg(".").seq(100).ack(0));
    s.expect_silence();
    s.finish();
}

// RFC 2883 §4.1: whole segments.

/// Example 1.
#[test]
fn a_segment_that_comes_twice_is_reported_rfc2883_4_1_1() {
    let mut s = established();
    answer(&mut s, (0, 500), 500, &[]);
    answer(&mut s, (500, 1000), 1000, &[]);
    answer(&mut s, (0, 500), 1000, &[(0, 500)]);
    s.finish();
}

/// Example 2: the duplicate comes first, then what waits.
#[test]
fn a_duplicate_is_reported_before_what_waits_rfc2883_4_1_2() {
    let mut s = established();
    answer(&mut s, (0, 500), 500, &[]);
    answer(&mut s, (1000, 1500), 500, &[(1000, 1500)]);
    answer(&mut s, (0, 500), 500, &[(0, 500), (1000, 1500)]);
    s.finish();
}

/// Example 3: the second block is the larger one that the duplicate belongs to.
#[test]
fn a_duplicate_behind_a_gap_is_followed_by_its_block_rfc2883_4_1_3() {
    let mut s = established();
    answer(&mut s, (1000, 1500), 0, &[(1000, 1500)]);
    answer(&mut s, (1500, 2000), 0, &[(1000, 2000)]);
    answer(&mut s, (1500, 2000), 0, &[(1500, 2000), (1000, 2000)]);
    s.finish();
}

/// RFC 2883 §4, (4): also when that block is not the one that was touched last.
#[test]
fn the_block_of_a_duplicate_comes_second_whatever_came_last_rfc2883_4() {
    let mut s = established();
    answer(&mut s, (1000, 2000), 0, &[(1000, 2000)]);
    answer(&mut s, (3000, 4000), 0, &[(3000, 4000), (1000, 2000)]);
    answer(&mut s, (1200, 1500), 0, &[(1200, 1500), (1000, 2000), (3000, 4000)]);
    s.finish();
}

/// RFC 2883 §4, (4): nor when one ACK answers others that came since. Who reads it could not tell otherwise that the first
/// block is about a duplicate.
#[test]
fn the_block_of_a_duplicate_comes_second_though_more_came_before_the_ack_rfc2883_4() {
    let mut s = Script::established(config(), all_options());
    answer(&mut s, (1000, 2000), 0, &[(1000, 2000)]);
    let _ = s.try_inject(seg(".").seq(1200).ack(0).len(300));
    s.inject(seg(".").seq(3000).ack(0).len(500));
    s.inject(seg(".").seq(5000).ack(0).len(500));
    s.expect(seg(".").ack(0).sack(&[(1200, 1500), (1000, 2000), (5000, 5500)]));
    s.finish();
}

// RFC 2883 §4.2: parts of segments.

/// Example 4.
#[test]
fn the_old_part_of_a_larger_segment_is_reported_rfc2883_4_2_1() {
    let mut s = established();
    answer(&mut s, (0, 500), 500, &[]);
    answer(&mut s, (1500, 2000), 500, &[(1500, 2000)]);
    answer(&mut s, (500, 1000), 1000, &[(1500, 2000)]);
    answer(&mut s, (500, 1500), 2000, &[(500, 1000)]);
    s.finish();
}

/// Example 5: of two old parts below the ACK the first is reported.
#[test]
fn of_two_old_parts_below_the_ack_the_first_is_reported_rfc2883_4_2_2() {
    let mut s = established();
    answer(&mut s, (2500, 3000), 0, &[(2500, 3000)]);
    answer(&mut s, (0, 500), 500, &[(2500, 3000)]);
    answer(&mut s, (1500, 2000), 500, &[(1500, 2000), (2500, 3000)]);
    answer(&mut s, (0, 2000), 2000, &[(0, 500), (2500, 3000)]);
    s.finish();
}

/// Example 6: likewise above the ACK, followed by the block that it belongs to.
#[test]
fn of_two_old_parts_behind_a_gap_the_first_is_reported_rfc2883_4_2_3() {
    let mut s = established();
    answer(&mut s, (2500, 3000), 0, &[(2500, 3000)]);
    answer(&mut s, (500, 1000), 0, &[(500, 1000), (2500, 3000)]);
    answer(&mut s, (1500, 2000), 0, &[(1500, 2000), (500, 1000), (2500, 3000)]);
    answer(&mut s, (500, 2000), 0, &[(500, 1000), (500, 2000), (2500, 3000)]);
    s.finish();
}

/// What fills the gap reaches into what waited behind it.
#[test]
fn the_old_end_of_what_fills_a_gap_is_reported_rfc2883_4_2() {
    let mut s = established();
    answer(&mut s, (500, 1500), 0, &[(500, 1500)]);
    answer(&mut s, (0, 800), 1500, &[(500, 800)]);
    s.finish();
}

// RFC 2883 §4, the rules.

/// (2): each duplicate is reported once.
#[test]
fn a_duplicate_is_reported_once_rfc2883_4() {
    let mut s = established();
    answer(&mut s, (0, 500), 500, &[]);
    answer(&mut s, (0, 500), 500, &[(0, 500)]);
    answer(&mut s, (1000, 1500), 500, &[(1000, 1500)]);
    answer(&mut s, (0, 500), 500, &[(0, 500), (1000, 1500)]);
    s.finish();
}

/// A report takes the place of one block when there is no room for both.
#[test]
fn a_report_takes_the_place_of_the_oldest_block_rfc2883_4() {
    let mut s = Script::established(config(), all_options());
    s.inject(seg(".").seq(0).ack(0).len(500));
    for i in 1..4 {
        s.inject(seg(".").seq(i * 2000).ack(0).len(1000));
    }
    s.expect(seg(".").ack(500).sack(&[(6000, 7000), (4000, 5000), (2000, 3000)]));
    answer(&mut s, (0, 500), 500, &[(0, 500), (6000, 7000), (4000, 5000)]);
    s.finish();
}

/// RFC 2883 §4 is an extension of SACK: without it, nothing is reported.
#[test]
fn without_sack_no_duplicate_is_reported_rfc2883_4() {
    let mut s = Script::established(config(), plain_options());
    answer(&mut s, (0, 500), 500, &[]);
    answer(&mut s, (0, 500), 500, &[]);
    s.finish();
}

/// A peer that repeats FIN repeats no data: nothing is reported.
#[test]
fn fin_alone_is_no_duplicate_data() {
    let mut s = established();
    s.inject(seg("F.").seq(0).ack(0));
    s.expect(seg(".").ack(1).sack(&[]));
    let _ = s.try_inject(seg("F.").seq(0).ack(0));
    let (ack, _) = s.expect_any();
    assert!(ack.options.sack.len() <= 1);
    s.finish();
}
