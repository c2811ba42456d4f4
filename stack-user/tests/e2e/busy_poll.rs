//! Busy polling where there are no interrupts: a veth pair. What it does to a card is for the guests under QEMU.

use crate::support::{TestLab, assert_same_bytes};

#[test]
fn a_veth_is_polled_too_and_has_nothing_to_hold_back() {
    let test = "a_veth_is_polled_too_and_has_nothing_to_hold_back";
    let Some(lab) = TestLab::with_servers(test, &["curl"]) else { return };
    let state = lab.host_state();
    let url = "http://example.com/bytes/10000000";
    let outcome = lab.xstack(&["--busy-poll=200", "curl", "-v", url]);
    assert!(outcome.stderr.contains("is polled by us"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("no interrupts to hold back"), "{}", outcome.stderr);
    assert_same_bytes(&outcome.body(), &lab.real_curl(url), "the page");
    assert_eq!(lab.host_state(), state, "the host is not as it was");
    let outcome = lab.xstack(&["--busy-poll=0", "curl", url]).expect_code(2);
    assert!(outcome.stderr.contains("--busy-poll"), "{}", outcome.stderr);
}
