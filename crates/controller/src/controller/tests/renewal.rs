//! When the peer wants a new IKE SA rather than the old one with new keys: the controller, with a real
//! endpoint as that peer.

use std::collections::BTreeMap;

use epochgate_ike_wire::{ExchangeType, Header, Notify, NotifyType, Payload};

use super::*;
use crate::ike::fuzzing::Forgery;
use crate::ike::{CloseReason, Endpoint, IkeEvent, IkeOutput, Limits, TunnelId};

const TUNNEL: TunnelId = TunnelId(1);

/// The peer, which refuses to rekey an IKE SA with NO_PROPOSAL_CHOSEN and otherwise agrees.
struct Stubborn {
    endpoint: Endpoint,
    config: TunnelConfig,
    answers_pings: bool,
    events: Vec<IkeEvent>,
}

impl Stubborn {
    /// Of this tunnel of the controller's.
    fn new(theirs: &TunnelConfig) -> Self {
        let config = TunnelConfig {
            role: Role::Server,
            local: theirs.remote.clone(),
            remote: theirs.local.clone(),
            local_traffic: theirs.remote_traffic.clone(),
            remote_traffic: theirs.local_traffic.clone(),
            ..theirs.clone()
        };
        let mut endpoint = Endpoint::new(Arc::new(Ring::new()), Limits::default());
        let ping_address = "10.2.0.1".parse().expect("an address");
        endpoint.configure(BTreeMap::from([(TUNNEL, Arc::new(config.clone()))]));
        endpoint.set_announcement(TUNNEL, Some(ping_address));
        Self {
            endpoint,
            config,
            answers_pings: true,
            events: Vec::new(),
        }
    }

    /// Takes a datagram and gives the answers to it.
    fn answer(&mut self, sent: &Datagram, now: Timestamp) -> Vec<Datagram> {
        let header = Header::decode(&sent.payload).expect("an IKE message");
        let mut config = self.config.clone();
        if header.exchange == ExchangeType::CreateChildSa {
            config.ike.prfs.clear();
        }
        let tunnels = BTreeMap::from([(TUNNEL, Arc::new(config))]);
        self.endpoint.configure(tunnels);
        self.endpoint.handle_datagram(&turned(sent), now);
        let mut answers = Vec::new();
        while let Some(output) = self.endpoint.poll() {
            match output {
                IkeOutput::Transmit(datagram) => answers.push(turned(&datagram)),
                IkeOutput::Event { sa, event, .. } => {
                    if let IkeEvent::Child(child) = &event {
                        self.endpoint.child_ready(sa, child.id, true, now);
                    }
                    self.events.push(event);
                }
                IkeOutput::Stranger { reason, .. } => panic!("{reason}"),
            }
        }
        answers
    }

    /// Says on its oldest IKE SA for how many seconds the other end is authenticated.
    fn say_auth_lifetime(&mut self, seconds: u32) -> Vec<Datagram> {
        let lifetime = Notify::new(NotifyType::AUTH_LIFETIME, seconds.to_be_bytes());
        let forgery = Forgery {
            sa: 0,
            exchange: ExchangeType::Informational,
            response: false,
            ahead: 0,
            counted: true,
            answers: 0,
            payloads: &[Payload::Notify(lifetime)],
            limit: None,
        };
        let sent = self.endpoint.forged(&forgery).expect("an IKE SA");
        sent.iter().map(turned).collect()
    }

    fn count(&self, wanted: impl Fn(&IkeEvent) -> bool) -> usize {
        self.events.iter().filter(|event| wanted(event)).count()
    }

    fn closed(&self) -> usize {
        self.count(|event| matches!(event, IkeEvent::Closed(CloseReason::DeletedByPeer)))
    }
}

/// As the other end sees it.
fn turned(datagram: &Datagram) -> Datagram {
    Datagram {
        local: datagram.remote,
        remote: datagram.local,
        payload: datagram.payload.clone(),
    }
}

impl World {
    /// Delivers everything for this long.
    fn talk(&mut self, peer: &mut Stubborn, seconds: u32) {
        for _ in 0..seconds {
            while !self.sent.is_empty() || (peer.answers_pings && !self.pings.is_empty()) {
                for datagram in std::mem::take(&mut self.sent) {
                    for answer in peer.answer(&datagram, self.now) {
                        self.hear(Input::Datagram(answer));
                    }
                }
                if peer.answers_pings {
                    for ping in std::mem::take(&mut self.pings) {
                        let (nonce, from) = (ping.nonce, ping.target);
                        self.spd.packets += 1;
                        self.hear(Input::PingReply { nonce, from });
                    }
                }
            }
            self.pass(Duration::from_secs(1));
        }
    }

    fn renewals(&self) -> usize {
        let anew = |kind: &&EventKind| matches!(kind, EventKind::Reauthenticating { .. });
        self.events.iter().filter(anew).count()
    }

    fn switches(&self) -> usize {
        let switched = |kind: &&EventKind| matches!(kind, EventKind::Switched { .. });
        self.events.iter().filter(switched).count()
    }
}

/// A tunnel that is open.
fn open() -> (World, Stubborn) {
    let tunnel = tunnel("branch", &["10.2.0.0/16"]);
    let mut peer = Stubborn::new(&tunnel);
    let mut world = World::new(Spd::default());
    let addresses = ["192.0.2.2", "10.1.0.1"].map(|text| text.parse().expect("an address"));
    world.hear(Input::Addresses(addresses.to_vec()));
    world.configure(vec![tunnel]);
    world.command(Command::Up(name_of("branch")));
    world.talk(&mut peer, 5);
    assert_eq!((peer.endpoint.len(), world.switches()), (1, 1));
    (world, peer)
}

#[test]
fn an_ike_rekey_that_is_refused_for_good_makes_a_new_ike_sa_before_the_old_one_goes() {
    let (mut world, mut peer) = open();

    peer.answers_pings = false;
    world.command(Command::RekeyIke(name_of("branch")));
    world.talk(&mut peer, 1);
    let [CommandOutcome::Failed(text)] = &world.answers[..] else {
        panic!("{:?}", world.answers)
    };
    assert!(text.contains("NO_PROPOSAL_CHOSEN"), "{text}");
    assert_eq!(world.renewals(), 1);
    // Beside the old one, which the peer is not told to forget: nothing has been proven yet.
    assert_eq!((peer.endpoint.len(), peer.closed()), (2, 0));
    let contacts = peer.events.iter().filter_map(|event| match event {
        IkeEvent::Established(it) => Some(it.initial_contact),
        _ => None,
    });
    assert_eq!(contacts.collect::<Vec<_>>(), [true, false]);

    peer.answers_pings = true;
    world.talk(&mut peer, 60);
    assert_eq!((world.switches(), peer.closed()), (2, 1));
    assert_eq!(peer.count(|event| matches!(event, IkeEvent::Rekeyed(_))), 0);
}

#[test]
fn a_peers_auth_lifetime_makes_a_new_ike_sa_before_it_is_over() {
    let (mut world, mut peer) = open();
    for datagram in peer.say_auth_lifetime(1000) {
        world.hear(Input::Datagram(datagram));
    }
    world.talk(&mut peer, 690);
    assert_eq!((world.renewals(), world.switches()), (0, 1));
    world.talk(&mut peer, 270);
    assert_eq!((world.renewals(), world.switches()), (1, 2));
    assert_eq!(peer.closed(), 1);
}

#[test]
fn an_auth_lifetime_of_nothing_does_not_keep_the_tunnel_busy() {
    let (mut world, mut peer) = open();
    for _ in 0..10 {
        for datagram in peer.say_auth_lifetime(0) {
            world.hear(Input::Datagram(datagram));
        }
        world.talk(&mut peer, 1);
    }
    world.talk(&mut peer, 15);
    assert_eq!(world.renewals(), 0);
    world.talk(&mut peer, 45);
    assert_eq!((world.renewals(), world.switches()), (1, 2));
}
