//! What IKE tells a tunnel, its IKE SAs, and what becomes of their epochs when they end. Child SAs
//! are in [`super::child`].

use super::epoch::Stage;
use super::ladder::Effort;
use super::{Context, SESSIONS_MAX, Session, Tunnel, Wish};
use crate::Timestamp;
use crate::config::Start;
use crate::event::{EpochNumber, EventKind};
use crate::ike::{CloseReason, IkeEvent, IkeSaId, Peer, Side};
use crate::io::CommandOutcome;

/// Longest that an inbound SA stays whose deletion the peer does not confirm.
const DELETE_PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

impl Tunnel {
    pub(crate) fn handle_ike(&mut self, session: IkeSaId, event: IkeEvent, cx: &mut Context<'_>) {
        match event {
            IkeEvent::Established(peer) => self.established(session, peer, cx),
            IkeEvent::Joined(peer) => self.joined(session, peer, cx),
            IkeEvent::Child(child) => self.child_negotiated(session, &child, cx),
            IkeEvent::ChildRefused { replaces, error } => {
                self.child_refused(session, replaces, error, cx);
            }
            IkeEvent::OfferRefused(what) => self.offer_refused(what, cx),
            // The controller looks for one.
            IkeEvent::AddressWanted => {}
            IkeEvent::ChildRedundant(child) | IkeEvent::ChildDeletedByPeer(child) => {
                self.child_ended_by_peer(child, cx);
            }
            IkeEvent::ChildDeleted(child) => self.child_deleted(child, cx),
            IkeEvent::ChildUnknownToPeer(child) => self.child_unknown(child, cx),
            IkeEvent::Alive => self.heard(session, cx),
            IkeEvent::Forgotten => self.forgotten(session, cx),
            IkeEvent::RekeyIgnored(child) => self.rekey_instead(session, child, cx),
            IkeEvent::PathChanged(path) => self.path_changed(session, path, cx),
            IkeEvent::KeepaliveDue(path) => self.keepalive_due(path, cx),
            IkeEvent::Rekeyed(by) => {
                let by_peer = by == Side::Peer;
                self.event(cx, None, EventKind::IkeRekeyed { by_peer });
                self.answer_all(
                    |wish| matches!(wish, Wish::IkeRekeyed),
                    &CommandOutcome::Done,
                    cx,
                );
            }
            IkeEvent::RekeyRefused(error) => self.ike_rekey_refused(session, error, cx),
            IkeEvent::AuthenticatedUntil(until) => self.authenticated_until(session, until, cx),
            IkeEvent::Closed(reason) => self.closed(session, &reason, cx),
        }
        self.settle(cx);
        self.sweep(cx);
    }

    fn established(&mut self, session: IkeSaId, peer: Peer, cx: &mut Context<'_>) {
        if self.ending.is_some() || self.gate.is_down() {
            cx.ike.leave(session, self.id, cx.now);
            return;
        }
        self.contacted = true;
        if let Effort::Connecting { session: of, since } = self.effort
            && of == session
        {
            // IKE_SA_INIT and IKE_AUTH; more only if the first was refused.
            self.ike_round_trip = Some(cx.now.since(since) / 2);
        }
        if peer.initial_contact {
            self.forget_others(session, cx);
        }
        self.event(
            cx,
            None,
            EventKind::IkeEstablished {
                peer: peer.id.to_string(),
                epochgate: peer.epochgate,
                nat: peer.nat,
            },
        );
        if let Some(assigned) = peer.assigned.clone() {
            self.assigned(assigned, cx);
        }
        if self.config.addressing.pools().is_some() {
            let addresses = self.virtual_addresses();
            if !addresses.is_empty() {
                self.event(cx, None, EventKind::AddressesLeased { addresses });
            }
        }
        self.know_session(session, peer, cx);
    }

    fn know_session(&mut self, session: IkeSaId, peer: Peer, cx: &mut Context<'_>) {
        let id = session;
        let renew_at = self.renewal_after_now(cx);
        match self.sessions.iter_mut().find(|known| known.id == session) {
            Some(known) => {
                known.peer = Some(peer);
                known.renew_at = renew_at;
            }
            None => {
                let session = Session {
                    peer: Some(peer),
                    renew_at,
                    ..Session::unknown(session)
                };
                self.add_session(session, cx);
            }
        }
        self.look_soon(id, cx);
    }

    /// One more IKE SA; where there are enough of them, one that nothing depends on goes.
    pub(super) fn add_session(&mut self, session: Session, cx: &mut Context<'_>) {
        if self.sessions.len() >= SESSIONS_MAX {
            self.forget_spare_session(cx);
        }
        // Most tunnels have one; a vector would make room for four.
        self.sessions.reserve_exact(1);
        self.sessions.push(session);
    }

    /// A sibling's IKE SA is this tunnel's too, because either end wants a Child SA for it there.
    fn joined(&mut self, session: IkeSaId, peer: Peer, cx: &mut Context<'_>) {
        if self.ending.is_some() || self.gate.is_down() {
            cx.ike.leave(session, self.id, cx.now);
            return;
        }
        self.contacted = true;
        let kind = EventKind::IkeShared {
            peer: peer.id.to_string(),
        };
        self.event(cx, None, kind);
        self.know_session(session, peer, cx);
        if let Effort::Connecting { session: of, .. } = self.effort
            && of == session
        {
            cx.ike.new_child(session, self.id, cx.now);
            self.effort = Effort::Rekeying {
                session,
                child: None,
                since: cx.now,
            };
        }
    }

    /// Whether an epoch of this IKE SA may yet come to life.
    pub(super) fn has_hope(&self, session: IkeSaId) -> bool {
        let mut epochs = self.epochs.iter();
        epochs.any(|epoch| epoch.session == session && !epoch.is_draining())
    }

    /// Whether an epoch of this IKE SA carries traffic, or did and may come back to life.
    fn has_carried(&self, session: IkeSaId) -> bool {
        let mut epochs = self.epochs.iter();
        epochs.any(|epoch| epoch.session == session && matches!(epoch.stage, Stage::Usable(_)))
    }

    /// IKE SAs without epochs are of no use beside a new one.
    pub(super) fn close_failed_sessions(&mut self, cx: &mut Context<'_>) {
        for session in &self.sessions {
            if session.peer.is_some() && !self.has_hope(session.id) {
                cx.ike.leave(session.id, self.id, cx.now);
            }
        }
    }

    /// Gives up IKE SAs that are still being negotiated, but for the latest `kept` and one that is
    /// waited for.
    pub(super) fn abandon_attempts(&self, kept: usize, cx: &mut Context<'_>) {
        let awaited = match self.effort {
            Effort::Connecting { session, .. } => Some(session),
            Effort::Rest
            | Effort::FindingSource { .. }
            | Effort::Rekeying { .. }
            | Effort::Untying { .. }
            | Effort::PutOff { .. }
            | Effort::BackingOff { .. } => None,
        };
        let attempts = self
            .sessions
            .iter()
            .rev()
            .filter(|known| known.peer.is_none());
        for known in attempts.skip(kept) {
            if Some(known.id) != awaited {
                cx.ike.leave(known.id, self.id, cx.now);
            }
        }
    }

    /// The peer started anew and knows of no other IKE SA (INITIAL_CONTACT, RFC 7296 §2.4): what it
    /// forgot is of no use. IKE SAs that we are just starting are younger than its word.
    fn forget_others(&mut self, session: IkeSaId, cx: &mut Context<'_>) {
        let others = self.sessions.iter();
        let forgotten: Vec<IkeSaId> = others
            .filter(|known| known.id != session && known.peer.is_some())
            .map(|known| known.id)
            .collect();
        for id in forgotten {
            self.forget_session(id, "the peer started anew", cx);
        }
        cx.ike.forget_siblings(session, self.id);
        self.settle(cx);
    }

    /// Drops an IKE SA without a word to the peer.
    pub(super) fn forget_session(&mut self, id: IkeSaId, why: &str, cx: &mut Context<'_>) {
        cx.ike.forget(id, self.id);
        self.session_over(id, cx.now + self.config.epoch.drain, cx);
        let reason = why.to_owned();
        let kind = EventKind::IkeClosed {
            reason,
            by_us: false,
        };
        self.event(cx, None, kind);
        let concerned = match self.effort {
            Effort::Connecting { session, .. } | Effort::Rekeying { session, .. } => session == id,
            Effort::Rest
            | Effort::FindingSource { .. }
            | Effort::Untying { .. }
            | Effort::PutOff { .. }
            | Effort::BackingOff { .. } => false,
        };
        if concerned {
            self.effort_failed(why.to_owned(), cx);
        }
    }

    /// Makes room: an IKE SA goes that has carried nothing, else the oldest.
    pub(super) fn forget_spare_session(&mut self, cx: &mut Context<'_>) {
        let open = self.gate.open_epoch().and_then(|open| self.epoch(open));
        let kept = open.map(|epoch| epoch.session);
        let spare = self
            .sessions
            .iter()
            .map(|session| session.id)
            .filter(|id| Some(*id) != kept)
            .min_by_key(|id| (self.has_carried(*id), *id));
        if let Some(id) = spare {
            if cx.ike.is_shared(id) {
                cx.ike.leave(id, self.id, cx.now);
                self.session_over(id, cx.now + self.config.epoch.drain, cx);
            } else {
                self.forget_session(id, "there are too many IKE SAs with this peer", cx);
            }
        }
    }

    fn closed(&mut self, session: IkeSaId, reason: &CloseReason, cx: &mut Context<'_>) {
        let connecting =
            matches!(self.effort, Effort::Connecting { session: of, .. } if of == session);
        let rekeying = matches!(self.effort, Effort::Rekeying { session: of, .. } if of == session);
        let known = self.sessions.iter().find(|known| known.id == session);
        // An attempt that was given up is no news.
        let known = known.is_some_and(|known| known.peer.is_some() || connecting);
        let text = self.close_text(reason);
        let by_us = matches!(reason, CloseReason::Asked | CloseReason::Left);
        // Over a dead IKE SA a client's epoch may still work, and its own checks tell; a server has
        // no other sign of its client.
        let keep_epochs = *reason == CloseReason::NoAnswer && self.proves();
        if keep_epochs {
            self.sessions.retain(|known| known.id != session);
            self.sessions.shrink_to_fit();
        } else {
            self.session_over(session, cx.now + self.config.epoch.drain, cx);
        }
        if !known && let CloseReason::AuthenticationFailed(_) | CloseReason::NoProposal = reason {
            // A peer that was turned away in IKE_AUTH: its IKE SA never was one of this tunnel's.
            self.attention(format!("IKE_AUTH refused: {text}"), cx);
        }
        if known && !connecting {
            self.event(
                cx,
                None,
                EventKind::IkeClosed {
                    reason: text.clone(),
                    by_us,
                },
            );
        }
        self.answer_all(
            |wish| matches!(wish, Wish::IkeRekeyed),
            &CommandOutcome::Failed(format!("tunnel {}: {text}", self.config.name)),
            cx,
        );
        self.settle(cx);
        if connecting || rekeying {
            self.effort_failed(text, cx);
        } else if self.orphaned(cx) {
            // Whoever ended it: an epoch of another one lives on, and has none any more.
            self.pursue("the last IKE SA ended", cx);
        } else if known && (!by_us || self.sessions.is_empty()) {
            if keep_epochs || self.config.start == Start::Always {
                self.pursue("the IKE SA ended", cx);
            } else {
                if !by_us {
                    self.note_error(text, cx.now);
                }
                self.hear_of_waiting(cx);
            }
        }
    }

    fn close_text(&self, reason: &CloseReason) -> String {
        match reason {
            CloseReason::Asked => "closed by this end".into(),
            CloseReason::Left => "left to the other tunnels that use it".into(),
            CloseReason::DeletedByPeer => "the peer deleted it".into(),
            CloseReason::NoAnswer => self.no_answer(),
            CloseReason::NoProposal => "the peer accepts none of our IKE algorithms \
                 (NO_PROPOSAL_CHOSEN): make `algorithms.ike` of both ends meet"
                .into(),
            CloseReason::AuthenticationFailed(text) | CloseReason::Failed(text) => text.clone(),
        }
    }

    pub(super) fn no_answer(&self) -> String {
        match self.peer_address() {
            Some(address) => format!(
                "no answer from {address}: it is down, or UDP 500/4500 is blocked on the way"
            ),
            None => "the peer does not answer".into(),
        }
    }

    /// An IKE SA is over: so are its Child SAs (RFC 7296 §1.4.1).
    fn session_over(&mut self, session: IkeSaId, inbound_until: Timestamp, cx: &mut Context<'_>) {
        self.sessions.retain(|known| known.id != session);
        self.sessions.shrink_to_fit();
        let numbers: Vec<EpochNumber> = self
            .epochs
            .iter()
            .filter(|epoch| epoch.session == session)
            .map(|epoch| epoch.number)
            .collect();
        for number in numbers {
            self.drain(number, cx);
            self.shorten(number, inbound_until);
            self.delete_answered(number);
        }
        self.cleared(cx);
    }

    pub(super) fn delete_answered(&mut self, number: EpochNumber) {
        if let Some(epoch) = self.epoch_mut(number) {
            epoch.delete_unanswered = false;
        }
    }

    /// Ends an epoch: its Child SA, or its whole IKE SA when that has no other and a later one has
    /// taken over.
    pub(super) fn retire(&mut self, number: EpochNumber, cx: &mut Context<'_>) {
        let Some(epoch) = self.epoch(number) else {
            return;
        };
        let (session, child) = (epoch.session, epoch.child);
        let newest = self.epochs.iter().max_by_key(|epoch| epoch.number);
        let shared = self.epochs.iter().any(|other| {
            other.session == session && other.number != number && !other.is_draining()
        });
        let still_used = shared || newest.is_none_or(|newest| newest.session == session);
        let alive = self.sessions.iter().any(|known| known.id == session);
        let answers = !self.is_silent(session);
        self.drain(number, cx);
        if !alive {
            self.shorten(number, cx.now + self.config.epoch.drain);
            return;
        }
        if let Some(epoch) = self.epoch_mut(number) {
            epoch.delete_unanswered = answers;
        }
        if still_used {
            cx.ike.delete_child(session, child, cx.now);
        } else {
            cx.ike.leave(session, self.id, cx.now);
        }
    }

    /// An IKE SA that lost its last epoch is of no use beside one that has some.
    pub(super) fn close_if_spare(&mut self, session: IkeSaId, cx: &mut Context<'_>) {
        let busy = match self.effort {
            Effort::Connecting { session: of, .. } | Effort::Rekeying { session: of, .. } => {
                of == session
            }
            Effort::Rest
            | Effort::FindingSource { .. }
            | Effort::Untying { .. }
            | Effort::PutOff { .. }
            | Effort::BackingOff { .. } => false,
        };
        let used = self.epochs.iter().any(|epoch| epoch.session == session);
        let mut others = self.sessions.iter().filter(|known| known.id != session);
        let replaced = others.any(|other| self.has_hope(other.id));
        let known = self.sessions.iter().any(|known| known.id == session);
        if known && !busy && !used && replaced {
            cx.ike.leave(session, self.id, cx.now);
        }
    }

    /// Closes the IKE SAs without epochs beside the one that a usable epoch came from. The peer may
    /// have given up an older one while it could not say so (a request of its own unanswered, RFC 7296
    /// §2.3), or have refused the Child SA of a newer one.
    pub(super) fn close_unused(&mut self, used: IkeSaId, cx: &mut Context<'_>) {
        let others = self.sessions.iter();
        let others = others.filter(|known| known.id != used && known.peer.is_some());
        let unused: Vec<IkeSaId> = others.map(|known| known.id).collect();
        for session in unused {
            self.close_if_spare(session, cx);
        }
    }

    pub(super) fn close_sessions(&mut self, cx: &mut Context<'_>) {
        for session in &self.sessions {
            cx.ike.leave(session.id, self.id, cx.now);
        }
    }

    /// Takes an epoch out of use. Its SAs go when the gate has left it and packets under way have
    /// landed.
    pub(super) fn drain(&mut self, number: EpochNumber, cx: &mut Context<'_>) {
        let patience = self.config.epoch.drain.max(DELETE_PATIENCE);
        self.part_from(number, cx);
        if let Some(epoch) = self.epoch_mut(number)
            && !epoch.is_draining()
        {
            epoch.stage = Stage::Draining {
                inbound_until: cx.now + patience,
            };
        }
    }

    pub(super) fn drain_all(&mut self, cx: &mut Context<'_>) {
        for index in 0..self.epochs.len() {
            self.drain(self.epochs[index].number, cx);
        }
    }

    pub(super) fn shorten(&mut self, number: EpochNumber, until: Timestamp) {
        if let Some(epoch) = self.epoch_mut(number)
            && let Stage::Draining { inbound_until } = &mut epoch.stage
        {
            *inbound_until = until.min(*inbound_until);
        }
    }
}
