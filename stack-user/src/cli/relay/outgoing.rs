//! A connection to a target, whichever side it goes through.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::cli::network::Connection;
use crate::tcp::KeepAlive;

/// A stream of ours, of the kernel's, or to a socket file.
#[derive(Debug)]
pub enum Outgoing<S> {
    /// Through our stack.
    Ours(S),
    /// Through the kernel's sockets.
    Kernel(TcpStream),
    /// To a socket file.
    Unix(UnixStream),
}

/// Does the same with whichever it is.
macro_rules! each {
    ($outgoing:expr, $stream:ident => $work:expr) => {
        match $outgoing {
            Outgoing::Ours($stream) => $work,
            Outgoing::Kernel($stream) => $work,
            Outgoing::Unix($stream) => $work,
        }
    };
}

impl<S: Connection> AsyncRead for Outgoing<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl<S: Connection> AsyncWrite for Outgoing<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        each!(self, stream => stream.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}

impl<S: Connection> Connection for Outgoing<S> {
    fn reset(self) {
        each!(self, stream => Connection::reset(stream));
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        each!(self, stream => Connection::local_addr(stream))
    }

    fn set_keepalive(&self, keepalive: KeepAlive) {
        each!(self, stream => Connection::set_keepalive(stream, keepalive));
    }

    fn failure(&self) -> Option<io::Error> {
        each!(self, stream => Connection::failure(stream))
    }
}
