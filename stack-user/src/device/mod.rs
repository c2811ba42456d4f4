//! Frames in, frames out: the trait that every NIC implements, in memory or behind AF_XDP.
//!
//! This layer holds the only `unsafe` code of user space: the memory that the kernel shares with us, and the
//! rings in it.

pub mod busy_poll;
pub mod capture;
pub mod fault;
pub mod interface;
pub mod kernel;
mod long;
pub mod memory;
mod processes;
mod readable;
pub mod remedy;
pub mod restore;
pub mod tcp_info;
mod umem;
pub mod unprivileged;
mod view;
pub mod xdp;

use std::{collections::VecDeque, io, os::fd::OwnedFd};

pub use long::MAX_TX_CHUNKS;
pub use readable::Readable;
pub use umem::{CHUNK_SIZE, MAX_CHUNK_SIZE, TX_OFFSET, Umem};
pub use view::{RxView, TxView};

use crate::{
    frame::{CompletedFrame, RxFrame, TxFrame},
    time::Instant,
};

/// Frames that one call to a ring moves at most.
///
/// Lower, and the cost of a ring's index updates and of the lock is paid for fewer frames; higher, and the
/// frames of one burst no longer fit in the first-level cache (64 headers do) and timers wait longer.
pub const BURST: usize = 64;

/// One NIC queue, or several that are served together.
///
/// A device is never in charge of the chunks: they are in the [`Umem`], which every call gets. It moves handles. A frame has
/// one, in however many chunks it [lies](crate::frame#long-frames), and what a device counts are frames.
pub trait Device: Send {
    /// Takes up to [`BURST`] received frames, appends them to `frames`, and gives the NIC empty chunks to
    /// receive into. Returns how many frames came.
    fn rx_burst(&mut self, now: Instant, umem: &mut Umem, frames: &mut Vec<RxFrame>) -> usize;

    /// How many frames `tx_burst` can take now, if each lies in one chunk: fewer, if they need more descriptors each.
    fn tx_room(&mut self) -> usize;

    /// Sends frames from the front of `frames`, as many as there is room for. Those that stay could not be sent
    /// yet. One call, however many frames, costs at most one system call.
    fn tx_burst(&mut self, now: Instant, umem: &mut Umem, frames: &mut VecDeque<TxFrame>);

    /// Appends the frames that have been sent, and so are ours again, to `done`.
    fn completions(&mut self, umem: &mut Umem, done: &mut Vec<CompletedFrame>);

    /// Gives the NIC empty chunks if it is short of them, because none was free when it was to get some. For whoever
    /// has just given chunks back: a NIC that has none to receive into wakes nobody. Costs nothing while it is not.
    fn replenish(&mut self, _umem: &mut Umem) {}

    /// When the device wants to be called again though no frame came (a middleware delays some), if ever.
    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Whether nothing has come and nothing is left to be done, if that can be told at a glance: for whoever looks again and again.
    fn is_quiet(&mut self) -> bool {
        false
    }

    /// Does what the kernel asks for before we sleep (a wake-up of the fill or TX ring). Returns whether there is
    /// more to do at once, so that sleeping would lose time.
    fn before_sleep(&mut self) -> bool {
        false
    }

    /// Why frames will never again come or go, if it is so: the interface is gone, for example. Asked before each sleep.
    fn failure(&mut self) -> Option<io::Error> {
        None
    }

    /// File descriptors that become readable when a frame has come: duplicates, for whoever waits to keep.
    ///
    /// # Errors
    /// When the process has too many open files.
    fn fds(&self) -> io::Result<Vec<OwnedFd>>;

    /// The device and how it was bound, in a line for `-v`: driver mode, copy mode, queues.
    fn describe(&self) -> String;

    /// How many chunks the device has: in the NIC's rings, or on their way there or back. `None` where nobody counts them.
    ///
    /// What is neither there nor free nor in use by a connection is lost, which must not be: it is how that is seen.
    fn chunks_held(&self, _umem: &Umem) -> Option<usize> {
        None
    }

    /// Counters of the device itself, as the kernel or the middleware keeps them: name and value.
    fn counters(&self) -> io::Result<Vec<(&'static str, u64)>> {
        Ok(Vec::new())
    }
}
