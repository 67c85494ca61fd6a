//! The evaluation's page, plot and the README's table say what `docs/evaluation.json` says.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use epochgate_evaluate::{Evaluation, report};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn document(name: &str) -> String {
    fs::read_to_string(repository().join(name)).unwrap()
}

fn evaluation() -> Evaluation {
    serde_json::from_str(&document("docs/evaluation.json")).unwrap()
}

#[test]
fn the_page_and_the_plot_are_written_from_the_json() {
    let evaluation = evaluation();
    assert!(
        document("docs/evaluation.md") == report::page(&evaluation),
        "scripts/evaluate"
    );
    assert!(
        document("docs/evaluation.svg") == report::svg(&evaluation),
        "scripts/evaluate"
    );
}

#[test]
fn the_readme_claims_what_was_measured() {
    let readme = document("README.md");
    assert!(
        report::readme(&readme, &evaluation()).unwrap() == readme,
        "scripts/evaluate"
    );
}

#[test]
fn every_fault_was_tried_without_a_gate_and_with_it() {
    use epochgate_evaluate::{Contender, Fault, Place};
    let evaluation = evaluation();
    for place in [Place::Simulator, Place::Kernel] {
        for fault in Fault::ALL {
            for contender in [Contender::NoGate, Contender::Epochgate] {
                let cell = evaluation.cell(place, fault, contender);
                assert!(cell.is_some(), "{place:?} {fault:?} {contender:?}");
            }
        }
    }
}

#[test]
fn no_gated_tunnel_stayed_dead_and_after_a_crash_all_came_back_within_the_bound() {
    use epochgate_evaluate::{Contender, Fault};
    let evaluation = evaluation();
    let cells = evaluation.cells.iter();
    for cell in cells.filter(|cell| cell.contender == Contender::Epochgate) {
        assert_eq!(cell.dead, 0, "{:?} {:?}", cell.place, cell.fault);
        if cell.fault == Fault::Crash {
            let bound = evaluation.recovery_bound_ms;
            let slowest = cell.back_max_ms;
            assert!(
                slowest.is_some_and(|slowest| slowest <= bound),
                "{slowest:?}"
            );
        }
    }
}
