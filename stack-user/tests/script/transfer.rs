//! Two real connections, which open at the same time, through networks that are better or worse.

use crate::world::{Faults, World};
use stack_user::{
    frame::FramePool,
    tcp::{Config, Event, State, options::Options},
    time::Duration,
};

const HOUR: Duration = Duration::from_secs(3600);

const BAD: Faults = Faults { loss: 0.05, reorder: 0.05, duplicate: 0.02, corrupt: 0.01 };

/// Both ends send `len` bytes; each must get exactly what the other sent, all must end, and no frame be lost.
fn transfer(seed: u64, faults: Faults, len: usize, config: impl Fn(usize) -> Config) -> World {
    transfer_through(seed, faults, len, config, |_| {})
}

fn transfer_through(
    seed: u64,
    faults: Faults,
    len: usize,
    config: impl Fn(usize) -> Config,
    middlebox: fn(&mut Options),
) -> World {
    let mut world = World::new(seed, faults, len, config);
    world.middlebox = middlebox;
    let replay = super::Replay(seed);
    world.run(HOUR);
    let [a, b] = &mut world.ends;
    assert!(a.received == b.to_send, "{} of {len} bytes at 0", a.received.len());
    assert!(b.received == a.to_send, "{} of {len} bytes at 1", b.received.len());
    for end in [a, b] {
        assert_eq!(end.connection.state(), State::Closed);
        assert_eq!(end.events.last(), Some(&Event::Closed));
        assert!(!end.events.iter().any(|event| matches!(event, Event::Failed(_))), "{:?}", end.events);
        end.connection.release_all(&mut end.pool);
        assert_eq!(end.pool.available(), end.pool.chunks(), "frames are conserved");
    }
    drop(replay);
    world
}

#[test]
fn a_clean_network_needs_no_retransmission() {
    let world = transfer(1, Faults::default(), 1_000_000, |_| Config::default());
    for end in &world.ends {
        let info = end.connection.info();
        assert_eq!((info.retransmissions, info.timeouts), (0, 0), "{info:?}");
    }
    // 60 s of it are TIME-WAIT.
    assert!(world.now.as_millis() < 65_000, "{}", world.now);
}

#[test]
fn a_megabyte_each_way_survives_faults() {
    for seed in 1000..1004 {
        transfer(seed, BAD, 1_000_000, |_| Config::default());
    }
}

#[test]
fn data_survives_faults_of_all_kinds() {
    for seed in 0..200 {
        transfer(seed, BAD, 60_000, |_| Config::default());
    }
}

#[test]
fn faults_without_sack() {
    for seed in 0..40 {
        transfer_through(seed, BAD, 60_000, |_| Config::default(), |options| options.sack_permitted = false);
    }
}

#[test]
fn faults_without_any_option() {
    for seed in 0..40 {
        transfer_through(seed, BAD, 30_000, |_| Config::default(), |options| *options = Options::default());
    }
}

#[test]
fn unequal_segment_sizes_and_small_buffers() {
    for seed in 0..40 {
        let config = |end| Config {
            mss: if end == 0 { 1460 } else { 300 },
            recv_buffer: if end == 0 { 1000 } else { 5000 },
            send_buffer: 3000,
            ..Config::default()
        };
        transfer(seed, BAD, 20_000, config);
    }
}

#[test]
fn a_network_that_loses_every_fifth_segment_still_gets_there() {
    for seed in 0..20 {
        let faults = Faults { loss: 0.2, reorder: 0.3, duplicate: 0.1, corrupt: 0.05 };
        // Whoever is in TIME-WAIT has to outlast the other's back-off: here no stack is left behind it that would answer.
        let time_wait = Duration::from_secs(1200);
        transfer(seed, faults, 20_000, |_| Config { user_timeout: HOUR, time_wait, ..Config::default() });
    }
}
