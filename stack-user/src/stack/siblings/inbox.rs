//! What other shards have for this one: frames of its flows, and news.

use std::{
    mem,
    net::IpAddr,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
};

use crate::{
    net::{icmp::IcmpError, route::Route},
    stack::{demux::Flow, egress::Sender},
    tcp::Segment,
    wire::{MacAddr, arp::Packet, ipv4::Header},
};

/// Messages that wait for a shard at most: as many as its RX ring holds frames. Fewer, and a shard that is kept waiting for
/// a moment loses some; more, and one that is stuck finds segments that its peers have long sent again.
const MAX_MESSAGES: usize = 1024;

/// Bytes that they hold at most: full frames of 1500 bytes for all of them. Fewer, and that many find no room; more, and
/// jumbo frames for a shard that is stuck take more memory.
const MAX_BYTES: usize = 1536 * MAX_MESSAGES;

/// Messages beyond which ARP packets and lessons have no room: whoever floods the link with ARP must not keep segments out. Fewer,
/// and a shard that is kept waiting asks the link for what it could have been told, and is asked again; more, and segments find
/// no room.
const MAX_WITH_ARP: usize = MAX_MESSAGES / 4;

/// Bytes that an empty one keeps for the next messages, a burst of full frames. Fewer, and every burst allocates; more, and each
/// shard that was stuck once keeps what it took then.
const KEPT_BYTES: usize = 1536 * 64;

/// A letter box. Its lock is held only as long as it takes to copy a frame, or to exchange two lists.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    letters: Mutex<Letters>,
    notices: Mutex<Vec<Notice>>,
    has_messages: AtomicBool,
    has_notices: AtomicBool,
    /// Who reads it.
    bell: OnceLock<Waker>,
}

/// Messages, and what comes with them.
#[derive(Debug, Default)]
pub(crate) struct Letters {
    messages: Vec<(Message, usize)>,
    /// All that comes with them, one after the other.
    bytes: Vec<u8>,
}

/// What came in on another shard's queue.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Message {
    /// A segment of a flow; its data comes with it.
    Segment { sender: Sender, flow: Flow, segment: Segment },
    /// An error about a datagram of a flow.
    Error(IcmpError),
    /// A datagram from the IP header on, which comes with it, and the station that it came from.
    Datagram { mac: MacAddr },
    /// A UDP datagram that came in parts: its IP header; what that carries comes with it.
    Reassembled(Header),
    /// An ARP packet, for the shard that claims addresses.
    Arp(Packet),
    /// An ARP packet that has taught that shard something.
    Lesson(Packet),
}

/// What a shard must not miss. There are no more of them than changes of addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Notice {
    /// The first shard has claimed an address.
    Claimed(Route),
    /// It gives one up, and nothing new may begin there.
    Leaving(IpAddr),
    /// It has given one up.
    Released(IpAddr),
    /// It has lost one, and nothing more may be said from there.
    Lost(IpAddr),
}

impl Inbox {
    pub(super) fn put(&self, message: Message, payload: &[u8]) -> bool {
        let mut letters = lock(&self.letters);
        let max = match message {
            Message::Arp(_) | Message::Lesson(_) => MAX_WITH_ARP,
            _ => MAX_MESSAGES,
        };
        if letters.messages.len() >= max || letters.bytes.len() + payload.len() > MAX_BYTES {
            return false;
        }
        letters.messages.push((message, payload.len()));
        letters.bytes.extend_from_slice(payload);
        let is_first = letters.messages.len() == 1;
        if is_first {
            self.has_messages.store(true, Ordering::Relaxed);
        }
        drop(letters);
        // Whoever is woken takes all that is there by then.
        if is_first {
            self.ring();
        }
        true
    }

    pub(super) fn take(&self, letters: &mut Letters) {
        letters.clear();
        let mut ours = lock(&self.letters);
        mem::swap(&mut *ours, letters);
        self.has_messages.store(false, Ordering::Relaxed);
    }

    /// A hint: whoever puts something in rings, too.
    pub(super) fn has_messages(&self) -> bool {
        self.has_messages.load(Ordering::Relaxed)
    }

    pub(super) fn notify(&self, notice: Notice) {
        lock(&self.notices).push(notice);
        self.has_notices.store(true, Ordering::Release);
        self.ring();
    }

    pub(super) fn has_notices(&self) -> bool {
        self.has_notices.load(Ordering::Acquire)
    }

    pub(super) fn take_notice(&self) -> Option<Notice> {
        if !self.has_notices.load(Ordering::Acquire) {
            return None;
        }
        let mut notices = lock(&self.notices);
        let notice = (!notices.is_empty()).then(|| notices.remove(0));
        self.has_notices.store(!notices.is_empty(), Ordering::Release);
        notice
    }

    pub(super) fn set_bell(&self, waker: Waker) {
        let _ = self.bell.set(waker);
    }

    fn ring(&self) {
        if let Some(bell) = self.bell.get() {
            bell.wake_by_ref();
        }
    }
}

impl Letters {
    /// Each message with what comes with it, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Message, &[u8])> {
        let mut rest = &self.bytes[..];
        self.messages.iter().map(move |&(message, len)| {
            let (payload, others) = rest.split_at(len.min(rest.len()));
            rest = others;
            (message, payload)
        })
    }

    /// Keeps room for the next ones.
    pub(crate) fn clear(&mut self) {
        self.messages.clear();
        self.messages.shrink_to(MAX_WITH_ARP);
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
    }
}

/// Both lists are whole after every statement, so a panic elsewhere did them no harm.
fn lock<T>(list: &Mutex<T>) -> MutexGuard<'_, T> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, atomic::AtomicUsize},
        task::Wake,
    };

    use super::*;

    const MESSAGE: Message = Message::Datagram { mac: MacAddr::BROADCAST };

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_is_put_in_comes_out_in_order_and_the_first_one_rings() {
        let (inbox, count) = (Inbox::default(), Arc::new(Count::default()));
        inbox.set_bell(Arc::clone(&count).into());
        let mut letters = Letters::default();
        for round in 1..=2 {
            assert!(!inbox.has_messages());
            for payload in [&b"one"[..], b"", b"three"] {
                assert!(inbox.put(MESSAGE, payload) && inbox.has_messages());
            }
            assert_eq!(count.0.load(Ordering::Relaxed), round, "once");
            inbox.take(&mut letters);
            let payloads: Vec<_> = letters.iter().map(|(_, payload)| payload.to_vec()).collect();
            assert_eq!(payloads, [b"one".to_vec(), vec![], b"three".to_vec()]);
        }
    }

    #[test]
    fn it_holds_so_many_messages_and_so_many_bytes() {
        let inbox = Inbox::default();
        assert!((0..MAX_MESSAGES).all(|_| inbox.put(MESSAGE, b"x")));
        assert!(!inbox.put(MESSAGE, b"x"));
        let mut letters = Letters::default();
        inbox.take(&mut letters);
        assert_eq!(letters.iter().count(), MAX_MESSAGES);
        assert!(inbox.put(MESSAGE, &vec![0; MAX_BYTES]));
        assert!(!inbox.put(MESSAGE, b"x") && inbox.put(MESSAGE, b""));
        inbox.take(&mut letters);
        letters.clear();
        assert!(letters.bytes.capacity() <= KEPT_BYTES, "one that was stuck once gives back what it took");
    }

    #[test]
    fn arp_leaves_room_for_segments() {
        let packet = Packet {
            operation: crate::wire::arp::Operation::Reply,
            sender_mac: MacAddr::BROADCAST,
            sender_ip: std::net::Ipv4Addr::LOCALHOST,
            target_mac: MacAddr::BROADCAST,
            target_ip: std::net::Ipv4Addr::LOCALHOST,
        };
        for message in [Message::Lesson(packet), Message::Arp(packet)] {
            let inbox = Inbox::default();
            let taken = (0..MAX_MESSAGES).filter(|_| inbox.put(message, &[])).count();
            assert_eq!(taken, MAX_WITH_ARP);
            assert!((taken..MAX_MESSAGES).all(|_| inbox.put(MESSAGE, b"x")));
        }
    }

    #[test]
    fn notices_are_never_refused_and_keep_their_order() {
        let inbox = Inbox::default();
        assert!((0..MAX_MESSAGES).all(|_| inbox.put(MESSAGE, b"")));
        let address = |n: usize| IpAddr::from((n as u128).to_be_bytes());
        (0..2000).for_each(|n| inbox.notify(Notice::Lost(address(n))));
        for n in 0..2000 {
            assert!(matches!(inbox.take_notice(), Some(Notice::Lost(lost)) if lost == address(n)));
        }
        assert!(inbox.take_notice().is_none());
    }
}
