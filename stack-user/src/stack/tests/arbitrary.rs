//! Frames of any bytes.

use proptest::prelude::*;

use super::*;

proptest! {
    /// Whatever comes, nothing panics and no frame is lost.
    #[test]
    fn frames_of_any_bytes(
        frames in proptest::collection::vec(
            (any::<bool>(), 0usize..4, proptest::collection::vec(any::<u8>(), 0..200)), 0..50),
    ) {
        let mut stack = stack(1);
        let mut now = Instant::from_millis(1_000);
        claim(&mut stack, now, A);
        for _ in 0..400 {
            now += Duration::from_millis(1);
            stack.handle_timeout(now);
            let _ = sent(&mut stack, now);
        }
        for (to_us, shape, mut bytes) in frames {
            // Half of them get as far as the upper layers.
            if to_us && bytes.len() >= ethernet::LEN + ipv4::LEN {
                let header = ethernet::Header {
                    destination: stack.mac(),
                    source: MacAddr([2, 0, 0, 0, 0, 2]),
                    vlan: None,
                    ethertype: if shape == 0 { ethernet::ethertype::ARP } else { ethernet::ethertype::IPV4 },
                };
                header.emit(&mut bytes);
                if shape > 0 {
                    let proto = [protocol::ICMPV4, protocol::TCP, protocol::UDP][shape - 1];
                    let len = (bytes.len() - ethernet::LEN - ipv4::LEN) as u16;
                    ipv4::Header::new(B, A, proto, len).emit(&mut bytes[ethernet::LEN..]);
                }
            }
            receive(&mut stack, now, &bytes);
            let _ = sent(&mut stack, now);
        }
        for _ in 0..40 {
            now += Duration::from_secs(1);
            stack.handle_timeout(now);
            let _ = sent(&mut stack, now);
        }
        prop_assert_eq!(stack.pool().available(), CHUNKS as usize);
    }
}
