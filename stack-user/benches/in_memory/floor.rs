//! What TCP can't do without: the sender copies the bytes from its application and sums them, the receiver sums them and
//! copies them to its application. In the same portions as the stacks do it, through as much memory.

use super::{APPLICATION_BUFFER, BURST, MTU, Stream, pattern};

/// Where frames lie: our chunks' size, and the place of a payload in them.
const CHUNK: usize = 4096;
const PAYLOAD_AT: usize = 256 + 66;

/// The copies and sums alone.
pub(crate) struct Floor {
    source: Vec<u8>,
    sink: Vec<u8>,
    frames: Vec<u8>,
    chunks: usize,
    next: usize,
    sums: u64,
}

impl Floor {
    /// With as many frames as buffers of that size hold.
    pub(crate) fn new(buffers: usize) -> Self {
        let chunks = buffers.div_ceil(MTU - 52).max(BURST);
        Self {
            source: pattern(APPLICATION_BUFFER),
            sink: vec![0; APPLICATION_BUFFER],
            frames: vec![0; chunks * CHUNK],
            chunks,
            next: 0,
            sums: 0,
        }
    }
}

impl Stream for Floor {
    fn carry(&mut self, bytes: usize) {
        let len = self.segment();
        let mut carried = 0;
        while carried < bytes {
            let burst: [usize; BURST] =
                std::array::from_fn(|i| (self.next + i) % self.chunks * CHUNK + PAYLOAD_AT);
            let place = |i: usize| i * len..(i + 1) * len;
            for (i, at) in burst.into_iter().enumerate() {
                self.frames[at..at + len].copy_from_slice(&self.source[place(i)]);
            }
            for _end in ["sender", "receiver"] {
                for at in burst {
                    self.sums += sum(&self.frames[at..at + len]);
                }
            }
            for (i, at) in burst.into_iter().enumerate() {
                self.sink[place(i)].copy_from_slice(&self.frames[at..at + len]);
            }
            self.next = (self.next + BURST) % self.chunks;
            carried += BURST * len;
        }
        std::hint::black_box((self.sums, &self.sink));
    }

    fn segment(&self) -> usize {
        MTU - 52
    }
}

/// As quick as the CPU can: the compiler makes vectors of it.
#[multiversion::multiversion(targets("x86_64+avx2"))]
fn sum(bytes: &[u8]) -> u64 {
    let mut sums = [0u64; 8];
    let mut blocks = bytes.chunks_exact(32);
    for block in &mut blocks {
        for (sum, word) in sums.iter_mut().zip(block.chunks_exact(4)) {
            *sum += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        }
    }
    let rest: u64 = blocks.remainder().iter().map(|&byte| u64::from(byte)).sum();
    sums.iter().sum::<u64>() + rest
}
