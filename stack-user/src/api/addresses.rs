//! Claiming addresses, and giving them up, while the stack runs.

use std::{
    future::poll_fn,
    net::{IpAddr, Ipv4Addr},
    task::Poll,
};

use futures_util::future::join_all;

use super::{AddressChoice, Stack, StartError};
use crate::{
    device::{
        interface::{self, Interface},
        xdp::program::ProgramError,
    },
    net::{
        acd::Schedule,
        candidates::Candidates,
        route::{Prefix, Route},
        routes::Reach,
    },
    rng::Rng,
    stack::{AddressEvent, ClaimError},
    telemetry::STORY,
    time::Duration,
};

/// Where addresses are claimed, and how.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    /// None over a device that is no interface of this host.
    pub(super) interface: Option<Interface>,
    /// The router that was named.
    pub(super) gateway: Option<Ipv4Addr>,
    pub(super) vlan: Option<u16>,
    pub(super) schedule: Schedule,
}

/// An address that is to be claimed.
#[derive(Debug)]
pub(super) struct Wish {
    network: Network,
    /// The addresses to try, in order: one if it was given.
    candidates: Vec<Ipv4Addr>,
    is_given: bool,
}

/// What the address is to be part of.
#[derive(Clone, Copy, Debug)]
struct Network {
    prefix: Prefix,
    gateway: Option<Ipv4Addr>,
    mtu: u16,
}

/// Claims that are withdrawn when this is dropped, unless all went well.
#[derive(Debug)]
struct Withdrawal<'a> {
    stack: &'a Stack,
    /// With the number of the claim.
    address: Option<(IpAddr, u64)>,
}

impl Place {
    /// What is to be claimed, by what was chosen and what the interface has. A router that was named must be on the network
    /// of the only address, and is that of those of several addresses whose network it is on.
    pub(super) async fn wish(
        &self,
        choice: AddressChoice,
        is_only: bool,
        interface: &Interface,
        rng: &mut Rng,
    ) -> Result<Wish, StartError> {
        let gateway = self.gateway.or_else(|| interface.ipv4_gateway());
        let mtu = u16::try_from(interface.mtu).unwrap_or(u16::MAX);
        let prefix = match choice {
            AddressChoice::Auto => {
                let (address, length) = interface.ipv4_network()?;
                Prefix::new(address.into(), length)?
            }
            AddressChoice::Given { address, prefix_len: Some(length) } => {
                Prefix::new(address.into(), length)?
            }
            AddressChoice::Given { address, prefix_len: None } => network_of(address, interface)?,
        };
        // The interface's own gateway is of no use on another network.
        let is_named = self.gateway.is_some() && (is_only || prefix.length() == 32);
        let gateway = gateway.filter(|&gateway| is_named || prefix.contains(gateway.into()));
        if let AddressChoice::Given { address, .. } = choice {
            Route::new(address.into(), prefix, gateway.map(IpAddr::V4), mtu)?;
            if let Some(interface) = interface::owner_of(address.into()).await? {
                return Err(StartError::OwnAddress { address, interface });
            }
        }
        let own = interface.networks.iter().map(|network| network.address);
        Ok(Wish::new(choice, Network { prefix, gateway, mtu }, own.collect(), rng))
    }
}

impl Wish {
    fn new(choice: AddressChoice, network: Network, mut in_use: Vec<IpAddr>, rng: &mut Rng) -> Self {
        let (candidates, is_given) = match choice {
            AddressChoice::Given { address, .. } => (vec![address], true),
            AddressChoice::Auto => {
                in_use.extend(network.gateway.map(IpAddr::V4));
                (Candidates::new(network.prefix, &in_use, rng.fork()).collect(), false)
            }
        };
        Self { network, candidates, is_given }
    }
}

impl Stack {
    /// The claimed addresses, in the order in which they were asked for.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.shard().with(|core, _| core.stack.addresses().collect())
    }

    /// How a new connection reaches a destination: of several stacks, the one with the greatest is the one to take.
    pub fn reach(&self, destination: IpAddr) -> Reach {
        self.shard().with(|core, _| core.stack.routes().reach(destination))
    }

    /// How every claim stands, in that order.
    pub fn address_states(&self) -> Vec<(IpAddr, AddressEvent)> {
        self.shard().with(|core, _| core.stack.address_states().collect())
    }

    /// Claims another address, beside those that there are, and returns it when it is ours. One that is being
    /// [released](Self::release) is kept instead, as long as its connections have not been reset.
    ///
    /// Cancel safe: dropping the future withdraws the claim.
    ///
    /// # Errors
    /// As [`Builder::start`](super::Builder::start), as far as addresses are concerned.
    pub async fn claim(&self, choice: AddressChoice) -> Result<IpAddr, StartError> {
        let mut rng = Rng::from_os().map_err(StartError::Random)?;
        let place = &self.running.place;
        let wish = match &place.interface {
            Some(interface) => {
                // It may have another subnet by now. Whoever has given up its privileges may not be able to ask.
                let now = interface::find(Some(&interface.name)).await;
                place.wish(choice, false, now.as_ref().unwrap_or(interface), &mut rng).await?
            }
            None => self.wish_like_others(choice, &mut rng)?,
        };
        let (address, mut withdrawal) = self.claim_one(&wish).await?;
        withdrawal.address = None;
        Ok(address.into())
    }

    /// Gives an address up. Its listeners close, and nothing new begins there; its connections may finish in order, for
    /// `grace` at most, and those that are left are reset. Then its sockets are told, and its frames are the kernel's again.
    /// The others are not disturbed. Returns whether the stack had the address.
    ///
    /// Not cancel safe in one respect: if the future is dropped, the address stays [`Leaving`](AddressEvent::Leaving) until
    /// it is released, or claimed, again.
    ///
    /// # Errors
    /// When the program in the kernel can't be told.
    pub async fn release(&self, address: IpAddr, grace: Duration) -> Result<bool, ProgramError> {
        let shards = &self.running.shards;
        // What the first shard does, the others are told, in this order: done to them from here, it might undo a later claim.
        let number = shards[0].with(|core, now| {
            core.stack.give_up(now, address);
            core.stack.claim_number(address)
        });
        let Some(number) = number else { return Ok(false) };
        let finished = async {
            for shard in shards {
                poll_fn(|cx| {
                    shard.with(|core, _| {
                        if core.running().is_ok() && core.stack.has_unfinished_connections_at(address) {
                            core.waiters.wait_for_changes(cx);
                            return Poll::Pending;
                        }
                        Poll::Ready(())
                    })
                })
                .await;
            }
        };
        let _in_time = tokio::time::timeout(grace, finished).await;
        if !self.release_claim(address, number) {
            // Somebody has claimed it again meanwhile.
            return Ok(true);
        }
        for shard in shards {
            poll_fn(|cx| {
                shard.with(|core, _| {
                    let state = core.stack.address_state(address);
                    if core.running().is_ok() && state == Some(AddressEvent::Leaving) {
                        core.waiters.wait_for_changes(cx);
                        return Poll::Pending;
                    }
                    Poll::Ready(())
                })
            })
            .await;
        }
        self.unsteer(address, number)?;
        Ok(true)
    }

    /// Has an address released unless it was claimed again since. Whether it was not.
    fn release_claim(&self, address: IpAddr, number: u64) -> bool {
        self.running.shards[0].with(|core, now| {
            let is_same = core.stack.claim_number(address) == Some(number);
            if is_same {
                core.stack.release(now, address);
            }
            is_same
        })
    }

    /// Gives the frames of an address back to the kernel, unless it was claimed again since.
    fn unsteer(&self, address: IpAddr, number: u64) -> Result<(), ProgramError> {
        let mut program = self.program();
        let Some(program) = program.as_mut() else { return Ok(()) };
        let claimed = self.running.shards[0].with(|core, _| core.stack.claim_number(address));
        match claimed {
            Some(again) if again != number => Ok(()),
            _ => program.unclaim(address, self.running.place.vlan.unwrap_or(0)),
        }
    }

    /// Claims all at the same time, so that many take no longer than one. If one can't be had, none is.
    pub(super) async fn claim_all(&self, wishes: Vec<Wish>) -> Result<Vec<Ipv4Addr>, StartError> {
        let claims = join_all(wishes.iter().map(|wish| self.claim_one(wish))).await;
        let mut claims = claims.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(claims
            .iter_mut()
            .map(|(address, withdrawal)| {
                withdrawal.address = None;
                *address
            })
            .collect())
    }

    /// Claims the first of the candidates that nobody has.
    async fn claim_one(&self, wish: &Wish) -> Result<(Ipv4Addr, Withdrawal<'_>), StartError> {
        for &address in &wish.candidates {
            let number = match self.start_claim(address, wish.network)? {
                Ok(number) => number,
                // Another claim was quicker.
                Err(ClaimError::Again(_)) if !wish.is_given => continue,
                Err(error) => return Err(error.into()),
            };
            let withdrawal = Withdrawal { stack: self, address: Some((address.into(), number)) };
            match self.decided(address.into()).await? {
                AddressEvent::Refused { mac } | AddressEvent::Lost { mac } => {
                    if wish.is_given {
                        return Err(StartError::AddressInUse { address, mac });
                    }
                    tracing::info!(target: STORY, "{address} is in use by {mac}");
                }
                AddressEvent::Probing | AddressEvent::Claimed | AddressEvent::Leaving => {
                    return Ok((address, withdrawal));
                }
            }
        }
        Err(StartError::NoFreeAddress { prefix: wish.network.prefix, tried: wish.candidates.len() })
    }

    /// Has the frames of an address sent to us and begins to claim it, before anybody can take them away again. Returns the
    /// number of the claim.
    fn start_claim(
        &self,
        address: Ipv4Addr,
        network: Network,
    ) -> Result<Result<u64, ClaimError>, ProgramError> {
        let place = &self.running.place;
        let (ip, vlan) = (IpAddr::V4(address), place.vlan.unwrap_or(0));
        let Network { prefix, gateway, mtu } = network;
        let mut program = self.program();
        if let Some(program) = program.as_mut() {
            program.claim(ip, vlan, &[])?;
        }
        tracing::info!(target: STORY, "asking whether anybody has {address}");
        let started = self.running.shards[0].with(|core, now| {
            core.stack.claim(now, address, prefix, gateway, mtu, place.schedule)?;
            Ok(core.stack.claim_number(ip).unwrap_or_default())
        });
        if let Err(error) = &started
            && !matches!(error, ClaimError::Again(_))
            && let Some(program) = program.as_mut()
        {
            program.unclaim(ip, vlan)?;
        }
        Ok(started)
    }

    /// Waits until the claim of an address is decided.
    async fn decided(&self, address: IpAddr) -> Result<AddressEvent, StartError> {
        let decided = poll_fn(|cx| {
            self.shard().with(|core, _| {
                if let Err(stopped) = core.running() {
                    return Poll::Ready(Err(StartError::Stopped(stopped.into())));
                }
                match core.stack.address_state(address) {
                    Some(AddressEvent::Probing) => {
                        core.waiters.wait_for_changes(cx);
                        Poll::Pending
                    }
                    Some(state) => Poll::Ready(Ok(state)),
                    None => Poll::Ready(Err(StartError::Withdrawn { address })),
                }
            })
        });
        decided.await
    }

    /// Over a device that is no interface of this host, the networks are those of the addresses that there are.
    fn wish_like_others(&self, choice: AddressChoice, rng: &mut Rng) -> Result<Wish, StartError> {
        let routes = self.shard().with(|core, _| core.stack.routes().clone());
        let like = match choice {
            AddressChoice::Auto => routes.first(),
            AddressChoice::Given { address, .. } => {
                routes.iter().find(|route| route.prefix().contains(address.into())).or(routes.first())
            }
        };
        let (mtu, gateway) = (like.map_or(1_500, Route::mtu), like.and_then(Route::gateway));
        let prefix = match choice {
            AddressChoice::Given { address, prefix_len: Some(length) } => {
                Prefix::new(address.into(), length)?
            }
            AddressChoice::Given { address, prefix_len: None } => {
                let known = like.map(Route::prefix).filter(|prefix| prefix.contains(address.into()));
                known.ok_or(StartError::OutsideNetworks {
                    address,
                    interface: "the device".to_owned(),
                    networks: "those of its claimed addresses".to_owned(),
                })?
            }
            AddressChoice::Auto => like.map(Route::prefix).ok_or(StartError::NoNetwork)?,
        };
        let gateway = gateway.and_then(|gateway| match gateway {
            IpAddr::V4(gateway) if prefix.contains(gateway.into()) => Some(gateway),
            _ => None,
        });
        let own = routes.iter().map(Route::address).collect();
        Ok(Wish::new(choice, Network { prefix, gateway, mtu }, own, rng))
    }
}

impl Drop for Withdrawal<'_> {
    fn drop(&mut self) {
        if let Some((address, number)) = self.address.take()
            && self.stack.release_claim(address, number)
        {
            // There is nobody left to tell of a failure, and a claim that no stack answers for does no harm.
            let _told = self.stack.unsteer(address, number);
        }
    }
}

/// The interface's network that `address` is in.
fn network_of(address: Ipv4Addr, interface: &Interface) -> Result<Prefix, StartError> {
    let mut prefixes = interface
        .networks
        .iter()
        .filter(|network| network.address.is_ipv4())
        .filter_map(|network| Prefix::new(network.address, network.prefix_len).ok());
    if let Some(prefix) = prefixes.find(|prefix| prefix.contains(address.into())) {
        return Ok(prefix);
    }
    interface.ipv4_network()?;
    let networks: Vec<_> = interface.networks.iter().map(ToString::to_string).collect();
    let (interface, networks) = (interface.name.clone(), networks.join(", "));
    Err(StartError::OutsideNetworks { address, interface, networks })
}
