//! One man page: what clap knows of a command, then what `sections` and `examples` add.

use std::path::Path;

use clap::Command;
use clap_mangen::Man;
use roff::{Inline, Roff, bold, italic, roman};

use crate::help::{Block, Entry};
use crate::{ADMINISTRATOR_COMMANDS, USER_COMMANDS, examples, help, sections};

/// A page of the manual.
#[derive(Clone, Debug)]
pub struct Page {
    /// What it is about, such as `epochgate-up`.
    pub name: String,
    /// The manual's section.
    pub section: u8,
    /// In the language of man(7).
    pub text: String,
}

/// The heading of what a program's exit status says, in the texts behind a command's help.
const EXIT_CODES: &str = "exit codes";

impl Page {
    /// The page of a command whose definition is built (`Command::build`).
    pub(crate) fn of(command: &Command, section: u8) -> Self {
        let name = name_of(command);
        let number = section.to_string();
        let mut text = title(&name, section).into_bytes();
        let man = Man::new(command.clone()).section(number);
        // Writing to memory never fails.
        let _ = man
            .render_name_section(&mut text)
            .and_then(|()| man.render_synopsis_section(&mut text))
            .and_then(|()| man.render_description_section(&mut text))
            .and_then(|()| man.render_options_section(&mut text));
        let mut roff = Roff::new();
        below(command, section, &mut roff);
        let blocks = inherited(command, section);
        for block in blocks.iter().filter(|it| !is_examples(it)) {
            described(&heading(&block.title), &block.entries, &mut roff);
        }
        if section == ADMINISTRATOR_COMMANDS {
            for (title, entries) in sections::DAEMON {
                described(title, &owned(entries), &mut roff);
            }
        }
        described("ENVIRONMENT", &environment(command, section), &mut roff);
        described("FILES", &files(), &mut roff);
        shown(command, &blocks, &mut roff);
        see_also(command, section, &mut roff);
        text.extend(roff.to_roff().into_bytes());
        Self {
            name,
            section,
            text: String::from_utf8_lossy(&text).into_owned(),
        }
    }

    /// As man(1) looks for it.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("{}.{}", self.name, self.section)
    }
}

/// A title without a date, so that the same source makes the same page. [`Man`]'s own one leaves the
/// empty date out, and the version takes its place.
pub(crate) fn title(name: &str, section: u8) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(".TH \"{name}\" \"{section}\" \"\" \"epochgate {version}\" \"epochgate\"\n")
}

/// `epochgate xfrm state` has its page at `epochgate-xfrm-state`.
fn name_of(command: &Command) -> String {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    name.replace(' ', "-")
}

/// The commands below this one.
fn below(command: &Command, section: u8, roff: &mut Roff) {
    let entries: Vec<Entry> = command
        .get_subcommands()
        .filter(|it| !it.is_hide_set())
        .map(|it| Entry {
            term: format!("{}({section})", name_of(it)),
            text: it.get_about().map(ToString::to_string).unwrap_or_default(),
        })
        .collect();
    described("COMMANDS", &entries, roff);
}

/// What stands behind the command's help; where that says nothing of the exit status, what stands
/// behind the whole program's.
fn inherited(command: &Command, section: u8) -> Vec<Block> {
    let mut blocks = help::blocks(command);
    let of_program = match section {
        USER_COMMANDS => help::blocks(&crate::command_line()),
        _ => Vec::new(),
    };
    if !blocks.iter().any(is_exit_codes) {
        blocks.extend(of_program.into_iter().filter(is_exit_codes));
    }
    blocks
}

fn is_exit_codes(block: &Block) -> bool {
    block.title.to_lowercase() == EXIT_CODES
}

fn is_examples(block: &Block) -> bool {
    block.title.to_lowercase() == help::EXAMPLES
}

/// A heading as man pages have it.
fn heading(title: &str) -> String {
    match title.to_lowercase().as_str() {
        EXIT_CODES => "EXIT STATUS".to_owned(),
        _ => title.to_uppercase(),
    }
}

/// A section of terms and what they mean; none without terms.
fn described(title: &str, entries: &[Entry], roff: &mut Roff) {
    if entries.is_empty() {
        return;
    }
    roff.control("SH", [title]);
    for Entry { term, text } in entries {
        if text.is_empty() {
            roff.control("PP", []);
            roff.text([roman(term)]);
        } else {
            roff.control("TP", []);
            roff.text([bold(term)]);
            roff.text([roman(text)]);
        }
    }
}

/// Variables that the definition names, and those that every command heeds.
fn environment(command: &Command, section: u8) -> Vec<Entry> {
    let named = command.get_arguments().filter_map(|argument| {
        let variable = argument.get_env()?.to_str()?;
        let option = argument.get_long()?;
        Some(Entry {
            term: variable.to_owned(),
            text: format!("Is used where --{option} is not given."),
        })
    });
    let general = match section {
        ADMINISTRATOR_COMMANDS => sections::DAEMON_ENVIRONMENT,
        _ => sections::COMMAND_ENVIRONMENT,
    };
    named.chain(owned(general)).collect()
}

fn files() -> Vec<Entry> {
    sections::files()
        .into_iter()
        .map(|(path, text)| Entry {
            term: shown_path(&path),
            text: text.to_owned(),
        })
        .collect()
}

fn shown_path(path: &Path) -> String {
    path.display().to_string()
}

fn owned(entries: &[(&str, &str)]) -> Vec<Entry> {
    let entry = |(term, text): &(&str, &str)| Entry {
        term: (*term).to_owned(),
        text: (*text).to_owned(),
    };
    entries.iter().map(entry).collect()
}

/// What can be typed, and what for.
fn shown(command: &Command, blocks: &[Block], roff: &mut Roff) {
    let examples = examples::of(command, blocks);
    if examples.is_empty() {
        return;
    }
    roff.control("SH", ["EXAMPLES"]);
    for (number, Entry { term, text }) in examples.into_iter().enumerate() {
        if number > 0 {
            roff.control("PP", []);
        }
        roff.text([roman(text)]);
        roff.control("PP", []);
        roff.control("RS", ["4"]);
        roff.control("nf", []);
        roff.text([bold(format!("$ {term}"))]);
        roff.control("fi", []);
        roff.control("RE", []);
    }
}

/// The pages beside this one, above and below it.
fn see_also(command: &Command, section: u8, roff: &mut Roff) {
    let own = name_of(command);
    let mut others: Vec<(String, u8)> = command
        .get_subcommands()
        .filter(|it| !it.is_hide_set())
        .map(|it| (name_of(it), section))
        .collect();
    if let Some((above, _)) = own.rsplit_once('-') {
        others.push((above.to_owned(), section));
    }
    others.extend([
        ("epochgate".to_owned(), USER_COMMANDS),
        ("epochgated".to_owned(), ADMINISTRATOR_COMMANDS),
    ]);
    others.extend(sections::SEE_ALSO.map(|(name, section)| (name.to_owned(), section)));
    others.retain(|(name, of)| (name, *of) != (&own, section));
    others.sort_by(|(left, a), (right, b)| (a, left).cmp(&(b, right)));
    others.dedup();
    let mut line: Vec<Inline> = Vec::new();
    for (name, section) in others {
        if !line.is_empty() {
            line.push(roman(", "));
        }
        line.push(italic(name));
        line.push(roman(format!("({section})")));
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text(line);
}
