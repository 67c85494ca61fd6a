//! Several selectors, and those that the peer does not agree to.

use std::net::IpAddr;

use epochgate_controller::io::PolicyAction;
use epochgate_controller::status::GateStatus;
use epochgate_simulator::packet::{Body, Packet};
use epochgate_simulator::pair::Plan;

use crate::{MILLISECOND, Outcome, SECOND, crypto};

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn every_pair_of_selectors_is_held_and_switched_together() -> Outcome {
    let mut plan = Plan::default();
    plan.client.local_traffic = vec![
        "10.1.0.0/24".parse().unwrap(),
        "10.1.5.0/24".parse().unwrap(),
    ];
    plan.client.remote_traffic = vec![
        "10.2.0.0/24".parse().unwrap(),
        "10.2.5.0/24".parse().unwrap(),
    ];
    plan.server.local_traffic = plan.client.remote_traffic.clone();
    plan.server.remote_traffic = plan.client.local_traffic.clone();
    let mut pair = plan.start(111, crypto())?;
    let mut flows = Vec::new();
    for from in ["10.1.0.1", "10.1.5.9"] {
        for to in ["10.2.0.1", "10.2.5.9"] {
            let flow = (address(from), address(to));
            flows.push(
                pair.world
                    .flow(pair.client, flow.0, flow.1, 10 * MILLISECOND),
            );
        }
    }
    pair.await_open(SECOND)?;
    let open = pair.open_epoch(pair.client).unwrap();
    pair.rekey(pair.client);
    pair.await_newer(open, SECOND)?;
    for flow in &flows {
        pair.world.stop_flow(*flow);
    }
    pair.world.run_for(SECOND)?;
    for flow in flows {
        let account = pair.world.account(flow);
        assert_eq!((account.lost(), account.refused, account.clear), (0, 0, 0));
    }
    Ok(())
}

#[test]
fn a_pair_that_the_peer_does_not_agree_to_stays_held_and_is_named() -> Outcome {
    let mut plan = Plan::default();
    plan.client.remote_traffic = vec![
        "10.2.0.0/24".parse().unwrap(),
        "10.3.0.0/24".parse().unwrap(),
    ];
    plan.server.local_traffic = vec!["10.2.0.0/24".parse().unwrap()];
    let mut pair = plan.start(112, crypto())?;
    let agreed = pair.upward(10 * MILLISECOND);
    let refused = pair.world.flow(
        pair.client,
        address("10.1.0.1"),
        address("10.3.0.1"),
        500 * MILLISECOND,
    );
    pair.await_that("the client opens", SECOND, |pair| {
        pair.gate(pair.client) == Some(GateStatus::Open)
    })?;
    pair.world.run_for(5 * SECOND)?;
    pair.world.stop_flow(agreed);
    pair.world.run_for(SECOND)?;
    assert_eq!(pair.world.account(agreed).lost(), 0);
    let account = pair.world.account(refused);
    assert_eq!((account.delivered, account.clear), (0, 0));
    let status = pair.status(pair.client).unwrap();
    assert_eq!(status.refused_traffic, ["10.1.0.0/16 === 10.3.0.0/24"]);
    let kernel = &pair.world.node(pair.client).kernel;
    let held = kernel
        .our_policies()
        .find(|policy| policy.key.destination == "10.3.0.0/24".parse().unwrap())
        .unwrap();
    assert!(matches!(held.action, PolicyAction::Hold { .. }));
    Ok(())
}

fn v6_plan() -> Plan {
    let mut plan = Plan::default();
    plan.client.local_traffic = vec!["fd00:1::/64".parse().unwrap()];
    plan.client.remote_traffic = vec!["::/0".parse().unwrap()];
    plan.server.local_traffic = plan.client.remote_traffic.clone();
    plan.server.remote_traffic = plan.client.local_traffic.clone();
    for tunnel in [&mut plan.client, &mut plan.server] {
        tunnel.template.exempt_neighbour_discovery = true;
    }
    plan.client_inner = vec![address("fd00:1::1")];
    plan.server_inner = vec![address("fd00:2::1")];
    plan
}

#[test]
fn ipv6_traffic_is_held_and_switched_inside_ipv4() -> Outcome {
    let mut pair = v6_plan().start(113, crypto())?;
    let (near, far) = (address("fd00:1::1"), address("fd00:2::1"));
    let flow = pair.world.flow(pair.client, near, far, 10 * MILLISECOND);
    pair.await_open(SECOND)?;
    pair.world.stop_flow(flow);
    pair.world.run_for(SECOND)?;
    let account = pair.world.account(flow);
    assert_eq!((account.lost(), account.refused, account.clear), (0, 0, 0));
    Ok(())
}

#[test]
fn neighbour_discovery_is_exempt_from_the_hold() -> Outcome {
    let mut pair = v6_plan().start(114, crypto())?;
    for icmpv6_type in 133..=137 {
        let solicitation = Packet {
            source: address("fd00:1::1"),
            destination: address("fd00:1::2"),
            body: Body::NeighbourDiscovery { icmpv6_type },
            waited: false,
        };
        pair.world.send(pair.client, solicitation)?;
    }
    assert_eq!(pair.world.node(pair.client).kernel.held(), 0);
    Ok(())
}
