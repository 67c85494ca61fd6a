//! `epochgate-sim`: plays scenarios of the simulator, searches seeds for violated invariants, and
//! replays what was found.
//!
//! Seeds and files come from the command line; scenarios, diagrams and violations go to standard
//! output, progress to standard error.

mod cli;
mod search;
mod show;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use epochgate_simulator::scenario::Scenario;

use cli::{Arguments, Command};

fn main() -> ExitCode {
    match perform(&Arguments::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("epochgate-sim: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether every invariant held.
fn perform(command: &Command) -> Result<bool> {
    match command {
        Command::Run {
            seed,
            diagram,
            json,
        } => {
            let scenario = Scenario::random(*seed);
            if *json {
                println!("{}", show::json(&scenario)?);
                return Ok(true);
            }
            show::play(&scenario, *diagram)
        }
        Command::Replay { file, diagram } => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            let scenario: Scenario = serde_json::from_str(&text)
                .with_context(|| format!("{} is no scenario", file.display()))?;
            scenario
                .check()
                .with_context(|| format!("{} is no scenario", file.display()))?;
            show::play(&scenario, *diagram)
        }
        Command::Search(wanted) => search::search(wanted),
    }
}
