//! What the controller knows of the host that it runs on.

use std::net::IpAddr;

use ipnet::IpNet;

/// Addresses of the host that are remembered; more are ignored.
const ADDRESSES_MAX: usize = 4096;

/// The host's own addresses.
#[derive(Debug, Default)]
pub(crate) struct Host {
    addresses: Vec<IpAddr>,
}

impl Host {
    pub(crate) fn set_addresses(&mut self, mut addresses: Vec<IpAddr>) {
        addresses.truncate(ADDRESSES_MAX);
        self.addresses = addresses;
    }

    /// Whether it is one of the host's own addresses.
    pub(crate) fn owns(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }

    /// How many addresses are known.
    pub(crate) fn count(&self) -> usize {
        self.addresses.len()
    }

    /// The first address of the host inside one of `networks`, of the family of `like` if given.
    pub(crate) fn inside(&self, networks: &[IpNet], like: Option<IpAddr>) -> Option<IpAddr> {
        let fits = |address: &&IpAddr| {
            like.is_none_or(|like| like.is_ipv4() == address.is_ipv4())
                && networks.iter().any(|network| network.contains(*address))
        };
        self.addresses.iter().find(fits).copied()
    }
}
