//! TCP options (RFC 9293 §3.2): maximum segment size, window scale and timestamps (RFC 7323), SACK (RFC 2018), user
//! time-out (RFC 5482).

use super::{seq::SeqNumber, user_timeout::UserTimeout};

/// Bytes of the timestamps option with the two NOPs that align it (RFC 7323, appendix A).
pub const TIMESTAMPS_LEN: usize = 12;

/// Bytes of the user time-out option (RFC 5482 §3.3).
const USER_TIMEOUT_LEN: usize = 4;

/// SACK blocks that fit beside nothing else, or a user time-out: 2 + 4 * 8 of 40 bytes (RFC 2018 §3).
pub const MAX_SACK_BLOCKS: usize = 4;

/// SACK blocks that fit beside timestamps.
pub const MAX_SACK_BLOCKS_WITH_TIMESTAMPS: usize = 3;

/// SACK blocks that fit beside timestamps and a user time-out.
pub const MAX_SACK_BLOCKS_WITH_BOTH: usize = 2;

/// The largest shift of a window scale; a peer's larger one counts as this (RFC 7323 §2.3).
pub const MAX_WINDOW_SCALE: u8 = 14;

/// The room for options: the data offset counts up to 15 words, and the fixed header takes 5.
pub const MAX_LEN: usize = 40;

/// The options of one segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The largest payload that the sender wants to receive (RFC 9293 §3.7.1). On SYN only (MUST-65).
    pub mss: Option<u16>,
    /// The shift that the sender applies to windows in the segments after this one. On SYN only.
    pub window_scale: Option<u8>,
    /// The sender understands SACK. On SYN only.
    pub sack_permitted: bool,
    /// Timestamps.
    pub timestamps: Option<Timestamps>,
    /// Data that has arrived out of order.
    pub sack: SackBlocks,
    /// How long the sender waits for acknowledgements (RFC 5482). On SYN and on ACKs without data only, since the payload
    /// of a data segment has a fixed place.
    pub user_timeout: Option<UserTimeout>,
}

/// The timestamps option (RFC 7323 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamps {
    /// The sender's clock.
    pub value: u32,
    /// Our clock, as the sender saw it last; it counts in segments with ACK.
    pub echo: u32,
}

/// Up to four ranges, in the order in which they stand in the option.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SackBlocks {
    blocks: [(SeqNumber, SeqNumber); MAX_SACK_BLOCKS],
    len: u8,
}

impl SackBlocks {
    /// Adds the range `left..right`; a fifth one is left out.
    pub fn push(&mut self, left: SeqNumber, right: SeqNumber) {
        if let Some(slot) = self.blocks.get_mut(usize::from(self.len)) {
            *slot = (left, right);
            self.len += 1;
        }
    }

    /// The ranges, each with the first number after it.
    pub fn iter(&self) -> impl Iterator<Item = (SeqNumber, SeqNumber)> + '_ {
        self.blocks.iter().take(usize::from(self.len)).copied()
    }

    /// How many ranges there are.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

mod kind {
    pub(super) const END: u8 = 0;
    pub(super) const NOP: u8 = 1;
    pub(super) const MSS: u8 = 2;
    pub(super) const WINDOW_SCALE: u8 = 3;
    pub(super) const SACK_PERMITTED: u8 = 4;
    pub(super) const SACK: u8 = 5;
    pub(super) const TIMESTAMPS: u8 = 8;
    pub(super) const USER_TIMEOUT: u8 = 28;
}

impl Options {
    /// Reads the options of a segment, of whatever kind it is (RFC 9293 §3.1, MUST-4 and MUST-5), wherever in the
    /// header they begin (§3.2, MUST-64).
    ///
    /// Options that we don't know are skipped by their length (RFC 9293 §3.1, MUST-6). One whose length is
    /// impossible ends the reading, since nothing behind it can be told apart any more (MUST-7); what came
    /// before it counts, as everywhere else.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Self {
        // Nearly all segments have timestamps in the form of RFC 7323, appendix A, and nothing else.
        if let &[kind::NOP, kind::NOP, kind::TIMESTAMPS, 10, a, b, c, d, e, f, g, h] = bytes {
            let [value, echo] = [[a, b, c, d], [e, f, g, h]].map(u32::from_be_bytes);
            return Self { timestamps: Some(Timestamps { value, echo }), ..Self::default() };
        }
        Self::parse_any(bytes)
    }

    fn parse_any(mut bytes: &[u8]) -> Self {
        let mut options = Self::default();
        loop {
            bytes = match *bytes {
                [] | [kind::END, ..] => return options,
                [kind::NOP, ref rest @ ..] => rest,
                [kind, len, ..] => {
                    let Some((option, rest)) = bytes.split_at_checked(usize::from(len)) else {
                        return options;
                    };
                    let Some(data) = option.get(2..) else { return options };
                    options.read(kind, data);
                    rest
                }
                [_] => return options,
            };
        }
    }

    fn read(&mut self, kind: u8, data: &[u8]) {
        match (kind, data) {
            (kind::MSS, &[a, b]) => self.mss = Some(u16::from_be_bytes([a, b])),
            (kind::WINDOW_SCALE, &[shift]) => self.window_scale = Some(shift.min(MAX_WINDOW_SCALE)),
            (kind::USER_TIMEOUT, &[a, b]) => {
                self.user_timeout = UserTimeout::from_bits(u16::from_be_bytes([a, b]));
            }
            (kind::SACK_PERMITTED, []) => self.sack_permitted = true,
            (kind::TIMESTAMPS, data) if data.len() == 8 => {
                self.timestamps =
                    word(data, 0).zip(word(data, 4)).map(|(value, echo)| Timestamps { value, echo });
            }
            (kind::SACK, data) if data.len().is_multiple_of(8) => {
                for block in data.chunks_exact(8) {
                    if let Some((left, right)) = word(block, 0).zip(word(block, 4)) {
                        self.sack.push(SeqNumber(left), SeqNumber(right));
                    }
                }
            }
            _ => {}
        }
    }

    /// Bytes that the options take, padding included: always a multiple of four.
    pub fn len(&self) -> usize {
        let mut len = 0;
        len += if self.mss.is_some() { 4 } else { 0 };
        len += if self.window_scale.is_some() { 4 } else { 0 };
        len += if self.sack_permitted { 4 } else { 0 };
        len += if self.timestamps.is_some() { TIMESTAMPS_LEN } else { 0 };
        len += if self.user_timeout.is_some() { USER_TIMEOUT_LEN } else { 0 };
        len += if self.sack.is_empty() { 0 } else { 4 + 8 * self.sack.len() };
        len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes the options to the front of `bytes`, each with its length (MUST-68) and aligned to four bytes by NOPs, and
    /// returns their length.
    pub fn emit(&self, bytes: &mut [u8]) -> usize {
        let mut out = Writer { bytes, at: 0 };
        if let Some(mss) = self.mss {
            out.put(&[kind::MSS, 4]);
            out.put(&mss.to_be_bytes());
        }
        if self.sack_permitted {
            out.put(&[kind::NOP, kind::NOP, kind::SACK_PERMITTED, 2]);
        }
        if let Some(Timestamps { value, echo }) = self.timestamps {
            out.put(&[kind::NOP, kind::NOP, kind::TIMESTAMPS, 10]);
            out.put(&value.to_be_bytes());
            out.put(&echo.to_be_bytes());
        }
        if let Some(shift) = self.window_scale {
            out.put(&[kind::NOP, kind::WINDOW_SCALE, 3, shift]);
        }
        if let Some(user_timeout) = self.user_timeout {
            out.put(&[kind::USER_TIMEOUT, USER_TIMEOUT_LEN as u8]);
            out.put(&user_timeout.bits().to_be_bytes());
        }
        if !self.sack.is_empty() {
            out.put(&[kind::NOP, kind::NOP, kind::SACK, 2 + 8 * self.sack.len]);
            for (left, right) in self.sack.iter() {
                out.put(&left.0.to_be_bytes());
                out.put(&right.0.to_be_bytes());
            }
        }
        debug_assert_eq!(out.at, self.len());
        out.at
    }
}

struct Writer<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl Writer<'_> {
    fn put(&mut self, part: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.at..self.at + part.len()) {
            room.copy_from_slice(part);
        }
        self.at += part.len();
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_be_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn syn_options() -> Options {
        Options {
            mss: Some(1460),
            window_scale: Some(7),
            sack_permitted: true,
            timestamps: Some(Timestamps { value: 1, echo: 0 }),
            sack: SackBlocks::default(),
            user_timeout: UserTimeout::from_bits(300),
        }
    }

    /// With lengths that lead from each to the next (MUST-68), and no byte of padding.
    #[test]
    fn what_is_written_is_read() {
        let mut bytes = [0; MAX_LEN];
        let len = syn_options().emit(&mut bytes);
        assert_eq!(len, 28);
        assert_eq!(Options::parse(&bytes[..len]), syn_options());

        let mut ack = Options { timestamps: Some(Timestamps { value: 5, echo: 6 }), ..Options::default() };
        for i in 0..3 {
            ack.sack.push(SeqNumber(i * 10), SeqNumber(i * 10 + 5));
        }
        let len = ack.emit(&mut bytes);
        assert_eq!(len, MAX_LEN);
        assert_eq!(Options::parse(&bytes[..len]), ack);
    }

    #[test]
    fn a_user_timeout_is_kind_28_and_one_of_zero_says_nothing_rfc5482_3_3() {
        let user_timeout = |bytes: &[u8]| Options::parse(bytes).user_timeout.map(UserTimeout::bits);
        assert_eq!(user_timeout(&[28, 4, 0x80, 5]), Some(0x8005));
        assert_eq!(user_timeout(&[28, 4, 0, 0]), None);
        assert_eq!(user_timeout(&[28, 3, 1, kind::NOP]), None);
        let mut ack = Options { user_timeout: UserTimeout::from_bits(7), ..Options::default() };
        (0..4).for_each(|i| ack.sack.push(SeqNumber(i * 10), SeqNumber(i * 10 + 5)));
        let mut bytes = [0; MAX_LEN];
        assert_eq!(ack.emit(&mut bytes), MAX_LEN);
        assert_eq!(Options::parse(&bytes), ack);
    }

    #[test]
    fn unknown_options_are_skipped_must_6() {
        let bytes = [254, 6, 1, 2, 3, 4, kind::NOP, kind::MSS, 4, 0x05, 0xb4, kind::END, kind::MSS, 4, 9, 9];
        assert_eq!(Options::parse(&bytes), Options { mss: Some(1460), ..Options::default() });
    }

    #[test]
    fn impossible_lengths_end_the_reading_must_7() {
        let mss = Options { mss: Some(1460), ..Options::default() };
        for tail in
            [&[254, 0, 0, 0][..], &[254, 1], &[kind::TIMESTAMPS, 10, 1, 2], &[kind::SACK], &[254, 255]]
        {
            let bytes = [&[kind::MSS, 4, 0x05, 0xb4], tail].concat();
            assert_eq!(Options::parse(&bytes), mss, "{tail:?}");
        }
        assert_eq!(
            Options::parse(&[kind::MSS, 3, 5]),
            Options::default(),
            "a known option of a wrong length"
        );
    }

    #[test]
    fn a_window_scale_above_14_counts_as_14() {
        assert_eq!(Options::parse(&[kind::WINDOW_SCALE, 3, 200]).window_scale, Some(14));
    }

    proptest! {
        #[test]
        fn rfc7323_a_timestamps_alone_are_read_as_among_others(stamps in any::<[u8; 8]>(), others in any::<bool>()) {
            let aligned = [&[kind::NOP, kind::NOP, kind::TIMESTAMPS, 10], &stamps[..]].concat();
            let more = if others { [&aligned[..], &[kind::END; 4]].concat() } else { aligned.clone() };
            proptest::prop_assert_eq!(Options::parse(&aligned), Options::parse_any(&more));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..=MAX_LEN)) {
            let _ = Options::parse(&bytes);
        }
    }
}
