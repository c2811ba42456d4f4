//! Closing: FIN and RST, both ways (RFC 9293 §3.6).

use crate::dsl::{Script, config, plain_options, seg};
use stack_user::{
    frame::FramePool,
    tcp::{Error, Event, ReadError, State, WriteError},
    telemetry::DropReason,
};

fn established() -> Script {
    Script::established(config(), plain_options())
}

#[test]
fn we_close_first_and_wait_two_msl_rfc9293_3_6() {
    let mut s = established();
    s.write(10);
    s.app_shutdown();
    s.state(State::FinWait1);
    s.expect(seg("F.").seq(0).ack(0).len(10));
    assert_eq!(s.connection.write(s.now, &mut s.pool, b"x"), Err(WriteError::Closed));
    s.inject(seg(".").seq(0).ack(11));
    s.state(State::FinWait2);
    s.expect_silence();
    // Half-closed: the peer may send for as long as it likes.
    s.advance(1_000_000);
    s.inject(seg(".").seq(0).ack(11).data(b"late"));
    s.expect(seg(".").seq(11).ack(4));
    assert_eq!(s.read(10), b"late");
    s.inject(seg("F.").seq(4).ack(11));
    s.state(State::TimeWait);
    s.expect(seg(".").seq(11).ack(5));
    assert_eq!(s.connection.read(s.now, &mut s.pool, &mut [0; 4]), Ok(0));
    assert_eq!(s.advance_to_timer(), 60_000);
    s.state(State::Closed);
    assert_eq!(s.events().last(), Some(&Event::Closed));
    s.expect_silence();
    s.finish();
}

#[test]
fn a_fin_that_comes_again_in_time_wait_is_answered_and_starts_it_anew() {
    let mut s = established();
    s.app_shutdown();
    s.expect(seg("F.").seq(0).ack(0));
    s.inject(seg("F.").seq(0).ack(1));
    s.state(State::TimeWait);
    s.expect(seg(".").seq(1).ack(1));
    s.advance(50_000);
    s.inject_dropped(seg("F.").seq(0).ack(1), DropReason::TcpDuplicateData);
    s.expect(seg(".").seq(1).ack(1));
    assert_eq!(s.advance_to_timer(), 60_000);
    s.finish();
}

#[test]
fn rst_does_not_end_time_wait_rfc1337() {
    let mut s = established();
    s.app_shutdown();
    s.expect(seg("F.").seq(0).ack(0));
    s.inject(seg("F.").seq(0).ack(1));
    s.expect(seg(".").seq(1).ack(1));
    s.inject_dropped(seg("R").seq(1), DropReason::TcpOutOfWindow);
    s.state(State::TimeWait);
    s.finish();
}

#[test]
fn the_peer_closes_first() {
    let mut s = established();
    s.inject(seg("F.").seq(0).ack(0).data(b"bye"));
    s.state(State::CloseWait);
    s.expect(seg(".").seq(0).ack(4));
    assert_eq!(s.events(), [Event::Readable, Event::PeerClosed]);
    assert_eq!(s.read(10), b"bye");
    s.write(5);
    s.expect(seg(".").seq(0).ack(4).len(5));
    s.app_shutdown();
    s.state(State::LastAck);
    s.expect(seg("F.").seq(5).ack(4));
    s.inject(seg(".").seq(4).ack(5));
    s.state(State::LastAck);
    s.inject(seg(".").seq(4).ack(6));
    s.state(State::Closed);
    assert_eq!(s.events(), [Event::Closed]);
    s.finish();
}

#[test]
fn both_close_at_once_rfc9293_3_6_case_3() {
    let mut s = established();
    s.app_shutdown();
    s.expect(seg("F.").seq(0).ack(0));
    s.inject(seg("F.").seq(0).ack(0));
    s.state(State::Closing);
    s.expect(seg(".").seq(1).ack(1));
    s.inject(seg(".").seq(1).ack(1));
    s.state(State::TimeWait);
    s.finish();
}

#[test]
fn fin_behind_a_gap_waits_for_the_gap() {
    let mut s = established();
    s.inject(seg("F.").seq(5).ack(0).data(b"world"));
    s.state(State::Established);
    s.expect(seg(".").seq(0).ack(0));
    s.inject(seg(".").seq(0).ack(0).data(b"hello"));
    s.state(State::CloseWait);
    s.expect(seg(".").seq(0).ack(11));
    assert_eq!(s.read(20), b"helloworld");
    s.finish();

    let mut s = established();
    s.inject(seg("F.").seq(5).ack(0));
    s.expect(seg(".").seq(0).ack(0));
    s.inject(seg(".").seq(0).ack(0).data(b"hello"));
    s.state(State::CloseWait);
    s.finish();
}

#[test]
fn a_lost_fin_is_sent_again() {
    let mut s = established();
    s.app_shutdown();
    s.expect(seg("F.").seq(0).ack(0));
    s.advance(300);
    s.expect(seg("F.").seq(0).ack(0));
    s.inject(seg(".").seq(0).ack(1));
    s.state(State::FinWait2);
    s.finish();
}

#[test]
fn close_with_unread_data_resets_rfc9293_3_6_1() {
    let mut s = established();
    s.inject(seg(".").seq(0).ack(0).data(b"unread"));
    s.expect(seg(".").seq(0).ack(6));
    s.app_close();
    assert_eq!(s.app_read(10), Err(ReadError::Closed), "MAY-1");
    assert!(!s.connection.is_closed(), "RST is still to be sent");
    s.expect(seg("R.").seq(0).ack(6));
    assert!(s.connection.is_closed());
    s.finish();
}

#[test]
fn what_is_unread_does_not_wait_for_the_end_of_time_wait() {
    let mut s = established();
    let free = s.pool.available();
    s.app_shutdown();
    s.expect(seg("F.").seq(0).ack(0));
    s.inject(seg("F.").seq(0).ack(1).data(b"unread"));
    s.expect(seg(".").seq(1).ack(7));
    s.state(State::TimeWait);
    s.app_close();
    assert_eq!(s.pool.available(), free, "nobody is going to read it");
    s.expect_silence();
    s.finish();
}

#[test]
fn data_after_close_resets_shld_3() {
    let mut s = established();
    s.app_close();
    s.expect(seg("F.").seq(0).ack(0));
    s.inject(seg(".").seq(0).ack(1));
    s.inject_dropped(seg(".").seq(0).ack(1).data(b"late"), DropReason::TcpDataAfterClose);
    s.expect(seg("R.").seq(1).ack(0));
    assert!(s.connection.is_closed());
    s.finish();
}

#[test]
fn fin_wait_2_ends_by_itself_when_nobody_reads() {
    let mut s = established();
    s.app_close();
    s.expect(seg("F.").seq(0).ack(0));
    s.inject(seg(".").seq(0).ack(1));
    s.state(State::FinWait2);
    assert_eq!(s.advance_to_timer(), 60_000);
    s.state(State::Closed);
    s.finish();
}

#[test]
fn abort_sends_rst_rfc9293_3_10_5() {
    let mut s = established();
    s.write(10);
    s.expect(seg(".").seq(0).ack(0).len(10));
    s.app_abort();
    s.expect(seg("R.").seq(10).ack(0));
    s.expect_silence();
    assert_eq!(s.events(), [Event::Failed(Error::Aborted), Event::Closed]);
    s.finish();
}

#[test]
fn only_the_exact_rst_resets_rfc5961_3() {
    let mut s = established();
    s.inject_dropped(seg("R").seq(100), DropReason::TcpChallenged);
    s.expect(seg(".").seq(0).ack(0));
    s.inject_dropped(seg("R").seq(-1), DropReason::TcpOutOfWindow);
    s.inject_dropped(seg("R").seq(70_000_000), DropReason::TcpOutOfWindow);
    s.expect_silence();
    s.inject(seg(".").seq(0).ack(0).data(b"before"));
    s.inject(seg("R").seq(6));
    assert_eq!(s.events(), [Event::Readable, Event::Failed(Error::Reset), Event::Closed]);
    assert_eq!(s.read(10), b"before", "what came before can be read");
    let read = s.connection.read(s.now, &mut s.pool, &mut [0; 4]);
    assert_eq!(read, Err(ReadError::Failed(Error::Reset)));
    assert_eq!(s.connection.write(s.now, &mut s.pool, b"x"), Err(WriteError::Failed(Error::Reset)));
    s.expect_silence();
    s.finish();
}

#[test]
fn shutdown_before_the_handshake_is_complete_sends_fin_after_it() {
    let mut s = Script::new(config());
    s.expect(seg("S").seq(-1));
    s.app_shutdown();
    s.inject(seg("S.").seq(-1).ack(0).options(plain_options()));
    s.state(State::FinWait1);
    s.expect(seg("F.").seq(0).ack(0));
    s.finish();
}
