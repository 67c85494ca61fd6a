//! A script on the kernel model.

use std::time::Duration;

use epochgate_controller::io::{Encapsulation, PingNonce, XfrmError, XfrmReply};
use epochgate_controller::{Secret, Timestamp};
use ipnet::IpNet;

use super::place::{self, HOST, HOST_TOO, NAT_T_PORT, PEER};
use super::{
    Content, Departure, Family, Incoming, Intrusion, Item, Outcome, Outgoing, Period, Script, Step,
};
use crate::kernel::{Drop, Effect, Kernel, Slack, Timing};
use crate::packet::{Body, FlowId, Frame, Packet};
use crate::random::Random;

/// When each step of a script began and ended, since its start.
pub type Clock = Vec<(Duration, Duration)>;

/// How late timers are in one run more than in the one before, percent of what they may be.
const STEP: usize = 4;

/// What the model shows at these times, with timers as early as they may be, as late, and in between.
#[must_use]
pub fn on_model(script: &Script, clock: &Clock) -> Vec<Vec<Period>> {
    let slacks = (0..=100).step_by(STEP).map(Slack::Percent);
    slacks.map(|slack| shown(script, clock, slack)).collect()
}

fn shown(script: &Script, clock: &Clock, slack: Slack) -> Vec<Period> {
    let mut run = Run::new(script, slack);
    for (step, (began, ended)) in script.steps.iter().zip(clock) {
        let at = *began + slack.of(ended.saturating_sub(*began));
        run.step(step, Timestamp::ZERO + at, Timestamp::ZERO + *ended);
    }
    run.seen
}

struct Run {
    kernel: Kernel,
    period: Period,
    seen: Vec<Period>,
}

impl Run {
    fn new(script: &Script, slack: Slack) -> Self {
        let families = [Family::V4, Family::V6];
        let inner = families.map(place::inner);
        let behind = families.map(|family| IpNet::from(place::lan(family)));
        let addresses = [HOST, HOST_TOO].into_iter().chain(inner).collect();
        let mut kernel = Kernel::new(addresses, behind.to_vec(), Random::new(0));
        kernel.set_listening(true);
        kernel.set_timing(Timing {
            larval: Duration::from_secs(script.larval_seconds.into()),
            slack,
        });
        Self {
            kernel,
            period: Period::default(),
            seen: Vec::new(),
        }
    }

    fn step(&mut self, step: &Step, at: Timestamp, ended: Timestamp) {
        if let Step::Wait(_) = step {
            self.pass(ended);
            self.seen.push(std::mem::take(&mut self.period));
            return;
        }
        self.pass(at);
        let outcome = match step {
            Step::Operation(op) => self.kernel.perform(op.clone(), at).into(),
            Step::Ping(ping) => match self.kernel.ping(ping, at) {
                Ok(()) => Outcome::Done,
                Err(_) => Outcome::Failed,
            },
            Step::Send(packet) => self.send(packet, at),
            Step::Receive(incoming) => {
                self.kernel.receive(esp(incoming), at);
                Outcome::Done
            }
            Step::ReceiveClear(content) => {
                self.kernel.receive(Frame::Clear(packet(content)), at);
                Outcome::Done
            }
            Step::Intrusion(intrusion) => self.intrude(*intrusion),
            Step::Wait(_) => return,
        };
        self.period.outcomes.push(outcome);
        self.observe();
    }

    /// Lets timers fire.
    fn pass(&mut self, until: Timestamp) {
        while let Some(at) = self.kernel.next_timeout().filter(|at| *at <= until) {
            self.kernel.handle_timeout(at);
            self.observe();
        }
    }

    fn send(&mut self, outgoing: &Outgoing, at: Timestamp) -> Outcome {
        let family = outgoing.family;
        let source = if outgoing.forwarded {
            place::lan(family)
        } else {
            place::inner(family)
        };
        let packet = Packet {
            source,
            destination: place::remote(family),
            body: data(outgoing.number),
            waited: false,
        };
        self.kernel.send(packet, at);
        let refused = self.observe().into_iter().next();
        match refused {
            // A forwarded packet's sender hears nothing.
            None => Outcome::Done,
            Some(_) if outgoing.forwarded => Outcome::Done,
            Some(Drop::OutboundPolicy) => Outcome::Exists,
            Some(_) => Outcome::Failed,
        }
    }

    fn intrude(&mut self, intrusion: Intrusion) -> Outcome {
        let found = match intrusion {
            Intrusion::DeleteSa(id) => self.kernel.steal_sa(id),
            Intrusion::DeletePolicy(key) => self.kernel.steal_policy(key),
            Intrusion::FlushSas => {
                self.kernel.flush_sas();
                true
            }
            Intrusion::FlushPolicies => {
                self.kernel.flush_policies();
                true
            }
        };
        if found {
            Outcome::Done
        } else {
            Outcome::Missing
        }
    }

    /// Writes down what the kernel did; returns why packets ended.
    fn observe(&mut self) -> Vec<Drop> {
        let mut drops = Vec::new();
        while let Some(effect) = self.kernel.poll_effect() {
            match effect {
                Effect::Transmit(frame) => self.period.left.extend(departure(&frame)),
                Effect::Authenticated(_) => {}
                Effect::Deliver(packet) => {
                    let lan = self.kernel.serves(packet.destination);
                    let item = item(&packet.body);
                    self.period.delivered[usize::from(lan)].extend(item);
                }
                Effect::Dropped(_, why) => {
                    if let Some(counter) = counter(why) {
                        *self.period.errors.entry(counter.to_owned()).or_default() += 1;
                    }
                    drops.push(why);
                }
                Effect::Event(event) => self.period.events.push(event),
            }
        }
        drops
    }
}

impl From<Result<XfrmReply, XfrmError>> for Outcome {
    fn from(result: Result<XfrmReply, XfrmError>) -> Self {
        match result {
            Ok(XfrmReply::Done) => Self::Done,
            Ok(XfrmReply::Packets(packets)) => Self::Packets(packets),
            Ok(XfrmReply::Ours { policies, sas }) => Self::Ours {
                policies: policies.into_iter().collect(),
                sas: sas.into_iter().map(|sa| (sa.id, sa.reqid)).collect(),
            },
            Err(XfrmError::Exists(_)) => Self::Exists,
            Err(XfrmError::Missing(_)) => Self::Missing,
            Err(XfrmError::Other(_)) => Self::Failed,
        }
    }
}

fn data(number: u32) -> Body {
    Body::Data {
        flow: FlowId(0),
        sequence: number.into(),
    }
}

fn packet(content: &Content) -> Packet {
    let (family, destination, body) = match *content {
        Content::Data {
            number,
            family,
            forwarded: true,
        } => (family, place::lan(family), data(number)),
        Content::Data {
            number,
            family,
            forwarded: false,
        } => (family, place::inner(family), data(number)),
        Content::Echo { nonce, family } => {
            let body = Body::EchoRequest(PingNonce(nonce.into()));
            (family, place::inner(family), body)
        }
    };
    Packet {
        source: place::remote(family),
        destination,
        body,
        waited: false,
    }
}

fn esp(incoming: &Incoming) -> Frame {
    let mut key = place::key(incoming.sa.spi);
    if !incoming.genuine {
        key[0] ^= 1;
    }
    Frame::Esp {
        source: PEER,
        sa: incoming.sa,
        encapsulation: incoming.port.map(|source_port| Encapsulation {
            source_port,
            destination_port: NAT_T_PORT,
        }),
        sequence: incoming.sequence.into(),
        key: Secret::from(key.to_vec()).into(),
        inner: packet(&incoming.content),
    }
}

fn departure(frame: &Frame) -> Option<Departure> {
    match frame {
        Frame::Ike(_) | Frame::Keepalive { .. } => None,
        Frame::Esp {
            sa,
            sequence,
            inner,
            ..
        } => Some(Departure {
            esp: Some((sa.spi.0.get(), u32::try_from(*sequence).ok()?)),
            item: item(&inner.body)?,
        }),
        Frame::Clear(packet) => Some(Departure {
            esp: None,
            item: item(&packet.body)?,
        }),
    }
}

fn item(body: &Body) -> Option<Item> {
    let number = |number: u64| u32::try_from(number).ok();
    match body {
        Body::Data { sequence, .. } => number(*sequence).map(Item::Data),
        Body::EchoRequest(nonce) => number(nonce.0).map(Item::Request),
        Body::EchoReply(nonce) => number(nonce.0).map(Item::Reply),
        Body::NeighbourDiscovery { .. } => None,
    }
}

/// The counter that tells of a packet's end.
fn counter(why: Drop) -> Option<&'static str> {
    match why {
        Drop::QueueFull | Drop::QueuePurged | Drop::NoRoute => None,
        Drop::NoState => Some("XfrmInNoStates"),
        Drop::Encapsulation => Some("XfrmInStateMismatch"),
        Drop::WrongKey => Some("XfrmInStateProtoError"),
        Drop::Replayed => Some("XfrmInStateSeqError"),
        Drop::InboundPolicy => Some("XfrmInTmplMismatch"),
        Drop::NoInboundPolicy => Some("XfrmInNoPols"),
        Drop::OutboundPolicy => Some("XfrmOutPolError"),
        Drop::NotQueued => Some("XfrmOutNoStates"),
    }
}
