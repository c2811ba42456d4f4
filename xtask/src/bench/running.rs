//! Processes of a run: pinned, with their output in files, and ended with all that they have started.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::case::Ready;
use super::stop::Stop;

/// How often one looks whether a process has got somewhere. More often would take time from what is measured on two cores.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How long a process may take to come up: probing for an address takes less than half a second of it.
const READY_WITHIN: Duration = Duration::from_secs(15);

/// How long a process may take to end once it was asked to.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// A process, and its group.
pub(super) struct Running {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    started: Instant,
    /// Its end, once that is known.
    status: Option<ExitStatus>,
}

/// Puts what bounds a process, and what pins it, in front of its words.
pub(super) fn bounded(limit: Duration, core: Option<usize>) -> Vec<String> {
    // Should we be killed, it ends by itself.
    let mut words =
        vec!["timeout".to_owned(), "--kill-after=2".to_owned(), limit.as_secs().max(1).to_string()];
    if let Some(core) = core {
        words.extend(["taskset".to_owned(), "--cpu-list".to_owned(), core.to_string()]);
    }
    words
}

impl Running {
    /// Starts a command. Its output goes into files of the directory, called after `name`; standard output, if somebody waits for
    /// its first byte, into a pipe.
    pub(super) fn start(mut command: Command, name: &str, directory: &Path, has_pipe: bool) -> Result<Self> {
        let file = |what| directory.join(format!("{name}.{what}"));
        let create =
            |path: &Path| File::create(path).with_context(|| format!("cannot write {}", path.display()));
        let (stdout, stderr) = (file("stdout"), file("stderr"));
        let output = create(&stdout)?;
        command.stdin(Stdio::null()).stderr(create(&stderr)?);
        command.stdout(if has_pipe { Stdio::piped() } else { output.into() });
        // A group of its own: Ctrl-C at the terminal is for us, who end it in order.
        command.process_group(0);
        let started = Instant::now();
        let child = command
            .spawn()
            .with_context(|| format!("cannot start `{}`", crate::process::describe(&command)))?;
        Ok(Self { name: name.to_owned(), child, stdout, stderr, started, status: None })
    }

    /// Waits until it is ready.
    pub(super) fn wait_until(&mut self, ready: Ready, limit: Duration, stop: &Stop) -> Result<()> {
        match ready {
            Ready::AtOnce => Ok(()),
            Ready::Ended => self.wait(limit, stop).map(|_| ()),
            Ready::Listens(port) => {
                // A socket of IPv6 takes connections of IPv4 as well, and iperf3 has one.
                let tables = ["tcp", "tcp6"].map(|table| format!("/proc/{}/net/{table}", self.child.id()));
                let is_there = || {
                    tables.iter().any(|table| listens(&fs::read_to_string(table).unwrap_or_default(), port))
                };
                self.wait_for(&format!("listens at port {port}"), is_there, stop)
            }
            Ready::Says(words) => {
                let files = [self.stdout.clone(), self.stderr.clone()];
                let is_there = || {
                    files.iter().any(|file| fs::read_to_string(file).is_ok_and(|said| said.contains(words)))
                };
                self.wait_for(&format!("says {words:?}"), is_there, stop)
            }
        }
    }

    fn wait_for(&mut self, what: &str, is_so: impl Fn() -> bool, stop: &Stop) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        while !is_so() {
            stop.check()?;
            if let Some(status) = self.ended()? {
                bail!("{} ended ({status}) before it {what}: {}", self.name, self.said());
            }
            if Instant::now() > deadline {
                bail!("{} has not come so far that it {what}: {}", self.name, self.said());
            }
            sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Waits for its end, which must be a good one, and says what it printed.
    pub(super) fn wait(&mut self, limit: Duration, stop: &Stop) -> Result<String> {
        let deadline = Instant::now() + limit;
        let status = loop {
            stop.check()?;
            if let Some(status) = self.ended()? {
                break status;
            }
            if Instant::now() > deadline {
                bail!("{} has not ended after {} s: {}", self.name, limit.as_secs(), self.said());
            }
            sleep(LOOK_EVERY);
        };
        if !status.success() {
            bail!("{} failed ({status}): {}", self.name, self.said());
        }
        fs::read_to_string(&self.stdout).with_context(|| format!("cannot read what {} printed", self.name))
    }

    /// The time from its start to its first byte.
    pub(super) fn first_byte(&mut self, stop: &Stop) -> Result<Duration> {
        /// How often one looks whether to give up. The byte itself is not waited for longer than it takes to come.
        const LOOK_UP_EVERY_MS: u8 = 100;
        let mut stdout: ChildStdout = self.child.stdout.take().context("its output is no pipe")?;
        loop {
            stop.check()?;
            match poll(&mut [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)], LOOK_UP_EVERY_MS) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => break,
                Err(error) => return Err(error).context("cannot wait for what it prints"),
            }
        }
        let took = self.started.elapsed();
        if stdout.read(&mut [0]).context("cannot read what it prints")? == 0 {
            self.end();
            bail!("{} printed nothing: {}", self.name, self.said());
        }
        // It may still have something to say, and would fail if nobody read it.
        std::io::copy(&mut stdout, &mut std::io::sink()).context("cannot read what it prints")?;
        Ok(took)
    }

    /// Ends it, and whoever it has started.
    pub(super) fn end(&mut self) {
        self.signal(Signal::SIGTERM);
        let deadline = Instant::now() + ENDS_WITHIN;
        while Instant::now() < deadline && !matches!(self.ended(), Ok(Some(_)) | Err(_)) {
            sleep(LOOK_EVERY);
        }
        self.signal(Signal::SIGKILL);
        let _ = self.child.wait();
    }

    fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait().with_context(|| format!("cannot wait for {}", self.name))?;
        }
        Ok(self.status)
    }

    fn signal(&self, signal: Signal) {
        if let Ok(group) = i32::try_from(self.child.id()) {
            // The whole group may be gone.
            let _ = killpg(Pid::from_raw(group), signal);
        }
    }

    /// The end of what it printed, for an error.
    fn said(&self) -> String {
        /// What a person reads of a failure.
        const MOST: usize = 600;
        let said = [&self.stderr, &self.stdout].map(|file| fs::read_to_string(file).unwrap_or_default());
        let said =
            said.iter().map(|text| text.trim()).find(|text| !text.is_empty()).unwrap_or("it said nothing");
        let skipped = said.chars().count().saturating_sub(MOST);
        said.chars().skip(skipped).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether a table of TCP sockets, as /proc has it, has a listening one at that port.
fn listens(table: &str, port: u16) -> bool {
    const LISTEN: &str = "0A";
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next().and_then(|address| address.rsplit_once(':')).map(|(_, port)| port);
        local == Some(&format!("{port:04X}")) && fields.nth(1) == Some(LISTEN)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn shell(script: &str, directory: &Path) -> Running {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Running::start(command, "shell", directory, false).unwrap()
    }

    #[test]
    fn whoever_a_process_has_started_ends_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut running = shell("sleep 60 & echo $!; wait", directory.path());
        running.wait_until(Ready::Says("\n"), LIMIT, &Stop::never()).unwrap();
        let grandchild = fs::read_to_string(&running.stdout).unwrap().trim().to_owned();
        let stat = || fs::read_to_string(format!("/proc/{grandchild}/stat")).unwrap_or_default();
        let becomes = |what: &str, is_so: &dyn Fn(&str) -> bool| {
            let deadline = Instant::now() + LIMIT;
            while !is_so(&stat()) {
                assert!(Instant::now() < deadline, "it does not {what}: {}", stat());
                sleep(LOOK_EVERY);
            }
        };
        becomes("run", &|stat| stat.contains("(sleep)"));
        drop(running);
        // Who reaps it may take a moment.
        becomes("end", &|stat| !stat.contains("(sleep)") || stat.contains(") Z"));
    }

    #[test]
    fn one_that_does_not_hear_is_killed() {
        let directory = tempfile::tempdir().unwrap();
        let mut running = shell("trap '' TERM; echo up; while :; do sleep 1; done", directory.path());
        running.wait_until(Ready::Says("up"), LIMIT, &Stop::never()).unwrap();
        let started = Instant::now();
        drop(running);
        assert!(started.elapsed() < ENDS_WITHIN + Duration::from_secs(3));
    }

    #[test]
    fn a_failure_is_told_with_what_was_said() {
        let directory = tempfile::tempdir().unwrap();
        let error =
            shell("echo oh dear >&2; exit 3", directory.path()).wait(LIMIT, &Stop::never()).unwrap_err();
        assert!(error.to_string().contains("oh dear"), "{error}");
        let mut running = shell("exit 0", directory.path());
        let error = running.wait_until(Ready::Says("never"), LIMIT, &Stop::never()).unwrap_err();
        assert!(error.to_string().contains("ended"), "{error}");
        let error = shell("sleep 60", directory.path()).wait(Duration::ZERO, &Stop::never()).unwrap_err();
        assert!(error.to_string().contains("has not ended"), "{error}");
    }

    #[test]
    fn the_first_byte_is_waited_for_and_not_the_last() {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 0.05; printf a; sleep 0.3; printf b"]);
        let mut running = Running::start(command, "shell", directory.path(), true).unwrap();
        let took = running.first_byte(&Stop::never()).unwrap();
        assert!(took >= Duration::from_millis(50) && took < running.started.elapsed(), "{took:?}");
        assert!(running.started.elapsed() >= Duration::from_millis(340));
        let mut command = Command::new("true");
        command.env_clear();
        let error = Running::start(command, "true", directory.path(), true)
            .unwrap()
            .first_byte(&Stop::never())
            .unwrap_err();
        assert!(error.to_string().contains("printed nothing"), "{error}");
    }

    #[test]
    fn listening_sockets_are_told_from_others() {
        let table = "  sl  local_address rem_address   st\n   0: 0100007F:1451 00000000:0000 0A 0\n   1: 00000000:0050 00000000:0000 01 0\n";
        assert!(listens(table, 5201));
        assert!(!listens(table, 80), "that one is connected");
        assert!(!listens(table, 81));
    }

    #[test]
    fn a_process_is_bounded_and_pinned_by_what_is_in_front_of_it() {
        assert_eq!(bounded(LIMIT, Some(1)).join(" "), "timeout --kill-after=2 20 taskset --cpu-list 1");
        assert_eq!(bounded(LIMIT, None).join(" "), "timeout --kill-after=2 20");
    }
}
