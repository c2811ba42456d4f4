//! A device that does to frames what a bad network does: `--fault SPEC`.
//!
//! Frames are conserved whatever happens to them: one that is lost on its way in goes back to the pool, one that is
//! lost on its way out completes as if it had been sent. What is sent from stays as it is, since a stack retransmits
//! from it: damage is done to a copy.

mod lane;
mod spec;

use std::{collections::VecDeque, fmt, io, mem, os::fd::OwnedFd};

use lane::Lane;
pub use spec::{DEFAULT_QUEUE, FaultSpec, FaultSpecError, Faults};

use super::{BURST, Device, Umem};
use crate::{
    frame::{CompletedFrame, FramePool, RxFrame, TxFrame},
    rng::Rng,
    time::Instant,
};

/// Bytes at the front that are never damaged: an Ethernet header. With another destination a frame would be lost, and
/// that is what `loss` is for.
const ETHERNET_HEADER: usize = 14;

/// The part of a UMEM that frames on their way in may hold, as a divisor: a quarter.
///
/// Higher (fewer chunks), and a delayed link of high rate loses frames to this bound; lower, and nothing is left to
/// receive into or to send from.
const HELD_SHARE: usize = 4;

/// Loses, damages, doubles, delays and reorders the frames of the device behind it, as its seed says.
pub struct Fault {
    device: Box<dyn Device>,
    spec: FaultSpec,
    rx: Lane<RxFrame>,
    tx: Lane<TxFrame>,
    /// Frames that were lost on their way out.
    lost: Vec<CompletedFrame>,
    /// By chunk: whether the frame on its way out is a copy of ours, of which the stack knows nothing.
    is_copy: Vec<bool>,
    received: Vec<RxFrame>,
}

impl Fault {
    /// Puts these faults in front of a device.
    pub fn new(device: Box<dyn Device>, spec: FaultSpec) -> Self {
        let mut seed = Rng::from_seed(spec.seed);
        Self {
            device,
            rx: Lane::new(spec.rx, seed.fork()),
            tx: Lane::new(spec.tx, seed.fork()),
            spec,
            lost: Vec::new(),
            is_copy: Vec::new(),
            received: Vec::new(),
        }
    }

    /// Frames that wait here.
    pub fn held(&self) -> usize {
        self.rx.len() + self.tx.len() + self.lost.len()
    }

    fn receive(&mut self, now: Instant, umem: &mut Umem, mut frame: RxFrame) {
        if self.rx.is_lost() || self.rx.is_crowded((umem.chunks() / HELD_SHARE).max(1)) {
            umem.release_rx(frame);
            return;
        }
        if let Some(bit) = self.rx.damaged_bit(ETHERNET_HEADER, frame.len()) {
            flip(umem.rx_byte_mut(&mut frame, bit / 8), bit);
        }
        if self.rx.is_doubled() {
            let bytes = umem.rx_gather(&frame).into_owned();
            if let Some(copy) = umem.receive_whole(&bytes) {
                self.rx.count_double();
                self.receive_later(now, umem, copy);
            }
        }
        self.receive_later(now, umem, frame);
    }

    fn receive_later(&mut self, now: Instant, umem: &mut Umem, frame: RxFrame) {
        if let Err(frame) = self.rx.push(now, frame.len(), frame) {
            umem.release_rx(frame);
        }
    }

    fn send(&mut self, now: Instant, umem: &mut Umem, frame: TxFrame) {
        if self.tx.is_lost() {
            self.lost.push(frame.into_completed());
            return;
        }
        let damaged_bit = self.tx.damaged_bit(ETHERNET_HEADER, frame.len());
        let damaged = damaged_bit.and_then(|bit| self.copy(umem, &frame, Some(bit)));
        if self.tx.is_doubled()
            && let Some(copy) = self.copy(umem, damaged.as_ref().unwrap_or(&frame), None)
        {
            self.tx.count_double();
            self.send_later(now, copy);
        }
        match damaged {
            Some(copy) => {
                self.lost.push(frame.into_completed());
                self.send_later(now, copy);
            }
            None => self.send_later(now, frame),
        }
    }

    /// A frame that the link has no room for completes all the same.
    fn send_later(&mut self, now: Instant, frame: TxFrame) {
        if let Err(frame) = self.tx.push(now, frame.len(), frame) {
            self.lost.push(frame.into_completed());
        }
    }

    /// A copy of a frame, with one bit flipped if asked for; `None` if there is no chunk for it.
    fn copy(&mut self, umem: &mut Umem, frame: &TxFrame, bit: Option<usize>) -> Option<TxFrame> {
        let mut copy = umem.allocate_tx(frame.len())?;
        let mut bytes = umem.tx_gather(frame).into_owned();
        if let Some(bit) = bit {
            flip(bytes.get_mut(bit / 8), bit);
        }
        umem.tx_write(&mut copy, 0, &bytes);
        copy.set_len(bytes.len());
        if let Some(mark) = self.is_copy.get_mut(copy.chunk() as usize) {
            *mark = true;
        }
        Some(copy)
    }

    /// Hands over what has waited long enough to be sent.
    fn send_due(&mut self, now: Instant, umem: &mut Umem) {
        self.tx.release(now);
        if !self.tx.ready.is_empty() {
            self.device.tx_burst(now, umem, &mut self.tx.ready);
        }
    }
}

impl Device for Fault {
    fn rx_burst(&mut self, now: Instant, umem: &mut Umem, frames: &mut Vec<RxFrame>) -> usize {
        let mut received = mem::take(&mut self.received);
        self.device.rx_burst(now, umem, &mut received);
        received.drain(..).for_each(|frame| self.receive(now, umem, frame));
        self.received = received;
        self.rx.release(now);
        self.send_due(now, umem);
        let count = self.rx.ready.len().min(BURST);
        frames.extend(self.rx.ready.drain(..count));
        count
    }

    fn tx_room(&mut self) -> usize {
        // What waits here is going to need room too, and what is doubled needs twice as much.
        self.device.tx_room().saturating_sub(self.tx.len()) / if self.spec.tx.dup > 0.0 { 2 } else { 1 }
    }

    fn tx_burst(&mut self, now: Instant, umem: &mut Umem, frames: &mut VecDeque<TxFrame>) {
        self.is_copy.resize(umem.chunks(), false);
        let count = self.tx_room().min(frames.len());
        frames.drain(..count).for_each(|frame| self.send(now, umem, frame));
        self.send_due(now, umem);
    }

    fn completions(&mut self, umem: &mut Umem, done: &mut Vec<CompletedFrame>) {
        let before = done.len();
        done.append(&mut self.lost);
        self.device.completions(umem, done);
        for at in (before..done.len()).rev() {
            let is_copy = self.is_copy.get_mut(done[at].chunk() as usize).is_some_and(mem::take);
            if is_copy {
                umem.release_completed(done.remove(at));
            }
        }
    }

    fn replenish(&mut self, umem: &mut Umem) {
        self.device.replenish(umem);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        [self.rx.next_due(), self.tx.next_due(), self.device.poll_timeout()].into_iter().flatten().min()
    }

    fn before_sleep(&mut self) -> bool {
        let device_has_more = self.device.before_sleep();
        device_has_more || !self.rx.ready.is_empty() || !self.lost.is_empty()
    }

    fn failure(&mut self) -> Option<io::Error> {
        self.device.failure()
    }

    fn fds(&self) -> io::Result<Vec<OwnedFd>> {
        self.device.fds()
    }

    fn describe(&self) -> String {
        format!("{}, faults {}", self.device.describe(), self.spec)
    }

    fn counters(&self) -> io::Result<Vec<(&'static str, u64)>> {
        let mut counters = self.device.counters()?;
        let (rx, tx) = (self.rx.counters, self.tx.counters);
        counters.extend([
            ("fault_rx_lost", rx.lost),
            ("fault_rx_corrupted", rx.corrupted),
            ("fault_rx_duplicated", rx.duplicated),
            ("fault_rx_reordered", rx.reordered),
            ("fault_rx_delayed", rx.delayed),
            ("fault_rx_crowded_out", rx.crowded_out),
            ("fault_rx_queue_full", rx.queue_full),
            ("fault_tx_lost", tx.lost),
            ("fault_tx_corrupted", tx.corrupted),
            ("fault_tx_duplicated", tx.duplicated),
            ("fault_tx_reordered", tx.reordered),
            ("fault_tx_delayed", tx.delayed),
            ("fault_tx_queue_full", tx.queue_full),
        ]);
        Ok(counters)
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fault").field("spec", &self.spec).field("held", &self.held()).finish_non_exhaustive()
    }
}

fn flip(byte: Option<&mut u8>, bit: usize) {
    if let Some(byte) = byte {
        *byte ^= 1 << (bit % 8);
    }
}

#[cfg(test)]
mod tests;
