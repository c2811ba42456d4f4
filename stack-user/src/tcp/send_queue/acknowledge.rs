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
        // Entries on their way for the first time: sequence numbers of those behind the first, and the last of them.
        let mut run: Option<(usize, &Entry)> = None;
        for entry in self.entries.range_mut(..self.next) {
            let len = entry.sequence_len();
            if entry.start + len as u64 > una {
                break;
            }
            acked.entries += 1;
            acked.fin |= entry.fin;
            self.sent -= len;
            self.bytes -= entry.len;
            self.chunks -= usize::from(entry.chunks);
            if let Slot::Home(frame) = core::mem::replace(&mut entry.slot, Slot::Away) {
                pool.release_tx(frame);
            }
            let entry: &Entry = entry;
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
            let goes_on = once && entry.mark == Mark::InFlight;
            match &mut run {
                Some((behind, last)) if goes_on => (*behind, *last) = (*behind + len, entry),
                _ => {
                    end_run(run, &mut delivered);
                    delivered(entry, len);
                    run = goes_on.then_some((0, entry));
                }
            }
        }
        end_run(run, &mut delivered);
        self.entries.drain(..acked.entries);
        self.next -= acked.entries;
        self.completes = self.completes.saturating_sub(acked.entries);
        if acked.repaired > 0 {
            acked.sent_at = None;
        }
        acked
    }
}

fn end_run(run: Option<(usize, &Entry)>, delivered: &mut impl FnMut(&Entry, usize)) {
    if let Some((behind, last)) = run.filter(|&(behind, _)| behind > 0) {
        delivered(last, behind);
    }
}
