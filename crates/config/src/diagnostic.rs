//! Mistakes in a file, shown with file name, line, caret and what to do instead.
//!
//! Readers and checks add [`Diagnostic`]s to a [`Sink`]; [`Diagnostics`] is what the caller gets.
//! Whatever may be a secret is masked before any line of the file is shown.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet};

use crate::mask;

/// Mistakes that are shown at most; the rest are counted.
const SHOWN_MAX: usize = 20;

/// Characters of a user's text that a message quotes at most.
const QUOTED_MAX: usize = 60;

/// Octets from the file's beginning.
pub(crate) type Span = Range<usize>;

/// A file that mistakes point into.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    name: String,
    /// Masked: safe to show.
    text: String,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    source: Arc<Source>,
    title: String,
    primary: Label,
    context: Vec<Label>,
    help: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Label {
    span: Span,
    text: String,
}

impl Diagnostic {
    /// Points at another place that has to do with the mistake.
    pub(crate) fn also(&mut self, span: Span, text: impl Into<String>) -> &mut Self {
        let label = Label {
            span,
            text: text.into(),
        };
        self.context.push(label);
        self
    }

    /// Says what to do instead.
    pub(crate) fn help(&mut self, text: impl Into<String>) -> &mut Self {
        self.help.push(text.into());
        self
    }

    /// Name of the file that the mistake is in.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.source.name
    }

    /// What is wrong, in one line.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Line that the mistake is in, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        let before = self.source.text.get(..self.primary.span.start);
        1 + before.map_or(0, |text| text.matches('\n').count())
    }

    fn render(&self, renderer: &Renderer) -> String {
        let text = &self.source.text;
        let annotation = |kind: AnnotationKind, label: &Label| -> Annotation<'_> {
            kind.span(within(text, &label.span))
                .label(label.text.clone())
        };
        let snippet = Snippet::source(text.as_str())
            .path(self.source.name.as_str())
            .annotation(annotation(AnnotationKind::Primary, &self.primary))
            .annotations(
                self.context
                    .iter()
                    .map(|label| annotation(AnnotationKind::Context, label)),
            );
        let mut group: Group<'_> = Level::ERROR
            .primary_title(self.title.as_str())
            .element(snippet);
        for help in &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        renderer.render(&[group])
    }
}

/// Keeps a span inside its text and on character boundaries, so that rendering can't fail.
fn within(text: &str, span: &Span) -> Span {
    let floor = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = floor(span.start);
    start..floor(span.end).max(start)
}

/// All mistakes that one run found, in the order of the file. Never empty.
///
/// `Display` shows them without colour; [`Diagnostics::coloured`] is for a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Number of mistakes, also of those that are not shown.
    #[must_use]
    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// The mistakes.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter()
    }

    /// What `Display` shows, with terminal colours.
    #[must_use]
    pub fn coloured(&self) -> String {
        self.render(&Renderer::styled())
    }

    fn render(&self, renderer: &Renderer) -> String {
        let shown = self.list.iter().take(SHOWN_MAX);
        let mut text = shown
            .map(|diagnostic| diagnostic.render(renderer))
            .collect::<Vec<_>>()
            .join("\n\n");
        let hidden = self.list.len().saturating_sub(SHOWN_MAX);
        if hidden > 0 {
            text.push_str(&format!("\n\nerror: {hidden} more not shown"));
        }
        text
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(&Renderer::plain()))
    }
}

impl std::error::Error for Diagnostics {}

/// Where the mistakes of one file are gathered.
#[derive(Debug)]
pub(crate) struct Sink {
    source: Arc<Source>,
    list: Vec<Diagnostic>,
}

impl Sink {
    pub(crate) fn new(name: &str, text: &str) -> Self {
        let source = Source {
            name: name.to_owned(),
            text: mask::secrets(text),
        };
        Self {
            source: Arc::new(source),
            list: Vec::new(),
        }
    }

    /// Adds a mistake at `span`; `label` stands beside the caret.
    pub(crate) fn error(
        &mut self,
        span: Span,
        title: impl Into<String>,
        label: impl Into<String>,
    ) -> &mut Diagnostic {
        let diagnostic = Diagnostic {
            source: Arc::clone(&self.source),
            title: title.into(),
            primary: Label {
                span,
                text: label.into(),
            },
            context: Vec::new(),
            help: Vec::new(),
        };
        let at = self.list.len();
        self.list.push(diagnostic);
        &mut self.list[at]
    }

    /// Takes over what was found in another file.
    pub(crate) fn append(&mut self, others: Diagnostics) {
        self.list.extend(others.list);
    }

    /// Mistakes so far.
    pub(crate) fn count(&self) -> usize {
        self.list.len()
    }

    /// `value` if nothing was found; else what was found.
    pub(crate) fn finish<T>(mut self, value: Option<T>) -> Result<T, Diagnostics> {
        if self.list.is_empty() {
            if let Some(value) = value {
                return Ok(value);
            }
            self.error(0..0, "the file could not be read", "");
        }
        let own = Arc::clone(&self.source);
        self.list
            .sort_by_key(|found| (found.source != own, found.primary.span.start));
        Err(Diagnostics { list: self.list })
    }
}

/// A user's text for a message: without control characters, and not too long.
pub(crate) fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(QUOTED_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("`{}`", shown.escape_debug())
}

/// `a`, `b` or `c`: the values to choose from.
pub(crate) fn listed<S: AsRef<str>>(values: &[S]) -> String {
    let quote = |value: &S| quoted(value.as_ref());
    match values {
        [] => "none".to_owned(),
        [only] => quote(only),
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(quote).collect();
            format!("{} or {}", first.join(", "), quote(last))
        }
    }
}

/// The candidate that `text` was probably meant to be, if one is near: a third of its characters
/// may be wrong.
pub fn nearest<'c, S: AsRef<str>>(text: &str, candidates: &'c [S]) -> Option<&'c str> {
    /// Candidates further away than this share of their length are no help.
    const TOLERANCE_DIVISOR: usize = 3;
    let folded: Cow<'_, str> = text.to_ascii_lowercase().replace('_', "-").into();
    candidates
        .iter()
        .map(AsRef::as_ref)
        .map(|candidate| (distance(&folded, candidate), candidate))
        .filter(|(far, candidate)| *far <= candidate.len().div_ceil(TOLERANCE_DIVISOR))
        .min_by_key(|(far, _)| *far)
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace, swap neighbours) from one text to the other.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().take(QUOTED_MAX).collect();
    let right: Vec<char> = right.chars().take(QUOTED_MAX).collect();
    let mut rows = vec![vec![0; right.len() + 1]; left.len() + 1];
    for i in 0..=left.len() {
        for j in 0..=right.len() {
            rows[i][j] = match (i, j) {
                (0, far) | (far, 0) => far,
                (i, j) => {
                    let replaced = usize::from(left[i - 1] != right[j - 1]);
                    let mut best = (rows[i - 1][j - 1] + replaced)
                        .min(rows[i - 1][j] + 1)
                        .min(rows[i][j - 1] + 1);
                    let swapped = i > 1
                        && j > 1
                        && left[i - 1] == right[j - 2]
                        && left[i - 2] == right[j - 1];
                    if swapped {
                        best = best.min(rows[i - 2][j - 2] + 1);
                    }
                    best
                }
            };
        }
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_miss_finds_the_word_that_was_meant() {
        let words = ["interval", "attempts", "idle"];
        assert_eq!(nearest("intreval", &words), Some("interval"));
        assert_eq!(nearest("Attempt", &words), Some("attempts"));
        assert_eq!(nearest("colour", &words), None);
        assert_eq!(nearest("psk_file", &["psk-file"]), Some("psk-file"));
    }

    #[test]
    fn a_span_outside_the_text_or_inside_a_character_is_moved() {
        assert_eq!(within("aé", &(2..9)), 1..3);
        assert_eq!(within("", &(5..7)), 0..0);
    }

    #[test]
    fn control_characters_of_the_user_do_not_reach_the_terminal() {
        assert_eq!(quoted("a\u{1b}[31m"), r"`a\u{1b}[31m`");
    }
}
