//! Proposals: what a Security Association payload offers or accepts (RFC 7296 §3.3.1).

use core::fmt;

use crate::error::{DecodeError, DecodeErrorKind, EncodeError};
use crate::header::IkeSpi;
use crate::limits::{MAX_PROPOSALS, MAX_TRANSFORMS};
use crate::reader::Reader;
use crate::transform::Transform;
use crate::writer::{check_count, octet_length, with_length};

/// Octets of a proposal without SPI and transforms.
const PROPOSAL_HEADER_LEN: usize = 8;
/// "Last substructure" field of a proposal that another one follows.
const MORE_PROPOSALS: u8 = 2;

/// What an SA is for (RFC 7296 §3.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// IKE itself (1).
    Ike,
    /// AH (2).
    Ah,
    /// ESP (3).
    Esp,
    /// Any other number; decoding never puts one of the above here.
    Other(u8),
}

impl From<u8> for Protocol {
    fn from(value: u8) -> Self {
        match value {
            1 => Self::Ike,
            2 => Self::Ah,
            3 => Self::Esp,
            other => Self::Other(other),
        }
    }
}

impl From<Protocol> for u8 {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Ike => 1,
            Protocol::Ah => 2,
            Protocol::Esp => 3,
            Protocol::Other(other) => other,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ike => f.write_str("IKE"),
            Self::Ah => f.write_str("AH"),
            Self::Esp => f.write_str("ESP"),
            Self::Other(other) => write!(f, "protocol {other}"),
        }
    }
}

/// One set of algorithms for one SA. Of each type an offer may have several transforms, an answer
/// has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Numbers the proposals of an offer from 1; an answer has the number of the one accepted.
    pub number: u8,
    /// What the SA is for.
    pub protocol: Protocol,
    /// The sender's inbound SPI: 4 octets for ESP and AH, 8 when an IKE SA is rekeyed, none in
    /// IKE_SA_INIT. Use [`Proposal::child_spi`] and [`Proposal::ike_spi`] to read it.
    pub spi: Vec<u8>,
    /// What is offered or accepted.
    pub transforms: Vec<Transform>,
}

impl Proposal {
    /// The SPI of a proposal for ESP or AH, if it is one with the four octets that it must have.
    pub fn child_spi(&self) -> Option<u32> {
        match self.protocol {
            Protocol::Esp | Protocol::Ah => {
                self.spi.as_slice().try_into().ok().map(u32::from_be_bytes)
            }
            Protocol::Ike | Protocol::Other(_) => None,
        }
    }

    /// The SPI of a proposal for rekeying an IKE SA, if it has the eight octets that it must have.
    pub fn ike_spi(&self) -> Option<IkeSpi> {
        match self.protocol {
            Protocol::Ike => self.spi.as_slice().try_into().ok().map(IkeSpi),
            Protocol::Esp | Protocol::Ah | Protocol::Other(_) => None,
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let start = reader.offset();
        let last = reader.u8()?;
        reader.u8()?;
        let length = usize::from(reader.u16()?);
        let Some(rest) = length
            .checked_sub(4)
            .filter(|_| length >= PROPOSAL_HEADER_LEN)
        else {
            let kind = DecodeErrorKind::LengthBelowMinimum {
                length,
                minimum: PROPOSAL_HEADER_LEN,
            };
            return Err(DecodeError {
                offset: start,
                kind,
            });
        };
        let mut body = reader.sub(rest)?;
        let expected = if reader.is_empty() { 0 } else { MORE_PROPOSALS };
        if last != expected {
            return Err(DecodeError {
                offset: start,
                kind: DecodeErrorKind::LastSubstructure(last),
            });
        }
        let number = body.u8()?;
        let protocol = Protocol::from(body.u8()?);
        let spi_len = usize::from(body.u8()?);
        let claimed = usize::from(body.u8()?);
        let spi = body.take(spi_len)?.to_vec();
        let mut transforms = Vec::new();
        while !body.is_empty() {
            if transforms.len() == MAX_TRANSFORMS {
                let what = "transforms";
                return Err(body.fail(DecodeErrorKind::TooMany {
                    what,
                    limit: MAX_TRANSFORMS,
                }));
            }
            transforms.push(Transform::read(&mut body)?);
        }
        if claimed != transforms.len() {
            let actual = transforms.len();
            let kind = DecodeErrorKind::Count {
                what: "transforms",
                claimed,
                actual,
            };
            return Err(DecodeError {
                offset: start,
                kind,
            });
        }
        Ok(Self {
            number,
            protocol,
            spi,
            transforms,
        })
    }

    fn write(&self, out: &mut Vec<u8>, is_last: bool) -> Result<(), EncodeError> {
        check_count("transforms", self.transforms.len(), MAX_TRANSFORMS)?;
        let spi_len = octet_length("SPI", &self.spi)?;
        // At most MAX_TRANSFORMS, which an octet holds.
        let count = self.transforms.len() as u8;
        with_length(out, "proposal", 2, |out| {
            out.extend([if is_last { 0 } else { MORE_PROPOSALS }, 0, 0, 0]);
            out.extend([self.number, self.protocol.into(), spi_len, count]);
            out.extend(&self.spi);
            for (index, transform) in self.transforms.iter().enumerate() {
                transform.write(out, index + 1 == self.transforms.len())?;
            }
            Ok(())
        })
    }
}

/// Reads the body of a Security Association payload.
pub(crate) fn read_proposals(body: &mut Reader<'_>) -> Result<Vec<Proposal>, DecodeError> {
    let mut proposals = Vec::new();
    while !body.is_empty() {
        if proposals.len() == MAX_PROPOSALS {
            let what = "proposals";
            return Err(body.fail(DecodeErrorKind::TooMany {
                what,
                limit: MAX_PROPOSALS,
            }));
        }
        proposals.push(Proposal::read(body)?);
    }
    Ok(proposals)
}

/// Writes the body of a Security Association payload.
pub(crate) fn write_proposals(
    out: &mut Vec<u8>,
    proposals: &[Proposal],
) -> Result<(), EncodeError> {
    check_count("proposals", proposals.len(), MAX_PROPOSALS)?;
    for (index, proposal) in proposals.iter().enumerate() {
        proposal.write(out, index + 1 == proposals.len())?;
    }
    Ok(())
}
