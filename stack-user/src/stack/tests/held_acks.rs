//! ACKs that wait for what they can travel with.

use super::*;

const HOLD: Duration = Duration::from_micros(20);
/// How long the answer to a request, or to a FIN, is waited for.
const FOR_AN_ANSWER: Duration = Duration::from_micros(200);

/// A link, and a new connection from a to b, which holds its ACKs.
fn connected() -> (Link, TcpId, TcpId) {
    let mut link = Link::new();
    (link.a, link.b) = (roomy(1), roomy(2));
    link.b.set_tcp_config(crate::tcp::Config {
        ack_hold: HOLD,
        answer_hold: FOR_AN_ANSWER,
        ..Default::default()
    });
    let (from, to) = connect(&mut link);
    (link, from, to)
}

/// What b has been sent by a, it receives, and what it says within a time, looking every 10 µs: when, and how many bytes of frame.
fn heard_and_said(link: &mut Link, time: Duration) -> Vec<(Duration, usize)> {
    let frames = sent(&mut link.a, link.now);
    receive_all(&mut link.b, link.now, &frames);
    let (start, mut said) = (link.now, Vec::new());
    loop {
        link.b.handle_timeout(link.now);
        said.extend(sent(&mut link.b, link.now).iter().map(|frame| (link.now.since(start), frame.len())));
        if link.now.since(start) >= time {
            return said;
        }
        link.now += Duration::from_micros(10);
    }
}

#[test]
fn the_ack_of_a_request_waits_for_the_answer_shld_18() {
    let (mut link, from, to) = connected();
    link.a.tcp_set_nodelay(from, true);
    let request = [7; 84];
    assert_eq!(link.a.tcp_write(link.now, from, &request), Ok(84));
    let said = heard_and_said(&mut link, 2 * FOR_AN_ANSWER);
    assert_eq!(said.iter().map(|(when, _)| *when).collect::<Vec<_>>(), [FOR_AN_ANSWER], "nobody answered");

    assert_eq!(link.a.tcp_write(link.now, from, &request), Ok(84));
    assert_eq!(heard_and_said(&mut link, 5 * HOLD), []);
    assert_eq!(link.b.tcp_write(link.now, to, &[8; 80]), Ok(80));
    let said = heard_and_said(&mut link, 2 * FOR_AN_ANSWER);
    assert_eq!(said.len(), 1, "the answer carries it: {said:?}");
}

/// A burst does not wait for as long as a request, also where one has begun to wait.
#[test]
fn full_segments_behind_a_request_are_acknowledged_as_any_others_shld_19() {
    let (mut link, from, _) = connected();
    link.a.tcp_set_nodelay(from, true);
    assert_eq!(link.a.tcp_write(link.now, from, &[7; 84]), Ok(84));
    assert_eq!(heard_and_said(&mut link, HOLD), []);
    assert_eq!(link.a.tcp_write(link.now, from, &[7; 2 * 1448]), Ok(2 * 1448));
    let said = heard_and_said(&mut link, 2 * FOR_AN_ANSWER);
    assert_eq!(said.iter().map(|(when, _)| *when).collect::<Vec<_>>(), [HOLD]);
}

#[test]
fn the_ack_of_a_fin_waits_for_ours_unless_it_has_gone() {
    let (mut link, from, to) = connected();
    link.a.tcp_shutdown_write(link.now, from);
    assert_eq!(heard_and_said(&mut link, 5 * HOLD), []);
    link.b.tcp_shutdown_write(link.now, to);
    assert_eq!(heard_and_said(&mut link, 2 * FOR_AN_ANSWER).len(), 1, "our FIN carries it");

    let (mut link, from, to) = connected();
    link.b.tcp_shutdown_write(link.now, to);
    let fin = sent(&mut link.b, link.now);
    receive_all(&mut link.a, link.now, &fin);
    link.a.tcp_shutdown_write(link.now, from);
    let said = heard_and_said(&mut link, 2 * FOR_AN_ANSWER);
    assert_eq!(said.iter().map(|(when, _)| *when).collect::<Vec<_>>(), [HOLD], "nothing more is to be said");
}

/// RFC 7323 §2.2: a SYN says 64 KiB at most. That the window is larger is told by whatever is said first.
#[test]
fn the_first_read_of_who_was_connected_to_is_no_reason_to_speak() {
    let (mut link, from, to) = connected();
    assert_eq!(link.a.tcp_write(link.now, from, &[7; 84]), Ok(84));
    assert_eq!(heard_and_said(&mut link, HOLD), []);
    assert_eq!(link.b.tcp_read(link.now, to, &mut [0; 4]), Ok(4));
    assert_eq!(heard_and_said(&mut link, HOLD), []);
    assert_eq!(link.b.tcp_write(link.now, to, &[8; 80]), Ok(80));
    let told = sent(&mut link.b, link.now);
    receive_all(&mut link.a, link.now, &told);
    let window = link.a.tcp(from).expect("it").info().send_window;
    assert!(window > 100_000, "{window}");
}
