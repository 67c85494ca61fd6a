//! What each action does to the world, and what ends it.

use std::time::Duration;

use epochgate_controller::Timestamp;
use epochgate_controller::io::{Command, PolicyKey, XfrmError};

use super::office::Office;
use super::run::{Due, Play};
use super::{Action, End, Fault, Frames, Harm, Operation};
use crate::kernel::{Failure, OpKind};
use crate::network::{Matching, Rule, Verdict};

/// Between the packets of a burst.
const BURST_INTERVAL: Duration = Duration::from_micros(100);

impl Play<'_> {
    /// Performs an action; what it needs to end is put on the agenda.
    pub(super) fn perform(&mut self, action: &Action) {
        if host(action).is_some_and(|end| self.office.is_down(end)) {
            return;
        }
        let office = &mut self.office;
        match *action {
            Action::Disturb {
                from,
                frames,
                harm,
                permille,
                times,
                for_ms,
            } => {
                let rule = Rule {
                    from: from.map(|from| address(office, from)),
                    to: None,
                    matching: matching(frames),
                    verdict: verdict(harm),
                    permille,
                    times,
                };
                self.disturb(rule, for_ms);
            }
            Action::Jitter { up_to_ms, for_ms } => {
                office.world.set_jitter(milliseconds(up_to_ms));
                self.later(for_ms, Due::Calm);
            }
            Action::Partition { end, for_ms } => self.cut(end, Matching::Anything, for_ms),
            Action::EspStops { end, for_ms } => self.cut(end, Matching::Esp, for_ms),
            Action::SpiDies { end } => self.kill_spi(end),
            Action::NatForgets => {
                if let Some(nat) = office.nat {
                    office.world.forget_nat(nat);
                }
            }
            Action::NatReboots { for_ms } => {
                if let Some(nat) = office.nat {
                    let now = office.world.now().since(Timestamp::ZERO);
                    let left = milliseconds(self.scenario.heal_ms).saturating_sub(now);
                    office.world.reboot_nat(nat, milliseconds(for_ms).min(left));
                }
            }
            Action::Kill { end, for_ms } => {
                if office.runs(end) {
                    office.world.crash(office.node(end));
                    self.later(for_ms, Due::Start(end));
                }
            }
            Action::Reboot { end, for_ms } => {
                office.world.halt(office.node(end));
                self.later(for_ms, Due::Boot(end));
            }
            Action::Suspend { end, for_ms } => {
                office.world.suspend(office.node(end));
                self.later(for_ms, Due::Resume(end));
            }
            Action::Move { tunnel } => office.relocate(tunnel),
            Action::Down { end, for_ms } => {
                self.command(end, Command::Down);
                self.later(for_ms, Due::Up(end));
            }
            Action::Rekey { end } => self.command(end, Command::Rekey),
            Action::RekeyIke { end } => self.command(end, Command::RekeyIke),
            Action::Reauthenticate { end } => self.command(end, Command::Reauthenticate),
            Action::Reload { end } => {
                if office.runs(end) {
                    let config = office.config(end);
                    office.world.configure(office.node(end), config);
                }
            }
            Action::Flush { end } => {
                let node = office.node(end);
                let sas: Vec<_> = office.world.node(node).kernel.our_sas().collect();
                for sa in sas {
                    office.world.steal_sa(node, sa);
                }
            }
            Action::Steal { end, nth } => {
                let node = office.node(end);
                if let Some(sa) = nth_sa(office, end, nth) {
                    office.world.steal_sa(node, sa);
                }
            }
            Action::Expire { end, nth } => {
                let node = office.node(end);
                if let Some(sa) = nth_sa(office, end, nth) {
                    office.world.expire_sa(node, sa);
                }
            }
            Action::FlushPolicies { end } => office.world.flush_policies(office.node(end)),
            Action::StealPolicy { end, nth } => {
                let node = office.node(end);
                if let Some(key) = nth_policy(office, end, nth) {
                    office.world.steal_policy(node, key);
                }
            }
            Action::LoseEvents { end, events } => {
                office.world.lose_events(office.node(end), events);
            }
            Action::Fail {
                end,
                operation,
                how,
                times,
            } => {
                let node = office.node(end);
                for _ in 0..times {
                    office
                        .world
                        .fail_next_by(node, kind(operation), failure(how));
                }
            }
            Action::Burst { end, packets } => {
                let flow = office.stream(end, BURST_INTERVAL);
                self.after(BURST_INTERVAL * packets, Due::StopFlow(flow));
            }
            Action::Silence { tunnel, for_ms } => {
                self.stop_streams(tunnel);
                self.later(for_ms, Due::Speak(tunnel));
            }
        }
    }

    /// Ends what an action began.
    pub(super) fn end(&mut self, due: Due) {
        match due {
            Due::Act(_) => {}
            Due::Mend(rule) => self.office.world.mend(rule),
            Due::Calm => self.office.world.set_jitter(Duration::ZERO),
            Due::Start(end) => {
                if !self.office.runs(end) && !self.office.is_down(end) {
                    self.office.start(end);
                }
            }
            Due::Boot(end) => {
                let config = self.office.config(end);
                self.office.world.boot(self.office.node(end), config);
            }
            Due::Resume(end) => {
                self.office.world.resume(self.office.node(end));
                // Whoever starts daemons stood still as well.
                self.end(Due::Start(end));
                let node = self.office.node(end);
                for missed in std::mem::take(&mut self.missed) {
                    if self.office.node(missed) == node {
                        self.command(missed, Command::Up);
                    } else {
                        self.missed.insert(missed);
                    }
                }
            }
            // An operator who finds a suspended host waits for it; one that starts does so by its
            // configuration.
            Due::Up(end) if self.office.is_down(end) => {
                self.missed.insert(end);
            }
            Due::Up(end) => self.command(end, Command::Up),
            Due::StopFlow(flow) => self.office.world.stop_flow(flow),
            Due::Speak(tunnel) => self.start_streams(tunnel),
        }
    }

    fn command(&mut self, end: End, command: fn(super::run::Name) -> Command) {
        let name = self.office.tunnel(end).name.clone();
        let node = self.office.node(end);
        self.office.world.command(node, command(name));
    }

    fn disturb(&mut self, rule: Rule, for_ms: u32) {
        let rule = self.office.world.disturb(rule);
        self.later(for_ms, Due::Mend(rule));
    }

    /// Loses what matches, from and to the host of an end.
    fn cut(&mut self, end: End, matching: Matching, for_ms: u32) {
        let address = address(&self.office, end);
        let from = Rule::lose(Some(address), matching);
        let to = Rule {
            from: None,
            to: Some(address),
            ..from.clone()
        };
        self.disturb(from, for_ms);
        self.disturb(to, for_ms);
    }

    /// The SPI that an end's open epoch receives on is never let through again.
    fn kill_spi(&mut self, end: End) {
        let Some(open) = self.open(end) else { return };
        let rule = Rule::lose(None, Matching::EspOn(open.inbound.spi));
        self.office.world.disturb(rule.clone());
        self.for_ever.push(rule);
    }
}

/// On whose host an action happens; `None`: in the network. What is down does not take part.
fn host(action: &Action) -> Option<End> {
    match *action {
        Action::Disturb { .. }
        | Action::Jitter { .. }
        | Action::Partition { .. }
        | Action::EspStops { .. }
        | Action::NatForgets
        | Action::NatReboots { .. } => None,
        Action::SpiDies { end }
        | Action::Kill { end, .. }
        | Action::Reboot { end, .. }
        | Action::Suspend { end, .. }
        | Action::Down { end, .. }
        | Action::Rekey { end }
        | Action::RekeyIke { end }
        | Action::Reauthenticate { end }
        | Action::Reload { end }
        | Action::Flush { end }
        | Action::FlushPolicies { end }
        | Action::StealPolicy { end, .. }
        | Action::LoseEvents { end, .. }
        | Action::Steal { end, .. }
        | Action::Expire { end, .. }
        | Action::Fail { end, .. }
        | Action::Burst { end, .. } => Some(end),
        Action::Move { tunnel } | Action::Silence { tunnel, .. } => Some(End::Client(tunnel)),
    }
}

/// The address that an end's host sends from.
fn address(office: &Office, end: End) -> std::net::IpAddr {
    office.world.node(office.node(end)).outer
}

fn nth_sa(office: &Office, end: End, nth: usize) -> Option<epochgate_controller::io::SaId> {
    let kernel = &office.world.node(office.node(end)).kernel;
    let count = kernel.our_sas().count();
    kernel.our_sas().nth(nth.checked_rem(count)?)
}

fn nth_policy(office: &Office, end: End, nth: usize) -> Option<PolicyKey> {
    let kernel = &office.world.node(office.node(end)).kernel;
    let count = kernel.our_policies().count();
    let policy = kernel.our_policies().nth(nth.checked_rem(count)?)?;
    Some(policy.key)
}

pub(super) fn milliseconds(milliseconds: u32) -> Duration {
    Duration::from_millis(milliseconds.into())
}

fn matching(frames: Frames) -> Matching {
    match frames {
        Frames::All => Matching::Anything,
        Frames::IkeRequests => Matching::IkeRequest(None),
        Frames::IkeResponses => Matching::IkeResponse(None),
        Frames::Esp => Matching::Esp,
        Frames::Pings => Matching::Ping,
    }
}

fn verdict(harm: Harm) -> Verdict {
    match harm {
        Harm::Lose => Verdict::Lose,
        Harm::Copy(after) => Verdict::Copy(milliseconds(after)),
        Harm::Delay(more) => Verdict::Delay(milliseconds(more)),
    }
}

fn kind(operation: Operation) -> OpKind {
    match operation {
        Operation::AddInbound => OpKind::AddInbound,
        Operation::AddOutbound => OpKind::AddOutbound,
        Operation::MoveSa => OpKind::MoveSa,
        Operation::RemoveSa => OpKind::RemoveSa,
        Operation::UpdatePolicies => OpKind::UpdatePolicies,
        Operation::ReadPackets => OpKind::ReadPackets,
        Operation::ReadOurs => OpKind::ReadOurs,
        Operation::CreatePolicies => OpKind::CreatePolicies,
        Operation::RemovePolicies => OpKind::RemovePolicies,
        Operation::ReportFirst => OpKind::ReportFirst,
    }
}

fn failure(how: Fault) -> Failure {
    let error = |name: &str| XfrmError::Other(name.into());
    match how {
        Fault::Refused => Failure::Refused(error("ENOMEM")),
        Fault::Halfway => Failure::Halfway(error("ENOMEM")),
        Fault::Unanswered => Failure::Unanswered(error("ENOBUFS")),
    }
}
