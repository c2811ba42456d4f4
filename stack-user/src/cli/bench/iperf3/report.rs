//! What people read: the lines that iperf3 prints, so that whoever reads one reads the other.

use std::fmt::Write as _;

use super::{
    meter::{Cpu, Interval, Meter, Whole},
    parameters::{Direction, Protocol, Test},
    units::{show_bits, show_bytes},
};

/// Which end this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

impl Side {
    /// The directions of a test, as this end sees them (`true` where it sends), in the order in which they are told.
    pub(super) fn directions(self, direction: Direction) -> &'static [bool] {
        match (self, direction) {
            (Self::Client, Direction::Forward) | (Self::Server, Direction::Reverse) => &[true],
            (Self::Client, Direction::Reverse) | (Self::Server, Direction::Forward) => &[false],
            (Self::Client, Direction::Both) => &[true, false],
            (Self::Server, Direction::Both) => &[false, true],
        }
    }

    /// How lines of a test in both directions tell them apart.
    fn role(self, direction: Direction, sends: bool) -> &'static str {
        match (direction, self, sends) {
            (Direction::Both, Self::Client, true) => "[TX-C]",
            (Direction::Both, Self::Client, false) => "[RX-C]",
            (Direction::Both, Self::Server, true) => "[TX-S]",
            (Direction::Both, Self::Server, false) => "[RX-S]",
            _ => "",
        }
    }
}

/// A stream when all is over: what its sender has of it, and its receiver. The other end's is not there if it could not say.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) socket: u32,
    /// This end sends.
    pub(super) sends: bool,
    pub(super) sent: Option<Whole>,
    pub(super) received: Option<Whole>,
}

/// All that there is to tell in the end.
#[derive(Clone, Debug)]
pub(super) struct Summary {
    pub(super) streams: Vec<Stream>,
    pub(super) here: Cpu,
    pub(super) there: Option<Cpu>,
    pub(super) congestion_here: Option<String>,
    pub(super) congestion_there: Option<String>,
}

/// Several streams as one.
#[derive(Clone, Debug, Default)]
pub(super) struct Sum {
    pub(super) bytes: u64,
    pub(super) seconds: f64,
    pub(super) packets: u64,
    pub(super) lost: i64,
    pub(super) jitter: f64,
    pub(super) retransmits: Option<u64>,
}

impl Sum {
    /// Their times are the first one's, and their jitter is the mean.
    pub(super) fn of<'a>(wholes: impl Iterator<Item = &'a Whole> + Clone) -> Self {
        let count = wholes.clone().count().max(1);
        let mut sum =
            Self { seconds: wholes.clone().next().map_or(0.0, |first| first.seconds), ..Self::default() };
        for whole in wholes {
            sum.bytes = sum.bytes.saturating_add(whole.bytes);
            sum.packets = sum.packets.saturating_add(whole.packets);
            sum.lost = sum.lost.saturating_add(whole.lost);
            sum.jitter += whole.jitter / count as f64;
            sum.retransmits = add(sum.retransmits, whole.retransmits);
        }
        sum
    }

    /// The same for an interval of each.
    pub(super) fn of_intervals<'a>(intervals: impl Iterator<Item = &'a Interval> + Clone) -> Self {
        let count = intervals.clone().count().max(1);
        let mut sum = Self::default();
        for interval in intervals {
            sum.bytes = sum.bytes.saturating_add(interval.bytes);
            sum.packets = sum.packets.saturating_add(interval.packets);
            sum.lost = sum.lost.saturating_add(interval.lost);
            sum.jitter += interval.jitter / count as f64;
            sum.retransmits = add(sum.retransmits, interval.retransmits);
        }
        sum
    }
}

fn add(sum: Option<u64>, more: Option<u64>) -> Option<u64> {
    match (sum, more) {
        (None, more) => more,
        (Some(sum), more) => Some(sum.saturating_add(more.unwrap_or(0))),
    }
}

/// Bits per second; none in no time.
pub(super) fn rate(bytes: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { bytes as f64 * 8.0 / seconds } else { 0.0 }
}

/// What share is lost, in per cent.
pub(super) fn lost_percent(lost: i64, packets: u64) -> f64 {
    if packets == 0 { 0.0 } else { lost as f64 * 100.0 / packets as f64 }
}

/// The lines.
#[derive(Debug)]
pub(super) struct Text {
    side: Side,
    test: Test,
    is_begun: bool,
}

impl Text {
    pub(super) fn new(side: Side, test: Test) -> Self {
        Self { side, test, is_begun: false }
    }

    fn is_tcp(&self) -> bool {
        self.test.protocol == Protocol::Tcp
    }

    /// The end of each stream.
    pub(super) fn connected(&self, meters: &[Meter]) -> String {
        let mut text = String::new();
        for meter in meters {
            let (ip, port) = meter.local.map_or(("*".to_owned(), 0), |at| (at.ip().to_string(), at.port()));
            let (socket, remote) = (meter.socket(), meter.remote);
            let _ = writeln!(
                text,
                "[{socket:3}] local {ip} port {port} connected to {} port {}",
                remote.ip(),
                remote.port()
            );
        }
        text
    }

    /// What one interval was like.
    pub(super) fn interval(&mut self, rows: &[(&Meter, Interval)], omitted: bool) -> String {
        let mut text = String::new();
        if !std::mem::replace(&mut self.is_begun, true) {
            text.push_str(self.interval_header(rows));
        } else if self.test.streams > 1 {
            text.push_str(SEPARATOR);
        }
        let mark = if omitted { "(omitted)" } else { "" };
        for &sends in self.side.directions(self.test.direction) {
            let role = self.side.role(self.test.direction, sends);
            let rows = rows.iter().filter(|(meter, _)| meter.sends == sends);
            for (meter, interval) in rows.clone() {
                let id = meter.socket().to_string();
                let sum = Sum::of_intervals(std::iter::once(interval));
                text += &self.interval_line(&id, role, interval, &sum, mark);
            }
            if self.test.streams > 1
                && let Some((_, first)) = rows.clone().next()
            {
                let sum = Sum::of_intervals(rows.map(|(_, interval)| interval));
                let without_cwnd = Interval { fares: None, ..first.clone() };
                text += &self.interval_line("SUM", role, &without_cwnd, &sum, mark);
            }
        }
        text
    }

    fn interval_header(&self, rows: &[(&Meter, Interval)]) -> &'static str {
        let is_both = self.test.direction == Direction::Both;
        let tells = rows.iter().any(|(_, interval)| interval.retransmits.is_some());
        match (self.is_tcp(), is_both) {
            (true, false) if tells => "[ ID] Interval           Transfer     Bitrate         Retr  Cwnd\n",
            (true, true) if tells => {
                "[ ID][Role] Interval           Transfer     Bitrate         Retr  Cwnd\n"
            }
            (true, false) => "[ ID] Interval           Transfer     Bitrate\n",
            (true, true) => "[ ID][Role] Interval           Transfer     Bitrate\n",
            (false, false) if rows.iter().all(|(meter, _)| meter.sends) => {
                "[ ID] Interval           Transfer     Bitrate         Total Datagrams\n"
            }
            (false, is_both) => datagram_header(is_both),
        }
    }

    fn interval_line(&self, id: &str, role: &str, interval: &Interval, sum: &Sum, mark: &str) -> String {
        let Interval { start, end, .. } = *interval;
        let line = line(id, role, start, end, sum.bytes, interval.seconds());
        let sends =
            role.is_empty() && self.side.directions(self.test.direction) == [true] || role.starts_with("[TX");
        match (self.is_tcp(), sum.retransmits, &interval.fares) {
            (true, Some(retransmits), Some(fares)) => {
                let cwnd = show_bytes(fares.cwnd as f64);
                format!("{line}  {retransmits:3}   {cwnd}s       {mark}\n")
            }
            (true, Some(retransmits), None) => format!("{line}  {retransmits:3}             {mark}\n"),
            (true, None, _) => format!("{line}                  {mark}\n"),
            (false, ..) if sends => {
                let gap = if role.is_empty() { "" } else { "          " };
                format!("{line} {gap} {}  {mark}\n", sum.packets)
            }
            (false, ..) => format!("{line}  {}  {mark}\n", datagrams(sum)),
        }
    }

    /// What all of it was like. Each end tells what it knows: the client has heard from the server, but not the other way round
    /// when iperf3's servers print theirs, and this one is read by the same people.
    pub(super) fn summary(&self, summary: &Summary, verbose: bool) -> String {
        let mut text = String::from(SEPARATOR);
        let is_both = self.test.direction == Direction::Both;
        let tells = summary
            .streams
            .iter()
            .filter_map(|stream| stream.sent.as_ref())
            .any(|sent| sent.retransmits.is_some());
        text.push_str(match (self.is_tcp(), is_both) {
            (true, false) if tells => "[ ID] Interval           Transfer     Bitrate         Retr\n",
            (true, true) if tells => "[ ID][Role] Interval           Transfer     Bitrate         Retr\n",
            (true, false) => "[ ID] Interval           Transfer     Bitrate\n",
            (true, true) => "[ ID][Role] Interval           Transfer     Bitrate\n",
            (false, is_both) => datagram_header(is_both),
        });
        for &sends in self.side.directions(self.test.direction) {
            let role = self.side.role(self.test.direction, sends);
            let streams = summary.streams.iter().filter(|stream| stream.sends == sends);
            // What a server has from its client is told by the client.
            let knows_sender = self.side == Side::Client || sends;
            let knows_receiver = self.side == Side::Client || !sends;
            for stream in streams.clone() {
                let id = stream.socket.to_string();
                if knows_sender && let Some(sent) = &stream.sent {
                    text += &self.sender_line(&id, role, &Sum::of(std::iter::once(sent)));
                }
                if knows_receiver && let Some(received) = &stream.received {
                    text += &self.receiver_line(&id, role, &Sum::of(std::iter::once(received)));
                    if received.out_of_order > 0 {
                        let (seconds, count) = (received.seconds, received.out_of_order);
                        let _ = writeln!(
                            text,
                            "[{id:>3}]{role}  0.0-{seconds:4.1} sec  {count} datagrams received out-of-order"
                        );
                    }
                }
            }
            if self.test.streams > 1 {
                let sent = streams.clone().filter_map(|stream| stream.sent.as_ref());
                if knows_sender && sent.clone().next().is_some() {
                    text += &self.sender_line("SUM", role, &Sum::of(sent));
                }
                let received = streams.filter_map(|stream| stream.received.as_ref());
                if knows_receiver && received.clone().next().is_some() {
                    text += &self.receiver_line("SUM", role, &Sum::of(received));
                }
            }
        }
        if verbose {
            text += &cpu_line("local", summary.here);
            if let Some(there) = summary.there {
                text += &cpu_line("remote", there);
            }
        }
        text
    }

    fn sender_line(&self, id: &str, role: &str, sum: &Sum) -> String {
        let line = line(id, role, 0.0, sum.seconds, sum.bytes, sum.seconds);
        match (self.is_tcp(), sum.retransmits) {
            (true, Some(retransmits)) => format!("{line}  {retransmits:3}             sender\n"),
            (true, None) => format!("{line}                  sender\n"),
            (false, _) => {
                let all_went = Sum { lost: 0, jitter: 0.0, ..sum.clone() };
                format!("{line}  {}  sender\n", datagrams(&all_went))
            }
        }
    }

    fn receiver_line(&self, id: &str, role: &str, sum: &Sum) -> String {
        let line = line(id, role, 0.0, sum.seconds, sum.bytes, sum.seconds);
        if self.is_tcp() {
            format!("{line}                  receiver\n")
        } else {
            format!("{line}  {}  receiver\n", datagrams(sum))
        }
    }
}

const SEPARATOR: &str = "- - - - - - - - - - - - - - - - - - - - - - - - -\n";

fn datagram_header(is_both: bool) -> &'static str {
    if is_both {
        "[ ID][Role] Interval           Transfer     Bitrate         Jitter    Lost/Total Datagrams\n"
    } else {
        "[ ID] Interval           Transfer     Bitrate         Jitter    Lost/Total Datagrams\n"
    }
}

fn line(id: &str, role: &str, start: f64, end: f64, bytes: u64, seconds: f64) -> String {
    let (size, speed) = (show_bytes(bytes as f64), show_bits(rate(bytes, seconds)));
    format!("[{id:>3}]{role} {start:6.2}-{end:<6.2} sec  {size}s  {speed}s/sec")
}

fn datagrams(sum: &Sum) -> String {
    let Sum { lost, packets, .. } = *sum;
    let percent = two_digits(lost_percent(lost, packets));
    format!("{:5.3} ms  {lost}/{packets} ({percent}%)", sum.jitter * 1000.0)
}

/// Two digits that count, as many as they need.
fn two_digits(number: f64) -> String {
    let magnitude = if number == 0.0 { 0 } else { number.abs().log10().floor() as i32 };
    let places = usize::try_from(1 - magnitude).unwrap_or(0).min(9);
    let text = format!("{number:.places$}");
    if places == 0 { text } else { text.trim_end_matches('0').trim_end_matches('.').to_owned() }
}

fn cpu_line(whose: &str, cpu: Cpu) -> String {
    format!("CPU Utilization: {whose} {:.1}% ({:.1}%u/{:.1}%s)\n", cpu.total, cpu.user, cpu.system)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::{
        iperf3::{meter::tests::meter, parameters::tests::test},
        transport::Fares,
    };

    const BLOCK: u64 = 128 * 1024;

    /// The second `number`, with so many bytes; `retransmits` as a sender has them that tells.
    fn second(number: u32, bytes: u64, retransmits: Option<u64>) -> Interval {
        let fares = retransmits.map(|_| Fares { cwnd: 1_174_405, ..Fares::default() });
        let (start, end) = (f64::from(number), f64::from(number + 1));
        Interval { start, end, bytes, packets: 0, lost: 0, jitter: 0.0, retransmits, fares }
    }

    fn datagrams_of(interval: Interval, packets: u64, lost: i64, jitter: f64) -> Interval {
        Interval { packets, lost, jitter, ..interval }
    }

    fn whole(bytes: u64, seconds: f64, retransmits: Option<u64>) -> Whole {
        Whole { bytes, seconds, retransmits, ..Whole::default() }
    }

    fn stream(socket: u32, sends: bool, sent: Option<Whole>, received: Option<Whole>) -> Stream {
        Stream { socket, sends, sent, received }
    }

    fn summary(streams: Vec<Stream>) -> Summary {
        let here = Cpu { total: 12.34, user: 2.0, system: 10.34 };
        Summary { streams, here, there: None, congestion_here: None, congestion_there: None }
    }

    fn of_client(test: Test) -> Text {
        Text::new(Side::Client, test)
    }

    #[test]
    fn the_ends_of_streams_are_told() {
        let text = of_client(test(Protocol::Tcp, Direction::Forward, 2));
        let mut nowhere = meter(3, true);
        nowhere.local = None;
        assert_eq!(
            text.connected(&[meter(1, true), nowhere]),
            "[  5] local 10.0.0.1 port 1001 connected to 10.0.0.2 port 5201\n\
             [  7] local * port 0 connected to 10.0.0.2 port 5201\n"
        );
    }

    // What is expected here and below, iperf3 3.12 has printed with these numbers.
    #[test]
    fn a_senders_intervals_have_a_header_once_and_retransmissions() {
        let mut text = of_client(test(Protocol::Tcp, Direction::Forward, 1));
        let meter = meter(1, true);
        assert_eq!(
            text.interval(&[(&meter, second(0, 20 * BLOCK, Some(0)))], false),
            "[ ID] Interval           Transfer     Bitrate         Retr  Cwnd\n\
             [  5]   0.00-1.00   sec  2.50 MBytes  21.0 Mbits/sec    0   1.12 MBytes       \n"
        );
        assert_eq!(
            text.interval(&[(&meter, second(1, 19 * BLOCK, Some(12)))], false),
            "[  5]   1.00-2.00   sec  2.38 MBytes  19.9 Mbits/sec   12   1.12 MBytes       \n"
        );
    }

    #[test]
    fn what_is_left_out_is_marked() {
        let mut text = of_client(test(Protocol::Tcp, Direction::Forward, 1));
        let told = text.interval(&[(&meter(1, true), second(0, 5 * BLOCK, Some(0)))], true);
        assert!(
            told.ends_with(
                "[  5]   0.00-1.00   sec   640 KBytes  5.24 Mbits/sec    0   1.12 MBytes       (omitted)\n"
            ),
            "{told}"
        );
    }

    #[test]
    fn a_receiver_tells_nothing_of_the_senders() {
        let mut text = of_client(test(Protocol::Tcp, Direction::Reverse, 1));
        assert_eq!(
            text.interval(&[(&meter(1, false), second(0, 20 * BLOCK, None))], false),
            "[ ID] Interval           Transfer     Bitrate\n\
             [  5]   0.00-1.00   sec  2.50 MBytes  21.0 Mbits/sec                  \n"
        );
    }

    #[test]
    fn several_streams_have_a_sum_and_a_line_between_intervals() {
        let mut text = of_client(test(Protocol::Tcp, Direction::Forward, 2));
        let (one, other) = (meter(1, true), meter(3, true));
        assert_eq!(
            text.interval(
                &[(&one, second(0, 20 * BLOCK, Some(0))), (&other, second(0, 20 * BLOCK, Some(0)))],
                false
            ),
            "[ ID] Interval           Transfer     Bitrate         Retr  Cwnd\n\
             [  5]   0.00-1.00   sec  2.50 MBytes  21.0 Mbits/sec    0   1.12 MBytes       \n\
             [  7]   0.00-1.00   sec  2.50 MBytes  21.0 Mbits/sec    0   1.12 MBytes       \n\
             [SUM]   0.00-1.00   sec  5.00 MBytes  41.9 Mbits/sec    0             \n"
        );
        assert_eq!(
            text.interval(
                &[(&one, second(1, 19 * BLOCK, Some(1))), (&other, second(1, 19 * BLOCK, Some(1)))],
                false
            ),
            "- - - - - - - - - - - - - - - - - - - - - - - - -\n\
             [  5]   1.00-2.00   sec  2.38 MBytes  19.9 Mbits/sec    1   1.12 MBytes       \n\
             [  7]   1.00-2.00   sec  2.38 MBytes  19.9 Mbits/sec    1   1.12 MBytes       \n\
             [SUM]   1.00-2.00   sec  4.75 MBytes  39.8 Mbits/sec    2             \n"
        );
    }

    #[test]
    fn both_directions_of_one_stream_are_told_apart_and_have_no_line_between_intervals() {
        let rows = |number, bytes| (second(number, bytes, Some(0)), second(number, bytes, None));
        let (there, back) = (meter(1, true), meter(3, false));
        let mut text = of_client(test(Protocol::Tcp, Direction::Both, 1));
        let (sent, received) = rows(0, 5 * BLOCK);
        assert_eq!(
            text.interval(&[(&there, sent), (&back, received)], false),
            "[ ID][Role] Interval           Transfer     Bitrate         Retr  Cwnd\n\
             [  5][TX-C]   0.00-1.00   sec   640 KBytes  5.24 Mbits/sec    0   1.12 MBytes       \n\
             [  7][RX-C]   0.00-1.00   sec   640 KBytes  5.24 Mbits/sec                  \n"
        );
        let (sent, received) = rows(1, 5 * BLOCK);
        let told = text.interval(&[(&there, sent), (&back, received)], false);
        assert!(told.starts_with("[  5][TX-C]   1.00-2.00   sec ") && told.lines().count() == 2, "{told}");
        // A server begins with what it receives.
        let mut text = Text::new(Side::Server, test(Protocol::Tcp, Direction::Both, 1));
        let (sent, received) = rows(0, 5 * BLOCK);
        let told = text.interval(&[(&there, sent), (&back, received)], false);
        let order: Vec<_> = told.lines().skip(1).map(|line| &line[..11]).collect();
        assert_eq!(order, ["[  7][RX-S]", "[  5][TX-S]"]);
    }

    #[test]
    fn datagrams_are_counted_by_senders_and_judged_by_receivers() {
        let row = |packets, lost| datagrams_of(second(0, 2 * BLOCK, None), packets, lost, 0.000_012);
        let mut text = of_client(test(Protocol::Udp, Direction::Forward, 1));
        assert_eq!(
            text.interval(&[(&meter(1, true), row(8, 0))], false),
            "[ ID] Interval           Transfer     Bitrate         Total Datagrams\n\
             [  5]   0.00-1.00   sec   256 KBytes  2.10 Mbits/sec  8  \n"
        );
        let mut text = of_client(test(Protocol::Udp, Direction::Reverse, 1));
        assert_eq!(
            text.interval(&[(&meter(1, false), row(8, 1))], false),
            "[ ID] Interval           Transfer     Bitrate         Jitter    Lost/Total Datagrams\n\
             [  5]   0.00-1.00   sec   256 KBytes  2.10 Mbits/sec  0.012 ms  1/8 (12%)  \n"
        );
        let mut text = of_client(test(Protocol::Udp, Direction::Both, 1));
        assert_eq!(
            text.interval(&[(&meter(1, true), row(8, 0)), (&meter(3, false), row(8, 0))], false),
            "[ ID][Role] Interval           Transfer     Bitrate         Jitter    Lost/Total Datagrams\n\
             [  5][TX-C]   0.00-1.00   sec   256 KBytes  2.10 Mbits/sec            8  \n\
             [  7][RX-C]   0.00-1.00   sec   256 KBytes  2.10 Mbits/sec  0.012 ms  0/8 (0%)  \n"
        );
    }

    #[test]
    fn the_jitter_of_several_is_their_mean() {
        let mut text = Text::new(Side::Server, test(Protocol::Udp, Direction::Forward, 2));
        let row = |jitter, lost| datagrams_of(second(0, 2 * BLOCK, None), 8, lost, jitter);
        let rows = [(&meter(1, false), row(0.000_008, 0)), (&meter(2, false), row(0.000_002, 4))];
        let told = text.interval(&rows, false);
        assert!(
            told.ends_with("[SUM]   0.00-1.00   sec   512 KBytes  4.19 Mbits/sec  0.005 ms  4/16 (25%)  \n"),
            "{told}"
        );
    }

    #[test]
    fn a_clients_summary_has_both_ends_of_each_stream_and_of_all() {
        let text = of_client(test(Protocol::Tcp, Direction::Forward, 2));
        let of = |socket| {
            let (sent, received) = (whole(39 * BLOCK, 2.0, Some(1)), whole(39 * BLOCK, 2.006, None));
            stream(socket, true, Some(sent), Some(received))
        };
        assert_eq!(
            text.summary(&summary(vec![of(5), of(7)]), false),
            "- - - - - - - - - - - - - - - - - - - - - - - - -\n\
             [ ID] Interval           Transfer     Bitrate         Retr\n\
             [  5]   0.00-2.00   sec  4.88 MBytes  20.4 Mbits/sec    1             sender\n\
             [  5]   0.00-2.01   sec  4.88 MBytes  20.4 Mbits/sec                  receiver\n\
             [  7]   0.00-2.00   sec  4.88 MBytes  20.4 Mbits/sec    1             sender\n\
             [  7]   0.00-2.01   sec  4.88 MBytes  20.4 Mbits/sec                  receiver\n\
             [SUM]   0.00-2.00   sec  9.75 MBytes  40.9 Mbits/sec    2             sender\n\
             [SUM]   0.00-2.01   sec  9.75 MBytes  40.8 Mbits/sec                  receiver\n"
        );
    }

    #[test]
    fn a_server_tells_of_its_own_end_only() {
        let ends = || (Some(whole(39 * BLOCK, 2.0, Some(0))), Some(whole(39 * BLOCK, 2.0, None)));
        let text = Text::new(Side::Server, test(Protocol::Tcp, Direction::Forward, 1));
        let (_, received) = ends();
        assert_eq!(
            text.summary(&summary(vec![stream(5, false, None, received)]), false),
            "- - - - - - - - - - - - - - - - - - - - - - - - -\n\
             [ ID] Interval           Transfer     Bitrate\n\
             [  5]   0.00-2.00   sec  4.88 MBytes  20.4 Mbits/sec                  receiver\n"
        );
        let text = Text::new(Side::Server, test(Protocol::Tcp, Direction::Both, 1));
        let (sent, received) = ends();
        let streams = vec![stream(5, false, sent.clone(), received.clone()), stream(8, true, sent, received)];
        assert_eq!(
            text.summary(&summary(streams), false),
            "- - - - - - - - - - - - - - - - - - - - - - - - -\n\
             [ ID][Role] Interval           Transfer     Bitrate         Retr\n\
             [  5][RX-S]   0.00-2.00   sec  4.88 MBytes  20.4 Mbits/sec                  receiver\n\
             [  8][TX-S]   0.00-2.00   sec  4.88 MBytes  20.4 Mbits/sec    0             sender\n"
        );
    }

    #[test]
    fn the_end_that_did_not_say_is_left_out() {
        let text = of_client(test(Protocol::Tcp, Direction::Forward, 2));
        let of = |socket| stream(socket, true, Some(whole(39 * BLOCK, 2.0, None)), None);
        let told = text.summary(&summary(vec![of(5), of(7)]), false);
        assert_eq!(told.matches("sender\n").count(), 3, "{told}");
        assert!(!told.contains("receiver") && !told.contains("Retr"), "{told}");
    }

    #[test]
    fn of_datagrams_the_summary_has_loss_jitter_and_order() {
        let text = of_client(test(Protocol::Udp, Direction::Forward, 1));
        let sent = Whole { packets: 1000, jitter: 9.0, lost: 9, ..whole(4 * BLOCK, 2.0, None) };
        let received = Whole {
            packets: 1000,
            lost: 3,
            jitter: 0.000_010_4,
            out_of_order: 2,
            ..whole(4 * BLOCK, 2.0, None)
        };
        assert_eq!(
            text.summary(&summary(vec![stream(5, true, Some(sent), Some(received))]), false),
            "- - - - - - - - - - - - - - - - - - - - - - - - -\n\
             [ ID] Interval           Transfer     Bitrate         Jitter    Lost/Total Datagrams\n\
             [  5]   0.00-2.00   sec   512 KBytes  2.10 Mbits/sec  0.000 ms  0/1000 (0%)  sender\n\
             [  5]   0.00-2.00   sec   512 KBytes  2.10 Mbits/sec  0.010 ms  3/1000 (0.3%)  receiver\n\
             [  5]  0.0- 2.0 sec  2 datagrams received out-of-order\n"
        );
    }

    #[test]
    fn the_processors_are_told_if_that_is_wanted() {
        let text = of_client(test(Protocol::Tcp, Direction::Forward, 1));
        let mut all = summary(vec![stream(5, true, Some(whole(BLOCK, 1.0, None)), None)]);
        assert!(!text.summary(&all, false).contains("CPU"));
        assert!(text.summary(&all, true).ends_with("CPU Utilization: local 12.3% (2.0%u/10.3%s)\n"));
        all.there = Some(Cpu::default());
        assert!(text.summary(&all, true).ends_with("CPU Utilization: remote 0.0% (0.0%u/0.0%s)\n"));
    }

    #[test]
    fn sizes_and_rates_have_the_unit_that_fits() {
        for (bytes, seconds, size, speed) in [
            (0, 1.0, "0.00 Bytes", "0.00 bits/sec"),
            (100, 1.0, " 100 Bytes", " 800 bits/sec"),
            (1023, 10.0, "1023 Bytes", " 818 bits/sec"),
            (1024, 1.0, "1.00 KBytes", "8.19 Kbits/sec"),
            (1_048_575, 1.0, "1024 KBytes", "8.39 Mbits/sec"),
            (4_849_664, 1.0, "4.62 MBytes", "38.8 Mbits/sec"),
            (13_421_773, 0.5, "12.8 MBytes", " 215 Mbits/sec"),
            (1_168_000_000, 1.0, "1.09 GBytes", "9.34 Gbits/sec"),
            (1_250_000_000, 1.0, "1.16 GBytes", "10.0 Gbits/sec"),
            (250_000_000_000, 2.0, " 233 GBytes", "1.00 Tbits/sec"),
        ] {
            let line = line("5", "", 0.0, seconds, bytes, seconds);
            assert!(line.ends_with(&format!(" sec  {size}  {speed}")), "{line}");
        }
        assert_eq!(line("5", "", 99.0, 100.0, 0, 1.0), "[  5]  99.00-100.00 sec  0.00 Bytes  0.00 bits/sec");
        let late = line("5", "", 9999.0, 10_000.0, 0, 1.0);
        assert!(late.starts_with("[  5] 9999.00-10000.00 sec  "), "{late}");
    }

    #[test]
    fn shares_have_two_digits() {
        for (lost, packets, text) in [
            (0, 0, "0"),
            (0, 10, "0"),
            (10, 10, "100"),
            (123, 1000, "12"),
            (996, 1000, "100"),
            (5, 1000, "0.5"),
            (123, 100_000, "0.12"),
            (1, 30_000, "0.0033"),
            // More came than was missed: they were late.
            (-1, 8, "-12"),
        ] {
            assert_eq!(two_digits(lost_percent(lost, packets)), text, "{lost} of {packets}");
        }
    }

    #[test]
    fn where_nothing_was_sent_in_no_time_all_is_zero() {
        let nothing = Interval { end: 0.0, ..second(0, 0, Some(0)) };
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for direction in [Direction::Forward, Direction::Reverse, Direction::Both] {
                for side in [Side::Client, Side::Server] {
                    let mut text = Text::new(side, test(protocol, direction, 2));
                    let meters: Vec<_> = [true, false].map(|sends| meter(1, sends)).into();
                    let rows: Vec<_> = meters.iter().map(|meter| (meter, nothing.clone())).collect();
                    let streams = [true, false]
                        .map(|sends| stream(5, sends, Some(Whole::default()), Some(Whole::default())));
                    let told = [
                        text.interval(&rows, false),
                        text.interval(&[], false),
                        text.summary(&summary(streams.into()), true),
                        text.summary(&summary(Vec::new()), false),
                    ]
                    .concat();
                    assert!(told.contains("0.00-0.00   sec  0.00 Bytes  0.00 bits/sec"), "{told}");
                    assert!(!told.contains("NaN") && !told.contains("inf"), "{told}");
                }
            }
        }
    }

    #[test]
    fn sums_end_at_what_a_number_holds() {
        let most =
            Whole { bytes: u64::MAX, packets: u64::MAX, lost: i64::MAX, ..whole(0, 1.0, Some(u64::MAX)) };
        let sum = Sum::of([&most, &most].into_iter());
        assert_eq!((sum.bytes, sum.packets, sum.lost), (u64::MAX, u64::MAX, i64::MAX));
        assert_eq!((sum.retransmits, sum.seconds), (Some(u64::MAX), 1.0));
        let nothing = Sum::of(std::iter::empty());
        assert_eq!((nothing.bytes, nothing.seconds, nothing.retransmits), (0, 0.0, None));
        // Where one of them does not tell, the sum is of those that do.
        let sum = Sum::of([&whole(1, 1.0, None), &whole(2, 1.0, Some(3))].into_iter());
        assert_eq!((sum.bytes, sum.retransmits), (3, Some(3)));
    }
}
