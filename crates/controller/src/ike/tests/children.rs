//! CREATE_CHILD_SA, one side at a time.

use epochgate_ike_wire::{Nonce, Proposal, Protocol, Transform};

use super::*;
use crate::ike::payloads::notify;
use crate::ike::proposal;

fn with_groups(client: &'static [Group], server: &'static [Group]) -> Pair {
    let mut pair = Pair::with(
        |config| config.esp.groups = client.to_vec(),
        |config| config.esp.groups = server.to_vec(),
    );
    pair.connect();
    pair.settle();
    pair.sent.clear();
    pair
}

impl Pair {
    pub(super) fn rekey(&mut self, end: End) {
        let now = self.now;
        let host = self.host(end);
        let (sa, child) = (host.sa(), host.child().id);
        host.endpoint.rekey_child(sa, child, now);
    }

    fn delete(&mut self, end: End, child: ChildId) {
        let now = self.now;
        let host = self.host(end);
        host.endpoint.delete_child(host.sa.unwrap(), child, now);
    }
}

fn refusals(host: &Host) -> Vec<ChildError> {
    host.events
        .iter()
        .filter_map(|event| match event {
            IkeEvent::ChildRefused { error, .. } => Some(*error),
            _ => None,
        })
        .collect()
}

#[test]
fn either_side_rekeys_with_and_without_a_key_exchange() {
    for groups in [&[][..], &[Group::X25519], &[Group::P256], &[Group::P384]] {
        for end in [End::Client, End::Server] {
            let mut pair = with_groups(groups, groups);
            let old = [pair.client.child().clone(), pair.server.child().clone()];
            pair.rekey(end);
            pair.settle();
            // N(REKEY_SA), SA, Ni, [KEi,] TSi, TSr and SA, Nr, [KEr,] TSi, TSr
            assert_eq!(pair.sent.len(), 2);
            pair.assert_same_child();
            let new = [pair.client.child(), pair.server.child()];
            for (old, new) in old.iter().zip(new) {
                assert_eq!(new.replaces, Some(old.id));
                assert_ne!(new.inbound, old.inbound);
                assert_ne!(new.inbound_key, old.inbound_key);
                assert_ne!(new.outbound_key, old.outbound_key);
            }
            // Nobody deletes the old one before it is told to.
            assert_eq!(pair.client.children.len(), 2);
            assert_eq!(pair.server.children.len(), 2);
        }
    }
}

#[test]
fn a_deleted_child_goes_at_both_ends() {
    for end in [End::Client, End::Server] {
        let mut pair = Pair::established();
        let (ours, theirs) = {
            let host = pair.host(end);
            let ours = host.child().id;
            (ours, pair.host(end.other()).child().id)
        };
        pair.delete(end, ours);
        pair.settle();
        assert!(pair.client.children.is_empty() && pair.server.children.is_empty());
        let last = pair.host(end).events.last().cloned();
        assert!(matches!(last, Some(IkeEvent::ChildDeleted(id)) if id == ours));
        let last = pair.host(end.other()).events.last().cloned();
        assert!(matches!(last, Some(IkeEvent::ChildDeletedByPeer(id)) if id == theirs));
        // Once more is no mistake, and no message.
        pair.sent.clear();
        pair.delete(end, ours);
        pair.settle();
        assert!(pair.sent.is_empty());
    }
}

#[test]
fn twenty_rekeys_in_a_row_stay_in_step() {
    let mut pair = with_groups(&[Group::X25519], &[Group::X25519]);
    for number in 0..20 {
        let end = if number % 2 == 0 {
            End::Client
        } else {
            End::Server
        };
        let old = pair.host(end).child().id;
        pair.rekey(end);
        pair.run(Duration::from_millis(100));
        pair.delete(end, old);
        pair.run(Duration::from_millis(100));
        pair.assert_same_child();
        assert_eq!(pair.client.children.len(), 1);
        assert_eq!(pair.server.children.len(), 1);
    }
    assert_eq!(pair.client.endpoint.counters().retransmissions, 0);
}

#[test]
fn a_lost_response_is_repeated_and_makes_no_second_child() {
    let mut pair = with_groups(&[], &[]);
    pair.lose_responses(End::Server, ExchangeType::CreateChildSa, 2);
    pair.rekey(End::Client);
    pair.settle();
    pair.assert_same_child();
    assert_eq!(pair.server.children.len(), 2);
    assert_eq!(pair.server.endpoint.counters().repeated, 2);
    let responses: Vec<_> = pair
        .sent
        .iter()
        .filter(|(from, _)| *from == End::Server)
        .map(|(_, datagram)| &datagram.payload)
        .collect();
    assert_eq!(responses.len(), 3);
    assert!(responses.iter().all(|octets| *octets == responses[0]));
}

#[test]
fn doubled_and_late_messages_change_nothing() {
    let mut pair = with_groups(&[Group::X25519], &[Group::X25519]);
    for (from, response) in [(End::Client, false), (End::Server, true)] {
        let exchange = ExchangeType::CreateChildSa;
        pair.rule(from, exchange, response, Fate::Double, 1);
        pair.rekey(End::Client);
        pair.settle();
        let late = Fate::Delay(Duration::from_secs(1));
        pair.rule(from, exchange, response, late, 1);
        pair.rekey(End::Client);
        pair.settle();
        pair.assert_same_child();
    }
    assert_eq!(pair.client.children.len(), 5);
    assert_eq!(pair.server.children.len(), 5);
}

#[test]
fn a_wrong_guess_of_the_group_is_corrected_by_either_side() {
    for end in [End::Client, End::Server] {
        let (many, one): (&[Group], &[Group]) = (&[Group::P384, Group::X25519], &[Group::X25519]);
        let mut pair = match end {
            End::Client => with_groups(many, one),
            End::Server => with_groups(one, many),
        };
        pair.rekey(end);
        pair.settle();
        assert_eq!(pair.sent.len(), 4);
        pair.assert_same_child();
    }
}

#[test]
fn a_side_that_demands_a_key_exchange_gets_one_or_none_at_all() {
    for (client, server) in [
        (&[][..], &[Group::X25519][..]),
        (&[Group::X25519], &[]),
        (&[Group::X25519], &[Group::P256]),
    ] {
        let demand = |groups: &[Group]| {
            let groups = groups.to_vec();
            move |config: &mut TunnelConfig| {
                config.esp.groups = groups;
                config.esp.pfs = Pfs::Require;
            }
        };
        let mut pair = Pair::with(demand(client), demand(server));
        pair.connect();
        pair.settle();
        pair.rekey(End::Client);
        pair.settle();
        assert_eq!(refusals(&pair.client), [ChildError::NoProposal]);
        assert_eq!(pair.client.children.len(), 1);
        assert_eq!(pair.server.children.len(), 1);
    }
}

#[test]
fn a_side_that_only_wishes_for_a_key_exchange_rekeys_with_one_that_has_none() {
    for (client, server) in [
        (&[][..], &[Group::X25519][..]),
        (&[Group::X25519], &[]),
        (&[Group::X25519], &[Group::P256]),
    ] {
        for end in [End::Client, End::Server] {
            let mut pair = with_groups(client, server);
            pair.rekey(end);
            pair.settle();
            assert_eq!(pair.sent.len(), 2);
            pair.assert_same_child();
        }
    }
}

#[test]
fn extended_sequence_numbers_are_used_where_both_ends_have_them() {
    use crate::config::Esn::{Off, Prefer, Require};
    for (client, server, agreed) in [
        (Prefer, Prefer, Some(true)),
        (Prefer, Require, Some(true)),
        (Off, Prefer, Some(false)),
        (Prefer, Off, Some(false)),
        (Off, Off, Some(false)),
        (Off, Require, None),
        (Require, Off, None),
    ] {
        let mut pair = Pair::with(
            |config| config.esp.esn = client,
            |config| config.esp.esn = server,
        );
        pair.connect();
        pair.settle();
        let children = [&pair.client, &pair.server].map(|host| {
            let newest = host.children.values().next();
            newest.map(|child| child.extended_sequence)
        });
        assert_eq!(children, [agreed; 2]);
    }
}

#[test]
fn a_rekey_that_the_kernel_refuses_is_temporary() {
    let mut pair = with_groups(&[], &[]);
    pair.server.installs = Some(false);
    pair.rekey(End::Client);
    pair.settle();
    assert_eq!(refusals(&pair.client), [ChildError::Temporary]);
    pair.server.installs = Some(true);
    pair.rekey(End::Client);
    pair.settle();
    pair.assert_same_child();
}

#[test]
fn a_new_child_replaces_none() {
    let mut pair = with_groups(&[], &[]);
    let (sa, now) = (pair.client.sa(), pair.now);
    pair.client.endpoint.new_child(sa, TUNNEL, now);
    pair.settle();
    pair.assert_same_child();
    assert_eq!(pair.client.child().replaces, None);
    assert_eq!(pair.server.children.len(), 2);
}

#[test]
fn orders_wait_for_the_window() {
    let mut pair = with_groups(&[], &[]);
    let (sa, now, old) = (pair.client.sa(), pair.now, pair.client.child().id);
    pair.client.endpoint.check_liveness(sa, now);
    pair.client.endpoint.rekey_child(sa, old, now);
    pair.client.endpoint.rekey_child(sa, old, now);
    pair.client.endpoint.new_child(sa, TUNNEL, now);
    pair.settle();
    assert_eq!(
        pair.ladder(),
        [
            "--> INFORMATIONAL request 2",
            "<-- INFORMATIONAL response 2",
            "--> CREATE_CHILD_SA request 3",
            "<-- CREATE_CHILD_SA response 3",
            "--> CREATE_CHILD_SA request 4",
            "<-- CREATE_CHILD_SA response 4",
        ]
    );
}

#[test]
fn child_sas_of_one_ike_sa_are_limited() {
    let limits = Limits {
        children_max: 3,
        ..Limits::default()
    };
    let mut pair = Pair::limited(limits, |_| (), |_| ());
    pair.connect();
    pair.settle();
    for _ in 0..4 {
        let (sa, now) = (pair.client.sa(), pair.now);
        pair.client.endpoint.new_child(sa, TUNNEL, now);
        pair.settle();
    }
    assert_eq!(pair.server.children.len(), 3);
    assert_eq!(refusals(&pair.client), [ChildError::NoAdditionalSas; 2]);
}

#[test]
fn a_child_that_the_peer_has_forgotten_is_reported() {
    let mut pair = with_groups(&[], &[]);
    // The peer forgets it without telling.
    let (sa, now) = (pair.server.sa(), pair.now);
    pair.server.endpoint.step(sa, now, |sa, _| match sa {
        IkeSa::Established(mut it) => {
            it.children.clear();
            Some(IkeSa::Established(it))
        }
        other => Some(other),
    });
    let old = pair.client.child().id;
    pair.rekey(End::Client);
    pair.settle();
    let last = pair.client.events.last();
    assert!(matches!(last, Some(IkeEvent::ChildUnknownToPeer(id)) if *id == old));
}

#[test]
fn transport_mode_is_answered_in_tunnel_mode() {
    let mut pair = Pair::established();
    let networks = config(End::Client);
    let answer = pair.ask(
        End::Client,
        ExchangeType::CreateChildSa,
        &[
            Payload::Notify(epochgate_ike_wire::Notify::new(
                NotifyType::USE_TRANSPORT_MODE,
                [],
            )),
            Payload::SecurityAssociation(proposal::offer_esp(
                &networks.esp,
                proposal::ChildKeyExchange::AsConfigured,
                0x1234_5678,
            )),
            Payload::Nonce(Nonce::new(vec![1; 32]).unwrap()),
            Payload::TrafficSelectorsInitiator(crate::ike::selectors::from_networks(
                &networks.local_traffic,
            )),
            Payload::TrafficSelectorsResponder(crate::ike::selectors::from_networks(
                &networks.remote_traffic,
            )),
        ],
    );
    assert_eq!(
        notifies(&answer),
        [NotifyType::ESP_TFC_PADDING_NOT_SUPPORTED]
    );
    assert!(matches!(answer[0], Payload::SecurityAssociation(_)));
}

/// The server answers the client's request with USE_TRANSPORT_MODE, which was not in it.
fn answer_in_transport_mode(pair: &mut Pair) {
    let (now, sa, child) = (pair.now, pair.server.sa(), pair.server.child().id);
    let host = &mut pair.server;
    host.endpoint.step(sa, now, |sa, _| {
        let IkeSa::Established(mut it) = sa else {
            panic!("not established")
        };
        let unasked = notify(NotifyType::USE_TRANSPORT_MODE);
        it.kept.as_mut().unwrap().accepted.push(unasked);
        Some(IkeSa::Established(it))
    });
    host.endpoint.child_ready(sa, child, true, now);
    pair.settle();
}

#[test]
fn transport_mode_that_was_not_asked_for_is_refused_and_the_child_deleted() {
    let mut pair = Pair::established();
    pair.server.installs = None;
    let (old, sa, now) = (pair.client.child().id, pair.client.sa(), pair.now);
    for replaces in [None, Some(old)] {
        let before = pair.client.events.len();
        match replaces {
            None => pair.client.endpoint.new_child(sa, TUNNEL, now),
            Some(old) => pair.client.endpoint.rekey_child(sa, old, now),
        }
        pair.run(Duration::from_millis(15));
        answer_in_transport_mode(&mut pair);
        let [
            IkeEvent::ChildRefused {
                replaces: told,
                error,
            },
        ] = pair.client.events[before..]
        else {
            panic!("{:?}", &pair.client.events[before..])
        };
        assert_eq!((told, error), (replaces, ChildError::Nonsense));
        let deleted = pair.server.events.last();
        assert!(matches!(deleted, Some(IkeEvent::ChildDeletedByPeer(_))));
        // What was there stays.
        assert!(pair.client.is_established() && pair.server.is_established());
        assert_eq!(
            (pair.client.child().id, pair.client.children.len()),
            (old, 1)
        );
        pair.assert_same_child();
    }
}

#[test]
fn a_first_child_in_transport_mode_is_refused_and_the_ike_sa_stays() {
    let mut pair = Pair::new();
    pair.server.installs = None;
    pair.connect();
    pair.run(Duration::from_millis(35));
    answer_in_transport_mode(&mut pair);
    assert_eq!(refusals(&pair.client), [ChildError::Nonsense]);
    assert!(pair.client.children.is_empty() && pair.server.children.is_empty());
    assert!(pair.client.is_established() && pair.server.is_established());
}

#[test]
fn what_is_unknown_in_a_proposal_is_not_accepted() {
    let networks = config(End::Client);
    let offer = |transform| {
        let mut offer = proposal::offer_esp(
            &networks.esp,
            proposal::ChildKeyExchange::AsConfigured,
            0x1234_5678,
        )
        .remove(0);
        offer.transforms.push(transform);
        offer
    };
    let choose = |offer: Proposal| {
        let exchange = proposal::ChildKeyExchange::AsConfigured;
        proposal::choose_esp(&networks.esp, exchange, &[offer], None)
    };
    // A type that nobody has heard of makes the whole proposal unacceptable (RFC 7296 §3.3.6).
    assert!(
        choose(offer(Transform::Unknown {
            kind: epochgate_ike_wire::TransformType(77),
            id: 1,
            attributes: vec![],
        }))
        .is_none()
    );
    // An integrity algorithm beside an AEAD cipher only as "none".
    assert!(
        choose(offer(Transform::Integrity(
            epochgate_ike_wire::IntegrityId::HMAC_SHA2_256_128
        )))
        .is_none()
    );
    let none = choose(offer(Transform::Integrity(
        epochgate_ike_wire::IntegrityId::NONE,
    )));
    assert_eq!(none.unwrap().proposal.protocol, Protocol::Esp);
    // More of a known type is no harm.
    assert!(choose(offer(Transform::Esn(true))).is_some());
}
