//! What a connection tells its application.

use super::error::{Error, Unreachable};

/// Something happened. Of each kind at most one waits, so that who does not care may leave them (RFC 9293 §3.9.1.8,
/// SHLD-20); they come out in the order in which they stand here, which is
/// the order in which an application wants to act upon them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The handshake is complete: it can be written.
    Connected,
    /// There is more to read than before.
    Readable,
    /// There is urgent data that was not announced before (RFC 9293 §3.8.5, MUST-32):
    /// [`urgent_ahead`](super::Connection::urgent_ahead) tells how far it goes.
    Urgent,
    /// An ICMP error came that ends nothing by itself (RFC 9293 §3.9.1.8, MUST-47; §3.9.2.2, SHLD-25).
    Unreachable(Unreachable),
    /// The same data, or SYN, went out [R1](super::R1) times more and was not acknowledged (RFC 9293 §3.8.3, SHLD-9).
    Stalled,
    /// There is room to write, after `write` had said [`WouldBlock`](super::WriteError::WouldBlock); or the peer has all that
    /// was written, and our FIN.
    Writable,
    /// The peer sends no more: after what is there, `read` returns 0.
    PeerClosed,
    /// The connection failed: no orderly end (RFC 9293 §3.6, MUST-12). What had come before can still be read.
    Failed(Error),
    /// All is done, and nothing more will happen. Comes last, after `Failed` or an orderly end.
    Closed,
}

impl Event {
    /// Whether a `read` that found nothing should be tried again.
    pub fn is_readable(self) -> bool {
        matches!(self, Self::Readable | Self::Urgent | Self::PeerClosed | Self::Failed(_) | Self::Closed)
    }

    /// Whether it is a report of something that may pass by itself (RFC 9293 §3.9.1.8).
    pub fn is_report(self) -> bool {
        matches!(self, Self::Urgent | Self::Unreachable(_) | Self::Stalled)
    }

    /// Whether a `write` that found no room, or a wait for the connection, should be tried again.
    pub fn is_writable(self) -> bool {
        matches!(self, Self::Connected | Self::Writable | Self::Failed(_) | Self::Closed)
    }
}

/// Events that wait.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Events {
    connected: bool,
    readable: bool,
    urgent: bool,
    unreachable: Option<Unreachable>,
    stalled: bool,
    writable: bool,
    peer_closed: bool,
    failed: Option<Error>,
    closed: bool,
}

impl Events {
    pub(super) fn push(&mut self, event: Event) {
        match event {
            Event::Connected => self.connected = true,
            Event::Readable => self.readable = true,
            Event::Urgent => self.urgent = true,
            Event::Unreachable(kind) => self.unreachable = Some(kind),
            Event::Stalled => self.stalled = true,
            Event::Writable => self.writable = true,
            Event::PeerClosed => self.peer_closed = true,
            Event::Failed(error) => self.failed = Some(error),
            Event::Closed => self.closed = true,
        }
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        // Most often there is none, and nothing is written then.
        if self.is_empty() {
            return None;
        }
        let take = core::mem::take::<bool>;
        if take(&mut self.connected) {
            Some(Event::Connected)
        } else if take(&mut self.readable) {
            Some(Event::Readable)
        } else if take(&mut self.urgent) {
            Some(Event::Urgent)
        } else if let Some(kind) = self.unreachable.take() {
            Some(Event::Unreachable(kind))
        } else if take(&mut self.stalled) {
            Some(Event::Stalled)
        } else if take(&mut self.writable) {
            Some(Event::Writable)
        } else if take(&mut self.peer_closed) {
            Some(Event::PeerClosed)
        } else if let Some(error) = self.failed.take() {
            Some(Event::Failed(error))
        } else if take(&mut self.closed) {
            Some(Event::Closed)
        } else {
            None
        }
    }
}
