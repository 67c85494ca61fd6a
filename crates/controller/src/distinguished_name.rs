//! Distinguished names (X.501, RFC 5280 §4.1.2.4): text as in RFC 4514 ⇄ DER.
//!
//! Text comes from the configuration, DER from certificates and from ID_DER_ASN1_DN payloads, which
//! are hostile. Two names are the same when they have the same attributes in the same order,
//! whatever string types their values have.

use std::fmt::{self, Write as _};

/// Octets of a name in DER at most.
pub const DISTINGUISHED_NAME_LEN_MAX: usize = 2048;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;

/// Short names of attribute types and the contents of their object identifiers
/// (RFC 4514 §3, RFC 2985 §5.2.1).
const TYPES: [(&str, &[u8]); 10] = [
    ("CN", &[0x55, 0x04, 0x03]),
    ("SERIALNUMBER", &[0x55, 0x04, 0x05]),
    ("C", &[0x55, 0x04, 0x06]),
    ("L", &[0x55, 0x04, 0x07]),
    ("ST", &[0x55, 0x04, 0x08]),
    ("STREET", &[0x55, 0x04, 0x09]),
    ("O", &[0x55, 0x04, 0x0a]),
    ("OU", &[0x55, 0x04, 0x0b]),
    (
        "DC",
        &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x19],
    ),
    ("E", &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x01]),
];
/// What a country or serial number is written in (RFC 5280 Appendix A.1).
const PRINTABLE_TYPES: [&str; 2] = ["C", "SERIALNUMBER"];
/// What a domain component or mail address is written in.
const IA5_TYPES: [&str; 2] = ["DC", "E"];

/// A distinguished name, well-formed.
#[derive(Clone)]
pub struct DistinguishedName {
    der: Vec<u8>,
    /// Attributes as DER has them, the most general first.
    attributes: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Attribute {
    /// Begins a new relative name (else it belongs to the one before it).
    begins: bool,
    kind: Vec<u8>,
    value: Vec<u8>,
}

impl DistinguishedName {
    /// Reads DER. `None`: malformed, longer than [`DISTINGUISHED_NAME_LEN_MAX`], or empty.
    #[must_use]
    pub fn from_der(der: &[u8]) -> Option<Self> {
        if der.len() > DISTINGUISHED_NAME_LEN_MAX {
            return None;
        }
        let (mut names, rest) = element(der, SEQUENCE)?;
        if !rest.is_empty() {
            return None;
        }
        let mut attributes = Vec::new();
        while !names.is_empty() {
            let (mut set, after) = element(names, SET)?;
            names = after;
            let mut begins = true;
            if set.is_empty() {
                return None;
            }
            while !set.is_empty() {
                let (pair, after) = element(set, SEQUENCE)?;
                set = after;
                let (kind, value) = element(pair, OBJECT_IDENTIFIER)?;
                let (_, value, rest) = any_element(value)?;
                if kind.is_empty() || !rest.is_empty() {
                    return None;
                }
                attributes.push(Attribute {
                    begins,
                    kind: kind.to_vec(),
                    value: value.to_vec(),
                });
                begins = false;
            }
        }
        (!attributes.is_empty()).then(|| Self {
            der: der.to_vec(),
            attributes,
        })
    }

    /// Reads text such as `CN=gate, O=Example, C=DE`: the most particular first (RFC 4514 §2.1).
    /// A backslash takes the special meaning from the character behind it, or is followed by two
    /// hexadecimal digits (§2.4). `None`: no such text, or an attribute type that is not known.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let mut names = Vec::new();
        for relative in split(text, ',') {
            let mut pairs = Vec::new();
            for pair in split(relative, '+') {
                let (kind, value) = pair.split_once('=')?;
                let wanted = kind.trim().to_ascii_uppercase();
                let wanted = match wanted.as_str() {
                    "EMAIL" | "EMAILADDRESS" => "E",
                    "S" => "ST",
                    other => other,
                };
                let (kind, oid) = TYPES.iter().find(|(name, _)| *name == wanted)?;
                let value = unescape(value.trim_start())?;
                if value.is_empty() {
                    return None;
                }
                let tag = if PRINTABLE_TYPES.contains(kind) {
                    PRINTABLE_STRING
                } else if IA5_TYPES.contains(kind) {
                    IA5_STRING
                } else {
                    UTF8_STRING
                };
                let pair = [
                    encode(OBJECT_IDENTIFIER, oid),
                    encode(tag, value.as_bytes()),
                ];
                pairs.push(encode(SEQUENCE, &pair.concat()));
            }
            // The members of a SET OF are in ascending order (X.690 §11.6).
            pairs.sort();
            names.push(encode(SET, &pairs.concat()));
        }
        names.reverse();
        Self::from_der(&encode(SEQUENCE, &names.concat()))
    }

    /// The name in DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }
}

impl PartialEq for DistinguishedName {
    fn eq(&self, other: &Self) -> bool {
        self.attributes == other.attributes
    }
}

impl Eq for DistinguishedName {}

impl PartialOrd for DistinguishedName {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for DistinguishedName {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.attributes.cmp(&other.attributes)
    }
}

impl std::hash::Hash for DistinguishedName {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.attributes.hash(state);
    }
}

impl fmt::Display for DistinguishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The last relative name comes first; attributes of one stay in order.
        let mut rest = self.attributes.as_slice();
        while let Some(start) = rest.iter().rposition(|it| it.begins) {
            let (before, relative) = rest.split_at(start);
            if rest.len() != self.attributes.len() {
                f.write_str(", ")?;
            }
            for (index, attribute) in relative.iter().enumerate() {
                if index > 0 {
                    f.write_str("+")?;
                }
                attribute.fmt(f)?;
            }
            rest = before;
        }
        Ok(())
    }
}

impl fmt::Debug for DistinguishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DistinguishedName({self})")
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match TYPES.iter().find(|(_, oid)| *oid == self.kind) {
            Some((name, _)) => f.write_str(name)?,
            None => {
                f.write_str("oid:")?;
                self.kind.iter().try_for_each(|o| write!(f, "{o:02x}"))?;
            }
        }
        f.write_char('=')?;
        let text = String::from_utf8_lossy(&self.value);
        for c in text.chars() {
            match c {
                ',' | '+' | '"' | '\\' | '<' | '>' | ';' => write!(f, "\\{c}")?,
                c if c.is_control() => write!(f, "\\{:02x}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Parts of a text between separators that no backslash precedes.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    text.split(move |c: char| {
        let ends = c == separator && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    })
}

/// The text that a value stands for.
fn unescape(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut input = text.bytes().peekable();
    let mut kept = 0;
    while let Some(octet) = input.next() {
        if octet != b'\\' {
            octets.push(octet);
            if octet != b' ' {
                kept = octets.len();
            }
            continue;
        }
        let first = input.next()?;
        let digit = |octet: u8| char::from(octet).to_digit(16);
        let pair = digit(first).zip(input.peek().copied().and_then(digit));
        match pair {
            Some((high, low)) => {
                input.next();
                octets.push(u8::try_from(high * 16 + low).ok()?);
            }
            None => octets.push(first),
        }
        kept = octets.len();
    }
    // Blanks at the end count only when they are escaped.
    octets.truncate(kept);
    String::from_utf8(octets).ok()
}

/// The contents of the element in front, which must have this tag, and what is behind it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, contents, rest) = any_element(der)?;
    (found == tag).then_some((contents, rest))
}

/// Tag and contents of the element in front, and what is behind it. Lengths have their shortest
/// form and at most two octets (X.690 §10.1).
fn any_element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    const LONG_ONE: u8 = 0x81;
    const LONG_TWO: u8 = 0x82;
    let (&tag, der) = der.split_first()?;
    let (&first, der) = der.split_first()?;
    let (length, der) = match first {
        0..=0x7f => (usize::from(first), der),
        LONG_ONE => {
            let (&length, der) = der.split_first()?;
            (usize::from(length), der)
        }
        LONG_TWO => {
            let (length, der) = der.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), der)
        }
        _ => return None,
    };
    let shortest = match first {
        LONG_ONE => length >= 0x80,
        LONG_TWO => length >= 0x100,
        _ => true,
    };
    let (contents, rest) = der.split_at_checked(length)?;
    shortest.then_some((tag, contents, rest))
}

/// An element in DER. Contents are far shorter than 64 KiB: they come from one line of text.
fn encode(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut der = vec![tag];
    match (u8::try_from(contents.len()), u16::try_from(contents.len())) {
        (Ok(length @ 0..=0x7f), _) => der.push(length),
        (Ok(length), _) => der.extend([0x81, length]),
        (_, length) => {
            der.push(0x82);
            der.extend(length.unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    der.extend_from_slice(contents);
    der
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;

    fn name(text: &str) -> DistinguishedName {
        DistinguishedName::from_text(text).unwrap()
    }

    #[test]
    fn the_most_particular_name_is_written_first_and_encoded_last() {
        let der = name("CN=a, C=DE").der().to_vec();
        let want = [
            0x30, 0x19, 0x31, 0x0b, 0x30, 0x09, 0x06, 0x03, 0x55, 0x04, 0x06, 0x13, 0x02, b'D',
            b'E', 0x31, 0x0a, 0x30, 0x08, 0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, 0x01, b'a',
        ];
        assert_eq!(der, want);
        assert_eq!(
            DistinguishedName::from_der(&der).unwrap(),
            name("CN=a,C=DE")
        );
    }

    #[test]
    fn text_and_der_say_the_same() {
        for text in [
            "CN=gate, O=Example, C=DE",
            "CN=a\\, b, O=x\\+y",
            "E=a@b.example, CN=ü",
            "CN=two+OU=parts, O=x",
            "DC=example, DC=com",
        ] {
            let name = name(text);
            let again = DistinguishedName::from_der(name.der()).unwrap();
            assert_eq!(again, name);
            assert_eq!(DistinguishedName::from_text(&again.to_string()), Some(name));
        }
        assert_eq!(name("cn = x ,o=y").to_string(), "CN=x, O=y");
        assert_eq!(name("CN=a\\2cb").to_string(), "CN=a\\,b");
    }

    #[test]
    fn a_string_type_does_not_make_another_name() {
        let utf8 = name("O=x");
        let mut printable = utf8.der().to_vec();
        let tag = printable.iter().rposition(|o| *o == UTF8_STRING).unwrap();
        printable[tag] = PRINTABLE_STRING;
        assert_eq!(DistinguishedName::from_der(&printable), Some(utf8.clone()));
        assert_ne!(name("O=y"), utf8);
        assert_ne!(name("CN=x"), utf8);
        assert_ne!(name("O=x, C=DE"), utf8);
    }

    #[test]
    fn relative_names_are_not_confused_with_pairs_inside_one() {
        assert_ne!(name("CN=a+O=b"), name("O=b, CN=a"));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for wrong in ["", "gate", "CN=", "XX=y", "CN=a,", "CN=a\\", "=x"] {
            assert!(DistinguishedName::from_text(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn every_cut_and_every_changed_octet_of_a_name_is_read_without_a_panic() {
        let der = name("CN=gate+OU=y, O=Example, C=DE").der().to_vec();
        for cut in 0..der.len() {
            assert!(DistinguishedName::from_der(&der[..cut]).is_none());
        }
        for index in 0..der.len() {
            for octet in 0..=u8::MAX {
                let mut changed = der.clone();
                changed[index] = octet;
                if let Some(name) = DistinguishedName::from_der(&changed) {
                    let _ = name.to_string();
                }
            }
        }
    }
}
