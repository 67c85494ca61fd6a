//! One `[tunnel.NAME]`: from its sections to a [`TunnelConfig`], with everything checked that one
//! tunnel alone can get wrong.

use std::net::IpAddr;

use epochgate_controller::config::{
    End, Identity, NatTraversal, OnStop, Role, Start, TunnelConfig, TunnelName,
};

use crate::addressing::{self, Pools, Virtual};
use crate::algorithms;
use crate::auth::{self, Ends};
use crate::diagnostic::{Sink, Span, quoted};
use crate::epoch::{read_epoch, read_ping, read_recovery};
use crate::files::Files;
use crate::ike_sa;
use crate::interface;
use crate::keys::NAME_LEN_MAX;
use crate::path;
use crate::reader::{At, Section};
use crate::template::Templates;
use crate::traffic::{self, Surroundings, Traffic};
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

/// A tunnel that is right in itself, with the places that checks between tunnels point at.
pub(crate) struct Draft {
    pub(crate) config: TunnelConfig,
    pub(crate) name_span: Span,
    pub(crate) remote_id_span: Span,
    pub(crate) traffic: Traffic,
}

/// Reads one tunnel. `None`: something was reported.
pub(crate) fn read(
    name: &At<&str>,
    section: &Section<'_>,
    pools: &Pools,
    templates: &mut Templates<'_>,
    files: &dyn Files,
    sink: &mut Sink,
) -> Option<Draft> {
    let before = sink.count();
    check_name(name, sink);
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
    let auth = auth::read(&ends, files, sink);
    check_outer_families(&local, &remote, sink);
    let start = read_word(section, "start", &STARTS, sink);
    check_reachable(section, role, &remote, start.as_ref(), sink);
    let nat_traversal = read_choice(section, "nat-t", &NAT_TRAVERSALS, sink);
    let on_stop = read_choice(section, "on-stop", &ON_STOPS, sink);

    let addresses = addressing::read(
        &section.section("virtual", sink),
        role,
        start.as_ref(),
        pools,
        sink,
    );
    let policy = section.text("policy", sink);
    if !section.has("policy") {
        section.missing("policy", "policy = \"site-to-site\"", sink);
    }
    let template = policy.and_then(|name| {
        let template = templates.find(&name, sink)?;
        Some((template, name.span))
    });
    let traffic_section = section.section("traffic", sink);
    let traffic = match (role, &template) {
        (Some(role), Some((template, policy_span))) if !addresses.is_wrong => {
            let around = Surroundings {
                role,
                template,
                local_address: local.address.value,
                remote_address: remote.address.value,
                policy_span: policy_span.clone(),
                addresses: &addresses,
            };
            traffic::read(&traffic_section, &around, sink)
        }
        _ => None,
    };
    let interface = interface::read(section, sink);
    let path = path::read(&section.section("path", sink), sink);
    let epoch = read_epoch(&section.section("epoch", sink), role, sink);
    let recovery = read_recovery(&section.section("recovery", sink), sink);
    let ping_section = section.section("ping", sink);
    check_ping_source(&ping_section, &addresses, sink);
    let ping = read_ping(&ping_section, traffic.as_ref(), &epoch, sink);
    let ike_sa = ike_sa::read(&section.section("ike", sink), sink);
    let suites = section.section("algorithms", sink);
    let ike = algorithms::read_ike(&suites.section("ike", sink), sink);
    let esp = algorithms::read_esp(&suites.section("esp", sink), sink);

    if sink.count() > before {
        return None;
    }
    let (role, mut traffic, (template, _)) = (role?, traffic?, template?);
    if addresses.addressing.pools().is_some() {
        // Known once they are leased; the pools' own networks are nobody's policies.
        traffic.remote.clear();
    }
    let auth = auth?;
    let (local_id, remote_id) = (local.id.map(|at| at.value).or(auth.subject)?, remote.id?);
    let networks = |side: &[At<_>]| side.iter().map(|at| at.value).collect();
    let config = TunnelConfig {
        name: TunnelName(name.value.into()),
        role,
        local: End {
            address: local.address.value,
            id: local_id,
        },
        remote: End {
            address: remote.address.value,
            id: remote_id.value,
        },
        auth: auth.config,
        local_traffic: networks(&traffic.local),
        remote_traffic: networks(&traffic.remote),
        template: template.policy,
        start: start.map_or(default_start(role, &addresses), |start| start.value),
        addressing: addresses.addressing,
        nat_traversal,
        on_stop,
        interface,
        path,
        ping,
        epoch,
        recovery,
        ike_sa,
        ike,
        esp,
    };
    Some(Draft {
        config,
        name_span: name.span.clone(),
        remote_id_span: remote_id.span,
        traffic,
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
    if addresses.addressing.request().is_some()
        && let Some(source) = section.text("source", sink)
    {
        let title = "pings of a tunnel with virtual addresses have a source already";
        sink.error(source.span, title, "fixed here")
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
