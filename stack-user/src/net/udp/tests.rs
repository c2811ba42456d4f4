use std::{collections::BTreeSet, net::Ipv4Addr};

use super::*;
use crate::{device::Umem, wire::protocol};

const US: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9));
const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 53);
const STRANGER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)), 53);
const PATH: Path = Path { source: US, header_room: 34, mtu: 1500 };
const CHUNKS: usize = 256;

struct Host {
    pool: Umem,
    sockets: Sockets,
    rng: Rng,
}

impl Host {
    fn new() -> Self {
        let pool = Umem::on_heap(CHUNKS as u32).expect("memory");
        Self { pool, sockets: Sockets::new(), rng: Rng::from_seed(1) }
    }

    fn bind(&mut self, ip: IpAddr, port: u16) -> SocketId {
        self.sockets.bind(SocketAddr::new(ip, port), &mut self.rng).expect("free")
    }

    fn frame(&mut self, data: &[u8]) -> Payload {
        Payload::Frame(self.pool.receive_whole(data).expect("chunks"))
    }

    fn deliver(&mut self, id: SocketId, from: SocketAddr, data: &[u8]) -> Result<(), DropReason> {
        let payload = self.frame(data);
        self.sockets.deliver(&mut self.pool, id, from, US, Ecn::NotEct, payload)
    }

    fn recv(&mut self, id: SocketId) -> Result<(Vec<u8>, SocketAddr), RecvError> {
        let mut buf = [0; 2048];
        let Received { len, from, .. } = self.sockets.recv(&mut self.pool, id, &mut buf)?;
        Ok((buf[..len].to_vec(), from))
    }

    fn send(&mut self, id: SocketId, to: Option<SocketAddr>) -> Result<(), SendError> {
        let Outgoing { frame, .. } = self.sockets.send(&mut self.pool, id, to, PATH, b"query")?;
        self.pool.release_tx(frame);
        Ok(())
    }

    fn error(&mut self, id: SocketId, kind: ErrorKind, remote: SocketAddr) -> Result<SocketId, DropReason> {
        let local = self.sockets.local(id).expect("open");
        let error = IcmpError { kind, protocol: protocol::UDP, local, remote, sequence: 0 };
        self.sockets.handle_error(&error)
    }

    fn close(mut self, ids: &[SocketId]) {
        ids.iter().for_each(|&id| self.sockets.close(&mut self.pool, id));
        assert_eq!(self.pool.available(), CHUNKS, "frames are conserved");
        assert!(self.sockets.by_port.is_empty());
    }
}

#[test]
fn datagrams_come_in_order_and_each_as_one() {
    let mut host = Host::new();
    let id = host.bind(US, 5_000);
    let local = host.sockets.local(id).expect("open");
    assert_eq!(host.recv(id), Err(RecvError::WouldBlock));
    assert!(!host.sockets.is_readable(id));
    assert_eq!(host.sockets.lookup(local, SERVER), Some(id));
    assert_eq!(host.deliver(id, SERVER, b"one"), Ok(()));
    assert_eq!(host.deliver(id, STRANGER, b""), Ok(()));
    let heap = Payload::Heap(vec![7; 3_000]);
    assert_eq!(host.sockets.deliver(&mut host.pool, id, SERVER, US, Ecn::NotEct, heap), Ok(()));
    assert!(host.sockets.is_readable(id));
    assert_eq!(host.recv(id), Ok((b"one".to_vec(), SERVER)));
    assert_eq!(host.recv(id), Ok((vec![], STRANGER)));
    assert_eq!(host.recv(id), Ok((vec![7; 2_048], SERVER)), "what does not fit is cut off");
    assert_eq!(host.recv(id), Err(RecvError::WouldBlock));
    host.close(&[id]);
}

#[test]
fn what_is_sent_has_a_right_header_behind_the_room() {
    let mut host = Host::new();
    let id = host.bind(ANY, 0);
    let out = host.sockets.send(&mut host.pool, id, Some(SERVER), PATH, b"query").expect("sent");
    assert_eq!((out.source.ip(), out.destination), (US, SERVER));
    let bytes = &host.pool.tx_bytes(&out.frame)[34..];
    let (header, data) = udp::Header::parse(US, SERVER.ip(), bytes).expect("a right checksum");
    assert_eq!((header.source_port, header.destination_port), (out.source.port(), 53));
    assert_eq!(&bytes[data], b"query");
    host.pool.release_tx(out.frame);
    host.close(&[id]);
}

#[test]
fn rfc8085_3_2_what_is_too_long_for_the_link_is_refused() {
    let mut host = Host::new();
    let id = host.bind(US, 0);
    let mut send = |len: usize, path| {
        let out = host.sockets.send(&mut host.pool, id, Some(SERVER), path, &vec![0; len])?;
        host.pool.release_tx(out.frame);
        Ok(())
    };
    assert_eq!(send(1_472, PATH), Ok(()));
    assert_eq!(send(1_473, PATH), Err(SendError::TooLong { len: 1_473, max: 1_472 }));
    let jumbo = Path { mtu: 9_000, ..PATH };
    assert_eq!(send(8_972, jumbo), Ok(()));
    assert_eq!(send(8_973, jumbo), Err(SendError::TooLong { len: 8_973, max: 8_972 }));
    // A NIC that takes a frame in one piece only.
    host.pool.limit_tx_chunks(1);
    let max = 4_096 - 256 - 34 - 8;
    let mut send = |len: usize| {
        let out = host.sockets.send(&mut host.pool, id, Some(SERVER), jumbo, &vec![0; len])?;
        host.pool.release_tx(out.frame);
        Ok(())
    };
    assert_eq!(send(max), Ok(()));
    assert_eq!(send(max + 1), Err(SendError::TooLong { len: max + 1, max }));
    host.close(&[id]);
}

#[test]
fn a_datagram_of_several_chunks_is_gathered_where_the_user_wants_it() {
    let mut host = Host::new();
    let id = host.bind(US, 4_000);
    let data: Vec<u8> = (0..8_000u32).map(|at| at as u8).collect();
    host.deliver(id, SERVER, &data).expect("room");
    let mut buf = vec![0; 9_000];
    assert_eq!(host.sockets.peek(&host.pool, id, &mut buf).map(|received| received.len), Ok(8_000));
    assert_eq!(
        host.sockets.recv(&mut host.pool, id, &mut buf[..5_000]).map(|received| received.len),
        Ok(5_000)
    );
    assert_eq!(buf[..5_000], data[..5_000]);

    let out = host
        .sockets
        .send(&mut host.pool, id, Some(SERVER), Path { mtu: 9_000, ..PATH }, &data)
        .expect("sent");
    let bytes = host.pool.tx_gather(&out.frame).into_owned();
    let (_, range) =
        udp::Header::parse(out.source.ip(), SERVER.ip(), &bytes[34..]).expect("its checksum is right");
    assert_eq!(bytes[34..][range], data);
    host.pool.release_tx(out.frame);
    host.close(&[id]);
}

#[test]
fn rfc6056_3_3_1_ephemeral_ports_are_random_and_used_once() {
    let mut host = Host::new();
    let ids: Vec<_> = (0..1_000).map(|_| host.bind(US, 0)).collect();
    let ports: Vec<_> =
        ids.iter().filter_map(|&id| host.sockets.local(id)).map(|local| local.port()).collect();
    assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), 1_000);
    assert!(ports.iter().all(|port| EPHEMERAL_PORTS.contains(port)));
    let neighbours = ports.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) <= 1).count();
    assert!(neighbours < 10, "{neighbours} of 1000 are next to the one before");
    host.close(&ids);
}

#[test]
fn when_all_ports_are_taken_there_is_an_error() {
    let mut host = Host::new();
    let ids: Vec<_> = EPHEMERAL_PORTS.map(|port| host.bind(US, port)).collect();
    let refused = host.sockets.bind(SocketAddr::new(ANY, 0), &mut host.rng);
    assert_eq!(refused, Err(BindError::NoPort { ports: &EPHEMERAL_PORTS }));
    host.sockets.close(&mut host.pool, ids[77]);
    let id = host.bind(ANY, 0);
    assert_eq!(host.sockets.local(id).map(|local| local.port()), Some(49_152 + 77));
    host.close(&[&ids[..], &[id]].concat());
}

#[test]
fn a_port_has_one_owner_per_address() {
    let mut host = Host::new();
    let a = host.bind(US, 53);
    for ip in [US, ANY] {
        let local = SocketAddr::new(ip, 53);
        assert_eq!(host.sockets.bind(local, &mut host.rng), Err(BindError::InUse { local }));
    }
    let b = host.bind(SERVER.ip(), 53);
    assert_eq!(host.sockets.lookup(SocketAddr::new(US, 53), SERVER), Some(a));
    assert_eq!(host.sockets.lookup(SocketAddr::new(STRANGER.ip(), 53), SERVER), None);
    host.close(&[a, b]);
}

#[test]
fn a_connected_socket_hears_its_peer_only() {
    let mut host = Host::new();
    let id = host.bind(US, 0);
    let local = host.sockets.local(id).expect("open");
    assert_eq!(host.deliver(id, STRANGER, b"early"), Ok(()));
    assert_eq!(host.deliver(id, SERVER, b"right"), Ok(()));
    assert!(host.sockets.connect(&mut host.pool, id, SERVER, None));
    assert_eq!(host.recv(id), Ok((b"right".to_vec(), SERVER)));
    assert_eq!(host.recv(id), Err(RecvError::WouldBlock));
    assert_eq!(host.sockets.lookup(local, STRANGER), None);
    assert_eq!(host.sockets.lookup(local, SERVER), Some(id));
    assert_eq!(host.send(id, None), Ok(()));
    host.close(&[id]);
}

#[test]
fn a_socket_that_is_not_read_keeps_neither_more_than_its_queue_nor_the_last_chunks() {
    let mut host = Host::new();
    let ids: Vec<_> = (0..4).map(|_| host.bind(US, 0)).collect();
    for &id in &ids {
        for n in 0..MAX_QUEUED + 10 {
            let expected = if n < MAX_QUEUED { Ok(()) } else { Err(DropReason::UdpQueueFull) };
            assert_eq!(host.deliver(id, SERVER, &[n as u8]), expected);
        }
    }
    assert!(host.pool.available() >= CHUNKS / PRESSURE_DIVISOR - 1, "{} left", host.pool.available());
    for &id in &ids {
        for n in 0..MAX_QUEUED {
            assert_eq!(host.recv(id), Ok((vec![n as u8], SERVER)));
        }
    }
    assert_eq!(host.pool.available(), CHUNKS);
    host.close(&ids);
}

#[test]
fn sending_leaves_a_reserve() {
    let mut host = Host::new();
    let id = host.bind(US, 0);
    let mut frames = Vec::new();
    let refused = loop {
        match host.sockets.send(&mut host.pool, id, Some(SERVER), PATH, b"x") {
            Ok(out) => frames.push(out.frame),
            Err(error) => break error,
        }
    };
    assert_eq!((refused, host.pool.available()), (SendError::WouldBlock, SEND_RESERVE));
    frames.into_iter().for_each(|frame| host.pool.release_tx(frame));
    host.close(&[id]);
}

#[test]
fn rfc1122_4_1_3_3_an_error_reaches_the_socket_that_sent() {
    let mut host = Host::new();
    let (asked, idle) = (host.bind(US, 0), host.bind(US, 0));
    assert_eq!(host.send(asked, Some(SERVER)), Ok(()));
    assert_eq!(host.error(asked, ErrorKind::PortUnreachable, SERVER), Ok(asked));
    let refused = NetworkError::Refused { remote: SERVER };
    assert_eq!(host.recv(asked), Err(RecvError::Network(refused)));
    assert_eq!(host.recv(asked), Err(RecvError::WouldBlock), "it is told once");

    // Nobody sent these.
    assert_eq!(host.error(asked, ErrorKind::PortUnreachable, STRANGER), Err(DropReason::IcmpUnmatched));
    assert_eq!(host.error(idle, ErrorKind::PortUnreachable, SERVER), Err(DropReason::IcmpUnmatched));

    let local = host.sockets.local(asked).expect("open");
    assert_eq!(host.sockets.handle_no_neighbour(local, SERVER), Some(asked));
    let unreachable = NetworkError::HostUnreachable { remote: SERVER };
    assert_eq!(host.send(asked, Some(SERVER)), Err(SendError::Network(unreachable)));
    assert_eq!(host.send(asked, Some(SERVER)), Ok(()));
    host.close(&[asked, idle]);
}

#[test]
fn a_closed_socket_says_so_and_its_name_is_not_used_again() {
    let mut host = Host::new();
    let id = host.bind(US, 5_000);
    assert_eq!(host.send(id, None), Err(SendError::NoDestination));
    assert_eq!(host.deliver(id, SERVER, b"late"), Ok(()));
    host.sockets.close(&mut host.pool, id);
    assert_eq!(host.deliver(id, SERVER, b"later"), Err(DropReason::UdpNoSocket));
    assert_eq!(host.recv(id), Err(RecvError::Closed));
    assert_eq!(host.send(id, Some(SERVER)), Err(SendError::Closed));
    assert!(!host.sockets.connect(&mut host.pool, id, SERVER, None));
    let again = host.bind(US, 5_000);
    assert_ne!(again, id);
    host.close(&[again]);
}
