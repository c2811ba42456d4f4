//! What the XDP program says about its decisions, handed on to the process's own log.

use std::{
    io,
    os::{fd::AsFd, unix::net::UnixStream},
    thread::{self, JoinHandle},
};

use aya::Ebpf;
use aya_log::EbpfLogger;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::device::unprivileged::thread_begins;

/// Reads records until it is dropped.
#[derive(Debug)]
pub(super) struct Records {
    /// Closed to end the thread.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Records {
    /// Starts to hand records on.
    pub(super) fn forward(object: &mut Ebpf) -> io::Result<Self> {
        let mut logger = EbpfLogger::init(object).map_err(io::Error::other)?;
        let (stop, stopped) = UnixStream::pair()?;
        let read = move || {
            thread_begins();
            loop {
                let mut fds = [
                    PollFd::new(logger.as_fd(), PollFlags::POLLIN),
                    PollFd::new(stopped.as_fd(), PollFlags::POLLIN),
                ];
                let polled = poll(&mut fds, PollTimeout::NONE);
                let is_over = fds[1].any().unwrap_or(true);
                logger.flush();
                if is_over || polled.is_err_and(|error| error != nix::Error::EINTR) {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("xdp-log".to_owned()).spawn(read)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It can only have panicked, and has said so itself.
            let _ = thread.join();
        }
    }
}

/// A level as the program knows it: records up to it are made.
pub(super) fn level(level: tracing::Level) -> u8 {
    let level = match level {
        tracing::Level::ERROR => aya_log::Level::Error,
        tracing::Level::WARN => aya_log::Level::Warn,
        tracing::Level::INFO => aya_log::Level::Info,
        tracing::Level::DEBUG => aya_log::Level::Debug,
        tracing::Level::TRACE => aya_log::Level::Trace,
    };
    level as u8
}
