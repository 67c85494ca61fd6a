//! Plays a scenario: faults, while the invariants are checked at every step; then all is healed, and
//! the tunnels must come back (`verdict`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use epochgate_controller::Timestamp;
use epochgate_controller::config::TunnelName;
use epochgate_controller::event::EpochNumber;

use super::office::Office;
use super::perform::milliseconds;
use super::{End, Scenario};
use crate::invariants::Violation;
use crate::network::{Rule, RuleId};
use crate::node::KnownEpoch;
use crate::packet::FlowId;
use crate::trace::{Recording, Trace};
use crate::world::{Defect, NodeId};

pub(super) type Name = TunnelName;

/// From the start of a daemon until its policies are in the kernel.
const START: Duration = Duration::from_millis(5);

/// What is wanted of a run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How much is recorded.
    pub recording: Recording,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            recording: Recording::Off,
        }
    }
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The invariant that did not hold, if any.
    pub violation: Option<Violation>,
    /// Per tunnel: from the healing until both ends sent through one epoch.
    pub recovered: Vec<Duration>,
    /// What was recorded.
    pub trace: Trace,
    /// The hosts, as a diagram shows them from left to right.
    pub lanes: Vec<(NodeId, String)>,
}

/// Plays a scenario.
#[must_use]
pub fn run(scenario: &Scenario, options: &Options) -> Outcome {
    finish(Play::new(scenario, options))
}

/// Plays a scenario in a world that is broken on purpose, to show that a violation is found.
#[must_use]
pub fn run_broken(scenario: &Scenario, options: &Options, defect: Defect) -> Outcome {
    let mut play = Play::new(scenario, options);
    play.office.world.break_by(defect);
    finish(play)
}

fn finish(mut play: Play<'_>) -> Outcome {
    let result = play.faults().and_then(|()| play.recovery());
    Outcome {
        violation: result.err(),
        recovered: play.recovered,
        trace: play.office.world.trace().clone(),
        lanes: play.office.lanes(),
    }
}

/// What is to be done at some time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Due {
    /// The scenario's action with this number.
    Act(usize),
    Mend(RuleId),
    Calm,
    Start(End),
    Boot(End),
    Resume(End),
    Up(End),
    StopFlow(FlowId),
    Speak(usize),
}

/// A scenario that is being played.
pub(super) struct Play<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) office: Office,
    agenda: BTreeMap<(Timestamp, usize), Due>,
    noted: usize,
    /// Each tunnel's streams.
    streams: Vec<Vec<FlowId>>,
    /// Tunnels that an operator wanted up while their host could not hear it.
    pub(super) missed: BTreeSet<End>,
    /// Disturbances that no healing ends.
    pub(super) for_ever: Vec<Rule>,
    pub(super) recovered: Vec<Duration>,
}

impl<'a> Play<'a> {
    fn new(scenario: &'a Scenario, options: &Options) -> Self {
        let mut play = Self {
            scenario,
            office: Office::new(scenario, options.recording),
            agenda: BTreeMap::new(),
            noted: 0,
            streams: vec![Vec::new(); scenario.tunnels.len()],
            missed: BTreeSet::new(),
            for_ever: Vec::new(),
            recovered: Vec::new(),
        };
        for (index, act) in scenario.acts.iter().enumerate() {
            play.after(milliseconds(act.at_ms), Due::Act(index));
        }
        play
    }

    pub(super) fn later(&mut self, after_ms: u32, due: Due) {
        self.after(milliseconds(after_ms), due);
    }

    pub(super) fn after(&mut self, after: Duration, due: Due) {
        let at = self.office.world.now() + after;
        self.agenda.insert((at, self.noted), due);
        self.noted += 1;
    }

    fn faults(&mut self) -> Result<(), Violation> {
        for end in self.office.ends() {
            if !self.office.runs(end) {
                self.office.start(end);
            }
        }
        // Hosts send nothing before their daemons hold what is to be protected.
        self.office.world.run_for(START)?;
        for number in 0..self.streams.len() {
            self.start_streams(number);
        }
        let heal_at = Timestamp::ZERO + milliseconds(self.scenario.heal_ms);
        while let Some(next) = self.agenda.first_entry() {
            let at = next.key().0;
            if at >= heal_at {
                break;
            }
            let due = next.remove();
            self.run_until(at)?;
            match due {
                Due::Act(index) => {
                    let scenario = self.scenario;
                    self.perform(&scenario.acts[index].action);
                }
                ending => self.end(ending),
            }
        }
        self.run_until(heal_at)?;
        self.heal();
        Ok(())
    }

    /// Ends everything that still goes on, but for what is for ever.
    fn heal(&mut self) {
        self.office.world.heal();
        for rule in self.for_ever.clone() {
            self.office.world.disturb(rule);
        }
        for due in std::mem::take(&mut self.agenda).into_values() {
            match due {
                Due::Act(_) | Due::Mend(_) | Due::Calm => {}
                ending => self.end(ending),
            }
        }
    }

    pub(super) fn run_until(&mut self, at: Timestamp) -> Result<(), Violation> {
        let now = self.office.world.now();
        self.office.world.run_for(at.since(now))
    }

    pub(super) fn start_streams(&mut self, tunnel: usize) {
        if !self.streams[tunnel].is_empty() {
            return;
        }
        let interval = milliseconds(self.scenario.interval_ms.max(1));
        let ends = [End::Client(tunnel), End::Server(tunnel)];
        self.streams[tunnel] = ends.map(|end| self.office.stream(end, interval)).to_vec();
    }

    pub(super) fn stop_streams(&mut self, tunnel: usize) {
        for flow in self.streams[tunnel].drain(..) {
            self.office.world.stop_flow(flow);
        }
    }

    /// The epoch that is open at an end.
    pub(super) fn open(&self, end: End) -> Option<KnownEpoch> {
        let node = self.office.node(end);
        let tunnel = &self.office.tunnel(end).name;
        let status = self.office.world.status(node, tunnel)?;
        let number = EpochNumber(status.open_epoch?);
        let node = self.office.world.node(node);
        // A restarted daemon counts anew: the one with this number that the kernel still has.
        let mut epochs = node.epochs.values().filter(|epoch| {
            epoch.tunnel == *tunnel
                && epoch.number == number
                && node.kernel.packets(epoch.outbound).is_some()
        });
        epochs.next().cloned()
    }
}
