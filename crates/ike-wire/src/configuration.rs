//! Configuration payloads: addresses and servers that a gateway assigns (RFC 7296 §3.15).

use core::fmt;

use crate::code_point::{Octets, code_points};
use crate::error::{DecodeError, DecodeErrorKind, EncodeError};
use crate::limits::MAX_CONFIGURATION_ATTRIBUTES;
use crate::reader::Reader;
use crate::writer::check_count;

/// The reserved bit before the 15 bits of an attribute's type, ignored on receipt.
const RESERVED_BIT: u16 = 0x8000;

code_points! {
    /// What is done with the attributes (RFC 7296 §3.15).
    pub struct ConfigurationType(u8) {
        /// CFG_REQUEST.
        REQUEST = 1;
        /// CFG_REPLY.
        REPLY = 2;
        /// CFG_SET.
        SET = 3;
        /// CFG_ACK.
        ACK = 4;
    }
}

code_points! {
    /// What is configured (IANA: IKEv2 Configuration Payload Attribute Types).
    pub struct ConfigurationAttributeType(u16) {
        /// IPv4 address.
        INTERNAL_IP4_ADDRESS = 1;
        /// Netmask of that address.
        INTERNAL_IP4_NETMASK = 2;
        /// DNS server's IPv4 address.
        INTERNAL_IP4_DNS = 3;
        /// WINS server's address.
        INTERNAL_IP4_NBNS = 4;
        /// DHCP server's IPv4 address.
        INTERNAL_IP4_DHCP = 6;
        /// Version of the peer's program, as text.
        APPLICATION_VERSION = 7;
        /// IPv6 address and prefix length.
        INTERNAL_IP6_ADDRESS = 8;
        /// DNS server's IPv6 address.
        INTERNAL_IP6_DNS = 10;
        /// DHCP server's IPv6 address.
        INTERNAL_IP6_DHCP = 12;
        /// IPv4 network behind the gateway.
        INTERNAL_IP4_SUBNET = 13;
        /// Which attributes are understood.
        SUPPORTED_ATTRIBUTES = 14;
        /// IPv6 network behind the gateway.
        INTERNAL_IP6_SUBNET = 15;
        /// DNS domain to be resolved inside (RFC 8598).
        INTERNAL_DNS_DOMAIN = 25;
    }
}

/// One attribute; an empty value in a request asks for any.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigurationAttribute {
    /// What is configured; 15 bits.
    pub kind: ConfigurationAttributeType,
    /// Its value.
    pub value: Vec<u8>,
}

impl fmt::Debug for ConfigurationAttribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({:?})", self.kind, Octets(&self.value))
    }
}

/// A Configuration payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// Request, reply, set or acknowledgement.
    pub kind: ConfigurationType,
    /// What it is about.
    pub attributes: Vec<ConfigurationAttribute>,
}

impl Configuration {
    pub(crate) fn read(body: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let kind = ConfigurationType(body.u8()?);
        body.take(3)?;
        let mut attributes = Vec::new();
        while !body.is_empty() {
            if attributes.len() == MAX_CONFIGURATION_ATTRIBUTES {
                return Err(body.fail(DecodeErrorKind::TooMany {
                    what: "configuration attributes",
                    limit: MAX_CONFIGURATION_ATTRIBUTES,
                }));
            }
            let kind = ConfigurationAttributeType(body.u16()? & !RESERVED_BIT);
            let length = usize::from(body.u16()?);
            let value = body.take(length)?.to_vec();
            attributes.push(ConfigurationAttribute { kind, value });
        }
        Ok(Self { kind, attributes })
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let count = self.attributes.len();
        check_count(
            "configuration attributes",
            count,
            MAX_CONFIGURATION_ATTRIBUTES,
        )?;
        out.extend([self.kind.0, 0, 0, 0]);
        for ConfigurationAttribute { kind, value } in &self.attributes {
            if kind.0 & RESERVED_BIT != 0 {
                return Err(EncodeError::AttributeType(kind.0));
            }
            let what = "configuration attribute";
            let length = u16::try_from(value.len()).map_err(|_| EncodeError::FieldTooLong {
                what,
                length: value.len(),
            })?;
            out.extend(kind.0.to_be_bytes());
            out.extend(length.to_be_bytes());
            out.extend(value);
        }
        Ok(())
    }
}
