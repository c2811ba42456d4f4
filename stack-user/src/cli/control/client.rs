//! The other end of the control socket: what `status`, `connections` and `curl --daemon` ask by.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{body::Incoming, client::conn::http1, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time::timeout};

use super::{server::TUNNEL, tunnel::Tunnel};
use crate::cli::network::{ConnectError, Listener, Network, ResolveError};

/// Bytes of an answer that is read as a whole: a status with a thousand relays fits.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// How long an answer may take to begin, and one that is read as a whole to end. Shorter, and a daemon whose name servers are
/// down is given up before it can say so; longer, and one that is stuck keeps whoever asks. Tunnels are the caller's to
/// wait for.
const ANSWER: Duration = Duration::from_secs(30);

/// Why the daemon gave no answer, or none that was hoped for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// Nobody is there.
    #[error("no daemon answers at {}: {source}", path.display())]
    Unreachable {
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Somebody is there, and says nothing.
    #[error("what listens at {} has said nothing for {} s: is the daemon stuck?", path.display(), ANSWER.as_secs())]
    Silent {
        /// Where.
        path: PathBuf,
    },
    /// It accepts nobody any more, though its socket is still there.
    #[error("the daemon at {} answers no more: it is stopping, or has just been stopped ({reason})", path.display())]
    Ended {
        /// Where.
        path: PathBuf,
        /// What was seen of that.
        reason: String,
    },
    /// It said no.
    #[error("{message}")]
    Refused {
        /// In a word.
        kind: String,
        /// In a sentence.
        message: String,
    },
    /// What answers is no xstack, or not one that we understand.
    #[error("the daemon's answer makes no sense: {0}")]
    Nonsense(String),
}

/// A daemon that can be asked.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
}

#[derive(Deserialize)]
struct Refused {
    error: String,
    message: String,
}

impl Client {
    /// The daemon whose control socket is at `path`. Nothing is asked yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// The control socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Asks for an object.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, ControlError> {
        let whole = async {
            let response = self.send(target, None).await?;
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            Ok(body.map_err(|error| ControlError::Nonsense(error.to_string()))?.to_bytes())
        };
        let bytes = self.in_time(whole).await?;
        serde_json::from_slice(&bytes).map_err(|error| ControlError::Nonsense(error.to_string()))
    }

    async fn in_time<T>(
        &self,
        answer: impl Future<Output = Result<T, ControlError>>,
    ) -> Result<T, ControlError> {
        let silent = || ControlError::Silent { path: self.path.clone() };
        timeout(ANSWER, answer).await.unwrap_or_else(|_| Err(silent()))
    }

    /// Asks for lines, which come as they are made.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn lines(&self, target: &str) -> Result<Lines, ControlError> {
        let response = self.in_time(self.send(target, None)).await?;
        Ok(Lines { body: response.into_body(), waiting: Vec::new(), at: 0 })
    }

    /// Asks for a tunnel.
    async fn tunnel(&self, to: SocketAddr) -> Result<Tunnel<TokioIo<Upgraded>>, ControlError> {
        let response = self.send(&format!("/v1/connect?to={to}"), Some(TUNNEL)).await?;
        let upgraded = hyper::upgrade::on(response).await;
        let upgraded = upgraded.map_err(|error| ControlError::Nonsense(error.to_string()))?;
        Ok(Tunnel::new(TokioIo::new(upgraded)))
    }

    async fn send(&self, target: &str, upgrade: Option<&str>) -> Result<Response<Incoming>, ControlError> {
        let unreachable = |source| ControlError::Unreachable { path: self.path.clone(), source };
        let broken = |error: hyper::Error| match error.is_parse() {
            true => ControlError::Nonsense(error.to_string()),
            false => ControlError::Ended { path: self.path.clone(), reason: error.to_string() },
        };
        let stream = UnixStream::connect(&self.path).await.map_err(unreachable)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(connection.with_upgrades());
        let mut request = Request::get(target).header(header::HOST, "xstack");
        if let Some(protocol) = upgrade {
            request = request.header(header::CONNECTION, "upgrade").header(header::UPGRADE, protocol);
        }
        let request = request.body(Empty::<Bytes>::new());
        let request = request.map_err(|error| ControlError::Nonsense(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(broken)?;
        match response.status() {
            StatusCode::OK | StatusCode::SWITCHING_PROTOCOLS => Ok(response),
            status => {
                let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
                let bytes = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                let refused: Refused = serde_json::from_slice(&bytes)
                    .map_err(|_| ControlError::Nonsense(format!("status {status}, and no reason")))?;
                Err(ControlError::Refused { kind: refused.error, message: refused.message })
            }
        }
    }
}

/// Lines that a daemon sends.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    waiting: Vec<u8>,
    at: usize,
}

impl Lines {
    /// The next line, without its end.
    ///
    /// # Errors
    /// When the daemon breaks off, or a line is longer than any of ours.
    pub async fn next(&mut self) -> Result<Option<&[u8]>, ControlError> {
        loop {
            let rest = &self.waiting[self.at..];
            if let Some(length) = rest.iter().position(|byte| *byte == b'\n') {
                let start = self.at;
                self.at += length + 1;
                return Ok(Some(&self.waiting[start..start + length]));
            }
            if rest.len() > MAX_ANSWER {
                return Err(ControlError::Nonsense("a line without an end".to_owned()));
            }
            self.waiting.drain(..self.at);
            self.at = 0;
            match self.body.frame().await {
                Some(Ok(frame)) => self.waiting.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Some(Err(error)) => return Err(ControlError::Nonsense(error.to_string())),
                None if self.waiting.is_empty() => return Ok(None),
                None => return Err(ControlError::Nonsense("it was cut off".to_owned())),
            }
        }
    }
}

/// The daemon's stack as a network: names are resolved and connections are made by it.
#[derive(Clone, Debug)]
pub struct DaemonNetwork {
    client: Client,
}

impl DaemonNetwork {
    /// That of a daemon which is known to answer.
    pub fn new(client: Client) -> Self {
        Self { client }
    }
}

/// A connection that the daemon has.
pub type DaemonStream = Tunnel<TokioIo<Upgraded>>;

/// The daemon listens for nobody.
#[derive(Debug)]
pub enum NoListener {}

impl Network for DaemonNetwork {
    type Stream = DaemonStream;
    type Listener = NoListener;

    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let name: String = url::form_urlencoded::byte_serialize(host.as_bytes()).collect();
        self.client.get(&format!("/v1/resolve?name={name}")).await.map_err(|error| match error {
            ControlError::Refused { kind, .. } if kind == "unknown_host" => ResolveError::UnknownHost,
            error => ResolveError::Failed(error.to_string()),
        })
    }

    async fn connect(&self, remote: SocketAddr) -> Result<DaemonStream, ConnectError> {
        self.client.tunnel(remote).await.map_err(|error| match error {
            ControlError::Refused { kind, message } => match kind.as_str() {
                "refused" => ConnectError::Refused,
                "unreachable" => ConnectError::Unreachable(message),
                "timed_out" => ConnectError::TimedOut,
                "reset" => ConnectError::Reset,
                "family" => ConnectError::FamilyUnsupported,
                _ => ConnectError::Other(message),
            },
            error => ConnectError::Other(error.to_string()),
        })
    }

    async fn listen(&self, _local: SocketAddr) -> io::Result<NoListener> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "a daemon listens for nobody: give it a [[forward]]"))
    }
}

impl Listener for NoListener {
    type Stream = DaemonStream;

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match *self {}
    }

    async fn accept(&self) -> io::Result<(DaemonStream, SocketAddr)> {
        match *self {}
    }
}
