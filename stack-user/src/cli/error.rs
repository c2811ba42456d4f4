//! What the command says and returns when it fails: every message and every exit code, in one place.
//!
//! The codes are curl's own where curl has one for the case, so that scripts need no change.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use super::console::printable;
use super::network::{ConnectError, ResolveError};

macro_rules! exits {
    ($($name:ident = $code:literal, $meaning:literal;)*) => {
        /// How the process ends.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Exit { $(#[doc = $meaning] $name = $code,)* }

        impl Exit {
            /// All of them, by their number.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// What the code tells, as `--help` and docs/exit-codes.md put it.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)* }
            }
        }
    };
}

exits! {
    Success = 0, "everything was done";
    UnsupportedProtocol = 1, "a URL's scheme, or the server's version of HTTP, is not spoken here";
    Usage = 2, "the command line makes no sense, or an option can't have that value";
    BadUrl = 3, "a URL is malformed";
    UnknownHost = 6, "the host's name could not be resolved";
    CouldNotConnect = 7, "the host refused the connection, or is unreachable";
    WeirdReply = 8, "the server's reply is not valid HTTP, or not what a benchmark's server says";
    Partial = 18, "the body ended before it was complete";
    HttpError = 22, "the server answered with status 400 or above, and --fail was given";
    Write = 23, "the body could not be written";
    Read = 26, "a file to send, or the directory to serve, could not be read";
    TimedOut = 28, "a time limit was reached";
    Interface = 45, "the interface, the address or the file of --pcap cannot be used";
    TooManyRedirects = 47, "more redirects than --max-redirs allows";
    BadOption = 49, "an entry of --resolve is malformed";
    EmptyReply = 52, "the server closed without a reply";
    Send = 55, "the connection failed while sending";
    Receive = 56, "the connection failed while receiving";
    Certificate = 58, "a certificate, or its key, cannot be used";
    Configuration = 78, "the daemon's configuration is not valid";
    Listen = 102, "an address and port, or a socket, cannot be listened on";
    InUse = 103, "the program of an interface is in use, and --force was not given";
    Benchmark = 104, "a benchmark did not come to its end";
    Control = 111, "the daemon could not be reached, or refused";
    Warnings = 120, "xstack doctor found something that is not good";
    Problems = 121, "xstack doctor found something that can't work, or its self-test failed";
    Privileges = 125, "root or a capability could not be given up, and nothing was done";
    Interrupted = 130, "stopped by Ctrl-C (SIGINT)";
    Terminated = 143, "stopped by SIGTERM";
}

impl Exit {
    /// The number that the shell sees.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// `ftp://` and the like.
    #[error("Protocol \"{scheme}\" not supported: use http://")]
    UnsupportedProtocol {
        /// What stood before `://`.
        scheme: String,
    },
    /// `https://`.
    #[error("Protocol \"https\" not supported yet: TLS is not built into this xstack, use http://")]
    TlsNotBuiltIn,
    /// The reply does not begin with a status line.
    #[error("Received HTTP/0.9 when not allowed: the server does not speak HTTP/1")]
    Http09,
    /// A status line, but not of HTTP/1.
    #[error("Unsupported HTTP version in response: {status_line}")]
    UnsupportedHttpVersion {
        /// The server's first line.
        status_line: String,
    },
    /// Options that contradict each other, or cannot be sent.
    #[error("{0}")]
    Usage(String),
    /// Not a URL.
    #[error("URL using bad/illegal format or missing URL: {reason}")]
    BadUrl {
        /// What is wrong with it.
        reason: String,
    },
    /// A `Location:` that is not a URL.
    #[error("The redirect target URL could not be parsed: {reason}")]
    BadRedirect {
        /// What is wrong with it.
        reason: String,
    },
    /// No address for the name.
    #[error("Could not resolve host: {host}{}", Because(reason))]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        reason: ResolveError,
    },
    /// No connection to any of the host's addresses.
    #[error("Failed to connect to {host} port {port} after {elapsed_ms} ms: {reason}")]
    Connect {
        /// The host as in the URL.
        host: String,
        /// The port.
        port: u16,
        /// How long was tried.
        elapsed_ms: u128,
        /// What the last address that was tried said.
        reason: ConnectError,
    },
    /// The time for resolving and connecting, or for all of it, is over and there is no address.
    #[error("Resolving timed out after {elapsed_ms} milliseconds")]
    ResolveTimedOut {
        /// How long was tried.
        elapsed_ms: u128,
    },
    /// The time for resolving and connecting, or for all of it, is over and there is no connection.
    #[error("Connection timed out after {elapsed_ms} milliseconds")]
    ConnectTimedOut {
        /// How long was tried.
        elapsed_ms: u128,
    },
    /// `--max-time` is over.
    #[error("Operation timed out after {elapsed_ms} milliseconds with {received}{} bytes received", OutOf(*total))]
    OperationTimedOut {
        /// How long it took until now.
        elapsed_ms: u128,
        /// Bytes of the body.
        received: u64,
        /// Bytes that the body should have, if the server said so.
        total: Option<u64>,
    },
    /// HTTP/1, but broken.
    #[error("Weird server reply: {what}")]
    WeirdReply {
        /// Which part is broken.
        what: String,
    },
    /// The connection ended within the body.
    #[error("transfer closed with {}", Remaining(*missing))]
    Partial {
        /// How many bytes are missing, if the server said how many there are.
        missing: Option<u64>,
    },
    /// A status of 400 or above, with `--fail`.
    #[error("The requested URL returned error: {status}")]
    HttpStatus {
        /// The status.
        status: u16,
    },
    /// Standard output or a file.
    #[error("Failure writing output to {destination}: {source}")]
    Write {
        /// Where to.
        destination: String,
        /// Why not.
        source: io::Error,
    },
    /// A body that a terminal had better not see.
    #[error(
        "Binary output can mess up your terminal. Use \"--output -\" to print it anyway, or \"--output FILE\""
    )]
    BinaryToTerminal,
    /// `-O`, and a URL such as `http://host/`.
    #[error("Remote file name has no length: the URL ends in '/', use --output FILE")]
    NoRemoteName,
    /// A file given as `@FILE`.
    #[error("Failed to read {}: {source}", path.display())]
    ReadFile {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What `xstack serve` is to serve.
    #[error("Cannot serve {}: {source}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// TLS with this certificate, or its key.
    #[error("Cannot use the certificate {}: {reason}", path.display())]
    Certificate {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A listener.
    #[error("Cannot listen on {local}: {source}")]
    Listen {
        /// Where.
        local: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// A daemon's configuration, with file, line and reason.
    #[error("{0}")]
    Configuration(String),
    /// A daemon that should have answered.
    #[error("{0}")]
    Control(String),
    /// The stack could not be brought up on the interface.
    #[error("{0}")]
    Interface(String),
    /// What was to be taken away is needed.
    #[error("{0}")]
    InUse(String),
    /// The process would have gone on with more rights than it needs.
    #[error("Could not give up privileges: {step}: {reason}")]
    Privileges {
        /// What was being done.
        step: &'static str,
        /// What is in the way.
        reason: String,
    },
    /// Where a relay was to listen it can't, or not any more.
    #[error("{0}")]
    Relay(String),
    /// `--max-redirs`.
    #[error("Maximum ({max}) redirects followed")]
    TooManyRedirects {
        /// The limit.
        max: u32,
    },
    /// `--resolve`.
    #[error("Couldn't parse --resolve entry '{entry}': it has the form HOST:PORT:ADDRESS[,ADDRESS]...")]
    BadResolveEntry {
        /// The entry.
        entry: String,
    },
    /// Closed before the first byte.
    #[error("Empty reply from server")]
    EmptyReply,
    /// What came in a benchmark's way.
    #[error("{0}")]
    Bench(String),
    /// While sending the request.
    #[error("Send failure: {}", reason(*.0))]
    Send(io::ErrorKind),
    /// While receiving the response.
    #[error("Recv failure: {}", reason(*.0))]
    Receive(io::ErrorKind),
    /// The response's framing or size is such that it cannot be received.
    #[error("Recv failure: {0}")]
    Unreceivable(String),
    /// The other end of a benchmark is none, or does not do its part.
    #[error("{what}")]
    Benchmark {
        /// The exit code.
        exit: Exit,
        /// What is wrong, and what to do.
        what: String,
    },
}

impl Failure {
    /// The exit code of this failure.
    pub fn exit(&self) -> Exit {
        match self {
            Self::UnsupportedProtocol { .. }
            | Self::TlsNotBuiltIn
            | Self::Http09
            | Self::UnsupportedHttpVersion { .. } => Exit::UnsupportedProtocol,
            Self::Usage(_) => Exit::Usage,
            Self::BadUrl { .. } | Self::BadRedirect { .. } => Exit::BadUrl,
            Self::Resolve { .. } => Exit::UnknownHost,
            // curl, too, tells a peer that never answered from one that said no.
            Self::Connect { reason: ConnectError::TimedOut, .. }
            | Self::ResolveTimedOut { .. }
            | Self::ConnectTimedOut { .. }
            | Self::OperationTimedOut { .. } => Exit::TimedOut,
            Self::Connect { .. } => Exit::CouldNotConnect,
            Self::WeirdReply { .. } => Exit::WeirdReply,
            Self::Partial { .. } => Exit::Partial,
            Self::HttpStatus { .. } => Exit::HttpError,
            Self::Write { .. } | Self::BinaryToTerminal | Self::NoRemoteName => Exit::Write,
            Self::ReadFile { .. } | Self::Directory { .. } => Exit::Read,
            Self::Certificate { .. } => Exit::Certificate,
            Self::Listen { .. } | Self::Relay(_) => Exit::Listen,
            Self::Interface(_) => Exit::Interface,
            Self::InUse(_) => Exit::InUse,
            Self::Configuration(_) => Exit::Configuration,
            Self::Control(_) => Exit::Control,
            Self::Privileges { .. } => Exit::Privileges,
            Self::TooManyRedirects { .. } => Exit::TooManyRedirects,
            Self::BadResolveEntry { .. } => Exit::BadOption,
            Self::Bench(_) => Exit::Benchmark,
            Self::EmptyReply => Exit::EmptyReply,
            Self::Benchmark { exit, .. } => *exit,
            Self::Send(_) => Exit::Send,
            Self::Receive(_) | Self::Unreceivable(_) => Exit::Receive,
        }
    }

    /// The one line that stderr gets. It may quote a server, hence no control character stays in it.
    pub fn line(&self) -> String {
        format!("xstack: ({}) {}", self.exit().code(), printable(&self.to_string()))
    }
}

/// The field's words for an I/O error, which are the same whoever's TCP it is.
fn reason(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::ConnectionReset => "Connection reset by peer",
        io::ErrorKind::ConnectionAborted => "Connection aborted",
        io::ErrorKind::BrokenPipe => "Broken pipe",
        io::ErrorKind::TimedOut => "Connection timed out",
        io::ErrorKind::HostUnreachable => "No route to host",
        io::ErrorKind::NetworkUnreachable => "Network is unreachable",
        io::ErrorKind::NetworkDown => "Network is down",
        _ => "the connection failed",
    }
}

/// The plain "no such host" needs no explanation; all else does.
struct Because<'a>(&'a ResolveError);

impl fmt::Display for Because<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ResolveError::UnknownHost => Ok(()),
            other => write!(f, " ({other})"),
        }
    }
}

struct OutOf(Option<u64>);

impl fmt::Display for OutOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |total| write!(f, " out of {total}"))
    }
}

struct Remaining(Option<u64>);

impl fmt::Display for Remaining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bytes) => write!(f, "{bytes} bytes remaining to read"),
            None => f.write_str("outstanding read data remaining"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the shell sees is part of the interface: a change here breaks scripts.
    #[test]
    fn every_failure_has_its_exit_code() {
        let text = String::new;
        let connect = |reason| Failure::Connect { host: text(), port: 80, elapsed_ms: 0, reason };
        let io = || io::Error::from(io::ErrorKind::NotFound);
        let table = [
            (Failure::UnsupportedProtocol { scheme: text() }, 1),
            (Failure::TlsNotBuiltIn, 1),
            (Failure::Http09, 1),
            (Failure::UnsupportedHttpVersion { status_line: text() }, 1),
            (Failure::Usage(text()), 2),
            (Failure::BadUrl { reason: text() }, 3),
            (Failure::BadRedirect { reason: text() }, 3),
            (Failure::Resolve { host: text(), reason: ResolveError::UnknownHost }, 6),
            (Failure::Resolve { host: text(), reason: ResolveError::Failed(text()) }, 6),
            (connect(ConnectError::Refused), 7),
            (connect(ConnectError::Unreachable("no way".to_owned())), 7),
            (connect(ConnectError::Reset), 7),
            (connect(ConnectError::FamilyUnsupported), 7),
            (connect(ConnectError::TimedOut), 28),
            (Failure::WeirdReply { what: text() }, 8),
            (Failure::Partial { missing: None }, 18),
            (Failure::HttpStatus { status: 404 }, 22),
            (Failure::Write { destination: text(), source: io() }, 23),
            (Failure::BinaryToTerminal, 23),
            (Failure::NoRemoteName, 23),
            (Failure::ReadFile { path: "x".into(), source: io() }, 26),
            (Failure::Directory { path: "x".into(), source: io() }, 26),
            (Failure::Certificate { path: "x".into(), reason: text() }, 58),
            (Failure::Relay(text()), 102),
            (Failure::Listen { local: ([0; 4], 80).into(), source: io() }, 102),
            (Failure::ResolveTimedOut { elapsed_ms: 1 }, 28),
            (Failure::ConnectTimedOut { elapsed_ms: 1 }, 28),
            (Failure::OperationTimedOut { elapsed_ms: 1, received: 0, total: None }, 28),
            (Failure::Interface(text()), 45),
            (Failure::InUse(text()), 103),
            (Failure::Privileges { step: "x", reason: text() }, 125),
            (Failure::TooManyRedirects { max: 50 }, 47),
            (Failure::Configuration(text()), 78),
            (Failure::Control(text()), 111),
            (Failure::BadResolveEntry { entry: text() }, 49),
            (Failure::Bench(text()), 104),
            (Failure::EmptyReply, 52),
            (Failure::Send(io::ErrorKind::BrokenPipe), 55),
            (Failure::Receive(io::ErrorKind::ConnectionReset), 56),
            (Failure::Unreceivable(text()), 56),
        ];
        for (failure, code) in table {
            assert_eq!(failure.exit().code(), code, "{failure:?}");
        }
    }

    #[test]
    fn the_line_is_one_line_whatever_the_server_sent() {
        let failure = Failure::WeirdReply { what: "a\r\nb\u{1b}[31m".into() };
        assert_eq!(failure.line(), "xstack: (8) Weird server reply: a\\r\\nb\\x1b[31m");
    }

    #[test]
    fn messages_read_as_curls_do() {
        let failure = Failure::OperationTimedOut { elapsed_ms: 1001, received: 5, total: Some(9) };
        assert_eq!(
            failure.to_string(),
            "Operation timed out after 1001 milliseconds with 5 out of 9 bytes received"
        );
        assert_eq!(
            Failure::Partial { missing: Some(95) }.to_string(),
            "transfer closed with 95 bytes remaining to read"
        );
        assert_eq!(
            Failure::Partial { missing: None }.to_string(),
            "transfer closed with outstanding read data remaining"
        );
        let unknown = Failure::Resolve { host: "nx.invalid".into(), reason: ResolveError::UnknownHost };
        assert_eq!(unknown.to_string(), "Could not resolve host: nx.invalid");
    }

    #[test]
    fn the_table_in_the_docs_is_this_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/exit-codes.md");
        let docs = std::fs::read_to_string(path).expect("docs/exit-codes.md");
        let rows: Vec<&str> = docs.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
        let expected: Vec<String> =
            Exit::ALL.iter().map(|exit| format!("| {} | {} |", exit.code(), exit.meaning())).collect();
        assert_eq!(rows, expected);
    }
}
