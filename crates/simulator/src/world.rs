//! The world: a clock, a queue of what is to happen, nodes and the network between them.
//!
//! A test says what goes wrong and for how long time goes on; the world performs every effect of
//! every controller, feeds back what comes of it, and checks the invariants after each step.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use epochgate_controller::config::{Config, TunnelName};
use epochgate_controller::crypto::{Cipher, Crypto};
use epochgate_controller::event::EventKind;
use epochgate_controller::io::{
    Command, CommandId, OpId, PolicyAction, PolicyDirection, PolicyKey, PolicySpec, SaDirection,
    SaId, SaSpec, Spi, XfrmError, XfrmEvent, XfrmOp,
};
use epochgate_controller::status::TunnelStatus;
use epochgate_controller::{Controller, Input, Output, Secret, Timestamp};
use ipnet::IpNet;

use crate::crypto::Seeded;
use crate::invariants::{Observed, Violation, check_all};
use crate::kernel::{Drop, Effect, Kernel, OpKind};
use crate::network::{Network, Rule};
use crate::node::Node;
use crate::packet::{Body, FlowId, Frame, Packet};
use crate::random::Random;
use crate::traffic::{Account, Flow};

/// Time that the kernel takes for one operation, with the way there and back.
const OPERATION: std::ops::Range<Duration> = Duration::from_micros(20)..Duration::from_micros(80);

/// Time from a kernel event, or a reply's arrival, to the controller.
const NOTICE: std::ops::Range<Duration> = Duration::from_micros(20)..Duration::from_micros(200);

/// Lines of history that a violation shows.
const HISTORY_MAX: usize = 160;

/// Names a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId(usize);

/// Names a rule of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleId(usize);

/// What is to happen.
#[derive(Debug)]
enum Happening {
    Arrival(NodeId, Frame),
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
    queue: BTreeMap<(Timestamp, u64), Happening>,
    scheduled: u64,
    nodes: Vec<Node>,
    network: Network,
    rules_made: Vec<Rule>,
    flows: Vec<Flow>,
    whole: bool,
    steps_at_once: u32,
    pub(crate) observed: Vec<Observed>,
    history: VecDeque<String>,
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
            queue: BTreeMap::new(),
            scheduled: 0,
            nodes: Vec::new(),
            network: Network {
                delay,
                jitter: Duration::ZERO,
                rules: Vec::new(),
                in_order: true,
            },
            rules_made: Vec::new(),
            flows: Vec::new(),
            whole: true,
            steps_at_once: 0,
            observed: Vec::new(),
            history: VecDeque::new(),
        }
    }

    /// Adds a host with an outer address, inner ones, and networks behind it. Somebody else's policy
    /// and SA are in its kernel from the start.
    pub fn add_node(&mut self, outer: IpAddr, inner: &[IpAddr], behind: &[IpNet]) -> NodeId {
        let addresses = std::iter::once(outer).chain(inner.iter().copied());
        let mut kernel = Kernel::new(addresses.collect(), behind.to_vec(), self.random.fork());
        let foreign = foreign(outer);
        kernel.add_foreign(foreign.0, foreign.1.clone(), self.now);
        let crypto = Seeded::new(Arc::clone(&self.provider), self.random.fork());
        self.nodes.push(Node {
            outer,
            kernel,
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
            kernel_events: 0,
            foreign,
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

    /// The next operation of this kind fails in a node's kernel.
    pub fn fail_next(&mut self, id: NodeId, kind: OpKind, error: XfrmError) {
        self.whole = false;
        let now = self.now;
        self.remember(|| format!("{} {id:?} next {kind:?} fails: {error:?}", seconds(now)));
        self.nodes[id.0].kernel.fail_next(kind, error);
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

    pub(crate) fn steps_at_once(&self) -> u32 {
        self.steps_at_once
    }

    /// Starts a node's daemon with a configuration.
    pub fn start(&mut self, id: NodeId, config: Config) {
        let node = &mut self.nodes[id.0];
        node.run += 1;
        node.controller = Some(Controller::new(Arc::clone(&node.crypto)));
        let addresses = node.kernel.addresses().to_vec();
        node.note_config(&config);
        self.feed(id, Input::Configure(config));
        self.feed(id, Input::Addresses(addresses));
    }

    /// A node's daemon is gone at once, without a word to anybody; its kernel goes on.
    pub fn crash(&mut self, id: NodeId) {
        self.whole = false;
        let now = self.now;
        self.remember(|| format!("{now:?} {id:?} the daemon is gone"));
        let node = &mut self.nodes[id.0];
        node.controller = None;
        node.run += 1;
        node.wake_at = None;
    }

    /// A new configuration for a running daemon.
    pub fn configure(&mut self, id: NodeId, config: Config) {
        self.whole = false;
        self.nodes[id.0].note_config(&config);
        self.feed(id, Input::Configure(config));
    }

    /// An operator asks.
    pub fn command(&mut self, id: NodeId, command: Command) -> CommandId {
        match &command {
            Command::Down(_) | Command::Shutdown => self.whole = false,
            Command::Up(_) | Command::Rekey(_) | Command::Status => {}
        }
        self.remember_command(id, &command);
        let node = &mut self.nodes[id.0];
        node.last_command += 1;
        let number = CommandId(node.last_command);
        node.note_command(&command);
        self.feed(id, Input::Command(number, command));
        number
    }

    fn remember_command(&mut self, id: NodeId, command: &Command) {
        let now = self.now;
        self.remember(|| format!("{} {id:?} asked for {command:?}", seconds(now)));
    }

    /// Changes a host's own addresses.
    pub fn set_addresses(&mut self, id: NodeId, inner: &[IpAddr]) {
        let node = &mut self.nodes[id.0];
        let addresses: Vec<IpAddr> = std::iter::once(node.outer)
            .chain(inner.iter().copied())
            .collect();
        node.kernel.set_addresses(addresses.clone());
        self.feed(id, Input::Addresses(addresses));
    }

    /// Somebody else removes one of our SAs.
    pub fn steal_sa(&mut self, id: NodeId, sa: SaId) {
        self.whole = false;
        if self.nodes[id.0].kernel.steal_sa(sa) {
            self.feed(id, Input::Xfrm(XfrmEvent::SaRemoved(sa)));
        }
    }

    /// Somebody else removes one of our policies.
    pub fn steal_policy(&mut self, id: NodeId, key: PolicyKey) {
        self.whole = false;
        let node = &mut self.nodes[id.0];
        node.kernel.steal_policy(key);
        // What leaves until the controller has mended it is not its fault.
        node.protected.clear();
        self.feed(id, Input::Xfrm(XfrmEvent::PolicyRemoved(key)));
    }

    /// Disturbs the network.
    pub fn disturb(&mut self, rule: Rule) -> RuleId {
        self.whole = false;
        let now = self.now;
        self.remember(|| format!("{} network: {rule:?}", seconds(now)));
        self.rules_made.push(rule.clone());
        self.network.add(rule);
        RuleId(self.rules_made.len() - 1)
    }

    /// Ends one disturbance.
    pub fn mend(&mut self, id: RuleId) {
        let rule = &self.rules_made[id.0];
        let same = |found: &Rule| {
            found.from == rule.from
                && found.matching == rule.matching
                && found.verdict == rule.verdict
        };
        if let Some(index) = self.network.rules.iter().position(same) {
            self.network.rules.remove(index);
        }
        let now = self.now;
        self.remember(|| format!("{} network: a rule ends", seconds(now)));
    }

    /// Ends all disturbances, those of the kernels too.
    pub fn heal(&mut self) {
        for node in &mut self.nodes {
            node.kernel.fail_no_more();
        }
        self.network.rules.clear();
        self.network.jitter = Duration::ZERO;
        let now = self.now;
        self.remember(|| format!("{} network: whole again", seconds(now)));
    }

    /// Adds up to `jitter` to each frame's delay: frames overtake each other.
    pub fn set_jitter(&mut self, jitter: Duration) {
        self.whole = false;
        self.network.in_order = false;
        self.network.jitter = jitter;
    }

    /// Starts an application's stream.
    pub fn flow(
        &mut self,
        from: NodeId,
        source: IpAddr,
        destination: IpAddr,
        interval: Duration,
    ) -> FlowId {
        let id = FlowId(self.flows.len());
        self.flows
            .push(Flow::new(from, source, destination, interval));
        self.schedule(self.now, Happening::Departure(id));
        id
    }

    /// Ends it.
    pub fn stop_flow(&mut self, flow: FlowId) {
        self.flows[flow.0].running = false;
    }

    /// What became of its packets.
    #[must_use]
    pub fn account(&self, flow: FlowId) -> Account {
        self.flows[flow.0].account
    }

    /// Sends one packet that belongs to no flow.
    pub fn send(&mut self, from: NodeId, packet: Packet) -> Result<(), Violation> {
        self.nodes[from.0].kernel.send(packet, self.now);
        self.finish_step()
    }

    /// A tunnel's status, while its node's daemon runs and knows it.
    #[must_use]
    pub fn status(&self, id: NodeId, tunnel: &TunnelName) -> Option<TunnelStatus> {
        let report = self.node(id).controller()?.status();
        let mut tunnels = report.tunnels.into_iter();
        tunnels.find(|status| *status.name == *tunnel.0)
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

    /// Lets time go on until `reached` says so; false if it does not within `limit`.
    ///
    /// # Errors
    /// The first violation of an invariant.
    pub fn run_until(
        &mut self,
        limit: Duration,
        reached: impl Fn(&Self) -> bool,
    ) -> Result<bool, Violation> {
        let end = self.now + limit;
        loop {
            if reached(self) {
                return Ok(true);
            }
            match self.next_due().filter(|at| *at <= end) {
                Some(at) => self.step(at)?,
                None => {
                    self.now = end;
                    return Ok(reached(self));
                }
            }
        }
    }

    fn next_due(&self) -> Option<Timestamp> {
        let queued = self.queue.keys().next().map(|(at, _)| *at);
        let nodes = self.nodes.iter();
        let timers = nodes.flat_map(|node| [node.wake_at, node.kernel.next_timeout()]);
        let due = timers.flatten().chain(queued).min();
        due.map(|at| at.max(self.now))
    }

    fn step(&mut self, at: Timestamp) -> Result<(), Violation> {
        self.steps_at_once = if at > self.now {
            0
        } else {
            self.steps_at_once + 1
        };
        self.now = at;
        for id in (0..self.nodes.len()).map(NodeId) {
            self.nodes[id.0].kernel.handle_timeout(at);
        }
        let next = self.queue.first_entry().filter(|next| next.key().0 <= at);
        if let Some(next) = next {
            let happening = next.remove();
            self.happen(happening);
        } else if let Some(index) = self
            .nodes
            .iter()
            .position(|node| node.wake_at.is_some_and(|wake_at| wake_at <= at))
        {
            self.feed(NodeId(index), Input::Timeout);
        }
        self.finish_step()
    }

    fn finish_step(&mut self) -> Result<(), Violation> {
        for id in (0..self.nodes.len()).map(NodeId) {
            while let Some(effect) = self.nodes[id.0].kernel.poll_effect() {
                self.take_effect(id, effect);
            }
        }
        let checked = check_all(self);
        self.observed.clear();
        checked
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrival(id, frame) => match frame {
                Frame::Ike(datagram) => {
                    let arrived = epochgate_controller::io::Datagram {
                        local: datagram.remote,
                        remote: datagram.local,
                        payload: datagram.payload,
                    };
                    self.feed(id, Input::Datagram(arrived));
                }
                frame @ (Frame::Esp { .. } | Frame::Clear(_)) => {
                    self.nodes[id.0].kernel.receive(frame, self.now);
                }
            },
            Happening::Input(id, run, input) => {
                if self.nodes[id.0].run == run {
                    self.feed(id, *input);
                }
            }
            Happening::Operation(id, run, op, what) => {
                let node = &mut self.nodes[id.0];
                if node.run != run {
                    return;
                }
                let result = node.kernel.perform(*what, self.now);
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
        let packet = Packet {
            source: flow.source,
            destination: flow.destination,
            body: Body::Data {
                flow: id,
                sequence: flow.number_next(),
            },
            waited: false,
        };
        let (from, next) = (flow.from, self.now + flow.interval);
        self.nodes[from.0].kernel.send(packet, self.now);
        self.schedule(next, Happening::Departure(id));
    }

    /// Gives a controller an input and performs what comes out.
    fn feed(&mut self, id: NodeId, input: Input) {
        let node = &mut self.nodes[id.0];
        let Some(controller) = &mut node.controller else {
            return;
        };
        controller.handle(input, self.now);
        let mut outputs = Vec::new();
        node.wake_at = loop {
            match controller.poll_output() {
                Output::Wait(until, _) => break until,
                output => outputs.push(output),
            }
        };
        for output in outputs {
            self.perform(id, output);
        }
    }

    fn perform(&mut self, id: NodeId, output: Output) {
        let run = self.nodes[id.0].run;
        match output {
            Output::Datagram(datagram) => self.transmit(id, Frame::Ike(datagram)),
            Output::Xfrm(op, what) => {
                let takes = self.random.between(OPERATION.start, OPERATION.end);
                let node = &mut self.nodes[id.0];
                node.busy_until = node.busy_until.max(self.now) + takes;
                let at = node.busy_until;
                self.schedule(at, Happening::Operation(id, run, op, Box::new(what)));
            }
            Output::Ping(ping) => {
                let now = self.now;
                let node = &mut self.nodes[id.0];
                node.pings.insert(ping.nonce, ping.sa);
                if let Err(error) = node.kernel.ping(&ping) {
                    let nonce = ping.nonce;
                    self.notice(id, Input::PingFailed { nonce, error });
                }
                self.remember(|| format!("{} {id:?} ping on {}", seconds(now), show(ping.sa)));
            }
            Output::FindSource(destination) => {
                let source = Ok(self.nodes[id.0].outer);
                self.notice(
                    id,
                    Input::SourceFound {
                        destination,
                        source,
                    },
                );
            }
            Output::AddRoute(route) => {
                self.nodes[id.0].routes.insert(route);
            }
            Output::RemoveRoute(route) => {
                self.nodes[id.0].routes.remove(&route);
            }
            Output::Event(event) => {
                let now = self.now;
                self.remember(|| {
                    let epoch = event.epoch.map(|epoch| format!(" epoch {epoch}"));
                    let epoch = epoch.unwrap_or_default();
                    format!("{} {id:?}{epoch}: {}", seconds(now), event.kind)
                });
                let node = &mut self.nodes[id.0];
                node.note_event(&event);
                node.events.push((now, event));
            }
            Output::Answer(command, outcome) => {
                self.nodes[id.0].answers.insert(command, outcome);
            }
            Output::Wait(..) => {}
        }
    }

    fn take_effect(&mut self, id: NodeId, effect: Effect) {
        match effect {
            Effect::Transmit(frame) => self.transmit(id, frame),
            Effect::Authenticated(sa) => {
                self.nodes[id.0].arrived.insert(sa);
            }
            Effect::Deliver(packet) => self.deliver(id, packet),
            Effect::Dropped(packet, why) => {
                if let (Body::Data { flow, .. }, Drop::QueueFull) = (packet.body, why) {
                    self.flows[flow.0].account.refused += 1;
                }
                self.observed.push(Observed::Ended(id, packet, why));
            }
            Effect::Event(event) => {
                let now = self.now;
                self.remember(|| format!("{} {id:?} kernel: {event:?}", seconds(now)));
                self.nodes[id.0].kernel_events += 1;
                self.notice(id, Input::Xfrm(event));
            }
        }
    }

    fn deliver(&mut self, id: NodeId, packet: Packet) {
        match packet.body {
            Body::Data { flow, sequence } => {
                let flow = &mut self.flows[flow.0];
                let before = flow.account;
                flow.arrived(sequence, &packet);
                let after = flow.account;
                let reordered = after.reordered > before.reordered && self.network.in_order;
                if after.duplicated > before.duplicated || reordered {
                    self.observed.push(Observed::Misplaced(id, packet));
                }
            }
            Body::EchoReply(nonce) => {
                let node = &mut self.nodes[id.0];
                if let Some(sa) = node.pings.get(&nonce) {
                    node.out_proven.insert(*sa);
                    let from = packet.source;
                    self.notice(id, Input::PingReply { nonce, from });
                }
            }
            Body::EchoRequest(_) | Body::NeighbourDiscovery { .. } => {}
        }
    }

    fn transmit(&mut self, id: NodeId, frame: Frame) {
        let arrivals = self.network.arrivals(&frame, self.now, &mut self.random);
        self.note_departure(id, &frame, arrivals.len());
        let destination = frame.destination();
        let to = self.nodes.iter().position(|node| {
            let addresses = node.kernel.addresses();
            addresses.contains(&destination) || node.kernel.serves(destination)
        });
        let Some(to) = to else { return };
        for at in arrivals {
            self.schedule(at, Happening::Arrival(NodeId(to), frame.clone()));
        }
        self.observed.push(Observed::Left(id, frame));
    }

    fn note_departure(&mut self, id: NodeId, frame: &Frame, copies: usize) {
        let now = self.now;
        match frame {
            Frame::Ike(_) => {
                let header = frame.ike_header();
                self.remember(|| {
                    let what = header.map_or_else(String::new, |header| {
                        let kind = if header.flags.response {
                            "response"
                        } else {
                            "request"
                        };
                        format!("{} {kind} {}", header.exchange, header.message_id)
                    });
                    let lost = if copies == 0 { " (lost)" } else { "" };
                    format!("{} {id:?} sends {what}{lost}", seconds(now))
                });
            }
            Frame::Esp { sa, inner, .. } => {
                if let Body::Data { .. } = inner.body {
                    let sent = &mut self.nodes[id.0].data_sent;
                    *sent.entry(*sa).or_default() += 1;
                }
            }
            Frame::Clear(packet) => {
                if let Body::Data { flow, .. } = packet.body {
                    self.flows[flow.0].account.clear += 1;
                }
            }
        }
    }

    /// Tells a node's controller something a moment later.
    fn notice(&mut self, id: NodeId, input: Input) {
        let after = self.random.between(NOTICE.start, NOTICE.end);
        let run = self.nodes[id.0].run;
        self.schedule(self.now + after, Happening::Input(id, run, Box::new(input)));
    }

    fn schedule(&mut self, at: Timestamp, happening: Happening) {
        self.queue.insert((at, self.scheduled), happening);
        self.scheduled += 1;
    }

    fn remember(&mut self, line: impl FnOnce() -> String) {
        if self.history.len() == HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back(line());
    }

    /// What happened lately, a line each.
    pub fn history(&self) -> impl Iterator<Item = &str> {
        self.history.iter().map(String::as_str)
    }

    /// Something that must not be.
    #[must_use]
    pub fn violation(&self, invariant: &'static str, what: String) -> Violation {
        Violation {
            seed: self.seed,
            at: self.now,
            invariant,
            what,
            history: self.history.clone(),
        }
    }

    /// Whether an event of a kind was told by a node.
    pub fn told(&self, id: NodeId, which: impl Fn(&EventKind) -> bool) -> bool {
        self.node(id).count(which) > 0
    }
}

fn seconds(at: Timestamp) -> String {
    format!("{:12.6}", at.since(Timestamp::ZERO).as_secs_f64())
}

fn show(sa: SaId) -> String {
    format!("{:#010x}", sa.spi.0)
}

/// A policy and an SA of another key daemon.
fn foreign(outer: IpAddr) -> (PolicySpec, SaSpec) {
    let network = |text: [u8; 4]| IpNet::from(IpAddr::from(text));
    let id = SaId {
        destination: outer,
        spi: Spi(NonZeroU32::MIN),
    };
    let policy = PolicySpec {
        key: PolicyKey {
            direction: PolicyDirection::Out,
            source: network([198, 51, 100, 1]),
            destination: network([198, 51, 100, 2]),
            icmpv6_type: None,
        },
        priority: 1,
        action: PolicyAction::Hold { reqid: 1 },
    };
    let sa = SaSpec {
        id,
        source: IpAddr::from([198, 51, 100, 2]),
        direction: SaDirection::Inbound {
            report_first: false,
        },
        reqid: 1,
        cipher: Cipher::AesGcm128,
        key: Secret::from(vec![0; 20]),
        encapsulation: None,
        hard_lifetime: Duration::from_secs(u64::from(u32::MAX)),
    };
    (policy, sa)
}
