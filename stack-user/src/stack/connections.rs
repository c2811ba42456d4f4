//! The table of TCP connections: rows that are found by number, by flow, and by timer.

use std::collections::VecDeque;

use slab::Slab;

use super::{
    Event, TcpId,
    demux::{Demux, Flow},
    timers::TimerWheel,
};
use crate::{
    frame::FramePool,
    rng::Rng,
    tcp::{Connection, State, trace::Record},
    telemetry::STORY,
    time::Instant,
};

/// All connections of a stack.
#[derive(Debug)]
pub(super) struct Connections {
    rows: Slab<Row>,
    demux: Demux,
    timers: TimerWheel,
    /// Connections that may have something to send, each once.
    ready: VecDeque<TcpId>,
    generation: u32,
    /// Rows that are not [finished](is_finished).
    unfinished: usize,
    /// What happened to connections that somebody listens in to.
    traces: Traces,
}

#[derive(Debug)]
struct Row {
    connection: Connection,
    generation: u32,
    /// Is in `ready`.
    is_ready: bool,
    /// The application still has its handle: it may ask how the connection ended.
    is_held: bool,
    /// The state that was last told.
    told: State,
}

impl Connections {
    pub(super) fn new(now: Instant, rng: &mut Rng) -> Self {
        Self {
            rows: Slab::new(),
            demux: Demux::new(rng),
            timers: TimerWheel::new(now),
            ready: VecDeque::new(),
            generation: 0,
            unfinished: 0,
            traces: Traces::default(),
        }
    }

    /// Other shards are told of what there is from now on.
    pub(super) fn join(&mut self, siblings: &super::siblings::Membership) {
        self.demux.join(siblings);
    }

    pub(super) fn insert(&mut self, connection: Connection) -> TcpId {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let flow = Flow { local: connection.local(), remote: connection.remote() };
        let told = connection.state();
        tracing::info!(target: STORY, "TCP {} → {}: {told}", flow.local, flow.remote);
        let row = self.rows.insert(Row { connection, generation, is_ready: false, is_held: true, told });
        let id = TcpId { row: row as u32, generation };
        self.unfinished += 1;
        self.demux.insert(flow, id);
        id
    }

    pub(super) fn find(&self, flow: &Flow) -> Option<TcpId> {
        self.demux.find(flow)
    }

    pub(super) fn is_in_use(&self, flow: &Flow) -> bool {
        self.demux.contains(flow)
    }

    pub(super) fn get(&self, id: TcpId) -> Option<&Connection> {
        self.row(id).map(|row| &row.connection)
    }

    /// The connection, to work on. Whoever does calls [`worked_on`](Self::worked_on) afterwards.
    pub(super) fn get_mut(&mut self, id: TcpId) -> Option<&mut Connection> {
        let row = self.rows.get_mut(id.index()).filter(|row| row.generation == id.generation)?;
        Some(&mut row.connection)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (TcpId, &Connection)> {
        let id = |row: usize, generation| TcpId { row: row as u32, generation };
        self.rows.iter().map(move |(row, r)| (id(row, r.generation), &r.connection))
    }

    pub(super) fn ids(&self) -> Vec<TcpId> {
        self.iter().map(|(id, _)| id).collect()
    }

    /// Whether a connection is left that its peer still expects something of.
    pub(super) fn has_unfinished(&self) -> bool {
        self.unfinished > 0
    }

    /// The application dropped its handle.
    pub(super) fn let_go(&mut self, id: TcpId) {
        if let Some(row) = self.rows.get_mut(id.index()).filter(|row| row.generation == id.generation) {
            row.is_held = false;
        }
    }

    /// Something was done with a connection: tells who waits for it, sets its timer, puts it in line to send, and
    /// removes it when it has come to its end and nobody holds it.
    pub(super) fn worked_on<P: FramePool>(&mut self, id: TcpId, pool: &mut P, events: &mut VecDeque<Event>) {
        let Some(row) = self.rows.get_mut(id.index()).filter(|row| row.generation == id.generation) else {
            return;
        };
        if !row.is_ready {
            row.is_ready = true;
            self.ready.push_back(id);
        }
        self.settle(id, pool, events);
    }

    /// As [`worked_on`](Self::worked_on), when the connection has just said that it has nothing (more) to send.
    fn settle<P: FramePool>(&mut self, id: TcpId, pool: &mut P, events: &mut VecDeque<Event>) {
        let Some(row) = self.rows.get_mut(id.index()) else { return };
        let (mut readable, mut writable) = (false, false);
        while let Some(event) = row.connection.poll_event() {
            readable |= event.is_readable();
            writable |= event.is_writable();
            if event.is_report() {
                events.push_back(Event::TcpReport { id, report: event });
            }
        }
        if readable || writable {
            events.push_back(Event::Tcp { id, readable, writable });
        }
        if row.connection.is_listened_to() {
            self.traces.take_from(id, &mut row.connection);
        }
        let state = row.connection.state();
        if state == State::Closed && row.told == State::TimeWait {
            // Both have finished; that a table owns its TIME-WAIT now, or that it is over, is no news.
            row.told = state;
        }
        if state != row.told {
            let connection = &row.connection;
            tracing::info!(
                target: STORY,
                "TCP {} → {}: {} → {state}", connection.local(), connection.remote(), row.told,
            );
            if is_finished(state) && !is_finished(row.told) {
                self.unfinished -= 1;
                events.push_back(Event::Changed);
            }
            row.told = state;
        }
        match row.connection.poll_timeout() {
            Some(deadline) => self.timers.arm(id.index(), deadline),
            None => self.timers.cancel(id.index()),
        }
        if row.connection.is_closed() {
            // Its port is free again, and a segment that still comes is for no connection (RFC 9293 §3.10.7.1).
            let flow = Flow { local: row.connection.local(), remote: row.connection.remote() };
            self.demux.remove(&flow, id);
            if !row.is_held {
                self.remove(id, pool);
            }
        }
    }

    fn remove<P: FramePool>(&mut self, id: TcpId, pool: &mut P) {
        let mut row = self.rows.remove(id.index());
        self.timers.cancel(id.index());
        row.connection.release_all(pool);
    }

    /// The oldest record of a connection that somebody listens in to.
    pub(super) fn poll_trace(&mut self) -> Option<(TcpId, Record)> {
        self.traces.waiting.pop_front()
    }

    /// Records that nobody took in time.
    pub(super) fn traces_lost(&self) -> u64 {
        self.traces.lost
    }

    /// The next connection that may have something to send. It stays in line until [`sent_all`](Self::sent_all).
    pub(super) fn next_ready(&mut self) -> Option<TcpId> {
        while let Some(&id) = self.ready.front() {
            if self.row(id).is_some() {
                return Some(id);
            }
            self.ready.pop_front();
        }
        None
    }

    /// The connection that is first in line has sent a segment: the others get a turn.
    pub(super) fn rotate(&mut self) {
        self.ready.rotate_left(1);
    }

    /// The connection that is first in line has nothing more to send.
    pub(super) fn sent_all<P: FramePool>(&mut self, pool: &mut P, events: &mut VecDeque<Event>) {
        if let Some(id) = self.ready.pop_front() {
            if let Some(row) = self.rows.get_mut(id.index()) {
                row.is_ready = false;
            }
            self.settle(id, pool, events);
        }
    }

    /// A connection whose timer is due.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<TcpId> {
        let row = self.timers.pop_due(now)?;
        let generation = self.rows.get(row)?.generation;
        Some(TcpId { row: row as u32, generation })
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.poll_timeout()
    }

    fn row(&self, id: TcpId) -> Option<&Row> {
        self.rows.get(id.index()).filter(|row| row.generation == id.generation)
    }
}

/// Records that wait to be taken. Fewer, and who looks once per burst of frames misses some; more, and one that has
/// forgotten to look holds memory.
const MAX_TRACES: usize = 4096;

#[derive(Debug, Default)]
struct Traces {
    waiting: VecDeque<(TcpId, Record)>,
    lost: u64,
}

impl Traces {
    fn take_from(&mut self, id: TcpId, connection: &mut Connection) {
        while let Some(record) = connection.poll_trace() {
            if self.waiting.len() >= MAX_TRACES {
                self.waiting.pop_front();
                self.lost += 1;
            }
            self.waiting.push_back((id, record));
        }
    }
}

/// Whether the peer has all that it can expect: only repetitions can come.
fn is_finished(state: State) -> bool {
    matches!(state, State::Closed | State::TimeWait)
}
