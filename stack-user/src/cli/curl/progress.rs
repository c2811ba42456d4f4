//! The progress bar: on stderr, for people, and only where it does not get in the way of the output.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a second the bar may be drawn: more costs time that the transfer needs, less looks stuck.
const DRAWS_PER_SECOND: u8 = 8;

/// A progress bar, or nothing.
pub(super) struct Progress(Option<ProgressBar>);

impl Progress {
    /// Begins one for a body of `total` bytes, if that is known.
    pub(super) fn start(shown: bool, total: Option<u64>) -> Self {
        if !shown {
            return Self(None);
        }
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND));
        let template = match total {
            Some(_) => "{bar:30} {percent:>3}%  {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left",
            None => "{spinner} {bytes}  {bytes_per_sec}  {elapsed}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self(Some(bar))
    }

    /// `bytes` more have come.
    pub(super) fn advance(&self, bytes: u64) {
        if let Some(bar) = &self.0 {
            bar.inc(bytes);
        }
    }
}

impl Drop for Progress {
    /// The bar stays as it was last, so that one sees how far a transfer got that failed.
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.abandon();
        }
    }
}
