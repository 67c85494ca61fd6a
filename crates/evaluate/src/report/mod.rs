//! The files that the documentation gets: a page with tables, a plot, and the table of the README.

mod plot;
mod table;

pub use plot::svg;
pub use table::page;

use std::fmt;

use crate::evaluation::Evaluation;

/// What stands before and after the README's table.
const README_BEGIN: &str = "<!-- evaluation: written by scripts/evaluate -->\n";
const README_END: &str = "<!-- end of evaluation -->\n";

/// Why the README could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPlace;

impl fmt::Display for NoPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the README has no lines {README_BEGIN:?} and {README_END:?}"
        )
    }
}

impl std::error::Error for NoPlace {}

/// The README with the evaluation's table between its marks.
///
/// # Errors
/// If the marks are not there.
pub fn readme(text: &str, evaluation: &Evaluation) -> Result<String, NoPlace> {
    let (before, rest) = text.split_once(README_BEGIN).ok_or(NoPlace)?;
    let (_, after) = rest.split_once(README_END).ok_or(NoPlace)?;
    let table = table::summary(evaluation);
    Ok(format!("{before}{README_BEGIN}{table}{README_END}{after}"))
}
