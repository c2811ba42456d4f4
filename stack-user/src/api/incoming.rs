//! The connections of a listener as a stream, in the sense of the `futures` crates.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::stream::{FusedStream, Stream};

use super::{TcpListener, TcpStream};

/// The connections of a borrowed listener: see [`TcpListener::incoming`].
#[derive(Debug)]
#[must_use = "a stream does nothing unless it is polled"]
pub struct Incoming<'a> {
    listener: &'a TcpListener,
    has_ended: bool,
}

/// The connections of a listener: see [`TcpListener::into_incoming`].
#[derive(Debug)]
#[must_use = "a stream does nothing unless it is polled"]
pub struct IntoIncoming {
    listener: TcpListener,
    has_ended: bool,
}

impl TcpListener {
    /// The connections that come, one after the other, as [`accept`](Self::accept) returns them. It ends after its first
    /// error, since no connection can come after one.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self, has_ended: false }
    }

    /// [`incoming`](Self::incoming) for those who give the listener away.
    pub fn into_incoming(self) -> IntoIncoming {
        IntoIncoming { listener: self, has_ended: false }
    }
}

impl AsRef<TcpListener> for IntoIncoming {
    fn as_ref(&self) -> &TcpListener {
        &self.listener
    }
}

/// Both kinds.
macro_rules! streams {
    ($($incoming:ty),*) => {$(
        impl Stream for $incoming {
            type Item = io::Result<TcpStream>;

            fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
                if self.has_ended {
                    return Poll::Ready(None);
                }
                self.listener.poll_accept(cx).map(|accepted| {
                    self.has_ended = accepted.is_err();
                    Some(accepted.map(|(stream, _)| stream))
                })
            }
        }

        impl FusedStream for $incoming {
            fn is_terminated(&self) -> bool {
                self.has_ended
            }
        }
    )*};
}

streams!(Incoming<'_>, IntoIncoming);
