//! What only the driver knows, by the ethtool ioctl.

use std::{
    fs,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETHTOOL_GFLAGS: u32 = 0x25;
/// `ETH_FLAG_RXVLAN`: tags are taken off what is received.
const RXVLAN: u32 = 1 << 8;

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
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

/// `struct ethtool_value`.
#[repr(C)]
struct Flags {
    command: u32,
    flags: u32,
}

/// A command's structure, which starts with the command's number.
///
/// # Safety
/// The kernel writes no more than the structure has for the command that it starts with.
unsafe trait Request {}

// SAFETY: the layouts are the kernel's for the commands that they are sent with below.
unsafe impl Request for DriverInfo {}
// SAFETY: as above.
unsafe impl Request for Channels {}
// SAFETY: as above.
unsafe impl Request for Flags {}

/// The driver's name.
pub(super) fn driver(interface: &str) -> Option<String> {
    let mut info = DriverInfo { command: ETHTOOL_GDRVINFO, driver: [0; 32], rest: [0; 160] };
    ask(interface, &mut info)?;
    let name = info.driver.split(|&byte| byte == 0).next().unwrap_or_default();
    Some(String::from_utf8_lossy(name).into_owned()).filter(|name| !name.is_empty())
}

/// Queues that the interface receives on; 1 if nobody says.
pub(super) fn rx_queues(interface: &str, index: u32) -> u32 {
    let mut channels = Channels { command: ETHTOOL_GCHANNELS, ..Channels::default() };
    let told = ask(interface, &mut channels).map(|()| channels.rx + channels.combined);
    told.filter(|&queues| queues > 0).or_else(|| rx_queues_of_sysfs(interface, index)).unwrap_or(1)
}

/// Whether VLAN tags are taken off received frames.
pub(super) fn strips_vlan_tags(interface: &str) -> bool {
    let mut flags = Flags { command: ETHTOOL_GFLAGS, flags: 0 };
    ask(interface, &mut flags).is_some_and(|()| flags.flags & RXVLAN != 0)
}

/// What `/sys` says, if it is about this interface: it may be mounted for another network namespace.
fn rx_queues_of_sysfs(interface: &str, index: u32) -> Option<u32> {
    let directory = format!("/sys/class/net/{interface}");
    let there: u32 = fs::read_to_string(format!("{directory}/ifindex")).ok()?.trim().parse().ok()?;
    if there != index {
        return None;
    }
    let queues = fs::read_dir(format!("{directory}/queues")).ok()?;
    let rx = queues.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("rx-"));
    u32::try_from(rx.count()).ok().filter(|&queues| queues > 0)
}

/// Fills in the answer; `None` if the driver gives none.
fn ask<R: Request>(interface: &str, request: &mut R) -> Option<()> {
    let socket: OwnedFd =
        socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).ok()?;
    // SAFETY: an all-zero `ifreq` is valid.
    let mut message: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= message.ifr_name.len() {
        return None;
    }
    message.ifr_name.iter_mut().zip(interface.bytes()).for_each(|(to, from)| *to = from as libc::c_char);
    message.ifr_ifru.ifru_data = (&raw mut *request).cast();
    // SAFETY: `message` names the interface with a zero at the end, and points to a structure that `Request` vouches for.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut message) };
    (result == 0).then_some(())
}
