//! Runs made into cells: one for each place, fault and contender. This is what
//! `docs/evaluation.json` holds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::outcome::{Contender, Fault, Place, Run, TunnelOutcome};

/// Number of the format of `docs/evaluation.json`.
pub const SCHEMA: u32 = 1;

/// Everything that was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evaluation {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The release of the real kernel, if there was one.
    pub kernel: Option<String>,
    /// The release of strongSwan, if it took part.
    pub strongswan: Option<String>,
    /// What epochgate computes from its tunnels' settings: the longest time from the end of all
    /// faults until traffic flows, in milliseconds (`recovery_bound_ms` in its status).
    pub recovery_bound_ms: u64,
    /// What was left out.
    pub not_tried: Vec<NotTried>,
    /// The results, by place, fault and contender.
    pub cells: Vec<Cell>,
}

/// Something that was left out, or failed before there was a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotTried {
    /// What.
    #[serde(rename = "not_tried")]
    pub what: String,
    /// Why.
    pub why: String,
}

/// All runs of one contender with one fault in one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// Where.
    pub place: Place,
    /// What went wrong.
    pub fault: Fault,
    /// Whose tunnels.
    pub contender: Contender,
    /// How many offices.
    pub runs: u64,
    /// How many tunnels in them.
    pub tunnels: u64,
    /// Time that was watched after the fault, in seconds.
    pub watched_s: u64,
    /// Tunnels that carried nothing in at least one direction when the run ended.
    pub dead: u64,
    /// Median over the tunnels of the time until traffic flows again, in milliseconds; `None`: not
    /// while it was watched.
    pub back_median_ms: Option<u64>,
    /// The 99th percentile.
    pub back_p99_ms: Option<u64>,
    /// The longest.
    pub back_max_ms: Option<u64>,
    /// Packets that applications sent from the fault on.
    pub sent: u64,
    /// Those that never arrived.
    pub lost: u64,
    /// ESP packets given to another client than the one that they were for.
    pub misdelivered: u64,
    /// Control pings from the fault on.
    pub pings: u64,
}

impl Evaluation {
    /// Cells of runs, which may come in any order.
    #[must_use]
    pub fn of(runs: &[Run], kernel: Option<String>, strongswan: Option<String>) -> Self {
        let mut groups: BTreeMap<(Place, Fault, Contender), Vec<&Run>> = BTreeMap::new();
        for run in runs {
            let key = (run.place, run.fault, run.contender);
            groups.entry(key).or_default().push(run);
        }
        Self {
            schema: SCHEMA,
            kernel,
            strongswan,
            recovery_bound_ms: 0,
            not_tried: Vec::new(),
            cells: groups.values().filter_map(|runs| Cell::of(runs)).collect(),
        }
    }

    /// One cell.
    #[must_use]
    pub fn cell(&self, place: Place, fault: Fault, contender: Contender) -> Option<&Cell> {
        let mut cells = self.cells.iter();
        cells.find(|cell| (cell.place, cell.fault, cell.contender) == (place, fault, contender))
    }
}

impl Cell {
    fn of(runs: &[&Run]) -> Option<Self> {
        let first = runs.first()?;
        let tunnels = || runs.iter().flat_map(|run| &run.tunnels);
        let total = |number: fn(&TunnelOutcome) -> u64| tunnels().map(number).sum();
        let mut back: Vec<Option<u64>> = tunnels().map(|tunnel| tunnel.back_ms).collect();
        // Those that never came back are the last.
        back.sort_by_key(|back| back.unwrap_or(u64::MAX));
        Some(Self {
            place: first.place,
            fault: first.fault,
            contender: first.contender,
            runs: count(runs.len()),
            tunnels: count(back.len()),
            watched_s: runs.iter().map(|run| run.watched_s).min()?,
            dead: count(back.iter().filter(|back| back.is_none()).count()),
            back_median_ms: percentile(&back, 50),
            back_p99_ms: percentile(&back, 99),
            back_max_ms: percentile(&back, 100),
            sent: total(|tunnel| tunnel.sent),
            lost: total(|tunnel| tunnel.lost),
            misdelivered: runs.iter().map(|run| run.misdelivered).sum(),
            pings: total(|tunnel| tunnel.pings),
        })
    }

    /// The share of tunnels that were dead in the end, from 0 to 1.
    #[must_use]
    pub fn dead_share(&self) -> f64 {
        ratio(self.dead, self.tunnels)
    }

    /// The share of packets that never arrived, from 0 to 1.
    #[must_use]
    pub fn lost_share(&self) -> f64 {
        ratio(self.lost, self.sent)
    }

    /// Control pings per tunnel.
    #[must_use]
    pub fn pings_per_tunnel(&self) -> f64 {
        ratio(self.pings, self.tunnels)
    }
}

/// The smallest value that at least `percent` of all do not exceed (the nearest rank).
fn percentile(sorted: &[Option<u64>], percent: usize) -> Option<u64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().flatten()
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(number: u64, back: &[Option<u64>]) -> Run {
        let tunnel = |back_ms: &Option<u64>| TunnelOutcome {
            back_ms: *back_ms,
            sent: 10,
            lost: 1,
            pings: 2,
        };
        Run {
            place: Place::Simulator,
            fault: Fault::Crash,
            contender: Contender::NoGate,
            number,
            watched_s: 600,
            misdelivered: 0,
            tunnels: back.iter().map(tunnel).collect(),
        }
    }

    #[test]
    fn a_tunnel_that_never_came_back_took_longer_than_all_others() {
        let runs = [run(1, &[Some(5), None]), run(2, &[Some(7)])];
        let evaluation = Evaluation::of(&runs, None, None);
        let cell = &evaluation.cells[0];
        assert_eq!((cell.runs, cell.tunnels, cell.dead), (2, 3, 1));
        assert_eq!(cell.back_median_ms, Some(7));
        assert_eq!(cell.back_p99_ms, None);
        assert!((cell.lost_share() - 0.1).abs() < 1e-9);
    }

    #[test]
    fn the_99th_percentile_leaves_out_one_of_a_hundred() {
        let mut back: Vec<Option<u64>> = (1..=99).map(Some).collect();
        back.push(None);
        let evaluation = Evaluation::of(&[run(1, &back)], None, None);
        assert_eq!(evaluation.cells[0].back_p99_ms, Some(99));
        assert_eq!(evaluation.cells[0].back_median_ms, Some(50));
        assert_eq!(evaluation.cells[0].back_max_ms, None);
    }
}
