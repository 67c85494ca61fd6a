//! A daemon that dies, and the next one that finds what it left.

use epochgate_controller::event::EventKind;
use epochgate_controller::status::GateStatus;
use epochgate_simulator::network::{Matching, Rule};

use crate::{MILLISECOND, Outcome, SECOND, established, started};

#[test]
fn a_crashed_client_takes_over_and_nothing_leaves_in_clear() -> Outcome {
    let mut pair = established(81)?;
    let flow = pair.upward(50 * MILLISECOND);
    pair.world.run_for(SECOND)?;
    pair.world.crash(pair.client);
    // The kernel goes on with the open epoch.
    pair.world.run_for(SECOND)?;
    pair.start_client();
    pair.world.run_for(20 * MILLISECOND)?;
    assert!(pair.world.told(pair.client, |kind| matches!(
        kind,
        EventKind::TookOver { sas: 2, .. }
    )));
    pair.await_open(10 * SECOND)?;
    pair.world.stop_flow(flow);
    pair.drain()?;
    let account = pair.world.account(flow);
    assert_eq!((account.lost(), account.clear), (0, 0));
    assert_eq!((pair.sas(pair.client), pair.sas(pair.server)), (2, 2));
    Ok(())
}

#[test]
fn a_crashed_server_takes_over_and_nothing_leaves_in_clear() -> Outcome {
    let mut pair = established(82)?;
    let down = pair.downward(50 * MILLISECOND);
    pair.world.run_for(SECOND)?;
    pair.world.crash(pair.server);
    pair.world.run_for(SECOND)?;
    pair.start_server();
    pair.world.run_for(10 * MILLISECOND)?;
    assert_eq!(pair.gate(pair.server), Some(GateStatus::Held));
    pair.await_open(60 * SECOND)?;
    pair.world.stop_flow(down);
    pair.drain()?;
    assert_eq!(pair.world.account(down).clear, 0);
    assert_eq!((pair.sas(pair.client), pair.sas(pair.server)), (2, 2));
    Ok(())
}

#[test]
fn a_client_that_starts_anew_makes_the_server_forget_and_hold() -> Outcome {
    let mut pair = established(84)?;
    let down = pair.downward(10 * MILLISECOND);
    pair.world.crash(pair.client);
    pair.start_client();
    pair.upward(10 * MILLISECOND);
    pair.world.run_for(60 * MILLISECOND)?;
    pair.await_that("the server holds", SECOND, |pair| {
        pair.gate(pair.server) == Some(GateStatus::Held)
    })?;
    let before = pair.world.account(down);
    pair.await_open(SECOND)?;
    pair.world.stop_flow(down);
    pair.world.run_for(2 * SECOND)?;
    // From the moment at which it knows, the server loses nothing.
    assert_eq!(pair.world.account(down).lost(), before.lost());
    assert_eq!(pair.sas(pair.server), 2);
    let pings = pair
        .world
        .node(pair.client)
        .count(|kind| matches!(kind, EventKind::PingSent { .. }));
    assert_eq!(pings, 2, "one for each start");
    Ok(())
}

#[test]
fn a_server_does_not_wait_for_ever_for_a_client_that_vanished_before_its_ping() -> Outcome {
    let mut pair = started(85)?;
    pair.world.disturb(Rule::lose(None, Matching::Ping));
    pair.upward(SECOND);
    pair.await_that("the client pings", SECOND, |pair| {
        pair.world.told(pair.client, |kind| {
            matches!(kind, EventKind::PingSent { .. })
        })
    })?;
    pair.world.crash(pair.client);
    pair.world.run_for(300 * SECOND)?;
    assert_eq!(pair.sas(pair.server), 0);
    assert!(pair.status(pair.server).unwrap().ike.is_empty());
    Ok(())
}

#[test]
fn leftovers_of_a_tunnel_that_is_no_longer_configured_are_removed() -> Outcome {
    let mut pair = established(83)?;
    pair.world.crash(pair.client);
    pair.world.start(pair.client, Default::default());
    pair.world.run_for(SECOND)?;
    let kernel = &pair.world.node(pair.client).kernel;
    assert_eq!(kernel.our_policies().count(), 0);
    assert_eq!(pair.sas(pair.client), 0);
    Ok(())
}

#[test]
fn a_crash_in_the_middle_of_anything_leaves_nothing_behind() -> Outcome {
    for seed in 300..360 {
        let mut pair = established(seed)?;
        let flow = pair.upward(20 * MILLISECOND);
        let victim = [pair.client, pair.server][usize::from(seed % 2 == 0)];
        pair.rekey(pair.client);
        pair.world
            .run_for(u32::try_from(seed - 300).unwrap() * 3 * MILLISECOND)?;
        pair.world.crash(victim);
        pair.world.run_for(500 * MILLISECOND)?;
        if victim == pair.client {
            pair.start_client();
        } else {
            pair.start_server();
        }
        pair.world.run_for(20 * MILLISECOND)?;
        pair.await_open(60 * SECOND)?;
        pair.world.stop_flow(flow);
        pair.drain()?;
        assert!(pair.is_open(), "seed {seed}");
        let sas = (pair.sas(pair.client), pair.sas(pair.server));
        assert_eq!(sas, (2, 2), "seed {seed}");
    }
    Ok(())
}
