//! Plays the cells of the interoperation table and writes the table. `scripts/interop` calls it.
//!
//! ```text
//! interop list [FILTER…]             the cells: peer, epochgate's role, row
//! interop run PEER ROLE ROW          plays one; its last line is the result, in JSON
//! interop share K/N [FILTER…]        plays the K-th of N shares, each cell in a process of its
//!                                    own; prints a line of JSON for each
//! interop report JSON MD < LINES     puts results into the table, in the place of former ones
//! ```
//!
//! A FILTER is the beginning of a peer's name or of a row's, or a role. Of several of one kind any
//! may match, and one of each kind must.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "its output is what it is for"
)]

mod report;

use epochgate_integration::interop::{Cell, Outcome, Program, ROWS, Role};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::panic::{self, AssertUnwindSafe};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// How long a cell may take on a slow machine, before it counts as stuck.
const CELL_LIMIT: Duration = Duration::from_secs(150);
const POLL: Duration = Duration::from_millis(50);
/// What of a failure is told in the table.
const REASON_CHARS: usize = 240;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["list", filters @ ..] => cells(filters).map(|cells| {
            for cell in cells {
                println!("{} {} {}", cell.program.name(), cell.ours.name(), cell.row);
            }
        }),
        ["run", program, role, row] => run(program, role, row),
        ["share", share, filters @ ..] => share_of(share, filters),
        ["report", json, markdown] => report::write(json.as_ref(), markdown.as_ref()),
        _ => Err("see the documentation of this program".to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("interop: {error}");
            ExitCode::FAILURE
        }
    }
}

/// All cells that the filters let through, in the order of the table.
fn cells(filters: &[&str]) -> Result<Vec<Cell>, String> {
    let is_program = |word: &&&str| Program::ALL.iter().any(|it| it.name().starts_with(**word));
    let is_role = |word: &&&str| Role::ALL.iter().any(|it| it.name() == **word);
    let is_row = |word: &&&str| ROWS.iter().any(|it| it.name.starts_with(**word));
    let programs: Vec<_> = filters.iter().filter(is_program).collect();
    let roles: Vec<_> = filters.iter().filter(is_role).collect();
    let rows: Vec<_> = filters.iter().filter(is_row).collect();
    let known = |word: &&&str| is_program(word) || is_role(word) || is_row(word);
    if let Some(unknown) = filters.iter().find(|word| !known(word)) {
        return Err(format!("no peer, role or row begins with {unknown}"));
    }
    let matches = |words: &[&&str], name: &str| {
        words.is_empty() || words.iter().any(|word| name.starts_with(**word))
    };
    let mut cells = Vec::new();
    for program in Program::ALL {
        for row in ROWS {
            for ours in Role::ALL {
                if matches(&programs, program.name())
                    && matches(&roles, ours.name())
                    && matches(&rows, row.name)
                {
                    cells.push(Cell {
                        program,
                        ours,
                        row: row.name,
                    });
                }
            }
        }
    }
    Ok(cells)
}

/// Plays one cell in this process.
fn run(program: &str, role: &str, row: &str) -> Result<(), String> {
    let cell = cells(&[])?
        .into_iter()
        .find(|it| it.program.name() == program && it.ours.name() == role && it.row == row)
        .ok_or("there is no such cell")?;
    static MESSAGE: Mutex<Option<String>> = Mutex::new(None);
    panic::set_hook(Box::new(|info| {
        eprintln!("{info}");
        let text = info.payload();
        let message = text
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| text.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        if let Ok(mut first) = MESSAGE.lock() {
            first.get_or_insert(message.unwrap_or_default());
        }
    }));
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| cell.play()));
    let mut line = head(cell);
    match outcome {
        Ok(Outcome::Passed(counts)) => {
            line["verdict"] = json!("pass");
            line["version"] = json!(counts.version);
            for (name, tally) in [("ours", counts.ours), ("peers", counts.peers)] {
                line["packets"][name] = json!({ "sent": tally.sent, "lost": tally.lost });
            }
            if let Some(note) = counts.note {
                line["note"] = json!(note);
            }
        }
        Ok(Outcome::NotTried(reason)) => {
            line["verdict"] = json!("not tried");
            line["reason"] = json!(reason);
        }
        Err(_) => {
            let message = MESSAGE.lock().ok().and_then(|mut it| it.take());
            line["verdict"] = json!("fail");
            line["reason"] = json!(short(&message.unwrap_or_default()));
        }
    }
    println!("{line}");
    Ok(())
}

/// What a result begins with.
fn head(cell: Cell) -> Value {
    json!({ "peer": cell.program.name(), "ours": cell.ours.name(), "row": cell.row })
}

/// The first line of a message, if need be shortened.
fn short(message: &str) -> String {
    let line = message.trim().lines().next().unwrap_or_default();
    line.chars().take(REASON_CHARS).collect()
}

/// Plays each N-th cell, in a process of its own, so that nothing is left of one when the next
/// begins.
fn share_of(share: &str, filters: &[&str]) -> Result<(), String> {
    let numbers = share.split_once('/').ok_or("a share is K/N")?;
    let number = |text: &str| text.parse::<usize>().map_err(|_| "a share is K/N");
    let (part, parts) = (number(numbers.0)?, number(numbers.1)?);
    for (index, cell) in cells(filters)?.into_iter().enumerate() {
        if index % parts + 1 != part {
            continue;
        }
        let began = Instant::now();
        let result = in_own_process(cell).unwrap_or_else(|reason| {
            let mut line = head(cell);
            line["verdict"] = json!("fail");
            line["reason"] = json!(reason);
            line
        });
        println!("{result}");
        let _ = std::io::stdout().flush();
        eprintln!(
            "{:10} {:5.1} s  {} {} {}  {}",
            result["verdict"].as_str().unwrap_or_default(),
            began.elapsed().as_secs_f64(),
            cell.program.name(),
            cell.ours.name(),
            cell.row,
            result["reason"].as_str().unwrap_or_default(),
        );
    }
    Ok(())
}

fn in_own_process(cell: Cell) -> Result<Value, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let arguments = ["run", cell.program.name(), cell.ours.name(), cell.row];
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut output = child.stdout.take().ok_or("no output")?;
    let reader = thread::spawn(move || {
        let mut text = String::new();
        let _ = output.read_to_string(&mut text);
        text
    });
    let began = Instant::now();
    while !reader.is_finished() {
        if began.elapsed() > CELL_LIMIT {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("it did not end within {CELL_LIMIT:?}"));
        }
        thread::sleep(POLL);
    }
    let _ = child.wait();
    let text = reader.join().map_err(|_| "no output")?;
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).map_err(|_| "it ended without a result".to_owned())
}
