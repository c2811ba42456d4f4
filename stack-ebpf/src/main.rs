//! The XDP program: an entry point and its maps. The decision is [`stack_common::steer::decide`].
#![no_std]
#![no_main]

mod cursor;
mod maps;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use stack_common::{abi, steer};

use crate::{
    cursor::PacketCursor,
    maps::{COUNTERS, Claimed, XSKS},
};

/// Gives each frame to us or to the kernel. It never drops one itself.
///
/// The function's name is [`abi::PROGRAM`]. `frags` lets it run on NICs whose frames span several buffers.
#[xdp(frags)]
fn xstack(ctx: XdpContext) -> u32 {
    let verdict = steer::decide(&mut PacketCursor::new(&ctx), &Claimed);
    COUNTERS.bump(verdict.index());
    #[cfg(feature = "log")]
    record(&ctx, verdict);

    if !verdict.is_redirect() {
        return xdp_action::XDP_PASS;
    }
    let action = XSKS.redirect(ctx.rx_queue_index());
    if action != xdp_action::XDP_REDIRECT {
        COUNTERS.bump(abi::NO_SOCKET);
    }
    action
}

/// Tells what was decided, at a level that is chosen when the program is loaded: our frames at `debug`, the
/// kernel's at `trace`.
#[cfg(feature = "log")]
#[inline(always)]
fn record(ctx: &XdpContext, verdict: steer::Verdict) {
    let (name, queue) = (verdict.name(), ctx.rx_queue_index());
    if verdict.is_redirect() {
        aya_log_ebpf::debug!(ctx, "queue {}: {}", queue, name);
    } else {
        aya_log_ebpf::trace!(ctx, "queue {}: {}", queue, name);
    }
}

/// Never reached. A loop without an end is something that the verifier refuses, so a program that loads is one
/// in which no panic can happen.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The license under which the kernel offers its helpers.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
