//! How long the machine that runs a test let everybody wait, so that a limit in time judges the
//! product and not the machine.
//!
//! A thread sleeps for a short while, again and again, and notes how much too late it woke: so late
//! a daemon's timers were, too.

use crate::capture::Timestamp;
use crate::net::locked;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long it sleeps.
const NAP: Duration = Duration::from_millis(20);
/// What every timer may be late.
const USUAL: Duration = Duration::from_millis(20);

/// Watches the machine until it is dropped.
#[derive(Debug)]
pub struct Stalls {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// When it woke, and how much too late.
    late: Mutex<Vec<(Timestamp, Duration)>>,
}

impl Stalls {
    /// Begins to watch.
    pub fn start() -> Self {
        let shared = Arc::<Shared>::default();
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || watch(&shared)
        });
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// How long everybody was kept waiting within this time from a moment on, in all.
    pub fn within(&self, from: Timestamp, time: Duration) -> Duration {
        let to = Timestamp(from.0 + time.as_nanos() as u64);
        sum(&locked(&self.shared.late), from, to)
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // It does not panic, and a test that fails anyway has better things to say.
            let _ = thread.join();
        }
    }
}

fn watch(shared: &Shared) {
    while !shared.stop.load(Ordering::Acquire) {
        let began = Instant::now();
        thread::sleep(NAP);
        let late = began.elapsed().saturating_sub(NAP);
        if late > USUAL {
            locked(&shared.late).push((Timestamp::now(), late));
        }
    }
}

/// What was between the two moments of each stall.
fn sum(late: &[(Timestamp, Duration)], from: Timestamp, to: Timestamp) -> Duration {
    let inside = late.iter().map(|(woke, late)| {
        let began = woke.0.saturating_sub(late.as_nanos() as u64);
        (*woke).min(to).since(from.max(Timestamp(began)))
    });
    inside.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_between_the_two_moments_counts() {
        let at = |millis: u64| Timestamp(millis * 1_000_000);
        let late = [
            (at(100), Duration::from_millis(50)),
            (at(210), Duration::from_millis(50)),
            (at(400), Duration::from_millis(70)),
            (at(900), Duration::from_millis(70)),
        ];
        assert_eq!(sum(&late, at(200), at(500)), Duration::from_millis(80));
        assert_eq!(sum(&late, at(350), at(380)), Duration::from_millis(30));
        assert_eq!(sum(&late, at(910), at(1_000)), Duration::ZERO);
    }
}
