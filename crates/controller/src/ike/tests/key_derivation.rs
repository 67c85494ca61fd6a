//! Key derivation against values that were computed apart from this program, by Python's `hmac`
//! straight from the formulas of RFC 7296 §2.13–2.17.

use epochgate_ike_wire::IkeSpi;

use super::*;
use crate::ike::keys::{IkeKeys, IkeSpis, Nonces, SignedOctets, child_keys};

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
