//! The `xstack` command.

use std::process::ExitCode;

use stack_user::cli::{self, ours::OurNetwork};

fn main() -> ExitCode {
    if cli::control::guard::ran_as_guard() || cli::dispatcher_guard::ran_as_guard() {
        return ExitCode::SUCCESS;
    }
    cli::main(OurNetwork::open)
}
