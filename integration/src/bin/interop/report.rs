//! Writes the table, for programs and for people, from lines of results. Results of former runs
//! stay where there is no new one.

use epochgate_integration::interop::{Program, ROWS, Role};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead};
use std::path::Path;

type Key = (String, String, String);

/// Reads results from standard input, and writes both files.
pub(crate) fn write(json_path: &Path, markdown_path: &Path) -> Result<(), String> {
    let told = |error: &dyn std::fmt::Display| error.to_string();
    let mut kernel = Value::Null;
    let mut results = BTreeMap::<Key, Value>::new();
    if let Ok(text) = fs::read_to_string(json_path) {
        let former: Value = serde_json::from_str(&text).map_err(|error| told(&error))?;
        kernel = former["kernel"].clone();
        for result in former["cells"].as_array().into_iter().flatten() {
            results.insert(key(result), result.clone());
        }
    }
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|error| told(&error))?;
        let mut result: Value =
            serde_json::from_str(&line).map_err(|error| format!("{line}: {error}"))?;
        if let Some(release) = result.as_object_mut().and_then(|it| it.remove("kernel")) {
            kernel = release;
            continue;
        }
        results.insert(key(&result), result);
    }
    let versions = versions(&results);
    let mut cells = Vec::new();
    for program in Program::ALL {
        for row in ROWS {
            for role in Role::ALL {
                let key = [program.name(), role.name(), row.name].map(str::to_owned);
                if let Some(result) = results.get(&key.into()) {
                    cells.push(result.clone());
                }
            }
        }
    }
    // A line for each cell, so that a difference shows what has changed.
    let lines: Vec<String> = cells.iter().map(|cell| format!("    {cell}")).collect();
    let versions_json = json!(versions);
    let text = format!(
        "{{\n  \"kernel\": {kernel},\n  \"peers\": {versions_json},\n  \"cells\": [\n{}\n  ]\n}}\n",
        lines.join(",\n")
    );
    fs::write(json_path, text).map_err(|error| told(&error))?;
    fs::write(markdown_path, markdown(&kernel, &versions, &results)).map_err(|error| told(&error))
}

fn key(result: &Value) -> Key {
    let word = |name: &str| result[name].as_str().unwrap_or_default().to_owned();
    (word("peer"), word("ours"), word("row"))
}

/// What each peer said of itself.
fn versions(results: &BTreeMap<Key, Value>) -> BTreeMap<String, String> {
    let said = results.iter().filter_map(|((peer, _, _), result)| {
        Some((peer.clone(), result["version"].as_str()?.to_owned()))
    });
    said.collect()
}

const HEAD: &str = "# Interoperation

What epochgate does with other IKEv2 daemons, on a real kernel with real packets. `scripts/interop`
plays every cell and writes this page and [interop.json](interop.json).

*client* and *server* is what epochgate is. A cell that passed: the story in its row ended as it
should, and in all packets at epochgate's end nothing of the protected traffic was in clear and
nothing of epochgate's left on an epoch that was not proven. The numbers are datagrams of 64 octets,
50 a second in each direction: lost of sent, epochgate's and the peer's. epochgate may lose none
anywhere but where the row says so; a peer that holds nothing loses what it sends while the tunnel
is down. How many are sent depends on how fast the machine is.

";

fn markdown(
    kernel: &Value,
    versions: &BTreeMap<String, String>,
    results: &BTreeMap<Key, Value>,
) -> String {
    let mut text = HEAD.to_owned();
    let shown = |program: &Program| {
        versions
            .get(program.name())
            .map_or(program.name(), String::as_str)
    };
    let kernel = kernel.as_str().unwrap_or("unknown");
    let _ = writeln!(text, "Kernel {kernel}. Peers: Debian's packages.\n");
    text += "| | ";
    for program in &Program::ALL {
        for role in Role::ALL {
            let _ = write!(text, "{}, {} | ", shown(program), role.name());
        }
    }
    text.truncate(text.trim_end().len());
    text += "\n|---|";
    text += &"---|".repeat(Program::ALL.len() * Role::ALL.len());
    text.push('\n');
    let mut notes = Vec::<String>::new();
    for row in ROWS {
        let _ = write!(text, "| {} | ", row.title);
        for program in Program::ALL {
            for role in Role::ALL {
                let key = [program.name(), role.name(), row.name].map(str::to_owned);
                let shown = results.get(&key.into()).map(|it| cell(it, &mut notes));
                let _ = write!(text, "{} | ", shown.unwrap_or_else(|| "–".to_owned()));
            }
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    if !notes.is_empty() {
        text.push('\n');
        for (number, note) in notes.iter().enumerate() {
            let _ = writeln!(text, "{}. {note}", number + 1);
        }
    }
    text
}

/// A cell of the table; what it has to say goes below the table.
fn cell(result: &Value, notes: &mut Vec<String>) -> String {
    let verdict = result["verdict"].as_str().unwrap_or("fail");
    let mut text = match verdict {
        "pass" => {
            let count = |whose: &str| {
                let tally = &result["packets"][whose];
                format!("{}/{}", tally["lost"], tally["sent"])
            };
            format!("pass {}, {}", count("ours"), count("peers"))
        }
        "fail" => "**fail**".to_owned(),
        other => other.to_owned(),
    };
    let said = result["reason"].as_str().or(result["note"].as_str());
    if let Some(said) = said {
        let said = said.replace('|', "\\|");
        let number = notes
            .iter()
            .position(|known| *known == said)
            .unwrap_or_else(|| {
                notes.push(said);
                notes.len() - 1
            });
        let _ = write!(text, " ({})", number + 1);
    }
    text
}
