//! One queue of the NIC: a socket and its four rings.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    thread,
    time::{Duration, Instant},
};

use xsk_rs::{
    Socket,
    config::{BindFlags, Interface, LibxdpFlags, QueueSize, SocketConfig},
};

use super::{
    Copying, OpenError,
    layout::Layout,
    rings::{CompletionRing, FillRing, RxRing, TxRing},
};
use crate::device::{
    BURST,
    umem::{SharedRegion, kernel_error},
};

/// How long a queue may stay busy before we believe it.
///
/// The kernel frees the queue of a process that was killed only some milliseconds later. Lower, and starting again
/// right away fails now and then; higher, and a queue that is really taken takes longer to be told.
const BUSY_PATIENCE: Duration = Duration::from_millis(500);

/// Between two attempts at a busy queue.
const BUSY_RETRY: Duration = Duration::from_millis(20);

/// `XDP_MAX_TX_SKB_BUDGET` of Linux 6.17: frames that one `sendto` sends in copy mode, which else are 32.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// A socket that is bound to a queue. Dropping it gives the queue back, once the UMEM is dropped too.
pub(super) struct Queue {
    id: u32,
    pub(super) fill: FillRing,
    pub(super) rx: RxRing,
    pub(super) tx: TxRing,
    pub(super) completion: CompletionRing,
}

impl Queue {
    pub(super) fn open(
        region: &SharedRegion,
        interface: &str,
        id: u32,
        ring_size: QueueSize,
        layout: &Layout,
    ) -> Result<Self, OpenError> {
        let copying = layout.copying;
        let name = interface.parse::<Interface>();
        let name = name.map_err(|_| OpenError::NoInterface { interface: interface.to_owned() })?;
        let config = SocketConfig::builder()
            .rx_queue_size(ring_size)
            .tx_queue_size(ring_size)
            // The program that steers frames here is our own.
            .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
            .bind_flags(bind_flags(layout))
            .build();
        let give_up = Instant::now() + BUSY_PATIENCE;
        let (tx, rx, others) = loop {
            // SAFETY: the flag that the contract asks for is set above.
            match unsafe { Socket::new(config, region.xsk(), &name, id) } {
                Ok(rings) => break rings,
                Err(error) => {
                    let error = kernel_error(&error);
                    let is_busy = error.raw_os_error() == Some(libc::EBUSY);
                    if !is_busy || Instant::now() >= give_up {
                        return Err(OpenError::bind(error, interface, id, copying));
                    }
                    thread::sleep(BUSY_RETRY);
                }
            }
        };
        // Without rings of its own, the queue is one that we have bound already.
        let Some((fill, completion)) = others else {
            return Err(OpenError::QueueBusy { interface: interface.to_owned(), queue: id });
        };
        let queue = Self {
            id,
            fill: FillRing::new(fill),
            rx: RxRing::new(rx),
            tx: TxRing::new(tx, ring_size.get()),
            completion: CompletionRing::new(completion),
        };
        queue.send_whole_bursts();
        Ok(queue)
    }

    /// The queue's number.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// The socket.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.tx.as_fd()
    }

    /// Whether the kernel bound the socket zero-copy.
    pub(super) fn is_zero_copy(&self) -> io::Result<bool> {
        let mut options = libc::xdp_options { flags: 0 };
        let mut len = size_of::<libc::xdp_options>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `len` bytes to `options`, which has as many.
        let result = unsafe {
            libc::getsockopt(
                self.fd().as_raw_fd(),
                libc::SOL_XDP,
                libc::XDP_OPTIONS,
                (&raw mut options).cast(),
                &raw mut len,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
    }

    /// Asks for a whole burst to be sent by one call in copy mode. An older kernel doesn't know of that, and sends less
    /// at a time.
    fn send_whole_bursts(&self) {
        let budget = BURST as u32;
        // SAFETY: the kernel reads as many bytes of `budget` as it has.
        let _ = unsafe {
            libc::setsockopt(
                self.fd().as_raw_fd(),
                libc::SOL_XDP,
                XDP_MAX_TX_SKB_BUDGET,
                (&raw const budget).cast(),
                size_of::<u32>() as libc::socklen_t,
            )
        };
    }
}

/// Without a wish, the kernel tries zero-copy first and copies if the driver can't.
fn bind_flags(layout: &Layout) -> BindFlags {
    let several = if layout.multi_buffer { BindFlags::XDP_USE_SG } else { BindFlags::empty() };
    BindFlags::XDP_USE_NEED_WAKEUP
        | several
        | match layout.copying {
            Copying::Auto => BindFlags::empty(),
            Copying::Copy => BindFlags::XDP_COPY,
            Copying::ZeroCopy => BindFlags::XDP_ZEROCOPY,
        }
}
