//! Real IPv4 packets as [`epochgate_nat`] sees them, and its rewriting done to their octets.

use epochgate_nat::{IkeSpis, Packet, Payload};
use etherparse::{IpNumber, Ipv4Header, UdpHeader};
use std::net::{IpAddr, Ipv4Addr};

/// IKE and ESP in UDP (RFC 3948).
const NAT_T_PORT: u16 = 4500;

/// Why a packet cannot be translated at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// No complete IPv4 packet with ESP or UDP in it.
    Malformed,
    /// A fragment, of a packet that was not put together.
    Fragment,
}

/// What a NAT can read of an IPv4 packet.
pub(super) fn read(bytes: &[u8]) -> Result<Packet, Unreadable> {
    let (ip, payload) = header(bytes)?;
    let payload = match ip.protocol {
        IpNumber::UDP => {
            let (udp, payload) =
                UdpHeader::from_slice(payload).map_err(|_| Unreadable::Malformed)?;
            let (source_port, destination_port) = (udp.source_port, udp.destination_port);
            let nat_t = source_port == NAT_T_PORT || destination_port == NAT_T_PORT;
            Payload::Udp {
                source_port,
                destination_port,
                ike: IkeSpis::read(payload, nat_t),
            }
        }
        IpNumber::ENCAPSULATING_SECURITY_PAYLOAD => {
            let spi = payload.first_chunk().ok_or(Unreadable::Malformed)?;
            Payload::Esp {
                spi: u32::from_be_bytes(*spi),
            }
        }
        _ => return Err(Unreadable::Malformed),
    };
    Ok(Packet {
        source: IpAddr::V4(Ipv4Addr::from(ip.source)),
        destination: IpAddr::V4(Ipv4Addr::from(ip.destination)),
        payload,
    })
}

/// The same packet with addresses and ports as in `new`.
///
/// It has crossed the kernel's forwarding once on its way here and will do so again, so one hop is
/// given back: a NAT is one router. The UDP checksum is mended, not computed anew (RFC 3022 §4.1),
/// so that damage stays visible; no checksum (0) stays none.
pub(super) fn rewrite(bytes: &[u8], new: Packet) -> Result<Vec<u8>, Unreadable> {
    let (mut ip, _) = header(bytes)?;
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (new.source, new.destination) else {
        return Err(Unreadable::Malformed);
    };
    let before = [ip.source, ip.destination].concat();
    ip.source = source.octets();
    ip.destination = destination.octets();
    let after = [ip.source, ip.destination].concat();
    ip.time_to_live = ip.time_to_live.saturating_add(1);
    ip.header_checksum = ip.calc_header_checksum();
    let mut out = ip.to_bytes().to_vec();
    // What lies behind the IP packet's end is no part of it.
    let end = usize::from(ip.total_len);
    let payload = bytes.get(ip.header_len()..end);
    let payload = payload.ok_or(Unreadable::Malformed)?;
    match new.payload {
        Payload::Esp { .. } => out.extend_from_slice(payload),
        Payload::Udp {
            source_port,
            destination_port,
            ..
        } => {
            let (mut udp, rest) =
                UdpHeader::from_slice(payload).map_err(|_| Unreadable::Malformed)?;
            let ports = |udp: &UdpHeader| {
                [
                    udp.source_port.to_be_bytes(),
                    udp.destination_port.to_be_bytes(),
                ]
                .concat()
            };
            let before = [before, ports(&udp)].concat();
            udp.source_port = source_port;
            udp.destination_port = destination_port;
            let after = [after, ports(&udp)].concat();
            if udp.checksum != 0 {
                udp.checksum = mended(udp.checksum, &before, &after);
            }
            out.extend_from_slice(&udp.to_bytes());
            out.extend_from_slice(rest);
        }
    }
    Ok(out)
}

fn header(bytes: &[u8]) -> Result<(Ipv4Header, &[u8]), Unreadable> {
    let (ip, payload) = Ipv4Header::from_slice(bytes).map_err(|_| Unreadable::Malformed)?;
    if ip.is_fragmenting_payload() {
        return Err(Unreadable::Fragment);
    }
    let length = usize::from(ip.total_len).checked_sub(ip.header_len());
    let payload = length.and_then(|length| payload.get(..length));
    Ok((ip, payload.ok_or(Unreadable::Malformed)?))
}

/// A UDP checksum after these octets, an even number of them, became those (RFC 1624 §3).
fn mended(checksum: u16, before: &[u8], after: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> Vec<u32> {
        let pairs = bytes.chunks_exact(2);
        pairs
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
            .collect()
    };
    let removed = words(before).into_iter().map(|word| !word & 0xffff);
    let mut sum = u32::from(!checksum) + removed.sum::<u32>() + words(after).iter().sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    match !(sum as u16) {
        // 0 would say that there is none (RFC 768).
        0 => 0xffff,
        checksum => checksum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;

    const CLIENT: [u8; 4] = [192, 0, 2, 2];
    const SERVER: [u8; 4] = [203, 0, 113, 1];
    const PUBLIC: [u8; 4] = [203, 0, 113, 254];

    fn udp(source: ([u8; 4], u16), destination: ([u8; 4], u16), payload: &[u8]) -> Vec<u8> {
        let builder = PacketBuilder::ipv4(source.0, destination.0, 63).udp(source.1, destination.1);
        let mut bytes = Vec::new();
        builder.write(&mut bytes, payload).unwrap();
        bytes
    }

    fn shown_as(packet: Packet, port: u16) -> Packet {
        let Payload::Udp {
            destination_port,
            ike,
            ..
        } = packet.payload
        else {
            panic!("no UDP");
        };
        Packet {
            source: IpAddr::from(PUBLIC),
            payload: Payload::Udp {
                source_port: port,
                destination_port,
                ike,
            },
            ..packet
        }
    }

    #[test]
    fn a_rewritten_datagram_is_what_the_public_address_would_have_sent() {
        for length in 0..64 {
            let payload: Vec<u8> = (0..length).map(|octet| octet ^ 0xa5).collect();
            let bytes = udp((CLIENT, 4500), (SERVER, 4500), &payload);
            let packet = read(&bytes).unwrap();
            let rewritten = rewrite(&bytes, shown_as(packet, 1024)).unwrap();
            let mut expected = udp((PUBLIC, 1024), (SERVER, 4500), &payload);
            // One more hop to live, and its header's checksum.
            expected[8] += 1;
            let (ip, _) = Ipv4Header::from_slice(&expected).unwrap();
            expected[10..12].copy_from_slice(&ip.calc_header_checksum().to_be_bytes());
            assert_eq!(rewritten, expected);
        }
    }

    #[test]
    fn a_datagram_without_checksum_keeps_none_and_a_wrong_one_stays_wrong() {
        let mut bytes = udp((CLIENT, 500), (SERVER, 500), &[7; 40]);
        let checksum = |bytes: &[u8]| u16::from_be_bytes([bytes[26], bytes[27]]);
        let right = rewrite(&bytes, shown_as(read(&bytes).unwrap(), 500)).unwrap();
        bytes[27] ^= 1;
        let wrong = rewrite(&bytes, shown_as(read(&bytes).unwrap(), 500)).unwrap();
        assert_ne!(checksum(&wrong), checksum(&right));
        bytes[26..28].fill(0);
        let none = rewrite(&bytes, shown_as(read(&bytes).unwrap(), 500)).unwrap();
        assert_eq!(checksum(&none), 0);
    }

    #[test]
    fn an_esp_packet_is_read_by_its_spi_and_only_its_ip_header_changes() {
        let esp = IpNumber::ENCAPSULATING_SECURITY_PAYLOAD;
        let mut bytes = Vec::new();
        let builder = PacketBuilder::ipv4(CLIENT, SERVER, 63);
        let payload = [0, 0, 1, 2, 0, 0, 0, 1, 9, 9];
        builder.write(&mut bytes, esp, &payload).unwrap();
        let packet = read(&bytes).unwrap();
        assert_eq!(packet.payload, Payload::Esp { spi: 0x102 });
        let new = Packet {
            source: IpAddr::from(PUBLIC),
            ..packet
        };
        let rewritten = rewrite(&bytes, new).unwrap();
        let (ip, rest) = Ipv4Header::from_slice(&rewritten).unwrap();
        assert_eq!((ip.source, ip.destination), (PUBLIC, SERVER));
        assert_eq!(ip.header_checksum, ip.calc_header_checksum());
        assert_eq!(rest, payload);
    }

    #[test]
    fn fragments_other_protocols_and_cut_packets_are_not_read() {
        let whole = udp((CLIENT, 500), (SERVER, 500), &[7; 40]);
        let mut fragment = whole.clone();
        fragment[6] |= 0x20;
        assert_eq!(read(&fragment), Err(Unreadable::Fragment));
        let mut tcp = whole.clone();
        tcp[9] = 6;
        assert_eq!(read(&tcp), Err(Unreadable::Malformed));
        for length in 0..whole.len() {
            assert_eq!(read(&whole[..length]), Err(Unreadable::Malformed));
        }
    }
}
