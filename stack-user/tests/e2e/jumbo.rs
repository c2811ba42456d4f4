//! Long frames, end to end: a LAN with jumbo frames, against the kernel's TCP and its ping.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crate::huge_pages::HugePages;
use crate::support::{Host, Nginx, Running, TestLab, XSTACK, assert_same_bytes, run_for, sized};

const OURS: &str = "10.77.0.80";
const PEER: &str = "10.77.0.3";
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// The LAN's links and the bridge between them, with that MTU.
fn jumbo_lan(test: &str, mtu: u32, programs: &[&str]) -> Option<TestLab> {
    let lab = TestLab::without_servers(test, programs)?;
    let mtu = mtu.to_string();
    for (host, interface) in [
        (Host::Host, "xs0"),
        (Host::Router, "lan-host"),
        (Host::Router, "lan-peer"),
        (Host::Router, "lan"),
        (Host::Peer, "peer0"),
    ] {
        lab.output(host, &["ip", "link", "set", interface, "mtu", &mtu]);
    }
    Some(lab)
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect()
}

/// Fetches from nginx, and serves to curl; `-v` has to say so much of how it is bound.
fn both_ways(lab: &TestLab, says: &str, longest: usize) {
    let directory = tempfile::tempdir().unwrap();
    let capture = directory.path().join("capture.pcapng");
    let capture = capture.to_str().unwrap();
    let body = content(sized(5_000_000, 200_000_000));

    let nginx = Nginx::on(lab, Host::Peer, PEER);
    let url = nginx.serve("body", &body);
    let outcome =
        run_for(lab.on(Host::Host, XSTACK).args(["--pcap", capture, "curl", "-v", &url]), ENDS_WITHIN);
    let said = outcome.stderr.clone();
    assert!(said.contains(says), "`{says}` is not in: {said}");
    assert_same_bytes(&outcome.body(), &body, "what the kernel sends");

    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(directory.path().join("body"), &body).unwrap();
    let mut serving = Running::start(
        lab.on(Host::Host, XSTACK)
            .args(["--address", OURS, "serve", "--listen", "80"])
            .arg(directory.path())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null()),
    );
    let url = format!("http://{OURS}/body");
    let words = ["--silent", "--show-error", "--retry", "20", "--retry-connrefused", "--retry-delay", "1"];
    let fetched = run_for(lab.on(Host::Peer, "curl").args(words).arg(&url), ENDS_WITHIN);
    assert_same_bytes(&fetched.body(), &body, "what we send");
    // Neither end may cut it.
    let size = (longest - 14 - 28).to_string();
    let ping = lab.text(Host::Peer, &["ping", "-n", "-M", "do", "-s", &size, "-c", "3", "-i", "0.2", OURS]);
    assert!(ping.contains(" 3 received"), "{ping}");
    assert!(!serving.has_ended());
    drop(serving);

    let frames = |filter: &str| {
        let words = ["tshark", "-n", "-r", capture, "-o", "tcp.check_checksum:TRUE", "-Y", filter];
        lab.text(Host::Host, &words).lines().count()
    };
    assert!(frames(&format!("tcp.srcport == 80 && frame.len == {longest}")) > 100, "full segments came");
    assert_eq!(frames("_ws.malformed || tcp.checksum.status == \"Bad\""), 0);
}

const PROGRAMS: [&str; 4] = ["nginx", "curl", "ping", "tshark"];

#[test]
fn with_an_mtu_of_9000_a_frame_lies_in_several_chunks() {
    let test = "with_an_mtu_of_9000_a_frame_lies_in_several_chunks";
    let Some(lab) = jumbo_lan(test, 9000, &PROGRAMS) else { return };
    both_ways(&lab, "copy, multi-buffer, queue 0", 9014);
    assert!(!lab.has_program());
}

#[test]
fn with_an_mtu_of_9000_on_huge_pages() {
    let test = "with_an_mtu_of_9000_on_huge_pages";
    let Some(lab) = jumbo_lan(test, 9000, &PROGRAMS) else { return };
    let Some(_pages) = HugePages::reserve(test, 32) else { return };
    both_ways(&lab, "copy, multi-buffer, huge pages, queue 0", 9014);
}

#[test]
fn with_an_mtu_of_3498_a_frame_lies_in_one_chunk() {
    let test = "with_an_mtu_of_3498_a_frame_lies_in_one_chunk";
    let Some(lab) = jumbo_lan(test, 3498, &PROGRAMS) else { return };
    both_ways(&lab, "copy, queue 0", 3512);
}
