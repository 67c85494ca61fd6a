//! The model of conntrack's masquerading, against the kernel's own: the same packets go through
//! both, and the same ones come out, at the same hosts, with the same ports kept and changed.
//!
//! ```text
//! client0 192.0.2.2 ─┐
//! client1 192.0.2.6 ─┴ router (nftables masquerade) 203.0.113.254 ── 203.0.113.1 server
//! ```
#![cfg(feature = "kernel")]

use epochgate_integration::topology::{ROUTER, SERVER};
use epochgate_integration::{Capture, Host, Record, World};
use epochgate_nat::{Conntrack, ConntrackSettings, DropReason, Nat, Packet, Payload, Side};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

const CLIENTS: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 2), Ipv4Addr::new(192, 0, 2, 6)];
/// Places in [`Both::ends`].
const CLIENT0: usize = 0;
const CLIENT1: usize = 1;
const THE_SERVER: usize = 2;
/// How long a packet may take that passes.
const LIMIT: Duration = Duration::from_secs(10);

/// A host and, at the router, the wire to it.
struct End {
    host: Host,
    address: IpAddr,
    wire: Capture,
    /// What has arrived and was foretold.
    expected: usize,
}

/// The kernel's NAT between two clients and a server, and the model.
struct Both {
    ends: Vec<End>,
    model: Conntrack,
    _world: World,
}

impl End {
    fn new(host: Host, address: &str, wire: &epochgate_integration::Iface) -> Self {
        Self {
            host,
            address: address.parse().expect("an address"),
            wire: Capture::start(wire),
            expected: 0,
        }
    }

    /// Sends ESP or UDP to an address, past this host's own IPsec.
    fn send(&self, to: IpAddr, payload: Payload) {
        self.host.within(|| match payload {
            Payload::Esp { spi } => {
                let protocol = Protocol::from(libc::IPPROTO_ESP);
                let socket = Socket::new(Domain::IPV4, Type::RAW, Some(protocol)).expect("root");
                let octets = [spi.to_be_bytes(), [0; 4]].concat();
                let to = SocketAddr::new(to, 0).into();
                socket.send_to(&octets, &to).expect("a route");
            }
            Payload::Udp {
                source_port,
                destination_port,
                ..
            } => {
                let socket = UdpSocket::bind((self.address, source_port)).expect("a free port");
                let to = (to, destination_port);
                socket.send_to(&[0; 40], to).expect("a route");
            }
        });
    }

    /// ESP and UDP that the router has sent to it.
    fn arrived(&self) -> Vec<Packet> {
        self.wire.so_far().iter().filter_map(arrived).collect()
    }
}

impl Both {
    fn new() -> Self {
        let world = World::new("conntrack");
        let router = world.host("router");
        router.forward();
        let server = world.host("server");
        let (to_server, _) = world.link(
            (&router, &[&format!("{ROUTER}/24")]),
            (&server, &[&format!("{SERVER}/24")]),
        );
        router.masquerade(&to_server);
        // A router's firewall. Without it what nobody asked for is the router's own connection, and
        // takes the ports that a client would have kept.
        router.nft(
            "table ip own {\nchain in {\ntype filter hook input priority filter; policy drop;\n}\n}\n",
        );
        let clients = CLIENTS.into_iter().zip(["client0", "client1"]);
        let mut ends: Vec<End> = clients
            .map(|(address, name)| {
                let host = world.host(name);
                let gateway = Ipv4Addr::from(u32::from(address) - 1);
                let (_, wire) = world.link(
                    (&host, &[&format!("{address}/30")]),
                    (&router, &[&format!("{gateway}/30")]),
                );
                host.route("default", &gateway.to_string());
                End::new(host, &address.to_string(), &wire)
            })
            .collect();
        ends.push(End::new(server, SERVER, &to_server));
        let public = ROUTER.parse().expect("an address");
        Self {
            ends,
            model: Conntrack::new(public, ConntrackSettings::default()),
            _world: world,
        }
    }

    /// Sends a packet through both. If the model lets it pass, waits until it has passed the
    /// kernel's and returns both results, which differ at most in a port that was changed.
    #[track_caller]
    fn send(&mut self, from: usize, payload: Payload) -> Result<(Packet, Packet), DropReason> {
        self.send_each(from, payload, payload)
    }

    /// The same with a packet for the model and one for the kernel: they choose other ports.
    #[track_caller]
    fn send_each(
        &mut self,
        from: usize,
        payload: Payload,
        for_kernel: Payload,
    ) -> Result<(Packet, Packet), DropReason> {
        let (side, to) = match from {
            THE_SERVER => (Side::Outside, self.model.public()),
            _ => (Side::Inside, self.ends[THE_SERVER].address),
        };
        let packet = Packet {
            source: self.ends[from].address,
            destination: to,
            payload,
        };
        let foretold = self.model.translate(Duration::ZERO, side, packet);
        self.ends[from].send(to, for_kernel);
        let foretold = foretold?;
        let mut ends = self.ends.iter_mut();
        let end = ends.find(|end| end.address == foretold.destination);
        let end = end.expect("one of them");
        end.expected += 1;
        let began = Instant::now();
        loop {
            if let Some(real) = end.arrived().get(end.expected - 1) {
                return Ok((foretold, *real));
            }
            assert!(began.elapsed() < LIMIT, "not passed: {foretold:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The same for what leaves or keeps all ports as they are.
    #[track_caller]
    fn send_alike(&mut self, from: usize, payload: Payload) {
        match self.send(from, payload) {
            Ok((foretold, real)) => assert_eq!(foretold, real),
            Err(reason) => assert_eq!(None, Some(reason), "{payload:?} passes"),
        }
    }

    #[track_caller]
    fn send_in_vain(&mut self, from: usize, payload: Payload, why: DropReason) {
        assert_eq!(self.send(from, payload).map(|_| ()), Err(why));
    }
}

/// What a captured frame is, if the router sent it and a NAT would translate it.
fn arrived(record: &Record) -> Option<Packet> {
    if !record.outgoing {
        return None;
    }
    let sliced = SlicedPacket::from_ethernet(record.frame()).ok()?;
    let Some(NetSlice::Ipv4(ip)) = &sliced.net else {
        return None;
    };
    let payload = match &sliced.transport {
        Some(TransportSlice::Udp(head)) => udp(head.source_port(), head.destination_port()),
        _ if i32::from(ip.payload_ip_number().0) == libc::IPPROTO_ESP => {
            let spi = ip.payload().payload.first_chunk()?;
            esp(u32::from_be_bytes(*spi))
        }
        _ => return None,
    };
    Some(Packet {
        source: IpAddr::V4(ip.header().source_addr()),
        destination: IpAddr::V4(ip.header().destination_addr()),
        payload,
    })
}

fn esp(spi: u32) -> Payload {
    Payload::Esp { spi }
}

fn udp(source_port: u16, destination_port: u16) -> Payload {
    Payload::Udp {
        source_port,
        destination_port,
        ike: None,
    }
}

fn source_port(packet: Packet) -> u16 {
    match packet.payload {
        Payload::Udp { source_port, .. } => source_port,
        Payload::Esp { .. } => 0,
    }
}

#[test]
fn the_model_of_conntrack_passes_and_drops_what_the_kernel_does() {
    let mut both = Both::new();

    // ESP goes by addresses: the second client's is dropped, the server's goes to the first.
    both.send_alike(CLIENT0, esp(0x1001));
    both.send_in_vain(CLIENT1, esp(0x1002), DropReason::AddressesTaken);
    both.send_alike(CLIENT0, esp(0x1003));
    both.send_alike(THE_SERVER, esp(0x2001));

    // UDP goes by ports: the second client's is changed where it would be the same.
    both.send_alike(CLIENT0, udp(500, 500));
    let (foretold, real) = both.send(CLIENT1, udp(500, 500)).expect("it passes");
    let (model_port, kernel_port) = (source_port(foretold), source_port(real));
    println!("the second client's port 500: {model_port} foretold, {kernel_port}");
    assert!(model_port != 500 && kernel_port != 500);
    let (foretold, real) = both.send(CLIENT1, udp(500, 4500)).expect("it passes");
    let ports = (source_port(foretold), source_port(real));
    assert_eq!(ports, (model_port, kernel_port), "as it was shown before");
    both.send_alike(CLIENT0, udp(500, 4500));

    // Answers come back to whom they answer, others do not.
    both.send_alike(THE_SERVER, udp(500, 500));
    both.send_alike(THE_SERVER, udp(4500, 500));
    let answers = (udp(500, model_port), udp(500, kernel_port));
    let (foretold, real) = both
        .send_each(THE_SERVER, answers.0, answers.1)
        .expect("it passes");
    assert_eq!(foretold, real);
    let client1 = IpAddr::V4(CLIENTS[CLIENT1]);
    assert_eq!((real.destination, real.payload), (client1, udp(500, 500)));
    both.send_in_vain(THE_SERVER, udp(4501, 500), DropReason::Filtered);
    both.send_in_vain(THE_SERVER, udp(4500, 4500), DropReason::NoUdpMapping);
    both.send_alike(CLIENT0, udp(4500, 4500));
    both.send_alike(THE_SERVER, udp(4500, 4500));

    // Each wire is in order, so what passed against the model would have been seen before these.
    both.send_alike(CLIENT0, udp(6000, 6000));
    both.send_alike(CLIENT1, udp(6001, 6001));
    both.send_alike(THE_SERVER, udp(6000, 6000));
    both.send_alike(THE_SERVER, udp(6001, 6001));
    for end in &both.ends {
        assert_eq!(end.arrived().len(), end.expected, "{:?}", end.host);
    }
}
