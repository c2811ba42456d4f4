//! What is to be measured: as the client asks for it, and as both ends then know it.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::control::Broken;

/// Streams in each direction, as many as iperf3 allows.
pub(super) const MAX_STREAMS: u32 = 128;

/// Seconds, as iperf3 has it: a day.
pub(super) const MAX_SECONDS: u64 = 86_400;

/// Seconds that may be left out at the beginning, as iperf3 has it.
pub(super) const MAX_OMIT: u64 = 600;

/// Bytes of a write, as iperf3 has it. More only take more memory.
pub(super) const MAX_BLOCK: usize = 1024 * 1024;

/// What iperf3 writes at once if nobody says otherwise.
pub(super) const DEFAULT_TCP_BLOCK: usize = 128 * 1024;

/// What fits into a packet of nearly every path, for a datagram of which nothing better is known.
pub(super) const DEFAULT_UDP_BLOCK: usize = 1460;

/// A datagram begins with two times of four bytes and a number of eight.
pub(super) const MIN_UDP_BLOCK: usize = 16;

/// What an IPv4 packet can carry of UDP.
pub(super) const MAX_UDP_BLOCK: usize = 65_535 - 20 - 8;

/// Blocks that are sent in one go between two looks at the clock, as iperf3 has it.
pub(super) const MAX_BURST: u32 = 1000;

/// Where streams are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// The client.
    Forward,
    /// The server.
    Reverse,
    /// Both.
    Both,
}

/// When it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// After so many seconds.
    Seconds(u64),
    /// After so many bytes in one direction, all streams together.
    Bytes(u64),
    /// After so many blocks, or datagrams.
    Blocks(u64),
    /// When somebody says so.
    Never,
}

/// A test, with every number in its bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Test {
    pub(super) protocol: Protocol,
    pub(super) direction: Direction,
    /// In each direction.
    pub(super) streams: u32,
    pub(super) end: End,
    /// Seconds at the beginning that don't count.
    pub(super) omit: u64,
    /// Bytes of a write or a datagram.
    pub(super) block: usize,
    /// Bits per second that each stream may send; 0 for as many as it can.
    pub(super) rate: u64,
    /// Blocks between two looks at the clock, if there is a rate; 0 for one.
    pub(super) burst: u32,
    /// Datagrams are numbered in eight bytes in place of four.
    pub(super) wide_counters: bool,
}

/// The same as the protocol has it. Fields that are not here change nothing that we do.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Parameters {
    #[serde(skip_serializing_if = "is_not", deserialize_with = "flag")]
    tcp: bool,
    #[serde(skip_serializing_if = "is_not", deserialize_with = "flag")]
    udp: bool,
    #[serde(skip_serializing, deserialize_with = "flag")]
    sctp: bool,
    #[serde(deserialize_with = "number")]
    omit: u64,
    #[serde(deserialize_with = "number")]
    time: u64,
    #[serde(deserialize_with = "number")]
    num: u64,
    #[serde(deserialize_with = "number")]
    blockcount: u64,
    #[serde(deserialize_with = "number")]
    parallel: u64,
    #[serde(skip_serializing_if = "is_not", deserialize_with = "flag")]
    reverse: bool,
    #[serde(skip_serializing_if = "is_not", deserialize_with = "flag")]
    bidirectional: bool,
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "number")]
    len: u64,
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "number")]
    bandwidth: u64,
    /// Microseconds between two looks at the clock; told because iperf3's servers take what they are told.
    #[serde(deserialize_with = "number")]
    pacing_timer: u64,
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "number")]
    burst: u64,
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "number")]
    udp_counters_64bit: u64,
    #[serde(skip_deserializing)]
    client_version: &'static str,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_not(flag: &bool) -> bool {
    !flag
}

/// iperf3 says `true` or a number, and looks only whether the field is there.
fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(!matches!(Value::deserialize(deserializer)?, Value::Null | Value::Bool(false)))
}

/// iperf3 writes numbers as C has doubles: large ones with an exponent.
pub(super) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let number = f64::deserialize(deserializer)?;
    // What is no count says so; what is larger than can be is told by the bounds.
    if number >= 0.0 { Ok(number as u64) } else { Err(serde::de::Error::custom("a count that is negative")) }
}

impl From<&Test> for Parameters {
    fn from(test: &Test) -> Self {
        let Test { protocol, direction, streams, end, omit, block, rate, burst, wide_counters } = *test;
        let (time, num, blockcount) = match end {
            End::Seconds(seconds) => (seconds, 0, 0),
            End::Bytes(bytes) => (0, bytes, 0),
            End::Blocks(blocks) => (0, 0, blocks),
            End::Never => (0, 0, 0),
        };
        Self {
            tcp: protocol == Protocol::Tcp,
            udp: protocol == Protocol::Udp,
            sctp: false,
            omit,
            time,
            num,
            blockcount,
            parallel: streams.into(),
            reverse: direction == Direction::Reverse,
            bidirectional: direction == Direction::Both,
            len: block as u64,
            bandwidth: rate,
            pacing_timer: 1000,
            burst: burst.into(),
            udp_counters_64bit: u64::from(wide_counters && protocol == Protocol::Udp),
            client_version: "3.12",
        }
    }
}

/// The number that iperf3 has for a reason to refuse a test, so that its client can say it in words.
pub(super) fn error_number(broken: &Broken) -> i32 {
    const IEDURATION: i32 = 5;
    const IENUMSTREAMS: i32 = 6;
    const IEBLOCKSIZE: i32 = 7;
    const IEOMIT: i32 = 12;
    const IEBURST: i32 = 15;
    const IENOSCTP: i32 = 18;
    const IEUDPBLOCKSIZE: i32 = 20;
    const IEREVERSEBIDIR: i32 = 25;
    const IERECVPARAMS: i32 = 114;
    let Broken::Impossible(what) = broken else { return IERECVPARAMS };
    match *what {
        DURATION => IEDURATION,
        STREAMS => IENUMSTREAMS,
        BLOCK => IEBLOCKSIZE,
        UDP_BLOCK => IEUDPBLOCKSIZE,
        OMIT => IEOMIT,
        BURST => IEBURST,
        SCTP => IENOSCTP,
        BOTH_AND_REVERSE => IEREVERSEBIDIR,
        _ => IERECVPARAMS,
    }
}

const DURATION: &str = "it is to last for longer than a day";
const STREAMS: &str = "there are to be 1 to 128 streams in each direction";
const BLOCK: &str = "a write is to be of 1 to 1048576 bytes";
const UDP_BLOCK: &str = "a datagram is to be of 16 to 65507 bytes";
const OMIT: &str = "more than 600 seconds are to be left out";
const BURST: &str = "more than 1000 blocks are to be sent in one go";
const SCTP: &str = "SCTP is not spoken here";
const BOTH_AND_REVERSE: &str = "it is to be in both directions and reverse";

impl TryFrom<Parameters> for Test {
    type Error = Broken;

    fn try_from(asked: Parameters) -> Result<Self, Broken> {
        let check = |holds: bool, what| if holds { Ok(()) } else { Err(Broken::Impossible(what)) };
        check(!asked.sctp, SCTP)?;
        check(asked.time <= MAX_SECONDS, DURATION)?;
        check(asked.omit <= MAX_OMIT, OMIT)?;
        check(!(asked.reverse && asked.bidirectional), BOTH_AND_REVERSE)?;
        let protocol = if asked.udp { Protocol::Udp } else { Protocol::Tcp };
        let streams = u32::try_from(asked.parallel).unwrap_or(u32::MAX);
        check((1..=MAX_STREAMS).contains(&streams), STREAMS)?;
        let len = usize::try_from(asked.len).unwrap_or(usize::MAX);
        let block = match (protocol, len) {
            (Protocol::Tcp, 0) => DEFAULT_TCP_BLOCK,
            (Protocol::Udp, 0) => DEFAULT_UDP_BLOCK,
            (_, len) => len,
        };
        match protocol {
            Protocol::Tcp => check(block <= MAX_BLOCK, BLOCK)?,
            Protocol::Udp => check((MIN_UDP_BLOCK..=MAX_UDP_BLOCK).contains(&block), UDP_BLOCK)?,
        }
        let burst = u32::try_from(asked.burst).unwrap_or(u32::MAX);
        check(burst <= MAX_BURST, BURST)?;
        Ok(Self {
            protocol,
            direction: match (asked.reverse, asked.bidirectional) {
                (false, false) => Direction::Forward,
                (true, _) => Direction::Reverse,
                (_, true) => Direction::Both,
            },
            streams,
            end: match (asked.time, asked.num, asked.blockcount) {
                (0, 0, 0) => End::Never,
                (0, 0, blocks) => End::Blocks(blocks),
                (0, bytes, _) => End::Bytes(bytes),
                (seconds, ..) => End::Seconds(seconds),
            },
            omit: asked.omit,
            block,
            rate: asked.bandwidth,
            burst,
            wide_counters: asked.udp_counters_64bit != 0,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn read(text: &str) -> Result<Test, String> {
        let parameters: Parameters = serde_json::from_str(text).map_err(|error| error.to_string())?;
        Test::try_from(parameters).map_err(|broken| broken.to_string())
    }

    fn plain() -> Test {
        test(Protocol::Tcp, Direction::Forward, 1)
    }

    /// Ten seconds, and nothing else that anybody would have to ask for.
    pub(in crate::cli::bench::iperf3) fn test(
        protocol: Protocol,
        direction: Direction,
        streams: u32,
    ) -> Test {
        Test {
            protocol,
            direction,
            streams,
            end: End::Seconds(10),
            omit: 0,
            block: DEFAULT_TCP_BLOCK,
            rate: 0,
            burst: 0,
            wide_counters: false,
        }
    }

    /// As the client of Debian's 3.12 sends them.
    #[test]
    fn what_the_real_client_asks_for_is_understood() {
        let text = r#"{"tcp":true,"omit":0,"time":10,"num":0,"blockcount":0,"parallel":1,"len":131072,
                       "pacing_timer":1000,"client_version":"3.12"}"#;
        assert_eq!(read(text), Ok(plain()));
        let text = r#"{"udp":true,"omit":2,"time":0,"num":10000000000,"blockcount":0,"parallel":8,"bidirectional":true,
                       "len":1448,"bandwidth":1e+15,"burst":10,"udp_counters_64bit":1,"client_version":"3.12"}"#;
        let test = Test {
            protocol: Protocol::Udp,
            direction: Direction::Both,
            streams: 8,
            end: End::Bytes(10_000_000_000),
            omit: 2,
            block: 1448,
            rate: 1_000_000_000_000_000,
            burst: 10,
            wide_counters: true,
        };
        assert_eq!(read(text), Ok(test));
    }

    #[test]
    fn a_test_is_the_same_at_the_other_end() {
        for test in [
            plain(),
            Test { direction: Direction::Reverse, end: End::Blocks(7), rate: 5, burst: 1000, ..plain() },
            Test { direction: Direction::Both, end: End::Never, streams: 128, block: 1, ..plain() },
            Test {
                protocol: Protocol::Udp,
                block: 16,
                end: End::Bytes(1),
                wide_counters: true,
                omit: 600,
                ..plain()
            },
        ] {
            let text = serde_json::to_string(&Parameters::from(&test)).expect("writes");
            assert_eq!(read(&text), Ok(test), "{text}");
        }
    }

    #[test]
    fn what_a_client_must_not_ask_for_is_refused_by_the_number_that_iperf3_has_for_it() {
        for (text, number) in [
            (r#"{"tcp":true,"time":86401,"parallel":1}"#, 5),
            (r#"{"tcp":true,"time":1e300,"parallel":1}"#, 5),
            (r#"{"tcp":true,"time":1,"parallel":0}"#, 6),
            (r#"{"tcp":true,"time":1,"parallel":129}"#, 6),
            (r#"{"tcp":true,"time":1,"parallel":4294967297}"#, 6),
            (r#"{"tcp":true,"time":1}"#, 6),
            (r#"{"tcp":true,"time":1,"parallel":1,"len":1048577}"#, 7),
            (r#"{"udp":true,"time":1,"parallel":1,"len":15}"#, 20),
            (r#"{"udp":true,"time":1,"parallel":1,"len":65508}"#, 20),
            (r#"{"tcp":true,"omit":601,"parallel":1}"#, 12),
            (r#"{"tcp":true,"parallel":1,"burst":1001}"#, 15),
            (r#"{"sctp":true,"parallel":1}"#, 18),
            (r#"{"tcp":true,"parallel":1,"reverse":true,"bidirectional":true}"#, 25),
        ] {
            let parameters: Parameters = serde_json::from_str(text).expect("JSON");
            let refused = Test::try_from(parameters).expect_err(text);
            assert_eq!(error_number(&refused), number, "{text}: {refused}");
        }
        for text in [r#"{"time":-1}"#, r#"{"parallel":"8"}"#, r#"{"len":[]}"#, "[]x", "7", "null"] {
            assert!(serde_json::from_str::<Parameters>(text).is_err(), "{text}");
        }
    }
}
