//! Who belongs to whom: the SAs that a policy would use now, and the policies that lead to an SA.
//!
//! Both tables may have 100,000 entries, so of the one that is not being shown only a compact index
//! is kept ([`StateIndex`], [`PolicyIndex`]); the other one streams past it. What matches is decided
//! by [`matching`], as the kernel decides it.

pub(crate) mod matching;
mod policies;
mod states;

use std::cell::Cell;
use std::collections::HashSet;
use std::net::IpAddr;

use epochgate_xfrm::{Sa, SaDirection};

pub(crate) use matching::{PolicyTraits, SaTraits};
pub(crate) use policies::{Lead, Leads, PolicyIndex};
pub(crate) use states::{Outcome, StateIndex};

/// Pairs of an SA and a template that are compared at most, for one command: about a second's work.
/// More than a few for each entry are needed only where thousands of entries share one reqid and
/// one address.
const PAIRS_MAX: u64 = 20_000_000;

/// Entries that room is made for before they are counted: what the kernel says first may be wrong.
const ROOM_MAX: u64 = 10_000_000;

/// The room to make for so many entries.
fn room_for(count: u64) -> usize {
    usize::try_from(count.min(ROOM_MAX)).unwrap_or(0)
}

/// Which way packets go through an SA, and who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SaWay {
    /// They come in.
    In(Told),
    /// They go out.
    Out(Told),
    /// Nobody says.
    Unknown,
}

/// Who says which way an SA goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// The SA itself (`XFRMA_SA_DIR`).
    Kernel,
    /// One of its ends is an address of this host, the other is not.
    Addresses,
    /// The policies that lead to it are of one direction.
    Policies,
}

impl SaWay {
    /// What the SA itself and its addresses say.
    pub(crate) fn of(sa: &Sa, ours: &HashSet<IpAddr>) -> Self {
        match sa.direction {
            Some(SaDirection::In) => return Self::In(Told::Kernel),
            Some(SaDirection::Out) => return Self::Out(Told::Kernel),
            None => {}
        }
        match (ours.contains(&sa.source), ours.contains(&sa.destination)) {
            (true, false) => Self::Out(Told::Addresses),
            (false, true) => Self::In(Told::Addresses),
            (true, true) | (false, false) => Self::Unknown,
        }
    }

    /// The same, or what the policies say where nothing else does.
    pub(crate) fn or_by(self, leads: &Leads) -> Self {
        match self {
            Self::Unknown => match (leads.inbound > 0, leads.outbound > 0) {
                (true, false) => Self::In(Told::Policies),
                (false, true) => Self::Out(Told::Policies),
                (true, true) | (false, false) => Self::Unknown,
            },
            known => known,
        }
    }
}

/// How many more pairs may be compared.
#[derive(Debug)]
pub(crate) struct Budget {
    left: Cell<u64>,
    exhausted: Cell<bool>,
}

impl Default for Budget {
    fn default() -> Self {
        Self::of(PAIRS_MAX)
    }
}

impl Budget {
    pub(crate) fn of(pairs: u64) -> Self {
        Self {
            left: Cell::new(pairs),
            exhausted: Cell::new(false),
        }
    }

    /// One more pair; false when it is too many.
    fn spend(&self) -> bool {
        match self.left.get().checked_sub(1) {
            Some(left) => {
                self.left.set(left);
                true
            }
            None => {
                self.exhausted.set(true);
                false
            }
        }
    }

    /// Some partners were not looked for.
    pub(crate) fn was_exhausted(&self) -> bool {
        self.exhausted.get()
    }
}

#[cfg(test)]
mod tests;
