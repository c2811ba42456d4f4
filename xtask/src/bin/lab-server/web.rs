//! The lab's web server, by hyper.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{ALLOW, CONTENT_TYPE, LOCATION};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;

use crate::pages::{self, Page};

/// Large enough to keep the socket's buffer full, small enough to be generated in no time.
const PIECE: u64 = 64 << 10;

type Answer = Response<BoxBody<Bytes, Cut>>;

pub(crate) async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("the web server cannot listen on {address}"))
}

/// Serves for ever.
pub(crate) async fn serve(listener: TcpListener) -> Result<()> {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve_connection(stream));
            }
            // A client that went away before it was accepted, or too many open files: both pass.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn serve_connection(stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service_fn(answer));
    let outcome = Pin::new(&mut connection).await;
    if let Err(error) = &outcome
        && was_cut_with_reset(error)
    {
        // Closing with linger 0 sends a RST instead of a FIN.
        let _ = connection.into_parts().io.into_inner().set_zero_linger();
    }
}

fn was_cut_with_reset(error: &hyper::Error) -> bool {
    let cut = std::error::Error::source(error).and_then(|source| source.downcast_ref::<Cut>());
    matches!(cut, Some(Cut::Reset))
}

async fn answer(request: Request<Incoming>) -> Result<Answer, Infallible> {
    let Some(page) = Page::parse(request.uri().path()) else {
        return Ok(text(StatusCode::NOT_FOUND, format!("There is nothing here. There is:\n{}", pages::LIST)));
    };
    if request.method() == Method::POST && page != Page::Echo && page != Page::Headers {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "POST is for /echo and /headers\n");
        answer.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return Ok(answer);
    }
    Ok(match page {
        Page::Home => home(),
        Page::Bytes(length) => Response::new(Generated::new(length).known().boxed()),
        Page::Chunked(length) => Response::new(Generated::new(length).boxed()),
        Page::Slow(wait) => {
            tokio::time::sleep(wait).await;
            home()
        }
        Page::Drip { bytes, pause } => Response::new(Generated::new(bytes).known().dripping(pause).boxed()),
        Page::Redirect(0) => home(),
        Page::Redirect(count) => redirect(count - 1),
        Page::Status(code) => {
            let status = StatusCode::from_u16(code).unwrap_or(StatusCode::OK);
            text(status, format!("{status}\n"))
        }
        Page::Echo => match request.into_body().collect().await {
            Ok(body) => Response::new(full(body.to_bytes())),
            Err(error) => text(StatusCode::BAD_REQUEST, format!("the body did not come: {error}\n")),
        },
        Page::Headers => text(StatusCode::OK, describe(&request)),
        Page::Reset(length) => Response::new(Generated::new(length).known().cut(Cut::Reset).boxed()),
        Page::Truncated(length) => Response::new(Generated::new(length).known().cut(Cut::Close).boxed()),
        Page::Silent => std::future::pending().await,
    })
}

fn home() -> Answer {
    let mut answer = Response::new(full(pages::HOME));
    answer.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("text/html"));
    answer
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(full(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("text/plain"));
    answer
}

fn redirect(left: u32) -> Answer {
    let mut answer = text(StatusCode::FOUND, "over there\n");
    if let Ok(location) = format!("/redirect/{left}").parse() {
        answer.headers_mut().insert(LOCATION, location);
    }
    answer
}

fn describe(request: &Request<Incoming>) -> String {
    let mut lines = format!("{} {} {:?}\n", request.method(), request.uri(), request.version());
    for (name, value) in request.headers() {
        lines.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
    }
    lines
}

fn full(bytes: impl Into<Bytes>) -> BoxBody<Bytes, Cut> {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// Why a body ends before its promised length.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Close,
    Reset,
}

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the body is cut short, as was asked for")
    }
}

impl std::error::Error for Cut {}

/// A body made of [`pages::byte_at`], piece by piece: its size costs no memory.
struct Generated {
    at: u64,
    length: u64,
    piece: u64,
    length_is_known: bool,
    pause: Option<(Duration, Pin<Box<Sleep>>)>,
    cut: Option<Cut>,
}

impl Generated {
    fn new(length: u64) -> Self {
        Self { at: 0, length, piece: PIECE, length_is_known: false, pause: None, cut: None }
    }

    /// With a Content-Length.
    fn known(mut self) -> Self {
        self.length_is_known = true;
        self
    }

    fn dripping(mut self, pause: Duration) -> Self {
        self.piece = 1;
        self.pause = Some((pause, Box::pin(tokio::time::sleep(Duration::ZERO))));
        self
    }

    /// Ends half-way.
    fn cut(mut self, cut: Cut) -> Self {
        self.cut = Some(cut);
        // A cut that follows in the same breath would overtake the bytes that are still in hyper's buffer.
        self.pause = Some((Duration::from_millis(50), Box::pin(tokio::time::sleep(Duration::ZERO))));
        self
    }
}

impl Body for Generated {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let end = if self.cut.is_some() { self.length / 2 } else { self.length };
        if self.at == end && self.cut.is_none() {
            return Poll::Ready(None);
        }
        if let Some((pause, sleep)) = &mut self.pause {
            ready!(sleep.as_mut().poll(context));
            let next = tokio::time::Instant::now() + *pause;
            sleep.as_mut().reset(next);
        }
        if self.at == end {
            return Poll::Ready(self.cut.map(Err));
        }
        let length = (end - self.at).min(self.piece);
        let piece = pages::bytes(self.at, length as usize);
        self.at += length;
        Poll::Ready(Some(Ok(Frame::data(piece.into()))))
    }

    fn size_hint(&self) -> SizeHint {
        if self.length_is_known { SizeHint::with_exact(self.length - self.at) } else { SizeHint::default() }
    }
}
