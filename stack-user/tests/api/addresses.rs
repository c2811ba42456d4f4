//! Addresses that come and go while the stack runs.

use stack_user::api::{AddressChoice, StartError, TcpSocket};

use super::*;

const A2: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
const SHORT: stack_user::time::Duration = stack_user::time::Duration::from_millis(100);

fn given(address: Ipv4Addr) -> AddressChoice {
    AddressChoice::Given { address, prefix_len: None }
}

/// That what one end writes arrives at the other.
async fn assert_connected(one: &mut TcpStream, other: &mut TcpStream) {
    one.write_all(b"hello").await.unwrap();
    let mut buf = [0; 5];
    soon("hello", other.read_exact(&mut buf)).await.unwrap();
}

#[tokio::test]
async fn an_address_is_claimed_and_released_while_others_go_on() {
    let (a, b) = soon("claiming", link()).await;
    let listener = TcpListener::bind(&a, (Ipv4Addr::UNSPECIFIED, 80).into()).await.unwrap();
    let mut kept = TcpStream::connect(&b, (A, 80).into()).await.unwrap();
    let (mut kept_here, _) = listener.accept().await.unwrap();
    assert_eq!(soon("claiming", a.claim(given(A2))).await.unwrap(), IpAddr::from(A2));
    assert_eq!(a.addresses(), [IpAddr::from(A), A2.into()]);
    let mut ended = TcpStream::connect(&b, (A2, 80).into()).await.unwrap();
    let (mut ended_here, _) = listener.accept().await.unwrap();
    assert_eq!(ended_here.local_addr().ip(), IpAddr::from(A2));
    assert_connected(&mut ended, &mut ended_here).await;
    let only = TcpListener::bind(&a, (A2, 81).into()).await.unwrap();
    let socket = UdpSocket::bind(&a, (A2, 7).into()).await.unwrap();

    assert!(soon("releasing", a.release(A2.into(), SHORT)).await.unwrap());
    assert_eq!(a.addresses(), [IpAddr::from(A)]);
    assert_eq!(
        soon("a reset", ended.read(&mut [0])).await.unwrap_err().kind(),
        io::ErrorKind::ConnectionReset
    );
    assert_eq!(ended_here.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    assert!(soon("the news", only.accept()).await.is_err());
    assert_eq!(socket.recv_from(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
    assert_connected(&mut kept, &mut kept_here).await;
    assert!(!a.release(A2.into(), SHORT).await.unwrap(), "it was released");
    let refused = TcpListener::bind(&a, (A2, 80).into()).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::AddrNotAvailable, "{refused}");
}

#[tokio::test]
async fn connections_may_finish_before_their_address_goes() {
    let (a, b) = soon("claiming", link()).await;
    soon("claiming", a.claim(given(A2))).await.unwrap();
    let listener = TcpListener::bind(&a, (A2, 80).into()).await.unwrap();
    let mut client = TcpStream::connect(&b, (A2, 80).into()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let releasing = tokio::spawn({
        let a = a.clone();
        async move { a.release(A2.into(), Duration::from_secs(60)).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(a.address_states()[1], (A2.into(), AddressEvent::Leaving));
    assert_connected(&mut client, &mut server).await;
    assert_connected(&mut server, &mut client).await;
    client.shutdown().await.unwrap();
    assert_eq!(soon("the end", server.read(&mut [0])).await.unwrap(), 0);
    drop(server);
    assert_eq!(soon("the end", client.read(&mut [0])).await.unwrap(), 0, "in order");
    assert!(soon("releasing", releasing).await.unwrap().unwrap());
    assert_eq!(a.addresses(), [IpAddr::from(A)]);
}

#[tokio::test]
async fn the_grace_of_a_release_ends_with_it_when_the_address_is_claimed_again() {
    let (a, b) = soon("claiming", link()).await;
    soon("claiming", a.claim(given(A2))).await.unwrap();
    let listener = TcpListener::bind(&a, (Ipv4Addr::UNSPECIFIED, 80).into()).await.unwrap();
    let mut client = TcpStream::connect(&b, (A2, 80).into()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let release = |grace| {
        let a = a.clone();
        tokio::spawn(async move { a.release(A2.into(), grace).await })
    };
    let first = release(SHORT * 3);
    tokio::time::sleep(Duration::from_millis(50)).await;
    soon("keeping", a.claim(given(A2))).await.unwrap();
    let second = release(SHORT * 600);
    assert!(soon("the first release", first).await.unwrap().unwrap());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(a.address_states()[1], (A2.into(), AddressEvent::Leaving));
    assert_connected(&mut client, &mut server).await;
    assert_connected(&mut server, &mut client).await;
    drop((client, server));
    assert!(soon("the second release", second).await.unwrap().unwrap());
    assert_eq!(a.addresses(), [IpAddr::from(A)]);
}

#[tokio::test]
async fn an_address_that_somebody_has_is_refused_by_name_and_costs_nothing() {
    let (a, b) = soon("claiming", link()).await;
    let error = soon("refusing", a.claim(given(B))).await.unwrap_err();
    assert!(matches!(error, StartError::AddressInUse { address: B, .. }), "{error}");
    assert_eq!(a.address_states(), [(A.into(), AddressEvent::Claimed)]);
    let again = soon("refusing", a.claim(given(A))).await.unwrap_err();
    assert!(again.to_string().contains("10.0.0.1 is claimed by this stack already"), "{again}");
    let elsewhere = a.claim(given(Ipv4Addr::new(192, 0, 2, 1))).await.unwrap_err();
    assert!(matches!(elsewhere, StartError::OutsideNetworks { .. }), "{elsewhere}");
    // Those two can still talk.
    let _listener = TcpListener::bind(&b, (B, 80).into()).await.unwrap();
    soon("connecting", TcpStream::connect(&a, (B, 80).into())).await.unwrap();
}

#[tokio::test]
async fn a_claim_that_is_dropped_is_withdrawn() {
    let (a, _b) = soon("claiming", link()).await;
    let claim = tokio::time::timeout(Duration::from_millis(50), a.claim(given(A2))).await;
    assert!(claim.is_err(), "it takes longer");
    assert_eq!(a.address_states(), [(A.into(), AddressEvent::Claimed)]);
    let auto = soon("claiming", a.claim(AddressChoice::Auto)).await.unwrap();
    assert_eq!(a.addresses(), [A.into(), auto], "any that is free");
}

#[tokio::test]
async fn a_socket_chooses_among_the_addresses() {
    let (a, b) = soon("claiming", link()).await;
    soon("claiming", a.claim(given(A2))).await.unwrap();
    let listener = TcpListener::bind(&b, (B, 80).into()).await.unwrap();
    for (bound, source) in [(None, A), (Some(A2), A2), (Some(Ipv4Addr::UNSPECIFIED), A)] {
        let mut socket = TcpSocket::new(&a);
        if let Some(bound) = bound {
            socket.bind((bound, 0).into());
        }
        let _client = soon("connecting", socket.connect((B, 80).into())).await.unwrap();
        assert_eq!(listener.accept().await.unwrap().1.ip(), IpAddr::from(source));
    }
    let mut foreign = TcpSocket::new(&a);
    foreign.bind((B, 0).into());
    let error = foreign.connect((B, 80).into()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable, "{error}");
    assert!(error.to_string().contains("10.0.0.2"), "{error}");
}
