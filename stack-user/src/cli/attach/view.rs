//! What `xstack status` tells of programs that are attached to stay.

use std::{
    fmt::Write as _,
    net::IpAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use crate::{
    cli::{
        control::{
            status::{duration, listed},
            view::Count,
        },
        date,
    },
    device::xdp::program::{
        ProgramError,
        inspect::{self, ClaimOwner, Via},
    },
};

/// A program that is attached to stay.
#[derive(Clone, Debug, Serialize)]
pub struct Attachment {
    /// The interface.
    pub interface: String,
    /// Where it is kept.
    pub pins: String,
    /// Why nothing more can be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// All the rest.
    #[serde(flatten)]
    pub details: Option<Details>,
}

/// What is known of it.
#[derive(Clone, Debug, Serialize)]
pub struct Details {
    /// Whether it is on the interface, in this network namespace.
    pub attached: bool,
    /// `native` or `generic`.
    pub mode: &'static str,
    /// The program's id.
    pub program: Option<u32>,
    /// Seconds since 1970 when it was loaded.
    pub since: Option<u64>,
    /// `link`, `dispatcher` or `other`.
    pub by: Option<&'static str>,
    /// The programs that the dispatcher runs, in their order, ours among them.
    pub dispatcher: Vec<Component>,
    /// The version of the maps.
    pub abi: u32,
    /// The version that this xstack speaks.
    pub our_abi: u32,
    /// Processes that use it.
    pub users: Vec<Process>,
    /// What is claimed.
    pub claims: Vec<Claim>,
    /// AF_XDP sockets on the interface's queues; null if the kernel does not tell.
    pub sockets: Option<Vec<Socket>>,
    /// How many frames got which verdict.
    pub counters: Vec<Count>,
}

/// One of the programs of a dispatcher.
#[derive(Clone, Debug, Serialize)]
pub struct Component {
    /// Its id.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Lower is earlier.
    pub priority: u32,
}

/// A process.
#[derive(Clone, Debug, Serialize)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// What its program is called.
    pub name: String,
}

/// A claim.
#[derive(Clone, Debug, Serialize)]
pub struct Claim {
    /// The address.
    pub address: IpAddr,
    /// 0 means untagged.
    pub vlan: u16,
    /// First and last port of each range; none means the whole address.
    pub ports: Vec<(u16, u16)>,
    /// Whose it is; null if it is that of a process which we can't see.
    pub owner: Option<Process>,
    /// Whether its process was killed, and it has been taken back now.
    pub taken_back: bool,
}

/// An AF_XDP socket.
#[derive(Clone, Debug, Serialize)]
pub struct Socket {
    /// The queue.
    pub queue: u32,
    /// Whether frames go without a copy.
    pub zero_copy: bool,
    /// Whose it is, if we may know.
    pub owner: Option<Process>,
}

impl From<&inspect::Process> for Process {
    fn from(process: &inspect::Process) -> Self {
        Self { pid: process.pid, name: process.name.clone() }
    }
}

impl Attachment {
    /// Of an interface, what was found or why nothing was.
    pub fn new(interface: String, pins: String, found: Result<inspect::Attachment, ProgramError>) -> Self {
        match found {
            Ok(found) => Self { interface, pins, error: None, details: Some(Details::new(&found)) },
            Err(error) => Self { interface, pins, error: Some(error.to_string()), details: None },
        }
    }

    /// For people.
    pub fn write(&self, now: SystemTime, f: &mut String) -> std::fmt::Result {
        let Some(details) = &self.details else {
            return writeln!(
                f,
                "attachment     {}: {}",
                self.interface,
                self.error.as_deref().unwrap_or_default()
            );
        };
        details.write_head(&self.interface, now, f)?;
        writeln!(f, "               kept in {}, maps of version {}", self.pins, details.abi)?;
        if details.abi != details.our_abi {
            writeln!(
                f,
                "               this xstack speaks version {}: `xstack detach {}`, then `xstack attach {}`",
                details.our_abi, self.interface, self.interface
            )?;
        }
        details.write_rest(f)
    }
}

impl Details {
    fn new(found: &inspect::Attachment) -> Self {
        let (by, dispatcher) = match &found.via {
            None => (None, Vec::new()),
            Some(Via::Link) => (Some("link"), Vec::new()),
            Some(Via::Other) => (Some("other"), Vec::new()),
            Some(Via::Dispatcher(components)) => (
                Some("dispatcher"),
                components
                    .iter()
                    .map(|one| Component { id: one.id, name: one.name.clone(), priority: one.priority })
                    .collect(),
            ),
        };
        let claims = found.claims.iter().map(|claim| Claim {
            address: claim.address,
            vlan: claim.vlan,
            ports: claim.ports.clone(),
            owner: match &claim.owner {
                ClaimOwner::Process(process) => Some(process.into()),
                ClaimOwner::Elsewhere | ClaimOwner::Dead => None,
            },
            taken_back: claim.owner == ClaimOwner::Dead,
        });
        let socket = |socket: &inspect::BoundSocket| Socket {
            queue: socket.queue,
            zero_copy: socket.zero_copy,
            owner: socket.process.as_ref().map(Process::from),
        };
        let since = found.since.and_then(|since| since.duration_since(UNIX_EPOCH).ok());
        Self {
            attached: found.via.is_some(),
            mode: if found.generic { "generic" } else { "native" },
            program: found.program,
            since: since.map(|since| since.as_secs()),
            by,
            dispatcher,
            abi: found.version,
            our_abi: stack_common::abi::ABI_VERSION,
            users: found.users.iter().map(Process::from).collect(),
            claims: claims.collect(),
            sockets: found.sockets.as_ref().map(|sockets| sockets.iter().map(socket).collect()),
            counters: found.counters.iter().map(|(name, count)| Count::new(*name, *count)).collect(),
        }
    }

    fn write_head(&self, interface: &str, now: SystemTime, f: &mut String) -> std::fmt::Result {
        let program = self.program.map_or_else(|| "a program".to_owned(), |id| format!("program {id}"));
        if !self.attached {
            return writeln!(
                f,
                "attachment     {interface}: {program} is kept, and not on the interface: `xstack attach {interface}` attaches a new \
                 one"
            );
        }
        let by = match self.by {
            Some("link") => "a link",
            Some("dispatcher") => "libxdp's dispatcher",
            _ => "others' means",
        };
        write!(f, "attachment     {interface}: {program} by {by}, {} mode", self.mode)?;
        if let Some(since) = self.since {
            let since = UNIX_EPOCH + std::time::Duration::from_secs(since);
            let ago = now.duration_since(since).unwrap_or_default();
            let ago = duration(ago.as_secs_f64());
            write!(f, ", since {} ({ago})", date::sortable(since))?;
        }
        writeln!(f)
    }

    fn write_rest(&self, f: &mut String) -> std::fmt::Result {
        if !self.dispatcher.is_empty() {
            let each = self.dispatcher.iter();
            let each: Vec<_> =
                each.map(|one| format!("{} (id {}, priority {})", one.name, one.id, one.priority)).collect();
            writeln!(f, "runs in order  {}", each.join(", "))?;
        }
        for user in &self.users {
            writeln!(f, "used by        {user}")?;
        }
        for claim in &self.claims {
            claim.write(f)?;
        }
        match &self.sockets {
            None => writeln!(f, "sockets        unknown: this kernel has no CONFIG_XDP_SOCKETS_DIAG")?,
            Some(sockets) => {
                for socket in sockets {
                    let copying = if socket.zero_copy { "zero-copy" } else { "copy" };
                    let owner =
                        socket.owner.as_ref().map_or_else(|| "somebody".to_owned(), Process::to_string);
                    writeln!(f, "socket         queue {}, {copying}, of {owner}", socket.queue)?;
                }
            }
        }
        writeln!(f, "frames         {}", listed(&self.counters))
    }
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} ({})", self.pid, self.name)
    }
}

impl Claim {
    fn write(&self, f: &mut String) -> std::fmt::Result {
        write!(f, "claim          {}", self.address)?;
        if self.vlan != 0 {
            write!(f, " in VLAN {}", self.vlan)?;
        }
        if !self.ports.is_empty() {
            let ports: Vec<_> = self.ports.iter().map(|(first, last)| format!("{first}-{last}")).collect();
            write!(f, " ports {}", ports.join(","))?;
        }
        match (&self.owner, self.taken_back) {
            (_, true) => writeln!(f, ", of a program that was killed: taken back now"),
            (Some(owner), false) => writeln!(f, ", of {owner}"),
            (None, false) => writeln!(f, ", of a process of another container"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_in_lines_that_they_can_read() {
        let us = || Process { pid: 4711, name: "xstack".to_owned() };
        let component = |id, name: &str, priority| Component { id, name: name.to_owned(), priority };
        let claim = |address: &str, owner, taken_back| Claim {
            address: address.parse().expect("an address"),
            vlan: 7,
            ports: vec![(80, 80), (1000, 2000)],
            owner,
            taken_back,
        };
        let details = Details {
            attached: true,
            mode: "native",
            program: Some(42),
            since: Some(1),
            by: Some("dispatcher"),
            dispatcher: vec![component(41, "xdp_filt", 10), component(42, "xstack", 15)],
            abi: 1,
            our_abi: 2,
            users: vec![us()],
            claims: vec![claim("192.0.2.7", Some(us()), false), claim("192.0.2.8", None, true)],
            sockets: Some(vec![Socket { queue: 0, zero_copy: true, owner: Some(us()) }]),
            counters: vec![Count::new("redirect-tcp", 5), Count::new("pass-address", 0)],
        };
        let attachment = Attachment {
            interface: "eth1".to_owned(),
            pins: "/sys/fs/bpf/xstack/eth1".to_owned(),
            error: None,
            details: Some(details),
        };
        let mut text = String::new();
        attachment
            .write(UNIX_EPOCH + std::time::Duration::from_secs(62), &mut text)
            .expect("a String takes all");
        assert_eq!(
            text,
            "attachment     eth1: program 42 by libxdp's dispatcher, native mode, since 1970-01-01 00:00:01 UTC (1 min 1 s)\n\
             \x20              kept in /sys/fs/bpf/xstack/eth1, maps of version 1\n\
             \x20              this xstack speaks version 2: `xstack detach eth1`, then `xstack attach eth1`\n\
             runs in order  xdp_filt (id 41, priority 10), xstack (id 42, priority 15)\n\
             used by        process 4711 (xstack)\n\
             claim          192.0.2.7 in VLAN 7 ports 80-80,1000-2000, of process 4711 (xstack)\n\
             claim          192.0.2.8 in VLAN 7 ports 80-80,1000-2000, of a program that was killed: taken back now\n\
             socket         queue 0, zero-copy, of process 4711 (xstack)\n\
             frames         redirect-tcp 5\n"
        );
        let json = serde_json::to_value(&attachment).expect("JSON");
        assert_eq!((&json["interface"], &json["program"]), (&"eth1".into(), &42.into()));
        assert_eq!(json["claims"][0]["owner"]["pid"], 4711);
        assert!(json.get("error").is_none());
    }
}
