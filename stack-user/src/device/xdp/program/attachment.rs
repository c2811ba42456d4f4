//! Programs on interfaces: attaching ours, and finding out about others'.

use std::{fmt, fs, io, path::Path};

use aya::programs::{ProgramInfo, loaded_programs};
use nix::net::if_::if_nametoindex;
use rtnetlink::{
    packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached},
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};

use stack_common::abi;

use super::{ProgramError, bpf};
use crate::device::{
    processes::{self, for_each_descriptor},
    remedy::Change,
};

/// The name of libxdp's dispatcher.
pub(super) const DISPATCHER: &str = "xdp_dispatcher";

pub(super) const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
pub(super) const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// The number that the kernel knows an interface by.
pub(super) fn index(interface: &str) -> Result<u32, ProgramError> {
    if_nametoindex(interface).map_err(|_| ProgramError::NoInterface { interface: interface.to_owned() })
}

/// A program on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attached {
    pub(super) id: u32,
    /// Only root may ask for it.
    name: Option<String>,
    pub(super) generic: bool,
}

impl Attached {
    /// The number that the kernel knows it by.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// Its name, if we may know it.
    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Whether it has our program's name, as far as we may know it.
    pub(super) fn is_ours(&self) -> bool {
        self.name.as_deref() == Some(abi::PROGRAM)
    }

    /// Whether it is libxdp's, which runs others.
    pub(super) fn is_dispatcher(&self) -> bool {
        self.name.as_deref() == Some(DISPATCHER)
    }
}

impl fmt::Display for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "`{name}` (id {})", self.id),
            None => write!(f, "with id {}", self.id),
        }
    }
}

/// The program on an interface, if there is one.
pub(super) fn attached(interface: u32) -> io::Result<Option<Attached>> {
    let Some((id, generic)) = attached_id(interface)? else {
        return Ok(None);
    };
    let name = program(id).and_then(|info| info.name_as_str().map(str::to_owned));
    Ok(Some(Attached { id, name, generic }))
}

/// The program on an interface, if it is one that uses the map of this id.
///
/// libxdp puts programs behind a dispatcher where it can; then it is the dispatcher that is attached, and ours
/// is known by its map alone.
pub(super) fn pinned(interface: u32, map: u32) -> io::Result<Option<Attached>> {
    let Some(attached) = attached(interface)? else {
        return Ok(None);
    };
    let uses_map = |info: &ProgramInfo| info.map_ids().ok().flatten().is_some_and(|maps| maps.contains(&map));
    let is_ours = match (&attached.name, program(attached.id)) {
        (Some(name), _) if name == DISPATCHER => loaded_programs().flatten().any(|info| uses_map(&info)),
        (_, Some(info)) => uses_map(&info),
        // Without CAP_SYS_ADMIN there is no asking. The pins are all that we know.
        (_, None) => true,
    };
    Ok(is_ours.then_some(attached))
}

/// What the kernel tells of a program. Only root may ask.
pub(super) fn program(id: u32) -> Option<ProgramInfo> {
    loaded_programs().flatten().find(|info| info.id() == id)
}

/// What keeps a program on its interface, and what takes it off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// Nothing has to: it was attached by netlink.
    Netlink {
        /// The interface.
        interface: String,
        /// Whether it is in the generic path.
        generic: bool,
    },
    /// A BPF link that a process has open.
    Process {
        /// The link.
        link: u32,
        /// The process.
        pid: u32,
        /// What its program is called.
        name: String,
    },
    /// A BPF link that no process we see has open.
    Pinned {
        /// The link.
        link: u32,
    },
    /// We may not know.
    Unknown,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Netlink { interface, generic } => {
                let off = Change::Detach { interface: interface.clone(), generic: *generic };
                write!(f, "attached by netlink: `{}` takes it off", off.command())
            }
            Self::Process { link, pid, name } => {
                write!(f, "held by process {pid} ({name}) by BPF link {link}: stop that")
            }
            Self::Pinned { link } => write!(
                f,
                "held by BPF link {link}, which no process that we see has open, so it is pinned: `xstack detach IFACE` takes the \
                 program off if `xstack attach` put it there, and else `bpftool link detach id {link}`"
            ),
            Self::Unknown => f.write_str(
                "held by what only root may know: `bpftool net show` and `xdp-loader status` tell",
            ),
        }
    }
}

/// What keeps a program on an interface.
pub(super) fn held(interface: &str, index: u32, attached: &Attached) -> Held {
    let link = match bpf::find_xdp_link(index, attached.id) {
        Ok(Some(link)) => link.id,
        Ok(None) => {
            return Held::Netlink { interface: interface.to_owned(), generic: attached.generic };
        }
        Err(_) => return Held::Unknown,
    };
    let mut holder = None;
    for_each_descriptor(|pid, descriptor, target| {
        if holder.is_none() && target.contains("bpf_link") && is_link(descriptor, link) {
            holder = Some(pid);
        }
    });
    match holder {
        Some(pid) => Held::Process { link, pid, name: processes::name(pid) },
        None => Held::Pinned { link },
    }
}

/// Whether a descriptor is of this link, by what /proc tells of it.
fn is_link(descriptor: &Path, link: u32) -> bool {
    let told = descriptor.file_name().zip(descriptor.parent().and_then(Path::parent));
    let told =
        told.and_then(|(number, process)| fs::read_to_string(process.join("fdinfo").join(number)).ok());
    let id = |line: &str| line.strip_prefix("link_id:").and_then(|id| id.trim().parse().ok()) == Some(link);
    told.is_some_and(|told| told.lines().any(id))
}

/// The id of the program on an interface, and whether it is in the generic path.
pub(super) fn attached_id(interface: u32) -> io::Result<Option<(u32, bool)>> {
    Ok(xdp_of(&attributes(interface)?))
}

/// Asks by netlink what there is to know about an interface.
pub(super) fn attributes(interface: u32) -> io::Result<Vec<LinkAttribute>> {
    let mut link = LinkMessage::default();
    link.header.index = interface;
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetLink(link));
    request.header.flags = NLM_F_REQUEST;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);

    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?;
    match answer.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => Ok(link.attributes),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn xdp_of(attributes: &[LinkAttribute]) -> Option<(u32, bool)> {
    let xdp = attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Xdp(xdp) => Some(xdp),
        _ => None,
    })?;
    let id = xdp.iter().find_map(|attribute| match attribute {
        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id)
            if *id != 0 =>
        {
            Some(*id)
        }
        _ => None,
    })?;
    Some((id, xdp.contains(&LinkXdp::Attached(XdpAttached::SocketBuffer))))
}
