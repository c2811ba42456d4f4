//! HTTP over the guest kernel's TCP, just enough of it: a server on the peer, and a client there.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread::{self, JoinHandle},
};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};

use super::{Guest, LIMIT, PEER};

const PORT: u16 = 80;

/// Bytes that neither repeat nor compress: any that is lost, doubled or moved shows.
pub(crate) fn content(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    ChaCha8Rng::seed_from_u64(length as u64).fill_bytes(&mut bytes);
    bytes
}

/// Serves `/bytes/N` with the [`content`] of that length, until dropped.
pub(crate) struct Server {
    thread: Option<JoinHandle<()>>,
    guest_stops_it: TcpListener,
}

impl Server {
    #[track_caller]
    pub(super) fn start(guest: &Guest) -> Self {
        let listener = guest.on_peer(|| TcpListener::bind((PEER, PORT)).unwrap());
        let guest_stops_it = listener.try_clone().unwrap();
        let thread = thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                thread::spawn(move || {
                    // Whoever is killed in the middle is not this server's failure.
                    let _ = answer(stream);
                });
            }
        });
        Self { thread: Some(thread), guest_stops_it }
    }

    /// Where so many bytes are.
    pub(crate) fn url(&self, length: usize) -> String {
        format!("http://{PEER}/bytes/{length}")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Wakes who accepts.
        let _ = nix::sys::socket::shutdown(
            std::os::fd::AsRawFd::as_raw_fd(&self.guest_stops_it),
            nix::sys::socket::Shutdown::Both,
        );
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
            stream.write_all(&content(length))
        }
        None => write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
    }
}

/// What the kernel's TCP on the peer gets from a server of ours.
#[track_caller]
pub(crate) fn fetch(guest: &Guest, server: SocketAddr, path: &str) -> Vec<u8> {
    let response = guest.on_peer(|| {
        let mut stream = TcpStream::connect_timeout(&server, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n")?;
        let mut response = Vec::new();
        stream.read_to_end(&mut response)?;
        io::Result::Ok(response)
    });
    let response = response.unwrap();
    let head = response.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
    let status = String::from_utf8_lossy(&response[..head]).lines().next().unwrap_or_default().to_owned();
    assert!(status.contains(" 200 "), "{path}: {status}");
    response[head + 4..].to_vec()
}
