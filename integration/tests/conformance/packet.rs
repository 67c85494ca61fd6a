//! Packets as scripts name them, and their octets: inner packets, and ESP made and opened with keys
//! that follow from the SPI.

use std::net::IpAddr;

use epochgate_controller::io::{PING_MAGIC, Spi};
use epochgate_simulator::conformance::place::{self, HOST, NAT_T_PORT, PEER, PEER_TOO, PORT};
use epochgate_simulator::conformance::{Content, Departure, Family, Incoming, Item};
use etherparse::{IcmpEchoHeader, Icmpv4Type, Icmpv6Type, IpNumber, PacketBuilder, SlicedPacket};
use etherparse::{NetSlice, TransportSlice};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use std::num::NonZeroU32;

/// Octets of an ESP packet's SPI, sequence number and IV (RFC 4303 §2, RFC 4106 §3).
const SPI_AND_SEQUENCE: usize = 8;
const IV: usize = 8;
/// Octets of the ICV.
const ICV: usize = 16;
const TTL: u8 = 64;
/// Next header values of what tunnel mode carries (RFC 4303 §2.6).
const IPV4: u8 = 4;
const IPV6: u8 = 41;

/// The UDP payload of a numbered packet.
pub(crate) fn payload(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

/// The number in a UDP payload.
pub(crate) fn number(payload: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(payload.try_into().ok()?))
}

/// An inner packet from the peer's network.
pub(crate) fn inner(content: &Content) -> Vec<u8> {
    match *content {
        Content::Data {
            number,
            family,
            forwarded,
        } => {
            let to = if forwarded {
                place::lan(family)
            } else {
                place::inner(family)
            };
            let builder = ip(place::remote(family), to).udp(PORT, PORT);
            let mut octets = Vec::new();
            builder
                .write(&mut octets, &payload(number))
                .expect("it fits");
            octets
        }
        Content::Echo { nonce, family } => {
            let echo = IcmpEchoHeader { id: 7, seq: 1 };
            let builder = ip(place::remote(family), place::inner(family));
            let data = [&PING_MAGIC[..], &u64::from(nonce).to_be_bytes()].concat();
            let mut octets = Vec::new();
            let written = match family {
                Family::V4 => builder
                    .icmpv4(Icmpv4Type::EchoRequest(echo))
                    .write(&mut octets, &data),
                Family::V6 => builder
                    .icmpv6(Icmpv6Type::EchoRequest(echo))
                    .write(&mut octets, &data),
            };
            written.expect("it fits");
            octets
        }
    }
}

fn ip(from: IpAddr, to: IpAddr) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), TTL),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), TTL),
        (from, to) => panic!("{from} and {to} are of different families"),
    }
}

/// ESP from the peer, with its outer IPv4 header.
pub(crate) fn esp(incoming: &Incoming) -> Vec<u8> {
    let spi = incoming.sa.spi;
    let mut text = inner(&incoming.content);
    let next = if text[0] >> 4 == 4 { IPV4 } else { IPV6 };
    // To a multiple of four octets with the two that follow (RFC 4303 §2.4).
    let padding = (4 - (text.len() + 2) % 4) % 4;
    text.extend((1..).take(padding));
    text.extend([padding as u8, next]);

    let header = [spi.0.get().to_be_bytes(), incoming.sequence.to_be_bytes()].concat();
    let iv = u64::from(incoming.sequence).to_be_bytes();
    let mut material = place::key(spi);
    if !incoming.genuine {
        material[0] ^= 1;
    }
    let (key, nonce) = key_and_nonce(&material, &iv);
    key.seal_in_place_append_tag(nonce, Aad::from(&header), &mut text)
        .expect("sealed");
    let esp = [&header[..], &iv, &text].concat();

    let (IpAddr::V4(from), IpAddr::V4(to)) = (PEER, HOST) else {
        panic!("the outer addresses are IPv4");
    };
    let builder = PacketBuilder::ipv4(from.octets(), to.octets(), TTL);
    let mut octets = Vec::new();
    match incoming.port {
        Some(port) => builder.udp(port, NAT_T_PORT).write(&mut octets, &esp),
        None => builder.write(&mut octets, IpNumber::ENCAPSULATING_SECURITY_PAYLOAD, &esp),
    }
    .expect("it fits");
    octets
}

fn key_and_nonce(material: &[u8; 20], iv: &[u8]) -> (LessSafeKey, Nonce) {
    let (key, salt) = material.split_at(16);
    let nonce = [salt, iv].concat().try_into().expect("12 octets");
    let key = UnboundKey::new(&AES_128_GCM, key).expect("16 octets");
    (LessSafeKey::new(key), Nonce::assume_unique_for_key(nonce))
}

/// What a frame is that came to the peer; `None`: nothing that scripts know.
pub(crate) fn departure(frame: &[u8]) -> Option<Departure> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let to = match packet.net.as_ref()? {
        NetSlice::Ipv4(ip) => IpAddr::V4(ip.header().destination_addr()),
        NetSlice::Ipv6(ip) => IpAddr::V6(ip.header().destination_addr()),
        NetSlice::Arp(_) => return None,
    };
    // A packet socket shows what the peer itself sends as well.
    let to_peer =
        [PEER, PEER_TOO].contains(&to) || [Family::V4, Family::V6].map(place::remote).contains(&to);
    if !to_peer {
        return None;
    }
    if let Some(item) = item(&packet) {
        return Some(Departure { esp: None, item });
    }
    let esp: &[u8] = match (&packet.transport, &packet.net) {
        (Some(TransportSlice::Udp(udp)), _) if udp.source_port() == NAT_T_PORT => udp.payload(),
        (None, Some(NetSlice::Ipv4(ip)))
            if ip.payload_ip_number() == IpNumber::ENCAPSULATING_SECURITY_PAYLOAD =>
        {
            ip.payload().payload
        }
        _ => return None,
    };
    opened(esp)
}

/// What an ESP packet carries.
fn opened(esp: &[u8]) -> Option<Departure> {
    let (header, rest) = esp.split_at_checked(SPI_AND_SEQUENCE)?;
    let (iv, text) = rest.split_at_checked(IV)?;
    let word = |octets: &[u8]| Some(u32::from_be_bytes(octets.try_into().ok()?));
    let (spi, sequence) = (word(&header[..4])?, word(&header[4..])?);
    let (key, nonce) = key_and_nonce(&place::key(Spi(NonZeroU32::new(spi)?)), iv);
    let mut text = text.to_vec();
    assert!(text.len() >= ICV, "{esp:?}");
    let plain = key
        .open_in_place(nonce, Aad::from(header), &mut text)
        .expect("it has the key of its SPI");
    let (plain, trailer) = plain.split_last_chunk::<2>()?;
    let plain = plain.get(..plain.len() - usize::from(trailer[0]))?;
    let packet = SlicedPacket::from_ip(plain).ok()?;
    Some(Departure {
        esp: Some((spi, sequence)),
        item: item(&packet)?,
    })
}

fn item(packet: &SlicedPacket<'_>) -> Option<Item> {
    let nonce = |data: &[u8]| {
        let nonce = data.strip_prefix(&PING_MAGIC)?.try_into().ok()?;
        u32::try_from(u64::from_be_bytes(nonce)).ok()
    };
    match packet.transport.as_ref()? {
        TransportSlice::Udp(udp) if udp.destination_port() == PORT => {
            number(udp.payload()).map(Item::Data)
        }
        TransportSlice::Icmpv4(icmp) => match icmp.icmp_type() {
            Icmpv4Type::EchoRequest(_) => nonce(icmp.payload()).map(Item::Request),
            Icmpv4Type::EchoReply(_) => nonce(icmp.payload()).map(Item::Reply),
            _ => None,
        },
        TransportSlice::Icmpv6(icmp) => match icmp.icmp_type() {
            Icmpv6Type::EchoRequest(_) => nonce(icmp.payload()).map(Item::Request),
            Icmpv6Type::EchoReply(_) => nonce(icmp.payload()).map(Item::Reply),
            _ => None,
        },
        TransportSlice::Udp(_) | TransportSlice::Tcp(_) | TransportSlice::Igmp(_) => None,
    }
}
