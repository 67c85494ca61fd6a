//! Two controllers that talk, and a fuzzer between them which holds the keys of both: it loses,
//! doubles and reorders what they say, changes it and seals it again, and says things of its own.
//! Nothing of it may make either of them panic, go round in circles, or keep more and more; and when
//! it stops, the tunnel must come up again by itself.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use epochgate_ike_wire::{
    Delete, ExchangeType, Header, Nonce, Notify, NotifyType, Payload, PayloadType, Protocol,
    encode_payloads,
};

use crate::config::{
    AuthConfig, EapUser, EapUsers, End, Identity, LocalAuth, PostQuantum, RemoteAuth, Role, Start,
    TunnelConfig, TunnelName,
};
use crate::crypto::{AesKey, Cipher, Crypto, Group, Integrity};
use crate::ike::fuzzing::Forgery;
use crate::io::{Command, CommandId, Datagram, Input, XfrmEvent};
use crate::pki::Ppk;
use crate::{Secret, Timestamp};

use super::bytes::Bytes;
use super::host::{Host, push};

const CLIENT: &str = "192.0.2.1";
/// Where a client goes that may roam.
const CLIENT_ELSEWHERE: &str = "192.0.2.77";
const SERVER: &str = "198.51.100.1";
const CLIENT_INSIDE: &str = "10.1.0.1";
const SERVER_INSIDE: &str = "10.2.0.1";
/// Decisions of one script.
const STEPS_MAX: usize = 150;
/// Payloads that were seen and can be said again.
const SEEN_MAX: usize = 64;
/// Payloads of an invented message.
const INVENTED_MAX: usize = 6;
/// Octets of a datagram with a fragment, where they are small.
const FRAGMENT_OCTETS: u16 = 300;
/// The decision to keep a datagram for later.
const KEEP: u8 = 77;
/// Decisions from here on are for fragments.
const FRAGMENTED: u8 = 200;
/// One way through the network.
const LATENCY: Duration = Duration::from_millis(10);
/// In this time a tunnel recovers from anything: every request given up, every back-off over.
const RECOVERY: Duration = Duration::from_secs(900);

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Client,
    Server,
}

struct Conversation {
    now: Timestamp,
    client: Host,
    server: Host,
    /// Payloads that were said under protection.
    seen: Vec<Payload>,
    /// The latest request of each end, for those who answer it.
    asked: [Option<(ExchangeType, u32)>; 2],
    commands: u64,
}

/// Plays a script.
pub fn conversation(crypto: &Arc<dyn Crypto>, script: &[u8]) {
    let mut script = Bytes(script);
    let mut conversation = Conversation::new(crypto, script.octet());
    for _ in 0..STEPS_MAX {
        if script.is_empty() {
            break;
        }
        conversation.step(&mut script);
    }
    conversation.recover();
}

impl Conversation {
    fn new(crypto: &Arc<dyn Crypto>, variant: u8) -> Self {
        let now = Timestamp::from_nanos(1_000_000_000);
        let host = |at: At| {
            let config = config(at, variant);
            let (outside, inside) = match at {
                At::Client => (CLIENT, CLIENT_INSIDE),
                At::Server => (SERVER, SERVER_INSIDE),
            };
            let addresses = [outside, inside].map(address);
            Host::new(Arc::clone(crypto), config, addresses, now)
        };
        let mut conversation = Self {
            now,
            client: host(At::Client),
            server: host(At::Server),
            seen: Vec::new(),
            asked: [None; 2],
            commands: 0,
        };
        if variant & 4 == 0 {
            conversation.talk(Duration::from_secs(2));
            assert!(!conversation.client.pinned.is_empty(), "not even honest");
        }
        conversation
    }

    fn host(&mut self, at: At) -> &mut Host {
        match at {
            At::Client => &mut self.client,
            At::Server => &mut self.server,
        }
    }

    /// One decision of the fuzzer.
    fn step(&mut self, script: &mut Bytes<'_>) {
        let choice = script.octet();
        let at = if choice & 0x80 == 0 {
            At::Client
        } else {
            At::Server
        };
        let now = self.now;
        match choice & 0x1f {
            0 | 1 => self.pass_on(at, |sent| sent.pop_front()),
            2 => self.pass_on(at, |sent| sent.pop_back()),
            3 => drop(self.host(at).sent.pop_front()),
            4 => self.pass_on(at, |sent| sent.front().cloned()),
            5 => self.talk(Duration::from_millis(200)),
            6 => self.talk(Duration::from_secs(u64::from(script.octet() / 4))),
            7 => {
                self.now = self.now + Duration::from_millis(10 * u64::from(script.octet()));
                self.wake();
            }
            8 => {
                if let Some(at) = [self.client.wake_at, self.server.wake_at]
                    .into_iter()
                    .flatten()
                    .min()
                {
                    self.now = self.now.max(at);
                    self.wake();
                }
            }
            9 => self.command(at, Command::Rekey(name())),
            10 => self.command(at, Command::Up(name())),
            11 => self.command(at, Command::Down(name())),
            12 => self.host(at).refuse_next = true,
            13 => self.answer_ping(at),
            14 => drop(self.host(at).pings.pop_front()),
            15 => {
                let index = usize::from(script.octet());
                if let Some(sa) = self.host(at).inbound(index) {
                    self.host(at).packets += 1;
                    self.host(at).event(XfrmEvent::FirstPacket(sa), now);
                }
            }
            16 => {
                let (index, port) = (usize::from(script.octet()), script.number());
                if let Some(sa) = self.host(at).inbound(index) {
                    let source = SocketAddr::new(address(peer_of(at)), port);
                    let event = XfrmEvent::MappingChanged { sa, source };
                    self.host(at).event(event, now);
                }
            }
            17 => {
                let index = usize::from(script.octet());
                if let Some(sa) = self.host(at).inbound(index) {
                    self.host(at).sas.remove(&sa);
                    self.host(at).event(XfrmEvent::Expired(sa), now);
                }
            }
            18 => self.scramble(at, script),
            31 if at == At::Client => self.roam(),
            19 => self.move_source(at, script),
            20..=25 => self.alter(at, script),
            _ => self.invent(at, script),
        }
        self.look(At::Client);
        self.look(At::Server);
    }

    /// Delivers one of the datagrams that `from` has sent.
    fn pass_on(
        &mut self,
        from: At,
        pick: impl FnOnce(&mut std::collections::VecDeque<Datagram>) -> Option<Datagram>,
    ) {
        if let Some(datagram) = pick(&mut self.host(from).sent) {
            self.deliver(from, datagram);
        }
    }

    fn deliver(&mut self, from: At, datagram: Datagram) {
        let now = self.now;
        let arrived = Datagram {
            local: datagram.remote,
            remote: datagram.local,
            payload: datagram.payload,
        };
        self.host(from.other()).hear(Input::Datagram(arrived), now);
    }

    /// Remembers what the newest datagram of `from` says.
    fn look(&mut self, from: At) {
        let Some(octets) = self.host(from).sent.back().map(|it| it.payload.clone()) else {
            return;
        };
        let Ok(header) = Header::decode(&octets) else {
            panic!("an endpoint sent what is no IKE message")
        };
        if !header.flags.response {
            self.asked[from as usize] = Some((header.exchange, header.message_id));
        }
        let opened = self
            .host(from.other())
            .controller
            .endpoint()
            .opened(&octets);
        for payload in opened.into_iter().flat_map(|it| it.1) {
            if self.seen.len() < SEEN_MAX && !self.seen.contains(&payload) {
                self.seen.push(payload);
            }
        }
    }

    fn wake(&mut self) {
        let now = self.now;
        self.client.hear(Input::Timeout, now);
        self.server.hear(Input::Timeout, now);
    }

    fn command(&mut self, at: At, command: Command) {
        self.commands += 1;
        let (id, now) = (CommandId(self.commands), self.now);
        self.host(at).hear(Input::Command(id, command), now);
    }

    /// The oldest ping of `at` goes through its SA, if that is at both ends, and comes back.
    fn answer_ping(&mut self, at: At) {
        let now = self.now;
        let Some(ping) = self.host(at).pings.pop_front() else {
            return;
        };
        let peer = self.host(at.other());
        if !peer.sas.contains_key(&ping.sa) {
            return;
        }
        peer.packets += 1;
        peer.event(XfrmEvent::FirstPacket(ping.sa), now);
        self.host(at).packets += 1;
        let reply = Input::PingReply {
            nonce: ping.nonce,
            from: ping.target,
        };
        self.host(at).hear(reply, now);
    }

    /// The client's outer address changes (RFC 4555), to the other one and back.
    fn roam(&mut self) {
        let elsewhere = address(CLIENT_ELSEWHERE);
        let outside = if self.client.source == elsewhere {
            address(CLIENT)
        } else {
            elsewhere
        };
        self.client.source = outside;
        let addresses = vec![outside, address(CLIENT_INSIDE)];
        let now = self.now;
        self.client.hear(Input::Addresses(addresses), now);
    }

    /// Nobody interferes for a while.
    fn talk(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let mut quiet = true;
            for at in [At::Client, At::Server] {
                while let Some(datagram) = self.host(at).sent.pop_front() {
                    quiet = false;
                    self.deliver(at, datagram);
                }
                while !self.host(at).pings.is_empty() {
                    quiet = false;
                    self.answer_ping(at);
                }
            }
            let due = [self.client.wake_at, self.server.wake_at]
                .into_iter()
                .flatten()
                .min();
            let next = if quiet { due } else { Some(self.now + LATENCY) };
            match next {
                // A timer that is due already must not hold the clock.
                Some(at) if at <= end => self.now = at.max(self.now + Duration::from_millis(1)),
                Some(_) | None => break,
            }
            self.wake();
        }
        self.now = self.now.max(end);
        self.wake();
    }

    /// The oldest datagram with a few octets changed, which its integrity check does not survive.
    fn scramble(&mut self, at: At, script: &mut Bytes<'_>) {
        let Some(mut datagram) = self.host(at).sent.front().cloned() else {
            return;
        };
        change(&mut datagram.payload, script);
        self.deliver(at, datagram);
    }

    /// The oldest datagram from another address or port.
    fn move_source(&mut self, at: At, script: &mut Bytes<'_>) {
        let Some(mut datagram) = self.host(at).sent.pop_front() else {
            return;
        };
        let port = script.number();
        datagram.local.set_port(port);
        if port & 1 != 0 {
            datagram.local.set_ip(address("203.0.113.77"));
        }
        self.deliver(at, datagram);
    }

    /// The oldest protected datagram, changed inside and sealed again with the keys.
    fn alter(&mut self, from: At, script: &mut Bytes<'_>) {
        let Some(mut datagram) = self.host(from).sent.pop_front() else {
            return self.invent(from, script);
        };
        let to = self.host(from.other()).controller.endpoint();
        let Some((mut header, mut payloads)) = to.opened(&datagram.payload) else {
            return self.deliver(from, datagram);
        };
        for _ in 0..=script.below(3) {
            let at = script.below(payloads.len());
            match script.octet() % 7 {
                0 if !payloads.is_empty() => drop(payloads.remove(at)),
                1 if !payloads.is_empty() => payloads.push(payloads[at].clone()),
                2 | 3 if !payloads.is_empty() => payloads[at] = raw(&payloads[at], script),
                4 if !payloads.is_empty() => payloads[at] = self.invented(script),
                5 => header.exchange = exchange(script),
                _ => payloads.push(self.invented(script)),
            }
        }
        let limit = limit(script);
        let endpoint = self.host(from).controller.endpoint();
        let sealed = endpoint.sealed_again(&header, &payloads, limit);
        for octets in sealed.into_iter().flatten() {
            datagram.payload = octets;
            self.pass_or_keep(from, datagram.clone(), script);
        }
    }

    /// A message that `from` never thought of.
    fn invent(&mut self, from: At, script: &mut Bytes<'_>) {
        let flags = script.octet();
        let response = flags & 1 != 0;
        let mut payloads = Vec::new();
        for _ in 0..script.below(INVENTED_MAX) {
            payloads.push(self.invented(script));
        }
        let asked = self.asked[from.other() as usize];
        let (exchange, answers) = match asked {
            Some(asked) if response && flags & 2 == 0 => asked,
            Some((_, id)) => (exchange(script), id),
            None => (exchange(script), 0),
        };
        let ahead = if flags & 0x30 == 0x30 {
            u32::from(script.octet()).wrapping_sub(3)
        } else {
            0
        };
        let forgery = Forgery {
            sa: script.below(4),
            exchange,
            response,
            ahead,
            counted: flags & 0x40 == 0,
            answers,
            payloads: &payloads,
            limit: limit(script),
        };
        let forged = self.host(from).controller.endpoint().forged(&forgery);
        for datagram in forged.into_iter().flatten() {
            self.pass_or_keep(from, datagram, script);
        }
    }

    /// Delivers now, or leaves it to a later decision: fragments get out of order that way.
    fn pass_or_keep(&mut self, from: At, datagram: Datagram, script: &mut Bytes<'_>) {
        if script.octet() == KEEP {
            push(&mut self.host(from).sent, datagram);
        } else {
            self.deliver(from, datagram);
        }
    }

    fn invented(&mut self, script: &mut Bytes<'_>) -> Payload {
        match script.octet() % 8 {
            0 | 1 if !self.seen.is_empty() => {
                let at = script.below(self.seen.len());
                self.seen[at].clone()
            }
            2 if !self.seen.is_empty() => {
                let at = script.below(self.seen.len());
                raw(&self.seen[at].clone(), script)
            }
            3 => Payload::Notify(Notify::new(NotifyType(script.number()), script.some())),
            4 => {
                let spi = self.some_spi(script);
                let kind = NotifyType(16384 + u16::from(script.octet()) % 60);
                Payload::Notify(Notify::about_child(kind, Protocol::Esp, spi))
            }
            5 => match script.octet() % 4 {
                0 => Payload::Delete(Delete::IkeSa),
                count => {
                    let spis = (0..count).map(|_| self.some_spi(script)).collect();
                    Payload::Delete(Delete::Esp(spis))
                }
            },
            6 => {
                let mut octets = script.some().to_vec();
                octets.resize(octets.len().clamp(16, 256), 0);
                Payload::Nonce(Nonce::new(octets).expect("of allowed length"))
            }
            _ => unknown(PayloadType(script.octet()), script.some().to_vec()),
        }
    }

    /// The SPI of an SA that one of both ends has, or of none.
    fn some_spi(&mut self, script: &mut Bytes<'_>) -> u32 {
        let spis: Vec<u32> = [&self.client, &self.server]
            .into_iter()
            .flat_map(|host| host.sas.keys())
            .map(|sa| sa.spi.0.get())
            .collect();
        let at = script.below(spis.len() + 1);
        spis.get(at).copied().unwrap_or(0)
    }

    /// The fuzzer is gone: whatever it did, traffic flows again (I5), and nothing was left over.
    fn recover(&mut self) {
        for host in [&mut self.client, &mut self.server] {
            host.refuse_next = false;
            host.sent.clear();
        }
        self.command(At::Server, Command::Up(name()));
        self.command(At::Client, Command::Up(name()));
        self.talk(RECOVERY);
        // What a peer agreed to is used until the next rekey, however narrow it is.
        self.command(At::Client, Command::Rekey(name()));
        self.talk(Duration::from_secs(60));
        assert!(!self.client.pinned.is_empty(), "the client stays shut");
        assert!(!self.server.pinned.is_empty(), "the server stays shut");
        for (ours, theirs) in [(&self.client, &self.server), (&self.server, &self.client)] {
            for sa in ours.pinned.values() {
                assert!(theirs.sas.contains_key(sa), "sends into a hole");
            }
        }
    }
}

impl At {
    fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

fn peer_of(at: At) -> &'static str {
    match at {
        At::Client => SERVER,
        At::Server => CLIENT,
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn name() -> TunnelName {
    TunnelName("fuzzed".into())
}

/// The first decision: what both ends are configured with.
fn config(at: At, variant: u8) -> TunnelConfig {
    let mut config = site(at);
    let (client, server) = (at == At::Client, at == At::Server);
    if variant & 1 != 0 {
        config.esp.groups.clear();
    }
    if variant & 2 != 0 && server {
        // Another guess than the client's: INVALID_KE_PAYLOAD.
        config.ike.groups = vec![Group::P256];
    }
    if variant & 8 != 0 {
        config.ike.post_quantum = PostQuantum::Prefer;
    }
    if variant & 0x10 != 0 {
        config.ike.ciphers = vec![Cipher::AesCbc(AesKey::Bits128, Integrity::HmacSha256)];
    }
    if variant & 0x20 != 0 {
        config.path.fragment_size = Some(FRAGMENT_OCTETS);
    }
    match variant & 0xc0 {
        0x40 => {
            config.auth.ppk = Some(Ppk {
                id: b"fuzzed".to_vec(),
                key: Secret::from(vec![7; 32]),
                required: true,
            });
        }
        0x80 => config.auth = eap(at, config.auth),
        0xc0 if client => config.local.address = None,
        0xc0 => config.remote.address = None,
        _ => {}
    }
    config
}

/// The client authenticates by EAP, and the server by the key: certificates would have the fuzzer
/// spend its time on signatures.
fn eap(at: At, by_key: AuthConfig) -> AuthConfig {
    let user = EapUser {
        name: "fuzzed".into(),
        password: Secret::from(&b"a password that it knows too"[..]),
    };
    match at {
        At::Client => AuthConfig {
            local: LocalAuth::Eap(user),
            ..by_key
        },
        At::Server => AuthConfig {
            remote: RemoteAuth::Eap(EapUsers::new([user])),
            ..by_key
        },
    }
}

fn site(at: At) -> TunnelConfig {
    let end = |at: &str| End {
        address: Some(address(at)),
        id: Identity::Fqdn(format!("{at}.example")),
    };
    let key = || Secret::from(&b"a key that the fuzzer knows too"[..]);
    let inside = |network: &str| vec![network.parse().expect("a network")];
    let (client_net, server_net) = (inside("10.1.0.0/16"), inside("10.2.0.0/16"));
    let (mut config, local, remote) = match at {
        At::Client => (
            TunnelConfig::new("fuzzed", Role::Client, end(CLIENT), end(SERVER), key()),
            client_net,
            server_net,
        ),
        At::Server => (
            TunnelConfig::new("fuzzed", Role::Server, end(SERVER), end(CLIENT), key()),
            server_net,
            client_net,
        ),
    };
    config.local_traffic = local;
    config.remote_traffic = remote;
    config.ike.groups = vec![Group::X25519, Group::P256];
    // Fewer pings make faster runs.
    config.ping.idle = Duration::from_secs(60);
    if at == At::Client {
        config.start = Start::Always;
        config.ping.target = Some(address(SERVER_INSIDE));
    }
    config
}

fn exchange(script: &mut Bytes<'_>) -> ExchangeType {
    match script.octet() % 6 {
        0 => ExchangeType::IkeAuth,
        1 | 2 => ExchangeType::CreateChildSa,
        3 | 4 => ExchangeType::Informational,
        _ => ExchangeType::from(script.octet()),
    }
}

/// Octets of each message where it is to go in fragments: most often, not.
fn limit(script: &mut Bytes<'_>) -> Option<usize> {
    let octet = script.octet();
    (octet >= FRAGMENTED).then(|| 60 + 8 * usize::from(octet - FRAGMENTED))
}

/// The payload with a few octets of its body changed, whatever they then mean.
fn raw(payload: &Payload, script: &mut Bytes<'_>) -> Payload {
    let Ok((kind, octets)) = encode_payloads(std::slice::from_ref(payload)) else {
        return payload.clone();
    };
    let mut body = octets[4..].to_vec();
    change(&mut body, script);
    unknown(kind, body)
}

/// A payload of any type but those that have no place inside an Encrypted payload.
fn unknown(kind: PayloadType, body: Vec<u8>) -> Payload {
    let kind = match kind {
        PayloadType::NONE | PayloadType::ENCRYPTED | PayloadType::ENCRYPTED_FRAGMENT => {
            PayloadType(200)
        }
        other => other,
    };
    Payload::Unknown {
        kind,
        critical: body.first().is_some_and(|it| it & 1 != 0),
        body,
    }
}

fn change(octets: &mut Vec<u8>, script: &mut Bytes<'_>) {
    let how = script.octet();
    match how % 4 {
        0 => octets.truncate(usize::from(script.octet())),
        1 => octets.extend_from_slice(script.some()),
        _ => {
            for _ in 0..=(how >> 6) {
                let at = usize::from(script.number());
                let value = script.octet();
                if let Some(octet) = at.checked_rem(octets.len()).map(|at| &mut octets[at]) {
                    *octet = value;
                }
            }
        }
    }
}
