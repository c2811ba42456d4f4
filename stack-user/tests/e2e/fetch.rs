//! Fetching pages: what xstack prints is what the real curl prints.

use crate::support::{Dnsmasq, Nginx, TestLab, assert_same_bytes, sized};

#[test]
fn the_page_is_what_curl_gets() {
    let Some(lab) = TestLab::with_servers("the_page_is_what_curl_gets", &["curl"]) else { return };
    let state = lab.host_state();
    let expected = lab.real_curl("http://example.com/");
    // As a user types it: no flag but the URL.
    let outcome = lab.xstack(&["curl", "http://example.com/"]);
    assert_same_bytes(&outcome.body(), &expected, "the page");
    assert_eq!(lab.host_state(), state, "the host is not as it was");
}

#[test]
fn real_servers_give_the_same_page() {
    let programs = ["curl", "nginx", "dnsmasq", "ss"];
    let Some(lab) = TestLab::without_servers("real_servers_give_the_same_page", &programs) else { return };
    let nginx = Nginx::start(&lab);
    let _dnsmasq = Dnsmasq::start(&lab);
    nginx.serve("index.html", b"<h1>from nginx</h1>\n");
    let expected = lab.real_curl("http://example.com/");
    assert_eq!(expected, b"<h1>from nginx</h1>\n");
    assert_same_bytes(&lab.curl(&["http://example.com/"]).body(), &expected, "the page");
    lab.curl(&["http://nosuch.invalid/"]).expect_code(6);
}

#[test]
fn bodies_of_every_kind_are_what_curl_gets() {
    let test = "bodies_of_every_kind_are_what_curl_gets";
    let Some(lab) = TestLab::with_servers(test, &["curl"]) else { return };
    for path in
        ["bytes/0", "bytes/1", "bytes/1460", "bytes/1000000", "chunked/1", "chunked/1000000", "drip/20/10"]
    {
        let url = format!("http://example.com/{path}");
        assert_same_bytes(&lab.curl(&[&url]).body(), &lab.real_curl(&url), path);
    }
    let page = lab.real_curl("http://example.com/");
    assert_same_bytes(&lab.curl(&["-L", "http://example.com/redirect/3"]).body(), &page, "behind redirects");
    assert_eq!(lab.curl(&["-d", "to and fro", "http://example.com/echo"]).body(), b"to and fro");
    lab.curl(&["-f", "http://example.com/status/404"]).expect_code(22);
}

#[test]
fn cold_starts_all_succeed() {
    let Some(lab) = TestLab::with_servers("cold_starts_all_succeed", &["curl"]) else { return };
    let expected = lab.real_curl("http://example.com/");
    let mut times: Vec<_> = (0..sized(20, 200))
        .map(|round| {
            let outcome = lab.curl(&["http://example.com/"]).expect_code(0);
            assert_same_bytes(&outcome.stdout, &expected, &format!("cold start {round}"));
            outcome.took
        })
        .collect();
    times.sort();
    let (median, slowest) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{} cold starts: median {median:?}, slowest {slowest:?}", times.len());
}

#[test]
fn what_the_xdp_program_decides_is_in_the_log_when_asked_for() {
    let test = "what_the_xdp_program_decides_is_in_the_log_when_asked_for";
    let Some(lab) = TestLab::with_servers(test, &[]) else { return };
    let quiet = lab.xstack(&["curl", "-sS", "http://example.com/"]).expect_code(0);
    assert_eq!(quiet.stderr, "", "nothing is logged unasked");
    let told = lab.xstack(&["--log", "debug", "curl", "-sS", "http://example.com/"]).expect_code(0);
    for decision in ["redirect-arp", "redirect-udp", "redirect-tcp"] {
        assert!(told.stderr.contains(decision), "{decision} is not told: {}", told.stderr);
    }
}
