//! What a driver has to say about a program that it refuses, and what may help.
//!
//! A BPF link is refused with a number only. Asked by netlink, the driver answers in words, too.

use std::{
    fmt, io,
    os::fd::{AsFd, AsRawFd, RawFd},
};

use aya::programs::ProgramFd;
use nix::net::if_::if_indextoname;
use rtnetlink::{
    packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage},
    packet_route::{
        RouteNetlinkMessage,
        link::{LinkAttribute, LinkMessage, LinkXdp},
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};

use super::attachment::{XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE};
use crate::device::{
    interface::{drivers, ethtool, features::Offload},
    remedy::Change,
};

/// With this MTU every driver runs programs that runs any; one of which no more is known may take a larger one.
const ORDINARY_MTU: u32 = 1500;

/// Why a program is not attached, in a sentence or two that say what to do about it.
#[derive(Debug)]
pub struct Refusal {
    source: io::Error,
    /// The driver's own words.
    said: Option<String>,
    /// The interface and its MTU, and one with which it would do.
    mtu: Option<(String, u32, u32)>,
    /// The interface, if its card puts segments together.
    lro: Option<String>,
}

impl Refusal {
    /// The number that the kernel gave, with all that can be found out about it.
    pub(super) fn of(program: &ProgramFd, index: u32, generic: bool, source: io::Error) -> Self {
        let said = ask_again(program, index, generic).ok().flatten();
        if generic {
            return Self { source, said, mtu: None, lro: None };
        }
        let name = if_indextoname(index).ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
        let driver = ethtool::driver(&name);
        let known = driver.as_deref().and_then(drivers::find).and_then(|driver| driver.mtu_max);
        let fits = known.unwrap_or(ORDINARY_MTU);
        let mtu = mtu_of(index).filter(|mtu| *mtu > fits).map(|mtu| (name.clone(), mtu, fits));
        let lro = ethtool::has_lro(&name).then_some(name);
        Self { source, said, mtu, lro }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.said {
            Some(said) => write!(f, "\"{said}\" ({})", self.source)?,
            None => write!(f, "{}", self.source)?,
        }
        if let Some((interface, mtu, fits)) = self.mtu.clone() {
            let remedy = Change::Mtu { interface, mtu: fits, was: Some(mtu) }.command();
            write!(f, "; its MTU is {mtu}, and one of {fits} suits native programs: `{remedy}`")?;
        }
        if let Some(interface) = self.lro.clone() {
            let remedy =
                Change::Offload { interface, namespace: None, offload: Offload::Lro, on: false }.command();
            write!(f, "; it puts segments together (LRO), which XDP can't have: `{remedy}`")?;
        }
        Ok(())
    }
}

/// Asks by netlink for what was refused, which is refused once more, but with a word.
///
/// There is no way to hear it that could not attach the program, should what was in the way be gone by now. Attached so, it would
/// outlive us, unlike a link: so it is detached at once, it and nothing that somebody may have put in its place. Were we killed in
/// between, it would pass every frame on, since its maps have no claims.
fn ask_again(program: &ProgramFd, index: u32, generic: bool) -> io::Result<Option<String>> {
    let mode = if generic { XDP_FLAGS_SKB_MODE } else { XDP_FLAGS_DRV_MODE };
    let program = program.as_fd().as_raw_fd();
    let answer = set(index, &attaching(program, mode))?;
    if error_number(&answer) == Some(0) {
        let answer = set(index, &detaching(program, mode))?;
        if error_number(&answer) != Some(0) {
            tracing::warn!(
                "a program of ours may have stayed on interface {index}, where it passes every frame on: `ip link` shows it"
            );
        }
    }
    Ok(message(&answer))
}

/// Where there is none.
fn attaching(program: RawFd, mode: u32) -> [LinkXdp; 2] {
    const IF_NO_EXIST: u32 = 1;
    [LinkXdp::Fd(program), LinkXdp::Flags(mode | IF_NO_EXIST)]
}

/// Only this one.
fn detaching(program: RawFd, mode: u32) -> [LinkXdp; 3] {
    const REPLACE: u32 = 1 << 4;
    [LinkXdp::Fd(-1), LinkXdp::ExpectedFd(program.cast_unsigned()), LinkXdp::Flags(mode | REPLACE)]
}

/// Asks for a change of an interface's program, and returns the answer.
fn set(index: u32, xdp: &[LinkXdp]) -> io::Result<Vec<u8>> {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.attributes.push(LinkAttribute::Xdp(xdp.to_vec()));
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::SetLink(link));
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);

    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.set_ext_ack(true)?;
    // The answer then does not repeat the question.
    socket.set_cap_ack(true)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&bytes, 0)?;
    Ok(socket.recv_from_full()?.0)
}

/// Bytes of `struct nlmsghdr`, and where the error is behind it.
const HEADER: usize = 16;

/// The error of an answer, which is 0 if it was done.
fn error_number(answer: &[u8]) -> Option<i32> {
    answer.get(HEADER..)?.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes))
}

/// The text in an answer, which follows the error and the header of what was asked (`struct nlmsgerr`).
fn message(answer: &[u8]) -> Option<String> {
    const ACK_TLVS: u16 = 0x200;
    const MESSAGE: u16 = 1;
    let flags = u16::from_ne_bytes(*answer.get(6..)?.first_chunk()?);
    if flags & ACK_TLVS == 0 {
        return None;
    }
    let mut attributes = answer.get(HEADER + 4 + HEADER..)?;
    while let [a, b, c, d, ..] = *attributes {
        let (len, kind) = (usize::from(u16::from_ne_bytes([a, b])), u16::from_ne_bytes([c, d]));
        let value = attributes.get(4..len)?;
        if kind == MESSAGE {
            let text = value.split(|&byte| byte == 0).next().unwrap_or_default();
            return Some(String::from_utf8_lossy(text).into_owned()).filter(|text| !text.is_empty());
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
    None
}

fn mtu_of(index: u32) -> Option<u32> {
    let attributes = super::attachment::attributes(index).ok()?;
    attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer of that error, with attributes: type and value.
    fn answer(error: i32, flags: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend(error.to_ne_bytes());
        bytes.extend([0; HEADER]);
        for (kind, value) in attributes {
            bytes.extend((4 + value.len() as u16).to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(*value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    #[test]
    fn the_drivers_words_are_found_among_the_attributes() {
        let with_offset = answer(-34, 0x300, &[(2, &[1, 0, 0, 0]), (1, b"MTU too large\0")]);
        assert_eq!(error_number(&with_offset), Some(-34));
        assert_eq!(message(&with_offset).as_deref(), Some("MTU too large"));
        assert_eq!(message(&answer(-34, 0x100, &[])), None, "an old kernel");
        assert_eq!(message(&answer(-34, 0x300, &[(1, b"\0")])), None);
        for cut in 0..with_offset.len() {
            // Nothing of it is trusted, whoever has sent it.
            let _ = (error_number(&with_offset[..cut]), message(&with_offset[..cut]));
        }
    }

    /// The kernel's own judgement, on an interface of a namespace of our own.
    #[test]
    fn what_was_attached_by_asking_is_detached_and_nothing_of_others() {
        use nix::sched::{CloneFlags, unshare};
        let test = "what_was_attached_by_asking_is_detached_and_nothing_of_others";
        let asked = std::thread::spawn(move || {
            if !nix::unistd::geteuid().is_root() || unshare(CloneFlags::CLONE_NEWNET).is_err() {
                println!("SKIP {test}: a network namespace and XDP programs need root");
                return;
            }
            // The loopback interface runs programs in the generic path.
            let (index, mode) = (1, XDP_FLAGS_SKB_MODE);
            let load = || super::super::load(None).expect("loads");
            let (mut ours, mut theirs) = (load(), load());
            let ours = super::super::verify(&mut ours).expect("verifies");
            let theirs = super::super::verify(&mut theirs).expect("verifies");
            let number = |program: &ProgramFd| program.as_fd().as_raw_fd();
            let there = || super::super::attachment::attached_id(index).expect("asks").is_some();
            ask_again(ours, index, true).expect("asks");
            assert!(!there(), "it stayed");
            let asked = |xdp: &[LinkXdp]| error_number(&set(index, xdp).expect("an answer"));
            assert_eq!(asked(&attaching(number(theirs), mode)), Some(0));
            assert_ne!(asked(&detaching(number(ours), mode)), Some(0), "it is not ours");
            ask_again(ours, index, true).expect("asks");
            assert!(there(), "theirs was replaced");
            assert_eq!(asked(&detaching(number(theirs), mode)), Some(0));
            assert!(!there());
        });
        asked.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }

    #[test]
    fn what_may_help_is_told_to_the_letter() {
        let refusal = Refusal {
            source: io::Error::from_raw_os_error(libc::EINVAL),
            said: Some("The RX buffer size is too small for the frame size".to_owned()),
            mtu: Some(("eth1".to_owned(), 9000, 3050)),
            lro: Some("eth1".to_owned()),
        };
        let told = refusal.to_string();
        for part in ["\"The RX buffer", "os error 22", "its MTU is 9000", "`sudo ip link set eth1 mtu 3050`"]
        {
            assert!(told.contains(part), "{told}");
        }
        assert!(told.contains("`sudo ethtool -K eth1 lro off`"), "{told}");
    }
}
