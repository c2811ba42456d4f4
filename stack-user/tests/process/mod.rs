//! Programs that tests run: never for longer than said, and never left behind. For tests of more than one kind.

// None of them needs all.
#![allow(dead_code)]

use std::io::Read;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const ENDS_WITHIN: Duration = Duration::from_secs(3);

/// A child process that is ended when this is dropped.
pub(crate) struct Running {
    child: Option<Child>,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self { child: Some(command.spawn().unwrap()) }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().unwrap();
        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_some()
    }

    /// Where it reads, if that was piped.
    pub(crate) fn take_stdin(&mut self) -> ChildStdin {
        self.child.as_mut().unwrap().stdin.take().unwrap()
    }

    /// What it says on stdout, if that was piped.
    pub(crate) fn take_stdout(&mut self) -> ChildStdout {
        self.child.as_mut().unwrap().stdout.take().unwrap()
    }

    /// What it says on stderr, if that was piped.
    pub(crate) fn take_stderr(&mut self) -> ChildStderr {
        self.child.as_mut().unwrap().stderr.take().unwrap()
    }

    /// Waits for its end, and gives what it printed if that was piped.
    pub(crate) fn finish(mut self) -> Output {
        self.child.take().unwrap().wait_with_output().unwrap()
    }

    fn end(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        // Politely first: nginx's master takes its workers along only then.
        let _ = kill(pid, Signal::SIGTERM);
        let deadline = Instant::now() + ENDS_WITHIN;
        while Instant::now() < deadline {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            sleep(Duration::from_millis(5));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Outcome {
    /// Fails the test unless the exit code is this one.
    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "after {:?}, stderr: {}", self.took, self.stderr);
        self
    }

    /// What was printed, after success.
    #[track_caller]
    pub(crate) fn body(self) -> Vec<u8> {
        self.expect_code(0).stdout
    }
}

/// Runs a command to its end; one that takes longer than `limit` is killed and fails the test.
#[track_caller]
pub(crate) fn run_for(command: &mut Command, limit: Duration) -> Outcome {
    let started = Instant::now();
    let mut child = Guard(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let stdout = read_all(child.0.stdout.take().unwrap());
    let stderr = read_all(child.0.stderr.take().unwrap());
    let status = loop {
        if let Some(status) = child.0.try_wait().unwrap() {
            break status;
        }
        if started.elapsed() > limit {
            drop(child);
            let said = String::from_utf8_lossy(&stderr.join().unwrap()).into_owned();
            panic!("{command:?} still ran after {limit:?}; stderr: {said}");
        }
        thread::sleep(Duration::from_millis(2));
    };
    let took = started.elapsed();
    Outcome {
        code: status.code(),
        stdout: stdout.join().unwrap(),
        stderr: String::from_utf8_lossy(&stderr.join().unwrap()).into_owned(),
        took,
    }
}

/// Kills the child if a test unwinds while it runs.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read_all(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// Fails on the first byte that differs, and says which: printing megabytes helps nobody.
#[track_caller]
pub(crate) fn assert_same_bytes(got: &[u8], expected: &[u8], what: &str) {
    let differs = got.iter().zip(expected).position(|(a, b)| a != b);
    assert!(differs.is_none(), "{what}: byte {} differs", differs.unwrap_or_default());
    assert_eq!(got.len(), expected.len(), "{what}: length");
}
