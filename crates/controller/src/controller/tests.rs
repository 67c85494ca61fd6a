//! Whose policies are whose, when tunnels come and go: the controller on an SPD that somebody else
//! uses too.

mod renewal;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::Controller;
use crate::Timestamp;
use crate::config::{
    Config, End, Identity, InterfaceConfig, OnStop, Role, TunnelConfig, TunnelName,
};
use crate::event::EventKind;
use crate::io::{
    Command, CommandId, CommandOutcome, ControlPing, Datagram, IfId, Input, Output, PolicyKey,
    PolicyScope, XfrmError, XfrmEvent, XfrmOp, XfrmReply,
};
use crate::ring_provider::Ring;

/// The SPD, and what the controller did to it.
#[derive(Default)]
struct Spd {
    ours: BTreeSet<PolicyKey>,
    foreign: BTreeSet<PolicyKey>,
    removed: Vec<PolicyKey>,
    interfaces: BTreeSet<IfId>,
    /// What passed each of the SAs.
    packets: u64,
    /// Updates of policies.
    writes: u32,
}

impl Spd {
    fn perform(&mut self, op: XfrmOp) -> Result<XfrmReply, XfrmError> {
        match op {
            XfrmOp::ReadOurs => {
                return Ok(XfrmReply::Ours {
                    policies: self.ours.iter().copied().collect(),
                    sas: Vec::new(),
                });
            }
            XfrmOp::CreatePolicies(specs) => {
                for spec in &specs {
                    if let PolicyScope::RoutedTo(if_id) = spec.key.scope {
                        assert!(
                            self.interfaces.contains(&if_id),
                            "there before its policies"
                        );
                    }
                }
                let mut keys = specs.iter().map(|spec| spec.key);
                if keys.any(|key| self.foreign.contains(&key) || self.ours.contains(&key)) {
                    return Err(XfrmError::Exists("File exists".into()));
                }
                self.ours.extend(specs.iter().map(|spec| spec.key));
            }
            XfrmOp::UpdatePolicies(specs) => {
                self.writes += 1;
                for spec in specs {
                    assert!(self.ours.contains(&spec.key), "not ours: {:?}", spec.key);
                }
            }
            XfrmOp::RemovePolicies(keys) => {
                for key in keys {
                    assert!(self.ours.remove(&key), "not ours: {key:?}");
                    self.removed.push(key);
                }
            }
            XfrmOp::AddSa(_)
            | XfrmOp::RemoveSa(_)
            | XfrmOp::MoveSa(_)
            | XfrmOp::ReportFirst { .. } => {}
            XfrmOp::ReadPackets(_) => return Ok(XfrmReply::Packets(self.packets)),
            XfrmOp::AddInterface(spec) => {
                self.interfaces.insert(spec.if_id);
            }
            XfrmOp::RemoveInterface(if_id) => {
                let used = |key: &PolicyKey| key.scope == PolicyScope::RoutedTo(if_id);
                assert!(!self.ours.iter().any(used), "its policies go first");
                self.interfaces.remove(&if_id);
            }
        }
        Ok(XfrmReply::Done)
    }
}

/// A controller with its kernel.
struct World {
    controller: Controller,
    spd: Spd,
    now: Timestamp,
    answers: Vec<CommandOutcome>,
    events: Vec<EventKind>,
    /// Under way.
    sent: Vec<Datagram>,
    pings: Vec<ControlPing>,
}

impl World {
    fn new(spd: Spd) -> Self {
        Self {
            controller: Controller::new(Arc::new(Ring::new())),
            spd,
            now: Timestamp::ZERO,
            answers: Vec::new(),
            events: Vec::new(),
            sent: Vec::new(),
            pings: Vec::new(),
        }
    }

    fn hear(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            self.controller.handle(input, self.now);
            loop {
                match self.controller.poll_output() {
                    Output::Xfrm(op, what) => {
                        let result = self.spd.perform(what);
                        inputs.insert(0, Input::XfrmDone { op, result });
                    }
                    Output::Answer(_, outcome) => self.answers.push(outcome),
                    Output::Event(event) => self.events.push(event.kind),
                    Output::Wait(..) => break,
                    Output::Datagram(datagram) => self.sent.push(datagram),
                    Output::Ping(ping) => self.pings.push(ping),
                    Output::FindSource(_)
                    | Output::AddRoute(_)
                    | Output::RemoveRoute(_)
                    | Output::Keepalive { .. }
                    | Output::AddAddress(_)
                    | Output::RemoveAddress(_)
                    | Output::Resolver(_) => {}
                }
            }
        }
    }

    fn configure(&mut self, tunnels: Vec<TunnelConfig>) {
        let tunnels = tunnels.into_iter().map(Arc::new).collect();
        self.hear(Input::Configure(Config {
            tunnels,
            ..Config::default()
        }));
    }

    fn command(&mut self, command: Command) -> Option<CommandOutcome> {
        self.answers.clear();
        self.hear(Input::Command(CommandId(1), command));
        self.answers.pop()
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.hear(Input::Timeout);
    }
}

fn tunnel(name: &str, remote: &[&str]) -> TunnelConfig {
    let network = |text: &str| text.parse().expect("a network");
    let end = |address: &str| End {
        address: Some(address.parse().expect("an address")),
        id: Identity::Fqdn(format!("{address}.example")),
    };
    TunnelConfig {
        local_traffic: vec![network("10.1.0.0/16")],
        remote_traffic: remote.iter().map(|text| network(text)).collect(),
        on_stop: OnStop::Remove,
        ..TunnelConfig::new(
            name,
            Role::Client,
            end("192.0.2.2"),
            end("203.0.113.1"),
            b"a key that only tests use".to_vec().into(),
        )
    }
}

fn name_of(name: &str) -> TunnelName {
    TunnelName(name.into())
}

/// What a tunnel to `remote` has in the SPD, by trying.
fn policies_to(remote: &str) -> BTreeSet<PolicyKey> {
    let mut world = World::new(Spd::default());
    world.configure(vec![tunnel("any", &[remote])]);
    world.spd.ours
}

#[test]
fn a_policy_of_somebody_else_survives_whatever_becomes_of_the_tunnel() {
    let foreign = policies_to("10.2.0.0/16");
    assert_eq!(foreign.len(), 3);
    let mut world = World::new(Spd {
        foreign: foreign.clone(),
        ..Spd::default()
    });
    world.configure(vec![tunnel("a", &["10.2.0.0/16"])]);
    let up = world.command(Command::Up(name_of("a")));
    assert!(
        matches!(&up, Some(CommandOutcome::Failed(text)) if text.contains("not ours")),
        "{up:?}"
    );
    let down = world.command(Command::Down(name_of("a")));
    assert_eq!(down, Some(CommandOutcome::Done));
    world.command(Command::Up(name_of("a")));
    world.configure(vec![tunnel("a", &["10.2.0.0/16", "10.3.0.0/16"])]);
    world.configure(Vec::new());
    world.configure(vec![tunnel("a", &["10.2.0.0/16"])]);
    world.command(Command::Shutdown);
    assert_eq!(world.spd.removed, []);
    assert_eq!(world.spd.foreign, foreign);
}

#[test]
fn what_an_earlier_run_left_stays_ours_while_the_rest_is_refused() {
    let mut world = World::new(Spd {
        ours: policies_to("10.2.0.0/16"),
        foreign: policies_to("10.3.0.0/16"),
        ..Spd::default()
    });
    world.configure(vec![tunnel("a", &["10.2.0.0/16", "10.3.0.0/16"])]);
    assert_eq!(world.spd.ours, policies_to("10.2.0.0/16"));

    world.spd.foreign.clear();
    world.pass(Duration::from_secs(3600));
    assert_eq!(world.spd.ours.len(), 6);
    assert!(world.events.contains(&EventKind::Holding));
    world.command(Command::Down(name_of("a")));
    assert!(world.spd.ours.is_empty());
}

#[test]
fn a_renamed_tunnels_traffic_has_a_policy_throughout() {
    let mut world = World::new(Spd::default());
    world.configure(vec![tunnel("old", &["10.2.0.0/16"])]);
    world.configure(vec![tunnel("new", &["10.2.0.0/16", "10.3.0.0/16"])]);
    assert_eq!(world.spd.removed, []);
    assert_eq!(world.spd.ours.len(), 6);
}

#[test]
fn a_tunnel_that_is_named_no_more_goes_down() {
    let mut world = World::new(Spd::default());
    world.configure(vec![
        tunnel("a", &["10.2.0.0/16"]),
        tunnel("b", &["10.3.0.0/16"]),
    ]);
    world.events.clear();
    world.configure(vec![tunnel("b", &["10.3.0.0/16"])]);
    assert_eq!(world.spd.ours, policies_to("10.3.0.0/16"));
    assert_eq!(world.events, [EventKind::Down]);
}

fn routed(name: &str) -> TunnelConfig {
    TunnelConfig {
        interface: Some(InterfaceConfig {
            name: "ipsec0".into(),
            mtu: 1400,
        }),
        ..tunnel(name, &["10.2.0.0/16"])
    }
}

#[test]
fn an_interface_is_there_before_its_policies_and_goes_after_them() {
    let mut world = World::new(Spd::default());
    world.configure(vec![routed("a")]);
    assert_eq!(world.spd.interfaces.len(), 1);
    // Before the interface, at it, its pings; in and fwd.
    assert_eq!(world.spd.ours.len(), 5);
    world.command(Command::Down(name_of("a")));
    assert!(world.spd.ours.is_empty() && world.spd.interfaces.is_empty());
}

#[test]
fn a_tunnel_that_is_routed_no_more_gives_its_interface_back() {
    let mut world = World::new(Spd::default());
    world.configure(vec![routed("a")]);
    world.configure(vec![tunnel("a", &["10.2.0.0/16"])]);
    assert!(world.spd.interfaces.is_empty());
    assert_eq!(world.spd.ours, policies_to("10.2.0.0/16"));
}

#[test]
fn a_daemon_that_stops_and_blocks_leaves_the_interface_to_its_policies() {
    let mut world = World::new(Spd::default());
    let blocking = TunnelConfig {
        on_stop: OnStop::Block,
        ..routed("a")
    };
    world.configure(vec![blocking]);
    world.command(Command::Shutdown);
    assert_eq!((world.spd.ours.len(), world.spd.interfaces.len()), (5, 1));
}

#[test]
fn policies_that_somebody_removes_at_every_write_are_written_again_without_a_busy_loop() {
    let mut world = World::new(Spd::default());
    world.configure(vec![tunnel("a", &["10.2.0.0/16"])]);
    let removed = *world.spd.ours.first().expect("a policy");
    let steal = |world: &mut World| {
        let before = world.spd.writes;
        world.hear(Input::Xfrm(XfrmEvent::PolicyRemoved(removed)));
        world.spd.writes - before
    };
    world.pass(Duration::from_secs(1));
    let before = world.spd.writes;
    assert_eq!(steal(&mut world), 1, "the first is restored at once");
    for _ in 0..1000 {
        steal(&mut world);
        world.pass(Duration::from_millis(1));
    }
    let writes = world.spd.writes - before;
    assert!((10..=44).contains(&writes), "{writes} in a second");
    let told = |event: &&EventKind| matches!(event, EventKind::Attention { .. });
    assert_eq!(world.events.iter().filter(told).count(), 1);

    // The last one too is restored, in the next window at the latest.
    world.pass(Duration::from_millis(200));
    while steal(&mut world) > 0 {}
    let before = world.spd.writes;
    world.pass(Duration::from_millis(100));
    assert_eq!(world.spd.writes, before + 1);
}
