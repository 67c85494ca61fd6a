//! Plays a scenario and shows what came of it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::Result;
use epochgate_controller::Timestamp;
use epochgate_simulator::diagram;
use epochgate_simulator::scenario::{Options, Outcome, Scenario, run};
use epochgate_simulator::trace::Recording;

/// What a scenario violates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Which invariant; `panic` where the program itself broke.
    pub(crate) invariant: String,
    /// What was seen.
    pub(crate) what: String,
}

/// Plays a scenario without keeping a record.
pub(crate) fn failure(scenario: &Scenario) -> Option<Failure> {
    // The world is made anew in each run: nothing that a panic left half done is seen again.
    match catch_unwind(AssertUnwindSafe(|| run(scenario, &Options::default()))) {
        Ok(outcome) => outcome.violation.map(|violation| Failure {
            invariant: violation.invariant.into(),
            what: violation.what,
        }),
        Err(_) => Some(Failure {
            invariant: "panic".into(),
            what: "the program panicked; its message is above".into(),
        }),
    }
}

/// Plays a scenario and tells what came of it; whether every invariant held.
pub(crate) fn play(scenario: &Scenario, with_diagram: bool) -> Result<bool> {
    let options = Options {
        recording: Recording::All,
    };
    let outcome = run(scenario, &options);
    if with_diagram || outcome.violation.is_some() {
        print!("{}", diagram::draw(&outcome.trace, &outcome.lanes));
    }
    println!("{}", verdict(scenario, &outcome));
    Ok(outcome.violation.is_none())
}

fn verdict(scenario: &Scenario, outcome: &Outcome) -> String {
    if let Some(violation) = &outcome.violation {
        let at = violation.at.since(Timestamp::ZERO);
        return format!(
            "seed {}, {at:?}: {} violated: {}",
            violation.seed, violation.invariant, violation.what
        );
    }
    let recovered: Vec<String> = outcome
        .recovered
        .iter()
        .map(|after| format!("{:.1} s", after.as_secs_f64()))
        .collect();
    format!(
        "seed {}: every invariant held; tunnels open {} after everything was healed",
        scenario.seed,
        recovered.join(", ")
    )
}

/// A scenario as a file has it.
pub(crate) fn json(scenario: &Scenario) -> Result<String> {
    Ok(serde_json::to_string_pretty(scenario)?)
}
