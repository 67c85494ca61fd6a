//! `epochgate doctor`: whether a tunnel can work on this machine, and if not, what to do.
//!
//! ```text
//! netlink, /proc, nft, iptables ── collect ─→ Facts ── judge (pure) ─→ Findings ── render ─→ screen
//! ```
//!
//! It needs no daemon, changes nothing, and says what this user may not see.

mod collect;
mod facts;
mod finding;
mod judge;
mod render;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use epochgate_controller::pki::UnixTime;

use self::finding::Outcome;
use crate::failure::Failure;
use crate::terminal::Screen;

/// What is asked of the doctor.
pub(crate) struct Question<'a> {
    /// The tunnels to look at; none: all of the configuration.
    pub(crate) tunnels: &'a [String],
    /// The configuration file, if it was named.
    pub(crate) config: Option<&'a Path>,
    /// Where it is otherwise.
    pub(crate) default_config: &'a Path,
    /// Directory of policy templates instead of the one that the file names.
    pub(crate) policies: Option<PathBuf>,
    /// The daemon's control socket.
    pub(crate) socket: &'a Path,
    pub(crate) json: bool,
    pub(crate) now: UnixTime,
}

/// Looks at everything and writes the report.
///
/// # Errors
/// [`Failure::Diagnosed`] with the exit code, unless a tunnel can work.
pub(crate) fn doctor(question: &Question<'_>, screen: &mut Screen) -> Result<(), Failure> {
    let configuration = collect::read_configuration(
        question.config.unwrap_or(question.default_config),
        question.config.is_some(),
        question.policies.clone(),
        question.now,
        question.tunnels,
    )?;
    let facts = collect::collect(configuration, question.socket);
    let findings = judge::judge(&facts);
    let outcome = Outcome::of(&findings);
    let report = if question.json {
        render::json(&facts, &findings, outcome).map_err(|_| Failure::Unexpected)?
    } else {
        let width = render::width(screen.width());
        render::text(&findings, outcome, screen.paint(), width)
    };
    screen.write(&report)?;
    match outcome.exit_code() {
        0 => Ok(()),
        code => Err(Failure::Diagnosed(code)),
    }
}

/// Asks the kernel from a network namespace of this process's own, and writes the answers for the
/// process that asked for them.
///
/// # Errors
/// As the output fails.
pub(crate) fn probe(screen: &mut Screen) -> Result<(), Failure> {
    let json = serde_json::to_string(&collect::probe()).map_err(|_| Failure::Unexpected)?;
    screen.write(&json)
}
