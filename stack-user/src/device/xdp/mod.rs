//! AF_XDP: rings that the kernel and we share, over one UMEM.
//!
//! ```text
//!                      ┌───────────────────────────── UMEM ─────────────────────────────┐
//!                      │ chunk │ chunk │ chunk │ ...        every chunk has one owner   │
//!                      └────────────────────────────────────────────────────────────────┘
//!   we    ── empty chunks ──▶ fill ring ──────▶ kernel writes a frame ──────▶ RX ring ── frames ──▶ we
//!   we    ── frames ────────▶ TX ring ────────▶ kernel sends it ────▶ completion ring ── chunks ──▶ we
//! ```
//!
//! Every queue of the NIC that we serve has these four rings; those that are opened together share one UMEM. The XDP
//! program chooses which frames come here, and needs the [descriptors](XdpDevice::sockets) of the sockets for that.

mod device;
mod error;
mod huge_pages;
mod layout;
mod lent;
mod long;
pub mod program;
mod queue;
mod ring_size;
mod rings;
pub mod sockets;

use std::{
    fmt, io,
    num::NonZeroU32,
    str::FromStr,
    thread,
    time::{Duration, Instant},
};

pub use device::XdpDevice;
pub use error::OpenError;
pub use huge_pages::{HugePages, HugePagesError};
use layout::Layout;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
pub use ring_size::{RingSize, RingSizeError};
use xsk_rs::config::{FrameSize, QueueSize, UmemConfig};

use self::queue::Queue;
use super::{CHUNK_SIZE, Umem, kernel, remedy};

/// Descriptors in each ring of a queue.
///
/// Lower, and frames are lost while we are not scheduled: 1024 full frames are 1.2 ms of a 10 Gbit/s link. Higher, and
/// the chunks that go round no longer fit in the second-level cache: 1024 of them are 1.5 MB of frame bytes.
pub const RING_SIZE: u32 = 1024;

/// Chunks in the UMEM for each queue.
///
/// Lower, and received data that the program has not read yet, or sent data that is not acknowledged yet, leaves no
/// chunk to receive into: of 4096, 1024 are in the fill ring, and 3072 hold 4 MB of a connection's data. Higher costs
/// memory that can't be swapped: 16 MB a queue as it is.
pub const CHUNKS_PER_QUEUE: u32 = 4096;

/// Chunks of all queues of a NIC together.
///
/// Lower, and the queues of a NIC that has dozens get less than a burst each to receive into; higher, and such a NIC
/// takes a server's memory for queues that are mostly idle: this is 256 MB.
pub const CHUNKS_MAX: u32 = 65_536;

/// Chunks in a UMEM at least: with fewer than a few bursts, a queue can't receive while it sends.
const MIN_CHUNKS: u32 = 256;

/// How long to wait for huge pages that were free when we began.
///
/// A socket that could not be bound gives its memory back some milliseconds later. Lower, and the next attempt finds none;
/// higher, and a start is delayed where somebody else took them.
const HUGE_PAGES_PATIENCE: Duration = Duration::from_millis(50);

/// How the NIC is to be driven: `--mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// The fastest that works: native before generic, zero-copy before copy.
    #[default]
    Auto,
    /// In the driver, zero-copy if it can.
    Native,
    /// In the driver, zero-copy or not at all.
    NativeZeroCopy,
    /// In the driver, frames copied to and from our memory.
    NativeCopy,
    /// After the driver, in the kernel's generic path: slow, works with every driver.
    Generic,
}

impl Mode {
    /// All of them, and what a user calls them.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("auto", Self::Auto),
        ("native", Self::Native),
        ("native-zerocopy", Self::NativeZeroCopy),
        ("native-copy", Self::NativeCopy),
        ("generic", Self::Generic),
    ];

    /// How sockets are bound in this mode. A program that was attached in the generic path sees frames that the driver
    /// has already copied, so zero-copy makes no sense there.
    pub fn copying(self, attached_generic: bool) -> Copying {
        match self {
            Self::Generic | Self::NativeCopy => Copying::Copy,
            Self::NativeZeroCopy => Copying::ZeroCopy,
            Self::Auto | Self::Native if attached_generic => Copying::Copy,
            Self::Auto | Self::Native => Copying::Auto,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES.iter().find(|(_, mode)| mode == self).map_or("", |(name, _)| name);
        f.pad(name)
    }
}

impl FromStr for Mode {
    type Err = ModeError;

    fn from_str(name: &str) -> Result<Self, ModeError> {
        let known = Self::NAMES.iter().find(|(known, _)| *known == name);
        known.map(|(_, mode)| *mode).ok_or_else(|| ModeError(name.to_owned()))
    }
}

/// A mode that there is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no mode `{0}`: use auto, native, native-zerocopy, native-copy or generic")]
pub struct ModeError(String);

/// Whether frames are copied between the NIC's memory and ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Copying {
    /// Not if the driver can do without.
    #[default]
    Auto,
    /// Always.
    Copy,
    /// Never; binding fails if the driver can't.
    ZeroCopy,
}

/// How sockets are opened.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Whether frames may be copied.
    pub copying: Copying,
    /// Descriptors in each ring: a power of two.
    pub ring_size: u32,
    /// Chunks in the UMEM for each queue, up to [`CHUNKS_MAX`] in all; if they are larger than [`CHUNK_SIZE`], fewer.
    pub chunks_per_queue: u32,
    /// Bytes of the longest IP packet that the interface takes. A frame of that which doesn't fit in a chunk lies in several.
    pub mtu: u32,
    /// Whether chunks are on huge pages.
    pub huge_pages: HugePages,
}

impl Options {
    /// Chunks for each of so many queues that are opened one by one, each with a UMEM of its own.
    pub fn chunks_for_each_of(queues: usize) -> u32 {
        let share = u32::try_from(queues).ok().and_then(|queues| CHUNKS_MAX.checked_div(queues));
        share.unwrap_or(0).clamp(MIN_CHUNKS, CHUNKS_PER_QUEUE)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            copying: Copying::default(),
            ring_size: RING_SIZE,
            chunks_per_queue: CHUNKS_PER_QUEUE,
            mtu: 1500,
            huge_pages: HugePages::default(),
        }
    }
}

/// What the kernel really gave: read back from the sockets, not what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// Whether frames go without a copy.
    pub zero_copy: bool,
    /// Whether frames may lie in several chunks.
    pub multi_buffer: bool,
    /// Bytes of a chunk.
    pub chunk_size: usize,
    /// Whether the chunks are on huge pages.
    pub huge_pages: bool,
    /// The NIC's queues that we are bound to.
    pub queues: Vec<u32>,
}

impl Bound {
    /// What the queues of a NIC are bound as together.
    pub fn all<'a>(each: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut all = Self {
            zero_copy: true,
            multi_buffer: true,
            chunk_size: super::MAX_CHUNK_SIZE,
            huge_pages: true,
            queues: Vec::new(),
        };
        for bound in each {
            all.zero_copy &= bound.zero_copy;
            all.multi_buffer &= bound.multi_buffer;
            all.chunk_size = all.chunk_size.min(bound.chunk_size);
            all.huge_pages &= bound.huge_pages;
            all.queues.extend(&bound.queues);
        }
        all
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let copying = if self.zero_copy { "zero-copy" } else { "copy" };
        write!(f, "{copying}, ")?;
        if self.multi_buffer {
            write!(f, "multi-buffer, ")?;
        }
        if self.chunk_size != CHUNK_SIZE {
            write!(f, "chunks of {} bytes, ", self.chunk_size)?;
        }
        if self.huge_pages {
            write!(f, "huge pages, ")?;
        }
        let queues: Vec<String> = self.queues.iter().map(u32::to_string).collect();
        write!(f, "queue{} {}", if queues.len() == 1 { "" } else { "s" }, queues.join(","))
    }
}

impl Bound {
    /// The MTU whose frames fit in one chunk.
    pub fn longest_in_one(&self) -> usize {
        layout::mtu_in(self.chunk_size)
    }

    /// Whether a frame of this MTU can be received and sent.
    pub fn takes(&self, mtu: u32) -> bool {
        self.multi_buffer || mtu as usize <= self.longest_in_one()
    }
}

/// Opens a socket on each of the queues, all over one new UMEM. No frame comes before the XDP program knows the
/// [sockets](XdpDevice::sockets), and by then their fill rings are full.
///
/// A queue that somebody gave back just now is waited for, for at most half a second.
///
/// # Errors
/// [`OpenError`] says which privilege, which setting or which other program is in the way.
pub fn open(
    interface: &str,
    queues: &[u32],
    options: &Options,
) -> Result<(XdpDevice, Umem, Bound), OpenError> {
    let ring_size = QueueSize::new(options.ring_size).map_err(|_| OpenError::RingSize(options.ring_size))?;
    let pages = kernel::HugePages::of_this_system();
    let mut refusal = OpenError::NoQueue;
    for layout in layout::to_try(options, queues.len(), layout::page_size()) {
        let may_hold = options.huge_pages.may_hold(layout.bytes(), pages);
        if options.huge_pages == HugePages::Always && !may_hold {
            return Err(OpenError::NoHugePages { bytes: layout.bytes(), pages });
        }
        match open_as(interface, queues, ring_size, &layout, may_hold.then_some(options.huge_pages)) {
            // The last resort is what was asked for before anybody thought of long frames, so its error is the one to tell.
            Err(error) if error.is_of_the_layout() => refusal = error,
            opened => return opened,
        }
    }
    Err(refusal)
}

fn open_as(
    interface: &str,
    queues: &[u32],
    ring_size: QueueSize,
    layout: &Layout,
    on_huge_pages: Option<HugePages>,
) -> Result<(XdpDevice, Umem, Bound), OpenError> {
    let (mut umem, huge_pages) = open_umem(ring_size, layout, on_huge_pages)?;
    // No frame may be longer than the ring.
    umem.limit_tx_chunks(if layout.multi_buffer { ring_size.get() as usize / 2 } else { 1 });
    let region = umem.as_shared().ok_or(OpenError::NotOurUmem)?;
    let queues = queues
        .iter()
        .map(|&id| Queue::open(region, interface, id, ring_size, layout))
        .collect::<Result<Vec<_>, OpenError>>()?;
    let zero_copy = queues.iter().map(Queue::is_zero_copy).collect::<Result<Vec<_>, _>>();
    let zero_copy = zero_copy.map_err(|source| OpenError::Os { step: "reading XDP_OPTIONS back", source })?;
    let bound = Bound {
        zero_copy: zero_copy.iter().all(|&is| is) && !zero_copy.is_empty(),
        multi_buffer: layout.multi_buffer,
        chunk_size: layout.chunk_size,
        huge_pages,
        queues: queues.iter().map(Queue::id).collect(),
    };
    let device = XdpDevice::new(interface, queues, &mut umem, &bound)?;
    Ok((device, umem, bound))
}

/// A UMEM, and whether it is on huge pages.
fn open_umem(
    ring_size: QueueSize,
    layout: &Layout,
    on_huge_pages: Option<HugePages>,
) -> Result<(Umem, bool), OpenError> {
    let chunks = NonZeroU32::new(layout.chunks).ok_or(OpenError::NoQueue)?;
    let frame_size = FrameSize::new(layout.chunk_size as u32).map_err(|_| OpenError::NotOurUmem)?;
    let config = UmemConfig::builder()
        .frame_size(frame_size)
        .frame_headroom(0)
        .fill_queue_size(ring_size)
        .comp_queue_size(ring_size)
        .build()
        .map_err(|_| OpenError::NotOurUmem)?;
    raise_locked_memory();
    if let Some(wish) = on_huge_pages {
        let give_up = Instant::now() + HUGE_PAGES_PATIENCE;
        loop {
            match Umem::shared(chunks, config, true) {
                Ok(umem) => return Ok((umem, true)),
                Err(error) if is_out_of_memory(&error) && Instant::now() < give_up => {
                    thread::sleep(HUGE_PAGES_PATIENCE / 10);
                }
                // They are another's by now, or not ours to use (a cgroup's limit).
                Err(error) if wish == HugePages::Always && is_out_of_memory(&error) => {
                    let pages = kernel::HugePages::of_this_system();
                    return Err(OpenError::NoHugePages { bytes: layout.bytes(), pages });
                }
                Err(_) => break,
            }
        }
    }
    let umem = Umem::shared(chunks, config, false);
    Ok((umem.map_err(|source| OpenError::umem(source, layout.bytes() as u64))?, false))
}

fn is_out_of_memory(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOMEM)
}

/// Allows ourselves as much locked memory as we may: the kernel counts the pages of all UMEMs. If it is not enough,
/// registering them fails and says so.
fn raise_locked_memory() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_MEMLOCK)
        && soft < hard
    {
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard);
    }
}

/// How to run this program with the capabilities that it needs, to the letter.
fn privilege_remedy() -> String {
    remedy_with(remedy::CAPABILITIES)
}

/// The same for the program that logs: it puts its records together in a way that the verifier takes for a leak of kernel
/// addresses, and allows those who may see them.
fn log_remedy() -> String {
    remedy_with(&format!("{},cap_perfmon", remedy::CAPABILITIES))
}

fn remedy_with(capabilities: &str) -> String {
    format!("run it with sudo, or once `{}`", remedy::setcap(capabilities))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever reads it pastes it into a shell.
    #[test]
    fn the_remedy_for_missing_privileges_names_this_very_program() {
        let this = std::env::current_exe().expect("the test's own path");
        assert!(privilege_remedy().ends_with(&format!("+ep {}`", this.display())));
    }

    #[test]
    fn a_mode_reads_back_as_it_is_written() {
        for (name, mode) in Mode::NAMES {
            assert_eq!(name.parse(), Ok(mode));
            assert_eq!(mode.to_string(), name);
        }
        let error = "turbo".parse::<Mode>().expect_err("no such mode");
        assert!(error.to_string().contains("`turbo`") && error.to_string().contains("native-copy"));
    }

    #[test]
    fn generic_never_asks_for_zero_copy_by_itself() {
        assert_eq!(Mode::Auto.copying(true), Copying::Copy);
        assert_eq!(Mode::Auto.copying(false), Copying::Auto);
        assert_eq!(Mode::NativeZeroCopy.copying(false), Copying::ZeroCopy);
    }

    #[test]
    fn what_was_bound_is_told_in_a_line() {
        let bound = Bound {
            zero_copy: false,
            multi_buffer: false,
            chunk_size: CHUNK_SIZE,
            huge_pages: false,
            queues: vec![0, 1],
        };
        assert_eq!(bound.to_string(), "copy, queues 0,1");
        let other = Bound { zero_copy: true, multi_buffer: true, queues: vec![2], ..bound.clone() };
        assert_eq!(other.to_string(), "zero-copy, multi-buffer, queue 2");
        let large = Bound { chunk_size: 16_384, huge_pages: true, ..bound.clone() };
        assert_eq!(large.to_string(), "copy, chunks of 16384 bytes, huge pages, queues 0,1");
        assert!(other.takes(9000) && large.takes(9000) && !bound.takes(9000) && bound.takes(3822));
        assert_eq!(Bound::all([&bound, &other]).to_string(), "copy, queues 0,1,2");
        assert_eq!(Bound::all([&other]), other);
    }

    #[test]
    fn many_queues_share_what_there_is() {
        let share = Options::chunks_for_each_of;
        assert_eq!((share(1), share(16)), (CHUNKS_PER_QUEUE, CHUNKS_PER_QUEUE));
        assert!(share(64) * 64 <= CHUNKS_MAX && share(64) == 1024);
        assert_eq!((share(0), share(4096)), (MIN_CHUNKS, MIN_CHUNKS));
    }
}
