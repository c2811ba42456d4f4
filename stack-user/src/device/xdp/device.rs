//! The queues of one NIC, served together.

use std::{
    collections::VecDeque,
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use super::{Bound, OpenError, lent::Lent, long::LongFrames, queue::Queue};
use crate::{
    device::{BURST, Device, Umem},
    frame::{CompletedFrame, FramePool, RxFrame, TxFrame},
    time::{Duration, Instant},
};

/// Chunks that the fill rings leave in the pool.
///
/// Lower, and a stack that holds all other chunks as unread data can no longer send the acknowledgement that makes the
/// peer stop; higher than what those leave who write, and each chunk that comes back goes to the next of many who wait
/// for one, until nothing is left to receive into, and so no acknowledgement comes that would free any.
const POOL_RESERVE: usize = BURST / 4;

/// Chunks that are missing in a queue's rings before it gets some. Fewer, and each frame that comes alone pays for a look at the
/// fill ring; more, and a burst of all that the ring holds finds it short.
const REFILL: usize = BURST / 4;

/// When to wake the kernel again that left frames on the TX ring and took none.
///
/// Lower, and a NIC that is slow or down costs a core; higher, and its queue runs dry between two calls: at 10 Gbit/s
/// it holds about half a millisecond of frames.
const TX_RETRY: Duration = Duration::from_micros(200);

/// When to look again whether the kernel waits for a refilled fill ring.
///
/// A driver notes that it waits some time after it found the ring empty, and doesn't look again: what we put there in
/// between, without being asked to wake it, it would never see. Lower, and a driver that was interrupted just then is not
/// ready yet; higher, and nothing is received for so long, once in a blue moon.
const FILL_RECHECK: Duration = Duration::from_millis(10);

/// AF_XDP sockets on one or more queues of a NIC.
///
/// All frames leave by the first queue, so that those of one connection stay in order; the others are there to receive.
/// The queues are given back when the device *and* its [`Umem`] are dropped.
///
/// # Panics
/// Each call that takes a [`Umem`] wants the one that the device was opened with: with another, the kernel would write
/// to chunks that somebody else owns.
pub struct XdpDevice {
    name: String,
    queues: Vec<Queue>,
    /// The UMEM that the sockets are of, by its address: no other will do.
    umem: usize,
    /// Where the next burst starts, so that a busy queue does not starve the others.
    next: usize,
    /// Chunks that each queue's fill and RX rings hold.
    receiving: Vec<usize>,
    /// Of these, as many as a queue should have.
    receiving_max: usize,
    /// Chunks between the TX ring and the completion ring.
    sending: usize,
    long: LongFrames,
    /// Those that the TX ring refused.
    refused: Vec<CompletedFrame>,
    /// The latest time that we were told.
    now: Instant,
    /// When to wake the kernel next, if it left frames on the TX ring.
    kick_at: Option<Instant>,
    /// A queue has less than half of the chunks that it should have, since none were free.
    is_short: bool,
    second_look: SecondLook,
    /// The chunks that the kernel has to receive into.
    lent: Lent,
    /// The driver writes to them itself.
    is_zero_copy: bool,
    /// What the kernel said when the sockets were no longer bound, which they never will be again.
    unbound: Option<io::Error>,
    counters: Counters,
    description: String,
}

/// When to look again whether the kernel waits for a fill ring that was refilled when it was empty: a driver that had found it so
/// may have asked to be woken only after it was full again.
#[derive(Debug, Default, Clone, Copy)]
struct SecondLook(Option<Instant>);

impl SecondLook {
    /// A ring that had so many chunks was given some.
    fn refilled(&mut self, now: Instant, had: usize, given: usize) {
        if had == 0 && given > 0 {
            self.0 = Some(now + FILL_RECHECK);
        }
    }

    /// Whether it is time, which it is once.
    fn is_due(&mut self, now: Instant) -> bool {
        self.0.take_if(|at| *at <= now).is_some()
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Counters {
    rx_frames: u64,
    rx_refused: u64,
    rx_strays: u64,
    tx_frames: u64,
    tx_refused: u64,
    tx_wakeups: u64,
    fill_wakeups: u64,
    wakeup_errors: u64,
}

impl XdpDevice {
    pub(super) fn new(
        interface: &str,
        queues: Vec<Queue>,
        umem: &mut Umem,
        bound: &Bound,
    ) -> Result<Self, OpenError> {
        let region = umem.as_shared().ok_or(OpenError::NotOurUmem)?.base();
        let ring_size = queues.first().map_or(0, |queue| queue.tx.size() as usize);
        let mut device = Self {
            name: interface.to_owned(),
            receiving: vec![0; queues.len()],
            // A small UMEM is shared out evenly, and half of it is left to send from.
            receiving_max: ring_size.min(umem.chunks() / (2 * queues.len().max(1))),
            queues,
            umem: region,
            next: 0,
            sending: 0,
            long: LongFrames::default(),
            refused: Vec::new(),
            now: Instant::ZERO,
            kick_at: None,
            is_short: false,
            second_look: SecondLook::default(),
            lent: Lent::new(umem.chunks()),
            is_zero_copy: bound.zero_copy,
            unbound: None,
            counters: Counters::default(),
            description: format!("{interface}: AF_XDP, {bound}"),
        };
        (0..device.queues.len()).for_each(|queue| device.refill(umem, queue));
        Ok(device)
    }

    /// Each queue's number and socket, for the XDP program to send frames to.
    pub fn sockets(&self) -> impl Iterator<Item = (u32, BorrowedFd<'_>)> {
        self.queues.iter().map(|queue| (queue.id(), queue.fd()))
    }

    /// Chunks that the kernel has: in fill, RX, TX and completion rings. Those of a frame that has come in part are among
    /// them.
    pub fn chunks_in_rings(&self, umem: &Umem) -> usize {
        let unfinished = self.queues.iter().map(|queue| queue.rx.unfinished(umem));
        self.receiving.iter().sum::<usize>() + unfinished.sum::<usize>() + self.sending
    }

    fn check_umem(&self, umem: &Umem) {
        assert_eq!(
            umem.as_shared().map(|region| region.base()),
            Some(self.umem),
            "not the UMEM of {}",
            self.name
        );
    }

    /// Gives the kernel chunks to receive into, and wakes it if it had run out of them.
    fn refill(&mut self, umem: &mut Umem, queue: usize) {
        let had = self.receiving[queue];
        let missing = self.receiving_max.saturating_sub(had);
        let wanted = if missing >= REFILL.min(self.receiving_max / 4) { missing } else { 0 };
        let count = wanted.min(umem.available().saturating_sub(pool_reserve(umem)));
        // A driver that hands over a chunk again is found out if that has not been lent again meanwhile. Where the kernel
        // copies, the bytes of what was released last are still in the cache.
        let given = self.queues[queue].fill.give(umem, &mut self.lent, count, self.is_zero_copy);
        self.receiving[queue] += given;
        self.is_short |= self.receiving[queue] < self.receiving_max / 2;
        // Only a driver looks at the ring by itself; the kernel that copies does when a frame is there.
        if self.is_zero_copy {
            self.second_look.refilled(self.now, had, given);
        }
        self.wake_receiver(queue);
    }

    /// Wakes the kernel if it waits for chunks that it has been given.
    fn wake_receiver(&mut self, queue: usize) {
        let rings = &mut self.queues[queue];
        if self.receiving[queue] > 0 && rings.fill.needs_wakeup() {
            self.counters.fill_wakeups += 1;
            let woken = rings.rx.wake();
            self.note_wakeup(woken);
        }
    }

    fn check_fill(&mut self) {
        if self.second_look.is_due(self.now) {
            (0..self.queues.len()).for_each(|queue| self.wake_receiver(queue));
        }
    }

    /// Counts a call that the kernel refused, and tells of the first: the interface is down, and all that would be seen of
    /// it else are time-outs. Once it is gone, the socket is bound to nothing, and stays so.
    fn note_wakeup(&mut self, woken: io::Result<()>) {
        let Err(error) = woken else { return };
        if error.raw_os_error() == Some(libc::ENXIO) {
            self.unbound.get_or_insert(error);
        } else if self.counters.wakeup_errors == 0 {
            tracing::warn!("{} no longer takes our frames: {error}; is it down?", self.name);
        }
        self.counters.wakeup_errors += 1;
    }

    /// Has the kernel send what is on the TX ring, by one system call at most, and plans the next one.
    fn kick(&mut self) {
        let Some(queue) = self.queues.first_mut() else { return };
        let before = queue.tx.unsent();
        if before > 0 && queue.tx.needs_wakeup() {
            self.counters.tx_wakeups += 1;
            let woken = queue.tx.wake();
            self.note_wakeup(woken);
        }
        let Some(queue) = self.queues.first_mut() else { return };
        self.kick_at = match queue.tx.unsent() {
            0 => None,
            left if left < before => Some(self.now),
            _ => Some(self.now + TX_RETRY),
        };
    }
}

impl Device for XdpDevice {
    fn rx_burst(&mut self, now: Instant, umem: &mut Umem, frames: &mut Vec<RxFrame>) -> usize {
        self.check_umem(umem);
        self.now = now;
        self.is_short = false;
        let before = frames.len();
        let mut room = BURST;
        for turn in 0..self.queues.len() {
            let queue = (self.next + turn) % self.queues.len();
            let taken = self.queues[queue].rx.take(umem, &mut self.lent, frames, room);
            self.receiving[queue] -= taken.chunks.min(self.receiving[queue]);
            self.counters.rx_refused += taken.refused as u64;
            self.counters.rx_strays += taken.strays as u64;
            room -= taken.chunks;
            self.refill(umem, queue);
            if room == 0 {
                break;
            }
        }
        self.next = (self.next + 1) % self.queues.len().max(1);
        self.check_fill();
        let received = frames.len() - before;
        self.counters.rx_frames += received as u64;
        received
    }

    fn tx_room(&mut self) -> usize {
        let sending = self.sending;
        // No more than a ring's worth is ever on its way, so the completion ring always has room for all.
        self.queues
            .first_mut()
            .map_or(0, |queue| queue.tx.room().min((queue.tx.size() as usize).saturating_sub(sending)))
    }

    fn tx_burst(&mut self, now: Instant, umem: &mut Umem, frames: &mut VecDeque<TxFrame>) {
        self.check_umem(umem);
        self.now = now;
        let mut room = self.tx_room();
        while room > 0
            && !frames.is_empty()
            && let Some(queue) = self.queues.first_mut()
        {
            let before = frames.len();
            let given = queue.tx.give(umem, frames, room, &mut self.long, &mut self.refused);
            let taken = before - frames.len();
            self.sending += given.chunks;
            self.counters.tx_frames += given.frames as u64;
            self.counters.tx_refused += (taken - given.frames) as u64;
            room -= given.chunks;
            if taken == 0 {
                break;
            }
        }
        self.kick();
    }

    fn completions(&mut self, umem: &mut Umem, done: &mut Vec<CompletedFrame>) {
        self.check_umem(umem);
        done.append(&mut self.refused);
        if let Some(queue) = self.queues.first_mut() {
            self.sending -= queue.completion.take(umem, &mut self.long, done).min(self.sending);
        }
        if self.kick_at.is_some() {
            self.kick();
        }
    }

    fn replenish(&mut self, umem: &mut Umem) {
        if self.is_short && umem.available() > pool_reserve(umem) {
            self.check_umem(umem);
            self.is_short = false;
            (0..self.queues.len()).for_each(|queue| self.refill(umem, queue));
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        [self.kick_at, self.second_look.0].into_iter().flatten().min()
    }

    fn is_quiet(&mut self) -> bool {
        self.kick_at.is_none()
            && self.sending == 0
            && self.refused.is_empty()
            && !self.queues.iter_mut().any(|queue| queue.rx.has_frames())
    }

    fn before_sleep(&mut self) -> bool {
        if self.kick_at.is_some() {
            self.kick();
        }
        let sends_more = self.kick_at.is_some_and(|at| at <= self.now);
        let has_frames = self.queues.iter_mut().any(|queue| queue.rx.has_frames());
        sends_more || has_frames || !self.refused.is_empty()
    }

    fn failure(&mut self) -> Option<io::Error> {
        if self.counters.rx_strays > 0 {
            let told = format!(
                "the driver of {} handed over memory that it did not have, a fault of its zero-copy when it can't keep up: \
                 start again with --mode native-copy",
                self.name
            );
            return Some(io::Error::new(io::ErrorKind::InvalidData, told));
        }
        let error = self.unbound.as_ref()?;
        let told = format!("{} no longer takes our frames: {error}; was it removed?", self.name);
        Some(io::Error::new(io::ErrorKind::NetworkDown, told))
    }

    fn fds(&self) -> io::Result<Vec<OwnedFd>> {
        self.queues.iter().map(|queue| queue.fd().try_clone_to_owned()).collect()
    }

    fn chunks_held(&self, umem: &Umem) -> Option<usize> {
        Some(self.chunks_in_rings(umem))
    }

    fn describe(&self) -> String {
        self.description.clone()
    }

    fn counters(&self) -> io::Result<Vec<(&'static str, u64)>> {
        let ours = &self.counters;
        let mut counters = vec![
            ("rx_frames", ours.rx_frames),
            ("rx_refused", ours.rx_refused),
            ("rx_strays", ours.rx_strays),
            ("tx_frames", ours.tx_frames),
            ("tx_refused", ours.tx_refused),
            ("tx_wakeups", ours.tx_wakeups),
            ("fill_wakeups", ours.fill_wakeups),
            ("wakeup_errors", ours.wakeup_errors),
        ];
        let names = [
            "rx_dropped",
            "rx_ring_full",
            "rx_fill_ring_empty",
            "rx_invalid_descs",
            "tx_invalid_descs",
            "tx_ring_empty",
        ];
        let mut sums = [0; 6];
        for queue in &self.queues {
            let kernel = queue.tx.statistics()?;
            let values = [
                kernel.rx_dropped(),
                kernel.rx_ring_full(),
                kernel.rx_fill_ring_empty_descs(),
                kernel.rx_invalid_descs(),
                kernel.tx_invalid_descs(),
                kernel.tx_ring_empty_descs(),
            ];
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
        counters.extend(names.into_iter().zip(sums));
        Ok(counters)
    }
}

/// In a small UMEM the reserve is small, too.
fn pool_reserve<P: FramePool>(umem: &P) -> usize {
    POOL_RESERVE.min(umem.chunks() / 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::send_queue::SendQueue;

    #[test]
    fn a_ring_that_was_empty_is_looked_at_again_once_and_in_time() {
        let mut look = SecondLook::default();
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        look.refilled(at(5), 1, 64);
        look.refilled(at(5), 0, 0);
        assert!(!look.is_due(at(1_000)), "there was something to look at, or there is nothing yet");
        look.refilled(at(5), 0, 64);
        look.refilled(at(6), 64, 64);
        assert_eq!(look.0, Some(at(15)), "who sleeps is woken for it");
        assert_eq!([14, 15, 16].map(|millis| look.is_due(at(millis))), [false, true, false]);
    }

    #[test]
    fn a_chunk_that_comes_back_is_received_into_before_it_is_written_into() {
        for chunks in [64, 96, 512, 4096] {
            let mut umem = Umem::on_heap(chunks).expect("memory");
            while SendQueue::default().may_allocate(&umem) {
                let _taken = umem.allocate();
            }
            let (left, reserve) = (umem.available(), pool_reserve(&umem));
            assert!(left > reserve, "of {chunks}, who writes leaves {left}, the fill rings leave {reserve}");
        }
    }
}
