//! Which sockets are listed, and the walk over them that is in nobody's way.

use std::net::{IpAddr, SocketAddr};

use super::view::{LISTEN, Socket, listeners, state_name};
use crate::{
    api::{Cursor, Stack},
    tcp::State,
};

/// Which sockets. By default connections that are no TIME-WAIT, as ss does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Listeners, too; or only them, unless `connections` is set as well.
    pub listening: bool,
    /// Everything: connections, TIME-WAITs, listeners.
    pub all: bool,
    /// What TCP knows of each.
    pub info: bool,
    /// In one of these states, as ss names them; if none is given, in any.
    pub states: Vec<String>,
    /// With this port at either end.
    pub port: Option<u16>,
    /// Ours.
    pub local: Option<Place>,
    /// The peer's.
    pub peer: Option<Place>,
}

/// An address, a port, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    address: Option<IpAddr>,
    port: Option<u16>,
}

impl std::str::FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self { address: Some(address.ip()), port: Some(address.port()) });
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self { address: Some(address), port: None });
        }
        match text.strip_prefix(':').map(str::parse) {
            Some(Ok(port)) => Ok(Self { address: None, port: Some(port) }),
            _ => Err(format!("'{text}' is not ADDR, ADDR:PORT or :PORT")),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.address, self.port) {
            (Some(address), Some(port)) => SocketAddr::new(address, port).fmt(f),
            (Some(address), None) => address.fmt(f),
            (None, port) => write!(f, ":{}", port.unwrap_or_default()),
        }
    }
}

impl Place {
    fn is_at(&self, address: Option<SocketAddr>) -> bool {
        address.is_some_and(|at| {
            self.address.is_none_or(|ip| ip == at.ip()) && self.port.is_none_or(|port| port == at.port())
        })
    }
}

/// Every state that there is, as ss names them.
const STATES: [State; 9] = [
    State::SynSent,
    State::SynReceived,
    State::Established,
    State::FinWait1,
    State::FinWait2,
    State::CloseWait,
    State::Closing,
    State::LastAck,
    State::TimeWait,
];

/// A state's name as ss prints it, from that or from what ss takes: `established`, `syn-recv`…
///
/// # Errors
/// The names that there are.
pub fn parse_state(text: &str) -> Result<String, String> {
    let name = match text.to_ascii_uppercase().as_str() {
        "ESTABLISHED" => state_name(State::Established).to_owned(),
        "LISTENING" => LISTEN.to_owned(),
        "SYN-RECEIVED" => state_name(State::SynReceived).to_owned(),
        other => other.to_owned(),
    };
    let names = || STATES.into_iter().map(state_name).chain([LISTEN]);
    if names().any(|known| known == name) {
        return Ok(name);
    }
    let names: Vec<_> = names().map(str::to_ascii_lowercase).collect();
    Err(format!("'{text}' is no state: {}", names.join(", ")))
}

impl Filter {
    /// As a request has it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_query(query: &str) -> Result<Self, String> {
        let mut filter = Self::default();
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                "listening" => filter.listening = true,
                "all" => filter.all = true,
                "info" => filter.info = true,
                "state" => filter.states.push(parse_state(&value)?),
                "port" => {
                    let port = value.parse().map_err(|_| format!("'{value}' is not a port"))?;
                    filter.port = Some(port);
                }
                "local" => filter.local = Some(value.parse()?),
                "peer" => filter.peer = Some(value.parse()?),
                other => return Err(format!("there is no filter '{other}'")),
            }
        }
        Ok(filter)
    }

    /// As a request is to have it.
    pub fn to_query(&self) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for (key, is_set) in [("listening", self.listening), ("all", self.all), ("info", self.info)] {
            if is_set {
                query.append_pair(key, "");
            }
        }
        for state in &self.states {
            query.append_pair("state", state);
        }
        if let Some(port) = self.port {
            query.append_pair("port", &port.to_string());
        }
        for (key, place) in [("local", self.local), ("peer", self.peer)] {
            if let Some(place) = place {
                query.append_pair(key, &place.to_string());
            }
        }
        query.finish()
    }

    fn has_state(&self, name: &str) -> bool {
        self.states.iter().any(|state| state == name)
    }

    fn wants_listeners(&self) -> bool {
        self.listening || self.all || self.has_state(LISTEN)
    }

    fn wants_connections(&self) -> bool {
        self.all
            || if self.states.is_empty() { !self.listening } else { self.states.iter().any(|s| s != LISTEN) }
    }

    fn wants_time_waits(&self) -> bool {
        self.all || self.has_state(state_name(State::TimeWait))
    }

    fn passes(&self, socket: &Socket) -> bool {
        let has_port =
            |port| socket.local.port() == port || socket.peer.is_some_and(|peer| peer.port() == port);
        (self.states.is_empty() || self.has_state(&socket.state))
            && self.port.is_none_or(has_port)
            && self.local.is_none_or(|place| place.is_at(Some(socket.local)))
            && self.peer.is_none_or(|place| place.is_at(socket.peer))
    }
}

/// A walk over all sockets of some stacks, that holds a page of them at a time.
#[derive(Debug)]
pub(super) struct Walk {
    stacks: Vec<Stack>,
    filter: Filter,
    stage: Stage,
    /// The stack that is looked at, and how far.
    at: usize,
    cursor: Cursor,
}

#[derive(Debug)]
enum Stage {
    Listeners,
    Connections,
    TimeWaits,
    End,
}

impl Walk {
    pub(super) fn new(stacks: Vec<Stack>, filter: Filter) -> Self {
        Self { stacks, filter, stage: Stage::Listeners, at: 0, cursor: Cursor::default() }
    }

    /// The next lines, maybe none of them; `None` at the end.
    pub(super) fn next_page(&mut self) -> Option<String> {
        let sockets = self.advance()?;
        let mut text = String::new();
        for socket in sockets.iter().filter(|socket| self.filter.passes(socket)) {
            text.push_str(&serde_json::to_string(socket).unwrap_or_default());
            text.push('\n');
        }
        Some(text)
    }

    fn advance(&mut self) -> Option<Vec<Socket>> {
        match self.stage {
            Stage::Listeners => {
                self.stage = Stage::Connections;
                if !self.filter.wants_listeners() {
                    return Some(Vec::new());
                }
                let mut listeners = listeners(&self.stacks);
                listeners.sort_by_key(|listener| listener.local);
                Some(listeners.iter().map(Socket::listener).collect())
            }
            Stage::Connections => {
                let wanted = self.filter.wants_connections();
                let Some(page) = self.page(wanted, Stack::connections) else {
                    (self.stage, self.at) = (Stage::TimeWaits, 0);
                    return Some(Vec::new());
                };
                let alive = page.iter().filter(|connection| connection.tcp.state != State::Closed);
                Some(alive.map(|connection| Socket::connection(connection, self.filter.info)).collect())
            }
            Stage::TimeWaits => {
                let wanted = self.filter.wants_time_waits();
                let Some(page) = self.page(wanted, Stack::time_waits) else {
                    self.stage = Stage::End;
                    return None;
                };
                Some(page.into_iter().map(|(local, peer)| Socket::time_wait(local, peer)).collect())
            }
            Stage::End => None,
        }
    }

    /// Some of what the stack that it is at has, or nothing if that is the end of it; `None` at the end of the last.
    fn page<T>(
        &mut self,
        wanted: bool,
        next: impl Fn(&Stack, &mut Cursor) -> Option<Vec<T>>,
    ) -> Option<Vec<T>> {
        let stack = self.stacks.get(self.at).filter(|_| wanted)?;
        let page = next(stack, &mut self.cursor);
        if page.is_none() {
            (self.at, self.cursor) = (self.at + 1, Cursor::default());
        }
        Some(page.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_survives_its_request() {
        let filter = Filter {
            listening: true,
            all: true,
            info: true,
            states: vec!["ESTAB".into(), "LISTEN".into()],
            port: Some(80),
            local: Some("10.0.0.1:80".parse().expect("a place")),
            peer: Some("[fd00::1]:7".parse().expect("a place")),
        };
        assert_eq!(Filter::from_query(&filter.to_query()), Ok(filter));
        assert_eq!(Filter::from_query(""), Ok(Filter::default()));
    }

    #[test]
    fn nonsense_is_refused() {
        for query in ["state=open", "port=65536", "port=", "peer=here", "local=10.0.0", "colour=red"] {
            Filter::from_query(query).expect_err(query);
        }
        assert_eq!(parse_state("established").as_deref(), Ok("ESTAB"));
        assert_eq!(parse_state("time-wait").as_deref(), Ok("TIME-WAIT"));
    }

    #[test]
    fn filters_say_what_ss_says() {
        let socket =
            Socket::time_wait("10.0.0.1:80".parse().expect("ok"), "10.0.0.2:4000".parse().expect("ok"));
        let passes = |query: &str| Filter::from_query(query).expect(query).passes(&socket);
        for yes in [
            "",
            "port=80",
            "port=4000",
            "peer=10.0.0.2",
            "peer=:4000",
            "local=10.0.0.1:80",
            "state=time-wait",
        ] {
            assert!(passes(yes), "{yes}");
        }
        for no in ["port=81", "peer=10.0.0.1", "peer=:80", "local=:4000", "state=estab"] {
            assert!(!passes(no), "{no}");
        }
        let default = Filter::default();
        assert!(default.wants_connections() && !default.wants_listeners() && !default.wants_time_waits());
        let listening = Filter { listening: true, ..Filter::default() };
        assert!(!listening.wants_connections() && listening.wants_listeners());
    }
}
