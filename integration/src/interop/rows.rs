//! The rows of the table.

use super::bench::{Bench, is_open, open_epoch};
use super::{Algorithms, Cell, Connection, Outcome, Proof, Role, Row, Version};
use crate::audit;
use crate::capture::Packet;
use crate::esp::Trace;
use crate::pki::KeyKind;
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
        name: "fragmentation",
        title: "IKE messages in fragments, both ways (RFC 7383)",
        play: fragmentation,
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
        play: ike_rekey_by_peer,
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

/// The tunnel comes up and passes traffic both ways, from the first datagram.
fn establish(cell: Cell, change: fn(&mut Connection)) -> Outcome {
    let mut connection = Connection::new(cell.ours);
    change(&mut connection);
    let nat = connection.nat;
    let mut bench = Bench::established(cell, connection);
    bench.exchange();
    let tunnel = bench.wait_for("the gate is open", is_open);
    let in_udp = &tunnel["epochs"][0]["udp_encapsulated"];
    assert_eq!(in_udp, nat, "ESP in UDP");
    bench.peer_has(1);
    let (outcome, trace) = bench.judge_trace();
    let inits = requests(&trace, IKE_SA_INIT);
    // One more if the other end asks for another group (INVALID_KE_PAYLOAD), which has the same SPI.
    assert_eq!(initiators(&trace).len(), 1, "{inits} IKE_SA_INIT requests");
    outcome
}

fn ed25519(cell: Cell) -> Outcome {
    if !cell.program.is_strongswan() {
        return Outcome::NotTried("libreswan does not know Ed25519");
    }
    establish(cell, |it| it.proof = Proof::Certificates(KeyKind::Ed25519))
}

fn fragmentation(cell: Cell) -> Outcome {
    let mut connection = Connection::new(cell.ours);
    connection.proof = Proof::Certificates(KeyKind::Rsa);
    connection.small_fragments = true;
    let mut bench = Bench::established(cell, connection);
    bench.exchange();
    let (outcome, trace) = bench.judge_trace();
    for (sent, whose) in [(true, "we"), (false, "the peer")] {
        let fragments = trace.entries.iter().filter(|entry| {
            entry.sent == sent && matches!(entry.packet, Packet::Ike { fragment: true, .. })
        });
        assert!(fragments.count() > 1, "{whose} sent nothing in fragments");
    }
    outcome
}

fn child_rekey(cell: Cell, nat: bool, ours: bool) -> Outcome {
    let mut connection = Connection::new(cell.ours);
    connection.nat = nat;
    let mut bench = Bench::established(cell, connection);
    let first = bench.settled(0);
    let traffic = bench.traffic();
    traffic.arrived(10);
    if ours {
        bench.ours().run(&["rekey", "net"]);
    } else {
        bench.peer().rekey_child();
    }
    let second = bench.settled(first);
    traffic.arrived(25);
    bench.finish(traffic);
    bench.peer_has(1);
    let switched = open_epoch(&bench.wait_for("the gate is open", is_open));
    let (outcome, trace) = bench.judge_trace();
    assert_eq!([second, switched], [2, 2], "one rekey is one new epoch");
    assert_eq!(initiators(&trace).len(), 1, "the IKE SA stays");
    outcome
}

fn ike_rekey_by_peer(cell: Cell) -> Outcome {
    let mut bench = Bench::established(cell, Connection::new(cell.ours));
    bench.settled(0);
    let traffic = bench.traffic();
    traffic.arrived(10);
    bench.peer().rekey_ike();
    traffic.arrived(50);
    // The new IKE SA is good for something: it rekeys the Child SA.
    let before = bench.settled(0);
    bench.ours().run(&["rekey", "net"]);
    bench.settled(before);
    bench.finish(traffic);
    bench.peer_has(1);
    let (outcome, trace) = bench.judge_trace();
    let inits = requests(&trace, IKE_SA_INIT);
    assert_eq!(inits, 1, "rekeyed, and not built anew");
    assert_eq!(initiators(&trace).len(), 2, "there is a new IKE SA");
    outcome
}

fn delete_by_us(cell: Cell) -> Outcome {
    let mut bench = Bench::established(cell, Connection::new(cell.ours));
    bench.exchange();
    bench.ours().run(&["down", "net"]);
    bench.peer_has(0);
    match cell.ours {
        Role::Client => bench.establish(),
        // A server that is down listens again when it is told so.
        Role::Server => {
            bench.kill_ours();
            bench.start_ours();
            bench.establish();
        }
    }
    bench.exchange();
    bench.judge()
}

fn delete_by_peer(cell: Cell) -> Outcome {
    let mut bench = Bench::established(cell, Connection::new(cell.ours));
    bench.exchange();
    let before = bench.settled(0);
    bench.peer().terminate();
    bench.wait_for("the old epoch is closed", |tunnel| {
        open_epoch(tunnel) != before
    });
    if cell.ours == Role::Server {
        bench.peer_has(0);
        bench.peer().initiate();
    }
    let traffic = bench.traffic();
    bench.settled(before);
    traffic.arrived(25);
    let (to_peer, to_ours) = bench.stop(traffic);
    assert!(
        to_peer.lost().is_empty() && to_peer.refused.is_empty(),
        "{to_peer}"
    );
    if !to_ours.lost().is_empty() {
        bench.note("the peer does not hold what it sends before the tunnel is up");
    }
    bench.judge()
}

fn peer_dies(cell: Cell) -> Outcome {
    let mut bench = Bench::established(cell, Connection::new(cell.ours));
    bench.exchange();
    let before = bench.settled(0);
    bench.kill_peer();
    bench.wait_for("the gate is closed", |tunnel| !is_open(tunnel));
    bench.start_peer();
    if cell.ours == Role::Server {
        bench.peer().initiate();
    }
    bench.settled(before);
    bench.exchange();
    bench.judge()
}

fn we_die(cell: Cell) -> Outcome {
    let mut connection = Connection::new(cell.ours);
    connection.liveness = true;
    let mut bench = Bench::established(cell, connection);
    bench.exchange();
    bench.kill_ours();
    bench.peer_has(0);
    bench.start_ours();
    bench.establish();
    bench.exchange();
    bench.judge()
}

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
