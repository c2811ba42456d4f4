//! An address that somebody has is refused, and its owner does not notice.

use std::process::Stdio;

use crate::support::{Host, Running, TestLab, address, sized};

#[test]
fn an_address_in_use_is_refused_and_its_owner_loses_nothing() {
    let test = "an_address_in_use_is_refused_and_its_owner_loses_nothing";
    let Some(lab) = TestLab::with_servers(test, &["ping"]) else { return };
    let owner = address::PEER.to_string();
    let ping = Running::start(
        lab.on(Host::Router, "ping").args(["-q", "-i", "0.02", &owner]).stdout(Stdio::piped()),
    );
    for _ in 0..sized(5, 50) {
        let outcome = lab.xstack(&["--address", &owner, "curl", "http://example.com/"]).expect_code(45);
        assert!(outcome.stderr.contains("02:00:0a:4d:00:03"), "the owner is not named: {}", outcome.stderr);
        assert!(outcome.stdout.is_empty());
    }
    ping.signal(nix::sys::signal::Signal::SIGINT);
    let statistics = String::from_utf8(ping.finish().stdout).unwrap();
    assert!(statistics.contains(" 0% packet loss"), "{statistics}");
    assert!(!statistics.contains("DUP"), "{statistics}");
}

/// None of several is taken if one can't be, and the message says which.
#[test]
fn of_several_addresses_the_one_in_use_is_named() {
    let test = "of_several_addresses_the_one_in_use_is_named";
    let Some(lab) = TestLab::with_servers(test, &["ping"]) else { return };
    let owner = address::PEER.to_string();
    let both = format!("10.77.0.80,{owner}");
    let outcome = lab.xstack(&["--address", &both, "curl", "http://example.com/"]).expect_code(45);
    assert!(
        outcome.stderr.contains(&format!("{owner} is in use by 02:00:0a:4d:00:03")),
        "{}",
        outcome.stderr
    );
}

#[test]
fn a_free_address_is_found_when_none_is_given() {
    let Some(lab) = TestLab::with_servers("a_free_address_is_found_when_none_is_given", &["curl"]) else {
        return;
    };
    let expected = lab.real_curl("http://example.com/");
    assert_eq!(lab.xstack(&["--address", "auto", "curl", "-s", "http://example.com/"]).body(), expected);
}
