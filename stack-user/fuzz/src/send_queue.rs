//! The send queue against a plain list of segments: what was written comes out where it belongs, however it is cut, sent
//! again, marked and acknowledged, and every frame goes back.

use stack_user::{
    device::Umem,
    frame::{FramePool, TxFrame},
    tcp::{
        delivery_rate::Stamp,
        send_queue::{Layout, Mark, SendQueue, Transmission},
    },
    time::Instant,
};

use super::input::{Input, pattern, tell};

const CHUNKS: u32 = 48;
const LAYOUT: Layout = Layout { payload_at: 66, mss: 1000 };

/// A segment as the model has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plain {
    start: u64,
    len: usize,
    fin: bool,
    mark: Mark,
    transmissions: u32,
}

struct World {
    queue: SendQueue,
    pool: Umem,
    model: Vec<Plain>,
    /// Where the next write goes.
    end: u64,
    una: u64,
    has_fin: bool,
    /// Frames that were given out, by the offset of their segment.
    nic: Vec<(u64, TxFrame)>,
    order: u64,
}

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World {
        queue: SendQueue::default(),
        pool: Umem::on_heap(CHUNKS).expect("memory"),
        model: Vec::new(),
        end: 0,
        una: 0,
        has_fin: false,
        nic: Vec::new(),
        order: 0,
    };
    while !input.is_empty() {
        world.step(&mut input);
        world.check();
    }
    world.queue.clear(&mut world.pool);
    for (_, frame) in world.nic {
        world.pool.release_tx(frame);
    }
    assert_eq!(world.pool.available(), CHUNKS as usize, "frames are conserved");
}

impl World {
    fn step(&mut self, input: &mut Input<'_>) {
        let sent = self.queue.sent_entries();
        match input.below(16) {
            0..=3 if !self.has_fin => self.write(input.pick(&[1, 300, 1000, 2500])),
            4 if !self.has_fin && input.one_in(8) => self.push_fin(sent),
            5..=7 if self.queue.unsent().is_some() => self.transmit(sent),
            8 if sent > 0 => self.transmit(input.below(sent)),
            9 | 10 if !self.nic.is_empty() => {
                let (start, frame) = self.nic.swap_remove(input.below(self.nic.len()));
                self.queue.complete(&mut self.pool, frame.into_completed(), start);
            }
            11 | 12 if sent > 0 => {
                let (index, mark) =
                    (input.below(sent), input.pick(&[Mark::InFlight, Mark::Sacked, Mark::Lost]));
                self.queue.set_mark(index, mark);
                self.model[index].mark = mark;
            }
            13 if sent > 0 => self.acknowledge(input, sent),
            14 if !self.model.is_empty() => self.split(input.below(self.model.len()), input),
            _ => {}
        }
    }

    fn write(&mut self, len: usize) {
        let mut written = self.queue.write(&mut self.pool, LAYOUT, &pattern(self.end as u32, len));
        tell(|| format!("write {len}: {written}"));
        assert!(written <= len);
        // First into the last segment, if that was not sent and has room; then into new ones.
        while written > 0 {
            let last = self.model.last_mut().filter(|last| last.transmissions == 0 && last.len < LAYOUT.mss);
            match last {
                Some(last) => {
                    let n = written.min(LAYOUT.mss - last.len);
                    last.len += n;
                    self.end += n as u64;
                    written -= n;
                }
                None => {
                    let start = self.end;
                    self.model.push(Plain {
                        start,
                        len: 0,
                        fin: false,
                        mark: Mark::InFlight,
                        transmissions: 0,
                    });
                }
            }
        }
    }

    fn push_fin(&mut self, sent: usize) {
        self.queue.push_fin();
        if sent == self.model.len() {
            let start = self.end;
            self.model.push(Plain { start, len: 0, fin: false, mark: Mark::InFlight, transmissions: 0 });
        }
        if let Some(last) = self.model.last_mut() {
            last.fin = true;
        }
        self.end += 1;
        self.has_fin = true;
    }

    fn transmit(&mut self, index: usize) {
        let plain = &mut self.model[index];
        let is_away = self.nic.iter().any(|&(start, _)| start == plain.start);
        let is_home = self.queue.get(index).is_some_and(|entry| entry.is_home());
        assert_eq!(is_home, !is_away, "where the frame is");
        if is_away {
            return;
        }
        self.order += 1;
        let (now, stamp) = (Instant::from_millis(self.order), Stamp::default());
        let transmission = Transmission { order: self.order, stamp };
        let frame = self.queue.take_for_transmission(index, now, transmission);
        tell(|| format!("transmit {plain:?}"));
        plain.transmissions += 1;
        plain.mark = Mark::InFlight;
        assert_eq!(frame.is_some(), plain.len > 0, "a FIN alone has no frame");
        if let Some(mut frame) = frame {
            let at = LAYOUT.payload_at;
            let payload = &self.pool.tx_buffer(&mut frame)[at..at + plain.len];
            assert_eq!(payload, pattern(plain.start as u32, plain.len), "other bytes than were written");
            self.nic.push((plain.start, frame));
        }
    }

    /// Acknowledges some segments, and perhaps a part of the next.
    fn acknowledge(&mut self, input: &mut Input<'_>, sent: usize) {
        let n = input.below(sent + 1);
        let partial = self.model.get(n).filter(|next| n < sent && next.len > 1);
        let una = match (partial, n.checked_sub(1)) {
            (Some(next), _) if input.one_in(4) => next.start + 1,
            (_, Some(last)) => end(&self.model[last]),
            _ => return,
        };
        self.una = self.una.max(una);
        let gone: Vec<_> = self.model.drain(..n).collect();
        let mut told = 0;
        let acked = self.queue.acknowledge(&mut self.pool, self.una, |_, len| told += len);
        tell(|| format!("acknowledge {una}: {acked:?}"));
        assert_eq!(acked.entries, gone.len());
        assert_eq!(acked.fin, gone.iter().any(|plain| plain.fin));
        let fresh = gone.iter().filter(|plain| plain.mark != Mark::Sacked);
        assert_eq!(told, acked.delivered, "delivered by this ACK, and not by SACK before");
        assert_eq!(acked.delivered, fresh.map(taken).sum::<usize>());
        let again = gone.iter().any(|plain| plain.transmissions > 1);
        assert!(!again || acked.sent_at.is_none(), "RFC 6298 §3: no round trip of what was sent twice");
    }

    fn split(&mut self, index: usize, input: &mut Input<'_>) {
        let plain = self.model[index];
        let is_away = self.nic.iter().any(|&(start, _)| start == plain.start);
        if plain.len < 2 || is_away || plain.mark == Mark::Sacked {
            return;
        }
        let len = 1 + input.below(plain.len - 1);
        let free = self.pool.available();
        let done = self.queue.split(&mut self.pool, index, len, LAYOUT.payload_at);
        tell(|| format!("split {plain:?} at {len}: {done}"));
        let reserve = CHUNKS as usize / 4;
        assert_eq!(done, free > if index == 0 { reserve / 4 } else { reserve }, "the reserve is left");
        if done {
            self.model[index] = Plain { start: plain.start + len as u64, len: plain.len - len, ..plain };
            self.model.insert(index, Plain { len, fin: false, ..plain });
            // Whoever cuts a segment that is acknowledged in part has to acknowledge again.
            let gone =
                self.model.iter().take_while(|plain| plain.transmissions > 0 && end(plain) <= self.una);
            let gone = gone.count();
            self.model.drain(..gone);
            assert_eq!(self.queue.acknowledge(&mut self.pool, self.una, |_, _| {}).entries, gone);
        }
    }

    fn check(&self) {
        let sent = self.model.iter().filter(|plain| plain.transmissions > 0).count();
        let nxt = self.model.get(sent).map_or(self.end, |plain| plain.start);
        self.queue.check_invariants(self.una, nxt);
        for (index, plain) in self.model.iter().enumerate() {
            let entry = self.queue.get(index).expect("as many as in the model");
            let (start, len, fin) = (entry.start, entry.len, entry.fin);
            let (mark, transmissions) = (entry.mark, entry.transmissions);
            assert_eq!(Plain { start, len, fin, mark, transmissions }, *plain);
            assert_eq!(self.queue.find(start), Some(index));
        }
        assert!(self.queue.get(self.model.len()).is_none() && self.queue.sent_entries() == sent);
        let sum =
            |mark| self.model[..sent].iter().filter(|plain| plain.mark == mark).map(taken).sum::<usize>();
        assert_eq!(self.queue.lost(), sum(Mark::Lost));
        assert_eq!(self.queue.sacked(), sum(Mark::Sacked));
        assert_eq!(self.queue.in_flight(), sum(Mark::InFlight));
        assert_eq!(self.queue.bytes(), self.model.iter().map(|plain| plain.len).sum::<usize>());
    }
}

/// Sequence numbers that a segment takes.
fn taken(plain: &Plain) -> usize {
    plain.len + usize::from(plain.fin)
}

fn end(plain: &Plain) -> u64 {
    plain.start + taken(plain) as u64
}
