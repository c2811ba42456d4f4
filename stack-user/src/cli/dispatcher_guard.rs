//! The process that takes our program out of libxdp's dispatcher when we can't: we have given up the privileges that it takes,
//! or have been killed.
//!
//! It is started where there is a dispatcher to join, before anything is given up: what we renounce at the very beginning, no
//! process that we start later can have. It keeps the four capabilities that leaving takes, and listens only until we give up
//! ours: to numbers of an interface and a program. Then it waits for the end of a pipe that only we hold.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::process::CommandExt as _,
    process::{ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use caps::{CapSet, Capability, CapsHashSet};
use nix::{
    sys::{
        prctl,
        signal::{SigSet, Signal},
    },
    unistd::geteuid,
};

use crate::device::xdp::program::{Guard, Membership};

/// The first word of its command line: not one that anybody would type.
const GUARD: &str = "--guard-dispatcher";

/// Where libxdp keeps dispatchers, and how their names begin.
const DISPATCHERS: (&str, &str) = ("/sys/fs/bpf/xdp", "dispatch-");

/// What it says once it has given up all but what it needs, and when it has done its work.
const READY: &[u8] = b"ready\n";
const LEFT: &[u8] = b"left\n";

/// After this line it listens no more.
const ENOUGH: &[u8] = b"\n";

/// Programs that it leaves for: one for each interface that a daemon has. More than any host has cards, and few enough to be
/// kept by a process that trusts nobody.
const MEMBERSHIPS_MAX: usize = 64;

/// What leaving takes: a new dispatcher is made for those who stay.
const NEEDED: [Capability; 4] =
    [Capability::CAP_SYS_ADMIN, Capability::CAP_NET_ADMIN, Capability::CAP_BPF, Capability::CAP_PERFMON];

/// The guard as we have it.
struct Process {
    /// By which it is told, and whose end it waits for.
    tells: Mutex<Option<ChildStdin>>,
    says: ChildStdout,
}

/// The guard that stands by, until it is known whether it is needed.
static STANDBY: Mutex<Option<Arc<Process>>> = Mutex::new(None);

fn standby() -> std::sync::MutexGuard<'static, Option<Arc<Process>>> {
    STANDBY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts one if it may be needed: if we are root with what it takes to join, and some interface has a dispatcher.
///
/// # Errors
/// When there can be no other process.
pub fn stand_by() -> io::Result<()> {
    let (directory, prefix) = DISPATCHERS;
    let mut entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let is_one =
        |entry: fs::DirEntry| entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix));
    let may = |needed| caps::has_cap(None, CapSet::Effective, needed).unwrap_or(false);
    if !geteuid().is_root() || !NEEDED.into_iter().all(may) || !entries.any(is_one) {
        return Ok(());
    }
    let mut child = Command::new("/proc/self/exe")
        .arg(GUARD)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // Ctrl-C is for us alone.
        .process_group(0)
        .spawn()?;
    let tells = Mutex::new(child.stdin.take());
    let mut says = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    says.read_exact(&mut [0; READY.len()])?;
    *standby() = Some(Arc::new(Process { tells, says }));
    Ok(())
}

/// Has it leave for this program, too.
///
/// # Errors
/// When none stands by: the dispatcher was not there when we started.
pub fn start(membership: &Membership) -> io::Result<Guard> {
    let guard = standby()
        .clone()
        .ok_or_else(|| io::Error::other("the dispatcher has come while we were starting, so start again"))?;
    let (interface, program) = membership.place();
    guard.tell(format!("{interface} {program}\n").as_bytes())?;
    Ok(Box::new(guard))
}

/// It need listen no more: nothing that we do from now on changes what it will do. If it has nothing to do, it ends.
pub fn enough() {
    if let Some(guard) = standby().take() {
        // If it is gone, the next start leaves for us.
        let _ = guard.tell(ENOUGH);
    }
}

impl Process {
    fn tell(&self, line: &[u8]) -> io::Result<()> {
        let mut tells = self.tells.lock().unwrap_or_else(PoisonError::into_inner);
        tells.as_mut().ok_or(io::ErrorKind::BrokenPipe)?.write_all(line)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.tells.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        // Waiting for a child is a system call that few commands may do. The end of what it says is as good.
        let mut said = Vec::new();
        if self.says.read_to_end(&mut said).is_err() || said != LEFT {
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
    if std::env::args_os().nth(1).is_none_or(|word| word != GUARD) {
        return false;
    }
    if let Err(error) = keep_needed() {
        // Who has started us waits for a word, and ends without.
        eprintln!("xstack: the process that leaves the dispatcher can't do it: {error}");
        return true;
    }
    let _ = io::stdout().write_all(READY);
    let memberships = listen(BufReader::new(io::stdin()));
    let mut has_left = true;
    for (interface, program) in memberships {
        if let Err(error) = Membership::leave(interface, program) {
            eprintln!("xstack: could not leave the dispatcher: {error}");
            has_left = false;
        }
    }
    if has_left {
        let _ = io::stdout().write_all(LEFT);
    }
    true
}

/// What it is told until there is an empty line; returns when whoever tells has ended.
fn listen(mut from: impl io::BufRead) -> Vec<(u32, u32)> {
    let mut memberships = Vec::new();
    let mut line = String::new();
    while memberships.len() < MEMBERSHIPS_MAX {
        line.clear();
        // Two numbers, a space and an end.
        let read = from.by_ref().take(22).read_line(&mut line);
        let numbers = line.trim_end().split_once(' ');
        let numbers = numbers.and_then(|(one, other)| Some((one.parse().ok()?, other.parse().ok()?)));
        match (read, numbers) {
            (Ok(1..), Some(membership)) => memberships.push(membership),
            _ => break,
        }
    }
    let _ = io::copy(&mut from, &mut io::sink());
    memberships
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
    let missing: Vec<_> =
        NEEDED.iter().filter(|needed| !permitted.contains(needed)).map(ToString::to_string).collect();
    if !missing.is_empty() {
        return Err(format!("it lacks {}", missing.join(" and ")).into());
    }
    let needed: CapsHashSet = NEEDED.into_iter().collect();
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        caps::clear(None, CapSet::Bounding)?;
    }
    caps::set(None, CapSet::Effective, &needed)?;
    caps::set(None, CapSet::Permitted, &needed)?;
    prctl::set_no_new_privs()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_listens_until_it_has_heard_enough() {
        assert_eq!(listen(&b""[..]), []);
        assert_eq!(listen(&b"3 4711\n7 4712\n\n9 9\n"[..]), [(3, 4711), (7, 4712)]);
        assert_eq!(listen(&b"4294967295 4294967295\n"[..]), [(u32::MAX, u32::MAX)]);
        // What makes no sense ends it as well, and costs it nothing.
        for nonsense in ["x y\n3 4\n", "3\n3 4\n", "-1 4\n3 4\n", "3 4 5\n3 4\n", &"1".repeat(1 << 20)] {
            assert_eq!(listen(nonsense.as_bytes()), [], "{nonsense:.20}");
        }
        let many = "1 2\n".repeat(1000);
        assert_eq!(listen(many.as_bytes()).len(), MEMBERSHIPS_MAX);
    }
}
