use std::net::Ipv4Addr;

use super::*;
use crate::device::Umem;

const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const OTHER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
const IP: IpAddr = ip(1);
/// The address of ours that asks.
const US: IpAddr = ip(999);

const fn ip(n: u16) -> IpAddr {
    let [a, b] = n.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, 0, a, b))
}

fn ms(millis: u64) -> Instant {
    // Not at the clock's origin, which stands for "never".
    Instant::from_millis(1_000_000 + millis)
}

fn everybody(target: IpAddr) -> Option<Request> {
    Some(Request { source: US, target, destination: None })
}

/// Lets the timers run until `until`; the questions that were asked meanwhile, with when and whom.
fn run(cache: &mut Cache, until: Instant) -> Vec<(u64, Option<MacAddr>)> {
    let mut asked = Vec::new();
    let mut now = ms(0);
    loop {
        while let Some(request) = cache.poll_transmit() {
            asked.push((now.as_millis() - ms(0).as_millis(), request.destination));
        }
        match cache.poll_timeout() {
            Some(at) if at <= until => now = at,
            _ => return asked,
        }
        cache.handle_timeout(now);
    }
}

/// A cache that has just resolved [`IP`] for use.
fn resolved(now: Instant) -> Cache {
    let mut cache = Cache::new();
    assert_eq!(cache.lookup(now, US, IP), Lookup::Pending);
    assert_eq!(cache.poll_transmit(), everybody(IP));
    assert!(cache.learn(now, IP, MAC, Evidence::Reply));
    cache
}

#[test]
fn the_first_question_goes_at_once_and_frames_follow_the_answer_in_order() {
    let mut pool = Umem::on_heap(4).expect("memory");
    let mut cache = Cache::new();
    let frames: Vec<_> = (0..3).map(|_| pool.allocate().expect("a chunk").into_tx()).collect();
    let order: Vec<_> = frames.iter().map(TxFrame::chunk).collect();
    for frame in frames {
        assert_eq!(cache.lookup(ms(0), US, IP), Lookup::Pending);
        assert_eq!(cache.park(IP, frame), Ok(()));
    }
    assert_eq!(cache.poll_transmit(), everybody(IP));
    assert_eq!(cache.poll_transmit(), None, "one question for all of them");
    assert!(cache.learn(ms(1), IP, MAC, Evidence::Reply));
    for chunk in order {
        let (frame, mac) = cache.poll_ready().expect("it waited");
        assert_eq!((frame.chunk(), mac), (chunk, MAC));
        pool.release_tx(frame);
    }
    assert_eq!(cache.poll_ready(), None);
    assert_eq!(cache.lookup(ms(1), US, IP), Lookup::Found(MAC));
    assert_eq!((cache.pending, cache.incomplete), (0, 0));
    assert_eq!(pool.available(), 4);
}

#[test]
fn a_lost_answer_costs_a_tenth_of_a_second_and_silence_fails_after_three() {
    let mut pool = Umem::on_heap(1).expect("memory");
    let mut cache = Cache::new();
    let _ = cache.lookup(ms(0), US, IP);
    assert_eq!(cache.park(IP, pool.allocate().expect("a chunk").into_tx()), Ok(()));
    let asked = run(&mut cache, ms(2_999));
    assert_eq!(asked, [0, 100, 400, 1_000, 2_000].map(|at| (at, None)));
    assert_eq!(cache.poll_unreachable(), None);

    assert_eq!(run(&mut cache, ms(3_000)), []);
    let Unreachable { neighbour, frames } = cache.poll_unreachable().expect("it did not answer");
    assert_eq!((neighbour, frames.len()), (IP, 1));
    frames.into_iter().for_each(|frame| pool.release_tx(frame));
    assert_eq!(pool.available(), 1);
    assert_eq!((cache.pending, cache.incomplete), (0, 0));
}

#[test]
fn rfc1122_2_3_2_1_a_neighbour_that_failed_is_not_asked_for_at_once_again() {
    let mut cache = Cache::new();
    let _ = cache.lookup(ms(0), US, IP);
    run(&mut cache, ms(3_000));
    assert_eq!(cache.lookup(ms(3_500), US, IP), Lookup::Failed);
    assert_eq!(cache.poll_transmit(), None);
    cache.handle_timeout(ms(4_000));
    assert_eq!(cache.lookup(ms(4_000), US, IP), Lookup::Pending);
    assert_eq!(cache.poll_transmit(), everybody(IP));
}

#[test]
fn rfc4861_7_3_3_an_old_address_is_used_then_asked_for_alone_then_given_up() {
    let mut cache = resolved(ms(0));
    assert_eq!(run(&mut cache, ms(40_000)), [], "what nobody uses is not asked for");
    assert_eq!(cache.lookup(ms(40_000), US, IP), Lookup::Found(MAC));
    let asked = run(&mut cache, ms(47_999));
    assert_eq!(asked, [45_000, 46_000, 47_000].map(|at| (at, Some(MAC))));
    assert_eq!(cache.lookup(ms(47_999), US, IP), Lookup::Found(MAC));

    cache.handle_timeout(ms(48_000));
    assert_eq!(cache.lookup(ms(48_000), US, IP), Lookup::Pending);
    assert_eq!(cache.poll_transmit(), everybody(IP));
}

#[test]
fn rfc4861_7_3_3_an_answer_to_the_neighbours_own_question_makes_it_reachable() {
    let mut cache = resolved(ms(0));
    run(&mut cache, ms(40_000));
    let _ = cache.lookup(ms(40_000), US, IP);
    assert_eq!(run(&mut cache, ms(45_000)), [(45_000, Some(MAC))]);
    assert!(cache.learn(ms(45_001), IP, MAC, Evidence::Reply));
    assert_eq!(run(&mut cache, ms(75_000)), []);
}

#[test]
fn rfc4861_7_3_1_confirmation_from_above_saves_the_question() {
    let mut cache = resolved(ms(0));
    run(&mut cache, ms(40_000));
    for at in (40_000..120_000).step_by(1_000) {
        assert_eq!(cache.lookup(ms(at), US, IP), Lookup::Found(MAC));
        cache.confirm(ms(at), IP);
        cache.handle_timeout(ms(at));
        assert_eq!(cache.poll_transmit(), None);
    }
    // Once it stops, the address ages from the last confirmation.
    assert_eq!(run(&mut cache, ms(119_000 + 30_000)), []);
    assert_eq!(cache.lookup(ms(149_000), US, IP), Lookup::Found(MAC));
    assert_eq!(run(&mut cache, ms(154_000)), [(154_000, Some(MAC))]);
}

#[test]
fn confirmation_tells_nothing_about_a_neighbour_without_an_address() {
    let mut cache = Cache::new();
    cache.confirm(ms(0), IP);
    assert!(cache.is_empty());
    let _ = cache.lookup(ms(0), US, IP);
    cache.confirm(ms(0), IP);
    assert_eq!(cache.lookup(ms(0), US, IP), Lookup::Pending);
}

#[test]
fn rfc826_only_a_request_for_us_adds_a_neighbour() {
    let mut cache = Cache::new();
    for evidence in [Evidence::Reply, Evidence::Overheard] {
        assert!(!cache.learn(ms(0), IP, MAC, evidence));
    }
    assert!(cache.is_empty());
    assert!(cache.learn(ms(0), IP, MAC, Evidence::Request));
    assert_eq!(cache.lookup(ms(1), US, IP), Lookup::Found(MAC));
    assert_eq!(cache.poll_transmit(), None);
    // Its word is checked once it is used.
    assert_eq!(run(&mut cache, ms(5_001)), [(5_001, Some(MAC))]);
}

#[test]
fn rfc826_an_announcement_moves_a_known_neighbour() {
    let mut cache = resolved(ms(0));
    assert!(!cache.learn(ms(999), IP, OTHER_MAC, Evidence::Overheard), "the first answer wins");
    assert_eq!(cache.peek(IP), Some(MAC));
    assert!(cache.learn(ms(1_000), IP, OTHER_MAC, Evidence::Overheard));
    assert_eq!(cache.lookup(ms(1_000), US, IP), Lookup::Found(OTHER_MAC));
    assert_eq!(run(&mut cache, ms(6_000)), [(6_000, Some(OTHER_MAC))]);
}

#[test]
fn a_neighbour_that_asks_for_us_while_we_ask_for_it_is_found() {
    let mut pool = Umem::on_heap(1).expect("memory");
    let mut cache = Cache::new();
    let _ = cache.lookup(ms(0), US, IP);
    assert_eq!(cache.park(IP, pool.allocate().expect("a chunk").into_tx()), Ok(()));
    assert!(cache.learn(ms(1), IP, MAC, Evidence::Request));
    let (frame, mac) = cache.poll_ready().expect("it is found");
    assert_eq!(mac, MAC);
    pool.release_tx(frame);
}

#[test]
fn a_late_answer_ends_the_failure() {
    let mut cache = Cache::new();
    let _ = cache.lookup(ms(0), US, IP);
    run(&mut cache, ms(3_000));
    assert!(cache.learn(ms(3_100), IP, MAC, Evidence::Reply));
    assert_eq!(cache.lookup(ms(3_100), US, IP), Lookup::Found(MAC));
}

#[test]
fn a_group_or_nobody_is_no_neighbours_address() {
    let mut cache = Cache::new();
    let _ = cache.lookup(ms(0), US, IP);
    for mac in [MacAddr::BROADCAST, MacAddr::ZERO, MacAddr([1, 0, 0x5e, 0, 0, 1])] {
        assert!(!cache.learn(ms(0), IP, mac, Evidence::Reply));
    }
    assert_eq!(cache.lookup(ms(0), US, IP), Lookup::Pending);
}

#[test]
fn rfc1122_2_3_2_2_the_latest_frames_are_kept() {
    let mut pool = Umem::on_heap(80).expect("memory");
    let mut cache = Cache::new();
    let _ = cache.lookup(ms(0), US, IP);
    let first = pool.allocate().expect("a chunk").into_tx();
    let first_chunk = first.chunk();
    assert_eq!(cache.park(IP, first), Ok(()));
    for _ in 1..MAX_PENDING_PER_NEIGHBOUR {
        assert_eq!(cache.park(IP, pool.allocate().expect("a chunk").into_tx()), Ok(()));
    }
    let displaced = cache.park(IP, pool.allocate().expect("a chunk").into_tx()).expect_err("it is full");
    assert_eq!(displaced.chunk(), first_chunk);
    pool.release_tx(displaced);
    assert_eq!(cache.pending, MAX_PENDING_PER_NEIGHBOUR);
    cache.clear(&mut pool);
    assert_eq!(pool.available(), 80);
}

#[test]
fn frames_and_questions_are_bounded_over_all_neighbours() {
    let mut pool = Umem::on_heap(400).expect("memory");
    let mut cache = Cache::new();
    let mut kept = 0;
    for n in 0..100 {
        let expected = if usize::from(n) < MAX_INCOMPLETE { Lookup::Pending } else { Lookup::Failed };
        assert_eq!(cache.lookup(ms(0), US, ip(n)), expected);
        for _ in 0..5 {
            let Some(frame) = pool.allocate() else { continue };
            match cache.park(ip(n), frame.into_tx()) {
                Ok(()) => kept += 1,
                Err(frame) => pool.release_tx(frame),
            }
        }
    }
    assert_eq!((kept, cache.pending), (MAX_PENDING, MAX_PENDING));
    run(&mut cache, ms(3_000));
    assert_eq!((cache.pending, cache.incomplete), (0, 0));
    cache.clear(&mut pool);
    assert_eq!(pool.available(), 400);
}

#[test]
fn a_flood_of_requests_displaces_only_what_nobody_uses() {
    let mut cache = resolved(ms(0));
    for n in 2..3_000 {
        assert!(cache.learn(ms(1), ip(n), OTHER_MAC, Evidence::Request));
    }
    assert_eq!(cache.len(), MAX_NEIGHBOURS);
    assert_eq!(cache.lookup(ms(2), US, IP), Lookup::Found(MAC));
}

#[test]
fn one_in_twenty_frames_lost_each_way_never_fails() {
    let mut rng = crate::rng::Rng::from_seed(5);
    let mut slow = 0;
    for _ in 0..10_000 {
        let mut cache = Cache::new();
        let _ = cache.lookup(ms(0), US, IP);
        let mut now = ms(0);
        while cache.lookup(now, US, IP) == Lookup::Pending {
            while cache.poll_transmit().is_some() {
                if !rng.chance(0.05) && !rng.chance(0.05) {
                    cache.learn(now, IP, MAC, Evidence::Reply);
                }
            }
            if cache.peek(IP).is_none() {
                now = cache.poll_timeout().expect("it goes on");
                cache.handle_timeout(now);
            }
        }
        assert_eq!(cache.lookup(now, US, IP), Lookup::Found(MAC));
        slow += usize::from(now - ms(0) > Duration::from_millis(400));
    }
    assert!(slow < 30, "{slow} of 10000 took more than 400 ms");
}

impl Cache {
    fn check_invariants(&self) {
        let timers: BTreeSet<_> =
            self.entries.iter().filter_map(|(&ip, entry)| Some((entry.timer?, ip))).collect();
        assert_eq!(timers, self.timers, "each timer belongs to an entry");
        let waiting: Vec<_> = self
            .entries
            .values()
            .filter_map(|entry| match &entry.state {
                State::Incomplete { pending, .. } => Some(pending.len()),
                _ => None,
            })
            .collect();
        assert_eq!((waiting.iter().sum::<usize>(), waiting.len()), (self.pending, self.incomplete));
        assert!(self.pending <= MAX_PENDING && self.incomplete <= MAX_INCOMPLETE);
        assert!(waiting.iter().all(|&frames| frames <= MAX_PENDING_PER_NEIGHBOUR));
        assert!(self.entries.len() <= MAX_NEIGHBOURS);
        for entry in self.entries.values() {
            let idle = matches!(entry.state, State::Stale(_));
            assert_eq!(entry.timer.is_none(), idle, "only what nobody uses stands still: {entry:?}");
        }
    }
}

#[test]
fn whatever_happens_in_whatever_order_frames_are_conserved() {
    for seed in 0..15 {
        let mut rng = crate::rng::Rng::from_seed(seed);
        let mut pool = Umem::on_heap(300).expect("memory");
        let mut cache = Cache::new();
        let mut now = ms(0);
        for _ in 0..2_000 {
            let magnitude = rng.below(14);
            now += Duration::from_millis(rng.below(1 << magnitude));
            let target = ip(rng.below(100) as u16);
            match rng.below(6) {
                0 | 1 => {
                    if cache.lookup(now, US, target) == Lookup::Pending
                        && let Some(frame) = pool.allocate()
                        && let Err(frame) = cache.park(target, frame.into_tx())
                    {
                        pool.release_tx(frame);
                    }
                }
                2 => {
                    let evidence = [Evidence::Reply, Evidence::Request, Evidence::Overheard];
                    let mac = if rng.chance(0.8) { MAC } else { OTHER_MAC };
                    cache.learn(now, target, mac, evidence[rng.below(3) as usize]);
                }
                3 => cache.confirm(now, target),
                4 => cache.handle_timeout(now),
                _ => {
                    while cache.poll_transmit().is_some() {}
                    while let Some((frame, _)) = cache.poll_ready() {
                        pool.release_tx(frame);
                    }
                    if let Some(unreachable) = cache.poll_unreachable() {
                        unreachable.frames.into_iter().for_each(|frame| pool.release_tx(frame));
                    }
                }
            }
            cache.check_invariants();
        }
        cache.clear(&mut pool);
        assert_eq!(pool.available(), 300, "seed {seed}");
    }
}

#[test]
fn rfc1122_3_3_1_4_a_neighbour_that_upper_layers_suspect_is_asked_and_forgotten() {
    let mut cache = resolved(ms(0));
    cache.suspect(ms(0), IP);
    assert_eq!(cache.lookup(ms(0), US, IP), Lookup::Found(MAC), "it may still be there");
    let asked = run(&mut cache, ms(10_000));
    assert!(asked.len() >= 2 && asked.iter().all(|(_, whom)| *whom == Some(MAC)), "{asked:?}");
    assert_eq!(cache.lookup(ms(10_000), US, IP), Lookup::Pending, "another router may have its address now");

    let mut cache = resolved(ms(0));
    cache.suspect(ms(0), IP);
    assert!(cache.learn(ms(1), IP, MAC, Evidence::Reply));
    assert_eq!(cache.lookup(ms(2), US, IP), Lookup::Found(MAC));
    cache.suspect(ms(2), ip(77));
    assert_eq!(cache.len(), 1, "an unknown one is not asked for");
}

/// The answer to the last look-up is kept for the rest of a burst, but no longer than it is true.
#[test]
fn what_changes_within_a_moment_is_seen_by_the_next_look_up() {
    let now = ms(0);
    let mut cache = resolved(now);
    assert_eq!(cache.lookup(now, US, IP), Lookup::Found(MAC));
    // Another one has the address, and nobody vouches for it.
    let later = now + LOCK_TIME;
    assert_eq!(cache.lookup(later, US, IP), Lookup::Found(MAC));
    assert!(cache.learn(later, IP, OTHER_MAC, Evidence::Request));
    assert_eq!(cache.lookup(later, US, IP), Lookup::Found(OTHER_MAC));
    // It is asked, and does not answer: whoever looks up while its entry goes asks everybody.
    cache.suspect(later, IP);
    let mut at = later;
    while let Some(due) = cache.poll_timeout().filter(|_| !cache.is_empty()) {
        at = due;
        assert_eq!(cache.lookup(at, US, IP), Lookup::Found(OTHER_MAC));
        cache.handle_timeout(at);
    }
    assert_eq!(cache.lookup(at, US, IP), Lookup::Pending);
    // One that is displaced is asked for anew.
    let mut cache = resolved(now);
    assert_eq!(cache.lookup(now, US, IP), Lookup::Found(MAC));
    cache.remove(IP);
    assert_eq!(cache.lookup(now, US, IP), Lookup::Pending);
    // To be confirmed changes nothing that was found.
    let mut cache = resolved(now);
    assert_eq!(cache.lookup(now, US, IP), Lookup::Found(MAC));
    cache.confirm(now, IP);
    assert!(cache.latest.is_some());
}
