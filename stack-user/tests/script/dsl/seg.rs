//! Segments of a script: what is injected, what is expected, and what was seen.

use std::net::SocketAddr;

use super::row::{ANY, COLUMNS, Row};
use stack_user::{
    tcp::{
        Segment, SeqNumber,
        options::{Options, Timestamps},
    },
    wire::{
        checksum::Sum,
        protocol,
        tcp::{Flags, Header},
    },
};

/// The shift that the scripted peer announces if window scaling is on.
const PEER_SHIFT: u8 = 7;

/// The letters of the flags, from the lowest bit up.
const LETTERS: &str = "FSRP.UEW";

/// One segment of a script: what is not said is not compared, and has a plain value when it is injected.
#[derive(Clone, Debug)]
pub(crate) struct Seg {
    pub(super) flags: Flags,
    pub(super) seq: i64,
    pub(super) ack: Option<i64>,
    pub(super) window: Option<u32>,
    pub(super) urgent: Option<u16>,
    pub(super) data: Option<Vec<u8>>,
    pub(super) sack: Option<Vec<(i64, i64)>>,
    pub(super) options: Option<Options>,
    pub(super) raw_options: Vec<u8>,
    pub(super) timestamp: Option<u32>,
    pub(super) echo: Option<u32>,
    pub(super) exact_flags: bool,
    pub(super) ce: bool,
}

/// The sequence number of a place in a stream.
pub(super) fn at(zero: SeqNumber, relative: i64) -> SeqNumber {
    SeqNumber(zero.0.wrapping_add(1).wrapping_add(relative as u32))
}

/// A segment by its flags: `F`, `S`, `R`, `P`, `U`, `E` (ECE), `W` (CWR); `.` is ACK.
pub(crate) fn seg(flags: &str) -> Seg {
    let bit = |letter| LETTERS.find(letter).unwrap_or_else(|| panic!("no flag is called {letter}"));
    let flags = Flags(flags.chars().fold(0, |flags, letter| flags | 1 << bit(letter)));
    Seg {
        flags,
        seq: 0,
        ack: None,
        window: None,
        urgent: None,
        data: None,
        sack: None,
        options: None,
        raw_options: Vec::new(),
        timestamp: None,
        echo: None,
        exact_flags: false,
        ce: false,
    }
}

impl Seg {
    /// A router on the way to us has marked the packet (RFC 3168 §5).
    pub(crate) fn ce(mut self) -> Self {
        self.ce = true;
        self
    }

    pub(crate) fn seq(mut self, seq: i64) -> Self {
        self.seq = seq;
        self
    }

    pub(crate) fn ack(mut self, ack: i64) -> Self {
        self.ack = Some(ack);
        self
    }

    /// The window in bytes, as its receiver is to understand it.
    pub(crate) fn window(mut self, window: u32) -> Self {
        self.window = Some(window);
        self
    }

    /// The urgent pointer. The flag is not set by that.
    pub(crate) fn urgent(mut self, urgent: u16) -> Self {
        self.urgent = Some(urgent);
        self
    }

    pub(crate) fn data(mut self, data: &[u8]) -> Self {
        self.data = Some(data.to_vec());
        self
    }

    /// As many bytes as that; which ones, [`pattern`] says by their place.
    pub(crate) fn len(mut self, len: usize) -> Self {
        self.data = Some(pattern(self.seq, len));
        self
    }

    pub(crate) fn sack(mut self, blocks: &[(i64, i64)]) -> Self {
        self.sack = Some(blocks.to_vec());
        self
    }

    /// All options. Of expected timestamps, only that they are there: their values are [`timestamp`](Self::timestamp)
    /// and [`echo`](Self::echo).
    pub(crate) fn options(mut self, options: Options) -> Self {
        self.options = Some(options);
        self
    }

    /// Bytes of options behind those of [`options`](Self::options); padded with NOPs.
    pub(crate) fn raw_options(mut self, bytes: &[u8]) -> Self {
        self.raw_options = bytes.to_vec();
        while !self.raw_options.len().is_multiple_of(4) {
            self.raw_options.push(1);
        }
        self
    }

    /// TSval. Without it, an injected segment's is of a clock that runs as ours does.
    pub(crate) fn timestamp(mut self, value: u32) -> Self {
        self.timestamp = Some(value);
        self
    }

    /// TSecr. Without it, an injected segment's is the latest TSval of ours.
    pub(crate) fn echo(mut self, echo: u32) -> Self {
        self.echo = Some(echo);
        self
    }

    /// PSH is compared, too; else only if it is expected to be set.
    pub(crate) fn exact_flags(mut self) -> Self {
        self.exact_flags = true;
        self
    }

    /// The segment as it is on the wire, with those options beside what it says itself. `zero` are the initial sequence
    /// numbers of its sender and of its receiver.
    pub(super) fn bytes(
        &self,
        from: SocketAddr,
        to: SocketAddr,
        zero: (SeqNumber, SeqNumber),
        mut options: Options,
        shift: u8,
    ) -> Vec<u8> {
        for (left, right) in self.sack.iter().flatten() {
            options.sack.push(at(zero.1, *left), at(zero.1, *right));
        }
        let header = Header {
            source: from.port(),
            destination: to.port(),
            seq: at(zero.0, self.seq).0,
            ack: self.ack.map_or(0, |ack| at(zero.1, ack).0),
            flags: self.flags,
            window: (self.window.unwrap_or(65_535) >> shift) as u16,
            urgent: self.urgent.unwrap_or(0),
        };
        let mut bytes = vec![0; Header::LEN + options.len()];
        options.emit(&mut bytes[Header::LEN..]);
        bytes.extend_from_slice(&self.raw_options);
        header.emit(options.len() + self.raw_options.len(), &mut bytes);
        bytes.extend_from_slice(self.data.as_deref().unwrap_or_default());
        let sum = Sum::pseudo_header(from.ip(), to.ip(), protocol::TCP, bytes.len());
        let checksum = sum.bytes(&bytes).finish();
        Header::set_checksum(&mut bytes, checksum);
        bytes
    }

    /// How this segment is written, if it is expected.
    pub(super) fn row(&self) -> Row {
        let len = self.data.as_ref().map_or(0, Vec::len);
        let mut options = self.options.map_or(String::new(), |options| describe_options(&options));
        for (left, right) in self.sack.iter().flatten() {
            options += &format!(" sack {left}:{right}");
        }
        if self.options.is_none() && self.sack.is_none() {
            options = ANY.to_owned();
        }
        options += &self.timestamp.map_or(String::new(), |value| format!(" val {value}"));
        options += &self.echo.map_or(String::new(), |echo| format!(" ecr {echo}"));
        let or_any = |text: Option<String>| text.unwrap_or_else(|| ANY.to_owned());
        Row([
            letters(self.flags),
            numbers(self.seq, len),
            or_any(self.ack.map(|ack| format!("ack {ack}"))),
            or_any(self.window.map(|window| format!("win {window}"))),
            self.urgent.map_or(String::new(), |urgent| format!("urg {urgent}")),
            options.trim_start().to_owned(),
        ])
    }

    /// In which columns what was seen is not what this segment says.
    pub(super) fn differences(&self, seen: &Seen) -> [bool; COLUMNS] {
        // PSH is a hint: it is compared only if the script names it.
        let hint = if self.exact_flags || self.flags.contains(Flags::PSH) { 0 } else { Flags::PSH.0 };
        let data = self.data.as_deref().unwrap_or_default();
        let timestamps = seen.options.timestamps;
        let options = self.options.is_some_and(|options| !same_options(&options, &seen.options))
            || self.sack.as_ref().is_some_and(|sack| *sack != seen.sack)
            || self.timestamp.is_some_and(|value| timestamps.map(|ts| ts.value) != Some(value))
            || self.echo.is_some_and(|echo| timestamps.map(|ts| ts.echo) != Some(echo));
        [
            seen.flags.0 & !hint != self.flags.0,
            seen.seq != self.seq || seen.data != data,
            self.ack.is_some() && self.ack != seen.ack,
            self.window.is_some_and(|window| window != seen.window),
            self.urgent.is_some_and(|urgent| urgent != seen.urgent),
            options,
        ]
    }
}

/// A segment that was sent, by either side, with the numbers of a script.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) flags: Flags,
    pub(super) seq: i64,
    pub(super) ack: Option<i64>,
    pub(super) window: u32,
    pub(super) urgent: u16,
    pub(super) data: Vec<u8>,
    pub(super) sack: Vec<(i64, i64)>,
    pub(super) options: Options,
}

impl Seen {
    /// `zero` are the initial sequence numbers of its sender and of its receiver.
    pub(super) fn new(segment: &Segment, data: &[u8], zero: (SeqNumber, SeqNumber), shift: u8) -> Self {
        let relative = |number: SeqNumber, zero: SeqNumber| i64::from(number.distance(zero + 1));
        let sack = segment.options.sack.iter().map(|(l, r)| (relative(l, zero.1), relative(r, zero.1)));
        Self {
            flags: segment.flags,
            seq: relative(segment.seq, zero.0),
            ack: segment.acknowledges().map(|ack| relative(ack, zero.1)),
            window: u32::from(segment.window) << if segment.syn() { 0 } else { shift },
            urgent: segment.urgent,
            data: data.to_vec(),
            sack: sack.collect(),
            options: segment.options,
        }
    }

    pub(super) fn row(&self) -> Row {
        let mut options = describe_options(&self.options);
        for (left, right) in &self.sack {
            options += &format!(" sack {left}:{right}");
        }
        if let Some(Timestamps { value, echo }) = self.options.timestamps {
            options += &format!(" val {value} ecr {echo}");
        }
        let urgent = self.flags.contains(Flags::URG) || self.urgent != 0;
        Row([
            letters(self.flags),
            numbers(self.seq, self.data.len()),
            self.ack.map_or(String::new(), |ack| format!("ack {ack}")),
            format!("win {}", self.window),
            if urgent { format!("urg {}", self.urgent) } else { String::new() },
            options.trim_start().to_owned(),
        ])
    }
}

fn letters(flags: Flags) -> String {
    let set = LETTERS.chars().enumerate().filter(|&(bit, _)| flags.0 & (1 << bit) != 0);
    set.map(|(_, letter)| letter).collect()
}

fn numbers(seq: i64, len: usize) -> String {
    if len == 0 { format!("seq {seq}") } else { format!("seq {seq}:{}({len})", seq + len as i64) }
}

/// All but SACK blocks and the values of timestamps.
fn describe_options(options: &Options) -> String {
    let mut words = Vec::new();
    words.extend(options.mss.map(|mss| format!("mss {mss}")));
    words.extend(options.sack_permitted.then(|| "sackOK".to_owned()));
    words.extend(options.timestamps.map(|_| "TS".to_owned()));
    words.extend(options.window_scale.map(|shift| format!("wscale {shift}")));
    words.extend(options.user_timeout.map(|told| format!("uto {:?}", told.duration())));
    words.join(" ")
}

/// Whether two segments have the same options, whatever the values of timestamps and SACK blocks.
fn same_options(a: &Options, b: &Options) -> bool {
    (a.mss, a.window_scale, a.sack_permitted, a.timestamps.is_some(), a.user_timeout)
        == (b.mss, b.window_scale, b.sack_permitted, b.timestamps.is_some(), b.user_timeout)
}

/// Bytes that differ from place to place in a stream.
pub(crate) fn pattern(at: i64, len: usize) -> Vec<u8> {
    (at..).take(len).map(|at| at.rem_euclid(251) as u8).collect()
}

/// The options of a peer that speaks all.
pub(crate) fn all_options() -> Options {
    Options {
        mss: Some(1460),
        window_scale: Some(PEER_SHIFT),
        sack_permitted: true,
        timestamps: Some(Timestamps { value: 0, echo: 0 }),
        ..Options::default()
    }
}

/// The options of a peer that speaks none but MSS, of 1000, so that numbers are round.
pub(crate) fn plain_options() -> Options {
    Options { mss: Some(1000), ..Options::default() }
}

/// [`plain_options`] with SACK.
pub(crate) fn sack_options() -> Options {
    Options { sack_permitted: true, ..plain_options() }
}
