//! Helpers for filling in the length and count fields of what is being encoded.

use crate::error::EncodeError;

/// Writes what `body` writes, with the 16-bit length of the whole structure put at
/// `length_at` octets from its start.
pub(crate) fn with_length(
    out: &mut Vec<u8>,
    what: &'static str,
    length_at: usize,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    body(out)?;
    let length = out.len() - start;
    let field = u16::try_from(length)
        .map_err(|_| EncodeError::FieldTooLong { what, length })?
        .to_be_bytes();
    if let Some(place) = out.get_mut(start + length_at..start + length_at + 2) {
        place.copy_from_slice(&field);
    }
    Ok(())
}

/// `bytes.len()` for a one-octet length field.
pub(crate) fn octet_length(what: &'static str, bytes: &[u8]) -> Result<u8, EncodeError> {
    let length = bytes.len();
    u8::try_from(length).map_err(|_| EncodeError::FieldTooLong { what, length })
}

/// Refuses more elements than `limit`.
pub(crate) fn check_count(
    what: &'static str,
    count: usize,
    limit: usize,
) -> Result<(), EncodeError> {
    if count > limit {
        return Err(EncodeError::TooMany { what, limit });
    }
    Ok(())
}
