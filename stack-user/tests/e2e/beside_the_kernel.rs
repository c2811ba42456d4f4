//! The kernel's stack works on the same interface as before, and leaves our connections alone.

use std::process::Stdio;
use std::time::Duration;

use crate::support::{Host, Running, Tcpdump, TestLab, XSTACK, address, run_for};

/// Free in every lab.
const CLAIMED: &str = "10.77.0.60";

#[test]
fn ping_and_iperf3_go_on_during_a_transfer() {
    let test = "ping_and_iperf3_go_on_during_a_transfer";
    let Some(lab) = TestLab::with_servers(test, &["ping", "iperf3", "tcpdump"]) else { return };
    let resets = format!("host {CLAIMED} and tcp[tcpflags] & tcp-rst != 0");
    let tcpdump = Tcpdump::start(&lab, Host::Web, "web0", &resets);
    let peer = address::PEER.to_string();
    let _server = Running::start(lab.on(Host::Peer, "iperf3").args(["--server"]).stdout(Stdio::null()));

    // One byte each 10 ms for 4 s: the transfer spans both of the others, whatever the machine's speed.
    let url = "http://example.com/drip/400/10";
    let transfer = Running::start(
        lab.on(Host::Host, XSTACK)
            .args(["--address", CLAIMED, "curl", "--silent", "--show-error", url])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    );
    wait_until_attached(&lab);
    let ping = Running::start(
        lab.on(Host::Host, "ping")
            .args(["-q", "-i", "0.02", "-c", "100", "10.77.0.1"])
            .stdout(Stdio::piped()),
    );
    let iperf3 = run_for(
        lab.on(Host::Host, "iperf3").args(["--client", &peer, "--time", "2", "--connect-timeout", "3000"]),
        Duration::from_secs(20),
    );
    assert_eq!(iperf3.code, Some(0), "iperf3: {}", iperf3.stderr);
    let ping = String::from_utf8(ping.finish().stdout).unwrap();
    assert!(ping.contains("100 received"), "{ping}");

    let transfer = transfer.finish();
    let stderr = String::from_utf8_lossy(&transfer.stderr);
    assert!(transfer.status.success(), "{}: {stderr}", transfer.status);
    assert_eq!(transfer.stdout.len(), 400);
    assert_eq!(tcpdump.packets(), Vec::<String>::new(), "somebody sent a RST");
}

/// The proof that [`Tcpdump`] would have seen one above.
#[test]
fn a_rst_is_seen_where_there_is_one() {
    let test = "a_rst_is_seen_where_there_is_one";
    let Some(lab) = TestLab::with_servers(test, &["curl", "tcpdump"]) else { return };
    let tcpdump = Tcpdump::start(&lab, Host::Web, "web0", "tcp[tcpflags] & tcp-rst != 0");
    let refused =
        run_for(lab.on(Host::Host, "curl").args(["-s", "http://10.77.1.2:81/"]), Duration::from_secs(5));
    assert_eq!(refused.code, Some(7));
    assert_eq!(tcpdump.packets().len(), 1);
}

#[test]
fn the_claimed_address_answers_pings() {
    let Some(lab) = TestLab::with_servers("the_claimed_address_answers_pings", &["ping"]) else { return };
    let _transfer = Running::start(
        lab.on(Host::Host, XSTACK)
            .args(["--address", CLAIMED, "curl", "--silent", "http://example.com/drip/600/10"])
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    );
    wait_until_attached(&lab);
    // The first ones may be sent while the address is still being probed.
    let ping = lab.text(Host::Peer, &["ping", "-q", "-i", "0.1", "-c", "20", "-w", "5", CLAIMED]);
    assert!(!ping.contains(" 0 received"), "{ping}");
    assert!(!ping.contains("DUP"), "{ping}");
}

fn wait_until_attached(lab: &TestLab) {
    for _ in 0..500 {
        if lab.has_program() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("no XDP program was attached within 5 s");
}
