//! What a running xstack may still do: next to nothing, in any of its threads.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::support::{Host, Running, TestLab, XSTACK, assert_same_bytes, run_for};

const FOREVER: &str = "http://example.com/drip/100000/10";
const PAGE: &str = "http://example.com/";

#[test]
fn root_and_every_capability_are_gone_in_every_thread() {
    let test = "root_and_every_capability_are_gone_in_every_thread";
    let Some(lab) = TestLab::with_servers(test, &[]) else { return };
    // The thread that reads the XDP program's log is older than the change of user; those of the runtime come later.
    let mut command = lab.on(Host::Host, XSTACK);
    command.args(["--log", "debug", "curl", "--silent", FOREVER]).env_remove("SUDO_UID");
    let threads = threads_while_receiving(&mut command);
    assert!(threads.iter().any(|thread| thread.name == "xdp-log"), "{threads:?}");
    for thread in &threads {
        thread.expect_nothing_left(65534, 65534);
        assert_eq!(thread.of("CapBnd"), "0000000000000000", "{thread:?}");
    }
}

#[test]
fn it_becomes_who_it_is_told_to_or_who_called_sudo() {
    let Some(lab) = TestLab::with_servers("it_becomes_who_it_is_told_to_or_who_called_sudo", &[]) else {
        return;
    };
    let sudo = [("SUDO_UID", "4711"), ("SUDO_GID", "4712")];
    for (arguments, variables, uid, gid) in [
        (&[][..], &sudo[..], 4711, 4712),
        (&["--user", "815:816"], &sudo, 815, 816),
        (&["--user", "815:root"], &sudo, 815, 0),
        (&[], &[("XSTACK_USER", "7:8")], 7, 8),
    ] {
        let mut command = lab.on(Host::Host, XSTACK);
        command.args(arguments).args(["curl", "--silent", FOREVER]).envs(variables.iter().copied());
        for thread in threads_while_receiving(&mut command) {
            thread.expect_nothing_left(uid, gid);
        }
    }
}

#[test]
fn mistakes_about_the_user() {
    let Some(lab) = TestLab::with_servers("mistakes_about_the_user", &["setpriv"]) else { return };
    let state = lab.host_state();
    for (user, says) in [
        ("no-such-user", "getent passwd"),
        ("nobody:no-such-group", "getent group"),
        ("root", "ordinary user"),
        ("471147", "--user 471147:471147"),
    ] {
        let outcome = lab.xstack(&["--user", user, "curl", PAGE]).expect_code(2);
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
        assert!(outcome.stderr.contains(says), "{says:?} is not said: {}", outcome.stderr);
    }
    let mut command = lab.on(Host::Host, "setpriv");
    command.args(["--reuid=4711", "--clear-groups", XSTACK, "--user", "7:7", "curl", PAGE]);
    let outcome = run_for(&mut command, Duration::from_secs(5)).expect_code(2);
    assert!(outcome.stderr.contains("needs root, and this is uid 4711"), "{}", outcome.stderr);
    assert_eq!(lab.host_state(), state, "the host is not as it was");
}

#[test]
fn capabilities_of_the_file_do_instead_of_root_and_are_gone_after_it() {
    let test = "capabilities_of_the_file_do_instead_of_root_and_are_gone_after_it";
    let Some(lab) = TestLab::with_servers(test, &["setpriv", "setcap", "curl"]) else { return };
    // As the messages say that it is done, and nothing more.
    const ENOUGH: &str = "cap_net_raw,cap_net_admin,cap_bpf,cap_ipc_lock";
    const ENOUGH_TO_LOG: &str = "cap_net_raw,cap_net_admin,cap_bpf,cap_ipc_lock,cap_perfmon";
    let Some(program) = Copy::with_capabilities(test, ENOUGH) else { return };
    let Some(logging) = Copy::with_capabilities(test, ENOUGH_TO_LOG) else { return };
    let state = lab.host_state();
    let on_host = |program: &Copy, arguments: &[&str]| {
        let mut command = lab.on(Host::Host, "setpriv");
        // The groups are whoever's who runs it, and none here; the limit of locked memory is what systems have.
        command.args(["--reuid=4711", "--regid=4712", "--clear-groups", "prlimit", "--memlock=8388608"]);
        command.arg(&program.path).args(arguments);
        command
    };
    let outcome = run_for(&mut on_host(&program, &["curl", "-sS", PAGE]), Duration::from_secs(20));
    assert_same_bytes(&outcome.body(), &lab.real_curl(PAGE), "the page");
    for thread in threads_while_receiving(&mut on_host(&program, &["curl", "--silent", FOREVER])) {
        thread.expect_nothing_left(4711, 4712);
    }
    let log = ["--log", "debug", "curl", "--silent", "--show-error", FOREVER];
    let threads = threads_while_receiving(&mut on_host(&logging, &log));
    assert!(threads.iter().any(|thread| thread.name == "xdp-log"), "{threads:?}");
    for thread in threads {
        thread.expect_nothing_left(4711, 4712);
    }
    let outcome = run_for(&mut on_host(&program, &log), Duration::from_secs(20)).expect_code(45);
    let remedy = format!("`sudo setcap {ENOUGH_TO_LOG}+ep {}`", program.path.display());
    assert!(outcome.stderr.contains(&remedy), "{}", outcome.stderr);
    assert_eq!(lab.host_state(), state, "the host is not as it was");
}

#[test]
fn a_server_has_nothing_left_and_reads_what_its_user_may() {
    let test = "a_server_has_nothing_left_and_reads_what_its_user_may";
    let Some(lab) = TestLab::with_servers(test, &["curl"]) else { return };
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for (name, mode) in [("everybody", 0o644), ("root", 0o600)] {
        fs::write(directory.path().join(name), name).unwrap();
        fs::set_permissions(directory.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut command = lab.on(Host::Host, XSTACK);
    command.args(["--address", "10.77.0.77/24", "--user", "4711:4712", "serve", "--quiet"]);
    let mut server = Running::start(command.arg(directory.path()).stdout(Stdio::null()));
    let ask = |name: &str| {
        let url = format!("http://10.77.0.77/{name}");
        let written = ["--write-out", "%{http_code}", "--max-time", "5", &url];
        let mut command = lab.on(Host::Peer, "curl");
        let output = command.arg("--silent").args(written).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    while ask("everybody") != "everybody200" {
        assert!(Instant::now() < deadline && !server.has_ended(), "nothing is served");
        sleep(Duration::from_millis(50));
    }
    assert!(!ask("root").starts_with("root"), "what only root may read is served");
    for thread in threads_of(&server) {
        thread.expect_nothing_left(4711, 4712);
    }
    server.signal(Signal::SIGTERM);
    assert_eq!(server.finish().status.code(), Some(0));
    assert!(!lab.has_program());
}

#[test]
fn a_relay_has_nothing_left_and_removes_the_socket_that_root_made() {
    let test = "a_relay_has_nothing_left_and_removes_the_socket_that_root_made";
    let Some(lab) = TestLab::with_servers(test, &["curl"]) else { return };
    let directory = tempfile::tempdir().unwrap();
    chown(directory.path(), Some(4711), Some(4712)).unwrap();
    let socket = directory.path().join("socket");
    let mut command = lab.on(Host::Host, XSTACK);
    let from_and_to = [&format!("unix:{}", socket.display()), "ours:example.com:80"];
    command.args(["--user", "4711:4712", "forward"]).args(from_and_to).stdout(Stdio::null());
    let mut relay = Running::start(&mut command);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !socket.exists() {
        assert!(Instant::now() < deadline && !relay.has_ended(), "there is no socket");
        sleep(Duration::from_millis(10));
    }
    let page = lab.output(
        Host::Host,
        &["curl", "-sS", "--max-time", "9", "--unix-socket", socket.to_str().unwrap(), PAGE],
    );
    assert_same_bytes(&page, &lab.real_curl(PAGE), "the page");
    for thread in threads_of(&relay) {
        thread.expect_nothing_left(4711, 4712);
    }
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.finish().status.code(), Some(0));
    assert!(!socket.exists() && !lab.has_program());
}

#[test]
fn what_root_asked_for_is_written_where_only_root_may() {
    let test = "what_root_asked_for_is_written_where_only_root_may";
    let Some(lab) = TestLab::with_servers(test, &["curl"]) else { return };
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let file = directory.path().join("page");
    fs::write(&file, "longer than nothing, and older").unwrap();
    let path = file.to_str().unwrap();
    lab.curl(&["-o", path, "http://10.77.1.2:81/"]).expect_code(7);
    assert_eq!(fs::read(&file).unwrap(), b"longer than nothing, and older");
    lab.curl(&["-o", path, PAGE]).expect_code(0);
    assert_same_bytes(&fs::read(&file).unwrap(), &lab.real_curl(PAGE), "the page");
    assert_eq!(file.metadata().unwrap().uid(), 0);
}

/// One thread's /proc/…/status.
#[derive(Debug)]
struct Thread {
    name: String,
    status: String,
}

impl Thread {
    fn of(&self, key: &str) -> &str {
        let mut lines = self.status.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(name, _)| *name == key).unwrap().1.trim()
    }

    #[track_caller]
    fn expect_nothing_left(&self, uid: u32, gid: u32) {
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(self.of(set), "0000000000000000", "{set} of {self:?}");
        }
        assert_eq!(self.of("Uid"), format!("{uid}\t{uid}\t{uid}\t{uid}"), "{self:?}");
        assert_eq!(self.of("Gid"), format!("{gid}\t{gid}\t{gid}\t{gid}"), "{self:?}");
        assert_eq!(
            (self.of("Groups"), self.of("NoNewPrivs"), self.of("Seccomp")),
            ("", "1", "2"),
            "{self:?}"
        );
    }
}

/// All threads of a transfer of which bytes have come.
fn threads_while_receiving(command: &mut Command) -> Vec<Thread> {
    let body = tempfile::NamedTempFile::new().unwrap();
    command.stdout(body.reopen().unwrap()).stderr(Stdio::null());
    let mut transfer = Running::start(command);
    let deadline = Instant::now() + Duration::from_secs(10);
    while body.as_file().metadata().unwrap().len() == 0 {
        assert!(Instant::now() < deadline && !transfer.has_ended(), "nothing was received");
        sleep(Duration::from_millis(10));
    }
    threads_of(&transfer)
}

/// Whatever runs xstack replaces itself by it, so it has the child's number.
fn threads_of(running: &Running) -> Vec<Thread> {
    let tasks = fs::read_dir(format!("/proc/{}/task", running.id())).unwrap();
    let threads: Vec<_> = tasks
        .map(|task| fs::read_to_string(task.unwrap().path().join("status")).unwrap())
        .map(|status| Thread { name: status.lines().next().unwrap()["Name:\t".len()..].to_owned(), status })
        .collect();
    assert!(threads.len() >= 2, "the runtime writes by threads of its own: {threads:?}");
    threads
}

/// A copy of xstack that anybody may run with capabilities.
struct Copy {
    path: PathBuf,
    _directory: TempDir,
}

impl Copy {
    /// None, with a SKIP line, where files can't have such.
    fn with_capabilities(test: &str, capabilities: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = directory.path().join("xstack");
        fs::copy(XSTACK, &path).unwrap();
        let set = Command::new("setcap").arg(format!("{capabilities}+ep")).arg(&path).output().unwrap();
        if !set.status.success() {
            let told = String::from_utf8_lossy(&set.stderr);
            println!("SKIP {test}: files have no capabilities here: {}", told.trim());
            return None;
        }
        Some(Self { path, _directory: directory })
    }
}
