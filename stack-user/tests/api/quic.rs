//! What QUIC wants of a socket: many datagrams at once, codepoints, and quinn itself.

use std::{io::IoSliceMut, sync::Arc, time::Duration};

use quinn::{ClientConfig, ServerConfig};
use rustls::{RootCertStore, pki_types::PrivateKeyDer};

use stack_user::{
    api::{UdpSocket, connectors::quinn::endpoint},
    wire::Ecn,
};

use crate::{A, B, link, soon, streams::pattern};

#[tokio::test]
async fn many_datagrams_go_and_come_at_once_with_their_codepoints() {
    let (a, b) = soon("claiming", link()).await;
    let client = UdpSocket::bind(&a, (A, 0).into()).await.unwrap();
    let server = UdpSocket::bind(&b, (B, 4433).into()).await.unwrap();
    let datagrams = [&b"one"[..], b"", b"three"];
    assert_eq!(client.try_send_many(datagrams, (B, 4433).into(), None, Ecn::Ect0).unwrap(), 3);
    assert_eq!(client.try_send_many([&b"four"[..]], (B, 4433).into(), None, Ecn::Ce).unwrap(), 1);
    let (mut got, mut codepoints) = (Vec::new(), Vec::new());
    while got.len() < 4 {
        let mut memory = [[0; 16]; 3];
        let mut bufs = memory.each_mut().map(|buf| IoSliceMut::new(buf));
        let mut received = Vec::new();
        let n = soon("datagrams", server.recv_many(&mut bufs, &mut received)).await.unwrap();
        assert_eq!(n, received.len());
        for (datagram, buf) in received.iter().zip(&memory) {
            assert_eq!((datagram.from, datagram.to), (client.local_addr(), B.into()));
            got.push(buf[..datagram.len].to_vec());
            codepoints.push(datagram.ecn);
        }
    }
    assert_eq!(got, [&b"one"[..], b"", b"three", b"four"]);
    assert_eq!(codepoints, [Ecn::Ect0, Ecn::Ect0, Ecn::Ect0, Ecn::Ce]);
    // What is too long is an error if it is the first, and the end of the row if not.
    let long = vec![0; 2_000];
    client.try_send_many([&long[..]], (B, 4433).into(), None, Ecn::NotEct).unwrap_err();
    assert_eq!(
        client.try_send_many([b"x", &long[..], b"y"], (B, 4433).into(), None, Ecn::NotEct).unwrap(),
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quinn_speaks_over_our_sockets() {
    let (a, b) = soon("claiming", link()).await;
    let identity = rcgen::generate_simple_self_signed(["b".into()]).unwrap();
    let certificate = identity.cert.der().clone();
    let key = PrivateKeyDer::try_from(identity.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::with_single_cert(vec![certificate.clone()], key).unwrap();
    let mut authorities = RootCertStore::empty();
    authorities.add(certificate).unwrap();
    let trust = ClientConfig::with_root_certificates(Arc::new(authorities)).unwrap();

    let server = endpoint(UdpSocket::bind(&b, (B, 4433).into()).await.unwrap(), Some(config)).unwrap();
    let client = endpoint(UdpSocket::bind(&a, (A, 0).into()).await.unwrap(), None).unwrap();
    assert_eq!(server.local_addr().unwrap(), (B, 4433).into());
    let connecting = client.connect_with(trust.clone(), (B, 4433).into(), "b").unwrap();
    let accepting = async { server.accept().await.unwrap().await.unwrap() };
    let (ours, theirs) = soon("a handshake", async { tokio::join!(connecting, accepting) }).await;
    let ours = ours.unwrap();
    // Two streams of many more bytes than there are frames for.
    let sent = pattern(1_000_000);
    for _ in 0..2 {
        let mut send = ours.open_uni().await.unwrap();
        let sends = async {
            send.write_all(&sent).await.unwrap();
            send.finish().unwrap();
        };
        let receives = async { theirs.accept_uni().await.unwrap().read_to_end(2_000_000).await.unwrap() };
        let ((), received) =
            tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(sends, receives) })
                .await
                .expect("the transfer is bounded");
        assert!(received == sent);
    }
    assert_eq!(theirs.remote_address(), client.local_addr().unwrap());
    ours.close(0_u8.into(), b"done");

    // That nobody is there, as ICMP says, is one peer's fault: the endpoint goes on.
    let nobody = client.connect_with(trust.clone(), (B, 9).into(), "b").unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(300), nobody).await.is_err());
    let connecting = client.connect_with(trust, (B, 4433).into(), "b").unwrap();
    let accepting = async { server.accept().await.unwrap().await.unwrap() };
    let (again, _theirs) = soon("another handshake", async { tokio::join!(connecting, accepting) }).await;
    again.unwrap();
}
