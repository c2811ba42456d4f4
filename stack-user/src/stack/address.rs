//! Our addresses: claiming one, keeping it, giving it up, losing it. What happens to one does not concern the others.

use std::net::{IpAddr, Ipv4Addr};

use super::{AddressEvent, ClaimError, Event, Stack, listeners, siblings::Notice};
use crate::{
    frame::FramePool,
    net::{
        acd::{Claim, Event as ClaimEvent, Policy, Schedule},
        route::{Prefix, Route},
        routes::Routes,
    },
    tcp,
    telemetry::STORY,
    time::Instant,
};

impl<P: FramePool> Stack<P> {
    /// Starts to claim an address, beside those that there are. [`address_state`](Self::address_state) tells how it goes,
    /// and an [`Event::Changed`](super::Event::Changed) when to look. One that is [being given up](Self::give_up) is kept,
    /// and nobody is asked: it never stopped being ours.
    ///
    /// # Errors
    /// When the address can't be used on this link, or is claimed already.
    pub fn claim(
        &mut self,
        now: Instant,
        address: Ipv4Addr,
        prefix: Prefix,
        gateway: Option<Ipv4Addr>,
        mtu: u16,
        schedule: Schedule,
    ) -> Result<(), ClaimError> {
        let route = Route::new(address.into(), prefix, gateway.map(IpAddr::V4), mtu)?;
        if self.addresses.is_kept(address.into()) {
            self.addresses.keep(address.into());
            self.gained(address.into());
            return Ok(());
        }
        self.addresses.check(&route)?;
        let (mac, conflicts) = (self.link.mac, self.addresses.conflicts);
        let claim = Claim::new(now, address, mac, schedule, Policy::default(), conflicts, &mut self.rng);
        self.addresses.insert(route, Some(claim));
        Ok(())
    }

    /// Uses an address that another stack on the link, with our link-layer address, has claimed and defends: it is ours at
    /// once. When that one loses it, [`abandon`](Self::abandon) it. Others' use of the address must come to the ears of the
    /// one that defends it: ARP packets are for that stack, too, wherever they arrive.
    ///
    /// # Errors
    /// When it is ours already, or there are too many.
    pub fn adopt(&mut self, route: Route) -> Result<(), ClaimError> {
        if self.addresses.is_kept(route.address()) {
            self.addresses.keep(route.address());
        } else {
            if self.addresses.is_released(route.address()) {
                // That one is quicker. The resets that are left are sent all the same.
                self.finish_release(route.address());
            }
            self.addresses.check(&route)?;
            self.addresses.insert(route, None);
        }
        self.gained(route.address());
        Ok(())
    }

    /// Somebody else has an address of ours now: its connections end, and nothing more is said from it, not even a reset
    /// (RFC 5227 §2.4 (b): stop using it at once). Its listeners close, and its sockets are told.
    pub fn abandon(&mut self, now: Instant, address: IpAddr) {
        self.addresses.remove(address);
        self.end_silently(now, address);
    }

    /// Begins to give an address up: its listeners close, which resets what waits to be accepted, and nothing new begins
    /// there. Connections go on until [`release`](Self::release).
    pub fn give_up(&mut self, now: Instant, address: IpAddr) {
        if self.addresses.state(address) == Some(AddressEvent::Claimed) {
            self.notify_siblings(Notice::Leaving(address));
            self.addresses.set_state(address, AddressEvent::Leaving);
            self.forget_half_open_at(address);
            self.unlisten_at(now, address);
            self.changed();
        }
    }

    /// Gives an address up: its listeners close, its connections are reset, and its sockets are told. It is not ours any
    /// more, and [`address_state`](Self::address_state) knows it no more, as soon as the resets have been sent. A claim that
    /// is not decided yet is withdrawn.
    pub fn release(&mut self, now: Instant, address: IpAddr) {
        self.give_up(now, address);
        if self.addresses.state(address) != Some(AddressEvent::Leaving) {
            self.addresses.remove(address);
            return self.changed();
        }
        self.notify_siblings(Notice::Released(address));
        self.time_waits.forget(address);
        for id in self.connections.ids_at(address) {
            self.tcp_abort(now, id);
        }
        self.addresses.set_released(address, self.connections.ready());
    }

    /// Whether a connection from this address is left whose peer still expects something, while the address is being
    /// [given up](Self::give_up).
    pub fn has_unfinished_connections_at(&mut self, address: IpAddr) -> bool {
        let Some(from) = self.addresses.unfinished_from(address) else { return false };
        // No new ones begin there, so those that were passed are done with for good.
        let found = self.connections.next_unfinished(address, *from);
        *from = found.unwrap_or(usize::MAX);
        found.is_some()
    }

    /// How a claim stands; `None` if the address was never claimed, or has been released.
    pub fn address_state(&self, address: IpAddr) -> Option<AddressEvent> {
        self.addresses.state(address)
    }

    /// Which claim of an address this is: each one that begins, and each one that [keeps](Self::claim) an address, has another
    /// number. `None` where [`address_state`](Self::address_state) is.
    pub fn claim_number(&self, address: IpAddr) -> Option<u64> {
        self.addresses.number(address)
    }

    /// How every claim stands, in the order of [`claim`](Self::claim).
    pub fn address_states(&self) -> impl Iterator<Item = (IpAddr, AddressEvent)> {
        self.addresses.states()
    }

    /// Our addresses, in the order in which they were claimed.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.routes().iter().map(Route::address)
    }

    /// The first of our addresses, once one is ours and as long as one is.
    pub fn address(&self) -> Option<IpAddr> {
        self.routes().first().map(Route::address)
    }

    /// Those that are ours, and how datagrams go out from each.
    pub fn routes(&self) -> &Routes {
        self.addresses.routes()
    }

    /// How datagrams go out from an address, as long as it is ours.
    pub(super) fn route(&self, address: IpAddr) -> Option<&Route> {
        self.routes().get(address)
    }

    pub(super) fn handle_claim_events(&mut self, now: Instant) {
        while let Some((address, event)) = self.addresses.poll_event() {
            match event {
                ClaimEvent::Claimed => {
                    self.addresses.set_state(address, AddressEvent::Claimed);
                    self.gained(address);
                }
                ClaimEvent::Refused { mac } => {
                    self.addresses.conflicts += 1;
                    self.addresses.set_state(address, AddressEvent::Refused { mac });
                }
                ClaimEvent::Defended { mac } => {
                    tracing::warn!("{mac} uses our address {address} too: told it that it is ours");
                    continue;
                }
                ClaimEvent::Lost { mac } => {
                    tracing::error!(target: STORY, "address {address} lost: {mac} insists on it");
                    self.addresses.set_state(address, AddressEvent::Lost { mac });
                    self.notify_siblings(Notice::Lost(address));
                    self.end_silently(now, address);
                }
            }
            self.changed();
        }
    }

    /// The link is back after it was gone, maybe at another place: our addresses are announced anew, and claims that are not
    /// decided begin again (RFC 5227 §2.1). To be told to the shard that claims.
    pub fn link_is_back(&mut self, now: Instant) {
        self.addresses.link_is_back(now);
    }

    /// The link takes packets of another size from now on: what begins takes all of it. What goes on sends no larger packets
    /// than that, and none larger than before, as its peer was told. To be told to every shard.
    pub fn set_mtu(&mut self, mtu: u16) {
        self.addresses.set_mtu(mtu);
        for id in self.connections.ids() {
            let Some(connection) = self.connections.get_mut(id) else { continue };
            connection.on_link_mtu(mtu);
            self.connections.worked_on(id, &mut self.pool, &mut self.events);
        }
    }

    /// All has been sent that there was to send: addresses that waited for that are not ours any more.
    pub(super) fn finish_releases(&mut self) {
        while let Some(address) = self.addresses.next_released() {
            self.finish_release(address);
        }
    }

    fn finish_release(&mut self, address: IpAddr) {
        tracing::info!(target: STORY, "address {address} released");
        self.addresses.remove(address);
        self.tell_sockets_of_loss(address);
        self.changed();
    }

    /// An address is ours, maybe again.
    fn gained(&mut self, address: IpAddr) {
        if let Some(&route) = self.route(address) {
            self.notify_siblings(Notice::Claimed(route));
        }
        self.udp.regain_address(address);
        self.udp.regain_address(listeners::unspecified(address));
        self.changed();
    }

    /// What used an address that is not ours any more.
    fn end_silently(&mut self, now: Instant, address: IpAddr) {
        self.forget_half_open_at(address);
        self.time_waits.forget(address);
        for id in self.connections.ids_at(address) {
            self.fail_connection(now, id, tcp::Error::AddressLost);
        }
        self.unlisten_at(now, address);
        self.tell_sockets_of_loss(address);
        self.changed();
    }

    /// Closes what listens on just this address.
    fn unlisten_at(&mut self, now: Instant, address: IpAddr) {
        let at = |local: std::net::SocketAddr| local.ip() == address;
        let ids: Vec<_> =
            self.listeners.iter().filter(|(_, listener)| at(listener.local)).map(|(id, _)| id).collect();
        ids.into_iter().for_each(|id| self.tcp_unlisten(now, id));
    }

    /// An address is gone: nothing more comes for its sockets, nor for those of all addresses if it was the last one.
    fn tell_sockets_of_loss(&mut self, address: IpAddr) {
        let mut told = self.udp.lose_address(address);
        if self.routes().is_empty() {
            told.extend(self.udp.lose_address(listeners::unspecified(address)));
        }
        self.events.extend(told.into_iter().map(|id| Event::Udp { id }));
    }
}
