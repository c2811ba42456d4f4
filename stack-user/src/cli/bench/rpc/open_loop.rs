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
    begins: Instant,
    /// How many go out in a second, of all connections together.
    rate: u32,
    /// Which connection this is, from 0, of how many that have their turns.
    connection: u32,
    connections: u32,
}

impl Pace {
    /// The one of the connection of that number, of as many as share the rate.
    pub(super) fn new(begins: Instant, rate: u32, connection: u32, connections: u32) -> Self {
        Self { begins, rate, connection, connections }
    }

    /// When the request of that number is due, counted from 0.
    fn due(&self, number: u64) -> Instant {
        let of_all = u128::from(number) * u128::from(self.connections) + u128::from(self.connection);
        self.begins + every(self.rate, of_all)
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
    let mut sleep = pin!(sleep_until(pace.due(0)));
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

#[cfg(test)]
mod tests {
    use std::{pin::pin, sync::Arc};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        task::JoinSet,
        time::{advance, sleep},
    };

    use super::*;
    use crate::cli::{
        bench::rpc::{course::Extent, histogram::Summary, report::Teller, rr::closed_loop},
        console::Output,
    };

    const LENGTHS: Lengths = Lengths { request: 8, response: 16 };
    const SECOND: Duration = Duration::from_secs(1);

    /// A server that takes a millisecond for each answer, and once a second more.
    async fn stalling(mut stream: DuplexStream, at: Instant) {
        let mut stalled = false;
        while stream.read_exact(&mut [0; 8]).await.is_ok() {
            if !stalled && Instant::now() >= at {
                stalled = true;
                sleep(SECOND).await;
            }
            sleep(Duration::from_millis(1)).await;
            let _ = stream.write_all(&[0; 16]).await;
        }
    }

    /// Ten seconds of such a server, half-way through which it is stuck.
    async fn measure(rate: Option<u32>) -> (u64, Summary) {
        let (mut ours, theirs) = duplex(1 << 16);
        let course =
            Course::begin(Extent { omit: Duration::ZERO, time: Some(10 * SECOND), transactions: None });
        tokio::spawn(stalling(theirs, course.begins() + 5 * SECOND));
        let worker = Arc::clone(&course);
        let worker = tokio::spawn(async move {
            match rate {
                Some(rate) => {
                    let pace = Pace::new(worker.begins(), rate, 0, 1);
                    run(&mut ours, LENGTHS, pace, &worker).await
                }
                None => closed_loop(&mut ours, LENGTHS, &worker).await,
            }
        });
        // Who waits without sleeping would wait for ever for a clock that stands still while anybody is awake.
        while !worker.is_finished() {
            advance(Duration::from_micros(500)).await;
        }
        let mut workers = JoinSet::new();
        workers.spawn(async { worker.await.expect("did not panic") });
        let mut teller = Teller::quiet(Output::new(tokio::io::sink(), false), true);
        let outcome = course.attend(workers, &mut teller, pin!(std::future::pending())).await.expect("ends");
        (outcome.latencies.count(), outcome.latencies.summary())
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_without_answers_shows_in_the_tail_of_requests_that_were_due_and_not_of_those_that_waited()
     {
        let (count, open) = measure(Some(500)).await;
        assert_eq!(count, 5_000);
        assert!(open.p50 < 10_000_000, "most are not concerned: {open:?}");
        // 500 fell into that second, and as long again it took to catch up: a tenth waited for more than half a second.
        assert!(open.p90 > 300_000_000 && open.p99 > 900_000_000, "{open:?}");
        assert!((1_000_000_000..1_100_000_000).contains(&open.max), "{open:?}");

        let (count, closed) = measure(None).await;
        assert!((4_000..10_000).contains(&count), "{count}");
        assert!(closed.p999 < 10_000_000 && closed.max > 1_000_000_000, "one of them all: {closed:?}");
    }

    #[test]
    fn connections_take_turns_and_the_rate_is_exact_for_days() {
        let begins = Instant::now();
        let paces: Vec<_> = (0..3).map(|number| Pace::new(begins, 7, number, 3)).collect();
        let mut due: Vec<_> =
            (0..7).flat_map(|number| paces.iter().map(move |pace| pace.due(number))).collect();
        assert!(due.is_sorted());
        due.dedup();
        assert_eq!(due.len(), 21);
        assert_eq!(due[7] - due[0], SECOND);
        let days = paces[0].due(7 * 86_400 * 30) - begins;
        assert_eq!(days, Duration::from_secs(3 * 86_400 * 30));
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_can_not_be_sent_yet_are_sent_later_and_count_from_when_they_were_due() {
        // Room for one request only: whoever does not read holds all others up.
        let (mut ours, mut theirs) = duplex(8);
        let course = Course::begin(Extent { omit: Duration::ZERO, time: None, transactions: Some(10) });
        let worker = Arc::clone(&course);
        let worker = tokio::spawn(async move {
            run(&mut ours, LENGTHS, Pace::new(worker.begins(), 100, 0, 1), &worker).await
        });
        tokio::spawn(async move {
            sleep(SECOND).await;
            while theirs.read_exact(&mut [0; 8]).await.is_ok() {
                let _ = theirs.write_all(&[0; 16]).await;
            }
        });
        while !worker.is_finished() {
            advance(Duration::from_millis(1)).await;
        }
        worker.await.expect("did not panic").expect("all are answered");
        let mut teller = Teller::quiet(Output::new(tokio::io::sink(), false), true);
        let outcome =
            course.attend(JoinSet::new(), &mut teller, pin!(std::future::pending())).await.expect("ends");
        let Summary { min, max, .. } = outcome.latencies.summary();
        assert_eq!(outcome.latencies.count(), 10);
        assert!(min >= 900_000_000 && max >= 999_000_000, "{min} {max}");
    }
}
