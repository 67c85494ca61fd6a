//! IKE SAs are rekeyed and made anew beneath the traffic, which does not notice (RFC 7296 §2.8,
//! §2.18).

use std::time::Duration;

use epochgate_controller::event::{EpochNumber, EventKind, Severity};
use epochgate_controller::io::{Command, CommandOutcome};
use epochgate_simulator::NodeId;
use epochgate_simulator::pair::{Pair, Plan};

use crate::search::is_tidy;
use crate::{MILLISECOND, Outcome, SECOND, crypto, established, is_close};

fn is_ike_rekey(kind: &EventKind) -> bool {
    matches!(kind, EventKind::IkeRekeyed { .. })
}

/// Does something `times` times under 1,000 packets/s each way; everything must arrive, in order, and
/// no gate closes.
fn costs_nothing(pair: &mut Pair, times: usize, act: impl FnMut(&mut Pair) -> Outcome) -> Outcome {
    traffic_survives(pair, MILLISECOND, times, act)
}

fn traffic_survives(
    pair: &mut Pair,
    interval: Duration,
    times: usize,
    mut act: impl FnMut(&mut Pair) -> Outcome,
) -> Outcome {
    let up = pair.upward(interval);
    let down = pair.downward(interval);
    for _ in 0..times {
        act(pair)?;
    }
    pair.world.stop_flow(up);
    pair.world.stop_flow(down);
    pair.world.run_for(SECOND)?;
    for flow in [up, down] {
        let account = pair.world.account(flow);
        assert!(account.sent > 1_000);
        assert_eq!((account.lost(), account.refused, account.clear), (0, 0, 0));
        assert_eq!((account.duplicated, account.reordered), (0, 0));
    }
    assert_eq!(pair.world.node(pair.client).count(is_close), 0);
    assert_eq!(pair.world.node(pair.server).count(is_close), 0);
    pair.drain()?;
    pair.await_that("nothing is left over", 40 * SECOND, is_tidy)
}

fn done(pair: &Pair, node: NodeId, command: epochgate_controller::io::CommandId) {
    let answer = pair.world.node(node).answer(command);
    assert_eq!(answer, Some(&CommandOutcome::Done));
}

#[test]
fn an_ike_rekey_by_either_end_or_both_costs_no_packet_and_no_epoch() -> Outcome {
    for (seed, by_client, by_server) in [(21, true, false), (22, false, true), (23, true, true)] {
        let mut pair = established(seed)?;
        let epoch = pair.open_epoch(pair.client);
        costs_nothing(&mut pair, 10, |pair| {
            let commands: Vec<_> = [(pair.client, by_client), (pair.server, by_server)]
                .into_iter()
                .filter(|(_, asked)| *asked)
                .map(|(node, _)| (node, pair.rekey_ike(node)))
                .collect();
            pair.world.run_for(400 * MILLISECOND)?;
            commands
                .into_iter()
                .for_each(|(node, command)| done(pair, node, command));
            Ok(())
        })?;
        assert_eq!(pair.open_epoch(pair.client), epoch);
        assert_eq!(pair.world.node(pair.client).count(is_ike_rekey), 10);
        assert_eq!(pair.world.node(pair.server).count(is_ike_rekey), 10);
    }
    Ok(())
}

#[test]
fn epochs_are_rekeyed_over_a_rekeyed_ike_sa() -> Outcome {
    let mut pair = established(24)?;
    costs_nothing(&mut pair, 6, |pair| {
        pair.rekey_ike(pair.server);
        pair.world.run_for(200 * MILLISECOND)?;
        let open = pair.open_epoch(pair.client).unwrap();
        pair.rekey(pair.client);
        pair.await_newer(open, SECOND)?;
        pair.rekey_ike(pair.client);
        pair.world.run_for(200 * MILLISECOND)
    })
}

#[test]
fn a_new_ike_sa_takes_over_before_the_old_one_goes() -> Outcome {
    let mut pair = established(25)?;
    costs_nothing(&mut pair, 5, |pair| {
        let open = pair.open_epoch(pair.client).unwrap();
        let command = pair.reauthenticate(pair.client);
        pair.await_newer(open, SECOND)?;
        pair.world.run_for(200 * MILLISECOND)?;
        done(pair, pair.client, command);
        Ok(())
    })?;
    // Nobody said INITIAL_CONTACT: the server forgot nothing.
    let forgot = |kind: &EventKind| matches!(kind, EventKind::IkeClosed { reason, .. } if reason.contains("anew"));
    assert_eq!(pair.world.node(pair.server).count(forgot), 0);
    Ok(())
}

#[test]
fn a_client_authenticates_anew_whenever_its_interval_is_over() -> Outcome {
    let mut plan = Plan::default();
    plan.client.ike_sa.reauthenticate = Some(100 * SECOND);
    let mut pair = plan.established(26, crypto())?;
    traffic_survives(&mut pair, 100 * MILLISECOND, 1, |pair| {
        pair.world.run_for(1000 * SECOND)
    })?;
    let anew = |kind: &EventKind| matches!(kind, EventKind::Reauthenticating { .. });
    let times = pair.world.node(pair.client).count(anew);
    assert!((9..=13).contains(&times), "{times}");
    assert!(pair.open_epoch(pair.client) >= Some(EpochNumber(10)));
    Ok(())
}

#[test]
fn the_ike_sa_of_an_idle_tunnel_is_rekeyed_by_its_lifetime() -> Outcome {
    let mut plan = Plan::default();
    plan.client.ike_sa.lifetime = 1000 * SECOND;
    plan.server.ike_sa.lifetime = 1000 * SECOND;
    let mut pair = plan.established(27, crypto())?;
    pair.world.run_for(5000 * SECOND)?;
    let by_us = |kind: &EventKind| matches!(kind, EventKind::IkeRekeyed { by_peer: false });
    let times = pair.world.node(pair.client).count(by_us);
    assert!((5..=6).contains(&times), "{times}");
    assert_eq!(pair.world.node(pair.server).count(by_us), 0);
    assert!(is_tidy(&pair));
    Ok(())
}

#[test]
fn an_operator_hears_when_there_is_no_ike_sa_to_rekey() -> Outcome {
    let mut pair = crate::started(29)?;
    for command in [
        Command::RekeyIke(pair.name.clone()),
        Command::Reauthenticate(pair.name.clone()),
    ] {
        let command = pair.world.command(pair.client, command);
        pair.world.run_for(SECOND)?;
        let answer = pair.world.node(pair.client).answer(command);
        assert!(matches!(answer, Some(CommandOutcome::Failed(text)) if text.contains("no IKE SA")));
    }
    Ok(())
}

#[test]
fn an_ike_sa_that_this_end_replaces_is_no_warning() -> Outcome {
    let mut pair = established(77)?;
    let old = pair.open_epoch(pair.client).unwrap();
    pair.reauthenticate(pair.client);
    pair.await_newer(old, SECOND)?;
    pair.drain()?;
    let replaced = |kind: &EventKind| {
        matches!(kind, EventKind::IkeClosed { by_us: true, .. })
            && kind.severity() == Severity::Info
    };
    assert_eq!(pair.world.node(pair.client).count(replaced), 1);
    assert_eq!(pair.world.node(pair.server).count(replaced), 0);
    Ok(())
}
