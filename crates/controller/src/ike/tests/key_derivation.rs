//! Key derivation against values that were computed apart from this program, by Python's `hmac`
//! straight from the formulas of RFC 7296 §2.13–2.17.

use epochgate_ike_wire::{Flags, IkeSpi, PayloadType};

use super::*;
use crate::crypto::{AesKey, Integrity};
use crate::ike::intermediate::int_auth;
use crate::ike::keys::{IkeKeys, IkeSpis, Nonces, SignedOctets, child_keys};
use crate::ike::protect::Plain;
use crate::ike::session::covered;

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

struct Expected {
    prf: Prf,
    cipher: Cipher,
    derive: &'static str,
    encrypt: [&'static str; 2],
    prove: [&'static str; 2],
    child: &'static str,
    child_with_key_exchange: &'static str,
    auth: &'static str,
}

fn check(expected: &Expected) {
    let ring = Ring::new();
    let nonce_initiator: Vec<u8> = (0..32).collect();
    let nonce_responder: Vec<u8> = (100..132).collect();
    let shared = Secret::from((200..232).collect::<Vec<u8>>());
    let nonces = Nonces {
        initiator: &nonce_initiator,
        responder: &nonce_responder,
    };
    let spis = IkeSpis {
        initiator: IkeSpi(0x0011_2233_4455_6677_u64.to_be_bytes()),
        responder: IkeSpi(0x8899_aabb_ccdd_eeff_u64.to_be_bytes()),
    };
    let (prf, cipher) = (expected.prf, expected.cipher);
    let keys = IkeKeys::derive(&ring, prf, cipher, &shared, nonces, &spis);
    assert_eq!(hex(keys.derive.expose()), expected.derive);
    assert_eq!(hex(keys.protect.initiator.expose()), expected.encrypt[0]);
    assert_eq!(hex(keys.protect.responder.expose()), expected.encrypt[1]);
    assert_eq!(hex(keys.prove.initiator.expose()), expected.prove[0]);
    assert_eq!(hex(keys.prove.responder.expose()), expected.prove[1]);

    for (shared, stream) in [
        (None, expected.child),
        (Some(&shared), expected.child_with_key_exchange),
    ] {
        let child = child_keys(&ring, prf, &keys.derive, cipher, shared, nonces);
        let both = hex(child.initiator.expose()) + &hex(child.responder.expose());
        assert_eq!(both, stream);
    }

    let auth = SignedOctets {
        message: b"first message",
        nonce: &nonce_responder,
        id_body: b"\x02\0\0\0client.example",
        prove: &keys.prove.initiator,
        intermediate: &[],
    }
    .authenticator(&ring, prf, &Secret::from(&b"secret"[..]));
    assert_eq!(hex(auth.expose()), expected.auth);
}

#[test]
fn hmac_sha_256_with_a_128_bit_key() {
    check(&Expected {
        prf: Prf::HmacSha256,
        cipher: Cipher::AesGcm128,
        derive: "980a398cb132c73a4d87fabb66e7a2776668ee7b3563e36cbfed1ce4d36d593a",
        encrypt: [
            "7f51189d00aef8144a5c31edf28cfdf7bf28d13c",
            "952889e944486d1663675da67171ff3ade09ecbc",
        ],
        prove: [
            "255ff6c683fa60c6b7c6b555543083ef4314d2f9993e679514dd5b206218667a",
            "5a463890b68cb9f2439b1a89c568283df9cbe99510761c64411130726f926062",
        ],
        child: "6748c19a66a6fc432a3255bab6e49a9e6b2982ddc43a06cb50a079fd1e86630e7a58fcae437c929d",
        child_with_key_exchange: "5395d9ccf84759ab69429dcdf209136c47b3d07ac71352f317cc0f020cb04317b26edc46e37ee04a",
        auth: "5c4d558b32369f52888722f41eb5ef34e5819561347d44e6a83bf095612bf80b",
    });
}

#[test]
fn hmac_sha_384_with_a_256_bit_key() {
    check(&Expected {
        prf: Prf::HmacSha384,
        cipher: Cipher::AesGcm256,
        derive: "021d58567ca01394762740a75fbd9859d471705c0dfabadbe726a04196f35c0e\
                 da6b03f39521baa50dcd71a1fad40422",
        encrypt: [
            "269c51fac310c04779f5088e0bc52ffe2047c9495d9379a83adf8d02d16b128f55ba5bd7",
            "23f37a75820ec245973588501b8df4670b9fd2f444e5c4a3de872ce410fc50a837b0c960",
        ],
        prove: [
            "d6ffbc445c65cf4d38792dd2adf1336c7f3fccfb451659d98fbb8cdab402a432\
                 191b552134aa821f5416cb3b2f748743",
            "d53e5d2dc54a8d0c7a542fc448728d39b0b51e5d478e6d143c53394dccaa7d1b\
                 01d3d9a648d5124fa3be6378f38167d3",
        ],
        child: "9a4ab0c6abc67ad7c558edd99e966065359ab4fb96a1404040ec45af0f6a79bd\
                 16fe35e12b49f5349d5ec34246e961a055df770e5530d7286d5f485ca6738bf5\
                 599c13f4a358c8ae",
        child_with_key_exchange: "1e460b17273c9eb2c3fcdf3abe9ed38d8044540d8e27903e090ff999113010b3\
                 8e93825d0edd62b65f8988502ffa5100aec9fb74e067238f4c00781437482659\
                 3ba505f561782492",
        auth: "1fafc093738460cc5f2a802cf0a01fc1d4581a51ef4f9980f4796de80a5ec690\
                 36d75158abaea43f5726243e016706bd",
    });
}

#[test]
fn hmac_sha_512_with_a_128_bit_key() {
    check(&Expected {
        prf: Prf::HmacSha512,
        cipher: Cipher::AesGcm128,
        derive: "6b1788440242c0932619ff8120701452166935826323e2225de318d33fef8842\
                 e6a83bd7c71eb54215b8706e3ba45c6826f808a667a4cdd8fd904841fafc0167",
        encrypt: [
            "bb257de1b1aaf25da7971bab0089cb9ce2fd3811",
            "767aa6197f5351f355ecc187a159889a362297c6",
        ],
        prove: [
            "ccf93ca5a8db480d0e68f5de0100a4c8be3c6ed7d213b9cc53285d917b53e2b2\
                 c1971a3dc80aaf301bb2d959e14fdb87802ec4cb42bbbd303ae984041d660a02",
            "af30068b11f78b439b12946c94d94101b3faeb5777ebbc893ce74d8559445ae2\
                 cb8ab12bedc2a51f1ecf477a416ffdf13bf0940460a3e7228d9324cc58f900b7",
        ],
        child: "5a625a1d01110dc6959eecc09b1b2b3a7b2cdaf1a1d81d241c45a549ab47186b25160b163c16701b",
        child_with_key_exchange: "755e7e1cc5f62e62774c27b1703595b908cd461eb6198144ed06bba95f95973cd8f6b504a724da7a",
        auth: "ab2e2f877d4ef960b2baa76215fcb6b109083deb4936f4eee5007e25eb7d94f5\
                 ca2428730e0eb07dc889894fa9f6d4c7c4de7bf6e2bae3906a33976dd670b2cc",
    });
}

/// SK_ai and SK_ar stand before SK_ei and SK_er in an IKE SA's stream, but behind the encryption
/// key in a Child SA's (RFC 7296 §2.14, §2.17).
#[test]
fn hmac_sha_256_with_aes_cbc_and_integrity_keys() {
    check(&Expected {
        prf: Prf::HmacSha256,
        cipher: Cipher::AesCbc(AesKey::Bits256, Integrity::HmacSha256),
        derive: "980a398cb132c73a4d87fabb66e7a2776668ee7b3563e36cbfed1ce4d36d593a",
        encrypt: [
            "14dd5b206218667a5a463890b68cb9f2439b1a89c568283df9cbe99510761c64\
             7f51189d00aef8144a5c31edf28cfdf7bf28d13c952889e944486d1663675da6",
            "411130726f926062e6cdd5acff19229cb325101cb8ba0ebda5a4c899a4747d2f\
             7171ff3ade09ecbc255ff6c683fa60c6b7c6b555543083ef4314d2f9993e6795",
        ],
        prove: [
            "562f6d97c529e0b74c7a2b07b7a9ee3ba88825d3de5d9efb334b11dfb4c0013f",
            "b5ff587e1f830306248ff94efae656d147bb0f706817d26cfa2b3ffc1df81fe2",
        ],
        child: "6748c19a66a6fc432a3255bab6e49a9e6b2982ddc43a06cb50a079fd1e86630e\
                7a58fcae437c929d9de5482fc9f2b4acffa5f21b1a88cd88c83c616503ce4b4e\
                cb919162f057dd86ec1f5df4f6271ff74f0c897cd0b3754d5bde1225c6b2acab\
                734cc0dcd8af63ec9e6a18a145f568eafa93e73ef3ad6239fe523d0dc2a17bd6",
        child_with_key_exchange: "5395d9ccf84759ab69429dcdf209136c47b3d07ac71352f317cc0f020cb04317\
                b26edc46e37ee04aedd920d8417153fd3a8894b1dc090ebf9983386dcf603367\
                5efb407531c2e71992f57c288369b29b0c14aa486b15883d657db071a66c7925\
                4f6c9d6ed85d6810c76f3c9b36647330e51ce5973acd25d8b43c7e3d5106f70d",
        auth: "93f197468b611a59a5059b808bc044e1fb912bcd36538d35dc66e7d34734f309",
    });
}

/// SKEYSEED(1) and the keys that come of it (RFC 9370 §2.2.2), and what AUTH covers of both
/// IKE_INTERMEDIATE messages (RFC 9242 §3.3.2).
#[test]
fn an_additional_key_exchange_renews_the_keys_and_is_covered_by_auth() {
    let ring = Ring::new();
    let (prf, cipher) = (
        Prf::HmacSha256,
        Cipher::AesCbc(AesKey::Bits256, Integrity::HmacSha256),
    );
    let nonce_initiator: Vec<u8> = (0..32).collect();
    let nonce_responder: Vec<u8> = (100..132).collect();
    let nonces = Nonces {
        initiator: &nonce_initiator,
        responder: &nonce_responder,
    };
    let spis = IkeSpis {
        initiator: IkeSpi(0x0011_2233_4455_6677_u64.to_be_bytes()),
        responder: IkeSpi(0x8899_aabb_ccdd_eeff_u64.to_be_bytes()),
    };
    let first = Secret::from((200..232).collect::<Vec<u8>>());
    let second = Secret::from((50..82).collect::<Vec<u8>>());
    let keys = IkeKeys::derive(&ring, prf, cipher, &first, nonces, &spis);
    let old = (prf, &keys.derive);
    let renewed = IkeKeys::succeed(&ring, old, (prf, cipher), &second, nonces, &spis);
    assert_eq!(
        hex(renewed.derive.expose()),
        "b59a44cc0106b3a4efc26ea60e81d9e8b3c3e2c173c298a07b8653befe0535d2"
    );
    assert_eq!(
        hex(renewed.protect.initiator.expose()),
        "f352a6d3017acd214246d08b4c18517771f073d776cd52c2437f1a380d25d0ba\
         d9fa28ab40acbc887107939ba237dd4ed08a8600ce5bf7ef03828fe40eb3a61c"
    );

    let message = |response: bool, length: u8| {
        let flags = Flags {
            initiator: !response,
            response,
            version: false,
        };
        let exchange = ExchangeType::IkeIntermediate;
        let header = Header::new(spis.initiator, spis.responder, exchange, flags, 1);
        let plain = Plain {
            first: PayloadType::KEY_EXCHANGE,
            text: (0..length).collect(),
        };
        covered(&header, &plain).unwrap()
    };
    let (request, response) = (message(false, 10), message(true, 20));
    assert_eq!(
        hex(&int_auth(&ring, prf, &keys.prove, [&request, &response])),
        "ff1e2bd3ed2b3667b4c459e03c9bfe51dc3c555cd6dae5890ef1f5b8fd19ed6f\
         ba28277abcaa7654da81cc2dbc850ae113c59224d959f85c45caf82ba435f88b00000002"
    );
}
