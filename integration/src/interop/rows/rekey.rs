//! Rows about rekeys under traffic.

use super::{IKE_SA_INIT, initiators, requests};
use crate::interop::bench::{Bench, is_open, open_epoch};
use crate::interop::{Cell, Connection, Outcome, Role};

pub(super) fn child_rekey(cell: Cell, nat: bool, ours: bool) -> Outcome {
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
    if ours {
        // We can have the new keys only when its answer is here.
        if bench.finish_ours(traffic) > 0 {
            bench.note(
                "as responder of a rekey the peer sends on the new SA at once, together with its \
                 answer: what arrives before epochgate has the keys is lost, as RFC 7296 §2.8 warns",
            );
        }
    } else {
        bench.finish(traffic);
    }
    bench.peer_has(1);
    let switched = open_epoch(&bench.wait_for("the gate is open", is_open));
    let (outcome, trace) = bench.judge_trace();
    assert_eq!([second, switched], [2, 2], "one rekey is one new epoch");
    assert_eq!(initiators(&trace).len(), 1, "the IKE SA stays");
    outcome
}

/// The IKE SA is rekeyed and goes on: not one datagram is lost, and it can do what the old could.
pub(super) fn ike_rekey(cell: Cell, ours: bool) -> Outcome {
    let mut bench = Bench::established(cell, Connection::new(cell.ours));
    let before = bench.settled(0);
    let traffic = bench.traffic();
    traffic.arrived(10);
    if ours {
        bench.ours().run(&["rekey", "net", "--ike"]);
    } else {
        bench.peer().rekey_ike();
    }
    traffic.arrived(50);
    bench.finish(traffic);
    let after = bench.settled(0);
    assert_eq!(after, before, "epochs do not notice");
    // The new IKE SA is good for something: it rekeys the Child SA.
    bench.ours().run(&["rekey", "net"]);
    bench.settled(after);
    bench.peer_has(1);
    bench.exchange();
    let (outcome, trace) = bench.judge_trace();
    let inits = requests(&trace, IKE_SA_INIT);
    assert_eq!(inits, 1, "rekeyed, and not built anew");
    assert_eq!(initiators(&trace).len(), 2, "there is a new IKE SA");
    outcome
}

/// A new IKE SA is made beside the old one and takes over (RFC 7296 §2.8.3).
pub(super) fn reauthenticate(cell: Cell) -> Outcome {
    if cell.ours == Role::Server {
        return Outcome::NotTried("a server that takes its client from any address cannot begin");
    }
    let mut bench = Bench::established(cell, Connection::new(cell.ours));
    let before = bench.settled(0);
    let traffic = bench.traffic();
    traffic.arrived(10);
    bench.ours().run(&["rekey", "net", "--reauthenticate"]);
    bench.settled(before);
    traffic.arrived(25);
    let lost = bench.finish_ours(traffic);
    if lost > 0 {
        bench.note("the peer sends on the new IKE SA's Child SA before epochgate has the keys");
    }
    bench.peer_has(1);
    let (outcome, trace) = bench.judge_trace();
    assert_eq!(initiators(&trace).len(), 2, "there is a new IKE SA");
    outcome
}
