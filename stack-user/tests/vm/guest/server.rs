//! HTTP over the guest kernel's TCP, just enough of it: a server on the peer, and a client there.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    thread::{self, JoinHandle},
};

use nix::sys::socket::{Shutdown, shutdown};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};

use super::LIMIT;

/// Bytes that neither repeat nor compress: any that is lost, doubled or moved shows.
pub(crate) fn content(length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length);
    write_content(&mut bytes, length).unwrap();
    bytes
}

/// Writes them as they are made: a transfer that is going to be killed may be larger than memory.
fn write_content(to: &mut impl Write, length: usize) -> io::Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(length as u64);
    let mut buffer = [0; 65536];
    let mut left = length;
    while left > 0 {
        let piece = &mut buffer[..left.min(65536)];
        rng.fill_bytes(piece);
        to.write_all(piece)?;
        left -= piece.len();
    }
    Ok(())
}

/// Serves `/bytes/N` with the [`content`] of that length, until dropped.
pub(crate) struct Server {
    thread: Option<JoinHandle<()>>,
    /// The listener's other handle, by which whoever accepts is woken at the end.
    wakes: TcpListener,
    local: SocketAddr,
}

impl Server {
    /// In this thread's network namespace.
    #[track_caller]
    pub(super) fn start(address: &str, port: u16) -> Self {
        let listener = TcpListener::bind((address, port)).unwrap();
        let wakes = listener.try_clone().unwrap();
        let local = listener.local_addr().unwrap();
        let thread = thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                thread::spawn(move || {
                    // Whoever is killed in the middle is not this server's failure.
                    let _ = answer(stream);
                });
            }
        });
        Self { thread: Some(thread), wakes, local }
    }

    /// Where so many bytes are.
    pub(crate) fn url(&self, length: usize) -> String {
        format!("http://{}/bytes/{length}", self.local)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = shutdown(self.wakes.as_raw_fd(), Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let mut lines = BufReader::new(&stream).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let length = request.split(' ').nth(1).and_then(|path| path.strip_prefix("/bytes/")?.parse().ok());
    let mut stream = &stream;
    match length {
        Some(length) => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")?;
            write_content(&mut stream, length)
        }
        None => write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
    }
}

/// What the kernel's TCP gets from a server, in this thread's network namespace.
#[track_caller]
pub(crate) fn fetch(server: SocketAddr, path: &str) -> Vec<u8> {
    let response = try_fetch(server, path).unwrap_or_else(|error| panic!("{path} of {server}: {error}"));
    let head = response.windows(4).position(|window| window == b"\r\n\r\n");
    let head = head.unwrap_or_else(|| panic!("{path} of {server}: {} bytes without a head", response.len()));
    let status = String::from_utf8_lossy(&response[..head]).lines().next().unwrap_or_default().to_owned();
    assert!(status.contains(" 200 "), "{path}: {status}");
    response[head + 4..].to_vec()
}

fn try_fetch(server: SocketAddr, path: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n")?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response)?;
    Ok(response)
}
