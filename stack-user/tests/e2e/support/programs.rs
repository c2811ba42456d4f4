//! Real programs on the lab's hosts. Each ends with its value, also while a failed test unwinds.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::Running;
use super::lab::{Host, TestLab, address};

const STARTS_WITHIN: Duration = Duration::from_secs(10);

/// nginx, for http and https, with a directory of its own.
pub(crate) struct Nginx {
    directory: TempDir,
    ip: String,
    _running: Running,
}

impl Nginx {
    /// On the web host.
    pub(crate) fn start(lab: &TestLab) -> Self {
        Self::on(lab, Host::Web, &address::WEB.to_string())
    }

    /// On one of a host's addresses.
    pub(crate) fn on(lab: &TestLab, host: Host, ip: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::create_dir(root.join("www")).unwrap();
        let key = rcgen::generate_simple_self_signed(["example.com".into()]).unwrap();
        fs::write(root.join("certificate.pem"), key.cert.pem()).unwrap();
        fs::write(root.join("key.pem"), key.signing_key.serialize_pem()).unwrap();
        let configuration = root.join("nginx.conf");
        fs::write(&configuration, Self::configuration(ip, &root.display().to_string())).unwrap();
        let running = Running::start(
            lab.on(host, "nginx").arg("-c").arg(&configuration).arg("-p").arg(root).stderr(Stdio::null()),
        );
        wait_for_port(lab, host, &format!("{ip}:443"));
        Self { directory, ip: ip.to_owned(), _running: running }
    }

    /// The certificate of https://example.com, which signs for itself.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.directory.path().join("certificate.pem")
    }

    /// Puts a file there for anybody to fetch.
    pub(crate) fn serve(&self, name: &str, content: &[u8]) -> String {
        fs::write(self.directory.path().join("www").join(name), content).unwrap();
        format!("http://{}/{name}", self.ip)
    }

    fn configuration(ip: &str, root: &str) -> String {
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {root}/{kind};"))
            .join(" ");
        format!(
            "daemon off; user root; worker_processes 1; pid {root}/pid; error_log {root}/error.log;\n\
             events {{ worker_connections 256; }}\n\
             http {{ access_log off; sendfile on; default_type application/octet-stream; {temporary}\n\
             ssl_certificate {root}/certificate.pem; ssl_certificate_key {root}/key.pem;\n\
             server {{ listen {ip}:80; listen {ip}:443 ssl; root {root}/www; }} }}\n"
        )
    }
}

/// dnsmasq on the web host: it knows example.com and that nothing under .invalid exists.
pub(crate) struct Dnsmasq {
    _running: Running,
}

impl Dnsmasq {
    pub(crate) fn start(lab: &TestLab) -> Self {
        let running = Running::start(
            lab.on(Host::Web, "dnsmasq")
                .args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"])
                .args(["--user=root", "--pid-file=", "--bind-interfaces", "--local=/invalid/"])
                .arg(format!("--listen-address={}", address::DNS))
                .arg(format!("--address=/example.com/{}", address::WEB))
                .stderr(Stdio::null()),
        );
        wait_for_port(lab, Host::Web, &format!("{}:53", address::DNS));
        Self { _running: running }
    }
}

/// Waits until something on a host listens on a TCP port.
pub(crate) fn wait_for_port(lab: &TestLab, host: Host, address: &str) {
    let (ip, port) = address.split_once(':').unwrap();
    let deadline = Instant::now() + STARTS_WITHIN;
    loop {
        let filter = format!("src {ip} and sport = :{port}");
        if !lab.text(host, &["ss", "--no-header", "-ltn", &filter]).trim().is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "nothing listens on {address}");
        sleep(Duration::from_millis(10));
    }
}

/// tcpdump on a host, from the moment it really listens.
pub(crate) struct Tcpdump {
    running: Running,
}

impl Tcpdump {
    pub(crate) fn start(lab: &TestLab, host: Host, interface: &str, filter: &str) -> Self {
        let mut command = lab.on(host, "tcpdump");
        // Packet-buffered and immediate: what was seen is printed when it is seen, not when a buffer is full.
        command.args(["-n", "-l", "--immediate-mode", "-i", interface, filter]);
        let mut running = Running::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let mut stderr = BufReader::new(running.take_stderr());
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            assert!(stderr.read_line(&mut line).unwrap() > 0, "tcpdump ended at once");
        }
        // Its last words need a reader, or it would block on a full pipe.
        std::thread::spawn(move || {
            let _ = stderr.read_to_end(&mut Vec::new());
        });
        Self { running }
    }

    /// A line for each packet that it saw.
    pub(crate) fn packets(self) -> Vec<String> {
        self.running.signal(Signal::SIGINT);
        let output = self.running.finish();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        // An interrupted tcpdump ends with an empty line.
        printed.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }
}
