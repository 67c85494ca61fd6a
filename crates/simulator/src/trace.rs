//! What happened in a world, as values.
//!
//! The world records while it runs; a [`Violation`](crate::Violation) takes the records along, and
//! whoever shows them turns them into text. A search over many seeds records nothing: a seed that
//! violates an invariant is run again with [`Recording::All`].

use std::collections::VecDeque;
use std::fmt;

use epochgate_controller::Timestamp;
use epochgate_controller::event::Event;
use epochgate_controller::io::{PolicyAction, Spi, XfrmEvent};
use epochgate_ike_wire::{ExchangeType, IkeSpi};

use crate::kernel::Drop;
use crate::packet::{Body, Frame, Packet};
use crate::world::{NatId, NodeId};

/// Records that [`Recording::Recent`] keeps.
const RECENT_MAX: usize = 160;

/// How much of what happens is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recording {
    /// Nothing.
    Off,
    /// The latest records.
    Recent,
    /// Everything.
    All,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub struct Record {
    /// When.
    pub at: Timestamp,
    /// What.
    pub what: Happened,
}

/// What can happen.
#[derive(Clone, Debug)]
pub enum Happened {
    /// A frame left a host.
    Sent {
        /// Which host.
        from: NodeId,
        /// The host that it is routed to, if any.
        to: Option<NodeId>,
        /// What it is.
        wire: Wire,
        /// What becomes of it.
        fate: Fate,
    },
    /// A NAT got a frame from outside.
    FromOutside {
        /// Which NAT.
        nat: NatId,
        /// What it is.
        wire: Wire,
        /// The host that it goes on to, or why it does not.
        verdict: Result<NodeId, &'static str>,
    },
    /// A packet ended in a host's kernel.
    Dropped(NodeId, Packet, Drop),
    /// A kernel told its listeners.
    Kernel(NodeId, XfrmEvent),
    /// Outbound policies do something else from now on.
    Gate(NodeId, PolicyAction),
    /// A daemon told its log.
    Told(NodeId, Event),
    /// Somebody did something to a host (or, without one, to the network).
    Done(Option<NodeId>, String),
}

/// A frame, as an observer of the network names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// An IKE message.
    Ike {
        /// Its exchange.
        exchange: ExchangeType,
        /// Whether it is a response.
        response: bool,
        /// Its message ID.
        message_id: u32,
        /// The initiator's SPI, which names the IKE SA.
        initiator: IkeSpi,
    },
    /// A datagram to an IKE port that is no IKE message.
    Datagram,
    /// ESP, and what is inside.
    Esp(Spi, Body),
    /// A NAT keepalive.
    Keepalive,
    /// A packet in clear.
    Clear(Body),
}

impl Wire {
    pub(crate) fn of(frame: &Frame) -> Self {
        match frame {
            Frame::Ike(_) => frame
                .ike_header()
                .map_or(Self::Datagram, |header| Self::Ike {
                    exchange: header.exchange,
                    response: header.flags.response,
                    message_id: header.message_id,
                    initiator: header.initiator_spi,
                }),
            Frame::Esp { sa, inner, .. } => Self::Esp(sa.spi, inner.body),
            Frame::Keepalive { .. } => Self::Keepalive,
            Frame::Clear(packet) => Self::Clear(packet.body),
        }
    }
}

/// What becomes of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives then: once, or more often.
    Arrives(Vec<Timestamp>),
    /// It is lost, and why.
    Lost(&'static str),
}

/// What was recorded.
#[derive(Clone, Debug)]
pub struct Trace {
    recording: Recording,
    records: VecDeque<Record>,
}

impl Trace {
    pub(crate) fn new(recording: Recording) -> Self {
        Self {
            recording,
            records: VecDeque::new(),
        }
    }

    /// Whether anything is recorded.
    pub(crate) fn is_on(&self) -> bool {
        self.recording != Recording::Off
    }

    /// Records, if anything is recorded: `what` is not evaluated otherwise.
    pub(crate) fn note(&mut self, at: Timestamp, what: impl FnOnce() -> Happened) {
        match self.recording {
            Recording::Off => return,
            Recording::Recent if self.records.len() == RECENT_MAX => {
                self.records.pop_front();
            }
            Recording::Recent | Recording::All => {}
        }
        self.records.push_back(Record { at, what: what() });
    }

    /// The records, oldest first.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.iter()
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.records.iter().try_for_each(|record| {
            let at = record.at.since(Timestamp::ZERO).as_secs_f64();
            writeln!(f, "{at:12.6} {}", record.what)
        })
    }
}

impl fmt::Display for Happened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent {
                from, wire, fate, ..
            } => {
                write!(f, "{from:?} sends {wire}")?;
                match fate {
                    Fate::Arrives(_) => Ok(()),
                    Fate::Lost(why) => write!(f, " (lost: {why})"),
                }
            }
            Self::FromOutside { nat, wire, verdict } => match verdict {
                Ok(to) => write!(f, "{nat:?} passes {wire} to {to:?}"),
                Err(why) => write!(f, "{nat:?} drops {wire}: {why}"),
            },
            Self::Dropped(node, packet, why) => write!(f, "{node:?} drops {packet:?}: {why:?}"),
            Self::Kernel(node, event) => write!(f, "{node:?} kernel: {event:?}"),
            Self::Gate(node, action) => write!(f, "{node:?} gate: {}", Gate(*action)),
            Self::Told(node, event) => {
                write!(f, "{node:?}")?;
                if let Some(epoch) = event.epoch {
                    write!(f, " epoch {epoch}")?;
                }
                write!(f, ": {}", event.kind)
            }
            Self::Done(Some(node), what) => write!(f, "{node:?}: {what}"),
            Self::Done(None, what) => write!(f, "network: {what}"),
        }
    }
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ike {
                exchange,
                response,
                message_id,
                ..
            } => {
                let kind = if *response { "response" } else { "request" };
                write!(f, "{exchange} {kind} {message_id}")
            }
            Self::Datagram => f.write_str("a datagram"),
            Self::Esp(spi, body) => write!(f, "ESP {:08x} {}", spi.0, Inside(*body)),
            Self::Keepalive => f.write_str("a NAT keepalive"),
            Self::Clear(body) => write!(f, "CLEAR {}", Inside(*body)),
        }
    }
}

/// An inner packet in a word.
pub(crate) struct Inside(pub(crate) Body);

impl fmt::Display for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Body::Data { sequence, .. } => write!(f, "data {sequence}"),
            Body::EchoRequest(_) => f.write_str("ping"),
            Body::EchoReply(_) => f.write_str("reply"),
            Body::NeighbourDiscovery { icmpv6_type } => write!(f, "ICMPv6 {icmpv6_type}"),
        }
    }
}

/// What an outbound policy does, in a few words.
pub(crate) struct Gate(pub(crate) PolicyAction);

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            PolicyAction::Exempt => f.write_str("exempt"),
            PolicyAction::Hold { .. } => f.write_str("hold"),
            PolicyAction::Pin { sa, .. } => write!(f, "open on {:08x}", sa.spi.0),
            PolicyAction::Accept { .. } => f.write_str("accept"),
        }
    }
}
