//! A NIC in memory: two devices joined by a wire, or one device and a bare wire end.
//!
//! It behaves as a NIC does where that matters to a stack: its rings are bounded, a frame that was sent comes
//! back only some polls later, and what the receiver has no room for is lost. It has no clock and no chance in
//! it: the same calls give the same frames.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{BURST, Device, Umem};
use crate::{
    frame::{CompletedFrame, FramePool, RxFrame, TxFrame},
    time::Instant,
};

/// How a NIC in memory behaves.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Frames that wait in each direction at most, and that are sent and not completed at most.
    ///
    /// The default is that of the AF_XDP rings. Lower, and a test sees full rings and lost frames sooner; higher,
    /// and it sees none.
    pub ring_size: usize,
    /// Calls of [`Device::completions`] that find a sent frame still on its way, before the one that returns it.
    pub completion_delay: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { ring_size: 512, completion_delay: 0 }
    }
}

/// Two NICs, each with its own UMEM, and a wire between them.
pub fn pair(options: Options) -> (MemoryDevice, MemoryDevice) {
    let (one, other) = wire_pair(options.ring_size);
    (MemoryDevice::on(one, options), MemoryDevice::on(other, options))
}

/// A NIC and the far end of its wire, which a test holds as bare bytes.
pub fn tap(options: Options) -> (MemoryDevice, WireEnd) {
    let (one, other) = wire_pair(options.ring_size);
    (MemoryDevice::on(one, options), other)
}

/// One end of a wire: bytes go in, and those of the other end come out.
#[derive(Debug)]
pub struct WireEnd {
    outbound: Arc<Mutex<Wire>>,
    inbound: Arc<Mutex<Wire>>,
}

impl WireEnd {
    /// Puts a frame on the wire; `false` if the receiver has no room, so that it is lost.
    pub fn send(&self, frame: &[u8]) -> bool {
        lock(&self.outbound).push(frame)
    }

    /// Takes the oldest frame off the wire.
    pub fn receive(&self) -> Option<Vec<u8>> {
        lock(&self.inbound).frames.pop_front()
    }

    /// Frames that wait to be received here.
    pub fn waiting(&self) -> usize {
        lock(&self.inbound).frames.len()
    }

    /// Frames that the other end sent, and that were lost because nobody took them in time.
    pub fn lost(&self) -> u64 {
        lock(&self.inbound).lost
    }
}

/// A NIC in memory.
#[derive(Debug)]
pub struct MemoryDevice {
    wire: WireEnd,
    options: Options,
    /// Sent frames and the poll that returns them, oldest first.
    sent: VecDeque<(u64, CompletedFrame)>,
    /// Calls of `completions` so far.
    polls: u64,
    /// A frame waits because no chunk was free.
    is_starving: bool,
}

impl MemoryDevice {
    fn on(wire: WireEnd, options: Options) -> Self {
        Self { wire, options, sent: VecDeque::new(), polls: 0, is_starving: false }
    }
}

impl Device for MemoryDevice {
    fn rx_burst(&mut self, _now: Instant, umem: &mut Umem, frames: &mut Vec<RxFrame>) -> usize {
        let mut inbound = lock(&self.wire.inbound);
        let mut received = 0;
        self.is_starving = false;
        while received < BURST
            && let Some(bytes) = inbound.frames.front()
        {
            let chunks = bytes.len().div_ceil(umem.tx_capacity()).max(1);
            match umem.receive_whole(bytes) {
                Some(frame) => {
                    frames.push(frame);
                    received += 1;
                }
                // Without empty chunks the frames wait, as they do on a NIC whose fill ring ran dry.
                None if chunks > umem.available() && chunks <= umem.chunks() => {
                    self.is_starving = true;
                    break;
                }
                // It is longer than any frame.
                None => inbound.lost += 1,
            }
            inbound.frames.pop_front();
        }
        received
    }

    fn tx_room(&mut self) -> usize {
        self.options.ring_size.saturating_sub(self.sent.len())
    }

    fn tx_burst(&mut self, _now: Instant, umem: &mut Umem, frames: &mut VecDeque<TxFrame>) {
        let due = self.polls + u64::from(self.options.completion_delay) + 1;
        let mut outbound = lock(&self.wire.outbound);
        for frame in frames.drain(..frames.len().min(self.options.ring_size.saturating_sub(self.sent.len())))
        {
            // Sent is not delivered: a frame that the wire lost completes like any other.
            outbound.push(&umem.tx_gather(&frame));
            self.sent.push_back((due, frame.into_completed()));
        }
    }

    fn completions(&mut self, _umem: &mut Umem, done: &mut Vec<CompletedFrame>) {
        self.polls += 1;
        while let Some((_, frame)) = self.sent.pop_front_if(|(due, _)| *due <= self.polls) {
            done.push(frame);
        }
    }

    fn is_quiet(&mut self) -> bool {
        self.sent.is_empty() && lock(&self.wire.inbound).frames.is_empty()
    }

    fn replenish(&mut self, umem: &mut Umem) {
        if self.is_starving && umem.available() > 0 {
            self.is_starving = false;
            lock(&self.wire.inbound).ring();
        }
    }

    /// One, which is readable whenever a frame has come since it was last waited for.
    fn fds(&self) -> io::Result<Vec<OwnedFd>> {
        let bell = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        let waiting = bell.as_fd().try_clone_to_owned()?;
        lock(&self.wire.inbound).bell = Some(bell);
        Ok(vec![waiting])
    }

    fn describe(&self) -> String {
        format!("in memory, rings of {}", self.options.ring_size)
    }

    fn counters(&self) -> io::Result<Vec<(&'static str, u64)>> {
        Ok(vec![("rx_ring_full", self.wire.lost())])
    }
}

/// One direction of a wire.
#[derive(Debug)]
struct Wire {
    frames: VecDeque<Vec<u8>>,
    room: usize,
    lost: u64,
    /// Rung for every frame, once somebody waits for frames instead of polling.
    bell: Option<EventFd>,
}

impl Wire {
    fn push(&mut self, frame: &[u8]) -> bool {
        let fits = self.frames.len() < self.room;
        if fits {
            self.frames.push_back(frame.to_vec());
            self.ring();
        } else {
            self.lost += 1;
        }
        fits
    }

    /// Wakes who waits.
    fn ring(&self) {
        // It can't overflow in the lifetime of a machine, and a bell that is gone wakes nobody.
        let _ = self.bell.as_ref().map(|bell| bell.write(1));
    }
}

fn wire_pair(room: usize) -> (WireEnd, WireEnd) {
    let wire = || Arc::new(Mutex::new(Wire { frames: VecDeque::new(), room, lost: 0, bell: None }));
    let (there, back) = (wire(), wire());
    (WireEnd { outbound: there.clone(), inbound: back.clone() }, WireEnd { outbound: back, inbound: there })
}

/// A wire is whole after every statement, so a panic elsewhere while it was locked did it no harm.
fn lock(wire: &Mutex<Wire>) -> MutexGuard<'_, Wire> {
    wire.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::ZERO;

    fn frame(umem: &mut Umem, bytes: &[u8]) -> TxFrame {
        let mut frame = umem.allocate().expect("a chunk").into_tx();
        umem.tx_buffer(&mut frame)[..bytes.len()].copy_from_slice(bytes);
        frame.set_len(bytes.len());
        frame
    }

    fn received(device: &mut MemoryDevice, umem: &mut Umem) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        device.rx_burst(NOW, umem, &mut frames);
        let bytes = frames.iter().map(|frame| umem.rx_gather(frame).to_vec()).collect();
        frames.into_iter().for_each(|frame| umem.release_rx(frame));
        bytes
    }

    fn completed(device: &mut MemoryDevice, umem: &mut Umem) -> usize {
        let mut done = Vec::new();
        device.completions(umem, &mut done);
        let count = done.len();
        done.into_iter().for_each(|frame| umem.release_completed(frame));
        count
    }

    #[test]
    fn frames_cross_the_wire_in_order_both_ways() {
        let (mut a, mut b) = pair(Options::default());
        let (mut a_umem, mut b_umem) = (Umem::on_heap(4).expect("memory"), Umem::on_heap(4).expect("memory"));
        let mut queue = VecDeque::from([frame(&mut a_umem, b"one"), frame(&mut a_umem, b"two")]);
        a.tx_burst(NOW, &mut a_umem, &mut queue);
        assert!(queue.is_empty());
        let mut back = VecDeque::from([frame(&mut b_umem, b"three")]);
        b.tx_burst(NOW, &mut b_umem, &mut back);
        assert_eq!(received(&mut b, &mut b_umem), [b"one".to_vec(), b"two".to_vec()]);
        assert_eq!(received(&mut a, &mut a_umem), [b"three".to_vec()]);
        assert_eq!((completed(&mut a, &mut a_umem), completed(&mut b, &mut b_umem)), (2, 1));
        assert_eq!((a_umem.available(), b_umem.available()), (4, 4));
    }

    #[test]
    fn a_sent_frame_comes_back_after_the_delay() {
        let (mut device, _far) = tap(Options { completion_delay: 2, ..Options::default() });
        let mut umem = Umem::on_heap(1).expect("memory");
        let mut queue = VecDeque::from([frame(&mut umem, b"slow")]);
        device.tx_burst(NOW, &mut umem, &mut queue);
        assert_eq!((0..4).map(|_| completed(&mut device, &mut umem)).collect::<Vec<_>>(), [0, 0, 1, 0]);
    }

    #[test]
    fn a_full_ring_takes_no_more_until_frames_complete() {
        let (mut device, far) = tap(Options { ring_size: 2, completion_delay: 0 });
        let mut umem = Umem::on_heap(3).expect("memory");
        let mut queue: VecDeque<_> =
            [b"1", b"2", b"3"].iter().map(|bytes| frame(&mut umem, *bytes)).collect();
        device.tx_burst(NOW, &mut umem, &mut queue);
        assert_eq!((queue.len(), device.tx_room()), (1, 0));
        assert_eq!(completed(&mut device, &mut umem), 2);
        device.tx_burst(NOW, &mut umem, &mut queue);
        assert!(queue.is_empty());
        assert_eq!((far.waiting(), far.lost()), (2, 1), "nobody took the first two, so the third is lost");
    }

    #[test]
    fn without_an_empty_chunk_a_frame_waits() {
        let (mut device, far) = tap(Options::default());
        let mut umem = Umem::on_heap(1).expect("memory");
        assert!(far.send(b"waits"));
        let held = umem.allocate().expect("the only chunk");
        assert!(received(&mut device, &mut umem).is_empty());
        umem.release(held);
        assert_eq!(received(&mut device, &mut umem), [b"waits".to_vec()]);
    }

    #[test]
    fn a_frame_of_several_chunks_crosses_the_wire_as_one() {
        let (mut a, mut b) = pair(Options { ring_size: 1, completion_delay: 0 });
        let (mut a_umem, mut b_umem) = (Umem::on_heap(4).expect("memory"), Umem::on_heap(4).expect("memory"));
        let bytes: Vec<u8> = (0..9014u32).map(|at| at as u8).collect();
        let mut long = a_umem.allocate_tx(bytes.len()).expect("chunks");
        a_umem.tx_write(&mut long, 0, &bytes);
        long.set_len(bytes.len());
        let mut queue = VecDeque::from([long]);
        a.tx_burst(NOW, &mut a_umem, &mut queue);
        assert!(queue.is_empty() && a.tx_room() == 0, "a ring counts frames");
        let held: Vec<_> = std::iter::from_fn(|| b_umem.allocate()).take(2).collect();
        assert!(received(&mut b, &mut b_umem).is_empty(), "two chunks are not enough");
        held.into_iter().for_each(|free| b_umem.release(free));
        assert_eq!(received(&mut b, &mut b_umem), [bytes]);
        assert_eq!(completed(&mut a, &mut a_umem), 1);
        assert_eq!((a_umem.available(), b_umem.available()), (4, 4));
    }

    #[test]
    fn a_frame_that_no_umem_has_room_for_holds_up_nobody() {
        let (mut device, far) = tap(Options::default());
        let mut umem = Umem::on_heap(2).expect("memory");
        assert!(far.send(&[0; 9014]) && far.send(&[0; 70_000]) && far.send(b"next"));
        assert_eq!(received(&mut device, &mut umem), [b"next".to_vec()]);
        assert_eq!(umem.available(), 2);
    }

    #[test]
    fn a_burst_is_bounded() {
        let (mut device, far) = tap(Options::default());
        let mut umem = Umem::on_heap(2 * BURST as u32).expect("memory");
        (0..BURST + 1).for_each(|_| assert!(far.send(b"frame")));
        assert_eq!(received(&mut device, &mut umem).len(), BURST);
        assert_eq!(received(&mut device, &mut umem).len(), 1);
    }
}
