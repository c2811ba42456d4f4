use std::net::Ipv4Addr;

use super::*;
use crate::{device::Umem, wire::ipv4::Header};

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const ROOM: usize = 34;

fn now() -> Instant {
    Instant::from_millis(1_000)
}

fn pool() -> Umem {
    Umem::on_heap(4).expect("memory")
}

fn responder() -> Responder {
    Responder::new(Rng::from_seed(1))
}

fn message(message: Message, body: &[u8]) -> Vec<u8> {
    let mut bytes = [&[0; icmpv4::LEN][..], body].concat();
    message.emit(&mut bytes);
    bytes
}

/// A received frame with these bytes, and others around them.
fn received(pool: &mut Umem, bytes: &[u8]) -> RxFrame {
    let mut frame = pool.receive_whole(&[&[0; 10], bytes, &[0; 10]].concat()).expect("a chunk");
    frame.trim_front(10);
    frame.truncate(bytes.len());
    frame
}

fn datagram(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [&[0; ipv4::LEN][..], payload].concat();
    Header::new(A, B, protocol, payload.len() as u16).emit(&mut bytes);
    bytes
}

#[test]
fn rfc1122_3_2_2_6_an_echo_is_answered_with_the_same_data() {
    let mut pool = pool();
    let data: Vec<u8> = (0..1_400).map(|n| n as u8).collect();
    let request = received(&mut pool, &message(Message::EchoRequest { identifier: 7, sequence: 9 }, &data));
    assert_eq!(receive(pool.rx_bytes(&request)), Ok(Input::EchoRequest));
    let reply = responder().echo_reply(now(), &mut pool, &request, Cast::Unicast, ROOM).expect("a reply");
    let bytes = &pool.tx_bytes(&reply)[ROOM..];
    assert_eq!(Message::parse(bytes), Ok(Message::EchoReply { identifier: 7, sequence: 9 }));
    assert_eq!(&bytes[icmpv4::LEN..], data);
    pool.release_rx(request);
    pool.release_tx(reply);
    assert_eq!(pool.available(), 4);
}

#[test]
fn rfc1122_3_2_2_6_an_echo_to_everybody_is_ignored() {
    let mut pool = pool();
    let request = received(&mut pool, &message(Message::EchoRequest { identifier: 7, sequence: 9 }, b""));
    let ignored = responder().echo_reply(now(), &mut pool, &request, Cast::Broadcast, ROOM);
    assert_eq!(ignored, Err(DropReason::IcmpIgnored));
    pool.release_rx(request);
    assert_eq!(pool.available(), 4);
}

#[test]
fn a_flood_of_echoes_is_answered_at_the_limit() {
    let mut pool = pool();
    let mut responder = responder();
    let request = received(&mut pool, &message(Message::EchoRequest { identifier: 7, sequence: 9 }, b"x"));
    let answered = (0..100_000u64)
        .filter(|n| {
            let at = now() + Duration::from_micros(n * 10);
            match responder.echo_reply(at, &mut pool, &request, Cast::Unicast, ROOM) {
                Ok(reply) => {
                    pool.release_tx(reply);
                    true
                }
                Err(reason) => {
                    assert_eq!(reason, DropReason::IcmpRateLimited);
                    false
                }
            }
        })
        .count();
    assert!((1_095..=1_100).contains(&answered), "{answered} in a second");
    pool.release_rx(request);
    assert_eq!(pool.available(), 4);
}

#[test]
fn without_a_chunk_or_room_in_it_nothing_is_sent() {
    let mut pool = Umem::on_heap(1).expect("memory");
    let request = received(&mut pool, &message(Message::EchoRequest { identifier: 7, sequence: 9 }, b""));
    let refused = responder().echo_reply(now(), &mut pool, &request, Cast::Unicast, ROOM);
    assert_eq!(refused, Err(DropReason::NoFrame));
    pool.release_rx(request);
    let quote = Quote::of(&datagram(17, &[0; 8]), Cast::Unicast).expect("may be answered");
    let refused = responder().error(now(), &mut pool, Problem::PortUnreachable, &quote, 4_000);
    assert_eq!(refused, Err(DropReason::NoFrame));
    assert_eq!(pool.available(), 1);
}

#[test]
fn rfc1812_4_3_2_3_an_error_quotes_as_much_as_fits_in_576_bytes() {
    for (problem, expected) in [
        (Problem::PortUnreachable, Message::DestinationUnreachable { code: 3, next_hop_mtu: 0 }),
        (Problem::ProtocolUnreachable, Message::DestinationUnreachable { code: 2, next_hop_mtu: 0 }),
        (Problem::ReassemblyTimeExceeded, Message::TimeExceeded { code: 1 }),
    ] {
        for len in [8, 528, 529, 1_400] {
            let mut pool = pool();
            let original = datagram(17, &vec![0xab; len]);
            let padded = [&original[..], &[0; 20]].concat();
            let quote = Quote::of(&padded, Cast::Unicast).expect("may be answered");
            let frame = responder().error(now(), &mut pool, problem, &quote, ROOM).expect("an error");
            let bytes = &pool.tx_bytes(&frame)[ROOM..];
            assert_eq!(Message::parse(bytes), Ok(expected));
            assert_eq!(&bytes[icmpv4::LEN..], &original[..original.len().min(548)], "without the padding");
            pool.release_tx(frame);
            assert_eq!(pool.available(), 4);
        }
    }
}

#[test]
fn rfc1122_3_2_2_what_must_not_be_answered_with_an_error() {
    let udp = datagram(17, &[0; 8]);
    assert!(Quote::of(&udp, Cast::Unicast).is_some());
    assert!(Quote::of(&udp, Cast::Broadcast).is_none());

    let echo = message(Message::EchoRequest { identifier: 1, sequence: 1 }, b"");
    assert!(Quote::of(&datagram(1, &echo), Cast::Unicast).is_some());
    let error = message(Message::TimeExceeded { code: 0 }, &udp);
    assert!(Quote::of(&datagram(1, &error), Cast::Unicast).is_none());
    assert!(Quote::of(&datagram(1, b""), Cast::Unicast).is_none());

    let from = |source: [u8; 4], fragment_offset| {
        let mut bytes = [0; 28];
        Header { fragment_offset, ..Header::new(source.into(), B, 17, 8) }.emit(&mut bytes);
        Quote::of(&bytes, Cast::Unicast).is_some()
    };
    assert!(from([10, 0, 0, 1], 0));
    assert!(!from([10, 0, 0, 1], 8));
    for source in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255]] {
        assert!(!from(source, 0), "{source:?}");
    }
}

#[test]
fn rfc1812_4_3_2_8_errors_are_limited() {
    let mut pool = pool();
    let mut responder = responder();
    let quote = Quote::of(&datagram(17, &[0; 8]), Cast::Unicast).expect("may be answered");
    let mut sent = 0;
    for n in 0..10_000 {
        let at = now() + Duration::from_micros(n * 100);
        if let Ok(frame) = responder.error(at, &mut pool, Problem::PortUnreachable, &quote, ROOM) {
            pool.release_tx(frame);
            sent += 1;
        }
    }
    // A thousand tokens a second and a burst of a hundred, at one to three each.
    assert!((500..600).contains(&sent), "{sent} in a second");
    assert_eq!(pool.available(), 4);
}

#[test]
fn rfc5927_an_error_names_the_flow_and_sequence_number_that_it_quotes() {
    let segment = [0xc0, 0x00, 0x01, 0xbb, 0xde, 0xad, 0xbe, 0xef];
    let quoted = datagram(6, &segment);
    let kinds = [
        (Message::DestinationUnreachable { code: 0, next_hop_mtu: 0 }, ErrorKind::NetUnreachable),
        (Message::DestinationUnreachable { code: 1, next_hop_mtu: 0 }, ErrorKind::HostUnreachable),
        (Message::DestinationUnreachable { code: 2, next_hop_mtu: 0 }, ErrorKind::ProtocolUnreachable),
        (Message::DestinationUnreachable { code: 3, next_hop_mtu: 0 }, ErrorKind::PortUnreachable),
        (
            Message::DestinationUnreachable { code: 4, next_hop_mtu: 1_400 },
            ErrorKind::FragmentationNeeded { mtu: Some(1_400) },
        ),
        (
            Message::DestinationUnreachable { code: 4, next_hop_mtu: 0 },
            ErrorKind::FragmentationNeeded { mtu: None },
        ),
        (Message::DestinationUnreachable { code: 13, next_hop_mtu: 0 }, ErrorKind::Prohibited),
        (Message::TimeExceeded { code: 0 }, ErrorKind::TimeExceeded),
        (Message::ParameterProblem { code: 0, pointer: 9 }, ErrorKind::ParameterProblem),
    ];
    for (wire, kind) in kinds {
        let expected = IcmpError {
            kind,
            protocol: 6,
            local: (A, 0xc000).into(),
            remote: (B, 443).into(),
            sequence: 0xdead_beef,
        };
        assert_eq!(receive(&message(wire, &quoted)), Ok(Input::Error(expected)));
    }
}

#[test]
fn errors_that_quote_too_little_or_a_later_fragment_are_dropped() {
    let wire = Message::TimeExceeded { code: 0 };
    let quoted = datagram(6, &[0; 8]);
    assert_eq!(receive(&message(wire, &quoted[..27])), Err(DropReason::IcmpMalformed));
    let mut later = quoted.clone();
    Header { fragment_offset: 8, ..Header::new(A, B, 6, 8) }.emit(&mut later);
    assert_eq!(receive(&message(wire, &later)), Err(DropReason::IcmpUnmatched));
    // So is what nobody asked for: a redirect, and source quench (RFC 9293 §3.9.2.2, MUST-55; RFC 1122 §3.2.2).
    let quench = Message::Other { kind: 4, code: 0, rest: [0; 4] };
    assert_eq!(receive(&message(quench, &quoted)), Err(DropReason::IcmpIgnored));
    let redirect = Message::Other { kind: 5, code: 0, rest: [10, 0, 0, 1] };
    assert_eq!(receive(&message(redirect, &quoted)), Err(DropReason::IcmpIgnored));
    let unknown = Message::DestinationUnreachable { code: 16, next_hop_mtu: 0 };
    assert_eq!(receive(&message(unknown, &quoted)), Err(DropReason::IcmpIgnored));
}
