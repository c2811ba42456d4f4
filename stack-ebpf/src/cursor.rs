//! A packet's bytes, read in the way that the verifier can follow.
//!
//! A pointer into the packet only ever moves by constants: the verifier lets none but holders of CAP_PERFMON add a
//! number from the packet to it, and who runs a network stack should not need that. What lies behind a part of
//! variable length is copied by a helper instead.

use core::mem::MaybeUninit;

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
    programs::XdpContext,
};
use stack_common::steer::Cursor;

/// A place in the frame.
pub(crate) struct PacketCursor<'a> {
    ctx: &'a XdpContext,
    /// The address of the next byte to read, as long as the way here was constant.
    at: usize,
    end: usize,
    /// Its distance from the frame's start. The verifier lets nobody subtract pointers either.
    offset: usize,
    /// Whether the way here was not constant.
    has_skipped: bool,
}

impl<'a> PacketCursor<'a> {
    #[inline(always)]
    pub(crate) fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx, at: ctx.data(), end: ctx.data_end(), offset: 0, has_skipped: false }
    }
}

impl Cursor for PacketCursor<'_> {
    #[inline(always)]
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let offset = self.offset;
        self.offset += N;
        if self.has_skipped {
            return load(self.ctx, offset);
        }
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
        // Few packets have options, and without any the way stays constant.
        if bytes > 0 {
            // Whether there are as many shows when the next byte is taken.
            self.offset += bytes;
            self.has_skipped = true;
        }
        Some(())
    }

    #[inline(always)]
    fn frame_has(&self, bytes: usize) -> bool {
        // SAFETY: the context is the one that the kernel called us with.
        unsafe { bpf_xdp_get_buff_len(self.ctx.as_ptr().cast()) >= bytes as u64 }
    }
}

/// Copies bytes out of the frame, whichever buffer they are in.
#[inline(always)]
fn load<const N: usize>(ctx: &XdpContext, offset: usize) -> Option<[u8; N]> {
    let mut bytes = MaybeUninit::<[u8; N]>::uninit();
    // SAFETY: the context is the one that the kernel called us with, and it writes N bytes.
    let result = unsafe {
        bpf_xdp_load_bytes(ctx.as_ptr().cast(), offset as u32, bytes.as_mut_ptr().cast(), N as u32)
    };
    // SAFETY: on success all bytes are written.
    (result == 0).then(|| unsafe { bytes.assume_init() })
}
