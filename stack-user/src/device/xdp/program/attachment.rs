//! Programs on interfaces: attaching ours, and finding out about others'.

use std::{
    fmt, io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use aya::programs::{ProgramFd, ProgramInfo, loaded_programs};
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

use super::ProgramError;

/// The name of libxdp's dispatcher.
pub(super) const DISPATCHER: &str = "xdp_dispatcher";

pub(super) const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
pub(super) const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// The number that the kernel knows an interface by.
pub(super) fn index(interface: &str) -> Result<u32, ProgramError> {
    if_nametoindex(interface).map_err(|_| ProgramError::NoInterface { interface: interface.to_owned() })
}

/// Attaches a program to an interface for as long as the returned descriptor is open.
///
/// aya would do this too, but when the kernel says no it attaches by netlink instead, which outlives the process.
pub(super) fn link(program: &ProgramFd, interface: u32, generic: bool) -> io::Result<OwnedFd> {
    /// The head of `union bpf_attr` for BPF_LINK_CREATE, as in linux/bpf.h.
    #[repr(C)]
    struct LinkCreate {
        program: RawFd,
        interface: u32,
        attach_type: u32,
        flags: u32,
    }
    const BPF_LINK_CREATE: libc::c_long = 28;
    const BPF_XDP: u32 = 37;

    let request = LinkCreate {
        program: program.as_fd().as_raw_fd(),
        interface,
        attach_type: BPF_XDP,
        flags: if generic { XDP_FLAGS_SKB_MODE } else { XDP_FLAGS_DRV_MODE },
    };
    // SAFETY: the kernel reads as many bytes of the request as it is told, and takes the rest for zero.
    let fd =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_CREATE, &raw const request, size_of_val(&request)) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// A program on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attached {
    id: u32,
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

fn program(id: u32) -> Option<ProgramInfo> {
    loaded_programs().flatten().find(|info| info.id() == id)
}

/// The id of the program on an interface, and whether it is in the generic path.
fn attached_id(interface: u32) -> io::Result<Option<(u32, bool)>> {
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
