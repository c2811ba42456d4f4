//! One NIC queue, one UMEM, one protocol stack, one lock.
//!
//! A stream does not talk to the shard through a channel: it takes the lock and works on its connection. Whoever
//! holds the lock also sends what has become due before letting go, so a write is on the wire when it returns. The
//! [driver](super::driver) takes the lock for received frames and for timers.
//!
//! A shard that [gathers](Shard::gather) makes an exception: when the driver has woken tasks, it lets them run and comes back, and
//! what they write meanwhile it sends together.

use std::{
    collections::VecDeque,
    io, mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, Ordering, fence},
    },
    task::{Context, Wake, Waker},
};

use tokio::sync::Notify;

use super::{Stopped, clock::Clock, waiters::Waiters};
use crate::{
    device::{BURST, Device, Umem},
    frame::{CompletedFrame, FramePool as _, RxFrame, TxFrame},
    stack::Stack,
    telemetry::STORY,
    time::{Duration, Instant},
};

/// Rounds of receive and send that one pass makes before it lets others have the lock.
///
/// Lower, and a busy shard pays for the lock more often; higher, and other tasks of its thread, and those who want the lock, wait longer.
const ROUNDS: usize = 16;

/// So few frames are no reason to look for more of them before those have a turn who wait for what they brought. More, and a burst of
/// requests is answered in pieces, each by a system call of its own; fewer, and small bursts wait for a pass that finds nothing.
pub(super) const FEW: usize = 8;

/// How long to wait for the TX ring to drain when nothing else happens: the kernel does not tell when it has room
/// again for a socket that is only polled for input. A full ring of 2048 frames lasts for over 200 µs at 100 Gbit/s.
const TX_RETRY: Duration = Duration::from_micros(200);

/// Looks at the device for one at the clock, by a driver that polls, and for one turn of others, where a look is no system call. Fewer,
/// and it spends a fifth of its time on the clock; more, and timers and others wait for more than a microsecond.
pub(super) const LOOKS: u32 = 8;

/// A shard that tasks and the driver share.
#[derive(Debug)]
pub struct Shard {
    core: Mutex<Core>,
    /// Tells the driver that its sleep has become too long, or that it is over.
    pub(super) wake_driver: Arc<Notify>,
    /// None if the shard has no siblings: then nobody has anything better to do than to wait.
    turned_away: Option<TurnedAway>,
}

/// Tasks that found the lock taken and did not wait for it.
#[derive(Debug, Default)]
struct TurnedAway {
    any: AtomicBool,
    tasks: Mutex<Vec<Waker>>,
}

/// Wakes the driver when another shard has passed something on.
struct Bell(Arc<Notify>);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.notify_one();
    }
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
    /// When a frame last came or went.
    last_frame: Instant,
    /// The latest time that the protocols were told in a pass.
    latest: Instant,
    /// What is due next, if a pass has found nothing to do and nobody has worked on the shard since.
    idle_until: Option<Option<Instant>>,
    /// How often the device may still be looked at before the clock is.
    looks_left: u32,
    /// Until when the driver sleeps, while it does; `None` inside means: until a frame comes.
    driver_sleeps: Option<Option<Instant>>,
    /// What tasks write when the driver has just woken them is sent by it, in its next pass.
    gathers: bool,
    /// The driver comes back when the tasks that are ready by now have run.
    returns_soon: bool,
    /// Somebody has worked on the shard meanwhile.
    was_worked_on: bool,
    /// Somebody else drives the device: the driver keeps away from it.
    pub(super) is_lent: bool,
    /// Nobody uses the shard any more.
    pub(super) closing: bool,
    /// Nobody drives the shard any more, though somebody may use it.
    stopped: Option<Stopped>,
}

impl Shard {
    /// A shard over a device and the stack that holds its UMEM.
    pub fn new(stack: Stack<Umem>, device: Box<dyn Device>, clock: Clock) -> Self {
        let wake_driver = Arc::new(Notify::new());
        stack.on_message(Waker::from(Arc::new(Bell(Arc::clone(&wake_driver)))));
        let core = Core {
            stack,
            waiters: Waiters::default(),
            device,
            clock,
            received: Vec::with_capacity(BURST),
            outgoing: VecDeque::with_capacity(BURST),
            completed: Vec::with_capacity(BURST),
            last_frame: Instant::ZERO,
            latest: Instant::ZERO,
            idle_until: None,
            looks_left: 0,
            driver_sleeps: None,
            gathers: false,
            returns_soon: false,
            was_worked_on: false,
            is_lent: false,
            closing: false,
            stopped: None,
        };
        Self { core: Mutex::new(core), wake_driver, turned_away: None }
    }

    /// The same as one of several shards, so that [`try_with`](Self::try_with) does not wait.
    pub fn one_of_several(stack: Stack<Umem>, device: Box<dyn Device>, clock: Clock) -> Self {
        Self { turned_away: Some(TurnedAway::default()), ..Self::new(stack, device, clock) }
    }

    /// Works on the shard, then sends what that made due and wakes those whom it concerns.
    pub fn with<T>(&self, work: impl FnOnce(&mut Core, Instant) -> T) -> T {
        // The protocol code doesn't panic; if it did, its state is still the best there is for closing orderly.
        self.work(self.core.lock().unwrap_or_else(PoisonError::into_inner), work)
    }

    /// As [`with`](Self::with), but for those who have other shards to turn to: `None` if somebody works on this one just
    /// now, and then the task is woken when they have finished.
    pub fn try_with<T>(&self, cx: &Context<'_>, work: impl FnOnce(&mut Core, Instant) -> T) -> Option<T> {
        let Some(turned_away) = &self.turned_away else { return Some(self.with(work)) };
        let core = self.try_lock().or_else(|| {
            turned_away.remember(cx);
            // They may have finished just before they could know of us.
            self.try_lock()
        });
        core.map(|core| self.work(core, work))
    }

    /// Whether somebody works on the shard just now.
    pub fn is_busy(&self) -> bool {
        let is_busy = self.try_lock().is_none();
        if !is_busy && let Some(turned_away) = &self.turned_away {
            // We had the lock for a moment, too.
            turned_away.wake();
        }
        is_busy
    }

    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, Core>> {
        match self.core.try_lock() {
            Ok(core) => Some(core),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// As [`with`](Self::with), for the driver, which sends by itself.
    pub(super) fn drive<T>(&self, work: impl FnOnce(&mut Core, Instant) -> T) -> T {
        let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
        let now = core.clock.now();
        core.looks_left = LOOKS;
        let result = work(&mut core, now);
        self.let_go(core, false);
        result
    }

    /// Whether nothing has come and nobody has worked on the shard since a pass found nothing to do. Whether something is due by now is
    /// another question, which is to be asked when this says no: it does now and then.
    pub(super) fn is_unchanged(&self) -> bool {
        let is_unchanged = self.core.lock().unwrap_or_else(PoisonError::into_inner).is_unchanged();
        if let Some(turned_away) = &self.turned_away {
            turned_away.wake();
        }
        is_unchanged
    }

    fn work<T>(&self, mut core: MutexGuard<'_, Core>, work: impl FnOnce(&mut Core, Instant) -> T) -> T {
        let now = core.clock.now();
        core.stack.handle_notices(now);
        let result = work(&mut core, now);
        // Time must not run backwards, if the work took a while and let it pass.
        let now = if core.is_lent { core.clock.now() } else { now.max(core.latest) };
        core.idle_until = None;
        if core.returns_soon {
            core.was_worked_on = true;
        } else {
            core.transmit(now);
        }
        core.dispatch();
        let oversleeps = core.driver_oversleeps(now);
        self.let_go(core, oversleeps);
        result
    }

    /// Leaves the shard to others, and wakes those whom it concerns.
    fn let_go(&self, mut core: MutexGuard<'_, Core>, oversleeps: bool) {
        core.replenish();
        let wakers = mem::take(&mut core.waiters.woken);
        drop(core);
        wakers.into_iter().for_each(Waker::wake);
        if let Some(turned_away) = &self.turned_away {
            turned_away.wake();
        }
        if oversleeps {
            self.wake_driver.notify_one();
        }
    }

    /// The device has failed, or is of no use any more. Connections end; what of that can be told to their peers is. Whoever
    /// waits for anything hears why.
    pub fn stop(&self, error: &io::Error) {
        self.with(|core, now| {
            if core.stopped.is_some() {
                return;
            }
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

    /// Has the tasks that received frames wake write together: see the module's text. For tasks that share a thread with the driver
    /// and are soon done with what they do; others would find their bytes on the wire later than they could be.
    pub fn gather(&self) {
        self.with(|core, _| core.gathers = true);
    }

    /// Keeps the driver from the device until [`take_back`](Self::take_back): who asked for it drives the
    /// [device](Core::device_and_stack), and hands the stack the frames that are not for them.
    pub fn lend(&self) {
        self.with(|core, _| (core.is_lent, core.returns_soon) = (true, false));
        self.wake_driver.notify_one();
    }

    /// The driver drives again.
    pub fn take_back(&self) {
        self.with(|core, _| core.is_lent = false);
        self.wake_driver.notify_one();
    }

    /// Ends the driver. What the shard holds goes when the last reference to it does.
    pub fn close(&self) {
        self.with(|core, _| core.closing = true);
        self.wake_driver.notify_one();
    }
}

impl TurnedAway {
    fn remember(&self, cx: &Context<'_>) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if !tasks.iter().any(|waker| waker.will_wake(cx.waker())) {
            tasks.push(cx.waker().clone());
        }
        self.any.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The lock is free again. Either we see who was turned away while it was not, or they see that it is.
    fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.any.load(Ordering::Relaxed) {
            let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            self.any.store(false, Ordering::Relaxed);
            let woken = mem::take(&mut *tasks);
            drop(tasks);
            woken.into_iter().for_each(Waker::wake);
        }
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
        self.returns_soon = false;
        self.waiters.wake_all();
    }

    /// Receives, lets time pass and sends, until there is nothing to do or others should have a turn. Returns
    /// whether there may be more.
    pub(super) fn pump(&mut self, mut now: Instant) -> bool {
        let mut handled = 0;
        for round in 0..ROUNDS {
            if round > 0 {
                now = self.clock.now();
            }
            self.latest = now;
            self.stack.handle_notices(now);
            self.reap(now);
            let received = self.device.rx_burst(now, self.stack.pool_mut(), &mut self.received);
            self.stack.handle_burst(now, &mut self.received);
            self.stack.handle_messages(now);
            self.stack.handle_timeout(now);
            handled += received + self.transmit(now);
            self.dispatch();
            if received == 0 {
                return false;
            }
            self.last_frame = now;
            // A stream that fills the path finds more to do each round, and those whom nothing has woken here want a turn, too.
            if handled >= BURST || received < FEW && !self.waiters.woken.is_empty() {
                return true;
            }
        }
        true
    }

    /// Sends what is due, as far as the TX ring has room. Returns how many frames.
    fn transmit(&mut self, now: Instant) -> usize {
        let mut sent = 0;
        loop {
            if self.device.tx_room() == 0 {
                self.reap(now);
            }
            let room = self.device.tx_room().min(BURST);
            let outgoing = &mut self.outgoing;
            self.stack.transmit(now, room.saturating_sub(outgoing.len()), |frame| outgoing.push_back(frame));
            if self.outgoing.is_empty() || room == 0 {
                return sent;
            }
            let waiting = self.outgoing.len();
            self.device.tx_burst(now, self.stack.pool_mut(), &mut self.outgoing);
            sent += waiting - self.outgoing.len();
            // A long frame may find too few descriptors though there are some: nothing has gone then, and a driver that polls
            // must not do so for its sake.
            if self.outgoing.len() < waiting {
                self.last_frame = now;
            }
            if !self.outgoing.is_empty() {
                return sent;
            }
            self.reap(now);
        }
    }

    /// Takes back the frames that have been sent.
    fn reap(&mut self, now: Instant) {
        self.device.completions(self.stack.pool_mut(), &mut self.completed);
        self.stack.handle_completions(now, self.completed.drain(..));
    }

    /// Chunks that came back go to a NIC that has none: the driver sleeps until it receives.
    fn replenish(&mut self) {
        self.device.replenish(self.stack.pool_mut());
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

    /// A pass has found nothing to do until then.
    pub(super) fn is_idle_until(&mut self, deadline: Option<Instant>) {
        self.idle_until = Some(deadline);
    }

    fn is_unchanged(&mut self) -> bool {
        let may_look = self.idle_until.is_some() && self.looks_left > 0;
        self.looks_left = self.looks_left.saturating_sub(1);
        may_look && !self.stack.has_messages() && self.device.is_quiet()
    }

    /// Whether another pass would surely find nothing to do, either.
    pub(super) fn is_quiet(&mut self, now: Instant) -> bool {
        self.idle_until.is_some_and(|until| until.is_none_or(|until| now < until))
            && !self.stack.has_messages()
            && self.device.is_quiet()
    }

    /// When a frame last came or went.
    pub(super) fn last_frame(&self) -> Instant {
        self.last_frame
    }

    /// The driver goes to sleep until then.
    pub(super) fn driver_sleeps_until(&mut self, deadline: Option<Instant>) {
        self.driver_sleeps = Some(deadline);
    }

    /// Whether the driver, before it sleeps or looks again, has to come back for what tasks will have written: those that it wakes,
    /// and those that these wake or begin, as who accepts a connection does.
    pub(super) fn driver_returns_soon(&mut self) -> bool {
        let was_worked_on = mem::take(&mut self.was_worked_on);
        self.returns_soon = was_worked_on || self.wakes_several();
        self.returns_soon
    }

    /// Whether there is something to gather. A task that is woken alone is not kept waiting: with one stream that fills the path, each
    /// write goes out while the next is made.
    fn wakes_several(&self) -> bool {
        self.gathers && self.waiters.woken.len() > 1
    }

    /// The driver is awake.
    pub(super) fn driver_woke(&mut self) {
        self.driver_sleeps = None;
        self.returns_soon = false;
        self.idle_until = None;
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

    /// The device and the stack over it, for who has been [lent](Shard::lend) the shard.
    pub fn device_and_stack(&mut self) -> (&mut dyn Device, &mut Stack<Umem>) {
        (&mut *self.device, &mut self.stack)
    }

    /// Chunks that are with the device or wait for room on its TX ring; `None` where the device does not count its own.
    pub fn chunks_in_device(&self) -> Option<usize> {
        let pool = self.stack.pool();
        let waiting: usize = self.outgoing.iter().map(|frame| pool.tx_pieces(frame).count()).sum();
        self.device.chunks_held(pool).map(|held| held + waiting)
    }

    /// What tells the time.
    pub fn clock(&self) -> Clock {
        self.clock
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
