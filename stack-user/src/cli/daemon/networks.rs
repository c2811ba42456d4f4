//! The configuration's networks: one `[network]`, or as many `[[network]]` as there are interfaces.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use toml::Spanned;

use super::{
    config::{Text, fill, fill_default},
    position::{ConfigError, Source},
};
use crate::{
    api::{AddressChoice, ProgramChoice},
    cli::global::{AcdSchedule, BUSY_POLL_MAX, GlobalOptions},
    device::xdp::{HugePages, Mode, RingSize},
};

/// One network or more, in the order of preference.
#[derive(Clone, Debug, PartialEq)]
pub struct Networks(Vec<Spanned<Network>>);

/// As the options of the same names.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Network {
    /// The interface's name.
    pub interface: Option<Spanned<String>>,
    /// The addresses to claim.
    pub addresses: Vec<Spanned<Text<AddressChoice>>>,
    /// The router.
    pub gateway: Option<Ipv4Addr>,
    /// The name servers.
    pub dns: Vec<IpAddr>,
    /// How to drive the interface.
    pub mode: Option<Text<Mode>>,
    /// The one queue to bind.
    pub queue: Option<u32>,
    /// Microseconds that the driver is polled for before interrupts are waited for.
    pub busy_poll: Option<Spanned<u32>>,
    /// Descriptors in each ring.
    #[serde(deserialize_with = "ring_size")]
    pub ring_size: Option<RingSize>,
    /// Whether frames lie on huge pages.
    pub huge_pages: Option<Text<HugePages>>,
    /// The VLAN of the addresses.
    pub vlan: Option<Spanned<u16>>,
    /// A program that is attached already.
    pub program: Option<Text<ProgramChoice>>,
    /// How long addresses are probed.
    pub acd: Option<AcdSchedule>,
}

/// What a reload changes about the addresses of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// Which are to be claimed.
    pub come: Vec<AddressChoice>,
    /// Which are given up.
    pub go: Vec<Ipv4Addr>,
}

impl Default for Networks {
    fn default() -> Self {
        Self(vec![Spanned::new(0..0, Network::default())])
    }
}

impl<'de> Deserialize<'de> for Networks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrSeveral;

        impl<'de> Visitor<'de> for OneOrSeveral {
            type Value = Networks;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table [network], or several [[network]]")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Networks, A::Error> {
                let only = Network::deserialize(MapAccessDeserializer::new(map))?;
                // Where it begins is told of several only.
                Ok(Networks(vec![Spanned::new(0..0, only)]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut tables: A) -> Result<Networks, A::Error> {
                let mut networks = Vec::new();
                while let Some(network) = tables.next_element()? {
                    networks.push(network);
                }
                if networks.is_empty() {
                    return Err(A::Error::custom(
                        "there is no network in it: leave it out for the default one",
                    ));
                }
                Ok(Networks(networks))
            }
        }

        deserializer.deserialize_any(OneOrSeveral)
    }
}

impl Networks {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Network> {
        self.0.iter().map(Spanned::get_ref)
    }

    /// How many, one at least.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// What no single value shows.
    pub(super) fn check(&self, source: &Source<'_>) -> Result<(), ConfigError> {
        for vlan in self.iter().filter_map(|network| network.vlan.as_ref()) {
            if !(1..=4094).contains(vlan.get_ref()) {
                return Err(source.at(vlan.span(), format!("{} is no VLAN: 1 to 4094", vlan.get_ref())));
            }
        }
        for micros in self.iter().filter_map(|network| network.busy_poll.as_ref()) {
            if !(1..=BUSY_POLL_MAX).contains(micros.get_ref()) {
                let text = format!(
                    "{} is no time to poll for: 1 to {BUSY_POLL_MAX} (microseconds)",
                    micros.get_ref()
                );
                return Err(source.at(micros.span(), text));
            }
        }
        self.check_interfaces(source)?;
        self.check_addresses(source)
    }

    /// Each of several has an interface, and one of its own: there is one XDP program on each.
    fn check_interfaces(&self, source: &Source<'_>) -> Result<(), ConfigError> {
        if self.count() == 1 {
            return Ok(());
        }
        let mut before: Vec<&Spanned<String>> = Vec::new();
        for network in &self.0 {
            let Some(interface) = &network.get_ref().interface else {
                let text = "where there are several networks, each says its interface".to_owned();
                return Err(source.at(network.span(), text));
            };
            let name = interface.get_ref();
            if let Some(first) = before.iter().find(|other| other.get_ref() == name) {
                let line = source.line(first.span());
                let text =
                    format!("{name} has a network already, in line {line}: name all its addresses there");
                return Err(source.at(interface.span(), text));
            }
            before.push(interface);
        }
        Ok(())
    }

    fn check_addresses(&self, source: &Source<'_>) -> Result<(), ConfigError> {
        let mut before = Vec::new();
        for address in self.iter().flat_map(|network| &network.addresses) {
            let Some(ip) = named(address) else { continue };
            if let Some((_, span)) = before.iter().find(|(other, _)| *other == ip) {
                let line = source.line(std::ops::Range::clone(span));
                return Err(source.at(address.span(), format!("{ip} is listed twice, first in line {line}")));
            }
            before.push((ip, address.span()));
        }
        Ok(())
    }

    /// Whether an address can be listened on, as far as it is known which there will be.
    pub fn hold(&self, ip: IpAddr) -> bool {
        let fits = |network: &Network| {
            let mut addresses = network.addresses.iter().map(named);
            network.addresses.is_empty()
                || addresses.any(|address| address.is_none_or(|address| IpAddr::V4(address) == ip))
        };
        ip.is_unspecified() || self.iter().any(fits)
    }

    /// What is to change about the addresses, for each of these networks in their order. What takes a restart is left out: an
    /// interface more or less, and addresses that are ours to choose.
    pub fn moves(&self, new: &Self) -> Vec<Moves> {
        let moves = |old: &Network| match new.on(old.interface.as_ref()) {
            Some(new) => Moves { come: old.comers(new), go: new.comers(old).iter().filter_map(ip).collect() },
            None => Moves::default(),
        };
        self.iter().map(moves).collect()
    }

    fn on(&self, interface: Option<&Spanned<String>>) -> Option<&Network> {
        self.iter().find(|network| network.interface.as_ref() == interface)
    }

    /// Forgets an address, so that the next reload finds it new.
    pub fn forget(&mut self, unwanted: AddressChoice) {
        for network in &mut self.0 {
            network.get_mut().addresses.retain(|choice| choice.get_ref().0 != unwanted);
        }
    }

    /// These, with the addresses of the new ones.
    #[must_use]
    pub(super) fn with_addresses_of(mut self, new: &Self) -> Self {
        for network in &mut self.0 {
            let network = network.get_mut();
            if let Some(new) = new.on(network.interface.as_ref()) {
                network.addresses.clone_from(&new.addresses);
            }
        }
        self
    }

    /// Whether anything but named addresses is different.
    pub(super) fn differ_in_more_than_addresses(&self, new: &Self) -> bool {
        !self.iter().map(Network::fixed).eq(new.iter().map(Network::fixed))
    }
}

impl Network {
    /// The options as they are given, and where they are not, what this says.
    pub(super) fn fill(&self, options: &mut GlobalOptions) {
        let Self {
            interface,
            addresses,
            gateway,
            dns,
            mode,
            queue,
            ring_size,
            huge_pages,
            busy_poll,
            vlan,
            program,
            acd,
        } = self;
        fill(&mut options.interface, interface.as_ref().map(|name| name.get_ref().clone()));
        if options.address.is_empty() {
            options.address = addresses.iter().map(|address| address.get_ref().0).collect();
        }
        fill(&mut options.gateway, *gateway);
        fill(&mut options.queue, *queue);
        fill(&mut options.busy_poll, busy_poll.as_ref().map(|micros| *micros.get_ref()));
        fill(&mut options.ring_size, *ring_size);
        fill(&mut options.vlan, vlan.as_ref().map(|vlan| *vlan.get_ref()));
        fill(&mut options.program, program.as_ref().map(|program| program.0.clone()));
        if options.dns.is_empty() {
            options.dns.clone_from(dns);
        }
        fill_default(&mut options.mode, mode.as_ref().map(|mode| mode.0));
        fill_default(&mut options.huge_pages, huge_pages.as_ref().map(|wish| wish.0));
        fill_default(&mut options.acd, *acd);
    }

    /// The named addresses that `new` has, and this has not.
    fn comers(&self, new: &Self) -> Vec<AddressChoice> {
        let ours: Vec<_> = self.addresses.iter().filter_map(named).collect();
        let comes =
            |choice: &&Spanned<Text<AddressChoice>>| named(choice).is_some_and(|ip| !ours.contains(&ip));
        new.addresses.iter().filter(comes).map(|choice| choice.get_ref().0).collect()
    }

    /// The network but for its addresses, and how many of those are ours to choose.
    fn fixed(&self) -> (Self, usize) {
        let chosen = self.addresses.iter().filter(|choice| named(choice).is_none()).count();
        (Self { addresses: Vec::new(), ..self.clone() }, chosen)
    }
}

fn ring_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<RingSize>, D::Error> {
    RingSize::new(u32::deserialize(deserializer)?).map(Some).map_err(D::Error::custom)
}

/// Its address, unless that is ours to choose.
fn named(choice: &Spanned<Text<AddressChoice>>) -> Option<Ipv4Addr> {
    ip(&choice.get_ref().0)
}

fn ip(choice: &AddressChoice) -> Option<Ipv4Addr> {
    match choice {
        AddressChoice::Given { address, .. } => Some(*address),
        AddressChoice::Auto => None,
    }
}
