//! A segment as one line of text, in columns, so that two of them can be compared by eye.

/// Flags, sequence numbers, acknowledgement, window, urgent pointer, options.
pub(super) const COLUMNS: usize = 6;

/// What stands where nothing is said.
pub(super) const ANY: &str = "·";

/// The columns of one segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Row(pub(super) [String; COLUMNS]);

impl Row {
    /// Makes `widths` wide enough for this row.
    pub(super) fn widen(&self, widths: &mut [usize; COLUMNS]) {
        for (width, cell) in widths.iter_mut().zip(&self.0) {
            *width = (*width).max(cell.chars().count());
        }
    }

    /// The columns beneath those of all other rows that are printed with the same `widths`.
    pub(super) fn print(&self, widths: &[usize; COLUMNS]) -> String {
        let cells = self.0.iter().zip(widths).filter(|&(_, &width)| width > 0);
        let cells: Vec<_> = cells.map(|(cell, &width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    }

    /// Carets beneath the columns in which this row differs from what was expected.
    pub(super) fn mark(&self, differs: [bool; COLUMNS]) -> Self {
        let mut marks = Self::default();
        for (index, mark) in marks.0.iter_mut().enumerate().filter(|&(index, _)| differs[index]) {
            *mark = "^".repeat(self.0[index].chars().count().max(1));
        }
        marks
    }
}
