//! The plot: for each fault, what share of the tunnels was dead in the end, and how long the others
//! took, one row for each contender. Colours follow the reader's light or dark scheme.

use std::fmt::Write;

use super::table::{percent, rows};
use crate::evaluation::{Cell, Evaluation};
use crate::outcome::{Contender, Place};

/// All lengths in pixels.
const WIDTH: f64 = 940.0;
const MARGIN: f64 = 16.0;
const ROW: f64 = 17.0;
const GAP: f64 = 14.0;
const LABELS: f64 = 150.0;
const NAMES: f64 = 84.0;
const BARS: f64 = 220.0;
const BARS_AT: f64 = MARGIN + LABELS + NAMES;
const TIMES_AT: f64 = BARS_AT + BARS + 60.0;
/// Times without a silence stand in a column of their own, and so do those that never ended.
const AT_ONCE: f64 = 84.0;
const NEVER: f64 = 84.0;
const TIMES: f64 = WIDTH - MARGIN - TIMES_AT - AT_ONCE - NEVER;

/// The scale of times: logarithmic between these, in seconds.
const SHORTEST: f64 = 1.0;
const LONGEST: f64 = 600.0;
const MARKS: [(f64, &str); 5] = [
    (1.0, "1 s"),
    (5.0, "5 s"),
    (20.0, "20 s"),
    (100.0, "100 s"),
    (600.0, "600 s"),
];

const STYLE: &str = "
  text { font: 12px system-ui, sans-serif; fill: #1f2328 }
  .title { font-weight: 600; font-size: 14px }
  .small { font-size: 11px; fill: #59636e }
  .rule { stroke: #d1d9e0; stroke-width: 1 }
  .back { fill: #eef1f4 }
  .no-gate { fill: #d1571a; stroke: #d1571a }
  .strongswan { fill: #8a6d3b; stroke: #8a6d3b }
  .epochgate { fill: #1769aa; stroke: #1769aa }
  .range { stroke-width: 2 }
  .page { fill: #ffffff }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc }
    .small { fill: #9198a1 }
    .rule { stroke: #3d444d }
    .back { fill: #212830 }
    .no-gate { fill: #f0883e; stroke: #f0883e }
    .strongswan { fill: #c9a86a; stroke: #c9a86a }
    .epochgate { fill: #58a6ff; stroke: #58a6ff }
    .page { fill: #0d1117 }
  }
";

/// `docs/evaluation.svg`.
#[must_use]
pub fn svg(evaluation: &Evaluation) -> String {
    let mut body = String::new();
    let mut y = MARGIN;
    for (place, title) in [
        (Place::Simulator, "In the simulator, over many seeds"),
        (Place::Kernel, "On a real kernel, through a real NAT"),
    ] {
        if !rows(evaluation, place).is_empty() {
            y = panel(&mut body, evaluation, place, title, y) + 2.0 * GAP;
        }
    }
    let height = y.max(2.0 * MARGIN);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" role=\"img\" \
         aria-label=\"Tunnels with and without a gate under the same faults\">\n\
         <style>{STYLE}</style>\n\
         <rect class=\"page\" width=\"{WIDTH}\" height=\"{height}\"/>\n{body}</svg>\n"
    )
}

/// One place; returns where it ends.
fn panel(body: &mut String, evaluation: &Evaluation, place: Place, title: &str, top: f64) -> f64 {
    let mut y = top + 14.0;
    text(body, MARGIN, y, "title", "start", title);
    y += 24.0;
    text(body, BARS_AT, y, "small", "start", "dead in the end");
    let times = "time until traffic flows again: median, line to the 99th percentile";
    text(body, TIMES_AT, y, "small", "start", times);
    y += 10.0;
    let first = y;
    for (fault, cells) in rows(evaluation, place) {
        y += GAP / 2.0;
        text(body, MARGIN, y + 12.0, "", "start", fault.title());
        for cell in cells {
            row(body, cell, y);
            y += ROW;
        }
        y += GAP / 2.0;
        line(body, "rule", (MARGIN, y), (WIDTH - MARGIN, y));
    }
    axis(body, first, y);
    y + 18.0
}

fn row(body: &mut String, cell: &Cell, y: f64) {
    let class = match cell.contender {
        Contender::NoGate => "no-gate",
        Contender::Strongswan => "strongswan",
        Contender::Epochgate => "epochgate",
    };
    let middle = y + ROW / 2.0;
    let baseline = y + 12.0;
    let name = cell.contender.title();
    text(body, MARGIN + LABELS, baseline, "small", "start", name);
    rect(body, "back", (BARS_AT, y + 3.0), (BARS, ROW - 6.0));
    let dead = cell.dead_share();
    if dead > 0.0 {
        let width = (BARS * dead).max(1.5);
        rect(body, class, (BARS_AT, y + 3.0), (width, ROW - 6.0));
    }
    let beside = BARS_AT + BARS + 6.0;
    text(body, beside, baseline, "small", "start", &percent(dead));
    let (median, last) = (time_at(cell.back_median_ms), time_at(cell.back_p99_ms));
    line(
        body,
        &format!("{class} range"),
        (median, middle),
        (last, middle),
    );
    let (up, down) = (middle - 4.0, middle + 4.0);
    line(body, &format!("{class} range"), (last, up), (last, down));
    let _ = writeln!(
        body,
        "<circle class=\"{class}\" cx=\"{median:.1}\" cy=\"{middle:.1}\" r=\"4\"/>"
    );
}

/// Where a time stands.
fn time_at(ms: Option<u64>) -> f64 {
    let seconds = match ms {
        None => return TIMES_AT + AT_ONCE + TIMES + NEVER / 2.0,
        Some(0) => return TIMES_AT + AT_ONCE / 2.0,
        Some(ms) => ms as f64 / 1000.0,
    };
    let share = (seconds / SHORTEST).ln() / (LONGEST / SHORTEST).ln();
    TIMES_AT + AT_ONCE + TIMES * share.clamp(0.0, 1.0)
}

fn axis(body: &mut String, top: f64, bottom: f64) {
    let label = bottom + 14.0;
    for (seconds, name) in MARKS {
        let x = time_at(Some((seconds * 1000.0) as u64));
        line(body, "rule", (x, top), (x, bottom));
        text(body, x, label, "small", "middle", name);
    }
    text(body, time_at(Some(0)), label, "small", "middle", "at once");
    text(body, time_at(None), label, "small", "middle", "never");
    for (share, name) in [(0.0, "0"), (0.5, "50 %"), (1.0, "100 %")] {
        let x = BARS_AT + BARS * share;
        text(body, x, label, "small", "middle", name);
    }
}

fn text(body: &mut String, x: f64, y: f64, class: &str, anchor: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        body,
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>"
    );
}

fn line(body: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    let _ = writeln!(
        body,
        "<line class=\"{class}\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn rect(body: &mut String, class: &str, at: (f64, f64), size: (f64, f64)) {
    let _ = writeln!(
        body,
        "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
        at.0, at.1, size.0, size.1
    );
}
