//! What the model and this kernel say of a script.

use epochgate_simulator::conformance::{self, Period, Script};

use crate::place::Place;

/// How often a script is run until no timer fired where it could have been seen before or after.
const ATTEMPTS_MAX: usize = 4;

/// What the two said of a script.
pub(crate) enum Verdict {
    Same,
    Different(String),
    /// Timers fired in the middle of steps, each time.
    Undecided,
}

/// Runs a script on both.
///
/// Only what is seen twice counts: the daemon writes a hold by two requests (XFRM_MSG_UPDPOLICY, and
/// then the larval SA's removal), and if a queue's timer fires between them, an ACQUIRE comes once
/// more, or later.
pub(crate) fn verdict(place: &mut Place, script: &Script) -> Verdict {
    let mut once = None;
    for _ in 0..ATTEMPTS_MAX {
        let (real, clock): (Vec<Period>, _) = place.run(script);
        let shown = conformance::on_model(script, &clock);
        let [first, others @ ..] = shown.as_slice() else {
            continue;
        };
        let agree = |other: &Vec<Period>| conformance::difference(first, other).is_none();
        if !others.iter().all(agree) {
            continue;
        }
        match (conformance::difference(first, &real), &once) {
            (None, None) => return Verdict::Same,
            (None, Some(difference)) => {
                println!("{}, not again: {difference}", script.name);
                return Verdict::Same;
            }
            (Some(difference), None) => once = Some(difference),
            (Some(difference), Some(_)) => return Verdict::Different(difference),
        }
    }
    Verdict::Undecided
}

/// Demands the same of all of them.
pub(crate) fn assert_same(place: &mut Place, scripts: &[Script]) {
    let mut wrong = Vec::new();
    for script in scripts {
        match verdict(place, script) {
            Verdict::Same => println!("same: {}", script.name),
            Verdict::Different(difference) => {
                wrong.push(format!("{}: {difference}", script.name));
            }
            Verdict::Undecided => wrong.push(format!("{}: undecided", script.name)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
