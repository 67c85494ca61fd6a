//! The behaviours of a NAT for UDP, in the words of RFC 4787.

use std::time::Duration;

/// How a NAT treats UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpSettings {
    /// When a client's port gets the same public port for another destination.
    pub mapping: Mapping,
    /// Who may send to a mapping's public port.
    pub filtering: Filtering,
    /// Which public port a new mapping gets.
    pub ports: PortAssignment,
    /// How long a mapping lives after the packet that last refreshed it.
    pub expiry: Duration,
    /// Whether packets from outside refresh a mapping too; those from inside always do (§4.3).
    pub inbound_refreshes: bool,
}

impl UdpSettings {
    /// Endpoint-independent mapping, address- and port-dependent filtering, ports kept where they
    /// are free, two minutes (RFC 4787 REQ-5): a usual home router.
    pub const fn port_restricted() -> Self {
        Self {
            mapping: Mapping::EndpointIndependent,
            filtering: Filtering::AddressAndPortDependent,
            ports: PortAssignment::Preserve,
            expiry: Duration::from_secs(120),
            inbound_refreshes: false,
        }
    }

    /// Mapping and filtering by address and port, and a public port unlike the client's: a
    /// carrier's NAT, once called symmetric.
    pub const fn symmetric() -> Self {
        Self {
            mapping: Mapping::AddressAndPortDependent,
            filtering: Filtering::AddressAndPortDependent,
            ports: PortAssignment::Change,
            expiry: Duration::from_secs(120),
            inbound_refreshes: false,
        }
    }
}

impl Default for UdpSettings {
    fn default() -> Self {
        Self::port_restricted()
    }
}

/// Address and port mapping (RFC 4787 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapping {
    /// One public port for all that leaves from one client port.
    EndpointIndependent,
    /// One for each address that it is sent to.
    AddressDependent,
    /// One for each address and port.
    AddressAndPortDependent,
}

/// Filtering (RFC 4787 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filtering {
    /// Anybody may send to a mapping.
    EndpointIndependent,
    /// Addresses that its client has sent to.
    AddressDependent,
    /// Addresses and ports that its client has sent to.
    AddressAndPortDependent,
}

/// Port assignment (RFC 4787 §4.2.1). A port that is not the client's own is below 1024 if that is
/// (REQ-3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortAssignment {
    /// The client's own port if no other mapping has it, else the next free one.
    Preserve,
    /// As Linux does: the port that another mapping of the same client port has, else the client's
    /// own, if no mapping of that port talks to the same remote address and port; else the next free
    /// one. Mappings of one public port are told apart by whom they talk to.
    PreservePerRemote,
    /// Always the client's own port, whoever has it too (§4.2.1 warns of it): what comes in goes to
    /// the client that sent last.
    Overload,
    /// Never the client's own port. Ports come in turn and are not reused after an expiry or a
    /// crash, so that a mapping that was lost comes back with another port.
    Change,
}
