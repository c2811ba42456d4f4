//! A process that undoes what was changed on the host, however ours ends.
//!
//! Most of what we need of a host is a descriptor or a mapping, which the kernel takes back. A setting is not. So before
//! one is changed, a process is forked that waits for ours to end and then writes what was there before. It can do
//! no more than that: of the capabilities it keeps CAP_NET_ADMIN, without which the kernel would not let it, and a filter
//! of seccomp lets it read and write on the descriptors that it has, and exit. These are the end of a socket
//! pair, by which it learns of our end, and what it writes to.
//!
//! By then somebody else may have set something else. So each setting is looked at first, and one that is not as we made it is
//! left alone. Who sets one between that look and the write loses it: the kernel has no call that does both.
//!
//! The process is forked and not started as a program, because a library has none. What it does after the fork is
//! system calls only, so that it does not matter what locks other threads of ours had at that moment. It is a child of
//! nobody's: a program that uses this library never sees it among its own. Its memory is that of the program at the fork, shared
//! until one of the two writes to it.

use std::{
    fs,
    io::{self, Read as _},
    net::Shutdown,
    ops::Range,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    ptr,
    time::Duration,
};

/// What the process is called in lists of processes: not as ours, so that whoever kills that by name spares this one.
const NAME: &[u8] = b"xs-restore\0";

/// How long to wait for a process that has given up all it can, or has restored.
///
/// Lower, and a machine under load is taken for one where it failed; higher, and an end of ours may take as long.
const PATIENCE: Duration = Duration::from_secs(2);

/// `_LINUX_CAPABILITY_VERSION_3`, for sets of two words.
const CAPABILITY_VERSION: u32 = 0x2008_0522;
/// The bit of CAP_NET_ADMIN.
const CAP_NET_ADMIN: u32 = 1 << 12;

/// Room for what a setting is now: a number in `/sys`, or a NAPI's some twelve attributes.
const ANSWER: usize = 4096;
/// `struct nlmsghdr` and `struct genlmsghdr`, before the attributes.
const NETLINK_HEADERS: usize = 20;

/// What undoes a change: bytes to write, and where to.
#[derive(Debug)]
pub struct Undo {
    /// A file that nobody has read from yet, or a socket of generic netlink. It is read from and written to.
    pub to: OwnedFd,
    /// What the change made of it. If it is anything else by then, somebody has changed it since, and it is left alone.
    pub ours: Setting,
    /// Are written in one piece.
    pub bytes: Vec<u8>,
}

/// What a setting is.
#[derive(Debug)]
pub enum Setting {
    /// All that the file has, but for white space at its end.
    Text(Vec<u8>),
    /// A number that generic netlink tells.
    Attribute {
        /// Asks for it.
        question: Vec<u8>,
        /// Which attribute of the answer it is.
        kind: u16,
        /// It.
        value: u64,
    },
}

/// The process, as long as there is something to restore. Dropping it restores.
#[derive(Debug)]
pub struct Restorer {
    life: UnixStream,
}

impl Restorer {
    /// Starts the process. From when this returns, whatever `undo` undoes may be changed.
    ///
    /// AF_XDP sockets that another thread opens at this very moment may stay bound until the process ends.
    ///
    /// # Errors
    /// When there can't be another process, or it could not give up what it need not have.
    pub fn start(undo: Vec<Undo>) -> io::Result<Self> {
        let (life, theirs) = UnixStream::pair()?;
        let mut kept: Vec<_> = undo.iter().map(|undo| undo.to.as_raw_fd()).collect();
        kept.push(theirs.as_raw_fd());
        kept.sort_unstable();
        let shared = shared_mappings(&fs::read_to_string("/proc/self/maps")?);
        let child = Child { life: theirs.as_raw_fd(), undo: &undo, kept: &kept, shared: &shared };
        // SAFETY: the child makes nothing but system calls, on memory that was laid out before, and never returns.
        match unsafe { libc::fork() } {
            -1 => return Err(io::Error::last_os_error()),
            0 => child.run(),
            between => {
                // It ends at once: the one that stays is its child, and so nobody's.
                // SAFETY: the status is not asked for.
                while unsafe { libc::waitpid(between, ptr::null_mut(), 0) } == -1
                    && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
                {}
            }
        }
        drop(theirs);
        let mut restorer = Self { life };
        restorer.life.set_read_timeout(Some(PATIENCE))?;
        restorer.life.read_exact(&mut [0]).map_err(|error| {
            io::Error::new(error.kind(), "the process that would restore settings did not get ready")
        })?;
        Ok(restorer)
    }
}

impl Drop for Restorer {
    fn drop(&mut self) {
        // The end of what we say is what it waits for; the end of what it says is when it has restored.
        let _ = self.life.shutdown(Shutdown::Write);
        let _ = self.life.read(&mut [0]);
    }
}

/// What the forked process has.
struct Child<'a> {
    life: RawFd,
    undo: &'a [Undo],
    /// The descriptors that it keeps, in order.
    kept: &'a [RawFd],
    /// What it must not keep mapped.
    shared: &'a [Range<usize>],
}

impl Child<'_> {
    /// The child of a child of ours lives on.
    fn run(&self) -> ! {
        // SAFETY: as in `start`.
        if unsafe { libc::fork() } == 0 && self.give_up().is_some() && self.say_ready() {
            self.wait();
            self.restore();
        }
        exit()
    }

    /// Leaves what reading, writing and exiting need.
    fn give_up(&self) -> Option<()> {
        // SAFETY: the set is filled before it is read. Signals to our process group, or to all of a service, are not for
        // this process, which ends when ours has.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            libc::sigprocmask(libc::SIG_BLOCK, &raw const all, ptr::null_mut());
            libc::setsid();
        }
        // The rings of AF_XDP sockets, mapped, would keep their queues bound; UMEM is memory.
        for mapping in self.shared {
            // SAFETY: nothing that runs from here on is in a shared mapping.
            ok(unsafe { libc::munmap(ptr::with_exposed_provenance_mut(mapping.start), mapping.len()) })?;
        }
        let mut from = 0;
        for &kept in self.kept {
            close_range(from, kept - 1)?;
            from = kept + 1;
        }
        close_range(from, RawFd::MAX)?;
        // SAFETY: these take numbers, and a name that ends with a zero.
        unsafe {
            // Our memory as it was at the fork is nobody's to read.
            ok(libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0))?;
            ok(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            libc::prctl(libc::PR_SET_NAME, NAME.as_ptr());
        }
        keep_only_net_admin()?;
        read_write_and_exit_only()
    }

    fn say_ready(&self) -> bool {
        // SAFETY: a byte is read from where there is one.
        unsafe { libc::write(self.life, b"r".as_ptr().cast(), 1) == 1 }
    }

    /// Until the other end is closed, by whoever or by the kernel.
    fn wait(&self) {
        let mut byte = 0_u8;
        loop {
            // SAFETY: a byte is written to where there is room for it.
            let read = unsafe { libc::read(self.life, (&raw mut byte).cast(), 1) };
            let is_interrupted =
                read == -1 && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted;
            if read <= 0 && !is_interrupted {
                return;
            }
        }
    }

    fn restore(&self) {
        for undo in self.undo.iter().filter(|undo| undo.is_due()) {
            // Nobody is left to hear of an error.
            undo.write(&undo.bytes);
        }
    }
}

/// These run in the forked process.
impl Undo {
    /// Whether the setting is still ours.
    fn is_due(&self) -> bool {
        if let Setting::Attribute { question, .. } = &self.ours
            && !self.write(question)
        {
            return false;
        }
        let mut answer = [0_u8; ANSWER];
        // SAFETY: as many bytes are written as there is room for.
        let read = unsafe { libc::read(self.to.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len()) };
        let answer = usize::try_from(read).ok().and_then(|len| answer.get(..len));
        answer.is_some_and(|answer| self.ours.is_told_by(answer))
    }

    fn write(&self, bytes: &[u8]) -> bool {
        // SAFETY: as many bytes are read as there are.
        let written = unsafe { libc::write(self.to.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
        usize::try_from(written) == Ok(bytes.len())
    }
}

impl Setting {
    fn is_told_by(&self, answer: &[u8]) -> bool {
        match self {
            Self::Text(text) => answer.trim_ascii_end() == text,
            Self::Attribute { question, kind, value } => {
                // The family's number: a refusal has another type.
                let is_answer = answer.get(4..6).is_some_and(|family| question.get(4..6) == Some(family));
                is_answer && attribute(answer, *kind) == Some(*value)
            }
        }
    }
}

/// The value of a message's attribute, of four bytes or of eight.
fn attribute(message: &[u8], wanted: u16) -> Option<u64> {
    let mut rest = message.get(NETLINK_HEADERS..)?;
    loop {
        let &[len0, len1, kind0, kind1] = rest.first_chunk()?;
        let len = usize::from(u16::from_ne_bytes([len0, len1]));
        let value = rest.get(4..len)?;
        if u16::from_ne_bytes([kind0, kind1]) == wanted {
            let short = value.try_into().map(|bytes| u32::from_ne_bytes(bytes).into());
            return short.or_else(|_| value.try_into().map(u64::from_ne_bytes)).ok();
        }
        rest = rest.get(len.next_multiple_of(4)..)?;
    }
}

/// Without anything that the process that was forked would have done at its end.
fn exit() -> ! {
    loop {
        // SAFETY: the thread is the only one. The C library's own calls another number, which the filter refuses.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    }
}

fn ok(result: libc::c_int) -> Option<()> {
    (result == 0).then_some(())
}

fn close_range(first: RawFd, last: RawFd) -> Option<()> {
    if first > last {
        return Some(());
    }
    // SAFETY: nothing that is closed is used by this process again.
    (unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0).then_some(())
}

/// Drops all capabilities but one; that one, if it was there.
fn keep_only_net_admin() -> Option<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Sets {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let header = Header { version: CAPABILITY_VERSION, pid: 0 };
    let none = Sets { effective: 0, permitted: 0, inheritable: 0 };
    let one = Sets { effective: CAP_NET_ADMIN, permitted: CAP_NET_ADMIN, inheritable: 0 };
    let set = |low| {
        let sets = [low, none];
        // SAFETY: the header says that two words follow, and they do.
        unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) == 0 }
    };
    (set(one) || set(none)).then_some(())
}

/// Has the kernel kill this process for any other call. Seccomp's strict mode would do the same, but not where a filter is in
/// place already, as in a service with `SystemCallFilter=`. Filters add up.
fn read_write_and_exit_only() -> Option<()> {
    /// `AUDIT_ARCH_…` of a machine of 64 bits, little-endian. On one that is none of these no call passes: then this process
    /// does not get ready, and nothing is changed.
    const MACHINE: u32 = 0xc000_0000
        | (if cfg!(target_arch = "x86_64") {
            libc::EM_X86_64
        } else if cfg!(target_arch = "aarch64") {
            libc::EM_AARCH64
        } else {
            libc::EM_RISCV
        }) as u32;
    /// The offsets in `struct seccomp_data`.
    const NUMBER: u32 = 0;
    const ARCH: u32 = 4;
    const fn load(offset: u32) -> libc::sock_filter {
        let code = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
        libc::sock_filter { code: code as u16, jt: 0, jf: 0, k: offset }
    }
    const fn jump_if(value: u32, jt: u8, jf: u8) -> libc::sock_filter {
        let code = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
        libc::sock_filter { code: code as u16, jt, jf, k: value }
    }
    const fn verdict(action: u32) -> libc::sock_filter {
        libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: action }
    }
    let mut filter = [
        load(ARCH),
        jump_if(MACHINE, 0, 4),
        load(NUMBER),
        jump_if(libc::SYS_read as u32, 3, 0),
        jump_if(libc::SYS_write as u32, 2, 0),
        jump_if(libc::SYS_exit as u32, 1, 0),
        verdict(libc::SECCOMP_RET_KILL_PROCESS),
        verdict(libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the kernel reads the program, and as many instructions as it says.
    ok(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) })
}

/// The mappings of `/proc/self/maps` that others see, too.
fn shared_mappings(maps: &str) -> Vec<Range<usize>> {
    let shared = |line: &str| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        (rest.as_bytes().get(3) == Some(&b's')).then_some(address(start)?..address(end)?)
    };
    maps.lines().filter_map(shared).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{BufRead as _, BufReader, Write as _},
        path::Path,
        process::{Command, Stdio},
        thread,
        time::Instant,
    };

    use super::*;

    /// Set in the environment of a process that is to be killed: where it writes.
    const VICTIM: &str = "XSTACK_TEST_RESTORE";

    fn undo(path: &Path) -> Vec<Undo> {
        let to = File::options().read(true).append(true).open(path).expect("opens");
        let ours = Setting::Text(b"changed".to_vec());
        vec![Undo { to: to.into(), ours, bytes: b" restored".to_vec() }]
    }

    fn file() -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(b"changed\n").expect("writes");
        file
    }

    fn read(path: &Path) -> String {
        fs::read_to_string(path).expect("reads")
    }

    #[test]
    fn what_was_changed_is_restored_when_nobody_needs_it_any_more() {
        let file = file();
        let restorer = Restorer::start(undo(file.path())).expect("starts");
        thread::sleep(Duration::from_millis(50));
        assert_eq!(read(file.path()), "changed\n", "not before");
        drop(restorer);
        assert_eq!(read(file.path()), "changed\n restored");
    }

    #[test]
    fn what_somebody_else_has_changed_since_stays_as_it_is() {
        let mut file = file();
        let restorer = Restorer::start(undo(file.path())).expect("starts");
        file.write_all(b"again").expect("writes");
        drop(restorer);
        assert_eq!(read(file.path()), "changed\nagain");
    }

    #[test]
    fn a_setting_is_ours_only_if_the_kernel_tells_so() {
        let question = [16_u32.to_ne_bytes(), [30, 0, 1, 0]].concat();
        let ours = |kind, value| Setting::Attribute { question: question.clone(), kind, value };
        let message = |family: u8, attributes: &[(u16, &[u8])]| {
            let mut bytes = [&[0; 4], [family, 0, 0, 0].as_slice(), &[0; 12]].concat();
            for (kind, value) in attributes {
                bytes.extend([4 + value.len() as u16, *kind].map(u16::to_ne_bytes).concat());
                bytes.extend(*value);
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
            bytes
        };
        let (two, long) = (2_u32.to_ne_bytes(), (1_u64 << 40).to_ne_bytes());
        let answer = message(30, &[(1, b"odd"), (5, &two), (6, &long), (7, b"nonsense, and long")]);
        assert!(ours(5, 2).is_told_by(&answer) && ours(6, 1 << 40).is_told_by(&answer));
        assert!(!ours(5, 3).is_told_by(&answer) && !ours(6, 0).is_told_by(&answer));
        assert!(!ours(7, 2).is_told_by(&answer) && !ours(8, 2).is_told_by(&answer));
        assert!(!ours(5, 2).is_told_by(&message(2, &[(5, &two)])), "a refusal");
        assert!(!ours(5, 2).is_told_by(&message(30, &[(1, b"")])[..22]) && !ours(5, 2).is_told_by(&[]));
        let mut endless = message(30, &[(1, b"")]);
        endless[NETLINK_HEADERS] = 0;
        assert!(!ours(5, 2).is_told_by(&endless));
        assert!(Setting::Text(b"200".to_vec()).is_told_by(b"200\n"));
        assert!(!Setting::Text(b"200".to_vec()).is_told_by(b"2000\n"));
    }

    #[test]
    fn it_is_no_child_of_ours_and_may_do_next_to_nothing() {
        let file = file();
        let restorer = Restorer::start(undo(file.path())).expect("starts");
        let (pid, status) = restorers_of(file.path()).pop().expect("there is one");
        let line = |name: &str| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap_or_else(|| panic!("no {name}"));
            line.trim().to_owned()
        };
        assert_ne!(line("PPid:"), std::process::id().to_string());
        assert_eq!((line("Seccomp:").as_str(), line("NoNewPrivs:").as_str()), ("2", "1"), "a filter");
        let net_admin = u64::from(CAP_NET_ADMIN);
        for set in ["CapPrm:", "CapEff:", "CapInh:"] {
            let has = u64::from_str_radix(&line(set), 16).expect("a set");
            assert_eq!(has & !net_admin, 0, "{set} {has:x}");
        }
        let open = fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count);
        // Without CAP_SYS_PTRACE one can't look.
        assert!(open.as_ref().map_or(true, |&open| open == 2), "{open:?}");
        // A service that is stopped signals all of its processes.
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            let signal = nix::sys::signal::Signal::try_from(signal).expect("a signal");
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("it is there");
        }
        drop(restorer);
        assert_eq!(read(file.path()), "changed\n restored");
    }

    #[test]
    fn a_process_that_is_killed_has_its_changes_undone() {
        let file = file();
        let test = "device::restore::tests::a_victim_of_the_test_above";
        let mut victim = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", test, "--nocapture"])
            .env(VICTIM, file.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("spawns");
        let lines = BufReader::new(victim.stdout.take().expect("piped")).lines();
        let mut lines = lines.map(|line| line.expect("text"));
        lines.find(|line| line.contains("ready to be killed")).expect("it gets that far");
        assert_eq!(read(file.path()), "changed\n");
        victim.kill().expect("kills");
        // Nor does the process hold what the killed one wrote to: this would not end.
        assert_eq!(lines.count(), 0);
        victim.wait().expect("ends");
        let start = Instant::now();
        while read(file.path()) == "changed\n" && start.elapsed() < Duration::from_secs(5) {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(read(file.path()), "changed\n restored");
    }

    /// As a test it does nothing.
    #[test]
    fn a_victim_of_the_test_above() {
        let Some(path) = std::env::var_os(VICTIM) else { return };
        let _restorer = Restorer::start(undo(Path::new(&path))).expect("starts");
        println!("ready to be killed");
        thread::sleep(Duration::from_secs(30));
    }

    #[test]
    fn its_filter_ends_it_at_any_other_call() {
        let end_of = |call: fn()| {
            // SAFETY: the child makes nothing but system calls, and never returns.
            match unsafe { libc::fork() } {
                0 => {
                    if read_write_and_exit_only().is_some() {
                        call();
                    }
                    exit()
                }
                child => nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child), None).expect("ends"),
            }
        };
        let allowed = || {
            // SAFETY: nothing is read, and nothing is written.
            let _ = unsafe { libc::read(-1, ptr::null_mut(), 0) + libc::write(-1, ptr::null(), 0) };
        };
        let forbidden = || {
            // SAFETY: has no arguments.
            unsafe { libc::syscall(libc::SYS_getppid) };
        };
        assert!(matches!(end_of(allowed), nix::sys::wait::WaitStatus::Exited(_, 0)));
        let killed = end_of(forbidden);
        let by = nix::sys::signal::Signal::SIGSYS;
        assert!(
            matches!(killed, nix::sys::wait::WaitStatus::Signaled(_, signal, _) if signal == by),
            "{killed:?}"
        );
    }

    /// Of a process that has a filter already: a filter can't be taken off again.
    #[test]
    fn a_filter_that_is_there_already_does_not_get_in_the_way() {
        let file = file();
        let test = "device::restore::tests::a_process_with_a_filter";
        let output = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", test, "--nocapture"])
            .env(VICTIM, file.path())
            .output()
            .expect("runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("has both filters"), "{said}");
        assert_eq!(read(file.path()), "changed\n restored");
    }

    /// As a test it does nothing.
    #[test]
    fn a_process_with_a_filter() {
        let Some(path) = std::env::var_os(VICTIM) else { return };
        let mut all = libc::sock_filter {
            code: (libc::BPF_RET | libc::BPF_K) as u16,
            jt: 0,
            jf: 0,
            k: libc::SECCOMP_RET_ALLOW,
        };
        let program = libc::sock_fprog { len: 1, filter: &raw mut all };
        // SAFETY: the kernel reads the program and its one instruction.
        unsafe {
            assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
            let filter = libc::SECCOMP_MODE_FILTER;
            assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, filter, &raw const program), 0);
        }
        let filters = |status: &str| {
            let count = status.lines().find_map(|line| line.strip_prefix("Seccomp_filters:"));
            count.expect("from Linux 5.9 on").trim().parse::<u32>().expect("a number")
        };
        // Of this thread, as that which forks.
        let before = filters(&fs::read_to_string("/proc/thread-self/status").expect("a status"));
        let restorer = Restorer::start(undo(Path::new(&path))).expect("starts");
        let (_, status) = restorers_of(Path::new(&path)).pop().expect("there is one");
        assert_eq!(filters(&status), before + 1);
        drop(restorer);
        println!("has both filters");
    }

    #[test]
    fn only_what_is_shared_is_unmapped() {
        let maps = "7f0000000000-7f0000001000 rw-s 100000000 00:08 1234  socket:[1234]\n\
                    7f0000001000-7f0000002000 rw-p 00000000 00:00 0\n\
                    7f0000100000-7f0001100000 rw-s 00000000 00:01 99  /dev/zero (deleted)\n\
                    nonsense\n";
        let ranges = shared_mappings(maps);
        assert_eq!(ranges, [0x7f00_0000_0000..0x7f00_0000_1000, 0x7f00_0010_0000..0x7f00_0110_0000]);
    }

    /// Processes by that name that would write to the file: those of other tests have others.
    fn restorers_of(path: &Path) -> Vec<(i32, String)> {
        let name = std::str::from_utf8(NAME).expect("text").trim_end_matches('\0');
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("mounted").flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
            let mut descriptors = fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten();
            let is_named =
                status.lines().next().is_some_and(|line| line.trim_start_matches("Name:").trim() == name);
            if is_named && descriptors.any(|to| fs::read_link(to.path()).is_ok_and(|to| to == path)) {
                found.push((pid, status));
            }
        }
        found
    }
}
