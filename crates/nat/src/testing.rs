//! Addresses and packets for this crate's tests.

use crate::{IkeSpis, Packet, Payload};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

pub(crate) const PUBLIC: IpAddr = v4(198, 51, 100, 1);
pub(crate) const CLIENTS: [IpAddr; 3] = [v4(192, 0, 2, 2), v4(192, 0, 2, 3), v4(192, 0, 2, 4)];
pub(crate) const SERVERS: [IpAddr; 2] = [v4(203, 0, 113, 1), v4(203, 0, 113, 2)];

pub(crate) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn esp(source: IpAddr, destination: IpAddr, spi: u32) -> Packet {
    Packet {
        source,
        destination,
        payload: Payload::Esp { spi },
    }
}

pub(crate) fn udp(source: (IpAddr, u16), destination: (IpAddr, u16)) -> Packet {
    Packet {
        source: source.0,
        destination: destination.0,
        payload: Payload::Udp {
            source_port: source.1,
            destination_port: destination.1,
            ike: None,
        },
    }
}

pub(crate) fn ike(source: IpAddr, destination: IpAddr, initiator: u64) -> Packet {
    let ike = IkeSpis {
        initiator,
        responder: 0,
    };
    Packet {
        source,
        destination,
        payload: Payload::Udp {
            source_port: 500,
            destination_port: 500,
            ike: Some(ike),
        },
    }
}

/// The source port of a UDP packet.
pub(crate) fn source_port(packet: Packet) -> u16 {
    match packet.payload {
        Payload::Udp { source_port, .. } => source_port,
        Payload::Esp { .. } => panic!("{packet:?} has no ports"),
    }
}
