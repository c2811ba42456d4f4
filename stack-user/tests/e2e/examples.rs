//! Every example program, against real peers: servers are asked by curl, clients ask nginx or the lab's server.

use std::{path::PathBuf, process::Command, sync::OnceLock, time::Duration};

use crate::support::{Dnsmasq, Host, Nginx, Outcome, Server, TestLab, run_for};

/// What the servers claim, and what the clients do.
const OURS: &str = "10.77.0.77";

/// More than any of them needs on a machine that is busy with other things.
const WITHIN: Duration = Duration::from_secs(30);

/// Built by `cargo xtask test`; a test that is run by hand builds them itself.
fn program(example: &str) -> PathBuf {
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
