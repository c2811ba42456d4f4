//! The process that removes the control socket's file when the daemon can't. It waits for the end of a pipe that only the
//! daemon holds, for as long as that lives, and can do nothing else: it is whoever owns the file's directory, without any
//! capability, and behind a filter of system calls.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
};

use clap::ValueEnum;
use nix::{sys::prctl, unistd::geteuid};

use crate::{
    cli::{
        privileges::{Filter, Profile},
        socket_file::SocketFile,
    },
    device::unprivileged::drop_capabilities,
};

/// The first word of the guard's command line: not one that anybody would type.
const GUARD: &str = "--guard-control-socket";

/// What it says once it has given up all it can.
const READY: &[u8] = b"ready\n";

/// The guard as the daemon has it. Told to end by the end of its standard input, which only we hold.
#[derive(Debug)]
pub(super) struct Guard {
    child: Child,
    life: Option<ChildStdin>,
}

impl Guard {
    /// Starts it, and waits until it has given up what it was started with.
    pub(super) fn start(file: &SocketFile, filter: Filter) -> io::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        // Root without capabilities could remove it from root's directories only.
        let directory = file.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = fs::metadata(directory.unwrap_or(Path::new(".")))?;
        if geteuid().is_root() && directory.uid() != 0 {
            command.uid(directory.uid()).gid(directory.gid());
        }
        let mut child = command
            .arg(GUARD)
            .arg(&file.path)
            .args([file.device.to_string(), file.inode.to_string(), filter.to_string()])
            // Nothing of the environment is needed, least of all what names a service manager.
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Ctrl-C is for the daemon alone.
            .process_group(0)
            .spawn()?;
        let (life, says) = (child.stdin.take(), child.stdout.take());
        let guard = Self { child, life };
        let mut word = [0; READY.len()];
        match says.map(|mut says| says.read_exact(&mut word)) {
            Some(Ok(())) if word == READY => Ok(guard),
            _ => Err(io::Error::other(
                "it ended at once: does the kernel have seccomp? `--seccomp off` goes without",
            )),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.life.take());
        let _ = self.child.wait();
    }
}

/// Runs the guard if that is what this process was started for. It has no more to do than this, so that it is decided
/// before the command line is parsed.
pub fn ran_as_guard() -> bool {
    let mut words = std::env::args_os().skip(1);
    if words.next().is_none_or(|word| word != GUARD) {
        return false;
    }
    let path = words.next();
    let mut number = || words.next()?.to_str()?.parse().ok();
    if let (Some(path), Some(device), Some(inode)) = (path, number(), number()) {
        let filter = words.next().and_then(|word| Filter::from_str(word.to_str()?, false).ok());
        let file = SocketFile { path: path.into(), device, inode };
        if give_up(filter.unwrap_or_default()).is_ok() {
            let _ = io::stdout().write_all(READY);
            let _ = io::stdin().read_to_end(&mut Vec::new());
            let _ = file.remove();
        }
    }
    true
}

/// Leaves no more than the right to remove the file.
fn give_up(filter: Filter) -> Result<(), Box<dyn std::error::Error>> {
    drop_capabilities()?;
    prctl::set_no_new_privs()?;
    filter.install(Profile::Guard)?;
    Ok(())
}
