//! What a lab remembers between two commands: how far it got, and which processes are its own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::servers::ServerHandle;
use super::topology::Host;
use super::{Lab, Options, netns};

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) complete: bool,
    pub(super) queues: u32,
    pub(super) servers: Vec<ServerHandle>,
}

impl State {
    /// Reads it. None if there is none; a file that can't be understood counts as a lab of which nothing is known.
    pub(super) fn load(directory: &Path) -> Result<Option<Self>> {
        match fs::read(file(directory)) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", file(directory).display())),
        }
    }

    pub(super) fn save(&self, directory: &Path) -> Result<()> {
        let path = file(directory);
        fs::write(&path, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Whether the lab is as asked for, and all there.
    pub(super) fn is_complete_and_alive(&self, lab: &Lab, options: &Options) -> bool {
        self.complete
            && self.queues == options.queues
            && self.servers.is_empty() == options.server.is_none()
            && self.servers.iter().all(ServerHandle::is_alive)
            && Host::ALL.iter().all(|&host| netns::exists(&lab.namespace(host)))
    }
}

fn file(directory: &Path) -> PathBuf {
    directory.join("state.json")
}
