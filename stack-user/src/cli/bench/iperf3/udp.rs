//! Streams of datagrams: a handshake of two, numbers and times in each, and what the receiver makes of them.
//!
//! A datagram begins with the time at which it was sent (seconds and microseconds of the sender's clock, four bytes each) and its
//! number from 1 on (four bytes, or eight if the test says so), in network order. The server has one socket for all streams, and
//! tells them apart by where they come from.

use std::{collections::HashMap, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};

use super::{
    control::{Broken, all_in_time, in_time},
    pace::Pace,
    stream::{Counters, Goal, Work},
};
use crate::cli::bench::transport::Datagrams;

/// The longest datagram that there is.
const LONGEST: usize = 65_536;

/// Room for the first datagrams: one byte more than they have, so that longer ones are none.
const HELLO_LENGTH: usize = 5;

/// Datagrams that a sender without a rate sends before others have the thread: what a burst of the driver's takes, so that
/// neither waits for long.
const TURN: u32 = 64;

/// How long the client waits for the answer to its first datagram before it sends that again; twice as long each time.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// A client's first datagram and the server's answer, as a little-endian machine has them; before 3.13 they were other numbers.
const HELLOS: [(u32, u32); 2] = [(0x3637_3839, 0x3938_3736), (123_456_789, 987_654_321)];

/// What is answered to a client's first datagram: in the order of bytes that it has. None, if it is none.
fn answer(datagram: &[u8]) -> Option<[u8; 4]> {
    let bytes = <[u8; 4]>::try_from(datagram).ok()?;
    HELLOS.into_iter().find_map(|(hello, answer)| match bytes {
        bytes if bytes == hello.to_le_bytes() => Some(answer.to_le_bytes()),
        bytes if bytes == hello.to_be_bytes() => Some(answer.to_be_bytes()),
        _ => None,
    })
}

/// Whether it is a server's answer.
fn is_answer(datagram: &[u8]) -> bool {
    let answers = HELLOS.map(|(_, answer)| answer.to_le_bytes());
    answers.iter().any(|answer| datagram == answer)
}

/// Makes the server know of a stream from `socket`.
pub(super) async fn greet<D: Datagrams>(socket: &D, server: SocketAddr) -> Result<(), Broken> {
    let mut buffer = [0; HELLO_LENGTH];
    let mut greeting = async || -> io::Result<()> {
        let mut wait = FIRST_WAIT;
        loop {
            socket.send(&HELLOS[0].0.to_le_bytes(), server).await?;
            let answered = async {
                loop {
                    let (length, from) = socket.receive(&mut buffer).await?;
                    if from == server && is_answer(&buffer[..length]) {
                        return Ok(());
                    }
                }
            };
            if let Ok(answered) = timeout(wait, answered).await {
                return answered;
            }
            wait *= 2;
        }
    };
    in_time("an answer to a datagram", async { greeting().await.map_err(Broken::Stream) }).await
}

/// Takes the first datagrams of so many streams from `client`, which may use any ports. Their order is that in which they came: a
/// client waits for each answer.
pub(super) async fn welcome<D: Datagrams>(
    socket: &D,
    client: std::net::IpAddr,
    count: usize,
) -> Result<Vec<SocketAddr>, Broken> {
    let (mut known, mut buffer) = (Vec::with_capacity(count), [0; HELLO_LENGTH]);
    let all = async {
        while known.len() < count {
            let (length, from) = socket.receive(&mut buffer).await.map_err(Broken::Stream)?;
            let Some(answer) = answer(&buffer[..length]).filter(|_| from.ip() == client) else { continue };
            if !known.contains(&from) {
                known.push(from);
            }
            socket.send(&answer, from).await.map_err(Broken::Stream)?;
        }
        Ok(())
    };
    all_in_time(count, all).await?;
    Ok(known)
}

/// Sends until dropped, or until it fails.
pub(super) async fn send_all<D: Datagrams>(
    socket: Arc<D>,
    remote: SocketAddr,
    wide: bool,
    work: Work,
) -> io::Error {
    let Work { counters, goal, payload, rate, burst } = work;
    let start = Instant::now();
    let pace = Pace::new(start, rate);
    let mut datagram = payload.to_vec();
    let (mut number, mut left_of_turn) = (0_u64, 0);
    loop {
        if left_of_turn == 0 {
            match &pace {
                Some(pace) => {
                    pace.ready(counters.bytes.get()).await;
                    left_of_turn = burst.max(1);
                }
                None => {
                    tokio::task::yield_now().await;
                    left_of_turn = TURN;
                }
            }
        }
        left_of_turn -= 1;
        if goal.is_reached() {
            return std::future::pending().await;
        }
        number += 1;
        write_header(&mut datagram, start.elapsed(), number, wide);
        match socket.send(&datagram, remote).await {
            Ok(()) => {}
            // Somebody does not listen any more: the control connection will say so.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return error,
        }
        counters.bytes.add(datagram.len() as u64);
        counters.packets.set(number);
        goal.add(datagram.len(), 1);
    }
}

/// Receives what comes from some remote ends until dropped, or until it fails.
pub(super) async fn receive_all<D: Datagrams>(
    socket: Arc<D>,
    streams: Vec<(SocketAddr, Arc<Counters>)>,
    goal: Arc<Goal>,
    wide: bool,
) -> io::Error {
    let start = Instant::now();
    let mut streams: HashMap<_, _> =
        streams.into_iter().map(|(remote, counters)| (remote, Reckoning::new(counters))).collect();
    let mut buffer = vec![0; LONGEST];
    loop {
        let (length, from) = match socket.receive(&mut buffer).await {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) => return error,
        };
        if let Some(stream) = streams.get_mut(&from)
            && let Some((sent, number)) = read_header(&buffer[..length], wide)
        {
            stream.on_datagram(length, number, sent, start.elapsed().as_secs_f64());
            goal.add(length, 1);
        }
    }
}

fn write_header(datagram: &mut [u8], at: Duration, number: u64, wide: bool) {
    let seconds = at.as_secs() as u32;
    datagram[..4].copy_from_slice(&seconds.to_be_bytes());
    datagram[4..8].copy_from_slice(&at.subsec_micros().to_be_bytes());
    if wide {
        datagram[8..16].copy_from_slice(&number.to_be_bytes());
    } else {
        datagram[8..12].copy_from_slice(&(number as u32).to_be_bytes());
    }
}

/// When it was sent, in seconds of the sender's clock, and its number. None, if it is too short to say.
fn read_header(datagram: &[u8], wide: bool) -> Option<(f64, u64)> {
    let word = |at: usize| {
        let bytes = datagram.get(at..at + 4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    };
    let sent = f64::from(word(0)?) + f64::from(word(4)?) / 1e6;
    let number = match wide {
        true => u64::from(word(8)?) << 32 | u64::from(word(12)?),
        false => word(8)?.into(),
    };
    Some((sent, number))
}

/// Loss, order and jitter as iperf3 reckons them: a gap counts as lost, and what comes late takes one off again.
#[derive(Debug)]
struct Reckoning {
    counters: Arc<Counters>,
    transit: Option<f64>,
}

impl Reckoning {
    fn new(counters: Arc<Counters>) -> Self {
        Self { counters, transit: None }
    }

    /// `sent` is on the sender's clock and `now` on ours: only how their difference changes says anything.
    fn on_datagram(&mut self, length: usize, number: u64, sent: f64, now: f64) {
        let Counters { bytes, packets, lost, out_of_order, jitter } = &*self.counters;
        bytes.add(length as u64);
        let highest = packets.get();
        if number > highest {
            // A number that makes no sense harms nobody but who sent it.
            lost.set(lost.get().saturating_add(number - 1 - highest));
            packets.set(number);
        } else {
            out_of_order.add(1);
            lost.set(lost.get().saturating_sub(1));
        }
        // RFC 1889 §6.3.1
        let transit = now - sent;
        let change = (transit - self.transit.replace(transit).unwrap_or(transit)).abs();
        let before = f64::from_bits(jitter.get());
        jitter.set((before + (change - before) / 16.0).to_bits());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reckoned(numbers: &[u64]) -> (u64, u64, u64) {
        let counters = Arc::<Counters>::default();
        let mut reckoning = Reckoning::new(Arc::clone(&counters));
        numbers.iter().for_each(|&number| reckoning.on_datagram(100, number, 0.0, 0.0));
        assert_eq!(counters.bytes.get(), 100 * numbers.len() as u64);
        (counters.packets.get(), counters.lost.get(), counters.out_of_order.get())
    }

    #[test]
    fn what_is_missing_is_lost_unless_it_comes_late() {
        assert_eq!(reckoned(&[1, 2, 3]), (3, 0, 0));
        assert_eq!(reckoned(&[1, 4]), (4, 2, 0));
        assert_eq!(reckoned(&[2, 1, 3]), (3, 0, 1));
        assert_eq!(reckoned(&[1, 1, 1]), (1, 0, 2));
        assert_eq!(reckoned(&[5, 1, 2]), (5, 2, 2));
        assert_eq!(reckoned(&[0]), (0, 0, 1));
    }

    #[test]
    fn numbers_that_make_no_sense_do_no_harm() {
        assert_eq!(reckoned(&[u64::MAX, 0, u64::MAX]), (u64::MAX, u64::MAX - 3, 2));
    }

    #[test]
    fn jitter_is_how_much_the_way_differs_smoothed_rfc1889_6_3_1() {
        let counters = Arc::<Counters>::default();
        let mut reckoning = Reckoning::new(Arc::clone(&counters));
        let jitter = || f64::from_bits(counters.jitter.get());
        // The clocks differ by a thousand seconds, which is nothing.
        reckoning.on_datagram(100, 1, 1000.0, 0.001);
        assert_eq!(jitter(), 0.0);
        reckoning.on_datagram(100, 2, 1001.0, 1.001);
        assert!(jitter().abs() < 1e-9);
        reckoning.on_datagram(100, 3, 1002.0, 2.017);
        assert!((jitter() - 0.001).abs() < 1e-9, "a sixteenth of 16 ms: {}", jitter());
        reckoning.on_datagram(100, 4, 1003.0, 3.017);
        assert!((jitter() - 0.001 * 15.0 / 16.0).abs() < 1e-9);
    }

    #[test]
    fn a_header_is_read_as_it_was_written_and_a_short_one_is_none() {
        let mut datagram = [0; 20];
        for wide in [false, true] {
            let number = if wide { 1 << 40 } else { 7 };
            write_header(&mut datagram, Duration::new(3, 500_000_000), number, wide);
            assert_eq!(read_header(&datagram, wide), Some((3.5, number)));
            let length = if wide { 16 } else { 12 };
            assert!(read_header(&datagram[..length], wide).is_some());
            assert!((0..length).all(|length| read_header(&datagram[..length], wide).is_none()));
        }
    }

    #[test]
    fn hellos_of_all_versions_and_machines_are_known_and_nothing_else() {
        assert_eq!(answer(b"9876"), Some(*b"6789"));
        assert_eq!(answer(b"6789"), Some(*b"9876"));
        assert_eq!(answer(&123_456_789_u32.to_le_bytes()), Some(987_654_321_u32.to_le_bytes()));
        for other in [&b""[..], b"987", b"98765", b"1234"] {
            assert_eq!(answer(other), None);
        }
        assert!(is_answer(b"6789") && is_answer(&987_654_321_u32.to_le_bytes()) && !is_answer(b"9876"));
    }

    /// Somebody sends the same datagram every second.
    struct Chatter(&'static [u8], SocketAddr);

    impl Datagrams for Chatter {
        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(self.1)
        }

        async fn send(&self, _: &[u8], _: SocketAddr) -> io::Result<()> {
            Ok(())
        }

        async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
            tokio::time::sleep(Duration::from_secs(1)).await;
            buffer[..self.0.len()].copy_from_slice(self.0);
            Ok((self.0.len(), self.1))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_sends_what_is_no_stream_does_not_have_a_server_wait_without_end() {
        let client = [127, 0, 0, 1].into();
        for (datagram, from) in
            [(&b"none"[..], [127, 0, 0, 1]), (b"9876", [127, 0, 0, 2]), (b"9876", [127, 0, 0, 1])]
        {
            let begun = Instant::now();
            let socket = Chatter(datagram, (from, 5201).into());
            let welcomed = timeout(Duration::from_secs(3600), welcome(&socket, client, 2)).await;
            assert!(matches!(welcomed, Ok(Err(Broken::Silent { .. }))), "{datagram:?}: {welcomed:?}");
            assert_eq!(begun.elapsed(), Duration::from_secs(11), "ten seconds, and half a second for each");
        }
    }

    #[tokio::test]
    async fn a_server_takes_streams_of_its_client_only_and_each_once() {
        let socket = || tokio::net::UdpSocket::bind("127.0.0.1:0");
        let server = Arc::new(socket().await.expect("loopback"));
        let at = server.local_addr().expect("bound");
        let (first, second) = (socket().await.expect("loopback"), socket().await.expect("loopback"));
        let stranger = tokio::net::UdpSocket::bind("127.0.0.2:0").await.expect("loopback");
        let welcoming = Arc::clone(&server);
        let welcome =
            tokio::spawn(async move { welcome(&*welcoming, [127, 0, 0, 1].into(), 2).await.expect("two") });
        stranger.send_to(b"9876", at).await.expect("sent");
        first.send_to(b"nothing", at).await.expect("sent");
        greet(&first, at).await.expect("answered");
        greet(&first, at).await.expect("answered again");
        greet(&second, at).await.expect("answered");
        let ends = [first, second].map(|socket| socket.local_addr().expect("bound"));
        assert_eq!(welcome.await.expect("no panic"), ends);
    }
}
