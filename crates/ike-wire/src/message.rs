//! Whole messages, and chains of payloads such as the plaintext of an Encrypted payload
//! (RFC 7296 §3.1, §3.2).

use crate::error::{DecodeError, DecodeErrorKind, EncodeError};
use crate::header::{Header, MAJOR_VERSION, PayloadType, RawHeader, header_octets};
use crate::limits::{HEADER_LEN, MAX_MESSAGE_LEN, MAX_PAYLOADS, PAYLOAD_HEADER_LEN};
use crate::payload::Payload;
use crate::reader::Reader;
use crate::writer::{check_count, with_length};

/// Offset of the version octet in the header.
const VERSION_OFFSET: usize = 17;
/// Offset of the length field in the header.
const LENGTH_OFFSET: usize = 24;
/// The critical bit of the generic payload header (RFC 7296 §3.2).
const CRITICAL: u8 = 0x80;

/// A message as it stands in one datagram. Its exact octets, which AUTH covers (RFC 7296 §2.15),
/// are the datagram's own: keep those, do not encode again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The fixed header.
    pub header: Header,
    /// The payloads in the order of the wire.
    pub payloads: Vec<Payload>,
}

impl Message {
    /// Decodes a datagram, which must be one message and nothing else (on port 4500: without the
    /// four zero octets before it). Whether the payloads make sense together is for the caller to
    /// say; of a known payload the critical bit is ignored (RFC 7296 §2.5).
    ///
    /// # Errors
    ///
    /// See [`DecodeErrorKind`].
    pub fn decode(datagram: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(datagram);
        let RawHeader {
            header,
            first_payload,
            length,
        } = RawHeader::read(&mut reader)?;
        let fail = |offset, kind| Err(DecodeError { offset, kind });
        let major = header.major;
        if major > MAJOR_VERSION {
            return fail(VERSION_OFFSET, DecodeErrorKind::NewerMajorVersion { major });
        }
        if major < MAJOR_VERSION {
            return fail(VERSION_OFFSET, DecodeErrorKind::OlderMajorVersion { major });
        }
        let actual = datagram.len();
        if usize::try_from(length) != Ok(actual) {
            return fail(
                LENGTH_OFFSET,
                DecodeErrorKind::MessageLength {
                    claimed: length,
                    actual,
                },
            );
        }
        if actual > MAX_MESSAGE_LEN {
            return fail(LENGTH_OFFSET, DecodeErrorKind::MessageTooLong(actual));
        }
        let payloads = read_chain(first_payload, reader, Place::Message)?;
        Ok(Self { header, payloads })
    }

    /// Encodes the message as one datagram.
    ///
    /// # Errors
    ///
    /// See [`EncodeError`].
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let mut out = vec![0; HEADER_LEN];
        let first = write_chain(&mut out, &self.payloads, Place::Message)?;
        let header = header_octets(&self.header, first, out.len())?;
        out[..HEADER_LEN].copy_from_slice(&header);
        Ok(out)
    }
}

/// Decodes a chain of payloads that is not a message: the plaintext of an Encrypted payload,
/// padding removed. `first` is the Encrypted payload's
/// [`first_inner`](crate::EncryptedPayload::first_inner).
///
/// # Errors
///
/// See [`DecodeErrorKind`]; offsets count from the start of `bytes`.
pub fn decode_payloads(first: PayloadType, bytes: &[u8]) -> Result<Vec<Payload>, DecodeError> {
    read_chain(first, Reader::new(bytes), Place::Inside)
}

/// Encodes a chain of payloads to be encrypted, with the type of the first of them (`NONE` for an
/// empty chain) for [`encrypted_header`](crate::encrypted_header).
///
/// # Errors
///
/// See [`EncodeError`].
pub fn encode_payloads(payloads: &[Payload]) -> Result<(PayloadType, Vec<u8>), EncodeError> {
    let mut out = Vec::new();
    let first = write_chain(&mut out, payloads, Place::Inside)?;
    if out.len() > MAX_MESSAGE_LEN {
        return Err(EncodeError::MessageTooLong(out.len()));
    }
    Ok((first, out))
}

/// Where a chain of payloads stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Behind an IKE header.
    Message,
    /// In the plaintext of an Encrypted payload.
    Inside,
}

fn is_encrypted(kind: PayloadType) -> bool {
    matches!(
        kind,
        PayloadType::ENCRYPTED | PayloadType::ENCRYPTED_FRAGMENT
    )
}

fn read_chain(
    first: PayloadType,
    mut reader: Reader<'_>,
    place: Place,
) -> Result<Vec<Payload>, DecodeError> {
    let mut payloads = Vec::new();
    let mut kind = first;
    while kind != PayloadType::NONE {
        let offset = reader.offset();
        let fail = |kind| Err(DecodeError { offset, kind });
        if payloads.len() == MAX_PAYLOADS {
            return fail(DecodeErrorKind::TooMany {
                what: "payloads",
                limit: MAX_PAYLOADS,
            });
        }
        if is_encrypted(kind) && place == Place::Inside {
            return fail(DecodeErrorKind::NestedEncrypted);
        }
        let next = PayloadType(reader.u8()?);
        let critical = reader.u8()? & CRITICAL != 0;
        let length = usize::from(reader.u16()?);
        let Some(body_len) = length.checked_sub(PAYLOAD_HEADER_LEN) else {
            let minimum = PAYLOAD_HEADER_LEN;
            return fail(DecodeErrorKind::LengthBelowMinimum { length, minimum });
        };
        let body = reader.sub(body_len)?;
        payloads.push(Payload::read(kind, critical, next, body)?);
        if is_encrypted(kind) {
            // Its Next Payload names what is inside it.
            if !reader.is_empty() {
                return Err(reader.fail(DecodeErrorKind::EncryptedNotLast));
            }
            break;
        }
        kind = next;
    }
    reader.finish()?;
    Ok(payloads)
}

fn write_chain(
    out: &mut Vec<u8>,
    payloads: &[Payload],
    place: Place,
) -> Result<PayloadType, EncodeError> {
    check_count("payloads", payloads.len(), MAX_PAYLOADS)?;
    for (index, payload) in payloads.iter().enumerate() {
        let following = payloads.get(index + 1).map(Payload::kind);
        let kind = payload.kind();
        let misplaced = is_encrypted(kind) && (place == Place::Inside || following.is_some());
        if misplaced || kind == PayloadType::NONE {
            return Err(EncodeError::Misplaced(kind));
        }
        let next = match payload {
            Payload::Encrypted(encrypted) => encrypted.first_inner,
            Payload::EncryptedFragment(fragment) => fragment.first_inner,
            _ => following.unwrap_or(PayloadType::NONE),
        };
        let critical = matches!(payload, Payload::Unknown { critical: true, .. });
        with_length(out, "payload", 2, |out| {
            out.extend([next.0, if critical { CRITICAL } else { 0 }, 0, 0]);
            payload.write_body(out)
        })?;
    }
    Ok(payloads.first().map_or(PayloadType::NONE, Payload::kind))
}
