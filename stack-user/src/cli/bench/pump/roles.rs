//! What a pump does with frames: it sends, receives, sends back, or sends one and waits for it.

use std::collections::VecDeque;

use hdrhistogram::Histogram;

use super::{
    engine::Role,
    frames::{self, Kind, Template},
};
use crate::{
    device::Umem,
    frame::{CompletedFrame, FramePool as _, RxFrame, TxFrame},
    runtime::Clock,
    time::{Duration, Instant},
};

/// How long a sender waits for what it has sent last, and how long one waits for a frame that should come back. Lower, and a
/// machine that was busy with something else loses frames that are still there; higher, and each that is lost costs more.
const PATIENCE: Duration = Duration::from_millis(100);

/// How long it takes until nobody sends any more. Lower, and a sender that was not scheduled is taken for one that is done.
const SILENCE: Duration = Duration::from_secs(1);

/// When to look again whether there is room to send: the kernel does not tell.
const TX_RETRY: Duration = Duration::from_micros(200);

/// Digits of a latency that are kept.
const DIGITS: u8 = 3;

/// What has gone, or come, since when.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) frames: u64,
    pub(super) bytes: u64,
    /// When the first one came, or was to go, and when the last one did.
    pub(super) span: Option<(Instant, Instant)>,
}

impl Tally {
    fn add(&mut self, now: Instant, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes as u64;
        let (first, _) = self.span.unwrap_or((now, now));
        self.span = Some((first, now));
    }

    /// From the first to the last.
    pub(super) fn time(&self) -> Duration {
        self.span.map_or(Duration::ZERO, |(first, last)| last.since(first))
    }
}

/// Sends as fast as it can.
///
/// A frame is written once: what has been sent is sent again, with another number. The last one to come back goes first, as
/// its bytes are still in the cache.
pub(super) struct Sender {
    template: Template,
    burst: usize,
    clock: Clock,
    end: Instant,
    next: u64,
    in_flight: usize,
    /// By chunk: whether it is the first one of a frame of ours.
    is_ours: Vec<bool>,
    ready: Vec<TxFrame>,
    pub(super) tally: Tally,
}

impl Sender {
    pub(super) fn new(template: Template, burst: usize, clock: Clock, time: Duration) -> Self {
        let now = clock.now();
        Self {
            template,
            burst,
            clock,
            end: now + time,
            next: 0,
            in_flight: 0,
            is_ours: Vec::new(),
            ready: Vec::new(),
            tally: Tally { span: Some((now, now)), ..Tally::default() },
        }
    }

    /// A frame of ours, whatever its number.
    fn frame(&mut self, umem: &mut Umem) -> Option<TxFrame> {
        if let Some(frame) = self.ready.pop() {
            return Some(frame);
        }
        let frame = written(&self.template, umem)?;
        self.is_ours.resize(umem.chunks(), false);
        if let Some(is_ours) = self.is_ours.get_mut(frame.chunk() as usize) {
            *is_ours = true;
        }
        Some(frame)
    }
}

impl Role for Sender {
    fn receive(&mut self, _: Instant, _: u64, _: &RxFrame, _: &mut Umem, _: &mut VecDeque<TxFrame>) {}

    fn send(&mut self, now: Instant, room: usize, umem: &mut Umem, outgoing: &mut VecDeque<TxFrame>) {
        let each = self.template.bytes().len().div_ceil(umem.tx_capacity());
        let count = if now < self.end { self.burst.min(room / each.max(1)) } else { 0 };
        while outgoing.len() < count
            && let Some(mut frame) = self.frame(umem)
        {
            self.template.set_number(umem.tx_buffer(&mut frame), self.next);
            self.next += 1;
            self.in_flight += 1;
            outgoing.push_back(frame);
        }
    }

    fn take_back(&mut self, frame: CompletedFrame) -> Option<CompletedFrame> {
        if !self.is_ours.get(frame.chunk() as usize).is_some_and(|is| *is) {
            return Some(frame);
        }
        let len = self.template.bytes().len();
        self.ready.push(frame.into_tx(len));
        self.in_flight -= 1;
        self.tally.frames += 1;
        self.tally.bytes += len as u64;
        if self.in_flight == 0 {
            let now = self.clock.now();
            self.tally.span = self.tally.span.map(|(first, _)| (first, now));
        }
        None
    }

    fn due(&self, now: Instant) -> Option<Instant> {
        Some(now + TX_RETRY)
    }

    fn is_over(&self, now: Instant) -> bool {
        now >= self.end && (self.in_flight == 0 || now.since(self.end) >= PATIENCE)
    }

    fn finish(&mut self, umem: &mut Umem) {
        self.is_ours.clear();
        self.ready.drain(..).for_each(|frame| umem.release_tx(frame));
    }
}

/// Counts what comes, until the sender is done.
pub(super) struct Receiver {
    /// At most, from the first frame on.
    time: Option<Duration>,
    /// Until when the first frame has to come.
    patience: Instant,
    numbers: Option<(u64, u64)>,
    pub(super) tally: Tally,
}

impl Receiver {
    pub(super) fn new(clock: Clock, time: Option<Duration>, patience: Duration) -> Self {
        let patience = clock.now() + patience;
        Self { time, patience, numbers: None, tally: Tally::default() }
    }

    /// When it is over, as far as is known.
    fn end(&self) -> Instant {
        let Some((first, last)) = self.tally.span else { return self.patience };
        let silence = last + SILENCE;
        self.time.map_or(silence, |time| silence.min(first + time))
    }

    /// Numbers between the least and the greatest that have not come.
    pub(super) fn lost(&self) -> u64 {
        self.numbers.map_or(0, |(least, greatest)| {
            greatest.saturating_sub(least).saturating_add(1).saturating_sub(self.tally.frames)
        })
    }
}

impl Role for Receiver {
    fn receive(
        &mut self,
        now: Instant,
        number: u64,
        frame: &RxFrame,
        _: &mut Umem,
        _: &mut VecDeque<TxFrame>,
    ) {
        self.tally.add(now, frame.len());
        let (least, greatest) = self.numbers.unwrap_or((number, number));
        self.numbers = Some((least.min(number), greatest.max(number)));
    }

    fn due(&self, _: Instant) -> Option<Instant> {
        Some(self.end())
    }

    fn is_over(&self, now: Instant) -> bool {
        now >= self.end()
    }
}

/// Sends back what comes.
pub(super) struct Echo {
    pub(super) receiver: Receiver,
    /// The bytes of a frame on their way from its chunks to others.
    bytes: Vec<u8>,
}

impl Echo {
    pub(super) fn new(receiver: Receiver) -> Self {
        Self { receiver, bytes: Vec::new() }
    }
}

impl Role for Echo {
    fn receive(
        &mut self,
        now: Instant,
        number: u64,
        frame: &RxFrame,
        umem: &mut Umem,
        outgoing: &mut VecDeque<TxFrame>,
    ) {
        self.receiver.receive(now, number, frame, umem, outgoing);
        // Without a chunk to answer in, whoever asked sees a frame that was lost.
        let Some(mut answer) = umem.allocate_tx(frame.len()) else { return };
        self.bytes.clear();
        umem.rx_pieces(frame).for_each(|piece| self.bytes.extend_from_slice(piece));
        frames::turn_round(&mut self.bytes);
        let len = umem.tx_write(&mut answer, 0, &self.bytes);
        answer.set_len(len);
        outgoing.push_back(answer);
    }

    fn due(&self, now: Instant) -> Option<Instant> {
        self.receiver.due(now)
    }

    fn is_over(&self, now: Instant) -> bool {
        self.receiver.is_over(now)
    }
}

/// Sends a frame, waits until it comes back, and sends the next.
pub(super) struct Pinger {
    template: Template,
    clock: Clock,
    end: Instant,
    next: u64,
    /// The one that is under way, and since when.
    waits: Option<(u64, Instant)>,
    pub(super) lost: u64,
    pub(super) tally: Tally,
    pub(super) latency: Histogram<u64>,
}

impl Pinger {
    /// None if the histogram can't be made, which only its own limits could be the reason for.
    pub(super) fn new(template: Template, clock: Clock, time: Duration) -> Option<Self> {
        let most = u64::try_from(PATIENCE.as_nanos()).unwrap_or(u64::MAX);
        Some(Self {
            template,
            end: clock.now() + time,
            clock,
            next: 0,
            waits: None,
            lost: 0,
            tally: Tally::default(),
            latency: Histogram::new_with_max(most, DIGITS).ok()?,
        })
    }
}

impl Role for Pinger {
    const RECEIVES: Kind = Kind::SentBack;

    fn receive(&mut self, _: Instant, number: u64, frame: &RxFrame, _: &mut Umem, _: &mut VecDeque<TxFrame>) {
        let Some((_, since)) = self.waits.filter(|(waits, _)| *waits == number) else { return };
        let now = self.clock.now();
        self.waits = None;
        self.tally.add(now, frame.len());
        self.latency.saturating_record(u64::try_from(now.since(since).as_nanos()).unwrap_or(u64::MAX));
    }

    fn send(&mut self, now: Instant, room: usize, umem: &mut Umem, outgoing: &mut VecDeque<TxFrame>) {
        if self.waits.is_some_and(|(_, since)| now.since(since) >= PATIENCE) {
            self.waits = None;
            self.lost += 1;
        }
        if self.waits.is_some() || room == 0 || now >= self.end {
            return;
        }
        if let Some(mut frame) = written(&self.template, umem) {
            self.template.set_number(umem.tx_buffer(&mut frame), self.next);
            self.waits = Some((self.next, self.clock.now()));
            self.next += 1;
            outgoing.push_back(frame);
        }
    }

    fn due(&self, now: Instant) -> Option<Instant> {
        Some(self.waits.map_or(now + TX_RETRY, |(_, since)| since + PATIENCE))
    }

    fn is_over(&self, now: Instant) -> bool {
        now >= self.end && self.waits.is_none_or(|(_, since)| now.since(since) >= PATIENCE)
    }

    fn finish(&mut self, _: &mut Umem) {
        self.lost += u64::from(self.waits.take().is_some());
    }
}

/// A frame with the template's bytes.
fn written(template: &Template, umem: &mut Umem) -> Option<TxFrame> {
    let mut frame = umem.allocate_tx(template.bytes().len())?;
    let len = umem.tx_write(&mut frame, 0, template.bytes());
    frame.set_len(len);
    Some(frame)
}
