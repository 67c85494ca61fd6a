//! Random trouble: whatever happens, the invariants hold, and once it ends every tunnel is proven
//! again within a bound. This goes where the scenarios of `scenarios.rs` do not: operations of every
//! kind that fail halfway or whose answer is lost, policies that others remove, kernel events that are
//! lost, and real cryptography.

use std::ops::Range;
use std::time::Duration;

use epochgate_controller::config::Start;
use epochgate_controller::io::{Command, PolicyKey, SaId, XfrmError};
use epochgate_controller::status::TunnelStatus;
use epochgate_simulator::kernel::{Failure, OpKind};
use epochgate_simulator::network::{Matching, Rule, Verdict};
use epochgate_simulator::pair::{CLIENT_OUTER, Pair, Plan, SERVER_OUTER};
use epochgate_simulator::random::Random;
use epochgate_simulator::{NodeId, Violation};

use crate::{MILLISECOND, Outcome, SECOND, crypto};

const FIRST_SEED: u64 = 1000;

/// Worlds that one run of the tests searches.
const SEEDS: u64 = 120;

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
        to: None,
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
    match random.below(23) {
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
        11 | 12 => fail(pair, node, random),
        19..=21 => intrude(pair, node, random),
        14 | 15 => {
            pair.rekey_ike(node);
        }
        16 => {
            pair.reauthenticate(node);
        }
        13 | 17 => pair.world.set_jitter(pick(random, &[5, 50]) * MILLISECOND),
        _ => pair.world.run_for(random.between(SECOND, 20 * SECOND))?,
    }
    Ok(())
}

/// An operation of a node's kernel fails: refused, half done, or done and not answered.
fn fail(pair: &mut Pair, node: NodeId, random: &mut Random) {
    let error = XfrmError::Other("ENOBUFS".into());
    let failures = [
        Failure::Refused(error.clone()),
        Failure::Halfway(error.clone()),
        Failure::Unanswered(error),
    ];
    let (kind, failure) = (pick(random, &OpKind::ALL), pick(random, &failures));
    for _ in 0..pick(random, &[1, 1, 3]) {
        pair.world.fail_next_by(node, kind, failure.clone());
    }
}

/// Somebody else works on a node's kernel, or its events are lost.
fn intrude(pair: &mut Pair, node: NodeId, random: &mut Random) {
    let kernel = &pair.world.node(node).kernel;
    let sas: Vec<SaId> = kernel.our_sas().collect();
    let keys: Vec<PolicyKey> = kernel.our_policies().map(|policy| policy.key).collect();
    match random.below(6) {
        0 | 1 if !sas.is_empty() => pair.world.steal_sa(node, pick(random, &sas)),
        2 if !sas.is_empty() => pair.world.expire_sa(node, pick(random, &sas)),
        3 if !keys.is_empty() => pair.world.steal_policy(node, pick(random, &keys)),
        4 => pair.world.flush_sas(node),
        5 => pair.world.flush_policies(node),
        _ => {}
    }
    if random.chance(300) {
        pair.world.lose_events(node, pick(random, &[1, 2, 5]));
    }
}

fn plan(random: &mut Random) -> Plan {
    let mut plan = Plan::default();
    plan.client.start = pick(random, &[Start::OnDemand, Start::Always]);
    plan.server.epoch.wait = random.chance(800);
    if random.chance(300) {
        plan.server.remote.address = plan.client.local.address;
        plan.server.start = pick(random, &[Start::OnDemand, Start::Always]);
    }
    for tunnel in [&mut plan.client, &mut plan.server] {
        if random.chance(300) {
            tunnel.epoch.lifetime = 20 * SECOND;
        }
        if random.chance(300) {
            tunnel.ike_sa.lifetime = 30 * SECOND;
        }
        if random.chance(200) {
            tunnel.ike_sa.reauthenticate = Some(40 * SECOND);
        }
    }
    plan
}

/// One epoch, one IKE SA, the same on both ends, and nothing else in the kernels.
pub(crate) fn is_tidy(pair: &Pair) -> bool {
    let one = |node| {
        let counts = |status: TunnelStatus| (status.epochs.len(), status.ike.len());
        pair.sas(node) == 2 && pair.status(node).map(counts) == Some((1, 1))
    };
    let ike = |node| {
        let status = pair.status(node)?;
        let sa = status.ike.first()?;
        Some((sa.initiator_spi.clone(), sa.responder_spi.clone()))
    };
    pair.is_open() && one(pair.client) && one(pair.server) && ike(pair.client) == ike(pair.server)
}

fn survive(seed: u64) -> Outcome {
    let mut random = Random::new(seed);
    let mut pair = plan(&mut random).start(seed, crypto())?;
    let troubled = [
        pair.upward(37 * MILLISECOND),
        pair.downward(53 * MILLISECOND),
    ];
    pair.world.run_for(random.between(Duration::ZERO, SECOND))?;
    for _ in 0..random.below(12) {
        trouble(&mut pair, &mut random)?;
        let pauses = [200 * MILLISECOND, 2 * SECOND, 15 * SECOND];
        let pause = pick(&mut random, &pauses);
        pair.world.run_for(random.between(Duration::ZERO, pause))?;
    }
    pair.world.heal();
    pair.await_open(RECOVERY)?;
    pair.await_that("nothing is left over", RECOVERY, is_tidy)?;
    for flow in troubled {
        pair.world.stop_flow(flow);
    }
    let flows = [
        pair.upward(17 * MILLISECOND),
        pair.downward(13 * MILLISECOND),
    ];
    pair.world.run_for(25 * SECOND)?;
    for flow in flows {
        pair.world.stop_flow(flow);
    }
    pair.world.run_for(SECOND)?;
    for flow in flows {
        let account = pair.world.account(flow);
        if (account.lost(), account.refused) != (0, 0) {
            let what = format!("after trouble ended: {account:?}");
            return Err(pair.world.violation("I4", what));
        }
    }
    Ok(())
}

/// `EPOCHGATE_SEED=1024` replays one seed, `EPOCHGATE_SEEDS=10000` searches longer.
#[expect(
    clippy::disallowed_methods,
    reason = "which seeds are tried is the tester's choice, not the world's"
)]
fn seeds() -> Range<u64> {
    let number = |name: &str| std::env::var(name).ok()?.parse().ok();
    match (number("EPOCHGATE_SEED"), number("EPOCHGATE_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => FIRST_SEED..FIRST_SEED + count.unwrap_or(SEEDS),
    }
}

#[test]
fn any_trouble_is_survived_once_it_ends() -> Outcome {
    seeds().try_for_each(survive)
}
