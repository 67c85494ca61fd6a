//! Virtual addresses: what a client asks its server for, and what a server has to give
//! (configuration payloads, RFC 7296 §2.19, §3.15).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;

/// Where the inner addresses of a tunnel's client come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Addressing {
    /// From the configuration of both ends.
    #[default]
    Configured,
    /// Client: from the server. `local_traffic` is then everything of the families asked for: what
    /// must not leave in clear before there is an address, and what the server narrows to it.
    Request(AddressRequest),
    /// Server: from these pools, the first that has one. `remote_traffic` is empty then.
    Pools(Vec<Arc<Pool>>),
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressRequest {
    /// INTERNAL_IP4_ADDRESS.
    pub ipv4: bool,
    /// INTERNAL_IP6_ADDRESS.
    pub ipv6: bool,
    /// The interface that gets the addresses.
    pub interface: String,
}

/// Addresses that a server leases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its unique name.
    pub name: String,
    /// Where its addresses come from.
    pub networks: Vec<IpNet>,
    /// DNS servers that clients are told (INTERNAL_IP4_DNS, INTERNAL_IP6_DNS).
    pub dns: Vec<IpAddr>,
    /// Domains that these servers resolve (INTERNAL_DNS_DOMAIN, RFC 8598).
    pub domains: Vec<String>,
}

impl AddressRequest {
    /// Whether an address of this family is asked for.
    #[must_use]
    pub fn wants(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(_) => self.ipv4,
            IpAddr::V6(_) => self.ipv6,
        }
    }

    /// Everything of the families asked for.
    #[must_use]
    pub fn everything(&self) -> Vec<IpNet> {
        let all: [(IpAddr, bool); 2] = [
            (Ipv4Addr::UNSPECIFIED.into(), self.ipv4),
            (Ipv6Addr::UNSPECIFIED.into(), self.ipv6),
        ];
        all.into_iter()
            .filter(|(_, wanted)| *wanted)
            .filter_map(|(address, _)| IpNet::new(address, 0).ok())
            .collect()
    }
}

impl Addressing {
    /// What the client asks for, if it does.
    #[must_use]
    pub fn request(&self) -> Option<&AddressRequest> {
        match self {
            Self::Request(request) => Some(request),
            Self::Configured | Self::Pools(_) => None,
        }
    }

    /// The server's pools, if it has any.
    #[must_use]
    pub fn pools(&self) -> Option<&[Arc<Pool>]> {
        match self {
            Self::Pools(pools) => Some(pools),
            Self::Configured | Self::Request(_) => None,
        }
    }
}
