//! How frames lie in memory: in a chunk each, or in several.
//!
//! A frame of an MTU of 1500 fits in a chunk of a page. One of 9000 does where pages are that large (some arm64 kernels): a
//! chunk can't be larger than a page, not even on huge pages (`xdp_umem_reg` refuses it), nor if chunks may start anywhere
//! (`XDP_UMEM_UNALIGNED_CHUNK_FLAG`), so that has no use here. Elsewhere it lies in several chunks, which takes a socket
//! bound with `XDP_USE_SG` and, for zero-copy, a driver that has it. What works is found out by trying, the best first: a
//! kernel that is too old and a driver that can't both say so by refusing.
//!
//! Huge pages ([`HugePages`](super::HugePages)) hold chunks of any size, and spare the processor's table of addresses when there are.

use nix::unistd::{SysconfVar, sysconf};

use super::{CHUNKS_MAX, Copying, MIN_CHUNKS, Options};
use crate::device::{CHUNK_SIZE, MAX_CHUNK_SIZE, TX_OFFSET};

/// Bytes of a frame that are not its IP packet's: Ethernet's header and a VLAN tag.
const ETHERNET: usize = 14 + 4;

/// Larger chunks take so many times the memory of normal ones. Lower, and there are fewer of them than a ring and unread
/// data want; higher, and memory that can't be swapped lies idle behind short frames.
const LARGE_MEMORY: usize = 2;

/// A way to lay out a UMEM and to bind a socket to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) chunk_size: usize,
    pub(super) chunks: u32,
    /// Frames may lie in several chunks.
    pub(super) multi_buffer: bool,
    pub(super) copying: Copying,
}

impl Layout {
    pub(super) fn bytes(&self) -> usize {
        self.chunks as usize * self.chunk_size
    }
}

/// Bytes of an IP packet whose frame fits in a chunk of so many.
pub(super) const fn mtu_in(chunk_size: usize) -> usize {
    chunk_size - TX_OFFSET - ETHERNET
}

/// Bytes of the pages that memory is made of.
pub(super) fn page_size() -> usize {
    sysconf(SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|size| usize::try_from(size).ok())
        .unwrap_or(CHUNK_SIZE)
}

/// What to try, in this order, where pages have that size.
pub(super) fn to_try(options: &Options, queues: usize, page_size: usize) -> Vec<Layout> {
    let mtu = options.mtu as usize;
    let sizes = [CHUNK_SIZE, 2 * CHUNK_SIZE, MAX_CHUNK_SIZE];
    let fitting = sizes.into_iter().find(|&size| size <= page_size && mtu <= mtu_in(size));
    let chunk_size = fitting.unwrap_or(CHUNK_SIZE);
    let chunks = chunks(options, queues, chunk_size);
    let in_one = Layout { chunk_size, chunks, multi_buffer: false, copying: options.copying };
    if fitting.is_some() {
        return vec![in_one];
    }
    // Asked for several chunks and left the choice, the kernel would copy even where zero-copy can do it. And to lose long
    // frames that others send unasked is worse than to copy.
    let ways = match options.copying {
        Copying::Auto => &[Copying::ZeroCopy, Copying::Copy][..],
        Copying::ZeroCopy => &[Copying::ZeroCopy],
        Copying::Copy => &[Copying::Copy],
    };
    let several = ways.iter().map(|&copying| Layout { multi_buffer: true, copying, ..in_one });
    several.chain([in_one]).collect()
}

fn chunks(options: &Options, queues: usize, size: usize) -> u32 {
    let queues = u32::try_from(queues).unwrap_or(u32::MAX);
    let all = queues.saturating_mul(options.chunks_per_queue).min(CHUNKS_MAX);
    let in_memory = (all as usize * CHUNK_SIZE * LARGE_MEMORY / size) as u32;
    if in_memory < all { in_memory.max(MIN_CHUNKS) } else { all }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn brief(mtu: u32, copying: Copying, page_size: usize) -> Vec<(usize, bool, Copying)> {
        let options = Options { mtu, copying, ..Options::default() };
        let layouts = to_try(&options, 1, page_size);
        layouts.iter().map(|l| (l.chunk_size, l.multi_buffer, l.copying)).collect()
    }

    #[test]
    fn what_fits_in_a_page_asks_for_nothing_special() {
        for mtu in [68, 1500, 3498, 3822] {
            assert_eq!(brief(mtu, Copying::Auto, 4096), [(4096, false, Copying::Auto)]);
        }
    }

    #[test]
    fn longer_frames_lie_in_several_chunks_copied_only_if_they_must_be() {
        use Copying::{Auto, Copy, ZeroCopy};
        for mtu in [3823, 9000, 65_535] {
            let all = [(4096, true, ZeroCopy), (4096, true, Copy), (4096, false, Auto)];
            assert_eq!(brief(mtu, Auto, 4096), all);
            assert_eq!(brief(mtu, ZeroCopy, 4096), [(4096, true, ZeroCopy), (4096, false, ZeroCopy)]);
            assert_eq!(brief(mtu, Copy, 4096), [(4096, true, Copy), (4096, false, Copy)]);
        }
    }

    #[test]
    fn large_pages_hold_large_chunks() {
        for page_size in [16_384, 65_536] {
            assert_eq!(brief(1500, Copying::Auto, page_size), [(4096, false, Copying::Auto)]);
            assert_eq!(brief(4000, Copying::Auto, page_size), [(8192, false, Copying::Auto)]);
            assert_eq!(brief(9000, Copying::Auto, page_size), [(16_384, false, Copying::Auto)]);
        }
        let options = Options { mtu: 9000, ..Options::default() };
        let [layout] = to_try(&options, 1, 65_536)[..] else { panic!("one way") };
        assert_eq!((layout.chunks, layout.bytes()), (2048, 32 * MIB));
        let tiny = Options { chunks_per_queue: 256, ..options };
        assert_eq!(to_try(&tiny, 1, 65_536)[0].chunks, MIN_CHUNKS);
        assert_eq!(to_try(&options, 1000, 4096)[0].chunks, CHUNKS_MAX);
    }

    #[test]
    fn this_system_has_pages() {
        assert!(page_size() >= 4096 && page_size().is_power_of_two());
    }
}
