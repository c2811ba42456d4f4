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
        } else if rows.len() > 1 {
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
