//! However xstack ends, the card is as it was, and the next start works.

use std::{io::Read, net::TcpStream, thread};

use crate::guest::{Guest, sized};

#[test]
fn kill_9_under_traffic_leaves_the_card_usable() {
    let Some(guest) = Guest::long_on_igb("kill_9") else { return };
    for round in 0..sized(2, 5) {
        let relay = guest.relay(&[]);
        relay.download(100_000, &format!("in round {round}"));
        let traffic = thread::spawn(|| {
            use std::io::Write;
            let mut stream = TcpStream::connect("127.0.0.1:8000").unwrap();
            stream.write_all(b"GET /bytes/500000000 HTTP/1.1\r\n\r\n").unwrap();
            let mut received = 0;
            let mut buffer = [0; 65536];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                received += length;
            }
            received
        });
        // Frames are on their way in both directions by then.
        let frames = || guest.driver_counters().sum(|name| name.contains("rx") && name.ends_with("_packets"));
        let before = frames();
        guest.wait_until("traffic flows", || frames() > before + 200);
        relay.kill();
        assert!(traffic.join().unwrap() > 0, "there was traffic");
        guest.wait_until("the program is gone", || !guest.has_program());
    }
    let relay = guest.relay(&[]);
    relay.download(100_000, "at the end");
    relay.upload(&guest, 100_000, "at the end");
    relay.stop(&guest).assert_frames_conserved();
}
