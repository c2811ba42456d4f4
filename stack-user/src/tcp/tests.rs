//! Connections on virtual time.

use super::{
    Config, Event, State,
    testing::{Faults, World},
};
use crate::{frame::FramePool, time::Duration};

const HOUR: Duration = Duration::from_secs(3600);

/// Both ends send `len` bytes; each must get exactly what the other sent, all must end, and no frame be lost.
fn transfer(seed: u64, faults: Faults, len: usize, config: impl Fn(usize) -> Config) -> World {
    let mut world = World::new(seed, faults, len, config);
    world.run(HOUR);
    let [a, b] = &mut world.ends;
    assert!(a.received == b.to_send, "seed {seed}: {} of {len} bytes at 0", a.received.len());
    assert!(b.received == a.to_send, "seed {seed}: {} of {len} bytes at 1", b.received.len());
    for end in [a, b] {
        assert_eq!(end.connection.state(), State::Closed, "seed {seed}");
        assert_eq!(end.events.last(), Some(&Event::Closed), "seed {seed}");
        assert!(
            !end.events.iter().any(|event| matches!(event, Event::Failed(_))),
            "seed {seed}: {:?}",
            end.events
        );
        end.connection.release_all(&mut end.pool);
        assert_eq!(end.pool.available(), end.pool.chunks(), "seed {seed}: frames are conserved");
    }
    world
}

#[test]
fn a_clean_network_needs_no_retransmission() {
    let world = transfer(1, Faults::default(), 1_000_000, |_| Config::default());
    for end in &world.ends {
        let info = end.connection.info();
        assert_eq!((info.retransmissions, info.timeouts), (0, 0), "{info:?}");
    }
    assert!(world.now.as_millis() < 70_000, "{}", world.now);
}

#[test]
fn data_survives_faults_of_all_kinds() {
    for seed in 0..200 {
        let faults = Faults { loss: 0.05, reorder: 0.05, duplicate: 0.02, corrupt: 0.01 };
        transfer(seed, faults, 100_000, |_| Config::default());
    }
}
