//! `xstack forward` on the host: servers of the kernel's become reachable at our address, and hosts of the network at the
//! kernel's.

use std::thread::sleep;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::support::{
    ADDRESS_TOLD, Dialogue, Host, Nginx, OURS, Relay, SSH_PROGRAMS, Sshd, Tcpdump, TestLab,
    assert_same_bytes, run_for, sized,
};

const MB: usize = 1_000_000;
const LOAD_ENDS_WITHIN: Duration = Duration::from_secs(300);

#[test]
fn nginx_on_loopback_is_served_at_our_address() {
    let test = "nginx_on_loopback_is_served_at_our_address";
    let Some(lab) = TestLab::without_servers(test, &["nginx", "curl", "wrk", "ss"]) else { return };
    let nginx = Nginx::on(&lab, Host::Host, "127.0.0.1");
    let state = lab.host_state();
    let relay = Relay::start(&lab, &["forward", "--json", "80", "80"], 1);
    let url = |path: &str| format!("http://{OURS}/{path}");
    let mut file = vec![0; sized(50, 1000) * MB];
    ChaCha8Rng::seed_from_u64(1).fill_bytes(&mut file);
    nginx.serve("file", &file);
    nginx.serve("index.html", b"<h1>from nginx</h1>\n");
    let mut curl = lab.on(Host::Peer, "curl");
    let got =
        run_for(curl.args(["--silent", "--show-error", "--max-time", "280", &url("file")]), LOAD_ENDS_WITHIN);
    println!("{} MB in {:?}", file.len() / MB, got.took);
    assert_same_bytes(&got.body(), &file, "the file");
    let mut wrk = lab.on(Host::Peer, "wrk");
    let seconds = format!("-d{}s", sized(3, 30));
    let load = run_for(wrk.args(["-t1", "-c64", "--timeout", "30s", &seconds, &url("")]), LOAD_ENDS_WITHIN);
    let told = String::from_utf8(load.body()).unwrap();
    println!("{told}");
    assert!(
        told.contains("Requests/sec") && !told.contains("Socket errors") && !told.contains("Non-2xx"),
        "{told}"
    );
    assert!(!told.contains(" 0 requests in"), "{told}");
    let (counted, said) = relay.stop(&lab);
    assert_eq!(said, ADDRESS_TOLD, "nothing to complain about");
    let counted: serde_json::Value = serde_json::from_str(&counted).unwrap();
    assert_eq!(counted["counters"]["failed"], 0, "{counted}");
    assert!(counted["counters"]["accepted"].as_u64() >= Some(65), "{counted}");
    assert!(counted["counters"]["to_client"].as_u64() > Some(file.len() as u64), "{counted}");
    assert_eq!(lab.host_state(), state, "the host is not as it was");
}

#[test]
fn a_target_that_is_down_looks_like_a_reset_from_afar() {
    let test = "a_target_that_is_down_looks_like_a_reset_from_afar";
    let Some(lab) = TestLab::without_servers(test, &["curl"]) else { return };
    let relay = Relay::start(&lab, &["forward", "80", "9"], 1);
    let mut curl = lab.on(Host::Peer, "curl");
    let url = format!("http://{OURS}/");
    let refused =
        run_for(curl.args(["--silent", "--show-error", "--max-time", "20", &url]), LOAD_ENDS_WITHIN);
    // 56 is a reset of the connection, 7 one that meets curl still connecting; 52 would be an orderly end.
    assert!([Some(7), Some(56)].contains(&refused.code), "{:?}: {}", refused.code, refused.stderr);
    let (_, said) = relay.stop(&lab);
    assert!(said.contains("kernel:127.0.0.1:9 cannot be reached") && said.contains("refused"), "{said}");
}

#[test]
fn a_host_of_the_network_is_reached_at_the_kernels_loopback_by_its_name() {
    let test = "a_host_of_the_network_is_reached_at_the_kernels_loopback_by_its_name";
    let Some(lab) = TestLab::with_servers(test, &["curl"]) else { return };
    let relay = Relay::start(&lab, &["forward", "kernel:127.0.0.1:8080", "example.com:80"], 1);
    for path in ["", "bytes/3000000", "chunked/1000000", "drip/20/10"] {
        let through = lab.real_curl(&format!("http://127.0.0.1:8080/{path}"));
        assert_same_bytes(&through, &lab.real_curl(&format!("http://example.com/{path}")), path);
    }
    let (_, said) = relay.stop(&lab);
    assert_eq!(said, ADDRESS_TOLD);
}

#[test]
fn ssh_sessions_idle_and_come_back_in_either_direction() {
    let test = "ssh_sessions_idle_and_come_back_in_either_direction";
    let programs = [&SSH_PROGRAMS[..], &["tcpdump"]].concat();
    let Some(lab) = TestLab::without_servers(test, &programs) else { return };
    let inside = Sshd::start(&lab, Host::Host, "127.0.0.1");
    let outside = Sshd::start(&lab, Host::Peer, "10.77.0.3");
    let pairs = ["22", "22", "kernel:127.0.0.1:2222", "10.77.0.3:22"];
    let relay = Relay::start(&lab, &[&["forward", "--keepalive", "2"], &pairs[..]].concat(), 2);
    let mut sessions = [
        Dialogue::start(&mut inside.client(&lab, Host::Peer, &[&format!("root@{OURS}"), "cat"])),
        Dialogue::start(&mut outside.client(&lab, Host::Host, &["-p", "2222", "root@127.0.0.1", "cat"])),
    ];
    sessions.iter_mut().for_each(|session| session.echo("before"));
    // Our side asks each silent peer after two seconds whether it is there, and after as many again.
    let silence = Tcpdump::start(&lab, Host::Peer, "peer0", &format!("tcp and src host {OURS}"));
    sleep(Duration::from_secs(sized(6, 150)));
    let probes = silence.packets();
    assert!(probes.len() >= 4, "two sessions, two probes each: {probes:?}");
    sessions.iter_mut().for_each(|session| session.echo("after"));
    for session in sessions {
        assert_eq!(session.end(), Some(0));
    }
    relay.stop(&lab);
}

#[test]
fn sigterm_with_live_sessions_resets_them_after_their_grace_and_leaves_nothing() {
    let test = "sigterm_with_live_sessions_resets_them_after_their_grace_and_leaves_nothing";
    let Some(lab) = TestLab::without_servers(test, &SSH_PROGRAMS) else { return };
    let inside = Sshd::start(&lab, Host::Host, "127.0.0.1");
    let state = lab.host_state();
    let relay = Relay::start(&lab, &["forward", "--grace", "1", "22", "22"], 1);
    let mut session =
        Dialogue::start(&mut inside.client(&lab, Host::Peer, &[&format!("root@{OURS}"), "cat"]));
    session.echo("before");
    let (_, said) = relay.stop(&lab);
    assert!(said.contains("1 connections"), "{said}");
    // ssh's own code for a connection that broke.
    assert_eq!(session.wait(), Some(255));
    assert_eq!(lab.host_state(), state, "the host is not as it was");
}
