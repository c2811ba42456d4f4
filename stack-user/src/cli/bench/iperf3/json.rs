//! What programs read: iperf3's JSON, field by field.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    control::Cookie,
    meter::{Interval, Meter, Whole},
    parameters::{Direction, End, Protocol, Test},
    report::{Side, Stream, Sum, Summary, lost_percent, rate},
};
use crate::{cli::date, device::kernel::release};

/// Lines of intervals that are kept for the end. A test of a day with 128 streams and ten reports a second would have a hundred
/// million, and a client must not have a server keep them; this many are a day of one stream by the second.
const KEPT: usize = 100_000;

/// A document in the making.
#[derive(Debug)]
pub(super) struct Document {
    side: Side,
    test: Test,
    start: Map<String, Value>,
    intervals: Vec<Intervals>,
    kept: usize,
    /// Intervals for which there was no room.
    left_out: u64,
    end: Value,
}

/// One interval of all streams.
#[derive(Debug, Serialize)]
struct Intervals {
    streams: Vec<Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sum: Option<Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sum_bidir_reverse: Option<Row>,
}

/// One interval of one stream, or of all in one direction.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(skip_serializing_if = "Option::is_none")]
    socket: Option<u32>,
    start: f64,
    end: f64,
    seconds: f64,
    bytes: u64,
    bits_per_second: f64,
    #[serde(flatten)]
    tcp: Option<TcpRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retransmits: Option<u64>,
    #[serde(flatten)]
    received: Option<ReceivedRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    packets: Option<u64>,
    omitted: bool,
    sender: bool,
}

#[derive(Debug, Serialize)]
struct TcpRow {
    snd_cwnd: u64,
    snd_wnd: u64,
    rtt: u64,
    rttvar: u64,
    pmtu: u64,
}

#[derive(Debug, Serialize)]
struct ReceivedRow {
    jitter_ms: f64,
    lost_packets: i64,
    lost_percent: f64,
}

impl Document {
    pub(super) fn new(side: Side, test: Test) -> Self {
        let mut start = Map::new();
        start.insert("version".into(), format!("xstack {}", env!("CARGO_PKG_VERSION")).into());
        start.insert("system_info".into(), format!("Linux {}", release()).into());
        Self { side, test, start, intervals: Vec::new(), kept: 0, left_out: 0, end: json!({}) }
    }

    /// Who talks with whom. `host` is as it was given, for a client.
    pub(super) fn connected(
        &mut self,
        (host, port): (&str, u16),
        cookie: &Cookie,
        mss: u64,
        meters: &[Meter],
    ) {
        let now = std::time::SystemTime::now();
        let seconds = now.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let time = date::http(now);
        self.start.insert("timestamp".into(), json!({"time": time, "timesecs": seconds}));
        let to = match self.side {
            Side::Client => "connecting_to",
            Side::Server => "accepted_connection",
        };
        self.start.insert(to.into(), json!({"host": host, "port": port}));
        self.start.insert("cookie".into(), cookie.text().into());
        let Test { protocol, direction, streams, end, omit, block, rate, .. } = self.test;
        if protocol == Protocol::Tcp {
            self.start.insert("tcp_mss_default".into(), mss.into());
        }
        self.start.insert("target_bitrate".into(), rate.into());
        let connected = meters.iter().map(|meter| {
            json!({
                "socket": meter.socket(),
                "local_host": meter.local.map(|local| local.ip().to_string()),
                "local_port": meter.local.map(|local| local.port()),
                "remote_host": meter.remote.ip().to_string(),
                "remote_port": meter.remote.port(),
            })
        });
        self.start.insert("connected".into(), connected.collect());
        let (duration, bytes, blocks) = match end {
            End::Seconds(seconds) => (seconds, 0, 0),
            End::Bytes(bytes) => (0, bytes, 0),
            End::Blocks(blocks) => (0, 0, blocks),
            End::Never => (0, 0, 0),
        };
        let protocol = if protocol == Protocol::Tcp { "TCP" } else { "UDP" };
        let test_start = json!({
            "protocol": protocol, "num_streams": streams, "blksize": block, "omit": omit, "duration": duration,
            "bytes": bytes, "blocks": blocks, "reverse": u8::from(direction == Direction::Reverse),
            "bidir": u8::from(direction == Direction::Both), "tos": 0, "target_bitrate": rate,
        });
        self.start.insert("test_start".into(), test_start);
    }

    /// One more interval, while there is room; from then on they are only counted.
    pub(super) fn interval(&mut self, rows: &[(&Meter, Interval)], omitted: bool) {
        if self.left_out > 0 || self.kept + rows.len() > KEPT {
            self.left_out += 1;
            return;
        }
        self.kept += rows.len();
        let mut intervals = Intervals { streams: Vec::new(), sum: None, sum_bidir_reverse: None };
        for &sends in self.side.directions(self.test.direction) {
            let rows = rows.iter().filter(|(meter, _)| meter.sends == sends);
            for (meter, interval) in rows.clone() {
                let sum = Sum::of_intervals(std::iter::once(interval));
                intervals.streams.push(self.row(Some(meter.socket()), interval, &sum, sends, omitted));
            }
            let Some((_, first)) = rows.clone().next() else { continue };
            let sum = Sum::of_intervals(rows.map(|(_, interval)| interval));
            let row = Some(self.row(None, first, &sum, sends, omitted));
            if self.is_from_server(sends) { intervals.sum_bidir_reverse = row } else { intervals.sum = row }
        }
        self.intervals.push(intervals);
    }

    /// In a test of both directions, what the server sends has names of its own.
    fn is_from_server(&self, sends: bool) -> bool {
        self.test.direction == Direction::Both && sends == (self.side == Side::Server)
    }

    fn row(&self, socket: Option<u32>, interval: &Interval, sum: &Sum, sends: bool, omitted: bool) -> Row {
        let is_udp = self.test.protocol == Protocol::Udp;
        let fares = interval.fares.as_ref().filter(|_| socket.is_some() && !is_udp);
        Row {
            socket,
            start: interval.start,
            end: interval.end,
            seconds: interval.seconds(),
            bytes: sum.bytes,
            bits_per_second: rate(sum.bytes, interval.seconds()),
            tcp: fares.map(|fares| TcpRow {
                snd_cwnd: fares.cwnd,
                snd_wnd: fares.window,
                rtt: fares.rtt,
                rttvar: fares.rttvar,
                pmtu: fares.path_mtu,
            }),
            retransmits: sum.retransmits.filter(|_| !is_udp),
            received: (is_udp && !sends).then(|| ReceivedRow {
                jitter_ms: sum.jitter * 1000.0,
                lost_packets: sum.lost,
                lost_percent: lost_percent(sum.lost, sum.packets),
            }),
            packets: is_udp.then_some(sum.packets),
            omitted,
            sender: sends,
        }
    }

    /// What all of it was like.
    pub(super) fn summary(&mut self, summary: &Summary) {
        let mut end = Map::new();
        let mut streams: Vec<Value> = Vec::new();
        for &sends in self.side.directions(self.test.direction) {
            let of_direction = summary.streams.iter().filter(|stream| stream.sends == sends);
            streams.extend(of_direction.clone().map(|stream| self.stream(stream)));
            let sent = Sum::of(of_direction.clone().filter_map(|stream| stream.sent.as_ref()));
            let received = Sum::of(of_direction.clone().filter_map(|stream| stream.received.as_ref()));
            let suffix = if self.is_from_server(sends) { "_bidir_reverse" } else { "" };
            let mut name = |name: &str, value| end.insert(format!("{name}{suffix}"), value);
            if self.test.protocol == Protocol::Tcp {
                name("sum_sent", with_retransmits(total(&sent, sends), sent.retransmits));
                name("sum_received", total(&received, sends));
            } else {
                let all_went = Sum { lost: 0, jitter: 0.0, ..sent.clone() };
                name("sum_sent", datagrams(&all_went, true));
                name("sum_received", datagrams(&received, false));
                // As it was before there were both: the sender's bytes, and what the receiver says of them.
                let packets = if sent.packets == 0 { received.packets } else { sent.packets };
                let mixed = Sum { bytes: sent.bytes, seconds: sent.seconds, packets, ..received };
                name("sum", datagrams(&mixed, sends));
            }
        }
        end.insert("streams".into(), streams.into());
        let (here, there) = (summary.here, summary.there.unwrap_or_default());
        end.insert(
            "cpu_utilization_percent".into(),
            json!({
                "host_total": here.total, "host_user": here.user, "host_system": here.system,
                "remote_total": there.total, "remote_user": there.user, "remote_system": there.system,
            }),
        );
        if self.test.protocol == Protocol::Tcp {
            let (mut sender, mut receiver) = (&summary.congestion_here, &summary.congestion_there);
            if self.side.directions(self.test.direction) == [false] {
                std::mem::swap(&mut sender, &mut receiver);
            }
            for (name, algorithm) in
                [("sender_tcp_congestion", sender), ("receiver_tcp_congestion", receiver)]
            {
                if let Some(algorithm) = algorithm {
                    end.insert(name.into(), algorithm.as_str().into());
                }
            }
        }
        self.end = end.into();
    }

    fn stream(&self, stream: &Stream) -> Value {
        let nothing = Whole::default();
        let (sent, received) =
            (stream.sent.as_ref().unwrap_or(&nothing), stream.received.as_ref().unwrap_or(&nothing));
        let sums = (Sum::of(std::iter::once(sent)), Sum::of(std::iter::once(received)));
        let named = |mut value: Value| {
            value["socket"] = stream.socket.into();
            value
        };
        if self.test.protocol == Protocol::Tcp {
            let mut sender = named(with_retransmits(total(&sums.0, stream.sends), sent.retransmits));
            if sent.retransmits.is_some() {
                sender["max_snd_cwnd"] = sent.fares.max_cwnd.into();
                sender["max_snd_wnd"] = sent.fares.max_window.into();
                sender["max_rtt"] = sent.fares.max_rtt.into();
                sender["min_rtt"] = sent.fares.min_rtt.into();
                sender["mean_rtt"] = sent.fares.mean_rtt().into();
            }
            json!({"sender": sender, "receiver": named(total(&sums.1, stream.sends))})
        } else {
            let packets = if sent.packets == 0 { received.packets } else { sent.packets };
            let (bytes, seconds) = (sums.0.bytes, sums.0.seconds);
            let mut udp = named(datagrams(&Sum { bytes, seconds, packets, ..sums.1 }, stream.sends));
            udp["out_of_order"] = received.out_of_order.into();
            json!({"udp": udp})
        }
    }

    /// The text, with why the test came to less than it should.
    pub(super) fn finish(self, error: Option<&str>) -> String {
        let mut whole = json!({"start": self.start, "intervals": self.intervals, "end": self.end});
        if self.left_out > 0 {
            whole["intervals_left_out"] = self.left_out.into();
        }
        if let Some(error) = error {
            whole["error"] = error.into();
        }
        serde_json::to_string_pretty(&whole).map(|text| text + "\n").unwrap_or_default()
    }
}

fn total(sum: &Sum, sender: bool) -> Value {
    json!({
        "start": 0.0, "end": sum.seconds, "seconds": sum.seconds, "bytes": sum.bytes,
        "bits_per_second": rate(sum.bytes, sum.seconds), "sender": sender,
    })
}

fn with_retransmits(mut total: Value, retransmits: Option<u64>) -> Value {
    if let Some(retransmits) = retransmits {
        total["retransmits"] = retransmits.into();
    }
    total
}

fn datagrams(sum: &Sum, sender: bool) -> Value {
    let mut value = total(sum, sender);
    value["jitter_ms"] = (sum.jitter * 1000.0).into();
    value["lost_packets"] = sum.lost.into();
    value["packets"] = sum.packets.into();
    value["lost_percent"] = lost_percent(sum.lost, sum.packets).into();
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::iperf3::parameters::Parameters;

    #[test]
    fn how_many_intervals_were_left_out_is_told() {
        let parameters: Parameters = serde_json::from_str(r#"{"tcp":true,"parallel":1}"#).expect("JSON");
        let test = Test::try_from(parameters).expect("in its bounds");
        let whole = Document::new(Side::Client, test.clone());
        let mut document = Document::new(Side::Client, test);
        let written =
            |document: Document| -> Value { serde_json::from_str(&document.finish(None)).expect("JSON") };
        document.interval(&[], false);
        document.kept = KEPT + 1;
        document.interval(&[], false);
        document.interval(&[], false);
        let told = written(document);
        assert_eq!(
            (told["intervals"].as_array().map(Vec::len), &told["intervals_left_out"]),
            (Some(1), &json!(2))
        );
        let whole = written(whole);
        assert!(whole["intervals_left_out"].is_null(), "{whole}");
    }
}
