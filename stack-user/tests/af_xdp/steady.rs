//! A shard on real rings that are too small, or empty.

use std::{
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant as Clock},
};

use stack_user::{
    device::{
        BURST, Device, Readable,
        xdp::{self, Copying, Options},
    },
    frame::{FramePool, FreeFrame},
    net::acd::Schedule,
    rng::Rng,
    runtime::{self, Shard, drive},
    stack::Stack,
    time::Instant,
    wire::{
        MacAddr,
        arp::{self, Operation, Packet},
        ethernet,
    },
};

use crate::{
    End,
    lab::{self, Lab},
    redirect::{Attach, Redirect},
};

const OURS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 7]);

/// Whoever holds all frames leaves a NIC without any to receive into, and a driver that sleeps until it receives. When
/// they come back, somebody has to tell the kernel.
#[test]
fn a_shard_receives_again_when_frames_come_back_that_somebody_held() {
    let Some(lab) = Lab::new("held", 1) else { return };
    lab.inside(|| {
        let mut peer = End::open(lab::OTHER, &[0], &Options::default());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let options =
            Options { ring_size: 64, chunks_per_queue: 256, copying: Copying::Auto, ..Options::default() };
        let (device, umem, _) = xdp::open(lab::ONE, &[0], &options).expect("opening the device");
        let _redirect = Redirect::attach(lab::ONE, Attach::Native, device.sockets()).expect("the program");
        let clock = runtime::Clock::new();
        let stack = Stack::new(clock.now(), MAC, None, umem, Rng::from_seed(1));
        let queues = {
            let _entered = runtime.enter();
            Readable::new(device.fds().expect("descriptors")).expect("a reactor")
        };
        let shard = Arc::new(Shard::new(stack, Box::new(device), clock));
        runtime.spawn(drive(Arc::clone(&shard), clock, queues, Duration::ZERO));
        let prefix = "192.0.2.0/24".parse().expect("a prefix");
        shard
            .with(|core, now| core.stack.claim(now, OURS, prefix, None, 1_500, Schedule::Fast))
            .expect("good");
        // Probes, and both announcements: after that, no timer wakes the driver.
        std::thread::sleep(Duration::from_millis(2_600));
        assert!(answers(&mut peer) > 0, "it answers");

        // Whatever comes back to the pool is held, too, until the fill ring has none left either.
        let mut held: Vec<FreeFrame> = Vec::new();
        let is_deaf = (0..20).any(|_| {
            shard.with(|core, _| {
                let pool = core.stack.pool_mut();
                held.extend(std::iter::from_fn(|| pool.allocate()));
            });
            answers(&mut peer) == 0 && held.len() == 256
        });
        assert!(is_deaf, "{} of 256 frames are held, and it still receives", held.len());

        shard.with(|core, _| {
            held.drain(..).for_each(|frame| core.stack.pool_mut().release(frame));
        });
        assert!(answers(&mut peer) > 0, "it is deaf: nobody gave the fill ring what came back");
        shard.close();
    });
}

/// Asks a few times, and counts the answers until there is one, for half a second.
fn answers(peer: &mut End) -> usize {
    drain(peer);
    ask(peer, BURST);
    let started = Clock::now();
    let mut answers = 0;
    while answers == 0 && started.elapsed() < Duration::from_millis(500) {
        answers += drain(peer);
        std::thread::sleep(Duration::from_millis(1));
    }
    answers
}

/// Asks for the MAC address of our address so many times.
fn ask(peer: &mut End, times: usize) {
    let packet = Packet {
        operation: Operation::Request,
        sender_mac: MacAddr([2, 0, 0, 0, 0, 8]),
        sender_ip: Ipv4Addr::new(192, 0, 2, 8),
        target_mac: MacAddr::ZERO,
        target_ip: OURS,
    };
    let header = ethernet::Header {
        destination: MacAddr::BROADCAST,
        source: packet.sender_mac,
        vlan: None,
        ethertype: ethernet::ethertype::ARP,
    };
    for _ in 0..times {
        let mut frame = peer.umem.allocate().expect("a chunk").into_tx();
        let bytes = &mut peer.umem.tx_buffer(&mut frame)[..ethernet::LEN + arp::LEN];
        header.emit(bytes);
        packet.emit(&mut bytes[ethernet::LEN..]);
        frame.set_len(ethernet::LEN + arp::LEN);
        peer.queue.push_back(frame);
    }
    while !peer.queue.is_empty() {
        peer.device.tx_burst(Instant::ZERO, &mut peer.umem, &mut peer.queue);
        peer.reap();
    }
}

/// Takes all that has come, and counts it.
fn drain(peer: &mut End) -> usize {
    let mut taken = 0;
    loop {
        peer.device.rx_burst(Instant::ZERO, &mut peer.umem, &mut peer.received);
        peer.reap();
        if peer.received.is_empty() {
            return taken;
        }
        taken += peer.received.len();
        peer.received.drain(..).for_each(|frame| peer.umem.release_rx(frame));
    }
}

/// In copy mode one call sends a few dozen frames, and nobody else calls when a burst is all that there is to send.
#[test]
fn a_full_ring_is_sent_to_its_end_though_one_call_sends_a_part_of_it() {
    let Some(lab) = Lab::new("kick", 1) else { return };
    lab.inside(|| {
        let mut a = End::open(lab::ONE, &[0], &Options::default());
        let mut b = End::open(lab::OTHER, &[0], &Options::default());
        const FRAMES: usize = 512;
        a.fill_queue(FRAMES);
        a.device.tx_burst(Instant::ZERO, &mut a.umem, &mut a.queue);
        assert!(a.queue.is_empty(), "there was room for all");
        // As the driver of a shard does that has nothing else to do.
        let started = Clock::now();
        while b.got < FRAMES as u64 {
            assert!(started.elapsed() < Duration::from_secs(5), "{} of {FRAMES} frames were sent", b.got);
            let now = Instant::from_nanos(started.elapsed().as_nanos() as u64);
            a.device.rx_burst(now, &mut a.umem, &mut a.received);
            let has_more = a.device.before_sleep();
            b.receive(now, true);
            if !has_more && a.device.poll_timeout().is_none() {
                // It would sleep until it receives.
                assert_eq!(b.drain_numbered(now), FRAMES as u64, "it sleeps with frames on its ring");
            }
        }
        a.reap();
        a.check_conserved();
        assert!(a.counter("tx_wakeups") > 1, "one call sent all: this shows nothing");
    });
}
