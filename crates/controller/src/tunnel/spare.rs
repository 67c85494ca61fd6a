//! IKE SAs without epochs. A peer that gave one up while nothing got through has not said so, and what
//! has no Child SA carries nothing that would show it.

use std::time::Duration;

use super::{Context, Tunnel};
use crate::Timestamp;
use crate::ike::IkeSaId;

/// How long an IKE SA may be without epochs before it is looked at, and until it is looked at again.
const SPARE_PATIENCE: Duration = Duration::from_secs(30);

impl Tunnel {
    /// An IKE SA has got its peer, or has lost an epoch.
    pub(super) fn look_soon(&mut self, session: IkeSaId, cx: &Context<'_>) {
        let mut sessions = self.sessions.iter_mut();
        if let Some(known) = sessions.find(|known| known.id == session) {
            known.look_at.get_or_insert(cx.now + SPARE_PATIENCE);
        }
    }

    /// When [`Self::spare_timeout`] wants to be called.
    pub(super) fn spare_due(&self) -> Option<Timestamp> {
        self.sessions.iter().filter_map(|known| known.look_at).min()
    }

    /// Closes it where another IKE SA has the epoch that carries the traffic; else the peer is asked whether it lives (RFC 7296
    /// §2.4).
    pub(super) fn spare_timeout(&mut self, cx: &mut Context<'_>) {
        if self.spare_due().is_none_or(|due| cx.now < due) {
            return;
        }
        // An epoch that has outlived its own IKE SA needs this one to be replaced.
        let mut usable = self.epochs.iter().filter(|epoch| epoch.is_usable());
        let carried = usable.any(|epoch| self.peer_of(epoch.session).is_some());
        let mut replaced = Vec::new();
        for index in 0..self.sessions.len() {
            let known = &self.sessions[index];
            if known.look_at.is_none_or(|due| due > cx.now) {
                continue;
            }
            let id = known.id;
            let is_used = known.peer.is_none() || self.has_hope(id);
            self.sessions[index].look_at = (!is_used).then(|| cx.now + SPARE_PATIENCE);
            if is_used {
                continue;
            }
            if carried {
                replaced.push(id);
            } else {
                cx.ike.check_liveness(id, cx.now);
            }
        }
        for id in replaced {
            cx.ike.leave(id, self.id, cx.now);
        }
    }
}
