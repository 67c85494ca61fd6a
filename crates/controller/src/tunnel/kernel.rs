//! A tunnel's dealings with the kernel: policies, the gate's moves, SAs in and out.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::epoch::{Check, Epoch, Probe, Stage};
use super::gate::{Gate, Position, Present};
use super::{Awaited, Context, Tunnel, Wish};
use crate::Timestamp;
use crate::config::{POLICIES_RETRY_MAX, Start};
use crate::event::{EpochNumber, EventKind};
use crate::io::{
    CommandOutcome, InterfaceSpec, PolicyKey, SaId, XfrmError, XfrmEvent, XfrmOp, XfrmReply,
};
use crate::outbox::Owner;

/// A held queue is purged whole about 205 s after its first packet unless its policy is written
/// again (`xfrm_policy_queue_process`, measured).
const HOLD_REFRESH: Duration = Duration::from_secs(60);

/// Time until policies that the kernel refused are tried again; doubled each time where they could
/// not be created, up to [`POLICIES_RETRY_MAX`].
const REFUSED_RETRY: Duration = Duration::from_secs(1);

impl Tunnel {
    /// Puts the policies into the kernel, all holding. `left` are those of an earlier run, of this
    /// tunnel and others: its own are updated in place, so that nothing leaves in clear while we take
    /// over.
    pub(crate) fn start(&mut self, left: &BTreeSet<PolicyKey>, cx: &mut Context<'_>) {
        let own: BTreeSet<PolicyKey> = self.policies.keys().into_iter().collect();
        let left = left & &own;
        let (left, pause): (BTreeSet<PolicyKey>, Duration) = match &self.gate {
            Gate::Down => (left, Duration::ZERO),
            Gate::Refused {
                left: kept, pause, ..
            } => (&left | kept, *pause),
            Gate::Creating { .. } | Gate::Present(_) => return,
        };
        self.announce(cx);
        self.remember_addresses(cx);
        if let Some((interface, if_id)) = self.config.interface.as_ref().zip(self.if_id()) {
            let spec = InterfaceSpec {
                name: Arc::clone(&interface.name),
                if_id,
                mtu: interface.mtu,
            };
            let owner = Owner::Tunnel(self.id, Awaited::Tidying);
            cx.out.xfrm(owner, XfrmOp::AddInterface(spec));
        }
        let (update, create): (Vec<_>, Vec<_>) = self
            .policies
            .all_holding()
            .into_iter()
            .partition(|policy| left.contains(&policy.key));
        if !update.is_empty() {
            cx.out.xfrm(
                Owner::Tunnel(self.id, Awaited::Upkeep),
                XfrmOp::UpdatePolicies(update),
            );
        }
        cx.out.xfrm(
            Owner::Tunnel(self.id, Awaited::Creation),
            XfrmOp::CreatePolicies(create),
        );
        self.gate = Gate::Creating { left, pause };
    }

    /// The policies that are in the kernel and ours, or on their way there.
    pub(crate) fn own_policies(&self) -> BTreeSet<PolicyKey> {
        match &self.gate {
            Gate::Down => BTreeSet::new(),
            Gate::Refused { left, .. } => left.clone(),
            Gate::Creating { .. } | Gate::Present(_) => self.policies.keys().into_iter().collect(),
        }
    }

    pub(super) fn at(&self, position: Position) -> Option<&Epoch> {
        match position {
            Position::Held => None,
            Position::Open(number) => self.epoch(number),
        }
    }

    /// Moves the gate to where it ought to be, one update at a time.
    pub(super) fn settle(&mut self, cx: &mut Context<'_>) {
        self.ask_before_going_back(cx);
        let chosen = self.chosen();
        let Gate::Present(present) = &self.gate else {
            return;
        };
        let arrived = present.at == chosen && present.strayed.is_none();
        let stands = arrived && !self.is_mispinned(chosen);
        if present.moving.is_some() || present.refused || stands {
            return;
        }
        if chosen == Position::Held {
            let reason = self.why_held();
            self.event(cx, None, EventKind::Closed { reason });
        }
        self.write_out(chosen, cx);
    }

    fn write_out(&mut self, position: Position, cx: &mut Context<'_>) {
        let policies = self.policies.out(self.at(position));
        if let Position::Open(number) = position
            && let Some(epoch) = self.epoch_mut(number)
        {
            epoch.repin = false;
        }
        let op = cx.out.xfrm(
            Owner::Tunnel(self.id, Awaited::Move(position)),
            XfrmOp::UpdatePolicies(policies),
        );
        if let Gate::Present(present) = &mut self.gate {
            present.moving = Some((op, position));
            if position == Position::Held {
                present.held_since.get_or_insert(cx.now);
            }
        }
    }

    /// Nothing is tried any more until traffic wants it. What has been held since before raises an
    /// ACQUIRE when the hold is written again.
    pub(super) fn hear_of_waiting(&mut self, cx: &mut Context<'_>) {
        let stands = match &self.gate {
            Gate::Present(present) => present.moving.is_none() && present.at == Position::Held,
            Gate::Down | Gate::Creating { .. } | Gate::Refused { .. } => false,
        };
        if stands && self.chosen() == Position::Held && self.config.start == Start::OnDemand {
            self.write_out(Position::Held, cx);
        }
    }

    pub(super) fn gate_timeout(&mut self, cx: &mut Context<'_>) {
        self.upkeep_timeout(cx);
        match &mut self.gate {
            Gate::Down | Gate::Creating { .. } => {}
            Gate::Refused { again, pause, .. } => {
                if *again <= cx.now {
                    // What was created although the answer said otherwise is ours.
                    *again = cx.now + *pause;
                    cx.out.xfrm(Owner::Leftovers(self.id), XfrmOp::ReadOurs);
                }
            }
            Gate::Present(present) => {
                if present.again > cx.now {
                    return;
                }
                present.again = cx.now + HOLD_REFRESH;
                let refused = std::mem::take(&mut present.refused);
                if present.moving.is_none() && present.at == Position::Held {
                    self.write_out(Position::Held, cx);
                }
                if refused {
                    self.ask_before_opening(cx);
                }
            }
        }
    }

    /// The kernel would not open the gate for a while: every proof may be as old as that, and what is
    /// held waits for another. What passes through another epoch meanwhile does not wait.
    fn ask_before_opening(&mut self, cx: &mut Context<'_>) {
        let passes = self.gate.open_epoch().and_then(|open| self.epoch(open));
        let passes = passes.is_some_and(Epoch::is_usable);
        if !self.proves() || passes {
            return;
        }
        // Not the latest alone: what is held would leave through the one before it.
        for epoch in self.epochs.iter_mut().filter(|epoch| epoch.is_usable()) {
            if let Stage::Usable(usable) = &mut epoch.stage {
                usable.check = Check::Pinging(Probe::holding(cx.now));
            }
        }
    }

    /// What of its policies is in the kernel after all: creates the rest.
    pub(crate) fn leftovers_read(&mut self, found: &BTreeSet<PolicyKey>, cx: &mut Context<'_>) {
        if let Gate::Refused { .. } = self.gate {
            self.start(found, cx);
        }
    }

    /// The result of one of this tunnel's operations.
    pub(crate) fn xfrm_done(
        &mut self,
        awaited: Awaited,
        result: Result<XfrmReply, XfrmError>,
        cx: &mut Context<'_>,
    ) {
        match awaited {
            Awaited::Creation => self.created(result.err(), cx),
            Awaited::Amendment => self.amended(result.err(), cx),
            Awaited::Move(position) => {
                self.moved(position, result.err(), cx);
                self.delete_left(cx);
            }
            Awaited::Addition { epoch, sa } => self.sa_added(epoch, sa, result.err(), cx),
            Awaited::Proof {
                epoch,
                round_trip,
                lost,
            } => {
                self.proof_read(epoch, (round_trip, lost), packets(result), cx);
            }
            Awaited::Arrival(epoch) => self.arrival_read(epoch, packets(result), cx),
            Awaited::Relocation { epoch, from, to } => {
                self.sa_moved(epoch, (from, to), result, cx);
            }
            Awaited::Departure { epoch, path } => {
                self.departure_read(epoch, path, packets(result), cx);
            }
            Awaited::Removal => {
                let outcome = match result {
                    Ok(_) => CommandOutcome::Done,
                    Err(error) => {
                        self.attention(format!("policies could not be removed: {error}"), cx);
                        CommandOutcome::Failed(error.to_string())
                    }
                };
                self.answer_all(|wish| matches!(wish, Wish::Removed), &outcome, cx);
            }
            Awaited::Presence(sa) => {
                if let Err(XfrmError::Missing(_)) = result {
                    self.sa_lost(sa, "it is gone from the kernel", cx);
                }
            }
            Awaited::Upkeep => {
                if let Err(error) = result {
                    self.upkeep.refused(cx.now);
                    self.attention(format!("policies could not be written: {error}"), cx);
                }
            }
            Awaited::Tidying => {
                if let Err(error) = result {
                    self.attention(error.to_string(), cx);
                }
            }
        }
        self.settle(cx);
        self.sweep(cx);
    }

    fn created(&mut self, error: Option<XfrmError>, cx: &mut Context<'_>) {
        let Gate::Creating { left, pause } = &mut self.gate else {
            return;
        };
        let (left, pause) = (std::mem::take(left), *pause);
        let Some(error) = error else {
            self.gate = Gate::Present(Present::held(cx.now, cx.now + HOLD_REFRESH));
            self.event(cx, None, EventKind::Holding);
            self.sync_routes(cx);
            self.begin(cx);
            return;
        };
        self.policies_refused(error, left, pause, cx);
    }

    /// The policies of newly assigned addresses are in the kernel, or not.
    fn amended(&mut self, error: Option<XfrmError>, cx: &mut Context<'_>) {
        let amending = std::mem::take(&mut self.amending);
        if let Some(error) = error
            && matches!(self.gate, Gate::Present(_))
        {
            let mut left = self.own_policies();
            left.retain(|key| !amending.contains(key));
            self.policies_refused(error, left, Duration::ZERO, cx);
        }
    }

    fn policies_refused(
        &mut self,
        error: XfrmError,
        left: BTreeSet<PolicyKey>,
        paused: Duration,
        cx: &mut Context<'_>,
    ) {
        let pause = (paused * 2).clamp(REFUSED_RETRY, POLICIES_RETRY_MAX);
        let reason = match error {
            XfrmError::Exists(text) => format!(
                "a policy with the selectors of this tunnel exists already and is not ours ({text}); \
                 remove it or change `traffic`; until then the tunnel does not start"
            ),
            XfrmError::Missing(text) | XfrmError::Other(text) => {
                format!("the kernel refused the policies: {text}")
            }
        };
        if self.last_error.as_ref() == Some(&reason) {
            self.note_error(reason.clone(), cx.now);
        } else {
            self.attention(reason.clone(), cx);
        }
        self.answer_all(
            |_| true,
            &CommandOutcome::Failed(format!("tunnel {}: {reason}", self.config.name)),
            cx,
        );
        self.gate = Gate::Refused {
            reason,
            again: cx.now + pause,
            pause,
            left,
        };
    }

    fn moved(&mut self, to: Position, error: Option<XfrmError>, cx: &mut Context<'_>) {
        let Gate::Present(present) = &mut self.gate else {
            return;
        };
        present.moving = None;
        if let Some(error) = error {
            if let Position::Open(number) = to
                && let Some(epoch) = self.epoch_mut(number)
            {
                epoch.repin = true;
            }
            let Gate::Present(present) = &mut self.gate else {
                return;
            };
            // Some policies may have moved. Both epochs' SAs stay; `settle` writes all again.
            present.refused = true;
            present.strayed = Some(to);
            present.again = cx.now + REFUSED_RETRY;
            self.attention(format!("the kernel refused to move the gate: {error}"), cx);
            return;
        }
        present.refused = false;
        present.strayed = None;
        let from = std::mem::replace(&mut present.at, to);
        match to {
            Position::Held => {
                present.again = cx.now + HOLD_REFRESH;
                present.fell |= matches!(from, Position::Open(_));
            }
            Position::Open(number) => {
                let held = present.held_since.take();
                present.waiting_since = None;
                let fell = std::mem::take(&mut present.fell);
                if from != to {
                    self.counters.recoveries += u64::from(fell);
                    self.counters.rekeys += u64::from(matches!(from, Position::Open(_)));
                    let held_us = held.map(|since| micros(cx.now.since(since)));
                    self.counters.switches += 1;
                    self.event(cx, Some(number), EventKind::Switched { held_us });
                    self.switched(number, cx);
                }
            }
        }
    }

    /// All outbound traffic uses this epoch now: what came before it can end.
    fn switched(&mut self, open: EpochNumber, cx: &mut Context<'_>) {
        self.last_error = None;
        self.failures = 0;
        self.failed_epochs = 0;
        self.answer_all(
            |wish| match wish {
                Wish::Open => true,
                Wish::SwitchBeyond(number) => open > number,
                Wish::IkeRekeyed | Wish::Removed => false,
            },
            &CommandOutcome::Done,
            cx,
        );
        let refused: Vec<String> = self
            .epoch(open)
            .map(|epoch| {
                self.policies
                    .refused_by(epoch)
                    .map(|pair| pair.to_string())
                    .collect()
            })
            .unwrap_or_default();
        if !refused.is_empty() {
            let reason = format!(
                "the peer did not agree to {}: that traffic stays held; make `traffic` of both ends meet",
                refused.join(", ")
            );
            self.attention(reason, cx);
        }
        self.retire_before(open, cx);
        self.abandon_attempts(0, cx);
        self.sync_routes(cx);
    }

    fn sa_added(
        &mut self,
        number: EpochNumber,
        sa: SaId,
        error: Option<XfrmError>,
        cx: &mut Context<'_>,
    ) {
        let Some(epoch) = self.epoch_mut(number) else {
            // Forgotten meanwhile: nothing of it may stay.
            if may_be_there(error.as_ref()) {
                cx.out.remove_sa(sa);
            }
            return;
        };
        if may_be_there(error.as_ref()) {
            if sa == epoch.inbound {
                epoch.in_kernel.inbound = true;
            } else {
                epoch.in_kernel.outbound = true;
            }
        }
        let Stage::Installing(installing) = &mut epoch.stage else {
            return;
        };
        installing.unanswered = installing.unanswered.saturating_sub(1);
        if let Some(error) = error {
            installing.refused.get_or_insert((sa, error));
        }
        if installing.unanswered > 0 {
            return;
        }
        let first_arrived = installing.first_arrived;
        match installing.refused.take() {
            None => self.installed(number, first_arrived, cx),
            Some((sa, error)) => self.not_installed(number, sa, &error, cx),
        }
    }

    /// What the kernel told by itself about one of this tunnel's SAs or policies.
    pub(crate) fn xfrm_event(&mut self, event: XfrmEvent, cx: &mut Context<'_>) {
        match event {
            XfrmEvent::Acquire { .. } => self.acquired(cx),
            XfrmEvent::FirstPacket(sa) => self.first_packet(sa, cx),
            XfrmEvent::Expired(sa) => self.sa_lost(sa, "its hard lifetime ended", cx),
            XfrmEvent::SaRemoved(sa) => self.sa_lost(sa, "somebody else removed its SA", cx),
            XfrmEvent::PolicyRemoved(_) => self.policy_removed(cx),
            XfrmEvent::MappingChanged { sa, source } => self.mapping_changed(sa, source, cx),
            XfrmEvent::Overrun => {
                self.restore_policies(cx);
                self.look_for_sas(cx);
            }
        }
        self.settle(cx);
        self.sweep(cx);
    }

    /// Sees whether the kernel still has the SAs that it ought to have.
    fn look_for_sas(&self, cx: &mut Context<'_>) {
        for epoch in self.epochs.iter().filter(|epoch| !epoch.is_draining()) {
            let there = [
                (epoch.in_kernel.inbound, epoch.inbound),
                (epoch.in_kernel.outbound, epoch.outbound),
            ];
            for (_, sa) in there.into_iter().filter(|(there, _)| *there) {
                let owner = Owner::Tunnel(self.id, Awaited::Presence(sa));
                cx.out.xfrm(owner, XfrmOp::ReadPackets(sa));
            }
        }
    }

    /// The SAs of all its epochs.
    pub(crate) fn sas(&self) -> impl Iterator<Item = SaId> {
        self.epochs
            .iter()
            .flat_map(|epoch| [epoch.inbound, epoch.outbound])
    }

    fn sa_lost(&mut self, sa: SaId, why: &str, cx: &mut Context<'_>) {
        let lost = |epoch: &&mut Epoch| epoch.inbound == sa || epoch.outbound == sa;
        let Some(epoch) = self.epochs.iter_mut().find(lost) else {
            return;
        };
        if sa == epoch.inbound {
            epoch.in_kernel.inbound = false;
        } else {
            epoch.in_kernel.outbound = false;
        }
        if epoch.is_draining() {
            return;
        }
        let (number, session, child) = (epoch.number, epoch.session, epoch.child);
        self.attention(format!("epoch {number} is lost: {why}"), cx);
        cx.ike.delete_child(session, child, cx.now);
        self.drain(number, cx);
        self.settle(cx);
        self.replace_lost("an SA is gone", cx);
    }

    /// Removes what has drained, as soon as the gate has left it.
    pub(super) fn sweep(&mut self, cx: &mut Context<'_>) {
        self.relocate_epochs(cx);
        let mut gone = Vec::new();
        let mut removed = Vec::new();
        for epoch in &mut self.epochs {
            let Stage::Draining { inbound_until } = epoch.stage else {
                continue;
            };
            // SAs that are on their way elsewhere are waited for.
            if self.gate.uses(epoch.number) || epoch.relocation.is_some() {
                continue;
            }
            if std::mem::take(&mut epoch.in_kernel.outbound) {
                removed.push(epoch.outbound);
            }
            if inbound_until <= cx.now {
                if std::mem::take(&mut epoch.in_kernel.inbound) {
                    removed.push(epoch.inbound);
                }
                removed.append(&mut epoch.left_behind);
                gone.push((epoch.number, epoch.session));
            }
        }
        for sa in removed {
            cx.out.remove_sa(sa);
        }
        for (number, session) in gone {
            self.epochs.retain(|epoch| epoch.number != number);
            self.epochs.shrink_to_fit();
            self.event(cx, Some(number), EventKind::EpochRemoved);
            self.close_if_spare(session, cx);
            self.look_soon(session, cx);
        }
    }

    /// Removes every SA now; the policies hold or are gone.
    pub(super) fn remove_all_sas(&mut self, cx: &mut Context<'_>) {
        for epoch in std::mem::take(&mut self.epochs) {
            for sa in epoch.left_behind {
                cx.out.remove_sa(sa);
            }
            if epoch.in_kernel.outbound {
                cx.out.remove_sa(epoch.outbound);
            }
            if epoch.in_kernel.inbound {
                cx.out.remove_sa(epoch.inbound);
            }
        }
    }

    pub(super) fn attention(&mut self, reason: String, cx: &mut Context<'_>) {
        self.event(
            cx,
            None,
            EventKind::Attention {
                reason: reason.clone(),
            },
        );
        self.note_error(reason, cx.now);
    }

    /// Keeps an error for `status`.
    pub(super) fn note_error(&mut self, text: String, now: Timestamp) {
        self.counters.last_failure = Some((text.clone(), now));
        self.last_error = Some(text);
    }
}

/// Microseconds, saturating.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A counter; `None` where it could not be read (the SA is gone).
fn packets(result: Result<XfrmReply, XfrmError>) -> Option<u64> {
    match result {
        Ok(XfrmReply::Packets(packets)) => Some(packets),
        Ok(XfrmReply::Done | XfrmReply::Ours { .. }) | Err(_) => None,
    }
}

/// Whether an SA that was to be added is in the kernel, or may be: the answer to a request that was
/// done can get lost (ENOBUFS). Where it exists already it is somebody else's.
pub(super) fn may_be_there(error: Option<&XfrmError>) -> bool {
    match error {
        None | Some(XfrmError::Other(_)) => true,
        Some(XfrmError::Exists(_) | XfrmError::Missing(_)) => false,
    }
}
