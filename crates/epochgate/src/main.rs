//! The command `epochgate`.

use std::process::ExitCode;

use clap::Parser;
use epochgate::cli::Arguments;

fn main() -> ExitCode {
    epochgate::main(&Arguments::parse())
}
