//! Rows about the end of a tunnel, orderly or not, and its return.

use crate::interop::bench::{Bench, is_open, open_epoch};
use crate::interop::{Cell, Connection, Outcome, Role};

pub(super) fn delete_by_us(cell: Cell) -> Outcome {
    let mut bench = Bench::established(cell, Connection::new(cell.ours));
    bench.exchange();
    bench.ours().run(&["down", "net"]);
    bench.peer_has(0);
    match cell.ours {
        Role::Client => bench.establish(),
        // A server that is down listens again when it is told so.
        Role::Server => {
            bench.peer().rest();
            bench.kill_ours();
            bench.start_ours();
            bench.establish();
        }
    }
    bench.exchange();
    bench.judge()
}

pub(super) fn delete_by_peer(cell: Cell) -> Outcome {
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
    // Only what we send: the peer must not begin for traffic of its own at the same time.
    bench.send();
    bench.settled(before);
    bench.exchange();
    bench.judge()
}

pub(super) fn peer_dies(cell: Cell) -> Outcome {
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

pub(super) fn we_die(cell: Cell) -> Outcome {
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
