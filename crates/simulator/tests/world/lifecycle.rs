//! Commands, stops and new configurations.

use epochgate_controller::config::{Config, OnStop, Start};
use epochgate_controller::event::EventKind;
use epochgate_controller::io::{Command, CommandOutcome};
use epochgate_controller::status::GateStatus;
use epochgate_simulator::pair::{Pair, Plan, only};

use crate::{MILLISECOND, Outcome, SECOND, crypto, established, started};

fn ours(pair: &Pair) -> (usize, usize) {
    let kernel = &pair.world.node(pair.client).kernel;
    (kernel.our_policies().count(), pair.sas(pair.client))
}

#[test]
fn down_removes_everything_and_up_brings_it_back() -> Outcome {
    let mut pair = established(91)?;
    let name = pair.name.clone();
    let down = pair.world.command(pair.client, Command::Down(name.clone()));
    pair.world.run_for(SECOND)?;
    assert_eq!(ours(&pair), (0, 0));
    let client = pair.world.node(pair.client);
    assert_eq!(client.answer(down), Some(&CommandOutcome::Done));
    assert_eq!(client.routes().count(), 0);
    assert_eq!(pair.gate(pair.server), Some(GateStatus::Held));
    let up = pair.world.command(pair.client, Command::Up(name));
    pair.await_open(SECOND)?;
    let answer = pair.world.node(pair.client).answer(up);
    assert_eq!(answer, Some(&CommandOutcome::Done));
    pair.drain()?;
    assert_eq!((pair.sas(pair.client), pair.sas(pair.server)), (2, 2));
    Ok(())
}

#[test]
fn up_asks_nothing_of_the_ike_sa_that_down_is_deleting() -> Outcome {
    let mut pair = established(94)?;
    let name = pair.name.clone();
    pair.world.command(pair.client, Command::Down(name.clone()));
    // The peer has not even got the Delete.
    pair.world.run_for(MILLISECOND)?;
    let up = pair.world.command(pair.client, Command::Up(name));
    pair.await_open(SECOND)?;
    pair.drain()?;
    let answer = pair.world.node(pair.client).answer(up);
    assert_eq!(answer, Some(&CommandOutcome::Done));
    assert_eq!((pair.sas(pair.client), pair.sas(pair.server)), (2, 2));
    Ok(())
}

#[test]
fn down_at_the_server_holds_the_client() -> Outcome {
    let mut pair = established(92)?;
    let name = pair.name.clone();
    pair.world.command(pair.server, Command::Down(name.clone()));
    pair.await_that("the client holds", SECOND, |pair| {
        pair.gate(pair.client) == Some(GateStatus::Held)
    })?;
    // A tunnel that is down does not come up because its peer likes it to.
    pair.upward(100 * MILLISECOND);
    pair.world.run_for(5 * SECOND)?;
    assert_eq!(pair.gate(pair.server), Some(GateStatus::Down));
    assert_eq!(pair.sas(pair.server), 0);
    pair.world.command(pair.server, Command::Up(name));
    pair.await_open(20 * SECOND)
}

#[test]
fn a_stop_with_block_leaves_policies_that_hold_and_no_sas() -> Outcome {
    let mut pair = established(93)?;
    let flow = pair.upward(10 * MILLISECOND);
    let stop = pair.world.command(pair.client, Command::Shutdown);
    pair.world.run_for(SECOND)?;
    let answer = pair.world.node(pair.client).answer(stop);
    assert_eq!(answer, Some(&CommandOutcome::Done));
    assert_eq!(ours(&pair).1, 0);
    assert!(ours(&pair).0 > 0);
    pair.world.crash(pair.client);
    pair.world.run_for(2 * SECOND)?;
    assert_eq!(pair.sas(pair.server), 0);
    pair.start_client();
    pair.await_open(5 * SECOND)?;
    pair.world.stop_flow(flow);
    pair.drain()?;
    assert_eq!(pair.world.account(flow).clear, 0);
    Ok(())
}

#[test]
fn a_peer_that_starts_again_does_not_hinder_a_stop() -> Outcome {
    let mut plan = Plan::default();
    plan.client.start = Start::Always;
    let mut pair = plan.established(102, crypto())?;
    let stop = pair.world.command(pair.server, Command::Shutdown);
    pair.world.run_for(3 * SECOND)?;
    let answer = pair.world.node(pair.server).answer(stop);
    assert_eq!(answer, Some(&CommandOutcome::Done));
    assert_eq!(pair.sas(pair.server), 0);
    assert_eq!(pair.gate(pair.client), Some(GateStatus::Held));
    Ok(())
}

#[test]
fn a_stop_with_remove_takes_the_policies_away_too() -> Outcome {
    let mut plan = Plan::default();
    plan.client.on_stop = OnStop::Remove;
    let mut pair = plan.established(94, crypto())?;
    let stop = pair.world.command(pair.client, Command::Shutdown);
    pair.world.run_for(SECOND)?;
    let answer = pair.world.node(pair.client).answer(stop);
    assert_eq!(answer, Some(&CommandOutcome::Done));
    assert_eq!(ours(&pair), (0, 0));
    Ok(())
}

#[test]
fn a_stop_is_answered_in_time_even_if_the_peer_is_silent() -> Outcome {
    let mut pair = established(95)?;
    pair.world.crash(pair.server);
    let stop = pair.world.command(pair.client, Command::Shutdown);
    pair.world.run_for(2 * SECOND + 10 * MILLISECOND)?;
    let answer = pair.world.node(pair.client).answer(stop);
    assert_eq!(answer, Some(&CommandOutcome::Done));
    assert_eq!(ours(&pair).1, 0);
    Ok(())
}

#[test]
fn a_peer_that_goes_down_soon_after_the_start_does_not_leave_traffic_without_an_acquire() -> Outcome
{
    let mut pair = started(103)?;
    let flow = pair.upward(100 * MILLISECOND);
    pair.await_open(SECOND)?;
    let name = pair.name.clone();
    pair.world.command(pair.server, Command::Down(name.clone()));
    pair.world.run_for(SECOND)?;
    pair.world.command(pair.server, Command::Up(name));
    pair.await_open(3 * SECOND)?;
    pair.world.stop_flow(flow);
    pair.drain()?;
    assert_eq!(pair.world.account(flow).clear, 0);
    Ok(())
}

#[test]
fn the_same_configuration_again_disturbs_nothing() -> Outcome {
    let mut pair = established(96)?;
    let flow = pair.upward(MILLISECOND);
    let open = pair.open_epoch(pair.client);
    let same = only(&pair.client_config);
    pair.world.configure(pair.client, same);
    pair.world.run_for(SECOND)?;
    pair.world.stop_flow(flow);
    pair.world.run_for(SECOND)?;
    assert_eq!(pair.open_epoch(pair.client), open);
    assert_eq!(pair.world.account(flow).lost(), 0);
    Ok(())
}

#[test]
fn a_changed_configuration_starts_anew_without_a_packet_in_clear() -> Outcome {
    let mut pair = established(97)?;
    let flow = pair.upward(10 * MILLISECOND);
    pair.client_config.ping.attempts = 7;
    let changed = only(&pair.client_config);
    pair.world.configure(pair.client, changed);
    pair.world.run_for(10 * MILLISECOND)?;
    pair.await_open(5 * SECOND)?;
    pair.world.stop_flow(flow);
    pair.drain()?;
    let account = pair.world.account(flow);
    assert_eq!((account.clear, account.refused), (0, 0));
    assert!(account.lost() <= 5, "{account:?}");
    assert_eq!((pair.sas(pair.client), pair.sas(pair.server)), (2, 2));
    Ok(())
}

#[test]
fn changed_selectors_hold_what_both_configurations_cover_and_remove_the_rest() -> Outcome {
    let mut pair = established(98)?;
    let flow = pair.upward(10 * MILLISECOND);
    let narrower = "10.2.0.0/24".parse().unwrap();
    pair.client_config.remote_traffic = vec![narrower];
    pair.server_config.local_traffic = vec![narrower];
    let (client, server) = (only(&pair.client_config), only(&pair.server_config));
    pair.world.configure(pair.server, server);
    pair.world.configure(pair.client, client);
    pair.world.run_for(10 * MILLISECOND)?;
    pair.await_open(10 * SECOND)?;
    pair.world.stop_flow(flow);
    pair.drain()?;
    let kernel = &pair.world.node(pair.client).kernel;
    let mut policies = kernel.our_policies();
    assert!(
        policies
            .all(|policy| { policy.key.source == narrower || policy.key.destination == narrower })
    );
    Ok(())
}

#[test]
fn a_tunnel_that_is_no_longer_configured_goes_down() -> Outcome {
    let mut pair = established(99)?;
    pair.world.configure(pair.client, Config::default());
    pair.world.run_for(SECOND)?;
    assert_eq!(ours(&pair), (0, 0));
    assert!(
        pair.world
            .told(pair.client, |kind| matches!(kind, EventKind::Down))
    );
    Ok(())
}

#[test]
fn a_wrong_pre_shared_key_is_told_and_tried_again_with_pauses() -> Outcome {
    let mut plan = Plan::default();
    plan.server.auth =
        epochgate_controller::config::AuthConfig::psk(epochgate_controller::Secret::from(vec![
            1;
            32
        ]));
    let mut pair = plan.start(101, crypto())?;
    pair.upward(SECOND);
    pair.world.run_for(120 * SECOND)?;
    assert_eq!(pair.gate(pair.client), Some(GateStatus::Held));
    let attempts = pair
        .world
        .node(pair.client)
        .count(|kind| matches!(kind, EventKind::Negotiating { .. }));
    assert!((5..60).contains(&attempts), "{attempts}");
    let status = pair.status(pair.client).unwrap();
    assert!(status.last_error.is_some());
    assert_eq!((pair.sas(pair.client), pair.sas(pair.server)), (0, 0));
    Ok(())
}
