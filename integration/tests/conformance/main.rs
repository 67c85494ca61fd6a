//! The simulator's kernel model against this kernel: the same script on both, and the same is seen.
//!
//! ```text
//! LAN 10.1.9.5 ── 10.1.0.1 host 203.0.113.1 ── 203.0.113.2 peer 10.2.0.1
//! ```
//!
//! The host's kernel is driven as the daemon drives it, by its own code. What leaves is caught at the
//! peer, which also makes the ESP that comes in; both know the keys.
#![cfg(feature = "kernel")]
#![allow(clippy::panic, reason = "a difference is reported by failing the test")]

mod packet;
mod place;
mod verdict;

use epochgate_simulator::conformance;
use place::Place;
use verdict::{Verdict, assert_same, verdict};

#[test]
fn every_fact_that_the_gate_relies_on_is_the_same_in_the_model() {
    let mut place = Place::new("conformance_facts");
    assert_same(&mut place, &conformance::facts());
}

/// Scripts from seeds; `EPOCHGATE_CONFORMANCE=FIRST:COUNT` runs others.
#[test]
fn random_scripts_show_the_same_on_the_model() {
    let (first, count) = seeds();
    let mut place = Place::new("conformance_random");
    let mut decided = 0;
    for seed in first..first + count {
        let script = conformance::random(seed);
        match verdict(&mut place, &script) {
            Verdict::Same => decided += 1,
            Verdict::Undecided => println!("{}: undecided", script.name),
            Verdict::Different(first) => {
                println!("{}: {first}", script.name);
                let differs = |script: &conformance::Script| {
                    matches!(verdict(&mut place, script), Verdict::Different(_))
                };
                let short = conformance::shrink(&script, differs);
                let steps: Vec<String> = short
                    .steps
                    .iter()
                    .map(|step| format!("  {step:?}"))
                    .collect();
                let Verdict::Different(difference) = verdict(&mut place, &short) else {
                    panic!("{}: {first}", script.name);
                };
                panic!(
                    "{}, shrunk: {difference}\n{}",
                    script.name,
                    steps.join("\n")
                );
            }
        }
    }
    println!("{decided} of {count} scripts from seed {first} on: the same");
    assert!(
        decided * 2 > count,
        "only {decided} of {count} were decided"
    );
}

fn seeds() -> (u64, u64) {
    const DEFAULT: (u64, u64) = (1, 12);
    let Ok(text) = std::env::var("EPOCHGATE_CONFORMANCE") else {
        return DEFAULT;
    };
    let (first, count) = text.split_once(':').expect("FIRST:COUNT");
    let number = |text: &str| text.parse().expect("a number");
    (number(first), number(count))
}
