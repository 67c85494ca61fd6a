//! SAs of the model: larval ones that keep a place, and mature ones with keys.

use std::collections::BTreeSet;

use epochgate_controller::Timestamp;
use epochgate_controller::io::{SaDirection, SaMove, SaSpec};

/// Sequence numbers that a moved outbound SA leaves out while the old one may still send.
const SEQUENCE_MARGIN: u64 = 1 << 20;

/// What the SAD has under a destination and SPI.
#[derive(Debug)]
pub(super) enum Entry {
    /// Left by an ACQUIRE for a pinned SA that was missing.
    Larval { reqid: u32, until: Timestamp },
    /// An SA with keys.
    Mature(Box<Sa>),
}

/// A mature SA.
#[derive(Clone, Debug)]
pub(super) struct Sa {
    pub(super) spec: SaSpec,
    pub(super) packets: u64,
    pub(super) report: bool,
    /// The last sequence number sent.
    pub(super) sequence: u64,
    expires: Timestamp,
    sequences: BTreeSet<u64>,
}

impl Entry {
    pub(super) fn sa(&self) -> Option<&Sa> {
        match self {
            Self::Larval { .. } => None,
            Self::Mature(sa) => Some(sa),
        }
    }

    pub(super) fn sa_mut(&mut self) -> Option<&mut Sa> {
        match self {
            Self::Larval { .. } => None,
            Self::Mature(sa) => Some(sa),
        }
    }

    pub(super) fn reqid(&self) -> u32 {
        match self {
            Self::Larval { reqid, .. } => *reqid,
            Self::Mature(sa) => sa.spec.reqid,
        }
    }

    pub(super) fn ends(&self) -> Timestamp {
        match self {
            Self::Larval { until, .. } => *until,
            Self::Mature(sa) => sa.expires,
        }
    }
}

impl Sa {
    pub(super) fn new(spec: SaSpec, now: Timestamp) -> Self {
        Self {
            packets: 0,
            sequence: 0,
            report: matches!(spec.direction, SaDirection::Inbound { report_first: true }),
            expires: now + spec.hard_lifetime,
            sequences: BTreeSet::new(),
            spec,
        }
    }

    /// The same SA at other outer addresses.
    pub(super) fn moved(&self, change: &SaMove) -> Self {
        let mut sa = self.clone();
        sa.spec.id = change.to;
        sa.spec.source = change.source;
        sa.spec.direction = change.direction;
        sa.spec.encapsulation = change.encapsulation;
        sa.report = matches!(
            change.direction,
            SaDirection::Inbound { report_first: true }
        );
        if change.from != change.to {
            sa.packets = 0;
            if matches!(change.direction, SaDirection::Outbound) {
                sa.sequence += SEQUENCE_MARGIN;
            }
        }
        sa
    }

    /// Whether a sequence number is new; it is not afterwards (RFC 4303 §3.4.3).
    pub(super) fn take_sequence(&mut self, sequence: u64) -> bool {
        let highest = self.sequences.last().copied().unwrap_or(0);
        let window = u64::from(self.spec.sequence.window);
        if sequence + window <= highest || !self.sequences.insert(sequence) {
            return false;
        }
        if sequence > highest {
            let oldest = sequence.saturating_sub(window);
            self.sequences = self.sequences.split_off(&oldest);
        }
        true
    }
}
