//! The fixed IKE header (RFC 7296 §3.1), enough to find the IKE SA that a datagram belongs to.

use core::fmt;

use crate::code_point::code_points;
use crate::error::{DecodeError, DecodeErrorKind, EncodeError};
use crate::limits::{HEADER_LEN, MAX_MESSAGE_LEN};
use crate::reader::Reader;

/// The major version that this crate encodes and decodes.
pub(crate) const MAJOR_VERSION: u8 = 2;

const FLAG_INITIATOR: u8 = 0x08;
const FLAG_VERSION: u8 = 0x10;
const FLAG_RESPONSE: u8 = 0x20;

/// One end's name for an IKE SA, chosen by that end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IkeSpi(pub [u8; 8]);

impl IkeSpi {
    /// The responder's SPI while it has not chosen one.
    pub const ZERO: Self = Self([0; 8]);

    /// Whether the responder has still to choose it.
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }

    /// The octets as they stand in the header.
    pub fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl fmt::Display for IkeSpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for IkeSpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IkeSpi({self})")
    }
}

/// What a request and its response are about (RFC 7296 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExchangeType {
    /// IKE_SA_INIT (34).
    IkeSaInit,
    /// IKE_AUTH (35).
    IkeAuth,
    /// CREATE_CHILD_SA (36).
    CreateChildSa,
    /// INFORMATIONAL (37).
    Informational,
    /// IKE_INTERMEDIATE (43, RFC 9242).
    IkeIntermediate,
    /// Any other number; decoding never puts one of the above here.
    Other(u8),
}

impl From<u8> for ExchangeType {
    fn from(value: u8) -> Self {
        match value {
            34 => Self::IkeSaInit,
            35 => Self::IkeAuth,
            36 => Self::CreateChildSa,
            37 => Self::Informational,
            43 => Self::IkeIntermediate,
            other => Self::Other(other),
        }
    }
}

impl From<ExchangeType> for u8 {
    fn from(exchange: ExchangeType) -> Self {
        match exchange {
            ExchangeType::IkeSaInit => 34,
            ExchangeType::IkeAuth => 35,
            ExchangeType::CreateChildSa => 36,
            ExchangeType::Informational => 37,
            ExchangeType::IkeIntermediate => 43,
            ExchangeType::Other(other) => other,
        }
    }
}

impl fmt::Display for ExchangeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IkeSaInit => f.write_str("IKE_SA_INIT"),
            Self::IkeAuth => f.write_str("IKE_AUTH"),
            Self::CreateChildSa => f.write_str("CREATE_CHILD_SA"),
            Self::Informational => f.write_str("INFORMATIONAL"),
            Self::IkeIntermediate => f.write_str("IKE_INTERMEDIATE"),
            Self::Other(other) => write!(f, "exchange {other}"),
        }
    }
}

/// The header's flags. The reserved bits are sent as zero and ignored on receipt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags {
    /// I: the sender is the one who initiated the IKE SA (not: this exchange).
    pub initiator: bool,
    /// R: this answers the request with the same message ID.
    pub response: bool,
    /// V: the sender can speak a higher major version; to be sent as `false` by IKEv2.
    pub version: bool,
}

impl Flags {
    fn from_octet(octet: u8) -> Self {
        Self {
            initiator: octet & FLAG_INITIATOR != 0,
            response: octet & FLAG_RESPONSE != 0,
            version: octet & FLAG_VERSION != 0,
        }
    }

    fn to_octet(self) -> u8 {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        bit(self.initiator, FLAG_INITIATOR)
            | bit(self.response, FLAG_RESPONSE)
            | bit(self.version, FLAG_VERSION)
    }
}

code_points! {
    /// Which payload follows (RFC 7296 §3.2). Numbers without a name are legal on the wire.
    pub struct PayloadType(u8) {
        /// No payload follows.
        NONE = 0;
        /// SA.
        SECURITY_ASSOCIATION = 33;
        /// KE.
        KEY_EXCHANGE = 34;
        /// IDi.
        ID_INITIATOR = 35;
        /// IDr.
        ID_RESPONDER = 36;
        /// CERT.
        CERTIFICATE = 37;
        /// CERTREQ.
        CERTIFICATE_REQUEST = 38;
        /// AUTH.
        AUTHENTICATION = 39;
        /// Ni, Nr.
        NONCE = 40;
        /// N.
        NOTIFY = 41;
        /// D.
        DELETE = 42;
        /// V.
        VENDOR_ID = 43;
        /// TSi.
        TRAFFIC_SELECTORS_INITIATOR = 44;
        /// TSr.
        TRAFFIC_SELECTORS_RESPONDER = 45;
        /// SK.
        ENCRYPTED = 46;
        /// CP.
        CONFIGURATION = 47;
        /// EAP.
        EAP = 48;
        /// SKF (RFC 7383).
        ENCRYPTED_FRAGMENT = 53;
    }
}

/// The fixed header without what follows from the rest of the message (first payload's type and
/// length).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Chosen by the initiator of the IKE SA; never zero in an honest message.
    pub initiator_spi: IkeSpi,
    /// Chosen by the responder of the IKE SA; zero in the first request.
    pub responder_spi: IkeSpi,
    /// Major version, four bits; 2 for IKEv2.
    pub major: u8,
    /// Minor version, four bits; to be ignored on receipt.
    pub minor: u8,
    /// The exchange that the message belongs to.
    pub exchange: ExchangeType,
    /// Whose message it is.
    pub flags: Flags,
    /// Numbers the requests of each end from 0; a response has its request's.
    pub message_id: u32,
}

impl Header {
    /// A header of IKE 2.0.
    pub fn new(
        initiator_spi: IkeSpi,
        responder_spi: IkeSpi,
        exchange: ExchangeType,
        flags: Flags,
        message_id: u32,
    ) -> Self {
        Self {
            initiator_spi,
            responder_spi,
            major: MAJOR_VERSION,
            minor: 0,
            exchange,
            flags,
            message_id,
        }
    }

    /// Reads the header alone, whatever its version and length field say: for finding the IKE SA,
    /// and for answering a version that [`Message::decode`](crate::Message::decode) refuses.
    ///
    /// # Errors
    ///
    /// [`DecodeErrorKind::Truncated`] below 28 octets.
    pub fn decode(datagram: &[u8]) -> Result<Self, DecodeError> {
        RawHeader::read(&mut Reader::new(datagram)).map(|raw| raw.header)
    }
}

/// The header with the fields that only the codec needs.
pub(crate) struct RawHeader {
    pub(crate) header: Header,
    pub(crate) first_payload: PayloadType,
    pub(crate) length: u32,
}

impl RawHeader {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if reader.remaining() < HEADER_LEN {
            return Err(reader.fail(DecodeErrorKind::Truncated {
                needed: HEADER_LEN,
                available: reader.remaining(),
            }));
        }
        let initiator_spi = IkeSpi(reader.array()?);
        let responder_spi = IkeSpi(reader.array()?);
        let first_payload = PayloadType(reader.u8()?);
        let version = reader.u8()?;
        let exchange = ExchangeType::from(reader.u8()?);
        let flags = Flags::from_octet(reader.u8()?);
        let message_id = reader.u32()?;
        let length = reader.u32()?;
        let header = Header {
            initiator_spi,
            responder_spi,
            major: version >> 4,
            minor: version & 0x0f,
            exchange,
            flags,
            message_id,
        };
        Ok(Self {
            header,
            first_payload,
            length,
        })
    }
}

/// The 28 octets of a header in a message of `length` octets.
pub(crate) fn header_octets(
    header: &Header,
    first_payload: PayloadType,
    length: usize,
) -> Result<[u8; HEADER_LEN], EncodeError> {
    let Header { major, minor, .. } = *header;
    if major != MAJOR_VERSION || minor > 0x0f {
        return Err(EncodeError::Version { major, minor });
    }
    let length_field = u32::try_from(length)
        .ok()
        .filter(|_| length <= MAX_MESSAGE_LEN)
        .ok_or(EncodeError::MessageTooLong(length))?;
    let mut octets = [0; HEADER_LEN];
    octets[..8].copy_from_slice(&header.initiator_spi.0);
    octets[8..16].copy_from_slice(&header.responder_spi.0);
    octets[16] = first_payload.0;
    octets[17] = major << 4 | minor;
    octets[18] = header.exchange.into();
    octets[19] = header.flags.to_octet();
    octets[20..24].copy_from_slice(&header.message_id.to_be_bytes());
    octets[24..].copy_from_slice(&length_field.to_be_bytes());
    Ok(octets)
}
