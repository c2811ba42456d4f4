//! One line for each request, in the Combined Log Format or as JSON, written by a task of its own.
//!
//! Whatever a client sends stays within its field: quotes, backslashes and all that is no printable ASCII are escaped,
//! as nginx does it.

use std::{
    fmt::Write as _,
    mem,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, Request, StatusCode,
    header::{REFERER, USER_AGENT},
};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use serde::Serialize;
use tokio::{sync::Notify, task::JoinHandle};
use tower::BoxError;

use super::{Body, guarded::Begun};
use crate::cli::{console::Output, date};

/// How long a line waits for others to be written with it. Shorter, and a busy server writes each line by itself; longer,
/// and whoever watches the log gets impatient.
const GATHER: Duration = Duration::from_millis(100);

/// How much may wait for a file or a reader that is slow. Less, and a pause of the disk loses lines of a busy server;
/// more, and a stuck reader (`| less`) takes that much memory.
const MAX_WAITING: usize = 4 * 1024 * 1024;

/// What a line looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Apache's and nginx's Combined Log Format.
    Combined,
    /// One JSON object a line.
    Json,
}

/// Where requests are told; clones are the same log.
#[derive(Clone, Debug, Default)]
pub struct AccessLog {
    /// `None` when nobody wants to know.
    open: Option<Arc<Open>>,
}

#[derive(Debug)]
struct Open {
    format: Format,
    waiting: Mutex<Waiting>,
    something: Notify,
}

/// How long the last lines may take. Shorter, and a slow disk loses them; longer, and who stops a server whose log is stuck
/// thinks that the server is.
const FINISH: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
struct Waiting {
    text: String,
    lost: u64,
    closed: bool,
}

/// The task that writes; [`finish`](Self::finish) it, or the last lines may be missing.
#[derive(Debug)]
pub struct Writer {
    log: AccessLog,
    task: Option<JoinHandle<()>>,
}

/// What of a request the log tells.
#[derive(Debug)]
pub(super) struct Entry {
    remote: IpAddr,
    line: String,
    referer: Option<String>,
    agent: Option<String>,
}

impl AccessLog {
    /// A log that writes to `output`, which `name` tells in messages. To be called within a runtime.
    pub fn start(output: Output, name: String, format: Format) -> (Self, Writer) {
        let open = Open { format, waiting: Mutex::default(), something: Notify::new() };
        let log = Self { open: Some(Arc::new(open)) };
        let task = log.open.clone().map(|open| tokio::spawn(open.write(output, name)));
        (log.clone(), Writer { log, task })
    }

    /// What to tell of `request` once it has been answered. Nothing is kept when nobody wants to know.
    pub(super) fn entry<B>(&self, remote: IpAddr, request: &Request<B>) -> Option<(Self, Entry)> {
        self.open.as_ref()?;
        let line = format!("{} {} {:?}", request.method(), request.uri(), request.version());
        let field = |name| text(request.headers(), name);
        Some((self.clone(), Entry { remote, line, referer: field(REFERER), agent: field(USER_AGENT) }))
    }

    /// Tells it.
    pub(super) fn write(&self, entry: Entry, status: StatusCode, bytes: u64) {
        let Some(open) = &self.open else { return };
        let line = match open.format {
            Format::Combined => combined(&entry, status, bytes, SystemTime::now()),
            Format::Json => json(&entry, status, bytes, SystemTime::now()),
        };
        let mut waiting = open.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.text.len() + line.len() > MAX_WAITING {
            waiting.lost += 1;
            return;
        }
        let first = waiting.text.is_empty();
        waiting.text.push_str(&line);
        drop(waiting);
        if first {
            open.something.notify_one();
        }
    }
}

impl Writer {
    /// Nothing at all is told.
    pub fn none() -> Self {
        Self { log: AccessLog::default(), task: None }
    }

    /// Writes what is left, and ends. A reader that takes nothing, such as a pager that nobody looks at, keeps the process
    /// for [`FINISH`] only.
    pub async fn finish(self) {
        let Some(open) = &self.log.open else { return };
        open.waiting.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        open.something.notify_one();
        let Some(mut task) = self.task else { return };
        if tokio::time::timeout(FINISH, &mut task).await.is_err() {
            task.abort();
            tracing::warn!("the end of the access log is lost: nobody takes it");
        }
    }
}

impl Open {
    async fn write(self: Arc<Self>, mut output: Output, name: String) {
        let mut text = String::new();
        let mut failed = false;
        loop {
            self.something.notified().await;
            if !self.is_closed() && !output.is_terminal() {
                // Whoever closes it need not wait.
                let _ = tokio::time::timeout(GATHER, self.something.notified()).await;
            }
            let (closed, lost);
            {
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                text.clear();
                mem::swap(&mut text, &mut waiting.text);
                (closed, lost) = (waiting.closed, mem::take(&mut waiting.lost));
            }
            if lost > 0 {
                tracing::warn!("{lost} lines of the access log are lost: {name} takes them too slowly");
            }
            if let Err(error) = put(&mut output, &text).await
                && !failed
            {
                failed = true;
                tracing::warn!("cannot write the access log to {name}: {error}");
            }
            if closed {
                return;
            }
        }
    }

    fn is_closed(&self) -> bool {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).closed
    }
}

async fn put(output: &mut Output, text: &str) -> std::io::Result<()> {
    output.write_all(text.as_bytes()).await?;
    output.flush().await
}

impl Entry {
    /// A request of which nothing could be read.
    pub(super) fn unreadable(remote: IpAddr) -> Self {
        Self { remote, line: String::new(), referer: None, agent: None }
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

fn combined(entry: &Entry, status: StatusCode, bytes: u64, now: SystemTime) -> String {
    let mut line = String::with_capacity(160);
    // Writing to a String does not fail.
    let _ = write!(line, "{} - - [{}] \"", entry.remote, date::common_log(now));
    escape(&entry.line, &mut line);
    let _ = write!(line, "\" {} {bytes} \"", status.as_u16());
    escape(entry.referer.as_deref().unwrap_or("-"), &mut line);
    line.push_str("\" \"");
    escape(entry.agent.as_deref().unwrap_or("-"), &mut line);
    line.push_str("\"\n");
    line
}

fn json(entry: &Entry, status: StatusCode, bytes: u64, now: SystemTime) -> String {
    #[derive(Serialize)]
    struct Line<'a> {
        time: String,
        remote: IpAddr,
        request: &'a str,
        status: u16,
        bytes: u64,
        referer: Option<&'a str>,
        user_agent: Option<&'a str>,
    }
    let line = Line {
        time: date::iso(now),
        remote: entry.remote,
        request: &entry.line,
        status: status.as_u16(),
        bytes,
        referer: entry.referer.as_deref(),
        user_agent: entry.agent.as_deref(),
    };
    // Strings and numbers can always be written. JSON escapes controls below the space only; a terminal obeys others, too.
    let plain = serde_json::to_string(&line).unwrap_or_default();
    let mut line = String::with_capacity(plain.len() + 1);
    for character in plain.chars() {
        if character.is_ascii() && character != '\x7f' {
            line.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(line, "\\u{unit:04x}");
            }
        }
    }
    line.push('\n');
    line
}

/// As nginx: `\xHH` for each byte that is a quote, a backslash, or no printable ASCII.
fn escape(text: &str, line: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' | 0..=0x1f | 0x7f.. => {
                let _ = write!(line, "\\x{byte:02X}");
            }
            _ => line.push(char::from(byte)),
        }
    }
}

/// A body that tells the log, when it has ended in whatever way, how much of it went out.
#[derive(Debug)]
pub(super) struct Logged {
    body: Body,
    entry: Option<(AccessLog, Entry)>,
    status: StatusCode,
    bytes: u64,
    _begun: Begun,
}

impl Logged {
    pub(super) fn new(
        body: Body,
        entry: Option<(AccessLog, Entry)>,
        status: StatusCode,
        begun: Begun,
    ) -> Self {
        Self { body, entry, status, bytes: 0, _begun: begun }
    }
}

impl HttpBody for Logged {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        if let Some((log, entry)) = self.entry.take() {
            log.write(entry, self.status, self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(line: &str, agent: &str) -> Entry {
        Entry { remote: [192, 0, 2, 7].into(), line: line.into(), referer: None, agent: Some(agent.into()) }
    }

    const WHEN: Duration = Duration::from_secs(784_111_777);

    #[test]
    fn a_line_is_what_readers_of_the_combined_format_expect() {
        let line =
            combined(&entry("GET / HTTP/1.1", "curl/8"), StatusCode::OK, 12, SystemTime::UNIX_EPOCH + WHEN);
        assert_eq!(
            line,
            "192.0.2.7 - - [06/Nov/1994:08:49:37 +0000] \"GET / HTTP/1.1\" 200 12 \"-\" \"curl/8\"\n"
        );
    }

    #[test]
    fn nothing_that_a_client_sends_leaves_its_field() {
        let evil = "a\" 200 1\r\n1.1.1.1 - -\\ \u{1b}[31m\u{9b}é\x7f";
        let line = combined(&entry(evil, evil), StatusCode::OK, 0, SystemTime::UNIX_EPOCH);
        assert!(
            line.is_ascii() && line.matches('"').count() == 6 && line.matches('\n').count() == 1,
            "{line}"
        );
        assert!(line.contains(r"a\x22 200 1\x0D\x0A1.1.1.1 - -\x5C \x1B[31m\xC2\x9B\xC3\xA9\x7F"), "{line}");
        let line = json(&entry(evil, evil), StatusCode::OK, 0, SystemTime::UNIX_EPOCH);
        assert!(line.is_ascii() && !line.trim_end().contains(|c: char| c.is_control()), "{line}");
        let value: serde_json::Value = serde_json::from_str(&line).expect("is JSON");
        assert_eq!(value["user_agent"], evil);
        assert_eq!(value["referer"], serde_json::Value::Null);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_does_not_keep_the_process() {
        let (ours, _theirs) = tokio::io::duplex(16);
        let (log, writer) = AccessLog::start(Output::new(ours, false), "a pipe".into(), Format::Combined);
        log.write(entry("one", "-"), StatusCode::OK, 0);
        let begun = tokio::time::Instant::now();
        writer.finish().await;
        assert_eq!(begun.elapsed().as_secs(), FINISH.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn lines_are_written_soon_and_the_last_at_the_end() {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        let (log, writer) = AccessLog::start(Output::new(ours, false), "a pipe".into(), Format::Combined);
        log.write(entry("one", "-"), StatusCode::OK, 0);
        log.write(entry("two", "-"), StatusCode::OK, 0);
        let mut buffer = [0; 4096];
        let read = tokio::io::AsyncReadExt::read(&mut theirs, &mut buffer);
        let length = tokio::time::timeout(GATHER * 2, read).await.expect("soon").expect("reads");
        assert_eq!(String::from_utf8_lossy(&buffer[..length]).lines().count(), 2);
        log.write(entry("three", "-"), StatusCode::OK, 0);
        writer.finish().await;
        let length = tokio::io::AsyncReadExt::read(&mut theirs, &mut buffer).await.expect("reads");
        assert!(String::from_utf8_lossy(&buffer[..length]).contains("three"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_is_stuck_costs_lines_and_not_more_memory() {
        let (ours, _theirs) = tokio::io::duplex(1);
        let (log, _writer) = AccessLog::start(Output::new(ours, false), "a pipe".into(), Format::Combined);
        let long = "x".repeat(1 << 16);
        for _ in 0..100 {
            log.write(entry(&long, "-"), StatusCode::OK, 0);
        }
        let open = log.open.expect("is open");
        let waiting = open.waiting.lock().expect("is sound");
        assert!(waiting.text.len() <= MAX_WAITING && waiting.lost > 0);
    }
}
