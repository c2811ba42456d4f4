//! More about interfaces than a stack needs that runs on one: for those who look for what is wrong.
//!
//! Interfaces that can't be used are answered, too.

use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};

use super::{
    InterfaceError, Network, QueueCounts, addresses, ask, default_routes, ethtool,
    features::{self, Features, Offload},
    gateways, links, name_of, names,
    namespace::{self, Namespace},
    own_address, preferred,
};
use crate::wire::MacAddr;

/// What is to be known about an interface of this network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Details {
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// What it is if it is not hardware, in rtnetlink's words: `veth`, `vlan`, `bridge`.
    pub kind: Option<String>,
    /// Whether it has Ethernet frames.
    pub is_ethernet: bool,
    /// Whether it is the loopback.
    pub is_loopback: bool,
    /// Its own hardware address.
    pub mac: Option<MacAddr>,
    /// Bytes of an IP packet that it takes.
    pub mtu: u32,
    /// Whether it is switched on.
    pub is_up: bool,
    /// Whether there is somebody at the other end of the cable.
    pub has_carrier: bool,
    /// Its addresses, those of the kernel's own stack, with their networks.
    pub networks: Vec<Network>,
    /// Whether a default route goes through it.
    pub has_default_route: bool,
    /// The driver, if it says.
    pub driver: Option<String>,
    /// Where on a bus the device is, if it is on one.
    pub bus: Option<String>,
    /// How many queues there are and can be, if the driver says.
    pub queues: Option<QueueCounts>,
    /// Queues that it receives on.
    pub rx_queues: u32,
    /// The queues that received frames are spread over, by the low bits of their hash, if the driver says.
    pub rx_table: Option<Vec<u32>>,
    /// Whether it is known which queue the frames of a flow come to, so that ports can be chosen by it.
    pub has_known_hash: bool,
    /// What the driver does to frames; `None` if the kernel does not tell.
    pub features: Option<Features>,
    /// The interface that it stands on, if it is a VLAN, a macvlan and the like.
    pub lower: Option<Lower>,
    /// The bridge, bond or team that has it, which then gets its frames.
    pub master: Option<String>,
    /// The interfaces that it has, if it is a bridge, bond or team.
    pub members: Vec<String>,
    /// Those that put segments together before it gets them: what it stands on, and what it has, as far as their GRO is on.
    pub gro_below: Vec<String>,
    /// The other end, if it is one of a pair.
    pub peer: Option<PeerDetails>,
}

/// What an interface stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lower {
    /// Its name, if it is in this namespace.
    pub name: Option<String>,
    /// Its driver, likewise.
    pub driver: Option<String>,
    /// The VLAN's number, if the interface is one.
    pub vlan: Option<u16>,
}

/// The other end of a pair, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerDetails {
    /// Its number in its own namespace.
    pub index: u32,
    /// Its name.
    pub name: Option<String>,
    /// Its network namespace, if that is not ours.
    pub namespace: Option<Namespace>,
    /// Whether it is in our namespace.
    pub is_here: bool,
    /// What it does to frames.
    pub features: Option<Features>,
}

/// The interfaces of these names; without any, that of the default route.
///
/// # Errors
/// When there is no such interface, or the kernel does not answer.
pub async fn details(wanted: &[String]) -> Result<Vec<Details>, InterfaceError> {
    describe(|links, routes| {
        let by_name = |name: &String| {
            let found = links.iter().find(|link| name_of(link) == Some(name));
            found.ok_or_else(|| InterfaceError::NotFound { name: name.clone(), known: names(links) })
        };
        if !wanted.is_empty() {
            return wanted.iter().map(by_name).collect();
        }
        let default = preferred(routes);
        let found = links.iter().find(|link| default == Some(link.header.index));
        Ok(vec![found.ok_or_else(|| InterfaceError::NoDefault { known: names(links) })?])
    })
    .await
}

/// All interfaces of this namespace, by their numbers.
///
/// # Errors
/// When the kernel does not answer.
pub async fn all_details() -> Result<Vec<Details>, InterfaceError> {
    describe(|links, _| Ok(links.iter().collect())).await
}

async fn describe<C>(choose: C) -> Result<Vec<Details>, InterfaceError>
where
    C: for<'a> FnOnce(
        &'a [LinkMessage],
        &[super::DefaultRoute],
    ) -> Result<Vec<&'a LinkMessage>, InterfaceError>,
{
    ask(async |handle| {
        let (links, routes) = (links(handle).await?, default_routes(handle).await?);
        let addresses = addresses(handle).await?;
        let chosen = choose(&links, &routes)?;
        let mut all = Vec::with_capacity(chosen.len());
        for link in chosen {
            let mut details = of_link(link, &links);
            let here = addresses.iter().filter(|message| message.header.index == link.header.index);
            details.networks = here
                .filter_map(|message| {
                    let prefix_len = message.header.prefix_len;
                    own_address(message).map(|address| Network { address, prefix_len })
                })
                .collect();
            details.has_default_route = !gateways(&routes, link.header.index).is_empty();
            if let Some(peer) = &mut details.peer {
                find_peer(peer, link, handle).await;
            }
            all.push(details);
        }
        Ok(all)
    })
    .await
}

/// What the message tells, and the driver.
fn of_link(link: &LinkMessage, links: &[LinkMessage]) -> Details {
    let name = name_of(link).unwrap_or_default().to_owned();
    let index = link.header.index;
    let named = |index: u32| links.iter().find(|link| link.header.index == index).and_then(name_of);
    let attribute = |find: fn(&LinkAttribute) -> Option<u32>| link.attributes.iter().find_map(find);
    let (mut kind, mut vlan) = (None, None);
    for info in link.attributes.iter().filter_map(infos).flatten() {
        match info {
            LinkInfo::Kind(of) => kind = Some(of.to_string()),
            LinkInfo::Data(data) => vlan = vlan.or_else(|| vlan_of(data)),
            _ => {}
        }
    }
    let is_elsewhere = netns_id(link).is_some();
    let linked = attribute(|attribute| match attribute {
        LinkAttribute::Link(index) => Some(*index),
        _ => None,
    })
    // Numbers are of a namespace: the other end may have ours in its own.
    .filter(|&linked| linked != 0 && (is_elsewhere || linked != index));
    let is_pair = matches!(kind.as_deref(), Some("veth" | "netkit"));
    let linked_name = linked.filter(|_| !is_elsewhere).and_then(named).map(str::to_owned);
    let peer = linked.filter(|_| is_pair).map(|index| PeerDetails {
        index,
        features: linked_name.as_deref().and_then(features::of),
        name: linked_name.clone(),
        namespace: None,
        is_here: !is_elsewhere,
    });
    let lower = linked.filter(|_| !is_pair).map(|_| Lower {
        driver: linked_name.as_deref().and_then(ethtool::driver),
        name: linked_name.clone(),
        vlan,
    });
    let controller = |link: &LinkMessage| {
        link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Controller(index) => Some(*index),
            _ => None,
        })
    };
    let members: Vec<String> = links
        .iter()
        .filter(|other| controller(other) == Some(index))
        .filter_map(name_of)
        .map(str::to_owned)
        .collect();
    let has_gro = |name: &&String| features::of(name).is_some_and(|features| features.is_on(Offload::Gro));
    let below = lower.iter().filter_map(|lower| lower.name.as_ref()).chain(&members);
    let gro_below = below.filter(has_gro).cloned().collect();
    let (driver, bus) =
        ethtool::driver_and_bus(&name).map_or((None, None), |(driver, bus)| (Some(driver), bus));
    Details {
        index,
        kind,
        is_ethernet: link.header.link_layer_type == LinkLayerType::Ether,
        is_loopback: link.header.flags.contains(LinkFlags::Loopback),
        mac: link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Address(bytes) => <[u8; 6]>::try_from(&bytes[..]).ok().map(MacAddr),
            _ => None,
        }),
        mtu: attribute(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        })
        .unwrap_or_default(),
        is_up: link.header.flags.contains(LinkFlags::Up),
        has_carrier: link.header.flags.contains(LinkFlags::LowerUp),
        networks: Vec::new(),
        has_default_route: false,
        driver,
        bus,
        queues: ethtool::channels(&name),
        rx_queues: ethtool::rx_queues(&name, index),
        rx_table: ethtool::rx_table(&name),
        has_known_hash: ethtool::rx_hash(&name).is_some(),
        features: features::of(&name),
        lower,
        master: controller(link).and_then(named).map(str::to_owned),
        members,
        gro_below,
        peer,
        name,
    }
}

fn infos(attribute: &LinkAttribute) -> Option<&Vec<LinkInfo>> {
    match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    }
}

fn vlan_of(data: &rtnetlink::packet_route::link::InfoData) -> Option<u16> {
    use rtnetlink::packet_route::link::{InfoData, InfoVlan};
    let InfoData::Vlan(infos) = data else { return None };
    infos.iter().find_map(|info| match info {
        InfoVlan::Id(id) => Some(*id),
        _ => None,
    })
}

/// The number by which our namespace knows that of what the interface is linked to, if that is another one.
fn netns_id(link: &LinkMessage) -> Option<i32> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkNetNsId(id) => Some(*id),
        _ => None,
    })
}

/// Finds out where the other end is that is not here, and what it does to frames. Only root may look.
async fn find_peer(peer: &mut PeerDetails, link: &LinkMessage, handle: &rtnetlink::Handle) {
    let Some(id) = netns_id(link).filter(|&id| id >= 0) else { return };
    let Some(namespace) = namespace::find(id, handle).await else { return };
    let index = peer.index;
    let seen = namespace.inside(move || {
        let name = nix::net::if_::if_indextoname(index).ok()?.into_string().ok()?;
        let features = features::of(&name);
        Some((name, features))
    });
    if let Ok(Some((name, features))) = seen {
        (peer.name, peer.features) = (Some(name), features);
    }
    peer.namespace = Some(namespace);
}
