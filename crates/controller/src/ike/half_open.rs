//! The responder's half-open IKE SAs, counted: in all, and by where their initiators are. What is
//! counted decides whether a COOKIE is demanded, and whether a request is dropped (RFC 7296 §2.6).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use epochgate_ike_wire::{IkeSpi, Nonce};

use crate::config::HalfOpenConfig;

use super::IkeSaId;

/// Bits of an IPv6 address that tell networks apart: one host can have every address of one
/// (RFC 4291 §2.5.4).
const IPV6_NETWORK_BITS: u32 = 64;

/// What tells one IKE_SA_INIT request from another (RFC 7296 §2.1: an initiator's SPI alone may
/// meet another's).
pub(super) type InitKey = (IkeSpi, Nonce);

/// Every half-open IKE SA: what recognises a retransmission of its request, and where it came from.
#[derive(Debug, Default)]
pub(super) struct HalfOpens {
    by_key: BTreeMap<InitKey, (IkeSaId, IpAddr)>,
    /// Never an entry with 0: as many as `by_key` at most.
    by_source: BTreeMap<IpAddr, usize>,
}

/// What is to be done with another request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is answered.
    Open,
    /// It is answered if it shows that its sender receives at its address.
    WithCookie,
    /// It is dropped.
    Full,
}

impl HalfOpens {
    pub(super) fn insert(&mut self, key: InitKey, id: IkeSaId, remote: IpAddr) {
        let source = source(remote);
        if self.by_key.insert(key, (id, source)).is_none() {
            *self.by_source.entry(source).or_default() += 1;
        }
    }

    pub(super) fn remove(&mut self, key: &InitKey) {
        let Some((_, source)) = self.by_key.remove(key) else {
            return;
        };
        if let Some(count) = self.by_source.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.by_source.remove(&source);
            }
        }
    }

    /// The IKE SA that this request made.
    pub(super) fn find(&self, key: &InitKey) -> Option<IkeSaId> {
        self.by_key.get(key).map(|(id, _)| *id)
    }

    /// How a request from `remote` is met.
    pub(super) fn admission(&self, remote: IpAddr, limits: &HalfOpenConfig) -> Admission {
        let all = self.by_key.len();
        let here = self.by_source.get(&source(remote)).copied().unwrap_or(0);
        if all >= limits.max || here >= limits.per_address_max {
            Admission::Full
        } else if all >= limits.cookie_threshold || here >= limits.per_address_max.div_ceil(2) {
            Admission::WithCookie
        } else {
            Admission::Open
        }
    }

    /// In all.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }
}

/// Who an address counts as.
fn source(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let network = u128::MAX << (u128::BITS - IPV6_NETWORK_BITS);
            IpAddr::V6(Ipv6Addr::from(u128::from(address) & network))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> InitKey {
        let nonce = Nonce::new(vec![7; 32]).expect("of allowed length");
        (IkeSpi(number.to_be_bytes()), nonce)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn filled(count: u64, from: &str) -> HalfOpens {
        let mut half_opens = HalfOpens::default();
        for number in 1..=count {
            half_opens.insert(key(number), IkeSaId(number), address(from));
        }
        half_opens
    }

    #[test]
    fn one_address_must_show_a_cookie_at_half_of_its_share_and_gets_no_more_than_that() {
        let limits = HalfOpenConfig {
            per_address_max: 8,
            ..HalfOpenConfig::default()
        };
        let (here, there) = (address("192.0.2.1"), address("192.0.2.2"));
        let admission = |count, from| filled(count, "192.0.2.1").admission(from, &limits);
        assert_eq!(admission(3, here), Admission::Open);
        assert_eq!(admission(4, here), Admission::WithCookie);
        assert_eq!(admission(8, here), Admission::Full);
        assert_eq!(admission(8, there), Admission::Open);
    }

    #[test]
    fn one_ipv6_network_counts_as_one_address() {
        let limits = HalfOpenConfig {
            per_address_max: 2,
            ..HalfOpenConfig::default()
        };
        let half_opens = filled(2, "2001:db8::1");
        let admission = |from| half_opens.admission(address(from), &limits);
        assert_eq!(admission("2001:db8::ffff:1"), Admission::Full);
        assert_eq!(admission("2001:db8:0:1::1"), Admission::Open);
    }

    #[test]
    fn what_is_over_is_not_counted_any_more() {
        let mut half_opens = filled(3, "192.0.2.1");
        half_opens.remove(&key(1));
        half_opens.remove(&key(1));
        assert_eq!((half_opens.len(), half_opens.by_source.len()), (2, 1));
        half_opens.remove(&key(2));
        half_opens.remove(&key(3));
        assert_eq!((half_opens.len(), half_opens.by_source.len()), (0, 0));
    }
}
