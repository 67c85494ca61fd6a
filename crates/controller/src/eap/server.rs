//! The server's half of an EAP conversation: it asks who is there, and of that user one proof, with
//! one of its own. A client that does anything else is refused; there is no second try within one
//! IKE SA. Whether a user exists is not told: a stranger gets a challenge too, and fails at it as one
//! with a wrong password does.

use crate::Secret;
use crate::config::EapUsers;
use crate::crypto::Crypto;

use super::mschapv2::{self, CHALLENGE_LEN, Message};
use super::packet::{self, Packet, kind};

/// Octets of a client's identity at most, as of a name in MSCHAPv2 (RFC 2759 §4).
pub(super) const IDENTITY_LEN_MAX: usize = mschapv2::NAME_LEN_MAX;

/// Identifiers of our requests; a response must carry that of the request.
const IDENTITY_ID: u8 = 1;
const CHALLENGE_ID: u8 = 2;
const SUCCESS_ID: u8 = 3;

/// A conversation.
#[derive(Debug)]
pub(crate) struct Server {
    state: State,
}

#[derive(Debug)]
enum State {
    /// The client is asked who it is; the name is ours.
    Identifying { name: String },
    /// It says that it is this user, and the challenge is sent.
    Challenged {
        user: String,
        challenge: [u8; CHALLENGE_LEN],
    },
    /// The client knows the password and has our proof.
    Proven { msk: Secret },
}

impl State {
    /// What a response must carry: the identifier and the type of our request.
    fn due(&self) -> (u8, u8) {
        match self {
            Self::Identifying { .. } => (IDENTITY_ID, kind::IDENTITY),
            Self::Challenged { .. } => (CHALLENGE_ID, kind::MSCHAPV2),
            Self::Proven { .. } => (SUCCESS_ID, kind::MSCHAPV2),
        }
    }
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
    /// Begins a conversation, under this name of ours: the first packet, an Identity request (RFC
    /// 3748 §5.1). RFC 7296 §3.16 would rather have none, since there is an ID payload; but common
    /// clients tell the name of their user in no other way.
    pub(crate) fn begin(name: &str) -> (Self, Vec<u8>) {
        let server = Self {
            state: State::Identifying {
                name: name.to_owned(),
            },
        };
        (server, packet::request(IDENTITY_ID, kind::IDENTITY, &[]))
    }

    /// Takes the client's packet. After [`ServerStep::Done`] and `Failed` there is no other.
    pub(crate) fn handle(
        &mut self,
        crypto: &dyn Crypto,
        users: &EapUsers,
        octets: &[u8],
    ) -> ServerStep {
        let (due_id, _) = self.state.due();
        self.take(crypto, users, octets)
            .unwrap_or_else(|reason| ServerStep::Failed {
                failure: packet::outcome(false, due_id),
                reason,
            })
    }

    /// The step, or why it is over.
    fn take(
        &mut self,
        crypto: &dyn Crypto,
        users: &EapUsers,
        octets: &[u8],
    ) -> Result<ServerStep, String> {
        let data = due(octets, self.state.due())?;
        match &self.state {
            State::Identifying { name } => {
                let user = identity(data)?;
                let mut challenge = [0; CHALLENGE_LEN];
                crypto
                    .random(&mut challenge)
                    .map_err(|error| error.to_string())?;
                let data = mschapv2::challenge(CHALLENGE_ID, &challenge, name);
                self.state = State::Challenged { user, challenge };
                Ok(ask(CHALLENGE_ID, &data))
            }
            State::Challenged { user, challenge } => {
                let (authenticator, msk) = judge(crypto, users, user, challenge, data)?;
                self.state = State::Proven { msk };
                let data = mschapv2::success(CHALLENGE_ID, &authenticator);
                Ok(ask(SUCCESS_ID, &data))
            }
            State::Proven { msk } => match Message::read(data) {
                Some(Message::Success { text: [] }) => Ok(ServerStep::Done {
                    success: packet::outcome(true, SUCCESS_ID),
                    msk: msk.clone(),
                }),
                _ => Err(NOT_DUE.to_owned()),
            },
        }
    }
}

const NOT_DUE: &str = "it sent an MSCHAPv2 packet that is not due";

/// A request of the method.
fn ask(id: u8, data: &[u8]) -> ServerStep {
    ServerStep::Ask(packet::request(id, kind::MSCHAPV2, data))
}

/// The data of the response that is due, by its identifier and type.
fn due(octets: &[u8], (due_id, due_kind): (u8, u8)) -> Result<&[u8], &'static str> {
    match Packet::read(octets) {
        Some(Packet::Response { id, .. }) if id != due_id => Err("it answers another EAP request"),
        Some(Packet::Response { kind, data, .. }) if kind == due_kind => Ok(data),
        Some(Packet::Response {
            kind: kind::NAK, ..
        }) if due_kind == kind::MSCHAPV2 => Err("it has no MSCHAPv2, and there is no other method"),
        Some(Packet::Response { .. }) => Err("it answers with another EAP type"),
        Some(Packet::Request { .. } | Packet::Success | Packet::Failure) | None => {
            Err("it sent an EAP packet that is no response")
        }
    }
}

/// The user that an Identity response names (RFC 3748 §5.1).
fn identity(data: &[u8]) -> Result<String, &'static str> {
    match data {
        [] => Err("it does not say who it is"),
        _ if data.len() > IDENTITY_LEN_MAX => Err("its EAP identity is too long"),
        _ => match std::str::from_utf8(data) {
            Ok(name) => Ok(name.to_owned()),
            Err(_) => Err("its EAP identity is no UTF-8"),
        },
    }
}

/// Whether this Response is the user's, who may not exist: our own proof, and the MSK.
fn judge(
    crypto: &dyn Crypto,
    users: &EapUsers,
    user: &str,
    challenge: &[u8; CHALLENGE_LEN],
    data: &[u8],
) -> Result<(String, Secret), String> {
    let Some(Message::Response {
        id: CHALLENGE_ID,
        client_challenge,
        nt_response,
        name,
    }) = Message::read(data)
    else {
        return Err(NOT_DUE.to_owned());
    };
    // Somebody who is not in the list takes as long as somebody who is.
    let nobody = Secret::from(challenge.to_vec());
    let password = users.password(user);
    let known = password.unwrap_or(&nobody);
    let proofs = mschapv2::prove(crypto, challenge, client_challenge, user, known);
    let is_right = crypto.equal(&proofs.nt_response, nt_response);
    if !is_right || password.is_none() || name != user.as_bytes() {
        let user = short(user);
        return Err(format!(
            "user {user:?} is unknown, or the password is wrong"
        ));
    }
    Ok((proofs.authenticator, proofs.msk))
}

/// So much of a name as a log line bears.
fn short(name: &str) -> String {
    const SHOWN_MAX: usize = 64;
    name.chars().take(SHOWN_MAX).collect()
}
