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
    use crate::cli::bench::{
        iperf3::{
            meter::{Cpu, tests::meter},
            parameters::tests::test,
        },
        transport::Fares,
    };

    const TOTAL: [&str; 6] = ["bits_per_second", "bytes", "end", "seconds", "sender", "start"];
    const OF_RECEIVED: [&str; 4] = ["jitter_ms", "lost_packets", "lost_percent", "packets"];

    fn written(document: Document) -> Value {
        serde_json::from_str(&document.finish(None)).expect("JSON")
    }

    fn second(bytes: u64, retransmits: Option<u64>) -> Interval {
        let fares = retransmits.map(|_| Fares { cwnd: 10, window: 20, rtt: 30, ..Fares::default() });
        Interval { start: 1.0, end: 2.0, bytes, packets: 8, lost: 2, jitter: 0.001, retransmits, fares }
    }

    fn whole(bytes: u64, retransmits: Option<u64>) -> Whole {
        Whole { bytes, seconds: 2.0, retransmits, packets: 8, lost: 2, jitter: 0.001, ..Whole::default() }
    }

    fn stream(socket: u32, sends: bool) -> Stream {
        Stream { socket, sends, sent: Some(whole(1000, Some(3))), received: Some(whole(900, None)) }
    }

    fn summary(streams: Vec<Stream>) -> Summary {
        let here = Cpu { total: 3.0, user: 1.0, system: 2.0 };
        let (one, other) = (Some("cubic".to_owned()), Some("bbr".to_owned()));
        Summary { streams, here, there: None, congestion_here: one, congestion_there: other }
    }

    /// Whether an object has these fields and no others.
    fn has(value: &Value, parts: &[&[&str]]) {
        let mut expected: Vec<_> = parts.concat();
        expected.sort_unstable();
        let mut fields: Vec<_> = value.as_object().expect("an object").keys().map(String::as_str).collect();
        fields.sort_unstable();
        assert_eq!(fields, expected);
    }

    // The fields are those that iperf3 3.12 has.
    #[test]
    fn intervals_have_iperf3s_fields_and_the_sum_of_all_streams() {
        let mut document = Document::new(Side::Client, test(Protocol::Tcp, Direction::Forward, 2));
        let (one, other) = (meter(1, true), meter(3, true));
        document.interval(&[(&one, second(1000, Some(1))), (&other, second(500, Some(2)))], true);
        let told = written(document);
        let interval = &told["intervals"][0];
        has(interval, &[&["streams", "sum"]]);
        has(
            &interval["streams"][0],
            &[&TOTAL, &["omitted", "pmtu", "retransmits", "rtt", "rttvar", "snd_cwnd", "snd_wnd", "socket"]],
        );
        has(&interval["sum"], &[&TOTAL, &["omitted", "retransmits"]]);
        assert_eq!(
            (&interval["streams"][1]["socket"], &interval["streams"][1]["bytes"]),
            (&json!(7), &json!(500))
        );
        let sum = &interval["sum"];
        assert_eq!((&sum["bytes"], &sum["bits_per_second"]), (&json!(1500), &json!(12_000.0)));
        assert_eq!(
            (&sum["retransmits"], &sum["sender"], &sum["omitted"]),
            (&json!(3), &json!(true), &json!(true))
        );
        assert_eq!((&sum["start"], &sum["end"], &sum["seconds"]), (&json!(1.0), &json!(2.0), &json!(1.0)));
    }

    #[test]
    fn a_receivers_intervals_tell_nothing_of_the_senders() {
        let mut document = Document::new(Side::Client, test(Protocol::Tcp, Direction::Reverse, 1));
        document.interval(&[(&meter(1, false), second(1000, None))], false);
        let told = written(document);
        has(&told["intervals"][0]["streams"][0], &[&TOTAL, &["omitted", "socket"]]);
        has(&told["intervals"][0]["sum"], &[&TOTAL, &["omitted"]]);
    }

    #[test]
    fn datagrams_are_counted_by_senders_and_judged_by_receivers() {
        let mut document = Document::new(Side::Client, test(Protocol::Udp, Direction::Both, 1));
        document
            .interval(&[(&meter(1, true), second(1000, None)), (&meter(3, false), second(500, None))], false);
        document.summary(&summary(vec![stream(5, true), stream(7, false)]));
        let told = written(document);
        let interval = &told["intervals"][0];
        has(&interval["streams"][0], &[&TOTAL, &["omitted", "packets", "socket"]]);
        has(&interval["streams"][1], &[&TOTAL, &OF_RECEIVED, &["omitted", "socket"]]);
        has(&interval["sum"], &[&TOTAL, &["omitted", "packets"]]);
        let back = &interval["sum_bidir_reverse"];
        assert_eq!((&back["lost_percent"], &back["jitter_ms"]), (&json!(25.0), &json!(1.0)));
        let end = &told["end"];
        for sum in ["sum", "sum_sent", "sum_received"] {
            has(&end[sum], &[&TOTAL, &OF_RECEIVED]);
            has(&end[format!("{sum}_bidir_reverse")], &[&TOTAL, &OF_RECEIVED]);
        }
        has(&end["streams"][0]["udp"], &[&TOTAL, &OF_RECEIVED, &["out_of_order", "socket"]]);
        // Whoever sends loses nothing; what became of it the receiver says.
        assert_eq!(
            (&end["sum_sent"]["lost_packets"], &end["sum_received"]["lost_packets"]),
            (&json!(0), &json!(2))
        );
        assert_eq!((&end["sum"]["bytes"], &end["sum"]["lost_packets"]), (&json!(1000), &json!(2)));
    }

    #[test]
    fn the_end_has_each_stream_from_both_ends_and_their_sums() {
        let mut document = Document::new(Side::Client, test(Protocol::Tcp, Direction::Forward, 2));
        document.summary(&summary(vec![stream(5, true), stream(7, true)]));
        let told = written(document);
        let end = &told["end"];
        let names =
            ["cpu_utilization_percent", "receiver_tcp_congestion", "sender_tcp_congestion", "streams"];
        has(end, &[&names, &["sum_received", "sum_sent"]]);
        let of_sender =
            ["max_rtt", "max_snd_cwnd", "max_snd_wnd", "mean_rtt", "min_rtt", "retransmits", "socket"];
        has(&end["streams"][1]["sender"], &[&TOTAL, &of_sender]);
        has(&end["streams"][1]["receiver"], &[&TOTAL, &["socket"]]);
        assert_eq!(end["streams"][1]["receiver"]["socket"], json!(7));
        let (sent, received) = (&end["sum_sent"], &end["sum_received"]);
        has(sent, &[&TOTAL, &["retransmits"]]);
        has(received, &[&TOTAL]);
        assert_eq!((&sent["bytes"], &sent["bits_per_second"]), (&json!(2000), &json!(8000.0)));
        assert_eq!(
            (&sent["retransmits"], &sent["seconds"]),
            (&json!(6), &json!(2.0)),
            "the time is not added up"
        );
        assert_eq!((&received["bytes"], &received["sender"]), (&json!(1800), &json!(true)));
        assert_eq!(
            (&end["sender_tcp_congestion"], &end["receiver_tcp_congestion"]),
            (&json!("cubic"), &json!("bbr"))
        );
        let cpu = &end["cpu_utilization_percent"];
        assert_eq!((&cpu["host_system"], &cpu["remote_total"]), (&json!(2.0), &json!(0.0)));
    }

    #[test]
    fn what_the_server_sends_beside_the_client_has_names_of_its_own() {
        let mut document = Document::new(Side::Client, test(Protocol::Tcp, Direction::Both, 1));
        document.interval(
            &[(&meter(1, true), second(1000, Some(0))), (&meter(3, false), second(500, None))],
            false,
        );
        document.summary(&summary(vec![stream(5, true), stream(7, false)]));
        let told = written(document);
        let interval = &told["intervals"][0];
        has(interval, &[&["streams", "sum", "sum_bidir_reverse"]]);
        let sums = (&interval["sum"], &interval["sum_bidir_reverse"]);
        assert_eq!((&sums.0["bytes"], &sums.1["bytes"]), (&json!(1000), &json!(500)));
        assert_eq!((&sums.0["sender"], &sums.1["sender"]), (&json!(true), &json!(false)));
        for (name, sends) in [
            ("sum_sent", true),
            ("sum_received", true),
            ("sum_sent_bidir_reverse", false),
            ("sum_received_bidir_reverse", false),
        ] {
            assert_eq!(told["end"][name]["sender"], json!(sends), "{name}");
        }
        // Of a server it is what it sends itself.
        let mut document = Document::new(Side::Server, test(Protocol::Tcp, Direction::Both, 1));
        document.summary(&summary(vec![stream(5, false), stream(8, true)]));
        assert_eq!(written(document)["end"]["sum_sent_bidir_reverse"]["sender"], json!(true));
    }

    #[test]
    fn the_start_tells_what_is_tested_and_between_whom() {
        let parameters = Test { end: End::Bytes(77), omit: 1, ..test(Protocol::Tcp, Direction::Reverse, 1) };
        let mut document = Document::new(Side::Client, parameters);
        let cookie = Cookie::random().expect("random bytes");
        let mut nowhere = meter(3, false);
        nowhere.local = None;
        document.connected(("example.com", 5201), &cookie, 1448, &[meter(1, false), nowhere]);
        let told = written(document);
        let start = &told["start"];
        assert_eq!(start["connecting_to"], json!({"host": "example.com", "port": 5201}));
        assert_eq!((&start["cookie"], &start["tcp_mss_default"]), (&json!(cookie.text()), &json!(1448)));
        let first = json!({
            "socket": 5, "local_host": "10.0.0.1", "local_port": 1001, "remote_host": "10.0.0.2", "remote_port": 5201,
        });
        assert_eq!((&start["connected"][0], &start["connected"][1]["local_port"]), (&first, &Value::Null));
        let wanted = &start["test_start"];
        assert_eq!(
            (&wanted["protocol"], &wanted["reverse"], &wanted["bidir"]),
            (&json!("TCP"), &json!(1), &json!(0))
        );
        assert_eq!(
            (&wanted["bytes"], &wanted["duration"], &wanted["omit"]),
            (&json!(77), &json!(0), &json!(1))
        );
    }

    /// JSON has no word for what is no number: it would be null.
    fn has_no_null(value: &Value, at: &str) {
        match value {
            Value::Null => panic!("{at} is null"),
            Value::Array(values) => values.iter().for_each(|value| has_no_null(value, at)),
            Value::Object(fields) => {
                fields.iter().for_each(|(name, value)| has_no_null(value, &format!("{at}.{name}")))
            }
            _ => {}
        }
    }

    #[test]
    fn where_nothing_was_sent_in_no_time_all_is_zero() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for direction in [Direction::Forward, Direction::Reverse, Direction::Both] {
                for side in [Side::Client, Side::Server] {
                    let mut document = Document::new(side, test(protocol, direction, 1));
                    let nothing = Interval {
                        start: 0.0,
                        end: 0.0,
                        packets: 0,
                        lost: 0,
                        jitter: 0.0,
                        ..second(0, Some(0))
                    };
                    let meters = [true, false].map(|sends| meter(1, sends));
                    let rows: Vec<_> = meters.iter().map(|meter| (meter, nothing.clone())).collect();
                    document.interval(&rows, false);
                    document.interval(&[], false);
                    let zero = Some(Whole::default());
                    let streams = [true, false].map(|sends| Stream {
                        socket: 5,
                        sends,
                        sent: zero.clone(),
                        received: zero.clone().filter(|_| sends),
                    });
                    document.summary(&summary(streams.into()));
                    let told = written(document);
                    has_no_null(&told, "");
                    let sum = &told["end"]["sum_sent"];
                    assert_eq!((&sum["bits_per_second"], &sum["bytes"]), (&json!(0.0), &json!(0)));
                }
            }
        }
        // It never came to anything.
        let mut document = Document::new(Side::Client, test(Protocol::Tcp, Direction::Forward, 1));
        document.summary(&summary(Vec::new()));
        has_no_null(&written(document), "");
    }

    #[test]
    fn why_it_came_to_less_is_told() {
        let document = || Document::new(Side::Client, test(Protocol::Tcp, Direction::Forward, 1));
        let told: Value = serde_json::from_str(&document().finish(Some("it hung up"))).expect("JSON");
        assert_eq!(told["error"], json!("it hung up"));
        assert!(written(document()).get("error").is_none());
    }

    #[test]
    fn how_many_intervals_were_left_out_is_told() {
        let test = test(Protocol::Tcp, Direction::Forward, 1);
        let whole = Document::new(Side::Client, test.clone());
        let mut document = Document::new(Side::Client, test);
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
