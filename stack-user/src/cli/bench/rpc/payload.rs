//! Bytes that only count: sent out of one place, received into none.
//!
//! Neither end keeps a buffer for a connection, however long its requests are: what comes is read into the stack of whoever
//! polls, and forgotten. So a million idle connections cost what the network needs for them, and nothing of ours.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    task::yield_now,
};

use super::{
    broken::Broken,
    protocol::{AGREED, ANSWER},
};
use crate::cli::bench::transport::Flow;

/// Bytes that are read at once. More than a request usually has, so that one call takes all that is there and the kernel need
/// not be asked whether that was all; few enough to be in the processor's cache whenever they are written over.
const AT_ONCE: usize = 16 * 1024;

/// Bytes that are read at once of bulk, and written at once: as many as iperf3 does.
const BULK_AT_ONCE: usize = 128 * 1024;

/// What requests and responses are made of.
pub(super) static FILLING: [u8; BULK_AT_ONCE] = [0; BULK_AT_ONCE];

/// Reads what there is, and keeps of it what has room in `place`. Returns how much it was: 0 at the end of the stream.
pub(super) fn poll_keep<S: AsyncRead + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    place: &mut [u8],
) -> Poll<io::Result<usize>> {
    let mut room = [const { MaybeUninit::<u8>::uninit() }; AT_ONCE];
    let mut room = ReadBuf::uninit(&mut room);
    ready!(Pin::new(stream).poll_read(cx, &mut room))?;
    let came = room.filled();
    place.iter_mut().zip(came).for_each(|(place, byte)| *place = *byte);
    Poll::Ready(Ok(came.len()))
}

/// Reads what there is, and forgets it.
pub(super) fn poll_skip<S: AsyncRead + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    poll_keep(stream, cx, &mut [])
}

/// Takes what there is of bulk, only to count it. Stacks that can't count without a copy have one place for that on each thread,
/// which is written over and over: nobody can have a server set one aside for each of a million connections.
pub(super) fn poll_count<S: Flow>(stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.resize(BULK_AT_ONCE, 0);
        stream.poll_discard(cx, scratch)
    })
}

thread_local! {
    /// Empty on threads that receive no bulk.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Sends as much as goes, for ever, and adds up how much went. After each write others have their turn: among them those who
/// measure how soon it is.
pub(super) fn poll_pour<S: AsyncWrite + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    sent: &mut u64,
) -> Poll<io::Result<()>> {
    match ready!(Pin::new(stream).poll_write(cx, &FILLING))? {
        0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        more => *sent += more as u64,
    }
    give_way(cx);
    Poll::Pending
}

/// Has the task woken as soon as others have had their turn, the stack's driver and the kernel's events among them.
pub(super) fn give_way(cx: &mut Context<'_>) {
    if pin!(yield_now()).poll(cx).is_ready() {
        cx.waker().wake_by_ref();
    }
}

/// Sends so many bytes.
pub(super) async fn send<S: AsyncWrite + Unpin>(stream: &mut S, mut bytes: u64) -> io::Result<()> {
    while bytes > 0 {
        let next = FILLING.len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
        bytes -= next as u64;
        stream.write_all(&FILLING[..next]).await?;
    }
    Ok(())
}

/// Receives exactly so many bytes.
///
/// # Errors
/// When the connection ends before, and when more are there, for which nobody has asked.
pub(super) async fn receive<S: AsyncRead + Unpin>(stream: &mut S, bytes: u64) -> Result<(), Broken> {
    let mut got = 0;
    while got < bytes {
        match poll_fn(|cx| poll_skip(stream, cx)).await? {
            0 => return Err(Broken::Closed),
            more => got += more as u64,
        }
    }
    if got > bytes { Err(Broken::Surplus) } else { Ok(()) }
}

/// Receives the answer that agrees and so many bytes behind it, in as few calls as they come in.
///
/// # Errors
/// As [`receive`], and when it is another answer: whoever agreed before has no reason to give that.
pub(super) async fn receive_behind_answer<S: AsyncRead + Unpin>(
    stream: &mut S,
    bytes: u64,
) -> Result<(), Broken> {
    let (mut answer, mut got) = ([0; ANSWER], 0_u64);
    while got < ANSWER as u64 + bytes {
        let place = answer.get_mut(got as usize..).unwrap_or_default();
        match poll_fn(|cx| poll_keep(stream, cx, place)).await? {
            0 => return Err(Broken::Closed),
            more => got += more as u64,
        }
        if got >= ANSWER as u64 && answer != AGREED {
            return Err(Broken::Stranger);
        }
    }
    if got > ANSWER as u64 + bytes { Err(Broken::Surplus) } else { Ok(()) }
}

/// Waits for the end of the stream, behind which nothing is expected.
pub(super) async fn receive_end<S: AsyncRead + Unpin>(stream: &mut S) -> Result<(), Broken> {
    match poll_fn(|cx| poll_skip(stream, cx)).await? {
        0 => Ok(()),
        _ => Err(Broken::Surplus),
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::cli::network::Connection;

    /// Keeps in mind where it was to copy to.
    struct Telltale(Option<(usize, usize)>);

    impl AsyncRead for Telltale {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Telltale {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl Connection for Telltale {
        fn reset(self) {}
    }

    impl Flow for Telltale {
        fn poll_discard(&mut self, _: &mut Context<'_>, scratch: &mut [u8]) -> Poll<io::Result<usize>> {
            self.0 = Some((scratch.as_ptr().addr(), scratch.len()));
            Poll::Pending
        }
    }

    #[test]
    fn all_connections_of_a_thread_throw_bulk_into_the_same_place() {
        let mut connections = [const { Telltale(None) }; 3];
        for connection in &mut connections {
            assert!(poll_count(connection, &mut Context::from_waker(Waker::noop())).is_pending());
        }
        let [first, others @ ..] = connections.map(|connection| connection.0.expect("asked"));
        assert!(
            others.iter().all(|place| *place == first) && first.1 == BULK_AT_ONCE,
            "{first:?}, {others:?}"
        );
    }
}
