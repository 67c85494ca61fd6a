//! Plays many seeds, several at a time, and shrinks the first that violates an invariant.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use epochgate_simulator::scenario::Scenario;
use epochgate_simulator::shrink::shrink;
use nix::sys::resource::{UsageWho, getrusage};

use crate::cli::Search;
use crate::show::{self, Failure};

/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);

/// How often it is looked whether all seeds have been played.
const LOOK: Duration = Duration::from_millis(50);

/// What the threads share.
struct Shared {
    next: AtomicU64,
    played: AtomicU64,
    stop: AtomicBool,
    failures: Mutex<BTreeMap<u64, Failure>>,
}

/// Searches; whether every invariant held.
pub(crate) fn search(wanted: &Search) -> Result<bool> {
    let end = wanted
        .first
        .checked_add(wanted.seeds)
        .context("there are not so many seeds")?;
    let shared = Shared {
        next: AtomicU64::new(wanted.first),
        played: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        failures: Mutex::new(BTreeMap::new()),
    };
    let began = Instant::now();
    thread::scope(|scope| {
        let players: Vec<_> = (0..wanted.jobs.get())
            .map(|_| scope.spawn(|| play_seeds(&shared, end, wanted.all)))
            .collect();
        let mut told = began;
        while players.iter().any(|player| !player.is_finished()) {
            thread::sleep(LOOK);
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                progress(&shared, wanted, began);
            }
        }
    });
    progress(&shared, wanted, began);
    let failures = shared.failures.into_inner();
    let failures = failures.unwrap_or_else(PoisonError::into_inner);
    if wanted.all {
        for (seed, failure) in &failures {
            println!("seed {seed}: {}: {}", failure.invariant, failure.what);
        }
        return Ok(failures.is_empty());
    }
    let Some((seed, failure)) = failures.into_iter().next() else {
        return Ok(true);
    };
    report(seed, &failure, wanted)?;
    Ok(false)
}

fn play_seeds(shared: &Shared, end: u64, all: bool) {
    while !shared.stop.load(Ordering::Relaxed) {
        let seed = shared.next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return;
        }
        if let Some(failure) = show::failure(&Scenario::random(seed)) {
            let failures = shared.failures.lock();
            failures
                .unwrap_or_else(PoisonError::into_inner)
                .insert(seed, failure);
            shared.stop.store(!all, Ordering::Relaxed);
        }
        shared.played.fetch_add(1, Ordering::Relaxed);
    }
}

fn progress(shared: &Shared, wanted: &Search, began: Instant) {
    let played = shared.played.load(Ordering::Relaxed);
    let failures = shared.failures.lock();
    let violations = failures.unwrap_or_else(PoisonError::into_inner).len();
    let cpu = cpu_seconds().unwrap_or(f64::NAN);
    eprintln!(
        "{played} of {} seeds from {}, {violations} violate an invariant; {:.0} s, {:.0} seeds per CPU second",
        wanted.seeds,
        wanted.first,
        began.elapsed().as_secs_f64(),
        // Counts of seeds are far below 2⁵².
        played as f64 / cpu,
    );
}

/// What this process has used.
fn cpu_seconds() -> Option<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let user = usage.user_time();
    // Microseconds are below a million.
    Some(user.tv_sec() as f64 + user.tv_usec() as f64 / 1e6)
}

/// Shrinks what was found, and shows it.
fn report(seed: u64, failure: &Failure, wanted: &Search) -> Result<()> {
    println!(
        "seed {seed} violates {}: {}",
        failure.invariant, failure.what
    );
    eprintln!("shrinking");
    let shrunk = shrink(&Scenario::random(seed), |smaller| {
        show::failure(smaller).is_some_and(|found| found.invariant == failure.invariant)
    });
    let json = show::json(&shrunk)?;
    if let Some(file) = &wanted.save {
        std::fs::write(file, format!("{json}\n"))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    println!("\nshrunk, to be replayed by `epochgate-sim replay FILE`:\n{json}\n");
    if failure.invariant != "panic" {
        show::play(&shrunk, true)?;
    }
    Ok(())
}
