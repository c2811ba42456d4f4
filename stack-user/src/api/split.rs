//! The two directions of a stream, each by itself: what tokio's `tcp::{ReadHalf, WriteHalf, OwnedReadHalf, OwnedWriteHalf}`
//! are to the kernel's stack.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready};

use super::{Chunk, Room, TcpStream};

/// The half that reads, borrowed: see [`TcpStream::split`].
#[derive(Debug)]
pub struct ReadHalf<'a>(pub(super) &'a TcpStream);

/// The half that writes, borrowed: see [`TcpStream::split`].
#[derive(Debug)]
pub struct WriteHalf<'a>(pub(super) &'a TcpStream);

/// The half that reads: see [`TcpStream::into_split`].
#[derive(Debug)]
pub struct OwnedReadHalf {
    stream: Arc<TcpStream>,
}

/// The half that writes: see [`TcpStream::into_split`].
#[derive(Debug)]
pub struct OwnedWriteHalf {
    stream: Arc<TcpStream>,
    closes_on_drop: bool,
}

/// The halves are not of one stream.
#[derive(Debug, thiserror::Error)]
#[error("these halves are not of one stream")]
pub struct ReuniteError(pub OwnedReadHalf, pub OwnedWriteHalf);

impl OwnedReadHalf {
    pub(super) fn new(stream: Arc<TcpStream>) -> Self {
        Self { stream }
    }

    /// The stream that they are halves of.
    ///
    /// # Errors
    /// The halves, if they are of two streams.
    pub fn reunite(self, write: OwnedWriteHalf) -> Result<TcpStream, ReuniteError> {
        if !Arc::ptr_eq(&self.stream, &write.stream) {
            return Err(ReuniteError(self, write));
        }
        write.forget();
        // The other half was the only other owner.
        Arc::try_unwrap(self.stream).map_err(|stream| {
            let write = OwnedWriteHalf::new(Arc::clone(&stream));
            ReuniteError(Self { stream }, write)
        })
    }
}

impl OwnedWriteHalf {
    pub(super) fn new(stream: Arc<TcpStream>) -> Self {
        Self { stream, closes_on_drop: true }
    }

    /// The stream that they are halves of.
    ///
    /// # Errors
    /// The halves, if they are of two streams.
    pub fn reunite(self, read: OwnedReadHalf) -> Result<TcpStream, ReuniteError> {
        read.reunite(self)
    }

    /// Drops the half, and leaves our direction open until the other half is dropped, too.
    pub fn forget(mut self) {
        self.closes_on_drop = false;
    }
}

impl Drop for OwnedWriteHalf {
    fn drop(&mut self) {
        if mem::take(&mut self.closes_on_drop) {
            // If the stack has stopped, there is nothing to close.
            let _ = self.stream.shut_down_write();
        }
    }
}

/// What both kinds of a half have.
macro_rules! halves {
    ($($read:ty, $write:ty, $stream:tt;)*) => {$(
        impl $read {
            /// As [`TcpStream::peek`].
            ///
            /// # Errors
            /// As there.
            pub async fn peek(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                self.$stream.peek(buf).await
            }

            /// As [`TcpStream::readable`].
            ///
            /// # Errors
            /// As there.
            pub async fn readable(&self) -> io::Result<()> {
                self.$stream.readable().await
            }

            /// As [`TcpStream::poll_peek`].
            ///
            /// # Errors
            /// As there.
            pub fn poll_peek(&mut self, cx: &Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
                self.$stream.poll_peek(cx, buf)
            }

            /// As [`TcpStream::try_read`].
            ///
            /// # Errors
            /// As there.
            pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
                self.$stream.try_read(buf)
            }

            /// As [`TcpStream::try_read_vectored`].
            ///
            /// # Errors
            /// As there.
            pub fn try_read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
                self.$stream.try_read_vectored(bufs)
            }

            /// As [`TcpStream::read_chunk`].
            ///
            /// # Errors
            /// As there.
            pub async fn read_chunk(&self) -> io::Result<Option<Chunk>> {
                self.$stream.read_chunk().await
            }
        }

        impl $write {
            /// As [`TcpStream::writable`].
            ///
            /// # Errors
            /// As there.
            pub async fn writable(&self) -> io::Result<()> {
                self.$stream.writable().await
            }

            /// As [`TcpStream::try_write`].
            ///
            /// # Errors
            /// As there.
            pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
                self.$stream.try_write(buf)
            }

            /// As [`TcpStream::try_write_vectored`].
            ///
            /// # Errors
            /// As there.
            pub fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
                self.$stream.try_write_vectored(bufs)
            }

            /// As [`TcpStream::reserve`].
            ///
            /// # Errors
            /// As there.
            pub async fn reserve(&self) -> io::Result<Room<'_>> {
                self.$stream.reserve().await
            }
        }

        halves!(@addresses $read, $stream);
        halves!(@addresses $write, $stream);

        impl AsyncRead for $read {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                self.$stream.poll_read_shared(cx, buf)
            }
        }

        impl AsyncWrite for $write {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                self.$stream.poll_write_buf(Some(cx), buf)
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                self.$stream.poll_write_bufs(Some(cx), bufs)
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }

            fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(self.$stream.shut_down_write())
            }
        }
    )*};
    (@addresses $half:ty, $stream:tt) => {
        impl $half {
            /// As [`TcpStream::ready`].
            ///
            /// # Errors
            /// As there.
            pub async fn ready(&self, interest: Interest) -> io::Result<Ready> {
                self.$stream.ready(interest).await
            }

            /// Our end's address.
            pub fn local_addr(&self) -> SocketAddr {
                self.$stream.local_addr()
            }

            /// The peer's address.
            pub fn peer_addr(&self) -> SocketAddr {
                self.$stream.peer_addr()
            }
        }

        impl AsRef<TcpStream> for $half {
            fn as_ref(&self) -> &TcpStream {
                &self.$stream
            }
        }
    };
}

halves! {
    ReadHalf<'_>, WriteHalf<'_>, 0;
    OwnedReadHalf, OwnedWriteHalf, stream;
}
