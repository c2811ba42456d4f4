//! smoltcp, as it comes: with checksums both ways, no congestion control, and no timestamps.

use std::collections::VecDeque;

use smoltcp::{
    iface::{Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet},
    phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::tcp::{Socket, SocketBuffer},
    time::{Duration, Instant},
    wire::{EthernetAddress, IpAddress, IpCidr},
};

use super::{APPLICATION_BUFFER, BURST, MTU, Stream, pattern};

/// A frame's room: Ethernet included, and rounded up.
const FRAME: usize = 2048;

const ROUND: Duration = Duration::from_micros(100);

/// A frame, and how long it is.
type Frame = (Box<[u8; FRAME]>, usize);

/// A NIC whose frames change hands and are not copied.
#[derive(Default)]
struct Nic {
    incoming: VecDeque<Frame>,
    outgoing: VecDeque<Frame>,
    /// Frames to write into, and frames that were read.
    spare: Vec<Frame>,
    used: Vec<Frame>,
}

impl Nic {
    /// Hands what was sent over to the other end, and gets its empty frames.
    fn hand_over(&mut self, other: &mut Self) {
        other.incoming.append(&mut self.outgoing);
        self.spare.append(&mut other.used);
        other.spare.append(&mut self.used);
    }
}

struct Received<'a> {
    frame: Frame,
    used: &'a mut Vec<Frame>,
}

struct Sent<'a> {
    outgoing: &'a mut VecDeque<Frame>,
    spare: &'a mut Vec<Frame>,
}

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        let result = f(&self.frame.0[..self.frame.1]);
        self.used.push(self.frame);
        result
    }
}

impl TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let (mut bytes, _) = self.spare.pop().unwrap_or_else(|| (Box::new([0; FRAME]), 0));
        let result = f(&mut bytes[..len]);
        self.outgoing.push_back((bytes, len));
        result
    }
}

impl Device for Nic {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sent<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Sent<'_>)> {
        let frame = self.incoming.pop_front()?;
        let Self { outgoing, spare, used, .. } = self;
        Some((Received { frame, used }, Sent { outgoing, spare }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sent<'_>> {
        let Self { outgoing, spare, .. } = self;
        (outgoing.len() < BURST).then_some(Sent { outgoing, spare })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MTU + 14;
        capabilities
    }
}

struct End {
    nic: Nic,
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
}

impl End {
    fn new(last: u8, buffers: usize) -> Self {
        let mut nic = Nic::default();
        let config = Config::new(EthernetAddress([2, 0, 0, 0, 0, last]).into());
        let mut interface = Interface::new(config, &mut nic, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(IpAddress::v4(192, 0, 2, last), 24)).expect("room for one");
        });
        let [rx, tx] = [(); 2].map(|()| SocketBuffer::new(vec![0; buffers]));
        let mut sockets = SocketSet::new(Vec::new());
        let socket = sockets.add(Socket::new(rx, tx));
        Self { nic, interface, sockets, socket }
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.socket)
    }

    fn take_in(&mut self, now: Instant) {
        let Self { nic, interface, sockets, .. } = self;
        while interface.poll_ingress_single(now, nic, sockets) != PollIngressSingleResult::None {}
    }

    fn send(&mut self, now: Instant) {
        let Self { nic, interface, sockets, .. } = self;
        while interface.poll_egress(now, nic, sockets) != PollResult::None {}
    }
}

/// A stream from one stack to another.
pub(crate) struct Smoltcp {
    now: Instant,
    writer: End,
    reader: End,
    source: Vec<u8>,
    sink: Vec<u8>,
    taken: usize,
}

impl Smoltcp {
    /// A stream whose ends have buffers of so many bytes.
    pub(crate) fn open(buffers: usize) -> Self {
        let [mut reader, mut writer] = [1, 2].map(|last| End::new(last, buffers));
        reader.socket().listen(80).expect("a port");
        let End { interface, sockets, socket, .. } = &mut writer;
        let connecting = sockets.get_mut::<Socket<'_>>(*socket);
        let remote = (IpAddress::v4(192, 0, 2, 1), 80);
        connecting.connect(interface.context(), remote, 49_152).expect("a route");
        let source = pattern(APPLICATION_BUFFER);
        let sink = vec![0; APPLICATION_BUFFER];
        Self { now: Instant::ZERO, writer, reader, source, sink, taken: 0 }
    }

    fn round(&mut self) {
        let Self { now, writer, reader, source, sink, taken } = self;
        while let Ok(1..) = writer.socket().send_slice(source) {}
        writer.send(*now);
        writer.nic.hand_over(&mut reader.nic);
        reader.take_in(*now);
        while let Ok(n @ 1..) = reader.socket().recv_slice(sink) {
            *taken += n;
        }
        reader.send(*now);
        reader.nic.hand_over(&mut writer.nic);
        writer.take_in(*now);
        *now += ROUND;
    }
}

impl Stream for Smoltcp {
    fn carry(&mut self, bytes: usize) {
        let end = self.taken + bytes;
        while self.taken < end {
            self.round();
            assert!(self.now < Instant::ZERO + Duration::from_secs(86_400), "the stream has come to a halt");
        }
    }

    fn segment(&self) -> usize {
        MTU - 20 - 20
    }
}
