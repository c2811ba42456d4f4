//! How sockets are bound: by what the kernel says of them afterwards.

use crate::guest::{Guest, Story};

#[test]
fn the_driver_gives_zero_copy_where_it_can_and_copies_where_it_can_t() {
    let Some(guest) = Guest::new("zero_copy_or_copy") else { return };
    let server = guest.serve();
    let outcome = guest.run_xstack(&["curl", "-v", "--silent", &server.url(1000)]).expect_code(0);
    let story = Story(outcome.stderr);
    let queues: Vec<_> = (0..guest.queues()).map(|queue| queue.to_string()).collect();
    let copying = if guest.has_zero_copy() { "zero-copy" } else { "copy" };
    let plural = if queues.len() == 1 { "" } else { "s" };
    assert_eq!(story.bound(), format!("{copying}, queue{plural} {}", queues.join(",")));
    story.assert_frames_conserved();
    assert!(!guest.has_program(), "something is left on the card");
}

#[test]
fn zero_copy_that_is_asked_for_is_had_or_refused_with_advice() {
    let Some(guest) = Guest::long_on_igb("zero_copy_asked_for") else { return };
    let server = guest.serve();
    let get = |mode: &str| {
        guest.run_xstack(&["--mode", mode, "curl", "-v", "--silent", "--show-error", &server.url(1000)])
    };
    let asked = get("native-zerocopy");
    if guest.has_zero_copy() {
        assert!(Story(asked.expect_code(0).stderr).bound().starts_with("zero-copy"));
    } else {
        let refused = asked.expect_code(45);
        assert!(refused.stderr.contains("--mode native"), "{}", refused.stderr);
    }
    // What the advice says works everywhere.
    let copied = get("native-copy").expect_code(0);
    assert_eq!(copied.stdout.len(), 1000);
    assert!(Story(copied.stderr).bound().starts_with("copy"));
}
