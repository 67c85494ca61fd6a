//! What is left of an SA's or a policy's lifetime (`xfrm_lifetime_cfg` less `xfrm_lifetime_cur`).

use epochgate_xfrm::{Limit, Limits, Usage};
use serde::Serialize;

use super::words;

/// What is left until one set of limits; `None` where there is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Left {
    pub(crate) bytes: Option<u64>,
    pub(crate) packets: Option<u64>,
    pub(crate) seconds_since_added: Option<u64>,
    /// All of it, as long as it has not been used.
    pub(crate) seconds_since_used: Option<u64>,
}

impl Left {
    /// Of `limit`, at `now` in seconds since 1970.
    pub(crate) fn of(limit: &Limit, usage: &Usage, now: u64) -> Self {
        let since = |from: u64| now.saturating_sub(from);
        let used_for = usage.first_used.map_or(0, since);
        let less = |most: Option<u64>, used: u64| most.map(|most| most.saturating_sub(used));
        Self {
            bytes: less(limit.bytes, usage.bytes),
            packets: less(limit.packets, usage.packets),
            seconds_since_added: less(limit.seconds_since_added, since(usage.added)),
            seconds_since_used: less(limit.seconds_since_used, used_for),
        }
    }

    /// The limits and what is left of each.
    fn parts(self, limit: &Limit) -> impl Iterator<Item = Part> {
        let part = |unit, most: Option<u64>, left: Option<u64>| {
            let (most, left) = (most?, left?);
            Some(Part { unit, most, left })
        };
        [
            part(
                Unit::SinceAdded,
                limit.seconds_since_added,
                self.seconds_since_added,
            ),
            part(
                Unit::SinceUsed,
                limit.seconds_since_used,
                self.seconds_since_used,
            ),
            part(Unit::Bytes, limit.bytes, self.bytes),
            part(Unit::Packets, limit.packets, self.packets),
        ]
        .into_iter()
        .flatten()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    SinceAdded,
    SinceUsed,
    Bytes,
    Packets,
}

/// One limit and what is left of it.
#[derive(Clone, Copy, Debug)]
struct Part {
    unit: Unit,
    most: u64,
    left: u64,
}

impl Part {
    fn text(self, rough: bool) -> String {
        match (self.unit, rough) {
            (Unit::SinceAdded | Unit::SinceUsed, true) => words::roughly(self.left).to_string(),
            (Unit::SinceAdded | Unit::SinceUsed, false) => words::seconds(self.left),
            (Unit::Bytes, _) => words::bytes(self.left).to_string(),
            (Unit::Packets, _) => format!("{}pkt", words::count(self.left)),
        }
    }

    fn sentence(self) -> String {
        let left = self.text(false);
        match self.unit {
            Unit::SinceAdded => format!("{left} left of {}", words::seconds(self.most)),
            Unit::SinceUsed => {
                format!(
                    "{left} left of {} from its first use",
                    words::seconds(self.most)
                )
            }
            Unit::Bytes => format!("{left} left of {} bytes", words::digits(self.most)),
            Unit::Packets => {
                format!(
                    "{} left of {} packets",
                    words::digits(self.left),
                    words::digits(self.most)
                )
            }
        }
    }
}

/// The limit that comes first, as `soft 52m`; once the soft ones are reached, `hard 3m`.
pub(crate) fn next(limits: &Limits, usage: &Usage, now: u64) -> Option<String> {
    let nearest = |limit: &Limit| {
        let parts = Left::of(limit, usage, now).parts(limit);
        // Compared as fractions: left / most.
        parts.min_by(|a, b| {
            let (a_part, b_part) = (u128::from(a.left), u128::from(b.left));
            (a_part * u128::from(b.most)).cmp(&(b_part * u128::from(a.most)))
        })
    };
    let soft = nearest(&limits.soft).filter(|part| part.left > 0);
    let hard = nearest(&limits.hard);
    match (soft, hard) {
        (Some(soft), _) => Some(format!("soft {}", soft.text(true))),
        (None, Some(hard)) => Some(format!("hard {}", hard.text(true))),
        (None, None) => None,
    }
}

/// Everything that is left of one set of limits, as a sentence.
pub(crate) fn all(limit: &Limit, usage: &Usage, now: u64) -> Option<String> {
    let parts = Left::of(limit, usage, now).parts(limit);
    let sentences: Vec<String> = parts.map(Part::sentence).collect();
    (!sentences.is_empty()).then(|| sentences.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage() -> Usage {
        Usage {
            bytes: 900,
            packets: 10,
            added: 1000,
            first_used: Some(1100),
        }
    }

    #[test]
    fn the_limit_that_comes_first_is_named() {
        let mut limits = Limits::default();
        assert_eq!(next(&limits, &usage(), 1600), None);
        limits.hard.seconds_since_added = Some(3600);
        assert_eq!(next(&limits, &usage(), 1600).as_deref(), Some("hard 50m"));
        limits.soft.seconds_since_added = Some(3000);
        assert_eq!(next(&limits, &usage(), 1600).as_deref(), Some("soft 40m"));
        limits.soft.bytes = Some(1000);
        assert_eq!(next(&limits, &usage(), 1600).as_deref(), Some("soft 100B"));
    }

    #[test]
    fn a_soft_limit_that_is_reached_gives_way_to_the_hard_one() {
        let mut limits = Limits::default();
        limits.soft.packets = Some(10);
        limits.hard.packets = Some(20_010);
        assert_eq!(
            next(&limits, &usage(), 1600).as_deref(),
            Some("hard 20kpkt")
        );
        assert_eq!(
            all(&limits.soft, &usage(), 1600).as_deref(),
            Some("0 left of 10 packets")
        );
    }

    #[test]
    fn time_from_the_first_use_does_not_run_before_it() {
        let mut limits = Limits::default();
        limits.hard.seconds_since_used = Some(100);
        let unused = Usage {
            first_used: None,
            ..usage()
        };
        let left = |usage| Left::of(&limits.hard, usage, 1150).seconds_since_used;
        assert_eq!(left(&unused), Some(100));
        assert_eq!(left(&usage()), Some(50));
    }

    #[test]
    fn a_clock_that_was_set_back_leaves_everything() {
        let mut limits = Limits::default();
        limits.hard.seconds_since_added = Some(100);
        assert_eq!(
            Left::of(&limits.hard, &usage(), 5).seconds_since_added,
            Some(100)
        );
    }
}
