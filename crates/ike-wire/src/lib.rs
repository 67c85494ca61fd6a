//! Bytes to IKEv2 messages and back (RFC 7296 §3): no state, no keys, no sockets.
//!
//! Datagrams that a socket delivered (without the non-ESP marker of port 4500) come in through
//! [`Header::decode`], to find out whose they are, and [`Message::decode`]. What the `Encrypted`
//! payload hides stays hidden here: whoever holds the keys decrypts its body and gives the
//! plaintext to [`decode_payloads`]. On the way out [`Message::encode`] makes a datagram in clear,
//! and [`encode_payloads`] with [`encrypted_header`] the two halves of a protected one.
//!
//! Every byte is taken for hostile: memory is allocated only for bytes that are really there,
//! everything that can be repeated is limited (see [`limits`]), and a mistake is reported with its
//! offset. What can be decoded can be encoded again; encoding refuses what could not be decoded.

mod certificate;
mod code_point;
mod configuration;
mod encrypted;
mod error;
mod header;
mod identification;
pub mod limits;
mod message;
mod notify;
mod payload;
mod proposal;
mod reader;
mod traffic_selector;
mod transform;
mod writer;

pub use certificate::{Certificate, CertificateEncoding, CertificateRequest};
pub use configuration::{
    Configuration, ConfigurationAttribute, ConfigurationAttributeType, ConfigurationType,
};
pub use encrypted::{
    EncryptedFragment, EncryptedPayload, encrypted_fragment_header, encrypted_header,
};
pub use error::{DecodeError, DecodeErrorKind, EncodeError};
pub use header::{ExchangeType, Flags, Header, IkeSpi, PayloadType};
pub use identification::{Identification, Identity};
pub use message::{Message, decode_payloads, encode_payloads};
pub use notify::{Notify, NotifyType};
pub use payload::{AuthMethod, Authentication, Delete, KeyExchange, Nonce, Payload};
pub use proposal::{Proposal, Protocol};
pub use traffic_selector::{AddressRange, IpSelector, PortRange, TrafficSelector};
pub use transform::{
    AdditionalKind, EncryptionId, IntegrityId, KeyExchangeMethod, PrfId, Transform, TransformType,
};
