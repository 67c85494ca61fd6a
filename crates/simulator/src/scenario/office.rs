//! The world of a scenario: hosts, addresses, configurations.
//!
//! ```text
//!   10.1.0.0/24 ─ client 0  192.0.2.10 ─┐
//!   10.1.1.0/24 ─ client 1  192.0.2.11 ─┴ [NAT 198.51.100.1] ─ 203.0.113.1 server ─ 10.2.0.0/16
//! ```

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use epochgate_controller::config::{
    Config, Identity, NatTraversal, Proof, Role, ServerRekey, Start, TunnelConfig,
};
use epochgate_controller::{Secret, config};
use epochgate_nat::{ConntrackSettings, MasqueradeSettings, Nat, UdpSettings};
use ipnet::IpNet;

use super::{End, Lifetimes, NatPlan, Scenario, TunnelPlan};
use crate::QuickCrypto;
use crate::office::NatKind;
use crate::packet::FlowId;
use crate::trace::Recording;
use crate::world::{NatId, NodeId, World};

/// The server's outer address.
const SERVER: IpAddr = v4(203, 0, 113, 1);

/// The server's inner address.
const SERVER_INNER: IpAddr = v4(10, 2, 0, 1);

/// Under which a NAT shows all clients.
const NAT_PUBLIC: IpAddr = v4(198, 51, 100, 1);

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

/// A client and both configurations of its tunnel.
pub(super) struct Branch {
    pub(super) node: NodeId,
    pub(super) inner: IpAddr,
    /// How often it has moved.
    moves: u8,
    /// Third octet of its networks.
    number: u8,
    pub(super) client: Arc<TunnelConfig>,
    pub(super) server: Arc<TunnelConfig>,
}

/// The world and who is in it.
pub(super) struct Office {
    pub(super) world: World,
    pub(super) server: NodeId,
    pub(super) nat: Option<NatId>,
    pub(super) branches: Vec<Branch>,
}

impl Office {
    /// All hosts, and no daemon runs yet.
    pub(super) fn new(scenario: &Scenario, recording: Recording) -> Self {
        let crypto = Arc::new(QuickCrypto::new(scenario.seed));
        let delay = Duration::from_millis(scenario.delay_ms.into());
        let mut world = World::new(scenario.seed, delay, crypto);
        world.set_recording(recording);
        let networks = [server_network()];
        let server = world.add_node(SERVER, &[SERVER_INNER], &networks);
        let nat = scenario.nat.map(|plan| world.add_nat(build(plan)));
        let plans = scenario.tunnels.iter().zip(0..);
        let branches = plans.map(|(plan, number)| {
            let client = client_config(plan, number);
            let inner = v4(10, 1, number, 1);
            let node = world.add_node(outer(number, 0), &[inner], &client.local_traffic);
            if let Some(nat) = nat {
                world.put_behind(node, nat);
            }
            Branch {
                node,
                inner,
                moves: 0,
                number,
                server: Arc::new(server_config(plan, &client)),
                client: Arc::new(client),
            }
        });
        let branches = branches.collect();
        Self {
            world,
            server,
            nat,
            branches,
        }
    }

    /// The host of an end.
    pub(super) fn node(&self, end: End) -> NodeId {
        match end {
            End::Client(number) => self.branches[number].node,
            End::Server(_) => self.server,
        }
    }

    /// An end's configuration of its tunnel.
    pub(super) fn tunnel(&self, end: End) -> &Arc<TunnelConfig> {
        match end {
            End::Client(number) => &self.branches[number].client,
            End::Server(number) => &self.branches[number].server,
        }
    }

    /// What the daemon of an end's host is configured with.
    pub(super) fn config(&self, end: End) -> Config {
        let tunnels = match end {
            End::Client(number) => vec![Arc::clone(&self.branches[number].client)],
            End::Server(_) => {
                let branches = self.branches.iter();
                branches.map(|branch| Arc::clone(&branch.server)).collect()
            }
        };
        Config {
            tunnels,
            ..Config::default()
        }
    }

    /// Starts the daemon of an end's host.
    pub(super) fn start(&mut self, end: End) {
        let config = self.config(end);
        let node = self.node(end);
        self.world.start(node, config);
    }

    /// Whether the daemon of an end's host runs.
    pub(super) fn runs(&self, end: End) -> bool {
        self.world.node(self.node(end)).controller().is_some()
    }

    /// Whether an end's host has no power or stands still.
    pub(super) fn is_down(&self, end: End) -> bool {
        let node = self.world.node(self.node(end));
        node.is_off || node.is_suspended
    }

    /// Gives a client's host an address that it never had.
    pub(super) fn relocate(&mut self, number: usize) {
        let branch = &mut self.branches[number];
        branch.moves = branch.moves.wrapping_add(1);
        let address = outer(branch.number, branch.moves);
        self.world.move_to(branch.node, address);
    }

    /// Packets from one end to the other.
    pub(super) fn stream(&mut self, end: End, interval: Duration) -> FlowId {
        let inner = self.branches[end.tunnel()].inner;
        let (source, destination) = match end {
            End::Client(_) => (inner, SERVER_INNER),
            End::Server(_) => (SERVER_INNER, inner),
        };
        let node = self.node(end);
        self.world.flow(node, source, destination, interval)
    }

    /// The hosts, clients first.
    pub(super) fn lanes(&self) -> Vec<(NodeId, String)> {
        let branches = self.branches.iter().enumerate();
        let clients = branches.map(|(number, branch)| (branch.node, format!("client {number}")));
        clients.chain([(self.server, "server".into())]).collect()
    }

    /// All ends.
    pub(super) fn ends(&self) -> impl Iterator<Item = End> + use<> {
        let numbers = 0..self.branches.len();
        numbers.flat_map(|number| [End::Client(number), End::Server(number)])
    }
}

/// The addresses of clients: none is ever used by two.
fn outer(number: u8, moves: u8) -> IpAddr {
    v4(
        192,
        0,
        2,
        10_u8
            .wrapping_add(number)
            .wrapping_add(moves.wrapping_mul(16)),
    )
}

fn server_network() -> IpNet {
    IpNet::new_assert(v4(10, 2, 0, 0), 16)
}

fn build(plan: NatPlan) -> Box<dyn Nat + Send> {
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    let kind = match plan {
        NatPlan::Masquerade {
            guessing,
            pending_s,
            idle_s,
        } => NatKind::Masquerade(MasqueradeSettings {
            guessing,
            pending: seconds(pending_s),
            idle: seconds(idle_s),
            ..MasqueradeSettings::default()
        }),
        NatPlan::Conntrack => NatKind::Conntrack(ConntrackSettings::default()),
        NatPlan::Udp { symmetric, idle_s } => NatKind::Udp(UdpSettings {
            expiry: seconds(idle_s),
            ..if symmetric {
                UdpSettings::symmetric()
            } else {
                UdpSettings::port_restricted()
            }
        }),
    };
    kind.build(NAT_PUBLIC)
}

fn client_config(plan: &TunnelPlan, number: u8) -> TunnelConfig {
    let client = config::End {
        address: None,
        id: Identity::Fqdn(format!("branch-{number}.example")),
    };
    let server = config::End {
        address: Some(SERVER),
        id: Identity::Fqdn("hq.example".into()),
    };
    let psk = Secret::from(vec![0x5a, number]);
    let name = format!("branch-{number}");
    let mut tunnel = TunnelConfig::new(&name, Role::Client, client, server, psk);
    tunnel.local_traffic = vec![IpNet::new_assert(v4(10, 1, number, 0), 24)];
    tunnel.remote_traffic = vec![server_network()];
    if plan.always {
        tunnel.start = Start::Always;
    }
    if plan.plain_esp {
        tunnel.nat_traversal = NatTraversal::Off;
    }
    if plan.ignore_server_rekey {
        tunnel.epoch.server_rekey = ServerRekey::Ignore;
    }
    if plan.any_inbound {
        tunnel.ping.proof = Proof::AnyInbound;
    }
    apply(&mut tunnel, plan.client);
    tunnel
}

fn server_config(plan: &TunnelPlan, client: &TunnelConfig) -> TunnelConfig {
    let number = client.local_traffic.first().map(|network| network.addr());
    let number = match number {
        Some(IpAddr::V4(address)) => address.octets()[2],
        Some(IpAddr::V6(_)) | None => 0,
    };
    let mut tunnel = TunnelConfig {
        role: Role::Server,
        local: client.remote.clone(),
        remote: config::End {
            address: plan.server_starts.then(|| outer(number, 0)),
            ..client.local.clone()
        },
        local_traffic: client.remote_traffic.clone(),
        remote_traffic: client.local_traffic.clone(),
        start: if plan.server_starts {
            Start::OnDemand
        } else {
            Start::Listen
        },
        ..client.clone()
    };
    tunnel.epoch.wait = !plan.no_wait;
    apply(&mut tunnel, plan.server);
    tunnel
}

fn apply(tunnel: &mut TunnelConfig, lifetimes: Lifetimes) {
    let defaults = TunnelConfig::new(
        "",
        tunnel.role,
        tunnel.local.clone(),
        tunnel.remote.clone(),
        Secret::from(Vec::new()),
    );
    let seconds = |seconds: u32| (seconds > 0).then(|| Duration::from_secs(seconds.into()));
    tunnel.epoch.lifetime = seconds(lifetimes.epoch_s).unwrap_or(defaults.epoch.lifetime);
    tunnel.ike_sa.lifetime = seconds(lifetimes.ike_s).unwrap_or(defaults.ike_sa.lifetime);
    tunnel.ike_sa.reauthenticate = seconds(lifetimes.reauthenticate_s);
}
