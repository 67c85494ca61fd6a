//! Several clients behind one NAT, and their server.
//!
//! ```text
//!   10.1.0.1 ─ client 192.168.0.10 ─┐
//!   10.1.1.1 ─ client 192.168.0.11 ─┼─ NAT 192.0.2.1 ── network ── 203.0.113.1 server ─ 10.2.0.1
//!   10.1.2.1 ─ client 192.168.0.12 ─┘
//! ```
//!
//! Without a NAT the same hosts are on the network with the same addresses.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use epochgate_controller::Secret;
use epochgate_controller::config::{Config, End, Identity, Role, Start, TunnelConfig, TunnelName};
use epochgate_controller::crypto::Crypto;
use epochgate_controller::io::{Command, CommandId};
use epochgate_controller::status::TunnelStatus;
use epochgate_nat::{
    Conntrack, ConntrackSettings, Masquerade, MasqueradeSettings, Nat, UdpNat, UdpSettings,
};
use ipnet::IpNet;

use crate::invariants::Violation;
use crate::packet::FlowId;
use crate::pair::{DELAY, SERVER_INNER, SERVER_OUTER, only};
use crate::traffic::Account;
use crate::world::{NatId, NodeId, World};

/// The NAT's outer address.
pub const NAT_OUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Clients that the addresses of an office are enough for.
pub const CLIENTS_MAX: u8 = 200;

/// Which NAT the clients are behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatKind {
    /// VPN Masquerade: guesses whose ESP is whose.
    Masquerade(MasqueradeSettings),
    /// Linux's own: ESP by addresses only.
    Conntrack(ConntrackSettings),
    /// UDP only.
    Udp(UdpSettings),
}

impl NatKind {
    /// One with this outer address.
    #[must_use]
    pub fn build(self, public: IpAddr) -> Box<dyn Nat + Send> {
        match self {
            Self::Masquerade(settings) => Box::new(Masquerade::new(public, settings)),
            Self::Conntrack(settings) => Box::new(Conntrack::new(public, settings)),
            Self::Udp(settings) => Box::new(UdpNat::new(public, settings)),
        }
    }
}

/// An office before it starts: change what the test is about.
pub struct OfficePlan {
    /// How many clients, up to [`CLIENTS_MAX`].
    pub clients: u8,
    /// What is between them and the network.
    pub nat: Option<NatKind>,
    /// Every client's tunnel but for its name, ends and selectors.
    pub client: TunnelConfig,
    /// The server's tunnel for each, likewise.
    pub server: TunnelConfig,
    /// One way between the NAT and the server.
    pub delay: Duration,
}

impl Default for OfficePlan {
    /// Two clients behind VPN Masquerade, which start at once.
    fn default() -> Self {
        let end = |address| End {
            address,
            id: Identity::Fqdn("office.example".into()),
        };
        let psk = Secret::from(vec![0x5a; 32]);
        let client = TunnelConfig {
            start: Start::Always,
            ..TunnelConfig::new("client", Role::Client, end(None), end(None), psk.clone())
        };
        let server = TunnelConfig::new("client", Role::Server, end(None), end(None), psk);
        Self {
            clients: 2,
            nat: Some(NatKind::Masquerade(MasqueradeSettings::default())),
            client,
            server,
            delay: DELAY,
        }
    }
}

impl OfficePlan {
    /// All hosts, with their daemons started at the same instant.
    #[must_use]
    pub fn start(self, seed: u64, provider: Arc<dyn Crypto>) -> Office {
        let mut office = self.build(seed, provider);
        office.start_server();
        for client in 0..office.clients.len() {
            office.start_client(client);
        }
        office
    }

    /// All hosts, with no daemon started yet.
    #[must_use]
    pub fn build(self, seed: u64, provider: Arc<dyn Crypto>) -> Office {
        let mut world = World::new(seed, self.delay, provider);
        let server_network = IpNet::new_assert(IpAddr::from([10, 2, 0, 0]), 16);
        let server = world.add_node(SERVER_OUTER, &[SERVER_INNER], &[server_network]);
        let nat = self.nat.map(|kind| world.add_nat(kind.build(NAT_OUTER)));
        let mut clients = Vec::new();
        for number in 0..self.clients.min(CLIENTS_MAX) {
            let outer = IpAddr::from([192, 168, 0, 10 + number]);
            let inner = IpAddr::from([10, 1, number, 1]);
            let network = IpNet::new_assert(IpAddr::from([10, 1, number, 0]), 24);
            let node = world.add_node(outer, &[inner], &[network]);
            if let Some(nat) = nat {
                world.put_behind(node, nat);
            }
            let name = TunnelName(format!("client-{number}").into());
            let client_end = End {
                address: Some(outer),
                id: Identity::Fqdn(format!("client-{number}.example")),
            };
            let server_end = End {
                address: Some(SERVER_OUTER),
                id: Identity::Fqdn("hq.example".into()),
            };
            let config = TunnelConfig {
                name: name.clone(),
                local: client_end.clone(),
                remote: server_end.clone(),
                local_traffic: vec![network],
                remote_traffic: vec![server_network],
                ..self.client.clone()
            };
            let server_config = TunnelConfig {
                name: name.clone(),
                local: server_end,
                remote: End {
                    address: None,
                    ..client_end
                },
                local_traffic: vec![server_network],
                remote_traffic: vec![network],
                ..self.server.clone()
            };
            clients.push(Client {
                node,
                name,
                outer,
                inner,
                config,
                server_config,
                up: None,
                down: None,
            });
        }
        Office {
            world,
            server,
            clients,
            nat,
        }
    }
}

/// One client of an office.
pub struct Client {
    /// Its host.
    pub node: NodeId,
    /// Its tunnel, at both ends.
    pub name: TunnelName,
    /// Its outer address, behind the NAT.
    pub outer: IpAddr,
    /// Its inner address.
    pub inner: IpAddr,
    /// What it starts with.
    pub config: TunnelConfig,
    /// What the server starts with for it.
    pub server_config: TunnelConfig,
    up: Option<FlowId>,
    down: Option<FlowId>,
}

/// Several clients, their NAT and their server.
pub struct Office {
    /// Where they live.
    pub world: World,
    /// The server.
    pub server: NodeId,
    /// The clients.
    pub clients: Vec<Client>,
    /// The NAT, if there is one.
    pub nat: Option<NatId>,
}

/// What became of one client's traffic, to the server and from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    /// From the client.
    pub up: Account,
    /// To the client.
    pub down: Account,
}

impl Accounts {
    /// Of both ways.
    #[must_use]
    pub fn misdelivered(&self) -> u64 {
        self.up.misdelivered + self.down.misdelivered
    }

    /// Of both ways.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.up.lost() + self.down.lost()
    }
}

impl Office {
    /// What the server's daemon is configured with.
    #[must_use]
    pub fn server_config(&self) -> Config {
        let tunnels = self.clients.iter();
        Config {
            tunnels: tunnels
                .map(|client| Arc::new(client.server_config.clone()))
                .collect(),
            ..Config::default()
        }
    }

    /// What a client's daemon is configured with.
    #[must_use]
    pub fn client_config(&self, client: usize) -> Config {
        only(&self.clients[client].config)
    }

    /// Starts the server's daemon.
    pub fn start_server(&mut self) {
        self.world.start(self.server, self.server_config());
    }

    /// Starts a client's daemon.
    pub fn start_client(&mut self, client: usize) {
        let config = self.client_config(client);
        self.world.start(self.clients[client].node, config);
    }

    /// Gives the server its power back.
    pub fn boot_server(&mut self) {
        self.world.boot(self.server, self.server_config());
    }

    /// Gives a client its power back.
    pub fn boot_client(&mut self, client: usize) {
        let config = self.client_config(client);
        self.world.boot(self.clients[client].node, config);
    }

    /// Asks a client for a new epoch.
    pub fn rekey(&mut self, client: usize) -> CommandId {
        let client = &self.clients[client];
        self.world
            .command(client.node, Command::Rekey(client.name.clone()))
    }

    /// Asks the server for a new epoch of a client.
    pub fn rekey_by_server(&mut self, client: usize) -> CommandId {
        let name = self.clients[client].name.clone();
        self.world.command(self.server, Command::Rekey(name))
    }

    /// Starts traffic both ways for every client; what ran before ends.
    pub fn traffic(&mut self, interval: Duration) {
        self.stop_traffic();
        for client in 0..self.clients.len() {
            self.traffic_of(client, interval);
        }
    }

    /// Starts traffic both ways for one client.
    pub fn traffic_of(&mut self, client: usize, interval: Duration) {
        let client = &mut self.clients[client];
        let world = &mut self.world;
        client.up = Some(world.flow(client.node, client.inner, SERVER_INNER, interval));
        client.down = Some(world.flow(self.server, SERVER_INNER, client.inner, interval));
    }

    /// Ends it; the accounts stay.
    pub fn stop_traffic(&mut self) {
        for client in &self.clients {
            for flow in [client.up, client.down].into_iter().flatten() {
                self.world.stop_flow(flow);
            }
        }
    }

    /// What became of a client's latest traffic.
    #[must_use]
    pub fn accounts(&self, client: usize) -> Accounts {
        let client = &self.clients[client];
        let account = |flow: Option<FlowId>| {
            flow.map(|flow| self.world.account(flow))
                .unwrap_or_default()
        };
        Accounts {
            up: account(client.up),
            down: account(client.down),
        }
    }

    /// A client's tunnel's status at its own end.
    #[must_use]
    pub fn status(&self, client: usize) -> Option<TunnelStatus> {
        let client = &self.clients[client];
        self.world.status(client.node, &client.name)
    }

    /// Whether both ends of a client's tunnel send through one epoch, each on what the other
    /// receives on: said by their kernels.
    #[must_use]
    pub fn is_open(&self, client: usize) -> bool {
        let client = &self.clients[client];
        let here = self.world.node(client.node).open_epoch(&client.name);
        let there = self.world.node(self.server).open_epoch(&client.name);
        match (here, there) {
            // A NAT changes the destinations, not the SPIs.
            (Some(here), Some(there)) => {
                here.outbound.spi == there.inbound.spi && there.outbound.spi == here.inbound.spi
            }
            (_, _) => false,
        }
    }

    /// Whether all clients' tunnels are.
    #[must_use]
    pub fn all_open(&self) -> bool {
        (0..self.clients.len()).all(|client| self.is_open(client))
    }

    /// Waits until all are.
    ///
    /// # Errors
    /// A violation of an invariant, or I5: that it did not come about in time.
    pub fn await_all_open(&mut self, limit: Duration) -> Result<(), Violation> {
        self.await_that("all tunnels are open", limit, Self::all_open)
    }

    /// Waits for something.
    ///
    /// # Errors
    /// A violation of an invariant, or I5: that it did not come about in time.
    pub fn await_that(
        &mut self,
        what: &str,
        limit: Duration,
        reached: impl Fn(&Self) -> bool,
    ) -> Result<(), Violation> {
        let end = self.world.now() + limit;
        let pause = (limit / 1000).max(Duration::from_millis(1));
        while !reached(self) {
            if self.world.now() >= end {
                let open: Vec<bool> = (0..self.clients.len())
                    .map(|client| self.is_open(client))
                    .collect();
                let what = format!("not within {limit:?}: {what}; open: {open:?}");
                return Err(self.world.violation("I5", what));
            }
            self.world.run_for(pause)?;
        }
        Ok(())
    }
}
