//! The daemons that the tests start, on a real kernel.
#![cfg(feature = "kernel")]

use epochgate_integration::peer::{
    client_config, server_config, strongswan_client, strongswan_server,
};
use epochgate_integration::topology::{CLIENT_INNER, CLIENT_NET, SERVER_INNER, SERVER_NET};
use epochgate_integration::{Epochgate, Selectors, StrongSwan, Topology, Trace, UdpFlow, audit};
use std::time::Duration;

const SETTLE: Duration = Duration::from_secs(2);

#[test]
fn two_strongswans_pass_traffic_through_nat() {
    let net = Topology::new("strongswans").masquerade().build();
    let keys = net.client_keys();
    let wire = net.capture_client();
    let _server = StrongSwan::start(&net.server, &strongswan_server(""));
    let client = StrongSwan::start(&net.client, &strongswan_client(""));
    client.initiate();
    assert_eq!(client.installed(), 1);

    let flow = UdpFlow::new(
        (&net.client, CLIENT_INNER),
        (&net.server, SERVER_INNER),
        4000,
    );
    flow.count(20).start().finish(SETTLE).assert_perfect();

    let trace = Trace::of(wire.stop(), &keys);
    assert_eq!(audit::carried(&trace, 4000).len(), 20);
    audit::nothing_in_clear(&trace, &Selectors::new(CLIENT_NET, SERVER_NET)).expect("all in ESP");
    assert_eq!(audit::exchanges(&trace), [(34, 1), (35, 1)]);
}

#[test]
fn two_epochgates_pass_traffic_through_nat() {
    let net = Topology::new("epochgates").masquerade().build();
    let keys = net.client_keys();
    let wire = net.capture_client();
    let server = Epochgate::start(&net.server, &server_config(""));
    let client = Epochgate::start(&net.client, &client_config("start = \"on-demand\""));
    client.run(&["up", "net"]);

    let flow = UdpFlow::new(
        (&net.client, CLIENT_INNER),
        (&net.server, SERVER_INNER),
        4000,
    );
    flow.count(20).start().finish(SETTLE).assert_perfect();

    let trace = Trace::of(wire.stop(), &keys);
    audit::nothing_in_clear(&trace, &Selectors::new(CLIENT_NET, SERVER_NET)).expect("all in ESP");
    assert_eq!(
        audit::nothing_before_proof(&trace)
            .expect("held until proven")
            .len(),
        1
    );
    assert!(client.stop().success());
    assert!(server.stop().success());
}
