//! `xstack curl` from its command line to its exit code, over the kernel's loopback: against servers that behave,
//! servers that do not, and side by side with the real curl.

#![allow(clippy::unwrap_used)]

#[path = "curl_cli/kernel.rs"]
mod kernel;
#[path = "curl_cli/servers.rs"]
mod servers;

use std::path::Path;
use std::time::{Duration, Instant};

use clap::CommandFactory;
use kernel::{Buffer, Scripted, curl, curl_on, run_over};
use proptest::prelude::{Just, any};
use servers::{End, Refusing, Web, pattern, scripted};
use stack_user::cli::Cli;
use stack_user::cli::error::Exit;

const OK: &str = "HTTP/1.1 200 OK\r\n";

#[tokio::test]
async fn a_page_is_printed_as_it_is() {
    let web = Web::start().await;
    let outcome = curl(&[&web.url("/")]).await;
    assert_eq!((outcome.code, &outcome.stdout[..], &outcome.stderr[..]), (0, &b"<p>page</p>\n"[..], ""));
    let seen = &web.seen()[0];
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("GET", "/"));
    assert_eq!(seen.headers["host"], web.address.to_string());
    assert_eq!(seen.headers["accept"], "*/*");
    assert!(seen.headers["user-agent"].to_str().unwrap().starts_with("xstack/"));
}

#[tokio::test]
async fn a_large_body_is_byte_exact_on_stdout_and_in_a_file() {
    let web = Web::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("body");
    std::fs::write(&file, b"older and not as long").unwrap();
    let url = web.url("/bytes/3000000");
    let outcome = curl(&[&url, "-o", file.to_str().unwrap()]).await;
    assert_eq!((outcome.code, outcome.stdout.len()), (0, 0));
    assert!(std::fs::read(&file).unwrap() == pattern(3_000_000));
    assert!(curl(&[&url]).await.stdout == pattern(3_000_000));
}

#[tokio::test]
async fn a_file_is_made_only_if_something_came() {
    let web = Web::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    assert_eq!(curl(&["-f", "-o", &path("failed"), &web.url("/status/404")]).await.code, 22);
    assert_eq!(curl(&["-o", &path("refused"), &Refusing::new().url]).await.code, 7);
    assert!(!Path::new(&path("failed")).exists() && !Path::new(&path("refused")).exists());
    assert_eq!(curl(&["-o", &path("empty"), &web.url("/bytes/0")]).await.code, 0);
    assert_eq!(std::fs::read(path("empty")).unwrap(), b"");
    let partial = scripted(format!("{OK}Content-Length: 9\r\n\r\nshort"), End::Close).await;
    assert_eq!(curl(&["-o", &path("partial"), &partial]).await.code, 18);
    assert_eq!(std::fs::read(path("partial")).unwrap(), b"short");
    assert_eq!(curl(&["-o", "/nonexistent/file", &web.url("/")]).await.code, 23);
    assert_eq!(curl(&["-o", "/dev/full", &web.url("/")]).await.code, 23);
    assert_eq!(curl(&["-O", &web.url("/")]).await.code, 23);
}

#[tokio::test]
async fn data_is_posted() {
    let web = Web::start().await;
    let outcome = curl(&["-d", "a=1", "--data-raw", "@b", &web.url("/echo")]).await;
    assert_eq!(outcome.stdout, b"a=1&@b");
    let outcome = curl(&["-d", "", &web.url("/echo")]).await;
    assert_eq!(outcome.code, 0);
    let seen = web.seen();
    assert_eq!((seen[0].method.as_str(), &seen[0].body[..]), ("POST", &b"a=1&@b"[..]));
    assert_eq!(seen[0].headers["content-type"], "application/x-www-form-urlencoded");
    assert_eq!(seen[1].method, "POST");
    assert_eq!(seen[1].headers["content-length"], "0");
}

#[tokio::test]
async fn connections_are_used_again() {
    let web = Web::start().await;
    let (a, b, missing) = (web.url("/a"), web.url("/b"), web.url("/status/302?/c"));
    let outcome = curl(&["-v", "-L", &a, &b, &missing, "-I", "-d", "x"]).await;
    assert_eq!(outcome.code, 2, "-I and -d contradict each other");
    let outcome = curl(&["-v", "-L", &a, &b, &missing]).await;
    assert_eq!((outcome.code, web.connections()), (0, 1));
    assert_eq!(outcome.stderr.matches("* Re-using existing connection! (#0)").count(), 3);
    assert_eq!(
        web.seen().iter().map(|seen| seen.path.as_str()).collect::<Vec<_>>(),
        ["/a", "/b", "/status/302", "/c"]
    );
}

#[tokio::test]
async fn an_idle_connection_that_died_is_replaced() {
    // HTTP/1.1 keeps connections unless it says otherwise; this server says nothing and hangs up.
    let response = format!("{OK}Content-Length: 2\r\n\r\nhi");
    for end in [End::Close, End::Reset] {
        let url = scripted(response.clone(), end).await;
        let outcome = curl(&[&url, &url, &url]).await;
        assert_eq!((outcome.code, &outcome.stdout[..]), (0, &b"hihihi"[..]), "{end:?} {}", outcome.stderr);
    }
}

#[tokio::test]
async fn redirects_are_followed_with_the_method_that_curl_uses() {
    let web = Web::start().await;
    for (status, method, body) in [(301, "GET", ""), (303, "GET", ""), (307, "POST", "x"), (308, "POST", "x")]
    {
        let outcome = curl(&["-L", "-d", "x", &web.url(&format!("/status/{status}?/end"))]).await;
        assert_eq!(outcome.code, 0);
        let last = web.seen().pop().unwrap();
        assert_eq!((last.method.as_str(), &last.body[..]), (method, body.as_bytes()), "{status}");
    }
}

#[tokio::test]
async fn secrets_do_not_follow_to_another_host() {
    let (web, other) = (Web::start().await, Web::start().await);
    let to_other = web.url(&format!("/status/302?{}", other.url("/end")));
    let arguments = ["-L", "-u", "me:secret", "-H", "Cookie: c=1", "-H", "X-Plain: 1", &to_other];
    assert_eq!(curl(&arguments).await.code, 0);
    assert!(web.seen()[0].headers.contains_key("authorization"));
    let headers = &other.seen()[0].headers;
    assert!(!headers.contains_key("authorization") && !headers.contains_key("cookie"));
    assert_eq!(headers["x-plain"], "1");
}

#[tokio::test]
async fn names_are_resolved_and_overridden() {
    let web = Web::start().await;
    let port = web.address.port();
    assert_eq!(curl(&[&format!("http://bücher.test:{port}/")]).await.code, 0);
    assert_eq!(web.seen()[0].headers["host"], format!("xn--bcher-kva.test:{port}"));
    let entry = format!("nowhere.test:{port}:127.0.0.1");
    assert_eq!(curl(&["--resolve", &entry, &format!("nowhere.test:{port}")]).await.code, 0);
    let outcome = curl(&["nowhere.test"]).await;
    assert_eq!(outcome.stderr, "xstack: (6) Could not resolve host: nowhere.test\n");
    let outcome = curl(&["dns-broken.test"]).await;
    assert_eq!((outcome.code, outcome.stderr.contains("no name server answered")), (6, true));
    assert_eq!(curl(&["--resolve", "nonsense", "localhost"]).await.code, 49);
}

#[tokio::test]
async fn every_address_is_tried() {
    let web = Web::start().await;
    let port = web.address.port();
    let outcome = curl(&["-v", &format!("http://second-works.test:{port}/")]).await;
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(outcome.stderr.contains(&format!("* connect to 127.0.0.2:{port} failed: connection refused")));
    let url = format!("http://first-is-silent.test:{port}/");
    assert_eq!(curl(&["--connect-timeout", "0.4", &url]).await.code, 0);
}

#[tokio::test]
async fn time_limits_hold() {
    let start = Instant::now();
    for (arguments, message) in [
        (&["--connect-timeout", "0.2", "http://192.0.2.1/"][..], "Connection timed out after 2"),
        (&["--max-time", "0.2", "http://192.0.2.1/"], "timed out after 2"),
        (&["--connect-timeout", "0.2", "dns-silent.test"], "Resolving timed out after 2"),
    ] {
        let outcome = curl(arguments).await;
        assert_eq!((outcome.code, outcome.stderr.contains(message)), (28, true), "{}", outcome.stderr);
    }
    let silent = scripted("", End::Hang).await;
    let stuck = scripted(format!("{OK}Content-Length: 9\r\n\r\nshort"), End::Hang).await;
    let outcome = curl(&["-m", "0.2", &silent]).await;
    assert!(outcome.stderr.contains("with 0 bytes received"), "{}", outcome.stderr);
    let outcome = curl(&["-m", "0.2", &stuck]).await;
    assert_eq!((outcome.code, &outcome.stdout[..]), (28, &b"short"[..]));
    assert!(outcome.stderr.contains("with 5 out of 9 bytes received"), "{}", outcome.stderr);
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn what_can_be_told_without_a_network_is_told_without_one() {
    let web = Web::start().await;
    for (arguments, code) in [
        (&["https://localhost/"][..], 1),
        (&["ftp://localhost/"], 1),
        (&["http://"], 3),
        (&["http://a b/"], 3),
        (&["-X", "G ET", "localhost"], 2),
        (&["--no-such-option", "localhost"], 2),
        (&[], 2),
        (&["-d", "@/nonexistent", "localhost"], 26),
    ] {
        assert_eq!(curl(arguments).await.code, code, "{arguments:?}");
    }
    // With several URLs each is tried, and the last one decides.
    let page = web.url("/");
    let outcome = curl(&["http://", &page]).await;
    assert_eq!((outcome.code, outcome.stdout.len()), (0, 12));
    assert_eq!(curl(&[&page, "http://"]).await.code, 3);
}

#[tokio::test]
async fn ipv6_is_refused_with_a_clear_word() {
    let outcome = curl(&["http://[::1]/"]).await;
    assert_eq!(outcome.code, 7);
    assert!(outcome.stderr.contains("IPv6 is not supported yet"), "{}", outcome.stderr);
}

#[tokio::test]
async fn errors_are_silent_on_request() {
    let refusing = Refusing::new();
    let url = &refusing.url;
    assert!(curl(&[url]).await.stderr.starts_with("xstack: (7) Failed to connect to 127.0.0.1 port "));
    assert_eq!(curl(&["-s", url]).await.stderr, "");
    assert!(curl(&["-sS", url]).await.stderr.contains("connection refused"));
}

#[tokio::test]
async fn the_story_shows_both_heads_and_cannot_steer_the_terminal() {
    let url =
        scripted(format!("{OK}X-Evil: \x1b]0;owned\x07\r\nContent-Length: 2\r\n\r\nhi"), End::Close).await;
    let outcome = curl(&["-v", &url]).await;
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    assert!(lines.contains(&"> GET / HTTP/1.1") && lines.contains(&"< HTTP/1.1 200 OK"), "{lines:?}");
    assert!(!outcome.stderr.contains(['\x1b', '\x07']), "{lines:?}");
    let outcome = curl_on(&["-i", &url], Buffer::default(), true, std::future::pending()).await;
    assert!(!outcome.stdout.contains(&0x1b));
}

#[tokio::test]
async fn a_terminal_is_spared_binary_data() {
    let url = scripted(format!("{OK}Content-Length: 3\r\n\r\na\0b"), End::Close).await;
    for (arguments, code, stdout) in [(&[&url[..]][..], 23, &b""[..]), (&["-o", "-", &url], 0, b"a\0b")] {
        let outcome = curl_on(arguments, Buffer::default(), true, std::future::pending()).await;
        assert_eq!((outcome.code, &outcome.stdout[..]), (code, stdout));
    }
}

#[tokio::test]
async fn a_broken_pipe_ends_the_transfer() {
    let web = Web::start().await;
    let pipe = Buffer { breaks_at: Some(1000), ..Buffer::default() };
    let outcome = curl_on(&[&web.url("/bytes/1000000")], pipe, false, std::future::pending()).await;
    assert_eq!(outcome.code, 23);
    assert!(outcome.stderr.starts_with("xstack: (23) Failure writing output to standard output"));
}

#[tokio::test]
async fn a_signal_stops_a_transfer_that_hangs() {
    let url = scripted(format!("{OK}Content-Length: 9\r\n\r\nshort"), End::Hang).await;
    let stop = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        Exit::Interrupted
    };
    let outcome = curl_on(&[&url], Buffer::default(), false, stop).await;
    assert_eq!((outcome.code, &outcome.stdout[..], &outcome.stderr[..]), (130, &b"short"[..], ""));
}

/// Servers that break the rules: an exit code and one line, never a panic or a hang.
#[tokio::test]
async fn hostile_servers_get_an_exit_code_and_one_line() {
    let huge = format!("{OK}X: {}\r\n\r\nhi", "a".repeat(700_000));
    let many = format!("{OK}{}\r\nhi", "X: 1\r\n".repeat(40_000));
    for (script, end, code) in [
        ("", End::Close, 52),
        ("", End::Reset, 56),
        ("garbage\r\nfoo\r\n\r\nbody", End::Close, 1),
        ("\0\x01\x02\u{ff}", End::Close, 1),
        ("HTTP/9.9 200 OK\r\nContent-Length: 2\r\n\r\nhi", End::Close, 1),
        ("HTTP/1.1 abc OK\r\nContent-Length: 2\r\n\r\nhi", End::Close, 1),
        ("HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\nhi", End::Close, 8),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", End::Close, 8),
        ("HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 2\r\n\r\nhi", End::Close, 8),
        ("HTTP/1.1 200 OK\r\nContent-Le", End::Close, 56),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", End::Close, 18),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", End::Reset, 56),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", End::Close, 18),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n", End::Close, 56),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n", End::Close, 56),
        ("HTTP/1.1 302 Found\r\nContent-Length: 2\r\nLocation: ftp://x/\r\n\r\nhi", End::Close, 1),
        ("HTTP/1.1 302 Found\r\nContent-Length: 2\r\nLocation: http://\r\n\r\nhi", End::Close, 3),
        ("HTTP/1.1 302 Found\r\nContent-Length: 2\r\nLocation: /loop\r\n\r\nhi", End::Close, 47),
        (&huge, End::Close, 56),
        (&many, End::Close, 56),
    ] {
        let url = scripted(script, end).await;
        let outcome = curl(&["-L", "-m", "5", &url]).await;
        let shown: String = script.chars().take(60).collect();
        assert_eq!(outcome.code, code, "{shown:?} {end:?}: {}", outcome.stderr);
        assert_eq!(outcome.stderr.lines().count(), 1, "{shown:?}: {}", outcome.stderr);
        assert!(outcome.stderr.starts_with(&format!("xstack: ({code}) ")), "{}", outcome.stderr);
    }
}

/// Everything that the real curl takes, with the same bytes on stdout and the same exit code.
#[tokio::test]
async fn side_by_side_with_the_real_curl() {
    if std::process::Command::new("curl").arg("--version").output().is_err() {
        eprintln!("SKIP side_by_side_with_the_real_curl: no curl on the PATH");
        return;
    }
    let hi = |head: &str| format!("{head}\r\nContent-Length: 2\r\n\r\nhi");
    let refusing = Refusing::new();
    let servers = [
        scripted(hi("HTTP/1.1 200 OK\r\nsOmE-CaSe:  x "), End::Close).await,
        scripted(hi("HTTP/1.1 404 Not Found"), End::Close).await,
        scripted(hi("HTTP/1.1 200"), End::Close).await,
        scripted(hi("HTTP/1.1 200 OK\r\nFolded: a\r\n b"), End::Close).await,
        scripted("HTTP/1.1 200 OK\nContent-Length: 2\n\nhi", End::Close).await,
        scripted(hi("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK"), End::Close).await,
        scripted("HTTP/1.0 200 OK\r\n\r\nuntil the end", End::Close).await,
        scripted(format!("{OK}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), End::Close).await,
        scripted("HTTP/1.1 204 No Content\r\n\r\n", End::Close).await,
        scripted("HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n", End::Close).await,
        scripted(format!("{OK}Content-Length: 9\r\n\r\nshort"), End::Close).await,
        scripted(format!("{OK}Content-Length: 9\r\n\r\nshort"), End::Reset).await,
        scripted("", End::Close).await,
        scripted("", End::Reset).await,
        scripted("garbage\r\n\r\n", End::Close).await,
        refusing.url.clone(),
        Web::start().await.url("/bytes/300000"),
        Web::start().await.url("/status/302?/echo"),
        Web::start().await.url("/status/303?/status/301?/echo"),
    ];
    let options: &[&[&str]] = &[
        &[],
        &["-i"],
        &["-I"],
        &["-f"],
        &["-f", "-i"],
        &["-L", "--max-redirs", "1"],
        &["-L", "-i", "-d", "a=1"],
    ];
    for server in &servers {
        for options in options {
            let mut arguments = vec!["-sS", "--max-time", "5"];
            arguments.extend_from_slice(options);
            arguments.push(server);
            let real = real_curl(&arguments).await;
            let ours = curl(&arguments).await;
            let stdout = (without_date(&ours.stdout), without_date(&real.stdout));
            assert_eq!(stdout.0, stdout.1, "curl {arguments:?}: {}", ours.stderr);
            assert_eq!(Some(i32::from(ours.code)), real.status.code(), "curl {arguments:?}: {}", ours.stderr);
            assert_eq!(opening(&ours.stderr), opening(&String::from_utf8_lossy(&real.stderr)));
        }
    }
}

/// What a server sends is anybody's guess: any bytes, and near misses of a proper response.
#[test]
fn no_response_makes_curl_panic() {
    let piece = proptest::prop_oneof![
        Just(b"HTTP/1.1 200 OK\r\n".to_vec()),
        Just(b"HTTP/1.1 302 Found\r\nLocation: ".to_vec()),
        Just(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()),
        Just(b"Content-Length: 5\r\n".to_vec()),
        Just(b"Transfer-Encoding: chunked\r\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"5\r\nhello\r\n".to_vec()),
        Just(b"0\r\n\r\n".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..20),
    ];
    let responses = proptest::collection::vec(piece, 0..8);
    proptest::proptest!(|(response in responses)| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let network = Scripted(response.concat());
        let outcome = runtime.block_on(run_over(
            network, &["-i", "-v", "-L", "--max-redirs", "3", "h"], Buffer::default(), false, std::future::pending(),
        ));
        let told = outcome.stderr.lines().filter(|line| line.starts_with("xstack: (")).count();
        proptest::prop_assert_eq!(told, usize::from(outcome.code != 0), "{}", outcome.stderr);
        proptest::prop_assert!(!outcome.stderr.contains(|c: char| c.is_control() && c != '\n' && c != '\t'));
    });
}

#[test]
fn the_help_is_as_it_was_last_seen() {
    let mut command = Cli::command().term_width(100);
    command.build();
    let curl = command.find_subcommand_mut("curl").unwrap().clone().term_width(100);
    for (name, mut command) in [("xstack", command), ("xstack-curl", curl)] {
        let help = command.render_long_help().to_string();
        let path = format!("{}/tests/curl_cli/{name}.help.txt", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            std::fs::write(&path, &help).unwrap();
        }
        let seen = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            help == seen,
            "the help has changed; if it should, run this again with UPDATE_SNAPSHOTS=1:\n{help}"
        );
    }
}

async fn real_curl(arguments: &[&str]) -> std::process::Output {
    let mut command = std::process::Command::new("curl");
    command.arg("--disable").args(arguments).env_remove("http_proxy").env_remove("ALL_PROXY");
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// The code and the first words of a message, which is what people search the web for.
fn opening(stderr: &str) -> Vec<&str> {
    stderr.split_whitespace().skip(1).take(4).collect()
}

/// The two runs may see two different seconds.
fn without_date(stdout: &[u8]) -> String {
    let text: String = stdout.iter().map(|&byte| char::from(byte)).collect();
    text.split_inclusive('\n').filter(|line| !line.to_ascii_lowercase().starts_with("date:")).collect()
}
