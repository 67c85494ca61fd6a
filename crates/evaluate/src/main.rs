//! Plays the simulations of `scripts/evaluate`, and writes the documentation's files from all runs.
//!
//! ```text
//! epochgate-evaluate simulate FIRST SEEDS           runs as JSON, one per line
//! epochgate-evaluate report FOLDER README < runs    evaluation.json, .md, .svg, and the README
//! ```

use std::error::Error;
use std::io::{BufRead, Write};
use std::path::Path;
use std::process::ExitCode;
use std::{env, fs, io};

use epochgate_evaluate::{Contender, Evaluation, Fault, Run, report, simulation};
use serde_json::Value;

const USAGE: &str = "usage: epochgate-evaluate simulate FIRST SEEDS | report FOLDER README < runs";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["simulate", first, seeds] => simulate(first, seeds),
        ["report", folder, readme] => write_report(Path::new(folder), Path::new(readme)),
        _ => Err(USAGE.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("epochgate-evaluate: {error}");
            ExitCode::FAILURE
        }
    }
}

fn simulate(first: &str, seeds: &str) -> Result<(), Box<dyn Error>> {
    let first: u64 = first.parse()?;
    let seeds: u64 = seeds.parse()?;
    let mut out = io::stdout().lock();
    for seed in first..first + seeds {
        for fault in Fault::ALL {
            for contender in [Contender::NoGate, Contender::Epochgate] {
                let run = simulation::play(fault, contender, seed)
                    .map_err(|violation| format!("{fault:?}, {contender:?}: {violation}"))?;
                serde_json::to_writer(&mut out, &run)?;
                writeln!(out)?;
            }
        }
    }
    Ok(())
}

/// Runs come one per line; a line with `kernel` or `strongswan` names a release, and one with
/// `not_tried` says what is missing, and `why`.
fn write_report(folder: &Path, readme: &Path) -> Result<(), Box<dyn Error>> {
    let mut runs: Vec<Run> = Vec::new();
    let mut not_tried = Vec::new();
    let (mut kernel, mut strongswan) = (None, None);
    for line in io::stdin().lock().lines() {
        let value: Value = serde_json::from_str(&line?)?;
        let said = |key: &str| value[key].as_str().map(str::to_owned);
        if value["tunnels"].is_array() {
            runs.push(serde_json::from_value(value)?);
        } else if value["not_tried"].is_string() {
            not_tried.push(serde_json::from_value(value)?);
        } else {
            kernel = said("kernel").or(kernel);
            strongswan = said("strongswan").or(strongswan);
        }
    }
    let mut evaluation = Evaluation::of(&runs, kernel, strongswan);
    evaluation.not_tried = not_tried;
    evaluation.recovery_bound_ms = u64::try_from(simulation::recovery_bound().as_millis())?;
    let json = serde_json::to_string_pretty(&evaluation)?;
    fs::write(folder.join("evaluation.json"), json + "\n")?;
    fs::write(folder.join("evaluation.md"), report::page(&evaluation))?;
    fs::write(folder.join("evaluation.svg"), report::svg(&evaluation))?;
    let text = report::readme(&fs::read_to_string(readme)?, &evaluation)?;
    fs::write(readme, text)?;
    Ok(())
}
