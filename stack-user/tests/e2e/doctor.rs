//! What `xstack doctor` says, against what other programs say of the same interfaces; and its changes, and their undoing.

use std::{
    collections::BTreeSet,
    fs,
    process::Stdio,
    thread::sleep,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{Host, Running, TestLab, XSTACK, run_for};

/// As long as it may take, with the self-test, on a machine that is busy.
const WITHIN: Duration = Duration::from_secs(60);

/// What the doctor prints as JSON, with its exit code.
#[track_caller]
fn doctor(lab: &TestLab, arguments: &[&str]) -> (Option<i32>, Value) {
    let mut command = lab.on(Host::Host, XSTACK);
    let outcome = run_for(command.args(["doctor", "--json"]).args(arguments), WITHIN);
    let parsed = serde_json::from_slice(&outcome.stdout);
    (outcome.code, parsed.unwrap_or_else(|error| panic!("{error}: {}", outcome.stderr)))
}

/// The finding of a check about an interface.
#[track_caller]
fn finding<'a>(report: &'a Value, check: &str, interface: &str) -> &'a Value {
    let all = report["findings"].as_array().unwrap();
    let found = all.iter().find(|finding| finding["check"] == check && finding["interface"] == interface);
    found.unwrap_or_else(|| panic!("nothing about {check} of {interface} in {all:#?}"))
}

/// Runs a command line that the doctor gave, without its sudo.
#[track_caller]
fn shell(lab: &TestLab, command: &Value) {
    let command = command.as_str().unwrap().strip_prefix("sudo ").expect("it begins with sudo").to_owned();
    lab.output(Host::Host, &["sh", "-c", &command]);
}

/// Whether `ethtool -k` says that a feature is on.
fn is_on(lab: &TestLab, host: Host, interface: &str, feature: &str) -> bool {
    let text = lab.text(host, &["ethtool", "-k", interface]);
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{feature}: ")));
    line.unwrap_or_else(|| panic!("no {feature}")).starts_with("on")
}

#[test]
fn the_doctor_tells_of_a_pair_what_other_programs_tell() {
    let test = "the_doctor_tells_of_a_pair_what_other_programs_tell";
    let Some(lab) = TestLab::with_queues(test, 2) else { return };
    let (_, report) = doctor(&lab, &["--no-self-test", "xs0"]);
    let told = &report["interfaces"][0];
    let link: Value =
        serde_json::from_slice(&lab.output(Host::Host, &["ip", "-json", "-details", "link", "show", "xs0"]))
            .unwrap();
    let link = &link[0];
    assert_eq!(told["kind"], "veth");
    for (ours, theirs) in [("index", "ifindex"), ("mtu", "mtu"), ("mac", "address")] {
        assert_eq!(told[ours], link[theirs], "{ours}");
    }
    assert_eq!(told["driver"], "veth");
    let channels = lab.text(Host::Host, &["ethtool", "-l", "xs0"]);
    let number = |name: &str, last: bool| -> u64 {
        let mut all = channels.lines().filter_map(|line| line.strip_prefix(&format!("{name}:")));
        let line = if last { all.next_back() } else { all.next() };
        line.unwrap().trim().parse().unwrap_or(0)
    };
    let queues = &told["queues"];
    assert_eq!(queues["combined"], number("Combined", true), "{channels}");
    assert_eq!(queues["max_combined"], number("Combined", false), "{channels}");
    assert_eq!((&queues["rx"], &queues["max_rx"]), (&number("RX", true).into(), &number("RX", false).into()));
    assert_eq!(queues["receiving"], 2);
    for (ours, theirs) in [
        ("gro", "generic-receive-offload"),
        ("lro", "large-receive-offload"),
        ("rx_vlan", "rx-vlan-offload"),
        ("tx_vlan", "tx-vlan-offload"),
        ("tx_checksum", "tx-checksumming"),
        ("hardware_gro", "rx-gro-hw"),
    ] {
        assert_eq!(told["offloads"][ours], is_on(&lab, Host::Host, "xs0", theirs), "{ours}");
    }
    let peer = &told["peer"];
    assert_eq!(peer["name"], "lan-host");
    let prefix = format!("ip netns exec {} ", lab.namespace(Host::Router));
    assert_eq!(peer["command_prefix"], prefix);
    assert_eq!(peer["tx_checksum"], is_on(&lab, Host::Router, "lan-host", "tx-checksumming"));
    assert_eq!(told["program"], Value::Null);
    assert_eq!(finding(&report, "checksums", "xs0")["severity"], "ok", "the lab has them finished");
    assert_eq!(finding(&report, "program", "xs0")["severity"], "ok");
}

#[test]
fn the_doctor_sees_an_xstack_that_runs() {
    let Some(lab) = TestLab::without_servers("the_doctor_sees_an_xstack_that_runs", &[]) else { return };
    let directory = tempfile::tempdir().unwrap();
    let mut serve = lab.on(Host::Host, XSTACK);
    serve.args(["--address", "10.77.0.80", "serve"]).arg(directory.path());
    let running = Running::start(serve.stdout(Stdio::null()).stderr(Stdio::null()));
    while !lab.has_program() {
        sleep(Duration::from_millis(20));
    }
    // The sockets follow the program within milliseconds.
    sleep(Duration::from_millis(500));
    let (code, report) = doctor(&lab, &["--no-self-test", "xs0"]);
    assert_eq!(code, Some(120), "{report:#}");
    let link: Value =
        serde_json::from_slice(&lab.output(Host::Host, &["ip", "-json", "-details", "link", "show", "xs0"]))
            .unwrap();
    let program = &report["interfaces"][0]["program"];
    assert_eq!(program["id"], link[0]["xdp"]["prog"]["id"], "{link:#}");
    assert_eq!((&program["name"], &program["mode"]), (&"xstack".into(), &"native".into()));
    assert_eq!(finding(&report, "program", "xs0")["severity"], "warning");
    // Which kernels tell of sockets is not for us to say; those that do have to tell of this one.
    match report["interfaces"][0]["sockets"].as_array() {
        Some(sockets) => assert_eq!(sockets[0]["queue"], 0, "{sockets:?}"),
        None => assert!(report["unseen"].to_string().contains("AF_XDP sockets"), "{report:#}"),
    }
    drop(running);
    // The kernel lets go of a queue somewhat later than of the socket that had it.
    let deadline = Instant::now() + WITHIN;
    loop {
        let (code, report) = doctor(&lab, &["--no-self-test", "xs0"]);
        assert_eq!(report["interfaces"][0]["program"], Value::Null);
        if code == Some(0) {
            return;
        }
        assert!(Instant::now() < deadline, "{report:#}");
        sleep(Duration::from_millis(100));
    }
}

#[test]
fn what_the_doctor_changes_is_undone_by_the_command_that_it_names() {
    let test = "what_the_doctor_changes_is_undone_by_the_command_that_it_names";
    let Some(lab) = TestLab::without_servers(test, &[]) else { return };
    lab.output(Host::Router, &["ethtool", "-K", "lan-host", "tx", "on", "txvlan", "on"]);
    let tags_and_sums = || {
        [
            is_on(&lab, Host::Router, "lan-host", "tx-checksumming"),
            is_on(&lab, Host::Router, "lan-host", "tx-vlan-offload"),
            is_on(&lab, Host::Host, "xs0", "rx-vlan-offload"),
        ]
    };
    assert_eq!(tags_and_sums(), [true; 3]);
    let arguments = &["--no-self-test", "--fix", "--vlan", "7", "xs0"];

    let (code, report) = doctor(&lab, &[&arguments[..], &["--dry-run"]].concat());
    assert_eq!(code, Some(120));
    assert_eq!(finding(&report, "checksums", "xs0")["severity"], "warning");
    assert!(report["fixes"].as_array().unwrap().iter().all(|made| made["outcome"] == "would-apply"));
    assert_eq!(tags_and_sums(), [true; 3], "a dry run changes nothing");

    // One of them hides another until it is made.
    let mut undo = Vec::new();
    for _ in 0..2 {
        let (_, report) = doctor(&lab, arguments);
        for made in report["fixes"].as_array().unwrap() {
            assert_eq!(made["outcome"], "applied", "{made}");
            undo.extend((!made["interface"].is_null()).then(|| made["undo"].clone()));
        }
    }
    assert_eq!(tags_and_sums(), [false; 3]);
    let (_, report) = doctor(&lab, arguments);
    for check in ["checksums", "vlan_tags"] {
        assert_eq!(finding(&report, check, "xs0")["severity"], "ok", "{report:#}");
    }
    assert!(report["fixes"].as_array().unwrap().iter().all(|made| made["interface"].is_null()), "{report:#}");
    assert_eq!(undo.len(), 3, "{undo:?}");
    for command in &undo {
        shell(&lab, command);
    }
    assert_eq!(tags_and_sums(), [true; 3], "{undo:?}");
}

#[test]
fn interfaces_that_stand_on_others_name_the_one_to_use() {
    let test = "interfaces_that_stand_on_others_name_the_one_to_use";
    let Some(lab) = TestLab::without_servers(test, &[]) else { return };
    lab.output(Host::Host, &["ip", "link", "add", "br0", "type", "bridge"]);
    lab.output(Host::Host, &["ip", "link", "add", "p0", "type", "veth", "peer", "name", "p1"]);
    lab.output(Host::Host, &["ip", "link", "set", "p0", "master", "br0"]);
    let (_, report) = doctor(&lab, &["--no-self-test", "br0", "p0", "lo"]);
    assert_eq!(report["interfaces"][0]["members"], serde_json::json!(["p0"]));
    assert_eq!(finding(&report, "kind", "br0")["severity"], "warning");
    assert_eq!(finding(&report, "state", "br0")["severity"], "problem");
    assert_eq!(finding(&report, "master", "p0")["severity"], "note");
    assert_eq!(finding(&report, "kind", "lo")["severity"], "problem");

    // What a port puts together is too long for whoever is on the bridge.
    lab.output(Host::Host, &["ethtool", "-K", "p0", "gro", "on"]);
    let (_, report) = doctor(&lab, &["--no-self-test", "br0"]);
    assert_eq!(finding(&report, "gro", "br0")["fix"]["command"], "sudo ethtool -K p0 gro off");
    let (_, report) = doctor(&lab, &["--no-self-test", "--fix=all", "br0"]);
    assert!(
        report["findings"].as_array().unwrap().iter().all(|finding| finding["check"] != "gro"),
        "{report:#}"
    );
    assert!(!is_on(&lab, Host::Host, "p0", "generic-receive-offload"));
    let fixes = report["fixes"].as_array().unwrap();
    shell(&lab, &fixes.iter().find(|made| made["check"] == "gro").unwrap()["undo"]);
    assert!(is_on(&lab, Host::Host, "p0", "generic-receive-offload"));

    let vlan = ["ip", "link", "add", "link", "xs0", "name", "xs0.7", "type", "vlan", "id", "7"];
    if !lab.on(Host::Host, vlan[0]).args(&vlan[1..]).output().unwrap().status.success() {
        println!("SKIP {test} (VLAN): this kernel was built without CONFIG_VLAN_8021Q");
        return;
    }
    let (_, report) = doctor(&lab, &["--no-self-test", "xs0.7"]);
    let told = &report["interfaces"][0];
    assert_eq!((&told["kind"], &told["lower"], &told["vlan"]), (&"vlan".into(), &"xs0".into(), &7.into()));
    let kind = finding(&report, "kind", "xs0.7");
    assert_eq!(kind["severity"], "warning");
    assert!(kind["advice"].as_str().unwrap().contains("--interface xs0 --vlan 7"), "{kind}");
}

/// Numbers are of a namespace: both ends may have the same one, each in its own.
#[test]
fn the_other_end_is_found_though_its_number_is_the_same() {
    let test = "the_other_end_is_found_though_its_number_is_the_same";
    let Some(lab) = TestLab::without_servers(test, &[]) else { return };
    let there = lab.namespace(Host::Router);
    let one = ["ip", "link", "add", "same0", "index", "777", "type", "veth"];
    let other = ["peer", "name", "same1", "index", "777", "netns", &there];
    lab.output(Host::Host, &[&one[..], &other].concat());
    let (_, report) = doctor(&lab, &["--no-self-test", "same0"]);
    let told = &report["interfaces"][0];
    assert_eq!((&told["index"], &told["peer"]["index"]), (&777.into(), &777.into()), "{told:#}");
    assert_eq!(told["peer"]["name"], "same1");
    let fix = &finding(&report, "checksums", "same0")["fix"]["command"];
    assert_eq!(*fix, format!("sudo ip netns exec {there} ethtool -K same1 tx off"));
}

#[test]
fn without_rights_the_other_end_is_known_by_its_number() {
    let test = "without_rights_the_other_end_is_known_by_its_number";
    let Some(lab) = TestLab::without_servers(test, &["setpriv"]) else { return };
    let mut command = lab.on(Host::Host, "setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all", XSTACK, "doctor", "--json", "xs0"]);
    let outcome = run_for(&mut command, WITHIN).expect_code(120);
    let report: Value = serde_json::from_slice(&outcome.stdout).unwrap();
    let link = lab.text(Host::Router, &["ip", "-o", "link", "show", "lan-host"]);
    let number = link.split(':').next().unwrap();
    let checksums = finding(&report, "checksums", "xs0");
    assert!(checksums["advice"].as_str().unwrap().contains(&format!("number {number} ")), "{checksums}");
    assert_eq!(report["self_test"]["outcome"], "skipped");
    assert!(report["unseen"].to_string().contains("the other end of xs0"), "{report:#}");
}

/// The network namespaces of a process's threads.
fn namespaces(pid: &str) -> BTreeSet<String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let namespace = |thread: fs::DirEntry| fs::read_link(thread.path().join("ns/net")).ok();
    threads.filter_map(namespace).map(|link| link.to_string_lossy().into_owned()).collect()
}

#[test]
fn the_self_test_passes_and_leaves_nothing_even_if_it_is_killed() {
    let test = "the_self_test_passes_and_leaves_nothing_even_if_it_is_killed";
    let Some(lab) = TestLab::without_servers(test, &[]) else { return };
    let state = lab.host_state();
    let (code, report) = doctor(&lab, &["xs0"]);
    let told = &report["self_test"];
    assert_eq!((code, &told["outcome"]), (Some(0), &"passed".into()), "{report:#}");
    assert_eq!(told["mode"], "native");
    assert!(told["device"].as_str().unwrap().contains("copy"), "{told}");
    assert_eq!(told["steps"].as_array().unwrap().len(), 6, "{told}");

    let mut command = lab.on(Host::Host, XSTACK);
    let mut running =
        Running::start(command.args(["doctor", "xs0"]).stdout(Stdio::null()).stderr(Stdio::null()));
    let pid = running.id().to_string();
    let made = loop {
        assert!(!running.has_ended(), "the self-test is over already");
        let all = namespaces(&pid);
        let own = fs::read_link(format!("/proc/{pid}/ns/net")).unwrap().to_string_lossy().into_owned();
        if let Some(made) = all.into_iter().find(|namespace| *namespace != own) {
            break made;
        }
        sleep(Duration::from_millis(1));
    };
    // Amid the attaching and binding.
    sleep(Duration::from_millis(100));
    running.signal(Signal::SIGKILL);
    running.finish();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.map(|entry| entry.file_name().to_string_lossy().into_owned());
    assert!(!pids.into_iter().any(|pid| namespaces(&pid).contains(&made)), "somebody has {made} still");
    assert_eq!(lab.host_state(), state, "the host is not as it was");
}
