//! Scenarios from seeds.

use super::{
    Act, Action, End, Fault, Frames, Harm, Lifetimes, NatPlan, Operation, Scenario, TunnelPlan,
};
use crate::random::Random;

/// Actions of a scenario at most.
const ACTS_MAX: u64 = 10;

/// What a generator draws from.
struct Source {
    random: Random,
    clients: usize,
    nat: bool,
    /// Whether a client's address may change.
    mobile: bool,
    /// Which clients take any inbound packet for a proof: they never learn that their way out is
    /// dead for ever.
    one_way_proof: Vec<bool>,
}

impl Scenario {
    /// The scenario of a seed.
    #[must_use]
    pub fn random(seed: u64) -> Self {
        let mut source = Source {
            random: Random::new(seed),
            clients: 1,
            nat: false,
            mobile: true,
            one_way_proof: Vec::new(),
        };
        source.clients = source.pick(&[1, 1, 1, 1, 2, 2, 2, 3]);
        let nat = source.nat_plan();
        source.nat = nat.is_some();
        let tunnels: Vec<TunnelPlan> = (0..source.clients)
            .map(|_| source.tunnel_plan(nat))
            .collect();
        // Who knows where its peer is does not look elsewhere, and a NAT that tells ESP apart by
        // addresses alone gives it to the address that a client had before.
        source.mobile = !tunnels.iter().any(|tunnel| {
            tunnel.server_starts || (nat == Some(NatPlan::Conntrack) && tunnel.plain_esp)
        });
        source.one_way_proof = tunnels.iter().map(|tunnel| tunnel.any_inbound).collect();
        let heal_ms = source.between(2_000, 60_000);
        let count = source.random.below(ACTS_MAX + 1);
        let mut acts: Vec<Act> = (0..count).map(|_| source.act(heal_ms)).collect();
        acts.sort_by_key(|act| act.at_ms);
        Self {
            about: String::new(),
            seed,
            delay_ms: source.pick(&[1, 10, 10, 40]),
            nat,
            tunnels,
            interval_ms: source.pick(&[50, 200, 200, 1000]),
            acts,
            heal_ms,
        }
    }
}

impl Source {
    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        let count = u64::try_from(choices.len()).unwrap_or(u64::MAX);
        let index = usize::try_from(self.random.below(count)).unwrap_or_default();
        choices[index]
    }

    fn between(&mut self, lowest: u32, highest: u32) -> u32 {
        let width = u64::from(highest.saturating_sub(lowest)) + 1;
        let more = u32::try_from(self.random.below(width)).unwrap_or_default();
        lowest + more
    }

    fn nat_plan(&mut self) -> Option<NatPlan> {
        match self.random.below(10) {
            0..=2 => Some(NatPlan::Masquerade {
                guessing: self.random.chance(300),
                pending_s: self.pick(&[1, 5]),
                idle_s: self.pick(&[60, 1_800]),
            }),
            3 => Some(NatPlan::Conntrack),
            4 => Some(NatPlan::Udp {
                symmetric: self.random.chance(500),
                idle_s: self.pick(&[30, 120]),
            }),
            _ => None,
        }
    }

    fn tunnel_plan(&mut self, nat: Option<NatPlan>) -> TunnelPlan {
        let plain_esp = match nat {
            None | Some(NatPlan::Masquerade { .. }) => self.random.chance(500),
            // A second client's ESP is dropped there, whatever anybody does.
            Some(NatPlan::Conntrack) => self.clients == 1 && self.random.chance(500),
            Some(NatPlan::Udp { .. }) => false,
        };
        // There each epoch's packets may be taken for the answer to the next one's ping, and a client
        // that takes any packet for a proof never learns that its server has moved on.
        let misled = plain_esp && matches!(nat, Some(NatPlan::Masquerade { .. }));
        TunnelPlan {
            always: self.random.chance(500),
            server_starts: nat.is_none() && self.random.chance(200),
            plain_esp,
            no_wait: self.random.chance(200),
            ignore_server_rekey: self.random.chance(200),
            any_inbound: self.random.chance(100) && !misled,
            client: self.lifetimes(),
            server: self.lifetimes(),
        }
    }

    fn lifetimes(&mut self) -> Lifetimes {
        let mut sometimes = |permille: u32, seconds: &[u32]| {
            if self.random.chance(permille) {
                self.pick(seconds)
            } else {
                0
            }
        };
        Lifetimes {
            epoch_s: sometimes(250, &[20, 40]),
            ike_s: sometimes(250, &[30, 60]),
            reauthenticate_s: sometimes(100, &[40]),
        }
    }

    fn act(&mut self, heal_ms: u32) -> Act {
        let at_ms = self.between(0, heal_ms);
        Act {
            at_ms,
            action: self.action(),
        }
    }

    fn tunnel(&mut self) -> usize {
        let count = u64::try_from(self.clients).unwrap_or(1);
        usize::try_from(self.random.below(count)).unwrap_or_default()
    }

    fn end(&mut self) -> End {
        let tunnel = self.tunnel();
        if self.random.chance(500) {
            End::Client(tunnel)
        } else {
            End::Server(tunnel)
        }
    }

    /// How long something lasts, in milliseconds: most trouble is short.
    fn time(&mut self) -> u32 {
        let longest = self.pick(&[500, 3_000, 15_000, 60_000]);
        self.between(1, longest)
    }

    fn action(&mut self) -> Action {
        let end = self.end();
        let tunnel = end.tunnel();
        match self.random.below(37) {
            0..=5 => self.disturbance(),
            6 => Action::Jitter {
                up_to_ms: self.pick(&[5, 50]),
                for_ms: self.time(),
            },
            7 | 8 => Action::Partition {
                end,
                for_ms: self.time(),
            },
            9 | 10 => Action::EspStops {
                end,
                for_ms: self.time(),
            },
            11 if self.one_way_proof[tunnel] => Action::SpiDies {
                end: End::Client(tunnel),
            },
            11 => Action::SpiDies { end },
            12 | 13 if self.nat => Action::NatForgets,
            14 if self.nat => Action::NatReboots {
                for_ms: self.time(),
            },
            12..=14 => Action::Rekey { end },
            15 | 16 => Action::Kill {
                end,
                for_ms: self.time(),
            },
            17 => Action::Reboot {
                end,
                for_ms: self.time(),
            },
            18 => Action::Suspend {
                end,
                for_ms: self.time(),
            },
            19 if self.mobile => Action::Move { tunnel },
            19 | 20 => Action::Down {
                end,
                for_ms: self.time(),
            },
            21 | 22 => Action::Rekey { end },
            23 => Action::RekeyIke { end },
            24 => Action::Reauthenticate { end },
            25 => Action::Reload { end },
            26 => Action::Flush { end },
            27 => Action::Steal {
                end,
                nth: self.pick(&[0, 1, 2, 3]),
            },
            28 => Action::Expire {
                end,
                nth: self.pick(&[0, 1, 2, 3]),
            },
            29 | 30 => Action::Fail {
                end,
                operation: self.pick(&[
                    Operation::AddInbound,
                    Operation::AddOutbound,
                    Operation::MoveSa,
                    Operation::RemoveSa,
                    Operation::UpdatePolicies,
                    Operation::ReadPackets,
                    Operation::ReadOurs,
                    Operation::CreatePolicies,
                    Operation::RemovePolicies,
                    Operation::ReportFirst,
                ]),
                how: self.pick(&[
                    Fault::Refused,
                    Fault::Refused,
                    Fault::Halfway,
                    Fault::Unanswered,
                ]),
                times: self.pick(&[1, 1, 2, 5]),
            },
            31 => Action::Burst {
                end,
                packets: self.pick(&[5, 50, 150]),
            },
            32 => Action::FlushPolicies { end },
            33 => Action::StealPolicy {
                end,
                nth: self.pick(&[0, 1, 2, 3]),
            },
            34 => Action::LoseEvents {
                end,
                events: self.pick(&[1, 3, 10]),
            },
            _ => Action::Silence {
                tunnel,
                for_ms: self.time(),
            },
        }
    }

    fn disturbance(&mut self) -> Action {
        let from = self.end();
        let later = self.pick(&[10, 200, 2_000]);
        Action::Disturb {
            from: self.random.chance(600).then_some(from),
            frames: self.pick(&[
                Frames::All,
                Frames::IkeRequests,
                Frames::IkeResponses,
                Frames::Esp,
                Frames::Pings,
            ]),
            harm: self.pick(&[
                Harm::Lose,
                Harm::Lose,
                Harm::Delay(later),
                Harm::Copy(later),
            ]),
            permille: self.pick(&[100, 500, 1000]),
            times: self.pick(&[None, Some(1), Some(5)]),
            for_ms: self.time(),
        }
    }
}
