//! Servers to fetch from: scripted ones that send exact bytes, and hyper's, which behaves.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// How a scripted server ends a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// FIN.
    Close,
    /// RST.
    Reset,
    /// Not at all.
    Hang,
}

/// A server that answers every connection's first request with `bytes` and then ends it. Returns `http://ADDRESS`.
pub(crate) async fn scripted(bytes: impl Into<Vec<u8>>, end: End) -> String {
    let (listener, address) = listen().await;
    let script = bytes.into();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, script.clone(), end));
        }
    });
    format!("http://{address}")
}

async fn answer(mut stream: TcpStream, script: Vec<u8>, end: End) {
    let mut request = Vec::new();
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        if stream.read_buf(&mut request).await.is_ok_and(|n| n > 0) {
            continue;
        }
        return;
    }
    // The client may hang up in the middle.
    let _ = stream.write_all(&script).await;
    match end {
        End::Close => {}
        End::Reset => reset(stream).await,
        End::Hang => std::future::pending().await,
    }
}

/// Closes with RST, once the peer has had the time to read what was sent.
async fn reset(stream: TcpStream) {
    tokio::time::sleep(Duration::from_millis(100)).await;
    let _ = stream.set_zero_linger();
}

/// What hyper's server saw.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

/// A well-behaved server.
pub(crate) struct Web {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
    pub(crate) connections: Arc<AtomicUsize>,
}

impl Web {
    /// `/status/N[?LOCATION]`, `/bytes/N`, `/echo`; else a page.
    pub(crate) async fn start() -> Self {
        let (listener, address) = listen().await;
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let connections = Arc::<AtomicUsize>::default();
        let web = Self { address, seen: seen.clone(), connections: connections.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                let seen = seen.clone();
                let service = service_fn(move |request| serve(request, seen.clone()));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        web
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("seen").clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn serve(
    request: Request<Incoming>,
    seen: Arc<Mutex<Vec<Seen>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let path = parts.uri.path().to_owned();
    seen.lock().expect("seen").push(Seen {
        method: parts.method.to_string(),
        path: path.clone(),
        headers: parts.headers,
        body: body.clone(),
    });
    let response = Response::builder();
    let response = match path.split('/').collect::<Vec<_>>()[..] {
        ["", "status", status] => {
            let response = response.status(status.parse::<u16>().expect("status"));
            let response = match parts.uri.query() {
                Some(location) => response.header("Location", location),
                None => response,
            };
            response.body(Full::from("status\n"))
        }
        ["", "bytes", count] => response.body(Full::from(pattern(count.parse().expect("count")))),
        ["", "echo"] => response.body(Full::new(body)),
        _ => response.header("X-Server", "test").body(Full::from("<p>page</p>\n")),
    };
    Ok(response.expect("response"))
}

/// Bytes of all values, in an order that shows a piece that is missing or twice there.
pub(crate) fn pattern(count: usize) -> Vec<u8> {
    (0..count).map(|index| (index * 31 + index / 251) as u8).collect()
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bind");
    let address = listener.local_addr().expect("address");
    (listener, address)
}

/// An address that refuses, for as long as this lives: bound, so that no other test gets it, and not listening.
pub(crate) struct Refusing {
    _socket: TcpSocket,
    pub(crate) url: String,
}

impl Refusing {
    pub(crate) fn new() -> Self {
        let socket = TcpSocket::new_v4().expect("socket");
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("bind");
        let url = format!("http://{}/", socket.local_addr().expect("address"));
        Self { _socket: socket, url }
    }
}
