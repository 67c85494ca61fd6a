//! A day of rekeys on a path that loses one packet in a hundred: the tunnel loses nothing of its
//! own, and nothing is left over.
//!
//! ```text
//! client 10.1.0.1 ── 10 ms ── router (masquerade, 1% loss) ── 10 ms ── 10.2.0.1 server
//! ```
//!
//! It runs in a guest whose clock jumps ahead while everything waits (`scripts/lab
//! --virtual-time`), so that a day of timers takes minutes.
//!
//! What the network lost is known packet by packet, because both ends' wires are captured: a
//! datagram that left the sender in ESP and did not come by at the receiver's end was lost on the
//! way. Every other one must have arrived.
#![cfg(feature = "kernel")]

use epochgate_control::EVENTS_KEPT_MAX;
use epochgate_integration::peer::{client_config, server_config};
use epochgate_integration::tables::{our_policies, our_states};
use epochgate_integration::topology::{CLIENT_INNER, SERVER_INNER};
use epochgate_integration::{
    Account, Epochgate, Host, Pace, Topology, Trace, UdpFlow, Watch, audit,
};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::thread;
use std::time::Duration;

/// How many hours are played unless `EPOCHGATE_SOAK_HOURS` says otherwise. The last one is compared
/// with the first.
const HOURS: usize = 24;
const HOUR: Duration = Duration::from_secs(3600);
const ROUND_TRIP: Duration = Duration::from_millis(20);
/// In each direction.
const LOSS_PERCENT: f64 = 1.0;
/// Epochs and IKE SAs are rekeyed before the end of their lifetimes, and the ends prove who they
/// are again at least ten times a day: everything that is made anew is made anew often.
const LIFETIMES: &str = "
[tunnel.net.epoch]
lifetime = \"10m\"
[tunnel.net.ike]
lifetime = \"40m\"
reauthenticate = \"100m\"
";
const EPOCHS_AN_HOUR: u64 = 6;
const SETTLE: Duration = Duration::from_secs(3);
/// How long a rekey may take that is under way when somebody looks, with everything that gets lost.
const LIMIT: Duration = Duration::from_secs(60);
const UP: u16 = 4000;
const DOWN: u16 = 4001;
/// A second CPU may use the old bundle for a moment after the switch.
const SWITCH_GRACE: Duration = Duration::from_millis(10);
/// What the resident set may grow by after the first hour. The allocator returns and takes pages;
/// what is left behind by each of a day's 144 rekeys would be more.
const RESIDENT_MARGIN_KIB: u64 = 256;
/// What a daemon keeps of each epoch for `epochgate events`: about five events of a KiB each. It keeps
/// [`EVENTS_KEPT_MAX`] at most, which a day does not reach.
const EVENTS_AN_EPOCH_KIB: u64 = 5;

/// What a daemon and its host hold at a moment between two rekeys.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Holdings {
    /// SAs and policies in the kernel, with what others may have put there.
    states: usize,
    policies: usize,
    /// Of the daemon's process.
    files: usize,
    threads: usize,
    /// In its state directory.
    state_files: usize,
    /// Of its network namespace: UDP, raw and netlink sockets.
    sockets: usize,
}

/// The holdings of both ends after some hours.
struct Hour {
    ends: [Holdings; 2],
    resident_kib: [u64; 2],
    epoch: u64,
}

impl fmt::Display for Hour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            ends,
            resident_kib,
            epoch,
        } = self;
        write!(f, "epoch {epoch}, resident {resident_kib:?} KiB, {ends:?}")
    }
}

fn count(array: &Value) -> usize {
    array.as_array().map_or(0, Vec::len)
}

/// Waits until neither end is in the middle of a rekey, and looks.
fn look(daemons: [&Epochgate; 2]) -> Hour {
    let settled = |tunnel: &Value| {
        tunnel["gate"] == "open" && count(&tunnel["epochs"]) == 1 && count(&tunnel["ike"]) == 1
    };
    let tunnels = loop {
        let tunnels = daemons.map(|daemon| daemon.wait_for("net", LIMIT, settled));
        // The second may have begun one while the first was asked again and again.
        if settled(&daemons[0].wait_for("net", LIMIT, |_| true)) {
            break tunnels;
        }
    };
    // The daemon closes the connections over which it was asked.
    thread::sleep(Duration::from_secs(1));
    Hour {
        ends: daemons.map(holdings),
        resident_kib: daemons.map(resident_kib),
        epoch: tunnels[0]["open_epoch"].as_u64().expect("an open epoch"),
    }
}

fn holdings(daemon: &Epochgate) -> Holdings {
    let host = daemon.host();
    let process = format!("/proc/{}", daemon.pid());
    let entries = |folder: &str| fs::read_dir(folder).expect("a folder").count();
    Holdings {
        states: our_states(host).len(),
        policies: our_policies(host).len(),
        files: entries(&format!("{process}/fd")),
        threads: entries(&format!("{process}/task")),
        state_files: entries(&host.folder().join("state").to_string_lossy()),
        sockets: ["udp", "udp6", "raw", "raw6", "netlink"]
            .map(|table| sockets(host, table))
            .iter()
            .sum(),
    }
}

/// The lines of a table of sockets, without its heading.
fn sockets(host: &Host, table: &str) -> usize {
    let path = format!("/proc/thread-self/net/{table}");
    let text = host.within(|| fs::read_to_string(path)).expect("a table");
    text.lines().skip(1).count()
}

fn resident_kib(daemon: &Epochgate) -> u64 {
    let path = format!("/proc/{}/status", daemon.pid());
    let status = fs::read_to_string(path).expect("its process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let words = line.and_then(|rest| rest.split_whitespace().next());
    words.and_then(|kib| kib.parse().ok()).expect("VmRSS in kB")
}

/// Every datagram left its sender once, in ESP; and every one that came by at the receiver's end
/// was delivered once, in order. Returns how many the network lost.
#[track_caller]
fn assert_only_the_network_lost(account: &Account, from: &Trace, to: &Trace, port: u16) -> usize {
    assert!(account.refused.is_empty(), "{:?}", account.refused);
    let left = audit::carried(from, port);
    let left: Vec<_> = left.into_iter().map(|(number, _)| number).collect();
    let sent: Vec<_> = account.sent.iter().map(|(number, _)| *number).collect();
    assert!(left == sent, "{}", differences(&sent, &left));
    let came = audit::arrived(to, port);
    let read: Vec<_> = account.arrivals.iter().map(|one| one.sequence).collect();
    assert!(read == came, "{}", differences(&came, &read));
    left.len() - came.len()
}

fn differences(expected: &[u64], found: &[u64]) -> String {
    let [all, some] = [expected, found].map(|list| list.iter().collect::<BTreeSet<_>>());
    format!(
        "{} expected, {} found; missing {:?}; new {:?}",
        expected.len(),
        found.len(),
        all.difference(&some).collect::<Vec<_>>(),
        some.difference(&all).collect::<Vec<_>>()
    )
}

#[test]
fn a_day_of_rekeys_loses_nothing_and_leaves_nothing() {
    let hours = std::env::var("EPOCHGATE_SOAK_HOURS").ok();
    let hours = hours.map_or(HOURS, |text| text.parse().expect("a number of hours"));
    let net = Topology::new("long_day")
        .masquerade()
        .round_trip(ROUND_TRIP)
        .loss(LOSS_PERCENT)
        .build();
    let watch = Watch::start_at(&net, Pace::Unhurried);
    let server = Epochgate::start(&net.server, &server_config(LIFETIMES));
    let client = Epochgate::start(&net.client, &client_config(LIFETIMES));
    client.run(&["up", "net"]);
    let (here, there) = ((&net.client, CLIENT_INNER), (&net.server, SERVER_INNER));
    let flows = [(here, there, UP), (there, here, DOWN)].map(|(from, to, port)| {
        let flow = UdpFlow::new(from, to, port).pace(Pace::Unhurried);
        flow.rate(1).count(u64::MAX).start()
    });

    let mut story = Vec::new();
    for hour in 1..=hours {
        thread::sleep(HOUR);
        let now = look([&client, &server]);
        println!("after {hour} h: {now}");
        story.push(now);
    }
    let [up, down] = flows.map(|flow| flow.stop(SETTLE));
    println!("up:   {up}\ndown: {down}");

    let judged = watch.judge();
    let lost = [
        assert_only_the_network_lost(&up, &judged.client, &judged.server, UP),
        assert_only_the_network_lost(&down, &judged.server, &judged.client, DOWN),
    ];
    println!(
        "the network lost {lost:?} of {:?}",
        [up.sent.len(), down.sent.len()]
    );
    assert!(lost.iter().all(|count| *count > 0), "its loss is real");
    for trace in [&judged.client, &judged.server] {
        audit::switches_are_clean(trace, SWITCH_GRACE).expect("clean switches");
    }

    let (first, last) = (&story[0], &story[story.len() - 1]);
    assert!(last.epoch >= EPOCHS_AN_HOUR * hours as u64, "{last}");
    assert_eq!(first.ends, last.ends, "nothing is left over");
    let told = (last.epoch - first.epoch) * EVENTS_AN_EPOCH_KIB;
    // A KiB each: so many KiB at most.
    let margin = RESIDENT_MARGIN_KIB + told.min(EVENTS_KEPT_MAX as u64);
    for (before, after) in first.resident_kib.iter().zip(last.resident_kib) {
        assert!(after <= before + margin, "{first}\n{last}");
    }
}
