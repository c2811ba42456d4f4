//! Reading and writing without a copy, in the memory that the NIC writes to and reads from.
//!
//! A proxy that changes what passes, with one copy in place of two:
//!
//! ```no_run
//! # use stack_user::api::TcpStream;
//! # async fn shout(from: TcpStream, to: TcpStream) -> std::io::Result<()> {
//! while let Some(chunk) = from.read_chunk().await? {
//!     let mut rest = &chunk[..];
//!     while !rest.is_empty() {
//!         let mut room = to.reserve().await?;
//!         let n = room.len().min(rest.len());
//!         for (to, from) in room.iter_mut().zip(&rest[..n]) {
//!             *to = from.to_ascii_uppercase();
//!         }
//!         room.commit(n)?;
//!         rest = &rest[n..];
//!     }
//!     // Here the chunk goes back to the NIC.
//! }
//! to.close().await
//! # }
//! ```
//!
//! Chunks and rooms may go to other threads.

use std::{
    future::poll_fn,
    io,
    ops::{Deref, DerefMut},
    task::{Context, Poll},
};

use super::{TcpStream, shards::Home};
use crate::{
    device::{RxView, TxView},
    frame::FramePool,
    tcp::{Reserved, payload::Payload, send_queue::Layout},
};

/// Bytes that were received, where they are: see [`TcpStream::read_chunk`].
#[derive(Debug)]
pub struct Chunk {
    stack: Home,
    /// Always there until it is dropped.
    bytes: Option<Bytes>,
}

#[derive(Debug)]
enum Bytes {
    /// In the frame that brought them.
    Frame(RxView),
    /// Copied, since they came in crumbs or frames are scarce.
    Heap(Vec<u8>),
}

/// Room for bytes to send, where they are sent from: see [`TcpStream::reserve`]. Dropped without
/// [`commit`](Self::commit), nothing is sent.
#[derive(Debug)]
pub struct Room<'a> {
    stream: &'a TcpStream,
    layout: Layout,
    /// Always there until it is committed or dropped.
    view: Option<TxView>,
}

impl TcpStream {
    /// Waits for bytes, and takes those that came first, without a copy: as many as one segment brought. `None` is the end of
    /// the stream. The chunk keeps one of the stack's frames, and the stack itself, until it is
    /// dropped; whoever keeps many should copy. Cancel safe.
    ///
    /// # Errors
    /// As reading.
    pub async fn read_chunk(&self) -> io::Result<Option<Chunk>> {
        poll_fn(|cx| self.poll_read_chunk(cx)).await
    }

    /// [`read_chunk`](Self::read_chunk) for those who poll themselves.
    ///
    /// # Errors
    /// As reading.
    pub fn poll_read_chunk(&self, cx: &Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        let mut bytes = None;
        let read = self.poll_input(Some(cx), |stack, now, id| {
            bytes = stack.tcp_read_in_place(now, id)?.map(|payload| match payload {
                Payload::Frame(frame) => Bytes::Frame(stack.pool().view(frame)),
                Payload::Heap(bytes) => Bytes::Heap(bytes),
            });
            Ok(0)
        });
        read.map_ok(|_| bytes.map(|bytes| Chunk { stack: self.home().clone(), bytes: Some(bytes) }))
    }

    /// Waits for bytes, and throws away what is there without looking at it, segment by segment until they are `limit` bytes or
    /// more: what `recv` with `MSG_TRUNC` is to the kernel's TCP. Returns how many they were; 0 is the end of the stream.
    ///
    /// # Errors
    /// As reading.
    pub fn poll_discard(&self, cx: &Context<'_>, limit: usize) -> Poll<io::Result<usize>> {
        self.poll_input(Some(cx), |stack, now, id| {
            let mut discarded = 0;
            while discarded < limit {
                match stack.tcp_read_in_place(now, id) {
                    Ok(Some(payload)) => {
                        discarded += payload.len();
                        payload.release(stack.pool_mut());
                    }
                    // What was taken counts; the next call tells of the error.
                    Err(error) if discarded == 0 => return Err(error),
                    Ok(None) | Err(_) => break,
                }
            }
            Ok(discarded)
        })
    }

    /// Waits for room, and hands out a frame to write into without a copy: as many bytes as one segment takes. Cancel safe.
    ///
    /// # Errors
    /// As writing.
    pub async fn reserve(&self) -> io::Result<Room<'_>> {
        poll_fn(|cx| self.poll_reserve(cx)).await
    }

    /// [`reserve`](Self::reserve) for those who poll themselves.
    ///
    /// # Errors
    /// As writing.
    pub fn poll_reserve(&self, cx: &Context<'_>) -> Poll<io::Result<Room<'_>>> {
        let mut room = None;
        let reserved = self.poll_output(Some(cx), |stack, now, id| {
            let Reserved { frame, layout } = stack.tcp_reserve(now, id)?;
            let range = layout.payload_at..layout.payload_at + layout.mss;
            room = Some((stack.pool_mut().view_mut(frame, range), layout));
            Ok(0)
        });
        match (reserved, room) {
            (Poll::Ready(Ok(_)), Some((view, layout))) => {
                Poll::Ready(Ok(Room { stream: self, layout, view: Some(view) }))
            }
            (Poll::Ready(Err(error)), _) => Poll::Ready(Err(error)),
            _ => Poll::Pending,
        }
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.bytes {
            Some(Bytes::Frame(view)) => view,
            Some(Bytes::Heap(bytes)) => bytes,
            None => &[],
        }
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if let Some(Bytes::Frame(view)) = self.bytes.take() {
            self.stack.shard().with(|core, _| core.stack.pool_mut().release_rx(view.into_frame()));
        }
    }
}

impl Room<'_> {
    /// Sends the first `len` bytes, or all if there are fewer. 0 sends nothing.
    ///
    /// # Errors
    /// As writing: the stream may have ended since.
    pub fn commit(mut self, len: usize) -> io::Result<()> {
        let Some(view) = self.view.take() else { return Ok(()) };
        let len = len.min(view.len());
        let reserved = Reserved { frame: view.into_frame(), layout: self.layout };
        self.stream.commit(reserved, len)
    }
}

impl Deref for Room<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.view.as_deref().unwrap_or_default()
    }
}

impl DerefMut for Room<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.view.as_deref_mut().unwrap_or_default()
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        if let Some(view) = self.view.take() {
            let home = self.stream.home();
            home.shard().with(|core, _| core.stack.pool_mut().release_tx(view.into_frame()));
        }
    }
}
