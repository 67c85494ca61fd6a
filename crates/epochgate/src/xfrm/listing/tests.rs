//! What the lists look like on a gateway that has a bit of everything: a snapshot of each screen.

use serde_json::Value;

use super::*;
use crate::xfrm::arguments::FilterArguments;
use crate::xfrm::fixtures;
use crate::xfrm::partners::Budget;

/// The list of SAs, as `epochgate xfrm state` writes it.
fn states_at(width: Option<usize>, is_wanted: impl Fn(&SaEntry) -> bool) -> String {
    let host = fixtures::host();
    let policies = fixtures::index_of_policies(&fixtures::policies());
    let mut table = Table::new(&state::COLUMNS, width, Paint::Plain);
    let mut totals = StateTotals::default();
    let mut text = String::new();
    for entry in fixtures::states().iter().filter(|entry| is_wanted(entry)) {
        let (way, leads) = state::partners(entry, &policies, &host);
        let state = State {
            entry,
            way,
            leads: &leads,
            host: &host,
        };
        totals.add(&state);
        text.push_str(table.add(|row| state::fill(row, &state)));
    }
    text.push_str(table.finish());
    fitting(text + &fitted(&totals.sentence(false), width), width)
}

/// The list of policies, as `epochgate xfrm policy` writes it.
fn policies_at(width: Option<usize>) -> String {
    let host = fixtures::host();
    let states = fixtures::index_of_states(&fixtures::states());
    let mut table = Table::new(&policy::COLUMNS, width, Paint::Plain);
    let mut totals = PolicyTotals::default();
    let mut text = String::new();
    for entry in &fixtures::policies() {
        let outcomes = states.outcomes(&entry.policy);
        let rule = Rule {
            entry,
            outcomes: &outcomes,
            host: &host,
        };
        totals.add(&rule);
        text.push_str(table.add(|row| policy::fill(row, &rule)));
    }
    text.push_str(table.finish());
    fitting(text + &fitted(&totals.sentence(false), width), width)
}

/// An SA on the host of the fixtures, with its partners among `policies`.
fn with_state<T>(entry: &SaEntry, policies: &PolicyIndex, look: impl FnOnce(&State<'_>) -> T) -> T {
    let host = fixtures::host();
    let (way, leads) = state::partners(entry, policies, &host);
    look(&State {
        entry,
        way,
        leads: &leads,
        host: &host,
    })
}

/// A policy on the host of the fixtures, with what comes of it there.
fn with_rule<T>(entry: &PolicyEntry, look: impl FnOnce(&Rule<'_>) -> T) -> T {
    let host = fixtures::host();
    let states = fixtures::index_of_states(&fixtures::states());
    let outcomes = states.outcomes(&entry.policy);
    look(&Rule {
        entry,
        outcomes: &outcomes,
        host: &host,
    })
}

fn fitting(text: String, width: Option<usize>) -> String {
    for line in text.lines() {
        let length = line.chars().count();
        assert!(
            width.is_none_or(|width| length <= width),
            "{length}: {line}"
        );
        assert_eq!(line.trim_end(), line);
    }
    text
}

fn all_in_full(show_keys: bool, width: usize) -> String {
    let policies = fixtures::index_of_policies(&fixtures::policies());
    let wide = |state: &State<'_>| state::wide(state, show_keys, Some(width), Paint::Plain);
    fixtures::states()
        .iter()
        .map(|entry| with_state(entry, &policies, wide))
        .collect()
}

#[test]
fn states_on_80_columns() {
    insta::assert_snapshot!(states_at(Some(80), |_| true));
}

#[test]
fn states_on_200_columns() {
    insta::assert_snapshot!(states_at(Some(200), |_| true));
}

#[test]
fn states_in_a_pipe() {
    insta::assert_snapshot!(states_at(None, |_| true));
}

#[test]
fn states_on_a_very_narrow_terminal() {
    insta::assert_snapshot!(states_at(Some(44), |_| true));
}

#[test]
fn states_in_full() {
    insta::assert_snapshot!(all_in_full(false, 100));
}

#[test]
fn policies_on_80_columns() {
    insta::assert_snapshot!(policies_at(Some(80)));
}

#[test]
fn policies_on_200_columns() {
    insta::assert_snapshot!(policies_at(Some(200)));
}

#[test]
fn policies_in_a_pipe() {
    insta::assert_snapshot!(policies_at(None));
}

#[test]
fn policies_in_full() {
    let wide = |rule: &Rule<'_>| policy::wide(rule, Some(100), Paint::Plain);
    let policies = fixtures::policies();
    let text: String = policies
        .iter()
        .map(|entry| with_rule(entry, wide))
        .collect();
    insta::assert_snapshot!(text);
}

#[test]
fn a_state_as_json() {
    let policies = fixtures::index_of_policies(&fixtures::policies());
    let entry = fixtures::states().swap_remove(5);
    let json = with_state(&entry, &policies, |state| {
        serde_json::to_string_pretty(&state::json::StateJson::of(state, false))
    });
    insta::assert_snapshot!(json.expect("JSON"));
}

#[test]
fn a_policy_as_json() {
    let entry = fixtures::policies().pop().expect("one");
    let json = with_rule(&entry, |rule| {
        serde_json::to_string_pretty(&policy::json::PolicyJson::of(rule))
    });
    insta::assert_snapshot!(json.expect("JSON"));
}

#[test]
fn keys_are_shown_only_when_they_are_asked_for() {
    let key = "abababab";
    assert!(!all_in_full(false, 100).contains(key));
    assert!(all_in_full(true, 100).contains(key));
    let host = fixtures::host();
    for entry in &fixtures::states() {
        let json = |show_keys| {
            let json = state::json::StateJson::of_event(entry, &host, show_keys);
            serde_json::to_string(&json).expect("JSON")
        };
        assert!(!json(false).contains(key));
        assert_eq!(json(true).contains(key), entry.sa.spi.is_some());
    }
}

#[test]
fn json_has_the_same_members_for_every_entry() {
    let host = fixtures::host();
    let members = |json: Value| -> Vec<String> {
        json.as_object()
            .expect("an object")
            .keys()
            .cloned()
            .collect()
    };
    let of = |entry: &SaEntry| {
        let json = state::json::StateJson::of_event(entry, &host, false);
        members(serde_json::to_value(json).expect("JSON"))
    };
    let states = fixtures::states();
    let first = of(states.first().expect("one"));
    assert!(states.iter().all(|entry| of(entry) == first));
}

#[test]
fn nothing_is_said_to_be_nothing() {
    assert_eq!(StateTotals::default().sentence(false), "no SAs\n");
    assert_eq!(PolicyTotals::default().sentence(false), "no policies\n");
}

#[test]
fn partners_that_were_not_looked_for_are_not_said_to_be_missing() {
    let mut policies = fixtures::index_of_policies(&fixtures::policies());
    policies.budget = Budget::of(0);
    let entry = fixtures::sa("203.0.113.9", "198.51.100.7", 0xc5f3_a001, fixtures::OURS);
    let mut totals = StateTotals::default();
    with_state(&entry, &policies, |state| {
        assert!(state.notes().is_empty(), "{:?}", state.notes());
        totals.add(state);
    });
    let sentence = totals.sentence(policies.budget.was_exhausted());
    assert!(
        sentence.contains("not all partners were looked for"),
        "{sentence}"
    );
}

#[test]
fn a_list_that_is_whole_needs_no_note() {
    assert!(shortcomings("SAs", &DumpEnd::default()).is_empty());
}

#[test]
fn a_list_that_changed_or_had_unreadable_entries_says_so() {
    let mut end = DumpEnd::default();
    end.changed = true;
    end.unreadable = 2;
    let notes = shortcomings("SAs", &end).join("\n");
    assert!(
        notes.contains("the list of SAs changed while it was read"),
        "{notes}"
    );
    assert!(notes.contains("2 of the SAs could not be read"), "{notes}");
}

#[test]
fn the_kernel_filters_by_prefixes_of_one_family_only() {
    let filter = |src: &str, dst: &str| {
        Filter::from(&FilterArguments {
            src: Some(fixtures::prefix(src)),
            dst: Some(fixtures::prefix(dst)),
            ..FilterArguments::default()
        })
    };
    assert_eq!(kernel_filter(&filter("10.0.0.0/8", "::/0")), SaFilter::ALL);
    let both = kernel_filter(&filter("10.0.0.0/8", "192.0.2.1/32"));
    assert_eq!(both.source, Some(fixtures::prefix("10.0.0.0/8")));
    assert_eq!(both.destination, Some(fixtures::prefix("192.0.2.1/32")));
}
