//! How much comes and goes in trains: what tells whether the fast paths are taken.

use super::Stack;

/// Segments that were handled as followers of another of their connection, for a part of what it costs: the first of each train is not
/// among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Followers {
    /// Received ones that were taken in with the one before.
    pub taken_in: u64,
    /// Those that were sent by what had been found out for the first. They are counted when their connection has no more to send.
    pub sent: u64,
}

impl Followers {
    /// Counts what another stack has counted, too.
    pub fn add(&mut self, other: Self) {
        self.taken_in += other.taken_in;
        self.sent += other.sent;
    }
}

impl<P> Stack<P> {
    /// How many segments came and went behind another of their connection.
    pub fn followers(&self) -> Followers {
        self.followers
    }
}
