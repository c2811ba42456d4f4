//! Every example program, against real peers: servers are asked by curl, clients ask nginx or the lab's server.

use std::{path::PathBuf, process::Command, sync::OnceLock, time::Duration};

use crate::support::{Dnsmasq, Host, Nginx, Outcome, Server, TestLab, assert_same_bytes, run_for, sized};

/// What the servers claim, and what the clients do.
const OURS: &str = "10.77.0.77";

/// More than any of them needs on a machine that is busy with other things.
const WITHIN: Duration = Duration::from_secs(30);

/// Built by `cargo xtask test`; a test that is run by hand builds them itself.
pub(crate) fn program(example: &str) -> PathBuf {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| match std::env::var_os("XSTACK_EXAMPLES") {
        Some(path) => path.into(),
        None => xtask::build::examples().unwrap(),
    });
    directory.join(example)
}

impl TestLab {
    /// Runs a client on the host, to its end.
    #[track_caller]
    fn example(&self, name: &str, arguments: &[&str]) -> Outcome {
        run_for(self.example_command(name).args(arguments), WITHIN)
    }

    /// Starts a server on the host.
    #[track_caller]
    fn example_server(&self, name: &str, arguments: &[&str]) -> Server {
        Server::start(self.example_command(name).args(arguments))
    }

    fn example_command(&self, name: &str) -> Command {
        let mut command = self.on(Host::Host, program(name));
        command.args(["xs0", OURS]);
        command
    }

    /// What curl gets on the LAN neighbour.
    #[track_caller]
    fn neighbours_curl(&self, arguments: &[&str]) -> Vec<u8> {
        let limited = ["--silent", "--show-error", "--fail", "--max-time", "20"];
        self.output(Host::Peer, &[&["curl"], &limited[..], arguments].concat())
    }
}

/// nginx and dnsmasq on the web host.
fn with_nginx(test: &str) -> Option<(TestLab, Nginx, Dnsmasq)> {
    let lab = TestLab::without_servers(test, &["nginx", "dnsmasq", "ss"])?;
    let nginx = Nginx::start(&lab);
    let dnsmasq = Dnsmasq::start(&lab);
    Some((lab, nginx, dnsmasq))
}

#[test]
fn hyper_client() {
    let Some((lab, nginx, _dnsmasq)) = with_nginx("hyper_client") else { return };
    let page: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    nginx.serve("page", &page);
    assert!(lab.example("hyper_client", &["http://example.com/page"]).body() == page);
    let certificate = nginx.certificate();
    let certificate = certificate.to_str().unwrap();
    assert!(lab.example("hyper_client", &["https://example.com/page", certificate]).body() == page);
    let refused = lab.example("hyper_client", &["https://example.com/page"]).expect_code(1);
    assert!(refused.stderr.contains("certificate"), "nobody vouches for it: {}", refused.stderr);
    let unknown = lab.example("hyper_client", &["http://nosuch.invalid/"]).expect_code(1);
    assert!(unknown.stderr.contains("nosuch.invalid"), "{}", unknown.stderr);
    assert!(!lab.has_program(), "nothing is left behind");
}

#[test]
fn hyper_server() {
    let Some(lab) = TestLab::without_servers("hyper_server", &["curl"]) else { return };
    let server = lab.example_server("hyper_server", &["8080"]);
    let said = String::from_utf8(lab.neighbours_curl(&["http://10.77.0.77:8080/where?am=i"])).unwrap();
    assert!(said.starts_with("10.77.0.3:") && said.ends_with(" asked for /where?am=i\n"), "{said}");
    let file = tempfile::NamedTempFile::new().unwrap();
    let sent: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(file.path(), &sent).unwrap();
    let upload = format!("@{}", file.path().display());
    assert!(lab.neighbours_curl(&["--data-binary", &upload, "http://10.77.0.77:8080/"]) == sent);
    server.stop();
    assert!(!lab.has_program(), "nothing is left behind");
}

#[test]
fn axum_server() {
    let Some(lab) = TestLab::without_servers("axum_server", &["curl"]) else { return };
    let server = lab.example_server("axum_server", &["80"]);
    // Two requests on one connection.
    let both = lab.neighbours_curl(&["http://10.77.0.77/hello/you", "http://10.77.0.77/hello/me"]);
    assert_eq!(both, b"Hello, you!\nHello, me!\n");
    let peer = String::from_utf8(lab.neighbours_curl(&["http://10.77.0.77/peer"])).unwrap();
    assert!(peer.starts_with("10.77.0.3:"), "{peer}");
    // What has begun when the server is told to stop is finished.
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| lab.neighbours_curl(&["http://10.77.0.77/slow"]));
        std::thread::sleep(Duration::from_millis(200));
        server.stop();
        assert_eq!(slow.join().unwrap(), b"done\n");
    });
}

#[test]
fn tower_client() {
    let programs = ["nginx", "dnsmasq", "ss"];
    let Some(lab) = TestLab::without_servers("tower_client", &programs) else { return };
    // Nothing listens at first: the layer that repeats is what makes it succeed.
    let (outcome, _nginx) = std::thread::scope(|scope| {
        let client = scope.spawn(|| lab.example("tower_client", &["http://10.77.1.2/"]));
        std::thread::sleep(Duration::from_millis(1200));
        let nginx = Nginx::start(&lab);
        nginx.serve("index.html", b"<h1>at last</h1>\n");
        (client.join().unwrap().expect_code(0), nginx)
    });
    assert_eq!(outcome.stdout, b"<h1>at last</h1>\n");
    assert!(outcome.stderr.contains("once more"), "{}", outcome.stderr);
    let missing = lab.example("tower_client", &["http://10.77.1.2/missing"]).expect_code(1);
    assert!(missing.stderr.contains("404") && !missing.stderr.contains("once more"), "{}", missing.stderr);
}

#[test]
fn rustls_client() {
    let Some((lab, nginx, _dnsmasq)) = with_nginx("rustls_client") else { return };
    nginx.serve("index.html", b"<h1>for your eyes only</h1>\n");
    let certificate = nginx.certificate();
    let certificate = certificate.to_str().unwrap();
    let answer = lab.example("rustls_client", &["example.com", "443", certificate]).body();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\nServer: nginx"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n<h1>for your eyes only</h1>\n"), "{answer}");
    let other = lab.example("rustls_client", &["10.77.1.2", "443", certificate]).expect_code(1);
    assert!(other.stderr.contains("certificate"), "the name is another: {}", other.stderr);
}

#[test]
fn rustls_server() {
    let Some(lab) = TestLab::without_servers("rustls_server", &["curl"]) else { return };
    let directory = tempfile::tempdir().unwrap();
    let certificate = directory.path().join("certificate.pem");
    let certificate = certificate.to_str().unwrap();
    let server = lab.example_server("rustls_server", &["443", certificate]);
    let url = "https://10.77.0.77/";
    let answer = lab.neighbours_curl(&["--cacert", certificate, url]);
    assert_eq!(answer, b"this came by Some(TLSv1_3)\n");
    let older = lab.neighbours_curl(&["--cacert", certificate, "--tls-max", "1.2", url]);
    assert_eq!(older, b"this came by Some(TLSv1_2)\n");
    let stranger = lab.on(Host::Peer, "curl").args(["--silent", "--max-time", "20", url]).output().unwrap();
    assert_eq!(stranger.status.code(), Some(60), "curl does not trust it unasked");
    server.stop();
}

#[test]
fn reqwest_client() {
    let Some((lab, nginx, _dnsmasq)) = with_nginx("reqwest_client") else { return };
    let page: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    nginx.serve("page", &page);
    assert!(lab.example("reqwest_client", &["http://example.com/page"]).body() == page);
    let certificate = nginx.certificate();
    let certificate = certificate.to_str().unwrap();
    assert!(lab.example("reqwest_client", &["https://example.com/page", certificate]).body() == page);
    let unknown = lab.example("reqwest_client", &["http://nosuch.invalid/"]).expect_code(1);
    assert!(unknown.stderr.contains("nosuch.invalid"), "{}", unknown.stderr);
}

/// Ours against quinn over the kernel's sockets, both ways.
#[test]
fn quinn_echo() {
    let Some(lab) = TestLab::without_servers("quinn_echo", &[]) else { return };
    let directory = tempfile::tempdir().unwrap();
    let (certificate, file) = (directory.path().join("certificate.pem"), directory.path().join("data"));
    let (certificate, path) = (certificate.to_str().unwrap(), file.to_str().unwrap());
    let data: Vec<u8> = (0..sized(2_000_000_u32, 50_000_000)).map(|n| (n % 251) as u8).collect();
    std::fs::write(&file, &data).unwrap();

    let server = lab.example_server("quinn_echo", &["server", "4433", certificate]);
    let mut client = lab.on(Host::Peer, program("quinn_echo"));
    client.args(["--kernel", "client", "10.77.0.77:4433", certificate, path]);
    let echo = run_for(&mut client, WITHIN).body();
    assert_same_bytes(&echo, &data, "the echo of our server");
    server.stop();

    let mut server = lab.on(Host::Peer, program("quinn_echo"));
    let server = Server::start(server.args(["--kernel", "server", "4433", certificate]));
    let echo = lab.example("quinn_echo", &["client", "10.77.0.3:4433", certificate, path]).body();
    assert_same_bytes(&echo, &data, "the echo to our client");
    let said = server.stop();
    assert!(said.contains("10.77.0.77"), "it was our address that came: {said}");
}
