//! Configuration payloads in IKE_AUTH (RFC 7296 §2.19, §3.15): a client asks for inner addresses,
//! DNS servers and domains; a server gives what was leased to the peer. Attributes that neither end
//! uses are ignored, as §3.15.1 wants.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use epochgate_ike_wire::{
    Configuration, ConfigurationAttribute, ConfigurationAttributeType as Kind, ConfigurationType,
    NotifyType, Payload,
};

use crate::config::{Addressing, TunnelConfig};

use super::payloads::Payloads;

/// DNS servers of a reply that are kept; more are ignored.
const DNS_SERVERS_MAX: usize = 8;
/// DNS domains of a reply that are kept; more are ignored.
const DNS_DOMAINS_MAX: usize = 16;
/// Octets of a domain name (RFC 1035 §2.3.4).
const DOMAIN_LEN_MAX: usize = 253;
/// Prefix length that an IPv6 address is given and asked for with: a host of its own.
const IPV6_HOST: u8 = 128;

/// What a server assigned to us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Assigned {
    /// One address of each family at most.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) dns: Vec<IpAddr>,
    pub(crate) domains: Vec<String>,
}

/// The CFG_REQUEST of a client that wants addresses; `before` are those that it had.
pub(super) fn request(config: &TunnelConfig, before: &[IpAddr]) -> Option<Payload> {
    let wanted = config.addressing.request()?;
    let had = |ipv4: bool| before.iter().find(|address| address.is_ipv4() == ipv4);
    let mut attributes = Vec::new();
    if wanted.ipv4 {
        attributes.push(had(true).map_or(empty(Kind::INTERNAL_IP4_ADDRESS), address));
        attributes.push(empty(Kind::INTERNAL_IP4_DNS));
    }
    if wanted.ipv6 {
        attributes.push(had(false).map_or(empty(Kind::INTERNAL_IP6_ADDRESS), address));
        attributes.push(empty(Kind::INTERNAL_IP6_DNS));
    }
    attributes.push(empty(Kind::INTERNAL_DNS_DOMAIN));
    Some(payload(ConfigurationType::REQUEST, attributes))
}

/// What the server's reply gives us of what we asked for; `None` when we asked for nothing.
pub(super) fn assigned(config: &TunnelConfig, payloads: &Payloads) -> Option<Assigned> {
    let wanted = config.addressing.request()?;
    let mut assigned = Assigned::default();
    for attribute in attributes(payloads, ConfigurationType::REPLY) {
        match attribute.kind {
            Kind::INTERNAL_IP4_ADDRESS | Kind::INTERNAL_IP6_ADDRESS => {
                let found = parse(attribute).filter(|it| wanted.wants(*it) && is_host(*it));
                let Some(address) = found else { continue };
                let ipv4 = address.is_ipv4();
                if !assigned.addresses.iter().any(|it| it.is_ipv4() == ipv4) {
                    assigned.addresses.push(address);
                }
            }
            Kind::INTERNAL_IP4_DNS | Kind::INTERNAL_IP6_DNS => {
                let found = parse(attribute).filter(|it| is_host(*it));
                if let Some(server) = found
                    && assigned.dns.len() < DNS_SERVERS_MAX
                    && !assigned.dns.contains(&server)
                {
                    assigned.dns.push(server);
                }
            }
            Kind::INTERNAL_DNS_DOMAIN => {
                if let Some(domain) = domain(&attribute.value)
                    && assigned.domains.len() < DNS_DOMAINS_MAX
                    && !assigned.domains.contains(&domain)
                {
                    assigned.domains.push(domain);
                }
            }
            _ => {}
        }
    }
    Some(assigned)
}

/// What a server says to its client's CFG_REQUEST: the CFG_REPLY, nothing where there is no pool, or
/// the notify that refuses the Child SA (RFC 7296 §3.10.1). The leased addresses are the tunnel's
/// `remote_traffic`.
pub(super) fn answer(
    config: &TunnelConfig,
    payloads: &Payloads,
) -> Result<Option<Payload>, NotifyType> {
    let Addressing::Pools(pools) = &config.addressing else {
        return Ok(None);
    };
    let mut asked = attributes(payloads, ConfigurationType::REQUEST).peekable();
    if asked.peek().is_none() {
        return Err(NotifyType::FAILED_CP_REQUIRED);
    }
    let (mut ipv4, mut ipv6, mut dns_ipv4, mut dns_ipv6, mut domains) =
        (false, false, false, false, false);
    for attribute in asked {
        match attribute.kind {
            Kind::INTERNAL_IP4_ADDRESS => ipv4 = true,
            Kind::INTERNAL_IP6_ADDRESS => ipv6 = true,
            Kind::INTERNAL_IP4_DNS => dns_ipv4 = true,
            Kind::INTERNAL_IP6_DNS => dns_ipv6 = true,
            Kind::INTERNAL_DNS_DOMAIN => domains = true,
            _ => {}
        }
    }
    let of_family = |it: &IpAddr, ipv4: bool, ipv6: bool| if it.is_ipv4() { ipv4 } else { ipv6 };
    let leased = config.remote_traffic.iter().map(|network| network.addr());
    let mut given: Vec<ConfigurationAttribute> = leased
        .filter(|it| of_family(it, ipv4, ipv6))
        .map(|it| address(&it))
        .collect();
    if given.is_empty() {
        return Err(NotifyType::INTERNAL_ADDRESS_FAILURE);
    }
    let servers = pools.iter().flat_map(|pool| &pool.dns);
    given.extend(
        servers
            .filter(|it| of_family(it, dns_ipv4, dns_ipv6))
            .take(DNS_SERVERS_MAX)
            .map(dns_server),
    );
    if domains {
        let domains = pools.iter().flat_map(|pool| &pool.domains);
        given.extend(
            domains
                .take(DNS_DOMAINS_MAX)
                .map(|domain| ConfigurationAttribute {
                    kind: Kind::INTERNAL_DNS_DOMAIN,
                    value: domain.clone().into_bytes(),
                }),
        );
    }
    Ok(Some(payload(ConfigurationType::REPLY, given)))
}

fn attributes(
    payloads: &Payloads,
    kind: ConfigurationType,
) -> impl Iterator<Item = &ConfigurationAttribute> {
    let found = payloads.configuration.as_ref();
    found
        .filter(|it| it.kind == kind)
        .into_iter()
        .flat_map(|it| &it.attributes)
}

fn payload(kind: ConfigurationType, attributes: Vec<ConfigurationAttribute>) -> Payload {
    Payload::Configuration(Configuration { kind, attributes })
}

fn empty(kind: Kind) -> ConfigurationAttribute {
    ConfigurationAttribute {
        kind,
        value: Vec::new(),
    }
}

fn address(address: &IpAddr) -> ConfigurationAttribute {
    match address {
        IpAddr::V4(address) => ConfigurationAttribute {
            kind: Kind::INTERNAL_IP4_ADDRESS,
            value: address.octets().to_vec(),
        },
        IpAddr::V6(address) => {
            let mut value = address.octets().to_vec();
            value.push(IPV6_HOST);
            ConfigurationAttribute {
                kind: Kind::INTERNAL_IP6_ADDRESS,
                value,
            }
        }
    }
}

fn dns_server(address: &IpAddr) -> ConfigurationAttribute {
    match address {
        IpAddr::V4(address) => ConfigurationAttribute {
            kind: Kind::INTERNAL_IP4_DNS,
            value: address.octets().to_vec(),
        },
        IpAddr::V6(address) => ConfigurationAttribute {
            kind: Kind::INTERNAL_IP6_DNS,
            value: address.octets().to_vec(),
        },
    }
}

/// The address in an attribute; the prefix length of an IPv6 one is of no use to us. A value of
/// another length is as none.
fn parse(attribute: &ConfigurationAttribute) -> Option<IpAddr> {
    let value = attribute.value.as_slice();
    match attribute.kind {
        Kind::INTERNAL_IP4_ADDRESS | Kind::INTERNAL_IP4_DNS => {
            let octets = <[u8; 4]>::try_from(value).ok()?;
            Some(Ipv4Addr::from(octets).into())
        }
        Kind::INTERNAL_IP6_ADDRESS => {
            let (octets, prefix) = value.split_at_checked(16)?;
            let octets = <[u8; 16]>::try_from(octets).ok()?;
            (prefix.len() <= 1).then(|| Ipv6Addr::from(octets).into())
        }
        Kind::INTERNAL_IP6_DNS => {
            let octets = <[u8; 16]>::try_from(value).ok()?;
            Some(Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}

/// Whether this can be the address of one host beyond this one and its links.
fn is_host(address: IpAddr) -> bool {
    let special = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    let other = match address {
        IpAddr::V4(address) => address.is_broadcast() || address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !special && !other
}

/// A domain name as RFC 8598 §4.1 writes it (ASCII, labels with dots), without a dot at its end. What
/// could mean something to a resolver's configuration file is refused.
fn domain(octets: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(octets).ok()?;
    let name = text.strip_suffix('.').unwrap_or(text);
    let plain = |label: &str| {
        let mut octets = label.bytes();
        !label.is_empty() && octets.all(|it| it.is_ascii_alphanumeric() || b"-_".contains(&it))
    };
    let good = name.len() <= DOMAIN_LEN_MAX && name.split('.').all(plain);
    good.then(|| name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_cannot_smuggle_a_line_into_a_resolvers_file() {
        assert_eq!(domain(b"HQ.example."), Some("hq.example".into()));
        for bad in [
            &b"a\nnameserver 192.0.2.1"[..],
            b"a b",
            b"",
            b".",
            b"a..b",
            b"\xff",
        ] {
            assert_eq!(domain(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn an_address_of_a_wrong_length_is_none() {
        for length in 0..20 {
            for kind in [Kind::INTERNAL_IP4_ADDRESS, Kind::INTERNAL_IP6_ADDRESS] {
                let value = vec![10; length];
                let fits = match kind {
                    Kind::INTERNAL_IP4_ADDRESS => length == 4,
                    _ => length == 16 || length == 17,
                };
                let attribute = ConfigurationAttribute { kind, value };
                assert_eq!(parse(&attribute).is_some(), fits, "{length}");
            }
        }
    }
}
