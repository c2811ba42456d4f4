//! Our address: claiming it, keeping it, losing it.

use std::net::{IpAddr, Ipv4Addr};

use super::{Stack, siblings::Notice};
use crate::{
    frame::FramePool,
    net::{
        acd::{Claim, Event as ClaimEvent, Policy, Schedule},
        route::{Prefix, Route, RouteError},
    },
    telemetry::STORY,
    time::Instant,
    wire::{MacAddr, arp::Packet},
};

/// An address on our link, claimed or about to be.
#[derive(Debug)]
pub(super) struct Address {
    pub(super) route: Route,
    pub(super) claim: Claim,
    pub(super) state: AddressEvent,
}

/// How a claim stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressEvent {
    /// Others are being asked whether they have it.
    Probing,
    /// It is ours.
    Claimed,
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

impl<P: FramePool> Stack<P> {
    /// Starts to claim an address, in place of the one before. [`address_state`](Self::address_state) tells how it
    /// goes, and an [`Event::Changed`](super::Event::Changed) when to look.
    ///
    /// # Errors
    /// When the address can't be used on this link.
    pub fn claim(
        &mut self,
        now: Instant,
        address: Ipv4Addr,
        prefix: Prefix,
        gateway: Option<Ipv4Addr>,
        mtu: u16,
        schedule: Schedule,
    ) -> Result<(), RouteError> {
        let route = Route::new(address.into(), prefix, gateway.map(IpAddr::V4), mtu)?;
        self.abort_all(now);
        if let Some(address) = self.address() {
            self.tell_sockets_of_loss(address);
        }
        let mac = self.link.mac;
        let claim = Claim::new(now, address, mac, schedule, Policy::default(), self.conflicts, &mut self.rng);
        self.address = Some(Address { route, claim, state: AddressEvent::Probing });
        Ok(())
    }

    /// Uses an address that another shard has claimed and defends.
    pub(super) fn adopt(&mut self, route: Route) {
        let IpAddr::V4(address) = route.address() else { return };
        let claim = Claim::adopted(address, self.link.mac);
        self.address = Some(Address { route, claim, state: AddressEvent::Claimed });
        self.changed();
    }

    /// Uses it no more: that shard has lost it.
    pub(super) fn abandon(&mut self, now: Instant, address: IpAddr) {
        self.abandon_all(now);
        self.tell_sockets_of_loss(address);
        self.address = None;
        self.changed();
    }

    /// How the claim stands; `None` before the first.
    pub fn address_state(&self) -> Option<AddressEvent> {
        self.address.as_ref().map(|address| address.state)
    }

    /// Our address, once it is ours and as long as it is.
    pub fn address(&self) -> Option<IpAddr> {
        self.route().map(Route::address)
    }

    /// How datagrams go out, once we have an address and as long as we have it.
    pub(super) fn route(&self) -> Option<&Route> {
        self.address.as_ref().filter(|address| address.claim.is_claimed()).map(|address| &address.route)
    }

    pub(super) fn handle_address_timeout(&mut self, now: Instant) {
        if let Some(address) = &mut self.address {
            address.claim.handle_timeout(now);
            self.handle_claim_events(now);
        }
    }

    /// What the claim has to say to the link.
    pub(super) fn poll_claim_packet(&mut self) -> Option<Packet> {
        self.address.as_mut()?.claim.poll_transmit()
    }

    pub(super) fn handle_claim_events(&mut self, now: Instant) {
        while let Some(event) = self.address.as_mut().and_then(|address| address.claim.poll_event()) {
            let state = match event {
                ClaimEvent::Claimed => {
                    if let Some(address) = &self.address {
                        self.notify_siblings(Notice::Claimed(address.route));
                    }
                    AddressEvent::Claimed
                }
                ClaimEvent::Refused { mac } => {
                    self.conflicts += 1;
                    AddressEvent::Refused { mac }
                }
                ClaimEvent::Defended { mac } => {
                    tracing::warn!("{mac} uses our address too: told it that it is ours");
                    continue;
                }
                ClaimEvent::Lost { mac } => {
                    tracing::error!(target: STORY, "address lost: {mac} insists on it");
                    // RFC 5227 §2.4 (b): stop using it at once.
                    self.abandon_all(now);
                    if let Some(address) = self.address.as_ref().map(|address| address.route.address()) {
                        self.notify_siblings(Notice::Lost(address));
                        self.tell_sockets_of_loss(address);
                    }
                    AddressEvent::Lost { mac }
                }
            };
            if let Some(address) = &mut self.address {
                address.state = state;
            }
            self.changed();
        }
    }
}
