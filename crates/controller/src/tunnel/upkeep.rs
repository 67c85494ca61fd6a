//! Policies that somebody else removed, or that the kernel would not write, are written again: at
//! once, but not without end where somebody removes them each time.
//!
//! Kernel events and refusals come in; updates of all policies go out.

use std::time::Duration;

use super::epoch::Epoch;
use super::gate::{Gate, Position};
use super::{Awaited, Context, Tunnel};
use crate::Timestamp;
use crate::io::XfrmOp;
use crate::outbox::Owner;

/// Time until policies that the kernel refused are written again.
const REFUSED_RETRY: Duration = Duration::from_secs(1);

/// How often all policies are written at once within [`WINDOW`]. A flush that takes them away one by
/// one is told of each, and one write restores all that are gone by then.
const WRITES_AT_ONCE: u32 = 4;

/// Whoever removes policies as fast as they are written leaves traffic in clear for this long at most,
/// and costs 40 writes of all policies of a tunnel per second.
const WINDOW: Duration = Duration::from_millis(100);

/// How often an operator is told of removals.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// When policies are written again.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    /// When that is due, if it is.
    due: Option<Timestamp>,
    /// The beginning of the latest window in which something was written.
    window: Option<Timestamp>,
    /// Writes in that window.
    writes: u32,
    /// When a removal was told last.
    told: Option<Timestamp>,
}

impl Upkeep {
    /// Whether policies may be written now; that is noted. Else they are due when the window ends.
    fn may_write(&mut self, now: Timestamp) -> bool {
        let window = self.window.filter(|began| now.since(*began) < WINDOW);
        let Some(began) = window else {
            self.window = Some(now);
            self.writes = 1;
            return true;
        };
        if self.writes < WRITES_AT_ONCE {
            self.writes += 1;
            return true;
        }
        let end = began + WINDOW;
        self.due = Some(self.due.map_or(end, |due| due.min(end)));
        false
    }

    /// The kernel refused to write them.
    pub(super) fn refused(&mut self, now: Timestamp) {
        self.due = Some(now + REFUSED_RETRY);
    }

    /// Whether an operator is to be told of a removal now.
    fn tells(&mut self, now: Timestamp) -> bool {
        let recent = self.told.is_some_and(|told| now.since(told) < TELL_AGAIN);
        if !recent {
            self.told = Some(now);
        }
        !recent
    }
}

impl Tunnel {
    /// Somebody else removed a policy.
    pub(super) fn policy_removed(&mut self, cx: &mut Context<'_>) {
        let reason = "somebody else removes policies; they are written again each time: traffic may \
                      have left in clear; stop who does that";
        if self.upkeep.tells(cx.now) {
            self.attention(reason.to_owned(), cx);
        }
        self.restore_policies(cx);
    }

    /// Writes policies anew that somebody else removed. The `out` policies hold meanwhile only if
    /// they held before, or if what they led to is in doubt and the kernel would not hold.
    pub(crate) fn restore_policies(&mut self, cx: &mut Context<'_>) {
        let present = match &mut self.gate {
            Gate::Down | Gate::Creating { .. } => return,
            Gate::Refused { again, .. } => {
                // What an earlier run left is all that protects the traffic.
                if self.upkeep.may_write(cx.now) {
                    *again = cx.now;
                }
                return;
            }
            Gate::Present(present) => present,
        };
        if !self.upkeep.may_write(cx.now) {
            return;
        }
        let mut position = present.moving.map_or(present.at, |(_, to)| to);
        if !self.at(position).is_some_and(Epoch::is_usable) {
            position = Position::Held;
        }
        let mut policies = self.policies.all_holding();
        let out = self.policies.out(self.at(position));
        for policy in &mut policies {
            if let Some(now) = out.iter().find(|now| now.key == policy.key) {
                *policy = *now;
            }
        }
        cx.out.xfrm(
            Owner::Tunnel(self.id, Awaited::Upkeep),
            XfrmOp::UpdatePolicies(policies),
        );
        if let Gate::Present(present) = &mut self.gate
            && present.moving.is_none()
            && present.at != position
        {
            present.strayed = Some(position);
        }
    }

    /// When policies are written once more.
    pub(super) fn upkeep_due(&self) -> Option<Timestamp> {
        match self.gate {
            Gate::Present(_) => self.upkeep.due,
            Gate::Down | Gate::Creating { .. } | Gate::Refused { .. } => None,
        }
    }

    pub(super) fn upkeep_timeout(&mut self, cx: &mut Context<'_>) {
        if self.upkeep_due().is_some_and(|due| due <= cx.now) {
            self.upkeep.due = None;
            self.restore_policies(cx);
        }
    }
}
