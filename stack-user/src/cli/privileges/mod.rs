//! What the process gives up once everything is open.
//!
//! Root, or the capabilities of the file, are for set-up only: the XDP program, the sockets on the queues, listeners below
//! port 1024. What the loop needs after that is in descriptors that it holds. So a command goes in this order: open the
//! network, bind what it binds, [give up](Privileges::give_up), serve. From then on there is no capability in any
//! thread, no uid 0, no way to get either back by running a program, and a [filter](seccomp) lets through the system
//! calls of the loop and of the command's [`Profile`], and no others.
//!
//! It is the network that the binary opens which does it ([`Network::give_up_privileges`]): tests of commands over other
//! networks stay what they are.
//!
//! [`Network::give_up_privileges`]: super::network::Network::give_up_privileges

mod calls;
mod capabilities;
pub mod seccomp;
mod user;

use std::sync::atomic::{AtomicBool, Ordering};

use nix::{
    sys::prctl,
    unistd::{setgroups, setresgid, setresuid},
};

pub use self::{
    calls::Profile,
    seccomp::Filter,
    user::{Identity, UserSpec},
};
use super::{dispatcher_guard, error::Failure, global::GlobalOptions};
use crate::device::unprivileged::drop_capabilities;

/// Whom the process becomes, and how its system calls are filtered.
#[derive(Clone, Debug)]
pub struct Privileges {
    /// None where the process is no root, and stays who it is.
    identity: Option<Identity>,
    filter: Filter,
}

/// Whether the process has done it.
static GIVEN_UP: AtomicBool = AtomicBool::new(false);

/// Renounces what not even set-up needs. To be called before there is any other thread, as all inherit it.
///
/// # Errors
/// [`Failure::Privileges`] when the kernel refuses, which none of those that we run on does.
pub fn begin() -> Result<(), Failure> {
    prctl::set_no_new_privs().map_err(|error| refused("forbidding new ones", error))?;
    capabilities::renounce_inheritance().map_err(|error| refused("emptying the inherited sets", error))
}

impl Privileges {
    /// Decides what will be given up, before any interface is touched.
    ///
    /// # Errors
    /// [`Failure::Usage`] if there is no such user, or the process may not become it.
    pub fn plan(options: &GlobalOptions) -> Result<Self, Failure> {
        let identity = Identity::choose(options.user.as_ref()).map_err(Failure::Usage)?;
        Ok(Self { identity, filter: options.seccomp })
    }

    /// Whether the process will be another user, or is one already by this.
    pub fn changes_user(&self) -> bool {
        self.identity.is_some()
    }

    /// Whom the process becomes, unless it stays who it is: what it is to have in its hands afterwards must be theirs.
    pub fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// Gives it all up, in every thread that there is, and makes sure that it is gone. It is the process that does, once,
    /// however many networks it has: after the first time nothing happens, and the profile is the one of then.
    ///
    /// # Errors
    /// [`Failure::Privileges`]: the process must not go on then, as it may have kept some.
    pub fn give_up(&self, profile: Profile) -> Result<(), Failure> {
        if GIVEN_UP.load(Ordering::Acquire) {
            return Ok(());
        }
        // What we could tell it later, somebody else could, who has got hold of us.
        dispatcher_guard::enough();
        if let Some(identity) = self.identity {
            become_user(identity)?;
        }
        drop_capabilities().map_err(|error| refused("dropping the capabilities", error))?;
        // A core file, or another process of the same user, would have what was read as root: keys of TLS, for example.
        // The kernel itself has set this for all who changed their uid or run with capabilities of a file.
        prctl::set_dumpable(false).map_err(|error| refused("keeping others out of our memory", error))?;
        capabilities::verify().map_err(|error| refused("making sure that none is left", error))?;
        self.filter.install(profile).map_err(|error| refused("installing the system call filter", error))?;
        GIVEN_UP.store(true, Ordering::Release);
        Ok(())
    }
}

/// The C library has every thread do this, and ends the process if some could and others could not. As uid 0 is left, the
/// kernel empties the threads' capability sets.
fn become_user(identity: Identity) -> Result<(), Failure> {
    let Identity { uid, gid } = identity;
    let failed = |step: &'static str| {
        move |error: nix::Error| Failure::Privileges {
            step,
            reason: format!("{error} (uid {uid}, gid {gid}): is there such a user in this container?"),
        }
    };
    setgroups(&[]).map_err(failed("leaving root's groups"))?;
    setresgid(gid, gid, gid).map_err(failed("changing the group"))?;
    setresuid(uid, uid, uid).map_err(failed("changing the user"))
}

fn refused(step: &'static str, error: impl ToString) -> Failure {
    Failure::Privileges { step, reason: error.to_string() }
}
