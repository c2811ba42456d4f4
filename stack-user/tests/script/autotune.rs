//! Buffers that follow the bandwidth-delay product: 100 Mbit/s over 100 ms is 1.25 MB in flight, with the chunks that one
//! queue of a real card has.

use crate::dsl::{Script, all_options, plain_options, seg};
use stack_user::{
    device::{Umem, xdp::CHUNKS_PER_QUEUE},
    frame::FramePool,
    tcp::{Config, WriteError, options::Options},
};

const RTT_MS: u64 = 100;
const BDP: usize = 1_250_000;
const MSS: usize = 1448;

fn script(config: Config, peer: Options) -> Script {
    let mut s = Script::new(config);
    s.pool = Umem::on_heap(CHUNKS_PER_QUEUE).expect("memory");
    s.handshake(peer, 65_535);
    s
}

/// What we said last: the window, and the time by our clock.
fn offered(s: &mut Script, before: (usize, Option<u32>)) -> (usize, Option<u32>) {
    let mut offer = before;
    while let Some((segment, _)) = s.poll() {
        let window = usize::from(segment.window) << s.connection.info().window_shifts.1;
        offer = (window, segment.options.timestamps.map(|timestamps| timestamps.value));
    }
    offer
}

/// A peer in slow start fills the path round by round, and the application takes what comes.
fn receive_in_slow_start(peer: Options, rounds: usize) -> (usize, Script) {
    let mut s = script(Config::default(), peer);
    let (mut at, mut offer, mut cwnd) = (0, (65_535, None), 10 * MSS);
    let mut flight = 0;
    for _ in 0..rounds {
        s.advance(RTT_MS);
        // All of the round answers what was said before it.
        let (_, echo) = offer;
        offer = offered(&mut s, offer);
        let (window, _) = offer;
        flight = cwnd.min(window).min(BDP);
        for _ in 0..flight / MSS {
            let segment = seg(".").seq(at).ack(0).len(MSS);
            s.inject(echo.map_or(segment.clone(), |echo| segment.echo(echo)));
            at += MSS as i64;
            s.read(MSS);
            offer = offered(&mut s, offer);
        }
        cwnd *= 2;
    }
    (flight, s)
}

#[test]
fn a_download_fills_100_mbit_over_100_ms() {
    let (flight, s) = receive_in_slow_start(all_options(), 9);
    assert_eq!(flight, BDP, "{:?}", s.connection.info());
    assert!(s.connection.info().receive_buffer >= 2 * BDP);
    // A window's scale is chosen when nobody knows yet how large it will be (RFC 7323 §2.3).
    assert_eq!(s.connection.info().window_shifts.1, 6);
}

#[test]
fn so_it_does_when_only_windows_of_data_tell_the_round_trip() {
    let peer = Options { timestamps: None, ..all_options() };
    let (flight, s) = receive_in_slow_start(peer, 9);
    assert_eq!(flight, BDP, "{:?}", s.connection.info());
}

#[test]
fn an_application_that_takes_little_keeps_a_small_window() {
    let mut s = script(Config::default(), plain_options());
    for i in 0..100 {
        s.advance(RTT_MS);
        s.inject(seg(".").seq(i * 1000).ack(0).len(1000));
        s.read(1000);
        while s.poll().is_some() {}
    }
    assert_eq!(s.connection.info().receive_buffer, Config::default().recv_buffer);
}

#[test]
fn under_frame_pressure_no_buffer_grows() {
    let mut s = script(Config::default(), all_options());
    let keep = s.pool.chunks() / 4 - 1;
    let mut held = Vec::new();
    while s.pool.available() > keep {
        held.push(s.pool.allocate().expect("a chunk"));
    }
    let before = s.connection.info().receive_buffer;
    for i in 0..20 {
        s.advance(RTT_MS);
        for j in 0..80 {
            s.inject(seg(".").seq((i * 80 + j) * 1000).ack(0).len(1000));
            s.read(1000);
            while s.poll().is_some() {}
        }
    }
    assert_eq!(s.connection.info().receive_buffer, before);
    held.into_iter().for_each(|frame| s.pool.release(frame));
}

#[test]
fn an_upload_fills_100_mbit_over_100_ms() {
    // Time passes in leaps of a round trip, so there is none to spread anything over.
    let mut s = script(Config { pacing: false, ..Config::default() }, all_options());
    s.inject(seg(".").seq(0).ack(0).window(8_000_000));
    let data = vec![0; 1 << 20];
    let (mut acked, mut most) = (0, 0);
    for _ in 0..10 {
        loop {
            match s.connection.write(s.now, &mut s.pool, &data) {
                Ok(_) => while s.poll().is_some() {},
                Err(error) => {
                    assert_eq!(error, WriteError::WouldBlock);
                    break;
                }
            }
        }
        s.advance(RTT_MS);
        let sent = s.connection.info().outstanding;
        most = most.max(sent);
        for _ in 0..sent / (2 * MSS) {
            acked += 2 * MSS as i64;
            s.inject(seg(".").seq(0).ack(acked).window(8_000_000));
            while s.poll().is_some() {}
        }
    }
    let info = s.connection.info();
    assert!(most >= BDP && info.send_buffer >= 2 * BDP, "{info:?}");
}

#[test]
fn connections_that_take_nothing_leave_chunks_to_each_other() {
    let mut pool = Umem::on_heap(1000).expect("memory");
    let mut scripts: Vec<_> = (0..4)
        .map(|_| Script::established(Config { send_buffer: 4 << 20, ..Config::default() }, plain_options()))
        .collect();
    let data = vec![0; 1 << 20];
    let mut left = Vec::new();
    for s in &mut scripts {
        core::mem::swap(&mut s.pool, &mut pool);
        while s.connection.write(s.now, &mut s.pool, &data).is_ok() {}
        core::mem::swap(&mut s.pool, &mut pool);
        left.push(pool.available());
    }
    assert_eq!(left, [500, 250, 125, 64], "each leaves as many as it takes, and the reserve stays");
    for s in &mut scripts {
        core::mem::swap(&mut s.pool, &mut pool);
        s.connection.release_all(&mut s.pool);
        core::mem::swap(&mut s.pool, &mut pool);
    }
    assert_eq!(pool.available(), 1000);
}
