//! The control connection: one byte is a state, and after some of them come messages, JSON behind a length of four bytes.

use std::{io, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::{cli::network::Connection, rng::Rng};

/// How long a peer may take for what it is to say at once. A lost segment, and its repetition lost as well, cost three seconds
/// on a path of which nothing is known yet; whoever needs more than ten of them is not going to measure anything.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// How much longer it may take for each stream that is to come: a client sets them up one after the other, each in a round trip.
const PER_STREAM: Duration = Duration::from_millis(500);

/// What iperf3 allows itself for the parameters of a test, since it has a bound at all: names of users and a title fit in.
pub(super) const PARAMETERS_LIMIT: u32 = 8 * 1024;

/// Results are a quarter of a kilobyte for each stream at most, and there are 256 of them in both directions. Four times that is
/// enough for other spacings and fields to come, and cheap for whoever is lied to.
pub(super) const RESULTS_LIMIT: u32 = 256 * 1024;

/// Where a test is; the numbers are the protocol's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub(super) enum State {
    TestStart = 1,
    TestRunning = 2,
    TestEnd = 4,
    ParamExchange = 9,
    CreateStreams = 10,
    ServerTerminate = 11,
    ClientTerminate = 12,
    ExchangeResults = 13,
    DisplayResults = 14,
    IperfDone = 16,
    AccessDenied = -1,
    ServerError = -2,
}

impl State {
    const ALL: [Self; 12] = [
        Self::TestStart,
        Self::TestRunning,
        Self::TestEnd,
        Self::ParamExchange,
        Self::CreateStreams,
        Self::ServerTerminate,
        Self::ClientTerminate,
        Self::ExchangeResults,
        Self::DisplayResults,
        Self::IperfDone,
        Self::AccessDenied,
        Self::ServerError,
    ];

    fn from_byte(byte: i8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as i8 == byte)
    }
}

/// Why a test came to nothing, or to less than it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("the server is busy running a test: try again later")]
    Busy,
    #[error("the other end has closed the control connection")]
    Closed,
    #[error("the control connection failed: {0}")]
    Failed(io::Error),
    #[error("the other end says nothing: {what} was to come within {seconds} seconds")]
    Silent { what: &'static str, seconds: u64 },
    #[error("the other end takes nothing of what it is told, for {seconds} seconds", seconds = PATIENCE.as_secs())]
    Deaf,
    #[error(
        "the other end says {0}, which is no state of iperf3's protocol: is something else listening there?"
    )]
    NoState(i8),
    #[error("the other end says {0:?} where that makes no sense")]
    OutOfPlace(State),
    #[error(
        "the other end announces a message of {length} bytes, where {limit} are the most that makes sense"
    )]
    TooLong { length: u32, limit: u32 },
    #[error("the other end's message is not what it should be: {0}")]
    Garbled(String),
    #[error("the server can't run this test: error {error} of iperf3's{because}", because = because(*.errno))]
    Refused { error: i32, errno: i32 },
    #[error("the server has been terminated")]
    ServerTerminated,
    #[error("the client has been terminated")]
    ClientTerminated,
    #[error("the client asks for a test that is not possible: {0}")]
    Impossible(&'static str),
    #[error("a stream failed: {0}")]
    Stream(io::Error),
    #[error("nothing was sent or received for {0} seconds")]
    Stalled(u64),
    #[error("the client did not end the test when it should have")]
    Overdue,
    #[error("standard output can't be written to: {0}")]
    Output(io::Error),
}

fn because(errno: i32) -> String {
    if errno == 0 { String::new() } else { format!(" ({})", io::Error::from_raw_os_error(errno)) }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Failed(error),
        }
    }
}

/// What `work` gives, if it gives it in time; `what` is what was to come.
pub(super) async fn in_time<T>(
    what: &'static str,
    work: impl Future<Output = Result<T, Broken>>,
) -> Result<T, Broken> {
    within(PATIENCE, what, work).await
}

/// The same for so many streams, of which `work` waits for the last: one time for all of them, as whoever has each of them come
/// at the last moment, or sends what is none, would be waited for without an end.
pub(super) async fn all_in_time<T>(
    streams: usize,
    work: impl Future<Output = Result<T, Broken>>,
) -> Result<T, Broken> {
    let streams = u32::try_from(streams).unwrap_or(u32::MAX);
    within(PATIENCE + PER_STREAM.saturating_mul(streams), "the last of the streams", work).await
}

/// Tells the other end something, of which it may not take nothing for ever.
async fn tell(work: impl Future<Output = io::Result<()>>) -> Result<(), Broken> {
    Ok(timeout(PATIENCE, work).await.map_err(|_| Broken::Deaf)??)
}

async fn within<T>(
    limit: Duration,
    what: &'static str,
    work: impl Future<Output = Result<T, Broken>>,
) -> Result<T, Broken> {
    timeout(limit, work).await.unwrap_or(Err(Broken::Silent { what, seconds: limit.as_secs() }))
}

/// What all connections of a test begin with: 36 characters of the client's choice, and a zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cookie([u8; Self::LENGTH]);

impl Cookie {
    pub(super) const LENGTH: usize = 37;
    const ALPHABET: &'static [u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

    /// One that nobody can guess: whoever knows it can send into the test.
    pub(super) fn random() -> io::Result<Self> {
        let mut bytes = [0; Self::LENGTH];
        Rng::from_os()?.fill(&mut bytes[..Self::LENGTH - 1]);
        for byte in &mut bytes[..Self::LENGTH - 1] {
            *byte = Self::ALPHABET[usize::from(*byte) % Self::ALPHABET.len()];
        }
        Ok(Self(bytes))
    }

    /// None, if a client does not make them so.
    pub(super) fn parse(bytes: [u8; Self::LENGTH]) -> Option<Self> {
        let (characters, end) = bytes.split_at(Self::LENGTH - 1);
        (end == [0] && characters.iter().copied().all(Self::has)).then_some(Self(bytes))
    }

    /// Whether one may have this character.
    pub(super) fn has(byte: u8) -> bool {
        Self::ALPHABET.contains(&byte)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0[..Self::LENGTH - 1]).into_owned()
    }
}

/// The connection.
#[derive(Debug)]
pub(super) struct Control<S>(S);

impl<S: Connection> Control<S> {
    pub(super) fn new(stream: S) -> Self {
        Self(stream)
    }

    pub(super) fn stream(&self) -> &S {
        &self.0
    }

    pub(super) fn into_inner(self) -> S {
        self.0
    }

    pub(super) async fn send_cookie(&mut self, cookie: &Cookie) -> Result<(), Broken> {
        tell(self.0.write_all(cookie.bytes())).await
    }

    pub(super) async fn send(&mut self, state: State) -> Result<(), Broken> {
        self.write(&[state as u8]).await
    }

    /// The next state. Cancel safe.
    pub(super) async fn receive(&mut self) -> Result<State, Broken> {
        let mut byte = [0];
        if self.0.read(&mut byte).await? == 0 {
            return Err(Broken::Closed);
        }
        let byte = i8::from_be_bytes(byte);
        State::from_byte(byte).ok_or(Broken::NoState(byte))
    }

    /// Waits for `state`, and takes no other.
    pub(super) async fn expect(&mut self, state: State, what: &'static str) -> Result<(), Broken> {
        match in_time(what, self.receive()).await? {
            found if found == state => Ok(()),
            found => Err(self.instead(found).await),
        }
    }

    /// What it means that `state` came where another should have.
    pub(super) async fn instead(&mut self, state: State) -> Broken {
        match state {
            State::AccessDenied => Broken::Busy,
            State::ServerTerminate => Broken::ServerTerminated,
            State::ClientTerminate => Broken::ClientTerminated,
            State::ServerError => match in_time("the reason", self.read_error()).await {
                Ok((error, errno)) => Broken::Refused { error, errno },
                Err(broken) => broken,
            },
            state => Broken::OutOfPlace(state),
        }
    }

    async fn read_error(&mut self) -> Result<(i32, i32), Broken> {
        Ok((self.0.read_i32().await?, self.0.read_i32().await?))
    }

    /// Tells a client that its test can't be: an error of iperf3's, by its number there.
    pub(super) async fn send_error(&mut self, error: i32) -> Result<(), Broken> {
        let [e0, e1, e2, e3] = error.to_be_bytes();
        self.write(&[State::ServerError as u8, e0, e1, e2, e3, 0, 0, 0, 0]).await
    }

    pub(super) async fn write_message(&mut self, message: &impl Serialize) -> Result<(), Broken> {
        let text = serde_json::to_vec(message).map_err(|error| Broken::Garbled(error.to_string()))?;
        let length = u32::try_from(text.len()).map_err(|_| Broken::Garbled("too long to send".into()))?;
        let mut bytes = Vec::with_capacity(4 + text.len());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&text);
        self.write(&bytes).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let written = async {
            self.0.write_all(bytes).await?;
            self.0.flush().await
        };
        tell(written).await
    }

    /// A message of at most `limit` bytes. No memory is set aside for bytes that were only announced, beyond that.
    pub(super) async fn read_message<T: DeserializeOwned>(
        &mut self,
        limit: u32,
        what: &'static str,
    ) -> Result<T, Broken> {
        let reading = async {
            let length = self.0.read_u32().await?;
            if length > limit {
                return Err(Broken::TooLong { length, limit });
            }
            let mut bytes = vec![0; length as usize];
            self.0.read_exact(&mut bytes).await?;
            Ok(bytes)
        };
        let bytes = in_time(what, reading).await?;
        serde_json::from_slice(&bytes).map_err(|error| Broken::Garbled(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    fn pair() -> (Control<DuplexStream>, DuplexStream) {
        let (ours, theirs) = duplex(1 << 20);
        (Control::new(ours), theirs)
    }

    #[test]
    fn a_cookie_is_36_characters_of_base32_and_a_zero() {
        let cookie = Cookie::random().expect("randomness");
        assert_eq!(Cookie::parse(cookie.0), Some(cookie));
        assert_ne!(Cookie::random().expect("randomness"), cookie);
        assert_eq!(cookie.text().len(), 36);
        for (at, byte) in [(36, b'a'), (0, 0), (5, b'A'), (5, b'1'), (5, b'-'), (5, 0xff)] {
            let mut wrong = cookie.0;
            wrong[at] = byte;
            assert_eq!(Cookie::parse(wrong), None, "{byte} at {at}");
        }
    }

    #[test]
    fn states_have_the_numbers_of_the_protocol() {
        let numbers: Vec<i8> = State::ALL.map(|state| state as i8).into();
        assert_eq!(numbers, [1, 2, 4, 9, 10, 11, 12, 13, 14, 16, -1, -2]);
        for byte in i8::MIN..=i8::MAX {
            let is_state = State::from_byte(byte).is_some_and(|state| state as i8 == byte);
            assert_eq!(is_state, numbers.contains(&byte), "{byte}");
        }
    }

    #[tokio::test]
    async fn a_message_comes_as_it_was_sent() {
        let (mut control, theirs) = pair();
        let mut peer = Control::new(theirs);
        control.write_message(&serde_json::json!({"time": 10})).await.expect("sent");
        let read: Value = peer.read_message(PARAMETERS_LIMIT, "a message").await.expect("read");
        assert_eq!(read["time"], 10);
    }

    #[tokio::test]
    async fn a_message_that_is_longer_than_it_can_be_is_not_waited_for() {
        for length in [PARAMETERS_LIMIT + 1, u32::MAX] {
            let (mut control, mut theirs) = pair();
            theirs.write_u32(length).await.expect("room");
            let read = control.read_message::<Value>(PARAMETERS_LIMIT, "a message").await;
            assert!(matches!(read, Err(Broken::TooLong { .. })), "{read:?}");
        }
    }

    #[tokio::test]
    async fn what_is_not_json_or_not_whole_is_refused() {
        for text in ["", "{", "[1,2", "\u{1}", "{\"a\":}", "null null"] {
            let (mut control, mut theirs) = pair();
            theirs.write_u32(text.len() as u32).await.expect("room");
            theirs.write_all(text.as_bytes()).await.expect("room");
            let read = control.read_message::<Value>(PARAMETERS_LIMIT, "a message").await;
            assert!(matches!(read, Err(Broken::Garbled(_))), "{text}: {read:?}");
        }
        let (mut control, mut theirs) = pair();
        theirs.write_u32(10).await.expect("room");
        theirs.write_all(b"{\"a\"").await.expect("room");
        drop(theirs);
        let read = control.read_message::<Value>(PARAMETERS_LIMIT, "a message").await;
        assert!(matches!(read, Err(Broken::Closed)), "{read:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_says_nothing_is_not_waited_for_longer_than_patience_lasts() {
        let (mut control, theirs) = pair();
        let begun = tokio::time::Instant::now();
        let found = control.expect(State::ParamExchange, "an answer").await;
        assert!(matches!(found, Err(Broken::Silent { what: "an answer", seconds: 10 })), "{found:?}");
        assert_eq!(begun.elapsed(), PATIENCE);
        drop(theirs);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_does_not_take_what_it_is_told_is_not_waited_for_longer_either() {
        let (ours, _theirs) = duplex(8);
        let mut control = Control::new(ours);
        for number in 0..3 {
            let begun = tokio::time::Instant::now();
            let told = async {
                match number {
                    0 => control.write_message(&serde_json::json!({"time": 10})).await,
                    1 => control.send(State::TestStart).await,
                    _ => control.send_error(6).await,
                }
            };
            let told = timeout(PATIENCE * 2, told).await.expect("it gives up");
            assert!(matches!(told, Err(Broken::Deaf)), "{number}: {told:?}");
            assert_eq!(begun.elapsed(), PATIENCE);
        }
    }

    #[tokio::test]
    async fn what_comes_in_place_of_a_state_is_told_apart() {
        for (bytes, says) in [
            (&[0xff][..], "busy"),
            (&[11], "terminated"),
            (&[3], "says 3"),
            (&[14], "DisplayResults"),
            (&[0xfe, 0, 0, 0, 6, 0, 0, 0, 0], "error 6 of iperf3's"),
            (&[0xfe, 0, 0, 0, 202, 0, 0, 0, 98], "Address already in use"),
            (&[0xfe, 0, 0], "closed"),
            (&[], "closed"),
        ] {
            let (mut control, mut theirs) = pair();
            theirs.write_all(bytes).await.expect("room");
            drop(theirs);
            let broken = control.expect(State::ParamExchange, "an answer").await.expect_err("another state");
            assert!(broken.to_string().contains(says), "{bytes:?}: {broken}");
        }
    }
}
