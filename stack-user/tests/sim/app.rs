//! What applications do with a connection: they wait for events, read and write at their own pace, and close.

use stack_user::{
    device::Umem,
    rng::Rng,
    stack::{Stack, TcpId},
    tcp::{Error, ReadError, WriteError},
    time::{Duration, Instant},
};

use crate::draw::{Draw, stream_bytes};

/// Bytes that one call reads or writes at most.
const BUFFER: usize = 16 << 10;

/// Calls that an application makes in one go, before it lets others work.
const CALLS: usize = 64;

/// What one side of a connection does.
#[derive(Clone, Debug)]
pub(crate) struct Role {
    /// Bytes to write, and to read.
    pub(crate) out: u64,
    pub(crate) wanted: u64,
    /// Sends back what it gets, as soon as it gets it; otherwise it writes after so many bytes have come.
    pub(crate) echoes: bool,
    pub(crate) writes_after: u64,
    /// Closes its direction as soon as all is written, or only when all has come too.
    pub(crate) half_closes: bool,
    /// Bytes in one write or read at most, and the time between two of them.
    pub(crate) write_size: usize,
    pub(crate) write_gap: Duration,
    pub(crate) read_size: usize,
    pub(crate) read_gap: Duration,
    /// After so many bytes, in both directions together, it does nothing for a while.
    pub(crate) rest: Option<(u64, Duration)>,
    /// After so many bytes it aborts, or closes without having read everything.
    pub(crate) quits: Option<(u64, Quit)>,
    pub(crate) nodelay: bool,
}

/// How an application leaves early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quit {
    Abort,
    Close,
}

impl Role {
    /// Writes and reads as fast as it goes.
    pub(crate) fn eager(out: u64, wanted: u64) -> Self {
        Self {
            out,
            wanted,
            echoes: false,
            writes_after: 0,
            half_closes: true,
            write_size: BUFFER,
            write_gap: Duration::ZERO,
            read_size: BUFFER,
            read_gap: Duration::ZERO,
            rest: None,
            quits: None,
            nodelay: false,
        }
    }
}

/// How a side came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// All was written, all was read, and both directions are closed.
    Done,
    /// It left early, as it was meant to.
    Quit,
    /// The connection failed.
    Failed(Error),
    /// The connection ended in order, before all had come.
    CutShort,
    /// Its host restarted.
    HostGone,
}

/// One side of a connection, as its application sees it.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) host: usize,
    pub(crate) id: TcpId,
    pub(crate) role: Role,
    pub(crate) written: u64,
    pub(crate) read: u64,
    pub(crate) end: Option<End>,
    /// When it last wrote or read a byte (in the world's time).
    pub(crate) progress_at: Instant,
    /// It waits for the clock and not for the connection, until then.
    pub(crate) sleeps_until: Option<Instant>,
    /// When the world is going to wake it.
    pub(crate) alarm: Option<Instant>,
    key_out: u64,
    key_in: u64,
    read_at: Instant,
    write_at: Instant,
    has_rested: bool,
    has_shut: bool,
    eof: bool,
    rng: Rng,
}

impl Side {
    pub(crate) fn new(now: Instant, host: usize, id: TcpId, role: Role, keys: (u64, u64), rng: Rng) -> Self {
        Self {
            host,
            id,
            role,
            written: 0,
            read: 0,
            end: None,
            progress_at: now,
            sleeps_until: None,
            alarm: None,
            key_out: keys.0,
            key_in: keys.1,
            read_at: now,
            write_at: now,
            has_rested: false,
            has_shut: false,
            eof: false,
            rng,
        }
    }

    /// Does what can be done now. `Err` is a breach of what a stream promises.
    pub(crate) fn work(
        &mut self,
        now: Instant,
        local: Instant,
        stack: &mut Stack<Umem>,
    ) -> Result<(), String> {
        if self.end.is_some() {
            return Ok(());
        }
        self.sleeps_until = None;
        if self.read == 0 && self.written == 0 && self.role.nodelay {
            stack.tcp_set_nodelay(self.id, true);
        }
        self.read_some(now, local, stack)?;
        self.write_some(now, local, stack)?;
        if self.end.is_none() {
            self.close_if_done(local, stack);
        }
        if self.end.is_some() {
            self.sleeps_until = None;
            stack.tcp_close(local, self.id);
        }
        Ok(())
    }

    fn read_some(&mut self, now: Instant, local: Instant, stack: &mut Stack<Umem>) -> Result<(), String> {
        let mut buffer = [0; BUFFER];
        for _ in 0..CALLS {
            if self.eof || self.end.is_some() {
                return Ok(());
            }
            if self.read_at > now {
                self.sleep(self.read_at);
                return Ok(());
            }
            let size = self.rng.between(1, self.role.read_size as u64) as usize;
            match stack.tcp_read(local, self.id, &mut buffer[..size]) {
                Ok(0) => self.eof = true,
                Ok(n) => {
                    self.check(&buffer[..n])?;
                    self.read += n as u64;
                    self.read_at = now + self.role.read_gap;
                    self.moved(now, local, stack);
                }
                Err(ReadError::WouldBlock) => return Ok(()),
                Err(ReadError::Failed(error)) => self.end = Some(End::Failed(error)),
                Err(error) => return Err(format!("read of a connection that is in use: {error}")),
            }
        }
        self.sleep(now);
        Ok(())
    }

    fn check(&self, bytes: &[u8]) -> Result<(), String> {
        let mut expected = [0; BUFFER];
        let expected = &mut expected[..bytes.len()];
        stream_bytes(self.key_in, self.read, expected);
        match bytes.iter().zip(expected.iter()).position(|(got, sent)| got != sent) {
            None if self.read + bytes.len() as u64 <= self.role.wanted => Ok(()),
            None => Err(format!("more came than the {} bytes that were sent", self.role.wanted)),
            Some(at) => Err(format!("byte {} of the stream is wrong", self.read + at as u64)),
        }
    }

    /// Bytes that it may write by now.
    fn allowed(&self) -> u64 {
        match self.role.echoes {
            true => self.read.min(self.role.out),
            false if self.read < self.role.writes_after => 0,
            false => self.role.out,
        }
    }

    fn write_some(&mut self, now: Instant, local: Instant, stack: &mut Stack<Umem>) -> Result<(), String> {
        let mut buffer = [0; BUFFER];
        for _ in 0..CALLS {
            let left = self.allowed() - self.written.min(self.allowed());
            if left == 0 || self.end.is_some() {
                return Ok(());
            }
            if self.write_at > now {
                self.sleep(self.write_at);
                return Ok(());
            }
            let size = self.rng.between(1, left.min(self.role.write_size as u64)) as usize;
            stream_bytes(self.key_out, self.written, &mut buffer[..size]);
            match stack.tcp_write(local, self.id, &buffer[..size]) {
                Ok(n) => {
                    self.written += n as u64;
                    self.write_at = now + self.role.write_gap;
                    self.moved(now, local, stack);
                }
                Err(WriteError::WouldBlock) => return Ok(()),
                Err(WriteError::Failed(error)) => self.end = Some(End::Failed(error)),
                Err(error) => return Err(format!("write to a connection that is in use: {error}")),
            }
        }
        self.sleep(now);
        Ok(())
    }

    /// Bytes went in or out: it may be time to rest, or to leave.
    fn moved(&mut self, now: Instant, local: Instant, stack: &mut Stack<Umem>) {
        self.progress_at = now;
        let total = self.read + self.written;
        if let Some((after, time)) = self.role.rest
            && total >= after
            && !self.has_rested
        {
            self.has_rested = true;
            self.read_at = now + time;
            self.write_at = now + time;
        }
        if let Some((after, quit)) = self.role.quits
            && total >= after
        {
            if quit == Quit::Abort {
                stack.tcp_abort(local, self.id);
            }
            self.end = Some(End::Quit);
        }
    }

    fn close_if_done(&mut self, local: Instant, stack: &mut Stack<Umem>) {
        let all_written = self.written == self.role.out;
        let all_read = self.read == self.role.wanted;
        if all_written && !self.has_shut && (self.role.half_closes || all_read) {
            stack.tcp_shutdown_write(local, self.id);
            self.has_shut = true;
        }
        if !self.eof {
            return;
        }
        if all_read && all_written {
            self.end = Some(End::Done);
        } else if !all_read {
            self.end = Some(End::CutShort);
        }
    }

    fn sleep(&mut self, until: Instant) {
        self.sleeps_until = Some(self.sleeps_until.map_or(until, |other| other.min(until)));
    }
}
