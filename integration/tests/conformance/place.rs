//! The host of the scripts with its peer and its LAN, as namespaces, and a script on its kernel.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use epochgate_controller::io::{PolicyDirection, PolicyKey, SaId};
use epochgate_integration::{Host, World};
use epochgate_simulator::conformance::place::{self, HOST, HOST_TOO, PEER, PORT};
use epochgate_simulator::conformance::{
    Clock, Family, Intrusion, Item, Outcome, Outgoing, Period, Script, Step,
};
use epochgate_xfrm::counters::Counters;
use epochgate_xfrm::{PolicyId, Prefix, Selector};
use epochgated::kernel::Kernel;
use epochgated::ping::Pinger;
use epochgated::udp::IkeSockets;
use socket2::{Domain, Protocol, Socket, Type};

use crate::packet;

/// What the kernel does at the end of a wait is done after this.
const SETTLE: Duration = Duration::from_millis(20);
/// How long the next event may take that the kernel has sent already.
const NEXT_EVENT: Duration = Duration::from_millis(5);
/// Octets of the longest frame that scripts make.
const FRAME: usize = 2048;
/// Octets that a socket keeps until the end of a wait: a full hold queue several times.
const BUFFER: usize = 4 << 20;
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// The namespaces and what reads and writes in them.
pub(crate) struct Place {
    host: Host,
    peer: Peer,
    lan: [UdpSocket; 2],
    _world: World,
}

/// The peer has no network of its own: it sends and hears octets.
struct Peer {
    hears: Socket,
    sends: [Socket; 2],
}

impl Place {
    pub(crate) fn new(name: &str) -> Self {
        let world = World::new(name);
        let (host, peer, lan) = (world.host("host"), world.host("peer"), world.host("lan"));
        world.link(
            (
                &host,
                &[
                    &format!("{HOST}/24"),
                    &format!("{HOST_TOO}/24"),
                    "2001:db8:f::1/64",
                ],
            ),
            (&peer, &[&format!("{PEER}/24"), "2001:db8:f::2/64"]),
        );
        world.link(
            (&host, &["10.1.9.1/24", "2001:db8:1:9::1/64"]),
            (&lan, &["10.1.9.5/24", "2001:db8:1:9::5/64"]),
        );
        host.dummy(
            "inner",
            &FAMILIES.map(|family| {
                let address = place::inner(family);
                let length = if address.is_ipv4() { 32 } else { 128 };
                &*format!("{address}/{length}").leak()
            }),
        );
        host.forward();
        host.route("default", &PEER.to_string());
        host.route("2001:db8:2::/48", "2001:db8:f::2");
        lan.route("default", "10.1.9.1");
        lan.route("default", "2001:db8:1:9::1");
        lan.run(&format!(
            "ip -6 address add {}/128 dev lo nodad",
            place::lan(Family::V6)
        ));
        host.route(
            &format!("{}/128", place::lan(Family::V6)),
            "2001:db8:1:9::5",
        );
        host.sysctl("net/core/xfrm_larval_drop", "0");
        Self {
            lan: lan.within(|| FAMILIES.map(|family| numbered(place::lan(family)))),
            peer: peer.within(Peer::open),
            host,
            _world: world,
        }
    }

    /// Runs a script; also tells when each of its steps began and ended.
    pub(crate) fn run(&mut self, script: &Script) -> (Vec<Period>, Clock) {
        self.host.run("ip xfrm state flush");
        self.host.run("ip xfrm policy flush");
        let expires = script.larval_seconds.to_string();
        self.host.sysctl("net/core/xfrm_acq_expires", &expires);
        let (host, peer, lan) = (self.host.clone(), &self.peer, &self.lan);
        host.within(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let mut run = Run::open(&self.host, peer, lan);
                let mut clock = Clock::new();
                let mut seen = Vec::new();
                run.forget().await;
                let start = Instant::now();
                for step in &script.steps {
                    let began = start.elapsed();
                    if let Some(period) = run.step(step).await {
                        seen.push(period);
                    }
                    clock.push((began, start.elapsed()));
                }
                (seen, clock)
            })
        })
    }
}

impl Peer {
    fn open() -> Self {
        let everything = i32::from((libc::ETH_P_ALL as u16).to_be());
        let hears = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(everything)))
            .expect("a packet socket");
        hears.set_nonblocking(true).expect("non-blocking");
        hears.set_recv_buffer_size(BUFFER).expect("a buffer");
        let raw = |domain| {
            let protocol = Protocol::from(libc::IPPROTO_RAW);
            Socket::new(domain, Type::RAW, Some(protocol)).expect("a raw socket")
        };
        Self {
            hears,
            sends: [raw(Domain::IPV4), raw(Domain::IPV6)],
        }
    }

    /// Sends a packet with its IP header to the host.
    fn send(&self, octets: &[u8]) {
        let ipv6 = octets[0] >> 4 == 6;
        // To whatever the header says, by way of the host.
        let to = if ipv6 {
            "2001:db8:f::1".parse().expect("an address")
        } else {
            HOST
        };
        self.sends[usize::from(ipv6)]
            .send_to(octets, &SocketAddr::new(to, 0).into())
            .expect("a way to the host");
    }

    /// The frames that came to it since it was asked last.
    fn heard(&self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut buffer = [0; FRAME];
        while let Ok(length) = (&self.hears).read(&mut buffer) {
            frames.push(buffer[..length].to_vec());
        }
        frames
    }
}

/// A socket for numbered packets.
fn numbered(address: std::net::IpAddr) -> UdpSocket {
    let socket = UdpSocket::bind((address, PORT)).expect("an address of this host");
    socket.set_nonblocking(true).expect("non-blocking");
    let socket = Socket::from(socket);
    socket.set_recv_buffer_size(BUFFER).expect("a buffer");
    socket.into()
}

/// A script's run: everything in the host's namespace.
struct Run<'a> {
    host: &'a Host,
    peer: &'a Peer,
    lan: &'a [UdpSocket; 2],
    kernel: Kernel,
    pinger: Pinger,
    _ike: IkeSockets,
    own: [UdpSocket; 2],
    outcomes: Vec<Outcome>,
    errors: BTreeMap<String, u64>,
}

impl<'a> Run<'a> {
    fn open(host: &'a Host, peer: &'a Peer, lan: &'a [UdpSocket; 2]) -> Self {
        Self {
            host,
            peer,
            lan,
            kernel: Kernel::open().expect("the kernel's sockets"),
            pinger: Pinger::open().expect("raw sockets"),
            _ike: IkeSockets::open().expect("IKE's sockets"),
            own: FAMILIES.map(|family| numbered(place::inner(family))),
            outcomes: Vec::new(),
            errors: errors(),
        }
    }

    async fn step(&mut self, step: &Step) -> Option<Period> {
        let outcome = match step {
            Step::Operation(op) => self.kernel.perform(op.clone()).await.into(),
            Step::Ping(ping) => match self.pinger.send(ping, None) {
                Ok(()) => Outcome::Done,
                Err(_) => Outcome::Failed,
            },
            Step::Send(packet) => self.send(packet),
            Step::Receive(incoming) => {
                self.peer.send(&packet::esp(incoming));
                Outcome::Done
            }
            Step::ReceiveClear(content) => {
                self.peer.send(&packet::inner(content));
                Outcome::Done
            }
            Step::Intrusion(intrusion) => self.intrude(intrusion),
            Step::Wait(duration) => {
                tokio::time::sleep(*duration).await;
                tokio::time::sleep(SETTLE).await;
                return Some(self.seen().await);
            }
        };
        self.outcomes.push(outcome);
        None
    }

    fn send(&self, packet: &Outgoing) -> Outcome {
        let family = usize::from(packet.family == Family::V6);
        let from = if packet.forwarded {
            self.lan
        } else {
            &self.own
        };
        let to = (place::remote(packet.family), PORT);
        match from[family].send_to(&packet::payload(packet.number), to) {
            Ok(_) => Outcome::Done,
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Outcome::Exists,
            Err(_) => Outcome::Failed,
        }
    }

    fn intrude(&self, intrusion: &Intrusion) -> Outcome {
        let mut socket = epochgate_xfrm::Socket::open().expect("a netlink socket");
        let result = match intrusion {
            Intrusion::DeleteSa(id) => socket.delete_sa(sa_id(*id)),
            Intrusion::DeletePolicy(key) => socket.delete_policy(&policy_id(key)),
            Intrusion::FlushSas => {
                self.host.run("ip xfrm state flush");
                Ok(())
            }
            Intrusion::FlushPolicies => {
                self.host.run("ip xfrm policy flush");
                Ok(())
            }
        };
        match result {
            Ok(()) => Outcome::Done,
            Err(error) if error.is_missing() => Outcome::Missing,
            Err(_) => Outcome::Failed,
        }
    }

    /// All that has come since it was asked last.
    async fn seen(&mut self) -> Period {
        let left = self.peer.heard();
        let before = std::mem::replace(&mut self.errors, errors());
        let grown = self.errors.iter().map(|(name, count)| {
            let before = before.get(name).copied().unwrap_or(0);
            (name.clone(), count - before)
        });
        Period {
            outcomes: std::mem::take(&mut self.outcomes),
            left: left
                .iter()
                .filter_map(|frame| packet::departure(frame))
                .collect(),
            delivered: [received(&self.own), received(self.lan)],
            errors: grown.filter(|(_, grown)| *grown > 0).collect(),
            events: self.events().await,
        }
    }

    async fn events(&mut self) -> Vec<epochgate_controller::io::XfrmEvent> {
        let mut events = Vec::new();
        while let Ok(event) = tokio::time::timeout(NEXT_EVENT, self.kernel.event()).await {
            events.push(event.expect("the event socket lives"));
        }
        events
    }

    async fn forget(&mut self) {
        tokio::time::sleep(SETTLE).await;
        self.seen().await;
    }
}

fn errors() -> BTreeMap<String, u64> {
    let counters = Counters::read().expect("a kernel with XFRM statistics");
    let counters = counters.iter();
    counters
        .map(|(name, count)| (name.to_owned(), count))
        .collect()
}

/// What sockets have received, IPv4 first.
fn received(sockets: &[UdpSocket; 2]) -> Vec<Item> {
    let mut items = Vec::new();
    let mut buffer = [0; FRAME];
    for socket in sockets {
        loop {
            match socket.recv(&mut buffer) {
                Ok(length) => {
                    let number = packet::number(&buffer[..length]);
                    items.extend(number.map(Item::Data));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("a socket of the host: {error}"),
            }
        }
    }
    items
}

fn sa_id(id: SaId) -> epochgate_xfrm::SaId {
    epochgate_xfrm::SaId::esp(id.destination, epochgate_xfrm::Spi::from(id.spi.0))
}

fn policy_id(key: &PolicyKey) -> PolicyId {
    let prefix = |network: ipnet::IpNet| {
        Prefix::new(network.addr(), network.prefix_len()).expect("a network")
    };
    let selector =
        Selector::new(prefix(key.source), prefix(key.destination)).expect("of one family");
    let direction = match key.direction {
        PolicyDirection::In => epochgate_xfrm::PolicyDirection::In,
        PolicyDirection::Out => epochgate_xfrm::PolicyDirection::Out,
        PolicyDirection::Fwd => epochgate_xfrm::PolicyDirection::Forward,
    };
    PolicyId::new(direction, selector)
}
