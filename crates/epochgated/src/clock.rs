//! The daemon's clock and alarm: `CLOCK_BOOTTIME`, which goes on while the machine sleeps.
//!
//! A laptop that wakes after an hour must find its epochs an hour older. Tokio's timers count
//! `CLOCK_MONOTONIC`, which stands still meanwhile, so the controller's deadlines are kept in a
//! timerfd.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::SystemTime;

use epochgate_controller::Timestamp;
use epochgate_controller::pki::UnixTime;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::unix::AsyncFd;

use crate::sys;

const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;

/// The time now, in nanoseconds since the machine's start.
///
/// # Errors
/// Never on Linux 2.6.39 or later (`clock_gettime(2)`).
pub fn now() -> io::Result<Timestamp> {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)?;
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec()).unwrap_or(0);
    Ok(Timestamp::from_nanos(
        seconds
            .saturating_mul(NANOSECONDS_PER_SECOND)
            .saturating_add(nanoseconds),
    ))
}

/// The wall-clock time, which certificates are judged by. One before 1970 counts as 1970.
#[must_use]
pub fn wall() -> UnixTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    UnixTime(since.map_or(0, |since| since.as_secs()))
}

/// One absolute deadline on `CLOCK_BOOTTIME`.
#[derive(Debug)]
pub struct Alarm {
    timer: TimerFd,
    /// The same timer, to wait for.
    rings: AsyncFd<OwnedFd>,
    armed: Option<Timestamp>,
}

impl Alarm {
    /// An alarm that is not set.
    ///
    /// # Errors
    /// When the process has no file descriptor left, or there is no Tokio runtime.
    pub fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, flags)?;
        Ok(Self {
            rings: sys::readable(timer.as_fd().try_clone_to_owned()?)?,
            timer,
            armed: None,
        })
    }

    /// Sets the alarm to `until`, or switches it off.
    ///
    /// # Errors
    /// Those of `timerfd_settime(2)`; none is expected.
    pub fn set(&mut self, until: Option<Timestamp>) -> io::Result<()> {
        if self.armed == until {
            return Ok(());
        }
        let timer = &self.timer;
        match until {
            Some(until) => {
                // A time of zero would switch the timer off (timerfd_settime(2)).
                let nanoseconds = until.as_nanos().max(1);
                let time = TimeSpec::new(
                    seconds(nanoseconds / NANOSECONDS_PER_SECOND),
                    seconds(nanoseconds % NANOSECONDS_PER_SECOND),
                );
                timer.set(
                    Expiration::OneShot(time),
                    TimerSetTimeFlags::TFD_TIMER_ABSTIME,
                )?;
            }
            None => timer.unset()?,
        }
        self.armed = until;
        Ok(())
    }

    /// Waits until the alarm goes off; for ever when it is not set. Cancel-safe.
    ///
    /// # Errors
    /// Those of `epoll`; none is expected.
    pub async fn rings(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.rings.readable().await?;
            // EAGAIN: the alarm was set anew after it had gone off.
            match ready.try_io(|_| Ok(self.timer.wait()?)) {
                Ok(rang) => {
                    self.armed = None;
                    return rang;
                }
                Err(_would_block) => {}
            }
        }
    }
}

/// Both `time_t` and `long` are signed; deadlines are far from their limits.
fn seconds(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn an_alarm_goes_off_at_its_time_and_not_before() {
        let mut alarm = Alarm::new().expect("timerfd");
        let start = now().expect("clock");
        alarm
            .set(Some(start + Duration::from_millis(20)))
            .expect("set");
        alarm.rings().await.expect("rings");
        let passed = now().expect("clock").since(start);
        assert!(passed >= Duration::from_millis(20), "{passed:?}");
    }

    #[tokio::test]
    async fn an_alarm_in_the_past_goes_off_at_once() {
        let mut alarm = Alarm::new().expect("timerfd");
        alarm.set(Some(Timestamp::ZERO)).expect("set");
        tokio::time::timeout(Duration::from_secs(5), alarm.rings())
            .await
            .expect("in time")
            .expect("rings");
    }

    #[tokio::test]
    async fn an_alarm_that_was_switched_off_stays_silent() {
        let mut alarm = Alarm::new().expect("timerfd");
        alarm.set(Some(Timestamp::ZERO)).expect("set");
        alarm.set(None).expect("unset");
        let waited = tokio::time::timeout(Duration::from_millis(20), alarm.rings()).await;
        assert!(waited.is_err());
    }
}
