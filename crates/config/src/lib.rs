//! The configuration file: text in, [`Config`] or [`Diagnostics`] out.
//!
//! [`load`] is pure: what it must read besides the text (pre-shared keys, policy templates) comes
//! through [`Files`]. It goes on after a mistake, so that one run shows them all. The way of a
//! file: `reader` (tables, types, unknown keys) → `values` (durations, networks, identities) →
//! `tunnel` (one tunnel and what must fit inside it) → `checks` (what must fit between tunnels).

mod addressing;
mod algorithms;
mod auth;
mod checks;
mod daemon;
mod diagnostic;
#[cfg(all(feature = "disk", unix))]
mod disk;
mod epoch;
mod files;
mod half_open;
mod ike_sa;
mod interface;
pub mod keys;
mod mask;
mod path;
mod reader;
pub mod reference;
pub mod template;
mod traffic;
mod tunnel;
mod values;

use std::sync::Arc;

use epochgate_controller::config::Config;
use toml::de::DeTable;

pub use daemon::{DaemonSettings, LogLevel};
pub use diagnostic::{Diagnostic, Diagnostics, nearest};
#[cfg(all(feature = "disk", unix))]
pub use disk::{Disk, ReadError, read_text};
pub use files::{Files, SecretFile};
pub use values::{parse_duration, shown_duration};

use crate::diagnostic::{Sink, quoted};
use crate::keys::{FILE_LEN_MAX, TUNNELS_MAX, UNSUPPORTED};
use crate::reader::{Schema, Section};
use crate::template::Templates;
use crate::tunnel::Around;

/// A whole configuration file, checked.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What the controller is given.
    pub config: Config,
    /// What the daemon around it needs.
    pub daemon: DaemonSettings,
}

/// Reads the configuration `text`; `name` is its file's name, for messages.
///
/// # Errors
/// Every mistake that was found, with its place in the file.
pub fn load(name: &str, text: &str, files: &dyn Files) -> Result<Loaded, Diagnostics> {
    let mut sink = Sink::new(name, text);
    let loaded = parse(text, &mut sink).and_then(|table| {
        let schema = Schema {
            known: reference::KEYS,
            unsupported: UNSUPPORTED,
        };
        read(schema, &table, files, &mut sink)
    });
    sink.finish(loaded)
}

/// The TOML syntax; all mistakes in it are reported, and none beyond it.
fn parse<'t>(text: &'t str, sink: &mut Sink) -> Option<DeTable<'t>> {
    if text.len() > FILE_LEN_MAX {
        let title = format!("the file is longer than {} MiB", FILE_LEN_MAX >> 20);
        sink.error(0..0, title, "");
        return None;
    }
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut repeated = None;
    let mut previous = None;
    for error in &errors {
        let span = error.span().unwrap_or(0..0);
        let table = table_at(text, span.start);
        let is_of_repeated = error.message() == DUPLICATE && table == repeated;
        // A brace that is not closed: each line below it is called so.
        let place = Some((error.message(), table));
        let is_below = error.message().starts_with(NO_COMMA) && previous == place;
        previous = place;
        if is_of_repeated || is_below {
            continue;
        }
        // A table that is there twice: each of its keys, which may well be different, is called so.
        repeated = table.filter(|start| {
            let before = text.get(*start..span.start).unwrap_or_default();
            error.message() == DUPLICATE && !before.contains('\n')
        });
        let mut lines = error.message().lines();
        let title = lines.next().unwrap_or("not TOML");
        let detail = lines.collect::<Vec<_>>().join(", ");
        sink.error(span, format!("not TOML: {title}"), detail);
    }
    errors.is_empty().then(|| table.into_inner())
}

/// What the parser says of a key or a table that is there twice.
const DUPLICATE: &str = "duplicate key";

/// And of what is not separated from what stands before it.
const NO_COMMA: &str = "missing comma";

/// Where the heading begins of the table that `at` is in. `None`: it is above all headings.
fn table_at(text: &str, at: usize) -> Option<usize> {
    let line_end = text
        .get(at..)?
        .find('\n')
        .map_or(text.len(), |end| at + end);
    let lines = text.get(..line_end)?;
    let below = lines.rfind("\n[").map(|newline| newline + 1);
    below.or_else(|| lines.starts_with('[').then_some(0))
}

fn read(schema: Schema, table: &DeTable<'_>, files: &dyn Files, sink: &mut Sink) -> Option<Loaded> {
    let root = Section::root(schema, table, sink);
    let (daemon, policies) = daemon::read(&root.section("daemon", sink), sink);
    let half_open = half_open::read(&root.section("ike", sink), sink);
    let pools = addressing::read_pools(&root, sink);
    let mut templates = Templates::new(files, policies);
    let named = root.section("tunnel", sink).named(sink);
    if named.len() > TUNNELS_MAX {
        let (name, _) = &named[TUNNELS_MAX];
        let title = format!("more than {TUNNELS_MAX} tunnels");
        let label = format!("{} is one too many", quoted(name.value));
        sink.error(name.span.clone(), title, label);
        return None;
    }
    let mut around = Around {
        pools: &pools,
        templates: &mut templates,
        files,
    };
    let drafts: Vec<_> = named
        .iter()
        .map(|(name, section)| tunnel::read(name, section, &mut around, sink))
        .collect();
    checks::between_tunnels(&drafts, sink);
    let tunnels = drafts.into_iter().map(|draft| draft.config.map(Arc::new));
    Some(Loaded {
        config: Config {
            tunnels: tunnels.collect::<Option<_>>()?,
            half_open,
        },
        daemon,
    })
}
