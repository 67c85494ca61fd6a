//! What the counters look like: a snapshot of each screen.

use super::*;

const QUIET: &str = "XfrmInError             \t0\nXfrmInNoStates          \t0\n";
const BEFORE: &str = "\
XfrmInError             \t0
XfrmInNoStates          \t118
XfrmInTmplMismatch      \t2
XfrmOutNoStates         \t40001
XfrmInCosmicRays        \t3
";
const AFTER: &str = "\
XfrmInError             \t0
XfrmInNoStates          \t118
XfrmInTmplMismatch      \t7
XfrmOutNoStates         \t52501
XfrmInCosmicRays        \t3
";

fn counters(text: &str) -> Counters {
    Counters::parse(text).expect("well formed")
}

fn shown(width: usize, watched: bool) -> String {
    let (before, now) = (counters(BEFORE), counters(AFTER));
    let readings = Readings {
        now: &now,
        before: watched.then_some((&before, 2.5)),
    };
    let text = render(&readings, false, Some(width), Paint::Plain);
    for line in text.lines() {
        assert!(line.chars().count() <= width, "{line}");
    }
    text
}

#[test]
fn counters_on_80_columns() {
    insta::assert_snapshot!(shown(80, false));
}

#[test]
fn counters_on_200_columns() {
    insta::assert_snapshot!(shown(200, false));
}

#[test]
fn counters_that_grow_come_first_with_their_rates() {
    let text = shown(80, true);
    insta::assert_snapshot!(text);
    let first = text.lines().next().unwrap_or_default();
    assert!(first.starts_with("XfrmInTmplMismatch"), "{first}");
}

#[test]
fn a_quiet_kernel_is_said_to_be_quiet() {
    let now = counters(QUIET);
    let readings = Readings {
        now: &now,
        before: None,
    };
    let text = render(&readings, false, Some(80), Paint::Plain);
    assert_eq!(
        text,
        "Nothing was dropped: 2 counters are zero (--all explains those, too).\n"
    );
    let text = render(&readings, true, Some(80), Paint::Plain);
    assert!(text.contains("no SA has its destination"), "{text}");
    assert!(!text.contains("Likely"), "{text}");
}

#[test]
fn json_has_all_counters_with_what_they_mean() {
    let (before, now) = (counters(BEFORE), counters(AFTER));
    let readings = Readings {
        now: &now,
        before: Some((&before, 2.5)),
    };
    let line = json(&readings).expect("JSON");
    let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let counters = value["counters"].as_array().expect("an array");
    assert_eq!(counters.len(), 5);
    assert_eq!(value["schema"], 1);
    assert_eq!(counters[3]["name"], "XfrmOutNoStates");
    assert_eq!(counters[3]["value"], 52_501);
    assert_eq!(counters[3]["grown"], 12_500);
    assert_eq!(counters[3]["per_second"], 5_000.0);
    assert!(counters[4]["meaning"].is_null());
}
