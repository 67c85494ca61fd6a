//! The little DER (X.690) that private keys and ECDSA signatures need. What peers send is read by
//! `rustls-webpki` and `x509-parser`, but for r and s of a signature.

pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;

/// The contents of the element in front, which must have this tag, and what is behind it.
pub(crate) fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, der) = der.split_first()?;
    let (&first, der) = der.split_first()?;
    let (length, der) = match first {
        0..=0x7f => (usize::from(first), der),
        0x81 => {
            let (&length, der) = der.split_first()?;
            (usize::from(length), der)
        }
        0x82 => {
            let (length, der) = der.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), der)
        }
        _ => return None,
    };
    let (contents, rest) = der.split_at_checked(length)?;
    (found == tag).then_some((contents, rest))
}

/// An `Ecdsa-Sig-Value` of r | s, each of half the length (RFC 4754 §7).
pub(crate) fn signature_from_halves(halves: &[u8]) -> Option<Vec<u8>> {
    /// Half of the longest signature, on P-384; its DER has lengths of one octet.
    const HALF_MAX: usize = 48;
    let half = halves.len() / 2;
    if !halves.len().is_multiple_of(2) || half == 0 || half > HALF_MAX {
        return None;
    }
    let (r, s) = halves.split_at(half);
    let contents = [unsigned(r), unsigned(s)].concat();
    Some(
        [
            &[SEQUENCE, u8::try_from(contents.len()).ok()?],
            contents.as_slice(),
        ]
        .concat(),
    )
}

/// r | s of an `Ecdsa-Sig-Value`, each in `half` octets.
pub(crate) fn halves_from_signature(der: &[u8], half: usize) -> Option<Vec<u8>> {
    let (pair, _) = element(der, SEQUENCE)?;
    let (r, rest) = element(pair, INTEGER)?;
    let (s, _) = element(rest, INTEGER)?;
    let mut halves = Vec::with_capacity(2 * half);
    for number in [r, s] {
        let digits = number.iter().position(|octet| *octet != 0);
        let digits = &number[digits.unwrap_or(number.len())..];
        halves.resize(halves.len() + half.checked_sub(digits.len())?, 0);
        halves.extend_from_slice(digits);
    }
    Some(halves)
}

/// A positive INTEGER shorter than 128 octets.
fn unsigned(number: &[u8]) -> Vec<u8> {
    let first = number.iter().position(|octet| *octet != 0);
    let digits = &number[first.unwrap_or(number.len().saturating_sub(1))..];
    let pad: &[u8] = match digits.first() {
        Some(octet) if octet & 0x80 == 0 => &[],
        _ => &[0],
    };
    let length = u8::try_from(pad.len() + digits.len()).unwrap_or(u8::MAX);
    [&[INTEGER, length], pad, digits].concat()
}
