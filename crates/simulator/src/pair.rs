//! The smallest world of interest: a client, a server, one tunnel.
//!
//! ```text
//!   10.1.0.1 ─ client 192.0.2.1 ───── network ───── 203.0.113.1 server ─ 10.2.0.1
//! ```

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use epochgate_controller::Secret;
use epochgate_controller::config::{Config, End, Identity, Role, Start, TunnelConfig, TunnelName};
use epochgate_controller::crypto::Crypto;
use epochgate_controller::event::EpochNumber;
use epochgate_controller::io::{Command, CommandId};
use epochgate_controller::status::{GateStatus, TunnelStatus};
use ipnet::IpNet;

use crate::invariants::Violation;
use crate::node::KnownEpoch;
use crate::packet::FlowId;
use crate::world::{NodeId, World};

/// One way from client to server.
pub const DELAY: Duration = Duration::from_millis(25);
/// The client's outer address.
pub const CLIENT_OUTER: IpAddr = v4(192, 0, 2, 1);
/// The server's outer address.
pub const SERVER_OUTER: IpAddr = v4(203, 0, 113, 1);
/// The client's inner address.
pub const CLIENT_INNER: IpAddr = v4(10, 1, 0, 1);
/// The server's inner address.
pub const SERVER_INNER: IpAddr = v4(10, 2, 0, 1);

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

/// A client and a server, before they start: change what the test is about.
pub struct Plan {
    /// The client's tunnel.
    pub client: TunnelConfig,
    /// The server's tunnel.
    pub server: TunnelConfig,
    /// The client's inner addresses.
    pub client_inner: Vec<IpAddr>,
    /// The server's inner addresses.
    pub server_inner: Vec<IpAddr>,
    /// One way between them.
    pub delay: Duration,
}

impl Default for Plan {
    /// An on-demand client and a listening server with one network each.
    fn default() -> Self {
        let client_network = IpNet::new_assert(v4(10, 1, 0, 0), 16);
        let server_network = IpNet::new_assert(v4(10, 2, 0, 0), 16);
        let client_end = End {
            address: Some(CLIENT_OUTER),
            id: Identity::Fqdn("branch.example".into()),
        };
        let server_end = End {
            address: Some(SERVER_OUTER),
            id: Identity::Fqdn("hq.example".into()),
        };
        let psk = Secret::from(vec![0x5a; 32]);
        let client = TunnelConfig {
            local_traffic: vec![client_network],
            remote_traffic: vec![server_network],
            ..TunnelConfig::new(
                "branch",
                Role::Client,
                client_end.clone(),
                server_end.clone(),
                psk,
            )
        };
        let server = TunnelConfig {
            role: Role::Server,
            local: server_end,
            remote: End {
                address: None,
                ..client_end
            },
            local_traffic: client.remote_traffic.clone(),
            remote_traffic: client.local_traffic.clone(),
            start: Start::Listen,
            ..client.clone()
        };
        Self {
            client,
            server,
            client_inner: vec![CLIENT_INNER],
            server_inner: vec![SERVER_INNER],
            delay: DELAY,
        }
    }
}

impl Plan {
    /// Both ends, with both daemons started and nothing negotiated yet.
    ///
    /// # Errors
    /// A violation of an invariant.
    pub fn start(self, seed: u64, provider: Arc<dyn Crypto>) -> Result<Pair, Violation> {
        self.start_with(seed, provider, |_| {})
    }

    /// As [`Self::start`], in a world that `prepare` has seen first.
    ///
    /// # Errors
    /// A violation of an invariant.
    pub fn start_with(
        self,
        seed: u64,
        provider: Arc<dyn Crypto>,
        prepare: impl FnOnce(&mut World),
    ) -> Result<Pair, Violation> {
        let mut world = World::new(seed, self.delay, provider);
        prepare(&mut world);
        // A client that is assigned its address has nothing behind it.
        let behind = match self.client.addressing.request() {
            Some(_) => &[][..],
            None => &self.client.local_traffic,
        };
        let outer = |tunnel: &TunnelConfig, usual| tunnel.local.address.unwrap_or(usual);
        let client_outer = outer(&self.client, CLIENT_OUTER);
        let server_outer = outer(&self.server, SERVER_OUTER);
        let client = world.add_node(client_outer, &self.client_inner, behind);
        let server = world.add_node(server_outer, &self.server_inner, &self.server.local_traffic);
        let mut pair = Pair {
            world,
            client,
            server,
            name: self.client.name.clone(),
            client_config: self.client,
            server_config: self.server,
        };
        pair.start_server();
        pair.start_client();
        pair.world.run_for(Duration::from_millis(5))?;
        Ok(pair)
    }

    /// Both ends with an open epoch on both.
    ///
    /// # Errors
    /// A violation of an invariant, or that it does not come about.
    pub fn established(self, seed: u64, provider: Arc<dyn Crypto>) -> Result<Pair, Violation> {
        let mut pair = self.start(seed, provider)?;
        let name = pair.name.clone();
        pair.world.command(pair.client, Command::Up(name));
        pair.await_open(Duration::from_secs(1))?;
        Ok(pair)
    }
}

/// A client and a server.
pub struct Pair {
    /// Where they live.
    pub world: World,
    /// The client.
    pub client: NodeId,
    /// The server.
    pub server: NodeId,
    /// Their tunnel.
    pub name: TunnelName,
    /// What the client starts with.
    pub client_config: TunnelConfig,
    /// What the server starts with.
    pub server_config: TunnelConfig,
}

impl Pair {
    /// Starts the client's daemon.
    pub fn start_client(&mut self) {
        let config = only(&self.client_config);
        self.world.start(self.client, config);
    }

    /// Starts the server's daemon.
    pub fn start_server(&mut self) {
        let config = only(&self.server_config);
        self.world.start(self.server, config);
    }

    /// Asks one end for a new epoch.
    pub fn rekey(&mut self, node: NodeId) -> CommandId {
        self.world.command(node, Command::Rekey(self.name.clone()))
    }

    /// Asks one end to rekey the IKE SA.
    pub fn rekey_ike(&mut self, node: NodeId) -> CommandId {
        self.world
            .command(node, Command::RekeyIke(self.name.clone()))
    }

    /// Asks one end for a new IKE SA beside the old one.
    pub fn reauthenticate(&mut self, node: NodeId) -> CommandId {
        self.world
            .command(node, Command::Reauthenticate(self.name.clone()))
    }

    /// Packets from the client's inner address to the server's.
    pub fn upward(&mut self, interval: Duration) -> FlowId {
        self.world
            .flow(self.client, CLIENT_INNER, SERVER_INNER, interval)
    }

    /// Packets from the server's inner address to the client's.
    pub fn downward(&mut self, interval: Duration) -> FlowId {
        self.world
            .flow(self.server, SERVER_INNER, CLIENT_INNER, interval)
    }

    /// The tunnel's status at one end.
    #[must_use]
    pub fn status(&self, node: NodeId) -> Option<TunnelStatus> {
        self.world.status(node, &self.name)
    }

    /// The number of the epoch that is open at one end.
    #[must_use]
    pub fn open_epoch(&self, node: NodeId) -> Option<EpochNumber> {
        self.status(node)?.open_epoch.map(EpochNumber)
    }

    /// The SAs of the epoch that is open at one end.
    #[must_use]
    pub fn open(&self, node: NodeId) -> Option<KnownEpoch> {
        let number = self.open_epoch(node)?;
        let node = self.world.node(node);
        let epochs = node.known_epochs().into_iter();
        // A restarted daemon counts anew: the one with this number that the kernel still has.
        let mut open = epochs.filter(|epoch| {
            epoch.number == number && node.kernel.packets(epoch.outbound).is_some()
        });
        open.next().cloned()
    }

    /// Whether both ends send through one epoch, each on what the other receives on.
    #[must_use]
    pub fn is_open(&self) -> bool {
        match (self.open(self.client), self.open(self.server)) {
            (Some(client), Some(server)) => {
                client.outbound == server.inbound && server.outbound == client.inbound
            }
            (_, _) => false,
        }
    }

    /// The gate's position at one end.
    #[must_use]
    pub fn gate(&self, node: NodeId) -> Option<GateStatus> {
        self.status(node).map(|status| status.gate)
    }

    /// SAs of ours in a kernel.
    #[must_use]
    pub fn sas(&self, node: NodeId) -> usize {
        self.world.node(node).kernel.our_sas().count()
    }

    /// Waits until both ends send through one epoch.
    ///
    /// # Errors
    /// A violation of an invariant, or I5: that it did not come about in time.
    pub fn await_open(&mut self, limit: Duration) -> Result<(), Violation> {
        self.await_that("the tunnel is open", limit, Self::is_open)
    }

    /// Waits until both ends send through one epoch that is newer than `than` at the client.
    ///
    /// # Errors
    /// A violation of an invariant, or I5: that it did not come about in time.
    pub fn await_newer(&mut self, than: EpochNumber, limit: Duration) -> Result<(), Violation> {
        self.await_that("a newer epoch is open", limit, |pair| {
            pair.open_epoch(pair.client).is_some_and(|open| open > than) && pair.is_open()
        })
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
                let what = format!(
                    "not within {limit:?}: {what}; client: {}; server: {}",
                    self.summary(self.client),
                    self.summary(self.server)
                );
                return Err(self.world.violation("I5", what));
            }
            self.world.run_for(pause)?;
        }
        Ok(())
    }

    /// One end's state in a line.
    #[must_use]
    pub fn summary(&self, node: NodeId) -> String {
        let Some(status) = self.status(node) else {
            return "not running".into();
        };
        let epochs = status.epochs.iter();
        let epochs: Vec<String> = epochs
            .map(|epoch| format!("{} {}", epoch.number, epoch.state))
            .collect();
        let ike: Vec<&str> = status.ike.iter().map(|ike| ike.state.as_str()).collect();
        format!(
            "{:?} {} SAs, epochs {epochs:?}, IKE SAs {ike:?} {}",
            status.gate,
            self.sas(node),
            status.reason
        )
    }

    /// Lets the old epochs drain.
    ///
    /// # Errors
    /// A violation of an invariant.
    pub fn drain(&mut self) -> Result<(), Violation> {
        self.world.run_for(Duration::from_secs(40))
    }
}

/// A configuration of one tunnel.
#[must_use]
pub fn only(tunnel: &TunnelConfig) -> Config {
    Config {
        tunnels: vec![Arc::new(tunnel.clone())],
        ..Config::default()
    }
}
