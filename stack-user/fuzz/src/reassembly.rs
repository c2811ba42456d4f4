//! Data out of order, against a model that knows every byte by itself.

use std::ops::Range;

use stack_user::{
    device::Umem,
    frame::{FramePool, FreeFrame},
    tcp::{
        payload::Payload,
        reassembly::{Inserted, Reassembly},
    },
};

use super::input::{Input, pattern, tell};

const CHUNKS: u32 = 32;

/// Where the model ends. Beyond it lies nothing that is different.
const WINDOW: usize = 1 << 13;

/// What is known of each byte from `base` on: when it was inserted, if it was and was not taken.
struct Model {
    base: u64,
    inserted: Vec<Option<u64>>,
    clock: u64,
    fin: Option<u64>,
}

impl Model {
    /// Inserts a range; returns whether something of it is new. What was there before is touched all the same.
    fn insert(&mut self, range: Range<usize>) -> bool {
        self.clock += 1;
        let new = self.inserted[range.clone()].iter().any(Option::is_none);
        self.inserted[range].fill(Some(self.clock));
        new
    }

    /// The ranges that are there, as stream offsets, the one that changed last first.
    fn islands(&self) -> Vec<(u64, u64)> {
        let mut islands = Vec::new();
        let mut at = 0;
        for island in self.inserted.chunk_by(|a, b| a.is_some() == b.is_some()) {
            if let Some(touched) = island.iter().copied().max().flatten() {
                let start = self.base + at as u64;
                islands.push((touched, (start, start + island.len() as u64)));
            }
            at += island.len();
        }
        islands.sort_by_key(|&(touched, _)| std::cmp::Reverse(touched));
        islands.into_iter().map(|(_, range)| range).collect()
    }
}

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut pool = Umem::on_heap(CHUNKS).expect("memory");
    let mut held: Vec<FreeFrame> = Vec::new();
    let base = input.pick(&[0, (1 << 32) - 5000, 1 << 40]);
    let mut model = Model { base, inserted: vec![None; WINDOW], clock: 0, fin: None };
    let mut queue = Reassembly::default();
    // What was delivered in order so far, from `base` on.
    let mut next = 0;
    while !input.is_empty() && next < WINDOW - 1 {
        let choice = input.below(16);
        match choice {
            0 => held.extend(pool.allocate()),
            1 => held.drain(..).for_each(|frame| pool.release(frame)),
            2 => {
                let fin = base + (next + input.below(WINDOW - next)) as u64;
                queue.set_fin(fin);
                model.fin.get_or_insert(fin);
            }
            3 => {
                // What was missing at the front comes, and takes with it what waited behind it.
                next += 1 + input.below(WINDOW - next - 1).min(1500);
                deliver(&mut queue, &mut pool, &mut model, &mut next);
            }
            _ => {
                let start = next + 1 + input.below(WINDOW - next - 1);
                let len = 1 + input.pick(&[0, 7, 500, 512, 1459, 3000]);
                let end = (start + len).min(WINDOW);
                insert(&mut queue, &mut pool, &mut model, start..end);
            }
        }
        check(&queue, &model, next, choice > 3, &mut input);
    }
    queue.clear(&mut pool);
    held.into_iter().for_each(|frame| pool.release(frame));
    assert_eq!(pool.available(), CHUNKS as usize, "frames are conserved");
}

fn insert(queue: &mut Reassembly, pool: &mut Umem, model: &mut Model, range: Range<usize>) {
    let offset = model.base + range.start as u64;
    let bytes = pattern(offset as u32, range.len());
    let payload = match pool.allocate() {
        Some(free) => Payload::Frame(pool.receive(free, &bytes)),
        None => Payload::Heap(bytes),
    };
    let inserted = queue.insert(pool, offset, payload);
    tell(|| format!("insert {range:?}: {inserted:?}"));
    let expected = if model.insert(range) { Inserted::New } else { Inserted::Duplicate };
    assert_eq!(inserted, expected);
}

fn deliver(queue: &mut Reassembly, pool: &mut Umem, model: &mut Model, next: &mut usize) {
    tell(|| format!("in order up to {next}"));
    while let Some(payload) = queue.take_next(pool, model.base + *next as u64) {
        let offset = (model.base + *next as u64) as u32;
        assert_eq!(payload.bytes(pool), pattern(offset, payload.len()), "other bytes than were put in");
        *next += payload.len();
        payload.release(pool);
    }
    model.inserted[..*next].fill(None);
    queue.advance(model.base + *next as u64);
    assert!(model.inserted.get(*next).is_none_or(Option::is_none), "what is in order was not given out");
}

fn check(queue: &Reassembly, model: &Model, next: usize, is_inserted: bool, input: &mut Input<'_>) {
    queue.check_invariants(model.base + next as u64);
    let islands = model.islands();
    assert_eq!(queue.is_empty(), islands.is_empty());
    assert_eq!(queue.fin(), model.fin);
    for limit in [1, 3, 4] {
        let told: Vec<_> = queue.sack_ranges(limit).collect();
        assert_eq!(told.len(), limit.min(islands.len()), "as many as there is room for");
        assert!(told.iter().all(|island| islands.contains(island)), "{told:?} are not all of {islands:?}");
        assert!((1..told.len()).all(|at| !told[..at].contains(&told[at])), "{told:?}: one is told twice");
        // How far back the order is remembered is the queue's affair.
        assert!(!is_inserted || told.first() == islands.first(), "RFC 2018 §4: the latest comes first");
    }
    let (from, len) = (input.below(WINDOW), 1 + input.below(256));
    let there = model.inserted[from..(from + len).min(WINDOW)].iter().all(Option::is_some);
    let (start, end) = (model.base + from as u64, model.base + (from + len).min(WINDOW) as u64);
    assert_eq!(queue.contains(start, end), there, "contains");
}
