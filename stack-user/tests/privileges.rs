//! Privileges given up, as the kernel sees it: users and capabilities of all threads, what the filter of system calls
//! refuses, and that what is allowed works.
//!
//! What is given up is gone for as long as the process lives, so each is tried in a child: this program again, with one
//! test.

// A helper that unwraps fails its test with a line number.
#![allow(clippy::unwrap_used)]

use std::{
    env,
    ffi::OsString,
    fs,
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream, ToSocketAddrs},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    process::Command,
    sync::mpsc,
    thread,
    time::Duration,
};

use aya::{programs::ProgramType, sys::is_program_supported};
use caps::CapSet;
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::{
        prctl::{get_dumpable, get_no_new_privs, set_dumpable},
        ptrace,
        resource::{UsageWho, getrusage},
        signal::kill,
        socket::{AddressFamily, SockFlag, SockProtocol, SockType, UnixAddr, connect, socket},
    },
    unistd::{Gid, Pid, Uid, execv, getppid, setresuid},
};
use stack_user::{
    cli::{
        self,
        privileges::{self, Filter, Privileges, Profile},
        socket_file::SocketFile,
    },
    device::{interface, unprivileged},
};

/// Set in the child to what it shall do.
const CHILD: &str = "XSTACK_TEST_CHILD";

#[test]
fn what_a_profile_does_not_list_is_refused_in_threads_old_and_new() {
    let test = "what_a_profile_does_not_list_is_refused_in_threads_old_and_new";
    for profile in Profile::ALL {
        in_child(test, &format!("{profile:?}"), || {
            let (go, gone) = mpsc::channel::<()>();
            let older = thread::spawn(move || {
                let _ = gone.recv();
                got_through(profile)
            });
            Filter::Enforce.install(profile).unwrap();
            drop(go);
            let here = got_through(profile);
            let newer = thread::spawn(move || got_through(profile)).join().unwrap();
            for (whose, allowed) in [("here", here), ("older", older.join().unwrap()), ("newer", newer)] {
                assert_eq!(allowed, [""; 0], "{whose}");
            }
        });
    }
}

/// Were it otherwise, the test above would prove nothing.
#[test]
fn without_a_filter_none_of_that_is_refused() {
    let test = "without_a_filter_none_of_that_is_refused";
    if !needs_root(test) {
        return;
    }
    for filter in [Filter::Off, Filter::Log] {
        in_child(test, &format!("{filter:?}"), || {
            filter.install(Profile::Server).unwrap();
            let attempts = attempts(Profile::Server);
            let names: Vec<_> = attempts.iter().map(|(name, _)| *name).collect();
            assert_eq!(got_through(Profile::Server), names);
        });
    }
}

#[test]
fn the_loop_and_what_a_profile_adds_work_behind_the_filter() {
    let test = "the_loop_and_what_a_profile_adds_work_behind_the_filter";
    for profile in Profile::ALL {
        in_child(test, &format!("{profile:?}"), || {
            let writes = matches!(profile, Profile::Client | Profile::Daemon);
            let relays = matches!(profile, Profile::Relay | Profile::Daemon);
            let directory = writes.then(|| tempfile::tempdir().unwrap());
            let mut child = (profile == Profile::Daemon).then(|| Command::new("true").spawn().unwrap());
            let sockets = relays.then(|| tempfile::tempdir().unwrap());
            // As in the command, the runtime is there before.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            Filter::Enforce.install(profile).unwrap();
            runtime.block_on(async {
                tokio::time::sleep(Duration::from_millis(1)).await;
                let owner = interface::owner_of([127, 0, 0, 1].into()).await.unwrap();
                assert_eq!(owner.as_deref(), Some("lo"));
                assert!(!tokio::fs::read("/etc/passwd").await.unwrap().is_empty());
                let mut listing = tokio::fs::read_dir("/etc").await.unwrap();
                assert!(listing.next_entry().await.unwrap().is_some());
                if let Some(sockets) = &sockets {
                    // A reload may add a listener on a socket file.
                    let path = sockets.path().join("socket");
                    let (_listener, file) = SocketFile::listen(&path, 0o666, None).unwrap();
                    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
                    file.remove().unwrap();
                }
            });
            if let Some(directory) = directory {
                let path = directory.path().join("file");
                fs::write(&path, "written").unwrap();
                fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(3).unwrap();
                assert_eq!(fs::read(&path).unwrap(), b"wri");
                fs::remove_file(&path).unwrap();
            }
            if let Some(child) = &mut child {
                assert!(child.wait().unwrap().success());
            }
            if profile == Profile::Bench {
                getrusage(UsageWho::RUSAGE_SELF).unwrap();
            }
            if relays {
                pass_bytes_through_the_kernel();
            }
        });
    }
}

#[test]
fn root_is_given_up_in_threads_that_were_there_before() {
    let test = "root_is_given_up_in_threads_that_were_there_before";
    if !needs_root(test) {
        return;
    }
    in_child(test, "root", || {
        let (go, gone) = mpsc::channel::<()>();
        let older = thread::spawn(move || {
            let _ = gone.recv();
            is_powerless()
        });
        privileges::begin().unwrap();
        let (first, second) = (plan(&["--user", "4711:4712"]), plan(&[]));
        first.give_up(Profile::Client).unwrap();
        drop(go);
        assert!(older.join().unwrap() && is_powerless());
        assert_eq!((Uid::current().as_raw(), Gid::current().as_raw()), (4711, 4712));
        // A second one, of a command that runs on several networks, does no harm.
        second.give_up(Profile::Client).unwrap();
    });
}

#[test]
fn a_thread_that_keeps_capabilities_is_found_and_one_that_begins_well_has_none() {
    let test = "a_thread_that_keeps_capabilities_is_found_and_one_that_begins_well_has_none";
    if !needs_root(test) {
        return;
    }
    for begins_well in [true, false] {
        in_child(test, &format!("{begins_well}"), || {
            become_user_with_capabilities();
            let (go, gone) = mpsc::channel::<()>();
            let older = thread::spawn(move || {
                if begins_well {
                    unprivileged::thread_begins();
                }
                let _ = gone.recv();
                is_powerless()
            });
            set_dumpable(true).unwrap();
            privileges::begin().unwrap();
            let given_up = plan(&["--seccomp", "off"]).give_up(Profile::Client);
            drop(go);
            assert_eq!(older.join().unwrap(), begins_well);
            assert!(is_powerless() && !get_dumpable().unwrap() && get_no_new_privs().unwrap());
            match given_up {
                Ok(()) => assert!(begins_well),
                Err(failure) => {
                    assert!(!begins_well, "{failure}");
                    assert_eq!(failure.exit().code(), 125);
                    assert!(failure.to_string().contains("a thread has kept some"), "{failure}");
                }
            }
        });
    }
}

fn needs_root(test: &str) -> bool {
    let is_root = Uid::effective().is_root();
    if !is_root {
        println!("SKIP {test}: it begins as root");
    }
    is_root
}

/// What the command line says.
fn plan(options: &[&str]) -> Privileges {
    let words = ["xstack"].iter().chain(options).chain(&["curl", "http://a/"]);
    Privileges::plan(&cli::parse(words.map(OsString::from)).unwrap().global).unwrap()
}

/// As capabilities of a file do it: an ordinary user, and the capabilities in this thread.
fn become_user_with_capabilities() {
    caps::securebits::set_keepcaps(true).unwrap();
    setresuid(4711.into(), 4711.into(), 4711.into()).unwrap();
    let kept = caps::read(None, CapSet::Permitted).unwrap();
    caps::set(None, CapSet::Effective, &kept).unwrap();
    assert!(!is_powerless());
}

/// Whether the calling thread has no capability, and no way back.
fn is_powerless() -> bool {
    let sets = [CapSet::Permitted, CapSet::Effective, CapSet::Inheritable];
    let is_empty = sets.into_iter().all(|set| caps::read(None, set).unwrap().is_empty());
    is_empty && !Uid::effective().is_root()
}

fn pass_bytes_through_the_kernel() {
    assert!(("localhost", 80).to_socket_addrs().unwrap().count() > 0);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut theirs, _) = listener.accept().unwrap();
    ours.write_all(b"x").unwrap();
    theirs.read_exact(&mut [0]).unwrap();
    let (mut one, mut other) = UnixStream::pair().unwrap();
    one.write_all(b"x").unwrap();
    other.read_exact(&mut [0]).unwrap();
    assert!(UnixStream::connect("/nowhere").is_err_and(|error| { error.kind() == io::ErrorKind::NotFound }));
}

/// The attempts that got through to the kernel, which may still have failed there, but for another reason.
fn got_through(profile: Profile) -> Vec<&'static str> {
    let attempts = attempts(profile).into_iter();
    attempts.filter(|(_, attempt)| attempt() != Err(Errno::EPERM)).map(|(name, _)| name).collect()
}

type Attempt = (&'static str, fn() -> Result<(), Errno>);

/// What nobody does after set-up. Done by root and without a filter, none of it fails with EPERM.
fn attempts(profile: Profile) -> Vec<Attempt> {
    let mut attempts: Vec<Attempt> = vec![
        ("execve", || execv::<&std::ffi::CStr>(c"/no/such/program", &[]).map(drop)),
        ("fork and execve", || os(Command::new("true").status().map(drop))),
        ("ptrace", || ptrace::attach(Pid::from_raw(i32::MAX))),
        ("mount", || {
            mount(None::<&str>, "/no/such/directory", Some("tmpfs"), MsFlags::empty(), None::<&str>)
        }),
        ("unshare", || unshare(CloneFlags::CLONE_FS)),
        ("kill", || kill(getppid(), None)),
        ("socket(AF_PACKET)", || {
            socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).map(drop)
        }),
        ("socket(AF_INET, SOCK_RAW)", || {
            let protocol = SockProtocol::Icmp;
            socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).map(drop)
        }),
        ("socket(AF_NETLINK, NETLINK_AUDIT)", || {
            let protocol = SockProtocol::NetlinkAudit;
            socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).map(drop)
        }),
        ("bpf(BPF_PROG_LOAD)", || match is_program_supported(ProgramType::Xdp) {
            Ok(true) => Ok(()),
            _ => Err(Errno::EPERM),
        }),
    ];
    if matches!(profile, Profile::Client | Profile::Server | Profile::Bench) {
        attempts.push(("socket(AF_INET)", || {
            socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map(drop)
        }));
        attempts.push(("connect", || {
            // Not a descriptor, which is found out only by those who may connect.
            connect(-1, &UnixAddr::new("/nowhere")?)
        }));
    }
    if matches!(profile, Profile::Server | Profile::Relay | Profile::Bench) {
        attempts.push(("openat(O_WRONLY)", || {
            os(fs::OpenOptions::new().write(true).open("/dev/null").map(drop))
        }));
        attempts.push(("openat(O_CREAT)", || {
            os(fs::OpenOptions::new().append(true).create(true).open("/dev/null").map(drop))
        }));
    }
    attempts
}

fn os(result: io::Result<()>) -> Result<(), Errno> {
    result.map_err(|error| error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw))
}

/// Runs `body` in a process of its own, which is this test again.
fn in_child(test: &str, case: &str, body: impl FnOnce()) {
    match env::var(CHILD) {
        Ok(wanted) if wanted == case => body(),
        Ok(_) => {}
        Err(_) => {
            let mut command = Command::new(env::current_exe().unwrap());
            command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, case);
            let output = command.output().unwrap();
            let told = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{case}: {}: {told}", output.status);
        }
    }
}
