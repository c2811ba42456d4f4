//! What `xstack doctor` says of a real driver, against ethtool, bpftool and what a bind gives.

use serde_json::Value;

use crate::guest::{Guest, NIC, Nic, PEER_NIC};

/// What the doctor prints as JSON about the card under test, or about another interface.
#[track_caller]
fn doctor(guest: &Guest, arguments: &[&str]) -> Value {
    let outcome = guest.run_xstack(&[&["doctor", "--json"], arguments].concat());
    serde_json::from_slice(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {}", outcome.stderr))
}

#[track_caller]
fn finding<'a>(report: &'a Value, check: &str) -> &'a Value {
    let all = report["findings"].as_array().unwrap();
    let found = all.iter().find(|finding| finding["check"] == check && !finding["interface"].is_null());
    found.unwrap_or_else(|| panic!("nothing about {check} in {all:#?}"))
}

#[test]
fn the_doctor_tells_of_the_card_what_ethtool_tells() {
    let Some(guest) = Guest::long_on_igb("doctor_and_ethtool") else { return };
    // The scenario before this one may have just given its queues back.
    guest.wait_for_carrier();
    let report = doctor(&guest, &["--no-self-test"]);
    let told = &report["interfaces"][0];
    let field = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().to_owned()
    };
    let driver = guest.ethtool(&format!("-i {NIC}"));
    assert_eq!(told["driver"], field(&driver, "driver"));
    assert_eq!(told["bus"], field(&driver, "bus-info"));
    let features = guest.ethtool(&format!("-k {NIC}"));
    for (ours, theirs) in [
        ("gro", "generic-receive-offload"),
        ("lro", "large-receive-offload"),
        ("hardware_gro", "rx-gro-hw"),
        ("rx_vlan", "rx-vlan-offload"),
        ("tx_vlan", "tx-vlan-offload"),
        ("tx_checksum", "tx-checksumming"),
    ] {
        assert_eq!(told["offloads"][ours], field(&features, theirs).starts_with("on"), "{ours}: {features}");
    }
    // ethtool has the most first, and then what there is.
    let channels = guest.ethtool(&format!("-l {NIC}"));
    let combined: Vec<u64> =
        channels.lines().filter_map(|line| line.strip_prefix("Combined:")?.trim().parse().ok()).collect();
    assert_eq!(told["queues"]["max_combined"], combined[0], "{channels}");
    assert_eq!(told["queues"]["combined"], combined[1], "{channels}");
    assert_eq!(told["queues"]["receiving"], u64::from(guest.queues()));
    // Of its own address, and of the wire.
    assert_eq!((&told["up"], &told["carrier"]), (&true.into(), &true.into()));
    assert_eq!(told["mtu"], 1500);
    let link = guest.ip(&format!("-o link show {NIC}"));
    assert!(link.contains(told["mac"].as_str().unwrap()), "{link}");
}

#[test]
fn the_doctor_tells_what_a_bind_gives() {
    let Some(guest) = Guest::long_on_igb("doctor_and_bind") else { return };
    let before = doctor(&guest, &["--no-self-test"]);
    assert_eq!(before["interfaces"][0]["program"], Value::Null, "{before:#}");
    assert_eq!(before["interfaces"][0]["sockets"].as_array().map(Vec::len), Some(0), "{before:#}");
    let says = before["interfaces"][0]["xdp"]["zero_copy"].as_bool().unwrap();
    assert_eq!(says, guest.has_zero_copy(), "{before:#}");
    let refused = before["interfaces"][0]["virtio"]["access_platform"] == false;
    let severity = if says && !refused { "ok" } else { "note" };
    assert_eq!(finding(&before, "zero_copy")["severity"], severity);
    assert_eq!(before["interfaces"][0]["virtio"].is_null(), guest.nic() != Nic::Virtio);
    // Of none of QEMU's cards does a driver take any (docs/drivers.md).
    let metadata = before["interfaces"][0]["xdp"]["tx_metadata"].as_array();
    assert!(metadata.is_none_or(Vec::is_empty), "{before:#}");

    let running = guest.start_xstack(&["serve", "/tmp"]);
    let report = doctor(&guest, &["--no-self-test"]);
    assert_eq!(report["severity"], "warning", "{report:#}");
    let told = &report["interfaces"][0];
    assert_eq!((&told["program"]["name"], &told["program"]["mode"]), (&"xstack".into(), &"native".into()));
    if guest.require_program("bpftool") {
        let mut bpftool = std::process::Command::new("/usr/sbin/bpftool");
        let output = bpftool.args(["--json", "net", "show", "dev", NIC]).output().unwrap();
        let net: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(told["program"]["id"], net[0]["xdp"][0]["id"], "{net:#}");
    }
    let sockets = told["sockets"].as_array().unwrap();
    assert_eq!(sockets.len() as u64, u64::from(guest.queues()), "{sockets:#?}");
    for (queue, socket) in sockets.iter().enumerate() {
        // By sock_diag the bind mode and the owner are known, by the queues only that there is one.
        if !socket["uid"].is_null() {
            assert_eq!(socket["zero_copy"], says && !refused, "{socket}");
            assert_eq!(
                (&socket["process"], &socket["pid"]),
                (&"xstack".into(), &running.id().into()),
                "{socket}"
            );
        }
        assert!(sockets.iter().any(|socket| socket["queue"] == queue as u64), "{sockets:#?}");
    }
}

#[test]
fn the_doctor_tells_of_a_vlan_and_of_the_loopback() {
    let Some(guest) = Guest::long_on_igb("doctor_and_vlan") else { return };
    guest.ip(&format!("link add link {NIC} name {NIC}.7 type vlan id 7"));
    let report = doctor(&guest, &["--no-self-test", &format!("{NIC}.7")]);
    let told = &report["interfaces"][0];
    assert_eq!((&told["kind"], &told["lower"], &told["vlan"]), (&"vlan".into(), &NIC.into(), &7.into()));
    let kind = finding(&report, "kind");
    assert_eq!(kind["severity"], "warning");
    assert!(kind["advice"].as_str().unwrap().contains(&format!("--interface {NIC} --vlan 7")), "{kind}");
    guest.ip(&format!("link del {NIC}.7"));
    let report = doctor(&guest, &["--no-self-test", "lo"]);
    assert_eq!(
        (&report["severity"], &finding(&report, "kind")["severity"]),
        (&"problem".into(), &"problem".into())
    );
}

/// What it asks of the driver, the driver has to take; and the command that it names undoes it.
#[test]
fn the_doctor_has_tags_left_in_frames_and_that_can_be_undone() {
    let Some(guest) = Guest::long_on_igb("doctor_and_tags") else { return };
    let strips = || guest.ethtool(&format!("-k {NIC}")).contains("rx-vlan-offload: on");
    if !strips() {
        guest.skip("this driver leaves tags in frames anyway");
        return;
    }
    let report = doctor(&guest, &["--no-self-test", "--vlan", "7", "--fix"]);
    assert_eq!(finding(&report, "vlan_tags")["severity"], "warning", "cards may reset for it: {report:#}");
    assert!(strips());
    let report = doctor(&guest, &["--no-self-test", "--vlan", "7", "--fix=all"]);
    assert_eq!(finding(&report, "vlan_tags")["severity"], "ok", "{report:#}");
    assert!(!strips());
    let fixes = report["fixes"].as_array().unwrap();
    let made = fixes.iter().find(|made| made["check"] == "vlan_tags").unwrap();
    let undo = made["undo"].as_str().unwrap().strip_prefix("sudo ethtool ").unwrap();
    guest.ethtool(undo);
    assert!(strips());
}

#[test]
fn the_self_test_passes_in_this_kernel() {
    let Some(guest) = Guest::long_on_igb("doctor_self_test") else { return };
    let report = doctor(&guest, &[]);
    if report["self_test"]["reason"].as_str().is_some_and(|reason| reason.contains("would panic")) {
        guest.skip("this kernel panics on veth pairs");
        return;
    }
    assert_eq!(report["self_test"]["outcome"], "passed", "{:#}", report["self_test"]);
    assert!(!guest.ip("-o link show").contains("xs-doctor"), "its interfaces are its own");
    assert!(!guest.ip("-o link show").contains(PEER_NIC), "and the peer is where it was");
}
