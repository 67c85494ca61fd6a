//! A running daemon reads a changed configuration: what did not change is not disturbed, what did
//! starts anew without a packet in clear, what vanished goes down.
//!
//! ```text
//! client 10.1.0.1 ── router ── 10.2.0.1 server     tunnel "stays"
//!        10.3.0.1              10.4.0.1            tunnel "changes"
//! ```
#![cfg(feature = "kernel")]

use epochgate_integration::tables::{our_policies, our_states};
use epochgate_integration::topology::{CLIENT_INNER, CLIENT_NET, SERVER, SERVER_INNER, SERVER_NET};
use epochgate_integration::traffic::RunningFlow;
use epochgate_integration::{Epochgate, Selectors, Topology, UdpFlow, Watch, audit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(10);
const SETTLE: Duration = Duration::from_secs(2);
const ENDLESS: u64 = 1_000_000;

const STAYS: (&str, &str) = (CLIENT_NET, SERVER_NET);
const CHANGES: (&str, &str) = ("10.3.0.0/16", "10.4.0.0/16");

fn client(name: &str, (local, remote): (&str, &str), more: &str) -> String {
    format!(
        "[tunnel.{name}]\nrole = \"client\"\n\
         local = {{ id = \"client-{name}\", psk-file = \"psk\" }}\n\
         remote = {{ address = \"{SERVER}\", id = \"server-{name}\" }}\n\
         policy = \"site-to-site\"\n\
         traffic = {{ local = [\"{local}\"], remote = [\"{remote}\"] }}\n{more}\n"
    )
}

fn server(name: &str, (remote, local): (&str, &str)) -> String {
    format!(
        "[tunnel.{name}]\nrole = \"server\"\n\
         local = {{ address = \"{SERVER}\", id = \"server-{name}\", psk-file = \"psk\" }}\n\
         remote = {{ id = \"client-{name}\" }}\n\
         policy = \"site-to-site\"\n\
         traffic = {{ local = [\"{local}\"], remote = [\"{remote}\"] }}\n"
    )
}

#[track_caller]
fn arrives(flow: &RunningFlow, more: u64) {
    let wanted = flow.arrived() + more;
    let began = Instant::now();
    while flow.arrived() < wanted {
        assert!(began.elapsed() < LIMIT, "{} arrived", flow.arrived());
        sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_reload_disturbs_only_what_changed() {
    let net = Topology::new("reload")
        .round_trip(Duration::from_millis(10))
        .build();
    net.client.dummy("lan2", &["10.3.0.1/16"]);
    net.server.dummy("lan2", &["10.4.0.1/16"]);
    let watch = Watch::start(&net);
    let on_server = server("stays", STAYS) + &server("changes", CHANGES);
    let _server = Epochgate::start(&net.server, &on_server);
    let configured = client("stays", STAYS, "") + &client("changes", CHANGES, "");
    let daemon = Epochgate::start(&net.client, &configured);
    for name in ["stays", "changes"] {
        daemon.run(&["up", name]);
    }
    let flow = |from: &str, to: &str, port| {
        UdpFlow::new((&net.client, from), (&net.server, to), port)
            .count(ENDLESS)
            .start()
    };
    let stays = flow(CLIENT_INNER, SERVER_INNER, 4000);
    let changes = flow("10.3.0.1", "10.4.0.1", 4001);
    arrives(&stays, 20);
    arrives(&changes, 20);

    // The same again: nothing happens.
    daemon.run(&["reload"]);
    arrives(&changes, 20);

    // A changed setting: that tunnel starts anew, held meanwhile.
    let more = "[tunnel.changes.epoch]\nlifetime = \"30m\"\n";
    daemon.rewrite_config(&(client("stays", STAYS, "") + &client("changes", CHANGES, more)));
    daemon.run(&["reload"]);
    arrives(&changes, 20);

    // Another name for the same traffic, read at SIGHUP: held as well.
    let renamed = client("renamed", CHANGES, "").replace("-renamed\"", "-changes\"");
    daemon.rewrite_config(&(client("stays", STAYS, "") + &renamed));
    kill(Pid::from_raw(daemon.pid() as i32), Signal::SIGHUP).expect("our daemon");
    let began = Instant::now();
    while !daemon.status().to_string().contains("\"renamed\"") {
        assert!(began.elapsed() < LIMIT, "{}", daemon.log());
        sleep(Duration::from_millis(10));
    }
    daemon.wait_for("renamed", LIMIT, |tunnel| tunnel["gate"] == "open");
    arrives(&changes, 20);
    let changes = changes.stop(SETTLE);
    println!("changes, restarted twice: {changes}");
    assert_eq!(changes.duplicated(), 0);
    assert!(changes.lost().is_empty(), "{:?}", changes.lost());

    // Named no more: down.
    daemon.rewrite_config(&client("stays", STAYS, ""));
    daemon.run(&["reload"]);
    assert_eq!(our_policies(&net.client).len(), 3);
    let routes = net.client.run("ip route show proto 69");
    assert_eq!(routes.lines().count(), 1, "{routes}");
    assert_eq!(our_states(&net.client).len(), 2);

    arrives(&stays, 20);
    let stays = stays.stop(SETTLE);
    println!("stays: {stays}");
    stays.assert_perfect();
    let status = daemon.wait_for("stays", LIMIT, |_| true);
    assert_eq!(status["open_epoch"], 1, "{status:#}");

    let judged = watch.judge();
    for trace in [&judged.client, &judged.server] {
        audit::nothing_in_clear(trace, &Selectors::new(CHANGES.0, CHANGES.1)).expect("all in ESP");
    }
    let spis = |port| -> BTreeSet<u32> {
        let carried = audit::carried(&judged.client, port);
        carried.into_iter().map(|(_, spi)| spi).collect()
    };
    assert_eq!((spis(4000).len(), spis(4001).len()), (1, 3));
}
