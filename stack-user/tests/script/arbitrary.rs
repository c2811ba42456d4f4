//! Arbitrary segments, in every state: nothing panics, nothing contradicts itself, no frame is lost.

use crate::dsl::{Script, all_options, config, plain_options, sack_options, seg};
use stack_user::{rng::Rng, tcp::Config};

/// A segment near enough to the truth to get past the first checks often.
fn segment(rng: &mut Rng) -> crate::dsl::Seg {
    let flags: String =
        "FSRPU.".chars().filter(|&flag| rng.chance(if flag == '.' { 0.9 } else { 0.1 })).collect();
    let near = |rng: &mut Rng| rng.below(6000) as i64 - 1500;
    let seq = if rng.chance(0.5) { rng.below(3) as i64 } else { near(rng) };
    let ack = if rng.chance(0.5) { rng.below(3) as i64 * 1000 } else { near(rng) };
    let mut segment = seg(&flags).seq(seq).ack(ack).window(rng.below(70_000) as u32);
    if rng.chance(0.5) {
        segment = segment.len(rng.below(1461) as usize);
    }
    if rng.chance(0.3) {
        let blocks: Vec<_> = (0..rng.below(4)).map(|_| (near(rng), near(rng))).collect();
        segment = segment.sack(&blocks);
    }
    segment
}

#[test]
fn arbitrary_segments_calls_and_times() {
    for seed in 0..400 {
        let mut rng = Rng::from_seed(seed);
        let config = Config { recv_buffer: 1 << (10 + rng.below(7)), send_buffer: 8000, ..config() };
        let options = [all_options(), plain_options(), sack_options()][rng.below(3) as usize];
        let mut s = if rng.chance(0.1) { Script::new(config) } else { Script::established(config, options) };
        let replay = super::Replay(seed);
        for _ in 0..120 {
            match rng.below(16) {
                0 => s.advance(rng.below(2000)),
                1 => s.hold_frames = !s.hold_frames,
                2 => s.complete(),
                3 if rng.chance(0.05) => s.app_shutdown(),
                4 if rng.chance(0.05) => s.app_close(),
                5 if rng.chance(0.02) => s.app_abort(),
                6 => {
                    let mut out = vec![0; rng.below(4000) as usize];
                    let _ = s.connection.read(s.now, &mut s.pool, &mut out);
                }
                7 | 8 => {
                    let data = vec![7; rng.below(4000) as usize];
                    let _ = s.connection.write(s.now, &mut s.pool, &data);
                }
                _ => {
                    let segment = segment(&mut rng);
                    let _ = s.try_inject(segment);
                }
            }
            s.connection.check_invariants();
            // A frame on the NIC can't be sent again, so this ends; more than the queue holds would be a loop.
            let sent = core::iter::from_fn(|| s.poll()).take(100).count();
            assert!(sent < 100, "it sends for ever");
            s.connection.check_invariants();
        }
        drop(replay);
        s.finish();
    }
}
