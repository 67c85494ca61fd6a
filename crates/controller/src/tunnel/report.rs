//! What `status` says of a tunnel, in words.

use super::Tunnel;
use super::epoch::{Check, Epoch, Proving, Stage};
use super::gate::{Gate, Position};
use super::ladder::Effort;
use crate::Timestamp;
use crate::config::{Role, Start};
use crate::ike::Endpoint;
use crate::status::{EpochStatus, GateStatus, HELD_PACKETS_MAX, TunnelStatus};

/// A side without networks: its virtual addresses are not assigned yet.
const DYNAMIC: &str = "dynamic";

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
            ladder: self.ladder_step(),
            recovery_bound_ms: u64::try_from(self.config.recovery_bound().as_millis())
                .unwrap_or(u64::MAX),
            open_epoch: open.map(|epoch| epoch.0),
            local_traffic: strings(&self.config.local_traffic),
            remote_traffic: strings(&self.config.remote_traffic),
            virtual_addresses: self.virtual_addresses(),
            dns: self.assigned.dns.clone(),
            dns_domains: self.assigned.domains.clone(),
            refused_traffic: refused.unwrap_or_default(),
            ike: self
                .sessions
                .iter()
                .filter_map(|session| ike.status(session.id, now))
                .collect(),
            epochs: self
                .epochs
                .iter()
                .map(|epoch| epoch_status(epoch, open == Some(epoch.number), now))
                .collect(),
            ping_target: self.ping_target(open_epoch.or(latest)),
            last_round_trip_us: self.counters.last_round_trip.map(super::kernel::micros),
            last_proof_ms: self.counters.last_proof.map(|at| millis(now, at)),
            held_ms: held_since.map(|at| millis(now, at)),
            pings_sent: self.counters.pings_sent,
            pings_answered: self.counters.pings_answered,
            switches: self.counters.switches,
            held_packets_max: HELD_PACKETS_MAX,
            last_error: self.last_error.clone(),
        }
    }

    /// The step of the ladder that is under way, in few words.
    fn ladder_step(&self) -> String {
        match &self.effort {
            Effort::FindingSource { .. } => return "looking for a source".into(),
            Effort::Connecting { .. } => return "connecting".into(),
            Effort::Rekeying { .. } => return "rekeying".into(),
            Effort::PutOff { .. } => return "put off".into(),
            Effort::BackingOff { .. } => return "backing off".into(),
            Effort::Rest => {}
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
                }) => Some(pings.sent()),
                Stage::Usable(usable) => match &usable.check {
                    Check::Pinging(probe) => Some(probe.pings.sent()),
                    Check::Quiet { .. } | Check::Doubted(_) => None,
                },
                Stage::Installing(_)
                | Stage::Proving(_)
                | Stage::Awaiting { .. }
                | Stage::Draining { .. } => None,
            });
        match pinged {
            Some(sent) => format!("pinging {} of {attempts}", sent.min(attempts)),
            None if self.epochs.iter().any(Epoch::is_candidate) => "proving".into(),
            None => "idle".into(),
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
            Effort::Rest => {}
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
    }
}

/// Milliseconds from `earlier` to `later`, never below zero.
fn millis(later: Timestamp, earlier: Timestamp) -> u64 {
    u64::try_from(later.since(earlier).as_millis()).unwrap_or(u64::MAX)
}
