//! What the shards of one stack share: who owns which flow, letter boxes, secrets.
//!
//! A frame may come in on any queue. Its shard asks here only when its own tables don't know the flow, and then passes the
//! frame on: no shard ever takes another one's lock.

mod directory;
mod inbox;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Waker,
};

pub(super) use directory::Directory;
pub(super) use inbox::{Letters, Message, Notice};

use self::{directory::Services, inbox::Inbox};
use super::demux::Flow;
use crate::{
    rng::Rng,
    tcp::SecretKey,
    time::{Duration, Instant},
    wire::protocol,
};

/// How often others are told that cookies are out. More often, and shards in a flood are busy with telling; less often, and they
/// are accepted for longer than any can live.
const COOKIES_TOLD: Duration = Duration::from_secs(1);

/// All shards of a stack.
#[derive(Debug)]
pub(super) struct Siblings {
    /// Who has which flow.
    flows: Directory,
    /// Who has which listeners and UDP sockets.
    services: Services,
    inboxes: Box<[Inbox]>,
    /// What initial sequence numbers, timestamps and SYN cookies are made of: the same, whichever shard makes them.
    secret: SecretKey,
    /// Until when an ACK may bring back a SYN cookie that any of them has sent, in nanoseconds.
    cookies_until: AtomicU64,
}

/// A shard's place among its siblings.
#[derive(Clone, Debug)]
pub(super) struct Membership {
    siblings: Arc<Siblings>,
    number: u16,
}

impl Siblings {
    /// Those of `count` shards, in order.
    pub(super) fn of(
        count: u16,
        secret: SecretKey,
        rng: &mut Rng,
    ) -> impl Iterator<Item = Membership> + use<> {
        let siblings = Arc::new(Self {
            flows: Directory::new(rng),
            services: Services::default(),
            inboxes: (0..count).map(|_| Inbox::default()).collect(),
            secret,
            cookies_until: AtomicU64::new(0),
        });
        (0..count).map(move |number| Membership { siblings: Arc::clone(&siblings), number })
    }
}

impl Membership {
    /// This shard is the first one, which claims and defends addresses, and answers for them.
    pub(super) fn is_first(&self) -> bool {
        self.number == 0
    }

    pub(super) fn secret(&self) -> &SecretKey {
        &self.siblings.secret
    }

    /// The flow is in one more of this shard's tables. False if it is another shard's, and then it stays there.
    #[must_use]
    pub(super) fn enter(&self, flow: &Flow) -> bool {
        self.siblings.flows.enter(flow, self.number)
    }

    /// The flow has left one of this shard's tables.
    pub(super) fn leave(&self, flow: &Flow) {
        self.siblings.flows.leave(flow, self.number);
    }

    /// The other shard that has the flow, if one has.
    pub(super) fn owner_elsewhere(&self, flow: &Flow) -> Option<u16> {
        self.siblings.flows.owner(flow).filter(|&owner| owner != self.number)
    }

    /// The shard that has the flow, if one has.
    pub(super) fn owner(&self, flow: &Flow) -> Option<u16> {
        self.siblings.flows.owner(flow)
    }

    /// This shard has a listener or a UDP socket there.
    pub(super) fn open(&self, protocol: u8, local: SocketAddr) {
        self.siblings.services.open(protocol, local, self.number);
    }

    /// It has none there any more.
    pub(super) fn close(&self, protocol: u8, local: SocketAddr) {
        self.siblings.services.close(protocol, local, self.number);
    }

    /// Another shard that has a listener or a UDP socket there.
    pub(super) fn service_elsewhere(&self, protocol: u8, local: SocketAddr) -> Option<u16> {
        self.siblings.services.find(protocol, local).filter(|&shard| shard != self.number)
    }

    /// Whether another shard has the flow, or listens on its local end.
    pub(super) fn is_used(&self, flow: &Flow) -> bool {
        self.owner_elsewhere(flow).is_some() || self.service_elsewhere(protocol::TCP, flow.local).is_some()
    }

    /// The shard that puts the parts of a datagram together, if it is another one.
    pub(super) fn assembler_elsewhere(&self, datagram: &impl std::hash::Hash) -> Option<u16> {
        let hash = self.siblings.flows.hash(datagram);
        let shard = (u128::from(hash) * self.siblings.inboxes.len() as u128) >> 64;
        Some(shard as u16).filter(|&shard| shard != self.number)
    }

    /// Passes something on to another shard. False if that one's letter box is full.
    #[must_use]
    pub(super) fn send(&self, shard: u16, message: Message, payload: &[u8]) -> bool {
        self.siblings.inboxes.get(usize::from(shard)).is_some_and(|inbox| inbox.put(message, payload))
    }

    /// Passes something on to all others; who has no room does without.
    pub(super) fn send_all(&self, message: Message) {
        for (_, inbox) in self.others() {
            let _ = inbox.put(message, &[]);
        }
    }

    /// Tells all others what they must know.
    pub(super) fn notify_all(&self, notice: Notice) {
        for (_, inbox) in self.others() {
            inbox.notify(notice);
        }
    }

    fn others(&self) -> impl Iterator<Item = (usize, &Inbox)> {
        let ours = usize::from(self.number);
        self.siblings.inboxes.iter().enumerate().filter(move |&(number, _)| number != ours)
    }

    /// Cookies are out from now on.
    pub(super) fn cookies_are_out(&self, now: Instant, lasts: Duration) {
        let (known, until) = (&self.siblings.cookies_until, (now + lasts + COOKIES_TOLD).as_nanos());
        // In a flood all shards send them, and would take the number from each other.
        if until.saturating_sub(known.load(Ordering::Relaxed)) > COOKIES_TOLD.as_nanos() as u64 {
            known.fetch_max(until, Ordering::Relaxed);
        }
    }

    /// Whether an ACK may bring back a cookie.
    pub(super) fn may_have_cookies(&self, now: Instant) -> bool {
        now.as_nanos() < self.siblings.cookies_until.load(Ordering::Relaxed)
    }

    /// Whom to wake when something comes.
    pub(super) fn on_message(&self, waker: Waker) {
        self.inbox().set_bell(waker);
    }

    /// Whether something has come.
    pub(super) fn has_messages(&self) -> bool {
        self.inbox().has_messages()
    }

    /// Whether there is something that this shard must know.
    pub(super) fn has_notices(&self) -> bool {
        self.inbox().has_notices()
    }

    /// Takes all that has come, in exchange for empty ones.
    pub(super) fn take(&self, letters: &mut Letters) {
        self.inbox().take(letters);
    }

    /// The next thing that this shard must know.
    pub(super) fn take_notice(&self) -> Option<Notice> {
        self.inbox().take_notice()
    }

    fn inbox(&self) -> &Inbox {
        &self.siblings.inboxes[usize::from(self.number)]
    }
}
