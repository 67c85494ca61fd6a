//! Daemons that are stopped, killed and started again, and what they leave in the kernel: their own
//! as configured, everybody else's untouched.
//!
//! ```text
//! client 10.1.0.1 ── router ── 10.2.0.1 server     two epochgates
//!       10.17.0.1 ════════════ 10.18.0.1           a tunnel by `ip xfrm`, same outer addresses
//! ```
#![cfg(feature = "kernel")]

use epochgate_integration::net::Host;
use epochgate_integration::peer::{client_config, server_config};
use epochgate_integration::tables::{our_policies, our_states, policies};
use epochgate_integration::topology::{
    CLIENT_INNER, CLIENT_LAN, CLIENT_NET, SERVER_INNER, SERVER_LAN, SERVER_NET,
};
use epochgate_integration::traffic::RunningFlow;
use epochgate_integration::{Epochgate, ManualTunnel, Topology, UdpFlow, Watch};
use std::thread::sleep;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(10);
const SETTLE: Duration = Duration::from_secs(1);
/// How long traffic is watched to see that it does not pass.
const BLOCKED_FOR: Duration = Duration::from_secs(1);
/// More than any test waits for; flows are stopped.
const ENDLESS: u64 = 1_000_000;

fn upwards(net: &Topology) -> UdpFlow {
    UdpFlow::new(
        (&net.client, CLIENT_INNER),
        (&net.server, SERVER_INNER),
        4000,
    )
    .count(ENDLESS)
}

fn downwards(net: &Topology) -> UdpFlow {
    UdpFlow::new(
        (&net.server, SERVER_INNER),
        (&net.client, CLIENT_INNER),
        4001,
    )
    .count(ENDLESS)
}

#[track_caller]
fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        sleep(Duration::from_millis(10));
    }
}

/// Waits until `more` datagrams have arrived from now on.
#[track_caller]
fn arrives(flow: &RunningFlow, more: u64) {
    let wanted = flow.arrived() + more;
    wait_until("traffic passes", || flow.arrived() >= wanted);
}

/// Watches for a while that nothing arrives.
#[track_caller]
fn assert_blocked(flow: &RunningFlow) {
    let before = flow.arrived();
    sleep(BLOCKED_FOR);
    assert_eq!(flow.arrived(), before, "traffic passes");
}

/// Waits until the daemon has logged this.
#[track_caller]
fn says(daemon: &Epochgate, text: &str) {
    wait_until(text, || daemon.log().contains(text));
}

fn larval_drop(host: &Host) -> String {
    let setting = host.within(|| std::fs::read_to_string("/proc/sys/net/core/xfrm_larval_drop"));
    setting.expect("the setting").trim().to_owned()
}

fn our_routes(host: &Host) -> String {
    host.run("ip route show proto 69")
}

#[test]
fn a_stopped_daemon_leaves_its_traffic_blocked_and_everybody_elses_alone() {
    let net = Topology::new("stop_block").build();
    let watch = Watch::start(&net);
    let manual = ManualTunnel::start(&net);
    let theirs_before = manual.entries();
    assert_eq!(
        theirs_before.len(),
        10,
        "two SAs and three policies at each end"
    );
    assert_eq!(larval_drop(&net.client), "1");

    let server = Epochgate::start(&net.server, &server_config(""));
    let client = Epochgate::start(&net.client, &client_config(""));
    client.run(&["up", "net"]);
    assert_eq!(larval_drop(&net.client), "0");
    let theirs = manual.flow(4002).count(ENDLESS).start();
    let (up, down) = (upwards(&net).start(), downwards(&net).start());
    arrives(&up, 50);
    arrives(&down, 50);
    client.run(&["rekey", "net"]);

    assert!(client.stop().success());
    assert_eq!(our_states(&net.client), []);
    let log = std::fs::read_to_string(net.client.folder().join("client-epochgated.log"));
    assert!(
        log.expect("its log")
            .contains("traffic is held: the daemon stops")
    );
    assert_eq!(our_policies(&net.client).len(), 3, "out, in and fwd");
    assert_eq!(larval_drop(&net.client), "1", "as it was before");
    assert!(
        our_routes(&net.client).contains(SERVER_NET),
        "what has no source address yet must not leave past the policies"
    );
    wait_until("the server hears of it", || {
        our_states(&net.server).is_empty()
    });
    sleep(Duration::from_millis(100));
    assert_blocked(&up);
    assert_blocked(&down);

    assert!(server.stop().success());
    assert_eq!(our_states(&net.server), []);
    assert_eq!(our_policies(&net.server).len(), 3);
    assert_blocked(&up);
    assert_blocked(&down);
    let (up, down) = (up.stop(Duration::ZERO), down.stop(Duration::ZERO));
    println!("up: {up}\ndown: {down}");
    for account in [up, down] {
        let tried = account.refused.len() + account.lost().len();
        assert!(tried > 150, "nothing was tried: {account}");
    }

    let theirs = theirs.stop(SETTLE);
    println!("somebody else's: {theirs}");
    theirs.assert_perfect();
    assert_eq!(manual.entries(), theirs_before);
    watch.judge_beside(&ManualTunnel::SPIS);
}

#[test]
fn a_stopped_daemon_that_shall_remove_its_policies_leaves_nothing() {
    let net = Topology::new("stop_remove").build();
    let manual = ManualTunnel::start(&net);
    let theirs_before = manual.entries();
    let spd_before = policies(&net.client).len();
    let server = Epochgate::start(&net.server, &server_config("on-stop = \"remove\""));
    let client = Epochgate::start(&net.client, &client_config("on-stop = \"remove\""));
    client.run(&["up", "net"]);
    assert!(our_routes(&net.client).contains(SERVER_NET));
    assert!(our_routes(&net.server).contains(CLIENT_NET));
    let theirs = manual.flow(4002).count(ENDLESS).start();
    for daemon in [client, server] {
        let host = daemon.host().clone();
        assert!(daemon.stop().success());
        assert_eq!(our_states(&host), []);
        assert_eq!(policies(&host).len(), spd_before);
        assert_eq!(our_routes(&host), "");
        assert_eq!(larval_drop(&host), "1");
    }
    theirs.stop(SETTLE).assert_perfect();
    assert_eq!(manual.entries(), theirs_before);
}

#[test]
fn a_tunnel_taken_down_leaves_nothing_and_comes_up_again() {
    let net = Topology::new("down").build();
    let manual = ManualTunnel::start(&net);
    let theirs_before = manual.entries();
    let _server = Epochgate::start(&net.server, &server_config(""));
    let client = Epochgate::start(&net.client, &client_config(""));
    let theirs = manual.flow(4002).count(ENDLESS).start();
    for _ in 0..3 {
        client.run(&["up", "net"]);
        let flow = upwards(&net).count(20).start();
        flow.finish(SETTLE).assert_perfect();
        client.run(&["down", "net"]);
        assert_eq!(our_states(&net.client), []);
        assert_eq!(our_policies(&net.client), []);
        assert_eq!(our_routes(&net.client), "");
    }
    let again = client.command(&["down", "net"]);
    assert!(again.status.success(), "down is down already: {again:?}");
    theirs.stop(SETTLE).assert_perfect();
    assert_eq!(manual.entries(), theirs_before);
}

#[test]
fn a_killed_daemons_successor_takes_over_with_nothing_in_clear() {
    let net = Topology::new("killed_client")
        .masquerade()
        .round_trip(Duration::from_millis(20))
        .build();
    let watch = Watch::start(&net);
    let server = Epochgate::start(&net.server, &server_config(""));
    let mut client = Epochgate::start(&net.client, &client_config(""));
    let (up, down) = (upwards(&net).start(), downwards(&net).start());
    arrives(&up, 50);
    arrives(&down, 50);

    for _ in 0..2 {
        client.kill();
        // The kernel goes on sending through the proven epoch. What comes back meets no socket
        // that would take it out of UDP.
        arrives(&up, 50);
        assert_eq!(larval_drop(&net.client), "0");
        client = Epochgate::start(&net.client, &client_config(""));
        says(&client, "took over 3 policies and removed 2 SAs");
        client.wait_for("net", LIMIT, |tunnel| tunnel["gate"] == "open");
        arrives(&up, 50);
        arrives(&down, 50);
        assert_eq!(our_policies(&net.client).len(), 3);
        assert_eq!(
            our_states(&net.client).len(),
            2,
            "those of the dead are gone"
        );
    }
    wait_until("the server has forgotten the dead ones' epochs", || {
        our_states(&net.server).len() == 2
    });
    let (up, down) = (up.stop(SETTLE), down.stop(SETTLE));
    println!("up: {up}\ndown: {down}");
    assert!(
        up.lost().is_empty(),
        "held while the successor negotiated: {:?}",
        up.lost()
    );
    assert_eq!(up.duplicated() + down.duplicated(), 0);
    assert!(client.stop().success());
    assert_eq!(
        larval_drop(&net.client),
        "1",
        "recorded by the first, restored by the last"
    );
    drop(server);
    watch.judge();
}

#[test]
fn a_killed_servers_successor_takes_over_with_nothing_in_clear() {
    let net = Topology::new("killed_server").build();
    let watch = Watch::start(&net);
    let server = Epochgate::start(&net.server, &server_config(""));
    let config = client_config("[tunnel.net.ping]\nidle = \"1s\"\n");
    let client = Epochgate::start(&net.client, &config);
    let (up, down) = (upwards(&net).start(), downwards(&net).start());
    arrives(&up, 50);
    arrives(&down, 50);

    server.kill();
    // Plain ESP needs no daemon.
    arrives(&up, 50);
    arrives(&down, 50);
    let server = Epochgate::start(&net.server, &server_config(""));
    says(&server, "took over 3 policies and removed 2 SAs");
    // The server knows nobody; the client's pings stay unanswered until it starts anew.
    client.wait_for("net", LIMIT * 3, |tunnel| {
        tunnel["gate"] == "open" && tunnel["open_epoch"].as_u64() > Some(1)
    });
    arrives(&up, 50);
    arrives(&down, 50);
    let (up, down) = (up.stop(SETTLE), down.stop(SETTLE));
    println!("up: {up}\ndown: {down}");
    drop((client, server));
    watch.judge();
}

#[test]
fn a_daemon_started_after_a_stop_takes_over_what_was_blocked() {
    let net = Topology::new("start_again").build();
    let watch = Watch::start(&net);
    let _server = Epochgate::start(&net.server, &server_config(""));
    let client = Epochgate::start(&net.client, &client_config(""));
    let up = upwards(&net).start();
    arrives(&up, 50);
    assert!(client.stop().success());
    sleep(Duration::from_millis(100));
    assert_blocked(&up);
    let client = Epochgate::start(&net.client, &client_config(""));
    arrives(&up, 50);
    says(&client, "took over 3 policies and removed 0 SAs");
    println!("up: {}", up.stop(SETTLE));
    drop(client);
    watch.judge();
}

#[test]
fn a_policy_of_somebody_else_for_the_same_traffic_is_reported_and_never_touched() {
    let net = Topology::new("foreign_policy").build();
    let _server = Epochgate::start(&net.server, &server_config(""));
    net.client.run(&format!(
        "ip xfrm policy add src {CLIENT_NET} dst {SERVER_NET} dir out priority 5000 action block"
    ));
    let theirs = policies(&net.client);
    let client = Epochgate::start(&net.client, &client_config("on-stop = \"remove\""));
    let status = client.wait_for("net", LIMIT, |tunnel| tunnel["gate"] == "down");
    let reason = status["reason"].as_str().unwrap_or_default();
    assert!(
        reason.contains("exists already and is not ours"),
        "{reason}"
    );
    assert!(client.log().contains(reason), "{}", client.log());

    let up = client.command(&["up", "net"]);
    assert_eq!(up.status.code(), Some(1), "{up:?}");
    let told = String::from_utf8_lossy(&up.stderr);
    assert!(told.contains("not ours"), "{told}");
    client.run(&["down", "net"]);
    assert_eq!(policies(&net.client), theirs);
    client.command(&["up", "net"]);
    assert!(client.stop().success());
    assert_eq!(policies(&net.client), theirs);

    let client = Epochgate::start(&net.client, &client_config(""));
    net.client.run(&format!(
        "ip xfrm policy delete src {CLIENT_NET} dst {SERVER_NET} dir out"
    ));
    client.run(&["up", "net"]);
    upwards(&net)
        .count(20)
        .start()
        .finish(SETTLE)
        .assert_perfect();
}

#[test]
fn a_masquerade_rule_that_would_rewrite_protected_traffic_is_reported_with_its_cure() {
    // client_lan ── client (masquerades all) ── router ── server ── server_lan
    let rule = |more: &str| {
        format!(
            "table ip nat {{\nchain post {{\ntype nat hook postrouting priority srcnat;\n\
             oifname \"router\" {more} masquerade\n}}\n}}\n"
        )
    };
    let net = Topology::new("masquerade_rule").lans().build();
    net.client.nft(&rule(""));
    let _server = Epochgate::start(&net.server, &server_config(""));
    let client = Epochgate::start(&net.client, &client_config(""));
    let finding = |tunnel: &serde_json::Value| {
        let text = tunnel["last_error"].as_str().unwrap_or_default();
        text.contains("so that it leaves in clear")
            .then(|| text.to_owned())
    };
    let status = client.wait_for("net", LIMIT, |tunnel| finding(tunnel).is_some());
    let text = finding(&status).expect("a finding");
    println!("{text}");
    assert!(text.contains("rt ipsec missing"), "{text}");
    assert!(client.log().contains(&text), "{}", client.log());
    let shown = client.run(&["status"]);
    assert!(shown.contains("rt ipsec missing"), "{shown}");

    net.client.run("nft delete table ip nat");
    net.client.nft(&rule("rt ipsec missing"));
    client.run(&["reload"]);
    client.wait_for("net", LIMIT, |tunnel| finding(tunnel).is_none());
    let watch = Watch::start(&net);
    client.run(&["up", "net"]);
    let (client_lan, server_lan) = (net.client_lan.as_ref(), net.server_lan.as_ref());
    let flow = UdpFlow::new(
        (client_lan.expect("a LAN"), CLIENT_LAN),
        (server_lan.expect("a LAN"), SERVER_LAN),
        4000,
    );
    flow.count(50).start().finish(SETTLE).assert_perfect();
    watch.judge();
}
