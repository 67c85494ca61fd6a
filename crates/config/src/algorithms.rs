//! `tunnel.NAME.algorithms`: names as strongSwan and libreswan users know them, to what is
//! proposed and accepted. Weak algorithms have no name; who asks for one is told so.

use epochgate_controller::config::{Esn, EspSuite, IkeSuite, Pfs, PostQuantum};
use epochgate_controller::crypto::{AesKey, Cipher, Group, Integrity, Prf};

use crate::diagnostic::{Sink, quoted};
use crate::keys::REPLAY_WINDOW;
use crate::reader::Section;
use crate::values::{Choice, Vocabulary, Words, read_choice, read_listed, read_number, read_word};

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

pub(crate) const POST_QUANTUM: Choice<PostQuantum, 3> = Choice {
    words: Words([
        ("off", PostQuantum::Off),
        ("prefer", PostQuantum::Prefer),
        ("require", PostQuantum::Require),
    ]),
    default: 0,
};
pub(crate) const PFS: Choice<Pfs, 2> = Choice {
    words: Words([("prefer", Pfs::Prefer), ("require", Pfs::Require)]),
    default: 0,
};
pub(crate) const ESN: Choice<Esn, 3> = Choice {
    words: Words([
        ("off", Esn::Off),
        ("prefer", Esn::Prefer),
        ("require", Esn::Require),
    ]),
    default: 1,
};

/// Reads `algorithms.ike`.
pub(crate) fn read_ike(section: &Section<'_>, sink: &mut Sink) -> IkeSuite {
    let default = IkeSuite::default();
    IkeSuite {
        ciphers: at_least_one(section, "cipher", &CIPHERS, default.ciphers, sink),
        prfs: at_least_one(section, "prf", &PRFS, default.prfs, sink),
        groups: at_least_one(section, "group", &GROUPS, default.groups, sink),
        post_quantum: read_choice(section, "post-quantum", &POST_QUANTUM, sink),
    }
}

/// Reads `algorithms.esp`.
pub(crate) fn read_esp(section: &Section<'_>, sink: &mut Sink) -> EspSuite {
    let default = EspSuite::default();
    let groups = read_listed(section, "group", &GROUPS, sink);
    let pfs = read_word(section, "pfs", &PFS.words, sink);
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
        pfs: pfs.map_or(PFS.default(), |pfs| pfs.value),
        esn: read_choice(section, "esn", &ESN, sink),
        replay_window: read_number(section, "replay-window", REPLAY_WINDOW, sink).value,
    }
}

/// The names of all ciphers; for the reference.
pub(crate) fn cipher_names() -> Vec<&'static str> {
    CIPHERS.words.iter().map(|(name, _)| *name).collect()
}

/// As [`cipher_names`]: pseudorandom functions.
pub(crate) fn prf_names() -> Vec<&'static str> {
    PRFS.words.iter().map(|(name, _)| *name).collect()
}

/// As [`cipher_names`]: key exchange methods.
pub(crate) fn group_names() -> Vec<&'static str> {
    GROUPS.words.iter().map(|(name, _)| *name).collect()
}

/// The names of what is proposed for IKE by default, best first; for the reference.
pub(crate) fn default_ciphers() -> Vec<&'static str> {
    names(&CIPHERS, &IkeSuite::default().ciphers)
}

/// As [`default_ciphers`]: pseudorandom functions.
pub(crate) fn default_prfs() -> Vec<&'static str> {
    names(&PRFS, &IkeSuite::default().prfs)
}

/// As [`default_ciphers`]: key exchange methods.
pub(crate) fn default_groups() -> Vec<&'static str> {
    names(&GROUPS, &IkeSuite::default().groups)
}

/// As [`default_ciphers`], for ESP.
pub(crate) fn default_esp_ciphers() -> Vec<&'static str> {
    names(&CIPHERS, &EspSuite::default().ciphers)
}

/// As [`default_groups`], for ESP.
pub(crate) fn default_esp_groups() -> Vec<&'static str> {
    names(&GROUPS, &EspSuite::default().groups)
}

fn names<T: PartialEq>(vocabulary: &Vocabulary<'static, T>, values: &[T]) -> Vec<&'static str> {
    let name = |value: &T| {
        let mut words = vocabulary.words.iter();
        words.find(|(_, it)| it == value).map(|(name, _)| *name)
    };
    values.iter().filter_map(name).collect()
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
