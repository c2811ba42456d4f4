//! `xstack proxy`: real clients, the protocols byte by byte, and those who do not keep to them.

use std::io;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::time::timeout;

use super::harness::{SOON, Xstack, closed_port, echo, exchange};

const ANY: &str = "kernel:127.0.0.1:0";

async fn proxy(arguments: &[&str]) -> Xstack {
    Xstack::start(&[&["proxy", "--listen", ANY], arguments].concat(), 1).await
}

/// Sends all of it at once, and reads as many bytes as an answer that is expected has.
async fn say(stream: &mut TcpStream, send: &[u8], expect: usize) -> Vec<u8> {
    stream.write_all(send).await.unwrap();
    let mut got = vec![0; expect];
    timeout(SOON, stream.read_exact(&mut got)).await.expect("an answer in time").unwrap();
    got
}

fn socks_request(name: &str, port: u16) -> Vec<u8> {
    [&[5, 1, 0, 3, name.len() as u8][..], name.as_bytes(), &port.to_be_bytes()].concat()
}

/// A server of HTTP that answers with the head that it got, so that it shows what came through. A path `/break` breaks
/// off after half of the body.
async fn web() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                while let Some(head) = read_head(&mut stream).await {
                    let body = format!("connection {number}\n{head}");
                    let (length, connection) = match head.contains("/break ") {
                        true => (body.len() * 2, "close"),
                        false => (body.len(), "keep-alive, X-Private"),
                    };
                    let head = format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: {connection}\r\nX-Private: 1\r\n\r\n"
                    );
                    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
                    if connection == "close" {
                        return;
                    }
                }
            });
        }
    });
    address
}

async fn read_head<S: AsyncRead + Unpin>(stream: &mut S) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

/// Asks, and gives the answer with its body, if the answer says how long that is.
async fn ask(stream: &mut TcpStream, request: &[u8]) -> String {
    stream.write_all(request).await.unwrap();
    let answer = async {
        let mut head = read_head(stream).await.expect("an answer");
        let length = head
            .to_lowercase()
            .split_once("content-length: ")
            .map_or(0, |(_, rest)| rest.split('\r').next().unwrap().parse().unwrap());
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        head.push_str(&String::from_utf8(body).unwrap());
        head
    };
    timeout(SOON, answer).await.expect("an answer in time")
}

/// The real curl. None, and a SKIP line, where it is not installed.
async fn curl(test: &str, arguments: &[&str]) -> Option<std::process::Output> {
    let mut command = Command::new("curl");
    command.args(["--disable", "--silent", "--show-error", "--max-time", "20"]).args(arguments);
    for variable in ["http_proxy", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"] {
        command.env_remove(variable);
    }
    match tokio::task::spawn_blocking(move || command.output()).await.unwrap() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            println!("SKIP {test}: curl is not installed");
            None
        }
        output => Some(output.unwrap()),
    }
}

#[tokio::test]
async fn an_unchanged_curl_gets_pages_through_every_protocol_by_names_that_only_we_know() {
    let test = "an_unchanged_curl_gets_pages_through_every_protocol_by_names_that_only_we_know";
    let port = web().await.port();
    let url = format!("http://app.test:{port}/page");
    let xstack = proxy(&["--user-password", "me:secret", "--user-password", "you:too,and:more"]).await;
    let (at, port) = (xstack.address(0), port.to_string());
    let (socks, http) = (at.to_string(), format!("http://{at}"));
    for (how, user) in [
        (&["--socks5-hostname", &socks][..], "me:secret"),
        (&["--proxy", &http], "you:too,and:more"),
        (&["--proxytunnel", "--proxy", &http], "me:secret"),
    ] {
        let Some(good) = curl(test, &[how, &["--proxy-user", user, &url]].concat()).await else { return };
        let body = String::from_utf8_lossy(&good.stdout);
        assert!(good.status.success(), "{how:?}: {}", String::from_utf8_lossy(&good.stderr));
        assert!(body.contains("GET /page HTTP/1.1") && body.contains(&format!("app.test:{port}")), "{body}");
        for wrong in [&["--proxy-user", "me:wrong"][..], &[]] {
            let bad = curl(test, &[how, wrong, &["--fail", &url]].concat()).await.unwrap();
            assert!(!bad.status.success(), "{how:?} {wrong:?}");
        }
    }
    let outcome = xstack.stop();
    assert_eq!(outcome.stderr, "", "and nothing is logged, passwords least of all");
}

#[tokio::test]
async fn several_requests_share_connections_and_nothing_of_one_connection_leaks_into_the_other() {
    let port = web().await.port();
    let xstack = proxy(&[]).await;
    let mut client = xstack.connect().await;
    for number in 0..3 {
        let request = format!(
            "GET http://user@app.test:{port}/{number}?q HTTP/1.1\r\nHost: other.test\r\nConnection: X-Mine\r\n\
             X-Mine: 1\r\nProxy-Connection: keep-alive\r\nX-Yours: 2\r\n\r\n"
        );
        client.write_all(request.as_bytes()).await.unwrap();
        let answer = read_head(&mut client).await.unwrap().to_lowercase();
        assert!(answer.contains("via: 1.1 xstack") && !answer.contains("x-private"), "{answer}");
        let seen = "connection 0\n";
        let mut body = vec![0; seen.len()];
        client.read_exact(&mut body).await.unwrap();
        assert_eq!(body, seen.as_bytes(), "one connection to the server for all");
        let head = read_head(&mut client).await.unwrap();
        assert!(head.starts_with(&format!("GET /{number}?q HTTP/1.1\r\n")), "{head}");
        let head = head.to_lowercase();
        assert!(
            head.contains(&format!("host: app.test:{port}\r\n")) && head.contains("via: 1.1 xstack"),
            "{head}"
        );
        assert!(head.contains("x-yours: 2") && !head.contains("x-mine") && !head.contains("proxy"), "{head}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_reset_for_the_client_too() {
    let port = web().await.port();
    let xstack = proxy(&[]).await;
    // A client of HTTP/1.0 knows the end of a body by the end of the connection alone.
    for version in ["1.0", "1.1"] {
        let request = format!("GET http://app.test:{port}/break HTTP/{version}\r\nHost: x\r\n\r\n");
        let mut client = xstack.connect().await;
        client.write_all(request.as_bytes()).await.unwrap();
        let mut got = Vec::new();
        let ended = timeout(SOON, client.read_to_end(&mut got)).await.unwrap();
        assert!(ended.is_err(), "HTTP/{version}: {}", String::from_utf8_lossy(&got));
    }
}

#[tokio::test]
async fn a_tunnel_carries_what_was_sent_with_the_request_and_each_end_by_itself() {
    let port = echo(b"hello ").await.port();
    let xstack = proxy(&[]).await;
    let request = format!("CONNECT app.test:{port} HTTP/1.1\r\nHost: app.test:{port}\r\n\r\nearly ");
    let mut client = xstack.connect().await;
    let answer = ask(&mut client, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && !answer.contains("ontent-"), "{answer}");
    assert_eq!(exchange(client, b"and late").await.unwrap(), b"hello early and late");
    // The same by SOCKS, all in one go.
    let request = [&[5, 1, 0][..], &socks_request("app.test", port), b"early "].concat();
    let answer = exchange(xstack.connect().await, &request).await.unwrap();
    assert_eq!((&answer[..5], &answer[12..]), (&[5, 0, 5, 0, 0][..], &b"hello early "[..]));
}

#[tokio::test]
async fn a_reset_goes_through_tunnels_of_both_kinds() {
    for http in [true, false] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let xstack = proxy(&[]).await;
        let mut client = xstack.connect().await;
        if http {
            let request = format!("CONNECT app.test:{port} HTTP/1.1\r\n\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            read_head(&mut client).await.unwrap();
        } else {
            say(&mut client, &[&[5, 1, 0][..], &socks_request("app.test", port)].concat(), 12).await;
        }
        let (target, _) = listener.accept().await.unwrap();
        target.set_zero_linger().unwrap();
        drop(target);
        let heard = timeout(SOON, client.read(&mut [0])).await.unwrap();
        assert_eq!(heard.expect_err("no end").kind(), io::ErrorKind::ConnectionReset);
    }
}

// RFC 1928 §6: each failure has its own code.
#[tokio::test]
async fn socks_says_why_it_can_not_connect() {
    let closed = closed_port().await;
    let xstack = proxy(&["--connect-timeout", "0.2"]).await;
    for (request, code) in [
        (socks_request("app.test", closed), 5),
        (socks_request("nowhere.test", 80), 4),
        (socks_request("broken.test", 80), 4),
        (socks_request("silent.test", 80), 6),
        (socks_request("192.0.2.2", 80), 4),
        ([&[5, 1, 0, 4][..], &[0x20; 16], &[0, 80]].concat(), 8),
        ([5, 2, 0, 1, 127, 0, 0, 1, 0, 80].to_vec(), 7),
        ([5, 3, 0, 1, 127, 0, 0, 1, 0, 80].to_vec(), 7),
        ([5, 1, 0, 9].to_vec(), 8),
        ([5, 1, 0, 1, 127, 0, 0, 1, 0, 0].to_vec(), 1),
        (socks_request("no such name", 80), 4),
    ] {
        let mut client = xstack.connect().await;
        assert_eq!(say(&mut client, &[5, 1, 0], 2).await, [5, 0]);
        let answer = say(&mut client, &request, 10).await;
        assert_eq!(answer, [5, code, 0, 1, 0, 0, 0, 0, 0, 0], "{request:?}");
        assert_eq!(timeout(SOON, client.read(&mut [0])).await.unwrap().unwrap(), 0, "and closes in order");
    }
}

#[tokio::test]
async fn http_says_why_it_can_not_connect() {
    let closed = closed_port().await;
    let xstack = proxy(&["--connect-timeout", "0.2"]).await;
    for (request, status, says) in [
        (format!("CONNECT app.test:{closed} HTTP/1.1"), 502, "refused"),
        (format!("GET http://app.test:{closed}/ HTTP/1.1"), 502, "refused"),
        ("GET http://nowhere.test/ HTTP/1.1".into(), 502, "no such host"),
        ("GET http://broken.test/ HTTP/1.1".into(), 502, "no name server answered"),
        ("CONNECT silent.test:80 HTTP/1.1".into(), 504, "timed out"),
        ("GET http://192.0.2.2/ HTTP/1.1".into(), 502, "no way"),
        ("GET https://app.test/ HTTP/1.1".into(), 400, "CONNECT"),
        ("GET ftp://app.test/ HTTP/1.1".into(), 501, "http://"),
        ("GET / HTTP/1.1".into(), 400, "proxy"),
        ("CONNECT app.test HTTP/1.1".into(), 400, "port"),
        ("CONNECT app.test:0 HTTP/1.1".into(), 400, "port"),
        (format!("GET http://{}.test/ HTTP/1.1", "x".repeat(300)), 502, ""),
        ("no request at all".into(), 400, ""),
        (format!("GET http://app.test/ HTTP/1.1\r\nX: {}", "x".repeat(100_000)), 431, ""),
    ] {
        let whole = format!("{request}\r\nHost: x\r\n\r\n");
        let answer = ask(&mut xstack.connect().await, whole.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:.60}: {answer}");
        assert!(answer.contains(says), "{request:.60}: {answer}");
    }
}

#[tokio::test]
async fn only_those_who_may_use_it_do() {
    let xstack = proxy(&["--user-password", "me:secret"]).await;
    // RFC 1928 §3: a client that offers no acceptable method has to go.
    let mut client = xstack.connect().await;
    assert_eq!(say(&mut client, &[5, 2, 0, 1], 2).await, [5, 0xff]);
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    // RFC 1929 §2: neither does one whose password is wrong.
    let mut client = xstack.connect().await;
    assert_eq!(say(&mut client, &[5, 2, 0, 2], 2).await, [5, 2]);
    assert_eq!(say(&mut client, b"\x01\x02me\x05wrong", 2).await, [1, 1]);
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    let request = b"CONNECT app.test:80 HTTP/1.1\r\nProxy-Authorization: Basic bWU6d3Jvbmc=\r\n\r\n";
    let answer = ask(&mut xstack.connect().await, request).await;
    assert!(answer.starts_with("HTTP/1.1 407 ") && answer.contains("Basic realm"), "{answer}");
    // And one with another address is not even listened to.
    let xstack = Xstack::start(&["proxy", "-l", "ours:127.0.0.1:0", "--allow", "10.0.0.0/8"], 1).await;
    let heard = exchange(xstack.connect().await, &[5, 1, 0]).await;
    assert_eq!(heard.expect_err("no answer").kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn clients_on_our_side_reach_the_host_itself_only_if_that_is_allowed() {
    let port = echo(b"inside").await.port();
    let words = ["proxy", "-l", "ours:127.0.0.1:0", "--allow", "127.0.0.1"];
    let xstack = Xstack::start(&words, 1).await;
    for name in ["127.0.0.1", "localhost", "::ffff:127.0.0.1", "0.0.0.0", "0"] {
        let request = [&[5, 1, 0][..], &socks_request(name, port)].concat();
        let answer = exchange(xstack.connect().await, &request).await.unwrap();
        assert_eq!(answer[3], 2, "{name}");
        let host = if name.contains(':') { format!("[{name}]") } else { name.into() };
        let request = format!("CONNECT {host}:{port} HTTP/1.1\r\n\r\n");
        let answer = ask(&mut xstack.connect().await, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{name}: {answer}");
    }
    let xstack = Xstack::start(&[&words[..], &["--allow-loopback"]].concat(), 1).await;
    let request = [&[5, 1, 0][..], &socks_request("127.0.0.1", port)].concat();
    assert!(exchange(xstack.connect().await, &request).await.unwrap().ends_with(b"inside"));
}

#[tokio::test]
async fn those_who_stall_or_talk_nonsense_go_and_others_are_served_meanwhile() {
    let port = echo(b"served").await.port();
    let xstack = proxy(&["--handshake-timeout", "0.5"]).await;
    let since = Instant::now();
    let mut stalled = Vec::new();
    let starts: [&[u8]; 6] = [
        b"",
        b"\x05",
        b"\x05\x02\x00",
        b"\x05\x01\x00\x05\x01",
        b"GET http://app.te",
        b"GET / HTTP/1.1\r\nA: ",
    ];
    for start in starts.iter().cycle().take(60) {
        let mut client = xstack.connect().await;
        client.write_all(start).await.unwrap();
        stalled.push(client);
    }
    for nonsense in [&b"\x16\x03\x01\x02\x00"[..], b"\x00", b"\xff\xff\xff\xff", b"\x05\x01\x00\x04\x01\x00"]
    {
        let answer = exchange(xstack.connect().await, nonsense).await;
        assert!(answer.is_err() || answer.is_ok_and(|answer| answer.len() <= 2), "{nonsense:?}");
    }
    let version_4 =
        exchange(xstack.connect().await, b"\x04\x01\x00\x50\x7f\x00\x00\x01me\x00").await.unwrap();
    assert_eq!(version_4[..2], [0, 91], "rejected in its own words");
    let request = [&[5, 1, 0][..], &socks_request("app.test", port)].concat();
    assert!(exchange(xstack.connect().await, &request).await.unwrap().ends_with(b"served"));
    for mut client in stalled {
        let mut rest = Vec::new();
        let _ = timeout(SOON, client.read_to_end(&mut rest)).await.expect("goes in time");
    }
    assert!(since.elapsed() >= Duration::from_millis(500), "and not at once");
}

#[tokio::test]
async fn a_proxy_that_is_full_of_those_who_stall_has_room_again_when_their_time_is_over() {
    let port = echo(b"served").await.port();
    let xstack = proxy(&["--handshake-timeout", "0.5", "--max-connections", "5"]).await;
    let mut stalled = Vec::new();
    for _ in 0..20 {
        stalled.push(xstack.connect().await);
    }
    let request = [&[5, 1, 0][..], &socks_request("app.test", port)].concat();
    let since = Instant::now();
    assert!(exchange(xstack.connect().await, &request).await.unwrap().ends_with(b"served"));
    assert!(since.elapsed() >= Duration::from_millis(500), "no more than five are served at once");
}

#[tokio::test]
async fn one_protocol_can_be_had_alone_and_a_socket_file_too() {
    let port = echo(b"served").await.port();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy");
    let place = format!("unix:{}", path.display());
    let socks = [&[5, 1, 0][..], &socks_request("app.test", port)].concat();
    let http = format!("CONNECT app.test:{port} HTTP/1.1\r\n\r\n");
    for protocol in ["socks5", "http"] {
        let words = ["proxy", "-l", &place, "--protocol", protocol, "--socket-mode", "640"];
        let xstack = Xstack::start(&words, 1).await;
        let connect = || UnixStream::connect(&path);
        let by_socks = exchange(connect().await.unwrap(), &socks).await.unwrap_or_default();
        assert_eq!(by_socks.ends_with(b"served"), protocol == "socks5");
        let mut client = connect().await.unwrap();
        client.write_all(http.as_bytes()).await.unwrap();
        let by_http = timeout(SOON, read_head(&mut client)).await.unwrap().unwrap_or_default();
        assert_eq!(by_http.starts_with("HTTP/1.1 200 "), protocol == "http", "{by_http}");
        drop(client);
        assert_eq!(xstack.stop().code, 0);
        assert!(!path.exists());
    }
}

#[tokio::test]
async fn idle_clients_of_http_go_at_once_when_it_stops_and_tunnels_have_their_grace() {
    let port = echo(b"x").await.port();
    let xstack = proxy(&["--json", "--grace", "10"]).await;
    let line: serde_json::Value = serde_json::from_str(xstack.stdout().trim()).unwrap();
    let address = line["listen"].as_str().unwrap().strip_prefix("kernel:").unwrap().to_owned();
    let mut idle = TcpStream::connect(&address).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    read_head(&mut idle).await.unwrap();
    let mut tunnel = TcpStream::connect(&address).await.unwrap();
    say(&mut tunnel, &[&[5, 1, 0][..], &socks_request("app.test", port)].concat(), 13).await;
    let since = Instant::now();
    let stopped = tokio::task::spawn_blocking(move || xstack.stop());
    let mut rest = Vec::new();
    timeout(SOON, idle.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert_eq!(exchange(tunnel, b"on").await.unwrap(), b"on");
    let outcome = stopped.await.unwrap();
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
    assert!(since.elapsed() < Duration::from_secs(8), "nobody waits for the whole time of grace");
    let line: serde_json::Value = serde_json::from_str(outcome.stdout.lines().nth(1).unwrap()).unwrap();
    assert_eq!((&line["counters"]["accepted"], &line["counters"]["refused"]), (&2.into(), &1.into()));
}

/// The limit is for requests that are passed on as well as for tunnels: whoever waits for a server that has gone silent, in
/// its head or in its body, is reset, and what is slow but not silent goes on.
#[tokio::test]
async fn an_exchange_of_http_that_has_gone_silent_is_reset() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let head = read_head(&mut stream).await.unwrap();
                let slowly: &[u8] = if head.contains("/slow ") { b"123456789" } else { b"1" };
                if !head.contains("/silent ") {
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n").await.unwrap();
                    for byte in slowly {
                        tokio::time::sleep(Duration::from_millis(300)).await;
                        stream.write_all(&[*byte]).await.unwrap();
                    }
                }
                std::future::pending::<()>().await;
            });
        }
    });
    let xstack = proxy(&["--idle-timeout", "1.5", "--connect-timeout", "3"]).await;
    let request = |path| format!("GET http://app.test:{port}/{path} HTTP/1.1\r\nHost: x\r\n\r\n");
    for path in ["silent", "half"] {
        let mut stream = xstack.connect().await;
        stream.write_all(request(path).as_bytes()).await.unwrap();
        let mut got = Vec::new();
        let ended = timeout(SOON, stream.read_to_end(&mut got)).await.expect("it is not kept for ever");
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset, "{path}");
    }
    // Connecting has a limit of its own.
    let mut stream = xstack.connect().await;
    let answer = timeout(SOON, ask(&mut stream, b"CONNECT silent.test:80 HTTP/1.1\r\n\r\n")).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    let mut stream = xstack.connect().await;
    let answer = timeout(SOON, ask(&mut stream, request("slow").as_bytes())).await.unwrap();
    assert!(answer.ends_with("123456789"), "{answer}");
}

#[tokio::test]
async fn mistakes_are_told_before_anything_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    std::fs::write(&users, "# who\nme:secret\nsecret\n").unwrap();
    let users = users.display().to_string();
    for (words, code, says) in [
        (&["-l", "1080", "--allow", "10.0.0.0/33"][..], 2, "no network"),
        (&["-l", "1080"], 2, "hide behind this host"),
        (&["-l", "ours:1080"], 2, "--user-password"),
        (&["-l", "ours:1080", "-l", "unix:/x", "--allow", "10.0.0.0/8"], 2, "different sides"),
        (&["-l", "localhost:1080", "-l", "127.0.0.1:1080"], 2, "overlap"),
        (&["--user-password", "me"], 2, "NAME:PASSWORD"),
        (&["--user-file", &users], 2, "line 3"),
        (&["--user-file", "/no/such/file"], 26, "/no/such/file"),
        (&["--protocol", "gopher"], 2, "gopher"),
    ] {
        let outcome = Xstack::fails(&[&["proxy"], words].concat());
        assert_eq!(outcome.code, code, "{words:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(says), "{words:?}: {}", outcome.stderr);
        assert!(!outcome.stderr.contains("secret"), "{}", outcome.stderr);
    }
}
