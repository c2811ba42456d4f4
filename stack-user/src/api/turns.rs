//! What a task may do before others have their turn: those that share its thread, the stack's driver among them.

use std::task::{Context, Poll, ready};

use tokio::task::coop::poll_proceed;

use super::tcp_stream::Protocols;
use crate::stack::TcpId;

/// Segments that one call writes at most. Larger, and others wait for longer, some 100 µs at MTU 1500 where the sender's core pays for
/// what the other end does, too; smaller, and a bulk stream pays for more calls.
const SEGMENTS_AT_ONCE: usize = 48;

/// So few bytes are never too many, whatever the peer says that its segments are: it must not make work of each of them.
const ALWAYS_AT_ONCE: usize = 16 * 1024;

/// A step of a task, as tokio counts them: one that has made too many without waiting for anything is told to wait, and goes on when
/// others had their turn. Without a context nobody can wait, and nothing is counted; nor is it where no runtime of tokio's polls.
pub(super) fn step<T>(cx: Option<&Context<'_>>, work: impl FnOnce() -> Poll<T>) -> Poll<T> {
    let Some(cx) = cx else { return work() };
    let step = ready!(poll_proceed(&mut Context::from_waker(cx.waker())));
    let done = work();
    if done.is_ready() {
        step.made_progress();
    }
    done
}

/// How many of so many bytes one call writes. They leave before it returns, as far as the windows allow, and until then a thread's other
/// tasks wait.
pub(super) fn most_at_once(stack: &Protocols, id: TcpId, bytes: usize) -> usize {
    if bytes <= ALWAYS_AT_ONCE {
        return bytes;
    }
    let most = |len: usize| (SEGMENTS_AT_ONCE * len).max(ALWAYS_AT_ONCE);
    stack.tcp(id).map_or(bytes, |connection| bytes.min(most(connection.segment_len())))
}
