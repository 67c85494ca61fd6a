//! Rows about rekeys under traffic.

use super::{IKE_SA_INIT, initiators, requests};
use crate::interop::bench::{Bench, is_open, open_epoch};
use crate::interop::{Cell, Connection, Outcome};

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

pub(super) fn ike_rekey_by_peer(cell: Cell) -> Outcome {
    let mut bench = Bench::established(cell, Connection::new(cell.ours));
    bench.settled(0);
    let traffic = bench.traffic();
    traffic.arrived(10);
    bench.peer().rekey_ike();
    traffic.arrived(50);
    bench.finish(traffic);
    // The new IKE SA is good for something: it rekeys the Child SA.
    let before = bench.settled(0);
    bench.ours().run(&["rekey", "net"]);
    bench.settled(before);
    bench.peer_has(1);
    bench.exchange();
    let (outcome, trace) = bench.judge_trace();
    let inits = requests(&trace, IKE_SA_INIT);
    assert_eq!(inits, 1, "rekeyed, and not built anew");
    assert_eq!(initiators(&trace).len(), 2, "there is a new IKE SA");
    outcome
}
