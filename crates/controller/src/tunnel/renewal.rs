//! A new IKE SA beside the old one: both ends prove their identities anew, and no packet waits for
//! it (RFC 7296 §2.8.3). The old IKE SA is closed when an epoch of the new one carries the traffic,
//! as after every other switch.

use std::time::Duration;

use super::ladder::Effort;
use super::proof::random;
use super::{Context, Epoch, Tunnel, Wish};
use crate::Timestamp;
use crate::config::Role;
use crate::event::{EpochNumber, EventKind};
use crate::ike::{ChildError, IkeSaId};
use crate::io::{CommandId, CommandOutcome, Output};

/// Wait after an attempt, and before the next look while something else is under way; before jitter.
const RETRY: Duration = Duration::from_secs(60);

/// Wait while something else is under way.
const BUSY: Duration = Duration::from_secs(2);

/// Age in percent of `reauthenticate` from which a client starts over. A server's begins above 100:
/// where both ends can start, the client is first.
const CLIENT_PERCENT: u32 = 80;

/// As [`CLIENT_PERCENT`], of a server.
const SERVER_PERCENT: u32 = 105;

/// Thousandths that jitter spreads renewals over.
const JITTER_THOUSANDTHS: u64 = 200;

/// Age in percent of the peer's AUTH_LIFETIME from which we start over, with the same jitter: the new
/// IKE SA must carry the traffic before the peer ends the old one (RFC 4478 §3).
const AUTH_LIFETIME_PERCENT: u32 = 70;

/// However short a peer's AUTH_LIFETIME is, an IKE SA is kept for as long as this.
const AUTH_LIFETIME_MIN: Duration = Duration::from_secs(30);

impl Tunnel {
    /// When an IKE SA that is established now is to be replaced by a new one.
    pub(super) fn renewal_after_now(&self, cx: &Context<'_>) -> Option<Timestamp> {
        let interval = self.config.ike_sa.reauthenticate?;
        let first = match self.config.role {
            Role::Client => CLIENT_PERCENT,
            Role::Server => SERVER_PERCENT,
        };
        let jitter = u32::try_from(random(cx) % JITTER_THOUSANDTHS).unwrap_or(0);
        Some(cx.now + interval.saturating_mul(first * 10 + jitter) / 1000)
    }

    /// The operator wants the IKE SA rekeyed.
    pub(crate) fn rekey_ike(&mut self, command: CommandId, cx: &mut Context<'_>) {
        match self.live_session(cx) {
            Some(session) => {
                self.wish(command, Wish::IkeRekeyed, cx);
                cx.ike.rekey_ike(session, cx.now);
            }
            None => self.no_ike_sa(command, cx),
        }
    }

    /// The operator wants both ends to authenticate anew.
    pub(crate) fn reauthenticate(&mut self, command: CommandId, cx: &mut Context<'_>) {
        let Some(session) = self.live_session(cx) else {
            return self.no_ike_sa(command, cx);
        };
        if self.config.remote.address.is_none() {
            let text = format!(
                "tunnel {}: remote.address is %any, so only the peer can start an IKE SA",
                self.config.name
            );
            return refuse(command, text, cx);
        }
        let open = self.gate.open_epoch().unwrap_or(EpochNumber(0));
        self.wish(command, Wish::SwitchBeyond(open), cx);
        if let Some(known) = self.sessions.iter_mut().find(|known| known.id == session) {
            known.renew_at = Some(cx.now);
        }
        self.renewal_timeout(cx);
    }

    fn no_ike_sa(&self, command: CommandId, cx: &mut Context<'_>) {
        let name = &self.config.name;
        let text = format!("tunnel {name} has no IKE SA: run `epochgate up {name}`");
        refuse(command, text, cx);
    }

    /// The peer does not rekey an IKE SA: a new one must take its place before it ends.
    pub(super) fn ike_rekey_refused(
        &mut self,
        session: IkeSaId,
        error: ChildError,
        cx: &mut Context<'_>,
    ) {
        let why = match error {
            ChildError::NoProposal => {
                "(NO_PROPOSAL_CHOSEN): make `algorithms.ike` of both ends meet".to_owned()
            }
            ChildError::NoAdditionalSas => "(NO_ADDITIONAL_SAS)".to_owned(),
            ChildError::Temporary => "(TEMPORARY_FAILURE, again and again)".to_owned(),
            ChildError::Notify(kind) => format!("with notify {kind}"),
            ChildError::Selectors | ChildError::SinglePair | ChildError::Nonsense => String::new(),
        };
        let reason = format!("the peer refuses to rekey the IKE SA {why}; a new IKE SA is tried");
        self.answer_all(
            |wish| matches!(wish, Wish::IkeRekeyed),
            &CommandOutcome::Failed(format!("tunnel {}: {reason}", self.config.name)),
            cx,
        );
        self.attention(reason, cx);
        if let Some(known) = self.sessions.iter_mut().find(|known| known.id == session) {
            known.renew_at = Some(cx.now);
        }
        self.renewal_timeout(cx);
    }

    /// The peer ends the IKE SA then. Only an end that may start the tunnel can do something about it.
    pub(super) fn authenticated_until(
        &mut self,
        session: IkeSaId,
        until: Timestamp,
        cx: &mut Context<'_>,
    ) {
        if !self.may_connect() {
            return;
        }
        let jitter = u32::try_from(random(cx) % JITTER_THOUSANDTHS).unwrap_or(0);
        let left = until.since(cx.now).max(AUTH_LIFETIME_MIN);
        let age = left.saturating_mul(AUTH_LIFETIME_PERCENT * 10 + jitter) / 1000;
        let renew_at = cx.now + age.max(AUTH_LIFETIME_MIN);
        if let Some(known) = self.sessions.iter_mut().find(|known| known.id == session) {
            // Whichever is first: it, or what is configured here.
            known.renew_at = Some(known.renew_at.map_or(renew_at, |at| at.min(renew_at)));
        }
    }

    /// When [`Self::renewal_timeout`] wants to be called.
    pub(super) fn renewal_due(&self) -> Option<Timestamp> {
        let due = self.sessions.iter().filter_map(|known| known.renew_at);
        due.min()
    }

    /// Starts a new IKE SA where one is old enough, unless something else is under way.
    pub(super) fn renewal_timeout(&mut self, cx: &mut Context<'_>) {
        if self.renewal_due().is_none_or(|due| cx.now < due) {
            return;
        }
        let newest = self.sessions.iter().map(|known| known.id).max();
        let candidate = self.epochs.iter().any(Epoch::is_candidate);
        let resting = matches!(self.effort, Effort::Rest) && self.ending.is_none() && !candidate;
        let able = resting && self.may_connect() && !self.gate.is_down();
        let wait = if able { RETRY } else { BUSY };
        let jitter = u32::try_from(random(cx) % JITTER_THOUSANDTHS).unwrap_or(0);
        let again = cx.now + wait.saturating_mul(1000 + jitter) / 1000;
        let mut starts = false;
        for known in &mut self.sessions {
            if known.renew_at.is_some_and(|due| due <= cx.now) {
                // One that has a successor goes when that one's epoch is proven.
                let current = Some(known.id) == newest;
                known.renew_at = Some(again);
                starts |= current && able;
            }
        }
        if starts {
            let reason = "the IKE SA is old enough".to_owned();
            self.event(cx, None, EventKind::Reauthenticating { reason });
            // A tunnel with the same peer may have made one already.
            if !self.join(newest, cx) {
                self.connect(cx);
            }
        }
    }
}

fn refuse(command: CommandId, text: String, cx: &mut Context<'_>) {
    cx.out
        .push(Output::Answer(command, CommandOutcome::Failed(text)));
}
