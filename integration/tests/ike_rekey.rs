//! IKE SAs are rekeyed and made anew under traffic in both directions, by either end and by both at
//! once (RFC 7296 §2.8, §2.18). The application notices nothing, and a rekeyed IKE SA does not even
//! change the ESP SAs that carry it.
//!
//! ```text
//! client 10.1.0.1 ── 10 ms ── router (masquerade) ── 10 ms ── 10.2.0.1 server
//! ```
#![cfg(feature = "kernel")]

use epochgate_integration::peer::{client_config, server_config};
use epochgate_integration::topology::{CLIENT_INNER, SERVER_INNER};
use epochgate_integration::traffic::RunningFlow;
use epochgate_integration::{Epochgate, Topology, UdpFlow, Watch, audit};
use serde_json::Value;
use std::thread;
use std::time::Duration;

const ROUND_TRIP: Duration = Duration::from_millis(20);
const SETTLE: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(20);
const PER_SECOND: u32 = 200;
/// A second CPU may use the old bundle for a moment after the switch.
const SWITCH_GRACE: Duration = Duration::from_millis(10);

struct Open {
    net: Topology,
    watch: Watch,
    client: Epochgate,
    server: Epochgate,
    flows: [RunningFlow; 2],
}

impl Open {
    fn new(name: &str, client: &str, server: &str) -> Self {
        let net = Topology::new(name)
            .masquerade()
            .round_trip(ROUND_TRIP)
            .build();
        let watch = Watch::start(&net);
        let server = Epochgate::start(&net.server, &server_config(server));
        let client = Epochgate::start(&net.client, &client_config(client));
        client.run(&["up", "net"]);
        let up = ((&net.client, CLIENT_INNER), (&net.server, SERVER_INNER));
        let down = (up.1, up.0);
        let flows = [(up, 4000), (down, 4001)].map(|((from, to), port)| {
            let flow = UdpFlow::new(from, to, port);
            flow.rate(PER_SECOND).count(u64::MAX).start()
        });
        Self {
            net,
            watch,
            client,
            server,
            flows,
        }
    }

    /// Waits until both ends have the one IKE SA with one epoch, the same; gives the IKE SA's SPIs.
    #[track_caller]
    fn settled(&self) -> (String, String) {
        let single = |tunnel: &Value| {
            let count = |what: &str| tunnel[what].as_array().map_or(0, Vec::len);
            tunnel["gate"] == "open" && count("epochs") == 1 && count("ike") == 1
        };
        loop {
            let ends = [&self.client, &self.server].map(|daemon| {
                let tunnel = daemon.wait_for("net", LIMIT, single);
                let spi = |which: &str| {
                    let spi = tunnel["ike"][0][which].as_str();
                    spi.unwrap_or_default().to_owned()
                };
                (spi("initiator_spi"), spi("responder_spi"))
            });
            let [client, server] = ends;
            if client == server {
                return client;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the traffic, of which nothing may be missing, doubled or displaced; gives how many epochs
    /// carried it.
    #[track_caller]
    fn finish(self) -> usize {
        for flow in self.flows {
            let account = flow.stop(SETTLE);
            println!("{account}");
            account.assert_perfect();
        }
        let judged = self.watch.judge();
        let order = audit::switches_are_clean(&judged.client, SWITCH_GRACE);
        drop(self.net);
        order.expect("clean switches").len()
    }
}

fn ike_rekeys(name: &str, by: impl Fn(&Open)) {
    let open = Open::new(name, "", "");
    let mut before = open.settled();
    for _ in 0..10 {
        by(&open);
        let now = open.settled();
        assert_ne!(now, before, "new SPIs");
        before = now;
    }
    // Epochs are rekeyed over what came of it.
    open.client.run(&["rekey", "net"]);
    open.settled();
    open.server.run(&["rekey", "net"]);
    open.settled();
    assert_eq!(open.finish(), 3, "an IKE SA's rekey makes no epoch");
}

#[test]
fn ten_ike_rekeys_by_the_client_cost_no_packet() {
    ike_rekeys("ike_rekeys_client", |open| {
        open.client.run(&["rekey", "net", "--ike"]);
    });
}

#[test]
fn ten_ike_rekeys_by_the_server_cost_no_packet() {
    ike_rekeys("ike_rekeys_server", |open| {
        open.server.run(&["rekey", "net", "--ike"]);
    });
}

#[test]
fn ten_crossing_ike_rekeys_cost_no_packet() {
    ike_rekeys("ike_rekeys_cross", |open| {
        thread::scope(|scope| {
            let client = scope.spawn(|| open.client.run(&["rekey", "net", "--ike"]));
            open.server.run(&["rekey", "net", "--ike"]);
            client.join().expect("the client's rekey ends");
        });
    });
}

#[test]
fn five_reauthentications_cost_no_packet() {
    let open = Open::new("reauthentications", "", "");
    let mut before = open.settled();
    for _ in 0..5 {
        open.client.run(&["rekey", "net", "--reauthenticate"]);
        let now = open.settled();
        assert_ne!(now, before, "another IKE SA");
        before = now;
    }
    assert_eq!(open.finish(), 6);
}

#[test]
fn lifetimes_rekey_the_ike_sa_by_themselves() {
    let open = Open::new(
        "ike_lifetime",
        "[tunnel.net.ike]\nlifetime = \"10s\"",
        "[tunnel.net.ike]\nlifetime = \"10s\"",
    );
    let before = open.settled();
    thread::sleep(Duration::from_secs(11));
    assert_ne!(open.settled(), before);
    assert!(open.client.log().contains("IKE SA rekeyed by this end"));
    assert!(open.server.log().contains("IKE SA rekeyed by the peer"));
    assert_eq!(open.finish(), 1);
}
