//! One guest, from power on to power off: its words are read as they come, and if there are none, it is ended.

use std::{
    fs,
    io::{self, Read, Write},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::report::{Reader, Scenario, Verdict};
use crate::{
    process::{capture, describe},
    progress::Step,
};

/// A guest that says nothing for so long hangs. Five seconds is what it takes to start, and the longest scenario takes a
/// minute where there is nothing else to do; lower, and a machine that is busy with other things would be called a hang; higher,
/// and somebody waits for nothing.
const SILENT_AT_MOST: Duration = Duration::from_secs(600);

/// What init says when it is there, and at the end.
const IS_UP: &str = "vm: up ";
const HAS_ENDED: &str = "vm: ended ";

/// What the kernel says when it has broken down, or has found itself wrong.
const KERNELS_COMPLAINTS: [&str; 7] =
    ["Kernel panic", "BUG: ", "Oops", "WARNING: CPU", "WARNING: at", "general protection fault", "rcu: INFO"];

/// What a guest left.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) scenarios: Vec<Scenario>,
    pub(super) broke: Option<String>,
}

/// Signals that end us, noticed in time to end the guest first.
pub(super) struct Stopped(Arc<AtomicBool>);

impl Stopped {
    pub(super) fn watch() -> Result<Self> {
        let stopped = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&stopped)).context("cannot watch for signals")?;
        }
        Ok(Self(stopped))
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// For `sh -c`: runs the command that follows, and kills it when standard input ends. That is when we close it, and also when we
/// are gone. A signal would do for neither: what sudo runs belongs to root, who takes none of ours.
pub(super) const ON_A_LIFELINE: &str = r#"exec 3<&0
"$@" </dev/null 3<&- & command=$!
{ read -r _ <&3; kill -KILL "$command"; } >/dev/null & watch=$!
wait "$command"; code=$?
kill "$watch"
exit "$code""#;

/// How long it takes until a command whose lifeline was cut is gone: moments. Lower, and a busy machine is not given them; higher,
/// and a shell that somebody stopped is waited for.
const CUT_WITHIN: Duration = Duration::from_secs(10);

/// A command [on a lifeline](ON_A_LIFELINE). Ended with its value, however that goes.
struct Running(Child);

impl Running {
    /// Ends it, if it does not end by itself within a moment.
    fn end(&mut self, grace: Duration) -> io::Result<ExitStatus> {
        if let Some(status) = self.wait(grace)? {
            return Ok(status);
        }
        drop(self.0.stdin.take());
        if let Some(status) = self.wait(CUT_WITHIN)? {
            return Ok(status);
        }
        self.0.kill()?;
        self.0.wait()
    }

    fn wait(&mut self, at_most: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + at_most;
        loop {
            match self.0.try_wait()? {
                None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
                status => return Ok(status),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.end(Duration::ZERO);
    }
}

/// Runs QEMU, and reads what the scenarios report on its standard output. Their files are unpacked into `results`.
pub(super) fn run(mut command: Command, files: &Path, progress: &Step, stopped: &Stopped) -> Result<Ended> {
    let log = fs::File::create(files.join("qemu.log"))?;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
    fs::write(files.join("command"), format!("{}\n", describe(&command)))?;
    let child = command.spawn().with_context(|| format!("cannot start `{}`", describe(&command)))?;
    let mut qemu = Running(child);
    let output = qemu.0.stdout.take().context("QEMU has no standard output")?;

    // As they come, for whoever wants to watch.
    let mut words = Words::new(fs::File::create(files.join("scenarios.log"))?);
    let mut broke = follow(output, &mut words, SILENT_AT_MOST, progress, stopped);
    let status = qemu.end(if broke.is_some() { Duration::ZERO } else { Duration::from_secs(30) })?;
    if broke.is_none() && words.code.is_none() {
        broke = Some(format!("it ended before the scenarios did (QEMU: {status})"));
    }
    let Words { mut reader, .. } = words;
    reader.end(Verdict::Failed, Instant::now());
    unpack_results(files);
    // With its reason, if the kernel gives one: that a guest is gone says little.
    let complaint = complaint(files);
    let broke = match (broke, complaint) {
        (Some(broke), Some(complaint)) => Some(format!("{broke}; its kernel says: {complaint}")),
        (None, Some(complaint)) => Some(format!("its kernel says: {complaint}")),
        (broke, None) => broke,
    };
    let broke = broke.or_else(|| {
        let harness = words.code.filter(|code| *code != 0 && !reader.is_complete);
        harness.map(|code| format!("the scenarios ended with {code} before the last one"))
    });
    Ok(Ended { scenarios: reader.scenarios, broke })
}

/// What comes over the serial line.
struct Words<W> {
    log: W,
    /// The line under way.
    line: Vec<u8>,
    reader: Reader,
    is_up: bool,
    /// The exit code of the scenarios.
    code: Option<i32>,
}

impl<W: Write> Words<W> {
    fn new(log: W) -> Self {
        Self { log, line: Vec::new(), reader: Reader::default(), is_up: false, code: None }
    }

    fn take(&mut self, bytes: &[u8]) {
        // A full disk does not keep the scenarios from being counted.
        let _ = self.log.write_all(bytes);
        let now = Instant::now();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            let is_whole = piece.ends_with(b"\n");
            let line = String::from_utf8_lossy(&self.line);
            let line = line.trim_end_matches(['\r', '\n']);
            self.is_up |= line.starts_with(IS_UP);
            if is_whole {
                self.code = self.code.or(line.strip_prefix(HAS_ENDED).and_then(|code| code.parse().ok()));
            }
            self.reader.line(line, is_whole, now);
            if is_whole {
                self.line.clear();
            }
        }
    }
}

/// Reads until the scenarios have ended. What is wrong otherwise is returned.
fn follow(
    mut output: impl Read + Send + 'static,
    words: &mut Words<impl Write>,
    silent_at_most: Duration,
    progress: &Step,
    stopped: &Stopped,
) -> Option<String> {
    let (send, receive) = mpsc::channel();
    // It ends with QEMU, whose output then does.
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length) = output.read(&mut buffer) {
            if length == 0 || send.send(buffer[..length].to_vec()).is_err() {
                break;
            }
        }
    });
    progress.detail("starting");
    let mut heard = Instant::now();
    while words.code.is_none() {
        match receive.recv_timeout(Duration::from_millis(200)) {
            Ok(bytes) => {
                heard = Instant::now();
                words.take(&bytes);
            }
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Some(current) = words.reader.current() {
            progress.detail(current);
        }
        if stopped.is_set() {
            return Some("stopped by a signal".into());
        }
        if heard.elapsed() > silent_at_most {
            let during = match words.reader.current() {
                Some(scenario) => format!("during {scenario}"),
                None if words.is_up => "between scenarios".into(),
                None => "before it was up".into(),
            };
            return Some(format!("it hangs: no word for {silent_at_most:?}, {during}"));
        }
    }
    None
}

/// The files of `/results`. A guest that broke down has handed none over.
fn unpack_results(files: &Path) {
    let results = files.join("results");
    let unpacked = fs::create_dir_all(&results).map_err(Into::into).and_then(|()| {
        let mut tar = Command::new("tar");
        tar.arg("-xf").arg(files.join("disk")).arg("-C").arg(&results).arg("--no-same-owner");
        capture(&mut tar)
    });
    if unpacked.is_err() {
        let _ = fs::remove_dir(&results);
    }
    let _ = fs::remove_file(files.join("disk"));
}

/// The first line in which the kernel complains, on its console or in its log.
fn complaint(files: &Path) -> Option<String> {
    let logs =
        ["console.log", "results/dmesg.txt"].map(|name| fs::read(files.join(name)).unwrap_or_default());
    logs.iter().find_map(|log| first_complaint(&String::from_utf8_lossy(log)))
}

fn first_complaint(log: &str) -> Option<String> {
    let complains = |line: &&str| KERNELS_COMPLAINTS.iter().any(|complaint| line.contains(complaint));
    log.lines().find(complains).map(|line| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};

    use super::*;

    fn followed(script: &str) -> (Option<String>, Words<io::Sink>) {
        let mut shell = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut words = Words::new(io::sink());
        let stopped = Stopped(Arc::default());
        let step = Step::start("test");
        let broke = follow(shell.stdout.take().unwrap(), &mut words, SILENT_AT_MOST, &step, &stopped);
        let _ = shell.wait();
        (broke, words)
    }

    #[test]
    fn a_guest_is_followed_to_its_end() {
        let (broke, words) = followed(
            "printf 'vm: up 7.3\\r\\ntest a ... '; sleep 0.1; printf 'ok\\r\\nvm: ended 0\\n'; sleep 9 & exit",
        );
        assert_eq!((broke, words.code, words.is_up), (None, Some(0), true));
        assert_eq!(words.reader.scenarios[0].verdict, Verdict::Passed);
        assert!(words.reader.scenarios[0].seconds > 0.05);
    }

    #[test]
    fn a_guest_that_is_gone_leaves_its_scenario_unfinished() {
        let (broke, words) = followed("printf 'vm: up 7.3\\ntest a ... '");
        assert_eq!((broke, words.code), (None, None));
        assert_eq!(words.reader.current(), Some("a"));
    }

    /// A shell on a lifeline, and the process that it runs, which is another one.
    fn on_a_lifeline(script: &str) -> (Running, i32) {
        let mut command = Command::new("sh");
        command.args(["-c", ON_A_LIFELINE, "sh", "sh", "-c", &format!("echo $$; {script}")]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut running = Running(child.unwrap());
        let mut line = String::new();
        BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (running, line.trim().parse().unwrap())
    }

    fn is_alive(pid: i32) -> bool {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None).is_ok()
    }

    #[test]
    fn a_guest_ends_with_us_without_a_signal_of_ours() {
        let (mut running, guest) = on_a_lifeline("exec sleep 60");
        assert!(is_alive(guest) && guest != running.0.id() as i32);
        assert!(!running.end(Duration::ZERO).unwrap().success());
        assert!(!is_alive(guest), "the shell has waited for it");
    }

    #[test]
    fn a_guest_that_ends_by_itself_has_an_exit_code() {
        let (mut running, _) = on_a_lifeline("exit 7");
        assert_eq!(running.end(Duration::from_secs(60)).unwrap().code(), Some(7));
    }

    #[test]
    fn a_signal_ends_a_guest() {
        let mut words = Words::new(io::sink());
        let stopped = Stopped(Arc::new(AtomicBool::new(true)));
        let (silent, _open) = io::pipe().unwrap();
        let broke = follow(silent, &mut words, SILENT_AT_MOST, &Step::start("test"), &stopped);
        assert_eq!(broke.as_deref(), Some("stopped by a signal"));
    }

    #[test]
    fn a_guest_that_says_nothing_hangs_and_it_is_told_where() {
        let hang = |said: &[u8]| {
            let mut words = Words::new(io::sink());
            words.take(said);
            let (silent, _open) = io::pipe().unwrap();
            let stopped = Stopped(Arc::default());
            follow(silent, &mut words, Duration::ZERO, &Step::start("test"), &stopped).unwrap()
        };
        assert!(hang(b"").ends_with("before it was up"));
        assert!(hang(b"vm: up 7.3\ntest a ... ok\n").ends_with("between scenarios"));
        assert!(hang(b"vm: up 7.3\ntest a::b ... ").ends_with("during a::b"));
    }

    #[test]
    fn what_the_kernel_complains_of_is_found() {
        let log =
            "[ 1.0] virtio_net: up\r\n[ 2.0] BUG: kernel NULL pointer dereference\r\n[ 2.0] Oops: 0000\r\n";
        assert_eq!(first_complaint(log).as_deref(), Some("[ 2.0] BUG: kernel NULL pointer dereference"));
        assert_eq!(first_complaint("[ 1.0] all is well\n"), None);
    }
}
