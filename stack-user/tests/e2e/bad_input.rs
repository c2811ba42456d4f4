//! Whatever is wrong is said in one line, with its exit code, in time, and the host stays as it was.

use std::time::Duration;

use crate::support::{Host, TestLab, XSTACK, run_for};

/// One mistake, and what must come of it.
struct Case {
    arguments: &'static [&'static str],
    code: i32,
    within: Duration,
    /// Words that the one line must have.
    says: &'static [&'static str],
}

const SOON: Duration = Duration::from_secs(2);
/// Resolving a neighbour takes three requests a second apart; a debug build on a busy machine takes its time too.
const AFTER_NEIGHBOUR_RETRIES: Duration = Duration::from_secs(8);

const fn case(
    arguments: &'static [&'static str],
    code: i32,
    within: Duration,
    says: &'static [&'static str],
) -> Case {
    Case { arguments, code, within, says }
}

#[test]
fn mistakes_in_the_url() {
    let Some(lab) = TestLab::with_servers("mistakes_in_the_url", &[]) else { return };
    check(
        &lab,
        &[
            case(&["curl", "http://[10.77.1.2/"], 3, SOON, &["URL"]),
            case(&["curl", "http://example.com:99999/"], 3, SOON, &["URL"]),
            case(&["curl", "gopher://example.com/"], 1, SOON, &["gopher"]),
            case(&["curl", "http://nosuch.invalid/"], 6, AFTER_NEIGHBOUR_RETRIES, &["nosuch.invalid"]),
        ],
    );
}

#[test]
fn mistakes_about_the_interface() {
    let Some(lab) = TestLab::with_servers("mistakes_about_the_interface", &[]) else { return };
    // Two ends of one link: the first stays down, the second is up and has no address.
    lab.output(Host::Host, &["ip", "link", "add", "off0", "type", "veth", "peer", "name", "bare0"]);
    lab.output(Host::Host, &["ip", "link", "set", "bare0", "up"]);
    check(
        &lab,
        &[
            case(&["--interface", "none0", "curl", "http://example.com/"], 45, SOON, &["none0"]),
            case(&["--interface", "off0", "curl", "http://example.com/"], 45, SOON, &["off0", "down"]),
            case(&["--interface", "bare0", "curl", "http://example.com/"], 45, SOON, &["bare0"]),
        ],
    );
}

#[test]
fn mistakes_about_the_address() {
    let Some(lab) = TestLab::with_servers("mistakes_about_the_address", &[]) else { return };
    check(
        &lab,
        &[
            case(&["--address", "192.0.2.9", "curl", "http://example.com/"], 45, SOON, &["192.0.2.9"]),
            case(&["--address", "10.77.0.2", "curl", "http://example.com/"], 45, SOON, &["10.77.0.2"]),
            case(
                &["--address", "10.77.0.3", "curl", "http://example.com/"],
                45,
                SOON,
                &["02:00:0a:4d:00:03"],
            ),
            case(&["--address", "10.77.0.255", "curl", "http://example.com/"], 45, SOON, &["10.77.0.255"]),
        ],
    );
}

#[test]
fn peers_that_do_not_answer() {
    let Some(lab) = TestLab::with_servers("peers_that_do_not_answer", &[]) else { return };
    // Packets to there vanish, as behind a firewall.
    lab.output(Host::Router, &["ip", "route", "add", "blackhole", "10.77.9.0/24"]);
    check(
        &lab,
        &[
            case(
                &["--gateway", "10.77.0.99", "curl", "http://10.77.1.2/"],
                7,
                AFTER_NEIGHBOUR_RETRIES,
                &["10.77.1.2"],
            ),
            // A name server behind that gateway was never asked: saying that it is silent would mislead.
            case(
                &["--gateway", "10.77.0.99", "curl", "http://example.com/"],
                6,
                AFTER_NEIGHBOUR_RETRIES,
                &["10.77.1.53", "can't be reached"],
            ),
            case(&["curl", "http://10.77.0.98/"], 7, AFTER_NEIGHBOUR_RETRIES, &["10.77.0.98"]),
            case(
                &["curl", "http://10.77.0.2/"],
                7,
                AFTER_NEIGHBOUR_RETRIES,
                &["10.77.0.2", "this host's own address, on xs0"],
            ),
            case(&["curl", "http://10.77.1.2:81/"], 7, SOON, &["81"]),
            case(
                &["curl", "--connect-timeout", "1", "http://10.77.9.9/"],
                28,
                Duration::from_secs(3),
                &["timed out"],
            ),
            case(
                &["curl", "--max-time", "1", "http://10.77.1.2/silent"],
                28,
                Duration::from_secs(3),
                &["timed out"],
            ),
        ],
    );
}

#[test]
fn peers_that_break_off() {
    let Some(lab) = TestLab::with_servers("peers_that_break_off", &[]) else { return };
    check(
        &lab,
        &[
            case(&["curl", "-s", "-S", "http://10.77.1.2/reset/100000"], 56, SOON, &["reset"]),
            case(&["curl", "-s", "-S", "http://10.77.1.2/truncated/100000"], 18, SOON, &["50000"]),
        ],
    );
}

/// It is no failure of ours, and looks like a silent peer: whoever sees it needs to be told, also without `-v`.
#[test]
fn unfinished_checksums_are_told_with_the_remedy() {
    let Some(lab) = TestLab::with_servers("unfinished_checksums_are_told_with_the_remedy", &[]) else {
        return;
    };
    lab.output(Host::Web, &["ethtool", "-K", "web0", "tx", "on"]);
    lab.output(Host::Router, &["ethtool", "-K", "lan-host", "tx", "on"]);
    let outcome = lab.xstack(&["curl", "--connect-timeout", "2", "http://10.77.1.2/"]).expect_code(28);
    let told = &outcome.stderr;
    assert_eq!(told.matches("wrong TCP or UDP checksum").count(), 1, "{told}");
    // The other end is in another namespace, where its number is known and its name is not.
    let link = lab.text(Host::Router, &["ip", "-o", "link", "show", "lan-host"]);
    let index = link.split(':').next().unwrap_or_default();
    assert!(told.contains("ethtool -K PEER tx off") && told.contains(&format!("number {index}\n")), "{told}");
}

#[test]
fn an_interface_that_is_removed_is_told() {
    let Some(lab) = TestLab::with_servers("an_interface_that_is_removed_is_told", &[]) else { return };
    lab.output(Host::Host, &["ip", "link", "add", "gone0", "type", "veth", "peer", "name", "gone1"]);
    lab.output(Host::Host, &["ip", "address", "add", "192.0.2.1/24", "dev", "gone0"]);
    for end in ["gone0", "gone1"] {
        lab.output(Host::Host, &["ip", "link", "set", end, "up"]);
    }
    let outcome = std::thread::scope(|scope| {
        // Nobody answers there, which is found out only after seconds.
        let run = scope.spawn(|| lab.xstack(&["--interface", "gone0", "curl", "http://192.0.2.9/"]));
        while !run.is_finished() && !lab.text(Host::Host, &["ip", "link"]).contains("prog/xdp") {
            std::thread::sleep(Duration::from_millis(10));
        }
        // The sockets follow the program within milliseconds.
        std::thread::sleep(Duration::from_millis(500));
        lab.output(Host::Host, &["ip", "link", "del", "gone0"]);
        run.join().unwrap()
    });
    let outcome = outcome.expect_code(7);
    // Who notices first is the watch of the interface or the socket on it.
    let told = ["gone0 was removed", "was it removed?"].map(|how| outcome.stderr.matches(how).count());
    assert_eq!(told.iter().sum::<usize>(), 1, "{}", outcome.stderr);
}

#[test]
fn missing_privileges_are_named_with_the_remedy() {
    let test = "missing_privileges_are_named_with_the_remedy";
    let Some(lab) = TestLab::with_servers(test, &["setpriv"]) else { return };
    let state = lab.host_state();
    let mut command = lab.on(Host::Host, "setpriv");
    // Root by name only: with an empty bounding set it can't have any capability.
    command.args(["--bounding-set=-all", "--inh-caps=-all", XSTACK, "curl", "http://example.com/"]);
    let outcome = run_for(&mut command, Duration::from_secs(5)).expect_code(45);
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    // The line is one to paste into a shell.
    let remedy = format!("sudo setcap cap_net_raw,cap_net_admin,cap_bpf,cap_ipc_lock+ep {XSTACK}`");
    for word in ["CAP_BPF", &remedy] {
        assert!(outcome.stderr.contains(word), "{word} is not in: {}", outcome.stderr);
    }
    assert_eq!(lab.host_state(), state, "the host is not as it was");
}

#[track_caller]
fn check(lab: &TestLab, cases: &[Case]) {
    let state = lab.host_state();
    for Case { arguments, code, within, says } in cases {
        let outcome = lab.xstack(arguments);
        let told = format!("{arguments:?} after {:?}: {}", outcome.took, outcome.stderr);
        assert_eq!(outcome.code, Some(*code), "{told}");
        assert!(outcome.took < *within, "too slow: {told}");
        assert_eq!(outcome.stderr.lines().count(), 1, "not one line: {told}");
        for word in *says {
            assert!(outcome.stderr.contains(word), "{word:?} is not said: {told}");
        }
        assert_eq!(lab.host_state(), state, "the host is not as it was after {told}");
    }
}
