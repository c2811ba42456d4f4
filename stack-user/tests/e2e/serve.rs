//! `xstack serve` on the host, and the kernel's clients on the other side: real browsers' habits, loads, and the end.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStderr, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::support::{Host, Outcome, TestLab, XSTACK, run_for, sized};

const ADDRESS: &str = "10.77.0.80";
const MB: usize = 1_000_000;
/// Loads take seconds on a quiet machine.
const LOAD_ENDS_WITHIN: Duration = Duration::from_secs(120);
const ENDS_WITHIN: Duration = Duration::from_secs(20);

/// `xstack serve`, from when it says where until this is dropped.
struct Serving {
    child: Child,
    /// What it said until then.
    said: String,
    rest: Option<JoinHandle<String>>,
}

impl Serving {
    fn start(lab: &TestLab, directory: &Path, options: &[&str]) -> Self {
        let mut command = lab.on(Host::Host, XSTACK);
        command.args(["--address", ADDRESS, "serve"]).args(options).arg(directory);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr: BufReader<ChildStderr> = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains("xstack: serving ") {
            assert!(stderr.read_line(&mut said).unwrap() > 0, "ended at once: {said}");
        }
        let rest = std::thread::spawn(move || {
            let mut rest = String::new();
            stderr.read_to_string(&mut rest).unwrap();
            rest
        });
        Self { child, said, rest: Some(rest) }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Its exit code, and what it said after it had begun.
    fn ended(mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + ENDS_WITHIN;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "xstack serve does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        (status.code(), self.rest.take().unwrap().join().unwrap())
    }

    /// Stops it, and makes sure that all was in order to the end.
    #[track_caller]
    fn finish(self, lab: &TestLab) {
        self.signal(Signal::SIGTERM);
        let (code, said) = self.ended();
        assert_eq!((code, &*said), (Some(0), ""));
        assert!(!lab.has_program(), "the XDP program is still there");
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a program on the neighbour does.
fn peer(lab: &TestLab, words: &[&str], limit: Duration) -> Outcome {
    run_for(lab.on(Host::Peer, words[0]).args(&words[1..]), limit)
}

/// The real curl, on the neighbour.
fn curl(lab: &TestLab, arguments: &[&str]) -> Outcome {
    peer(
        lab,
        &[&["curl", "--silent", "--show-error", "--max-time", "100"], arguments].concat(),
        LOAD_ENDS_WITHIN,
    )
}

fn text(outcome: Outcome) -> String {
    String::from_utf8(outcome.body()).unwrap()
}

/// A directory that an ordinary user may read.
fn site() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let write = |name: &str, content: &[u8]| fs::write(directory.path().join(name), content).unwrap();
    write("index.html", b"<p>index</p>\n");
    write("digits", b"0123456789");
    write("long.txt", "a line that repeats\n".repeat(1000).as_bytes());
    write("secret", b"secret");
    fs::set_permissions(directory.path().join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir(directory.path().join("sub")).unwrap();
    for number in 0..30 {
        write(&format!("sub/{number}"), format!("this is {number}\n").as_bytes());
    }
    directory
}

fn url(path: &str) -> String {
    format!("http://{ADDRESS}/{path}")
}

#[test]
fn curl_and_wget_get_what_is_there() {
    let Some(lab) = TestLab::with_servers("curl_and_wget_get_what_is_there", &["curl", "wget"]) else {
        return;
    };
    let site = site();
    let state = lab.host_state();
    let serving = Serving::start(&lab, site.path(), &[]);
    assert_eq!(serving.said, format!("xstack: serving {} at http://{ADDRESS}/\n", site.path().display()));
    assert_eq!(text(curl(&lab, &[&url("")])), "<p>index</p>\n");
    assert_eq!(text(curl(&lab, &["--range", "2-4", &url("digits")])), "234");
    assert_eq!(text(curl(&lab, &["--continue-at", "7", &url("digits")])), "789");
    assert!(text(curl(&lab, &["--head", &url("digits")])).contains("content-length: 10"));
    let plain = text(curl(&lab, &[&url("long.txt")]));
    assert_eq!(plain, "a line that repeats\n".repeat(1000));
    assert_eq!(text(curl(&lab, &["--compressed", &url("long.txt")])), plain);
    let sizes =
        ["--compressed", "--output", "/dev/null", "--write-out", "%{size_download}", &url("long.txt")];
    let transferred = text(curl(&lab, &sizes));
    assert!(transferred.parse::<usize>().unwrap() < 1000, "{transferred} bytes for what repeats");
    let status = |path: &str| {
        text(curl(
            &lab,
            &["--output", "/dev/null", "--write-out", "%{http_code}", "--path-as-is", &url(path)],
        ))
    };
    for (path, expected) in [("none", "404"), ("sub", "301"), ("../../etc/passwd", "400"), ("secret", "403")]
    {
        assert_eq!(status(path), expected, "{path}");
    }
    // From the other side of a router, too.
    let outcome = run_for(lab.on(Host::Web, "curl").args(["-sS", &url("digits")]), ENDS_WITHIN);
    assert_eq!(outcome.body(), b"0123456789");
    // The links of a listing lead to everything that there is.
    let mirror = tempfile::tempdir().unwrap();
    let prefix = format!("--directory-prefix={}", mirror.path().display());
    let words = ["wget", "--no-verbose", "--recursive", "--no-parent", "--no-host-directories", &prefix];
    peer(&lab, &[&words[..], &[&url("sub/")]].concat(), ENDS_WITHIN).expect_code(0);
    for number in 0..30 {
        let copied = fs::read_to_string(mirror.path().join(format!("sub/{number}"))).unwrap();
        assert_eq!(copied, format!("this is {number}\n"));
    }
    serving.finish(&lab);
    assert_eq!(lab.host_state(), state, "the host is not as it was");
}

#[test]
fn tls_with_a_made_up_certificate_and_with_a_given_one() {
    let test = "tls_with_a_made_up_certificate_and_with_a_given_one";
    let Some(lab) = TestLab::with_servers(test, &["curl"]) else { return };
    let site = site();
    let serving = Serving::start(&lab, site.path(), &["--tls"]);
    let pin = serving.said.split_whitespace().find(|word| word.starts_with("sha256//")).unwrap();
    let digits = format!("https://{ADDRESS}/digits");
    assert_eq!(text(curl(&lab, &["--insecure", "--pinnedpubkey", pin, &digits])), "0123456789");
    curl(&lab, &[&digits]).expect_code(60);
    let other = format!("sha256//{}=", "A".repeat(43));
    curl(&lab, &["--insecure", "--pinnedpubkey", &other, &digits]).expect_code(90);
    serving.finish(&lab);

    let made = rcgen::generate_simple_self_signed(vec![ADDRESS.to_owned()]).unwrap();
    let keys = tempfile::tempdir().unwrap();
    let path = |name: &str| keys.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("cert"), made.cert.pem()).unwrap();
    fs::write(path("key"), made.signing_key.serialize_pem()).unwrap();
    // The key is root's alone: it is read before root is given up.
    fs::set_permissions(path("key"), fs::Permissions::from_mode(0o600)).unwrap();
    let options = ["--tls-cert", &path("cert"), "--tls-key", &path("key"), "--listen", "8443"];
    let serving = Serving::start(&lab, site.path(), &options);
    let digits = format!("https://{ADDRESS}:8443/digits");
    assert_eq!(text(curl(&lab, &["--cacert", &path("cert"), &digits])), "0123456789");
    assert_eq!(text(curl(&lab, &["--cacert", &path("cert"), "--tls-max", "1.2", &digits])), "0123456789");
    serving.finish(&lab);
}

#[test]
fn what_cannot_be_served_is_told() {
    let Some(lab) = TestLab::with_servers("what_cannot_be_served_is_told", &[]) else { return };
    let site = site();
    let state = lab.host_state();
    let path = site.path().to_str().unwrap();
    let outcome = lab.xstack(&["serve", "/none"]).expect_code(26);
    assert_eq!(outcome.stderr, "xstack: (26) Cannot serve /none: No such file or directory (os error 2)\n");
    lab.xstack(&["--address", ADDRESS, "serve", "--listen", "192.0.2.1:80", path]).expect_code(102);
    // Root may read it, and whom root becomes may not.
    fs::set_permissions(site.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let outcome = lab.xstack(&["--address", ADDRESS, "serve", path]).expect_code(26);
    assert!(
        outcome.stderr.contains("Permission denied") && outcome.stderr.contains("--user"),
        "{}",
        outcome.stderr
    );
    assert_eq!(lab.host_state(), state, "the host is not as it was");
}

#[test]
fn many_connections_at_once_and_one_after_the_other() {
    let test = "many_connections_at_once_and_one_after_the_other";
    let Some(lab) = TestLab::with_servers(test, &["curl", "wrk", "ab"]) else { return };
    let site = site();
    let serving = Serving::start(&lab, site.path(), &[]);
    let seconds = sized("3", "10");
    let words =
        ["wrk", "-t", "2", "-c", "256", "-d", seconds, "--timeout", "30", "--latency", &url("digits")];
    let told = text(peer(&lab, &words, LOAD_ENDS_WITHIN));
    println!("{told}");
    assert!(!told.contains("Socket errors") && !told.contains("Non-2xx"), "{told}");
    assert!(told.contains("Requests/sec:"), "{told}");
    let (requests, digits) = (sized("3000", "30000"), url("digits"));
    for options in [&["-k", "-c", "64"][..], &["-c", "64"]] {
        let words = [&["ab", "-q", "-s", "30", "-n", requests], options, &[&digits]].concat();
        let told = text(peer(&lab, &words, LOAD_ENDS_WITHIN));
        println!("{told}");
        assert_eq!(figure(&told, "Complete requests:"), Some(requests), "{told}");
        assert_eq!(figure(&told, "Failed requests:"), Some("0"), "{told}");
        assert!(!told.contains("Non-2xx"), "{told}");
    }
    // As a browser does: six connections that stay, and many small things over them.
    let each = url("sub/[0-29]");
    let words = ["--parallel", "--parallel-max", "6", "--write-out", "%{http_code} %{num_connects}\n"];
    let told = text(curl(&lab, &[&words[..], &["--output", "/dev/null", &each]].concat()));
    assert_eq!(told.lines().filter(|line| line.starts_with("200 ")).count(), 30, "{told}");
    let connects: u32 = told.lines().filter_map(|line| line.split_once(' ')?.1.parse::<u32>().ok()).sum();
    assert!((1..=6).contains(&connects), "{connects} connections: {told}");
    serving.finish(&lab);
}

/// The figure behind a name in what ab tells.
fn figure<'a>(told: &'a str, name: &str) -> Option<&'a str> {
    told.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

#[test]
fn a_large_file_is_served_byte_for_byte() {
    let test = "a_large_file_is_served_byte_for_byte";
    let Some(lab) = TestLab::with_servers(test, &["curl", "sha256sum"]) else { return };
    let site = site();
    let length = sized(150, 1000) * MB;
    write_noise(&site.path().join("big"), length);
    let expected =
        text(peer(&lab, &["sha256sum", site.path().join("big").to_str().unwrap()], LOAD_ENDS_WITHIN));
    let serving = Serving::start(&lab, site.path(), &[]);
    let started = Instant::now();
    let script = format!("set -o pipefail; curl -sS --max-time 600 {} | sha256sum", url("big"));
    let got = text(peer(&lab, &["bash", "-c", &script], Duration::from_secs(700)));
    println!("{} MB in {:?}", length / MB, started.elapsed());
    assert_eq!(got.split(' ').next(), expected.split(' ').next());
    serving.finish(&lab);
}

/// Bytes that neither repeat nor compress. The kernel makes them faster than we would.
fn write_noise(path: &Path, length: usize) {
    let mut noise = fs::File::open("/dev/urandom").unwrap().take(length as u64);
    std::io::copy(&mut noise, &mut fs::File::create(path).unwrap()).unwrap();
}

#[test]
fn stopping_is_patient_once() {
    let Some(lab) = TestLab::with_servers("stopping_is_patient_once", &["curl"]) else { return };
    let site = site();
    let state = lab.host_state();
    // Two seconds of transfer are left when the first signal comes. The second one does not wait for a
    // transfer, which is here longer than what the kernel's receive buffer holds (`tcp_rmem`: 32 MB on large machines).
    for (length, signals, curl_says, code) in
        [(3 * MB, &[Signal::SIGTERM][..], 0, 0), (64 * MB, &[Signal::SIGINT, Signal::SIGINT], 56, 130)]
    {
        write_noise(&site.path().join("big"), length);
        let serving = Serving::start(&lab, site.path(), &["--grace", "15"]);
        let (outcome, (ended, _)) = std::thread::scope(|scope| {
            let transfer =
                scope.spawn(|| curl(&lab, &["--limit-rate", "1M", "--output", "/dev/null", &url("big")]));
            std::thread::sleep(Duration::from_millis(1000));
            for &signal in signals {
                serving.signal(signal);
                std::thread::sleep(Duration::from_millis(200));
            }
            (transfer.join().unwrap(), serving.ended())
        });
        outcome.expect_code(curl_says);
        assert_eq!(ended, Some(code));
        assert_eq!(lab.host_state(), state, "the host is not as it was");
    }
}

/// The names of a process's threads.
fn threads(process: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).unwrap_or_default();
    tasks.flatten().map(|task| name(task).trim().to_owned()).collect()
}

#[test]
fn each_queue_is_served_by_a_thread_of_its_own() {
    let test = "each_queue_is_served_by_a_thread_of_its_own";
    let Some(lab) = TestLab::without_servers_with_queues(test, &["curl"], 2) else { return };
    let site = site();
    for (most, expected) in [("2", 2), ("1", 0)] {
        let serving = Serving::start(&lab, site.path(), &["--threads", most]);
        let urls: Vec<_> = (0..30).map(|number| url(&format!("sub/{number}"))).collect();
        let parallel = ["--parallel", "--parallel-max", "10"];
        let got = curl(&lab, &[&parallel[..], &urls.iter().map(String::as_str).collect::<Vec<_>>()].concat());
        assert_eq!(text(got).lines().count(), 30);
        let names = threads(serving.child.id());
        let of_shards = names.iter().filter(|name| name.starts_with("shard-")).count();
        assert_eq!(of_shards, expected, "{names:?}");
        serving.finish(&lab);
    }
}

/// So many that the SYN queue is full many times over: the rest is answered by cookies (RFC 4987 §3.6).
#[test]
fn ten_thousand_half_open_connections_keep_nobody_out() {
    let test = "ten_thousand_half_open_connections_keep_nobody_out";
    let Some(lab) = TestLab::with_servers(test, &["curl", "hping3"]) else { return };
    let site = site();
    let serving = Serving::start(&lab, site.path(), &["-v"]);
    let mut flood = lab.on(Host::Peer, "hping3");
    flood.args([
        "--syn",
        "--destport",
        "80",
        "--rand-source",
        "--count",
        "10000",
        "--interval",
        "u100",
        ADDRESS,
    ]);
    let mut flood = flood.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut served = 0;
    while flood.try_wait().unwrap().is_none() {
        assert_eq!(text(curl(&lab, &[&url("digits")])), "0123456789");
        served += 1;
    }
    let said = flood.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("10000 packets transmitted"), "{said}");
    assert!(served > 0, "nobody asked meanwhile");
    assert_eq!(text(curl(&lab, &[&url("digits")])), "0123456789", "nor afterwards");
    serving.signal(Signal::SIGTERM);
    let (code, said) = serving.ended();
    assert_eq!(code, Some(0));
    assert!(said.contains("tcp_syn_queue_full"), "the flood was too small: {said}");
}
