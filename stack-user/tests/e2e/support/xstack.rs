//! Running xstack on the lab's host, never for longer than said.

use std::time::Duration;

use super::lab::{Host, TestLab};
use super::{Outcome, run_for};

/// The binary that cargo built for these tests.
pub(crate) const XSTACK: &str = env!("CARGO_BIN_EXE_xstack");

/// Enough for whatever is small.
const ORDINARILY_WITHIN: Duration = Duration::from_secs(20);

impl TestLab {
    /// Runs `xstack` on the host.
    #[track_caller]
    pub(crate) fn xstack(&self, arguments: &[&str]) -> Outcome {
        run_for(self.on(Host::Host, XSTACK).args(arguments), ORDINARILY_WITHIN)
    }

    /// Runs `xstack curl --silent --show-error`.
    #[track_caller]
    pub(crate) fn curl(&self, arguments: &[&str]) -> Outcome {
        self.xstack(&[&["curl", "--silent", "--show-error"], arguments].concat())
    }
}
