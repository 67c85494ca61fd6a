//! An entry in full, as lines of a name and a value.

use std::fmt::Write as _;

use crate::terminal::{Paint, Tone, harmless, wrapped};

/// Columns of indentation before a name.
const INDENT: usize = 4;
/// Columns of a name, with the blank behind it.
const NAME_WIDTH: usize = 14;
/// Narrowest column of values.
const VALUE_MIN: usize = 20;

/// The lines of one entry.
#[derive(Debug)]
pub(crate) struct Facts {
    text: String,
    width: Option<usize>,
    paint: Paint,
}

impl Facts {
    pub(crate) fn new(title: String, width: Option<usize>, paint: Paint) -> Self {
        Self {
            text: title + "\n",
            width,
            paint,
        }
    }

    /// Something that stands out.
    pub(crate) fn note(&mut self, tone: Tone, text: &str) {
        let mut mark = "! ";
        for line in self.lines(text, INDENT + mark.len()) {
            let line = self.paint.paint(tone, &format!("{mark}{line}"));
            let _ = writeln!(self.text, "{:INDENT$}{line}", "");
            mark = "  ";
        }
    }

    /// A name and its value.
    pub(crate) fn add(&mut self, name: &str, value: &str) {
        let mut name = name;
        for line in self.lines(value, INDENT + NAME_WIDTH) {
            let _ = writeln!(self.text, "{:INDENT$}{name:<NAME_WIDTH$}{line}", "");
            name = "";
        }
    }

    fn lines(&self, text: &str, before: usize) -> Vec<String> {
        let text = harmless(text);
        match self.width {
            Some(width) => wrapped(&text, width.saturating_sub(before).max(VALUE_MIN)),
            None => vec![text.into_owned()],
        }
    }

    pub(crate) fn finish(mut self) -> String {
        self.text.push('\n');
        self.text
    }
}
