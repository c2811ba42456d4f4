//! Targets by name, and the connections of a listener as a stream.

use std::{io, net::SocketAddr, time::Duration};

use futures_util::{StreamExt, TryStreamExt};
use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use stack_user::api::{
    Resolver, TcpListener, TcpStream,
    connectors::hyper::{Connector, Ends},
    lookup_host,
};

use crate::{B, link, name_server, soon};

#[tokio::test]
async fn every_address_is_tried_in_order() {
    let (a, b) = soon("claiming", link()).await;
    let resolver = Resolver::new(&a, &[B.into()]).unwrap();
    let first = TcpListener::bind(&b, (B, 80).into()).await.unwrap();
    let second = TcpListener::bind(&b, (B, 81).into()).await.unwrap();
    let addresses: Vec<SocketAddr> = [79, 80, 81].map(|port| (B, port).into()).into();
    let stream = soon("connecting", TcpStream::connect_host(&resolver, &addresses)).await.unwrap();
    assert_eq!(stream.peer_addr(), (B, 80).into(), "the first that answers");
    soon("accepting", first.accept()).await.unwrap();
    drop((first, second));
    let refused = soon("a refusal", TcpStream::connect_host(&resolver, &addresses)).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{refused}");
    let none: Vec<SocketAddr> = Vec::new();
    let error = TcpStream::connect_host(&resolver, none).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
}

#[tokio::test]
async fn a_host_and_a_port_are_looked_up() {
    let (a, b) = soon("claiming", link()).await;
    let server = tokio::spawn(name_server(b, 0));
    let resolver = Resolver::new(&a, &[B.into()]).unwrap();
    let found: Vec<_> = soon("an answer", lookup_host(&resolver, "example.com:80")).await.unwrap().collect();
    assert_eq!(found, [SocketAddr::from(([192, 0, 2, 80], 80))]);
    let unknown = soon("an answer", lookup_host(&resolver, ("nowhere.example", 80))).await.unwrap_err();
    assert_eq!(unknown.kind(), io::ErrorKind::NotFound, "{unknown}");
    assert!(unknown.to_string().contains("nowhere.example"), "{unknown}");
    // There is no route to it, and that is what the caller hears.
    let error = soon("an error", TcpStream::connect_host(&resolver, "example.com:80")).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NetworkUnreachable, "{error}");
    server.abort();
}

#[tokio::test]
async fn connections_come_as_a_stream_until_the_listener_is_shut_down() {
    let (a, b) = soon("claiming", link()).await;
    let listener = TcpListener::bind(&b, (B, 80).into()).await.unwrap();
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(soon("connecting", TcpStream::connect(&a, (B, 80).into())).await.unwrap());
    }
    let first = soon("the first", listener.incoming().next()).await.unwrap().unwrap();
    assert_eq!(first.peer_addr(), clients[0].local_addr());
    let connections = listener.into_incoming();
    let mut two = connections.take(2);
    for client in &clients[1..] {
        let accepted = soon("the others", two.try_next()).await.unwrap().unwrap();
        assert_eq!(accepted.peer_addr(), client.local_addr());
    }
    let mut connections = two.into_inner();
    drop((clients, first));
    let ((), error) = tokio::join!(b.shut_down(Duration::from_secs(1)), soon("the end", connections.next()));
    error.unwrap().unwrap_err();
    assert!(connections.next().await.is_none(), "nothing comes after an error");
}

#[tokio::test]
async fn hypers_client_connects_through_us_and_tells_the_ends() {
    let (a, b) = soon("claiming", link()).await;
    let listener = TcpListener::bind(&b, (B, 8080).into()).await.unwrap();
    let connector = Connector::new(Resolver::new(&a, &[B.into()]).unwrap());
    let client = Client::builder(TokioExecutor::new()).build::<_, Empty<bytes::Bytes>>(connector);
    let serves = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4_096];
        let n = stream.read(&mut request).await.unwrap();
        assert!(request[..n].starts_with(b"GET /x HTTP/1.1\r\nhost: 10.0.0.2:8080\r\n"), "{request:?}");
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await.unwrap();
        (stream.peer_addr(), stream)
    };
    let asks = client.get("http://10.0.0.2:8080/x".parse().unwrap());
    let ((local, _stream), response) = soon("a response", async { tokio::join!(serves, asks) }).await;
    let response = response.unwrap();
    assert_eq!(response.extensions().get(), Some(&Ends { local, remote: (B, 8080).into() }));
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hi");
}

/// What was meant to be encrypted must not go out in the clear.
#[tokio::test]
async fn https_is_refused_unless_somebody_above_speaks_it() {
    let (a, b) = soon("claiming", link()).await;
    let listener = TcpListener::bind(&b, (B, 443).into()).await.unwrap();
    let mut connector = Connector::new(Resolver::new(&a, &[B.into()]).unwrap());
    let uri: http::Uri = "https://10.0.0.2/".parse().unwrap();
    let refused = tower::Service::call(&mut connector, uri.clone()).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{refused}");
    connector.enforce_http(false);
    soon("connecting", tower::Service::call(&mut connector, uri)).await.unwrap();
    soon("accepting", listener.accept()).await.unwrap();
}

#[tokio::test]
async fn axum_serves_on_our_listener_and_knows_the_peers() {
    use axum::{Router, extract::ConnectInfo, routing::get, serve::ListenerExt};
    use stack_user::api::connectors::axum::Peer;

    let (a, b) = soon("claiming", link()).await;
    let ours = TcpListener::bind(&b, (B, 80).into()).await.unwrap();
    let router = Router::new().route("/", get(|ConnectInfo(Peer(peer))| async move { peer.to_string() }));
    tokio::spawn(async { axum::serve(ours, router.into_make_service_with_connect_info::<Peer>()).await });
    // With a listener that is tapped, an address will do.
    let tapped =
        TcpListener::bind(&b, (B, 81).into()).await.unwrap().tap_io(|stream| stream.set_nodelay(true));
    let router = Router::new()
        .route("/", get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() }));
    let served = tokio::spawn(async {
        axum::serve(tapped, router.into_make_service_with_connect_info::<SocketAddr>()).await
    });
    let connector = Connector::new(Resolver::new(&a, &[B.into()]).unwrap());
    let client = Client::builder(TokioExecutor::new()).build::<_, Empty<bytes::Bytes>>(connector);
    for uri in ["http://10.0.0.2/", "http://10.0.0.2:81/"] {
        let response = soon("a response", client.get(uri.parse().unwrap())).await.unwrap();
        let Ends { local, .. } = *response.extensions().get().unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), local.to_string());
    }
    // When nothing can come any more, the server waits: it does not spin, and does not end.
    drop(client);
    soon("shutting down", b.shut_down(Duration::from_secs(1))).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!served.is_finished());
}
