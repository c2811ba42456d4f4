//! `xstack bench client` and `server` as they are built: against the real iperf3 in either role, and against those who do not keep
//! to its protocol.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::mpsc,
    thread::sleep,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::{Deserializer, Value};
use xtask::process::find_program;

use crate::{
    figures,
    harness::{InMemory, served},
    process::{self, Running, run_for},
};

const XSTACK: &str = env!("CARGO_BIN_EXE_xstack");
const LONG: Duration = Duration::from_secs(30);

/// What clients are asked for.
const CASES: [&[&str]; 9] = [
    &["-t", "1"],
    &["-t", "1", "-P", "8"],
    &["-t", "1", "-R", "-P", "2"],
    &["-t", "1", "--bidir"],
    &["-t", "1", "-b", "100M", "-l", "16K"],
    &["-t", "1", "-u", "-b", "20M", "-l", "1400"],
    &["-t", "1", "-u", "-R", "-b", "20M", "-l", "1400"],
    &["-t", "1", "-u", "--bidir", "-b", "20M", "-l", "1400"],
    &["-n", "30M", "-P", "2"],
];

#[test]
fn the_real_iperf3_is_a_client_of_ours() {
    if !has_iperf3("the_real_iperf3_is_a_client_of_ours") {
        return;
    }
    let server = Server::start(&["-J"]);
    let mut clients = Vec::new();
    for options in CASES {
        let mut command = Command::new("iperf3");
        command.args(["-c", "127.0.0.1", "-J", "-p", &server.port.to_string()]).args(options);
        let client = json(&run_for(&mut command, LONG).body());
        assert!(client["error"].is_null(), "{options:?}: {}", client["error"]);
        clients.push(client);
    }
    let said = server.finish();
    let servers: Vec<Value> = Deserializer::from_slice(&said).into_iter().map(Result::unwrap).collect();
    assert_eq!(servers.len(), CASES.len());
    for (options, (client, server)) in CASES.iter().zip(clients.iter().zip(&servers)) {
        figures::agree(options, client, server);
    }
}

#[test]
fn the_real_iperf3_is_a_server_to_ours() {
    if !has_iperf3("the_real_iperf3_is_a_server_to_ours") {
        return;
    }
    for options in CASES {
        let port = free_port().to_string();
        let server = Running::start(
            Command::new("iperf3").args(["-s", "-1", "-J", "-p", &port]).stdout(Stdio::piped()),
        );
        until_it_listens(port.parse().unwrap());
        let mut command = Command::new(XSTACK);
        command.args(["bench", "client", "--kernel", "127.0.0.1", "-J", "-p", &port]).args(options);
        let client = json(&run_for(&mut command, LONG).body());
        figures::agree(options, &client, &json(&server.finish().stdout));
    }
}

/// Streams in every direction between two stacks of ours, in memory.
#[tokio::test]
async fn our_stack_is_at_both_ends() {
    for options in [
        &["-P", "4", "-b", "40M"][..],
        &["-R", "-b", "40M"],
        &["--bidir", "-b", "40M"],
        &["-u", "-b", "8M"],
        &["-u", "--bidir", "-b", "8M", "--udp-counters-64bit"],
        &["-n", "4M", "-P", "2"],
    ] {
        let (server, client) = InMemory::pair().await;
        let time: &[&str] = if options.contains(&"-n") { &[] } else { &["-t", "1"] };
        let told = served(server, client, &[&["client", "-J"], time, options].concat()).await;
        assert_eq!(told.code, 0, "{options:?}: {}", told.stderr);
        let told = json(told.stdout.as_bytes());
        let suffix = if options.contains(&"--bidir") { "_bidir_reverse" } else { "" };
        for suffix in ["", suffix] {
            let sum = |name: &str| told["end"][format!("{name}{suffix}")]["bytes"].as_u64().unwrap();
            let (sent, received) = (sum("sum_sent"), sum("sum_received"));
            assert!(received > 0 && received <= sent, "{options:?}: {sent} sent, {received} received");
            // Of a few megabytes much is still on its way when they are sent.
            let is_short = time.is_empty();
            assert!(is_short || received * 20 > sent * 17, "{options:?}: {sent} sent, {received} received");
        }
    }
}

#[test]
fn a_test_of_so_many_bytes_is_of_so_many() {
    let server = Server::start(&["-J"]);
    for direction in [&[][..], &["-R"]] {
        let client = json(&server.client(&[&["-n", "10M", "-J"], direction].concat()).body());
        let sent = client["end"]["sum_sent"]["bytes"].as_u64().unwrap();
        let received = client["end"]["sum_received"]["bytes"].as_u64().unwrap();
        // The last block may have been begun before.
        assert!((10 << 20..11 << 20).contains(&sent), "{sent}");
        assert!((9 << 20..11 << 20).contains(&received), "{received}");
    }
    server.finish();
}

#[test]
fn what_is_left_out_is_told_and_does_not_count() {
    let server = Server::start(&[]);
    let client = json(&server.client(&["-t", "1", "-O", "1", "-b", "50M", "-J"]).body());
    let intervals = client["intervals"].as_array().unwrap();
    assert_eq!(intervals[0]["sum"]["omitted"], true);
    assert_eq!(intervals[1]["sum"]["omitted"], false);
    let seconds = client["end"]["sum_sent"]["seconds"].as_f64().unwrap();
    assert!((0.9..1.3).contains(&seconds), "{seconds}");
    let rate = figures::rate(&client, "sum_received");
    assert!((45e6..55e6).contains(&rate), "{rate}");
    server.finish();
}

#[test]
fn what_was_measured_until_an_interrupt_is_told() {
    let server = Server::start(&[]);
    let client = Running::start(
        Command::new(XSTACK)
            .args(["bench", "client", "--kernel", "127.0.0.1", "-t", "60", "-p", &server.port.to_string()])
            .stdout(Stdio::piped()),
    );
    sleep(Duration::from_millis(1500));
    client.signal(Signal::SIGINT);
    let output = client.finish();
    assert_eq!(output.status.code(), Some(130));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.lines().last().unwrap().ends_with("sender"), "{said}");
    // The server goes on for the next one.
    let next = server.client(&["-n", "1M"]).body();
    assert!(String::from_utf8(next).unwrap().ends_with("iperf Done.\n"));
    let told = String::from_utf8(server.finish()).unwrap();
    assert_eq!(told.matches("Accepted connection").count(), 2, "{told}");
}

#[test]
fn an_interrupt_is_heard_while_a_server_keeps_its_results_to_itself() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let client = Running::start(
        Command::new(XSTACK)
            .args(["bench", "client", "--kernel", "127.0.0.1", "-n", "1K", "-p", &port])
            .stdout(Stdio::piped()),
    );
    let (mut control, _) = listener.accept().unwrap();
    control.set_read_timeout(Some(LONG)).unwrap();
    control.read_exact(&mut [0; 37]).unwrap();
    // PARAM_EXCHANGE, and what comes of it.
    control.write_all(&[9]).unwrap();
    let mut length = [0; 4];
    control.read_exact(&mut length).unwrap();
    control.read_exact(&mut vec![0; u32::from_be_bytes(length) as usize]).unwrap();
    // CREATE_STREAMS, TEST_START, TEST_RUNNING, and the client's TEST_END.
    control.write_all(&[10]).unwrap();
    let _stream = listener.accept().unwrap();
    control.write_all(&[1, 2]).unwrap();
    let mut state = [0];
    control.read_exact(&mut state).unwrap();
    assert_eq!(state, [4]);
    let begun = Instant::now();
    client.signal(Signal::SIGINT);
    let output = client.finish();
    assert_eq!(output.status.code(), Some(130));
    assert!(begun.elapsed() < Duration::from_secs(8), "it has waited for the server: {:?}", begun.elapsed());
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.lines().last().unwrap().ends_with("sender"), "{said}");
}

#[test]
fn there_is_one_test_at_a_time() {
    let server = Server::start(&[]);
    let _first = Running::start(
        Command::new(XSTACK)
            .args(["bench", "client", "--kernel", "127.0.0.1", "-b", "1M", "-p", &server.port.to_string()])
            .stdout(Stdio::null()),
    );
    sleep(Duration::from_millis(500));
    let refused = server.client(&["-t", "1"]).expect_code(104);
    assert!(refused.stderr.contains("the server is busy"), "{}", refused.stderr);
    if has_iperf3("there_is_one_test_at_a_time") {
        let mut command = Command::new("iperf3");
        command.args(["-c", "127.0.0.1", "-t", "1", "-p", &server.port.to_string()]);
        let refused = run_for(&mut command, LONG).expect_code(1);
        assert!(refused.stderr.contains("busy"), "{}", refused.stderr);
    }
}

#[test]
fn root_is_warned_that_over_the_kernel_nothing_is_given_up() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP root_is_warned_that_over_the_kernel_nothing_is_given_up: this is not root");
        return;
    }
    let (server, heard) = Server::start_and_hear(&[]);
    let said = heard.recv_timeout(LONG).unwrap();
    assert!(said.contains("stays root"), "{said}");
    server.finish();
}

/// Whoever does not keep to the protocol is told off or sent away, and the next one is served.
#[test]
fn a_server_outlives_those_who_do_not_keep_to_the_protocol() {
    let cookie = b"abcdefghijklmnopqrstuvwxyz234567abcd\0";
    let message = |text: &str| [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat();
    let asked = |text: &str| [&cookie[..], &message(text)].concat();
    let server = Server::start(&[]);
    for (sends, hears) in [
        // No cookie, and no magic.
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), &b""[..]),
        (vec![0xff; 37], b""),
        // A cookie without its end.
        (vec![b'a'; 37], b""),
        // PARAM_EXCHANGE, then SERVER_ERROR with the number that iperf3 has for it.
        ([&cookie[..], &u32::MAX.to_be_bytes()].concat(), b"\x09\xfe\0\0\0\x72\0\0\0\0"),
        (asked("{]"), b"\x09\xfe\0\0\0\x72\0\0\0\0"),
        (asked(r#"{"tcp":true,"time":1,"parallel":129}"#), b"\x09\xfe\0\0\0\x06\0\0\0\0"),
        (asked(r#"{"tcp":true,"time":1,"parallel":1,"len":99999999}"#), b"\x09\xfe\0\0\0\x07\0\0\0\0"),
        (asked(r#"{"sctp":true,"time":1,"parallel":1}"#), b"\x09\xfe\0\0\0\x12\0\0\0\0"),
        // CREATE_STREAMS, to which TEST_END is no answer.
        ([asked(r#"{"tcp":true,"time":1,"parallel":1}"#), vec![4]].concat(), b"\x09\x0a"),
    ] {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.write_all(&sends).unwrap();
        let mut heard = Vec::new();
        // A reset is as good an end as any.
        let _ = stream.read_to_end(&mut heard);
        assert_eq!(heard, hears, "{}", String::from_utf8_lossy(&sends));
    }
    // Somebody who comes as far as the streams, and then is gone.
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.write_all(&asked(r#"{"tcp":true,"time":1,"parallel":2}"#)).unwrap();
    stream.read_exact(&mut [0; 2]).unwrap();
    drop(stream);
    server.client_until_served(&["-n", "1M"]);
    server.finish();
}

/// A server that is none: its first byte decides what a client says of it.
#[test]
fn a_client_says_what_is_wrong_with_a_server() {
    for (answer, says) in [
        (&b"HTTP/1.1 400 Bad Request\r\n"[..], "no state of iperf3's protocol"),
        (b"", "closed the control connection"),
        (b"\xff", "the server is busy"),
        (b"\x01", "makes no sense"),
        (b"\x09\xfe\0\0\0\x06\0\0\0\0", "error 6 of iperf3's"),
        (b"\x09\x0b", "the server has been terminated"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let serving = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0; 37]).unwrap();
            stream.write_all(answer).unwrap();
            // A client that has heard enough may have gone by now.
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let mut command = Command::new(XSTACK);
        command.args(["bench", "client", "--kernel", "127.0.0.1", "-p", &port]);
        let outcome = run_for(&mut command, LONG).expect_code(104);
        assert!(outcome.stderr.contains(says), "{answer:?}: {}", outcome.stderr);
        serving.join().unwrap();
    }
}

#[test]
fn options_that_make_no_sense_are_usage_errors() {
    for options in [
        &["-P", "0"][..],
        &["-P", "129"],
        &["-t", "86401"],
        &["-t", "1", "-n", "1"],
        &["-n", "1", "-k", "1"],
        &["-R", "--bidir"],
        &["-b", "fast"],
        &["-b", "1M/0"],
        &["-l", "0"],
        &["-l", "2M"],
        &["-u", "-l", "15"],
        &["-u", "-l", "65508"],
        &["-i", "0.05"],
        &["-i", "nan"],
        &["-O", "601"],
        &["-p", "0"],
    ] {
        let mut command = Command::new(XSTACK);
        command.args(["bench", "client", "--kernel", "127.0.0.1"]).args(options);
        run_for(&mut command, LONG).expect_code(2);
    }
}

/// Our server, over the kernel's sockets.
struct Server {
    running: Running,
    port: u16,
}

impl Server {
    /// Returns once it has said where it is.
    fn start(options: &[&str]) -> Self {
        Self::start_and_hear(options).0
    }

    /// The same, with a channel of the lines that it says from then on.
    fn start_and_hear(options: &[&str]) -> (Self, mpsc::Receiver<String>) {
        let port = free_port();
        let mut running = Running::start(
            Command::new(XSTACK)
                .args(["bench", "server", "--kernel", "-B", "127.0.0.1", "-p", &port.to_string()])
                .args(options)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped()),
        );
        let mut said = String::new();
        let mut stderr = BufReader::new(running.take_stderr());
        stderr.read_line(&mut said).unwrap();
        assert!(said.contains("benchmarks are served at"), "{said}");
        // Whatever else it says must not wait for somebody to read it.
        let (says, heard) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = says.send(line);
            }
        });
        (Self { running, port }, heard)
    }

    fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// A run of our client.
    fn client(&self, options: &[&str]) -> process::Outcome {
        let mut command = Command::new(XSTACK);
        command
            .args(["bench", "client", "--kernel", "127.0.0.1", "-p", &self.port.to_string()])
            .args(options);
        run_for(&mut command, LONG)
    }

    /// The same as often as the server has yet to notice that somebody else is gone.
    fn client_until_served(&self, options: &[&str]) {
        let begun = Instant::now();
        while self.client(options).code != Some(0) {
            assert!(begun.elapsed() < LONG, "is not served");
            sleep(Duration::from_millis(50));
        }
    }

    /// Stops it, and gives what it has reported.
    fn finish(self) -> Vec<u8> {
        self.running.signal(Signal::SIGINT);
        let output = self.running.finish();
        assert_eq!(output.status.code(), Some(0));
        output.stdout
    }
}

fn has_iperf3(test: &str) -> bool {
    let is_there = find_program("iperf3").is_some();
    if !is_there {
        println!("SKIP {test}: iperf3 is not installed");
    }
    is_there
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits, without connecting: the first connection is the test's.
fn until_it_listens(port: u16) {
    let begun = Instant::now();
    let wanted = format!(":{port:04X} ");
    let is_there = || {
        ["/proc/net/tcp", "/proc/net/tcp6"].iter().any(|table| {
            let table = std::fs::read_to_string(table).unwrap_or_default();
            table.lines().any(|line| line.contains(&wanted) && line.contains(" 0A "))
        })
    };
    while !is_there() {
        assert!(begun.elapsed() < LONG, "nobody listens on {port}");
        sleep(Duration::from_millis(5));
    }
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(bytes)))
}
