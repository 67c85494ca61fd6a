//! Walks a parsed TOML table: typed access with spans, and a mistake for every key that is
//! unknown, missing, or of the wrong type. It knows nothing of tunnels.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostic::{Sink, Span, nearest, quoted};
use crate::keys;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) span: Span,
}

/// The texts of a list, as far as they are texts.
#[derive(Clone, Debug)]
pub(crate) struct Texts<'d> {
    pub(crate) list: Vec<At<&'d str>>,
    pub(crate) span: Span,
    /// Nothing of the list was reported: those are all.
    pub(crate) is_whole: bool,
}

/// What kind of file is read: its known keys, and those that get a sentence of their own.
#[derive(Clone, Copy)]
pub(crate) struct Schema {
    pub(crate) known: &'static [&'static str],
    pub(crate) unsupported: &'static [(&'static str, &'static str)],
}

/// A table of the file, or an absent one.
#[derive(Clone)]
pub(crate) struct Section<'d> {
    schema: Schema,
    /// With `NAME` for a tunnel's name, as in [`crate::reference::KEYS`].
    path: String,
    /// As the user wrote it, for messages.
    shown: String,
    table: Option<&'d DeTable<'d>>,
    /// It is there and no table: reported, and so nothing in it is missing.
    is_wrong: bool,
    /// Some of its keys are unknown, which was reported.
    has_unknown: bool,
    span: Span,
}

impl<'d> Section<'d> {
    /// The whole file. Unknown keys of it are reported.
    pub(crate) fn root(schema: Schema, table: &'d DeTable<'d>, sink: &mut Sink) -> Self {
        let mut root = Self {
            schema,
            path: String::new(),
            shown: String::new(),
            table: Some(table),
            is_wrong: false,
            has_unknown: false,
            span: 0..0,
        };
        root.has_unknown = root.refuse_unknown_keys(sink);
        root
    }

    /// Where it stands; for an absent section, where its parent does.
    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Whether it is there, and a table.
    pub(crate) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// Whether something that is no table stands in its place, which was reported.
    pub(crate) fn is_wrong(&self) -> bool {
        self.is_wrong
    }

    /// Whether `key` is there, right or wrong.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    /// The section `key` of this one, absent or not. Its unknown keys are reported.
    pub(crate) fn section(&self, key: &str, sink: &mut Sink) -> Section<'d> {
        self.child(key, key, sink)
    }

    /// The sections of this one, whose names the user chooses.
    pub(crate) fn named(&self, sink: &mut Sink) -> Vec<(At<&'d str>, Section<'d>)> {
        let keys = self.table.into_iter().flat_map(|table| table.keys());
        let mut keys: Vec<_> = keys.collect();
        keys.sort_by_key(|key| key.span().start);
        keys.into_iter()
            .map(|key| {
                let name = At {
                    value: key.get_ref().as_ref(),
                    span: key.span(),
                };
                let section = self.child(name.value, keys::ANY_NAME, sink);
                (name, section)
            })
            .collect()
    }

    fn child(&self, key: &str, key_in_path: &str, sink: &mut Sink) -> Section<'d> {
        let join = |left: &str, right: &str| match left {
            "" => right.to_owned(),
            _ => format!("{left}.{right}"),
        };
        let mut section = Section {
            schema: self.schema,
            path: join(&self.path, key_in_path),
            shown: join(&self.shown, key),
            table: None,
            is_wrong: self.is_wrong,
            has_unknown: false,
            span: self.span.clone(),
        };
        if let Some((_, value)) = self.entry(key) {
            section.span = value.span();
            match value.get_ref() {
                DeValue::Table(table) => section.table = Some(table),
                other => {
                    wrong_type(sink, key, value.span(), "a table", other);
                    section.is_wrong = true;
                }
            }
        }
        section.has_unknown = section.refuse_unknown_keys(sink);
        section
    }

    fn entry(&self, key: &str) -> Option<(Range<usize>, &'d Spanned<DeValue<'d>>)> {
        let (key, value) = self.table?.get_key_value(key)?;
        Some((key.span(), value))
    }

    /// The text of `key`, if it is there and a text.
    pub(crate) fn text(&self, key: &str, sink: &mut Sink) -> Option<At<&'d str>> {
        let (_, value) = self.entry(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some(At {
                value: text.as_ref(),
                span: value.span(),
            }),
            other => {
                wrong_type(sink, key, value.span(), "a text in quotes", other);
                None
            }
        }
    }

    /// Where the value of `key` is, right or wrong; if it is absent, where the section is.
    pub(crate) fn span_of(&self, key: &str) -> Span {
        self.entry(key)
            .map_or_else(|| self.span(), |(_, value)| value.span())
    }

    /// Whether `key` is there and is this text.
    pub(crate) fn says(&self, key: &str, word: &str) -> bool {
        matches!(self.entry(key), Some((_, value))
            if matches!(value.get_ref(), DeValue::String(text) if text == word))
    }

    /// The whole number of `key`; one that does not fit becomes the greatest, which no bounds
    /// allow.
    pub(crate) fn number(&self, key: &str, sink: &mut Sink) -> Option<At<i64>> {
        let (_, value) = self.entry(key)?;
        match value.get_ref() {
            DeValue::Integer(number) => Some(At {
                value: i64::from_str_radix(number.as_str(), number.radix()).unwrap_or(i64::MAX),
                span: value.span(),
            }),
            other => {
                wrong_type(sink, key, value.span(), "a whole number", other);
                None
            }
        }
    }

    /// The truth value of `key`.
    pub(crate) fn flag(&self, key: &str, sink: &mut Sink) -> Option<At<bool>> {
        let (_, value) = self.entry(key)?;
        match value.get_ref() {
            DeValue::Boolean(flag) => Some(At {
                value: *flag,
                span: value.span(),
            }),
            other => {
                wrong_type(sink, key, value.span(), "true or false", other);
                None
            }
        }
    }

    /// The texts of the list `key`. A lone text is taken for a mistake. `None`: absent or no list.
    pub(crate) fn texts(&self, key: &str, sink: &mut Sink) -> Option<Texts<'d>> {
        let (_, value) = self.entry(key)?;
        let list = match value.get_ref() {
            DeValue::Array(list) => list,
            other => {
                wrong_type(sink, key, value.span(), "a list of texts", other);
                return None;
            }
        };
        let mut texts = Vec::with_capacity(list.len());
        for item in list.iter() {
            match item.get_ref() {
                DeValue::String(text) => texts.push(At {
                    value: text.as_ref(),
                    span: item.span(),
                }),
                other => wrong_type(sink, key, item.span(), "a text in quotes", other),
            }
        }
        Some(Texts {
            is_whole: texts.len() == list.len(),
            list: texts,
            span: value.span(),
        })
    }

    /// Whether `key` may be known to the operator though not to us: a key that is nearly the same was
    /// reported, or what stands in the section's place was. What follows from its absence is
    /// then no mistake of its own.
    pub(crate) fn may_mean(&self, key: &str) -> bool {
        if self.is_wrong || !self.has_unknown {
            return self.is_wrong;
        }
        let known: Vec<&str> = keys::of_section(self.schema.known, &self.path).collect();
        let mut written = self.table.into_iter().flat_map(|table| table.keys());
        written.any(|written| {
            let written = written.get_ref().as_ref();
            !known.contains(&written) && nearest(written, &known) == Some(key)
        })
    }

    /// Reports that `key` must be there, if nothing was reported that explains it.
    pub(crate) fn missing(&self, key: &str, example: &str, sink: &mut Sink) {
        if self.may_mean(key) {
            return;
        }
        let whole = match self.shown.as_str() {
            "" => key.to_owned(),
            section => format!("{section}.{key}"),
        };
        sink.error(
            self.span(),
            format!("{} is missing", quoted(&whole)),
            "needed here",
        )
        .help(format!("add {example}"));
    }

    /// Whether there are any.
    fn refuse_unknown_keys(&self, sink: &mut Sink) -> bool {
        let before = sink.count();
        let known: Vec<&str> = keys::of_section(self.schema.known, &self.path).collect();
        if known.contains(&keys::ANY_NAME) {
            return false;
        }
        for (key, _) in self.table.into_iter().flatten() {
            let name = key.get_ref().as_ref();
            if known.contains(&name) {
                continue;
            }
            let whole = format!("{}.{name}", self.path);
            let unsupported = self.schema.unsupported.iter();
            if let Some((_, advice)) = unsupported.clone().find(|(path, _)| *path == whole) {
                let title = format!("{} is not supported", quoted(name));
                sink.error(key.span(), title, "not a key here")
                    .help(*advice);
                continue;
            }
            let title = format!("unknown key {}", quoted(name));
            let found = sink.error(key.span(), title, "not a key here");
            match nearest(name, &known) {
                Some(meant) => found.help(format!("did you mean {}?", quoted(meant))),
                None => {
                    found.help(format!("keys here: {}", known.join(", ")));
                    match elsewhere(self.schema.known, name) {
                        Some(path) => found.help(format!("there is a key {}", quoted(path))),
                        None => found,
                    }
                }
            };
        }
        sink.count() > before
    }
}

/// A key of this name in another section.
fn elsewhere<'k>(known: &'k [&'k str], name: &str) -> Option<&'k str> {
    let mut homonyms = known
        .iter()
        .filter(|path| path.rsplit('.').next() == Some(name));
    homonyms.next().copied()
}

fn wrong_type(sink: &mut Sink, key: &str, span: Span, want: &str, got: &DeValue<'_>) {
    let got_name = match got {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    let title = format!("{} must be {want}, not {got_name}", quoted(key));
    let found = sink.error(span, title, format!("this is {got_name}"));
    match (got, want) {
        (DeValue::String(text), "a list of texts") => {
            found.help(format!("write {key} = [{text:?}]"));
        }
        (DeValue::Array(_), "a table") => {
            found.help("a table's heading has one pair of brackets");
        }
        _ => {}
    }
}
