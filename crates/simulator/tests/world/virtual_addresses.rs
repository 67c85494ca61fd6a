//! Virtual addresses: a client that is assigned its address, a server that has a pool of them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use epochgate_controller::config::{
    AddressRequest, Addressing, Config, End, Identity, Pool, Role, Start, TunnelConfig, TunnelName,
};
use epochgate_controller::event::EventKind;
use epochgate_controller::io::Command;
use epochgate_controller::status::GateStatus;
use epochgate_simulator::pair::{CLIENT_OUTER, Pair, Plan, SERVER_INNER, SERVER_OUTER};
use epochgate_simulator::{NodeId, Violation, World};

use crate::{MILLISECOND, Outcome, SECOND, crypto};

/// A client that asks, and a server with this pool.
fn plan(pool: &str) -> Plan {
    let mut plan = Plan::default();
    ask(&mut plan.client);
    give(&mut plan.server, pool);
    plan.client_inner = Vec::new();
    plan
}

fn ask(client: &mut TunnelConfig) {
    let request = AddressRequest {
        ipv4: true,
        ipv6: false,
        interface: "lo".into(),
    };
    client.local_traffic = request.everything();
    client.addressing = Addressing::Request(request);
    client.start = Start::Always;
}

fn give(server: &mut TunnelConfig, pool: &str) {
    server.remote_traffic = Vec::new();
    server.addressing = Addressing::Pools(vec![Arc::new(Pool {
        name: "staff".into(),
        networks: vec![pool.parse().unwrap()],
        dns: vec![SERVER_INNER],
        domains: vec!["hq.example".into()],
    })]);
}

fn started(seed: u64, pool: &str) -> Result<Pair, Violation> {
    let mut pair = plan(pool).start(seed, crypto())?;
    pair.await_open(2 * SECOND)?;
    Ok(pair)
}

/// The address that the client was assigned.
fn assigned(pair: &Pair) -> IpAddr {
    let status = pair.status(pair.client).unwrap();
    assert_eq!(status.virtual_addresses.len(), 1);
    status.virtual_addresses[0]
}

fn owns(world: &World, node: NodeId, address: IpAddr) -> bool {
    world.node(node).kernel.addresses().contains(&address)
}

#[test]
fn traffic_flows_both_ways_with_the_assigned_address() -> Outcome {
    let mut pair = started(901, "10.99.0.0/24")?;
    let address = assigned(&pair);
    assert!(owns(&pair.world, pair.client, address));
    let up = pair
        .world
        .flow(pair.client, address, SERVER_INNER, 10 * MILLISECOND);
    let down = pair
        .world
        .flow(pair.server, SERVER_INNER, address, 10 * MILLISECOND);
    pair.world.run_for(SECOND)?;
    let open = pair.open_epoch(pair.client).unwrap();
    pair.rekey(pair.client);
    pair.await_newer(open, 2 * SECOND)?;
    for flow in [up, down] {
        pair.world.stop_flow(flow);
    }
    pair.world.run_for(SECOND)?;
    for flow in [up, down] {
        let account = pair.world.account(flow);
        assert!(account.delivered > 50, "{account:?}");
        assert_eq!((account.lost(), account.refused, account.clear), (0, 0, 0));
    }
    let routes: Vec<IpAddr> = pair
        .world
        .node(pair.client)
        .routes()
        .filter_map(|it| it.source)
        .collect();
    assert_eq!(routes, [address]);
    Ok(())
}

#[test]
fn what_has_another_source_is_held_before_and_after_the_address_is_there() -> Outcome {
    let mut pair = plan("10.99.0.0/24").start(902, crypto())?;
    let stray = pair
        .world
        .flow(pair.client, CLIENT_OUTER, SERVER_INNER, 100 * MILLISECOND);
    pair.await_open(2 * SECOND)?;
    pair.world.run_for(10 * SECOND)?;
    let account = pair.world.account(stray);
    assert_eq!((account.delivered, account.clear), (0, 0));
    Ok(())
}

#[test]
fn down_takes_the_address_away_and_up_brings_the_same() -> Outcome {
    let mut pair = started(903, "10.99.0.0/24")?;
    let address = assigned(&pair);
    let name = pair.name.clone();
    pair.world.command(pair.client, Command::Down(name.clone()));
    pair.world.run_for(SECOND)?;
    assert!(!owns(&pair.world, pair.client, address));
    let policies = pair.world.node(pair.client).kernel.our_policies().count();
    assert_eq!(policies, 0);
    pair.world.command(pair.client, Command::Up(name));
    pair.await_open(2 * SECOND)?;
    assert_eq!(assigned(&pair), address);
    Ok(())
}

#[test]
fn both_daemons_may_restart_and_the_address_stays_the_same() -> Outcome {
    let mut pair = started(904, "10.99.0.0/16")?;
    let address = assigned(&pair);
    for (seconds, node) in [(1, pair.server), (2, pair.client)] {
        pair.world.crash(node);
        pair.world.run_for(Duration::from_secs(seconds))?;
        if node == pair.server {
            pair.start_server();
        } else {
            pair.start_client();
        }
        pair.await_open(120 * SECOND)?;
        assert_eq!(assigned(&pair), address);
        assert!(owns(&pair.world, pair.client, address));
    }
    Ok(())
}

#[test]
fn a_server_whose_pool_changed_gives_another_address_and_the_old_one_goes() -> Outcome {
    let mut pair = started(905, "10.99.0.0/24")?;
    let before = assigned(&pair);
    give(&mut pair.server_config, "10.98.0.0/24");
    pair.world.crash(pair.server);
    pair.world.run_for(SECOND)?;
    pair.start_server();
    pair.await_that("another address", 120 * SECOND, |pair| {
        pair.is_open() && assigned(pair) != before
    })?;
    let after = assigned(&pair);
    assert!(owns(&pair.world, pair.client, after));
    assert!(!owns(&pair.world, pair.client, before));
    let policies = pair.world.node(pair.client).kernel.our_policies();
    let of = |address: IpAddr| ipnet::IpNet::from(address);
    let sources: Vec<_> = policies.map(|policy| policy.key.source).collect();
    assert!(sources.contains(&of(after)) && !sources.contains(&of(before)));
    Ok(())
}

/// Two clients, one server whose pool has one address.
struct Three {
    world: World,
    clients: [(NodeId, TunnelName); 2],
    server: NodeId,
}

fn three(seed: u64) -> Result<Three, Violation> {
    let mut world = World::new(seed, 25 * MILLISECOND, crypto());
    let Plan { client, server, .. } = plan("10.99.0.9/32");
    let server_node = world.add_node(SERVER_OUTER, &[SERVER_INNER], &server.local_traffic);
    let mut server_tunnels = Vec::new();
    let clients = [1, 2].map(|number: u8| {
        let name = TunnelName(format!("laptop-{number}").into());
        let outer = IpAddr::from([192, 0, 2, number]);
        let end = End {
            address: None,
            id: Identity::Fqdn(format!("laptop-{number}.example")),
        };
        server_tunnels.push(Arc::new(TunnelConfig {
            name: name.clone(),
            role: Role::Server,
            remote: end.clone(),
            ..server.clone()
        }));
        let tunnel = TunnelConfig {
            name: name.clone(),
            local: End {
                address: Some(outer),
                ..end
            },
            start: Start::Listen,
            ..client.clone()
        };
        let node = world.add_node(outer, &[], &[]);
        let tunnels = vec![Arc::new(tunnel)];
        world.start(
            node,
            Config {
                tunnels,
                ..Config::default()
            },
        );
        (node, name)
    });
    let tunnels = server_tunnels;
    world.start(
        server_node,
        Config {
            tunnels,
            ..Config::default()
        },
    );
    world.run_for(5 * MILLISECOND)?;
    Ok(Three {
        world,
        clients,
        server: server_node,
    })
}

impl Three {
    fn up(&mut self, client: usize) {
        let (node, name) = self.clients[client].clone();
        self.world.command(node, Command::Up(name));
    }

    fn down(&mut self, client: usize) {
        let (node, name) = self.clients[client].clone();
        self.world.command(node, Command::Down(name));
    }

    fn gate(&self, client: usize) -> GateStatus {
        let (node, name) = &self.clients[client];
        self.world.status(*node, name).unwrap().gate
    }

    fn addresses(&self, client: usize) -> Vec<IpAddr> {
        let (node, name) = &self.clients[client];
        self.world.status(*node, name).unwrap().virtual_addresses
    }
}

#[test]
fn the_last_address_of_a_pool_is_not_given_twice_and_goes_on_when_it_is_free() -> Outcome {
    let only: IpAddr = [10, 99, 0, 9].into();
    let mut three = three(906)?;
    three.up(0);
    three.world.run_for(2 * SECOND)?;
    assert_eq!(three.addresses(0), [only]);
    assert_eq!(three.gate(0), GateStatus::Open);

    three.up(1);
    three.world.run_for(20 * SECOND)?;
    assert_eq!(three.gate(1), GateStatus::Held);
    assert!(three.addresses(1).is_empty());
    let failed = |kind: &EventKind| matches!(kind, EventKind::Retrying { reason, .. } if reason.contains("INTERNAL_ADDRESS_FAILURE"));
    assert!(three.world.told(three.clients[1].0, failed));
    assert_eq!(three.gate(0), GateStatus::Open, "the first one keeps it");

    three.down(0);
    three.world.run_for(10 * SECOND)?;
    // It is refused once more, and given the address of the one that left.
    for _ in 0..2 {
        three.up(1);
        three.world.run_for(5 * SECOND)?;
    }
    assert_eq!(three.addresses(1), [only]);
    assert_eq!(three.gate(1), GateStatus::Open);
    let policies = three.world.node(three.server).kernel.our_policies();
    assert!(policies.count() > 0);
    Ok(())
}
