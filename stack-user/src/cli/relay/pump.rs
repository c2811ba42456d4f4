//! Two connections made one: what comes in on either goes out on the other, and so do its end and its failure.

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::time::{Instant, Sleep, sleep};

use crate::cli::network::Connection;

/// How much is read at once. Less costs a system call for fewer bytes; more does not fit in the cache of a core between
/// reading and writing. It is also what a connection may have waiting for a peer that does not read.
const BURST: usize = 64 * 1024;

/// How many bursts a direction may carry before others have their turn. Fewer, and turns cost more than copying; more, and
/// a fast connection makes the slow ones wait.
const BURSTS_AT_ONCE: u32 = 8;

/// How often it is looked whether a peer that has sent its end is still there, since nobody reads from it any more.
/// Rarely, because what it costs to notice late is just the connection's memory.
const HALF_CLOSED_CHECK: Duration = Duration::from_secs(15);

thread_local! {
    /// Where bytes are between reading and writing. One for all connections of a thread: an idle one needs no memory.
    static BETWEEN: RefCell<Vec<u8>> = RefCell::new(vec![0; BURST]);
}

/// Bytes that were carried, since the start.
#[derive(Debug, Default)]
pub struct Traffic {
    to_target: AtomicU64,
    to_client: AtomicU64,
}

impl Traffic {
    /// From clients to targets.
    pub fn to_target(&self) -> u64 {
        self.to_target.load(Ordering::Relaxed)
    }

    /// From targets to clients.
    pub fn to_client(&self) -> u64 {
        self.to_client.load(Ordering::Relaxed)
    }

    /// Counts what was carried by other means.
    pub(crate) fn add(&self, to_target: usize, to_client: usize) {
        self.to_target.fetch_add(to_target as u64, Ordering::Relaxed);
        self.to_client.fetch_add(to_client as u64, Ordering::Relaxed);
    }
}

/// How it ended.
#[derive(Debug)]
pub enum End {
    /// Both sent their end, and each has got the other's.
    Complete,
    /// One of them failed, and so the other one was reset.
    Failed(io::Error),
    /// Nothing was sent for the time that was set; both were reset.
    Idle,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// Bytes from the client to the target.
    pub to_target: u64,
    /// Bytes from the target to the client.
    pub to_client: u64,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes to the target, {} to the client, ", self.to_target, self.to_client)?;
        match &self.end {
            End::Complete => f.write_str("complete"),
            End::Failed(error) => write!(f, "reset: {error}"),
            End::Idle => f.write_str("reset: idle for too long"),
        }
    }
}

/// A connection that is reset when it is dropped, unless it was taken out before: a peer must not take what was cut off
/// for the whole.
#[derive(Debug)]
pub struct OrReset<S: Connection>(Option<S>);

impl<S: Connection> OrReset<S> {
    /// Guards it.
    pub fn new(stream: S) -> Self {
        Self(Some(stream))
    }

    /// It, unless it was taken out.
    pub fn get(&mut self) -> Option<&mut S> {
        self.0.as_mut()
    }

    /// Takes it out. Nothing is left the second time.
    pub fn take(&mut self) -> Option<S> {
        self.0.take()
    }
}

impl<S: Connection> Drop for OrReset<S> {
    fn drop(&mut self) {
        if let Some(stream) = self.0.take() {
            stream.reset();
        }
    }
}

/// Carries bytes between `client` and `target` until both have sent their end, or one fails. `first` was read from the
/// client before. Both are reset when the future is dropped.
pub async fn relay<A: Connection, B: Connection>(
    client: A,
    first: Vec<u8>,
    target: B,
    idle_timeout: Option<Duration>,
    traffic: &Traffic,
) -> Outcome {
    let mut client = OrReset::new(client);
    let mut target = OrReset::new(target);
    let mut to_target = Direction { waiting: first, ..Direction::default() };
    let mut to_client = Direction::default();
    let mut watch = Watch::new(idle_timeout);
    let end = poll_fn(|cx| {
        let (Some(a), Some(b)) = (&mut client.0, &mut target.0) else {
            return Poll::Ready(End::Complete);
        };
        let before = to_target.carried + to_client.carried;
        to_target.poll(cx, a, b, &traffic.to_target);
        to_client.poll(cx, b, a, &traffic.to_client);
        if let Some(end) = ended(&mut to_target, &mut to_client) {
            return Poll::Ready(end);
        }
        let moved = to_target.carried + to_client.carried > before;
        // Whoever has sent its end is not read from, and would fail unnoticed.
        let unread = [to_target.at_end.then_some(&*a as &dyn Fails), to_client.at_end.then_some(&*b)];
        watch.poll(cx, moved, unread.into_iter().flatten())
    })
    .await;
    if matches!(end, End::Complete) {
        // Dropped, they are closed in order.
        drop((client.take(), target.take()));
    }
    Outcome { end, to_target: to_target.carried, to_client: to_client.carried }
}

/// Whether there is nothing more to do.
fn ended(one: &mut Direction, other: &mut Direction) -> Option<End> {
    // Who does not read any more may still have something to say: a server that answers a request before it has read
    // all of it, for example. The failure is passed on once that has arrived.
    if one.is_over() && other.is_over() {
        return Some(one.failure.take().or_else(|| other.failure.take()).map_or(End::Complete, End::Failed));
    }
    // Who was reset gets nothing, and sends nothing.
    [one, other].into_iter().find_map(|direction| {
        let broken = direction.failure.as_ref().is_some_and(|_| direction.input_failed);
        broken.then(|| direction.failure.take().map_or(End::Complete, End::Failed))
    })
}

/// What of a connection is looked at when nobody reads from it.
trait Fails {
    fn fails(&self) -> Option<io::Error>;
}

impl<S: Connection> Fails for S {
    fn fails(&self) -> Option<io::Error> {
        self.failure()
    }
}

/// One of the two directions.
#[derive(Debug, Default)]
struct Direction {
    /// What was read and could not be written yet.
    waiting: Vec<u8>,
    /// How much of it was written since.
    written: usize,
    /// Something was written that may have to be flushed.
    unflushed: bool,
    /// The input has ended.
    at_end: bool,
    /// The end was passed on.
    closed: bool,
    failure: Option<io::Error>,
    /// It was the input that failed, and so there is nothing more to wait for.
    input_failed: bool,
    carried: u64,
}

impl Direction {
    fn is_over(&self) -> bool {
        self.closed || self.failure.is_some()
    }

    /// Carries on as far as it goes.
    fn poll<A: Connection, B: Connection>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut A,
        to: &mut B,
        traffic: &AtomicU64,
    ) {
        if self.is_over() {
            return;
        }
        let before = self.carried;
        let polled = BETWEEN.with_borrow_mut(|between| self.poll_carry(cx, from, to, between));
        traffic.fetch_add(self.carried - before, Ordering::Relaxed);
        if let Poll::Ready(Err(error)) = polled {
            self.failure = Some(error);
            self.waiting = Vec::new();
        }
    }

    fn poll_carry<A: Connection, B: Connection>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut A,
        to: &mut B,
        between: &mut [u8],
    ) -> Poll<io::Result<()>> {
        for _ in 0..BURSTS_AT_ONCE {
            ready!(self.poll_write_waiting(cx, to))?;
            if self.at_end {
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                self.closed = true;
                return Poll::Ready(Ok(()));
            }
            let mut buffer = ReadBuf::new(between);
            match Pin::new(&mut *from).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    self.input_failed = true;
                    return Poll::Ready(Err(error));
                }
                Poll::Pending => {
                    if self.unflushed {
                        ready!(Pin::new(&mut *to).poll_flush(cx))?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
            let read = buffer.filled();
            self.at_end = read.is_empty();
            self.write_fresh(cx, to, read)?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what was just read, and keeps what there is no room for.
    fn write_fresh<B: Connection>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut B,
        mut bytes: &[u8],
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            let Poll::Ready(written) = Pin::new(&mut *to).poll_write(cx, bytes) else {
                self.waiting.extend_from_slice(bytes);
                break;
            };
            let written = self.count(written?)?;
            bytes = bytes.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    fn poll_write_waiting<B: Connection>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut B,
    ) -> Poll<io::Result<()>> {
        while let Some(bytes) = self.waiting.get(self.written..).filter(|bytes| !bytes.is_empty()) {
            let written = ready!(Pin::new(&mut *to).poll_write(cx, bytes))?;
            self.written += self.count(written)?;
        }
        if self.written > 0 {
            // Given back: most connections have nothing that waits, most of the time.
            self.waiting = Vec::new();
            self.written = 0;
        }
        Poll::Ready(Ok(()))
    }

    fn count(&mut self, written: usize) -> io::Result<usize> {
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.carried += written as u64;
        self.unflushed = true;
        Ok(written)
    }
}

/// Watches for what no read or write tells: that nothing happens, and that a peer has gone which nobody reads from.
struct Watch {
    idle_timeout: Option<Duration>,
    last: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Watch {
    fn new(idle_timeout: Option<Duration>) -> Self {
        Self { idle_timeout, last: Instant::now(), timer: None }
    }

    fn poll<'a>(
        &mut self,
        cx: &mut Context<'_>,
        moved: bool,
        unread: impl Iterator<Item = &'a dyn Fails> + Clone,
    ) -> Poll<End> {
        let half_closed = unread.clone().next().is_some();
        if !half_closed && self.idle_timeout.is_none() {
            return Poll::Pending;
        }
        if moved {
            self.last = Instant::now();
        }
        loop {
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(Duration::ZERO)));
            ready!(timer.as_mut().poll(cx));
            if let Some(error) = unread.clone().find_map(Fails::fails) {
                return Poll::Ready(End::Failed(error));
            }
            let now = Instant::now();
            let idle_at = self.idle_timeout.map(|timeout| self.last + timeout);
            if idle_at.is_some_and(|at| at <= now) {
                return Poll::Ready(End::Idle);
            }
            let check_at = half_closed.then(|| now + HALF_CLOSED_CHECK);
            let Some(next) = idle_at.into_iter().chain(check_at).min() else { return Poll::Pending };
            timer.as_mut().reset(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::JoinHandle;
    use tokio::time::timeout;

    use super::*;

    /// More than any buffer in between has room for.
    const MUCH: usize = 8 * 1024 * 1024;
    const SOON: Duration = Duration::from_secs(10);

    /// A client, a target, and what carries bytes between them, over the kernel's loopback.
    async fn relayed(idle: Option<Duration>) -> (TcpStream, TcpStream, JoinHandle<Outcome>, Arc<Traffic>) {
        let (client, near) = pair().await;
        let (target, far) = pair().await;
        let traffic = Arc::<Traffic>::default();
        let counted = Arc::clone(&traffic);
        let relay = tokio::spawn(async move { relay(near, Vec::new(), far, idle, &counted).await });
        (client, target, relay, traffic)
    }

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("an address");
        let (one, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (one.expect("connects"), accepted.expect("accepts").0)
    }

    async fn end(relay: JoinHandle<Outcome>) -> End {
        timeout(SOON, relay).await.expect("ends in time").expect("does not panic").end
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|index| (index.wrapping_mul(31) ^ (index >> 9)) as u8).collect()
    }

    #[tokio::test]
    async fn bytes_go_both_ways_and_so_does_each_end_by_itself() {
        let (mut client, mut target, relay, traffic) = relayed(None).await;
        client.write_all(b"question").await.expect("writes");
        client.shutdown().await.expect("ends");
        let mut question = Vec::new();
        target.read_to_end(&mut question).await.expect("the end is passed on, and the other way stays open");
        assert_eq!(question, b"question");
        target.write_all(b"the answer").await.expect("writes");
        target.shutdown().await.expect("ends");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.expect("reads");
        assert_eq!(answer, b"the answer");
        assert!(matches!(end(relay).await, End::Complete));
        assert_eq!((traffic.to_target(), traffic.to_client()), (8, 10));
    }

    #[tokio::test]
    async fn much_goes_through_whole_in_both_directions_at_once() {
        let (client, target, relay, traffic) = relayed(None).await;
        let sent = pattern(MUCH);
        let exchange = |stream: TcpStream, sent: Vec<u8>| async move {
            let (mut reader, mut writer) = stream.into_split();
            let mut got = Vec::new();
            let write = async {
                writer.write_all(&sent).await.expect("writes");
                writer.shutdown().await.expect("ends");
            };
            tokio::join!(write, async { reader.read_to_end(&mut got).await.expect("reads") });
            got
        };
        let (at_client, at_target) =
            tokio::join!(exchange(client, sent.clone()), exchange(target, sent.clone()));
        assert!(at_client == sent && at_target == sent);
        assert!(matches!(end(relay).await, End::Complete));
        assert_eq!((traffic.to_target(), traffic.to_client()), (MUCH as u64, MUCH as u64));
    }

    #[tokio::test]
    async fn a_reset_is_passed_on_as_a_reset_in_either_direction() {
        for client_resets in [true, false] {
            let (client, target, relay, _) = relayed(None).await;
            let (mut resets, mut hears) = if client_resets { (client, target) } else { (target, client) };
            resets.write_all(b"half of it").await.expect("writes");
            let mut got = [0; 10];
            hears.read_exact(&mut got).await.expect("arrives");
            Connection::reset(resets);
            let heard = timeout(SOON, hears.read(&mut got)).await.expect("in time");
            assert_eq!(heard.expect_err("is no end").kind(), io::ErrorKind::ConnectionReset);
            assert!(matches!(end(relay).await, End::Failed(_)));
        }
    }

    #[tokio::test]
    async fn what_a_server_says_before_it_stops_reading_still_arrives() {
        let (client, mut target, relay, _) = relayed(None).await;
        let (mut reader, mut writer) = client.into_split();
        // The server answers and goes, with the request half read: its end comes, and then a reset.
        let request = tokio::spawn(async move { while writer.write_all(&[0; 65536]).await.is_ok() {} });
        target.read_exact(&mut [0; 1000]).await.expect("some of it");
        target.write_all(b"413 too long").await.expect("answers");
        target.shutdown().await.expect("ends");
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(target);
        let mut answer = vec![0; 12];
        timeout(SOON, reader.read_exact(&mut answer)).await.expect("in time").expect("the answer");
        assert_eq!(answer, b"413 too long");
        assert!(matches!(end(relay).await, End::Failed(_)), "not all was taken");
        timeout(SOON, request).await.expect("the client learns it").expect("does not panic");
    }

    #[tokio::test]
    async fn a_dropped_relay_resets_both() {
        let (mut client, mut target, relay, _) = relayed(None).await;
        client.write_all(b"x").await.expect("writes");
        target.read_exact(&mut [0]).await.expect("arrives");
        relay.abort();
        for stream in [&mut client, &mut target] {
            let heard = timeout(SOON, stream.read(&mut [0])).await.expect("in time");
            assert_eq!(heard.expect_err("is no end").kind(), io::ErrorKind::ConnectionReset);
        }
    }

    #[tokio::test]
    async fn who_does_not_read_makes_the_other_wait_and_little_is_held_in_between() {
        let (mut client, near) = duplex(1024);
        let (mut target, far) = duplex(1024);
        let relay =
            tokio::spawn(async move { relay(near, Vec::new(), far, None, &Traffic::default()).await });
        let sent = pattern(MUCH);
        let mut written = 0;
        while let Ok(more) = timeout(Duration::from_millis(100), client.write(&sent[written..])).await {
            written += more.expect("writes");
        }
        assert!(written <= BURST + 2 * 1024, "{written} bytes were taken and nobody reads");
        let (mut reader, mut rest) = (Vec::new(), sent[written..].to_vec());
        let write = async {
            client.write_all(&std::mem::take(&mut rest)).await.expect("writes on");
            client.shutdown().await.expect("ends");
        };
        let read = async {
            target.read_to_end(&mut reader).await.expect("reads");
            target.shutdown().await.expect("ends");
        };
        tokio::join!(write, read);
        assert!(reader == sent);
        assert!(matches!(end(relay).await, End::Complete));
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_lives_for_days_unless_told_otherwise() {
        let (mut client, near) = duplex(64);
        let (mut target, far) = duplex(64);
        let running =
            tokio::spawn(async move { relay(near, Vec::new(), far, None, &Traffic::default()).await });
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_secs(3 * 24 * 3600)).await;
            client.write_all(b"x").await.expect("writes");
            target.read_exact(&mut [0]).await.expect("arrives");
        }
        running.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn idle_is_counted_from_the_last_byte() {
        let (mut client, near) = duplex(64);
        let (mut target, far) = duplex(64);
        let limit = Some(Duration::from_secs(10));
        let running =
            tokio::spawn(async move { relay(near, Vec::new(), far, limit, &Traffic::default()).await });
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(9)).await;
            client.write_all(b"x").await.expect("writes");
            target.read_exact(&mut [0]).await.expect("arrives");
        }
        let since = Instant::now();
        let outcome = running.await.expect("ends");
        assert!(matches!(outcome.end, End::Idle));
        assert_eq!((outcome.to_target, since.elapsed().as_secs()), (5, 10));
    }

    #[tokio::test]
    async fn a_peer_that_fails_after_its_end_is_noticed_though_nobody_reads_from_it() {
        let (mut client, mut target, relay, _) = relayed(None).await;
        client.shutdown().await.expect("ends");
        assert_eq!(target.read(&mut [0]).await.expect("its end arrives"), 0);
        tokio::time::pause();
        Connection::reset(client);
        // The clock stands still for the sockets, and jumps to the next look.
        assert!(matches!(end(relay).await, End::Failed(_)));
        assert!(target.write_all(b"x").await.is_err(), "it was reset as well");
    }
}
