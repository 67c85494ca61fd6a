//! `tunnel.NAME.algorithms`: names as strongSwan and libreswan users know them, to what is
//! proposed and accepted. Weak algorithms have no name; who asks for one is told so.

use epochgate_controller::config::{Esn, EspSuite, IkeSuite, Pfs, PostQuantum};
use epochgate_controller::crypto::{AesKey, Cipher, Group, Integrity, Prf};

use crate::diagnostic::{Sink, quoted};
use crate::keys::REPLAY_WINDOW;
use crate::reader::Section;
use crate::values::{Vocabulary, read_listed, read_number, read_word};

const CIPHERS: Vocabulary<'_, Cipher> = Vocabulary {
    words: &[
        ("aes256gcm16", Cipher::AesGcm256),
        ("aes128gcm16", Cipher::AesGcm128),
        ("chacha20poly1305", Cipher::ChaCha20Poly1305),
        (
            "aes256-sha256",
            Cipher::AesCbc(AesKey::Bits256, Integrity::HmacSha256),
        ),
        (
            "aes128-sha256",
            Cipher::AesCbc(AesKey::Bits128, Integrity::HmacSha256),
        ),
        (
            "aes256-sha384",
            Cipher::AesCbc(AesKey::Bits256, Integrity::HmacSha384),
        ),
        (
            "aes128-sha384",
            Cipher::AesCbc(AesKey::Bits128, Integrity::HmacSha384),
        ),
        (
            "aes256-sha512",
            Cipher::AesCbc(AesKey::Bits256, Integrity::HmacSha512),
        ),
        (
            "aes128-sha512",
            Cipher::AesCbc(AesKey::Bits128, Integrity::HmacSha512),
        ),
    ],
    weak: &[
        ("3des", "its 64-bit blocks repeat too soon (RFC 8247 §2.1)"),
        ("des", "its 56-bit key can be tried out (RFC 8247 §2.1)"),
        (
            "blowfish",
            "its 64-bit blocks repeat too soon (RFC 8221 §5)",
        ),
        ("cast128", "its 64-bit blocks repeat too soon (RFC 8221 §5)"),
        ("null", "it does not encrypt at all (RFC 8221 §5)"),
        ("md5", "HMAC-MD5 must not be used (RFC 8247 §2.3)"),
        ("sha1", "HMAC-SHA-1 is on its way out (RFC 8247 §2.3)"),
        ("gcm8", "a tag of 8 octets is forged too soon (RFC 5282 §3)"),
        (
            "gcm12",
            "a tag of 12 octets gains nothing over 16 (RFC 5282 §3)",
        ),
    ],
};

const PRFS: Vocabulary<'_, Prf> = Vocabulary {
    words: &[
        ("hmac-sha256", Prf::HmacSha256),
        ("hmac-sha384", Prf::HmacSha384),
        ("hmac-sha512", Prf::HmacSha512),
    ],
    weak: &[
        ("md5", "HMAC-MD5 must not be used (RFC 8247 §2.2)"),
        ("sha1", "HMAC-SHA-1 is on its way out (RFC 8247 §2.2)"),
    ],
};

const GROUPS: Vocabulary<'_, Group> = Vocabulary {
    words: &[
        ("x25519", Group::X25519),
        ("p256", Group::P256),
        ("p384", Group::P384),
        ("p521", Group::P521),
        ("modp3072", Group::Modp3072),
        ("modp2048", Group::Modp2048),
    ],
    weak: &[
        (
            "modp768",
            "a prime of 768 bits can be broken (RFC 8247 §2.4)",
        ),
        (
            "modp1024s160",
            "its prime may have a trapdoor (RFC 8247 §2.4)",
        ),
        (
            "modp1024",
            "a prime of 1024 bits can be broken (RFC 8247 §2.4)",
        ),
        (
            "modp1536",
            "a prime of 1536 bits is too short (RFC 8247 §2.4)",
        ),
        (
            "modp2048s224",
            "its prime may have a trapdoor (RFC 8247 §2.4)",
        ),
        (
            "modp2048s256",
            "its prime may have a trapdoor (RFC 8247 §2.4)",
        ),
        ("p192", "a curve of 192 bits is too small (RFC 8247 §2.4)"),
        ("p224", "a curve of 224 bits is too small (RFC 8247 §2.4)"),
    ],
};

const POST_QUANTUM: [(&str, PostQuantum); 3] = [
    ("off", PostQuantum::Off),
    ("prefer", PostQuantum::Prefer),
    ("require", PostQuantum::Require),
];
const PFS: [(&str, Pfs); 2] = [("prefer", Pfs::Prefer), ("require", Pfs::Require)];
const ESN: [(&str, Esn); 3] = [
    ("off", Esn::Off),
    ("prefer", Esn::Prefer),
    ("require", Esn::Require),
];

/// Reads `algorithms.ike`.
pub(crate) fn read_ike(section: &Section<'_>, sink: &mut Sink) -> IkeSuite {
    let default = IkeSuite::default();
    IkeSuite {
        ciphers: at_least_one(section, "cipher", &CIPHERS, default.ciphers, sink),
        prfs: at_least_one(section, "prf", &PRFS, default.prfs, sink),
        groups: at_least_one(section, "group", &GROUPS, default.groups, sink),
        post_quantum: read_word(section, "post-quantum", &POST_QUANTUM, sink)
            .map_or(default.post_quantum, |wanted| wanted.value),
    }
}

/// Reads `algorithms.esp`.
pub(crate) fn read_esp(section: &Section<'_>, sink: &mut Sink) -> EspSuite {
    let default = EspSuite::default();
    let groups = read_listed(section, "group", &GROUPS, sink);
    let pfs = read_word(section, "pfs", &PFS, sink);
    if let (Some(groups), Some(pfs)) = (&groups, &pfs)
        && groups.value.is_empty()
        && pfs.value == Pfs::Require
    {
        let title = "perfect forward secrecy is required, but there is no group for it";
        sink.error(pfs.span.clone(), title, "required here")
            .also(groups.span.clone(), "no group")
            .help("name a group, \"x25519\" for one, or leave pfs out");
    }
    EspSuite {
        ciphers: at_least_one(section, "cipher", &CIPHERS, default.ciphers, sink),
        groups: groups.map_or(default.groups, |groups| groups.value),
        pfs: pfs.map_or(default.pfs, |pfs| pfs.value),
        esn: read_word(section, "esn", &ESN, sink).map_or(default.esn, |esn| esn.value),
        replay_window: read_number(section, "replay-window", REPLAY_WINDOW, sink),
    }
}

/// The list of `key`, or the default when it is absent.
fn at_least_one<T: Copy + PartialEq>(
    section: &Section<'_>,
    key: &str,
    vocabulary: &Vocabulary<'_, T>,
    default: Vec<T>,
    sink: &mut Sink,
) -> Vec<T> {
    match read_listed(section, key, vocabulary, sink) {
        Some(list) if list.value.is_empty() => {
            let title = format!("{} is empty", quoted(key));
            sink.error(list.span, title, "at least one is wanted");
            default
        }
        Some(list) => list.value,
        None => default,
    }
}
