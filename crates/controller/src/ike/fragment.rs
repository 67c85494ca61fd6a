//! IKE messages in fragments (RFC 7383), so that none of them depends on IP fragments, which NATs
//! and firewalls drop. What a session seals comes in as plaintext and leaves as datagrams; what
//! arrives is kept, each piece only after its own integrity check, until the message is whole.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use epochgate_ike_wire::{EncryptedFragment, NotifyType, Payload, PayloadType};

use crate::Timestamp;
use crate::config::TunnelConfig;

use super::nat_detection::NAT_T_PORT;
use super::payloads::{Payloads, notify};

/// Fragments that one message may have: 65,507 octets in the shortest datagrams that every IPv4
/// host takes (576 octets, RFC 791 §3.1) are 130.
const FRAGMENTS_MAX: u16 = 160;

/// Octets of plaintext that one reassembly keeps. A peer that has not proved its identity can make
/// us keep that much for each half-open IKE SA; chains of certificates take a quarter of it.
const OCTETS_MAX: usize = 32 * 1024;

/// How long a reassembly waits for the rest (RFC 7383 §2.6). A sender that retransmits sends all of
/// the message again, seconds apart.
const PATIENCE: Duration = Duration::from_secs(30);

/// Octets of an IPv4 header without options (RFC 791), an IPv6 header (RFC 8200), and UDP's.
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const UDP_HEADER: usize = 8;
/// Octets of the non-ESP marker on port 4500 (RFC 3948 §2.2).
const NON_ESP_MARKER: usize = 4;

/// What says that we take fragments, in IKE_SA_INIT (RFC 7383 §2.3).
pub(super) fn offer(config: &TunnelConfig) -> Option<Payload> {
    config
        .path
        .fragment_size
        .map(|_| notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED))
}

/// The longest IP datagram for fragments, if both ends take them (RFC 7383 §2.3).
pub(super) fn agreed(config: &TunnelConfig, payloads: &Payloads) -> Option<u16> {
    payloads.notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED)?;
    config.path.fragment_size
}

/// Octets of IKE message that a datagram of `size` octets from `local` carries.
pub(super) fn message_limit(size: u16, local: SocketAddr) -> usize {
    let header = match local {
        SocketAddr::V4(_) => IPV4_HEADER,
        SocketAddr::V6(_) => IPV6_HEADER,
    };
    let marker = if local.port() == NAT_T_PORT {
        NON_ESP_MARKER
    } else {
        0
    };
    usize::from(size).saturating_sub(header + UDP_HEADER + marker)
}

/// A protected message as it goes out: one datagram, or its fragments. Kept to be sent again.
#[derive(Clone, Debug)]
pub(super) struct Sealed {
    octets: Vec<u8>,
    /// Octets of each datagram but the last, which may be shorter.
    each: usize,
}

impl Sealed {
    /// One datagram.
    pub(super) fn whole(octets: Vec<u8>) -> Self {
        let each = octets.len().max(1);
        Self { octets, each }
    }

    /// Starts with the first fragment.
    pub(super) fn push(&mut self, datagram: &[u8]) {
        self.octets.extend_from_slice(datagram);
    }

    /// The datagrams in their order.
    pub(super) fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        self.octets.chunks(self.each)
    }
}

/// What became of a fragment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Collected {
    /// The message is whole: the type of its first payload, and its plaintext.
    Whole(PayloadType, Vec<u8>),
    /// Others are missing.
    Waiting,
    /// It fits nothing, or it is there already.
    Refused,
}

/// A message of the peer that is not whole yet. One for its requests and one for its responses.
#[derive(Debug)]
pub(super) struct Reassembly {
    message_id: u32,
    first_inner: PayloadType,
    total: u16,
    fragments: BTreeMap<u16, Vec<u8>>,
    octets: usize,
    since: Timestamp,
}

impl Reassembly {
    fn new(message_id: u32, total: u16, now: Timestamp) -> Self {
        Self {
            message_id,
            first_inner: PayloadType::NONE,
            total,
            fragments: BTreeMap::new(),
            octets: 0,
            since: now,
        }
    }

    /// Whether it is about another message, or was begun too long ago.
    fn is_stale(&self, message_id: u32, now: Timestamp) -> bool {
        self.message_id != message_id || now.since(self.since) >= PATIENCE
    }

    /// Whether a fragment can be of use, before the work of its integrity check is done. It is not
    /// authentic yet, so nothing changes.
    pub(super) fn wants(
        slot: Option<&Self>,
        message_id: u32,
        fragment: &EncryptedFragment,
        now: Timestamp,
    ) -> bool {
        if fragment.total > FRAGMENTS_MAX || fragment.body.len() > OCTETS_MAX {
            return false;
        }
        match slot {
            Some(it) if !it.is_stale(message_id, now) => {
                fragment.total > it.total
                    || (fragment.total == it.total && !it.fragments.contains_key(&fragment.number))
            }
            Some(_) | None => true,
        }
    }

    /// Keeps the plaintext of an authentic fragment (RFC 7383 §2.6). A peer that fragments anew,
    /// into more pieces because the former ones did not get through (§2.5.2), makes the former ones
    /// void; fewer pieces than before are an old message that came late.
    pub(super) fn collect(
        slot: &mut Option<Box<Self>>,
        message_id: u32,
        fragment: &EncryptedFragment,
        text: Vec<u8>,
        now: Timestamp,
    ) -> Collected {
        if !Self::wants(slot.as_deref(), message_id, fragment, now) {
            return Collected::Refused;
        }
        let anew = slot
            .as_ref()
            .is_none_or(|it| it.is_stale(message_id, now) || it.total < fragment.total);
        if anew {
            *slot = None;
        }
        let it = slot.get_or_insert_with(|| Box::new(Self::new(message_id, fragment.total, now)));
        if it.octets + text.len() > OCTETS_MAX {
            *slot = None;
            return Collected::Refused;
        }
        if fragment.number == 1 {
            it.first_inner = fragment.first_inner;
        }
        it.octets += text.len();
        it.fragments.insert(fragment.number, text);
        if it.fragments.len() < usize::from(it.total) {
            return Collected::Waiting;
        }
        let first = it.first_inner;
        let whole = it.fragments.values().flatten().copied().collect();
        *slot = None;
        Collected::Whole(first, whole)
    }

    /// When it is given up.
    pub(super) fn due(&self) -> Timestamp {
        self.since + PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(number: u16, total: u16) -> EncryptedFragment {
        EncryptedFragment {
            first_inner: if number == 1 {
                PayloadType::NOTIFY
            } else {
                PayloadType::NONE
            },
            number,
            total,
            body: vec![0; 64],
        }
    }

    fn put(slot: &mut Option<Box<Reassembly>>, number: u16, total: u16, text: &[u8]) -> Collected {
        let fragment = fragment(number, total);
        Reassembly::collect(slot, 1, &fragment, text.to_vec(), Timestamp::ZERO)
    }

    #[test]
    fn fragments_in_any_order_make_the_message() {
        let mut slot = None;
        assert_eq!(put(&mut slot, 3, 3, b"c"), Collected::Waiting);
        assert_eq!(put(&mut slot, 1, 3, b"a"), Collected::Waiting);
        assert_eq!(
            put(&mut slot, 2, 3, b"b"),
            Collected::Whole(PayloadType::NOTIFY, b"abc".to_vec())
        );
        assert!(slot.is_none(), "nothing is kept of a message that is whole");
    }

    #[test]
    fn a_duplicate_changes_nothing() {
        let mut slot = None;
        assert_eq!(put(&mut slot, 1, 2, b"a"), Collected::Waiting);
        assert_eq!(put(&mut slot, 1, 2, b"x"), Collected::Refused);
        assert_eq!(
            put(&mut slot, 2, 2, b"b"),
            Collected::Whole(PayloadType::NOTIFY, b"ab".to_vec())
        );
    }

    #[test]
    fn more_fragments_than_before_begin_anew_and_fewer_are_old() {
        let mut slot = None;
        assert_eq!(put(&mut slot, 1, 2, b"long"), Collected::Waiting);
        assert_eq!(put(&mut slot, 2, 3, b"b"), Collected::Waiting);
        assert_eq!(put(&mut slot, 2, 2, b"er"), Collected::Refused);
        assert_eq!(put(&mut slot, 1, 3, b"a"), Collected::Waiting);
        assert_eq!(
            put(&mut slot, 3, 3, b"c"),
            Collected::Whole(PayloadType::NOTIFY, b"abc".to_vec())
        );
    }

    #[test]
    fn a_peer_cannot_announce_or_fill_more_than_the_limits() {
        let mut slot = None;
        assert_eq!(put(&mut slot, 1, u16::MAX, b"a"), Collected::Refused);
        assert!(slot.is_none());
        let big = vec![0; OCTETS_MAX / 2];
        assert_eq!(put(&mut slot, 1, 4, &big), Collected::Waiting);
        assert_eq!(put(&mut slot, 2, 4, &big), Collected::Waiting);
        assert_eq!(put(&mut slot, 3, 4, b"one more"), Collected::Refused);
        assert!(slot.is_none(), "what cannot become whole is not kept");
    }

    #[test]
    fn what_is_not_whole_in_time_is_void() {
        let mut slot = None;
        assert_eq!(put(&mut slot, 1, 2, b"old"), Collected::Waiting);
        let later = Timestamp::ZERO + PATIENCE;
        let outcome = Reassembly::collect(&mut slot, 1, &fragment(2, 2), b"new".to_vec(), later);
        assert_eq!(outcome, Collected::Waiting);
    }

    #[test]
    fn a_message_leaves_room_for_the_headers_of_its_family() {
        let v4: SocketAddr = ([192, 0, 2, 1], 500).into();
        let v6: SocketAddr = (std::net::Ipv6Addr::LOCALHOST, 4500).into();
        assert_eq!(message_limit(1280, v4), 1252);
        assert_eq!(message_limit(1280, v6), 1228);
    }
}
