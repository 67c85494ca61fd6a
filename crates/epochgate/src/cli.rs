//! What can be typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use epochgate_config::parse_duration;
use epochgate_control::DEFAULT_SOCKET;

pub use crate::xfrm::arguments as xfrm;

/// How long the daemon may take over what needs no answer of a peer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Longest `--timeout`.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// Where the daemon's configuration is installed.
pub(crate) const DEFAULT_CONFIG: &str = "/etc/epochgate/epochgate.toml";

const EXIT_CODES: &str = "\
Exit codes:
  0  it is done
  1  it failed, or the tunnel is unknown; the message says why and what to do
  2  a mistake in the command line or in the configuration file
  3  the daemon is not running, or it ended while its events were followed
  4  this user may not: the daemon's socket, or the kernel's IPsec, is not open to it
  5  no answer in time; the daemon goes on with what was asked
  6  the kernel lacks what is needed; the message names it";

const DOCTOR_EXIT_CODES: &str = "\
Exit codes:
  0  a tunnel can work: nothing was found that prevents it
  1  something prevents it, or takes its protection away
  2  a mistake in the command line or in the configuration file
  4  it can't be told: this user may not see something that decides (run it as root)";

/// Asks the epochgate daemon, and checks its configuration.
///
/// epochgated negotiates IPsec tunnels and holds their traffic in the kernel until a control ping
/// through the new SAs has been answered.
#[derive(Debug, Parser)]
#[command(name = "epochgate", version, after_help = EXIT_CODES)]
pub struct Arguments {
    /// The daemon's control socket.
    #[arg(long, global = true, value_name = "PATH", env = "EPOCHGATE_SOCKET", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,

    /// What is to be done.
    #[command(subcommand)]
    pub command: Command,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a tunnel and wait until its traffic passes.
    ///
    /// It ends with exit status 1 when attempts have failed, and at once when the tunnel can't come up
    /// without somebody: there is nothing to ping, or a policy of somebody else is in its way.
    Up {
        /// The tunnel's name.
        tunnel: String,
        /// How long to wait for it.
        #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
        timeout: Duration,
    },
    /// Delete a tunnel's SAs and take its policies out of the kernel.
    ///
    /// Its traffic is then neither protected nor held.
    Down {
        /// The tunnel's name.
        tunnel: String,
    },
    /// Negotiate a new epoch now and wait until the traffic has switched to it.
    ///
    /// With --ike or --reauthenticate it is about the IKE SA.
    Rekey {
        /// The tunnel's name.
        tunnel: String,
        /// Rekey the IKE SA instead; epochs and traffic go on.
        #[arg(long, conflicts_with = "reauthenticate")]
        ike: bool,
        /// Make a new IKE SA beside the old one, so that both ends authenticate anew, and wait until
        /// the traffic has switched to an epoch of it.
        #[arg(long)]
        reauthenticate: bool,
        /// How long to wait for it.
        #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
        timeout: Duration,
    },
    /// Make the daemon read its configuration file again.
    ///
    /// If there are mistakes in it, they are shown, and the daemon keeps what it has.
    Reload,
    /// Show whether each tunnel's traffic passes, and if not, why and what to do.
    ///
    /// Several tunnels are shown as a table, one of them in detail. Round-trip times, losses and
    /// proofs are those of control pings; AGE is that of the open epoch.
    Status {
        /// Only this tunnel, in detail.
        tunnel: Option<String>,
        /// Every tunnel in detail.
        #[arg(long)]
        details: bool,
        /// As JSON, for programs: one object, or one a line with --watch.
        #[arg(long, conflicts_with = "details")]
        json: bool,
        /// Again and again, until Ctrl-C.
        #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true,
              default_missing_value = "2s", value_parser = duration)]
        watch: Option<Duration>,
    },
    /// Show what happened of late, and with --follow what happens.
    ///
    /// The daemon keeps the latest 1024 events of all tunnels, and 256 more of control pings. They are
    /// the lines of its log from level info on, whatever level the log itself has.
    Events {
        /// Go on with what happens, until Ctrl-C or until the daemon stops.
        #[arg(long, short)]
        follow: bool,
        /// Only of this tunnel.
        #[arg(long, value_name = "NAME")]
        tunnel: Option<String>,
        /// Of what is kept, only the last N.
        #[arg(long, short = 'n', value_name = "N")]
        last: Option<u32>,
        /// Of what is kept, only what is not older.
        #[arg(long, value_name = "TIME", value_parser = duration)]
        since: Option<Duration>,
        /// As JSON, one object a line: the same as in the daemon's log in JSON.
        #[arg(long)]
        json: bool,
    },
    /// Look whether a tunnel can work on this machine, and say what to do if not.
    ///
    /// It looks at the kernel, its settings, privileges, ports, other key daemons, firewall rules
    /// and the path to the peers. It needs no daemon and changes nothing; run it as root, or it says
    /// what it could not see. With a configuration it is about its tunnels.
    #[command(after_help = DOCTOR_EXIT_CODES)]
    Doctor {
        /// Only these tunnels of the configuration.
        #[arg(value_name = "TUNNEL")]
        tunnels: Vec<String>,
        /// The configuration file [default: /etc/epochgate/epochgate.toml, if there is one].
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Directory of policy templates instead of the one that the file names.
        #[arg(long, value_name = "DIR")]
        policies: Option<PathBuf>,
        /// As JSON, for programs.
        #[arg(long)]
        json: bool,
        /// Ask the kernel what it can do, in a network namespace of its own, for another process.
        #[arg(long, hide = true)]
        probe: bool,
    },
    /// Show the kernel's IPsec: SAs, policies, counters and events, whoever made them.
    ///
    /// It needs no daemon and changes nothing, but root (CAP_NET_ADMIN), except for `stat`.
    Xfrm {
        /// What to look at.
        #[command(subcommand)]
        command: xfrm::XfrmCommand,
    },
    /// Look for mistakes in a configuration file, without a daemon.
    ///
    /// It reads the files that the configuration names too: run it as the user that may.
    Check {
        /// The file.
        #[arg(default_value = DEFAULT_CONFIG)]
        file: PathBuf,
        /// Directory of policy templates instead of the one that the file names.
        #[arg(long, value_name = "DIR")]
        policies: Option<PathBuf>,
    },
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .filter(|duration| !duration.is_zero() && *duration <= TIMEOUT_MAX)
        .ok_or_else(|| "a number and a unit are wanted, at most a day: 500ms, 30s, 2m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_timeout_has_a_unit() {
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(duration("30").is_err());
        assert!(duration("0s").is_err());
        assert!(duration("25h").is_err());
    }
}
