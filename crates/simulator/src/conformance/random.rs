//! Scripts from seeds: a few SAs, policies that name them, packets of all kinds, and somebody else,
//! in any order.

use std::time::Duration;

use epochgate_controller::io::{PolicyAction, PolicyDirection, PolicySpec, SaSpec, XfrmOp};

use super::place::{
    CHILD, HOLD, HOST, NAT_T_PORT, OTHER, PEER, encapsulated, inbound, outbound, pin, ping, policy,
    sa_id,
};
use super::{Content, Family, Incoming, Intrusion, LARVAL_SECONDS, Outgoing, Script, Step};
use crate::random::Random;

/// Steps of a script, waiting excepted.
const STEPS: std::ops::Range<u64> = 6..24;
/// SPIs that a script uses: few, so that they meet.
const SPIS: std::ops::Range<u64> = 0x101..0x104;
/// Packets that are sent at once.
const BURST_MAX: u64 = 5;
/// Longer than a queue takes that is let go.
const SOON: Duration = Duration::from_millis(200);
/// Times at which a queue has been looked at a few times more.
const LATER: [Duration; 2] = [Duration::from_millis(450), Duration::from_millis(1200)];

/// The script of a seed.
#[must_use]
pub fn script(seed: u64) -> Script {
    let mut draw = Draw {
        random: Random::new(seed),
        number: 0,
        sequence: 0,
    };
    let mut steps = Vec::new();
    for _ in 0..draw.within(STEPS) {
        steps.extend(draw.steps());
    }
    steps.push(Step::Operation(XfrmOp::ReadOurs));
    steps.push(Step::Wait(SOON));
    Script {
        name: format!("seed {seed}"),
        larval_seconds: LARVAL_SECONDS,
        steps,
    }
}

struct Draw {
    random: Random,
    number: u32,
    sequence: u32,
}

impl Draw {
    fn steps(&mut self) -> Vec<Step> {
        match self.random.below(16) {
            0 | 1 => self.add_sa(),
            2 => vec![Step::Operation(XfrmOp::RemoveSa(self.sa()))],
            // What is let go and what is sent meanwhile would not come in a certain order.
            3..=6 => {
                let specs = self.policies();
                let op = if self.random.chance(250) {
                    XfrmOp::CreatePolicies(specs)
                } else {
                    XfrmOp::UpdatePolicies(specs)
                };
                vec![Step::Operation(op), Step::Wait(SOON)]
            }
            7 => {
                let keys = self.policies().iter().map(|spec| spec.key).collect();
                vec![Step::Operation(XfrmOp::RemovePolicies(keys))]
            }
            8..=10 => self.send(),
            11 | 12 => self.receive(),
            13 => {
                let (spi, reqid) = (self.spi(), self.reqid());
                let family = self.family();
                vec![Step::Ping(ping(self.next(), spi, reqid, family))]
            }
            14 => {
                let later = LATER[usize::from(self.random.chance(300))];
                vec![Step::Wait(later)]
            }
            _ => self.rare(),
        }
    }

    fn rare(&mut self) -> Vec<Step> {
        let (sa, inward) = (self.sa(), sa_id(HOST, self.spi()));
        let step = match self.random.below(8) {
            0 => Step::Operation(XfrmOp::ReadOurs),
            1 => Step::Operation(XfrmOp::ReadPackets(sa)),
            2 => Step::Operation(XfrmOp::ReportFirst {
                sa: inward,
                on: self.random.chance(500),
            }),
            3 => Step::Intrusion(Intrusion::DeleteSa(sa)),
            4 => Step::Intrusion(Intrusion::DeletePolicy(self.policy().key)),
            5 => Step::Intrusion(Intrusion::FlushSas),
            6 => Step::Intrusion(Intrusion::FlushPolicies),
            _ => Step::ReceiveClear(self.content()),
        };
        vec![step]
    }

    fn add_sa(&mut self) -> Vec<Step> {
        let (spi, reqid) = (self.spi(), self.reqid());
        let sa: SaSpec = if self.random.chance(500) {
            outbound(spi, reqid)
        } else {
            inbound(spi, reqid, self.random.chance(300))
        };
        let sa = if self.random.chance(250) {
            encapsulated(sa)
        } else {
            sa
        };
        vec![Step::Operation(XfrmOp::AddSa(sa))]
    }

    fn policies(&mut self) -> Vec<PolicySpec> {
        let mut specs = vec![self.policy()];
        if self.random.chance(300) {
            let another = self.policy();
            if another.key != specs[0].key {
                specs.push(another);
            }
        }
        specs
    }

    fn policy(&mut self) -> PolicySpec {
        let family = self.family();
        if self.random.chance(300) {
            let direction = if self.random.chance(500) {
                PolicyDirection::In
            } else {
                PolicyDirection::Fwd
            };
            let reqid = self.reqid();
            return policy(direction, family, PolicyAction::Accept { reqid });
        }
        let action = match self.random.below(8) {
            0 => PolicyAction::Exempt,
            1..=3 => PolicyAction::Hold { reqid: HOLD },
            _ => pin(self.spi(), self.reqid()),
        };
        policy(PolicyDirection::Out, family, action)
    }

    fn send(&mut self) -> Vec<Step> {
        let (family, forwarded) = (self.family(), self.random.chance(300));
        (0..=self.random.below(BURST_MAX))
            .map(|_| {
                Step::Send(Outgoing {
                    number: self.next(),
                    family,
                    forwarded,
                })
            })
            .collect()
    }

    fn receive(&mut self) -> Vec<Step> {
        self.sequence += 1;
        let port = match self.random.below(6) {
            0 => Some(NAT_T_PORT),
            1 => Some(31_000),
            _ => None,
        };
        let late = u32::try_from(self.random.below(3)).unwrap_or(0);
        vec![Step::Receive(Incoming {
            sa: sa_id(HOST, self.spi()),
            sequence: self.sequence.saturating_sub(late),
            genuine: !self.random.chance(150),
            port,
            content: self.content(),
        })]
    }

    fn content(&mut self) -> Content {
        let family = self.family();
        if self.random.chance(300) {
            Content::Echo {
                nonce: self.next(),
                family,
            }
        } else {
            Content::Data {
                number: self.next(),
                family,
                forwarded: self.random.chance(400),
            }
        }
    }

    fn sa(&mut self) -> epochgate_controller::io::SaId {
        let address = if self.random.chance(600) { PEER } else { HOST };
        sa_id(address, self.spi())
    }

    fn spi(&mut self) -> u32 {
        u32::try_from(self.within(SPIS)).unwrap_or(u32::MAX)
    }

    fn reqid(&mut self) -> u32 {
        if self.random.chance(150) {
            OTHER
        } else {
            CHILD
        }
    }

    fn family(&mut self) -> Family {
        if self.random.chance(250) {
            Family::V6
        } else {
            Family::V4
        }
    }

    fn within(&mut self, range: std::ops::Range<u64>) -> u64 {
        range.start + self.random.below(range.end - range.start)
    }

    fn next(&mut self) -> u32 {
        self.number += 1;
        self.number
    }
}
