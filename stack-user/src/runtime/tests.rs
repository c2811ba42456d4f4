//! A running shard over a NIC in memory, in real time.

use std::{
    collections::VecDeque,
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Wake, Waker},
};

use super::{
    shard::{FEW, LOOKS},
    *,
};
use crate::{
    device::{
        BURST, Device, Readable, Umem,
        memory::{self, WireEnd},
    },
    frame::{CompletedFrame, FramePool, RxFrame, TxFrame},
    net::{acd::Schedule, udp::Sockets},
    rng::Rng,
    stack::{Event, Stack},
    time::{Duration, Instant},
    wire::{MacAddr, arp, ethernet},
};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// A shard with an address and a driver that polls for so long, and the far end of its wire.
async fn running(options: memory::Options, poll: Duration) -> (Arc<Shard>, WireEnd) {
    let clock = Clock::new();
    let (device, far) = memory::tap(options);
    let umem = Umem::on_heap(256).expect("memory");
    let stack = Stack::new(clock.now(), MacAddr([2, 0, 0, 0, 0, 1]), None, umem, Rng::from_seed(1));
    let queues = Readable::new(device.fds().expect("a descriptor")).expect("a reactor");
    let shard = Arc::new(Shard::new(stack, Box::new(device), clock));
    tokio::spawn(drive(Arc::clone(&shard), clock, queues, poll));
    let prefix = "10.0.0.0/24".parse().expect("a prefix");
    shard
        .with(|core, now| core.stack.claim(now, ADDRESS, prefix, None, 1_500, Schedule::Fast))
        .expect("a good address");
    while shard.with(|core, _| core.stack.address()).is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
        while far.receive().is_some() {}
    }
    (shard, far)
}

/// Takes frames off the wire until there are `count`, or the time is over. Returns how many there were.
async fn frames_within(far: &WireEnd, count: usize, time: Duration) -> usize {
    let end = tokio::time::Instant::now() + time;
    let mut taken = 0;
    while taken < count && tokio::time::Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(1)).await;
        while far.receive().is_some() {
            taken += 1;
        }
    }
    taken
}

#[tokio::test]
async fn what_found_the_ring_full_while_the_driver_slept_is_sent_when_there_is_room() {
    let options = memory::Options { ring_size: 4, completion_delay: 20 };
    let (shard, far) = running(options, Duration::ZERO).await;
    // What the claim has to say is over for two seconds, so the driver has no reason of its own to wake up.
    tokio::time::sleep(Duration::from_millis(50)).await;
    while far.receive().is_some() {}
    let (socket, _) = shard.with(|core, _| core.stack.udp_bind((ADDRESS, 0).into())).expect("a socket");
    let everybody = SocketAddr::from(([10, 0, 0, 255], 9));
    for _ in 0..10 {
        shard.with(|core, now| core.stack.udp_send_to(now, socket, everybody, b"hello")).expect("sent");
    }
    assert_eq!(frames_within(&far, 10, Duration::from_millis(1_000)).await, 10);
    shard.close();
}

#[tokio::test]
async fn a_driver_that_gathers_sends_what_the_woken_write_in_its_next_pass() {
    let (shard, far) = running(memory::Options::default(), Duration::ZERO).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    while far.receive().is_some() {}
    let (socket, _) = shard.with(|core, _| core.stack.udp_bind((ADDRESS, 0).into())).expect("a socket");
    let everybody = SocketAddr::from(([10, 0, 0, 255], 9));
    let write = || {
        shard.with(|core, now| core.stack.udp_send_to(now, socket, everybody, b"hello")).expect("sent");
    };
    let on_the_wire = || std::iter::from_fn(|| far.receive()).count();
    // The driver's task does not run until we wait: its passes are ours.
    let pass = |wakes: usize| {
        shard.drive(|core, now| {
            core.driver_woke();
            core.pump(now);
            core.waiters.woken.extend(vec![Waker::noop().clone(); wakes]);
            core.driver_returns_soon()
        })
    };
    assert!(!pass(2), "it was not told to gather");
    write();
    assert_eq!(on_the_wire(), 1, "at once");
    shard.gather();
    pass(0);
    assert!(!pass(0), "nobody was woken");
    assert!(!pass(1), "who is alone does not wait");
    write();
    assert_eq!(on_the_wire(), 1, "nobody would come for it");
    assert!(pass(2) && on_the_wire() == 0);
    write();
    write();
    assert_eq!(on_the_wire(), 0);
    assert!(pass(0), "who wrote may have begun others who will");
    assert_eq!(on_the_wire(), 2);
    write();
    assert!(pass(0) && on_the_wire() == 1);
    assert!(!pass(0), "all are done");
    // Neither is anything left when the driver will never be back.
    assert!(pass(2));
    write();
    shard.stop(&io::ErrorKind::NotFound.into());
    assert_eq!(on_the_wire(), 1);
}

/// Counts how often the device is looked at, and the passes that a driver makes: it is asked before a sleep after each.
struct Asked {
    inner: Box<dyn Device>,
    count: Arc<AtomicUsize>,
    passes: Arc<AtomicUsize>,
}

impl Device for Asked {
    fn rx_burst(&mut self, now: Instant, umem: &mut Umem, frames: &mut Vec<RxFrame>) -> usize {
        self.inner.rx_burst(now, umem, frames)
    }

    fn tx_room(&mut self) -> usize {
        self.inner.tx_room()
    }

    fn tx_burst(&mut self, now: Instant, umem: &mut Umem, frames: &mut VecDeque<TxFrame>) {
        self.inner.tx_burst(now, umem, frames);
    }

    fn completions(&mut self, umem: &mut Umem, done: &mut Vec<CompletedFrame>) {
        self.inner.completions(umem, done);
    }

    fn is_quiet(&mut self) -> bool {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.inner.is_quiet()
    }

    fn before_sleep(&mut self) -> bool {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.passes.fetch_add(1, Ordering::Relaxed);
        self.inner.before_sleep()
    }

    fn fds(&self) -> io::Result<Vec<OwnedFd>> {
        self.inner.fds()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

#[tokio::test]
async fn a_driver_that_polls_sleeps_only_when_no_frame_came_for_so_long() {
    let (poll, pause) = (Duration::from_millis(200), Duration::from_millis(50));
    for (poll, busy) in [(poll, true), (Duration::ZERO, false)] {
        let clock = Clock::new();
        let (device, far) = memory::tap(memory::Options::default());
        let umem = Umem::on_heap(256).expect("memory");
        let stack = Stack::new(clock.now(), MacAddr([2, 0, 0, 0, 0, 1]), None, umem, Rng::from_seed(1));
        let queues = Readable::new(device.fds().expect("a descriptor")).expect("a reactor");
        let count = Arc::new(AtomicUsize::new(0));
        let passes = Arc::new(AtomicUsize::new(0));
        let device =
            Asked { inner: Box::new(device), count: Arc::clone(&count), passes: Arc::clone(&passes) };
        let shard = Arc::new(Shard::new(stack, Box::new(device), clock));
        // Origins of clocks are in the past of no frame: let that time pass.
        tokio::time::sleep(poll + pause).await;
        tokio::spawn(drive(Arc::clone(&shard), clock, queues, poll));
        let within = async |time| {
            let before = count.load(Ordering::Relaxed);
            tokio::time::sleep(time).await;
            count.load(Ordering::Relaxed) - before
        };
        within(pause).await;
        assert!(within(pause).await < 5, "it sleeps");
        passes.store(0, Ordering::Relaxed);
        far.send(&[0xff; 60]);
        let looks = within(pause).await;
        assert_eq!(looks > 50, busy, "{looks} looks after a frame");
        let passes = passes.load(Ordering::Relaxed);
        assert!(passes < 10, "{passes} passes for a frame: a look is enough while nothing comes");
        tokio::time::sleep(poll).await;
        assert!(within(pause).await < 5, "it sleeps again");
        shard.close();
    }
}

/// A shard without a driver, and the far end of its wire.
fn undriven() -> (Shard, WireEnd) {
    let clock = Clock::new();
    let (device, far) = memory::tap(memory::Options::default());
    let umem = Umem::on_heap(256).expect("memory");
    let stack = Stack::new(clock.now(), MacAddr([2, 0, 0, 0, 0, 1]), None, umem, Rng::from_seed(1));
    let shard = Shard::new(stack, Box::new(device), clock);
    (shard, far)
}

#[tokio::test]
async fn the_device_is_looked_at_several_times_for_one_look_at_the_clock() {
    let (shard, far) = undriven();
    // What the driver does when the clock is to be looked at: that it is, `drive` sees to.
    let pass = || {
        shard.drive(|core, now| {
            core.driver_woke();
            core.pump(now);
            core.is_idle_until(None);
        });
    };
    // As many as it looks before it comes to that.
    let looks = || (0..2 * LOOKS).take_while(|_| shard.is_unchanged()).count() as u32;
    assert_eq!(looks(), 0, "nobody knows yet that there is nothing to do");
    pass();
    assert_eq!((looks(), looks()), (LOOKS, 0));
    shard.drive(|_, _| ());
    assert_eq!(looks(), LOOKS, "there was still nothing to do");
    pass();
    assert!(shard.is_unchanged());
    far.send(&[0xff; 60]);
    assert_eq!(looks(), 0, "a frame is there");
    pass();
    assert!(shard.is_unchanged());
    shard.with(|_, _| ());
    assert_eq!(looks(), 0, "somebody may have made something due");
}

#[tokio::test]
async fn whom_a_few_frames_woke_has_a_turn_before_it_is_looked_for_more() {
    let (shard, far) = undriven();
    for (frames, woken, comes_back) in [(1, 1, true), (FEW - 1, 3, true), (1, 0, false), (FEW, 1, false)] {
        assert!((0..frames).all(|_| far.send(&[0xff; 60])));
        let may_be_more = shard.drive(|core, now| {
            core.waiters.woken.extend(vec![Waker::noop().clone(); woken]);
            core.pump(now)
        });
        assert_eq!(may_be_more, comes_back, "{frames} frames, {woken} woken");
    }
}

#[tokio::test]
async fn others_have_a_turn_after_a_burst_however_much_there_is() {
    let (shard, far) = undriven();
    for woken in [0, 1] {
        assert!((0..BURST + FEW).all(|_| far.send(&[0xff; 60])));
        let pass = || {
            shard.drive(|core, now| {
                core.waiters.woken.extend(vec![Waker::noop().clone(); woken]);
                (core.pump(now), core.device.is_quiet())
            })
        };
        assert_eq!(pass(), (true, false), "{woken} woken");
        shard.drive(|core, now| while core.pump(now) {});
    }
}

/// A NIC that says it has room and takes nothing, as for a long frame that needs more descriptors.
struct Stuck {
    inner: Box<dyn Device>,
    /// Whether it still is.
    is_stuck: Arc<AtomicBool>,
    offers: Arc<AtomicUsize>,
}

impl Device for Stuck {
    fn rx_burst(&mut self, now: Instant, umem: &mut Umem, frames: &mut Vec<RxFrame>) -> usize {
        self.inner.rx_burst(now, umem, frames)
    }

    fn tx_room(&mut self) -> usize {
        self.inner.tx_room()
    }

    fn tx_burst(&mut self, now: Instant, umem: &mut Umem, frames: &mut VecDeque<TxFrame>) {
        self.offers.fetch_add(1, Ordering::Relaxed);
        if !self.is_stuck.load(Ordering::Relaxed) {
            self.inner.tx_burst(now, umem, frames);
        }
    }

    fn completions(&mut self, umem: &mut Umem, done: &mut Vec<CompletedFrame>) {
        self.inner.completions(umem, done);
    }

    fn fds(&self) -> io::Result<Vec<OwnedFd>> {
        self.inner.fds()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

/// Else a driver that polls would do so for as long as the NIC takes nothing.
#[tokio::test]
async fn a_frame_that_the_nic_did_not_take_has_not_gone() {
    let clock = Clock::new();
    let (device, _far) = memory::tap(memory::Options::default());
    let umem = Umem::on_heap(256).expect("memory");
    let stack = Stack::new(clock.now(), MacAddr([2, 0, 0, 0, 0, 1]), None, umem, Rng::from_seed(1));
    let (is_stuck, offers) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let device =
        Stuck { inner: Box::new(device), is_stuck: Arc::clone(&is_stuck), offers: Arc::clone(&offers) };
    let shard = Shard::new(stack, Box::new(device), clock);
    let prefix = "10.0.0.0/24".parse().expect("a prefix");
    shard
        .with(|core, now| core.stack.claim(now, ADDRESS, prefix, None, 1_500, Schedule::Fast))
        .expect("a good address");
    while offers.load(Ordering::Relaxed) < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        shard.with(|core, now| core.pump(now));
    }
    assert_eq!(shard.with(|core, _| core.last_frame()), Instant::ZERO);
    is_stuck.store(false, Ordering::Relaxed);
    shard.with(|core, now| core.pump(now));
    assert_ne!(shard.with(|core, _| core.last_frame()), Instant::ZERO);
}

#[tokio::test]
async fn a_nic_that_had_no_chunk_to_receive_into_gets_some_from_whoever_gives_them_back() {
    let (shard, far) = running(memory::Options::default(), Duration::ZERO).await;
    // What the claim has to say is over for two seconds, so the driver has no reason of its own to wake up.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let held = shard.with(|core, _| {
        let pool = core.stack.pool_mut();
        std::iter::from_fn(|| pool.allocate()).collect::<Vec<_>>()
    });
    let question = arp_request();
    assert!(far.send(&question));
    tokio::time::sleep(Duration::from_millis(50)).await;
    while far.receive().is_some() {}
    shard.with(|core, _| held.into_iter().for_each(|chunk| core.stack.pool_mut().release(chunk)));
    assert_eq!(frames_within(&far, 1, Duration::from_millis(500)).await, 1, "the answer to what waited");
    shard.close();
}

/// Somebody asks for our address.
fn arp_request() -> Vec<u8> {
    let (source, them) = (MacAddr([2, 0, 0, 0, 0, 2]), Ipv4Addr::new(10, 0, 0, 2));
    let packet = arp::Packet {
        operation: arp::Operation::Request,
        sender_mac: source,
        sender_ip: them,
        target_mac: MacAddr::ZERO,
        target_ip: ADDRESS,
    };
    let header = ethernet::Header {
        destination: MacAddr::BROADCAST,
        source,
        vlan: None,
        ethertype: ethernet::ethertype::ARP,
    };
    let mut bytes = vec![0; ethernet::LEN + arp::LEN];
    header.emit(&mut bytes);
    packet.emit(&mut bytes[ethernet::LEN..]);
    bytes
}

#[test]
fn who_finds_the_lock_of_one_of_several_shards_taken_is_woken_when_it_is_free() {
    let shard = |new: fn(Stack<Umem>, Box<dyn Device>, Clock) -> Shard| {
        let clock = Clock::new();
        let umem = Umem::on_heap(16).expect("memory");
        let stack = Stack::new(clock.now(), MacAddr([2, 0, 0, 0, 0, 1]), None, umem, Rng::from_seed(1));
        new(stack, Box::new(memory::tap(memory::Options::default()).0), clock)
    };
    let several = shard(Shard::one_of_several);
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    let cx = Context::from_waker(&waker);
    several.with(|_, _| {
        assert!(several.is_busy());
        assert!(several.try_with(&cx, |_, _| ()).is_none());
        assert_eq!(count.get(), 0);
    });
    assert_eq!(count.get(), 1);
    assert!(!several.is_busy() && several.try_with(&cx, |_, _| ()).is_some());
    several.with(|_, _| ());
    assert_eq!(count.get(), 1, "once");
    // Whoever only asked whether it is taken has had it, too.
    let asker = several.try_lock().expect("nobody has it");
    assert!(several.try_with(&cx, |_, _| ()).is_none());
    drop(asker);
    assert!(!several.is_busy());
    assert_eq!(count.get(), 2);
    assert!(shard(Shard::new).try_with(&cx, |_, _| ()).is_some());
}

#[test]
fn everybody_who_waits_for_a_socket_is_woken() {
    let id = Sockets::new().bind(SocketAddr::from((ADDRESS, 53)), &mut Rng::from_seed(1)).expect("a socket");
    let (one, other) = (Arc::new(Count::default()), Arc::new(Count::default()));
    let mut waiters = Waiters::default();
    for count in [&one, &other, &one] {
        let waker = Waker::from(Arc::clone(count));
        waiters.wait_to_receive(id, &Context::from_waker(&waker));
    }
    waiters.wake(Event::Udp { id });
    waiters.woken.drain(..).for_each(Waker::wake);
    assert_eq!((one.get(), other.get()), (1, 1));
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Count {
    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
