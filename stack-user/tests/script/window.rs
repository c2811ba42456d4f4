//! Flow control: windows, probes, Nagle and delayed ACKs.

use crate::dsl::{Script, all_options, config, pattern, plain_options, sack_options, seg};
use stack_user::frame::FramePool;
use stack_user::tcp::{Config, Error, Event, WriteError, options::Options, send_queue::RESERVED_CHUNKS};
use stack_user::{telemetry::DropReason, time::Duration};

fn established() -> Script {
    Script::established(config(), plain_options())
}

/// A connection whose peer's window is closed.
fn closed_window(config: Config) -> Script {
    let mut s = Script::new(config);
    s.handshake(plain_options(), 0);
    s
}

#[test]
fn a_closed_window_is_probed_as_long_as_the_peer_answers_must_36_must_37() {
    let mut s = closed_window(Config { user_timeout: Duration::from_secs(300), ..config() });
    s.write(3000);
    s.expect_silence();
    let start = s.now;
    let mut last = 0;
    while s.now.since(start) < Duration::from_secs(3600) {
        last = s.advance_to_timer();
        s.expect(seg(".").seq(-1).ack(0));
        s.inject(seg(".").seq(0).ack(0).window(0));
        s.expect_silence();
    }
    assert_eq!(last, 60_000, "back-off has a bound");
    assert_eq!(s.events(), []);
    s.inject(seg(".").seq(0).ack(0).window(10_000));
    for i in 0..3 {
        s.expect(seg(".").seq(i * 1000).ack(0).len(1000));
    }
    s.inject(seg(".").seq(0).ack(3000));
    s.finish();
}

#[test]
fn a_closed_window_and_no_answer_is_the_end() {
    let mut s = closed_window(Config { user_timeout: Duration::from_secs(120), ..config() });
    s.write(1000);
    s.expect_silence();
    while !s.connection.is_closed() {
        s.advance_to_timer();
        while s.poll().is_some() {}
    }
    assert_eq!(s.events(), [Event::Failed(Error::TimedOut), Event::Closed]);
    s.finish();
}

#[test]
fn a_closed_window_does_not_hold_what_nobody_waits_for_any_more_rfc6429() {
    let mut s = closed_window(Config { user_timeout: Duration::from_secs(300), ..config() });
    s.write(3000);
    s.expect_silence();
    s.app_close();
    let start = s.now;
    while !s.connection.is_closed() {
        assert!(s.now.since(start) < Duration::from_secs(600), "the peer answers, and still it must end");
        s.advance_to_timer();
        while s.poll().is_some() {}
        let _ = s.try_inject(seg(".").seq(0).ack(0).window(0));
        while s.poll().is_some() {}
    }
    s.finish();
}

#[test]
fn a_peer_that_takes_crumbs_only_does_not_take_the_pool() {
    let mut s = Script::new(config());
    s.handshake(Options { mss: Some(48), ..Options::default() }, 0);
    let written = s.connection.write(s.now, &mut s.pool, &pattern(0, 100_000)).expect("some room");
    assert!(written < 100_000, "not all of it at once");
    let (free, chunks) = (s.pool.available(), s.pool.chunks());
    assert!(free >= chunks / 2, "{free} of {chunks} chunks are left");
    assert_eq!(s.connection.write(s.now, &mut s.pool, b"more"), Err(WriteError::WouldBlock));
    assert_eq!(s.events(), [], "there is no room until the peer takes something");
    s.inject(seg(".").seq(0).ack(0).window(48));
    s.expect(seg(".").seq(0).ack(0).len(48));
    s.inject(seg(".").seq(0).ack(48).window(0));
    assert_eq!(s.events(), [Event::Writable]);
    s.finish();
}

#[test]
fn a_window_that_opens_by_a_crack_is_used_when_the_override_timer_says_must_38() {
    let mut s = closed_window(config());
    s.inject(seg(".").seq(0).ack(0).window(10_000));
    s.write(1000);
    s.expect(seg(".").seq(0).len(1000));
    s.inject(seg(".").seq(0).ack(1000).window(0));
    s.write(3000);
    s.expect_silence();
    s.advance_to_timer();
    s.expect(seg(".").seq(999));
    s.inject(seg(".").seq(0).ack(1000).window(300));
    s.expect_silence();
    assert!(s.advance_to_timer() <= 1000, "0.1 to 1 s");
    s.expect(seg(".").seq(1000).len(300));
    s.expect_silence();
    s.inject(seg(".").seq(0).ack(1300).window(10_000));
    s.expect(seg(".").seq(1300).len(700));
    s.expect(seg(".").seq(2000).len(1000));
    s.expect(seg(".").seq(3000).len(1000));
    s.finish();
}

#[test]
fn the_peers_window_is_obeyed() {
    let mut s = Script::new(config());
    s.handshake(plain_options(), 2500);
    s.write(5000);
    s.expect(seg(".").seq(0).len(1000));
    s.expect(seg(".").seq(1000).len(1000));
    s.expect_silence();
    s.inject(seg(".").seq(0).ack(2000).window(2500));
    s.expect(seg(".").seq(2000).len(1000));
    s.expect(seg(".").seq(3000).len(1000));
    s.expect_silence();
    s.finish();
}

#[test]
fn fin_follows_data_when_the_window_opens() {
    let mut s = closed_window(config());
    s.write(500);
    s.app_shutdown();
    s.expect_silence();
    s.inject(seg(".").seq(0).ack(0).window(1000));
    s.expect(seg("F.").seq(0).len(500));
    s.inject(seg(".").seq(0).ack(501));
    s.finish();
}

#[test]
fn nagle_holds_a_second_small_segment_shld_7_and_nodelay_does_not_must_17() {
    let mut s = established();
    s.write(10);
    s.expect(seg("P.").seq(0).len(10));
    s.write(10);
    s.write(20);
    s.expect_silence();
    s.inject(seg(".").seq(0).ack(10));
    s.expect(seg("P.").seq(10).len(30));
    s.connection.set_nodelay(true);
    s.write(5);
    s.expect(seg("P.").seq(40).len(5));
    s.finish();
}

#[test]
fn writing_stops_at_the_buffer_and_room_is_told() {
    let mut s =
        Script::established(Config { send_buffer: 4000, send_buffer_max: 4000, ..config() }, plain_options());
    let data = [0; 5000];
    assert_eq!(s.connection.write(s.now, &mut s.pool, &data), Ok(4000));
    assert_eq!(s.connection.write(s.now, &mut s.pool, &data), Err(WriteError::WouldBlock));
    while s.poll().is_some() {}
    assert_eq!(s.events(), []);
    s.inject(seg(".").seq(0).ack(1000));
    assert_eq!(s.events(), [Event::Writable]);
    assert_eq!(s.connection.write(s.now, &mut s.pool, &data), Ok(1000));
    s.finish();
}

#[test]
fn who_found_no_chunk_at_all_is_told_when_others_let_go() {
    let mut s = established();
    let held: Vec<_> = std::iter::from_fn(|| s.pool.allocate()).collect();
    assert_eq!(s.app_write(b"data"), Err(WriteError::WouldBlock));
    s.advance(1_000);
    assert_eq!(s.events(), [], "there is none yet");
    held.into_iter().for_each(|frame| s.pool.release(frame));
    s.advance_to_timer();
    assert_eq!(s.events(), [Event::Writable]);
    assert_eq!(s.app_write(b"data"), Ok(4));
    s.expect(seg("P.").seq(0).data(b"data"));
    s.finish();
}

/// Those who have much to send take each chunk that comes free, down to the reserve. Who has nothing in the queue must get
/// on beside them.
#[test]
fn the_first_segments_in_the_queue_may_come_from_half_of_the_reserve() {
    let mut s = established();
    let reserve = RESERVED_CHUNKS.min(s.pool.chunks() / 4);
    let mut held = Vec::new();
    while s.pool.available() > reserve {
        held.extend(s.pool.allocate());
    }
    assert_eq!(s.app_write(&pattern(0, 5000)), Ok(2000), "so many as the peer acknowledges at once");
    s.expect(seg(".").seq(0).len(1000));
    s.expect(seg(".").seq(1000).len(1000));
    assert_eq!(s.app_write(b"more"), Err(WriteError::WouldBlock));
    s.inject(seg(".").seq(0).ack(2000));
    assert_eq!(s.events(), [Event::Writable]);
    while s.pool.available() > reserve / 2 {
        held.extend(s.pool.allocate());
    }
    assert_eq!(
        s.app_write(b"more"),
        Err(WriteError::WouldBlock),
        "the other half is for ACKs, and for frames that come"
    );
    held.pop().into_iter().for_each(|frame| s.pool.release(frame));
    s.advance_to_timer();
    assert_eq!(s.events(), [Event::Writable]);
    held.into_iter().for_each(|frame| s.pool.release(frame));
    s.finish();
}

#[test]
fn acks_wait_for_a_second_segment_or_40_ms_must_40_shld_19() {
    let mut s = established();
    for i in 0..16 {
        s.inject(seg(".").seq(i * 1000).ack(0).len(1000));
        s.expect(seg(".").seq(0).ack((i + 1) * 1000));
    }
    s.inject(seg(".").seq(16_000).ack(0).len(1000));
    s.expect_silence();
    s.inject(seg(".").seq(17_000).ack(0).len(1000));
    s.expect(seg(".").seq(0).ack(18_000));
    s.inject(seg(".").seq(18_000).ack(0).len(1000));
    s.expect_silence();
    assert_eq!(s.advance_to_timer(), 40);
    s.expect(seg(".").seq(0).ack(19_000));
    // An answer takes the ACK along.
    s.inject(seg(".").seq(19_000).ack(0).len(1000));
    s.write(1);
    s.expect(seg(".").seq(0).ack(20_000).len(1));
    s.advance(100);
    s.expect_silence();
    s.finish();
}

#[test]
fn the_offered_window_never_shrinks_and_closes_when_nobody_reads() {
    let config = Config { recv_buffer: 4000, recv_buffer_max: 4000, ..config() };
    let mut s = Script::established(config, plain_options());
    for i in 0..4 {
        s.inject(seg(".").seq(i * 1000).ack(0).len(1000));
        s.expect(seg(".").seq(0).ack((i + 1) * 1000).window(3000 - i as u32 * 1000));
    }
    // A byte into the closed window is not taken, and answered.
    s.inject_dropped(seg(".").seq(4000).ack(0).data(b"x"), DropReason::TcpOutOfWindow);
    s.expect(seg(".").seq(0).ack(4000).window(0));
    // Reading a little is not worth an update, a half of the buffer is.
    s.read(1000);
    s.expect_silence();
    s.read(1000);
    s.expect(seg(".").seq(0).ack(4000).window(2000));
    s.finish();
}

#[test]
fn data_beyond_the_window_is_cut_off() {
    let config = Config { recv_buffer: 1500, recv_buffer_max: 1500, ..config() };
    let mut s = Script::established(config, plain_options());
    s.inject(seg("F.").seq(0).ack(0).len(2000));
    s.expect(seg(".").seq(0).ack(1500).window(0));
    assert_eq!(s.read(4000), crate::dsl::pattern(0, 1500));
    s.finish();
}

#[test]
fn an_ack_counts_when_the_window_is_closed_rfc9293_3_10_7_4() {
    let config = Config { recv_buffer: 1000, recv_buffer_max: 1000, ..config() };
    let mut s = Script::established(config, plain_options());
    s.write(100);
    s.expect(seg(".").seq(0).len(100));
    s.inject(seg(".").seq(0).ack(0).len(1000));
    s.expect(seg(".").seq(100).ack(1000).window(0));
    s.inject_dropped(seg(".").seq(1000).ack(100).data(b"x"), DropReason::TcpOutOfWindow);
    assert_eq!(s.connection.info().unacknowledged, 0);
    s.expect(seg(".").seq(100).ack(1000));
    s.finish();
}

#[test]
fn gaps_are_told_by_sack_and_duplicates_by_dsack_rfc2018_rfc2883() {
    let mut s = Script::established(config(), sack_options());
    s.inject(seg(".").seq(1000).ack(0).len(1000));
    s.expect(seg(".").ack(0).sack(&[(1000, 2000)]));
    s.inject(seg(".").seq(3000).ack(0).len(1000));
    s.expect(seg(".").ack(0).sack(&[(3000, 4000), (1000, 2000)]));
    s.inject_dropped(seg(".").seq(1000).ack(0).len(1000), DropReason::TcpDuplicateData);
    // Rule 4: the block that the duplicate belongs to stands second.
    s.expect(seg(".").ack(0).sack(&[(1000, 2000), (1000, 2000), (3000, 4000)]));
    s.inject(seg(".").seq(0).ack(0).len(1000));
    s.expect(seg(".").ack(2000).sack(&[(3000, 4000)]));
    s.inject_dropped(seg(".").seq(0).ack(0).len(1000), DropReason::TcpDuplicateData);
    s.expect(seg(".").ack(2000).sack(&[(0, 1000), (3000, 4000)]));
    s.inject(seg(".").seq(2000).ack(0).len(1000));
    s.expect(seg(".").ack(4000).sack(&[]));
    s.finish();
}

#[test]
fn three_blocks_beside_timestamps() {
    let mut s = Script::established(config(), all_options());
    for i in 1..6 {
        s.inject(seg(".").seq(i * 2000).ack(0).len(1000));
        while let Some((segment, _)) = s.poll() {
            assert!(segment.header_len() <= 60);
            assert_eq!(segment.options.sack.len(), (i as usize).min(3));
        }
    }
    s.finish();
}

#[test]
fn rounding_the_window_does_not_add_up_rfc7323_2_4() {
    let buffer = 70_001;
    let config = Config { recv_buffer: buffer, recv_buffer_max: buffer, ..Config::default() };
    let mut s = Script::established(config, all_options());
    for at in 0..1000 {
        s.inject(seg(".").seq(at).ack(0).len(1));
        while s.poll().is_some() {}
        let info = s.connection.info();
        assert!(info.readable + info.receive_window <= buffer + 1, "{info:?}");
    }
    s.finish();
}
