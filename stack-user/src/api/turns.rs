//! What a task may do before others have their turn: those that share its thread, the stack's driver among them.

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
};

use tokio::task::coop::poll_proceed;

use super::tcp_stream::Protocols;
use crate::stack::TcpId;

/// Segments that one call writes at most. Larger, and others wait for longer, some 100 µs on a link whose sender pays for what the
/// other end does, too; smaller, and a bulk stream pays for more calls.
const SEGMENTS_AT_ONCE: usize = 48;

/// So few bytes are never too many, and need no look at the connection.
const ALWAYS_AT_ONCE: usize = 16 * 1024;

/// A step of a task, as tokio counts them: one that has made too many without waiting for anything is told to wait, and goes on when
/// others had their turn. Outside of tokio's runtimes there is no limit.
pub(super) fn step<T>(cx: &mut Context<'_>, work: impl FnOnce(&Context<'_>) -> Poll<T>) -> Poll<T> {
    let step = ready!(poll_proceed(cx));
    let done = work(cx);
    if done.is_ready() {
        step.made_progress();
    }
    done
}

/// Takes [a step](step) when there is something to do.
pub(super) async fn steps<T>(mut work: impl FnMut(&Context<'_>) -> Poll<T>) -> T {
    poll_fn(|cx| step(cx, &mut work)).await
}

/// How many of so many bytes one call writes. Linux would take all that have room, but does not run the other end's receiver, nor
/// keep a thread's other tasks from it meanwhile.
pub(super) fn most_at_once(stack: &Protocols, id: TcpId, bytes: usize) -> usize {
    if bytes <= ALWAYS_AT_ONCE {
        return bytes;
    }
    stack.tcp(id).map_or(bytes, |connection| bytes.min(SEGMENTS_AT_ONCE * connection.segment_len()))
}
