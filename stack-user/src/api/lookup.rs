//! Targets that are named: from a host's name to its addresses, and to a connection.

use std::{
    borrow::Cow,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    vec,
};

use super::{ResolveError, Resolver, TcpStream};

/// What names one or more socket addresses, as tokio's namesake: an address, several, or a host and a port
/// (`"example.com:80"`, `("example.com", 80)`).
pub trait ToSocketAddrs {
    /// Reads the name, without asking anybody.
    ///
    /// # Errors
    /// `InvalidInput` when a text is not `host:port`.
    fn to_target(&self) -> io::Result<Target<'_>>;
}

/// What a [`ToSocketAddrs`] names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// These addresses.
    Addresses(Cow<'a, [SocketAddr]>),
    /// The port of a host that the DNS is asked for.
    Host(&'a str, u16),
}

/// The addresses of what is named, the best first. An address is passed on as it is; a name is asked for by `resolver`,
/// through the stack.
///
/// # Errors
/// `InvalidInput` when the name is not one, `NotFound` when it has no address, `TimedOut` and `HostUnreachable` when no
/// name server could be asked; the message is that of the [`ResolveError`].
pub async fn lookup_host(
    resolver: &Resolver,
    host: impl ToSocketAddrs,
) -> io::Result<vec::IntoIter<SocketAddr>> {
    let target = host.to_target()?;
    Ok(addresses(resolver, &target).await?.into_iter())
}

async fn addresses(resolver: &Resolver, target: &Target<'_>) -> io::Result<Vec<SocketAddr>> {
    match target {
        Target::Addresses(addresses) => Ok(addresses.to_vec()),
        Target::Host(host, port) => {
            let found = resolver.lookup(host).await?;
            Ok(found.into_iter().map(|address| SocketAddr::new(address, *port)).collect())
        }
    }
}

impl TcpStream {
    /// Opens a connection to what is named: an address, or a host and a port. The addresses that a name has are tried in
    /// order, until one answers.
    ///
    /// Cancel safe: dropping the future aborts the attempt.
    ///
    /// # Errors
    /// As [`lookup_host`], and as [`connect`](Self::connect) for the address that was tried last.
    pub async fn connect_host(resolver: &Resolver, host: impl ToSocketAddrs) -> io::Result<Self> {
        let target = host.to_target()?;
        let addresses = addresses(resolver, &target).await?;
        connect_first(&addresses, |address| Self::connect(resolver.stack(), address)).await
    }
}

/// Connects to the first of the addresses that answers.
pub(super) async fn connect_first<F: Future<Output = io::Result<TcpStream>>>(
    addresses: &[SocketAddr],
    mut connect: impl FnMut(SocketAddr) -> F,
) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(io::ErrorKind::InvalidInput, "there is no address to connect to");
    for &address in addresses {
        match connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

impl From<ResolveError> for io::Error {
    fn from(error: ResolveError) -> Self {
        let kind = match error {
            ResolveError::InvalidName(_) => io::ErrorKind::InvalidInput,
            ResolveError::NotFound(_) | ResolveError::NoNameServer => io::ErrorKind::NotFound,
            ResolveError::NoAnswer { .. } => io::ErrorKind::TimedOut,
            ResolveError::Unreachable { .. } => io::ErrorKind::HostUnreachable,
            ResolveError::BadConfiguration { .. } | ResolveError::Failed { .. } => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

impl ToSocketAddrs for str {
    fn to_target(&self) -> io::Result<Target<'_>> {
        if let Ok(address) = self.parse::<SocketAddr>() {
            return Ok(one(address));
        }
        let parts = self.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        match parts {
            Some((host, port)) if !host.is_empty() => Ok(Target::Host(host, port)),
            _ => {
                let message = format!("'{self}' does not have the form host:port");
                Err(io::Error::new(io::ErrorKind::InvalidInput, message))
            }
        }
    }
}

impl ToSocketAddrs for String {
    fn to_target(&self) -> io::Result<Target<'_>> {
        self.as_str().to_target()
    }
}

impl ToSocketAddrs for (&str, u16) {
    fn to_target(&self) -> io::Result<Target<'_>> {
        Ok(match self.0.parse::<IpAddr>() {
            Ok(address) => one(SocketAddr::new(address, self.1)),
            Err(_) => Target::Host(self.0, self.1),
        })
    }
}

impl ToSocketAddrs for (String, u16) {
    fn to_target(&self) -> io::Result<Target<'_>> {
        Ok(match self.0.parse::<IpAddr>() {
            Ok(address) => one(SocketAddr::new(address, self.1)),
            Err(_) => Target::Host(&self.0, self.1),
        })
    }
}

impl ToSocketAddrs for [SocketAddr] {
    fn to_target(&self) -> io::Result<Target<'_>> {
        Ok(Target::Addresses(self.into()))
    }
}

impl ToSocketAddrs for Vec<SocketAddr> {
    fn to_target(&self) -> io::Result<Target<'_>> {
        self.as_slice().to_target()
    }
}

impl<T: ToSocketAddrs + ?Sized> ToSocketAddrs for &T {
    fn to_target(&self) -> io::Result<Target<'_>> {
        (**self).to_target()
    }
}

/// What is an address already.
macro_rules! addresses {
    ($($address:ty),*) => {$(
        impl ToSocketAddrs for $address {
            fn to_target(&self) -> io::Result<Target<'_>> {
                Ok(one(SocketAddr::from(*self)))
            }
        }
    )*};
}

addresses!(SocketAddr, SocketAddrV4, (IpAddr, u16), (Ipv4Addr, u16));

fn one(address: SocketAddr) -> Target<'static> {
    Target::Addresses(vec![address].into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_an_address_or_a_host_and_a_port() {
        let address = SocketAddr::from(([192, 0, 2, 1], 80));
        assert_eq!("192.0.2.1:80".to_target().unwrap(), one(address));
        assert_eq!(("192.0.2.1", 80).to_target().unwrap(), one(address));
        assert_eq!("example.com:443".to_target().unwrap(), Target::Host("example.com", 443));
        assert_eq!((String::from("example.com"), 443).to_target().unwrap(), Target::Host("example.com", 443));
        for bad in ["", "example.com", ":80", "example.com:", "example.com:http", "example.com:65536"] {
            assert_eq!(bad.to_target().unwrap_err().kind(), io::ErrorKind::InvalidInput, "{bad}");
        }
    }
}
