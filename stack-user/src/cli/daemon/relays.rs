//! The forwards and proxies that run, and how they become those of another configuration.

use std::{io, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::task::JoinHandle;

use crate::cli::{
    control::view,
    forward,
    network::Network,
    proxy,
    relay::{Handle, Limits, Listen, StartError},
    service::Service,
};

/// How long a place that was given up moments ago is tried for: until its listener is gone.
const RETRIES: u32 = 50;
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// Something that listens.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Wish {
    /// A forward.
    Forward(forward::Spec, Limits),
    /// A proxy.
    Proxy(proxy::Config, Limits),
}

/// All that listen now.
#[derive(Debug, Default)]
pub(super) struct Relays {
    running: Vec<Running>,
    /// Those that are about to be stopped.
    removed: Vec<Running>,
    /// Those that were removed and have connections left.
    leaving: Vec<Leaving>,
}

/// What was removed, and the time of grace that its connections have.
#[derive(Debug)]
struct Leaving {
    service: Service,
    stopping: JoinHandle<usize>,
}

#[derive(Debug)]
struct Running {
    wish: Wish,
    handle: Handle,
}

/// What a change came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) kept: usize,
    pub(super) started: usize,
    pub(super) stopped: usize,
    /// Why some could not be started.
    pub(super) failures: Vec<String>,
}

impl Wish {
    async fn start<N: Network>(&self, ours: &Arc<N>) -> Result<Running, StartError> {
        let handle = match self {
            Self::Forward(spec, limits) => forward::start(spec.clone(), limits, ours).await?,
            Self::Proxy(config, limits) => proxy::start(config.clone(), limits, ours).await?,
        };
        Ok(Running { wish: self.clone(), handle })
    }

    /// As [`start`](Self::start), where a listener may still be about to go.
    async fn start_after_another<N: Network>(&self, ours: &Arc<N>) -> Result<Running, StartError> {
        for _ in 0..RETRIES {
            match self.start(ours).await {
                Err(error) if error.source.kind() == io::ErrorKind::AddrInUse => {
                    tokio::time::sleep(RETRY_AFTER).await;
                }
                done => return done,
            }
        }
        self.start(ours).await
    }

    fn places(&self) -> &[Listen] {
        match self {
            Self::Forward(spec, _) => std::slice::from_ref(&spec.from),
            Self::Proxy(config, _) => &config.listen,
        }
    }

    /// Makes of `running` what this is, and its listeners are not disturbed: it must be of the same kind, and listen in the
    /// same places.
    fn change<N: Network>(&self, running: &mut Running, ours: &Arc<N>) {
        if running.wish == *self {
            return;
        }
        match self {
            Self::Forward(spec, limits) => forward::change(&running.handle, spec.clone(), limits, ours),
            Self::Proxy(config, limits) => proxy::change(&running.handle, config.clone(), limits, ours),
        }
        let is_file = |place: &Listen| matches!(place, Listen::Unix(_));
        let (new, old) = (self.limits(), running.wish.limits());
        if !self.places().iter().all(is_file) && new.backlog != old.backlog {
            tracing::warn!("backlog has changed, which takes a restart where a listener is kept");
        }
        if self.places().iter().any(is_file) && new.socket_mode != old.socket_mode {
            tracing::warn!("socket-mode has changed, which takes a restart where a socket file is kept");
        }
        running.wish = self.clone();
    }

    /// Listens again where `running` has ceased to, and tells why it has.
    async fn listen_again<N: Network>(&self, handle: &mut Handle, ours: &Arc<N>) -> Vec<StartError> {
        match self {
            Self::Forward(_, limits) => forward::listen_again(handle, limits, ours).await,
            Self::Proxy(_, limits) => proxy::listen_again(handle, limits, ours).await,
        }
    }

    fn limits(&self) -> &Limits {
        match self {
            Self::Forward(_, limits) | Self::Proxy(_, limits) => limits,
        }
    }

    /// Whether it can become `other` without a look at its listeners.
    fn listens_as(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.places(), other.places());
        let are_the_same = ours.len() == theirs.len() && ours.iter().all(|place| theirs.contains(place));
        self.kind() == other.kind() && are_the_same
    }

    fn is_in_the_way_of(&self, other: &Self) -> bool {
        self.places().iter().any(|place| other.places().iter().any(|wanted| place.overlaps(wanted)))
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Forward(..) => "forward",
            Self::Proxy(..) => "proxy",
        }
    }

    fn to(&self) -> String {
        match self {
            Self::Forward(spec, _) => spec.to.to_string(),
            // Clients say where to.
            Self::Proxy(..) => String::new(),
        }
    }
}

impl Relays {
    /// Starts all that is wished for.
    ///
    /// # Errors
    /// Why one can't be; the others have to be [stopped](Self::stop).
    pub(super) async fn start<N: Network>(
        &mut self,
        wishes: &[Wish],
        ours: &Arc<N>,
    ) -> Result<(), StartError> {
        for wish in wishes {
            self.running.push(wish.start(ours).await?);
        }
        Ok(())
    }

    /// Becomes what is wished for. What listens where it is wished for already goes on, with all its connections, and new ones
    /// are served as is wished now; what is not wished for any more is closed at once, and its connections have `grace` to
    /// finish. If the future is dropped, some of what is wished for is not there.
    pub(super) async fn change<N: Network>(
        &mut self,
        wishes: &[Wish],
        ours: &Arc<N>,
        grace: Duration,
    ) -> Change {
        self.leaving.retain(|leaving| !leaving.stopping.is_finished());
        let mut change = Change::default();
        let mut wanted: Vec<&Wish> = wishes.iter().collect();
        for mut running in std::mem::take(&mut self.running) {
            let same = wanted.iter().position(|wish| **wish == running.wish);
            match same.or_else(|| wanted.iter().position(|wish| wish.listens_as(&running.wish))) {
                Some(at) => {
                    wanted.remove(at).change(&mut running, ours);
                    self.running.push(running);
                }
                None => self.removed.push(running),
            }
        }
        change.kept = self.running.len();
        change.stopped = self.removed.len();
        // What is in nobody's way comes first, so that nobody finds both old and new closed for longer than it has to be.
        let (behind, free): (Vec<&Wish>, Vec<&Wish>) = wanted
            .into_iter()
            .partition(|wish| self.removed.iter().any(|old| old.wish.is_in_the_way_of(wish)));
        for wish in free {
            let started = wish.start(ours).await;
            self.add(started, &mut change);
        }
        for Running { mut handle, .. } in self.removed.drain(..) {
            let service = handle.parts().1.clone();
            let stopping = tokio::spawn(async move { handle.stop(grace).await });
            self.leaving.push(Leaving { service, stopping });
        }
        for wish in behind {
            let started = wish.start_after_another(ours).await;
            self.add(started, &mut change);
        }
        change
    }

    /// Has all listen again that has ceased to by itself, as far as that is possible now, and returns why it has, once.
    pub(super) async fn listen_again<N: Network>(&mut self, ours: &Arc<N>) -> Vec<String> {
        let mut ended = Vec::new();
        for Running { wish, handle } in &mut self.running {
            let told = wish.listen_again(handle, ours).await;
            ended.extend(told.iter().map(|error| format!("{} has ended: {}", error.listen, error.source)));
        }
        ended
    }

    fn add(&mut self, started: Result<Running, StartError>, change: &mut Change) {
        match started {
            Ok(running) => {
                change.started += 1;
                self.running.push(running);
            }
            Err(error) => change.failures.push(error.to_string()),
        }
    }

    /// Closes all, lets their connections go on for `grace` at most, those of what was removed before included, and resets
    /// those that are left. Returns how many. If the future is dropped, it can be called again.
    pub(super) async fn stop(&mut self, grace: Duration) -> usize {
        let running = self.running.iter_mut().chain(&mut self.removed);
        let running = join_all(running.map(|one| one.handle.stop(grace)));
        let leaving = join_all(self.leaving.iter().map(async |one| {
            // Its own time of grace may end first, and what was left by then was reset before.
            one.service.stop(grace).await
        }));
        let (running, leaving) = tokio::join!(running, leaving);
        self.running.clear();
        self.removed.clear();
        self.leaving.clear();
        running.into_iter().chain(leaving).sum()
    }

    /// How many listen.
    pub(super) fn len(&self) -> usize {
        self.running.len()
    }

    /// What each of them does.
    pub(super) fn view(&self) -> Vec<view::Relay> {
        let view = |running: &Running| {
            let counters = running.handle.counters();
            view::Relay {
                kind: running.wish.kind().to_owned(),
                listening: running.handle.listening().iter().map(ToString::to_string).collect(),
                to: running.wish.to(),
                active: counters.active,
                accepted: counters.accepted,
                failed: counters.failed,
                refused: counters.refused,
                to_target: counters.to_target,
                to_client: counters.to_client,
            }
        };
        self.running.iter().map(view).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        sync::Notify,
    };

    use super::*;
    use crate::cli::{
        kernel::KernelNetwork,
        network::{ConnectError, Listener, ResolveError},
    };

    /// The kernel's sockets, whose listeners end when they are told to, as those of an address that is lost.
    #[derive(Default)]
    struct Losing(Arc<Notify>);

    struct Lost(<KernelNetwork as Network>::Listener, Arc<Notify>);

    impl Listener for Lost {
        type Stream = <KernelNetwork as Network>::Stream;

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Listener::local_addr(&self.0)
        }

        async fn accept(&self) -> io::Result<(Self::Stream, SocketAddr)> {
            tokio::select! {
                () = self.1.notified() => Err(io::ErrorKind::NotConnected.into()),
                accepted = Listener::accept(&self.0) => accepted,
            }
        }
    }

    impl Network for Losing {
        type Stream = <KernelNetwork as Network>::Stream;
        type Listener = Lost;

        async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
            KernelNetwork.resolve(host).await
        }

        async fn connect(&self, remote: SocketAddr) -> Result<Self::Stream, ConnectError> {
            KernelNetwork.connect(remote).await
        }

        async fn listen(&self, local: SocketAddr) -> io::Result<Lost> {
            Ok(Lost(KernelNetwork.listen(local).await?, Arc::clone(&self.0)))
        }
    }

    /// A port of loopback that nobody has at the moment.
    async fn free_port() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        listener.local_addr().expect("an address").port()
    }

    /// Who says one letter to everybody who connects, and then nothing. Returns its port.
    async fn says(letter: u8) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(&[letter]).await;
                kept.push(stream);
            }
        });
        port
    }

    fn forward(from: u16, to: u16, limits: Limits) -> Wish {
        let spec = forward::Spec::new(&format!("127.0.0.1:{from}"), &format!("127.0.0.1:{to}"));
        Wish::Forward(spec.expect("a forward"), limits)
    }

    /// A client, and what it hears first.
    async fn client(port: u16) -> (TcpStream, u8) {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connects");
        let letter = stream.read_u8().await.expect("is answered");
        (stream, letter)
    }

    /// Whether nothing has happened to it.
    async fn goes_on(stream: &mut TcpStream) -> bool {
        tokio::time::timeout(Duration::from_millis(100), stream.read_u8()).await.is_err()
    }

    #[tokio::test]
    async fn limits_and_targets_change_without_a_look_at_what_listens() {
        let (port, one, other, ours) =
            (free_port().await, says(b'a').await, says(b'b').await, Arc::new(Losing::default()));
        let mut relays = Relays::default();
        relays.start(&[forward(port, one, Limits::default())], &ours).await.expect("starts");
        let (mut old, letter) = client(port).await;
        assert_eq!(letter, b'a');
        let limits = Limits { idle_timeout: Some(Duration::from_millis(300)), ..Limits::default() };
        let change = relays.change(&[forward(port, other, limits)], &ours, Duration::ZERO).await;
        assert_eq!(change, Change { kept: 1, ..Change::default() });
        let (mut new, letter) = client(port).await;
        assert_eq!(letter, b'b', "the new target");
        assert!(goes_on(&mut old).await, "it was disturbed");
        assert!(new.read_u8().await.is_err(), "the new limit resets what is idle");
        assert!(goes_on(&mut old).await, "it had no such limit");
        assert_eq!(relays.view()[0].accepted, 2, "and it is counted on");
        relays.stop(Duration::ZERO).await;
    }

    #[tokio::test]
    async fn what_is_lost_is_listened_on_again_and_told_once() {
        let (port, target, ours) = (free_port().await, says(b'a').await, Arc::new(Losing::default()));
        let mut relays = Relays::default();
        relays.start(&[forward(port, target, Limits::default())], &ours).await.expect("starts");
        let (mut old, _) = client(port).await;
        assert!(relays.listen_again(&ours).await.is_empty(), "nothing has ended");
        ours.0.notify_one();
        let mut told = Vec::new();
        while told.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
            told = relays.listen_again(&ours).await;
        }
        assert!(told[0].contains(&format!("ours:127.0.0.1:{port} has ended")), "{told:?}");
        assert_eq!(client(port).await.1, b'a', "it listens again");
        assert!(relays.listen_again(&ours).await.is_empty(), "that is told once");
        assert!(goes_on(&mut old).await);
        relays.stop(Duration::ZERO).await;
    }

    #[tokio::test]
    async fn told_to_stop_at_once_nothing_that_was_removed_is_waited_for() {
        let (port, target, ours) = (free_port().await, says(b'a').await, Arc::new(Losing::default()));
        let mut relays = Relays::default();
        relays.start(&[forward(port, target, Limits::default())], &ours).await.expect("starts");
        let (mut old, _) = client(port).await;
        let for_long = Duration::from_secs(3600);
        assert_eq!(relays.change(&[], &ours, for_long).await.stopped, 1);
        assert!(goes_on(&mut old).await, "it has its time of grace");
        let patient = tokio::time::timeout(Duration::from_millis(100), relays.stop(for_long)).await;
        assert!(patient.is_err(), "it may finish");
        let stopped = tokio::time::timeout(Duration::from_secs(10), relays.stop(Duration::ZERO)).await;
        assert_eq!(stopped.expect("it is not waited for"), 1);
        assert!(old.read_u8().await.is_err(), "it is reset");
    }
}
