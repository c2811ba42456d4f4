//! Connections that hold an ACK back: who is to be asked for it, and when. It is too soon for the timer wheel.

use std::collections::VecDeque;

use super::TcpId;
use crate::{tcp::ack::Hold, time::Instant};

/// A line for each length of time, in the order of time. A connection whose ACK has gone stays in line until its time comes.
#[derive(Debug, Default)]
pub(super) struct HeldAcks {
    for_burst: VecDeque<(Instant, TcpId)>,
    for_answer: VecDeque<(Instant, TcpId)>,
}

impl HeldAcks {
    /// Puts a connection in line, unless it is `in_line` already and will be asked soon enough.
    pub(super) fn hold(&mut self, until: Instant, what: Hold, id: TcpId, in_line: &mut Option<Hold>) {
        if in_line.is_none_or(|held| what < held) {
            *in_line = Some(what);
            let line = self.line(what);
            // At the end, but for those that are put in line again, or are configured otherwise.
            let at = match line.back() {
                Some(&(last, _)) if last > until => line.partition_point(|&(other, _)| other <= until),
                _ => line.len(),
            };
            line.insert(at, (until, id));
        }
    }

    /// When the first is to be asked.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let fronts = [self.for_burst.front(), self.for_answer.front()];
        fronts.into_iter().flatten().map(|&(until, _)| until).min()
    }

    /// The next one whose time has come.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(Hold, TcpId)> {
        [Hold::Burst, Hold::Answer].into_iter().find_map(|what| {
            let (_, id) = self.line(what).pop_front_if(|(until, _)| *until <= now)?;
            Some((what, id))
        })
    }

    fn line(&mut self, what: Hold) -> &mut VecDeque<(Instant, TcpId)> {
        match what {
            Hold::Burst => &mut self.for_burst,
            Hold::Answer => &mut self.for_answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_waits_for_less_is_asked_first_also_if_it_waited_for_more_before() {
        let at = Instant::from_millis;
        let id = |row| TcpId { row, generation: 1 };
        let mut held = HeldAcks::default();
        let (mut first, mut second) = (None, None);
        held.hold(at(10), Hold::Answer, id(1), &mut first);
        held.hold(at(11), Hold::Answer, id(1), &mut first);
        held.hold(at(2), Hold::Burst, id(2), &mut second);
        assert_eq!(held.poll_timeout(), Some(at(2)));
        held.hold(at(3), Hold::Burst, id(1), &mut first);
        held.hold(at(12), Hold::Answer, id(2), &mut second);
        assert_eq!((first, second), (Some(Hold::Burst), Some(Hold::Burst)));
        assert_eq!(held.pop(at(1)), None);
        let popped: Vec<_> = std::iter::from_fn(|| held.pop(at(10))).collect();
        assert_eq!(popped, [(Hold::Burst, id(2)), (Hold::Burst, id(1)), (Hold::Answer, id(1))]);
        assert_eq!(held.poll_timeout(), None);

        let lines: &mut [Option<Hold>; 3] = &mut [None; 3];
        for (row, until) in [(0, 20), (1, 30), (2, 25)] {
            held.hold(at(until), Hold::Answer, id(row), &mut lines[row as usize]);
        }
        let popped: Vec<_> = std::iter::from_fn(|| held.pop(at(30))).map(|(_, id)| id.row).collect();
        assert_eq!(popped, [0, 2, 1]);
    }
}
