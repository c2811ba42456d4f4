//! What happens to the interface while xstack uses it.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::{Host, Outcome, Running, Tcpdump, TestLab, XSTACK, assert_same_bytes};

const OURS: &str = "10.77.0.80";

/// For what takes moments.
const PATIENCE: Duration = Duration::from_secs(10);

/// xstack, and what it says.
struct Logged {
    running: Running,
    log: PathBuf,
}

impl Logged {
    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    #[track_caller]
    fn wait_until_said(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.said().contains(text) {
            let is_over = self.running.has_ended();
            assert!(!is_over && Instant::now() < deadline, "it never said {text:?}: {}", self.said());
            sleep(Duration::from_millis(10));
        }
    }

    /// Waits for its end, and returns its exit code and what it said.
    #[track_caller]
    fn ends(mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + PATIENCE;
        while !self.running.has_ended() {
            assert!(Instant::now() < deadline, "it goes on: {}", self.said());
            sleep(Duration::from_millis(10));
        }
        let said = self.said();
        (self.running.finish().status.code(), said)
    }
}

/// `xstack serve` at our address, with one large file.
struct Serving {
    xstack: Logged,
    directory: tempfile::TempDir,
    content: Vec<u8>,
}

impl Serving {
    fn start(lab: &TestLab, options: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let content: Vec<u8> =
            (0..4_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        fs::write(directory.path().join("file"), &content).unwrap();
        let log = directory.path().join("log");
        let mut command = lab.on(Host::Host, XSTACK);
        command.args(["--address", OURS]).args(options).args(["serve", "-v"]).arg(directory.path());
        let stderr = fs::File::create(&log).unwrap();
        let running = Running::start(command.stdout(Stdio::null()).stderr(stderr));
        let mut xstack = Logged { running, log };
        xstack.wait_until_said("serving ");
        Self { xstack, directory, content }
    }

    /// The peer's curl begins to fetch the file, at a rate that takes it some seconds.
    fn fetched_slowly(&self, lab: &TestLab) -> (Running, PathBuf) {
        let path = self.directory.path().join("fetched");
        let mut curl = lab.on(Host::Peer, "curl");
        curl.args(["--silent", "--show-error", "--max-time", "60", "--limit-rate", "2M", "-o"]).arg(&path);
        curl.arg(format!("http://{OURS}/file"));
        let fetching = Running::start(curl.stdout(Stdio::null()).stderr(Stdio::null()));
        let deadline = Instant::now() + PATIENCE;
        while fs::metadata(&path).map_or(0, |file| file.len()) < 100_000 {
            assert!(Instant::now() < deadline, "nothing comes");
            sleep(Duration::from_millis(5));
        }
        (fetching, path)
    }

    fn assert_fetched(&self, (fetching, path): (Running, PathBuf)) {
        let status = fetching.finish().status;
        assert!(status.success(), "curl: {status}; we said: {}", self.xstack.said());
        assert_same_bytes(&fs::read(path).unwrap(), &self.content, "the file");
    }
}

/// Some frames of ARP about our address that say that it is ours.
fn announcements(packets: &[String]) -> usize {
    let announces = format!("Request who-has {OURS} tell {OURS}");
    packets.iter().filter(|packet| packet.contains(&announces)).count()
}

#[test]
fn connections_outlive_a_lost_carrier_and_the_address_is_announced_again() {
    let test = "connections_outlive_a_lost_carrier_and_the_address_is_announced_again";
    let Some(lab) = TestLab::with_servers(test, &["curl", "tcpdump"]) else { return };
    // The other end goes and comes, then our own.
    for (host, interface, told) in
        [(Host::Router, "lan-host", "has lost its carrier"), (Host::Host, "xs0", "was switched off")]
    {
        let mut serving = Serving::start(&lab, &[]);
        // What the claim itself has to announce is over.
        sleep(Duration::from_millis(2_500));
        let arp = Tcpdump::start(&lab, Host::Peer, "peer0", &format!("arp host {OURS}"));
        let fetching = serving.fetched_slowly(&lab);
        lab.output(host, &["ip", "link", "set", interface, "down"]);
        serving.xstack.wait_until_said(told);
        sleep(Duration::from_millis(300));
        lab.output(host, &["ip", "link", "set", interface, "up"]);
        serving.xstack.wait_until_said("is back");
        serving.assert_fetched(fetching);
        sleep(Duration::from_millis(300));
        let packets = arp.packets();
        assert!(announcements(&packets) > 0, "{interface}: {packets:#?}");
    }
}

#[test]
fn a_smaller_mtu_holds_for_connections_that_are_open_and_for_new_ones() {
    let test = "a_smaller_mtu_holds_for_connections_that_are_open_and_for_new_ones";
    let Some(lab) = TestLab::with_servers(test, &["curl", "tcpdump"]) else { return };
    let mut serving = Serving::start(&lab, &[]);
    let fetching = serving.fetched_slowly(&lab);
    lab.output(Host::Host, &["ip", "link", "set", "xs0", "mtu", "1000"]);
    serving.xstack.wait_until_said("has an MTU of 1000 now");
    // What was on its way has arrived.
    sleep(Duration::from_millis(200));
    // The answer to a SYN, and what is longer than a frame of the new size.
    let filter = format!("tcp and src host {OURS} and (tcp[tcpflags] & tcp-syn != 0 or greater 1015)");
    let sent = Tcpdump::start(&lab, Host::Peer, "peer0", &filter);
    serving.assert_fetched(fetching);
    let again = serving.fetched_slowly(&lab);
    serving.assert_fetched(again);
    let packets = sent.packets();
    assert!(matches!(&packets[..], [offer] if offer.contains("mss 960,")), "{packets:#?}");
}

/// Its sockets were bound for frames in one chunk, and can't be bound anew.
#[test]
fn an_mtu_that_is_raised_beyond_a_chunk_is_told_with_what_to_do() {
    let test = "an_mtu_that_is_raised_beyond_a_chunk_is_told_with_what_to_do";
    let Some(lab) = TestLab::with_servers(test, &["curl"]) else { return };
    let mut serving = Serving::start(&lab, &[]);
    lab.output(Host::Host, &["ip", "link", "set", "xs0", "mtu", "3498"]);
    serving.xstack.wait_until_said("has an MTU of 3498 now");
    lab.output(Host::Host, &["ip", "link", "set", "xs0", "mtu", "9000"]);
    serving.xstack.wait_until_said("takes packets of 9000 bytes now");
    let said = serving.xstack.said();
    let told: Vec<_> = said.lines().filter(|line| line.contains("bound for frames in one chunk")).collect();
    assert!(
        matches!(told[..], [line] if line.contains("Start again") && line.contains("`sudo ip link set xs0 mtu 3498`")
        && line.contains("longer than 3822 bytes")),
        "{said}"
    );
    let fetching = serving.fetched_slowly(&lab);
    serving.assert_fetched(fetching);
}

#[test]
fn whoever_uses_an_interface_that_is_removed_hears_of_it_at_once() {
    let test = "whoever_uses_an_interface_that_is_removed_hears_of_it_at_once";
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("xstack.toml");
    let socket = directory.path().join("socket");
    let text = format!("[network]\naddresses = ['{OURS}']\n[control]\nsocket = '{}'\n", socket.display());
    fs::write(&config, text).unwrap();
    let config = config.to_string_lossy().into_owned();
    for (command, runs) in [
        (&["serve", "-v", "/usr"][..], "serving "),
        (&["daemon", &config][..], "control socket"),
        (&["curl", "-v", "http://example.com/drip/100000/10"][..], "HTTP/1.1 200"),
    ] {
        let Some(lab) = TestLab::with_servers(test, &[]) else { return };
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let mut xstack = lab.on(Host::Host, XSTACK);
        let running = Running::start(xstack.args(command).stdout(Stdio::null()).stderr(log));
        let mut xstack = Logged { running, log: directory.path().join("log") };
        xstack.wait_until_said(runs);
        lab.output(Host::Host, &["ip", "link", "del", "xs0"]);
        let (code, said) = xstack.ends();
        assert!(code.is_some_and(|code| code != 0), "{command:?}: {code:?}, {said}");
        assert!(said.contains("xs0 was removed"), "{command:?}: {said}");
    }
}

/// The kernel lets nobody take away a queue that has a socket. One that is added has none.
#[test]
fn queues_that_are_added_while_it_runs_end_it_with_the_way_back() {
    let test = "queues_that_are_added_while_it_runs_end_it_with_the_way_back";
    let Some(lab) = TestLab::with_queues(test, 2) else { return };
    lab.output(Host::Router, &["ethtool", "-L", "lan-host", "tx", "1"]);
    lab.output(Host::Host, &["ethtool", "-L", "xs0", "rx", "1"]);
    let mut serving = Serving::start(&lab, &[]);
    assert!(!serving.xstack.running.has_ended());
    lab.output(Host::Host, &["ethtool", "-L", "xs0", "rx", "2"]);
    let (code, said) = serving.xstack.ends();
    assert!(code.is_some_and(|code| code != 0), "{said}");
    assert!(said.contains("xs0 receives on 2 queues now") && said.contains("ethtool -L xs0"), "{said}");

    // With all of them it starts; and then the kernel keeps them.
    let mut serving = Serving::start(&lab, &[]);
    let fewer = lab.on(Host::Host, "ethtool").args(["-L", "xs0", "rx", "1"]).output().unwrap();
    assert!(!fewer.status.success(), "the kernel took a bound queue away");
    // Who asks for one queue only has been warned, and nothing is new about that.
    drop(serving.xstack.running);
    serving = Serving::start(&lab, &["--queue", "0"]);
    lab.output(Host::Host, &["ethtool", "-L", "xs0", "tx", "1"]);
    sleep(Duration::from_millis(200));
    assert!(!serving.xstack.running.has_ended(), "{}", serving.xstack.said());
}

#[test]
fn rings_have_the_size_that_was_asked_for_and_the_smallest_carry_all() {
    let test = "rings_have_the_size_that_was_asked_for_and_the_smallest_carry_all";
    let Some(lab) = TestLab::with_servers(test, &["curl"]) else { return };
    let url = "http://example.com/bytes/3000000";
    let expected = lab.curl(&[url]).body();
    assert_same_bytes(&lab.xstack(&["--ring-size", "64", "curl", "-s", url]).body(), &expected, "of 64");
    let refused: Outcome = lab.xstack(&["--ring-size", "100", "curl", url]).expect_code(2);
    assert!(refused.stderr.contains("a power of two from 64 to 2048"), "{}", refused.stderr);
}
