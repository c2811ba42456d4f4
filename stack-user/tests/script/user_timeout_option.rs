//! The User Timeout Option (RFC 5482).

use crate::dsl::{Script, StackScript, all_options, config, plain_options, seg};
use stack_user::{
    tcp::{Config, Error, Event, KeepAlive, State, UserTimeout, UserTimeoutLimits, options::Options},
    time::Duration,
};

const LIMITS: UserTimeoutLimits =
    UserTimeoutLimits { lower: Duration::from_secs(100), upper: Duration::from_secs(1000) };

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn told(s: u64) -> Option<UserTimeout> {
    Some(UserTimeout::new(secs(s)))
}

/// Our user time-out is 200 s, and the option is on.
fn enabled() -> Config {
    Config { user_timeout: secs(200), user_timeout_option: Some(LIMITS), ..config() }
}

fn with(options: Options, s: u64) -> Options {
    Options { user_timeout: told(s), ..options }
}

/// Established with a peer whose SYN tells a user time-out.
fn established(config: Config, s: u64) -> Script {
    let mut script = Script::established(config, with(plain_options(), s));
    script.events();
    script
}

fn bare() -> Options {
    Options::default()
}

/// RFC 5482 §3: ENABLED is false unless somebody says otherwise; neither sent nor believed.
#[test]
fn by_default_the_option_is_neither_sent_nor_believed_rfc5482_3() {
    let mut s = Script::new(Config { user_timeout: secs(200), ..config() });
    s.expect(seg("S").seq(-1).options(Options { window_scale: Some(3), ..all_options() }));
    s.advance(10);
    s.inject(seg("S.").seq(-1).ack(0).options(with(plain_options(), 900)));
    s.expect(seg(".").seq(0).ack(0).options(bare()));
    assert_eq!(s.connection.user_timeout(), secs(200));
    s.connection.set_user_timeout(s.now, secs(150));
    s.expect_silence();
    s.finish();
}

/// RFC 5482 §3: in the SYN, and in the first segment after it.
#[test]
fn it_is_told_in_the_syn_and_the_first_segment_after_it_rfc5482_3() {
    let mut s = Script::new(enabled());
    s.expect(seg("S").seq(-1).options(with(Options { window_scale: Some(3), ..all_options() }, 200)));
    s.advance(10);
    s.inject(seg("S.").seq(-1).ack(0).options(plain_options()));
    s.expect(seg(".").seq(0).ack(0).options(with(bare(), 200)));
    s.inject(seg("P.").seq(0).ack(0).len(10));
    s.expect(seg(".").seq(0).ack(10).options(bare()));
    s.finish();
}

/// Both in the answer of a single connection and in that of a whole stack.
#[test]
fn it_is_told_in_syn_with_ack_rfc5482_3() {
    let mut s = Script::accepting(enabled(), plain_options());
    s.expect(seg("S.").seq(-1).ack(0).options(with(Options { mss: Some(1460), ..bare() }, 200)));
    s.finish();

    let mut s = StackScript::new();
    s.stack.set_tcp_config(enabled());
    let id = s.listen(80, 5);
    s.inject((5000, 80), seg("S").seq(-1).options(with(plain_options(), 500)));
    s.expect((5000, 80), seg("S.").seq(-1).ack(0).options(with(Options { mss: Some(1460), ..bare() }, 200)));
    s.inject((5000, 80), seg(".").seq(0).ack(0));
    let (connection, _) = s.stack.tcp_accept(s.now, id).expect("a connection");
    assert_eq!(s.stack.tcp(connection).map(|c| c.user_timeout()), Some(secs(500)), "the SYN's is remembered");
    s.finish();
}

/// RFC 5482 §3.1: USER_TIMEOUT = min(U_LIMIT, max(ADV_UTO, REMOTE_UTO, L_LIMIT)).
#[test]
fn the_longer_one_is_adopted_within_the_limits_rfc5482_3_1() {
    for (peer, adopted) in [(10, 200), (199, 200), (201, 201), (999, 999), (5000, 1000), (36_000, 1000)] {
        let s = established(enabled(), peer);
        assert_eq!(s.connection.user_timeout(), secs(adopted), "{peer}");
        s.finish();
    }
    let s = established(Config { user_timeout: secs(20), ..enabled() }, 30);
    assert_eq!(s.connection.user_timeout(), secs(100), "not below the lower limit");
    s.finish();
}

/// RFC 5482 §3.1: nothing that is sent is given up before it could be sent again, whatever the configuration says.
#[test]
fn the_lower_limit_is_more_than_rto_rfc5482_3_1() {
    let limits = UserTimeoutLimits { lower: secs(1), upper: secs(1000) };
    let config = Config { user_timeout: secs(1), user_timeout_option: Some(limits), ..config() };
    let mut s = Script::new(config);
    s.expect(seg("S").seq(-1));
    s.advance(1000);
    s.expect(seg("S").seq(-1));
    s.advance(10);
    s.inject(seg("S.").seq(-1).ack(0).options(with(plain_options(), 1)));
    assert_eq!((s.rto(), s.connection.user_timeout()), (3000, secs(6)));
    s.finish();
}

/// RFC 5482 §3.1, §3.2: without the peer's word ours holds, whatever the limits are.
#[test]
fn a_peer_that_tells_nothing_changes_nothing_rfc5482_3_1() {
    let s = Script::established(Config { user_timeout: secs(20), ..enabled() }, plain_options());
    assert_eq!(s.connection.user_timeout(), secs(20));
    s.finish();
}

/// RFC 5482 §3.1: CHANGEABLE is false once the application has chosen.
#[test]
fn what_the_application_has_chosen_the_peer_does_not_change_rfc5482_3_1() {
    let mut s = established(enabled(), 500);
    assert_eq!(s.connection.user_timeout(), secs(500));
    s.connection.set_user_timeout(s.now, secs(150));
    s.expect(seg(".").seq(0).ack(0).options(with(bare(), 150)));
    s.inject(seg(".").seq(0).ack(0).options(with(bare(), 900)));
    assert_eq!(s.connection.user_timeout(), secs(150));
    s.expect_silence();
    s.finish();
}

/// RFC 5482 §3: a change is told at once; data, whose payload has a fixed place, does not carry it, so an ACK does.
#[test]
fn a_change_is_told_in_an_ack_beside_data_rfc5482_3() {
    let mut s = established(enabled(), 200);
    s.connection.set_user_timeout(s.now, secs(40_000));
    s.write(10);
    s.expect(seg("P.").seq(0).ack(0).len(10).options(bare()));
    s.expect(seg(".").seq(10).ack(0).options(with(bare(), 39_960)));
    s.expect_silence();
    s.finish();
}

/// The peer's change holds for what is on its way, too, from when that was sent.
#[test]
fn the_peers_change_holds_for_what_is_on_its_way_rfc5482_3_1() {
    let mut s = established(enabled(), 200);
    s.write(10);
    s.drain();
    for _ in 0..100 {
        s.advance(1_000);
        s.drain();
    }
    s.inject(seg(".").seq(0).ack(0).options(with(bare(), 400)));
    for (seconds, state) in [(299, State::Established), (1, State::Closed)] {
        for _ in 0..seconds {
            s.advance(1_000);
            s.drain();
        }
        s.state(state);
    }
    s.finish();
}

/// Whoever tells his time-out again and again puts no end off; nor does an application that sets its own.
#[test]
fn telling_it_again_and_again_puts_no_end_off_rfc5482_3_1() {
    for by_peer in [true, false] {
        let mut s = established(enabled(), 200);
        s.write(10);
        s.drain();
        for i in 0..20 {
            s.advance(10_000);
            s.drain();
            if by_peer {
                let _ = s.try_inject(seg(".").seq(0).ack(0).options(with(bare(), 190 + i % 2)));
            } else {
                s.connection.set_user_timeout(s.now, secs(200));
            }
            s.drain();
        }
        assert!(s.events().contains(&Event::Failed(Error::TimedOut)), "by peer: {by_peer}");
        s.finish();
    }
}

/// RFC 5482 §3.4: zero means nothing.
#[test]
fn a_value_of_zero_is_ignored_rfc5482_3_4() {
    let mut s = established(enabled(), 500);
    s.inject(seg(".").seq(0).ack(0).raw_options(&[28, 4, 0, 0]));
    s.inject(seg(".").seq(0).ack(0).raw_options(&[28, 4, 0x80, 0]));
    assert_eq!(s.connection.user_timeout(), secs(500));
    s.finish();
}

/// A segment that is not acceptable tells nothing.
#[test]
fn a_forged_segment_changes_nothing_rfc5482_3_1() {
    let mut s = established(enabled(), 200);
    let _ = s.try_inject(seg(".").seq(-100_000).ack(0).options(with(bare(), 900)));
    let _ = s.try_inject(seg(".").seq(0).ack(100_000).options(with(bare(), 900)));
    assert_eq!(s.connection.user_timeout(), secs(200));
}

/// Options take 40 bytes at most: a SACK block makes room.
#[test]
fn it_fits_beside_timestamps_and_sack_rfc5482_3_3() {
    let mut s = Script::established(enabled(), all_options());
    s.events();
    for i in 0..5 {
        s.inject(seg("P.").seq(1000 + 2000 * i).ack(0).len(1000));
        s.drain();
    }
    s.connection.set_user_timeout(s.now, secs(300));
    let sack = [(9000, 10_000), (7000, 8000)];
    let timestamps = Options { timestamps: all_options().timestamps, ..bare() };
    s.expect(seg(".").seq(0).ack(0).sack(&sack).options(with(timestamps, 300)));
    s.expect_silence();
    s.finish();
}

/// RFC 5482 §4.2: keep-alives wait longer than the user time-out that was adopted.
#[test]
fn keep_alives_wait_longer_than_the_user_timeout_rfc5482_4_2() {
    let keepalive = KeepAlive { idle: secs(60), ..KeepAlive::default() };
    let mut s = established(Config { keepalive: Some(keepalive), ..enabled() }, 500);
    s.expect_silence_for(500_000);
    s.advance(2_000);
    s.expect(seg(".").seq(-1).ack(0));
    s.finish();
}
