//! The history of a script, for whoever has to find out why it failed.

use core::fmt;

use super::{
    row::{COLUMNS, Row},
    seg::{Seen, Seg},
};
use stack_user::{telemetry::DropReason, time::Instant};

/// Who did something.
#[derive(Clone, Debug)]
pub(super) enum What {
    /// The peer sent a segment, and so it went.
    Injected(Seen, Result<(), DropReason>),
    /// We sent a segment.
    Sent(Seen),
    /// The application called.
    Call(String),
    /// Time went on, and timers were served.
    Time,
    /// The script expected something else than what came.
    Mismatch { expected: Seg, actual: Option<Seen> },
}

/// All that happened in a script, in order.
#[derive(Debug)]
pub(super) struct Trace {
    start: Instant,
    entries: Vec<(Instant, What)>,
}

impl Trace {
    pub(super) fn new(start: Instant) -> Self {
        Self { start, entries: Vec::new() }
    }

    pub(super) fn push(&mut self, now: Instant, what: What) {
        self.entries.push((now, what));
    }

    /// Takes the last segment that was sent out of the history: it is told as a mismatch.
    pub(super) fn mismatch(&mut self, now: Instant, expected: Seg, actual: Option<Seen>) {
        if actual.is_some() {
            self.entries.pop();
        }
        self.push(now, What::Mismatch { expected, actual });
    }

    fn widths(&self) -> [usize; COLUMNS] {
        let mut widths = [0; COLUMNS];
        for (_, what) in &self.entries {
            match what {
                What::Injected(seen, _) | What::Sent(seen) => seen.row().widen(&mut widths),
                What::Mismatch { expected, actual } => {
                    expected.row().widen(&mut widths);
                    actual.iter().for_each(|seen| seen.row().widen(&mut widths));
                }
                What::Call(_) | What::Time => {}
            }
        }
        widths
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        for (at, what) in &self.entries {
            let ms = at.since(self.start).as_secs_f64() * 1000.0;
            write!(f, "{ms:10.3} ms  ")?;
            match what {
                What::Injected(seen, result) => {
                    write!(f, "<           {}", seen.row().print(&widths))?;
                    result.err().map_or(Ok(()), |reason| write!(f, "  [{}]", reason.name()))?;
                }
                What::Sent(seen) => write!(f, ">           {}", seen.row().print(&widths))?,
                What::Call(call) => write!(f, "  {call}")?,
                What::Time => f.write_str("  (timers)")?,
                What::Mismatch { expected, actual } => {
                    writeln!(f, "> expected  {}", expected.row().print(&widths))?;
                    compare(f, expected, actual.as_ref(), &widths)?;
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// What came, beneath what was expected, with marks beneath what differs.
fn compare(
    f: &mut fmt::Formatter<'_>,
    expected: &Seg,
    actual: Option<&Seen>,
    widths: &[usize; COLUMNS],
) -> fmt::Result {
    let indent = " ".repeat(15);
    let Some(seen) = actual else { return write!(f, "{indent}  actual    nothing") };
    let row: Row = seen.row();
    writeln!(f, "{indent}  actual    {}", row.print(widths))?;
    write!(f, "{indent}            {}", row.mark(expected.differences(seen)).print(widths))?;
    let wanted = expected.data.as_deref().unwrap_or_default();
    let first = wanted.iter().zip(&seen.data).position(|(wanted, got)| wanted != got);
    first.map_or(Ok(()), |at| {
        let (wanted, got) = (wanted[at], seen.data[at]);
        write!(
            f,
            "\n{indent}            the data differs at byte {at}: {wanted:#04x} expected, {got:#04x} came"
        )
    })
}
