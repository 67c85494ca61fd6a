//! What `docs/` says of the code is in the code: every limit of `docs/security.md` with its value,
//! and of every duty of `docs/rfc7296.md` the item that does it and the test that shows it.

#![allow(
    clippy::disallowed_methods,
    clippy::panic,
    reason = "the files of the repository are what is tested"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Rows that the table of duties has at least; fewer means that the parser lost some.
const DUTIES_LEAST: usize = 120;
/// The same for limits.
const LIMITS_LEAST: usize = 30;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn text(path: &str) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rows of a document's tables, without heads and rules, by the heads' first cell.
fn rows(document: &str, head: &str) -> Vec<Vec<String>> {
    let mut inside = false;
    let mut rows = Vec::new();
    for line in text(document).lines() {
        let Some(row) = line
            .strip_prefix("| ")
            .and_then(|row| row.strip_suffix('|'))
        else {
            inside &= line.starts_with('|');
            continue;
        };
        let cells: Vec<String> = row.split(" | ").map(|cell| cell.trim().into()).collect();
        if cells[0] == head {
            inside = true;
        } else if inside {
            rows.push(cells);
        }
    }
    rows
}

/// The parts of a cell that are set in code.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Short names of folders in the table of duties.
fn expanded(path: &str) -> String {
    for (short, long) in [
        ("ike/", "crates/controller/src/ike/"),
        ("wire/", "crates/ike-wire/"),
        ("tunnel/", "crates/controller/src/tunnel/"),
        ("world/", "crates/simulator/tests/world/"),
        ("kernel/", "integration/tests/"),
    ] {
        if let Some(rest) = path.strip_prefix(short) {
            return format!("{long}{rest}");
        }
    }
    path.to_owned()
}

/// Whether a source text defines this item.
fn defines(source: &str, item: &str) -> bool {
    let name = item.rsplit("::").next().unwrap_or(item);
    let owner = item.rsplit_once("::").map(|(owner, _)| owner);
    let kinds = ["fn", "struct", "enum", "const", "type", "trait", "static"];
    let is_end = |text: &str| !text.starts_with(|it: char| it.is_alphanumeric() || it == '_');
    let defined = kinds.iter().any(|kind| {
        let wanted = format!("{kind} {name}");
        source
            .match_indices(&wanted)
            .any(|(at, _)| is_end(&source[at + wanted.len()..]))
    });
    // An enum's variant or a struct's field is no item of its own.
    let member = owner.is_some() && (source.contains(&format!("    {name}")) || defined);
    let owner = owner.is_none_or(|owner| source.contains(owner));
    owner && (defined || member)
}

#[test]
fn every_duty_of_rfc_7296_names_code_and_a_test_that_exist() {
    let mut sources: BTreeMap<String, String> = BTreeMap::new();
    let mut wrong = Vec::new();
    let rows = rows("docs/rfc7296.md", "§");
    for cells in &rows {
        let [section, duty, code, test] = cells.as_slice() else {
            wrong.push(format!("not four cells: {cells:?}"));
            continue;
        };
        if code.starts_with("Not done") {
            if code.len() < 20 {
                wrong.push(format!("§{section} {duty}: no reason is given"));
            }
            continue;
        }
        for (cell, kind) in [(code, "code"), (test, "test")] {
            let parts = quoted(cell);
            let [file, items @ ..] = parts.as_slice() else {
                wrong.push(format!("§{section} {duty}: no {kind}"));
                continue;
            };
            let file = expanded(file);
            if items.is_empty() || !root().join(&file).is_file() {
                wrong.push(format!("§{section} {duty}: {kind} {file}"));
                continue;
            }
            let source = sources.entry(file.clone()).or_insert_with(|| text(&file));
            for item in items {
                let found = match kind {
                    "test" => source.contains(&format!("fn {item}(")),
                    _ => defines(source, item),
                } || (kind == "test" && source.contains(&format!("    {item}:")));
                if !found {
                    wrong.push(format!("§{section} {duty}: no {item} in {file}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(rows.len() >= DUTIES_LEAST, "{} rows", rows.len());
}

/// The value of a constant or of a field's default, as the document writes it: a number, or a
/// duration in seconds or milliseconds.
fn value(source: &str, name: &str) -> Option<String> {
    let constant = format!("const {name}: ");
    let field = format!(" {name}: ");
    let constants = source
        .match_indices(&constant)
        .filter_map(|(at, _)| source[at..].split_once(" = "))
        .map(|(_, rest)| rest);
    let fields = source
        .match_indices(&field)
        .map(|(at, _)| &source[at + field.len()..]);
    constants
        .chain(fields)
        .find_map(|rest| computed(rest.split([';', ',', '\n']).next()?.trim()))
}

fn computed(expression: &str) -> Option<String> {
    let argument = |function: &str| {
        let rest = expression.strip_prefix(function)?;
        rest.strip_suffix(')')
    };
    if let Some(seconds) = argument("Duration::from_secs(") {
        return Some(format!("{} s", number(seconds)?));
    }
    if let Some(milliseconds) = argument("Duration::from_millis(") {
        return Some(format!("{} ms", number(milliseconds)?));
    }
    number(expression).map(|number| number.to_string())
}

fn number(expression: &str) -> Option<u64> {
    if let Some((left, right)) = expression.split_once(" << ") {
        return Some(number(left)? << number(right)?);
    }
    if let Some((left, right)) = expression.split_once(" * ") {
        return Some(number(left)? * number(right)?);
    }
    expression.trim().replace('_', "").parse().ok()
}

#[test]
fn every_limit_that_is_documented_has_that_value_in_the_code() {
    let mut wrong = Vec::new();
    let rows = rows("docs/security.md", "what a peer can make us keep or do");
    for cells in &rows {
        let [what, said, name, file] = cells.as_slice() else {
            wrong.push(format!("not four cells: {cells:?}"));
            continue;
        };
        let name = name.trim_matches('`');
        let file = file.trim_matches('`');
        // Digits in groups of three, and a unit that is for people unless it is one of time.
        let said = said.replace(',', "");
        let mut words = said.split(' ');
        let (digits, unit) = (words.next().unwrap_or_default(), words.next());
        let said = match unit {
            Some(unit @ ("s" | "ms")) => format!("{digits} {unit}"),
            Some(_) | None => digits.to_owned(),
        };
        match value(&text(file), name) {
            Some(value) if value == said => {}
            Some(value) => wrong.push(format!("{what}: {name} is {value}, not {said}")),
            None => wrong.push(format!("{what}: no {name} in {file}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(rows.len() >= LIMITS_LEAST, "{} rows", rows.len());
}
