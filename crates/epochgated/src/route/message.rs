//! Route messages (`struct rtmsg` and its attributes): built and read.

use std::cmp::Reverse;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
    RouteType, RouteVia,
};

/// Protocol of the routes that we add (`rtm_protocol`), from the range that the kernel leaves to
/// whoever takes it; `ip route show proto 69` lists them.
pub const ROUTE_PROTOCOL: u8 = 69;

/// Where packets leave to reach a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NextHop {
    pub(super) interface: u32,
    pub(super) gateway: Option<IpAddr>,
}

/// A route in the main table, with a preferred source if one is given.
pub(super) fn route(
    destination: IpNet,
    source: Option<IpAddr>,
    hop: NextHop,
) -> Result<RouteMessage, String> {
    let other_family = |source: &IpAddr| source.is_ipv6() != destination.addr().is_ipv6();
    if let Some(source) = source.filter(other_family) {
        return Err(format!("the source {source} is of another family"));
    }
    let mut message = empty(destination.addr());
    message.header.destination_prefix_length = destination.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::from(ROUTE_PROTOCOL);
    message.header.kind = RouteType::Unicast;
    message.header.scope = match hop.gateway {
        // The kernel wants "link" for what is reached without a gateway (fib_check_nh).
        None if destination.addr().is_ipv4() => RouteScope::Link,
        _ => RouteScope::Universe,
    };
    message.attributes = vec![
        RouteAttribute::Destination(destination.network().into()),
        RouteAttribute::Oif(hop.interface),
    ];
    message
        .attributes
        .extend(source.map(|source| RouteAttribute::PrefSource(source.into())));
    match (destination.addr(), hop.gateway) {
        (_, None) => {}
        (IpAddr::V4(_), Some(gateway @ IpAddr::V4(_)))
        | (IpAddr::V6(_), Some(gateway @ IpAddr::V6(_))) => {
            message
                .attributes
                .push(RouteAttribute::Gateway(gateway.into()));
        }
        (IpAddr::V4(_), Some(IpAddr::V6(gateway))) => {
            message
                .attributes
                .push(RouteAttribute::Via(RouteVia::Inet6(gateway)));
        }
        // An IPv6 network through an IPv4 tunnel: the interface is enough, XFRM replaces the rest.
        (IpAddr::V6(_), Some(IpAddr::V4(_))) => {}
    }
    Ok(message)
}

/// Asks how packets to `destination` would leave.
pub(super) fn look_up(destination: IpAddr) -> RouteMessage {
    let mut message = empty(destination);
    message.header.destination_prefix_length = if destination.is_ipv4() { 32 } else { 128 };
    message.attributes = vec![RouteAttribute::Destination(destination.into())];
    message
}

/// Asks for the table's entry that packets to `destination` would take.
pub(super) fn look_up_entry(destination: IpAddr) -> RouteMessage {
    let mut message = look_up(destination);
    message.header.flags = RouteFlags::FibMatch;
    message
}

/// Whether the entry that was found for the first address of `destination` shows that nobody else
/// has a route to exactly that network: it is ours, or a wider one.
pub(super) fn shows_no_other(entry: &RouteMessage, destination: IpNet) -> bool {
    let wider = entry.header.destination_prefix_length < destination.prefix_len();
    let ours = is_ours(entry) && self::destination(entry) == Some(destination);
    in_main_table(entry) && (wider || ours)
}

/// Asks for the routes of the main table, family by family.
pub(super) fn everybodys() -> [RouteMessage; 2] {
    let families: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    families.map(|family| {
        let mut message = empty(family);
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message
    })
}

/// Asks for our routes of the main table, family by family.
pub(super) fn ours() -> [RouteMessage; 2] {
    everybodys().map(|mut message| {
        message.header.protocol = RouteProtocol::from(ROUTE_PROTOCOL);
        message
    })
}

fn empty(family: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = if family.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    message
}

/// The default route as two halves, which win over the host's own default route and leave it where
/// it is; any other network as it is.
pub(super) fn halves(network: IpNet) -> Vec<IpNet> {
    if network.prefix_len() > 0 {
        return vec![network.trunc()];
    }
    network
        .subnets(1)
        .map_or_else(|_| vec![network], Iterator::collect)
}

pub(super) fn is_ours(message: &RouteMessage) -> bool {
    u8::from(message.header.protocol) == ROUTE_PROTOCOL
}

pub(super) fn in_main_table(message: &RouteMessage) -> bool {
    message.header.table == RouteHeader::RT_TABLE_MAIN
}

/// The next hop of a looked-up route; `None` where packets would not leave at all.
pub(super) fn next_hop(message: &RouteMessage) -> Option<NextHop> {
    if message.header.kind != RouteType::Unicast {
        return None;
    }
    let interface = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Oif(interface) => Some(*interface),
            _ => None,
        })?;
    let gateway = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Gateway(address) => ip(address),
            RouteAttribute::Via(RouteVia::Inet6(address)) => Some((*address).into()),
            RouteAttribute::Via(RouteVia::Inet(address)) => Some((*address).into()),
            _ => None,
        });
    Some(NextHop { interface, gateway })
}

pub(super) fn preferred_source(message: &RouteMessage) -> Option<IpAddr> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::PrefSource(address) => ip(address),
            _ => None,
        })
}

/// Whether a route in the kernel is what adding `wanted` would make of it. They may differ in the
/// source where `wanted` leaves that to the kernel.
pub(super) fn is_as_wanted(present: &RouteMessage, wanted: &RouteMessage) -> bool {
    let source = preferred_source(wanted);
    next_hop(present) == next_hop(wanted)
        && (source.is_none() || preferred_source(present) == source)
}

pub(super) fn destination(message: &RouteMessage) -> Option<IpNet> {
    let address = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(address) => Some(ip(address)),
            _ => None,
        })
        .unwrap_or(match message.header.address_family {
            AddressFamily::Inet => Some(Ipv4Addr::UNSPECIFIED.into()),
            AddressFamily::Inet6 => Some(Ipv6Addr::UNSPECIFIED.into()),
            _ => None,
        })?;
    IpNet::new(address, message.header.destination_prefix_length).ok()
}

/// The route of somebody else's that packets to `destination` would take: the longest prefix, and
/// of those the lowest metric.
pub(super) fn best(routes: &[RouteMessage], destination: IpAddr) -> Option<&RouteMessage> {
    routes
        .iter()
        .filter(|route| !is_ours(route) && next_hop(route).is_some())
        .filter(|route| self::destination(route).is_some_and(|net| net.contains(&destination)))
        .min_by_key(|route| {
            (
                Reverse(route.header.destination_prefix_length),
                metric(route),
            )
        })
}

fn metric(message: &RouteMessage) -> u32 {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Priority(metric) => Some(*metric),
            _ => None,
        })
        .unwrap_or(0)
}

/// A route as `ip route` would show it, shortly.
pub(super) fn describe(message: &RouteMessage) -> String {
    let mut text = format!("protocol {:?}", message.header.protocol).to_lowercase();
    if let Some(gateway) = next_hop(message).and_then(|hop| hop.gateway) {
        let _ = write!(text, ", via {gateway}");
    }
    if let Some(source) = preferred_source(message) {
        let _ = write!(text, ", source {source}");
    }
    text
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> IpNet {
        text.parse().expect("a network")
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_default_route_becomes_two_halves() {
        assert_eq!(
            halves(network("0.0.0.0/0")),
            [network("0.0.0.0/1"), network("128.0.0.0/1")]
        );
        assert_eq!(
            halves(network("::/0")),
            [network("::/1"), network("8000::/1")]
        );
        assert_eq!(halves(network("10.2.0.0/16")), [network("10.2.0.0/16")]);
    }

    #[test]
    fn a_route_carries_our_protocol_source_and_next_hop() {
        let hop = NextHop {
            interface: 7,
            gateway: Some(address("192.0.2.1")),
        };
        let message =
            route(network("10.2.0.0/16"), Some(address("10.1.0.1")), hop).expect("a route");
        assert!(is_ours(&message));
        assert!(in_main_table(&message));
        assert_eq!(destination(&message), Some(network("10.2.0.0/16")));
        assert_eq!(preferred_source(&message), Some(address("10.1.0.1")));
        assert_eq!(next_hop(&message), Some(hop));
        assert_eq!(message.header.scope, RouteScope::Universe);
    }

    #[test]
    fn a_route_without_gateway_has_link_scope() {
        let hop = NextHop {
            interface: 7,
            gateway: None,
        };
        let message =
            route(network("10.2.0.0/16"), Some(address("10.1.0.1")), hop).expect("a route");
        assert_eq!(message.header.scope, RouteScope::Link);
    }

    #[test]
    fn our_own_routes_do_not_tell_how_to_reach_a_peer() {
        let hop = |interface| NextHop {
            interface,
            gateway: None,
        };
        let route_by = |destination: &str, interface| {
            route(
                network(destination),
                Some(address("10.1.0.1")),
                hop(interface),
            )
            .expect("a route")
        };
        let foreign = |destination: &str, interface, metric| {
            let mut message = route_by(destination, interface);
            message.header.protocol = RouteProtocol::Boot;
            message.attributes.push(RouteAttribute::Priority(metric));
            message
        };
        let routes = [
            route_by("128.0.0.0/1", 1),
            foreign("0.0.0.0/0", 2, 100),
            foreign("0.0.0.0/0", 3, 50),
            foreign("192.0.2.0/24", 4, 0),
        ];
        let found = |to: &str| best(&routes, address(to)).and_then(next_hop);
        assert_eq!(found("203.0.113.1"), Some(hop(3)));
        assert_eq!(found("192.0.2.9"), Some(hop(4)));
        assert_eq!(found("2001:db8::1"), None);
    }

    #[test]
    fn only_a_wider_entry_or_ours_shows_that_nobody_has_such_a_route() {
        let hop = NextHop {
            interface: 1,
            gateway: None,
        };
        let ours = |to: &str| route(network(to), Some(address("10.1.0.1")), hop).expect("a route");
        let foreign = |to: &str| {
            let mut message = ours(to);
            message.header.protocol = RouteProtocol::Boot;
            message
        };
        let wanted = network("10.2.0.0/16");
        assert!(shows_no_other(&foreign("10.0.0.0/8"), wanted));
        assert!(shows_no_other(&ours("10.2.0.0/16"), wanted));
        assert!(!shows_no_other(&foreign("10.2.0.0/16"), wanted));
        assert!(!shows_no_other(&foreign("10.2.0.0/24"), wanted));
        assert!(!shows_no_other(&ours("10.2.0.0/24"), wanted));
    }

    #[test]
    fn an_ipv6_route_beside_an_ipv4_gateway_is_as_wanted_once_it_is_there() {
        let hop = NextHop {
            interface: 7,
            gateway: Some(address("192.0.2.1")),
        };
        let to = |source: &str, hop| {
            let source = Some(address(source));
            route(network("2001:db8:b::/64"), source, hop).expect("a route")
        };
        let present = to("2001:db8:a::1", hop);
        assert!(is_as_wanted(&present, &to("2001:db8:a::1", hop)));
        assert!(!is_as_wanted(&present, &to("2001:db8:a::2", hop)));
        let elsewhere = NextHop {
            interface: 8,
            ..hop
        };
        assert!(!is_as_wanted(&present, &to("2001:db8:a::1", elsewhere)));
    }

    #[test]
    fn a_source_of_another_family_is_refused() {
        let hop = NextHop {
            interface: 7,
            gateway: None,
        };
        assert!(route(network("10.2.0.0/16"), Some(address("2001:db8::1")), hop).is_err());
    }

    #[test]
    fn the_default_route_has_a_destination_too() {
        let [ipv4, ipv6] = everybodys();
        assert_eq!(destination(&ipv4), Some(network("0.0.0.0/0")));
        assert_eq!(destination(&ipv6), Some(network("::/0")));
    }
}
