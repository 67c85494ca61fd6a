//! Operations that fail: before they took effect, halfway, or with their answer lost.

use epochgate_controller::io::{SaDirection, XfrmError, XfrmOp};

use super::Kernel;

/// A kind of operation that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OpKind {
    /// Our policies and SAs listed.
    ReadOurs,
    /// An inbound SA added.
    AddInbound,
    /// An outbound SA added.
    AddOutbound,
    /// An SA moved.
    MoveSa,
    /// An SA removed.
    RemoveSa,
    /// Policies created.
    CreatePolicies,
    /// Policies updated.
    UpdatePolicies,
    /// Policies removed.
    RemovePolicies,
    /// A counter read.
    ReadPackets,
    /// First packets reported, or no more.
    ReportFirst,
}

impl OpKind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::ReadOurs,
        Self::AddInbound,
        Self::AddOutbound,
        Self::MoveSa,
        Self::RemoveSa,
        Self::CreatePolicies,
        Self::UpdatePolicies,
        Self::RemovePolicies,
        Self::ReadPackets,
        Self::ReportFirst,
    ];

    /// The kind of an operation; interfaces are not modelled and do not fail.
    #[must_use]
    pub fn of(op: &XfrmOp) -> Option<Self> {
        match op {
            XfrmOp::ReadOurs => Some(Self::ReadOurs),
            XfrmOp::AddSa(spec) => Some(match spec.direction {
                SaDirection::Inbound { .. } => Self::AddInbound,
                SaDirection::Outbound => Self::AddOutbound,
            }),
            XfrmOp::MoveSa(_) => Some(Self::MoveSa),
            XfrmOp::RemoveSa(_) => Some(Self::RemoveSa),
            XfrmOp::CreatePolicies(_) => Some(Self::CreatePolicies),
            XfrmOp::UpdatePolicies(_) => Some(Self::UpdatePolicies),
            XfrmOp::RemovePolicies(_) => Some(Self::RemovePolicies),
            XfrmOp::ReadPackets(_) => Some(Self::ReadPackets),
            XfrmOp::ReportFirst { .. } => Some(Self::ReportFirst),
            XfrmOp::AddInterface(_) | XfrmOp::RemoveInterface(_) => None,
        }
    }
}

/// How an operation fails. A netlink request is done when the kernel answers; the answer itself
/// may find no room in the socket (ENOBUFS).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Refused: nothing changed.
    Refused(XfrmError),
    /// Of several policies the first half was written; anything else is refused.
    Halfway(XfrmError),
    /// Done, and the answer got lost.
    Unanswered(XfrmError),
}

impl Kernel {
    /// The next operation of this kind fails.
    pub(crate) fn fail_next(&mut self, kind: OpKind, failure: Failure) {
        self.failing.push((kind, failure));
    }

    /// No operation fails any more, and events are heard.
    pub(crate) fn fail_no_more(&mut self) {
        self.failing.clear();
        self.overrun = 0;
    }

    /// The next so many events find no room in the listeners' socket, which says so at once (ENOBUFS).
    pub(crate) fn lose_events(&mut self, events: u32) {
        self.overrun = events;
    }

    pub(super) fn failure_of(&mut self, op: &XfrmOp) -> Option<Failure> {
        let kind = OpKind::of(op)?;
        let mut failing = self.failing.iter();
        let index = failing.position(|(failing, _)| *failing == kind)?;
        Some(self.failing.remove(index).1)
    }
}
