//! Several shards, over several wires in memory.

use super::*;

/// A stack of two shards, and a peer on each one's wire: 10.0.0.1 and .2 are its own, the peers .11 and .12.
async fn two_shards() -> (Stack, [Stack; 2]) {
    let clock = Clock::new();
    let (one, far_one) = memory::pair(memory::Options::default());
    let (two, far_two) = memory::pair(memory::Options::default());
    let peers =
        [start(far_one, 11, Ipv4Addr::new(10, 0, 0, 11)), start(far_two, 12, Ipv4Addr::new(10, 0, 0, 12))];
    let shards: Vec<(_, Box<dyn Device>)> =
        vec![(stack(clock, 1, A), Box::new(one)), (stack(clock, 2, B), Box::new(two))];
    let stack = Stack::over_all(shards, clock).unwrap();
    for part in [&stack.on_shard(0).unwrap(), &stack.on_shard(1).unwrap(), &peers[0], &peers[1]] {
        while part.address().is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    (stack, peers)
}

#[tokio::test]
async fn a_listener_accepts_on_every_shard_and_a_restricted_one_on_its_own() {
    let (stack, [one, two]) = soon("claiming", two_shards()).await;
    assert_eq!((stack.shard_count(), stack.on_shard(1).unwrap().shard_count()), (2, 1));
    assert!(stack.on_shard(2).is_none() && stack.on_shard(1).unwrap().on_shard(1).is_none());
    let listener = TcpListener::bind(&stack, ([0, 0, 0, 0], 80).into()).await.unwrap();
    let taken = TcpListener::bind(&stack, ([0, 0, 0, 0], 80).into()).await.unwrap_err();
    assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    for _ in 0..3 {
        let clients = [
            TcpStream::connect(&one, (A, 80).into()).await.unwrap(),
            TcpStream::connect(&two, (B, 80).into()).await.unwrap(),
        ];
        let mut locals: Vec<IpAddr> = Vec::new();
        for _ in &clients {
            let (mut accepted, _) = soon("a connection", listener.accept()).await.unwrap();
            accepted.write_all(b"hello").await.unwrap();
            locals.push(accepted.local_addr().ip());
        }
        locals.sort();
        assert_eq!(locals, [A, B]);
        for mut client in clients {
            let mut got = String::new();
            client.read_to_string(&mut got).await.unwrap();
            assert_eq!(got, "hello");
        }
    }
    drop(listener);
    let only = stack.on_shard(1).unwrap();
    let listener = TcpListener::bind(&only, (B, 80).into()).await.unwrap();
    let refused = TcpStream::connect(&one, (A, 80).into()).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    let _client = TcpStream::connect(&two, (B, 80).into()).await.unwrap();
    soon("a connection", listener.accept()).await.unwrap();
}

#[tokio::test]
async fn a_socket_receives_on_every_shard() {
    let (stack, [one, two]) = soon("claiming", two_shards()).await;
    let socket = UdpSocket::bind(&stack, ([0, 0, 0, 0], 53).into()).await.unwrap();
    let clients = [
        UdpSocket::bind(&one, ([0, 0, 0, 0], 0).into()).await.unwrap(),
        UdpSocket::bind(&two, ([0, 0, 0, 0], 0).into()).await.unwrap(),
    ];
    for round in 0..3_u8 {
        clients[0].send_to(&[round, 1], (A, 53).into()).await.unwrap();
        clients[1].send_to(&[round, 2], (B, 53).into()).await.unwrap();
        let mut got = Vec::new();
        for _ in &clients {
            let mut peeked = [0; 2];
            soon("a datagram", socket.peek_from(&mut peeked)).await.unwrap();
            let mut buf = [0; 2];
            soon("a datagram", socket.recv_from(&mut buf)).await.unwrap();
            assert_eq!(peeked, buf, "what was looked at is what comes first");
            got.push(buf);
        }
        got.sort_unstable();
        assert_eq!(got, [[round, 1], [round, 2]]);
    }
}
