//! Waiting for frames without spinning.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    ptr,
    task::{Context, Poll},
};

use tokio::io::{Interest, unix::AsyncFd};

/// The queues of a device, to wait until one of them has a frame.
#[derive(Debug)]
pub struct Readable {
    queues: Vec<AsyncFd<OwnedFd>>,
    /// There is a driver that may be asked for frames.
    has_driver: bool,
}

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
        let queues = queues.into_iter().map(register).collect::<io::Result<_>>()?;
        Ok(Self { queues, has_driver: true })
    }

    /// Those of a device without a driver that could be [asked](Self::poll_driver) for frames: whoever sends them brings them.
    #[must_use]
    pub fn without_driver(self) -> Self {
        Self { has_driver: false, ..self }
    }

    /// Has the drivers of the queues look for frames, where their sockets are set to [poll them](super::busy_poll). Where they
    /// are not, the kernel has nothing to do. Returns whether there are any: it is a system call for each.
    pub fn poll_driver(&self) -> bool {
        for queue in self.queues.iter().filter(|_| self.has_driver) {
            // SAFETY: no byte is written: there is no room for one. An AF_XDP socket gives frames through its ring only, and of
            // errors hears whoever sends on it.
            unsafe { libc::recv(queue.get_ref().as_raw_fd(), ptr::null_mut(), 0, libc::MSG_DONTWAIT) };
        }
        self.has_driver
    }

    /// Ready when a queue has a frame. Its readiness is cleared before the rings are read, not after: a frame that
    /// comes in between makes it ready anew.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut ready = Poll::Pending;
        for queue in &self.queues {
            if let Poll::Ready(guard) = queue.poll_read_ready(cx) {
                guard?.clear_ready();
                ready = Poll::Ready(Ok(()));
            }
        }
        ready
    }
}
