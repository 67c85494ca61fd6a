//! The daemon's command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// IPsec controller: holds traffic in the kernel until a control ping has proven the way.
///
/// Exit status: 0 after SIGTERM or SIGINT, 1 when something fails at run time, 2 when the
/// configuration or the command line is wrong.
#[derive(Clone, Debug, Parser)]
#[command(name = "epochgated", version)]
pub struct Arguments {
    /// Configuration file (TOML).
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/epochgate/epochgate.toml"
    )]
    pub config: PathBuf,

    /// Unix socket for `epochgate` commands, instead of the configuration's `daemon.socket`.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// Directory with policy templates, instead of the configuration's `daemon.policies`.
    #[arg(long, value_name = "DIR")]
    pub policies: Option<PathBuf>,

    /// Directory for the lock and the record of changed kernel settings, instead of the
    /// configuration's `daemon.state-dir`.
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,

    /// Form of the log on standard error.
    #[arg(long, value_name = "FORM", value_enum, default_value_t)]
    pub log_format: LogFormat,

    /// Check the configuration, say what is wrong, and exit.
    #[arg(long)]
    pub check: bool,

    /// Take away all that earlier runs have left on this host, and exit: SAs, policies, routes,
    /// interfaces, addresses, the changed kernel setting.
    ///
    /// Traffic that was held then leaves unprotected. Refused while a daemon runs. The packages do
    /// this when they are removed.
    #[arg(long, conflicts_with = "check")]
    pub remove_leftovers: bool,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One readable line per event.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
