//! What can be typed.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

const EXIT_CODES: &str = "\
Exit codes:
  0  every invariant held
  1  an invariant was violated
  2  a mistake in the command line or in a file";

/// Plays scenarios on simulated hosts that run epochgate's own controller.
///
/// A seed makes a world and what goes wrong in it: lost, late and doubled packets, NATs that forget,
/// daemons and hosts that crash, kernels that refuse. Invariants I1 to I4 and I6 are checked after
/// every step; then everything is healed, and I5 asks that every tunnel comes back within its bound.
#[derive(Debug, Parser)]
#[command(name = "epochgate-sim", version, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Play the scenario of one seed.
    Run {
        /// Which.
        #[arg(long)]
        seed: u64,
        /// Draw who sent what to whom, also if every invariant holds.
        #[arg(long)]
        diagram: bool,
        /// Print the scenario as JSON instead of playing it.
        #[arg(long)]
        json: bool,
    },
    /// Play the scenarios of many seeds until one violates an invariant, and shrink that one.
    Search(Search),
    /// Play a scenario from a file.
    Replay {
        /// The scenario as JSON.
        file: PathBuf,
        /// Draw who sent what to whom, also if every invariant holds.
        #[arg(long)]
        diagram: bool,
    },
}

/// Which seeds are searched, and how.
#[derive(Debug, Args)]
pub(crate) struct Search {
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    pub(crate) first: u64,
    /// How many seeds.
    #[arg(long)]
    pub(crate) seeds: u64,
    /// How many are played at a time.
    #[arg(long, default_value = "1")]
    pub(crate) jobs: NonZeroUsize,
    /// Go on after a violation, and list every seed that violates something instead of shrinking one.
    #[arg(long)]
    pub(crate) all: bool,
    /// Write the shrunk scenario to this file.
    #[arg(long, value_name = "FILE", conflicts_with = "all")]
    pub(crate) save: Option<PathBuf>,
}
