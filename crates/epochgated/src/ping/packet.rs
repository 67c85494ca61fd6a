//! Octets of control pings: ICMP (RFC 792) and ICMPv6 (RFC 4443 §4) echo messages, and the filter
//! that lets only replies to ours into the receiving sockets.

use epochgate_controller::io::{PING_MAGIC, PingNonce};
use socket2::SockFilter;

/// Octets of an echo message before its data: type, code, checksum, identifier, sequence.
const HEADER_OCTETS: usize = 8;
/// Octets of an echo message with magic and nonce.
pub(super) const ECHO_OCTETS: usize = HEADER_OCTETS + PING_MAGIC.len() + 8;

/// ICMP Echo (RFC 792).
const ICMP_ECHO_REQUEST: u8 = 8;
/// ICMP Echo Reply (RFC 792).
const ICMP_ECHO_REPLY: u8 = 0;
/// ICMPv6 Echo Request (RFC 4443 §4.1).
const ICMPV6_ECHO_REQUEST: u8 = 128;
/// ICMPv6 Echo Reply (RFC 4443 §4.2).
const ICMPV6_ECHO_REPLY: u8 = 129;

/// The echo request for a nonce. ICMPv6's checksum covers addresses and is left to the kernel,
/// which always fills it in on a raw ICMPv6 socket (RFC 3542 §3.1).
pub(super) fn request(nonce: PingNonce, ipv6: bool) -> [u8; ECHO_OCTETS] {
    let mut octets = [0; ECHO_OCTETS];
    let nonce = nonce.0.to_be_bytes();
    octets[0] = if ipv6 {
        ICMPV6_ECHO_REQUEST
    } else {
        ICMP_ECHO_REQUEST
    };
    // Identifier and sequence number: something of the nonce, so that stateful firewalls on the way
    // see each ping as a flow of its own.
    octets[4..8].copy_from_slice(&nonce[4..]);
    octets[8..16].copy_from_slice(&PING_MAGIC);
    octets[16..].copy_from_slice(&nonce);
    if !ipv6 {
        let checksum = checksum(&octets);
        octets[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    octets
}

/// The nonce of a reply as a raw socket delivers it: IPv4 with its IP header, IPv6 without.
pub(super) fn reply_nonce(octets: &[u8], ipv6: bool) -> Option<PingNonce> {
    let (echo, kind) = if ipv6 {
        (octets, ICMPV6_ECHO_REPLY)
    } else {
        // The header's length in units of four octets (RFC 791 §3.1).
        let header = usize::from(octets.first()? & 0x0f) * 4;
        (octets.get(header..)?, ICMP_ECHO_REPLY)
    };
    let echo: &[u8; ECHO_OCTETS] = echo.get(..ECHO_OCTETS)?.try_into().ok()?;
    let (magic, nonce) = echo[HEADER_OCTETS..].split_first_chunk::<8>()?;
    if echo[0] != kind || echo[1] != 0 || *magic != PING_MAGIC {
        return None;
    }
    Some(PingNonce(u64::from_be_bytes(nonce.try_into().ok()?)))
}

/// The Internet checksum (RFC 1071) of an even number of octets.
fn checksum(octets: &[u8]) -> u16 {
    let mut sum: u32 = octets
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

// Classic BPF (Documentation/networking/filter.rst): one class, size and mode per instruction.
const LOAD_WORD_AT_X: u16 = 0x40; // BPF_LD | BPF_W | BPF_IND
const LOAD_BYTE_AT_X: u16 = 0x50; // BPF_LD | BPF_B | BPF_IND
const LOAD_X_HEADER_LENGTH: u16 = 0xb1; // BPF_LDX | BPF_B | BPF_MSH
const LOAD_X_CONSTANT: u16 = 0x01; // BPF_LDX | BPF_W | BPF_IMM
const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// Passes echo replies that carry our magic, so that other pings on this host do not wake us.
pub(super) fn reply_filter(ipv6: bool) -> [SockFilter; 9] {
    let (first, kind) = if ipv6 {
        (LOAD_X_CONSTANT, ICMPV6_ECHO_REPLY)
    } else {
        // X := 4 * (octet 0 & 0xf), the IPv4 header's length.
        (LOAD_X_HEADER_LENGTH, ICMP_ECHO_REPLY)
    };
    let [m0, m1, m2, m3, m4, m5, m6, m7] = PING_MAGIC;
    let magic = [
        u32::from_be_bytes([m0, m1, m2, m3]),
        u32::from_be_bytes([m4, m5, m6, m7]),
    ];
    [
        SockFilter::new(first, 0, 0, 0),
        SockFilter::new(LOAD_BYTE_AT_X, 0, 0, 0),
        SockFilter::new(JUMP_IF_EQUAL, 0, 5, u32::from(kind)),
        SockFilter::new(LOAD_WORD_AT_X, 0, 0, 8),
        SockFilter::new(JUMP_IF_EQUAL, 0, 3, magic[0]),
        SockFilter::new(LOAD_WORD_AT_X, 0, 0, 12),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, magic[1]),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: PingNonce = PingNonce(0x0102_0304_0506_0708);

    fn reply_to(request: &[u8], ipv6: bool) -> Vec<u8> {
        let mut octets = request.to_vec();
        octets[0] = if ipv6 { 129 } else { 0 };
        if !ipv6 {
            let mut packet = vec![0; 24];
            packet[0] = 0x46; // one word of options
            packet.extend(octets);
            return packet;
        }
        octets
    }

    #[test]
    fn the_nonce_comes_back_in_the_reply() {
        for ipv6 in [false, true] {
            let reply = reply_to(&request(NONCE, ipv6), ipv6);
            assert_eq!(reply_nonce(&reply, ipv6), Some(NONCE));
        }
    }

    #[test]
    fn an_ipv4_request_carries_a_checksum_that_adds_up() {
        let octets = request(NONCE, false);
        assert_eq!(checksum(&octets), 0);
        assert_ne!(octets[2..4], [0, 0]);
    }

    #[test]
    fn the_checksum_is_that_of_rfc_1071() {
        // RFC 1071 §3's example: the sum is ddf2.
        let octets = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(&octets), !0xddf2);
    }

    #[test]
    fn requests_and_other_peoples_replies_are_none_of_ours() {
        let mut foreign = reply_to(&request(NONCE, true), true);
        foreign[8] ^= 1;
        assert_eq!(reply_nonce(&foreign, true), None);
        assert_eq!(reply_nonce(&request(NONCE, true), true), None);
    }

    #[test]
    fn a_cut_reply_is_none() {
        for ipv6 in [false, true] {
            let reply = reply_to(&request(NONCE, ipv6), ipv6);
            for length in 0..reply.len() {
                assert_eq!(reply_nonce(&reply[..length], ipv6), None);
            }
        }
    }
}
