//! What the kernel's TCP knows of a connection of its own, for those who compare it with ours.

use std::{
    io, mem,
    os::fd::{AsFd, AsRawFd},
};

/// `TCP_INFO` of a socket of the kernel's.
///
/// # Errors
/// As `getsockopt`: it is no TCP socket, for example.
pub fn tcp_info(socket: impl AsFd) -> io::Result<libc::tcp_info> {
    // SAFETY: the struct has nothing but integers, for which zeros are values.
    let mut info: libc::tcp_info = unsafe { mem::zeroed() };
    let mut length = mem::size_of_val(&info) as libc::socklen_t;
    // SAFETY: the descriptor is borrowed for the call, and the kernel writes `length` bytes at most, which `info` has; an older
    // one writes fewer and leaves zeros.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(info) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_has_it_and_a_file_has_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        let stream = std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
        let info = tcp_info(&stream).expect("a TCP socket");
        assert!(info.tcpi_snd_mss > 500 && info.tcpi_snd_cwnd > 0);
        let file = std::fs::File::open("/dev/null").expect("opens");
        assert!(tcp_info(&file).is_err());
    }
}
