//! What controllers and kernels do to the world, and what the world makes of it.

use std::net::IpAddr;
use std::time::Duration;

use epochgate_controller::{Input, Output};

use super::{Happening, NodeId, World};
use crate::invariants::Observed;
use crate::kernel::{Drop, Effect};
use crate::packet::{Body, Frame, Packet};
use crate::trace::Happened;

/// Time that the kernel takes for one operation, with the way there and back.
const OPERATION: std::ops::Range<Duration> = Duration::from_micros(20)..Duration::from_micros(80);

/// Time from a kernel event, or a reply's arrival, to the controller.
const NOTICE: std::ops::Range<Duration> = Duration::from_micros(20)..Duration::from_micros(200);

impl World {
    /// Gives a controller an input and performs what comes out.
    pub(super) fn feed(&mut self, id: NodeId, input: Input) {
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
        if self.never_sleeps() {
            self.nodes[id.0].wake_at = Some(self.now);
        }
        for output in outputs {
            self.perform(id, output);
        }
    }

    fn perform(&mut self, id: NodeId, output: Output) {
        let run = self.nodes[id.0].run;
        match output {
            Output::Datagram(datagram) => self.transmit(id, Frame::Ike(datagram)),
            Output::Keepalive { local, remote } => {
                self.nodes[id.0].keepalives += 1;
                self.transmit(id, Frame::Keepalive { local, remote });
            }
            Output::Xfrm(op, what) => {
                let takes = self.random.between(OPERATION.start, OPERATION.end);
                let node = &mut self.nodes[id.0];
                node.busy_until = node.busy_until.max(self.now) + takes;
                let at = node.busy_until;
                self.schedule(at, Happening::Operation(id, run, op, Box::new(what)));
            }
            Output::Ping(ping) => {
                if self.loses_pings() {
                    return;
                }
                let node = &mut self.nodes[id.0];
                node.pings.insert(ping.nonce, ping.sa);
                if let Err(error) = node.passing().ping(&ping, self.now) {
                    let nonce = ping.nonce;
                    self.notice(id, Input::PingFailed { nonce, error });
                }
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
            Output::AddAddress(spec) => {
                let mut addresses = self.nodes[id.0].kernel.addresses().to_vec();
                addresses.push(spec.address);
                self.nodes[id.0].assigned.insert(spec.address);
                self.change_addresses(id, addresses);
            }
            Output::RemoveAddress(spec) => {
                let mut addresses = self.nodes[id.0].kernel.addresses().to_vec();
                addresses.retain(|address| *address != spec.address);
                self.nodes[id.0].assigned.remove(&spec.address);
                self.change_addresses(id, addresses);
            }
            Output::Resolver(_) => {}
            Output::Event(event) => {
                let now = self.now;
                self.note(|| Happened::Told(id, event.clone()));
                self.nodes[id.0].note_event(&event);
                self.tamper_after(id, &event);
                self.nodes[id.0].events.push((now, event));
            }
            Output::Answer(command, outcome) => {
                self.nodes[id.0].answers.insert(command, outcome);
            }
            Output::Wait(..) => {}
        }
    }

    fn change_addresses(&mut self, id: NodeId, addresses: Vec<IpAddr>) {
        self.nodes[id.0]
            .kernel_mut()
            .set_addresses(addresses.clone());
        self.notice(id, Input::Addresses(addresses));
    }

    pub(super) fn take_effect(&mut self, id: NodeId, effect: Effect) {
        match effect {
            Effect::Transmit(frame) if self.loses(&frame) => {}
            Effect::Transmit(frame) => self.transmit(id, frame),
            Effect::Authenticated(sa) => {
                self.nodes[id.0].arrived.insert(sa);
            }
            Effect::Deliver(packet) => self.deliver(id, packet),
            Effect::Dropped(packet, why) => {
                self.account_end(id, &packet, why);
                self.note(|| Happened::Dropped(id, packet, why));
                self.observed.push(Observed::Ended(id, packet, why));
            }
            Effect::Event(event) => {
                self.note(|| Happened::Kernel(id, event));
                self.nodes[id.0].kernel_events += 1;
                self.notice(id, Input::Xfrm(event));
            }
        }
    }

    fn account_end(&mut self, id: NodeId, packet: &Packet, why: Drop) {
        let kernel = &self.nodes[id.0].kernel;
        let was_for_here =
            kernel.addresses().contains(&packet.destination) || kernel.serves(packet.destination);
        let misdelivered = match why {
            Drop::NoState | Drop::WrongKey | Drop::Encapsulation => !was_for_here,
            Drop::QueueFull
            | Drop::QueuePurged
            | Drop::Replayed
            | Drop::InboundPolicy
            | Drop::OutboundPolicy
            | Drop::NoInboundPolicy
            | Drop::NotQueued
            | Drop::NoRoute => false,
        };
        self.misdelivered += u64::from(misdelivered);
        if let Body::Data { flow, .. } = packet.body {
            let account = &mut self.flows[flow.0].account;
            account.refused += u64::from(why == Drop::QueueFull);
            account.misdelivered += u64::from(misdelivered);
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

    /// Tells a node's controller something a moment later.
    pub(super) fn notice(&mut self, id: NodeId, input: Input) {
        let after = self.random.between(NOTICE.start, NOTICE.end);
        let run = self.nodes[id.0].run;
        self.schedule(self.now + after, Happening::Input(id, run, Box::new(input)));
    }
}
