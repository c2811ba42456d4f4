//! A stack that is killed and started again: what its peers still have of it is in nobody's way.

use super::*;

const PORT: u16 = 4_000;

/// A, with the key that all its lives have, and B, which listens at port 80.
fn living() -> (Link, ListenerId) {
    let mut link = Link::new();
    link.a.set_secret(SecretKey::from_bytes([7; 16]));
    let listener = link.b.tcp_listen(link.now, to(B, 80), 5).expect("a listener");
    (link, listener)
}

/// A connects from the port that it always uses. Returns B's end.
fn connected(link: &mut Link, listener: ListenerId, within: Duration) -> TcpId {
    let (client, _) =
        link.a.tcp_connect_with(link.now, Some(to(A, PORT)), to(B, 80), None).expect("a connection");
    link.run(within);
    assert_eq!(link.a.tcp(client).map(|c| c.state()), Some(State::Established));
    link.b.tcp_accept(link.now, listener).expect("a connection").0
}

/// A's next life, which remembers nothing but its key and the time.
fn restart(link: &mut Link, seed: u64) {
    let umem = Umem::on_heap(CHUNKS).expect("memory");
    let mac = MacAddr([2, 0, 0, 0, 0, 1]);
    link.a = Stack::new(link.now, mac, None, umem, Rng::from_seed(seed));
    link.a.set_secret(SecretKey::from_bytes([7; 16]));
    claim(&mut link.a, link.now, A);
    link.run(Duration::from_millis(400));
}

/// RFC 9293 §3.5.1: the peer's challenge is reset, and the SYN that follows opens a new connection, long before a time-out.
#[test]
fn a_peer_that_has_the_old_connection_takes_a_new_one_at_once_rfc9293_3_5_1() {
    let (mut link, listener) = living();
    let old = connected(&mut link, listener, Duration::from_millis(20));
    restart(&mut link, 50);
    connected(&mut link, listener, Duration::from_millis(20));
    assert_eq!(link.b.tcp(old).and_then(|c| c.error()), Some(Error::Reset));
}

/// RFC 6191 §2 and RFC 6528 §3: sequence numbers and timestamps go on across lives, whatever the rest of the randomness is.
#[test]
fn a_peer_in_time_wait_takes_a_connection_of_the_next_life_at_once_rfc6528_3() {
    for seed in 50..60 {
        let (mut link, listener) = living();
        let old = connected(&mut link, listener, Duration::from_millis(20));
        let (client, _) = link.a.tcp_connections().next().expect("a connection");
        link.b.tcp_close(link.now, old);
        link.run(Duration::from_millis(20));
        link.a.tcp_close(link.now, client);
        link.run(Duration::from_millis(20));
        assert_eq!(link.b.tcp_time_waits().count(), 1);
        restart(&mut link, seed);
        // A round trip and a little: no reset, and no SYN again.
        connected(&mut link, listener, Duration::from_millis(6));
        assert_eq!(link.b.drops().get(DropReason::TcpNoConnection), 0);
    }
}

/// RFC 9293 §3.10.7.1: who speaks to an earlier life learns at once that it is over.
#[test]
fn what_a_peer_sends_to_an_earlier_life_is_reset_rfc9293_3_10_7_1() {
    let (mut link, listener) = living();
    let old = connected(&mut link, listener, Duration::from_millis(20));
    restart(&mut link, 50);
    link.b.tcp_write(link.now, old, b"are you there?").expect("writes");
    link.run(Duration::from_millis(20));
    assert_eq!(link.b.tcp(old).and_then(|c| c.error()), Some(Error::Reset));
}
