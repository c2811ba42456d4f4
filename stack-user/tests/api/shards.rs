//! Several shards on one link whose queues are chosen by dice: whatever comes, comes to any of them.

use std::{thread, time::Instant as StdInstant};

use stack_user::{api::TcpSocket, device::memory::WireEnd, tcp::State, telemetry::DropReason};

use super::*;

/// Two stacks, and a thread that carries each frame to a queue of the other one.
struct Fabric {
    a: Stack,
    b: Stack,
    stop: Arc<AtomicBool>,
    carrier: Option<thread::JoinHandle<()>>,
}

impl Drop for Fabric {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.carrier.take().map(thread::JoinHandle::join);
    }
}

impl Fabric {
    /// `a` and `b` have so many shards. Once both have their addresses, `steer` chooses the queue of each frame: it gets
    /// whether the frame goes to `b`, its bytes, and a random number.
    async fn new(shards: (usize, usize), steer: impl Fn(bool, &[u8], u64) -> usize + Send + 'static) -> Self {
        Self::with_drivers(shards, steer, |shards, clock| Stack::over_all(shards, clock, Vec::new()).unwrap())
            .await
    }

    async fn with_drivers(
        shards: (usize, usize),
        steer: impl Fn(bool, &[u8], u64) -> usize + Send + 'static,
        start_b: impl FnOnce(Vec<(stack::Stack<Umem>, Box<dyn Device>)>, Clock) -> Stack,
    ) -> Self {
        let clock = Clock::new();
        let (a, a_wires) = side(clock, shards.0, 1, A);
        let (b, b_wires) = side(clock, shards.1, 2, B);
        let stop = Arc::new(AtomicBool::new(false));
        let carrier = thread::spawn({
            let stop = Arc::clone(&stop);
            move || carry(&a_wires, &b_wires, steer, &stop)
        });
        let (a, b) = (Stack::over_all(a, clock, Vec::new()).unwrap(), start_b(b, clock));
        let fabric = Self { a, b, stop, carrier: Some(carrier) };
        for stack in [&fabric.a, &fabric.b] {
            assert_eq!(soon("claiming", stack.claimed()).await.unwrap(), AddressEvent::Claimed);
        }
        fabric
    }
}

type Shards = Vec<(stack::Stack<Umem>, Box<dyn Device>)>;

/// Shards of one stack, the first of which claims the address, and the far ends of their wires.
fn side(clock: Clock, shards: usize, number: u8, address: Ipv4Addr) -> (Shards, Vec<WireEnd>) {
    let queue = |shard| {
        let (device, far) = memory::tap(memory::Options::default());
        let device: Box<dyn Device> = Box::new(device);
        let stack = if shard == 0 { stack(clock, number, address) } else { bare(clock, number, shard) };
        ((stack, device), far)
    };
    (0..shards as u8).map(queue).unzip()
}

/// A stack that has no address of its own.
fn bare(clock: Clock, number: u8, shard: u8) -> stack::Stack<Umem> {
    let umem = Umem::on_heap(CHUNKS).unwrap();
    let rng = Rng::from_seed((u64::from(shard) << 8) + u64::from(number));
    stack::Stack::new(clock.now(), MacAddr([2, 0, 0, 0, 0, number]), None, umem, rng)
}

fn carry(a: &[WireEnd], b: &[WireEnd], steer: impl Fn(bool, &[u8], u64) -> usize, stop: &AtomicBool) {
    let mut rng = Rng::from_seed(7);
    while !stop.load(Ordering::Relaxed) {
        let mut idle = true;
        for (from, to, to_b) in [(a, b, true), (b, a, false)] {
            for wire in from {
                while let Some(frame) = wire.receive() {
                    let queue = steer(to_b, &frame, rng.next_u64()) % to.len();
                    to[queue].send(&frame);
                    idle = false;
                }
            }
        }
        if idle {
            thread::sleep(Duration::from_micros(50));
        }
    }
}

fn dice(_: bool, _: &[u8], random: u64) -> usize {
    random as usize
}

/// Waits until it is so.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = StdInstant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(20), "{what} takes too long");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What a connection carries, in both directions, so that none looks like another.
fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Rng::from_seed(seed).fill(&mut bytes);
    bytes
}

/// Answers so many connections with what they send, until their senders have finished.
fn echo(listener: TcpListener, connections: usize) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut served = tokio::task::JoinSet::new();
        for _ in 0..connections {
            let (stream, _) = listener.accept().await.unwrap();
            served.spawn(async move {
                let (mut read, mut write) = stream.into_split();
                tokio::io::copy(&mut read, &mut write).await.unwrap();
                write.shutdown().await.unwrap();
            });
        }
        served.join_all().await;
    })
}

async fn echoed(stack: &Stack, to: SocketAddr, seed: u64, len: usize) {
    let stream = TcpStream::connect(stack, to).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let sent = content(seed, len);
    let writer = tokio::spawn({
        let sent = sent.clone();
        async move {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        }
    });
    let mut got = Vec::new();
    read.read_to_end(&mut got).await.unwrap();
    writer.await.unwrap();
    assert!(got == sent, "what comes back is what was sent");
}

async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future)
        .await
        .unwrap_or_else(|_| panic!("{what} takes too long"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flows_that_land_anywhere_go_both_ways_and_no_frame_is_lost_or_kept() {
    let fabric = Fabric::new((2, 3), dice).await;
    let (a, b) = (&fabric.a, &fabric.b);
    let servers = [
        echo(TcpListener::bind(a, (A, 80).into()).await.unwrap(), 20),
        echo(TcpListener::bind(b, ([0, 0, 0, 0], 80).into()).await.unwrap(), 20),
    ];
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..40 {
        let (from, to) = if number % 2 == 0 { (a.clone(), B) } else { (b.clone(), A) };
        clients.spawn(async move { echoed(&from, (to, 80).into(), number, 30_000).await });
    }
    in_time("echoing", clients.join_all()).await;
    for server in servers {
        soon("serving", server).await.unwrap();
    }
    for stack in [a, b] {
        soon("finishing", stack.shut_down(Duration::from_secs(4))).await;
    }
    for stack in [a, b] {
        // A last frame may be between two shards just now.
        until("taking in what was passed on", || {
            let hand_overs = stack.hand_overs();
            hand_overs.passed_on == hand_overs.taken_in
        })
        .await;
        let (hand_overs, drops) = (stack.hand_overs(), stack.drops());
        assert!(hand_overs.passed_on > 500, "{hand_overs:?}");
        for reason in [DropReason::ShardRace, DropReason::ShardInboxFull] {
            assert_eq!(drops.get(reason), 0, "{drops:?}");
        }
        for shard in 0..stack.shard_count() {
            let shard = stack.on_shard(shard).unwrap();
            assert!(shard.hand_overs().passed_on > 0 && shard.hand_overs().taken_in > 0, "each had some");
        }
    }
    // What was sent last is taken back when something else comes.
    let whole = |stack: &Stack| {
        let (free, all) = stack.free_frames();
        free == all
    };
    // To every shard of both, then: where a datagram comes in is left to chance.
    let of_a = UdpSocket::bind(a, (A, 9).into()).await.unwrap();
    let of_b = UdpSocket::bind(b, (B, 9).into()).await.unwrap();
    until("giving back all frames", || {
        let _ = of_a.try_send_to(b"", (B, 9).into());
        let _ = of_b.try_send_to(b"", (A, 9).into());
        for socket in [&of_a, &of_b] {
            while socket.try_recv_from(&mut []).is_ok() {}
        }
        whole(a) && whole(b)
    })
    .await;
}

/// A runtime with a thread of its own, to be a driver.
fn driver() -> tokio::runtime::Handle {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let handle = runtime.handle().clone();
    thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    handle
}

/// Flows stay on the queue that their ports say, as a NIC has it.
fn by_ports(_: bool, frame: &[u8], _: u64) -> usize {
    let is_tcp = frame.get(12..14) == Some(&[8, 0]) && frame.get(23) == Some(&6);
    let ports = frame.get(34..38).filter(|_| is_tcp).unwrap_or_default();
    ports.iter().map(|&byte| usize::from(byte)).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_whose_thread_is_occupied_holds_up_its_own_flows_only_and_loses_none() {
    let drivers = [driver(), driver()];
    let start_b = |shards, clock| Stack::over_all(shards, clock, drivers.to_vec()).unwrap();
    let fabric = Fabric::with_drivers((1, 2), by_ports, start_b).await;
    let server = echo(TcpListener::bind(&fabric.b, (B, 80).into()).await.unwrap(), 40);
    // Everybody knows everybody before it begins.
    echoed(&fabric.a, (B, 80).into(), 0, 1_000).await;
    let (occupied, free) = std::sync::mpsc::channel::<()>();
    drivers[1].spawn(async move {
        let _ = free.recv();
    });
    let done = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut clients = tokio::task::JoinSet::new();
    for number in 1..40 {
        let (stack, done) = (fabric.a.clone(), Arc::clone(&done));
        clients.spawn(async move {
            echoed(&stack, (B, 80).into(), number, 20_000).await;
            done.fetch_add(1, Ordering::Relaxed);
        });
    }
    // Ports are random: about half of the flows are each shard's.
    until("what the other shard has", || done.load(Ordering::Relaxed) > 5).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(done.load(Ordering::Relaxed) < 39, "some had to wait");
    drop(occupied);
    in_time("the rest", clients.join_all()).await;
    in_time("serving", server).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_handle_of_one_shard_opens_lives_there() {
    let fabric = Fabric::new((1, 2), dice).await;
    let (stack, peer) = (&fabric.b, &fabric.a);
    assert_eq!((stack.shard_count(), stack.on_shard(1).unwrap().shard_count()), (2, 1));
    assert!(stack.on_shard(2).is_none() && stack.on_shard(1).unwrap().on_shard(1).is_none());
    let second = stack.on_shard(1).unwrap();
    let listener = TcpListener::bind(&second, (B, 80).into()).await.unwrap();
    let taken = TcpListener::bind(stack, (B, 80).into()).await.unwrap_err();
    assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    for _ in 0..6 {
        let client = TcpStream::connect(peer, (B, 80).into()).await.unwrap();
        let (server, from) = soon("a connection", listener.accept()).await.unwrap();
        assert_eq!(from, client.local_addr());
        assert_eq!(server.local_addr(), (B, 80).into());
    }
    let first = stack.on_shard(0).unwrap();
    soon("nothing to wait for", first.shut_down(Duration::from_secs(60))).await;
    drop(listener);
    let refused = TcpStream::connect(peer, (B, 80).into()).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}

/// RFC 6191 §2: a port in TIME-WAIT is used again after a second, whichever shard's turn it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chosen_port_can_be_used_again_on_the_shard_that_keeps_its_time_wait() {
    let fabric = Fabric::new((3, 1), dice).await;
    let listener = TcpListener::bind(&fabric.b, (B, 80).into()).await.unwrap();
    for local in [SocketAddr::from((A, 4_000)), SocketAddr::from(([0, 0, 0, 0], 4_000))].repeat(2) {
        let mut socket = TcpSocket::new(&fabric.a);
        socket.bind(local);
        let mut client = in_time("connecting", socket.connect((B, 80).into())).await.unwrap();
        let (mut server, _) = soon("a connection", listener.accept()).await.unwrap();
        // Ours finishes first, so that the TIME-WAIT is ours.
        client.shutdown().await.unwrap();
        assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 0);
        drop(server);
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
        drop(client);
        until("a TIME-WAIT", || fabric.a.connection_counts().get(&State::TimeWait) == Some(&1)).await;
        tokio::time::sleep(Duration::from_millis(1_300)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_come_in_on_any_shard_and_what_was_looked_at_is_what_comes_first() {
    let fabric = Fabric::new((2, 3), dice).await;
    let socket = UdpSocket::bind(&fabric.b, ([0, 0, 0, 0], 53).into()).await.unwrap();
    let client = UdpSocket::bind(&fabric.a, (A, 0).into()).await.unwrap();
    let mut all = Vec::new();
    for round in 0..60_u8 {
        client.send_to(&[round; 2], (B, 53).into()).await.unwrap();
        let (mut peeked, mut got) = ([0; 2], [0; 2]);
        soon("a datagram", socket.peek_from(&mut peeked)).await.unwrap();
        let (_, from) = soon("a datagram", socket.recv_from(&mut got)).await.unwrap();
        assert_eq!((peeked, from), (got, client.local_addr()));
        all.push(got[0]);
        socket.send_to(&got, from).await.unwrap();
        soon("an answer", client.recv_from(&mut got)).await.unwrap();
        assert_eq!(got, peeked);
    }
    assert_eq!(all, (0..60).collect::<Vec<_>>());
}
