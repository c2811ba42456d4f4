//! The stack as a tokio program uses it.
//!
//! [`Stack::builder`] claims an address on an interface; [`TcpStream`], [`TcpListener`], [`UdpSocket`] and [`Resolver`] then are what
//! their namesakes are to the kernel's stack. When the last handle is dropped, the XDP program is detached and the
//! address is free again.

mod builder;
mod error;
mod in_place;
mod resolver;
mod split;
mod tcp_listener;
mod tcp_socket;
mod tcp_stream;
mod udp_socket;

use std::{
    future::poll_fn,
    io,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
};

pub use builder::{AddressChoice, Builder, ParseAddressError, ParseProgramError, ProgramChoice, StartError};
pub use in_place::{Chunk, Room};
pub use resolver::{ResolveError, Resolver};
pub use split::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, WriteHalf};
pub use tcp_listener::TcpListener;
pub use tcp_socket::TcpSocket;
pub use tcp_stream::TcpStream;
pub use udp_socket::UdpSocket;

use crate::{
    device::{
        Device, Readable, Umem,
        xdp::program::{Program, ProgramError},
    },
    runtime::{Clock, Shard, drive},
    stack::{self, AddressEvent},
    telemetry::{DropCounters, DropReason},
    time::Duration,
};

/// A running stack: one claimed address on one interface. Clones are handles of the same stack.
#[derive(Clone, Debug)]
pub struct Stack {
    running: Arc<Running>,
}

#[derive(Debug)]
struct Running {
    shard: Arc<Shard>,
    /// What steers frames to us, as long as it lives. A device in memory needs none.
    program: Mutex<Option<Program>>,
    /// What to do about wrong checksums, if the link itself may be their cause.
    checksum_remedy: Option<String>,
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
        Self::start(stack, device, clock, None, None)
    }

    fn start(
        stack: stack::Stack<Umem>,
        device: Box<dyn Device>,
        clock: Clock,
        program: Option<Program>,
        checksum_remedy: Option<String>,
    ) -> io::Result<Self> {
        let queues = Readable::new(device.fds()?)?;
        let shard = Arc::new(Shard::new(stack, device, clock));
        let driver = Arc::clone(&shard);
        tokio::spawn(drive(driver, clock, queues));
        Ok(Self { running: Arc::new(Running { shard, program: Mutex::new(program), checksum_remedy }) })
    }

    pub(super) fn shard(&self) -> &Shard {
        &self.running.shard
    }

    /// The claimed address.
    pub fn address(&self) -> Option<IpAddr> {
        self.shard().with(|core, _| core.stack.address())
    }

    /// How many frames were dropped, and why.
    pub fn drops(&self) -> DropCounters {
        self.shard().with(|core, _| core.stack.drops().clone())
    }

    /// What whoever runs this host should change, if what has arrived so far gives a reason.
    pub fn advice(&self) -> Option<String> {
        let remedy = self.running.checksum_remedy.as_ref()?;
        let drops = self.drops();
        let wrong = drops.get(DropReason::TcpBadChecksum) + drops.get(DropReason::UdpBadChecksum);
        (wrong > 0).then(|| format!("{wrong} frames came with a wrong TCP or UDP checksum: {remedy}"))
    }

    /// The device's own counters, by name.
    ///
    /// # Errors
    /// When the kernel does not tell them.
    pub fn device_counters(&self) -> io::Result<Vec<(&'static str, u64)>> {
        self.shard().with(|core, _| core.device().counters())
    }

    /// The XDP program's counters: how many frames got which verdict.
    ///
    /// # Errors
    /// When the kernel does not tell them.
    pub fn program_counters(&self) -> Result<Vec<(&'static str, u64)>, ProgramError> {
        self.with_program(|program| program.counters()).unwrap_or_else(|| Ok(Vec::new()))
    }

    /// Has the frames of an address sent to us.
    fn steer(&self, address: IpAddr, vlan: u16) -> Result<(), ProgramError> {
        self.with_program(|program| program.claim(address, vlan, &[])).unwrap_or(Ok(()))
    }

    /// Gives the frames of an address back to the kernel.
    fn unsteer(&self, address: IpAddr, vlan: u16) -> Result<(), ProgramError> {
        self.with_program(|program| program.unclaim(address, vlan)).unwrap_or(Ok(()))
    }

    fn with_program<T>(&self, work: impl FnOnce(&mut Program) -> T) -> Option<T> {
        let mut program = self.running.program.lock().unwrap_or_else(PoisonError::into_inner);
        program.as_mut().map(work)
    }

    /// Waits until a [claim](stack::Stack::claim) that was started is decided.
    ///
    /// # Errors
    /// Why the stack stopped, if it did.
    pub async fn claimed(&self) -> io::Result<AddressEvent> {
        poll_fn(|cx| {
            self.shard().with(|core, _| {
                core.running()?;
                match core.stack.address_state() {
                    None | Some(AddressEvent::Probing) => {
                        core.waiters.wait_for_changes(cx);
                        Poll::Pending
                    }
                    Some(decided) => Poll::Ready(Ok(decided)),
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
        self.shard().with(|core, now| core.stack.tcp_unlisten_all(now));
        let finished = poll_fn(|cx| {
            self.shard().with(|core, _| {
                if core.running().is_ok() && core.stack.has_unfinished_connections() {
                    core.waiters.wait_for_changes(cx);
                    Poll::Pending
                } else {
                    Poll::Ready(())
                }
            })
        });
        if tokio::time::timeout(grace, finished).await.is_err() {
            self.shard().with(|core, now| core.stack.abort_all(now));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shard.close();
    }
}
