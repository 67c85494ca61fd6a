//! The man pages and completions as a user meets them. What needs a program that is not installed
//! here (mandoc, man, zsh, fish) says so, and is looked at where `scripts/setup` has installed it.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use clap::Parser;
use epochgate_manual::{FILE_FORMATS, Page, command_line, daemon, pages};

/// What a program prints, if there is such a program.
fn run(program: &str, arguments: &[&str], folder: &Path) -> Option<Output> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .env("MANWIDTH", "80")
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .output();
    if output.is_err() {
        println!("there is no {program} here: not looked at");
    }
    output.ok()
}

fn written() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    epochgate_manual::write(directory.path()).expect("written");
    directory
}

fn names(command: &clap::Command, into: &mut Vec<String>) {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    into.push(name.replace(' ', "-"));
    for below in command.get_subcommands().filter(|it| !it.is_hide_set()) {
        names(below, into);
    }
}

fn is_of_command(page: &Page) -> bool {
    page.section != FILE_FORMATS
}

/// A section's text.
fn section<'p>(page: &'p Page, title: &str) -> &'p str {
    let heading = |title: &str| format!("\n.SH {title}\n");
    let quoted = heading(&format!("\"{title}\""));
    let after = page
        .text
        .split_once(&heading(title))
        .or_else(|| page.text.split_once(&quoted));
    let after = after.map_or("", |(_, after)| after);
    after.split("\n.SH ").next().unwrap_or_default()
}

#[test]
fn every_command_has_a_page_with_the_sections_that_a_reader_looks_for() {
    let mut expected = Vec::new();
    names(&command_line(), &mut expected);
    names(&daemon(), &mut expected);
    expected.push("epochgate.toml".to_owned());
    assert!(expected.len() > 6, "{expected:?}");
    let pages = pages();
    let found: Vec<_> = pages.iter().map(|page| page.name.clone()).collect();
    assert_eq!(found, expected);
    for page in pages.iter().filter(|page| is_of_command(page)) {
        for title in [
            "NAME",
            "SYNOPSIS",
            "DESCRIPTION",
            "OPTIONS",
            "EXIT STATUS",
            "ENVIRONMENT",
            "FILES",
            "EXAMPLES",
            "SEE ALSO",
        ] {
            let text = section(page, title);
            assert!(!text.trim().is_empty(), "{} has no {title}", page.name);
        }
    }
    let daemon = pages.iter().find(|page| page.name == "epochgated");
    let signals = section(daemon.expect("its page"), "SIGNALS");
    assert!(signals.contains("SIGHUP") && signals.contains("SIGTERM"));
}

#[test]
fn every_example_can_be_typed() {
    for page in pages().into_iter().filter(is_of_command) {
        let lines: Vec<_> = section(&page, "EXAMPLES")
            .lines()
            .filter_map(|line| line.strip_prefix("\\fB$ ")?.strip_suffix("\\fR"))
            .map(|line| line.replace('\\', ""))
            .collect();
        assert!(!lines.is_empty(), "{} shows no example", page.name);
        for line in lines {
            // What goes to another program is that program's.
            let line = line.split(" | ").next().unwrap_or_default();
            let words = line.strip_prefix("sudo ").unwrap_or(line).split(' ');
            let parsed = match page.name.as_str() {
                "epochgated" => epochgated::cli::Arguments::try_parse_from(words).map(|_| ()),
                _ => epochgate::cli::Arguments::try_parse_from(words).map(|_| ()),
            };
            assert!(parsed.is_ok(), "{}: {line}: {parsed:?}", page.name);
            let named = line.replace(' ', "-");
            assert!(named.contains(&page.name), "{} shows {line}", page.name);
        }
    }
}

#[test]
fn man_shows_every_page_without_a_warning() {
    let directory = written();
    for page in pages() {
        let file = format!("man/man{}/{}", page.section, page.file_name());
        let Some(output) = run(
            "man",
            &["--warnings", "-P", "cat", "-l", &file],
            directory.path(),
        ) else {
            return;
        };
        let warnings = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && warnings.is_empty(),
            "{file}: {warnings}"
        );
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(shown.contains("SEE ALSO"), "{file}: {shown}");
    }
}

#[test]
fn mandoc_finds_no_fault_in_a_page() {
    let directory = written();
    for page in pages() {
        let file = format!("man/man{}/{}", page.section, page.file_name());
        // A date would make each build another one; `man` shows the version instead.
        let Some(output) = run(
            "mandoc",
            &["-T", "lint", "-W", "warning", &file],
            directory.path(),
        ) else {
            return;
        };
        let faults: Vec<_> = String::from_utf8_lossy(&output.stdout)
            .lines()
            // How clap_mangen sets the values that an option may have.
            .filter(|line| !line.contains("missing date") && !line.contains("macro: br"))
            .map(str::to_owned)
            .collect();
        assert!(faults.is_empty(), "{faults:#?}");
    }
}

#[test]
fn bash_completes_commands_options_and_values() {
    let directory = written();
    let complete = |words: &str| {
        let script = format!(
            "source bash-completion/completions/epochgate\n\
             COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n\
             _epochgate epochgate \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"\n\
             printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let output = run("bash", &["-c", &script], directory.path()).expect("bash");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(complete("epochgate re").contains("rekey"));
    assert!(complete("epochgate re").contains("reload"));
    assert!(!complete("epochgate re").contains("status"));
    assert_eq!(complete("epochgate rekey --rea").trim(), "--reauthenticate");
}

#[test]
fn zsh_and_fish_can_read_their_completions() {
    let directory = written();
    for program in ["epochgate", "epochgated"] {
        let file = format!("zsh/vendor-completions/_{program}");
        if let Some(output) = run("zsh", &["-n", &file], directory.path()) {
            assert!(output.status.success(), "{output:?}");
        }
        let file = format!("fish/vendor_completions.d/{program}.fish");
        if let Some(output) = run("fish", &["--no-execute", &file], directory.path()) {
            assert!(output.status.success(), "{output:?}");
        }
    }
    let script = "source fish/vendor_completions.d/epochgate.fish; complete -C 'epochgate re'";
    if let Some(output) = run("fish", &["--no-config", "-c", script], directory.path()) {
        let offered = String::from_utf8_lossy(&output.stdout);
        assert!(
            offered.contains("rekey") && offered.contains("reload"),
            "{output:?}"
        );
    }
}
