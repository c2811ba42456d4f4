//! How sockets are bound: by what the kernel says of them afterwards.

use crate::guest::{Guest, NIC};

#[test]
fn the_driver_gives_zero_copy_where_it_can_and_copies_where_it_can_t() {
    let Some(guest) = Guest::new("zero_copy_or_copy") else { return };
    let server = guest.serve();
    let outcome = guest.run_xstack(&["curl", "-v", "--silent", &server.url(1000)]).expect_code(0);
    let expected = if guest.has_zero_copy() { "zero-copy" } else { "copy" };
    let expected = format!("AF_XDP sockets bound to {NIC}: {expected}, queue");
    assert!(outcome.stderr.contains(&expected), "no {expected:?} in: {}", outcome.stderr);
    assert!(!guest.has_program(), "nothing is left on the card");
}

#[test]
fn zero_copy_that_is_asked_for_is_had_or_refused_with_advice() {
    let Some(guest) = Guest::new("zero_copy_asked_for") else { return };
    let server = guest.serve();
    let outcome = guest.run_xstack(&["--mode", "native-zerocopy", "curl", "--silent", &server.url(1000)]);
    if guest.has_zero_copy() {
        outcome.expect_code(0);
    } else {
        let outcome = outcome.expect_code(45);
        assert!(outcome.stderr.contains("--mode native"), "{}", outcome.stderr);
        let outcome = guest.run_xstack(&["--mode", "native-copy", "curl", "--silent", &server.url(1000)]);
        assert_eq!(outcome.body().len(), 1000);
    }
}
