//! The server's half of an EAP conversation: one challenge, one answer, one proof of its own. A
//! client that does anything else is refused; there is no second try within one IKE SA.

use crate::Secret;
use crate::config::EapUsers;
use crate::crypto::{Crypto, CryptoError};

use super::mschapv2::{self, CHALLENGE_LEN, Message};
use super::packet::{self, Packet, kind};

/// Identifiers of our requests; a response must carry that of the request.
const CHALLENGE_ID: u8 = 1;
const SUCCESS_ID: u8 = 2;

/// A conversation.
#[derive(Debug)]
pub(crate) struct Server {
    state: State,
}

#[derive(Debug)]
enum State {
    /// The challenge is sent.
    Challenged([u8; CHALLENGE_LEN]),
    /// The client knows the password and has our proof.
    Proven(Secret),
}

/// What comes of a packet.
#[derive(Debug)]
pub(crate) enum ServerStep {
    /// Send this packet.
    Ask(Vec<u8>),
    /// Send this Success; the client must now use the MSK.
    Done {
        /// EAP Success.
        success: Vec<u8>,
        /// What both ends now know.
        msk: Secret,
    },
    /// Send this Failure; it is over, and why.
    Failed {
        /// EAP Failure.
        failure: Vec<u8>,
        /// For the log.
        reason: String,
    },
}

impl Server {
    /// Begins a conversation, under this name of ours: the first packet.
    pub(crate) fn begin(crypto: &dyn Crypto, name: &str) -> Result<(Self, Vec<u8>), CryptoError> {
        let mut challenge = [0; CHALLENGE_LEN];
        crypto.random(&mut challenge)?;
        let data = mschapv2::challenge(CHALLENGE_ID, &challenge, name);
        let server = Self {
            state: State::Challenged(challenge),
        };
        Ok((server, packet::request(CHALLENGE_ID, kind::MSCHAPV2, &data)))
    }

    /// Takes the client's packet. After [`ServerStep::Done`] and `Failed` there is no other.
    pub(crate) fn handle(
        &mut self,
        crypto: &dyn Crypto,
        users: &EapUsers,
        octets: &[u8],
    ) -> ServerStep {
        let failed = |id, reason: &str| ServerStep::Failed {
            failure: packet::outcome(false, id),
            reason: reason.to_owned(),
        };
        let (due, challenge) = match &self.state {
            State::Challenged(challenge) => (CHALLENGE_ID, Some(*challenge)),
            State::Proven(_) => (SUCCESS_ID, None),
        };
        let data = match Packet::read(octets) {
            Some(Packet::Response { id, kind, data }) if id == due => match kind {
                kind::MSCHAPV2 => data,
                kind::NAK => {
                    return failed(due, "it has no MSCHAPv2, and there is no other method");
                }
                _ => return failed(due, "it answers with another EAP method"),
            },
            Some(Packet::Response { .. }) => return failed(due, "it answers another EAP request"),
            Some(Packet::Request { .. } | Packet::Success | Packet::Failure) | None => {
                return failed(due, "it sent an EAP packet that is no response");
            }
        };
        match (challenge, Message::read(data)) {
            (
                Some(challenge),
                Some(Message::Response {
                    id: CHALLENGE_ID,
                    client_challenge,
                    nt_response,
                    name,
                }),
            ) => {
                let name = String::from_utf8_lossy(name).into_owned();
                // Somebody who is not in the list takes as long as somebody who is.
                let nobody = Secret::from(challenge.to_vec());
                let password = users.password(&name);
                let proofs = mschapv2::prove(
                    crypto,
                    &challenge,
                    client_challenge,
                    &name,
                    password.unwrap_or(&nobody),
                );
                let is_right = crypto.equal(&proofs.nt_response, nt_response);
                if !is_right || password.is_none() {
                    let reason = format!(
                        "user {:?} is unknown, or the password is wrong",
                        short(&name)
                    );
                    return failed(due, &reason);
                }
                let data = mschapv2::success(CHALLENGE_ID, &proofs.authenticator);
                self.state = State::Proven(proofs.msk);
                ServerStep::Ask(packet::request(SUCCESS_ID, kind::MSCHAPV2, &data))
            }
            (None, Some(Message::Success { text: [] })) => match &self.state {
                State::Proven(msk) => ServerStep::Done {
                    success: packet::outcome(true, SUCCESS_ID),
                    msk: msk.clone(),
                },
                State::Challenged(_) => failed(due, "it sent an MSCHAPv2 packet that is not due"),
            },
            _ => failed(due, "it sent an MSCHAPv2 packet that is not due"),
        }
    }
}

/// So much of a name as a log line bears.
fn short(name: &str) -> String {
    const SHOWN_MAX: usize = 64;
    name.chars().take(SHOWN_MAX).collect()
}
