//! Effects on their way out, and which tunnel waits for which kernel operation.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::Timestamp;
use crate::config::TunnelName;
use crate::event::{EpochNumber, Event, EventKind};
use crate::ike::TunnelId;
use crate::io::{OpId, Output, SaId, XfrmError, XfrmOp};
use crate::tunnel::Awaited;

/// How often in a row the kernel is asked to remove an SA, before it is given [`REMOVAL_PAUSE`].
const REMOVALS_MAX: u8 = 5;

/// Time until the kernel is asked again to remove an SA that it would not: one that stayed would do
/// so for its hard lifetime.
const REMOVAL_PAUSE: Duration = Duration::from_secs(1);

/// Whose kernel operation it was.
#[derive(Debug)]
pub(crate) enum Owner {
    /// The controller's own reading of what an earlier run left.
    TakeOver,
    /// A tunnel's.
    Tunnel(TunnelId, Awaited),
    /// The controller's own reading of what of a tunnel is in the kernel after all.
    Leftovers(TunnelId),
    /// An SA goes, whoever had it.
    SaRemoval { sa: SaId, attempt: u8 },
    /// Nobody's any more: the tunnel went away, its removals are still under way.
    Nobody,
}

/// Collects effects in their order.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: VecDeque<Output>,
    next_op: u64,
    under_way: BTreeMap<OpId, Owner>,
    /// SAs that the kernel would not remove: no more than it was given.
    unremoved: BTreeSet<SaId>,
    /// When it is asked again.
    remove_at: Option<Timestamp>,
}

impl Outbox {
    pub(crate) fn push(&mut self, output: Output) {
        self.queue.push_back(output);
    }

    pub(crate) fn pop(&mut self) -> Option<Output> {
        self.queue.pop_front()
    }

    /// Effects that wait to be performed.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Those that came after the first `count`.
    pub(crate) fn since(&self, count: usize) -> impl Iterator<Item = &Output> {
        self.queue.iter().skip(count)
    }

    /// Asks the kernel; `owner` gets the result.
    pub(crate) fn xfrm(&mut self, owner: Owner, op: XfrmOp) -> OpId {
        let id = OpId(self.next_op);
        self.next_op += 1;
        self.under_way.insert(id, owner);
        self.queue.push_back(Output::Xfrm(id, op));
        id
    }

    /// Asks the kernel to remove an SA.
    pub(crate) fn remove_sa(&mut self, sa: SaId) {
        self.xfrm(Owner::SaRemoval { sa, attempt: 1 }, XfrmOp::RemoveSa(sa));
    }

    /// An SA was not removed: asks again, at once or after a pause. Gives the error back at the first
    /// pause.
    pub(crate) fn sa_not_removed(
        &mut self,
        sa: SaId,
        attempt: u8,
        error: XfrmError,
        now: Timestamp,
    ) -> Option<XfrmError> {
        match error {
            XfrmError::Missing(_) => None,
            XfrmError::Exists(_) | XfrmError::Other(_) if attempt < REMOVALS_MAX => {
                let attempt = attempt + 1;
                self.xfrm(Owner::SaRemoval { sa, attempt }, XfrmOp::RemoveSa(sa));
                None
            }
            XfrmError::Exists(_) | XfrmError::Other(_) => {
                self.remove_at.get_or_insert(now + REMOVAL_PAUSE);
                self.unremoved.insert(sa);
                (attempt == REMOVALS_MAX).then_some(error)
            }
        }
    }

    /// When SAs are to be removed that the kernel would not remove before.
    pub(crate) fn next_timeout(&self) -> Option<Timestamp> {
        self.remove_at
    }

    /// Asks again for what is due.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp) {
        if self.remove_at.is_none_or(|at| at > now) {
            return;
        }
        self.remove_at = None;
        for sa in std::mem::take(&mut self.unremoved) {
            let attempt = REMOVALS_MAX + 1;
            self.xfrm(Owner::SaRemoval { sa, attempt }, XfrmOp::RemoveSa(sa));
        }
    }

    /// Takes the owner of an operation that ended; `None` for one that nobody asked for.
    pub(crate) fn finished(&mut self, op: OpId) -> Option<Owner> {
        self.under_way.remove(&op)
    }

    /// Whether the kernel still owes an answer.
    pub(crate) fn is_busy(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// Lets a tunnel's operations finish unheard.
    pub(crate) fn disown(&mut self, tunnel: TunnelId) {
        for owner in self.under_way.values_mut() {
            if matches!(owner, Owner::Tunnel(of, _) | Owner::Leftovers(of) if *of == tunnel) {
                *owner = Owner::Nobody;
            }
        }
    }

    pub(crate) fn event(
        &mut self,
        tunnel: &TunnelName,
        epoch: Option<EpochNumber>,
        kind: EventKind,
    ) {
        self.queue.push_back(Output::Event(Event {
            tunnel: Some(tunnel.clone()),
            epoch,
            kind,
        }));
    }
}
