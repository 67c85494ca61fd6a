//! Makes a script that shows a difference shorter.

use super::{Script, Step};

/// Tries that are made at most: each may take a real kernel seconds.
const TRIES_MAX: usize = 60;

/// Leaves out steps, many at a time and then one by one, as long as `differs` still says so.
pub fn shrink(script: &Script, mut differs: impl FnMut(&Script) -> bool) -> Script {
    let mut best = script.clone();
    let mut chunk = best.steps.len() / 2;
    let mut tries = 0;
    while chunk > 0 && tries < TRIES_MAX {
        let mut at = 0;
        while at < best.steps.len() && tries < TRIES_MAX {
            let mut shorter = best.clone();
            let end = (at + chunk).min(shorter.steps.len());
            shorter.steps.drain(at..end);
            // What nobody waits for is not seen.
            let seen = matches!(shorter.steps.last(), Some(Step::Wait(_)));
            tries += 1;
            if seen && differs(&shorter) {
                best = shorter;
            } else {
                at += chunk;
            }
        }
        chunk /= 2;
    }
    best
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::conformance::Intrusion;

    #[test]
    fn what_does_not_matter_is_left_out() {
        let mut script = crate::conformance::random(7);
        script.steps.insert(3, Step::Intrusion(Intrusion::FlushSas));
        script.steps.push(Step::Wait(Duration::from_secs(1)));
        let flushes = |script: &Script| {
            let mut steps = script.steps.iter();
            steps.any(|step| matches!(step, Step::Intrusion(Intrusion::FlushSas)))
        };
        let short = shrink(&script, flushes);
        assert!(flushes(&short));
        assert_eq!(short.steps.len(), 2, "{:?}", short.steps);
    }
}
