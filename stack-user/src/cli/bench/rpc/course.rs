//! The course of a run: from when on it counts, when it ends, and what has happened so far.
//!
//! Those who work share it. A transaction costs them one reading of the clock and one lock that nobody else holds.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    broken::Broken,
    faults::{Fault, Faults},
    histogram::Latencies,
    report::Teller,
};
use crate::cli::error::{Exit, Failure};

/// How long nothing at all may be answered. Three losses of one segment in a row take less; a server that is silent for longer
/// has gone, or is stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it is looked after whether something was.
const LOOK: Duration = Duration::from_secs(1);

/// How long a run is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// What is left out at its beginning.
    pub(super) omit: Duration,
    /// For how long it then goes on, if that is what ends it.
    pub(super) time: Option<Duration>,
    /// How many transactions are counted, if that is what ends it.
    pub(super) transactions: Option<u64>,
}

/// A run.
#[derive(Debug)]
pub(super) struct Course {
    begins: Instant,
    counts_from: Instant,
    ends: Option<Instant>,
    /// How many more transactions may begin; without a number of them, more than ever will.
    left: AtomicU64,
    book: Mutex<Book>,
}

/// What is written down.
#[derive(Debug)]
struct Book {
    /// Of those that count, since somebody last looked.
    latencies: Latencies,
    faults: Faults,
    /// All that have ended, in whatever way.
    ended: u64,
    /// When the last of those that count did.
    until: Instant,
}

/// What a run has given.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) latencies: Latencies,
    pub(super) faults: Faults,
    /// From when it began to count until the last transaction's end.
    pub(super) took: Duration,
    /// The exit code, if somebody stopped it before its end.
    pub(super) stopped: Option<Exit>,
}

impl Course {
    /// A run that begins now.
    pub(super) fn begin(extent: Extent) -> Arc<Self> {
        let begins = Instant::now();
        let counts_from = begins + extent.omit;
        Arc::new(Self {
            begins,
            counts_from,
            ends: extent.time.map(|time| counts_from + time),
            left: AtomicU64::new(extent.transactions.unwrap_or(u64::MAX)),
            book: Mutex::new(Book {
                latencies: Latencies::new(),
                faults: Faults::default(),
                ended: 0,
                until: counts_from,
            }),
        })
    }

    /// When it began.
    pub(super) fn begins(&self) -> Instant {
        self.begins
    }

    /// Whether another transaction is to begin at that time. It is then expected to.
    pub(super) fn admits(&self, at: Instant) -> bool {
        if at < self.counts_from {
            return true;
        }
        if self.ends.is_some_and(|ends| at >= ends) {
            return false;
        }
        let one_less = |left: u64| left.checked_sub(1);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }

    /// A transaction that began, or should have begun, at one time has ended well at another.
    pub(super) fn record(&self, began: Instant, ended: Instant) {
        let mut book = self.book();
        book.ended += 1;
        if began >= self.counts_from {
            book.latencies.record(ended.saturating_duration_since(began));
            book.until = book.until.max(ended);
        }
    }

    /// A transaction has failed.
    pub(super) fn record_fault(&self, began: Instant, fault: Fault) {
        let mut book = self.book();
        book.ended += 1;
        if began >= self.counts_from {
            book.faults.record(fault);
            book.until = book.until.max(Instant::now());
        }
    }

    /// Waits until the workers have finished, tells how it goes, and counts together. It ends early by `stop`, and when one of
    /// them can't go on.
    ///
    /// # Errors
    /// Why it could not; that nothing was answered any more; that nothing more can be told.
    pub(super) async fn attend(
        &self,
        mut workers: JoinSet<Result<(), Broken>>,
        teller: &mut Teller,
        stop: Pin<&mut impl Future<Output = Exit>>,
    ) -> Result<Outcome, Failure> {
        let outcome = self.wait(&mut workers, teller, stop).await;
        // They hold the network, which is to be closed.
        workers.shutdown().await;
        outcome
    }

    async fn wait(
        &self,
        workers: &mut JoinSet<Result<(), Broken>>,
        teller: &mut Teller,
        mut stop: Pin<&mut impl Future<Output = Exit>>,
    ) -> Result<Outcome, Failure> {
        let mut all = Latencies::new();
        let (mut answered, mut answered_at) = (0, Instant::now());
        let mut look = self.begins + LOOK;
        let mut told = self.counts_from;
        let stopped = loop {
            let tell = teller.interval().map(|interval| told + interval);
            tokio::select! {
                biased;
                exit = &mut stop => break Some(exit),
                joined = workers.join_next() => match joined {
                    None => break None,
                    Some(Ok(worked)) => worked?,
                    // One that was cancelled has been by the end of the runtime.
                    Some(Err(error)) => return Err(Failure::Interface(format!("a task ended: {error}"))),
                },
                () = until(tell) => {
                    let now = tell.unwrap_or(told);
                    let mut interval = Latencies::new();
                    interval.take(&mut self.book().latencies);
                    teller.tell_interval(told - self.counts_from, now - self.counts_from, &interval).await?;
                    all.take(&mut interval);
                    told = now;
                }
                () = sleep_until(look) => {
                    look += LOOK;
                    let ended = self.book().ended;
                    if ended != answered {
                        (answered, answered_at) = (ended, Instant::now());
                    } else if answered_at.elapsed() >= PATIENCE {
                        return Err(Broken::Silent(PATIENCE.as_secs()).into());
                    }
                }
            }
        };
        let mut rest = Latencies::new();
        let (faults, until) = {
            let mut book = self.book();
            rest.take(&mut book.latencies);
            (book.faults, book.until)
        };
        // A sliver between the last line and the end says nothing.
        if teller.interval().is_some_and(|interval| until >= told + interval / 10) {
            teller.tell_interval(told - self.counts_from, until - self.counts_from, &rest).await?;
        }
        all.take(&mut rest);
        Ok(Outcome { latencies: all, faults, took: until - self.counts_from, stopped })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outcome {
    /// Transactions that succeeded, in a second.
    pub(super) fn per_second(&self) -> f64 {
        self.latencies.count() as f64 / self.took.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::time::{advance, sleep};

    use super::*;
    use crate::cli::console::Output;

    const SECOND: Duration = Duration::from_secs(1);

    fn extent(omit: u32, time: Option<u32>, transactions: Option<u64>) -> Extent {
        Extent { omit: omit * SECOND, time: time.map(|time| time * SECOND), transactions }
    }

    async fn attend(course: &Course, workers: JoinSet<Result<(), Broken>>) -> Result<Outcome, Failure> {
        let mut teller = Teller::quiet(Output::new(tokio::io::sink(), false), true);
        course.attend(workers, &mut teller, pin!(std::future::pending())).await
    }

    #[tokio::test(start_paused = true)]
    async fn what_began_while_it_did_not_count_is_left_out_though_it_ended_later() {
        let course = Course::begin(extent(2, Some(3), None));
        let mut workers = JoinSet::new();
        let worker = Arc::clone(&course);
        workers.spawn(async move {
            let mut began = Instant::now();
            while worker.admits(began) {
                sleep(Duration::from_millis(1_500)).await;
                worker.record(began, Instant::now());
                began = Instant::now();
            }
            Ok(())
        });
        // They begin at 0, 1.5, 3 and 4.5 s; at 6 s it is over.
        let outcome = attend(&course, workers).await.expect("ends");
        assert_eq!((outcome.latencies.count(), outcome.took), (2, 4 * SECOND));
        assert_eq!((outcome.per_second(), outcome.stopped), (0.5, None));
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_are_admitted_as_are_wanted_besides_those_that_are_left_out() {
        let course = Course::begin(extent(1, None, Some(5)));
        let admitted = |times: usize| (0..times).filter(|_| course.admits(Instant::now())).count();
        assert_eq!(admitted(20), 20);
        advance(SECOND).await;
        assert_eq!((admitted(3), admitted(20)), (3, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_falls_silent_ends_the_run_by_exit_code_28() {
        let course = Course::begin(extent(0, Some(100), None));
        let mut workers = JoinSet::new();
        let worker = Arc::clone(&course);
        workers.spawn(async move {
            for _ in 0..5 {
                let began = Instant::now();
                sleep(SECOND).await;
                worker.record(began, Instant::now());
            }
            std::future::pending().await
        });
        let failure = attend(&course, workers).await.expect_err("nothing comes");
        assert_eq!((failure.exit(), failure.to_string().contains("for 10 seconds")), (Exit::TimedOut, true));
        let silent_for = course.begins().elapsed() - 5 * SECOND;
        assert!((PATIENCE..PATIENCE + 2 * LOOK).contains(&silent_for), "{silent_for:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn faults_are_no_answers_and_one_who_can_not_go_on_ends_it_for_all() {
        let course = Course::begin(extent(0, Some(100), None));
        course.record_fault(Instant::now(), Fault::Refused);
        let mut workers = JoinSet::new();
        workers.spawn(async { Ok(()) });
        let outcome = attend(&course, workers).await.expect("ends");
        assert_eq!((outcome.latencies.count(), outcome.faults.total()), (0, 1));
        let mut workers = JoinSet::new();
        workers.spawn(async { Err(Broken::Closed) });
        workers.spawn(std::future::pending());
        assert_eq!(attend(&course, workers).await.expect_err("closed").exit(), Exit::Receive);
    }
}
