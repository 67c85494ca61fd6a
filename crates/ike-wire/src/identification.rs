//! Who a peer says it is (RFC 7296 §3.5).

use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};

use crate::code_point::Octets;
use crate::error::{DecodeError, DecodeErrorKind};
use crate::reader::Reader;

const ID_IPV4_ADDR: u8 = 1;
const ID_FQDN: u8 = 2;
const ID_RFC822_ADDR: u8 = 3;
const ID_IPV6_ADDR: u8 = 5;
const ID_DER_ASN1_DN: u8 = 9;
const ID_KEY_ID: u8 = 11;

/// An identity that policy and keys are looked up by.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Identity {
    /// ID_IPV4_ADDR.
    Ipv4(Ipv4Addr),
    /// ID_FQDN: a host name, not terminated.
    Fqdn(String),
    /// ID_RFC822_ADDR: an e-mail address.
    Rfc822(String),
    /// ID_IPV6_ADDR.
    Ipv6(Ipv6Addr),
    /// ID_DER_ASN1_DN: a distinguished name in DER.
    Dn(Vec<u8>),
    /// ID_KEY_ID: octets that the peers agreed on.
    KeyId(Vec<u8>),
    /// Any other type; decoding never puts one of the above here.
    Other {
        /// ID Type field.
        kind: u8,
        /// Identification Data field.
        data: Vec<u8>,
    },
}

impl Identity {
    fn kind(&self) -> u8 {
        match self {
            Self::Ipv4(_) => ID_IPV4_ADDR,
            Self::Fqdn(_) => ID_FQDN,
            Self::Rfc822(_) => ID_RFC822_ADDR,
            Self::Ipv6(_) => ID_IPV6_ADDR,
            Self::Dn(_) => ID_DER_ASN1_DN,
            Self::KeyId(_) => ID_KEY_ID,
            Self::Other { kind, .. } => *kind,
        }
    }
}

/// Characters or octets of an identity that are shown: whoever claims a longer one must not fill the
/// log with it. No name that can be configured is longer.
const SHOWN_MAX: usize = 256;

/// For logs and status: text as it is with control characters escaped, octets in hexadecimal; cut
/// off after 256 characters or octets.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipv4(address) => write!(f, "{address}"),
            Self::Ipv6(address) => write!(f, "{address}"),
            Self::Fqdn(text) | Self::Rfc822(text) => {
                let shown = text.char_indices().nth(SHOWN_MAX);
                let (shown, more) = match shown {
                    Some((end, _)) => (&text[..end], "…"),
                    None => (text.as_str(), ""),
                };
                write!(f, "{}{more}", shown.escape_debug())
            }
            Self::Dn(data) => write!(f, "dn:{}", Hex(data)),
            Self::KeyId(data) => write!(f, "key-id:{}", Hex(data)),
            Self::Other { kind, data } => write!(f, "id-{kind}:{}", Hex(data)),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipv4(address) => write!(f, "Ipv4({address})"),
            Self::Fqdn(text) => write!(f, "Fqdn({text:?})"),
            Self::Rfc822(text) => write!(f, "Rfc822({text:?})"),
            Self::Ipv6(address) => write!(f, "Ipv6({address})"),
            Self::Dn(data) => write!(f, "Dn({:?})", Octets(data)),
            Self::KeyId(data) => write!(f, "KeyId({:?})", Octets(data)),
            Self::Other { kind, data } => write!(f, "Other({kind}, {:?})", Octets(data)),
        }
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(SHOWN_MAX)];
        shown
            .iter()
            .try_for_each(|octet| write!(f, "{octet:02x}"))?;
        f.write_str(if shown.len() < self.0.len() {
            "…"
        } else {
            ""
        })
    }
}

/// The body of an Identification payload. Compare its `identity`: equality of the whole also
/// covers the reserved octets, which it keeps only because AUTH is computed over them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identification {
    /// Who.
    pub identity: Identity,
    reserved: [u8; 3],
}

impl Identification {
    /// The payload that says this identity.
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            reserved: [0; 3],
        }
    }

    /// The body as it was received or will be sent, without the generic payload header: the
    /// `RestOfInitIDPayload` or `RestOfRespIDPayload` that AUTH covers (RFC 7296 §2.15).
    pub fn to_wire_body(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    pub(crate) fn read(body: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let kind = body.u8()?;
        let reserved = body.array()?;
        let offset = body.offset();
        let fail = |kind| DecodeError { offset, kind };
        let data = body.take_rest();
        let text = || {
            core::str::from_utf8(data)
                .map(str::to_owned)
                .map_err(|_| fail(DecodeErrorKind::NotText))
        };
        let identity = match kind {
            ID_IPV4_ADDR => {
                let octets: [u8; 4] = data.try_into().map_err(|_| fail(bad_length(data)))?;
                Identity::Ipv4(octets.into())
            }
            ID_IPV6_ADDR => {
                let octets: [u8; 16] = data.try_into().map_err(|_| fail(bad_length(data)))?;
                Identity::Ipv6(octets.into())
            }
            ID_FQDN => Identity::Fqdn(text()?),
            ID_RFC822_ADDR => Identity::Rfc822(text()?),
            ID_DER_ASN1_DN => Identity::Dn(data.to_vec()),
            ID_KEY_ID => Identity::KeyId(data.to_vec()),
            kind => Identity::Other {
                kind,
                data: data.to_vec(),
            },
        };
        Ok(Self { identity, reserved })
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.push(self.identity.kind());
        out.extend(self.reserved);
        match &self.identity {
            Identity::Ipv4(address) => out.extend(address.octets()),
            Identity::Ipv6(address) => out.extend(address.octets()),
            Identity::Fqdn(text) | Identity::Rfc822(text) => out.extend(text.as_bytes()),
            Identity::Dn(data) | Identity::KeyId(data) | Identity::Other { data, .. } => {
                out.extend(data);
            }
        }
    }
}

impl From<Identity> for Identification {
    fn from(identity: Identity) -> Self {
        Self::new(identity)
    }
}

fn bad_length(data: &[u8]) -> DecodeErrorKind {
    DecodeErrorKind::FieldLength {
        what: "identification address",
        length: data.len(),
    }
}
