//! What a driver can do for AF_XDP, and how its queues are polled: the kernel's `netdev` family of generic netlink.
//!
//! Linux has it from 6.3 on, and it has grown since. What an older kernel does not know is told apart from what is not so:
//! it is `None`. The kernel answers at once, so that these calls wait for nothing but its locks.

use std::{fmt, io, iter, time::Duration};

use bitflags::bitflags;
use netlink_packet_core::{DecodeError, DefaultNla, parse_u32, parse_u64};

use super::genetlink::{Family, GenetlinkError, Message, Wanted};
use crate::device::restore::{Setting, Undo};

const FAMILY: &str = "netdev";

const CMD_DEV_GET: u8 = 1;
const CMD_QUEUE_GET: u8 = 10;
const CMD_NAPI_GET: u8 = 11;
const CMD_NAPI_SET: u8 = 14;

const DEV_IFINDEX: u16 = 1;
const DEV_XDP_FEATURES: u16 = 3;
const DEV_XDP_ZC_MAX_SEGS: u16 = 4;
const DEV_XDP_RX_METADATA_FEATURES: u16 = 5;
const DEV_XSK_FEATURES: u16 = 6;

const QUEUE_ID: u16 = 1;
const QUEUE_IFINDEX: u16 = 2;
const QUEUE_TYPE: u16 = 3;
const QUEUE_NAPI_ID: u16 = 4;
const QUEUE_XSK: u16 = 7;

const NAPI_IFINDEX: u16 = 1;
const NAPI_ID: u16 = 2;
const NAPI_IRQ: u16 = 3;
const NAPI_PID: u16 = 4;
const NAPI_DEFER_HARD_IRQS: u16 = 5;
const NAPI_GRO_FLUSH_TIMEOUT: u16 = 6;
const NAPI_IRQ_SUSPEND_TIMEOUT: u16 = 7;
const NAPI_THREADED: u16 = 8;

bitflags! {
    /// What a driver can do with XDP. Bits that a newer kernel has are kept, and shown as a number.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct XdpFeatures: u64 {
        /// Runs a program on what it receives, which may pass, drop or send back.
        const BASIC = 1;
        /// Takes a program's word that a frame goes elsewhere: AF_XDP needs it.
        const REDIRECT = 1 << 1;
        /// Sends frames that other interfaces redirect to it.
        const NDO_XMIT = 1 << 2;
        /// AF_XDP without a copy.
        const XSK_ZEROCOPY = 1 << 3;
        /// Runs programs on the card itself.
        const HW_OFFLOAD = 1 << 4;
        /// Shows a program frames that lie in several buffers.
        const RX_SG = 1 << 5;
        /// Sends such frames for other interfaces.
        const NDO_XMIT_SG = 1 << 6;
        const _ = !0;
    }

    /// What a driver tells a program about a received frame.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct RxMetadata: u64 {
        /// When the card received it.
        const TIMESTAMP = 1;
        /// The hash that chose its queue.
        const HASH = 1 << 1;
        /// The VLAN tag that was taken off it.
        const VLAN_TAG = 1 << 2;
        const _ = !0;
    }

    /// What a driver does for a frame that an AF_XDP socket sends, if asked.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct XskFeatures: u64 {
        /// Tells when it was sent.
        const TX_TIMESTAMP = 1;
        /// Finishes the checksum of TCP or UDP.
        const TX_CHECKSUM = 1 << 1;
        /// Sends it at a given time, in the order that it got them in.
        const TX_LAUNCH_TIME_FIFO = 1 << 2;
        const _ = !0;
    }
}

/// What a driver says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// XDP. A driver says less while it can do less (virtio without enough queues, for example).
    pub xdp: XdpFeatures,
    /// Buffers that a frame may have in zero-copy mode, if there is such a mode; from Linux 6.6 on.
    pub zero_copy_max_segments: Option<u32>,
    /// From Linux 6.8 on.
    pub rx_metadata: Option<RxMetadata>,
    /// From Linux 6.8 on.
    pub xsk: Option<XskFeatures>,
}

/// Which way frames go on a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// They are received.
    Rx,
    /// They are sent.
    Tx,
    /// Something that a newer kernel has.
    Other(u32),
}

/// A queue of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueInfo {
    /// Its number among those of its direction.
    pub id: u32,
    /// Whether it receives or sends.
    pub direction: Direction,
    /// The [NAPI](Napi) that serves it, if the driver says.
    pub napi: Option<u32>,
    /// Whether an AF_XDP socket is bound to it. A kernel before 6.15 doesn't say, and it is `false`.
    pub has_xsk: bool,
}

/// A NAPI: what polls one or more queues of a driver, in an interrupt's wake or for a socket that polls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Napi {
    /// Its number, which is its own in all of the system.
    pub id: u32,
    /// The interface that it is of.
    pub interface: u32,
    /// The interrupt that wakes it.
    pub irq: Option<u32>,
    /// The kernel thread that runs it, if one does.
    pub thread: Option<u32>,
    /// How often it may find nothing before interrupts are let in again; from Linux 6.13 on.
    pub defer_hard_irqs: Option<u32>,
    /// After how long without an interrupt it looks by itself; from Linux 6.13 on.
    pub gro_flush_timeout: Option<Duration>,
    /// How long interrupts stay out while an application that polls finds something; from Linux 6.13 on.
    pub irq_suspend_timeout: Option<Duration>,
    /// Whether it runs in a thread of its own; from Linux 6.17 on.
    pub threaded: Option<Threaded>,
}

/// Where a NAPI runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Threaded {
    /// In the softirq of whoever it interrupts.
    No,
    /// In a kernel thread.
    Yes,
    /// In a kernel thread that never sleeps.
    BusyPolling,
    /// Something that a newer kernel has.
    Other(u32),
}

/// What of a NAPI may be changed; `None` is left as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NapiSettings {
    /// See [`Napi::defer_hard_irqs`].
    pub defer_hard_irqs: Option<u32>,
    /// See [`Napi::gro_flush_timeout`].
    pub gro_flush_timeout: Option<Duration>,
    /// See [`Napi::irq_suspend_timeout`].
    pub irq_suspend_timeout: Option<Duration>,
}

/// The `netdev` family of the network namespace that it was [found](Netdev::find) in.
pub struct Netdev(Family);

impl Netdev {
    /// `None`: the kernel is older than 6.3.
    ///
    /// # Errors
    /// When generic netlink does not answer.
    pub fn find() -> Result<Option<Self>, GenetlinkError> {
        Ok(Family::find(FAMILY)?.map(Self))
    }

    /// What the driver of the interface of that index can do.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn features(&self, interface: u32) -> Result<Features, GenetlinkError> {
        let answers = self.0.ask(CMD_DEV_GET, &[number(DEV_IFINDEX, interface)], Wanted::One)?;
        Features::read(only(&answers)?)
    }

    /// The queues of the interface, as far as they are in use. `None`: the kernel is older than 6.8.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn queues(&self, interface: u32) -> Result<Option<Vec<QueueInfo>>, GenetlinkError> {
        self.all(CMD_QUEUE_GET, &[number(QUEUE_IFINDEX, interface)], QueueInfo::read)
    }

    /// The NAPIs of the interface. `None`: the kernel is older than 6.8.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn napis(&self, interface: u32) -> Result<Option<Vec<Napi>>, GenetlinkError> {
        self.all(CMD_NAPI_GET, &[number(NAPI_IFINDEX, interface)], Napi::read)
    }

    /// The NAPI of that number. `None`: there is none, or the kernel is older than 6.8.
    ///
    /// # Errors
    /// When the answer makes no sense.
    pub fn napi(&self, id: u32) -> Result<Option<Napi>, GenetlinkError> {
        match self.0.ask(CMD_NAPI_GET, &[number(NAPI_ID, id)], Wanted::One) {
            Err(error) if error.is_unknown_command() => Ok(None),
            Err(GenetlinkError::Refused(error)) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            answers => Napi::read(only(&answers?)?).map(Some),
        }
    }

    /// Changes a NAPI; from Linux 6.13 on. It stays so when the program ends that said so.
    ///
    /// # Errors
    /// When there is no such NAPI, or the kernel is older, or CAP_NET_ADMIN is missing.
    pub fn set_napi(&self, id: u32, settings: &NapiSettings) -> Result<(), GenetlinkError> {
        self.0.ask(CMD_NAPI_SET, &settings.attributes(id), Wanted::One).map(|_| ())
    }

    /// What has another process set a NAPI back from `ours` to `before`: each setting by itself, if it is still so. A socket is
    /// opened for each.
    ///
    /// # Errors
    /// When the process has too many open files.
    pub fn undo_napi(&self, id: u32, ours: &NapiSettings, before: &NapiSettings) -> io::Result<Vec<Undo>> {
        let before: Vec<_> = before.numbers().collect();
        let mut undo = Vec::new();
        for (kind, value) in ours.numbers() {
            let Some(&(_, before)) = before.iter().find(|(of, _)| *of == kind) else { continue };
            let (napi, before) = (number(NAPI_ID, id), unsigned(kind, before));
            let bytes = self.0.request(CMD_NAPI_SET, &[napi.clone(), before], Wanted::One);
            let question = self.0.request(CMD_NAPI_GET, &[napi], Wanted::One);
            let ours = Setting::Attribute { question, kind, value };
            undo.push(Undo { to: Family::another_socket()?, ours, bytes });
        }
        Ok(undo)
    }

    fn all<T>(
        &self,
        command: u8,
        attributes: &[DefaultNla],
        read: fn(&Message) -> Result<T, GenetlinkError>,
    ) -> Result<Option<Vec<T>>, GenetlinkError> {
        match self.0.ask(command, attributes, Wanted::All) {
            Err(error) if error.is_unknown_command() => Ok(None),
            answers => answers?.iter().map(read).collect::<Result<_, _>>().map(Some),
        }
    }
}

impl NapiSettings {
    fn attributes(&self, id: u32) -> Vec<DefaultNla> {
        let settings = self.numbers().map(|(kind, value)| unsigned(kind, value));
        iter::once(number(NAPI_ID, id)).chain(settings).collect()
    }

    /// The kind and value of each that is to be changed.
    fn numbers(&self) -> impl Iterator<Item = (u16, u64)> {
        [
            self.defer_hard_irqs.map(|irqs| (NAPI_DEFER_HARD_IRQS, irqs.into())),
            self.gro_flush_timeout.map(|time| (NAPI_GRO_FLUSH_TIMEOUT, nanos(time))),
            self.irq_suspend_timeout.map(|time| (NAPI_IRQ_SUSPEND_TIMEOUT, nanos(time))),
        ]
        .into_iter()
        .flatten()
    }
}

impl Features {
    fn read(message: &Message) -> Result<Self, GenetlinkError> {
        let mut xdp = None;
        let mut features =
            Self { xdp: XdpFeatures::empty(), zero_copy_max_segments: None, rx_metadata: None, xsk: None };
        message.for_each(|kind, value| {
            match kind {
                DEV_XDP_FEATURES => xdp = Some(XdpFeatures::from_bits_retain(parse_u64(value)?)),
                DEV_XDP_ZC_MAX_SEGS => features.zero_copy_max_segments = Some(parse_u32(value)?),
                DEV_XDP_RX_METADATA_FEATURES => {
                    features.rx_metadata = Some(RxMetadata::from_bits_retain(parse_u64(value)?));
                }
                DEV_XSK_FEATURES => features.xsk = Some(XskFeatures::from_bits_retain(parse_u64(value)?)),
                _ => {}
            }
            Ok(())
        })?;
        features.xdp = xdp.ok_or_else(|| missing("XDP features"))?;
        Ok(features)
    }
}

impl QueueInfo {
    fn read(message: &Message) -> Result<Self, GenetlinkError> {
        let (mut id, mut direction) = (None, None);
        let (mut napi, mut has_xsk) = (None, false);
        message.for_each(|kind, value| {
            match kind {
                QUEUE_ID => id = Some(parse_u32(value)?),
                QUEUE_TYPE => {
                    direction = Some(match parse_u32(value)? {
                        0 => Direction::Rx,
                        1 => Direction::Tx,
                        other => Direction::Other(other),
                    });
                }
                QUEUE_NAPI_ID => napi = Some(parse_u32(value)?),
                QUEUE_XSK => has_xsk = true,
                _ => {}
            }
            Ok(())
        })?;
        let id = id.ok_or_else(|| missing("the queue's number"))?;
        let direction = direction.ok_or_else(|| missing("the queue's type"))?;
        Ok(Self { id, direction, napi, has_xsk })
    }
}

impl Napi {
    fn read(message: &Message) -> Result<Self, GenetlinkError> {
        let (mut id, mut interface) = (None, None);
        let (mut irq, mut thread, mut threaded) = (None, None, None);
        let (mut defer_hard_irqs, mut gro_flush_timeout, mut irq_suspend_timeout) = (None, None, None);
        message.for_each(|kind, value| {
            match kind {
                NAPI_ID => id = Some(parse_u32(value)?),
                NAPI_IFINDEX => interface = Some(parse_u32(value)?),
                NAPI_IRQ => irq = Some(parse_u32(value)?),
                NAPI_PID => thread = Some(parse_u32(value)?),
                NAPI_DEFER_HARD_IRQS => defer_hard_irqs = Some(parse_u32(value)?),
                NAPI_GRO_FLUSH_TIMEOUT => gro_flush_timeout = Some(parse_nanos(value)?),
                NAPI_IRQ_SUSPEND_TIMEOUT => irq_suspend_timeout = Some(parse_nanos(value)?),
                NAPI_THREADED => {
                    threaded = Some(match parse_u32(value)? {
                        0 => Threaded::No,
                        1 => Threaded::Yes,
                        2 => Threaded::BusyPolling,
                        other => Threaded::Other(other),
                    });
                }
                _ => {}
            }
            Ok(())
        })?;
        let id = id.ok_or_else(|| missing("the NAPI's number"))?;
        let interface = interface.ok_or_else(|| missing("the NAPI's interface"))?;
        Ok(Self {
            id,
            interface,
            irq,
            thread,
            defer_hard_irqs,
            gro_flush_timeout,
            irq_suspend_timeout,
            threaded,
        })
    }
}

fn only(answers: &[Message]) -> Result<&Message, GenetlinkError> {
    answers.first().ok_or_else(|| GenetlinkError::malformed("it is empty"))
}

fn missing(what: &str) -> GenetlinkError {
    GenetlinkError::Malformed(format!("{what} is missing"))
}

fn number(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_ne_bytes().to_vec())
}

/// As the kernel writes what may need more: in four bytes if it fits, else in eight.
fn unsigned(kind: u16, value: u64) -> DefaultNla {
    match u32::try_from(value) {
        Ok(value) => number(kind, value),
        Err(_) => DefaultNla::new(kind, value.to_ne_bytes().to_vec()),
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn parse_nanos(value: &[u8]) -> Result<Duration, DecodeError> {
    let nanos = if value.len() == size_of::<u32>() { parse_u32(value)?.into() } else { parse_u64(value)? };
    Ok(Duration::from_nanos(nanos))
}

/// Writes what is set by the kernel's names, with what has none as a number.
fn write_flags<'a>(
    f: &mut fmt::Formatter<'_>,
    names: impl Iterator<Item = &'a str>,
    rest: u64,
) -> fmt::Result {
    let mut all: Vec<_> = names.map(|name| name.to_ascii_lowercase().replace('_', "-")).collect();
    all.extend((rest != 0).then(|| format!("{rest:#x}")));
    f.pad(&if all.is_empty() { "none".to_owned() } else { all.join(", ") })
}

/// The flags that have a name, and the bits that have none.
macro_rules! display_flags {
    ($($flags:ty),*) => {$(
        impl fmt::Display for $flags {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut named = self.iter_names();
                let names: Vec<_> = named.by_ref().map(|(name, _)| name).collect();
                write_flags(f, names.into_iter(), named.remaining().bits())
            }
        }
    )*};
}
display_flags!(XdpFeatures, RxMetadata, XskFeatures);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::interface::genetlink::tests::message;

    #[test]
    fn what_a_newer_kernel_has_more_is_kept_and_shown() {
        let features = Features::read(&message(&[
            (DEV_IFINDEX, &2_u32.to_ne_bytes()),
            (DEV_XDP_FEATURES, &0x1_0000_000b_u64.to_ne_bytes()),
            (DEV_XDP_ZC_MAX_SEGS, &17_u32.to_ne_bytes()),
            (DEV_XDP_RX_METADATA_FEATURES, &8_u64.to_ne_bytes()),
            (DEV_XSK_FEATURES, &0_u64.to_ne_bytes()),
            (999, b"?"),
        ]));
        let features = features.expect("well-formed");
        assert_eq!(features.xdp.to_string(), "basic, redirect, xsk-zerocopy, 0x100000000");
        assert_eq!(features.zero_copy_max_segments, Some(17));
        assert_eq!(features.rx_metadata.expect("told").to_string(), "0x8");
        assert_eq!(features.xsk.expect("told").to_string(), "none");
    }

    #[test]
    fn what_an_older_kernel_does_not_tell_is_not_known() {
        let features =
            Features::read(&message(&[(DEV_XDP_FEATURES, &1_u64.to_ne_bytes())])).expect("6.3 says so much");
        assert_eq!((features.zero_copy_max_segments, features.rx_metadata, features.xsk), (None, None, None));
        let napi = message(&[(NAPI_ID, &8200_u32.to_ne_bytes()), (NAPI_IFINDEX, &2_u32.to_ne_bytes())]);
        let napi = Napi::read(&napi).expect("6.8 says so much");
        assert_eq!((napi.defer_hard_irqs, napi.gro_flush_timeout, napi.threaded), (None, None, None));
    }

    #[test]
    fn an_attribute_that_is_missing_or_has_another_size_is_an_error() {
        let error = Features::read(&message(&[])).expect_err("nothing").to_string();
        assert!(error.contains("XDP features is missing"), "{error}");
        assert!(Features::read(&message(&[(DEV_XDP_FEATURES, &[1, 0, 0, 0])])).is_err());
        assert!(QueueInfo::read(&message(&[(QUEUE_ID, &[0; 4])])).is_err());
        assert!(Napi::read(&message(&[(NAPI_ID, &[0; 2]), (NAPI_IFINDEX, &[0; 4])])).is_err());
        let timeout: &[u8] = &[0; 5];
        let napi = [(NAPI_ID, &[1; 4][..]), (NAPI_IFINDEX, &[1; 4]), (NAPI_GRO_FLUSH_TIMEOUT, timeout)];
        assert!(Napi::read(&message(&napi)).is_err());
    }

    #[test]
    fn queues_and_napis_of_kinds_yet_unknown_are_told_as_such() {
        let queue = message(&[
            (QUEUE_ID, &3_u32.to_ne_bytes()),
            (QUEUE_TYPE, &7_u32.to_ne_bytes()),
            (QUEUE_NAPI_ID, &513_u32.to_ne_bytes()),
            (QUEUE_XSK, &[]),
        ]);
        let expected = QueueInfo { id: 3, direction: Direction::Other(7), napi: Some(513), has_xsk: true };
        assert_eq!(QueueInfo::read(&queue).expect("well-formed"), expected);
        let napi = message(&[
            (NAPI_ID, &513_u32.to_ne_bytes()),
            (NAPI_IFINDEX, &2_u32.to_ne_bytes()),
            (NAPI_THREADED, &9_u32.to_ne_bytes()),
            (NAPI_GRO_FLUSH_TIMEOUT, &200_000_u32.to_ne_bytes()),
            (NAPI_IRQ_SUSPEND_TIMEOUT, &5_000_000_000_u64.to_ne_bytes()),
        ]);
        let napi = Napi::read(&napi).expect("well-formed");
        assert_eq!(napi.threaded, Some(Threaded::Other(9)));
        assert_eq!(napi.gro_flush_timeout, Some(Duration::from_micros(200)));
        assert_eq!(napi.irq_suspend_timeout, Some(Duration::from_secs(5)));
    }

    #[test]
    fn loopback_has_no_queue_that_a_driver_polls() {
        let Some(netdev) = Netdev::find().expect("generic netlink answers") else {
            println!("SKIP loopback_has_no_queue_that_a_driver_polls: this kernel has no netdev family");
            return;
        };
        // Loopback is number 1 in every namespace.
        assert!(!netdev.features(1).expect("lo").xdp.contains(XdpFeatures::REDIRECT));
        assert_eq!(netdev.napis(1).expect("lo").unwrap_or_default(), []);
        let error = netdev.features(0x7fff_fff0).expect_err("no such interface");
        assert!(
            matches!(&error, GenetlinkError::Refused(error) if error.raw_os_error() == Some(libc::ENODEV)),
            "{error}"
        );
        assert_eq!(netdev.napi(u32::MAX).expect("an answer"), None);
    }
}
