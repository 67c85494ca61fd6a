//! What controllers and kernels do to the world, and what the world makes of it.

use std::net::IpAddr;
use std::time::Duration;

use epochgate_controller::io::SaId;
use epochgate_controller::{Input, Output};

use super::{Happening, NodeId, World};
use crate::invariants::Observed;
use crate::kernel::{Drop, Effect};
use crate::packet::{Body, Frame, Packet};

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
        for output in outputs {
            self.perform(id, output);
        }
    }

    fn perform(&mut self, id: NodeId, output: Output) {
        let run = self.nodes[id.0].run;
        match output {
            Output::Datagram(datagram) => self.transmit(id, Frame::Ike(datagram)),
            Output::Keepalive { .. } => self.nodes[id.0].keepalives += 1,
            Output::Xfrm(op, what) => {
                let takes = self.random.between(OPERATION.start, OPERATION.end);
                let node = &mut self.nodes[id.0];
                node.busy_until = node.busy_until.max(self.now) + takes;
                let at = node.busy_until;
                self.schedule(at, Happening::Operation(id, run, op, Box::new(what)));
            }
            Output::Ping(ping) => {
                let node = &mut self.nodes[id.0];
                node.pings.insert(ping.nonce, ping.sa);
                if let Err(error) = node.kernel.ping(&ping) {
                    let nonce = ping.nonce;
                    self.notice(id, Input::PingFailed { nonce, error });
                }
                self.remember(|| format!("{id:?} ping on {}", show(ping.sa)));
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
                self.change_addresses(id, addresses);
            }
            Output::RemoveAddress(spec) => {
                let mut addresses = self.nodes[id.0].kernel.addresses().to_vec();
                addresses.retain(|address| *address != spec.address);
                self.change_addresses(id, addresses);
            }
            Output::Resolver(_) => {}
            Output::Event(event) => {
                let now = self.now;
                self.remember(|| {
                    let epoch = event.epoch.map(|epoch| format!(" epoch {epoch}"));
                    let epoch = epoch.unwrap_or_default();
                    format!("{id:?}{epoch}: {}", event.kind)
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

    fn change_addresses(&mut self, id: NodeId, addresses: Vec<IpAddr>) {
        self.nodes[id.0].kernel.set_addresses(addresses.clone());
        self.notice(id, Input::Addresses(addresses));
    }

    pub(super) fn take_effect(&mut self, id: NodeId, effect: Effect) {
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
                self.remember(|| format!("{id:?} kernel: {event:?}"));
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
        let has_source = frame
            .outer_source()
            .is_none_or(|source| self.nodes[id.0].kernel.addresses().contains(&source));
        if !has_source {
            return;
        }
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
                    format!("{id:?} sends {what}{lost}")
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
    pub(super) fn notice(&mut self, id: NodeId, input: Input) {
        let after = self.random.between(NOTICE.start, NOTICE.end);
        let run = self.nodes[id.0].run;
        self.schedule(self.now + after, Happening::Input(id, run, Box::new(input)));
    }
}

fn show(sa: SaId) -> String {
    format!("{:#010x}", sa.spi.0)
}
