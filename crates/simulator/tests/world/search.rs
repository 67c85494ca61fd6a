//! Random trouble: whatever happens, the invariants hold, and once it ends every tunnel is proven
//! again within a bound.

use std::time::Duration;

use epochgate_controller::config::Start;
use epochgate_controller::io::{Command, XfrmError};
use epochgate_simulator::Violation;
use epochgate_simulator::kernel::OpKind;
use epochgate_simulator::network::{Matching, Rule, Verdict};
use epochgate_simulator::pair::{CLIENT_OUTER, Pair, Plan, SERVER_OUTER};
use epochgate_simulator::random::Random;

use crate::{MILLISECOND, Outcome, SECOND, crypto};

const SEEDS: std::ops::Range<u64> = 1000..1300;

/// Once trouble ends: IKE's own patience with a peer that vanished is the longest wait.
const RECOVERY: Duration = Duration::from_secs(200);

fn pick<T: Clone>(random: &mut Random, choices: &[T]) -> T {
    let index = random.below(u64::try_from(choices.len()).unwrap());
    choices[usize::try_from(index).unwrap()].clone()
}

fn rule(random: &mut Random) -> Rule {
    let spans = [10 * MILLISECOND, 200 * MILLISECOND, 2 * SECOND];
    let spread = pick(random, &spans);
    Rule {
        from: pick(random, &[None, Some(CLIENT_OUTER), Some(SERVER_OUTER)]),
        matching: pick(
            random,
            &[
                Matching::Anything,
                Matching::IkeRequest(None),
                Matching::IkeResponse(None),
                Matching::Esp,
                Matching::Ping,
            ],
        ),
        verdict: pick(
            random,
            &[
                Verdict::Lose,
                Verdict::Lose,
                Verdict::Delay(spread),
                Verdict::Copy(spread),
            ],
        ),
        permille: pick(random, &[100, 500, 1000]),
        times: pick(random, &[None, Some(1), Some(5)]),
    }
}

fn trouble(pair: &mut Pair, random: &mut Random) -> Result<(), Violation> {
    let node = pick(random, &[pair.client, pair.server]);
    let name = pair.name.clone();
    match random.below(16) {
        0..=4 => {
            let rule = rule(random);
            pair.world.disturb(rule);
        }
        5 => pair.world.heal(),
        6..=8 => {
            pair.rekey(node);
        }
        9 => {
            pair.world.command(node, Command::Down(name.clone()));
            pair.world.run_for(random.between(MILLISECOND, SECOND))?;
            pair.world.command(node, Command::Up(name));
        }
        10 => {
            pair.world.crash(node);
            pair.world.run_for(random.between(MILLISECOND, SECOND))?;
            if node == pair.client {
                pair.start_client();
            } else {
                pair.start_server();
            }
        }
        11 | 12 => {
            let kind = pick(
                random,
                &[
                    OpKind::AddInbound,
                    OpKind::AddOutbound,
                    OpKind::UpdatePolicies,
                    OpKind::RemoveSa,
                    OpKind::ReadPackets,
                ],
            );
            let error = pick(
                random,
                &[
                    XfrmError::Exists("EEXIST".into()),
                    XfrmError::Missing("ESRCH".into()),
                    XfrmError::Other("ENOMEM".into()),
                ],
            );
            pair.world.kernel_mut(node).fail_next(kind, error);
        }
        13 => {
            let sa = pair.world.node(node).kernel.our_sas().next();
            if let Some(sa) = sa {
                pair.world.steal_sa(node, sa);
            }
        }
        14 => pair.world.set_jitter(pick(random, &[5, 50]) * MILLISECOND),
        _ => pair.world.run_for(random.between(SECOND, 20 * SECOND))?,
    }
    Ok(())
}

fn survive(seed: u64) -> Result<Pair, Violation> {
    let mut random = Random::new(seed);
    let mut plan = Plan::default();
    plan.client.start = pick(&mut random, &[Start::OnDemand, Start::Always]);
    plan.server.epoch.wait = random.chance(800);
    if random.chance(300) {
        plan.server.remote.address = plan.client.local.address;
        plan.server.start = pick(&mut random, &[Start::OnDemand, Start::Always]);
    }
    if random.chance(300) {
        plan.client.epoch.lifetime = 20 * SECOND;
        plan.server.epoch.lifetime = 20 * SECOND;
    }
    let mut pair = plan.start(seed, crypto())?;
    pair.upward(37 * MILLISECOND);
    pair.downward(53 * MILLISECOND);
    pair.world.run_for(random.between(Duration::ZERO, SECOND))?;
    for _ in 0..random.below(12) {
        trouble(&mut pair, &mut random)?;
        let pauses = [200 * MILLISECOND, 2 * SECOND, 15 * SECOND];
        let pause = pick(&mut random, &pauses);
        pair.world.run_for(random.between(Duration::ZERO, pause))?;
    }
    pair.world.heal();
    pair.await_open(RECOVERY)?;
    // It stays open, but for the moment in which one end has switched and the other has not.
    pair.drain()?;
    pair.await_open(2 * SECOND)?;
    Ok(pair)
}

#[test]
fn any_trouble_is_survived_once_it_ends() -> Outcome {
    for seed in SEEDS {
        survive(seed)?;
    }
    Ok(())
}
