//! Lists of the SAD and SPD, entry by entry: which entries a caller asks for, and what is known of
//! a list at its end. Nothing here holds the list itself, which may be larger than memory.

use crate::{DecodeError, Prefix, Protocol};

/// Which SAs to list; the kernel leaves out the others itself (`XFRMA_PROTO`,
/// `XFRMA_ADDRESS_FILTER`, Linux 3.15). What is `None` leaves nothing out.
///
/// [`Prefix::ANY_V4`] or [`Prefix::ANY_V6`] as a source asks for one address family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct SaFilter {
    /// SAs of this protocol.
    pub protocol: Option<Protocol>,
    /// SAs whose outer source is in this prefix.
    pub source: Option<Prefix>,
    /// SAs whose outer destination is in this prefix, which is of the source's family.
    pub destination: Option<Prefix>,
}

impl SaFilter {
    /// Every SA.
    pub const ALL: Self = Self {
        protocol: None,
        source: None,
        destination: None,
    };

    /// The same, limited to one protocol.
    #[must_use]
    pub const fn with_protocol(self, protocol: Protocol) -> Self {
        Self {
            protocol: Some(protocol),
            ..self
        }
    }

    /// The same, limited to SAs from a prefix.
    #[must_use]
    pub const fn from_source(self, source: Prefix) -> Self {
        Self {
            source: Some(source),
            ..self
        }
    }

    /// The same, limited to SAs to a prefix.
    #[must_use]
    pub const fn to_destination(self, destination: Prefix) -> Self {
        Self {
            destination: Some(destination),
            ..self
        }
    }
}

/// What is known of a list once it has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "the list may lack entries, or have had some that could not be read"]
pub struct DumpEnd {
    /// How many entries the visitor got.
    pub visited: u64,
    /// How many entries could not be read, and so were not visited.
    pub unreadable: u64,
    /// What was wrong with the first of them.
    pub first_unreadable: Option<DecodeError>,
    /// The visitor stopped the list.
    pub stopped: bool,
    /// The table changed while it was listed. Entries that came, went or were replaced meanwhile
    /// may be missing; all others were visited, once.
    ///
    /// No kernel so far says so by itself for XFRM (`NLM_F_DUMP_INTR`), so this compares the
    /// kernel's count of entries before, during and after the list. As many entries gone as came
    /// can escape it; who must not miss any change listens to events before listing.
    pub changed: bool,
}

/// What the kernel's counts say of a list: how many entries there were before it and after it.
pub(crate) fn compare_counts(end: &mut DumpEnd, before: u64, after: u64, is_whole: bool) {
    let listed = end.visited.saturating_add(end.unreadable);
    end.changed |= before != after || (is_whole && !end.stopped && listed != before);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end_of(visited: u64, unreadable: u64) -> DumpEnd {
        DumpEnd {
            visited,
            unreadable,
            ..DumpEnd::default()
        }
    }

    fn is_changed(mut end: DumpEnd, before: u64, after: u64, is_whole: bool) -> bool {
        compare_counts(&mut end, before, after, is_whole);
        end.changed
    }

    #[test]
    fn a_list_as_long_as_the_table_was_all_the_time_is_unchanged() {
        assert!(!is_changed(end_of(5, 0), 5, 5, true));
        assert!(!is_changed(end_of(4, 1), 5, 5, true));
    }

    #[test]
    fn a_table_that_grew_or_shrank_has_changed() {
        assert!(is_changed(end_of(5, 0), 5, 6, true));
        assert!(is_changed(end_of(5, 0), 5, 4, false));
    }

    #[test]
    fn an_entry_replaced_before_its_turn_is_missed_and_that_is_told() {
        assert!(is_changed(end_of(4, 0), 5, 5, true));
    }

    #[test]
    fn a_list_of_some_entries_need_not_be_as_long_as_the_table() {
        assert!(!is_changed(end_of(1, 0), 5, 5, false));
        let stopped = DumpEnd {
            stopped: true,
            ..end_of(1, 0)
        };
        assert!(!is_changed(stopped, 5, 5, true));
    }

    #[test]
    fn what_the_kernel_said_itself_is_not_taken_back() {
        let told = DumpEnd {
            changed: true,
            ..end_of(5, 0)
        };
        assert!(is_changed(told, 5, 5, true));
    }
}
