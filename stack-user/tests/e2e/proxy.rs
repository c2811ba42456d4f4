//! `xstack proxy` on the host: unchanged programs of the kernel's side get out through our stack, and hosts of the network
//! through the kernel.

use std::os::unix::fs::PermissionsExt;
use std::thread::sleep;
use std::time::Duration;

use crate::support::{
    ADDRESS_TOLD, Dialogue, Host, OURS, Relay, SSH_PROGRAMS, Sshd, TestLab, assert_same_bytes, run_for, sized,
};

const ENDS_WITHIN: Duration = Duration::from_secs(60);

#[test]
fn an_unchanged_curl_gets_pages_by_name_through_our_stack() {
    let test = "an_unchanged_curl_gets_pages_by_name_through_our_stack";
    let Some(lab) = TestLab::with_servers(test, &["curl"]) else { return };
    let state = lab.host_state();
    let folder = tempfile::tempdir().unwrap();
    // Root makes the file, and whoever xstack is then has to remove it.
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let path = folder.path().join("proxy");
    let file = format!("unix:{}", path.display());
    let relay = Relay::start(&lab, &["proxy", "--json", "-l", "127.0.0.1:1080", "-l", &file], 2);
    let by_file = format!("socks5h://localhost{}", path.display());
    let ways: [&[&str]; 4] = [
        &["--socks5-hostname", "127.0.0.1:1080"],
        &["-x", "http://127.0.0.1:1080"],
        &["--proxytunnel", "-x", "http://127.0.0.1:1080"],
        &["-x", &by_file],
    ];
    for path in ["", "bytes/3000000", "chunked/1000000", "drip/20/10"] {
        let url = format!("http://example.com/{path}");
        let expected = lab.real_curl(&url);
        for way in ways {
            let words = [&["--silent", "--show-error", "--max-time", "50"], way, &[&url]].concat();
            let got = run_for(lab.on(Host::Host, "curl").args(words), ENDS_WITHIN);
            assert_same_bytes(&got.body(), &expected, &format!("{path} by {way:?}"));
        }
    }
    // What curl makes of our refusals: 97 is its code for SOCKS, 22 that of --fail.
    for (way, code) in [(ways[0], 97), (ways[1], 22)] {
        let words = [&["--silent", "--fail", "--max-time", "50"], way, &["http://nosuch.invalid/"]].concat();
        run_for(lab.on(Host::Host, "curl").args(words), ENDS_WITHIN).expect_code(code);
    }
    let (counted, said) = relay.stop(&lab);
    assert_eq!(said, ADDRESS_TOLD, "nothing to complain about");
    let counted: serde_json::Value = serde_json::from_str(&counted).unwrap();
    assert_eq!((&counted["counters"]["failed"], &counted["reset"]), (&2.into(), &0.into()), "{counted}");
    assert!(!path.exists(), "the socket file is still there");
    assert_eq!(lab.host_state(), state, "the host is not as it was");
}

#[test]
fn hosts_of_the_network_get_out_through_the_kernel_if_they_may() {
    let test = "hosts_of_the_network_get_out_through_the_kernel_if_they_may";
    let Some(lab) = TestLab::with_servers(test, &["curl"]) else { return };
    let relay = Relay::start(&lab, &["proxy", "-l", "ours:1080", "--allow", "10.77.0.3"], 1);
    let proxy = format!("{OURS}:1080");
    let curl = |host, words: &[&str]| {
        let words = [&["--silent", "--show-error", "--fail", "--max-time", "50"], words].concat();
        run_for(lab.on(host, "curl").args(words), ENDS_WITHIN)
    };
    let url = "http://example.com/bytes/300000";
    let expected = lab.real_curl(url);
    for way in ["--socks5-hostname", "--proxy"] {
        assert_same_bytes(&curl(Host::Peer, &[way, &proxy, url]).body(), &expected, way);
    }
    curl(Host::Peer, &["--socks5-hostname", &proxy, "http://127.0.0.1/"]).expect_code(97);
    // The web server's host has an address that is not allowed.
    let refused = curl(Host::Web, &["--socks5-hostname", &proxy, url]);
    assert_ne!(refused.code, Some(0));
    relay.stop(&lab);
}

#[test]
fn an_ssh_session_through_a_proxy_idles_and_comes_back() {
    let test = "an_ssh_session_through_a_proxy_idles_and_comes_back";
    let programs = [&SSH_PROGRAMS[..], &["nc"]].concat();
    let Some(lab) = TestLab::without_servers(test, &programs) else { return };
    let outside = Sshd::start(&lab, Host::Peer, "10.77.0.3");
    let relay = Relay::start(&lab, &["proxy", "--keepalive", "2"], 1);
    let sessions = ["5", "connect"].map(|protocol| {
        let command = format!("ProxyCommand=nc -X {protocol} -x 127.0.0.1:1080 %h %p");
        let mut session = Dialogue::start(&mut outside.client(
            &lab,
            Host::Host,
            &["-o", &command, "root@10.77.0.3", "cat"],
        ));
        session.echo("before");
        session
    });
    sleep(Duration::from_secs(sized(6, 150)));
    for mut session in sessions {
        session.echo("after");
        assert_eq!(session.end(), Some(0));
    }
    relay.stop(&lab);
}
