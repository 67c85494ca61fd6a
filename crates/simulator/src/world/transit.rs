//! Frames on their way: out of a host, through the NAT before it, over the network, and in.

use std::net::IpAddr;

use epochgate_controller::io::Datagram;
use epochgate_controller::{Input, Timestamp};
use epochgate_nat::Side;

use super::{Happening, NatId, NodeId, World};
use crate::invariants::Observed;
use crate::packet::{Body, Frame};
use crate::trace::{Fate, Happened, Wire};

/// Why nothing leaves a host with an address that it had.
const NO_SOURCE: &str = "not this host's address any more";

/// Why a frame without a receiver goes nowhere.
const NOBODY: &str = "nobody has that address";

/// Where a frame goes next.
#[derive(Clone, Copy)]
enum Hop {
    Host(NodeId),
    Nat(NatId),
}

/// A frame that has left its host's site.
struct Departed {
    /// What it is after the NAT.
    frame: Frame,
    hop: Hop,
    /// When it is there: never, once or twice.
    arrivals: Vec<Timestamp>,
}

impl Departed {
    /// What a record says of it.
    fn seen(&self) -> (Option<NodeId>, Fate) {
        let to = match self.hop {
            Hop::Host(to) => Some(to),
            Hop::Nat(_) => None,
        };
        let fate = if self.arrivals.is_empty() {
            Fate::Lost("in the network")
        } else {
            Fate::Arrives(self.arrivals.clone())
        };
        (to, fate)
    }
}

impl World {
    /// A frame leaves a host.
    pub(super) fn transmit(&mut self, id: NodeId, frame: Frame) {
        let node = &self.nodes[id.0];
        let addresses = node.kernel.addresses();
        let is_own = |source| addresses.contains(&source);
        if !frame.outer_source().is_none_or(is_own) {
            self.note(|| Happened::Sent {
                from: id,
                to: None,
                wire: Wire::of(&frame),
                fate: Fate::Lost(NO_SOURCE),
            });
            return;
        }
        self.observe_departure(id, &frame);
        let wire = self.trace.is_on().then(|| Wire::of(&frame));
        let departed = self.leave(id, frame);
        if let Some(wire) = wire {
            let (to, fate) = match &departed {
                Ok(departed) => departed.seen(),
                Err(why) => (None, Fate::Lost(why)),
            };
            let from = id;
            self.note(|| Happened::Sent {
                from,
                to,
                wire,
                fate,
            });
        }
        let Ok(departed) = departed else { return };
        for at in departed.arrivals {
            let frame = departed.frame.clone();
            let happening = match departed.hop {
                Hop::Host(to) => Happening::Arrival(to, frame),
                Hop::Nat(nat) => Happening::FromOutside(nat, frame),
            };
            self.schedule(at, happening);
        }
    }

    /// The way of a frame from a host, through the NAT before it.
    fn leave(&mut self, id: NodeId, frame: Frame) -> Result<Departed, &'static str> {
        let site = self.nodes[id.0].nat;
        let destination = frame.destination();
        let in_clear = matches!(frame, Frame::Clear(_));
        let near = site.and_then(|_| self.host_at(destination, site, in_clear));
        let inside = frame.outer_source();
        let (hop, frame) = match (near, site) {
            (Some(near), _) => (Hop::Host(near), frame),
            (None, site) => {
                let frame = match site {
                    Some(nat) => self.translate(nat, Side::Inside, frame)?,
                    None => frame,
                };
                let far = self.host_at(destination, None, in_clear).map(Hop::Host);
                let far = far.or_else(|| self.nat_at(destination).map(Hop::Nat));
                (far.ok_or(NOBODY)?, frame)
            }
        };
        let arrivals = self
            .network
            .arrivals(&frame, inside, self.now, &mut self.random);
        Ok(Departed {
            frame,
            hop,
            arrivals,
        })
    }

    /// The host that has an address, among those behind one NAT or those before all. A packet in
    /// clear finds its host wherever that is, so that it is not overlooked.
    fn host_at(&self, address: IpAddr, site: Option<NatId>, anywhere: bool) -> Option<NodeId> {
        let mut nodes = self.nodes.iter();
        let found = nodes.position(|node| {
            let kernel = &node.kernel;
            (anywhere || node.nat == site)
                && (kernel.addresses().contains(&address) || kernel.serves(address))
        });
        found.map(NodeId)
    }

    /// A frame has come to a NAT from outside.
    pub(super) fn enter(&mut self, nat: NatId, frame: Frame) {
        let wire = Wire::of(&frame);
        let passed = self.translate(nat, Side::Outside, frame);
        let passed = passed.and_then(|frame| {
            let to = self.host_at(frame.destination(), Some(nat), false);
            to.map(|to| (to, frame)).ok_or(NOBODY)
        });
        let verdict = passed.as_ref().map(|(to, _)| *to).map_err(|why| *why);
        self.note(|| Happened::FromOutside { nat, wire, verdict });
        let Ok((to, frame)) = passed else { return };
        let (now, random) = (self.now, &mut self.random);
        for at in self.network.arrivals_inside(&frame, now, random) {
            self.schedule(at, Happening::Arrival(to, frame.clone()));
        }
    }

    /// A frame has come to a host.
    pub(super) fn arrive(&mut self, id: NodeId, frame: Frame) {
        if self.nodes[id.0].is_off || self.nodes[id.0].is_suspended {
            return;
        }
        match frame {
            Frame::Ike(datagram) => {
                let arrived = Datagram {
                    local: datagram.remote,
                    remote: datagram.local,
                    payload: datagram.payload,
                };
                self.feed(id, Input::Datagram(arrived));
            }
            // The kernel's UDP socket takes it and tells nobody (RFC 3948 §2.3).
            Frame::Keepalive { .. } => {}
            frame @ (Frame::Esp { .. } | Frame::Clear(_)) => {
                self.nodes[id.0].passing().receive(frame, self.now);
            }
        }
    }

    /// What leaves a host is its flow's account's, and the invariants'.
    fn observe_departure(&mut self, id: NodeId, frame: &Frame) {
        match frame {
            Frame::Ike(_) | Frame::Keepalive { .. } => {}
            Frame::Esp { sa, inner, .. } => {
                if let Body::Data { .. } = inner.body {
                    let sent = &mut self.nodes[id.0].data_sent;
                    *sent.entry(*sa).or_default() += 1;
                }
                self.observed.push(Observed::Encrypted(id, *sa, *inner));
            }
            Frame::Clear(packet) => {
                if let Body::Data { flow, .. } = packet.body {
                    self.flows[flow.0].account.clear += 1;
                }
                self.observed.push(Observed::InClear(id, *packet));
            }
        }
    }
}
