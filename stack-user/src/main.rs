//! The `xstack` command.

use std::process::ExitCode;

use stack_user::cli::{self, ours::OurNetwork};

fn main() -> ExitCode {
    cli::main(OurNetwork::open)
}
