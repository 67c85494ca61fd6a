//! What happened, and what happens: the daemon's events as lines for a person or as JSON.

use epochgate_control::{EventRecord, EventsWanted, Level, Request, Response};
use serde_json::{Map, Value, json};

use crate::cli::PATIENCE;
use crate::client::Client;
use crate::failure::Failure;
use crate::interrupt;
use crate::terminal::{Paint, Screen, Tone, harmless, wrapped};

/// Columns before the second and further lines of an event.
const INDENT: usize = 6;

/// Least columns of a sentence.
const SENTENCE_MIN: usize = 20;

/// Characters of a time that are shown: milliseconds are enough.
const TIME_LEN: usize = "2026-01-02T03:04:05.678".len();

/// Writes the events that are wanted.
pub(crate) fn show(
    client: &Client<'_>,
    wanted: EventsWanted,
    json: bool,
    screen: &mut Screen,
) -> Result<(), Failure> {
    let follow = wanted.follow;
    if follow {
        interrupt::is_a_good_end();
    }
    let mut answers = client.begin(&Request::Events(wanted), PATIENCE)?;
    loop {
        let response = match answers.received()? {
            Some(response) => response,
            None if follow => {
                // All that has come so far is seen before the wait.
                screen.flush()?;
                answers.wait(screen.output())?;
                continue;
            }
            None => answers.within(PATIENCE)?,
        };
        let text = match response {
            Response::Event { record } if json => line_of(&*record)?,
            Response::Event { record } => sentence(&record, screen.paint(), screen.width()),
            Response::LeftOut { count } if json => line_of(&left_out(count))?,
            Response::LeftOut { count } => {
                let text = screen.paint().paint(Tone::Waiting, &missed(count));
                text + "\n"
            }
            Response::Done if !follow => return Ok(()),
            Response::Stopping => {
                screen.flush()?;
                return Err(Failure::Stopped);
            }
            Response::Failed { message } => return Err(Failure::Refused(message)),
            Response::Done | Response::Status { .. } => return Err(Failure::Unexpected),
        };
        screen.write(&text)?;
    }
}

fn missed(count: u64) -> String {
    format!("{count} events were left out: this reader was too slow")
}

fn left_out(count: u64) -> Value {
    json!({"level": "warn", "message": missed(count), "event": "left-out", "count": count})
}

fn line_of(value: &impl serde::Serialize) -> Result<String, Failure> {
    let line = serde_json::to_string(value).map_err(|_| Failure::Unexpected)?;
    Ok(line + "\n")
}

/// An event as the log tells it.
fn sentence(record: &EventRecord, paint: Paint, width: Option<usize>) -> String {
    let time = record.time.get(..TIME_LEN).unwrap_or(&record.time);
    let (level, tone) = match record.level {
        Level::Trace => ("TRACE", None),
        Level::Debug => ("DEBUG", None),
        Level::Info => (" INFO", None),
        Level::Warn => (" WARN", Some(Tone::Waiting)),
        Level::Error => ("ERROR", Some(Tone::Bad)),
    };
    let of = match (&record.tunnel, record.epoch) {
        (Some(tunnel), Some(epoch)) => format!("{tunnel}/{epoch}: "),
        (Some(tunnel), None) => format!("{tunnel}: "),
        (None, _) => String::new(),
    };
    let told = format!("{of}{}{}", record.message, others(&record.fields));
    let words: Vec<&str> = told.split_whitespace().collect();
    let told = words.join(" ");
    let told = harmless(&told);
    let head = format!("{}Z {level} ", harmless(time));
    let coloured = |text: &str| match tone {
        Some(tone) => paint.paint(tone, text),
        None => text.to_owned(),
    };
    let head_width = head.chars().count();
    let Some(width) = width.filter(|width| *width >= head_width + SENTENCE_MIN) else {
        return format!("{}{told}\n", coloured(&head));
    };
    // The first line has less room than the others.
    let first = wrapped(&told, width - head_width).into_iter().next();
    let first = first.unwrap_or_default();
    let rest = told.get(first.len()..).unwrap_or_default();
    let mut text = format!("{}{first}\n", coloured(&head));
    for line in wrapped(rest, width - INDENT) {
        text.push_str(&format!("{:INDENT$}{line}\n", ""));
    }
    text
}

/// Fields that the sentence does not tell: those of a controller's event it does.
fn others(fields: &Map<String, Value>) -> String {
    if fields.contains_key("event") {
        return String::new();
    }
    let told = fields
        .iter()
        .map(|(name, value)| format!(" {name}={value}"));
    told.collect()
}

#[cfg(test)]
mod tests;
