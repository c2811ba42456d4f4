//! Very many connections of the kernel's TCP to a server on our stack: all used and closed at once, and idle for long.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{ChildStdout, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    examples::program,
    support::{Host, Running, TestLab, server_binary, sized},
};

const OURS: &str = "10.77.0.77";
const FIRST_PORT: &str = "7000";
/// The kernel has some 28,000 ports of its own to each of these, and TIME-WAIT holds one for a minute.
const PORTS: &str = "16";

/// More than anything here takes on a machine that is busy with other things.
const WITHIN: Duration = Duration::from_secs(600);

/// A program that prints lines of JSON.
struct Talker {
    running: Running,
    lines: Receiver<Value>,
}

impl Talker {
    fn start(command: &mut Command) -> Self {
        let mut running = Running::start(command.stdout(Stdio::piped()));
        let stdout: ChildStdout = running.take_stdout();
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = tell.send(serde_json::from_str(&line).unwrap());
            }
        });
        Self { running, lines }
    }

    /// What it says next.
    #[track_caller]
    fn hears(&self) -> Value {
        self.lines.recv_timeout(WITHIN).expect("it ended, or says nothing")
    }
}

/// The server, as it says and as the kernel says of it.
struct Echo(Talker);

#[derive(Debug)]
struct State {
    connections: u64,
    resting: u64,
    time_wait: u64,
    /// Frames that are neither free nor with the device.
    held_frames: u64,
    /// In bytes.
    resident: u64,
}

impl Echo {
    fn start(lab: &TestLab) -> Self {
        let mut command = lab.on(Host::Host, program("echo_server"));
        command.args(["xs0", OURS, FIRST_PORT, PORTS]);
        let echo = Self(Talker::start(&mut command));
        let deadline = Instant::now() + Duration::from_secs(30);
        let ask = ["bash", "-c", &format!("exec 3<>/dev/tcp/{OURS}/{FIRST_PORT}")];
        while !lab.on(Host::Peer, ask[0]).args(&ask[1..]).stderr(Stdio::null()).status().unwrap().success() {
            assert!(Instant::now() < deadline, "it does not listen");
            sleep(Duration::from_millis(100));
        }
        echo
    }

    #[track_caller]
    fn state(&self) -> State {
        self.0.running.signal(Signal::SIGUSR1);
        let said = self.0.hears();
        let number = |name: &str| said[name].as_u64().unwrap();
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.running.id())).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        State {
            connections: number("connections"),
            resting: number("resting"),
            time_wait: number("time_wait"),
            held_frames: number("held_frames"),
            resident: resident.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10,
        }
    }

    /// Waits until something is so.
    #[track_caller]
    fn becomes(&self, what: &str, is_so: impl Fn(&State) -> bool) -> State {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let state = self.state();
            if is_so(&state) {
                return state;
            }
            assert!(Instant::now() < deadline, "not {what}: {state:?}");
            sleep(Duration::from_millis(200));
        }
    }
}

fn load(lab: &TestLab, arguments: &[String]) -> Talker {
    let binary = server_binary().with_file_name("load");
    let mut command = lab.on(Host::Peer, binary);
    let limit = WITHIN.as_secs().to_string();
    command.args(["--server", OURS, "--port", FIRST_PORT, "--ports", PORTS, "--limit", &limit]);
    Talker::start(command.args(arguments))
}

#[track_caller]
fn ends_well(load: Talker) {
    let status = load.running.finish().status;
    assert!(status.success(), "{status}: stderr tells why");
}

/// All are opened, then all are used, then all are closed, again and again. Nothing goes wrong, and nothing is left.
#[test]
fn connections_that_come_and_go_at_once_leave_nothing() {
    let Some(lab) = TestLab::without_servers("come_and_go", &["bash"]) else { return };
    let (connections, rounds) = sized((10_000, 2), (10_000, 10));
    let echo = Echo::start(&lab);
    let untouched = echo.becomes("empty", |state| state.connections == 0);
    let load = load(
        &lab,
        &["--connections", &connections.to_string(), "--rounds", &rounds.to_string()].map(String::from),
    );
    let mut after = Vec::new();
    for round in 0..rounds {
        let said = load.hears();
        assert_eq!(said["round"], round);
        let state = echo.becomes("empty", |state| state.connections == 0);
        assert_eq!(state.time_wait, 0, "who closes first has it");
        eprintln!("round {round}: {:.1} s, {state:?}", said["seconds"].as_f64().unwrap());
        after.push(state);
    }
    ends_well(load);
    let (first, last) = (&after[0], &after[after.len() - 1]);
    let last = echo
        .becomes("back to its frames", |state| state.held_frames <= untouched.held_frames)
        .max_resident(last);
    // The allocator keeps what it had at the most, which differs a little from round to round.
    let allowed = first.resident + first.resident / 10 + (4 << 20);
    assert!(last <= allowed, "{last} bytes resident, after the first round {}", first.resident);
}

impl State {
    fn max_resident(&self, other: &Self) -> u64 {
        self.resident.max(other.resident)
    }
}

/// Connections on which nothing happens: each is there when it is needed. What they take is printed.
#[test]
fn idle_connections_are_held_and_each_answers() {
    let Some(lab) = TestLab::without_servers("idle", &["bash"]) else { return };
    let connections: u64 = sized(20_000, 100_000);
    let echo = Echo::start(&lab);
    let before = echo.becomes("empty", |state| state.connections == 0);
    let arguments = ["--connections", &connections.to_string(), "--hold", &sized(10, 30).to_string()];
    let load = load(&lab, &arguments.map(String::from));
    let held = load.hears();
    assert_eq!(held["held"], connections);
    let state = echo.becomes("at rest", |state| state.resting == connections);
    assert_eq!(state.connections, connections);
    assert!(state.held_frames <= before.held_frames, "idle connections hold no frames: {state:?}");
    eprintln!("| {connections} idle connections | bytes each |");
    eprintln!("|---|---|");
    eprintln!(
        "| our process, a task for each included | {} |",
        (state.resident.saturating_sub(before.resident)) / connections
    );
    eprintln!("| the kernel's end, by Slab | {} |", held["kernel_slab_bytes"]);
    eprintln!("| the kernel's end and its program, by MemAvailable | {} |", held["kernel_available_bytes"]);
    let said = load.hears();
    assert_eq!(said["connections"], connections, "each has answered again, and was closed");
    ends_well(load);
    let after = echo.becomes("empty", |state| state.connections == 0);
    eprintln!("after: {after:?}");
}
