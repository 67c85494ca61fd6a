//! Hosts whose addresses change under a tunnel (MOBIKE, RFC 4555): the IKE SA and its epochs go on
//! elsewhere, and what is sent meanwhile waits.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use epochgate_controller::event::EventKind;
use epochgate_controller::io::XfrmError;
use epochgate_simulator::kernel::OpKind;
use epochgate_simulator::network::{Matching, Rule};
use epochgate_simulator::pair::{CLIENT_OUTER, Pair, Plan};

use crate::{Outcome, crypto};

/// Where the client goes.
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 77));
const FURTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 78));

fn mobile() -> Plan {
    let mut plan = Plan::default();
    plan.client.local.address = None;
    plan
}

fn moves(pair: &Pair) -> [usize; 2] {
    let moved = |kind: &EventKind| matches!(kind, EventKind::EpochMoved { .. });
    [pair.client, pair.server].map(|node| pair.world.node(node).count(moved))
}

/// Ping intervals, IKE's round trips, and the hold in between.
const SOON: Duration = Duration::from_secs(3);

#[test]
fn a_client_that_moves_keeps_its_epoch_and_its_traffic_waits() -> Outcome {
    for seed in 0..20 {
        let mut pair = mobile().established(seed, crypto())?;
        let open = pair.open_epoch(pair.client);
        let up = pair.upward(Duration::from_millis(5));
        pair.world.run_for(Duration::from_millis(500))?;
        pair.world.move_to(pair.client, ELSEWHERE);
        pair.await_that("the client has moved", SOON, |pair| moves(pair) == [1, 1])?;
        pair.await_open(SOON)?;
        assert_eq!(pair.open_epoch(pair.client), open, "nothing was rekeyed");
        pair.world.run_for(Duration::from_secs(1))?;
        pair.world.stop_flow(up);
        pair.world.run_for(Duration::from_secs(1))?;
        let account = pair.world.account(up);
        let missing = account.lost();
        // What was under way, or left before the gate had closed.
        assert!(missing <= 2, "seed {seed}: {account:?}");
        assert_eq!(account.clear, 0);
        assert_eq!((pair.sas(pair.client), pair.sas(pair.server)), (2, 2));
    }
    Ok(())
}

#[test]
fn a_server_sends_to_where_its_client_is_now() -> Outcome {
    let mut pair = mobile().established(1, crypto())?;
    pair.world.move_to(pair.client, ELSEWHERE);
    pair.await_that("the client has moved", SOON, |pair| moves(pair) == [1, 1])?;
    pair.await_open(SOON)?;
    let down = pair.downward(Duration::from_millis(5));
    pair.world.run_for(Duration::from_secs(1))?;
    pair.world.stop_flow(down);
    pair.world.run_for(Duration::from_secs(1))?;
    let account = pair.world.account(down);
    assert_eq!(account.sent, account.delivered);
    Ok(())
}

#[test]
fn a_client_that_moves_on_before_it_was_answered_arrives_all_the_same() -> Outcome {
    for seed in 0..20 {
        let mut pair = mobile().established(seed, crypto())?;
        pair.world.move_to(pair.client, ELSEWHERE);
        pair.world.run_for(Duration::from_millis(10 * seed + 1))?;
        pair.world.move_to(pair.client, FURTHER);
        pair.await_that("it is there", SOON, |pair| {
            let server = pair.open(pair.server);
            server.is_some_and(|epoch| epoch.outbound.destination == FURTHER)
        })?;
        pair.await_open(SOON)?;
    }
    Ok(())
}

#[test]
fn a_client_that_comes_back_before_it_was_answered_is_asked_again() -> Outcome {
    for seed in 0..20 {
        let mut pair = mobile().established(seed, crypto())?;
        pair.world.move_to(pair.client, ELSEWHERE);
        pair.world.run_for(Duration::from_millis(10 * seed + 1))?;
        pair.world.move_to(pair.client, CLIENT_OUTER);
        pair.await_that("it is back", SOON, |pair| {
            let server = pair.open(pair.server);
            server.is_some_and(|epoch| epoch.outbound.destination == CLIENT_OUTER)
        })?;
        pair.await_open(SOON)?;
    }
    Ok(())
}

#[test]
fn lost_updates_are_repeated() -> Outcome {
    for seed in 0..10 {
        let mut pair = mobile().established(seed, crypto())?;
        pair.world.move_to(pair.client, ELSEWHERE);
        let lost = Rule::lose(None, Matching::Anything).next(3);
        pair.world.disturb(lost);
        pair.await_that("the client has moved", Duration::from_secs(10), |pair| {
            moves(pair) == [1, 1]
        })?;
        pair.await_open(Duration::from_secs(10))?;
    }
    Ok(())
}

#[test]
fn a_move_during_a_rekey_leaves_one_epoch() -> Outcome {
    for seed in 0..40 {
        let mut pair = mobile().established(seed, crypto())?;
        pair.rekey(if seed % 2 == 0 {
            pair.client
        } else {
            pair.server
        });
        pair.world.run_for(Duration::from_millis(5 * seed))?;
        pair.world.move_to(pair.client, ELSEWHERE);
        pair.world.run_for(Duration::from_secs(20))?;
        pair.await_open(Duration::from_secs(10))?;
        pair.drain()?;
        let sas = (pair.sas(pair.client), pair.sas(pair.server));
        assert_eq!(sas, (2, 2), "seed {seed}");
        let server = pair.open(pair.server);
        assert!(server.is_some_and(|epoch| epoch.outbound.destination == ELSEWHERE));
    }
    Ok(())
}

#[test]
fn without_mobike_a_client_that_moves_makes_a_new_ike_sa() -> Outcome {
    let mut plan = mobile();
    plan.server.path.mobike = false;
    let mut pair = plan.established(1, crypto())?;
    let up = pair.upward(Duration::from_millis(5));
    pair.world.run_for(Duration::from_millis(500))?;
    pair.world.move_to(pair.client, ELSEWHERE);
    pair.await_that("it is there", Duration::from_secs(5), |pair| {
        let server = pair.open(pair.server);
        server.is_some_and(|epoch| epoch.outbound.destination == ELSEWHERE)
    })?;
    pair.await_open(SOON)?;
    pair.world.stop_flow(up);
    assert_eq!(moves(&pair), [0, 0]);
    assert_eq!(pair.world.account(up).clear, 0);
    Ok(())
}

#[test]
fn a_move_that_a_kernel_refuses_makes_a_new_epoch_there() -> Outcome {
    for seed in 0..10 {
        let mut pair = mobile().established(seed, crypto())?;
        let node = if seed % 2 == 0 {
            pair.client
        } else {
            pair.server
        };
        let refusal = XfrmError::Other("Operation not permitted".into());
        pair.world.fail_next(node, OpKind::MoveSa, refusal);
        let up = pair.upward(Duration::from_millis(20));
        pair.world.move_to(pair.client, ELSEWHERE);
        pair.await_that("it is there", Duration::from_secs(30), |pair| {
            let server = pair.open(pair.server);
            server.is_some_and(|epoch| epoch.outbound.destination == ELSEWHERE)
        })?;
        pair.await_open(Duration::from_secs(30))?;
        pair.world.stop_flow(up);
        pair.drain()?;
        assert_eq!(pair.world.account(up).clear, 0);
        let sas = (pair.sas(pair.client), pair.sas(pair.server));
        assert_eq!(sas, (2, 2), "seed {seed}");
    }
    Ok(())
}
