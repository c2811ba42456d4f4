//! The neighbour cache: which link-layer address an address on our link has, and what waits to learn it.
//!
//! States are those of Neighbour Unreachability Detection (RFC 4861 §7.3.2), which Linux uses for ARP too:
//!
//! ```text
//!             lookup            answer              REACHABLE_TIME passes
//!   (none) ───────▶ Incomplete ───────▶ Reachable ────────────────────────▶ Stale
//!                       │                   ▲                                 │ lookup
//!            no answer  │                   │ answer, or upper layers confirm ▼
//!                       ▼                   ├───────────────────────────── Delay
//!                    Failed                 │                                 │ DELAY passes
//!                                           └───────────────────────────── Probe ──▶ (none)
//! ```
//!
//! Everything but Incomplete and Failed has an address that frames go to at once; only in Probe are questions
//! asked about it, and those go to the neighbour alone. A table of addresses can be filled by others only with
//! entries that are given up first (see [`Evidence`]).

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, Ipv4Addr},
};

use crate::{
    frame::{FramePool, TxFrame},
    time::{Duration, Instant},
    wire::MacAddr,
};

/// When the questions for an unknown neighbour are sent, counted from the first.
///
/// A lost question or answer should cost little, so the second comes soon: with 5 % loss each way, all five are
/// in vain once in 100 000 times. The later ones leave time for a neighbour that is just starting its link. More, or
/// closer together, and a host that is away costs the whole link broadcasts: RFC 1122 §2.3.2.1 advises one a
/// second, and this mean is not far from it.
const BROADCAST_SCHEDULE: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(400),
    Duration::from_millis(1_000),
    Duration::from_millis(2_000),
];

/// From the first question to giving up. Linux takes the same 3 s (3 × 1 s); a shorter time is too short
/// for a switch port that still learns its topology, a longer one keeps users waiting for "no route to host".
const RESOLUTION_TIMEOUT: Duration = Duration::from_millis(3_000);

/// How long a neighbour that did not answer counts as absent (RFC 1122 §2.3.2.1: no flooding). Shorter, and
/// each datagram for it starts new broadcasts; longer, and a host that comes up is not seen.
const FAILED_HOLD: Duration = Duration::from_secs(1);

/// How long an address is trusted after an answer or a confirmation (RFC 4861 §10: REACHABLE_TIME).
const REACHABLE_TIME: Duration = Duration::from_secs(30);

/// How long upper layers may take to confirm a stale address before we ask (RFC 4861 §10:
/// DELAY_FIRST_PROBE_TIME).
const DELAY: Duration = Duration::from_secs(5);

/// Questions to the neighbour alone before its address is given up, and the time between them (RFC 4861 §10:
/// MAX_UNICAST_SOLICIT, RETRANS_TIMER; RFC 1122 §2.3.2.1 asks for at least two).
const UNICAST_PROBES: u32 = 3;
const UNICAST_INTERVAL: Duration = Duration::from_secs(1);

/// How long a new address can't be replaced by another. When two stations answer, the first one wins, instead
/// of each frame going elsewhere (Linux: `locktime`).
const LOCK_TIME: Duration = Duration::from_secs(1);

/// Neighbours in the cache. A link with more active ones (Linux: `gc_thresh3`, the same number) would lose
/// entries that it still needs; many more only help somebody who floods us with requests.
const MAX_NEIGHBOURS: usize = 1024;

/// Neighbours that are asked for at once, so that a scan of the subnet does not become a storm of broadcasts.
/// Lower, and the connections of a busy client to a whole rack fail.
const MAX_INCOMPLETE: usize = 64;

/// Frames that wait for one neighbour: the first segments of as many connections through a gateway. With fewer,
/// a burst of connections at start waits for TCP's retransmission; each is a chunk of the UMEM.
const MAX_PENDING_PER_NEIGHBOUR: usize = 64;

/// Frames that wait for all neighbours: a megabyte of chunks, whoever is away.
const MAX_PENDING: usize = 256;

/// What the cache knows about a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Its link-layer address.
    Found(MacAddr),
    /// It is being asked for: [`Cache::park`] the frame.
    Pending,
    /// It did not answer, or too many others are being asked for.
    Failed,
}

/// A question that is due: who has `target`?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The address of ours that last had something to send there.
    pub source: IpAddr,
    /// The address that is asked for.
    pub target: IpAddr,
    /// Whom to ask; `None` is everybody.
    pub destination: Option<MacAddr>,
}

/// How we came to hear of a link-layer address: what decides how far it is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// A reply to us. It makes reachable whom we asked; of anybody else it is ignored.
    Reply,
    /// A request for our address. Its sender will get our answer, so it is remembered (RFC 826).
    Request,
    /// Something that everybody heard. It changes what we know, it adds nothing (RFC 826's merge).
    Overheard,
}

/// A neighbour that did not answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// Its address.
    pub neighbour: IpAddr,
    /// The frames that waited for it; whoever takes them releases them.
    pub frames: VecDeque<TxFrame>,
}

/// The neighbours of one link.
#[derive(Debug, Default)]
pub struct Cache {
    entries: BTreeMap<IpAddr, Entry>,
    /// The timer of each entry that has one.
    timers: BTreeSet<(Instant, IpAddr)>,
    /// Frames that wait in Incomplete entries.
    pending: usize,
    incomplete: usize,
    requests: VecDeque<Request>,
    ready: VecDeque<(TxFrame, MacAddr)>,
    unreachable: VecDeque<Unreachable>,
    /// The last look-up that found somebody, until an entry comes, goes or is another: the frames of a burst go one way.
    latest: Option<(Instant, IpAddr, IpAddr, MacAddr)>,
}

#[derive(Debug)]
struct Entry {
    state: State,
    timer: Option<Instant>,
    /// The address of ours that last wanted to send there, to ask in its name; unspecified if none has.
    source: IpAddr,
    /// When a frame was last sent there; [`Instant::ZERO`] for entries that only others wanted.
    used: Instant,
    /// When upper layers last had proof that frames arrive.
    confirmed: Instant,
    /// When the link-layer address last changed.
    changed: Instant,
}

#[derive(Debug)]
enum State {
    Incomplete { since: Instant, asked: usize, pending: VecDeque<TxFrame> },
    Reachable(MacAddr),
    Stale(MacAddr),
    Delay(MacAddr),
    Probe { mac: MacAddr, asked: u32 },
    Failed,
}

impl State {
    fn mac(&self) -> Option<MacAddr> {
        match *self {
            Self::Reachable(mac) | Self::Stale(mac) | Self::Delay(mac) | Self::Probe { mac, .. } => Some(mac),
            Self::Incomplete { .. } | Self::Failed => None,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Incomplete { .. } => "incomplete",
            Self::Reachable(_) => "reachable",
            Self::Stale(_) => "stale",
            Self::Delay(_) => "delay",
            Self::Probe { .. } => "probe",
            Self::Failed => "failed",
        }
    }
}

impl Cache {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    /// The link-layer address to send a frame to, from the address `source` of ours. Asking for one that is not known starts
    /// to find it.
    pub fn lookup(&mut self, now: Instant, source: IpAddr, ip: IpAddr) -> Lookup {
        if let Some((at, from, to, mac)) = self.latest
            && (at, from, to) == (now, source, ip)
        {
            return Lookup::Found(mac);
        }
        let found = self.look_up(now, source, ip);
        self.latest = if let Lookup::Found(mac) = found { Some((now, source, ip, mac)) } else { None };
        found
    }

    fn look_up(&mut self, now: Instant, source: IpAddr, ip: IpAddr) -> Lookup {
        let Some(entry) = self.entries.get_mut(&ip) else { return self.start_resolution(now, source, ip) };
        (entry.used, entry.source) = (now, source);
        match entry.state {
            State::Reachable(mac) | State::Delay(mac) | State::Probe { mac, .. } => Lookup::Found(mac),
            State::Stale(mac) => {
                entry.state = State::Delay(mac);
                self.set_timer(ip, Some(now + DELAY));
                Lookup::Found(mac)
            }
            State::Incomplete { .. } => Lookup::Pending,
            State::Failed => Lookup::Failed,
        }
    }

    /// What is known about a neighbour, without asking for it: for `-v` and for tools.
    pub fn peek(&self, ip: IpAddr) -> Option<MacAddr> {
        self.entries.get(&ip)?.state.mac()
    }

    /// All that is known, for tools: each with its link-layer address if there is one, and the state as `ip neigh` names it.
    pub fn entries(&self) -> impl Iterator<Item = (IpAddr, Option<MacAddr>, &'static str)> {
        self.entries.iter().map(|(&ip, entry)| (ip, entry.state.mac(), entry.state.name()))
    }

    /// Keeps a frame until its neighbour, for which [`lookup`](Self::lookup) just said [`Lookup::Pending`], is
    /// found.
    ///
    /// # Errors
    /// A frame that there is no room for. That is an older one for the same neighbour, if any waits: the latest
    /// is the one to keep (RFC 1122 §2.3.2.2).
    pub fn park(&mut self, ip: IpAddr, frame: TxFrame) -> Result<(), TxFrame> {
        let total = self.pending;
        let Some(Entry { state: State::Incomplete { pending, .. }, .. }) = self.entries.get_mut(&ip) else {
            return Err(frame);
        };
        let displaced = if pending.len() >= MAX_PENDING_PER_NEIGHBOUR || total >= MAX_PENDING {
            let Some(oldest) = pending.pop_front() else { return Err(frame) };
            Some(oldest)
        } else {
            self.pending += 1;
            None
        };
        pending.push_back(frame);
        displaced.map_or(Ok(()), Err)
    }

    /// Takes in that `ip` has the link-layer address `mac`. Returns whether that was of interest.
    ///
    /// The caller has checked that `ip` can be a neighbour's: on our link, one host's, not our own.
    pub fn learn(&mut self, now: Instant, ip: IpAddr, mac: MacAddr, evidence: Evidence) -> bool {
        if !mac.is_unicast() {
            return false;
        }
        let Some(entry) = self.entries.get_mut(&ip) else {
            return evidence == Evidence::Request && self.insert(ip, Entry::stale(now, mac));
        };
        let known = entry.state.mac();
        if known.is_some_and(|known| known != mac) && now - entry.changed < LOCK_TIME {
            return false;
        }
        let asked = matches!(entry.state, State::Incomplete { .. } | State::Probe { .. } | State::Failed);
        if asked && evidence == Evidence::Reply {
            self.set_reachable(now, ip, mac);
        } else if known != Some(mac) {
            // An address that nobody vouched for is used, but checked on first use.
            self.set_state(now, ip, State::Stale(mac), None);
        }
        true
    }

    /// Upper layers have proof that frames to this neighbour arrive: an ACK for new data, an answer to a query
    /// (RFC 4861 §7.3.1; RFC 1122 §2.3.2.1 way 4). Cheap enough to be called for each.
    pub fn confirm(&mut self, now: Instant, ip: IpAddr) {
        let Some(entry) = self.entries.get_mut(&ip) else { return };
        entry.confirmed = now;
        // A reachable entry looks at `confirmed` when its timer fires; the others leave their state now.
        if let State::Stale(mac) | State::Delay(mac) | State::Probe { mac, .. } = entry.state {
            self.set_reachable(now, ip, mac);
        }
    }

    /// Upper layers get no answers by way of this neighbour: it is asked whether it is still there, and forgotten if it
    /// does not answer (RFC 1122 §3.3.1.4: negative advice).
    pub fn suspect(&mut self, now: Instant, ip: IpAddr) {
        let Some(entry) = self.entries.get(&ip) else { return };
        if let State::Reachable(mac) | State::Stale(mac) | State::Delay(mac) = entry.state {
            self.ask_neighbour(now, ip, mac, 0);
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(at, ip)) = self.timers.first() {
            if at > now {
                break;
            }
            self.set_timer(ip, None);
            self.expire(now, ip);
        }
    }

    /// The next question to send.
    pub fn poll_transmit(&mut self) -> Option<Request> {
        self.requests.pop_front()
    }

    /// Whether there is something to send, or to tell.
    #[inline]
    pub fn has_errands(&self) -> bool {
        !(self.requests.is_empty() && self.ready.is_empty() && self.unreachable.is_empty())
    }

    /// The next frame whose neighbour was found.
    pub fn poll_ready(&mut self) -> Option<(TxFrame, MacAddr)> {
        self.ready.pop_front()
    }

    /// The next neighbour that did not answer.
    pub fn poll_unreachable(&mut self) -> Option<Unreachable> {
        self.unreachable.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) has to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|&(at, _)| at)
    }

    /// Neighbours in the cache.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no neighbour is known or asked for.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets everything and gives back all frames: the link goes away.
    pub fn clear<P: FramePool>(&mut self, pool: &mut P) {
        let Self { entries, ready, unreachable, .. } = std::mem::take(self);
        let waiting = entries.into_values().filter_map(|entry| match entry.state {
            State::Incomplete { pending, .. } => Some(pending),
            _ => None,
        });
        let failed = unreachable.into_iter().map(|unreachable| unreachable.frames);
        let found = ready.into_iter().map(|(frame, _)| frame);
        for frame in waiting.chain(failed).flatten().chain(found) {
            pool.release_tx(frame);
        }
    }

    fn start_resolution(&mut self, now: Instant, source: IpAddr, ip: IpAddr) -> Lookup {
        if self.incomplete >= MAX_INCOMPLETE {
            return Lookup::Failed;
        }
        let state = State::Incomplete { since: now, asked: 0, pending: VecDeque::new() };
        let never = Instant::ZERO;
        let entry = Entry { state, timer: None, source, used: now, confirmed: never, changed: never };
        if !self.insert(ip, entry) {
            return Lookup::Failed;
        }
        self.incomplete += 1;
        self.ask_everybody(now, ip);
        Lookup::Pending
    }

    /// Puts in an entry, in place of the one that was not used for the longest time if there is no room.
    fn insert(&mut self, ip: IpAddr, entry: Entry) -> bool {
        if self.entries.len() >= MAX_NEIGHBOURS {
            let settled =
                self.entries.iter().filter(|(_, entry)| !matches!(entry.state, State::Incomplete { .. }));
            let Some(oldest) = settled.min_by_key(|(_, entry)| entry.used).map(|(&ip, _)| ip) else {
                return false;
            };
            self.remove(oldest);
        }
        self.latest = None;
        self.entries.insert(ip, entry);
        true
    }

    fn remove(&mut self, ip: IpAddr) {
        self.latest = None;
        self.set_timer(ip, None);
        self.entries.remove(&ip);
    }

    fn set_timer(&mut self, ip: IpAddr, timer: Option<Instant>) {
        let Some(entry) = self.entries.get_mut(&ip) else { return };
        if let Some(at) = entry.timer {
            self.timers.remove(&(at, ip));
        }
        entry.timer = timer;
        if let Some(at) = timer {
            self.timers.insert((at, ip));
        }
    }

    fn set_reachable(&mut self, now: Instant, ip: IpAddr, mac: MacAddr) {
        self.set_state(now, ip, State::Reachable(mac), Some(now + REACHABLE_TIME));
    }

    /// Moves to a state that has an address, or to Failed; frames that waited go on their way.
    fn set_state(&mut self, now: Instant, ip: IpAddr, state: State, timer: Option<Instant>) {
        self.latest = None;
        let Some(entry) = self.entries.get_mut(&ip) else { return };
        let mac = state.mac();
        if mac != entry.state.mac() {
            entry.changed = now;
        }
        if let State::Incomplete { pending, .. } = std::mem::replace(&mut entry.state, state) {
            self.incomplete -= 1;
            self.pending -= pending.len();
            match mac {
                Some(mac) => self.ready.extend(pending.into_iter().map(|frame| (frame, mac))),
                None => self.unreachable.push_back(Unreachable { neighbour: ip, frames: pending }),
            }
        }
        self.set_timer(ip, timer);
    }

    /// The timer of an entry fired.
    fn expire(&mut self, now: Instant, ip: IpAddr) {
        let Some(entry) = self.entries.get_mut(&ip) else { return };
        match entry.state {
            State::Incomplete { .. } => self.ask_everybody(now, ip),
            State::Reachable(mac) => {
                let trusted_until = entry.confirmed + REACHABLE_TIME;
                if entry.confirmed > Instant::ZERO && trusted_until > now {
                    self.set_timer(ip, Some(trusted_until));
                } else {
                    self.set_state(now, ip, State::Stale(mac), None);
                }
            }
            State::Delay(mac) => self.ask_neighbour(now, ip, mac, 0),
            State::Probe { mac, asked } => self.ask_neighbour(now, ip, mac, asked),
            State::Failed => self.remove(ip),
            State::Stale(_) => {}
        }
    }

    fn ask_everybody(&mut self, now: Instant, ip: IpAddr) {
        let Some(Entry { state: State::Incomplete { since, asked, .. }, source, .. }) =
            self.entries.get_mut(&ip)
        else {
            return;
        };
        let source = *source;
        if *asked >= BROADCAST_SCHEDULE.len() {
            return self.set_state(now, ip, State::Failed, Some(now + FAILED_HOLD));
        }
        *asked += 1;
        let next = *since + BROADCAST_SCHEDULE.get(*asked).copied().unwrap_or(RESOLUTION_TIMEOUT);
        self.requests.push_back(Request { source, target: ip, destination: None });
        self.set_timer(ip, Some(next));
    }

    fn ask_neighbour(&mut self, now: Instant, ip: IpAddr, mac: MacAddr, asked: u32) {
        if asked >= UNICAST_PROBES {
            // Whoever still wants it asks everybody (RFC 1122 §2.3.2.1: the entry is deleted).
            return self.remove(ip);
        }
        let Some(&Entry { source, .. }) = self.entries.get(&ip) else { return };
        self.requests.push_back(Request { source, target: ip, destination: Some(mac) });
        self.set_state(now, ip, State::Probe { mac, asked: asked + 1 }, Some(now + UNICAST_INTERVAL));
    }
}

impl Entry {
    fn stale(now: Instant, mac: MacAddr) -> Self {
        let (never, source) = (Instant::ZERO, Ipv4Addr::UNSPECIFIED.into());
        Self { state: State::Stale(mac), timer: None, source, used: never, confirmed: never, changed: now }
    }
}

#[cfg(test)]
mod tests;
