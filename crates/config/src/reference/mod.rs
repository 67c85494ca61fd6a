//! The reference of the configuration file: every key, its kind, default, bounds and meaning.
//!
//! This is the one table of keys. The reader refuses what is not in it ([`KEYS`]), and
//! [`markdown`] (`docs/configuration.md`) and [`roff`] (epochgate.toml(5)) print it, between the
//! prose of `reference/prose.md`. Bounds and defaults are the constants that the reader uses.

mod epochs;
mod host;
mod markdown;
mod prose;
mod roff;
mod template;
mod tunnel;

use std::time::Duration;

use epochgate_controller::config::Role;

use crate::keys::Bounds;
use crate::values::{ANY, shown_duration};

pub use markdown::markdown;
pub use roff::roff;

/// A section (table) of the file and the keys directly in it.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Its whole path, with `NAME` for a name that the user chooses.
    pub path: &'static str,
    /// Its keys, but for sections in it. A section that has only sections has none.
    pub keys: &'static [Key],
}

/// A key that has a value.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its whole path.
    pub path: &'static str,
    /// What may be written.
    pub kind: Kind,
    /// What holds when it is not there.
    pub unset: Unset,
    /// The one role in which it may be given; `None`: both, or it is in no tunnel.
    pub role: Option<Role>,
    /// What it means, in the Markdown of the prose; numbers of the code as `{{NAME}}`.
    pub meaning: &'static str,
}

/// What may be written for a key.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// One of these words.
    Word {
        /// All of them.
        words: &'static [&'static str],
        /// The default, where it is always the same.
        default: Option<&'static str>,
    },
    /// A list of words, the best first.
    Words {
        /// All of them.
        words: fn() -> Vec<&'static str>,
        /// The default; `None`: there is none.
        default: Option<fn() -> Vec<&'static str>>,
    },
    /// `true` or `false`.
    Flag {
        /// The default.
        default: bool,
    },
    /// A whole number.
    Number(Bounds<u32>),
    /// A number and a unit.
    Duration(Bounds<Duration>),
    /// A number and a unit, or a word instead.
    DurationOr {
        /// Of the duration.
        bounds: Bounds<Duration>,
        /// The word.
        word: &'static str,
        /// Whether the word is the default, and not that of `bounds`.
        is_default: bool,
    },
    /// An IP address.
    Address,
    /// An outer address, or `%any`, which is the default.
    AddressOrAny,
    /// An IKE identity.
    Identity,
    /// A text.
    Text {
        /// Octets at most.
        octets_max: Option<usize>,
        /// The default.
        default: Option<&'static str>,
    },
    /// An absolute path.
    Path {
        /// Octets at most.
        octets_max: Option<usize>,
        /// The default.
        default: &'static str,
    },
    /// The path of a file.
    File {
        /// Least and greatest number of octets in it, but for a line end.
        octets: Option<(usize, usize)>,
    },
    /// A list.
    List {
        /// What is in it, in the plural.
        of: &'static str,
        /// Entries at most.
        most: Option<usize>,
    },
}

/// What holds when a key is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unset {
    /// The configuration is refused: it must be given.
    Required,
    /// The default that its kind states.
    Default,
    /// Nothing: what it would be for is not done.
    Nothing,
    /// This.
    Is(&'static str),
}

/// All sections of a configuration file, each before those in it.
pub const SECTIONS: &[Section] = &[
    host::DAEMON,
    host::IKE,
    host::POOLS,
    host::POOL,
    tunnel::TUNNELS,
    tunnel::TUNNEL,
    tunnel::LOCAL,
    tunnel::REMOTE,
    tunnel::PPK,
    tunnel::TRAFFIC,
    tunnel::INTERFACE,
    tunnel::PATH,
    tunnel::VIRTUAL,
    epochs::PING,
    epochs::EPOCH,
    epochs::RECOVERY,
    epochs::IKE_SA,
    epochs::ALGORITHMS,
    epochs::ALGORITHMS_IKE,
    epochs::ALGORITHMS_ESP,
];

/// All sections of a policy template. The first is the whole file.
pub const TEMPLATE_SECTIONS: &[Section] = template::SECTIONS;

/// Every key of a configuration file with its whole path; a section is a key too.
pub const KEYS: &[&str] = &paths::<{ count(SECTIONS) }>(SECTIONS);

/// Every key that a policy template may have.
pub const TEMPLATE_KEYS: &[&str] = &paths::<{ count(TEMPLATE_SECTIONS) }>(TEMPLATE_SECTIONS);

const fn count(sections: &[Section]) -> usize {
    let mut count = 0;
    let mut index = 0;
    while index < sections.len() {
        // A file as a whole has no path.
        count += !sections[index].path.is_empty() as usize + sections[index].keys.len();
        index += 1;
    }
    count
}

const fn paths<const N: usize>(sections: &[Section]) -> [&'static str; N] {
    let mut paths = [""; N];
    let mut count = 0;
    let mut index = 0;
    while index < sections.len() {
        let section = sections[index];
        if !section.path.is_empty() {
            paths[count] = section.path;
            count += 1;
        }
        let mut key = 0;
        while key < section.keys.len() {
            paths[count] = section.keys[key].path;
            count += 1;
            key += 1;
        }
        index += 1;
    }
    paths
}

impl Section {
    const fn new(path: &'static str, keys: &'static [Key]) -> Self {
        Self { path, keys }
    }
}

impl Key {
    const fn new(path: &'static str, kind: Kind, unset: Unset, meaning: &'static str) -> Self {
        Self {
            path,
            kind,
            unset,
            role: None,
            meaning,
        }
    }

    /// A key of a client alone.
    const fn of_client(self) -> Self {
        Self {
            role: Some(Role::Client),
            ..self
        }
    }

    /// A key of a server alone.
    const fn of_server(self) -> Self {
        Self {
            role: Some(Role::Server),
            ..self
        }
    }

    /// Its name in its section.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or(self.path)
    }

    /// What an absent key means, as it would be written in the file. `None`: nothing that can be
    /// written there, or no default at all.
    #[must_use]
    pub fn default(&self) -> Option<String> {
        match self.unset {
            Unset::Default => self.kind.default(),
            Unset::Required | Unset::Nothing | Unset::Is(_) => None,
        }
    }

    /// What an absent key means, in Markdown.
    fn shown_default(&self) -> String {
        match self.unset {
            Unset::Required => "required".to_owned(),
            Unset::Nothing => "none".to_owned(),
            Unset::Is(what) => what.to_owned(),
            Unset::Default => match self.kind.default() {
                Some(value) => format!("`{}`", value.trim_matches('"')),
                None => "none".to_owned(),
            },
        }
    }

    /// What it means, with its role said, in Markdown.
    fn shown_meaning(&self) -> String {
        let meaning = prose::filled(self.meaning);
        match self.role {
            None => meaning,
            Some(Role::Client) => format!("Client only. {meaning}"),
            Some(Role::Server) => format!("Server only. {meaning}"),
        }
    }
}

impl Kind {
    /// The default as it would be written in the file, if there is one.
    fn default(&self) -> Option<String> {
        match *self {
            Self::Word { default, .. } | Self::Text { default, .. } => default.map(in_quotes),
            Self::Words { default, .. } => default.map(|list| {
                let words: Vec<_> = list().into_iter().map(in_quotes).collect();
                format!("[{}]", words.join(", "))
            }),
            Self::Flag { default } => Some(default.to_string()),
            Self::Number(bounds) => Some(bounds.default.to_string()),
            Self::Duration(bounds) => Some(in_quotes(&shown_duration(bounds.default))),
            Self::DurationOr {
                bounds,
                word,
                is_default,
            } => Some(match is_default {
                true => in_quotes(word),
                false => in_quotes(&shown_duration(bounds.default)),
            }),
            Self::AddressOrAny => Some(in_quotes(ANY)),
            Self::Path { default, .. } => Some(in_quotes(default)),
            Self::List { .. } => Some("[]".to_owned()),
            Self::Address | Self::Identity | Self::File { .. } => None,
        }
    }

    /// Its name, in Markdown.
    fn shown(&self) -> String {
        match *self {
            Self::Word { words, .. } => in_code(words),
            Self::Words { words, default } => match default {
                None => format!("list of {}", in_code(&words())),
                Some(_) => "list of words".to_owned(),
            },
            Self::Flag { .. } => "`true`, `false`".to_owned(),
            Self::Number(_) => "number".to_owned(),
            Self::Duration(_) => "duration".to_owned(),
            Self::DurationOr { word, .. } => format!("duration or `{word}`"),
            Self::Address => "address".to_owned(),
            Self::AddressOrAny => format!("address or `{ANY}`"),
            Self::Identity => "identity".to_owned(),
            Self::Text { .. } => "text".to_owned(),
            Self::Path { .. } => "absolute path".to_owned(),
            Self::File { .. } => "path".to_owned(),
            Self::List { of, .. } => format!("list of {of}"),
        }
    }

    /// Its bounds, in Markdown; empty where there are none.
    fn shown_bounds(&self) -> String {
        match *self {
            Self::Number(bounds) => format!("`{}` to `{}`", bounds.least, bounds.most),
            Self::Duration(bounds) | Self::DurationOr { bounds, .. } => {
                let [least, most] = [bounds.least, bounds.most].map(shown_duration);
                format!("`{least}` to `{most}`")
            }
            Self::Text { octets_max, .. } | Self::Path { octets_max, .. } => {
                octets_max.map_or_else(String::new, |most| format!("{most} octets at most"))
            }
            Self::File { octets } => octets.map_or_else(String::new, |(least, most)| {
                format!("{least} to {most} octets in it")
            }),
            Self::List { most, .. } => {
                most.map_or_else(String::new, |most| format!("{most} at most"))
            }
            Self::Words { words, default } => default.map_or_else(String::new, |default| {
                let default = default();
                let more: Vec<_> = words()
                    .into_iter()
                    .filter(|word| !default.contains(word))
                    .collect();
                match more.as_slice() {
                    [] => "these".to_owned(),
                    more => format!("these, {}", in_code(more)),
                }
            }),
            Self::Word { .. }
            | Self::Flag { .. }
            | Self::Address
            | Self::AddressOrAny
            | Self::Identity => String::new(),
        }
    }
}

fn in_quotes(text: &str) -> String {
    format!("\"{text}\"")
}

fn in_code(words: &[&str]) -> String {
    let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    words.join(", ")
}
