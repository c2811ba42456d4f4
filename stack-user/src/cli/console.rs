//! The two streams that the command speaks through: what was asked for on stdout, all talk on stderr.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tracing_subscriber::fmt::MakeWriter;

/// Standard output and standard error, or what a test puts in their place.
pub struct Console {
    /// Where bodies go.
    pub output: Output,
    /// Where messages go.
    pub diagnostics: Diagnostics,
}

impl Console {
    /// The process's own. Bytes go to stdout as they are, without the line buffer of the standard library.
    pub fn standard() -> io::Result<Self> {
        let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Self {
            output: Output::new(tokio::fs::File::from_std(stdout), io::stdout().is_terminal()),
            diagnostics: Diagnostics::new(io::stderr(), io::stderr().is_terminal()),
        })
    }
}

/// Standard output: asynchronous, so that a reader which is slow (`| less`) does not stop the stack's timers.
pub struct Output {
    writer: Pin<Box<dyn AsyncWrite + Send>>,
    terminal: bool,
}

impl Output {
    /// Writes to `writer`, which is a terminal or not.
    pub fn new(writer: impl AsyncWrite + Send + 'static, terminal: bool) -> Self {
        Self { writer: Box::pin(writer), terminal }
    }

    /// Whether a person looks at it.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Writes all of `bytes`.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes).await
    }

    /// Returns once the other side has got everything.
    pub async fn flush(&mut self) -> io::Result<()> {
        self.writer.flush().await
    }
}

/// Standard error, line by line; its clones are the same stream.
#[derive(Clone)]
pub struct Diagnostics {
    writer: Arc<Mutex<Box<dyn Write + Send>>>,
    terminal: bool,
}

impl Diagnostics {
    /// Writes to `writer`, which is a terminal or not.
    pub fn new(writer: impl Write + Send + 'static, terminal: bool) -> Self {
        Self { writer: Arc::new(Mutex::new(Box::new(writer))), terminal }
    }

    /// Whether a person looks at it.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Writes one line. There is nobody left to tell if that fails.
    pub fn line(&self, text: &str) {
        let mut line = String::with_capacity(text.len() + 1);
        line.push_str(text);
        line.push('\n');
        let _ = self.clone().write_all(line.as_bytes());
    }
}

impl Write for Diagnostics {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}

impl<'a> MakeWriter<'a> for Diagnostics {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// `text` with every control character escaped, so that nothing a server sends can steer the user's terminal.
///
/// The tab stays, as do all printable characters; C1 controls and the bidirectional overrides count as controls.
pub fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\t' => clean.push('\t'),
            '\r' => clean.push_str("\\r"),
            '\n' => clean.push_str("\\n"),
            c if c.is_ascii_control() => clean.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_control() || is_bidirectional_control(c) => clean.extend(c.escape_unicode()),
            c => clean.push(c),
        }
    }
    clean
}

fn is_bidirectional_control(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_character_survives() {
        let all: String = (0..0x2100).filter_map(char::from_u32).collect();
        let clean = printable(&all);
        assert!(clean.chars().all(|c| c == '\t' || !c.is_control()));
        assert!(!clean.contains('\u{202e}'));
    }

    #[test]
    fn ordinary_text_is_left_alone() {
        assert_eq!(printable("Grüße,\t\"quoted\" \\ 世界"), "Grüße,\t\"quoted\" \\ 世界");
    }

    #[test]
    fn an_escape_sequence_becomes_visible() {
        assert_eq!(printable("\u{1b}]0;title\u{7}\u{9b}31m"), "\\x1b]0;title\\x07\\u{9b}31m");
    }
}
