//! The segments in flight in the order in which they were sent (RFC 8985 §6.1 asks for it).
//!
//! RFC 8985 orders by time, and by sequence number where times are equal. Here each transmission of a connection has a
//! number, which tells more: two segments that were sent in the same instant have an order, too, retransmitted or not.
//!
//! A record becomes stale when its segment is acknowledged, sacked, marked as lost or sent again. Stale records are
//! dropped when they come to the front, and all at once when they are the majority; so a record costs O(1) look-ups
//! (each O(log n)) over its life, and there are never more than about twice as many as segments in flight.

use std::collections::VecDeque;

use crate::tcp::send_queue::{Mark, SendQueue};

/// Stale records that are not worth a clean-up. Fewer, and small windows are cleaned up all the time; more, and an
/// idle connection keeps memory for nothing.
const SLACK: usize = 64;

/// A transmission: its number and the stream offset of its segment.
type Record = (u64, u64);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Order {
    records: VecDeque<Record>,
    transmissions: u64,
}

impl Order {
    /// Nothing is in flight, and so many transmissions count as having been.
    pub(super) fn resume(transmissions: u64) -> Self {
        Self { transmissions, ..Self::default() }
    }

    /// The segment that starts at `start` is sent; returns the number of this transmission, from 1 on.
    pub(super) fn on_transmit(&mut self, queue: &SendQueue, start: u64) -> u64 {
        self.transmissions += 1;
        self.clean_up(queue);
        self.records.push_back((self.transmissions, start));
        self.transmissions
    }

    /// `n` segments of `len` sequence numbers are sent one behind the other, of which the first starts at `start`; returns the
    /// number of its transmission.
    pub(super) fn on_followers(&mut self, queue: &SendQueue, start: u64, len: usize, n: usize) -> u64 {
        let (first, len) = (self.transmissions + 1, len as u64);
        self.transmissions += n as u64;
        self.clean_up(queue);
        self.records.extend((0..n as u64).map(|i| (first + i, start + i * len)));
        first
    }

    fn clean_up(&mut self, queue: &SendQueue) {
        if self.records.len() > 2 * queue.sent_entries() + SLACK {
            self.records.retain(|&record| in_flight(queue, record).is_some());
        }
    }

    /// Transmissions so far.
    pub(super) fn transmissions(&self) -> u64 {
        self.transmissions
    }

    /// The index of the segment in flight that was sent first.
    pub(super) fn first(&mut self, queue: &SendQueue) -> Option<usize> {
        // Those whose segments were acknowledged since, none of which has to be looked for.
        let una = queue.get(0).map_or(u64::MAX, |entry| entry.start);
        let gone = self.records.iter().take_while(|&&(_, start)| start < una).count();
        self.records.drain(..gone);
        while let Some(&record) = self.records.front() {
            if let Some(index) = in_flight(queue, record) {
                return Some(index);
            }
            self.records.pop_front();
        }
        None
    }

    /// These segments, given by order and start, count as in flight again. As a rule they were sent before all others.
    pub(super) fn reinstate(&mut self, mut records: Vec<Record>) {
        records.sort_unstable();
        let before_all = records.last() < self.records.front() || self.records.is_empty();
        for record in records.into_iter().rev() {
            self.records.push_front(record);
        }
        if !before_all {
            let mut all = Vec::from(core::mem::take(&mut self.records));
            all.sort_unstable();
            all.dedup();
            self.records = all.into();
        }
    }

    /// Panics if the records contradict the queue.
    pub(super) fn check_invariants(&self, queue: &SendQueue) {
        assert!(self.records.iter().is_sorted(), "transmissions are in order");
        let live = self.records.iter().filter(|&&record| in_flight(queue, record).is_some()).count();
        let sent = (0..queue.sent_entries()).filter_map(|index| queue.get(index));
        assert_eq!(
            live,
            sent.filter(|entry| entry.mark == Mark::InFlight).count(),
            "all in flight are in order"
        );
    }
}

fn in_flight(queue: &SendQueue, (order, start): Record) -> Option<usize> {
    let index = queue.find(start)?;
    queue.get(index).filter(|entry| entry.order == order && entry.mark == Mark::InFlight).map(|_| index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        device::Umem,
        tcp::send_queue::{Layout, Transmission},
        time::Instant,
    };

    fn transmit(pool: &mut Umem, queue: &mut SendQueue, order: &mut Order, index: usize) {
        let start = queue.get(index).expect("an entry").start;
        let number = order.on_transmit(queue, start);
        let transmission = Transmission { order: number, ..Transmission::default() };
        let frame = queue.take_for_transmission(index, Instant::ZERO, transmission).expect("its frame");
        queue.complete(pool, frame.into_completed(), start);
    }

    fn sent(n: usize) -> (Umem, SendQueue, Order) {
        let mut pool = Umem::on_heap(8 * n as u32).expect("memory");
        let (mut queue, mut order) = (SendQueue::default(), Order::default());
        assert_eq!(queue.write(&mut pool, Layout { payload_at: 0, mss: 10 }, &vec![0; 10 * n]), 10 * n);
        (0..n).for_each(|index| transmit(&mut pool, &mut queue, &mut order, index));
        (pool, queue, order)
    }

    /// RFC 8985 §6.1: a segment that is sent again goes to the end.
    #[test]
    fn the_order_is_that_of_the_last_transmissions_rfc8985_6_1() {
        let (mut pool, mut queue, mut order) = sent(4);
        transmit(&mut pool, &mut queue, &mut order, 0);
        queue.set_sacked(1, 20);
        order.check_invariants(&queue);
        let mut seen = Vec::new();
        while let Some(index) = order.first(&queue) {
            seen.push(index);
            queue.set_mark(index, Mark::Lost);
        }
        assert_eq!(seen, [2, 3, 0]);
    }

    #[test]
    fn what_is_reinstated_is_known_once_and_in_order() {
        let (_pool, mut queue, mut order) = sent(6);
        // One that was popped from the front, one that was not.
        queue.set_mark(0, Mark::Lost);
        assert_eq!(order.first(&queue), Some(1));
        queue.set_mark(4, Mark::Lost);
        queue.set_mark(0, Mark::InFlight);
        queue.set_mark(4, Mark::InFlight);
        order.reinstate(vec![(5, 40), (1, 0)]);
        order.check_invariants(&queue);
        assert_eq!(order.first(&queue), Some(0));
    }

    #[test]
    fn memory_follows_the_window_however_often_it_is_sent() {
        let (mut pool, mut queue, mut order) = sent(16);
        for round in 0..10_000 {
            transmit(&mut pool, &mut queue, &mut order, 1 + round % 15);
            assert!(order.records.len() <= 2 * 16 + SLACK + 1);
        }
        order.check_invariants(&queue);
    }
}
