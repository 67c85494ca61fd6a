//! What a fuzzer needs of an endpoint that nobody else may have: what its messages say, and messages
//! sealed with its keys that it never made.

use epochgate_ike_wire::{ExchangeType, Header, IkeSpi, Message, Payload, decode_payloads};

use crate::config::{End, Identity, Role, TunnelConfig};
use crate::io::Datagram;

use super::endpoint::Endpoint;
use super::payloads::Payloads;
use super::proposal::{self, ChildKeyExchange};
use super::sa::IkeSa;
use super::session::Session;
use super::{announce, identity, selectors};

/// Runs whatever reads decrypted payloads without an IKE SA around them.
pub(crate) fn read(payloads: Vec<Payload>) {
    let Ok(sorted) = Payloads::sort(payloads) else {
        return;
    };
    let end = || End {
        address: None,
        id: Identity::Fqdn("end.example".into()),
    };
    let config = TunnelConfig::new("fuzzed", Role::Server, end(), end(), Vec::new().into());
    let networks = ["10.1.0.0/16", "2001:db8::/32"].map(|it| it.parse().expect("a network"));
    let guess = sorted.key_exchange.as_ref().map(|it| it.method);
    if let Some(offer) = &sorted.proposals {
        let chosen = proposal::choose_ike(&config.ike, offer, guess);
        assert!(chosen.is_none_or(|it| !it.proposal.transforms.is_empty()));
        proposal::accept_ike(&config.ike, offer);
        for exchange in [ChildKeyExchange::Never, ChildKeyExchange::AsConfigured] {
            let chosen = proposal::choose_esp(&config.esp, exchange, offer, guess);
            assert!(chosen.is_none_or(|it| !it.proposal.transforms.is_empty()));
            proposal::accept_esp(&config.esp, exchange, offer);
        }
    }
    for offer in [&sorted.selectors_initiator, &sorted.selectors_responder]
        .into_iter()
        .flatten()
    {
        let ours = selectors::from_networks(&networks);
        let narrowed = selectors::narrow(offer, &networks);
        assert!(selectors::within(&narrowed, &ours) || narrowed.is_empty());
        selectors::within(offer, &ours);
    }
    for id in [&sorted.id_initiator, &sorted.id_responder]
        .into_iter()
        .flatten()
    {
        identity::is(&id.identity, &config.remote.id);
        assert!(id.identity.to_string().len() <= 1 << 20);
    }
    announce::read(&sorted);
    sorted.error();
}

/// A message that an endpoint could have sent.
pub(crate) struct Forgery<'a> {
    /// Which of the IKE SAs that have keys, oldest first; taken modulo their number.
    pub(crate) sa: usize,
    pub(crate) exchange: ExchangeType,
    pub(crate) response: bool,
    /// Added to the message ID that is due.
    pub(crate) ahead: u32,
    /// Whether the endpoint counts the message as its own, and goes on after it.
    pub(crate) counted: bool,
    /// The message ID of a response.
    pub(crate) answers: u32,
    pub(crate) payloads: &'a [Payload],
    /// Octets of each message, if it goes in fragments (RFC 7383).
    pub(crate) limit: Option<usize>,
}

impl Endpoint {
    /// What a protected message for this endpoint says.
    pub(crate) fn opened(&mut self, octets: &[u8]) -> Option<(Header, Vec<Payload>)> {
        let message = Message::decode(octets).ok()?;
        let header = message.header;
        let spi = if header.flags.initiator {
            header.responder_spi
        } else {
            header.initiator_spi
        };
        let crypto = self.provider();
        let session = self.sessions().find(|it| it.our_spi() == spi)?;
        let plain = session
            .protection
            .open(crypto.as_ref(), &message, octets)
            .ok()?;
        let payloads = decode_payloads(plain.first, &plain.text).ok()?;
        Some((header, payloads))
    }

    /// The same message with other payloads, in fragments of `limit` octets if there is one.
    pub(crate) fn sealed_again(
        &mut self,
        header: &Header,
        payloads: &[Payload],
        limit: Option<usize>,
    ) -> Option<Vec<Vec<u8>>> {
        let spi: IkeSpi = if header.flags.initiator {
            header.initiator_spi
        } else {
            header.responder_spi
        };
        let crypto = self.provider();
        let session = self.sessions().find(|it| it.our_spi() == spi)?;
        session
            .protection
            .seal(crypto.as_ref(), header, payloads, limit)
            .ok()
            .map(|sealed| sealed.datagrams().map(<[u8]>::to_vec).collect())
    }

    /// The datagrams of a message that this endpoint did not make.
    pub(crate) fn forged(&mut self, forgery: &Forgery<'_>) -> Option<Vec<Datagram>> {
        let crypto = self.provider();
        let count = self.sessions().count();
        let session = self.sessions().nth(forgery.sa.checked_rem(count)?)?;
        let due = if forgery.response {
            forgery.answers
        } else {
            session.next_request
        };
        let message_id = due.wrapping_add(forgery.ahead);
        let header = session.header(forgery.exchange, message_id, forgery.response);
        let sealed = session
            .protection
            .seal(crypto.as_ref(), &header, forgery.payloads, forgery.limit)
            .ok()?;
        if forgery.counted && !forgery.response {
            session.next_request = message_id.saturating_add(1);
        }
        let datagram = |octets: &[u8]| Datagram {
            local: session.path.local,
            remote: session.path.remote,
            payload: octets.to_vec(),
        };
        Some(sealed.datagrams().map(datagram).collect())
    }

    fn sessions(&mut self) -> impl Iterator<Item = &mut Session> {
        self.states().filter_map(|sa| match sa {
            IkeSa::Initiating(_) => None,
            IkeSa::HalfOpen(it) => Some(&mut it.session),
            IkeSa::Intermediate(it) => Some(&mut it.session),
            IkeSa::Authenticating(it) => Some(&mut it.session),
            IkeSa::Established(it) => Some(&mut it.session),
            IkeSa::Closing(it) => Some(&mut it.session),
            IkeSa::Lingering(it) => Some(&mut it.session),
        })
    }
}
