//! A device that records what passes it, as a pcapng file: `--pcap FILE`.
//!
//! The transfer comes first: when the file can't be written any more, that is told once, and the frames go on.

use std::{
    borrow::Cow,
    collections::VecDeque,
    fmt, fs,
    io::{self, BufWriter, Write},
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pcap_file::{
    DataLink, PcapError,
    pcapng::{
        PcapNgWriter,
        blocks::{
            enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption},
            interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
        },
    },
};

use super::{Device, Umem};
use crate::{
    frame::{CompletedFrame, FramePool, RxFrame, TxFrame},
    time::{Duration, Instant},
};

/// How long a recorded frame may wait in memory, and so be missing from the file of a process that was killed.
///
/// Lower, and a busy capture writes in small pieces; higher, and `tail -f` and a killed process miss more.
const FLUSH_AFTER: Duration = Duration::from_millis(100);

/// Bytes that are written at once. Lower costs system calls, higher only memory.
const BUFFER_SIZE: usize = 256 * 1024;

/// Bytes of a frame that are recorded at most: what tcpdump has, and more than any frame.
const SNAP_LEN: u32 = 262_144;

/// `if_tsresol`: time stamps count units of 10⁻⁹ s.
const NANOSECONDS: u8 = 9;

/// `epb_flags`: the frame's direction.
#[derive(Debug, Clone, Copy)]
enum Direction {
    Inbound = 1,
    Outbound = 2,
}

/// Records every frame that is received from, or given to, the device behind it.
pub struct Capture {
    device: Box<dyn Device>,
    recorder: Recorder,
    /// The bytes of frames that are offered to the device, and their lengths.
    offered: Vec<u8>,
    offered_lens: Vec<usize>,
    recorded: u64,
}

/// What the queues of one NIC record to.
struct Recording {
    /// `None` once it could not be written.
    file: Option<PcapNgWriter<BufWriter<Box<dyn Write + Send>>>>,
    /// The wall-clock time, since 1970, of [`Instant::ZERO`].
    epoch: Duration,
    /// When what is in the buffer must be in the file, if there is anything.
    flush_at: Option<Instant>,
}

/// A capture file, for all queues of one NIC.
#[derive(Clone)]
pub struct Recorder(Arc<Mutex<Recording>>);

impl Recorder {
    /// Records to a new file; one of that name is overwritten. `epoch` is the wall-clock time, since 1970, of
    /// [`Instant::ZERO`].
    ///
    /// # Errors
    /// When the file can't be created or written.
    pub fn create(file: &Path, interface: &str, epoch: Duration) -> io::Result<Self> {
        Self::to_writer(Box::new(fs::File::create(file)?), interface, epoch)
    }

    /// Records to anything that takes bytes.
    ///
    /// # Errors
    /// When the file's header can't be written.
    pub fn to_writer(writer: Box<dyn Write + Send>, interface: &str, epoch: Duration) -> io::Result<Self> {
        let buffer = BufWriter::with_capacity(BUFFER_SIZE, writer);
        let mut file = PcapNgWriter::new(buffer).map_err(io_error)?;
        let description = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: SNAP_LEN,
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Borrowed(interface)),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ],
        };
        file.write_pcapng_block(description).map_err(io_error)?;
        file.get_mut().flush()?;
        Ok(Self(Arc::new(Mutex::new(Recording { file: Some(file), epoch, flush_at: None }))))
    }

    fn lock(&self) -> MutexGuard<'_, Recording> {
        // Whoever panicked has left at most half a frame in the file.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Capture {
    /// Records what passes a device.
    pub fn new(device: Box<dyn Device>, recorder: &Recorder) -> Self {
        let recorder = recorder.clone();
        Self { device, recorder, offered: Vec::new(), offered_lens: Vec::new(), recorded: 0 }
    }

    /// Copies the frames that the device has room for: once it has them, their bytes are no longer ours to read.
    fn copy_offered(&mut self, umem: &Umem, frames: &VecDeque<TxFrame>) {
        self.offered.clear();
        self.offered_lens.clear();
        if self.recorder.lock().file.is_none() {
            return;
        }
        for frame in frames.iter().take(self.device.tx_room()) {
            let before = self.offered.len();
            umem.tx_pieces(frame).for_each(|piece| self.offered.extend_from_slice(piece));
            self.offered_lens.push(self.offered.len() - before);
        }
    }

    fn record(&mut self, now: Instant, direction: Direction, bytes: &[u8]) {
        self.recorded += u64::from(self.recorder.lock().record(now, direction, bytes));
    }
}

impl Recording {
    /// Returns whether the frame is recorded.
    fn record(&mut self, now: Instant, direction: Direction, bytes: &[u8]) -> bool {
        let Some(file) = &mut self.file else { return false };
        let packet = EnhancedPacketBlock {
            interface_id: 0,
            timestamp: self.epoch + now.since(Instant::ZERO),
            original_len: bytes.len() as u32,
            data: Cow::Borrowed(bytes),
            options: vec![EnhancedPacketOption::Flags(direction as u32)],
        };
        let result = file.write_pcapng_block(packet).map(|_| ()).map_err(io_error);
        self.flush_at.get_or_insert(now + FLUSH_AFTER);
        self.stop_on_error(result);
        self.file.is_some()
    }

    fn flush(&mut self) {
        if self.flush_at.take().is_some()
            && let Some(file) = &mut self.file
        {
            let result = file.get_mut().flush();
            self.stop_on_error(result);
        }
    }

    fn flush_if_due(&mut self, now: Instant) {
        if self.flush_at.is_some_and(|at| at <= now) {
            self.flush();
        }
    }

    fn stop_on_error(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            tracing::warn!(%error, "the capture file can't be written: recording ends here");
            self.file = None;
            self.flush_at = None;
        }
    }
}

impl Device for Capture {
    fn rx_burst(&mut self, now: Instant, umem: &mut Umem, frames: &mut Vec<RxFrame>) -> usize {
        self.recorder.lock().flush_if_due(now);
        let before = frames.len();
        let received = self.device.rx_burst(now, umem, frames);
        for frame in frames.iter().skip(before) {
            self.record(now, Direction::Inbound, &umem.rx_gather(frame));
        }
        received
    }

    fn tx_room(&mut self) -> usize {
        self.device.tx_room()
    }

    fn tx_burst(&mut self, now: Instant, umem: &mut Umem, frames: &mut VecDeque<TxFrame>) {
        self.copy_offered(umem, frames);
        let before = frames.len();
        self.device.tx_burst(now, umem, frames);
        let sent = before.saturating_sub(frames.len());
        let (bytes, lens) = (std::mem::take(&mut self.offered), std::mem::take(&mut self.offered_lens));
        let mut rest = &bytes[..];
        for &len in lens.iter().take(sent) {
            let (frame, next) = rest.split_at(len);
            self.record(now, Direction::Outbound, frame);
            rest = next;
        }
        (self.offered, self.offered_lens) = (bytes, lens);
        self.recorder.lock().flush_if_due(now);
    }

    fn completions(&mut self, umem: &mut Umem, done: &mut Vec<CompletedFrame>) {
        self.device.completions(umem, done);
    }

    fn replenish(&mut self, umem: &mut Umem) {
        self.device.replenish(umem);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        [self.recorder.lock().flush_at, self.device.poll_timeout()].into_iter().flatten().min()
    }

    fn before_sleep(&mut self) -> bool {
        let has_more = self.device.before_sleep();
        if !has_more {
            self.recorder.lock().flush();
        }
        has_more
    }

    fn failure(&mut self) -> Option<io::Error> {
        self.device.failure()
    }

    fn fds(&self) -> io::Result<Vec<OwnedFd>> {
        self.device.fds()
    }

    fn chunks_held(&self, umem: &Umem) -> Option<usize> {
        self.device.chunks_held(umem)
    }

    fn describe(&self) -> String {
        format!("{}, captured", self.device.describe())
    }

    fn counters(&self) -> io::Result<Vec<(&'static str, u64)>> {
        let mut counters = self.device.counters()?;
        counters.push(("captured", self.recorded));
        Ok(counters)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.recorder.lock().flush();
    }
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture").field("recorded", &self.recorded).finish_non_exhaustive()
    }
}

fn io_error(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use pcap_file::pcapng::{Block, PcapNgReader};

    use super::*;
    use crate::device::memory;

    /// A file in memory, which can become full.
    #[derive(Clone, Default)]
    struct File {
        bytes: Arc<Mutex<Vec<u8>>>,
        is_full: Arc<Mutex<bool>>,
    }

    impl Write for File {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if *self.is_full.lock().expect("lock") {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            self.bytes.lock().expect("lock").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Rig {
        capture: Capture,
        far: memory::WireEnd,
        umem: Umem,
        file: File,
    }

    fn rig(ring_size: usize) -> Rig {
        let (device, far) = memory::tap(memory::Options { ring_size, ..Default::default() });
        let file = File::default();
        let epoch = Duration::from_secs(1_700_000_000);
        let recorder = Recorder::to_writer(Box::new(file.clone()), "xs-a", epoch).expect("the header");
        let capture = Capture::new(Box::new(device), &recorder);
        Rig { capture, far, umem: Umem::on_heap(8).expect("memory"), file }
    }

    impl Rig {
        fn send(&mut self, now: Instant, frames: &[&[u8]]) -> VecDeque<TxFrame> {
            let mut queue = VecDeque::new();
            for bytes in frames {
                let mut frame = self.umem.allocate().expect("a chunk").into_tx();
                self.umem.tx_buffer(&mut frame)[..bytes.len()].copy_from_slice(bytes);
                frame.set_len(bytes.len());
                queue.push_back(frame);
            }
            self.capture.tx_burst(now, &mut self.umem, &mut queue);
            queue
        }

        /// Direction, time since 1970 and bytes of each frame that is in the file.
        fn recorded(&self) -> Vec<(u32, Duration, Vec<u8>)> {
            let bytes = self.file.bytes.lock().expect("lock").clone();
            let mut reader = PcapNgReader::new(&bytes[..]).expect("a header");
            let mut recorded = Vec::new();
            while let Some(block) = reader.next_block() {
                if let Block::EnhancedPacket(packet) = block.expect("a whole block") {
                    let flags = packet.options.iter().find_map(|option| match option {
                        EnhancedPacketOption::Flags(flags) => Some(*flags),
                        _ => None,
                    });
                    recorded.push((flags.expect("flags"), packet.timestamp, packet.data.into_owned()));
                }
            }
            recorded
        }
    }

    #[test]
    fn both_directions_are_recorded_with_their_time() {
        let mut rig = rig(8);
        assert!(rig.send(Instant::from_nanos(5), &[b"outbound"]).is_empty());
        assert!(rig.far.send(b"inbound"));
        let mut frames = Vec::new();
        rig.capture.rx_burst(Instant::from_millis(1), &mut rig.umem, &mut frames);
        assert_eq!(frames.len(), 1);
        assert!(rig.recorded().is_empty(), "still in the buffer");
        assert_eq!(rig.capture.poll_timeout(), Some(Instant::from_nanos(5) + FLUSH_AFTER));
        assert!(!rig.capture.before_sleep());
        let epoch = Duration::from_secs(1_700_000_000);
        assert_eq!(
            rig.recorded(),
            [
                (2, epoch + Duration::from_nanos(5), b"outbound".to_vec()),
                (1, epoch + Duration::from_millis(1), b"inbound".to_vec())
            ]
        );
        assert_eq!(rig.capture.poll_timeout(), None);
    }

    #[test]
    fn a_frame_that_found_no_room_is_not_recorded() {
        let mut rig = rig(1);
        let left = rig.send(Instant::ZERO, &[b"sent", b"not sent"]);
        assert_eq!(left.len(), 1);
        assert!(!rig.capture.before_sleep());
        assert_eq!(rig.recorded().len(), 1);
    }

    #[test]
    fn a_busy_capture_is_flushed_when_it_is_due() {
        let mut rig = rig(8);
        rig.send(Instant::ZERO, &[b"one"]);
        rig.capture.rx_burst(Instant::ZERO + FLUSH_AFTER, &mut rig.umem, &mut Vec::new());
        assert_eq!(rig.recorded().len(), 1);
    }

    #[test]
    fn dropping_it_flushes_it() {
        let mut rig = rig(8);
        rig.send(Instant::ZERO, &[b"one"]);
        let file = rig.file.clone();
        let before = file.bytes.lock().expect("lock").len();
        drop(rig);
        assert!(file.bytes.lock().expect("lock").len() > before);
    }

    #[test]
    fn queues_of_one_nic_record_to_one_file() {
        let mut rig = rig(8);
        let (device, far) = memory::tap(memory::Options::default());
        let mut other = Capture::new(Box::new(device), &rig.capture.recorder);
        let mut umem = Umem::on_heap(8).expect("memory");
        rig.send(Instant::ZERO, &[b"one"]);
        assert!(far.send(b"two"));
        other.rx_burst(Instant::from_millis(1), &mut umem, &mut Vec::new());
        drop(other);
        let frames: Vec<_> =
            rig.recorded().into_iter().map(|(direction, _, bytes)| (direction, bytes)).collect();
        assert_eq!(frames, [(2, b"one".to_vec()), (1, b"two".to_vec())]);
    }

    #[test]
    fn a_full_disk_ends_the_capture_and_not_the_transfer() {
        let mut rig = rig(8);
        *rig.file.is_full.lock().expect("lock") = true;
        rig.send(Instant::ZERO, &[b"one"]);
        assert!(!rig.capture.before_sleep());
        assert!(rig.capture.recorder.lock().file.is_none());
        assert!(rig.send(Instant::ZERO, &[b"two"]).is_empty());
        assert_eq!(rig.far.waiting(), 2);
    }
}
