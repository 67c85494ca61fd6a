//! What outbound traffic of a tunnel meets in the kernel, and what is under way to change it.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::Timestamp;
use crate::event::EpochNumber;
use crate::io::{OpId, PolicyKey};

/// Where the `out` policies point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    /// At nothing: the kernel queues.
    Held,
    /// At this epoch's outbound SA.
    Open(EpochNumber),
}

/// The gate.
#[derive(Debug)]
pub(crate) enum Gate {
    /// No policies.
    Down,
    /// The policies are on their way into the kernel. `left` are there already: those of an earlier
    /// run or configuration, which are ours.
    Creating {
        left: BTreeSet<PolicyKey>,
        /// How long the last refusal was put up with.
        pause: Duration,
    },
    /// They could not be created: why. Tried again at the time given. Nothing but `left` is known to
    /// be ours.
    Refused {
        reason: String,
        again: Timestamp,
        pause: Duration,
        left: BTreeSet<PolicyKey>,
    },
    /// The policies are in the kernel.
    Present(Present),
}

/// Policies that are in the kernel.
#[derive(Debug)]
pub(crate) struct Present {
    /// What the kernel last confirmed.
    pub(crate) at: Position,
    /// An update that the kernel has not confirmed.
    pub(crate) moving: Option<(OpId, Position)>,
    /// Since when traffic is held.
    pub(crate) held_since: Option<Timestamp>,
    /// When the first packet met the hold.
    pub(crate) waiting_since: Option<Timestamp>,
    /// It has been open, and holds because no epoch is good any more.
    pub(crate) fell: bool,
    /// The kernel refused the last update: nothing is written before `again`.
    pub(crate) refused: bool,
    /// Where an update was to lead that the kernel refused, or did without a word: some policies may be
    /// there, until the next one is confirmed.
    pub(crate) strayed: Option<Position>,
    /// When the hold is written again, or a refused update tried again.
    pub(crate) again: Timestamp,
}

impl Present {
    pub(crate) fn held(now: Timestamp, again: Timestamp) -> Self {
        Self {
            at: Position::Held,
            moving: None,
            held_since: Some(now),
            waiting_since: None,
            fell: false,
            refused: false,
            strayed: None,
            again,
        }
    }

    /// Whether the kernel may still send through this epoch.
    fn uses(&self, epoch: EpochNumber) -> bool {
        let open = Position::Open(epoch);
        self.at == open
            || self.moving.is_some_and(|(_, to)| to == open)
            || self.strayed == Some(open)
    }
}

impl Gate {
    /// The epoch that traffic uses, as far as the kernel has confirmed.
    pub(crate) fn open_epoch(&self) -> Option<EpochNumber> {
        match self {
            Self::Present(Present {
                at: Position::Open(epoch),
                ..
            }) => Some(*epoch),
            Self::Present(_) | Self::Down | Self::Creating { .. } | Self::Refused { .. } => None,
        }
    }

    /// Whether the kernel may still send through this epoch: its outbound SA must stay.
    pub(crate) fn uses(&self, epoch: EpochNumber) -> bool {
        match self {
            Self::Present(present) => present.uses(epoch),
            Self::Down | Self::Creating { .. } | Self::Refused { .. } => false,
        }
    }

    pub(crate) fn is_down(&self) -> bool {
        matches!(self, Self::Down)
    }
}
