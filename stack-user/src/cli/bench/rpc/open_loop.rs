//! Requests at a fixed rate, whatever becomes of those before them.
//!
//! A client that waits for an answer before it asks again asks less while the server is stuck, and so hardly sees that it was:
//! a second in which nothing was answered is one slow transaction among thousands. Users do not wait for each other. Here a
//! request is due at its time, and how long it took counts from then, also if it could not be sent or was answered behind
//! others: each that fell into that second shows what was left of it. This is known as avoiding coordinated omission.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Sleep, sleep_until},
};

use super::{
    broken::Broken,
    course::Course,
    payload::{FILLING, give_way, poll_skip},
    protocol::Lengths,
};

/// How long before a request is due it is waited for without sleeping. Timers are due within a millisecond, which is a hundred
/// times what an answer takes and would be measured in its place. So from 500 requests a second on, the client never sleeps.
const AWAKE: Duration = Duration::from_millis(2);

/// When requests are due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    first: Instant,
    /// How many go out in a second, of all connections together.
    rate: u32,
    /// How many connections share them, in turn.
    connections: u32,
}

impl Pace {
    /// The one of the connection of that number, of as many as share the rate.
    pub(super) fn new(begins: Instant, rate: u32, connection: u32, connections: u32) -> Self {
        let first = begins + every(rate, connection.into());
        Self { first, rate, connections }
    }

    /// When the request of that number is due, counted from 0.
    fn due(&self, number: u64) -> Instant {
        self.first + every(self.rate, u128::from(number) * u128::from(self.connections))
    }
}

/// So many times the time between two requests, without an error that would grow.
fn every(rate: u32, times: u128) -> Duration {
    let nanos = times * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// How far it is.
struct Progress {
    /// Requests that were to be sent by now.
    due: u64,
    /// Bytes of them that are sent.
    sent: u64,
    /// Bytes of responses that came.
    got: u64,
    /// Whole responses.
    answered: u64,
    /// No more become due.
    over: bool,
}

/// Sends requests when they are due until the run is over, and waits for the answers.
pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    lengths: Lengths,
    pace: Pace,
    course: &Course,
) -> Result<(), Broken> {
    let mut progress = Progress { due: 0, sent: 0, got: 0, answered: 0, over: false };
    let mut sleep = pin!(sleep_until(pace.first));
    poll_fn(|cx| {
        progress.receive(stream, cx, lengths, pace, course)?;
        let now = Instant::now();
        progress.become_due(now, pace, course);
        progress.send(stream, cx, lengths)?;
        if progress.over {
            return if progress.answered == progress.due { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        wait(sleep.as_mut(), cx, now, pace.due(progress.due));
        Poll::Pending
    })
    .await
}

impl Progress {
    fn receive<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        lengths: Lengths,
        pace: Pace,
        course: &Course,
    ) -> Result<(), Broken> {
        while let Poll::Ready(came) = poll_skip(stream, cx)? {
            if came == 0 {
                return Err(Broken::Closed);
            }
            let now = Instant::now();
            self.got += came as u64;
            let asked = self.sent / u64::from(lengths.request);
            while self.got >= u64::from(lengths.response) && self.answered < asked {
                self.got -= u64::from(lengths.response);
                course.record(pace.due(self.answered), now);
                self.answered += 1;
            }
            if self.got > 0 && self.answered >= asked {
                return Err(Broken::Surplus);
            }
        }
        Ok(())
    }

    fn become_due(&mut self, now: Instant, pace: Pace, course: &Course) {
        while !self.over && pace.due(self.due) <= now {
            if course.admits(pace.due(self.due)) {
                self.due += 1;
            } else {
                self.over = true;
            }
        }
    }

    fn send<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        lengths: Lengths,
    ) -> Result<(), Broken> {
        loop {
            let left = self.due * u64::from(lengths.request) - self.sent;
            let next = FILLING.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            if next == 0 {
                return Ok(());
            }
            match Pin::new(&mut *stream).poll_write(cx, &FILLING[..next])? {
                Poll::Ready(0) => return Err(Broken::Closed),
                Poll::Ready(bytes) => self.sent += bytes as u64,
                Poll::Pending => return Ok(()),
            }
        }
    }
}

/// Has the task woken when it is time, without sleeping if it soon is.
fn wait(sleep: Pin<&mut Sleep>, cx: &mut Context<'_>, now: Instant, due: Instant) {
    if due.saturating_duration_since(now) <= AWAKE {
        return give_way(cx);
    }
    let mut sleep = sleep;
    sleep.as_mut().reset(due - AWAKE);
    if sleep.poll(cx).is_ready() {
        give_way(cx);
    }
}
