//! One event as the daemon tells it: the object of a line of its log in JSON.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How loud an event is, as in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// For whoever looks for a mistake of the program.
    Trace,
    /// The same, less of it.
    Debug,
    /// Normal life.
    Info,
    /// Something is wrong; epochgate goes on by itself.
    Warn,
    /// Somebody must act.
    Error,
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventRecord {
    /// When: RFC 3339, UTC, with microseconds.
    pub time: String,
    /// How loud.
    pub level: Level,
    /// What happened, in a sentence.
    pub message: String,
    /// The tunnel it is about, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<String>,
    /// The epoch it is about, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// Its kind (`event`) and what belongs to it.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}
