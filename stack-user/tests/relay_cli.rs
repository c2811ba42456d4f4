//! `xstack forward` and `xstack proxy` from their command lines to their exit codes, over the kernel's loopback: with
//! clients that behave, and with clients and targets that do not.

#![allow(clippy::unwrap_used)]

#[path = "relay_cli/forward.rs"]
mod forward;
#[path = "relay_cli/harness.rs"]
mod harness;
#[path = "relay_cli/proxy.rs"]
mod proxy;

use clap::CommandFactory;
use stack_user::cli::Cli;

#[test]
fn the_help_of_forward_is_as_it_was_last_seen() {
    check_help("forward");
}

#[test]
fn the_help_of_proxy_is_as_it_was_last_seen() {
    check_help("proxy");
}

fn check_help(name: &str) {
    let mut command = Cli::command().term_width(100);
    command.build();
    let relay = command.find_subcommand_mut(name).unwrap().clone();
    let help = relay.term_width(100).render_long_help().to_string();
    let path = format!("{}/tests/relay_cli/xstack-{name}.help.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, &help).unwrap();
    }
    let seen = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        help == seen,
        "the help has changed; if it should, run this again with UPDATE_SNAPSHOTS=1:\n{help}"
    );
}
