//! EAP packets (RFC 3748 §4): octets ⇄ code, identifier, type and data.

/// Octets of a packet at most: an MSCHAPv2 packet with the longest name fits.
pub(super) const PACKET_LEN_MAX: usize = 1024;

/// Octets before the type: code, identifier, length.
const HEADER_LEN: usize = 4;

/// Types of requests and responses (IANA: EAP Method Types).
pub(super) mod kind {
    pub(in crate::eap) const IDENTITY: u8 = 1;
    pub(in crate::eap) const NOTIFICATION: u8 = 2;
    /// Legacy Nak: "another method, please" (RFC 3748 §5.3.1).
    pub(in crate::eap) const NAK: u8 = 3;
    pub(in crate::eap) const MSCHAPV2: u8 = 26;
}

/// A packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packet<'a> {
    Request { id: u8, kind: u8, data: &'a [u8] },
    Response { id: u8, kind: u8, data: &'a [u8] },
    Success,
    Failure,
}

impl<'a> Packet<'a> {
    /// Reads a packet, whose length must be that of the payload. `None`: it is none.
    pub(super) fn read(octets: &'a [u8]) -> Option<Self> {
        let (header, body) = octets.split_first_chunk::<HEADER_LEN>()?;
        let [code, id, high, low] = *header;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length != octets.len() || length > PACKET_LEN_MAX {
            return None;
        }
        match (code, body) {
            (1, [kind, data @ ..]) => Some(Self::Request {
                id,
                kind: *kind,
                data,
            }),
            (2, [kind, data @ ..]) => Some(Self::Response {
                id,
                kind: *kind,
                data,
            }),
            (3, []) => Some(Self::Success),
            (4, []) => Some(Self::Failure),
            _ => None,
        }
    }
}

/// A request's octets. Data are far shorter than 64 KiB.
pub(super) fn request(id: u8, kind: u8, data: &[u8]) -> Vec<u8> {
    typed(1, id, kind, data)
}

/// A response's octets.
pub(super) fn response(id: u8, kind: u8, data: &[u8]) -> Vec<u8> {
    typed(2, id, kind, data)
}

/// Success, or Failure.
pub(super) fn outcome(success: bool, id: u8) -> Vec<u8> {
    let code = if success { 3 } else { 4 };
    vec![code, id, 0, 4]
}

fn typed(code: u8, id: u8, kind: u8, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(HEADER_LEN + 1 + data.len()).unwrap_or(u16::MAX);
    let [high, low] = length.to_be_bytes();
    [&[code, id, high, low, kind], data].concat()
}
