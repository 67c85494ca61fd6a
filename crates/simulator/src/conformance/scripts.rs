//! What the gate relies on in the kernel, one script for each fact.

use std::time::Duration;

use epochgate_controller::io::{
    Encapsulation, PolicyAction, PolicyDirection, SaMove, SaSpec, XfrmOp,
};

use super::place::{
    CHILD, HOLD, HOST, HOST_TOO, NAT_T_PORT, OTHER, PEER, PEER_TOO, encapsulated, inbound,
    outbound, pin, ping, sa_id,
};
use super::steps::{
    add, create, delete, earlier, exemption, forward, here, incoming, inward, moved, narrow, out,
    out6, read_ours, read_packets, receive, receive_in_udp, remove, report, send, there, update,
    v6, wait,
};
use super::{Content, Family, Incoming, Intrusion, LARVAL_SECONDS, Script, Step};

use Family::{V4, V6};
use PolicyDirection::{Fwd, In};

const SECOND: Duration = Duration::from_secs(1);

/// Longer than a queue takes that is let go.
const SOON: Duration = Duration::from_millis(200);
const HELD: PolicyAction = PolicyAction::Hold { reqid: HOLD };
const ACCEPTED: PolicyAction = PolicyAction::Accept { reqid: CHILD };
/// The SPIs of two epochs.
const ONE: u32 = 0x101;
const TWO: u32 = 0x102;

/// One script for each thing that the product relies on.
#[must_use]
pub fn facts() -> Vec<Script> {
    [
        holding(),
        switching(),
        missing_sas(),
        arriving(),
        telling(),
        others(),
    ]
    .concat()
}

/// The same for what takes minutes.
#[must_use]
pub fn slow_facts() -> Vec<Script> {
    let refresh = || [wait(60 * SECOND), update([out(HELD)])].concat();
    vec![
        script(
            "a hold that is left alone loses all after 205 s, young packets too",
            [
                create([out(HELD)]),
                send(1..3),
                wait(160 * SECOND),
                send(3..5),
                wait(90 * SECOND),
                add(outbound(ONE, CHILD)),
                update([out(pin(ONE, CHILD))]),
                wait(SOON),
                send(5..6),
                wait(SOON),
            ],
        ),
        script(
            "a hold that is written again each minute keeps all",
            [
                create([out(HELD)]),
                send(1..3),
                refresh(),
                refresh(),
                send(3..4),
                refresh(),
                refresh(),
                wait(10 * SECOND),
                add(outbound(ONE, CHILD)),
                update([out(pin(ONE, CHILD))]),
                wait(SOON),
            ],
        ),
        script(
            "an SA that comes late lets packets go when the queue is looked at next",
            [
                create([out(pin(ONE, CHILD))]),
                send(1..3),
                wait(10 * SECOND),
                delete(ONE),
                add(outbound(ONE, CHILD)),
                wait(SECOND),
                wait(6 * SECOND),
            ],
        ),
        script(
            "a larval SA keeps its SPI for half a minute",
            [
                create([out(pin(ONE, CHILD))]),
                send(1..2),
                wait(20 * SECOND),
                add(outbound(ONE, CHILD)),
                wait(15 * SECOND),
                add(outbound(ONE, CHILD)),
                wait(40 * SECOND),
            ],
        ),
    ]
}

fn script(name: &str, steps: impl IntoIterator<Item = Vec<Step>>) -> Script {
    Script {
        name: name.to_owned(),
        larval_seconds: LARVAL_SECONDS,
        steps: steps.into_iter().flatten().collect(),
    }
}

fn holding() -> Vec<Script> {
    vec![
        script(
            "a hold keeps packets in their order and a pin lets them go",
            [
                create([out(HELD)]),
                send(1..6),
                wait(SOON),
                add(outbound(ONE, CHILD)),
                wait(SOON),
                update([out(pin(ONE, CHILD))]),
                wait(SOON),
                send(6..9),
                read_packets(ONE),
                wait(SOON),
            ],
        ),
        script(
            "the 102nd packet is refused and the 101 before it leave",
            [
                create([out(HELD)]),
                send(1..104),
                forward(104..106),
                wait(SOON),
                add(outbound(ONE, CHILD)),
                update([out(pin(ONE, CHILD))]),
                wait(SOON),
            ],
        ),
        script(
            "forwarded packets and local ones share a queue",
            [
                create([out(HELD)]),
                send(1..3),
                forward(3..5),
                send(5..7),
                wait(SOON),
                add(outbound(ONE, CHILD)),
                update([out(pin(ONE, CHILD))]),
                wait(SOON),
            ],
        ),
        script(
            "a hold that is written again keeps its packets and calls again",
            [
                create([out(HELD)]),
                send(1..3),
                wait(SOON),
                send(3..4),
                wait(SOON),
                update([out(HELD)]),
                wait(Duration::from_millis(500)),
                send(4..5),
                wait(SOON),
                add(outbound(ONE, CHILD)),
                update([out(pin(ONE, CHILD))]),
                wait(SOON),
            ],
        ),
        script(
            "two policies with one hold raise one ACQUIRE for each family",
            [
                create([out(HELD), out6(HELD), narrow(HELD)]),
                send(1..3),
                vec![Step::Send(v6(3))],
                wait(SOON),
                vec![Step::Send(v6(4))],
                send(5..6),
                wait(SOON),
            ],
        ),
        script(
            "an update to an exemption lets held packets go in clear",
            [
                create([out(HELD)]),
                send(1..4),
                wait(SOON),
                update([out(PolicyAction::Exempt)]),
                wait(SOON),
            ],
        ),
        script(
            "a policy that is removed takes what it holds with it",
            [
                create([out(HELD)]),
                send(1..4),
                wait(SOON),
                remove([out(HELD)]),
                wait(SOON),
                send(4..5),
                wait(SOON),
                create([out(HELD)]),
                send(5..6),
                wait(SOON),
            ],
        ),
        script(
            "an ICMP echo reply is held and an ICMPv6 echo reply is not",
            [
                create([
                    out(HELD),
                    out6(HELD),
                    inward(In, V4, ACCEPTED),
                    inward(In, V6, ACCEPTED),
                ]),
                add(inbound(ONE, CHILD, false)),
                vec![
                    receive(
                        ONE,
                        1,
                        Content::Echo {
                            nonce: 1,
                            family: V4,
                        },
                    ),
                    receive(
                        ONE,
                        2,
                        Content::Echo {
                            nonce: 2,
                            family: V6,
                        },
                    ),
                ],
                wait(SOON),
                add(outbound(TWO, CHILD)),
                update([out(pin(TWO, CHILD)), out6(pin(TWO, CHILD))]),
                wait(SOON),
                vec![
                    receive(
                        ONE,
                        3,
                        Content::Echo {
                            nonce: 3,
                            family: V4,
                        },
                    ),
                    receive(
                        ONE,
                        4,
                        Content::Echo {
                            nonce: 4,
                            family: V6,
                        },
                    ),
                ],
                wait(SOON),
            ],
        ),
    ]
}

fn switching() -> Vec<Script> {
    vec![
        script(
            "only the pinned SA of two with one reqid carries packets",
            [
                add(outbound(ONE, CHILD)),
                add(outbound(TWO, CHILD)),
                create([out(pin(ONE, CHILD))]),
                send(1..4),
                wait(SOON),
                update([out(pin(TWO, CHILD))]),
                send(4..6),
                wait(SOON),
                update([out(HELD)]),
                send(6..8),
                wait(SOON),
                update([out(pin(ONE, CHILD))]),
                wait(SOON),
                delete(TWO),
                send(8..9),
                read_packets(ONE),
                read_packets(TWO),
                wait(SOON),
            ],
        ),
        script(
            "a wrong reqid refuses packets and purges what was held",
            [
                create([out(HELD)]),
                send(1..4),
                wait(SOON),
                add(outbound(ONE, CHILD)),
                update([out(pin(ONE, OTHER))]),
                wait(SOON),
                send(4..5),
                wait(SOON),
                update([out(pin(ONE, CHILD))]),
                wait(SOON),
                send(5..6),
                wait(SOON),
            ],
        ),
        script(
            "two SAs with one destination and one SPI cannot be",
            [
                add(outbound(ONE, CHILD)),
                add(outbound(ONE, OTHER)),
                delete(ONE),
                add(outbound(ONE, OTHER)),
                delete(ONE),
                delete(ONE),
                wait(SOON),
            ],
        ),
        script(
            "policies are created all or none",
            [
                create([out(HELD)]),
                create([
                    inward(In, V4, ACCEPTED),
                    out(HELD),
                    inward(Fwd, V4, ACCEPTED),
                ]),
                read_ours(),
                remove([inward(In, V4, ACCEPTED), out(HELD)]),
                read_ours(),
                update([out(HELD), inward(Fwd, V4, ACCEPTED)]),
                read_ours(),
                wait(SOON),
            ],
        ),
        script(
            "an SA that moves to another peer's address leaves the old one there",
            [
                add(encapsulated(outbound(ONE, CHILD))),
                create([out(pin(ONE, CHILD))]),
                send(1..3),
                wait(SOON),
                vec![Step::Operation(XfrmOp::MoveSa(SaMove {
                    to: sa_id(PEER_TOO, ONE),
                    ..moved(outbound(ONE, CHILD), None)
                }))],
                send(3..4),
                read_ours(),
                wait(SOON),
                read_packets(ONE),
                wait(SOON),
            ],
        ),
        script(
            "an SA that gets another source is refused to what names the old one",
            [
                add(outbound(ONE, CHILD)),
                create([out(pin(ONE, CHILD))]),
                send(1..2),
                vec![Step::Operation(XfrmOp::MoveSa(SaMove {
                    source: HOST_TOO,
                    ..moved(outbound(ONE, CHILD), None)
                }))],
                send(2..3),
                wait(SOON),
                update([out(PolicyAction::Pin {
                    reqid: CHILD,
                    sa: sa_id(PEER, ONE),
                    source: HOST_TOO,
                })]),
                send(3..4),
                read_packets(ONE),
                wait(SOON),
            ],
        ),
        script(
            "ports of an SA change in their place",
            [
                add(encapsulated(outbound(ONE, CHILD))),
                create([out(pin(ONE, CHILD))]),
                send(1..3),
                vec![Step::Operation(XfrmOp::MoveSa(moved(
                    outbound(ONE, CHILD),
                    Some(31_000),
                )))],
                send(3..4),
                read_packets(ONE),
                wait(SOON),
            ],
        ),
    ]
}

fn missing_sas() -> Vec<Script> {
    let short = |mut script: Script| {
        script.larval_seconds = 3;
        script
    };
    vec![
        script(
            "a pinned SA that is gone leaves its SPI to a larval one",
            [
                add(outbound(ONE, CHILD)),
                create([out(pin(ONE, CHILD))]),
                send(1..2),
                delete(ONE),
                send(2..4),
                wait(SOON),
                read_ours(),
                read_packets(ONE),
                add(outbound(ONE, CHILD)),
                vec![Step::Operation(XfrmOp::ReportFirst {
                    sa: sa_id(PEER, ONE),
                    on: false,
                })],
                vec![Step::Operation(XfrmOp::MoveSa(moved(
                    outbound(ONE, CHILD),
                    None,
                )))],
                wait(SOON),
                add(outbound(TWO, CHILD)),
                update([out(pin(TWO, CHILD))]),
                wait(SOON),
                delete(ONE),
                add(outbound(ONE, CHILD)),
                wait(SOON),
            ],
        ),
        short(script(
            "a larval SA ends and its SPI is free",
            [
                create([out(pin(ONE, CHILD))]),
                send(1..2),
                wait(SOON),
                add(outbound(ONE, CHILD)),
                remove([out(HELD)]),
                wait(Duration::from_secs(5)),
                add(outbound(ONE, CHILD)),
                create([out(pin(ONE, CHILD))]),
                send(2..3),
                wait(SOON),
            ],
        )),
        script(
            "two pinned SAs that are gone raise an ACQUIRE each",
            [
                create([out(pin(ONE, CHILD))]),
                send(1..2),
                wait(SOON),
                update([out(pin(TWO, CHILD))]),
                send(2..3),
                wait(SOON),
                read_ours(),
                wait(SOON),
            ],
        ),
        script(
            "an SA at its hard limit is gone and what follows is held",
            [
                add(SaSpec {
                    hard_lifetime: Duration::from_secs(3),
                    ..outbound(ONE, CHILD)
                }),
                create([out(pin(ONE, CHILD))]),
                send(1..2),
                wait(SOON),
                wait(Duration::from_secs(6)),
                read_packets(ONE),
                send(2..3),
                wait(SOON),
                add(outbound(TWO, CHILD)),
                update([out(pin(TWO, CHILD))]),
                wait(SOON),
            ],
        ),
        script(
            "a control ping goes through its own SA whatever the policy does",
            [
                create([out(HELD)]),
                add(outbound(ONE, CHILD)),
                vec![
                    Step::Ping(ping(1, ONE, CHILD, V4)),
                    Step::Ping(ping(2, ONE, CHILD, V6)),
                ],
                send(3..4),
                wait(SOON),
                vec![Step::Ping(ping(4, ONE, OTHER, V4))],
                wait(SOON),
            ],
        ),
        script(
            "a control ping on an SA that is gone fails and takes the SPI",
            [
                create([out(HELD)]),
                vec![Step::Ping(ping(1, ONE, CHILD, V4))],
                wait(SOON),
                read_ours(),
                add(outbound(ONE, CHILD)),
                wait(SOON),
            ],
        ),
    ]
}

fn arriving() -> Vec<Script> {
    vec![
        script(
            "what comes through an SA of the Child arrives and nothing else",
            [
                create([inward(In, V4, ACCEPTED), inward(Fwd, V4, ACCEPTED)]),
                add(inbound(ONE, CHILD, false)),
                add(inbound(TWO, OTHER, false)),
                vec![
                    receive(ONE, 1, here(1)),
                    receive(ONE, 2, there(2)),
                    receive(TWO, 1, here(3)),
                    receive(TWO, 2, there(4)),
                    receive(0x103, 1, here(5)),
                    Step::ReceiveClear(here(6)),
                    Step::ReceiveClear(there(7)),
                    Step::Receive(Incoming {
                        genuine: false,
                        ..incoming(ONE, 3, here(8))
                    }),
                    receive(ONE, 3, here(9)),
                ],
                read_packets(ONE),
                wait(SOON),
                remove([inward(In, V4, ACCEPTED), inward(Fwd, V4, ACCEPTED)]),
                vec![receive(ONE, 4, here(10)), Step::ReceiveClear(here(11))],
                wait(SOON),
            ],
        ),
        script(
            "a packet arrives once and inside the window",
            [
                create([inward(In, V4, ACCEPTED)]),
                add(inbound(ONE, CHILD, false)),
                vec![
                    receive(ONE, 0, here(1)),
                    receive(ONE, 5, here(2)),
                    receive(ONE, 5, here(3)),
                    receive(ONE, 3, here(4)),
                    receive(ONE, 70, here(5)),
                    receive(ONE, 6, here(6)),
                    receive(ONE, 7, here(7)),
                    receive(ONE, 7, here(8)),
                ],
                wait(SOON),
            ],
        ),
        script(
            "ESP in UDP and plain ESP are not taken for each other",
            [
                create([inward(In, V4, ACCEPTED)]),
                add(inbound(ONE, CHILD, false)),
                add(encapsulated(inbound(TWO, CHILD, false))),
                vec![
                    receive_in_udp(ONE, 1, NAT_T_PORT, here(1)),
                    receive(TWO, 1, here(2)),
                    receive(ONE, 2, here(3)),
                    receive_in_udp(TWO, 2, NAT_T_PORT, here(4)),
                ],
                wait(SOON),
            ],
        ),
    ]
}

fn telling() -> Vec<Script> {
    vec![
        script(
            "an awaited SA tells of packets that are the latest until it is silenced",
            [
                create([inward(In, V4, ACCEPTED)]),
                add(inbound(ONE, CHILD, true)),
                vec![receive(ONE, 2, here(1))],
                wait(SOON),
                vec![receive(ONE, 1, here(2)), receive(ONE, 3, here(3))],
                wait(SOON),
                report(ONE, false),
                vec![receive(ONE, 4, here(4)), receive(ONE, 6, here(5))],
                wait(SOON),
                report(ONE, true),
                vec![receive(ONE, 5, here(6)), receive(ONE, 7, here(7))],
                wait(SOON),
                report(TWO, true),
                wait(SOON),
            ],
        ),
        script(
            "a changed mapping is told with each packet",
            [
                create([inward(In, V4, ACCEPTED)]),
                add(encapsulated(inbound(ONE, CHILD, true))),
                vec![receive_in_udp(ONE, 1, NAT_T_PORT, here(1))],
                wait(SOON),
                report(ONE, false),
                vec![
                    receive_in_udp(ONE, 2, 31_000, here(2)),
                    receive_in_udp(ONE, 3, 31_000, here(3)),
                    receive_in_udp(ONE, 4, NAT_T_PORT, here(4)),
                    receive_in_udp(ONE, 5, 32_000, here(5)),
                ],
                wait(SOON),
                vec![Step::Operation(XfrmOp::MoveSa(SaMove {
                    encapsulation: Some(Encapsulation {
                        source_port: 32_000,
                        destination_port: NAT_T_PORT,
                    }),
                    ..moved(inbound(ONE, CHILD, false), Some(0))
                }))],
                vec![receive_in_udp(ONE, 6, 32_000, here(6))],
                wait(SOON),
            ],
        ),
    ]
}

fn others() -> Vec<Script> {
    vec![
        script(
            "what somebody else removes is told and what we remove is not",
            [
                add(outbound(ONE, CHILD)),
                add(inbound(TWO, CHILD, false)),
                create([out(pin(ONE, CHILD)), inward(In, V4, ACCEPTED)]),
                delete(ONE),
                remove([inward(In, V4, ACCEPTED)]),
                wait(SOON),
                vec![
                    Step::Intrusion(Intrusion::DeleteSa(sa_id(HOST, TWO))),
                    Step::Intrusion(Intrusion::DeletePolicy(out(HELD).key)),
                    Step::Intrusion(Intrusion::DeleteSa(sa_id(HOST, TWO))),
                    Step::Intrusion(Intrusion::DeletePolicy(out(HELD).key)),
                ],
                wait(SOON),
            ],
        ),
        script(
            "a flush of policies lets packets go in clear and one of SAs holds them",
            [
                add(outbound(ONE, CHILD)),
                create([out(pin(ONE, CHILD))]),
                send(1..2),
                vec![Step::Intrusion(Intrusion::FlushSas)],
                send(2..3),
                wait(SOON),
                vec![Step::Intrusion(Intrusion::FlushPolicies)],
                wait(SOON),
                send(3..4),
                vec![
                    Step::Intrusion(Intrusion::FlushPolicies),
                    Step::Intrusion(Intrusion::FlushSas),
                    Step::Intrusion(Intrusion::FlushSas),
                ],
                read_ours(),
                wait(SOON),
            ],
        ),
        script(
            "our policies are known by their reqids and exemptions by those beside them",
            [
                create([
                    out6(HELD),
                    inward(In, V6, ACCEPTED),
                    exemption(out6(HELD)),
                    exemption(inward(In, V6, ACCEPTED)),
                    // Somebody else's.
                    narrow(PolicyAction::Hold { reqid: 1 }),
                    exemption(inward(Fwd, V6, ACCEPTED)),
                    earlier(exemption(out6(HELD))),
                ]),
                add(outbound(ONE, CHILD)),
                add(outbound(TWO, 1)),
                read_ours(),
                wait(SOON),
            ],
        ),
    ]
}
