//! A stack's device, driven by somebody else for a while: for whoever measures what the device can do without a protocol.
//!
//! The stack keeps its address meanwhile, and answers for it: it is handed the frames that the borrower has no use for.

use std::{io, net::IpAddr, os::fd::OwnedFd};

use super::Stack;
use crate::{
    device::{Device, Umem},
    runtime::Clock,
    stack,
    time::Duration,
    wire::MacAddr,
};

/// The device of a stack with one shard. Dropped, it is the stack's own again.
#[derive(Debug)]
pub(crate) struct Loan {
    stack: Stack,
}

impl Stack {
    /// Lends the device, unless there are several.
    pub(crate) fn lend_device(&self) -> Option<Loan> {
        (self.running.shards.len() == 1).then(|| {
            self.shard().lend();
            Loan { stack: self.clone() }
        })
    }

    /// The link-layer address of a neighbour, if it is known.
    pub(crate) fn neighbour(&self, ip: IpAddr) -> Option<MacAddr> {
        self.shard().with(|core, _| core.stack.neighbour(ip))
    }

    /// Our link-layer address.
    pub(crate) fn mac(&self) -> MacAddr {
        self.shard().with(|core, _| core.stack.mac())
    }

    /// The VLAN that the address is on.
    pub(crate) fn vlan(&self) -> Option<u16> {
        self.running.place.vlan
    }

    /// Bytes of the longest packet that the link takes, as the first address knows it.
    pub(crate) fn mtu(&self) -> Option<u16> {
        self.shard().with(|core, _| core.stack.routes().first().map(|route| route.mtu()))
    }
}

impl Loan {
    /// Works with the device, and the stack over it. What the stack has to send leaves afterwards.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut dyn Device, &mut stack::Stack<Umem>) -> T) -> T {
        self.stack.shard().with(|core, _| {
            let (device, stack) = core.device_and_stack();
            work(device, stack)
        })
    }

    /// The stack's clock.
    pub(crate) fn clock(&self) -> Clock {
        self.stack.shard().with(|core, _| core.clock())
    }

    /// What becomes readable when a frame has come.
    ///
    /// # Errors
    /// When the process has too many open files.
    pub(crate) fn fds(&self) -> io::Result<Vec<OwnedFd>> {
        self.with(|device, _| device.fds())
    }

    /// How long to poll for frames before sleeping, and whether the NIC's driver is to be asked for them meanwhile.
    pub(crate) fn busy_poll(&self) -> (Duration, bool) {
        self.stack.running.poll
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.stack.shard().take_back();
    }
}
