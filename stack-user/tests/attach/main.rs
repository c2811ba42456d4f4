//! `xstack attach`, `detach` and `status`: a program that stays on its interface while those who use it come, go, and are
//! killed.

// A helper that unwraps fails its test with a line number.
#![allow(clippy::unwrap_used)]

#[path = "../xdp_program/namespace.rs"]
mod namespace;
mod refused;
mod users;

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use namespace::{HERE, PEER, has_program, run, test_in_namespace};
use serde_json::Value;

const XSTACK: &str = env!("CARGO_BIN_EXE_xstack");
const PINS: &str = "/sys/fs/bpf/xstack/xs-ebpf0";
const OURS: &str = "192.0.2.10";
const ANOTHER: &str = "192.0.2.11";

/// Exit code, standard output, standard error.
fn xstack(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(XSTACK).args(arguments).stdin(Stdio::null()).output().unwrap();
    told(&output)
}

fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let code = output.status.code().unwrap_or_else(|| -output.status.signal().unwrap());
    (code, text(&output.stdout), text(&output.stderr))
}

/// The same, which must succeed; what it printed.
#[track_caller]
fn succeeds(arguments: &[&str]) -> String {
    let (code, output, error) = xstack(arguments);
    assert_eq!(code, 0, "{arguments:?}: {error}");
    output
}

/// The same, which must fail in this way; what it complained.
#[track_caller]
fn fails(arguments: &[&str], expected: i32) -> String {
    let (code, output, error) = xstack(arguments);
    assert_eq!((code, output.as_str()), (expected, ""), "{arguments:?}: {error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

/// What `xstack status --json` tells of the interface.
#[track_caller]
fn status() -> Value {
    let mut all: Value = serde_json::from_str(&succeeds(&["status", HERE, "--json"])).unwrap();
    all["attachments"][0].take()
}

/// The id of the program on the interface.
fn program() -> u64 {
    let link: Value = serde_json::from_str(&run("ip", &["-json", "link", "show", HERE])).unwrap();
    link[0]["xdp"]["prog"]["id"].as_u64().unwrap()
}

fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_true() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// An `xstack serve` that has claimed an address. Killed when it is dropped.
struct Serving(Child);

impl Serving {
    /// Starts one, and waits until the peer gets an answer.
    fn start(address: &str) -> Self {
        Self::start_by(Command::new(XSTACK), address)
    }

    fn start_by(mut command: Command, address: &str) -> Self {
        run("ip", &["address", "replace", "192.0.2.1/24", "dev", PEER]);
        run("ethtool", &["-K", PEER, "tx", "off"]);
        let child = command
            .args(["--interface", HERE, "--address", &format!("{address}/24"), "serve", "/etc"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut serving = Self(child);
        wait_until("it answers", || {
            if serving.0.try_wait().unwrap().is_some() {
                let mut error = String::new();
                std::io::Read::read_to_string(&mut serving.0.stderr.take().unwrap(), &mut error).unwrap();
                panic!("it ended: {error}");
            }
            answers(address)
        });
        serving
    }

    fn pid(&self) -> u64 {
        self.0.id().into()
    }

    /// Asks it to end, which it does in order.
    fn stop(&mut self) {
        run("kill", &["-TERM", &self.0.id().to_string()]);
        let status = self.0.wait().unwrap();
        let mut said = String::new();
        std::io::Read::read_to_string(&mut self.0.stderr.take().unwrap(), &mut said).unwrap();
        assert!(status.success(), "{status}: {said}");
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether the kernel's TCP at the peer gets an answer from an address.
fn answers(address: &str) -> bool {
    let curl = Command::new("curl")
        .args(["--silent", "--max-time", "2", "--interface", PEER, &format!("http://{address}/")])
        .output()
        .unwrap();
    curl.status.success() && !curl.stdout.is_empty()
}

fn test_with_peer(name: &str, test: impl FnOnce() + Send + 'static) {
    for program in ["curl", "ethtool"] {
        if Command::new(program).arg("--version").output().is_err() {
            println!("SKIP attach::{name}: there is no {program}");
            return;
        }
    }
    test_in_namespace(&format!("attach::{name}"), test);
}

#[test]
fn a_program_stays_until_it_is_detached() {
    test_in_namespace("attach::a_program_stays_until_it_is_detached", || {
        let output = succeeds(&["attach", HERE]);
        let id = program();
        assert_eq!(output, format!("{HERE}: program {id} is attached, native mode, kept in {PINS}\n"));
        // Again is no harm, and changes nothing.
        for again in [&["--interface", HERE, "attach"][..], &["attach", "--interface", HERE, HERE]] {
            let output = succeeds(again);
            assert!(output.contains(&format!("program {id} was attached already")), "{output}");
        }
        let output = succeeds(&["attach", "--interface", HERE]);
        assert!(output.contains(&format!("program {id} was attached already")), "{output}");
        assert_eq!(program(), id);

        let status = status();
        assert_eq!((&status["interface"], &status["pins"]), (&HERE.into(), &PINS.into()));
        assert_eq!((&status["attached"], &status["by"]), (&true.into(), &"link".into()));
        assert_eq!((&status["program"], &status["mode"]), (&id.into(), &"native".into()));
        let our_abi = stack_common::abi::ABI_VERSION.into();
        assert_eq!((&status["abi"], &status["our_abi"]), (&our_abi, &our_abi));
        assert!(status["since"].as_u64().unwrap() > 1_700_000_000);
        assert_eq!((&status["users"], &status["claims"]), (&Value::Array(vec![]), &Value::Array(vec![])));
        let text = succeeds(&["status"]);
        assert!(
            text.starts_with(&format!("attachment     {HERE}: program {id} by a link, native mode, since "))
        );

        assert_eq!(succeeds(&["detach", HERE]), format!("{HERE}: program {id} is detached\n"));
        assert!(!has_program(HERE));
        assert!(!Path::new(PINS).exists());
        assert_eq!(succeeds(&["detach", HERE]), format!("{HERE}: nothing was attached to stay\n"));
        let error = fails(&["status", HERE], 45);
        assert!(error.contains(&format!("`xstack attach {HERE}`")), "{error}");
    });
}

#[test]
fn the_mode_is_as_asked_for_and_told() {
    test_in_namespace("attach::the_mode_is_as_asked_for_and_told", || {
        let output = succeeds(&["--mode", "generic", "attach", HERE]);
        assert!(output.contains("generic mode"), "{output}");
        assert_eq!(status()["mode"], "generic");
        let error = fails(&["--mode", "native", "attach", HERE], 45);
        assert!(
            error.contains("generic mode") && error.contains(&format!("xstack detach {HERE}")),
            "{error}"
        );
        succeeds(&["detach", HERE]);
        // The loopback's driver knows no XDP.
        let output = succeeds(&["attach", "lo"]);
        assert!(output.contains("generic mode, because the driver of lo refused"), "{output}");
        assert!(!Path::new(PINS).exists());
        succeeds(&["detach", "lo"]);
    });
}

/// The kernel detaches the link of an interface that goes; the pins stay.
#[test]
fn pins_of_an_interface_that_has_gone_are_in_nobodys_way() {
    test_in_namespace("attach::pins_of_an_interface_that_has_gone_are_in_nobodys_way", || {
        let again = || {
            run("ip", &["link", "delete", HERE]);
            run("ip", &["link", "add", HERE, "type", "veth", "peer", "name", PEER]);
            run("ip", &["link", "set", HERE, "up"]);
        };
        succeeds(&["attach", HERE]);
        again();
        assert_eq!((&status()["attached"], &status()["by"]), (&false.into(), &Value::Null));
        let text = succeeds(&["status"]);
        assert!(text.contains("and not on the interface"), "{text}");
        let output = succeeds(&["attach", HERE]);
        assert!(output.contains("is attached"), "{output}");
        assert_eq!(status()["program"], program());
        again();
        let output = succeeds(&["detach", HERE]);
        assert!(output.contains("no program was attached any more"), "{output}");
        assert!(!Path::new(PINS).exists());
        run("ip", &["link", "delete", HERE]);
        let error = fails(&["detach", HERE], 45);
        assert!(error.contains("there is no interface"), "{error}");
    });
}

#[test]
fn another_place_can_be_given() {
    test_with_peer("another_place_can_be_given", || {
        let pins = "/sys/fs/bpf/elsewhere/deep";
        succeeds(&["attach", HERE, "--pins", pins]);
        assert!(Path::new(pins).join("XSKS").exists() && !Path::new(PINS).exists());
        let mut command = Command::new(XSTACK);
        command.args(["--program", &format!("pinned:{pins}")]);
        drop(Serving::start_by(command, OURS));
        succeeds(&["detach", HERE, "--pins", pins]);
        assert!(!has_program(HERE) && !Path::new(pins).exists());
        assert_eq!(fs::read_dir("/sys/fs/bpf/elsewhere").unwrap().count(), 0);
    });
}
