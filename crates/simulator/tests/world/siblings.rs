//! Two tunnels over one IKE SA.
//!
//! ```text
//!   10.1.0.1, 10.3.0.1 ─ client ═══ one IKE SA ═══ server ─ 10.2.0.1, 10.4.0.1
//!                               branch: 10.1 ↔ 10.2, annex: 10.3 ↔ 10.4
//! ```

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use epochgate_controller::config::{Config, TunnelConfig, TunnelName};
use epochgate_controller::event::EventKind;
use epochgate_controller::io::{Command, CommandOutcome};
use epochgate_controller::status::{GateStatus, TunnelStatus};
use epochgate_ike_wire::ExchangeType;
use epochgate_simulator::network::{Matching, Rule, Verdict};
use epochgate_simulator::pair::{CLIENT_INNER, CLIENT_OUTER, Plan, SERVER_INNER, SERVER_OUTER};
use epochgate_simulator::{NodeId, Violation, World};

use crate::{MILLISECOND, Outcome, SECOND, crypto, is_close};

const CLIENT_ANNEX: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 3, 0, 1));
const SERVER_ANNEX: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 4, 0, 1));

struct Siblings {
    world: World,
    client: NodeId,
    server: NodeId,
}

fn name(of: &str) -> TunnelName {
    TunnelName(of.into())
}

/// The tunnel and its sibling for other networks.
fn both(tunnel: &TunnelConfig, local: &str, remote: &str) -> Config {
    let network = |text: &str| vec![text.parse().unwrap()];
    let annex = TunnelConfig {
        name: name("annex"),
        local_traffic: network(local),
        remote_traffic: network(remote),
        ..tunnel.clone()
    };
    Config {
        tunnels: vec![Arc::new(tunnel.clone()), Arc::new(annex)],
        ..Config::default()
    }
}

impl Siblings {
    fn start(seed: u64) -> Result<Self, Violation> {
        let plan = Plan::default();
        let mut world = World::new(seed, plan.delay, crypto());
        let networks = |text: [&str; 2]| text.map(|it| it.parse().unwrap());
        let client = world.add_node(
            CLIENT_OUTER,
            &[CLIENT_INNER, CLIENT_ANNEX],
            &networks(["10.1.0.0/16", "10.3.0.0/16"]),
        );
        let server = world.add_node(
            SERVER_OUTER,
            &[SERVER_INNER, SERVER_ANNEX],
            &networks(["10.2.0.0/16", "10.4.0.0/16"]),
        );
        world.start(server, both(&plan.server, "10.4.0.0/16", "10.3.0.0/16"));
        world.start(client, both(&plan.client, "10.3.0.0/16", "10.4.0.0/16"));
        world.run_for(5 * MILLISECOND)?;
        Ok(Self {
            world,
            client,
            server,
        })
    }

    /// Both tunnels asked for at the same instant, and open.
    fn established(seed: u64) -> Result<Self, Violation> {
        let mut siblings = Self::start(seed)?;
        for tunnel in ["branch", "annex"] {
            siblings
                .world
                .command(siblings.client, Command::Up(name(tunnel)));
        }
        siblings.world.run_for(2 * SECOND)?;
        siblings.assert_open();
        Ok(siblings)
    }

    fn status(&self, node: NodeId, tunnel: &str) -> TunnelStatus {
        self.world.status(node, &name(tunnel)).unwrap()
    }

    fn assert_open(&self) {
        for node in [self.client, self.server] {
            for tunnel in ["branch", "annex"] {
                let status = self.status(node, tunnel);
                assert_eq!(status.gate, GateStatus::Open, "{tunnel}: {}", status.reason);
            }
        }
    }

    /// The initiator's SPIs of a tunnel's IKE SAs at the client.
    fn ike_sas(&self, tunnel: &str) -> Vec<String> {
        let status = self.status(self.client, tunnel);
        status
            .ike
            .into_iter()
            .map(|ike| ike.initiator_spi)
            .collect()
    }

    fn sas(&self, node: NodeId) -> usize {
        self.world.node(node).kernel.our_sas().count()
    }
}

#[test]
fn two_tunnels_that_start_at_once_share_one_ike_sa() -> Outcome {
    let siblings = Siblings::established(900)?;
    let shared = siblings.ike_sas("branch");
    assert_eq!(shared.len(), 1);
    assert_eq!(siblings.ike_sas("annex"), shared);
    assert_eq!(
        (siblings.sas(siblings.client), siblings.sas(siblings.server)),
        (4, 4)
    );
    let told = |kind: &EventKind| matches!(kind, EventKind::IkeEstablished { .. });
    assert_eq!(siblings.world.node(siblings.client).count(told), 1);
    Ok(())
}

#[test]
fn each_tunnel_rekeys_its_own_child_sa_and_nothing_is_lost_on_either() -> Outcome {
    let mut it = Siblings::established(901)?;
    let flows = [
        it.world
            .flow(it.client, CLIENT_INNER, SERVER_INNER, MILLISECOND),
        it.world
            .flow(it.server, SERVER_INNER, CLIENT_INNER, MILLISECOND),
        it.world
            .flow(it.client, CLIENT_ANNEX, SERVER_ANNEX, MILLISECOND),
        it.world
            .flow(it.server, SERVER_ANNEX, CLIENT_ANNEX, MILLISECOND),
    ];
    for round in 0..5 {
        for tunnel in ["branch", "annex"] {
            let by = if round % 2 == 0 { it.client } else { it.server };
            it.world.command(by, Command::Rekey(name(tunnel)));
        }
        it.world.run_for(SECOND)?;
    }
    for flow in flows {
        it.world.stop_flow(flow);
    }
    it.world.run_for(40 * SECOND)?;
    it.assert_open();
    for flow in flows {
        let account = it.world.account(flow);
        assert!(account.sent > 4_000);
        assert_eq!((account.lost(), account.refused, account.clear), (0, 0, 0));
    }
    assert_eq!((it.sas(it.client), it.sas(it.server)), (4, 4));
    assert_eq!(it.world.node(it.client).count(is_close), 0);
    Ok(())
}

#[test]
fn one_tunnel_goes_down_and_its_sibling_goes_on() -> Outcome {
    let mut it = Siblings::established(902)?;
    let flow = it
        .world
        .flow(it.client, CLIENT_ANNEX, SERVER_ANNEX, MILLISECOND);
    // The one that made the IKE SA.
    let down = it.world.command(it.client, Command::Down(name("branch")));
    it.world.run_for(10 * SECOND)?;
    assert_eq!(
        it.world.node(it.client).answer(down),
        Some(&CommandOutcome::Done)
    );
    it.world.stop_flow(flow);
    it.world.run_for(SECOND)?;
    assert_eq!(it.world.account(flow).lost(), 0);
    assert_eq!(it.status(it.client, "annex").gate, GateStatus::Open);
    assert_eq!(it.status(it.server, "annex").gate, GateStatus::Open);
    assert_eq!(it.sas(it.client), 2);
    assert_eq!(it.ike_sas("annex").len(), 1);
    // And comes back on what its sibling kept.
    it.world.command(it.client, Command::Up(name("branch")));
    it.world.run_for(2 * SECOND)?;
    it.assert_open();
    assert_eq!(it.ike_sas("branch"), it.ike_sas("annex"));
    Ok(())
}

#[test]
fn a_server_that_lost_everything_gets_both_tunnels_back_on_one_ike_sa() -> Outcome {
    let mut it = Siblings::established(903)?;
    let before = it.ike_sas("branch");
    it.world.crash(it.server);
    let plan = Plan::default();
    let config = both(&plan.server, "10.4.0.0/16", "10.3.0.0/16");
    it.world.start(it.server, config);
    it.world.run_for(120 * SECOND)?;
    it.assert_open();
    assert_ne!(it.ike_sas("branch"), before);
    assert_eq!(it.ike_sas("branch"), it.ike_sas("annex"));
    Ok(())
}

#[test]
fn losses_of_every_kind_end_with_both_tunnels_open_and_no_sa_left_over() -> Outcome {
    let exchanges = [
        ExchangeType::IkeSaInit,
        ExchangeType::IkeAuth,
        ExchangeType::CreateChildSa,
        ExchangeType::Informational,
    ];
    for (index, exchange) in exchanges.into_iter().enumerate() {
        let mut it = Siblings::start(910 + index as u64)?;
        for rule in [
            Rule::lose(Some(CLIENT_OUTER), Matching::IkeRequest(Some(exchange))).next(1),
            Rule::lose(Some(SERVER_OUTER), Matching::IkeResponse(Some(exchange))).next(1),
            Rule {
                from: None,
                to: None,
                matching: Matching::IkeResponse(None),
                verdict: Verdict::Delay(Duration::from_millis(700)),
                permille: 200,
                times: None,
            },
        ] {
            it.world.disturb(rule);
        }
        for tunnel in ["branch", "annex"] {
            it.world.command(it.client, Command::Up(name(tunnel)));
        }
        it.world.run_for(10 * SECOND)?;
        for tunnel in ["annex", "branch"] {
            it.world.command(it.client, Command::Rekey(name(tunnel)));
            it.world.command(it.server, Command::Rekey(name(tunnel)));
        }
        it.world.run_for(20 * SECOND)?;
        it.world.heal();
        it.world.run_for(120 * SECOND)?;
        it.assert_open();
        assert_eq!((it.sas(it.client), it.sas(it.server)), (4, 4), "{exchange}");
        assert_eq!(it.ike_sas("branch"), it.ike_sas("annex"), "{exchange}");
    }
    Ok(())
}
