//! Segments that follow each other: sent together, and taken in together, they are what they would be one by one.

use proptest::prelude::*;

use super::*;
use crate::{net::neighbour::Evidence, tcp::timer::Timer, wire::tcp::Header};

/// A link with frames enough for a train, and a connection from a to b: its two ends.
fn connected() -> (Link, TcpId, TcpId) {
    let mut link = Link::new();
    (link.a, link.b) = (roomy(1), roomy(2));
    connect_on(link)
}

fn connect_on(link: Link) -> (Link, TcpId, TcpId) {
    connect_on_with(link, 1_500)
}

/// The same, where the peer's link takes packets of so many bytes.
fn connect_on_with(mut link: Link, mtu: u16) -> (Link, TcpId, TcpId) {
    let (from, to) = connect_over(&mut link, mtu);
    link.a.tcp_set_nodelay(from, true);
    // Until a window of some size is open, and the path's MTU is known.
    let some = 30 * usize::from(mtu);
    for _ in 0..40 {
        let _ = link.a.tcp_write(link.now, from, &vec![7; some]);
        link.run(Duration::from_millis(5));
        while link.b.tcp_read(link.now, to, &mut [0; 40_000]).is_ok() {}
    }
    link.run(Duration::from_secs(2));
    while link.b.tcp_read(link.now, to, &mut [0; 40_000]).is_ok() {}
    (link, from, to)
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ at >> 8) as u8).collect()
}

/// A frame's segment, its payload, and where the frame goes. The sums of both headers are right.
fn parsed(frame: &[u8]) -> (MacAddr, Segment, &[u8]) {
    let (ethernet, ip) = ethernet::Header::parse(frame).expect("Ethernet");
    let (header, range) = ipv4::Header::parse(&frame[ip..]).expect("IPv4");
    let bytes = &frame[ip..][range];
    let parsed = Segment::parse(header.source.into(), header.destination.into(), bytes);
    let (segment, payload) = parsed.expect("a segment");
    (ethernet.destination, segment, &bytes[payload..])
}

#[test]
fn a_train_has_numbers_sums_and_bytes_of_segments_and_ends_with_psh() {
    let (mut link, from, _) = connected();
    let data = content(30 * 1448 + 100);
    assert_eq!(link.a.tcp_write(link.now, from, &data), Ok(data.len()));
    let next = link.a.tcp(from).expect("it").send_unacknowledged();
    let frames = sent(&mut link.a, link.now);
    assert_eq!(frames.len(), 31);
    let mut at = 0;
    for (index, frame) in frames.iter().enumerate() {
        let (to, segment, payload) = parsed(frame);
        assert_eq!((to, segment.seq), (link.b.mac(), next + at), "segment {index}");
        assert_eq!(payload, &data[at..at + payload.len()]);
        assert_eq!(segment.flags.contains(Flags::PSH), index == 30, "segment {index}");
        assert!(segment.options.timestamps.is_some());
        at += payload.len();
    }
    assert_eq!(at, data.len());
}

#[test]
fn segments_that_follow_each_other_are_taken_in_together() {
    let (mut link, from, to) = connected();
    let data = content(24 * 1448);
    assert_eq!(link.a.tcp_write(link.now, from, &data), Ok(data.len()));
    let frames = sent(&mut link.a, link.now);
    let taken_in = |link: &Link| link.b.followers().taken_in;
    let before = taken_in(&link);
    receive_all(&mut link.b, link.now, &frames[..10]);
    assert_eq!(taken_in(&link) - before, 9, "all but the first");
    frames[10..12].iter().for_each(|frame| receive(&mut link.b, link.now, frame));
    assert_eq!(taken_in(&link) - before, 9, "each came alone");
    // One is late: those before it are a train, those behind it are put aside, and it is no follower of theirs.
    let late = [&frames[12..15], &frames[16..18], &frames[15..16]].concat();
    receive_all(&mut link.b, link.now, &late);
    assert_eq!(taken_in(&link) - before, 9 + 2);
    receive_all(&mut link.b, link.now, &frames[18..]);
    assert_eq!(taken_in(&link) - before, 9 + 2 + 5);
    let mut read = vec![0; data.len()];
    assert_eq!(link.b.tcp_read(link.now, to, &mut read), Ok(data.len()));
    assert!(read == data);
}

#[test]
fn bulk_data_is_sent_in_one_train() {
    let (mut link, from, _) = connected();
    let before = link.a.followers().sent;
    assert_eq!(link.a.tcp_write(link.now, from, &content(30 * 1448)), Ok(30 * 1448));
    assert_eq!(sent(&mut link.a, link.now).len(), 30);
    // All but the first, and the last, which says PSH.
    assert_eq!(link.a.followers().sent - before, 28);
    assert_eq!(link.a.followers().taken_in, 0, "only ACKs came");
}

#[test]
fn of_a_train_that_ends_early_those_count_that_were_sent() {
    let (mut link, from, _) = connected();
    let before = link.a.followers().sent;
    assert_eq!(link.a.tcp_write(link.now, from, &[0; 20 * 1448]), Ok(20 * 1448));
    assert_eq!(sent_at_once(&mut link.a, link.now, 8).len(), 8);
    link.a.tcp_abort(link.now, from);
    assert!(parsed(&sent(&mut link.a, link.now)[0]).1.rst());
    assert_eq!(link.a.followers().sent - before, 7);
}

/// RFC 9293 §3.10.7.4, RFC 5681 §3.1: neither the peer's window nor the congestion window is overrun.
#[test]
fn a_train_is_no_longer_than_the_windows_allow_rfc5681_3_1() {
    let (mut link, from, _) = connected();
    while link.a.tcp_write(link.now, from, &[0; 100_000]).is_ok() {}
    let frames = sent(&mut link.a, link.now).len();
    let info = link.a.tcp(from).expect("it").info();
    assert!(info.in_flight <= info.cwnd.min(info.send_window), "{info:?}");
    assert!(info.in_flight + info.mss > info.cwnd.min(info.send_window), "{info:?}");
    assert_eq!(frames, info.in_flight / info.mss);
}

#[test]
fn what_happens_between_two_bursts_counts_for_the_second() {
    let (mut link, from, _) = connected();
    assert_eq!(link.a.tcp_write(link.now, from, &[0; 24 * 1448]), Ok(24 * 1448));
    let take = |link: &mut Link| {
        let frames = sent_at_once(&mut link.a, link.now, 4);
        assert_eq!(frames.len(), 4);
        frames
    };
    take(&mut link);
    assert!(take(&mut link).iter().all(|frame| parsed(frame).0 == link.b.mac()));
    // The neighbour has another card, from now on.
    let other = MacAddr([2, 0, 0, 0, 0, 9]);
    let Stack { neighbours, .. } = &mut link.a;
    neighbours.learn(link.now, B.into(), other, Evidence::Request);
    assert!(take(&mut link).iter().all(|frame| parsed(frame).0 == other));
    link.a.tcp_set_dscp(from, 10);
    assert!(take(&mut link).iter().all(|frame| frame[ethernet::LEN + 1] >> 2 == 10));
    link.a.tcp_abort(link.now, from);
    let [reset] = &sent_at_once(&mut link.a, link.now, 4)[..] else { panic!("one frame, and no data") };
    assert!(parsed(reset).1.rst());
}

/// Whoever has much to send lets others have their turn.
#[test]
fn streams_take_turns_and_a_short_answer_waits_for_no_more_than_one() {
    let (mut link, one, _) = connected();
    let listener = link.b.tcp_listen(link.now, to(B, 81), 5).expect("a listener");
    let (two, _) = link.a.tcp_connect(link.now, to(B, 81)).expect("a connection");
    link.run(Duration::from_millis(10));
    link.b.tcp_accept(link.now, listener).expect("a connection");
    assert_eq!(link.a.tcp_write(link.now, one, &[0; 40 * 1448]), Ok(40 * 1448));
    assert_eq!(link.a.tcp_write(link.now, two, b"short"), Ok(5));
    let frames = sent_at_once(&mut link.a, link.now, 64);
    let short = frames.iter().position(|frame| parsed(frame).2 == b"short").expect("it");
    assert!(short <= 17, "{short} segments in front of it");
    assert_eq!(frames.len(), 41);
}

/// RFC 3168 §6.1.2: what is said once is said once.
#[test]
fn cwr_is_in_one_segment_and_not_in_its_followers_rfc3168_6_1_2() {
    let mut link = Link::new();
    (link.a, link.b) = (roomy(1), roomy(2));
    let config = crate::tcp::Config { ecn: true, ..Default::default() };
    link.a.set_tcp_config(config.clone());
    link.b.set_tcp_config(config);
    let (mut link, from, to) = connect_on(link);
    assert_eq!(link.a.tcp_write(link.now, from, &[0; 40 * 1448]), Ok(40 * 1448));
    let mut frames = sent(&mut link.a, link.now);
    // Congestion is experienced on the way.
    let ip = &mut frames[3][ethernet::LEN..TCP];
    assert_eq!(ip[1] & 3, 2, "ECT(0)");
    ip[1] |= 3;
    ip[10..12].fill(0);
    let sum = crate::wire::checksum::checksum(ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    receive_all(&mut link.b, link.now, &frames);
    link.run(Duration::from_millis(50));
    while link.b.tcp_read(link.now, to, &mut [0; 40_000]).is_ok() {}
    link.run(Duration::from_millis(50));
    let before = link.a.followers().sent;
    assert_eq!(link.a.tcp_write(link.now, from, &[0; 20 * 1448]), Ok(20 * 1448));
    let frames = sent(&mut link.a, link.now);
    let reduced = |frame: &&Vec<u8>| parsed(frame).1.flags.contains(Flags::CWR);
    assert_eq!((frames.len(), frames.iter().filter(reduced).count()), (20, 1));
    assert!(link.a.followers().sent > before, "they are a train all the same");
}

/// RFC 9293 §3.8.6.3, SHLD-19, for who looks more often than bursts come.
#[test]
fn one_ack_answers_what_comes_within_its_hold_shld_19() {
    let hold = Duration::from_micros(20);
    let mut link = Link::new();
    (link.a, link.b) = (roomy(1), roomy(2));
    link.b.set_tcp_config(crate::tcp::Config { ack_hold: hold, ..Default::default() });
    let (mut link, from, _) = connect_on(link);
    assert_eq!(link.a.tcp_write(link.now, from, &[0; 40 * 1448]), Ok(40 * 1448));
    let frames = sent(&mut link.a, link.now);
    let start = link.now;
    // A pair every five microseconds: one ACK at the end of the hold, and the next 20 µs after the first that it does not answer.
    let mut answers = Vec::new();
    for (index, pair) in frames[..20].chunks(2).enumerate() {
        let now = start + Duration::from_micros(5 * index as u64);
        receive_all(&mut link.b, now, pair);
        let before = sent(&mut link.b, now).len();
        assert!(link.b.poll_timeout().is_some_and(|due| due <= now + hold), "it will be asked in time");
        link.b.handle_timeout(now);
        answers.push(before + sent(&mut link.b, now).len());
    }
    assert_eq!(answers, [0, 0, 0, 0, 1, 0, 0, 0, 0, 1]);
    // Many at once are not held.
    receive_all(&mut link.b, start + Duration::from_micros(46), &frames[20..]);
    assert_eq!(sent(&mut link.b, start + Duration::from_micros(46)).len(), 1);
}

/// What a wire and an attacker do to a burst.
#[derive(Clone, Debug)]
enum Change {
    Lose(usize),
    Repeat(usize),
    Swap(usize),
    Flip(usize, usize),
    Cut(usize, usize),
    /// A bit of the segment's flags, with a right checksum.
    Flag(usize, u8),
    /// The acknowledgement number or the window, likewise.
    Say(usize, u8),
}

fn change() -> impl Strategy<Value = Change> {
    let at = 0usize..24;
    prop_oneof![
        at.clone().prop_map(Change::Lose),
        at.clone().prop_map(Change::Repeat),
        at.clone().prop_map(Change::Swap),
        (at.clone(), 0usize..1514).prop_map(|(at, bit)| Change::Flip(at, bit)),
        (at.clone(), 0usize..1514).prop_map(|(at, len)| Change::Cut(at, len)),
        (at.clone(), 0u8..8).prop_map(|(at, bit)| Change::Flag(at, bit)),
        (at, 8u8..16).prop_map(|(at, byte)| Change::Say(at, byte)),
    ]
}

/// Where a frame's segment begins.
const TCP: usize = ethernet::LEN + ipv4::LEN;

/// Makes the checksum of a segment right that was changed.
fn sum_again(frame: &mut [u8]) {
    let Some(segment) = frame.get_mut(TCP..).filter(|segment| segment.len() >= Header::LEN) else {
        return;
    };
    Header::set_checksum(segment, 0);
    let pseudo = crate::wire::checksum::Sum::pseudo_header(A.into(), B.into(), protocol::TCP, segment.len());
    let sum = pseudo.bytes(segment).finish();
    Header::set_checksum(segment, sum);
}

fn apply(frames: &mut Vec<Vec<u8>>, change: &Change) {
    if frames.is_empty() {
        return;
    }
    let n = frames.len();
    match *change {
        Change::Lose(at) => drop(frames.remove(at % n)),
        Change::Repeat(at) => frames.insert(at % n, frames[at % n].clone()),
        Change::Swap(at) => frames.swap(at % n, (at + 1) % n),
        Change::Flip(at, bit) => {
            if let Some(byte) = frames[at % n].get_mut(bit) {
                *byte ^= 0x10;
            }
        }
        Change::Cut(at, len) => frames[at % n].truncate(len),
        Change::Flag(at, bit) => {
            if let Some(byte) = frames[at % n].get_mut(TCP + 13) {
                *byte ^= 1 << bit;
            }
            sum_again(&mut frames[at % n]);
        }
        Change::Say(at, byte) => {
            if let Some(byte) = frames[at % n].get_mut(TCP + usize::from(byte)) {
                *byte = byte.wrapping_add(1);
            }
            sum_again(&mut frames[at % n]);
        }
    }
}

/// What can be told of b: what was read, what it said, its drops, and its free chunks.
type Outcome = (Vec<u8>, Vec<(char, Vec<u8>)>, Vec<u64>, usize);

/// The same after it got these frames, and some time to answer.
fn outcome(frames: &[Vec<u8>], together: bool) -> Outcome {
    let (mut link, _, to) = connected();
    link.seen.clear();
    if together {
        receive_all(&mut link.b, link.now, frames);
    } else {
        frames.iter().for_each(|frame| receive(&mut link.b, link.now, frame));
    }
    let mut read = vec![0; 100_000];
    let n = link.b.tcp_read(link.now, to, &mut read).unwrap_or(0);
    read.truncate(n);
    link.is_up = false;
    link.run(Duration::from_millis(100));
    link.seen.retain(|&(who, _)| who == 'b');
    let drops = DropReason::ALL.iter().map(|&reason| link.b.drops().get(reason)).collect();
    link.b.tcp_abort(link.now, to);
    link.b.tcp_close(link.now, to);
    (read, std::mem::take(&mut link.seen), drops, link.b.pool().available())
}

/// Frames of which the second comes again, before the others, and all but the first two have another byte in their headers.
fn behind_a_repeated_one(at: usize, change: impl Fn(u8) -> u8) -> (Vec<Vec<u8>>, Vec<u8>) {
    let (mut link, from, _) = connected();
    let data = content(6 * 1448);
    assert_eq!(link.a.tcp_write(link.now, from, &data), Ok(data.len()));
    let mut frames = sent(&mut link.a, link.now);
    frames.insert(2, frames[1].clone());
    for frame in &mut frames[2..] {
        frame[TCP + at] = change(frame[TCP + at]);
        sum_again(frame);
    }
    (frames, data)
}

/// RFC 7323 §5.2, RFC 5961 §5.2: none of them is looked at less closely because it follows another.
#[test]
fn what_follows_a_segment_that_was_dropped_is_judged_by_itself_rfc7323_5_2_rfc5961_5_2() {
    const ACK: usize = 8;
    const TIMESTAMP: usize = 24;
    // It acknowledges what was never sent; it is older than what has come.
    for (at, change) in [(ACK, 1_u8), (TIMESTAMP, 0x80)] {
        let (frames, data) = behind_a_repeated_one(at, |byte| byte.wrapping_add(change));
        let (together, one_by_one) = (outcome(&frames, true), outcome(&frames, false));
        assert!(together.0 == data[..2 * 1448], "{} bytes", together.0.len());
        assert_eq!(said(&together.1), said(&one_by_one.1));
        assert_eq!((together.0, together.2, together.3), (one_by_one.0, one_by_one.2, one_by_one.3));
    }
}

/// RFC 7323 §4.3: a timestamp that a duplicate had, and was not kept, is kept when the next segment has it.
#[test]
fn the_timestamp_of_what_follows_a_duplicate_is_echoed_rfc7323_4_3() {
    const TIMESTAMP: usize = 27;
    let (frames, _) = behind_a_repeated_one(TIMESTAMP, |byte| byte.wrapping_add(1));
    let told = |bytes: &[u8]| parsed(bytes).1.options.timestamps.expect("timestamps");
    for together in [true, false] {
        let (mut link, _, _) = connected();
        receive_all(&mut link.b, link.now, &frames[..2]);
        let acks = sent(&mut link.b, link.now);
        assert_eq!(told(&acks[0]).echo, told(&frames[0]).value);
        match together {
            true => receive_all(&mut link.b, link.now, &frames[2..]),
            false => frames[2..].iter().for_each(|frame| receive(&mut link.b, link.now, frame)),
        }
        let acks = sent(&mut link.b, link.now);
        assert_eq!(told(acks.last().expect("an ACK")).echo, told(&frames[2]).value, "together: {together}");
    }
}

/// RFC 9293 §3.10.7.4, fifth step: a retransmission that has more in it than what came is no news of the window; what follows it is.
#[test]
fn the_window_behind_an_overlap_is_the_newest() {
    let (mut link, from, _) = connected();
    let data = content(3 * 1448);
    assert_eq!(link.a.tcp_write(link.now, from, &data), Ok(data.len()));
    let whole = sent(&mut link.a, link.now);
    let first = parsed(&whole[0]).1;
    // The same stream, cut otherwise.
    let cut = |range: core::ops::Range<usize>, window: u16| {
        let mut frame = whole[0].clone();
        let header = TCP + first.header_len();
        frame.truncate(header);
        frame.extend(&data[range.clone()]);
        let total = (frame.len() - ethernet::LEN) as u16;
        let ip = &mut frame[ethernet::LEN..TCP];
        ip[2..4].copy_from_slice(&total.to_be_bytes());
        ip[10..12].fill(0);
        let sum = crate::wire::checksum::checksum(ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        Header::renumber(&mut frame[TCP..], (first.seq + range.start).0, 0);
        frame[TCP + 14..TCP + 16].copy_from_slice(&window.to_be_bytes());
        sum_again(&mut frame);
        frame
    };
    let before = [cut(0..1000, first.window), cut(1000..1400, first.window)];
    let burst = [cut(900..1500, 70), cut(1500..2000, 70), cut(2000..2100, 70)];
    let windows = [true, false].map(|together| {
        let (mut link, _, to) = connected();
        receive_all(&mut link.b, link.now, &before);
        match together {
            true => receive_all(&mut link.b, link.now, &burst),
            false => burst.iter().for_each(|frame| receive(&mut link.b, link.now, frame)),
        }
        let mut read = vec![0; data.len()];
        assert_eq!(link.b.tcp_read(link.now, to, &mut read), Ok(2100));
        assert!(read[..2100] == data[..2100]);
        let info = link.b.tcp(to).expect("it").info();
        (info.send_window, 70 << info.window_shifts.0)
    });
    assert_eq!(windows[0].0, windows[0].1);
    assert_eq!(windows[0], windows[1]);
}

fn said(frames: &[(char, Vec<u8>)]) -> Vec<Segment> {
    frames.iter().map(|(_, frame)| parsed(frame).1).collect()
}

/// On every such way there are trains, so that the comparison below is one.
#[test]
fn there_are_trains_over_tags_and_of_frames_in_several_chunks() {
    for (mtu, vlan) in [(1_500, Some(7)), (9_000, None), (9_000, Some(7)), (70, None)] {
        let (mut link, from, _) = on_the_way(Way { mtu, vlan, ecn: false });
        let before = (link.a.followers().sent, link.b.followers().taken_in);
        let _ = link.a.tcp_write(link.now, from, &vec![7; 20 * usize::from(mtu)]);
        let frames = sent(&mut link.a, link.now);
        assert!(link.a.followers().sent >= before.0 + 10, "{mtu} {vlan:?}");
        receive_all(&mut link.b, link.now, &frames);
        assert!(link.b.followers().taken_in >= before.1 + 10, "{mtu} {vlan:?}");
    }
}

/// RFC 9293 §3.8.6.3, SHLD-19: when segments grow longer, what was a full one before them counts.
#[test]
fn segments_that_grow_longer_are_acknowledged_at_once_as_they_are_one_by_one_shld_19() {
    let answered = [true, false].map(|together| {
        let mut link = Link::new();
        (link.a, link.b) = (roomy(1), roomy(2));
        let (from, to) = connect(&mut link);
        link.a.tcp_set_nodelay(from, true);
        // So many short ones that none is acknowledged at once because the connection is young.
        for _ in 0..40 {
            assert_eq!(link.a.tcp_write(link.now, from, &[1; 100]), Ok(100));
            link.run(Duration::from_millis(100));
        }
        while link.b.tcp_read(link.now, to, &mut [0; 5_000]).is_ok() {}
        let frames: Vec<_> = [100, 100, 100, 1448]
            .into_iter()
            .flat_map(|len| {
                assert_eq!(link.a.tcp_write(link.now, from, &vec![2; len]), Ok(len));
                sent(&mut link.a, link.now)
            })
            .collect();
        assert_eq!(frames.len(), 4);
        match together {
            true => receive_all(&mut link.b, link.now, &frames),
            false => frames.iter().for_each(|frame| receive(&mut link.b, link.now, frame)),
        }
        sent(&mut link.b, link.now).len()
    });
    assert_eq!(answered, [1, 1]);
}

/// What is done with a stream between two bursts.
#[derive(Clone, Debug)]
enum Act {
    Write(usize),
    WriteUrgently(usize),
    /// So many bytes, or as many as fit, into each of some frames.
    WriteInPlace(usize),
    /// As many frames at once.
    Send(usize),
    /// What was sent comes, and is acknowledged.
    Deliver,
    /// What was sent is lost.
    Lose,
    Pass(u64),
    Mark(u8),
    Finish,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (1usize..30 * 1448).prop_map(Act::Write),
        1 => (1usize..3000).prop_map(Act::WriteUrgently),
        1 => (1usize..3000).prop_map(Act::WriteInPlace),
        5 => (1usize..65).prop_map(Act::Send),
        4 => Just(Act::Deliver),
        1 => Just(Act::Lose),
        2 => (0u64..300).prop_map(Act::Pass),
        1 => (0u8..63).prop_map(Act::Mark),
        1 => Just(Act::Finish),
    ]
}

/// What segments go over.
#[derive(Clone, Copy, Debug)]
struct Way {
    mtu: u16,
    vlan: Option<u16>,
    ecn: bool,
}

fn way() -> impl Strategy<Value = Way> {
    let mtu = prop_oneof![Just(1_500), 68u16..100, 100u16..1_500, 1_500u16..9_000];
    (mtu, any::<bool>(), any::<bool>()).prop_map(|(mtu, tagged, ecn)| Way {
        mtu,
        vlan: tagged.then_some(7),
        ecn,
    })
}

/// Two stacks whose chunks are shorter than some frames are.
fn on_the_way(way: Way) -> (Link, TcpId, TcpId) {
    let [a, b] = [1, 2].map(|number| {
        let umem = Umem::on_heap_of(4096, 2048).expect("memory");
        let mac = MacAddr([2, 0, 0, 0, 0, number]);
        let mut stack = Stack::new(
            Instant::from_millis(1_000),
            mac,
            way.vlan,
            umem,
            crate::rng::Rng::from_seed(number.into()),
        );
        stack.set_tcp_config(crate::tcp::Config { ecn: way.ecn, ..Default::default() });
        stack
    });
    connect_on_with(Link { a, b, ..Link::new() }, way.mtu)
}

/// All that a stream sends, asked for in bursts or one by one; what the connection says of itself in the end; and until when pacing
/// waits: what time has let out of its bucket is rounded whenever it is looked at, so that may differ by a byte's time.
fn all_that_is_sent(way: Way, acts: &[Act], at_once: bool) -> (Vec<Vec<u8>>, String, Option<Instant>) {
    let (mut link, from, to) = on_the_way(way);
    let (mut all, mut on_the_way) = (Vec::new(), Vec::new());
    for act in acts {
        match *act {
            Act::Write(n) => drop(link.a.tcp_write(link.now, from, &content(n))),
            Act::WriteUrgently(n) => drop(link.a.tcp_write_urgent(link.now, from, &content(n))),
            Act::WriteInPlace(len) => {
                for frame in 0..8 {
                    let Ok(mut reserved) = link.a.tcp_reserve(link.now, from) else { break };
                    let at = reserved.layout.payload_at;
                    let room = link.a.pool_mut().tx_buffer(&mut reserved.frame).get_mut(at..).expect("room");
                    let len = len.min(reserved.layout.mss).min(room.len());
                    room[..len].fill(frame);
                    link.a.tcp_commit(from, reserved, len).expect("committed");
                }
            }
            Act::Send(n) if at_once => on_the_way.extend(sent_at_once(&mut link.a, link.now, n)),
            Act::Send(n) => {
                on_the_way.extend((0..n).flat_map(|_| sent_at_once(&mut link.a, link.now, 1)));
            }
            Act::Deliver => {
                all.extend(on_the_way.iter().cloned());
                receive_all(&mut link.b, link.now, &std::mem::take(&mut on_the_way));
                while link.b.tcp_read(link.now, to, &mut [0; 40_000]).is_ok_and(|n| n > 0) {}
                let answers = sent(&mut link.b, link.now);
                receive_all(&mut link.a, link.now, &answers);
            }
            Act::Lose => all.append(&mut on_the_way),
            Act::Pass(ms) => {
                link.now += Duration::from_millis(ms);
                link.a.handle_timeout(link.now);
                link.b.handle_timeout(link.now);
            }
            Act::Mark(dscp) => link.a.tcp_set_dscp(from, dscp),
            Act::Finish => link.a.tcp_shutdown_write(link.now, from),
        }
    }
    all.append(&mut on_the_way);
    let mut info = link.a.tcp(from).expect("its handle is held").info();
    let paced_until = info.timers.at(Timer::Pacing);
    info.timers.stop(Timer::Pacing);
    (all, format!("{info:?}"), paced_until)
}

/// RFC 8985 §7.3: a probe waits for nobody, but what follows it is paced as all else is.
#[test]
fn what_follows_a_loss_probe_fills_the_bucket_as_it_would_one_by_one_rfc8985_7_3() {
    let way = Way { mtu: 1_500, vlan: None, ecn: false };
    let probe =
        [Act::Write(15_929), Act::Send(12), Act::Lose, Act::Pass(10), Act::Write(24_465), Act::Send(14)];
    let acts =
        [&probe[..], &[Act::WriteInPlace(1), Act::WriteInPlace(1), Act::Deliver, Act::Send(16)]].concat();
    let [at_once, one_by_one] = [true, false].map(|at_once| all_that_is_sent(way, &acts, at_once));
    assert_eq!((at_once.0.len(), at_once.1), (one_by_one.0.len(), one_by_one.1));
}

/// RFC 9293 §3.8.6: the peer's window bounds a train, also where the congestion window is larger.
#[test]
fn a_train_ends_where_the_peers_window_does_rfc9293_3_8_6() {
    let (mut link, from, to) = connected();
    // Nobody reads any more, until the window is nearly closed.
    for n in [20, 7, 1] {
        let window = |link: &Link| {
            let info = link.a.tcp(from).expect("it").info();
            (info.send_window - info.in_flight, info.cwnd)
        };
        while window(&link).0 > n * 1448 + 700 {
            let some = (window(&link).0 - n * 1448 - 700).min(20 * 1448);
            assert_eq!(link.a.tcp_write(link.now, from, &vec![1; some]), Ok(some));
            link.run(Duration::from_millis(100));
        }
        let (room, cwnd) = window(&link);
        assert!(room < cwnd && room >= n * 1448, "{room} {cwnd}");
    }
    let info = link.a.tcp(from).expect("it").info();
    let written = link.a.tcp_write(link.now, from, &vec![2; 40 * 1448]).expect("room to write");
    assert!(written > info.send_window);
    let sent: usize = sent_at_once(&mut link.a, link.now, 64).iter().map(|frame| parsed(frame).2.len()).sum();
    assert!(sent <= info.send_window, "{sent} of {}", info.send_window);
    while link.b.tcp_read(link.now, to, &mut [0; 40_000]).is_ok() {}
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_sent_at_once_is_what_would_be_sent_one_by_one(
        way in way(),
        acts in proptest::collection::vec(act(), 1..40),
    ) {
        let [at_once, one_by_one] = [true, false].map(|at_once| all_that_is_sent(way, &acts, at_once));
        prop_assert!(at_once.0 == one_by_one.0, "{:?} and {:?}", at_once.0.len(), one_by_one.0.len());
        prop_assert_eq!(at_once.1, one_by_one.1);
        let [first, second] = [at_once.2, one_by_one.2].map(|at| at.unwrap_or_default());
        prop_assert!(first.max(second) - first.min(second) < Duration::from_micros(10), "{first} and {second}");
    }

    #[test]
    fn a_burst_is_taken_in_as_its_frames_are_one_by_one(
        len in 1usize..24 * 1448,
        ends in any::<bool>(),
        changes in proptest::collection::vec(change(), 0..4),
    ) {
        let (mut link, from, _) = connected();
        let data = content(len);
        prop_assert_eq!(link.a.tcp_write(link.now, from, &data), Ok(len));
        if ends {
            link.a.tcp_shutdown_write(link.now, from);
        }
        let mut frames = sent(&mut link.a, link.now);
        changes.iter().for_each(|change| apply(&mut frames, change));
        let (together, one_by_one) = (outcome(&frames, true), outcome(&frames, false));
        prop_assert!(together.0 == one_by_one.0, "{} and {} bytes", together.0.len(), one_by_one.0.len());
        prop_assert!(together.1 == one_by_one.1, "{:?} and {:?}", said(&together.1), said(&one_by_one.1));
        prop_assert_eq!((together.2, together.3), (one_by_one.2, one_by_one.3));
        prop_assert!(!changes.is_empty() || together.0 == data);
    }
}
