//! What else there is to know of interfaces: drivers' own words, programs, sockets, and where the card sits.

use std::{collections::HashMap, fs, io, path::Path};

use crate::{
    cli::doctor::facts::{Host, Interface, Interrupt, Seen, Socket, Virtio},
    device::{
        interface::{
            Details,
            netdev::{Direction, Netdev},
        },
        xdp::{
            program,
            sockets::{self, XdpSocket},
        },
    },
};

/// Interrupts of one card that are told at most: as many as a reader looks at.
const INTERRUPTS_MAX: usize = 16;

/// The first kernel that tells of a queue whether a socket is bound to it.
const QUEUES_TELL: (u32, u32) = (6, 15);

pub(super) fn look(all: Vec<Details>, host: &Host) -> Vec<Interface> {
    let netdev = Netdev::find();
    let diagnosed = sockets::list();
    let holders = diagnosed.as_ref().map(|sockets| holders(sockets)).unwrap_or_default();
    let each = |details: Details| {
        let index = details.index;
        let xdp = match &netdev {
            Ok(Some(netdev)) => {
                netdev.features(index).map_or_else(|error| Seen::Unknown(error.to_string()), Seen::Known)
            }
            Ok(None) => Seen::Unknown(format!("Linux {} does not tell; 6.3 and later do", host.release)),
            Err(error) => Seen::Unknown(error.to_string()),
        };
        let sockets = match &diagnosed {
            Ok(sockets) => {
                let here = sockets.iter().filter(|socket| socket.interface == index);
                Seen::Known(here.map(|socket| of_diagnosed(socket, &holders)).collect())
            }
            Err(error) => {
                let netdev = netdev.as_ref().ok().and_then(Option::as_ref);
                let why = match error.kind() {
                    io::ErrorKind::Unsupported => {
                        "the kernel was built without CONFIG_XDP_SOCKETS_DIAG".to_owned()
                    }
                    _ => error.to_string(),
                };
                match netdev
                    .filter(|_| host.version >= Some(QUEUES_TELL))
                    .and_then(|netdev| sockets_of_queues(netdev, index))
                {
                    Some(sockets) => Seen::Known(sockets),
                    None if host.xdp_sockets == Some(0) => Seen::Known(Vec::new()),
                    None => Seen::Unknown(why),
                }
            }
        };
        let device = Sysfs::of(&details.name, index);
        Interface {
            xdp,
            program: program::on_interface(index)
                .map_or_else(|error| Seen::Unknown(error.to_string()), Seen::Known),
            sockets,
            numa_node: device.as_ref().and_then(Sysfs::numa_node),
            is_wireless: device.as_ref().is_some_and(Sysfs::is_wireless),
            virtio: device
                .as_ref()
                .filter(|_| details.driver.as_deref() == Some("virtio_net"))
                .and_then(Sysfs::virtio),
            interrupts: device.as_ref().map(Sysfs::interrupts).unwrap_or_default(),
            details,
        }
    };
    all.into_iter().map(each).collect()
}

fn of_diagnosed(socket: &XdpSocket, holders: &HashMap<u32, (u32, String)>) -> Socket {
    Socket {
        queue: socket.queue,
        uid: Some(socket.uid),
        zero_copy: Some(socket.zero_copy),
        process: holders.get(&socket.inode).cloned(),
    }
}

/// What kernels tell otherwise that were built without the one: which queues have a socket.
fn sockets_of_queues(netdev: &Netdev, index: u32) -> Option<Vec<Socket>> {
    let queues = netdev.queues(index).ok()??;
    let mut with: Vec<u32> = queues
        .iter()
        .filter(|queue| queue.has_xsk && queue.direction == Direction::Rx)
        .map(|queue| queue.id)
        .collect();
    with.sort_unstable();
    let socket = |queue| Socket { queue, uid: None, zero_copy: None, process: None };
    // An interface that tells of no queue at all tells nothing.
    (!queues.is_empty()).then(|| with.into_iter().map(socket).collect())
}

/// Which processes have these sockets, by the sockets' inodes, as far as we may see.
fn holders(sockets: &[XdpSocket]) -> HashMap<u32, (u32, String)> {
    let mut holders = HashMap::new();
    if sockets.is_empty() {
        return holders;
    }
    let wanted: HashMap<String, u32> =
        sockets.iter().map(|socket| (format!("socket:[{}]", socket.inode), socket.inode)).collect();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for (pid, process) in
        processes.filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path())))
    {
        for open in fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
            let target = fs::read_link(open.path()).ok();
            if let Some(inode) = target.and_then(|target| wanted.get(target.to_str()?).copied()) {
                let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
                holders.insert(inode, (pid, name.trim().to_owned()));
            }
        }
    }
    holders
}

/// What /sys says, if it is about this interface: it may be mounted for another network namespace.
struct Sysfs(String);

impl Sysfs {
    fn of(name: &str, index: u32) -> Option<Self> {
        let directory = format!("/sys/class/net/{name}");
        let there: u32 = fs::read_to_string(format!("{directory}/ifindex")).ok()?.trim().parse().ok()?;
        (there == index).then_some(Self(directory))
    }

    /// -1 is a machine that does not know.
    fn numa_node(&self) -> Option<u32> {
        fs::read_to_string(format!("{}/device/numa_node", self.0)).ok()?.trim().parse().ok()
    }

    fn is_wireless(&self) -> bool {
        Path::new(&format!("{}/phy80211", self.0)).exists()
            || Path::new(&format!("{}/wireless", self.0)).exists()
    }

    fn virtio(&self) -> Option<Virtio> {
        virtio(&fs::read_to_string(format!("{}/device/features", self.0)).ok()?)
    }

    fn interrupts(&self) -> Vec<Interrupt> {
        let entries = fs::read_dir(format!("{}/device/msi_irqs", self.0)).into_iter().flatten().flatten();
        let mut numbers: Vec<u32> =
            entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        numbers.sort_unstable();
        let cpus = |number| {
            let list = fs::read_to_string(format!("/proc/irq/{number}/smp_affinity_list")).ok()?;
            Some(Interrupt { number, cpus: list.trim().to_owned() })
        };
        numbers.into_iter().filter_map(cpus).take(INTERRUPTS_MAX).collect()
    }
}

/// Reads the features of a virtio device, a digit for each, from bit 0 on.
fn virtio(features: &str) -> Option<Virtio> {
    /// VIRTIO_NET_F_CTRL_GUEST_OFFLOADS.
    const CAN_BE_ASKED: usize = 2;
    /// VIRTIO_NET_F_GUEST_CSUM, _TSO4, _TSO6, _ECN, _UFO, _USO4 and _USO6.
    const OFFLOADS: [usize; 7] = [1, 7, 8, 9, 10, 54, 55];
    /// VIRTIO_F_ACCESS_PLATFORM.
    const ACCESS_PLATFORM: usize = 33;
    let features = features.trim().as_bytes();
    let has = |bit: usize| features.get(bit) == Some(&b'1');
    features.iter().all(u8::is_ascii_digit).then_some(())?;
    Some(Virtio {
        access_platform: has(ACCESS_PLATFORM),
        keeps_offloads: !has(CAN_BE_ASKED) && OFFLOADS.into_iter().any(has),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_of_virtio_are_read_bit_by_bit() {
        let with = |bits: &[usize]| -> String {
            (0..64).map(|bit| if bits.contains(&bit) { '1' } else { '0' }).chain(['\n']).collect()
        };
        let virtio = |bits: &[usize]| {
            virtio(&with(bits)).map(|virtio| (virtio.access_platform, virtio.keeps_offloads))
        };
        assert_eq!(virtio(&[]), Some((false, false)));
        assert_eq!(virtio(&[1, 2, 7, 33]), Some((true, false)));
        assert_eq!(virtio(&[1, 7]), Some((false, true)));
        assert_eq!(super::virtio("0x33"), None);
    }
}
