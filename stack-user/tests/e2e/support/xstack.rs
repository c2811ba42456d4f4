//! Running xstack on the lab's host, never for longer than said.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::lab::{Host, TestLab};

/// The binary that cargo built for these tests.
pub(crate) const XSTACK: &str = env!("CARGO_BIN_EXE_xstack");

/// Enough for whatever is small.
const ORDINARILY_WITHIN: Duration = Duration::from_secs(20);

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

impl TestLab {
    /// Runs `xstack` on the host.
    #[track_caller]
    pub(crate) fn xstack(&self, arguments: &[&str]) -> Outcome {
        run_for(self.on(Host::Host, XSTACK).args(arguments), ORDINARILY_WITHIN)
    }

    /// Runs `xstack curl --silent --show-error`.
    #[track_caller]
    pub(crate) fn curl(&self, arguments: &[&str]) -> Outcome {
        self.xstack(&[&["curl", "--silent", "--show-error"], arguments].concat())
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
