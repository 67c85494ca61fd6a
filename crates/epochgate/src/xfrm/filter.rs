//! Which entries are shown. SAs, policies and events that do not fit are left out before they are
//! rendered; partners are looked for among all entries, shown or not.

use std::net::IpAddr;

use epochgate_xfrm::{Mark, Policy, PolicyDirection, Prefix, Sa, Template};

use super::arguments::{Direction, FilterArguments};
use super::partners::SaWay;

/// A filter; all that is given must fit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    wanted: FilterArguments,
}

impl From<&FilterArguments> for Filter {
    fn from(wanted: &FilterArguments) -> Self {
        Self {
            wanted: wanted.clone(),
        }
    }
}

/// One thing that is asked for.
#[derive(Clone, Copy)]
enum Wanted {
    Source(Prefix),
    Destination(Prefix),
    Spi(u32),
    Reqid(u32),
    Mark(Mark),
    IfId(u32),
    Direction(Direction),
}

/// What an event tells of an SA or a policy, as far as it does.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traits {
    pub(crate) source: Option<IpAddr>,
    pub(crate) destination: Option<IpAddr>,
    pub(crate) spi: Option<u32>,
    pub(crate) reqid: Option<u32>,
    pub(crate) mark: Option<Mark>,
    pub(crate) if_id: Option<u32>,
    pub(crate) direction: Option<Direction>,
}

impl Traits {
    /// Those of an SA that goes `way`.
    pub(crate) fn of_sa(sa: &Sa, way: SaWay) -> Self {
        Self {
            source: Some(sa.source),
            destination: Some(sa.destination),
            spi: Some(sa.spi.map_or(0, |spi| spi.get())),
            reqid: Some(sa.reqid.0),
            mark: sa.mark,
            if_id: sa.if_id.map(|id| id.get()),
            direction: match way {
                SaWay::In(_) => Some(Direction::In),
                SaWay::Out(_) => Some(Direction::Out),
                SaWay::Unknown => None,
            },
        }
    }
}

impl Filter {
    /// The outer source prefix wanted.
    pub(crate) fn source(&self) -> Option<Prefix> {
        self.wanted.src
    }

    /// The outer destination prefix wanted.
    pub(crate) fn destination(&self) -> Option<Prefix> {
        self.wanted.dst
    }

    /// Whether an SA that goes `way` is wanted.
    pub(crate) fn takes_sa(&self, sa: &Sa, way: SaWay) -> bool {
        self.takes(&Traits::of_sa(sa, way))
    }

    /// Whether a policy is wanted.
    pub(crate) fn takes_policy(&self, policy: &Policy) -> bool {
        let templates = &policy.templates;
        let selector = &policy.selector;
        let within = |wanted, inner, outer: fn(&Template) -> IpAddr| {
            covers(wanted, inner) || templates.iter().any(|t| contains(wanted, outer(t)))
        };
        self.all(|wanted| match wanted {
            Wanted::Source(prefix) => within(prefix, selector.source(), |t| t.source),
            Wanted::Destination(prefix) => {
                within(prefix, selector.destination(), |t| t.destination)
            }
            Wanted::Spi(spi) => templates
                .iter()
                .any(|t| t.spi.is_some_and(|pinned| pinned.get() == spi)),
            Wanted::Reqid(reqid) => templates.iter().any(|t| t.reqid.0 == reqid),
            Wanted::Mark(mark) => has_mark(mark, policy.mark),
            Wanted::IfId(id) => policy.if_id.map_or(0, |id| id.get()) == id,
            Wanted::Direction(dir) => dir == direction(policy.direction),
        })
    }

    /// Whether an event about something with these traits is wanted. What the event does not tell
    /// does not fit.
    pub(crate) fn takes(&self, traits: &Traits) -> bool {
        let within = |prefix, address: Option<IpAddr>| {
            address.is_some_and(|address| contains(prefix, address))
        };
        self.all(|wanted| match wanted {
            Wanted::Source(prefix) => within(prefix, traits.source),
            Wanted::Destination(prefix) => within(prefix, traits.destination),
            Wanted::Spi(spi) => traits.spi == Some(spi),
            Wanted::Reqid(reqid) => traits.reqid == Some(reqid),
            Wanted::Mark(mark) => has_mark(mark, traits.mark),
            Wanted::IfId(id) => traits.if_id.unwrap_or(0) == id,
            Wanted::Direction(dir) => traits.direction == Some(dir),
        })
    }

    /// Whether everything that is asked for fits.
    fn all(&self, fits: impl FnMut(Wanted) -> bool) -> bool {
        let FilterArguments {
            src,
            dst,
            spi,
            reqid,
            mark,
            if_id,
            dir,
        } = self.wanted;
        let wanted = [
            src.map(Wanted::Source),
            dst.map(Wanted::Destination),
            spi.map(Wanted::Spi),
            reqid.map(Wanted::Reqid),
            mark.map(Wanted::Mark),
            if_id.map(Wanted::IfId),
            dir.map(Wanted::Direction),
        ];
        wanted.into_iter().flatten().all(fits)
    }
}

/// The direction to filter by: that of a socket's own policy is the packet's.
pub(crate) fn direction(direction: PolicyDirection) -> Direction {
    match direction {
        PolicyDirection::In | PolicyDirection::SocketIn => Direction::In,
        PolicyDirection::Out | PolicyDirection::SocketOut => Direction::Out,
        PolicyDirection::Forward => Direction::Fwd,
    }
}

fn has_mark(wanted: Mark, mark: Option<Mark>) -> bool {
    mark.is_some_and(|mark| mark.value & wanted.mask == wanted.value & wanted.mask)
}

/// The address is in the prefix.
pub(crate) fn contains(prefix: Prefix, address: IpAddr) -> bool {
    match (prefix.address(), address) {
        (IpAddr::V4(wanted), IpAddr::V4(address)) => {
            let shift = 32 - u32::from(prefix.length());
            let differing = wanted.to_bits() ^ address.to_bits();
            differing.checked_shr(shift).unwrap_or(0) == 0
        }
        (IpAddr::V6(wanted), IpAddr::V6(address)) => {
            let shift = 128 - u32::from(prefix.length());
            let differing = wanted.to_bits() ^ address.to_bits();
            differing.checked_shr(shift).unwrap_or(0) == 0
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

/// All of `inner` is in `outer`.
pub(crate) fn covers(outer: Prefix, inner: Prefix) -> bool {
    outer.length() <= inner.length() && contains(outer, inner.address())
}

#[cfg(test)]
mod tests {
    use epochgate_xfrm::{Reqid, Selector, Spi, Template};

    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().expect("a prefix")
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn policy() -> Policy {
        let selector =
            Selector::new(prefix("10.1.0.0/16"), prefix("10.2.0.0/16")).expect("one family");
        let template =
            Template::esp_tunnel(address("192.0.2.1"), address("198.51.100.7"), Reqid(7));
        Policy::protect(PolicyDirection::Out, selector, 100, template)
    }

    fn filter(change: impl FnOnce(&mut FilterArguments)) -> Filter {
        let mut wanted = FilterArguments::default();
        change(&mut wanted);
        Filter::from(&wanted)
    }

    #[test]
    fn a_prefix_contains_what_its_bits_say() {
        assert!(contains(prefix("10.0.0.0/8"), address("10.255.0.1")));
        assert!(!contains(prefix("10.0.0.0/8"), address("11.0.0.1")));
        assert!(contains(prefix("0.0.0.0/0"), address("203.0.113.1")));
        assert!(!contains(prefix("0.0.0.0/0"), address("::1")));
        assert!(contains(prefix("2001:db8::/32"), address("2001:db8:1::1")));
        assert!(contains(prefix("::/0"), address("ff02::1")));
        assert!(covers(prefix("10.0.0.0/8"), prefix("10.1.0.0/16")));
        assert!(!covers(prefix("10.1.0.0/16"), prefix("10.0.0.0/8")));
    }

    #[test]
    fn a_policy_is_found_by_its_inner_and_by_its_outer_addresses() {
        let policy = policy();
        for source in ["10.0.0.0/8", "192.0.2.1/32"] {
            assert!(filter(|f| f.src = Some(prefix(source))).takes_policy(&policy));
        }
        assert!(!filter(|f| f.src = Some(prefix("198.51.100.7/32"))).takes_policy(&policy));
        assert!(filter(|f| f.dst = Some(prefix("198.51.100.0/24"))).takes_policy(&policy));
    }

    #[test]
    fn everything_given_must_fit() {
        let mut policy = policy();
        let both = filter(|f| {
            f.reqid = Some(7);
            f.dir = Some(Direction::Out);
        });
        assert!(both.takes_policy(&policy));
        policy.direction = PolicyDirection::Forward;
        assert!(!both.takes_policy(&policy));
        let pinned = filter(|f| f.spi = Some(5));
        assert!(!pinned.takes_policy(&policy));
        policy.templates = vec![
            policy
                .templates
                .first()
                .expect("one")
                .pinned_to(Spi::new(5).expect("not zero")),
        ];
        assert!(pinned.takes_policy(&policy));
    }

    #[test]
    fn a_mark_is_compared_among_the_bits_asked_for() {
        let marked = Some(Mark {
            value: 0x12,
            mask: 0xff,
        });
        assert!(has_mark(
            Mark {
                value: 0x10,
                mask: 0xf0
            },
            marked
        ));
        assert!(!has_mark(Mark::exactly(0x10), marked));
        assert!(!has_mark(Mark::exactly(0x10), None));
    }

    #[test]
    fn without_an_option_nothing_is_left_out() {
        assert!(Filter::default().takes(&Traits::default()));
        assert!(!filter(|f| f.spi = Some(1)).takes(&Traits::default()));
    }
}
