//! What is known of drivers that they do not tell themselves: the part of docs/drivers.md that messages speak of.

/// A driver.
#[derive(Debug, PartialEq, Eq)]
pub struct Driver {
    /// As `ethtool -i` names it.
    pub name: &'static str,
    /// The first kernel with native XDP, if there is one: for those that do not tell.
    pub native: Option<(u32, u32)>,
    /// Likewise for zero-copy.
    pub zero_copy: Option<(u32, u32)>,
    /// The largest MTU in native mode where a frame must lie in one buffer, if there is such a limit.
    pub mtu_max: Option<u32>,
    /// Which networks it is usually on.
    pub place: Place,
    /// What it does that surprises.
    pub trap: Option<&'static str>,
}

/// The network that a driver says one is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Any.
    Anywhere,
    /// Amazon's cloud.
    Aws,
    /// Google's.
    GoogleCloud,
    /// Microsoft's, or its hypervisor.
    HyperV,
    /// A guest of VMware's hypervisor.
    VMware,
    /// A guest of any hypervisor.
    Guest,
}

/// What is known of a driver.
pub fn find(name: &str) -> Option<&'static Driver> {
    DRIVERS.iter().find(|driver| driver.name == name)
}

macro_rules! driver {
    ($name:literal, $native:expr, $zero_copy:expr, $mtu_max:expr, $place:ident, $trap:expr) => {
        Driver {
            name: $name,
            native: $native,
            zero_copy: $zero_copy,
            mtu_max: $mtu_max,
            place: Place::$place,
            trap: $trap,
        }
    };
}

#[rustfmt::skip] // A table: one driver a line.
const DRIVERS: &[Driver] = &[
    //      driver          native XDP      zero-copy       MTU         where           what surprises
    driver!("virtio_net",   Some((4, 10)),  Some((6, 13)),  Some(3506), Guest,          Some("attaching may add queues, and receives on them")),
    driver!("veth",         Some((4, 19)),  None,           Some(3520), Anywhere,       None),
    driver!("igb",          Some((5, 10)),  Some((6, 14)),  Some(3046), Anywhere,       Some("binding a queue takes the link down for a second or two")),
    driver!("igc",          Some((5, 13)),  Some((5, 14)),  Some(1500), Anywhere,       None),
    driver!("ixgbe",        Some((4, 12)),  Some((4, 20)),  Some(3050), Anywhere,       Some("attaching the first program resets the card")),
    driver!("i40e",         Some((4, 13)),  Some((4, 20)),  Some(3046), Anywhere,       Some("attaching the first program resets the card")),
    driver!("ice",          Some((5, 5)),   Some((5, 5)),   Some(3046), Anywhere,       None),
    driver!("mlx5_core",    Some((4, 9)),   Some((5, 3)),   Some(3498), Anywhere,       Some("older kernels have the AF_XDP queues in the upper half of the queue numbers")),
    driver!("mlx4_en",      Some((4, 8)),   None,           Some(3498), Anywhere,       None),
    driver!("bnxt_en",      Some((4, 11)),  None,           Some(3502), Anywhere,       None),
    driver!("ena",          Some((5, 6)),   None,           Some(3498), Aws,            Some("native XDP takes half of the queues: more than half of the maximum, and attaching is refused")),
    driver!("gve",          Some((6, 4)),   Some((6, 4)),   Some(2032), GoogleCloud,    Some("native XDP takes half of the queues: more than half of the maximum, and attaching is refused")),
    driver!("hv_netvsc",    Some((5, 6)),   None,           Some(3506), HyperV,         Some("LRO has to be off for native XDP")),
    driver!("mana",         Some((5, 17)),  None,           Some(3506), HyperV,         None),
    driver!("vmxnet3",      Some((6, 6)),   None,           Some(3494), VMware,         Some("LRO has to be off for native XDP")),
    driver!("stmmac",       Some((5, 13)),  Some((5, 13)),  Some(1500), Anywhere,       None),
    driver!("tun",          Some((4, 14)),  None,           Some(1500),   Anywhere,       None),
    driver!("bonding",      Some((5, 15)),  None,           None,       Anywhere,       None),
    driver!("e1000e",       None,           None,           None,       Anywhere,       None),
    driver!("e1000",        None,           None,           None,       Guest,          None),
    driver!("r8169",        None,           None,           None,       Anywhere,       None),
    driver!("bridge",       None,           None,           None,       Anywhere,       None),
    driver!("802.1Q VLAN Support", None,    None,           None,       Anywhere,       None),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_driver_is_in_the_table_of_the_docs() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/drivers.md");
        let docs = std::fs::read_to_string(path).expect("docs/drivers.md");
        for driver in DRIVERS.iter().filter(|driver| driver.name != "802.1Q VLAN Support") {
            assert!(docs.contains(&format!("| `{}`", driver.name)), "{} is not there", driver.name);
        }
    }

    #[test]
    fn zero_copy_came_no_earlier_than_native() {
        for driver in DRIVERS {
            assert!(driver.zero_copy.is_none() || driver.zero_copy >= driver.native, "{driver:?}");
        }
    }
}
