//! What can become of a transaction instead of an answer.

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::broken::Broken;
use crate::cli::network::ConnectError;

/// A kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Refused,
    Unreachable,
    TimedOut,
    Reset,
    /// Closed, or anything else, before all was there.
    CutOff,
    Other,
}

/// How many there were of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Faults([u64; Fault::ALL.len()]);

impl Fault {
    const ALL: [Self; 6] =
        [Self::Refused, Self::Unreachable, Self::TimedOut, Self::Reset, Self::CutOff, Self::Other];

    /// Its name, in reports and in JSON.
    const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed out",
            Self::Reset => "reset",
            Self::CutOff => "cut off",
            Self::Other => "other",
        }
    }
}

impl From<&Broken> for Fault {
    fn from(broken: &Broken) -> Self {
        use std::io::ErrorKind;
        match broken {
            Broken::Connect(ConnectError::Refused) => Self::Refused,
            Broken::Connect(ConnectError::Unreachable(_)) => Self::Unreachable,
            Broken::Connect(ConnectError::TimedOut) | Broken::Silent(_) => Self::TimedOut,
            Broken::Connect(ConnectError::Reset) => Self::Reset,
            Broken::Closed => Self::CutOff,
            Broken::Failed(error) => match error.kind() {
                ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => Self::Reset,
                ErrorKind::BrokenPipe => Self::CutOff,
                ErrorKind::TimedOut => Self::TimedOut,
                ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Self::Unreachable,
                _ => Self::Other,
            },
            _ => Self::Other,
        }
    }
}

impl Faults {
    /// One more.
    pub(super) fn record(&mut self, fault: Fault) {
        self.0[fault as usize] += 1;
    }

    /// Of all kinds.
    pub(super) fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Those that there were, by name.
    pub(super) fn counted(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Fault::ALL
            .iter()
            .zip(self.0)
            .map(|(fault, count)| (fault.name(), count))
            .filter(|(_, count)| *count > 0)
    }

    /// In words: "2 refused, 1 reset".
    pub(super) fn told(&self) -> String {
        let told: Vec<_> = self.counted().map(|(name, count)| format!("{count} {name}")).collect();
        told.join(", ")
    }
}

impl Serialize for Faults {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, count) in self.counted() {
            map.serialize_entry(name, &count)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_counted_by_its_name() {
        let mut faults = Faults::default();
        for broken in [
            Broken::Connect(ConnectError::Refused),
            Broken::Connect(ConnectError::Refused),
            Broken::Silent(10),
            Broken::Failed(std::io::ErrorKind::ConnectionReset.into()),
            Broken::Surplus,
        ] {
            faults.record((&broken).into());
        }
        assert_eq!((faults.total(), faults.told().as_str()), (5, "2 refused, 1 timed out, 1 reset, 1 other"));
        let json = serde_json::to_string(&faults).expect("plain");
        assert_eq!(json, r#"{"refused":2,"timed out":1,"reset":1,"other":1}"#);
    }
}
