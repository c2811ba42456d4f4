//! The server's side: it agrees or says why not, and then does the same thing again and again.

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{io::AsyncWriteExt, time::timeout};

use super::{
    payload::{poll_keep, poll_pour, poll_skip, poll_skip_bulk, send},
    protocol::{AGREED, ANSWER, HELLO, Hello, Lengths, MAGIC, Purpose, Refusal, ports_answer},
};
use crate::{cli::network::Connection, tcp::KeepAlive};

/// How long a client may take for the rest of its hello, and for one request and its end if there is only one: a few lost
/// segments' worth. Longer, and whoever is silent keeps a connection from others.
const PATIENCE: Duration = Duration::from_secs(10);

/// When a client from which nothing comes is asked whether it is still there. Connections may be idle for as long as their
/// client likes; one whose host is gone lasts for two minutes.
const KEEPALIVE: KeepAlive =
    KeepAlive { idle: Duration::from_secs(60), interval: Duration::from_secs(15), probes: 4 };

/// An answer with a response right behind it, so that both leave in one piece.
static ANSWER_AND_RESPONSE: [u8; ANSWER + 32 * 1024] = {
    let mut bytes = [0; ANSWER + 32 * 1024];
    let mut at = 0;
    while at < ANSWER {
        bytes[at] = AGREED[at];
        at += 1;
    }
    bytes
};

/// Serves one connection, of which [`MAGIC`] has been read. The same service is to be had on `ports`.
pub(in crate::cli::bench) async fn serve<S: Connection>(mut stream: S, ports: &[u16]) {
    // Whatever goes wrong from here on, it is the client who sees it and tells.
    let Ok(Ok((hello, came))) = timeout(PATIENCE, hello(&mut stream)).await else {
        return stream.reset();
    };
    let served = match hello {
        Ok(Hello { purpose: Purpose::Once, lengths }) => {
            timeout(PATIENCE, once(&mut stream, lengths, came)).await.unwrap_or_else(timed_out)
        }
        Ok(Hello { purpose, lengths }) => serve_long(&mut stream, purpose, lengths, came, ports).await,
        Err(refusal) => say(&mut stream, &refusal.encode()).await,
    };
    if served.is_err() {
        stream.reset();
    }
}

fn timed_out<T>(_: tokio::time::error::Elapsed) -> io::Result<T> {
    Err(io::ErrorKind::TimedOut.into())
}

async fn serve_long<S: Connection>(
    stream: &mut S,
    purpose: Purpose,
    lengths: Lengths,
    came: u64,
    ports: &[u16],
) -> io::Result<()> {
    if purpose == Purpose::Ask {
        return say(stream, &ports_answer(ports)).await;
    }
    stream.set_keepalive(KEEPALIVE);
    timeout(PATIENCE, stream.write_all(&AGREED)).await.unwrap_or_else(timed_out)?;
    match purpose {
        Purpose::Sink => sink(stream, came).await,
        Purpose::Source => source(stream).await,
        _ => requests(stream, lengths, came).await,
    }
}

/// The rest of a hello, and how many bytes came behind it.
async fn hello<S: Connection>(stream: &mut S) -> io::Result<(Result<Hello, Refusal>, u64)> {
    let mut hello = [0; HELLO];
    hello[..MAGIC.len()].copy_from_slice(&MAGIC);
    let mut got = MAGIC.len();
    while got < HELLO {
        match poll_fn(|cx| poll_keep(stream, cx, &mut hello[got..])).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => got += more,
        }
    }
    Ok((Hello::decode(&hello), (got - HELLO) as u64))
}

/// Says all that there is to say, and waits until the client has seen it: a connection that is closed while something comes in
/// ends by a reset, and the client might never read what it was told.
async fn say<S: Connection>(stream: &mut S, bytes: &[u8]) -> io::Result<()> {
    let said = async {
        stream.write_all(bytes).await?;
        stream.shutdown().await?;
        while poll_fn(|cx| poll_skip(stream, cx)).await? > 0 {}
        Ok(())
    };
    timeout(PATIENCE, said).await.unwrap_or_else(timed_out)
}

/// A response for each request, until the client ends.
async fn requests<S: Connection>(stream: &mut S, lengths: Lengths, mut came: u64) -> io::Result<()> {
    let (request, response) = (u64::from(lengths.request), u64::from(lengths.response));
    loop {
        let whole = came / request;
        came %= request;
        send(stream, whole * response).await?;
        match poll_fn(|cx| poll_skip(stream, cx)).await? {
            0 => return stream.shutdown().await,
            more => came += more as u64,
        }
    }
}

/// One request, whose response goes with the answer. The client closes first.
async fn once<S: Connection>(stream: &mut S, lengths: Lengths, mut came: u64) -> io::Result<()> {
    while came < u64::from(lengths.request) {
        match poll_fn(|cx| poll_skip(stream, cx)).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => came += more as u64,
        }
    }
    let response = u64::from(lengths.response);
    let at_once = ANSWER_AND_RESPONSE.len().min(ANSWER + lengths.response as usize);
    stream.write_all(&ANSWER_AND_RESPONSE[..at_once]).await?;
    send(stream, response.saturating_sub((at_once - ANSWER) as u64)).await?;
    while poll_fn(|cx| poll_skip(stream, cx)).await? > 0 {}
    stream.shutdown().await
}

/// Takes all that comes, and says how much it was.
async fn sink<S: Connection>(stream: &mut S, mut came: u64) -> io::Result<()> {
    loop {
        match poll_fn(|cx| poll_skip_bulk(stream, cx)).await? {
            0 => break,
            more => came += more as u64,
        }
    }
    stream.write_all(&came.to_be_bytes()).await?;
    stream.shutdown().await
}

/// Sends until the client has had enough.
async fn source<S: Connection>(stream: &mut S) -> io::Result<()> {
    poll_fn(|cx| poll_source(stream, cx)).await?;
    stream.shutdown().await
}

fn poll_source<S: Connection>(stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    match poll_skip(stream, cx)? {
        Poll::Ready(0) => Poll::Ready(Ok(())),
        // Nobody should say anything but that it is over.
        Poll::Ready(_) => Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
        Poll::Pending => poll_pour(stream, cx, &mut 0),
    }
}
