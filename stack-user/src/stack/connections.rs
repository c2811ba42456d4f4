//! The table of TCP connections: rows that are found by number, by flow, and by timer.

use std::{collections::VecDeque, net::IpAddr};

use slab::Slab;

use super::{
    Event, TcpId,
    demux::{Demux, Flow},
    held_acks::HeldAcks,
    timers::TimerWheel,
};
use crate::{
    frame::FramePool,
    rng::Rng,
    tcp::{Connection, Idle, State, View, ack::Hold, idle::Configs, trace::Record},
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
    /// Connections that hold an ACK back.
    held: HeldAcks,
    generation: u32,
    /// What those that rest are configured as.
    configs: Configs,
    resting: usize,
    /// Rows by the state that was last told, in the order of [`State::ALL`].
    states: [usize; State::ALL.len()],
    /// Rows that are not [finished](is_finished).
    unfinished: usize,
    /// Those among them that nobody holds.
    orphans: usize,
    /// Bytes of what waits to be read or put in order, besides the frames.
    memory: usize,
    /// What happened to connections that somebody listens in to.
    traces: Traces,
}

/// A connection is kept as it is while something happens, and as an [`Idle`] one while it rests: one of the two is there.
#[derive(Debug)]
struct Row {
    awake: Option<Box<Connection>>,
    idle: Option<Box<Idle>>,
    generation: u32,
    /// Is in `ready`.
    is_ready: bool,
    /// The line of `held` in which it will be asked first, if it is in one.
    held_for: Option<Hold>,
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
            held: HeldAcks::default(),
            generation: 0,
            configs: Configs::default(),
            resting: 0,
            states: Default::default(),
            unfinished: 0,
            orphans: 0,
            memory: 0,
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
        let awake = Some(Box::new(connection));
        let row = self.rows.insert(Row {
            awake,
            idle: None,
            generation,
            is_ready: false,
            held_for: None,
            is_held: true,
            told,
        });
        self.states[told as usize] += 1;
        self.unfinished += 1;
        let rows = &self.rows;
        self.demux.insert(&flow, row as u32, |other| other != row as u32 && is_of(rows, other, &flow));
        TcpId { row: row as u32, generation }
    }

    pub(super) fn find(&self, flow: &Flow) -> Option<TcpId> {
        let row = self.demux.find(flow, |row| is_of(&self.rows, row, flow))?;
        self.rows.get(row as usize).map(|Row { generation, .. }| TcpId { row, generation: *generation })
    }

    /// What a flow's row is found by.
    pub(super) fn hash(&self, flow: &Flow) -> u32 {
        self.demux.hash(flow)
    }

    /// The row that a flow of this hash is likely to have: to be [touched](Self::touch).
    pub(super) fn likely_row(&self, hash: u32) -> Option<u32> {
        self.demux.likely(hash)
    }

    /// Has the CPU fetch a row. What comes back means nothing, but that it was read.
    pub(super) fn touch_row(&self, row: u32) -> u32 {
        self.timers.touch(row as usize);
        self.rows.get(row as usize).map_or(0, |row| row.generation)
    }

    /// Has the CPU find the page that a connection is on, unless it rests: then there is little to fetch.
    pub(super) fn touch_page(&self, row: u32) -> u16 {
        match self.rows.get(row as usize) {
            Some(Row { awake: Some(connection), .. }) => connection.local().port(),
            _ => 0,
        }
    }

    /// Has the CPU fetch what a segment needs of the connection in a row.
    pub(super) fn touch(&self, row: u32) -> u64 {
        match self.rows.get(row as usize) {
            Some(Row { awake: Some(connection), .. }) => connection.touch(),
            Some(Row { idle: Some(idle), .. }) => idle.poll_timeout().map_or(0, Instant::as_nanos),
            _ => 0,
        }
    }

    pub(super) fn is_in_use(&self, flow: &Flow) -> bool {
        self.find(flow).is_some()
    }

    /// The connection, to look at.
    pub(super) fn get(&self, id: TcpId) -> Option<View<'_>> {
        self.row(id).and_then(Row::view)
    }

    /// Its two ends.
    pub(super) fn flow(&self, id: TcpId) -> Option<Flow> {
        self.row(id).and_then(Row::flow)
    }

    /// The connection, to work on. Whoever does calls [`worked_on`](Self::worked_on) afterwards.
    pub(super) fn get_mut(&mut self, id: TcpId) -> Option<&mut Connection> {
        let row = self.rows.get_mut(id.index()).filter(|row| row.generation == id.generation)?;
        if let Some(idle) = row.idle.take() {
            self.resting -= 1;
            row.awake = Some(Box::new(idle.resume()));
        }
        row.awake.as_deref_mut()
    }

    /// The same of one that does not rest: none of those that do is woken.
    pub(super) fn awake_mut(&mut self, id: TcpId) -> Option<&mut Connection> {
        let row = self.rows.get_mut(id.index()).filter(|row| row.generation == id.generation)?;
        row.awake.as_deref_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (TcpId, View<'_>)> {
        let id = |row: usize, generation| TcpId { row: row as u32, generation };
        self.rows.iter().filter_map(move |(row, r)| Some((id(row, r.generation), r.view()?)))
    }

    /// Those in some rows of the table, and the row after these unless it is the last.
    pub(super) fn from(
        &self,
        row: usize,
        rows: usize,
    ) -> (impl Iterator<Item = (TcpId, View<'_>)>, Option<usize>) {
        // Rows above are free, and have been since the table grew.
        let all = self.rows.capacity();
        let end = row.saturating_add(rows).min(all);
        let some = (row..end).filter_map(|row| {
            let r = self.rows.get(row)?;
            Some((TcpId { row: row as u32, generation: r.generation }, r.view()?))
        });
        (some, (end < all).then_some(end))
    }

    pub(super) fn ids(&self) -> Vec<TcpId> {
        let id = |(row, r): (usize, &Row)| TcpId { row: row as u32, generation: r.generation };
        self.rows.iter().map(id).collect()
    }

    /// How many there are, and how many of them rest.
    pub(super) fn count(&self) -> (usize, usize) {
        (self.rows.len(), self.resting)
    }

    /// How many are in which state. It costs the same however many there are.
    pub(super) fn states(&self) -> impl Iterator<Item = (State, usize)> {
        State::ALL.into_iter().zip(self.states)
    }

    /// Those from one address of ours.
    pub(super) fn ids_at(&self, local: IpAddr) -> Vec<TcpId> {
        let at = |row: &Row| row.flow().is_some_and(|flow| flow.local.ip() == local);
        let id = |(row, r): (usize, &Row)| TcpId { row: row as u32, generation: r.generation };
        self.rows.iter().filter(|(_, row)| at(row)).map(id).collect()
    }

    /// The first row, from `from` on, with a connection from `local` that its peer still expects something of.
    pub(super) fn next_unfinished(&self, local: IpAddr, from: usize) -> Option<usize> {
        let at = |row: &Row| row.flow().is_some_and(|flow| flow.local.ip() == local);
        let unfinished = |row: &Row| !is_finished(row.told) && at(row);
        (from..self.rows.capacity()).find(|&row| self.rows.get(row).is_some_and(unfinished))
    }

    /// Whether a connection is left that its peer still expects something of.
    pub(super) fn has_unfinished(&self) -> bool {
        self.unfinished > 0
    }

    /// The application dropped its handle. Returns how many unfinished connections nobody holds now.
    pub(super) fn let_go(&mut self, id: TcpId) -> usize {
        if let Some(row) = self.rows.get_mut(id.index()).filter(|row| row.generation == id.generation) {
            let is_orphaned = std::mem::replace(&mut row.is_held, false) && !is_finished(row.told);
            self.orphans += usize::from(is_orphaned);
        }
        self.orphans
    }

    /// Bytes of what waits to be read or put in order, of all connections, besides the frames.
    pub(super) fn memory(&self) -> usize {
        self.memory
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
        // Nothing was done with one that rests.
        let Some(connection) = row.awake.as_deref_mut() else { return };
        let (mut readable, mut writable) = (false, false);
        while let Some(event) = connection.poll_event() {
            readable |= event.is_readable();
            writable |= event.is_writable();
            if event.is_report() {
                events.push_back(Event::TcpReport { id, report: event });
            }
        }
        if readable || writable {
            events.push_back(Event::Tcp { id, readable, writable });
        }
        if connection.is_listened_to() {
            self.traces.take_from(id, connection);
        }
        let (before, now) = connection.account_memory();
        self.memory = self.memory - before + now;
        if let Some((until, what)) = connection.held_ack() {
            self.held.hold(until, what, id, &mut row.held_for);
        }
        let state = connection.state();
        self.states[row.told as usize] -= 1;
        self.states[state as usize] += 1;
        if state == State::Closed && row.told == State::TimeWait {
            // Both have finished; that a table owns its TIME-WAIT now, or that it is over, is no news.
            row.told = state;
        }
        if state != row.told {
            tracing::info!(
                target: STORY,
                "TCP {} → {}: {} → {state}", connection.local(), connection.remote(), row.told,
            );
            if is_finished(state) && !is_finished(row.told) {
                self.unfinished -= 1;
                self.orphans -= usize::from(!row.is_held);
                events.push_back(Event::Changed);
            }
            row.told = state;
        }
        match connection.looks_at() {
            // Most deadlines move on with each segment: the wheel finds out when it looks.
            Some(due) => self.timers.arm_by(id.index(), due),
            None => self.timers.cancel(id.index()),
        }
        if connection.is_closed() {
            // Its port is free again, and a segment that still comes is for no connection (RFC 9293 §3.10.7.1).
            let flow = Flow { local: connection.local(), remote: connection.remote() };
            let is_held = row.is_held;
            self.demux.remove(&flow, id.row);
            if !is_held {
                self.remove(id, pool);
            }
        }
    }

    fn remove<P: FramePool>(&mut self, id: TcpId, pool: &mut P) {
        let mut row = self.rows.remove(id.index());
        self.states[row.told as usize] -= 1;
        self.timers.set(id.index(), None);
        if let Some(connection) = &mut row.awake {
            connection.release_all(pool);
            let (before, _) = connection.account_memory();
            self.memory -= before;
        }
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

    /// How many are in that line.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// The connection that is first in line has sent a segment: the others get a turn.
    pub(super) fn rotate(&mut self) {
        if self.ready.len() > 1 {
            self.ready.rotate_left(1);
        }
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

    /// A connection whose timer is due. Those that have nothing to do any more are put to rest on the way.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<TcpId> {
        while let Some(key) = self.timers.pop_due(now) {
            let Some(row) = self.rows.get_mut(key) else { continue };
            let Some(connection) =
                row.awake.as_deref().filter(|c| c.poll_timeout().is_none_or(|at| at > now))
            else {
                return Some(TcpId { row: key as u32, generation: row.generation });
            };
            let again = match connection.rests_at() {
                Some(at) if at > now => Some(at),
                // It will be looked at again when it has had its say.
                _ if row.is_ready => None,
                // If it does not rest now, it waits for something other than time.
                _ => match connection.rest(now, &mut self.configs) {
                    Some(idle) => {
                        // Its queues are empty, and were when it was last worked on.
                        (row.awake, row.idle) = (None, Some(Box::new(idle)));
                        self.resting += 1;
                        None
                    }
                    None => None,
                },
            };
            let next = row.poll_timeout();
            self.timers.set(key, earlier(next, again));
        }
        None
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        earlier(self.timers.poll_timeout(), self.held.poll_timeout())
    }

    /// Puts those in line whose ACK has waited long enough.
    pub(super) fn release_held(&mut self, now: Instant) {
        while let Some((what, id)) = self.held.pop(now) {
            let Some(row) = self.rows.get_mut(id.index()).filter(|row| row.generation == id.generation)
            else {
                continue;
            };
            // An ACK that has to go sooner may have been held meanwhile.
            row.held_for = row.held_for.filter(|&held| held != what);
            match row.awake.as_ref().and_then(|connection| connection.held_ack()) {
                // That one has gone, and another waits.
                Some((until, what)) if until > now => self.held.hold(until, what, id, &mut row.held_for),
                Some(_) if !row.is_ready => {
                    row.is_ready = true;
                    self.ready.push_back(id);
                }
                _ => {}
            }
        }
    }

    fn row(&self, id: TcpId) -> Option<&Row> {
        self.rows.get(id.index()).filter(|row| row.generation == id.generation)
    }
}

impl Row {
    fn view(&self) -> Option<View<'_>> {
        match (&self.awake, &self.idle) {
            (Some(connection), _) => Some(View::Whole(connection)),
            (None, Some(idle)) => Some(View::Resumed(Box::new(Idle::clone(idle).resume()))),
            (None, None) => None,
        }
    }

    fn flow(&self) -> Option<Flow> {
        match (&self.awake, &self.idle) {
            (Some(connection), _) => Some(Flow { local: connection.local(), remote: connection.remote() }),
            (None, Some(idle)) => Some(Flow { local: idle.local(), remote: idle.remote() }),
            (None, None) => None,
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let awake = self.awake.as_ref().and_then(|connection| connection.poll_timeout());
        awake.or_else(|| self.idle.as_ref().and_then(|idle| idle.poll_timeout()))
    }
}

fn is_of(rows: &Slab<Row>, row: u32, flow: &Flow) -> bool {
    rows.get(row as usize).and_then(Row::flow).as_ref() == Some(flow)
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
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
