//! A connection of the daemon's stack, carried over its control socket.
//!
//! A Unix socket tells that its other end is gone, and not how: a reset would look like an end. So the bytes of each
//! direction come in pieces, `length (4 bytes, big-endian) bytes`; a length of 0 is the end (FIN). What ends without that was
//! reset.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::cli::network::Connection;

/// The bytes of a piece, at most. Fewer, and the lengths cost more; more, and a connection takes more memory.
const PIECE: usize = 32 * 1024;

/// The length before each piece.
const LENGTH: usize = 4;

/// What both ends have: the stream of a Unix socket, or what takes its place in a test.
pub trait Carrier: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Carrier for S {}

/// One end of it.
#[derive(Debug)]
pub struct Tunnel<S: Carrier> {
    carrier: S,
    input: Input,
    output: Output,
}

#[derive(Debug, Default)]
struct Input {
    /// As much of the next length as has come.
    length: [u8; LENGTH],
    have: usize,
    /// What is left of the present piece.
    left: usize,
    ended: bool,
}

#[derive(Debug, Default)]
struct Output {
    /// The present piece with its length, and how much of it is sent.
    piece: Vec<u8>,
    sent: usize,
    ended: bool,
    /// It was given up, or is to end by a reset: nothing more is sent.
    aborted: bool,
}

impl<S: Carrier> Tunnel<S> {
    /// Over a carrier that nothing was sent on.
    pub fn new(carrier: S) -> Self {
        Self { carrier, input: Input::default(), output: Output::default() }
    }

    /// Sends what waits.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let output = &mut self.output;
        while let Some(rest) = output.piece.get(output.sent..).filter(|rest| !rest.is_empty()) {
            let sent = ready!(Pin::new(&mut self.carrier).poll_write(cx, rest))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            output.sent += sent;
        }
        output.piece.clear();
        output.sent = 0;
        Poll::Ready(Ok(()))
    }

    fn enqueue(&mut self, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).unwrap_or_default();
        self.output.piece.extend_from_slice(&length.to_be_bytes());
        self.output.piece.extend_from_slice(bytes);
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        if !self.output.ended {
            self.enqueue(&[]);
            self.output.ended = true;
        }
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.carrier).poll_flush(cx)
    }
}

impl<S: Carrier> AsyncRead for Tunnel<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { carrier, input, .. } = &mut *self;
        while input.left == 0 && !input.ended {
            let mut length = ReadBuf::new(&mut input.length[input.have..]);
            ready!(Pin::new(&mut *carrier).poll_read(cx, &mut length))?;
            match length.filled().len() {
                0 => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                more => input.have += more,
            }
            if input.have == LENGTH {
                input.have = 0;
                input.left = u32::from_be_bytes(input.length) as usize;
                input.ended = input.left == 0;
            }
        }
        if input.left > PIECE {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the other end is no xstack",
            )));
        }
        if input.ended || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let wanted = input.left.min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(wanted));
        ready!(Pin::new(carrier).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        if read == 0 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        input.left -= read;
        buf.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl<S: Carrier> AsyncWrite for Tunnel<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.output.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(self.poll_drain(cx))?;
        let piece = &buf[..buf.len().min(PIECE)];
        if !piece.is_empty() {
            self.enqueue(piece);
            // What can't be sent now is with the next write, or with a flush.
            if let Poll::Ready(Err(error)) = self.poll_drain(cx) {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.carrier).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_end(cx)
    }
}

impl<S: Carrier> Connection for Tunnel<S> {
    fn reset(mut self) {
        self.output.aborted = true;
    }
}

impl<S: Carrier> Drop for Tunnel<S> {
    /// Dropped, a connection is closed in order: the other end is told, if it takes it at once.
    fn drop(&mut self) {
        if !self.output.aborted && !self.output.ended {
            let _ = self.poll_end(&mut Context::from_waker(Waker::noop()));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixStream,
    };

    use super::*;

    fn pair() -> (Tunnel<UnixStream>, Tunnel<UnixStream>) {
        let (a, b) = UnixStream::pair().expect("a pair");
        (Tunnel::new(a), Tunnel::new(b))
    }

    #[tokio::test]
    async fn all_bytes_of_both_directions_arrive_and_so_do_the_ends() {
        let (mut a, mut b) = pair();
        let sent: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
        let expected = sent.clone();
        let there = tokio::spawn(async move {
            a.write_all(&sent).await.expect("writes");
            a.shutdown().await.expect("ends");
            let mut answer = Vec::new();
            a.read_to_end(&mut answer).await.expect("an end in order");
            answer
        });
        let mut received = Vec::new();
        b.read_to_end(&mut received).await.expect("an end in order");
        assert!(received == expected, "{} bytes", received.len());
        // Half-closed, it carries the other direction on.
        b.write_all(b"thanks").await.expect("writes");
        drop(b);
        assert_eq!(there.await.expect("ends"), b"thanks");
    }

    #[tokio::test]
    async fn a_reset_and_a_killed_end_are_no_ends() {
        let (mut a, mut b) = pair();
        b.write_all(b"cut o").await.expect("writes");
        b.flush().await.expect("sends");
        b.reset();
        let mut received = Vec::new();
        let error = a.read_to_end(&mut received).await.expect_err("a reset");
        assert_eq!((error.kind(), received.as_slice()), (io::ErrorKind::ConnectionReset, &b"cut o"[..]));
        let (a, mut killed) = UnixStream::pair().expect("a pair");
        killed.write_all(&[0, 0]).await.expect("writes");
        drop(killed);
        let error = Tunnel::new(a).read_to_end(&mut received).await.expect_err("a reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn an_absurd_length_is_refused_before_anything_is_kept() {
        let (a, mut stranger) = UnixStream::pair().expect("a pair");
        stranger.write_all(b"HTTP/1.1 200 OK\r\n").await.expect("writes");
        let error = Tunnel::new(a).read(&mut [0; 100]).await.expect_err("no piece");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
