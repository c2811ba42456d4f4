//! Is anybody there? One request to each server, by std alone.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

const PATIENCE: Duration = Duration::from_secs(1);

/// Asks both servers.
pub(crate) fn ask(web: SocketAddr, dns: SocketAddr) -> Result<()> {
    ask_web(web).with_context(|| format!("the web server at {web} does not answer"))?;
    ask_dns(dns).with_context(|| format!("the name server at {dns} does not answer"))
}

fn ask_web(web: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&web, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"HEAD / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n")?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer)?;
    ensure!(&answer == b"HTTP/1.1 200", "it said {:?}", String::from_utf8_lossy(&answer));
    Ok(())
}

fn ask_dns(dns: SocketAddr) -> Result<()> {
    const ID: [u8; 2] = [0x78, 0x73];
    // RFC 1035 §4.1.1: recursion desired, one question; §4.1.2: example.com, type A, class IN.
    let header = [ID[0], ID[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let query = [&header[..], b"\x07example\x03com\x00\x00\x01\x00\x01"].concat();
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send_to(&query, dns)?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer)?;
    // The answer count is in bytes 6 and 7, the response code in the low half of byte 3.
    let good = length > header.len() && answer[..2] == ID && answer[3] & 0x0f == 0 && answer[7] > 0;
    ensure!(good, "its answer has no address for example.com");
    Ok(())
}
