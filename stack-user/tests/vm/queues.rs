//! A card with several queues: flows take all of them.

use crate::guest::Guest;

#[test]
fn every_queue_carries_flows_of_both_directions() {
    let Some(guest) = Guest::new("every_queue") else { return };
    if guest.queues() == 1 {
        return guest.skip("the card has one queue");
    }
    let relay = guest.relay(&[]);
    // The card chooses by the flow's hash: so many miss no queue by chance.
    for _ in 0..32 {
        relay.download(20_000, "over several queues");
        relay.upload(&guest, 20_000, "over several queues");
    }
    let story = relay.stop(&guest);
    let devices = story.devices();
    assert_eq!(devices.len() as u32, guest.queues(), "{}", story.0);
    for (queue, device) in devices.iter().enumerate() {
        // Either direction has some frames for each flow; ARP and pings are a handful.
        let frames = (device.get("rx_frames"), device.get("tx_frames"));
        assert!(frames.0 > 50 && frames.1 > 50, "queue {queue} has {frames:?}: {}", story.0);
    }
    story.assert_frames_conserved();
}
