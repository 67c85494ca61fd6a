//! What the network loses.

use epochgate_controller::event::EventKind;
use epochgate_ike_wire::ExchangeType;
use epochgate_simulator::network::{Matching, Rule, Verdict};
use epochgate_simulator::pair::{CLIENT_OUTER, SERVER_OUTER};

use crate::{MILLISECOND, Outcome, SECOND, established, is_close, started};

const CREATE_CHILD_SA: Option<ExchangeType> = Some(ExchangeType::CreateChildSa);

/// A rekey by the client meets one rule under traffic in both directions: nothing may be lost.
fn a_rekey_that_meets(seed: u64, rule: Rule) -> Outcome {
    let mut pair = established(seed)?;
    let up = pair.upward(MILLISECOND);
    let down = pair.downward(MILLISECOND);
    pair.world.run_for(100 * MILLISECOND)?;
    let open = pair.open_epoch(pair.client).unwrap();
    pair.world.disturb(rule);
    pair.rekey(pair.client);
    pair.await_newer(open, 20 * SECOND)?;
    pair.world.heal();
    pair.world.stop_flow(up);
    pair.world.stop_flow(down);
    pair.drain()?;
    for flow in [up, down] {
        let account = pair.world.account(flow);
        assert_eq!((account.lost(), account.refused), (0, 0));
    }
    assert_eq!(pair.world.node(pair.client).count(is_close), 0);
    assert!(pair.is_open());
    assert_eq!((pair.sas(pair.client), pair.sas(pair.server)), (2, 2));
    Ok(())
}

#[test]
fn a_lost_create_child_sa_response_costs_no_packet() -> Outcome {
    let lost = Rule::lose(Some(SERVER_OUTER), Matching::IkeResponse(CREATE_CHILD_SA));
    a_rekey_that_meets(21, lost.next(1))
}

#[test]
fn a_lost_create_child_sa_request_costs_no_packet() -> Outcome {
    let lost = Rule::lose(Some(CLIENT_OUTER), Matching::IkeRequest(CREATE_CHILD_SA));
    a_rekey_that_meets(22, lost.next(2))
}

#[test]
fn a_late_create_child_sa_response_costs_no_packet() -> Outcome {
    let late = Rule {
        from: Some(SERVER_OUTER),
        to: None,
        matching: Matching::IkeResponse(CREATE_CHILD_SA),
        verdict: Verdict::Delay(SECOND),
        permille: 1000,
        times: None,
    };
    a_rekey_that_meets(23, late)
}

#[test]
fn a_doubled_ike_message_costs_no_packet() -> Outcome {
    for matching in [Matching::IkeRequest(None), Matching::IkeResponse(None)] {
        let doubled = Rule {
            from: None,
            to: None,
            matching,
            verdict: Verdict::Copy(300 * MILLISECOND),
            permille: 1000,
            times: None,
        };
        a_rekey_that_meets(24, doubled)?;
    }
    Ok(())
}

#[test]
fn a_lost_first_ping_costs_no_packet() -> Outcome {
    let lost = Rule::lose(Some(CLIENT_OUTER), Matching::Ping);
    a_rekey_that_meets(25, lost.next(1))
}

#[test]
fn every_message_of_the_start_may_be_lost_once() -> Outcome {
    let messages = [
        Matching::IkeRequest(Some(ExchangeType::IkeSaInit)),
        Matching::IkeResponse(Some(ExchangeType::IkeSaInit)),
        Matching::IkeRequest(Some(ExchangeType::IkeAuth)),
        Matching::IkeResponse(Some(ExchangeType::IkeAuth)),
        Matching::Ping,
        Matching::Esp,
    ];
    for (seed, matching) in (30..).zip(messages) {
        let mut pair = started(seed)?;
        pair.world.disturb(Rule::lose(None, matching).next(1));
        let flow = pair.upward(100 * MILLISECOND);
        pair.await_open(5 * SECOND)?;
        pair.world.stop_flow(flow);
        pair.world.run_for(SECOND)?;
        let account = pair.world.account(flow);
        assert_eq!((account.lost(), account.refused), (0, 0), "seed {seed}");
    }
    Ok(())
}

#[test]
fn an_epoch_whose_pings_are_all_lost_leaves_traffic_on_the_old_one_until_another_is_proven()
-> Outcome {
    let mut pair = established(40)?;
    let up = pair.upward(MILLISECOND);
    let down = pair.downward(MILLISECOND);
    let client = pair.open(pair.client).unwrap();
    let server = pair.open(pair.server).unwrap();
    let spared = vec![client.outbound.spi, server.outbound.spi];
    pair.world
        .disturb(Rule::lose(None, Matching::EspExcept(spared)));
    pair.rekey(pair.client);
    pair.world.run_for(10 * SECOND)?;
    assert_eq!(pair.open_epoch(pair.client), Some(client.number));
    assert_eq!(pair.open_epoch(pair.server), Some(server.number));
    let rekeys = pair
        .world
        .node(pair.client)
        .count(|kind| matches!(kind, EventKind::Rekeying { .. }));
    assert!(rekeys >= 2, "after the last ping it rekeys again: {rekeys}");
    pair.world.heal();
    pair.await_newer(client.number, 20 * SECOND)?;
    pair.world.stop_flow(up);
    pair.world.stop_flow(down);
    pair.drain()?;
    for flow in [up, down] {
        let account = pair.world.account(flow);
        assert_eq!((account.lost(), account.refused), (0, 0));
    }
    assert_eq!(pair.world.node(pair.client).count(is_close), 0);
    assert_eq!((pair.sas(pair.client), pair.sas(pair.server)), (2, 2));
    Ok(())
}

#[test]
fn the_way_back_of_a_new_epoch_alone_is_blocked_and_the_old_one_carries_on() -> Outcome {
    let mut pair = established(41)?;
    let up = pair.upward(MILLISECOND);
    let client = pair.open(pair.client).unwrap();
    let server = pair.open(pair.server).unwrap();
    let block = Rule::lose(
        Some(SERVER_OUTER),
        Matching::EspExcept(vec![server.outbound.spi]),
    );
    pair.world.disturb(block);
    pair.rekey(pair.client);
    pair.world.run_for(2 * SECOND)?;
    // The server has seen pings on the new epoch and moved on; the client goes on with the old one,
    // until it is pinged in turn.
    assert_eq!(pair.open_epoch(pair.client), Some(client.number));
    pair.world.heal();
    pair.await_newer(client.number, 20 * SECOND)?;
    pair.world.stop_flow(up);
    pair.drain()?;
    assert_eq!(pair.world.account(up).lost(), 0);
    Ok(())
}

#[test]
fn a_rekey_response_that_comes_when_the_peer_has_moved_on_disturbs_nothing() -> Outcome {
    for seed in 42..50 {
        let mut pair = established(seed)?;
        let up = pair.upward(10 * MILLISECOND);
        let down = pair.downward(10 * MILLISECOND);
        let lost = Rule::lose(Some(CLIENT_OUTER), Matching::IkeResponse(CREATE_CHILD_SA));
        pair.world.disturb(lost);
        pair.rekey(pair.server);
        pair.world.run_for(10 * SECOND)?;
        pair.world.heal();
        pair.world.run_for(30 * SECOND)?;
        pair.world.stop_flow(up);
        pair.world.stop_flow(down);
        pair.world.run_for(SECOND)?;
        for flow in [up, down] {
            assert_eq!(pair.world.account(flow).lost(), 0, "seed {seed}");
        }
        for node in [pair.client, pair.server] {
            assert_eq!(pair.world.node(node).count(is_close), 0, "seed {seed}");
            assert_eq!(pair.sas(node), 2, "seed {seed}");
        }
    }
    Ok(())
}
