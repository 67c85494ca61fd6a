//! IKE_AUTH by certificates: both roles, every kind of key, peers without RFC 7427, and everything
//! that must not be believed.

use epochgate_ike_wire::{AuthMethod, Authentication, Certificate, CertificateEncoding};

use super::*;
use crate::config::{AuthConfig, LocalAuth, RemoteAuth};
use crate::ike::sa::IkeSa;
use crate::pki::{AuthorityFiles, KeyKind, Pki, RsaPadding};
use crate::pki_provider::X509;
use crate::pki_provider::tests::authority::{Authority, NOW};

const KINDS: [KeyKind; 4] = [
    KeyKind::Rsa,
    KeyKind::EcdsaP256,
    KeyKind::EcdsaP384,
    KeyKind::Ed25519,
];

/// What an end shows, and whom it believes.
fn auth(own: &Authority, kind: KeyKind, name: &str, believed: &Authority) -> AuthConfig {
    AuthConfig {
        local: shows(own, kind, name),
        remote: believes(believed),
        ppk: None,
    }
}

pub(super) fn shows(authority: &Authority, kind: KeyKind, name: &str) -> LocalAuth {
    let issued = authority.issue(kind, name);
    let (chain, key) = (issued.chain.as_bytes(), issued.key.as_bytes());
    LocalAuth::Certificate(X509.credential(chain, key, None).unwrap().credential)
}

pub(super) fn believes(authority: &Authority) -> RemoteAuth {
    let files = AuthorityFiles {
        authorities: &[authority.pem.clone().into_bytes()],
        revocation_lists: &[],
        accept_stale: false,
        now: None,
    };
    RemoteAuth::Certificate(X509.authorities(&files).unwrap())
}

/// Ends with certificates of one authority, and clocks.
fn pair(client: KeyKind, server: KeyKind) -> Pair {
    let root = Authority::new("root");
    let (ours, theirs) = (
        auth(&root, client, "client.example", &root),
        auth(&root, server, "server.example", &root),
    );
    with_clocks(Pair::with(
        |config| config.auth = ours,
        |config| config.auth = theirs,
    ))
}

pub(super) fn with_clocks(mut pair: Pair) -> Pair {
    pair.client.endpoint.set_wall_clock(NOW);
    pair.server.endpoint.set_wall_clock(NOW);
    pair
}

fn attempt(pair: &mut Pair) {
    pair.connect();
    pair.settle();
}

fn is_open(pair: &Pair) -> bool {
    pair.client.is_established() && pair.server.is_established()
}

/// Why an end refused, and that nothing came of it at the other.
#[track_caller]
pub(super) fn refused(pair: &Pair, by: End) -> String {
    assert!(!pair.client.is_established() && !pair.server.is_established());
    assert!(
        pair.server.children.is_empty(),
        "the server installs nothing"
    );
    assert!(
        pair.client.children.is_empty(),
        "the client installs nothing"
    );
    let host = match by {
        End::Client => &pair.client,
        End::Server => &pair.server,
    };
    match host.closed() {
        Some(CloseReason::AuthenticationFailed(text)) => text.clone(),
        other => panic!("{other:?}"),
    }
}

/// Takes the digital signature's notify out of what both ends know of each other.
fn forget_rfc_7427(pair: &mut Pair) {
    pair.lose_requests(End::Client, ExchangeType::IkeAuth, 1);
    pair.connect();
    pair.run(Duration::from_millis(100));
}

#[test]
fn every_kind_of_key_proves_either_end() {
    for client in KINDS {
        for server in KINDS {
            let mut pair = pair(client, server);
            attempt(&mut pair);
            assert!(
                is_open(&pair),
                "{client:?} {server:?} {:?}",
                pair.server.closed()
            );
            pair.assert_same_child();
        }
    }
}

#[test]
fn rsa_signs_without_pss_where_that_is_configured() {
    let root = Authority::new("root");
    let mut ours = auth(&root, KeyKind::Rsa, "client.example", &root);
    if let LocalAuth::Certificate(credential) = &mut ours.local {
        credential.rsa_padding = RsaPadding::Pkcs1;
    }
    let theirs = auth(&root, KeyKind::Rsa, "server.example", &root);
    let mut pair = with_clocks(Pair::with(|it| it.auth = ours, |it| it.auth = theirs));
    attempt(&mut pair);
    assert!(is_open(&pair));
}

#[test]
fn one_end_may_have_a_certificate_and_the_other_a_pre_shared_key() {
    let root = Authority::new("root");
    let psk = Secret::from(&b"correct horse battery staple"[..]);
    let ours = AuthConfig {
        local: LocalAuth::Psk(psk.clone()),
        remote: believes(&root),
        ppk: None,
    };
    let theirs = AuthConfig {
        local: shows(&root, KeyKind::EcdsaP256, "server.example"),
        remote: RemoteAuth::Psk(psk),
        ppk: None,
    };
    let mut pair = with_clocks(Pair::with(|it| it.auth = ours, |it| it.auth = theirs));
    attempt(&mut pair);
    assert!(is_open(&pair));
}

#[test]
fn a_certificate_of_another_authority_is_refused_by_either_end() {
    let (root, other) = (Authority::new("root"), Authority::new("other"));
    for wrong in [End::Client, End::Server] {
        let of = |end| if end == wrong { &other } else { &root };
        let ours = auth(of(End::Client), KeyKind::Ed25519, "client.example", &root);
        let theirs = auth(of(End::Server), KeyKind::Ed25519, "server.example", &root);
        let mut pair = with_clocks(Pair::with(|it| it.auth = ours, |it| it.auth = theirs));
        pair.connect();
        pair.run(Duration::from_secs(1));
        let host = pair.host(wrong.other());
        let Some(CloseReason::AuthenticationFailed(text)) = host.closed() else {
            panic!("{:?}", host.closed())
        };
        assert!(text.contains("no configured authority"), "{text}");
        pair.settle();
        assert!(!pair.client.is_established() && !pair.server.is_established());
        assert!(pair.client.children.is_empty());
    }
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let root = Authority::new("root");
    let ours = auth(&root, KeyKind::Ed25519, "mallory.example", &root);
    let theirs = auth(&root, KeyKind::Ed25519, "server.example", &root);
    let mut pair = with_clocks(Pair::with(|it| it.auth = ours, |it| it.auth = theirs));
    attempt(&mut pair);
    let text = refused(&pair, End::Server);
    assert!(text.contains("does not name client.example"), "{text}");
}

#[test]
fn without_the_time_nobody_is_believed() {
    let root = Authority::new("root");
    let ours = auth(&root, KeyKind::Ed25519, "client.example", &root);
    let theirs = auth(&root, KeyKind::Ed25519, "server.example", &root);
    let mut pair = Pair::with(|it| it.auth = ours, |it| it.auth = theirs);
    attempt(&mut pair);
    let text = refused(&pair, End::Server);
    assert!(text.contains("time is not known"), "{text}");
}

#[test]
fn our_own_certificate_that_has_expired_is_not_shown() {
    let mut pair = pair(KeyKind::Ed25519, KeyKind::Ed25519);
    let late = crate::pki::UnixTime(NOW.0 + 3 * 365 * 86_400);
    pair.client.endpoint.set_wall_clock(late);
    attempt(&mut pair);
    let Some(CloseReason::Failed(text)) = pair.client.closed() else {
        panic!("{:?}", pair.client.closed())
    };
    assert!(text.contains("has expired: renew it"), "{text}");
}

#[test]
fn a_certificate_where_a_pre_shared_key_is_wanted_is_refused_and_the_other_way_round() {
    let root = Authority::new("root");
    let ours = auth(&root, KeyKind::EcdsaP256, "client.example", &root);
    let mut pair = with_clocks(Pair::with(|it| it.auth = ours.clone(), |_| ()));
    attempt(&mut pair);
    assert!(refused(&pair, End::Server).contains("has a pre-shared key"));
    let theirs = auth(&root, KeyKind::Ed25519, "server.example", &root);
    let mut pair = with_clocks(Pair::with(|_| (), |it| it.auth = theirs));
    attempt(&mut pair);
    assert!(refused(&pair, End::Server).contains("wants a certificate"));
}

/// Sends an IKE_AUTH request in the place of the client's own, and runs until it is answered.
fn send_instead(pair: &mut Pair, payloads: impl FnOnce(&AuthConfig) -> Vec<Payload>) {
    forget_rfc_7427(pair);
    let (sa, now) = (pair.client.sa(), pair.now);
    pair.client.endpoint.step(sa, now, |sa, ctx| {
        let IkeSa::Authenticating(mut it) = sa else {
            panic!("not authenticating")
        };
        let payloads = payloads(&it.config.auth);
        it.session.next_request = 1;
        let schedule = Limits::default().retransmission;
        it.session
            .request(ctx, ExchangeType::IkeAuth, &payloads, schedule)
            .unwrap();
        Some(IkeSa::Authenticating(it))
    });
    pair.run(Duration::from_secs(1));
}

/// IDi, these certificates and this AUTH.
fn claim(certificates: Vec<Certificate>, auth: Authentication) -> Vec<Payload> {
    let id = crate::ike::identity::identification(&config(End::Client).local.id);
    let mut payloads = vec![Payload::IdInitiator(id)];
    payloads.extend(certificates.into_iter().map(Payload::Certificate));
    payloads.push(Payload::Authentication(auth));
    payloads
}

fn own_certificates(auth: &AuthConfig, encoding: CertificateEncoding) -> Vec<Certificate> {
    let LocalAuth::Certificate(credential) = &auth.local else {
        panic!("no certificate")
    };
    let certificates = credential.certificates.iter();
    certificates
        .map(|der| Certificate {
            encoding,
            data: der.clone(),
        })
        .collect()
}

fn signature_over(auth: &AuthConfig, octets: &[u8]) -> Authentication {
    let LocalAuth::Certificate(credential) = &auth.local else {
        panic!("no certificate")
    };
    let scheme = crate::pki::SignatureScheme::Ed25519;
    let choice = crate::ike::signature::Choice {
        method: AuthMethod::DIGITAL_SIGNATURE,
        scheme,
    };
    crate::ike::signature::write(choice, &credential.key.sign(scheme, octets).unwrap())
}

#[test]
fn a_key_without_a_method_of_its_own_says_so_to_a_peer_without_rfc_7427() {
    let root = Authority::new("root");
    let ours = auth(&root, KeyKind::Ed25519, "client.example", &root);
    let mut pair = with_clocks(Pair::with(|it| it.auth = ours, |_| ()));
    attempt(&mut pair);
    let Some(CloseReason::Failed(text)) = pair.client.closed() else {
        panic!("{:?}", pair.client.closed())
    };
    assert!(
        text.contains("knows no hash that our Ed25519 key signs with"),
        "{text}"
    );
}

#[test]
fn keys_with_a_method_of_their_own_prove_themselves_without_rfc_7427() {
    for kind in [KeyKind::Rsa, KeyKind::EcdsaP256, KeyKind::EcdsaP384] {
        let mut pair = pair(kind, KeyKind::Ed25519);
        pair.connect();
        pair.run(Duration::from_millis(15));
        // What the client hears of the server's IKE_SA_INIT has no hash algorithms.
        let (_, _, datagram) = pair.network.pop().unwrap();
        let mut message = Message::decode(&datagram.payload).unwrap();
        message.payloads.retain(|payload| {
            notifies(std::slice::from_ref(payload)) != [NotifyType::SIGNATURE_HASH_ALGORITHMS]
        });
        let payloads = crate::ike::payloads::Payloads::sort(message.payloads).unwrap();
        let abilities = crate::ike::proof::Abilities::read(&payloads);
        assert_eq!(abilities.hashes, None);
        let choice = crate::ike::signature::choose(kind, RsaPadding::Pss, abilities.hashes);
        let method = choice.unwrap().method;
        assert_ne!(method, AuthMethod::DIGITAL_SIGNATURE);
    }
}

#[test]
fn a_signature_over_other_octets_is_refused() {
    let mut pair = pair(KeyKind::Ed25519, KeyKind::Ed25519);
    send_instead(&mut pair, |auth| {
        let certificates = own_certificates(auth, CertificateEncoding::X509_SIGNATURE);
        claim(certificates, signature_over(auth, b"other octets"))
    });
    let text = refused(&pair, End::Server);
    assert!(text.contains("signature is wrong"), "{text}");
}

#[test]
fn a_hash_and_a_url_are_no_certificate() {
    let mut pair = pair(KeyKind::Ed25519, KeyKind::Ed25519);
    send_instead(&mut pair, |auth| {
        let certificates = own_certificates(auth, CertificateEncoding::HASH_AND_URL_X509);
        claim(certificates, signature_over(auth, b""))
    });
    assert!(refused(&pair, End::Server).contains("no certificate came"));
}

#[test]
fn certificates_without_number_or_end_are_refused_unread() {
    let huge = |count: usize, length: usize| {
        let mut pair = pair(KeyKind::Ed25519, KeyKind::Ed25519);
        send_instead(&mut pair, |auth| {
            let certificate = Certificate {
                encoding: CertificateEncoding::X509_SIGNATURE,
                data: vec![0x30; length],
            };
            claim(vec![certificate; count], signature_over(auth, b""))
        });
        refused(&pair, End::Server)
    };
    assert!(huge(100, 10).contains("too many or too long"));
    assert!(huge(1, crate::pki::CERTIFICATE_LEN_MAX + 1).contains("too many or too long"));
    assert!(huge(1, 10).contains("malformed"));
}

#[test]
fn auth_data_that_lie_about_their_length_are_refused() {
    for data in [vec![], vec![0], vec![255], vec![12, 0x30], vec![1, 0x30]] {
        let mut pair = pair(KeyKind::Ed25519, KeyKind::Ed25519);
        send_instead(&mut pair, |auth| {
            let certificates = own_certificates(auth, CertificateEncoding::X509_SIGNATURE);
            let method = AuthMethod::DIGITAL_SIGNATURE;
            claim(certificates, Authentication { method, data })
        });
        refused(&pair, End::Server);
    }
}

#[test]
fn methods_that_nobody_should_use_are_refused() {
    for method in [AuthMethod::DSS_SIGNATURE, AuthMethod::NULL, AuthMethod(200)] {
        let mut pair = pair(KeyKind::Ed25519, KeyKind::Ed25519);
        send_instead(&mut pair, |auth| {
            let certificates = own_certificates(auth, CertificateEncoding::X509_SIGNATURE);
            let data = vec![1; 64];
            claim(certificates, Authentication { method, data })
        });
        assert!(refused(&pair, End::Server).contains("wants a certificate"));
    }
}
