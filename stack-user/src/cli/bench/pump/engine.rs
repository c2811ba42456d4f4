//! The loop of the pump: what came, what goes, and waiting when neither did.

use std::{
    collections::VecDeque,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::{
        socket::{MsgFlags, recv},
        time::TimeSpec,
    },
};

use super::frames::{self, Kind};
use crate::{
    device::{Device, Umem},
    frame::{CompletedFrame, FramePool as _, RxFrame, TxFrame},
    runtime::Clock,
    stack::Stack,
    time::{Duration, Instant},
};

/// What is done with frames.
pub(super) trait Role {
    /// Which frames of other pumps it receives; the others are dropped.
    const RECEIVES: Kind = Kind::Sent;

    /// A frame of another pump has come, in a burst that was taken at that time; it stays with whoever calls.
    fn receive(
        &mut self,
        now: Instant,
        number: u64,
        frame: &RxFrame,
        umem: &mut Umem,
        outgoing: &mut VecDeque<TxFrame>,
    );

    /// Puts on `outgoing` what is to be sent, up to as many frames as there are descriptors (`room`).
    fn send(&mut self, _now: Instant, _room: usize, _umem: &mut Umem, _outgoing: &mut VecDeque<TxFrame>) {}

    /// A frame has been sent. Returned if it is not the role's own.
    fn take_back(&mut self, frame: CompletedFrame) -> Option<CompletedFrame> {
        Some(frame)
    }

    /// When it wants to be asked again though no frame has come, if ever.
    fn due(&self, _now: Instant) -> Option<Instant> {
        None
    }

    /// Whether there is nothing left to do.
    fn is_over(&self, now: Instant) -> bool;

    /// Gives back the frames that it kept.
    fn finish(&mut self, _umem: &mut Umem) {}
}

/// A role at work.
pub(super) struct Engine<R> {
    pub(super) role: R,
    port: u16,
    /// How long to poll for frames before sleeping, and whether a driver is to be asked for them meanwhile.
    spin: (Duration, bool),
    queues: Vec<OwnedFd>,
    clock: Clock,
    received: Vec<RxFrame>,
    outgoing: VecDeque<TxFrame>,
    done: Vec<CompletedFrame>,
    /// When a frame last came or went.
    last_frame: Instant,
}

impl<R: Role> Engine<R> {
    pub(super) fn new(
        role: R,
        port: u16,
        spin: (Duration, bool),
        queues: Vec<OwnedFd>,
        clock: Clock,
    ) -> Self {
        Self {
            role,
            port,
            spin,
            queues,
            clock,
            received: Vec::new(),
            outgoing: VecDeque::new(),
            done: Vec::new(),
            last_frame: Instant::ZERO,
        }
    }

    /// Works until then, or until there is nothing left to do; whether that is so.
    pub(super) fn run(&mut self, until: Instant, device: &mut dyn Device, stack: &mut Stack<Umem>) -> bool {
        loop {
            let now = self.clock.now();
            if self.role.is_over(now) {
                return true;
            }
            if now >= until {
                return false;
            }
            if self.pass(now, device, stack) {
                self.last_frame = now;
            } else {
                self.wait(now, until, device);
            }
        }
    }

    /// Gives back whatever is left.
    pub(super) fn finish(&mut self, stack: &mut Stack<Umem>) {
        self.role.finish(stack.pool_mut());
        self.outgoing.drain(..).for_each(|frame| stack.pool_mut().release_tx(frame));
    }

    /// Receives, then sends. Whether a frame came or went.
    fn pass(&mut self, now: Instant, device: &mut dyn Device, stack: &mut Stack<Umem>) -> bool {
        device.completions(stack.pool_mut(), &mut self.done);
        for frame in self.done.drain(..) {
            if let Some(frame) = self.role.take_back(frame) {
                stack.handle_completion(now, frame);
            }
        }
        let came = device.rx_burst(now, stack.pool_mut(), &mut self.received);
        for frame in self.received.drain(..) {
            match frames::read(stack.pool().rx_bytes(&frame), self.port) {
                Some((kind, number)) => {
                    if kind == R::RECEIVES {
                        self.role.receive(now, number, &frame, stack.pool_mut(), &mut self.outgoing);
                    }
                    stack.pool_mut().release_rx(frame);
                }
                None => stack.handle_frame(now, frame),
            }
        }
        let room = device.tx_room();
        self.role.send(now, room, stack.pool_mut(), &mut self.outgoing);
        let waiting = self.outgoing.len();
        if waiting > 0 {
            device.tx_burst(now, stack.pool_mut(), &mut self.outgoing);
        }
        came > 0 || self.outgoing.len() < waiting
    }

    /// Has the NIC's driver look for frames, or sleeps until one comes.
    fn wait(&self, now: Instant, until: Instant, device: &mut dyn Device) {
        let (spin, asks_driver) = self.spin;
        if now.since(self.last_frame) < spin {
            for queue in self.queues.iter().filter(|_| asks_driver) {
                // No frame comes this way: the call is what has the driver look.
                let _ = recv(queue.as_raw_fd(), &mut [], MsgFlags::MSG_DONTWAIT);
            }
            return;
        }
        if device.before_sleep() {
            return;
        }
        let due = [device.poll_timeout(), self.role.due(now)].into_iter().flatten().fold(until, Instant::min);
        let mut queues: Vec<_> =
            self.queues.iter().map(|queue| PollFd::new(queue.as_fd(), PollFlags::POLLIN)).collect();
        // Whatever comes of it: the rings are looked at next.
        let _ = ppoll(&mut queues, Some(TimeSpec::from_duration(due.since(now))), None);
    }
}
