//! On a real kernel: policies of single sockets, seen by the packets that arrive.
#![cfg(feature = "kernel")]
#![allow(clippy::panic)] // In helpers of tests, too, a panic is a failed test.

mod common;

use std::net::UdpSocket;
use std::time::Duration;

use common::{
    CLIENT, CLIENT_V6, Pair, SERVER, SERVER_V6, address, hold_packets, in_own_namespace, selector,
    spi, tunnel_sa, udp,
};
use epochgate_xfrm::socket_policy::{
    Family, clear_socket_policy, set_socket_bypass, set_socket_policy,
};
use epochgate_xfrm::{Policy, PolicyDirection, Reqid, SaId, Socket, Template};

/// How long nothing must come.
const SILENCE: Duration = Duration::from_millis(500);

fn open() -> Socket {
    Socket::open().expect("a netlink socket")
}

/// Policies that hold everything between two hosts, in both directions, but neighbour discovery.
fn hold_everything(local: &str, remote: &str) {
    const ICMPV6: u8 = 58;
    hold_packets();
    let mut socket = open();
    for direction in [PolicyDirection::Out, PolicyDirection::In] {
        let discovery = selector("::/0", "::/0").with_protocol(ICMPV6);
        socket
            .add_policy(&Policy::allow(direction, discovery, 1))
            .expect("add");
    }
    let ways = [
        (PolicyDirection::Out, local, remote),
        (PolicyDirection::In, remote, local),
    ];
    for (direction, source, destination) in ways {
        let template = Template::esp_tunnel(address(source), address(destination), Reqid(99));
        let policy = Policy::protect(direction, selector(source, destination), 100, template);
        socket.add_policy(&policy).expect("add");
    }
}

fn bypass_lets_a_socket_through(client: &'static str, server: &'static str) {
    let family = Family::from(address(client));
    let pair = Pair::new();
    let peer = pair.server.run(move || udp(server, 500));
    let exempt = pair.client.run(move || {
        hold_everything(client, server);
        let exempt = udp(client, 500);
        set_socket_bypass(&exempt, family).expect("CAP_NET_ADMIN");
        let held = udp(client, 4000);
        held.send_to(b"held", (server, 500))
            .expect("the kernel keeps it");
        exempt.send_to(b"exempt", (server, 500)).expect("send");
        exempt
    });
    pair.server.run(move || {
        let mut buffer = [0; 16];
        let (length, _) = peer.recv_from(&mut buffer).expect("it arrives in clear");
        assert_eq!(&buffer[..length], b"exempt");
        peer.send_to(b"answer", (client, 500)).expect("send");
        peer.set_read_timeout(Some(SILENCE)).expect("a timeout");
        let more = peer.recv_from(&mut buffer);
        assert!(more.is_err(), "a held packet arrived");
    });
    pair.client.run(move || {
        let mut buffer = [0; 16];
        let (length, _) = exempt
            .recv_from(&mut buffer)
            .expect("the answer in clear comes in");
        assert_eq!(&buffer[..length], b"answer");
    });
}

#[test]
fn a_bypassed_socket_speaks_in_clear_under_a_hold_over_ipv4() {
    bypass_lets_a_socket_through(CLIENT, SERVER);
}

#[test]
fn a_bypassed_socket_speaks_in_clear_under_a_hold_over_ipv6() {
    bypass_lets_a_socket_through(CLIENT_V6, SERVER_V6);
}

/// Two outbound SAs with one reqid, the tunnel's policy on hold.
fn pinned_socket_uses_its_sa(client: &'static str, server: &'static str) {
    const PINGS: u64 = 5;
    const UDP: u8 = 17;
    let pair = Pair::new();
    pair.server.run(move || {
        let mut socket = open();
        for number in [0x701, 0x702] {
            socket
                .add_sa(&tunnel_sa(client, server, number, 7))
                .expect("add");
        }
        let template = Template::esp_tunnel(address(client), address(server), Reqid(7));
        let packets = selector(client, server).with_protocol(UDP);
        let policy = Policy::protect(PolicyDirection::In, packets, 100, template);
        socket.add_policy(&policy).expect("add");
    });
    let receiver = pair.server.run(move || udp(server, 5000));
    pair.client.run(move || {
        hold_everything(client, server);
        let mut socket = open();
        for number in [0x701, 0x702] {
            socket
                .add_sa(&tunnel_sa(client, server, number, 7))
                .expect("add");
        }
        let sender = udp(client, 0);
        let template = Template::esp_tunnel(address(client), address(server), Reqid(7));
        let family = Family::from(address(client));
        set_socket_policy(&sender, family, &[template.pinned_to(spi(0x701))]).expect("set");
        for _ in 0..PINGS {
            sender.send_to(b"ping", (server, 5000)).expect("send");
        }
        let packets = |socket: &mut Socket, number: u32| {
            let id = SaId::esp(address(server), spi(number));
            socket.sa(id).expect("get").usage.packets
        };
        assert_eq!(packets(&mut socket, 0x701), PINGS);
        assert_eq!(packets(&mut socket, 0x702), 0);

        // Without its own policy the socket is held as everything else.
        clear_socket_policy(&sender, family).expect("clear");
        sender
            .send_to(b"held", (server, 5000))
            .expect("the kernel keeps it");
        assert_eq!(
            packets(&mut socket, 0x701) + packets(&mut socket, 0x702),
            PINGS
        );
    });
    pair.server.run(move || {
        let mut buffer = [0; 16];
        for _ in 0..PINGS {
            let length = receiver.recv(&mut buffer).expect("the ping arrives");
            assert_eq!(&buffer[..length], b"ping");
        }
        let used = open()
            .sas()
            .expect("list")
            .into_iter()
            .filter(|it| it.usage.packets > 0);
        let used: Vec<_> = used.map(|entry| entry.sa.spi).collect();
        assert_eq!(used, [Some(spi(0x701))]);
    });
}

#[test]
fn a_pinned_socket_uses_one_sa_of_two_over_ipv4() {
    pinned_socket_uses_its_sa(CLIENT, SERVER);
}

#[test]
fn a_pinned_socket_uses_one_sa_of_two_over_ipv6() {
    pinned_socket_uses_its_sa(CLIENT_V6, SERVER_V6);
}

#[test]
fn a_socket_policy_is_listed_as_such() {
    in_own_namespace(|| {
        let exempt = udp("127.0.0.1", 500);
        set_socket_bypass(&exempt, Family::V4).expect("set");
        let mut directions: Vec<_> = open()
            .policies()
            .expect("list")
            .into_iter()
            .map(|entry| entry.policy.direction)
            .collect();
        directions.sort();
        assert_eq!(
            directions,
            [PolicyDirection::SocketIn, PolicyDirection::SocketOut]
        );
    });
}

#[test]
fn the_family_must_be_the_sockets() {
    in_own_namespace(|| {
        let socket: UdpSocket = udp("127.0.0.1", 0);
        let error = set_socket_bypass(&socket, Family::V6).expect_err("an IPv4 socket");
        assert!(
            error
                .to_string()
                .starts_with("cannot set a socket's own policy"),
            "{error}"
        );
    });
}
