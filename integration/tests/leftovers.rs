//! What a dead daemon has left goes with `epochgated --remove-leftovers`: all of it, and nothing of
//! anybody else's.
//!
//! ```text
//!  10.1.0.1, 10.3.0.1 ─ client ─ router ─ server ─ 10.2.0.1, 10.4.0.1
//!                net: by policy, 10.1 ↔ 10.2, beside a tunnel by `ip xfrm`
//!             routed: ipsec0,    10.3 ↔ 10.4
//! ```
#![cfg(feature = "kernel")]

use epochgate_integration::net::Host;
use epochgate_integration::peer::{built, client_config, daemon_options, server_config};
use epochgate_integration::tables::{our_policies, our_states, policies, states};
use epochgate_integration::topology::{CLIENT_INNER, SERVER, SERVER_INNER};
use epochgate_integration::{Epochgate, ManualTunnel, Topology, UdpFlow};
use std::process::{Command, Output};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);
const SETTLE: Duration = Duration::from_secs(1);

/// A second tunnel over an interface.
fn routed(role: &str, ends: &str, local: &str, remote: &str) -> String {
    format!(
        "[tunnel.routed]\n\
         role = \"{role}\"\n\
         {ends}\
         policy = \"site-to-site\"\n\
         traffic = {{ local = [\"{local}\"], remote = [\"{remote}\"] }}\n\
         interface = {{ name = \"ipsec0\" }}\n"
    )
}

fn remove_leftovers(host: &Host) -> Output {
    host.output(
        Command::new(built("epochgated"))
            .arg("--remove-leftovers")
            .args(daemon_options(host)),
    )
}

fn larval_drop(host: &Host) -> String {
    host.run("cat /proc/sys/net/core/xfrm_larval_drop")
        .trim()
        .to_owned()
}

fn pair() -> (String, String) {
    let client = format!(
        "local = {{ id = \"client.example\", psk-file = \"psk\" }}\n\
         remote = {{ address = \"{SERVER}\", id = \"server.example\" }}\n"
    );
    let server = format!(
        "local = {{ address = \"{SERVER}\", id = \"server.example\", psk-file = \"psk\" }}\n\
         remote = {{ id = \"client.example\" }}\n"
    );
    (
        client_config("") + &routed("client", &client, "10.3.0.0/16", "10.4.0.0/16"),
        server_config("") + &routed("server", &server, "10.4.0.0/16", "10.3.0.0/16"),
    )
}

#[test]
fn what_a_killed_daemon_left_is_removed_and_nothing_of_anybody_elses() {
    let net = Topology::new("leftovers").build();
    let manual = ManualTunnel::start(&net);
    let theirs_before = manual.entries();
    let (states_before, policies_before) = (states(&net.client).len(), policies(&net.client).len());
    net.client.dummy("lan2", &["10.3.0.1/16"]);
    net.server.dummy("lan2", &["10.4.0.1/16"]);
    let (client_config, server_config) = pair();
    let _server = Epochgate::start(&net.server, &server_config);
    let client = Epochgate::start(&net.client, &client_config);
    client.run(&["up", "net"]);
    client.run(&["up", "routed"]);

    let refused = remove_leftovers(&net.client);
    let told = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{told}");
    assert!(told.contains("another epochgated runs already"), "{told}");
    assert_eq!(our_states(&net.client).len(), 4, "it keeps what it has");

    client.kill();
    assert_eq!(our_states(&net.client).len(), 4);
    assert!(!our_policies(&net.client).is_empty());
    assert_ne!(net.client.run("ip route show proto 69"), "");
    assert_eq!(larval_drop(&net.client), "0");
    let removed = remove_leftovers(&net.client);
    assert!(removed.status.success(), "{removed:?}");
    let said = String::from_utf8_lossy(&removed.stdout).into_owned();
    println!("{said}");
    assert!(said.contains("SAs 4, routes 1, interfaces 1,"), "{said}");
    assert_eq!(states(&net.client).len(), states_before);
    assert_eq!(policies(&net.client).len(), policies_before);
    assert_eq!(net.client.run("ip route show proto 69"), "");
    assert_eq!(net.client.run("ip link show type xfrm"), "");
    assert_eq!(larval_drop(&net.client), "1");
    assert_eq!(manual.entries(), theirs_before);
    manual
        .flow(4002)
        .count(20)
        .start()
        .finish(SETTLE)
        .assert_perfect();

    let again = remove_leftovers(&net.client);
    let said = String::from_utf8_lossy(&again.stdout).into_owned();
    assert!(
        again.status.success() && said.contains("policies 0, SAs 0, routes 0,"),
        "{again:?}"
    );
}

#[test]
fn a_larval_sa_that_a_held_packet_left_goes_too_and_so_does_a_hold_without_its_configuration() {
    let net = Topology::new("leftover_hold").build();
    // Nobody answers: what is sent is held, and its ACQUIRE leaves a larval SA.
    let client = Epochgate::start(&net.client, &client_config(""));
    let flow = UdpFlow::new(
        (&net.client, CLIENT_INNER),
        (&net.server, SERVER_INNER),
        4000,
    );
    let flow = flow.count(3).start();
    client.wait_for("net", LIMIT, |tunnel| {
        tunnel["gate"] == "held" && !states(&net.client).is_empty()
    });
    let arrived = flow.finish(SETTLE);
    assert_eq!(arrived.lost().len(), 3, "{arrived}");
    client.kill();
    std::fs::write(
        net.client.folder().join("epochgate.toml"),
        "no = configuration",
    )
    .expect("written");
    let removed = remove_leftovers(&net.client);
    assert!(removed.status.success(), "{removed:?}");
    assert_eq!(states(&net.client), []);
    assert_eq!(policies(&net.client), []);
    assert_eq!(larval_drop(&net.client), "1");
}
