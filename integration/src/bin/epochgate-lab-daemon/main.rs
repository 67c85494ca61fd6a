//! `epochgated` whose first inbound SPIs are those that `EPOCHGATE_LAB_SPIS` lists, for tests of
//! collisions. The product has no such choice: see `epochgate_integration::chosen_spis`.

use clap::Parser;
use epochgate_integration::chosen_spis::ChosenSpis;
use epochgated::cli::Arguments;
use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    match ChosenSpis::from_environment() {
        Ok(crypto) => epochgated::daemon::main_with(&Arguments::parse(), Arc::new(crypto)),
        Err(error) => {
            eprintln!("epochgate-lab-daemon: {error}");
            ExitCode::from(2)
        }
    }
}
