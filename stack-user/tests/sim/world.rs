//! Everything that happens, in order: an event queue on virtual time, the hosts, and the network between them.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    net::{IpAddr, SocketAddr},
};

use stack_user::{
    rng::Rng,
    stack::{ConnectError, Event, TcpId},
    tcp::{Info, View},
    time::{Duration, Instant},
};

use crate::{
    app::{End, Role, Side},
    draw::{Digest, mix},
    host::{Host, PORT},
    network::{Arrivals, Hop, Network},
};

/// A connection whose queues hold less is checked after every step; of others, one step in [`CHECK_ONE_IN`].
const CHECK_ALWAYS_BELOW: usize = 32 << 10;
const CHECK_ONE_IN: u64 = 16;

/// How often somebody looks whether all connections get on.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Steps of one host without any time passing, beyond which it runs in circles.
const MAX_STEPS_AT_ONCE: u32 = 100_000;

/// A connection that a scenario asks for.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) client: usize,
    pub(crate) server: usize,
    pub(crate) start: Instant,
    pub(crate) roles: [Role; 2],
}

/// A connection: what was asked for, and what both applications know of it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) plan: Plan,
    /// The client's side and the server's.
    pub(crate) sides: [Option<Side>; 2],
    pub(crate) has_started: bool,
    /// Is over, in whatever way.
    pub(crate) is_judged: bool,
    /// How often the hosts had started when it began.
    pub(crate) lives: [u32; 2],
    key: u64,
}

/// Something that happens to the world at some time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    /// A link carries nothing any more, or carries again.
    Link { link: usize, is_up: bool },
    /// A link carries longer or shorter datagrams from now on.
    Mtu { link: usize, mtu: u16 },
    /// A host does nothing for some time.
    Stall { host: usize, time: Duration },
    /// A host's clock jumps ahead.
    Jump { host: usize, time: Duration },
    /// A host forgets everything and comes back.
    Restart { host: usize },
}

enum What {
    Frame(Hop, Vec<u8>),
    Wake(usize),
    App(usize, usize),
    Start(usize),
    Change(Change),
}

impl What {
    fn name(&self) -> String {
        match self {
            Self::Frame(hop, _) => format!("a frame at {hop:?}"),
            Self::Wake(host) => format!("host {host} wakes"),
            Self::App(session, side) => format!("the application of session {session}, side {side}, wakes"),
            Self::Start(session) => format!("session {session} starts"),
            Self::Change(change) => format!("{change:?}"),
        }
    }
}

struct Entry {
    at: Instant,
    /// What was put in earlier comes out earlier.
    number: u64,
    what: What,
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}

/// The world.
pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) hosts: Vec<Host>,
    pub(crate) network: Network,
    pub(crate) sessions: Vec<Session>,
    pub(crate) digest: Digest,
    pub(crate) is_verbose: bool,
    /// Frames that arrived at hosts.
    pub(crate) frames: u64,
    queue: BinaryHeap<Reverse<Entry>>,
    entries: u64,
    /// When each host is going to be looked at.
    wakes: Vec<Option<Instant>>,
    /// Whose connections are whose: by host and row, the session and its side.
    owners: Vec<Vec<Option<(usize, usize)>>>,
    /// Sessions by the client's address.
    by_client: BTreeMap<SocketAddr, usize>,
    rng: Rng,
    checks: u64,
    arrivals: Arrivals,
}

impl World {
    pub(crate) fn new(hosts: Vec<Host>, network: Network, plans: Vec<Plan>, mut rng: Rng) -> Self {
        let mut world = Self {
            now: Instant::ZERO,
            wakes: vec![None; hosts.len()],
            owners: hosts.iter().map(|_| Vec::new()).collect(),
            hosts,
            network,
            sessions: Vec::new(),
            digest: Digest::new(),
            is_verbose: false,
            frames: 0,
            queue: BinaryHeap::new(),
            entries: 0,
            by_client: BTreeMap::new(),
            rng: rng.fork(),
            checks: 0,
            arrivals: Vec::new(),
        };
        for (number, plan) in plans.into_iter().enumerate() {
            world.put(plan.start, What::Start(number));
            let key = rng.next_u64();
            let sides = [None, None];
            world.sessions.push(Session {
                plan,
                sides,
                has_started: false,
                is_judged: false,
                lives: [0; 2],
                key,
            });
        }
        for host in 0..world.hosts.len() {
            world.put(Instant::ZERO, What::Wake(host));
            world.wakes[host] = Some(Instant::ZERO);
        }
        world
    }

    /// Plans a change.
    pub(crate) fn plan(&mut self, at: Instant, change: Change) {
        self.put(at, What::Change(change));
    }

    fn put(&mut self, at: Instant, what: What) {
        let number = self.entries;
        self.entries += 1;
        self.queue.push(Reverse(Entry { at, number, what }));
    }

    /// Lets everything happen until `end`, or until `stop` says so; it is asked every few seconds.
    pub(crate) fn run(
        &mut self,
        end: Instant,
        mut stop: impl FnMut(&mut Self) -> Result<bool, String>,
    ) -> Result<(), String> {
        let mut look_at = self.now + LOOK_EVERY;
        let mut steps = 0;
        while let Some(Reverse(entry)) = self.queue.peek() {
            let at = entry.at.max(self.now);
            if at >= look_at || at > end {
                self.now = look_at.min(end).max(self.now);
                look_at = self.now + LOOK_EVERY;
                if stop(self)? || at > end {
                    return Ok(());
                }
                continue;
            }
            steps = if at == self.now { steps + 1 } else { 0 };
            if steps > MAX_STEPS_AT_ONCE {
                let due: Vec<_> = self.hosts.iter().map(|host| host.stack.poll_timeout()).collect();
                let what = entry.what.name();
                return Err(format!("time stands still at {at}: {what} again and again; timers {due:?}"));
            }
            self.now = at;
            if let Some(Reverse(entry)) = self.queue.pop() {
                self.happen(entry.what)?;
            }
        }
        self.now = end;
        stop(self).map(drop)
    }

    fn happen(&mut self, what: What) -> Result<(), String> {
        match what {
            What::Frame(Hop::Host(host), frame) => {
                self.frames += 1;
                self.digest.add(self.now.as_nanos());
                self.digest.add_bytes(&frame[..frame.len().min(66)]);
                self.hosts[host].receive(self.now, &frame);
                self.run_host_if_due(host)
            }
            What::Frame(hop, frame) => {
                self.network.forward(self.now, hop, frame, &mut self.arrivals);
                self.schedule_arrivals();
                Ok(())
            }
            What::Wake(host) => {
                // An older entry for a host that was looked at earlier.
                if self.wakes[host] != Some(self.now) {
                    return Ok(());
                }
                self.wakes[host] = None;
                self.run_host(host)
            }
            What::App(session, side) => self.app(session, side),
            What::Start(session) => self.connect(session),
            What::Change(change) => self.change(change),
        }
    }

    fn schedule_arrivals(&mut self) {
        let mut arrivals = std::mem::take(&mut self.arrivals);
        for (at, hop, frame) in arrivals.drain(..) {
            self.put(at, What::Frame(hop, frame));
        }
        self.arrivals = arrivals;
    }

    fn change(&mut self, change: Change) -> Result<(), String> {
        if self.is_verbose {
            eprintln!("{} {change:?}", self.now);
        }
        match change {
            Change::Link { link, is_up } => self.network.links[link].is_up = is_up,
            Change::Mtu { link, mtu } => self.network.links[link].quality.mtu = mtu,
            Change::Stall { host, time } => {
                self.hosts[host].stalled_until = Some(self.now + time);
                self.hosts[host].referee.interrupt(self.now + time);
                self.wake(host);
            }
            Change::Jump { host, time } => {
                self.hosts[host].make.clock.jumped += time;
                self.hosts[host].referee.interrupt(self.now);
                return self.run_host(host);
            }
            Change::Restart { host } => {
                self.forget(host);
                self.hosts[host].restart(self.now);
                return self.run_host(host);
            }
        }
        Ok(())
    }

    /// The applications of a host are gone.
    fn forget(&mut self, host: usize) {
        self.owners[host].clear();
        for session in &mut self.sessions {
            for side in session.sides.iter_mut().flatten().filter(|side| side.host == host) {
                side.end.get_or_insert(End::HostGone);
            }
        }
    }

    /// A frame came: the host looks at it now, or when its NIC tells.
    fn run_host_if_due(&mut self, host: usize) -> Result<(), String> {
        match self.hosts[host].next_wake(self.now) {
            Some(at) if at <= self.now => self.run_host(host),
            _ => {
                self.wake(host);
                Ok(())
            }
        }
    }

    /// Makes sure that a host is looked at when it has something to do. If it was to be looked at earlier, it is, and says
    /// again when.
    fn wake(&mut self, host: usize) {
        let Some(at) = self.hosts[host].next_wake(self.now).map(|at| at.max(self.now)) else { return };
        if self.wakes[host].is_none_or(|planned| at < planned) {
            self.wakes[host] = Some(at);
            self.put(at, What::Wake(host));
        }
    }

    /// A host does all that it can do now, and so do its applications.
    fn run_host(&mut self, host: usize) -> Result<(), String> {
        let mut frames = Vec::new();
        loop {
            self.hosts[host].run(self.now, &mut frames);
            for frame in frames.drain(..) {
                self.network.send(self.now, host, frame, &mut self.arrivals);
            }
            self.schedule_arrivals();
            if self.hosts[host].is_stalled(self.now) {
                break;
            }
            let mut any = false;
            while let Some(event) = self.hosts[host].poll_event() {
                any = true;
                self.hear(host, event)?;
            }
            if !any {
                break;
            }
        }
        self.check(host)?;
        self.wake(host);
        self.hosts[host].referee.verdict().map_err(|what| format!("host {host}: {what}"))
    }

    fn hear(&mut self, host: usize, event: Event) -> Result<(), String> {
        match event {
            Event::Tcp { id, .. } => {
                let owner = self.owners[host].get(id.index()).copied().flatten();
                if let Some((session, side)) = owner
                    && self.sessions[session].sides[side].as_ref().is_some_and(|side| side.id == id)
                {
                    self.work(session, side)?;
                }
            }
            Event::Listener { .. } => self.accept(host)?,
            // Somebody may have waited for its address.
            Event::Changed if self.hosts[host].stack.address().is_some() => {
                for number in 0..self.sessions.len() {
                    let session = &self.sessions[number];
                    if session.has_started && session.sides[0].is_none() && session.plan.client == host {
                        self.connect(number)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn connect(&mut self, number: usize) -> Result<(), String> {
        let session = &mut self.sessions[number];
        session.has_started = true;
        let Plan { client, server, .. } = session.plan;
        session.lives = [self.hosts[client].life, self.hosts[server].life];
        let remote = SocketAddr::new(IpAddr::V4(self.hosts[server].make.address), PORT);
        let host = &mut self.hosts[client];
        let (id, address) = match host.stack.tcp_connect(host.make.clock.at(self.now), remote) {
            Ok(opened) => opened,
            // It is tried again as soon as there is one.
            Err(ConnectError::NoAddress) => return Ok(()),
            Err(error) => return Err(format!("session {number}: {error}")),
        };
        self.by_client.insert(address, number);
        self.open_side(number, 0, client, id)?;
        self.run_host(client)
    }

    fn accept(&mut self, host: usize) -> Result<(), String> {
        let Some(listener) = self.hosts[host].listener else { return Ok(()) };
        loop {
            let local = self.hosts[host].local(self.now);
            let Some((id, remote)) = self.hosts[host].stack.tcp_accept(local, listener) else {
                return Ok(());
            };
            let Some(&number) = self.by_client.get(&remote) else {
                return Err(format!("host {host} accepted a connection from {remote}, which nobody opened"));
            };
            if self.sessions[number].plan.server != host {
                return Err(format!("session {number}: host {host} accepted it, whom it was not for"));
            }
            if let Some(side) = &self.sessions[number].sides[1]
                && side.end != Some(End::HostGone)
            {
                return Err(format!("session {number}: the server accepted it twice"));
            }
            self.open_side(number, 1, host, id)?;
        }
    }

    fn open_side(&mut self, number: usize, side: usize, host: usize, id: TcpId) -> Result<(), String> {
        let session = &mut self.sessions[number];
        let keys = [mix(session.key), mix(session.key ^ 1)];
        let role = session.plan.roles[side].clone();
        let keys = (keys[side], keys[1 - side]);
        session.sides[side] = Some(Side::new(self.now, host, id, role, keys, self.rng.fork()));
        let owners = &mut self.owners[host];
        if owners.len() <= id.index() {
            owners.resize(id.index() + 1, None);
        }
        owners[id.index()] = Some((number, side));
        self.work(number, side)
    }

    /// An application's own timer.
    fn app(&mut self, session: usize, side: usize) -> Result<(), String> {
        let Some(app) = &mut self.sessions[session].sides[side] else { return Ok(()) };
        let host = app.host;
        // An older entry for a side that was woken earlier.
        if app.end.is_some() || app.alarm != Some(self.now) {
            return Ok(());
        }
        app.alarm = None;
        if let Some(until) = self.hosts[host].stalled_until.filter(|&until| until > self.now) {
            app.alarm = Some(until);
            self.put(until, What::App(session, side));
            return Ok(());
        }
        self.work(session, side)?;
        self.run_host(host)
    }

    fn work(&mut self, session: usize, side: usize) -> Result<(), String> {
        let now = self.now;
        let Some(app) = self.sessions[session].sides[side].as_mut() else { return Ok(()) };
        let host = &mut self.hosts[app.host];
        let before = (app.read, app.written);
        app.work(now, host.make.clock.at(now), &mut host.stack)
            .map_err(|error| format!("session {session}, side {side}: {error}"))?;
        if (app.read, app.written) != before {
            self.digest.add(now.as_nanos() ^ (app.read << 32) ^ app.written);
        }
        let until = app.sleeps_until.map(|until| until.max(now));
        if let Some(at) = until.filter(|&at| app.alarm.is_none_or(|planned| at < planned)) {
            app.alarm = Some(at);
            self.put(at, What::App(session, side));
        }
        Ok(())
    }

    /// The connections of a host must not contradict themselves, nor leave a peer waiting for room that there is.
    fn check(&mut self, host: usize) -> Result<(), String> {
        self.checks += 1;
        for (row, owner) in self.owners[host].iter().enumerate() {
            let Some((session, side)) = *owner else { continue };
            let Some(app) = &self.sessions[session].sides[side] else { continue };
            if app.end.is_some() || app.id.index() != row {
                continue;
            }
            if let Some(connection) = self.hosts[host].stack.tcp(app.id) {
                let info = connection.info();
                if info.unacknowledged + info.readable < CHECK_ALWAYS_BELOW
                    || self.checks.is_multiple_of(CHECK_ONE_IN)
                {
                    connection.check_invariants();
                }
                if offers_too_much(&info) {
                    let (offered, buffer) = (info.receive_window, info.receive_buffer);
                    return Err(format!(
                        "session {session}, side {side}: offers {offered} of {buffer} bytes"
                    ));
                }
                if self.hosts[host].has_said_all() && hides_room(&info) {
                    return Err(format!(
                        "session {session}, side {side}: the peer knows of {} bytes of room only",
                        info.receive_window
                    ));
                }
            }
        }
        Ok(())
    }

    /// How everybody stands, for whoever replays a seed.
    pub(crate) fn tell(&self) {
        for (number, session) in self.sessions.iter().enumerate() {
            for side in [0, 1] {
                let info = self.connection(number, side).map(|connection| connection.info());
                eprintln!("session {number}, side {side}: {:#?}\n{info:#?}", session.sides[side]);
            }
        }
        for (number, host) in self.hosts.iter().enumerate() {
            eprintln!("host {number}: {:?}, {} overruns", host.stack.drops(), host.overruns);
        }
    }

    /// A host looks whether it has something to do.
    pub(crate) fn poke(&mut self, host: usize) -> Result<(), String> {
        self.run_host(host)
    }

    /// The connection of a side, if its stack still has it.
    pub(crate) fn connection(&self, session: usize, side: usize) -> Option<View<'_>> {
        let side = self.sessions[session].sides[side].as_ref()?;
        if side.end == Some(End::HostGone) {
            return None;
        }
        self.hosts[side.host].stack.tcp(side.id)
    }
}

/// Whether the window is too small for a segment, as far as the peer knows, and half of the buffer is free besides (RFC
/// 9293 §3.8.6.2.2).
fn hides_room(info: &Info) -> bool {
    let free = info.receive_buffer.saturating_sub(info.readable);
    let hidden = free.saturating_sub(info.receive_window);
    let seems_full = info.receive_window < info.receive_mss.min(info.receive_buffer / 2);
    info.state.may_receive() && seems_full && 2 * hidden >= info.receive_buffer
}

/// Whether the peer may send more than there is room for, by more than what the window is rounded by.
fn offers_too_much(info: &Info) -> bool {
    let unit = 1 << info.window_shifts.1;
    info.state.may_receive() && info.receive_window + info.readable >= info.receive_buffer + unit
}
