//! Other network namespaces: who they are, and doing something in one.

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    thread,
};

use futures_util::StreamExt;
use nix::sched::{CloneFlags, setns};
use rtnetlink::{
    Handle,
    packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        nsid::{NsidAttribute, NsidMessage},
    },
};

use crate::device::{remedy::quoted, unprivileged};

/// Where `ip netns` keeps the names of namespaces.
const NAMED: &str = "/run/netns";

/// Processes that are asked for their namespace at most. Fewer, and a container on a large host is not found; more, and
/// finding out that nobody has it takes longer than anybody waits: each is two system calls.
const PROCESSES_MAX: usize = 16_384;

/// A network namespace that somebody has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespace {
    /// It has a name that `ip netns` knows.
    Named(String),
    /// It is this process's, and maybe others'.
    Process(u32),
}

impl Namespace {
    /// What to put before a command so that it runs there.
    pub fn command_prefix(&self) -> String {
        match self {
            Self::Named(name) => format!("ip netns exec {} ", quoted(name)),
            Self::Process(pid) => format!("nsenter --net=/proc/{pid}/ns/net "),
        }
    }

    fn path(&self) -> PathBuf {
        match self {
            Self::Named(name) => Path::new(NAMED).join(name),
            Self::Process(pid) => format!("/proc/{pid}/ns/net").into(),
        }
    }

    /// Does `work` there, in a thread of its own.
    ///
    /// # Errors
    /// When the namespace is gone, or we may not go there: that takes CAP_SYS_ADMIN.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        let there = File::open(self.path())?;
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                unprivileged::thread_begins();
                setns(there, CloneFlags::CLONE_NEWNET)?;
                Ok(work())
            });
            thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
        })
    }
}

/// The namespace that ours knows by this number: one with a name, else that of some process. `None` if neither is found,
/// or we may not look.
pub(super) async fn find(id: i32, handle: &Handle) -> Option<Namespace> {
    for name in entries(NAMED) {
        let namespace = Namespace::Named(name);
        if id_of(&namespace, handle).await == Some(id) {
            return Some(namespace);
        }
    }
    let mut seen = HashSet::new();
    let pids = entries("/proc").filter_map(|name| name.parse().ok()).take(PROCESSES_MAX);
    for pid in pids {
        let namespace = Namespace::Process(pid);
        let is_new = fs::metadata(namespace.path()).is_ok_and(|metadata| seen.insert(metadata.ino()));
        if is_new && id_of(&namespace, handle).await == Some(id) {
            return Some(namespace);
        }
    }
    None
}

fn entries(directory: &str) -> impl Iterator<Item = String> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// The number by which our namespace knows this one, if it does.
async fn id_of(namespace: &Namespace, handle: &Handle) -> Option<i32> {
    let there = File::open(namespace.path()).ok()?;
    let mut message = NsidMessage::default();
    message.attributes.push(NsidAttribute::Fd(u32::try_from(there.as_raw_fd()).ok()?));
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetNsId(message));
    request.header.flags = NLM_F_REQUEST;
    let mut answers = handle.clone().request(request).ok()?;
    match answers.next().await?.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNsId(answer)) => {
            answer.attributes.iter().find_map(|attribute| match attribute {
                NsidAttribute::Id(id) if *id >= 0 => Some(*id),
                _ => None,
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_run_where_the_namespace_is() {
        assert_eq!(Namespace::Named("xs-a".to_owned()).command_prefix(), "ip netns exec xs-a ");
        assert_eq!(Namespace::Process(7).command_prefix(), "nsenter --net=/proc/7/ns/net ");
    }

    #[test]
    fn a_namespace_that_is_not_there_can_t_be_entered() {
        assert!(Namespace::Named("xs-no-such-namespace".to_owned()).inside(|| ()).is_err());
    }
}
