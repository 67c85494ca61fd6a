//! NAT detection and what follows from it (RFC 7296 §2.23).

use super::*;

fn behind_nat(mode: NatTraversal) -> Pair {
    let change = |config: &mut TunnelConfig| config.nat_traversal = mode;
    let mut pair = Pair::with(change, change);
    pair.nat = true;
    pair.connect();
    pair.settle();
    pair.assert_same_child();
    pair
}

#[test]
fn a_client_behind_a_nat_floats_to_4500_and_encapsulates() {
    let pair = behind_nat(NatTraversal::Auto);
    assert!(pair.client.peer().unwrap().nat);
    assert!(pair.server.peer().unwrap().nat);
    let (ours, theirs) = (pair.client.child().path, pair.server.child().path);
    assert!(ours.encapsulated && theirs.encapsulated);
    assert_eq!(ours.local, address(INSIDE, 4500));
    assert_eq!(ours.remote, address(SERVER, 4500));
    assert_eq!(theirs.local, address(SERVER, 4500));
    assert_eq!(theirs.remote, address(NAT, 24_500));
}

#[test]
fn without_nat_traversal_nothing_is_detected_and_esp_stays_plain() {
    let pair = behind_nat(NatTraversal::Off);
    assert!(!pair.client.peer().unwrap().nat);
    assert!(!pair.server.peer().unwrap().nat);
    assert!(!pair.client.child().path.encapsulated);
    assert_eq!(pair.client.child().path.local, address(INSIDE, 500));
    let first = Message::decode(&pair.sent[0].1.payload).unwrap();
    assert_eq!(
        notifies(&first.payloads),
        [NotifyType::IKEV2_FRAGMENTATION_SUPPORTED]
    );
}

#[test]
fn an_end_without_nat_traversal_keeps_the_other_from_it() {
    let off = |config: &mut TunnelConfig| config.nat_traversal = NatTraversal::Off;
    for client_is_off in [true, false] {
        let mut pair = if client_is_off {
            Pair::with(off, |_| ())
        } else {
            Pair::with(|_| (), off)
        };
        pair.nat = true;
        pair.connect();
        pair.settle();
        assert!(!pair.client.child().path.encapsulated);
        assert!(!pair.server.child().path.encapsulated);
    }
}

/// IKE_SA_INIT does not tell which of its clients a server talks to.
#[test]
fn a_client_without_nat_traversal_keeps_no_other_client_from_it() {
    let mut pair = Pair::new();
    let own = config(End::Server);
    let mut other = own.clone();
    other.remote.id = Identity::Fqdn("other.example".into());
    other.nat_traversal = NatTraversal::Off;
    let tunnels = BTreeMap::from([(TunnelId(0), Arc::new(other)), (TUNNEL, Arc::new(own))]);
    pair.server.endpoint.configure(tunnels);
    pair.nat = true;
    pair.connect();
    pair.settle();
    assert!(pair.client.child().path.encapsulated);
    assert!(pair.server.child().path.encapsulated);
}

#[test]
fn the_server_follows_a_client_whose_nat_forgot_it() {
    let immobile = |config: &mut TunnelConfig| config.path.mobike = false;
    let mut pair = Pair::with(immobile, immobile);
    pair.nat = true;
    pair.connect();
    pair.settle();
    pair.nat_epoch = 7;
    let (sa, now) = (pair.client.sa(), pair.now);
    pair.client.endpoint.check_liveness(sa, now);
    pair.settle();
    let moved = pair.server.events.iter().find_map(|event| match event {
        IkeEvent::PathChanged(path) => Some(*path),
        _ => None,
    });
    assert_eq!(moved.unwrap().remote, address(NAT, 24_507));
    assert_eq!(pair.client.alive, 1, "the answer found the way back");
    assert!(
        !pair
            .client
            .events
            .iter()
            .any(|event| matches!(event, IkeEvent::PathChanged(_))),
        "who is behind the NAT follows nobody"
    );
}

#[test]
fn with_mobike_esp_is_followed_and_ike_is_not() {
    let mut pair = behind_nat(NatTraversal::Auto);
    pair.nat_epoch = 7;
    let (sa, now) = (pair.client.sa(), pair.now);
    pair.client.endpoint.check_liveness(sa, now);
    pair.settle();
    let moved = |event: &IkeEvent| matches!(event, IkeEvent::PathChanged(_));
    assert!(!pair.server.events.iter().any(moved), "RFC 4555 §3.8");
    let (sa, now, source) = (pair.server.sa(), pair.now, address(NAT, 24_507));
    pair.server.endpoint.mapping_changed(sa, source, now);
    pair.drain(End::Server);
    assert!(pair.server.events.iter().any(moved));
    assert_eq!(pair.server.endpoint.path(sa).unwrap().remote, source);
    let (sa, now) = (pair.client.sa(), pair.now);
    pair.client.endpoint.mapping_changed(sa, source, now);
    pair.drain(End::Client);
    assert!(
        !pair.client.events.iter().any(moved),
        "who is behind the NAT follows nobody"
    );
}

#[test]
fn a_replayed_message_from_elsewhere_moves_nobody() {
    let mut pair = behind_nat(NatTraversal::Auto);
    let (sa, now) = (pair.client.sa(), pair.now);
    pair.client.endpoint.check_liveness(sa, now);
    pair.settle();
    let (_, datagram) = pair
        .sent
        .iter()
        .rfind(|(from, _)| *from == End::Client)
        .unwrap()
        .clone();
    let mut elsewhere = pair.translate(End::Client, datagram);
    elsewhere.remote = address("203.0.113.66", 4500);
    pair.deliver(End::Server, &elsewhere);
    pair.drain(End::Server);
    assert!(
        !pair
            .server
            .events
            .iter()
            .any(|event| matches!(event, IkeEvent::PathChanged(_)))
    );
}

#[test]
fn without_a_nat_nobody_follows() {
    let mut pair = Pair::established();
    let (sa, now) = (pair.client.sa(), pair.now);
    pair.nat = true;
    pair.client.endpoint.check_liveness(sa, now);
    pair.run(Duration::from_secs(1));
    assert!(
        !pair
            .server
            .events
            .iter()
            .any(|event| matches!(event, IkeEvent::PathChanged(_)))
    );
}

/// When keepalives were due at an end, in seconds from now on, within a minute and a bit.
fn keepalives(pair: &mut Pair, end: End) -> Vec<u64> {
    let start = pair.now;
    let mut due = Vec::new();
    for _ in 0..65 {
        pair.host(end).events.clear();
        pair.run(Duration::from_secs(1));
        let now = pair.now;
        for event in &pair.host(end).events {
            if let IkeEvent::KeepaliveDue(path) = event {
                assert!(path.encapsulated);
                due.push(now.since(start).as_secs());
            }
        }
    }
    due
}

#[test]
fn who_is_behind_a_nat_keeps_it_awake_and_nobody_else_does() {
    let mut pair = behind_nat(NatTraversal::Auto);
    // Settling took 20 seconds.
    assert_eq!(keepalives(&mut pair, End::Client), [1, 21, 41, 61]);
    assert_eq!(keepalives(&mut pair, End::Server), []);
}

#[test]
fn an_ike_message_puts_the_keepalive_off() {
    let mut pair = behind_nat(NatTraversal::Auto);
    pair.run(Duration::from_secs(15));
    let (sa, now) = (pair.client.sa(), pair.now);
    pair.client.endpoint.check_liveness(sa, now);
    pair.drain(End::Client);
    assert_eq!(keepalives(&mut pair, End::Client), [20, 40, 60]);
}

#[test]
fn without_a_nat_or_a_wish_there_are_no_keepalives() {
    let mut plain = Pair::established();
    assert_eq!(keepalives(&mut plain, End::Client), []);
    let mut silent = Pair::with(|client| client.path.nat_keepalive = None, |_| ());
    silent.nat = true;
    silent.connect();
    silent.settle();
    assert_eq!(keepalives(&mut silent, End::Client), []);
}
