//! Where one response goes: standard output, or a file that comes into being with the first byte.

use std::io;
use std::path::{Path, PathBuf};

use tokio::fs::File;
use tokio::io::AsyncWriteExt;

use super::in_order::OutputOption;
use super::reserved::Reserved;
use super::target::Target;
use crate::cli::console::{Output, printable};
use crate::cli::error::Failure;

/// Where to write.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Destination {
    /// Standard output, whether a terminal or not if `forced`.
    Stdout {
        /// The user wrote `-o -`.
        forced: bool,
    },
    /// A file.
    File(PathBuf),
}

impl Destination {
    /// What the URL's `-o` or `-O` means.
    pub(super) fn new(option: Option<&OutputOption>, target: &Target) -> Result<Self, Failure> {
        match option {
            None => Ok(Self::Stdout { forced: false }),
            Some(OutputOption::File(path)) if path == Path::new("-") => Ok(Self::Stdout { forced: true }),
            Some(OutputOption::File(path)) => Ok(Self::File(path.clone())),
            Some(OutputOption::RemoteName) => {
                target.file_name().map(|name| Self::File(name.into())).ok_or(Failure::NoRemoteName)
            }
        }
    }

    /// Opens what later may not be opened any more.
    pub(super) fn reserve(&self) -> Option<Reserved> {
        match self {
            Self::Stdout { .. } => None,
            Self::File(path) => Reserved::new(path),
        }
    }
}

/// Writes one response.
pub(super) struct Sink<'a> {
    destination: Destination,
    stdout: &'a mut Output,
    file: Option<File>,
    reserved: Option<Reserved>,
    body_begun: bool,
}

impl<'a> Sink<'a> {
    /// Touches nothing yet: a URL that fails leaves an older file as it is.
    pub(super) fn new(destination: Destination, reserved: Option<Reserved>, stdout: &'a mut Output) -> Self {
        Self { destination, stdout, file: None, reserved, body_begun: false }
    }

    /// Whether what is written shows on a terminal.
    pub(super) fn is_terminal(&self) -> bool {
        matches!(self.destination, Destination::Stdout { .. }) && self.stdout.is_terminal()
    }

    /// Writes a response's head; for a person, without what could steer the terminal.
    pub(super) async fn write_head(&mut self, head: &[u8]) -> Result<(), Failure> {
        if !self.is_terminal() {
            return self.write(head).await;
        }
        let text = String::from_utf8_lossy(head);
        let clean: String = text.lines().map(|line| printable(line) + "\n").collect();
        self.write(clean.as_bytes()).await
    }

    /// Writes a piece of the body.
    pub(super) async fn write_body(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let unforced = matches!(self.destination, Destination::Stdout { forced: false });
        if !self.body_begun && unforced && self.stdout.is_terminal() && bytes.contains(&0) {
            return Err(Failure::BinaryToTerminal);
        }
        self.body_begun = true;
        self.write(bytes).await
    }

    /// All has been written; returns once it is where it belongs. A response without a byte makes an empty file.
    pub(super) async fn finish(&mut self) -> Result<(), Failure> {
        if matches!(self.destination, Destination::File(_)) {
            self.write(&[]).await?;
        }
        let flushed = match &mut self.file {
            Some(file) => file.flush().await,
            None => self.stdout.flush().await,
        };
        flushed.map_err(|source| self.failure(source))
    }

    /// Nothing but the head, if that, was to be written: no file is made for it.
    pub(super) async fn finish_head(&mut self) -> Result<(), Failure> {
        if matches!(self.destination, Destination::File(_)) && self.file.is_none() {
            return Ok(());
        }
        self.finish().await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = match &self.destination {
            Destination::Stdout { .. } => self.stdout.write_all(bytes).await,
            Destination::File(path) => write_to_file(&mut self.file, &mut self.reserved, path, bytes).await,
        };
        written.map_err(|source| self.failure(source))
    }

    fn failure(&self, source: io::Error) -> Failure {
        let destination = match &self.destination {
            Destination::Stdout { .. } => "standard output".to_owned(),
            Destination::File(path) => path.display().to_string(),
        };
        Failure::Write { destination, source }
    }
}

async fn write_to_file(
    file: &mut Option<File>,
    reserved: &mut Option<Reserved>,
    path: &Path,
    bytes: &[u8],
) -> io::Result<()> {
    let file = match file {
        Some(file) => file,
        None => file.insert(match reserved.take() {
            Some(reserved) => File::from_std(reserved.take()?),
            None => File::create(path).await?,
        }),
    };
    file.write_all(bytes).await
}
