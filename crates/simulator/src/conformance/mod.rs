//! Scripts of kernel operations and packets, to be run on this crate's kernel model and on a real
//! kernel alike: the same must be seen of both.
//!
//! A [`Script`] is about one host with the addresses of [`place`], a peer in front of it and a LAN
//! behind it. Its steps are what the daemon asks of the kernel, packets, and what somebody else does.
//! Each step is answered by an [`Outcome`]; what else is seen (what left, what arrived, events,
//! counters) is gathered at each [`Step::Wait`] into a [`Period`]. [`on_model`] runs a script on the
//! model; whoever has a real kernel runs it there and compares with [`difference`].
//!
//! A real machine takes its time, and a timer of the kernel may fire in the middle of a step. So the
//! model is run at the times that the real steps took, with timers as early as they may be, as late,
//! and in between. Where these runs differ the script proves nothing that time, and is run again.

mod model;
pub mod place;
mod random;
mod scripts;
mod shrink;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use epochgate_controller::io::{ControlPing, PolicyKey, SaId, XfrmEvent, XfrmOp};

pub use model::{Clock, on_model};
pub use random::script as random;
pub use scripts::{facts, slow_facts};
pub use shrink::shrink;

/// Default of `net.core.xfrm_acq_expires`, seconds.
const LARVAL_SECONDS: u32 = 30;

/// What is done, and what the host is like.
#[derive(Clone, Debug)]
pub struct Script {
    /// What it shows.
    pub name: String,
    /// `net.core.xfrm_acq_expires`, seconds.
    pub larval_seconds: u32,
    /// What is done, in this order. What follows the last [`Step::Wait`] is not seen.
    pub steps: Vec<Step>,
}

/// One thing that is done.
#[derive(Clone, Debug)]
pub enum Step {
    /// The daemon asks the kernel.
    Operation(XfrmOp),
    /// The daemon sends a control ping.
    Ping(ControlPing),
    /// A packet goes out: an application's, or one to be forwarded.
    Send(Outgoing),
    /// ESP comes from the peer.
    Receive(Incoming),
    /// A packet comes from the peer that no SA protects.
    ReceiveClear(Content),
    /// Somebody else does something to the kernel.
    Intrusion(Intrusion),
    /// Time passes, and what was seen is written down.
    Wait(Duration),
}

/// An IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A UDP packet from this host or its LAN to the peer's networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Tells it from others.
    pub number: u32,
    /// Of its addresses.
    pub family: Family,
    /// From the LAN.
    pub forwarded: bool,
}

/// An ESP packet from the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// To this SA of the host's.
    pub sa: SaId,
    /// Sequence number.
    pub sequence: u32,
    /// Whether it has the SA's key.
    pub genuine: bool,
    /// The UDP port that it comes from, if it is in UDP.
    pub port: Option<u16>,
    /// What it carries.
    pub content: Content,
}

/// An inner packet from the peer's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Content {
    /// UDP to this host or, forwarded, its LAN.
    Data {
        /// Tells it from others.
        number: u32,
        /// Of its addresses.
        family: Family,
        /// To the LAN.
        forwarded: bool,
    },
    /// An echo request to this host.
    Echo {
        /// Tells it from others.
        nonce: u32,
        /// Of its addresses.
        family: Family,
    },
}

/// What somebody else does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intrusion {
    /// `ip xfrm state delete`.
    DeleteSa(SaId),
    /// `ip xfrm policy delete`.
    DeletePolicy(PolicyKey),
    /// `ip xfrm state flush`.
    FlushSas,
    /// `ip xfrm policy flush`.
    FlushPolicies,
}

/// How a step was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Done,
    /// Packets that an SA counted.
    Packets(u64),
    /// What of ours there is.
    Ours {
        /// Policies.
        policies: BTreeSet<PolicyKey>,
        /// SAs with their reqids.
        sas: BTreeSet<(SaId, u32)>,
    },
    /// EEXIST.
    Exists,
    /// ESRCH or ENOENT.
    Missing,
    /// Anything else.
    Failed,
}

/// What an inner packet is that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Item {
    /// A script's UDP packet.
    Data(u32),
    /// An echo request or control ping.
    Request(u32),
    /// The reply to one.
    Reply(u32),
}

/// A packet that left towards the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Departure {
    /// The SPI and the sequence number of its ESP; `None`: it left in clear.
    pub esp: Option<(u32, u32)>,
    /// What it is.
    pub item: Item,
}

/// What was seen from one [`Step::Wait`] to the end of the next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Period {
    /// The answers to its steps, waiting excepted.
    pub outcomes: Vec<Outcome>,
    /// What left, in this order.
    pub left: Vec<Departure>,
    /// What arrived at sockets of the host and in the LAN, each in this order.
    pub delivered: [Vec<Item>; 2],
    /// What the daemon was told, in this order.
    pub events: Vec<XfrmEvent>,
    /// How much the kernel's error counters have grown (`/proc/net/xfrm_stat`), where they have.
    pub errors: BTreeMap<String, u64>,
}

/// Where two runs differ first, told for a person; `None` if they do not.
#[must_use]
pub fn difference(model: &[Period], real: &[Period]) -> Option<String> {
    let periods = model.iter().zip(real).enumerate();
    for (number, (model, real)) in periods {
        let pairs = [
            (
                "outcomes",
                format!("{:?}", model.outcomes),
                format!("{:?}", real.outcomes),
            ),
            (
                "left",
                format!("{:?}", model.left),
                format!("{:?}", real.left),
            ),
            (
                "delivered",
                format!("{:?}", model.delivered),
                format!("{:?}", real.delivered),
            ),
            (
                "events",
                format!("{:?}", model.events),
                format!("{:?}", real.events),
            ),
            (
                "errors",
                format!("{:?}", counted(&model.errors)),
                format!("{:?}", counted(&real.errors)),
            ),
        ];
        let differing: Vec<String> = pairs
            .iter()
            .filter(|(_, model, real)| model != real)
            .map(|(what, model, real)| format!("  {what}\n    model {model}\n    real  {real}"))
            .collect();
        if !differing.is_empty() {
            return Some(format!("in period {number}:\n{}", differing.join("\n")));
        }
    }
    (model.len() != real.len())
        .then(|| format!("model: {} periods, real: {}", model.len(), real.len()))
}

/// Each raw socket that a packet matches looks at the inbound policies once more: of packets that
/// these refuse it can only be said that there were some.
fn counted(errors: &BTreeMap<String, u64>) -> BTreeMap<&str, u64> {
    let once = |name: &str| matches!(name, "XfrmInTmplMismatch" | "XfrmInNoPols");
    let errors = errors.iter();
    errors
        .map(|(name, count)| (name.as_str(), if once(name) { 1 } else { *count }))
        .collect()
}
