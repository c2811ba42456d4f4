//! FIN in each state: data beside it, data after it, FIN that is lost, and half-closed connections (RFC 9293 §3.6).

use crate::dsl::{Script, config, pattern, plain_options, seg};
use stack_user::{
    tcp::{Config, Error, Event, ReadError, State, WriteError},
    telemetry::DropReason,
    time::Duration,
};

fn established() -> Script {
    Script::established(config(), plain_options())
}

fn fin_wait_1() -> Script {
    let mut s = established();
    s.app_shutdown();
    s.expect(seg("F.").seq(0).ack(0));
    s
}

fn fin_wait_2() -> Script {
    let mut s = fin_wait_1();
    s.inject(seg(".").seq(0).ack(1));
    s.state(State::FinWait2);
    s
}

fn close_wait() -> Script {
    let mut s = established();
    s.inject(seg("F.").seq(0).ack(0));
    s.expect(seg(".").seq(0).ack(1));
    s.state(State::CloseWait);
    s
}

fn last_ack() -> Script {
    let mut s = close_wait();
    s.app_shutdown();
    s.expect(seg("F.").seq(0).ack(1));
    s.state(State::LastAck);
    s
}

fn closing() -> Script {
    let mut s = fin_wait_1();
    s.inject(seg("F.").seq(0).ack(0));
    s.expect(seg(".").seq(1).ack(1));
    s.state(State::Closing);
    s
}

fn time_wait() -> Script {
    let mut s = fin_wait_1();
    s.inject(seg("F.").seq(0).ack(1));
    s.expect(seg(".").seq(1).ack(1));
    s.state(State::TimeWait);
    s
}

// Our FIN.

/// RFC 9293 §3.10.4: CLOSE is queued until all that was sent before has been segmentized.
#[test]
fn fin_follows_all_that_was_written_rfc9293_3_10_4() {
    let mut s = established();
    s.write(14_500);
    s.app_shutdown();
    s.state(State::FinWait1);
    for i in 0..10 {
        s.expect(seg(".").seq(i * 1000).len(1000));
    }
    s.expect_silence();
    s.inject(seg(".").seq(0).ack(10_000));
    for i in 10..14 {
        s.expect(seg(".").seq(i * 1000).len(1000));
    }
    s.expect(seg("FP.").seq(14_000).len(500));
    s.inject(seg(".").seq(0).ack(14_501));
    s.state(State::FinWait2);
    s.finish();
}

/// RFC 9293 §3.7.4: Nagle's algorithm waits for more; after FIN there is none.
#[test]
fn fin_releases_what_nagle_held() {
    let mut s = established();
    s.write(10);
    s.expect(seg("P.").seq(0).len(10));
    s.write(20);
    s.expect_silence();
    s.app_shutdown();
    s.expect(seg("FP.").seq(10).len(20));
    s.finish();
}

#[test]
fn fin_goes_alone_when_all_data_has_gone_before() {
    let mut s = established();
    s.write(10);
    s.expect(seg("P.").seq(0).len(10));
    s.app_shutdown();
    s.expect(seg("F.").seq(10));
    s.expect_silence();
    s.inject(seg(".").seq(0).ack(11));
    s.state(State::FinWait2);
    s.finish();
}

/// RFC 9293 §3.10.7.4, fifth step, FIN-WAIT-1: the ACK of data is not yet that of FIN.
#[test]
fn an_ack_of_the_data_alone_leaves_fin_wait_1() {
    let mut s = established();
    s.write(10);
    s.app_shutdown();
    s.expect(seg("FP.").seq(0).len(10));
    s.inject(seg(".").seq(0).ack(10));
    s.state(State::FinWait1);
    s.expect_at(200, seg("FP.").seq(0).ack(0).len(10));
    s.inject(seg(".").seq(0).ack(11));
    s.state(State::FinWait2);
    s.finish();
}

/// RFC 9293 §3.8.1: FIN is retransmitted like data, with back-off, until the user time-out.
#[test]
fn fin_is_repeated_until_the_user_time_out() {
    let config = Config { user_timeout: Duration::from_secs(10), ..config() };
    let mut s = Script::established(config, plain_options());
    s.app_shutdown();
    s.expect(seg("F.").seq(0).ack(0));
    for ms in [200, 400, 800, 1600, 3200] {
        s.expect_at(ms, seg("F.").seq(0).ack(0));
    }
    s.expect_silence_for(3800);
    assert_eq!(s.events(), [Event::Stalled, Event::Failed(Error::TimedOut), Event::Closed]);
    s.finish();
}

/// RFC 9293 §3.10.4: a second CLOSE of our direction asks for nothing new.
#[test]
fn shutdown_twice_is_shutdown_once() {
    let mut s = fin_wait_1();
    s.app_shutdown();
    s.expect_silence();
    s.inject(seg(".").seq(0).ack(1));
    s.app_shutdown();
    s.expect_silence();
    s.state(State::FinWait2);
    s.finish();
}

/// RFC 9293 §3.10.2: SEND after CLOSE is an error, in each state that follows.
#[test]
fn nothing_is_written_after_shutdown_rfc9293_3_10_2() {
    for mut s in [fin_wait_1(), fin_wait_2(), closing(), last_ack(), time_wait()] {
        assert_eq!(s.app_write(b"x"), Err(WriteError::Closed));
        s.expect_silence();
        s.finish();
    }
}

// FIN-WAIT-1.

/// RFC 9293 §3.10.7.4, seventh step: data is taken in FIN-WAIT-1.
#[test]
fn data_is_read_in_fin_wait_1_rfc9293_3_10_7_4() {
    let mut s = fin_wait_1();
    s.inject(seg("P.").seq(0).ack(0).data(b"still here"));
    s.expect(seg(".").seq(1).ack(10));
    s.state(State::FinWait1);
    assert_eq!(s.read(20), b"still here");
    s.finish();
}

/// RFC 9293 §3.10.7.4, eighth step: FIN that acknowledges ours goes straight to TIME-WAIT.
#[test]
fn fin_with_the_ack_of_ours_goes_to_time_wait_rfc9293_3_10_7_4() {
    let mut s = fin_wait_1();
    s.inject(seg("F.").seq(0).ack(1).data(b"last words"));
    s.state(State::TimeWait);
    s.expect(seg(".").seq(1).ack(11));
    assert_eq!(s.read(20), b"last words");
    assert_eq!(s.app_read(20), Ok(vec![]));
    s.finish();
}

// FIN-WAIT-2.

/// RFC 9293 §3.6: half-closed, a connection carries as much as ever in the other direction.
#[test]
fn a_half_closed_connection_receives_as_ever() {
    let mut s = fin_wait_2();
    for i in 0..50 {
        s.inject(seg(".").seq(i * 1000).ack(1).len(1000));
        s.drain();
        assert_eq!(s.read(2000), pattern(i * 1000, 1000));
    }
    s.inject(seg("F.").seq(50_000).ack(1));
    s.expect(seg(".").seq(1).ack(50_001));
    s.state(State::TimeWait);
    s.finish();
}

#[test]
fn a_fin_that_overtook_data_waits_in_fin_wait_2() {
    let mut s = fin_wait_2();
    s.inject(seg("F.").seq(100).ack(1).len(50));
    s.expect(seg(".").seq(1).ack(0));
    s.state(State::FinWait2);
    s.inject(seg(".").seq(0).ack(1).len(100));
    s.expect(seg(".").seq(1).ack(151));
    s.state(State::TimeWait);
    s.finish();
}

/// RFC 9293 §3.10.4: whoever closed entirely reads nothing, so the wait for FIN has an end; data would reset it (SHLD-3).
#[test]
fn after_close_fin_wait_2_lasts_as_long_as_configured() {
    let mut s =
        Script::established(Config { fin_wait_2: Duration::from_secs(7), ..config() }, plain_options());
    s.app_close();
    s.expect(seg("F.").seq(0).ack(0));
    s.inject(seg(".").seq(0).ack(1));
    s.expect_silence_for(6999);
    s.state(State::FinWait2);
    s.expect_silence_for(1);
    s.state(State::Closed);
    s.finish();
}

/// RFC 9293 §3.6.1: an orderly FIN of the peer is none of the data that close has refused.
#[test]
fn after_close_the_peers_fin_leads_to_time_wait() {
    let mut s = established();
    s.app_close();
    s.expect(seg("F.").seq(0).ack(0));
    s.inject(seg(".").seq(0).ack(1));
    s.inject(seg("F.").seq(0).ack(1));
    s.expect(seg(".").seq(1).ack(1));
    s.state(State::TimeWait);
    assert_eq!(s.app_read(1), Err(ReadError::Closed));
    s.finish();
}

// CLOSE-WAIT.

/// RFC 9293 §3.10.2: in CLOSE-WAIT the application may go on writing, and losses are repaired.
#[test]
fn losses_are_repaired_in_close_wait() {
    let mut s = close_wait();
    s.write(2000);
    s.expect(seg(".").seq(0).ack(1).len(1000));
    s.expect(seg("P.").seq(1000).ack(1).len(1000));
    s.expect_at(200, seg(".").seq(0).ack(1).len(1000));
    s.inject(seg(".").seq(1).ack(2000));
    s.state(State::CloseWait);
    s.finish();
}

/// RFC 9293 §3.10.3: RECEIVE in CLOSE-WAIT gives what is left, and then the end.
#[test]
fn what_came_before_fin_is_read_in_close_wait_rfc9293_3_10_3() {
    let mut s = established();
    s.inject(seg("P.").seq(0).ack(0).len(1000));
    s.inject(seg("F.").seq(1000).ack(0).len(1000));
    s.drain();
    assert_eq!(s.read(1500), pattern(0, 1500));
    assert_eq!(s.read(1500), pattern(1500, 500));
    assert_eq!(s.app_read(1), Ok(vec![]));
    assert_eq!(s.app_read(1), Ok(vec![]), "and it stays so");
    s.finish();
}

/// RFC 9293 §3.10.7.4, seventh step: nothing can come after FIN.
#[test]
fn data_beyond_the_peers_fin_is_ignored_in_close_wait_rfc9293_3_10_7_4() {
    let mut s = close_wait();
    let _ = s.try_inject(seg("P.").seq(1).ack(0).data(b"more"));
    assert_eq!(s.info().readable, 0);
    assert_eq!(s.app_read(10), Ok(vec![]));
    s.state(State::CloseWait);
    s.finish();
}

/// RFC 9293 §3.10.7.4, eighth step: a second FIN elsewhere does not move the end.
#[test]
fn a_second_fin_further_on_changes_nothing() {
    let mut s = close_wait();
    let _ = s.try_inject(seg("F.").seq(500).ack(0));
    s.drain();
    s.state(State::CloseWait);
    s.write(10);
    s.expect(seg("P.").seq(0).ack(1).len(10));
    s.finish();
}

/// A connection that nobody closes stays: there is no time limit for CLOSE-WAIT (RFC 9293 §3.6).
#[test]
fn close_wait_has_no_time_limit() {
    let mut s = close_wait();
    s.expect_silence_for(10_000_000);
    s.state(State::CloseWait);
    s.finish();
}

// LAST-ACK and CLOSING.

#[test]
fn fin_is_repeated_in_last_ack() {
    let mut s = last_ack();
    s.expect_at(200, seg("F.").seq(0).ack(1));
    s.expect_at(400, seg("F.").seq(0).ack(1));
    s.inject(seg(".").seq(1).ack(1));
    s.state(State::Closed);
    s.expect_silence();
    s.finish();
}

/// RFC 9293 §3.10.7.4, fifth step, LAST-ACK: only the ACK of FIN ends it.
#[test]
fn last_ack_waits_for_the_ack_of_fin() {
    let mut s = close_wait();
    s.write(3000);
    s.app_shutdown();
    assert_eq!(s.drain(), 3);
    s.inject(seg(".").seq(1).ack(1000));
    s.inject(seg(".").seq(1).ack(3000));
    s.state(State::LastAck);
    s.inject(seg(".").seq(1).ack(3001));
    s.state(State::Closed);
    s.finish();
}

#[test]
fn fin_is_repeated_in_closing() {
    let mut s = closing();
    s.expect_at(200, seg("F.").seq(0).ack(1));
    s.inject(seg(".").seq(1).ack(1));
    s.state(State::TimeWait);
    s.finish();
}

/// RFC 9293 §3.6, case 3, with data on its way in both directions.
#[test]
fn both_close_at_once_with_data_on_its_way() {
    let mut s = established();
    s.write(2000);
    s.app_shutdown();
    s.expect(seg(".").seq(0).len(1000));
    s.expect(seg("FP.").seq(1000).len(1000));
    s.inject(seg("FP.").seq(0).ack(0).data(b"theirs"));
    s.state(State::Closing);
    s.expect(seg(".").seq(2001).ack(7));
    s.inject(seg(".").seq(7).ack(1000));
    s.state(State::Closing);
    s.inject(seg(".").seq(7).ack(2001));
    s.state(State::TimeWait);
    assert_eq!(s.read(10), b"theirs");
    s.finish();
}

/// RFC 9293 §3.8.1: also in CLOSING, data comes before FIN when it is sent again.
#[test]
fn data_and_fin_are_repeated_in_closing() {
    let mut s = established();
    s.write(1500);
    s.app_shutdown();
    assert_eq!(s.drain(), 2);
    s.inject(seg("F.").seq(0).ack(0));
    s.expect(seg(".").seq(1501).ack(1));
    s.expect_at(200, seg(".").seq(0).ack(1).len(1000));
    s.inject(seg(".").seq(1).ack(1000));
    s.expect(seg("F.").seq(1000).ack(1).len(500));
    s.inject(seg(".").seq(1).ack(1501));
    s.state(State::TimeWait);
    s.finish();
}

// TIME-WAIT.

/// RFC 9293 §3.6.1, MUST-13.
#[test]
fn time_wait_lasts_twice_the_msl_that_was_chosen_must_13() {
    let mut s =
        Script::established(Config { time_wait: Duration::from_secs(240), ..config() }, plain_options());
    s.app_shutdown();
    s.expect(seg("F.").seq(0).ack(0));
    s.inject(seg("F.").seq(0).ack(1));
    s.expect(seg(".").seq(1).ack(1));
    s.expect_silence_for(239_999);
    s.state(State::TimeWait);
    s.expect_silence_for(1);
    s.state(State::Closed);
    s.finish();
}

/// RFC 9293 §3.10.7.4: a plain ACK that comes late is nothing to answer, and does not prolong TIME-WAIT.
#[test]
fn a_late_ack_in_time_wait_is_silent() {
    let mut s = time_wait();
    s.advance(30_000);
    s.inject(seg(".").seq(1).ack(1));
    s.expect_silence_for(29_999);
    s.state(State::TimeWait);
    s.expect_silence_for(1);
    s.state(State::Closed);
    s.finish();
}

/// RFC 9293 §3.10.7.4: the ACK of FIN was lost; the peer repeats FIN with the data before it.
#[test]
fn fin_with_its_data_again_in_time_wait_is_answered_rfc9293_3_10_7_4() {
    let mut s = fin_wait_1();
    s.inject(seg("F.").seq(0).ack(1).len(100));
    s.expect(seg(".").seq(1).ack(101));
    s.state(State::TimeWait);
    s.advance(1000);
    s.inject_dropped(seg("F.").seq(0).ack(1).len(100), DropReason::TcpDuplicateData);
    s.expect(seg(".").seq(1).ack(101));
    assert_eq!(s.read(200), pattern(0, 100), "once");
    s.finish();
}

/// RFC 9293 §3.6: the application knows that the stream has ended while TIME-WAIT goes on, MUST-12.
#[test]
fn the_application_need_not_wait_for_the_end_of_time_wait_must_12() {
    let mut s = time_wait();
    let events = s.events();
    assert_eq!(events, [Event::Writable, Event::PeerClosed], "our FIN has arrived, and theirs");
    assert_eq!(s.app_read(1), Ok(vec![]));
    assert_eq!(s.app_write(b"x"), Err(WriteError::Closed));
    s.advance(60_000);
    assert_eq!(s.events(), [Event::Closed]);
    s.finish();
}

/// RFC 9293 §3.6, MUST-12: an abort does not look like an orderly end.
#[test]
fn a_reset_does_not_look_like_the_end_of_the_stream_must_12() {
    let mut s = established();
    s.inject(seg("R").seq(0));
    assert_eq!(s.app_read(1), Err(ReadError::Failed(Error::Reset)));
    assert_eq!(s.connection.error(), Some(Error::Reset));

    let mut s = last_ack();
    s.inject(seg(".").seq(1).ack(1));
    assert_eq!(s.app_read(1), Ok(vec![]));
    assert_eq!(s.connection.error(), None);
    s.finish();
}

/// RFC 9293 §3.6.1, SHLD-3: data that nobody will read, behind a gap, is refused like other.
#[test]
fn data_out_of_order_after_close_resets_shld_3() {
    let mut s = established();
    s.app_close();
    s.expect(seg("F.").seq(0).ack(0));
    s.inject_dropped(seg("P.").seq(100).ack(1).len(100), DropReason::TcpDataAfterClose);
    s.expect(seg("R.").seq(1).ack(0));
    assert!(s.connection.is_closed());
    s.finish();
}

/// RFC 9293 §3.6.1: data that had been received before close, and comes again, is no reason for RST.
#[test]
fn old_data_after_close_is_no_reason_to_reset() {
    let mut s = established();
    s.inject(seg("P.").seq(0).ack(0).len(10));
    s.expect(seg(".").ack(10));
    s.read(10);
    s.app_close();
    s.expect(seg("F.").seq(0).ack(10));
    s.inject_dropped(seg("P.").seq(0).ack(0).len(10), DropReason::TcpDuplicateData);
    s.expect(seg(".").seq(1).ack(10));
    s.state(State::FinWait1);
    s.finish();
}
