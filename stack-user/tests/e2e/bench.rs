//! Bulk against the real iperf3, in either role, over our stack: both ends must say the same of each test.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::{Deserializer, Value};

use crate::figures;
use crate::support::{Host, Running, TestLab, XSTACK, address, run_for, sized};

const OURS: &str = "10.77.0.90";
const LONG: Duration = Duration::from_secs(60);

const CASES: [&[&str]; 6] =
    [&[], &["-P", "8"], &["-R"], &["--bidir"], &["-u", "-b", "20M"], &["-u", "-R", "-b", "20M"]];

#[test]
fn the_real_iperf3_measures_our_stack() {
    let Some(lab) = TestLab::without_servers("the_real_iperf3_measures_our_stack", &["iperf3"]) else {
        return;
    };
    let mut server = Running::start(
        lab.on(Host::Host, XSTACK)
            .args(["--address", OURS, "bench", "server", "-J"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    );
    let mut stderr = BufReader::new(server.take_stderr());
    let mut said = String::new();
    stderr.read_line(&mut said).unwrap();
    assert!(said.contains(&format!("benchmarks are served at {OURS}:5201")), "{said}");
    let seconds = sized("2", "10");
    let mut clients = Vec::new();
    for options in CASES {
        let mut iperf3 = lab.on(Host::Peer, "iperf3");
        iperf3.args(["-c", OURS, "-J", "-t", seconds]).args(options);
        clients.push(json(&run_for(&mut iperf3, LONG).body()));
    }
    server.signal(Signal::SIGINT);
    let said = server.finish().stdout;
    let servers: Vec<Value> = Deserializer::from_slice(&said).into_iter().map(Result::unwrap).collect();
    assert_eq!(servers.len(), CASES.len());
    for (options, (client, server)) in CASES.iter().zip(clients.iter().zip(&servers)) {
        figures::agree(options, client, server);
    }
    // What only the sender can know, the receiver has been told.
    assert!(clients[2]["end"]["sum_sent"]["retransmits"].is_u64());
}

#[test]
fn our_stack_measures_the_real_iperf3() {
    let Some(lab) = TestLab::without_servers("our_stack_measures_the_real_iperf3", &["iperf3", "ss"]) else {
        return;
    };
    let peer = address::PEER.to_string();
    let seconds = sized("2", "10");
    for options in CASES {
        let server =
            Running::start(lab.on(Host::Peer, "iperf3").args(["-s", "-1", "-J"]).stdout(Stdio::piped()));
        while lab.text(Host::Peer, &["ss", "-Hltn", "sport = :5201"]).is_empty() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut xstack = lab.on(Host::Host, XSTACK);
        xstack.args(["--address", OURS, "bench", "client", &peer, "-J", "-t", seconds]).args(options);
        let client = json(&run_for(&mut xstack, LONG).body());
        figures::agree(options, &client, &json(&server.finish().stdout));
        if options.is_empty() {
            let stream = &client["intervals"][0]["streams"][0];
            assert!(stream["snd_cwnd"].as_u64().unwrap() > 0 && stream["pmtu"] == 1500, "{stream}");
        }
    }
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(bytes)))
}
