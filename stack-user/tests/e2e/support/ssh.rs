//! OpenSSH: a server on one of the lab's hosts, and what its clients need to get in.

use std::fs;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::programs::wait_for_port;
use super::{Host, Running, TestLab};

/// What tests with it need.
pub(crate) const PROGRAMS: [&str; 4] = ["ssh", "sshd", "ssh-keygen", "ss"];

pub(crate) struct Sshd {
    directory: TempDir,
    _running: Running,
}

impl Sshd {
    /// Listens on port 22 of an address.
    pub(crate) fn start(lab: &TestLab, host: Host, ip: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for key in ["host", "user"] {
            let mut keygen = Command::new("ssh-keygen");
            let done =
                keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(root.join(key)).status().unwrap();
            assert!(done.success());
        }
        // Where it locks its unprivileged half in; packages make it when the service starts.
        fs::create_dir_all("/run/sshd").unwrap();
        let at = root.display();
        let configuration = format!(
            "HostKey {at}/host\nAuthorizedKeysFile {at}/user.pub\nPermitRootLogin yes\nStrictModes no\nUsePAM no\n\
             PidFile none\nUseDNS no\nListenAddress {ip}:22\n"
        );
        fs::write(root.join("sshd_config"), configuration).unwrap();
        let mut sshd = lab.on(host, "/usr/sbin/sshd");
        sshd.args(["-D", "-f"]).arg(root.join("sshd_config")).stderr(Stdio::null());
        let running = Running::start(&mut sshd);
        wait_for_port(lab, host, &format!("{ip}:22"));
        Self { directory, _running: running }
    }

    /// A client on a host, which runs a command on the server.
    pub(crate) fn client(&self, lab: &TestLab, host: Host, arguments: &[&str]) -> Command {
        let mut ssh = lab.on(host, "ssh");
        ssh.args(["-F", "/dev/null", "-T", "-i"]).arg(self.directory.path().join("user"));
        for option in
            ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"]
        {
            ssh.args(["-o", option]);
        }
        ssh.args(arguments);
        ssh
    }
}
