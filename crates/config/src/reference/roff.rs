//! The reference as the man page epochgate.toml(5), in the macros of man(7).

use std::fmt::Write;

use super::prose::{self, Block, KeysOf, PROSE};
use crate::keys::{DEFAULT_POLICIES, DEFAULT_SOCKET};

/// Where the file is, unless the daemon is told otherwise.
const FILE: &str = "/etc/epochgate/epochgate.toml";

/// The whole page.
#[must_use]
pub fn roff() -> String {
    let mut page = String::new();
    let version = env!("CARGO_PKG_VERSION");
    line(
        &mut page,
        &format!(".TH EPOCHGATE.TOML 5 \"\" \"epochgate {version}\" \"File Formats\""),
    );
    // Names of keys are not to be broken.
    line(&mut page, ".nh");
    line(&mut page, ".ad l");
    section(&mut page, "NAME");
    line(
        &mut page,
        "epochgate.toml \\- configuration of epochgated(8), an IPsec controller",
    );
    section(&mut page, "SYNOPSIS");
    line(&mut page, &format!(".B {}", literal(FILE)));
    section(&mut page, "DESCRIPTION");
    let mut is_among_sections = false;
    let mut is_first = true;
    for block in prose::blocks(PROSE) {
        if let Block::Heading { level, text } = block {
            // The page's own title is said already.
            let is_section = text.starts_with('`');
            if is_section && !is_among_sections {
                section(&mut page, "SECTIONS");
            }
            is_among_sections = is_section;
            match (level, is_section) {
                (1, _) => {}
                (_, true) => line(&mut page, &format!(".SS \"{}\"", table_name(text))),
                (_, false) => section(&mut page, &text.to_uppercase()),
            }
            is_first = true;
            continue;
        }
        write_block(&mut page, &block, is_first);
        is_first = false;
    }
    write_files(&mut page);
    section(&mut page, "SEE ALSO");
    line(&mut page, ".BR epochgate (1),");
    line(&mut page, ".BR epochgated (8),");
    line(&mut page, ".BR ip\\-xfrm (8)");
    page
}

fn write_files(page: &mut String) {
    section(page, "FILES");
    let files = [
        (FILE, "The configuration."),
        (DEFAULT_POLICIES, "Policy templates."),
        (DEFAULT_SOCKET, "The control socket."),
    ];
    for (path, what) in files {
        line(page, ".TP");
        line(page, &format!(".I {}", literal(path)));
        line(page, what);
    }
}

/// The first block under a heading has its paragraph from that.
fn write_block(page: &mut String, block: &Block<'_>, is_first: bool) {
    let begin = |page: &mut String| {
        if !is_first {
            line(page, ".PP");
        }
    };
    match block {
        // Written by the caller.
        Block::Heading { .. } => {}
        Block::Paragraph(lines) => {
            begin(page);
            text(page, &lines.join(" "));
        }
        Block::List(entries) => {
            for entry in entries {
                line(page, ".IP \\(bu 2");
                text(page, &entry.join(" "));
            }
        }
        Block::Table(rows) => write_table(page, rows),
        Block::Code { lines, .. } => {
            begin(page);
            line(page, ".RS 4");
            line(page, ".EX");
            for code in lines {
                // A line that begins with a dot or an apostrophe would be a request.
                line(page, &format!("\\&{}", literal(code)));
            }
            line(page, ".EE");
            line(page, ".RE");
        }
        Block::Keys(keys) => write_keys(page, *keys),
    }
}

/// Each row's first cell stands out, and the others follow.
fn write_table(page: &mut String, rows: &[Vec<&str>]) {
    let Some((heading, rows)) = rows.split_first() else {
        return;
    };
    for row in rows {
        let Some((first, others)) = row.split_first() else {
            continue;
        };
        line(page, ".TP");
        text(page, first);
        // Of two columns the second needs no heading; of more, each has one.
        let cells: Vec<String> = match others {
            [only] => vec![(*only).to_owned()],
            others => {
                let named = heading.iter().skip(1).zip(others);
                named
                    .map(|(name, cell)| format!("{name}: {cell}"))
                    .collect()
            }
        };
        text(page, &cells.join("; "));
    }
}

fn write_keys(page: &mut String, keys: KeysOf) {
    for (name, key) in keys.keys() {
        line(page, ".TP");
        line(page, &format!("\\fB{}\\fR", literal(name)));
        let default = match key.shown_default() {
            default if default == "required" => default,
            default => format!("default: {default}"),
        };
        let bounds = key.kind.shown_bounds();
        let facts = [key.kind.shown(), bounds, default];
        let facts: Vec<_> = facts.into_iter().filter(|fact| !fact.is_empty()).collect();
        text(page, &format!("({}).", facts.join("; ")));
        text(page, &key.shown_meaning());
    }
}

fn section(page: &mut String, name: &str) {
    line(page, &format!(".SH \"{name}\""));
}

fn line(page: &mut String, line: &str) {
    page.push_str(line);
    page.push('\n');
}

/// A heading `` `tunnel.NAME` `` as a TOML table's.
fn table_name(heading: &str) -> String {
    format!("[{}]", literal(heading.trim_matches('`')))
}

/// Running text of the small Markdown, as one input line.
fn text(page: &mut String, markdown: &str) {
    let filled = prose::filled(markdown);
    // A text that began with a dot or an apostrophe would be a request.
    line(page, &format!("\\&{}", inline(&filled)));
}

/// `code`, **strong**, *stressed* and [links](…); of a link the text is left.
fn inline(markdown: &str) -> String {
    let mut roff = String::new();
    let mut rest = markdown;
    while let Some(at) = rest.find(['`', '*', '[']) {
        let (plain, marked) = rest.split_at(at);
        roff.push_str(&escaped(plain));
        rest = match span(marked) {
            Some((shown, after)) => {
                roff.push_str(&shown);
                after
            }
            None => {
                let mut chars = marked.chars();
                roff.extend(chars.next());
                chars.as_str()
            }
        };
    }
    roff.push_str(&escaped(rest));
    roff
}

/// What `marked` begins with, as roff, and what follows.
fn span(marked: &str) -> Option<(String, &str)> {
    if let Some(rest) = marked.strip_prefix('`') {
        let (code, after) = rest.split_once('`')?;
        return Some((format!("\\fB{}\\fR", literal(code)), after));
    }
    if let Some(rest) = marked.strip_prefix("**") {
        let (strong, after) = rest.split_once("**")?;
        return Some((format!("\\fB{}\\fR", escaped(strong)), after));
    }
    if let Some(rest) = marked.strip_prefix('*') {
        let (stressed, after) = rest.split_once('*')?;
        return Some((format!("\\fI{}\\fR", escaped(stressed)), after));
    }
    let (label, after) = marked.strip_prefix('[')?.split_once("](")?;
    let (_, after) = after.split_once(')')?;
    Some((inline(label), after))
}

/// Text in which a hyphen is a hyphen.
fn escaped(text: &str) -> String {
    escape(text, "-")
}

/// Text that a reader may copy: a hyphen is the minus sign of the keyboard.
fn literal(text: &str) -> String {
    escape(text, "\\-")
}

fn escape(text: &str, hyphen: &str) -> String {
    let mut roff = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => roff.push_str("\\e"),
            '-' => roff.push_str(hyphen),
            '\'' => roff.push_str("\\(aq"),
            '"' => roff.push_str("\\(dq"),
            '^' => roff.push_str("\\(ha"),
            '~' => roff.push_str("\\(ti"),
            '`' => roff.push_str("\\(ga"),
            '§' => roff.push_str("\\(sc"),
            '…' => roff.push_str("..."),
            '→' => roff.push_str("\\(->"),
            c if c.is_ascii() => roff.push(c),
            // Any other character by its code (groff_char(7)).
            c => {
                // Writing to a string does not fail.
                let _ = write!(roff, "\\[u{:04X}]", u32::from(c));
            }
        }
    }
    roff
}
