//! MSCHAPv2 (RFC 2759) and the keys that come of it (RFC 3079 §3), as EAP carries them
//! (draft-kamath-pppext-eap-mschapv2). It is as weak as the password: use it only behind a server
//! that proved itself by a certificate, which the configuration demands.

use crate::Secret;
use crate::crypto::Crypto;

/// Octets of a challenge.
pub(super) const CHALLENGE_LEN: usize = 16;
/// Octets of an NT-Response.
pub(super) const NT_RESPONSE_LEN: usize = 24;
/// Octets of the value of a Response packet: peer challenge, 8 reserved, NT-Response, flags.
const RESPONSE_LEN: u8 = 49;
/// Octets before a packet's data: code, identifier, length.
const HEADER_LEN: usize = 4;
/// Octets of a name at most (RFC 2759 §4).
pub(super) const NAME_LEN_MAX: usize = 256;

const CHALLENGE: u8 = 1;
const RESPONSE: u8 = 2;
const SUCCESS: u8 = 3;
const FAILURE: u8 = 4;

/// What both ends compute from a password.
pub(super) struct Proofs {
    /// What shows the server that we know the password (RFC 2759 §8.1).
    pub(super) nt_response: [u8; NT_RESPONSE_LEN],
    /// What shows us that the server knows it: "S=" and 40 digits (RFC 2759 §8.7).
    pub(super) authenticator: String,
    /// The MSK (RFC 7296 §2.16): receive key, send key, and zeros up to 64 octets.
    pub(super) msk: Secret,
}

/// Computes all of it.
pub(super) fn prove(
    crypto: &dyn Crypto,
    server_challenge: &[u8; CHALLENGE_LEN],
    client_challenge: &[u8; CHALLENGE_LEN],
    user: &str,
    password: &Secret,
) -> Proofs {
    // The password is UTF-8; what is hashed is UTF-16, little-endian (RFC 2759 §8.3).
    let text = zeroize::Zeroizing::new(String::from_utf8_lossy(password.expose()).into_owned());
    let wide: zeroize::Zeroizing<Vec<u8>> =
        zeroize::Zeroizing::new(text.encode_utf16().flat_map(u16::to_le_bytes).collect());
    let hash = zeroize::Zeroizing::new(crypto.md4(&wide));
    let hash_hash = zeroize::Zeroizing::new(crypto.md4(hash.as_slice()));
    // A domain in front of the name is not part of it (RFC 2759 §4).
    let name = user.rsplit('\\').next().unwrap_or(user);
    let digest = crypto.sha1(&[client_challenge, server_challenge, name.as_bytes()]);
    let mut challenge = [0; 8];
    challenge.copy_from_slice(&digest[..8]);

    let mut padded = zeroize::Zeroizing::new([0; 21]);
    padded[..16].copy_from_slice(hash.as_slice());
    let mut nt_response = [0; NT_RESPONSE_LEN];
    for (key, out) in padded.chunks_exact(7).zip(nt_response.chunks_exact_mut(8)) {
        out.copy_from_slice(&crypto.des(&with_parity(key), &challenge));
    }

    let first = crypto.sha1(&[
        hash_hash.as_slice(),
        &nt_response,
        b"Magic server to client signing constant",
    ]);
    let second = crypto.sha1(&[
        &first,
        &challenge,
        b"Pad to make it do more than one iteration",
    ]);
    let digits: String = second.iter().map(|octet| format!("{octet:02X}")).collect();

    let master = crypto.sha1(&[
        hash_hash.as_slice(),
        &nt_response,
        b"This is the MPPE Master Key",
    ]);
    let key = |purpose: &[u8]| {
        let key = crypto.sha1(&[&master[..16], &[0; 40], purpose, &[0xf2; 40]]);
        zeroize::Zeroizing::new(key)
    };
    let receive = key(
        b"On the client side, this is the send key; on the server side, it is the receive key.",
    );
    let send = key(
        b"On the client side, this is the receive key; on the server side, it is the send key.",
    );
    Proofs {
        nt_response,
        authenticator: format!("S={digits}"),
        msk: Secret::from([&receive[..16], &send[..16], &[0; 32]].concat()),
    }
}

/// A DES key of 56 bits with room for its parity bits, which nobody looks at.
fn with_parity(key: &[u8]) -> [u8; 8] {
    let mut bits = [0; 8];
    bits[1..].copy_from_slice(key);
    let bits = u64::from_be_bytes(bits);
    std::array::from_fn(|index| {
        let shift = 49_usize.saturating_sub(7 * index);
        u8::try_from((bits >> shift) & 0x7f).unwrap_or(0) << 1
    })
}

/// A packet inside EAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    Challenge {
        id: u8,
        challenge: &'a [u8; CHALLENGE_LEN],
    },
    Response {
        id: u8,
        client_challenge: &'a [u8; CHALLENGE_LEN],
        nt_response: &'a [u8; NT_RESPONSE_LEN],
        name: &'a [u8],
    },
    /// With the text of a request; the response to it is its code alone.
    Success {
        text: &'a [u8],
    },
    Failure,
}

impl<'a> Message<'a> {
    /// Reads a packet. `None`: it is none.
    pub(super) fn read(data: &'a [u8]) -> Option<Self> {
        match data {
            [SUCCESS] => return Some(Self::Success { text: &[] }),
            [FAILURE] => return Some(Self::Failure),
            _ => {}
        }
        let (header, rest) = data.split_first_chunk::<HEADER_LEN>()?;
        let [code, id, high, low] = *header;
        if usize::from(u16::from_be_bytes([high, low])) != data.len() {
            return None;
        }
        match code {
            CHALLENGE => {
                let (&size, rest) = rest.split_first()?;
                let (challenge, name) = rest.split_first_chunk::<CHALLENGE_LEN>()?;
                let fits = usize::from(size) == CHALLENGE_LEN && name.len() <= NAME_LEN_MAX;
                fits.then_some(Self::Challenge { id, challenge })
            }
            RESPONSE => {
                let (&size, rest) = rest.split_first()?;
                let (client_challenge, rest) = rest.split_first_chunk::<CHALLENGE_LEN>()?;
                let (_reserved, rest) = rest.split_first_chunk::<8>()?;
                let (nt_response, rest) = rest.split_first_chunk::<NT_RESPONSE_LEN>()?;
                let (_flags, name) = rest.split_first()?;
                let fits = size == RESPONSE_LEN && name.len() <= NAME_LEN_MAX;
                fits.then_some(Self::Response {
                    id,
                    client_challenge,
                    nt_response,
                    name,
                })
            }
            SUCCESS => Some(Self::Success { text: rest }),
            FAILURE => Some(Self::Failure),
            _ => None,
        }
    }
}

/// The server's first packet.
pub(super) fn challenge(id: u8, challenge: &[u8; CHALLENGE_LEN], server: &str) -> Vec<u8> {
    let size = [u8::try_from(CHALLENGE_LEN).unwrap_or(u8::MAX)];
    packet(CHALLENGE, id, &[&size, challenge, server.as_bytes()])
}

/// The client's answer to it.
pub(super) fn response(
    id: u8,
    client_challenge: &[u8; CHALLENGE_LEN],
    nt_response: &[u8; NT_RESPONSE_LEN],
    user: &str,
) -> Vec<u8> {
    let parts: [&[u8]; 6] = [
        &[RESPONSE_LEN],
        client_challenge,
        &[0; 8],
        nt_response,
        &[0],
        user.as_bytes(),
    ];
    packet(RESPONSE, id, &parts)
}

/// The server's proof.
pub(super) fn success(id: u8, authenticator: &str) -> Vec<u8> {
    packet(SUCCESS, id, &[authenticator.as_bytes(), b" M=welcome"])
}

/// The client's answer to Success or Failure.
pub(super) const fn acknowledgement(success: bool) -> [u8; 1] {
    if success { [SUCCESS] } else { [FAILURE] }
}

fn packet(code: u8, id: u8, parts: &[&[u8]]) -> Vec<u8> {
    let data = parts.concat();
    let length = u16::try_from(HEADER_LEN + data.len()).unwrap_or(u16::MAX);
    let [high, low] = length.to_be_bytes();
    [&[code, id, high, low], data.as_slice()].concat()
}
