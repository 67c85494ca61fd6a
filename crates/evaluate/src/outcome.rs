//! What one run says: which fault, whose tunnels, and what became of each.

use serde::{Deserialize, Serialize};

/// Where tunnels were tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// In the simulator: its network, NAT models and kernel model.
    Simulator,
    /// On a real kernel, through the lab's forwarding NAT.
    Kernel,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The NAT forgets everything.
    Crash,
    /// A client's new inbound SPI is one that the NAT still has for another client.
    Collision,
    /// The server sends on a new epoch before the client, while no other client waits for an
    /// answer: the NAT drops it.
    RaceDropped,
    /// The same while the first packet of another client waits for an answer: that client gets it.
    RaceGiven,
    /// The answer to a client's first packet comes after the NAT has given up waiting for it.
    LateAnswer,
    /// A UDP NAT gives the client another port in the middle of everything.
    MappingChange,
}

impl Fault {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 6] = [
        Self::Crash,
        Self::Collision,
        Self::RaceDropped,
        Self::RaceGiven,
        Self::LateAnswer,
        Self::MappingChange,
    ];

    /// Its name in tables.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Crash => "NAT crash",
            Self::Collision => "SPI collision",
            Self::RaceDropped => "race, dropped",
            Self::RaceGiven => "race, misdelivered",
            Self::LateAnswer => "late answer",
            Self::MappingChange => "mapping change",
        }
    }
}

/// Whose tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contender {
    /// epochgate's IKE with SAs used as soon as they are negotiated: no pings, no holding, and IKE
    /// liveness checks as the only sign of a dead path.
    NoGate,
    /// strongSwan at both ends, with liveness checks.
    Strongswan,
    /// epochgate as it is, with its defaults.
    Epochgate,
}

impl Contender {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 3] = [Self::NoGate, Self::Strongswan, Self::Epochgate];

    /// Its name in tables.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::NoGate => "no gate",
            Self::Strongswan => "strongSwan",
            Self::Epochgate => "epochgate",
        }
    }
}

/// One office, one fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Where.
    pub place: Place,
    /// What went wrong.
    pub fault: Fault,
    /// Whose tunnels.
    pub contender: Contender,
    /// The seed, or the number of the run.
    pub number: u64,
    /// Time that was watched after the fault, in seconds.
    pub watched_s: u64,
    /// ESP packets that the NAT gave to another client than the one that they were for, from the
    /// fault on.
    pub misdelivered: u64,
    /// What became of each client's tunnel.
    pub tunnels: Vec<TunnelOutcome>,
}

/// What became of one tunnel, both directions together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelOutcome {
    /// Time from the fault to the end of the last silence of either direction that was longer than
    /// a second, in milliseconds: 0 where there was none, `None` where it had not ended when the
    /// run did.
    pub back_ms: Option<u64>,
    /// Packets that applications sent from the fault on.
    pub sent: u64,
    /// Those that had not arrived when the run ended.
    pub lost: u64,
    /// Control pings from the fault on.
    pub pings: u64,
}
