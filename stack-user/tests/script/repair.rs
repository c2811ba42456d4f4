//! How long a transfer takes through a bad network, on virtual time: the repair must not wait for the timer.

use crate::world::{Faults, Link, World};
use stack_user::{
    tcp::{Config, Info, State, congestion::Algorithm},
    time::{Duration, Instant},
};

const HOUR: Duration = Duration::from_secs(3600);
const TIME_WAIT: Duration = Duration::from_secs(60);

fn config() -> Config {
    Config { congestion: Algorithm::NewReno, send_buffer: 4 << 20, recv_buffer: 4 << 20, ..Config::default() }
}

/// Runs to the end. Returns how long it took, and what the first end says of it.
fn finish(mut world: World) -> (Duration, Info) {
    world.run(HOUR);
    let info = world.ends[0].connection.info();
    assert_eq!(info.state, State::Closed);
    let received = &world.ends[1].received;
    assert!(*received == world.ends[0].to_send, "{} bytes came", received.len());
    (world.now.since(Instant::ZERO).saturating_sub(TIME_WAIT), info)
}

/// Both ends send 1 MB over 10 ms each way.
fn both_ways(seed: u64, faults: Faults) -> (Duration, Info) {
    let mut world = World::new(seed, faults, 1_000_000, |_| config());
    world.delay = Duration::from_millis(10);
    finish(world)
}

/// With one loss in twenty, NewReno's window is 1.22 / sqrt(0.05), or five and a half segments (RFC 5681 by the formula of
/// RFC 3649 §2): 690 segments take 127 round trips of about 25 ms, 3.2 s. Time-outs would add 0.2 s each and more.
#[test]
fn heavy_loss_and_reordering_cost_no_timeouts_to_speak_of() {
    let (mut time, mut timeouts) = (Duration::ZERO, 0);
    for seed in 0..8 {
        let replay = crate::Replay(seed);
        let (took, info) = both_ways(seed, Faults { loss: 0.05, reorder: 0.05, ..Faults::default() });
        assert!(took < Duration::from_secs(8), "{took:?} {info:?}");
        time += took;
        timeouts += info.timeouts;
        drop(replay);
    }
    assert!(time < Duration::from_secs(8 * 4), "{time:?} for eight");
    assert!(timeouts <= 12, "{timeouts} time-outs for eight");
}

/// Reordering alone must neither shrink the window for long nor send much twice.
#[test]
fn reordering_alone_is_no_loss() {
    for seed in 0..8 {
        let replay = crate::Replay(seed);
        let (took, info) = both_ways(seed, Faults { reorder: 0.3, ..Faults::default() });
        assert!(took < Duration::from_millis(600), "{took:?} {info:?}");
        assert!(info.timeouts == 0 && info.retransmissions < 10, "{info:?}");
        drop(replay);
    }
}

/// 100 Mbit/s, 100 ms, and a queue of so many bytes.
fn long_fat_pipe(loss: f64, queue: u64, len: usize) -> (Duration, Info) {
    let faults = Faults { loss, ..Faults::default() };
    let mut world = World::with_chunks(8192, 1, faults, len, |_| config());
    world.ends[1].to_send.clear();
    world.delay = Duration::from_millis(50);
    world.link = Some(Link { rate: 12_500_000, queue });
    finish(world)
}

/// Slow start overshoots and loses hundreds of segments at once: they are repaired in the round trips that follow.
#[test]
fn an_overshoot_is_repaired_without_a_timeout() {
    let (took, info) = long_fat_pipe(0.0, 300_000, 6_000_000);
    assert!(info.retransmissions > 100, "it did overshoot: {info:?}");
    assert!(took < Duration::from_millis(1500) && info.timeouts == 0, "{took:?} {info:?}");
}

/// At one loss in a hundred, NewReno's window is 12 segments: 1 MB takes 58 round trips.
#[test]
fn a_percent_of_loss_leaves_what_newreno_can_have() {
    let (took, info) = long_fat_pipe(0.01, 1_250_000, 1_000_000);
    assert!(took < Duration::from_secs(9) && info.timeouts <= 1, "{took:?} {info:?}");
}

/// RFC 3522 §3.2, step 4: an ACK of what lies below the first segment that was sent again is not the one that decides; else
/// many a real loss passes for none.
#[test]
fn real_losses_undo_nothing_rfc3522_3_2() {
    let (_, info) = long_fat_pipe(0.01, 1_250_000, 6_000_000);
    assert!(info.retransmissions > 30 && info.undone == 0, "some forty, by chance: {info:?}");
}
