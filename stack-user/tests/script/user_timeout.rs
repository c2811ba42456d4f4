//! How long the peer may leave us without an answer (RFC 9293 §3.8.3), and what restarts that time.

use crate::dsl::{Script, config, plain_options, seg};
use stack_user::{
    tcp::{Config, Error, Event, State, WriteError},
    time::Duration,
};

const TIMEOUT: u64 = 100_000;

fn established() -> Script {
    let config = Config { user_timeout: Duration::from_millis(TIMEOUT), ..config() };
    let mut s = Script::established(config, plain_options());
    s.events();
    s
}

/// The events that wait, but for reports that delivery has trouble.
fn endings(s: &mut Script) -> Vec<Event> {
    let is_report = |event: &Event| matches!(event, Event::Stalled | Event::Unreachable(_));
    s.events().into_iter().filter(|event| !is_report(event)).collect()
}

/// Lets time pass, whatever is sent.
fn pass(s: &mut Script, ms: u64) {
    let end = s.now + Duration::from_millis(ms);
    while let Some(next) = s.connection.poll_timeout().filter(|&next| next <= end) {
        s.advance(next.since(s.now).as_nanos().div_ceil(1_000_000) as u64);
        s.drain();
    }
    s.advance(end.since(s.now).as_millis() as u64);
    s.drain();
}

/// RFC 9293 §3.8.3, MUST-20 and SHLD-11: by default, not before 100 s.
#[test]
fn by_default_a_silent_peer_is_given_more_than_100_seconds_shld_11() {
    let mut s = Script::established(config(), plain_options());
    s.write(10);
    s.drain();
    pass(&mut s, 100_000);
    s.state(State::Established);
    s.finish();
}

/// RFC 9293 §3.8.3, MUST-21: the application's choice holds.
#[test]
fn the_time_is_as_configured_must_21() {
    let mut s = established();
    s.write(10);
    s.drain();
    pass(&mut s, TIMEOUT - 1);
    s.state(State::Established);
    pass(&mut s, 1);
    assert_eq!(endings(&mut s), [Event::Failed(Error::TimedOut), Event::Closed]);
    assert_eq!(s.app_write(b"x"), Err(WriteError::Failed(Error::TimedOut)));
    s.expect_silence();
    s.finish();
}

/// RFC 9293 §3.8.3, SHLD-10: the first hop is doubted after three retransmissions, so that many there are before the end.
#[test]
fn there_are_more_than_three_retransmissions_before_the_end_shld_10() {
    let mut s = established();
    s.write(10);
    s.drain();
    pass(&mut s, TIMEOUT);
    assert!(s.info().retransmissions >= 3);
    s.finish();
}

/// An idle connection has nobody to wait for.
#[test]
fn an_idle_connection_does_not_time_out() {
    let mut s = established();
    s.write(10);
    s.drain();
    s.inject(seg(".").seq(0).ack(10));
    s.expect_silence_for(1_000_000_000);
    s.state(State::Established);
    s.finish();
}

/// Progress starts the time anew.
#[test]
fn each_ack_of_new_data_starts_the_time_anew() {
    let mut s = established();
    s.write(5000);
    s.drain();
    for i in 1..5 {
        pass(&mut s, TIMEOUT - 1000);
        s.inject(seg(".").seq(0).ack(i * 1000));
        s.drain();
    }
    s.state(State::Established);
    pass(&mut s, TIMEOUT);
    s.state(State::Closed);
    s.finish();
}

/// ACKs of nothing new are no progress: the data does not get through.
#[test]
fn duplicate_acks_do_not_start_the_time_anew() {
    let mut s = established();
    s.write(1000);
    s.drain();
    for _ in 0..10 {
        pass(&mut s, TIMEOUT / 10);
        let _ = s.try_inject(seg(".").seq(0).ack(0));
        s.drain();
    }
    assert_eq!(endings(&mut s), [Event::Failed(Error::TimedOut), Event::Closed]);
    s.finish();
}

/// Data of the peer is no progress of ours.
#[test]
fn data_of_the_peer_does_not_start_the_time_anew() {
    let mut s = established();
    s.write(1000);
    s.drain();
    for i in 0..10 {
        pass(&mut s, TIMEOUT / 10);
        let _ = s.try_inject(seg("P.").seq(i * 10).ack(0).len(10));
        s.drain();
    }
    assert!(s.events().contains(&Event::Failed(Error::TimedOut)));
    s.finish();
}

/// More data does not give the peer more time for what went before.
#[test]
fn new_data_does_not_start_the_time_anew() {
    let mut s = established();
    s.write(1000);
    s.drain();
    for _ in 0..4 {
        pass(&mut s, TIMEOUT / 4);
        let _ = s.app_write(&[0; 1000]);
        s.drain();
    }
    s.state(State::Closed);
    s.finish();
}

/// What had come before the end can still be read.
#[test]
fn what_came_before_the_time_out_is_read() {
    let mut s = established();
    s.inject(seg("P.").seq(0).ack(0).data(b"last words"));
    s.write(10);
    s.drain();
    pass(&mut s, TIMEOUT);
    s.state(State::Closed);
    assert_eq!(s.read(20), b"last words");
    s.finish();
}

/// RFC 9293 §3.8.3: the time-out counts in every state in which something of ours is outstanding.
#[test]
fn last_ack_times_out() {
    let mut s = established();
    s.inject(seg("F.").seq(0).ack(0));
    s.expect(seg(".").seq(0).ack(1));
    s.app_shutdown();
    s.drain();
    s.events();
    pass(&mut s, TIMEOUT);
    assert_eq!(endings(&mut s), [Event::Failed(Error::TimedOut), Event::Closed]);
    s.finish();
}

#[test]
fn closing_times_out() {
    let mut s = established();
    s.app_shutdown();
    s.drain();
    s.inject(seg("F.").seq(0).ack(0));
    s.drain();
    s.state(State::Closing);
    pass(&mut s, TIMEOUT);
    s.state(State::Closed);
    s.finish();
}
