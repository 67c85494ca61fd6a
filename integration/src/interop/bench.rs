//! epochgate and a peer on their network, watched at epochgate's end.

use super::connection::ASSIGNED_NET;
use super::{Cell, Connection, Counts, Outcome, Peer, Role, Tally, Version};
use crate::audit::{self, Selectors};
use crate::capture::Capture;
use crate::esp::{KeyLog, Trace};
use crate::net::Host;
use crate::peer::Epochgate;
use crate::topology::{CLIENT_NET, CLIENT_NET_V6, SERVER_NET, SERVER_NET_V6, Topology};
use crate::traffic::{Account, RunningFlow, UdpFlow};
use serde_json::Value;
use std::thread;
use std::time::{Duration, Instant};

const ROUND_TRIP: Duration = Duration::from_millis(20);
/// How long a step of a story may take on a slow machine.
pub(super) const LIMIT: Duration = Duration::from_secs(60);
/// How long a flow waits for its last datagram.
const SETTLE: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(50);
/// Datagrams per second in each direction: the kernel's 101 held ones last for two seconds.
const RATE: u32 = 50;
/// A flow is ended after a multiple of so many, so that the table does not show how fast the
/// machine was.
const ROUND: u64 = 250;
const TO_PEER: u16 = 4000;
const TO_OURS: u16 = 4001;

/// epochgate and a peer, running.
#[derive(Debug)]
pub struct Bench {
    /// What both were told.
    pub connection: Connection,
    cell: Cell,
    ours: Option<Epochgate>,
    peer: Option<Peer>,
    keys: KeyLog,
    wire: Option<Capture>,
    counts: Counts,
    // Last: hosts go after their daemons.
    net: Topology,
}

/// Traffic in both directions.
#[derive(Debug)]
pub struct Traffic {
    /// How many there are in each direction, if it was said at the beginning.
    count: u64,
    to_peer: RunningFlow,
    to_ours: RunningFlow,
}

impl Bench {
    /// Makes the network and starts both daemons, the server first. Nothing is negotiated yet.
    #[track_caller]
    pub fn start(cell: Cell, mut connection: Connection) -> Self {
        let name = format!(
            "interop-{}-{}-{}",
            cell.program.name(),
            cell.ours.name(),
            cell.row
        );
        let plan = Topology::new(&name).round_trip(ROUND_TRIP);
        let net = if connection.nat {
            plan.masquerade()
        } else {
            plan
        }
        .build();
        connection.make_certificates(&net.world().folder().join("pki"));
        let (keys, wire) = match cell.ours {
            Role::Client => (net.client_keys(), net.capture_client()),
            Role::Server => (net.server_keys(), net.capture_server()),
        };
        let mut bench = Self {
            connection,
            cell,
            ours: None,
            peer: None,
            keys,
            wire: Some(wire),
            counts: Counts::default(),
            net,
        };
        match cell.ours {
            Role::Client => {
                bench.start_peer();
                bench.start_ours();
            }
            Role::Server => {
                bench.start_ours();
                bench.start_peer();
            }
        }
        bench.counts.version = bench.peer().version();
        bench
    }

    /// The same, and establishes the tunnel.
    #[track_caller]
    pub fn established(cell: Cell, connection: Connection) -> Self {
        let bench = Self::start(cell, connection);
        bench.establish();
        bench
    }

    /// The client begins; returns when epochgate's gate is open.
    #[track_caller]
    pub fn establish(&self) {
        match self.cell.ours {
            Role::Client => {
                self.ours().run(&["up", "net"]);
            }
            Role::Server => self.peer().initiate(),
        }
        self.wait_for("the gate opens", is_open);
    }

    /// Starts epochgate, again if it was there before. Its policies are in the kernel when this
    /// returns.
    #[track_caller]
    pub fn start_ours(&mut self) {
        let host = self.own_host().clone();
        self.connection.give_ours(&host);
        let daemon = Epochgate::start(&host, &self.connection.epochgate());
        daemon.wait_for("net", LIMIT, |tunnel| tunnel["gate"] != "down");
        self.ours = Some(daemon);
    }

    /// Starts the peer, again if it was there before.
    #[track_caller]
    pub fn start_peer(&mut self) {
        let peer = Peer::start(self.cell.program, self.peers_host(), &self.connection);
        self.peer = Some(peer);
    }

    /// epochgate dies without a word.
    pub fn kill_ours(&mut self) {
        if let Some(daemon) = self.ours.take() {
            daemon.kill();
        }
    }

    /// The peer's host loses power: its daemon, SAs and policies are gone.
    pub fn kill_peer(&mut self) {
        if let Some(peer) = self.peer.take() {
            peer.kill();
        }
        self.peers_host().run("ip xfrm state flush");
        self.peers_host().run("ip xfrm policy flush");
    }

    /// The running epochgate.
    #[track_caller]
    pub fn ours(&self) -> &Epochgate {
        self.ours.as_ref().expect("epochgate runs")
    }

    /// The running peer.
    #[track_caller]
    pub fn peer(&self) -> &Peer {
        self.peer.as_ref().expect("the peer runs")
    }

    /// The SPIs of epochgate's Child SAs so far as (inbound, outbound), the first one first.
    pub fn pairs(&self) -> Vec<(u32, u32)> {
        let own = self.connection.own_address().parse().expect("an address");
        self.keys.pairs(own)
    }

    /// Where epochgate runs.
    pub fn own_host(&self) -> &Host {
        match self.cell.ours {
            Role::Client => &self.net.client,
            Role::Server => &self.net.server,
        }
    }

    /// Where the peer runs.
    pub fn peers_host(&self) -> &Host {
        match self.cell.ours {
            Role::Client => &self.net.server,
            Role::Server => &self.net.client,
        }
    }

    /// The network between them.
    pub fn net(&self) -> &Topology {
        &self.net
    }

    /// Waits until epochgate's tunnel is as wanted; `what` says it in words.
    #[track_caller]
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.wait_for_tunnel("net", what, wanted)
    }

    /// The same with the tunnel of this name.
    #[track_caller]
    pub fn wait_for_tunnel(
        &self,
        name: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let began = Instant::now();
        loop {
            let report = self.ours().report();
            let tunnels = report["tunnels"].as_array().into_iter().flatten();
            let found = tunnels.into_iter().find(|tunnel| tunnel["name"] == name);
            let tunnel = found.cloned().unwrap_or_default();
            if wanted(&tunnel) {
                return tunnel;
            }
            let seconds = LIMIT.as_secs();
            assert!(
                began.elapsed() < LIMIT,
                "not within {seconds} s: {what}; the gate is {} ({}), with {} epochs",
                tunnel["gate"],
                tunnel["reason"],
                tunnel["epochs"].as_array().map_or(0, Vec::len),
            );
            thread::sleep(POLL);
        }
    }

    /// Waits until a later epoch than `before` is open, and the only one; returns its number.
    #[track_caller]
    pub fn settled(&self, before: u64) -> u64 {
        let tunnel = self.wait_for("a new epoch is open, and the only one", |tunnel| {
            let epochs = tunnel["epochs"].as_array().map_or(0, Vec::len);
            is_open(tunnel) && open_epoch(tunnel) > before && epochs == 1
        });
        open_epoch(&tunnel)
    }

    /// Waits until the peer holds so many Child SAs to be installed.
    #[track_caller]
    pub fn peer_has(&self, children: usize) {
        let began = Instant::now();
        while self.peer().installed() != children {
            let sas = self.peer().sas();
            assert!(
                began.elapsed() < LIMIT,
                "the peer should have {children} Child SAs, and has: {sas}"
            );
            thread::sleep(POLL);
        }
    }

    /// Begins to send in both directions.
    pub fn traffic(&self) -> Traffic {
        self.traffic_of(u64::MAX)
    }

    fn traffic_of(&self, count: u64) -> Traffic {
        self.traffic_between(self.connection.inside(), count)
    }

    fn traffic_between(&self, ends: (&str, &str), count: u64) -> Traffic {
        let (own, other) = ends;
        let own = (self.own_host(), own);
        let other = (self.peers_host(), other);
        let flow = |from, to, port| UdpFlow::new(from, to, port).rate(RATE).count(count);
        Traffic {
            count,
            to_peer: flow(own, other, TO_PEER).start(),
            to_ours: flow(other, own, TO_OURS).start(),
        }
    }

    /// A second's worth of traffic in both directions, which all must arrive.
    #[track_caller]
    pub fn exchange(&mut self) {
        let traffic = self.traffic_of(u64::from(RATE));
        self.finish(traffic);
    }

    /// A second's worth of traffic to the peer alone, which all must arrive.
    #[track_caller]
    pub fn send(&mut self) {
        let (own, other) = self.connection.inside();
        let ends = ((self.own_host(), own), (self.peers_host(), other));
        let flow = UdpFlow::new(ends.0, ends.1, TO_PEER).rate(RATE);
        let account = flow.count(u64::from(RATE)).start().finish(LIMIT);
        self.counts.ours += tally(&account);
        assert!(
            account.refused.is_empty() && account.lost().is_empty(),
            "of epochgate's datagrams {} were refused and {} of {} lost",
            account.refused.len(),
            account.lost().len(),
            account.sent.len(),
        );
    }

    /// The same through the second Child SA.
    #[track_caller]
    pub fn exchange_second(&mut self) {
        let ends = self.connection.second_inside();
        let traffic = self.traffic_between(ends, u64::from(RATE));
        self.finish(traffic);
    }

    /// Ends the traffic; all of it must have arrived, each datagram once.
    #[track_caller]
    pub fn finish(&mut self, traffic: Traffic) {
        let lost = self.finish_ours(traffic);
        assert_eq!(lost, 0, "datagrams of the peer were lost");
    }

    /// Ends the traffic; all of ours must have arrived, each datagram once. Returns how many of the
    /// peer's were lost.
    #[track_caller]
    pub fn finish_ours(&mut self, traffic: Traffic) -> usize {
        let (to_peer, to_ours) = self.stop(traffic);
        eprintln!(
            "epochgate's traffic: {to_peer}; numbers {:?}",
            to_peer.lost()
        );
        eprintln!(
            "the peer's traffic: {to_ours}; numbers {:?}",
            to_ours.lost()
        );
        for host in [self.own_host(), self.peers_host()] {
            eprintln!("{host:?}: {:?}", host.xfrm_errors());
        }
        assert!(
            to_peer.refused.is_empty() && to_peer.lost().is_empty(),
            "of epochgate's datagrams {} were refused and {} of {} lost",
            to_peer.refused.len(),
            to_peer.lost().len(),
            to_peer.sent.len(),
        );
        for account in [&to_peer, &to_ours] {
            assert_eq!(
                account.duplicated(),
                0,
                "datagrams arrived twice: {account}"
            );
        }
        to_ours.lost().len()
    }

    /// Ends the traffic, of which any may be lost.
    pub fn stop(&mut self, traffic: Traffic) -> (Account, Account) {
        if traffic.count == u64::MAX {
            traffic.to_peer.end_at_multiple_of(ROUND);
            traffic.to_ours.end_at_multiple_of(ROUND);
        }
        let to_peer = traffic.to_peer.finish(SETTLE);
        let to_ours = traffic.to_ours.finish(SETTLE);
        self.counts.ours += tally(&to_peer);
        self.counts.peers += tally(&to_ours);
        (to_peer, to_ours)
    }

    /// Says something in the table.
    pub fn note(&mut self, note: impl Into<String>) {
        self.counts.note = Some(note.into());
    }

    /// Ends the capture and judges it: nothing of the protected traffic in clear (I2), and
    /// nothing of ours on an epoch that was not proven (I1), or that nothing had come on (I3).
    #[track_caller]
    pub fn judge(self) -> Outcome {
        self.judge_trace().0
    }

    /// The same; also returns what was on the wire.
    #[track_caller]
    pub fn judge_trace(mut self) -> (Outcome, Trace) {
        let wire = self.wire.take().expect("it is judged once");
        let trace = Trace::of(wire.stop(), &self.keys);
        for protected in [
            Selectors::new(CLIENT_NET, SERVER_NET),
            Selectors::new(CLIENT_NET_V6, SERVER_NET_V6),
            Selectors::new(ASSIGNED_NET, SERVER_NET),
        ] {
            if let Err(violation) = audit::nothing_in_clear(&trace, &protected) {
                panic!("in clear: {violation}");
            }
        }
        match self.cell.ours {
            Role::Client => {
                if let Err(violation) = audit::nothing_before_proof(&trace) {
                    panic!("unproven: {violation}");
                }
            }
            Role::Server => {
                let pairs = self.pairs();
                if let Err(violation) = audit::server_waits_or_pings(&trace, &pairs) {
                    panic!("unproven: {violation}");
                }
            }
        }
        (Outcome::Passed(self.counts.clone()), trace)
    }
}

impl Traffic {
    /// Waits until so many more have arrived at both ends.
    #[track_caller]
    pub fn arrived(&self, more: u64) {
        let wanted = [&self.to_peer, &self.to_ours].map(|flow| (flow, flow.arrived() + more));
        let began = Instant::now();
        while wanted.iter().any(|(flow, count)| flow.arrived() < *count) {
            let [there, back] = wanted.map(|(flow, _)| (flow.arrived(), flow.sent()));
            assert!(
                began.elapsed() < LIMIT,
                "traffic stands still: {} of {} to the peer, {} of {} from it",
                there.0,
                there.1,
                back.0,
                back.1
            );
            thread::sleep(POLL);
        }
    }
}

fn tally(account: &Account) -> Tally {
    Tally {
        sent: account.sent.len(),
        lost: account.lost().len(),
    }
}

/// Whether traffic passes.
pub(super) fn is_open(tunnel: &Value) -> bool {
    tunnel["gate"] == "open"
}

/// The number of the epoch that carries traffic; 0 if none does.
pub(super) fn open_epoch(tunnel: &Value) -> u64 {
    tunnel["open_epoch"].as_u64().unwrap_or_default()
}

impl Connection {
    /// Over this IP version outside and inside.
    pub fn over(mut self, outer: Version, inner: Version) -> Self {
        self.outer = outer;
        self.inner = inner;
        self
    }
}
