//! TCP options and headers: what is read, written and read again stays the same, and no byte makes it panic.

use std::net::{IpAddr, Ipv4Addr};

use stack_user::{
    tcp::{
        Segment,
        options::{MAX_LEN, MAX_SACK_BLOCKS, MAX_WINDOW_SCALE, Options},
    },
    wire::{checksum::Sum, protocol, tcp::Header},
};

const A: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const B: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));

/// The longest that options can become: those of a full header, each in its shortest form, are written with padding.
const MAX_WRITTEN: usize = 64;

pub fn run(data: &[u8]) {
    options(data);
    segment(data);
}

fn options(data: &[u8]) {
    let options = Options::parse(data);
    assert!(options.window_scale.is_none_or(|shift| shift <= MAX_WINDOW_SCALE));
    assert!(options.sack.len() <= MAX_SACK_BLOCKS && options.sack.iter().count() == options.sack.len());
    let len = options.len();
    assert_eq!(options.is_empty(), len == 0);
    assert_eq!(options.len() % 4, 0);
    let mut bytes = [0xff; MAX_WRITTEN];
    let len = options.emit(&mut bytes);
    assert_eq!(len, options.len());
    assert_eq!(Options::parse(&bytes[..len]), options);
    assert!(bytes[len..].iter().all(|&byte| byte == 0xff), "written beyond the end");
    // Too little room is the writer's mistake, and no reason to panic.
    options.emit(&mut bytes[..len.saturating_sub(1)]);
}

fn segment(data: &[u8]) {
    let _ = Segment::parse(A, B, data);
    let mut bytes = data.to_vec();
    if bytes.len() < Header::LEN {
        return;
    }
    set_checksum(&mut bytes);
    let Ok((segment, payload_at)) = Segment::parse(A, B, &bytes) else { return };
    assert!((Header::LEN..=Header::LEN + MAX_LEN).contains(&payload_at) && payload_at <= bytes.len());
    if segment.options.len() > MAX_LEN {
        return;
    }
    let payload = &bytes[payload_at..];
    let mut written = vec![0; segment.header_len()];
    written.extend_from_slice(payload);
    assert_eq!(segment.emit(A, B, payload.len(), &mut written), written.len());
    let (again, again_at) = Segment::parse(A, B, &written).expect("what was written can be read");
    assert_eq!(again, segment);
    assert_eq!(&written[again_at..], payload);
}

fn set_checksum(bytes: &mut [u8]) {
    Header::set_checksum(bytes, 0);
    let sum = Sum::pseudo_header(A, B, protocol::TCP, bytes.len()).bytes(bytes).finish();
    Header::set_checksum(bytes, sum);
}
