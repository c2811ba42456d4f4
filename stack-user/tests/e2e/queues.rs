//! An interface with several queues.

use crate::support::{TestLab, assert_same_bytes};

#[test]
fn two_queues_carry_every_flow() {
    let Some(lab) = TestLab::with_queues("two_queues_carry_every_flow", 2) else { return };
    let url = "http://example.com/bytes/300000";
    let expected = lab.curl(&[url]).body();
    assert_eq!(expected.len(), 300_000);
    // Ports are random, so a few flows land on either queue.
    for round in 0..8 {
        assert_same_bytes(&lab.curl(&[url]).body(), &expected, &format!("flow {round}"));
    }
}

#[test]
fn binding_one_queue_of_two_is_warned_about() {
    let Some(lab) = TestLab::with_queues("binding_one_queue_of_two_is_warned_about", 2) else { return };
    let warned =
        |arguments: &[&str]| lab.xstack(arguments).stderr.contains("only queue 0 of xs0's 2 is bound");
    let url = ["curl", "--silent", "--max-time", "2", "http://example.com/"];
    // Whether an answer comes depends on the queue that it takes; the warning does not.
    assert!(warned(&[&["--queue", "0"], &url[..]].concat()));
    assert!(!warned(&url));
}
