//! The payloads of a message, and those of them that are too small for a module of their own.

use core::fmt;

use crate::certificate::{Certificate, CertificateRequest};
use crate::code_point::{Octets, code_points};
use crate::configuration::Configuration;
use crate::encrypted::{EncryptedFragment, EncryptedPayload};
use crate::error::{DecodeError, DecodeErrorKind, EncodeError};
use crate::header::PayloadType;
use crate::identification::Identification;
use crate::limits::{MAX_NONCE_LEN, MAX_SPIS_IN_DELETE, MIN_NONCE_LEN};
use crate::notify::Notify;
use crate::proposal::{Proposal, Protocol, read_proposals, write_proposals};
use crate::reader::Reader;
use crate::traffic_selector::{TrafficSelector, read_selectors, write_selectors};
use crate::transform::KeyExchangeMethod;
use crate::writer::check_count;

/// Octets of an SPI of ESP or AH (RFC 7296 §3.11).
const CHILD_SPI_LEN: u8 = 4;

/// One payload of a message (RFC 7296 §3.2).
#[derive(Clone, PartialEq, Eq)]
pub enum Payload {
    /// SA (§3.3).
    SecurityAssociation(Vec<Proposal>),
    /// KE (§3.4).
    KeyExchange(KeyExchange),
    /// IDi (§3.5).
    IdInitiator(Identification),
    /// IDr (§3.5).
    IdResponder(Identification),
    /// CERT (§3.6).
    Certificate(Certificate),
    /// CERTREQ (§3.7).
    CertificateRequest(CertificateRequest),
    /// AUTH (§3.8).
    Authentication(Authentication),
    /// Ni or Nr (§3.9).
    Nonce(Nonce),
    /// N (§3.10).
    Notify(Notify),
    /// D (§3.11).
    Delete(Delete),
    /// V (§3.12).
    VendorId(Vec<u8>),
    /// TSi (§3.13).
    TrafficSelectorsInitiator(Vec<TrafficSelector>),
    /// TSr (§3.13).
    TrafficSelectorsResponder(Vec<TrafficSelector>),
    /// SK (§3.14).
    Encrypted(EncryptedPayload),
    /// SKF (RFC 7383 §2.5).
    EncryptedFragment(EncryptedFragment),
    /// CP (§3.15).
    Configuration(Configuration),
    /// EAP (§3.16): the EAP message.
    Eap(Vec<u8>),
    /// Any other type; decoding never puts one of the above here.
    Unknown {
        /// Its type; never `NONE`.
        kind: PayloadType,
        /// Whether the message must be refused with UNSUPPORTED_CRITICAL_PAYLOAD by one who does
        /// not know the type; otherwise the payload is skipped (§2.5).
        critical: bool,
        /// What follows the generic payload header.
        body: Vec<u8>,
    },
}

impl Payload {
    /// The type that announces it in the payload before it.
    pub fn kind(&self) -> PayloadType {
        match self {
            Self::SecurityAssociation(_) => PayloadType::SECURITY_ASSOCIATION,
            Self::KeyExchange(_) => PayloadType::KEY_EXCHANGE,
            Self::IdInitiator(_) => PayloadType::ID_INITIATOR,
            Self::IdResponder(_) => PayloadType::ID_RESPONDER,
            Self::Certificate(_) => PayloadType::CERTIFICATE,
            Self::CertificateRequest(_) => PayloadType::CERTIFICATE_REQUEST,
            Self::Authentication(_) => PayloadType::AUTHENTICATION,
            Self::Nonce(_) => PayloadType::NONCE,
            Self::Notify(_) => PayloadType::NOTIFY,
            Self::Delete(_) => PayloadType::DELETE,
            Self::VendorId(_) => PayloadType::VENDOR_ID,
            Self::TrafficSelectorsInitiator(_) => PayloadType::TRAFFIC_SELECTORS_INITIATOR,
            Self::TrafficSelectorsResponder(_) => PayloadType::TRAFFIC_SELECTORS_RESPONDER,
            Self::Encrypted(_) => PayloadType::ENCRYPTED,
            Self::EncryptedFragment(_) => PayloadType::ENCRYPTED_FRAGMENT,
            Self::Configuration(_) => PayloadType::CONFIGURATION,
            Self::Eap(_) => PayloadType::EAP,
            Self::Unknown { kind, .. } => *kind,
        }
    }

    /// Reads the body of a payload of type `kind`. `next` is the generic header's Next Payload,
    /// which in an Encrypted payload names what is inside.
    pub(crate) fn read(
        kind: PayloadType,
        critical: bool,
        next: PayloadType,
        mut body: Reader<'_>,
    ) -> Result<Self, DecodeError> {
        let reader = &mut body;
        let payload = match kind {
            PayloadType::SECURITY_ASSOCIATION => Self::SecurityAssociation(read_proposals(reader)?),
            PayloadType::KEY_EXCHANGE => Self::KeyExchange(KeyExchange::read(reader)?),
            PayloadType::ID_INITIATOR => Self::IdInitiator(Identification::read(reader)?),
            PayloadType::ID_RESPONDER => Self::IdResponder(Identification::read(reader)?),
            PayloadType::CERTIFICATE => Self::Certificate(Certificate::read(reader)?),
            PayloadType::CERTIFICATE_REQUEST => {
                Self::CertificateRequest(CertificateRequest::read(reader)?)
            }
            PayloadType::AUTHENTICATION => Self::Authentication(Authentication::read(reader)?),
            PayloadType::NONCE => Self::Nonce(Nonce::read(reader)?),
            PayloadType::NOTIFY => Self::Notify(Notify::read(reader)?),
            PayloadType::DELETE => Self::Delete(Delete::read(reader)?),
            PayloadType::VENDOR_ID => Self::VendorId(reader.take_rest().to_vec()),
            PayloadType::TRAFFIC_SELECTORS_INITIATOR => {
                Self::TrafficSelectorsInitiator(read_selectors(reader)?)
            }
            PayloadType::TRAFFIC_SELECTORS_RESPONDER => {
                Self::TrafficSelectorsResponder(read_selectors(reader)?)
            }
            PayloadType::ENCRYPTED => Self::Encrypted(EncryptedPayload::read(next, reader)),
            PayloadType::ENCRYPTED_FRAGMENT => {
                Self::EncryptedFragment(EncryptedFragment::read(next, reader)?)
            }
            PayloadType::CONFIGURATION => Self::Configuration(Configuration::read(reader)?),
            PayloadType::EAP => Self::Eap(reader.take_rest().to_vec()),
            kind => Self::Unknown {
                kind,
                critical,
                body: reader.take_rest().to_vec(),
            },
        };
        body.finish()?;
        Ok(payload)
    }

    /// Writes what follows the generic payload header.
    pub(crate) fn write_body(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self {
            Self::SecurityAssociation(proposals) => write_proposals(out, proposals)?,
            Self::KeyExchange(exchange) => exchange.write(out),
            Self::IdInitiator(id) | Self::IdResponder(id) => id.write(out),
            Self::Certificate(certificate) => certificate.write(out),
            Self::CertificateRequest(request) => request.write(out),
            Self::Authentication(authentication) => authentication.write(out),
            Self::Nonce(nonce) => out.extend(nonce.as_bytes()),
            Self::Notify(notify) => notify.write(out)?,
            Self::Delete(delete) => delete.write(out)?,
            Self::TrafficSelectorsInitiator(selectors)
            | Self::TrafficSelectorsResponder(selectors) => write_selectors(out, selectors)?,
            Self::EncryptedFragment(fragment) => fragment.write(out)?,
            Self::Configuration(configuration) => configuration.write(out)?,
            Self::Encrypted(EncryptedPayload { body, .. })
            | Self::VendorId(body)
            | Self::Eap(body)
            | Self::Unknown { body, .. } => out.extend(body),
        }
        Ok(())
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SecurityAssociation(proposals) => write!(f, "SA({proposals:?})"),
            Self::KeyExchange(exchange) => exchange.fmt(f),
            Self::IdInitiator(id) => write!(f, "IDi({:?})", id.identity),
            Self::IdResponder(id) => write!(f, "IDr({:?})", id.identity),
            Self::Certificate(certificate) => certificate.fmt(f),
            Self::CertificateRequest(request) => request.fmt(f),
            Self::Authentication(authentication) => authentication.fmt(f),
            Self::Nonce(nonce) => nonce.fmt(f),
            Self::Notify(notify) => notify.fmt(f),
            Self::Delete(delete) => write!(f, "Delete({delete:?})"),
            Self::VendorId(id) => write!(f, "VendorId({:?})", Octets(id)),
            Self::TrafficSelectorsInitiator(selectors) => write!(f, "TSi({selectors:?})"),
            Self::TrafficSelectorsResponder(selectors) => write!(f, "TSr({selectors:?})"),
            Self::Encrypted(payload) => payload.fmt(f),
            Self::EncryptedFragment(fragment) => fragment.fmt(f),
            Self::Configuration(configuration) => configuration.fmt(f),
            Self::Eap(message) => write!(f, "Eap({:?})", Octets(message)),
            Self::Unknown {
                kind,
                critical,
                body,
            } => {
                let critical = if *critical { ", critical" } else { "" };
                write!(f, "Unknown({kind}{critical}, {:?})", Octets(body))
            }
        }
    }
}

/// A Key Exchange payload: the sender's public value (RFC 7296 §3.4).
#[derive(Clone, PartialEq, Eq)]
pub struct KeyExchange {
    /// The method or group that the value belongs to.
    pub method: KeyExchangeMethod,
    /// The public value, in the form that the method's RFC defines.
    pub data: Vec<u8>,
}

impl KeyExchange {
    fn read(body: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let method = KeyExchangeMethod(body.u16()?);
        body.u16()?;
        Ok(Self {
            method,
            data: body.take_rest().to_vec(),
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.method.0.to_be_bytes());
        out.extend([0, 0]);
        out.extend(&self.data);
    }
}

impl fmt::Debug for KeyExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyExchange({}, {:?})", self.method, Octets(&self.data))
    }
}

code_points! {
    /// How a peer authenticates itself (IANA: IKEv2 Authentication Method).
    pub struct AuthMethod(u8) {
        /// RSA signature (RFC 7296).
        RSA_SIGNATURE = 1;
        /// Shared key message integrity code (RFC 7296).
        SHARED_KEY_MIC = 2;
        /// DSS signature (RFC 7296).
        DSS_SIGNATURE = 3;
        /// ECDSA with SHA-256 on P-256 (RFC 4754).
        ECDSA_SHA256_P256 = 9;
        /// ECDSA with SHA-384 on P-384 (RFC 4754).
        ECDSA_SHA384_P384 = 10;
        /// ECDSA with SHA-512 on P-521 (RFC 4754).
        ECDSA_SHA512_P521 = 11;
        /// Secure password (RFC 6467).
        SECURE_PASSWORD = 12;
        /// NULL authentication (RFC 7619).
        NULL = 13;
        /// Digital signature with an algorithm identifier (RFC 7427).
        DIGITAL_SIGNATURE = 14;
    }
}

/// An Authentication payload (RFC 7296 §3.8).
#[derive(Clone, PartialEq, Eq)]
pub struct Authentication {
    /// How the value was computed.
    pub method: AuthMethod,
    /// Signature or integrity code.
    pub data: Vec<u8>,
}

impl Authentication {
    fn read(body: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let method = AuthMethod(body.u8()?);
        body.take(3)?;
        Ok(Self {
            method,
            data: body.take_rest().to_vec(),
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend([self.method.0, 0, 0, 0]);
        out.extend(&self.data);
    }
}

impl fmt::Debug for Authentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Authentication({}, {:?})",
            self.method,
            Octets(&self.data)
        )
    }
}

/// A nonce of 16 to 256 octets (RFC 7296 §3.9).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nonce(Vec<u8>);

impl Nonce {
    /// Takes octets that someone has drawn at random. At least half of the key size of the PRF is
    /// needed, which the caller knows (RFC 7296 §2.10).
    ///
    /// # Errors
    ///
    /// [`EncodeError::NonceLength`] below 16 or above 256 octets.
    pub fn new(octets: impl Into<Vec<u8>>) -> Result<Self, EncodeError> {
        let octets = octets.into();
        if (MIN_NONCE_LEN..=MAX_NONCE_LEN).contains(&octets.len()) {
            Ok(Self(octets))
        } else {
            Err(EncodeError::NonceLength(octets.len()))
        }
    }

    /// The octets. `Nonce` orders as RFC 7296 §2.8.1 compares nonces: octet by octet.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn read(body: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let length = body.remaining();
        if !(MIN_NONCE_LEN..=MAX_NONCE_LEN).contains(&length) {
            return Err(body.fail(DecodeErrorKind::NonceLength(length)));
        }
        Ok(Self(body.take_rest().to_vec()))
    }
}

impl AsRef<[u8]> for Nonce {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nonce({:?})", Octets(&self.0))
    }
}

/// A Delete payload: SAs that the sender has closed (RFC 7296 §1.4.1, §3.11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delete {
    /// The IKE SA that carries the message, with all its Child SAs.
    IkeSa,
    /// AH SAs, by the SPIs of the sender's inbound side.
    Ah(Vec<u32>),
    /// ESP SAs, by the SPIs of the sender's inbound side.
    Esp(Vec<u32>),
}

impl Delete {
    fn read(body: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let offset = body.offset();
        let fail = |kind| DecodeError { offset, kind };
        let protocol = body.u8()?;
        let spi_size = body.u8()?;
        let claimed = usize::from(body.u16()?);
        let build: fn(Vec<u32>) -> Self = match (Protocol::from(protocol), spi_size) {
            (Protocol::Ike, 0) if claimed == 0 => return Ok(Self::IkeSa),
            (Protocol::Ike, 0) => {
                let kind = DecodeErrorKind::Count {
                    what: "SPIs",
                    claimed,
                    actual: 0,
                };
                return Err(fail(kind));
            }
            (Protocol::Ah, CHILD_SPI_LEN) => Self::Ah,
            (Protocol::Esp, CHILD_SPI_LEN) => Self::Esp,
            _ => return Err(fail(DecodeErrorKind::DeleteSpiSize { protocol, spi_size })),
        };
        if claimed > MAX_SPIS_IN_DELETE {
            let limit = MAX_SPIS_IN_DELETE;
            return Err(fail(DecodeErrorKind::TooMany {
                what: "SPIs",
                limit,
            }));
        }
        let mut spis = Vec::new();
        for _ in 0..claimed {
            spis.push(body.u32()?);
        }
        Ok(build(spis))
    }

    fn write(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let (protocol, spi_size, spis) = match self {
            Self::IkeSa => (Protocol::Ike, 0, [].as_slice()),
            Self::Ah(spis) => (Protocol::Ah, CHILD_SPI_LEN, spis.as_slice()),
            Self::Esp(spis) => (Protocol::Esp, CHILD_SPI_LEN, spis.as_slice()),
        };
        check_count("SPIs", spis.len(), MAX_SPIS_IN_DELETE)?;
        out.extend([protocol.into(), spi_size]);
        // At most MAX_SPIS_IN_DELETE, which 16 bits hold.
        out.extend((spis.len() as u16).to_be_bytes());
        out.extend(spis.iter().flat_map(|spi| spi.to_be_bytes()));
        Ok(())
    }
}
