//! On a real kernel: every kind of event comes, with what it must say.
#![cfg(feature = "kernel")]
#![allow(clippy::panic)] // In helpers of tests, too, a panic is a failed test.

mod common;

use std::net::UdpSocket;
use std::time::Duration;

use common::{
    CLIENT, CLIENT_V6, Pair, SERVER, SERVER_V6, address, hold_packets, in_own_namespace, ip,
    selector, spi, tunnel_sa, udp,
};
use epochgate_xfrm::socket_policy::{Family, set_socket_bypass};
use epochgate_xfrm::{
    AsyncEventSocket, Encap, EventFlags, EventGroup, EventSocket, EventState, EventThresholds, Op,
    Policy, PolicyDirection, PolicyFlags, PolicyKey, Protection, Protocol, ReplayWindow, Reqid, Sa,
    SaDirection, Socket, SpiRequest, Template, XfrmEvent,
};

const PATIENCE: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_millis(300);

fn open() -> Socket {
    Socket::open().expect("a netlink socket")
}

fn listen(groups: &[EventGroup]) -> EventSocket {
    EventSocket::open(groups).expect("an event socket")
}

fn next(events: &mut EventSocket) -> XfrmEvent {
    events
        .next(Some(PATIENCE))
        .expect("the socket lives")
        .expect("an event comes")
}

fn nothing_comes(events: &mut EventSocket) {
    let event = events.next(Some(SILENCE)).expect("the socket lives");
    assert_eq!(event, None);
}

/// A policy for everything between two hosts, and the template for its SAs.
fn protect(direction: PolicyDirection, source: &str, destination: &str, reqid: u32) -> Policy {
    let template = Template::esp_tunnel(address(source), address(destination), Reqid(reqid));
    Policy::protect(direction, selector(source, destination), 100, template)
}

fn acquire_comes_for_a_held_packet(source: &'static str, destination: &'static str) {
    Pair::new().client.run(move || {
        hold_packets();
        let mut socket = open();
        let policy = protect(PolicyDirection::Out, source, destination, 99);
        socket.add_policy(&policy).expect("add");
        let policy = socket.policy(&policy.id()).expect("get").policy;
        let mut events = listen(&[EventGroup::Acquire]);

        let sender = udp(source, 4000);
        sender
            .send_to(b"held", (destination, 5000))
            .expect("the kernel keeps it");
        let XfrmEvent::Acquire(acquire) = next(&mut events) else {
            panic!("no acquire")
        };
        assert_eq!(acquire.source, address(source));
        assert_eq!(acquire.destination, address(destination));
        assert_eq!(acquire.protocol, Protocol::Esp);
        assert_eq!(acquire.reqid(), Some(Reqid(99)));
        assert_eq!(acquire.policy.policy, policy);
        assert_eq!(acquire.packet.protocol, 17);
        assert_eq!(acquire.packet.source_port.port, 4000);
        assert_eq!(acquire.packet.destination_port.port, 5000);
        assert_ne!(acquire.sequence, 0);

        // It leaves a larval SA without an SPI.
        let larval = socket.sas().expect("list");
        let [larval] = larval.as_slice() else {
            panic!("{larval:?}")
        };
        assert_eq!((larval.sa.spi, larval.sa.reqid), (None, Reqid(99)));
        assert_eq!(larval.sa.protection, Protection::Larval);
        assert_eq!(larval.acquire_sequence, acquire.sequence);

        // Asking for an SPI with the number of the acquire gives that larval SA one.
        let mut wanted = SpiRequest::esp_tunnel(acquire.source, acquire.destination, Reqid(99));
        wanted.acquire_sequence = acquire.sequence;
        let answered = socket.allocate_spi(&wanted).expect("an SPI");
        assert!(answered.sa.spi.is_some());
        assert_eq!(socket.sas().expect("list").len(), 1);
    });
}

#[test]
fn a_held_packet_raises_an_acquire_over_ipv4() {
    acquire_comes_for_a_held_packet(CLIENT, SERVER);
}

#[test]
fn a_held_packet_raises_an_acquire_over_ipv6() {
    acquire_comes_for_a_held_packet(CLIENT_V6, SERVER_V6);
}

/// RFC 9611: an SA that is not of its CPU serves, while the kernel asks for one that is.
#[test]
fn a_policy_for_an_sa_on_each_cpu_raises_an_acquire_that_names_the_cpu() {
    let mut outbound = tunnel_sa(CLIENT, SERVER, 0x700, 7);
    outbound.direction = Some(SaDirection::Out);
    outbound.replay_window = ReplayWindow::packets(0);
    let pair = Pair::new();
    pair.client.run(move || {
        let mut socket = open();
        socket.add_sa(&outbound).expect("add");
        let mut policy = protect(PolicyDirection::Out, CLIENT, SERVER, 7);
        policy.flags = PolicyFlags::CPU_ACQUIRE;
        socket.add_policy(&policy).expect("add");
        let mut events = listen(&[EventGroup::Acquire]);
        let sender = udp(CLIENT, 0);
        sender.send_to(b"through", (SERVER, 5000)).expect("send");
        let XfrmEvent::Acquire(acquire) = next(&mut events) else {
            panic!("no acquire")
        };
        assert!(acquire.cpu.is_some());
        assert_eq!(acquire.policy.policy.flags, policy.flags);
        assert!(acquire.policy.policy.other.is_empty(), "{acquire:?}");

        let mut wanted = SpiRequest::esp_tunnel(acquire.source, acquire.destination, Reqid(7));
        wanted.acquire_sequence = acquire.sequence;
        wanted.direction = Some(SaDirection::Out);
        wanted.cpu = acquire.cpu;
        let answered = socket.allocate_spi(&wanted).expect("an SPI").sa;
        assert_eq!(answered.cpu, acquire.cpu);
        assert_eq!(answered.direction, Some(SaDirection::Out));
    });
}

/// Client and server with an SA from one to the other, which the client's traffic takes.
fn protected_pair(outbound: Sa, inbound: Sa) -> Pair {
    let pair = Pair::new();
    let (from, to, reqid) = (outbound.source, outbound.destination, outbound.reqid.0);
    pair.client.run(move || {
        let mut socket = open();
        socket.add_sa(&outbound).expect("add");
        let policy = protect(
            PolicyDirection::Out,
            &from.to_string(),
            &to.to_string(),
            reqid,
        );
        socket.add_policy(&policy).expect("add");
    });
    pair.server.run(move || {
        let mut socket = open();
        socket.add_sa(&inbound).expect("add");
        let policy = protect(
            PolicyDirection::In,
            &from.to_string(),
            &to.to_string(),
            reqid,
        );
        socket.add_policy(&policy).expect("add");
    });
    pair
}

/// Sends datagrams from client to server, and waits for the last.
fn send(pair: &Pair, count: usize) {
    let receiver = pair.server.run(|| udp(SERVER, 5000));
    pair.client.run(move || {
        let sender = udp(CLIENT, 0);
        for _ in 0..count {
            sender
                .send_to(b"through the SA", (SERVER, 5000))
                .expect("send");
        }
    });
    pair.server.run(move || {
        let mut buffer = [0; 64];
        for _ in 0..count {
            receiver.recv(&mut buffer).expect("the datagram arrives");
        }
    });
}

#[test]
fn the_first_packet_on_an_awaited_sa_raises_one_aevent() {
    for window in [
        ReplayWindow::packets(32),
        ReplayWindow::packets(64),
        ReplayWindow::extended(64),
    ] {
        let mut outbound = tunnel_sa(CLIENT, SERVER, 0x700, 7);
        outbound.replay_window = window;
        let mut inbound = tunnel_sa(CLIENT, SERVER, 0x700, 7);
        inbound.replay_window = window;
        (inbound.replay_threshold, inbound.timer_threshold) = (Some(1), Some(0));
        let id = inbound.id().expect("an SPI");
        let pair = protected_pair(outbound, inbound);
        let mut events = pair.server.run(|| listen(&[EventGroup::Aevents]));
        send(&pair, 1);
        pair.server.run(move || {
            let XfrmEvent::NewAe(state) = next(&mut events) else {
                panic!("no aevent")
            };
            let state: EventState = *state;
            assert_eq!((state.id, state.reqid), (id, Reqid(7)));
            assert_eq!(state.source, address(CLIENT));
            assert!(
                state.flags.contains(EventFlags::CAUSE_REPLAY),
                "{:?}",
                state.flags
            );
            assert_eq!(state.replay.expect("sequence numbers").inbound, 1);
            // The kernel tells before it counts the packet that it tells of.
            assert_eq!(state.usage.expect("counters").packets, 0);

            // Silenced: the change itself is told, further packets are not.
            open()
                .set_event_thresholds(id, EventThresholds::SILENT)
                .expect("set");
            let XfrmEvent::NewAe(state) = next(&mut events) else {
                panic!("no aevent")
            };
            assert!(
                state.flags.contains(EventFlags::CAUSE_UPDATE),
                "{:?}",
                state.flags
            );
            nothing_comes(&mut events);
        });
    }
}

#[test]
fn a_silent_sa_raises_no_aevent() {
    let mut inbound = tunnel_sa(CLIENT, SERVER, 0x700, 7);
    (inbound.replay_threshold, inbound.timer_threshold) = (Some(0), Some(0));
    let pair = protected_pair(tunnel_sa(CLIENT, SERVER, 0x700, 7), inbound);
    let mut events = pair.server.run(|| listen(&[EventGroup::Aevents]));
    send(&pair, 5);
    pair.server.run(move || nothing_comes(&mut events));
}

#[test]
fn a_group_can_be_left_and_joined_again() {
    in_own_namespace(|| {
        let mut socket = open();
        let mut events = listen(&[]);
        let mut number = 0x100;
        let mut add = |socket: &mut Socket| {
            number += 1;
            socket
                .add_sa(&tunnel_sa(CLIENT, SERVER, number, 1))
                .expect("add");
        };
        add(&mut socket);
        events.join(EventGroup::Sa).expect("join");
        add(&mut socket);
        let XfrmEvent::NewSa(entry) = next(&mut events) else {
            panic!("no SA")
        };
        assert_eq!(entry.sa.spi, Some(spi(0x102)));
        events.leave(EventGroup::Sa).expect("leave");
        add(&mut socket);
        nothing_comes(&mut events);
        events.join(EventGroup::Sa).expect("join");
        add(&mut socket);
        let XfrmEvent::NewSa(entry) = next(&mut events) else {
            panic!("no SA")
        };
        assert_eq!(entry.sa.spi, Some(spi(0x104)));
    });
}

#[test]
fn an_sa_expires_softly_and_then_hard() {
    let mut outbound = tunnel_sa(CLIENT, SERVER, 0x700, 7);
    outbound.limits.soft.packets = Some(2);
    outbound.limits.hard.packets = Some(4);
    let id = outbound.id();
    let pair = protected_pair(outbound, tunnel_sa(CLIENT, SERVER, 0x700, 7));
    let mut events = pair.client.run(|| listen(&[EventGroup::Expire]));
    send(&pair, 3);
    pair.client.run(move || {
        let XfrmEvent::Expire(expire) = next(&mut events) else {
            panic!("no expire")
        };
        assert!(!expire.hard);
        assert_eq!(
            (expire.entry.sa.id(), expire.entry.sa.reqid),
            (id, Reqid(7))
        );
        assert_eq!(expire.entry.sa.limits.soft.packets, Some(2));
        assert!(expire.entry.usage.packets >= 2, "{:?}", expire.entry.usage);

        let sender = udp(CLIENT, 0);
        for _ in 0..3 {
            let _lost_once_expired = sender.send_to(b"on", (SERVER, 5000));
        }
        let hard = loop {
            let XfrmEvent::Expire(expire) = next(&mut events) else {
                panic!("no expire")
            };
            if expire.hard {
                break expire;
            }
        };
        assert_eq!(hard.entry.sa.id(), id);
        assert!(
            open()
                .sa(id.expect("an SPI"))
                .expect_err("it is gone")
                .is_missing()
        );
    });
}

#[test]
fn a_policy_expires() {
    in_own_namespace(|| {
        let mut events = listen(&[EventGroup::Expire]);
        let mut policy = protect(PolicyDirection::Out, CLIENT, SERVER, 1);
        policy.limits.hard.seconds_since_added = Some(1);
        open().add_policy(&policy).expect("add");
        let XfrmEvent::PolicyExpire(expire) = next(&mut events) else {
            panic!("no expire")
        };
        assert!(expire.hard);
        assert_eq!(expire.entry.policy.selector, policy.selector);
    });
}

#[test]
fn a_moved_nat_mapping_is_reported() {
    let mut outbound = tunnel_sa(CLIENT, SERVER, 0x700, 7);
    outbound.encap = Some(Encap::udp(4501, 4500)); // The NAT moved us from 4500 to 4501.
    let mut inbound = tunnel_sa(CLIENT, SERVER, 0x700, 7);
    inbound.encap = Some(Encap::udp(4500, 4500));
    let id = inbound.id().expect("an SPI");
    let pair = protected_pair(outbound, inbound);
    let (mut events, ike) = pair.server.run(|| {
        let ike = UdpSocket::bind((SERVER, 4500)).expect("the port is free");
        common::pass_esp_in_udp_on(&ike);
        // The policy between the two hosts covers the UDP packets around ESP as well.
        set_socket_bypass(&ike, Family::V4).expect("CAP_NET_ADMIN");
        (listen(&[EventGroup::Mapping]), ike)
    });
    send(&pair, 1);
    pair.server.run(move || {
        let XfrmEvent::Mapping(mapping) = next(&mut events) else {
            panic!("no mapping")
        };
        assert_eq!((mapping.id, mapping.reqid), (id, Reqid(7)));
        assert_eq!(
            (mapping.old_address, mapping.old_port),
            (address(CLIENT), 4500)
        );
        assert_eq!(
            (mapping.new_address, mapping.new_port),
            (address(CLIENT), 4501)
        );
        drop(ike);
    });
}

#[test]
fn every_change_of_an_sa_is_told() {
    in_own_namespace(|| {
        let mut events = listen(&[EventGroup::Sa]);
        let mut socket = open();
        let mut sa = tunnel_sa(CLIENT, SERVER, 0x700, 7);
        let id = sa.id().expect("an SPI");
        socket.add_sa(&sa).expect("add");
        let XfrmEvent::NewSa(entry) = next(&mut events) else {
            panic!("no new SA")
        };
        assert_eq!(entry.sa.id(), Some(id));
        assert_eq!(entry.sa.protection, sa.protection);

        sa.limits.hard.packets = Some(1000);
        socket.update_sa(&sa).expect("update");
        let XfrmEvent::UpdSa(entry) = next(&mut events) else {
            panic!("no update")
        };
        assert_eq!(entry.sa.limits.hard.packets, Some(1000));

        socket.delete_sa(id).expect("delete");
        let XfrmEvent::DelSa(deleted, Some(entry)) = next(&mut events) else {
            panic!("no delete")
        };
        assert_eq!((deleted, entry.sa.reqid), (id, Reqid(7)));
        assert!(entry.sa.other.is_empty(), "{:?}", entry.sa.other);

        socket.add_sa(&sa).expect("add");
        assert!(matches!(next(&mut events), XfrmEvent::NewSa(_)));
        ip("xfrm state flush");
        assert!(matches!(next(&mut events), XfrmEvent::FlushSa(_)));
    });
}

#[test]
fn every_change_of_a_policy_is_told() {
    in_own_namespace(|| {
        let mut events = listen(&[EventGroup::Policy]);
        let mut socket = open();
        let mut policy = protect(PolicyDirection::Out, CLIENT_V6, SERVER_V6, 7);
        socket.add_policy(&policy).expect("add");
        let XfrmEvent::NewPolicy(entry) = next(&mut events) else {
            panic!("no new policy")
        };
        policy.index = entry.policy.index;
        assert_eq!(entry.policy, policy);

        policy.priority = 5;
        socket.update_policy(&policy).expect("update");
        let XfrmEvent::UpdPolicy(entry) = next(&mut events) else {
            panic!("no update")
        };
        assert_eq!(entry.policy.priority, 5);

        socket.delete_policy(&policy.id()).expect("delete");
        let XfrmEvent::DelPolicy(id, Some(entry)) = next(&mut events) else {
            panic!("no delete")
        };
        assert_eq!(id.key, PolicyKey::Selector(policy.selector));
        assert_eq!(entry.policy.templates, policy.templates);
        assert!(entry.policy.other.is_empty(), "{:?}", entry.policy.other);

        ip("xfrm policy add src 10.0.0.0/8 dst 10.0.0.0/8 dir in");
        assert!(matches!(next(&mut events), XfrmEvent::NewPolicy(_)));
        ip("xfrm policy flush");
        assert!(matches!(next(&mut events), XfrmEvent::FlushPolicy));
    });
}

#[test]
fn lost_events_are_told_and_later_ones_come() {
    in_own_namespace(|| {
        let mut events = listen(&[EventGroup::Policy]);
        let mut socket = open();
        let policy = protect(PolicyDirection::Out, CLIENT, SERVER, 7);
        let flips = vec![Op::UpdatePolicy(&policy); 40_000];
        for result in socket.batch(&flips) {
            result.expect("update");
        }
        let mut seen = 0;
        while next(&mut events) != XfrmEvent::Overrun {
            seen += 1;
            assert!(seen <= flips.len(), "no overrun");
        }
        while events
            .next(Some(SILENCE))
            .expect("the socket lives")
            .is_some()
        {}
        socket.delete_policy(&policy.id()).expect("delete");
        assert!(matches!(next(&mut events), XfrmEvent::DelPolicy(..)));
    });
}

#[test]
fn the_asynchronous_event_socket_hears_the_same() {
    in_own_namespace(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(async {
            let mut events = AsyncEventSocket::open(&[EventGroup::Sa]).expect("open");
            let sa = tunnel_sa(CLIENT, SERVER, 0x700, 7);
            let added = async {
                tokio::task::yield_now().await;
                open().add_sa(&sa).expect("add");
            };
            let (event, ()) = tokio::join!(tokio::time::timeout(PATIENCE, events.next()), added);
            let event = event.expect("an event comes").expect("the socket lives");
            assert!(matches!(event, XfrmEvent::NewSa(_)), "{event:?}");
            assert!(!format!("{event:?}").contains("[1, 2, 3"), "a key is shown");
            events.leave(EventGroup::Sa).expect("leave");
        });
    });
}
