//! What every server of the command does: accept, serve many at once but not without bound, and stop in order.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{runtime::Handle, sync::Semaphore, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::network::{Connection, Listener};

/// How long to wait when the system can't give us a connection now: mostly because the process has no room for another.
/// Shorter, and a full table costs a core; longer, and clients wait although there is room again.
const NOT_NOW: Duration = Duration::from_millis(100);

/// How long nothing more is said about a server that is full: one that is full for long need not say so for each newcomer.
const FULL_IS_TOLD_AGAIN: Duration = Duration::from_secs(60);

/// The connections that a server has, however many listeners they came from.
///
/// When there are as many as allowed, nobody is accepted until one has gone: newcomers wait in the listener's queue.
#[derive(Clone, Debug)]
pub struct Service {
    room: Arc<Semaphore>,
    tasks: TaskTracker,
    stopping: CancellationToken,
    aborting: CancellationToken,
    accepted: Arc<AtomicU64>,
    limit: Arc<AtomicUsize>,
    full_told: Arc<Mutex<Option<Instant>>>,
}

impl Service {
    /// A server of at most `connections` connections at once.
    pub fn new(connections: usize) -> Self {
        Self {
            room: Arc::new(Semaphore::new(permits(connections))),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            aborting: CancellationToken::new(),
            accepted: Arc::default(),
            limit: Arc::new(AtomicUsize::new(permits(connections))),
            full_told: Arc::default(),
        }
    }

    /// From now on, as many as `connections` at once are allowed. Where there are more, they go on, and nobody is accepted
    /// until enough of them have ended. Must be called within a tokio runtime.
    pub fn allow(&self, connections: usize) {
        let now = permits(connections);
        let before = self.limit.swap(now, Ordering::Relaxed);
        if now >= before {
            return self.room.add_permits(now - before);
        }
        let in_use = before - now - self.room.forget_permits(before - now);
        let room = Arc::clone(&self.room);
        tokio::spawn(async move {
            // Who waits for room comes after this.
            let number = u32::try_from(in_use).unwrap_or(u32::MAX);
            if let Ok(taken) = room.acquire_many_owned(number).await {
                taken.forget();
            }
        });
    }

    /// Cancelled when the server is to stop: whoever serves a connection finishes what was begun, and begins nothing.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Connections now.
    pub fn active(&self) -> usize {
        self.tasks.len()
    }

    /// Whether there are as many as allowed, so that whoever keeps a connection without need keeps others out.
    pub fn is_full(&self) -> bool {
        self.room.available_permits() == 0
    }

    /// Connections since it started.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Serves what comes in at `listener`, each connection by a task of its own, until the service stops.
    ///
    /// # Errors
    /// When nothing will ever come in there again: the stack has stopped, for example.
    pub async fn accept<L, F>(
        &self,
        listener: L,
        serve: impl Fn(L::Stream, SocketAddr) -> F,
    ) -> io::Result<()>
    where
        L: Listener,
        F: Future<Output = ()> + Send + 'static,
    {
        loop {
            let next = async {
                if self.is_full() {
                    self.tell_full();
                }
                // Room is waited for and not held: a listener to which nobody comes must not take it from the others.
                drop(self.room.acquire().await.map_err(io::Error::other)?);
                let accepted = listener.accept().await?;
                let room = Arc::clone(&self.room).acquire_owned().await.map_err(io::Error::other)?;
                Ok((room, accepted))
            };
            let accepted: io::Result<_> = tokio::select! {
                () = self.stopping.cancelled() => return Ok(()),
                accepted = next => accepted,
            };
            match accepted {
                Ok((room, (stream, remote))) => {
                    self.accepted.fetch_add(1, Ordering::Relaxed);
                    let runtime = stream.runtime().unwrap_or_else(Handle::current);
                    // In a box: what becomes of it is moved from hand to hand below, some kilobytes each time.
                    let (serving, aborting) = (Box::pin(serve(stream, remote)), self.aborting.clone());
                    let task = async move {
                        aborting.run_until_cancelled(serving).await;
                        drop(room);
                    };
                    self.tasks.spawn_on(task, &runtime);
                }
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) if is_about_the_listener(&error) => return Err(error),
                Err(error) => {
                    tracing::warn!("cannot accept a connection now: {error}");
                    tokio::select! {
                        () = self.stopping.cancelled() => return Ok(()),
                        () = tokio::time::sleep(NOT_NOW) => {}
                    }
                }
            }
        }
    }

    /// The same at several listeners, each by a task of its own: beside a driver that polls, what a thread itself waits for has its turn once
    /// in some dozen turns of its tasks, and whoever comes would wait for that.
    ///
    /// # Errors
    /// As [`accept`](Self::accept), of any of them.
    pub async fn accept_at<L, F, S>(&self, listeners: impl IntoIterator<Item = L>, serve: S) -> io::Result<()>
    where
        L: Listener,
        F: Future<Output = ()> + Send + 'static,
        S: Fn(L::Stream, SocketAddr) -> F + Clone + Send + Sync + 'static,
    {
        let mut accepting = JoinSet::new();
        for listener in listeners {
            let (service, serve) = (self.clone(), serve.clone());
            accepting.spawn(async move { service.accept(listener, serve).await });
        }
        while let Some(ended) = accepting.join_next().await {
            ended.map_err(io::Error::other)??;
        }
        Ok(())
    }

    fn tell_full(&self) {
        let mut told = self.full_told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| told.elapsed() >= FULL_IS_TOLD_AGAIN) {
            *told = Some(Instant::now());
            tracing::warn!(
                "{} connections at once are as many as allowed: newcomers wait",
                self.limit.load(Ordering::Relaxed)
            );
        }
    }

    /// Stops: nobody is accepted any more, and those who are served may finish, for `grace` at most; then they are
    /// dropped. Returns how many were.
    pub async fn stop(&self, grace: Duration) -> usize {
        self.stopping.cancel();
        self.tasks.close();
        if tokio::time::timeout(grace, self.tasks.wait()).await.is_ok() {
            return 0;
        }
        let left = self.tasks.len();
        self.aborting.cancel();
        self.tasks.wait().await;
        left
    }
}

/// As many connections, as far as they can be counted.
fn permits(connections: usize) -> usize {
    connections.min(Semaphore::MAX_PERMITS)
}

/// The peer has gone before it was accepted; or, as accept(2) says of Linux, its connection has failed since, which is no
/// reason not to take the next one.
fn is_about_one_connection(error: &io::Error) -> bool {
    let failed_since = [
        libc::ENETDOWN,
        libc::EPROTO,
        libc::ENOPROTOOPT,
        libc::EHOSTDOWN,
        libc::ENONET,
        libc::EHOSTUNREACH,
        libc::ENETUNREACH,
        libc::ETIMEDOUT,
    ];
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
        || error.raw_os_error().is_some_and(|code| failed_since.contains(&code))
}

/// Nothing will ever come in there again: our stack has closed it, or it is no listener of the kernel's. Everything else
/// that the kernel says passes: no descriptor or no memory left, or a firewall's rule (EPERM).
fn is_about_the_listener(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        None | Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EFAULT | libc::EOPNOTSUPP)
    )
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    /// A listener on loopback and where it is.
    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let local = listener.local_addr().expect("an address");
        (listener, local)
    }

    async fn echo(mut stream: TcpStream) {
        let mut byte = [0];
        while stream.read_exact(&mut byte).await.is_ok() && stream.write_all(&byte).await.is_ok() {}
    }

    #[tokio::test]
    async fn no_more_are_served_at_once_than_allowed_and_the_next_waits_for_its_turn() {
        let (listener, local) = listener().await;
        let service = Service::new(1);
        let accepting = service.clone();
        tokio::spawn(async move { accepting.accept(listener, |stream, _| echo(stream)).await });
        let mut first = TcpStream::connect(local).await.expect("connects");
        first.write_all(b"1").await.expect("writes");
        first.read_exact(&mut [0]).await.expect("is served");
        let mut second = TcpStream::connect(local).await.expect("waits in the queue");
        second.write_all(b"2").await.expect("writes");
        assert_eq!((service.active(), service.accepted()), (1, 1));
        drop(first);
        second.read_exact(&mut [0]).await.expect("is served in turn");
        assert_eq!((service.active(), service.accepted()), (1, 2));
    }

    /// What each call says, one after the other; then nothing comes any more.
    struct Script(Mutex<Vec<io::Error>>);

    impl Listener for Arc<Script> {
        type Stream = tokio::io::DuplexStream;

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(SocketAddr::from(([127, 0, 0, 1], 1)))
        }

        async fn accept(&self) -> io::Result<(Self::Stream, SocketAddr)> {
            let next = self.0.lock().expect("nobody panics").pop();
            match next {
                Some(error) => Err(error),
                None => std::future::pending().await,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_kernel_says_of_one_connection_or_of_now_does_not_end_a_listener() {
        let passing = [libc::EPROTO, libc::ENETDOWN, libc::EPERM, libc::EMFILE, libc::ECONNABORTED];
        let listener = Arc::new(Script(Mutex::new(passing.map(io::Error::from_raw_os_error).into())));
        let service = Service::new(1);
        let accepting = service.accept(Arc::clone(&listener), |_, _| async {});
        assert!(tokio::time::timeout(Duration::from_secs(5), accepting).await.is_err(), "goes on");
        assert!(listener.0.lock().expect("nobody panics").is_empty(), "all were passed over");
        for lasting in [io::ErrorKind::NotConnected.into(), io::Error::from_raw_os_error(libc::EBADF)] {
            let listener = Arc::new(Script(Mutex::new(vec![lasting])));
            assert!(service.accept(listener, |_, _| async {}).await.is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn several_listeners_end_together_by_a_stop_a_lasting_error_or_when_nobody_waits_for_them() {
        let script = |says: Option<libc::c_int>| {
            Arc::new(Script(Mutex::new(says.into_iter().map(io::Error::from_raw_os_error).collect())))
        };
        let (quiet, broken) = (script(None), script(Some(libc::EBADF)));
        let service = Service::new(1);
        let serve = |_, _| async {};
        let error = service.accept_at([Arc::clone(&quiet), broken], serve).await.expect_err("one is broken");
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&quiet), 1, "nobody listens any more");

        let accepting = service.accept_at([Arc::clone(&quiet)], serve);
        assert!(tokio::time::timeout(Duration::from_secs(5), accepting).await.is_err(), "goes on");
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&quiet), 1, "it was dropped");

        let accepting = service.accept_at([Arc::clone(&quiet), quiet], serve);
        let (ended, ()) = tokio::join!(accepting, async { service.stopping().cancel() });
        assert!(ended.is_ok(), "{ended:?}");
    }

    #[tokio::test]
    async fn more_or_fewer_may_be_allowed_while_it_serves() {
        let (listener, local) = listener().await;
        let service = Service::new(1);
        let accepting = service.clone();
        tokio::spawn(async move { accepting.accept(listener, |stream, _| echo(stream)).await });
        let served = async |stream: &mut TcpStream| {
            stream.write_all(b"x").await.expect("writes");
            let answered =
                tokio::time::timeout(Duration::from_millis(300), stream.read_exact(&mut [0])).await;
            answered.is_ok_and(|read| read.is_ok())
        };
        let mut streams = Vec::new();
        for _ in 0..4 {
            streams.push(TcpStream::connect(local).await.expect("connects"));
        }
        assert!(served(&mut streams[0]).await && !served(&mut streams[1]).await, "one is allowed");
        service.allow(3);
        assert!(served(&mut streams[1]).await && served(&mut streams[2]).await, "three are");
        service.allow(2);
        assert!(served(&mut streams[0]).await, "those who are served go on");
        drop(streams.remove(0));
        assert!(!served(&mut streams[2]).await, "two are there, and two are allowed");
        drop(streams.remove(0));
        assert!(served(&mut streams[1]).await, "there is room for one more");
    }

    #[tokio::test]
    async fn a_listener_to_which_nobody_comes_takes_no_room_from_the_others() {
        let service = Service::new(1);
        let (quiet, _) = listener().await;
        let (busy, local) = listener().await;
        for listener in [quiet, busy] {
            let accepting = service.clone();
            tokio::spawn(async move { accepting.accept(listener, |stream, _| echo(stream)).await });
        }
        tokio::task::yield_now().await;
        let mut client = TcpStream::connect(local).await.expect("connects");
        client.write_all(b"1").await.expect("writes");
        let served = tokio::time::timeout(Duration::from_secs(5), client.read_exact(&mut [0])).await;
        served.expect("there is room").expect("is served");
    }

    #[tokio::test]
    async fn stopping_lets_those_finish_who_do_and_drops_those_who_do_not() {
        let (listener, local) = listener().await;
        let service = Service::new(10);
        let accepting = service.clone();
        let serving = tokio::spawn(async move { accepting.accept(listener, |stream, _| echo(stream)).await });
        let mut quick = TcpStream::connect(local).await.expect("connects");
        let mut stuck = TcpStream::connect(local).await.expect("connects");
        for stream in [&mut quick, &mut stuck] {
            stream.write_all(b"x").await.expect("writes");
            stream.read_exact(&mut [0]).await.expect("is served");
        }
        let stopping = service.clone();
        let stopped = tokio::spawn(async move { stopping.stop(Duration::from_millis(200)).await });
        service.stopping().cancelled().await;
        drop(quick);
        assert_eq!(stopped.await.expect("stops"), 1, "one did not finish");
        assert!(serving.await.expect("ends").is_ok(), "stopping is no error");
        assert_eq!(stuck.read(&mut [0]).await.expect("closed in order"), 0);
        assert!(TcpStream::connect(local).await.is_err(), "nobody listens any more");
    }
}
