//! A limit for what anybody can provoke.

use std::time::Duration;

use crate::Timestamp;

/// So many per second, and as many at once.
#[derive(Debug)]
pub(super) struct RateLimit {
    per_second: u32,
    left: u32,
    since: Timestamp,
}

impl RateLimit {
    pub(super) fn per_second(per_second: u32) -> Self {
        Self {
            per_second,
            left: per_second,
            since: Timestamp::ZERO,
        }
    }

    /// Whether one more is allowed now.
    pub(super) fn take(&mut self, now: Timestamp) -> bool {
        if now.since(self.since) >= Duration::from_secs(1) {
            self.since = now;
            self.left = self.per_second;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}
