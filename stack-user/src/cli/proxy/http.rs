//! A client that speaks HTTP/1.1: tunnels by CONNECT (RFC 9110 §9.3.6), and requests for `http://` URLs that are passed
//! on (RFC 9112 §3.2.2).

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use data_encoding::BASE64;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::{Duration, Instant};
use tokio_util::task::AbortOnDropHandle;
use url::Host;

use super::client::Client;
use super::serve::Proxy;
use crate::cli::network::{Connection, Network};
use crate::cli::relay::outgoing::Outgoing;
use crate::cli::relay::{Accepted, DialError};
use crate::telemetry::STORY;

/// The longest request line and headers together, as nginx has it. Smaller, and the cookies of some sites do not fit;
/// larger, and a stranger makes every connection cost that much.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// Who passed it on (RFC 9110 §7.6.3).
const VIA: HeaderValue = HeaderValue::from_static("1.1 xstack");

/// What concerns one connection only, and is not passed on (RFC 9110 §7.6.1). hyper writes its own framing.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
];

type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// Serves it to its end. A client must never take a part for the whole: a connection that does not end in order is reset.
pub(super) async fn serve<N: Network, S: Connection>(
    proxy: &Arc<Proxy<N>>,
    client: Client<S>,
    accepted: Accepted,
) {
    let exchange = Arc::new(Exchange {
        proxy: Arc::clone(proxy),
        upstream: tokio::sync::Mutex::new(None),
        tunnel: Mutex::new(None),
        activity: Arc::new(Activity::new()),
    });
    let answering = Arc::clone(&exchange);
    let service = service_fn(move |request| {
        let exchange = Arc::clone(&answering);
        async move { Ok::<_, Infallible>(exchange.answer(request).await) }
    });
    let mut connection = Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(proxy.config.handshake_timeout)
        .max_header_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(client), service)
        .with_upgrades();
    let ending = async {
        tokio::select! {
            ended = &mut connection => ended,
            () = proxy.stopping.cancelled() => {
                std::pin::Pin::new(&mut connection).graceful_shutdown();
                (&mut connection).await
            }
        }
    };
    let ended = tokio::select! {
        ended = ending => ended,
        // Dropped, it is reset.
        () = exchange.activity.ceased(proxy.limits.idle()) => {
            return tracing::info!(target: STORY, "a client of HTTP is reset: idle for too long");
        }
    };
    let tunnel = exchange.tunnel.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (ended, tunnel) {
        (Ok(()), Some(tunnel)) => tunnel.join::<N, S>(proxy, accepted).await,
        (Ok(()), None) => {
            if let Some(parts) = connection.into_parts() {
                parts.io.into_inner().close().await;
            }
        }
        (Err(error), _) => {
            let answered = error.is_parse() || error.is_incomplete_message();
            if answered || error.is_timeout() {
                proxy.tally.refused();
            }
            // What was no request has its answer, which the client is to get before the end.
            if answered && let Some(parts) = connection.into_parts() {
                parts.io.into_inner().close().await;
            }
        }
    }
}

/// What a client's requests have in common.
struct Exchange<N: Network> {
    proxy: Arc<Proxy<N>>,
    /// Kept from one request to the next.
    upstream: tokio::sync::Mutex<Option<Upstream>>,
    /// What comes after HTTP, if the client asked for it.
    tunnel: Mutex<Option<Tunnel<N::Stream>>>,
    activity: Arc<Activity>,
}

/// When something was sent last, by the client or a server.
struct Activity(Mutex<Instant>);

impl Activity {
    fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    fn note(&self) {
        self.note_until(Instant::now());
    }

    /// Until then there is something to wait for that has a limit of its own.
    fn note_until(&self, then: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = then;
    }

    /// Waits until nothing was sent for so long; for ever, if that is allowed.
    async fn ceased(&self, limit: Option<Duration>) {
        let Some(limit) = limit else { return std::future::pending().await };
        loop {
            let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if last.elapsed() >= limit {
                return;
            }
            tokio::time::sleep_until(last + limit).await;
        }
    }
}

/// A connection to a server.
struct Upstream {
    to: (Host, u16),
    sender: SendRequest<Body>,
    _driver: AbortOnDropHandle<()>,
}

/// Both ends of what will be carried once the client has got its answer.
struct Tunnel<S> {
    client: OnUpgrade,
    target: Outgoing<S>,
    host: Host,
    port: u16,
}

impl<T: Connection> Tunnel<T> {
    async fn join<N, S>(self, proxy: &Proxy<N>, accepted: Accepted)
    where
        N: Network<Stream = T>,
        S: Connection,
    {
        let Ok(upgraded) = self.client.await else { return self.target.reset() };
        let Ok(parts) = upgraded.downcast::<TokioIo<Client<S>>>() else { return self.target.reset() };
        let client = parts.io.into_inner().preceded_by(&parts.read_buf);
        proxy.join(client, self.target, accepted, &self.host, self.port).await;
    }
}

impl<N: Network> Exchange<N> {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        self.activity.note();
        let answered = match self.check(request.headers()) {
            Ok(()) if request.method() == Method::CONNECT => self.connect(request).await,
            Ok(()) => self.pass_on(request).await,
            Err(refusal) => Err(refusal),
        };
        answered.unwrap_or_else(|refusal| {
            if !matches!(refusal.status, StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT) {
                self.proxy.tally.refused();
            }
            refusal.response()
        })
    }

    /// Whether this is one who may use the proxy (RFC 9110 §11.7).
    fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if !self.proxy.config.asks() {
            return Ok(());
        }
        let given = headers.get(header::PROXY_AUTHORIZATION).and_then(credentials);
        match given {
            Some((name, password)) if self.proxy.config.knows(&name, &password) => Ok(()),
            Some(_) => Err(refusal(StatusCode::PROXY_AUTHENTICATION_REQUIRED, "who is that?")),
            None => Err(refusal(StatusCode::PROXY_AUTHENTICATION_REQUIRED, "say who you are")),
        }
    }

    /// Makes a tunnel.
    async fn connect(&self, mut request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
        let (host, port) = target(request.uri(), None)?;
        let target = self.dial(&host, port).await?;
        let client = hyper::upgrade::on(&mut request);
        let tunnel = Tunnel { client, target, host, port };
        *self.tunnel.lock().unwrap_or_else(PoisonError::into_inner) = Some(tunnel);
        Ok(Response::new(empty()))
    }

    /// Sends the request to its server, and returns what that answers.
    async fn pass_on(&self, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
        match request.uri().scheme_str() {
            Some("http") => {}
            Some("https") => return Err(refusal(StatusCode::BAD_REQUEST, "ask for https:// by CONNECT")),
            Some(_) => return Err(refusal(StatusCode::NOT_IMPLEMENTED, "only http:// is passed on")),
            None => {
                return Err(refusal(StatusCode::BAD_REQUEST, "this is a proxy: ask for http://HOST/PATH"));
            }
        }
        let (host, port) = target(request.uri(), Some(80))?;
        let mut request = self.outgoing(request)?;
        let mut kept = self.upstream.lock().await;
        // A server closes an idle connection when it likes: then it never saw the request, which is sent again.
        if let Some(mut upstream) = kept.take().filter(|kept| kept.to == (host.clone(), port))
            && upstream.sender.ready().await.is_ok()
        {
            match upstream.sender.try_send_request(request).await {
                Ok(response) => return Ok(self.incoming(response, &mut kept, upstream)),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(broken(error.error())),
                },
            }
        }
        let mut upstream = self.open(host, port).await?;
        let response = upstream.sender.send_request(request).await.map_err(|error| broken(&error))?;
        Ok(self.incoming(response, &mut kept, upstream))
    }

    async fn open(&self, host: Host, port: u16) -> Result<Upstream, Refusal> {
        let target = self.dial(&host, port).await?;
        let (sender, driver) = hyper::client::conn::http1::Builder::new()
            .max_header_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(target))
            .await
            .map_err(|error| broken(&error))?;
        let driver = tokio::spawn(async move {
            // Whoever waits for the response gets the error as well.
            let _ = driver.await;
        });
        Ok(Upstream { to: (host, port), sender, _driver: AbortOnDropHandle::new(driver) })
    }

    async fn dial(&self, host: &Host, port: u16) -> Result<Outgoing<N::Stream>, Refusal> {
        self.activity.note_until(Instant::now() + self.proxy.limits.connect_timeout);
        let dialed = self.proxy.dialer.dial(self.proxy.out(), host, port).await;
        self.activity.note();
        let target = dialed.map_err(|error| {
            self.proxy.tell_failure(&error, host, port);
            let status = match &error {
                DialError::Forbidden(_) => StatusCode::FORBIDDEN,
                error if error.is_timeout() => StatusCode::GATEWAY_TIMEOUT,
                _ => StatusCode::BAD_GATEWAY,
            };
            refusal(status, &format!("no connection to {host}:{port}: {error}"))
        })?;
        if let Some(keepalive) = self.proxy.limits.probes() {
            target.set_keepalive(keepalive);
        }
        Ok(target)
    }

    /// The request as the server gets it.
    fn outgoing(&self, request: Request<Incoming>) -> Result<Request<Body>, Refusal> {
        let (mut parts, body) = request.into_parts();
        let authority = parts.uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let host = HeaderValue::from_str(host)
            .map_err(|_| refusal(StatusCode::BAD_REQUEST, "the URL has no proper host"))?;
        strip(&mut parts.headers);
        // RFC 9112 §3.2.2: what the client says of the host counts less than the URL.
        parts.headers.insert(header::HOST, host);
        parts.headers.append(header::VIA, VIA);
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        // RFC 9112 §3.2.4: no path at all means the server as a whole.
        let whole_server = parts.method == Method::OPTIONS && path == "/";
        parts.uri = if whole_server { Uri::from_static("*") } else { path.parse().unwrap_or_default() };
        parts.version = Version::HTTP_11;
        let proxy = Arc::clone(&self.proxy);
        let activity = Arc::clone(&self.activity);
        let count = move |length| {
            activity.note();
            proxy.tally.traffic.add(length, 0);
        };
        Ok(Request::from_parts(parts, counted(body, count)))
    }

    /// The response as the client gets it. The connection is kept for the next request.
    fn incoming(
        &self,
        response: Response<Incoming>,
        kept: &mut Option<Upstream>,
        upstream: Upstream,
    ) -> Response<Body> {
        *kept = Some(upstream);
        let (mut parts, body) = response.into_parts();
        strip(&mut parts.headers);
        parts.headers.append(header::VIA, VIA);
        parts.version = Version::HTTP_11;
        let proxy = Arc::clone(&self.proxy);
        self.activity.note();
        let activity = Arc::clone(&self.activity);
        let count = move |length| {
            activity.note();
            proxy.tally.traffic.add(0, length);
        };
        Response::from_parts(parts, counted(body, count))
    }
}

/// Where the request is to go.
fn target(uri: &Uri, default_port: Option<u16>) -> Result<(Host, u16), Refusal> {
    let bad = |why| refusal(StatusCode::BAD_REQUEST, why);
    let authority = uri.authority().ok_or_else(|| bad("which host? CONNECT takes HOST:PORT"))?;
    let host = Host::parse(authority.host()).map_err(|_| bad("that is no host"))?;
    let port = authority.port_u16().or(default_port).filter(|port| *port > 0);
    Ok((host, port.ok_or_else(|| bad("which port? CONNECT takes HOST:PORT"))?))
}

/// Name and password of `Basic` (RFC 7617 §2).
fn credentials(value: &HeaderValue) -> Option<(Vec<u8>, Vec<u8>)> {
    let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
    let decoded =
        BASE64.decode(encoded.trim().as_bytes()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    Some((decoded[..colon].to_vec(), decoded[colon + 1..].to_vec()))
}

/// Takes out what concerns this connection only, and what the sender says does (RFC 9110 §7.6.1).
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// The same body, what goes through being counted.
fn counted(body: Incoming, count: impl Fn(usize) + Send + 'static) -> Body {
    body.map_frame(move |frame| {
        count(frame.data_ref().map_or(0, Bytes::len));
        frame
    })
    .boxed_unsync()
}

fn empty() -> Body {
    text(Bytes::new())
}

fn text(text: Bytes) -> Body {
    Full::new(text).map_err(|never| match never {}).boxed_unsync()
}

/// What the client is told instead of what it wanted.
struct Refusal {
    status: StatusCode,
    reason: String,
}

fn refusal(status: StatusCode, reason: &str) -> Refusal {
    Refusal { status, reason: reason.to_owned() }
}

fn broken(error: &hyper::Error) -> Refusal {
    refusal(StatusCode::BAD_GATEWAY, &format!("the server's answer is missing or none of HTTP: {error}"))
}

impl Refusal {
    fn response(self) -> Response<Body> {
        let mut response = Response::new(text(format!("xstack: {}\n", self.reason).into()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if self.status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            headers.insert(header::PROXY_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"xstack\""));
        }
        response
    }
}
