//! Published vectors where they exist, and that both ends agree where they do not.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use epochgate_controller::Secret;
use epochgate_controller::crypto::{Cipher, Crypto, CryptoError, Group, KeyExchange, Prf};

use super::Ring;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|c| !c.is_ascii_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// An exchange whose private value is known.
#[expect(deprecated, reason = "ring's own way to fix a private value in a test")]
fn fixed(group: Group, private: &[u8]) -> Box<dyn KeyExchange> {
    let random = ring::test::rand::FixedSliceRandom { bytes: private };
    super::key_exchange::start(group, &random).unwrap()
}

#[test]
fn x25519_agrees_with_rfc_7748_section_6_1() {
    let alice = fixed(
        Group::X25519,
        &hex("77076d0a7318a57d3c16c17251b26645 df4c2f87ebc0992ab177fba51db92c2a"),
    );
    let bob = fixed(
        Group::X25519,
        &hex("5dab087e624a8a4b79e17f8b83800ee6 6f3bb1292618b6fd1c2f8b27ff88e0eb"),
    );
    let bob_public = hex("de9edb7d7b7dc1b4d35b61c2ece43537 3f8343c85b78674dadfc7e146f882b4f");
    assert_eq!(
        alice.public_value(),
        hex("8520f0098930a754748b7ddcb43ef75a 0dbf3a0d26381af4eba4a98eaa9b4e6a")
    );
    assert_eq!(bob.public_value(), bob_public);
    let shared = hex("4a5d9d5ba4ce2de1728e3bf480350f25 e07e21c947d19e3376f09b3c1e161742");
    assert_eq!(alice.agree(&bob_public).unwrap().expose(), shared);
}

#[test]
fn p256_agrees_with_rfc_5903_section_8_1() {
    let initiator = fixed(
        Group::P256,
        &hex("C88F01F510D9AC3F70A292DAA2316DE5 44E9AAB8AFE84049C62A9C57862D1433"),
    );
    assert_eq!(
        initiator.public_value(),
        hex(
            "DAD0B65394221CF9B051E1FECA5787D0 98DFE637FC90B9EF945D0C3772581180
             5271A0461CDB8252D61F1C456FA3E59A B1F45B33ACCF5F58389E0577B8990BB3"
        )
    );
    let responder = hex(
        "D12DFB5289C8D4F81208B70270398C34 2296970A0BCCB74C736FC7554494BF63
                         56FBF3CA366CC23E8157854C13C58D6A AC23F046ADA30F8353E74F33039872AB",
    );
    assert_eq!(
        initiator.agree(&responder).unwrap().expose(),
        hex("D6840F6B42F6EDAFD13116E0E1256520 2FEF8E9ECE7DCE03812464D04B9442DE")
    );
}

#[test]
fn p384_agrees_with_rfc_5903_section_8_2() {
    let initiator = fixed(
        Group::P384,
        &hex(
            "099F3C7034D4A2C699884D73A375A67F 7624EF7C6B3C0F160647B67414DCE655
              E35B538041E649EE3FAEF896783AB194",
        ),
    );
    let responder = hex(
        "E558DBEF53EECDE3D3FCCFC1AEA08A89 A987475D12FD950D83CFA41732BC509D
                         0D1AC43A0336DEF96FDA41D0774A3571 DCFBEC7AACF3196472169E838430367F
                         66EEBE3C6E70C416DD5F0C68759DD1FF F83FA40142209DFF5EAAD96DB9E6386C",
    );
    assert_eq!(
        initiator.agree(&responder).unwrap().expose(),
        hex(
            "11187331C279962D93D604243FD592CB 9D0A926F422E47187521287E7156C5C4
             D603135569B9E9D09CF5D4A270F59746"
        )
    );
}

#[test]
fn every_group_agrees_with_itself() {
    let ring = Ring::new();
    for (group, public_len, secret_len) in [
        (Group::X25519, 32, 32),
        (Group::P256, 64, 32),
        (Group::P384, 96, 48),
    ] {
        let (one, other) = (
            ring.key_exchange(group).unwrap(),
            ring.key_exchange(group).unwrap(),
        );
        assert_eq!(one.group(), group);
        let (from_one, from_other) = (one.public_value().to_vec(), other.public_value().to_vec());
        assert_eq!(from_one.len(), public_len);
        let secret = one.agree(&from_other).unwrap();
        assert_eq!(secret.len(), secret_len);
        assert_eq!(secret, other.agree(&from_one).unwrap());
    }
}

#[test]
fn public_values_that_are_no_points_are_refused() {
    let ring = Ring::new();
    for (group, value) in [
        (Group::X25519, vec![0; 32]),
        (Group::X25519, vec![9; 31]),
        (Group::P256, vec![1; 64]),
        (Group::P256, vec![]),
        (Group::P384, vec![1; 96]),
        (Group::P384, vec![1; 97]),
    ] {
        assert_eq!(
            ring.key_exchange(group).unwrap().agree(&value),
            Err(CryptoError::InvalidPublicValue)
        );
    }
}

#[test]
fn hmac_agrees_with_rfc_4231_test_case_2() {
    let ring = Ring::new();
    let prf = |prf| ring.prf(prf, b"Jefe", &[b"what do ya want ", b"for nothing?"]);
    assert_eq!(
        prf(Prf::HmacSha256).expose(),
        hex("5bdcc146bf60754e6a042426089575c7 5a003f089d2739839dec58b964ec3843")
    );
    assert_eq!(
        prf(Prf::HmacSha384).expose(),
        hex(
            "af45d2e376484031617f78d2b58a6b1b 9c7ef464f5a01b47e42ec3736322445e
             8e2240ca5e69e2c78b3239ecfab21649"
        )
    );
    assert_eq!(
        prf(Prf::HmacSha512).expose(),
        hex(
            "164b7a7bfcf819e2e395fbe73b56e0a3 87bd64222e831fd610270cd7ea250554
             9758bf75c05a994a6d034f65f8f0e6fd caeab1a34d4a6b4b636e070a38bce737"
        )
    );
}

#[test]
fn sha1_agrees_with_fips_180() {
    assert_eq!(
        Ring::new().sha1(&[b"a", b"bc"]).to_vec(),
        hex("a9993e364706816aba3e25717850c26c9cd0d89d")
    );
}

/// Test case 4 of the GCM specification (McGrew, Viega), whose 96-bit nonce is salt and IV here.
#[test]
fn aes_gcm_agrees_with_the_specification() {
    let ring = Ring::new();
    let mut key = hex("feffe9928665731c6d6a8f9467308308");
    key.extend(hex("cafebabe"));
    let key = Secret::from(key);
    let iv: [u8; 8] = hex("facedbaddecaf888").try_into().unwrap();
    let associated = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
    let plain = hex(
        "d9313225f88406e5a55909c5aff5269a 86a7a9531534f7da2e4c303d8a318a72
                     1c3c0c95956809532fcf0e2449a6b525 b16aedf5aa0de657ba637b39",
    );
    let mut payload = plain.clone();
    ring.seal(Cipher::AesGcm128, &key, &iv, &associated, &mut payload)
        .unwrap();
    assert_eq!(
        payload,
        hex(
            "42831ec2217774244b7221b784d0d49c e3aa212f2c02a4e035c17e2329aca12e
             21d514b25466931c7d8f6a5aac84aa05 1ba30b396a0aac973d58e091
             5bc94fbc3221a5db94fae95ae7121a47"
        )
    );
    ring.open(Cipher::AesGcm128, &key, &iv, &associated, &mut payload)
        .unwrap();
    assert_eq!(payload, plain);
}

#[test]
fn a_changed_octet_anywhere_is_a_forgery() {
    let ring = Ring::new();
    let key = Secret::from(vec![7; 36]);
    let mut sealed = b"payload".to_vec();
    ring.seal(Cipher::AesGcm256, &key, &[1; 8], b"header", &mut sealed)
        .unwrap();
    for index in 0..sealed.len() {
        let mut forged = sealed.clone();
        forged[index] ^= 1;
        assert_eq!(
            ring.open(Cipher::AesGcm256, &key, &[1; 8], b"header", &mut forged),
            Err(CryptoError::Forged)
        );
    }
    let mut moved = sealed.clone();
    assert_eq!(
        ring.open(Cipher::AesGcm256, &key, &[1; 8], b"other", &mut moved),
        Err(CryptoError::Forged)
    );
    assert_eq!(
        ring.open(
            Cipher::AesGcm256,
            &key,
            &[1; 8],
            b"header",
            &mut vec![0; 15]
        ),
        Err(CryptoError::Forged)
    );
}

#[test]
fn a_key_of_the_wrong_length_is_refused() {
    let ring = Ring::new();
    for length in [0, 16, 19, 21, 36] {
        assert_eq!(
            ring.seal(
                Cipher::AesGcm128,
                &Secret::from(vec![0; length]),
                &[0; 8],
                b"",
                &mut Vec::new()
            ),
            Err(CryptoError::Provider)
        );
    }
}

#[test]
fn equality_is_equality() {
    let ring = Ring::new();
    assert!(ring.equal(b"same", b"same"));
    assert!(!ring.equal(b"same", b"sama"));
    assert!(!ring.equal(b"same", b"sam"));
}
