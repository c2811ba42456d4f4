//! `xstack bench rr`, `crr`, `conns` and `mix` in the lab: ours against the kernel's, in either role.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{Host, OURS, Running, TestLab, XSTACK, address, run_for};

/// Far more than any of these runs takes on a machine that is busy with other things.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// `xstack bench server`, from the moment it says where it is.
struct Server(Running);

impl Server {
    #[track_caller]
    fn start(lab: &TestLab, host: Host, arguments: &[&str]) -> Self {
        let mut command = lab.on(host, XSTACK);
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut running = Running::start(&mut command);
        let mut stderr = BufReader::new(running.take_stderr());
        let mut said = String::new();
        while !said.contains("benchmarks are served at") {
            assert!(stderr.read_line(&mut said).unwrap() > 0, "{arguments:?} ended: {said}");
        }
        // Whatever else it says must not fill the pipe.
        std::thread::spawn(move || stderr.read_to_string(&mut said));
        Self(running)
    }

    /// Asks it to stop, and fails unless it does so in order.
    #[track_caller]
    fn stop(mut self) {
        self.0.signal(Signal::SIGTERM);
        let deadline = Instant::now() + ENDS_WITHIN;
        while !self.0.has_ended() {
            assert!(Instant::now() < deadline, "it still runs");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(self.0.finish().status.success());
    }
}

/// What a client on a host says, which has to be JSON.
#[track_caller]
fn client(lab: &TestLab, host: Host, arguments: &[&str]) -> Value {
    let outcome = run_for(lab.on(host, XSTACK).args(arguments), ENDS_WITHIN);
    println!("{}", String::from_utf8_lossy(&outcome.stdout));
    serde_json::from_slice(&outcome.body()).unwrap()
}

/// Each benchmark, briefly.
#[track_caller]
fn measure_all(lab: &TestLab, host: Host, before: &[&str], server: &str, after: &[&str]) {
    let run = |benchmark: &str, arguments: &[&str]| {
        client(lab, host, &[before, &["bench", benchmark, server, "-J"], arguments, after].concat())
    };
    let told = run("rr", &["-n", "2000", "-c", "2"]);
    assert_eq!(told["transactions"], 2_000, "{told}");
    let told = run("rr", &["--rate", "1000", "-t", "1"]);
    assert_eq!(told["transactions"], 1_000, "{told}");
    let told = run("rr", &["-n", "20", "--request", "100000", "--response", "1000000"]);
    assert_eq!(told["transactions"], 20, "{told}");
    let told = run("crr", &["-n", "500", "-c", "4"]);
    assert_eq!((&told["transactions"], &told["failed"]), (&500.into(), &0.into()), "{told}");
    let told = run("crr", &["-n", "500", "--reset"]);
    assert_eq!((&told["transactions"], &told["failed"]), (&500.into(), &0.into()), "{told}");
    let told = run("conns", &["-c", "1000", "--hold", "1.5"]);
    assert_eq!(told["connections"], 1_000, "{told}");
    for direction in [&[][..], &["-R"]] {
        let told = run("mix", &[&["-t", "1", "-O", "0.3", "--rate", "200"], direction].concat());
        assert_eq!(
            (&told["rr"]["transactions"], &told["alone"]["rr"]["transactions"]),
            (&200.into(), &200.into())
        );
        assert!(told["bulk_bits_per_second"].as_f64() > Some(1e6), "{told}");
    }
}

#[test]
fn all_that_rpc_measures_from_our_stack_to_the_kernels() {
    let Some(lab) = TestLab::without_servers("all_that_rpc_measures_from_our_stack_to_the_kernels", &[])
    else {
        return;
    };
    let state = lab.host_state();
    let server = Server::start(&lab, Host::Peer, &["bench", "server", "--kernel"]);
    measure_all(&lab, Host::Host, &["--address", OURS], &address::PEER.to_string(), &[]);
    server.stop();
    assert_eq!(lab.host_state(), state, "the host is not as it was");
}

#[test]
fn all_that_rpc_measures_from_the_kernels_stack_to_ours() {
    let Some(lab) = TestLab::without_servers("all_that_rpc_measures_from_the_kernels_stack_to_ours", &[])
    else {
        return;
    };
    let server = Server::start(&lab, Host::Host, &["--address", OURS, "bench", "server"]);
    measure_all(&lab, Host::Peer, &[], OURS, &["--kernel"]);
    server.stop();
    assert!(!lab.has_program(), "the XDP program is still there");
}

#[test]
fn requests_over_rings_that_are_polled() {
    let Some(lab) = TestLab::without_servers("requests_over_rings_that_are_polled", &[]) else { return };
    let server = Server::start(&lab, Host::Peer, &["bench", "server", "--kernel"]);
    let peer = address::PEER.to_string();
    let arguments = ["--address", OURS, "--busy-poll", "bench", "rr", &peer, "-n", "2000", "-J"];
    assert_eq!(client(&lab, Host::Host, &arguments)["transactions"], 2_000);
    server.stop();
}
