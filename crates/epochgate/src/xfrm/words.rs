//! Short words for what the kernel says at length: algorithm names, sizes, times, flags.
//!
//! Names are those that IKE daemons use in proposals, so that an operator finds in a table what
//! stands in a configuration.

use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, Ipv4Addr};

use epochgate_xfrm::{Aead, Cipher, Integrity, Prefix, Protection};

/// Bits of salt behind the key (RFC 4106 §8.1, RFC 5282, RFC 7634 §2, RFC 3686 §4).
const SALT_BITS: u32 = 32;
/// The same for AES-CCM (RFC 4309 §7.1).
const CCM_SALT_BITS: u32 = 24;

/// The algorithms of an SA, as short as `aes256gcm16` or `aes128-sha256`.
pub(crate) fn algorithms(protection: &Protection) -> String {
    match protection {
        Protection::Larval => "none".to_owned(),
        Protection::Aead(algorithm) => aead(algorithm),
        Protection::Encryption {
            cipher: encryption,
            integrity: Some(authentication),
        } => format!("{}-{}", cipher(encryption), integrity(authentication)),
        Protection::Encryption {
            cipher: encryption,
            integrity: None,
        } => cipher(encryption),
        Protection::Integrity(algorithm) => integrity(algorithm),
        Protection::Compression(algorithm) => algorithm.name.clone(),
    }
}

/// The short name of an AEAD algorithm.
pub(crate) fn aead(algorithm: &Aead) -> String {
    let bits = algorithm.key.bits();
    let icv_bytes = algorithm.icv_bits / 8;
    match algorithm.name.as_str() {
        "rfc4106(gcm(aes))" => format!("aes{}gcm{icv_bytes}", bits.saturating_sub(SALT_BITS)),
        "rfc4309(ccm(aes))" => format!("aes{}ccm{icv_bytes}", bits.saturating_sub(CCM_SALT_BITS)),
        "rfc4543(gcm(aes))" => format!("aes{}gmac", bits.saturating_sub(SALT_BITS)),
        "rfc7539esp(chacha20,poly1305)" => "chacha20poly1305".to_owned(),
        other => other.to_owned(),
    }
}

/// The short name of a cipher.
pub(crate) fn cipher(algorithm: &Cipher) -> String {
    let bits = algorithm.key.bits();
    match algorithm.name.as_str() {
        "cbc(aes)" => format!("aes{bits}"),
        "rfc3686(ctr(aes))" => format!("aes{}ctr", bits.saturating_sub(SALT_BITS)),
        "cbc(des3_ede)" => "3des".to_owned(),
        "cbc(des)" => "des".to_owned(),
        "cbc(cast5)" => format!("cast{bits}"),
        "cbc(sm4)" => "sm4".to_owned(),
        "ecb(cipher_null)" | "cipher_null" => "null".to_owned(),
        other => match other.strip_prefix("cbc(").and_then(|n| n.strip_suffix(')')) {
            Some(name) => format!("{name}{bits}"),
            None => other.to_owned(),
        },
    }
}

/// The short name of an integrity algorithm; a truncation other than the usual one (RFC 4868,
/// RFC 2404, RFC 3566, RFC 4494) is said.
pub(crate) fn integrity(algorithm: &Integrity) -> String {
    let (name, usual_bits) = match algorithm.name.as_str() {
        "hmac(sha1)" => ("sha1", 96),
        "hmac(md5)" => ("md5", 96),
        "hmac(sha256)" => ("sha256", 128),
        "hmac(sha384)" => ("sha384", 192),
        "hmac(sha512)" => ("sha512", 256),
        "hmac(rmd160)" => ("ripemd160", 96),
        "hmac(sm3)" => ("sm3", 256),
        "xcbc(aes)" => ("aesxcbc", 96),
        "cmac(aes)" => ("aescmac", 96),
        "digest_null" => return "null".to_owned(),
        other => (other, 0),
    };
    match algorithm.truncation_bits {
        Some(bits) if bits != usual_bits => format!("{name}_{bits}"),
        Some(_) | None => name.to_owned(),
    }
}

/// What an SA does not do although one may expect it.
pub(crate) fn weakness(protection: &Protection) -> Option<&'static str> {
    match protection {
        Protection::Encryption { cipher, integrity } => match (cipher.name.as_str(), integrity) {
            ("ecb(cipher_null)" | "cipher_null", _) => Some("it encrypts nothing: null cipher"),
            ("cbc(des)", _) => Some("DES can be broken in hours (RFC 8221 §5)"),
            (_, None) => Some("no integrity protection: packets can be forged (RFC 8221 §4)"),
            (_, Some(_)) => None,
        },
        Protection::Larval
        | Protection::Aead(_)
        | Protection::Integrity(_)
        | Protection::Compression(_) => None,
    }
}

/// What `write` writes, for where something to be shown is asked for: a table has a hundred
/// thousand rows, and a string of its own for each word would take half of the time.
pub(crate) fn shown(write: impl Fn(&mut Formatter<'_>) -> fmt::Result) -> impl Display {
    struct Shown<W>(W);

    impl<W: Fn(&mut Formatter<'_>) -> fmt::Result> Display for Shown<W> {
        fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
            (self.0)(f)
        }
    }

    Shown(write)
}

/// The parts, with something between every two of them.
pub(crate) fn joined<T: Display>(
    parts: impl Iterator<Item = T> + Clone,
    between: &str,
) -> impl Display {
    shown(move |f| {
        for (place, part) in parts.clone().enumerate() {
            if place > 0 {
                f.write_str(between)?;
            }
            part.fmt(f)?;
        }
        Ok(())
    })
}

/// An address. The standard library's way to write an IPv4 address goes through its formatting of
/// numbers four times, and lists are full of addresses.
pub(crate) fn address(address: IpAddr) -> impl Display {
    shown(move |f| match address {
        IpAddr::V4(address) => put_ipv4(f, address),
        IpAddr::V6(address) => address.fmt(f),
    })
}

/// A prefix.
pub(crate) fn prefix(prefix: Prefix) -> impl Display {
    shown(move |f| write!(f, "{}/{}", address(prefix.address()), prefix.length()))
}

fn put_ipv4(f: &mut Formatter<'_>, address: Ipv4Addr) -> fmt::Result {
    const LONGEST: usize = "255.255.255.255".len();
    let mut text = [0; LONGEST + 1];
    let mut end = 0;
    let mut put = |byte: u8| {
        if let Some(place) = text.get_mut(end) {
            *place = byte;
        }
        end += 1;
    };
    for octet in address.octets() {
        if octet >= 100 {
            put(b'0' + octet / 100);
        }
        if octet >= 10 {
            put(b'0' + octet / 10 % 10);
        }
        put(b'0' + octet % 10);
        put(b'.');
    }
    let text = text.get(..end - 1).unwrap_or_default();
    f.write_str(str::from_utf8(text).unwrap_or_default())
}

/// A number in three digits and a prefix of the SI: `999`, `1.2k`, `57M`.
pub(crate) fn count(number: u64) -> impl Display {
    shown(move |f| put_count(f, number))
}

fn put_count(f: &mut Formatter<'_>, number: u64) -> fmt::Result {
    const PREFIXES: [char; 6] = ['k', 'M', 'G', 'T', 'P', 'E'];
    if number < 1000 {
        return number.fmt(f);
    }
    let mut unit = 1_u64;
    let mut shown = '?';
    for prefix in PREFIXES {
        let Some(next) = unit.checked_mul(1000).filter(|next| *next <= number) else {
            break;
        };
        (unit, shown) = (next, prefix);
    }
    let whole = number / unit;
    let tenths = number % unit / (unit / 10);
    match whole {
        0..10 => write!(f, "{whole}.{tenths}{shown}"),
        _ => write!(f, "{whole}{shown}"),
    }
}

/// A number of bytes: `999B`, `1.2kB`.
pub(crate) fn bytes(number: u64) -> impl Display {
    shown(move |f| write!(f, "{}B", count(number)))
}

/// A number with its thousands apart: `1,234,567`.
pub(crate) fn digits(number: u64) -> String {
    let plain = number.to_string();
    let mut text = String::with_capacity(plain.len() + plain.len() / 3);
    for (place, digit) in plain.chars().enumerate() {
        if place > 0 && (plain.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time in seconds, in its two largest units: `59s`, `12m5s`, `3h20m`, `5d3h`.
pub(crate) fn seconds(number: u64) -> String {
    let (minutes, hours, days) = (number / 60, number / 3600, number / 86_400);
    let two = |large: u64, unit: char, small: u64, small_unit: char| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit}{small}{small_unit}"),
    };
    if days > 0 {
        two(days, 'd', hours % 24, 'h')
    } else if hours > 0 {
        two(hours, 'h', minutes % 60, 'm')
    } else if minutes > 0 {
        two(minutes, 'm', number % 60, 's')
    } else {
        format!("{number}s")
    }
}

/// A time in seconds, in its largest unit: for columns.
pub(crate) fn roughly(number: u64) -> impl Display {
    shown(move |f| match number {
        0..60 => write!(f, "{number}s"),
        60..3600 => write!(f, "{}m", number / 60),
        3600..172_800 => write!(f, "{}h", number / 3600),
        172_800.. => write!(f, "{}d", number / 86_400),
    })
}

/// `1 packet`, `2 packets`.
pub(crate) fn counted(number: u64, one: &str, many: &str) -> String {
    format!(
        "{} {}",
        digits(number),
        if number == 1 { one } else { many }
    )
}

/// Bytes as hexadecimal digits behind `0x`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 + bytes.len() * 2);
    text.push_str("0x");
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from(
                DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'?'),
            ));
        }
    }
    text
}

/// The names of the `known` flags in `bits`; behind them, after `prefix`, the number of the ones that
/// this version does not know.
pub(crate) fn names_of_bits(bits: u32, known: &[(u32, &str)], prefix: &str) -> Vec<String> {
    let set = known.iter().filter(|(flag, _)| bits & flag == *flag);
    let mut names: Vec<String> = set.map(|(_, name)| (*name).to_owned()).collect();
    let unknown = known.iter().fold(bits, |left, (flag, _)| left & !flag);
    if unknown != 0 {
        names.push(format!("{prefix}{unknown:#x}"));
    }
    names
}

#[cfg(test)]
mod tests {
    use epochgate_xfrm::Key;

    use super::*;

    fn key(bytes: usize) -> Key {
        Key::new(vec![7; bytes])
    }

    #[test]
    fn aead_names_are_those_of_proposals() {
        assert_eq!(algorithms(&Protection::aes_gcm_16(key(36))), "aes256gcm16");
        assert_eq!(algorithms(&Protection::aes_gcm_16(key(20))), "aes128gcm16");
        let chacha = Protection::chacha20_poly1305(key(36));
        assert_eq!(algorithms(&chacha), "chacha20poly1305");
        let ccm = Aead {
            name: "rfc4309(ccm(aes))".into(),
            key: key(19),
            icv_bits: 64,
        };
        assert_eq!(aead(&ccm), "aes128ccm8");
    }

    #[test]
    fn an_unusual_truncation_is_said() {
        let usual = Protection::aes_cbc_hmac_sha256_128(key(32), key(32));
        assert_eq!(algorithms(&usual), "aes256-sha256");
        let short = Integrity {
            name: "hmac(sha256)".into(),
            key: key(32),
            truncation_bits: Some(96),
        };
        assert_eq!(integrity(&short), "sha256_96");
        let unknown = Integrity {
            name: "hmac(new)".into(),
            key: key(32),
            truncation_bits: Some(128),
        };
        assert_eq!(integrity(&unknown), "hmac(new)_128");
    }

    #[test]
    fn ciphers_that_have_no_name_of_their_own_keep_the_kernels() {
        let named = |name: &str, bytes| {
            cipher(&Cipher {
                name: name.into(),
                key: key(bytes),
            })
        };
        assert_eq!(named("cbc(camellia)", 32), "camellia256");
        assert_eq!(named("rfc3686(ctr(aes))", 20), "aes128ctr");
        assert_eq!(named("xts(new)", 32), "xts(new)");
    }

    #[test]
    fn addresses_are_written_as_the_standard_library_writes_them() {
        for octet in 0..=u8::MAX {
            for octets in [
                [octet, 0, 255, octet],
                [255, 255, 255, octet],
                [9, octet, 10, 99],
            ] {
                let v4 = Ipv4Addr::from(octets);
                assert_eq!(address(v4.into()).to_string(), v4.to_string());
            }
        }
        for text in ["::1", "2001:db8::7", "::ffff:192.0.2.1"] {
            let parsed = text.parse().expect("an address");
            assert_eq!(address(parsed).to_string(), text);
        }
        for text in ["10.0.0.0/8", "2001:db8::/32"] {
            assert_eq!(prefix(text.parse().expect("a prefix")).to_string(), text);
        }
    }

    #[test]
    fn counts_have_at_most_three_digits() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1.0k"),
            (9_999, "9.9k"),
            (10_000, "10k"),
            (999_999, "999k"),
            (1_000_000, "1.0M"),
            (u64::MAX, "18E"),
        ] {
            assert_eq!(count(number).to_string(), text);
        }
        assert_eq!(bytes(1_500).to_string(), "1.5kB");
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(digits(0), "0");
        assert_eq!(digits(123), "123");
        assert_eq!(digits(1234), "1,234");
        assert_eq!(digits(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn times_have_two_units() {
        for (number, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (725, "12m5s"),
            (12_000, "3h20m"),
            (442_800, "5d3h"),
        ] {
            assert_eq!(seconds(number), text);
        }
    }

    #[test]
    fn flags_that_nobody_knows_are_a_number_behind_the_others() {
        let known = [(1, "one"), (4, "four")];
        assert_eq!(names_of_bits(5, &known, ""), ["one", "four"]);
        assert_eq!(
            names_of_bits(0x14, &known, "extra "),
            ["four", "extra 0x10"]
        );
        assert!(names_of_bits(0, &known, "").is_empty());
    }

    #[test]
    fn bytes_are_written_as_ip_xfrm_writes_them() {
        assert_eq!(hex(&[0, 0xab, 0x10]), "0x00ab10");
        assert_eq!(hex(&[]), "0x");
    }
}
