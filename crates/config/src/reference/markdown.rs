//! The reference as `docs/configuration.md`.

use super::prose::{self, KeysOf, PROSE};

/// What stands above the page.
const NOTICE: &str = "<!-- Made from crates/config/src/reference by its test: \
                      UPDATE_GOLDEN=1 cargo test -p epochgate-config --test reference -->";

/// The whole page.
#[must_use]
pub fn markdown() -> String {
    let mut page = format!("{NOTICE}\n");
    for line in PROSE.lines() {
        match prose::keys_of(line) {
            Some(keys) => page.push_str(&table(keys)),
            None => {
                page.push_str(&prose::filled(line));
                page.push('\n');
            }
        }
    }
    page
}

fn table(keys: KeysOf) -> String {
    let rows: Vec<[String; 5]> = keys
        .keys()
        .into_iter()
        .map(|(name, key)| {
            [
                format!("`{name}`"),
                key.kind.shown(),
                key.shown_default(),
                key.kind.shown_bounds(),
                key.shown_meaning(),
            ]
        })
        .collect();
    let has_bounds = rows.iter().any(|[_, _, _, bounds, _]| !bounds.is_empty());
    let line = |[name, kind, default, bounds, meaning]: [&str; 5]| match has_bounds {
        true => format!("| {name} | {kind} | {default} | {bounds} | {meaning} |\n"),
        false => format!("| {name} | {kind} | {default} | {meaning} |\n"),
    };
    let mut table = line(["key", "kind", "default", "bounds", "meaning"]);
    table.push_str(match has_bounds {
        true => "|---|---|---|---|---|\n",
        false => "|---|---|---|---|\n",
    });
    for row in &rows {
        // A cell without anything is one blank.
        table.push_str(&line(row.each_ref().map(String::as_str)).replace("|  |", "| |"));
    }
    table
}
