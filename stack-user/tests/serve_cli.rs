//! `xstack serve` from its command line to its exit code, over the kernel's loopback: what is answered to which request,
//! to clients that do not behave, and while it is being stopped.

#![allow(clippy::unwrap_used)]

#[path = "serve_cli/server.rs"]
mod server;

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::symlink;
use std::time::Duration;

use clap::CommandFactory;
use server::{Buffer, LONG, Server, gunzip, run, site};
use stack_user::cli::Cli;
use stack_user::cli::error::Exit;
use tokio::time::{Instant, sleep, timeout};

#[tokio::test]
async fn every_request_has_its_answer() {
    let site = site();
    symlink("sub/file.txt", site.path().join("inside")).unwrap();
    symlink(site.path().join("sub"), site.path().join("absolute")).unwrap();
    symlink("/etc/passwd", site.path().join("outside")).unwrap();
    symlink("../..", site.path().join("sub/up")).unwrap();
    symlink("loop", site.path().join("loop")).unwrap();
    nix::unistd::mkfifo(&site.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(site.path().join("socket")).unwrap();
    let server = Server::start(site.path(), &[]).await;
    for (path, status, body) in [
        ("/digits.bin", 200, "0123456789"),
        ("/digits.bin?query", 200, "0123456789"),
        ("/%64igits.bin", 200, "0123456789"),
        ("//digits.bin", 200, "0123456789"),
        ("/sub/../digits.bin", 200, "0123456789"),
        ("/empty.txt", 200, ""),
        ("/sub/file.txt", 200, "in sub\n"),
        ("/indexed/", 200, "<p>index</p>\n"),
        ("/a%20b&c/%3Cx%3E%3F%23%25.txt", 200, "odd"),
        ("/inside", 200, "in sub\n"),
        ("/absolute/file.txt", 200, "in sub\n"),
        ("/sub", 301, "301"),
        ("/none", 404, "404"),
        ("/digits.bin/", 404, "404"),
        ("/digits.bin/x", 404, "404"),
        ("/%2e%2e/etc/passwd", 400, "400"),
        ("/../../etc/passwd", 400, "400"),
        ("/..%2f..%2fetc/passwd", 400, "400"),
        ("/sub/..%2f..%2f..%2fetc/passwd", 400, "400"),
        ("/..%5c..%5cetc/passwd", 404, "404"),
        ("/%252e%252e/etc/passwd", 404, "404"),
        ("/%c0%ae%c0%ae/etc/passwd", 404, "404"),
        ("/digits.bin%00.html", 400, "400"),
        ("/%zz", 400, "400"),
        ("/outside", 403, "403"),
        ("/sub/up/etc/passwd", 403, "403"),
        ("/loop", 403, "403"),
        ("/fifo", 403, "403"),
        ("/socket", 403, "403"),
        ("/.git/config", 404, "404"),
        ("/.env", 404, "404"),
        ("/%2eenv", 404, "404"),
    ] {
        let answer = server.get(path, "").await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        if status == 200 {
            assert_eq!(answer.text(), body, "{path}");
        } else {
            assert!(answer.text().contains(body) && !answer.text().contains("root:"), "{path}");
        }
        assert!(answer.header("server").starts_with("xstack/") && !answer.header("date").is_empty());
    }
    let long = format!("/{}", "a".repeat(5000));
    assert_eq!(server.get(&long, "").await.status, 404);
    assert_eq!(server.finish().await, 0);
}

#[tokio::test]
async fn directories_redirect_to_their_slash_and_nowhere_else() {
    let site = site();
    std::fs::create_dir(site.path().join("evil.test")).unwrap();
    let server = Server::start(site.path(), &[]).await;
    for (path, location) in [
        ("/sub", "/sub/"),
        ("/sub?a=1&b=%22", "/sub/?a=1&b=%22"),
        ("/a%20b&c", "/a%20b%26c/"),
        ("//evil.test", "/evil.test/"),
        ("/%2fevil.test", "/evil.test/"),
        ("/sub/../evil.test", "/evil.test/"),
    ] {
        let answer = server.get(path, "").await;
        assert_eq!((answer.status, answer.header("location")), (301, location), "{path}");
    }
}

/// RFC 9110 §14: what of a file is sent.
#[tokio::test]
async fn ranges_are_what_was_asked_for_or_the_whole() {
    let site = site();
    let server = Server::start(site.path(), &[]).await;
    let plain = server.get("/digits.bin", "").await;
    assert_eq!((plain.header("accept-ranges"), plain.header("content-length")), ("bytes", "10"));
    let (tag, date) = (plain.header("etag"), plain.header("last-modified"));
    for (headers, status, body, range) in [
        ("Range: bytes=0-0", 206, "0", "bytes 0-0/10"),
        ("Range: bytes=2-4", 206, "234", "bytes 2-4/10"),
        ("Range: Bytes=7-", 206, "789", "bytes 7-9/10"),
        ("Range: bytes=-3", 206, "789", "bytes 7-9/10"),
        ("Range: bytes=-300", 206, "0123456789", "bytes 0-9/10"),
        ("Range: bytes=8-99", 206, "89", "bytes 8-9/10"),
        ("Range: bytes=10-", 416, "416", "bytes */10"),
        ("Range: bytes=-0", 416, "416", "bytes */10"),
        ("Range: bytes=0-1,3-4", 200, "0123456789", ""),
        ("Range: lines=1-2", 200, "0123456789", ""),
        (&format!("Range: bytes=1-2\r\nIf-Range: {tag}"), 206, "12", "bytes 1-2/10"),
        (&format!("Range: bytes=1-2\r\nIf-Range: {date}"), 206, "12", "bytes 1-2/10"),
        (&format!("Range: bytes=1-2\r\nIf-Range: W/{tag}"), 200, "0123456789", ""),
        ("Range: bytes=1-2\r\nIf-Range: \"other\"", 200, "0123456789", ""),
        ("Range: bytes=1-2\r\nIf-Range: Sun, 06 Nov 1994 08:49:37 GMT", 200, "0123456789", ""),
    ] {
        let answer = server.get("/digits.bin", headers).await;
        assert_eq!((answer.status, answer.header("content-range")), (status, range), "{headers}");
        assert!(answer.text().contains(body), "{headers}: {}", answer.text());
        assert_eq!(answer.text() == body, status != 416, "{headers}");
    }
}

/// RFC 9110 §13: whether anything is sent at all.
#[tokio::test]
async fn what_the_client_has_is_not_sent_again() {
    let site = site();
    let server = Server::start(site.path(), &[]).await;
    let plain = server.get("/page.html", "").await;
    let (tag, date) = (plain.header("etag").to_owned(), plain.header("last-modified").to_owned());
    assert!(tag.starts_with('"') && date.ends_with("GMT"), "{plain:?}");
    for (headers, status) in [
        (format!("If-None-Match: {tag}"), 304),
        (format!("If-None-Match: \"x\", W/{tag}"), 304),
        ("If-None-Match: *".into(), 304),
        ("If-None-Match: \"x\"".into(), 200),
        (format!("If-Modified-Since: {date}"), 304),
        ("If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT".into(), 200),
        ("If-Modified-Since: nonsense".into(), 200),
        (format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {date}"), 200),
        ("If-Match: \"x\"".into(), 412),
        ("If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT".into(), 412),
    ] {
        let answer = server.get("/page.html", &headers).await;
        assert_eq!(answer.status, status, "{headers}");
        if status == 304 {
            assert_eq!((answer.header("etag"), answer.header("last-modified")), (&*tag, &*date));
        }
    }
}

/// Small files are kept in memory. Whoever changes one sees that in the next answer, however soon they ask.
#[tokio::test]
async fn what_has_changed_is_seen_in_the_next_answer() {
    let site = site();
    let server = Server::start(site.path(), &[]).await;
    let (file, other) = (site.path().join("news.txt"), site.path().join("other.txt"));
    let text = async |headers: &str| server.get("/news.txt", headers).await.text();
    // At first each is too new to be kept; then it has been there for longer than a file system's clock takes to move on.
    for (round, pause) in [0, 0, 0, 150, 150, 0, 150, 0].into_iter().enumerate() {
        let written = format!("round {round}");
        std::fs::write(&file, &written).unwrap();
        sleep(Duration::from_millis(pause)).await;
        for _ in 0..3 {
            assert_eq!(text("").await, written);
        }
        // The same length, in the same file.
        std::fs::write(&file, format!("ROUND {round}")).unwrap();
        assert_eq!(text("").await, format!("ROUND {round}"));
        sleep(Duration::from_millis(pause)).await;
        let (first, again) = (server.get("/news.txt", "").await, server.get("/news.txt", "").await);
        assert_eq!(first.text(), again.text());
        for name in ["etag", "last-modified", "content-type", "content-length", "accept-ranges", "server"] {
            assert_eq!(first.header(name), again.header(name), "{name}");
            assert!(!again.header(name).is_empty(), "{name}");
        }
        let tag = format!("If-None-Match: {}", again.header("etag"));
        assert_eq!(server.get("/news.txt", &tag).await.status, 304);
        // Another file under the same name.
        std::fs::write(&other, "replaced").unwrap();
        std::fs::rename(&other, &file).unwrap();
        assert_eq!(text("").await, "replaced");
        sleep(Duration::from_millis(pause)).await;
        assert_eq!((text("").await.as_str(), text("").await.as_str()), ("replaced", "replaced"));
        std::fs::remove_file(&file).unwrap();
        assert_eq!(server.get("/news.txt", "").await.status, 404);
    }
    // What was compressed beforehand is served from when it is there until it is older.
    std::fs::write(&file, "plain").unwrap();
    sleep(Duration::from_millis(150)).await;
    let gzip = "Accept-Encoding: gzip";
    assert_eq!((text(gzip).await.as_str(), text(gzip).await.as_str()), ("plain", "plain"));
    std::fs::write(site.path().join("news.txt.gz"), "compressed").unwrap();
    assert_eq!((text(gzip).await.as_str(), text("").await.as_str()), ("compressed", "plain"));
    sleep(Duration::from_millis(150)).await;
    assert_eq!((text(gzip).await.as_str(), text(gzip).await.as_str()), ("compressed", "compressed"));
    std::fs::write(&file, "newer").unwrap();
    assert_eq!((text(gzip).await.as_str(), text("").await.as_str()), ("newer", "newer"));
    // A link is followed to where it leads by now, and not outside.
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("news.txt"), "outside").unwrap();
    std::fs::remove_file(site.path().join("news.txt.gz")).unwrap();
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&other, "inside").unwrap();
    std::os::unix::fs::symlink("other.txt", &file).unwrap();
    sleep(Duration::from_millis(150)).await;
    assert_eq!((text("").await.as_str(), text("").await.as_str()), ("inside", "inside"));
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink(outside.path().join("news.txt"), &file).unwrap();
    assert_eq!(server.get("/news.txt", "").await.status, 403);
}

#[tokio::test]
async fn methods_other_than_get_and_head_are_refused() {
    let site = site();
    let server = Server::start(site.path(), &[]).await;
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "X-ODD"] {
        let answer = server.ask(&format!("{method} /page.html HTTP/1.1\r\nHost: h")).await;
        assert_eq!((answer.status, answer.header("allow")), (405, "GET, HEAD"), "{method}");
    }
    for path in ["/page.html", "/none", "/sub/", "/long.txt"] {
        let head = server.ask(&format!("HEAD {path} HTTP/1.1\r\nHost: h")).await;
        let get = server.get(path, "").await;
        assert_eq!((head.status, head.header("content-length")), (get.status, get.header("content-length")));
        assert_eq!(
            (head.header("content-type"), head.header("etag")),
            (get.header("content-type"), get.header("etag"))
        );
    }
    for (head, status) in [
        ("GET /digits.bin HTTP/1.0", 200),
        ("GET http://h/digits.bin HTTP/1.1\r\nHost: h", 200),
        ("GET /digits.bin HTTP/1.1", 400),
        ("GET /digits.bin HTTP/1.1\r\nHost: a\r\nHost: b", 400),
    ] {
        assert_eq!(server.ask(head).await.status, status, "{head}");
    }
    // A refusal reaches also those who go on sending.
    let mut client = server.connect().await;
    client
        .send(format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 500000\r\n\r\n{}", "x".repeat(1000)))
        .await;
    let answer = client.answer(false).await;
    assert_eq!(answer.status, 405);
}

#[tokio::test]
async fn content_types_follow_the_names() {
    let site = site();
    let server = Server::start(site.path(), &["--hidden"]).await;
    for (path, kind) in [
        ("/page.html", "text/html; charset=utf-8"),
        ("/long.txt", "text/plain; charset=utf-8"),
        ("/picture.jpg", "image/jpeg"),
        ("/ready.css", "text/css; charset=utf-8"),
        ("/digits.bin", "application/octet-stream"),
        ("/.env", "application/octet-stream"),
    ] {
        assert_eq!(server.get(path, "").await.header("content-type"), kind, "{path}");
    }
}

#[tokio::test]
async fn gzip_is_for_those_who_take_it_and_what_gets_shorter() {
    let site = site();
    let server = Server::start(site.path(), &[]).await;
    let plain = server.get("/long.txt", "").await;
    let answer = server.get("/long.txt", "Accept-Encoding: br, gzip;q=0.5").await;
    assert_eq!((answer.status, answer.header("content-encoding")), (200, "gzip"));
    assert_eq!(answer.header("vary").to_ascii_lowercase(), "accept-encoding");
    assert_eq!(answer.header("etag"), format!("W/{}", plain.header("etag")));
    assert_eq!(gunzip(&answer.body), plain.body);
    assert!(answer.body.len() < plain.body.len() / 10);
    // The tag of what was compressed serves for asking again.
    let again = format!("Accept-Encoding: gzip\r\nIf-None-Match: {}", answer.header("etag"));
    assert_eq!(server.get("/long.txt", &again).await.status, 304);
    let beforehand = server.get("/ready.css", "Accept-Encoding: gzip").await;
    assert_eq!(beforehand.header("content-encoding"), "gzip");
    assert_eq!(beforehand.header("content-type"), "text/css; charset=utf-8");
    assert_eq!((gunzip(&beforehand.body), beforehand.header("vary")), (b"plain".to_vec(), "accept-encoding"));
    for (path, headers) in [
        ("/long.txt", ""),
        ("/long.txt", "Accept-Encoding: gzip;q=0"),
        ("/long.txt", "Accept-Encoding: gzip\r\nRange: bytes=0-4999"),
        ("/page.html", "Accept-Encoding: gzip"),
        ("/picture.jpg", "Accept-Encoding: gzip"),
        ("/ready.css", ""),
        ("/ready.css.gz", "Accept-Encoding: gzip"),
    ] {
        assert_eq!(server.get(path, headers).await.header("content-encoding"), "", "{path} {headers}");
    }
    // What is older than its source is of no use.
    let old = std::time::SystemTime::UNIX_EPOCH;
    std::fs::File::options()
        .write(true)
        .open(site.path().join("ready.css.gz"))
        .unwrap()
        .set_modified(old)
        .unwrap();
    assert_eq!(server.get("/ready.css", "Accept-Encoding: gzip").await.header("content-encoding"), "");
    let without = Server::start(site.path(), &["--no-gzip"]).await;
    assert_eq!(without.get("/long.txt", "Accept-Encoding: gzip").await.header("content-encoding"), "");
}

#[tokio::test]
async fn directories_are_listed_as_a_page_and_as_json() {
    let site = site();
    symlink("/etc", site.path().join("outside")).unwrap();
    let server = Server::start(site.path(), &[]).await;
    let page = server.get("/", "Accept: text/html,application/json").await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    let text = page.text();
    assert!(text.contains("<a href=\"./a%20b%26c/\">a b&amp;c/</a>"), "{text}");
    assert!(text.find("./sub/").unwrap() < text.find("./digits.bin").unwrap(), "directories come first");
    for hidden in [".git", ".env", "outside", "../"] {
        assert!(!text.contains(hidden), "{hidden}: {text}");
    }
    assert!(server.get("/sub/", "").await.text().contains("<a href=\"../\">"));
    let odd = server.get("/a%20b&c/", "").await.text();
    assert!(odd.contains("<a href=\"./%3Cx%3E%3F%23%25.txt\">&lt;x&gt;?#%.txt</a>"), "{odd}");
    let json = server.get("/sub/", "Accept: application/json").await;
    assert_eq!(json.header("content-type"), "application/json");
    let value: serde_json::Value = serde_json::from_slice(&json.body).unwrap();
    assert_eq!((&value[0]["name"], &value[0]["type"]), (&"deep".into(), &"directory".into()));
    assert_eq!((&value[1]["name"], &value[1]["size"]), (&"file.txt".into(), &7.into()));
    let closed = Server::start(site.path(), &["--no-listing"]).await;
    assert_eq!(closed.get("/", "").await.status, 403);
    assert_eq!(closed.get("/indexed/", "").await.status, 200);
}

#[tokio::test]
async fn options_open_what_is_closed_otherwise() {
    let site = site();
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::write(elsewhere.path().join("file"), b"elsewhere").unwrap();
    symlink(elsewhere.path(), site.path().join("link")).unwrap();
    std::fs::write(site.path().join("missing page.html"), b"<p>nothing here</p>").unwrap();
    let options = ["--hidden", "--follow-symlinks", "--error-page", "missing page.html"];
    let server = Server::start(site.path(), &options).await;
    assert_eq!(server.get("/.git/config", "").await.text(), "secret");
    assert_eq!(server.get("/link/file", "").await.text(), "elsewhere");
    assert!(server.get("/", "").await.text().contains(".env"));
    let missing = server.get("/none", "Range: bytes=0-3").await;
    assert_eq!((missing.status, &*missing.text()), (404, "<p>nothing here</p>"));
    assert_eq!((missing.header("content-type"), missing.header("etag")), ("text/html; charset=utf-8", ""));
}

#[tokio::test]
async fn a_connection_serves_many_requests_also_pipelined_ones() {
    let site = site();
    let server = Server::start(site.path(), &[]).await;
    let mut client = server.connect().await;
    for _ in 0..3 {
        client.send("GET /page.html HTTP/1.1\r\nHost: h\r\n\r\n").await;
        assert_eq!(client.answer(false).await.status, 200);
    }
    client.send("GET /page.html HTTP/1.1\r\nHost: h\r\n\r\n".repeat(5)).await;
    for _ in 0..5 {
        assert_eq!(client.answer(false).await.text(), "<p>page</p>\n");
    }
    client.send("GET /page.html HTTP/1.0\r\n\r\n").await;
    assert_eq!(client.answer(false).await.status, 200);
    assert_eq!(client.rest().await.unwrap(), b"");
    // Who closes its own side still gets the answer, as `nc -N` expects.
    let mut client = server.connect().await;
    client.send("GET /digits.bin HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    tokio::io::AsyncWriteExt::shutdown(&mut client.stream).await.unwrap();
    assert_eq!(client.answer(false).await.text(), "0123456789");
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_told() {
    let site = site();
    let server = Server::start(site.path(), &[]).await;
    let huge = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: 1\r\n".repeat(200));
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(70_000));
    for (request, statuses) in [
        ("nonsense\r\n\r\n", &[400][..]),
        ("GET / HTTP/9.9\r\n\r\n", &[400]),
        ("GET  /\x01 HTTP/1.1\r\n\r\n", &[400]),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n", &[400]),
        ("GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", &[400]),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03", &[400]),
        (&huge, &[431]),
        (&many, &[431]),
        (&long, &[414, 431]),
    ] {
        let mut client = server.connect().await;
        let _ = tokio::io::AsyncWriteExt::write_all(&mut client.stream, request.as_bytes()).await;
        let answer = client.answer(false).await;
        let shown: String = request.chars().take(40).collect();
        assert!(statuses.contains(&answer.status), "{shown:?}: {}", answer.status);
        assert_eq!(client.rest().await.unwrap(), b"", "{shown:?} is closed");
    }
    assert_eq!(server.get("/digits.bin", "").await.status, 200, "others are not disturbed");
    let stdout = server.stdout.clone();
    server.finish().await;
    assert!(stdout.text().contains("] \"\" 400 0 \"-\" \"-\"\n"), "{}", stdout.text());
    assert!(stdout.text().contains("] \"\" 431 0 \"-\" \"-\"\n"), "{}", stdout.text());
}

#[tokio::test]
async fn who_dawdles_is_not_waited_for() {
    let site = site();
    let times = ["--header-timeout", "0.5", "--keepalive-timeout", "0.5", "-v"];
    let server = Server::start(site.path(), &times).await;
    let (mut silent, mut half, mut drip) =
        (server.connect().await, server.connect().await, server.connect().await);
    half.send("GET / HTTP/1.1\r\nHost:").await;
    let started = Instant::now();
    let dripping = async {
        while tokio::io::AsyncWriteExt::write_all(&mut drip.stream, b"G").await.is_ok() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    let (silent, half, ()) = tokio::join!(silent.rest(), half.rest(), dripping);
    assert_eq!(silent.unwrap(), b"", "which has said nothing, has missed nothing");
    assert_eq!(half.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert!(started.elapsed() < LONG);
    // An idle one ends in order.
    let mut idle = server.connect().await;
    idle.send("GET /digits.bin HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(idle.answer(false).await.status, 200);
    assert_eq!(idle.rest().await.unwrap(), b"");
    let stderr = server.stderr.clone();
    assert_eq!(server.finish().await, 0);
    assert!(stderr.text().contains("3 timed out"), "{}", stderr.text());
}

#[tokio::test]
async fn who_stalls_in_the_tls_handshake_or_speaks_no_tls_is_not_waited_for() {
    let site = site();
    let server = Server::start(site.path(), &["--tls", "--header-timeout", "0.5", "-v"]).await;
    let (mut silent, mut half, mut plain) =
        (server.connect().await, server.connect().await, server.connect().await);
    // The beginning of a ClientHello.
    half.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await;
    plain.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    for stalled in [&mut silent, &mut half] {
        assert_eq!(stalled.rest().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
    assert!(plain.rest().await.map_or(true, |alert| !alert.starts_with(b"HTTP")));
    server.says("the TLS handshake failed").await;
    let stderr = server.stderr.clone();
    assert_eq!(server.finish().await, 0);
    let told = stderr.text();
    assert!(told.contains("1 failed TLS handshakes") && told.contains("2 timed out"), "{told}");
}

#[tokio::test]
async fn a_full_server_lets_newcomers_wait_and_makes_room() {
    let site = site();
    let server = Server::start(site.path(), &["--max-connections", "2"]).await;
    let (mut first, mut second, mut third) =
        (server.connect().await, server.connect().await, server.connect().await);
    let request = "GET /digits.bin HTTP/1.1\r\nHost: h\r\n\r\n";
    third.send(request).await;
    server.says("2 connections at once are as many as allowed: newcomers wait").await;
    assert!(timeout(Duration::from_millis(200), third.stream.readable()).await.is_err(), "it waits");
    first.send(request).await;
    assert_eq!(first.answer(false).await.header("connection"), "close");
    assert_eq!(first.rest().await.unwrap(), b"");
    drop(first);
    assert_eq!(third.answer(false).await.status, 200);
    second.send(request).await;
    assert_eq!(second.answer(false).await.status, 200);
    assert_eq!(server.stderr.text().matches("newcomers wait").count(), 1, "is said once");
}

#[tokio::test]
async fn who_takes_nothing_is_not_waited_for_either() {
    let site = site();
    std::fs::File::create(site.path().join("big")).unwrap().set_len(100_000_000).unwrap();
    let server = Server::start(site.path(), &["--send-timeout", "0.5", "-v"]).await;
    let mut client = server.connect().await;
    client.send("GET /big HTTP/1.1\r\nHost: h\r\n\r\n").await;
    server.says("the peer takes nothing").await;
    assert!(client.rest().await.is_err(), "what is missing shows");
}

#[tokio::test]
async fn a_file_that_becomes_shorter_is_noticed_by_the_client() {
    let site = site();
    let big = std::fs::File::create(site.path().join("big")).unwrap();
    big.set_len(200_000_000).unwrap();
    let server = Server::start(site.path(), &[]).await;
    let mut client = server.connect().await;
    client.send("GET /big HTTP/1.1\r\nHost: h\r\n\r\n").await;
    // Something has come, and the rest waits for us.
    let mut some = [0; 1000];
    tokio::io::AsyncReadExt::read_exact(&mut client.stream, &mut some).await.unwrap();
    big.set_len(1000).unwrap();
    assert_eq!(client.rest().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    server.says("the file has become shorter").await;
    assert_eq!(server.stderr.text().matches("sending big broke off").count(), 1);
    // One that is only removed is sent to its end.
    big.set_len(3_000_000).unwrap();
    let mut client = server.connect().await;
    client.send("GET /big HTTP/1.1\r\nHost: h\r\n\r\n").await;
    tokio::io::AsyncReadExt::read_exact(&mut client.stream, &mut [0; 10]).await.unwrap();
    std::fs::remove_file(site.path().join("big")).unwrap();
    let mut left = vec![0; 3_000_000 - 10];
    timeout(LONG, tokio::io::AsyncReadExt::read_exact(&mut client.stream, &mut left)).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_access_log_has_a_line_for_each_request() {
    let site = site();
    let log = site.path().join(".log");
    let quiet = ["--quiet"];
    let started = timeout(Duration::from_millis(300), Server::start(site.path(), &quiet)).await;
    assert!(started.is_err(), "no word about where it serves");
    let server = Server::start(site.path(), &["--access-log", log.to_str().unwrap()]).await;
    server.get("/digits.bin", "Referer: http://a/\"\r\nUser-Agent: mé\\").await;
    server.get("/none?x", "").await;
    server.get("/digits.bin", "Range: bytes=0-2").await;
    assert_eq!((server.stdout.text(), server.finish().await), (String::new(), 0));
    let text = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].starts_with("127.0.0.1 - - ["), "{text}");
    let end = r#"] "GET /digits.bin HTTP/1.1" 200 10 "http://a/\x22" "m\xC3\xA9\x5C""#;
    assert!(lines[0].ends_with(end), "{text}");
    assert!(lines[1].contains("\"GET /none?x HTTP/1.1\" 404 "), "{text}");
    assert!(lines[2].contains(" 206 3 "), "{text}");
    let server = Server::start(site.path(), &["--json"]).await;
    server.get("/digits.bin", "").await;
    let stdout = server.stdout.clone();
    server.finish().await;
    let line: serde_json::Value = serde_json::from_str(&stdout.text()).unwrap();
    assert_eq!((&line["status"], &line["bytes"]), (&200.into(), &10.into()));
}

#[tokio::test]
async fn stopping_lets_requests_finish_and_closes_what_is_idle() {
    let site = site();
    std::fs::File::create(site.path().join("big")).unwrap().set_len(50_000_000).unwrap();
    let mut server = Server::start(site.path(), &[]).await;
    let (mut idle, mut fresh, mut busy) =
        (server.connect().await, server.connect().await, server.connect().await);
    idle.send("GET /digits.bin HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(idle.answer(false).await.status, 200);
    busy.send("GET /big HTTP/1.1\r\nHost: h\r\n\r\n").await;
    tokio::io::AsyncReadExt::read_exact(&mut busy.stream, &mut [0; 10]).await.unwrap();
    // It has surely accepted this one once a later one has been answered.
    assert_eq!(server.get("/digits.bin", "").await.status, 200);
    server.stop();
    assert_eq!(idle.rest().await.unwrap(), b"");
    assert_eq!(fresh.rest().await.unwrap(), b"");
    assert!(tokio::net::TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
    let rest = busy.rest().await.unwrap();
    assert!(rest.len() > 50_000_000 - 10, "{}", rest.len());
    assert_eq!(server.ended().await, 0);
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_reset() {
    let site = site();
    std::fs::File::create(site.path().join("big")).unwrap().set_len(100_000_000).unwrap();
    let mut server = Server::start(site.path(), &["--grace", "0.3"]).await;
    let mut client = server.connect().await;
    client.send("GET /big HTTP/1.1\r\nHost: h\r\n\r\n").await;
    tokio::io::AsyncReadExt::read_exact(&mut client.stream, &mut [0; 10]).await.unwrap();
    server.stop();
    let stderr = server.stderr.clone();
    assert_eq!(server.ended().await, 0);
    assert_eq!(client.rest().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert!(stderr.text().contains("1 connections were reset"), "{}", stderr.text());
}

#[tokio::test]
async fn mistakes_are_told_before_the_network_is_touched() {
    let site = site();
    let path = |name: &str| site.path().join(name).to_str().unwrap().to_owned();
    let dir = path("");
    for (words, code, says) in [
        (vec![path("none")], 26, "No such file or directory"),
        (vec![path("digits.bin")], 26, "Not a directory"),
        (vec![dir.clone(), "--tls-cert".into(), path("none"), "--tls-key".into(), path("none")], 58, "none"),
        (vec![dir.clone(), "--error-page".into(), "../x".into()], 2, "--error-page"),
        (vec![dir.clone(), "--access-log".into(), path("none/log")], 23, "none/log"),
        (vec![dir.clone(), "-l".into(), "1".into(), "-l".into(), "1".into()], 2, "twice"),
    ] {
        let (stdout, stderr) = (Buffer::default(), Buffer::default());
        let words: Vec<_> = ["xstack", "serve"]
            .map(OsString::from)
            .into_iter()
            .chain(words.into_iter().map(OsString::from))
            .collect();
        let cli = stack_user::cli::parse(words.clone()).unwrap();
        let console = stack_user::cli::console::Console {
            output: stack_user::cli::console::Output::new(stdout, false),
            diagnostics: stack_user::cli::console::Diagnostics::new(stderr.clone(), false),
        };
        let open = async |_: &_| -> Result<stack_user::cli::kernel::KernelNetwork, _> {
            panic!("the network was opened")
        };
        let exit = stack_user::cli::run(cli, console, open, std::future::pending()).await;
        assert_eq!(exit.code(), code, "{words:?}: {}", stderr.text());
        assert!(stderr.text().contains(says) && stderr.text().lines().count() == 1, "{}", stderr.text());
    }
    // A port in use shows only there.
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let local = taken.local_addr().unwrap().to_string();
    let words = ["xstack", "serve", &dir, "-l", &local].map(OsString::from).to_vec();
    let stderr = Buffer::default();
    let exit = run(words, Buffer::default(), stderr.clone(), std::future::pending::<Exit>()).await;
    assert_eq!(exit.code(), 102);
    assert!(
        stderr.text().contains(&format!("Cannot listen on {local}: Address already in use")),
        "{}",
        stderr.text()
    );
}

#[test]
fn the_help_is_as_it_was_last_seen() {
    let mut command = Cli::command().term_width(100);
    command.build();
    let serve = command.find_subcommand_mut("serve").unwrap().clone();
    let help = serve.term_width(100).render_long_help().to_string();
    let path = format!("{}/tests/serve_cli/xstack-serve.help.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, &help).unwrap();
    }
    let seen = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        help == seen,
        "the help has changed; if it should, run this again with UPDATE_SNAPSHOTS=1:\n{help}"
    );
}
