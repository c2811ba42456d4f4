//! Explicit congestion notification (RFC 3168).

use crate::dsl::{Script, config, plain_options, sack_options, seg};
use stack_user::{
    tcp::{
        Config,
        congestion::Algorithm,
        recovery::Phase,
        trace::{Kind, WindowReason},
    },
    wire::{Ecn, tcp::Flags},
};

fn willing() -> Config {
    Config { ecn: true, ..config() }
}

/// After a handshake in which both sides agreed.
fn agreed() -> Script {
    agreed_with(willing())
}

fn agreed_with(config: Config) -> Script {
    let mut s = Script::new(config);
    s.expect(seg("SEW").seq(-1));
    assert_eq!(s.last_ecn, Ecn::NotEct, "RFC 3168 §6.1.1");
    s.advance(10);
    s.inject(seg("S.E").seq(-1).ack(0).options(sack_options()));
    s.expect(seg(".").seq(0).ack(0));
    assert_eq!(s.last_ecn, Ecn::NotEct, "RFC 3168 §6.1.4");
    s.events();
    s
}

/// Writes `n` segments of 1000 bytes from `at` on, and expects them; the first has `flags`.
fn send(s: &mut Script, at: i64, n: i64, flags: &str) {
    s.write(n as usize * 1000);
    for i in 0..n {
        s.expect(seg(if i == 0 { flags } else { "." }).seq(at + i * 1000).len(1000));
        assert_eq!(s.last_ecn, Ecn::Ect0);
    }
}

#[test]
fn it_is_offered_and_agreed_to_rfc3168_6_1_1() {
    let mut s = agreed();
    assert!(s.info().ecn);
    send(&mut s, 0, 2, ".");
    s.inject(seg(".").seq(0).ack(2000));
    s.finish();
}

#[test]
fn without_the_wish_nothing_is_said_and_nothing_is_marked() {
    let mut s = Script::established(config(), plain_options());
    s.write(1000);
    s.expect(seg(".").seq(0).len(1000));
    assert_eq!(s.last_ecn, Ecn::NotEct);
    s.inject(seg(".E").seq(0).ack(1000));
    s.inject(seg(".").seq(0).ack(1000).data(b"x").ce());
    s.expect(seg(".").seq(1000).ack(1));
    assert_eq!((s.info().ecn, s.info().cwnd), (false, 10_000));
    s.finish();
}

#[test]
fn a_syn_with_ack_that_does_not_agree_or_only_reflects_rfc3168_6_1_1() {
    for flags in ["S.", "S.EW"] {
        let mut s = Script::new(willing());
        s.expect(seg("SEW").seq(-1));
        s.inject(seg(flags).seq(-1).ack(0).options(plain_options()));
        s.expect(seg(".").seq(0).ack(0));
        s.write(1000);
        s.expect(seg(".").seq(0).len(1000));
        assert_eq!(s.last_ecn, Ecn::NotEct, "{flags}");
        s.finish();
    }
}

#[test]
fn a_syn_that_is_not_answered_is_sent_again_without_rfc3168_6_1_1_1() {
    let mut s = Script::new(willing());
    s.expect(seg("SEW").seq(-1));
    s.advance_to_timer();
    s.expect(seg("S").seq(-1));
    s.inject(seg("S.E").seq(-1).ack(0).options(plain_options()));
    s.expect(seg(".").seq(0).ack(0));
    assert!(!s.info().ecn, "RFC 3168 §6.1.1: who has sent one SYN without must not use it");
    s.finish();
}

#[test]
fn a_passive_open_agrees_if_it_is_asked_and_willing_rfc3168_6_1_1() {
    let setup = Flags::SYN.with(Flags::ECE).with(Flags::CWR);
    for (config, syn, answer) in
        [(willing(), setup, "S.E"), (config(), setup, "S."), (willing(), Flags::SYN.with(Flags::ECE), "S.")]
    {
        let mut s = Script::accepting_syn(config, plain_options(), syn);
        s.expect(seg(answer).seq(-1).ack(0));
        assert_eq!(s.last_ecn, Ecn::NotEct);
        s.inject(seg(".").seq(0).ack(0));
        assert_eq!(s.info().ecn, answer == "S.E");
        s.finish();
    }
}

#[test]
fn a_mark_is_echoed_at_once_and_until_cwr_rfc3168_6_1_3() {
    let mut s = agreed();
    s.inject(seg(".").seq(0).ack(0).len(1000).ce());
    s.expect(seg(".E").seq(0).ack(1000));
    s.inject(seg(".").seq(1000).ack(0).len(1000));
    s.expect(seg(".E").seq(0).ack(2000));
    s.write(1000);
    s.expect(seg(".E").seq(0).len(1000));
    s.inject(seg(".W").seq(2000).ack(1000).len(1000));
    s.expect(seg(".").seq(1000).ack(3000));
    s.inject(seg(".W").seq(3000).ack(1000).len(1000).ce());
    s.expect(seg(".E").seq(1000).ack(4000));
    s.finish();
}

#[test]
fn a_mark_on_what_is_not_taken_counts_nothing_rfc3168_6_1_4_and_6_1_5() {
    let mut s = agreed();
    s.inject(seg(".").seq(0).ack(0).ce());
    let _ = s.try_inject(seg(".").seq(-100_000).ack(0).len(10).ce());
    s.expect(seg(".").seq(0).ack(0));
    s.finish();
}

#[test]
fn an_echo_halves_the_window_once_and_cwr_says_so_rfc3168_6_1_2() {
    let mut s = agreed();
    s.connection.listen_in(true);
    send(&mut s, 0, 10, ".");
    s.inject(seg(".E").seq(0).ack(1000));
    assert_eq!(s.info().ssthresh, 5_000, "in slow start, RFC 8511 §3");
    for ack in 2..=10 {
        s.inject(seg(".E").seq(0).ack(ack * 1000));
    }
    assert_eq!((s.info().ssthresh, s.info().cwnd), (5_000, 5_000), "RFC 3168 §6.1.2: once per window");
    assert_eq!(s.info().retransmissions, 0);
    send(&mut s, 10_000, 3, ".W");
    let window = |record: stack_user::tcp::trace::Record| match record.kind {
        Kind::CongestionWindow { reason, .. } => Some(reason),
        _ => None,
    };
    let reasons: Vec<_> = core::iter::from_fn(|| s.connection.poll_trace()).filter_map(window).collect();
    assert_eq!(reasons.first(), Some(&WindowReason::Ecn));
    assert_eq!(reasons.iter().filter(|&&reason| reason == WindowReason::Ecn).count(), 1);
    s.inject(seg(".").seq(0).ack(13_000));
    s.finish();
}

/// The window shrinks by one segment for every second that arrives, not all at once.
#[test]
fn after_a_mark_what_is_sent_shrinks_in_proportion_rfc9937_4() {
    let mut s = agreed();
    s.write(40_000);
    assert_eq!(s.drain(), 10);
    let mut sent = Vec::new();
    for ack in 1..=9 {
        s.inject(seg(".E").seq(0).ack(ack * 1000));
        sent.push(s.drain());
    }
    assert_eq!((s.info().ssthresh, sent.iter().sum::<usize>()), (5_000, 4), "9 x 5 / 10: {sent:?}");
    assert!(sent.iter().all(|&segments| segments <= 1), "{sent:?}");
    s.finish();
}

#[test]
fn what_is_retransmitted_is_not_marked_and_cwr_waits_for_new_data_rfc3168_6_1_5() {
    let mut s = agreed();
    send(&mut s, 0, 4, ".");
    // The tail loss probe, and the retransmission.
    for again in [3000, 0] {
        s.advance_to_timer();
        s.expect(seg(".").seq(again).len(1000));
        assert_eq!(s.last_ecn, Ecn::NotEct);
    }
    s.inject(seg(".").seq(0).ack(4000));
    // RFC 3168 §6.1.2: a time-out has reduced the window, too.
    send(&mut s, 4000, 1, ".W");
    s.inject(seg(".").seq(0).ack(5000));
    s.finish();
}

/// RFC 3168 §6.1.2, RFC 9438 §4.6: less than one segment in a round trip is one in RTO.
#[test]
fn marks_that_go_on_leave_one_segment_a_round_trip_and_then_one_in_rto_rfc9438_4_6() {
    for congestion in [Algorithm::Cubic, Algorithm::NewReno] {
        let mut s = agreed_with(Config { congestion, ..willing() });
        let mut at = 0;
        let mut windows = Vec::new();
        while windows.last() != Some(&1000) && windows.len() < 20 {
            windows.push(s.info().cwnd);
            s.write(1000);
            assert_eq!(s.drain(), 1);
            at += 1000;
            s.advance(10);
            s.inject(seg(".E").seq(0).ack(at));
        }
        assert!(windows.is_sorted_by(|a, b| a >= b) && windows.len() < 20, "{windows:?}");
        s.write(1000);
        let rto = s.rto();
        s.expect_silence_for(rto - 1);
        s.expect_at(1, seg(".W").seq(at).len(1000));
        s.advance(10);
        s.inject(seg(".").seq(0).ack(at + 1000));
        s.write(1000);
        s.expect(seg(".").seq(at + 1000).len(1000));
        s.finish();
    }
}

/// RFC 8985 §7.2: a window that shrinks for ECN is no recovery: a probe looks after the end of a flight.
#[test]
fn the_end_of_a_flight_is_probed_while_the_window_shrinks_rfc8985_7_2() {
    let mut s = agreed();
    s.write(4000);
    assert_eq!(s.drain(), 4);
    s.advance(10);
    s.inject(seg(".E").seq(0).ack(2000));
    assert_eq!(s.info().recovery, Phase::Cwr);
    s.drain();
    let probes = s.info().probes;
    s.advance_to_timer();
    s.expect(seg(".").seq(3000).len(1000));
    assert_eq!(s.info().probes, probes + 1);
    s.finish();
}
