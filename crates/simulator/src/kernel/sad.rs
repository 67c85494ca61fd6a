//! The SAD: SAs by destination and SPI, and when the first of them ends.

use std::collections::BTreeMap;
use std::ops::Deref;

use epochgate_controller::Timestamp;
use epochgate_controller::io::SaId;

use super::sa::Entry;

/// The SAs of a kernel. They are read as a map.
#[derive(Debug, Default)]
pub(super) struct Sad {
    entries: BTreeMap<SaId, Entry>,
    /// None ends before; looked up anew when it has come, so that removing costs nothing.
    no_end_before: Option<Timestamp>,
}

impl Deref for Sad {
    type Target = BTreeMap<SaId, Entry>;

    fn deref(&self) -> &Self::Target {
        &self.entries
    }
}

impl Sad {
    pub(super) fn get_mut(&mut self, id: &SaId) -> Option<&mut Entry> {
        self.entries.get_mut(id)
    }

    pub(super) fn insert(&mut self, id: SaId, entry: Entry) {
        let ends = entry.ends();
        self.no_end_before = Some(self.no_end_before.map_or(ends, |before| before.min(ends)));
        self.entries.insert(id, entry);
    }

    pub(super) fn remove(&mut self, id: &SaId) -> Option<Entry> {
        self.entries.remove(id)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// When one may end.
    pub(super) fn no_end_before(&self) -> Option<Timestamp> {
        self.no_end_before
    }

    /// Those that are over, removed.
    pub(super) fn take_ended(&mut self, now: Timestamp) -> Vec<SaId> {
        if self.no_end_before.is_none_or(|before| now < before) {
            return Vec::new();
        }
        let over = self.entries.iter().filter(|(_, entry)| entry.ends() <= now);
        let over: Vec<SaId> = over.map(|(id, _)| *id).collect();
        for id in &over {
            self.entries.remove(id);
        }
        self.no_end_before = self.entries.values().map(Entry::ends).min();
        over
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::num::NonZeroU32;
    use std::time::Duration;

    use epochgate_controller::io::Spi;

    use super::*;

    fn id(spi: u32) -> SaId {
        SaId {
            destination: IpAddr::from([192, 0, 2, 1]),
            spi: Spi(NonZeroU32::new(spi).unwrap()),
        }
    }

    #[test]
    fn sas_end_in_time_whatever_was_added_and_removed_before() {
        let at = |seconds| Timestamp::ZERO + Duration::from_secs(seconds);
        let larval = |seconds| Entry::Larval {
            reqid: 1,
            until: at(seconds),
        };
        let mut sad = Sad::default();
        for (spi, seconds) in [(256, 30), (257, 10), (258, 20)] {
            sad.insert(id(spi), larval(seconds));
        }
        sad.remove(&id(257));
        assert_eq!(sad.take_ended(at(15)), []);
        assert_eq!(sad.no_end_before(), Some(at(20)));
        sad.insert(id(259), larval(18));
        assert_eq!(sad.take_ended(at(20)), [id(258), id(259)]);
        assert_eq!(sad.take_ended(at(40)), [id(256)]);
        assert_eq!(sad.no_end_before(), None);
    }
}
