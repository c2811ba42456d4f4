//! iperf3's protocol.

use tokio::io::AsyncWriteExt;

use crate::cli::network::Connection;

/// "Another test is running."
const ACCESS_DENIED: u8 = -1_i8 as u8;

/// Serves one connection, of which `_head` has been read.
pub(super) async fn serve<S: Connection>(mut stream: S, _head: &[u8]) {
    let _ = stream.write_all(&[ACCESS_DENIED]).await;
    let _ = stream.shutdown().await;
}

/// Whether a cookie has it: they are of the alphabet of base32, in lower case, and end with a zero.
pub(super) fn is_of_a_cookie(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'2'..=b'7')
}
