//! The task that pumps a shard: frames in, timers, frames out, then sleep.
//!
//! It sleeps until a queue of the NIC has a frame, the earliest timer is due, or a stream says that something has
//! become due sooner.

use std::{io, sync::Arc};

use super::{clock::Clock, shard::Shard};
use crate::device::Readable;

/// Runs until the shard is [closed](Shard::close), sleeping on the device's `queues`.
///
/// # Errors
/// When a queue's descriptor can't be waited on any more.
pub async fn drive(shard: Arc<Shard>, clock: Clock, queues: Readable) -> io::Result<()> {
    loop {
        let (busy, deadline, closing) = shard.with(|core, _| {
            core.driver_woke();
            let busy = core.pump() || core.device.before_sleep();
            let deadline = core.deadline(core.now());
            if !busy {
                core.driver_sleeps_until(deadline);
            }
            (busy, deadline, core.closing)
        });
        if closing {
            return Ok(());
        }
        if busy {
            tokio::task::yield_now().await;
            continue;
        }
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
