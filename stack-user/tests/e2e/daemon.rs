//! The daemon through its life: peers are told what becomes of their connections, and nothing of it stays on the host.

mod interfaces;

use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt,
};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::support::{Host, Running, TestLab, XSTACK, run_for};

/// Where the daemon is.
const OURS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 50);

/// Another address that it is told to have.
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 51);

/// Who may use its control socket, and who may not.
const FRIEND: u32 = 4711;
const STRANGER: u32 = 4712;

/// Nobody waits for longer: a peer that hangs fails its test.
const PATIENCE: Duration = Duration::from_secs(10);

/// Far below the second after which a SYN is sent again.
const AT_ONCE: Duration = Duration::from_millis(800);

#[test]
fn it_serves_is_looked_at_reloads_and_ends_in_order() {
    let test = "it_serves_is_looked_at_reloads_and_ends_in_order";
    let Some(lab) = TestLab::with_servers(test, &["setpriv", "curl"]) else { return };
    let state = lab.host_state();
    echo_on_host(&lab, 8080);
    let place = Place::new();
    place.configure(&[(80, 8080), (82, 8080)], 1.0);
    let mut daemon = place.start(&lab);
    let mut kept = peer(&lab, 80, 0);
    echoes(&mut kept, b"before");
    let mut removed = peer(&lab, 82, 0);
    echoes(&mut removed, b"before");

    place.tells("READY=1");
    place.is_looked_at(&lab);
    place.is_one_of_a_kind(&lab);

    // A bad file changes nothing.
    fs::write(&place.config, "[network]\ninterfaces = 'xs0'\n").unwrap();
    daemon.signal(Signal::SIGHUP);
    wait_for("the mistake to be told", || {
        place.log().contains("xstack.toml:2:1: unknown field `interfaces`")
    });
    place.tells("RELOADING=1");
    place.tells("READY=1");
    echoes(&mut kept, b"after a bad file");
    echoes(&mut peer(&lab, 82, 0), b"a new one");

    // A good one changes what is different, and nothing else.
    place.configure(&[(80, 8080), (81, 8080)], 1.0);
    place.replace(&format!("'{OURS}/24'"), &format!("'{OURS}/24', '{SECOND}'"));
    daemon.signal(Signal::SIGHUP);
    wait_for("the reload", || place.log().contains("2 listeners kept, 1 started, 1 stopped"));
    assert_eq!(place.addresses(&lab), [OURS.to_string(), SECOND.to_string()]);
    let mut at_second = try_peer_at(&lab, SECOND, 80, 0).unwrap();
    echoes(&mut at_second, b"a new address");
    place.replace(&format!(", '{SECOND}'"), "");
    daemon.signal(Signal::SIGHUP);
    ends(&mut at_second, "when its address was given up");
    wait_for("the address to be free", || place.addresses(&lab) == [OURS.to_string()]);
    echoes(&mut kept, b"after a reload");
    echoes(&mut peer(&lab, 81, 0), b"a new forward");
    assert_eq!(try_peer(&lab, 82, 0).unwrap_err().kind(), ErrorKind::ConnectionRefused, "it is closed");
    let told = Instant::now();
    ends(&mut removed, "after the time of grace");
    assert!(told.elapsed() < PATIENCE);

    let begun = fs::read_to_string(place.state.join("stack.state")).unwrap();
    daemon.signal(Signal::SIGTERM);
    place.tells("STOPPING=1");
    ends(&mut kept, "when the daemon ended");
    wait_for("the daemon to end", || daemon.has_ended());
    assert_eq!(daemon.finish().status.code(), Some(0), "{}", place.log());
    // It had the right to note how far its clock came, though not to open the file any more.
    let ended = fs::read_to_string(place.state.join("stack.state")).unwrap();
    assert!(ended > begun && ended.len() == begun.len(), "{begun}{ended}");
    place.nothing_is_left(&lab, &state);
}

/// While a reload asks for seconds whether anybody has an address, the daemon serves, is looked at, and ends when it is told
/// to. An address that somebody insists on is given up, and what listens there ends; without the last one, the daemon does.
#[test]
fn a_reload_keeps_nobody_waiting_and_lost_addresses_are_noticed() {
    let test = "a_reload_keeps_nobody_waiting_and_lost_addresses_are_noticed";
    let Some(lab) = TestLab::with_servers(test, &["setpriv", "curl", "ping"]) else { return };
    echo_on_host(&lab, 8080);
    let place = Place::new();
    place.configure(&[(80, 8080)], 1.0);
    place.replace("[daemon]", "acd = 'rfc'\n[daemon]");
    let mut daemon = place.start(&lab);
    place.replace(&format!("'{OURS}/24'"), &format!("'{OURS}/24', '{SECOND}'"));
    let text = fs::read_to_string(&place.config).unwrap();
    fs::write(&place.config, text + &format!("[[forward]]\nfrom = '{SECOND}:81'\nto = '8080'\n")).unwrap();
    daemon.signal(Signal::SIGHUP);
    place.tells("RELOADING=1");
    assert!(place.addresses(&lab).contains(&SECOND.to_string()), "it is looked at meanwhile");
    assert!(!place.log().contains("claimed"), "the reload was over before that: {}", place.log());
    wait_for("the reload", || place.log().contains("2 listeners kept, 1 started, 0 stopped"));
    echoes(&mut try_peer_at(&lab, SECOND, 81, 0).unwrap(), b"a new address");

    insists(&lab, SECOND, OURS, || place.log().contains(&format!("{SECOND} is lost to ")));
    wait_for("the end of what listened there", || {
        place.log().contains(&format!("ours:{SECOND}:81 has ended"))
    });
    echoes(&mut peer(&lab, 80, 0), b"the other one is there");
    insists(&lab, OURS, Ipv4Addr::new(10, 77, 0, 99), || daemon.has_ended());
    assert_eq!(daemon.finish().status.code(), Some(45), "{}", place.log());
    assert!(place.log().contains("no address is left"), "{}", place.log());

    place.configure(&[(80, 8080)], 1.0);
    place.replace("[daemon]", "acd = 'rfc'\n[daemon]");
    let third = "10.77.0.52";
    lab.output(Host::Peer, &["ip", "address", "del", &format!("{OURS}/32"), "dev", "peer0"]);
    let mut daemon = place.start(&lab);
    place.replace(&format!("'{OURS}/24'"), &format!("'{OURS}/24', '{third}'"));
    daemon.signal(Signal::SIGHUP);
    // Whoever is told must listen, or the daemon waits.
    place.tells("RELOADING=1");
    wait_for("the claim", || place.addresses(&lab).contains(&third.to_owned()));
    daemon.signal(Signal::SIGTERM);
    wait_for("the daemon to end", || daemon.has_ended());
    assert!(!place.log().contains("reloaded"), "it waited for the reload: {}", place.log());
}

/// The peer uses an address of ours, and asks for another from it until that has happened.
fn insists(lab: &TestLab, address: Ipv4Addr, asks_for: Ipv4Addr, mut until: impl FnMut() -> bool) {
    lab.output(Host::Peer, &["ip", "address", "add", &format!("{address}/32"), "dev", "peer0"]);
    wait_for("the loss of an address", || {
        let _ = run_for(lab.on(Host::Peer, "ip").args(["neighbour", "flush", "dev", "peer0"]), PATIENCE);
        let words = ["-c", "1", "-W", "1", "-I", &address.to_string(), &asks_for.to_string()];
        let _ = run_for(lab.on(Host::Peer, "ping").args(words), PATIENCE);
        until()
    });
}

#[test]
fn killed_and_started_again_it_collides_with_nothing_that_is_left_at_the_peers() {
    let test = "killed_and_started_again_it_collides_with_nothing_that_is_left_at_the_peers";
    let Some(lab) = TestLab::with_servers(test, &["setpriv", "curl"]) else { return };
    let state = lab.host_state();
    echo_on_host(&lab, 8080);
    let place = Place::new();
    place.configure(&[(80, 8080)], 1.0);
    let daemon = place.start(&lab);
    let mut silent = peer(&lab, 80, 40_001);
    echoes(&mut silent, b"before");
    let mut speaking = peer(&lab, 80, 40_002);
    echoes(&mut speaking, b"before");
    daemon.signal(Signal::SIGKILL);
    drop(daemon);
    wait_for("the program to go", || !lab.has_program());
    wait_for("the control socket to go", || !place.socket.exists());
    place.nothing_is_left(&lab, &state);

    let daemon = place.start(&lab);
    // Who speaks learns at once that what it spoke to is gone.
    let asked = Instant::now();
    speaking.write_all(b"are you there?").unwrap();
    ends(&mut speaking, "when it spoke to the next life");
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
    drop(speaking);
    // The same port serves again at once, as if nothing had been.
    let asked = Instant::now();
    echoes(&mut peer(&lab, 80, 40_002), b"a new life");
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
    silent.write_all(b"and I?").unwrap();
    ends(&mut silent, "when it spoke to the next life");

    // Killed together with its guard it does leave the socket file, which is the ordinary user's by now.
    let guard = guard_of(&daemon);
    let status = fs::read_to_string(format!("/proc/{guard}/status")).unwrap();
    for line in ["Uid:\t65534\t", "CapPrm:\t0000000000000000\n", "Seccomp:\t2\n"] {
        assert!(status.contains(line), "{status}");
    }
    kill(Pid::from_raw(guard), Signal::SIGKILL).unwrap();
    daemon.signal(Signal::SIGKILL);
    drop(daemon);
    wait_for("the program to go", || !lab.has_program());
    assert!(place.socket.exists());
    let mut daemon = place.start(&lab);
    echoes(&mut peer(&lab, 80, 0), b"a third life");

    daemon.signal(Signal::SIGTERM);
    wait_for("the daemon to end", || daemon.has_ended());
    place.nothing_is_left(&lab, &state);
}

/// The process that outlives the daemon.
fn guard_of(daemon: &Running) -> i32 {
    let threads = fs::read_dir(format!("/proc/{}/task", daemon.id())).unwrap();
    let children: String =
        threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("children")).unwrap()).collect();
    children.trim().parse().expect("one child, the guard")
}

/// A daemon's configuration, and where it keeps what it keeps.
struct Place {
    _directory: TempDir,
    config: PathBuf,
    socket: PathBuf,
    state: PathBuf,
    log: PathBuf,
    /// Where a service manager is told.
    notified: UnixDatagram,
    /// A copy that users may run who may not see where it was built.
    binary: PathBuf,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        let (config, socket, state, log) =
            (at("xstack.toml"), at("run/control.sock"), at("state"), at("log"));
        let notified = UnixDatagram::bind(at("notify")).unwrap();
        // As systemd's: whoever the daemon has become may tell.
        fs::set_permissions(at("notify"), Permissions::from_mode(0o777)).unwrap();
        notified.set_read_timeout(Some(PATIENCE)).unwrap();
        let binary = at("xstack");
        fs::copy(XSTACK, &binary).unwrap();
        Self { _directory: directory, config, socket, state, log, notified, binary }
    }

    /// Has it forward ports of our address to ports of the host's.
    fn configure(&self, forwards: &[(u16, u16)], grace: f64) {
        let mut text = format!(
            "[network]\ninterface = 'xs0'\naddresses = ['{OURS}/24']\n[daemon]\nstate-directory = '{}'\ngrace = {grace}\n\
             [control]\nsocket = '{}'\nallow-users = [{FRIEND}]\n",
            self.state.display(),
            self.socket.display(),
        );
        text += "[[proxy]]\nlisten = ['kernel:127.0.0.1:1080']\n";
        for (from, to) in forwards {
            text += &format!("[[forward]]\nfrom = '{from}'\nto = '{to}'\n");
        }
        fs::write(&self.config, text).unwrap();
        fs::set_permissions(&self.config, Permissions::from_mode(0o644)).unwrap();
    }

    /// Changes the configuration.
    fn replace(&self, old: &str, new: &str) {
        let text = fs::read_to_string(&self.config).unwrap();
        assert!(text.contains(old), "{text}");
        fs::write(&self.config, text.replace(old, new)).unwrap();
    }

    /// The addresses that it says to have.
    fn addresses(&self, lab: &TestLab) -> Vec<String> {
        let (_, status, error) = self.client(lab, FRIEND, &["status", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&status).expect(&error);
        let networks = status["networks"].as_array().unwrap();
        let addresses = networks.iter().flat_map(|network| network["addresses"].as_array().unwrap());
        addresses.map(|address| address["address"].as_str().unwrap().to_owned()).collect()
    }

    fn start(&self, lab: &TestLab) -> Running {
        let log = File::create(&self.log).unwrap();
        let mut command = lab.on(Host::Host, XSTACK);
        command.arg("daemon").arg(&self.config).stdout(Stdio::null()).stderr(log);
        command.env("NOTIFY_SOCKET", self.config.with_file_name("notify")).env_remove("RUNTIME_DIRECTORY");
        let mut daemon = Running::start(&mut command);
        wait_for("the daemon", || {
            assert!(!daemon.has_ended(), "it ended: {}", self.log());
            self.log().contains("control socket")
        });
        daemon
    }

    /// The service manager is told this, after whatever else.
    #[track_caller]
    fn tells(&self, expected: &str) {
        let mut bytes = [0; 1000];
        loop {
            let length = self.notified.recv(&mut bytes).unwrap_or_else(|_| panic!("{expected} is not told"));
            if String::from_utf8_lossy(&bytes[..length]).lines().any(|line| line.starts_with(expected)) {
                return;
            }
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// A command as another user: exit code, standard output, standard error.
    fn client(&self, lab: &TestLab, uid: u32, words: &[&str]) -> (Option<i32>, String, String) {
        let mut command = lab.on(Host::Host, "setpriv");
        command.args([&format!("--reuid={uid}"), "--regid=4700", "--clear-groups"]).arg(&self.binary);
        command.args(words).env("XSTACK_CONTROL", &self.socket);
        let outcome = run_for(&mut command, PATIENCE);
        (outcome.code, String::from_utf8(outcome.stdout).unwrap(), outcome.stderr)
    }

    /// By whom it may, without any privilege.
    fn is_looked_at(&self, lab: &TestLab) {
        let (code, status, error) = self.client(lab, FRIEND, &["status", "--json"]);
        assert_eq!(code, Some(0), "{error}");
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        let network = &status["networks"][0];
        assert_eq!(
            (&network["interface"], &network["addresses"][0]["address"]),
            (&"xs0".into(), &OURS.to_string().into())
        );
        assert_eq!(
            (&status["relays"][0]["active"], &status["relays"][0]["to_client"]),
            (&1.into(), &6.into())
        );
        let (_, text, _) = self.client(lab, FRIEND, &["status"]);
        assert!(text.contains("ours:0.0.0.0:80 -> kernel:127.0.0.1:8080"), "{text}");

        let (_, text, _) = self.client(lab, FRIEND, &["connections", "-i"]);
        assert!(
            text.starts_with("State") && text.contains("ESTAB") && text.contains("10.77.0.50:80"),
            "{text}"
        );
        assert!(text.contains("cubic") && text.contains("rtt:"), "{text}");
        let (_, lines, _) = self.client(lab, FRIEND, &["connections", "-l", "--json"]);
        let ports: Vec<_> = lines.lines().map(|line| line.contains("\"LISTEN\"")).collect();
        assert_eq!(ports, [true, true], "{lines}");
        let (_, none, _) = self.client(lab, FRIEND, &["connections", "-H", "--port", "9"]);
        assert_eq!(none, "");

        let expected = String::from_utf8(lab.real_curl("http://example.com/")).unwrap();
        for words in [&["curl", "-sS", "--daemon"][..], &["curl", "-sS"]] {
            let (code, page, error) = self.client(lab, FRIEND, &[words, &["http://example.com/"]].concat());
            assert_eq!((code, &page), (Some(0), &expected), "{words:?}: {error}");
        }
        let (code, _, error) = self.client(lab, FRIEND, &["curl", "-sS", "--daemon", "http://10.77.1.2:9/"]);
        assert_eq!(code, Some(7), "{error}");
        let (code, _, error) = self.client(lab, FRIEND, &["curl", "-sS", "--daemon", "http://x.invalid/"]);
        assert_eq!(code, Some(6), "{error}");

        // Any program, unchanged.
        let proxied = ["curl", "-sS", "--socks5-hostname", "127.0.0.1:1080", "http://example.com/"];
        assert_eq!(lab.text(Host::Host, &proxied), expected);

        for words in [&["status"][..], &["connections"], &["curl", "-sS", "--daemon", "http://example.com/"]]
        {
            let (code, output, error) = self.client(lab, STRANGER, words);
            assert_eq!((code, output.as_str()), (Some(111), ""), "{error}");
            assert!(error.contains("this user may not use the daemon"), "{error}");
        }
    }

    /// A second daemon is refused before it touches anything.
    fn is_one_of_a_kind(&self, lab: &TestLab) {
        let mut command = lab.on(Host::Host, XSTACK);
        let outcome = run_for(command.arg("daemon").arg(&self.config), PATIENCE).expect_code(102);
        assert!(outcome.stderr.contains("in use by a running daemon (pid "), "{}", outcome.stderr);
    }

    fn nothing_is_left(&self, lab: &TestLab, state: &str) {
        assert!(!lab.has_program());
        assert!(!self.socket.exists());
        assert_eq!(lab.host_state(), state, "the host is not as it was");
        assert!(try_peer(lab, 80, 0).is_err(), "nobody has the address");
    }
}

/// Runs something in the network namespace of a host.
fn inside<T: Send + 'static>(lab: &TestLab, host: Host, work: impl FnOnce() -> T + Send + 'static) -> T {
    let namespace = File::open(Path::new("/run/netns").join(lab.namespace(host))).unwrap();
    let thread = thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    });
    thread.join().unwrap()
}

/// A server of the host's kernel that says back what it hears.
fn echo_on_host(lab: &TestLab, port: u16) {
    let listener = inside(lab, Host::Host, move || TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || {
                let mut bytes = [0; 1000];
                while let Ok(read @ 1..) = stream.read(&mut bytes) {
                    if stream.write_all(&bytes[..read]).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// A connection of the peer's kernel to a port of ours, from a port of its own unless that is 0.
fn try_peer(lab: &TestLab, to: u16, from: u16) -> std::io::Result<TcpStream> {
    try_peer_at(lab, OURS, to, from)
}

fn try_peer_at(lab: &TestLab, at: Ipv4Addr, to: u16, from: u16) -> std::io::Result<TcpStream> {
    inside(lab, Host::Peer, move || {
        let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        let stream = TcpStream::from(socket);
        let fd = std::os::fd::AsRawFd::as_raw_fd(&stream);
        bind(fd, &SockaddrIn::from(std::net::SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, from)))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        match SocketAddr::from((at, to)) {
            SocketAddr::V4(to) => connect(fd, &SockaddrIn::from(to))?,
            SocketAddr::V6(_) => {}
        }
        Ok(stream)
    })
}

#[track_caller]
fn peer(lab: &TestLab, to: u16, from: u16) -> TcpStream {
    try_peer(lab, to, from).unwrap()
}

#[track_caller]
fn echoes(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
    let mut answer = vec![0; bytes.len()];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, bytes);
}

/// The peer is told that it is over: it is not left to find out.
#[track_caller]
fn ends(stream: &mut TcpStream, when: &str) {
    match stream.read(&mut [0; 1000]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("{when}: {other:?}"),
    }
}

fn wait_for(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !happened() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        sleep(Duration::from_millis(10));
    }
}
