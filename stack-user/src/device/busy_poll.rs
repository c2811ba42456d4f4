//! Busy polling: whoever waits for frames has the driver look for them, instead of waiting for an interrupt.
//!
//! A socket that prefers it tells the kernel so ([`SO_PREFER_BUSY_POLL`](libc::SO_PREFER_BUSY_POLL)), and each call to receive on
//! it runs the [NAPI](Napi) of its queue ([`Readable::poll_driver`](super::Readable::poll_driver)). Interrupts would only get in
//! the way. They are held back by two settings of the NAPI: how often it may find nothing before they are let in again, and a timer
//! that has the kernel look by itself if nobody polls. Both are settings of the host, so they are [restored](super::restore).

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::fd::{AsRawFd, BorrowedFd},
};

use super::{
    BURST,
    interface::{
        GenetlinkError, Interface,
        netdev::{Direction, Napi, NapiSettings, Netdev, Threaded},
    },
    restore::{Restorer, Setting, Undo},
};
use crate::{telemetry::STORY, time::Duration};

/// How often a NAPI may find nothing before its interrupt is let in again.
///
/// Lower (1), and a gap of one look between two frames has an interrupt; higher, and a queue that is idle is looked at
/// by a timer for longer. It is what the kernel's own documentation of busy polling takes.
const DEFER_HARD_IRQS: u32 = 2;

/// After how long without a look the kernel looks by itself.
///
/// Lower, and it gets in the way of a thread that has a burst to work on; higher, and a frame that comes when nobody
/// polls waits for as long. Also the documentation's.
const GRO_FLUSH_TIMEOUT: Duration = Duration::from_micros(200);

/// `SO_BUSY_POLL_BUDGET`: libc does not have it for all C libraries.
const SO_BUSY_POLL_BUDGET: libc::c_int = 70;

/// Interrupts that are held back, until this is dropped or the process ends.
#[derive(Debug)]
pub struct Held(#[expect(dead_code, reason = "restores when it goes")] Restorer);

/// A queue's socket, and who serves it.
struct Polled<'a> {
    queue: u32,
    socket: BorrowedFd<'a>,
    /// What is polled when the socket receives.
    napi: Option<Napi>,
    /// Whether that sends the queue's frames, too.
    sends: bool,
}

/// Why interrupts are not held back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The kernel does not change the NAPI.
    #[error(transparent)]
    Netdev(GenetlinkError),
    /// Something around it did not work.
    #[error("{0} failed: {1}")]
    Os(&'static str, io::Error),
}

/// Has the queues' sockets poll the driver for so long, and the queues' interrupts held back. What can't be had is told, and gone
/// without.
pub fn start<'a>(
    interface: &Interface,
    sockets: impl Iterator<Item = (u32, BorrowedFd<'a>)>,
    zero_copy: bool,
    time: Duration,
) -> Option<Held> {
    let netdev = Netdev::find().unwrap_or_else(|error| {
        tracing::warn!("which NAPI serves a queue of {} is not known: {error}", interface.name);
        None
    });
    let polled = polled(interface, sockets, netdev.as_ref());
    for queue in &polled {
        queue.tell(&interface.name);
        // A socket without a copy that prefers it leaves sending to the NAPI, and would wait for good if that is another's work.
        let prefer = queue.sends || !zero_copy;
        if let Err(error) = set_socket(queue.socket, time, prefer) {
            tracing::warn!(
                "the kernel does not poll queue {} of {} for us: {error}; its interrupts are waited for",
                queue.queue,
                interface.name
            );
        }
    }
    let held = hold_back_those_of(interface, &polled, netdev.as_ref());
    held.unwrap_or_else(|refusal| {
        tracing::warn!("interrupts of {} are not held back: {refusal}", interface.name);
        None
    })
}

fn polled<'a>(
    interface: &Interface,
    sockets: impl Iterator<Item = (u32, BorrowedFd<'a>)>,
    netdev: Option<&Netdev>,
) -> Vec<Polled<'a>> {
    let queues = netdev.and_then(|netdev| netdev.queues(interface.index).ok().flatten()).unwrap_or_default();
    let napi_of = |direction, id| {
        let queue = queues.iter().find(|queue| queue.direction == direction && queue.id == id);
        queue.and_then(|queue| queue.napi)
    };
    let polled = sockets.map(|(queue, socket)| {
        let (rx, tx) = (napi_of(Direction::Rx, queue), napi_of(Direction::Tx, queue));
        let napi = rx.zip(netdev).and_then(|(id, netdev)| netdev.napi(id).ok().flatten());
        Polled { queue, socket, napi, sends: rx.is_some() && rx == tx }
    });
    polled.collect()
}

impl Polled<'_> {
    /// In a line for `-v`.
    fn tell(&self, interface: &str) {
        let queue = self.queue;
        match &self.napi {
            None => tracing::info!(target: STORY, "queue {queue} of {interface} is polled by us"),
            Some(Napi { id, threaded: Some(Threaded::Yes | Threaded::BusyPolling), thread, .. }) => {
                let thread = thread.map_or_else(String::new, |pid| format!(" (pid {pid})"));
                tracing::info!(
                    target: STORY,
                    "queue {queue} of {interface} is polled by us, and NAPI {id} has a kernel thread{thread} that polls it, \
                     too: `echo 0 | sudo tee /sys/class/net/{interface}/threaded` leaves it to us"
                );
            }
            Some(napi) => {
                tracing::info!(target: STORY, "queue {queue} of {interface} is polled by us: NAPI {}", napi.id);
            }
        }
    }
}

/// Has each call that receives on the socket run its queue's NAPI.
fn set_socket(socket: BorrowedFd<'_>, time: Duration, prefer: bool) -> io::Result<()> {
    let micros = libc::c_int::try_from(time.as_micros()).unwrap_or(libc::c_int::MAX);
    for (option, value) in [
        (libc::SO_PREFER_BUSY_POLL, libc::c_int::from(prefer)),
        (libc::SO_BUSY_POLL, micros),
        (SO_BUSY_POLL_BUDGET, BURST as libc::c_int),
    ] {
        // SAFETY: the kernel reads as many bytes of `value` as it has.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (&raw const value).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Of each queue's NAPI alone, where the kernel can (6.13) and the driver says which it is; else of the whole interface.
fn hold_back_those_of(
    interface: &Interface,
    polled: &[Polled<'_>],
    netdev: Option<&Netdev>,
) -> Result<Option<Held>, Refusal> {
    let name = &interface.name;
    if interface.is_virtual() {
        tracing::info!(target: STORY, "{name} has no device behind it, and so no interrupts to hold back");
        return Ok(None);
    }
    let mut napis: Vec<_> = polled.iter().filter_map(|polled| polled.napi).collect();
    let each_is_known = napis.len() == polled.len() && napis.iter().all(|napi| before(napi).is_some());
    match netdev {
        Some(netdev) if each_is_known => {
            napis.sort_by_key(|napi| napi.id);
            napis.dedup();
            hold_back(netdev, &napis)
        }
        _ => hold_back_interface(interface),
    }
}

/// What it is set to, if the kernel has such settings of each.
fn before(napi: &Napi) -> Option<NapiSettings> {
    let (irqs, timeout) = (napi.defer_hard_irqs?, napi.gro_flush_timeout?);
    Some(NapiSettings {
        defer_hard_irqs: Some(irqs),
        gro_flush_timeout: Some(timeout),
        ..NapiSettings::default()
    })
}

/// Holds back the interrupts of these NAPIs. Those that somebody has set stay as they are: they know their host better. `None`
/// if that is so of all.
///
/// # Errors
/// Without CAP_NET_ADMIN, and when there can be no process that would restore what was before; then nothing is changed.
pub fn hold_back(netdev: &Netdev, napis: &[Napi]) -> Result<Option<Held>, Refusal> {
    let ours = NapiSettings {
        defer_hard_irqs: Some(DEFER_HARD_IRQS),
        gro_flush_timeout: Some(GRO_FLUSH_TIMEOUT),
        ..NapiSettings::default()
    };
    let untouched = NapiSettings {
        defer_hard_irqs: Some(0),
        gro_flush_timeout: Some(Duration::ZERO),
        ..NapiSettings::default()
    };
    let (free, set): (Vec<Napi>, Vec<_>) = napis.iter().partition(|napi| before(napi) == Some(untouched));
    for napi in set {
        tracing::info!(target: STORY, "NAPI {} holds its interrupts back already, and is left as it is", napi.id);
    }
    if free.is_empty() {
        return Ok(None);
    }
    let mut undo = Vec::new();
    for napi in &free {
        undo.extend(
            netdev
                .undo_napi(napi.id, &ours, &untouched)
                .map_err(|error| Refusal::Os("having another process restore them", error))?,
        );
    }
    let restorer = restorer(undo)?;
    for napi in &free {
        netdev.set_napi(napi.id, &ours).map_err(Refusal::Netdev)?;
        tracing::info!(
            target: STORY,
            "NAPI {} holds its interrupts back: {DEFER_HARD_IRQS} looks, {GRO_FLUSH_TIMEOUT:?}",
            napi.id
        );
    }
    Ok(Some(Held(restorer)))
}

/// As [`hold_back`], of all NAPIs of the interface, by `/sys`.
fn hold_back_interface(interface: &Interface) -> Result<Option<Held>, Refusal> {
    let directory = interface.sysfs().ok_or_else(|| {
        Refusal::Os("finding its settings", io::Error::other("/sys is of another network namespace"))
    })?;
    let settings = [
        ("napi_defer_hard_irqs", DEFER_HARD_IRQS.to_string()),
        ("gro_flush_timeout", GRO_FLUSH_TIMEOUT.as_nanos().to_string()),
    ];
    let mut undo = Vec::new();
    let mut set = Vec::new();
    for (file, value) in settings {
        let path = directory.join(file);
        let before = fs::read_to_string(&path)
            .map_err(|error| Refusal::Os("reading its settings in /sys", error))?
            .trim()
            .to_owned();
        if before != "0" {
            tracing::info!(
                target: STORY, "{} of {} is {before} already: both are left as they are", file, interface.name
            );
            return Ok(None);
        }
        // Opened twice: whoever restores reads from the start.
        let open = || File::options().read(true).write(true).open(&path);
        let (to, by_then) = open()
            .and_then(|to| Ok((to, open()?)))
            .map_err(|error| Refusal::Os("opening its settings in /sys", error))?;
        let ours = Setting::Text(value.clone().into_bytes());
        undo.push(Undo { to: by_then.into(), ours, bytes: b"0".to_vec() });
        set.push((to, value));
    }
    let restorer = restorer(undo)?;
    for (mut to, value) in set {
        to.write_all(value.as_bytes())
            .map_err(|error| Refusal::Os("changing its settings in /sys", error))?;
    }
    tracing::info!(
        target: STORY,
        "all of {} holds its interrupts back: {DEFER_HARD_IRQS} looks, {GRO_FLUSH_TIMEOUT:?}",
        interface.name
    );
    Ok(Some(Held(restorer)))
}

fn restorer(undo: Vec<Undo>) -> Result<Restorer, Refusal> {
    Restorer::start(undo).map_err(|error| Refusal::Os("having another process restore them", error))
}
