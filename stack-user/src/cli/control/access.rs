//! Who may speak to the daemon.

use nix::unistd::{Group, User, geteuid};
use serde::Deserialize;
use tokio::net::unix::UCred;

/// Users and groups that may, besides root and the daemon's own user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// By uid.
    pub users: Vec<u32>,
    /// By gid: the one that the client's process runs with, not those that its user is in besides.
    pub groups: Vec<u32>,
}

impl Access {
    /// Whether the process at the other end of a socket may speak to us.
    pub fn allows(&self, peer: &UCred) -> bool {
        peer.uid() == geteuid().as_raw() || self.allows_ids(peer.uid(), peer.gid())
    }

    pub(super) fn allows_ids(&self, uid: u32, gid: u32) -> bool {
        uid == 0 || self.users.contains(&uid) || self.groups.contains(&gid)
    }
}

/// A user or a group in a configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum NameOrId {
    /// By its number.
    Id(u32),
    /// By its name.
    Name(String),
}

impl NameOrId {
    /// The uid.
    ///
    /// # Errors
    /// When there is no such user.
    pub fn uid(&self) -> Result<u32, String> {
        self.look_up("user", |name| Ok(User::from_name(name)?.map(|user| user.uid.as_raw())))
    }

    /// The gid.
    ///
    /// # Errors
    /// When there is no such group.
    pub fn gid(&self) -> Result<u32, String> {
        self.look_up("group", |name| Ok(Group::from_name(name)?.map(|group| group.gid.as_raw())))
    }

    fn look_up(
        &self,
        what: &str,
        find: impl Fn(&str) -> Result<Option<u32>, nix::Error>,
    ) -> Result<u32, String> {
        match self {
            Self::Id(id) => Ok(*id),
            Self::Name(name) => match find(name) {
                Ok(Some(id)) => Ok(id),
                Ok(None) => Err(format!("there is no {what} '{name}'")),
                Err(error) => Err(format!("the {what} '{name}' cannot be looked up: {error}")),
            },
        }
    }
}
