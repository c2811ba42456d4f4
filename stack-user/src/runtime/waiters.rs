//! Which tasks wait for which connection, socket or address.

use std::{
    collections::{HashMap, VecDeque},
    task::{Context, Waker},
};

use crate::stack::{Event, ListenerId, TcpId, UdpId};

/// Tasks beyond the first that wait for one direction of a connection. Fewer, and programs that read one connection by that
/// many tasks wake each other up in turn; more, and tasks that have given up are remembered for longer.
const MORE_WAIT: usize = 16;

/// The wakers of a shard. Those of connections are indexed like the stack's own table, so a wake-up costs no search.
#[derive(Debug, Default)]
pub struct Waiters {
    tcp: Vec<TcpWaiters>,
    /// Further tasks that wait for a row of `tcp`: there seldom are any.
    more: HashMap<(usize, Direction), VecDeque<Waker>>,
    /// Several tasks may receive from one socket.
    udp: HashMap<UdpId, Vec<Waker>>,
    /// Several tasks may accept from one listener.
    listeners: HashMap<ListenerId, Vec<Waker>>,
    /// Tasks that wait for an address to be claimed, or for connections to be gone.
    other: Vec<Waker>,
    /// Those to wake as soon as the lock is released.
    pub(super) woken: Vec<Waker>,
}

#[derive(Debug, Default)]
struct TcpWaiters {
    read: Option<Waker>,
    write: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Direction {
    Read,
    Write,
}

impl Waiters {
    /// The task wants to know when the connection has something to read, or has ended.
    pub fn wait_to_read(&mut self, id: TcpId, cx: &Context<'_>) {
        let displaced = store(&mut self.tcp_row(id).read, cx);
        self.keep(id, Direction::Read, displaced);
    }

    /// The task wants to know when the connection can be written to, or has ended.
    pub fn wait_to_write(&mut self, id: TcpId, cx: &Context<'_>) {
        let displaced = store(&mut self.tcp_row(id).write, cx);
        self.keep(id, Direction::Write, displaced);
    }

    /// Whoever waited before still does, unless it has given up, which nobody tells.
    fn keep(&mut self, id: TcpId, direction: Direction, displaced: Option<Waker>) {
        let Some(waker) = displaced else { return };
        let more = self.more.entry((id.index(), direction)).or_default();
        if more.iter().any(|other| other.will_wake(&waker)) {
            return;
        }
        if more.len() >= MORE_WAIT {
            // It asks again if it is still there.
            self.woken.extend(more.pop_front());
        }
        more.push_back(waker);
    }

    fn wake_more(&mut self, id: TcpId, direction: Direction) {
        if !self.more.is_empty() {
            self.woken.extend(self.more.remove(&(id.index(), direction)).into_iter().flatten());
        }
    }

    /// The connection is gone. Returns who waited for it, to be dropped when the lock is released: a waker may be all that is
    /// left of a task, which may hold other streams.
    #[must_use]
    pub fn forget_tcp(&mut self, id: TcpId) -> Vec<Waker> {
        let mut waited = Vec::new();
        if let Some(row) = self.tcp.get_mut(id.index()) {
            waited.extend(row.read.take().into_iter().chain(row.write.take()));
        }
        if !self.more.is_empty() {
            for direction in [Direction::Read, Direction::Write] {
                waited.extend(self.more.remove(&(id.index(), direction)).into_iter().flatten());
            }
        }
        waited
    }

    /// The task wants to know when the socket has a datagram.
    pub fn wait_to_receive(&mut self, id: UdpId, cx: &Context<'_>) {
        add(self.udp.entry(id).or_default(), cx);
    }

    /// The socket is gone. As with [`forget_tcp`](Self::forget_tcp).
    #[must_use]
    pub fn forget_udp(&mut self, id: UdpId) -> Vec<Waker> {
        self.udp.remove(&id).unwrap_or_default()
    }

    /// The task wants to know when a connection can be accepted.
    pub fn wait_to_accept(&mut self, id: ListenerId, cx: &Context<'_>) {
        add(self.listeners.entry(id).or_default(), cx);
    }

    /// The listener is gone. As with [`forget_tcp`](Self::forget_tcp).
    #[must_use]
    pub fn forget_listener(&mut self, id: ListenerId) -> Vec<Waker> {
        self.listeners.remove(&id).unwrap_or_default()
    }

    /// The task wants to know when an address changes its state, or a connection goes.
    pub fn wait_for_changes(&mut self, cx: &Context<'_>) {
        add(&mut self.other, cx);
    }

    pub(super) fn wake(&mut self, event: Event) {
        match event {
            Event::Tcp { id, readable, writable } => {
                if let Some(row) = self.tcp.get_mut(id.index()) {
                    self.woken.extend(readable.then(|| row.read.take()).flatten());
                    self.woken.extend(writable.then(|| row.write.take()).flatten());
                }
                if readable {
                    self.wake_more(id, Direction::Read);
                }
                if writable {
                    self.wake_more(id, Direction::Write);
                }
            }
            Event::Udp { id } => {
                self.woken.extend(self.udp.remove(&id).into_iter().flatten());
            }
            Event::Listener { id } => {
                self.woken.extend(self.listeners.remove(&id).into_iter().flatten());
            }
            // Who wants to know asks for the connection's `info`.
            Event::TcpReport { .. } => {}
            Event::Changed => self.woken.append(&mut self.other),
        }
    }

    /// Nothing will happen any more: everybody shall look.
    pub(super) fn wake_all(&mut self) {
        let connections = self.tcp.iter_mut().flat_map(|row| [row.read.take(), row.write.take()]);
        self.woken.extend(connections.flatten());
        self.woken.extend(self.more.drain().flat_map(|(_, waiting)| waiting));
        self.woken.extend(self.udp.drain().flat_map(|(_, waiting)| waiting));
        self.woken.extend(self.listeners.drain().flat_map(|(_, waiting)| waiting));
        self.woken.append(&mut self.other);
    }

    fn tcp_row(&mut self, id: TcpId) -> &mut TcpWaiters {
        let row = id.index();
        if row >= self.tcp.len() {
            self.tcp.resize_with(row + 1, TcpWaiters::default);
        }
        &mut self.tcp[row]
    }
}

/// One more waits, unless it does already.
fn add(waiting: &mut Vec<Waker>, cx: &Context<'_>) {
    if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
        waiting.push(cx.waker().clone());
    }
}

/// The task waits. Returns another one that did before.
fn store(place: &mut Option<Waker>, cx: &Context<'_>) -> Option<Waker> {
    match place {
        Some(waker) if waker.will_wake(cx.waker()) => None,
        _ => place.replace(cx.waker().clone()),
    }
}
