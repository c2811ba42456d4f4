//! What only the driver knows, by the ethtool ioctl.

use std::{
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use super::RxHash;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GRINGPARAM: u32 = 0x10;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETHTOOL_SCHANNELS: u32 = 0x3d;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_GRXFH: u32 = 0x29;
const ETHTOOL_GRXCLSRLCNT: u32 = 0x2e;
const ETHTOOL_GRSSH: u32 = 0x46;
/// `TCP_V4_FLOW`.
const TCP_V4: u32 = 1;
/// `RXH_IP_SRC`, `RXH_IP_DST`, `RXH_L4_B_0_1` and `RXH_L4_B_2_3`: both addresses and both ports.
const FOUR_TUPLE: u64 = 0xf << 4;
/// `ETH_RSS_HASH_TOP`; drivers that know no other say nothing.
const TOEPLITZ: u8 = 1;
/// Words of an indirection table and a key that we take. The largest tables that drivers have are a quarter of that.
const RSS_WORDS: usize = 8192;
/// `ETH_FLAG_RXVLAN`: tags are taken off what is received.
const RXVLAN: u32 = 1 << 8;
/// `ETH_FLAG_LRO`: the card puts segments together before anybody sees them.
const LRO: u32 = 1 << 15;

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware: [u8; 32],
    bus: [u8; 32],
    rest: [u8; 64],
}

/// `struct ethtool_channels`. A combined channel receives and sends.
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// `struct ethtool_ringparam`, of which only how many descriptors receive is of interest.
#[repr(C)]
#[derive(Default)]
struct Rings {
    command: u32,
    max: [u32; 4],
    rx: u32,
    others: [u32; 3],
}

/// `struct ethtool_value`.
#[repr(C)]
struct Flags {
    command: u32,
    flags: u32,
}

/// The first members of `struct ethtool_rxnfc`, which are all for this command.
#[repr(C)]
struct HashedFields {
    command: u32,
    flow_type: u32,
    data: u64,
}

/// `struct ethtool_rxnfc`, of which only the number of rules is of interest.
#[repr(C)]
struct FlowRules {
    command: u32,
    flow_type: u32,
    data: u64,
    /// `struct ethtool_rx_flow_spec`.
    spec: [u64; 21],
    count: u32,
    /// The list of rules starts here, for commands that return one.
    padding: u32,
}

/// `struct ethtool_rxfh` with room for what follows it: the table, then the key.
#[repr(C)]
struct FlowHash {
    command: u32,
    rss_context: u32,
    /// Words of the table, and bytes of the key: what is there, and how much of it we want, all or nothing.
    indir_size: u32,
    key_size: u32,
    hfunc: u8,
    input_xfrm: u8,
    reserved: [u8; 6],
    config: [u32; RSS_WORDS],
}

impl FlowHash {
    fn new() -> Box<Self> {
        Box::new(Self {
            command: ETHTOOL_GRSSH,
            rss_context: 0,
            indir_size: 0,
            key_size: 0,
            hfunc: 0,
            input_xfrm: 0,
            reserved: [0; 6],
            config: [0; RSS_WORDS],
        })
    }

    /// As the interface has it; `None` if it has no table, or one that is larger than we take.
    fn of(interface: &str) -> Option<Box<Self>> {
        let mut hash = Self::new();
        // At first the sizes only.
        ask(interface, &mut *hash)?;
        if !hash.has_table() {
            return None;
        }
        ask(interface, &mut *hash)?;
        Some(hash)
    }

    /// Whether there are a table and a key, and they have room.
    fn fits(&self) -> bool {
        self.has_table() && self.key_size > 0
    }

    /// Whether there is a table, and all that follows has room.
    fn has_table(&self) -> bool {
        let words = u64::from(self.indir_size) + u64::from(self.key_size.div_ceil(4));
        self.indir_size > 0 && words <= RSS_WORDS as u64
    }

    /// The table.
    fn table(&self) -> Option<&[u32]> {
        self.config.get(..self.indir_size as usize).filter(|table| !table.is_empty())
    }

    /// The key and the table, if the hash is the one that we know.
    fn read(&self) -> Option<RxHash> {
        let is_known = self.key_size > 0 && matches!(self.hfunc, 0 | TOEPLITZ) && self.input_xfrm == 0;
        if !self.fits() || !is_known {
            return None;
        }
        let (table, rest) = self.config.split_at_checked(self.indir_size as usize)?;
        let key = rest.iter().flat_map(|word| word.to_ne_bytes()).take(self.key_size as usize);
        Some(RxHash { key: key.collect(), table: table.to_vec() })
    }
}

/// A command's structure, which starts with the command's number.
///
/// # Safety
/// The kernel writes no more than the structure has for the command that it starts with.
pub(super) unsafe trait Request {}

// SAFETY: the layouts are the kernel's for the commands that they are sent with below.
unsafe impl Request for DriverInfo {}
// SAFETY: as above.
unsafe impl Request for Channels {}
// SAFETY: as above.
unsafe impl Request for Flags {}
// SAFETY: as above: the kernel takes the short form for this command.
unsafe impl Request for HashedFields {}
// SAFETY: as above.
unsafe impl Request for Rings {}
// SAFETY: as above: the kernel gives this command no list to write.
unsafe impl Request for FlowRules {}
// SAFETY: as above. The kernel writes the table and the key if their sizes are those that it has, which are sent only if
// `has_table` says that there is room for both.
unsafe impl Request for FlowHash {}

/// The driver's name.
pub(in crate::device) fn driver(interface: &str) -> Option<String> {
    driver_and_bus(interface).map(|(driver, _)| driver)
}

/// The driver's name, and where on a bus its device is, if it is on any: a PCI address, for example.
pub(super) fn driver_and_bus(interface: &str) -> Option<(String, Option<String>)> {
    let empty = [0; 32];
    let mut info = DriverInfo {
        command: ETHTOOL_GDRVINFO,
        driver: empty,
        version: empty,
        firmware: empty,
        bus: empty,
        rest: [0; 64],
    };
    ask(interface, &mut info)?;
    let text = |bytes: &[u8]| {
        let name = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
        Some(String::from_utf8_lossy(name).into_owned()).filter(|name| !name.is_empty())
    };
    // What is on no bus says so in many ways.
    let is_on_one = |bus: &String| bus.contains(|c: char| c.is_ascii_digit());
    Some((text(&info.driver)?, text(&info.bus).filter(is_on_one)))
}

/// How many queues there are, and how many there can be; `None` if the driver does not say.
pub(super) fn channels(interface: &str) -> Option<super::QueueCounts> {
    let mut channels = Channels { command: ETHTOOL_GCHANNELS, ..Channels::default() };
    ask(interface, &mut channels)?;
    Some(super::QueueCounts {
        combined: channels.combined,
        max_combined: channels.max_combined,
        rx: channels.rx,
        max_rx: channels.max_rx,
    })
}

/// Sets how many queues receive and send.
pub(super) fn set_combined(interface: &str, combined: u32) -> io::Result<()> {
    let mut channels = Channels { command: ETHTOOL_GCHANNELS, ..Channels::default() };
    tell(interface, &mut channels)?;
    tell(interface, &mut Channels { command: ETHTOOL_SCHANNELS, combined, ..channels })
}

/// Which queues the card spreads what it receives over, whatever hash it does it by: its indirection table.
pub(super) fn rx_table(interface: &str) -> Option<Vec<u32>> {
    FlowHash::of(interface)?.table().map(<[u32]>::to_vec)
}

/// Queues that the interface receives on, by the driver or by `/sys`, whichever says more; 1 if neither says.
pub(super) fn rx_queues(interface: &str, index: u32) -> u32 {
    let told = channels(interface).map(|queues| queues.rx + queues.combined);
    told.max(rx_queues_of_sysfs(interface, index)).unwrap_or(1).max(1)
}

/// Whether VLAN tags are taken off received frames.
pub(super) fn strips_vlan_tags(interface: &str) -> bool {
    has_flag(interface, RXVLAN)
}

/// Whether the card puts received segments together to larger ones.
pub(in crate::device) fn has_lro(interface: &str) -> bool {
    has_flag(interface, LRO)
}

fn has_flag(interface: &str, flag: u32) -> bool {
    let mut flags = Flags { command: ETHTOOL_GFLAGS, flags: 0 };
    ask(interface, &mut flags).is_some_and(|()| flags.flags & flag != 0)
}

/// Descriptors that each of the card's own rings receives into, if the driver tells.
pub(super) fn rx_ring(interface: &str) -> Option<u32> {
    let mut rings = Rings { command: ETHTOOL_GRINGPARAM, ..Rings::default() };
    ask(interface, &mut rings)?;
    Some(rings.rx).filter(|&rx| rx > 0)
}

/// Rules by which some frames go to other queues than the hash says.
pub(super) fn flow_rules(interface: &str) -> u32 {
    let mut rules = FlowRules {
        command: ETHTOOL_GRXCLSRLCNT,
        flow_type: 0,
        data: 0,
        spec: [0; 21],
        count: 0,
        padding: 0,
    };
    ask(interface, &mut rules).map_or(0, |()| rules.count)
}

/// How received TCP segments are spread over the queues, if the driver tells and it is by their four-tuple.
pub(super) fn rx_hash(interface: &str) -> Option<RxHash> {
    let mut fields = HashedFields { command: ETHTOOL_GRXFH, flow_type: TCP_V4, data: 0 };
    // A driver that does not say hashes what all hash.
    if ask(interface, &mut fields).is_some() && fields.data != FOUR_TUPLE {
        return None;
    }
    FlowHash::of(interface)?.read()
}

/// Where `/sys` has it, if it is about this interface: it may be mounted for another network namespace.
pub(super) fn sysfs(interface: &str, index: u32) -> Option<PathBuf> {
    let directory = Path::new("/sys/class/net").join(interface);
    let there: u32 = fs::read_to_string(directory.join("ifindex")).ok()?.trim().parse().ok()?;
    (there == index).then_some(directory)
}

fn rx_queues_of_sysfs(interface: &str, index: u32) -> Option<u32> {
    let queues = fs::read_dir(sysfs(interface, index)?.join("queues")).ok()?;
    let rx = queues.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("rx-"));
    u32::try_from(rx.count()).ok().filter(|&queues| queues > 0)
}

/// Fills in the answer; `None` if the driver gives none.
pub(super) fn ask<R: Request>(interface: &str, request: &mut R) -> Option<()> {
    tell(interface, request).ok()
}

/// The same, with the kernel's word for why not.
pub(super) fn tell<R: Request>(interface: &str, request: &mut R) -> io::Result<()> {
    let socket: OwnedFd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: an all-zero `ifreq` is valid.
    let mut message: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= message.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    message.ifr_name.iter_mut().zip(interface.bytes()).for_each(|(to, from)| *to = from as libc::c_char);
    message.ifr_ifru.ifru_data = (&raw mut *request).cast();
    // SAFETY: `message` names the interface with a zero at the end, and points to a structure that `Request` vouches for.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut message) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_are_as_long_as_the_kernels() {
        assert_eq!(std::mem::offset_of!(FlowHash, config), 24);
        assert_eq!(size_of::<HashedFields>(), 16);
        assert_eq!((size_of::<Rings>(), std::mem::offset_of!(Rings, rx)), (36, 20));
        assert_eq!((size_of::<DriverInfo>(), std::mem::offset_of!(DriverInfo, bus)), (196, 100));
        assert_eq!((size_of::<FlowRules>(), std::mem::offset_of!(FlowRules, count)), (192, 184));
    }

    #[test]
    fn the_key_follows_the_table_and_only_toeplitz_is_understood() {
        let mut hash = FlowHash::new();
        assert_eq!(hash.read(), None, "a driver without either");
        (hash.indir_size, hash.key_size, hash.hfunc) = (3, 6, TOEPLITZ);
        hash.config[..5].copy_from_slice(&[
            0,
            1,
            2,
            u32::from_ne_bytes([0x6d, 0x5a, 0x56, 0xda]),
            u32::from_ne_bytes([0x25, 0x5b, 0xff, 0xff]),
        ]);
        let expected = RxHash { key: vec![0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b], table: vec![0, 1, 2] };
        assert_eq!(hash.read(), Some(expected));
        assert_eq!(hash.table(), Some(&[0, 1, 2][..]));
        hash.input_xfrm = 1;
        assert_eq!(hash.read(), None, "symmetric");
        (hash.input_xfrm, hash.hfunc) = (0, 2);
        assert_eq!(hash.read(), None, "XOR");
        (hash.hfunc, hash.indir_size) = (0, RSS_WORDS as u32);
        assert_eq!(hash.read(), None, "no room for the key");
    }

    #[test]
    fn an_interface_that_has_no_hash_says_so() {
        assert_eq!((rx_hash("lo"), rx_table("lo"), flow_rules("lo")), (None, None, 0));
        assert_eq!(rx_hash("a-name-that-is-too-long-for-linux"), None);
    }
}
