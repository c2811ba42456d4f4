//! What can be wrong with a benchmark's connection.

use std::io;

use super::protocol::VERSION;
use crate::cli::{
    error::{Exit, Failure},
    network::ConnectError,
};

/// Why a connection is of no use any more, or why there is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// There is none.
    #[error("no connection to the server: {0}")]
    Connect(#[from] ConnectError),
    /// There is none, to none of its ports, because all of ours are used up.
    #[error(
        "no local port is left for a connection to any of the {ports} ports on which the server listens ({why}): connections \
         that were closed keep theirs for a minute; start the server with more --ports, close by --reset, or stop sooner (-t, -n)"
    )]
    NoLocalPort {
        /// What the stack said.
        why: String,
        /// How many were tried.
        ports: usize,
    },
    /// What it said first is no answer of ours.
    #[error(
        "the server does not answer as `xstack bench server` does: start one there, or say with -p where one listens"
    )]
    Stranger,
    /// It is of another version.
    #[error(
        "the server speaks version {0} of the protocol, and this is version {VERSION}: run the same xstack at both ends"
    )]
    Version(u16),
    /// It says why it does not want to.
    #[error("the server refused: {0}")]
    Refused(String),
    /// It sent more than it was asked for.
    #[error("the server sent more than it was asked for: is it of another version than this xstack?")]
    Surplus,
    /// It says that it got another number of bytes than were sent.
    #[error("the server got {got} bytes of the {sent} that were sent")]
    Miscounted {
        /// Which it says that it got.
        got: u64,
        /// Which were sent.
        sent: u64,
    },
    /// It ended the connection before everything was there.
    #[error("the server closed the connection before it had answered: was it stopped?")]
    Closed,
    /// It said nothing for too long.
    #[error("the server has not answered for {0} seconds")]
    Silent(u64),
    /// A bulk flow did not move.
    #[error("nothing of the bulk flow was taken any more")]
    Stuck,
    /// The connection failed.
    #[error("the connection to the server failed: {0}")]
    Failed(#[from] io::Error),
}

impl Broken {
    /// Whether the next attempt would not be any better.
    pub(super) fn is_for_good(&self) -> bool {
        matches!(self, Self::NoLocalPort { .. } | Self::Stranger | Self::Version(_) | Self::Surplus)
    }
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        let exit = match &broken {
            Broken::Connect(ConnectError::TimedOut) | Broken::Silent(_) | Broken::Stuck => Exit::TimedOut,
            Broken::Connect(_) | Broken::NoLocalPort { .. } | Broken::Refused(_) => Exit::CouldNotConnect,
            Broken::Stranger | Broken::Version(_) | Broken::Surplus | Broken::Miscounted { .. } => {
                Exit::WeirdReply
            }
            Broken::Closed | Broken::Failed(_) => Exit::Receive,
        };
        Self::Benchmark { exit, what: broken.to_string() }
    }
}
