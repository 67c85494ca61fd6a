//! What the command line and the daemon say to each other over the control socket.
//!
//! A Unix stream socket carries one JSON object per line: a [`Request`] one way, its [`Response`]
//! back, any number of times on one connection, answered in order. [`Request::Events`] alone is
//! answered by a stream of them. Each object carries [`PROTOCOL_VERSION`]. This crate is pure: octets in, messages out, and the other way round.
//!
//! ```text
//! → {"version":2,"request":"up","tunnel":"branch"}
//! ← {"version":2,"response":"done"}
//! ```

mod event;
mod frame;

use epochgate_controller::status::StatusReport;
use serde::{Deserialize, Serialize};

pub use event::{EventRecord, Level};
pub use frame::{FrameError, Lines, Received, decode, encode};

/// Version of these messages; a daemon and a command line of different versions refuse each other.
pub const PROTOCOL_VERSION: u32 = 2;

/// Where the daemon listens unless it is told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/epochgate/control.sock";

/// Octets of a request's line at most, without the line feed.
pub const REQUEST_LINE_MAX: usize = 4 << 10;

/// Octets of a response's line at most, without the line feed: the status of 4,096 tunnels with
/// several epochs each.
pub const RESPONSE_LINE_MAX: usize = 32 << 20;

/// Events that the daemon keeps, control pings aside: a rekey is about five.
pub const EVENTS_KEPT_MAX: usize = 1024;

/// Events of control pings that it keeps. Each tunnel has two every few seconds, and they would
/// soon be all that is kept.
pub const PING_EVENTS_KEPT_MAX: usize = 256;

/// Events that wait for one reader who is slow, before the oldest are left out.
pub const EVENTS_WAITING_MAX: usize = 1024;

/// Readers that follow events at one time; more are turned away.
pub const FOLLOWERS_MAX: usize = 32;

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
    Status {
        /// Of this tunnel only.
        #[serde(default)]
        tunnel: Option<String>,
    },
    /// Tell what happened: answered by any number of [`Response::Event`] and [`Response::LeftOut`],
    /// then by [`Response::Done`], or by [`Response::Stopping`] when the daemon stops.
    Events(EventsWanted),
    /// Read the configuration file again; one with mistakes changes nothing.
    Reload,
}

/// Which events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsWanted {
    /// Those to come as well, until the reader hangs up.
    #[serde(default)]
    pub follow: bool,
    /// Those of this tunnel only, by its name.
    #[serde(default)]
    pub tunnel: Option<String>,
    /// So many of those that are kept, at most.
    #[serde(default)]
    pub last: Option<u32>,
    /// Of those that are kept, none that is older, in milliseconds.
    #[serde(default)]
    pub since_ms: Option<u64>,
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
    /// One event.
    Event {
        /// What happened.
        record: Box<EventRecord>,
    },
    /// Events that this reader does not get, because it was too slow.
    LeftOut {
        /// How many, of all tunnels.
        count: u64,
    },
    /// The daemon stops: there are no more events.
    Stopping,
}
