//! The ladder: ping again, rekey, a new IKE SA, for ever, and how long it takes (R4 to R9, I5).

use epochgate_controller::config::{Proof, ServerRekey};
use epochgate_controller::event::EventKind;
use epochgate_controller::io::{CommandOutcome, XfrmError};
use epochgate_controller::status::GateStatus;
use epochgate_simulator::kernel::OpKind;
use epochgate_simulator::network::{Matching, Rule};
use epochgate_simulator::pair::{DELAY, Pair, Plan, SERVER_OUTER};

use crate::{MILLISECOND, Outcome, SECOND, crypto, established, is_close};

/// What a test adds to a time that the product promises: a way there and back.
const ROUND_TRIP: std::time::Duration = DELAY.saturating_mul(2);

fn await_held(pair: &mut Pair, limit: std::time::Duration) -> Outcome {
    pair.await_that("the client holds", limit, |pair| {
        pair.gate(pair.client) == Some(GateStatus::Held)
    })
}

fn await_flowing(pair: &mut Pair, limit: std::time::Duration) -> Outcome {
    pair.await_that("the client's gate is open", limit, |pair| {
        pair.gate(pair.client) == Some(GateStatus::Open)
    })
}

#[test]
fn a_minute_without_esp_is_noticed_in_time_and_over_within_two_pings() -> Outcome {
    for seed in 0..20 {
        let mut pair = established(600 + seed)?;
        let ping = pair.client_config.ping.clone();
        let up = pair.upward(20 * MILLISECOND);
        let down = pair.downward(20 * MILLISECOND);
        pair.world.run_for(SECOND + seed_offset(seed))?;
        let block = pair.world.disturb(Rule::lose(None, Matching::Esp));
        await_held(
            &mut pair,
            ping.idle + ping.attempts * ping.interval + ROUND_TRIP,
        )?;
        pair.world.stop_flow(up);
        pair.world.stop_flow(down);
        let held = pair.upward(SECOND);
        pair.world.run_for(55 * SECOND + seed_offset(seed))?;
        pair.world.mend(block);
        await_flowing(&mut pair, 2 * ping.interval + ROUND_TRIP)?;
        pair.world.stop_flow(held);
        pair.await_open(SECOND)?;
        pair.drain()?;
        assert_eq!(pair.world.account(held).lost(), 0, "seed {seed}");
        assert_eq!((pair.sas(pair.client), pair.sas(pair.server)), (2, 2));
    }
    Ok(())
}

/// Where in a second a fault begins.
fn seed_offset(seed: u64) -> std::time::Duration {
    u32::try_from(seed * 137 % 1000).unwrap() * MILLISECOND
}

#[test]
fn an_hour_without_esp_leaves_few_epochs_and_is_over_within_two_pings() -> Outcome {
    let mut pair = established(621)?;
    let interval = pair.client_config.ping.interval;
    let block = pair.world.disturb(Rule::lose(None, Matching::Esp));
    for _ in 0..360 {
        pair.world.run_for(10 * SECOND)?;
        for node in [pair.client, pair.server] {
            let status = pair.status(node).unwrap();
            assert!(status.epochs.len() <= 8, "{}", pair.summary(node));
            assert!(status.ike.len() <= 4, "{}", pair.summary(node));
        }
    }
    // The client never says that it knows of no other IKE SA.
    assert!(!pair.world.told(pair.server, |kind| matches!(
        kind,
        EventKind::IkeClosed { reason, .. } if reason.contains("started anew")
    )));
    pair.world.mend(block);
    await_flowing(&mut pair, 2 * interval + ROUND_TRIP)?;
    pair.await_open(10 * SECOND)?;
    pair.drain()?;
    assert_eq!((pair.sas(pair.client), pair.sas(pair.server)), (2, 2));
    Ok(())
}

#[test]
fn an_spi_that_is_dropped_for_ever_is_replaced_within_the_bound() -> Outcome {
    for inbound in [true, false] {
        let mut pair = established(630)?;
        let (up, down) = (
            pair.upward(10 * MILLISECOND),
            pair.downward(10 * MILLISECOND),
        );
        pair.world.run_for(SECOND)?;
        let open = pair.open(pair.client).unwrap();
        let spi = if inbound {
            open.inbound.spi
        } else {
            open.outbound.spi
        };
        pair.world.disturb(Rule::lose(None, Matching::EspOn(spi)));
        let bound = pair.client_config.recovery_bound();
        pair.await_newer(open.number, bound)?;
        pair.world.stop_flow(up);
        pair.world.stop_flow(down);
        pair.drain()?;
        assert!(pair.is_open());
    }
    Ok(())
}

#[test]
fn a_busy_path_in_one_direction_does_not_close_the_gate_when_replies_are_late() -> Outcome {
    let mut pair = established(631)?;
    let down = pair.downward(5 * MILLISECOND);
    // A queue of a second and a half: longer than all attempts.
    let late = Rule {
        verdict: epochgate_simulator::network::Verdict::Delay(1500 * MILLISECOND),
        ..Rule::lose(Some(SERVER_OUTER), Matching::Esp)
    };
    pair.world.disturb(late);
    pair.world.run_for(60 * SECOND)?;
    assert_eq!(pair.world.node(pair.client).count(is_close), 0);
    pair.world.stop_flow(down);
    Ok(())
}

#[test]
fn a_server_whose_client_cannot_be_reached_holds_though_ike_passes() -> Outcome {
    let mut pair = established(632)?;
    pair.world.run_for(SECOND)?;
    let block = pair.world.disturb(Rule::lose(None, Matching::Esp));
    let ping = pair.server_config.ping.clone();
    // It looks every three `idle`, so that it sees six of silence at the latest.
    let limit = 6 * ping.idle + ping.attempts * ping.interval + ROUND_TRIP;
    pair.await_that("the server holds", limit, |pair| {
        pair.gate(pair.server) == Some(GateStatus::Held)
    })?;
    let down = pair.downward(100 * MILLISECOND);
    pair.world.run_for(5 * SECOND)?;
    pair.world.mend(block);
    pair.await_open(2 * ping.interval + 4 * ROUND_TRIP)?;
    pair.world.stop_flow(down);
    pair.world.run_for(SECOND)?;
    assert_eq!(pair.world.account(down).lost(), 0);
    Ok(())
}

#[test]
fn a_client_ignores_its_servers_rekey_and_rekeys_by_itself() -> Outcome {
    for seed in 640..660 {
        let mut plan = Plan::default();
        plan.client.epoch.server_rekey = ServerRekey::Ignore;
        let mut pair = plan.established(seed, crypto())?;
        let (up, down) = (pair.upward(5 * MILLISECOND), pair.downward(5 * MILLISECOND));
        let old = pair.open_epoch(pair.client).unwrap();
        let command = pair.rekey(pair.server);
        pair.await_newer(old, SECOND)?;
        pair.world.run_for(4 * SECOND)?;
        let answer = pair.world.node(pair.server).answer(command);
        assert_eq!(answer, Some(&CommandOutcome::Done), "seed {seed}");
        assert!(pair.world.told(pair.client, |kind| matches!(
            kind,
            EventKind::Rekeying { reason } if reason.contains("server wants it")
        )));
        pair.world.stop_flow(up);
        pair.world.stop_flow(down);
        pair.drain()?;
        assert_eq!((pair.sas(pair.client), pair.sas(pair.server)), (2, 2));
        assert_eq!(
            pair.world.account(up).lost() + pair.world.account(down).lost(),
            0
        );
        assert_eq!(pair.status(pair.client).unwrap().ike.len(), 1);
    }
    Ok(())
}

#[test]
fn an_spi_that_the_servers_kernel_has_already_costs_another_exchange_and_no_ike_sa() -> Outcome {
    // In IKE_AUTH.
    let mut pair = Plan::default().start(661, crypto())?;
    let taken = || XfrmError::Exists("File exists".into());
    pair.world
        .fail_next(pair.server, OpKind::AddOutbound, taken());
    let up = pair.upward(10 * MILLISECOND);
    pair.await_open(SECOND)?;
    // In CREATE_CHILD_SA.
    let old = pair.open_epoch(pair.client).unwrap();
    pair.world
        .fail_next(pair.server, OpKind::AddOutbound, taken());
    pair.rekey(pair.client);
    pair.await_newer(old, 3 * SECOND)?;
    pair.world.stop_flow(up);
    pair.drain()?;
    let established = |kind: &EventKind| matches!(kind, EventKind::IkeEstablished { .. });
    assert_eq!(pair.world.node(pair.client).count(established), 1);
    assert_eq!(pair.world.account(up).lost(), 0);
    assert_eq!((pair.sas(pair.client), pair.sas(pair.server)), (2, 2));
    Ok(())
}

#[test]
fn whatever_arrives_proves_an_epoch_where_nothing_answers_pings() -> Outcome {
    for (proof, opens) in [(Proof::Icmp, false), (Proof::AnyInbound, true)] {
        let mut plan = Plan::default();
        plan.client.ping.proof = proof;
        plan.server.epoch.wait = false;
        let mut pair = plan.start(662, crypto())?;
        let lost = pair.world.disturb(Rule::lose(None, Matching::Ping));
        let up = pair.upward(100 * MILLISECOND);
        let down = pair.downward(100 * MILLISECOND);
        pair.world.run_for(20 * SECOND)?;
        let gate = pair.gate(pair.client);
        assert_eq!(gate == Some(GateStatus::Open), opens, "{proof:?}: {gate:?}");
        if opens {
            // A server follows when a ping arrives; whether that is answered is another thing.
            pair.world.mend(lost);
            let old = pair.open_epoch(pair.client).unwrap();
            pair.rekey(pair.client);
            pair.await_newer(old, 5 * SECOND)?;
            pair.world.stop_flow(up);
            pair.world.stop_flow(down);
            pair.world.run_for(SECOND)?;
            assert_eq!(pair.world.account(up).lost(), 0);
        }
    }
    Ok(())
}

#[test]
fn a_server_that_restarts_is_met_again_within_the_bound_whatever_the_moment() -> Outcome {
    let bound = Plan::default().client.recovery_bound();
    assert!(bound < 10 * SECOND, "{bound:?}");
    for seed in 0..60u64 {
        let mut pair = established(700 + seed)?;
        let up = pair.upward(50 * MILLISECOND);
        let faults = [
            Rule::lose(None, Matching::Esp),
            Rule::lose(None, Matching::Anything),
            Rule::lose(None, Matching::IkeResponse(None)),
            Rule::lose(Some(SERVER_OUTER), Matching::Anything),
        ];
        let fault = faults[usize::try_from(seed % 4).unwrap()].clone();
        pair.world.disturb(fault);
        let seconds = u32::try_from(1 + seed % 40).unwrap();
        pair.world.run_for(seconds * SECOND + seed_offset(seed))?;
        pair.world.crash(pair.server);
        pair.start_server();
        pair.world.heal();
        pair.await_open(bound)?;
        pair.world.stop_flow(up);
    }
    Ok(())
}

#[test]
fn a_client_that_slept_sends_nothing_before_a_ping_is_answered() -> Outcome {
    // For a while, during which its server gave it up; and for a few seconds.
    for (sleep, seed) in [(300, 760), (7, 761)] {
        let mut pair = established(seed)?;
        let up = pair.upward(20 * MILLISECOND);
        pair.world.run_for(SECOND)?;
        pair.world.suspend(pair.client);
        pair.world.run_for(sleep * SECOND)?;
        let before = pair.world.account(up);
        pair.world.resume(pair.client);
        pair.world.run_for(10 * MILLISECOND)?;
        assert_eq!(pair.gate(pair.client), Some(GateStatus::Held), "{sleep} s");
        pair.await_open(pair.client_config.recovery_bound())?;
        pair.world.stop_flow(up);
        pair.world.run_for(SECOND)?;
        // Some packets leave between its kernel's resumption and its daemon's, a millisecond later.
        let lost = pair.world.account(up).lost() - before.lost();
        assert!(lost <= 1, "{sleep} s: {lost} lost");
    }
    Ok(())
}

#[test]
fn an_ike_sa_that_only_one_end_has_goes() -> Outcome {
    let mut pair = established(765)?;
    // The client gives the IKE SA up for a new one, and its goodbye is lost.
    let block = pair
        .world
        .disturb(Rule::lose(Some(SERVER_OUTER), Matching::Anything));
    pair.world.run_for(20 * SECOND)?;
    pair.world.mend(block);
    pair.await_open(pair.client_config.recovery_bound())?;
    pair.world.run_for(120 * SECOND)?;
    for node in [pair.client, pair.server] {
        assert_eq!(
            pair.status(node).unwrap().ike.len(),
            1,
            "{}",
            pair.summary(node)
        );
        assert_eq!(pair.sas(node), 2);
    }
    Ok(())
}

#[test]
fn an_sa_that_the_kernel_would_not_remove_is_removed_later() -> Outcome {
    let mut pair = established(766)?;
    let old = pair.open_epoch(pair.client).unwrap();
    for _ in 0..8 {
        let error = XfrmError::Other("Cannot allocate memory".into());
        pair.world.fail_next(pair.client, OpKind::RemoveSa, error);
    }
    pair.rekey(pair.client);
    pair.await_newer(old, SECOND)?;
    pair.drain()?;
    assert_eq!((pair.sas(pair.client), pair.sas(pair.server)), (2, 2));
    Ok(())
}

#[test]
fn status_says_which_step_the_tunnel_is_on_and_how_long_it_may_take() -> Outcome {
    let mut pair = established(767)?;
    let status = pair.status(pair.client).unwrap();
    assert_eq!(
        (status.ladder.as_str(), status.recovery_bound_ms),
        ("idle", 9_750)
    );
    pair.world.disturb(Rule::lose(None, Matching::Anything));
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..1500 {
        pair.world.run_for(10 * MILLISECOND)?;
        seen.insert(pair.status(pair.client).unwrap().ladder);
    }
    for step in ["pinging 2 of 4", "rekeying", "connecting", "backing off"] {
        assert!(seen.contains(step), "{step}: {seen:?}");
    }
    Ok(())
}
