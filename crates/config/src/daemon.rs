//! The section `[daemon]`: what the process around the controller needs.

use std::path::PathBuf;

use crate::diagnostic::{Sink, quoted};
use crate::keys::{DEFAULT_POLICIES, DEFAULT_SOCKET, DEFAULT_STATE_DIR};
use crate::reader::Section;
use crate::values::{Choice, Words, read_choice};

/// Octets of a Unix socket's path at most (`sun_path` of `struct sockaddr_un`, less its NUL).
pub(crate) const SOCKET_PATH_MAX: usize = 107;

/// Settings of the daemon itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonSettings {
    /// The control socket.
    pub socket: PathBuf,
    /// Directory of what must outlive the process.
    pub state_dir: PathBuf,
    /// Directory of the policy templates.
    pub policies: PathBuf,
    /// What is logged.
    pub log: LogLevel,
}

impl Default for DaemonSettings {
    fn default() -> Self {
        Self {
            socket: DEFAULT_SOCKET.into(),
            state_dir: DEFAULT_STATE_DIR.into(),
            policies: DEFAULT_POLICIES.into(),
            log: LOG_LEVELS.default(),
        }
    }
}

/// How much is logged; each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Somebody must act.
    Error,
    /// Something is wrong that mends itself.
    Warning,
    /// Normal life.
    Info,
    /// For finding faults.
    Debug,
    /// Every message and system call.
    Trace,
}

impl LogLevel {
    /// Its name in a filter of the `tracing` crate.
    #[must_use]
    pub const fn as_filter(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

pub(crate) const LOG_LEVELS: Choice<LogLevel, 5> = Choice {
    words: Words([
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warning),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ]),
    default: 2,
};

/// The settings, and the directory of the policy templates if it is known. `None`: what the file
/// says of it was reported.
pub(crate) fn read(section: &Section<'_>, sink: &mut Sink) -> (DaemonSettings, Option<PathBuf>) {
    let default = DaemonSettings::default();
    let policies = path(section, "policies", usize::MAX, sink);
    let is_reported = section.has("policies") || section.may_mean("policies");
    let known = policies
        .clone()
        .or_else(|| (!is_reported).then(|| default.policies.clone()));
    let settings = DaemonSettings {
        socket: path(section, "socket", SOCKET_PATH_MAX, sink).unwrap_or(default.socket),
        state_dir: path(section, "state-dir", usize::MAX, sink).unwrap_or(default.state_dir),
        policies: policies.unwrap_or(default.policies),
        log: read_choice(section, "log", &LOG_LEVELS, sink),
    };
    (settings, known)
}

fn path(section: &Section<'_>, key: &str, length_max: usize, sink: &mut Sink) -> Option<PathBuf> {
    let text = section.text(key, sink)?;
    if !text.value.starts_with('/') || text.value.contains('\0') {
        let title = format!("{} is not an absolute path", quoted(text.value));
        sink.error(text.span, title, "a path that begins with / is wanted");
        return None;
    }
    if text.value.len() > length_max {
        let title = format!("{} is too long for a socket", quoted(key));
        sink.error(text.span, title, format!("{length_max} octets at most"));
        return None;
    }
    Some(text.value.into())
}
