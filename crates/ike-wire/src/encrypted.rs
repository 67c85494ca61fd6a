//! The Encrypted payload and its fragments (RFC 7296 §3.14, RFC 7383 §2.5): what stands around
//! the ciphertext. Encryption itself is done by whoever has the keys.

use core::fmt;

use crate::code_point::Octets;
use crate::error::{DecodeError, DecodeErrorKind, EncodeError};
use crate::header::{Header, PayloadType, header_octets};
use crate::limits::{HEADER_LEN, PAYLOAD_HEADER_LEN};
use crate::reader::Reader;

/// Octets of the Fragment Number and Total Fragments fields (RFC 7383 §2.5).
const FRAGMENT_FIELDS_LEN: usize = 4;

/// An Encrypted payload (SK), always the last of its message.
#[derive(Clone, PartialEq, Eq)]
pub struct EncryptedPayload {
    /// Type of the first payload in the plaintext; `NONE` if there is no payload in it.
    pub first_inner: PayloadType,
    /// IV, ciphertext (which ends with padding and its length) and ICV.
    pub body: Vec<u8>,
}

impl EncryptedPayload {
    /// The octets of the received datagram before the body: what the ICV covers beside the
    /// body (RFC 7296 §3.14), and the associated data of an AEAD (RFC 5282 §5.1). Gives `None`
    /// if `datagram` is too short to be the one this payload was decoded from.
    pub fn associated_data<'d>(&self, datagram: &'d [u8]) -> Option<&'d [u8]> {
        datagram.get(..datagram.len().checked_sub(self.body.len())?)
    }

    pub(crate) fn read(first_inner: PayloadType, body: &mut Reader<'_>) -> Self {
        Self {
            first_inner,
            body: body.take_rest().to_vec(),
        }
    }
}

impl fmt::Debug for EncryptedPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "EncryptedPayload({}, {:?})",
            self.first_inner,
            Octets(&self.body)
        )
    }
}

/// One fragment of an Encrypted payload (SKF, RFC 7383), always the last payload of its message.
#[derive(Clone, PartialEq, Eq)]
pub struct EncryptedFragment {
    /// In the first fragment the type of the first payload in the plaintext, else `NONE`.
    pub first_inner: PayloadType,
    /// Which fragment this is, from 1.
    pub number: u16,
    /// How many fragments there are; not less than `number`.
    pub total: u16,
    /// IV, ciphertext (which ends with padding and its length) and ICV of this fragment.
    pub body: Vec<u8>,
}

impl EncryptedFragment {
    /// The octets of the received datagram before the body, up to and with the fragment's number
    /// and total (RFC 7383 §2.5). See [`EncryptedPayload::associated_data`].
    pub fn associated_data<'d>(&self, datagram: &'d [u8]) -> Option<&'d [u8]> {
        datagram.get(..datagram.len().checked_sub(self.body.len())?)
    }

    pub(crate) fn read(
        first_inner: PayloadType,
        body: &mut Reader<'_>,
    ) -> Result<Self, DecodeError> {
        let offset = body.offset();
        let number = body.u16()?;
        let total = body.u16()?;
        if number == 0 || number > total {
            let kind = DecodeErrorKind::FragmentNumber { number, total };
            return Err(DecodeError { offset, kind });
        }
        Ok(Self {
            first_inner,
            number,
            total,
            body: body.take_rest().to_vec(),
        })
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend(fragment_fields(self.number, self.total)?);
        out.extend(&self.body);
        Ok(())
    }
}

impl fmt::Debug for EncryptedFragment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            first_inner,
            number,
            total,
            body,
        } = self;
        write!(
            f,
            "EncryptedFragment({number} of {total}, {first_inner}, {:?})",
            Octets(body)
        )
    }
}

/// The start of a message that is one Encrypted payload: IKE header and generic payload header,
/// with the lengths for a body (IV, ciphertext with padding, ICV) of `body_len` octets. It is the
/// associated data of an AEAD (RFC 5282 §5.1); the body is appended to make the datagram.
///
/// # Errors
///
/// The message would be too long, or the header is not of version 2.
pub fn encrypted_header(
    header: &Header,
    first_inner: PayloadType,
    body_len: usize,
) -> Result<Vec<u8>, EncodeError> {
    let payload_len = PAYLOAD_HEADER_LEN.saturating_add(body_len);
    prefix(header, PayloadType::ENCRYPTED, first_inner, payload_len)
}

/// The start of a message that is one Encrypted Fragment payload, like [`encrypted_header`], up
/// to and with the Total Fragments field (RFC 7383 §2.5).
///
/// # Errors
///
/// As [`encrypted_header`], and for a `number` of 0 or above `total`.
pub fn encrypted_fragment_header(
    header: &Header,
    first_inner: PayloadType,
    number: u16,
    total: u16,
    body_len: usize,
) -> Result<Vec<u8>, EncodeError> {
    let fields = fragment_fields(number, total)?;
    let payload_len = (PAYLOAD_HEADER_LEN + FRAGMENT_FIELDS_LEN).saturating_add(body_len);
    let mut out = prefix(
        header,
        PayloadType::ENCRYPTED_FRAGMENT,
        first_inner,
        payload_len,
    )?;
    out.extend(fields);
    Ok(out)
}

fn prefix(
    header: &Header,
    kind: PayloadType,
    first_inner: PayloadType,
    payload_len: usize,
) -> Result<Vec<u8>, EncodeError> {
    let total = HEADER_LEN.saturating_add(payload_len);
    let mut out = header_octets(header, kind, total)?.to_vec();
    let length = u16::try_from(payload_len).map_err(|_| EncodeError::MessageTooLong(total))?;
    out.extend([first_inner.0, 0]);
    out.extend(length.to_be_bytes());
    Ok(out)
}

fn fragment_fields(number: u16, total: u16) -> Result<[u8; FRAGMENT_FIELDS_LEN], EncodeError> {
    if number == 0 || number > total {
        return Err(EncodeError::FragmentNumber { number, total });
    }
    let ([a, b], [c, d]) = (number.to_be_bytes(), total.to_be_bytes());
    Ok([a, b, c, d])
}
