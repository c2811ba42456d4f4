//! Urgent data (RFC 9293 §3.8.5).

use crate::dsl::{Script, config, plain_options, seg};
use stack_user::{
    tcp::{Config, Event},
    telemetry::DropReason,
};

fn established() -> Script {
    let mut s = Script::established(config(), plain_options());
    s.events();
    s
}

#[test]
fn urgent_data_is_announced_and_read_in_line_must_30_must_32_must_33_rfc6093_6() {
    let mut s = established();
    assert_eq!(s.connection.urgent_ahead(), 0);
    s.inject(seg("U.").seq(0).ack(0).urgent(6).data(b"urgent and not"));
    assert_eq!(s.events(), [Event::Readable, Event::Urgent]);
    assert_eq!(s.connection.urgent_ahead(), 6);
    assert_eq!(s.read(4), b"urge");
    assert_eq!(s.connection.urgent_ahead(), 2);
    assert_eq!(s.read(100), b"nt and not");
    assert_eq!(s.connection.urgent_ahead(), 0);
    s.finish();
}

#[test]
fn the_pointer_points_behind_the_urgent_data_must_62_rfc6093_4() {
    let mut s = established();
    s.inject(seg("U.").seq(0).ack(0).urgent(1).data(b"!?"));
    assert_eq!(s.read(1), b"!");
    assert_eq!(s.connection.urgent_ahead(), 0, "one byte was urgent");
    s.finish();

    let mut s = established();
    assert_eq!(s.connection.write_urgent(s.now, &mut s.pool, b"!"), Ok(1));
    let (segment, data) = s.expect_any();
    assert_eq!((segment.urgent, data.len()), (1, 1));
    s.finish();
}

#[test]
fn a_pointer_that_moves_on_is_told_and_one_that_stays_or_recedes_is_not_must_32() {
    let mut s = established();
    for (pointer, told) in [(10, true), (10, false), (5, false), (0, false), (11, true)] {
        s.inject(seg("U.").seq(0).ack(0).urgent(pointer));
        assert_eq!(s.events().contains(&Event::Urgent), told, "{pointer}");
    }
    assert_eq!(s.connection.urgent_ahead(), 11);
    // Without the flag the field means nothing.
    s.inject(seg(".").seq(0).ack(0).urgent(50));
    assert_eq!((s.events(), s.connection.urgent_ahead()), (vec![], 11));
    s.finish();
}

#[test]
fn urgent_data_may_be_longer_than_the_field_can_say_must_31() {
    let mut s = established();
    for i in 0..200 {
        s.inject(seg("U.").seq(i * 1000).ack(0).urgent(u16::MAX).len(1000));
        s.drain();
        assert_eq!(s.events(), [Event::Readable, Event::Urgent]);
        assert_eq!(s.connection.urgent_ahead(), 65_535);
        s.read(1000);
    }
    s.finish();

    let mut s = established();
    let data = vec![7; 70_000];
    assert_eq!(s.connection.write_urgent(s.now, &mut s.pool, &data), Ok(70_000));
    let (segment, _) = s.expect_any();
    assert_eq!(segment.urgent, u16::MAX);
    s.finish();
}

#[test]
fn urgent_data_is_announced_while_the_window_is_closed_must_66() {
    let mut s =
        Script::established(Config { recv_buffer: 1000, recv_buffer_max: 1000, ..config() }, plain_options());
    s.inject(seg(".").seq(0).ack(0).len(1000));
    s.expect(seg(".").seq(0).ack(1000).window(0));
    s.events();
    s.inject(seg("U.").seq(1000).ack(0).urgent(20));
    assert_eq!(s.events(), [Event::Urgent]);
    assert_eq!(s.connection.urgent_ahead(), 1020);
    s.inject_dropped(seg("U.").seq(1000).ack(0).urgent(30).data(b"no room"), DropReason::TcpOutOfWindow);
    assert_eq!(s.events(), [Event::Urgent]);
    s.finish();
}

#[test]
fn what_we_send_as_urgent_is_marked_until_it_is_acknowledged_must_30() {
    let mut s = established();
    s.write(1000);
    s.expect(seg(".").seq(0).len(1000));
    assert_eq!(s.connection.write_urgent(s.now, &mut s.pool, &[1; 2000]), Ok(2000));
    for ahead in [2000, 1000] {
        let (segment, data) = s.expect_any();
        assert_eq!((usize::from(segment.urgent), data.len()), (ahead, 1000));
        assert!(segment.flags.contains(stack_user::wire::tcp::Flags::URG));
    }
    s.inject(seg(".").seq(0).ack(3000));
    s.write(10);
    let (segment, _) = s.expect_any();
    assert!(!segment.flags.contains(stack_user::wire::tcp::Flags::URG));
    s.finish();
}
