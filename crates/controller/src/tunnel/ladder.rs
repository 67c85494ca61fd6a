//! Efforts to get a new epoch, and what follows when one fails: ping again, rekey, a whole new IKE
//! session (R4, R5, R6).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::epoch::{Proving, Stage};
use super::gate::{Gate, Position};
use super::proof::random;
use super::{Context, Session, Tunnel, Wish};
use crate::Timestamp;
use crate::config::{
    BACK_OFF_PERCENT_MAX, CONNECT_PATIENCE, REKEY_PATIENCE, RecoveryConfig, Start,
};
use crate::event::EventKind;
use crate::ike::{ChildId, IkeSaId};
use crate::io::{CommandOutcome, Output};

/// IKE's port (RFC 7296 §2).
pub(super) const IKE_PORT: u16 = 500;

/// Epochs of one IKE SA that may fail in a row before a new IKE SA is tried.
pub(super) const FAILED_EPOCHS_MAX: u32 = 2;

/// Doublings of the back-off at most: one second becomes days.
const DOUBLINGS_MAX: u32 = 20;

/// Unanswered attempts after which an operator who waits is told.
const OPERATOR_ATTEMPTS: u32 = 3;

/// How long the shell may take to find a source address.
const SOURCE_PATIENCE: Duration = Duration::from_secs(2);

/// What is under way to get a new epoch.
#[derive(Debug)]
pub(super) enum Effort {
    /// Nothing; an epoch may still be installing or proving.
    Rest,
    /// The shell looks for the address to start from.
    FindingSource { since: Timestamp },
    /// IKE_SA_INIT and IKE_AUTH.
    Connecting { session: IkeSaId, since: Timestamp },
    /// CREATE_CHILD_SA.
    Rekeying {
        session: IkeSaId,
        child: Option<ChildId>,
        since: Timestamp,
    },
    /// CREATE_CHILD_SA for a Child SA that is deleted at once.
    Untying { session: IkeSaId, since: Timestamp },
    /// The peer had no time for CREATE_CHILD_SA (RFC 7296 §2.25).
    PutOff {
        child: Option<ChildId>,
        until: Timestamp,
    },
    /// The last attempt failed.
    BackingOff { until: Timestamp },
}

impl Effort {
    pub(super) fn due(&self) -> Option<Timestamp> {
        match self {
            Self::Rest => None,
            Self::Connecting { since, .. } => Some(*since + CONNECT_PATIENCE),
            Self::FindingSource { since } => Some(*since + SOURCE_PATIENCE),
            Self::Rekeying { since, .. } | Self::Untying { since, .. } => {
                Some(*since + REKEY_PATIENCE)
            }
            Self::PutOff { until, .. } | Self::BackingOff { until } => Some(*until),
        }
    }
}

impl Tunnel {
    /// The policies are in the kernel: start if this end starts by itself.
    pub(super) fn begin(&mut self, cx: &mut Context<'_>) {
        self.wanted |= matches!(self.config.start, Start::Always);
        if self.wanted {
            self.pursue("the tunnel starts", cx);
        }
    }

    /// A packet met the hold.
    pub(super) fn acquired(&mut self, cx: &mut Context<'_>) {
        if let Gate::Present(present) = &mut self.gate
            && present.at == Position::Held
        {
            present.waiting_since.get_or_insert(cx.now);
        }
        match self.config.start {
            Start::Listen => return,
            Start::OnDemand | Start::Always => {}
        }
        let idle = match self.effort {
            Effort::Rest | Effort::Untying { .. } | Effort::BackingOff { .. } => true,
            Effort::FindingSource { .. }
            | Effort::Connecting { .. }
            | Effort::Rekeying { .. }
            | Effort::PutOff { .. } => false,
        };
        let candidate = self.epochs.iter().any(super::Epoch::is_candidate);
        if self.ending.is_some() || !idle || candidate || self.chosen() != Position::Held {
            return;
        }
        self.wanted = true;
        if matches!(self.effort, Effort::Rest | Effort::Untying { .. }) {
            if let Gate::Present(present) = &mut self.gate {
                present.held_since = Some(cx.now);
            }
            self.event(cx, None, EventKind::FirstPacketHeld);
            self.pursue("traffic waits", cx);
        }
    }

    /// Gets a new epoch by the cheapest way that may work, unless one is under way.
    pub(super) fn pursue(&mut self, why: &str, cx: &mut Context<'_>) {
        match (&self.effort, &self.gate) {
            (Effort::Rest | Effort::Untying { .. }, Gate::Present(_)) => {}
            (Effort::BackingOff { .. }, Gate::Present(_))
                if self.operator_waits() && self.failures == 0 => {}
            (_, _) => return,
        }
        if self.ending.is_some() || self.epochs.iter().any(super::Epoch::is_candidate) {
            return;
        }
        self.effort = Effort::Rest;
        let session = self.live_session(cx);
        if self.join(session, cx) {
            return;
        }
        let spent = self.failed_epochs >= FAILED_EPOCHS_MAX
            || session.is_some_and(|session| self.is_silent(session));
        match session {
            Some(session) if !(spent && self.may_connect()) => self.rekey_on(session, why, cx),
            Some(_) | None => {
                if self.may_connect() {
                    // Should that fail, what there is gets its chance again.
                    self.failed_epochs = 0;
                    self.connect(cx);
                }
            }
        }
    }

    /// Moves to the newest IKE SA that a sibling has made with the same peer, if it is newer than
    /// this tunnel's own. Unless the peer refused to have this tunnel's Child SA there the last time.
    pub(super) fn join(&mut self, own: Option<IkeSaId>, cx: &mut Context<'_>) -> bool {
        if std::mem::take(&mut self.solitary) || !self.may_connect() {
            return false;
        }
        let Some(session) = cx.ike.join(self.id, own) else {
            return false;
        };
        self.failed_epochs = 0;
        self.close_failed_sessions(cx);
        if self.sessions.iter().all(|known| known.id != session) {
            self.add_session(Session::unknown(session), cx);
        }
        self.effort = Effort::Connecting {
            session,
            since: cx.now,
        };
        true
    }

    pub(super) fn operator_waits(&self) -> bool {
        self.wishes
            .iter()
            .any(|(_, wish)| matches!(wish, Wish::Open | Wish::SwitchBeyond(_)))
    }

    /// Whether this end may start an IKE SA: it must know where, and be allowed or asked to.
    pub(super) fn may_connect(&self) -> bool {
        let allowed = match self.config.start {
            Start::OnDemand | Start::Always => true,
            Start::Listen => self.operator_waits(),
        };
        allowed && self.config.remote.address.is_some()
    }

    /// The newest established IKE SA. One that is being deleted takes no requests any more.
    pub(super) fn live_session(&self, cx: &Context<'_>) -> Option<IkeSaId> {
        let established = self
            .sessions
            .iter()
            .filter(|session| session.peer.is_some() && cx.ike.is_established(session.id));
        established.map(|session| session.id).max()
    }

    /// Whether the latest request on an IKE SA was not answered in time, and nothing came since.
    pub(super) fn is_silent(&self, session: IkeSaId) -> bool {
        let mut sessions = self.sessions.iter();
        sessions.any(|known| known.id == session && known.silent)
    }

    /// The peer said something authentic on this IKE SA: requests on it are answered again.
    pub(super) fn heard(&mut self, session: IkeSaId, cx: &mut Context<'_>) {
        let known = self.sessions.iter_mut().find(|known| known.id == session);
        if let Some(known) = known
            && std::mem::take(&mut known.silent)
        {
            self.hurry(cx);
        }
    }

    /// Somebody says that the peer knows nothing of this IKE SA (INVALID_IKE_SPI, RFC 7296 §2.21.4).
    /// It is not authenticated: nothing is given up for it, but what would be tried sooner or later
    /// is tried now.
    pub(super) fn forgotten(&mut self, session: IkeSaId, cx: &mut Context<'_>) {
        match self.effort {
            Effort::Connecting { session: of, .. } if of == session => {
                let reason = "the peer knows nothing of the IKE SA (INVALID_IKE_SPI)".to_owned();
                self.effort_failed(reason, cx);
            }
            Effort::Rekeying { session: of, .. } if of == session => self.unanswered_rekey(cx),
            Effort::Rest
            | Effort::FindingSource { .. }
            | Effort::Connecting { .. }
            | Effort::Rekeying { .. }
            | Effort::Untying { .. }
            | Effort::PutOff { .. }
            | Effort::BackingOff { .. } => {
                if self.proves()
                    && let Position::Open(number) = self.chosen()
                {
                    self.ask(number, cx);
                }
            }
        }
    }

    /// There is news: what waits to try again need not wait for long.
    pub(super) fn hurry(&mut self, cx: &mut Context<'_>) {
        self.failures = 0;
        let soon = cx.now + self.back_off(cx);
        match &mut self.effort {
            Effort::BackingOff { until } | Effort::PutOff { until, .. } => {
                *until = soon.min(*until);
            }
            Effort::Rest
            | Effort::FindingSource { .. }
            | Effort::Connecting { .. }
            | Effort::Rekeying { .. }
            | Effort::Untying { .. } => {}
        }
    }

    /// The server wanted to rekey this Child SA and was refused: we do it (R9).
    pub(super) fn rekey_instead(&mut self, session: IkeSaId, child: ChildId, cx: &mut Context<'_>) {
        let is_open = self.chosen_child() == Some(child);
        if is_open && self.live_session(cx) == Some(session) {
            self.pursue("the server wants it", cx);
        }
    }

    /// The Child SA of the epoch that traffic ought to use.
    fn chosen_child(&self) -> Option<ChildId> {
        match self.chosen() {
            Position::Held => None,
            Position::Open(number) => self.epoch(number).map(|epoch| epoch.child),
        }
    }

    fn rekey_on(&mut self, session: IkeSaId, why: &str, cx: &mut Context<'_>) {
        // The newest: a peer that has replaced a Child SA once may refuse to do it again.
        let newest = self
            .epochs
            .iter()
            .filter(|epoch| epoch.session == session && !epoch.is_draining())
            .filter(|epoch| !matches!(epoch.stage, Stage::Installing(_)))
            .max_by_key(|epoch| epoch.number);
        let child = newest.map(|epoch| epoch.child);
        let number = newest.map(|epoch| epoch.number);
        self.event(
            cx,
            number,
            EventKind::Rekeying {
                reason: why.to_owned(),
            },
        );
        match child {
            Some(child) => cx.ike.rekey_child(session, child, cx.now),
            None => cx.ike.new_child(session, self.id, cx.now),
        }
        self.effort = Effort::Rekeying {
            session,
            child,
            since: cx.now,
        };
    }

    pub(super) fn connect(&mut self, cx: &mut Context<'_>) {
        let Some(remote) = self.config.remote.address else {
            return;
        };
        match self.config.local.address {
            Some(local) => self.connect_from(local, remote, cx),
            None => {
                self.effort = Effort::FindingSource { since: cx.now };
                cx.out.push(Output::FindSource(remote));
            }
        }
    }

    /// The shell's answer to a question for a source address.
    pub(crate) fn source_found(
        &mut self,
        destination: IpAddr,
        source: &Result<IpAddr, String>,
        cx: &mut Context<'_>,
    ) {
        self.source_for_paths(destination, source, cx);
        if !matches!(self.effort, Effort::FindingSource { .. })
            || self.config.remote.address != Some(destination)
        {
            return;
        }
        match source {
            Ok(local) => self.connect_from(*local, destination, cx),
            Err(error) => {
                let reason = format!("no way to the peer {destination}: {error}");
                self.effort_failed(reason, cx);
            }
        }
    }

    fn connect_from(&mut self, local: IpAddr, remote: IpAddr, cx: &mut Context<'_>) {
        self.close_failed_sessions(cx);
        self.abandon_attempts(1, cx);
        let session = cx.ike.connect(
            self.id,
            SocketAddr::new(local, IKE_PORT),
            SocketAddr::new(remote, IKE_PORT),
            !self.contacted,
            cx.now,
        );
        self.add_session(Session::unknown(session), cx);
        self.effort = Effort::Connecting {
            session,
            since: cx.now,
        };
        self.event(
            cx,
            None,
            EventKind::Negotiating {
                peer: remote.to_string(),
            },
        );
    }

    /// What was under way came to nothing: try again after a while, for ever.
    pub(super) fn effort_failed(&mut self, reason: String, cx: &mut Context<'_>) {
        self.answer_all(
            |wish| !matches!(wish, Wish::Removed),
            &CommandOutcome::Failed(format!("tunnel {}: {reason}", self.config.name)),
            cx,
        );
        self.retry_after(reason, cx);
    }

    /// Tries again after a while. An operator who waits is told after some attempts.
    fn retry_after(&mut self, reason: String, cx: &mut Context<'_>) {
        let wait = self.back_off(cx);
        self.failures = self.failures.saturating_add(1);
        if self.failures >= OPERATOR_ATTEMPTS {
            self.answer_all(
                |wish| !matches!(wish, Wish::Removed),
                &CommandOutcome::Failed(format!("tunnel {}: {reason}", self.config.name)),
                cx,
            );
        }
        self.event(
            cx,
            None,
            EventKind::Retrying {
                reason: reason.clone(),
                after_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            },
        );
        self.note_error(reason, cx.now);
        self.effort = Effort::BackingOff {
            until: cx.now + wait,
        };
    }

    /// Doubles from failure to failure up to a bound, 75 to 125 percent of that.
    fn back_off(&self, cx: &Context<'_>) -> Duration {
        let RecoveryConfig {
            back_off,
            back_off_max,
        } = self.config.recovery;
        let doubled = back_off.saturating_mul(1 << self.failures.min(DOUBLINGS_MAX));
        let spread = u64::from(2 * (BACK_OFF_PERCENT_MAX - 100) * 10);
        let jitter = u32::try_from(random(cx) % spread).unwrap_or(0);
        let least = (200 - BACK_OFF_PERCENT_MAX) * 10;
        doubled.min(back_off_max).saturating_mul(least + jitter) / 1000
    }

    pub(super) fn effort_timeout(&mut self, cx: &mut Context<'_>) {
        if self.effort.due().is_none_or(|due| due > cx.now) {
            return;
        }
        match self.effort {
            Effort::Rest => {}
            Effort::Connecting { .. } => {
                // It goes on beside the next one, for peers that are slow.
                self.retry_after(self.no_answer(), cx);
            }
            Effort::FindingSource { .. } => {
                self.effort_failed("no local address was found".into(), cx);
            }
            Effort::Rekeying { .. } => self.unanswered_rekey(cx),
            Effort::Untying { .. } => self.effort = Effort::Rest,
            Effort::PutOff { child, .. } => self.resume(child, cx),
            Effort::BackingOff { .. } => {
                self.effort = Effort::Rest;
                let needed =
                    self.chosen() == Position::Held || self.newest_failed() || self.orphaned(cx);
                if self.wanted && needed {
                    self.pursue("again", cx);
                }
            }
        }
    }

    /// A rekey is not answered. Where traffic waits, a new IKE SA is tried beside it; else there is
    /// time for IKE's own retransmissions.
    fn unanswered_rekey(&mut self, cx: &mut Context<'_>) {
        let Effort::Rekeying { session, since, .. } = &mut self.effort else {
            return;
        };
        *since = cx.now;
        for known in &mut self.sessions {
            known.silent |= known.id == *session;
        }
        if self.chosen() == Position::Held && self.may_connect() {
            self.effort = Effort::Rest;
            self.pursue("the rekey is not answered", cx);
        }
    }

    /// Whether the latest epoch is one whose pings were unanswered.
    fn newest_failed(&self) -> bool {
        let living = self.epochs.iter().filter(|epoch| !epoch.is_draining());
        living
            .max_by_key(|epoch| epoch.number)
            .is_some_and(|epoch| {
                matches!(epoch.stage, Stage::Proving(Proving { failed: true, .. }))
            })
    }

    /// Whether what is in use has outlived its IKE SA: nobody could replace it in time.
    pub(super) fn orphaned(&self, cx: &Context<'_>) -> bool {
        let mut living = self.epochs.iter().filter(|epoch| !epoch.is_draining());
        living.next().is_some() && self.live_session(cx).is_none()
    }

    /// An epoch cannot be proven, for this reason (R5).
    pub(super) fn epoch_failed(&mut self, reason: String, cx: &mut Context<'_>) {
        self.failed_epochs += 1;
        if matches!(self.effort, Effort::Rest | Effort::Untying { .. }) {
            self.wanted = true;
            self.effort_failed(reason, cx);
        }
    }

    /// The open epoch vanished without a successor.
    pub(super) fn replace_lost(&mut self, why: &str, cx: &mut Context<'_>) {
        let candidate = self.epochs.iter().any(super::Epoch::is_candidate);
        if self.wanted && !candidate && self.chosen() == Position::Held {
            self.pursue(why, cx);
        }
    }
}
