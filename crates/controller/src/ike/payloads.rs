//! A message's payloads by what they are: one of each where RFC 7296 allows one, and what must be
//! refused found before anything is done.

use epochgate_ike_wire::{
    Authentication, Certificate, Configuration, Delete, Identification, KeyExchange, Nonce, Notify,
    NotifyType, Payload, PayloadType, Proposal, TrafficSelector,
};

/// The payloads of one message, sorted.
#[derive(Debug, Default)]
pub(super) struct Payloads {
    pub(super) proposals: Option<Vec<Proposal>>,
    pub(super) key_exchange: Option<KeyExchange>,
    pub(super) nonce: Option<Nonce>,
    pub(super) id_initiator: Option<Identification>,
    pub(super) id_responder: Option<Identification>,
    pub(super) authentication: Option<Authentication>,
    pub(super) certificates: Vec<Certificate>,
    pub(super) eap: Option<Vec<u8>>,
    pub(super) selectors_initiator: Option<Vec<TrafficSelector>>,
    pub(super) selectors_responder: Option<Vec<TrafficSelector>>,
    pub(super) configuration: Option<Configuration>,
    pub(super) notifies: Vec<Notify>,
    pub(super) deletes: Vec<Delete>,
    pub(super) vendor_ids: Vec<Vec<u8>>,
    /// Of an IKE_INTERMEDIATE message what AUTH covers (RFC 9242 §3.3.2); else nothing.
    pub(super) covered: Vec<u8>,
}

/// What is wrong with a message as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A critical payload that we do not know (RFC 7296 §2.5).
    Critical(PayloadType),
    /// A payload is missing, or twice there (RFC 7296 §2.21).
    Syntax,
}

impl Fault {
    /// What the peer is told.
    pub(super) fn notify(self) -> Payload {
        match self {
            Self::Critical(kind) => notify_with(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, [kind.0]),
            Self::Syntax => notify(NotifyType::INVALID_SYNTAX),
        }
    }
}

impl Payloads {
    /// Sorts. Payloads that we do not use are skipped, as are unknown ones without the critical
    /// bit.
    pub(super) fn sort(payloads: Vec<Payload>) -> Result<Self, Fault> {
        let mut sorted = Self::default();
        for payload in payloads {
            match payload {
                Payload::SecurityAssociation(it) => once(&mut sorted.proposals, it)?,
                Payload::KeyExchange(it) => once(&mut sorted.key_exchange, it)?,
                Payload::Nonce(it) => once(&mut sorted.nonce, it)?,
                Payload::IdInitiator(it) => once(&mut sorted.id_initiator, it)?,
                Payload::IdResponder(it) => once(&mut sorted.id_responder, it)?,
                Payload::Authentication(it) => once(&mut sorted.authentication, it)?,
                Payload::TrafficSelectorsInitiator(it) => {
                    once(&mut sorted.selectors_initiator, it)?;
                }
                Payload::TrafficSelectorsResponder(it) => {
                    once(&mut sorted.selectors_responder, it)?;
                }
                Payload::Eap(it) => once(&mut sorted.eap, it)?,
                Payload::Certificate(it) => sorted.certificates.push(it),
                Payload::Configuration(it) => once(&mut sorted.configuration, it)?,
                Payload::Notify(it) => sorted.notifies.push(it),
                Payload::Delete(it) => sorted.deletes.push(it),
                Payload::VendorId(it) => sorted.vendor_ids.push(it),
                Payload::Unknown {
                    kind,
                    critical: true,
                    ..
                } => return Err(Fault::Critical(kind)),
                Payload::Unknown {
                    critical: false, ..
                }
                | Payload::CertificateRequest(_)
                | Payload::Encrypted(_)
                | Payload::EncryptedFragment(_) => {}
            }
        }
        Ok(sorted)
    }

    /// The first error notify, if any (RFC 7296 §3.10.1).
    pub(super) fn error(&self) -> Option<&Notify> {
        self.notifies.iter().find(|it| it.kind.is_error())
    }

    /// The first notify of this type.
    pub(super) fn notify(&self, kind: NotifyType) -> Option<&Notify> {
        self.notifies.iter().find(|it| it.kind == kind)
    }

    /// The data of every notify of this type.
    pub(super) fn notified(&self, kind: NotifyType) -> impl Iterator<Item = &[u8]> {
        self.notifies
            .iter()
            .filter(move |it| it.kind == kind)
            .map(|it| it.data.as_slice())
    }
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), Fault> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Fault::Syntax),
    }
}

/// A notify payload without data.
pub(super) fn notify(kind: NotifyType) -> Payload {
    notify_with(kind, [])
}

/// A notify payload with data.
pub(super) fn notify_with(kind: NotifyType, data: impl Into<Vec<u8>>) -> Payload {
    Payload::Notify(Notify::new(kind, data))
}
