//! `xstack forward`: each direction, and what may be in the way.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::timeout;

use super::harness::{SOON, Xstack, closed_port, echo, exchange};

#[tokio::test]
async fn each_direction_reaches_its_target() {
    let folder = tempfile::tempdir().unwrap();
    let (inside, outside) = (folder.path().join("inside"), folder.path().join("outside"));
    let file = UnixListener::bind(&inside).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = file.accept().await {
            let mut got = Vec::new();
            stream.read_to_end(&mut got).await.unwrap();
            stream.write_all(&[b"file ", &got[..]].concat()).await.unwrap();
        }
    });
    let port = echo(b"tcp ").await.port();
    let (inside, outside) = (format!("unix:{}", inside.display()), format!("unix:{}", outside.display()));
    // A name that only our resolver knows, so that it shows whose is asked.
    let named = format!("app.test:{port}");
    let pairs = [
        ["ours:127.0.0.1:0", &port.to_string()],
        ["127.0.0.1:0", &inside],
        ["kernel:127.0.0.1:0", &named],
        [&outside, &named],
        ["ours:127.0.0.1:0", &format!("ours:{named}")],
    ];
    let words: Vec<_> = ["forward"].into_iter().chain(pairs.iter().flatten().copied()).collect();
    let xstack = Xstack::start(&words, pairs.len()).await;
    for (line, says) in [(0, "tcp hello"), (1, "file hello"), (2, "tcp hello"), (4, "tcp hello")] {
        let stream = TcpStream::connect(xstack.address(line)).await.unwrap();
        assert_eq!(exchange(stream, b"hello").await.unwrap(), says.as_bytes(), "forward {line}");
    }
    let path = outside.strip_prefix("unix:").unwrap();
    let stream = UnixStream::connect(path).await.unwrap();
    assert_eq!(exchange(stream, b"hello").await.unwrap(), b"tcp hello");
    let outcome = xstack.stop();
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
    assert!(!std::path::Path::new(path).exists(), "the socket file is gone");
}

#[tokio::test]
async fn a_range_of_ports_goes_to_a_range_of_ports() {
    // Two that follow each other and are free: whoever takes one in between makes us try again.
    let (first, targets) = loop {
        let one = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = one.local_addr().unwrap().port();
        if let Ok(other) = TcpListener::bind(("127.0.0.1", port.wrapping_add(1))).await {
            break (port, [one, other]);
        }
    };
    for (number, listener) in targets.into_iter().enumerate() {
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(format!("target {number}").as_bytes()).await.unwrap();
        });
    }
    let (from, to) = (format!("127.0.0.2:{first}-{}", first + 1), format!("{first}-{}", first + 1));
    let xstack = Xstack::start(&["forward", &from, &to], 2).await;
    for line in 0..2 {
        let stream = TcpStream::connect(xstack.address(line)).await.unwrap();
        assert_eq!(exchange(stream, b"").await.unwrap(), format!("target {line}").as_bytes());
    }
}

#[tokio::test]
async fn a_target_that_is_down_resets_its_clients_and_is_told_once() {
    let port = closed_port().await;
    let to = port.to_string();
    let xstack = Xstack::start(&["forward", "127.0.0.1:0", &to], 1).await;
    for _ in 0..3 {
        // So soon that it may meet the client still connecting.
        let heard = match TcpStream::connect(xstack.address(0)).await {
            Ok(stream) => exchange(stream, b"").await,
            error => error.map(|_| Vec::new()),
        };
        assert_eq!(heard.expect_err("no end").kind(), io::ErrorKind::ConnectionReset);
    }
    assert_eq!(xstack.stderr().matches("cannot be reached").count(), 1, "{}", xstack.stderr());
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let client = xstack.connect().await;
    let (mut served, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
    served.write_all(b"back").await.unwrap();
    served.shutdown().await.unwrap();
    assert_eq!(exchange(client, b"").await.unwrap(), b"back");
    assert!(xstack.stderr().contains("again"), "{}", xstack.stderr());
}

#[tokio::test]
async fn the_target_learns_where_a_client_came_from() {
    let port = echo(b"").await.port().to_string();
    let words = ["forward", "--proxy-protocol", "v1", "127.0.0.1:0", &port];
    let xstack = Xstack::start(&words, 1).await;
    let client = xstack.connect().await;
    let (from, to) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
    let header = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", from.port(), to.port());
    let echoed = exchange(client, b"and then this").await.unwrap();
    assert_eq!(String::from_utf8(echoed).unwrap(), format!("{header}and then this"));
}

#[tokio::test]
async fn stopping_waits_for_sessions_and_then_resets_them() {
    let port = echo(b"").await.port().to_string();
    let xstack = Xstack::start(&["forward", "--json", "--grace", "0.3", "127.0.0.1:0", &port], 0).await;
    // With --json the address is in the line.
    let told = loop {
        let told = xstack.stdout();
        if told.ends_with('\n') {
            break told;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    let line: serde_json::Value = serde_json::from_str(told.trim()).unwrap();
    assert_eq!(line["event"], "listening");
    let address = line["listen"].as_str().unwrap().strip_prefix("ours:").unwrap().to_owned();
    let mut stays = TcpStream::connect(&address).await.unwrap();
    let mut goes = TcpStream::connect(&address).await.unwrap();
    for stream in [&mut stays, &mut goes] {
        stream.write_all(b"x").await.unwrap();
        stream.read_exact(&mut [0]).await.unwrap();
    }
    let stopped = tokio::task::spawn_blocking(move || xstack.stop());
    tokio::time::sleep(Duration::from_millis(50)).await;
    // Within the time of grace sessions go on, and nobody is let in.
    assert!(TcpStream::connect(&address).await.is_err());
    assert_eq!(exchange(goes, b"more").await.unwrap(), b"more");
    let heard = timeout(SOON, stays.read(&mut [0])).await.unwrap();
    assert_eq!(heard.expect_err("no end").kind(), io::ErrorKind::ConnectionReset);
    let outcome = stopped.await.unwrap();
    assert_eq!(outcome.code, 0, "being told to stop is no failure");
    let line: serde_json::Value = serde_json::from_str(outcome.stdout.lines().nth(1).unwrap()).unwrap();
    assert_eq!((&line["event"], &line["reset"]), (&"stopped".into(), &1.into()));
    assert_eq!((&line["counters"]["accepted"], &line["counters"]["to_target"]), (&2.into(), &6.into()));
    assert!(outcome.stderr.contains("1 connections"), "{}", outcome.stderr);
}

#[tokio::test]
async fn mistakes_are_told_before_anything_is_touched() {
    for (words, says) in [
        (&["forward", "80"][..], "2 values required"),
        (&["forward", "80", "81", "82"], "without its TO"),
        (&["forward", "80", "81", "10.0.0.7:80", "82"], "overlap"),
        (&["forward", "x", "81"], "FROM is"),
        (&["forward", "80", "ours:81"], "which host"),
        (&["forward", "--idle-timeout", "soon", "80", "81"], "seconds"),
        (&["forward", "--max-connections", "0", "80", "81"], "1 or more"),
        (&["forward", "--socket-mode", "rw", "80", "81"], "octal"),
    ] {
        let outcome = Xstack::fails(words);
        assert_eq!(outcome.code, 2, "{words:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(says), "{words:?}: {}", outcome.stderr);
    }
}

#[tokio::test]
async fn what_cannot_be_listened_on_is_told_and_nothing_else_is_left_listening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (file, place) =
        (format!("unix:{}", path.display()), format!("kernel:{}", taken.local_addr().unwrap()));
    let outcome = Xstack::fails(&["forward", &file, "app.test:80", &place, "app.test:80"]);
    assert_eq!(outcome.code, 102, "{}", outcome.stderr);
    assert!(outcome.stderr.contains(&place) && outcome.stderr.contains("in use"), "{}", outcome.stderr);
    assert!(!path.exists(), "the socket file of the first is gone");
    let _listening = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let outcome = Xstack::fails(&["forward", &file, "app.test:80"]);
    assert!(outcome.stderr.contains("another process listens"), "{}", outcome.stderr);
}
