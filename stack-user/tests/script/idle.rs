//! Connections that rest: whoever looks from outside can't tell.

use stack_user::{
    rng::Rng,
    tcp::{Config, KeepAlive, congestion::Algorithm, idle::Configs},
    time::{Duration, Instant},
};

use crate::{
    Replay,
    world::{Faults, World},
};

/// Puts what can rest to rest, and makes connections of it again. Returns how many did.
fn doze(world: &mut World, configs: &mut Configs) -> usize {
    let now = world.now;
    let mut rested = 0;
    for end in &mut world.ends {
        let Some(idle) = end.connection.rest(now, configs) else { continue };
        assert_eq!(idle.poll_timeout(), end.connection.poll_timeout());
        assert_eq!((idle.local(), idle.remote()), (end.connection.local(), end.connection.remote()));
        end.connection = idle.resume();
        end.connection.check_invariants();
        rested += 1;
    }
    rested
}

fn config(rng: &mut Rng) -> Config {
    let algorithms = Algorithm::ALL;
    let keepalive = KeepAlive { idle: Duration::from_secs(20), ..KeepAlive::default() };
    Config {
        congestion: algorithms[rng.below(algorithms.len() as u64) as usize],
        ecn: rng.chance(0.3),
        pacing: rng.chance(0.8),
        nodelay: rng.chance(0.5),
        keepalive: rng.chance(0.3).then_some(keepalive),
        recv_buffer: 1 << (13 + rng.below(5)),
        ..Config::default()
    }
}

/// Two connections talk, fall silent for a while, and talk again. Once they rest in each silence and once they never do,
/// and all that is seen of them is the same: each segment's time and fate, and what they tell of themselves.
#[test]
fn a_connection_goes_on_as_if_it_had_never_rested() {
    let mut rested = 0;
    for seed in 0..100 {
        let _replay = Replay(seed);
        let mut rng = Rng::from_seed(seed);
        let faults = match rng.below(3) {
            0 => Faults::default(),
            1 => Faults { loss: 0.05, reorder: 0.05, duplicate: 0.02, corrupt: 0.0 },
            _ => Faults { loss: 0.01, ..Faults::default() },
        };
        let configs = [config(&mut rng), config(&mut rng)];
        let new = || {
            let mut world = World::new(seed, faults, 0, |end| configs[end].clone());
            world.stays_open = true;
            world
        };
        let (mut awake, mut dozing, mut known) = (new(), new(), Configs::default());
        for _ in 0..12 {
            let (from, len) = (rng.below(2) as usize, rng.below(60_000) as usize);
            let silence =
                Duration::from_millis([100, 1_500, 9_000, 700_000][rng.below(4) as usize] + rng.below(999));
            for world in [&mut awake, &mut dozing] {
                world.ends[from].to_send.resize(world.ends[from].to_send.len() + len, 7);
                world.run(Duration::from_secs(8));
                let until = world.now + silence;
                world.run(silence);
                world.now = world.now.max(until);
            }
            rested += doze(&mut dozing, &mut known);
            assert_eq!((awake.now, awake.sequence), (dozing.now, dozing.sequence));
            for (one, other) in awake.ends.iter().zip(&dozing.ends) {
                assert!(one.received == other.received);
                let (one, other) = (one.connection.info(), other.connection.info());
                assert_eq!(format!("{one:?}"), format!("{other:?}"));
            }
        }
    }
    assert!(rested > 1000, "{rested} times");
}

#[test]
fn what_has_something_to_do_does_not_rest() {
    let mut known = Configs::default();
    let mut world = World::new(1, Faults::default(), 0, |_| Config::default());
    world.stays_open = true;
    world.run(Duration::from_secs(5));
    let long_after = world.now + Duration::from_secs(3600);
    let rests = |world: &World, known: &mut Configs, at: Instant| {
        world.ends.each_ref().map(|end| end.connection.rest(at, known).is_some())
    };
    assert_eq!(rests(&world, &mut known, long_after), [true, true]);
    assert_eq!(rests(&world, &mut known, world.ends[0].connection.rests_at().expect("a time")), [true, true]);

    let just_now = world.now;
    let end = &mut world.ends[0];
    assert!(end.connection.write(just_now, &mut end.pool, b"x").is_ok());
    assert_eq!(rests(&world, &mut known, long_after), [false, true], "it has something to send");
    world.run(Duration::from_millis(50));
    assert_eq!(rests(&world, &mut known, world.now), [false, false], "too soon");
    world.run(Duration::from_secs(5));
    assert_eq!(rests(&world, &mut known, long_after), [true, true]);

    world.ends[1].connection.shutdown_write(world.now);
    world.run(Duration::from_secs(5));
    assert_eq!(rests(&world, &mut known, long_after), [false, false], "one direction is closed");
}
