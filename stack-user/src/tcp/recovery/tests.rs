//! What the scripts can't reach: ECN's entry, and the count of deliveries.

use super::*;
use crate::{device::Umem, tcp::congestion::Algorithm, tcp::send_queue::Layout};

const MSS: usize = 1000;
const ROUND_TRIP: Duration = Duration::from_millis(100);
const ROUND_TRIP_LATER: Instant = Instant::from_millis(100);

struct Sender {
    pool: Umem,
    queue: SendQueue,
    recovery: Recovery,
    congestion: Box<dyn CongestionControl>,
    una: u64,
    now: Instant,
}

impl Sender {
    /// `n` segments are in flight.
    fn new(n: usize) -> Self {
        let pool = Umem::on_heap(256).expect("memory");
        let congestion = Algorithm::NewReno.build(MSS);
        let mut sender = Self {
            pool,
            queue: SendQueue::default(),
            recovery: Recovery::default(),
            congestion,
            una: 0,
            now: Instant::ZERO,
        };
        sender.send(n);
        sender.now = ROUND_TRIP_LATER;
        sender
    }

    fn send(&mut self, n: usize) {
        let layout = Layout { payload_at: 0, mss: MSS };
        assert_eq!(self.queue.write(&mut self.pool, layout, &vec![0; n * MSS]), n * MSS);
        (0..n).for_each(|_| self.transmit(self.queue.sent_entries()));
    }

    fn transmit(&mut self, index: usize) {
        let entry = self.queue.get(index).expect("an entry");
        let (start, again) = (entry.start, entry.transmissions > 0);
        let transmission = self.recovery.on_transmit(self.now, &self.queue, start, MSS, again);
        let frame = self.queue.take_for_transmission(index, self.now, transmission).expect("its frame");
        self.queue.complete(&mut self.pool, frame.into_completed(), start);
    }

    fn context(&self) -> Context {
        Context {
            now: self.now,
            una: self.una,
            nxt: self.una + self.queue.outstanding() as u64,
            mss: MSS,
            sack: true,
            srtt: Some(ROUND_TRIP),
            min_rtt: Some(ROUND_TRIP),
            has_new_data: true,
            cwnd_limited: true,
        }
    }

    /// An ACK of all before segment `una`, with SACK blocks, in segments as well.
    fn ack(&mut self, una: u64, sacks: &[(u64, u64)]) -> Option<WindowReason> {
        self.recovery.begin_ack(self.now, &self.queue, MSS, None, Some(ROUND_TRIP));
        if una * MSS as u64 > self.una {
            self.una = una * MSS as u64;
            self.recovery.on_acknowledged(&mut self.queue, &mut self.pool, self.una);
        }
        for (start, end) in sacks {
            let block = start * MSS as u64..end * MSS as u64;
            self.recovery.on_sack(&mut self.queue, block);
        }
        let context = self.context();
        let reason = self.recovery.end_ack(&context, &mut self.queue, self.congestion.as_mut());
        self.recovery.check_invariants(&self.queue);
        reason
    }

    fn ecn_echo(&mut self) -> bool {
        let (nxt, in_flight) = (self.context().nxt, self.queue.outstanding());
        self.recovery.on_ecn_echo(self.now, (self.una, nxt), in_flight, self.congestion.as_mut())
    }
}

/// RFC 3168 §6.1.2: once per window of data.
#[test]
fn ecn_shrinks_the_window_once_a_round_trip_rfc3168_6_1_2() {
    let mut sender = Sender::new(10);
    assert!(sender.ecn_echo());
    assert_eq!((sender.recovery.phase(), sender.congestion.cwnd()), (Phase::Cwr, 5 * MSS));
    assert!(!sender.ecn_echo(), "the same window");
    // RFC 9937 §6.2 governs the way there.
    sender.ack(4, &[]);
    assert_eq!(sender.recovery.allowance(), Some(2 * MSS));
    assert!(!sender.ecn_echo(), "still the same");
    assert_eq!(sender.ack(10, &[]), Some(WindowReason::RecoveryDone));
    assert_eq!((sender.recovery.phase(), sender.recovery.allowance()), (Phase::Open, None));
    sender.send(4);
    assert!(!sender.ecn_echo(), "CWR is on its way, and the peer echoes until it comes");
    sender.ack(11, &[]);
    assert!(sender.ecn_echo(), "another window");
}

/// RFC 3168 §6.1.2: a loss in a window that was reduced already is repaired, and reduces nothing.
#[test]
fn a_loss_in_a_window_that_ecn_reduced_counts_once_rfc3168_6_1_2() {
    let mut sender = Sender::new(10);
    sender.ecn_echo();
    let cwnd = sender.congestion.cwnd();
    sender.ack(0, &[(1, 5)]);
    assert_eq!((sender.recovery.phase(), sender.congestion.cwnd()), (Phase::FastRecovery, cwnd));
    assert_eq!(sender.recovery.next_retransmission(&sender.queue), Some((0, true)));
    assert!(!sender.ecn_echo(), "in recovery");
    // RFC 3522 and RFC 3708 undo losses; that ECN told of congestion stays true.
    sender.transmit(0);
    sender.recovery.begin_ack(sender.now, &sender.queue, MSS, None, None);
    sender.recovery.on_dsack(0..1000, MSS);
    let context = sender.context();
    sender.recovery.end_ack(&context, &mut sender.queue, sender.congestion.as_mut());
    assert_eq!((sender.recovery.undone(), sender.congestion.cwnd()), (0, cwnd));
}

/// RFC 9937 §6.2: DeliveredData is what an ACK newly acknowledges or sacks, and each byte counts once.
#[test]
fn each_byte_is_delivered_once_rfc9937_6_2() {
    let mut sender = Sender::new(10);
    let mut delivered = Vec::new();
    for (una, sacks) in
        [(1, &[][..]), (1, &[(2, 4)]), (1, &[(2, 5), (3, 6)]), (6, &[]), (8, &[(9, 10)]), (10, &[])]
    {
        sender.ack(una, sacks);
        delivered.push(sender.recovery.delivered() / MSS as u64);
    }
    assert_eq!(delivered, [1, 3, 5, 6, 9, 10]);
}

/// RFC 6675 §2, §4: what is sacked or lost is not in flight; what is sent again is.
#[test]
fn pipe_counts_what_is_on_its_way_rfc6675_4() {
    let mut sender = Sender::new(10);
    sender.ack(0, &[(1, 4)]);
    let pipe = |sender: &Sender| sender.recovery.pipe(&sender.queue, MSS) / MSS;
    assert_eq!(pipe(&sender), 6);
    sender.transmit(0);
    assert_eq!(pipe(&sender), 7);
    sender.ack(4, &[]);
    assert_eq!(pipe(&sender), 6);
}

/// RFC 2018 §8: a peer that sacks again and again what it must be missing has us look through the window once, not with
/// each ACK. What it does not acknowledge it gets, when the timer expires.
#[test]
fn reneging_all_the_time_is_looked_after_once_in_a_window_rfc2018_8() {
    const SEGMENTS: u64 = 60;
    let mut sender = Sender::new(SEGMENTS as usize);
    for _ in 0..100 {
        sender.ack(0, &[(0, SEGMENTS)]);
    }
    let work = sender.recovery.scoreboard.work;
    assert!(work < 6 * SEGMENTS as usize, "{work} segments were looked at");
    sender.recovery.on_timeout(&sender.context(), &mut sender.queue, sender.congestion.as_mut());
    assert_eq!(sender.recovery.next_retransmission(&sender.queue), Some((0, true)));
    assert_eq!(sender.queue.sacked(), 0);
}

/// What somebody sees of it.
fn shown(sender: &mut Sender) -> String {
    let Sender { queue, recovery, congestion, una, .. } = sender;
    let pto = recovery.pto(queue, Some(ROUND_TRIP), true);
    let next = recovery.next_retransmission(queue);
    let at = recovery.reorder_at();
    format!("{:?} {} {} {next:?} {pto:?} {at:?} {una}", recovery.phase(), congestion.cwnd(), queue.lost())
}

proptest::proptest! {
    /// Whoever leaves out ACKs that repeat the last one while nothing is outstanding goes on as one who judges them.
    #[test]
    fn at_rest_an_ack_that_repeats_itself_tells_nothing(
        steps in proptest::collection::vec((0u8..4, 0u64..4, 0u64..6, 1u64..300), 1..60),
    ) {
        let (mut judges, mut leaves_out) = (Sender::new(3), Sender::new(3));
        let mut left_out = false;
        for (what, few, gap, millis) in steps {
            for sender in [&mut judges, &mut leaves_out] {
                sender.now += Duration::from_millis(millis);
                let (una, entries) = (sender.una / MSS as u64, sender.queue.sent_entries() as u64);
                match what {
                    0 if entries < 20 => sender.send(few as usize + 1),
                    1 => _ = sender.ack(una + few.min(entries), &[]),
                    2 if gap < entries => {
                        sender.ack(una, &[(una + gap.max(1), una + entries.max(2))]);
                        while let Some((index, _)) = sender.recovery.next_retransmission(&sender.queue) {
                            sender.transmit(index);
                        }
                    }
                    _ => _ = sender.ack(una + entries, &[]),
                }
            }
            if leaves_out.recovery.is_at_rest() {
                left_out = true;
                judges.ack(judges.una / MSS as u64, &[]);
            }
            proptest::prop_assert_eq!(shown(&mut judges), shown(&mut leaves_out));
        }
        proptest::prop_assume!(left_out);
    }
}
