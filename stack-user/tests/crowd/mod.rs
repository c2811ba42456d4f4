//! Two stacks with very many connections between them, in memory and on virtual time.

use std::{net::SocketAddr, time::Instant as Clock};

use stack_user::{
    device::Umem,
    frame::FramePool,
    net::{acd::Schedule, route::Prefix},
    rng::Rng,
    stack::{AddressEvent, Event, ListenerId, Stack, TcpId},
    tcp::Config,
    time::{Duration, Instant},
    wire::MacAddr,
};

use crate::counting;

const SERVER: [u8; 4] = [192, 0, 2, 1];
const CLIENT: [u8; 4] = [192, 0, 2, 2];

/// Connections to one port of the server: nine tenths of all ephemeral ports.
const PER_PORT: usize = 29_500;

/// Connections that are worked on at a time.
const BATCH: usize = 512;

const CHUNKS: u32 = 4096;

/// What a frame takes from one end to the other.
const DELAY: Duration = Duration::from_millis(1);

/// Both ends of all connections.
pub(crate) struct Crowd {
    pub(crate) now: Instant,
    pub(crate) server: Stack<Umem>,
    pub(crate) client: Stack<Umem>,
    listeners: Vec<ListenerId>,
    pub(crate) clients: Vec<TcpId>,
    accepted: usize,
    answers: usize,
    /// Frames that were sent, and points in time at which something was due.
    pub(crate) frames: usize,
    pub(crate) wakes: usize,
}

impl Crowd {
    /// Two stacks that know each other, and room for so many connections.
    pub(crate) fn new(config: &Config, connections: usize) -> Self {
        let now = Instant::ZERO;
        let [mut server, mut client] = [SERVER, CLIENT].map(|address| stack(now, address));
        server.set_tcp_config(config.clone());
        client.set_tcp_config(config.clone());
        let mut crowd = Self {
            now,
            server,
            client,
            listeners: Vec::new(),
            clients: Vec::with_capacity(connections),
            accepted: 0,
            answers: 0,
            frames: 0,
            wakes: 0,
        };
        let claimed = |stack: &Stack<Umem>, address: [u8; 4]| {
            stack.address_state(address.into()) == Some(AddressEvent::Claimed)
        };
        while !claimed(&crowd.server, SERVER) || !claimed(&crowd.client, CLIENT) {
            crowd.step();
        }
        crowd
    }

    /// Opens connections until there are as many.
    pub(crate) fn open(&mut self, connections: usize) {
        while self.clients.len() < connections {
            let port = 5000 + (self.clients.len() / PER_PORT) as u16;
            if usize::from(port - 5000) == self.listeners.len() {
                let listener = self.server.tcp_listen(self.now, (SERVER, port).into(), BATCH);
                self.listeners.push(listener.expect("a free port"));
            }
            let room = PER_PORT - self.clients.len() % PER_PORT;
            let batch = BATCH.min(connections - self.clients.len()).min(room);
            for _ in 0..batch {
                let remote = SocketAddr::from((SERVER, port));
                let (id, _) = self.client.tcp_connect(self.now, remote).expect("a port");
                self.clients.push(id);
            }
            while self.accepted < self.clients.len() {
                self.step();
            }
        }
    }

    /// Has clients say something, and waits until all of them have their answers.
    pub(crate) fn ask(&mut self, clients: &[TcpId]) {
        for batch in clients.chunks(BATCH) {
            let expected = self.answers + batch.len();
            for &id in batch {
                assert_eq!(self.client.tcp_write(self.now, id, b"?"), Ok(1));
            }
            while self.answers < expected {
                self.step();
            }
        }
    }

    /// The time that [`ask`](Self::ask) takes for each connection: the shortest of some attempts.
    pub(crate) fn cost(&mut self, clients: &[TcpId]) -> std::time::Duration {
        let attempt = |_| {
            let started = Clock::now();
            self.ask(clients);
            started.elapsed() / clients.len() as u32
        };
        (0..5).map(attempt).min().expect("attempts")
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.work() || self.due().is_some_and(|due| due <= end) {
            self.step();
        }
        self.now = self.now.max(end);
    }

    /// When something is due, if ever.
    pub(crate) fn due(&self) -> Option<Instant> {
        [self.server.poll_timeout(), self.client.poll_timeout()].into_iter().flatten().min()
    }

    /// Carries what both have to send to the other one, or goes to the time when something is due.
    fn step(&mut self) {
        if !self.work()
            && let Some(due) = self.due()
        {
            self.now = self.now.max(due);
            self.wakes += 1;
        }
        self.server.handle_timeout(self.now);
        self.client.handle_timeout(self.now);
    }

    /// Returns whether there was a frame to carry.
    fn work(&mut self) -> bool {
        self.applications();
        let later = self.now + DELAY;
        let there = carry(self.now, &mut self.client, later, &mut self.server);
        let back = carry(self.now, &mut self.server, later, &mut self.client);
        self.frames += there + back;
        if there + back > 0 {
            self.now = later;
        }
        self.applications();
        there + back > 0
    }

    /// The server answers what it reads; the client counts the answers.
    fn applications(&mut self) {
        let mut byte = [0; 16];
        while let Some(event) = self.server.poll_event() {
            match event {
                Event::Listener { id } => {
                    while self.server.tcp_accept(self.now, id).is_some() {
                        self.accepted += 1;
                    }
                }
                Event::Tcp { id, readable: true, .. } => {
                    if let Ok(n @ 1..) = self.server.tcp_read(self.now, id, &mut byte) {
                        assert_eq!(self.server.tcp_write(self.now, id, &byte[..n]), Ok(n));
                    }
                }
                _ => {}
            }
        }
        while let Some(event) = self.client.poll_event() {
            if let Event::Tcp { id, readable: true, .. } = event
                && let Ok(n) = self.client.tcp_read(self.now, id, &mut byte)
            {
                self.answers += n;
            }
        }
    }

    /// Both ends of all connections rest.
    pub(crate) fn all_rest(&self) -> bool {
        let rests = |stack: &Stack<Umem>| stack.tcp_counts().resting == self.clients.len();
        rests(&self.server) && rests(&self.client)
    }
}

/// What idle connections take: bytes of heap for each end of one, from what was held before the first was opened.
pub(crate) fn bytes_per_end(before: isize, connections: usize) -> usize {
    (counting::held() - before) as usize / (2 * connections)
}

fn stack(now: Instant, address: [u8; 4]) -> Stack<Umem> {
    let [.., last] = address;
    let frames = Umem::on_heap(CHUNKS).expect("memory");
    let mac = MacAddr([2, 0, 0, 0, 0, last]);
    let mut stack = Stack::new(now, mac, None, frames, Rng::from_seed(last.into()));
    let network = Prefix::new([192, 0, 2, 0].into(), 24).expect("a prefix");
    stack.claim(now, address.into(), network, None, 1500, Schedule::Fast).expect("an address");
    stack
}

/// Takes all frames that one has to send to the other. Returns how many.
fn carry(now: Instant, from: &mut Stack<Umem>, later: Instant, to: &mut Stack<Umem>) -> usize {
    let mut frames = 0;
    while let Some(frame) = from.poll_transmit(now) {
        let free = to.pool_mut().allocate().expect("a free chunk");
        let received = to.pool_mut().receive(free, from.pool().tx_bytes(&frame));
        from.handle_completion(now, frame.into_completed());
        to.handle_frame(later, received);
        frames += 1;
    }
    frames
}
