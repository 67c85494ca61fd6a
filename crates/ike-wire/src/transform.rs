//! Transforms: the single algorithms that a proposal offers (RFC 7296 §3.3.2, §3.3.5).

use crate::code_point::{Octets, code_points};
use crate::error::{DecodeError, DecodeErrorKind, EncodeError};
use crate::reader::Reader;
use crate::writer::with_length;

/// Octets of a transform without attributes.
const TRANSFORM_HEADER_LEN: usize = 8;
/// "Last substructure" field of a transform that another one follows.
const MORE_TRANSFORMS: u8 = 3;
/// The Key Length attribute with the bit that says it has a fixed length (RFC 7296 §3.3.5).
const KEY_LENGTH_ATTRIBUTE: u16 = 0x8000 | 14;

const ESN_NONE: u16 = 0;
const ESN_USED: u16 = 1;

code_points! {
    /// What a transform is for (RFC 7296 §3.3.2, RFC 9370 §2.2.1).
    pub struct TransformType(u8) {
        /// ENCR.
        ENCRYPTION = 1;
        /// PRF.
        PRF = 2;
        /// INTEG.
        INTEGRITY = 3;
        /// KE, once called D-H.
        KEY_EXCHANGE = 4;
        /// ESN.
        EXTENDED_SEQUENCE_NUMBERS = 5;
        /// ADDKE1 (RFC 9370).
        ADDITIONAL_KEY_EXCHANGE_1 = 6;
        /// ADDKE2 (RFC 9370).
        ADDITIONAL_KEY_EXCHANGE_2 = 7;
        /// ADDKE3 (RFC 9370).
        ADDITIONAL_KEY_EXCHANGE_3 = 8;
        /// ADDKE4 (RFC 9370).
        ADDITIONAL_KEY_EXCHANGE_4 = 9;
        /// ADDKE5 (RFC 9370).
        ADDITIONAL_KEY_EXCHANGE_5 = 10;
        /// ADDKE6 (RFC 9370).
        ADDITIONAL_KEY_EXCHANGE_6 = 11;
        /// ADDKE7 (RFC 9370).
        ADDITIONAL_KEY_EXCHANGE_7 = 12;
    }
}

code_points! {
    /// Encryption algorithms (IANA: Transform Type 1).
    pub struct EncryptionId(u16) {
        /// 3DES (RFC 2451).
        TRIPLE_DES = 3;
        /// NULL (RFC 2410).
        NULL = 11;
        /// AES-CBC (RFC 3602); needs an integrity algorithm.
        AES_CBC = 12;
        /// AES-CTR (RFC 5930); needs an integrity algorithm.
        AES_CTR = 13;
        /// AES-CCM with 8-octet ICV (RFC 4309).
        AES_CCM_8 = 14;
        /// AES-CCM with 12-octet ICV (RFC 4309).
        AES_CCM_12 = 15;
        /// AES-CCM with 16-octet ICV (RFC 4309).
        AES_CCM_16 = 16;
        /// AES-GCM with 8-octet ICV (RFC 4106).
        AES_GCM_8 = 18;
        /// AES-GCM with 12-octet ICV (RFC 4106).
        AES_GCM_12 = 19;
        /// AES-GCM with 16-octet ICV (RFC 4106, RFC 5282).
        AES_GCM_16 = 20;
        /// ChaCha20-Poly1305 (RFC 7634); has no Key Length attribute.
        CHACHA20_POLY1305 = 28;
    }
}

code_points! {
    /// Pseudorandom functions (IANA: Transform Type 2).
    pub struct PrfId(u16) {
        /// HMAC-MD5 (RFC 2104).
        HMAC_MD5 = 1;
        /// HMAC-SHA-1 (RFC 2104).
        HMAC_SHA1 = 2;
        /// AES-XCBC (RFC 4434).
        AES128_XCBC = 4;
        /// HMAC-SHA-256 (RFC 4868).
        HMAC_SHA2_256 = 5;
        /// HMAC-SHA-384 (RFC 4868).
        HMAC_SHA2_384 = 6;
        /// HMAC-SHA-512 (RFC 4868).
        HMAC_SHA2_512 = 7;
        /// AES-CMAC (RFC 4615).
        AES128_CMAC = 8;
    }
}

code_points! {
    /// Integrity algorithms (IANA: Transform Type 3).
    pub struct IntegrityId(u16) {
        /// None: what an AEAD proposal may say instead of leaving the transform out.
        NONE = 0;
        /// HMAC-MD5-96 (RFC 2403).
        HMAC_MD5_96 = 1;
        /// HMAC-SHA-1-96 (RFC 2404).
        HMAC_SHA1_96 = 2;
        /// AES-XCBC-96 (RFC 3566).
        AES_XCBC_96 = 5;
        /// AES-CMAC-96 (RFC 4494).
        AES_CMAC_96 = 8;
        /// HMAC-SHA-256-128 (RFC 4868).
        HMAC_SHA2_256_128 = 12;
        /// HMAC-SHA-384-192 (RFC 4868).
        HMAC_SHA2_384_192 = 13;
        /// HMAC-SHA-512-256 (RFC 4868).
        HMAC_SHA2_512_256 = 14;
    }
}

code_points! {
    /// Key exchange methods, once called Diffie-Hellman groups (IANA: Transform Type 4).
    pub struct KeyExchangeMethod(u16) {
        /// None: a Child SA without a key exchange of its own.
        NONE = 0;
        /// 1024-bit MODP (RFC 7296 appendix B).
        MODP_1024 = 2;
        /// 1536-bit MODP (RFC 3526).
        MODP_1536 = 5;
        /// 2048-bit MODP (RFC 3526).
        MODP_2048 = 14;
        /// 3072-bit MODP (RFC 3526).
        MODP_3072 = 15;
        /// 4096-bit MODP (RFC 3526).
        MODP_4096 = 16;
        /// 6144-bit MODP (RFC 3526).
        MODP_6144 = 17;
        /// 8192-bit MODP (RFC 3526).
        MODP_8192 = 18;
        /// NIST P-256 (RFC 5903).
        P256 = 19;
        /// NIST P-384 (RFC 5903).
        P384 = 20;
        /// NIST P-521 (RFC 5903).
        P521 = 21;
        /// X25519 (RFC 8031).
        X25519 = 31;
        /// X448 (RFC 8031).
        X448 = 32;
        /// ML-KEM-512.
        ML_KEM_512 = 35;
        /// ML-KEM-768.
        ML_KEM_768 = 36;
        /// ML-KEM-1024.
        ML_KEM_1024 = 37;
    }
}

/// The type of an additional key exchange: ADDKE1 to ADDKE7, no other (RFC 9370 §2.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AdditionalKind(TransformType);

impl AdditionalKind {
    /// The first.
    pub const ONE: Self = Self(TransformType::ADDITIONAL_KEY_EXCHANGE_1);

    /// `None` for a type that is for something else.
    #[must_use]
    pub fn new(kind: TransformType) -> Option<Self> {
        let first = TransformType::ADDITIONAL_KEY_EXCHANGE_1.0;
        let last = TransformType::ADDITIONAL_KEY_EXCHANGE_7.0;
        (first..=last).contains(&kind.0).then_some(Self(kind))
    }

    /// From 1 to 7.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0.0 - TransformType::ADDITIONAL_KEY_EXCHANGE_1.0 + 1
    }
}

/// One algorithm that a proposal offers or an answer accepts.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Transform {
    /// Encryption, or encryption with integrity.
    Encryption {
        /// The algorithm.
        id: EncryptionId,
        /// Key Length attribute, in bits, salt not included; absent for fixed-length ciphers.
        key_bits: Option<u16>,
    },
    /// Pseudorandom function.
    Prf(PrfId),
    /// Integrity.
    Integrity(IntegrityId),
    /// Key exchange.
    KeyExchange(KeyExchangeMethod),
    /// One more key exchange, after the first (RFC 9370 §2.2.1).
    AdditionalKeyExchange {
        /// Which: ADDKE1 to ADDKE7.
        kind: AdditionalKind,
        /// Its method; NONE where it may be left out.
        method: KeyExchangeMethod,
    },
    /// Whether extended (64-bit) sequence numbers are used.
    Esn(bool),
    /// A type, a value or an attribute that the other variants cannot say. It must not be
    /// accepted (RFC 7296 §3.3.6); decoding puts nothing here that they can say.
    Unknown {
        /// Transform Type.
        kind: TransformType,
        /// Transform ID.
        id: u16,
        /// The attributes as they came.
        attributes: Vec<u8>,
    },
}

impl Transform {
    /// The type that the transform is of.
    pub fn kind(&self) -> TransformType {
        match self {
            Self::Encryption { .. } => TransformType::ENCRYPTION,
            Self::Prf(_) => TransformType::PRF,
            Self::Integrity(_) => TransformType::INTEGRITY,
            Self::KeyExchange(_) => TransformType::KEY_EXCHANGE,
            Self::AdditionalKeyExchange { kind, .. } => kind.0,
            Self::Esn(_) => TransformType::EXTENDED_SEQUENCE_NUMBERS,
            Self::Unknown { kind, .. } => *kind,
        }
    }

    fn id(&self) -> u16 {
        match self {
            Self::Encryption { id, .. } => id.0,
            Self::Prf(id) => id.0,
            Self::Integrity(id) => id.0,
            Self::KeyExchange(id) | Self::AdditionalKeyExchange { method: id, .. } => id.0,
            Self::Esn(false) => ESN_NONE,
            Self::Esn(true) => ESN_USED,
            Self::Unknown { id, .. } => *id,
        }
    }

    fn from_parts(kind: TransformType, id: u16, attributes: &[u8]) -> Self {
        match (kind, attributes) {
            (TransformType::ENCRYPTION, []) => Self::Encryption {
                id: EncryptionId(id),
                key_bits: None,
            },
            (TransformType::ENCRYPTION, &[a, b, c, d])
                if u16::from_be_bytes([a, b]) == KEY_LENGTH_ATTRIBUTE =>
            {
                let key_bits = Some(u16::from_be_bytes([c, d]));
                Self::Encryption {
                    id: EncryptionId(id),
                    key_bits,
                }
            }
            (TransformType::PRF, []) => Self::Prf(PrfId(id)),
            (TransformType::INTEGRITY, []) => Self::Integrity(IntegrityId(id)),
            (TransformType::KEY_EXCHANGE, []) => Self::KeyExchange(KeyExchangeMethod(id)),
            (kind, []) if AdditionalKind::new(kind).is_some() => Self::AdditionalKeyExchange {
                kind: AdditionalKind(kind),
                method: KeyExchangeMethod(id),
            },
            (TransformType::EXTENDED_SEQUENCE_NUMBERS, []) if id == ESN_NONE => Self::Esn(false),
            (TransformType::EXTENDED_SEQUENCE_NUMBERS, []) if id == ESN_USED => Self::Esn(true),
            _ => Self::Unknown {
                kind,
                id,
                attributes: attributes.to_vec(),
            },
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let start = reader.offset();
        let last = reader.u8()?;
        reader.u8()?;
        let length = usize::from(reader.u16()?);
        let Some(rest) = length
            .checked_sub(4)
            .filter(|_| length >= TRANSFORM_HEADER_LEN)
        else {
            let kind = DecodeErrorKind::LengthBelowMinimum {
                length,
                minimum: TRANSFORM_HEADER_LEN,
            };
            return Err(DecodeError {
                offset: start,
                kind,
            });
        };
        let mut body = reader.sub(rest)?;
        let expected = if reader.is_empty() {
            0
        } else {
            MORE_TRANSFORMS
        };
        if last != expected {
            return Err(DecodeError {
                offset: start,
                kind: DecodeErrorKind::LastSubstructure(last),
            });
        }
        let kind = TransformType(body.u8()?);
        body.u8()?;
        let id = body.u16()?;
        Ok(Self::from_parts(kind, id, body.take_rest()))
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>, is_last: bool) -> Result<(), EncodeError> {
        with_length(out, "transform", 2, |out| {
            out.extend([if is_last { 0 } else { MORE_TRANSFORMS }, 0, 0, 0]);
            out.extend([self.kind().0, 0]);
            out.extend(self.id().to_be_bytes());
            match self {
                Self::Encryption {
                    key_bits: Some(bits),
                    ..
                } => {
                    out.extend(KEY_LENGTH_ATTRIBUTE.to_be_bytes());
                    out.extend(bits.to_be_bytes());
                }
                Self::Unknown { attributes, .. } => out.extend(attributes),
                Self::Encryption { key_bits: None, .. }
                | Self::Prf(_)
                | Self::Integrity(_)
                | Self::KeyExchange(_)
                | Self::AdditionalKeyExchange { .. }
                | Self::Esn(_) => {}
            }
            Ok(())
        })
    }
}

impl core::fmt::Debug for Transform {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Encryption {
                id,
                key_bits: Some(bits),
            } => write!(f, "{id}-{bits}"),
            Self::Encryption { id, key_bits: None } => write!(f, "{id}"),
            Self::Prf(id) => write!(f, "PRF_{id}"),
            Self::Integrity(id) => write!(f, "INTEG_{id}"),
            Self::KeyExchange(id) => write!(f, "KE_{id}"),
            Self::AdditionalKeyExchange { kind, method } => {
                write!(f, "ADDKE{}_{method}", kind.number())
            }
            Self::Esn(used) => f.write_str(if *used { "ESN" } else { "NO_ESN" }),
            Self::Unknown {
                kind,
                id,
                attributes,
            } => f
                .debug_struct("Unknown")
                .field("kind", kind)
                .field("id", id)
                .field("attributes", &Octets(attributes))
                .finish(),
        }
    }
}
