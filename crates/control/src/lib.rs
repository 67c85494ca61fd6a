//! What the command line and the daemon say to each other over the control socket.
//!
//! A Unix stream socket carries one JSON object per line: a [`Request`] one way, its [`Response`]
//! back, any number of times on one connection, answered in order. Each object carries
//! [`PROTOCOL_VERSION`]. This crate is pure: octets in, messages out, and the other way round.
//!
//! ```text
//! → {"version":1,"request":"up","tunnel":"branch"}
//! ← {"version":1,"response":"done"}
//! ```

mod frame;

use epochgate_controller::status::StatusReport;
use serde::{Deserialize, Serialize};

pub use frame::{FrameError, Lines, Received, decode, encode};

/// Version of these messages; a daemon and a command line of different versions refuse each other.
pub const PROTOCOL_VERSION: u32 = 1;

/// Where the daemon listens unless it is told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/epochgate/control.sock";

/// Octets of a request's line at most, without the line feed.
pub const REQUEST_LINE_MAX: usize = 4 << 10;

/// Octets of a response's line at most, without the line feed: the status of 4,096 tunnels with
/// several epochs each.
pub const RESPONSE_LINE_MAX: usize = 32 << 20;

/// What is asked of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "request")]
pub enum Request {
    /// Start a tunnel; answered when its gate is open or the attempt failed.
    Up {
        /// Its name.
        tunnel: String,
    },
    /// Delete a tunnel's SAs and take its policies away.
    Down {
        /// Its name.
        tunnel: String,
    },
    /// Negotiate a new epoch now; answered when traffic has switched or the attempt failed.
    Rekey {
        /// Its name.
        tunnel: String,
    },
    /// Rekey the IKE SA now; answered when it has new keys or the peer refused.
    RekeyIke {
        /// The tunnel's name.
        tunnel: String,
    },
    /// Make a new IKE SA beside the old one; answered when traffic has switched to an epoch of it or
    /// the attempt failed.
    Reauthenticate {
        /// The tunnel's name.
        tunnel: String,
    },
    /// Tell all.
    Status,
    /// Read the configuration file again; one with mistakes changes nothing.
    Reload,
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "response")]
pub enum Response {
    /// It is done.
    Done,
    /// What `status` asked for.
    Status {
        /// The report.
        report: Box<StatusReport>,
    },
    /// It failed.
    Failed {
        /// Why, and what to do; may have several lines.
        message: String,
    },
}
