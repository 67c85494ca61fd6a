//! From the first packet to the first switch.

use epochgate_controller::config::Start;
use epochgate_controller::event::EventKind;
use epochgate_controller::io::{Command, CommandOutcome};
use epochgate_controller::status::GateStatus;
use epochgate_simulator::pair::{DELAY, Plan};

use crate::{MILLISECOND, Outcome, SECOND, crypto, is_switch, started};

#[test]
fn a_cold_tunnel_holds_the_first_packets_and_delivers_them_after_three_round_trips() -> Outcome {
    let mut pair = started(1)?;
    let begin = pair.world.now();
    let flow = pair.upward(10 * MILLISECOND);
    pair.await_that("the first packet arrives", SECOND, |pair| {
        pair.world.account(flow).delivered > 0
    })?;
    // IKE_SA_INIT, IKE_AUTH and the ping; then the packet's own way, and the kernel's release.
    let took = pair.world.now().since(begin);
    assert!(took >= 7 * DELAY, "{took:?}");
    assert!(took <= 7 * DELAY + 35 * MILLISECOND, "{took:?}");
    pair.world.run_for(SECOND)?;
    pair.world.stop_flow(flow);
    pair.world.run_for(SECOND)?;
    let account = pair.world.account(flow);
    assert_eq!((account.lost(), account.refused, account.clear), (0, 0, 0));
    assert_eq!((account.duplicated, account.reordered), (0, 0));
    Ok(())
}

#[test]
fn one_ping_proves_a_cold_tunnel() -> Outcome {
    let mut pair = started(2)?;
    pair.upward(100 * MILLISECOND);
    pair.await_open(SECOND)?;
    let client = pair.world.node(pair.client);
    let pings = client.count(|kind| matches!(kind, EventKind::PingSent { .. }));
    assert_eq!(pings, 1);
    assert!(client.count(|kind| matches!(kind, EventKind::PingAnswered { proven: true, .. })) == 1);
    Ok(())
}

#[test]
fn the_servers_packets_are_held_too_and_leave_with_the_first_ping() -> Outcome {
    let mut pair = started(3)?;
    let down = pair.downward(10 * MILLISECOND);
    pair.world.run_for(300 * MILLISECOND)?;
    assert_eq!(pair.world.account(down).delivered, 0);
    let up = pair.upward(10 * MILLISECOND);
    pair.world.run_for(SECOND)?;
    pair.world.stop_flow(down);
    pair.world.stop_flow(up);
    pair.world.run_for(SECOND)?;
    for flow in [down, up] {
        let account = pair.world.account(flow);
        assert_eq!((account.lost(), account.refused, account.clear), (0, 0, 0));
    }
    Ok(())
}

#[test]
fn the_102nd_held_packet_is_refused_and_the_others_are_delivered() -> Outcome {
    let mut pair = started(4)?;
    let flow = pair.upward(MILLISECOND);
    pair.world.run_for(149 * MILLISECOND)?;
    pair.world.stop_flow(flow);
    pair.world.run_for(SECOND)?;
    let account = pair.world.account(flow);
    assert_eq!(account.delivered, 101);
    assert_eq!(account.refused, account.sent - 101);
    Ok(())
}

#[test]
fn nothing_starts_without_traffic() -> Outcome {
    let mut pair = started(5)?;
    pair.world.run_for(60 * SECOND)?;
    assert_eq!(pair.gate(pair.client), Some(GateStatus::Held));
    assert!(!pair.world.told(pair.client, |kind| matches!(
        kind,
        EventKind::Negotiating { .. }
    )));
    Ok(())
}

#[test]
fn a_tunnel_that_starts_always_is_open_without_traffic() -> Outcome {
    let mut plan = Plan::default();
    plan.client.start = Start::Always;
    let mut pair = plan.start(6, crypto())?;
    pair.await_open(SECOND)
}

#[test]
fn a_listening_tunnel_starts_only_when_asked() -> Outcome {
    let mut plan = Plan::default();
    plan.client.start = Start::Listen;
    let mut pair = plan.start(7, crypto())?;
    let flow = pair.upward(100 * MILLISECOND);
    pair.world.run_for(5 * SECOND)?;
    assert_eq!(pair.gate(pair.client), Some(GateStatus::Held));
    let up = pair
        .world
        .command(pair.client, Command::Up(pair.name.clone()));
    pair.await_open(SECOND)?;
    pair.world.stop_flow(flow);
    pair.world.run_for(SECOND)?;
    assert_eq!(
        pair.world.node(pair.client).answer(up),
        Some(&CommandOutcome::Done)
    );
    assert_eq!(pair.world.account(flow).lost(), 0);
    Ok(())
}

#[test]
fn a_server_that_does_not_know_its_peers_address_says_that_only_the_peer_can_start() -> Outcome {
    let mut pair = started(8)?;
    let up = pair
        .world
        .command(pair.server, Command::Up(pair.name.clone()));
    pair.world.run_for(SECOND)?;
    match pair.world.node(pair.server).answer(up) {
        Some(CommandOutcome::Failed(text)) => assert!(text.contains("only the peer can start")),
        other => panic!("{other:?}"),
    }
    Ok(())
}

#[test]
fn both_sides_start_at_once_and_agree_on_one_epoch() -> Outcome {
    for seed in 100..120 {
        let mut plan = Plan::default();
        plan.client.start = Start::Always;
        plan.server.start = Start::Always;
        plan.server.remote.address = plan.client.local.address;
        let mut pair = plan.start(seed, crypto())?;
        pair.await_open(3 * SECOND)?;
        pair.drain()?;
        assert!(pair.is_open(), "seed {seed}");
        assert_eq!((pair.sas(pair.client), pair.sas(pair.server)), (2, 2));
    }
    Ok(())
}

#[test]
fn a_peer_that_never_answers_is_asked_for_ever_at_a_bounded_pace() -> Outcome {
    let mut pair = started(9)?;
    pair.world.crash(pair.server);
    let flow = pair.upward(SECOND);
    pair.world.run_for(600 * SECOND)?;
    let attempts = pair
        .world
        .node(pair.client)
        .count(|kind| matches!(kind, EventKind::Negotiating { .. }));
    assert!((100..150).contains(&attempts), "{attempts}");
    let status = pair.status(pair.client).unwrap();
    assert!(status.last_error.unwrap().contains("no answer from"));
    pair.start_server();
    pair.await_open(20 * SECOND)?;
    assert!(pair.world.account(flow).clear == 0);
    Ok(())
}

#[test]
fn switches_are_counted_and_say_how_long_traffic_was_held() -> Outcome {
    let mut pair = started(10)?;
    pair.upward(10 * MILLISECOND);
    pair.await_open(SECOND)?;
    assert_eq!(pair.world.node(pair.client).count(is_switch), 1);
    let held = pair
        .world
        .node(pair.client)
        .events()
        .iter()
        .find_map(|(_, event)| match event.kind {
            EventKind::Switched { held_us } => held_us,
            _ => None,
        });
    assert!(held.is_some_and(|held| held >= 150_000));
    Ok(())
}
