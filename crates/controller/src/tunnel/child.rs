//! Child SAs as IKE tells of them: negotiated, refused, deleted, forgotten; and the epochs that they
//! become or cease to be.

use epochgate_ike_wire::NotifyType;

use super::epoch::{Check, Epoch, Probe, Proving, Stage, Usable};
use super::gate::{Gate, Position};
use super::ladder::Effort;
use super::{Awaited, Context, EPOCHS_MAX, Tunnel};
use crate::config::Start;
use crate::event::{EpochNumber, EventKind};
use crate::ike::{Child, ChildError, ChildId, IkeSaId, Refused, Side};
use crate::io::{SaId, XfrmError, XfrmOp};
use crate::outbox::Owner;

/// Notifies about virtual addresses, by their numbers (RFC 7296 §3.10.1).
const INTERNAL_ADDRESS_FAILURE: u16 = NotifyType::INTERNAL_ADDRESS_FAILURE.0;
const FAILED_CP_REQUIRED: u16 = NotifyType::FAILED_CP_REQUIRED.0;

/// The kernel's own limit on an SA's life, as a multiple of the configured lifetime: a safety net
/// that our rekeying never comes near (a hard-expired pinned SA costs a packet).
const HARD_LIFETIMES: u32 = 8;

impl Tunnel {
    pub(super) fn child_negotiated(
        &mut self,
        session: IkeSaId,
        child: &Child,
        cx: &mut Context<'_>,
    ) {
        if self.ends_unused(session, child, cx) {
            return;
        }
        if child.started_by == Side::Us {
            self.busy_answers = 0;
            self.effort = Effort::Rest;
        }
        if self.epochs.len() >= EPOCHS_MAX {
            self.drop_spare_epoch(cx);
        }
        let ready = self.ending.is_none() && matches!(self.gate, Gate::Present(_));
        let peer = self.peer_of(session);
        let Some(peer) = peer.filter(|_| ready && self.epochs.len() < EPOCHS_MAX) else {
            self.refuse(session, child, cx);
            return;
        };
        let number = EpochNumber(self.last_number.0 + 1);
        let epoch = Epoch::new(number, session, child, peer, cx.now);
        self.last_number = number;
        let hard_lifetime = self.config.epoch.lifetime.saturating_mul(HARD_LIFETIMES);
        let report_first = self.awaits(child.started_by) || self.takes_anything();
        let replay_window = self.config.esp.replay_window;
        for spec in epoch.sa_specs(
            child,
            self.reqids.child,
            self.if_id(),
            report_first,
            replay_window,
            hard_lifetime,
        ) {
            let awaited = Awaited::Addition {
                epoch: epoch.number,
                sa: spec.id,
            };
            cx.out
                .xfrm(Owner::Tunnel(self.id, awaited), XfrmOp::AddSa(spec));
        }
        // Most tunnels have one; a vector would make room for four.
        self.epochs.reserve_exact(1);
        self.epochs.push(epoch);
        // Not before: an IKE SA whose last epoch is retired goes too.
        if child.started_by == Side::Us {
            self.retire_failed(child.replaces, cx);
        }
    }

    fn refuse(&self, session: IkeSaId, child: &Child, cx: &mut Context<'_>) {
        match child.started_by {
            Side::Peer => cx.ike.child_ready(session, child.id, false, cx.now),
            Side::Us => cx.ike.delete_child(session, child.id, cx.now),
        }
    }

    /// A rekeyed Child SA whose epoch had failed is of no more use.
    fn retire_failed(&mut self, replaced: Option<ChildId>, cx: &mut Context<'_>) {
        let number = replaced.and_then(|child| self.number_of(child));
        let Some(epoch) = number.and_then(|number| self.epoch(number)) else {
            return;
        };
        if let Stage::Proving(Proving { failed: true, .. }) = epoch.stage {
            self.retire(epoch.number, cx);
        }
    }

    /// A server's way to end the epoch that a peer which knows nothing of us would go on using.
    pub(super) fn delete_replaced(&mut self, number: EpochNumber, cx: &mut Context<'_>) {
        let replaced = self.epoch(number).and_then(|epoch| epoch.replaces);
        let Some(old) = replaced.and_then(|child| self.number_of(child)) else {
            return;
        };
        self.drain(old, cx);
        if let Some(old) = self.epoch_mut(old) {
            old.delete_once_left = true;
        }
        self.settle(cx);
        self.delete_left(cx);
    }

    /// Deletes what traffic has left. A peer may take its inbound SA away as soon as it reads the
    /// Delete (RFC 7296 §1.4.1), so whatever is sent after that is lost.
    pub(super) fn delete_left(&mut self, cx: &mut Context<'_>) {
        for epoch in &mut self.epochs {
            if epoch.delete_once_left && !self.gate.uses(epoch.number) {
                epoch.delete_once_left = false;
                cx.ike.delete_child(epoch.session, epoch.child, cx.now);
            }
        }
    }

    /// Makes room: an epoch that traffic does not use goes at once, first those that never carried
    /// any.
    fn drop_spare_epoch(&mut self, cx: &mut Context<'_>) {
        let spare = self
            .epochs
            .iter()
            .filter(|epoch| !self.gate.uses(epoch.number) && !epoch.is_usable())
            .min_by_key(|epoch| (matches!(epoch.stage, Stage::Usable(_)), epoch.number));
        let Some(number) = spare.map(|epoch| epoch.number) else {
            return;
        };
        if self.epoch(number).is_some_and(|epoch| !epoch.is_draining()) {
            self.retire(number, cx);
        }
        self.set_stage(
            number,
            Stage::Draining {
                inbound_until: cx.now,
            },
        );
        self.sweep(cx);
    }

    /// The kernel refused an SA: nothing of the epoch may stay.
    pub(super) fn not_installed(
        &mut self,
        number: EpochNumber,
        refused: SaId,
        error: &XfrmError,
        cx: &mut Context<'_>,
    ) {
        let Some(index) = self.epochs.iter().position(|epoch| epoch.number == number) else {
            return;
        };
        let epoch = self.epochs.remove(index);
        self.epochs.shrink_to_fit();
        let present = [
            (epoch.in_kernel.outbound, epoch.outbound),
            (epoch.in_kernel.inbound, epoch.inbound),
        ];
        for (_, sa) in present.into_iter().filter(|(present, _)| *present) {
            cx.out.remove_sa(sa);
        }
        match epoch.started_by {
            Side::Peer => cx
                .ike
                .child_ready(epoch.session, epoch.child, false, cx.now),
            Side::Us => cx.ike.delete_child(epoch.session, epoch.child, cx.now),
        }
        let reason = format!("the kernel refused an SA: {error}");
        match (epoch.started_by, error) {
            (Side::Us, _) => self.effort_failed(reason, cx),
            // Nobody's mistake: two clients behind one NAT chose the same.
            (Side::Peer, XfrmError::Exists(_)) if refused == epoch.outbound => {
                let spi = refused.spi;
                self.event(cx, Some(number), EventKind::SpiTaken { spi });
            }
            (Side::Peer, _) => self.attention(reason, cx),
        }
    }

    pub(super) fn child_refused(
        &mut self,
        session: IkeSaId,
        replaces: Option<ChildId>,
        error: ChildError,
        cx: &mut Context<'_>,
    ) {
        if matches!(self.effort, Effort::Untying { session: of, .. } if of == session) {
            self.effort = Effort::Rest;
            return;
        }
        let busy = error == ChildError::Temporary;
        if busy && cx.ike.is_established(session) && self.put_off(session, cx) {
            return;
        }
        let reason = match error {
            ChildError::Temporary => "the peer is busy (TEMPORARY_FAILURE)".to_owned(),
            ChildError::NoProposal => "the peer accepts none of our ESP algorithms \
                 (NO_PROPOSAL_CHOSEN): make `algorithms.esp` of both ends meet"
                .to_owned(),
            ChildError::Selectors => "the peer accepts none of our traffic selectors \
                 (TS_UNACCEPTABLE): make `traffic` of both ends meet"
                .to_owned(),
            ChildError::SinglePair => "the peer wants a Child SA for each pair of addresses \
                 (SINGLE_PAIR_REQUIRED): give each pair a tunnel of its own, with single addresses \
                 in `traffic`"
                .to_owned(),
            ChildError::NoAdditionalSas => {
                self.failed_epochs = self.failed_epochs.saturating_add(1);
                "the peer wants no more Child SAs (NO_ADDITIONAL_SAS)".to_owned()
            }
            ChildError::Notify(INTERNAL_ADDRESS_FAILURE) => {
                "the server has no virtual address for \
                 us (INTERNAL_ADDRESS_FAILURE): its pool is exhausted, or has none of the IP \
                 versions that `virtual.request` names"
                    .to_owned()
            }
            ChildError::Notify(FAILED_CP_REQUIRED) => "the server wants to assign our address \
                 (FAILED_CP_REQUIRED): set `virtual.request`"
                .to_owned(),
            ChildError::Notify(kind) => format!("the peer refused with notify {kind}"),
            ChildError::Nonsense => "the peer's answer does not fit our request".to_owned(),
        };
        if replaces.is_none() && !self.epochs.iter().any(|epoch| epoch.session == session) {
            // An IKE SA without a Child SA is of no use; the next attempt starts afresh.
            self.solitary = cx.ike.is_shared(session);
            cx.ike.leave(session, self.id, cx.now);
        }
        if matches!(
            self.effort,
            Effort::Rekeying { session: of, .. } | Effort::Connecting { session: of, .. } if of == session
        ) {
            self.effort_failed(reason, cx);
        } else {
            self.attention(reason, cx);
        }
    }

    /// What the peer asked for cannot be: both ends' operators have to hear why.
    pub(super) fn offer_refused(&mut self, what: Refused, cx: &mut Context<'_>) {
        let reason = match what {
            Refused::Child(ChildError::NoProposal) => {
                "the peer's ESP algorithms meet none of ours \
                 (NO_PROPOSAL_CHOSEN): make `algorithms.esp` of both ends meet"
                    .to_owned()
            }
            Refused::Child(ChildError::Selectors) => "the peer's traffic selectors meet none of \
                 ours (TS_UNACCEPTABLE): make `traffic` of both ends meet"
                .to_owned(),
            Refused::Child(ChildError::NoAdditionalSas) => {
                "the peer wants too many Child SAs (NO_ADDITIONAL_SAS)".to_owned()
            }
            Refused::Child(ChildError::Notify(INTERNAL_ADDRESS_FAILURE)) => {
                "the peer gets no virtual address (INTERNAL_ADDRESS_FAILURE): the pools of \
                 `virtual.pools` are exhausted, or have none of the IP versions that it asks for"
                    .to_owned()
            }
            Refused::Child(ChildError::Notify(FAILED_CP_REQUIRED)) => {
                "the peer does not ask for a virtual address (FAILED_CP_REQUIRED): let it ask, or \
                 name its networks in `traffic.remote` instead of `virtual.pools`"
                    .to_owned()
            }
            Refused::Child(ChildError::Notify(kind)) => {
                format!("the peer's wish for a Child SA is refused with notify {kind}")
            }
            // Not our answers to an offer.
            Refused::Child(
                ChildError::Temporary | ChildError::SinglePair | ChildError::Nonsense,
            ) => return,
            Refused::IkeRekey => {
                "the peer's IKE algorithms for a rekey of the IKE SA meet none of \
                 ours (NO_PROPOSAL_CHOSEN): make `algorithms.ike` of both ends meet"
                    .to_owned()
            }
        };
        self.attention(reason, cx);
    }

    /// The peer ended a Child SA, or the end of a redundant one is under way.
    pub(super) fn child_ended_by_peer(&mut self, child: ChildId, cx: &mut Context<'_>) {
        let Some(number) = self.number_of(child) else {
            return;
        };
        // Traffic may wait for it, and its ACQUIRE has been heard.
        let was_awaited = self.is_client() && self.epoch(number).is_some_and(Epoch::is_candidate);
        self.drain(number, cx);
        self.shorten(number, cx.now + self.config.epoch.drain);
        self.delete_answered(number);
        self.ask_before_going_back(cx);
        self.follow_client(cx);
        self.settle(cx);
        // The deletion shows that the peer has the successor's SAs by now.
        for epoch in &mut self.epochs {
            if let Stage::Proving(proving) = &mut epoch.stage {
                proving.pings.restart(cx.now);
                proving.failed = false;
            }
        }
        self.ping_successors(cx);
        if self.config.start == Start::Always || was_awaited {
            self.replace_lost("the peer deleted the Child SA", cx);
        }
    }

    /// A server that need not wait goes where its client has gone.
    fn follow_client(&mut self, cx: &mut Context<'_>) {
        if self.is_client() || self.config.epoch.wait || self.chosen() != Position::Held {
            return;
        }
        let awaited = |epoch: &Epoch| matches!(epoch.stage, Stage::Awaiting { .. });
        let newest = self.epochs.iter().filter(|epoch| awaited(epoch));
        if let Some(number) = newest.map(|epoch| epoch.number).max() {
            self.make_usable(number, false, cx);
        }
    }

    pub(super) fn child_deleted(&mut self, child: ChildId, cx: &mut Context<'_>) {
        let Some(number) = self.number_of(child) else {
            return;
        };
        self.drain(number, cx);
        self.shorten(number, cx.now + self.config.epoch.drain);
        self.delete_answered(number);
        self.cleared(cx);
        self.ping_successors(cx);
    }

    /// A Child SA is gone at the peer: one that knows nothing of us moves to its successor only
    /// now, and what waits for something to come that way asks at once.
    fn ping_successors(&mut self, cx: &mut Context<'_>) {
        for epoch in &mut self.epochs {
            match &mut epoch.stage {
                Stage::Awaiting {
                    pings: Some(pings), ..
                }
                | Stage::Usable(Usable {
                    proven: false,
                    check: Check::Pinging(Probe { pings, .. }),
                    ..
                }) => pings.restart(cx.now),
                Stage::Installing(_)
                | Stage::Proving(_)
                | Stage::Awaiting { .. }
                | Stage::Usable(_)
                | Stage::Draining { .. } => {}
            }
        }
        let numbers: Vec<EpochNumber> = self.epochs.iter().map(|epoch| epoch.number).collect();
        for number in numbers {
            self.epoch_timeout(number, cx);
        }
    }

    /// The peer has forgotten a Child SA: our half is of no use (RFC 7296 §2.25).
    pub(super) fn child_unknown(&mut self, child: ChildId, cx: &mut Context<'_>) {
        if let Some(number) = self.number_of(child) {
            self.delete_answered(number);
            self.drain(number, cx);
            self.shorten(number, cx.now + self.config.epoch.drain);
        }
        self.settle(cx);
        if matches!(self.effort, Effort::Rekeying { child: Some(of), .. } if of == child) {
            self.effort = Effort::Rest;
            self.pursue("the peer has forgotten the Child SA", cx);
        }
    }
}
