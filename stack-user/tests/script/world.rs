//! Two connections and a faulty network, on virtual time.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
};

use crate::rx_frame;
use stack_user::{
    device::Umem,
    frame::{FramePool, TxFrame},
    rng::Rng,
    tcp::{Config, Connection, Event, Secrets, Segment, SeqNumber, options::Options},
    time::{Duration, Instant},
};

/// What happens to segments on their way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) loss: f64,
    pub(crate) reorder: f64,
    pub(crate) duplicate: f64,
    pub(crate) corrupt: f64,
}

/// A bottleneck, the same in both directions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    /// Bytes per second.
    pub(crate) rate: u64,
    /// Bytes that may wait.
    pub(crate) queue: u64,
}

/// One end: a connection, its pool, its NIC, and what its application sent and got.
pub(crate) struct End {
    pub(crate) connection: Connection,
    pub(crate) pool: Umem,
    /// Frames that the NIC has, with the time when it is done with them.
    on_nic: Vec<(Instant, TxFrame, Option<u64>)>,
    pub(crate) to_send: Vec<u8>,
    sent: usize,
    shut: bool,
    pub(crate) received: Vec<u8>,
    pub(crate) events: Vec<Event>,
}

/// Two connections and the network between them, on virtual time.
pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) ends: [End; 2],
    rng: Rng,
    faults: Faults,
    pub(crate) delay: Duration,
    pub(crate) link: Option<Link>,
    /// When the link is done with what it was given, for each direction.
    busy: [Instant; 2],
    /// Segments on their way, by when they arrive and in which order they were sent: to whom, and their bytes.
    on_wire: BTreeMap<(Instant, u64), (usize, Vec<u8>)>,
    pub(crate) sequence: u64,
    /// The applications don't close when they have written all.
    pub(crate) stays_open: bool,
    /// Changes the options of SYNs, as old firewalls do.
    pub(crate) middlebox: fn(&mut Options),
}

pub(crate) const HEADER_ROOM: usize = 34;
const CHUNKS: u32 = 1024;

pub(crate) fn address(end: usize) -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, 1 + end as u8), 4000 + end as u16).into()
}

impl World {
    /// Two ends that open at the same time, and will send `len` bytes each.
    pub(crate) fn new(seed: u64, faults: Faults, len: usize, config: impl Fn(usize) -> Config) -> Self {
        Self::with_chunks(CHUNKS, seed, faults, len, config)
    }

    /// As `new`, with pools of that size.
    pub(crate) fn with_chunks(
        chunks: u32,
        seed: u64,
        faults: Faults,
        len: usize,
        config: impl Fn(usize) -> Config,
    ) -> Self {
        let mut rng = Rng::from_seed(seed);
        let delay = Duration::from_micros(100 + rng.below(20_000));
        let ends = [0, 1].map(|end| {
            let secrets = Secrets { isn: SeqNumber(rng.next_u32()), timestamp_offset: rng.next_u32() };
            let config = Config { header_room: HEADER_ROOM, ..config(end) };
            let mut to_send = vec![0; len];
            rng.fill(&mut to_send);
            End {
                connection: Connection::connect(
                    Instant::ZERO,
                    config,
                    address(end),
                    address(1 - end),
                    secrets,
                ),
                pool: Umem::on_heap(chunks).expect("memory"),
                on_nic: Vec::new(),
                to_send,
                sent: 0,
                shut: false,
                received: Vec::new(),
                events: Vec::new(),
            }
        });
        Self {
            now: Instant::ZERO,
            ends,
            rng,
            faults,
            delay,
            link: None,
            busy: [Instant::ZERO; 2],
            on_wire: BTreeMap::new(),
            sequence: 0,
            stays_open: false,
            middlebox: |_| {},
        }
    }

    /// Runs until nothing is left to happen, or until `limit`.
    pub(crate) fn run(&mut self, limit: Duration) {
        let end = self.now + limit;
        loop {
            for index in [0, 1] {
                self.application(index);
                self.transmit(index);
                self.ends[index].connection.check_invariants();
            }
            let Some(next) = self.next_time().filter(|&next| next <= end) else { return };
            self.now = self.now.max(next);
            self.deliver();
            for end in &mut self.ends {
                end.complete(self.now);
                end.connection.handle_timeout(self.now, &mut end.pool);
                end.connection.check_invariants();
            }
        }
    }

    fn next_time(&self) -> Option<Instant> {
        let wire = self.on_wire.keys().map(|&(at, _)| at).take(1);
        let nics = self.ends.iter().flat_map(|end| end.on_nic.iter().map(|&(at, ..)| at));
        let timers = self.ends.iter().filter_map(|end| end.connection.poll_timeout());
        wire.chain(nics).chain(timers).min()
    }

    /// The applications write and read in pieces of any size, and close when they have written all.
    fn application(&mut self, index: usize) {
        let end = &mut self.ends[index];
        while let Some(event) = end.connection.poll_event() {
            end.events.push(event);
        }
        let mut buffer = [0; 8192];
        let size = 1 + self.rng.below(buffer.len() as u64) as usize;
        while let Ok(n) = end.connection.read(self.now, &mut end.pool, &mut buffer[..size]) {
            if n == 0 {
                break;
            }
            end.received.extend_from_slice(&buffer[..n]);
        }
        while end.sent < end.to_send.len() {
            let size = 1 + self.rng.below(10_000) as usize;
            let to = (end.sent + size).min(end.to_send.len());
            match end.connection.write(self.now, &mut end.pool, &end.to_send[end.sent..to]) {
                Ok(n) => end.sent += n,
                Err(_) => break,
            }
        }
        if !self.stays_open
            && end.sent == end.to_send.len()
            && !end.shut
            && end.connection.state().is_synchronized()
        {
            end.shut = true;
            end.connection.shutdown_write(self.now);
        }
    }

    fn transmit(&mut self, index: usize) {
        loop {
            let frames = self.next_train(index);
            if frames.is_empty() {
                return;
            }
            for (frame, retained) in frames {
                let bytes = self.ends[index].pool.tx_gather(&frame)[HEADER_ROOM..].to_vec();
                let done = self.now + Duration::from_micros(self.rng.below(3_000));
                self.ends[index].on_nic.push((done, frame, retained));
                self.put_on_wire(1 - index, bytes);
            }
        }
    }

    /// The next segment, and what may follow it: some of it, as where the ring has little room.
    fn next_train(&mut self, index: usize) -> Vec<(TxFrame, Option<u64>)> {
        let End { connection, pool, .. } = &mut self.ends[index];
        let Some(sent) = connection.poll_transmit(self.now, pool) else { return Vec::new() };
        let may_lead = connection.may_lead(&sent);
        let headers = pool.tx_gather(&sent.frame);
        let headers = headers.get(..connection.headers_len()).unwrap_or_default().to_vec();
        let mut frames = vec![(sent.frame, sent.retained)];
        if let Some(start) = sent.retained.filter(|_| may_lead) {
            let room = self.rng.below(32) as usize;
            connection.transmit_followers(self.now, pool, start, &headers, room, |frame, retained| {
                frames.push((frame, Some(retained)));
            });
        }
        frames
    }

    fn put_on_wire(&mut self, to: usize, mut bytes: Vec<u8>) {
        self.rewrite_syn(to, &mut bytes);
        let rng = &mut self.rng;
        if rng.chance(self.faults.loss) {
            return;
        }
        let Some(leaves) = self.pass_link(to, bytes.len()) else { return };
        let rng = &mut self.rng;
        if rng.chance(self.faults.corrupt) {
            let at = rng.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << rng.below(8);
        }
        let copies = if rng.chance(self.faults.duplicate) { 2 } else { 1 };
        for _ in 0..copies {
            let late = if self.rng.chance(self.faults.reorder) { self.rng.below(5_000) } else { 0 };
            self.sequence += 1;
            let at = leaves + self.delay + Duration::from_micros(late);
            self.on_wire.insert((at, self.sequence), (to, bytes.clone()));
        }
    }

    /// When a segment of that payload and header has left the link, if its queue has room.
    fn pass_link(&mut self, to: usize, len: usize) -> Option<Instant> {
        let Some(link) = self.link else { return Some(self.now) };
        let busy = &mut self.busy[to];
        let waiting = busy.since(self.now).as_micros() as u64 * link.rate / 1_000_000;
        if waiting > link.queue {
            return None;
        }
        let micros = (len as u64 + HEADER_ROOM as u64) * 1_000_000 / link.rate;
        *busy = self.now.max(*busy) + Duration::from_micros(micros);
        Some(*busy)
    }

    fn rewrite_syn(&self, to: usize, bytes: &mut Vec<u8>) {
        let (source, destination) = (address(1 - to).ip(), address(to).ip());
        let parsed = Segment::parse(source, destination, bytes);
        if let Some((mut segment, _)) = parsed.ok().filter(|(segment, _)| segment.syn()) {
            (self.middlebox)(&mut segment.options);
            bytes.resize(segment.header_len(), 0);
            segment.emit(source, destination, 0, bytes);
        }
    }

    fn deliver(&mut self) {
        let now = self.now;
        while let Some(entry) = self.on_wire.first_entry().filter(|entry| entry.key().0 <= now) {
            let (to, bytes) = entry.remove();
            let end = &mut self.ends[to];
            let parsed = Segment::parse(address(1 - to).ip(), address(to).ip(), &bytes);
            let Ok((segment, payload_at)) = parsed else { continue };
            if end.pool.available() == 0 {
                continue;
            }
            let payload = rx_frame(&mut end.pool, &bytes[payload_at..]);
            let _ = end.connection.handle_segment(now, &mut end.pool, &segment, payload);
            end.connection.check_invariants();
        }
    }
}

impl End {
    fn complete(&mut self, now: Instant) {
        while let Some(index) = self.on_nic.iter().position(|&(at, ..)| at <= now) {
            let (_, frame, retained) = self.on_nic.swap_remove(index);
            let done = frame.into_completed();
            match retained {
                Some(key) => self.connection.handle_completion(now, &mut self.pool, done, key),
                None => self.pool.release_completed(done),
            }
            self.connection.check_invariants();
        }
    }
}
