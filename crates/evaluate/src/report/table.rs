//! Tables in Markdown: the page of the documentation, and the short one of the README.

use std::fmt::Write;

use crate::evaluation::{Cell, Evaluation};
use crate::outcome::{Contender, Fault, Place};

/// The page around the tables.
const PAGE: &str = include_str!("page.md");
/// Its part about the real kernel.
const KERNEL: &str = include_str!("kernel.md");

/// `docs/evaluation.md`.
#[must_use]
pub fn page(evaluation: &Evaluation) -> String {
    let unknown = || "not tried".to_owned();
    let kernel = if rows(evaluation, Place::Kernel).is_empty() {
        ""
    } else {
        KERNEL
    };
    PAGE.replace("{kernel section}", kernel)
        .replace("{simulator}", &full(evaluation, Place::Simulator))
        .replace("{kernel}", &full(evaluation, Place::Kernel))
        .replace("{not tried}", &not_tried(evaluation))
        .replace("{bound}", &time(Some(evaluation.recovery_bound_ms)))
        .replace("{watched}", &watched(evaluation))
        .replace(
            "{release}",
            &evaluation.kernel.clone().unwrap_or_else(unknown),
        )
        .replace(
            "{strongswan}",
            &evaluation.strongswan.clone().unwrap_or_else(unknown),
        )
}

/// What was left out, and why, one a line.
fn not_tried(evaluation: &Evaluation) -> String {
    let mut text = String::new();
    for one in &evaluation.not_tried {
        let _ = writeln!(text, "- {}: {}.", one.what, one.why);
    }
    text
}

/// The shortest time that any run on the real kernel was watched, in seconds.
fn watched(evaluation: &Evaluation) -> String {
    let kernel = evaluation.cells.iter();
    let kernel = kernel.filter(|cell| cell.place == Place::Kernel);
    let shortest = kernel.map(|cell| cell.watched_s).min();
    shortest.unwrap_or_default().to_string()
}

/// All cells of one place.
fn full(evaluation: &Evaluation, place: Place) -> String {
    let mut text = String::from(
        "| fault | tunnels of | runs | tunnels | dead | packets lost | to the wrong client \
         | flows again, median | 99 % | slowest | pings per tunnel |\n\
         |---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for (fault, cells) in rows(evaluation, place) {
        for (index, cell) in cells.iter().enumerate() {
            let title = if index == 0 { fault.title() } else { "" };
            let _ = writeln!(
                text,
                "| {title} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {:.1} |",
                cell.contender.title(),
                cell.runs,
                cell.tunnels,
                percent(cell.dead_share()),
                percent(cell.lost_share()),
                grouped(cell.misdelivered),
                time(cell.back_median_ms),
                time(cell.back_p99_ms),
                time(cell.back_max_ms),
                cell.pings_per_tunnel(),
            );
        }
    }
    text
}

/// The README's table: how many tunnels are dead in the end, and how long the others took.
pub(super) fn summary(evaluation: &Evaluation) -> String {
    let mut text = String::from(
        "| | no gate: dead | to the wrong client | epochgate: dead | to the wrong client \
         | flows again, median | 99 % |\n|---|---:|---:|---:|---:|---:|---:|\n",
    );
    for fault in Fault::ALL {
        let cell = |contender| evaluation.cell(Place::Simulator, fault, contender);
        let (Some(without), Some(with)) = (cell(Contender::NoGate), cell(Contender::Epochgate))
        else {
            continue;
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} |",
            fault.title(),
            percent(without.dead_share()),
            grouped(without.misdelivered),
            percent(with.dead_share()),
            grouped(with.misdelivered),
            time(with.back_median_ms),
            time(with.back_p99_ms),
        );
    }
    text
}

/// The cells of a place by fault, those without any left out.
pub(super) fn rows(evaluation: &Evaluation, place: Place) -> Vec<(Fault, Vec<&Cell>)> {
    let cells = |fault| {
        let found = Contender::ALL.map(|contender| evaluation.cell(place, fault, contender));
        found.into_iter().flatten().collect::<Vec<_>>()
    };
    Fault::ALL
        .map(|fault| (fault, cells(fault)))
        .into_iter()
        .filter(|(_, cells)| !cells.is_empty())
        .collect()
}

/// A share, with a decimal where it would look like none or all of them.
pub(super) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent == 0.0 || percent == 100.0 {
        format!("{percent:.0} %")
    } else if percent < 0.05 {
        "< 0.1 %".into()
    } else if percent > 99.95 {
        "> 99.9 %".into()
    } else {
        format!("{percent:.1} %")
    }
}

/// A number with commas between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn time(ms: Option<u64>) -> String {
    match ms {
        None => "never".into(),
        Some(0) => "at once".into(),
        Some(ms) => format!("{:.1} s", ms as f64 / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_read_by_thousands() {
        assert_eq!([0, 999, 1000].map(grouped), ["0", "999", "1,000"]);
        assert_eq!(grouped(4_514_723), "4,514,723");
    }

    #[test]
    fn a_small_share_never_looks_like_none() {
        assert_eq!(percent(0.0), "0 %");
        assert_eq!(percent(0.0001), "< 0.1 %");
        assert_eq!(percent(0.9999), "> 99.9 %");
        assert_eq!(percent(0.25), "25.0 %");
    }
}
