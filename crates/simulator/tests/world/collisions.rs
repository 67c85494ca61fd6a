//! Two things at once: each end does something to the Child SA, the IKE SA or its own memory, at
//! every offset that matters, over a network that loses, repeats or holds up one message of them
//! (RFC 7296 §2.8, §2.25). However it goes, in the end there is one epoch and one IKE SA, the same at
//! both ends, and nothing else in the kernels.

use std::time::Duration;

use epochgate_controller::io::Command;
use epochgate_ike_wire::ExchangeType;
use epochgate_simulator::network::{Matching, Rule, Verdict};
use epochgate_simulator::pair::{CLIENT_OUTER, Pair, Plan, SERVER_OUTER};
use epochgate_simulator::{NodeId, Violation};

use crate::search::is_tidy;
use crate::{MILLISECOND, Outcome, SECOND, crypto};

/// Once the network is whole again: IKE's own patience with a peer that vanished is the longest wait.
const RECOVERY: Duration = Duration::from_secs(150);

/// What an end does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    RekeyChild,
    RekeyIke,
    Reauthenticate,
    /// Its outbound SA vanishes: the daemon deletes the Child SA.
    DeleteChild,
    /// Its inbound SA reaches its hard limit.
    Expire,
    /// Down, and up again a little later.
    DeleteIke,
    /// The daemon is killed and started anew.
    LoseState,
}

/// One message of the two exchanges that something happens to.
#[derive(Clone, Copy, Debug)]
enum Mishap {
    None,
    Lost(IpEnd, bool),
    Doubled(IpEnd, bool),
    Late(IpEnd, bool, Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IpEnd {
    Client,
    Server,
}

impl Mishap {
    fn rules(self) -> Option<[Rule; 2]> {
        let (end, response, verdict) = match self {
            Self::None => return None,
            Self::Lost(end, response) => (end, response, Verdict::Lose),
            Self::Doubled(end, response) => (end, response, Verdict::Copy(60 * MILLISECOND)),
            Self::Late(end, response, time) => (end, response, Verdict::Delay(time)),
        };
        let from = match end {
            IpEnd::Client => CLIENT_OUTER,
            IpEnd::Server => SERVER_OUTER,
        };
        let rule = |exchange| Rule {
            from: Some(from),
            to: None,
            matching: if response {
                Matching::IkeResponse(Some(exchange))
            } else {
                Matching::IkeRequest(Some(exchange))
            },
            verdict,
            permille: 1000,
            times: Some(1),
        };
        Some([
            rule(ExchangeType::CreateChildSa),
            rule(ExchangeType::Informational),
        ])
    }
}

fn perform(pair: &mut Pair, node: NodeId, act: Act) -> Result<(), Violation> {
    match act {
        Act::RekeyChild => {
            pair.rekey(node);
        }
        Act::RekeyIke => {
            pair.rekey_ike(node);
        }
        Act::Reauthenticate => {
            pair.reauthenticate(node);
        }
        Act::DeleteChild => {
            if let Some(open) = pair.open(node) {
                pair.world.steal_sa(node, open.outbound);
            }
        }
        Act::Expire => {
            if let Some(open) = pair.open(node) {
                pair.world.expire_sa(node, open.inbound);
            }
        }
        Act::DeleteIke => {
            let name = pair.name.clone();
            pair.world.command(node, Command::Down(name));
        }
        Act::LoseState => {
            pair.world.crash(node);
            if node == pair.client {
                pair.start_client();
            } else {
                pair.start_server();
            }
        }
    }
    Ok(())
}

/// What the client does and, `offset` later, the server (or the other way round).
#[derive(Clone, Copy, Debug)]
struct Case {
    client: Act,
    server: Act,
    client_first: bool,
    offset: Duration,
    mishap: Mishap,
}

fn collide(seed: u64, case: Case) -> Outcome {
    let told = |mut violation: Violation| {
        violation.what = format!("{case:?}: {}", violation.what);
        violation
    };
    let mut plan = Plan::default();
    plan.client.start = epochgate_controller::config::Start::Always;
    let mut pair = plan.established(seed, crypto())?;
    let flows = [
        pair.upward(37 * MILLISECOND),
        pair.downward(53 * MILLISECOND),
    ];
    pair.world.run_for(SECOND)?;
    for rule in case.mishap.rules().into_iter().flatten() {
        pair.world.disturb(rule);
    }
    let (client, server) = ((pair.client, case.client), (pair.server, case.server));
    let (first, second) = if case.client_first {
        (client, server)
    } else {
        (server, client)
    };
    perform(&mut pair, first.0, first.1)?;
    pair.world.run_for(case.offset).map_err(told)?;
    perform(&mut pair, second.0, second.1)?;
    pair.world.run_for(400 * MILLISECOND).map_err(told)?;
    for (node, act) in [client, server] {
        if act == Act::DeleteIke {
            let name = pair.name.clone();
            pair.world.command(node, Command::Up(name));
        }
    }
    pair.world.run_for(2 * SECOND).map_err(told)?;
    pair.world.heal();
    pair.await_open(RECOVERY).map_err(told)?;
    pair.await_that("nothing is left over", RECOVERY, is_tidy)
        .map_err(told)?;
    for flow in flows {
        pair.world.stop_flow(flow);
    }
    // It goes on working: an epoch can be rekeyed.
    let open = pair.open_epoch(pair.client).unwrap();
    pair.rekey(pair.client);
    pair.await_newer(open, 20 * SECOND).map_err(told)
}

/// One way takes 25 ms: before, with and after the other end's request and response.
const OFFSETS: [u32; 5] = [0, 15, 35, 60, 90];

fn all(acts: &[(Act, Act)], mishaps: &[Mishap], offsets: &[u32]) -> Outcome {
    let mut seed = 50_000;
    for (client, server) in acts {
        for client_first in [true, false] {
            for offset in offsets {
                for mishap in mishaps {
                    seed += 1;
                    collide(
                        seed,
                        Case {
                            client: *client,
                            server: *server,
                            client_first,
                            offset: *offset * MILLISECOND,
                            mishap: *mishap,
                        },
                    )?;
                }
            }
        }
    }
    Ok(())
}

fn either_way(one: Act, other: Act) -> [(Act, Act); 2] {
    [(one, other), (other, one)]
}

fn mishaps() -> Vec<Mishap> {
    let mut mishaps = vec![Mishap::None];
    for end in [IpEnd::Client, IpEnd::Server] {
        for response in [false, true] {
            mishaps.push(Mishap::Lost(end, response));
            mishaps.push(Mishap::Late(end, response, 70 * MILLISECOND));
        }
        mishaps.push(Mishap::Doubled(end, false));
        mishaps.push(Mishap::Late(end, true, 1500 * MILLISECOND));
    }
    mishaps
}

#[test]
fn child_rekeys_cross() -> Outcome {
    all(&[(Act::RekeyChild, Act::RekeyChild)], &mishaps(), &OFFSETS)
}

#[test]
fn ike_rekeys_cross() -> Outcome {
    all(&[(Act::RekeyIke, Act::RekeyIke)], &mishaps(), &OFFSETS)
}

#[test]
fn an_ike_rekey_crosses_a_child_rekey() -> Outcome {
    all(
        &either_way(Act::RekeyIke, Act::RekeyChild),
        &mishaps(),
        &OFFSETS,
    )
}

#[test]
fn a_rekey_crosses_a_delete_of_the_child() -> Outcome {
    all(
        &either_way(Act::RekeyChild, Act::DeleteChild),
        &mishaps(),
        &[0, 35, 60],
    )?;
    all(
        &either_way(Act::RekeyIke, Act::DeleteChild),
        &mishaps(),
        &[0, 35, 60],
    )
}

#[test]
fn a_rekey_crosses_a_delete_of_the_ike_sa() -> Outcome {
    all(
        &either_way(Act::RekeyChild, Act::DeleteIke),
        &mishaps()[..7],
        &[0, 35, 60],
    )?;
    all(
        &either_way(Act::RekeyIke, Act::DeleteIke),
        &mishaps()[..7],
        &[0, 35, 60],
    )
}

#[test]
fn an_sa_expires_during_a_rekey() -> Outcome {
    all(
        &either_way(Act::RekeyChild, Act::Expire),
        &mishaps()[..5],
        &[0, 35, 60],
    )?;
    all(
        &either_way(Act::RekeyIke, Act::Expire),
        &mishaps()[..5],
        &[0, 35, 60],
    )
}

#[test]
fn the_peer_loses_its_state_during_a_rekey() -> Outcome {
    all(
        &either_way(Act::RekeyChild, Act::LoseState),
        &mishaps()[..3],
        &[0, 35, 60],
    )?;
    all(
        &either_way(Act::RekeyIke, Act::LoseState),
        &mishaps()[..3],
        &[0, 35, 60],
    )
}

#[test]
fn a_reauthentication_crosses_anything() -> Outcome {
    for other in [
        Act::RekeyChild,
        Act::RekeyIke,
        Act::DeleteChild,
        Act::Expire,
        Act::DeleteIke,
        Act::LoseState,
    ] {
        all(
            &[(Act::Reauthenticate, other)],
            &mishaps()[..3],
            &[0, 35, 90],
        )?;
    }
    Ok(())
}
