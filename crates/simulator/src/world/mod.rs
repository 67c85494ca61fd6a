//! The world: a clock, a queue of what is to happen, nodes and the network between them.
//!
//! A test says what goes wrong and for how long time goes on (`control`); the world performs every
//! effect of every controller and kernel (`effects`), feeds back what comes of it, and checks the
//! invariants after each step.

mod agenda;
mod control;
mod defect;
mod effects;
mod nat;
mod power;
mod transit;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use epochgate_controller::config::{Config, TunnelName};
use epochgate_controller::crypto::Crypto;
use epochgate_controller::event::EventKind;
use epochgate_controller::io::{OpId, PolicyDirection, XfrmOp};
use epochgate_controller::status::TunnelStatus;
use epochgate_controller::{Controller, Input, Timestamp};
use ipnet::IpNet;

use crate::crypto::Seeded;
use crate::foreign::Foreign;
use crate::invariants::{Observed, Violation, check_all};
use crate::kernel::Kernel;
use crate::network::Network;
use crate::node::Node;
use crate::packet::{Body, FlowId, Frame, Packet};
use crate::random::Random;
use crate::trace::{Happened, Recording, Trace};
use crate::traffic::Flow;
use agenda::Agenda;
use nat::Router;

/// Names a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId(usize);

pub use defect::Defect;
pub use nat::NatId;

/// What is to happen.
#[derive(Debug)]
enum Happening {
    /// At a host.
    Arrival(NodeId, Frame),
    /// At a NAT, from outside.
    FromOutside(NatId, Frame),
    Input(NodeId, u32, Box<Input>),
    Operation(NodeId, u32, OpId, Box<XfrmOp>),
    Departure(FlowId),
}

/// A world.
pub struct World {
    seed: u64,
    now: Timestamp,
    random: Random,
    provider: Arc<dyn Crypto>,
    controllers: fn(Arc<dyn Crypto>) -> Controller,
    /// Violations by invariant, where they do not end the run.
    tolerated: Option<BTreeMap<&'static str, u64>>,
    agenda: Agenda<Happening>,
    nodes: Vec<Node>,
    nats: Vec<Router>,
    network: Network,
    flows: Vec<Flow>,
    whole: bool,
    misdelivered: u64,
    /// What hosts that are suspended have still to do for themselves.
    owed: Vec<Happening>,
    steps_at_once: u32,
    /// What is broken on purpose.
    defect: Option<Defect>,
    /// All disturbances were ended.
    healed: bool,
    pub(crate) observed: Vec<Observed>,
    trace: Trace,
}

impl World {
    /// A world without nodes, whose frames take `delay` from node to node.
    #[must_use]
    pub fn new(seed: u64, delay: Duration, provider: Arc<dyn Crypto>) -> Self {
        Self {
            seed,
            now: Timestamp::ZERO,
            random: Random::new(seed),
            provider,
            controllers: Controller::new,
            tolerated: None,
            agenda: Agenda::default(),
            nodes: Vec::new(),
            nats: Vec::new(),
            network: Network {
                delay,
                jitter: Duration::ZERO,
                rules: Vec::new(),
                rules_made: 0,
                in_order: true,
            },
            flows: Vec::new(),
            whole: true,
            misdelivered: 0,
            owed: Vec::new(),
            steps_at_once: 0,
            defect: None,
            healed: false,
            observed: Vec::new(),
            trace: Trace::new(Recording::Recent),
        }
    }

    /// Adds a host with an outer address, inner ones, and networks behind it. Somebody else's
    /// policies and SA are in its kernel from the start.
    pub fn add_node(&mut self, outer: IpAddr, inner: &[IpAddr], behind: &[IpNet]) -> NodeId {
        let addresses = std::iter::once(outer).chain(inner.iter().copied());
        let mut kernel = Kernel::new(addresses.collect(), behind.to_vec(), self.random.fork());
        let foreign = Foreign::of(outer);
        foreign.put_into(&mut kernel, self.now);
        let crypto = Seeded::new(Arc::clone(&self.provider), self.random.fork());
        self.nodes.push(Node {
            outer,
            nat: None,
            outers: [outer].into(),
            kernel_due: kernel.next_timeout(),
            kernel,
            touched: false,
            rewritten: false,
            crypto: Arc::new(crypto),
            controller: None,
            run: 0,
            wake_at: None,
            busy_until: self.now,
            config: Config::default(),
            last_command: 0,
            answers: BTreeMap::new(),
            events: Vec::new(),
            routes: Default::default(),
            protected: BTreeMap::new(),
            pings: BTreeMap::new(),
            out_proven: Default::default(),
            arrived: Default::default(),
            epochs: BTreeMap::new(),
            data_sent: BTreeMap::new(),
            assigned: Default::default(),
            is_off: false,
            is_suspended: false,
            applications_from: self.now,
            kernel_events: 0,
            keepalives: 0,
            foreign,
            exposed_until: self.now,
        });
        NodeId(self.nodes.len() - 1)
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// A node.
    #[must_use]
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter()
    }

    /// Whether nothing was disturbed so far that may cost packets.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// ESP packets, control pings too, that came to a host that they were not for.
    #[must_use]
    pub fn misdelivered(&self) -> u64 {
        self.misdelivered
    }

    pub(crate) fn steps_at_once(&self) -> u32 {
        self.steps_at_once
    }

    /// A tunnel's status, while its node's daemon runs and knows it.
    #[must_use]
    pub fn status(&self, id: NodeId, tunnel: &TunnelName) -> Option<TunnelStatus> {
        let report = self.node(id).controller()?.status();
        let mut tunnels = report.tunnels.into_iter();
        tunnels.find(|status| *status.name == *tunnel.0)
    }

    /// Whether an event of a kind was told by a node.
    pub fn told(&self, id: NodeId, which: impl Fn(&EventKind) -> bool) -> bool {
        self.node(id).count(which) > 0
    }

    /// Lets time go on.
    ///
    /// # Errors
    /// The first violation of an invariant.
    pub fn run_for(&mut self, duration: Duration) -> Result<(), Violation> {
        let end = self.now + duration;
        while let Some(at) = self.next_due().filter(|at| *at <= end) {
            self.step(at)?;
        }
        self.now = end;
        Ok(())
    }

    fn next_due(&self) -> Option<Timestamp> {
        let timers = self.nodes.iter().filter_map(Node::due);
        let due = timers.chain(self.agenda.next_at()).min();
        due.map(|at| at.max(self.now))
    }

    fn step(&mut self, at: Timestamp) -> Result<(), Violation> {
        self.steps_at_once = if at > self.now {
            0
        } else {
            self.steps_at_once + 1
        };
        self.now = at;
        for node in &mut self.nodes {
            if !node.is_suspended && node.kernel_due.is_some_and(|due| due <= at) {
                node.passing().handle_timeout(at);
            }
        }
        if let Some(happening) = self.agenda.take(at) {
            self.happen(happening);
        } else if let Some(index) = self
            .nodes
            .iter()
            .position(|node| !node.is_suspended && node.wake_at.is_some_and(|wake| wake <= at))
        {
            self.feed(NodeId(index), Input::Timeout);
        }
        self.finish_step()
    }

    fn finish_step(&mut self) -> Result<(), Violation> {
        for id in (0..self.nodes.len()).map(NodeId) {
            if self.nodes[id.0].touched {
                self.take_effects(id);
            }
        }
        let checked = check_all(self);
        self.observed.clear();
        for node in &mut self.nodes {
            if node.touched {
                node.touched = false;
                node.rewritten = false;
                node.kernel_due = node.kernel.next_timeout();
            }
        }
        self.judge(checked)
    }

    fn take_effects(&mut self, id: NodeId) {
        while let Some(effect) = self.nodes[id.0].kernel.poll_effect() {
            self.take_effect(id, effect);
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrival(id, frame) => self.arrive(id, frame),
            Happening::FromOutside(nat, frame) => self.enter(nat, frame),
            owed @ (Happening::Input(id, ..) | Happening::Operation(id, ..))
                if self.nodes[id.0].is_suspended =>
            {
                self.owed.push(owed);
            }
            Happening::Input(id, run, input) => {
                if self.nodes[id.0].run == run {
                    self.feed(id, *input);
                }
            }
            Happening::Operation(id, run, op, what) => {
                if self.nodes[id.0].run != run {
                    return;
                }
                self.note_gate(id, &what);
                let change = if let XfrmOp::MoveSa(change) = *what {
                    Some(change)
                } else {
                    None
                };
                // A daemon that starts creates nothing before it has read what is there.
                let mends = matches!(
                    *what,
                    XfrmOp::UpdatePolicies(_) | XfrmOp::CreatePolicies(_) | XfrmOp::ReadOurs
                );
                let result = self.operate(id, *what);
                if mends && result.is_err() {
                    self.stay_exposed(id);
                }
                if let (Some(change), Ok(_)) = (change, &result) {
                    self.nodes[id.0].note_move(&change);
                }
                self.notice(id, Input::XfrmDone { op, result });
            }
            Happening::Departure(id) => self.depart(id),
        }
    }

    fn depart(&mut self, id: FlowId) {
        let flow = &mut self.flows[id.0];
        if !flow.running {
            return;
        }
        let (from, next) = (flow.from, self.now + flow.interval);
        let node = &self.nodes[from.0];
        if node.is_off || node.is_suspended || self.now < node.applications_from {
            self.schedule(next, Happening::Departure(id));
            return;
        }
        let packet = Packet {
            source: flow.source,
            destination: flow.destination,
            body: Body::Data {
                flow: id,
                sequence: flow.number_next(),
            },
            waited: false,
        };
        self.nodes[from.0].passing().send(packet, self.now);
        self.schedule(next, Happening::Departure(id));
    }

    fn schedule(&mut self, at: Timestamp, happening: Happening) {
        self.agenda.add(at, happening);
    }

    /// Records what happens, if anything is recorded.
    fn note(&mut self, what: impl FnOnce() -> Happened) {
        self.trace.note(self.now, what);
    }

    /// Records what outbound policies will do.
    fn note_gate(&mut self, id: NodeId, op: &XfrmOp) {
        let (XfrmOp::CreatePolicies(specs) | XfrmOp::UpdatePolicies(specs)) = op else {
            return;
        };
        let mut last = None;
        for spec in specs {
            if spec.key.direction == PolicyDirection::Out && last != Some(spec.action) {
                last = Some(spec.action);
                self.note(|| Happened::Gate(id, spec.action));
            }
        }
    }

    /// What was recorded.
    #[must_use]
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Something that must not be.
    #[must_use]
    pub fn violation(&self, invariant: &'static str, what: String) -> Violation {
        Violation {
            seed: self.seed,
            at: self.now,
            invariant,
            what,
            trace: self.trace.clone(),
        }
    }
}
