//! SAs of the model: larval ones that keep a place, and mature ones with keys.

use std::collections::BTreeSet;
use std::sync::Arc;

use epochgate_controller::io::{SaDirection, SaMove, SaSpec};
use epochgate_controller::{Secret, Timestamp};

use super::timing::Timing;

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
    /// The key of `spec`, for every packet.
    pub(super) key: Arc<Secret>,
    pub(super) packets: u64,
    /// Whether packets are reported (a replay threshold of 1), or it is silent.
    report: bool,
    /// The highest sequence number that was reported (`preplay`).
    reported: u64,
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
    pub(super) fn new(spec: SaSpec, timing: &Timing, now: Timestamp) -> Self {
        Self {
            key: Arc::new(spec.key.clone()),
            packets: 0,
            sequence: 0,
            report: matches!(spec.direction, SaDirection::Inbound { report_first: true }),
            reported: 0,
            expires: now + timing.lifetime(spec.hard_lifetime),
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
        sa.set_report(matches!(
            change.direction,
            SaDirection::Inbound { report_first: true }
        ));
        if change.from != change.to && matches!(change.direction, SaDirection::Outbound) {
            sa.sequence += SEQUENCE_MARGIN;
        }
        // Only ports change in place; everything else is a new SA made of the old one.
        let in_place = change.from == change.to
            && self.spec.source == change.source
            && self.spec.encapsulation.is_some() == change.encapsulation.is_some();
        if !in_place {
            sa.packets = 0;
        }
        sa
    }

    /// Reports from now on, or no more.
    pub(super) fn set_report(&mut self, on: bool) {
        self.report = on;
    }

    /// Whether what was received by now is to be reported: the highest sequence number has grown
    /// since the last report (`xfrm_replay_notify`; a packet that was overtaken is not news).
    pub(super) fn report_due(&mut self) -> bool {
        let due = self.report && self.reported < self.highest();
        if due {
            self.reported = self.highest();
        }
        due
    }

    fn highest(&self) -> u64 {
        self.sequences.last().copied().unwrap_or(0)
    }

    /// Whether a sequence number is inside the replay window or beyond, and new (RFC 4303 §3.4.3).
    pub(super) fn is_new(&self, sequence: u64) -> bool {
        let window = u64::from(self.spec.sequence.window);
        sequence != 0 && sequence + window > self.highest() && !self.sequences.contains(&sequence)
    }

    /// Takes note of it.
    pub(super) fn take_sequence(&mut self, sequence: u64) {
        if sequence > self.highest() {
            let oldest = sequence.saturating_sub(u64::from(self.spec.sequence.window));
            while self.sequences.first().is_some_and(|first| *first < oldest) {
                self.sequences.pop_first();
            }
        }
        self.sequences.insert(sequence);
    }
}
