//! Every block of README.md and docs/*.md says what it is, and every command in them can be typed:
//! `bash -n` reads it, and the command lines of epochgate and epochgated take it. Whether it does what
//! is shown is for `documents.rs` to find out, on a real kernel.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use clap::Parser;
use clap::error::ErrorKind;
use epochgate_integration::documents::page::documents;
use epochgate_integration::documents::{Kind, NOT_RUN, Scenario, not_run};
use epochgate_integration::manual::sample;

/// Each command, where it is, and its scenario.
fn commands() -> Vec<(String, String, String)> {
    let mut commands = Vec::new();
    for document in documents().expect("every block says what it is") {
        for block in &document.blocks {
            let Kind::Console { scenario, .. } = &block.kind else {
                continue;
            };
            for command in block.commands().expect("commands") {
                let place = format!("{}:{}", document.name(), command.output);
                commands.push((place, scenario.clone(), command.text));
            }
        }
    }
    commands
}

/// The words of each program that a command starts, as far as blanks part them.
fn programs(text: &str) -> Vec<Vec<String>> {
    let joined = text.replace("\\\n", " ");
    let parts = joined.split(['|', ';', '\n']).flat_map(|it| it.split("&&"));
    parts
        .map(|part| {
            let words = part.split_whitespace();
            let words = words.take_while(|word| !word.starts_with(['>', '<', '#']));
            words
                .map(|word| word.trim_matches(['\'', '"']).to_owned())
                .collect()
        })
        .collect()
}

#[test]
fn every_block_of_commands_has_a_scenario_that_there_is() {
    let commands = commands();
    assert!(commands.len() > 10, "{}", commands.len());
    for (place, scenario, text) in commands {
        let known = Scenario::named(&scenario);
        assert!(known.is_some(), "{place}: there is no scenario {scenario}");
        if known == Some(Scenario::Elsewhere) {
            assert!(
                not_run(&text).is_some(),
                "{place}: `{text}` could be run: give it a scenario, or a reason in NOT_RUN"
            );
        }
    }
}

#[test]
fn every_file_of_a_story_has_commands_that_need_it() {
    for document in documents().expect("the documents") {
        let stories: BTreeSet<&str> = document
            .blocks
            .iter()
            .filter_map(|block| match &block.kind {
                Kind::Console { scenario, .. } => Some(scenario.as_str()),
                Kind::File { .. } | Kind::Example => None,
            })
            .collect();
        for block in &document.blocks {
            if let Kind::File { scenario, path, .. } = &block.kind {
                let name = document.name();
                assert!(stories.contains(scenario.as_str()), "{name}: {path}");
            }
        }
    }
}

#[test]
fn bash_reads_every_command() {
    for (place, _, text) in commands() {
        let status = Command::new("bash")
            .args(["-n", "-c", &text])
            .stderr(Stdio::null())
            .status()
            .expect("bash");
        assert!(status.success(), "{place}: {text}");
    }
}

#[test]
fn the_command_lines_take_every_command_of_ours() {
    let mut taken = 0;
    for (place, _, text) in commands() {
        for words in programs(&text) {
            let refusal = match words.first().map(String::as_str) {
                Some("epochgate") => epochgate::cli::Arguments::try_parse_from(&words).err(),
                Some("epochgated") => epochgated::cli::Arguments::try_parse_from(&words).err(),
                _ => continue,
            };
            taken += 1;
            if let Some(refusal) = refusal {
                // What ends with a text, such as --help, is no mistake.
                assert!(!refusal.use_stderr(), "{place}: {refusal}");
            }
        }
    }
    assert!(taken > 5, "{taken}");
}

#[test]
fn the_command_lines_take_every_command_that_is_named_in_a_sentence() {
    let mut taken = 0;
    for document in documents().expect("the documents") {
        let mut inside = false;
        for line in &document.lines {
            inside ^= line.starts_with("```");
            if inside {
                continue;
            }
            let spans = line.split('`').skip(1).step_by(2);
            // Something is left out there.
            for named in spans.filter(|span| !span.contains('…')) {
                let words: Vec<&str> = named.split_whitespace().collect();
                let refusal = match words.as_slice() {
                    ["epochgate", _, ..] => epochgate::cli::Arguments::try_parse_from(&words).err(),
                    ["epochgated", option, ..] if option.starts_with("--") => {
                        epochgated::cli::Arguments::try_parse_from(&words).err()
                    }
                    _ => continue,
                };
                taken += 1;
                // A sentence may name a command without what it is about.
                let is_mistake = refusal.as_ref().is_some_and(|refusal| {
                    refusal.use_stderr()
                        && !matches!(
                            refusal.kind(),
                            ErrorKind::MissingRequiredArgument
                                | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                        )
                });
                let name = document.name();
                assert!(!is_mistake, "{name}: `{named}`: {refusal:?}");
            }
        }
    }
    assert!(taken > 10, "{taken}");
}

#[test]
fn what_is_not_run_has_a_reason_and_a_use() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let commands = commands();
    for (begin, why) in NOT_RUN {
        assert!(!why.is_empty());
        let used = commands.iter().any(|(_, _, text)| text.starts_with(begin));
        assert!(used, "no document says `{begin}`: it needs no reason");
    }
    for (place, _, text) in &commands {
        let script = text.split_whitespace().next().unwrap_or_default();
        if script.starts_with("scripts/") {
            assert!(root.join(script).is_file(), "{place}: {script}");
        }
    }
}

/// A document's tables: the heads of the columns and the rows, each a list of cells.
fn tables(lines: &[String]) -> Vec<(Vec<String>, Vec<Vec<String>>)> {
    let mut tables: Vec<(Vec<String>, Vec<Vec<String>>)> = Vec::new();
    let mut inside = false;
    for line in lines {
        let row = line.strip_prefix('|').and_then(|row| row.strip_suffix('|'));
        let cells: Option<Vec<String>> =
            row.map(|row| row.split('|').map(|cell| cell.trim().to_owned()).collect());
        match (cells, inside) {
            (None, _) => inside = false,
            (Some(head), false) => {
                tables.push((head, Vec::new()));
                inside = true;
            }
            (Some(cells), true) => {
                if let Some((_, rows)) = tables.last_mut()
                    && !cells
                        .iter()
                        .all(|cell| cell.trim_matches(['-', ':']).is_empty())
                {
                    rows.push(cells);
                }
            }
        }
    }
    tables
}

/// The sources of everything that speaks to an operator, with each text on one line.
fn sources() -> String {
    fn collect(folder: &Path, sources: &mut String) {
        for entry in fs::read_dir(folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                collect(&path, sources);
            } else if path.extension().is_some_and(|it| it == "rs") {
                sources.push_str(&fs::read_to_string(&path).expect("a source"));
            }
        }
    }
    let mut sources = String::new();
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
    for name in [
        "config",
        "controller",
        "epochgate",
        "epochgated",
        "pki",
        "xfrm",
    ] {
        collect(&crates.join(name).join("src"), &mut sources);
    }
    // A text that goes on in the next line of its source.
    let mut parts = sources.split("\\\n");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |whole, part| whole + part.trim_start())
}

#[test]
fn what_a_document_says_that_is_said_is_in_the_code() {
    let sources = sources();
    let mut found = 0;
    for document in documents().expect("the documents") {
        for (head, rows) in tables(&document.lines) {
            let is_speech = |head: &String| {
                head == "why" || head.split(' ').any(|word| word == "said" || word == "says")
            };
            let Some(column) = head.iter().position(is_speech) else {
                continue;
            };
            for cell in rows.iter().filter_map(|row| row.get(column)) {
                for quoted in cell.split('`').skip(1).step_by(2) {
                    for part in quoted.split('…').filter(|part| part.contains(' ')) {
                        let name = document.name();
                        assert!(
                            sources.contains(part.trim()),
                            "{name}: nobody says `{part}`"
                        );
                        found += 1;
                    }
                }
            }
        }
    }
    assert!(found > 30, "{found}");
}

/// What a heading is linked by.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    let lower = heading.to_lowercase();
    lower
        .trim()
        .chars()
        .filter(kept)
        .collect::<String>()
        .replace(' ', "-")
}

/// The anchors of a page, but for what is in its blocks.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut inside = false;
    let mut anchors = BTreeSet::new();
    for line in text.lines() {
        inside ^= line.starts_with("```");
        if !inside && line.starts_with('#') {
            anchors.insert(anchor(line.trim_start_matches('#')));
        }
    }
    anchors
}

#[test]
fn every_link_inside_the_repository_leads_somewhere() {
    let mut followed = 0;
    for document in documents().expect("the documents") {
        let folder = document.path.parent().unwrap_or(Path::new("."));
        let text = document.lines.join("\n");
        for target in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            if target.contains("://") {
                continue;
            }
            let (file, section) = target.split_once('#').unwrap_or((target, ""));
            let path = match file {
                "" => document.path.clone(),
                file => folder.join(file),
            };
            let place = format!("{}: {target}", document.name());
            assert!(path.exists(), "{place}");
            if !section.is_empty() {
                let page = fs::read_to_string(&path).expect("a page");
                assert!(anchors(&page).contains(section), "{place}");
            }
            followed += 1;
        }
    }
    assert!(followed > 40, "{followed}");
}

#[test]
fn the_readmes_first_tunnel_is_the_tested_one() {
    let mut files = Vec::new();
    for document in documents().expect("the documents") {
        for block in document.blocks {
            if let Kind::File { path, .. } = block.kind {
                files.push((path, block.lines.join("\n") + "\n"));
            }
        }
    }
    for (path, name) in [
        ("/etc/epochgate/epochgate.toml", "epochgate-client"),
        ("/etc/swanctl/conf.d/branch.conf", "swanctl-server"),
    ] {
        let file = files.iter().find(|(it, _)| it == path);
        assert_eq!(
            file.map(|(_, text)| text.as_str()),
            Some(sample(name).as_str()),
            "{path}"
        );
    }
}
