//! The prose around the tables, `prose.md`: split into blocks, with the numbers of the code put in.
//!
//! It is a small Markdown: headings, paragraphs, fenced code, tables and lists that begin with `- `.
//! A line `{{keys PATH}}` stands for the table of that section's keys, `{{keys of a template}}` for
//! that of policy templates, and `{{NAME}}` for a number.

use super::{Key, SECTIONS, Section, TEMPLATE_SECTIONS};
use crate::keys::{NAME_LEN_MAX, PAIRS_MAX, TUNNELS_MAX, USERS_MAX};

/// The whole text.
pub(super) const PROSE: &str = include_str!("prose.md");

/// Numbers that the prose names.
const NUMBERS: [(&str, usize); 4] = [
    ("{{NAME_LEN_MAX}}", NAME_LEN_MAX),
    ("{{PAIRS_MAX}}", PAIRS_MAX),
    ("{{TUNNELS_MAX}}", TUNNELS_MAX),
    ("{{USERS_MAX}}", USERS_MAX),
];

/// What the table of keys of policy templates is called.
const OF_A_TEMPLATE: &str = "of a template";

/// A piece of the prose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Block<'p> {
    /// `#` (1) or `##` (2).
    Heading { level: usize, text: &'p str },
    /// Lines that belong together.
    Paragraph(Vec<&'p str>),
    /// Entries of a list, each its lines.
    List(Vec<Vec<&'p str>>),
    /// Rows of cells; the first is the heading.
    Table(Vec<Vec<&'p str>>),
    /// Lines to be shown as they are, and their language.
    Code {
        language: &'p str,
        lines: Vec<&'p str>,
    },
    /// The table of these keys.
    Keys(KeysOf),
}

/// A table of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeysOf {
    /// Of the section with this index in [`SECTIONS`].
    Section(usize),
    /// Of policy templates.
    Template,
}

impl KeysOf {
    fn named(name: &str) -> Option<Self> {
        if name == OF_A_TEMPLATE {
            return Some(Self::Template);
        }
        let mut sections = SECTIONS.iter();
        sections
            .position(|section| section.path == name)
            .map(Self::Section)
    }

    /// The keys and the name of each as it stands in the table.
    pub(super) fn keys(self) -> Vec<(&'static str, &'static Key)> {
        let of = |section: &'static Section| section.keys.iter();
        match self {
            Self::Section(index) => {
                let section = SECTIONS.get(index).into_iter();
                section.flat_map(of).map(|key| (key.name(), key)).collect()
            }
            Self::Template => {
                let sections = TEMPLATE_SECTIONS.iter();
                sections.flat_map(of).map(|key| (key.path, key)).collect()
            }
        }
    }
}

/// The text with the numbers of the code in it.
pub(super) fn filled(text: &str) -> String {
    let mut filled = text.to_owned();
    for (name, number) in NUMBERS {
        filled = filled.replace(name, &number.to_string());
    }
    filled
}

/// The name in a line `{{keys NAME}}`.
pub(super) fn keys_of(line: &str) -> Option<KeysOf> {
    let name = line.strip_prefix("{{keys ")?.strip_suffix("}}")?;
    KeysOf::named(name)
}

/// Splits the prose.
pub(super) fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        if let Some(language) = line.strip_prefix("```") {
            let lines = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push(Block::Code { language, lines });
            continue;
        }
        let mut whole = vec![line];
        while let Some(next) = lines.next_if(|next| !next.is_empty() && !next.starts_with("```")) {
            whole.push(next);
        }
        blocks.push(block(line, whole));
    }
    blocks
}

fn block<'p>(first: &'p str, lines: Vec<&'p str>) -> Block<'p> {
    if let Some(keys) = keys_of(first) {
        return Block::Keys(keys);
    }
    let marks = first.chars().take_while(|c| *c == '#').count();
    if marks > 0 {
        return Block::Heading {
            level: marks,
            text: first.trim_start_matches('#').trim_start(),
        };
    }
    if first.starts_with('|') {
        let rows = lines.into_iter().filter(|line| !line.starts_with("|---"));
        return Block::Table(rows.map(cells).collect());
    }
    if first.starts_with("- ") {
        let mut entries: Vec<Vec<&str>> = Vec::new();
        for line in lines {
            match (line.strip_prefix("- "), entries.last_mut()) {
                (Some(begin), _) => entries.push(vec![begin]),
                (None, Some(entry)) => entry.push(line.trim_start()),
                (None, None) => {}
            }
        }
        return Block::List(entries);
    }
    Block::Paragraph(lines)
}

fn cells(row: &str) -> Vec<&str> {
    let row = row.trim().trim_start_matches('|').trim_end_matches('|');
    row.split('|').map(str::trim).collect()
}
