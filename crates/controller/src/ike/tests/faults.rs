//! The classes of fault that IKE daemons had in recent years, each tried here: lengths that
//! underflow, messages out of the state machine's order, assertions that a peer can reach, use after
//! delete. The peer of these tests has the keys of a real IKE SA and no manners.

use epochgate_ike_wire::{
    Authentication, Delete, Identification, Identity as WireIdentity, Nonce, Notify, PayloadType,
    Proposal, Protocol, Transform, TransformType, limits,
};

use super::super::fuzzing::Forgery;
use super::super::limits::INIT_REQUEST_MAX;
use super::*;

/// Octets of IKE header and generic payload header.
const HEADERS: usize = limits::HEADER_LEN + limits::PAYLOAD_HEADER_LEN;

/// A pair whose client waits for the answer to an IKE_AUTH request that got lost: keys on both ends,
/// and nobody authenticated.
fn before_authentication() -> Pair {
    let mut pair = Pair::new();
    pair.lose_requests(End::Client, ExchangeType::IkeAuth, 1);
    pair.connect();
    pair.run(Duration::from_millis(100));
    assert_eq!(pair.server.endpoint.len(), 1);
    pair
}

/// Delivers a message that `from` could have sealed. `ahead` is added to the message ID that is due
/// (of a response: to 0).
fn forge(
    pair: &mut Pair,
    from: End,
    (exchange, response, ahead): (ExchangeType, bool, u32),
    payloads: &[Payload],
) {
    let forgery = Forgery {
        sa: 0,
        exchange,
        response,
        ahead,
        counted: false,
        answers: 0,
        payloads,
        limit: None,
    };
    let datagrams = pair.host(from).endpoint.forged(&forgery).unwrap();
    for datagram in datagrams {
        let arrived = pair.translate(from, datagram);
        pair.deliver(from.other(), &arrived);
    }
    pair.drain(from.other());
}

/// An established pair whose messages are never fragmented: what is not whole is limited to less than
/// a datagram.
fn unfragmented() -> Pair {
    let whole = |config: &mut TunnelConfig| config.path.fragment_size = None;
    let mut pair = Pair::with(whole, whole);
    pair.connect();
    pair.settle();
    pair
}

/// The payloads that ask for a Child SA, as an honest client would send them.
fn child_request() -> Vec<Payload> {
    let proposal = Proposal {
        number: 1,
        protocol: Protocol::Esp,
        spi: vec![0xc0, 0, 0, 1],
        transforms: vec![
            Transform::Encryption {
                id: epochgate_ike_wire::EncryptionId::AES_GCM_16,
                key_bits: Some(256),
            },
            Transform::Esn(false),
        ],
    };
    let selectors =
        |network: &str| super::super::selectors::from_networks(&[network.parse().unwrap()]);
    vec![
        Payload::SecurityAssociation(vec![proposal]),
        Payload::Nonce(Nonce::new(vec![1; 32]).unwrap()),
        Payload::TrafficSelectorsInitiator(selectors("10.1.0.0/16")),
        Payload::TrafficSelectorsResponder(selectors("10.2.0.0/16")),
    ]
}

/// The client's first message, and a server that has not seen it.
fn first_message() -> (Pair, Datagram) {
    let mut pair = Pair::new();
    pair.connect();
    pair.drain(End::Client);
    pair.network.clear();
    let datagram = pair.sent[0].1.clone();
    let arrived = pair.translate(End::Client, datagram);
    (pair, arrived)
}

/// Where the payloads of a message begin.
fn payload_offsets(octets: &[u8]) -> Vec<usize> {
    let mut offsets = Vec::new();
    let mut at = limits::HEADER_LEN;
    while at < octets.len() {
        offsets.push(at);
        at += usize::from(u16::from_be_bytes([octets[at + 2], octets[at + 3]]));
    }
    offsets
}

#[test]
fn a_length_below_its_own_header_is_refused_before_there_are_keys() {
    let (mut pair, first) = first_message();
    let offsets = payload_offsets(&first.payload);
    assert!(offsets.len() >= 3);
    // Generic payload headers; and inside SA: the proposal's and the first transform's.
    let lengths = offsets.iter().map(|at| at + 2);
    let inside = [HEADERS + 2, HEADERS + 8 + 2];
    let mut tried = 0;
    for at in lengths.chain(inside) {
        for length in 0..8_u16 {
            let mut datagram = first.clone();
            datagram.payload[at..at + 2].copy_from_slice(&length.to_be_bytes());
            pair.deliver(End::Server, &datagram);
            tried += 1;
        }
    }
    assert_eq!(pair.server.endpoint.counters().malformed, tried);
    assert_eq!(pair.server.endpoint.len(), 0);
}

#[test]
fn an_encrypted_payload_too_short_for_iv_and_icv_is_refused_as_forged() {
    let mut pair = Pair::established();
    let spis = pair.sent[0].1.payload[..8].to_vec();
    let responder = pair.sent[1].1.payload[8..16].to_vec();
    // SK and, beside its two counters, SKF.
    for (kind, fields) in [(46_u8, 0_usize), (53, 4)] {
        for body in 0..=24 {
            let mut payload = [spis.clone(), responder.clone()].concat();
            payload.extend([kind, 0x20, 37, 0x08, 0, 0, 0, 2]);
            let length = HEADERS + fields + body;
            payload.extend((length as u32).to_be_bytes());
            payload.extend([0, 0]);
            payload.extend(((length - limits::HEADER_LEN) as u16).to_be_bytes());
            payload.extend([0, 1, 0, 1].iter().take(fields));
            payload.resize(length, 0xaa);
            let datagram = Datagram {
                local: address(SERVER, 500),
                remote: address(CLIENT, 500),
                payload,
            };
            pair.deliver(End::Server, &datagram);
        }
    }
    let counters = pair.server.endpoint.counters();
    assert_eq!((counters.forged, counters.malformed), (50, 0));
    pair.assert_same_child();
}

#[test]
fn a_child_sa_asked_for_before_authentication_is_not_made() {
    let mut pair = before_authentication();
    for ahead in [u32::MAX, 0, 1] {
        let exchange = ExchangeType::CreateChildSa;
        forge(
            &mut pair,
            End::Client,
            (exchange, false, ahead),
            &child_request(),
        );
        let delete = [Payload::Delete(Delete::IkeSa)];
        let exchange = ExchangeType::Informational;
        forge(&mut pair, End::Client, (exchange, false, ahead), &delete);
    }
    assert!(pair.server.events.is_empty() && pair.server.children.is_empty());
    assert_eq!(pair.server.endpoint.len(), 1);
    // The honest IKE_AUTH that comes at last is answered as if nothing had been.
    pair.settle();
    assert!(pair.server.is_established());
    pair.assert_same_child();
}

#[test]
fn a_responder_that_is_not_authenticated_may_ask_for_nothing() {
    let mut pair = before_authentication();
    for exchange in [ExchangeType::CreateChildSa, ExchangeType::Informational] {
        for ahead in [0, 1] {
            forge(
                &mut pair,
                End::Server,
                (exchange, false, ahead),
                &child_request(),
            );
        }
    }
    assert!(pair.client.events.is_empty() && pair.client.children.is_empty());
    assert!(!pair.client.is_established());
}

/// What the client makes of an IKE_AUTH response with these payloads beside an acceptable Child SA.
fn answered_with(payloads: Vec<Payload>) -> Pair {
    let mut pair = before_authentication();
    let mut all = payloads;
    all.extend(child_request());
    forge(
        &mut pair,
        End::Server,
        (ExchangeType::IkeAuth, true, 1),
        &all,
    );
    assert!(pair.client.children.is_empty());
    assert!(!pair.client.is_established());
    assert!(matches!(
        pair.client.closed(),
        Some(CloseReason::AuthenticationFailed(_) | CloseReason::Failed(_))
    ));
    pair
}

fn server_id() -> Payload {
    let id = WireIdentity::Fqdn("server.example".into());
    Payload::IdResponder(Identification::new(id))
}

#[test]
fn an_eap_success_does_not_stand_for_authentication() {
    // EAP-Success, identifier 1 (RFC 3748 §4.2), with and without an identity.
    let success = || Payload::Eap(vec![3, 1, 0, 4]);
    answered_with(vec![success()]);
    answered_with(vec![server_id(), success()]);
}

#[test]
fn an_answer_without_proof_of_identity_installs_nothing() {
    answered_with(Vec::new());
    answered_with(vec![server_id()]);
    for length in [0, 1, 31, 32, 33, 5000] {
        let auth = Payload::Authentication(Authentication {
            method: epochgate_ike_wire::AuthMethod::SHARED_KEY_MIC,
            data: vec![0; length],
        });
        answered_with(vec![server_id(), auth]);
    }
}

#[test]
fn an_authentication_method_for_which_there_is_no_secret_is_refused() {
    let mut pair = Pair::new();
    pair.lose_requests(End::Client, ExchangeType::IkeAuth, 9);
    pair.connect();
    pair.run(Duration::from_millis(100));
    let id = WireIdentity::Fqdn("client.example".into());
    for method in 0..=255 {
        let mut pair = before_authentication();
        let mut all = child_request();
        all.push(Payload::IdInitiator(Identification::new(id.clone())));
        all.push(Payload::Authentication(Authentication {
            method: epochgate_ike_wire::AuthMethod(method),
            data: vec![5; 40],
        }));
        let due = u32::MAX;
        forge(
            &mut pair,
            End::Client,
            (ExchangeType::IkeAuth, false, due),
            &all,
        );
        assert!(pair.server.children.is_empty());
        assert!(pair.server.peer().is_none());
    }
}

#[test]
fn an_identity_of_sixty_thousand_octets_fills_no_log() {
    let mut pair = before_authentication();
    let id = WireIdentity::Fqdn("x\n".repeat(30_000));
    let payloads = [Payload::IdInitiator(Identification::new(id))];
    forge(
        &mut pair,
        End::Client,
        (ExchangeType::IkeAuth, false, u32::MAX),
        &payloads,
    );
    let [line] = pair.server.strangers.as_slice() else {
        panic!("{:?}", pair.server.strangers)
    };
    assert!(line.len() < 1000 && !line.contains('\n'), "{line}");
}

#[test]
fn a_rekey_of_what_is_no_child_sa_changes_nothing() {
    let notify = |protocol: u8, spi: &[u8]| {
        let mut body = vec![protocol, spi.len() as u8];
        body.extend(NotifyType::REKEY_SA.0.to_be_bytes());
        body.extend(spi);
        Payload::Unknown {
            kind: PayloadType::NOTIFY,
            critical: false,
            body,
        }
    };
    let cases: [(u8, &[u8]); 8] = [
        (0, &[]),
        (1, &[]),
        (0, &[1, 2, 3, 4]),
        (1, &[1, 2, 3, 4, 5, 6, 7, 8]),
        (2, &[1, 2, 3, 4]),
        (3, &[]),
        (3, &[0, 0, 0, 0]),
        (255, &[1, 2, 3]),
    ];
    for (protocol, spi) in cases {
        let mut pair = Pair::established();
        let mut payloads = vec![notify(protocol, spi)];
        payloads.extend(child_request());
        forge(
            &mut pair,
            End::Client,
            (ExchangeType::CreateChildSa, false, 0),
            &payloads,
        );
        assert_eq!(
            pair.server.children.len(),
            1,
            "protocol {protocol}, SPI {spi:?}"
        );
    }
}

#[test]
fn a_child_sa_named_twice_in_a_delete_is_deleted_once() {
    let mut pair = Pair::established();
    let spi = pair.client.child().inbound.0.get();
    let delete = || Payload::Delete(Delete::Esp(vec![spi, spi, 0, u32::MAX]));
    let answer = pair.ask(
        End::Client,
        ExchangeType::Informational,
        &[delete(), delete(), Payload::Delete(Delete::Ah(vec![spi]))],
    );
    let ours = pair.server.events.iter();
    let deleted = ours.filter(|it| matches!(it, IkeEvent::ChildDeletedByPeer(_)));
    assert_eq!(deleted.count(), 1);
    let [Payload::Delete(Delete::Esp(theirs))] = answer.as_slice() else {
        panic!("{answer:?}")
    };
    assert_eq!(theirs.len(), 1);
    // Once more, in a message of its own: nothing is left to delete.
    let again = pair.ask(End::Client, ExchangeType::Informational, &[delete()]);
    assert_eq!(again, []);
    assert!(pair.server.is_established());
}

#[test]
fn nothing_is_done_on_an_ike_sa_that_was_deleted() {
    let mut pair = Pair::established();
    let (events, child) = (pair.server.events.len(), pair.server.child().clone());
    let both = [
        Payload::Delete(Delete::Esp(vec![child.outbound.0.get()])),
        Payload::Delete(Delete::IkeSa),
    ];
    let exchange = ExchangeType::Informational;
    forge(&mut pair, End::Client, (exchange, false, 0), &both);
    assert!(matches!(
        pair.server.events.last(),
        Some(IkeEvent::Closed(CloseReason::DeletedByPeer))
    ));
    assert!(pair.server.events.len() > events);
    let events = pair.server.events.len();
    for ahead in 0..4 {
        for exchange in [
            ExchangeType::CreateChildSa,
            ExchangeType::Informational,
            ExchangeType::IkeAuth,
        ] {
            forge(
                &mut pair,
                End::Client,
                (exchange, false, ahead),
                &child_request(),
            );
            forge(&mut pair, End::Client, (exchange, false, ahead), &both);
        }
    }
    // The tunnel may still give orders: it has not heard yet.
    let (sa, now) = (pair.server.sa(), pair.now);
    let endpoint = &mut pair.server.endpoint;
    endpoint.rekey_child(sa, child.id, now);
    endpoint.delete_child(sa, child.id, now);
    endpoint.child_ready(sa, child.id, true, now);
    endpoint.check_liveness(sa, now);
    endpoint.close(sa, now);
    pair.drain(End::Server);
    assert_eq!(pair.server.events.len(), events);
    pair.run(Duration::from_secs(60));
    assert_eq!(pair.server.endpoint.len(), 0);
}

#[test]
fn an_unknown_critical_payload_fails_its_exchange_and_nothing_else() {
    let critical = || Payload::Unknown {
        kind: PayloadType(200),
        critical: true,
        body: vec![1, 2, 3],
    };
    let mut pair = Pair::established();
    for exchange in [ExchangeType::CreateChildSa, ExchangeType::Informational] {
        let mut payloads = child_request();
        payloads.push(critical());
        payloads.push(Payload::Delete(Delete::IkeSa));
        let answer = pair.ask(End::Client, exchange, &payloads);
        let [Payload::Notify(notify)] = answer.as_slice() else {
            panic!("{answer:?}")
        };
        assert_eq!(notify.kind, NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD);
        assert_eq!(notify.data, [200]);
        assert!(pair.server.is_established());
    }
    assert_eq!(pair.server.children.len(), 1);
}

#[test]
fn an_unknown_critical_payload_in_the_first_message_leaves_nothing_behind() {
    let (mut pair, first) = first_message();
    let mut message = Message::decode(&first.payload).unwrap();
    message.payloads.push(Payload::Unknown {
        kind: PayloadType(201),
        critical: true,
        body: Vec::new(),
    });
    let payload = message.encode().unwrap();
    pair.deliver(End::Server, &Datagram { payload, ..first });
    pair.drain(End::Server);
    let answer = Message::decode(&pair.sent.last().unwrap().1.payload).unwrap();
    assert_eq!(
        notifies(&answer.payloads),
        [NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD]
    );
    assert_eq!(pair.server.endpoint.len(), 0);
}

#[test]
fn a_payload_that_may_be_there_once_is_not_accepted_twice() {
    let (mut pair, first) = first_message();
    let message = Message::decode(&first.payload).unwrap();
    for twice in &message.payloads {
        if matches!(twice, Payload::Notify(_) | Payload::VendorId(_)) {
            continue;
        }
        let mut message = message.clone();
        message.payloads.push(twice.clone());
        let payload = message.encode().unwrap();
        pair.deliver(
            End::Server,
            &Datagram {
                payload,
                ..first.clone()
            },
        );
        pair.drain(End::Server);
        // Nor is it answered: INVALID_SYNTAX is only said under protection (RFC 7296 §3.10.1).
        assert!(pair.sent.iter().all(|(from, _)| *from == End::Client));
        assert_eq!(pair.server.endpoint.len(), 0);
    }
}

#[test]
fn a_public_value_of_any_wrong_length_is_refused() {
    for (group, right) in [(Group::X25519, 32), (Group::P256, 64), (Group::P384, 96)] {
        for length in [0, 1, right - 1, right + 1, 300, 60_000 / 20] {
            let only = |config: &mut TunnelConfig| config.ike.groups = vec![group];
            let mut pair = Pair::with(only, only);
            pair.connect();
            pair.drain(End::Client);
            pair.network.clear();
            let first = pair.translate(End::Client, pair.sent[0].1.clone());
            let mut message = Message::decode(&first.payload).unwrap();
            for payload in &mut message.payloads {
                if let Payload::KeyExchange(it) = payload {
                    it.data = vec![9; length];
                }
            }
            let payload = message.encode().unwrap();
            pair.deliver(End::Server, &Datagram { payload, ..first });
            assert_eq!(pair.server.endpoint.len(), 0, "{group:?}, {length} octets");
        }
    }
}

#[test]
fn a_public_value_of_all_zeros_is_refused() {
    let (mut pair, first) = first_message();
    let mut message = Message::decode(&first.payload).unwrap();
    for payload in &mut message.payloads {
        if let Payload::KeyExchange(it) = payload {
            it.data.fill(0);
        }
    }
    let payload = message.encode().unwrap();
    pair.deliver(End::Server, &Datagram { payload, ..first });
    assert_eq!(pair.server.endpoint.len(), 0);
}

#[test]
fn a_nonce_of_forbidden_length_is_refused() {
    for length in [0, 1, 15, 257, 2000] {
        let (mut pair, first) = first_message();
        let mut message = Message::decode(&first.payload).unwrap();
        for payload in &mut message.payloads {
            if matches!(payload, Payload::Nonce(_)) {
                *payload = Payload::Unknown {
                    kind: PayloadType::NONCE,
                    critical: false,
                    body: vec![3; length],
                };
            }
        }
        let payload = message.encode().unwrap();
        pair.deliver(End::Server, &Datagram { payload, ..first });
        assert_eq!(pair.server.endpoint.len(), 0, "{length} octets");
        assert_eq!(pair.server.endpoint.counters().malformed, 1);
    }
}

#[test]
fn a_first_message_longer_than_any_honest_one_is_not_kept() {
    let (mut pair, first) = first_message();
    let padded = |octets: usize| {
        let mut message = Message::decode(&first.payload).unwrap();
        let room = octets - first.payload.len() - limits::PAYLOAD_HEADER_LEN;
        message.payloads.push(Payload::VendorId(vec![0; room]));
        let payload = message.encode().unwrap();
        assert_eq!(payload.len(), octets);
        Datagram {
            payload,
            ..first.clone()
        }
    };
    pair.deliver(End::Server, &padded(INIT_REQUEST_MAX + 1));
    pair.deliver(End::Server, &padded(limits::MAX_MESSAGE_LEN));
    assert_eq!(pair.server.endpoint.len(), 0);
    pair.deliver(End::Server, &padded(INIT_REQUEST_MAX));
    assert_eq!(pair.server.endpoint.len(), 1);
}

#[test]
fn thousands_of_transforms_are_looked_through_and_refused() {
    let transform = |number: u16| Transform::Unknown {
        kind: TransformType(100),
        id: number,
        attributes: Vec::new(),
    };
    let proposals: Vec<Proposal> = (0..limits::MAX_PROPOSALS - 8)
        .map(|number| Proposal {
            number: number as u8 + 1,
            protocol: Protocol::Esp,
            spi: vec![0xc0, 0, 0, number as u8],
            transforms: (0..limits::MAX_TRANSFORMS as u16).map(transform).collect(),
        })
        .collect();
    let mut pair = unfragmented();
    let mut payloads = child_request();
    payloads[0] = Payload::SecurityAssociation(proposals);
    let answer = pair.ask(End::Client, ExchangeType::CreateChildSa, &payloads);
    assert_eq!(notifies(&answer), [NotifyType::NO_PROPOSAL_CHOSEN]);
    assert!(pair.server.is_established());
}

#[test]
fn as_many_selectors_as_a_message_carries_are_narrowed_to_ours() {
    let many: Vec<_> = (0..limits::MAX_TRAFFIC_SELECTORS)
        .map(|at| format!("10.1.{at}.0/24").parse().unwrap())
        .collect();
    let many = super::super::selectors::from_networks(&many);
    let mut pair = unfragmented();
    let mut payloads = child_request();
    payloads[2] = Payload::TrafficSelectorsInitiator(many);
    pair.ask(End::Client, ExchangeType::CreateChildSa, &payloads);
    assert!(pair.server.is_established());
    let selectors = &pair.server.child().remote_selectors;
    assert!(selectors.len() <= limits::MAX_TRAFFIC_SELECTORS);
}

#[test]
fn an_exchange_of_unknown_type_is_no_way_in() {
    for exchange in [34, 38, 43, 44, 200, 255].map(ExchangeType::from) {
        let mut pair = before_authentication();
        for ahead in [u32::MAX, 0] {
            forge(
                &mut pair,
                End::Client,
                (exchange, false, ahead),
                &child_request(),
            );
        }
        assert!(pair.server.children.is_empty() && pair.server.peer().is_none());
    }
}

#[test]
fn an_ike_sa_ends_before_its_message_ids_begin_again() {
    let mut pair = Pair::established();
    let (sa, now) = (pair.client.sa(), pair.now);
    // As if four thousand million exchanges had been.
    pair.client.endpoint.step(sa, now, |sa, _| {
        let IkeSa::Established(mut it) = sa else {
            panic!("not established")
        };
        it.session.next_request = u32::MAX;
        Some(IkeSa::Established(it))
    });
    pair.client.endpoint.check_liveness(sa, now);
    pair.drain(End::Client);
    assert!(matches!(pair.client.closed(), Some(CloseReason::Failed(_))));
}

#[test]
fn a_notify_of_sixty_thousand_octets_is_read_and_forgotten() {
    let mut pair = unfragmented();
    let notify = Payload::Notify(Notify::new(NotifyType(40_000), vec![7; 60_000]));
    let answer = pair.ask(End::Client, ExchangeType::Informational, &[notify]);
    assert_eq!(answer, []);
    assert!(pair.server.is_established());
}

#[test]
fn payloads_are_read_in_any_order() {
    let (mut pair, first) = first_message();
    let mut message = Message::decode(&first.payload).unwrap();
    message.payloads.reverse();
    let payload = message.encode().unwrap();
    pair.deliver(End::Server, &Datagram { payload, ..first });
    assert_eq!(pair.server.endpoint.len(), 1);

    let mut pair = Pair::established();
    let mut payloads = child_request();
    payloads.reverse();
    pair.ask(End::Client, ExchangeType::CreateChildSa, &payloads);
    assert_eq!(pair.server.children.len(), 2);
}

#[test]
fn an_answer_outside_of_the_offer_is_not_accepted() {
    let foreign = [
        Transform::Encryption {
            id: epochgate_ike_wire::EncryptionId::AES_GCM_16,
            key_bits: Some(192),
        },
        Transform::Prf(epochgate_ike_wire::PrfId(2)),
        Transform::Integrity(epochgate_ike_wire::IntegrityId(2)),
        Transform::Esn(true),
    ];
    for foreign in foreign {
        let (mut pair, first) = first_message();
        pair.deliver(End::Server, &first);
        pair.drain(End::Server);
        pair.network.clear();
        let answer = pair.translate(End::Server, pair.sent[1].1.clone());
        let mut message = Message::decode(&answer.payload).unwrap();
        for payload in &mut message.payloads {
            if let Payload::SecurityAssociation(proposals) = payload {
                let transforms = &mut proposals[0].transforms;
                transforms.retain(|it| it.kind() != foreign.kind());
                transforms.push(foreign.clone());
            }
        }
        let payload = message.encode().unwrap();
        pair.deliver(
            End::Client,
            &Datagram {
                payload,
                ..answer.clone()
            },
        );
        assert_eq!(pair.client.endpoint.counters().malformed, 1, "{foreign:?}");
        // The true answer is still believed.
        pair.deliver(End::Client, &answer);
        pair.settle();
        assert!(pair.client.is_established());
    }
}
