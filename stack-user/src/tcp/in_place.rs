//! Reading and writing without a copy: the application reads from the frames that arrived, and writes into those that are
//! sent.

use super::{
    Connection,
    error::{ReadError, WriteError},
    payload::Payload,
    send_queue::Layout,
};
use crate::{
    frame::{FramePool, TxFrame},
    time::Instant,
};

/// A frame to write a segment's payload into.
#[derive(Debug)]
#[must_use = "a frame that is not committed or released leaks its chunk"]
pub struct Reserved {
    /// The frame.
    pub frame: TxFrame,
    /// Where the payload goes, and how much fits.
    pub layout: Layout,
}

impl Connection {
    /// Takes received bytes as they lie: those of one frame, or those that were copied out of small ones. `None` is the end
    /// of the stream.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_in_place<P: FramePool>(
        &mut self,
        now: Instant,
        pool: &mut P,
    ) -> Result<Option<Payload>, ReadError> {
        if self.reads_closed {
            return Err(ReadError::Closed);
        }
        let Some(payload) = self.recv.take(pool) else {
            return self.end_of_stream().map(|()| None);
        };
        self.on_read(now, pool, payload.len());
        Ok(Some(payload))
    }

    /// Hands out a frame for the payload of a segment. What is written into it is sent when it is
    /// [committed](Self::commit).
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn reserve<P: FramePool>(&mut self, now: Instant, pool: &mut P) -> Result<Reserved, WriteError> {
        self.check_writable()?;
        let layout = self.layout();
        let frame = if self.has_room(pool) { self.send.reserve_frame(pool) } else { None };
        match frame {
            Some(frame) => Ok(Reserved { frame, layout }),
            None => Err(self.on_no_room(now, pool)),
        }
    }

    /// Queues a reserved frame with `len` bytes of payload. If they are more than fit, the rest was not written.
    ///
    /// # Errors
    /// That the stream has ended since; the frame is given back.
    pub fn commit<P: FramePool>(
        &mut self,
        pool: &mut P,
        reserved: Reserved,
        len: usize,
    ) -> Result<(), WriteError> {
        let Reserved { frame, layout } = reserved;
        let ended = self.check_writable();
        if ended.is_err() || len == 0 {
            pool.release_tx(frame);
            return ended;
        }
        self.send.push_written(frame, len.min(layout.mss));
        Ok(())
    }
}
