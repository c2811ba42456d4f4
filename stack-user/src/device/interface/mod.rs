//! What there is to know about a network interface, asked of the kernel by rtnetlink, ethtool and the `netdev` family.
//!
//! All of it is of the network namespace that the calling thread is in.

mod details;
pub mod drivers;
pub(super) mod ethtool;
pub mod features;
mod genetlink;
pub mod namespace;
pub mod netdev;
mod watch;

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    pin::pin,
    time::Duration,
};

use futures_util::TryStreamExt;
use rtnetlink::{
    Handle, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::{
        address::{AddressAttribute, AddressMessage},
        link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage},
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
    },
};

pub use details::{Details, Lower, PeerDetails, all_details, details};
pub use genetlink::GenetlinkError;
pub use watch::{Happening, Watch};

use self::{
    features::Offload,
    namespace::Namespace,
    netdev::{Direction, Netdev},
};
use super::remedy::{Change, up};
use crate::wire::MacAddr;

/// Between two looks for a carrier. Lower costs wake-ups, higher delays a start by as much.
const CARRIER_POLL: Duration = Duration::from_millis(20);

/// An Ethernet interface that is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its number in this namespace.
    pub index: u32,
    /// Its own hardware address.
    pub mac: MacAddr,
    /// Bytes of an IP packet that it takes.
    pub mtu: u32,
    /// Whether there is somebody at the other end of the cable.
    pub has_carrier: bool,
    /// Its addresses, those of the kernel's own stack, with their networks.
    pub networks: Vec<Network>,
    /// The next hops of the default routes through it, the preferred one first.
    pub gateways: Vec<IpAddr>,
    /// Queues that it receives on.
    pub rx_queues: u32,
    /// The driver, if it says.
    pub driver: Option<String>,
    /// The other end of a veth pair.
    pub peer: Option<Peer>,
}

/// The other end of a virtual cable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its number in its own namespace.
    pub index: u32,
    /// Its name, if it is in this namespace.
    pub name: Option<String>,
}

/// How many queues an interface has, and how many it can have: as `ethtool -l` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueCounts {
    /// Those that receive and send.
    pub combined: u32,
    /// Of these, the most that there can be.
    pub max_combined: u32,
    /// Those that receive only.
    pub rx: u32,
    /// Of these, the most that there can be.
    pub max_rx: u32,
}

/// How a NIC chooses the queue of a received segment: by Toeplitz's hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RxHash {
    /// The hash's key.
    pub key: Vec<u8>,
    /// The queues, by the low bits of the hash.
    pub table: Vec<u32>,
}

/// An address and the network that it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// The address of this host.
    pub address: IpAddr,
    /// Bits of the address that all of its network share.
    pub prefix_len: u8,
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

/// An interface that can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InterfaceError {
    /// There is none of that name.
    #[error("there is no interface `{name}` here: there are {}", list(.known))]
    NotFound {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// None was named, and no default route tells which one to use.
    #[error("there is no default route that would tell which interface to use: name one of {} with --interface", list(.known))]
    NoDefault {
        /// What there is.
        known: Vec<String>,
    },
    /// It is not Ethernet.
    #[error("{name} is not an Ethernet interface: AF_XDP and ARP need one")]
    NotEthernet {
        /// The interface.
        name: String,
    },
    /// It is switched off.
    #[error("{name} is down: `{}` first", up(.name))]
    Down {
        /// The interface.
        name: String,
    },
    /// Nobody is at the other end.
    #[error("{name} has no carrier after {waited:?}: plug in the cable, or bring the other end up")]
    NoCarrier {
        /// The interface.
        name: String,
        /// How long we waited.
        waited: Duration,
    },
    /// It has no IPv4 address to derive a network from.
    #[error(
        "{name} has no IPv4 address, so its network is unknown: give --address with a prefix length, as in 192.0.2.10/24"
    )]
    NoAddress {
        /// The interface.
        name: String,
    },
    /// The kernel does not answer.
    #[error("asking the kernel about its interfaces failed: {0}")]
    Netlink(String),
    /// Something that has no name of its own.
    #[error("asking the kernel about its interfaces failed: {0}")]
    Os(#[from] io::Error),
}

/// The interface of that name; without one, that of the default route.
///
/// # Errors
/// When there is none, or it can't be used as it is.
pub async fn find(name: Option<&str>) -> Result<Interface, InterfaceError> {
    ask(async |handle| {
        let links = links(handle).await?;
        let routes = default_routes(handle).await?;
        let link = match name {
            Some(name) => links
                .iter()
                .find(|link| name_of(link) == Some(name))
                .ok_or_else(|| InterfaceError::NotFound { name: name.to_owned(), known: names(&links) })?,
            None => {
                let index =
                    preferred(&routes).ok_or_else(|| InterfaceError::NoDefault { known: names(&links) })?;
                links
                    .iter()
                    .find(|link| link.header.index == index)
                    .ok_or_else(|| InterfaceError::NoDefault { known: names(&links) })?
            }
        };
        let addresses = addresses(handle).await?;
        interface_of(link, &links, &addresses, &routes)
    })
    .await
}

/// Which of the host's interfaces has this address, if any. Such an address is the kernel's: nobody else may claim it.
///
/// # Errors
/// When the kernel does not answer.
pub async fn owner_of(address: IpAddr) -> Result<Option<String>, InterfaceError> {
    ask(async |handle| {
        let addresses = addresses(handle).await?;
        let has_it = |message: &&AddressMessage| own_address(message) == Some(address);
        let Some(index) = addresses.iter().find(has_it).map(|message| message.header.index) else {
            return Ok(None);
        };
        let links = links(handle).await?;
        let name = links.iter().find(|link| link.header.index == index).and_then(name_of);
        Ok(Some(name.map_or_else(|| index.to_string(), str::to_owned)))
    })
    .await
}

impl Interface {
    /// Waits until there is somebody at the other end: binding AF_XDP sockets makes the link of some NICs flap. Tells if
    /// there is nobody at first, and returns whether it was so.
    ///
    /// # Errors
    /// When there is nobody in time, or the interface is gone.
    pub async fn wait_for_carrier(
        &self,
        timeout: Duration,
        tell: impl FnOnce() + Send,
    ) -> Result<bool, InterfaceError> {
        let mut tell = Some(tell);
        let no_carrier = || InterfaceError::NoCarrier { name: self.name.clone(), waited: timeout };
        let wait = ask(async move |handle| {
            loop {
                let mut found = pin!(handle.link().get().match_index(self.index).execute());
                let link = found.try_next().await.map_err(netlink_error)?.ok_or_else(no_carrier)?;
                if link.header.flags.contains(LinkFlags::LowerUp) {
                    return Ok(tell.is_none());
                }
                if let Some(tell) = tell.take() {
                    tell();
                }
                tokio::time::sleep(CARRIER_POLL).await;
            }
        });
        tokio::time::timeout(timeout, wait).await.unwrap_or_else(|_| Err(no_carrier()))
    }

    /// The first IPv4 address and its network.
    ///
    /// # Errors
    /// When there is no IPv4 address.
    pub fn ipv4_network(&self) -> Result<(Ipv4Addr, u8), InterfaceError> {
        let first = self.networks.iter().find_map(|network| match network.address {
            IpAddr::V4(address) => Some((address, network.prefix_len)),
            IpAddr::V6(_) => None,
        });
        first.ok_or_else(|| InterfaceError::NoAddress { name: self.name.clone() })
    }

    /// The IPv4 default gateway through this interface.
    pub fn ipv4_gateway(&self) -> Option<Ipv4Addr> {
        self.gateways.iter().find_map(|gateway| match gateway {
            IpAddr::V4(gateway) => Some(*gateway),
            IpAddr::V6(_) => None,
        })
    }

    /// The queues to bind: the one that was asked for, or all.
    ///
    /// They are counted afresh: a driver may add some when an XDP program is attached, and receive on them (virtio
    /// does, and tells only the kernel).
    pub fn queues(&self, only: Option<u32>) -> Vec<u32> {
        let all = || (0..rx_queues(&self.name, self.index)).collect();
        only.map_or_else(all, |queue| vec![queue])
    }

    /// How received TCP segments are spread over the queues, if the driver tells and it is by Toeplitz's hash of addresses
    /// and ports.
    pub fn rx_hash(&self) -> Option<RxHash> {
        ethtool::rx_hash(&self.name)
    }

    /// Whether there is no device behind it: then nothing raises an interrupt.
    pub fn is_virtual(&self) -> bool {
        ethtool::driver_and_bus(&self.name).is_none_or(|(_, bus)| bus.is_none())
    }

    /// Its directory in `/sys`, if that is mounted for this network namespace.
    pub fn sysfs(&self) -> Option<PathBuf> {
        ethtool::sysfs(&self.name, self.index)
    }

    /// The queues that received frames are spread over by their hash, whichever it is, if the driver tells.
    pub fn rx_table(&self) -> Option<Vec<u32>> {
        ethtool::rx_table(&self.name)
    }

    /// Descriptors that each of the card's own rings receives into, if the driver tells.
    pub fn rx_ring(&self) -> Option<u32> {
        ethtool::rx_ring(&self.name)
    }

    /// How many rules there are by which some frames go to other queues than their hash says (`ethtool -N`).
    pub fn flow_rules(&self) -> u32 {
        ethtool::flow_rules(&self.name)
    }

    /// Whether the interface takes the VLAN tag off a frame before an XDP program sees it, which then can't tell
    /// which VLAN the frame is of.
    pub fn strips_vlan_tags(&self) -> bool {
        ethtool::strips_vlan_tags(&self.name)
    }

    /// Whether the other end may hand over TCP and UDP with checksums that nobody has finished.
    ///
    /// A veth pair does: the sending kernel leaves the sum to hardware that there is none of. Then checksums are wrong
    /// on arrival, until `ethtool -K PEER tx off` is said at the other end.
    pub fn may_have_partial_checksums(&self) -> bool {
        self.driver.as_deref() == Some("veth")
    }

    /// What to do about partial checksums, if there may be any.
    pub fn partial_checksum_remedy(&self) -> Option<String> {
        self.may_have_partial_checksums().then(|| {
            let name = &self.name;
            match &self.peer {
                Some(Peer { name: Some(peer), .. }) => {
                    let command = finish_checksums(peer, None).command();
                    format!("{peer}, the other end of {name}, leaves them unfinished; say `{command}`")
                }
                Some(Peer { index, name: None }) => format!(
                    "the other end of {name} leaves them unfinished; say `{}` in its network namespace, where PEER is the \
                     interface that `ip link` there lists as number {index}",
                    finish_checksums("PEER", None).command()
                ),
                None => format!(
                    "the other end of {name} leaves them unfinished; say `{}` for that end",
                    finish_checksums("PEER", None).command()
                ),
            }
        })
    }
}

/// Has an interface finish the checksums of what it sends.
pub fn finish_checksums(interface: &str, namespace: Option<Namespace>) -> Change {
    Change::Offload { interface: interface.to_owned(), namespace, offload: Offload::TxChecksum, on: false }
}

/// Has an interface leave VLAN tags in what it receives.
pub fn keep_vlan_tags(interface: &str) -> Change {
    Change::Offload { interface: interface.to_owned(), namespace: None, offload: Offload::RxVlan, on: false }
}

/// Switches an interface on.
///
/// # Errors
/// When there is none of that name, or the kernel refuses.
pub async fn set_up(interface: &str) -> Result<(), InterfaceError> {
    set(LinkUnspec::new_with_name(interface).up().build()).await
}

/// Has an interface take packets of so many bytes.
///
/// # Errors
/// When there is none of that name, or the driver does not take this size.
pub async fn set_mtu(interface: &str, mtu: u32) -> Result<(), InterfaceError> {
    set(LinkUnspec::new_with_name(interface).mtu(mtu).build()).await
}

/// Makes a pair of interfaces, each the other's end.
///
/// # Errors
/// When one of the names is taken, or we may not.
pub async fn add_pair(one: &str, other: &str) -> Result<(), InterfaceError> {
    let pair = LinkVeth::new(one, other).build();
    ask(async |handle| handle.link().add(pair).execute().await.map_err(netlink_error)).await
}

/// Gives an interface an address of the kernel's.
///
/// # Errors
/// When there is no such interface, or it has the address.
pub async fn add_address(interface: &str, address: IpAddr, prefix_len: u8) -> Result<(), InterfaceError> {
    let index = nix::net::if_::if_nametoindex(interface).map_err(io::Error::from)?;
    let added = async |handle: &Handle| handle.address().add(index, address, prefix_len).execute().await;
    ask(async |handle| added(handle).await.map_err(netlink_error)).await
}

async fn set(link: LinkMessage) -> Result<(), InterfaceError> {
    ask(async |handle| handle.link().set(link).execute().await.map_err(netlink_error)).await
}

/// Has an interface receive and send on so many queues.
///
/// # Errors
/// When there is none of that name, or the driver does not take this number.
pub fn set_queues(interface: &str, combined: u32) -> io::Result<()> {
    ethtool::set_combined(interface, combined)
}

fn interface_of(
    link: &LinkMessage,
    links: &[LinkMessage],
    addresses: &[AddressMessage],
    routes: &[DefaultRoute],
) -> Result<Interface, InterfaceError> {
    let name = name_of(link).unwrap_or_default().to_owned();
    let index = link.header.index;
    let mac = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(bytes) => <[u8; 6]>::try_from(&bytes[..]).ok().map(MacAddr),
        _ => None,
    });
    let Some(mac) = mac.filter(|_| link.header.link_layer_type == LinkLayerType::Ether) else {
        return Err(InterfaceError::NotEthernet { name });
    };
    if !link.header.flags.contains(LinkFlags::Up) {
        return Err(InterfaceError::Down { name });
    }
    let mtu = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    });
    let here = addresses.iter().filter(|message| message.header.index == index);
    let networks = here.filter_map(|message| {
        own_address(message).map(|address| Network { address, prefix_len: message.header.prefix_len })
    });
    Ok(Interface {
        mac,
        index,
        mtu: mtu.unwrap_or(1500),
        has_carrier: link.header.flags.contains(LinkFlags::LowerUp),
        networks: networks.collect(),
        gateways: gateways(routes, index),
        rx_queues: rx_queues(&name, index),
        driver: ethtool::driver(&name),
        peer: peer_of(link, links),
        name,
    })
}

/// Queues that the interface receives on; 1 if nobody says.
///
/// What the driver tells and what the kernel has may differ: virtio adds queues when an XDP program is attached, spreads
/// frames over them too, and goes on telling the number that was configured.
fn rx_queues(interface: &str, index: u32) -> u32 {
    let of_kernel = Netdev::find().ok().flatten().and_then(|netdev| netdev.queues(index).ok().flatten());
    let of_kernel = of_kernel.map(|all| all.iter().filter(|one| one.direction == Direction::Rx).count());
    let of_kernel = of_kernel.and_then(|count| u32::try_from(count).ok());
    of_kernel.max(Some(ethtool::rx_queues(interface, index))).unwrap_or(1)
}

fn peer_of(link: &LinkMessage, links: &[LinkMessage]) -> Option<Peer> {
    let index = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Link(index) => Some(*index),
        _ => None,
    })?;
    let is_elsewhere =
        link.attributes.iter().any(|attribute| matches!(attribute, LinkAttribute::LinkNetNsId(_)));
    let here = links.iter().find(|link| link.header.index == index).filter(|_| !is_elsewhere);
    Some(Peer { index, name: here.and_then(name_of).map(str::to_owned) })
}

/// Which way everything goes that has no route of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct DefaultRoute {
    index: u32,
    gateway: Option<IpAddr>,
    is_ipv4: bool,
    /// The lowest is preferred.
    metric: u32,
}

/// The interface of the preferred default route; IPv4's, if there is one.
fn preferred(routes: &[DefaultRoute]) -> Option<u32> {
    routes.iter().min_by_key(|route| (!route.is_ipv4, route.metric)).map(|route| route.index)
}

fn gateways(routes: &[DefaultRoute], index: u32) -> Vec<IpAddr> {
    let mut here: Vec<_> = routes.iter().filter(|route| route.index == index).collect();
    here.sort_by_key(|route| route.metric);
    here.into_iter().filter_map(|route| route.gateway).collect()
}

fn default_route(route: &RouteMessage) -> Option<DefaultRoute> {
    if route.header.destination_prefix_length != 0 || route.header.kind != RouteType::Unicast {
        return None;
    }
    let mut default = DefaultRoute { index: 0, gateway: None, is_ipv4: is_ipv4(route), metric: 0 };
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => default.index = *index,
            RouteAttribute::Priority(metric) => default.metric = *metric,
            RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => default.gateway = Some((*gateway).into()),
            RouteAttribute::Gateway(RouteAddress::Inet6(gateway)) => {
                default.gateway = Some((*gateway).into())
            }
            // Another table is used by rules of its own only.
            RouteAttribute::Table(table) if *table != u32::from(libc::RT_TABLE_MAIN) => return None,
            _ => {}
        }
    }
    (default.index != 0).then_some(default)
}

fn is_ipv4(route: &RouteMessage) -> bool {
    route.header.address_family == rtnetlink::packet_route::AddressFamily::Inet
}

/// The host's own address of an address message: on a point-to-point link the other attribute is the peer's.
fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let any = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    local.or(any)
}

fn name_of(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

fn names(links: &[LinkMessage]) -> Vec<String> {
    links.iter().filter_map(name_of).map(str::to_owned).collect()
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

async fn links(handle: &Handle) -> Result<Vec<LinkMessage>, InterfaceError> {
    handle.link().get().execute().try_collect().await.map_err(netlink_error)
}

async fn addresses(handle: &Handle) -> Result<Vec<AddressMessage>, InterfaceError> {
    handle.address().get().execute().try_collect().await.map_err(netlink_error)
}

async fn default_routes(handle: &Handle) -> Result<Vec<DefaultRoute>, InterfaceError> {
    let all = [
        RouteMessageBuilder::<Ipv4Addr>::new().build(),
        RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
    ];
    let mut defaults = Vec::new();
    for request in all {
        let routes: Vec<RouteMessage> =
            handle.route().get(request).execute().try_collect().await.map_err(netlink_error)?;
        defaults.extend(routes.iter().filter_map(default_route));
    }
    Ok(defaults)
}

fn netlink_error(error: rtnetlink::Error) -> InterfaceError {
    InterfaceError::Netlink(error.to_string())
}

/// Asks over a connection that lives as long as the question.
async fn ask<T, Q>(question: Q) -> Result<T, InterfaceError>
where
    Q: AsyncFnOnce(&Handle) -> Result<T, InterfaceError>,
{
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::select! {
        answer = question(&handle) => answer,
        () = pin!(connection) => Err(InterfaceError::Netlink("the connection ended".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(index: u32, gateway: &str, metric: u32) -> DefaultRoute {
        let gateway: IpAddr = gateway.parse().expect("an address");
        DefaultRoute { index, gateway: Some(gateway), is_ipv4: gateway.is_ipv4(), metric }
    }

    #[test]
    fn the_default_route_of_the_lowest_metric_is_followed_and_ipv4_first() {
        let routes = [
            route(4, "fe80::1", 1),
            route(2, "192.0.2.1", 600),
            route(3, "198.51.100.1", 100),
            route(3, "198.51.100.2", 50),
        ];
        assert_eq!(preferred(&routes), Some(3));
        assert_eq!(preferred(&routes[..1]), Some(4));
        assert_eq!(preferred(&[]), None);
        let through_3: Vec<String> = gateways(&routes, 3).iter().map(IpAddr::to_string).collect();
        assert_eq!(through_3, ["198.51.100.2", "198.51.100.1"]);
    }

    #[test]
    fn the_questions_may_be_asked_from_any_task() {
        fn is_send<T: Send>(_: T) {}
        is_send(find(None));
        is_send(owner_of([127, 0, 0, 1].into()));
    }

    #[tokio::test]
    async fn an_interface_that_is_not_there_is_answered_with_those_that_are() {
        let error = find(Some("xs-none")).await.expect_err("no such interface").to_string();
        assert!(error.contains("`xs-none`") && error.contains("lo"), "{error}");
    }

    #[tokio::test]
    async fn loopback_is_not_ethernet_and_its_address_is_the_host_s() {
        let error = find(Some("lo")).await.expect_err("not Ethernet");
        assert!(matches!(error, InterfaceError::NotEthernet { .. }), "{error}");
        assert_eq!(owner_of([127, 0, 0, 1].into()).await.expect("an answer").as_deref(), Some("lo"));
        assert_eq!(owner_of([192, 0, 2, 77].into()).await.expect("an answer"), None);
    }
}
