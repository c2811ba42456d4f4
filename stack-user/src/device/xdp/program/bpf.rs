//! What aya has no face for: XDP links as the kernel keeps them, and pins of anything.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use super::attachment::{XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE};

const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_GET_FD_BY_ID: libc::c_long = 30;
const BPF_LINK_GET_NEXT_ID: libc::c_long = 31;
const BPF_LINK_DETACH: libc::c_long = 34;

/// A request of bpf(2): the head of `union bpf_attr`, as linux/bpf.h has it for one command.
///
/// # Safety
/// The kernel reads, and for some commands writes, through the pointers that a request has. They are to be valid for what
/// the command does with them.
unsafe trait Request {}

fn call<R: Request>(command: libc::c_long, request: &mut R) -> io::Result<RawFd> {
    let request: *mut R = request;
    // SAFETY: the kernel reads and writes as many bytes of the request as it is told, and takes the rest for zero. Pointers in
    // it are valid, as whoever made it has promised.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, request, size_of::<R>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as RawFd) }
}

fn descriptor<R: Request>(command: libc::c_long, request: &mut R) -> io::Result<OwnedFd> {
    let fd = call(command, request)?;
    // SAFETY: the descriptor is new, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a program to an interface for as long as the link has a descriptor or a pin.
///
/// aya would do this too, but when the kernel says no it attaches by netlink instead, which outlives the process.
pub(super) fn create_link(program: BorrowedFd<'_>, interface: u32, generic: bool) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct LinkCreate {
        program: RawFd,
        interface: u32,
        attach_type: u32,
        flags: u32,
    }
    // SAFETY: it has no pointers.
    unsafe impl Request for LinkCreate {}
    const BPF_XDP: u32 = 37;

    let flags = if generic { XDP_FLAGS_SKB_MODE } else { XDP_FLAGS_DRV_MODE };
    let program = program.as_raw_fd();
    descriptor(BPF_LINK_CREATE, &mut LinkCreate { program, interface, attach_type: BPF_XDP, flags })
}

/// Takes the program of a link off its interface, whoever still has the link.
pub(super) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct LinkDetach {
        link: RawFd,
    }
    // SAFETY: it has no pointers.
    unsafe impl Request for LinkDetach {}
    call(BPF_LINK_DETACH, &mut LinkDetach { link: link.as_raw_fd() }).map(drop)
}

#[repr(C)]
struct Pin {
    path: u64,
    object: RawFd,
    flags: u32,
}
// SAFETY: the kernel reads the path, which callers keep and which ends with a zero.
unsafe impl Request for Pin {}

fn path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Keeps a map, a program or a link under a name in a BPF file system.
pub(super) fn pin(object: BorrowedFd<'_>, at: &Path) -> io::Result<()> {
    let at = path(at)?;
    call(BPF_OBJ_PIN, &mut Pin { path: at.as_ptr() as u64, object: object.as_raw_fd(), flags: 0 }).map(drop)
}

/// Opens what is pinned under a name.
pub(super) fn open_pin(at: &Path) -> io::Result<OwnedFd> {
    let at = path(at)?;
    descriptor(BPF_OBJ_GET, &mut Pin { path: at.as_ptr() as u64, object: 0, flags: 0 })
}

/// A link that attaches an XDP program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct XdpLink {
    pub(super) id: u32,
    pub(super) program: u32,
    /// 0 once the interface is gone, or the link was detached.
    pub(super) interface: u32,
}

/// What a link is, if it is one of XDP.
pub(super) fn xdp_link(link: BorrowedFd<'_>) -> io::Result<Option<XdpLink>> {
    /// The head of `struct bpf_link_info`.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        program: u32,
        _padding: u32,
        interface: u32,
    }
    #[repr(C)]
    struct GetInfo {
        object: RawFd,
        size: u32,
        info: u64,
    }
    // SAFETY: the kernel writes as many bytes through the pointer as `size` says, which is what lies there.
    unsafe impl Request for GetInfo {}
    const BPF_LINK_TYPE_XDP: u32 = 6;

    let mut info = Info::default();
    let size = size_of::<Info>() as u32;
    let mut request = GetInfo { object: link.as_raw_fd(), size, info: (&raw mut info) as u64 };
    call(BPF_OBJ_GET_INFO_BY_FD, &mut request)?;
    let Info { kind, id, program, interface, .. } = info;
    Ok((kind == BPF_LINK_TYPE_XDP).then_some(XdpLink { id, program, interface }))
}

/// The link that holds a program on an interface, if it is one that does. Only root may look.
pub(super) fn find_xdp_link(interface: u32, program: u32) -> io::Result<Option<XdpLink>> {
    #[repr(C)]
    struct Id {
        id: u32,
        next: u32,
        flags: u32,
    }
    // SAFETY: it has no pointers.
    unsafe impl Request for Id {}

    let mut at = Id { id: 0, next: 0, flags: 0 };
    loop {
        match call(BPF_LINK_GET_NEXT_ID, &mut at) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            Err(error) => return Err(error),
        }
        at.id = at.next;
        // One that went away meanwhile is not the one that we look for.
        let Ok(link) = descriptor(BPF_LINK_GET_FD_BY_ID, &mut Id { id: at.id, next: 0, flags: 0 }) else {
            continue;
        };
        let found = xdp_link(link.as_fd())?;
        if let Some(found) = found.filter(|link| link.interface == interface && link.program == program) {
            return Ok(Some(found));
        }
    }
}
