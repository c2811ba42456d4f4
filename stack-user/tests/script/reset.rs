//! RST, SYN where none belongs, and the ACKs that challenge them (RFC 9293 §3.10.7.4, RFC 5961).

use crate::dsl::{Script, config, plain_options, seg};
use stack_user::{
    tcp::{Config, Error, Event, ReadError, State},
    telemetry::DropReason,
};

fn established() -> Script {
    Script::established(config(), plain_options())
}

fn fin_wait_1() -> Script {
    let mut s = established();
    s.app_shutdown();
    s.expect(seg("F.").seq(0).ack(0));
    s.state(State::FinWait1);
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
    s.events();
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
    s.events();
    s.state(State::Closing);
    s
}

fn time_wait() -> Script {
    let mut s = fin_wait_1();
    s.inject(seg("F.").seq(0).ack(1));
    s.expect(seg(".").seq(1).ack(1));
    s.events();
    s.state(State::TimeWait);
    s
}

// The second step, state by state.

#[test]
fn rst_in_fin_wait_1_resets_rfc9293_3_10_7_4() {
    let mut s = fin_wait_1();
    s.inject(seg("R").seq(0));
    assert_eq!(s.events(), [Event::Failed(Error::Reset), Event::Closed]);
    s.expect_silence();
    s.finish();
}

#[test]
fn rst_in_fin_wait_2_resets_rfc9293_3_10_7_4() {
    let mut s = fin_wait_2();
    assert_eq!(s.events(), [Event::Writable], "our FIN has arrived");
    s.inject(seg("R").seq(0));
    assert_eq!(s.events(), [Event::Failed(Error::Reset), Event::Closed]);
    assert_eq!(s.app_read(1), Err(ReadError::Failed(Error::Reset)));
    s.finish();
}

#[test]
fn rst_in_close_wait_resets_rfc9293_3_10_7_4() {
    let mut s = close_wait();
    s.write(10);
    s.expect(seg("P.").seq(0).ack(1).len(10));
    s.inject(seg("R").seq(1));
    assert_eq!(s.events(), [Event::Failed(Error::Reset), Event::Closed]);
    s.expect_silence_for(100_000);
    s.finish();
}

/// Both sides have said all: nothing is lost by it.
#[test]
fn rst_in_last_ack_is_an_end_rfc9293_3_10_7_4() {
    let mut s = last_ack();
    s.inject(seg("R").seq(1));
    assert_eq!(s.events(), [Event::Closed]);
    s.finish();
}

#[test]
fn rst_in_closing_is_an_end_rfc9293_3_10_7_4() {
    let mut s = closing();
    s.inject(seg("R").seq(1));
    assert_eq!(s.events(), [Event::Closed]);
    s.finish();
}

/// RFC 9293 §3.10.7.4: RST is checked by its sequence number; whatever its ACK says.
#[test]
fn the_ack_of_an_rst_is_not_looked_at_rfc9293_3_10_7_4() {
    let mut s = established();
    s.inject(seg("R.").seq(0).ack(77_777));
    assert_eq!(s.events(), [Event::Failed(Error::Reset), Event::Closed]);
    s.finish();
}

/// RFC 9293 §3.5.3, SHLD-2: RST may carry data, which is not for the stream.
#[test]
fn rst_with_data_resets_and_its_data_is_not_read_shld_2() {
    let mut s = established();
    s.inject(seg("R.").seq(0).ack(0).data(b"reason: none"));
    assert_eq!(s.info().readable, 0);
    assert_eq!(s.app_read(20), Err(ReadError::Failed(Error::Reset)));
    s.finish();
}

/// RFC 9293 §3.10.7.4: RST is the second step, SYN the fourth.
#[test]
fn rst_comes_before_syn_and_fin_rfc9293_3_10_7_4() {
    let mut s = established();
    s.inject(seg("FSR.").seq(0).ack(0));
    assert_eq!(s.events(), [Event::Failed(Error::Reset), Event::Closed]);
    s.expect_silence();
    s.finish();
}

/// RFC 5961 §3.2: outside of the window, RST is dropped without a word; the first number outside is the right edge.
#[test]
fn rst_at_the_right_edge_is_outside_rfc5961_3_2() {
    let mut s = Script::established(Config { recv_buffer: 4000, ..config() }, plain_options());
    s.inject_dropped(seg("R").seq(3999), DropReason::TcpChallenged);
    s.expect(seg(".").seq(0).ack(0));
    s.inject_dropped(seg("R").seq(4000), DropReason::TcpOutOfWindow);
    s.expect_silence();
    s.state(State::Established);
    s.finish();
}

/// RFC 5961 §3.2: a peer that did reset answers the challenge with the exact number.
#[test]
fn the_answer_to_a_challenge_resets_rfc5961_3_2() {
    let mut s = established();
    s.inject_dropped(seg("R").seq(500), DropReason::TcpChallenged);
    s.expect(seg(".").seq(0).ack(0));
    s.inject(seg("R").seq(0));
    assert_eq!(s.events(), [Event::Failed(Error::Reset), Event::Closed]);
    s.finish();
}

/// RFC 5961 §3.2: data behind a gap does not move RCV.NXT, so neither the number that RST has to have.
#[test]
fn rst_behind_a_gap_is_challenged_rfc5961_3_2() {
    let mut s = established();
    s.inject(seg(".").seq(1000).ack(0).len(1000));
    s.expect(seg(".").ack(0));
    s.inject_dropped(seg("R").seq(2000), DropReason::TcpChallenged);
    s.expect(seg(".").ack(0));
    s.state(State::Established);
    s.finish();
}

/// What we had in hand of a connection that was reset is given back.
#[test]
fn rst_frees_what_waits_to_be_sent() {
    let mut s = established();
    s.write(50_000);
    s.drain();
    s.inject(seg(".").seq(5000).ack(0).len(100));
    s.drain();
    s.inject(seg("R").seq(0));
    assert_eq!(s.info().unacknowledged, 0);
    s.expect_silence_for(100_000);
    s.finish();
}

// SYN in a synchronized state (RFC 5961 §4).

#[test]
fn a_syn_outside_of_the_window_is_challenged_too_rfc5961_4_2() {
    let mut s = established();
    s.inject_dropped(seg("S").seq(-100_000).options(plain_options()), DropReason::TcpOutOfWindow);
    s.expect(seg(".").seq(0).ack(0));
    s.state(State::Established);
    s.finish();
}

#[test]
fn a_syn_ack_in_the_window_is_challenged_rfc5961_4_2() {
    let mut s = established();
    s.inject_dropped(seg("S.").seq(100).ack(0).options(plain_options()), DropReason::TcpChallenged);
    s.expect(seg(".").seq(0).ack(0));
    s.state(State::Established);
    s.finish();
}

/// RFC 9293 §3.5, figure 10: the peer has restarted; our ACK makes it reset, and that ends our half.
#[test]
fn a_peer_that_has_restarted_gets_an_ack_and_its_rst_ends_us_rfc5961_4_2() {
    let mut s = established();
    s.write(10);
    s.expect(seg("P.").seq(0).len(10));
    s.inject_dropped(seg("S").seq(40_000).options(plain_options()), DropReason::TcpChallenged);
    s.expect(seg(".").seq(10).ack(0));
    s.inject(seg("R").seq(0));
    assert_eq!(s.events(), [Event::Failed(Error::Reset), Event::Closed]);
    s.finish();
}

#[test]
fn a_syn_in_close_wait_is_challenged_rfc5961_4_2() {
    let mut s = close_wait();
    s.inject_dropped(seg("S").seq(1).options(plain_options()), DropReason::TcpChallenged);
    s.expect(seg(".").seq(0).ack(1));
    s.state(State::CloseWait);
    s.finish();
}

#[test]
fn a_syn_in_fin_wait_2_is_challenged_rfc5961_4_2() {
    let mut s = fin_wait_2();
    s.inject_dropped(seg("S").seq(0).options(plain_options()), DropReason::TcpChallenged);
    s.expect(seg(".").seq(1).ack(0));
    s.state(State::FinWait2);
    s.finish();
}

#[test]
fn an_old_syn_in_time_wait_is_answered_rfc9293_3_10_7_4() {
    let mut s = time_wait();
    s.inject_dropped(seg("S").seq(-5000).options(plain_options()), DropReason::TcpOutOfWindow);
    s.expect(seg(".").seq(1).ack(1));
    s.state(State::TimeWait);
    s.finish();
}

// The limit of challenges (RFC 5961 §7).

#[test]
fn challenges_are_possible_again_after_five_seconds_rfc5961_7() {
    let mut s = established();
    for i in 0..50 {
        s.inject_dropped(seg("R").seq(100 + i), DropReason::TcpChallenged);
    }
    s.drain();
    s.inject_dropped(seg("R").seq(100), DropReason::TcpChallenged);
    s.expect_silence();
    s.advance(5000);
    s.inject_dropped(seg("R").seq(100), DropReason::TcpChallenged);
    s.expect(seg(".").seq(0).ack(0));
    s.finish();
}

/// RFC 5961 §7: the limit is for challenges; data is acknowledged as ever.
#[test]
fn the_limit_of_challenges_does_not_hold_back_acks_of_data_rfc5961_7() {
    let mut s = established();
    for i in 0..50 {
        s.inject_dropped(seg("R").seq(100 + i), DropReason::TcpChallenged);
        s.drain();
    }
    s.inject(seg("P.").seq(0).ack(0).len(10));
    s.expect(seg(".").seq(0).ack(10));
    s.inject(seg("P.").seq(50).ack(0).len(10));
    s.expect(seg(".").seq(0).ack(10));
    s.finish();
}

// What we say when we give up.

#[test]
fn abort_in_close_wait_sends_rst_rfc9293_3_10_5() {
    let mut s = close_wait();
    s.write(10);
    s.expect(seg("P.").seq(0).ack(1).len(10));
    s.app_abort();
    s.expect(seg("R.").seq(10).ack(1));
    s.expect_silence();
    s.finish();
}

#[test]
fn abort_in_fin_wait_2_sends_rst_rfc9293_3_10_5() {
    let mut s = fin_wait_2();
    s.app_abort();
    s.expect(seg("R.").seq(1).ack(0));
    s.finish();
}

#[test]
fn abort_in_time_wait_sends_nothing_rfc9293_3_10_5() {
    let mut s = time_wait();
    s.app_abort();
    s.expect_silence();
    assert!(s.connection.is_closed());
    s.finish();
}

/// RFC 9293 §3.5.3: RST has the number that the peer expects, also when data of ours was never acknowledged.
#[test]
fn the_rst_of_an_abort_has_the_next_number_to_send_rfc9293_3_10_5() {
    let mut s = established();
    s.write(20_000);
    assert_eq!(s.drain(), 10);
    s.app_abort();
    s.expect(seg("R.").seq(10_000).ack(0));
    s.expect_silence();
    s.finish();
}
