//! The process that takes our program out of libxdp's dispatcher when we can't: we have given up the privileges that it takes,
//! or have been killed.
//!
//! It keeps them, and so it listens to nobody: what it will do is on its command line, and it waits for the end of a pipe that
//! only we hold.

use std::{
    io::{self, Read as _, Write as _},
    os::unix::process::CommandExt as _,
    process::{ChildStdin, ChildStdout, Command, Stdio},
};

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::{
    prctl,
    signal::{SigSet, Signal},
};

use crate::device::xdp::program::{Guard, Membership};

/// The first word of its command line: not one that anybody would type.
const GUARD: &str = "--guard-dispatcher";

/// What it says once it has given up all but what it needs.
const READY: &[u8] = b"ready\n";

/// What it says when it has done its work.
const LEFT: &[u8] = b"left\n";

/// What leaving takes: a new dispatcher is made for those who stay.
const NEEDED: [Capability; 4] =
    [Capability::CAP_SYS_ADMIN, Capability::CAP_NET_ADMIN, Capability::CAP_BPF, Capability::CAP_PERFMON];

/// The guard as we have it.
struct Process {
    /// Told to begin by the end of its standard input.
    life: Option<ChildStdin>,
    says: ChildStdout,
}

/// Starts it, and waits until it is ready.
///
/// # Errors
/// When there can be no other process.
pub fn start(membership: &Membership) -> io::Result<Guard> {
    let (interface, program) = membership.place();
    let mut child = Command::new("/proc/self/exe")
        .arg(GUARD)
        .args([interface.to_string(), program.to_string()])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // Ctrl-C is for us alone.
        .process_group(0)
        .spawn()?;
    let (life, says) = (child.stdin.take(), child.stdout.take());
    let mut says = says.ok_or(io::ErrorKind::BrokenPipe)?;
    let mut word = [0; READY.len()];
    says.read_exact(&mut word)?;
    Ok(Box::new(Process { life, says }))
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.life.take());
        // Waiting for a child is a system call that few commands may do. The end of what it says is as good.
        let mut says = Vec::new();
        if self.says.read_to_end(&mut says).is_err() || says != LEFT {
            tracing::warn!(
                "the program may still be in the dispatcher, where it passes every frame on: the next xstack on this interface \
                 takes it out"
            );
        }
    }
}

/// Runs the guard if that is what this process was started for. It has no more to do than this, so that it is decided before
/// the command line is parsed.
pub fn ran_as_guard() -> bool {
    let mut words = std::env::args_os().skip(1);
    if words.next().is_none_or(|word| word != GUARD) {
        return false;
    }
    let mut number = || words.next()?.to_str()?.parse().ok();
    if let (Some(interface), Some(program)) = (number(), number())
        && keep_needed().is_ok()
    {
        let _ = io::stdout().write_all(READY);
        let _ = io::stdin().read_to_end(&mut Vec::new());
        match Membership::leave(interface, program) {
            Ok(()) => {
                let _ = io::stdout().write_all(LEFT);
            }
            Err(error) => eprintln!("xstack: could not leave the dispatcher: {error}"),
        }
    }
    true
}

/// Leaves no more than what leaving takes. The user stays: files in the BPF file system are root's.
fn keep_needed() -> Result<(), Box<dyn std::error::Error>> {
    // A service manager tells all processes of a service to end, and ours ends only after what it guards.
    let mut ends = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGPIPE] {
        ends.add(signal);
    }
    ends.thread_block()?;
    let permitted = caps::read(None, CapSet::Permitted)?;
    let needed: CapsHashSet = NEEDED.into_iter().filter(|needed| permitted.contains(needed)).collect();
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &needed)?;
    caps::set(None, CapSet::Permitted, &needed)?;
    prctl::set_no_new_privs()?;
    Ok(())
}
