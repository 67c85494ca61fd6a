//! What can go wrong, as sentences for a person and exit codes for a program.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use epochgate_config::{ReadError, shown_duration};
use epochgate_control::{FrameError, PROTOCOL_VERSION};
use epochgate_xfrm::{Operation, XfrmError};
use nix::libc;
use thiserror::Error;

use crate::terminal::harmless;

/// Why the command did not succeed.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// The daemon says no.
    #[error("{}", harmless(.0))]
    Refused(String),
    /// Nobody listens.
    #[error(
        "epochgated is not running: nothing listens at {}\n\
         Start it (systemctl start epochgated), or name its socket with --socket.",
        .0.display()
    )]
    NotRunning(PathBuf),
    /// The socket's permissions.
    #[error(
        "this user may not use the control socket {}\n\
         Become root (sudo epochgate …).",
        .0.display()
    )]
    NotAllowed(PathBuf),
    /// The daemon takes too long.
    #[error(
        "no answer in {}; the daemon goes on with it: see epochgate status",
        shown_duration(*.0)
    )]
    TimedOut(Duration),
    /// The daemon said that it stops.
    #[error("epochgated has stopped: there are no more events")]
    Stopped,
    /// It ended while it was listened to, and did not say so.
    #[error("epochgated has ended without a word; see its log (journalctl -u epochgated)")]
    Gone,
    /// The connection broke.
    #[error("the daemon ended the connection without an answer; see its log")]
    Closed,
    /// Anything else of the connection.
    #[error("the control socket {}: {error}", path.display())]
    Socket {
        /// Of the socket.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// What the daemon sent is no answer.
    #[error("{}", not_understood(.0))]
    Frame(#[from] FrameError),
    /// An answer to another question.
    #[error("the daemon's answer does not fit the question")]
    Unexpected,
    /// Timers and signals.
    #[error("can't wait for events and signals: {0}")]
    Runtime(io::Error),
    /// The kernel's IPsec says no.
    #[error("{}", kernel(.0))]
    Kernel(#[from] XfrmError),
    /// Standard output is closed or full.
    #[error("standard output: {0}")]
    Output(io::Error),
    /// The configuration file can't be read.
    #[error("{0}")]
    Unreadable(#[from] ReadError),
    /// Mistakes in the configuration, already rendered.
    #[error("{0}")]
    Mistakes(String),
    /// The doctor has said all that is to be said; this is the exit code.
    #[error("a tunnel may not work here")]
    Diagnosed(u8),
}

impl Failure {
    /// As `--help` lists them.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Kernel(error) => match error.errno() {
                Some(libc::EPERM | libc::EACCES) => 4,
                Some(libc::EPROTONOSUPPORT | libc::ENOENT) => 6,
                Some(_) | None => 1,
            },
            Self::Refused(_)
            | Self::Closed
            | Self::Socket { .. }
            | Self::Frame(_)
            | Self::Unexpected
            | Self::Runtime(_)
            | Self::Output(_) => 1,
            Self::Unreadable(_) | Self::Mistakes(_) => 2,
            Self::NotRunning(_) | Self::Stopped | Self::Gone => 3,
            Self::NotAllowed(_) => 4,
            Self::TimedOut(_) => 5,
            Self::Diagnosed(code) => *code,
        })
    }
}

fn not_understood(error: &FrameError) -> String {
    match error {
        FrameError::Version { theirs } => format!(
            "epochgated speaks version {theirs} of the control protocol and this command \
             {PROTOCOL_VERSION}\n\
             After an upgrade, restart the daemon (systemctl restart epochgated); both programs \
             must come from one release."
        ),
        FrameError::TooLong(_) | FrameError::Malformed(_) => {
            format!("the daemon's answer can't be understood: {error}")
        }
    }
}

/// What the kernel said, and who must act.
fn kernel(error: &XfrmError) -> String {
    match (error.operation(), error.errno()) {
        (_, Some(libc::EPERM | libc::EACCES)) => format!(
            "this user may not {}: that takes CAP_NET_ADMIN\n\
             Become root (sudo epochgate …).",
            error.operation()
        ),
        (Operation::Open, Some(libc::EPROTONOSUPPORT)) => {
            "this kernel has no IPsec over netlink: it was built without CONFIG_XFRM_USER, or its \
             module can't be loaded\n\
             Load it (modprobe xfrm_user), or run a kernel that has it."
                .to_owned()
        }
        (Operation::ReadCounters, Some(libc::ENOENT)) => {
            "this kernel keeps no IPsec counters: /proc/net/xfrm_stat is missing\n\
             Run a kernel with CONFIG_XFRM_STATISTICS."
                .to_owned()
        }
        _ => error.to_string(),
    }
}
