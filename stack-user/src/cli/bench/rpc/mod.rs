//! Our own protocol, for what iperf3 does not measure: requests and responses, connections, both beside bulk.
//!
//! A connection begins with [`MAGIC`].

use crate::cli::network::Connection;

/// The first bytes of each connection. None of iperf3's cookies begins so: they are of lower-case letters and digits.
pub(super) const MAGIC: [u8; 8] = *b"XSTACK/1";

/// Serves one connection, whose magic has been read. No request is known yet.
pub(super) async fn serve<S: Connection>(stream: S) {
    stream.reset();
}
