//! The half of the evaluation that runs on a real kernel: an office of real daemons behind the lab's
//! forwarding NAT, one fault, and then some time to see what becomes of its tunnels.
//! `scripts/evaluate` calls it.
//!
//! ```text
//! evaluate run FAULT CONTENDER SECONDS NUMBER   plays one; its last line is the run, in JSON
//! evaluate share K/N SECONDS TIMES              plays the K-th of N shares of everything, so many
//!                                               times, each run in a process of its own; prints a
//!                                               line of JSON for each, also for one that failed
//! ```
//!
//! A line of JSON is what `epochgate_evaluate::Run` reads. The daemon without a gate is taken from
//! the folder that `EPOCHGATE_UNGATED_DIR` names.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "its output is what it is for"
)]

mod cell;
mod contender;
mod measure;

use cell::{Cell, Fault};
use contender::Contender;
use serde_json::json;
use std::io::Write;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Time that a run may take beside what it watches.
const BESIDE: Duration = Duration::from_secs(240);

/// How often is looked whether a run has ended.
const POLL: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["run", fault, contender, seconds, number] => run(fault, contender, seconds, number),
        ["share", share, seconds, times] => share_of(share, seconds, times),
        _ => Err("see the documentation of this program".to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("evaluate: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What there is to play. strongSwan cannot do without NAT-T behind a NAT, so VPN Masquerade has
/// nothing to guess about it.
fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for fault in Fault::ALL {
        for contender in Contender::ALL {
            if contender != Contender::StrongSwan || fault == Fault::MappingChange {
                cells.push(Cell { fault, contender });
            }
        }
    }
    cells
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.parse().map_err(|_| "SECONDS is a whole number")?;
    Ok(Duration::from_secs(number))
}

fn run(fault: &str, contender: &str, watched: &str, number: &str) -> Result<(), String> {
    let cell = cells()
        .into_iter()
        .find(|cell| cell.fault.name() == fault && cell.contender.name() == contender)
        .ok_or("there is no such run")?;
    let number = number.parse().map_err(|_| "NUMBER is a whole number")?;
    println!("{}", cell.play(seconds(watched)?, number));
    Ok(())
}

fn share_of(share: &str, watched: &str, times: &str) -> Result<(), String> {
    let (part, parts) = share.split_once('/').ok_or("a share is K/N")?;
    let number = |text: &str| text.parse::<usize>().map_err(|_| "a share is K/N");
    let (part, parts) = (number(part)?, number(parts)?);
    let times: u64 = times.parse().map_err(|_| "TIMES is a whole number")?;
    let runs = (1..=times).flat_map(|number| cells().into_iter().map(move |cell| (cell, number)));
    for (index, (cell, number)) in runs.enumerate() {
        if index % parts + 1 != part {
            continue;
        }
        let began = Instant::now();
        let result = in_own_process(cell, watched, number);
        let took = began.elapsed().as_secs_f64();
        match result {
            Ok(line) => {
                println!("{line}");
                eprintln!("{took:5.1} s  {}, {number}", cell.title());
            }
            Err(reason) => {
                println!("{}", json!({"not_tried": cell.title(), "why": reason}));
                eprintln!("{took:5.1} s  {}, {number}: {reason}", cell.title());
            }
        }
        let _ = std::io::stdout().flush();
    }
    Ok(())
}

fn in_own_process(cell: Cell, watched: &str, number: u64) -> Result<String, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let number = number.to_string();
    let arguments = [
        "run",
        cell.fault.name(),
        cell.contender.name(),
        watched,
        &number,
    ];
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let limit = BESIDE + seconds(watched)?;
    let began = Instant::now();
    // A run's output is one line, which a pipe holds.
    while child
        .try_wait()
        .map_err(|error| error.to_string())?
        .is_none()
    {
        if began.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("it did not end within {limit:?}"));
        }
        std::thread::sleep(POLL);
    }
    let output = child
        .wait_with_output()
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match text.lines().last() {
        Some(line) if output.status.success() => Ok(line.to_owned()),
        Some(_) | None => Err(format!("it ended without a result, {}", output.status)),
    }
}
