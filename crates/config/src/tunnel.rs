//! One `[tunnel.NAME]`: from its sections to a [`TunnelConfig`], with everything checked that one
//! tunnel alone can get wrong.

use std::net::IpAddr;

use epochgate_controller::config::{
    End, EpochConfig, EspSuite, Identity, IkeSaConfig, IkeSuite, InterfaceConfig, NatTraversal,
    OnStop, PathConfig, PingConfig, RecoveryConfig, Role, Start, TunnelConfig, TunnelName,
};
use ipnet::IpNet;

use crate::addressing::{self, Pools, Virtual};
use crate::algorithms;
use crate::auth::{self, Auth, Ends};
use crate::diagnostic::{Sink, Span, quoted};
use crate::epoch::{read_epoch, read_ping, read_recovery};
use crate::files::Files;
use crate::ike_sa;
use crate::interface;
use crate::keys::NAME_LEN_MAX;
use crate::path;
use crate::reader::{At, Section};
use crate::template::{self, Templates};
use crate::traffic::{self, Named, Outer, Surroundings, Traffic};
use crate::values::{self, ANY, Choice, Words, read_choice, read_word};

pub(crate) const ROLES: Words<Role, 2> =
    Words([("client", Role::Client), ("server", Role::Server)]);
pub(crate) const STARTS: Words<Start, 3> = Words([
    ("on-demand", Start::OnDemand),
    ("always", Start::Always),
    ("listen", Start::Listen),
]);
pub(crate) const NAT_TRAVERSALS: Choice<NatTraversal, 2> = Choice {
    words: Words([("auto", NatTraversal::Auto), ("off", NatTraversal::Off)]),
    default: 0,
};
pub(crate) const ON_STOPS: Choice<OnStop, 2> = Choice {
    words: Words([("block", OnStop::Block), ("remove", OnStop::Remove)]),
    default: 0,
};

/// Keys of a tunnel whose mistyping would make two tunnels look as if they had the same peer.
const PEER_KEYS: [&str; 6] = ["nat-t", "path", "ike", "algorithms", "virtual", "ppk"];

/// What checks between tunnels look at: as much of a tunnel as is right, and the places that they
/// point at.
pub(crate) struct Draft {
    pub(crate) name: TunnelName,
    pub(crate) name_span: Span,
    pub(crate) remote_id_span: Span,
    /// `None`: not known.
    pub(crate) traffic: Option<Traffic>,
    /// Routes may tell its traffic from others': it has an interface, right or wrong.
    pub(crate) is_routed: bool,
    pub(crate) interface: Option<InterfaceConfig>,
    /// Whole where nothing was reported. Else right in what concerns the peer
    /// ([`TunnelConfig::shares_peer_with`]); `None`: not even that.
    pub(crate) config: Option<TunnelConfig>,
}

/// What a tunnel needs besides its own sections.
pub(crate) struct Around<'a, 'f> {
    pub(crate) pools: &'a Pools,
    pub(crate) templates: &'a mut Templates<'f>,
    pub(crate) files: &'f dyn Files,
}

/// Reads one tunnel, and goes on after each mistake.
pub(crate) fn read(
    name: &At<&str>,
    section: &Section<'_>,
    around: &mut Around<'_, '_>,
    sink: &mut Sink,
) -> Draft {
    check_name(name, sink);
    let suites = section.section("algorithms", sink);
    let peer = read_peer(section, &suites, around, sink);
    let (child, mut traffic) = read_child(section, &suites, &peer, around, sink);
    if let Some(traffic) = &mut traffic
        && peer.addresses.addressing.pools().is_some()
    {
        // Known once they are leased; the pools' own networks are nobody's policies.
        traffic.remote.clear();
    }
    Draft {
        name: TunnelName(name.value.into()),
        name_span: name.span.clone(),
        remote_id_span: peer.remote_id_span.clone(),
        is_routed: section.has("interface") || section.may_mean("interface"),
        interface: child.interface.clone(),
        config: assemble(name, peer, child, traffic.as_ref()),
        traffic,
    }
}

/// What the tunnels of one IKE SA have in common, as far as it could be read.
struct Peer {
    role: Option<Role>,
    start: Option<At<Start>>,
    local: ReadEnd,
    remote: ReadEnd,
    remote_id_span: Span,
    auth: Option<Auth>,
    nat_traversal: NatTraversal,
    path: PathConfig,
    addresses: Virtual,
    ike_sa: IkeSaConfig,
    ike: IkeSuite,
    /// Nothing of it was reported.
    is_right: bool,
}

fn read_peer(
    section: &Section<'_>,
    suites: &Section<'_>,
    around: &Around<'_, '_>,
    sink: &mut Sink,
) -> Peer {
    let before = sink.count();
    let role = read_word(section, "role", &ROLES, sink).map(|role| role.value);
    if !section.has("role") {
        section.missing("role", "role = \"client\" or role = \"server\"", sink);
    }
    let local_section = section.section("local", sink);
    let remote_section = section.section("remote", sink);
    if !section.has("local") {
        let example =
            "local = { id = \"branch.example\", psk-file = \"/etc/epochgate/branch.psk\" }";
        section.missing("local", example, sink);
    }
    if !section.has("remote") {
        section.missing("remote", "remote = { address = \"203.0.113.1\" }", sink);
    }
    let local = read_end(&local_section, "branch.example", sink);
    let remote = read_end(&remote_section, "hq.example", sink);
    let ends = Ends {
        local: &local_section,
        remote: &remote_section,
        local_id: local.id.as_ref(),
        ppk: &section.section("ppk", sink),
    };
    let auth = auth::read(&ends, around.files, sink);
    check_outer_families(&local, &remote, sink);
    let start = read_word(section, "start", &STARTS, sink);
    check_reachable(section, role, &remote, start.as_ref(), sink);
    let nat_traversal = read_choice(section, "nat-t", &NAT_TRAVERSALS, sink);
    let addresses = addressing::read(section, role, start.as_ref(), around.pools, sink);
    let path = path::read(&section.section("path", sink), sink);
    let ike_sa = ike_sa::read(&section.section("ike", sink), sink);
    let ike = algorithms::read_ike(&suites.section("ike", sink), sink);
    let may_differ = PEER_KEYS.iter().any(|key| section.may_mean(key)) || suites.may_mean("ike");
    Peer {
        role,
        start,
        local,
        remote_id_span: remote
            .id
            .as_ref()
            .map_or(section.span(), |id| id.span.clone()),
        remote,
        auth,
        nat_traversal,
        path,
        addresses,
        ike_sa,
        ike,
        is_right: sink.count() == before && !may_differ,
    }
}

/// What is of each tunnel alone, besides its traffic, as far as it could be read.
struct Child {
    template: Option<Named>,
    on_stop: OnStop,
    interface: Option<InterfaceConfig>,
    ping: PingConfig,
    epoch: EpochConfig,
    recovery: RecoveryConfig,
    esp: EspSuite,
}

fn read_child(
    section: &Section<'_>,
    suites: &Section<'_>,
    peer: &Peer,
    around: &mut Around<'_, '_>,
    sink: &mut Sink,
) -> (Child, Option<Traffic>) {
    let template = read_policy(section, around.templates, sink);
    let surroundings = Surroundings {
        role: peer.role,
        template: template.as_ref(),
        local_address: peer.local.outer(),
        remote_address: peer.remote.outer(),
        addresses: &peer.addresses,
    };
    let sides = traffic::read(&section.section("traffic", sink), &surroundings, sink);
    let (epoch, lifetime) = read_epoch(&section.section("epoch", sink), peer.role, sink);
    let ping_section = section.section("ping", sink);
    check_ping_source(&ping_section, &peer.addresses, sink);
    let ping = read_ping(&ping_section, &sides, &lifetime, sink);
    let child = Child {
        template,
        on_stop: read_choice(section, "on-stop", &ON_STOPS, sink),
        interface: interface::read(section, sink),
        ping,
        epoch,
        recovery: read_recovery(&section.section("recovery", sink), sink),
        esp: algorithms::read_esp(&suites.section("esp", sink), sink),
    };
    (child, sides.whole())
}

fn read_policy(
    section: &Section<'_>,
    templates: &mut Templates<'_>,
    sink: &mut Sink,
) -> Option<Named> {
    if !section.has("policy") {
        section.missing("policy", "policy = \"site-to-site\"", sink);
    }
    let name = section.text("policy", sink)?;
    let template = templates.find(&name, sink)?;
    Some(Named {
        template,
        span: name.span,
    })
}

/// `None`: something that concerns the peer was reported.
fn assemble(
    name: &At<&str>,
    peer: Peer,
    child: Child,
    traffic: Option<&Traffic>,
) -> Option<TunnelConfig> {
    let (role, auth) = (peer.role?, peer.auth?);
    if !peer.is_right {
        return None;
    }
    let local_id = peer.local.id.map(|at| at.value).or(auth.subject)?;
    let networks = |side: fn(&Traffic) -> &Vec<At<IpNet>>| {
        let known = traffic.map(side).into_iter().flatten();
        known.map(|at| at.value).collect()
    };
    Some(TunnelConfig {
        name: TunnelName(name.value.into()),
        role,
        local: End {
            address: peer.local.address.value,
            id: local_id,
        },
        remote: End {
            address: peer.remote.address.value,
            id: peer.remote.id?.value,
        },
        auth: auth.config,
        local_traffic: networks(|traffic| &traffic.local),
        remote_traffic: networks(|traffic| &traffic.remote),
        template: child
            .template
            .map_or_else(template::unknown, |named| named.template.policy),
        start: peer
            .start
            .map_or(default_start(role, &peer.addresses), |start| start.value),
        addressing: peer.addresses.addressing,
        nat_traversal: peer.nat_traversal,
        on_stop: child.on_stop,
        interface: child.interface,
        path: peer.path,
        ping: child.ping,
        epoch: child.epoch,
        recovery: child.recovery,
        ike_sa: peer.ike_sa,
        ike: peer.ike,
        esp: child.esp,
    })
}

/// A client starts with its first packet, if it has an address to send it from; a server waits for
/// its client.
fn default_start(role: Role, addresses: &Virtual) -> Start {
    match role {
        Role::Client if addresses.addressing.request().is_some() => Start::Always,
        Role::Client => Start::OnDemand,
        Role::Server => Start::Listen,
    }
}

/// Pings come from the assigned address, which nobody knows before.
fn check_ping_source(section: &Section<'_>, addresses: &Virtual, sink: &mut Sink) {
    if addresses.addressing.request().is_some() && section.has("source") {
        let title = "pings of a tunnel with virtual addresses have a source already";
        sink.error(section.span_of("source"), title, "fixed here")
            .also(addresses.span.clone(), "assigned by the server")
            .help("remove `ping.source`: they come from the address that the server assigns");
    }
}

fn check_name(name: &At<&str>, sink: &mut Sink) {
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet);
    let begins = name.value.bytes().next();
    let good = begins.is_some_and(|octet| octet.is_ascii_alphanumeric())
        && name.value.len() <= NAME_LEN_MAX
        && name.value.bytes().all(plain);
    if !good {
        let title = format!("{} can't be a tunnel's name", quoted(name.value));
        sink.error(name.span.clone(), title, "not a plain name")
            .help(format!(
                "letters, digits, -, _ and dots, at most {NAME_LEN_MAX}, beginning with a letter or digit"
            ));
    }
}

/// One end, as far as it could be read.
struct ReadEnd {
    address: At<Option<IpAddr>>,
    /// No address is given, or `%any` (rather than a wrong one).
    is_any: bool,
    /// `None`: reported.
    id: Option<At<Identity>>,
}

impl ReadEnd {
    fn outer(&self) -> Outer {
        match self.address.value {
            Some(address) => Outer::Known(address),
            None if self.is_any => Outer::Any,
            None => Outer::Wrong,
        }
    }
}

fn read_end(section: &Section<'_>, example_id: &str, sink: &mut Sink) -> ReadEnd {
    let text = section.text("address", sink);
    let is_any = match &text {
        Some(text) => text.value == ANY,
        None => section.is_present() && !section.has("address"),
    };
    let span = text
        .as_ref()
        .map_or(section.span(), |text| text.span.clone());
    let value = text
        .filter(|text| text.value != ANY)
        .and_then(|text| values::outer_address(&text, sink));
    let id = match (section.text("id", sink), value) {
        (Some(text), _) => values::identity(&text, sink).map(|value| At {
            value,
            span: text.span,
        }),
        // The certificate's subject, which is not known yet.
        (None, _) if section.has("cert") => None,
        (None, Some(value)) => Some(At {
            value: Identity::Address(value),
            span: span.clone(),
        }),
        (None, None) => {
            if section.is_present() && !section.has("id") && is_any {
                let example =
                    format!("id = {example_id:?}; only with an address can it be left out");
                section.missing("id", &example, sink);
            }
            None
        }
    };
    ReadEnd {
        address: At { value, span },
        is_any,
        id,
    }
}

fn check_outer_families(local: &ReadEnd, remote: &ReadEnd, sink: &mut Sink) {
    let (Some(ours), Some(theirs)) = (local.address.value, remote.address.value) else {
        return;
    };
    if ours.is_ipv4() != theirs.is_ipv4() {
        let title = "the ends have addresses of different IP versions";
        sink.error(remote.address.span.clone(), title, theirs.to_string())
            .also(local.address.span.clone(), ours.to_string())
            .help("ESP goes from one of these addresses to the other: use one IP version");
    }
}

/// Who starts must know where the peer is.
fn check_reachable(
    section: &Section<'_>,
    role: Option<Role>,
    remote: &ReadEnd,
    start: Option<&At<Start>>,
    sink: &mut Sink,
) {
    if !remote.is_any {
        return;
    }
    let at = remote.address.span.clone();
    match (role, start.map(|start| start.value)) {
        (Some(Role::Client), _) => {
            sink.error(
                at,
                "a client must know its server's address",
                "no address here",
            )
            .help("remote = { address = \"203.0.113.1\" }, for example");
        }
        (_, Some(Start::Always | Start::OnDemand)) => {
            let span = start.map_or(section.span(), |start| start.span.clone());
            sink.error(
                span,
                "a tunnel with any peer can't be started from here",
                "starts from here",
            )
            .also(at, "any peer")
            .help("write start = \"listen\", or give the peer's address");
        }
        (_, Some(Start::Listen) | None) => {}
    }
}
