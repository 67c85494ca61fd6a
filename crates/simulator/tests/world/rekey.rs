//! From epoch to epoch, with a whole network.

use epochgate_controller::event::EpochNumber;
use epochgate_controller::io::CommandOutcome;
use epochgate_simulator::network::{Matching, Rule};
use epochgate_simulator::pair::{Pair, Plan, SERVER_OUTER};
use epochgate_simulator::{NodeId, Violation};

use crate::{MILLISECOND, Outcome, SECOND, crypto, established, is_close};

/// Rekeys under 1,000 packets/s each way; everything must arrive, in order.
fn rekeys_cost_nothing(seed: u64, by: impl Fn(&Pair) -> NodeId) -> Outcome {
    let mut pair = established(seed)?;
    let up = pair.upward(MILLISECOND);
    let down = pair.downward(MILLISECOND);
    for _ in 0..20 {
        let open = pair.open_epoch(pair.client).unwrap();
        let node = by(&pair);
        let command = pair.rekey(node);
        pair.await_newer(open, SECOND)?;
        pair.world.run_for(200 * MILLISECOND)?;
        let answer = pair.world.node(node).answer(command);
        assert_eq!(answer, Some(&CommandOutcome::Done));
    }
    pair.world.stop_flow(up);
    pair.world.stop_flow(down);
    pair.world.run_for(SECOND)?;
    for flow in [up, down] {
        let account = pair.world.account(flow);
        assert!(account.sent > 4_000);
        assert_eq!((account.lost(), account.refused, account.clear), (0, 0, 0));
        assert_eq!((account.duplicated, account.reordered), (0, 0));
        assert_eq!(account.overtaken, 0, "nothing was held");
    }
    assert_eq!(pair.world.node(pair.client).count(is_close), 0);
    assert_eq!(pair.world.node(pair.server).count(is_close), 0);
    assert!(pair.open_epoch(pair.client) >= Some(EpochNumber(21)));
    Ok(())
}

#[test]
fn rekeys_started_by_the_client_lose_nothing() -> Outcome {
    rekeys_cost_nothing(11, |pair| pair.client)
}

#[test]
fn rekeys_started_by_the_server_lose_nothing() -> Outcome {
    rekeys_cost_nothing(12, |pair| pair.server)
}

#[test]
fn both_sides_rekey_at_once_and_agree() -> Outcome {
    for seed in 200..210 {
        let mut pair = established(seed)?;
        let up = pair.upward(MILLISECOND);
        let down = pair.downward(MILLISECOND);
        for offset in [0, 10, 25, 40, 60] {
            let open = pair.open_epoch(pair.client).unwrap();
            pair.rekey(pair.client);
            pair.world.run_for(offset * MILLISECOND)?;
            pair.rekey(pair.server);
            pair.await_newer(open, 3 * SECOND)?;
            pair.world.run_for(5 * SECOND)?;
            assert!(pair.is_open(), "seed {seed}, offset {offset}");
        }
        pair.world.stop_flow(up);
        pair.world.stop_flow(down);
        pair.drain()?;
        for flow in [up, down] {
            assert_eq!(pair.world.account(flow).lost(), 0, "seed {seed}");
        }
        assert_eq!((pair.sas(pair.client), pair.sas(pair.server)), (2, 2));
    }
    Ok(())
}

#[test]
fn the_server_sends_nothing_on_a_new_epoch_before_the_clients_ping() -> Outcome {
    let mut pair = established(13)?;
    let down = pair.downward(MILLISECOND);
    let old = pair.open(pair.server).unwrap();
    pair.world.disturb(Rule::lose(None, Matching::Ping));
    pair.rekey(pair.client);
    pair.world.run_for(700 * MILLISECOND)?;
    let epochs = pair.world.node(pair.server).known_epochs();
    let new = epochs.last().unwrap().outbound;
    assert_ne!(new, old.outbound);
    assert_eq!(pair.world.node(pair.server).data_sent_on(new), 0);
    assert_eq!(pair.open_epoch(pair.server), Some(old.number));
    assert!(pair.world.account(down).lost() < 30, "under way alone");
    pair.world.heal();
    pair.await_newer(old.number, 3 * SECOND)
}

#[test]
fn a_server_that_does_not_wait_sends_on_an_epoch_of_its_own_at_once() -> Outcome {
    let mut plan = Plan::default();
    plan.server.epoch.wait = false;
    let mut pair = plan.established(14, crypto())?;
    let old = pair.open_epoch(pair.server).unwrap();
    pair.world.disturb(Rule::lose(None, Matching::Ping));
    pair.rekey(pair.server);
    pair.await_that("the server switches", SECOND, |pair| {
        pair.open_epoch(pair.server) > Some(old)
    })
}

#[test]
fn a_server_that_does_not_wait_follows_its_clients_rekey_when_the_client_has_moved() -> Outcome {
    let mut plan = Plan::default();
    plan.server.epoch.wait = false;
    let mut pair = plan.established(14, crypto())?;
    let old = pair.open_epoch(pair.server).unwrap();
    let down = pair.downward(10 * MILLISECOND);
    let lost = pair.world.disturb(Rule::lose(None, Matching::Ping));
    pair.rekey(pair.client);
    pair.world.run_for(500 * MILLISECOND)?;
    assert_eq!(pair.open_epoch(pair.server), Some(old));
    pair.world.mend(lost);
    pair.await_newer(old, SECOND)?;
    pair.world.stop_flow(down);
    pair.world.run_for(SECOND)?;
    assert_eq!(pair.world.account(down).lost(), 0);
    Ok(())
}

#[test]
fn lifetimes_rekey_in_time_with_jitter_and_the_client_is_first() -> Outcome {
    let mut plan = Plan::default();
    plan.client.epoch.lifetime = 600 * SECOND;
    plan.server.epoch.lifetime = 600 * SECOND;
    let mut pair = plan.established(15, crypto())?;
    pair.world.run_for(530 * SECOND)?;
    assert_eq!(pair.open_epoch(pair.client), Some(EpochNumber(1)));
    pair.await_newer(EpochNumber(1), 80 * SECOND)?;
    let mut ages = vec![pair.world.now()];
    for number in 2..8 {
        pair.await_newer(EpochNumber(number), 610 * SECOND)?;
        ages.push(pair.world.now());
    }
    let gaps: Vec<_> = ages.windows(2).map(|two| two[1].since(two[0])).collect();
    assert!(
        gaps.iter()
            .all(|gap| *gap >= 535 * SECOND && *gap <= 605 * SECOND)
    );
    assert!(gaps.windows(2).any(|two| two[0].abs_diff(two[1]) > SECOND));
    let server_rekeys = pair.world.node(pair.server).count(|kind| {
        matches!(
            kind,
            epochgate_controller::event::EventKind::Rekeying { .. }
        )
    });
    assert_eq!(server_rekeys, 0);
    Ok(())
}

#[test]
fn a_rekey_without_a_new_key_exchange_works() -> Result<(), Violation> {
    let mut plan = Plan::default();
    plan.client.esp.groups.clear();
    plan.server.esp.groups.clear();
    let mut pair = plan.established(16, crypto())?;
    let flow = pair.upward(MILLISECOND);
    let open = pair.open_epoch(pair.client).unwrap();
    pair.rekey(pair.client);
    pair.await_newer(open, SECOND)?;
    pair.world.stop_flow(flow);
    pair.world.run_for(SECOND)?;
    assert_eq!(pair.world.account(flow).lost(), 0);
    Ok(())
}

#[test]
fn the_peer_deletes_the_open_epoch_before_the_new_one_is_proven_and_traffic_is_held() -> Outcome {
    let mut pair = established(17)?;
    let flow = pair.upward(20 * MILLISECOND);
    let old = pair.open_epoch(pair.client).unwrap();
    let pings = pair.world.disturb(Rule::lose(None, Matching::Ping));
    pair.rekey(pair.client);
    pair.world.run_for(300 * MILLISECOND)?;
    // Somebody removes the server's old SA: its daemon deletes the Child SA.
    let stolen = pair.open(pair.server).unwrap().outbound;
    pair.world.steal_sa(pair.server, stolen);
    pair.await_that("the client holds", SECOND, |pair| {
        pair.open_epoch(pair.client).is_none()
    })?;
    pair.world.mend(pings);
    pair.await_newer(old, 3 * SECOND)?;
    pair.world.stop_flow(flow);
    pair.world.run_for(SECOND)?;
    // What was under way when the SA vanished may be lost, what was held is not.
    assert!(pair.world.account(flow).lost() <= 3, "{SERVER_OUTER}");
    Ok(())
}

#[test]
fn an_epoch_whose_rekey_was_never_answered_gets_a_new_ike_sa_as_soon_as_the_peer_speaks() -> Outcome
{
    let mut pair = established(18)?;
    let flow = pair.upward(20 * MILLISECOND);
    let old = pair.open_epoch(pair.client).unwrap();
    // ESP goes on, so that nothing but IKE is amiss: longer than one attempt to connect lasts.
    let rules = [Matching::IkeRequest(None), Matching::IkeResponse(None)];
    let deaf = rules.map(|what| pair.world.disturb(Rule::lose(None, what)));
    pair.rekey(pair.client);
    pair.world.run_for(100 * SECOND)?;
    assert_eq!(pair.open_epoch(pair.client), Some(old));
    for rule in deaf {
        pair.world.mend(rule);
    }
    // An attempt under way was lost; its next message, or the next attempt, gets through.
    pair.await_newer(old, 60 * SECOND)?;
    pair.world.stop_flow(flow);
    pair.world.run_for(SECOND)?;
    assert_eq!(pair.world.account(flow).lost(), 0);
    Ok(())
}
