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
    /// So many percent of the way from the earliest that they may be to the latest.
    Percent(u32),
}

impl Slack {
    /// That share of a duration.
    pub(crate) fn of(self, whole: Duration) -> Duration {
        match self {
            Self::None => Duration::ZERO,
            Self::Percent(percent) => whole * percent / 100,
        }
    }
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
        after + self.slack.of(after / WHEEL + LATE)
    }

    /// Within which time an update releases a queue.
    pub(super) fn release(&self) -> std::ops::Range<Duration> {
        let late = self.slack.of(LATE);
        match self.slack {
            Slack::None => RELEASE,
            Slack::Percent(_) => late..late,
        }
    }

    /// When an SA ends that lives for `lifetime`.
    pub(super) fn lifetime(&self, lifetime: Duration) -> Duration {
        match self.slack {
            Slack::None => lifetime,
            Slack::Percent(_) => lifetime.saturating_sub(SECOND) + self.slack.of(2 * SECOND + LATE),
        }
    }
}
