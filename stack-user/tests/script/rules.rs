//! Requirements of RFC 9293 that no other script is about, one each.

use crate::dsl::{Script, all_options, config, plain_options, seg};
use stack_user::{
    tcp::{self, Config, Error, Event, ReadError, State, Unreachable},
    telemetry::DropReason,
    time::Duration,
    wire::tcp::Flags,
};

/// With a peer whose MSS is 1000, and which has no other option.
fn established() -> Script {
    Script::established(config(), plain_options())
}

/// Five segments are on their way, and nothing else waits.
fn five_segments_sent() -> Script {
    let mut s = established();
    s.write(5000);
    for i in 0..5 {
        s.expect(seg(".").seq(i * 1000).len(1000));
    }
    s
}

/// The acknowledgements at a connection's start go at once; these are over.
fn past_quick_acks() -> (Script, i64) {
    let mut s = established();
    for i in 0..16 {
        s.inject(seg(".").seq(i * 1000).ack(0).len(1000));
        s.expect(seg(".").seq(0).ack((i + 1) * 1000));
    }
    s.read(100_000);
    s.drain();
    (s, 16_000)
}

#[test]
fn a_window_with_its_highest_bit_set_is_large_must_1_rec_1() {
    let mut s = established();
    s.inject(seg(".").seq(0).ack(0).window(0xffff));
    assert_eq!(s.info().send_window, 65_535);
    let mut s = Script::established(config(), all_options());
    s.inject(seg(".").seq(0).ack(0).window(0x7f_ff80));
    assert_eq!(s.info().send_window, 0x7f_ff80);
    s.finish();
}

#[test]
fn options_may_come_in_any_segment_must_5() {
    let mut s = established();
    let unknown = [253, 4, 1, 2];
    s.inject(seg(".").seq(0).ack(0).data(b"a").raw_options(&unknown));
    s.expect(seg(".").seq(0).ack(1));
    s.inject(seg("F.").seq(1).ack(0).data(b"b").raw_options(&unknown));
    s.expect(seg(".").seq(0).ack(3));
    assert_eq!(s.read(10), b"ab");
    s.inject(seg("R.").seq(3).ack(0).raw_options(&unknown));
    s.state(State::Closed);
    s.finish();
}

#[test]
fn an_end_and_an_abort_are_told_apart_must_12() {
    let mut s = established();
    s.events();
    s.inject(seg("F.").seq(0).ack(0));
    s.expect(seg(".").seq(0).ack(1));
    assert_eq!(s.events(), [Event::PeerClosed]);
    assert_eq!(s.app_read(10), Ok(vec![]));
    s.finish();

    let mut s = established();
    s.inject(seg("R.").seq(0).ack(0));
    assert_eq!(s.events(), [Event::Failed(Error::Reset), Event::Closed]);
    assert_eq!(s.app_read(10), Err(ReadError::Failed(Error::Reset)));
    s.finish();
}

#[test]
fn who_closes_first_stays_for_two_msl_must_13() {
    let mut s =
        Script::established(Config { time_wait: Duration::from_secs(240), ..config() }, plain_options());
    s.app_shutdown();
    s.expect(seg("F.").seq(0).ack(0));
    s.inject(seg("F.").seq(0).ack(1));
    s.expect(seg(".").seq(1).ack(1));
    s.expect_silence_for(239_999);
    s.state(State::TimeWait);
    s.advance(1);
    s.state(State::Closed);
    s.finish();
}

#[test]
fn three_segments_open_a_connection_rfc9293_3_5() {
    let mut s = Script::new(config());
    s.expect(seg("S").seq(-1));
    s.expect_silence();
    s.inject(seg("S.").seq(-1).ack(0).options(plain_options()));
    s.state(State::Established);
    s.expect(seg(".").seq(0).ack(0));
    s.expect_silence();
    assert_eq!(s.events(), [Event::Connected]);
    s.finish();
}

#[test]
fn syn_says_what_we_take_and_no_other_segment_does_must_14_shld_5_may_3_must_65() {
    let mut s = Script::new(Config { mss: 1234, ..config() });
    let (syn, _) = s.expect_any();
    assert_eq!(syn.options.mss, Some(1234));
    s.inject(seg("S.").seq(-1).ack(0).options(all_options()));
    assert_eq!(s.info().mss, 1234 - 12, "theirs is larger, ours bounds what the link carries");
    s.write(2000);
    s.app_shutdown();
    let mut sent = 0;
    while let Some((segment, _)) = s.poll() {
        assert_eq!(segment.options.mss, None);
        sent += 1;
    }
    assert!(sent >= 2);
    s.app_abort();
    assert_eq!(s.expect_any().0.options.mss, None);
    s.finish();
}

#[test]
fn data_that_nobody_acknowledges_ends_the_connection_at_r2_must_20_shld_11() {
    let mut s = established();
    let start = s.now;
    s.write(10);
    s.expect(seg(".").seq(0).len(10));
    while !s.connection.is_closed() {
        s.advance_to_timer();
        s.drain();
    }
    let after = s.now.since(start).as_millis();
    assert!((100_000..=310_000).contains(&after), "{after} ms");
    assert!(s.info().timeouts > 3, "R1 comes before R2");
    assert!(s.events().contains(&Event::Failed(Error::TimedOut)));
    s.finish();
}

#[test]
fn trouble_is_told_after_three_retransmissions_and_once_shld_9_shld_10_must_47() {
    let mut s = established();
    s.events();
    s.write(10);
    s.expect(seg("P.").seq(0).len(10));
    let mut told = Vec::new();
    for retransmissions in 1..=6 {
        while s.drain() == 0 {
            s.advance_to_timer();
        }
        told.extend(s.events().into_iter().map(|event| (retransmissions, event)));
    }
    assert_eq!(told, [(u64::from(tcp::R1), Event::Stalled)]);
    const { assert!(tcp::R1 >= 3) };
    assert!(
        s.connection.take_suspicion() && !s.connection.take_suspicion(),
        "MUST-20: IP is told, too, and once"
    );
    s.finish();
}

#[test]
fn reports_that_nobody_takes_do_not_pile_up_shld_20() {
    let mut s = five_segments_sent();
    s.events();
    for pointer in 1..1000 {
        s.inject_icmp(Unreachable::Host, 0);
        s.inject(seg("U.").seq(0).ack(0).urgent(pointer));
    }
    assert_eq!(s.events(), [Event::Urgent, Event::Unreachable(Unreachable::Host)]);
    s.finish();
}

#[test]
fn a_syn_that_nobody_answers_is_repeated_and_its_end_is_told_must_22() {
    let mut s = Script::syn_sent(config());
    let mut repeated = 0;
    while !s.connection.is_closed() {
        s.advance_to_timer();
        repeated += s.drain();
    }
    assert!(repeated >= 6, "{repeated} times");
    let end = [Event::Stalled, Event::Failed(Error::ConnectTimedOut), Event::Closed];
    assert_eq!(s.events(), end);
    s.finish();
}

#[test]
fn a_window_that_shrinks_holds_new_data_back_and_repairs_what_is_inside_must_34_shld_15_shld_16() {
    let mut s = five_segments_sent();
    s.inject(seg(".").seq(0).ack(0).window(2000));
    s.write(1000);
    s.expect_silence();
    // Nothing comes back, so what lies inside of the window goes again, and what is beyond waits.
    s.expect_within(0..=1000, seg(".").seq(0).len(1000));
    s.expect_silence();
    s.inject(seg(".").seq(0).ack(1000).window(1000));
    s.expect(seg(".").seq(1000).len(1000));
    s.expect_silence();
    s.inject(seg(".").seq(0).ack(5000).window(10_000));
    s.expect(seg(".").seq(5000).len(1000));
    s.finish();
}

#[test]
fn a_window_that_shrinks_to_zero_is_probed_after_rto_must_35_must_36_shld_29() {
    let mut s = five_segments_sent();
    s.inject(seg(".").seq(0).ack(5000).window(0));
    s.write(1000);
    s.expect_silence();
    let rto = s.rto();
    s.expect_at(rto, seg(".").seq(4999).ack(0));
    s.inject(seg(".").seq(0).ack(5000).window(4000));
    s.expect(seg(".").seq(5000).len(1000));
    s.finish();
}

#[test]
fn an_ack_waits_for_data_to_travel_with_shld_18() {
    let (mut s, next) = past_quick_acks();
    s.inject(seg(".").seq(next).ack(0).data(b"question"));
    s.expect_silence_for(20);
    s.write(6);
    s.expect(seg(".").seq(0).ack(next + 8).len(6));
    s.expect_silence();
    s.finish();
}

#[test]
fn one_ack_answers_all_that_has_come_must_58_must_59() {
    let mut s = established();
    for i in 0..6 {
        s.inject(seg(".").seq(i * 1000).ack(0).len(1000));
    }
    s.expect(seg(".").seq(0).ack(6000));
    s.expect_silence();
    s.finish();
}

#[test]
fn what_comes_too_early_is_kept_shld_31_may_13() {
    let mut s = established();
    s.inject(seg(".").seq(1000).ack(0).len(1000));
    s.expect(seg(".").seq(0).ack(0));
    s.inject(seg(".").seq(0).ack(0).len(1000));
    s.expect(seg(".").seq(0).ack(2000));
    assert_eq!(s.read(5000).len(), 2000);
    s.finish();
}

#[test]
fn the_last_segment_of_what_was_written_has_psh_must_61() {
    let mut s = established();
    s.write(2500);
    for (seq, len, pushed) in [(0, 1000, false), (1000, 1000, false)] {
        let (segment, data) = s.expect_any();
        assert_eq!((segment.flags.contains(Flags::PSH), data.len()), (pushed, len), "at {seq}");
    }
    s.inject(seg(".").seq(0).ack(2000));
    s.expect(seg("P.").seq(2000).len(500));
    s.finish();
}

#[test]
fn what_is_written_never_waits_for_more_must_60() {
    let mut s = established();
    s.write(1);
    s.expect(seg("P.").seq(0).len(1));
    s.write(1);
    s.expect_silence();
    // Not for more to be written, but for the ACK: no longer than a round trip.
    s.inject(seg(".").seq(0).ack(1));
    s.expect(seg("P.").seq(1).len(1));
    s.finish();
}

#[test]
fn small_writes_make_full_segments_and_these_go_at_once_shld_27_shld_28_may_16() {
    let mut s = established();
    s.write(100);
    s.expect(seg("P.").seq(0).len(100));
    for _ in 0..9 {
        s.write(100);
        s.expect_silence();
    }
    for _ in 0..2 {
        s.write(100);
    }
    s.expect(seg(".").seq(100).len(1000));
    s.expect_silence();
    s.finish();
}

#[test]
fn the_application_can_ask_for_the_status_rfc9293_3_10_6() {
    let mut s = five_segments_sent();
    s.inject(seg(".").seq(0).ack(0).len(300));
    let info = s.info();
    assert_eq!(info.state, State::Established);
    assert_eq!((info.send_window, info.readable, info.outstanding), (65_535, 300, 5000));
    assert_eq!(s.connection.local().port(), 40_000);
    assert_eq!(s.connection.remote().port(), 80);
    s.finish();
}

#[test]
fn soft_errors_end_no_connection_and_explain_its_end_must_56_shld_25() {
    for kind in [Unreachable::Network, Unreachable::Host, Unreachable::TimeExceeded] {
        let mut s = five_segments_sent();
        s.inject_icmp(kind, 0);
        s.state(State::Established);
        assert_eq!(s.events(), [Event::Unreachable(kind)], "MUST-47");
        assert_eq!(s.info().soft_error, Some(kind));
        while !s.connection.is_closed() {
            s.advance_to_timer();
            s.drain();
        }
        assert_eq!(s.connection.error(), Some(Error::Unreachable(kind)));
        s.finish();
    }
}

#[test]
fn hard_errors_end_no_established_connection_rfc5927_5_2() {
    for kind in [Unreachable::Protocol, Unreachable::Port] {
        let mut s = five_segments_sent();
        s.inject_icmp(kind, 0);
        s.state(State::Established);
        s.inject(seg(".").seq(0).ack(5000));
        s.finish();
    }
}

#[test]
fn timers_end_retransmit_and_forget_rfc9293_3_10_8() {
    let mut s =
        Script::established(Config { user_timeout: Duration::from_secs(5), ..config() }, plain_options());
    s.write(10);
    s.expect(seg("P.").seq(0).len(10));
    let rto = s.rto();
    s.expect_at(rto, seg("P.").seq(0).len(10));
    s.advance(5_000);
    assert_eq!(s.connection.error(), Some(Error::TimedOut));
    s.finish();
}

#[test]
fn a_closed_window_takes_no_data_and_stays_closed_may_8() {
    let config = Config { recv_buffer: 1000, recv_buffer_max: 1000, ..config() };
    let mut s = Script::established(config, plain_options());
    s.inject(seg(".").seq(0).ack(0).len(1000));
    s.expect(seg(".").seq(0).ack(1000).window(0));
    for _ in 0..100 {
        s.advance(60_000);
        s.inject_dropped(seg(".").seq(1000).ack(0).data(b"x"), DropReason::TcpOutOfWindow);
        s.expect(seg(".").seq(0).ack(1000).window(0));
    }
    s.finish();
}

#[test]
fn the_smallest_round_trip_is_kept_rfc8985_6_2_step_1() {
    let mut s = established();
    for (ms, smallest) in [(30, 10), (4, 4), (50, 4)] {
        s.write(10);
        s.expect_any();
        s.advance(ms);
        let acked = s.info().bytes_acked as i64 + 10;
        s.inject(seg(".").seq(0).ack(acked));
        assert_eq!(s.info().min_rtt, Some(Duration::from_millis(smallest)));
    }
    s.finish();
}

#[test]
fn the_timestamp_clock_ticks_each_millisecond_rfc7323_5_4() {
    let mut s = Script::established(Config { nodelay: true, ..config() }, all_options());
    let mut clock = Vec::new();
    for _ in 0..3 {
        s.write(1);
        clock.extend(s.expect_any().0.options.timestamps.map(|timestamps| timestamps.value));
        s.advance(1);
    }
    assert_eq!(clock[1..], [clock[0].wrapping_add(1), clock[0].wrapping_add(2)]);
    s.finish();
}
