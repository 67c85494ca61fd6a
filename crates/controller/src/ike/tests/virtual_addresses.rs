//! Configuration payloads (RFC 7296 §2.19, §3.15).

use epochgate_ike_wire::{
    Configuration, ConfigurationAttribute, ConfigurationAttributeType as Kind, ConfigurationType,
};
use ipnet::IpNet;

use super::*;
use crate::config::{AddressRequest, Addressing, Pool};
use crate::ike::selectors::from_networks;

const LEASED: [&str; 2] = ["10.99.0.7", "2001:db8:99::7"];

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// A client that asks for addresses of these families.
fn asks(ipv4: bool, ipv6: bool) -> impl FnOnce(&mut TunnelConfig) {
    move |config| {
        let request = AddressRequest {
            ipv4,
            ipv6,
            interface: "lo".into(),
        };
        config.local_traffic = request.everything();
        config.remote_traffic = nets(&["10.2.0.0/16", "2001:db8:2::/48"]);
        config.addressing = Addressing::Request(request);
    }
}

/// A server whose pools have leased these to the client.
fn leases(leased: &[&str]) -> impl FnOnce(&mut TunnelConfig) {
    let leased = addresses(leased);
    move |config| {
        config.local_traffic = nets(&["10.2.0.0/16", "2001:db8:2::/48"]);
        config.remote_traffic = leased.into_iter().map(IpNet::from).collect();
        config.addressing = Addressing::Pools(vec![Arc::new(Pool {
            name: "staff".into(),
            networks: nets(&["10.99.0.0/24", "2001:db8:99::/64"]),
            dns: addresses(&["10.2.0.53", "2001:db8:2::53"]),
            domains: vec!["hq.example".into()],
        })]);
    }
}

fn refused_with(pair: &Pair, kind: NotifyType) -> bool {
    pair.client.events.iter().any(|event| {
        matches!(event, IkeEvent::ChildRefused { error: ChildError::Notify(it), .. } if *it == kind.0)
    })
}

#[test]
fn a_client_gets_addresses_servers_and_domains_and_selectors_to_match() {
    let mut pair = Pair::with(asks(true, true), leases(&LEASED));
    pair.connect();
    pair.settle();
    pair.assert_same_child();
    let assigned = pair.client.peer().unwrap().assigned.clone().unwrap();
    assert_eq!(assigned.addresses, addresses(&LEASED));
    assert_eq!(assigned.dns, addresses(&["10.2.0.53", "2001:db8:2::53"]));
    assert_eq!(assigned.domains, ["hq.example"]);
    let child = pair.client.child();
    assert_eq!(
        child.local_selectors,
        from_networks(&nets(&["10.99.0.7/32", "2001:db8:99::7/128"]))
    );
    assert_eq!(
        child.remote_selectors,
        from_networks(&nets(&["10.2.0.0/16", "2001:db8:2::/48"]))
    );
}

#[test]
fn a_family_that_is_not_asked_for_is_not_given() {
    let mut pair = Pair::with(asks(false, true), leases(&LEASED));
    pair.connect();
    pair.settle();
    let assigned = pair.client.peer().unwrap().assigned.clone().unwrap();
    assert_eq!(assigned.addresses, addresses(&LEASED[1..]));
    assert_eq!(assigned.dns, addresses(&["2001:db8:2::53"]));
    assert_eq!(
        pair.client.child().local_selectors,
        from_networks(&nets(&["2001:db8:99::7/128"]))
    );
}

#[test]
fn a_rekey_is_about_the_assigned_address() {
    let mut pair = Pair::with(asks(true, false), leases(&LEASED));
    pair.connect();
    pair.settle();
    let (sa, child, now) = (pair.client.sa(), pair.client.child().id, pair.now);
    pair.client.endpoint.rekey_child(sa, child, now);
    pair.settle();
    pair.assert_same_child();
    assert_ne!(pair.client.child().id, child);
    assert_eq!(
        pair.client.child().local_selectors,
        from_networks(&nets(&["10.99.0.7/32"]))
    );
}

#[test]
fn a_client_that_comes_back_asks_for_the_address_that_it_had() {
    let mut config = config(End::Client);
    asks(true, true)(&mut config);
    let before = addresses(&LEASED[..1]);
    let Some(Payload::Configuration(request)) =
        crate::ike::configuration::request(&config, &before)
    else {
        panic!("no request")
    };
    assert_eq!(request.kind, ConfigurationType::REQUEST);
    let value = |kind| {
        let mut attributes = request.attributes.iter();
        let found = attributes.find(|it| it.kind == kind);
        found.map(|it| it.value.as_slice())
    };
    assert_eq!(value(Kind::INTERNAL_IP4_ADDRESS), Some(&[10, 99, 0, 7][..]));
    assert_eq!(value(Kind::INTERNAL_IP6_ADDRESS), Some(&[][..]));
}

#[test]
fn an_exhausted_pool_refuses_the_child_and_keeps_the_ike_sa() {
    let mut pair = Pair::with(asks(true, true), leases(&[]));
    pair.connect();
    pair.settle();
    assert!(refused_with(&pair, NotifyType::INTERNAL_ADDRESS_FAILURE));
    assert!(pair.client.is_established() && pair.server.is_established());
    let wanted = |event: &IkeEvent| matches!(event, IkeEvent::AddressWanted);
    assert!(pair.server.events.iter().any(wanted));
    assert!(pair.server.children.is_empty());
}

#[test]
fn a_client_that_asks_for_no_address_is_told_that_it_must() {
    let mut pair = Pair::with(
        |config| config.remote_traffic = nets(&["10.2.0.0/16"]),
        leases(&LEASED),
    );
    pair.connect();
    pair.settle();
    assert!(refused_with(&pair, NotifyType::FAILED_CP_REQUIRED));
    assert!(pair.client.is_established() && pair.server.is_established());
}

#[test]
fn a_server_without_pools_assigns_nothing_and_the_client_makes_no_child_of_it() {
    let mut pair = Pair::with(asks(true, false), |_| ());
    pair.connect();
    pair.settle();
    assert!(refused_with(&pair, NotifyType::INTERNAL_ADDRESS_FAILURE));
    assert!(pair.client.children.is_empty());
    assert!(pair.server.children.is_empty(), "it was told");
}

#[test]
fn unknown_and_malformed_attributes_are_ignored() {
    let mut payloads = crate::ike::payloads::Payloads::default();
    let mut config = config(End::Client);
    asks(true, true)(&mut config);
    let attribute = |kind: Kind, value: &[u8]| ConfigurationAttribute {
        kind,
        value: value.to_vec(),
    };
    payloads.configuration = Some(Configuration {
        kind: ConfigurationType::REPLY,
        attributes: vec![
            attribute(Kind(16_400), &[1, 2, 3]),
            attribute(Kind::INTERNAL_IP4_ADDRESS, &[10, 99, 0]),
            attribute(Kind::INTERNAL_IP4_ADDRESS, &[127, 0, 0, 1]),
            attribute(Kind::INTERNAL_IP4_ADDRESS, &[10, 99, 0, 7]),
            attribute(Kind::INTERNAL_IP4_ADDRESS, &[10, 99, 0, 8]),
            attribute(Kind::INTERNAL_IP4_NETMASK, &[255, 255, 255, 0]),
            attribute(Kind::INTERNAL_IP6_ADDRESS, &[0; 17]),
            attribute(Kind::INTERNAL_DNS_DOMAIN, b"bad\ndomain"),
        ],
    });
    let assigned = crate::ike::configuration::assigned(&config, &payloads).unwrap();
    assert_eq!(assigned.addresses, addresses(&["10.99.0.7"]));
    assert!(assigned.dns.is_empty() && assigned.domains.is_empty());
}

#[test]
fn a_reply_keeps_no_more_servers_and_domains_than_the_limits() {
    let mut payloads = crate::ike::payloads::Payloads::default();
    let mut config = config(End::Client);
    asks(true, false)(&mut config);
    let mut attributes = Vec::new();
    for number in 0..32 {
        attributes.push(ConfigurationAttribute {
            kind: Kind::INTERNAL_IP4_DNS,
            value: vec![10, 2, 0, number],
        });
        attributes.push(ConfigurationAttribute {
            kind: Kind::INTERNAL_DNS_DOMAIN,
            value: format!("d{number}.example").into_bytes(),
        });
    }
    let kind = ConfigurationType::REPLY;
    payloads.configuration = Some(Configuration { kind, attributes });
    let assigned = crate::ike::configuration::assigned(&config, &payloads).unwrap();
    assert_eq!((assigned.dns.len(), assigned.domains.len()), (8, 16));
}
