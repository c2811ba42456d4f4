//! Ctrl-C and its like: a run under way is given up in order, so that nothing of it stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Whether to stop.
#[derive(Clone)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Asked for by signals, which from now on do nothing else.
    pub(super) fn by_signals() -> Result<Self> {
        let stop = Self::never();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&stop.0)).context("cannot watch for signals")?;
        }
        Ok(stop)
    }

    /// Asked for by nobody.
    pub(super) fn never() -> Self {
        Self(Arc::new(AtomicBool::new(false)))
    }

    /// Asks for it.
    #[cfg(test)]
    pub(super) fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_asked_for(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error if it is asked for.
    pub(super) fn check(&self) -> Result<()> {
        if self.is_asked_for() {
            bail!("interrupted");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_asks_to_stop_and_does_not_end_the_process() {
        let stop = Stop::by_signals().unwrap();
        assert!(stop.check().is_ok());
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGHUP).unwrap();
        assert_eq!(stop.check().unwrap_err().to_string(), "interrupted");
    }
}
