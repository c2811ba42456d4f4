//! Questions to a family of generic netlink, and what the kernel answers to each.
//!
//! Attributes that nobody here knows are stepped over: a newer kernel has more of them.

use std::{io, os::fd::OwnedFd};

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable, NlasIterator, parse_u16, parse_u32,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

/// `struct genlmsghdr`: the command, the family's version, and two bytes that are reserved.
const HEADER: usize = 4;
/// `GENL_ID_CTRL`: the family that knows the numbers of the others.
const CONTROLLER: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const CTRL_ATTR_MCAST_GROUPS: u16 = 7;
const CTRL_ATTR_MCAST_GRP_NAME: u16 = 1;
const CTRL_ATTR_MCAST_GRP_ID: u16 = 2;
/// Of every family that is asked here.
const VERSION: u8 = 1;

/// The kernel did not do what a family was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenetlinkError {
    /// It said why not.
    #[error("the kernel refused: {0}")]
    Refused(io::Error),
    /// Its answer makes no sense.
    #[error("the kernel's answer over generic netlink makes no sense: {0}")]
    Malformed(String),
    /// It was not reached.
    #[error("asking the kernel over generic netlink failed: {0}")]
    Os(#[from] io::Error),
}

impl GenetlinkError {
    pub(super) fn malformed(what: &str) -> Self {
        Self::Malformed(what.to_owned())
    }

    /// Whether the kernel has no such command.
    pub(super) fn is_unknown_command(&self) -> bool {
        matches!(self, Self::Refused(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP))
    }
}

impl From<DecodeError> for GenetlinkError {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// A socket to the kernel, and a family's number.
#[derive(Debug)]
pub(super) struct Family {
    socket: Socket,
    id: u16,
    /// Its groups, whose members are told what happens: name and number.
    groups: Vec<(Vec<u8>, u32)>,
}

/// How many answers are wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Of one thing: one or, if it was a command, none.
    One,
    /// Of all that there are.
    All,
}

/// A message of a family: a command and its attributes, as bytes.
#[derive(Debug)]
pub(super) struct Message {
    family: u16,
    pub(super) command: u8,
    attributes: Vec<u8>,
}

impl Family {
    /// The family of that name, if the kernel has it.
    pub(super) fn find(name: &str) -> Result<Option<Self>, GenetlinkError> {
        let socket = Socket::new(NETLINK_GENERIC)?;
        // The kernel has answered by the time it has taken the question. One that has not never will.
        socket.set_non_blocking(true)?;
        let controller = Self { socket, id: CONTROLLER, groups: Vec::new() };
        let name = DefaultNla::new(CTRL_ATTR_FAMILY_NAME, [name.as_bytes(), b"\0"].concat());
        let answers = match controller.ask(CTRL_CMD_GETFAMILY, &[name], Wanted::One) {
            Err(GenetlinkError::Refused(error)) if error.raw_os_error() == Some(libc::ENOENT) => {
                return Ok(None);
            }
            answers => answers?,
        };
        let answer = answers.first().ok_or_else(|| GenetlinkError::malformed("the family has no answer"))?;
        let (mut id, mut groups) = (None, Vec::new());
        answer.for_each(|kind, value| {
            match kind {
                CTRL_ATTR_FAMILY_ID => id = Some(parse_u16(value)?),
                CTRL_ATTR_MCAST_GROUPS => groups = read_groups(value)?,
                _ => {}
            }
            Ok(())
        })?;
        let id = id.ok_or_else(|| GenetlinkError::malformed("the family has no number"))?;
        Ok(Some(Self { socket: controller.socket, id, groups }))
    }

    /// Has the notices to a group come here, if the family has that group. From then on answers come among them.
    pub(super) fn join(&mut self, group: &str) -> io::Result<bool> {
        match self.groups.iter().find(|(name, _)| name == group.as_bytes()) {
            Some((_, id)) => self.socket.add_membership(*id).map(|()| true),
            None => Ok(false),
        }
    }

    /// The socket, to wait for notices.
    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// What has been told since the last call, and whether there was more than there was room for.
    pub(super) fn notices(&self) -> Result<(Vec<Message>, bool), GenetlinkError> {
        let (mut notices, mut are_lost) = (Vec::new(), false);
        loop {
            match self.socket.recv_from_full() {
                Ok((datagram, from)) if from.port_number() == 0 => match read(&datagram, &mut notices) {
                    // Who has asked is answered among the notices, or refused.
                    Ok(_) | Err(GenetlinkError::Refused(_)) => {}
                    Err(error) => return Err(error),
                },
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok((notices, are_lost)),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => are_lost = true,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Asks, and leaves the answer to whoever reads the [notices](Self::notices).
    pub(super) fn ask_among_notices(&self, command: u8, attributes: &[DefaultNla]) -> io::Result<()> {
        let request = self.request(command, attributes, Wanted::One);
        self.socket.send_to(&request, &SocketAddr::new(0, 0), 0).map(|_| ())
    }

    /// Asks, and waits for the answers; none, if a command was all there was to say.
    pub(super) fn ask(
        &self,
        command: u8,
        attributes: &[DefaultNla],
        wanted: Wanted,
    ) -> Result<Vec<Message>, GenetlinkError> {
        self.socket.send_to(&self.request(command, attributes, wanted), &SocketAddr::new(0, 0), 0)?;
        self.answers()
    }

    /// The bytes of a question.
    pub(super) fn request(&self, command: u8, attributes: &[DefaultNla], wanted: Wanted) -> Vec<u8> {
        let mut bytes = vec![0; attributes.buffer_len()];
        attributes.emit(&mut bytes);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | if wanted == Wanted::All { NLM_F_DUMP } else { NLM_F_ACK };
        header.sequence_number = 1;
        let message = Message { family: self.id, command, attributes: bytes };
        let mut request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        bytes
    }

    /// A socket of its own that the kernel reads requests from.
    pub(super) fn another_socket() -> io::Result<OwnedFd> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        Ok(socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkGeneric)?)
    }

    fn answers(&self) -> Result<Vec<Message>, GenetlinkError> {
        let mut answers = Vec::new();
        loop {
            let (datagram, from) = self.socket.recv_from_full()?;
            // Whoever knows our port may write to it. The kernel's own is 0.
            if from.port_number() == 0 && read(&datagram, &mut answers)? {
                return Ok(answers);
            }
        }
    }
}

/// The groups of a family: a list of lists.
fn read_groups(list: &[u8]) -> Result<Vec<(Vec<u8>, u32)>, GenetlinkError> {
    let mut groups = Vec::new();
    for group in NlasIterator::new(list) {
        let (mut name, mut id) = (Vec::new(), None);
        for attribute in NlasIterator::new(group?.value()) {
            let attribute = attribute?;
            match attribute.kind() {
                CTRL_ATTR_MCAST_GRP_NAME => {
                    name = attribute.value().split(|&byte| byte == 0).next().unwrap_or_default().to_vec();
                }
                CTRL_ATTR_MCAST_GRP_ID => id = Some(parse_u32(attribute.value())?),
                _ => {}
            }
        }
        groups.extend(id.map(|id| (name, id)));
    }
    Ok(groups)
}

/// Appends the answers of a datagram. Returns whether the last one was among them.
fn read(mut datagram: &[u8], answers: &mut Vec<Message>) -> Result<bool, GenetlinkError> {
    while !datagram.is_empty() {
        let message = NetlinkMessage::<Message>::deserialize(datagram)?;
        match message.payload {
            NetlinkPayload::InnerMessage(answer) => answers.push(answer),
            NetlinkPayload::Error(error) => return refusal(error.raw_code()),
            NetlinkPayload::Done(done) => return refusal(done.code),
            NetlinkPayload::Noop => {}
            _ => return Err(GenetlinkError::malformed("some of it was lost")),
        }
        let length = (message.header.length as usize).next_multiple_of(4);
        datagram = datagram.get(length..).unwrap_or_default();
    }
    Ok(false)
}

/// The end of the answers: what the kernel says of the whole is an error number, negative, or 0.
fn refusal(code: i32) -> Result<bool, GenetlinkError> {
    match code {
        0.. => Ok(true),
        _ => Err(GenetlinkError::Refused(io::Error::from_raw_os_error(code.saturating_neg()))),
    }
}

impl Message {
    /// Passes each attribute's kind and value.
    pub(super) fn for_each(
        &self,
        mut attribute: impl FnMut(u16, &[u8]) -> Result<(), GenetlinkError>,
    ) -> Result<(), GenetlinkError> {
        NlasIterator::new(&self.attributes[..]).try_for_each(|found| {
            let found = found?;
            attribute(found.kind(), found.value())
        })
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.family
    }

    fn buffer_len(&self) -> usize {
        HEADER + self.attributes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer[..HEADER].copy_from_slice(&[self.command, VERSION, 0, 0]);
        buffer[HEADER..].copy_from_slice(&self.attributes);
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let (head, attributes) = payload
            .split_at_checked(HEADER)
            .ok_or_else(|| DecodeError::buffer_too_small(payload.len(), HEADER))?;
        Ok(Self { family: header.message_type, command: head[0], attributes: attributes.to_vec() })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An answer with these attributes.
    pub(in super::super) fn message(attributes: &[(u16, &[u8])]) -> Message {
        let attributes: Vec<_> =
            attributes.iter().map(|(kind, value)| DefaultNla::new(*kind, value.to_vec())).collect();
        let mut bytes = vec![0; attributes.as_slice().buffer_len()];
        attributes.as_slice().emit(&mut bytes);
        Message { family: 30, command: 1, attributes: bytes }
    }

    fn datagram(payload: NetlinkPayload<Message>) -> Vec<u8> {
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), payload);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    #[test]
    fn a_family_that_there_is_not_is_none_and_not_an_error() {
        assert!(Family::find("xs-none").expect("the kernel answers").is_none());
        let mut controller = Family::find("nlctrl").expect("the kernel answers").expect("it is there");
        assert_eq!(controller.id, CONTROLLER);
        assert!(
            controller.join("notify").expect("anybody may") && !controller.join("xs-none").expect("none")
        );
        let (notices, are_lost) = controller.notices().expect("nothing has happened");
        assert!(notices.is_empty() && !are_lost);
    }

    #[test]
    fn who_asks_among_notices_is_answered_there_or_refused() {
        let family = Family::find("nlctrl").expect("the kernel answers").expect("it is there");
        for (name, answers) in [(&b"xs-none\0"[..], 0), (b"nlctrl\0", 1)] {
            let name = DefaultNla::new(CTRL_ATTR_FAMILY_NAME, name.to_vec());
            family.ask_among_notices(CTRL_CMD_GETFAMILY, &[name]).expect("the kernel takes it");
            let (notices, are_lost) = family.notices().expect("a refusal is no failure");
            assert_eq!((notices.len(), are_lost), (answers, false));
        }
    }

    #[test]
    fn a_kernel_that_has_nothing_to_say_is_not_waited_for() {
        let family = Family::find("nlctrl").expect("the kernel answers").expect("it is there");
        let error = family.answers().expect_err("nothing was asked");
        assert!(
            matches!(&error, GenetlinkError::Os(error) if error.kind() == io::ErrorKind::WouldBlock),
            "{error}"
        );
    }

    #[test]
    fn answers_end_with_the_kernel_s_word_on_the_whole() {
        let mut both = datagram(NetlinkPayload::InnerMessage(message(&[(1, &[1, 0, 0, 0])])));
        both.extend(datagram(NetlinkPayload::InnerMessage(message(&[(1, &[2, 0, 0, 0])]))));
        let mut answers = Vec::new();
        assert!(!read(&both, &mut answers).expect("well-formed"));
        assert_eq!(answers.len(), 2);
        let end = |code: i32| datagram(NetlinkPayload::Error(error_message(code)));
        assert!(read(&end(0), &mut answers).expect("an acknowledgement"));
        let refused = read(&end(-libc::ENODEV), &mut answers).expect_err("refused");
        assert!(
            matches!(&refused, GenetlinkError::Refused(error) if error.raw_os_error() == Some(libc::ENODEV))
        );
        assert!(matches!(refusal(i32::MIN), Err(GenetlinkError::Refused(_))));
    }

    fn error_message(code: i32) -> netlink_packet_core::ErrorMessage {
        let mut message = netlink_packet_core::ErrorMessage::default();
        message.code = std::num::NonZeroI32::new(code);
        message
    }

    /// Each end of an answer that was cut short, and each length that lies.
    #[test]
    fn a_malformed_answer_is_an_error_and_never_a_panic() {
        let whole = datagram(NetlinkPayload::InnerMessage(message(&[(1, &[7, 0, 0, 0]), (3, &[1; 8])])));
        let parse = |bytes: &[u8]| -> Result<usize, GenetlinkError> {
            let (mut answers, mut found) = (Vec::new(), 0);
            read(bytes, &mut answers)?;
            answers.iter().try_for_each(|answer| {
                answer.for_each(|_, _| {
                    found += 1;
                    Ok(())
                })
            })?;
            Ok(found)
        };
        assert_eq!(parse(&whole).expect("whole"), 2);
        for end in 1..whole.len() {
            assert!(parse(&whole[..end]).is_err(), "of {} bytes, {end}", whole.len());
        }
        for at in 0..whole.len() {
            for value in [0, 1, 3, 0x7f, 0xff] {
                let mut lies = whole.clone();
                lies[at] = value;
                let _ = parse(&lies);
            }
        }
        let mut short = whole;
        short[20] = 3;
        assert!(parse(&short).is_err(), "an attribute shorter than its own header");
    }
}
