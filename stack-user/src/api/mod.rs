//! The stack as a tokio program uses it.
//!
//! [`Stack::builder`] claims an address on an interface; [`TcpStream`], [`TcpListener`], [`UdpSocket`] and [`Resolver`] then are what
//! their namesakes are to the kernel's stack. When the last handle is dropped, the XDP program is detached and the
//! address is free again.
//!
//! ```no_run
//! use stack_user::api::{Stack, TcpListener};
//! use tokio::io::copy;
//!
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! let stack = Stack::builder().interface(Some("eth1".into())).start().await?;
//! let listener = TcpListener::bind(&stack, "0.0.0.0:7".parse()?).await?;
//! loop {
//!     let (stream, _peer) = listener.accept().await?;
//!     tokio::spawn(async move {
//!         let (mut reads, mut writes) = stream.into_split();
//!         copy(&mut reads, &mut writes).await
//!     });
//! }
//! # }
//! ```
//!
//! # Coming from tokio
//!
//! What has the same name does the same, and is cancel safe where tokio's is. All types are `Send + Sync`, and all of them
//! may be used from any runtime; a stack is driven by tasks on the one that it was started on, and is fastest when what uses a
//! shard runs where its driver does ([`Stack::on_shard`]). What differs:
//!
//! | tokio::net | Here | Why |
//! |---|---|---|
//! | `TcpStream::connect(addr)` | [`TcpStream::connect`]`(&stack, addr)`; `bind` likewise | there may be several stacks |
//! | `connect("example.com:80")`, `lookup_host` | [`TcpStream::connect_host`]`(&resolver, …)`, [`lookup_host`] | names are asked for through the stack, by a [`Resolver`] that remembers answers |
//! | `TcpSocket::new_v4()`, setters on `&self` | [`TcpSocket::new`]`(&stack)`, setters on `&mut self` | it is a description until it connects or listens, and can be cloned |
//! | `local_addr()`, `peer_addr()` give `io::Result` | a `SocketAddr`; [`UdpSocket::peer_addr`] may have none | a stream knows its ends for all its life. Traits that want the result get it from the [`connectors`] |
//! | setters give `io::Result` | nothing | setting what a connection that has ended would do has no effect; getters say `NotConnected` |
//! | `set_tos_v4` | `set_dscp` | the two bits below are congestion notification's, which TCP does itself |
//! | `set_linger` on `TcpSocket` only | on streams, too; [`TcpStream::close`] waits so long | dropping never waits here |
//! | `take_error()` | [`TcpStream::error`], which leaves it | reading tells it, too |
//! | – | [`TcpStream::info`] | Linux' `TCP_INFO` |
//! | `TcpListenerStream` of tokio-stream | [`TcpListener::incoming`], [`into_incoming`](TcpListener::into_incoming) | |
//! | `poll_recv_from(cx, &mut ReadBuf)` | a `&mut [u8]`, and the length is returned | a slice needs no bookkeeping |
//! | – | [`UdpSocket::recv_many`], [`try_send_many`](UdpSocket::try_send_many) | `recvmmsg`, `sendmmsg`, with ECN codepoints: QUIC wants them |
//! | one write takes what there is room for | 48 segments at most, or 16 KiB | what the windows allow leaves within the call, and others wait for its end |
//! | – | [`TcpStream::read_chunk`], [`reserve`](TcpStream::reserve) | no copy |
//!
//! Not there: `AsRawFd`, `from_std`, `into_std`, `try_io` and `async_io`, since no file descriptor is behind a stream;
//! `set_reuseaddr` and `set_reuseport`, since TIME-WAIT keeps no port from a listener and one listener is on all shards;
//! `bind_device`, since a stack has one interface; `set_quickack`; broadcast and multicast groups; Unix sockets.
//!
//! What hyper, axum, quinn and others need is in [`connectors`].

mod addresses;
mod builder;
pub mod connectors;
mod error;
mod in_place;
mod incoming;
mod inspect;
mod link;
#[cfg(feature = "cli")]
mod loan;
mod lookup;
mod options;
mod readiness;
mod resolver;
mod shards;
mod split;
mod tcp_listener;
mod tcp_socket;
mod tcp_stream;
mod turns;
mod udp_many;
mod udp_socket;

use std::{
    future::poll_fn,
    io,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, atomic::AtomicUsize},
    task::Poll,
};

use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

pub use builder::{
    AddressChoice, Builder, DispatcherGuard, ParseAddressError, ParseProgramError, ProgramChoice, StartError,
};
pub use in_place::{Chunk, Room};
pub use incoming::{Incoming, IntoIncoming};
pub use inspect::{ConnectionInfo, Cursor, NeighbourInfo, ShardInfo};
#[cfg(feature = "cli")]
pub(crate) use loan::Loan;
pub use lookup::{Target, ToSocketAddrs, lookup_host};
pub use resolver::{ResolveError, Resolver};
pub use split::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, WriteHalf};
pub use tcp_listener::TcpListener;
pub use tcp_socket::TcpSocket;
pub use tcp_stream::TcpStream;
pub use udp_many::Datagram;
pub use udp_socket::UdpSocket;

pub use crate::net::routes::Reach;
use crate::{
    device::{
        Device, Readable, Umem, busy_poll,
        xdp::program::{Program, ProgramError},
    },
    frame::FramePool,
    rng::Rng,
    runtime::{Clock, Life, Shard, drive},
    stack::{self, AddressEvent, Followers, HandOvers, TcpCounts},
    telemetry::{DropCounters, DropReason},
    time::Duration,
};

/// How often a free port is looked for that is free on all shards: one after the other is asked, so that two who look at
/// once may get in each other's way. Fewer, and one of them might fail; more does not help.
const PORT_ATTEMPTS: usize = 16;

/// A running stack: claimed addresses on one interface, and a shard for each of its queues. Clones are handles of the
/// same stack.
#[derive(Clone, Debug)]
pub struct Stack {
    running: Arc<Running>,
    /// The one shard that this handle reaches, if not all.
    only: Option<usize>,
}

#[derive(Debug)]
struct Running {
    /// Never empty.
    shards: Box<[Arc<Shard>]>,
    /// Where the driver of each runs.
    drivers: Box<[Handle]>,
    /// Whose turn it is to be given something new.
    next: AtomicUsize,
    /// What steers frames to us, as long as it lives. A device in memory needs none.
    program: Mutex<Option<Program>>,
    /// What to do about wrong checksums, if the link itself may be their cause.
    checksum_remedy: Option<String>,
    /// What the next life continues; its end is noted when we are gone.
    _life: Option<Life>,
    /// Where further addresses are claimed.
    place: addresses::Place,
    /// How long drivers poll before they sleep, and whether there is a NIC's driver to ask for frames meanwhile.
    poll: (Duration, bool),
    /// Follows what happens to the interface, if there is one.
    follower: OnceLock<AbortOnDropHandle<()>>,
    /// Let go when all else is.
    _held_interrupts: Option<busy_poll::Held>,
}

/// What a stack has besides its shards, if it has it.
#[derive(Debug, Default)]
struct Besides {
    /// Where the drivers run, in turn. None: where the stack is started.
    drivers: Vec<Handle>,
    program: Option<Program>,
    checksum_remedy: Option<String>,
    life: Option<Life>,
    place: addresses::Place,
    /// How long drivers poll before they sleep.
    poll: Duration,
    /// There is a NIC's driver to ask for frames meanwhile.
    asks_driver: bool,
    held_interrupts: Option<busy_poll::Held>,
    /// Shards gather what tasks write.
    gathers: bool,
}

impl Stack {
    /// How to start a stack on an interface of this host.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Runs `stack` over any device, a [memory NIC](crate::device::memory) for example. Must be called within a tokio
    /// runtime, where the driver's task is spawned.
    ///
    /// # Errors
    /// When the device's queues can't be waited on.
    pub fn over(stack: stack::Stack<Umem>, device: Box<dyn Device>, clock: Clock) -> io::Result<Self> {
        Self::over_all(vec![(stack, device)], clock, Vec::new())
    }

    /// Runs several stacks, each over a device of its own, as the shards of one: the devices are queues of one link, the stacks
    /// have the same link-layer address, and the first one claims addresses for all. The runtimes drive the shards, in turn;
    /// without any, this one does. Otherwise as [`over`](Self::over).
    ///
    /// # Errors
    /// As there; `InvalidInput` when there is none.
    pub fn over_all(
        mut shards: Vec<(stack::Stack<Umem>, Box<dyn Device>)>,
        clock: Clock,
        drivers: Vec<Handle>,
    ) -> io::Result<Self> {
        stack::unite(shards.iter_mut().map(|(stack, _)| stack), &mut Rng::from_os()?);
        Self::start(shards, clock, Besides { drivers, ..Besides::default() })
    }

    fn start(
        shards: Vec<(stack::Stack<Umem>, Box<dyn Device>)>,
        clock: Clock,
        besides: Besides,
    ) -> io::Result<Self> {
        let Besides {
            drivers,
            program,
            checksum_remedy,
            life,
            place,
            poll,
            asks_driver,
            held_interrupts,
            gathers,
        } = besides;
        if shards.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a stack needs a device"));
        }
        let driver_of = |number: usize| match &drivers[..] {
            [] => Handle::current(),
            drivers => drivers[number % drivers.len()].clone(),
        };
        let drivers: Box<[_]> = (0..shards.len()).map(driver_of).collect();
        let queues = shards.iter().zip(&drivers).map(|((_, device), driver)| {
            // Its reactor is that of the runtime which waits for it.
            let _entered = driver.enter();
            let queues = Readable::new(device.fds()?)?;
            Ok(if asks_driver { queues } else { queues.without_driver() })
        });
        let queues = queues.collect::<io::Result<Vec<_>>>()?;
        let new = if shards.len() > 1 { Shard::one_of_several } else { Shard::new };
        let shards = shards.into_iter().map(|(stack, device)| Arc::new(new(stack, device, clock)));
        let shards: Box<[Arc<Shard>]> = shards.collect();
        if gathers {
            shards.iter().for_each(|shard| shard.gather());
        }
        for ((shard, driver), queues) in shards.iter().zip(&drivers).zip(queues) {
            driver.spawn(drive(Arc::clone(shard), clock, queues, poll));
        }
        let (next, program) = (AtomicUsize::new(0), Mutex::new(program));
        let running = Running {
            shards,
            drivers,
            next,
            program,
            checksum_remedy,
            _life: life,
            place,
            poll: (poll, asks_driver),
            follower: OnceLock::new(),
            _held_interrupts: held_interrupts,
        };
        Ok(Self { running: Arc::new(running), only: None })
    }

    /// The shard that claims addresses.
    pub(super) fn shard(&self) -> &Shard {
        &self.running.shards[0]
    }

    /// The first of the claimed [addresses](Self::addresses).
    pub fn address(&self) -> Option<IpAddr> {
        self.shard().with(|core, _| core.stack.address())
    }

    /// How many frames were dropped, and why.
    pub fn drops(&self) -> DropCounters {
        let mut sum = DropCounters::default();
        for shard in self.shards() {
            shard.with(|core, _| sum.add(core.stack.drops()));
        }
        sum
    }

    /// What whoever runs this host should change, if what has arrived so far gives a reason.
    pub fn advice(&self) -> Option<String> {
        let drops = self.drops();
        let cut = drops.get(DropReason::Ipv4Truncated);
        if let Some(interface) = self.running.place.interface.as_ref().filter(|_| cut > 0) {
            return Some(format!(
                "{cut} packets came cut short: their senders did that, or the driver of {}, which then is used by --mode \
                 generic",
                interface.name
            ));
        }
        let remedy = self.running.checksum_remedy.as_ref()?;
        let wrong = drops.get(DropReason::TcpBadChecksum) + drops.get(DropReason::UdpBadChecksum);
        (wrong > 0).then(|| format!("{wrong} frames came with a wrong TCP or UDP checksum: {remedy}"))
    }

    /// Frames that came in on another queue than their connection's shard serves, as the shards count them.
    pub fn hand_overs(&self) -> HandOvers {
        let mut sum = HandOvers::default();
        for shard in self.shards() {
            shard.with(|core, _| sum.add(core.stack.hand_overs()));
        }
        sum
    }

    /// Segments that came and went behind another of their connection, and cost little for that: hardly any of bulk data, and
    /// the fast paths are not taken.
    pub fn followers(&self) -> Followers {
        let mut sum = Followers::default();
        for shard in self.shards() {
            shard.with(|core, _| sum.add(core.stack.followers()));
        }
        sum
    }

    /// How many TCP connections there are, and how many of them rest.
    pub fn tcp_counts(&self) -> TcpCounts {
        let mut sum = TcpCounts::default();
        for shard in self.shards() {
            shard.with(|core, _| sum.add(&core.stack.tcp_counts()));
        }
        sum
    }

    /// How many of the frames are free, and how many there are. The others are in the NIC's rings or hold data of
    /// connections.
    pub fn free_frames(&self) -> (usize, usize) {
        let of_shard = |shard: &Arc<Shard>| {
            shard.with(|core, _| (core.stack.pool().available(), core.stack.pool().chunks()))
        };
        let sum = |(free, all), (more, of)| (free + more, all + of);
        self.shards().iter().map(of_shard).fold((0, 0), sum)
    }

    /// The devices' own counters, by name.
    ///
    /// # Errors
    /// When the kernel does not tell them.
    pub fn device_counters(&self) -> io::Result<Vec<(&'static str, u64)>> {
        let mut sums: Vec<(&'static str, u64)> = Vec::new();
        for shard in self.shards() {
            for (name, count) in shard.with(|core, _| core.device().counters())? {
                match sums.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, sum)) => *sum += count,
                    None => sums.push((name, count)),
                }
            }
        }
        Ok(sums)
    }

    /// The XDP program's counters: how many frames got which verdict.
    ///
    /// # Errors
    /// When the kernel does not tell them.
    pub fn program_counters(&self) -> Result<Vec<(&'static str, u64)>, ProgramError> {
        self.program().as_mut().map_or_else(|| Ok(Vec::new()), |program| program.counters())
    }

    /// What steers frames to us. Whoever holds it may work on a shard, too, but not the other way round.
    fn program(&self) -> MutexGuard<'_, Option<Program>> {
        self.running.program.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until every [claim](stack::Stack::claim) that was started is decided, and tells of the first.
    ///
    /// # Errors
    /// Why the stack stopped, if it did.
    pub async fn claimed(&self) -> io::Result<AddressEvent> {
        poll_fn(|cx| {
            self.shard().with(|core, _| {
                core.running()?;
                let mut states = core.stack.address_states().map(|(_, state)| state);
                let first = states.next().filter(|first| *first != AddressEvent::Probing);
                match first.filter(|_| states.all(|state| state != AddressEvent::Probing)) {
                    Some(decided) => Poll::Ready(Ok(decided)),
                    None => {
                        core.waiters.wait_for_changes(cx);
                        Poll::Pending
                    }
                }
            })
        })
        .await
    }

    /// Closes the listeners, which resets what waits to be accepted. Lets the connections that were closed finish in
    /// order, for `grace` at most, then resets those that are left, so that no peer is left with a connection that nobody
    /// answers for.
    ///
    /// A connection in TIME-WAIT has finished: nothing but repetitions can come.
    pub async fn shut_down(&self, grace: Duration) {
        for shard in self.shards() {
            shard.with(|core, now| core.stack.tcp_unlisten_all(now));
        }
        let finished = async {
            for shard in self.shards() {
                poll_fn(|cx| {
                    shard.with(|core, _| {
                        if core.running().is_ok() && core.stack.has_unfinished_connections() {
                            core.waiters.wait_for_changes(cx);
                            Poll::Pending
                        } else {
                            Poll::Ready(())
                        }
                    })
                })
                .await;
            }
        };
        if tokio::time::timeout(grace, finished).await.is_err() {
            for shard in self.shards() {
                shard.with(|core, now| core.stack.abort_all(now));
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shards.iter().for_each(|shard| shard.close());
    }
}
