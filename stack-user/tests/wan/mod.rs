//! A long way between two hosts, as real as a machine without one can make it: three network namespaces in a row, of
//! which the middle one hands frames on through the fault middleware, in user space.
//!
//! ```text
//!   client ── veth ── relay: rate, delay, queue, loss ── veth ── server
//! ```
//!
//! Either end is the kernel's TCP or ours, on the same interface: what differs between two runs is the TCP alone.

// Tests and the benchmark use different parts of it.
#![allow(dead_code)]

mod kernel;
mod ours;
mod path;
#[path = "../af_xdp/redirect.rs"]
mod redirect;
mod relay;

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

pub(crate) use path::{CLIENT, Path, SERVER};
use stack_user::tcp::congestion::Algorithm;

/// Whose TCP an end has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tcp {
    /// The kernel's, with CUBIC.
    Kernel,
    /// Ours.
    Ours(Algorithm),
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
    /// Both at once.
    Both,
}

impl Direction {
    fn client_sends(self) -> bool {
        self != Self::Down
    }

    fn server_sends(self) -> bool {
        self != Self::Up
    }
}

/// How much is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Amount {
    /// So many bytes.
    Bytes(u64),
    /// As many as go for so long; after that the receiver ends it.
    For(Duration),
}

/// What a transfer came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    /// Bytes that came, from the first to the last of both directions.
    pub(crate) bytes: u64,
    /// From the connection to the last byte.
    pub(crate) took: Duration,
}

impl Outcome {
    /// Megabits per second of payload.
    pub(crate) fn mbits(self) -> f64 {
        self.bytes as f64 * 8.0 / 1e6 / self.took.as_secs_f64().max(1e-9)
    }
}

/// Sends over a path, from a new connection to its orderly end. Every byte is compared: the first one that is not what
/// was sent at its place panics.
pub(crate) fn transfer(
    path: &Path,
    client: Tcp,
    server: Tcp,
    direction: Direction,
    amount: Amount,
) -> Outcome {
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let server = scope.spawn(move || {
            path.server().inside(|| match server {
                Tcp::Kernel => {
                    kernel::serve(direction, amount, || ready.send(SERVER.kernel).expect("the client waits"))
                }
                Tcp::Ours(algorithm) => ours::serve(algorithm, direction, amount, || {
                    ready.send(SERVER.ours).expect("the client waits")
                }),
            })
        });
        let to = is_ready.recv().expect("the server came up");
        let outcome = path.client().inside(|| match client {
            Tcp::Kernel => kernel::connect(to, direction, amount),
            Tcp::Ours(algorithm) => ours::connect(algorithm, to, direction, amount),
        });
        let other = server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Outcome { bytes: outcome.bytes + other.bytes, took: outcome.took.max(other.took) }
    })
}

/// Where the server listens.
const PORT: u16 = 5001;

/// Bytes that a call writes or reads at most.
const PIECE: usize = 64 * 1024;

/// The content of a stream: a byte that differs from its neighbours and from those a window or a wrap away.
fn pattern(at: u64, bytes: &mut [u8]) {
    /// What the lower two bytes of a place come to. The upper ones are the same for 64 KiB, and so cost next to nothing.
    static LOWER: LazyLock<[u8; 1 << 16]> =
        LazyLock::new(|| std::array::from_fn(|low| (low ^ (low >> 8)) as u8));
    let (mut at, mut rest) = (at, bytes);
    while !rest.is_empty() {
        let (low, high) = (at as usize & 0xffff, at >> 16);
        let upper = (high ^ (high >> 8)) as u8;
        let (piece, behind) = rest.split_at_mut(rest.len().min(LOWER.len() - low));
        for (byte, lower) in piece.iter_mut().zip(&LOWER[low..]) {
            *byte = lower ^ upper;
        }
        at += piece.len() as u64;
        rest = behind;
    }
}

/// Panics at the first byte that is not the one that belongs there.
fn check(at: u64, bytes: &[u8]) {
    let mut expected = [0; 4096];
    for (index, piece) in bytes.chunks(expected.len()).enumerate() {
        let start = at + (index * expected.len()) as u64;
        pattern(start, &mut expected[..piece.len()]);
        if piece != &expected[..piece.len()] {
            let differs = piece.iter().zip(&expected).position(|(a, b)| a != b).unwrap_or_default();
            panic!("byte {} of the stream is wrong", start + differs as u64);
        }
    }
}

/// Which piece to send next, and when to stop.
struct Source {
    amount: Amount,
    started: Instant,
    sent: u64,
}

impl Source {
    fn new(amount: Amount) -> Self {
        Self { amount, started: Instant::now(), sent: 0 }
    }

    /// The next bytes, or none at the end.
    fn next<'a>(&self, buffer: &'a mut [u8]) -> &'a [u8] {
        let len = match self.amount {
            Amount::Bytes(total) => (total - self.sent).min(buffer.len() as u64) as usize,
            Amount::For(time) if self.started.elapsed() >= time => 0,
            Amount::For(_) => buffer.len(),
        };
        pattern(self.sent, &mut buffer[..len]);
        &buffer[..len]
    }
}

/// What has come, and since when.
struct Sink {
    started: Instant,
    outcome: Outcome,
}

impl Sink {
    fn new() -> Self {
        Self { started: Instant::now(), outcome: Outcome::default() }
    }

    fn take(&mut self, bytes: &[u8]) {
        check(self.outcome.bytes, bytes);
        self.outcome.bytes += bytes.len() as u64;
        self.outcome.took = self.started.elapsed();
    }

    /// The end of the stream.
    fn finish(self, amount: Amount) -> Outcome {
        if let Amount::Bytes(total) = amount {
            assert_eq!(self.outcome.bytes, total, "the stream ended early");
        }
        self.outcome
    }
}
