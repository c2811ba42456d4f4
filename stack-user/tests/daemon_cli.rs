//! `xstack daemon`, `status` and `connections` as far as no network is needed.

// A helper that unwraps fails its test with a line number.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::{fs::MetadataExt, net::UnixListener},
    process::{Command, Stdio},
};

use clap::CommandFactory;
use stack_user::cli::Cli;

const XSTACK: &str = env!("CARGO_BIN_EXE_xstack");

/// Exit code, standard output, standard error.
fn xstack(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(XSTACK)
        .args(arguments)
        .env_remove("XSTACK_CONTROL")
        .env_remove("XSTACK_CONFIG")
        .output()
        .expect("runs");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_configuration_can_be_judged_without_touching_anything() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("x.toml");
    let path = file.to_str().expect("UTF-8");
    fs::write(&file, include_str!("../../packaging/xstack.toml")).expect("writes");
    let (code, output, error) = xstack(&["daemon", "--check", path]);
    assert_eq!((code, output), (Some(0), format!("{path} is a valid configuration\n")), "{error}");
    fs::write(&file, "[network]\ninterface = 1\n").expect("writes");
    for arguments in [&["daemon", "--check", path][..], &["daemon", path]] {
        let (code, output, error) = xstack(arguments);
        assert_eq!((code, output.as_str()), (Some(78), ""), "{error}");
        assert!(error.starts_with(&format!("xstack: (78) {path}:2:13: ")), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let (code, _, error) = xstack(&["daemon", "/nonexistent"]);
    assert_eq!(code, Some(78), "{error}");
}

#[test]
fn without_a_daemon_its_clients_say_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("none");
    let socket = socket.to_str().expect("UTF-8");
    for arguments in [
        &["status", "--socket", socket][..],
        &["connections", "--socket", socket],
        &["curl", "--daemon", "--control-socket", socket, "http://example.com/"],
    ] {
        let (code, output, error) = xstack(arguments);
        assert_eq!((code, output.as_str()), (Some(111), ""), "{error}");
        assert!(error.contains(&format!("no daemon answers at {socket}")), "{error}");
    }
}

#[test]
fn a_daemons_network_and_one_of_ours_exclude_each_other() {
    let (code, _, error) = xstack(&["curl", "--daemon", "--interface", "eth1", "http://example.com/"]);
    assert_eq!(code, Some(2), "{error}");
    let (code, _, error) = xstack(&["curl", "--daemon", "--no-daemon", "http://example.com/"]);
    assert_eq!(code, Some(2), "{error}");
}

#[test]
fn the_help_is_as_it_was_last_seen() {
    for name in ["daemon", "attach", "detach", "status", "connections"] {
        let mut command = Cli::command().term_width(100);
        command.build();
        let mut command = command.find_subcommand_mut(name).expect("a command").clone().term_width(100);
        let help = command.render_long_help().to_string();
        let path = format!("{}/tests/daemon_cli/xstack-{name}.help.txt", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            fs::write(&path, &help).expect("writes");
        }
        let seen = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            help == seen,
            "the help has changed; if it should, run this again with UPDATE_SNAPSHOTS=1:\n{help}"
        );
    }
}

/// It lives as long as the daemon does, so that it must not be worth taking over.
#[test]
fn the_guard_of_the_control_socket_can_do_nothing_but_remove_it() {
    if !nix::unistd::geteuid().is_root() {
        println!(
            "SKIP the_guard_of_the_control_socket_can_do_nothing_but_remove_it: only root gives something up"
        );
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let _socket = UnixListener::bind(&path).unwrap();
    let file = fs::symlink_metadata(&path).unwrap();
    let mut guard = Command::new(env!("CARGO_BIN_EXE_xstack"))
        .arg("--guard-control-socket")
        .arg(&path)
        .args([file.dev().to_string(), file.ino().to_string(), "enforce".to_owned()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut says = String::new();
    BufReader::new(guard.stdout.take().unwrap()).read_line(&mut says).unwrap();
    assert_eq!(says, "ready\n");
    let status = fs::read_to_string(format!("/proc/{}/status", guard.id())).unwrap();
    let value = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    for set in ["CapInh:", "CapPrm:", "CapEff:"] {
        assert_eq!(value(set), ["0000000000000000"], "{set}");
    }
    assert_eq!((value("NoNewPrivs:"), value("Seccomp:")), (vec!["1".to_owned()], vec!["2".to_owned()]));
    assert!(path.exists());
    drop(guard.stdin.take());
    assert!(guard.wait().unwrap().success());
    assert!(!path.exists(), "it could not remove it");
}
