//! Listening in to connections: see [`tcp::trace`](crate::tcp::trace).

use super::{Stack, TcpId};
use crate::{frame::FramePool, tcp::trace::Record};

impl<P: FramePool> Stack<P> {
    /// Starts the event stream of a connection, or ends it. Nobody listens at first, and then it costs one comparison.
    pub fn tcp_trace(&mut self, id: TcpId, listen: bool) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.listen_in(listen);
        }
    }

    /// The oldest record of any connection that is listened to. Who listens takes them after each burst: what is not
    /// taken in time is lost, and [counted](Self::traces_lost).
    pub fn poll_trace(&mut self) -> Option<(TcpId, Record)> {
        self.connections.poll_trace()
    }

    /// Records that were lost because nobody took them in time.
    pub fn traces_lost(&self) -> u64 {
        self.connections.traces_lost()
    }
}
