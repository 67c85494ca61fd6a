//! The text behind a command's help (`after_help`), as blocks that man pages set in their own way.
//!
//! A block is a line that ends with a colon and the indented lines below it. Each of these is a term,
//! two blanks or more, and its meaning; a line that is indented further goes on with the meaning.

use clap::Command;

/// The title of a block of examples, in small letters: a line to be typed, and below it, indented
/// further, what it is for.
pub(crate) const EXAMPLES: &str = "examples";

/// Something with a title.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Without its colon.
    pub title: String,
    /// What it consists of.
    pub entries: Vec<Entry>,
}

/// A term and its meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What is explained.
    pub term: String,
    /// Its explanation; empty for a line that stands for itself.
    pub text: String,
}

/// The blocks behind a command's help.
pub(crate) fn blocks(command: &Command) -> Vec<Block> {
    let text = command
        .get_after_long_help()
        .or_else(|| command.get_after_help());
    text.map(|text| read(&text.to_string())).unwrap_or_default()
}

fn read(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut indent = 0;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let depth = line.len() - line.trim_start().len();
        let line = line.trim();
        if depth == 0 {
            let (title, entries) = match line.strip_suffix(':') {
                Some(title) => (title, Vec::new()),
                // A sentence of its own.
                None => ("Notes", vec![entry(line)]),
            };
            match blocks.last_mut() {
                Some(last) if last.title == title => last.entries.extend(entries),
                _ => blocks.push(Block {
                    title: title.to_owned(),
                    entries,
                }),
            }
            indent = 0;
            continue;
        }
        let Some(block) = blocks.last_mut() else {
            continue;
        };
        if indent == 0 {
            indent = depth;
        }
        match block.entries.last_mut() {
            Some(last) if depth > indent => {
                if !last.text.is_empty() {
                    last.text.push(' ');
                }
                last.text.push_str(line);
            }
            _ => block.entries.push(entry(line)),
        }
    }
    blocks
}

fn entry(line: &str) -> Entry {
    let (term, text) = line.split_once("  ").unwrap_or((line, ""));
    Entry {
        term: term.trim().to_owned(),
        text: text.trim().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(term: &str, text: &str) -> Entry {
        Entry {
            term: term.to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn terms_and_meanings_are_told_apart() {
        let found = read("Exit codes:\n  0  it is done\n  1  it failed;\n     see the message\n");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].title, "Exit codes");
        let expected = [of("0", "it is done"), of("1", "it failed; see the message")];
        assert_eq!(found[0].entries, expected);
    }

    #[test]
    fn an_example_is_followed_by_what_it_is_for() {
        let found = read("Examples:\n  epochgate up a\n      Starts it.\n\nAnd a sentence.");
        assert_eq!(found[0].entries, [of("epochgate up a", "Starts it.")]);
        assert_eq!(found[1].title, "Notes");
        assert_eq!(found[1].entries, [of("And a sentence.", "")]);
    }
}
