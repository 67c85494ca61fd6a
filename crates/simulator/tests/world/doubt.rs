//! An open epoch that stops working.

use epochgate_controller::config::{NatTraversal, Proof};
use epochgate_controller::event::EventKind;
use epochgate_controller::io::{Command, CommandOutcome};
use epochgate_controller::status::GateStatus;
use epochgate_ike_wire::ExchangeType;
use epochgate_simulator::network::{Matching, Rule};
use epochgate_simulator::pair::{CLIENT_OUTER, DELAY, Plan};

use crate::{MILLISECOND, Outcome, SECOND, crypto, established, is_close};

#[test]
fn an_open_epoch_in_doubt_is_held_and_what_was_held_is_delivered() -> Outcome {
    let mut pair = established(51)?;
    pair.world.run_for(SECOND)?;
    let block = pair.world.disturb(Rule::lose(None, Matching::Esp));
    pair.await_that("the client holds", 25 * SECOND, |pair| {
        pair.gate(pair.client) == Some(GateStatus::Held)
    })?;
    let flow = pair.upward(100 * MILLISECOND);
    pair.world.run_for(5 * SECOND)?;
    pair.world.mend(block);
    pair.await_open(15 * SECOND)?;
    pair.world.stop_flow(flow);
    pair.world.run_for(SECOND)?;
    let account = pair.world.account(flow);
    assert_eq!(account.lost(), 0);
    Ok(())
}

#[test]
fn a_doubted_epoch_that_answers_again_is_opened_again_or_replaced() -> Outcome {
    let mut pair = established(52)?;
    let up = pair.upward(50 * MILLISECOND);
    for round in 0..5 {
        pair.world.disturb(Rule::lose(None, Matching::Anything));
        pair.world.run_for(20 * SECOND)?;
        assert_eq!(pair.gate(pair.client), Some(GateStatus::Held), "{round}");
        pair.world.heal();
        pair.await_open(30 * SECOND)?;
        pair.world.run_for(20 * SECOND)?;
        assert!(pair.is_open());
    }
    pair.world.stop_flow(up);
    pair.drain()?;
    assert_eq!((pair.sas(pair.client), pair.sas(pair.server)), (2, 2));
    Ok(())
}

/// IKE alone gets nowhere, and the client's IKE SA ends while its epoch carries all traffic.
#[test]
fn an_epoch_that_has_outlived_its_ike_sa_is_watched_and_gets_another() -> Outcome {
    let mut pair = established(55)?;
    let ping = pair.client_config.ping.clone();
    let round_trip = 2 * DELAY;
    let up = pair.upward(200 * MILLISECOND);
    for matching in [Matching::IkeRequest(None), Matching::IkeResponse(None)] {
        pair.world.disturb(Rule::lose(None, matching));
    }
    pair.rekey(pair.client);
    pair.world.run_for(60 * SECOND)?;
    assert!(pair.is_open(), "{}", pair.summary(pair.client));
    let ike = pair.status(pair.client).unwrap().ike;
    assert!(ike.iter().all(|it| it.state != "established"), "{ike:?}");

    let block = pair.world.disturb(Rule::lose(None, Matching::Esp));
    let noticed = ping.idle + ping.attempts * ping.interval + round_trip;
    pair.await_that("the client holds", noticed, |pair| {
        pair.gate(pair.client) == Some(GateStatus::Held)
    })?;
    pair.world.mend(block);
    pair.await_that("it flows", 2 * ping.interval + round_trip, |pair| {
        pair.gate(pair.client) == Some(GateStatus::Open)
    })?;

    pair.world.heal();
    pair.await_that("there is an IKE SA", 60 * SECOND, |pair| {
        let has_one = |node| {
            let ike = pair.status(node).map(|it| it.ike);
            ike.is_some_and(|ike| ike.len() == 1 && ike[0].state == "established")
        };
        pair.is_open() && has_one(pair.client) && has_one(pair.server)
    })?;
    pair.world.stop_flow(up);
    pair.drain()
}

/// The client has left the first epoch, whose Delete has not got through, and the second is lost.
#[test]
fn a_server_asks_before_it_goes_back_to_what_its_client_may_have_left() -> Outcome {
    let mut pair = established(56)?;
    let first = pair.open(pair.client).unwrap();
    let goodbyes = Matching::IkeRequest(Some(ExchangeType::Informational));
    let block = pair.world.disturb(Rule::lose(Some(CLIENT_OUTER), goodbyes));
    pair.rekey(pair.client);
    pair.await_newer(first.number, SECOND)?;
    pair.world.steal_sa(pair.client, first.inbound);
    let down = pair.downward(20 * MILLISECOND);
    let up = pair.upward(200 * MILLISECOND);
    pair.world.run_for(500 * MILLISECOND)?;
    let second = pair.open(pair.server).unwrap();
    pair.world.steal_sa(pair.server, second.inbound);
    pair.world.mend(block);
    pair.await_newer(second.number, pair.client_config.recovery_bound())?;
    pair.world.stop_flow(down);
    pair.world.stop_flow(up);
    pair.drain()?;
    let account = pair.world.account(down);
    assert_eq!((account.lost(), account.refused), (0, 0), "{account:?}");
    Ok(())
}

#[test]
fn traffic_in_one_direction_alone_never_closes_the_gate() -> Outcome {
    let mut pair = established(53)?;
    let up = pair.upward(10 * MILLISECOND);
    pair.world.run_for(120 * SECOND)?;
    assert_eq!(pair.world.node(pair.client).count(is_close), 0);
    assert_eq!(pair.world.node(pair.server).count(is_close), 0);
    pair.world.stop_flow(up);
    pair.world.run_for(SECOND)?;
    assert_eq!(pair.world.account(up).lost(), 0);
    Ok(())
}

#[test]
fn a_quiet_tunnel_stays_open() -> Outcome {
    let mut pair = established(54)?;
    pair.world.run_for(600 * SECOND)?;
    assert!(pair.is_open());
    assert_eq!(pair.world.node(pair.client).count(is_close), 0);
    assert_eq!(pair.world.node(pair.server).count(is_close), 0);
    Ok(())
}

#[test]
fn a_server_whose_client_vanished_finds_out_over_ike_and_holds() -> Outcome {
    let mut pair = established(55)?;
    pair.world.disturb(Rule::lose(None, Matching::Anything));
    pair.world.crash(pair.client);
    pair.await_that("the server holds", 600 * SECOND, |pair| {
        pair.gate(pair.server) == Some(GateStatus::Held)
    })?;
    pair.drain()?;
    assert_eq!(pair.sas(pair.server), 0);
    let status = pair.status(pair.server).unwrap();
    assert!(status.reason.contains("no answer"), "{}", status.reason);
    Ok(())
}

#[test]
fn a_client_whose_server_forgot_everything_negotiates_anew() -> Outcome {
    let mut pair = established(56)?;
    let flow = pair.upward(100 * MILLISECOND);
    pair.world.crash(pair.server);
    pair.start_server();
    // Its new daemon removed the SAs: nothing of the client's arrives any more.
    pair.world.run_for(100 * MILLISECOND)?;
    pair.await_open(60 * SECOND)?;
    pair.world.stop_flow(flow);
    pair.drain()?;
    assert!(pair.is_open());
    assert_eq!((pair.sas(pair.client), pair.sas(pair.server)), (2, 2));
    Ok(())
}

#[test]
fn held_traffic_survives_minutes_of_outage() -> Outcome {
    let mut pair = established(57)?;
    pair.world.disturb(Rule::lose(None, Matching::Anything));
    pair.await_that("the client holds", 30 * SECOND, |pair| {
        pair.gate(pair.client) == Some(GateStatus::Held)
    })?;
    let flow = pair.upward(SECOND);
    pair.world.run_for(50 * SECOND)?;
    pair.world.stop_flow(flow);
    // Longer than the kernel would keep them if nobody wrote the policy again.
    pair.world.run_for(400 * SECOND)?;
    pair.world.heal();
    pair.await_open(60 * SECOND)?;
    pair.world.run_for(SECOND)?;
    assert_eq!(pair.world.account(flow).lost(), 0);
    Ok(())
}

#[test]
fn nothing_to_ping_keeps_the_tunnel_held_and_says_what_to_set() -> Outcome {
    let mut plan = Plan::default();
    plan.server_inner.clear();
    let mut pair = plan.start(58, crypto())?;
    pair.upward(SECOND);
    pair.world.run_for(10 * SECOND)?;
    let status = pair.status(pair.client).unwrap();
    assert_eq!(status.gate, GateStatus::Held);
    assert!(
        status.reason.contains("set `ping.target`"),
        "{}",
        status.reason
    );
    Ok(())
}

#[test]
fn who_asks_for_a_tunnel_with_nothing_to_ping_is_told_so_at_once() -> Outcome {
    for asks_later in [false, true] {
        let mut plan = Plan::default();
        plan.server_inner.clear();
        let mut pair = plan.start(60, crypto())?;
        if asks_later {
            pair.upward(SECOND);
            pair.world.run_for(10 * SECOND)?;
        }
        let up = pair
            .world
            .command(pair.client, Command::Up(pair.name.clone()));
        pair.world.run_for(SECOND)?;
        let reason = pair.status(pair.client).unwrap().reason;
        assert!(reason.contains("set `ping.target`"), "{reason}");
        let answer = pair.world.node(pair.client).answer(up);
        let told = CommandOutcome::Failed(format!("tunnel branch: {reason}"));
        assert_eq!(answer, Some(&told));
    }
    Ok(())
}

#[test]
fn who_asks_for_a_tunnel_waits_while_it_may_yet_open_by_itself() -> Outcome {
    let mut plan = Plan::default();
    plan.server_inner.clear();
    plan.client.ping.proof = Proof::AnyInbound;
    let mut speaks = plan.start(61, crypto())?;
    let mut plan = Plan::default();
    let inner = std::mem::take(&mut plan.client_inner);
    let mut moves_in = plan.start(62, crypto())?;
    let ups = [&mut speaks, &mut moves_in].map(|pair| {
        let name = pair.name.clone();
        pair.world.command(pair.client, Command::Up(name))
    });
    speaks.world.run_for(10 * SECOND)?;
    moves_in.world.run_for(10 * SECOND)?;
    for (pair, up) in [&speaks, &moves_in].into_iter().zip(ups) {
        assert_eq!(pair.gate(pair.client), Some(GateStatus::Held));
        assert_eq!(pair.world.node(pair.client).answer(up), None);
    }
    moves_in.world.set_addresses(moves_in.client, &inner);
    moves_in.await_open(SECOND)?;
    let answer = moves_in.world.node(moves_in.client).answer(ups[1]);
    assert_eq!(answer, Some(&CommandOutcome::Done));
    Ok(())
}

#[test]
fn nothing_to_ping_from_keeps_the_tunnel_held_until_the_host_has_an_address() -> Outcome {
    let mut plan = Plan::default();
    let inner = std::mem::take(&mut plan.client_inner);
    let mut pair = plan.start(59, crypto())?;
    let flow = pair.upward(SECOND);
    pair.world.run_for(10 * SECOND)?;
    let status = pair.status(pair.client).unwrap();
    assert_eq!(status.gate, GateStatus::Held);
    assert!(status.reason.contains("`ping.source`"), "{}", status.reason);
    pair.world.set_addresses(pair.client, &inner);
    pair.await_open(SECOND)?;
    pair.world.stop_flow(flow);
    pair.world.run_for(SECOND)?;
    assert_eq!(pair.world.account(flow).lost(), 0);
    Ok(())
}

#[test]
fn an_sa_that_somebody_else_removed_is_replaced() -> Outcome {
    for inbound in [true, false] {
        let mut pair = established(60)?;
        let flow = pair.upward(20 * MILLISECOND);
        let open = pair.open(pair.client).unwrap();
        let stolen = if inbound { open.inbound } else { open.outbound };
        pair.world.steal_sa(pair.client, stolen);
        pair.await_newer(open.number, 10 * SECOND)?;
        pair.world.stop_flow(flow);
        pair.world.run_for(SECOND)?;
        assert!(pair.world.account(flow).lost() <= 3);
        assert!(pair.world.told(pair.client, |kind| matches!(
            kind,
            EventKind::Attention { .. }
        )));
    }
    Ok(())
}

/// What the server sends on an epoch that failed may be taken for the answer to another's first ping,
/// by a NAT that looks into IPsec. Who has looked for NATs and found none need not delete it.
#[test]
fn an_epoch_that_fails_is_deleted_at_once_where_nobody_looked_for_nats() -> Outcome {
    for (client, server, kept) in [
        (NatTraversal::Auto, NatTraversal::Auto, true),
        (NatTraversal::Auto, NatTraversal::Off, false),
        (NatTraversal::Off, NatTraversal::Auto, false),
        (NatTraversal::Off, NatTraversal::Off, false),
    ] {
        let mut plan = Plan::default();
        plan.client.nat_traversal = client;
        plan.server.nat_traversal = server;
        let mut pair = plan.established(57, crypto())?;
        let up = pair.upward(200 * MILLISECOND);
        pair.world.disturb(Rule::lose(None, Matching::Esp));
        let mut seen_failed = false;
        for _ in 0..400 {
            pair.world.run_for(50 * MILLISECOND)?;
            let epochs = pair.status(pair.client).unwrap().epochs;
            seen_failed |= epochs.iter().any(|epoch| epoch.state == "failed");
        }
        pair.world.stop_flow(up);
        assert_eq!(seen_failed, kept, "{client:?} {server:?}");
    }
    Ok(())
}
