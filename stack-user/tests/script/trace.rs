//! The event stream and the statistics of a connection.

use crate::dsl::{Script, all_options, plain_options, seg};
use stack_user::{
    tcp::{
        Config, State,
        timer::Timer,
        trace::{Kind, Record},
    },
    telemetry::DropReason,
    time::Duration,
};

fn records(s: &mut Script) -> Vec<Record> {
    core::iter::from_fn(|| s.connection.poll_trace()).collect()
}

fn states(records: &[Record]) -> Vec<State> {
    let to = |record: &Record| if let Kind::State { to, .. } = record.kind { Some(to) } else { None };
    records.iter().filter_map(to).collect()
}

#[test]
fn every_change_of_state_is_traced_and_nothing_before_somebody_listens() {
    let mut s = Script::new(Config::default());
    s.connection.listen_in(true);
    s.handshake(plain_options(), 65_535);
    s.connection.shutdown_write(s.now);
    s.expect(seg("F.").seq(0));
    s.inject(seg(".").seq(0).ack(1));
    s.inject(seg("F.").seq(0).ack(1));
    s.expect(seg(".").seq(1).ack(1));
    let at = s.now;
    s.advance(60_000);
    let records = records(&mut s);
    let expected = [State::Established, State::FinWait1, State::FinWait2, State::TimeWait, State::Closed];
    assert_eq!(states(&records), expected);
    assert_eq!(records.last().map(|record| record.at.since(at)), Some(Duration::from_secs(60)));

    let mut quiet = Script::established(Config::default(), plain_options());
    assert_eq!((quiet.connection.poll_trace(), quiet.connection.is_listened_to()), (None, false));
    quiet.finish();
    s.finish();
}

#[test]
fn drops_and_round_trips_are_traced_with_their_reason() {
    let mut s = Script::established(Config::default(), plain_options());
    s.connection.listen_in(true);
    s.inject_dropped(seg(".").seq(100_000_000).ack(0).data(b"x"), DropReason::TcpOutOfWindow);
    s.expect(seg(".").ack(0));
    s.write(10);
    s.expect(seg(".").seq(0).len(10));
    s.advance(30);
    s.inject(seg(".").seq(0).ack(10));
    let kinds: Vec<_> = records(&mut s).into_iter().map(|record| record.kind).collect();
    let rtt = Duration::from_millis(30);
    assert!(kinds.contains(&Kind::Drop { reason: DropReason::TcpOutOfWindow }), "{kinds:?}");
    assert!(kinds.contains(&Kind::RttSample { rtt }), "{kinds:?}");
    s.finish();
}

#[test]
fn records_that_nobody_takes_are_bounded_and_counted() {
    let mut s = Script::established(Config::default(), plain_options());
    s.connection.listen_in(true);
    for _ in 0..5000 {
        s.inject_dropped(seg("").seq(0).data(b"x"), DropReason::TcpNoAck);
    }
    assert_eq!(records(&mut s).len() as u64 + s.connection.trace_lost(), 5000);
    assert!(s.connection.trace_lost() > 0);
    s.finish();
}

#[test]
fn info_tells_what_is_on_its_way_and_which_timers_run() {
    let mut s = Script::established(Config::default(), all_options());
    s.write(4000);
    while s.poll().is_some() {}
    let info = s.connection.info();
    // A SYN of ours says 1460, and each segment has 12 bytes of timestamps.
    assert_eq!((info.mss, info.path_mtu), (1448, 1500));
    assert_eq!((info.outstanding, info.unacknowledged, info.unsent), (2896, 4000, 1104));
    assert_eq!((info.backoff, info.latest_rtt), (0, Some(Duration::from_millis(10))));
    let retransmit = info.timers.iter().find(|&(timer, _)| timer == Timer::Retransmit);
    assert_eq!(retransmit.map(|(_, at)| at.since(s.now)), Some(info.rto));
    let probe = info.timers.iter().find(|&(timer, _)| timer == Timer::LossProbe);
    assert_eq!(probe.map(|(_, at)| at.since(s.now)), Some(Duration::from_millis(20)));
    s.advance(1000);
    s.drain();
    assert_eq!((s.info().backoff, s.info().probes), (0, 1));
    s.advance(1000);
    assert_eq!(s.connection.info().backoff, 1);
    s.finish();
}
