//! What happens to an interface while it is used, as the kernel tells it: its link, its MTU, its queues, its end.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use netlink_packet_core::{DefaultNla, Emitable, NLA_F_NESTED, NlasIterator, parse_u32};
use rtnetlink::{
    packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        link::{LinkAttribute, LinkFlags, LinkMessage},
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};

use super::{
    Interface,
    genetlink::{Family, GenetlinkError, Message},
};
use crate::{device::Readable, wire::MacAddr};

/// `RTNLGRP_LINK`, as a bit: what happens to interfaces.
const LINKS: u32 = 1;

const ETHTOOL_MSG_CHANNELS_GET: u8 = 17;
const ETHTOOL_MSG_CHANNELS_GET_REPLY: u8 = 18;
const ETHTOOL_MSG_CHANNELS_NTF: u8 = 19;
const ETHTOOL_A_CHANNELS_HEADER: u16 = 1;
const ETHTOOL_A_CHANNELS_RX_COUNT: u16 = 6;
const ETHTOOL_A_CHANNELS_COMBINED_COUNT: u16 = 9;
const ETHTOOL_A_HEADER_DEV_INDEX: u16 = 1;

/// Something that happened to an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Happening {
    /// It was switched off.
    Down,
    /// Nobody is at the other end any more.
    CarrierLost,
    /// It can send again, after one of these.
    Back,
    /// It takes IP packets of another size.
    Mtu(u32),
    /// It has another hardware address.
    Mac(MacAddr),
    /// It receives on so many queues: somebody set them, or may have.
    Queues(u32),
    /// It was removed, or moved to another network namespace.
    Removed,
}

/// Follows an interface. It asks for nothing that a process without privileges may not ask for, but is to be made while the
/// process may still make sockets.
#[derive(Debug)]
pub struct Watch {
    index: u32,
    links: Socket,
    /// Who tells of queues; older kernels tell nobody.
    settings: Option<Family>,
    readable: Readable,
    known: Known,
    happened: VecDeque<Happening>,
}

/// How the interface is as far as it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    is_up: bool,
    has_carrier: bool,
    mtu: u32,
    mac: MacAddr,
}

impl Watch {
    /// From how the interface was found on. Must be called within a tokio runtime, the one that waits for it.
    ///
    /// # Errors
    /// When the system has no socket to give.
    pub fn new(interface: &Interface) -> io::Result<Self> {
        let mut links = Socket::new(NETLINK_ROUTE)?;
        links.set_non_blocking(true)?;
        links.bind(&SocketAddr::new(0, LINKS))?;
        // An older kernel, or one without this family, tells nothing of queues.
        let mut settings = Family::find("ethtool").ok().flatten();
        let is_told = settings.as_mut().is_some_and(|family| family.join("monitor").unwrap_or(false));
        let settings = settings.filter(|_| is_told);
        let sockets = [Some(&links), settings.as_ref().map(Family::socket)];
        let sockets = sockets.into_iter().flatten().map(|socket| borrowed(socket).try_clone_to_owned());
        let readable = Readable::new(sockets.collect::<io::Result<_>>()?)?;
        let known = Known { is_up: true, has_carrier: true, mtu: interface.mtu, mac: interface.mac };
        let watch =
            Self { index: interface.index, links, settings, readable, known, happened: VecDeque::new() };
        // What happened since it was found.
        watch.ask()?;
        watch.ask_queues()?;
        Ok(watch)
    }

    /// Waits for the next thing that happens.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// When the kernel tells no more.
    pub async fn next(&mut self) -> io::Result<Happening> {
        loop {
            if let Some(happening) = self.happened.pop_front() {
                return Ok(happening);
            }
            self.read_links()?;
            self.read_settings()?;
            if self.happened.is_empty() {
                poll_fn(|cx| self.readable.poll(cx)).await?;
            }
        }
    }

    /// Has the kernel tell how the interface is; the answer comes like everything else.
    fn ask(&self) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = self.index;
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetLink(link));
        request.header.flags = NLM_F_REQUEST;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.links.send_to(&bytes, &SocketAddr::new(0, 0), 0).map(|_| ())
    }

    /// Has the kernel tell how many queues there are, if it tells of queues at all.
    fn ask_queues(&self) -> io::Result<()> {
        let Some(settings) = &self.settings else { return Ok(()) };
        let index = DefaultNla::new(ETHTOOL_A_HEADER_DEV_INDEX, self.index.to_ne_bytes().to_vec());
        let mut header = vec![0; index.buffer_len()];
        index.emit(&mut header);
        let header = DefaultNla::new(ETHTOOL_A_CHANNELS_HEADER | NLA_F_NESTED, header);
        settings.ask_among_notices(ETHTOOL_MSG_CHANNELS_GET, &[header])
    }

    fn read_links(&mut self) -> io::Result<()> {
        loop {
            match self.links.recv_from_full() {
                // Whoever knows our port may write to it. The kernel's own is 0.
                Ok((datagram, from)) if from.port_number() == 0 => self.take(&datagram),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // Some of it was lost.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => self.ask()?,
                Err(error) => return Err(error),
            }
        }
    }

    fn take(&mut self, mut datagram: &[u8]) {
        // What is not understood is of a newer kernel, and of nothing that matters here.
        while let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram) {
            match message.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) if self.is_ours(&link) => {
                    let now = self.known.changed_by(&link);
                    self.happened.extend(self.known.until(now));
                    self.known = now;
                }
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) if self.is_ours(&link) => {
                    self.happened.push_back(Happening::Removed);
                }
                // We had asked for it.
                NetlinkPayload::Error(error) if error.raw_code() == -libc::ENODEV => {
                    self.happened.push_back(Happening::Removed);
                }
                _ => {}
            }
            let length = (message.header.length as usize).next_multiple_of(4);
            datagram = datagram.get(length..).unwrap_or_default();
        }
    }

    /// A bridge tells of its ports in messages of the same kind.
    fn is_ours(&self, link: &LinkMessage) -> bool {
        link.header.index == self.index && link.header.interface_family == AddressFamily::Unspec
    }

    fn read_settings(&mut self) -> io::Result<()> {
        let Some(settings) = &self.settings else { return Ok(()) };
        let (notices, are_lost) = settings.notices().map_err(io::Error::other)?;
        if are_lost {
            self.ask_queues()?;
        }
        let of_queues =
            |command| matches!(command, ETHTOOL_MSG_CHANNELS_NTF | ETHTOOL_MSG_CHANNELS_GET_REPLY);
        for notice in notices.iter().filter(|notice| of_queues(notice.command)) {
            if let Ok(Some(queues)) = rx_queues(notice, self.index) {
                self.happened.push_back(Happening::Queues(queues));
            }
        }
        Ok(())
    }
}

/// How many queues an interface receives on, by a notice; `None` if it is about another one.
fn rx_queues(notice: &Message, index: u32) -> Result<Option<u32>, GenetlinkError> {
    let (mut is_ours, mut queues) = (false, 0);
    notice.for_each(|kind, value| {
        match kind {
            ETHTOOL_A_CHANNELS_HEADER => {
                for attribute in NlasIterator::new(value) {
                    let attribute = attribute?;
                    is_ours |= attribute.kind() == ETHTOOL_A_HEADER_DEV_INDEX
                        && parse_u32(attribute.value())? == index;
                }
            }
            ETHTOOL_A_CHANNELS_RX_COUNT | ETHTOOL_A_CHANNELS_COMBINED_COUNT => queues += parse_u32(value)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(is_ours.then_some(queues))
}

impl Known {
    fn is_usable(self) -> bool {
        self.is_up && self.has_carrier
    }

    /// How it is by a message, which has all that matters.
    fn changed_by(mut self, link: &LinkMessage) -> Self {
        self.is_up = link.header.flags.contains(LinkFlags::Up);
        self.has_carrier = link.header.flags.contains(LinkFlags::LowerUp);
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::Mtu(mtu) => self.mtu = *mtu,
                LinkAttribute::Address(bytes) => {
                    if let Ok(mac) = <[u8; 6]>::try_from(&bytes[..]) {
                        self.mac = MacAddr(mac);
                    }
                }
                _ => {}
            }
        }
        self
    }

    /// What happened between two looks.
    fn until(self, now: Self) -> impl Iterator<Item = Happening> {
        let link = match (self.is_usable(), now.is_usable()) {
            (true, false) if now.is_up => Some(Happening::CarrierLost),
            (true, false) => Some(Happening::Down),
            (false, true) => Some(Happening::Back),
            _ => None,
        };
        let mtu = (self.mtu != now.mtu).then_some(Happening::Mtu(now.mtu));
        let mac = (self.mac != now.mac).then_some(Happening::Mac(now.mac));
        mac.into_iter().chain(mtu).chain(link)
    }
}

fn borrowed(socket: &Socket) -> BorrowedFd<'_> {
    // SAFETY: the socket is open for as long as it is borrowed.
    unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: Known =
        Known { is_up: true, has_carrier: true, mtu: 1_500, mac: MacAddr([2, 0, 0, 0, 0, 1]) };

    fn told(flags: LinkFlags, attributes: Vec<LinkAttribute>) -> LinkMessage {
        let mut link = LinkMessage::default();
        (link.header.flags, link.attributes) = (flags, attributes);
        link
    }

    fn between(before: Known, link: &LinkMessage) -> Vec<Happening> {
        before.until(before.changed_by(link)).collect()
    }

    #[test]
    fn a_message_tells_what_is_new_and_only_that() {
        let works = LinkFlags::Up | LinkFlags::LowerUp;
        assert_eq!(between(KNOWN, &told(works, Vec::new())), []);
        assert_eq!(between(KNOWN, &told(LinkFlags::Up, Vec::new())), [Happening::CarrierLost]);
        assert_eq!(between(KNOWN, &told(LinkFlags::empty(), Vec::new())), [Happening::Down]);
        let lost = Known { has_carrier: false, ..KNOWN };
        assert_eq!(between(lost, &told(LinkFlags::Up, Vec::new())), []);
        assert_eq!(between(lost, &told(LinkFlags::empty(), Vec::new())), [], "it does not work either way");
        assert_eq!(between(lost, &told(works, Vec::new())), [Happening::Back]);
        let other = MacAddr([2, 0, 0, 0, 0, 9]);
        let changed = vec![LinkAttribute::Mtu(9_000), LinkAttribute::Address(other.0.to_vec())];
        assert_eq!(between(KNOWN, &told(works, changed)), [Happening::Mac(other), Happening::Mtu(9_000)]);
    }
}
