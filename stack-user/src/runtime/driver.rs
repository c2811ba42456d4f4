//! The task that pumps a shard: frames in, timers, frames out, then sleep.
//!
//! It sleeps until a queue of the NIC has a frame, the earliest timer is due, or a stream says that something has
//! become due sooner. If it was told to poll for a while before that, it keeps asking the NIC's driver for as long after the last
//! frame, and sleeps then.

use std::{io, sync::Arc};

use super::{clock::Clock, shard::Shard};
use crate::{
    device::Readable,
    time::{Duration, Instant},
};

/// Runs until the shard is [closed](Shard::close), sleeping on the device's `queues` once no frame has come or gone for `poll`.
/// If it ends in any other way, the shard has [stopped](super::Stopped), so that nobody waits for what can't come.
pub async fn drive(shard: Arc<Shard>, clock: Clock, queues: Readable, poll: Duration) {
    let _unfinished = Unfinished(Arc::clone(&shard));
    if let Err(error) = pump(&shard, clock, queues, poll).await {
        shard.stop(&error);
    }
}

/// A driver that was not allowed to finish: its runtime was shut down, and the stack is used from another.
struct Unfinished(Arc<Shard>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// What the driver does after a pass.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Another one.
    Pump,
    /// The same, but the NIC's driver has to look for frames first.
    Poll,
    /// Nothing, until it is woken or this is due.
    Sleep(Option<Instant>),
    /// Nothing, until it is woken: the device is somebody else's.
    Wait,
}

async fn pump(shard: &Shard, clock: Clock, queues: Readable, poll: Duration) -> io::Result<()> {
    loop {
        let (then, closing, failure) = shard.with(|core, _| {
            core.driver_woke();
            let then = if core.is_lent {
                Then::Wait
            } else if core.pump() || core.device.before_sleep() {
                Then::Pump
            } else if !poll.is_zero() && core.now().since(core.last_frame()) < poll {
                Then::Poll
            } else {
                let deadline = core.deadline(core.now());
                core.driver_sleeps_until(deadline);
                Then::Sleep(deadline)
            };
            (then, core.closing, core.device.failure())
        });
        if closing {
            return Ok(());
        }
        if let Some(error) = failure {
            return Err(error);
        }
        let deadline = match then {
            Then::Sleep(deadline) => deadline,
            Then::Wait => {
                shard.wake_driver.notified().await;
                continue;
            }
            Then::Pump | Then::Poll => {
                // Without the lock: whoever writes to a stream meanwhile does not wait for the NIC.
                if then == Then::Poll {
                    queues.poll_driver();
                }
                tokio::task::yield_now().await;
                continue;
            }
        };
        let sleep = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(clock.to_tokio(at)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ready = std::future::poll_fn(|cx| queues.poll(cx)) => ready?,
            () = shard.wake_driver.notified() => {}
            () = sleep => {}
        }
    }
}
