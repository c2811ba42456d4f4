//! Keep-alives (RFC 9293 §3.8.4), the user time-out (§3.8.3), linger.

use crate::dsl::{Script, config, plain_options, seg};
use stack_user::{
    tcp::{Config, Error, Event, KeepAlive, ReadError, State},
    time::Duration,
};

fn established() -> Script {
    Script::established(config(), plain_options())
}

fn kept_alive() -> Script {
    Script::established(Config { keepalive: Some(KeepAlive::default()), ..config() }, plain_options())
}

/// RFC 9293 §3.8.4, MUST-25, MUST-28: nothing is asked, for however long.
#[test]
fn a_silent_peer_is_not_asked_by_default_must_25_must_28() {
    let s = established();
    assert_eq!(s.connection.poll_timeout(), None);
    assert!(KeepAlive::default().idle >= Duration::from_secs(7200));
    s.finish();
}

/// RFC 9293 §3.8.4, MUST-24, MUST-27, MUST-29, SHLD-12.
#[test]
fn nine_probes_without_data_go_unanswered_before_the_peer_is_given_up_must_29_shld_12() {
    let mut s = kept_alive();
    assert_eq!(s.advance_to_timer(), 7_200_000);
    for _ in 0..9 {
        s.expect(seg(".").seq(-1).ack(0));
        s.expect_silence();
        assert_eq!(s.advance_to_timer(), 75_000);
    }
    s.expect(seg("R.").seq(0).ack(0));
    assert_eq!(s.events(), [Event::Failed(Error::TimedOut), Event::Closed]);
    assert_eq!(s.app_read(1), Err(ReadError::Failed(Error::TimedOut)));
    s.finish();
}

#[test]
fn an_answer_starts_the_silence_again_must_26() {
    let mut s = kept_alive();
    s.advance_to_timer();
    s.expect(seg(".").seq(-1).ack(0));
    s.advance(10);
    s.inject(seg(".").seq(0).ack(0));
    s.expect_silence_for(7_199_000);
    s.advance(1_000);
    s.expect(seg(".").seq(-1).ack(0));
    s.finish();
}

/// RFC 9293 §3.8.4, MUST-26: not when something is outstanding, nor soon after something has come.
#[test]
fn what_was_sent_or_came_puts_probes_off_must_26() {
    let mut s = Script::established(
        Config {
            keepalive: Some(KeepAlive { idle: Duration::from_secs(10), ..KeepAlive::default() }),
            ..config()
        },
        plain_options(),
    );
    s.advance(9_000);
    s.inject(seg(".").seq(0).ack(0).len(100));
    s.advance(1_000);
    s.expect(seg(".").seq(0).ack(100));
    s.expect_silence_for(8_900);
    // The peer takes no data, and says so: window probes ask it, and nothing else does.
    s.inject(seg(".").seq(100).ack(0).window(0));
    s.write(100);
    for _ in 0..5 {
        s.advance_to_timer();
        while s.poll().is_some() {}
        s.inject(seg(".").seq(100).ack(0).window(0));
    }
    assert_eq!(s.info().state, State::Established);
    s.finish();
}

/// RFC 9293 §3.8.4, MUST-24.
#[test]
fn an_application_switches_it_on_and_off_must_24_must_27() {
    let mut s = established();
    let keepalive = KeepAlive { idle: Duration::from_secs(1), interval: Duration::from_secs(2), probes: 1 };
    s.connection.set_keepalive(s.now, Some(keepalive));
    assert_eq!(s.advance_to_timer(), 1000);
    s.expect(seg(".").seq(-1).ack(0));
    s.connection.set_keepalive(s.now, None);
    assert_eq!(s.connection.poll_timeout(), None);
    s.expect_silence();
    s.finish();
}

/// RFC 9293 §3.8.4: the other side of it. A probe is answered, with or without an old byte.
#[test]
fn a_probe_of_the_peer_is_answered_rfc9293_3_8_4() {
    let mut s = established();
    s.inject(seg(".").seq(0).ack(0).len(1));
    while s.poll().is_some() {}
    let _ = s.try_inject(seg(".").seq(0).ack(0));
    s.expect(seg(".").seq(0).ack(1));
    let _ = s.try_inject(seg(".").seq(0).ack(0).len(1));
    s.expect(seg(".").seq(0).ack(1));
    s.finish();
}

/// RFC 9293 §3.8.3, MUST-21: R2 is the application's to choose. It counts from when the data was sent.
#[test]
fn the_user_time_out_can_be_chosen_must_21() {
    let mut s = established();
    s.write(100);
    s.expect(seg(".").seq(0).ack(0).len(100));
    s.advance(100);
    s.connection.set_user_timeout(s.now, Duration::from_secs(7));
    s.advance(6_899);
    s.state(State::Established);
    s.advance(1);
    assert_eq!(s.connection.error(), Some(Error::TimedOut));
    s.finish();
}

/// RFC 9293 §3.10.5: with a linger time of nothing, CLOSE is ABORT.
#[test]
fn zero_linger_resets_at_close_rfc9293_3_10_5() {
    let mut s = established();
    s.connection.set_zero_linger(true);
    s.write(100);
    s.app_close();
    s.expect(seg("R.").seq(0).ack(0));
    s.expect_silence();
    assert!(s.connection.is_closed());
    s.finish();
}
