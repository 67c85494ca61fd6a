//! Several clients behind one NAT with VPN Masquerade, and the server that all of them use.
//!
//! ```text
//! client0 ── 192.0.2.2/30  192.0.2.1 ─┐
//! client1 ── 192.0.2.6/30  192.0.2.5 ─┤ router (VPN Masquerade) ─────────── server
//! client2 ── 192.0.2.10/30 192.0.2.9 ─┘         203.0.113.254     203.0.113.1
//! 10.1.N.1                                                        10.2.0.1
//! ```
//!
//! Client N has the network 10.1.N.0/24 behind it. Every tunnel sends plain ESP (`nat-t = "off"`):
//! with ports there would be nothing to guess.

use crate::audit;
use crate::capture::Capture;
use crate::esp::{KeyLog, Trace};
use crate::lab_nat::LabNat;
use crate::net::{Host, Iface, World};
use crate::topology::{ROUTER, SERVER, SERVER_NET};
use crate::{Epochgate, Packet, Selectors, Timestamp};
use epochgate_nat::MasqueradeSettings;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Each client's link takes four addresses of 192.0.2.0/24.
const MOST_CLIENTS: usize = 64;

/// The network of a test. See the [module's drawing](self).
#[derive(Debug)]
pub struct Office {
    /// Those behind the NAT.
    pub clients: Vec<Desk>,
    /// What forwards, and is the NAT.
    pub router: Host,
    /// Whom they have tunnels to.
    pub server: Host,
    /// The router's VPN Masquerade.
    pub nat: LabNat,
    /// The router's interface towards the server: the wire as the server sees it.
    pub to_server: Iface,
    /// The server's interface towards the router.
    pub from_server: Iface,
    // Last: hosts go before what removes them.
    world: World,
}

/// One client of an [`Office`].
#[derive(Debug)]
pub struct Desk {
    /// The client: `client0`, `client1`, …
    pub host: Host,
    /// Its address towards the router, which the NAT hides.
    pub address: Ipv4Addr,
    /// Its address in the network behind it.
    pub inner: Ipv4Addr,
    /// The router's interface towards it: the wire as it sees it.
    pub wire: Iface,
    number: usize,
}

/// What the network of a test shall be like.
#[derive(Debug)]
#[must_use = "build() makes it"]
pub struct Plan {
    name: String,
    clients: usize,
    settings: MasqueradeSettings,
    round_trip: Duration,
    loss_percent: f64,
}

/// Captures and keys of everybody in an [`Office`], from before the first packet.
#[derive(Debug)]
pub struct OfficeWatch {
    clients: Vec<(Capture, KeyLog)>,
    server: Capture,
    server_keys: KeyLog,
    selectors: Vec<Selectors>,
}

/// What everybody did, after it was found to break no invariant.
#[derive(Debug)]
pub struct OfficeTraces {
    /// All that each client sent and received.
    pub clients: Vec<Trace>,
    /// All that the server sent and received.
    pub server: Trace,
}

impl Office {
    /// Begins a plan: two clients, a NAT with default settings, no delay. `name` names the folder
    /// that a failing test leaves.
    // The plan is what one builds an office by; there is no other use of it.
    #[allow(clippy::new_ret_no_self)]
    pub fn new(name: &str) -> Plan {
        Plan {
            name: name.to_owned(),
            clients: 2,
            settings: MasqueradeSettings::default(),
            round_trip: Duration::ZERO,
            loss_percent: 0.0,
        }
    }

    /// The world that its hosts live in; more can be added.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// A configuration of the server for all clients, a tunnel called `clientN` for each. `more` is
    /// put into every one of them: keys first, then tables by their whole names, in which `NAME`
    /// stands for the tunnel's.
    pub fn server_config(&self, more: &str) -> String {
        let tunnels = self.clients.iter().map(|desk| desk.server_tunnel(more));
        tunnels.collect()
    }

    /// Everything after this returned is seen. Start it before the daemons.
    pub fn watch(&self) -> OfficeWatch {
        let clients = self.clients.iter();
        OfficeWatch {
            server_keys: KeyLog::start(&self.server),
            clients: clients
                .map(|desk| (Capture::start(&desk.wire), KeyLog::start(&desk.host)))
                .collect(),
            server: Capture::start(&self.to_server),
            selectors: self.clients.iter().map(Desk::selectors).collect(),
        }
    }
}

impl Desk {
    /// The network behind it.
    pub fn network(&self) -> String {
        format!("10.1.{}.0/24", self.number)
    }

    /// Its identity, which the server knows its tunnel by.
    pub fn id(&self) -> String {
        format!("{}.example", self.name())
    }

    /// `client0`, `client1`, …: the server's name for the tunnel. The client's own is `net`.
    pub fn name(&self) -> &str {
        self.host.name()
    }

    /// What its tunnel protects, as it sees it.
    pub fn selectors(&self) -> Selectors {
        Selectors::new(&self.network(), SERVER_NET)
    }

    /// A configuration for it: one tunnel, `net`, to the server. `more` is put behind it as in
    /// [`Office::server_config`].
    pub fn config(&self, more: &str) -> String {
        format!(
            "[tunnel.net]\n\
             role = \"client\"\n\
             local = {{ id = \"{}\", psk-file = \"psk\" }}\n\
             remote = {{ address = \"{SERVER}\", id = \"server.example\" }}\n\
             policy = \"site-to-site\"\n\
             nat-t = \"off\"\n\
             traffic = {{ local = [\"{}\"], remote = [\"{SERVER_NET}\"] }}\n{}\n",
            self.id(),
            self.network(),
            more.replace("NAME", "net")
        )
    }

    fn server_tunnel(&self, more: &str) -> String {
        let name = self.name();
        format!(
            "[tunnel.{name}]\n\
             role = \"server\"\n\
             local = {{ address = \"{SERVER}\", id = \"server.example\", psk-file = \"psk\" }}\n\
             remote = {{ id = \"{}\" }}\n\
             policy = \"site-to-site\"\n\
             nat-t = \"off\"\n\
             traffic = {{ local = [\"{SERVER_NET}\"], remote = [\"{}\"] }}\n{}\n",
            self.id(),
            self.network(),
            more.replace("NAME", name)
        )
    }
}

impl OfficeWatch {
    /// The inbound SPIs of client `number` so far, in the order of its epochs.
    pub fn inbound_spis(&self, number: usize, address: Ipv4Addr) -> Vec<u32> {
        let (_, keys) = &self.clients[number];
        let pairs = keys.pairs(IpAddr::V4(address));
        pairs.into_iter().map(|(inbound, _)| inbound).collect()
    }

    /// The wire as client `number` sees it, to look at while it goes on.
    pub fn client(&self, number: usize) -> &Capture {
        let (capture, _) = &self.clients[number];
        capture
    }

    /// The wire as the server sees it.
    pub fn server(&self) -> &Capture {
        &self.server
    }

    /// Ends the captures, and judges nothing: for daemons that promise nothing.
    #[track_caller]
    pub fn traces(self) -> OfficeTraces {
        let clients = self.clients.into_iter();
        OfficeTraces {
            clients: clients
                .map(|(capture, keys)| Trace::of(capture.stop(), &keys))
                .collect(),
            server: Trace::of(self.server.stop(), &self.server_keys),
        }
    }

    /// Ends the captures. Fails the test if anything protected went in clear anywhere (I2), a
    /// client sent anything but control pings on an epoch that was not proven (I1), or the server
    /// anything but one parting ping on an epoch on which nothing had arrived (I3). What the NAT gave to the wrong
    /// client is not judged: see [`audit::nothing_of_others`].
    #[track_caller]
    pub fn judge(self) -> OfficeTraces {
        let server = SERVER.parse().expect("an IP address");
        let epochs = self.server_keys.pairs(server);
        self.judge_epochs(&epochs)
    }

    /// The same where `server` refused Child SAs that it had begun to install, so that the kernel's
    /// SAs do not tell which belong together.
    #[track_caller]
    pub fn judge_with_refusals(self, server: &Epochgate) -> OfficeTraces {
        self.judge_epochs(&server.epochs())
    }

    #[track_caller]
    fn judge_epochs(self, epochs: &[(u32, u32)]) -> OfficeTraces {
        let traces = self.judge_beside_server();
        if let Err(violation) = audit::server_waits_and_parts(&traces.server, epochs) {
            panic!("I3: {violation}");
        }
        traces
    }

    /// The same without the server, if that is not epochgate or does not wait.
    #[track_caller]
    pub fn judge_beside_server(self) -> OfficeTraces {
        let server = Trace::of(self.server.stop(), &self.server_keys);
        let mut clients = Vec::new();
        for ((capture, keys), selectors) in self.clients.into_iter().zip(&self.selectors) {
            let trace = Trace::of(capture.stop(), &keys);
            for observed in [&trace, &server] {
                if let Err(violation) = audit::nothing_in_clear(observed, selectors) {
                    panic!("I2: {violation}");
                }
            }
            if let Err(violation) = audit::nothing_before_proof(&trace) {
                panic!("I1: client{}: {violation}", clients.len());
            }
            clients.push(trace);
        }
        OfficeTraces { clients, server }
    }
}

impl OfficeTraces {
    /// How many ESP packets each client was given that were another one's.
    pub fn misdelivered(&self) -> Vec<usize> {
        self.misdelivered_after(Timestamp::default())
    }

    /// The same, from a moment on.
    pub fn misdelivered_after(&self, moment: Timestamp) -> Vec<usize> {
        let foreign = |trace: &Trace| {
            let esp = trace.received().filter(|entry| {
                matches!(entry.packet, Packet::Esp { .. })
                    && entry.inner.is_none()
                    && entry.at > moment
            });
            esp.count()
        };
        self.clients.iter().map(foreign).collect()
    }
}

impl Plan {
    /// How many clients there are, at most 64.
    pub fn clients(mut self, count: usize) -> Self {
        assert!(count <= MOST_CLIENTS, "{count} clients are too many");
        self.clients = count;
        self
    }

    /// How the NAT behaves.
    pub fn settings(mut self, settings: MasqueradeSettings) -> Self {
        self.settings = settings;
        self
    }

    /// The time from a client to the server and back, without what hosts take.
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
    pub fn build(self) -> Office {
        let world = World::new(&self.name);
        let [router, server] = ["router", "server"].map(|name| world.host(name));
        router.forward();
        let (to_server, from_server) = world.link(
            (&router, &[&format!("{ROUTER}/24")]),
            (&server, &[&format!("{SERVER}/24")]),
        );
        server.route("default", ROUTER);
        server.forward();
        server.dummy("lan", &["10.2.0.1/16"]);
        let clients: Vec<Desk> = (0..self.clients)
            .map(|number| desk(&world, &router, number))
            .collect();
        if self.round_trip != Duration::ZERO || self.loss_percent != 0.0 {
            let one_way = self.round_trip / 2;
            to_server.impair(one_way, self.loss_percent);
            for desk in &clients {
                desk.wire.impair(one_way, self.loss_percent);
            }
        }
        let inside: Vec<&Iface> = clients.iter().map(|desk| &desk.wire).collect();
        let public = ROUTER.parse().expect("an IPv4 address");
        let nat = LabNat::start(&router, &inside, &to_server, public, self.settings);
        Office {
            clients,
            router,
            server,
            nat,
            to_server,
            from_server,
            world,
        }
    }
}

fn desk(world: &World, router: &Host, number: usize) -> Desk {
    let host = world.host(&format!("client{number}"));
    let third = u8::try_from(number).expect("at most 64 clients");
    let [gateway, address] = [1, 2].map(|end| Ipv4Addr::new(192, 0, 2, 4 * third + end));
    let inner = Ipv4Addr::new(10, 1, third, 1);
    let (_, wire) = world.link(
        (&host, &[&format!("{address}/30")]),
        (router, &[&format!("{gateway}/30")]),
    );
    host.route("default", &gateway.to_string());
    host.forward();
    host.dummy("lan", &[&format!("{inner}/24")]);
    Desk {
        host,
        address,
        inner,
        wire,
        number,
    }
}
