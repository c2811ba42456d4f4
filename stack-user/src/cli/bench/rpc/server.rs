//! The server's side: it agrees or says why not, and then does the same thing again and again.

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::{io::AsyncWriteExt, time::timeout};

use super::{
    payload::{FILLING, poll_count, poll_keep, poll_pour, poll_skip, send},
    protocol::{AGREED, ANSWER, HELLO, Hello, Lengths, MAGIC, Purpose, Refusal, ports_answer},
};
use crate::{
    cli::{bench::transport::Flow, network::Connection},
    tcp::KeepAlive,
};

/// How long a client may take for the rest of its hello, for one request and its end if there is only one, and for taking any of
/// what it has asked for: a few lost segments' worth. Longer, and whoever is silent, or does not read, keeps from others a
/// connection and what is in its buffers.
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
pub(in crate::cli::bench) async fn serve<S: Flow>(mut stream: S, ports: &[u16]) {
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

async fn serve_long<S: Flow>(
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
    write(stream, &AGREED).await?;
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
        respond(stream, whole * response).await?;
        match poll_fn(|cx| poll_skip(stream, cx)).await? {
            0 => return stream.shutdown().await,
            more => came += more as u64,
        }
    }
}

/// Sends so many bytes, as long as the client takes some of them.
async fn respond<S: Connection>(stream: &mut S, mut bytes: u64) -> io::Result<()> {
    while bytes > 0 {
        let next = FILLING.len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
        write(stream, &FILLING[..next]).await?;
        bytes -= next as u64;
    }
    Ok(())
}

/// The same with any bytes.
async fn write<S: Connection>(stream: &mut S, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        // There is nearly always room, and then nobody needs to ask for the time.
        let written = match stream.write(bytes).now_or_never() {
            Some(written) => written?,
            None => timeout(PATIENCE, stream.write(bytes)).await.unwrap_or_else(timed_out)?,
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[written..];
    }
    Ok(())
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
async fn sink<S: Flow>(stream: &mut S, mut came: u64) -> io::Result<()> {
    loop {
        match poll_fn(|cx| poll_count(stream, cx)).await? {
            0 => break,
            more => came += more as u64,
        }
    }
    write(stream, &came.to_be_bytes()).await?;
    stream.shutdown().await
}

/// Sends until the client has had enough, as long as it takes some.
async fn source<S: Connection>(stream: &mut S) -> io::Result<()> {
    let mut sent = 0;
    loop {
        let before = sent;
        match timeout(PATIENCE, poll_fn(|cx| poll_source(stream, cx, &mut sent))).await {
            Ok(ended) => break ended?,
            Err(elapsed) if sent == before => return timed_out(elapsed),
            Err(_) => {}
        }
    }
    stream.shutdown().await
}

fn poll_source<S: Connection>(stream: &mut S, cx: &mut Context<'_>, sent: &mut u64) -> Poll<io::Result<()>> {
    match poll_skip(stream, cx)? {
        Poll::Ready(0) => Poll::Ready(Ok(())),
        // Nobody should say anything but that it is over.
        Poll::Ready(_) => Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
        Poll::Pending => poll_pour(stream, cx, sent),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, DuplexStream, duplex},
        time::Instant,
    };

    use super::*;

    /// A client's end, of which the server has read the magic.
    fn served() -> DuplexStream {
        let (ours, theirs) = duplex(1 << 12);
        tokio::spawn(async move { serve(theirs, &[7, 8]).await });
        ours
    }

    /// A hello without its magic.
    fn hello(purpose: Purpose, request: u32, response: u32) -> Vec<u8> {
        Hello { purpose, lengths: Lengths { request, response } }.encode()[MAGIC.len()..].to_vec()
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_silent_in_a_hello_or_owes_the_rest_of_a_request_is_put_out() {
        for (said, answered) in [
            (vec![], 0),
            (vec![0, 1, 0], 0),
            ([hello(Purpose::Once, 64, 64), vec![0; 63]].concat(), 0),
            // It got all that it asked for, and does not go.
            ([hello(Purpose::Once, 64, 64), vec![0; 64]].concat(), ANSWER + 64),
            (hello(Purpose::Ask, 1, 1), ANSWER + 4),
        ] {
            let (mut client, begun) = (served(), Instant::now());
            client.write_all(&said).await.expect("writes");
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.expect("ends");
            assert_eq!(got.len(), answered, "{said:?}");
            if answered == 0 {
                assert!(begun.elapsed() >= PATIENCE && begun.elapsed() < PATIENCE * 2, "{said:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_does_not_take_what_it_has_asked_for_is_put_out() {
        for (said, taken) in [
            ([hello(Purpose::Requests, 1, 1 << 20), vec![0; 4]].concat(), 0),
            // What it takes at first does not count for long.
            ([hello(Purpose::Requests, 1, 1 << 20), vec![0; 4]].concat(), 10_000),
            (hello(Purpose::Source, 1, 1), 0),
            (hello(Purpose::Source, 1, 1), 10_000),
        ] {
            let (mut client, theirs) = duplex(1 << 12);
            let serving = tokio::spawn(async move { serve(theirs, &[7, 8]).await });
            client.write_all(&said).await.expect("writes");
            for _ in 0..10 {
                tokio::time::sleep(PATIENCE - Duration::from_secs(1)).await;
                client.read_exact(&mut vec![0; taken / 10]).await.expect("slow, but it takes some");
            }
            let begun = Instant::now();
            timeout(PATIENCE * 3, serving).await.expect("it is put out").expect("no panic");
            assert!(begun.elapsed() <= PATIENCE * 2, "after {:?}", begun.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_on_which_nothing_is_asked_stays() {
        let mut client = served();
        client.write_all(&hello(Purpose::Requests, 2, 3)).await.expect("writes");
        client.read_exact(&mut [0; ANSWER]).await.expect("agrees");
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        // Two and a half requests at once, in any pieces.
        for piece in [&[0; 1][..], &[0; 4]] {
            client.write_all(piece).await.expect("writes");
        }
        client.read_exact(&mut [0; 6]).await.expect("answers");
        client.write_all(&[0; 1]).await.expect("writes");
        client.read_exact(&mut [0; 3]).await.expect("answers");
        client.shutdown().await.expect("ends");
        assert_eq!(client.read(&mut [0; 9]).await.expect("ends"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_may_be_longer_than_what_goes_with_the_answer() {
        for response in [1, ANSWER_AND_RESPONSE.len() as u32 - ANSWER as u32, 1 << 20] {
            let mut client = served();
            client
                .write_all(&[hello(Purpose::Once, 3, response), vec![0; 3]].concat())
                .await
                .expect("writes");
            let mut got = vec![1; ANSWER + response as usize];
            client.read_exact(&mut got).await.expect("answers");
            assert_eq!(got[..ANSWER], AGREED);
            assert!(got[ANSWER..].iter().all(|byte| *byte == 0));
            client.shutdown().await.expect("ends");
            assert_eq!(client.read(&mut [0; 9]).await.expect("ends"), 0);
        }
    }

    #[tokio::test]
    async fn what_a_sink_got_is_told_and_a_source_stops_when_it_is_told() {
        let mut client = served();
        client.write_all(&[hello(Purpose::Sink, 1, 1), vec![0; 1_000]].concat()).await.expect("writes");
        client.read_exact(&mut [0; ANSWER]).await.expect("agrees");
        client.write_all(&[0; 100_000]).await.expect("writes");
        client.shutdown().await.expect("ends");
        assert_eq!(client.read_u64().await.expect("tells"), 101_000);

        let mut client = served();
        client.write_all(&hello(Purpose::Source, 1, 1)).await.expect("writes");
        client.read_exact(&mut vec![0; ANSWER + 1_000_000]).await.expect("sends");
        client.shutdown().await.expect("ends");
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.expect("stops");
        assert!(rest.len() <= 2 << 12, "{} bytes more", rest.len());
    }
}
