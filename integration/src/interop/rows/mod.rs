//! The rows of the table.

mod algorithms;
mod end;
mod first;
mod path;
mod rekey;

use super::{Algorithms, Proof, Row, Version};
use crate::audit;
use crate::capture::Packet;
use crate::esp::Trace;
use crate::pki::KeyKind;
use algorithms::{aes_cbc, chacha20, ml_kem, modp3072, p384, p521};
use end::{delete_by_peer, delete_by_us, peer_dies, we_die};
use first::{assigned, cookie, crossing, ed25519, establish, fragmentation, second_child};
use path::mobike;
use rekey::{child_rekey, ike_rekey, reauthenticate};
use std::collections::BTreeSet;

/// All rows, in the order of the table.
pub const ROWS: &[Row] = &[
    Row {
        name: "psk",
        title: "pre-shared key, plain ESP",
        play: |cell| establish(cell, |_| ()),
    },
    Row {
        name: "nat",
        title: "pre-shared key, behind NAT, ESP in UDP",
        play: |cell| establish(cell, |it| it.nat = true),
    },
    Row {
        name: "defaults",
        title: "with what the peer proposes and takes by default",
        play: |cell| establish(cell, |it| it.algorithms = Algorithms::Default),
    },
    Row {
        name: "aes-cbc",
        title: "AES-CBC with HMAC-SHA-256, group 14",
        play: aes_cbc,
    },
    Row {
        name: "chacha20",
        title: "ChaCha20-Poly1305, group 19",
        play: chacha20,
    },
    Row {
        name: "p384",
        title: "AES-128-GCM, group 20",
        play: p384,
    },
    Row {
        name: "p521",
        title: "AES-CBC with HMAC-SHA-512, group 21",
        play: p521,
    },
    Row {
        name: "modp3072",
        title: "AES-128-CBC with HMAC-SHA-256, group 15",
        play: modp3072,
    },
    Row {
        name: "ml-kem",
        title: "ML-KEM-768 beside another group (RFC 9370)",
        play: ml_kem,
    },
    Row {
        name: "rsa",
        title: "certificates, RSA",
        play: |cell| establish(cell, |it| it.proof = Proof::Certificates(KeyKind::Rsa)),
    },
    Row {
        name: "ecdsa",
        title: "certificates, ECDSA on P-256",
        play: |cell| establish(cell, |it| it.proof = Proof::Certificates(KeyKind::Ecdsa)),
    },
    Row {
        name: "ed25519",
        title: "certificates, Ed25519",
        play: ed25519,
    },
    Row {
        name: "ppk",
        title: "pre-shared key, and a post-quantum one that both demand (RFC 8784)",
        play: |cell| establish(cell, |it| it.ppk = true),
    },
    Row {
        name: "fragmentation",
        title: "IKE messages in fragments, both ways (RFC 7383)",
        play: fragmentation,
    },
    Row {
        name: "cookie",
        title: "the responder demands a cookie (RFC 7296 §2.6)",
        play: cookie,
    },
    Row {
        name: "crossing",
        title: "both ends begin at the same moment",
        play: crossing,
    },
    Row {
        name: "virtual-address",
        title: "the server assigns the client's inner address",
        play: assigned,
    },
    Row {
        name: "second-child",
        title: "two Child SAs over one IKE SA",
        play: second_child,
    },
    Row {
        name: "ipv6",
        title: "IPv6 outside and inside",
        play: |cell| establish(cell, |it| *it = it.clone().over(Version::V6, Version::V6)),
    },
    Row {
        name: "6in4",
        title: "IPv6 inside, IPv4 outside",
        play: |cell| establish(cell, |it| *it = it.clone().over(Version::V4, Version::V6)),
    },
    Row {
        name: "4in6",
        title: "IPv4 inside, IPv6 outside",
        play: |cell| establish(cell, |it| *it = it.clone().over(Version::V6, Version::V4)),
    },
    Row {
        name: "child-rekey-ours",
        title: "we rekey the Child SA under traffic",
        play: |cell| child_rekey(cell, false, true),
    },
    Row {
        name: "child-rekey-peers",
        title: "the peer rekeys the Child SA under traffic",
        play: |cell| child_rekey(cell, false, false),
    },
    Row {
        name: "child-rekey-ours-nat",
        title: "we rekey the Child SA under traffic, behind NAT",
        play: |cell| child_rekey(cell, true, true),
    },
    Row {
        name: "child-rekey-peers-nat",
        title: "the peer rekeys the Child SA under traffic, behind NAT",
        play: |cell| child_rekey(cell, true, false),
    },
    Row {
        name: "ike-rekey-peers",
        title: "the peer rekeys the IKE SA under traffic",
        play: |cell| ike_rekey(cell, false),
    },
    Row {
        name: "ike-rekey-ours",
        title: "we rekey the IKE SA under traffic",
        play: |cell| ike_rekey(cell, true),
    },
    Row {
        name: "reauthentication",
        title: "we authenticate anew, make before break, under traffic",
        play: reauthenticate,
    },
    Row {
        name: "mobike",
        title: "the client gets another address under traffic (MOBIKE)",
        play: mobike,
    },
    Row {
        name: "delete-ours",
        title: "we delete, the peer forgets, and it comes up again",
        play: delete_by_us,
    },
    Row {
        name: "delete-peers",
        title: "the peer deletes, and it comes up again",
        play: delete_by_peer,
    },
    Row {
        name: "liveness-ours",
        title: "the peer loses power: we notice, and it comes up again",
        play: peer_dies,
    },
    Row {
        name: "liveness-peers",
        title: "we are killed: the peer notices, and it comes up again",
        play: we_die,
    },
];

/// Exchange types (RFC 7296 §3.1).
const IKE_SA_INIT: u8 = 34;

/// How many requests of an exchange there were, retransmissions not counted.
fn requests(trace: &Trace, exchange: u8) -> usize {
    let counts = audit::exchanges(trace);
    let found = counts.iter().find(|(kind, _)| *kind == exchange);
    found.map_or(0, |(_, count)| *count)
}

/// The initiator's SPIs of all IKE SAs.
fn initiators(trace: &Trace) -> BTreeSet<u64> {
    let spis = trace.entries.iter().filter_map(|entry| match entry.packet {
        Packet::Ike { initiator_spi, .. } => Some(initiator_spi),
        _ => None,
    });
    spis.collect()
}
