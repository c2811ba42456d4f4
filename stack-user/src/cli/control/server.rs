//! The daemon's end of the control socket: HTTP/1.1, so that any client that speaks it over a Unix socket can ask, such as
//! `curl --unix-socket /run/xstack/control.sock http://xstack/v1/status`.
//!
//! | Request | Answer |
//! |---|---|
//! | `GET /v1/hello` | a JSON object: [`Hello`] |
//! | `GET /v1/status` | a JSON object: [`Status`] |
//! | `GET /v1/connections?…` | a JSON object a line: [`Socket`](super::view::Socket); the query is a [`Filter`]'s |
//! | `GET /v1/resolve?name=HOST` | a JSON array of addresses |
//! | `GET /v1/connect?to=ADDR:PORT`, `Upgrade: xstack-tunnel` | 101, then a [`Tunnel`] |
//!
//! What fails is answered with a status and `{"error": KIND, "message": TEXT}`. One connection is one request.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http::{
    Method, Request, Response, StatusCode,
    header::{CONNECTION, CONTENT_TYPE, UPGRADE},
};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
    upgrade::OnUpgrade,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    access::Access,
    filter::{Filter, Walk},
    tunnel::Tunnel,
    view::{Hello, Status},
};
use crate::{
    api::Stack,
    cli::{
        network::{ConnectError, Network, ResolveError},
        relay::pump::{self, Traffic},
    },
};

/// Clients at once, tunnels included. Fewer, and a script that fetches many things at once waits; more, and clients that
/// stall take more of the daemon's descriptors, of which relays want most.
const MAX_CLIENTS: usize = 512;

/// Clients that may not speak to us and are told so at once. A few, so that they can't keep others out.
const MAX_STRANGERS: usize = 16;

/// How long a client may take to send its request. Longer, and one that stalls holds its place.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a request may take altogether, until it becomes a tunnel: enough for a list of a million connections.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);

/// How long is tried to connect, before a client hears of it; its own limit is usually shorter.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(75);

/// Bytes of a request. No request of ours has more than some hundred.
const MAX_REQUEST: usize = 16 * 1024;

/// How long to wait when the process has no descriptor for another client.
const OUT_OF_RESOURCES: Duration = Duration::from_millis(100);

/// What a tunnel is called in `Upgrade:`.
pub(super) const TUNNEL: &str = "xstack-tunnel";

/// What the daemon tells of itself.
pub trait Daemon: Send + Sync + 'static {
    /// The network that clients reach through it.
    type Network: Network;

    /// That network, unless it is being closed.
    fn network(&self) -> Option<Arc<Self::Network>>;

    /// Its stacks, to look at: one for each interface.
    fn stacks(&self) -> Vec<Stack>;

    /// All that can be told. `control_sessions` is filled in by the server.
    fn status(&self) -> Status;
}

/// Serves clients until it is stopped.
#[derive(Debug)]
pub struct Server<D> {
    shared: Arc<Shared<D>>,
}

impl<D> Clone for Server<D> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

#[derive(Debug)]
struct Shared<D> {
    daemon: D,
    access: std::sync::Mutex<Access>,
    room: Arc<Semaphore>,
    room_for_strangers: Arc<Semaphore>,
    tasks: TaskTracker,
    tunnels: AtomicUsize,
    stopping: CancellationToken,
    aborting: CancellationToken,
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

impl<D: Daemon> Server<D> {
    /// A server of what `daemon` tells.
    pub fn new(daemon: D, access: Access) -> Self {
        Self {
            shared: Arc::new(Shared {
                daemon,
                access: std::sync::Mutex::new(access),
                room: Arc::new(Semaphore::new(MAX_CLIENTS)),
                room_for_strangers: Arc::new(Semaphore::new(MAX_STRANGERS)),
                tasks: TaskTracker::new(),
                tunnels: AtomicUsize::new(0),
                stopping: CancellationToken::new(),
                aborting: CancellationToken::new(),
            }),
        }
    }

    /// What it tells of.
    pub fn daemon(&self) -> &D {
        &self.shared.daemon
    }

    /// Who may speak to it from now on.
    pub fn set_access(&self, access: Access) {
        *self.shared.access.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = access;
    }

    /// Serves whoever comes to `listener`, until it is [stopped](Self::stop).
    ///
    /// # Errors
    /// When nobody can ever come there again.
    pub async fn run(&self, listener: &UnixListener) -> io::Result<()> {
        let shared = &self.shared;
        loop {
            let accepted = tokio::select! {
                () = shared.stopping.cancelled() => return Ok(()),
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => self.admit(stream),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error)
                    if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM)) =>
                {
                    tokio::time::sleep(OUT_OF_RESOURCES).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Serves a client by a task of its own, if there is room.
    pub fn admit(&self, stream: UnixStream) {
        let shared = &self.shared;
        let access = shared.access.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        // Who can't be known is nobody.
        let peer = stream.peer_cred();
        let is_allowed = peer.as_ref().is_ok_and(|peer| access.allows(peer));
        if !is_allowed && let Ok(peer) = &peer {
            tracing::info!("uid {} may not use the control socket (pid {:?})", peer.uid(), peer.pid());
        }
        let room = if is_allowed { &shared.room } else { &shared.room_for_strangers };
        let Ok(room) = Arc::clone(room).try_acquire_owned() else {
            tracing::warn!("too many clients at the control socket: one is turned away");
            return;
        };
        let (server, aborting) = (self.clone(), shared.aborting.clone());
        let room = Arc::new(room);
        shared.tasks.spawn(async move {
            aborting.run_until_cancelled(server.serve(stream, is_allowed, room)).await;
        });
    }

    /// Stops: nobody is admitted any more, tunnels may finish for `grace`, and are reset then. Returns how many were.
    pub async fn stop(&self, grace: Duration) -> usize {
        let shared = &self.shared;
        shared.stopping.cancel();
        shared.tasks.close();
        if timeout(grace, shared.tasks.wait()).await.is_ok() {
            return 0;
        }
        let left = shared.tasks.len();
        shared.aborting.cancel();
        shared.tasks.wait().await;
        left
    }

    async fn serve<R: Clone + Send + 'static>(&self, stream: UnixStream, is_allowed: bool, room: R) {
        let service = service_fn(|request| {
            let (server, room) = (self.clone(), room.clone());
            async move {
                let answer =
                    if is_allowed { server.answer(request, room).await } else { Err(Refusal::stranger()) };
                Ok::<_, Infallible>(answer.unwrap_or_else(Refusal::into_response))
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(MAX_REQUEST)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        match timeout(REQUEST_TIMEOUT, connection).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!("a client of the control socket: {error}"),
            Err(_) => tracing::debug!("a client of the control socket took too long"),
        }
    }

    async fn answer<R: Send + 'static>(
        &self,
        request: Request<Incoming>,
        room: R,
    ) -> Result<Response<Body>, Refusal> {
        if request.method() != Method::GET {
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method", "only GET is answered here"));
        }
        let query = request.uri().query().unwrap_or_default().to_owned();
        match request.uri().path() {
            "/v1/hello" => Ok(json(StatusCode::OK, &Hello::ours())),
            "/v1/status" => {
                let mut status = self.shared.daemon.status();
                status.control_sessions = self.shared.tunnels.load(Ordering::Relaxed);
                Ok(json(StatusCode::OK, &status))
            }
            "/v1/connections" => {
                let filter = Filter::from_query(&query).map_err(Refusal::bad_request)?;
                Ok(self.list(filter))
            }
            "/v1/resolve" => self.resolve(&parameter(&query, "name")?).await,
            "/v1/connect" => {
                let to = parameter(&query, "to")?;
                let to =
                    to.parse().map_err(|_| Refusal::bad_request(format!("'{to}' is not ADDRESS:PORT")))?;
                self.connect(request, to, room).await
            }
            path => Err(Refusal::new(StatusCode::NOT_FOUND, "not_found", format!("there is no {path} here"))),
        }
    }

    /// Lists sockets, some at a time, as fast as the client takes them.
    fn list(&self, filter: Filter) -> Response<Body> {
        let walk = Walk::new(self.shared.daemon.stacks(), filter);
        let lines = stream::unfold(walk, |mut walk| async move {
            // Between two pages others have their turn.
            tokio::task::yield_now().await;
            let page = walk.next_page()?;
            Some((Ok(Frame::data(Bytes::from(page))), walk))
        });
        let body = BodyExt::boxed_unsync(StreamBody::new(lines));
        respond(StatusCode::OK, "application/x-ndjson", body)
    }

    async fn resolve(&self, name: &str) -> Result<Response<Body>, Refusal> {
        let network = self.network()?;
        match network.resolve(name).await {
            Ok(addresses) => Ok(json(StatusCode::OK, &addresses)),
            Err(ResolveError::UnknownHost) => {
                Err(Refusal::new(StatusCode::NOT_FOUND, "unknown_host", "no such host"))
            }
            Err(error) => Err(Refusal::new(StatusCode::BAD_GATEWAY, "resolve", error.to_string())),
        }
    }

    async fn connect<R: Send + 'static>(
        &self,
        mut request: Request<Incoming>,
        to: SocketAddr,
        room: R,
    ) -> Result<Response<Body>, Refusal> {
        let wanted =
            request.headers().get(UPGRADE).is_some_and(|value| value.as_bytes() == TUNNEL.as_bytes());
        let Some(upgrade) = request.extensions_mut().remove::<OnUpgrade>().filter(|_| wanted) else {
            let text = format!("this takes an 'Upgrade: {TUNNEL}'");
            return Err(Refusal::new(StatusCode::UPGRADE_REQUIRED, "upgrade", text));
        };
        if self.shared.stopping.is_cancelled() {
            return Err(Refusal::stopping());
        }
        let network = self.network()?;
        let connected = timeout(CONNECT_TIMEOUT, network.connect(to)).await;
        let target = connected.unwrap_or(Err(ConnectError::TimedOut)).map_err(Refusal::connect)?;
        let (server, aborting) = (self.clone(), self.shared.aborting.clone());
        self.shared.tasks.spawn(async move {
            let tunnels = &server.shared.tunnels;
            tunnels.fetch_add(1, Ordering::Relaxed);
            let carry = async {
                let target = pump::OrReset::new(target);
                if let Ok(upgraded) = upgrade.await {
                    let mut target = target;
                    let Some(target) = target.take() else { return };
                    let client = Tunnel::new(TokioIo::new(upgraded));
                    pump::relay(client, Vec::new(), target, None, &Traffic::default()).await;
                }
            };
            aborting.run_until_cancelled(carry).await;
            tunnels.fetch_sub(1, Ordering::Relaxed);
            drop(room);
        });
        let mut response =
            respond(StatusCode::SWITCHING_PROTOCOLS, "", BodyExt::boxed_unsync(Full::default()));
        let headers = response.headers_mut();
        headers.remove(CONTENT_TYPE);
        headers.insert(CONNECTION, http::HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, http::HeaderValue::from_static(TUNNEL));
        Ok(response)
    }

    fn network(&self) -> Result<Arc<D::Network>, Refusal> {
        self.shared.daemon.network().ok_or_else(Refusal::stopping)
    }
}

/// A request that is not granted.
#[derive(Debug, Serialize)]
struct Refusal {
    #[serde(skip)]
    status: StatusCode,
    error: &'static str,
    message: String,
}

impl Refusal {
    fn new(status: StatusCode, error: &'static str, message: impl Into<String>) -> Self {
        Self { status, error, message: message.into() }
    }

    fn bad_request(message: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    fn stranger() -> Self {
        let text = "this user may not use the daemon: root may, its own user, and who is in [control] allow-users or allow-groups";
        Self::new(StatusCode::FORBIDDEN, "forbidden", text)
    }

    fn stopping() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the daemon is stopping")
    }

    fn connect(error: ConnectError) -> Self {
        let kind = match error {
            ConnectError::Refused => "refused",
            ConnectError::Unreachable(_) => "unreachable",
            ConnectError::TimedOut => "timed_out",
            ConnectError::Reset => "reset",
            ConnectError::FamilyUnsupported => "family",
            ConnectError::NoLocalPort(_) | ConnectError::Other(_) => "other",
        };
        Self::new(StatusCode::BAD_GATEWAY, kind, error.to_string())
    }

    fn into_response(self) -> Response<Body> {
        json(self.status, &self)
    }
}

fn parameter(query: &str, name: &str) -> Result<String, Refusal> {
    let value = url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name);
    value
        .map(|(_, value)| value.into_owned())
        .ok_or_else(|| Refusal::bad_request(format!("'{name}=' is missing")))
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    // Our own types have no keys that JSON can't have.
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.push(b'\n');
    respond(status, "application/json", BodyExt::boxed_unsync(Full::from(text)))
}

fn respond(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}
