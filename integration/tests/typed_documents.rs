//! What the documents say to type is typed, in a world prepared for it, and must do what they show:
//! README.md and docs/*.md. `UPDATE_GOLDEN=1 scripts/test kernel typed_documents` writes into them what was
//! printed instead, where it differs in more than numbers.
#![cfg(feature = "kernel")]

use std::collections::BTreeMap;
use std::fs;

use epochgate_integration::documents::page::documents;
use epochgate_integration::documents::{Document, Kind, Scenario, Stage, blanks, not_run};

/// The document with this file name.
#[track_caller]
fn document(name: &str) -> Document {
    let all = documents().expect("the documents");
    let found = all.into_iter().find(|document| document.name() == name);
    found.unwrap_or_else(|| unreachable!("there is no {name}"))
}

/// Runs every story of a document.
#[track_caller]
fn play(name: &str) {
    play_share(name, 0, 1);
}

/// Runs each `of`-th story of a document, from the `share`-th on.
#[track_caller]
fn play_share(name: &str, share: usize, of: usize) {
    let rewrites = std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value != "0");
    // Two shares may be played at once: one of them rewrites the whole document.
    let (share, of) = match (rewrites, share) {
        (false, share) => (share, of),
        (true, 0) => (0, 1),
        (true, _) => return,
    };
    let document = document(name);
    let mut stories: Vec<&str> = Vec::new();
    for block in &document.blocks {
        if let Kind::Console { scenario, .. } = &block.kind
            && !stories.contains(&scenario.as_str())
        {
            stories.push(scenario);
        }
    }
    let mut wrong: Vec<String> = Vec::new();
    let mut printed: BTreeMap<usize, (usize, Vec<String>)> = BTreeMap::new();
    let mut typed = 0;
    for story in stories.into_iter().skip(share).step_by(of) {
        typed += play_story(&document, story, &mut wrong, &mut printed);
    }
    println!("{name}: {typed} commands");
    if rewrites {
        rewrite(&document, printed);
    } else {
        wrong.extend(printed.into_iter().map(|(line, (shown, got))| {
            let shown = document.lines[line..line + shown].join("\n");
            format!(
                "{name}:{}: what is shown\n{shown}\nis not what was printed; UPDATE_GOLDEN=1 writes it \
                 into the document\n{}",
                line + 1,
                got.join("\n")
            )
        }));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(typed > 0, "{name} has no command that is run");
}

/// Runs one story; gives the number of its commands. `printed` gets what differs, by the line of the
/// document in which its output begins, with the number of lines that are shown now.
fn play_story(
    document: &Document,
    story: &str,
    wrong: &mut Vec<String>,
    printed: &mut BTreeMap<usize, (usize, Vec<String>)>,
) -> usize {
    let prepared = Scenario::named(story).expect("a scenario: see the test of blocks");
    if prepared == Scenario::Elsewhere {
        return 0;
    }
    let world = format!("{}-{}", document.name(), story.replace('/', "-"));
    let mut stage = Stage::new(&world, prepared);
    let mut typed = 0;
    for block in &document.blocks {
        match &block.kind {
            Kind::File {
                scenario,
                host,
                path,
            } if scenario == story => {
                stage.write(host, path, &(block.lines.join("\n") + "\n"));
            }
            Kind::Console {
                scenario,
                host,
                exit,
                stop,
            } if scenario == story => {
                for command in block.commands().expect("commands") {
                    if not_run(&command.text).is_some() {
                        continue;
                    }
                    typed += 1;
                    let outcome = stage.run(host, &command.text, *stop);
                    println!("{host}$ {}\n{}", command.text, outcome.text);
                    let wanted = stop.map_or(*exit, |_| 124);
                    if outcome.exit != wanted {
                        wrong.push(format!(
                            "{}:{}: `{}` ended with {} and not {wanted}:\n{}",
                            document.name(),
                            command.output,
                            command.text,
                            outcome.exit,
                            outcome.text
                        ));
                    }
                    let shown: Vec<&str> = command.shown.iter().map(String::as_str).collect();
                    let got: Vec<&str> = outcome.text.trim_end().lines().collect();
                    if !shown.is_empty() && !blanks::fits(&shown, &got) {
                        let got = got.iter().map(|line| line.trim_end().to_owned());
                        printed.insert(command.output, (shown.len(), got.collect()));
                    }
                }
            }
            Kind::File { .. } | Kind::Console { .. } | Kind::Example => {}
        }
    }
    typed
}

/// Puts what was printed into the document.
fn rewrite(document: &Document, printed: BTreeMap<usize, (usize, Vec<String>)>) {
    let mut lines = document.lines.clone();
    for (line, (shown, got)) in printed.into_iter().rev() {
        lines.splice(line..line + shown, got);
    }
    fs::write(&document.path, lines.join("\n") + "\n").expect("the document is written");
}

#[test]
fn the_readme_does_what_it_shows() {
    play("README.md");
}

#[test]
fn troubleshooting_shows_what_the_programs_say() {
    play_share("troubleshooting.md", 0, 2);
}

#[test]
fn troubleshooting_shows_the_other_half_of_what_the_programs_say() {
    play_share("troubleshooting.md", 1, 2);
}

#[test]
fn the_page_about_the_daemon_does_what_it_shows() {
    play("daemon.md");
}

#[test]
fn the_page_about_the_gate_does_what_it_shows() {
    play("gate.md");
}

#[test]
fn the_page_about_the_kernel_does_what_it_shows() {
    play("kernel.md");
}

#[test]
fn the_page_about_the_doctor_does_what_it_shows() {
    play("doctor.md");
}

#[test]
fn the_page_about_packages_does_what_it_shows() {
    play("packages.md");
}

#[test]
fn every_document_with_commands_is_played() {
    let this = include_str!("typed_documents.rs");
    for document in documents().expect("the documents") {
        let runs = document.blocks.iter().any(|block| match &block.kind {
            Kind::Console { scenario, .. } => {
                Scenario::named(scenario) != Some(Scenario::Elsewhere)
            }
            Kind::File { .. } | Kind::Example => false,
        });
        let name = document.name();
        let calls = [
            format!("play(\"{name}\");"),
            format!("play_share(\"{name}\", "),
        ];
        let is_played = calls.iter().any(|call| this.contains(call));
        assert_eq!(runs, is_played, "{name}");
    }
}
