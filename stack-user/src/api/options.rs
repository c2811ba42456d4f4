//! What can be chosen for a stream while it is open, and what it tells of itself.

use std::{
    future::poll_fn,
    io,
    sync::atomic::{AtomicU32, Ordering},
    task::Poll,
};

use super::TcpStream;
use crate::{
    tcp::{self, Connection},
    time::Duration,
};

/// How long closing waits for what was written to be delivered (`SO_LINGER`): milliseconds, or [`Linger::OFF`].
#[derive(Debug)]
pub(super) struct Linger(AtomicU32);

impl Linger {
    const OFF: u32 = u32::MAX;

    pub(super) fn new(time: Option<Duration>) -> Self {
        let linger = Self::default();
        linger.set(time);
        linger
    }

    pub(super) fn set(&self, time: Option<Duration>) {
        // 49 days are as good as more. What is not zero stays so.
        let millis = |time: Duration| {
            let millis = u32::try_from(time.as_millis()).unwrap_or(Self::OFF).min(Self::OFF - 1);
            if time.is_zero() { 0 } else { millis.max(1) }
        };
        self.0.store(time.map_or(Self::OFF, millis), Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> Option<Duration> {
        match self.0.load(Ordering::Relaxed) {
            Self::OFF => None,
            millis => Some(Duration::from_millis(millis.into())),
        }
    }
}

impl Default for Linger {
    fn default() -> Self {
        Self(AtomicU32::new(Self::OFF))
    }
}

impl TcpStream {
    /// Sends small writes at once (`TCP_NODELAY`) instead of waiting for the ACK of what is on its way, or not any more.
    pub fn set_nodelay(&self, nodelay: bool) {
        self.with(|core, _, id| core.stack.tcp_set_nodelay(id, nodelay));
    }

    /// Whether small writes are sent at once.
    ///
    /// # Errors
    /// `NotConnected` when the connection has ended.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.look(Connection::nodelay)
    }

    /// Time to live of the packets that are sent from now on (`IP_TTL`). Default: 64. Zero counts as one.
    pub fn set_ttl(&self, ttl: u8) {
        self.with(|core, _, id| core.stack.tcp_set_hop_limit(id, ttl));
    }

    /// Time to live of the packets.
    ///
    /// # Errors
    /// `NotConnected` when the connection has ended.
    pub fn ttl(&self) -> io::Result<u8> {
        self.look(|connection| connection.ip_fields().hop_limit)
    }

    /// Marks what is sent from now on with a Differentiated Services Codepoint, six bits (the upper ones of `IP_TOS`).
    pub fn set_dscp(&self, dscp: u8) {
        self.with(|core, _, id| core.stack.tcp_set_dscp(id, dscp));
    }

    /// The Differentiated Services Codepoint of the packets.
    ///
    /// # Errors
    /// `NotConnected` when the connection has ended.
    pub fn dscp(&self) -> io::Result<u8> {
        self.look(Connection::dscp)
    }

    /// Asks a silent peer from time to time whether it is there (`SO_KEEPALIVE` with `TCP_KEEPIDLE`, `TCP_KEEPINTVL` and
    /// `TCP_KEEPCNT`), or not any more. By default it is not asked. When it does not answer, reading fails with `TimedOut`.
    pub fn set_keepalive(&self, keepalive: Option<tcp::KeepAlive>) {
        self.with(|core, now, id| core.stack.tcp_set_keepalive(now, id, keepalive));
    }

    /// Whether and how a silent peer is asked.
    ///
    /// # Errors
    /// `NotConnected` when the connection has ended.
    pub fn keepalive(&self) -> io::Result<Option<tcp::KeepAlive>> {
        self.look(Connection::keepalive)
    }

    /// How long what was written may stay without the peer's acknowledgement before the connection fails with `TimedOut`
    /// (`TCP_USER_TIMEOUT`). The default is five minutes.
    pub fn set_user_timeout(&self, timeout: Duration) {
        self.with(|core, now, id| core.stack.tcp_set_user_timeout(now, id, timeout));
    }

    /// How long what was written may stay without an acknowledgement. With the option of RFC 5482 the peer has a say in it.
    ///
    /// # Errors
    /// `NotConnected` when the connection has ended.
    pub fn user_timeout(&self) -> io::Result<Duration> {
        self.look(Connection::user_timeout)
    }

    /// How long [`close`](Self::close) waits for what was written to be delivered (`SO_LINGER`). Dropping never waits, since
    /// that would hold up other tasks: it delivers in the background whatever was chosen here, with one exception. With a time
    /// of 0, dropping and closing reset the connection at once, and give up what was not delivered.
    pub fn set_linger(&self, time: Option<Duration>) {
        self.linger_time().set(time);
        let is_zero = time.is_some_and(|time| time.is_zero());
        self.with(|core, _, id| core.stack.tcp_set_zero_linger(id, is_zero));
    }

    /// [`set_linger`](Self::set_linger) with a time of 0.
    pub fn set_zero_linger(&self) {
        self.set_linger(Some(Duration::ZERO));
    }

    /// How long closing waits, if that was chosen.
    pub fn linger(&self) -> Option<Duration> {
        self.linger_time().get()
    }

    /// Closes our direction, and waits until the peer has acknowledged all that was written and the end of it: what
    /// `close` is to the kernel's sockets with `SO_LINGER`. It waits no longer than the [linger](Self::set_linger) time, if
    /// there is one; else the [user time-out](Self::set_user_timeout) ends the wait for a peer that is gone. Then the stream
    /// is dropped, and what is not delivered yet still is, in the background.
    ///
    /// An acknowledgement comes from the peer's stack. Whether its application has read, only the application can say.
    ///
    /// # Errors
    /// `TimedOut` when the time is over; why the connection failed, if it did; why the stack stopped, if it did.
    pub async fn close(self) -> io::Result<()> {
        let time = self.linger();
        if time.is_some_and(|time| time.is_zero()) {
            return Ok(());
        }
        self.shut_down_write()?;
        let delivered = poll_fn(|cx| {
            self.with(|core, _, id| {
                core.running()?;
                match core.stack.tcp(id).and_then(|connection| connection.delivered()) {
                    Some(outcome) => Poll::Ready(outcome.map_err(io::Error::from)),
                    None => {
                        core.waiters.wait_to_write(id, cx);
                        Poll::Pending
                    }
                }
            })
        });
        let Some(time) = time else { return delivered.await };
        tokio::time::timeout(time, delivered).await.unwrap_or_else(|_| {
            let message = format!("not all that was written was acknowledged within {time:?}");
            Err(io::Error::new(io::ErrorKind::TimedOut, message))
        })
    }

    /// What the protocol knows of the connection, in the manner of Linux' `TCP_INFO`. `None` when it has ended.
    pub fn info(&self) -> Option<tcp::Info> {
        self.look(Connection::info).ok()
    }

    /// Why the connection failed, if it did (`SO_ERROR`). Asking does not take the error away: reading tells it, too.
    pub fn error(&self) -> Option<io::Error> {
        self.look(Connection::error).ok().flatten().map(io::Error::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linger_time_is_kept_to_the_millisecond_and_only_zero_is_zero() {
        for (given, kept) in [
            (None, None),
            (Some(Duration::ZERO), Some(Duration::ZERO)),
            (Some(Duration::from_nanos(1)), Some(Duration::from_millis(1))),
            (Some(Duration::from_secs(3)), Some(Duration::from_secs(3))),
            (Some(Duration::MAX), Some(Duration::from_millis(u64::from(u32::MAX - 1)))),
        ] {
            assert_eq!(Linger::new(given).get(), kept);
        }
    }
}
