//! Puts IPv4 fragments together: only the first has the ports or the SPI that a NAT goes by.
//!
//! The kernel cannot do it for us. Where it does (connection tracking), it remembers the size of
//! the fragments and cuts the packet again on the way to the program (`frag_max_size`).

use etherparse::defrag::IpDefragBuf;
use etherparse::{IpFragOffset, Ipv4Header};
use std::borrow::Cow;
use std::time::{Duration, Instant};

/// How many packets may be incomplete at once; the oldest is given up for another.
const MAX_INCOMPLETE: usize = 64;
/// How long one may stay so (`net.ipv4.ipfrag_time`).
const INCOMPLETE: Duration = Duration::from_secs(30);

/// Source, destination, identification, protocol (RFC 791 §3.2).
type Id = ([u8; 4], [u8; 4], u16, u8);

/// Packets of which some fragments have come, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Fragments(Vec<(Id, Instant, IpDefragBuf)>);

impl Fragments {
    /// The packet itself if it is whole, else what it completes, if it does. What is malformed is
    /// passed on for others to judge.
    pub(super) fn complete<'a>(&mut self, now: Instant, bytes: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        let Ok((ip, rest)) = Ipv4Header::from_slice(bytes) else {
            return Some(Cow::Borrowed(bytes));
        };
        let length = usize::from(ip.total_len).checked_sub(ip.header_len());
        let payload = length.and_then(|length| rest.get(..length));
        let Some(payload) = payload.filter(|_| ip.is_fragmenting_payload()) else {
            return Some(Cow::Borrowed(bytes));
        };
        self.add(now, ip, payload).map(Cow::Owned)
    }

    fn add(&mut self, now: Instant, ip: Ipv4Header, payload: &[u8]) -> Option<Vec<u8>> {
        self.0
            .retain(|(_, began, _)| now.duration_since(*began) < INCOMPLETE);
        let id = (ip.source, ip.destination, ip.identification, ip.protocol.0);
        let place = self.0.iter().position(|(known, ..)| *known == id);
        let place = place.unwrap_or_else(|| {
            if self.0.len() >= MAX_INCOMPLETE {
                self.0.remove(0);
            }
            let buffer = IpDefragBuf::new(ip.protocol, Vec::new(), Vec::new());
            self.0.push((id, now, buffer));
            self.0.len() - 1
        });
        let (_, _, buffer) = &mut self.0[place];
        if buffer
            .add(ip.fragment_offset, ip.more_fragments, payload)
            .is_err()
        {
            // Contradictory fragments are nobody's packet (RFC 5722 says so for IPv6).
            self.0.remove(place);
            return None;
        }
        if !buffer.is_complete() {
            return None;
        }
        let (_, _, buffer) = self.0.remove(place);
        let (payload, _) = buffer.take_bufs();
        whole(ip, &payload)
    }
}

/// The packet that its fragments were made of. It may be cut again.
fn whole(mut ip: Ipv4Header, payload: &[u8]) -> Option<Vec<u8>> {
    ip.more_fragments = false;
    ip.dont_fragment = false;
    ip.fragment_offset = IpFragOffset::ZERO;
    ip.set_payload_len(payload.len()).ok()?;
    ip.header_checksum = ip.calc_header_checksum();
    Some([&ip.to_bytes(), payload].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;

    fn packet(length: u8) -> Vec<u8> {
        let payload: Vec<u8> = (0..length).collect();
        let mut bytes = Vec::new();
        let builder = PacketBuilder::ipv4([192, 0, 2, 2], [203, 0, 113, 1], 63).udp(500, 500);
        builder.write(&mut bytes, &payload).unwrap();
        // PacketBuilder forbids fragments; whoever cuts it has allowed them.
        bytes[6] = 0;
        let (ip, _) = Ipv4Header::from_slice(&bytes).unwrap();
        bytes[10..12].copy_from_slice(&ip.calc_header_checksum().to_be_bytes());
        bytes
    }

    /// Fragments of 16 octets.
    fn cut(bytes: &[u8], identification: u16) -> Vec<Vec<u8>> {
        let (ip, payload) = Ipv4Header::from_slice(bytes).unwrap();
        let chunks = payload.chunks(16).enumerate();
        let last = payload.chunks(16).count() - 1;
        let fragments = chunks.map(|(number, chunk)| {
            let mut ip = ip.clone();
            ip.identification = identification;
            ip.more_fragments = number != last;
            ip.fragment_offset = IpFragOffset::try_new(number as u16 * 2).unwrap();
            ip.set_payload_len(chunk.len()).unwrap();
            [&ip.to_bytes(), chunk].concat()
        });
        fragments.collect()
    }

    #[test]
    fn what_is_whole_or_no_packet_at_all_is_passed_on() {
        let mut fragments = Fragments::default();
        for bytes in [packet(40), vec![1, 2, 3]] {
            let passed = fragments.complete(Instant::now(), &bytes);
            assert_eq!(passed.as_deref(), Some(&bytes[..]));
        }
    }

    #[test]
    fn fragments_make_their_packet_in_any_order_also_among_others() {
        let (now, bytes) = (Instant::now(), packet(100));
        let mut fragments = Fragments::default();
        let (one, other) = (cut(&bytes, 1), cut(&bytes, 2));
        let mixed = one.iter().rev().zip(&other);
        let made: Vec<Vec<u8>> = mixed
            .flat_map(|(one, other)| [one, other])
            .filter_map(|fragment| fragments.complete(now, fragment))
            .map(Cow::into_owned)
            .collect();
        assert_eq!(made.len(), 2);
        for packet in made {
            assert_eq!(packet[20..], bytes[20..], "the payload");
            assert!(fragments.0.is_empty());
        }
    }

    #[test]
    fn incomplete_packets_are_bounded_in_number_and_time() {
        let (now, bytes) = (Instant::now(), packet(100));
        let mut fragments = Fragments::default();
        for identification in 0..1000 {
            let first = &cut(&bytes, identification)[0];
            assert_eq!(fragments.complete(now, first), None);
        }
        assert_eq!(fragments.0.len(), MAX_INCOMPLETE);
        fragments.complete(now + INCOMPLETE, &cut(&bytes, 1000)[0]);
        assert_eq!(fragments.0.len(), 1);
    }
}
