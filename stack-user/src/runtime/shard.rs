//! One NIC queue (or several), one UMEM, one protocol stack, one lock.
//!
//! A stream does not talk to the shard through a channel: it takes the lock and works on its connection. Whoever
//! holds the lock also sends what has become due before letting go, so a write is on the wire when it returns. The
//! [driver](super::driver) takes the lock for received frames and for timers.

use std::{
    collections::VecDeque,
    io, mem,
    sync::{Mutex, PoisonError},
    task::Waker,
};

use tokio::sync::Notify;

use super::{Stopped, clock::Clock, waiters::Waiters};
use crate::{
    device::{BURST, Device, Umem},
    frame::{CompletedFrame, RxFrame, TxFrame},
    stack::Stack,
    telemetry::STORY,
    time::{Duration, Instant},
};

/// Rounds of receive and send that one pass makes before it lets others have the lock.
///
/// Lower, and a busy shard pays for the lock more often; higher, and a stream waits longer for it: 16 bursts of 64
/// frames take about half a millisecond.
const ROUNDS: usize = 16;

/// How long to wait for the TX ring to drain when nothing else happens: the kernel does not tell when it has room
/// again for a socket that is only polled for input. A full ring of 2048 frames lasts for over 200 µs at 100 Gbit/s.
const TX_RETRY: Duration = Duration::from_micros(200);

/// A shard that tasks and the driver share.
#[derive(Debug)]
pub struct Shard {
    core: Mutex<Core>,
    /// Tells the driver that its sleep has become too long, or that it is over.
    pub(super) wake_driver: Notify,
}

/// What the lock guards.
pub struct Core {
    /// The protocols.
    pub stack: Stack<Umem>,
    /// Who waits for what.
    pub waiters: Waiters,
    pub(super) device: Box<dyn Device>,
    clock: Clock,
    received: Vec<RxFrame>,
    /// Frames that are ready but found the TX ring full.
    outgoing: VecDeque<TxFrame>,
    completed: Vec<CompletedFrame>,
    /// Until when the driver sleeps, while it does; `None` inside means: until a frame comes.
    driver_sleeps: Option<Option<Instant>>,
    /// Nobody uses the shard any more.
    pub(super) closing: bool,
    /// Nobody drives the shard any more, though somebody may use it.
    stopped: Option<Stopped>,
}

impl Shard {
    /// A shard over a device and the stack that holds its UMEM.
    pub fn new(stack: Stack<Umem>, device: Box<dyn Device>, clock: Clock) -> Self {
        let core = Core {
            stack,
            waiters: Waiters::default(),
            device,
            clock,
            received: Vec::with_capacity(BURST),
            outgoing: VecDeque::with_capacity(BURST),
            completed: Vec::with_capacity(BURST),
            driver_sleeps: None,
            closing: false,
            stopped: None,
        };
        Self { core: Mutex::new(core), wake_driver: Notify::new() }
    }

    /// Works on the shard, then sends what that made due and wakes those whom it concerns.
    pub fn with<T>(&self, work: impl FnOnce(&mut Core, Instant) -> T) -> T {
        // The protocol code doesn't panic; if it did, its state is still the best there is for closing orderly.
        let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
        let now = core.clock.now();
        let result = work(&mut core, now);
        // The driver's work takes a while and lets time pass; it must not run backwards afterwards.
        let now = core.clock.now();
        core.transmit(now);
        core.dispatch();
        let oversleeps = core.driver_oversleeps(now);
        let wakers = mem::take(&mut core.waiters.woken);
        drop(core);
        wakers.into_iter().for_each(Waker::wake);
        if oversleeps {
            self.wake_driver.notify_one();
        }
        result
    }

    /// The device has failed. Connections end; what of that can be told to their peers is.
    pub(super) fn stop(&self, error: &io::Error) {
        self.with(|core, now| {
            let stopped = Stopped::by(error);
            tracing::info!(target: STORY, "{stopped}");
            core.stack.abort_all(now);
            core.stop(stopped);
        });
    }

    /// The driver is gone. If it was not for [`close`](Self::close) or [`stop`](Self::stop), nobody told it to end.
    pub(super) fn abandon(&self) {
        self.with(|core, _| {
            if !core.closing && core.stopped.is_none() {
                core.stop(Stopped::abandoned());
            }
        });
    }

    /// Ends the driver. What the shard holds goes when the last reference to it does.
    pub fn close(&self) {
        self.with(|core, _| core.closing = true);
        self.wake_driver.notify_one();
    }
}

impl Core {
    /// Whether the shard is driven, so that waiting for it makes sense.
    ///
    /// # Errors
    /// Why it [stopped](Stopped).
    pub fn running(&self) -> Result<(), Stopped> {
        self.stopped.clone().map_or(Ok(()), Err)
    }

    fn stop(&mut self, why: Stopped) {
        self.stopped = Some(why);
        self.waiters.wake_all();
    }

    /// Receives, lets time pass and sends, until there is nothing to do or others should have a turn. Returns
    /// whether there may be more.
    pub(super) fn pump(&mut self) -> bool {
        for _ in 0..ROUNDS {
            let now = self.clock.now();
            self.reap(now);
            let received = self.device.rx_burst(now, self.stack.pool_mut(), &mut self.received);
            for frame in self.received.drain(..) {
                self.stack.handle_frame(now, frame);
            }
            self.stack.handle_timeout(now);
            self.transmit(now);
            self.dispatch();
            if received == 0 {
                return false;
            }
        }
        true
    }

    /// Sends what is due, as far as the TX ring has room.
    fn transmit(&mut self, now: Instant) {
        loop {
            if self.device.tx_room() == 0 {
                self.reap(now);
            }
            let room = self.device.tx_room().min(BURST);
            while self.outgoing.len() < room
                && let Some(frame) = self.stack.poll_transmit(now)
            {
                self.outgoing.push_back(frame);
            }
            if self.outgoing.is_empty() || room == 0 {
                return;
            }
            self.device.tx_burst(now, self.stack.pool_mut(), &mut self.outgoing);
            if !self.outgoing.is_empty() {
                return;
            }
            self.reap(now);
        }
    }

    /// Takes back the frames that have been sent.
    fn reap(&mut self, now: Instant) {
        self.device.completions(self.stack.pool_mut(), &mut self.completed);
        for frame in self.completed.drain(..) {
            self.stack.handle_completion(now, frame);
        }
    }

    fn dispatch(&mut self) {
        while let Some(event) = self.stack.poll_event() {
            self.waiters.wake(event);
        }
    }

    /// When something is due, if ever: a protocol's timer, the device's own, or another look at a full TX ring.
    pub(super) fn deadline(&mut self, now: Instant) -> Option<Instant> {
        let is_tx_blocked = !self.outgoing.is_empty() || self.device.tx_room() == 0;
        let retry = is_tx_blocked.then(|| now + TX_RETRY);
        [self.stack.poll_timeout(), self.device.poll_timeout(), retry].into_iter().flatten().min()
    }

    /// The driver goes to sleep until then.
    pub(super) fn driver_sleeps_until(&mut self, deadline: Option<Instant>) {
        self.driver_sleeps = Some(deadline);
    }

    /// The driver is awake.
    pub(super) fn driver_woke(&mut self) {
        self.driver_sleeps = None;
    }

    /// Whether something is due before the driver would wake up. Answers yes once per sleep.
    fn driver_oversleeps(&mut self, now: Instant) -> bool {
        let Some(until) = self.driver_sleeps else { return false };
        let oversleeps = match (self.deadline(now), until) {
            (Some(due), Some(until)) => due < until,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if oversleeps {
            self.driver_sleeps = None;
        }
        oversleeps
    }

    /// The device, how it was bound, and its counters.
    pub fn device(&self) -> &dyn Device {
        &*self.device
    }

    /// The time, as the protocols are told it.
    pub fn now(&self) -> Instant {
        self.clock.now()
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("device", &self.device.describe()).finish_non_exhaustive()
    }
}
