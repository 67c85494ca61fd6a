//! Whatever forgets or stops, the tunnel comes back by itself, within the time that its status
//! states; and until then nothing is sent in clear or into an epoch that is not proven.
//!
//! ```text
//! client 192.0.2.2 ── 192.0.2.1 router 203.0.113.254 ── 203.0.113.1 server     20 ms round trip
//! 10.1.0.1                      (masquerade)                     10.2.0.1
//! ```
#![cfg(feature = "kernel")]

use epochgate_integration::audit::{Aftermath, aftermath, release};
use epochgate_integration::lab_nat::LabNat;
use epochgate_integration::net::Host;
use epochgate_integration::peer::{client_config, is_open, server_config};
use epochgate_integration::topology::{CLIENT_INNER, SERVER_INNER};
use epochgate_integration::traffic::{RunningFlow, wait_for_traffic};
use epochgate_integration::{
    Account, Epochgate, Packets, Stalls, Timestamp, Topology, Trace, UdpFlow, Watch,
};
use epochgate_nat::MasqueradeSettings;
use std::fs;
use std::thread::sleep;
use std::time::Duration;

const ROUND_TRIP: Duration = Duration::from_millis(20);
/// How long anything may take before a test gives up.
const LIMIT: Duration = Duration::from_secs(30);
const SETTLE: Duration = Duration::from_secs(1);
const UP: u16 = 4000;
const DOWN: u16 = 4001;
/// So few that the 101 packets which the kernel holds are those of 20 seconds.
const PER_SECOND: u32 = 5;
const ENDLESS: u64 = 1_000_000;

/// The defaults of `ping.idle`, `ping.attempts` and `ping.interval`: a dead epoch is found out after
/// at most so long.
const NOTICED_WITHIN: Duration = Duration::from_millis(3_000 + 4 * 250);
/// What a machine that runs the tests well may add to that; what more it adds is measured.
const MACHINE: Duration = Duration::from_millis(500);
/// How long a NAT reboots.
const NAT_DOWN: Duration = Duration::from_secs(5);
/// How long a host reboots.
const HOST_DOWN: Duration = Duration::from_secs(2);
/// What is promised with the defaults.
const DEFAULT_BOUND: Duration = Duration::from_secs(10);

/// Daemons at both ends of an open tunnel that starts by itself.
struct Open {
    net: Topology,
    watch: Watch,
    client: Epochgate,
    server: Epochgate,
    /// What the client's status states.
    bound: Duration,
    stalls: Stalls,
}

const CLIENT_START: &str = "start = \"always\"";

impl Open {
    fn new(name: &str, client: &str) -> Self {
        let net = Topology::new(name).masquerade().round_trip(ROUND_TRIP);
        Self::on(net.build(), client, "")
    }

    fn on(net: Topology, client: &str, server: &str) -> Self {
        let watch = Watch::start(&net);
        let server = Epochgate::start(&net.server, &server_config(server));
        let client = client_config(&format!("{CLIENT_START}\n{client}"));
        let client = Epochgate::start(&net.client, &client);
        let status = client.wait_for("net", LIMIT, is_open);
        server.wait_for("net", LIMIT, is_open);
        let bound = status["recovery_bound_ms"].as_u64().expect("a bound");
        let bound = Duration::from_millis(bound);
        assert!(bound < DEFAULT_BOUND, "{bound:?}");
        Self {
            net,
            watch,
            client,
            server,
            bound,
            stalls: Stalls::start(),
        }
    }

    fn up(&self) -> RunningFlow {
        flow(
            (&self.net.client, CLIENT_INNER),
            (&self.net.server, SERVER_INNER),
            UP,
        )
    }

    fn down(&self) -> RunningFlow {
        flow(
            (&self.net.server, SERVER_INNER),
            (&self.net.client, CLIENT_INNER),
            DOWN,
        )
    }
}

fn flow(from: (&Host, &str), to: (&Host, &str), port: u16) -> RunningFlow {
    UdpFlow::new(from, to, port)
        .rate(PER_SECOND)
        .count(ENDLESS)
        .start()
}

/// An outage of a tunnel.
struct Outage {
    began: Timestamp,
    /// When the network and both daemons were there again.
    whole: Timestamp,
    bound: Duration,
    stalls: Stalls,
}

impl Outage {
    /// What was held is delivered, in its order, and traffic resumes within the bound. `trace` is
    /// what the sender saw.
    #[track_caller]
    fn judge(&self, what: &str, (trace, port): (&Trace, u16), account: &Account) -> Aftermath {
        let aftermath = aftermath(trace, port, account, self.began, self.whole);
        let aftermath = aftermath.expect("held packets are delivered");
        let hole = u64::try_from(aftermath.into_the_hole_for.as_nanos()).expect("a short time");
        let after = Timestamp(self.began.0 + hole + 1);
        let released = release(
            &trace.between(after, Timestamp::now()),
            port,
            &account.sent,
            self.whole,
        );
        let released = released.expect("held packets in order");
        let held = (account.sent.iter()).filter(|(_, at)| *at >= after && *at < self.whole);
        println!(
            "{what}: {} into the hole for {:?}, {} held, resumed after {:?} of {:?}, {} live ahead \
             of held ones; {account}",
            aftermath.lost,
            aftermath.into_the_hole_for,
            held.count(),
            aftermath.resumed_after,
            self.bound,
            released.ahead.len()
        );
        assert!(account.refused.is_empty(), "{account}");
        assert_eq!(account.duplicated(), 0, "{account}");
        let stalled = self.stalls.within(self.whole, aftermath.resumed_after);
        assert!(
            aftermath.resumed_after <= self.bound + stalled,
            "{aftermath:?}, of that {stalled:?} the machine's"
        );
        aftermath
    }

    /// A client stops to send into the hole.
    #[track_caller]
    fn assert_noticed(&self, aftermath: &Aftermath) {
        let noticed = aftermath.into_the_hole_for;
        let stalled = self.stalls.within(self.began, noticed);
        assert!(
            noticed <= NOTICED_WITHIN + MACHINE + stalled,
            "{noticed:?}, of that {stalled:?} the machine's"
        );
    }
}

/// Traffic in both directions, once it passes.
fn traffic(open: &Open) -> (RunningFlow, RunningFlow) {
    let (up, down) = (open.up(), open.down());
    wait_for_traffic([&up, &down], LIMIT);
    (up, down)
}

/// An outage under traffic in both directions: `break_it` returns when the network is whole again.
fn outage(open: Open, break_it: impl FnOnce(&Open)) {
    let (up, down) = traffic(&open);
    let began = Timestamp::now();
    break_it(&open);
    let whole = Timestamp::now();
    open.client.wait_for("net", LIMIT, is_open);
    wait_for_traffic([&up, &down], LIMIT);
    let (up, down) = (up.stop(SETTLE), down.stop(SETTLE));
    let judged = open.watch.judge();
    let outage = Outage {
        began,
        whole,
        bound: open.bound,
        stalls: open.stalls,
    };
    let upward = outage.judge("up", (&judged.client, UP), &up);
    outage.judge("down", (&judged.server, DOWN), &down);
    outage.assert_noticed(&upward);
    println!("{} epochs carried traffic", judged.proofs.len());
}

/// Behind a NAT that knows epochs by their SPIs, plain ESP.
fn behind_vpn_masquerade(name: &str) -> Open {
    let net = Topology::new(name)
        .vpn_masquerade(MasqueradeSettings::default())
        .round_trip(ROUND_TRIP);
    let plain = "nat-t = \"off\"";
    Open::on(net.build(), plain, plain)
}

fn nat(open: &Open) -> &LabNat {
    open.net.nat.as_ref().expect("VPN Masquerade")
}

#[test]
fn vpn_masquerade_that_forgets_everything_under_traffic_learns_it_again() {
    let open = behind_vpn_masquerade("recover_masquerade_forgets");
    outage(open, |open| nat(open).forget());
}

#[test]
fn vpn_masquerade_that_reboots_is_outlived_and_what_was_held_is_delivered() {
    let open = behind_vpn_masquerade("recover_masquerade_reboots");
    outage(open, |open| {
        nat(open).reboot(NAT_DOWN);
        sleep(NAT_DOWN);
    });
}

#[test]
fn a_nat_that_forgets_everything_under_traffic_stops_it_for_a_moment() {
    let open = Open::new("recover_nat_forgets", "");
    outage(open, |open| {
        let to_server = &open.net.to_server;
        open.net.router.masquerade_anew(to_server, 30_000..=30_100);
    });
}

#[test]
fn a_nat_that_reboots_is_outlived_and_what_was_held_is_delivered() {
    let open = Open::new("recover_nat_reboots", "");
    outage(open, |open| {
        let down = open.net.block(&Packets::all());
        sleep(NAT_DOWN);
        let to_server = &open.net.to_server;
        open.net.router.masquerade_anew(to_server, 30_000..=30_100);
        down.lift();
    });
}

/// The daemon's host reboots, and is not there for a while. What it keeps is what is on its disk: its
/// configuration. `/run` and the kernel's tables are empty.
fn reboot(daemon: Epochgate) {
    let host = daemon.host().clone();
    daemon.kill();
    host.run("ip xfrm state flush");
    host.run("ip xfrm policy flush");
    host.run("ip route flush proto 69");
    host.sysctl("net/core/xfrm_larval_drop", "1");
    let state = host.folder().join("state");
    fs::remove_dir_all(&state).expect("the daemon's state");
    sleep(HOST_DOWN);
}

#[test]
fn a_server_that_reboots_is_found_again() {
    let open = Open::new("recover_server_reboots", "");
    let (up, down) = traffic(&open);
    // Its programs end with it.
    let down = down.stop(SETTLE);
    let began = Timestamp::now();
    reboot(open.server);
    let net = &open.net;
    let server = Epochgate::start(&net.server, &server_config(""));
    let whole = Timestamp::now();
    let ends = [(&net.server, SERVER_INNER), (&net.client, CLIENT_INNER)];
    let later = flow(ends[0], ends[1], DOWN + 1);
    open.client.wait_for("net", LIMIT, |tunnel| {
        is_open(tunnel) && tunnel["open_epoch"] != 1
    });
    server.wait_for("net", LIMIT, is_open);
    wait_for_traffic([&up, &later], LIMIT);
    let (up, later) = (up.stop(SETTLE), later.stop(SETTLE));
    let judged = open.watch.judge();
    assert_eq!(down.lost(), [0_u64; 0], "{down}");
    let outage = Outage {
        began,
        whole,
        bound: open.bound,
        stalls: open.stalls,
    };
    let upward = outage.judge("up", (&judged.client, UP), &up);
    outage.assert_noticed(&upward);
    let seen = (&judged.server, DOWN + 1);
    let downward = outage.judge("down, held from the start", seen, &later);
    assert_eq!(downward.lost, 0);
}

#[test]
fn a_client_that_reboots_comes_back_and_its_server_follows() {
    let open = Open::new("recover_client_reboots", "");
    let (up, down) = traffic(&open);
    let up = up.stop(SETTLE);
    let began = Timestamp::now();
    reboot(open.client);
    let net = &open.net;
    let client = Epochgate::start(&net.client, &client_config(CLIENT_START));
    let whole = Timestamp::now();
    let ends = [(&net.client, CLIENT_INNER), (&net.server, SERVER_INNER)];
    let later = flow(ends[0], ends[1], UP + 1);
    client.wait_for("net", LIMIT, is_open);
    open.server.wait_for("net", LIMIT, is_open);
    wait_for_traffic([&later, &down], LIMIT);
    let (later, down) = (later.stop(SETTLE), down.stop(SETTLE));
    let judged = open.watch.judge();
    assert_eq!(up.lost(), [0_u64; 0], "{up}");
    let outage = Outage {
        began,
        whole,
        bound: open.bound,
        stalls: open.stalls,
    };
    let seen = (&judged.client, UP + 1);
    let upward = outage.judge("up, held from the start", seen, &later);
    assert_eq!(upward.lost, 0);
    outage.judge("down", (&judged.server, DOWN), &down);
}
