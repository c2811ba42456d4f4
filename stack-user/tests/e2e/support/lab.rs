//! A lab that lives as long as its test.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) use xtask::lab::topology::{Host, address};
use xtask::lab::{Lab, Options};
use xtask::process::{find_program, is_root};

/// Removed when dropped, also while a failed test unwinds.
pub(crate) struct TestLab {
    lab: Lab,
}

impl TestLab {
    /// A lab with its own web and name server, or None and a SKIP line if it can't be here.
    pub(crate) fn with_servers(test: &str, programs: &[&str]) -> Option<Self> {
        Self::up(test, programs, 1, true)
    }

    /// A lab whose web host is silent: the test starts nginx or whatever it wants there.
    pub(crate) fn without_servers(test: &str, programs: &[&str]) -> Option<Self> {
        Self::up(test, programs, 1, false)
    }

    /// The same as [`Self::without_servers`], the host's interface having several queues.
    pub(crate) fn without_servers_with_queues(test: &str, programs: &[&str], queues: u32) -> Option<Self> {
        Self::up(test, programs, queues, false)
    }

    /// The same as [`Self::with_servers`], the host's interface having several queues.
    pub(crate) fn with_queues(test: &str, queues: u32) -> Option<Self> {
        Self::up(test, &[], queues, true)
    }

    fn up(test: &str, programs: &[&str], queues: u32, servers: bool) -> Option<Self> {
        if !is_root() {
            return skip(test, "network namespaces and XDP need root");
        }
        if let Some(missing) =
            ["ip", "ethtool"].iter().chain(programs).find(|name| find_program(name).is_none())
        {
            return skip(test, &format!("{missing} is not installed"));
        }
        static LABS: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let lab = Lab::named(Some(&name)).unwrap();
        match lab.up(&Options { queues, server: servers.then(server_binary) }) {
            Ok(_) => Some(Self { lab }),
            Err(error) if format!("{error:#}").contains("Operation not permitted") => {
                skip(test, &format!("this environment forbids network namespaces: {error:#}"))
            }
            Err(error) => panic!("the lab does not come up: {error:#}"),
        }
    }

    /// The network namespace of one of its hosts.
    pub(crate) fn namespace(&self, host: Host) -> String {
        self.lab.namespace(host)
    }

    /// A command on one of its hosts. Its standard input is empty.
    pub(crate) fn on(&self, host: Host, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.lab.on(host, program);
        command.stdin(Stdio::null());
        command
    }

    /// What a command on a host prints; fails the test if the command fails.
    pub(crate) fn output(&self, host: Host, words: &[&str]) -> Vec<u8> {
        let output = self.on(host, words[0]).args(&words[1..]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?} on {}: {}: {stderr}", host.name(), output.status);
        output.stdout
    }

    /// The same as text.
    pub(crate) fn text(&self, host: Host, words: &[&str]) -> String {
        String::from_utf8(self.output(host, words)).unwrap()
    }

    /// What the real curl gets.
    pub(crate) fn real_curl(&self, url: &str) -> Vec<u8> {
        self.output(Host::Host, &["curl", "--silent", "--show-error", "--max-time", "60", url])
    }

    /// Everything about the host's network that xstack could have changed. Counters are not part of it.
    pub(crate) fn host_state(&self) -> String {
        [
            &["ip", "-details", "address", "show"][..],
            &["ip", "route", "show", "table", "all"],
            &["ip", "rule", "show"],
            &["ethtool", "-k", "xs0"],
            &["ethtool", "-l", "xs0"],
        ]
        .map(|words| self.text(Host::Host, words))
        .concat()
    }

    /// Whether an XDP program is attached to the host's interface.
    pub(crate) fn has_program(&self) -> bool {
        self.text(Host::Host, &["ip", "link", "show", "xs0"]).contains("prog/xdp")
    }
}

impl Drop for TestLab {
    fn drop(&mut self) {
        if let Err(error) = self.lab.down() {
            eprintln!("the lab does not go down: {error:#}");
        }
    }
}

fn skip<T>(test: &str, reason: &str) -> Option<T> {
    println!("SKIP {test}: {reason}");
    None
}

/// Built by `cargo xtask test`; a test that is run by hand builds it itself.
pub(crate) fn server_binary() -> PathBuf {
    match std::env::var_os("XSTACK_LAB_SERVER") {
        Some(path) => path.into(),
        None => xtask::build::lab_server().unwrap(),
    }
}
