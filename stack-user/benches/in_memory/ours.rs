//! Our stacks. What a round does is in parts that can be measured, each by itself.

use stack_user::{
    device::Umem,
    frame::{FramePool, RxFrame, TxFrame},
    net::{acd::Schedule, route::Prefix},
    rng::Rng,
    stack::{AddressEvent, Stack, TcpId},
    tcp::Config,
    time::{Duration, Instant},
    wire::MacAddr,
};

use super::{APPLICATION_BUFFER, BURST, MTU, Stream, pattern};

const READER: [u8; 4] = [192, 0, 2, 1];
const WRITER: [u8; 4] = [192, 0, 2, 2];

/// What a round takes in virtual time: long enough that no pacing shows.
const ROUND: Duration = Duration::from_micros(100);

/// Rounds without a byte, after which something is wrong.
const PATIENCE: usize = 10_000;

/// A stream from one stack to another.
pub(crate) struct Ours {
    pub(crate) now: Instant,
    pub(crate) writer: Stack<Umem>,
    pub(crate) reader: Stack<Umem>,
    from: TcpId,
    to: TcpId,
    source: Vec<u8>,
    /// Where in it the next write begins.
    written: usize,
    sink: Vec<u8>,
    /// Frames between the steps of a round.
    sent: Vec<TxFrame>,
    received: Vec<RxFrame>,
    /// Bytes that the reading application has taken, segments that brought them, and pure ACKs.
    pub(crate) taken: usize,
    pub(crate) segments: usize,
    pub(crate) acks: usize,
}

impl Ours {
    /// A stream whose ends have buffers of so many bytes, or of the usual sizes.
    pub(crate) fn open(buffers: Option<usize>) -> Self {
        let config = buffers.map_or_else(Config::default, |size| Config {
            recv_buffer: size,
            recv_buffer_max: size,
            send_buffer: size,
            send_buffer_max: size,
            ..Config::default()
        });
        let mut now = Instant::ZERO;
        let [mut reader, mut writer] = [READER, WRITER].map(|address| stack(now, address, &config));
        let claimed = |stack: &Stack<Umem>, address: [u8; 4]| {
            stack.address_state(address.into()) == Some(AddressEvent::Claimed)
        };
        let (mut sent, mut received) = (Vec::new(), Vec::new());
        let mut exchange = |now: Instant, from: &mut Stack<Umem>, to: &mut Stack<Umem>| {
            from.handle_timeout(now);
            take(now, from, &mut sent);
            wire(from, to, &sent, &mut received);
            complete(now, from, &mut sent);
            received.drain(..).for_each(|frame| to.handle_frame(now, frame));
        };
        let mut round = |now: &mut Instant, reader: &mut Stack<Umem>, writer: &mut Stack<Umem>| {
            exchange(*now, writer, reader);
            exchange(*now, reader, writer);
            *now += Duration::from_millis(1);
        };
        while !claimed(&reader, READER) || !claimed(&writer, WRITER) {
            round(&mut now, &mut reader, &mut writer);
        }
        let listener = reader.tcp_listen(now, (READER, 80).into(), 1).expect("a free port");
        let (from, _) = writer.tcp_connect(now, (READER, 80).into()).expect("a route");
        let to = loop {
            round(&mut now, &mut reader, &mut writer);
            if let Some((id, _)) = reader.tcp_accept(now, listener) {
                break id;
            }
        };
        Self {
            now,
            writer,
            reader,
            from,
            to,
            source: pattern(APPLICATION_BUFFER),
            written: 0,
            sink: vec![0; APPLICATION_BUFFER],
            sent,
            received,
            taken: 0,
            segments: 0,
            acks: 0,
        }
    }

    /// One turn of everybody.
    #[inline(never)]
    pub(crate) fn round(&mut self) {
        self.write();
        self.send();
        self.deliver();
        self.complete();
        self.receive();
        self.read();
        self.acknowledge();
        self.deliver_acks();
        self.complete_acks();
        self.hear();
        self.pass_time();
    }

    /// The application writes what there is room for.
    #[inline(never)]
    pub(crate) fn write(&mut self) {
        while let Ok(n) = self.writer.tcp_write(self.now, self.from, &self.source[self.written..]) {
            self.written = (self.written + n) % self.source.len();
        }
        while self.writer.poll_event().is_some() {}
    }

    /// The writer's stack makes frames of it.
    #[inline(never)]
    pub(crate) fn send(&mut self) {
        take(self.now, &mut self.writer, &mut self.sent);
        self.segments += self.sent.len();
    }

    /// What a NIC does: the frames are copied into the other one's memory.
    #[inline(never)]
    pub(crate) fn deliver(&mut self) {
        wire(&self.writer, &mut self.reader, &self.sent, &mut self.received);
    }

    /// The frames are given back as sent.
    #[inline(never)]
    pub(crate) fn complete(&mut self) {
        complete(self.now, &mut self.writer, &mut self.sent);
    }

    /// The reader's stack takes the frames in.
    #[inline(never)]
    pub(crate) fn receive(&mut self) {
        self.reader.handle_burst(self.now, &mut self.received);
    }

    /// The application reads all that there is.
    #[inline(never)]
    pub(crate) fn read(&mut self) {
        while self.reader.poll_event().is_some() {}
        while let Ok(n) = self.reader.tcp_read(self.now, self.to, &mut self.sink) {
            self.taken += n;
        }
    }

    /// The reader's stack says what has come.
    #[inline(never)]
    pub(crate) fn acknowledge(&mut self) {
        take(self.now, &mut self.reader, &mut self.sent);
        self.acks += self.sent.len();
    }

    /// As [`deliver`](Self::deliver), in the other direction.
    #[inline(never)]
    pub(crate) fn deliver_acks(&mut self) {
        wire(&self.reader, &mut self.writer, &self.sent, &mut self.received);
    }

    /// As [`complete`](Self::complete), in the other direction.
    #[inline(never)]
    pub(crate) fn complete_acks(&mut self) {
        complete(self.now, &mut self.reader, &mut self.sent);
    }

    /// The writer's stack hears of it.
    #[inline(never)]
    pub(crate) fn hear(&mut self) {
        self.writer.handle_burst(self.now, &mut self.received);
    }

    /// Both stacks do what is due.
    #[inline(never)]
    pub(crate) fn pass_time(&mut self) {
        self.now += ROUND;
        self.writer.handle_timeout(self.now);
        self.reader.handle_timeout(self.now);
    }

    /// Carries some bytes and compares each of them. Nothing of what is timed afterwards is looked at.
    pub(crate) fn verify(&mut self) {
        let mut at = 0;
        while at < 4 * self.source.len() {
            self.write();
            self.send();
            self.deliver();
            self.complete();
            self.receive();
            while let Ok(n) = self.reader.tcp_read(self.now, self.to, &mut self.sink) {
                for &byte in &self.sink[..n] {
                    assert_eq!(byte, self.source[at % self.source.len()], "byte {at} of the stream");
                    at += 1;
                }
            }
            self.acknowledge();
            self.deliver_acks();
            self.complete_acks();
            self.hear();
            self.pass_time();
        }
    }
}

impl Stream for Ours {
    fn carry(&mut self, bytes: usize) {
        let end = self.taken + bytes;
        let mut idle = 0;
        while self.taken < end {
            let before = self.taken;
            self.round();
            idle = if self.taken == before { idle + 1 } else { 0 };
            assert!(idle < PATIENCE, "the stream has come to a halt after {before} bytes");
        }
    }

    fn segment(&self) -> usize {
        // IP, TCP and timestamps.
        MTU - 20 - 20 - 12
    }
}

fn stack(now: Instant, address: [u8; 4], config: &Config) -> Stack<Umem> {
    let [.., last] = address;
    let frames = Umem::on_heap(8192).expect("memory");
    let mac = MacAddr([2, 0, 0, 0, 0, last]);
    let mut stack = Stack::new(now, mac, None, frames, Rng::from_seed(last.into()));
    stack.set_tcp_config(config.clone());
    let network = Prefix::new([192, 0, 2, 0].into(), 24).expect("a prefix");
    stack.claim(now, address.into(), network, None, MTU as u16, Schedule::Fast).expect("an address");
    stack
}

/// Takes what a stack has to send, as much as fits on a ring.
fn take(now: Instant, stack: &mut Stack<Umem>, frames: &mut Vec<TxFrame>) {
    stack.transmit(now, BURST - frames.len(), |frame| frames.push(frame));
}

fn wire(from: &Stack<Umem>, to: &mut Stack<Umem>, sent: &[TxFrame], received: &mut Vec<RxFrame>) {
    for frame in sent {
        let free = to.pool_mut().allocate().expect("a free chunk");
        received.push(to.pool_mut().receive(free, from.pool().tx_bytes(frame)));
    }
}

fn complete(now: Instant, stack: &mut Stack<Umem>, sent: &mut Vec<TxFrame>) {
    stack.handle_completions(now, sent.drain(..).map(TxFrame::into_completed));
}
