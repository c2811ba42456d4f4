//! What bulk transfers want of a network, and other commands don't.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use nix::sys::socket::{getsockopt, sockopt};
use tokio::{
    io::{DuplexStream, ReadBuf},
    net::UdpSocket,
};

use crate::{
    api,
    cli::{
        kernel::KernelNetwork,
        network::{Connection, Network},
        ours::OurNetwork,
    },
    device::tcp_info::tcp_info,
};

/// A network that bulk can be sent over.
pub trait Transport: Network<Stream: Flow> {
    /// A UDP socket.
    type Datagrams: Datagrams;

    /// A UDP socket on an address of this network, or on all of them if it is unspecified; port 0 asks for any.
    ///
    /// # Errors
    /// As the sockets': `AddrInUse`, `AddrNotAvailable`.
    fn datagrams(&self, local: SocketAddr) -> impl Future<Output = io::Result<Self::Datagrams>> + Send;
}

/// A UDP socket that bulk goes over.
pub trait Datagrams: Send + Sync + 'static {
    /// Where it is.
    ///
    /// # Errors
    /// When the system does not tell.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// Sends a datagram, once there is room for it. Several tasks may.
    ///
    /// # Errors
    /// As the sockets': that it does not fit in a packet, for example.
    fn send(&self, datagram: &[u8], remote: SocketAddr) -> impl Future<Output = io::Result<()>> + Send;

    /// Receives a datagram, and tells its length and its sender. Cancel safe.
    ///
    /// # Errors
    /// As the sockets'.
    fn receive(&self, buffer: &mut [u8]) -> impl Future<Output = io::Result<(usize, SocketAddr)>> + Send;
}

/// A connection that bulk goes over.
pub trait Flow: Connection {
    /// Waits for bytes, and takes them only to count them: with no more work than the stack asks for, and with `scratch` to copy
    /// to where it asks for that. 0 is the end of the stream.
    fn poll_discard(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(scratch);
        ready!(Pin::new(self).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// How it fares, if the stack tells.
    fn fares(&self) -> Option<Fares> {
        None
    }
}

/// How a connection fares: what iperf3 tells of it. Sizes are in bytes, times in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fares {
    /// Segments that were sent again.
    pub retransmits: u64,
    /// The congestion window.
    pub cwnd: u64,
    /// The peer's window.
    pub window: u64,
    /// The smoothed round trip.
    pub rtt: u64,
    /// Its variation.
    pub rttvar: u64,
    /// The largest packet that the path carries.
    pub path_mtu: u64,
    /// The largest payload of a segment.
    pub mss: u64,
    /// Congestion control.
    pub congestion: String,
}

impl Transport for KernelNetwork {
    type Datagrams = UdpSocket;

    async fn datagrams(&self, local: SocketAddr) -> io::Result<UdpSocket> {
        UdpSocket::bind(local).await
    }
}

impl Datagrams for UdpSocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Self::local_addr(self)
    }

    async fn send(&self, datagram: &[u8], remote: SocketAddr) -> io::Result<()> {
        self.send_to(datagram, remote).await.map(|_| ())
    }

    async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.recv_from(buffer).await
    }
}

impl Transport for OurNetwork {
    type Datagrams = api::UdpSocket;

    async fn datagrams(&self, local: SocketAddr) -> io::Result<api::UdpSocket> {
        api::UdpSocket::bind(self.stack(), local).await
    }
}

impl Datagrams for api::UdpSocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(Self::local_addr(self))
    }

    /// Our stack never waits for a frame, as a datagram may be lost. Here the driver has its turn instead, which brings back
    /// those that were sent.
    async fn send(&self, datagram: &[u8], remote: SocketAddr) -> io::Result<()> {
        loop {
            match self.send_to(datagram, remote).await {
                Err(error) if error.kind() == io::ErrorKind::OutOfMemory => tokio::task::yield_now().await,
                sent => return sent.map(|_| ()),
            }
        }
    }

    async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.recv_from(buffer).await
    }
}

impl Flow for DuplexStream {}

impl Flow for tokio::net::TcpStream {
    fn fares(&self) -> Option<Fares> {
        let info = tcp_info(self).ok()?;
        let congestion = getsockopt(self, sockopt::TcpCongestion).unwrap_or_default();
        let mss = u64::from(info.tcpi_snd_mss);
        Some(Fares {
            retransmits: info.tcpi_total_retrans.into(),
            cwnd: u64::from(info.tcpi_snd_cwnd) * mss,
            // Not in the part of the struct that the C library knows.
            window: 0,
            rtt: info.tcpi_rtt.into(),
            rttvar: info.tcpi_rttvar.into(),
            path_mtu: info.tcpi_pmtu.into(),
            mss,
            congestion: congestion.to_string_lossy().trim_end_matches('\0').to_owned(),
        })
    }
}

impl Flow for api::TcpStream {
    /// Nothing is copied: frames go back to the NIC as they came.
    fn poll_discard(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<io::Result<usize>> {
        Self::poll_discard(self, cx, scratch.len())
    }

    fn fares(&self) -> Option<Fares> {
        let info = self.info()?;
        let micros = |time: Option<std::time::Duration>| {
            time.map_or(0, |time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
        };
        Some(Fares {
            retransmits: info.retransmissions,
            cwnd: info.cwnd as u64,
            window: info.send_window as u64,
            rtt: micros(info.srtt),
            rttvar: micros(info.rttvar),
            path_mtu: info.path_mtu as u64,
            mss: info.mss as u64,
            congestion: info.congestion.to_owned(),
        })
    }
}
