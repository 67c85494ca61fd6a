//! The findings as text for a person, and as JSON for a program.

use serde::Serialize;

use super::facts::Facts;
use super::finding::{Finding, Outcome, Verdict};
use crate::terminal::{Paint, Tone, WIDTH, harmless, wrapped};

/// Version of the JSON. It grows when something that was there changes its meaning or goes.
pub(super) const SCHEMA: u32 = 1;
/// Columns before the text of each finding.
const INDENT: usize = 10;
/// Columns that the text never gets less of, whatever the terminal says.
const TEXT_WIDTH_MIN: usize = 30;
/// Lines of a detail that are laid out already (a mistake with its caret) at most.
const DETAIL_LINES_MAX: usize = 200;

/// The report.
pub(super) fn text(findings: &[Finding], outcome: Outcome, paint: Paint, width: usize) -> String {
    let width = width.max(INDENT + TEXT_WIDTH_MIN);
    let mut text = String::new();
    let mut topic = None;
    for finding in findings {
        if topic != Some(finding.topic) {
            if topic.is_some() {
                text.push('\n');
            }
            text.push_str(&paint.paint(Tone::Name, finding.topic.title()));
            text.push('\n');
            topic = Some(finding.topic);
        }
        one(finding, paint, width, &mut text);
    }
    text.push('\n');
    text.push_str(&summary(findings, outcome, paint, width));
    text
}

fn one(finding: &Finding, paint: Paint, width: usize, text: &mut String) {
    let (word, tone) = match finding.verdict {
        Verdict::Good => ("good", Tone::Good),
        Verdict::Warn => ("warn", Tone::Waiting),
        Verdict::Unknown => ("unknown", Tone::Waiting),
        Verdict::Bad => ("bad", Tone::Bad),
    };
    let summary = match &finding.tunnel {
        Some(tunnel) => format!("{tunnel}: {}", finding.summary),
        None => finding.summary.clone(),
    };
    // The colour takes no column.
    let padding = " ".repeat(INDENT - 2 - word.len());
    let mut label = format!("  {}{padding}", paint.paint(tone, word));
    for line in wrapped(&harmless(&summary), width - INDENT) {
        text.push_str(&label);
        text.push_str(&line);
        text.push('\n');
        label = " ".repeat(INDENT);
    }
    if finding.verdict == Verdict::Good {
        return;
    }
    if let Some(detail) = &finding.detail {
        block(&harmless(detail), "", width, text);
    }
    for cure in &finding.cure {
        block(&harmless(cure), "-> ", width, text);
    }
}

/// An indented text. One of several lines is laid out already.
fn block(content: &str, mark: &str, width: usize, text: &mut String) {
    let margin = " ".repeat(INDENT);
    if content.lines().count() > 1 {
        for line in content.lines().take(DETAIL_LINES_MAX) {
            text.push_str(format!("{margin}{line}").trim_end());
            text.push('\n');
        }
        return;
    }
    let mut mark = mark.to_owned();
    for line in wrapped(content, width - INDENT - mark.len()) {
        text.push_str(&format!("{margin}{mark}{line}\n"));
        mark = " ".repeat(mark.len());
    }
}

fn count(findings: &[Finding], verdict: Verdict) -> usize {
    findings
        .iter()
        .filter(|finding| finding.verdict == verdict)
        .count()
}

fn summary(findings: &[Finding], outcome: Outcome, paint: Paint, width: usize) -> String {
    let tone = match outcome {
        Outcome::CanWork => Tone::Good,
        Outcome::CannotWork | Outcome::Mistakes => Tone::Bad,
        Outcome::Unknown => Tone::Waiting,
    };
    let warnings = match count(findings, Verdict::Warn) {
        1 => "warning",
        _ => "warnings",
    };
    let counts: Vec<String> = [
        (Verdict::Bad, "bad"),
        (Verdict::Warn, warnings),
        (Verdict::Unknown, "unknown"),
        (Verdict::Good, "good"),
    ]
    .into_iter()
    .map(|(verdict, word)| (count(findings, verdict), word))
    .filter(|(count, _)| *count > 0)
    .map(|(count, word)| format!("{count} {word}"))
    .collect();
    let mut lines = wrapped(
        &format!("{}: {}", sentence(outcome), counts.join(", ")),
        width,
    );
    for line in &mut lines {
        *line = paint.paint(tone, line);
    }
    lines.join("\n") + "\n"
}

fn sentence(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::CanWork => "A tunnel can work",
        Outcome::CannotWork => "A tunnel can't work",
        Outcome::Mistakes => "The configuration has mistakes",
        Outcome::Unknown => "It can't be told whether a tunnel can work",
    }
}

/// The width of lines: of a terminal's, or what reads well.
pub(super) fn width(of_screen: Option<usize>) -> usize {
    of_screen.unwrap_or(WIDTH)
}

#[derive(Serialize)]
struct Report<'a> {
    schema: u32,
    version: &'static str,
    kernel: &'a str,
    configuration: &'a str,
    outcome: Outcome,
    exit_code: u8,
    findings: &'a [Finding],
}

/// The same as JSON (docs/doctor.md).
pub(super) fn json(
    facts: &Facts,
    findings: &[Finding],
    outcome: Outcome,
) -> serde_json::Result<String> {
    let report = Report {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION"),
        kernel: &facts.kernel.release,
        configuration: &facts.configuration.file,
        outcome,
        exit_code: outcome.exit_code(),
        findings,
    };
    Ok(serde_json::to_string_pretty(&report)? + "\n")
}
