//! A client whose first bytes tell what it speaks, and what it wants.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use super::socks5::{MESSAGE_MAX, Parsed};
use crate::cli::network::Connection;
use crate::cli::relay::pump::OrReset;

/// How long, and for how many bytes, to listen to a client that was refused and is still sending. Closing at once would
/// reset the connection, and with it the answer, before the client has read it.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 256 * 1024;

/// The connection, with what was read of it before it was known what it is. Dropped, it is reset.
pub(super) struct Client<S: Connection> {
    stream: OrReset<S>,
    /// Read, and not used yet.
    early: Vec<u8>,
}

impl<S: Connection> Client<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream: OrReset::new(stream), early: Vec::new() }
    }

    /// The same, with bytes that were read of it by others in front.
    pub(super) fn preceded_by(mut self, read: &[u8]) -> Self {
        self.early.splice(..0, read.iter().copied());
        self
    }

    /// The stream itself, and what was read of it already.
    pub(super) fn into_parts(mut self) -> Option<(S, Vec<u8>)> {
        let early = std::mem::take(&mut self.early);
        self.stream.take().map(|stream| (stream, early))
    }

    /// The first byte, which stays there to be read.
    pub(super) async fn first_byte(&mut self) -> io::Result<u8> {
        self.message(|bytes| Ok(bytes.first().map(|byte| (*byte, 0)))).await
    }

    /// Reads as much as `parse` needs, and takes it.
    ///
    /// # Errors
    /// `InvalidData` when it is malformed, `UnexpectedEof` when the client goes before it is whole.
    pub(super) async fn message<T>(&mut self, parse: impl Fn(&[u8]) -> Parsed<T>) -> io::Result<T> {
        loop {
            if let Some((message, length)) = parse(&self.early).map_err(|_| io::ErrorKind::InvalidData)? {
                self.early.drain(..length);
                return Ok(message);
            }
            let mut more = [0; MESSAGE_MAX];
            let read = self.stream()?.read(&mut more).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.early.extend_from_slice(more.get(..read).unwrap_or_default());
        }
    }

    /// Sends the last that it will hear, and closes in order.
    pub(super) async fn refuse(mut self, answer: &[u8]) {
        if self.write_all(answer).await.is_ok() {
            self.close().await;
        }
    }

    /// Closes in order, once the client has read what it was sent.
    pub(super) async fn close(mut self) {
        if let Some(mut stream) = self.stream.take()
            && stream.shutdown().await.is_ok()
        {
            let mut rest = (&mut stream).take(LINGER_BYTES);
            let _ = timeout(LINGER, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
        }
    }

    fn stream(&mut self) -> io::Result<&mut S> {
        self.stream.get().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl<S: Connection> AsyncRead for Client<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let client = self.get_mut();
        if !client.early.is_empty() {
            let length = client.early.len().min(buf.remaining());
            buf.put_slice(&client.early[..length]);
            client.early.drain(..length);
            return Poll::Ready(Ok(()));
        }
        Pin::new(client.stream()?).poll_read(cx, buf)
    }
}

impl<S: Connection> AsyncWrite for Client<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self.get_mut().stream()?).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.get_mut().stream()?).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().stream()?).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().stream()?).poll_shutdown(cx)
    }
}
