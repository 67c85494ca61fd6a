//! How long the kernel takes for what it does by timers.

use std::time::Duration;

/// Default of `net.core.xfrm_acq_expires`.
const LARVAL: Duration = Duration::from_secs(30);

/// When a queue is released after an update that lets it go: measured up to 30 ms.
const RELEASE: std::ops::Range<Duration> = Duration::from_millis(10)..Duration::from_millis(30);

/// How late a timer may be beside its share: ticks and the machine's own business.
const LATE: Duration = Duration::from_millis(60);

/// How late a timer of the timer wheel may be: one in so much (`kernel/time/timer.c`, levels of 64
/// buckets, each 8 times as coarse as the one before).
const WHEEL: u32 = 7;

/// Lifetimes count in whole seconds (`curlft.add_time`).
const SECOND: Duration = Duration::from_secs(1);

/// The settings that matter, and how exact the clockwork is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// How long a larval SA lives.
    pub(crate) larval: Duration,
    pub(crate) slack: Slack,
}

/// What a real kernel's timers may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slack {
    /// All are exact.
    None,
    /// As early as they may be.
    Early,
    /// As late as they may be.
    Late,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            larval: LARVAL,
            slack: Slack::None,
        }
    }
}

impl Timing {
    /// When a queue's timer fires that is set to `after`.
    pub(super) fn queue(&self, after: Duration) -> Duration {
        match self.slack {
            Slack::None | Slack::Early => after,
            Slack::Late => after + after / WHEEL + LATE,
        }
    }

    /// Within which time an update releases a queue.
    pub(super) fn release(&self) -> std::ops::Range<Duration> {
        match self.slack {
            Slack::None => RELEASE,
            Slack::Early => Duration::ZERO..Duration::ZERO,
            Slack::Late => LATE..LATE,
        }
    }

    /// When an SA ends that lives for `lifetime`.
    pub(super) fn lifetime(&self, lifetime: Duration) -> Duration {
        match self.slack {
            Slack::None => lifetime,
            Slack::Early => lifetime.saturating_sub(SECOND),
            Slack::Late => lifetime + SECOND + LATE,
        }
    }
}
