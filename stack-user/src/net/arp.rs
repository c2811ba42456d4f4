//! ARP input: what a packet teaches, and what it asks us (RFC 826, with RFC 5227's rules for conflicts).

use std::net::IpAddr;

use super::{
    acd::Claim,
    neighbour::{Cache, Evidence, Request},
    route::Route,
    routes::Routes,
};
use crate::{
    telemetry::DropReason,
    time::Instant,
    wire::{
        MacAddr,
        arp::{Operation, Packet},
    },
};

/// Takes in an ARP packet from the link and returns the answer to send to its sender, if it asks for an address of ours:
/// one of `routes`. All that are claimed, or being claimed, are among `claims`.
///
/// # Errors
/// [`DropReason::ArpNotForUs`] when it neither asks us nor changes anything that we know.
pub fn receive<'a>(
    now: Instant,
    packet: &Packet,
    mac: MacAddr,
    routes: &Routes,
    mut claims: impl Iterator<Item = &'a mut Claim>,
    neighbours: &mut Cache,
) -> Result<Option<Packet>, DropReason> {
    if packet.sender_mac == mac {
        return Err(DropReason::ArpNotForUs);
    }
    // Before anything is believed: somebody who uses our address must not become our own neighbour.
    // No packet is a conflict about two of them.
    if claims.any(|claim| claim.handle_packet(now, packet)) {
        return Ok(None);
    }
    // As above, of an address that another stack defends for us.
    if routes.is_ours(packet.sender_ip.into()) {
        return Err(DropReason::ArpNotForUs);
    }
    let asks_us = routes.is_ours(packet.target_ip.into());
    let learned = learn(now, packet, mac, asks_us, routes, neighbours);
    match packet.operation {
        // RFC 5227 §2.1.1: until the address is claimed, nobody gets an answer.
        Operation::Request if asks_us => Ok(Some(reply(packet, mac))),
        _ if learned => Ok(None),
        _ => Err(DropReason::ArpNotForUs),
    }
}

/// The packet that asks a [`Request`] of the neighbour cache, and whom to send it to. It names the address of ours whose
/// datagrams want to go there, since it is what the neighbour learns us by (RFC 826); another one if that was given up
/// since. `None` when the address is not IPv4, or none is ours yet that a question could name (RFC 5227 §2.1.1).
pub fn request(request: &Request, mac: MacAddr, routes: &Routes) -> Option<(Packet, MacAddr)> {
    let asker = routes.get(request.source).or_else(|| routes.source_for(request.target)).map(Route::address);
    let (IpAddr::V4(target_ip), Some(IpAddr::V4(sender_ip))) = (request.target, asker) else { return None };
    let packet = Packet {
        operation: Operation::Request,
        sender_mac: mac,
        sender_ip,
        target_mac: MacAddr::ZERO,
        target_ip,
    };
    Some((packet, request.destination.unwrap_or(MacAddr::BROADCAST)))
}

fn learn(
    now: Instant,
    packet: &Packet,
    mac: MacAddr,
    asks_us: bool,
    routes: &Routes,
    neighbours: &mut Cache,
) -> bool {
    let sender = IpAddr::V4(packet.sender_ip);
    // A probe comes from no address; and nobody off our link has one that a frame could be sent to.
    if !routes.is_on_link(sender) {
        return false;
    }
    let evidence = match packet.operation {
        Operation::Request if asks_us => Evidence::Request,
        Operation::Reply if packet.target_mac == mac => Evidence::Reply,
        _ => Evidence::Overheard,
    };
    neighbours.learn(now, sender, packet.sender_mac, evidence)
}

fn reply(request: &Packet, mac: MacAddr) -> Packet {
    Packet {
        operation: Operation::Reply,
        sender_mac: mac,
        sender_ip: request.target_ip,
        target_mac: request.sender_mac,
        target_ip: request.sender_ip,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::{
        net::{
            acd::{Event, Policy, Schedule},
            neighbour::Lookup,
        },
        rng::Rng,
        time::Duration,
    };

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
    const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
    const THEIRS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    struct Host {
        now: Instant,
        route: Route,
        claim: Claim,
        neighbours: Cache,
    }

    impl Host {
        fn probing() -> Self {
            let now = Instant::from_millis(1_000);
            let prefix = "10.0.0.0/24".parse().expect("a prefix");
            Self {
                now,
                route: Route::new(OURS.into(), prefix, Some(THEIRS.into()), 1500).expect("valid"),
                claim: Claim::new(now, OURS, MAC, Schedule::Fast, Policy::Yield, 0, &mut Rng::from_seed(1)),
                neighbours: Cache::new(),
            }
        }

        fn claimed() -> Self {
            let mut host = Self::probing();
            while !host.claim.is_claimed() {
                host.now = host.claim.poll_timeout().expect("it goes on");
                host.claim.handle_timeout(host.now);
            }
            assert_eq!(host.claim.poll_event(), Some(Event::Claimed));
            host
        }

        /// What is ours now.
        fn routes(&self) -> Routes {
            Routes::new(self.claim.is_claimed().then_some((self.route, true)))
        }

        fn receive(&mut self, packet: Packet) -> Result<Option<Packet>, DropReason> {
            self.now += Duration::from_millis(1);
            let (routes, claims) = (self.routes(), std::iter::once(&mut self.claim));
            receive(self.now, &packet, MAC, &routes, claims, &mut self.neighbours)
        }
    }

    fn question() -> Packet {
        Packet {
            operation: Operation::Request,
            sender_mac: OTHER,
            sender_ip: THEIRS,
            target_mac: MacAddr::ZERO,
            target_ip: OURS,
        }
    }

    fn answer() -> Packet {
        Packet { operation: Operation::Reply, target_mac: MAC, ..question() }
    }

    #[test]
    fn rfc826_a_question_for_us_is_answered_and_its_sender_learned() {
        let mut host = Host::claimed();
        let expected = Packet {
            operation: Operation::Reply,
            sender_mac: MAC,
            sender_ip: OURS,
            target_mac: OTHER,
            target_ip: THEIRS,
        };
        assert_eq!(host.receive(question()), Ok(Some(expected)));
        assert_eq!(host.neighbours.peek(THEIRS.into()), Some(OTHER));
    }

    #[test]
    fn rfc5227_2_1_1_nothing_is_answered_or_asked_before_the_address_is_ours() {
        let mut host = Host::probing();
        assert_eq!(host.receive(question()), Err(DropReason::ArpNotForUs));
        assert!(host.neighbours.is_empty());
        let due = Request { source: OURS.into(), target: THEIRS.into(), destination: None };
        assert_eq!(request(&due, MAC, &host.routes()), None);
    }

    #[test]
    fn rfc5227_2_4_a_probe_for_our_address_is_answered_but_teaches_nothing() {
        let mut host = Host::claimed();
        let probe = Packet { sender_ip: Ipv4Addr::UNSPECIFIED, ..question() };
        let reply = host.receive(probe).expect("it is for us").expect("it is answered");
        assert_eq!(
            (reply.target_mac, reply.target_ip, reply.sender_ip),
            (OTHER, Ipv4Addr::UNSPECIFIED, OURS)
        );
        assert!(host.neighbours.is_empty());
    }

    #[test]
    fn an_answer_is_believed_only_when_we_asked() {
        let mut host = Host::claimed();
        assert_eq!(host.receive(answer()), Err(DropReason::ArpNotForUs));
        assert_eq!(host.neighbours.lookup(host.now, OURS.into(), THEIRS.into()), Lookup::Pending);
        let due = host.neighbours.poll_transmit().expect("a question");
        let (packet, destination) = request(&due, MAC, &host.routes()).expect("it can be asked");
        assert_eq!((packet.sender_ip, packet.target_ip, destination), (OURS, THEIRS, MacAddr::BROADCAST));
        assert_eq!(host.receive(answer()), Ok(None));
        assert_eq!(host.neighbours.lookup(host.now, OURS.into(), THEIRS.into()), Lookup::Found(OTHER));
    }

    #[test]
    fn what_others_ask_each_other_is_not_for_us() {
        let mut host = Host::claimed();
        let theirs = Packet { target_ip: Ipv4Addr::new(10, 0, 0, 3), ..question() };
        assert_eq!(host.receive(theirs), Err(DropReason::ArpNotForUs));
        assert!(host.neighbours.is_empty());
    }

    #[test]
    fn a_sender_off_our_link_is_answered_but_not_learned() {
        let mut host = Host::claimed();
        for sender_ip in [[192, 0, 2, 1], [10, 0, 0, 255], [224, 0, 0, 1], [127, 0, 0, 1]] {
            let packet = Packet { sender_ip: sender_ip.into(), ..question() };
            assert!(host.receive(packet).is_ok_and(|reply| reply.is_some()));
            assert!(host.neighbours.is_empty());
        }
    }

    #[test]
    fn rfc5227_2_4_a_rival_is_told_and_never_learned() {
        let mut host = Host::claimed();
        while host.claim.poll_transmit().is_some() {}
        assert_eq!(host.receive(Packet { sender_ip: OURS, ..question() }), Ok(None));
        assert_eq!(host.claim.poll_event(), Some(Event::Defended { mac: OTHER }));
        assert!(host.claim.poll_transmit().is_some_and(|packet| packet.sender_ip == OURS));
        assert!(host.neighbours.is_empty());
    }

    #[test]
    fn rfc826_a_question_names_the_address_that_wants_to_know() {
        let prefix = "10.0.0.0/24".parse().expect("a prefix");
        let ours = |n| IpAddr::from([10, 0, 0, n]);
        let route = |n| Route::new(ours(n), prefix, None, 1500).expect("valid");
        let routes = Routes::new([(route(8), true), (route(9), true)]);
        for (source, names) in [(8, 8), (9, 9), (7, 8)] {
            let due = Request { source: ours(source), target: THEIRS.into(), destination: None };
            let (packet, _) = request(&due, MAC, &routes).expect("it can be asked");
            assert_eq!((IpAddr::V4(packet.sender_ip), packet.target_ip), (ours(names), THEIRS));
        }
    }

    #[test]
    fn our_own_packets_reflected_are_ignored() {
        let mut host = Host::claimed();
        let reflected = Packet { sender_mac: MAC, sender_ip: OURS, ..question() };
        assert_eq!(host.receive(reflected), Err(DropReason::ArpNotForUs));
        assert_eq!(host.claim.poll_event(), None);
    }
}
