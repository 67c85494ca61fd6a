//! A small PKI for each test, and everything that can be wrong with it.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

pub(crate) mod authority;

use epochgate_controller::config::Identity;
use epochgate_controller::distinguished_name::DistinguishedName;
use epochgate_controller::pki::{
    AuthorityFiles, Culprit, Distrust, Evidence, Hash, KeyKind, OwnCertificate, Pki,
    SignatureScheme, TrustedAuthorities, UnixTime, Unusable,
};
use proptest::prelude::*;
use rcgen::{
    CidrSubnet, CustomExtension, ExtendedKeyUsagePurpose, GeneralSubtree, KeyUsagePurpose,
    NameConstraints, SanType, date_time_ymd,
};

use super::X509;
use authority::{Authority, Issued, NOW};

const MESSAGE: &[u8] = b"what AUTH covers";

fn fqdn(name: &str) -> Identity {
    Identity::Fqdn(name.into())
}

fn own(issued: &Issued) -> OwnCertificate {
    try_own(issued).unwrap()
}

fn try_own(issued: &Issued) -> Result<OwnCertificate, Unusable> {
    X509.credential(issued.chain.as_bytes(), issued.key.as_bytes(), None)
}

fn trust(authorities: &[&Authority], lists: &[String], accept_stale: bool) -> TrustedAuthorities {
    let files: Vec<_> = authorities.iter().map(|it| it.pem.clone().into()).collect();
    let lists: Vec<_> = lists.iter().map(|it| it.clone().into()).collect();
    X509.authorities(&AuthorityFiles {
        authorities: &files,
        revocation_lists: &lists,
        accept_stale,
        now: None,
    })
    .unwrap()
}

/// How a key of this kind signs by default.
fn scheme(kind: KeyKind) -> SignatureScheme {
    match kind {
        KeyKind::Rsa => SignatureScheme::RsaPss(Hash::Sha256),
        KeyKind::EcdsaP256 => SignatureScheme::Ecdsa(Hash::Sha256),
        KeyKind::EcdsaP384 => SignatureScheme::Ecdsa(Hash::Sha384),
        KeyKind::Ed25519 => SignatureScheme::Ed25519,
    }
}

fn judge(
    trusted: &TrustedAuthorities,
    peer: &OwnCertificate,
    id: &Identity,
) -> Result<(), Distrust> {
    judge_at(trusted, peer, id, NOW)
}

fn judge_at(
    trusted: &TrustedAuthorities,
    peer: &OwnCertificate,
    id: &Identity,
    now: UnixTime,
) -> Result<(), Distrust> {
    let scheme = scheme(peer.credential.key.kind());
    let signature = peer.credential.key.sign(scheme, MESSAGE).unwrap();
    trusted.0.judge(&Evidence {
        certificates: &peer.credential.certificates,
        identity: id,
        scheme,
        message: MESSAGE,
        signature: &signature,
        now,
    })
}

/// The verdict on a certificate that was changed before it was signed.
fn verdict(change: impl FnOnce(&mut rcgen::CertificateParams)) -> Result<(), Distrust> {
    let root = Authority::new("root");
    let peer = own(&root.issue_with(KeyKind::EcdsaP256, "gate.example", change));
    judge(&trust(&[&root], &[], false), &peer, &fqdn("gate.example"))
}

#[test]
fn every_kind_of_key_signs_by_every_scheme_that_it_has_and_is_believed() {
    use SignatureScheme::{Ecdsa, EcdsaConcatenated, Ed25519, RsaPkcs1, RsaPss};
    let root = Authority::new("root");
    let trusted = trust(&[&root], &[], false);
    let hashes = [Hash::Sha256, Hash::Sha384, Hash::Sha512];
    let rsa: Vec<_> = hashes
        .iter()
        .flat_map(|h| [RsaPkcs1(*h), RsaPss(*h)])
        .collect();
    for (kind, schemes) in [
        (KeyKind::Rsa, rsa),
        (
            KeyKind::EcdsaP256,
            vec![Ecdsa(Hash::Sha256), EcdsaConcatenated(Hash::Sha256)],
        ),
        (
            KeyKind::EcdsaP384,
            vec![Ecdsa(Hash::Sha384), EcdsaConcatenated(Hash::Sha384)],
        ),
        (KeyKind::Ed25519, vec![Ed25519]),
    ] {
        let peer = own(&root.issue(kind, "gate.example"));
        assert_eq!(peer.credential.key.kind(), kind);
        for scheme in schemes {
            let signature = peer.credential.key.sign(scheme, MESSAGE).unwrap();
            let evidence = |signature, message| Evidence {
                certificates: &peer.credential.certificates,
                identity: &peer.subject,
                scheme,
                message,
                signature,
                now: NOW,
            };
            assert_eq!(trusted.0.judge(&evidence(&signature, MESSAGE)), Ok(()));
            let wrong = Err(Distrust::BadSignature);
            assert_eq!(
                trusted.0.judge(&evidence(&signature, b"other octets")),
                wrong
            );
            assert_eq!(trusted.0.judge(&evidence(&[], MESSAGE)), wrong);
            let mut damaged = signature.clone();
            *damaged.last_mut().unwrap() ^= 1;
            assert_eq!(trusted.0.judge(&evidence(&damaged, MESSAGE)), wrong);
            let short = &signature[..signature.len() - 1];
            assert_eq!(trusted.0.judge(&evidence(short, MESSAGE)), wrong);
        }
    }
}

#[test]
fn a_key_does_not_sign_by_a_scheme_of_another_kind() {
    let peer = own(&Authority::new("root").issue(KeyKind::EcdsaP256, "a"));
    for scheme in [
        SignatureScheme::RsaPss(Hash::Sha256),
        SignatureScheme::Ed25519,
        SignatureScheme::Ecdsa(Hash::Sha384),
    ] {
        assert!(peer.credential.key.sign(scheme, MESSAGE).is_err());
    }
}

#[test]
fn an_unknown_authority_is_not_believed() {
    let peer = own(&Authority::new("root").issue(KeyKind::EcdsaP256, "gate.example"));
    let namesake = trust(&[&Authority::new("root")], &[], false);
    let other = trust(&[&Authority::new("other")], &[], false);
    for trusted in [namesake, other] {
        let verdict = judge(&trusted, &peer, &fqdn("gate.example"));
        assert_eq!(verdict, Err(Distrust::UnknownAuthority));
    }
}

#[test]
fn a_path_through_other_authorities_is_found() {
    let root = Authority::new("root");
    let middle = root.below("middle", |_| ());
    let lowest = middle.below("lowest", |_| ());
    let peer = own(&lowest.issue(KeyKind::EcdsaP384, "gate.example"));
    assert_eq!(peer.credential.certificates.len(), 3);
    let trusted = trust(&[&root], &[], false);
    assert_eq!(judge(&trusted, &peer, &fqdn("gate.example")), Ok(()));
    let mut without = peer;
    without.credential.certificates.truncate(2);
    assert_eq!(
        judge(&trusted, &without, &fqdn("gate.example")),
        Err(Distrust::UnknownAuthority)
    );
}

#[test]
fn more_certificates_than_a_path_has_and_huge_ones_are_refused_unread() {
    let root = Authority::new("root");
    let mut peer = own(&root.issue(KeyKind::EcdsaP256, "gate.example"));
    let trusted = trust(&[&root], &[], false);
    peer.credential.certificates.extend(vec![vec![0x30, 0]; 8]);
    let id = fqdn("gate.example");
    assert_eq!(judge(&trusted, &peer, &id), Err(Distrust::TooLarge));
    peer.credential.certificates = vec![vec![0x30; 60_000]];
    assert_eq!(judge(&trusted, &peer, &id), Err(Distrust::TooLarge));
    peer.credential.certificates.clear();
    assert_eq!(judge(&trusted, &peer, &id), Err(Distrust::NoCertificate));
}

#[test]
fn time_outside_validity_is_refused() {
    let late = verdict(|params| params.not_after = date_time_ymd(2025, 6, 1));
    assert_eq!(late, Err(Distrust::Expired));
    let early = verdict(|params| params.not_before = date_time_ymd(2026, 6, 1));
    assert_eq!(early, Err(Distrust::NotYetValid));
}

#[test]
fn an_authority_whose_time_is_over_vouches_for_nobody() {
    let root = Authority::with("root", |it| it.not_after = date_time_ymd(2025, 6, 1));
    let peer = own(&root.issue(KeyKind::EcdsaP256, "gate.example"));
    let trusted = trust(&[&root], &[], false);
    assert_eq!(
        judge(&trusted, &peer, &fqdn("gate.example")),
        Err(Distrust::UnknownAuthority)
    );
}

#[test]
fn a_revoked_certificate_is_refused_and_others_of_its_authority_are_not() {
    let root = Authority::new("root");
    let peer = own(&root.issue(KeyKind::EcdsaP256, "gate.example"));
    let id = fqdn("gate.example");
    let revoked = trust(&[&root], &[root.revokes(&[7], 2030)], false);
    assert_eq!(judge(&revoked, &peer, &id), Err(Distrust::Revoked));
    let others = trust(&[&root], &[root.revokes(&[8, 9], 2030)], false);
    assert_eq!(judge(&others, &peer, &id), Ok(()));
}

#[test]
fn a_revocation_list_of_another_authority_says_nothing() {
    let (root, other) = (Authority::new("root"), Authority::new("other"));
    let peer = own(&root.issue(KeyKind::EcdsaP256, "gate.example"));
    let trusted = trust(&[&root], &[other.revokes(&[], 2030)], false);
    assert_eq!(
        judge(&trusted, &peer, &fqdn("gate.example")),
        Err(Distrust::RevocationUnknown)
    );
}

#[test]
fn a_stale_revocation_list_counts_only_where_that_is_configured() {
    let root = Authority::new("root");
    let peer = own(&root.issue(KeyKind::EcdsaP256, "gate.example"));
    let id = fqdn("gate.example");
    let lists = [root.revokes(&[], 2026)];
    let after = UnixTime(NOW.0 + 86_400);
    let strict = trust(&[&root], &lists, false);
    let stale = Err(Distrust::StaleRevocationList);
    assert_eq!(judge_at(&strict, &peer, &id, after), stale);
    let lenient = trust(&[&root], &lists, true);
    assert_eq!(judge_at(&lenient, &peer, &id, after), Ok(()));
}

#[test]
fn each_kind_of_identity_must_be_in_the_certificate() {
    let root = Authority::new("root");
    let trusted = trust(&[&root], &[], false);
    let peer = own(
        &root.issue_with(KeyKind::Ed25519, "gate.example", |params| {
            params.subject_alt_names.extend([
                SanType::Rfc822Name("ops@example.org".try_into().unwrap()),
                SanType::IpAddress("203.0.113.7".parse().unwrap()),
                SanType::IpAddress("2001:db8::7".parse().unwrap()),
                SanType::DnsName("*.wild.example".try_into().unwrap()),
            ]);
        }),
    );
    let dn = |text| Identity::Dn(DistinguishedName::from_text(text).unwrap());
    let key_id = peer
        .names
        .iter()
        .find(|it| matches!(it, Identity::KeyId(_)));
    for id in [
        fqdn("gate.example"),
        fqdn("GATE.example"),
        Identity::Mail("ops@example.org".into()),
        Identity::Address("203.0.113.7".parse().unwrap()),
        Identity::Address("2001:db8::7".parse().unwrap()),
        dn("CN=gate.example, O=Test"),
    ]
    .iter()
    .chain(key_id)
    {
        assert_eq!(judge(&trusted, &peer, id), Ok(()), "{id}");
    }
    for id in [
        fqdn("other.example"),
        fqdn("a.wild.example"),
        fqdn("203.0.113.7"),
        Identity::Mail("gate.example".into()),
        Identity::Address("203.0.113.8".parse().unwrap()),
        Identity::KeyId(vec![1, 2, 3]),
        dn("O=Test, CN=gate.example"),
        dn("CN=gate.example"),
    ] {
        let wrong = Err(Distrust::WrongIdentity(id.to_string()));
        assert_eq!(judge(&trusted, &peer, &id), wrong, "{id}");
    }
}

#[test]
fn a_common_name_is_no_host_name() {
    let nameless = verdict(|params| params.subject_alt_names.clear());
    assert_eq!(
        nameless,
        Err(Distrust::WrongIdentity("gate.example".into()))
    );
}

#[test]
fn extended_key_usage_must_allow_ike_or_be_absent() {
    use ExtendedKeyUsagePurpose::{
        Any, ClientAuth, CodeSigning, EmailProtection, Other, ServerAuth,
    };
    let ike = || Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 17]);
    for good in [
        vec![],
        vec![Any],
        vec![ClientAuth],
        vec![ServerAuth],
        vec![CodeSigning, ike()],
    ] {
        assert_eq!(verdict(|params| params.extended_key_usages = good), Ok(()));
    }
    let wrong = verdict(|params| params.extended_key_usages = vec![CodeSigning, EmailProtection]);
    assert_eq!(wrong, Err(Distrust::WrongUsage));
}

#[test]
fn a_key_that_may_not_sign_proves_nothing() {
    let encipher = verdict(|params| params.key_usages = vec![KeyUsagePurpose::KeyEncipherment]);
    assert_eq!(encipher, Err(Distrust::WrongUsage));
    let signs = verdict(|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]);
    assert_eq!(signs, Ok(()));
}

#[test]
fn a_critical_extension_that_nobody_knows_is_refused() {
    let result = verdict(|params| {
        let mut unknown = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        unknown.set_criticality(true);
        params.custom_extensions = vec![unknown];
    });
    assert!(matches!(result, Err(Distrust::Other(_))), "{result:?}");
}

#[test]
fn name_constraints_of_an_authority_bind_what_it_issues() {
    let root = Authority::new("root");
    let trusted = trust(&[&root], &[], false);
    let bound = |permitted: Vec<GeneralSubtree>, excluded| {
        let middle = root.below("middle", |params| {
            params.name_constraints = Some(NameConstraints {
                permitted_subtrees: permitted,
                excluded_subtrees: excluded,
            });
        });
        let peer = own(
            &middle.issue_with(KeyKind::EcdsaP256, "gate.example", |params| {
                let address = SanType::IpAddress("203.0.113.7".parse().unwrap());
                params.subject_alt_names.push(address);
            }),
        );
        judge(&trusted, &peer, &fqdn("gate.example"))
    };
    let dns = |name: &str| GeneralSubtree::DnsName(name.into());
    let network =
        |first| GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([first, 0, 0, 0], 8));
    assert_eq!(bound(vec![dns("example"), network(203)], vec![]), Ok(()));
    let violated = Err(Distrust::NameConstraints);
    assert_eq!(bound(vec![dns("elsewhere")], vec![]), violated);
    assert_eq!(bound(vec![], vec![dns("example")]), violated);
    assert_eq!(bound(vec![network(10)], vec![]), violated);
}

#[test]
fn an_end_certificate_issues_nothing() {
    let root = Authority::new("root");
    let not_an_authority = root.below("gate.example", |params| {
        params.is_ca = rcgen::IsCa::ExplicitNoCa;
        params.key_usages.clear();
    });
    let peer = own(&not_an_authority.issue(KeyKind::EcdsaP256, "gate.example"));
    let result = judge(&trust(&[&root], &[], false), &peer, &fqdn("gate.example"));
    assert!(result.is_err());
}

#[test]
fn an_authority_is_no_peer() {
    let root = Authority::new("root");
    let middle = root.issue_with(KeyKind::EcdsaP256, "gate.example", |params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    let result = judge(
        &trust(&[&root], &[], false),
        &own(&middle),
        &fqdn("gate.example"),
    );
    assert!(matches!(result, Err(Distrust::Other(_))), "{result:?}");
}

#[test]
fn a_key_of_another_certificate_is_found_out() {
    let root = Authority::new("root");
    for kind in [KeyKind::EcdsaP256, KeyKind::EcdsaP384, KeyKind::Ed25519] {
        let mut issued = root.issue(kind, "a");
        issued.key = root.issue(kind, "b").key;
        let error = try_own(&issued).unwrap_err();
        assert_eq!(error.culprit, Culprit::Key);
        assert!(error.reason.contains("not the key of the certificate"));
    }
    let mut issued = root.issue(KeyKind::Rsa, "a");
    issued.key = root.issue(KeyKind::Ed25519, "b").key;
    assert_eq!(try_own(&issued).unwrap_err().culprit, Culprit::Key);
}

#[test]
fn files_that_hold_something_else_are_named_with_what_is_wrong() {
    let root = Authority::new("root");
    let good = root.issue(KeyKind::EcdsaP256, "a");
    let reason = |chain: &str, key: &str, now| {
        let error = X509.credential(chain.as_bytes(), key.as_bytes(), Some(UnixTime(now)));
        error.unwrap_err().to_string()
    };
    assert!(reason("", &good.key, NOW.0).contains("no certificate in it"));
    assert!(reason(&good.chain, "", NOW.0).contains("no private key in it"));
    assert!(reason(&good.chain, &good.chain, NOW.0).contains("no private key in it"));
    assert!(reason(&good.chain, &good.key, 0).contains("not valid yet"));
    assert!(reason(&good.chain, &good.key, 9_999_999_999).contains("expired"));
    let encrypted = good.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    assert!(reason(&good.chain, &encrypted, NOW.0).contains("encrypted"));
    let cut = &good.chain[..good.chain.len() / 2];
    assert!(reason(cut, &good.key, NOW.0).contains("no end"));
}

#[test]
fn the_fingerprint_changes_with_every_file() {
    let root = Authority::new("root");
    let with = |lists: &[String], stale| trust(&[&root], lists, stale);
    let list = root.revokes(&[1], 2030);
    assert_eq!(with(&[], false), with(&[], false));
    assert_ne!(with(&[], false), with(std::slice::from_ref(&list), false));
    assert_ne!(
        with(&[list], false),
        with(&[root.revokes(&[2], 2030)], false)
    );
    assert_ne!(with(&[], false), with(&[], true));
}

#[test]
fn no_key_is_shown() {
    let issued = Authority::new("root").issue(KeyKind::Ed25519, "a");
    let shown = format!("{:?}", own(&issued).credential);
    assert_eq!(shown, "Credential(1 certificates, Ed25519, Pss)");
}

#[test]
fn every_cut_of_a_certificate_is_refused() {
    let root = Authority::new("root");
    let trusted = trust(&[&root], &[], false);
    let mut peer = own(&root.issue(KeyKind::Ed25519, "gate.example"));
    let whole = peer.credential.certificates[0].clone();
    for cut in 0..whole.len() {
        peer.credential.certificates[0] = whole[..cut].to_vec();
        assert!(
            judge(&trusted, &peer, &fqdn("gate.example")).is_err(),
            "{cut}"
        );
    }
}

proptest! {
    #[test]
    fn no_damage_to_a_certificate_is_believed_or_makes_it_panic(
        at in any::<prop::sample::Index>(),
        new in prop::collection::vec(any::<u8>(), 0..6),
        gone in 0_usize..6,
    ) {
        let root = Authority::new("root");
        let trusted = trust(&[&root], &[], false);
        let mut peer = own(&root.issue(KeyKind::Ed25519, "gate.example"));
        let whole = peer.credential.certificates[0].clone();
        let at = at.index(whole.len());
        let after = (at + gone).min(whole.len());
        let damaged = [&whole[..at], &new, &whole[after..]].concat();
        prop_assume!(damaged != whole);
        peer.credential.certificates[0] = damaged;
        prop_assert!(judge(&trusted, &peer, &fqdn("gate.example")).is_err());
    }

    #[test]
    fn no_file_makes_it_panic(octets in prop::collection::vec(any::<u8>(), 0..300), text in "(-----(BEGIN|END) (EC |RSA |)PRIVATE KEY-----|[A-Za-z0-9=\n-]{0,9}){0,9}") {
        for file in [octets.as_slice(), text.as_bytes()] {
            let _ = X509.credential(file, file, None);
            let _ = X509.authorities(&AuthorityFiles {
                authorities: &[file.to_vec()],
                revocation_lists: &[file.to_vec()],
                accept_stale: false,
                now: None,
            });
        }
    }
}
