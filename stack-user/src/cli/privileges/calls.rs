//! The system calls that are let through: those of the loop, and what each kind of command adds.
//!
//! Numbers and names are the kernel's; what is not on every machine stands in lists of its own. A call with conditions
//! passes if all of them hold; listed twice, it passes either way.

use libc::c_long;

/// What a command does after set-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Fetches, and writes what it got into files: `xstack curl`.
    Client,
    /// Answers out of files, which it only reads: `xstack serve`.
    Server,
    /// Passes on between our stack and the kernel's sockets, names looked up by the host's resolver: `xstack forward`
    /// and `xstack proxy`.
    Relay,
    /// All of that, for years: `xstack daemon`.
    Daemon,
    /// Talks to its peers and looks at how busy it is, nothing else: `xstack bench`.
    Bench,
    /// Waits, and removes a file: the guard of the daemon's control socket.
    Guard,
}

/// A system call, and when it passes.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) number: c_long,
    /// None means always.
    pub(super) only: Vec<Is>,
}

/// A condition: these bits of an argument have this value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Is {
    pub(super) argument: u8,
    pub(super) mask: u64,
    pub(super) value: u64,
}

impl Profile {
    /// Those of commands.
    pub const ALL: [Self; 5] = [Self::Client, Self::Server, Self::Relay, Self::Daemon, Self::Bench];

    /// What passes.
    pub(super) fn calls(self) -> impl Iterator<Item = Call> {
        let added: &[fn() -> Vec<Call>] = match self {
            Self::Client => &[removing_files, writing_files],
            Self::Server => &[below_a_directory],
            Self::Relay => &[kernel_sockets, removing_files],
            Self::Daemon => &[kernel_sockets, removing_files, writing_files, waiting_for_children],
            Self::Bench => &[processor_time],
            Self::Guard => &[],
        };
        let base: &[fn() -> Vec<Call>] = match self {
            Self::Guard => &[memory, waiting_for_an_end, removing_files],
            _ => &[the_loop, this_machine, memory, threads, questions_of_the_kernel, reading_files],
        };
        base.iter().copied().chain(added.iter().copied()).flat_map(|list| list())
    }
}

/// Calls by which threads are made whose flags are not in a register: the C library falls back to `clone`.
pub(super) const WITHOUT_FLAGS: [c_long; 1] = [libc::SYS_clone3];

/// Rings, timers, descriptors, signals.
fn the_loop() -> Vec<Call> {
    let mut calls = any(&[
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_readv,
        libc::SYS_writev,
        libc::SYS_close,
        libc::SYS_dup,
        libc::SYS_sendto,
        libc::SYS_recvfrom,
        libc::SYS_sendmsg,
        libc::SYS_recvmsg,
        libc::SYS_shutdown,
        libc::SYS_getsockopt,
        libc::SYS_setsockopt,
        libc::SYS_getsockname,
        libc::SYS_getpeername,
        libc::SYS_ppoll,
        libc::SYS_epoll_create1,
        libc::SYS_epoll_ctl,
        libc::SYS_epoll_pwait,
        libc::SYS_eventfd2,
        libc::SYS_clock_gettime,
        libc::SYS_clock_getres,
        libc::SYS_clock_nanosleep,
        libc::SYS_nanosleep,
        libc::SYS_gettimeofday,
        libc::SYS_getrandom,
        libc::SYS_restart_syscall,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sigaltstack,
        libc::SYS_exit_group,
    ]);
    // A terminal's kind and size, and whether a read waits. Not TIOCSTI, by which a terminal is typed into.
    for request in [libc::TCGETS, libc::TIOCGWINSZ, libc::FIONBIO, libc::FIONREAD] {
        #[allow(clippy::unnecessary_cast)] // Other C libraries have an int here.
        calls.push(when(libc::SYS_ioctl, &[is(1, INT, request as u64)]));
    }
    for command in
        [libc::F_DUPFD, libc::F_DUPFD_CLOEXEC, libc::F_GETFD, libc::F_SETFD, libc::F_GETFL, libc::F_SETFL]
    {
        calls.push(when(libc::SYS_fcntl, &[is(1, INT, command as u64)]));
    }
    // Claims and counters, in maps that are open: no other map is made or found, and no program loaded.
    const BPF_MAP_LOOKUP_ELEM: u64 = 1;
    const BPF_MAP_UPDATE_ELEM: u64 = 2;
    const BPF_MAP_DELETE_ELEM: u64 = 3;
    const BPF_MAP_GET_NEXT_KEY: u64 = 4;
    for command in [BPF_MAP_LOOKUP_ELEM, BPF_MAP_UPDATE_ELEM, BPF_MAP_DELETE_ELEM, BPF_MAP_GET_NEXT_KEY] {
        calls.push(when(libc::SYS_bpf, &[is(0, INT, command)]));
    }
    calls
}

/// Reading a pipe to its end, looking whose a file is, and ending.
fn waiting_for_an_end() -> Vec<Call> {
    any(&[
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_close,
        libc::SYS_fstat,
        libc::SYS_newfstatat,
        libc::SYS_statx,
        libc::SYS_sigaltstack,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_restart_syscall,
        libc::SYS_exit_group,
    ])
}

/// What the older machine has besides.
#[cfg(target_arch = "x86_64")]
fn this_machine() -> Vec<Call> {
    any(&[libc::SYS_poll, libc::SYS_epoll_wait, libc::SYS_time, libc::SYS_access, libc::SYS_readlink])
}

/// Machines that came later have the newer calls alone.
#[cfg(not(target_arch = "x86_64"))]
fn this_machine() -> Vec<Call> {
    Vec::new()
}

/// Memory that is never both written and run.
fn memory() -> Vec<Call> {
    let (write, exec) = (libc::PROT_WRITE as u64, libc::PROT_EXEC as u64);
    let mut calls = any(&[libc::SYS_brk, libc::SYS_munmap, libc::SYS_mremap, libc::SYS_madvise]);
    // The host's resolver loads libraries.
    calls.push(when(libc::SYS_mmap, &[is(2, write, 0)]));
    calls.push(when(libc::SYS_mmap, &[is(2, exec, 0)]));
    calls.push(when(libc::SYS_mprotect, &[is(2, exec, 0)]));
    calls
}

/// Threads of this process, and no other process.
fn threads() -> Vec<Call> {
    let mut calls = any(&[
        libc::SYS_futex,
        libc::SYS_exit,
        libc::SYS_set_robust_list,
        libc::SYS_rseq,
        libc::SYS_membarrier,
        libc::SYS_sched_yield,
        libc::SYS_sched_getaffinity,
        libc::SYS_getpid,
        libc::SYS_gettid,
        // Threads look whether they have any, and have not.
        libc::SYS_capget,
    ]);
    let thread = (libc::CLONE_VM | libc::CLONE_SIGHAND | libc::CLONE_THREAD) as u32;
    let elsewhere = (libc::CLONE_NEWNS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET) as u32;
    calls.push(when(libc::SYS_clone, &[is(0, (thread | elsewhere).into(), thread.into())]));
    for option in [libc::PR_SET_NAME, libc::PR_SET_VMA] {
        calls.push(when(libc::SYS_prctl, &[is(0, INT, option as u64)]));
    }
    // A panic that aborts; nobody else gets a signal.
    calls.push(when(libc::SYS_tgkill, &[is(0, INT, std::process::id().into())]));
    calls
}

/// Who and where we are, also by rtnetlink.
fn questions_of_the_kernel() -> Vec<Call> {
    let mut calls = any(&[
        libc::SYS_getuid,
        libc::SYS_geteuid,
        libc::SYS_getgid,
        libc::SYS_getegid,
        libc::SYS_uname,
        libc::SYS_sysinfo,
        libc::SYS_getcwd,
        // Of netlink sockets; those of the internet can't be made.
        libc::SYS_bind,
    ]);
    // Reading limits, with no new ones.
    calls.push(when(libc::SYS_prlimit64, &[is(2, u64::MAX, 0)]));
    let family = is(0, INT, libc::AF_NETLINK as u64);
    calls.push(when(libc::SYS_socket, &[family, is(2, INT, libc::NETLINK_ROUTE as u64)]));
    calls
}

/// Files that are there: what is served, and the C library's own.
fn reading_files() -> Vec<Call> {
    let mut calls = any(&[
        libc::SYS_fstat,
        libc::SYS_newfstatat,
        libc::SYS_statx,
        libc::SYS_lseek,
        libc::SYS_pread64,
        libc::SYS_getdents64,
        libc::SYS_fadvise64,
        libc::SYS_faccessat,
        libc::SYS_faccessat2,
        libc::SYS_readlinkat,
    ]);
    calls.push(when(libc::SYS_openat, &[is(2, (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC) as u64, 0)]));
    calls
}

/// Paths that the kernel keeps below a directory. Its flags are where no filter sees them; what may be written is up to
/// the user that the process is.
fn below_a_directory() -> Vec<Call> {
    any(&[libc::SYS_openat2])
}

/// Files that are made and changed: what was fetched, logs, state.
fn writing_files() -> Vec<Call> {
    any(&[libc::SYS_openat, libc::SYS_ftruncate, libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_pwrite64])
}

/// Files that we made, and that are not to stay: sockets, what nothing was written to.
fn removing_files() -> Vec<Call> {
    any(&[
        libc::SYS_unlinkat,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_unlink,
    ])
}

/// How much of it went by, for whom.
fn processor_time() -> Vec<Call> {
    any(&[libc::SYS_getrusage])
}

/// Processes that were there before: the daemon's guard must be gone when it is, or it might take the next daemon's socket
/// file for the one that it waits to remove.
fn waiting_for_children() -> Vec<Call> {
    any(&[libc::SYS_wait4, libc::SYS_waitid])
}

/// The kernel's sockets, and the host's resolver.
fn kernel_sockets() -> Vec<Call> {
    let mut calls = any(&[
        libc::SYS_connect,
        libc::SYS_listen,
        libc::SYS_accept4,
        libc::SYS_sendmmsg,
        libc::SYS_recvmmsg,
        libc::SYS_splice,
        libc::SYS_pipe2,
        // The rights of a socket file that is made.
        libc::SYS_umask,
        // A socket file goes with its listener.
        libc::SYS_unlinkat,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_unlink,
    ]);
    calls.push(when(libc::SYS_socketpair, &[is(0, INT, libc::AF_UNIX as u64)]));
    for family in [libc::AF_INET, libc::AF_INET6, libc::AF_UNIX] {
        for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM] {
            let kind = is(1, SOCK_TYPE_MASK, kind as u64);
            calls.push(when(libc::SYS_socket, &[is(0, INT, family as u64), kind]));
        }
    }
    calls
}

/// The whole of an int.
const INT: u64 = u32::MAX as u64;

/// Of the argument that says the kind of a socket; the rest are flags. As in linux/net.h.
const SOCK_TYPE_MASK: u64 = 0xf;

fn any(numbers: &[c_long]) -> Vec<Call> {
    numbers.iter().map(|&number| when(number, &[])).collect()
}

fn when(number: c_long, only: &[Is]) -> Call {
    Call { number, only: only.to_vec() }
}

const fn is(argument: u8, mask: u64, value: u64) -> Is {
    Is { argument, mask, value }
}
