//! The client's half of an EAP conversation: answers requests, and has a key once both ends have
//! shown that they know the password.

use crate::Secret;
use crate::config::EapUser;
use crate::crypto::Crypto;

use super::ROUNDS_MAX;
use super::mschapv2::{self, CHALLENGE_LEN, Message};
use super::packet::{self, Packet, kind};

/// A conversation.
#[derive(Debug)]
pub(crate) struct Client {
    rounds: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    /// No challenge yet.
    Waiting,
    /// The challenge is answered; the server must show that it knows the password too.
    Proving { authenticator: String, msk: Secret },
    /// It has; what is left is its Success.
    Proven { msk: Secret },
}

/// What comes of a packet.
#[derive(Debug)]
pub(crate) enum ClientStep {
    /// Send this packet.
    Answer(Vec<u8>),
    /// Both ends are proven: the MSK.
    Done(Secret),
    /// It is over, and why.
    Failed(&'static str),
}

impl Client {
    pub(crate) fn new() -> Self {
        Self {
            rounds: 0,
            state: State::Waiting,
        }
    }

    /// Takes the server's packet.
    pub(crate) fn handle(
        &mut self,
        crypto: &dyn Crypto,
        user: &EapUser,
        octets: &[u8],
    ) -> ClientStep {
        self.rounds += 1;
        if self.rounds > ROUNDS_MAX {
            return ClientStep::Failed("EAP goes on without end");
        }
        match Packet::read(octets) {
            Some(Packet::Request {
                id,
                kind: kind::IDENTITY,
                ..
            }) if matches!(self.state, State::Waiting) => {
                ClientStep::Answer(packet::response(id, kind::IDENTITY, user.name.as_bytes()))
            }
            Some(Packet::Request {
                id,
                kind: kind::NOTIFICATION,
                ..
            }) => ClientStep::Answer(packet::response(id, kind::NOTIFICATION, &[])),
            Some(Packet::Request {
                id,
                kind: kind::MSCHAPV2,
                data,
            }) => self.method(crypto, user, id, data),
            Some(Packet::Request { id, .. }) => match self.state {
                State::Waiting => {
                    ClientStep::Answer(packet::response(id, kind::NAK, &[kind::MSCHAPV2]))
                }
                State::Proving { .. } | State::Proven { .. } => {
                    ClientStep::Failed("the server changes the EAP method halfway")
                }
            },
            Some(Packet::Success) => match &self.state {
                State::Proven { msk } => ClientStep::Done(msk.clone()),
                // A server that did not show that it knows the password.
                State::Waiting | State::Proving { .. } => {
                    ClientStep::Failed("the server says success before EAP has proven anything")
                }
            },
            Some(Packet::Failure) => ClientStep::Failed("the server refuses user name or password"),
            Some(Packet::Response { .. }) | None => {
                ClientStep::Failed("the server sent a malformed EAP packet")
            }
        }
    }

    fn method(&mut self, crypto: &dyn Crypto, user: &EapUser, id: u8, data: &[u8]) -> ClientStep {
        let answer = |data: &[u8]| ClientStep::Answer(packet::response(id, kind::MSCHAPV2, data));
        match (&self.state, Message::read(data)) {
            (State::Waiting, Some(Message::Challenge { id, challenge })) => {
                let mut ours = [0; CHALLENGE_LEN];
                if crypto.random(&mut ours).is_err() {
                    return ClientStep::Failed("this host gives no randomness");
                }
                let proofs = mschapv2::prove(crypto, challenge, &ours, &user.name, &user.password);
                let response = mschapv2::response(id, &ours, &proofs.nt_response, &user.name);
                self.state = State::Proving {
                    authenticator: proofs.authenticator,
                    msk: proofs.msk,
                };
                answer(&response)
            }
            (State::Proving { authenticator, msk }, Some(Message::Success { text })) => {
                let shown = text.get(..authenticator.len()).unwrap_or_default();
                if !crypto.equal(shown, authenticator.as_bytes()) {
                    return ClientStep::Failed("the server does not know the password");
                }
                self.state = State::Proven { msk: msk.clone() };
                answer(&mschapv2::acknowledgement(true))
            }
            (State::Proving { .. }, Some(Message::Failure)) => {
                self.state = State::Waiting;
                answer(&mschapv2::acknowledgement(false))
            }
            (State::Waiting | State::Proving { .. } | State::Proven { .. }, _) => {
                ClientStep::Failed("the server sent an MSCHAPv2 packet that is not due")
            }
        }
    }
}
