//! The task that pumps a shard: frames in, timers, frames out, then sleep.
//!
//! It sleeps until a queue of the NIC has a frame, the earliest timer is due, or a stream says that something has
//! become due sooner.

use std::{io, sync::Arc};

use super::{clock::Clock, shard::Shard};
use crate::device::Readable;

/// Runs until the shard is [closed](Shard::close), sleeping on the device's `queues`. If it ends in any other way, the shard
/// has [stopped](super::Stopped), so that nobody waits for what can't come.
pub async fn drive(shard: Arc<Shard>, clock: Clock, queues: Readable) {
    let _unfinished = Unfinished(Arc::clone(&shard));
    if let Err(error) = pump(&shard, clock, queues).await {
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

async fn pump(shard: &Shard, clock: Clock, queues: Readable) -> io::Result<()> {
    loop {
        let (busy, deadline, closing, failure) = shard.with(|core, _| {
            core.driver_woke();
            let busy = core.pump() || core.device.before_sleep();
            let deadline = core.deadline(core.now());
            if !busy {
                core.driver_sleeps_until(deadline);
            }
            (busy, deadline, core.closing, core.device.failure())
        });
        if closing {
            return Ok(());
        }
        if let Some(error) = failure {
            return Err(error);
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
