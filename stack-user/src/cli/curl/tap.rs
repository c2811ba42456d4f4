//! A tap on the stream below HTTP: sees the heads exactly as they are on the wire, and how the connection fared.
//!
//! hyper gives headers in its own spelling and errors without their cause. `-i`, `-I` and `-v` want the server's very
//! bytes, and the exit code wants to know whether anything had come, whether the peer closed or reset, and when.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::cli::console::{Diagnostics, printable};

/// How much of a response's head is kept for printing. hyper refuses a longer one ([`super::connection`]); less
/// than its limit would cut heads that it accepts.
const HEAD_MAX: usize = 512 * 1024;

/// A stream that is listened to.
pub(super) struct Tap<S> {
    stream: S,
    record: Record,
}

impl<S> Tap<S> {
    /// Taps `stream`; with `verbose`, heads are printed there as they pass.
    pub(super) fn new(stream: S, verbose: Option<Diagnostics>) -> (Self, Record) {
        let record = Record(Arc::new(Mutex::new(Exchange::default())), verbose);
        (Self { stream, record: record.clone() }, record)
    }
}

/// What the tap has heard in the current exchange of a request and its response.
#[derive(Clone)]
pub(super) struct Record(Arc<Mutex<Exchange>>, Option<Diagnostics>);

#[derive(Default)]
struct Exchange {
    request: Head,
    response: Head,
    /// The bytes of the response's head, those of `1xx` in front of it included.
    head: Vec<u8>,
    received: u64,
    ended: bool,
    read_error: Option<io::ErrorKind>,
    write_error: Option<io::ErrorKind>,
}

impl Record {
    /// A new exchange begins.
    pub(super) fn begin(&self) {
        *self.exchange() = Exchange::default();
    }

    /// The response's head as it came.
    pub(super) fn head(&self) -> Vec<u8> {
        self.exchange().head.clone()
    }

    /// Whether any byte of the response has come.
    pub(super) fn is_silent(&self) -> bool {
        self.exchange().received == 0
    }

    /// Whether the peer has closed its side in order.
    pub(super) fn has_ended(&self) -> bool {
        self.exchange().ended
    }

    /// The error that reading met.
    pub(super) fn read_error(&self) -> Option<io::ErrorKind> {
        self.exchange().read_error
    }

    /// The error that writing met.
    pub(super) fn write_error(&self) -> Option<io::ErrorKind> {
        self.exchange().write_error
    }

    fn exchange(&self) -> MutexGuard<'_, Exchange> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sent(&self, bytes: &[u8]) {
        let mut exchange = self.exchange();
        exchange.request.feed(bytes, false, |line| self.print('>', line));
    }

    fn received(&self, bytes: &[u8]) {
        let mut exchange = self.exchange();
        exchange.received += bytes.len() as u64;
        let of_head = exchange.response.feed(bytes, true, |line| self.print('<', line));
        let room = HEAD_MAX.saturating_sub(exchange.head.len());
        exchange.head.extend_from_slice(&bytes[..of_head.min(room)]);
    }

    fn print(&self, direction: char, line: &[u8]) {
        if let Some(diagnostics) = &self.1 {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            diagnostics.line(&format!("{direction} {}", printable(&String::from_utf8_lossy(line))));
        }
    }
}

/// Finds the end of a head in a stream of bytes, and its lines on the way.
#[derive(Default)]
struct Head {
    line: Vec<u8>,
    /// A `1xx` head is followed by another one.
    interim: bool,
    first_line_passed: bool,
    complete: bool,
}

impl Head {
    /// Takes the next bytes; returns how many of them belong to the head.
    fn feed(&mut self, bytes: &[u8], is_response: bool, mut on_line: impl FnMut(&[u8])) -> usize {
        if self.complete {
            return 0;
        }
        let mut taken = 0;
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            if self.complete {
                break;
            }
            taken += piece.len();
            if self.line.len() < HEAD_MAX {
                self.line.extend_from_slice(piece);
            }
            if piece.ends_with(b"\n") {
                on_line(&self.line);
                self.end_line(is_response);
            }
        }
        taken
    }

    fn end_line(&mut self, is_response: bool) {
        let blank = matches!(&self.line[..], b"\n" | b"\r\n");
        if !self.first_line_passed {
            self.first_line_passed = true;
            self.interim = is_response && is_interim(&self.line);
        } else if blank {
            self.complete = !self.interim;
            self.first_line_passed = false;
        }
        self.line.clear();
    }
}

/// A status of 1xx, except 101, after which HTTP is over (RFC 9110 §15.2).
fn is_interim(status_line: &[u8]) -> bool {
    let status = status_line.split(|&byte| byte == b' ').nth(1).unwrap_or_default();
    status.len() >= 3 && status.starts_with(b"1") && !status.starts_with(b"101")
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let room = buf.remaining();
        let result = std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        match &result {
            Ok(()) => {
                let new = buf.filled().get(before..).unwrap_or_default();
                if new.is_empty() && room > 0 {
                    self.record.exchange().ended = true;
                }
                self.record.received(new);
            }
            Err(error) => self.record.exchange().read_error = Some(error.kind()),
        }
        Poll::Ready(result)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = std::task::ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        match &result {
            Ok(written) => self.record.sent(bytes.get(..*written).unwrap_or(bytes)),
            Err(error) => self.record.exchange().write_error = Some(error.kind()),
        }
        Poll::Ready(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However the bytes are cut into reads, the head is the same.
    #[test]
    fn the_head_ends_at_the_blank_line_after_the_final_status() {
        let head = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nA: b\r\n\r\n";
        let mut all = head.to_vec();
        all.extend_from_slice(b"body\r\n\r\nmore");
        for size in 1..=all.len() {
            let (_tap, record) = Tap::new((), None);
            all.chunks(size).for_each(|chunk| record.received(chunk));
            assert_eq!(record.head(), head, "in reads of {size}");
        }
    }

    #[test]
    fn bare_line_feeds_and_an_upgrade_end_the_head_too() {
        for head in [&b"HTTP/1.1 200 OK\nA: b\n\n"[..], b"HTTP/1.1 101 Switching\r\n\r\n"] {
            let (_tap, record) = Tap::new((), None);
            record.received(&[head, b"rest\n\n"].concat());
            assert_eq!(record.head(), head);
        }
    }

    #[test]
    fn an_endless_head_takes_bounded_memory() {
        let (_tap, record) = Tap::new((), None);
        for _ in 0..3 * HEAD_MAX / 1024 {
            record.received(&[b'x'; 1024]);
        }
        assert_eq!(record.head().len(), HEAD_MAX);
        assert!(record.exchange().response.line.len() <= HEAD_MAX + 1024);
    }
}
