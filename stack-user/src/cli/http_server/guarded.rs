//! A connection under guard: who does not go on in time is not waited for, and what is not finished is reset.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use super::Limits;
use crate::cli::network::Connection;

/// How far the requests of one connection are: the guard is below TLS and HTTP, and could not tell otherwise.
#[derive(Debug, Default)]
pub(super) struct Activity {
    begun: AtomicU64,
    ended: AtomicU64,
    idle_for_long: AtomicBool,
    timed_out: AtomicBool,
}

/// A request under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Begun(Arc<Activity>);

impl Activity {
    /// The head of a request is here.
    pub(super) fn begin(self: &Arc<Self>) -> Begun {
        self.begun.fetch_add(1, Ordering::Relaxed);
        Begun(Arc::clone(self))
    }

    /// Nothing was asked within the limit: the connection should end in order.
    pub(super) fn is_idle_for_long(&self) -> bool {
        self.idle_for_long.load(Ordering::Relaxed)
    }

    /// The time for a head, or for taking what was sent, was over.
    pub(super) fn has_timed_out(&self) -> bool {
        self.timed_out.load(Ordering::Relaxed)
    }

    fn is_busy(&self) -> bool {
        self.begun.load(Ordering::Relaxed) != self.ended.load(Ordering::Relaxed)
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the peer is waited for, while no request is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// The head of a request, of which something has come, or the first thing on the connection.
    Head(Instant),
    /// The next request.
    Next(Instant),
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Guarded<C: Connection> {
    stream: Option<C>,
    limits: Limits,
    activity: Arc<Activity>,
    wait: Wait,
    /// How many requests had ended when `wait` began.
    ended: u64,
    /// Since when the peer takes nothing of what is to be sent.
    stalled: Option<Instant>,
    /// Fires at or before any limit, and is set again if that was too early: most limits pass by unneeded.
    timer: Pin<Box<Sleep>>,
}

impl<C: Connection> Guarded<C> {
    /// Guards a connection that has just been accepted.
    pub(super) fn new(stream: C, limits: Limits, activity: Arc<Activity>) -> Self {
        let now = Instant::now();
        let timer = Box::pin(sleep_until(now + limits.head));
        Self { stream: Some(stream), limits, activity, wait: Wait::Head(now), ended: 0, stalled: None, timer }
    }

    /// It ended in order.
    pub(super) fn finish(mut self) {
        drop(self.stream.take());
    }

    fn stream(&mut self) -> io::Result<Pin<&mut C>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Begins to wait for the next request if the last one has ended since.
    fn update(&mut self) {
        let ended = self.activity.ended.load(Ordering::Relaxed);
        if ended != self.ended {
            self.ended = ended;
            self.wait = Wait::Next(Instant::now());
        }
    }

    fn on_bytes(&mut self) {
        self.update();
        if matches!(self.wait, Wait::Next(_)) && !self.activity.is_busy() {
            self.wait = Wait::Head(Instant::now());
        }
    }

    /// Ready when `deadline` has passed.
    fn poll_deadline(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        if self.timer.deadline() > deadline {
            self.timer.as_mut().reset(deadline);
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(deadline);
        }
    }

    /// Nothing to read: how long yet?
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.update();
        if self.activity.is_busy() {
            return Poll::Pending;
        }
        match self.wait {
            Wait::Head(since) => {
                ready!(self.poll_deadline(cx, since + self.limits.head));
                Poll::Ready(Err(self.time_out("no whole request came in time")))
            }
            Wait::Next(since) => {
                if self.poll_deadline(cx, since + self.limits.idle).is_ready() {
                    self.activity.idle_for_long.store(true, Ordering::Relaxed);
                }
                Poll::Pending
            }
        }
    }

    /// What came of sending: if nothing, how long yet?
    fn poll_sent<T>(&mut self, cx: &mut Context<'_>, sent: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if sent.is_ready() {
            self.stalled = None;
            return sent;
        }
        let since = *self.stalled.get_or_insert_with(Instant::now);
        ready!(self.poll_deadline(cx, since + self.limits.send));
        Poll::Ready(Err(self.time_out("the peer takes nothing of what is sent")))
    }

    fn time_out(&self, reason: &'static str) -> io::Error {
        self.activity.timed_out.store(true, Ordering::Relaxed);
        io::Error::new(io::ErrorKind::TimedOut, reason)
    }
}

impl<C: Connection> Drop for Guarded<C> {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            stream.reset();
        }
    }
}

impl<C: Connection> AsyncRead for Guarded<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = self.stream()?.poll_read(cx, buffer);
        if read.is_pending() {
            return self.poll_silence(cx);
        }
        if buffer.filled().len() > before {
            self.on_bytes();
        }
        read
    }
}

impl<C: Connection> AsyncWrite for Guarded<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let sent = self.stream()?.poll_write(cx, bytes);
        self.poll_sent(cx, sent)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = self.stream()?.poll_write_vectored(cx, slices);
        self.poll_sent(cx, sent)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = self.stream()?.poll_flush(cx);
        self.poll_sent(cx, sent)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = self.stream()?.poll_shutdown(cx);
        self.poll_sent(cx, sent)
    }
}
