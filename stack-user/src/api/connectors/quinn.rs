//! QUIC by quinn: an endpoint over our UDP socket.
//!
//! ```no_run
//! use stack_user::api::{Stack, UdpSocket, connectors::quinn::endpoint};
//!
//! # async fn connect() -> Result<(), Box<dyn std::error::Error>> {
//! let stack = Stack::builder().start().await?;
//! let socket = UdpSocket::bind(&stack, "0.0.0.0:0".parse()?).await?;
//! let endpoint = endpoint(socket, None)?;
//! // As ever: endpoint.connect_with(config, "192.0.2.7:4433".parse()?, "example.com")?.await?
//! # Ok(())
//! # }
//! ```

use std::{
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use quinn::{
    AsyncUdpSocket, Endpoint, EndpointConfig, ServerConfig, TokioRuntime, UdpPoller,
    udp::{EcnCodepoint, RecvMeta, Transmit},
};
use tokio::time::{Sleep, sleep};

use crate::{
    api::{Datagram, UdpSocket},
    time::Duration,
    wire::Ecn,
};

/// Datagrams that quinn hands over at once. Fewer, and the shard's lock and the NIC's wake-up are paid for more often; more,
/// and a burst is longer than the ten packets that QUIC lets a sender start with (RFC 9002 §7.2).
const MAX_SEGMENTS: usize = 10;

/// How long to wait for free frames when all are in use. Longer, and a fast path stands still; shorter, and waiting is work.
/// Frames that are sent come back sooner on any NIC.
const FRAMES_RETURN_WITHIN: Duration = Duration::from_millis(1);

/// An endpoint over `socket`, which is a server if it has the `config` of one. Must be called within a tokio runtime.
///
/// # Errors
/// What quinn says of the configuration.
pub fn endpoint(socket: UdpSocket, config: Option<ServerConfig>) -> io::Result<Endpoint> {
    let socket = Arc::new(Socket::from(socket));
    Endpoint::new_with_abstract_socket(EndpointConfig::default(), config, socket, Arc::new(TokioRuntime))
}

/// A [`UdpSocket`] as quinn wants one, for an [`Endpoint`] with a configuration or a runtime of its own.
#[derive(Debug)]
pub struct Socket {
    socket: UdpSocket,
    /// There was no frame to send in, when it was last tried.
    out_of_frames: AtomicBool,
}

impl From<UdpSocket> for Socket {
    fn from(socket: UdpSocket) -> Self {
        Self { socket, out_of_frames: AtomicBool::new(false) }
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(FramesReturn { socket: self, waits: None })
    }

    /// A datagram that can't be sent is lost, as any may be: QUIC copes with that, and finds the path's MTU by it. Only when
    /// no frame is free, quinn shall wait.
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let ecn = transmit.ecn.map_or(Ecn::NotEct, |ecn| Ecn::of(ecn as u8));
        let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        let datagrams = transmit.contents.chunks(size);
        match self.socket.try_send_many(datagrams, transmit.destination, transmit.src_ip, ecn) {
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => {
                self.out_of_frames.store(true, Ordering::Relaxed);
                Err(io::ErrorKind::WouldBlock.into())
            }
            Err(error) => {
                tracing::debug!("a QUIC datagram to {} is lost: {error}", transmit.destination);
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut unfilled = meta.iter_mut();
            let received = self.socket.poll_recv_many(cx, bufs, |Datagram { len, from, to, ecn }| {
                if let Some(meta) = unfilled.next() {
                    let ecn = EcnCodepoint::from_bits(ecn.bits());
                    *meta = RecvMeta { addr: from, len, stride: len, ecn, dst_ip: Some(to) };
                }
            });
            match ready!(received) {
                // What an ICMP error said of one peer is no reason to give the others up.
                Err(error) if is_about_a_peer(&error) => tracing::debug!("a QUIC datagram was lost: {error}"),
                received => return Poll::Ready(received),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.socket.local_addr())
    }

    fn max_transmit_segments(&self) -> usize {
        MAX_SEGMENTS
    }

    /// Our packets have DF set (RFC 9000 §14 asks for that).
    fn may_fragment(&self) -> bool {
        false
    }
}

fn is_about_a_peer(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionRefused
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::PermissionDenied
            | Kind::InvalidInput
    )
}

/// Waits for frames to be free again. Nobody tells when they are, so it looks again after a moment.
#[derive(Debug)]
struct FramesReturn {
    socket: Arc<Socket>,
    waits: Option<Pin<Box<Sleep>>>,
}

impl UdpPoller for FramesReturn {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.socket.out_of_frames.load(Ordering::Relaxed) {
            let waits = self.waits.get_or_insert_with(|| Box::pin(sleep(FRAMES_RETURN_WITHIN)));
            ready!(waits.as_mut().poll(cx));
            self.waits = None;
            self.socket.out_of_frames.store(false, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}
