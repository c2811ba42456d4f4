//! A host: a real stack, the NIC in front of it, and a clock of its own.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use stack_user::{
    device::Umem,
    frame::{CompletedFrame, FramePool, FreeFrame, RxFrame, TxFrame},
    net::acd::Schedule,
    rng::Rng,
    stack::{Event, ListenerId, Stack},
    tcp,
    time::{Duration, Instant},
    wire::MacAddr,
};

use crate::{
    draw::Draw,
    referee::{Referee, Verdict},
};

/// The port of every server.
pub(crate) const PORT: u16 = 80;

/// How a host's network card behaves.
#[derive(Clone, Debug)]
pub(crate) struct Nic {
    /// Frames that it has been given to send, and not given back yet, at most.
    pub(crate) tx_ring: usize,
    /// It reads a frame up to so long after it was given to it.
    pub(crate) tx_delay: Duration,
    /// It gives a frame back up to so long after it was sent.
    pub(crate) completion_delay: Duration,
    /// Empty chunks that it holds, to receive into.
    pub(crate) fill_ring: usize,
    /// The host is told of received frames so long after the first of them came.
    pub(crate) interrupt_delay: Duration,
}

/// What a host is made of.
#[derive(Clone, Debug)]
pub(crate) struct Make {
    pub(crate) address: Ipv4Addr,
    pub(crate) gateway: Option<Ipv4Addr>,
    pub(crate) mtu: u16,
    pub(crate) chunks: u32,
    pub(crate) tcp: tcp::Config,
    pub(crate) nic: Nic,
    pub(crate) clock: Clock,
    /// Connections that wait to be accepted at most.
    pub(crate) backlog: usize,
}

/// A host's clock: it starts somewhere, runs a little too fast or too slow, and may jump ahead. It never runs backwards.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) origin: Instant,
    /// Nanoseconds per millisecond that it is fast.
    pub(crate) skew: i64,
    pub(crate) jumped: Duration,
}

impl Clock {
    /// What it shows at that time of the world.
    pub(crate) fn at(&self, world: Instant) -> Instant {
        let elapsed = world.as_nanos() as i64;
        let drift = elapsed / 1_000_000 * self.skew;
        self.origin + Duration::from_nanos((elapsed + drift) as u64) + self.jumped
    }

    /// The world's first moment in which it shows `local` or later.
    fn world(&self, local: Instant) -> Instant {
        let shown = local.since(self.origin + self.jumped).as_nanos() as i64;
        // The drift is far below a thousandth, so this is close, and the rest is walked.
        let guess = shown - shown / 1_000_000 * self.skew;
        let mut world = Instant::from_nanos(guess.max(0) as u64);
        while self.at(world) < local {
            world += local.since(self.at(world)).max(Duration::from_nanos(1));
        }
        world
    }
}

/// A host.
pub(crate) struct Host {
    pub(crate) make: Make,
    pub(crate) mac: MacAddr,
    pub(crate) stack: Stack<Umem>,
    pub(crate) listener: Option<ListenerId>,
    /// How often it has started.
    pub(crate) life: u32,
    /// It does nothing until then, as a virtual machine does that is moved.
    pub(crate) stalled_until: Option<Instant>,
    /// Frames that came and found no empty chunk.
    pub(crate) overruns: u64,
    /// Empty chunks that the NIC holds.
    fill: Vec<FreeFrame>,
    received: Vec<RxFrame>,
    interrupt_at: Option<Instant>,
    /// Frames that the NIC will read, and when; those that it will give back, and when.
    sending: VecDeque<(Instant, TxFrame)>,
    sent: VecDeque<(Instant, CompletedFrame)>,
    rng: Rng,
    /// Watches what the stack takes in and puts out.
    pub(crate) referee: Referee,
}

impl Host {
    pub(crate) fn new(now: Instant, mac: MacAddr, make: Make, mut rng: Rng) -> Self {
        let stack = start(now, mac, &make, &mut rng);
        let mut host = Self {
            make,
            mac,
            stack,
            listener: None,
            life: 0,
            stalled_until: None,
            overruns: 0,
            fill: Vec::new(),
            received: Vec::new(),
            interrupt_at: None,
            sending: VecDeque::new(),
            sent: VecDeque::new(),
            rng,
            referee: Referee::default(),
        };
        host.refill();
        host
    }

    /// It forgets everything and comes back. What its NIC had been given is gone.
    pub(crate) fn restart(&mut self, now: Instant) {
        self.life += 1;
        self.stack = start(now, self.mac, &self.make, &mut self.rng);
        self.listener = None;
        self.stalled_until = None;
        self.fill.clear();
        self.received.clear();
        self.interrupt_at = None;
        self.sending.clear();
        self.sent.clear();
        self.referee = Referee::default();
        self.refill();
    }

    /// What its clock shows.
    pub(crate) fn local(&self, now: Instant) -> Instant {
        self.make.clock.at(now)
    }

    pub(crate) fn is_stalled(&self, now: Instant) -> bool {
        self.stalled_until.is_some_and(|until| until > now)
    }

    /// The NIC writes a frame into an empty chunk, if it has one.
    pub(crate) fn receive(&mut self, now: Instant, bytes: &[u8]) {
        let pool = self.stack.pool_mut();
        let chunks = bytes.len().div_ceil(pool.tx_capacity()).max(1);
        if self.fill.len() < chunks {
            self.overruns += 1;
            return;
        }
        // Its empty chunks are those that the pool hands out next.
        self.fill.drain(self.fill.len() - chunks..).for_each(|free| pool.release(free));
        let frame = pool.receive_whole(bytes).expect("as many chunks");
        self.received.push(frame);
        if self.interrupt_at.is_none() {
            self.interrupt_at = Some(now + self.make.nic.interrupt_delay);
        }
    }

    /// Does what is due: takes frames in, lets time pass, and sends. What it sends is appended to `out`.
    pub(crate) fn run(&mut self, now: Instant, out: &mut Vec<Vec<u8>>) {
        if self.is_stalled(now) {
            return;
        }
        let local = self.local(now);
        self.reap(now, local);
        if self.interrupt_at.is_some_and(|at| at <= now) {
            self.interrupt_at = None;
            for frame in &self.received {
                self.referee.received(now, &self.stack.pool().rx_gather(frame));
            }
            self.stack.handle_burst(local, &mut self.received);
        }
        self.stack.handle_timeout(local);
        self.listen(local);
        loop {
            self.transmit(now, local);
            if !self.read_frames(now, out) {
                break;
            }
            self.reap(now, local);
        }
        self.referee.look(now, self.has_said_all());
        self.refill();
    }

    /// Nothing keeps the stack from sending: there is room, and a chunk to send from.
    pub(crate) fn has_said_all(&self) -> bool {
        let has_room = self.sending.len() + self.sent.len() < self.make.nic.tx_ring;
        has_room && self.stack.pool().available() > 0
    }

    /// What the referee found, now that nothing has happened for a while.
    pub(crate) fn verdict(&mut self, now: Instant) -> Verdict {
        if !self.is_stalled(now) {
            let has_said_all = self.has_said_all();
            self.referee.look_at_all(now, has_said_all);
        }
        self.referee.verdict()
    }

    /// Opens the server's port as soon as there is an address.
    fn listen(&mut self, local: Instant) {
        if self.listener.is_none() && self.stack.address().is_some() {
            let address = SocketAddr::new(IpAddr::V4(self.make.address), PORT);
            let listener = self.stack.tcp_listen(local, address, self.make.backlog);
            self.listener = Some(listener.expect("a port that nobody listens on"));
        }
    }

    fn transmit(&mut self, now: Instant, local: Instant) {
        let room = |host: &Self| host.make.nic.tx_ring.saturating_sub(host.sending.len() + host.sent.len());
        loop {
            // As a driver does: a burst at a time.
            let burst = room(self).min(64);
            let mut frames = Vec::new();
            self.stack.transmit(local, burst, |frame| frames.push(frame));
            if frames.is_empty() {
                return;
            }
            for frame in frames {
                self.referee.sent(now, &self.stack.pool().tx_gather(&frame));
                let earliest = self.sending.back().map_or(now, |&(at, _)| at);
                let at = (now + delay(&mut self.rng, self.make.nic.tx_delay)).max(earliest);
                self.sending.push_back((at, frame));
            }
        }
    }

    /// The NIC reads the frames that it can send now; whether there were any.
    fn read_frames(&mut self, now: Instant, out: &mut Vec<Vec<u8>>) -> bool {
        let mut any = false;
        while let Some((_, frame)) = self.sending.pop_front_if(|&mut (at, _)| at <= now) {
            out.push(self.stack.pool().tx_gather(&frame).to_vec());
            let at = now + delay(&mut self.rng, self.make.nic.completion_delay);
            self.sent.push_back((at, frame.into_completed()));
            any = true;
        }
        any
    }

    /// Takes back the frames that have been sent. The ring is in order: one that is late holds up those behind it.
    fn reap(&mut self, now: Instant, local: Instant) {
        let Self { stack, sent, .. } = self;
        let has_gone = || sent.pop_front_if(|&mut (at, _)| at <= now).map(|(_, frame)| frame);
        stack.handle_completions(local, std::iter::from_fn(has_gone));
    }

    fn refill(&mut self) {
        while self.fill.len() + self.received.len() < self.make.nic.fill_ring {
            let Some(free) = self.stack.pool_mut().allocate() else { return };
            self.fill.push(free);
        }
    }

    /// When it has something to do, if ever.
    pub(crate) fn next_wake(&self, now: Instant) -> Option<Instant> {
        let timer = self.stack.poll_timeout().map(|at| self.make.clock.world(at));
        let sending = self.sending.front().map(|&(at, _)| at);
        let sent = self.sent.front().map(|&(at, _)| at);
        let next = [timer, sending, sent, self.interrupt_at].into_iter().flatten().min();
        match self.stalled_until.filter(|&until| until > now) {
            Some(until) => Some(next.unwrap_or(until).max(until)),
            None => next,
        }
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.stack.poll_event()
    }

    /// Chunks that somebody other than the pool and the NIC's fill ring holds.
    pub(crate) fn chunks_in_use(&self) -> usize {
        self.stack.pool().chunks() - self.stack.pool().available() - self.fill.len()
    }
}

fn start(now: Instant, mac: MacAddr, make: &Make, rng: &mut Rng) -> Stack<Umem> {
    let local = make.clock.at(now);
    let umem = Umem::on_heap(make.chunks).expect("memory");
    let mut stack = Stack::new(local, mac, None, umem, rng.fork());
    stack.set_tcp_config(make.tcp.clone());
    let subnet = format!("{}/24", make.address).parse().expect("a prefix");
    stack
        .claim(local, make.address, subnet, make.gateway, make.mtu, Schedule::Fast)
        .expect("an address of the subnet");
    stack
}

fn delay(rng: &mut Rng, most: Duration) -> Duration {
    if most.is_zero() {
        return Duration::ZERO;
    }
    Duration::from_nanos(rng.between(0, most.as_nanos() as u64))
}
