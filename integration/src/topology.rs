//! The network of most tests: a client and a server with a router between them, and LANs
//! behind both.
//!
//! ```text
//! client_lan ───────── client ─────────── router ─────────── server ───────── server_lan
//!    10.1.0.2   10.1.0.1   192.0.2.2  192.0.2.1
//!                                     203.0.113.254  203.0.113.1   10.2.0.1   10.2.0.2
//! 2001:db8:a::2       ::1  2001:db8:1::2      ::1
//!                                   2001:db8:2::fe       ::1   2001:db8:b::1       ::2
//! ```
//!
//! The router may masquerade what goes to the server, as Linux does today or by the heuristics of
//! VPN Masquerade. Neither it nor the other end has a route
//! to 10.1.0.0/16 or 10.2.0.0/16 (2001:db8:a::/64, 2001:db8:b::/64): what is meant for them is
//! delivered through a tunnel or not at all, and seen on the wire if it leaves in clear.

use crate::capture::Capture;
use crate::esp::KeyLog;
use crate::fault::Fault;
use crate::fault::Packets;
use crate::lab_nat::LabNat;
use crate::net::{Host, Iface, World};
use epochgate_nat::MasqueradeSettings;
use std::time::Duration;

/// The client's address towards the router.
pub const CLIENT: &str = "192.0.2.2";
/// The router's address towards the server, which masqueraded packets come from.
pub const ROUTER: &str = "203.0.113.254";
/// The server's address.
pub const SERVER: &str = "203.0.113.1";
/// The client's address in its own LAN.
pub const CLIENT_INNER: &str = "10.1.0.1";
/// The server's address in its own LAN.
pub const SERVER_INNER: &str = "10.2.0.1";
/// A host in the client's LAN.
pub const CLIENT_LAN: &str = "10.1.0.2";
/// A host in the server's LAN.
pub const SERVER_LAN: &str = "10.2.0.2";
/// The network behind the client.
pub const CLIENT_NET: &str = "10.1.0.0/16";
/// The network behind the server.
pub const SERVER_NET: &str = "10.2.0.0/16";
/// The same for IPv6, in the same order.
pub const CLIENT_V6: &str = "2001:db8:1::2";
/// The server's IPv6 address.
pub const SERVER_V6: &str = "2001:db8:2::1";
/// The client's IPv6 address in its own LAN.
pub const CLIENT_INNER_V6: &str = "2001:db8:a::1";
/// The server's IPv6 address in its own LAN.
pub const SERVER_INNER_V6: &str = "2001:db8:b::1";
/// The IPv6 network behind the client.
pub const CLIENT_NET_V6: &str = "2001:db8:a::/64";
/// The IPv6 network behind the server.
pub const SERVER_NET_V6: &str = "2001:db8:b::/64";

/// The network of a test. See the [module's drawing](self).
#[derive(Debug)]
pub struct Topology {
    /// The end behind the router.
    pub client: Host,
    /// What forwards between the two.
    pub router: Host,
    /// The end with a public address.
    pub server: Host,
    /// A host behind the client, if asked for.
    pub client_lan: Option<Host>,
    /// A host behind the server, if asked for.
    pub server_lan: Option<Host>,
    /// The router's VPN Masquerade, if asked for.
    pub nat: Option<LabNat>,
    /// The router's interface towards the client: the wire as the client sees it.
    pub to_client: Iface,
    /// The router's interface towards the server: the wire as the server sees it.
    pub to_server: Iface,
    // Last: hosts go before what removes them.
    world: World,
}

/// What the network of a test shall be like.
#[derive(Debug)]
#[must_use = "build() makes it"]
pub struct Plan {
    name: String,
    masquerade: bool,
    vpn_masquerade: Option<MasqueradeSettings>,
    lans: bool,
    round_trip: Duration,
    loss_percent: f64,
}

impl Topology {
    /// Begins a plan: no NAT, no delay, no hosts in the LANs. `name` names the folder that a
    /// failing test leaves.
    // The plan is what one builds a topology by; there is no other use of it.
    #[allow(clippy::new_ret_no_self)]
    pub fn new(name: &str) -> Plan {
        Plan {
            name: name.to_owned(),
            masquerade: false,
            vpn_masquerade: None,
            lans: false,
            round_trip: Duration::ZERO,
            loss_percent: 0.0,
        }
    }

    /// The world that its hosts live in; more can be added.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Captures the wire as the client sees it.
    pub fn capture_client(&self) -> Capture {
        Capture::start(&self.to_client)
    }

    /// Captures the wire as the server sees it.
    pub fn capture_server(&self) -> Capture {
        Capture::start(&self.to_server)
    }

    /// Keeps the keys of all SAs that the client has from now on.
    pub fn client_keys(&self) -> KeyLog {
        KeyLog::start(&self.client)
    }

    /// Keeps the keys of all SAs that the server has from now on.
    pub fn server_keys(&self) -> KeyLog {
        KeyLog::start(&self.server)
    }

    /// Makes the router drop packets, in both directions unless they are narrowed.
    pub fn block(&self, packets: &Packets) -> Fault {
        self.router.drop_packets(packets)
    }
}

impl Plan {
    /// The router masquerades what goes to the server (IPv4).
    pub fn masquerade(mut self) -> Self {
        self.masquerade = true;
        self
    }

    /// The router is a NAT with VPN Masquerade instead (IPv4), as [`Topology::nat`]: several
    /// clients may send plain ESP (`nat-t = "off"`) to one server.
    pub fn vpn_masquerade(mut self, settings: MasqueradeSettings) -> Self {
        self.vpn_masquerade = Some(settings);
        self
    }

    /// There are hosts behind the client and behind the server, which both forward.
    pub fn lans(mut self) -> Self {
        self.lans = true;
        self
    }

    /// The time from client to server and back, without what hosts take.
    pub fn round_trip(mut self, time: Duration) -> Self {
        self.round_trip = time;
        self
    }

    /// The router loses this share of the packets of each direction, in percent.
    pub fn loss(mut self, percent: f64) -> Self {
        self.loss_percent = percent;
        self
    }

    /// Makes it.
    pub fn build(self) -> Topology {
        let world = World::new(&self.name);
        let [client, router, server] = ["client", "router", "server"].map(|name| world.host(name));
        let (_, to_client) = world.link(
            (&client, &["192.0.2.2/24", "2001:db8:1::2/64"]),
            (&router, &["192.0.2.1/24", "2001:db8:1::1/64"]),
        );
        let (to_server, _) = world.link(
            (&router, &["203.0.113.254/24", "2001:db8:2::fe/64"]),
            (&server, &["203.0.113.1/24", "2001:db8:2::1/64"]),
        );
        for (host, via, via_v6) in [
            (&client, "192.0.2.1", "2001:db8:1::1"),
            (&server, "203.0.113.254", "2001:db8:2::fe"),
        ] {
            host.route("default", via);
            host.route("default", via_v6);
            host.forward();
        }
        router.forward();
        if self.masquerade {
            router.masquerade(&to_server);
        }
        let nat = self.vpn_masquerade.map(|settings| {
            let public = ROUTER.parse().expect("an IPv4 address");
            LabNat::start(&router, &[&to_client], &to_server, public, settings)
        });
        if self.round_trip != Duration::ZERO || self.loss_percent != 0.0 {
            let one_way = self.round_trip / 2;
            to_client.impair(one_way, self.loss_percent);
            to_server.impair(one_way, self.loss_percent);
        }
        let client_addresses = ["10.1.0.1/16", "2001:db8:a::1/64"];
        let server_addresses = ["10.2.0.1/16", "2001:db8:b::1/64"];
        let (client_lan, server_lan) = if self.lans {
            let client_lan = world.host("client_lan");
            let server_lan = world.host("server_lan");
            world.link(
                (&client_lan, &["10.1.0.2/16", "2001:db8:a::2/64"]),
                (&client, &client_addresses),
            );
            world.link(
                (&server_lan, &["10.2.0.2/16", "2001:db8:b::2/64"]),
                (&server, &server_addresses),
            );
            client_lan.route("default", "10.1.0.1");
            client_lan.route("default", "2001:db8:a::1");
            server_lan.route("default", "10.2.0.1");
            server_lan.route("default", "2001:db8:b::1");
            (Some(client_lan), Some(server_lan))
        } else {
            client.dummy("lan", &client_addresses);
            server.dummy("lan", &server_addresses);
            (None, None)
        };
        Topology {
            client,
            router,
            server,
            client_lan,
            server_lan,
            nat,
            to_client,
            to_server,
            world,
        }
    }
}
