//! Listeners that pass on what comes in: started, looked at, and stopped one by one.

use std::any::Any;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinSet;

use super::endpoint::{Listen, Ports, Side};
use super::options::Limits;
use super::pump::Traffic;
use super::unix::SocketFile;
use super::{Accepted, Serve};
use crate::cli::kernel::KernelNetwork;
use crate::cli::network::{Listener, Network};
use crate::cli::service::Service;

/// Why nothing listens.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {listen}: {}", told(source, listen))]
pub struct StartError {
    /// Where.
    pub listen: Listen,
    /// What the system said.
    pub source: io::Error,
}

fn told(error: &io::Error, listen: &Listen) -> String {
    match (error.kind(), listen) {
        (io::ErrorKind::PermissionDenied, Listen::Tcp(Side::Kernel, _, ports)) if ports.first() < 1024 => {
            format!("{error}: the kernel's ports below 1024 need root, or CAP_NET_BIND_SERVICE")
        }
        (io::ErrorKind::AddrInUse, Listen::Tcp(Side::Kernel, ..)) => {
            format!("{error}: `ss -ltnp` shows by whom")
        }
        _ => error.to_string(),
    }
}

/// What was counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Connections now.
    pub active: u64,
    /// Connections that were accepted.
    pub accepted: u64,
    /// Of these, those whose target could not be reached.
    pub failed: u64,
    /// Of these, those that were refused: not allowed, or not understood.
    pub refused: u64,
    /// Bytes from clients to targets.
    pub to_target: u64,
    /// Bytes from targets to clients.
    pub to_client: u64,
}

/// What those who serve count.
#[derive(Debug, Default)]
pub struct Tally {
    /// Bytes.
    pub traffic: Traffic,
    failed: AtomicU64,
    refused: AtomicU64,
}

impl Tally {
    /// A target could not be reached.
    pub fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// A client was not allowed, or not understood.
    pub fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

/// One forward or one proxy that runs. Must be [stopped](Self::stop): dropping it closes its listeners only.
#[derive(Debug)]
pub struct Handle {
    listening: Vec<Listen>,
    service: Service,
    tally: Arc<Tally>,
    accepting: JoinSet<(Listen, u16, io::Result<()>)>,
    /// The [`Current`] of what it was started with.
    current: Arc<dyn Any + Send + Sync>,
    /// Where it does not listen any more, though nobody has stopped it, and which of the ports each is.
    closed: Vec<(Listen, u16)>,
}

/// What serves connections from now on: it can be replaced while listeners, and connections that were begun, go on.
struct Current<H>(RwLock<Arc<H>>);

impl<H> Current<H> {
    fn get(&self) -> Arc<H> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Handle {
    /// Listens on all of `listen`, and serves what comes in there. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When one of them can't be listened on; then none is.
    pub async fn start<N: Network, H: Serve>(
        listen: &[Listen],
        ours: &N,
        limits: &Limits,
        tally: Arc<Tally>,
        service: Service,
        serve: Arc<H>,
    ) -> Result<Self, StartError> {
        let current = Arc::new(Current(RwLock::new(serve)));
        let mut handle = Self {
            listening: Vec::new(),
            service,
            tally,
            accepting: JoinSet::new(),
            current: Arc::<Current<H>>::clone(&current),
            closed: Vec::new(),
        };
        // All are bound before the first one is served, so that a mistake in the last disturbs nobody.
        let (mut from_ours, mut from_kernel, mut from_file) = (Vec::new(), Vec::new(), Vec::new());
        for place in listen {
            let failed = |source| StartError { listen: place.clone(), source };
            match place {
                Listen::Tcp(Side::Ours, ..) => {
                    from_ours.extend(bind(ours, place, limits.backlog).await.map_err(failed)?);
                }
                Listen::Tcp(Side::Kernel, ..) => {
                    from_kernel.extend(bind(&KernelNetwork, place, limits.backlog).await.map_err(failed)?);
                }
                Listen::Unix(path) => {
                    let bound = SocketFile::bind(path, limits.socket_mode, ours.becomes()).map_err(failed)?;
                    from_file.push((place.clone(), 0, bound));
                }
            }
        }
        from_ours.into_iter().for_each(|(place, port, bound)| handle.accept(place, port, bound, &current));
        from_kernel.into_iter().for_each(|(place, port, bound)| handle.accept(place, port, bound, &current));
        from_file.into_iter().for_each(|(place, port, bound)| handle.accept(place, port, bound, &current));
        Ok(handle)
    }

    fn accept<L: Listener, H: Serve>(
        &mut self,
        place: Listen,
        port: u16,
        listener: L,
        current: &Arc<Current<H>>,
    ) {
        self.listening.push(place.clone());
        let (service, current) = (self.service.clone(), Arc::clone(current));
        self.accepting.spawn(async move {
            let accepting = service.accept(listener, |stream, peer: SocketAddr| {
                let peer = Some(peer).filter(|peer| !peer.ip().is_unspecified());
                current.get().serve(stream, Accepted { peer, port })
            });
            let ended = accepting.await;
            (place, port, ended)
        });
    }

    /// Has connections served by `serve` from now on, and as many at once as the limits say. Those that were begun go on as
    /// they are. Nothing happens if `serve` is of another type than what this was started with. Must be called within a
    /// tokio runtime.
    pub(crate) fn serve_by<H: Serve>(&self, serve: Arc<H>, limits: &Limits) {
        if let Some(current) = self.current.downcast_ref::<Current<H>>() {
            *current.0.write().unwrap_or_else(PoisonError::into_inner) = serve;
            self.service.allow(limits.max_connections);
        }
    }

    /// What counts and what stops, for those who serve.
    pub(crate) fn parts(&self) -> (&Arc<Tally>, &Service) {
        (&self.tally, &self.service)
    }

    /// Where it listens, each port by itself, and a free port that was asked for as the one that it became.
    pub fn listening(&self) -> &[Listen] {
        &self.listening
    }

    /// What was counted.
    pub fn counters(&self) -> Counters {
        Counters {
            active: self.service.active() as u64,
            accepted: self.service.accepted(),
            failed: self.tally.failed.load(Ordering::Relaxed),
            refused: self.tally.refused.load(Ordering::Relaxed),
            to_target: self.tally.traffic.to_target(),
            to_client: self.tally.traffic.to_client(),
        }
    }

    /// Waits until a listener has ended by itself, and tells why: our stack has stopped, for example. Cancel safe.
    pub async fn failed(&mut self) -> StartError {
        while let Some(ended) = self.accepting.join_next().await {
            if let Ok((listen, _, Err(source))) = ended {
                return StartError { listen, source };
            }
        }
        std::future::pending().await
    }

    /// Listens again where listeners have ended by themselves, as far as that is possible now; where it is not, the next call
    /// tries again. Returns why those have that ended since the last call. `H` is the type of what this was started with.
    /// Cancel safe.
    pub(crate) async fn listen_again<N: Network, H: Serve>(
        &mut self,
        ours: &N,
        limits: &Limits,
    ) -> Vec<StartError> {
        let mut told = Vec::new();
        while let Some(ended) = self.accepting.try_join_next() {
            if let Ok((listen, port, Err(source))) = ended {
                self.listening.retain(|other| *other != listen);
                self.closed.push((listen.clone(), port));
                told.push(StartError { listen, source });
            }
        }
        let Ok(current) = Arc::clone(&self.current).downcast::<Current<H>>() else { return told };
        for _ in 0..self.closed.len() {
            let (place, port) = self.closed[0].clone();
            let is_open = match &place {
                Listen::Tcp(Side::Ours, ..) => bind(ours, &place, limits.backlog).await.map(|bound| {
                    bound.into_iter().for_each(|(place, _, bound)| self.accept(place, port, bound, &current));
                }),
                Listen::Tcp(Side::Kernel, ..) => {
                    bind(&KernelNetwork, &place, limits.backlog).await.map(|bound| {
                        bound
                            .into_iter()
                            .for_each(|(place, _, bound)| self.accept(place, port, bound, &current));
                    })
                }
                Listen::Unix(path) => SocketFile::bind(path, limits.socket_mode, ours.becomes())
                    .map(|bound| self.accept(place.clone(), port, bound, &current)),
            };
            self.closed.remove(0);
            if let Err(error) = is_open {
                tracing::debug!("still not listening on {place}: {error}");
                self.closed.push((place, port));
            }
        }
        told
    }

    /// Closes the listeners at once, lets the connections go on for `grace` at most, and resets those that are left.
    /// Returns how many.
    pub async fn stop(&mut self, grace: Duration) -> usize {
        let accepting = &mut self.accepting;
        // The listeners are gone when this returns, and their socket files with them.
        let closed = async { while accepting.join_next().await.is_some() {} };
        tokio::join!(self.service.stop(grace), closed).0
    }
}

/// Listens on all ports of a place of a network, and tells which of them each is.
async fn bind<N: Network>(
    network: &N,
    place: &Listen,
    backlog: usize,
) -> io::Result<Vec<(Listen, u16, N::Listener)>> {
    let mut bound = Vec::new();
    for (index, address) in (0..).zip(place.addresses()) {
        let listener = network.listen_with(address, backlog).await?;
        let local = listener.local_addr()?;
        bound.push((at(place.side(), local.ip(), local.port()), index, listener));
    }
    Ok(bound)
}

fn at(side: Side, ip: IpAddr, port: u16) -> Listen {
    Listen::Tcp(side, ip, Ports::one(port))
}
