//! The server starts the rekeys behind a NAT with VPN Masquerade, which gives the first unknown SPI
//! from a server to whoever has sent the first unknown SPI to it. A server that speaks on a new
//! epoch before its client does loses that race.
//!
//! ```text
//! client0 ─┐
//! client1 ─┤ router (VPN Masquerade) ── server      20 ms round trip, plain ESP
//! …        ┘
//! ```
#![cfg(feature = "kernel")]

use epochgate_integration::office::OfficeTraces;
use epochgate_integration::peer::is_open;
use epochgate_integration::topology::SERVER_INNER;
use epochgate_integration::traffic::RunningFlow;
use epochgate_integration::{Account, Epochgate, Office, UdpFlow};
use serde_json::Value;
use std::sync::Barrier;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

const ROUND_TRIP: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_secs(60);
const SETTLE: Duration = Duration::from_secs(1);
const CLIENTS: usize = 3;
/// Traffic of client N goes to port `UP + N` of the server, and comes to port `DOWN + N`.
const UP: u16 = 4000;
const DOWN: u16 = 5000;
const PER_SECOND: u32 = 40;
const ENDLESS: u64 = 1_000_000;
/// How often all epochs are rekeyed.
const ROUNDS: usize = 3;
/// How often at most, where the race has to be lost once.
const ROUNDS_MAX: usize = 20;
/// How many of all flows have not arrived when some are surely lost, and not under way.
const SURELY_LOST: u64 = 100;

/// What a server does that does not wait for its client (R8).
const HASTY: &str = "[tunnel.NAME.epoch]\nwait = false\n";

/// What a client does that refuses a server's rekeys and rekeys by itself (R9).
const IGNORE: &str = "[tunnel.NAME.epoch]\nserver-rekey = \"ignore\"\n";

/// How often traffic has moved to another epoch.
fn switches(tunnel: &Value) -> u64 {
    tunnel["switches"].as_u64().expect("a number")
}

/// What became of all traffic, and what everybody saw.
struct Outcome {
    accounts: Vec<Account>,
    traces: OfficeTraces,
    /// Goes last, so that a failing test keeps its logs and captures.
    _net: Office,
}

impl Outcome {
    fn lost(&self) -> usize {
        self.accounts
            .iter()
            .map(|account| account.lost().len())
            .sum()
    }

    /// Nothing was lost or given to another client. On a machine so busy that pings are answered
    /// too late, packets may have been held, and refused when the kernel's queue was full.
    #[track_caller]
    fn assert_harmless(&self) {
        assert_eq!((self.lost(), self.misdelivered()), (0, 0));
    }

    fn misdelivered(&self) -> usize {
        self.traces.misdelivered().iter().sum()
    }
}

/// All clients talk to the server, which rekeys all of their epochs at one instant, again and again
/// until it is `enough`, which is given the number of rounds and what has not arrived yet.
fn rekeyed_by_the_server(
    name: &str,
    server: &str,
    client: &str,
    enough: impl Fn(usize, u64) -> bool,
) -> Outcome {
    let waits = !server.contains("wait = false");
    let net = Office::new(name)
        .clients(CLIENTS)
        .round_trip(ROUND_TRIP)
        .build();
    let watch = net.watch();
    let server = Epochgate::start(&net.server, &net.server_config(server));
    let clients: Vec<Epochgate> = net
        .clients
        .iter()
        .map(|desk| Epochgate::start(&desk.host, &desk.config(client)))
        .collect();
    for client in &clients {
        client.run(&["up", "net"]);
    }
    let flows: Vec<RunningFlow> = net
        .clients
        .iter()
        .zip(0..)
        .flat_map(|(desk, number)| {
            let inner = desk.inner.to_string();
            let (client, server) = ((&desk.host, inner.as_str()), (&net.server, SERVER_INNER));
            let up = UdpFlow::new(client, server, UP + number);
            let down = UdpFlow::new(server, client, DOWN + number);
            [up, down].map(|flow| flow.rate(PER_SECOND).count(ENDLESS).start())
        })
        .collect();
    let mut rounds = 0;
    let mut missing = 0;
    while !enough(rounds, missing) {
        rounds += 1;
        let before: Vec<u64> = clients
            .iter()
            .map(|client| switches(&client.wait_for("net", LIMIT, is_open)))
            .collect();
        let line = Barrier::new(CLIENTS);
        thread::scope(|scope| {
            for desk in &net.clients {
                let (line, server) = (&line, &server);
                scope.spawn(move || {
                    line.wait();
                    // It fails where the client refuses it; the tunnels go on by themselves.
                    server.command(&["rekey", desk.name()])
                });
            }
        });
        for (client, before) in clients.iter().zip(before) {
            client.wait_for("net", LIMIT, |tunnel| {
                is_open(tunnel) && switches(tunnel) > before
            });
        }
        sleep(Duration::from_millis(500));
        missing = flows
            .iter()
            .map(|flow| flow.sent().saturating_sub(flow.arrived()))
            .sum();
    }
    let began = Instant::now();
    let accounts: Vec<Account> = flows.into_iter().map(|flow| flow.stop(SETTLE)).collect();
    println!("{:?}, ended in {:?}", net.nat.counters(), began.elapsed());
    let traces = if waits {
        watch.judge()
    } else {
        watch.judge_beside_server()
    };
    let outcome = Outcome {
        accounts,
        traces,
        _net: net,
    };
    for account in &outcome.accounts {
        println!("{account}");
        assert_eq!(account.duplicated(), 0, "{account}");
    }
    println!(
        "{rounds} rekeys of {CLIENTS} tunnels: {} packets lost, {} delivered to the wrong client",
        outcome.lost(),
        outcome.misdelivered()
    );
    outcome
}

#[test]
fn a_server_that_waits_loses_and_misdelivers_nothing() {
    let outcome = rekeyed_by_the_server("server_rekey_waits", "", "", |rounds, _| rounds == ROUNDS);
    outcome.assert_harmless();
}

#[test]
fn a_hasty_server_whose_clients_rekey_by_themselves_loses_and_misdelivers_nothing() {
    let outcome = rekeyed_by_the_server("server_rekey_ignored", HASTY, IGNORE, |rounds, _| {
        rounds == ROUNDS
    });
    outcome.assert_harmless();
}

#[test]
fn a_hasty_server_loses_the_race_to_the_nat() {
    let lost = |rounds, missing| missing > SURELY_LOST || rounds == ROUNDS_MAX;
    let outcome = rekeyed_by_the_server("server_rekey_hasty", HASTY, "", lost);
    assert!(outcome.lost() > 0, "the fault is not real");
}
