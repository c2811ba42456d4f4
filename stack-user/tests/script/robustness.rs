//! Segments that no honest peer sends, or that come late, twice, or from somebody else.

use crate::dsl::{Script, all_options, config, plain_options, seg};
use stack_user::{
    tcp::{
        Config, State,
        options::{Options, Timestamps},
    },
    telemetry::DropReason,
};

fn established() -> Script {
    Script::established(config(), plain_options())
}

#[test]
fn a_syn_in_the_window_is_challenged_rfc5961_4() {
    let mut s = established();
    s.inject_dropped(seg("S").seq(10).options(plain_options()), DropReason::TcpChallenged);
    s.expect(seg(".").seq(0).ack(0));
    s.state(State::Established);
    s.finish();
}

#[test]
fn challenges_are_limited_rfc5961_7() {
    let mut s = established();
    let mut answers = 0;
    for i in 0..1000 {
        s.inject_dropped(seg("R").seq(100 + i), DropReason::TcpChallenged);
        answers += usize::from(s.poll().is_some());
    }
    assert_eq!(answers, 10);
    s.finish();
}

#[test]
fn no_ack_no_data_rfc9293_3_10_7_4() {
    let mut s = established();
    s.inject_dropped(seg("").seq(0).data(b"x"), DropReason::TcpNoAck);
    s.expect_silence();
    s.finish();
}

#[test]
fn probes_and_keep_alives_are_answered() {
    let mut s = established();
    s.inject(seg(".").seq(0).ack(0).data(b"abc"));
    s.expect(seg(".").ack(3));
    s.inject_dropped(seg(".").seq(2).ack(0), DropReason::TcpOutOfWindow);
    s.expect(seg(".").ack(3));
    s.inject_dropped(seg(".").seq(2).ack(0).data(b"?"), DropReason::TcpDuplicateData);
    s.expect(seg(".").ack(3));
    assert_eq!(s.read(10), b"abc");
    s.finish();
}

#[test]
fn overlapping_data_is_taken_once() {
    let mut s = established();
    s.inject(seg(".").seq(0).ack(0).len(100));
    s.inject(seg(".").seq(50).ack(0).len(100));
    s.inject(seg(".").seq(200).ack(0).len(100));
    s.inject(seg(".").seq(120).ack(0).len(120));
    let mut data = Vec::new();
    while s.connection.info().readable > 0 {
        data.extend(s.read(1000));
    }
    assert_eq!(data, crate::dsl::pattern(0, 300));
    s.finish();
}

#[test]
fn the_urgent_pointer_changes_nothing() {
    let mut s = established();
    s.inject(seg("U.").seq(0).ack(0).data(b"urgent"));
    assert_eq!(s.read(10), b"urgent");
    s.finish();
}

#[test]
fn paws_drops_old_duplicates_and_answers_rfc7323_5_3() {
    let mut s = Script::established(config(), all_options());
    let now = s.now.as_millis() as u32;
    s.inject(seg(".").seq(0).ack(0).data(b"abc"));
    s.expect(seg(".").ack(3));
    s.inject_dropped(seg(".").seq(3).ack(0).data(b"old").timestamp(now - 1000), DropReason::TcpPaws);
    s.expect(seg(".").ack(3));
    // A pure ACK that was overtaken needs no answer.
    s.inject_dropped(seg(".").seq(3).ack(0).timestamp(now - 1000), DropReason::TcpPaws);
    s.expect_silence();
    s.inject(seg("R").seq(3).timestamp(now - 1000));
    s.state(State::Closed);
    s.finish();
}

#[test]
fn the_echo_is_of_the_segment_that_the_ack_answers_rfc7323_4_3() {
    let mut s = Script::established(config(), all_options());
    let first = s.now.as_millis() as u32;
    s.inject(seg(".").seq(1000).ack(0).len(100).timestamp(first + 50));
    let (ack, _) = s.poll().expect("an ACK");
    let echo = |options: Options| options.timestamps.map(|Timestamps { echo, .. }| echo);
    assert_eq!(echo(ack.options), Some(first), "data behind a gap is not echoed");
    s.inject(seg(".").seq(0).ack(0).len(1000).timestamp(first + 60));
    let (ack, _) = s.poll().expect("an ACK");
    assert_eq!(echo(ack.options), Some(first + 60));
    s.finish();
}

#[test]
fn data_after_the_peers_fin_is_ignored() {
    let mut s = established();
    s.inject(seg("F.").seq(0).ack(0));
    s.expect(seg(".").ack(1));
    s.inject(seg(".").seq(1).ack(0).data(b"more"));
    s.expect_silence();
    assert_eq!(s.connection.info().readable, 0);
    s.finish();
}

#[test]
fn an_ack_at_the_right_edge_counts_even_if_what_filled_the_window_was_lost() {
    let config = Config { recv_buffer: 1000, recv_buffer_max: 1000, ..config() };
    let mut s = Script::established(config, plain_options());
    s.write(100);
    s.expect(seg(".").seq(0).len(100));
    s.inject(seg(".").seq(1000).ack(100));
    assert_eq!(s.connection.info().unacknowledged, 0);
    s.finish();
}

#[test]
fn without_a_chunk_an_ack_waits_for_one() {
    let mut s = established();
    s.inject(seg(".").seq(0).ack(0).data(b"abc"));
    let held: Vec<_> = core::iter::from_fn(|| stack_user::frame::FramePool::allocate(&mut s.pool)).collect();
    s.expect_silence();
    held.into_iter().for_each(|frame| stack_user::frame::FramePool::release(&mut s.pool, frame));
    assert!(s.advance_to_timer() <= 10);
    s.expect(seg(".").ack(3));
    s.finish();
}

/// RFC 7323 §3.2: who leaves the option out is not the peer that agreed on it; a reset is exempt.
#[test]
fn a_segment_without_the_timestamps_that_were_agreed_on_is_dropped_rfc7323_3_2() {
    let mut s = Script::established(Config::default(), all_options());
    let bare = || seg(".").seq(0).ack(0).data(b"forged").options(Options::default());
    s.inject_dropped(bare(), DropReason::TcpNoTimestamp);
    s.expect_silence();
    s.inject(seg(".").seq(0).ack(0).data(b"honest"));
    assert_eq!(s.read(100), b"honest");
    s.inject(seg("R").seq(6).options(Options::default()));
    s.state(State::Closed);
    s.finish();
}
