//! Why a shard does nothing any more.

use std::{fmt, io, sync::Arc};

/// Why a shard stopped before anybody closed it. Every call that needs it fails with this.
#[derive(Clone, Debug)]
pub struct Stopped {
    kind: io::ErrorKind,
    reason: Arc<str>,
}

impl Stopped {
    /// The device failed.
    pub(super) fn by(error: &io::Error) -> Self {
        Self { kind: error.kind(), reason: error.to_string().into() }
    }

    /// The driver's task was dropped.
    pub(super) fn abandoned() -> Self {
        let reason = "the tokio runtime that it was started on was shut down";
        Self { kind: io::ErrorKind::NotConnected, reason: reason.into() }
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the stack stopped: {}", self.reason)
    }
}

impl std::error::Error for Stopped {}

impl From<Stopped> for io::Error {
    fn from(stopped: Stopped) -> Self {
        Self::new(stopped.kind, stopped)
    }
}
