//! The task that pumps a shard: frames in, timers, frames out, then sleep.
//!
//! It sleeps until a queue of the NIC has a frame, the earliest timer is due, or a stream says that something has
//! become due sooner. If it was told to poll for a while before that, it keeps asking the NIC's driver for as long after the last
//! frame, and sleeps then.

use std::{future::poll_fn, io, mem, sync::Arc, task::Poll};

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
    /// Look whether there is a reason for one.
    Poll,
    /// Nothing, until it is woken or this is due.
    Sleep(Option<Instant>),
    /// Nothing, until it is woken: the device is somebody else's.
    Wait,
}

async fn pump(shard: &Shard, clock: Clock, queues: Readable, poll: Duration) -> io::Result<()> {
    loop {
        // For a few looks: then it is time for one at the clock, and for others.
        while shard.is_unchanged() {
            if queues.poll_driver() {
                give_way().await;
            }
        }
        let (then, closing, failure) = shard.drive(|core, now| {
            if core.is_quiet(now) && now.since(core.last_frame()) < poll {
                return (Then::Poll, false, None);
            }
            core.driver_woke();
            let then = if core.is_lent {
                Then::Wait
            } else if core.pump(now) | core.driver_returns_soon() || core.device.before_sleep() {
                Then::Pump
            } else {
                let now = core.now();
                let deadline = core.deadline(now);
                if now.since(core.last_frame()) < poll {
                    core.is_idle_until(deadline);
                    Then::Poll
                } else {
                    core.driver_sleeps_until(deadline);
                    Then::Sleep(deadline)
                }
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
                give_way().await;
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
            ready = poll_fn(|cx| queues.poll(cx)) => ready?,
            () = shard.wake_driver.notified() => {}
            () = sleep => {}
        }
    }
}

/// Lets others run who are ready. After tokio's own `yield_now` the reactor is asked for events first, a system call for each pass;
/// so it is every few dozen passes, as for any task that is always ready.
async fn give_way() {
    let mut has_given = false;
    poll_fn(|cx| {
        if mem::replace(&mut has_given, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
