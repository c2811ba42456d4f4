//! An example program that serves, from the moment it listens.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::mpsc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use super::Running;

/// Claiming an address takes 300 ms; a machine that is busy with other things needs more.
const LISTENS_WITHIN: Duration = Duration::from_secs(20);
const STOPS_WITHIN: Duration = Duration::from_secs(10);

pub(crate) struct Server {
    running: Running,
    /// What it says on stderr.
    log: JoinHandle<String>,
}

impl Server {
    /// Starts it, and waits until it says that it is listening.
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut running = Running::start(command.stdout(Stdio::null()).stderr(Stdio::piped()));
        let stderr = running.take_stderr();
        let (tell, listens) = mpsc::channel();
        let log = std::thread::spawn(move || {
            let mut said = String::new();
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if line.starts_with("listening on") {
                    let _ = tell.send(());
                }
                said += &line;
                said.push('\n');
            }
            said
        });
        if listens.recv_timeout(LISTENS_WITHIN).is_err() {
            drop(running);
            panic!("{command:?} does not listen; it says: {}", log.join().unwrap());
        }
        Self { running, log }
    }

    /// Asks it to stop, and fails unless it does so in order. Gives what it said.
    #[track_caller]
    pub(crate) fn stop(mut self) -> String {
        self.running.signal(Signal::SIGTERM);
        let deadline = Instant::now() + STOPS_WITHIN;
        while !self.running.has_ended() {
            assert!(Instant::now() < deadline, "it still runs {STOPS_WITHIN:?} after SIGTERM");
            std::thread::sleep(Duration::from_millis(5));
        }
        let status = self.running.finish().status;
        let said = self.log.join().unwrap();
        assert!(status.success(), "{status}: {said}");
        said
    }
}
