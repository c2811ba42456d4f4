//! A packet's bytes, read in the way that the verifier can follow.

use aya_ebpf::{EbpfContext as _, helpers::generated::bpf_xdp_get_buff_len, programs::XdpContext};
use stack_common::steer::Cursor;

/// The part of the frame that lies in the first buffer.
pub(crate) struct PacketCursor<'a> {
    ctx: &'a XdpContext,
    /// The next byte to read. Between 0 and `end`, in the kernel's address space.
    at: usize,
    end: usize,
}

impl<'a> PacketCursor<'a> {
    #[inline(always)]
    pub(crate) fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx, at: ctx.data(), end: ctx.data_end() }
    }
}

impl Cursor for PacketCursor<'_> {
    #[inline(always)]
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let next = self.at + N;
        if next > self.end {
            return None;
        }
        // SAFETY: the kernel guarantees that the bytes up to `data_end` can be read, and these end before it. A
        // byte array has no alignment and no invalid values.
        let bytes = unsafe { *(self.at as *const [u8; N]) };
        self.at = next;
        Some(bytes)
    }

    #[inline(always)]
    fn skip(&mut self, bytes: usize) -> Option<()> {
        let next = self.at + bytes;
        if next > self.end {
            return None;
        }
        self.at = next;
        Some(())
    }

    #[inline(always)]
    fn frame_has(&self, bytes: usize) -> bool {
        // Comparing pointers is cheap, and enough for all frames but the truncated and those in several buffers.
        if self.ctx.data() + bytes <= self.end {
            return true;
        }
        // SAFETY: the context is the one that the kernel called us with.
        unsafe { bpf_xdp_get_buff_len(self.ctx.as_ptr().cast()) >= bytes as u64 }
    }
}
