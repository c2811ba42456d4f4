//! A client that speaks SOCKS version 5, up to its connection to what it asked for.

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use url::Host;

use super::client::Client;
use super::serve::Proxy;
use super::socks5::{
    self, NO_ACCEPTABLE_METHODS, NO_AUTHENTICATION, Reply, USERNAME_PASSWORD, VERSION, credentials, greeting,
    password_reply, request,
};
use crate::cli::network::{ConnectError, Connection, Network};
use crate::cli::relay::{Accepted, DialError};

/// Serves it to its end.
pub(super) async fn serve<N: Network, S: Connection>(
    proxy: &Proxy<N>,
    mut client: Client<S>,
    accepted: Accepted,
) {
    let asked = timeout(proxy.config.handshake_timeout, ask(proxy, &mut client)).await;
    let (host, port) = match asked {
        Ok(Ok(target)) => target,
        Ok(Err(Refusal::Say(answer))) => {
            proxy.tally.refused();
            return client.refuse(&answer).await;
        }
        // Too slow, gone, or no SOCKS at all.
        Ok(Err(Refusal::Reset)) | Err(_) => return proxy.tally.refused(),
    };
    match proxy.dialer.dial(proxy.out(), &host, port).await {
        Ok(target) => {
            let answer = socks5::reply(Reply::Succeeded, target.local_addr());
            if client.write_all(&answer).await.is_ok() {
                proxy.join(client, target, accepted, &host, port).await;
            }
        }
        Err(error) => {
            proxy.tell_failure(&error, &host, port);
            client.refuse(&socks5::reply(reason(&error), None)).await;
        }
    }
}

/// Why a client gets no further.
enum Refusal {
    Say(Vec<u8>),
    Reset,
}

impl From<std::io::Error> for Refusal {
    fn from(_: std::io::Error) -> Self {
        Self::Reset
    }
}

/// Finds out who it is, if that matters, and what it wants.
async fn ask<N: Network, S: Connection>(
    proxy: &Proxy<N>,
    client: &mut Client<S>,
) -> Result<(Host, u16), Refusal> {
    let offered = client.message(greeting).await?;
    let wanted = if proxy.config.asks() { USERNAME_PASSWORD } else { NO_AUTHENTICATION };
    if !offered.contains(&wanted) {
        // RFC 1928 §3: the client has to go then.
        return Err(Refusal::Say(vec![VERSION, NO_ACCEPTABLE_METHODS]));
    }
    client.write_all(&[VERSION, wanted]).await?;
    if proxy.config.asks() {
        let (name, password) = client.message(credentials).await?;
        if !proxy.config.knows(&name, &password) {
            // RFC 1929 §2: the connection ends with that answer.
            return Err(Refusal::Say(password_reply(false).to_vec()));
        }
        client.write_all(&password_reply(true)).await?;
    }
    client.message(request).await?.map_err(|answer| Refusal::Say(socks5::reply(answer, None)))
}

/// What SOCKS has for it (RFC 1928 §6).
fn reason(error: &DialError) -> Reply {
    match error {
        DialError::Forbidden(_) => Reply::NotAllowed,
        DialError::Resolve(_) => Reply::HostUnreachable,
        DialError::Connect(error) => match error {
            ConnectError::Refused => Reply::ConnectionRefused,
            ConnectError::Unreachable(_) => Reply::HostUnreachable,
            // No packet has told of its time to live: as Dante and Tor have it.
            ConnectError::TimedOut => Reply::TtlExpired,
            ConnectError::FamilyUnsupported => Reply::AddressTypeNotSupported,
            ConnectError::Reset | ConnectError::NoLocalPort(_) | ConnectError::Other(_) => {
                Reply::GeneralFailure
            }
        },
    }
}
