//! Passive opens: listening, SYNs, and the connections that come of them.

use std::net::{IpAddr, SocketAddr};

use super::{Event, ListenerId, Stack, TcpId, demux::Flow, egress::Sender, half_open::Row};
use crate::{
    frame::{FramePool, RxFrame},
    net::route::Route,
    tcp::{
        Arrival, Connection, HalfOpen, Knock, Revisit, Segment, SeqNumber, Unreachable, View,
        on_segment_in_listen, segment, syn_cookie,
    },
    telemetry::{DropReason, STORY},
    time::Instant,
    wire::protocol,
};

/// Why nothing listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The address is neither ours nor "all of ours".
    #[error(
        "{0} is not an address of this stack: listen on one that it has claimed, or on all of them (0.0.0.0)"
    )]
    NotOurs(IpAddr),
    /// Somebody listens there.
    #[error("something listens on {0} already: close that, or choose another port")]
    InUse(SocketAddr),
    /// Every port has a listener.
    #[error("every ephemeral port has a listener: close some, or name a port")]
    NoPort,
}

/// What a listener is, for statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenerInfo {
    /// Where it listens.
    pub local: SocketAddr,
    /// SYNs whose senders have not answered yet.
    pub half_open: usize,
    /// Connections that wait to be accepted.
    pub waiting: usize,
    /// Connections that may wait to be accepted.
    pub backlog: usize,
}

impl<P: FramePool> Stack<P> {
    /// Listens on an address of ours, or on all of them if it is unspecified (RFC 9293 §3.9.1.1, MUST-43). Port 0 asks
    /// for any; [`tcp_listener`](Self::tcp_listener) tells which. At most `backlog` established connections wait to be
    /// [accepted](Self::tcp_accept), at least one.
    ///
    /// An open without a foreign socket leaves connections alone that use the same local one (§3.9.1, MUST-41, MUST-42).
    ///
    /// # Errors
    /// See [`ListenError`].
    pub fn tcp_listen(
        &mut self,
        now: Instant,
        local: SocketAddr,
        backlog: usize,
    ) -> Result<ListenerId, ListenError> {
        self.tcp_listen_with(now, local, backlog, None)
    }

    /// As [`tcp_listen`](Self::tcp_listen), and what is accepted is as another configuration than the stack's says, if there
    /// is one.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub fn tcp_listen_with(
        &mut self,
        _now: Instant,
        local: SocketAddr,
        backlog: usize,
        config: Option<crate::tcp::Config>,
    ) -> Result<ListenerId, ListenError> {
        if !local.ip().is_unspecified() && !self.addresses.may_open(local.ip()) {
            return Err(ListenError::NotOurs(local.ip()));
        }
        let local = match local.port() {
            0 => {
                SocketAddr::new(local.ip(), self.pick_listening_port(local.ip()).ok_or(ListenError::NoPort)?)
            }
            _ => local,
        };
        let id = self.listeners.insert(local, backlog, config).ok_or(ListenError::InUse(local))?;
        if let Some(siblings) = &self.siblings {
            siblings.open(protocol::TCP, local);
        }
        tracing::info!(target: STORY, "TCP: listening on {local}");
        Ok(id)
    }

    fn pick_listening_port(&mut self, ip: IpAddr) -> Option<u16> {
        let listeners = &self.listeners;
        // As for a connection to nobody: no port tells which comes next (RFC 6056 §3.3.4).
        let nobody = SocketAddr::new(super::listeners::unspecified(ip), 0);
        self.ports.pick(ip, nobody, |port| listeners.conflicts(SocketAddr::new(ip, port)))
    }

    /// Takes a connection off the accept queue: the one that has waited longest, and its peer. It may have ended already;
    /// reading tells.
    pub fn tcp_accept(&mut self, _now: Instant, id: ListenerId) -> Option<(TcpId, SocketAddr)> {
        let listener = self.listeners.get_mut(id)?;
        while let Some(id) = listener.pop() {
            if let Some(flow) = self.connections.flow(id) {
                return Some((id, flow.remote));
            }
        }
        None
    }

    /// Listens no more. Connections that nobody has accepted are reset; those that were go on.
    pub fn tcp_unlisten(&mut self, now: Instant, id: ListenerId) {
        let Some(mut listener) = self.listeners.remove(id) else { return };
        if let Some(siblings) = &self.siblings {
            siblings.close(protocol::TCP, listener.local);
        }
        for key in self.half_open.keys(Some(id)) {
            self.half_open.remove(key);
        }
        while let Some(id) = listener.pop() {
            self.tcp_abort(now, id);
            self.tcp_close(now, id);
        }
        // Who waits for a connection shall not wait for ever.
        self.events.push_back(Event::Listener { id });
    }

    /// Listens no more, nowhere.
    pub fn tcp_unlisten_all(&mut self, now: Instant) {
        let ids: Vec<_> = self.listeners.iter().map(|(id, _)| id).collect();
        ids.into_iter().for_each(|id| self.tcp_unlisten(now, id));
    }

    /// A listener, to look at.
    pub fn tcp_listener(&self, id: ListenerId) -> Option<ListenerInfo> {
        self.listeners.get(id).map(super::listeners::Listener::info)
    }

    /// All listeners, for statistics.
    pub fn tcp_listeners(&self) -> impl Iterator<Item = (ListenerId, ListenerInfo)> {
        self.listeners.iter().map(|(id, listener)| (id, listener.info()))
    }

    /// The connections in some `rows` of the table from `row` on, and where to go on, unless the table ends there: for who
    /// looks at many, and lets go of the stack in between.
    pub fn tcp_connections_from(
        &self,
        row: usize,
        rows: usize,
    ) -> (impl Iterator<Item = (TcpId, View<'_>)>, Option<usize>) {
        self.connections.from(row, rows)
    }

    /// All connections, for statistics.
    pub fn tcp_connections(&self) -> impl Iterator<Item = (TcpId, View<'_>)> {
        self.connections.iter()
    }

    /// A segment for no connection: for a listener, or for nobody.
    pub(super) fn handle_passive(
        &mut self,
        now: Instant,
        sender: Sender,
        flow: Flow,
        segment: &Segment,
        frame: RxFrame,
    ) {
        if let Some(key) = self.half_open.find(&flow) {
            return self.handle_half_open(now, key, sender, segment, frame);
        }
        if let Some(visit) = self.time_waits.get(&flow).map(|entry| entry.on_segment(segment, frame.len())) {
            self.pool.release_rx(frame);
            return self.handle_revisit(now, visit, sender, flow, segment);
        }
        let Some(id) = self.listener_at(flow.local) else {
            self.answer_with_reset(now, segment, frame.len(), flow.local.ip(), sender);
            return self.drop_received(frame, DropReason::TcpNoConnection);
        };
        match on_segment_in_listen(segment) {
            Knock::Syn => {
                self.pool.release_rx(frame);
                if let Err(reason) = self.handle_syn(now, id, sender, flow, segment, false) {
                    self.drops.count(reason);
                }
            }
            Knock::Ack => match self.check_cookie(now, id, flow, segment) {
                Some(half_open) => {
                    self.establish(now, id, flow, &half_open, segment, frame);
                }
                None => {
                    self.answer_with_reset(now, segment, frame.len(), flow.local.ip(), sender);
                    self.drop_received(frame, DropReason::TcpNoConnection);
                }
            },
            Knock::Noise => self.drop_received(frame, DropReason::TcpNoConnection),
        }
    }

    /// Who listens where a segment came, unless the address is being given up.
    fn listener_at(&self, local: SocketAddr) -> Option<ListenerId> {
        self.listeners.find(local).filter(|_| self.addresses.may_open(local.ip()))
    }

    /// A SYN for a listener: kept, and answered. One that `reopens` a connection in TIME-WAIT is of a peer that has been
    /// here, and its row takes the other's place: a flood that has filled the listener's queue does not keep it out. It gets
    /// no cookie, whose number may lie before where the old connection ended (RFC 9293 §3.6.1, MAY-2).
    fn handle_syn(
        &mut self,
        now: Instant,
        id: ListenerId,
        sender: Sender,
        flow: Flow,
        syn: &Segment,
        reopens: bool,
    ) -> Result<(), DropReason> {
        // Nobody can be answered there (RFC 6335 §6).
        if flow.remote.port() == 0 {
            return Err(DropReason::TcpBadAddress);
        }
        let mtu = self.route(flow.local.ip()).ok_or(DropReason::Ipv4NotForUs)?.mtu();
        let listener = self.listeners.get_mut(id).ok_or(DropReason::TcpNoConnection)?;
        if listener.is_full() {
            return Err(DropReason::TcpAcceptQueueFull);
        }
        let is_flooded = listener.syn_queue_is_full() && !reopens || self.half_open.is_full();
        if is_flooded && reopens {
            return Err(DropReason::TcpSynQueueFull);
        }
        if is_flooded {
            listener.cookies_until = now + syn_cookie::LIFETIME;
        }
        let config = self.fitted_tcp_config(id, flow.local.ip(), mtu);
        if is_flooded {
            if let Some(siblings) = &self.siblings {
                siblings.cookies_are_out(now, syn_cookie::LIFETIME);
            }
            let answer = syn_cookie::answer(&self.secret, now, &config, flow.local, flow.remote, syn);
            self.send_segment(now, &answer, flow.local.ip(), sender);
            return Err(DropReason::TcpSynQueueFull);
        }
        self.reserve(&flow)?;
        if let Some(listener) = self.listeners.get_mut(id) {
            listener.half_open += 1;
        }
        let secrets = self.secrets(now, &flow);
        let half_open = HalfOpen::new(now, &config, secrets, syn);
        let again = half_open.next_timeout(now);
        let key = self.half_open.insert(Row { half_open, flow, listener: id, sender });
        self.unreserve(&flow);
        self.half_open.arm(key, again);
        self.send_syn_ack(now, key);
        Ok(())
    }

    /// A segment for a connection in TIME-WAIT.
    fn handle_revisit(
        &mut self,
        now: Instant,
        visit: Revisit,
        sender: Sender,
        flow: Flow,
        segment: &Segment,
    ) {
        let reason = match (visit, self.listener_at(flow.local)) {
            (Revisit::Drop(reason), _) => return self.drops.count(reason),
            (Revisit::Challenge(reason), _) => reason,
            (Revisit::Again, _) => {
                self.time_waits.refresh(now, &flow);
                DropReason::TcpDuplicateData
            }
            (Revisit::Reopen, Some(id)) => {
                return match self.handle_syn(now, id, sender, flow, segment, true) {
                    Ok(()) => drop(self.time_waits.remove(&flow)),
                    Err(reason) => self.drops.count(reason),
                };
            }
            (Revisit::Reopen, None) => DropReason::TcpChallenged,
        };
        self.drops.count(reason);
        if self.limits.challenges.take(now)
            && let Some(entry) = self.time_waits.get(&flow)
        {
            let ack = entry.ack(now, flow.local.port(), flow.remote.port());
            self.send_segment(now, &ack, flow.local.ip(), sender);
        }
    }

    /// What a connection is accepted with.
    fn fitted_tcp_config(&self, id: ListenerId, local: IpAddr, mtu: u16) -> crate::tcp::Config {
        let chosen = self.listeners.get(id).and_then(|listener| listener.config.as_deref());
        let mut config = self.tcp_config(chosen, local, mtu);
        config.fit(&self.pool);
        config
    }

    fn send_syn_ack(&mut self, now: Instant, key: usize) {
        let Some(row) = self.half_open.get_mut(key) else { return };
        let (flow, sender) = (row.flow, row.sender);
        row.half_open.on_sent(now);
        let segment = row.half_open.syn_ack(now, flow.local.port(), flow.remote.port());
        self.send_segment(now, &segment, flow.local.ip(), sender);
    }

    /// A segment for a half-open connection.
    fn handle_half_open(
        &mut self,
        now: Instant,
        key: usize,
        sender: Sender,
        segment: &Segment,
        frame: RxFrame,
    ) {
        let Some(row) = self.half_open.get(key) else { return self.pool.release_rx(frame) };
        let flow = row.flow;
        match row.half_open.on_segment(now, segment, frame.len()) {
            Arrival::Completes => return self.complete(now, key, segment, frame),
            Arrival::Repeats => {
                // By another gateway, if the one before has failed.
                if let Some(row) = self.half_open.get_mut(key) {
                    row.sender = sender;
                }
                self.send_syn_ack(now, key);
            }
            Arrival::Ends => self.forget_half_open(key),
            Arrival::Challenge(reason) => {
                let ack = row.half_open.challenge_ack(now, flow.local.port(), flow.remote.port());
                self.drops.count(reason);
                if self.limits.challenges.take(now) {
                    self.send_segment(now, &ack, flow.local.ip(), sender);
                }
            }
            Arrival::Reset(reason) => {
                self.drops.count(reason);
                self.answer_with_reset(now, segment, frame.len(), flow.local.ip(), sender);
            }
            Arrival::Drop(reason) => self.drops.count(reason),
        }
        self.pool.release_rx(frame);
    }

    /// The ACK of our SYN: the half-open connection becomes a whole one, which takes in that segment.
    fn complete(&mut self, now: Instant, key: usize, segment: &Segment, frame: RxFrame) {
        let Some(row) = self.half_open.get(key) else { return self.pool.release_rx(frame) };
        let (flow, id, half_open) = (row.flow, row.listener, row.half_open);
        if self.establish(now, id, flow, &half_open, segment, frame) {
            self.forget_half_open(key);
        }
    }

    /// Puts a connection in the accept queue, if that has room.
    fn establish(
        &mut self,
        now: Instant,
        id: ListenerId,
        flow: Flow,
        half_open: &HalfOpen,
        segment: &Segment,
        frame: RxFrame,
    ) -> bool {
        let mtu = self.route(flow.local.ip()).map(Route::mtu);
        let Some(mtu) = mtu.filter(|_| self.listeners.get(id).is_some_and(|listener| !listener.is_full()))
        else {
            // The peer believes that it is connected. SYN with ACK goes on being sent, and its answer finds room later.
            self.drop_received(frame, DropReason::TcpAcceptQueueFull);
            return false;
        };
        if let Err(reason) = self.reserve(&flow) {
            self.drop_received(frame, reason);
            return false;
        }
        let config = self.fitted_tcp_config(id, flow.local.ip(), mtu);
        let mut connection = Connection::complete(now, config, flow.local, flow.remote, half_open);
        if let Err(reason) = connection.handle_segment(now, &mut self.pool, segment, frame) {
            self.drops.count(reason);
        }
        let connection = self.connections.insert(connection);
        self.unreserve(&flow);
        if let Some(listener) = self.listeners.get_mut(id) {
            listener.push(connection);
            self.events.push_back(Event::Listener { id });
        }
        self.connections.worked_on(connection, &mut self.pool, &mut self.events);
        true
    }

    /// The half-open connection that an ACK brings back by a SYN cookie.
    fn check_cookie(&self, now: Instant, id: ListenerId, flow: Flow, segment: &Segment) -> Option<HalfOpen> {
        // Only while cookies are out: at other times there is nothing to guess.
        let siblings = self.siblings.as_ref();
        let others_have_some = siblings.is_some_and(|siblings| siblings.may_have_cookies(now));
        self.listeners.get(id).filter(|listener| others_have_some || now < listener.cookies_until)?;
        let config = self.fitted_tcp_config(id, flow.local.ip(), self.route(flow.local.ip())?.mtu());
        syn_cookie::check(&self.secret, now, &config, flow.local, flow.remote, segment)
    }

    fn forget_half_open(&mut self, key: usize) {
        if let Some(row) = self.half_open.remove(key)
            && let Some(listener) = self.listeners.get_mut(row.listener)
        {
            listener.half_open -= 1;
        }
    }

    /// An ICMP error about SYN with ACK: nobody waits for the connection, so nobody is told.
    pub(super) fn tell_half_open(
        &mut self,
        flow: &Flow,
        error: Unreachable,
        quoted: SeqNumber,
    ) -> Result<(), DropReason> {
        let key = self.half_open.find(flow).ok_or(DropReason::IcmpUnmatched)?;
        let row = self.half_open.get(key).ok_or(DropReason::IcmpUnmatched)?;
        if !row.half_open.is_ended_by(error, quoted) {
            return Err(DropReason::IcmpIgnored);
        }
        self.forget_half_open(key);
        Ok(())
    }

    /// All to one address, which is gone or going.
    pub(super) fn forget_half_open_at(&mut self, local: IpAddr) {
        for key in self.half_open.keys_at(local) {
            self.forget_half_open(key);
        }
    }

    /// All of them.
    pub(super) fn forget_all_half_open(&mut self) {
        for key in self.half_open.keys(None) {
            self.forget_half_open(key);
        }
    }

    /// SYN with ACK again, or the end of an attempt.
    pub(super) fn handle_half_open_timeout(&mut self, now: Instant) {
        while let Some(key) = self.half_open.pop_due(now) {
            let Some(row) = self.half_open.get_mut(key) else { continue };
            let sends = row.half_open.on_timeout(now);
            let again = row.half_open.next_timeout(now);
            match sends {
                Some(sends) => {
                    self.half_open.arm(key, again);
                    if sends {
                        self.send_syn_ack(now, key);
                    }
                }
                None => self.forget_half_open(key),
            }
        }
    }

    /// RFC 9293 §3.5.2 and §3.10.7.1: a segment for no connection is answered with a reset.
    fn answer_with_reset(
        &mut self,
        now: Instant,
        segment: &Segment,
        payload_len: usize,
        local: IpAddr,
        sender: Sender,
    ) {
        let Some(reset) = segment::reset_for(segment, payload_len) else { return };
        if !self.limits.resets.take(now) {
            return self.drops.count(DropReason::TcpResetLimited);
        }
        self.send_segment(now, &reset, local, sender);
    }

    /// Sends a segment without data that no connection remembers.
    fn send_segment(&mut self, now: Instant, segment: &Segment, local: IpAddr, to: Sender) {
        let Some(frame) = self.pool.allocate() else { return self.drops.count(DropReason::NoFrame) };
        let mut frame = frame.into_tx();
        let room = self.link.header_room(local);
        let Some(bytes) = self.pool.tx_buffer(&mut frame).get_mut(room..) else {
            return self.pool.release_tx(frame);
        };
        let len = segment.emit(local, to.ip, 0, bytes);
        frame.set_len(room + len);
        let fields = self.tcp_config.ip_fields();
        self.send_answer(now, frame, local, to, protocol::TCP, fields);
    }
}
