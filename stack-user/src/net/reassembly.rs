//! Fragments back into datagrams (RFC 791 §3.2, RFC 815).
//!
//! Fragments are copied to the heap as they come: a datagram can be longer than a chunk, and a sender of
//! fragments that never complete must not hold the UMEM. Fragments that overlap are no accident but an attempt
//! to show a firewall another datagram than the host, so their datagram is dropped as a whole, as RFC 5722 has
//! it for IPv6; only exact copies are let pass.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
    net::Ipv4Addr,
};

use crate::{
    telemetry::DropReason,
    time::{Duration, Instant},
    wire::ipv4::{self, Header},
};

/// How long a datagram waits for its fragments, from the first that came. RFC 1122 §3.3.2 has 60 s in mind,
/// Linux takes 30 s. Longer, and at high rates the 16-bit identification comes round again and fragments of
/// different datagrams mix (RFC 4963).
const TIMEOUT: Duration = Duration::from_secs(30);

/// Datagrams that wait at once, from all sources and from one. Fewer, and in a flood of fragments those of an honest datagram
/// have less time to follow each other; more, and each fragment of the flood takes longer to make room for. The second
/// bound keeps one broken sender from taking all.
const MAX_DATAGRAMS: usize = 64;
const MAX_DATAGRAMS_OF_SOURCE: usize = 16;

/// Fragments of one datagram: the longest has 45 on Ethernet, 119 with RFC 791's 576 bytes. More come from somebody
/// who wants us to keep lists.
const MAX_FRAGMENTS: usize = 128;

/// Bytes that all waiting fragments hold: sixteen of the longest datagrams.
const MAX_BYTES: usize = 16 * ipv4::MAX_TOTAL_LEN;

/// A datagram whose fragments have all come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reassembled {
    /// The first fragment's header, as the whole datagram's.
    pub header: Header,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// A datagram whose fragments did not all come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expired {
    /// The first fragment, header and all, if that came: an ICMP error quotes it. Without it none is sent (RFC 792).
    pub first: Option<Vec<u8>>,
}

/// Datagrams of which some fragments are still missing.
#[derive(Debug, Default)]
pub struct Reassembler {
    partial: BTreeMap<Key, Partial>,
    bytes: usize,
    expired: VecDeque<Expired>,
    /// Datagrams that had to make room, and were not counted yet.
    evicted: u64,
}

/// What fragments of one datagram have in common (RFC 791 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    identification: u16,
}

#[derive(Debug)]
struct Partial {
    deadline: Instant,
    /// By where they belong; none overlap.
    fragments: BTreeMap<usize, Vec<u8>>,
    /// The header of the fragment at 0.
    first: Option<Header>,
    /// Bytes in `fragments`.
    received: usize,
    /// Bytes of the datagram, once the last fragment came.
    total: Option<usize>,
    /// Fragments overlapped: what is still to come is dropped too.
    poisoned: bool,
}

impl Reassembler {
    /// Nothing waits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in a fragment. Returns the datagram if it was the last that was missing.
    ///
    /// # Errors
    /// [`DropReason::FragmentMalformed`], or [`DropReason::FragmentQueueFull`] when the datagram is in too many pieces; the
    /// fragment is not kept.
    pub fn insert(
        &mut self,
        now: Instant,
        header: &Header,
        payload: &[u8],
    ) -> Result<Option<Reassembled>, DropReason> {
        check(header, payload)?;
        let key = Key::of(header);
        self.make_room(key, payload.len());
        self.partial.entry(key).or_insert_with(|| Partial::new(now + TIMEOUT));
        let Some(partial) = self.partial.get_mut(&key) else { return Ok(None) };
        let before = partial.received;
        let result = partial.insert(header, payload);
        self.bytes = self.bytes - before + partial.received;
        if !result? {
            return Ok(None);
        }
        let complete = self.partial.remove(&key);
        self.bytes -= complete.as_ref().map_or(0, |partial| partial.received);
        Ok(complete.and_then(Partial::assemble))
    }

    /// Gives up on datagrams that waited for too long.
    pub fn handle_timeout(&mut self, now: Instant) {
        for (_, partial) in self.partial.extract_if(.., |_, partial| partial.deadline <= now) {
            self.bytes -= partial.received;
            self.expired.push_back(Expired { first: partial.first_fragment() });
        }
    }

    /// The next datagram that was given up: one [`DropReason::FragmentTimeout`].
    pub fn poll_expired(&mut self) -> Option<Expired> {
        self.expired.pop_front()
    }

    /// How many datagrams had to make room for others since the last call: each one
    /// [`DropReason::FragmentQueueFull`].
    pub fn take_evicted(&mut self) -> u64 {
        std::mem::take(&mut self.evicted)
    }

    /// When [`handle_timeout`](Self::handle_timeout) has to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.partial.values().map(|partial| partial.deadline).min()
    }

    /// Makes room for `len` bytes of a datagram, within all bounds. What has waited longest goes, so that whose fragments
    /// follow each other soon gets through a flood of those that never do; and of the source that takes most, so that
    /// there have to be many for that.
    fn make_room(&mut self, key: Key, len: usize) {
        if !self.partial.contains_key(&key) {
            let of_source = self.partial.keys().filter(|other| other.source == key.source).count();
            if of_source >= MAX_DATAGRAMS_OF_SOURCE {
                let oldest = self.partial.iter().filter(|(other, _)| other.source == key.source);
                let oldest = oldest.min_by_key(|(_, partial)| partial.deadline).map(|(key, _)| *key);
                self.evict(oldest);
            } else if self.partial.len() >= MAX_DATAGRAMS {
                self.evict(self.oldest_of_greediest(key, |_| 1));
            }
        }
        while self.bytes + len > MAX_BYTES {
            // Other than this one there must be some: it alone is shorter.
            let Some(victim) = self.oldest_of_greediest(key, |partial| partial.received) else { return };
            self.evict(Some(victim));
        }
    }

    /// The datagram, other than `spared`, that has waited longest of those of the source whose weights are most. Sources
    /// that weigh the same are told by their oldest datagram, too.
    fn oldest_of_greediest(&self, spared: Key, weight: impl Fn(&Partial) -> usize) -> Option<Key> {
        let mut best: Option<(usize, Reverse<Instant>, Key)> = None;
        let mut run: Option<(usize, Reverse<Instant>, Key)> = None;
        // In the order of keys, datagrams of one source are beside each other.
        for (&key, partial) in self.partial.iter().filter(|(key, _)| **key != spared) {
            let (age, own) = (Reverse(partial.deadline), weight(partial));
            run = Some(match run {
                Some((sum, oldest, known)) if known.source == key.source => {
                    let (oldest, known) = if age > oldest { (age, key) } else { (oldest, known) };
                    (sum + own, oldest, known)
                }
                _ => (own, age, key),
            });
            best = best.max(run);
        }
        best.map(|(_, _, key)| key)
    }

    fn evict(&mut self, key: Option<Key>) {
        if let Some(partial) = key.and_then(|key| self.partial.remove(&key)) {
            self.bytes -= partial.received;
            self.evicted += 1;
        }
    }
}

/// All but the last fragment are cut at multiples of eight bytes, none is empty, and none leads beyond the
/// longest datagram.
fn check(header: &Header, payload: &[u8]) -> Result<(), DropReason> {
    let uncut = !header.more_fragments || payload.len().is_multiple_of(8);
    let end = usize::from(header.fragment_offset) + payload.len();
    let fits = end <= ipv4::MAX_TOTAL_LEN - ipv4::LEN;
    if uncut && fits && !payload.is_empty() { Ok(()) } else { Err(DropReason::FragmentMalformed) }
}

impl Key {
    fn of(header: &Header) -> Self {
        let &Header { source, destination, protocol, identification, .. } = header;
        Self { source, destination, protocol, identification }
    }
}

impl Partial {
    fn new(deadline: Instant) -> Self {
        let fragments = BTreeMap::new();
        Self { deadline, fragments, first: None, received: 0, total: None, poisoned: false }
    }

    /// Whether the datagram is complete with this fragment.
    fn insert(&mut self, header: &Header, payload: &[u8]) -> Result<bool, DropReason> {
        let start = usize::from(header.fragment_offset);
        let end = start + payload.len();
        if self.poisoned {
            return Err(DropReason::FragmentMalformed);
        }
        if self.fragments.get(&start).is_some_and(|known| known == payload) {
            return Ok(false);
        }
        if self.contradicts(start, end, header.more_fragments) {
            self.poison();
            return Err(DropReason::FragmentMalformed);
        }
        if self.fragments.len() >= MAX_FRAGMENTS {
            return Err(DropReason::FragmentQueueFull);
        }
        if !header.more_fragments {
            self.total = Some(end);
        }
        if start == 0 {
            self.first = Some(*header);
        }
        self.fragments.insert(start, payload.to_vec());
        self.received += payload.len();
        // Nothing overlaps, so as many bytes as the datagram has are all of them.
        Ok(self.total == Some(self.received))
    }

    /// Whether `start..end` overlaps another fragment, or they differ on where the datagram ends.
    fn contradicts(&self, start: usize, end: usize, more: bool) -> bool {
        let before = self.fragments.range(..=start).next_back();
        let overlaps_before = before.is_some_and(|(at, bytes)| at + bytes.len() > start);
        let overlaps_after = self.fragments.range(start..).next().is_some_and(|(&at, _)| at < end);
        let highest = self.fragments.last_key_value().map_or(0, |(at, bytes)| at + bytes.len());
        let wrong_end = match self.total {
            Some(total) => end > total || (!more && end != total) || (more && end == total),
            None => !more && highest > end,
        };
        overlaps_before || overlaps_after || wrong_end
    }

    fn poison(&mut self) {
        self.poisoned = true;
        self.fragments.clear();
        self.first = None;
        self.received = 0;
    }

    fn assemble(self) -> Option<Reassembled> {
        let mut payload = Vec::with_capacity(self.received);
        self.fragments.into_values().for_each(|bytes| payload.extend_from_slice(&bytes));
        let payload_len = u16::try_from(payload.len()).ok()?;
        let header = Header { more_fragments: false, fragment_offset: 0, payload_len, ..self.first? };
        Some(Reassembled { header, payload })
    }

    fn first_fragment(&self) -> Option<Vec<u8>> {
        let payload = self.fragments.get(&0)?;
        let mut datagram = vec![0; ipv4::LEN];
        self.first?.emit(&mut datagram);
        datagram.extend_from_slice(payload);
        Some(datagram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn ms(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    fn header(source: u8, identification: u16, offset: usize, more_fragments: bool, len: usize) -> Header {
        let (source, destination) = ([10, 0, 0, source].into(), [10, 0, 0, 9].into());
        let fragment_offset = offset as u16;
        Header {
            identification,
            dont_fragment: false,
            more_fragments,
            fragment_offset,
            ..Header::new(source, destination, 17, len as u16)
        }
    }

    fn data(len: usize) -> Vec<u8> {
        (0..len).map(|n| (n * 7 / 3) as u8).collect()
    }

    /// Inserts `data[start..end]` of datagram 1.
    fn put(
        reassembler: &mut Reassembler,
        data: &[u8],
        start: usize,
        end: usize,
    ) -> Result<Option<Reassembled>, DropReason> {
        let header = header(1, 1, start, end < data.len(), end - start);
        reassembler.insert(ms(0), &header, &data[start..end])
    }

    #[test]
    fn rfc791_3_2_fragments_in_any_order_make_the_datagram() {
        let data = data(5_000);
        let mut rng = Rng::from_seed(3);
        for _ in 0..200 {
            let mut cuts: Vec<_> =
                (0..5_000).step_by(1_480).map(|start| (start, 5_000.min(start + 1_480))).collect();
            for n in (1..cuts.len()).rev() {
                cuts.swap(n, rng.below(n as u64 + 1) as usize);
            }
            let mut reassembler = Reassembler::new();
            let (&(start, end), others) = cuts.split_last().expect("four fragments");
            for &(start, end) in others {
                assert_eq!(put(&mut reassembler, &data, start, end), Ok(None));
            }
            let whole = put(&mut reassembler, &data, start, end).expect("well formed").expect("complete");
            assert_eq!(whole.payload, data);
            assert!(!whole.header.is_fragment() && usize::from(whole.header.payload_len) == data.len());
            assert_eq!((reassembler.bytes, reassembler.poll_timeout()), (0, None));
        }
    }

    #[test]
    fn the_longest_datagram_fits_and_a_longer_one_is_refused() {
        let data = data(65_515);
        let mut reassembler = Reassembler::new();
        assert_eq!(put(&mut reassembler, &data, 0, 65_512), Ok(None));
        assert!(put(&mut reassembler, &data, 65_512, 65_515).is_ok_and(|whole| whole.is_some()));
        let beyond = header(1, 1, 65_512, false, 4);
        assert_eq!(reassembler.insert(ms(0), &beyond, &[0; 4]), Err(DropReason::FragmentMalformed));
    }

    #[test]
    fn exact_copies_are_let_pass() {
        let data = data(24);
        let mut reassembler = Reassembler::new();
        assert_eq!(put(&mut reassembler, &data, 0, 16), Ok(None));
        assert_eq!(put(&mut reassembler, &data, 0, 16), Ok(None));
        assert!(put(&mut reassembler, &data, 16, 24).is_ok_and(|whole| whole.is_some()));
    }

    #[test]
    fn rfc5722_3_any_other_overlap_drops_the_datagram_and_its_later_fragments() {
        for (start, end) in [(0, 8), (8, 24), (0, 24), (8, 16)] {
            let data = data(40);
            let mut reassembler = Reassembler::new();
            assert_eq!(put(&mut reassembler, &data, 0, 16), Ok(None));
            assert_eq!(put(&mut reassembler, &data, start, end), Err(DropReason::FragmentMalformed));
            assert_eq!(reassembler.bytes, 0);
            assert_eq!(put(&mut reassembler, &data, 16, 40), Err(DropReason::FragmentMalformed));
            // And nothing is told to the sender.
            reassembler.handle_timeout(ms(30_000));
            assert_eq!(reassembler.poll_expired(), Some(Expired { first: None }));
        }
        // The same place, other bytes.
        let mut reassembler = Reassembler::new();
        assert_eq!(put(&mut reassembler, &data(40), 0, 16), Ok(None));
        assert_eq!(put(&mut reassembler, &[0xee; 40], 0, 16), Err(DropReason::FragmentMalformed));
    }

    #[test]
    fn fragments_that_differ_on_the_end_drop_the_datagram() {
        let mut reassembler = Reassembler::new();
        assert_eq!(put(&mut reassembler, &data(40), 32, 40), Ok(None));
        assert_eq!(put(&mut reassembler, &data(32), 24, 32), Err(DropReason::FragmentMalformed));

        let mut reassembler = Reassembler::new();
        assert_eq!(put(&mut reassembler, &data(40), 16, 24), Ok(None));
        assert_eq!(put(&mut reassembler, &data(16), 8, 16), Err(DropReason::FragmentMalformed));
    }

    #[test]
    fn an_empty_or_uneven_fragment_is_malformed() {
        let mut reassembler = Reassembler::new();
        for (offset, more, len) in [(0, true, 0), (8, false, 0), (0, true, 7), (8, true, 12)] {
            let header = header(1, 1, offset, more, len);
            let refused = reassembler.insert(ms(0), &header, &data(len));
            assert_eq!(refused, Err(DropReason::FragmentMalformed));
        }
        assert_eq!(reassembler.poll_timeout(), None);
    }

    #[test]
    fn rfc1122_3_3_2_the_time_runs_from_the_first_fragment_and_the_first_is_quoted() {
        let data = data(48);
        let mut reassembler = Reassembler::new();
        assert_eq!(put(&mut reassembler, &data, 8, 16), Ok(None));
        let first = header(1, 1, 0, true, 8);
        assert_eq!(reassembler.insert(ms(20_000), &first, &data[..8]), Ok(None));
        assert_eq!(reassembler.poll_timeout(), Some(ms(30_000)));
        reassembler.handle_timeout(ms(29_999));
        assert_eq!(reassembler.poll_expired(), None);
        reassembler.handle_timeout(ms(30_000));
        let quoted = reassembler.poll_expired().and_then(|expired| expired.first).expect("the first came");
        let (header, payload) = Header::parse(&quoted).expect("a datagram");
        assert_eq!((header.identification, &quoted[payload]), (1, &data[..8]));
        assert_eq!((reassembler.bytes, reassembler.poll_timeout()), (0, None));
    }

    /// A first fragment of 8 bytes.
    fn open(reassembler: &mut Reassembler, at: u64, source: u8, id: u16) -> Result<(), DropReason> {
        reassembler.insert(ms(at), &header(source, id, 0, true, 8), &[0; 8]).map(|_| ())
    }

    /// The rest of it.
    fn finish(reassembler: &mut Reassembler, at: u64, source: u8, id: u16) -> bool {
        let last = header(source, id, 8, false, 8);
        reassembler.insert(ms(at), &last, &[0; 8]).is_ok_and(|whole| whole.is_some())
    }

    #[test]
    fn what_waits_is_bounded_by_source_by_number_and_by_bytes() {
        let mut reassembler = Reassembler::new();
        for source in 1..=10 {
            for id in 0..40 {
                assert_eq!(open(&mut reassembler, 0, source, id), Ok(()));
            }
            assert!(reassembler.partial.len() <= usize::from(source) * MAX_DATAGRAMS_OF_SOURCE);
        }
        assert_eq!(reassembler.partial.len(), MAX_DATAGRAMS);
        assert_eq!(reassembler.take_evicted(), 400 - MAX_DATAGRAMS as u64);
        assert_eq!(reassembler.take_evicted(), 0);

        let mut reassembler = Reassembler::new();
        let fragment = data(32_752);
        for (source, id) in (1..=4).flat_map(|source| (0..16).map(move |id| (source, id))) {
            for at in [0, 32_752] {
                let header = header(source, id, at, true, fragment.len());
                assert_eq!(reassembler.insert(ms(0), &header, &fragment), Ok(None));
                assert!(reassembler.bytes <= MAX_BYTES);
            }
        }
        assert!(reassembler.take_evicted() > 0);

        let mut reassembler = Reassembler::new();
        let fragments =
            (0..1000).filter(|n| reassembler.insert(ms(0), &header(1, 1, n * 16, true, 8), &[0; 8]).is_ok());
        assert_eq!(fragments.count(), MAX_FRAGMENTS);
    }

    /// Whoever forges many senders, or many datagrams of one, does not keep others' out: what has waited longest makes room.
    #[test]
    fn honest_datagrams_get_through_a_flood_of_fragments() {
        for sources in [1, 4, 60, 200_u8] {
            let mut reassembler = Reassembler::new();
            let mut through = 0;
            for n in 0..2_000_u16 {
                let at = u64::from(n);
                // A fragment each millisecond; the honest datagram's come 20 ms apart.
                let _ = open(&mut reassembler, at, 10 + (n % u16::from(sources)) as u8, n);
                match n % 100 {
                    50 => assert_eq!(open(&mut reassembler, at, 1, n / 100), Ok(())),
                    70 => through += usize::from(finish(&mut reassembler, at, 1, n / 100)),
                    _ => {}
                }
            }
            assert_eq!(through, 20, "beside {sources} forged senders");
        }
    }

    /// What takes most makes room first, not who came first.
    #[test]
    fn a_greedy_source_makes_room_for_others() {
        let mut reassembler = Reassembler::new();
        assert_eq!(open(&mut reassembler, 0, 1, 1), Ok(()));
        let fragment = data(65_000);
        for id in 0..200 {
            let header = header(2, id, 0, true, fragment.len());
            assert_eq!(reassembler.insert(ms(1 + u64::from(id)), &header, &fragment), Ok(None));
        }
        for source in 3..50 {
            for id in 0..2 {
                assert_eq!(open(&mut reassembler, 500, source, id), Ok(()));
            }
        }
        assert!(finish(&mut reassembler, 600, 1, 1));
    }

    #[test]
    fn hostile_fragments_never_break_the_accounts() {
        for seed in 0..50 {
            let mut rng = Rng::from_seed(seed);
            let mut reassembler = Reassembler::new();
            for step in 0..2_000 {
                let offset = rng.below(8) as usize * 8;
                let more = rng.chance(0.8);
                let len = if more { 8 + rng.below(3) as usize * 8 } else { rng.below(24) as usize };
                let payload = vec![rng.below(2) as u8; len];
                let header = header(rng.below(4) as u8, rng.below(20) as u16, offset, more, len);
                if let Ok(Some(whole)) = reassembler.insert(ms(step * 50), &header, &payload) {
                    assert_eq!(whole.payload.len(), usize::from(whole.header.payload_len));
                }
                reassembler.handle_timeout(ms(step * 50));
                let held = reassembler.partial.values().flat_map(|partial| partial.fragments.values());
                assert_eq!(held.map(Vec::len).sum::<usize>(), reassembler.bytes);
            }
            reassembler.handle_timeout(ms(1_000_000));
            assert_eq!((reassembler.bytes, reassembler.poll_timeout()), (0, None));
        }
    }
}
