//! EAP-MSCHAPv2 inside IKE_AUTH (RFC 7296 §2.16): the ladder, and everybody who must not come in.

use super::certificates::{believes, refused, shows, with_clocks};
use super::*;
use crate::config::{AuthConfig, EapUser, EapUsers, LocalAuth, RemoteAuth};
use crate::ike::sa::IkeSa;
use crate::pki::KeyKind;
use crate::pki_provider::tests::authority::Authority;

fn alice(password: &str) -> EapUser {
    EapUser {
        name: "alice".into(),
        password: Secret::from(password.as_bytes()),
    }
}

/// A client with this user, and a server that knows alice.
fn pair(user: EapUser) -> Pair {
    let root = Authority::new("root");
    pair_of(user, &root, &root)
}

fn pair_of(user: EapUser, issuer: &Authority, believed: &Authority) -> Pair {
    let ours = AuthConfig {
        local: LocalAuth::Eap(user),
        remote: believes(believed),
        ppk: None,
    };
    let theirs = AuthConfig {
        local: shows(issuer, KeyKind::EcdsaP256, "server.example"),
        remote: RemoteAuth::Eap(EapUsers::new([alice("correct horse")])),
        ppk: None,
    };
    with_clocks(Pair::with(|it| it.auth = ours, |it| it.auth = theirs))
}

/// Sends this in the place of the client's next request.
fn send_instead(pair: &mut Pair, exchange: ExchangeType, payloads: &[Payload]) {
    let (sa, now) = (pair.client.sa(), pair.now);
    pair.client.endpoint.step(sa, now, |sa, ctx| {
        let IkeSa::Authenticating(mut it) = sa else {
            panic!("not authenticating")
        };
        it.session.next_request -= 1;
        let schedule = Limits::default().retransmission;
        it.session
            .request(ctx, exchange, payloads, schedule)
            .unwrap();
        Some(IkeSa::Authenticating(it))
    });
    pair.run(Duration::from_secs(1));
}

/// Runs until the client has sent its `count`th IKE_AUTH request, which is lost.
fn stop_before(pair: &mut Pair, count: usize) {
    pair.connect();
    while pair.sent_by(End::Client, ExchangeType::IkeAuth) < count {
        pair.rules.clear();
        let sent = pair.sent_by(End::Client, ExchangeType::IkeAuth);
        if sent + 1 == count {
            pair.lose_requests(End::Client, ExchangeType::IkeAuth, 99);
        }
        pair.run(Duration::from_millis(5));
    }
    pair.rules.clear();
}

#[test]
fn a_user_with_the_right_password_is_let_in_after_five_round_trips() {
    let mut pair = pair(alice("correct horse"));
    pair.connect();
    pair.settle();
    assert!(
        pair.client.is_established() && pair.server.is_established(),
        "{:?} {:?}",
        pair.client.closed(),
        pair.server.closed()
    );
    pair.assert_same_child();
    assert_eq!(
        pair.ladder(),
        [
            "--> IKE_SA_INIT request 0",
            "<-- IKE_SA_INIT response 0",
            // IDi, SA, TS: no AUTH
            "--> IKE_AUTH request 1",
            // IDr, CERT, AUTH, EAP identity request
            "<-- IKE_AUTH response 1",
            "--> IKE_AUTH request 2",
            // EAP challenge
            "<-- IKE_AUTH response 2",
            "--> IKE_AUTH request 3",
            "<-- IKE_AUTH response 3",
            "--> IKE_AUTH request 4",
            // EAP success
            "<-- IKE_AUTH response 4",
            // AUTH by EAP's key, both
            "--> IKE_AUTH request 5",
            "<-- IKE_AUTH response 5",
        ]
    );
}

#[test]
fn lost_messages_of_the_conversation_are_repeated() {
    let mut pair = pair(alice("correct horse"));
    pair.lose_requests(End::Client, ExchangeType::IkeAuth, 1);
    pair.lose_responses(End::Server, ExchangeType::IkeAuth, 2);
    pair.connect();
    pair.settle();
    assert!(pair.client.is_established() && pair.server.is_established());
}

#[test]
fn a_wrong_password_installs_nothing_and_both_ends_say_so() {
    let mut pair = pair(alice("wrong"));
    pair.connect();
    pair.settle();
    let theirs = refused(&pair, End::Server);
    assert!(theirs.contains("password is wrong"), "{theirs}");
    let ours = refused(&pair, End::Client);
    assert!(ours.contains("refuses user name or password"), "{ours}");
    for text in [ours, theirs] {
        assert!(!text.contains("horse"));
    }
}

#[test]
fn a_server_that_is_not_believed_learns_nothing_of_the_password() {
    let mut pair = pair_of(
        alice("correct horse"),
        &Authority::new("other"),
        &Authority::new("root"),
    );
    pair.connect();
    pair.settle();
    let text = refused(&pair, End::Client);
    assert!(text.contains("no configured authority"), "{text}");
    assert_eq!(pair.sent_by(End::Client, ExchangeType::IkeAuth), 1);
}

#[test]
fn a_client_that_skips_eap_and_sends_auth_is_refused() {
    for count in [2, 3, 4] {
        let mut pair = pair(alice("correct horse"));
        stop_before(&mut pair, count);
        let auth = Payload::Authentication(epochgate_ike_wire::Authentication {
            method: epochgate_ike_wire::AuthMethod::SHARED_KEY_MIC,
            data: vec![0; 32],
        });
        send_instead(&mut pair, ExchangeType::IkeAuth, &[auth]);
        assert!(pair.server.children.is_empty() && !pair.server.is_established());
        assert!(matches!(
            pair.server.closed(),
            Some(CloseReason::AuthenticationFailed(text)) if text.contains("not due")
        ));
    }
}

#[test]
fn a_client_without_eaps_key_is_refused_after_its_success() {
    let mut pair = pair(alice("correct horse"));
    stop_before(&mut pair, 5);
    let auth = Payload::Authentication(epochgate_ike_wire::Authentication {
        method: epochgate_ike_wire::AuthMethod::SHARED_KEY_MIC,
        data: vec![0; 32],
    });
    send_instead(&mut pair, ExchangeType::IkeAuth, &[auth]);
    assert!(pair.server.children.is_empty() && !pair.server.is_established());
    assert!(matches!(
        pair.server.closed(),
        Some(CloseReason::AuthenticationFailed(text)) if text.contains("key of EAP")
    ));
}

#[test]
fn a_success_that_the_client_makes_itself_is_refused() {
    for count in [2, 3, 4] {
        let mut pair = pair(alice("correct horse"));
        stop_before(&mut pair, count);
        let id = u8::try_from(count - 1).unwrap();
        let success = Payload::Eap(vec![3, id, 0, 4]);
        send_instead(&mut pair, ExchangeType::IkeAuth, &[success]);
        assert!(pair.server.children.is_empty() && !pair.server.is_established());
    }
}

#[test]
fn an_unknown_user_is_refused_as_late_as_one_with_a_wrong_password() {
    let ladders = ["alice", "mallory"].map(|name| {
        let mut pair = pair(EapUser {
            name: name.into(),
            ..alice("wrong")
        });
        pair.connect();
        pair.settle();
        let theirs = refused(&pair, End::Server);
        assert!(theirs.contains("password is wrong"), "{theirs}");
        let ours = refused(&pair, End::Client);
        assert!(ours.contains("refuses user name or password"), "{ours}");
        pair.ladder()
    });
    assert_eq!(ladders[0], ladders[1]);
}

#[test]
fn identities_that_are_none_end_the_attempt() {
    let long = [&[2, 1, 1, 6, 1][..], &[b'a'; 257]].concat();
    for identity in [vec![2, 1, 0, 5, 1], long, vec![2, 1, 0, 6, 1, 0xff]] {
        let mut pair = pair(alice("correct horse"));
        stop_before(&mut pair, 2);
        send_instead(&mut pair, ExchangeType::IkeAuth, &[Payload::Eap(identity)]);
        assert!(pair.server.children.is_empty() && !pair.server.is_established());
        assert!(matches!(
            pair.server.closed(),
            Some(CloseReason::AuthenticationFailed(text)) if text.contains("who it is")
                || text.contains("EAP identity is")
        ));
    }
}

#[test]
fn a_create_child_sa_during_eap_is_not_answered() {
    for count in [2, 3, 4, 5] {
        let mut pair = pair(alice("correct horse"));
        stop_before(&mut pair, count);
        pair.lose_requests(End::Client, ExchangeType::IkeAuth, 99);
        let before = pair.sent.len();
        send_instead(&mut pair, ExchangeType::CreateChildSa, &[]);
        assert!(
            pair.sent[before..]
                .iter()
                .all(|(from, _)| *from == End::Client)
        );
        assert!(pair.server.children.is_empty() && !pair.server.is_established());
    }
}

#[test]
fn eap_packets_whose_lengths_lie_end_the_attempt() {
    for packet in [
        vec![],
        vec![2],
        vec![2, 1, 0, 0],
        vec![2, 1, 0, 4],
        vec![2, 1, 255, 255, 26],
        vec![2, 1, 0, 6, 26],
        vec![2, 1, 0, 9, 26, 2, 1, 0, 0],
    ] {
        let mut pair = pair(alice("correct horse"));
        stop_before(&mut pair, 2);
        send_instead(&mut pair, ExchangeType::IkeAuth, &[Payload::Eap(packet)]);
        assert!(pair.server.children.is_empty() && !pair.server.is_established());
        assert!(pair.server.closed().is_some());
    }
}

#[test]
fn a_conversation_that_stops_is_forgotten_with_the_half_open_ike_sa() {
    for count in [2, 3, 4, 5] {
        let mut pair = pair(alice("correct horse"));
        stop_before(&mut pair, count);
        pair.lose_requests(End::Client, ExchangeType::IkeAuth, 99);
        pair.run(Duration::from_secs(60));
        assert_eq!(pair.server.endpoint.len(), 0);
        assert!(pair.server.children.is_empty());
    }
}

#[test]
fn a_client_without_eap_is_told_to_use_it() {
    let root = Authority::new("root");
    let theirs = AuthConfig {
        local: shows(&root, KeyKind::EcdsaP256, "server.example"),
        remote: RemoteAuth::Eap(EapUsers::new([alice("correct horse")])),
        ppk: None,
    };
    let mut pair = with_clocks(Pair::with(|_| (), |it| it.auth = theirs));
    pair.connect();
    pair.settle();
    let text = refused(&pair, End::Server);
    assert!(text.contains("wants EAP-MSCHAPv2"), "{text}");
}

#[test]
fn no_password_is_shown() {
    let shown = format!("{:?}", pair(alice("correct horse")).client.events)
        + &format!("{:?}", LocalAuth::Eap(alice("correct horse")))
        + &format!("{:?}", EapUsers::new([alice("correct horse")]));
    assert!(!shown.contains("horse"), "{shown}");
}
