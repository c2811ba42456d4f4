//! The AF_XDP sockets of this network namespace, whoever has them: what `ss --xdp` lists, by sock_diag.

use std::io;

use rtnetlink::{
    packet_core::{NlaBuffer, NlasIterator},
    sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG},
};

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_REQUEST` and `NLM_F_DUMP`.
const REQUEST_DUMP: u16 = 0x301;
/// `XDP_SHOW_INFO` and `XDP_SHOW_UMEM`.
const SHOW: u32 = 0b101;
const XDP_DIAG_INFO: u16 = 1;
const XDP_DIAG_UID: u16 = 2;
const XDP_DIAG_UMEM: u16 = 5;
/// `XDP_DU_F_ZEROCOPY`.
const ZERO_COPY: u32 = 1;
/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// `struct xdp_diag_msg`.
const MESSAGE: usize = 16;

/// An AF_XDP socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XdpSocket {
    /// The number of the interface that it is bound to; 0 if it isn't.
    pub interface: u32,
    /// The queue, likewise.
    pub queue: u32,
    /// Whose it is.
    pub uid: u32,
    /// The inode of the socket, by which `/proc/PID/fd` tells who has it.
    pub inode: u32,
    /// Whether its frames go without a copy.
    pub zero_copy: bool,
}

/// All AF_XDP sockets of this network namespace.
///
/// # Errors
/// `Unsupported` if the kernel was built without CONFIG_XDP_SOCKETS_DIAG; else when it does not answer.
pub fn list() -> io::Result<Vec<XdpSocket>> {
    let mut request = Vec::with_capacity(HEADER + 20);
    // struct nlmsghdr, then struct xdp_diag_req.
    request.extend((HEADER as u32 + 20).to_ne_bytes());
    request.extend(BY_FAMILY.to_ne_bytes());
    request.extend(REQUEST_DUMP.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([libc::AF_XDP as u8, 0, 0, 0]);
    request.extend([0; 4]);
    request.extend(SHOW.to_ne_bytes());
    request.extend([0; 8]);

    let socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&request, 0)?;
    let mut sockets = Vec::new();
    loop {
        let (answer, _) = socket.recv_from_full()?;
        if answer.is_empty() || read(&answer, &mut sockets)? {
            return Ok(sockets);
        }
    }
}

/// Reads the messages of a datagram; returns whether the last one has come.
fn read(mut bytes: &[u8], sockets: &mut Vec<XdpSocket>) -> io::Result<bool> {
    let broken = || io::Error::from(io::ErrorKind::InvalidData);
    while bytes.len() >= HEADER {
        let len = word(bytes, 0).ok_or_else(broken)? as usize;
        let message = bytes.get(..len).filter(|_| len >= HEADER).ok_or_else(broken)?;
        match u16::from_ne_bytes([message[4], message[5]]) {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let errno = word(message, HEADER).ok_or_else(broken)?.cast_signed();
                // There is nobody in the kernel who could answer: no module for this family, or none at all.
                return match -errno {
                    0 => Ok(true),
                    libc::ENOENT | libc::EINVAL | libc::EPROTONOSUPPORT | libc::EOPNOTSUPP => {
                        Err(io::ErrorKind::Unsupported.into())
                    }
                    errno => Err(io::Error::from_raw_os_error(errno)),
                };
            }
            BY_FAMILY => sockets.push(socket(&message[HEADER..]).ok_or_else(broken)?),
            _ => {}
        }
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn socket(message: &[u8]) -> Option<XdpSocket> {
    let mut socket = XdpSocket { interface: 0, queue: 0, uid: 0, inode: word(message, 4)?, zero_copy: false };
    for attribute in NlasIterator::new(message.get(MESSAGE..)?) {
        let attribute: NlaBuffer<&[u8]> = attribute.ok()?;
        let value = attribute.value();
        match attribute.kind() {
            XDP_DIAG_INFO => (socket.interface, socket.queue) = (word(value, 0)?, word(value, 4)?),
            XDP_DIAG_UID => socket.uid = word(value, 0)?,
            // struct xdp_diag_umem: the flags follow a size of eight bytes and six numbers.
            XDP_DIAG_UMEM => socket.zero_copy = word(value, 32)? & ZERO_COPY != 0,
            _ => {}
        }
    }
    Some(socket)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut message = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend([0; 10]);
        message.extend(body);
        message
    }

    fn attribute(kind: u16, words: &[u32]) -> Vec<u8> {
        let mut attribute = (4 + 4 * words.len() as u16).to_ne_bytes().to_vec();
        attribute.extend(kind.to_ne_bytes());
        attribute.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        attribute
    }

    #[test]
    fn a_socket_is_read_with_its_queue_and_how_it_is_bound() {
        let mut body = vec![libc::AF_XDP as u8, 3, 0, 0];
        body.extend(4711u32.to_ne_bytes());
        body.extend([0; 8]);
        body.extend(attribute(XDP_DIAG_INFO, &[7, 2]));
        body.extend(attribute(XDP_DIAG_UID, &[1000]));
        body.extend(attribute(XDP_DIAG_UMEM, &[0, 1 << 20, 0, 256, 4096, 0, 7, 2, ZERO_COPY, 1]));
        let mut bytes = message(BY_FAMILY, &body);
        bytes.extend(message(NLMSG_DONE, &[0; 4]));
        let mut sockets = Vec::new();
        assert!(read(&bytes, &mut sockets).expect("well-formed"));
        assert_eq!(sockets, [XdpSocket { interface: 7, queue: 2, uid: 1000, inode: 4711, zero_copy: true }]);
    }

    #[test]
    fn a_kernel_that_can_t_say_is_told_from_one_that_says_no() {
        let refusal = |errno: i32| {
            read(&message(NLMSG_ERROR, &(-errno).to_ne_bytes()), &mut Vec::new()).expect_err("an error")
        };
        assert_eq!(refusal(libc::ENOENT).kind(), io::ErrorKind::Unsupported);
        assert_eq!(refusal(libc::EPERM).raw_os_error(), Some(libc::EPERM));
    }

    #[test]
    fn what_is_cut_off_is_an_error_and_no_panic() {
        let whole = message(BY_FAMILY, &[0; 12]);
        for len in 1..whole.len() {
            let mut cut = whole[..len].to_vec();
            assert!(read(&cut, &mut Vec::new()).is_err() || len < HEADER);
            if len >= HEADER {
                cut[..4].copy_from_slice(&(len as u32).to_ne_bytes());
                assert!(read(&cut, &mut Vec::new()).is_err());
            }
        }
    }

    #[test]
    fn this_kernel_answers_one_way_or_the_other() {
        match list() {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{error}"),
        }
    }
}
