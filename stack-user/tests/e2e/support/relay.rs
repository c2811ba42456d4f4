//! `xstack forward` or `xstack proxy` on the host, from the moment it says where it listens.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{Host, Running, TestLab, XSTACK};

/// What our side is on, in these tests.
pub(crate) const OURS: &str = "10.77.0.80";

/// All that it says on stderr when nothing is wrong.
pub(crate) const ADDRESS_TOLD: &str = "xstack: ours: is 10.77.0.80\n";

const ENDS_WITHIN: Duration = Duration::from_secs(20);

pub(crate) struct Relay {
    running: Running,
    stdout: BufReader<std::process::ChildStdout>,
    said: JoinHandle<String>,
}

impl Relay {
    /// Starts `xstack ARGUMENTS`, and waits for so many lines.
    #[track_caller]
    pub(crate) fn start(lab: &TestLab, arguments: &[&str], places: usize) -> Self {
        let mut command = lab.on(Host::Host, XSTACK);
        command.args(["--address", OURS]).args(arguments);
        let mut running = Running::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let mut stderr = running.take_stderr();
        let said = std::thread::spawn(move || {
            let mut said = String::new();
            stderr.read_to_string(&mut said).unwrap();
            said
        });
        let mut stdout = BufReader::new(running.take_stdout());
        for _ in 0..places {
            let mut line = String::new();
            if stdout.read_line(&mut line).unwrap() == 0 {
                drop(running);
                panic!("{arguments:?} ended: {}", said.join().unwrap());
            }
        }
        Self { running, stdout, said }
    }

    /// Asks it to stop, and fails unless it does so in order. Gives what it said on stdout and on stderr.
    #[track_caller]
    pub(crate) fn stop(mut self, lab: &TestLab) -> (String, String) {
        self.running.signal(Signal::SIGTERM);
        let deadline = Instant::now() + ENDS_WITHIN;
        while !self.running.has_ended() {
            assert!(Instant::now() < deadline, "it still runs {ENDS_WITHIN:?} after SIGTERM");
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut stdout = String::new();
        self.stdout.read_to_string(&mut stdout).unwrap();
        let Output { status, .. } = self.running.finish();
        let said = self.said.join().unwrap();
        assert!(status.success(), "{status}: {said}");
        assert!(!lab.has_program(), "the XDP program is still there");
        (stdout, said)
    }
}

/// A command with a line at a time on either side: what sits at a terminal.
pub(crate) struct Dialogue {
    running: Running,
    stdin: Option<std::process::ChildStdin>,
    lines: std::sync::mpsc::Receiver<String>,
}

impl Dialogue {
    pub(crate) fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut running = Running::start(command);
        let stdin = Some(running.take_stdin());
        let stdout = running.take_stdout();
        let (tell, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        Self { running, stdin, lines }
    }

    /// Says a line, and waits for the same line.
    #[track_caller]
    pub(crate) fn echo(&mut self, line: &str) {
        use std::io::Write;
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
        assert_eq!(self.lines.recv_timeout(ENDS_WITHIN).as_deref(), Ok(line));
    }

    /// Says nothing more, and waits for the end. Gives its exit code.
    pub(crate) fn end(mut self) -> Option<i32> {
        drop(self.stdin.take());
        self.wait()
    }

    /// Waits for the end that others bring.
    pub(crate) fn wait(mut self) -> Option<i32> {
        let deadline = Instant::now() + ENDS_WITHIN;
        while !self.running.has_ended() {
            assert!(Instant::now() < deadline, "it goes on");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.running.finish().status.code()
    }
}
