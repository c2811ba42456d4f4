//! Whether reading or writing would wait, and doing either without.

use std::{
    future::poll_fn,
    io::{self, IoSlice, IoSliceMut},
    task::{Context, Poll},
};

use tokio::io::{Interest, Ready};

use super::{TcpStream, turns::step};

impl TcpStream {
    /// Waits for bytes to read, and copies them to `buf` without taking them: the next read gets them again. 0 is the end of
    /// the stream, or an empty `buf`. Cancel safe.
    ///
    /// # Errors
    /// As reading.
    pub async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_peek(cx, buf)).await
    }

    /// [`peek`](Self::peek) for those who poll themselves.
    ///
    /// # Errors
    /// As reading.
    pub fn poll_peek(&self, cx: &Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_input(Some(cx), |stack, _, id| stack.tcp_peek(id, buf))
    }

    /// Waits until reading would not wait: something has come, the stream has ended, or the connection has failed. Cancel
    /// safe. Somebody else may have taken what came when [`try_read`](Self::try_read) asks for it.
    ///
    /// # Errors
    /// Why the stack stopped, if it did.
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_read_ready(cx)).await
    }

    /// [`readable`](Self::readable) for those who poll themselves.
    ///
    /// # Errors
    /// As there.
    pub fn poll_read_ready(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let peeked = self.poll_input(Some(cx), |stack, _, id| stack.tcp_peek(id, &mut []));
        peeked.map(|_| self.with(|core, _, _| core.running()).map_err(io::Error::from))
    }

    /// Waits until writing would not wait: there is room, or the connection has ended. Cancel safe. Somebody else may have
    /// taken the room when [`try_write`](Self::try_write) asks for it.
    ///
    /// # Errors
    /// Why the stack stopped, if it did.
    pub async fn writable(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_write_ready(cx)).await
    }

    /// [`writable`](Self::writable) for those who poll themselves.
    ///
    /// # Errors
    /// As there.
    pub fn poll_write_ready(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        step(Some(cx), || {
            self.with(|core, now, id| {
                core.running()?;
                if core.stack.tcp_is_writable(now, id) {
                    return Poll::Ready(Ok(()));
                }
                core.waiters.wait_to_write(id, cx);
                Poll::Pending
            })
        })
    }

    /// Waits for any of what `interest` names, and tells what there is of it: `READABLE`, with `READ_CLOSED` if it is the end
    /// of the stream, `WRITABLE`, and `ERROR` if the connection has failed. Cancel safe.
    ///
    /// # Errors
    /// Why the stack stopped, if it did.
    pub async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        poll_fn(|cx| {
            let mut ready = Ready::EMPTY;
            if interest.is_readable() {
                ready |= match self.poll_peek(cx, &mut [0]) {
                    Poll::Ready(Ok(0)) => Ready::READABLE | Ready::READ_CLOSED,
                    // Reading would tell of an error, too.
                    Poll::Ready(_) => Ready::READABLE,
                    Poll::Pending => Ready::EMPTY,
                };
            }
            if interest.is_writable() && self.poll_write_ready(cx)?.is_ready() {
                ready |= Ready::WRITABLE;
            }
            if interest.is_error() && self.error().is_some() {
                ready |= Ready::ERROR;
            }
            self.with(|core, _, _| core.running())?;
            if ready.is_empty() { Poll::Pending } else { Poll::Ready(Ok(ready)) }
        })
        .await
    }

    /// Reads what is there, without waiting. 0 is the end of the stream, or an empty `buf`.
    ///
    /// # Errors
    /// `WouldBlock` when nothing has come; otherwise as reading.
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        at_once(self.poll_input(None, |stack, now, id| stack.tcp_read(now, id, buf)))
    }

    /// Reads what is there into several buffers, one after the other, without waiting.
    ///
    /// # Errors
    /// As [`try_read`](Self::try_read).
    pub fn try_read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        at_once(self.poll_input(None, |stack, now, id| {
            let mut read = 0;
            for buf in bufs.iter_mut().filter(|buf| !buf.is_empty()) {
                let n = match stack.tcp_read(now, id, buf) {
                    Err(error) if read == 0 => return Err(error),
                    // What was read counts; the next call tells of the error.
                    result => result.unwrap_or(0),
                };
                read += n;
                if n < buf.len() {
                    break;
                }
            }
            Ok(read)
        }))
    }

    /// Writes what there is room for, but no more than 48 segments or 16 KiB at once, without waiting, and returns how many bytes.
    ///
    /// # Errors
    /// `WouldBlock` when there is no room; otherwise as writing.
    pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        at_once(self.poll_write_buf(None, buf))
    }

    /// The same from several buffers in one go.
    ///
    /// # Errors
    /// As [`try_write`](Self::try_write).
    pub fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        at_once(self.poll_write_bufs(None, bufs))
    }
}

fn at_once(result: Poll<io::Result<usize>>) -> io::Result<usize> {
    match result {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}
