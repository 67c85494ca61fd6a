//! Several clients behind one NAT with VPN Masquerade that forgets everything, while the server
//! talks to all of them: the first unknown SPI that comes from the server is not the answer to the
//! ping that asked for it, but what the server sends on an epoch that the NAT has forgotten.
//!
//! ```text
//! client0 ─┐
//! client1 ─┴ router (VPN Masquerade) ── server      20 ms round trip, plain ESP
//! ```
#![cfg(feature = "kernel")]

use epochgate_integration::audit::aftermath;
use epochgate_integration::peer::is_open;
use epochgate_integration::topology::SERVER_INNER;
use epochgate_integration::traffic::{RunningFlow, wait_for_traffic};
use epochgate_integration::{Account, Epochgate, Office, Stalls, Timestamp, UdpFlow};
use std::thread::sleep;
use std::time::Duration;

const ROUND_TRIP: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_secs(60);
const SETTLE: Duration = Duration::from_secs(1);
const CLIENTS: usize = 2;
/// Traffic of client N goes to port `UP + N` of the server, and comes to port `DOWN + N`.
const UP: u16 = 4000;
const DOWN: u16 = 5000;
/// So few that the 101 packets which the kernel holds are those of 20 seconds.
const UP_PER_SECOND: u32 = 5;
/// More than one in a round trip.
const DOWN_PER_SECOND: u32 = 100;
const ENDLESS: u64 = 1_000_000;
/// What a sender is told where the kernel's hold queue is full.
const QUEUE_IS_FULL: &str = "Resource temporarily unavailable";

#[test]
fn two_clients_under_dense_traffic_come_back_when_their_nat_has_rebooted() {
    let net = Office::new("recover_office")
        .clients(CLIENTS)
        .round_trip(ROUND_TRIP)
        .build();
    let watch = net.watch();
    let _server = Epochgate::start(&net.server, &net.server_config(""));
    let clients: Vec<Epochgate> = net
        .clients
        .iter()
        .map(|desk| Epochgate::start(&desk.host, &desk.config("start = \"always\"")))
        .collect();
    let mut bound = Duration::ZERO;
    for client in &clients {
        let status = client.wait_for("net", LIMIT, is_open);
        let stated = status["recovery_bound_ms"].as_u64().expect("a bound");
        bound = bound.max(Duration::from_millis(stated));
    }
    let flows: Vec<(RunningFlow, RunningFlow)> = net
        .clients
        .iter()
        .zip(0..)
        .map(|(desk, number)| {
            let inner = desk.inner.to_string();
            let (client, server) = ((&desk.host, inner.as_str()), (&net.server, SERVER_INNER));
            let up = UdpFlow::new(client, server, UP + number).rate(UP_PER_SECOND);
            let down = UdpFlow::new(server, client, DOWN + number).rate(DOWN_PER_SECOND);
            (up.count(ENDLESS).start(), down.count(ENDLESS).start())
        })
        .collect();
    let all = || flows.iter().flat_map(|(up, down)| [up, down]);
    wait_for_traffic(all(), LIMIT);
    let stalls = Stalls::start();
    let began = Timestamp::now();
    net.nat.reboot(Duration::from_secs(5));
    sleep(Duration::from_secs(5));
    let whole = Timestamp::now();
    for client in &clients {
        client.wait_for("net", LIMIT, is_open);
    }
    wait_for_traffic(all(), LIMIT);
    let accounts: Vec<(Account, Account)> = flows
        .into_iter()
        .map(|(up, down)| (up.stop(SETTLE), down.stop(SETTLE)))
        .collect();
    println!("{:?}", net.nat.counters());
    let traces = watch.judge();
    println!("misdelivered: {:?}", traces.misdelivered());
    for ((trace, (up, down)), number) in traces.clients.iter().zip(&accounts).zip(0..) {
        let upward = aftermath(trace, UP + number, up, began, whole).expect("held, delivered");
        let downward = aftermath(&traces.server, DOWN + number, down, began, whole);
        let downward = downward.expect("it resumes");
        println!("client{number}: up {upward:?}: {up}\n  down {downward:?}: {down}");
        assert!(up.refused.is_empty(), "{up}");
        // A server that does not know where its client is holds, and the kernel holds 101 packets: at
        // this rate that is a second. Of more the sender is told; nothing else may refuse.
        let mut refused = down.refused.iter();
        assert!(
            refused.all(|(_, error)| error.contains(QUEUE_IS_FULL)),
            "{:?}",
            down.refused
        );
        for (aftermath, account) in [(upward, up), (downward, down)] {
            assert_eq!(account.duplicated(), 0, "{account}");
            let stalled = stalls.within(whole, aftermath.resumed_after);
            assert!(
                aftermath.resumed_after <= bound + stalled,
                "{aftermath:?} of {bound:?}, of that {stalled:?} the machine's"
            );
        }
    }
}
