//! Bytes, in both directions, over bad wires: the kernel's netem does the damage, to frames of both ends.

use crate::guest::{Direction, Guest, sized};

/// What a wire does, in both directions.
const WIRES: [(&str, &str); 4] = [
    ("loss", "loss 3%"),
    // The jitter lets frames pass each other, too.
    ("delay", "delay 20ms 5ms"),
    ("reordering", "delay 8ms reorder 75% 50%"),
    // The queue holds a few dozen frames: whoever sends too fast loses some.
    ("rate", "rate 20mbit limit 40"),
];

#[test]
fn both_directions_survive_loss_delay_reordering_and_a_narrow_link() {
    let Some(guest) = Guest::long_on_igb("bad_wires") else { return };
    let relay = guest.relay(&[]);
    for (name, netem) in WIRES {
        guest.netem(Direction::ToUs, netem);
        guest.netem(Direction::ToPeer, netem);
        let length = sized(200_000, 2_000_000);
        relay.download(length, name);
        relay.upload(&guest, length, name);
    }
    relay.stop(&guest).assert_frames_conserved();
}

#[test]
#[ignore = "long"]
fn a_wire_with_everything_wrong_loses_nothing_in_the_end() {
    let Some(guest) = Guest::new("worst_wire") else { return };
    let netem = "delay 10ms 5ms loss 2% duplicate 2% reorder 25% 50% rate 50mbit limit 200";
    // On their way to the peer frames come to netem when GRO has found their checksums right, and nobody looks again.
    guest.netem(Direction::ToUs, &format!("{netem} corrupt 0.5%"));
    guest.netem(Direction::ToPeer, netem);
    let relay = guest.relay(&[]);
    for _ in 0..3 {
        relay.download(2_000_000, "with everything wrong");
        relay.upload(&guest, 2_000_000, "with everything wrong");
    }
    relay.stop(&guest).assert_frames_conserved();
}
