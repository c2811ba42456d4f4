//! An open file as tower-http's `ServeDir` reads it: in large pieces, on a thread that may block.
//!
//! A file that turns out shorter than it was said to be is an error, and not an end.

use std::{
    fs::{File, Metadata},
    future::{Ready, ready},
    io::{self, SeekFrom},
    os::unix::fs::FileExt,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncSeek, ReadBuf},
    task::{JoinHandle, spawn_blocking},
};
use tower_http::services::fs::{self, Backend};

use super::tree::FoundFile;

/// How much is read at once. Smaller, and handing over to a thread costs more than reading; larger, and ten thousand slow
/// readers need that much memory each.
pub(super) const PIECE: usize = 128 * 1024;

/// One file, for one answer: whatever path is asked for, it is this.
#[derive(Clone, Debug)]
pub(super) struct Opened {
    metadata: Metadata,
    file: Arc<File>,
    name: Arc<PathBuf>,
    content: Arc<Mutex<Option<Vec<u8>>>>,
}

impl Opened {
    pub(super) fn new(found: FoundFile) -> Self {
        Self {
            metadata: found.metadata,
            file: Arc::new(found.file),
            name: Arc::new(found.name),
            content: Arc::new(Mutex::new(found.content)),
        }
    }

    /// How long the pieces are that this file is read in.
    pub(super) fn piece(&self) -> usize {
        usize::try_from(self.metadata.len()).map_or(PIECE, |length| length.clamp(1, PIECE))
    }
}

impl Backend for Opened {
    type File = Reader;
    type Metadata = Metadata;
    type OpenFuture = Ready<io::Result<Reader>>;
    type MetadataFuture = Ready<io::Result<Metadata>>;

    fn open(&self, _: PathBuf) -> Self::OpenFuture {
        let content = self.content.lock().unwrap_or_else(PoisonError::into_inner).take();
        let piece = content.map_or_else(Piece::default, |bytes| Piece { at: 0, bytes });
        let (metadata, file, name) = (self.metadata.clone(), Arc::clone(&self.file), Arc::clone(&self.name));
        ready(Ok(Reader { length: metadata.len(), metadata, file, name, position: 0, piece, reading: None }))
    }

    fn metadata(&self, _: PathBuf) -> Self::MetadataFuture {
        ready(Ok(self.metadata.clone()))
    }
}

/// Bytes of the file, and where in it they are.
#[derive(Debug, Default)]
struct Piece {
    at: u64,
    bytes: Vec<u8>,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Reader {
    file: Arc<File>,
    metadata: Metadata,
    name: Arc<PathBuf>,
    /// What was promised: what is added to the file meanwhile is left out.
    length: u64,
    position: u64,
    piece: Piece,
    reading: Option<JoinHandle<io::Result<Piece>>>,
}

impl Reader {
    /// What of the piece at hand lies at the position.
    fn at_hand(&self) -> &[u8] {
        let skip = self.position.checked_sub(self.piece.at).and_then(|skip| usize::try_from(skip).ok());
        skip.and_then(|skip| self.piece.bytes.get(skip..)).unwrap_or_default()
    }

    /// Reads the next piece, of at most `wanted` bytes, into the memory of the last one.
    fn begin(&mut self, wanted: usize) -> JoinHandle<io::Result<Piece>> {
        let (file, at) = (Arc::clone(&self.file), self.position);
        let rest = usize::try_from(self.length - at).unwrap_or(usize::MAX);
        let mut bytes = std::mem::take(&mut self.piece.bytes);
        bytes.resize(wanted.min(PIECE).min(rest), 0);
        spawn_blocking(move || {
            let read = loop {
                match file.read_at(&mut bytes, at) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    read => break read?,
                }
            };
            bytes.truncate(read);
            Ok(Piece { at, bytes })
        })
    }

    fn failure(&self, error: io::Error) -> io::Error {
        tracing::warn!("sending {} broke off at byte {}: {error}", self.name.display(), self.position);
        error
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let at_hand = self.at_hand();
            if !at_hand.is_empty() || self.position >= self.length || buffer.remaining() == 0 {
                let rest = usize::try_from(self.length.saturating_sub(self.position)).unwrap_or(usize::MAX);
                let taken = at_hand.len().min(buffer.remaining()).min(rest);
                buffer.put_slice(&at_hand[..taken]);
                self.position += taken as u64;
                return Poll::Ready(Ok(()));
            }
            let mut reading = match self.reading.take() {
                Some(reading) => reading,
                None => self.begin(buffer.remaining()),
            };
            let Poll::Ready(read) = Pin::new(&mut reading).poll(cx) else {
                self.reading = Some(reading);
                return Poll::Pending;
            };
            match read.map_err(io::Error::other).and_then(|read| read) {
                Ok(piece) if piece.bytes.is_empty() => {
                    let error = io::Error::new(io::ErrorKind::UnexpectedEof, "the file has become shorter");
                    return Poll::Ready(Err(self.failure(error)));
                }
                Ok(piece) => self.piece = piece,
                Err(error) => return Poll::Ready(Err(self.failure(error))),
            }
        }
    }
}

impl AsyncSeek for Reader {
    fn start_seek(mut self: Pin<&mut Self>, position: SeekFrom) -> io::Result<()> {
        self.position = match position {
            SeekFrom::Start(position) => position,
            SeekFrom::Current(by) => self.position.saturating_add_signed(by),
            SeekFrom::End(by) => self.length.saturating_add_signed(by),
        };
        Ok(())
    }

    fn poll_complete(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(self.position))
    }
}

impl fs::File for Reader {
    type Metadata = Metadata;
    type MetadataFuture<'a> = Ready<io::Result<Metadata>>;

    fn metadata(&self) -> Self::MetadataFuture<'_> {
        ready(Ok(self.metadata.clone()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tokio::io::{AsyncReadExt, AsyncSeekExt};

    use super::*;

    fn opened(bytes: &[u8], content: Option<Vec<u8>>) -> (Opened, File) {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("writes");
        let (metadata, other) = (file.metadata().expect("metadata"), file.try_clone().expect("clones"));
        (
            Opened::new(FoundFile {
                file,
                metadata,
                name: "x".into(),
                is_gzip: false,
                settled: None,
                content,
            }),
            other,
        )
    }

    async fn reader(opened: &Opened) -> Reader {
        opened.open(PathBuf::new()).await.expect("opens")
    }

    #[tokio::test]
    async fn every_byte_comes_from_any_place_and_in_any_order() {
        let bytes: Vec<u8> = (0..PIECE * 2 + 77).map(|i| (i % 251) as u8).collect();
        for content in [None, Some(bytes.clone())] {
            let (opened, _file) = opened(&bytes, content);
            let mut reader = reader(&opened).await;
            for at in [0, PIECE + 5, 3, bytes.len()] {
                reader.seek(SeekFrom::Start(at as u64)).await.expect("seeks");
                let mut read = Vec::new();
                reader.read_to_end(&mut read).await.expect("reads");
                assert!(read == bytes[at..], "from {at}");
            }
        }
    }

    #[tokio::test]
    async fn a_file_that_shrinks_is_an_error_and_one_that_grows_is_cut() {
        let bytes = vec![7; PIECE * 2];
        let (opened, mut file) = opened(&bytes, None);
        file.write_all(b"more").expect("grows");
        let mut read = Vec::new();
        reader(&opened).await.read_to_end(&mut read).await.expect("reads");
        assert_eq!(read.len(), bytes.len());
        file.set_len(PIECE as u64 + 1).expect("shrinks");
        let error = reader(&opened).await.read_to_end(&mut Vec::new()).await.expect_err("must not end");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
