//! RFC 2759's vector, whole conversations, identities, and packets that lie.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use super::mschapv2::{self, Message};
use super::packet::{self, Packet, kind};
use super::server::IDENTITY_LEN_MAX;
use super::{Client, ClientStep, ROUNDS_MAX, Server, ServerStep};
use crate::Secret;
use crate::config::{EapUser, EapUsers};
use crate::ring_provider::Ring;

fn alice(password: &str) -> EapUser {
    EapUser {
        name: "alice".into(),
        password: Secret::from(password.as_bytes()),
    }
}

fn users() -> EapUsers {
    EapUsers::new([alice("correct horse")])
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    let octet = |pair: &[u32]| u8::try_from(pair[0] * 16 + pair[1]).unwrap();
    digits.chunks_exact(2).map(octet).collect()
}

/// What a server says to this answer to its Identity request, and the server.
fn identified(identity: &[u8]) -> (Server, ServerStep) {
    let (mut server, request) = Server::begin("gate");
    let answer = packet::response(request[1], kind::IDENTITY, identity);
    let step = server.handle(&Ring::new(), &users(), &answer);
    (server, step)
}

/// A server that was told this identity, and the challenge that it sent.
fn challenged(identity: &str) -> (Server, Vec<u8>) {
    match identified(identity.as_bytes()) {
        (server, ServerStep::Ask(challenge)) => (server, challenge),
        other => panic!("{other:?}"),
    }
}

/// What a client without a conversation behind it answers.
fn answer_to(user: &EapUser, request: &[u8]) -> Vec<u8> {
    match Client::new().handle(&Ring::new(), user, request) {
        ClientStep::Answer(answer) => answer,
        other => panic!("{other:?}"),
    }
}

/// Why it is over, of a step that ends it with a Failure which answers this request.
#[track_caller]
fn failed(step: ServerStep, request: &[u8]) -> String {
    let ServerStep::Failed { failure, reason } = step else {
        panic!("{step:?}")
    };
    assert_eq!(failure, packet::outcome(false, request[1]));
    reason
}

/// Runs a conversation; what the client and the server end with.
fn converse(user: &EapUser) -> (ClientStep, ServerStep) {
    let ring = Ring::new();
    let (mut server, mut packet) = Server::begin("gate");
    let mut client = Client::new();
    loop {
        let answer = match client.handle(&ring, user, &packet) {
            ClientStep::Answer(answer) => answer,
            other => panic!("{other:?}"),
        };
        match server.handle(&ring, &users(), &answer) {
            ServerStep::Ask(next) => packet = next,
            done @ ServerStep::Done { .. } => {
                let ServerStep::Done { success, .. } = &done else {
                    unreachable!()
                };
                return (client.handle(&ring, user, success), done);
            }
            failed @ ServerStep::Failed { .. } => {
                let ServerStep::Failed { failure, .. } = &failed else {
                    unreachable!()
                };
                return (client.handle(&ring, user, failure), failed);
            }
        }
    }
}

#[test]
fn the_proofs_are_those_of_rfc_2759_section_9_2() {
    let server = hex("5B5D7C7D7B3F2F3E3C2C602132262628").try_into().unwrap();
    let client = hex("21402324255E262A28295F2B3A337C7E").try_into().unwrap();
    let password = Secret::from(&b"clientPass"[..]);
    let proofs = mschapv2::prove(&Ring::new(), &server, &client, "User", &password);
    assert_eq!(
        proofs.nt_response.to_vec(),
        hex("82309ECD8D708B5EA08FAA3981CD83544233114A3D85D6DF")
    );
    assert_eq!(
        proofs.authenticator,
        "S=407A5589115FD0D6209F510FE9C04566932CDA56"
    );
    // RFC 3079 §3.5.3: what the server sends with.
    assert_eq!(
        proofs.msk.expose()[16..32].to_vec(),
        hex("8B7CDC149B993A1BA118CB153F56DCCB")
    );
    assert_eq!(proofs.msk.len(), 64);
}

#[test]
fn both_ends_know_the_same_key_after_a_conversation() {
    let (client, server) = converse(&alice("correct horse"));
    let (ClientStep::Done(ours), ServerStep::Done { msk, .. }) = (client, server) else {
        panic!("not done")
    };
    assert_eq!(ours, msk);
}

#[test]
fn a_wrong_password_and_an_unknown_user_are_refused_alike() {
    for user in [
        alice("wrong"),
        EapUser {
            name: "mallory".into(),
            ..alice("correct horse")
        },
    ] {
        let (client, server) = converse(&user);
        assert!(matches!(client, ClientStep::Failed(text) if text.contains("refuses")));
        let ServerStep::Failed { reason, .. } = server else {
            panic!("{server:?}")
        };
        assert!(
            reason.contains("unknown, or the password is wrong"),
            "{reason}"
        );
        assert!(!reason.contains("horse"));
    }
}

#[test]
fn a_success_before_the_method_has_ended_is_refused() {
    let (ring, user) = (Ring::new(), alice("correct horse"));
    let success = packet::outcome(true, 1);
    let early = Client::new().handle(&ring, &user, &success);
    assert!(matches!(early, ClientStep::Failed(text) if text.contains("before")));
    let (_, challenge) = challenged("alice");
    let mut client = Client::new();
    client.handle(&ring, &user, &challenge);
    let early = client.handle(&ring, &user, &success);
    assert!(matches!(early, ClientStep::Failed(text) if text.contains("before")));
}

#[test]
fn a_server_that_does_not_know_the_password_is_found_out() {
    let (ring, user) = (Ring::new(), alice("correct horse"));
    let (_, challenge) = challenged("alice");
    for claim in [
        &b"S=407A5589115FD0D6209F510FE9C04566932CDA56 M=ok"[..],
        b"S=",
        b"",
    ] {
        let mut client = Client::new();
        client.handle(&ring, &user, &challenge);
        let length = u8::try_from(4 + claim.len()).unwrap();
        let data = [&[3, 1, 0, length], claim].concat();
        let step = client.handle(&ring, &user, &packet::request(2, kind::MSCHAPV2, &data));
        assert!(matches!(step, ClientStep::Failed(_)), "{step:?}");
    }
}

#[test]
fn another_method_is_declined_and_a_change_halfway_is_refused() {
    let (ring, user) = (Ring::new(), alice("correct horse"));
    let mut client = Client::new();
    let ClientStep::Answer(nak) = client.handle(&ring, &user, &packet::request(9, 13, &[0x20]))
    else {
        panic!("no answer")
    };
    assert_eq!(nak, [2, 9, 0, 6, 3, 26]);
    let (_, challenge) = challenged("alice");
    client.handle(&ring, &user, &challenge);
    let step = client.handle(&ring, &user, &packet::request(9, 13, &[0x20]));
    assert!(matches!(step, ClientStep::Failed(_)));
}

#[test]
fn rounds_without_end_come_to_an_end() {
    let (ring, user) = (Ring::new(), alice("correct horse"));
    let mut client = Client::new();
    for _ in 0..ROUNDS_MAX {
        let step = client.handle(&ring, &user, &packet::request(1, kind::IDENTITY, &[]));
        assert!(matches!(step, ClientStep::Answer(_)));
    }
    let step = client.handle(&ring, &user, &packet::request(1, kind::IDENTITY, &[]));
    assert!(matches!(step, ClientStep::Failed(text) if text.contains("without end")));
}

#[test]
fn a_response_to_another_request_is_refused() {
    let (mut server, challenge) = challenged("alice");
    let mut answer = answer_to(&alice("correct horse"), &challenge);
    answer[1] ^= 1;
    let step = server.handle(&Ring::new(), &users(), &answer);
    assert!(failed(step, &challenge).contains("another EAP request"));
}

#[test]
fn an_acknowledgement_without_an_answer_proves_nothing() {
    let (mut server, challenge) = challenged("alice");
    let early = packet::response(challenge[1], kind::MSCHAPV2, &[3]);
    let step = server.handle(&Ring::new(), &users(), &early);
    assert!(failed(step, &challenge).contains("not due"));
}

#[test]
fn the_first_request_asks_for_an_identity_and_the_answer_names_the_user() {
    let (_, request) = Server::begin("gate");
    assert_eq!(request, [1, 1, 0, 5, 1]);
    let answer = answer_to(&alice("correct horse"), &request);
    assert_eq!(answer, *b"\x02\x01\x00\x0a\x01alice");
}

#[test]
fn an_identity_of_no_octets_ends_the_attempt() {
    let (_, request) = Server::begin("gate");
    let (_, step) = identified(b"");
    assert!(failed(step, &request).contains("does not say who"));
}

#[test]
fn an_identity_that_fills_the_limit_gets_a_challenge_and_one_octet_more_does_not() {
    let (_, request) = Server::begin("gate");
    challenged(&"a".repeat(IDENTITY_LEN_MAX));
    for length in [IDENTITY_LEN_MAX + 1, packet::PACKET_LEN_MAX - 5] {
        let (_, step) = identified(&vec![b'a'; length]);
        assert!(failed(step, &request).contains("too long"), "{length}");
    }
    let (_, step) = identified(&vec![b'a'; packet::PACKET_LEN_MAX]);
    assert!(failed(step, &request).contains("no response"));
}

#[test]
fn an_identity_that_is_no_text_ends_the_attempt() {
    let (_, request) = Server::begin("gate");
    for octets in [&[0xff][..], b"alice\xc3", &[0xed, 0xa0, 0x80]] {
        let (_, step) = identified(octets);
        assert!(failed(step, &request).contains("no UTF-8"), "{octets:?}");
    }
}

#[test]
fn whatever_is_no_identity_ends_the_identity_round() {
    let (ring, user) = (Ring::new(), alice("correct horse"));
    let (_, challenge) = challenged("alice");
    let mut method = answer_to(&user, &challenge);
    for (answer, reason) in [
        // The method's answer to another server's challenge, with its identifier and with ours.
        (method.clone(), "another EAP request"),
        (
            {
                method[1] = 1;
                method
            },
            "another EAP type",
        ),
        // Nak is no answer to Identity (RFC 3748 §5.3.1).
        (packet::response(1, kind::NAK, &[26]), "another EAP type"),
        (
            packet::response(1, kind::NOTIFICATION, &[]),
            "another EAP type",
        ),
        (
            packet::response(2, kind::IDENTITY, b"alice"),
            "another EAP request",
        ),
        (packet::request(1, kind::IDENTITY, b"alice"), "no response"),
        (packet::outcome(true, 1), "no response"),
    ] {
        let (mut server, request) = Server::begin("gate");
        let step = server.handle(&ring, &users(), &answer);
        let text = failed(step, &request);
        assert!(text.contains(reason), "{text} for {answer:?}");
    }
}

#[test]
fn a_second_identity_is_refused_whatever_request_it_answers() {
    for (identity, id) in [("alice", 1), ("alice", 2), ("bob", 1), ("bob", 2)] {
        let (mut server, challenge) = challenged("alice");
        let again = packet::response(id, kind::IDENTITY, identity.as_bytes());
        let step = server.handle(&Ring::new(), &users(), &again);
        assert!(failed(step, &challenge).contains("it answers"));
    }
}

#[test]
fn an_unknown_user_gets_a_challenge_and_the_failure_of_a_wrong_password() {
    let ends = ["alice", "mallory", "alice\0", "ALICE", "\u{fffd}"].map(|name| {
        let (mut server, challenge) = challenged(name);
        let user = EapUser {
            name: name.into(),
            ..alice("wrong")
        };
        let answer = answer_to(&user, &challenge);
        let step = server.handle(&Ring::new(), &users(), &answer);
        let ServerStep::Failed { failure, .. } = step else {
            panic!("{name}: {step:?}")
        };
        // All that differs is the challenge itself.
        let fixed = [&challenge[..10], &challenge[26..]].concat();
        (fixed, failure)
    });
    for end in &ends {
        assert_eq!(end, &ends[0]);
    }
}

#[test]
fn a_proof_for_another_user_than_the_identity_is_refused() {
    for (identity, name) in [
        ("mallory", "alice"),
        ("alice", "bob"),
        ("DOM\\alice", "alice"),
    ] {
        let (mut server, challenge) = challenged(identity);
        let user = EapUser {
            name: name.into(),
            ..alice("correct horse")
        };
        let answer = answer_to(&user, &challenge);
        let step = server.handle(&Ring::new(), &users(), &answer);
        let text = failed(step, &challenge);
        assert!(text.contains("password is wrong"), "{text}");
    }
}

#[test]
fn an_identity_request_is_answered_before_the_method_and_refused_within_it() {
    let (ring, user) = (Ring::new(), alice("correct horse"));
    let identity = packet::request(7, kind::IDENTITY, b"who?");
    let mut client = Client::new();
    client.handle(&ring, &user, &packet::request(6, 13, &[0x20]));
    let step = client.handle(&ring, &user, &identity);
    assert!(matches!(step, ClientStep::Answer(_)), "{step:?}");
    let (_, challenge) = challenged("alice");
    client.handle(&ring, &user, &challenge);
    let step = client.handle(&ring, &user, &identity);
    assert!(matches!(step, ClientStep::Failed(text) if text.contains("halfway")));
}

#[test]
fn lengths_that_lie_are_no_packets() {
    for octets in [
        &[][..],
        &[1],
        &[1, 1, 0],
        &[1, 1, 0, 0],
        &[1, 1, 0, 3],
        &[1, 1, 0, 4],
        &[2, 1, 0, 4],
        &[1, 1, 0, 6, 26],
        &[1, 1, 0, 5, 26, 0],
        &[1, 1, 255, 255, 26],
        &[3, 1, 0, 5, 0],
        &[4, 1, 0, 3],
        &[5, 1, 0, 4],
    ] {
        assert_eq!(Packet::read(octets), None, "{octets:?}");
    }
    let long = vec![0; 1020];
    assert_eq!(Packet::read(&packet::request(1, 26, &long)), None);
    for data in [
        &[][..],
        &[1],
        &[1, 1, 0, 0],
        &[1, 1, 0, 4],
        &[1, 1, 0, 5, 16],
        &[1, 1, 255, 255, 16],
        &[2, 1, 0, 5, 49],
        &[9, 1, 0, 4],
    ] {
        assert_eq!(Message::read(data), None, "{data:?}");
    }
}

#[test]
fn every_cut_and_every_changed_octet_of_a_conversation_ends_it_without_a_panic() {
    let (ring, user) = (Ring::new(), alice("correct horse"));
    let (_, challenge) = challenged("alice");
    let answer = answer_to(&user, &challenge);
    let (_, request) = Server::begin("gate");
    let identity = answer_to(&user, &request);
    for index in 0..identity.len() {
        let (mut server, _) = Server::begin("gate");
        let step = server.handle(&ring, &users(), &identity[..index]);
        assert!(matches!(step, ServerStep::Failed { .. }));
        let mut changed = identity.clone();
        changed[index] ^= 0x80;
        let (mut server, _) = Server::begin("gate");
        let step = server.handle(&ring, &users(), &changed);
        assert!(matches!(step, ServerStep::Failed { .. }));
    }
    for index in 0..answer.len() {
        let (mut server, _) = challenged("alice");
        let step = server.handle(&ring, &users(), &answer[..index]);
        assert!(matches!(step, ServerStep::Failed { .. }));
        let mut changed = answer.clone();
        changed[index] ^= 0x80;
        let (mut server, _) = challenged("alice");
        // Another server's challenge: even the unchanged answer would be wrong.
        let step = server.handle(&ring, &users(), &changed);
        assert!(matches!(step, ServerStep::Failed { .. }));
    }
    for index in 0..challenge.len() {
        Client::new().handle(&ring, &user, &challenge[..index]);
        let mut changed = challenge.clone();
        changed[index] ^= 0xff;
        Client::new().handle(&ring, &user, &changed);
    }
}
