//! The epochgate daemon.

use std::process::ExitCode;

use clap::Parser;
use epochgated::cli::Arguments;

fn main() -> ExitCode {
    epochgated::daemon::main(&Arguments::parse())
}
