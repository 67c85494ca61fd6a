//! What a NAT can read of a packet: the outer addresses, ports, and the SPIs that are in clear.

use std::net::IpAddr;

/// The side on which a packet arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Where the clients are.
    Inside,
    /// Where the servers are.
    Outside,
}

/// The headers of one packet. What it carries is the mover's, and not changed by a NAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Packet {
    /// Source address of the outer header.
    pub source: IpAddr,
    /// Destination address of the outer header.
    pub destination: IpAddr,
    /// What follows the outer header.
    pub payload: Payload,
}

/// The header after the outer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Payload {
    /// UDP, whatever it carries.
    Udp {
        /// Source port.
        source_port: u16,
        /// Destination port.
        destination_port: u16,
        /// SPIs of the IKE header, if this is IKE (on port 4500 after the non-ESP marker).
        ike: Option<IkeSpis>,
    },
    /// ESP by itself, not in UDP (RFC 4303).
    Esp {
        /// The SPI, chosen by the receiver.
        spi: u32,
    },
}

/// The first two fields of an IKE header (RFC 7296 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IkeSpis {
    /// Chosen by the IKE SA's original initiator, not by the sender of this message.
    pub initiator: u64,
    /// Chosen by its original responder; 0 in the first message.
    pub responder: u64,
}

impl IkeSpis {
    /// The SPIs of a UDP payload: on port 4500 after the non-ESP marker (RFC 3948 §2.2), elsewhere
    /// at its beginning. `None` if it is too short for an IKE header, or ESP in UDP.
    pub fn read(payload: &[u8], nat_t: bool) -> Option<Self> {
        /// An IKE header's length in octets.
        const HEADER: usize = 28;
        let header = if nat_t {
            payload.strip_prefix(&[0; 4])?
        } else {
            payload
        };
        if header.len() < HEADER {
            return None;
        }
        let (initiator, rest) = header.split_first_chunk()?;
        let responder = rest.first_chunk()?;
        Some(Self {
            initiator: u64::from_be_bytes(*initiator),
            responder: u64::from_be_bytes(*responder),
        })
    }
}

impl Packet {
    pub(crate) fn with_source(self, source: IpAddr) -> Self {
        Self { source, ..self }
    }

    pub(crate) fn with_destination(self, destination: IpAddr) -> Self {
        Self {
            destination,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ike_spis_are_read_at_the_beginning_on_500_and_after_the_marker_on_4500() {
        let mut message = [0; 28];
        message[..8].copy_from_slice(&7_u64.to_be_bytes());
        message[8..16].copy_from_slice(&9_u64.to_be_bytes());
        let spis = IkeSpis {
            initiator: 7,
            responder: 9,
        };
        assert_eq!(IkeSpis::read(&message, false), Some(spis));
        let marked = [&[0; 4], &message[..]].concat();
        assert_eq!(IkeSpis::read(&marked, true), Some(spis));
    }

    #[test]
    fn esp_in_udp_keepalives_and_short_datagrams_have_no_ike_spis() {
        assert_eq!(IkeSpis::read(&[1; 40], true), None);
        assert_eq!(IkeSpis::read(&[0xff], true), None);
        assert_eq!(IkeSpis::read(&[1; 27], false), None);
        assert_eq!(IkeSpis::read(&[], false), None);
    }
}
