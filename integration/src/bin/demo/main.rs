//! What `scripts/demo` runs in the lab: the product's main job with real packets, told to somebody
//! who has never seen it.
//!
//! ```text
//!   client ──────── router (masquerades) ──────── server        50 ms there and back
//! 10.1.0.0/16                                   10.2.0.0/16
//! ```
//!
//! Everything that it claims is read from captures of the wire, whose ESP is opened with the keys
//! of the two kernels, and from the traffic's own accounts.

#![allow(clippy::print_stdout, reason = "its output is what it is for")]

mod acts;
mod ladder;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use epochgate_integration::peer::{client_config, server_config};
use epochgate_integration::{Capture, Epochgate, KeyLog, Topology};

use crate::table::Table;

/// From client to server and back.
pub(crate) const ROUND_TRIP: Duration = Duration::from_millis(50);

/// The network and the two daemons on it, watched from the router.
pub(crate) struct Stage {
    // Daemons end before the hosts go.
    pub(crate) client: Epochgate,
    pub(crate) server: Epochgate,
    pub(crate) client_keys: KeyLog,
    pub(crate) server_keys: KeyLog,
    client_wire: Capture,
    server_wire: Capture,
    pub(crate) net: Topology,
}

fn main() -> ExitCode {
    let json = std::env::args().any(|argument| argument == "--json");
    let stage = set_up();
    let mut table = Table::default();
    table.add(acts::first_packets(&stage));
    table.add(acts::rekeys(&stage));
    table.add(acts::esp_blocked(&stage));
    let Stage {
        client,
        server,
        client_keys,
        server_keys,
        client_wire,
        server_wire,
        net,
    } = stage;
    client.stop();
    server.stop();
    table.judge(
        client_wire.stop(),
        server_wire.stop(),
        &client_keys,
        &server_keys,
    );
    drop(net);
    table.print(json);
    if table.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn set_up() -> Stage {
    println!(
        "\n  client ---------- router (NAT) ---------- server        50 ms there and back\n\
         10.1.0.0/16                              10.2.0.0/16\n\n\
         Three hosts on a real kernel. The router masquerades: the server sees only its address.\n\
         An epochgated runs on the client and on the server. Their policies are in the kernel:\n\
         nothing from 10.1.0.0/16 to 10.2.0.0/16 can leave the client in clear."
    );
    let net = Topology::new("demo")
        .masquerade()
        .round_trip(ROUND_TRIP)
        .build();
    // Neighbours are known, as they are on a network that is in use.
    net.client.run("ping -c 1 -W 2 203.0.113.1");
    let client_keys = net.client_keys();
    let server_keys = net.server_keys();
    let client_wire = net.capture_client();
    let server_wire = net.capture_server();
    let server = Epochgate::start(&net.server, &server_config(""));
    let client = Epochgate::start(
        &net.client,
        &client_config("start = \"on-demand\"\n[tunnel.net.ping]\nidle = \"1s\""),
    );
    Stage {
        client,
        server,
        client_keys,
        server_keys,
        client_wire,
        server_wire,
        net,
    }
}

impl Stage {
    /// What the client's wire has seen so far.
    pub(crate) fn client_trace(&self) -> epochgate_integration::Trace {
        epochgate_integration::Trace::of(self.client_wire.so_far(), &self.client_keys)
    }
}
