//! What is to happen, in the order of its time; of one time, in the order in which it was added.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use epochgate_controller::Timestamp;

/// The agenda. What it holds stays where it was put, so that ordering it moves small keys only.
#[derive(Debug)]
pub(super) struct Agenda<T> {
    /// Time, number, and place in `entries`.
    order: BinaryHeap<Reverse<(Timestamp, u64, usize)>>,
    entries: Vec<Option<T>>,
    free: Vec<usize>,
    added: u64,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self {
            order: BinaryHeap::new(),
            entries: Vec::new(),
            free: Vec::new(),
            added: 0,
        }
    }
}

impl<T> Agenda<T> {
    pub(super) fn add(&mut self, at: Timestamp, entry: T) {
        let place = match self.free.pop() {
            Some(place) => {
                self.entries[place] = Some(entry);
                place
            }
            None => {
                self.entries.push(Some(entry));
                self.entries.len() - 1
            }
        };
        self.order.push(Reverse((at, self.added, place)));
        self.added += 1;
    }

    /// When the next is due.
    pub(super) fn next_at(&self) -> Option<Timestamp> {
        self.order.peek().map(|Reverse((at, ..))| *at)
    }

    /// The next, if it is due.
    pub(super) fn take(&mut self, now: Timestamp) -> Option<T> {
        self.next_at().filter(|at| *at <= now)?;
        let Reverse((_, _, place)) = self.order.pop()?;
        self.free.push(place);
        self.entries[place].take()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn entries_come_by_time_and_then_by_the_order_in_which_they_were_added() {
        let at = |millis| Timestamp::ZERO + Duration::from_millis(millis);
        let mut agenda = Agenda::default();
        for (millis, name) in [(20, "c"), (10, "a"), (20, "d"), (10, "b")] {
            agenda.add(at(millis), name);
        }
        assert_eq!(agenda.take(at(9)), None);
        assert_eq!(agenda.take(at(10)), Some("a"));
        agenda.add(at(10), "late");
        assert_eq!(agenda.take(at(10)), Some("b"));
        assert_eq!(agenda.take(at(10)), Some("late"));
        assert_eq!(agenda.take(at(10)), None);
        assert_eq!(agenda.next_at(), Some(at(20)));
        assert_eq!(agenda.take(at(30)), Some("c"));
        assert_eq!(agenda.take(at(30)), Some("d"));
        assert_eq!(agenda.take(at(30)), None);
    }
}
