//! Scenarios: a world and what goes wrong in it, as plain data.
//!
//! A scenario is made from a seed ([`Scenario::random`]), read from a file, or cut down from another
//! one ([`shrink`](crate::shrink)). [`run`] plays it: faults first, then everything is healed. Its JSON
//! is what a violation prints and what `incidents/` keeps.

mod generate;
mod office;
mod perform;
mod run;
mod verdict;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use run::{Options, Outcome, run, run_broken};

/// Clients that a scenario may have.
pub const CLIENTS_MAX: usize = 8;

/// A world, and what happens in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What a recorded scenario is about.
    #[serde(default, skip_serializing_if = "is_default")]
    pub about: String,
    /// All chance inside the world: SPIs, nonces, jitter, which frames a rule hits.
    pub seed: u64,
    /// One way through the network, milliseconds.
    pub delay_ms: u32,
    /// What stands before the clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat: Option<NatPlan>,
    /// One client each, and its tunnel to the one server.
    pub tunnels: Vec<TunnelPlan>,
    /// Between two packets of each tunnel's two streams, milliseconds.
    pub interval_ms: u32,
    /// What happens, ordered by time.
    #[serde(default)]
    pub acts: Vec<Act>,
    /// When everything is healed, milliseconds from the start.
    pub heal_ms: u32,
}

/// A NAT and its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum NatPlan {
    /// Linux VPN Masquerade.
    Masquerade {
        /// Whether unknown inbound SPIs go to the client that spoke IKE last.
        guessing: bool,
        /// Seconds that an unanswered entry stays.
        pending_s: u32,
        /// Seconds that an unused entry stays.
        idle_s: u32,
    },
    /// ESP by addresses only.
    Conntrack,
    /// UDP alone (RFC 4787).
    Udp {
        /// Whether each destination gets a port of its own (address and port-dependent mapping).
        symmetric: bool,
        /// Seconds that an unused mapping stays.
        idle_s: u32,
    },
}

/// A client and its tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TunnelPlan {
    /// `start = "always"` instead of on demand.
    #[serde(skip_serializing_if = "is_default")]
    pub always: bool,
    /// The server knows the client's address and starts the tunnel too.
    #[serde(skip_serializing_if = "is_default")]
    pub server_starts: bool,
    /// `nat-t = "off"`.
    #[serde(skip_serializing_if = "is_default")]
    pub plain_esp: bool,
    /// `wait = false` at the server.
    #[serde(skip_serializing_if = "is_default")]
    pub no_wait: bool,
    /// `server-rekey = "ignore"` at the client.
    #[serde(skip_serializing_if = "is_default")]
    pub ignore_server_rekey: bool,
    /// `proof = "any-inbound"` at the client.
    #[serde(skip_serializing_if = "is_default")]
    pub any_inbound: bool,
    /// The client's lifetimes.
    #[serde(skip_serializing_if = "is_default")]
    pub client: Lifetimes,
    /// The server's lifetimes.
    #[serde(skip_serializing_if = "is_default")]
    pub server: Lifetimes,
}

/// Lifetimes, in seconds; 0: the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lifetimes {
    /// Of an epoch.
    #[serde(skip_serializing_if = "is_default")]
    pub epoch_s: u32,
    /// Of an IKE SA.
    #[serde(skip_serializing_if = "is_default")]
    pub ike_s: u32,
    /// Until both ends authenticate anew.
    #[serde(skip_serializing_if = "is_default")]
    pub reauthenticate_s: u32,
}

/// Something that happens at a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Act {
    /// Milliseconds from the start.
    pub at_ms: u32,
    /// What happens.
    #[serde(flatten)]
    pub action: Action,
}

/// One end of a tunnel, by the tunnel's number. What concerns a whole host concerns the one where
/// that end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The client's.
    Client(usize),
    /// The server's.
    Server(usize),
}

impl End {
    /// The number of the tunnel.
    #[must_use]
    pub fn tunnel(self) -> usize {
        match self {
            Self::Client(number) | Self::Server(number) => number,
        }
    }
}

/// What can happen. What lasts for a time (`for_ms`) ends when all is healed at the latest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Action {
    /// The network loses, copies or delays some frames.
    Disturb {
        /// Only what this end's host sends.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<End>,
        /// Which frames.
        frames: Frames,
        /// What happens to them.
        harm: Harm,
        /// In how many of 1000 cases.
        permille: u32,
        /// How many at most.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        times: Option<u32>,
        /// How long.
        for_ms: u32,
    },
    /// Frames take up to so much longer, and overtake each other.
    Jitter {
        /// How much.
        up_to_ms: u32,
        /// How long.
        for_ms: u32,
    },
    /// Nothing gets to this end's host, and nothing away.
    Partition {
        /// Whose.
        end: End,
        /// How long.
        for_ms: u32,
    },
    /// No ESP gets to this end's host, and none away; IKE passes.
    EspStops {
        /// Whose.
        end: End,
        /// How long.
        for_ms: u32,
    },
    /// No ESP ever again passes on the SPI that this end now receives on, healed or not.
    SpiDies {
        /// Whose.
        end: End,
    },
    /// The NAT's tables are empty.
    NatForgets,
    /// The NAT is down, then its tables are empty.
    NatReboots {
        /// How long.
        for_ms: u32,
    },
    /// The daemon is gone, then starts again; its kernel goes on.
    Kill {
        /// Whose.
        end: End,
        /// How long.
        for_ms: u32,
    },
    /// The host is down, then comes back with an empty kernel.
    Reboot {
        /// Whose.
        end: End,
        /// How long.
        for_ms: u32,
    },
    /// The host stands still: nothing runs, what arrives is lost, and its clock goes on.
    Suspend {
        /// Whose.
        end: End,
        /// How long.
        for_ms: u32,
    },
    /// The client's host gets another address.
    Move {
        /// Whose.
        tunnel: usize,
    },
    /// An operator takes the tunnel down, and later up again.
    Down {
        /// At which end.
        end: End,
        /// How long it is down.
        for_ms: u32,
    },
    /// An operator wants a new epoch.
    Rekey {
        /// At which end.
        end: End,
    },
    /// An operator wants the IKE SA rekeyed.
    RekeyIke {
        /// At which end.
        end: End,
    },
    /// An operator wants a new IKE SA.
    Reauthenticate {
        /// At which end.
        end: End,
    },
    /// The daemon reads its configuration again, and it is the same.
    Reload {
        /// Whose.
        end: End,
    },
    /// Somebody removes all our SAs (`ip xfrm state flush`).
    Flush {
        /// In whose kernel.
        end: End,
    },
    /// Somebody removes one of our SAs.
    Steal {
        /// In whose kernel.
        end: End,
        /// Which, of those that are there.
        nth: usize,
    },
    /// One of our SAs reaches its hard limit.
    Expire {
        /// In whose kernel.
        end: End,
        /// Which, of those that are there.
        nth: usize,
    },
    /// Somebody removes all policies (`ip xfrm policy flush`), with what they hold.
    FlushPolicies {
        /// In whose kernel.
        end: End,
    },
    /// Somebody removes one of our policies.
    StealPolicy {
        /// In whose kernel.
        end: End,
        /// Which, of those that are there.
        nth: usize,
    },
    /// The kernel's next events find no room in the daemon's socket (ENOBUFS).
    LoseEvents {
        /// In whose kernel.
        end: End,
        /// How many.
        events: u32,
    },
    /// The next operations of a kind fail.
    Fail {
        /// In whose kernel.
        end: End,
        /// Which kind.
        operation: Operation,
        /// In which way.
        #[serde(default, skip_serializing_if = "is_default")]
        how: Fault,
        /// How many.
        times: u32,
    },
    /// Packets at once.
    Burst {
        /// From which end to the other.
        end: End,
        /// How many.
        packets: u32,
    },
    /// The tunnel's streams pause.
    Silence {
        /// Whose.
        tunnel: usize,
        /// How long.
        for_ms: u32,
    },
}

/// Which frames a disturbance is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Frames {
    /// All.
    All,
    /// IKE requests.
    IkeRequests,
    /// IKE responses.
    IkeResponses,
    /// ESP.
    Esp,
    /// Control pings.
    Pings,
}

/// What happens to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Harm {
    /// It is lost.
    Lose,
    /// It arrives again, so many milliseconds later, unless no SA protects it.
    Copy(u32),
    /// It arrives so many milliseconds later.
    Delay(u32),
}

/// A kind of kernel operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// An inbound SA added.
    AddInbound,
    /// An outbound SA added.
    AddOutbound,
    /// An SA moved.
    MoveSa,
    /// An SA removed.
    RemoveSa,
    /// Policies updated.
    UpdatePolicies,
    /// A counter read.
    ReadPackets,
    /// Our policies and SAs listed.
    ReadOurs,
    /// Policies created.
    CreatePolicies,
    /// Policies removed.
    RemovePolicies,
    /// First packets reported, or no more.
    ReportFirst,
}

/// How a kernel operation fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// It is refused (ENOMEM).
    #[default]
    Refused,
    /// Of several policies the first half is written; anything else is refused.
    Halfway,
    /// It is done, and the answer is lost (ENOBUFS).
    Unanswered,
}

/// Why something that was read is no scenario.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Mistake {
    /// It has none, or too many.
    #[error("{0} tunnels; 1 to {CLIENTS_MAX} are possible")]
    Tunnels(usize),
    /// An action is about a tunnel that is not there.
    #[error("act {act} is about tunnel {tunnel}; there are {count}, counted from 0")]
    NoSuchTunnel {
        /// The action's number, from 0.
        act: usize,
        /// What it names.
        tunnel: usize,
        /// How many there are.
        count: usize,
    },
    /// Actions are not ordered by time.
    #[error("act {0} is before the one that precedes it")]
    Order(usize),
}

impl Scenario {
    /// Checks what was read from a file.
    ///
    /// # Errors
    /// The first mistake.
    pub fn check(&self) -> Result<(), Mistake> {
        let count = self.tunnels.len();
        if !(1..=CLIENTS_MAX).contains(&count) {
            return Err(Mistake::Tunnels(count));
        }
        let mut latest = 0;
        for (act, Act { at_ms, action }) in self.acts.iter().enumerate() {
            if let Some(tunnel) = action.tunnel().filter(|tunnel| *tunnel >= count) {
                return Err(Mistake::NoSuchTunnel { act, tunnel, count });
            }
            if *at_ms < latest {
                return Err(Mistake::Order(act));
            }
            latest = *at_ms;
        }
        Ok(())
    }
}

impl Action {
    /// The tunnel that it is about; `None`: the network or the NAT.
    #[must_use]
    pub fn tunnel(&self) -> Option<usize> {
        match self {
            Self::Disturb { from, .. } => from.map(End::tunnel),
            Self::Jitter { .. } | Self::NatForgets | Self::NatReboots { .. } => None,
            Self::Partition { end, .. }
            | Self::EspStops { end, .. }
            | Self::SpiDies { end }
            | Self::Kill { end, .. }
            | Self::Reboot { end, .. }
            | Self::Suspend { end, .. }
            | Self::Down { end, .. }
            | Self::Rekey { end }
            | Self::RekeyIke { end }
            | Self::Reauthenticate { end }
            | Self::Reload { end }
            | Self::Flush { end }
            | Self::FlushPolicies { end }
            | Self::StealPolicy { end, .. }
            | Self::LoseEvents { end, .. }
            | Self::Steal { end, .. }
            | Self::Expire { end, .. }
            | Self::Fail { end, .. }
            | Self::Burst { end, .. } => Some(end.tunnel()),
            Self::Move { tunnel } | Self::Silence { tunnel, .. } => Some(*tunnel),
        }
    }

    /// The tunnel's number, to be changed.
    pub(crate) fn tunnel_mut(&mut self) -> Option<&mut usize> {
        match self {
            Self::Disturb { from, .. } => from.as_mut().map(End::tunnel_mut),
            Self::Jitter { .. } | Self::NatForgets | Self::NatReboots { .. } => None,
            Self::Partition { end, .. }
            | Self::EspStops { end, .. }
            | Self::SpiDies { end }
            | Self::Kill { end, .. }
            | Self::Reboot { end, .. }
            | Self::Suspend { end, .. }
            | Self::Down { end, .. }
            | Self::Rekey { end }
            | Self::RekeyIke { end }
            | Self::Reauthenticate { end }
            | Self::Reload { end }
            | Self::Flush { end }
            | Self::FlushPolicies { end }
            | Self::StealPolicy { end, .. }
            | Self::LoseEvents { end, .. }
            | Self::Steal { end, .. }
            | Self::Expire { end, .. }
            | Self::Fail { end, .. }
            | Self::Burst { end, .. } => Some(end.tunnel_mut()),
            Self::Move { tunnel } | Self::Silence { tunnel, .. } => Some(tunnel),
        }
    }

    /// How long it lasts, to be changed.
    pub(crate) fn lasts_mut(&mut self) -> Option<&mut u32> {
        match self {
            Self::Disturb { for_ms, .. }
            | Self::Jitter { for_ms, .. }
            | Self::Partition { for_ms, .. }
            | Self::EspStops { for_ms, .. }
            | Self::NatReboots { for_ms }
            | Self::Kill { for_ms, .. }
            | Self::Reboot { for_ms, .. }
            | Self::Suspend { for_ms, .. }
            | Self::Down { for_ms, .. }
            | Self::Silence { for_ms, .. } => Some(for_ms),
            Self::SpiDies { .. }
            | Self::NatForgets
            | Self::Move { .. }
            | Self::Rekey { .. }
            | Self::RekeyIke { .. }
            | Self::Reauthenticate { .. }
            | Self::Reload { .. }
            | Self::Flush { .. }
            | Self::FlushPolicies { .. }
            | Self::StealPolicy { .. }
            | Self::LoseEvents { .. }
            | Self::Steal { .. }
            | Self::Expire { .. }
            | Self::Fail { .. }
            | Self::Burst { .. } => None,
        }
    }
}

impl End {
    fn tunnel_mut(&mut self) -> &mut usize {
        match self {
            Self::Client(number) | Self::Server(number) => number,
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
