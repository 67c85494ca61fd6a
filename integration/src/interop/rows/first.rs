//! Rows about how a tunnel comes up.

use super::{IKE_SA_INIT, initiators, requests};
use crate::capture::Packet;
use crate::interop::bench::{Bench, is_open};
use crate::interop::{Cell, Connection, Outcome, Proof, Role};
use crate::pki::KeyKind;

/// The tunnel comes up and passes traffic both ways, from the first datagram.
pub(super) fn establish(cell: Cell, change: fn(&mut Connection)) -> Outcome {
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

pub(super) fn ed25519(cell: Cell) -> Outcome {
    if !cell.program.is_strongswan() {
        return Outcome::NotTried("libreswan does not know Ed25519");
    }
    establish(cell, |it| it.proof = Proof::Certificates(KeyKind::Ed25519))
}

pub(super) fn fragmentation(cell: Cell) -> Outcome {
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

/// The server assigns the client's inner address (RFC 7296 §2.19).
pub(super) fn assigned(cell: Cell) -> Outcome {
    let mut connection = Connection::new(cell.ours);
    connection.assigned = true;
    let mut bench = Bench::start(cell, connection);
    match cell.ours {
        Role::Client => bench.establish(),
        Role::Server => {
            bench.peer().initiate();
            bench.peer_has(1);
            if !cell.program.is_strongswan() {
                // libreswan leaves that to a script, which is not run.
                let address = bench.connection.inside().1;
                bench
                    .peers_host()
                    .run(&format!("ip address add {address}/32 dev lo"));
            }
        }
    }
    bench.exchange();
    bench.wait_for("the gate is open", is_open);
    bench.judge()
}

/// Two tunnels with the same ends have one IKE SA, and each its own Child SA (RFC 7296 §1.3.1).
pub(super) fn second_child(cell: Cell) -> Outcome {
    let mut connection = Connection::new(cell.ours);
    connection.second_child = true;
    let mut bench = Bench::established(cell, connection);
    match cell.ours {
        Role::Client => {
            bench.ours().run(&["up", "second"]);
        }
        Role::Server => bench.peer().initiate_child("second"),
    }
    bench.wait_for_tunnel("second", "the second gate opens", is_open);
    bench.exchange();
    bench.exchange_second();
    bench.peer_has(2);
    let (outcome, trace) = bench.judge_trace();
    assert_eq!(initiators(&trace).len(), 1, "one IKE SA");
    outcome
}

/// Both ends begin at the same moment: one tunnel comes of it.
pub(super) fn crossing(cell: Cell) -> Outcome {
    if cell.ours == Role::Server {
        return Outcome::NotTried("a server that takes its client from any address cannot begin");
    }
    let mut bench = Bench::start(cell, Connection::new(cell.ours));
    bench.peer().initiate();
    bench.establish();
    bench.settled(0);
    bench.exchange();
    bench.peer_has(1);
    bench.judge()
}

/// The responder demands a cookie before it works (RFC 7296 §2.6).
pub(super) fn cookie(cell: Cell) -> Outcome {
    if cell.program.is_strongswan() && cell.ours == Role::Client {
        return Outcome::NotTried("strongSwan demands cookies only while others are half-open");
    }
    let mut connection = Connection::new(cell.ours);
    connection.cookies = true;
    let mut bench = Bench::established(cell, connection);
    bench.exchange();
    let (outcome, trace) = bench.judge_trace();
    let answers = trace.entries.iter().filter(|entry| {
        matches!(
            entry.packet,
            Packet::Ike {
                exchange: IKE_SA_INIT,
                response: true,
                ..
            }
        )
    });
    assert!(answers.count() >= 2, "no cookie was demanded");
    outcome
}
