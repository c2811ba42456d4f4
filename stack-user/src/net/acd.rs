//! IPv4 address conflict detection (RFC 5227): ask before using an address, say so when using it, and notice
//! when somebody else does.
//!
//! ```text
//!   Probing ────── nobody answers ─────▶ Claimed: announce twice, then defend
//!      │                                    │
//!      └─▶ Gone, Event::Refused             └─▶ Gone, Event::Lost
//! ```
//!
//! This finds other stations. It can't find the kernel of our own host, which shares our link-layer address and
//! never hears what we send: whoever sets a claim up compares it with the interface's own addresses.
//!
//! An address may be used as soon as it is claimed; the announcements that follow do not hold anybody up. A
//! claim that was refused or lost stays silent.

use std::{collections::VecDeque, net::Ipv4Addr};

use crate::{
    rng::Rng,
    time::{Duration, Instant},
    wire::{
        MacAddr,
        arp::{Operation, Packet},
    },
};

/// How much time a claim takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Schedule {
    /// Under 300 ms, for a command that somebody waits for. Finds whoever is up and answers within the round trip of a
    /// LAN, even if three of four probes are lost; it is too short for a switch port that is still blocked, or
    /// for a host that sleeps.
    #[default]
    Fast,
    /// The constants of RFC 5227 §1.1: five to nine seconds.
    Rfc,
}

/// What to do when somebody else uses our address (RFC 5227 §2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Policy {
    /// Defend it once in a while; if that does not help, give it up (choice b). Two hosts that both insist
    /// harm each other for ever, and the other one may be somebody's printer.
    #[default]
    Yield,
    /// Defend it, and keep it whatever happens (choice c): for a router or server that others rely on.
    Hold,
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nobody has the address: it is ours to use.
    Claimed,
    /// Somebody has the address, or claims it at this moment: it is not ours.
    Refused {
        /// Who.
        mac: MacAddr,
    },
    /// Somebody else used our address, and was told that it is ours.
    Defended {
        /// Who.
        mac: MacAddr,
    },
    /// Somebody else keeps using our address: it must not be used any more, and what uses it be aborted.
    Lost {
        /// Who.
        mac: MacAddr,
    },
}

/// The claim of one address.
#[derive(Debug)]
pub struct Claim {
    address: Ipv4Addr,
    mac: MacAddr,
    timing: Timing,
    policy: Policy,
    state: State,
    timer: Option<Instant>,
    /// RFC 5227's random waits, drawn when the claim is made, so that it needs no generator later.
    intervals: [Duration; MAX_PROBES],
    /// When we last announced that the address is ours because somebody else used it.
    defended: Option<Instant>,
    outbox: VecDeque<Packet>,
    events: VecDeque<Event>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// This many probes have been sent; the timer says when the next one is due, or that nobody answered.
    Probing { sent: usize },
    /// Ours; this many announcements have been sent.
    Claimed { announced: u32 },
    /// Somebody else's.
    Gone,
}

/// The most probes of any schedule.
const MAX_PROBES: usize = 4;

/// The numbers of a schedule, by the names of RFC 5227 §1.1.
#[derive(Clone, Copy, Debug)]
struct Timing {
    probe_wait: Duration,
    probe_num: usize,
    probe_min: Duration,
    probe_max: Duration,
    announce_wait: Duration,
}

impl Timing {
    const RFC: Self = Self {
        probe_wait: Duration::from_secs(1),
        probe_num: 3,
        probe_min: Duration::from_secs(1),
        probe_max: Duration::from_secs(2),
        announce_wait: Duration::from_secs(2),
    };

    /// Four probes 60 ms apart, then 80 ms of silence: 260 ms. Fewer probes would miss an owner behind a lossy
    /// link more often than once in 10 000 times; the last wait has to outlast a wake-up of a busy host. There is no
    /// random wait at first: that is for hosts which a power cut starts all at once.
    const FAST: Self = Self {
        probe_wait: Duration::ZERO,
        probe_num: MAX_PROBES,
        probe_min: Duration::from_millis(60),
        probe_max: Duration::from_millis(60),
        announce_wait: Duration::from_millis(80),
    };
}

/// Announcements after a claim, and the time between them (RFC 5227 §1.1: ANNOUNCE_NUM, ANNOUNCE_INTERVAL).
const ANNOUNCE_NUM: u32 = 2;
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);

/// Conflicts after which claims are slowed down, and to what (RFC 5227 §1.1: MAX_CONFLICTS,
/// RATE_LIMIT_INTERVAL).
pub const MAX_CONFLICTS: u32 = 10;
const RATE_LIMIT_INTERVAL: Duration = Duration::from_secs(60);

/// How often an address is defended at most (RFC 5227 §1.1: DEFEND_INTERVAL).
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

impl Claim {
    /// Starts to claim `address` for the interface `mac`. `conflicts` counts the claims on this link that have
    /// been refused so far: after [`MAX_CONFLICTS`] the probing waits for a minute (RFC 5227 §2.1.1).
    pub fn new(
        now: Instant,
        address: Ipv4Addr,
        mac: MacAddr,
        schedule: Schedule,
        policy: Policy,
        conflicts: u32,
        rng: &mut Rng,
    ) -> Self {
        let timing = match schedule {
            Schedule::Fast => Timing::FAST,
            Schedule::Rfc => Timing::RFC,
        };
        let limit = if conflicts >= MAX_CONFLICTS { RATE_LIMIT_INTERVAL } else { Duration::ZERO };
        let wait = between(Duration::ZERO, timing.probe_wait, rng);
        let intervals = std::array::from_fn(|_| between(timing.probe_min, timing.probe_max, rng));
        Self {
            address,
            mac,
            timing,
            policy,
            state: State::Probing { sent: 0 },
            timer: Some(now + limit + wait),
            intervals,
            defended: None,
            outbox: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// The address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Whether the address is ours to use now: only then may requests for it be answered.
    pub fn is_claimed(&self) -> bool {
        matches!(self.state, State::Claimed { .. })
    }

    /// Takes in any ARP packet from the link: questions that are not for us matter too. Returns whether it was
    /// somebody's use of our address, from which nothing must be learned.
    pub fn handle_packet(&mut self, now: Instant, packet: &Packet) -> bool {
        // What we sent ourselves comes back through some bridges and access points.
        if packet.sender_mac == self.mac {
            return false;
        }
        let mac = packet.sender_mac;
        let uses = packet.sender_ip == self.address;
        match self.state {
            // RFC 5227 §2.1.1: any packet from the address, or a probe for it by another host.
            State::Probing { .. } if uses || (packet.is_probe() && packet.target_ip == self.address) => {
                self.give_up(Event::Refused { mac });
                true
            }
            // RFC 5227 §2.4: others' probes are no conflict, they are answered like any request.
            State::Claimed { .. } if uses => {
                self.defend(now, mac);
                true
            }
            // What we have given up is theirs, and they are a neighbour like any other.
            State::Gone => false,
            _ => uses,
        }
    }

    /// The link is back after it was gone, and may lead elsewhere by now (RFC 5227 §2.1). Probes that nobody can have heard
    /// are sent again. What is ours stays in use; whoever has it there is asked once, and answers if the address is theirs,
    /// and all are told that it is ours, switches not least.
    pub fn link_is_back(&mut self, now: Instant) {
        match self.state {
            State::Probing { .. } => (self.state, self.timer) = (State::Probing { sent: 0 }, Some(now)),
            State::Claimed { .. } => {
                self.outbox.push_back(probe(self.address, self.mac));
                self.announce(now, 0);
            }
            State::Gone => {}
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.timer.is_none_or(|at| at > now) {
            return;
        }
        self.timer = None;
        match self.state {
            State::Probing { sent } if sent < self.timing.probe_num => {
                self.outbox.push_back(probe(self.address, self.mac));
                let sent = sent + 1;
                self.state = State::Probing { sent };
                let last = sent == self.timing.probe_num;
                let interval = self.intervals.get(sent - 1).copied().unwrap_or(self.timing.probe_max);
                self.timer = Some(now + if last { self.timing.announce_wait } else { interval });
            }
            State::Probing { .. } => {
                self.events.push_back(Event::Claimed);
                self.announce(now, 0);
            }
            State::Claimed { announced } => self.announce(now, announced),
            State::Gone => {}
        }
    }

    /// The next packet to send, to everybody.
    pub fn poll_transmit(&mut self) -> Option<Packet> {
        self.outbox.pop_front()
    }

    /// What became of the claim, in order.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) has to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timer
    }

    fn announce(&mut self, now: Instant, announced: u32) {
        self.outbox.push_back(announcement(self.address, self.mac));
        let announced = announced + 1;
        self.state = State::Claimed { announced };
        self.timer = (announced < ANNOUNCE_NUM).then_some(now + ANNOUNCE_INTERVAL);
    }

    fn defend(&mut self, now: Instant, mac: MacAddr) {
        let recently = self.defended.is_some_and(|at| now - at < DEFEND_INTERVAL);
        match (recently, self.policy) {
            (true, Policy::Yield) => self.give_up(Event::Lost { mac }),
            // RFC 5227 §2.4 (c): not more than one announcement in the interval, or two such hosts never stop.
            (true, Policy::Hold) => {}
            (false, _) => {
                self.defended = Some(now);
                self.outbox.push_back(announcement(self.address, self.mac));
                self.events.push_back(Event::Defended { mac });
            }
        }
    }

    fn give_up(&mut self, event: Event) {
        self.state = State::Gone;
        self.timer = None;
        self.outbox.clear();
        self.events.push_back(event);
    }
}

/// Does anybody have this address? Asked without a sender address, so that it spoils nobody's cache (RFC 5227
/// §2.1.1).
fn probe(address: Ipv4Addr, mac: MacAddr) -> Packet {
    Packet {
        operation: Operation::Request,
        sender_mac: mac,
        sender_ip: Ipv4Addr::UNSPECIFIED,
        target_mac: MacAddr::ZERO,
        target_ip: address,
    }
}

/// This address is ours: a request for it from it, which updates everybody's cache (RFC 5227 §2.3).
fn announcement(address: Ipv4Addr, mac: MacAddr) -> Packet {
    Packet { sender_ip: address, ..probe(address, mac) }
}

fn between(min: Duration, max: Duration, rng: &mut Rng) -> Duration {
    let spread = u64::try_from(max.saturating_sub(min).as_nanos()).unwrap_or(u64::MAX);
    min + Duration::from_nanos(rng.below(spread.saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

    fn ms(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    fn claim(schedule: Schedule, policy: Policy, conflicts: u32, seed: u64) -> Claim {
        Claim::new(ms(0), OURS, MAC, schedule, policy, conflicts, &mut Rng::from_seed(seed))
    }

    /// Lets the timers run until `until`; what was sent, and when.
    fn run(claim: &mut Claim, until: Instant) -> Vec<(u64, Packet)> {
        let mut sent = Vec::new();
        while let Some(now) = claim.poll_timeout().filter(|&at| at <= until) {
            claim.handle_timeout(now);
            sent.extend(std::iter::from_fn(|| claim.poll_transmit()).map(|packet| (now.as_millis(), packet)));
        }
        sent
    }

    fn claimed(policy: Policy) -> Claim {
        let mut claim = claim(Schedule::Fast, policy, 0, 1);
        run(&mut claim, ms(5_000));
        assert_eq!(claim.poll_event(), Some(Event::Claimed));
        claim
    }

    /// A packet of the other host, which uses our address.
    fn conflicting() -> Packet {
        Packet { sender_ip: OURS, sender_mac: OTHER, ..announcement(OURS, OTHER) }
    }

    #[test]
    fn the_fast_schedule_claims_in_260_ms_and_announces_twice() {
        let mut claim = claim(Schedule::Fast, Policy::Yield, 0, 1);
        let (probe, announcement) = (probe(OURS, MAC), announcement(OURS, MAC));
        assert_eq!(run(&mut claim, ms(259)), [0, 60, 120, 180].map(|at| (at, probe)));
        assert!(!claim.is_claimed());
        assert_eq!(run(&mut claim, ms(10_000)), [(260, announcement), (2_260, announcement)]);
        assert!(claim.is_claimed());
        assert_eq!((claim.poll_event(), claim.poll_event()), (Some(Event::Claimed), None));
        assert_eq!(claim.poll_timeout(), None);
    }

    /// RFC 5227 §1.1.
    #[test]
    fn rfc5227_2_1_1_the_rfcs_schedule_keeps_within_its_constants() {
        for seed in 0..100 {
            let mut claim = claim(Schedule::Rfc, Policy::Yield, 0, seed);
            let sent = run(&mut claim, ms(100_000));
            let [a, b, c, d, e] = sent[..] else { panic!("three probes, two announcements: {sent:?}") };
            assert!(a.0 <= 1_000, "PROBE_WAIT");
            for (before, after) in [(a, b), (b, c)] {
                assert!((999..=2_001).contains(&(after.0 - before.0)), "PROBE_MIN, PROBE_MAX");
            }
            assert_eq!((d.0 - c.0, e.0 - d.0), (2_000, 2_000), "ANNOUNCE_WAIT, ANNOUNCE_INTERVAL");
            assert!([a, b, c].iter().all(|(_, packet)| packet.is_probe() && packet.sender_mac == MAC));
            assert!([d, e].iter().all(|(_, packet)| packet.sender_ip == OURS && packet.target_ip == OURS));
        }
    }

    #[test]
    fn rfc5227_2_1_when_the_link_is_back_probing_begins_again_and_what_is_ours_is_asked_for_and_announced() {
        let (probe, announcement) = (probe(OURS, MAC), announcement(OURS, MAC));
        let mut probing = claim(Schedule::Fast, Policy::Yield, 0, 1);
        assert_eq!(run(&mut probing, ms(200)).len(), 4);
        probing.link_is_back(ms(230));
        let sent = [(230, probe), (290, probe), (350, probe), (410, probe), (490, announcement)];
        assert_eq!(run(&mut probing, ms(2_000)), sent);

        let mut ours = claimed(Policy::Yield);
        ours.link_is_back(ms(6_000));
        assert!(ours.is_claimed());
        assert_eq!([ours.poll_transmit(), ours.poll_transmit()], [Some(probe), Some(announcement)]);
        assert_eq!(run(&mut ours, ms(20_000)), [(8_000, announcement)]);

        let mut lost = claimed(Policy::Yield);
        for at in [6_000, 7_000] {
            lost.handle_packet(ms(at), &conflicting());
        }
        while lost.poll_transmit().is_some() {}
        lost.link_is_back(ms(8_000));
        assert_eq!((lost.poll_transmit(), lost.poll_timeout()), (None, None), "it is theirs");
    }

    #[test]
    fn rfc5227_2_1_1_an_owners_answer_at_any_moment_of_probing_refuses_the_claim() {
        for at in [0, 30, 61, 150, 181, 259] {
            for operation in [Operation::Request, Operation::Reply] {
                let mut claim = claim(Schedule::Fast, Policy::Yield, 0, 1);
                run(&mut claim, ms(at));
                assert!(claim.handle_packet(ms(at), &Packet { operation, ..conflicting() }));
                assert_eq!(claim.poll_event(), Some(Event::Refused { mac: OTHER }));
                assert_eq!(run(&mut claim, ms(10_000)), []);
                assert!(!claim.is_claimed());
                assert_eq!(claim.poll_event(), None);
            }
        }
    }

    #[test]
    fn rfc5227_2_1_1_another_hosts_probe_for_the_address_refuses_the_claim() {
        let mut claim = claim(Schedule::Fast, Policy::Yield, 0, 1);
        run(&mut claim, ms(100));
        claim.handle_packet(ms(100), &probe(OURS, OTHER));
        assert_eq!(claim.poll_event(), Some(Event::Refused { mac: OTHER }));
    }

    #[test]
    fn rfc5227_2_1_1_our_own_probe_reflected_and_others_traffic_are_no_conflict() {
        let mut claim = claim(Schedule::Fast, Policy::Yield, 0, 1);
        run(&mut claim, ms(100));
        let neighbour = Ipv4Addr::new(10, 0, 0, 1);
        for packet in [
            probe(OURS, MAC),
            probe(neighbour, OTHER),
            announcement(neighbour, OTHER),
            // Somebody who has an address asks for ours: it was just in use by an earlier owner.
            Packet { target_ip: OURS, ..announcement(neighbour, OTHER) },
        ] {
            assert!(!claim.handle_packet(ms(100), &packet));
        }
        run(&mut claim, ms(260));
        assert_eq!(claim.poll_event(), Some(Event::Claimed));
    }

    #[test]
    fn rfc5227_2_4_b_a_first_conflict_is_answered_and_a_second_soon_after_loses_the_address() {
        let mut claim = claimed(Policy::Yield);
        assert!(claim.handle_packet(ms(10_000), &conflicting()));
        assert_eq!(claim.poll_event(), Some(Event::Defended { mac: OTHER }));
        assert_eq!((claim.poll_transmit(), claim.poll_transmit()), (Some(announcement(OURS, MAC)), None));
        assert!(claim.is_claimed());

        claim.handle_packet(ms(19_999), &conflicting());
        assert_eq!(claim.poll_event(), Some(Event::Lost { mac: OTHER }));
        assert_eq!(claim.poll_transmit(), None);
        assert!(!claim.is_claimed());
    }

    #[test]
    fn rfc5227_2_4_b_conflicts_far_apart_are_each_defended() {
        let mut claim = claimed(Policy::Yield);
        for n in 1..=10 {
            claim.handle_packet(ms(n * 10_000), &conflicting());
            assert_eq!(claim.poll_event(), Some(Event::Defended { mac: OTHER }));
            assert_eq!(claim.poll_transmit(), Some(announcement(OURS, MAC)));
        }
    }

    #[test]
    fn rfc5227_2_4_c_holding_defends_once_in_an_interval() {
        let mut claim = claimed(Policy::Hold);
        let announcements = (0..200u64)
            .filter(|n| {
                claim.handle_packet(ms(10_000 + n * 100), &conflicting());
                claim.poll_transmit().is_some()
            })
            .count();
        assert_eq!(announcements, 2, "in 20 seconds");
        assert!(claim.is_claimed());
    }

    #[test]
    fn rfc5227_2_4_others_probes_for_a_claimed_address_are_no_conflict() {
        let mut claim = claimed(Policy::Yield);
        assert!(!claim.handle_packet(ms(10_000), &probe(OURS, OTHER)));
        assert_eq!((claim.poll_event(), claim.poll_transmit()), (None, None));
    }

    #[test]
    fn rfc5227_2_1_1_after_max_conflicts_probing_waits_a_minute() {
        let mut early = claim(Schedule::Fast, Policy::Yield, MAX_CONFLICTS - 1, 1);
        assert_eq!(run(&mut early, ms(0)).len(), 1);
        let mut late = claim(Schedule::Fast, Policy::Yield, MAX_CONFLICTS, 1);
        assert_eq!(run(&mut late, ms(59_999)), []);
        assert_eq!(run(&mut late, ms(60_000)).len(), 1);
    }

    #[test]
    fn an_owner_behind_a_link_that_loses_one_frame_in_twenty_is_found() {
        let mut rng = Rng::from_seed(9);
        let mut missed = 0;
        for seed in 0..20_000 {
            let mut claim = claim(Schedule::Fast, Policy::Yield, 0, seed);
            while let Some(now) = claim.poll_timeout().filter(|&at| at < ms(261)) {
                claim.handle_timeout(now);
                let arrives =
                    claim.poll_transmit().is_some_and(|packet| packet.is_probe()) && !rng.chance(0.05);
                if arrives && !rng.chance(0.05) {
                    claim.handle_packet(now, &conflicting());
                }
            }
            missed += usize::from(claim.is_claimed());
        }
        // (1 - 0.95²)⁴ is 1 in 11 000.
        assert!(missed <= 6, "{missed} of 20000 owners were not found");
    }
}
