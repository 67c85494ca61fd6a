//! What man pages say beyond the command lines: signals, files, the environment.

use std::path::PathBuf;

use epochgate_config::DaemonSettings;

/// Pages of others, and those that are not commands.
pub const SEE_ALSO: [(&str, u8); 3] = [("epochgate.toml", 5), ("ip-xfrm", 8), ("nft", 8)];

/// What every command of `epochgate` heeds.
pub const COMMAND_ENVIRONMENT: &[(&str, &str)] = &[
    (
        "NO_COLOR",
        "If it is set to anything, nothing is coloured (no-color.org). Nothing is in pipes and files \
         either.",
    ),
    (
        "COLUMNS",
        "How many characters a line may have, instead of what the terminal says.",
    ),
];

/// What the daemon heeds.
pub const DAEMON_ENVIRONMENT: &[(&str, &str)] = &[
    (
        "EPOCHGATE_LOG",
        "A filter for the log instead of daemon.log of the configuration, such as epochgated=debug.",
    ),
    (
        "NOTIFY_SOCKET",
        "Set by systemd: the daemon tells when it is ready, reloading and stopping (sd_notify(3)).",
    ),
    (
        "WATCHDOG_USEC",
        "Set by systemd for WatchdogSec=: the daemon tells at that interval that it is alive.",
    ),
];

/// Further sections of `epochgated(8)`.
pub const DAEMON: &[(&str, &[(&str, &str)])] = &[
    (
        "EXIT STATUS",
        &[
            (
                "0",
                "It was stopped by SIGTERM or SIGINT, --check found nothing, or nothing is left to \
                 remove.",
            ),
            (
                "1",
                "Something failed; the last line of the log says what, and who must act.",
            ),
            ("2", "The configuration or the command line is wrong."),
        ],
    ),
    (
        "SIGNALS",
        &[
            (
                "SIGTERM, SIGINT",
                "Deletes all SAs here and at the peers, holds or removes the policies as on-stop \
                 says, and ends within five seconds.",
            ),
            (
                "SIGHUP",
                "Reads the configuration again, as epochgate-reload(1) does. One with mistakes \
                 changes nothing.",
            ),
        ],
    ),
    (
        "CAPABILITIES",
        &[
            ("CAP_NET_ADMIN", "SAs, policies, routes and addresses."),
            ("CAP_NET_RAW", "Control pings."),
            ("CAP_NET_BIND_SERVICE", "UDP ports 500 and 4500."),
        ],
    ),
];

/// What lies where, unless the configuration says otherwise.
#[must_use]
pub fn files() -> Vec<(PathBuf, &'static str)> {
    let daemon = DaemonSettings::default();
    vec![
        (
            "/etc/epochgate/epochgate.toml".into(),
            "The configuration: epochgate.toml(5).",
        ),
        (
            daemon.policies,
            "Policy templates that a tunnel's policy names.",
        ),
        (daemon.socket, "The daemon's control socket."),
        (
            daemon.state_dir,
            "The daemon's lock, what it found in net.core.xfrm_larval_drop, and what servers told of \
             DNS (TUNNEL.resolv.conf).",
        ),
    ]
}
