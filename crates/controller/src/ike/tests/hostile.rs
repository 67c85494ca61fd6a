//! What anybody can send: it must neither panic nor grow, nor change what is established.

use super::*;

/// A small generator, so that a failing run can be repeated (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// Messages of every exchange, as they were on the wire.
fn seeds() -> (Pair, Vec<(End, Vec<u8>)>) {
    let groups = |config: &mut TunnelConfig| config.esp.groups = vec![Group::X25519];
    let mut pair = Pair::with(groups, groups);
    pair.connect();
    pair.settle();
    for end in [End::Client, End::Server] {
        let now = pair.now;
        let host = pair.host(end);
        let (sa, child) = (host.sa(), host.child().id);
        host.endpoint.rekey_child(sa, child, now);
        host.endpoint.check_liveness(sa, now);
        host.endpoint.delete_child(sa, child, now);
        pair.settle();
    }
    let seeds = pair
        .sent
        .iter()
        .map(|(from, datagram)| (*from, datagram.payload.clone()))
        .collect();
    pair.sent.clear();
    (pair, seeds)
}

fn mutate(random: &mut Random, octets: &mut Vec<u8>) {
    for _ in 0..=random.below(4) {
        match random.below(5) {
            0 if !octets.is_empty() => {
                let at = random.below(octets.len());
                octets[at] = random.next() as u8;
            }
            1 => octets.truncate(random.below(octets.len() + 1)),
            2 => octets.extend((0..random.below(40)).map(|it| it as u8)),
            3 if octets.len() >= 28 => {
                // The length field right, so that more is looked at.
                let length = (octets.len() as u32).to_be_bytes();
                octets[24..28].copy_from_slice(&length);
            }
            _ if octets.len() > 28 => {
                let at = 16 + random.below(octets.len() - 16);
                octets[at] ^= 1 << random.below(8);
            }
            _ => {}
        }
    }
}

#[test]
fn ten_thousand_mutated_datagrams_change_nothing() {
    let (mut pair, seeds) = seeds();
    let mut random = Random(0x1234_5678_9abc_def1);
    let (events, children) = (pair.server.events.len(), pair.server.children.len());
    for _ in 0..10_000 {
        let (from, mut octets) = seeds[random.below(seeds.len())].clone();
        if random.below(20) == 0 {
            octets = (0..random.below(300))
                .map(|_| random.next() as u8)
                .collect();
        } else {
            mutate(&mut random, &mut octets);
        }
        let to = from.other();
        let (local, remote) = match to {
            End::Client => (CLIENT, SERVER),
            End::Server => (SERVER, CLIENT),
        };
        let datagram = Datagram {
            local: address(local, 500),
            remote: address(remote, 500),
            payload: octets,
        };
        pair.deliver(to, &datagram);
        pair.drain(End::Client);
        pair.drain(End::Server);
        pair.network.clear();
        pair.sent.clear();
    }
    assert!(pair.client.is_established() && pair.server.is_established());
    assert_eq!(pair.server.events.len(), events);
    assert_eq!(pair.server.children.len(), children);
    let counters = *pair.server.endpoint.counters();
    assert!(counters.malformed > 1000, "{counters:?}");
    assert!(counters.forged > 100, "{counters:?}");

    // What was half open goes, and the IKE SA works as before.
    pair.run(Duration::from_secs(40));
    assert_eq!(pair.server.endpoint.len(), 1);
    assert_eq!(pair.client.endpoint.len(), 1);
    let (sa, now, child) = (pair.client.sa(), pair.now, pair.client.child().id);
    pair.client.endpoint.rekey_child(sa, child, now);
    pair.settle();
    pair.assert_same_child();
}

#[test]
fn a_message_for_nobody_is_answered_without_protection_and_not_too_often() {
    let (mut pair, seeds) = seeds();
    let lost = seeds
        .iter()
        .find(|(from, octets)| {
            let header = Header::decode(octets).unwrap();
            *from == End::Client
                && header.exchange == ExchangeType::CreateChildSa
                && !header.flags.response
        })
        .map(|(_, octets)| octets.clone())
        .unwrap();
    let (sa, now) = (pair.server.sa(), pair.now);
    pair.server.endpoint.forget(sa, TUNNEL);
    let datagram = Datagram {
        local: address(SERVER, 500),
        remote: address(CLIENT, 500),
        payload: lost,
    };
    for _ in 0..1000 {
        pair.server.endpoint.handle_datagram(&datagram, now);
    }
    pair.drain(End::Server);
    let limit = Limits::default().unprotected_answers_per_second as usize;
    assert_eq!(pair.sent.len(), limit);
    let answer = Message::decode(&pair.sent[0].1.payload).unwrap();
    assert_eq!(notifies(&answer.payloads), [NotifyType::INVALID_IKE_SPI]);
    assert!(answer.header.flags.response);
    // The client does not believe it (RFC 7296 §2.21.4).
    pair.settle();
    assert!(pair.client.is_established());
}

#[test]
fn a_newer_major_version_is_told_ours() {
    let mut pair = Pair::new();
    pair.connect();
    pair.drain(End::Client);
    let mut payload = pair.sent[0].1.payload.clone();
    payload[17] = 0x30;
    pair.sent.clear();
    pair.network.clear();
    let datagram = Datagram {
        local: address(SERVER, 500),
        remote: address(CLIENT, 500),
        payload,
    };
    pair.deliver(End::Server, &datagram);
    pair.drain(End::Server);
    let answer = Message::decode(&pair.sent[0].1.payload).unwrap();
    assert_eq!(answer.header.major, 2);
    assert_eq!(
        notifies(&answer.payloads),
        [NotifyType::INVALID_MAJOR_VERSION]
    );
}

#[test]
fn keys_are_never_shown() {
    let pair = Pair::established();
    let shown = format!("{:?} {:?}", pair.client.events, pair.server.events);
    for child in [pair.client.child(), pair.server.child()] {
        for key in [&child.inbound_key, &child.outbound_key] {
            let octets = key.expose();
            let hex: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
            let list = format!("{octets:?}");
            assert!(!shown.contains(&hex) && !shown.contains(list.trim_matches(['[', ']'])));
        }
    }
    assert!(shown.contains("Secret(36 octets)"));
    let config = format!("{:?}", config(End::Client));
    assert!(!config.contains("staple"));
}
