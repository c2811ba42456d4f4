//! The smallest XDP program there is: every frame goes to the socket of the queue that it came in on.
//!
//! Five instructions, loaded by hand, so that the device is tested without the program that steers.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_LINK_CREATE: libc::c_int = 28;

const BPF_MAP_TYPE_XSKMAP: u32 = 17;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;

/// It may see frames that lie in several buffers.
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;

/// Where the program runs, as `XDP_FLAGS_*`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Attach {
    /// In the driver.
    Native = 1 << 2,
    /// After it.
    Generic = 1 << 1,
}

/// Sockets that the map has room for.
const QUEUES: u32 = 64;

/// The program, attached for as long as this lives.
pub(crate) struct Redirect {
    _link: OwnedFd,
    _map: OwnedFd,
}

#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

#[repr(C)]
struct MapUpdate {
    map: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
}

impl Redirect {
    pub(crate) fn attach<'a>(
        interface: &str,
        attach: Attach,
        sockets: impl Iterator<Item = (u32, BorrowedFd<'a>)>,
    ) -> io::Result<Self> {
        let map = MapCreate {
            map_type: BPF_MAP_TYPE_XSKMAP,
            key_size: 4,
            value_size: 4,
            max_entries: QUEUES,
            flags: 0,
        };
        let map = owned(bpf(BPF_MAP_CREATE, &map)?);
        for (queue, socket) in sockets {
            let socket = socket.as_raw_fd() as u32;
            let (key, value) = (&raw const queue as u64, &raw const socket as u64);
            bpf(BPF_MAP_UPDATE_ELEM, &MapUpdate { map: map.as_raw_fd() as u32, key, value, flags: 0 })?;
        }
        let program = load(&map)?;
        let name = CString::new(interface)?;
        // SAFETY: the name ends with a zero.
        let ifindex = unsafe { libc::if_nametoindex(name.as_ptr()) };
        let link = bpf(
            BPF_LINK_CREATE,
            &LinkCreate {
                program: program.as_raw_fd() as u32,
                ifindex,
                attach_type: BPF_XDP,
                flags: attach as u32,
            },
        )?;
        Ok(Self { _link: owned(link), _map: map })
    }
}

fn load(map: &OwnedFd) -> io::Result<OwnedFd> {
    let instruction = |code: u8, registers: u8, offset: u16, immediate: u32| {
        u64::from(code) | u64::from(registers) << 8 | u64::from(offset) << 16 | u64::from(immediate) << 32
    };
    let instructions = [
        // r2 = ctx->rx_queue_index
        instruction(0x61, 0x12, 16, 0),
        // r1 = the map, in two halves
        instruction(0x18, 0x11, 0, map.as_raw_fd() as u32),
        0,
        // r3 = XDP_PASS, for a queue without a socket
        instruction(0xb7, 0x03, 0, 2),
        // return bpf_redirect_map(r1, r2, r3)
        instruction(0x85, 0, 0, 51),
        instruction(0x95, 0, 0, 0),
    ];
    let program = ProgLoad {
        prog_type: BPF_PROG_TYPE_XDP,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: BPF_F_XDP_HAS_FRAGS,
        name: *b"xs_redirect\0\0\0\0\0",
        ifindex: 0,
        expected_attach_type: BPF_XDP,
    };
    bpf(BPF_PROG_LOAD, &program).map(owned)
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_int> {
    // SAFETY: `attributes` is laid out as the kernel's union for this command; what it points to outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes as *const T, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
}

fn owned(fd: libc::c_int) -> OwnedFd {
    // SAFETY: the kernel has just made the descriptor for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
