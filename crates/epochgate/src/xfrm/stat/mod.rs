//! `epochgate xfrm stat`: the kernel's IPsec counters with what they mean, which of them grow, and
//! what to do about it. Rendered from the counters alone.

mod counters;

use std::collections::HashMap;
use std::fmt::Write as _;

use epochgate_xfrm::counters::Counters;
use serde::Serialize;

use self::counters::{Counter, known};
use super::json::SCHEMA;
use super::words;
use crate::terminal::{Paint, Tone, WIDTH, harmless, wrapped};

/// Columns of indentation before an explanation.
const INDENT: usize = 6;
/// Columns of a counter's name and of its value.
const NAME_WIDTH: usize = 24;
const VALUE_WIDTH: usize = 14;
/// Widest lines of prose: longer ones are hard to read.
const PROSE_WIDTH: usize = 100;

/// Two readings of the counters, or one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Readings<'a> {
    pub(crate) now: &'a Counters,
    /// The one before, and how many seconds lie between.
    pub(crate) before: Option<(&'a Counters, f64)>,
}

/// A counter and how it grows.
#[derive(Debug)]
struct Value<'a> {
    name: &'a str,
    value: u64,
    /// Since the reading before.
    grown: Option<u64>,
    /// A second.
    rate: Option<f64>,
    known: Option<&'static Counter>,
}

fn values<'a>(readings: &Readings<'a>) -> Vec<Value<'a>> {
    let before: Option<(HashMap<&str, u64>, f64)> = readings
        .before
        .map(|(counters, seconds)| (counters.iter().collect(), seconds));
    let one = |(name, value): (&'a str, u64)| {
        let grown = before.as_ref().map(|(before, seconds)| {
            let earlier = before.get(name).copied().unwrap_or(0);
            (value.saturating_sub(earlier), *seconds)
        });
        #[expect(
            clippy::cast_precision_loss,
            reason = "a rate is shown with few digits"
        )]
        let rate = |(grown, seconds): (u64, f64)| grown as f64 / seconds;
        Value {
            name,
            value,
            grown: grown.map(|(grown, _)| grown),
            rate: grown.filter(|(_, seconds)| *seconds > 0.0).map(rate),
            known: known(name),
        }
    };
    readings.now.iter().map(one).collect()
}

/// The screen: counters that grow first, then those that are not zero, then, with `all`, the rest.
pub(crate) fn render(
    readings: &Readings<'_>,
    all: bool,
    width: Option<usize>,
    paint: Paint,
) -> String {
    let mut values = values(readings);
    values.sort_by_key(|value| match (value.grown, value.value) {
        (Some(1..), _) => 0,
        (Some(0) | None, 1..) => 1,
        (Some(0) | None, 0) => 2,
    });
    let width = width.unwrap_or(WIDTH).clamp(WIDTH / 2, PROSE_WIDTH);
    let mut text = String::new();
    let mut zeros = 0_u64;
    for value in &values {
        if value.value == 0 && !all {
            zeros += 1;
            continue;
        }
        text.push_str(&block(value, width, paint));
    }
    if zeros > 0 {
        let nothing = if text.is_empty() {
            "Nothing was dropped: "
        } else {
            ""
        };
        let zeros = words::counted(zeros, "counter is", "counters are");
        let _ = writeln!(text, "{nothing}{zeros} zero (--all explains those, too).");
    }
    text
}

fn block(value: &Value<'_>, width: usize, paint: Paint) -> String {
    let name = harmless(value.name);
    let number = words::digits(value.value);
    let head = format!("{name:<NAME_WIDTH$}{number:>VALUE_WIDTH$}");
    let mut text = match (value.value, value.grown) {
        (0, _) => head,
        (_, Some(1..)) => paint.paint(Tone::Bad, &head),
        (_, Some(0) | None) => paint.paint(Tone::Waiting, &head),
    };
    if let (Some(grown), Some(rate)) = (value.grown, value.rate) {
        let _ = write!(text, "  +{} ({rate:.1}/s)", words::digits(grown));
    }
    text.push('\n');
    let mut add = |sentence: &str| {
        for line in wrapped(sentence, width - INDENT) {
            let _ = writeln!(text, "{:INDENT$}{line}", "");
        }
    };
    match value.known {
        Some(counter) => {
            add(counter.meaning);
            if value.value > 0 {
                add(&format!("Likely: {}", counter.cause));
                add(&format!("Do: {}", counter.remedy));
            }
        }
        None => add(
            "This version does not know it. The kernel's documentation may: \
             https://docs.kernel.org/networking/xfrm_proc.html",
        ),
    }
    text
}

/// The counters as JSON.
#[derive(Debug, Serialize)]
struct StatJson<'a> {
    schema: u32,
    /// Seconds between the two readings; `null` for the first.
    seconds: Option<f64>,
    counters: Vec<CounterJson<'a>>,
}

#[derive(Debug, Serialize)]
struct CounterJson<'a> {
    name: &'a str,
    value: u64,
    /// Since the reading before; `null` for the first.
    grown: Option<u64>,
    per_second: Option<f64>,
    /// `null` for a counter that this version does not know.
    meaning: Option<&'static str>,
    likely_cause: Option<&'static str>,
    what_to_do: Option<&'static str>,
}

/// All counters, also those that are zero, as one line of JSON.
pub(crate) fn json(readings: &Readings<'_>) -> serde_json::Result<String> {
    let values = values(readings);
    let counters = values.iter().map(|value| CounterJson {
        name: value.name,
        value: value.value,
        grown: value.grown,
        per_second: value.rate,
        meaning: value.known.map(|counter| counter.meaning),
        likely_cause: value.known.map(|counter| counter.cause),
        what_to_do: value.known.map(|counter| counter.remedy),
    });
    let stat = StatJson {
        schema: SCHEMA,
        seconds: readings.before.map(|(_, seconds)| seconds),
        counters: counters.collect(),
    };
    Ok(serde_json::to_string(&stat)? + "\n")
}

#[cfg(test)]
mod tests;
