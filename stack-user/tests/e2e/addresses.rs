//! Several addresses on one interface, and the kernel's peers at each of them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Host, TestLab, XSTACK};

const ADDRESSES: [&str; 2] = ["10.77.0.80", "10.77.0.81"];

#[test]
fn each_of_several_addresses_answers_pings_and_connections() {
    let test = "each_of_several_addresses_answers_pings_and_connections";
    let Some(lab) = TestLab::with_servers(test, &["ping", "curl"]) else { return };
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("page"), "hello").unwrap();
    let mut command = lab.on(Host::Host, XSTACK);
    command.args(["--address", ADDRESSES[0], "--address", ADDRESSES[1], "serve"]).arg(directory.path());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("xstack: serving ") {
        assert!(stderr.read_line(&mut said).unwrap() > 0, "ended at once: {said}");
    }
    for address in ADDRESSES {
        let pings = lab.on(Host::Router, "ping").args(["-c", "3", "-i", "0.2", address]).output().unwrap();
        let told = String::from_utf8_lossy(&pings.stdout).into_owned();
        assert!(told.contains(&format!("from {address}")) && told.contains(" 0% packet loss"), "{told}");
        let url = format!("http://{address}/page");
        let page = lab.on(Host::Router, "curl").args(["-sS", "--max-time", "20", &url]).output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&page.stdout),
            "hello",
            "{}",
            String::from_utf8_lossy(&page.stderr)
        );
    }
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    child.wait().unwrap();
    let gone = lab.on(Host::Router, "ping").args(["-c", "1", "-W", "1", ADDRESSES[1]]).output().unwrap();
    assert!(!gone.status.success(), "nobody answers for it any more");
}
