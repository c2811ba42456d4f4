//! A TCP connection as tokio sees one.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    Stack,
    shards::Home,
    split::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, WriteHalf},
};
use crate::{
    stack::{ListenError, TcpId},
    tcp::{self, Config},
    time::{Duration, Instant},
};

/// A TCP connection: what `tokio::net::TcpStream` is to the kernel's stack.
///
/// Reading copies once, from the frames that arrived to the caller's buffer; writing copies once, into the frame that
/// is sent and retransmitted from. Dropping the stream closes the connection in order: what was written is still
/// delivered, and the stack keeps the connection until its peer has confirmed that.
#[derive(Debug)]
pub struct TcpStream {
    /// Where the connection is, for all its life.
    stack: Home,
    id: TcpId,
    local: SocketAddr,
    remote: SocketAddr,
}

impl TcpStream {
    /// Opens a connection to `remote`.
    ///
    /// Cancel safe: dropping the future aborts the attempt.
    ///
    /// # Errors
    /// `ConnectionRefused`, `HostUnreachable`, `NetworkUnreachable`, `TimedOut`, `ConnectionReset`;
    /// `AddrNotAvailable` when all ports to this peer are in use, or the stack has lost its address; `InvalidInput` when
    /// `remote` is not one host and port; why the stack stopped, if it did.
    pub async fn connect(stack: &Stack, remote: SocketAddr) -> io::Result<Self> {
        let stack = stack.next_home();
        let (id, local) = stack.shard().with(|core, now| {
            core.running()?;
            io::Result::Ok(core.stack.tcp_connect(now, remote)?)
        })?;
        Self { stack, id, local, remote }.connected().await
    }

    /// Opens a connection from a chosen local end.
    pub(super) async fn connect_from(
        stack: Stack,
        local: Option<SocketAddr>,
        remote: SocketAddr,
        config: Config,
    ) -> io::Result<Self> {
        let stack = stack.next_home();
        let (id, local) = stack.shard().with(|core, now| {
            core.running()?;
            let ours = core.stack.address();
            let foreign = local.filter(|local| !local.ip().is_unspecified() && Some(local.ip()) != ours);
            if let Some(foreign) = foreign {
                return Err(ListenError::NotOurs(foreign.ip()).into());
            }
            let port = local.map_or(0, |local| local.port());
            io::Result::Ok(core.stack.tcp_connect_with(now, port, remote, Some(&config))?)
        })?;
        Self { stack, id, local, remote }.connected().await
    }

    /// Waits for the handshake.
    async fn connected(self) -> io::Result<Self> {
        let stream = self;
        poll_fn(|cx| stream.poll_connected(cx)).await?;
        Ok(stream)
    }

    /// A connection that a listener has accepted.
    pub(super) fn accepted(stack: Home, id: TcpId, local: SocketAddr, remote: SocketAddr) -> Self {
        Self { stack, id, local, remote }
    }

    /// Our end's address.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The peer's address.
    pub fn peer_addr(&self) -> SocketAddr {
        self.remote
    }

    /// Sends small writes at once (`TCP_NODELAY`) instead of waiting for the ACK of what is on its way, or not any more.
    pub fn set_nodelay(&self, nodelay: bool) {
        self.stack.shard().with(|core, _| core.stack.tcp_set_nodelay(self.id, nodelay));
    }

    /// Marks what is sent from now on with a Differentiated Services Codepoint, six bits (the upper ones of `IP_TOS`).
    pub fn set_dscp(&self, dscp: u8) {
        self.stack.shard().with(|core, _| core.stack.tcp_set_dscp(self.id, dscp));
    }

    /// Asks a silent peer from time to time whether it is there (`SO_KEEPALIVE` with `TCP_KEEPIDLE`, `TCP_KEEPINTVL` and
    /// `TCP_KEEPCNT`), or not any more. By default it is not asked. When it does not answer, reading fails with `TimedOut`.
    pub fn set_keepalive(&self, keepalive: Option<tcp::KeepAlive>) {
        self.stack.shard().with(|core, now| core.stack.tcp_set_keepalive(now, self.id, keepalive));
    }

    /// How long what was written may stay without the peer's acknowledgement before the connection fails with `TimedOut`
    /// (`TCP_USER_TIMEOUT`). The default is five minutes.
    pub fn set_user_timeout(&self, timeout: Duration) {
        self.stack.shard().with(|core, now| core.stack.tcp_set_user_timeout(now, self.id, timeout));
    }

    /// Dropping the stream from now on resets the connection at once, and gives up what was not delivered (`SO_LINGER`
    /// with a time of 0). Otherwise dropping never waits, and delivers in the background.
    pub fn set_zero_linger(&self) {
        self.stack.shard().with(|core, _| core.stack.tcp_set_zero_linger(self.id, true));
    }

    /// What the protocol knows of the connection, in the manner of Linux' `TCP_INFO`. `None` when it has ended.
    pub fn info(&self) -> Option<tcp::Info> {
        self.stack.shard().with(|core, _| core.stack.tcp(self.id).map(|connection| connection.info()))
    }

    /// Whether small writes are sent at once.
    ///
    /// # Errors
    /// `NotConnected` when the connection has ended.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.stack.shard().with(|core, _| {
            let connection = core.stack.tcp(self.id).ok_or(io::ErrorKind::NotConnected)?;
            Ok(connection.nodelay())
        })
    }

    /// Why the connection failed, if it did (`SO_ERROR`). Asking does not take the error away: reading tells it, too.
    pub fn error(&self) -> Option<io::Error> {
        let error = self
            .stack
            .shard()
            .with(|core, _| core.stack.tcp(self.id).and_then(|connection| connection.error()));
        error.map(io::Error::from)
    }

    /// Waits for bytes to read, and copies them to `buf` without taking them: the next read gets them again. 0 is the end of
    /// the stream, or an empty `buf`. Cancel safe.
    ///
    /// # Errors
    /// As reading.
    pub async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_peek(cx, buf)).await
    }

    /// [`peek`](Self::peek) for those who poll themselves.
    ///
    /// # Errors
    /// As reading.
    pub fn poll_peek(&self, cx: &Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_input(Some(cx), |stack, _, id| stack.tcp_peek(id, buf))
    }

    /// Waits until reading would not wait: something has come, the stream has ended, or the connection has failed. Cancel
    /// safe. One task at a time may wait for a stream to become readable, and one for it to become writable.
    ///
    /// # Errors
    /// Why the stack stopped, if it did.
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| {
            let peeked = self.poll_input(Some(cx), |stack, _, id| stack.tcp_peek(id, &mut []));
            peeked.map(|_| self.stack.shard().with(|core, _| core.running()).map_err(io::Error::from))
        })
        .await
    }

    /// Waits until writing would not wait: there is room, or the connection has ended. Cancel safe. Somebody else may have
    /// taken the room when [`try_write`](Self::try_write) asks for it.
    ///
    /// # Errors
    /// Why the stack stopped, if it did.
    pub async fn writable(&self) -> io::Result<()> {
        poll_fn(|cx| {
            self.stack.shard().with(|core, now| {
                core.running()?;
                if core.stack.tcp_is_writable(now, self.id) {
                    return Poll::Ready(Ok(()));
                }
                core.waiters.wait_to_write(self.id, cx);
                Poll::Pending
            })
        })
        .await
    }

    /// Reads what is there, without waiting. 0 is the end of the stream, or an empty `buf`.
    ///
    /// # Errors
    /// `WouldBlock` when nothing has come; otherwise as reading.
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        at_once(self.poll_input(None, |stack, now, id| stack.tcp_read(now, id, buf)))
    }

    /// Writes what there is room for, without waiting, and returns how many bytes.
    ///
    /// # Errors
    /// `WouldBlock` when there is no room; otherwise as writing.
    pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        at_once(self.poll_output(None, |stack, now, id| stack.tcp_write(now, id, buf)))
    }

    /// One half to read and one to write, for as long as the stream is borrowed.
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        (ReadHalf(self), WriteHalf(self))
    }

    /// One half to read and one to write, for two tasks. Dropping the half that writes closes our direction, as
    /// [`shutdown`](tokio::io::AsyncWriteExt::shutdown) does; the stream is closed with the second of them.
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        let stream = Arc::new(self);
        (OwnedReadHalf::new(Arc::clone(&stream)), OwnedWriteHalf::new(stream))
    }

    fn poll_connected(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        self.stack.shard().with(|core, _| {
            core.running()?;
            let Some(connection) = core.stack.tcp(self.id) else {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            };
            if let Some(error) = connection.error() {
                return Poll::Ready(Err(error.into()));
            }
            if connection.state().is_synchronized() {
                return Poll::Ready(Ok(()));
            }
            core.waiters.wait_to_write(self.id, cx);
            Poll::Pending
        })
    }
}

/// The protocols of a shard.
type Protocols = crate::stack::Stack<crate::device::Umem>;

/// What streams and their halves have in common: all take the stream by a shared reference.
impl TcpStream {
    /// Reads by `read`. Without a context nobody is woken.
    pub(super) fn poll_input(
        &self,
        cx: Option<&Context<'_>>,
        read: impl FnOnce(&mut Protocols, Instant, TcpId) -> Result<usize, tcp::ReadError>,
    ) -> Poll<io::Result<usize>> {
        self.stack.shard().with(|core, now| match read(&mut core.stack, now, self.id) {
            Ok(read) => Poll::Ready(Ok(read)),
            Err(_) if let Err(stopped) = core.running() => Poll::Ready(Err(stopped.into())),
            Err(tcp::ReadError::WouldBlock) => {
                if let Some(cx) = cx {
                    core.waiters.wait_to_read(self.id, cx);
                }
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error.into())),
        })
    }

    /// Writes by `write`. Without a context nobody is woken.
    pub(super) fn poll_output(
        &self,
        cx: Option<&Context<'_>>,
        write: impl FnOnce(&mut Protocols, Instant, TcpId) -> Result<usize, tcp::WriteError>,
    ) -> Poll<io::Result<usize>> {
        self.stack.shard().with(|core, now| {
            core.running()?;
            match write(&mut core.stack, now, self.id) {
                Ok(written) => Poll::Ready(Ok(written)),
                Err(tcp::WriteError::WouldBlock) => {
                    if let Some(cx) = cx {
                        core.waiters.wait_to_write(self.id, cx);
                    }
                    Poll::Pending
                }
                Err(error) => Poll::Ready(Err(error.into())),
            }
        })
    }

    pub(super) fn poll_read_shared(&self, cx: &Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let unfilled = buf.initialize_unfilled();
        let read = self.poll_input(Some(cx), |stack, now, id| stack.tcp_read(now, id, unfilled));
        read.map_ok(|read| buf.advance(read))
    }

    pub(super) fn poll_write_shared(&self, cx: &Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_output(Some(cx), |stack, now, id| stack.tcp_write(now, id, buf))
    }

    /// All buffers in one go, so that they share segments.
    pub(super) fn poll_write_vectored_shared(
        &self,
        cx: &Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_output(Some(cx), |stack, now, id| {
            let mut written = 0;
            for buf in bufs.iter().filter(|buf| !buf.is_empty()) {
                let n = match stack.tcp_write(now, id, buf) {
                    Err(error) if written == 0 => return Err(error),
                    // What was written counts; the next call tells of the error.
                    result => result.unwrap_or(0),
                };
                written += n;
                if n < buf.len() {
                    break;
                }
            }
            Ok(written)
        })
    }

    pub(super) fn commit(&self, reserved: tcp::Reserved, len: usize) -> io::Result<()> {
        self.stack.shard().with(|core, _| {
            let committed = core.stack.tcp_commit(self.id, reserved, len);
            core.running()?;
            Ok(committed?)
        })
    }

    pub(super) fn home(&self) -> &Home {
        &self.stack
    }

    pub(super) fn shut_down_write(&self) -> io::Result<()> {
        self.stack.shard().with(|core, now| {
            core.running()?;
            core.stack.tcp_shutdown_write(now, self.id);
            Ok(())
        })
    }
}

fn at_once(result: Poll<io::Result<usize>>) -> io::Result<usize> {
    match result {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_read_shared(cx, buf)
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_shared(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored_shared(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing to do: what was written is on its way already, as far as the windows allow.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Closes our direction: the peer reads the end of the stream after what was written.
    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shut_down_write())
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        self.stack.shard().with(|core, now| core.stack.tcp_close(now, self.id));
    }
}
