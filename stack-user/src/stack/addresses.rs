//! The table of our addresses, and how each of them is claimed.

use std::{collections::VecDeque, net::IpAddr};

use crate::{
    net::{
        acd::{Claim, Event},
        route::{Route, RouteError},
        routes::Routes,
    },
    time::Instant,
    wire::{MacAddr, arp::Packet},
};

/// Addresses that a stack can have, those that are being claimed included. Fewer, and a load that needs more connections to
/// one peer than 256 × 28 000 ephemeral ports give has to run on several stacks; more, and each ARP packet of the link is
/// compared with more of them, and the program in the kernel has room for four such stacks only.
pub const MAX_ADDRESSES: usize = 256;

/// How a claim stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressEvent {
    /// Others are being asked whether they have it.
    Probing,
    /// It is ours.
    Claimed,
    /// It is ours until its connections have ended, and no new ones begin.
    Leaving,
    /// Somebody has it.
    Refused {
        /// Their link-layer address.
        mac: MacAddr,
    },
    /// Somebody insisted on it, and we gave it up (RFC 5227 §2.4).
    Lost {
        /// Their link-layer address.
        mac: MacAddr,
    },
}

/// An address can't be claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// It does not fit the link.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// It is being claimed, or ours.
    #[error("{0} is claimed by this stack already: claim each address once")]
    Again(IpAddr),
    /// There is no room for another.
    #[error(
        "{0} is one address too many: a stack has {MAX_ADDRESSES} at most; release one, or run another stack"
    )]
    TooMany(IpAddr),
}

/// Our addresses, and those that we would like to have.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// In the order in which they were asked for.
    rows: Vec<Row>,
    /// Those that are ours.
    routes: Routes,
    /// What the claims have to say to the link.
    outbox: VecDeque<Packet>,
    /// When a claim has something to do.
    deadline: Option<Instant>,
    /// Whether an address goes as soon as its connections' resets are sent.
    has_released: bool,
    /// Connections that have their turn to send before that, so that a ring that is never empty does not keep it for ever.
    turns_left: usize,
    /// The number of the last claim.
    last_number: u64,
    /// Claims on this link that were refused so far (RFC 5227 §2.1.1).
    pub(super) conflicts: u32,
}

/// An address on our link, claimed or about to be.
#[derive(Debug)]
struct Row {
    route: Route,
    /// None of an address that another stack on the link claims and defends for us.
    claim: Option<Claim>,
    state: AddressEvent,
    /// No connection before this row of their table is unfinished and from this address, if it is [`AddressEvent::Leaving`].
    unfinished_from: usize,
    /// Its connections have been reset.
    is_released: bool,
    /// Which claim this is.
    number: u64,
}

impl Row {
    fn address(&self) -> IpAddr {
        self.route.address()
    }

    fn is_ours(&self) -> bool {
        matches!(self.state, AddressEvent::Claimed | AddressEvent::Leaving)
    }

    fn is_gone(&self) -> bool {
        matches!(self.state, AddressEvent::Refused { .. } | AddressEvent::Lost { .. })
    }
}

impl Addresses {
    /// Those that are ours.
    pub(super) fn routes(&self) -> &Routes {
        &self.routes
    }

    /// Whether a connection may begin at an address.
    pub(super) fn may_open(&self, address: IpAddr) -> bool {
        // Nearly always all of them may.
        let leaves = |row: &Row| row.state == AddressEvent::Leaving && row.address() == address;
        self.routes.is_ours(address) && (self.routes.all_open() || !self.rows.iter().any(leaves))
    }

    /// How each of them stands.
    pub(super) fn states(&self) -> impl Iterator<Item = (IpAddr, AddressEvent)> {
        self.rows.iter().map(|row| (row.address(), row.state))
    }

    /// How one of them stands.
    pub(super) fn state(&self, address: IpAddr) -> Option<AddressEvent> {
        self.row(address).map(|row| row.state)
    }

    /// Whether an address is being given up and can be kept: its connections have not been reset.
    pub(super) fn is_kept(&self, address: IpAddr) -> bool {
        self.row(address).is_some_and(|row| row.state == AddressEvent::Leaving && !row.is_released)
    }

    /// Which claim of an address this is.
    pub(super) fn number(&self, address: IpAddr) -> Option<u64> {
        self.row(address).map(|row| row.number)
    }

    /// Whether an address is to go as soon as its connections' resets are sent.
    pub(super) fn is_released(&self, address: IpAddr) -> bool {
        self.row(address).is_some_and(|row| row.is_released)
    }

    /// Whether another address may be put in.
    ///
    /// # Errors
    /// Why it may not.
    pub(super) fn check(&self, route: &Route) -> Result<(), ClaimError> {
        let address = route.address();
        if self.row(address).is_some_and(|row| !row.is_gone()) {
            return Err(ClaimError::Again(address));
        }
        let wanted = |row: &&Row| !row.is_gone();
        let is_router = |row: &Row| row.route.gateway() == Some(address);
        if self.rows.iter().filter(wanted).any(is_router) {
            return Err(RouteError::GatewayIsAddress { gateway: address }.into());
        }
        if let Some(gateway) = route.gateway()
            && self.rows.iter().filter(wanted).any(|row| row.address() == gateway)
        {
            return Err(RouteError::GatewayIsAddress { gateway }.into());
        }
        if self.rows.iter().filter(wanted).count() >= MAX_ADDRESSES {
            return Err(ClaimError::TooMany(address));
        }
        Ok(())
    }

    /// Puts in an address that [may be](Self::check). Without a claim it is ours at once.
    pub(super) fn insert(&mut self, route: Route, claim: Option<Claim>) {
        self.rows.retain(|row| row.address() != route.address());
        if self.rows.len() >= MAX_ADDRESSES {
            self.rows.retain(|row| !row.is_gone());
        }
        let state = if claim.is_some() { AddressEvent::Probing } else { AddressEvent::Claimed };
        let number = self.next_number();
        self.rows.push(Row { route, claim, state, unfinished_from: 0, is_released: false, number });
        self.changed();
    }

    /// An address has another state than before.
    pub(super) fn set_state(&mut self, address: IpAddr, state: AddressEvent) {
        if let Some(row) = self.row_mut(address) {
            (row.state, row.unfinished_from, row.is_released) = (state, 0, false);
            self.changed();
        }
    }

    /// An address that [may be](Self::is_kept) is kept.
    pub(super) fn keep(&mut self, address: IpAddr) {
        let number = self.next_number();
        if let Some(row) = self.row_mut(address) {
            row.number = number;
        }
        self.set_state(address, AddressEvent::Claimed);
    }

    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Takes an address out.
    pub(super) fn remove(&mut self, address: IpAddr) {
        self.rows.retain(|row| row.address() != address);
        self.changed();
    }

    /// An address is to go as soon as all is sent that is to be sent from it: after so many connections have had their turn.
    pub(super) fn set_released(&mut self, address: IpAddr, turns: usize) {
        self.set_state(address, AddressEvent::Leaving);
        if let Some(row) = self.row_mut(address) {
            row.is_released = true;
            (self.has_released, self.turns_left) = (true, turns);
        }
    }

    /// A connection is about to have its turn. Whether all those have had theirs that addresses wait for which are to go.
    pub(super) fn begin_turn(&mut self) -> bool {
        let is_over = self.has_released && self.turns_left == 0;
        self.turns_left = self.turns_left.saturating_sub(1);
        is_over
    }

    /// All has been sent: an address that was to go then.
    pub(super) fn next_released(&mut self) -> Option<IpAddr> {
        if !self.has_released {
            return None;
        }
        let released = self.rows.iter().find(|row| row.is_released).map(Row::address);
        self.has_released = released.is_some();
        released
    }

    /// Where to look for unfinished connections of an address that is being given up.
    pub(super) fn unfinished_from(&mut self, address: IpAddr) -> Option<&mut usize> {
        self.row_mut(address).map(|row| &mut row.unfinished_from)
    }

    /// What is ours, and all claims, for a packet from the link. [`worked_on`](Self::worked_on) comes afterwards.
    pub(super) fn for_packet(&mut self) -> (&Routes, impl Iterator<Item = &mut Claim>) {
        (&self.routes, self.rows.iter_mut().filter_map(|row| row.claim.as_mut()))
    }

    /// Does what is due, and returns whether anything was: then there may be [events](Self::poll_event).
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        let is_due = self.deadline.is_some_and(|at| at <= now);
        if is_due {
            self.rows
                .iter_mut()
                .filter_map(|row| row.claim.as_mut())
                .for_each(|claim| claim.handle_timeout(now));
            self.worked_on();
        }
        is_due
    }

    /// The link is back, and all claims have something to say about that.
    pub(super) fn link_is_back(&mut self, now: Instant) {
        self.rows.iter_mut().filter_map(|row| row.claim.as_mut()).for_each(|claim| claim.link_is_back(now));
        self.worked_on();
    }

    /// The link takes packets of another size.
    pub(super) fn set_mtu(&mut self, mtu: u16) {
        self.rows.iter_mut().for_each(|row| row.route = row.route.with_mtu(mtu));
        self.changed();
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether there is a packet to send.
    #[inline]
    pub(super) fn has_errands(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// The next packet to send, to everybody.
    pub(super) fn poll_transmit(&mut self) -> Option<Packet> {
        self.outbox.pop_front()
    }

    /// What became of a claim.
    pub(super) fn poll_event(&mut self) -> Option<(IpAddr, Event)> {
        self.rows.iter_mut().find_map(|row| {
            let event = row.claim.as_mut()?.poll_event()?;
            Some((row.address(), event))
        })
    }

    /// Claims may have something to say, and another time to do something at.
    pub(super) fn worked_on(&mut self) {
        let claims = self.rows.iter_mut().filter_map(|row| row.claim.as_mut());
        let mut deadline: Option<Instant> = None;
        for claim in claims {
            self.outbox.extend(std::iter::from_fn(|| claim.poll_transmit()));
            deadline = [deadline, claim.poll_timeout()].into_iter().flatten().min();
        }
        self.deadline = deadline;
    }

    fn changed(&mut self) {
        let ours = self.rows.iter().filter(|row| row.is_ours());
        self.routes = Routes::new(ours.map(|row| (row.route, row.state == AddressEvent::Claimed)));
        self.worked_on();
        // An announcement that waits is of an address that is ours, or it is none any more.
        let Self { outbox, rows, .. } = self;
        let speaks = |packet: &Packet| {
            let about = IpAddr::V4(packet.target_ip);
            rows.iter().any(|row| row.address() == about && !row.is_gone())
        };
        outbox.retain(speaks);
    }

    fn row(&self, address: IpAddr) -> Option<&Row> {
        self.rows.iter().find(|row| row.address() == address)
    }

    fn row_mut(&mut self, address: IpAddr) -> Option<&mut Row> {
        self.rows.iter_mut().find(|row| row.address() == address)
    }
}
