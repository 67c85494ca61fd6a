//! When a request is sent again, and when it is given up (RFC 7296 §2.1, §2.4). The octets are
//! always the same: a responder recognises a retransmission by its message ID.

use std::time::Duration;

use crate::Timestamp;

use super::limits::Retransmission;

/// The timer of one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retransmit {
    policy: Retransmission,
    interval: Duration,
    due: Timestamp,
    left: u32,
}

/// What to do when a timer fires.
pub(super) enum Due {
    /// Not yet.
    Later,
    /// Send the same octets again.
    Again,
    /// Give up.
    GiveUp,
}

impl Retransmit {
    /// Starts with the first transmission.
    pub(super) fn start(policy: Retransmission, now: Timestamp) -> Self {
        Self {
            policy,
            interval: policy.first,
            due: now + policy.first,
            left: policy.transmissions.saturating_sub(1),
        }
    }

    /// Begins anew, with a transmission now.
    pub(super) fn restart(&mut self, now: Timestamp) {
        *self = Self::start(self.policy, now);
    }

    /// How often the request was sent.
    pub(super) fn sent(&self) -> u32 {
        self.policy.transmissions.saturating_sub(self.left)
    }

    /// When it wants to be asked.
    pub(super) fn due(&self) -> Timestamp {
        self.due
    }

    /// Counts a retransmission if one is due.
    pub(super) fn poll(&mut self, now: Timestamp) -> Due {
        if now < self.due {
            return Due::Later;
        }
        let Some(left) = self.left.checked_sub(1) else {
            return Due::GiveUp;
        };
        self.left = left;
        self.interval = self.interval.saturating_mul(2).min(self.policy.longest);
        self.due = now + self.interval;
        Due::Again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_double_up_to_the_longest_and_end() {
        let policy = Retransmission {
            first: Duration::from_millis(500),
            longest: Duration::from_secs(2),
            transmissions: 5,
        };
        let mut timer = Retransmit::start(policy, Timestamp::ZERO);
        let mut sent = Vec::new();
        loop {
            let now = timer.due();
            match timer.poll(now) {
                Due::Later => unreachable!("polled when due"),
                Due::Again => sent.push(now.as_nanos() / 1_000_000),
                Due::GiveUp => {
                    sent.push(now.as_nanos() / 1_000_000);
                    break;
                }
            }
        }
        assert_eq!(sent, [500, 1500, 3500, 5500, 7500]);
    }
}
