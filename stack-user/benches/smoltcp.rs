//! smoltcp over our device: what another protocol stack makes of the same rings, memory and XDP program. For `cargo xtask bench`.
//!
//! `send` and `receive` are smoltcp's ends, which always poll; `sink` and `source` are the kernel's, for the other side of the
//! link. One connection, one result, on stdout.

#![allow(missing_docs)]

use std::{
    collections::VecDeque,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpListener},
    process::ExitCode,
    time::{Duration, Instant as Clock},
};

use clap::{Parser, Subcommand};
use serde_json::json;
use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::{self, DeviceCapabilities, Medium},
    socket::tcp::{Socket, SocketBuffer, State},
    time::Instant as SmolInstant,
    wire::{EthernetAddress, IpCidr, Ipv4Cidr},
};
use stack_user::{
    device::{
        BURST, Device as _, RxView, Umem, interface,
        xdp::{self, Mode, RingSize, XdpDevice, program::Program},
    },
    frame::{CompletedFrame, FramePool as _, RxFrame, TxFrame},
    time::Instant,
};

/// What an application reads and writes at once: iperf3's size.
const BUFFER: usize = 128 * 1024;

/// How long a connection may take to begin, or to end.
const PATIENCE: Duration = Duration::from_secs(5);

type Failure = Box<dyn std::error::Error>;

/// One connection of smoltcp over AF_XDP, and the kernel's other end of it.
#[derive(Parser)]
#[command(name = "smoltcp")]
struct Args {
    #[command(subcommand)]
    role: Role,
    /// What cargo adds
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Role {
    /// Connect, and send for some seconds
    Send {
        #[command(flatten)]
        link: Link,
        /// Seconds
        #[arg(short = 't', long, default_value_t = 10.0)]
        time: f64,
    },
    /// Connect, and receive until the other end closes
    Receive {
        #[command(flatten)]
        link: Link,
    },
    /// Accept one connection of the kernel's, and read it to its end
    Sink {
        /// Where
        listen: SocketAddrV4,
    },
    /// Accept one connection of the kernel's, and write to it for some seconds
    Source {
        /// Where
        listen: SocketAddrV4,
        /// Seconds
        #[arg(short = 't', long, default_value_t = 10.0)]
        time: f64,
    },
}

#[derive(clap::Args)]
struct Link {
    /// Whom to connect to, on the same link
    remote: SocketAddrV4,
    /// The interface
    #[arg(long)]
    interface: String,
    /// Our address
    #[arg(long)]
    address: Ipv4Addr,
    /// Bits of its network
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u8).range(1..=32))]
    prefix: u8,
    /// Descriptors in each ring
    #[arg(long, default_value_t)]
    ring_size: RingSize,
    /// Bytes of each of the connection's buffers
    #[arg(long, default_value_t = 1 << 20)]
    buffer: usize,
}

fn main() -> ExitCode {
    let result = match Args::parse().role {
        Role::Send { link, time } => Peer::open(&link).and_then(|peer| peer.send(seconds(time))),
        Role::Receive { link } => Peer::open(&link).and_then(Peer::receive),
        Role::Sink { listen } => sink(listen),
        Role::Source { listen, time } => source(listen, seconds(time)),
    };
    match result {
        Ok((bytes, time)) => {
            let seconds = time.as_secs_f64();
            let bits = if seconds > 0.0 { bytes as f64 * 8.0 / seconds } else { 0.0 };
            println!(
                "{}",
                json!({ "benchmark": "bulk", "bytes": bytes, "seconds": seconds, "bits_per_second": bits })
            );
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("smoltcp: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn seconds(time: f64) -> Duration {
    Duration::try_from_secs_f64(time).unwrap_or_default()
}

/// Bytes, and how long they took.
type Moved = Result<(u64, Duration), Failure>;

fn sink(listen: SocketAddrV4) -> Moved {
    let (mut stream, _) = TcpListener::bind(listen)?.accept()?;
    let mut buffer = vec![0; BUFFER];
    let (mut bytes, mut start) = (0, None);
    loop {
        let read = stream.read(&mut buffer)?;
        let start = *start.get_or_insert_with(Clock::now);
        if read == 0 {
            return Ok((bytes, start.elapsed()));
        }
        bytes += read as u64;
    }
}

fn source(listen: SocketAddrV4, time: Duration) -> Moved {
    let (mut stream, _) = TcpListener::bind(listen)?.accept()?;
    let (buffer, start, mut bytes) = (vec![0; BUFFER], Clock::now(), 0);
    while start.elapsed() < time {
        bytes += stream.write(&buffer)? as u64;
    }
    Ok((bytes, start.elapsed()))
}

/// The NIC as smoltcp wants it.
struct Nic {
    device: XdpDevice,
    umem: Umem,
    start: Clock,
    mtu: usize,
    incoming: VecDeque<RxFrame>,
    received: Vec<RxFrame>,
    outgoing: VecDeque<TxFrame>,
    done: Vec<CompletedFrame>,
    /// Where a frame is written that lies in several chunks.
    scratch: Vec<u8>,
}

/// A frame that has come: in its place, or the pieces of a long one together.
enum Bytes {
    View(RxView),
    Copy(Vec<u8>),
}

struct Incoming<'a> {
    bytes: Bytes,
    received: &'a mut Vec<RxFrame>,
}

struct Outgoing<'a> {
    umem: &'a mut Umem,
    outgoing: &'a mut VecDeque<TxFrame>,
    scratch: &'a mut Vec<u8>,
}

impl Nic {
    /// Gives back what was read and what was sent, sends what was written, and receives.
    fn turn(&mut self) {
        let now = Instant::from_nanos(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX));
        self.device.completions(&mut self.umem, &mut self.done);
        self.done.drain(..).for_each(|frame| self.umem.release_completed(frame));
        if !self.outgoing.is_empty() {
            self.device.tx_burst(now, &mut self.umem, &mut self.outgoing);
        }
        self.received.drain(..).for_each(|frame| self.umem.release_rx(frame));
        if self.incoming.is_empty() {
            self.device.rx_burst(now, &mut self.umem, &mut self.received);
            self.incoming.extend(self.received.drain(..));
        }
    }
}

impl phy::RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        match self.bytes {
            Bytes::View(view) => {
                let result = f(&view);
                self.received.push(view.into_frame());
                result
            }
            Bytes::Copy(bytes) => f(&bytes),
        }
    }
}

impl phy::TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let Some(mut frame) = self.umem.allocate_tx(len) else {
            // Written, and lost: smoltcp sends it again.
            self.scratch.resize(len, 0);
            return f(self.scratch);
        };
        frame.set_len(len);
        let result = if frame.is_long() {
            self.scratch.resize(len, 0);
            let result = f(self.scratch);
            self.umem.tx_write(&mut frame, 0, self.scratch);
            result
        } else {
            f(&mut self.umem.tx_buffer(&mut frame)[..len])
        };
        self.outgoing.push_back(frame);
        result
    }
}

impl phy::Device for Nic {
    type RxToken<'a> = Incoming<'a>;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: SmolInstant) -> Option<(Incoming<'_>, Outgoing<'_>)> {
        let frame = self.incoming.pop_front()?;
        let bytes = if frame.is_long() {
            let bytes = self.umem.rx_gather(&frame).into_owned();
            self.umem.release_rx(frame);
            Bytes::Copy(bytes)
        } else {
            Bytes::View(self.umem.view(frame))
        };
        let Self { umem, received, outgoing, scratch, .. } = self;
        Some((Incoming { bytes, received }, Outgoing { umem, outgoing, scratch }))
    }

    fn transmit(&mut self, _: SmolInstant) -> Option<Outgoing<'_>> {
        let room = self.device.tx_room().min(BURST);
        (self.outgoing.len() < room).then_some(())?;
        let Self { umem, outgoing, scratch, .. } = self;
        Some(Outgoing { umem, outgoing, scratch })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + 14;
        capabilities
    }
}

/// smoltcp with one connection.
struct Peer {
    nic: Nic,
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    /// Takes the program away when it is dropped.
    _program: Program,
}

impl Peer {
    /// Attaches the program, claims the address and connects.
    fn open(link: &Link) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let found = runtime.block_on(interface::find(Some(&link.interface)))?;
        let mut program = Program::attach(&link.interface, Mode::Auto, None)?;
        let options =
            xdp::Options { ring_size: link.ring_size.get(), mtu: found.mtu, ..xdp::Options::default() };
        let (device, umem, _) = xdp::open(&link.interface, &[0], &options)?;
        for (queue, socket) in device.sockets() {
            program.bind_socket(queue, socket)?;
        }
        program.claim(link.address.into(), 0, &[])?;
        let mut nic = Nic {
            device,
            umem,
            start: Clock::now(),
            mtu: found.mtu as usize,
            incoming: VecDeque::new(),
            received: Vec::new(),
            outgoing: VecDeque::new(),
            done: Vec::new(),
            scratch: Vec::new(),
        };
        let mut config = Config::new(EthernetAddress(found.mac.0).into());
        config.random_seed = u64::from(std::process::id());
        let mut interface = Interface::new(config, &mut nic, SmolInstant::ZERO);
        interface.update_ip_addrs(|addresses| {
            // There is room for at least one.
            let _ = addresses.push(IpCidr::Ipv4(Ipv4Cidr::new(link.address, link.prefix)));
        });
        let mut sockets = SocketSet::new(Vec::new());
        let buffer = || SocketBuffer::new(vec![0; link.buffer]);
        let socket = sockets.add(Socket::new(buffer(), buffer()));
        // A port that no earlier run has used a moment ago.
        let port = 49_152 + (std::process::id() % 16_384) as u16;
        sockets.get_mut::<Socket<'_>>(socket).connect(
            interface.context(),
            (link.remote.ip().to_owned(), link.remote.port()),
            port,
        )?;
        let mut peer = Self { nic, interface, sockets, socket, _program: program };
        peer.poll_until(|socket| socket.may_send() || !socket.is_open());
        match peer.socket().may_send() {
            true => Ok(peer),
            false => Err(format!("no connection to {}", link.remote).into()),
        }
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.socket)
    }

    fn poll(&mut self) {
        self.nic.turn();
        let now =
            SmolInstant::from_micros(i64::try_from(self.nic.start.elapsed().as_micros()).unwrap_or(i64::MAX));
        self.interface.poll(now, &mut self.nic, &mut self.sockets);
    }

    /// Polls until then, but not for ever. Whether it has come to that.
    fn poll_until(&mut self, is_so: impl Fn(&Socket<'_>) -> bool) -> bool {
        let start = Clock::now();
        while !is_so(self.socket()) {
            if start.elapsed() > PATIENCE {
                return false;
            }
            self.poll();
        }
        true
    }

    fn send(mut self, time: Duration) -> Moved {
        let (buffer, start, mut bytes) = (vec![0; BUFFER], Clock::now(), 0);
        while start.elapsed() < time {
            self.poll();
            bytes += self.socket().send_slice(&buffer)? as u64;
        }
        self.socket().close();
        let all_came = self.poll_until(|socket| socket.send_queue() == 0);
        let took = start.elapsed();
        self.poll_until(|socket| matches!(socket.state(), State::TimeWait | State::Closed));
        if all_came { Ok((bytes, took)) } else { Err("what was sent last did not come".into()) }
    }

    fn receive(mut self) -> Moved {
        let mut buffer = vec![0; BUFFER];
        let (mut start, mut last, mut bytes) = (None, Clock::now(), 0);
        while self.socket().may_recv() {
            self.poll();
            if !self.socket().can_recv() {
                if last.elapsed() > PATIENCE {
                    return Err("nothing comes any more".into());
                }
                continue;
            }
            bytes += self.socket().recv_slice(&mut buffer)? as u64;
            last = Clock::now();
            start.get_or_insert(last);
        }
        self.socket().close();
        self.poll_until(|socket| matches!(socket.state(), State::TimeWait | State::Closed));
        Ok((bytes, start.map_or(Duration::ZERO, |start| last - start)))
    }
}
