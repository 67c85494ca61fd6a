//! What holds for every NAT whatever is sent through it: properties over random packets, times,
//! crashes and reboots.

use epochgate_nat::{
    Conntrack, ConntrackSettings, Filtering, IkeSpis, Mapping, Masquerade, MasqueradeSettings, Nat,
    Packet, Payload, PortAssignment, Side, UdpNat, UdpSettings,
};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

const PUBLIC: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1));

fn client(number: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, number])
}

fn server(number: u8) -> IpAddr {
    IpAddr::from([203, 0, 113, number])
}

/// Something that happens to a NAT. Few clients, servers, SPIs and ports, so that they meet.
#[derive(Debug, Clone)]
enum Event {
    Packet {
        from: Side,
        client: u8,
        server: u8,
        payload: Payload,
    },
    Wait(Duration),
    Forget,
}

fn payloads() -> impl Strategy<Value = Payload> {
    let port = prop_oneof![Just(500_u16), Just(4500), 1024..1028_u16];
    let spis = (0..4_u64).prop_map(|initiator| IkeSpis {
        initiator,
        responder: 0,
    });
    prop_oneof![
        (0..6_u32).prop_map(|spi| Payload::Esp { spi }),
        (port.clone(), port, proptest::option::of(spis)).prop_map(|(source, destination, ike)| {
            Payload::Udp {
                source_port: source,
                destination_port: destination,
                ike,
            }
        }),
    ]
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let side = prop_oneof![Just(Side::Inside), Just(Side::Outside)];
    let packet =
        (side, 1..4_u8, 1..3_u8, payloads()).prop_map(|(from, client, server, payload)| {
            Event::Packet {
                from,
                client,
                server,
                payload,
            }
        });
    let event = prop_oneof![
        20 => packet,
        3 => (0..8_000_u64).prop_map(|time| Event::Wait(Duration::from_millis(time))),
        1 => (60..2_000_u64).prop_map(|time| Event::Wait(Duration::from_secs(time))),
        1 => Just(Event::Forget),
    ];
    proptest::collection::vec(event, 0..200)
}

fn udp_settings() -> impl Strategy<Value = UdpSettings> {
    let mapping = prop_oneof![
        Just(Mapping::EndpointIndependent),
        Just(Mapping::AddressDependent),
        Just(Mapping::AddressAndPortDependent),
    ];
    let filtering = prop_oneof![
        Just(Filtering::EndpointIndependent),
        Just(Filtering::AddressDependent),
        Just(Filtering::AddressAndPortDependent),
    ];
    let ports = prop_oneof![
        Just(PortAssignment::Preserve),
        Just(PortAssignment::PreservePerRemote),
        Just(PortAssignment::Overload),
        Just(PortAssignment::Change),
    ];
    (mapping, filtering, ports, any::<bool>()).prop_map(
        |(mapping, filtering, ports, inbound_refreshes)| UdpSettings {
            mapping,
            filtering,
            ports,
            expiry: Duration::from_secs(120),
            inbound_refreshes,
        },
    )
}

fn nats() -> impl Strategy<Value = Box<dyn Nat>> {
    prop_oneof![
        (any::<bool>(), udp_settings()).prop_map(|(guessing, udp)| {
            let settings = MasqueradeSettings {
                guessing,
                udp,
                ..MasqueradeSettings::default()
            };
            Box::new(Masquerade::new(PUBLIC, settings)) as Box<dyn Nat>
        }),
        Just(()).prop_map(|()| {
            let settings = ConntrackSettings::default();
            Box::new(Conntrack::new(PUBLIC, settings)) as Box<dyn Nat>
        }),
        udp_settings().prop_map(|settings| Box::new(UdpNat::new(PUBLIC, settings)) as Box<dyn Nat>),
    ]
}

/// Only what a NAT may change differs.
fn check_rewriting(from: Side, before: Packet, after: Packet) -> Result<(), TestCaseError> {
    let (kept, shown) = match from {
        Side::Inside => (after.destination == before.destination, after.source),
        Side::Outside => (after.source == before.source, before.destination),
    };
    prop_assert!(kept, "the other end's address");
    prop_assert_eq!(shown, PUBLIC);
    match (before.payload, after.payload) {
        (Payload::Esp { spi }, Payload::Esp { spi: other }) => prop_assert_eq!(spi, other),
        (
            Payload::Udp {
                source_port,
                destination_port,
                ike,
            },
            Payload::Udp {
                source_port: source,
                destination_port: destination,
                ike: other,
            },
        ) => {
            prop_assert_eq!(ike, other);
            match from {
                Side::Inside => prop_assert_eq!(destination_port, destination),
                Side::Outside => prop_assert_eq!(source_port, source),
            }
        }
        (Payload::Esp { .. } | Payload::Udp { .. }, _) => prop_assert!(false, "another protocol"),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_nat_changes_only_addresses_and_ports_and_knows_only_who_has_sent(
        mut nat in nats(),
        events in events(),
    ) {
        let mut now = Duration::ZERO;
        let mut known = BTreeSet::new();
        let mut offered = 0;
        for event in events {
            let (from, packet) = match event {
                Event::Wait(time) => {
                    now += time;
                    continue;
                }
                Event::Forget => {
                    nat.forget();
                    known.clear();
                    continue;
                }
                Event::Packet { from, client: number, server: other, payload } => {
                    let (source, destination) = match from {
                        Side::Inside => (client(number), server(other)),
                        Side::Outside => (server(other), PUBLIC),
                    };
                    (from, Packet { source, destination, payload })
                }
            };
            offered += 1;
            let Ok(new) = nat.translate(now, from, packet) else { continue };
            check_rewriting(from, packet, new)?;
            match from {
                Side::Inside => {
                    known.insert((packet.source, packet.destination));
                }
                Side::Outside => {
                    let sent = |server: IpAddr| known.contains(&(new.destination, server));
                    let anyone = known.iter().any(|(client, _)| *client == new.destination);
                    let to_it = sent(packet.source);
                    let unfiltered = matches!(packet.payload, Payload::Udp { .. });
                    prop_assert!(to_it || unfiltered && anyone, "{new:?}");
                }
            }
        }
        let counters = nat.counters();
        prop_assert_eq!(
            offered,
            counters.outbound + counters.inbound + counters.dropped_total(),
            "every packet is counted once"
        );
    }
}
