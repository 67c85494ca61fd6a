//! What the gate is worth: tunnels with and without it, under the same faults.
//!
//! Simulations (`simulation`, with the feature `ungated`) and the real kernel (a program of
//! `integration`) each write one [`Run`] per line of JSON: what became of every tunnel of an office
//! after one fault. [`evaluation`] makes cells of them, and [`report`] writes `docs/evaluation.json`,
//! `.md` and `.svg` and the table in the README from those.
//!
//! `scripts/evaluate` does all of it.

pub mod evaluation;
pub mod outcome;
pub mod report;
#[cfg(feature = "ungated")]
pub mod simulation;

pub use evaluation::{Cell, Evaluation, NotTried};
pub use outcome::{Contender, Fault, Place, Run, TunnelOutcome};
