//! Rows about a client that gets another address (MOBIKE, RFC 4555).

use super::{IKE_SA_INIT, initiators, requests};
use crate::interop::bench::{Bench, is_open};
use crate::interop::{Cell, Connection, Outcome, Role};
use crate::topology::CLIENT;

/// The client's next address, in the same network.
const CLIENT_SECOND: &str = "192.0.2.3";
const CLIENT_ROUTER: &str = "192.0.2.1";

/// The client's address changes under traffic, and the same IKE SA goes on.
pub(super) fn mobike(cell: Cell) -> Outcome {
    if !cell.program.is_strongswan() && cell.ours == Role::Server {
        return Outcome::NotTried(
            "its configuration here names the address that it comes from, so it does not move",
        );
    }
    let mut connection = Connection::new(cell.ours);
    connection.mobike = true;
    let mut bench = Bench::established(cell, connection);
    bench.exchange();
    let traffic = bench.traffic();
    traffic.arrived(25);
    let client = &bench.net().client;
    let device = bench.net().router.name();
    client.ip_batch(&format!(
        "address del {CLIENT}/24 dev {device}\n\
         address add {CLIENT_SECOND}/24 dev {device}\n\
         route replace default via {CLIENT_ROUTER} dev {device}\n"
    ));
    traffic.arrived(50);
    bench.wait_for("the gate is open", is_open);
    let (to_peer, to_ours) = bench.stop(traffic);
    let lost = to_peer.lost().len() + to_ours.lost().len();
    if lost > 0 {
        bench.note("what is under way to or from an address that is gone is lost");
    }
    bench.exchange();
    bench.peer_has(1);
    let (outcome, trace) = bench.judge_trace();
    assert_eq!(requests(&trace, IKE_SA_INIT), 1, "the IKE SA goes on");
    assert_eq!(initiators(&trace).len(), 1, "the IKE SA goes on");
    outcome
}
