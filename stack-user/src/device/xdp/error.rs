//! Why sockets could not be opened, and what to do about it.

use std::io;

use super::{Copying, huge_pages, privilege_remedy};
use crate::device::{
    kernel::HugePages,
    remedy::{UNLIMITED_MEMLOCK, up},
};

/// Opening AF_XDP sockets failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The kernel has no such sockets.
    #[error("this kernel has no AF_XDP sockets: it needs CONFIG_XDP_SOCKETS, and should be 5.11 or later")]
    NoAfXdp,
    /// A capability is missing.
    #[error("opening an AF_XDP socket was refused because CAP_NET_RAW is missing: {}", privilege_remedy())]
    Privilege,
    /// The limit of locked memory is too low.
    #[error(
        "the kernel did not lock {} MB for frames because RLIMIT_MEMLOCK is lower: raise it (`{UNLIMITED_MEMLOCK}`, \
         or LimitMEMLOCK= in systemd), or add CAP_IPC_LOCK", bytes >> 20
    )]
    LockedMemory {
        /// What was needed.
        bytes: u64,
    },
    /// Frames were to be on huge pages or nowhere.
    #[error(
        "frames were to lie on huge pages, {} MB of them, which could not be had ({}); --huge-pages auto does without where it \
         must", bytes >> 20, huge_pages::remedy(*bytes, pages)
    )]
    NoHugePages {
        /// What was needed.
        bytes: usize,
        /// What there is.
        pages: HugePages,
    },
    /// There is no such interface in this network namespace.
    #[error("there is no interface `{interface}` in this network namespace: `ip link` lists them")]
    NoInterface {
        /// What was asked for.
        interface: String,
    },
    /// The interface is down.
    #[error("{interface} is down: `{}` first", up(.interface))]
    Down {
        /// The interface.
        interface: String,
    },
    /// Somebody else has the queue.
    #[error(
        "queue {queue} of {interface} is taken by another AF_XDP socket: stop the program that holds it, or use another \
         queue with --queue"
    )]
    QueueBusy {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
    },
    /// The interface has no such queue.
    #[error("{interface} has no queue {queue} to bind: `ethtool -l {interface}` shows how many there are")]
    NoSuchQueue {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
    },
    /// The driver can't do zero-copy.
    #[error(
        "the driver of {interface} refused zero-copy on queue {queue} ({source}): use --mode native or native-copy, or a \
         newer kernel; virtio needs iommu_platform=on too"
    )]
    NoZeroCopy {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// The ring size is not one that the kernel takes.
    #[error("a ring can't have {0} descriptors: use a power of two")]
    RingSize(u32),
    /// No queue, or no chunk, was asked for.
    #[error("no queue and so no chunk was asked for: name at least one queue")]
    NoQueue,
    /// The UMEM came out otherwise than asked for.
    #[error("the UMEM is not laid out in chunks of one page: this build of xsk-rs does not fit")]
    NotOurUmem,
    /// Something that has no name of its own.
    #[error("{step} failed: {source}")]
    Os {
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl OpenError {
    /// Whether another way to lay out the memory may not be refused.
    pub(super) fn is_of_the_layout(&self) -> bool {
        matches!(self, Self::NoZeroCopy { .. } | Self::NoSuchQueue { .. } | Self::Os { .. })
    }

    /// What an error of opening the first socket and registering the UMEM means.
    pub(super) fn umem(source: io::Error, bytes: u64) -> Self {
        match source.raw_os_error() {
            Some(libc::EAFNOSUPPORT) => Self::NoAfXdp,
            Some(libc::EPERM | libc::EACCES) => Self::Privilege,
            Some(libc::ENOBUFS) => Self::LockedMemory { bytes },
            _ => Self::Os { step: "registering a UMEM", source },
        }
    }

    /// What an error of binding a socket means.
    pub(super) fn bind(source: io::Error, interface: &str, queue: u32, copying: Copying) -> Self {
        let interface = interface.to_owned();
        match source.raw_os_error() {
            Some(libc::EBUSY) => Self::QueueBusy { interface, queue },
            Some(libc::ENETDOWN) => Self::Down { interface },
            Some(libc::ENODEV) => Self::NoInterface { interface },
            Some(libc::EPERM | libc::EACCES) => Self::Privilege,
            Some(libc::EOPNOTSUPP | libc::EINVAL) if copying == Copying::ZeroCopy => {
                Self::NoZeroCopy { interface, queue, source }
            }
            Some(libc::EINVAL) => Self::NoSuchQueue { interface, queue },
            _ => Self::Os { step: "binding an AF_XDP socket", source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_of_the_kernel_says_what_to_do() {
        let umem = |errno| OpenError::umem(io::Error::from_raw_os_error(errno), 16 << 20).to_string();
        assert!(umem(libc::EPERM).contains("CAP_NET_RAW") && umem(libc::EPERM).contains("setcap"));
        assert!(umem(libc::EAFNOSUPPORT).contains("CONFIG_XDP_SOCKETS"));
        assert!(umem(libc::ENOBUFS).contains("16 MB") && umem(libc::ENOBUFS).contains("ulimit -l"));
        assert!(umem(libc::EIO).contains("registering a UMEM"));
        let bind = |errno, copying| {
            OpenError::bind(io::Error::from_raw_os_error(errno), "xs-a", 3, copying).to_string()
        };
        assert!(bind(libc::EBUSY, Copying::Auto).contains("queue 3 of xs-a is taken"));
        assert!(bind(libc::ENETDOWN, Copying::Auto).contains("ip link set xs-a up"));
        assert!(bind(libc::EINVAL, Copying::Auto).contains("has no queue 3"));
        assert!(bind(libc::EOPNOTSUPP, Copying::ZeroCopy).contains("--mode native"));
    }
}
