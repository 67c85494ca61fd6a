//! The recovery ladder with a peer that is strongSwan or libreswan: what this end does to come back
//! does not need a peer that knows of epochs.
//!
//! ```text
//! client ─────── router (masquerades, or not) ─────── server        20 ms round trip
//! 10.1.0.1                                          10.2.0.1
//! ```
#![cfg(feature = "kernel")]

use epochgate_integration::audit::{self, Aftermath, aftermath};
use epochgate_integration::interop::{Bench, Cell, Connection, Program, Role};
use epochgate_integration::peer::is_open;
use epochgate_integration::tables::{our_states, states};
use epochgate_integration::topology::CLIENT;
use epochgate_integration::traffic::RunningFlow;
use epochgate_integration::{Account, Packets, Timestamp, Trace, UdpFlow};
use std::thread::sleep;
use std::time::Duration;

/// How long anything may take before a test gives up.
const LIMIT: Duration = Duration::from_secs(60);
const SETTLE: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(20);
const TO_PEER: u16 = 4000;
const TO_OURS: u16 = 4001;
/// So few that the 101 packets which the kernel holds are those of 20 seconds.
const PER_SECOND: u32 = 5;
/// `ping.idle` of [`Connection`]'s epochgate; the defaults of `ping.attempts` and `ping.interval`.
const IDLE: Duration = Duration::from_secs(2);
const PINGS: Duration = Duration::from_millis(4 * 250);
/// A server waits for so many `idle`s before it looks whether anything came, because its client
/// asks first.
const SERVER_IDLES: u32 = 3;
/// What the machine that runs the tests may add: timers and daemons that had to wait.
const MACHINE: Duration = Duration::from_secs(2);
/// CREATE_CHILD_SA and IKE_SA_INIT (RFC 7296 §3.1).
const CREATE_CHILD_SA: u8 = 36;
const IKE_SA_INIT: u8 = 34;

fn cell(program: Program, ours: Role, row: &'static str) -> Cell {
    Cell { program, ours, row }
}

fn to_peer(bench: &Bench) -> RunningFlow {
    let (own, other) = bench.connection.inside();
    let ends = ((bench.own_host(), own), (bench.peers_host(), other));
    let flow = UdpFlow::new(ends.0, ends.1, TO_PEER).rate(PER_SECOND);
    flow.count(u64::MAX).start()
}

fn to_ours(bench: &Bench) -> RunningFlow {
    let (own, other) = bench.connection.inside();
    let ends = ((bench.peers_host(), other), (bench.own_host(), own));
    let flow = UdpFlow::new(ends.0, ends.1, TO_OURS).rate(PER_SECOND);
    flow.count(u64::MAX).start()
}

/// Waits until something of each flow has arrived that was sent from now on.
#[track_caller]
fn wait_for_traffic(flows: &[&RunningFlow]) {
    let began = Timestamp::now();
    for flow in flows {
        let before = flow.arrived();
        while flow.arrived() < before + 2 {
            let waited = Timestamp::now().since(began);
            assert!(waited < LIMIT, "no traffic after {waited:?}");
            sleep(POLL);
        }
    }
}

/// The SPIs of the first epoch, (inbound, outbound), while there was no other.
#[track_caller]
fn only_pair(bench: &Bench) -> (u32, u32) {
    let pairs = bench.pairs();
    assert_eq!(pairs.len(), 1, "{pairs:x?}");
    pairs[0]
}

/// What the tunnel's status promises.
fn bound(bench: &Bench) -> Duration {
    let tunnel = bench.wait_for("a status", |_| true);
    Duration::from_millis(tunnel["recovery_bound_ms"].as_u64().expect("a bound"))
}

fn count_of(trace: &Trace, exchange: u8) -> usize {
    let counts = audit::exchanges(trace);
    let found = counts.iter().find(|(kind, _)| *kind == exchange);
    found.map_or(0, |(_, count)| *count)
}

/// How long it may take until a dead epoch is found out, and its traffic held: it may have died just
/// after somebody looked.
fn noticed_within(ours: Role) -> Duration {
    let quiet = match ours {
        Role::Client => IDLE,
        Role::Server => IDLE * SERVER_IDLES,
    };
    2 * quiet + PINGS + MACHINE
}

/// Nothing of ours was lost but what had left before the outage was noticed, and it resumed in time.
#[track_caller]
fn assert_comes_back(
    ours: Role,
    trace: &Trace,
    account: &Account,
    (began, whole): (Timestamp, Timestamp),
    bound: Duration,
) -> Aftermath {
    let came = aftermath(trace, TO_PEER, account, began, whole);
    let came = came.expect("what was held is delivered");
    println!(
        "{} into the hole for {:?}, resumed after {:?} of {bound:?}; {} rekeys, {} IKE SAs; {account}",
        came.lost,
        came.into_the_hole_for,
        came.resumed_after,
        count_of(trace, CREATE_CHILD_SA),
        count_of(trace, IKE_SA_INIT),
    );
    assert!(account.refused.is_empty(), "{account}");
    assert_eq!(account.duplicated(), 0, "{account}");
    assert!(came.into_the_hole_for <= noticed_within(ours), "{came:?}");
    assert!(came.resumed_after <= bound + MACHINE, "{came:?}");
    came
}

/// R4: the first reply is lost.
fn a_lost_reply(program: Program) {
    let bench = Bench::start(
        cell(program, Role::Client, "lost-reply"),
        Connection::new(Role::Client),
    );
    let to_client = CLIENT.parse().expect("an address");
    let fault = bench.net().block(&Packets::esp().to(to_client).first(1));
    bench.establish();
    let flow = to_peer(&bench);
    wait_for_traffic(&[&flow]);
    assert_eq!(bench.settled(0), 1, "the first epoch was given time");
    assert_eq!(fault.count(), 1);
    let account = flow.stop(SETTLE);
    account.assert_perfect();
    let (_, trace) = bench.judge_trace();
    let pings = trace.sent().filter(|entry| {
        let inner = entry.inner.as_ref();
        inner.is_some_and(|inner| matches!(inner.control_ping(), Some((false, _))))
    });
    let pings = pings.count();
    println!("{pings} pings");
    assert!(pings >= 2, "asked again");
    assert_eq!(count_of(&trace, CREATE_CHILD_SA), 0, "without a rekey");
    assert_eq!(count_of(&trace, IKE_SA_INIT), 1);
}

#[test]
fn a_reply_of_strongswan_that_is_lost_is_asked_for_again() {
    a_lost_reply(Program::StrongSwan5);
}

#[test]
fn a_reply_of_libreswan_that_is_lost_is_asked_for_again() {
    a_lost_reply(Program::Libreswan4);
}

/// R5, R6: a tracker that guessed wrong loses one epoch's ESP for ever.
fn a_lost_epoch(program: Program, ours: Role) {
    let bench = Bench::established(cell(program, ours, "lost-epoch"), Connection::new(ours));
    let bound = bound(&bench);
    let (there, back) = (to_peer(&bench), to_ours(&bench));
    wait_for_traffic(&[&there, &back]);
    let (inbound, outbound) = only_pair(&bench);
    let before = bench.settled(0);
    let began = Timestamp::now();
    let fault = bench.net().block(&Packets::esp_on(&[inbound, outbound]));
    let whole = Timestamp::now();
    bench.settled(before);
    wait_for_traffic(&[&there, &back]);
    println!("{} packets dropped", fault.count());
    let (there, back) = (there.stop(SETTLE), back.stop(SETTLE));
    println!("the peer's: {back}");
    let (_, trace) = bench.judge_trace();
    // The bound is that of an epochgate client, which looks sooner.
    let bound = bound + noticed_within(ours);
    assert_comes_back(ours, &trace, &there, (began, whole), bound);
}

#[test]
fn an_epoch_with_strongswan_that_the_network_has_lost_is_replaced() {
    a_lost_epoch(Program::StrongSwan5, Role::Client);
}

#[test]
fn an_epoch_with_libreswan_that_the_network_has_lost_is_replaced() {
    a_lost_epoch(Program::Libreswan4, Role::Client);
}

#[test]
fn an_epoch_with_a_strongswan_client_that_the_network_has_lost_is_replaced() {
    a_lost_epoch(Program::StrongSwan5, Role::Server);
}

#[test]
fn an_epoch_with_a_libreswan_client_that_the_network_has_lost_is_replaced() {
    a_lost_epoch(Program::Libreswan4, Role::Server);
}

/// R6: the peer forgets everything, and is back after a while.
fn a_dead_peer(program: Program, ours: Role) {
    let mut bench = Bench::established(cell(program, ours, "dead-peer"), Connection::new(ours));
    let bound = bound(&bench);
    // Only what we send: without its policies the peer's host would answer in clear.
    let there = to_peer(&bench);
    wait_for_traffic(&[&there]);
    let before = bench.settled(0);
    let began = Timestamp::now();
    bench.kill_peer();
    bench.wait_for("the gate is closed", |tunnel| !is_open(tunnel));
    bench.start_peer();
    if ours == Role::Server {
        bench.peer().initiate();
    }
    let whole = Timestamp::now();
    // libreswan does not say INITIAL_CONTACT, so that a server keeps what it had for a while.
    bench.wait_for("a new epoch is open", |tunnel| {
        is_open(tunnel) && tunnel["open_epoch"].as_u64() > Some(before)
    });
    wait_for_traffic(&[&there]);
    let there = there.stop(SETTLE);
    bench.peer_has(1);
    let (_, trace) = bench.judge_trace();
    assert_comes_back(ours, &trace, &there, (began, whole), bound);
}

#[test]
fn a_strongswan_server_that_was_killed_is_found_again() {
    a_dead_peer(Program::StrongSwan5, Role::Client);
}

#[test]
fn a_libreswan_server_that_was_killed_is_found_again() {
    a_dead_peer(Program::Libreswan4, Role::Client);
}

#[test]
fn a_strongswan_client_that_was_killed_gets_what_was_held_for_it() {
    a_dead_peer(Program::StrongSwan5, Role::Server);
}

#[test]
fn a_libreswan_client_that_was_killed_gets_what_was_held_for_it() {
    a_dead_peer(Program::Libreswan4, Role::Server);
}

/// R6: the NAT forgets its mappings under traffic both ways, and gives out other ports.
fn a_nat_that_forgets(program: Program) {
    let mut connection = Connection::new(Role::Client);
    connection.nat = true;
    let bench = Bench::established(cell(program, Role::Client, "nat-forgets"), connection);
    let bound = bound(&bench);
    let (there, back) = (to_peer(&bench), to_ours(&bench));
    wait_for_traffic(&[&there, &back]);
    let began = Timestamp::now();
    let net = bench.net();
    net.router.masquerade_anew(&net.to_server, 30_000..=30_100);
    let whole = Timestamp::now();
    wait_for_traffic(&[&there, &back]);
    bench.wait_for("the gate is open", is_open);
    let (there, back) = (there.stop(SETTLE), back.stop(SETTLE));
    println!("the peer's: {back}");
    let (_, trace) = bench.judge_trace();
    assert_comes_back(Role::Client, &trace, &there, (began, whole), bound);
    let resumed = back.arrivals.iter().map(|arrival| arrival.at);
    let resumed = resumed.filter(|at| *at >= whole).min().expect("traffic");
    println!("the peer's traffic came after {:?}", resumed.since(whole));
    assert!(resumed.since(whole) <= bound + MACHINE);
}

#[test]
fn a_nat_before_strongswan_that_forgets_is_outlived() {
    a_nat_that_forgets(Program::StrongSwan5);
}

#[test]
fn a_nat_before_libreswan_that_forgets_is_outlived() {
    a_nat_that_forgets(Program::Libreswan4);
}

/// R7: nothing comes on a tunnel that nobody uses, and a ping finds out why.
fn silence(program: Program) {
    let bench = Bench::established(
        cell(program, Role::Client, "silence"),
        Connection::new(Role::Client),
    );
    let bound = bound(&bench);
    bench.settled(0);
    let began = Timestamp::now();
    let fault = bench.net().block(&Packets::esp());
    bench.wait_for("the gate is closed", |tunnel| !is_open(tunnel));
    let there = to_peer(&bench);
    while there.sent() < 3 {
        sleep(POLL);
    }
    println!("{} packets dropped", fault.count());
    fault.lift();
    let whole = Timestamp::now();
    wait_for_traffic(&[&there]);
    bench.wait_for("the gate is open", is_open);
    let there = there.stop(SETTLE);
    let (_, trace) = bench.judge_trace();
    let came = assert_comes_back(Role::Client, &trace, &there, (began, whole), bound);
    assert_eq!(came.lost, 0, "all of it was held");
}

#[test]
fn silence_of_strongswan_is_found_out_and_nothing_is_sent_into_it() {
    silence(Program::StrongSwan5);
}

#[test]
fn silence_of_libreswan_is_found_out_and_nothing_is_sent_into_it() {
    silence(Program::Libreswan4);
}

/// R10: what the peer sent on the old epoch before it switched is late, and received.
fn an_old_epoch(program: Program) {
    const LATE: Duration = Duration::from_millis(500);
    let bench = Bench::established(
        cell(program, Role::Client, "old-epoch"),
        Connection::new(Role::Client),
    );
    let before = bench.settled(0);
    let (there, back) = (to_peer(&bench), to_ours(&bench));
    wait_for_traffic(&[&there, &back]);
    let (inbound, _) = only_pair(&bench);
    let late = Packets::esp_on(&[inbound]);
    let fault = bench.net().to_client.delay_packets(&late, LATE);
    wait_for_traffic(&[&back]);
    bench.ours().run(&["rekey", "net"]);
    bench.settled(before);
    println!("{} packets were late", fault.count());
    bench.peer_has(1);
    let (there, back) = (there.stop(SETTLE), back.stop(SETTLE));
    println!("ours: {there}\nthe peer's: {back}");
    // Such a peer sends on the new SA as soon as it has answered: a packet that comes with that answer
    // is ahead of our SA, which nobody can have before.
    let errors = bench.own_host().xfrm_errors();
    let ahead = usize::from(errors.iter().any(|(name, _)| name == "XfrmInNoStates"));
    for (account, excused) in [(&there, 0), (&back, ahead)] {
        assert!(account.refused.is_empty(), "{account}");
        let lost = account.lost();
        assert!(lost.len() <= excused, "{account}: {lost:?}");
        assert_eq!(account.duplicated(), 0, "{account}");
    }
    assert_eq!(our_states(bench.own_host()).len(), 2);
    let began = Timestamp::now();
    while states(bench.peers_host()).len() > 2 {
        let left = states(bench.peers_host());
        assert!(Timestamp::now().since(began) < LIMIT, "left over: {left:?}");
        sleep(POLL);
    }
    bench.judge();
}

#[test]
fn what_strongswan_sent_on_the_old_epoch_is_received_and_both_ends_delete_it() {
    an_old_epoch(Program::StrongSwan5);
}

#[test]
fn what_libreswan_sent_on_the_old_epoch_is_received_and_both_ends_delete_it() {
    an_old_epoch(Program::Libreswan4);
}
