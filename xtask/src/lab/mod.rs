//! The lab: a small internet in network namespaces, so that everything can be tried without a NIC and without
//! touching the machine's own network.
//!
//! ```text
//!          LAN 10.77.0.0/24                              10.77.1.0/24
//!   xs-host (xs0, .2) ──┐
//!                       ├─ bridge lan (.1) xs-router wan (.1) ── web0 (.2, .53) xs-web
//!   xs-peer (peer0, .3) ┘
//! ```
//!
//! `xs-host` is where xstack runs, beside the kernel's own stack with its own address. `xs-web` serves
//! `http://example.com/` on .2 and DNS on .53. A named lab puts its name into every namespace (`xs-NAME-host`),
//! so that tests have labs of their own.

pub mod command;
pub mod netns;
mod servers;
mod state;
pub mod topology;

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use anyhow::{Context, Result, bail};

pub use self::servers::ServerHandle;
use self::state::State;
use self::topology::Host;

/// Forgotten by a reboot, as the lab itself is.
const STATE_DIRECTORY: &str = "/run/xs-lab";

/// How a lab is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Queues of the host's interface, 1 or 2.
    pub queues: u32,
    /// The built `lab-server` that serves pages and names; without it the web host is there but silent.
    pub server: Option<PathBuf>,
}

/// A lab, up or not. It stays up when this value goes: [`Lab::down`] takes it down.
#[derive(Clone, Debug)]
pub struct Lab {
    name: Option<String>,
}

/// What [`Lab::up`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brought {
    /// The lab was not up, and now is.
    Up,
    /// It was up already, and answers.
    AlreadyUp,
}

impl Lab {
    /// The lab of that name, or the unnamed one.
    pub fn named(name: Option<&str>) -> Result<Self> {
        if let Some(name) = name {
            let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
            if name.is_empty() || name.len() > 32 || !plain {
                bail!("{name:?} is no name for a lab; use up to 32 of a-z, 0-9 and -");
            }
            if Host::ALL.iter().any(|host| host.name() == name) {
                bail!("a lab can't be called {name:?}: that is the name of one of its hosts");
            }
        }
        Ok(Self { name: name.map(str::to_owned) })
    }

    /// The network namespace of one of its hosts.
    pub fn namespace(&self, host: Host) -> String {
        match &self.name {
            Some(name) => format!("xs-{name}-{}", host.name()),
            None => format!("xs-{}", host.name()),
        }
    }

    /// A command that runs `program` on one of the lab's hosts. Root only.
    pub fn on(&self, host: Host, program: impl AsRef<OsStr>) -> Command {
        netns::command(&self.namespace(host), program)
    }

    /// Brings it up and waits until its servers answer. A lab that was left half up is taken down first. Root only.
    pub fn up(&self, options: &Options) -> Result<Brought> {
        let _lock = self.lock()?;
        if let Some(state) = State::load(&self.directory())?
            && state.is_complete_and_alive(self, options)
        {
            return Ok(Brought::AlreadyUp);
        }
        self.take_down()?;
        self.build(options).inspect_err(|_| {
            // The error that led here is the one to report.
            let _ = self.take_down();
        })?;
        Ok(Brought::Up)
    }

    /// Takes it down, wholly or what is there of it. Root only.
    pub fn down(&self) -> Result<()> {
        let _lock = self.lock()?;
        self.take_down()?;
        remove_if_there(fs::remove_file(self.lock_file()))?;
        // Other labs may have their state next to ours.
        let _ = fs::remove_dir(STATE_DIRECTORY);
        Ok(())
    }

    /// How it is.
    pub fn status(&self) -> Result<Status> {
        let state = State::load(&self.directory())?;
        let namespaces = Host::ALL
            .iter()
            .map(|&host| NamespaceStatus {
                host: host.name(),
                namespace: self.namespace(host),
                exists: netns::exists(&self.namespace(host)),
                addresses: host.addresses(),
            })
            .collect::<Vec<_>>();
        let servers: Vec<_> = state
            .iter()
            .flat_map(|state| &state.servers)
            .map(|server| ServerStatus {
                name: server.name.clone(),
                pid: server.pid,
                alive: server.is_alive(),
            })
            .collect();
        let complete = state.as_ref().is_some_and(|state| state.complete);
        let up =
            complete && namespaces.iter().all(|one| one.exists) && servers.iter().all(|server| server.alive);
        Ok(Status { up, queues: state.map_or(0, |state| state.queues), namespaces, servers })
    }

    /// Where its state and its servers' logs are.
    pub fn directory(&self) -> PathBuf {
        Path::new(STATE_DIRECTORY).join(self.name.as_deref().unwrap_or("default"))
    }

    fn build(&self, options: &Options) -> Result<()> {
        let directory = self.directory();
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let mut state = State { complete: false, queues: options.queues, servers: Vec::new() };
        state.save(&directory)?;
        topology::create(self, options.queues)?;
        if let Some(binary) = &options.server {
            let server = servers::start(self, binary)?;
            state.servers.push(server.clone());
            // Saved before waiting for it: whatever happens then, `down` knows whom to end.
            state.save(&directory)?;
            servers::wait_until_ready(self, binary, &server)?;
        }
        state.complete = true;
        state.save(&directory)
    }

    fn take_down(&self) -> Result<()> {
        let directory = self.directory();
        if let Some(state) = State::load(&directory)? {
            for server in &state.servers {
                server.end()?;
            }
        }
        topology::remove(self)?;
        remove_if_there(fs::remove_dir_all(&directory))
            .with_context(|| format!("cannot remove {}", directory.display()))
    }

    fn lock_file(&self) -> PathBuf {
        self.directory().with_extension("lock")
    }

    /// Serialises whoever brings this lab up or down. The lock goes with the returned file.
    fn lock(&self) -> Result<fs::File> {
        let path = self.lock_file();
        loop {
            fs::create_dir_all(STATE_DIRECTORY)
                .with_context(|| format!("cannot make {STATE_DIRECTORY}; the lab needs root"))?;
            let file = fs::File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
            file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
            // `down` removes the file while it holds the lock: who waited for it has locked a file that is gone.
            let still_there = fs::metadata(&path).is_ok_and(|now| {
                file.metadata().is_ok_and(|ours| (now.dev(), now.ino()) == (ours.dev(), ours.ino()))
            });
            if still_there {
                return Ok(file);
            }
        }
    }
}

/// What `lab status` reports.
#[derive(Debug, serde::Serialize)]
pub struct Status {
    /// Complete, and all of it alive.
    pub up: bool,
    /// Queues of the host's interface; 0 when there is none.
    pub queues: u32,
    /// One for each host.
    pub namespaces: Vec<NamespaceStatus>,
    /// The lab's own servers.
    pub servers: Vec<ServerStatus>,
}

/// One host of the lab.
#[derive(Debug, serde::Serialize)]
pub struct NamespaceStatus {
    /// What `lab exec` calls it.
    pub host: &'static str,
    /// What `ip netns` calls it.
    pub namespace: String,
    /// Whether it is there.
    pub exists: bool,
    /// Its addresses with their interfaces, as planned.
    pub addresses: &'static str,
}

/// One of the lab's own servers.
#[derive(Debug, serde::Serialize)]
pub struct ServerStatus {
    /// What it is.
    pub name: String,
    /// Its process.
    pub pid: i32,
    /// Whether that very process still runs.
    pub alive: bool,
}

/// Removing what is not there is no failure.
pub(crate) fn remove_if_there(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_namespaces() {
        let lab = Lab::named(None).unwrap();
        assert_eq!(lab.namespace(Host::Host), "xs-host");
        let lab = Lab::named(Some("e2e-7")).unwrap();
        assert_eq!(lab.namespace(Host::Web), "xs-e2e-7-web");
    }

    #[test]
    fn names_that_could_mean_something_else_are_refused() {
        for name in ["", "../x", "A", "host", "a b", &"x".repeat(33)] {
            assert!(Lab::named(Some(name)).is_err(), "{name:?}");
        }
    }
}
