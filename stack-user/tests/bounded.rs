//! What a hostile peer may cost: memory, counted by the allocator, and frames. A test binary of its own, since it replaces
//! the allocator.

mod counting;

use std::{net::SocketAddr, time::Instant as Clock};

use stack_user::{
    device::Umem,
    frame::FramePool,
    rng::Rng,
    tcp::{
        Config, Connection, Secrets, Segment, SeqNumber,
        options::{Options, SackBlocks, Timestamps},
    },
    time::{Duration, Instant},
    wire::tcp::Flags,
};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

const CHUNKS: u32 = 4096;
const HEADER_ROOM: usize = 34;
const ISS: SeqNumber = SeqNumber(1000);
const IRS: SeqNumber = SeqNumber(900_000_000);

/// A connection under attack by its own peer.
struct Victim {
    connection: Connection,
    pool: Umem,
    now: Instant,
    /// Bytes that the test held when the connection was established.
    before: isize,
    timestamps: bool,
}

impl Victim {
    fn new(config: Config, timestamps: bool) -> Self {
        let now = Instant::from_millis(1_000_000);
        let secrets = Secrets { isn: ISS, timestamp_offset: 0 };
        let (local, remote) = addresses();
        let mut pool = Umem::on_heap(CHUNKS).expect("memory");
        let config = Config { header_room: HEADER_ROOM, ..config };
        let mut connection = Connection::connect(now, config, local, remote, secrets);
        let syn = connection.poll_transmit(now, &mut pool).expect("SYN");
        pool.release_tx(syn.frame);
        let mut victim = Self { connection, pool, now, before: 0, timestamps };
        let options = Options {
            mss: Some(1460),
            window_scale: Some(7),
            sack_permitted: true,
            timestamps: timestamps.then_some(Timestamps { value: 1, echo: 0 }),
            ..Options::default()
        };
        victim.hit(Flags::SYN.with(Flags::ACK), -1, 0, options, &[]);
        victim.drain();
        victim.count_from_here();
        victim
    }

    fn count_from_here(&mut self) {
        self.before = counting::held();
        counting::forget_most();
    }

    /// One segment of the peer; numbers are relative to the first byte of either side.
    fn hit(&mut self, flags: Flags, seq: i64, ack: i64, mut options: Options, data: &[u8]) {
        let (local, remote) = addresses();
        if self.timestamps && options.timestamps.is_none() {
            options.timestamps = Some(Timestamps { value: self.now.as_millis() as u32, echo: 0 });
        }
        let segment = Segment {
            source_port: remote.port(),
            destination_port: local.port(),
            seq: at(IRS, seq),
            ack: at(ISS, ack),
            flags,
            window: 65_535,
            urgent: 0,
            options,
            ce: false,
        };
        let Some(payload) = self.pool.receive_whole(data) else { return };
        let _ = self.connection.handle_segment(self.now, &mut self.pool, &segment, payload);
    }

    fn data(&mut self, seq: i64, data: &[u8]) {
        self.hit(Flags::ACK, seq, 0, Options::default(), data);
    }

    /// What the victim has to say goes nowhere.
    fn drain(&mut self) -> usize {
        let mut sent = 0;
        while let Some(transmit) = self.connection.poll_transmit(self.now, &mut self.pool) {
            sent += 1;
            let done = transmit.frame.into_completed();
            match transmit.retained {
                Some(key) => self.connection.handle_completion(self.now, &mut self.pool, done, key),
                None => self.pool.release_completed(done),
            }
        }
        sent
    }

    /// The most that the heap held beyond what it held at first, in bytes.
    fn most(&self) -> usize {
        (counting::most() - self.before).max(0) as usize
    }

    /// Chunks that the connection holds.
    fn frames(&self) -> usize {
        CHUNKS as usize - self.pool.available()
    }

    fn finish(mut self) {
        self.drain();
        self.connection.check_invariants();
        self.connection.release_all(&mut self.pool);
        assert_eq!(self.pool.available(), CHUNKS as usize, "frames are conserved");
    }
}

fn addresses() -> (SocketAddr, SocketAddr) {
    ("192.0.2.1:40000".parse().expect("an address"), "198.51.100.7:80".parse().expect("an address"))
}

fn at(zero: SeqNumber, relative: i64) -> SeqNumber {
    SeqNumber(zero.0.wrapping_add(1).wrapping_add(relative as u32))
}

/// A buffer that can't grow, so that bounds are known.
fn fixed(buffer: usize) -> Config {
    Config { recv_buffer: buffer, recv_buffer_max: buffer, ..Config::default() }
}

#[test]
fn single_bytes_in_order_cost_their_bytes() {
    let mut victim = Victim::new(fixed(256 << 10), false);
    for i in 0..300_000 {
        victim.data(i, b"x");
        victim.drain();
    }
    assert!(victim.frames() <= 1, "{} chunks", victim.frames());
    // A buffer that has just grown to twice its size, and the one that it grew out of.
    assert!(victim.most() <= 3 * (256 << 10) + 4096, "{} bytes of heap", victim.most());
    victim.finish();
}

#[test]
fn single_bytes_with_gaps_cost_a_bounded_number_of_entries() {
    let mut victim = Victim::new(fixed(1 << 20), false);
    for i in (1..1_000_000).step_by(2) {
        victim.data(i, b"x");
        if i % 101 == 0 {
            victim.drain();
        }
    }
    assert_eq!(victim.frames(), 0);
    assert!(victim.most() <= 1 << 20, "{} bytes of heap", victim.most());
    victim.finish();
}

/// A frame of one byte more than a chunk holds takes two.
#[test]
fn long_frames_whose_last_chunk_holds_next_to_nothing_cost_one_chunk_each() {
    for step in [1, 2] {
        let window = 1 << 20;
        let mut victim = Victim::new(Config { mss: 8960, ..fixed(window) }, false);
        // In order, and then with gaps.
        let data = [7; 3841];
        for i in 0..1000 {
            victim.data(i * step * data.len() as i64 + (step - 1), &data);
            victim.drain();
        }
        let long = window / data.len();
        assert!(victim.frames() > long / 4, "{} chunks", victim.frames());
        assert!(victim.frames() <= long + 1, "{} chunks of {long} frames", victim.frames());
        victim.finish();
    }
}

#[test]
fn overlapping_garbage_costs_no_more_than_the_window() {
    let mut rng = Rng::from_seed(7);
    let mut victim = Victim::new(fixed(512 << 10), false);
    let data = [7; 1460];
    for _ in 0..200_000 {
        let seq = rng.below(600 << 10) as i64 + 1;
        let len = 1 + rng.below(1460) as usize;
        victim.data(seq, &data[..len]);
        victim.drain();
    }
    // What lies in frames lies in at most as many as there are entries; what doesn't, on the heap.
    assert!(victim.frames() <= CHUNKS as usize * 3 / 4, "{} chunks", victim.frames());
    assert!(victim.most() <= 2 << 20, "{} bytes of heap", victim.most());
    victim.finish();
}

#[test]
fn permutations_of_sack_blocks_cost_no_memory() {
    let mut rng = Rng::from_seed(9);
    let mut victim = Victim::new(Config::default(), false);
    let data = vec![7; 1 << 20];
    let _ = victim.connection.write(victim.now, &mut victim.pool, &data);
    victim.drain();
    let sent = victim.connection.info().outstanding as u64;
    let frames = victim.frames();
    victim.count_from_here();
    let started = Clock::now();
    for _ in 0..10_000 {
        let mut sack = SackBlocks::default();
        for _ in 0..1 + rng.below(4) {
            let left = rng.below(sent) as i64;
            sack.push(at(ISS, left), at(ISS, left + rng.below(sent) as i64));
        }
        victim.hit(Flags::ACK, 0, 0, Options { sack, ..Options::default() }, &[]);
        victim.drain();
    }
    println!("10,000 SACKs: {:?}", started.elapsed());
    assert!(victim.frames() <= frames + 512, "{} chunks", victim.frames());
    assert!(victim.most() <= 64 << 10, "{} bytes of heap", victim.most());
    victim.finish();
}

#[test]
fn a_million_bogus_acks_cost_nothing() {
    let mut rng = Rng::from_seed(11);
    let mut victim = Victim::new(Config::default(), true);
    let _ = victim.connection.write(victim.now, &mut victim.pool, &[7; 5000]);
    victim.drain();
    victim.count_from_here();
    let (calls, mut answers) = (counting::calls(), 0);
    for i in 0..1_000_000u64 {
        if i % 10_000 == 0 {
            victim.now += Duration::from_millis(1);
        }
        // Behind, ahead, and far away; some with a timestamp from the past.
        let ack = rng.next_u32() as i32;
        let past = (i % 3 == 0).then_some(Timestamps { value: 0, echo: rng.next_u32() });
        let ack = if i % 2 == 0 { i64::from(ack) } else { -(i64::from(ack) & 0xfff) - 1 };
        victim.hit(Flags::ACK, 0, ack, Options { timestamps: past, ..Options::default() }, &[]);
        answers += victim.drain();
    }
    assert_eq!(counting::calls() - calls, 0, "allocations");
    assert!(answers <= 10, "{answers} answers: they are limited (RFC 5961 §7)");
    assert!(victim.most() == 0, "{} bytes of heap", victim.most());
    victim.finish();
}

/// The work, as far as a clock can show it: what an insertion costs when there are thousands of gaps is of the order of
/// what it costs when there are few.
#[test]
fn an_insertion_among_thousands_of_gaps_is_cheap() {
    let time = |gaps: i64| {
        let mut victim = Victim::new(fixed(6 << 20), false);
        (1..=gaps).for_each(|i| victim.data(i * 4, b"x"));
        let mut rng = Rng::from_seed(5);
        let started = Clock::now();
        for _ in 0..20_000 {
            // Where something is already: the search alone, and an ACK with SACK blocks.
            victim.data((1 + rng.below(gaps as u64) as i64) * 4, b"x");
            victim.drain();
        }
        let elapsed = started.elapsed();
        victim.finish();
        elapsed
    };
    let (few, many) = (time(10), time(4000));
    println!("20,000 segments among 10 gaps: {few:?}, among 4000: {many:?}");
    assert!(many < 10 * few, "{many:?}, against {few:?}");
}
