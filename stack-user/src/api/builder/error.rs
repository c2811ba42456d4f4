//! Why a stack does not start, and what to do about it.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use super::{only_first, only_first_queue};
use crate::{
    device::{
        interface::InterfaceError,
        remedy::Change,
        xdp::{OpenError, program::ProgramError},
    },
    net::route::{Prefix, PrefixError, RouteError},
    runtime::LifeError,
    stack::ClaimError,
    wire::MacAddr,
};

/// Why a stack did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The interface is not there, or not fit.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// The XDP program could not be attached.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The rings could not be bound.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// One of several queues could not be bound, so that no address may be claimed.
    #[error(
        "{source}. Frames for us that arrive on queue {queue} would be lost, so no address is claimed: free it{}",
        fewer_queues(interface, *queue)
    )]
    Unbound {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// What is in the way.
        source: OpenError,
    },
    /// The driver has made queues of its own for the XDP program.
    #[error(
        "with an XDP program, {interface} receives on {now} queues where {before} are set up, and drivers are known to bring the \
         kernel down when sockets on such queues end: say `{}` first, which leaves no room for them", queues_set_up(interface, *now, *before).command()
    )]
    AddedQueues {
        /// The interface.
        interface: String,
        /// Before the program was attached.
        before: u32,
        /// Since then.
        now: u32,
    },
    /// The card puts frames in a queue that is not bound.
    #[error(
        "{interface} spreads what it receives over its queues, queue {unbound} among them, and only queue {bound} is bound: \
         frames for us would be lost. Say `{}` and --queue 0 (`{}` undoes it), or leave --queue out",
        only_first_queue(interface).command(), only_first_queue(interface).undo().unwrap_or_default()
    )]
    Spread {
        /// The interface.
        interface: String,
        /// The queue that is bound.
        bound: u32,
        /// One that is not.
        unbound: u32,
    },
    /// The kernel would not survive it.
    #[error(
        "Linux {release} panics when a frame that an AF_XDP socket sent by a copy comes out of a veth pair, and {interface} is \
         one: use a kernel before 6.16.8, or 6.17.11, 6.18 or later. If yours is mended in spite of its number, say \
         --mode native-copy"
    )]
    KernelPanics {
        /// The interface.
        interface: String,
        /// The kernel's release.
        release: String,
    },
    /// The address can't be used on this link.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The address can't be claimed.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The prefix length is not one.
    #[error(transparent)]
    Prefix(#[from] PrefixError),
    /// The kernel uses the address itself.
    #[error("{address} is this host's own address, on {interface}: choose another of the subnet, or `auto`")]
    OwnAddress {
        /// The address.
        address: Ipv4Addr,
        /// Where the kernel has it.
        interface: String,
    },
    /// Somebody has the address.
    #[error("{address} is in use by {mac}: choose another address of the subnet, or `auto`")]
    AddressInUse {
        /// The address.
        address: Ipv4Addr,
        /// Who answered for it.
        mac: MacAddr,
    },
    /// All addresses that were tried are in use.
    #[error("no free address found in {prefix}: {tried} were tried, all are in use; give one with --address")]
    NoFreeAddress {
        /// The subnet.
        prefix: Prefix,
        /// How many were tried.
        tried: usize,
    },
    /// The address is on a network that the interface is not on.
    #[error(
        "{address} is in none of the networks of {interface} ({networks}): give its prefix length and a gateway"
    )]
    OutsideNetworks {
        /// The address.
        address: Ipv4Addr,
        /// The interface.
        interface: String,
        /// Its networks.
        networks: String,
    },
    /// There is no network to choose an address in.
    #[error("no address can be chosen where there is none yet: give one with its prefix length")]
    NoNetwork,
    /// It was released before it was ours.
    #[error("the claim of {address} was withdrawn before it was decided")]
    Withdrawn {
        /// The address.
        address: IpAddr,
    },
    /// The capture file can't be written.
    #[error("cannot write frames to {}: {source}", path.display())]
    Capture {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// tokio can't wait on the queues.
    #[error("cannot wait for frames: {0}")]
    Wait(std::io::Error),
    /// The stack stopped before it had an address.
    #[error("{0}")]
    Stopped(std::io::Error),
    /// An earlier life can't be continued.
    #[error(transparent)]
    Life(#[from] LifeError),
    /// The system gives no random numbers.
    #[error("the system has no random numbers to give: {0}")]
    Random(std::io::Error),
}

/// How to have as many queues as a driver makes for itself.
fn queues_set_up(interface: &str, combined: u32, was: u32) -> Change {
    Change::Queues { interface: interface.to_owned(), combined, was }
}

/// How to do without a queue and those after it.
fn fewer_queues(interface: &str, queue: u32) -> String {
    match queue {
        0 => String::new(),
        queue => format!(", or do with those before it: {}", only_first(interface, queue)),
    }
}
