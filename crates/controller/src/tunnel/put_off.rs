//! TEMPORARY_FAILURE (RFC 7296 §2.25): the peer is rekeying or deleting what we asked it to rekey, or
//! its kernel refused an SA. That is no failure of the tunnel's: it asks again a little later.

use std::time::Duration;

use super::gate::Position;
use super::ladder::{Effort, FAILED_EPOCHS_MAX};
use super::proof::random;
use super::{Context, Tunnel};
use crate::ike::{ChildId, IkeSaId};

/// Mean wait before the peer is asked again. Both ends may have refused each other: the wait is
/// random, from half to one and a half of this.
const PAUSE: Duration = Duration::from_secs(1);

/// The same while traffic is held.
const PAUSE_HELD: Duration = Duration::from_millis(200);

/// TEMPORARY_FAILUREs in a row after which the attempt counts as failed.
const BUSY_ANSWERS_MAX: u32 = 10;

/// The same while traffic is held: a peer that is busy for so long may itself wait for an answer that
/// does not find the way to it.
const BUSY_ANSWERS_HELD_MAX: u32 = 4;

impl Tunnel {
    /// The peer refused a rekey for now. False: there was none, or that was so too often.
    pub(super) fn put_off(&mut self, session: IkeSaId, cx: &mut Context<'_>) -> bool {
        let (of, child) = match self.effort {
            Effort::Rekeying { session, child, .. } => (session, child),
            // In IKE_AUTH: the IKE SA stands without a Child SA (RFC 7296 §2.21.2).
            Effort::Connecting { session, .. } => (session, None),
            Effort::Rest
            | Effort::FindingSource { .. }
            | Effort::Untying { .. }
            | Effort::PutOff { .. }
            | Effort::BackingOff { .. } => return false,
        };
        let most = match self.chosen() {
            Position::Open(_) => BUSY_ANSWERS_MAX,
            Position::Held => BUSY_ANSWERS_HELD_MAX,
        };
        if of != session || self.busy_answers >= most {
            self.busy_answers = 0;
            // The next attempt is a new IKE SA, where one can be made.
            self.failed_epochs = FAILED_EPOCHS_MAX;
            return false;
        }
        self.busy_answers += 1;
        let mean = match self.chosen() {
            Position::Open(_) => PAUSE,
            Position::Held => PAUSE_HELD,
        };
        let jitter = u32::try_from(random(cx) % 1000).unwrap_or(0);
        self.effort = Effort::PutOff {
            child,
            until: cx.now + mean.saturating_mul(500 + jitter) / 1000,
        };
        true
    }

    /// The wait is over: asks again, unless the peer has replaced the Child SA itself meanwhile.
    pub(super) fn resume(&mut self, child: Option<ChildId>, cx: &mut Context<'_>) {
        self.effort = Effort::Rest;
        let needed = match self.chosen() {
            Position::Held => self.wanted,
            Position::Open(number) => {
                let open = self.epoch(number).map(|epoch| epoch.child);
                self.operator_waits() || (open.is_some() && open == child)
            }
        };
        if needed {
            self.pursue("the peer was busy", cx);
        }
    }
}
