//! Two endpoints, a network between them that can lose, delay and double messages, and a clock of
//! their own.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed unwrap fails the test"
)]

mod certificates;
mod children;
mod collisions;
mod eap;
mod explore;
mod failures;
mod faults;
mod flood;
mod fragmentation;
mod handshake;
mod hostile;
mod ike_collisions;
mod ike_rekey;
mod informational;
mod intermediate;
mod key_derivation;
mod mobike;
mod nat;
mod ppk;
mod sharing;
mod toy;
mod virtual_addresses;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use epochgate_ike_wire::{ExchangeType, Header, Message, NotifyType, Payload};

use crate::config::{
    End as ConfigEnd, EspSuite, Identity, IkeSuite, NatTraversal, Pfs, Role, TunnelConfig,
};
use crate::crypto::{Cipher, Crypto, Group, Prf};
use crate::io::Datagram;
use crate::ring_provider::Ring;
use crate::{Secret, Timestamp};

use super::sa::IkeSa;
use super::{
    Child, ChildError, ChildId, CloseReason, Endpoint, IkeEvent, IkeOutput, IkeSaId, Limits, Peer,
    Refused, TunnelId,
};

/// The only tunnel of each end.
const TUNNEL: TunnelId = TunnelId(1);
/// One way through the network.
const LATENCY: Duration = Duration::from_millis(10);

const CLIENT: &str = "192.0.2.1";
const SERVER: &str = "198.51.100.1";
/// Where the client is when it is behind the NAT, whose outside then is [`NAT`].
const INSIDE: &str = "10.9.9.9";
const NAT: &str = "203.0.113.7";

/// Which endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Client,
    Server,
}

impl End {
    fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// What the network does with a message.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Lose,
    Double,
    Delay(Duration),
}

/// What happens to the next messages of a kind.
struct Rule {
    from: End,
    exchange: ExchangeType,
    response: bool,
    fate: Fate,
    times: u32,
}

/// An endpoint and what it told.
struct Host {
    endpoint: Endpoint,
    sa: Option<IkeSaId>,
    /// Everything but Alive.
    events: Vec<IkeEvent>,
    alive: usize,
    strangers: Vec<String>,
    children: BTreeMap<ChildId, Child>,
    /// What tunnels beside [`TUNNEL`] heard.
    others: Vec<(TunnelId, IkeEvent)>,
    /// Whether it says at once that Child SAs are in the kernel.
    installs: Option<bool>,
}

/// Both.
struct Pair {
    now: Timestamp,
    client: Host,
    server: Host,
    /// On their way: when, to whom, what.
    network: Vec<(Timestamp, End, Datagram)>,
    rules: Vec<Rule>,
    /// What was sent, in order, also what was lost.
    sent: Vec<(End, Datagram)>,
    nat: bool,
    /// Added to the port that the NAT chooses: changes when it forgets.
    nat_epoch: u16,
}

fn config(end: End) -> TunnelConfig {
    let client = ConfigEnd {
        address: None,
        id: Identity::Fqdn("client.example".into()),
    };
    let server = ConfigEnd {
        address: Some(SERVER.parse().unwrap()),
        id: Identity::Fqdn("server.example".into()),
    };
    let (client_net, server_net) = (
        vec!["10.1.0.0/16".parse().unwrap()],
        vec!["10.2.0.0/16".parse().unwrap()],
    );
    let (role, local, remote, local_traffic, remote_traffic) = match end {
        End::Client => (Role::Client, client, server, client_net, server_net),
        End::Server => (Role::Server, server, client, server_net, client_net),
    };
    let psk = Secret::from(&b"correct horse battery staple"[..]);
    TunnelConfig {
        local_traffic,
        remote_traffic,
        ike: IkeSuite {
            ciphers: vec![Cipher::AesGcm256, Cipher::AesGcm128],
            prfs: vec![Prf::HmacSha256, Prf::HmacSha384, Prf::HmacSha512],
            groups: vec![Group::X25519, Group::P256, Group::P384],
            ..IkeSuite::default()
        },
        esp: EspSuite {
            ciphers: vec![Cipher::AesGcm256, Cipher::AesGcm128],
            groups: vec![],
            ..EspSuite::default()
        },
        ..TunnelConfig::new("branch", role, local, remote, psk)
    }
}

impl Host {
    fn new(crypto: Arc<dyn Crypto>, limits: Limits, config: TunnelConfig) -> Self {
        let mut endpoint = Endpoint::new(crypto, limits);
        endpoint.configure(BTreeMap::from([(TUNNEL, Arc::new(config))]));
        Self {
            endpoint,
            sa: None,
            events: Vec::new(),
            alive: 0,
            strangers: Vec::new(),
            children: BTreeMap::new(),
            others: Vec::new(),
            installs: Some(true),
        }
    }

    /// The latest IKE SA.
    fn sa(&self) -> IkeSaId {
        self.sa.unwrap()
    }

    fn peer(&self) -> Option<&Peer> {
        self.events.iter().find_map(|event| match event {
            IkeEvent::Established(peer) => Some(peer),
            _ => None,
        })
    }

    fn closed(&self) -> Option<&CloseReason> {
        self.events.iter().find_map(|event| match event {
            IkeEvent::Closed(reason) => Some(reason),
            _ => None,
        })
    }

    /// The newest Child SA.
    fn child(&self) -> &Child {
        self.children.values().next_back().unwrap()
    }

    fn is_established(&self) -> bool {
        self.sa.is_some_and(|sa| self.endpoint.is_established(sa))
    }
}

impl Pair {
    fn new() -> Self {
        Self::with(|_| (), |_| ())
    }

    /// With configurations changed.
    fn with(
        client: impl FnOnce(&mut TunnelConfig),
        server: impl FnOnce(&mut TunnelConfig),
    ) -> Self {
        Self::limited(Limits::default(), client, server)
    }

    fn limited(
        limits: Limits,
        client: impl FnOnce(&mut TunnelConfig),
        server: impl FnOnce(&mut TunnelConfig),
    ) -> Self {
        let crypto: Arc<dyn Crypto> = Arc::new(Ring::new());
        Self::with_crypto([Arc::clone(&crypto), crypto], limits, client, server)
    }

    /// With a provider of each end's own, the client's first.
    fn with_crypto(
        [client_crypto, server_crypto]: [Arc<dyn Crypto>; 2],
        limits: Limits,
        client: impl FnOnce(&mut TunnelConfig),
        server: impl FnOnce(&mut TunnelConfig),
    ) -> Self {
        let (mut for_client, mut for_server) = (config(End::Client), config(End::Server));
        client(&mut for_client);
        server(&mut for_server);
        Self {
            now: Timestamp::from_nanos(1_000_000_000),
            client: Host::new(client_crypto, limits.clone(), for_client),
            server: Host::new(server_crypto, limits, for_server),
            network: Vec::new(),
            rules: Vec::new(),
            sent: Vec::new(),
            nat: false,
            nat_epoch: 0,
        }
    }

    /// With an IKE SA and its first Child SA.
    fn established() -> Self {
        let mut pair = Self::new();
        pair.connect();
        pair.settle();
        assert!(pair.client.is_established() && pair.server.is_established());
        pair
    }

    fn host(&mut self, end: End) -> &mut Host {
        match end {
            End::Client => &mut self.client,
            End::Server => &mut self.server,
        }
    }

    fn connect(&mut self) {
        let local = if self.nat { INSIDE } else { CLIENT };
        let (local, remote) = (address(local, 500), address(SERVER, 500));
        let sa = self
            .client
            .endpoint
            .connect(TUNNEL, local, remote, false, self.now);
        self.client.sa = Some(sa);
    }

    fn rule(&mut self, from: End, exchange: ExchangeType, response: bool, fate: Fate, times: u32) {
        self.rules.push(Rule {
            from,
            exchange,
            response,
            fate,
            times,
        });
    }

    fn lose_responses(&mut self, from: End, exchange: ExchangeType, times: u32) {
        self.rule(from, exchange, true, Fate::Lose, times);
    }

    fn lose_requests(&mut self, from: End, exchange: ExchangeType, times: u32) {
        self.rule(from, exchange, false, Fate::Lose, times);
    }

    /// Runs until nothing is under way and nobody waits for an answer: only timers of half a
    /// minute and more are left.
    fn settle(&mut self) {
        self.run(Duration::from_secs(20));
    }

    /// Runs for this long.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.drain(End::Client);
            self.drain(End::Server);
            let arrival = self.network.iter().map(|(at, _, _)| *at).min();
            let timers = [&self.client, &self.server].map(|host| host.endpoint.next_timeout());
            let next = arrival
                .into_iter()
                .chain(timers.into_iter().flatten())
                .min();
            match next {
                Some(next) if next <= end => self.now = self.now.max(next),
                _ => break,
            }
            let mut due = Vec::new();
            let now = self.now;
            self.network.retain(|(at, to, datagram)| {
                let is_due = *at <= now;
                if is_due {
                    due.push((*to, datagram.clone()));
                }
                !is_due
            });
            for (to, datagram) in due {
                self.deliver(to, &datagram);
            }
            self.client.endpoint.handle_timeout(now);
            self.server.endpoint.handle_timeout(now);
        }
        self.now = end;
    }

    /// Sends a request of `from` that no honest endpoint would send, and gives what is in the
    /// response.
    fn ask(&mut self, from: End, exchange: ExchangeType, payloads: &[Payload]) -> Vec<Payload> {
        let now = self.now;
        let sa = self.host(from).sa();
        let schedule = Limits::default().retransmission;
        self.host(from).endpoint.step(sa, now, |sa, ctx| {
            let IkeSa::Established(mut it) = sa else {
                panic!("not established")
            };
            it.session
                .request(ctx, exchange, payloads, schedule)
                .unwrap();
            Some(IkeSa::Established(it))
        });
        self.run(Duration::from_millis(100));
        self.answer_to(from)
    }

    /// What is in the latest response to `end`.
    fn answer_to(&mut self, end: End) -> Vec<Payload> {
        let octets = self
            .sent
            .iter()
            .rev()
            .filter(|(from, _)| *from == end.other())
            .map(|(_, datagram)| datagram.payload.clone())
            .find(|octets| Header::decode(octets).unwrap().flags.response)
            .unwrap();
        let message = Message::decode(&octets).unwrap();
        let (now, sa) = (self.now, self.host(end).sa());
        let mut answer = Vec::new();
        self.host(end).endpoint.step(sa, now, |sa, ctx| {
            let IkeSa::Established(it) = sa else {
                panic!("not established")
            };
            let plain = it
                .session
                .protection
                .open(ctx.crypto, &message, &octets)
                .unwrap();
            answer = epochgate_ike_wire::decode_payloads(plain.first, &plain.text).unwrap();
            Some(IkeSa::Established(it))
        });
        answer
    }

    fn deliver(&mut self, to: End, datagram: &Datagram) {
        let now = self.now;
        self.host(to).endpoint.handle_datagram(datagram, now);
    }

    /// Takes everything out of an endpoint.
    fn drain(&mut self, end: End) {
        let now = self.now;
        while let Some(output) = self.host(end).endpoint.poll() {
            match output {
                IkeOutput::Transmit(datagram) => self.send(end, datagram),
                IkeOutput::Stranger { reason, .. } => self.host(end).strangers.push(reason),
                IkeOutput::Event { sa, tunnel, event } => {
                    let host = self.host(end);
                    if tunnel != TUNNEL {
                        if let IkeEvent::Child(child) = &event
                            && let Some(installed) = host.installs
                        {
                            host.endpoint.child_ready(sa, child.id, installed, now);
                        }
                        host.others.push((tunnel, event));
                        continue;
                    }
                    match &event {
                        IkeEvent::Alive => {
                            host.alive += 1;
                            continue;
                        }
                        IkeEvent::Established(_) => host.sa = Some(sa),
                        IkeEvent::Child(child) => {
                            host.children.insert(child.id, child.as_ref().clone());
                            if let Some(installed) = host.installs {
                                host.endpoint.child_ready(sa, child.id, installed, now);
                            }
                        }
                        IkeEvent::ChildDeleted(child)
                        | IkeEvent::ChildUnknownToPeer(child)
                        | IkeEvent::ChildDeletedByPeer(child) => {
                            host.children.remove(child);
                        }
                        IkeEvent::Joined(_)
                        | IkeEvent::ChildRefused { .. }
                        | IkeEvent::OfferRefused(_)
                        | IkeEvent::AddressWanted
                        | IkeEvent::ChildRedundant(_)
                        | IkeEvent::PathChanged(_)
                        | IkeEvent::KeepaliveDue(_)
                        | IkeEvent::Rekeyed(_)
                        | IkeEvent::RekeyRefused(_)
                        | IkeEvent::RekeyIgnored(_)
                        | IkeEvent::Forgotten
                        | IkeEvent::AuthenticatedUntil(_)
                        | IkeEvent::Closed(_) => {}
                    }
                    host.events.push(event);
                }
            }
        }
    }

    fn send(&mut self, from: End, datagram: Datagram) {
        self.sent.push((from, datagram.clone()));
        let header = Header::decode(&datagram.payload).unwrap();
        let rule = self.rules.iter_mut().find(|rule| {
            rule.times > 0
                && rule.from == from
                && rule.exchange == header.exchange
                && rule.response == header.flags.response
        });
        let fate = rule.map(|rule| {
            rule.times -= 1;
            rule.fate
        });
        let arrived = self.translate(from, datagram);
        let mut put = |delay| {
            self.network
                .push((self.now + LATENCY + delay, from.other(), arrived.clone()));
        };
        match fate {
            None => put(Duration::ZERO),
            Some(Fate::Lose) => {}
            Some(Fate::Double) => {
                put(Duration::ZERO);
                put(Duration::from_millis(1));
            }
            Some(Fate::Delay(delay)) => put(delay),
        }
    }

    /// The datagram as it arrives: ends swapped, and the NAT's work done.
    fn translate(&self, from: End, datagram: Datagram) -> Datagram {
        let outside = |port: u16| 20_000 + self.nat_epoch + port;
        let Datagram {
            local,
            remote,
            payload,
        } = datagram;
        let (source, destination) = match from {
            End::Client if self.nat => (address(NAT, outside(local.port())), remote),
            End::Server if self.nat => (
                local,
                address(INSIDE, remote.port().wrapping_sub(outside(0))),
            ),
            End::Client | End::Server => (local, remote),
        };
        Datagram {
            local: destination,
            remote: source,
            payload,
        }
    }

    /// Messages of an exchange that an end has sent.
    fn sent_by(&self, end: End, exchange: ExchangeType) -> usize {
        let of = |datagram: &Datagram| Header::decode(&datagram.payload).unwrap().exchange;
        let sent = self.sent.iter();
        sent.filter(|(from, it)| *from == end && of(it) == exchange)
            .count()
    }

    /// Header lines of what was sent, for ladders.
    fn ladder(&self) -> Vec<String> {
        self.sent
            .iter()
            .map(|(from, datagram)| {
                let header = Header::decode(&datagram.payload).unwrap();
                let arrow = match from {
                    End::Client => "-->",
                    End::Server => "<--",
                };
                let kind = if header.flags.response {
                    "response"
                } else {
                    "request"
                };
                format!("{arrow} {} {kind} {}", header.exchange, header.message_id)
            })
            .collect()
    }

    /// Both ends agree on the newest Child SA.
    fn assert_same_child(&self) {
        let (ours, theirs) = (self.client.child(), self.server.child());
        assert_eq!(ours.outbound, theirs.inbound);
        assert_eq!(ours.inbound, theirs.outbound);
        assert_eq!(ours.cipher, theirs.cipher);
        assert_eq!(ours.outbound_key, theirs.inbound_key);
        assert_eq!(ours.inbound_key, theirs.outbound_key);
        assert_ne!(ours.inbound_key, ours.outbound_key);
        assert_eq!(ours.local_selectors, theirs.remote_selectors);
        assert_eq!(ours.remote_selectors, theirs.local_selectors);
    }
}

/// The types of the notifies among the payloads.
fn notifies(payloads: &[Payload]) -> Vec<NotifyType> {
    payloads
        .iter()
        .filter_map(|payload| match payload {
            Payload::Notify(notify) => Some(notify.kind),
            _ => None,
        })
        .collect()
}

fn address(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse::<IpAddr>().unwrap(), port)
}
