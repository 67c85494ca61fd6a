//! The parts that JSON of SAs, policies and events have in common. docs/inspection.md describes
//! them; [`SCHEMA`] counts up when one of them changes its meaning or goes.
//!
//! Numbers that a person compares with other tools' output (SPIs, marks) are strings in hexadecimal;
//! times are seconds since 1970; what is not there is `null`.

use std::net::IpAddr;

use epochgate_xfrm::{
    Limit, Limits, Mark, Offload, PortMatch, RawAttribute, SecurityContext, Selector, Usage,
};
use serde::Serialize;

use super::limits::Left;
use super::state::offload_flags;
use super::surroundings::Surroundings;
use super::words;

/// The version of everything that `epochgate xfrm … --json` prints.
pub(crate) const SCHEMA: u32 = 1;

#[derive(Debug, Serialize)]
pub(crate) struct MarkJson {
    value: String,
    mask: String,
}

impl From<Mark> for MarkJson {
    fn from(mark: Mark) -> Self {
        Self {
            value: format!("{:#x}", mark.value),
            mask: format!("{:#x}", mark.mask),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct PortJson {
    port: u16,
    mask: String,
}

/// `None` for any port.
fn port(wanted: PortMatch) -> Option<PortJson> {
    (wanted != PortMatch::ANY).then(|| PortJson {
        port: wanted.port,
        mask: format!("{:#x}", wanted.mask),
    })
}

#[derive(Debug, Serialize)]
pub(crate) struct SelectorJson {
    source: String,
    destination: String,
    /// 0 for any.
    protocol: u8,
    source_port: Option<PortJson>,
    destination_port: Option<PortJson>,
    /// 0 for any.
    interface_index: i32,
    /// 0 for any.
    user: u32,
}

impl From<&Selector> for SelectorJson {
    fn from(selector: &Selector) -> Self {
        Self {
            source: selector.source().to_string(),
            destination: selector.destination().to_string(),
            protocol: selector.protocol,
            source_port: port(selector.source_port),
            destination_port: port(selector.destination_port),
            interface_index: selector.interface_index,
            user: selector.user,
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct LimitJson {
    bytes: Option<u64>,
    packets: Option<u64>,
    seconds_since_added: Option<u64>,
    seconds_since_used: Option<u64>,
    left: Left,
}

#[derive(Debug, Serialize)]
pub(crate) struct LimitsJson {
    soft: LimitJson,
    hard: LimitJson,
}

impl LimitsJson {
    /// At `now`, in seconds since 1970.
    pub(crate) fn of(limits: &Limits, usage: &Usage, now: u64) -> Self {
        let one = |limit: &Limit| LimitJson {
            bytes: limit.bytes,
            packets: limit.packets,
            seconds_since_added: limit.seconds_since_added,
            seconds_since_used: limit.seconds_since_used,
            left: Left::of(limit, usage, now),
        };
        Self {
            soft: one(&limits.soft),
            hard: one(&limits.hard),
        }
    }
}

/// Hardware offload.
#[derive(Debug, Serialize)]
pub(crate) struct OffloadJson {
    /// The device's name.
    device: String,
    interface_index: i32,
    /// `packet` or `crypto`, and more.
    flags: Vec<String>,
}

impl OffloadJson {
    pub(crate) fn of(offload: Offload, host: &Surroundings) -> Self {
        Self {
            device: host.interface(offload.interface_index),
            interface_index: offload.interface_index,
            flags: offload_flags(offload.flags),
        }
    }
}

/// The label of a security module.
#[derive(Debug, Serialize)]
pub(crate) struct SecurityJson {
    domain: u8,
    algorithm: u8,
    label: String,
}

impl From<&SecurityContext> for SecurityJson {
    fn from(context: &SecurityContext) -> Self {
        Self {
            domain: context.domain,
            algorithm: context.algorithm,
            label: context.to_string(),
        }
    }
}

/// An attribute that crates/xfrm does not know.
#[derive(Debug, Serialize)]
pub(crate) struct RawJson {
    number: u16,
    value: String,
}

pub(crate) fn raw(attributes: &[RawAttribute]) -> Vec<RawJson> {
    let one = |attribute: &RawAttribute| RawJson {
        number: attribute.kind,
        value: words::hex(&attribute.value),
    };
    attributes.iter().map(one).collect()
}

/// The protocol's name, or its number.
pub(crate) fn protocol(protocol: epochgate_xfrm::Protocol) -> String {
    match protocol {
        epochgate_xfrm::Protocol::Other(number) => number.to_string(),
        named => named.to_string(),
    }
}

/// `null` where nothing is specified.
pub(crate) fn specified(address: IpAddr) -> Option<IpAddr> {
    (!address.is_unspecified()).then_some(address)
}
