//! Cuts a scenario down to what is needed for the same failure.
//!
//! What counts as the same failure is the caller's question; a smaller scenario is another run, whose
//! draws differ, so whatever still fails is kept and everything else is put back.

use crate::scenario::{Act, Scenario, TunnelPlan};

/// Runs that shrinking may cost.
const RUNS_MAX: u32 = 600;

/// Times are not cut finer than this, in milliseconds.
const FINEST_MS: u32 = 50;

/// The smallest scenario found for which `fails` still says yes.
pub fn shrink(scenario: &Scenario, fails: impl FnMut(&Scenario) -> bool) -> Scenario {
    let mut shrinker = Shrinker {
        best: scenario.clone(),
        runs: 0,
        fails,
    };
    loop {
        let before = shrinker.best.clone();
        shrinker.drop_acts();
        shrinker.drop_tunnels();
        shrinker.simplify_world();
        shrinker.shorten();
        if shrinker.best == before || shrinker.runs >= RUNS_MAX {
            return shrinker.best;
        }
    }
}

struct Shrinker<F> {
    best: Scenario,
    runs: u32,
    fails: F,
}

impl<F: FnMut(&Scenario) -> bool> Shrinker<F> {
    /// Keeps a smaller scenario if it still fails.
    fn try_with(&mut self, candidate: Scenario) -> bool {
        if candidate == self.best || self.runs >= RUNS_MAX {
            return false;
        }
        self.runs += 1;
        let fails = (self.fails)(&candidate);
        if fails {
            self.best = candidate;
        }
        fails
    }

    fn try_change(&mut self, change: impl FnOnce(&mut Scenario)) -> bool {
        let mut candidate = self.best.clone();
        change(&mut candidate);
        self.try_with(candidate)
    }

    /// Leaves out runs of actions: all of them, halves, quarters, down to one.
    fn drop_acts(&mut self) {
        let mut width = self.best.acts.len();
        while width > 0 {
            let mut start = 0;
            while start < self.best.acts.len() {
                let end = (start + width).min(self.best.acts.len());
                let dropped = self.try_change(|scenario| {
                    scenario.acts.drain(start..end);
                });
                if !dropped {
                    start = end;
                }
            }
            width /= 2;
        }
    }

    fn drop_tunnels(&mut self) {
        let mut number = self.best.tunnels.len();
        while number > 0 {
            number -= 1;
            if self.best.tunnels.len() > 1 {
                self.try_with(without_tunnel(&self.best, number));
            }
        }
    }

    fn simplify_world(&mut self) {
        self.try_change(|scenario| scenario.nat = None);
        self.try_change(|scenario| scenario.delay_ms = 10);
        self.try_change(|scenario| scenario.interval_ms = 200);
        for number in 0..self.best.tunnels.len() {
            self.try_change(|scenario| scenario.tunnels[number] = TunnelPlan::default());
            let changes: [fn(&mut TunnelPlan); 8] = [
                |plan| plan.always = false,
                |plan| plan.server_starts = false,
                |plan| plan.plain_esp = false,
                |plan| plan.no_wait = false,
                |plan| plan.ignore_server_rekey = false,
                |plan| plan.any_inbound = false,
                |plan| plan.client = Default::default(),
                |plan| plan.server = Default::default(),
            ];
            for change in changes {
                self.try_change(|scenario| change(&mut scenario.tunnels[number]));
            }
        }
    }

    /// Moves actions together, shortens them, and heals as early as possible.
    fn shorten(&mut self) {
        for index in 0..self.best.acts.len() {
            self.shorten_pause(index);
            self.shorten_act(index);
        }
        let last = self.best.acts.last().map_or(0, |act| act.at_ms);
        self.halve(last, |scenario| &mut scenario.heal_ms);
    }

    /// Brings an action, and all after it, closer to the one before.
    fn shorten_pause(&mut self, index: usize) {
        loop {
            let before = index.checked_sub(1);
            let before = before.map_or(0, |before| self.best.acts[before].at_ms);
            let pause = self.best.acts[index].at_ms - before;
            if pause < FINEST_MS {
                return;
            }
            let earlier = pause / 2 + 1;
            let closer = self.try_change(|scenario| {
                let later = scenario.acts[index..].iter_mut().map(|act| &mut act.at_ms);
                later.for_each(|at| *at -= earlier);
                scenario.heal_ms -= earlier;
            });
            if !closer {
                return;
            }
        }
    }

    fn shorten_act(&mut self, index: usize) {
        if self.best.acts[index].action.lasts_mut().is_some() {
            self.halve(0, |scenario| {
                // Whether an action lasts does not change here.
                let Scenario { acts, heal_ms, .. } = scenario;
                acts[index].action.lasts_mut().unwrap_or(heal_ms)
            });
        }
    }

    /// Halves a number's distance to `lowest` as long as that works.
    fn halve(&mut self, lowest: u32, number: impl Fn(&mut Scenario) -> &mut u32) {
        loop {
            let now = *number(&mut self.best);
            let distance = now.saturating_sub(lowest);
            if distance < FINEST_MS || !self.try_change(|s| *number(s) = lowest + distance / 2) {
                return;
            }
        }
    }
}

/// The scenario without a tunnel and what happens to it.
fn without_tunnel(scenario: &Scenario, number: usize) -> Scenario {
    let mut smaller = scenario.clone();
    smaller.tunnels.remove(number);
    let about = |act: &Act| act.action.tunnel() == Some(number);
    smaller.acts.retain(|act| !about(act));
    for act in &mut smaller.acts {
        match act.action.tunnel_mut() {
            Some(tunnel) if *tunnel > number => *tunnel -= 1,
            Some(_) | None => {}
        }
    }
    smaller
}
