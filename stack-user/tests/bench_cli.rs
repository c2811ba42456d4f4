//! `xstack bench` from its command line, over the kernel's loopback.

#![allow(clippy::unwrap_used)]

#[path = "bench_cli/bulk.rs"]
mod bulk;
#[path = "figures/mod.rs"]
mod figures;
#[path = "bench_cli/harness.rs"]
mod harness;
#[path = "process/mod.rs"]
mod process;
#[path = "bench_cli/rpc.rs"]
mod rpc;

use clap::CommandFactory;
use stack_user::cli::Cli;

#[test]
fn the_help_is_as_it_was_last_seen() {
    for name in ["server", "client", "rr", "crr", "conns", "mix", "pump-tx", "pump-rx", "pump-ping"] {
        let mut command = Cli::command().term_width(100);
        command.build();
        let words = std::iter::once("bench").chain(name.split('-'));
        let found = words.fold(&mut command, |command, word| command.find_subcommand_mut(word).expect(word));
        let mut command = found.clone().term_width(100);
        let help = command.render_long_help().to_string();
        let path = format!("{}/tests/bench_cli/xstack-bench-{name}.help.txt", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            std::fs::write(&path, &help).expect("writes");
        }
        let seen = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            help == seen,
            "the help has changed; if it should, run this again with UPDATE_SNAPSHOTS=1:\n{help}"
        );
    }
}
