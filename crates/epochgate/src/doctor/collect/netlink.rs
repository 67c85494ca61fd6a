//! Interfaces, addresses and routes over rtnetlink, one question after the other. Questions about
//! routes send no packet and change nothing.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoXfrm, LinkAttribute, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use crate::doctor::facts::{Link, Network, Route};

/// Seconds that an answer of the kernel may take; it answers while it takes the question.
const ANSWER_SECONDS: i64 = 5;
/// Messages that are read in answer to one question: a full Internet table and more.
const MESSAGES_MAX: usize = 4_000_000;

pub(super) struct Rtnetlink {
    socket: Socket,
    sequence: u32,
}

impl Rtnetlink {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        setsockopt(
            &socket.as_fd(),
            sockopt::ReceiveTimeout,
            &TimeVal::new(ANSWER_SECONDS as _, 0),
        )?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Asks, and hands each answer to `take`.
    fn ask(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        mut take: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut octets = vec![0; request.buffer_len()];
        request.serialize(&mut octets);
        self.socket.send(&octets, 0)?;
        let is_single = flags & NLM_F_DUMP != NLM_F_DUMP && flags & NLM_F_ACK == 0;
        let mut read = 0;
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                read += 1;
                if read > MESSAGES_MAX {
                    return Err(io::Error::other("the kernel's answer does not end"));
                }
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(io::Error::other)?;
                let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
                let aligned = length.saturating_add(3) & !3;
                rest = rest.get(aligned.max(1)..).unwrap_or_default();
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(error) => {
                        return match error.code {
                            Some(_) => Err(error.to_io()),
                            None => Ok(()),
                        };
                    }
                    NetlinkPayload::InnerMessage(inner) => {
                        take(inner);
                        if is_single {
                            return Ok(());
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// Interfaces, addresses and default routes, and how packets to `destinations` would leave.
    pub(super) fn network(&mut self, destinations: impl Iterator<Item = IpAddr>) -> Network {
        let mut network = Network::default();
        if let Err(error) = self.tables(&mut network) {
            network.failure = Some(error.to_string());
        }
        for destination in destinations {
            let route = self.route(destination, &network.links);
            network.routes.insert(destination, route);
        }
        network
    }

    fn tables(&mut self, network: &mut Network) -> io::Result<()> {
        let links = &mut network.links;
        self.ask(
            RouteNetlinkMessage::GetLink(LinkMessage::default()),
            NLM_F_DUMP,
            |message| {
                if let RouteNetlinkMessage::NewLink(link) = message {
                    links.extend(read_link(&link));
                }
            },
        )?;
        let addresses = &mut network.addresses;
        self.ask(
            RouteNetlinkMessage::GetAddress(AddressMessage::default()),
            NLM_F_DUMP,
            |message| {
                if let RouteNetlinkMessage::NewAddress(address) = message {
                    addresses.extend(read_address(&address));
                }
            },
        )?;
        let mut defaults = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut wanted = RouteMessage::default();
            wanted.header.address_family = family;
            self.ask(
                RouteNetlinkMessage::GetRoute(wanted),
                NLM_F_DUMP,
                |message| {
                    if let RouteNetlinkMessage::NewRoute(route) = message
                        && route.header.destination_prefix_length == 0
                        && route.header.kind == RouteType::Unicast
                        && let Some(index) = interface_of(&route)
                    {
                        defaults.push((family == AddressFamily::Inet6, index));
                    }
                },
            )?;
        }
        for (ipv6, index) in defaults {
            if let Some(link) = network.links.iter().find(|link| link.index == index) {
                network.default_routes.insert((ipv6, link.name.clone()));
            }
        }
        Ok(())
    }

    fn route(&mut self, destination: IpAddr, links: &[Link]) -> Result<Route, String> {
        let mut wanted = RouteMessage::default();
        (
            wanted.header.address_family,
            wanted.header.destination_prefix_length,
        ) = match destination {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        wanted
            .attributes
            .push(RouteAttribute::Destination(destination.into()));
        let mut found = None;
        self.ask(RouteNetlinkMessage::GetRoute(wanted), 0, |message| {
            if let RouteNetlinkMessage::NewRoute(route) = message {
                found = Some(route);
            }
        })
        .map_err(|error| error.to_string())?;
        let route = found.ok_or("the kernel does not answer")?;
        let is_local = route.header.kind == RouteType::Local;
        if route.header.kind != RouteType::Unicast && !is_local {
            return Err(format!("its route is of the type {:?}", route.header.kind));
        }
        let index = interface_of(&route).ok_or("its route leads nowhere")?;
        let link = links.iter().find(|link| link.index == index);
        Ok(Route {
            interface: link.map_or_else(|| format!("number {index}"), |link| link.name.clone()),
            source: source_of(&route),
            is_local,
            mtu: mtu_of(&route),
        })
    }

    /// Makes an xfrm interface, in a namespace that nobody else sees.
    pub(super) fn add_xfrm_interface(&mut self) -> io::Result<()> {
        /// The loopback interface, which it is put on.
        const LOOPBACK: u32 = 1;
        let mut link = LinkMessage::default();
        link.attributes = vec![
            LinkAttribute::IfName("doctor".to_owned()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Xfrm),
                LinkInfo::Data(InfoData::Xfrm(vec![
                    InfoXfrm::Link(LOOPBACK),
                    InfoXfrm::IfId(1),
                ])),
            ]),
        ];
        let flags = NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK;
        self.ask(RouteNetlinkMessage::NewLink(link), flags, |_| {})
    }
}

/// The first address of a network that a host could have.
pub(super) fn host_in(network: IpNet) -> IpAddr {
    network.hosts().next().unwrap_or(network.addr())
}

fn read_link(link: &LinkMessage) -> Option<Link> {
    let mut name = None;
    let mut mtu = 0;
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Mtu(octets) => mtu = *octets,
            _ => {}
        }
    }
    Some(Link {
        index: link.header.index,
        name: name?,
        mtu,
    })
}

fn read_address(address: &AddressMessage) -> Option<IpAddr> {
    let mut found = None;
    for attribute in &address.attributes {
        match attribute {
            // On a link with a peer this is the own address, and the other attribute the peer's.
            AddressAttribute::Local(local) => return Some(*local),
            AddressAttribute::Address(address) => found = Some(*address),
            _ => {}
        }
    }
    found
}

fn interface_of(route: &RouteMessage) -> Option<u32> {
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            RouteAttribute::MultiPath(hops) => hops.first().map(|hop| hop.interface_index),
            _ => None,
        })
}

fn source_of(route: &RouteMessage) -> Option<IpAddr> {
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::PrefSource(RouteAddress::Inet(address)) => Some((*address).into()),
            RouteAttribute::PrefSource(RouteAddress::Inet6(address)) => Some((*address).into()),
            _ => None,
        })
}

fn mtu_of(route: &RouteMessage) -> Option<u32> {
    let metrics = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Metrics(metrics) => Some(metrics),
            _ => None,
        })?;
    metrics.iter().find_map(|metric| match metric {
        RouteMetric::Mtu(octets) if *octets > 0 => Some(*octets),
        _ => None,
    })
}
