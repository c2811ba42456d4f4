//! What both ends say to each other before they measure, byte by byte. Numbers are in network byte order.
//!
//! A client begins each connection with a **hello** of 20 bytes:
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | [`MAGIC`], which none of iperf3's cookies begins with |
//! | 8..10 | the version of the protocol, [`VERSION`] |
//! | 10..12 | what the connection is for, a [`Purpose`] |
//! | 12..16 | the length of each request, 1 byte to 1 MiB |
//! | 16..20 | the length of each response, in the same range |
//!
//! The server's **answer** has 16 bytes and what they announce:
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | [`MAGIC`] again, so that a client knows whom it talks to |
//! | 8..10 | the server's version |
//! | 10..12 | 0 if it will do that, else a [`Refusal`] |
//! | 12..14 | how many other ports the server listens on |
//! | 14..16 | the length of a text that says why not, in UTF-8 |
//! | then | the ports, 2 bytes each; the text |
//!
//! After a refusal the server closes. Else it depends on the purpose:
//!
//! - **Ask**: the answer names the ports, and that was all.
//! - **Requests**: the client sends requests, as many as it likes and without waiting if it likes, and the server sends a
//!   response for each, once it has all of it. What is in them is of no interest, their lengths are. The client closes.
//! - **Once**: the client sends one request right behind its hello, without waiting for an answer, and the server sends answer
//!   and response together. So a whole transaction takes as many round trips as one of HTTP/1.0.
//! - **Sink**: the client sends until it has had enough and ends its direction; the server then says in 8 bytes how many it got,
//!   and closes.
//! - **Source**: the server sends until the client ends its direction.

use std::ops::RangeInclusive;

use super::broken::Broken;

/// The first bytes from either side. iperf3's cookies are of lower-case letters and digits, so no client of it begins so.
pub(in crate::cli::bench) const MAGIC: [u8; 8] = *b"XSBENCH\n";

/// What is described here.
pub(super) const VERSION: u16 = 1;

/// How long a request or a response may be. A server's memory does not depend on it; but what takes longer than that is bulk,
/// and to be measured as such.
pub(super) const LENGTHS: RangeInclusive<u32> = 1..=1 << 20;

/// Bytes of a hello.
pub(super) const HELLO: usize = 20;

/// Bytes of an answer, without what they announce.
pub(super) const ANSWER: usize = 16;

/// Ports that a server tells at most. With so many a client has two million flows to one server, more than memory for them.
pub(in crate::cli::bench) const MAX_PORTS: usize = 64;

/// Bytes of the text of a refusal at most: a line.
const MAX_TEXT: usize = 200;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Knowing whether the server is there, and on which other ports.
    Ask,
    /// Requests, one after the other or several at once.
    Requests,
    /// One request.
    Once,
    /// Bulk to the server.
    Sink,
    /// Bulk from the server.
    Source,
}

impl Purpose {
    const ALL: [Self; 5] = [Self::Ask, Self::Requests, Self::Once, Self::Sink, Self::Source];

    fn number(self) -> u16 {
        self as u16
    }

    fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.number() == number)
    }
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) purpose: Purpose,
    pub(super) lengths: Lengths,
}

/// How long requests and responses are, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lengths {
    pub(super) request: u32,
    pub(super) response: u32,
}

impl Lengths {
    /// For purposes that have neither.
    pub(super) const NONE: Self = Self { request: 1, response: 1 };
}

/// Why a server does not do what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Another version of the protocol.
    Version,
    /// A purpose that it does not know.
    Purpose,
    /// A length out of range.
    Lengths,
}

impl Refusal {
    const fn number(self) -> u16 {
        match self {
            Self::Version => 1,
            Self::Purpose => 2,
            Self::Lengths => 3,
        }
    }

    fn text(self) -> String {
        match self {
            Self::Version => format!("this server speaks version {VERSION}"),
            Self::Purpose => "this server does not know that benchmark".to_owned(),
            Self::Lengths => {
                format!("requests and responses have {} to {} bytes", LENGTHS.start(), LENGTHS.end())
            }
        }
    }

    /// The answer that says so.
    pub(super) fn encode(self) -> Vec<u8> {
        let text = self.text();
        let mut bytes = answer(self.number(), 0, text.len() as u16).to_vec();
        bytes.extend_from_slice(text.as_bytes());
        bytes
    }
}

impl Hello {
    /// As it is sent.
    pub(super) fn encode(self) -> [u8; HELLO] {
        let mut bytes = [0; HELLO];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_be_bytes());
        bytes[10..12].copy_from_slice(&self.purpose.number().to_be_bytes());
        bytes[12..16].copy_from_slice(&self.lengths.request.to_be_bytes());
        bytes[16..].copy_from_slice(&self.lengths.response.to_be_bytes());
        bytes
    }

    /// Reads one whose magic has been seen already.
    pub(super) fn decode(bytes: &[u8; HELLO]) -> Result<Self, Refusal> {
        if two(bytes, 8) != VERSION {
            return Err(Refusal::Version);
        }
        let purpose = Purpose::from_number(two(bytes, 10)).ok_or(Refusal::Purpose)?;
        let lengths = Lengths { request: four(bytes, 12), response: four(bytes, 16) };
        if !LENGTHS.contains(&lengths.request) || !LENGTHS.contains(&lengths.response) {
            return Err(Refusal::Lengths);
        }
        Ok(Self { purpose, lengths })
    }
}

/// The answer that agrees to everything but `Ask`.
pub(super) const AGREED: [u8; ANSWER] = answer(0, 0, 0);

/// The answer to `Ask`: as many ports as may be told.
pub(super) fn ports_answer(ports: &[u16]) -> Vec<u8> {
    let ports = &ports[..ports.len().min(MAX_PORTS)];
    let mut bytes = answer(0, ports.len() as u16, 0).to_vec();
    bytes.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
    bytes
}

const fn answer(status: u16, ports: u16, text: u16) -> [u8; ANSWER] {
    let mut bytes = [0; ANSWER];
    let mut at = 0;
    while at < MAGIC.len() {
        bytes[at] = MAGIC[at];
        at += 1;
    }
    let numbers = [VERSION, status, ports, text];
    let mut number = 0;
    while number < numbers.len() {
        let [high, low] = numbers[number].to_be_bytes();
        bytes[at] = high;
        bytes[at + 1] = low;
        at += 2;
        number += 1;
    }
    bytes
}

/// The head of an answer, as it was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Whether the server agrees.
    pub(super) agreed: bool,
    /// How many ports follow.
    pub(super) ports: usize,
    /// How many bytes of text follow.
    pub(super) text: usize,
}

impl Head {
    /// Reads it, and refuses to read what no server of ours sends.
    pub(super) fn decode(bytes: &[u8; ANSWER]) -> Result<Self, Broken> {
        if bytes[..8] != MAGIC {
            return Err(Broken::Stranger);
        }
        let [status, ports, text] = [10, 12, 14].map(|at| two(bytes, at));
        let head = Self { agreed: status == 0, ports: ports.into(), text: text.into() };
        // A refusal says in its text which version there is instead.
        if head.agreed && two(bytes, 8) != VERSION {
            return Err(Broken::Version(two(bytes, 8)));
        }
        if head.ports > MAX_PORTS || head.text > MAX_TEXT || head.agreed != (head.text == 0) {
            return Err(Broken::Stranger);
        }
        Ok(head)
    }
}

fn two(bytes: &[u8], at: usize) -> u16 {
    bytes[at..at + 2].iter().fold(0, |number, byte| number << 8 | u16::from(*byte))
}

fn four(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_hello_is_twenty_bytes_in_network_order() {
        let lengths = Lengths { request: 64, response: 1 << 20 };
        let bytes = Hello { purpose: Purpose::Once, lengths }.encode();
        assert_eq!(&bytes, b"XSBENCH\n\0\x01\0\x02\0\0\0\x40\0\x10\0\0");
        assert_eq!(Hello::decode(&bytes), Ok(Hello { purpose: Purpose::Once, lengths }));
    }

    #[test]
    fn each_purpose_comes_back_as_it_went() {
        for purpose in Purpose::ALL {
            let hello = Hello { purpose, lengths: Lengths::NONE };
            assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
        }
    }

    #[test]
    fn nonsense_is_refused_with_a_text_that_says_what_would_be_sense() {
        let good = Hello { purpose: Purpose::Requests, lengths: Lengths::NONE }.encode();
        for (at, byte, refusal, says) in [
            (9, 2, Refusal::Version, "version 1"),
            (11, 9, Refusal::Purpose, "benchmark"),
            (15, 0, Refusal::Lengths, "1 to 1048576 bytes"),
            (17, 0xff, Refusal::Lengths, "1 to 1048576 bytes"),
        ] {
            let mut bytes = good;
            bytes[at] = byte;
            assert_eq!(Hello::decode(&bytes), Err(refusal));
            let answer = refusal.encode();
            let head = Head::decode(answer[..ANSWER].try_into().expect("a head")).expect("decodes");
            assert_eq!((head.agreed, head.ports, head.text), (false, 0, answer.len() - ANSWER));
            let text = std::str::from_utf8(&answer[ANSWER..]).expect("text");
            assert!(text.contains(says), "{text}");
        }
    }

    #[test]
    fn ports_are_told_and_not_more_than_a_client_takes() {
        let ports: Vec<u16> = (1..=100).collect();
        let answer = ports_answer(&ports);
        let head = Head::decode(answer[..ANSWER].try_into().expect("a head")).expect("decodes");
        assert_eq!((head.agreed, head.ports, head.text), (true, MAX_PORTS, 0));
        assert_eq!(answer.len(), ANSWER + 2 * MAX_PORTS);
        assert_eq!(answer[ANSWER..ANSWER + 4], [0, 1, 0, 2]);
    }

    #[test]
    fn an_answer_of_another_version_or_of_another_program_is_told_apart() {
        assert!(Head::decode(&AGREED).expect("decodes").agreed);
        let mut other = AGREED;
        other[9] = 7;
        assert!(matches!(Head::decode(&other), Err(Broken::Version(7))));
        assert!(matches!(Head::decode(b"HTTP/1.1 400 Bad"), Err(Broken::Stranger)));
        let mut long = AGREED;
        long[12] = 0xff;
        assert!(matches!(Head::decode(&long), Err(Broken::Stranger)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_hello_or_a_refusal_and_an_answer_or_an_error(
            hello in any::<[u8; HELLO]>(), mut answer in any::<[u8; ANSWER]>()
        ) {
            if let Ok(hello) = Hello::decode(&hello) {
                prop_assert!(LENGTHS.contains(&hello.lengths.request));
            }
            answer[..8].copy_from_slice(&MAGIC);
            if let Ok(head) = Head::decode(&answer) {
                prop_assert!(head.ports <= MAX_PORTS && head.text <= MAX_TEXT);
            }
        }
    }
}
