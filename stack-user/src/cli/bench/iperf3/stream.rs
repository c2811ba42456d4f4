//! The streams themselves: bytes out, bytes in, counted.
//!
//! Each is a task of its own on the thread of its shard. Nothing is allocated and nobody is asked for a lock that is ever
//! contended; sending waits when the stack has no room, receiving when nothing has come, and then the driver has the thread.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::{sync::Notify, time::Instant};

use super::{
    pace::Pace,
    parameters::{End, Test},
};
use crate::{cli::bench::transport::Flow, rng::Rng};

/// What one stream has sent or received. One task counts, others look.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) bytes: Count,
    pub(super) packets: Count,
    pub(super) lost: Count,
    pub(super) out_of_order: Count,
    /// The bits of the double, in seconds.
    pub(super) jitter: Count,
}

/// A number that one task changes.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// There is one writer, so that this needs no locked instruction.
    pub(super) fn add(&self, more: u64) {
        self.set(self.get().wrapping_add(more));
    }
}

/// What all streams of a direction have done together, and when that is enough.
#[derive(Debug)]
pub(super) struct Goal {
    end: End,
    /// Nothing counts before.
    is_begun: AtomicBool,
    bytes: AtomicU64,
    blocks: AtomicU64,
    reached: Notify,
}

impl Goal {
    pub(super) fn new(end: End) -> Arc<Self> {
        let (is_begun, reached) = (AtomicBool::new(false), Notify::new());
        Arc::new(Self { end, is_begun, bytes: AtomicU64::new(0), blocks: AtomicU64::new(0), reached })
    }

    /// Whether nothing more has to be done.
    pub(super) fn is_reached(&self) -> bool {
        if !self.is_begun.load(Ordering::Relaxed) {
            return false;
        }
        match self.end {
            End::Bytes(bytes) => self.bytes.load(Ordering::Relaxed) >= bytes,
            End::Blocks(blocks) => self.blocks.load(Ordering::Relaxed) >= blocks,
            End::Seconds(_) | End::Never => false,
        }
    }

    /// Returns when it is.
    pub(super) async fn reached(&self) {
        while !self.is_reached() {
            self.reached.notified().await;
        }
    }

    /// From now on it counts; what was done before was to be left out.
    pub(super) fn begin(&self) {
        self.is_begun.store(true, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
        self.blocks.store(0, Ordering::Relaxed);
    }

    pub(super) fn add(&self, bytes: usize, blocks: u64) {
        if matches!(self.end, End::Seconds(_) | End::Never) {
            return;
        }
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.blocks.fetch_add(blocks, Ordering::Relaxed);
        if self.is_reached() {
            self.reached.notify_one();
        }
    }
}

/// What a stream has to know to do its work.
#[derive(Clone, Debug)]
pub(super) struct Work {
    pub(super) counters: Arc<Counters>,
    pub(super) goal: Arc<Goal>,
    /// What is sent, the same by all.
    pub(super) payload: Arc<[u8]>,
    pub(super) rate: u64,
    pub(super) burst: u32,
}

/// What is sent: bytes that no network compresses.
pub(super) fn payload(test: &Test) -> Arc<[u8]> {
    let mut bytes = vec![0; test.block];
    Rng::from_seed(test.block as u64).fill(&mut bytes);
    bytes.into()
}

/// A stream of TCP that its task works on, and whose statistics others ask for.
#[derive(Debug)]
pub(super) struct Shared<S>(Arc<Mutex<S>>);

impl<S> Clone for Shared<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Flow> Shared<S> {
    pub(super) fn new(stream: S) -> Self {
        Self(Arc::new(Mutex::new(stream)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, S> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends until dropped, or until it fails.
    pub(super) async fn send(self, work: Work) -> io::Error {
        let Work { counters, goal, payload, rate, burst } = work;
        let pace = Pace::new(Instant::now(), rate);
        // Of the block that is being sent, what is sent.
        let (mut sent_of_block, mut left_of_burst) = (0, 0);
        loop {
            if let Some(pace) = &pace
                && sent_of_block == 0
            {
                if left_of_burst == 0 {
                    pace.ready(counters.bytes.get()).await;
                    left_of_burst = burst.max(1);
                }
                left_of_burst -= 1;
            }
            if goal.is_reached() {
                return std::future::pending().await;
            }
            let rest = &payload[sent_of_block..];
            let sent = match poll_fn(|cx| Pin::new(&mut *self.lock()).poll_write(cx, rest)).await {
                Ok(0) => return io::ErrorKind::WriteZero.into(),
                Ok(sent) => sent,
                Err(error) => return error,
            };
            counters.bytes.add(sent as u64);
            sent_of_block += sent;
            let is_whole = sent_of_block == payload.len();
            if is_whole {
                sent_of_block = 0;
            }
            goal.add(sent, is_whole.into());
        }
    }

    /// Receives until dropped, or until it fails; the end of the stream is none of that.
    pub(super) async fn receive(self, work: Work) -> io::Error {
        let Work { counters, goal, payload, .. } = work;
        let mut scratch = vec![0; payload.len()];
        drop(payload);
        loop {
            match poll_fn(|cx| self.lock().poll_discard(cx, &mut scratch)).await {
                Ok(0) => return std::future::pending().await,
                Ok(received) => {
                    counters.bytes.add(received as u64);
                    goal.add(received, 1);
                }
                Err(error) => return error,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    fn work(end: End, block: usize) -> Work {
        let goal = Goal::new(end);
        goal.begin();
        Work { counters: Arc::default(), goal, payload: vec![7; block].into(), rate: 0, burst: 0 }
    }

    #[tokio::test]
    async fn what_is_sent_is_received_and_counted_until_the_goal_is_reached() {
        let (here, there) = duplex(1000);
        let (sending, receiving) = (work(End::Bytes(10_000), 300), work(End::Bytes(10_000), 700));
        let goals = (Arc::clone(&sending.goal), Arc::clone(&receiving.goal));
        let (sent, received) = (Arc::clone(&sending.counters), Arc::clone(&receiving.counters));
        let tasks = [
            tokio::spawn(Shared::new(here).send(sending)),
            tokio::spawn(Shared::new(there).receive(receiving)),
        ];
        goals.0.reached().await;
        goals.1.reached().await;
        // A block may have been begun before.
        assert!((10_000..10_300).contains(&sent.bytes.get()));
        assert!(received.bytes.get() >= 10_000);
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[tokio::test]
    async fn blocks_are_counted_when_they_are_whole() {
        let (here, there) = duplex(100);
        let sending = work(End::Blocks(5), 300);
        let (goal, sent) = (Arc::clone(&sending.goal), Arc::clone(&sending.counters));
        let reader = tokio::spawn(Shared::new(there).receive(work(End::Never, 64)));
        let writer = tokio::spawn(Shared::new(here).send(sending));
        goal.reached().await;
        assert_eq!(sent.bytes.get(), 1500);
        goal.begin();
        assert!(!goal.is_reached());
        writer.abort();
        reader.abort();
    }

    #[tokio::test]
    async fn whoever_can_not_send_any_more_says_so() {
        let (here, there) = duplex(100);
        drop(there);
        let error = Shared::new(here).send(work(End::Never, 300)).await;
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_in_bursts() {
        let (here, there) = duplex(1 << 20);
        let limited = Work { rate: 80_000, burst: 10, ..work(End::Never, 100) };
        let sent = Arc::clone(&limited.counters);
        let reader = tokio::spawn(Shared::new(there).receive(work(End::Never, 4096)));
        let writer = tokio::spawn(Shared::new(here).send(limited));
        for seconds in 1..=5 {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            let sent = sent.bytes.get();
            assert_eq!(sent % 1000, 0, "whole bursts");
            assert!((seconds * 10_000..=seconds * 10_000 + 1000).contains(&sent), "{sent} after {seconds} s");
        }
        writer.abort();
        reader.abort();
    }
}
