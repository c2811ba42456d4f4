//! Waiting for frames without spinning.

use std::{
    io,
    os::fd::OwnedFd,
    task::{Context, Poll},
};

use tokio::io::{Interest, unix::AsyncFd};

/// The queues of a device, to wait until one of them has a frame.
#[derive(Debug)]
pub struct Readable(Vec<AsyncFd<OwnedFd>>);

impl Readable {
    /// Registers the [descriptors](super::Device::fds) of a device with tokio's reactor.
    ///
    /// # Errors
    /// When the system can't wait on one of them.
    pub fn new(queues: Vec<OwnedFd>) -> io::Result<Self> {
        let register = |queue| {
            // SAFETY: the descriptor is owned by the `AsyncFd` from here on, which never gives it out: it stays open,
            // and the same, for as long as that lives.
            let registered = unsafe { AsyncFd::register_with_interest(queue, Interest::READABLE) };
            registered.map_err(io::Error::from)
        };
        queues.into_iter().map(register).collect::<io::Result<_>>().map(Self)
    }

    /// Ready when a queue has a frame. Its readiness is cleared before the rings are read, not after: a frame that
    /// comes in between makes it ready anew.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut ready = Poll::Pending;
        for queue in &self.0 {
            if let Poll::Ready(guard) = queue.poll_read_ready(cx) {
                guard?.clear_ready();
                ready = Poll::Ready(Ok(()));
            }
        }
        ready
    }
}
