//! What lies between two hosts: a bridge of two interfaces, with the fault middleware in both directions.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};
use stack_user::{
    device::{
        Device, Umem,
        fault::{Fault, FaultSpec, Faults},
        xdp::{self, Options},
    },
    frame::{CompletedFrame, FramePool, RxFrame, TxFrame},
    runtime::Clock,
    time::Instant,
};

use super::redirect::{Attach, Redirect};

/// Chunks at each end: what 100 Mbit/s holds in 100 ms and a queue of the same size is some 1700 frames; the rest is for
/// small ones.
const CHUNKS: u32 = 16_384;

/// The relay sleeps no longer than this, so that it ends soon when it is told to.
const NAP: Duration = Duration::from_millis(20);

/// Hands frames on until it is dropped.
pub(super) struct Relay {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Between two interfaces of this thread's namespace. `tx` is from `west` to `east`.
    pub(super) fn start(west: &str, east: &str, faults: FaultSpec) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        // What leaves by the eastern side comes from the west.
        let west = Side::open(west, faults.rx, faults.seed);
        let east = Side::open(east, faults.tx, faults.seed.wrapping_add(1));
        let told = stop.clone();
        let thread = std::thread::spawn(move || run(west, east, &told));
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

/// One interface.
struct Side {
    device: Fault,
    umem: Umem,
    fds: Vec<OwnedFd>,
    _redirect: Redirect,
    received: Vec<RxFrame>,
    to_send: VecDeque<TxFrame>,
    done: Vec<CompletedFrame>,
}

impl Side {
    fn open(interface: &str, faults: Faults, seed: u64) -> Self {
        let options = Options { ring_size: 2048, chunks_per_queue: CHUNKS, ..Options::default() };
        let (device, umem, _) = xdp::open(interface, &[0], &options).expect("the relay's socket");
        let redirect =
            Redirect::attach(interface, Attach::Native, device.sockets()).expect("the relay's program");
        let spec = FaultSpec { rx: Faults::default(), tx: faults, seed };
        let device = Fault::new(Box::new(device), spec);
        let fds = device.fds().expect("the relay's socket");
        let (received, to_send, done) = (Vec::new(), VecDeque::new(), Vec::new());
        Self { device, umem, fds, _redirect: redirect, received, to_send, done }
    }

    /// Takes in what has come, for the other side. What that has no chunk for is lost, as in a router.
    fn hand_over(&mut self, now: Instant, other: &mut Self) -> usize {
        self.device.rx_burst(now, &mut self.umem, &mut self.received);
        let count = self.received.len();
        for frame in self.received.drain(..) {
            if let Some(mut out) = other.umem.allocate_tx(frame.len()) {
                let bytes = self.umem.rx_gather(&frame);
                other.umem.tx_write(&mut out, 0, &bytes);
                out.set_len(bytes.len());
                other.to_send.push_back(out);
            }
            self.umem.release_rx(frame);
        }
        count
    }

    fn send(&mut self, now: Instant) {
        self.device.tx_burst(now, &mut self.umem, &mut self.to_send);
        self.device.completions(&mut self.umem, &mut self.done);
        self.done.drain(..).for_each(|frame| self.umem.release_completed(frame));
    }
}

fn run(mut west: Side, mut east: Side, stop: &AtomicBool) {
    let clock = Clock::new();
    while !stop.load(Ordering::Relaxed) {
        let now = clock.now();
        let moved = west.hand_over(now, &mut east) + east.hand_over(now, &mut west);
        west.send(now);
        east.send(now);
        let has_more = west.device.before_sleep() | east.device.before_sleep();
        if moved == 0 && !has_more {
            sleep(&clock, &west, &east);
        }
    }
}

/// Waits for a frame, or until one that is held is due.
fn sleep(clock: &Clock, west: &Side, east: &Side) {
    let due = [west.device.poll_timeout(), east.device.poll_timeout()].into_iter().flatten().min();
    let now = clock.now();
    let nap = due.map_or(NAP, |due| due.since(now).min(NAP));
    let fds = west.fds.iter().chain(&east.fds);
    let mut fds: Vec<_> = fds.map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)).collect();
    let _ = ppoll(&mut fds, Some(TimeSpec::from_duration(nap)), None);
}
