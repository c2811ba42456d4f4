//! The forwards and proxies that run, and how they become those of another configuration.

use std::{io, sync::Arc, time::Duration};

use tokio::task::JoinSet;

use crate::cli::{
    control::view,
    forward,
    network::Network,
    proxy,
    relay::{Handle, Limits, Listen, StartError},
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
    /// Those that were removed and have connections left.
    leaving: JoinSet<()>,
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

    /// Becomes what is wished for. What is wished for already goes on, with all its connections; what is not any more is
    /// closed at once, and its connections have `grace` to finish.
    pub(super) async fn change<N: Network>(
        &mut self,
        wishes: &[Wish],
        ours: &Arc<N>,
        grace: Duration,
    ) -> Change {
        while self.leaving.try_join_next().is_some() {}
        let mut change = Change::default();
        let mut wanted: Vec<&Wish> = wishes.iter().collect();
        let (mut kept, mut removed) = (Vec::new(), Vec::new());
        for running in self.running.drain(..) {
            match wanted.iter().position(|wish| **wish == running.wish) {
                Some(at) => {
                    wanted.remove(at);
                    kept.push(running);
                }
                None => removed.push(running),
            }
        }
        change.kept = kept.len();
        change.stopped = removed.len();
        // What is in nobody's way comes first, so that nobody finds both old and new closed for longer than it has to be.
        let (behind, free): (Vec<&Wish>, Vec<&Wish>) =
            wanted.into_iter().partition(|wish| removed.iter().any(|old| old.wish.is_in_the_way_of(wish)));
        let mut started = Vec::new();
        for wish in free {
            started.push(wish.start(ours).await);
        }
        for Running { mut handle, .. } in removed {
            self.leaving.spawn(async move {
                handle.stop(grace).await;
            });
        }
        for wish in behind {
            started.push(wish.start_after_another(ours).await);
        }
        self.running = kept;
        for result in started {
            match result {
                Ok(running) => {
                    change.started += 1;
                    self.running.push(running);
                }
                Err(error) => change.failures.push(error.to_string()),
            }
        }
        change
    }

    /// Closes all, lets their connections go on for `grace` at most, and resets those that are left. Returns how many.
    pub(super) async fn stop(&mut self, grace: Duration) -> usize {
        let stopping = self.running.iter_mut().map(|one| one.handle.stop(grace));
        let stopped = futures_util::future::join_all(stopping).await.into_iter().sum();
        while self.leaving.join_next().await.is_some() {}
        self.running.clear();
        stopped
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
