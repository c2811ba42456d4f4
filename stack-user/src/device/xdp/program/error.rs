//! Why there is no program, and what to do about it.

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
};

use aya::maps::MapError;
use caps::{CapSet, Capability};

use super::{
    Refusal,
    attachment::{self, Held},
};
use crate::device::{
    remedy::Change,
    xdp::{log_remedy, privilege_remedy},
};

/// Loading, attaching or instructing the XDP program failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// There is no such interface in this network namespace.
    #[error("there is no interface `{interface}` in this network namespace: `ip link` lists them")]
    NoInterface {
        /// What was asked for.
        interface: String,
    },
    /// A privilege is missing.
    #[error(
        "loading the XDP program was refused, a privilege is missing ({missing}): {}",
        privilege_remedy()
    )]
    Privilege {
        /// The capabilities, by name.
        missing: String,
    },
    /// The program that logs needs one more than the one that does not.
    #[error(
        "the XDP program that logs was refused, CAP_PERFMON is missing: leave --log out, {}",
        log_remedy()
    )]
    LogPrivilege,
    /// The kernel can't do it.
    #[error("this kernel can't load the XDP program ({reason}): it needs Linux 5.18 with CONFIG_BPF_SYSCALL")]
    Unsupported {
        /// What the kernel said.
        reason: String,
    },
    /// The verifier or the loader found fault with the program.
    #[error("the XDP program could not be loaded: {reason}. Please report this with `uname -a`")]
    Load {
        /// What was said.
        reason: String,
    },
    /// A program of ours is there.
    #[error(
        "another xstack has {interface}, by the XDP program {program}, and one has an interface at a time: stop that \
         one, or go through it if it is a daemon; if xdp-loader attached the program, use --program pinned:DIR. It is {held}"
    )]
    Occupied {
        /// The interface.
        interface: String,
        /// The program's name and id.
        program: String,
        /// What keeps it there.
        held: Held,
    },
    /// Somebody else's program is there.
    #[error(
        "another XDP program, {program}, is attached to {interface}, {held}. Or have it loaded by xdp-loader: what that loads \
         shares the interface by libxdp's dispatcher, and xstack joins"
    )]
    Conflict {
        /// The interface.
        interface: String,
        /// The other program's name and id.
        program: String,
        /// What keeps it there.
        held: Held,
    },
    /// A program is there, and its pins are not for us.
    #[error(
        "{interface} has an XDP program, and {} may not be looked at: if it is one that `xstack attach` left, have it attached \
         for a group that you are in (`xstack attach {interface} --group NAME`), or run this with sudo", directory.display()
    )]
    Forbidden {
        /// The interface.
        interface: String,
        /// Where its program is kept.
        directory: PathBuf,
    },
    /// Others share the interface, and we may not join them.
    #[error(
        "{interface} has a dispatcher of libxdp's, and joining it was refused: it takes root (CAP_SYS_ADMIN, CAP_NET_ADMIN, \
         CAP_BPF and CAP_PERFMON), or `xstack attach {interface}` by root before"
    )]
    DispatcherPrivilege {
        /// The interface.
        interface: String,
    },
    /// Ten programs share the interface.
    #[error(
        "the dispatcher of {interface} runs ten programs, which is all that it can: `xdp-loader status {interface}` lists them"
    )]
    DispatcherFull {
        /// The interface.
        interface: String,
    },
    /// Programs can't share the interface.
    #[error(
        "this kernel can't run several XDP programs on {interface}, or does not let us (extension programs: CONFIG_DEBUG_INFO_BTF, \
         and a JIT that has trampolines): leave --dispatcher out"
    )]
    NoDispatcher {
        /// The interface.
        interface: String,
    },
    /// libxdp refused.
    #[error(
        "the XDP program could not join the dispatcher of {interface} ({source}): `xdp-loader status {interface}` shows who is in it"
    )]
    Dispatcher {
        /// The interface.
        interface: String,
        /// What was said.
        source: io::Error,
    },
    /// The process that is to leave the dispatcher after us did not start.
    #[error(
        "no process could be started that takes the program out of the dispatcher when this one is killed: {source}"
    )]
    Guard {
        /// What was said.
        source: io::Error,
    },
    /// The program that is there runs elsewhere than asked for.
    #[error(
        "{interface} has a program in {there} mode, and all of an interface run in the same: leave --mode out, or `xstack detach \
         {interface}` first"
    )]
    OtherMode {
        /// The interface.
        interface: String,
        /// Where the program runs.
        there: &'static str,
    },
    /// There is nothing that pins could be made in.
    #[error("there is no BPF file system at {}: `{}`", directory.display(), Change::MountBpffs.command())]
    NoBpfFileSystem {
        /// What there is of the path to where the program was to be kept.
        directory: PathBuf,
    },
    /// A directory of pins can't be changed.
    #[error("cannot keep an XDP program in {}: {reason}", directory.display())]
    Keep {
        /// The directory.
        directory: PathBuf,
        /// What the kernel said.
        reason: String,
    },
    /// Somebody else made the pins.
    #[error(
        "what is in {} was pinned by somebody else, and is left alone: `xdp-loader unload IFACE --all` takes off what xdp-loader \
         loaded, and `rm -r {}` removes the rest, if nobody needs it; or name another place by --pins",
        directory.display(), directory.display()
    )]
    OperatorsPins {
        /// The directory.
        directory: PathBuf,
    },
    /// Somebody else can change what is kept.
    #[error(
        "{} {why}, so that what is kept there may be anybody's, and is not used: `ls -lR {}` shows it, `sudo rm -r {}` removes it",
        path.display(), path.display(), path.display()
    )]
    Untrusted {
        /// The directory of the pins, or one above it.
        path: PathBuf,
        /// Why it is not trusted.
        why: String,
    },
    /// Those who were to use the program don't get to its maps.
    #[error(
        "members of the group {} can't pass {}: `sudo chmod o+x {}` lets everybody, and each thing in it keeps its own mode",
        group_name(*group), closed.display(), closed.display()
    )]
    GroupKeptOut {
        /// The group.
        group: u32,
        /// The directory above the pins that is closed to them.
        closed: PathBuf,
    },
    /// Somebody uses the program that was to be taken off.
    #[error(
        "the program of {interface} is in use by process {}: stop it, or say --force, and it will receive nothing more",
        if users.is_empty() { "of another container".to_owned() } else { users.join(", ") }
    )]
    InUse {
        /// The interface.
        interface: String,
        /// Process ids and names.
        users: Vec<String>,
    },
    /// Somebody is attaching or detaching.
    #[error("the program in {} is being attached or detached by somebody else: try again", directory.display())]
    Changing {
        /// The directory.
        directory: PathBuf,
    },
    /// All owners' numbers are taken.
    #[error("too many programs use the maps in {}: {} at a time may", directory.display(), super::owners::MAX)]
    TooManyUsers {
        /// The directory.
        directory: PathBuf,
    },
    /// Another program of this host has the address.
    #[error("{address} is claimed by another xstack on this interface{owner}: choose another address")]
    Claimed {
        /// The address.
        address: std::net::IpAddr,
        /// Which one, as far as it can be told.
        owner: String,
    },
    /// The driver or the kernel refused.
    #[error("{interface} refused the XDP program in {mode} mode: {refusal}{}", slower_way(mode))]
    Refused {
        /// The interface.
        interface: String,
        /// The mode that was tried.
        mode: &'static str,
        /// What was said, and what may help.
        refusal: Box<Refusal>,
    },
    /// The pinned maps can't be used.
    #[error(
        "cannot use the pinned {} ({reason}): attach the program by `xstack attach {interface}` first, or by `xdp-loader load \
         -m native -p {} {interface} xstack.bpf.o`", path.display(), path.parent().unwrap_or(Path::new("/")).display()
    )]
    Pin {
        /// The map.
        path: PathBuf,
        /// The interface that we want.
        interface: String,
        /// What the kernel said.
        reason: String,
    },
    /// The pinned maps mean something else.
    #[error(
        "the program pinned in {} speaks version {theirs}, and we speak {ours}: {remedy}", directory.display()
    )]
    Version {
        /// Where the maps are pinned.
        directory: PathBuf,
        /// The version of the pinned program.
        theirs: u32,
        /// Our version.
        ours: u32,
        /// What to do.
        remedy: String,
    },
    /// The pinned maps are of a program that is elsewhere.
    #[error(
        "the program whose maps are pinned in {} is not attached to {interface}: `xdp-loader status` shows what is",
        directory.display()
    )]
    NotAttached {
        /// Where the maps are pinned.
        directory: PathBuf,
        /// The interface that we want.
        interface: String,
    },
    /// Another process receives from the queue.
    #[error(
        "queue {queue} of {interface} already goes to another socket: stop its program, or choose by --queue"
    )]
    QueueTaken {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
    },
    /// Port ranges that can't be claimed.
    #[error(
        "these ports can't be claimed: give at most {} ranges, each from low to high",
        stack_common::abi::Claim::RANGES_MAX
    )]
    Ports,
    /// The kernel did not let us read or write a map.
    #[error("a map of the XDP program could not be used: {reason}")]
    Map {
        /// What was said.
        reason: String,
    },
    /// The capabilities are gone, and the kernel wants one for every change.
    #[error(
        "this kernel lets nobody without CAP_BPF change what an XDP program is told, not even who has the map open: it          needs Linux 5.19 for that, or `sysctl kernel.unprivileged_bpf_disabled=0`; without either, give all addresses          at the start"
    )]
    MapPrivilege,
    /// The object lacks a map.
    #[error("the built-in XDP object has no map {name}: rebuild it by `cargo xtask build-ebpf`")]
    NoMap {
        /// The map.
        name: &'static str,
    },
    /// The object lacks the program.
    #[error("the built-in XDP object has no program: rebuild it by `cargo xtask build-ebpf`")]
    NoProgram,
    /// The program's log could not be opened.
    #[error("the XDP program's log records can't be read ({source}): leave its log level out")]
    Log {
        /// What was said.
        source: io::Error,
    },
    /// The kernel did not tell what is attached.
    #[error("cannot find out which XDP program is attached to {interface}: {source}")]
    Netlink {
        /// The interface.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl ProgramError {
    pub(super) fn load(source: &(dyn Error + 'static)) -> Self {
        let reason = whole_story(source);
        let verifier_said_nothing = reason.trim_end().ends_with("Verifier output:");
        match os_error(source) {
            Some(libc::EPERM | libc::EACCES) if !missing().is_empty() => {
                Self::Privilege { missing: missing().join(" and ") }
            }
            Some(libc::ENOSYS) => Self::Unsupported { reason },
            // The flag for programs that take frames in several buffers is unknown before 5.18.
            Some(libc::EINVAL) if verifier_said_nothing => Self::Unsupported { reason },
            _ => Self::Load { reason: ends(&reason) },
        }
    }

    /// The same about the program that logs.
    pub(super) fn of_logging(self) -> Self {
        match self {
            Self::Load { .. } if !has(Capability::CAP_PERFMON) && !has(Capability::CAP_SYS_ADMIN) => {
                Self::LogPrivilege
            }
            other => other,
        }
    }

    pub(super) fn attach(
        interface: &str,
        index: u32,
        mode: &'static str,
        source: io::Error,
        refusal: impl FnOnce(io::Error) -> Refusal,
    ) -> Self {
        let interface = interface.to_owned();
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) if !missing().is_empty() => {
                Self::Privilege { missing: missing().join(" and ") }
            }
            Some(libc::EBUSY | libc::EEXIST) => Self::in_the_way(&interface, index),
            _ => Self::Refused { interface, mode, refusal: Box::new(refusal(source)) },
        }
    }

    /// Somebody's program is where ours was to be.
    pub(super) fn in_the_way(interface: &str, index: u32) -> Self {
        let attached = attachment::attached(index).ok().flatten();
        let program =
            attached.as_ref().map_or_else(|| "which is gone by now".to_owned(), ToString::to_string);
        let held = attached.as_ref().map(|attached| attachment::held(interface, index, attached));
        let (interface, held) = (interface.to_owned(), held.unwrap_or(Held::Unknown));
        match attached.is_some_and(|attached| attached.is_ours()) {
            true => Self::Occupied { interface, program, held },
            false => Self::Conflict { interface, program, held },
        }
    }

    pub(super) fn pin(path: PathBuf, interface: &str, source: &(dyn Error + 'static)) -> Self {
        match os_error(source) {
            // File permissions decide, not capabilities.
            Some(libc::EACCES) => Self::Forbidden {
                interface: interface.to_owned(),
                directory: path.parent().unwrap_or(Path::new("/")).to_owned(),
            },
            _ => Self::Pin { path, interface: interface.to_owned(), reason: whole_story(source) },
        }
    }

    /// A directory of pins could not be changed.
    pub(super) fn keep(directory: &Path, source: &(dyn Error + 'static)) -> Self {
        match os_error(source) {
            Some(libc::EPERM | libc::EACCES) if !missing().is_empty() => {
                Self::Privilege { missing: missing().join(" and ") }
            }
            _ => Self::Keep { directory: directory.to_owned(), reason: whole_story(source) },
        }
    }

    pub(super) fn map(source: MapError) -> Self {
        match os_error(&source) {
            Some(libc::EPERM) => Self::MapPrivilege,
            _ => Self::Map { reason: whole_story(&source) },
        }
    }
}

/// A group as people know it.
fn group_name(id: u32) -> String {
    let group = nix::unistd::Group::from_gid(id.into()).ok().flatten();
    group.map_or_else(|| id.to_string(), |group| group.name)
}

/// Where a driver refuses, the kernel does it after the driver.
fn slower_way(mode: &str) -> &'static str {
    if mode == "generic" { "" } else { "; else --mode generic does without the driver, and is slower" }
}

/// The capabilities that we need and don't have.
fn missing() -> Vec<&'static str> {
    let mut missing = Vec::new();
    if !has(Capability::CAP_BPF) && !has(Capability::CAP_SYS_ADMIN) {
        missing.push("CAP_BPF");
    }
    if !has(Capability::CAP_NET_ADMIN) {
        missing.push("CAP_NET_ADMIN");
    }
    missing
}

fn has(capability: Capability) -> bool {
    caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false)
}

/// The system's error number at the bottom of an error.
pub(super) fn os_error(error: &(dyn Error + 'static)) -> Option<i32> {
    causes(error).find_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error())
}

/// An error with all its causes, in a line. Some repeat their cause, which is then left out.
fn whole_story(error: &(dyn Error + 'static)) -> String {
    causes(error).fold(String::new(), |mut story, cause| {
        let cause = cause.to_string();
        if !story.contains(&cause) {
            if !story.is_empty() {
                story.push_str(": ");
            }
            story.push_str(&cause);
        }
        story
    })
}

/// The beginning of a long text, which is the error, and its end, where the verifier tells what it did not like. All
/// in one line.
fn ends(text: &str) -> String {
    const LINES: usize = 4;
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.len() <= 2 * LINES {
        return lines.join("; ");
    }
    format!("{}; ...; {}", lines[0], lines[lines.len() - LINES..].join("; "))
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (*error).source())
}

#[cfg(test)]
mod tests {
    use super::*;
    use aya::sys::SyscallError;

    #[test]
    fn a_long_verifier_log_becomes_a_line() {
        let log = (0..100).map(|line| format!("{line}: r0 = 0\n")).collect::<String>();
        let line = ends(&format!("refused: {log}"));
        assert_eq!(line, "refused: 0: r0 = 0; ...; 96: r0 = 0; 97: r0 = 0; 98: r0 = 0; 99: r0 = 0");
        assert_eq!(ends("refused"), "refused");
    }

    #[test]
    fn the_story_is_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer: {0}")]
        struct Outer(#[from] io::Error);
        let error = Outer(io::Error::from_raw_os_error(libc::EPERM));
        assert_eq!(os_error(&error), Some(libc::EPERM));
        assert_eq!(whole_story(&error).matches("not permitted").count(), 1);
    }

    #[test]
    fn an_older_kernel_that_refuses_a_change_is_told_as_such() {
        let refused = |errno| {
            let io_error = io::Error::from_raw_os_error(errno);
            ProgramError::map(SyscallError { call: "bpf_map_update_elem", io_error }.into()).to_string()
        };
        assert!(refused(libc::EPERM).contains("5.19") && refused(libc::EPERM).contains("CAP_BPF"));
        assert!(refused(libc::ENOSPC).contains("bpf_map_update_elem"));
    }
}
