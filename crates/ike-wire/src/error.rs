//! What can be wrong with bytes that came in, and with a message that is to go out.

use crate::header::PayloadType;
use crate::limits::{MAX_MESSAGE_LEN, MAX_NONCE_LEN, MIN_NONCE_LEN};

/// Bytes that are no IKEv2 message. The datagram is to be dropped and counted; inside a message
/// whose integrity was verified the answer is INVALID_SYNTAX (RFC 7296 §2.21.2), and for
/// [`DecodeErrorKind::NewerMajorVersion`] it is INVALID_MAJOR_VERSION (§2.5).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} at offset {offset}")]
pub struct DecodeError {
    /// Octets from the start of the slice that was to be decoded to the mistake.
    pub offset: usize,
    /// The mistake.
    pub kind: DecodeErrorKind,
}

/// The mistakes that decoding tells apart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeErrorKind {
    /// A field goes beyond the end of what contains it.
    #[error("truncated: {needed} octets needed, {available} there")]
    Truncated {
        /// Octets that the field has.
        needed: usize,
        /// Octets that were left.
        available: usize,
    },
    /// The major version is above 2: answer INVALID_MAJOR_VERSION, with the fields of
    /// [`Header::decode`](crate::Header::decode), if it is a request (RFC 7296 §2.5).
    #[error("IKE major version {major} is newer than 2")]
    NewerMajorVersion {
        /// The version that the peer speaks.
        major: u8,
    },
    /// The major version is below 2 (IKEv1): drop.
    #[error("IKE major version {major} is older than 2")]
    OlderMajorVersion {
        /// The version that the peer speaks.
        major: u8,
    },
    /// The header's length field is not the length of the datagram.
    #[error("length field says {claimed} octets, the datagram has {actual}")]
    MessageLength {
        /// What the header says.
        claimed: u32,
        /// What was received.
        actual: usize,
    },
    /// The datagram is longer than [`MAX_MESSAGE_LEN`].
    #[error("message of {0} octets is longer than {MAX_MESSAGE_LEN}")]
    MessageTooLong(usize),
    /// The length field of a payload or substructure is smaller than its own fixed part.
    #[error("length field {length} is below the minimum of {minimum}")]
    LengthBelowMinimum {
        /// What the length field says, in octets.
        length: usize,
        /// What it must be at least.
        minimum: usize,
    },
    /// Bytes are left behind the last element of a structure.
    #[error("{0} octets left over")]
    TrailingOctets(usize),
    /// More elements than the limit of that name in [`limits`](crate::limits) allows.
    #[error("more than {limit} {what}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// A count field does not agree with the elements that follow.
    #[error("count field says {claimed} {what}, there are {actual}")]
    Count {
        /// What is counted.
        what: &'static str,
        /// What the count field says.
        claimed: usize,
        /// What follows.
        actual: usize,
    },
    /// The "last substructure" field of a proposal or transform has an undefined value or says
    /// the opposite of what the lengths say (RFC 7296 §3.3.1, §3.3.2).
    #[error("last-substructure field {0} contradicts the lengths")]
    LastSubstructure(u8),
    /// An Encrypted or Encrypted Fragment payload is followed by another payload
    /// (RFC 7296 §3.14).
    #[error("octets follow the Encrypted payload")]
    EncryptedNotLast,
    /// An Encrypted or Encrypted Fragment payload inside another.
    #[error("Encrypted payload inside an Encrypted payload")]
    NestedEncrypted,
    /// A fragment number of 0 or above the number of fragments (RFC 7383 §2.5).
    #[error("fragment {number} of {total}")]
    FragmentNumber {
        /// Fragment Number field.
        number: u16,
        /// Total Fragments field.
        total: u16,
    },
    /// A nonce of forbidden length (RFC 7296 §3.9).
    #[error("nonce of {0} octets; allowed are {MIN_NONCE_LEN} to {MAX_NONCE_LEN}")]
    NonceLength(usize),
    /// An identification, address or selector whose length does not fit its type.
    #[error("{what} of {length} octets")]
    FieldLength {
        /// Which field.
        what: &'static str,
        /// Its length in octets.
        length: usize,
    },
    /// An ID_FQDN or ID_RFC822_ADDR that is not text.
    #[error("identification is not UTF-8 text")]
    NotText,
    /// A Delete for a protocol that has no SAs, or with the wrong SPI size (RFC 7296 §3.11).
    #[error("Delete for protocol {protocol} with SPIs of {spi_size} octets")]
    DeleteSpiSize {
        /// Protocol ID field.
        protocol: u8,
        /// SPI Size field, in octets.
        spi_size: u8,
    },
    /// A traffic selector whose start is above its end (RFC 7296 §3.13.1).
    #[error("traffic selector range starts above its end")]
    InvertedRange,
}

/// A message that cannot be put into bytes: a mistake of the caller, or more than fits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The message would be longer than [`MAX_MESSAGE_LEN`].
    #[error("message of {0} octets is longer than {MAX_MESSAGE_LEN}")]
    MessageTooLong(usize),
    /// A structure is too long for its length field.
    #[error("{what} of {length} octets is too long for its length field")]
    FieldTooLong {
        /// Which structure.
        what: &'static str,
        /// How long it would be, in octets.
        length: usize,
    },
    /// More elements than the limit of that name in [`limits`](crate::limits) allows.
    #[error("more than {limit} {what}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// Only major version 2 can be encoded, and the minor version has four bits.
    #[error("cannot encode IKE version {major}.{minor}")]
    Version {
        /// Major version.
        major: u8,
        /// Minor version.
        minor: u8,
    },
    /// A payload of this type cannot stand here: type 0 nowhere, an Encrypted or Encrypted
    /// Fragment payload only at the end of a message and never inside another.
    #[error("{0} payload in a place where it is not allowed")]
    Misplaced(PayloadType),
    /// A fragment number of 0 or above the number of fragments (RFC 7383 §2.5).
    #[error("fragment {number} of {total}")]
    FragmentNumber {
        /// Number of the fragment.
        number: u16,
        /// How many there are.
        total: u16,
    },
    /// A nonce of forbidden length (RFC 7296 §3.9).
    #[error("nonce of {0} octets; allowed are {MIN_NONCE_LEN} to {MAX_NONCE_LEN}")]
    NonceLength(usize),
    /// A configuration attribute type above 15 bits (RFC 7296 §3.15.1).
    #[error("configuration attribute type {0} has more than 15 bits")]
    AttributeType(u16),
}
