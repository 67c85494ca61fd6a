//! Project Wycheproof's vectors for everything that the provider does with keys: edge cases and
//! known attacks, each with the verdict that it must get. They need private values and nonces of
//! their own choice, so the provider's modules are taken in here by themselves.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed unwrap fails the test"
)]

#[path = "../../src/aead.rs"]
mod aead;
#[path = "../../src/cbc.rs"]
mod cbc;
#[path = "../../src/encryption.rs"]
mod encryption;
#[path = "../../src/kem.rs"]
mod kem;
#[path = "../../src/key_exchange.rs"]
mod key_exchange;
#[path = "../../src/modp.rs"]
mod modp;
#[path = "../../src/p521.rs"]
mod p521;

use epochgate_controller::Secret;
use epochgate_controller::crypto::{
    AesKey, Cipher, Crypto, CryptoError, Group, Integrity, KeyExchange, Prf,
};
use epochgate_crypto::Ring;
use wycheproof::TestResult;

/// An exchange whose private value is known.
#[expect(deprecated, reason = "ring's own way to fix a private value in a test")]
fn fixed(group: Group, private: &[u8]) -> Result<Box<dyn KeyExchange>, CryptoError> {
    let random = ring::test::rand::FixedSliceRandom { bytes: private };
    key_exchange::start(group, &random)
}

fn prime(group: Group) -> Vec<u8> {
    match group {
        Group::Modp2048 => modp::PARAMS_2048.modulus().as_ref().to_be_bytes().to_vec(),
        Group::Modp3072 => modp::PARAMS_3072.modulus().as_ref().to_be_bytes().to_vec(),
        other => panic!("{other} has no prime"),
    }
}

/// A number in as many octets as the group's private values have.
fn scalar(private: &[u8], length: usize) -> Vec<u8> {
    let significant = private.iter().position(|octet| *octet != 0);
    let private = &private[significant.unwrap_or(private.len())..];
    let mut padded = vec![0; length - private.len()];
    padded.extend_from_slice(private);
    padded
}

#[test]
fn x25519_agrees_and_refuses_what_gives_no_secret() {
    let set = wycheproof::xdh::TestSet::load(wycheproof::xdh::TestName::X25519).unwrap();
    let mut refused = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let private: &[u8] = test.private_key.as_ref();
        let agreed = fixed(Group::X25519, private)
            .unwrap()
            .agree(test.public_key.as_ref());
        let is_zero = test.shared_secret.iter().all(|octet| *octet == 0);
        if is_zero {
            // RFC 7748 §6.1, RFC 8031 §3.2.
            refused += 1;
            assert_eq!(
                agreed,
                Err(CryptoError::InvalidPublicValue),
                "{}",
                test.tc_id
            );
        } else {
            assert_eq!(
                agreed.unwrap().expose(),
                &test.shared_secret[..],
                "{}",
                test.tc_id
            );
        }
    }
    assert!(refused > 10);
}

#[test]
fn the_nist_curves_agree_and_refuse_points_that_are_none() {
    use wycheproof::ecdh::{TestName, TestSet};
    for (name, group, length) in [
        (TestName::EcdhSecp256r1Ecpoint, Group::P256, 32),
        (TestName::EcdhSecp384r1Ecpoint, Group::P384, 48),
        (TestName::EcdhSecp521r1Ecpoint, Group::P521, 66),
    ] {
        let set = TestSet::load(name).unwrap();
        let (mut agreements, mut refusals) = (0, 0);
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            // A KE payload has both coordinates and nothing before them (RFC 5903 §7): what is
            // encoded otherwise cannot be said there.
            let Some((0x04, point)) = test
                .public_key
                .split_first()
                .map(|(form, rest)| (*form, rest))
            else {
                continue;
            };
            let private = scalar(test.private_key.as_ref(), length);
            let agreed = fixed(group, &private).unwrap().agree(point);
            match test.result {
                TestResult::Valid | TestResult::Acceptable => {
                    agreements += 1;
                    assert_eq!(
                        agreed.unwrap().expose(),
                        &test.shared_secret[..],
                        "{}",
                        test.tc_id
                    );
                }
                TestResult::Invalid => {
                    refusals += 1;
                    assert_eq!(
                        agreed,
                        Err(CryptoError::InvalidPublicValue),
                        "{}",
                        test.tc_id
                    );
                }
            }
        }
        assert!(
            agreements > 100 && refusals > 0,
            "{group}: {agreements} {refusals}"
        );
    }
}

/// Against values that were computed apart from this program, by Python's `pow`; the primes were
/// compared with the formulas of RFC 3526 §3 and §4.
#[test]
fn the_modp_groups_agree() {
    let octets = |factor: usize, first: usize, length: usize| -> Vec<u8> {
        (0..length).map(|i| (factor * i + first) as u8).collect()
    };
    let hash = |octets: &[u8]| {
        let digest = ring::digest::digest(&ring::digest::SHA256, octets);
        let hexadecimal = digest.as_ref().iter().map(|octet| format!("{octet:02x}"));
        hexadecimal.collect::<String>()
    };
    for (group, private_len, hashes) in [
        (
            Group::Modp2048,
            40,
            [
                "71fe64a03ed65476629d5edfb0adc65ca2a545b5d8981c732c8e278289f5da38",
                "5984b19e16f0bb36768026ceb83ae986a23292bb1522826f95a88655ccec457e",
                "c4bc603dc75c1a415753657dcf7fad8503e010655f91677504654f10bcb01948",
            ],
        ),
        (
            Group::Modp3072,
            56,
            [
                "cc9ba9be9d716c7c7164f3ead4f712962eb846f7e0896283344d1225a9d0da7e",
                "344b7e676c2bace29cc1200a2e70e0971e55bfc0d0222422ed4d15f9e88d4d2e",
                "71a48d512fef420c163c21870e006552d543cb349c8d1d713425f1405b235e9f",
            ],
        ),
    ] {
        let alice = fixed(group, &octets(7, 1, private_len)).unwrap();
        let bob = fixed(group, &octets(11, 3, private_len)).unwrap();
        let (ours, theirs) = (alice.public_value().to_vec(), bob.public_value().to_vec());
        assert_eq!([hash(&ours), hash(&theirs)], [hashes[0], hashes[1]]);
        assert_eq!(hash(alice.agree(&theirs).unwrap().expose()), hashes[2]);
        assert_eq!(hash(bob.agree(&ours).unwrap().expose()), hashes[2]);
    }
}

/// RFC 6989 §2.1: 0, 1, p - 1, p and above are no public values, nor is what has another length
/// than the prime.
#[test]
fn the_modp_groups_refuse_values_of_small_order() {
    for (group, private_len, prime_len) in [(Group::Modp2048, 40, 256), (Group::Modp3072, 56, 384)]
    {
        let refused = |value: &[u8]| {
            let agreed = fixed(group, &vec![5; private_len]).unwrap().agree(value);
            assert_eq!(agreed, Err(CryptoError::InvalidPublicValue));
        };
        let mut small = vec![0; prime_len];
        refused(&small);
        small[prime_len - 1] = 1;
        refused(&small);
        refused(&vec![0xff; prime_len]);
        let mut prime = prime(group);
        refused(&prime);
        prime[prime_len - 1] -= 1;
        refused(&prime);
        prime[prime_len - 1] -= 1;
        let largest = fixed(group, &vec![5; private_len]).unwrap().agree(&prime);
        assert!(largest.is_ok());
        refused(&prime[1..]);
        refused(&[&[0], &prime[..]].concat());
        refused(&[]);
    }
}

#[test]
fn the_aeads_open_what_is_authentic_and_nothing_else() {
    use wycheproof::aead::{TestName, TestSet};
    for name in [TestName::AesGcm, TestName::ChaCha20Poly1305] {
        let set = TestSet::load(name).unwrap();
        let mut opened = 0;
        for group in &set.test_groups {
            let cipher = match (name, group.key_size) {
                (TestName::AesGcm, 128) => Cipher::AesGcm128,
                (TestName::AesGcm, 256) => Cipher::AesGcm256,
                (TestName::ChaCha20Poly1305, 256) => Cipher::ChaCha20Poly1305,
                _ => continue,
            };
            if group.nonce_size != 96 || group.tag_size != 128 {
                continue;
            }
            for test in &group.tests {
                let (salt, iv) = test.nonce.split_at(cipher.salt_len());
                let key = Secret::from([&test.key[..], salt].concat());
                let sealed = [&test.ct[..], &test.tag[..]].concat();
                let mut payload = sealed.clone();
                let result = encryption::open(cipher, &key, iv, &test.aad, &mut payload);
                if test.result == TestResult::Invalid {
                    assert_eq!(result, Err(CryptoError::Forged), "{}", test.tc_id);
                    continue;
                }
                opened += 1;
                assert_eq!(result, Ok(()), "{}", test.tc_id);
                assert_eq!(payload, &test.pt[..]);
                encryption::seal(cipher, &key, iv, &test.aad, &mut payload).unwrap();
                assert_eq!(payload, sealed, "{}", test.tc_id);
            }
        }
        assert!(opened > 50, "{opened}");
    }
}

/// The vectors' padding is PKCS #5; ours is IKE's own business and comes in as part of the payload.
#[test]
fn aes_cbc_encrypts_as_it_must_and_opens_only_under_its_icv() {
    use wycheproof::cipher::{TestName, TestSet};
    let set = TestSet::load(TestName::AesCbcPkcs5).unwrap();
    let mut encrypted = 0;
    for group in &set.test_groups {
        let bits = match group.key_size {
            128 => AesKey::Bits128,
            256 => AesKey::Bits256,
            _ => continue,
        };
        for test in group
            .tests
            .iter()
            .filter(|test| test.result == TestResult::Valid)
        {
            for integrity in [
                Integrity::HmacSha256,
                Integrity::HmacSha384,
                Integrity::HmacSha512,
            ] {
                let cipher = Cipher::AesCbc(bits, integrity);
                let key = [&test.key[..], &vec![9; integrity.key_len()]].concat();
                let key = Secret::from(key);
                let padding = 16 - test.pt.len() % 16;
                let mut plain = test.pt.to_vec();
                plain.resize(test.pt.len() + padding, padding as u8);
                let mut payload = plain.clone();
                encryption::seal(cipher, &key, &test.nonce, b"header", &mut payload).unwrap();
                let (text, icv) = payload.split_at(test.ct.len());
                assert_eq!(text, &test.ct[..], "{}", test.tc_id);
                assert_eq!(icv.len(), cipher.icv_len());
                let sealed = payload.clone();
                encryption::open(cipher, &key, &test.nonce, b"header", &mut payload).unwrap();
                assert_eq!(payload, plain);
                for place in [0, test.ct.len() - 1, test.ct.len(), sealed.len() - 1] {
                    let mut forged = sealed.clone();
                    forged[place] ^= 0x80;
                    let result =
                        encryption::open(cipher, &key, &test.nonce, b"header", &mut forged);
                    assert_eq!(result, Err(CryptoError::Forged), "{}", test.tc_id);
                }
                let other =
                    encryption::open(cipher, &key, &test.nonce, b"another", &mut sealed.clone());
                assert_eq!(other, Err(CryptoError::Forged));
                encrypted += 1;
            }
        }
    }
    assert!(encrypted > 100, "{encrypted}");
}

#[test]
fn the_prfs_are_hmac_sha_2() {
    use wycheproof::mac::{TestName, TestSet};
    let ring = Ring::new();
    for (name, prf) in [
        (TestName::HmacSha256, Prf::HmacSha256),
        (TestName::HmacSha384, Prf::HmacSha384),
        (TestName::HmacSha512, Prf::HmacSha512),
    ] {
        let set = TestSet::load(name).unwrap();
        for group in &set.test_groups {
            for test in &group.tests {
                let whole = ring.prf(prf, &test.key, &[&test.msg]);
                let tag = &whole.expose()[..group.tag_size / 8];
                assert_eq!(
                    ring.equal(tag, &test.tag),
                    test.result != TestResult::Invalid,
                    "{}",
                    test.tc_id
                );
            }
        }
    }
}

#[test]
#[expect(deprecated, reason = "ring's own way to fix a private value in a test")]
fn ml_kem_768_decapsulates_what_is_whole() {
    use wycheproof::mlkem::{TestName, TestSet};
    let set = TestSet::load(TestName::MlKem768).unwrap();
    let mut decapsulated = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let (Some(seed), Some(ciphertext)) = (&test.seed, &test.ct) else {
            continue;
        };
        if seed.len() != 64 {
            continue;
        }
        let random = ring::test::rand::FixedSliceRandom { bytes: seed };
        let keys = kem::start(&random).unwrap();
        if let Some(expected) = &test.encaps_key
            && test.result == TestResult::Valid
        {
            assert_eq!(keys.encapsulation_key(), &expected[..], "{}", test.tc_id);
        }
        let shared = keys.decapsulate(ciphertext);
        match (test.result, &test.shared_secret) {
            (TestResult::Valid | TestResult::Acceptable, Some(expected)) => {
                decapsulated += 1;
                assert_eq!(shared.unwrap().expose(), &expected[..], "{}", test.tc_id);
            }
            (TestResult::Invalid, _) => {
                assert_eq!(
                    shared,
                    Err(CryptoError::InvalidPublicValue),
                    "{}",
                    test.tc_id
                );
            }
            (TestResult::Valid | TestResult::Acceptable, None) => {}
        }
    }
    assert!(decapsulated > 10, "{decapsulated}");
}

#[test]
#[expect(deprecated, reason = "ring's own way to fix a private value in a test")]
fn ml_kem_768_encapsulates_for_keys_that_are_whole() {
    use wycheproof::mlkem::{TestName, TestSet};
    let set = TestSet::load(TestName::MlKem768Encaps).unwrap();
    let (mut encapsulated, mut refused) = (0, 0);
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let (Some(key), Some(message)) = (&test.encaps_key, &test.msg) else {
            continue;
        };
        let random = ring::test::rand::FixedSliceRandom { bytes: message };
        let result = kem::encapsulate(&random, key);
        if test.result == TestResult::Invalid {
            refused += 1;
            let refusal = result.map(|(ciphertext, _)| ciphertext);
            assert_eq!(
                refusal,
                Err(CryptoError::InvalidPublicValue),
                "{}",
                test.tc_id
            );
        } else {
            encapsulated += 1;
            let (ciphertext, shared) = result.unwrap();
            assert_eq!(Some(&ciphertext[..]), test.ct.as_deref().map(|it| &it[..]));
            assert_eq!(
                Some(shared.expose()),
                test.shared_secret.as_deref().map(|it| &it[..])
            );
        }
    }
    assert!(encapsulated > 0 && refused > 0, "{encapsulated} {refused}");
}
