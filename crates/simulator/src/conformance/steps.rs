//! Short ways to say a script's steps. Without a family they are about IPv4.

use std::time::Duration;

use epochgate_controller::io::{
    EXEMPT_AHEAD, Encapsulation, PolicyAction, PolicyDirection, PolicyKey, PolicySpec, SaMove,
    SaSpec, XfrmOp,
};

use super::place::{self, HOST, NAT_T_PORT, PEER, PRIORITY, policy, sa_id};
use super::{Content, Family, Incoming, Outgoing, Step};

use Family::{V4, V6};

/// What an ICMPv6 policy of ours exempts.
const NEIGHBOUR_SOLICITATION: u8 = 135;

pub(super) fn create<const N: usize>(policies: [PolicySpec; N]) -> Vec<Step> {
    vec![Step::Operation(XfrmOp::CreatePolicies(policies.to_vec()))]
}

pub(super) fn update<const N: usize>(policies: [PolicySpec; N]) -> Vec<Step> {
    vec![Step::Operation(XfrmOp::UpdatePolicies(policies.to_vec()))]
}

pub(super) fn remove<const N: usize>(policies: [PolicySpec; N]) -> Vec<Step> {
    let keys = policies.iter().map(|policy| policy.key).collect();
    vec![Step::Operation(XfrmOp::RemovePolicies(keys))]
}

pub(super) fn add(sa: SaSpec) -> Vec<Step> {
    vec![Step::Operation(XfrmOp::AddSa(sa))]
}

pub(super) fn delete(outbound_spi: u32) -> Vec<Step> {
    let id = sa_id(PEER, outbound_spi);
    vec![Step::Operation(XfrmOp::RemoveSa(id))]
}

/// Of the outbound SA and the inbound one with this SPI.
pub(super) fn read_packets(spi: u32) -> Vec<Step> {
    let read = |address| Step::Operation(XfrmOp::ReadPackets(sa_id(address, spi)));
    vec![read(PEER), read(HOST)]
}

pub(super) fn read_ours() -> Vec<Step> {
    vec![Step::Operation(XfrmOp::ReadOurs)]
}

pub(super) fn report(spi: u32, on: bool) -> Vec<Step> {
    let sa = sa_id(HOST, spi);
    vec![Step::Operation(XfrmOp::ReportFirst { sa, on })]
}

/// Moved nowhere yet, but to another port of the peer's.
pub(super) fn moved(sa: SaSpec, port: Option<u16>) -> SaMove {
    SaMove {
        from: sa.id,
        to: sa.id,
        source: sa.source,
        direction: sa.direction,
        encapsulation: port.map(|destination_port| Encapsulation {
            source_port: NAT_T_PORT,
            destination_port,
        }),
    }
}

pub(super) fn send(numbers: std::ops::Range<u32>) -> Vec<Step> {
    let packet = |number| Outgoing {
        number,
        family: V4,
        forwarded: false,
    };
    numbers.map(|number| Step::Send(packet(number))).collect()
}

pub(super) fn forward(numbers: std::ops::Range<u32>) -> Vec<Step> {
    let packet = |number| Outgoing {
        number,
        family: V4,
        forwarded: true,
    };
    numbers.map(|number| Step::Send(packet(number))).collect()
}

pub(super) fn v6(number: u32) -> Outgoing {
    Outgoing {
        number,
        family: V6,
        forwarded: false,
    }
}

pub(super) fn incoming(spi: u32, sequence: u32, content: Content) -> Incoming {
    Incoming {
        sa: sa_id(HOST, spi),
        sequence,
        genuine: true,
        port: None,
        content,
    }
}

pub(super) fn receive(spi: u32, sequence: u32, content: Content) -> Step {
    Step::Receive(incoming(spi, sequence, content))
}

pub(super) fn receive_in_udp(spi: u32, sequence: u32, port: u16, content: Content) -> Step {
    Step::Receive(Incoming {
        port: Some(port),
        ..incoming(spi, sequence, content)
    })
}

pub(super) fn here(number: u32) -> Content {
    Content::Data {
        number,
        family: V4,
        forwarded: false,
    }
}

pub(super) fn there(number: u32) -> Content {
    Content::Data {
        number,
        family: V4,
        forwarded: true,
    }
}

pub(super) fn wait(duration: Duration) -> Vec<Step> {
    vec![Step::Wait(duration)]
}

pub(super) fn out(action: PolicyAction) -> PolicySpec {
    policy(PolicyDirection::Out, V4, action)
}

pub(super) fn out6(action: PolicyAction) -> PolicySpec {
    policy(PolicyDirection::Out, V6, action)
}

pub(super) fn inward(
    direction: PolicyDirection,
    family: Family,
    action: PolicyAction,
) -> PolicySpec {
    policy(direction, family, action)
}

/// For the host's own address alone, and so before the others.
pub(super) fn narrow(action: PolicyAction) -> PolicySpec {
    let policy = out(action);
    PolicySpec {
        key: PolicyKey {
            source: place::inner(V4).into(),
            ..policy.key
        },
        priority: PRIORITY - 1,
        ..policy
    }
}

/// The same for another type, and before it.
pub(super) fn earlier(exemption: PolicySpec) -> PolicySpec {
    PolicySpec {
        key: PolicyKey {
            icmpv6_type: Some(NEIGHBOUR_SOLICITATION + 1),
            ..exemption.key
        },
        priority: 1,
        ..exemption
    }
}

pub(super) fn exemption(policy: PolicySpec) -> PolicySpec {
    PolicySpec {
        key: PolicyKey {
            icmpv6_type: Some(NEIGHBOUR_SOLICITATION),
            ..policy.key
        },
        priority: PRIORITY - EXEMPT_AHEAD,
        action: PolicyAction::Exempt,
    }
}
