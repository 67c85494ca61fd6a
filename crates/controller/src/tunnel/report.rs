//! What `status` says of a tunnel, in words.

use std::net::SocketAddr;

use super::epoch::{Check, Epoch, Proving, Stage};
use super::gate::{Gate, Position};
use super::ladder::{Effort, IKE_PORT};
use super::{Session, Tunnel};
use crate::Timestamp;
use crate::config::{Role, Start};
use crate::ike::Endpoint;
use crate::status::{EpochStatus, Failure, GateStatus, HELD_PACKETS_MAX, IkeStatus, TunnelStatus};

/// A side without networks: its virtual addresses are not assigned yet.
const DYNAMIC: &str = "dynamic";

/// A step of the recovery ladder.
struct Step {
    /// In few words.
    text: String,
    attempt: Option<u32>,
    attempts: Option<u32>,
    /// When something else is tried if nothing comes.
    next: Option<Timestamp>,
}

impl Step {
    /// Nothing is counted, and nothing follows by the clock.
    fn quiet(text: &str) -> Self {
        Self {
            text: text.into(),
            attempt: None,
            attempts: None,
            next: None,
        }
    }
}

impl Tunnel {
    pub(crate) fn status(&self, ike: &Endpoint, now: Timestamp) -> TunnelStatus {
        let open = self.gate.open_epoch();
        let gate = match &self.gate {
            Gate::Down | Gate::Creating { .. } | Gate::Refused { .. } => GateStatus::Down,
            Gate::Present(present) => match present.at {
                Position::Held => GateStatus::Held,
                Position::Open(_) => GateStatus::Open,
            },
        };
        let held_since = match &self.gate {
            Gate::Present(present) => present.held_since,
            Gate::Down | Gate::Creating { .. } | Gate::Refused { .. } => None,
        };
        let open_epoch = open.and_then(|open| self.epoch(open));
        let refused = open_epoch.map(|epoch| {
            let pairs = self.policies.refused_by(epoch);
            pairs.map(|pair| pair.to_string()).collect()
        });
        let latest = self.epochs.iter().max_by_key(|epoch| epoch.number);
        let waiting_since = match &self.gate {
            Gate::Present(present) => present.waiting_since,
            Gate::Down | Gate::Creating { .. } | Gate::Refused { .. } => None,
        };
        let step = self.step();
        let counters = &self.counters;
        let ike = self.ike_status(ike, now);
        let strings = |networks: &[ipnet::IpNet]| match networks {
            [] => vec![DYNAMIC.to_owned()],
            _ => networks.iter().map(ToString::to_string).collect(),
        };
        TunnelStatus {
            name: self.config.name.to_string(),
            role: match self.config.role {
                Role::Client => "client".into(),
                Role::Server => "server".into(),
            },
            gate,
            reason: match gate {
                GateStatus::Open => String::new(),
                GateStatus::Down | GateStatus::Held => self.why_held(),
            },
            ladder: step.text,
            attempt: step.attempt,
            attempts: step.attempts,
            next_step_ms: step.next.map(|at| millis(at, now)),
            failures: self.failures,
            recovery_bound_ms: u64::try_from(self.config.recovery_bound().as_millis())
                .unwrap_or(u64::MAX),
            open_epoch: open.map(|epoch| epoch.0),
            local_traffic: strings(&self.config.local_traffic),
            remote_traffic: strings(&self.config.remote_traffic),
            virtual_addresses: self.virtual_addresses(),
            dns: self.assigned.dns.clone(),
            dns_domains: self.assigned.domains.clone(),
            refused_traffic: refused.unwrap_or_default(),
            peer: open_epoch
                .or(latest)
                .map(|epoch| epoch.path.remote)
                .or_else(|| ike.last().map(|sa| sa.remote))
                .or_else(|| Some(SocketAddr::new(self.config.remote.address?, IKE_PORT))),
            ike,
            epochs: self
                .epochs
                .iter()
                .map(|epoch| epoch_status(epoch, open == Some(epoch.number), now))
                .collect(),
            ping_target: self.ping_target(open_epoch.or(latest)),
            last_round_trip_us: counters.last_round_trip.map(super::kernel::micros),
            recent_pings: counters.recent(now),
            next_ping_ms: self.next_ping().map(|at| millis(at, now)),
            last_proof_ms: counters.last_proof.map(|at| millis(now, at)),
            last_proof_by: counters.last_proof_by,
            held_ms: held_since.map(|at| millis(now, at)),
            waiting_ms: waiting_since.map(|at| millis(now, at)),
            // Whoever reads the kernel's counters knows.
            released: None,
            pings_sent: counters.pings_sent,
            pings_answered: counters.pings_answered,
            pings_lost: counters.pings_lost(now),
            switches: counters.switches,
            rekeys: counters.rekeys,
            recoveries: counters.recoveries,
            held_packets_max: HELD_PACKETS_MAX,
            last_error: self.last_error.clone(),
            last_failure: counters.last_failure.as_ref().map(|(text, at)| Failure {
                text: text.clone(),
                ago_ms: millis(now, *at),
            }),
        }
    }

    fn ike_status(&self, ike: &Endpoint, now: Timestamp) -> Vec<IkeStatus> {
        let told = |session: &Session| {
            let mut status = ike.status(session.id, now)?;
            status.peer_id = session.peer.as_ref().map(|peer| peer.id.to_string());
            status.reauthenticate_in_ms = session.renew_at.map(|at| millis(at, now));
            Some(status)
        };
        self.sessions.iter().filter_map(told).collect()
    }

    /// When the next control ping is due, as far as that is known.
    fn next_ping(&self) -> Option<Timestamp> {
        let attempts = self.config.ping.attempts;
        let proves = self.proves();
        let due = |epoch: &Epoch| match &epoch.stage {
            Stage::Proving(proving) => {
                let ends = !proving.failed && proving.pings.sent() >= attempts;
                proving.pings.due().filter(|_| !ends)
            }
            Stage::Awaiting { pings, .. } => pings.as_ref()?.due(),
            Stage::Usable(usable) => match &usable.check {
                Check::Quiet { until } => proves.then_some(*until),
                Check::Pinging(probe) => {
                    let ends = probe.pings.sent() >= attempts;
                    probe.pings.due().filter(|_| !ends)
                }
                Check::Doubted(pings) => pings.due(),
            },
            Stage::Installing(_) | Stage::Draining { .. } => None,
        };
        let settled = self
            .epochs
            .iter()
            .filter(|epoch| epoch.relocation.is_none());
        settled.filter_map(due).min()
    }

    /// The step of the ladder that is under way.
    fn step(&self) -> Step {
        let effort = |text: &str| Step {
            text: text.into(),
            attempt: Some(self.failures.saturating_add(1)),
            attempts: None,
            next: self.effort.due(),
        };
        match &self.effort {
            Effort::FindingSource { .. } => return effort("looking for a source"),
            Effort::Connecting { .. } => return effort("connecting"),
            Effort::Rekeying { .. } => return effort("rekeying"),
            Effort::PutOff { .. } => return effort("put off"),
            Effort::BackingOff { .. } => return effort("backing off"),
            Effort::Rest | Effort::Untying { .. } => {}
        }
        let attempts = self.config.ping.attempts;
        let pinged = self
            .epochs
            .iter()
            .rev()
            .find_map(|epoch| match &epoch.stage {
                Stage::Proving(Proving {
                    pings,
                    failed: false,
                    ..
                }) => Some(pings),
                Stage::Usable(usable) => match &usable.check {
                    Check::Pinging(probe) => Some(&probe.pings),
                    Check::Quiet { .. } | Check::Doubted(_) => None,
                },
                Stage::Installing(_)
                | Stage::Proving(_)
                | Stage::Awaiting { .. }
                | Stage::Draining { .. } => None,
            });
        match pinged {
            Some(pings) => Step {
                text: format!("pinging {} of {attempts}", pings.sent().min(attempts)),
                attempt: Some(pings.sent()),
                attempts: Some(attempts),
                next: pings.due(),
            },
            None if self.epochs.iter().any(Epoch::is_candidate) => Step::quiet("proving"),
            None => Step::quiet("idle"),
        }
    }

    /// Why traffic does not pass, and what somebody could do about it.
    pub(super) fn why_held(&self) -> String {
        match &self.gate {
            Gate::Down => return format!("down: run `epochgate up {}`", self.config.name),
            Gate::Creating { .. } => return "the policies are on their way into the kernel".into(),
            Gate::Refused { reason, .. } => return reason.clone(),
            Gate::Present(_) => {}
        }
        if let Some(why) = self.ending {
            return why.into();
        }
        if let Some(reason) = &self.cannot_ping {
            return reason.clone();
        }
        let error = |text: &str| match &self.last_error {
            Some(error) => format!("{text}; last error: {error}"),
            None => text.to_owned(),
        };
        let in_doubt = self.epochs.iter().any(Epoch::is_doubted);
        match &self.effort {
            Effort::FindingSource { .. } => return error("looking for a way to the peer"),
            Effort::Connecting { .. } => return error("negotiating IKE with the peer"),
            Effort::Rekeying { .. } if in_doubt => {
                return error("the epoch's pings are unanswered; rekeying");
            }
            Effort::Rekeying { .. } => return error("rekeying"),
            Effort::PutOff { .. } => return error("the peer is busy; asking it again soon"),
            Effort::BackingOff { .. } => return error("waiting to try again"),
            Effort::Rest | Effort::Untying { .. } => {}
        }
        let mut candidates = self.epochs.iter().filter(|epoch| epoch.is_candidate());
        let latest = candidates.next_back();
        match latest.map(|epoch| &epoch.stage) {
            Some(Stage::Installing(_)) => "an epoch is on its way into the kernel".into(),
            Some(Stage::Proving(_)) => "a control ping is not answered yet".into(),
            Some(Stage::Awaiting { .. }) => {
                let text = "nothing authenticated has arrived from the client on the new epoch yet";
                let foreign = latest.is_some_and(|epoch| !self.peer_is_epochgate(epoch.number));
                if foreign && self.config.ping.target.is_none() {
                    format!(
                        "{text}, and it is no epochgate, which would ping; set `ping.target` to an \
                         address behind it that answers pings, or let it send something"
                    )
                } else {
                    text.into()
                }
            }
            Some(Stage::Usable(_)) => "what this host slept through is found out by a ping".into(),
            Some(Stage::Draining { .. }) | None if in_doubt => {
                error("nothing arrives through the open epoch any more")
            }
            Some(Stage::Draining { .. }) | None => match self.config.start {
                Start::OnDemand => error("waiting for traffic"),
                Start::Always => error("starting"),
                Start::Listen => error("waiting for the peer to start"),
            },
        }
    }
}

fn epoch_status(epoch: &Epoch, open: bool, now: Timestamp) -> EpochStatus {
    let rekey_at = match &epoch.stage {
        Stage::Usable(usable) if open => Some(usable.rekey_at),
        Stage::Usable(_)
        | Stage::Installing(_)
        | Stage::Proving(_)
        | Stage::Awaiting { .. }
        | Stage::Draining { .. } => None,
    };
    EpochStatus {
        number: epoch.number.0,
        state: epoch.state_name(open).into(),
        inbound_spi: format!("{:#010x}", epoch.inbound.spi.0),
        outbound_spi: format!("{:#010x}", epoch.outbound.spi.0),
        cipher: epoch.cipher.to_string(),
        udp_encapsulated: epoch.path.encapsulated,
        age_ms: millis(now, epoch.created),
        rekey_in_ms: rekey_at.map(|at| millis(at, now)),
        local: Some(epoch.path.local),
        remote: Some(epoch.path.remote),
        received: None,
        sent: None,
        sas: Some([epoch.inbound, epoch.outbound]),
    }
}

/// Milliseconds from `earlier` to `later`, never below zero.
fn millis(later: Timestamp, earlier: Timestamp) -> u64 {
    u64::try_from(later.since(earlier).as_millis()).unwrap_or(u64::MAX)
}
