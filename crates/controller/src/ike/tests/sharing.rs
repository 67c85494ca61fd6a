//! Several Child SAs of several tunnels on one IKE SA (RFC 7296 §1.3.1).
//!
//! ```text
//!   10.1.0.0/16 ─┬─ client ═══ one IKE SA ═══ server ─┬─ 10.2.0.0/16   TUNNEL
//!   10.3.0.0/16 ─┘                                    └─ 10.4.0.0/16   ANNEX
//! ```

use super::*;
use crate::config::AuthConfig;

/// The second tunnel of each end.
const ANNEX: TunnelId = TunnelId(2);

/// Another pair of networks between the same ends.
fn annex(end: End) -> TunnelConfig {
    let (client_net, server_net) = (
        vec!["10.3.0.0/16".parse().unwrap()],
        vec!["10.4.0.0/16".parse().unwrap()],
    );
    let (local_traffic, remote_traffic) = match end {
        End::Client => (client_net, server_net),
        End::Server => (server_net, client_net),
    };
    TunnelConfig {
        name: crate::config::TunnelName("annex".into()),
        local_traffic,
        remote_traffic,
        ..config(end)
    }
}

/// Two tunnels at each end, the first one established.
fn pair() -> Pair {
    let mut pair = Pair::new();
    for end in [End::Client, End::Server] {
        let tunnels = [(TUNNEL, config(end)), (ANNEX, annex(end))];
        let tunnels = tunnels.map(|(id, config)| (id, Arc::new(config)));
        pair.host(end).endpoint.configure(BTreeMap::from(tunnels));
    }
    pair.connect();
    pair.settle();
    assert!(pair.client.is_established() && pair.server.is_established());
    pair
}

/// The client's second tunnel has a Child SA on the IKE SA of the first.
fn joined() -> Pair {
    let mut pair = pair();
    join(&mut pair);
    pair
}

fn join(pair: &mut Pair) {
    let (now, sa) = (pair.now, pair.client.sa());
    let endpoint = &mut pair.client.endpoint;
    assert_eq!(endpoint.join(ANNEX, None), Some(sa));
    endpoint.new_child(sa, ANNEX, now);
    pair.settle();
}

/// What the second tunnel of an end has been told of its Child SAs.
fn children(host: &Host) -> Vec<&Child> {
    let told = host.others.iter();
    told.filter_map(|(tunnel, event)| match event {
        IkeEvent::Child(child) if *tunnel == ANNEX => Some(child.as_ref()),
        _ => None,
    })
    .collect()
}

fn told(host: &Host, what: impl Fn(&IkeEvent) -> bool) -> bool {
    let mut told = host.others.iter();
    told.any(|(tunnel, event)| *tunnel == ANNEX && what(event))
}

fn is_over(event: &IkeEvent, why: &CloseReason) -> bool {
    matches!(event, IkeEvent::Closed(reason) if reason == why)
}

#[test]
fn a_second_tunnel_to_the_same_peer_gets_its_child_sa_on_the_same_ike_sa() {
    let pair = joined();
    assert_eq!(
        (pair.client.endpoint.len(), pair.server.endpoint.len()),
        (1, 1)
    );
    let (ours, theirs) = (children(&pair.client), children(&pair.server));
    let ([ours], [theirs]) = (&ours[..], &theirs[..]) else {
        panic!("{ours:?} {theirs:?}")
    };
    assert_eq!(
        (ours.outbound, ours.inbound),
        (theirs.inbound, theirs.outbound)
    );
    assert_eq!(ours.inbound_key, theirs.outbound_key);
    assert_eq!(
        ours.remote_selectors,
        super::super::selectors::from_networks(&annex(End::Client).remote_traffic)
    );
    // The first tunnel heard nothing of it.
    assert_eq!(
        (pair.client.children.len(), pair.server.children.len()),
        (1, 1)
    );
    assert!(told(&pair.server, |event| matches!(
        event,
        IkeEvent::Joined(_)
    )));
}

#[test]
fn a_tunnel_that_comes_during_the_handshake_waits_for_its_end() {
    let mut pair = pair();
    let (now, first) = (pair.now, pair.client.sa());
    pair.client.endpoint.leave(first, TUNNEL, now);
    pair.settle();
    pair.connect();
    let sa = pair.client.sa();
    assert_eq!(pair.client.endpoint.join(ANNEX, Some(first)), Some(sa));
    assert!(!told(&pair.client, |event| matches!(
        event,
        IkeEvent::Joined(_)
    )));
    pair.settle();
    assert!(told(&pair.client, |event| matches!(
        event,
        IkeEvent::Joined(_)
    )));
}

#[test]
fn a_tunnel_joins_only_what_is_newer_than_its_own() {
    let mut pair = pair();
    let sa = pair.client.sa();
    assert_eq!(pair.client.endpoint.join(ANNEX, Some(sa)), None);
    assert_eq!(pair.client.endpoint.join(TUNNEL, None), None);
}

#[test]
fn a_tunnel_with_another_key_does_not_join() {
    let mut pair = pair();
    let other = TunnelConfig {
        auth: AuthConfig::psk(Secret::from(&b"another one altogether"[..])),
        ..annex(End::Client)
    };
    let tunnels = [(TUNNEL, config(End::Client)), (ANNEX, other)];
    let tunnels = tunnels.map(|(id, config)| (id, Arc::new(config)));
    pair.client.endpoint.configure(BTreeMap::from(tunnels));
    assert_eq!(pair.client.endpoint.join(ANNEX, None), None);
}

#[test]
fn either_end_rekeys_the_second_tunnels_child_sa_as_that_tunnels() {
    let mut pair = joined();
    let (now, sa) = (pair.now, pair.client.sa());
    let old = children(&pair.client)[0].id;
    pair.client.endpoint.rekey_child(sa, old, now);
    pair.settle();
    let (now, sa) = (pair.now, pair.server.sa());
    let newer = children(&pair.server)[1].id;
    pair.server.endpoint.rekey_child(sa, newer, now);
    pair.settle();
    let (ours, theirs) = (children(&pair.client), children(&pair.server));
    assert_eq!((ours.len(), theirs.len()), (3, 3));
    assert_eq!(ours[1].replaces, Some(ours[0].id));
    assert_eq!(ours[2].replaces, Some(ours[1].id));
    assert_eq!(ours[2].inbound, theirs[2].outbound);
    assert_eq!(
        (pair.client.children.len(), pair.server.children.len()),
        (1, 1)
    );
}

#[test]
fn a_tunnel_that_leaves_takes_only_its_own_child_sas_along() {
    let mut pair = joined();
    let (now, sa) = (pair.now, pair.client.sa());
    // The one that made the IKE SA: its sibling inherits it.
    pair.client.endpoint.leave(sa, TUNNEL, now);
    pair.settle();
    assert_eq!(pair.client.closed(), Some(&CloseReason::Left));
    assert_eq!(
        (pair.client.children.len(), pair.server.children.len()),
        (0, 0)
    );
    assert!(pair.client.is_established() && pair.server.is_established());
    assert!(!told(&pair.server, |event| matches!(
        event,
        IkeEvent::Closed(_) | IkeEvent::ChildDeletedByPeer(_)
    )));
    // The last one closes it.
    let now = pair.now;
    pair.client.endpoint.leave(sa, ANNEX, now);
    pair.settle();
    assert!(told(&pair.client, |event| is_over(
        event,
        &CloseReason::Asked
    )));
    assert!(told(&pair.server, |event| is_over(
        event,
        &CloseReason::DeletedByPeer
    )));
    assert!(!pair.client.is_established() && !pair.server.is_established());
}

#[test]
fn the_end_of_the_ike_sa_is_told_to_each_of_its_tunnels() {
    let mut pair = joined();
    let (now, sa) = (pair.now, pair.server.sa());
    pair.server.endpoint.close(sa, now);
    pair.settle();
    assert_eq!(pair.client.closed(), Some(&CloseReason::DeletedByPeer));
    assert!(told(&pair.client, |event| is_over(
        event,
        &CloseReason::DeletedByPeer
    )));
    assert_eq!(pair.server.closed(), Some(&CloseReason::Asked));
    assert!(told(&pair.server, |event| is_over(
        event,
        &CloseReason::Asked
    )));
}

#[test]
fn what_is_answered_after_its_tunnel_has_left_is_deleted() {
    let mut pair = pair();
    let (now, sa) = (pair.now, pair.client.sa());
    pair.lose_responses(End::Server, ExchangeType::CreateChildSa, 1);
    assert_eq!(pair.client.endpoint.join(ANNEX, None), Some(sa));
    pair.client.endpoint.new_child(sa, ANNEX, now);
    pair.run(Duration::from_millis(100));
    let now = pair.now;
    pair.client.endpoint.leave(sa, ANNEX, now);
    pair.settle();
    assert!(children(&pair.client).is_empty());
    assert!(told(&pair.server, |event| matches!(
        event,
        IkeEvent::ChildDeletedByPeer(_)
    )));
    assert!(pair.client.is_established() && pair.server.is_established());
}

#[test]
fn selectors_of_no_tunnel_are_refused_and_the_ike_sa_stays() {
    let mut pair = pair();
    let stranger = TunnelConfig {
        remote_traffic: vec!["10.99.0.0/16".parse().unwrap()],
        ..annex(End::Client)
    };
    let tunnels = [(TUNNEL, config(End::Client)), (ANNEX, stranger)];
    let tunnels = tunnels.map(|(id, config)| (id, Arc::new(config)));
    pair.client.endpoint.configure(BTreeMap::from(tunnels));
    join(&mut pair);
    assert!(told(&pair.client, |event| matches!(
        event,
        IkeEvent::ChildRefused {
            error: ChildError::Selectors,
            ..
        }
    )));
    assert!(pair.client.is_established() && pair.server.is_established());
}

#[test]
fn initial_contact_ends_the_ike_sas_of_siblings_too() {
    let mut pair = joined();
    let (now, sa) = (pair.now, pair.server.sa());
    pair.server.endpoint.forget(sa, TUNNEL);
    pair.settle();
    assert!(told(&pair.server, |event| matches!(
        event,
        IkeEvent::Closed(_)
    )));
    // And nobody says so while a sibling is connected.
    let mut pair = self::pair();
    let (local, remote) = (address(CLIENT, 500), address(SERVER, 500));
    pair.client
        .endpoint
        .connect(ANNEX, local, remote, true, now);
    pair.settle();
    let admitted = pair
        .server
        .others
        .iter()
        .find_map(|(_, event)| match event {
            IkeEvent::Established(peer) => Some(peer.initial_contact),
            _ => None,
        });
    assert_eq!(admitted, Some(false));
}
