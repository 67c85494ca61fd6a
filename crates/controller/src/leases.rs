//! Which of a pool's addresses belongs to which tunnel's peer.
//!
//! An address follows from the peer's identity, so that a client which returns gets the one that it
//! had, also from a daemon that was restarted; where two identities meet, the next free one is
//! taken. An address stays its peer's while the peer is away, until a pool without a free one has
//! to give it to somebody else. Never has an address two tunnels.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::config::{Pool, TunnelConfig};
use crate::host::Host;
use crate::ike::TunnelId;

/// Who has which address.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    owners: BTreeMap<IpAddr, TunnelId>,
}

impl Leases {
    /// The addresses for a tunnel's peer: one of each family that the tunnel's pools have, as far as
    /// one is free.
    pub(crate) fn take(
        &mut self,
        tunnel: TunnelId,
        config: &TunnelConfig,
        host: &Host,
    ) -> Vec<IpAddr> {
        [true, false]
            .into_iter()
            .filter_map(|ipv4| self.take_one(tunnel, config, ipv4, host))
            .collect()
    }

    /// An address of one family, if one is free.
    pub(crate) fn take_one(
        &mut self,
        tunnel: TunnelId,
        config: &TunnelConfig,
        ipv4: bool,
        host: &Host,
    ) -> Option<IpAddr> {
        let identity = config.remote.id.to_string();
        let address = networks(config, ipv4)
            .find_map(|network| self.free_in(network, identity.as_bytes(), host))?;
        self.owners.insert(address, tunnel);
        Some(address)
    }

    /// Gives a tunnel an address that was another's.
    pub(crate) fn hand_over(&mut self, address: IpAddr, to: TunnelId) {
        self.owners.insert(address, to);
    }

    /// The tunnel is gone.
    pub(crate) fn release(&mut self, tunnel: TunnelId) {
        self.owners.retain(|_, owner| *owner != tunnel);
    }

    /// Who has an address of this family from one of the tunnel's pools.
    pub(crate) fn holders<'a>(
        &'a self,
        config: &'a TunnelConfig,
        ipv4: bool,
    ) -> impl Iterator<Item = (IpAddr, TunnelId)> + 'a {
        let of_pool = move |address: &IpAddr| {
            let mut networks = networks(config, ipv4);
            networks.any(|network| network.contains(address))
        };
        let owners = self.owners.iter();
        owners
            .filter(move |(address, _)| of_pool(address))
            .map(|(address, owner)| (*address, *owner))
    }

    /// The identity's own place in the network, or the next one after it that is free.
    fn free_in(&self, network: IpNet, identity: &[u8], host: &Host) -> Option<IpAddr> {
        let (first, count) = hosts(network)?;
        let start = u128::from(fnv1a(identity)) % count;
        // Each step but the last one meets an address that is taken.
        let steps = count.min(self.owners.len() as u128 + host.count() as u128 + 1);
        (0..steps)
            .filter_map(|step| nth(first, (start + step) % count))
            .find(|address| !self.owners.contains_key(address) && !host.owns(*address))
    }
}

/// The networks of the tunnel's pools that have this family.
fn networks(config: &TunnelConfig, ipv4: bool) -> impl Iterator<Item = IpNet> + '_ {
    let pools = config.addressing.pools().unwrap_or_default();
    let networks = pools
        .iter()
        .flat_map(|pool: &std::sync::Arc<Pool>| &pool.networks);
    networks
        .copied()
        .filter(move |network| network.addr().is_ipv4() == ipv4)
}

/// The first address of a network that a host may have, and how many there are. Not the network's
/// own and its broadcast address (RFC 1122 §3.2.1.3), not the subnet-router anycast address
/// (RFC 4291 §2.6.1).
fn hosts(network: IpNet) -> Option<(IpAddr, u128)> {
    let width = u32::from(network.max_prefix_len() - network.prefix_len());
    let all = 1_u128.checked_shl(width).filter(|_| width < 128);
    let all = all.unwrap_or(u128::MAX);
    let (skipped, count) = match (network, width) {
        (_, 0 | 1) => (0, all),
        (IpNet::V4(_), _) => (1, all - 2),
        (IpNet::V6(_), _) => (1, all - 1),
    };
    Some((nth(network.network(), skipped)?, count))
}

/// The address `offset` after `first`.
fn nth(first: IpAddr, offset: u128) -> Option<IpAddr> {
    match first {
        IpAddr::V4(first) => {
            let offset = u32::try_from(offset).ok()?;
            let address = u32::from(first).checked_add(offset)?;
            Some(Ipv4Addr::from(address).into())
        }
        IpAddr::V6(first) => {
            let address = u128::from(first).checked_add(offset)?;
            Some(Ipv6Addr::from(address).into())
        }
    }
}

/// FNV-1a, 64 bits: spreads identities over a network.
fn fnv1a(octets: &[u8]) -> u64 {
    octets.iter().fold(0xcbf2_9ce4_8422_2325, |hash, octet| {
        (hash ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use crate::Secret;
    use crate::config::{Addressing, End, Identity, Role};

    use super::*;

    fn tunnel(peer: &str, networks: &[&str]) -> TunnelConfig {
        let end = |id: &str| End {
            address: None,
            id: Identity::Fqdn(id.into()),
        };
        let pool = Pool {
            name: "staff".into(),
            networks: networks.iter().map(|it| it.parse().unwrap()).collect(),
            dns: Vec::new(),
            domains: Vec::new(),
        };
        TunnelConfig {
            addressing: Addressing::Pools(vec![Arc::new(pool)]),
            ..TunnelConfig::new(
                peer,
                Role::Server,
                end("hq.example"),
                end(peer),
                Secret::from(vec![0; 32]),
            )
        }
    }

    #[test]
    fn a_pool_gives_each_of_its_addresses_once_and_then_none() {
        let mut leases = Leases::default();
        let mut given = BTreeSet::new();
        for number in 0..6 {
            let config = tunnel(&format!("client-{number}.example"), &["10.99.0.0/29"]);
            let taken = leases.take(TunnelId(number), &config, &Host::default());
            assert_eq!(taken.len(), 1);
            assert!(given.insert(taken[0]), "{taken:?} twice");
        }
        assert!(!given.contains(&"10.99.0.0".parse().unwrap()));
        assert!(!given.contains(&"10.99.0.7".parse().unwrap()));
        let config = tunnel("late.example", &["10.99.0.0/29"]);
        assert!(
            leases
                .take(TunnelId(6), &config, &Host::default())
                .is_empty()
        );
        leases.release(TunnelId(3));
        assert_eq!(leases.take(TunnelId(6), &config, &Host::default()).len(), 1);
    }

    #[test]
    fn a_peer_gets_the_same_addresses_from_a_daemon_that_was_restarted() {
        let networks = ["10.99.0.0/16", "2001:db8:99::/64"];
        let config = tunnel("laptop.example", &networks);
        let first = Leases::default().take(TunnelId(1), &config, &Host::default());
        let second = Leases::default().take(TunnelId(9), &config, &Host::default());
        assert_eq!(first, second);
        assert_eq!(first.len(), 2, "one of each family");
    }

    #[test]
    fn the_servers_own_address_is_never_leased() {
        let config = tunnel("laptop.example", &["10.99.0.8/31"]);
        let mut host = Host::default();
        host.set_addresses(vec!["10.99.0.8".parse().unwrap()]);
        let taken = Leases::default().take(TunnelId(1), &config, &host);
        assert_eq!(taken, ["10.99.0.9".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn networks_of_every_width_have_hosts_inside_themselves() {
        for text in [
            "10.0.0.1/32",
            "0.0.0.0/0",
            "::/0",
            "2001:db8::1/128",
            "2001:db8::/127",
        ] {
            let network: IpNet = text.parse().unwrap();
            let (first, count) = hosts(network).unwrap();
            let last = nth(first, count - 1).unwrap();
            assert!(
                network.contains(&first) && network.contains(&last),
                "{text}"
            );
        }
    }
}
