//! A NAT that tracks ESP by guesses (VPN Masquerade) and that waits for an answer which nobody can
//! give (requirement R11).
//!
//! The ping on an epoch that the peer has forgotten leaves such a NAT waiting; the answer to the next
//! epoch's ping is taken for its answer, and from then on this client's traffic waits for one that
//! has come already. Each time the NAT is tired of waiting another client may begin, whose answers
//! may be tied as crosswise, and they keep each other out for as long as they have traffic. The NAT
//! lacks one packet on an SPI that it does not know. The server sends it: when a Child SA ends on
//! which it never heard anything ([`part_from`](Tunnel::part_from)). So the client makes one for it.

use super::gate::Position;
use super::ladder::Effort;
use super::{Context, Tunnel};
use crate::event::{EpochNumber, EventKind};
use crate::ike::{Child, IkeSaId, Side};

/// Pings that the open epoch has lost in a row, before one was answered, if a NAT kept it out: fewer
/// are what any network loses.
const KEPT_OUT_PINGS: usize = 2;

impl Tunnel {
    /// The open epoch's ping was answered, after this many in a row that were not.
    pub(super) fn untie_if_kept_out(
        &mut self,
        number: EpochNumber,
        lost: usize,
        cx: &mut Context<'_>,
    ) {
        let Some(epoch) = self.epoch(number) else {
            return;
        };
        let session = epoch.session;
        let tracked = epoch.is_trackable() && epoch.peer_is_epochgate;
        let resting = matches!(self.effort, Effort::Rest) && self.ending.is_none();
        let candidate = self.epochs.iter().any(super::Epoch::is_candidate);
        if lost < KEPT_OUT_PINGS
            || !tracked
            || !resting
            || candidate
            || !self.is_client()
            || self.chosen() != Position::Open(number)
            || self.live_session(cx) != Some(session)
        {
            return;
        }
        self.event(cx, Some(number), EventKind::Untying);
        cx.ike.new_child(session, self.id, cx.now);
        self.effort = Effort::Untying {
            session,
            since: cx.now,
        };
    }

    /// Whether an epochgate client made this epoch to end it: it asks for no other one beside what
    /// carries its traffic on the same IKE SA. Not even a server that need not wait sends on it.
    pub(super) fn is_to_be_ended(&self, number: EpochNumber) -> bool {
        let Some(epoch) = self.epoch(number) else {
            return false;
        };
        let mut others = self.epochs.iter().filter(|other| other.number < number);
        epoch.started_by == Side::Peer
            && epoch.peer_is_epochgate
            && epoch.replaces.is_none()
            && others.any(|other| other.session == epoch.session && other.is_usable())
    }

    /// Whether this Child SA was made to be ended; then its end is under way.
    pub(super) fn ends_unused(
        &mut self,
        session: IkeSaId,
        child: &Child,
        cx: &mut Context<'_>,
    ) -> bool {
        let made_for_it = matches!(self.effort, Effort::Untying { session: of, .. } if of == session)
            && child.started_by == Side::Us
            && child.replaces.is_none();
        if made_for_it {
            self.effort = Effort::Rest;
            cx.ike.delete_child(session, child.id, cx.now);
        }
        made_for_it
    }
}
