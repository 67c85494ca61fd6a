//! How often what watches a host wakes up to look.
//!
//! In a guest with virtual time a wake-up is what costs: hours without one pass at once, while
//! whatever looks twenty times a second makes a day of it.

use std::time::Duration;

/// How promptly captures, key logs and the receivers of traffic look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pace {
    /// Within 100 ms: tests may wait for what they see.
    #[default]
    Prompt,
    /// Within [`UNHURRIED`](Self::UNHURRIED): for hours of virtual time.
    Unhurried,
}

impl Pace {
    /// How late a long run's watchers may be: well below how long [`Capture::stop`] waits for the
    /// last packets.
    ///
    /// [`Capture::stop`]: crate::Capture::stop
    pub const UNHURRIED: Duration = Duration::from_secs(1);

    /// `prompt`, or what a long run takes instead.
    pub(crate) fn or_unhurried(self, prompt: Duration) -> Duration {
        match self {
            Self::Prompt => prompt,
            Self::Unhurried => Self::UNHURRIED,
        }
    }
}
