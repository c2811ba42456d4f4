//! What the peer has taken in leaves the queue.

use super::{Entry, Mark, SendQueue, Slot};
use crate::{frame::FramePool, time::Instant};

/// What an acknowledgement took from the queue.
#[derive(Clone, Copy, Debug, Default)]
pub struct Acknowledged {
    /// Entries that are acknowledged as a whole.
    pub entries: usize,
    /// When the latest of them was sent; `None` if one was sent more than once (Karn's algorithm) or all were sacked.
    pub sent_at: Option<Instant>,
    /// Sequence numbers that were not sacked before.
    pub delivered: usize,
    /// FIN is acknowledged.
    pub fin: bool,
    /// Sequence numbers of those that were sent more than once.
    pub repaired: usize,
}

/// Entries that follow each other, on their way for the first time.
#[derive(Default)]
struct Run {
    has_begun: bool,
    /// Sequence numbers of those behind the first, and which is the last of them.
    len: usize,
    last: usize,
}

impl SendQueue {
    /// Everything before `una` is acknowledged. `delivered` is told of the entries that were not sacked before, and how many
    /// sequence numbers they have: one by one, but of a run of those that were sent once and are on their way, after the first the last stands for all,
    /// as the end of what was sent last.
    pub fn acknowledge<P: FramePool>(
        &mut self,
        pool: &mut P,
        una: u64,
        mut delivered: impl FnMut(&Entry, usize),
    ) -> Acknowledged {
        let mut acked = Acknowledged::default();
        let mut run = Run::default();
        for index in 0..self.next {
            let Some(entry) = self.entries.get_mut(index).filter(|entry| entry.end() <= una) else { break };
            let len = entry.sequence_len();
            acked.entries += 1;
            acked.fin |= entry.fin;
            self.sent -= len;
            self.bytes -= entry.len;
            self.chunks -= usize::from(entry.chunks);
            if let Slot::Home(frame) = core::mem::replace(&mut entry.slot, Slot::Away) {
                pool.release_tx(frame);
            }
            let once = entry.transmissions == 1;
            acked.repaired += if once { 0 } else { len };
            match entry.mark {
                Mark::Sacked => {
                    self.sacked -= len;
                    self.sacked_entries -= 1;
                    continue;
                }
                Mark::Lost => self.lost -= len,
                Mark::InFlight => {}
            }
            acked.delivered += len;
            if once {
                acked.sent_at = acked.sent_at.max(Some(entry.sent_at));
            }
            if once && entry.mark == Mark::InFlight && run.has_begun {
                (run.len, run.last) = (run.len + len, index);
            } else {
                self.end_run(&mut run, &mut delivered);
                run.has_begun =
                    once && self.entries.get(index).is_some_and(|entry| entry.mark == Mark::InFlight);
                self.entries.get(index).into_iter().for_each(|entry| delivered(entry, len));
            }
        }
        self.end_run(&mut run, &mut delivered);
        self.entries.drain(..acked.entries);
        self.next -= acked.entries;
        self.completes = self.completes.saturating_sub(acked.entries);
        if acked.repaired > 0 {
            acked.sent_at = None;
        }
        acked
    }

    fn end_run(&self, run: &mut Run, delivered: &mut impl FnMut(&Entry, usize)) {
        let Run { len, last, .. } = core::mem::take(run);
        if let Some(entry) = self.entries.get(last).filter(|_| len > 0) {
            delivered(entry, len);
        }
    }
}
